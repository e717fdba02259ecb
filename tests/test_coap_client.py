"""The server as a process, and the client of libcoap, which nobody here has written, at its CoAP
(RFC 7252, RFC 6690, RFC 7959)."""

from __future__ import annotations

import shutil
import subprocess
import time
from typing import TYPE_CHECKING

import pytest
from processes import Running
from server_world import SERIAL, registration

from unbrick.server.edge.client import ServerClient

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from unbrick.firmware.signed import Releases

NAMES = ("coap-client", "coap-client-notls", "coap-client-openssl", "coap-client-gnutls")
ANSWER_TIMEOUT_S = 60
"""How long a client waits for an answer that is to come."""
SILENCE_S = 2
"""How long it waits for one that is not to come."""

LINKS = (
    "</call>;ct=60,</hang-up>;ct=60,</key>;ct=60,</register>;ct=60,</report>;ct=60,</result>;ct=60"
)


class Client:
    """The program, and where the server's CoAP is."""

    def __init__(self, program: str, url: str) -> None:
        self._program = program
        self.url = url

    def get(self, path: str, *options: str, wait: int = ANSWER_TIMEOUT_S) -> str:
        """What it prints of the answer: the payload, or code and diagnostics of an error."""
        command = [self._program, "-B", str(wait), *options, f"{self.url}/{path}"]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=2 * ANSWER_TIMEOUT_S, check=True
        )
        return (done.stdout + done.stderr).strip()


@pytest.fixture
def program() -> str:
    """The path of the client; without it the test is skipped."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.skip(f"none of {', '.join(NAMES)} is installed (apt install libcoap3-bin)")
    return found


@pytest.fixture
def server(program: str, tmp_path: Path) -> Iterator[tuple[Client, ServerClient]]:
    """A server that has just started: its CoAP and its HTTP."""
    start = ("server", "start", "--insecure", "--coap-port", 0, "--http-port", 0)
    with Running(*start, "--database", tmp_path / "server.db") as running:
        ready = running.wait_for(r"server: ready, (coap://\S+) (http://\S+)")
        with ServerClient(ready[2]) as http:
            yield Client(program, ready[1]), http


@pytest.fixture
def client(server: tuple[Client, ServerClient]) -> Client:
    """The client of the server's CoAP."""
    return server[0]


def test_it_finds_the_resources(client: Client) -> None:
    assert client.get(".well-known/core") == LINKS
    assert client.get(".well-known/core?rt=temperature") == LINKS
    assert client.get(".well-known/core", "-A", "40") == LINKS
    assert client.get(".well-known/core", "-b", "16") == LINKS  # in six blocks
    assert client.get(".well-known/core", "-A", "60") == "4.06"
    assert client.get(".well-known/core", "-m", "post") == "4.05"
    assert client.get("nothing") == "4.04"


def test_it_registers_and_fetches_the_file(
    server: tuple[Client, ServerClient], unbrick_releases: Releases, tmp_path: Path
) -> None:
    client, http = server
    image = unbrick_releases.signed["1.1.0"]
    payload, received = tmp_path / "registration", tmp_path / "file"
    payload.write_bytes(registration().encode())
    assert client.get("register", "-m", "post", "-t", "60", "-f", str(payload)) == ""
    assert [terminal["serial"] for terminal in http.terminals()] == [SERIAL]
    http.publish(image)
    update = http.start(SERIAL, "1.1.0")["id"]
    while http.update(update)["state"] == "pending":
        time.sleep(0.05)
    for options in ((), ("-A", "42"), ("-b", "256")):
        assert client.get(f"file/{update}", "-o", str(received), *options) == ""
        assert received.read_bytes() == image
    assert client.get(f"file/{update}", "-A", "60") == "4.06"
    blocks = -(-len(image) // 1024)
    assert client.get(f"file/{update}", "-b", f"{blocks},1024").startswith("4.02 option 23 ")


@pytest.mark.slow
def test_it_is_told_of_an_option_that_is_not_recognised(client: Client) -> None:
    assert client.get("register", "-O", "65001,x") == "4.02 option 65001 is not recognised"
    assert client.get(".well-known/core", "-O", "65000,x") == LINKS
    assert client.get("register", "-O", "17,0x00003c") == "4.02 option 17 is not recognised"
    assert client.get("register?x=1") == "4.02 option 15 is not recognised"
    assert client.get("register", "-N", "-O", "65001,x", wait=SILENCE_S) == ""
    assert client.get(".well-known/core", "-N") == LINKS


def test_it_finds_no_proxy(client: Client) -> None:
    url = client.url
    client.url = "coap://example.org"
    assert client.get("status", "-P", url) == "5.05"
    assert client.get("status", "-N", "-P", url) == "5.05"
