"""``unbrick run`` with a target's file: other programs talk to the chip's console."""

from __future__ import annotations

import io
import os
import select
import shutil
import signal
import socket
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest
import serial
from patience import PATIENCE_S
from processes import Running, unbrick
from small_firmware import build_small
from test_ab_updater import CHIPS, build

from unbrick.board import load_chip
from unbrick.console.missed import KEPT, LatestWords
from unbrick.target.console import DriverConsole, DriverRun
from unbrick.target.drivers import start_driver
from unbrick.target.load import load_target

READY = r"ready: wire (\S+)\n"

BROKEN = """
void start(void) {
    __builtin_trap();
}
"""


@pytest.fixture(scope="module", params=CHIPS)
def example(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The target file of the example, for each chip."""
    return build(tmp_path_factory.mktemp("example"), request.param)


@pytest.fixture(scope="module")
def idle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A target whose chip does nothing."""
    folder = tmp_path_factory.mktemp("idle")
    return build_small(folder, "stm32f103xb", 'void start(void) { for (;;) __asm("wfi"); }')


def send_update(port: serial.Serial, target: Path) -> None:
    """Do at the port what the target's driver does, and read no further than its last answer."""
    update = load_target(target).update
    assert update.payload is not None
    console = DriverConsole(port, 0.0)
    driver = DriverRun(start_driver(update.driver, console, update.payload, {}), console, None)
    driver.step(0.0)
    while not driver.finished:
        said = port.read(1)
        assert said, "then nothing"
        console.hear(said)
        driver.step(0.0)


@pytest.mark.slow
def test_a_program_at_the_port_updates_the_chip_and_the_flash_is_kept(
    example: Path, tmp_path: Path
) -> None:
    nor = tmp_path / "flash.bin"
    with Running("run", example, "--nor", nor) as chip:
        path = chip.wait_for(READY)[1]
        with serial.Serial(path, 115200, timeout=PATIENCE_S) as port:
            # Before it has said this, its UART may be off, and loses what comes.
            assert port.read_until(b"APP v1\r\n").endswith(b"APP v1\r\n")
            port.write(b"u")
            send_update(port, example)
            assert port.read_until(b"APP v2\r\n").endswith(b"APP v2\r\n")
        assert chip.end(signal.SIGTERM) == 0
        assert "terminal switched off\n" in chip.output
    found = load_target(example)
    image = nor.read_bytes()
    assert len(image) == found.chip.geometry.size
    assert image != found.start_image
    with Running("run", example, "--nor", nor, "--wire", "tcp:0") as chip:
        host, number = chip.wait_for(r"ready: wire tcp:(\S+)\n")[1].split(":")
        with socket.create_connection((host, int(number)), PATIENCE_S) as client:
            assert client.makefile("rb").readline() == b"APP v2\r\n"
        assert chip.end(signal.SIGINT) == 0


def read_byte(port: io.FileIO) -> bytes:
    """What the chip says next."""
    assert select.select([port], [], [], PATIENCE_S)[0], "then nothing"
    return port.read(1)


@pytest.mark.slow
def test_sx_updates_the_chip(example: Path) -> None:
    """It is what a person has at hand, and knows nothing of us.

    It reads ahead, and what it has read when it ends is lost: so it is handed byte by byte.
    """
    sx = shutil.which("sx")
    if sx is None:
        pytest.skip("sx is not installed (apt install lrzsz)")
    payload = load_target(example).update.payload
    assert payload is not None
    heard = b""
    with (
        Running("run", example) as chip,
        Path(chip.wait_for(READY)[1]).open("r+b", buffering=0) as port,
    ):
        while not heard.endswith(b"APP v1\r\n"):
            heard += read_byte(port)
        with subprocess.Popen(
            [sx, str(payload.path)],
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=port,
            stderr=subprocess.PIPE,
        ) as sending:
            assert sending.stdin is not None
            assert sending.stderr is not None
            said = b""
            while b"receive command now" not in said:
                said += sending.stderr.read(1) or pytest.fail(said.decode())
            port.write(b"u")  # the example invites a sender once, so that must be there by now
            while not heard.endswith(b"APP v2\r\n"):
                heard += (byte := read_byte(port))
                with suppress(BrokenPipeError):  # it has sent all, and has ended
                    sending.stdin.write(byte)
            sending.communicate(timeout=PATIENCE_S)
        assert sending.returncode == 0
        assert chip.end() == 0


@pytest.mark.slow
@pytest.mark.parametrize("chip_name", ["stm32f407xg", "nrf52832"])
def test_a_fault_is_told_with_its_source_line_and_ends_the_run(
    chip_name: str, tmp_path: Path
) -> None:
    target = build_small(tmp_path, chip_name, BROKEN)
    nor = tmp_path / "flash.bin"
    done = unbrick("run", target, "--nor", nor)
    assert done.returncode == 1
    (said,) = done.stderr.splitlines()
    assert said.startswith("unbrick: firmware fault in start (small.c:3): UsageFault at ")
    assert "undefined instruction" in said
    assert "`allowed` of [never]" in said
    assert nor.read_bytes() == load_target(target).start_image


@pytest.mark.slow
def test_a_fault_that_the_target_allows_ends_nothing(tmp_path: Path) -> None:
    target = build_small(tmp_path, "stm32f103xb", BROKEN)
    text = target.read_text(encoding="utf-8")
    target.write_text(text + '[never]\nallowed = ["usage-fault"]\n', encoding="utf-8")
    done = unbrick("run", target)
    assert done.returncode == 1
    assert "(usage-fault)" not in done.stderr
    assert "the core locked up" in done.stderr
    target.write_text(text + "[never]\nfaults = false\n", encoding="utf-8")
    with Running("run", target) as chip:
        chip.wait_for(READY)
        assert chip.end() == 0


@pytest.mark.parametrize("option", ["--modem=pty", "--serial=X", "--installed=2"])
def test_what_only_the_reference_terminal_has_is_refused(option: str, idle: Path) -> None:
    done = unbrick("run", idle, option)
    assert done.returncode == 2
    name = option.partition("=")[0]
    assert done.stderr == (
        f"unbrick: {name} is the reference terminal's, and not known for {idle}. Leave it out\n"
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["staged"], "not the file of a target: staged. Name a TARGET.toml"),
        (["missing.toml"], "cannot read missing.toml"),
        (["{idle}", "--wire", "usb"], "not a port: usb. Write pty or tcp:PORT"),
        (["{idle}", "--nor", "{idle}"], "is there already, and is no NOR image"),
    ],
)
def test_a_call_that_is_wrong_is_refused_in_one_line(
    words: list[str], message: str, idle: Path
) -> None:
    before = idle.read_bytes()
    done = unbrick("run", *(word.format(idle=idle) for word in words))
    assert done.returncode == 2
    (said,) = done.stderr.splitlines()
    assert message in said
    assert idle.read_bytes() == before


def test_the_flash_of_another_chip_is_neither_taken_nor_lost(idle: Path, tmp_path: Path) -> None:
    nor = tmp_path / "flash.bin"
    other = load_chip("nrf52832").factory_image
    nor.write_bytes(other)
    assert unbrick("run", idle, "--nor", nor).returncode == 2
    assert nor.read_bytes() == other


@pytest.mark.slow
def test_two_runs_do_not_share_a_flash(idle: Path, tmp_path: Path) -> None:
    nor = tmp_path / "flash.bin"
    with Running("run", idle, "--nor", nor) as chip:
        chip.wait_for(READY)
        done = unbrick("run", idle, "--nor", nor)
        assert done.returncode == 2
        assert "is in use by process" in done.stderr
        os.kill(chip.pid, signal.SIGHUP)
        assert chip.wait() == 0


# What was missed


def test_who_comes_late_is_told_what_was_said_but_no_invitation_to_a_sender() -> None:
    lines = LatestWords()
    lines.hear(b"APP v1\r\nsend it\r\nCCC", read=False)
    assert lines.take() == b"APP v1\r\nsend it\r\n"
    for invitations in (b"CCC", b"\x15\x15", b"G"):
        lines.hear(invitations, read=False)
        assert lines.take() == b""
    lines.hear(b"Call us\r\n> ", read=False)
    assert lines.take() == b"Call us\r\n> ", "a prompt is no invitation"


def test_what_was_read_is_not_told_again_and_the_rest_is_bounded() -> None:
    lines = LatestWords()
    lines.hear(b"one\n", read=False)
    lines.hear(b"two\n", read=True)
    assert lines.take() == b""
    for _ in range(1000):
        lines.hear(b"x" * 99 + b"\n", read=False)
    assert KEPT - 100 < len(lines.take()) <= KEPT
