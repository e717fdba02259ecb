"""The ports of ``unbrick run``: nothing that is typed is lost, and nobody is told stale things."""

from __future__ import annotations

import os
import re
import select
import shutil
import subprocess
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from processes import Running
from rich.console import Console

from unbrick.cli.run import LOSSES_INTERVAL_S, _Losses, open_port
from unbrick.console.missed import KEPT, MissedLines
from unbrick.console.typist import Typist
from unbrick.layout import reference_layout

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from unbrick.bench.system import System

LAYOUT = reference_layout()
LINES = 1000
READY = r"ready: wire (\S+) modem (\S+)\n"
SILENCE_S = 60
"""How long a terminal that has more to say is silent at most."""
APPLICATION = LAYOUT.partition("application")


@pytest.fixture(params=["inprocess", "qemu"])
def engine(request: pytest.FixtureRequest) -> str:
    """The name of each engine that runs in real time."""
    if request.param == "qemu":
        request.getfixturevalue("qemu")
    return str(request.param)


@pytest.fixture
def wire(engine: str, firmware: Path) -> Iterator[int]:
    """The wire of a terminal that has been started, opened by a program."""
    with Running("run", "--engine", engine, "--firmware", firmware) as terminal:
        path = terminal.wait_for(READY)[1]
        descriptor = os.open(path, os.O_RDWR | os.O_NOCTTY)
        yield descriptor
        os.close(descriptor)


def write_all(descriptor: int, data: bytes) -> None:
    """Write as fast as it is taken."""
    while data:
        data = data[os.write(descriptor, data) :]


def read_until(descriptor: int, enough: Callable[[bytes], bool]) -> bytes:
    """What comes until it is enough, or until nothing more comes."""
    said = b""
    while not enough(said):
        assert select.select([descriptor], [], [], SILENCE_S)[0], f"then nothing: {said[-500:]!r}"
        said += os.read(descriptor, 65536)
    return said


@pytest.mark.slow
def test_a_thousand_pasted_lines_are_all_understood(wire: int) -> None:
    lines = [f"line{number:04}" for number in range(LINES)]
    pasted = "".join(f"{line}\r" for line in lines).encode()
    paste = threading.Thread(target=write_all, args=(wire, pasted), daemon=True)
    paste.start()
    said = read_until(wire, lambda said: said.count(b": type help") >= LINES)
    assert re.findall(r'no command "(.*?)": type help', said.decode()) == lines


@pytest.mark.slow
def test_who_opens_the_wire_late_is_told_of_the_start(engine: str, firmware: Path) -> None:
    with Running("run", "--engine", engine, "--firmware", firmware) as terminal:
        path = terminal.wait_for(READY)[1]
        for start in (b"boot: unbrick boot", b""):  # for the second one nothing of it is left
            descriptor = os.open(path, os.O_RDWR | os.O_NOCTTY)
            write_all(descriptor, b"id\r")
            said = read_until(descriptor, lambda said: b"UB-000001" in said)
            os.close(descriptor)
            assert said.startswith(start)
        assert b"boot:" not in said


@pytest.mark.slow
def test_sb_restores_a_terminal_whose_wire_nobody_has_read_for_a_while(
    unbrick_make_system: Callable[..., System], tmp_path: Path
) -> None:
    sb = shutil.which("sb")
    if sb is None:
        pytest.skip("sb is not installed (apt install lrzsz)")
    system = unbrick_make_system(installed=None, speed=8.0)
    signed = system.releases.signed["1.1.0"]
    image = tmp_path / "terminal.bin"
    image.write_bytes(signed)
    typist = Typist(system.engine.wire)
    port, path = open_port(
        typist, "pty", rate=LAYOUT.board.line_rate, missed=MissedLines(), room=typist.room
    )
    system.bench.peers[:] = [port, typist]
    system.engine.power_on()
    system.bench.run_for(30)
    with (
        Path(path).open("r+b", buffering=0) as opened,
        subprocess.Popen(
            [sb, "-k", str(image)], stdin=opened, stdout=opened, stderr=subprocess.PIPE
        ) as sender,
    ):
        try:
            assert system.bench.run_until(lambda: sender.poll() is not None, 3600)
        finally:
            sender.kill()
        assert sender.stderr is not None
        assert sender.returncode == 0, sender.stderr.read()
    assert system.bench.run_until(
        lambda: system.engine.read_nor()[APPLICATION.offset :].startswith(signed), 30
    )
    port.close()


# What was missed -------------------------------------------------------------------------------


def missed(*said: bytes, read: bool = False) -> bytes:
    """What is left for a program that comes after the terminal has said all this."""
    lines = MissedLines()
    for part in said:
        lines.hear(part, read=read)
    return lines.take()


START = b"boot: unbrick boot 1.0.0\r\n"
APPLICATION_START = START + b"terminal: Call us\r\n> "
RESTORATION = (
    START + b"restoration: no application\r\nrestoration: send the signed image by YMODEM\r\n"
)


def test_the_lines_since_the_last_start_are_kept() -> None:
    assert missed(b"> reboot\r\n", APPLICATION_START) == APPLICATION_START
    assert missed(b"> reb", b"oot\r\nbo", b"ot: unbrick", b" boot 1.0.0\r\n") == START
    assert missed(b"no boot: here\r\n") == b"no boot: here\r\n"


def test_invitations_to_a_sender_are_not_kept() -> None:
    text = b"link: registered as in restoration\r\n"
    assert missed(RESTORATION, *[b"C"] * 60, text, b"C" * 5) == RESTORATION + text
    assert missed(*(bytes((byte,)) for byte in RESTORATION + b"CC" + text)) == RESTORATION + text
    assert missed(RESTORATION, *[text + b"C"] * 1000).count(b"C") == 0
    assert missed(RESTORATION, b"CCC\r\n", APPLICATION_START) == APPLICATION_START


def test_invitations_are_not_kept_after_somebody_has_read_the_lines_before_them() -> None:
    lines = MissedLines()
    lines.hear(RESTORATION + b"CCC", read=True)
    lines.hear(b"CCC", read=False)
    lines.hear(b"link: registered\r\n", read=False)
    assert lines.take() == b"link: registered\r\n"
    assert lines.take() == b""


def test_what_was_read_is_not_told_again_and_the_rest_is_bounded() -> None:
    assert missed(START, b"> ", read=True) == b""
    assert len(missed(*[b"x" * 100 + b"\r\n"] * 1000)) == KEPT


# What is lost ----------------------------------------------------------------------------------


class Place:
    """A port, or an engine, that has lost some bytes."""

    def __init__(self) -> None:
        self.lost = 0
        self.overruns: tuple[int, ...] = ()


def test_bytes_that_are_lost_are_said(capsys: pytest.CaptureFixture[str]) -> None:
    engine, wire_port, modem_port = Place(), Place(), Place()
    losses = _Losses(
        {"wire": wire_port, "modem": modem_port},  # type: ignore[dict-item]
        lambda: engine.overruns,
        Console(width=200),
    )

    def said(now: float) -> list[str]:
        losses.step(now)
        return capsys.readouterr().out.splitlines()

    assert said(0.0) == []
    wire_port.lost = 7
    assert said(1.0) == ["7 bytes were lost: the program at the wire does not read"]
    wire_port.lost = 9
    assert said(2.0) == [], "not all the time"
    assert said(1.0 + LOSSES_INTERVAL_S) == [
        "9 bytes were lost: the program at the wire does not read"
    ]
    engine.overruns = (0, 3)
    assert said(100.0) == [
        "3 bytes were lost: they came to the modem faster than the terminal took them"
    ]
    assert said(200.0) == []
