"""The customer center as a process of its own, beside the server (row B11)."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from contextlib import closing
from pathlib import Path

import httpx
import pytest
from center_world import PASSWORD
from processes import Running, unbrick

from unbrick.center.operators.accounts import Passwords, add_operator
from unbrick.center.operators.database import SqlAccounts
from unbrick.center.operators.records import Role


def start_server(folder: Path) -> tuple[Running, str]:
    options = ("--coap-port", 0, "--http-port", 0, "--database", folder / "server.db")
    server = Running("server", "start", "--insecure", *options)
    return server, server.wait_for(r"server: ready, \S+ (http://\S+)").group(1)


def center_options(folder: Path, server_url: str) -> tuple[object, ...]:
    return (
        *("center", "start", "--port", 0, "--server-url", server_url),
        *("--database", folder / "server.db", "--accounts", folder / "center.db"),
    )


def sign_in(url: str) -> httpx.Client:
    """A browser that takes a loopback address for a safe place, as browsers do."""
    client = httpx.Client(base_url=url, trust_env=False)
    response = client.post("/sign-in", data={"name": "cleo", "password": PASSWORD})
    assert response.status_code == 303, response.text
    cookie = response.headers["set-cookie"].partition(";")[0]
    client.headers["cookie"] = cookie
    return client


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_claim_b11_center_and_server_are_processes_and_end_cleanly(
    tmp_path: Path, number: int
) -> None:
    accounts = SqlAccounts(str(tmp_path / "center.db"))
    add_operator(accounts, Passwords(), "cleo", Role.CLERK, PASSWORD, 0.0)
    accounts.close()
    server, server_url = start_server(tmp_path)
    with server, Running(*center_options(tmp_path, server_url)) as center:
        url = center.wait_for(r"center: ready, (http://\S+)").group(1)
        with closing(sign_in(url)) as clerk:
            assert "No terminal has registered yet" in clerk.get("/").text
            with clerk.stream("GET", "/live?topic=terminals") as stream:
                assert next(stream.iter_lines()) == "retry: 2000"
                # A stream that is open does not keep the process.
                assert center.end(number) == 0
        assert server.end() == 0
    assert "Traceback" not in "".join(center.output)


@pytest.mark.slow
def test_a_center_answers_no_name_that_was_bound_to_it(tmp_path: Path) -> None:
    options = (*center_options(tmp_path, "http://127.0.0.1:1"), "--host-name", "center.example")
    with Running(*options) as center:
        url = center.wait_for(r"center: ready, (http://\S+)").group(1)
        with httpx.Client(base_url=url, trust_env=False) as browser:
            for name, status in (
                ("center.example", 200),
                (url.removeprefix("http://"), 200),
                ("evil.example", 421),
            ):
                said = browser.get("/sign-in", headers={"host": name})
                assert said.status_code == status, name
                assert ("Password" in said.text) == (status == 200)
            rebound = {"host": "evil.example", "origin": "http://evil.example"}
            guess = {"name": "cleo", "password": PASSWORD}
            assert browser.post("/sign-in", data=guess, headers=rebound).status_code == 421
        assert center.end() == 0


def test_without_operators_it_says_how_to_make_one(tmp_path: Path) -> None:
    with Running(*center_options(tmp_path, "http://127.0.0.1:1")) as center:
        said = center.wait_for(r"nobody can sign in, `(unbrick center add-operator \S+ .*)`")
        assert str(tmp_path / "center.db") in said.group(1)
        assert center.end() == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--menu", "none.yaml"), "the menu none.yaml cannot be read"),
        (("--host", "0.0.0.0"), "nobody could sign in at 0.0.0.0 without HTTPS"),  # noqa: S104
        (("--server-url", "x"), "no address of a server"),
        (("--accounts", "/none/x.db"), "accounts cannot be opened"),
        (("--host", "192.0.2.1", "--behind-proxy"), "TCP port 8090 of 192.0.2.1 cannot be used"),
    ],
)
def test_what_is_wrong_with_a_call_is_one_line(
    tmp_path: Path, options: tuple[str, ...], words: str
) -> None:
    result = unbrick("center", "start", "--database", tmp_path / "s.db", *options, cwd=tmp_path)
    assert result.returncode == 2
    (line,) = result.stderr.splitlines()
    assert words in line


@pytest.mark.slow
def test_a_password_is_read_from_a_pipe(tmp_path: Path) -> None:
    command = ("center", "add-operator", "cleo", "--role", "clerk")
    environment = {**os.environ, "UNBRICK_CENTER_ACCOUNTS": str(tmp_path / "c.db")}
    result: subprocess.CompletedProcess[str] = unbrick(
        *command, input=f"{PASSWORD}\n{PASSWORD}\n", env=environment
    )
    assert result.returncode == 0, result.stderr
    assert not re.search(PASSWORD, result.stdout + result.stderr)
    result = unbrick(*command, input="short\nshort\n", env=environment)
    assert result.returncode == 2
    assert "a password has 12 to 256 characters" in result.stderr
