"""Row C4: terminal, bridge, server and commands as processes of their own."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pexpect
import pytest
from patience import PATIENCE_S, until
from pexpect import fdpexpect
from processes import Running, unbrick

from unbrick.image.factory import read_identity
from unbrick.image.hexfile import to_hex
from unbrick.layout import reference_layout
from unbrick.server.edge.client import ServerClient

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from unbrick.firmware.signed import Releases

LAYOUT = reference_layout()
APPLICATION = LAYOUT.partition("application")
READY = r"ready: wire (\S+) modem (\S+)\n"


@pytest.fixture(params=["inprocess", "qemu"])
def engine(request: pytest.FixtureRequest) -> str:
    if request.param == "qemu":
        request.getfixturevalue("qemu")
    return str(request.param)


def run_json(*arguments: object) -> object:
    done = unbrick(*arguments, "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


@pytest.mark.slow
def test_claim_c4_an_update_through_the_bridge_between_separate_processes(
    engine: str, firmware: Path, unbrick_releases: Releases, tmp_path: Path
) -> None:
    nor = tmp_path / "nor.bin"
    image = tmp_path / "terminal-1.1.0.hex"
    image.write_text(to_hex(unbrick_releases.signed["1.1.0"]))
    with (
        Running(
            *("run", "--engine", engine, "--firmware", firmware, "--nor", nor),
            *("--serial", "T-77"),
        ) as terminal,
        Running(
            *("server", "start", "--coap-port", 0, "--http-port", 0),
            *("--database", tmp_path / "server.db"),
        ) as server,
    ):
        coap, url = server.wait_for(r"coap://(\S+) (http://\S+)\n").groups()
        modem = terminal.wait_for(READY)[2]
        enrol(tmp_path / "nor.bin.enrolment", url)
        with Running("bridge", "--modem", modem, "--server", coap) as bridge:
            bridge.wait_for("bridge: ready")
            here = ("--server-url", url)
            published = unbrick("publish", image, *here)
            assert published.returncode == 0, published.stderr
            registered(url, "1.0.0")
            ended = run_json("update", "start", "T-77", "1.1.0", "--wait", *here)
            assert isinstance(ended, dict)
            assert ended["state"] == "succeeded"
            registered(url, "1.1.0")
            assert bridge.end() == 0
        assert terminal.end() == 0
        assert server.end() == 0
    cells = nor.read_bytes()
    assert cells[APPLICATION.offset :].startswith(unbrick_releases.signed["1.1.0"])
    assert read_identity(cells).serial == "T-77"


def enrol(file: Path, url: str) -> None:
    """Let the server know a terminal."""
    done = unbrick("server", "enrol", file, "--server-url", url)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "1 terminal may register\n"


def registered(url: str, version: str) -> None:
    """Wait until the server knows T-77 with this version."""
    with ServerClient(url) as client:
        until(
            lambda: any(
                terminal["serial"] == "T-77" and terminal["version"].startswith(version)
                for terminal in client.terminals()
            ),
            f"the registration of T-77 with {version}",
        )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_terminal_that_is_told_to_end_keeps_its_nor(
    engine: str, number: int, firmware: Path, unbrick_releases: Releases, tmp_path: Path
) -> None:
    nor = tmp_path / "nor.bin"
    with Running("run", "--engine", engine, "--firmware", firmware, "--nor", nor) as terminal:
        wire = terminal.wait_for(READY)[1]
        with at_the_wire(wire) as person:
            say(person, "pb add Alice 112")
        assert terminal.end(number) == 0
        terminal.wait_for("terminal switched off")
    cells = nor.read_bytes()
    assert len(cells) == LAYOUT.board.nor.modelled
    assert cells[APPLICATION.offset :].startswith(unbrick_releases.signed["1.0.0"])
    user = LAYOUT.partition("userdata")
    assert b"Alice" in cells[user.offset : user.end]
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["nor.bin", "nor.bin.enrolment"]


def say(person: fdpexpect.fdspawn[str] | pexpect.spawn[str], line: str) -> str:
    """Type a line as a person does, see it echoed; returns the answer."""
    person.send(line + "\r")
    person.expect_exact(line + "\r\n")
    person.expect_exact("\r\n> ")
    return str(person.before)


@contextmanager
def at_the_wire(path: str) -> Iterator[fdpexpect.fdspawn[str]]:
    """A person whose program has opened the wire's pseudo-terminal, after the first prompt."""
    port = os.open(path, os.O_RDWR | os.O_NOCTTY)
    person = fdpexpect.fdspawn(port, timeout=PATIENCE_S, encoding="utf-8")
    person.expect_exact("\r\n> ")
    yield person
    person.close()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--wire", "usb:1"), "not a port: usb:1. Write pty or tcp:PORT"),
        (("--installed", "9.9.9"), "there is no release 9.9.9. Choose from 1.0.0"),
        (("--nor", "{tmp}/none/nor.bin"), "cannot write"),
    ],
)
def test_what_run_cannot_do_is_said_in_one_line(
    options: tuple[str, str], words: str, firmware: Path, tmp_path: Path
) -> None:
    filled = [option.format(tmp=tmp_path) for option in options]
    done = unbrick("run", "--firmware", firmware, *filled)
    assert done.returncode == 2
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_tcp_port_that_is_taken_is_said(firmware: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = taken.getsockname()[1]
        done = unbrick("run", "--firmware", firmware, "--modem", f"tcp:{number}")
    assert done.returncode == 2
    assert done.stderr == (
        f"unbrick: cannot listen on 127.0.0.1:{number}: Address already in use. "
        "Choose another port\n"
    )


@pytest.mark.slow
def test_an_image_for_which_no_sram_can_be_freed_is_refused_with_its_reason(
    firmware: Path, unbrick_releases: Releases, tmp_path: Path
) -> None:
    image = tmp_path / "terminal.bin"
    image.write_bytes(unbrick_releases.signed["1.1.0"])
    database = tmp_path / "server.db"
    with (
        Running(
            *("run", "--firmware", firmware, "--serial", "T-77", "--enrolment", tmp_path / "key")
        ) as terminal,
        Running(
            *("server", "start", "--coap-port", 0, "--http-port", 0, "--database", database)
        ) as server,
    ):
        coap, url = server.wait_for(r"coap://(\S+) (http://\S+)\n").groups()
        wire, modem = terminal.wait_for(READY).groups()
        enrol(tmp_path / "key", url)
        with (
            Running("bridge", "--modem", modem, "--server", coap) as bridge,
            at_the_wire(wire) as person,
        ):
            bridge.wait_for("bridge: ready")
            for task in ("browser", "media", "maps", "logger"):
                say(person, f"hold {task}")
            assert unbrick("publish", image, "--server-url", url).returncode == 0
            registered(url, "1.0.0")
            done = unbrick("update", "start", "T-77", "1.1.0", "--wait", "--server-url", url)
    assert done.returncode == 1
    said = done.stderr.splitlines()[-1]
    assert said.startswith("unbrick: update 1 refused: ")
    assert re.search(r"\d+ bytes", said)


def test_a_port_that_does_not_exist_is_said(tmp_path: Path, unbrick_releases: Releases) -> None:
    image = tmp_path / "terminal.bin"
    image.write_bytes(unbrick_releases.signed["1.1.0"])
    for command in (("restore", "/dev/none", image), ("bridge", "--modem", "/dev/none")):
        done = unbrick(*command)
        assert done.returncode == 2
        assert "/dev/none" in done.stderr
        assert len(done.stderr.splitlines()) == 1, done.stderr


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"hello", "not Intel HEX"),
        (b":020000048000" + b"7A\n:0100000041BE\n:00000001FF\n", "this board"),
    ],
)
def test_a_restoration_file_that_cannot_be_one_is_said(
    content: bytes, words: str, tmp_path: Path
) -> None:
    file = tmp_path / "terminal.hex"
    file.write_bytes(content)
    done = unbrick("restore", "/dev/none", file)
    assert done.returncode == 2
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 1
