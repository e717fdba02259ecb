"""The engine for real boards, on pseudo-terminals with an emulated terminal behind them."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tty
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pexpect
import pytest
from patience import PATIENCE_S
from processes import unbrick

from unbrick.bench.bench import Bench
from unbrick.engine.create import create_engine
from unbrick.engine.serial.board_file import find_board_file, read_board_file
from unbrick.engine.serial.engine import SerialLine
from unbrick.engine.serial.power import LabgridPower, RelayPower
from unbrick.errors import (
    EngineError,
    MissingToolError,
    NotKnownHereError,
    PortError,
    SetupError,
    UnbrickError,
)
from unbrick.firmware.signed import Releases
from unbrick.image.factory import derive_bench_key, make_factory_image
from unbrick.layout import reference_layout
from unbrick.reference.system import System

LAYOUT = reference_layout()
EMULATED_BOARD = Path(__file__).with_name("emulated_board.py")


@dataclass
class Board:
    """The stand-in that runs, and its board file."""

    wire: str
    modem: str
    commands: dict[str, str]
    file: Path

    def write(self, *nor: str, wire: str = "", power: str = "") -> None:
        """Write the board file; ``nor``: which of its commands it has."""
        switch = "".join(f'{word} = "{self.commands[word]}"\n' for word in ("on", "off"))
        lines = "".join(f'{word} = "{self.commands[word]} {{file}}"\n' for word in nor)
        self.file.write_text(
            f'wire = "{wire or self.wire}"\nmodem = "{self.modem}"\n'
            f"[power]\n{power or switch}[nor]\n{lines}"
        )

    def do(self, *words: str) -> None:
        """As a person does it by hand."""
        subprocess.run([*self.commands[words[0]].split(), *words[1:]], check=True)

    def as_from_the_factory(self, releases: Releases, version: str = "1.0.0") -> None:
        nor = self.file.with_name("factory.bin")
        serial, image = "UB-000001", releases.signed[version]
        nor.write_bytes(
            make_factory_image(releases.boot, image, serial, key=derive_bench_key(serial))
        )
        self.do("load", str(nor))


@pytest.fixture
def board(tmp_path: Path) -> Iterator[Board]:
    command = [sys.executable, str(EMULATED_BOARD)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            _, wire, _, modem, _, port = process.stdout.readline().split()
            commands = {
                word: f"{' '.join(command)} {port} {word}" for word in ("on", "off", "load", "read")
            }
            made = Board(wire, modem, commands, tmp_path / "board.toml")
            made.write("load", "read")
            yield made
        finally:
            process.kill()


@pytest.mark.slow
def test_a_whole_update_and_a_power_cut_on_a_board(
    board: Board, unbrick_releases: Releases
) -> None:
    with create_engine("serial", board_file=board.file) as engine:
        system = System(engine, unbrick_releases)
        system.power_on()
        system.wait_registered()
        system.console.command("pb add Alice 112")
        assert system.update_to("1.1.0").state.value == "succeeded"
        system.restart()
        assert "unbrick-terminal 1.1.0+0" in system.console.command("version")
        assert "Alice" in system.console.command("pb list")
        system.bench.cut_power()
        nor = engine.read_nor()
        start = LAYOUT.partition("application").offset
        image = unbrick_releases.signed["1.1.0"]
        assert nor[start : start + len(image)] == image


@pytest.mark.slow(first=True)
def test_the_hil_test_runs_on_a_board_whose_nor_cannot_be_reached(
    board: Board, firmware: Path, unbrick_releases: Releases
) -> None:
    board.as_from_the_factory(unbrick_releases)
    board.write()
    options = ("--engine", "serial", "--board", board.file, "--firmware", firmware)
    done = unbrick("hil-test", "--json", *options)
    assert done.returncode == 0, done.stdout + done.stderr
    steps = json.loads(done.stdout)
    assert steps[0]["detail"].endswith("as it was found")
    assert "rewrite was interrupted" in [step["detail"] for step in steps]
    assert len(steps) == 17


USER_TESTS = """
def test_of_the_console(unbrick_console):
    assert "1.0.0" in unbrick_console.command("version")

def test_of_the_nor(unbrick_system):
    unbrick_system.engine.read_nor()

def test_of_an_empty_terminal(unbrick_make_system):
    unbrick_make_system(installed=None)

def test_that_fails(unbrick_console):
    assert "1.1.0" in unbrick_console.command("version")
"""


@pytest.mark.slow
def test_users_tests_run_as_far_as_the_board_goes(
    board: Board, firmware: Path, unbrick_releases: Releases, tmp_path: Path
) -> None:
    board.as_from_the_factory(unbrick_releases)
    board.write()
    (tmp_path / "test_user.py").write_text(USER_TESTS)
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:randomly", "-ra"]
    command += ["--unbrick-engine", "serial", "--unbrick-board", board.file.name, "--rootdir", "."]
    command += ["--unbrick-firmware", str(firmware), "test_user.py"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert "1 failed, 1 passed, 2 skipped" in done.stdout
    assert "cannot be read without a command (give `read` in [nor] of the board" in done.stdout
    assert "cannot be written without a command (give `load` in [nor] of the board" in done.stdout


def test_a_board_with_other_software_is_not_taken_for_what_is_wanted(
    board: Board, unbrick_releases: Releases
) -> None:
    board.as_from_the_factory(unbrick_releases, "1.1.0")
    board.write()
    with create_engine("serial", board_file=board.file) as engine:
        with pytest.raises(NotKnownHereError, match=r"run 1\.0\.0, but it runs unbrick-terminal 1"):
            System(engine, unbrick_releases)
        assert not engine.powered


def test_without_power_nothing_is_heard_and_nothing_arrives(
    board: Board, unbrick_releases: Releases
) -> None:
    board.as_from_the_factory(unbrick_releases)
    with create_engine("serial", board_file=board.file) as engine:
        bench = Bench(engine)
        engine.wire.write(b"pb add Nobody 1\r")
        engine.power_on()
        bench.console.expect("\r\n> ")
        assert "Nobody" not in bench.console.command("pb list")
        bench.console.type("help")
        bench.cut_power()
        said = bench.console.text
        bench.run_for(0.2)
        assert bench.console.text == said
        engine.power_on()
        bench.console.expect("boot: unbrick boot")


def test_noise_on_a_line_without_power_is_not_heard(tmp_path: Path) -> None:
    master, slave = os.openpty()
    tty.setraw(slave)
    os.set_blocking(master, False)
    file = tmp_path / "board.toml"
    file.write_text(
        f'wire = "{os.ttyname(slave)}"\nmodem = "loop://"\n[power]\non = "true"\noff = "true"\n'
    )
    try:
        with create_engine("serial", board_file=file) as engine:
            os.write(master, b"noise")
            engine.wire.write(b"lost")
            engine.advance(0.01)
            assert engine.wire.read() == b""
            engine.power_on()
            os.write(master, b"boot")
            engine.wire.write(b"arrives")
            engine.advance(10)
            assert engine.wire.read() == b"boot"
            assert os.read(master, 64) == b"arrives"
            os.write(master, b"last words")
            engine.power_off()
            assert engine.wire.read() == b"last words"
    finally:
        os.close(master)
        os.close(slave)


def test_what_a_board_does_not_show_is_said(board: Board, unbrick_releases: Releases) -> None:
    board.as_from_the_factory(unbrick_releases)
    with create_engine("serial", board_file=board.file) as engine:
        engine.power_on()
        with pytest.raises(NotKnownHereError, match="while it runs"):
            engine.read_nor()
        with pytest.raises(EngineError, match="under power"):
            engine.load_nor(b"")
        with pytest.raises(NotKnownHereError, match="no debugger"):
            engine.gdb_server(0, lambda: None)
        assert engine.faults == []


def test_two_programs_cannot_have_the_same_port(board: Board) -> None:
    with (
        create_engine("serial", board_file=board.file),
        pytest.raises(PortError, match="another program has it"),
    ):
        SerialLine(board.wire, LAYOUT.board.baud)


def test_picocom_and_socat_and_a_board(
    board: Board, unbrick_releases: Releases, tmp_path: Path
) -> None:
    """A person with picocom changes what the bench then finds, through a socat in between."""
    for program in ("picocom", "socat"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed (apt install {program})")
    board.as_from_the_factory(unbrick_releases)
    board.do("on")
    person = pexpect.spawn(f"picocom --quiet --baud 115200 {board.wire}", timeout=PATIENCE_S)
    person.send("\r")
    person.expect_exact("\r\n> ")
    person.send("pb add Alice 112\r")
    person.expect_exact("added 1\r\n> ")
    person.send("\x01\x18")  # C-a C-x leaves
    person.expect(pexpect.EOF)
    person.close()
    assert person.exitstatus == 0

    between = tmp_path / "between"
    command = ["socat", f"PTY,link={between},raw,echo=0", f"OPEN:{board.wire},raw,echo=0"]
    with subprocess.Popen(command) as socat:
        try:
            while not between.exists():
                assert socat.poll() is None
            board.write(wire=str(between))
            with create_engine("serial", board_file=board.file) as engine:
                bench = Bench(engine)
                engine.power_on()
                bench.console.expect("\r\n> ")
                assert "Alice" in bench.console.command("pb list")
        finally:
            socat.kill()


def test_a_relay_is_told_what_its_maker_says() -> None:
    """A0, channel, state, sum: the protocol of the LCUS relays."""
    master, slave = os.openpty()
    tty.setraw(slave)
    try:
        relay = RelayPower(os.ttyname(slave), 2)
        relay.on()
        assert os.read(master, 16) == bytes([0xA0, 2, 1, 0xA3])
        relay.off()
        assert os.read(master, 16) == bytes([0xA0, 2, 0, 0xA2])
        RelayPower(os.ttyname(slave), inverted=True).on()
        assert os.read(master, 16) == bytes([0xA0, 1, 0, 0xA1])
    finally:
        os.close(master)
        os.close(slave)
    with pytest.raises(PortError, match="relay at /no/such/port"):
        RelayPower("/no/such/port").on()


def test_labgrid_switches_the_power(tmp_path: Path) -> None:
    pytest.importorskip("labgrid", reason="labgrid is not installed (pip install labgrid)")
    lab = tmp_path / "lab.yaml"
    lab.write_text(
        "targets:\n  main:\n    drivers:\n      ExternalPowerDriver:\n"
        f"        cmd_on: touch {tmp_path / 'on'}\n        cmd_off: rm {tmp_path / 'on'}\n"
    )
    power = LabgridPower(lab)
    power.on()
    assert (tmp_path / "on").exists()
    power.off()
    assert not (tmp_path / "on").exists()
    with pytest.raises(EngineError, match="could not switch the power off"):
        power.off()
    with pytest.raises(SetupError, match="no target 'other'"):
        LabgridPower(lab, "other")


def test_a_command_that_fails_is_told_with_its_last_words(tmp_path: Path) -> None:
    file = tmp_path / "board.toml"
    file.write_text(
        'wire = "loop://"\nmodem = "loop://"\n'
        '[power]\non = "sh -c \'echo first; echo no such hub; exit 3\'"\noff = "true"\n'
    )
    with create_engine("serial", board_file=file) as engine:
        with pytest.raises(EngineError, match=r"failed \(3\): no such hub"):
            engine.power_on()
        assert not engine.powered
    file.write_text(file.read_text().replace("sh -c", "no-such-program"))
    with create_engine("serial", board_file=file) as engine, pytest.raises(MissingToolError):
        engine.power_on()


GOOD = """
wire = "/dev/ttyUSB0"
modem = "tcp:127.0.0.1:4000"
baud = 57600
[power]
relay = "/dev/ttyUSB2"
channel = 2
[nor]
load = "flash 'a b' {file}"
"""


def test_a_board_file_is_read(tmp_path: Path) -> None:
    file = tmp_path / "board.toml"
    file.write_text(GOOD)
    board = read_board_file(file, LAYOUT.board.baud)
    assert (board.wire, board.modem, board.baud) == ("/dev/ttyUSB0", "tcp:127.0.0.1:4000", 57600)
    assert isinstance(board.make_power(), RelayPower)
    assert board.load == ("flash", "a b", "{file}")
    assert board.read is None


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ('wire = "/dev/ttyUSB0"', "", "`wire` is missing"),
        ("57600", '"fast"', "`baud` is not a number"),
        ("57600", "0", "`baud` is 0"),
        ("channel = 2", "channel = 9", r"\[power\] of .*board.toml is wrong: `channel` is 9"),
        ("channel = 2", "chanel = 2", "unknown entry `chanel`"),
        ("baud", "bawd", "unknown entry `bawd`"),
        ('relay = "/dev/ttyUSB2"\nchannel = 2', "", r"\[power\] of .* says not how"),
        ("{file}", "", r"`load` has no \{file\}"),
        ("'a b'", "'a b", "`load`: No closing quotation"),
        ("[nor]", "[nor", "is not TOML"),
        ("[power]", 'power = "relay"', "`power` is not a table"),
    ],
)
def test_a_wrong_board_file_is_told_where(old: str, new: str, why: str, tmp_path: Path) -> None:
    file = tmp_path / "board.toml"
    assert old in GOOD
    file.write_text(GOOD.replace(old, new))
    with pytest.raises(SetupError, match=why) as caught:
        read_board_file(file, LAYOUT.board.baud)
    assert caught.value.hint


DOCUMENT = Path(__file__).parents[1] / "docs" / "real-boards.md"


@pytest.mark.parametrize("number", range(3))
def test_the_board_files_that_are_documented_are_right(number: int, tmp_path: Path) -> None:
    blocks = re.findall(r"^```toml\n(.*?)^```$", DOCUMENT.read_text(), re.MULTILINE | re.DOTALL)
    assert len(blocks) == 3
    file = tmp_path / "board.toml"
    file.write_text(blocks[number])
    assert read_board_file(file, LAYOUT.board.baud).wire == "/dev/ttyUSB0"


def test_the_board_file_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("UNBRICK_BOARD", raising=False)
    with pytest.raises(SetupError, match=r"there is no board file board\.toml"):
        create_engine("serial")
    Path("board.toml").write_text(GOOD)
    assert find_board_file() == Path("board.toml")
    Path("other.toml").write_text(GOOD)
    monkeypatch.setenv("UNBRICK_BOARD", "other.toml")
    assert find_board_file() == Path("other.toml")
    assert find_board_file(Path("board.toml")) == Path("board.toml")


def test_a_port_that_is_not_there_leaves_the_other_free(board: Board) -> None:
    good = board.file.read_text()
    board.file.write_text(good.replace(board.modem, "/no/such/port"))
    with pytest.raises(UnbrickError, match="it does not exist") as caught:
        create_engine("serial", board_file=board.file)
    SerialLine(board.wire, LAYOUT.board.baud).close()
    assert caught.tb, "what was open then is still alive: nobody else has closed it"
