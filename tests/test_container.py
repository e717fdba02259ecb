"""The container file, built and run by podman.

The tests fetch no image: whoever has podman and the image below it has them run.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest
from patience import PATIENCE_S
from wheels import ROOT, build, copy_checkout

if TYPE_CHECKING:
    from collections.abc import Iterator

CONTAINER = ROOT / "deploy" / "Containerfile"
PING, RESET = b"\x40\x00\x12\x34", b"\x70\x00\x12\x34"
"""An empty confirmable message of CoAP, and the answer of whoever speaks it (RFC 7252, 4.3)."""


def podman(*words: object) -> str:
    """What podman says when it has done so."""
    command = ["podman", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE_S)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The image that is built as docs/deployment.md says."""
    if shutil.which("podman") is None:
        pytest.skip("podman is missing (apt install podman)")
    (base,) = (line[5:] for line in CONTAINER.read_text().splitlines() if line.startswith("FROM "))
    if subprocess.run(["podman", "image", "exists", base], check=False).returncode:
        pytest.skip(f"the image below the container's is missing (podman pull {base})")
    folder = tmp_path_factory.mktemp("container")
    wheel = build("build_wheel", copy_checkout(folder / "tree"), folder / "dist")
    name = f"unbrick-{uuid4().hex}"
    podman("build", "--format", "docker", "--file", CONTAINER, "--tag", name, wheel.parent)
    yield name
    podman("rmi", "--force", name)


@pytest.fixture
def volume(image: str) -> Iterator[str]:
    """A volume that only this test has."""
    name = f"{image}-{uuid4().hex}"
    podman("volume", "create", name)
    yield name
    podman("volume", "rm", "--force", name)


@contextmanager
def running(image: str, volume: str, *options: str) -> Iterator[str]:
    """A container that is ready, by its name; told to end, it must have ended well."""
    name = f"{image}-{uuid4().hex}"
    published = ("--publish", "127.0.0.1::5683/udp", "--volume", f"{volume}:/var/lib/unbrick")
    command = ["podman", "run", "--rm", "--name", name, *published, image, *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    watchdog = threading.Timer(PATIENCE_S, process.kill)
    watchdog.start()
    try:
        said = ""
        while "server: ready, coap://0.0.0.0:5683" not in said:
            line = process.stdout.readline()
            assert line, f"the server did not start:\n{said}"
            said += line
        yield name
        podman("kill", "--signal", "TERM", name)
        assert process.wait(PATIENCE_S) == 0
    finally:
        watchdog.cancel()
        subprocess.run(["podman", "rm", "--force", name], check=False, capture_output=True)
        process.wait(PATIENCE_S)
        process.stdout.close()


def ping(container: str) -> bytes:
    """Ask the published port of CoAP from outside of the container."""
    host, _, port = podman("port", container, "5683/udp").strip().rpartition(":")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
        asker.settimeout(PATIENCE_S)
        asker.sendto(PING, (host, int(port)))
        return asker.recv(64)


@pytest.mark.slow(first=True)
def test_a_container_keeps_what_it_was_told_and_ends_when_it_is_told(
    image: str, volume: str
) -> None:
    token = ("unbrick", "server", "token")
    with running(image, volume) as container:
        assert ping(container) == RESET
        podman("healthcheck", "run", container)
        podman("exec", container, *token, "add", "ada", "--role", "viewer", "--for-ever")
        assert podman("exec", container, "id", "--user", "--name").strip() == "unbrick"
    # As docs/deployment.md starts one behind a proxy.
    options = "--host 0.0.0.0 --http-host 0.0.0.0 --behind-proxy --host-name fleet.example"
    with running(image, volume, *options.split()) as container:
        podman("healthcheck", "run", container)
        assert "ada" in podman("exec", container, *token, "list")
        assert podman("exec", container, "unbrick", "terminals").startswith("no terminal")
        kept = podman("exec", container, "ls", "-A", "/var/lib/unbrick").split()
        assert sorted(kept) == ["unbrick", "unbrick-state"]
        assert podman("exec", container, "stat", "-c", "%a", "/var/lib/unbrick").strip() == "700"


@pytest.mark.slow
def test_a_container_that_is_not_healthy_is_found(image: str, volume: str) -> None:
    options = "--host 0.0.0.0 --http-host 127.0.0.1 --http-port 8081"
    with running(image, volume, *options.split()) as container:
        done = subprocess.run(["podman", "healthcheck", "run", container], check=False)
        assert done.returncode
