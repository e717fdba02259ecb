"""The debugger's access to the in-process engine: GDB itself, and its protocol byte by byte."""

from __future__ import annotations

import queue
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from click.testing import CliRunner

from unbrick.board import BOARD
from unbrick.campaign.case import CaseId
from unbrick.campaign.replay import debug
from unbrick.cli import cli
from unbrick.engine.gdbstub import (
    LONGEST,
    MOST_BREAKPOINTS,
    Connection,
    DebuggedEngine,
    DebuggerGoneError,
    wait_for_debugger,
)
from unbrick.errors import PortError
from unbrick.image.factory import factory_image
from unbrick.image.release import Releases
from unbrick.reference.target import find_target

PATIENCE = 30  # seconds until a test that hangs fails
SRAM = BOARD.sram.base


class Terminal:
    """A debugged terminal in a thread of its own, and the debugger's end of its socket."""

    def __init__(self, image: bytes) -> None:
        self.engine = DebuggedEngine()
        self.engine.load_nor(image)
        ours, theirs = socket.socketpair()
        self.socket = ours
        self.socket.settimeout(PATIENCE)
        self.engine.attach(Connection(theirs))
        self.error: Exception | None = None
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        self.engine.power_on()
        try:
            while not self.stop.is_set():
                self.engine.advance(0.01)
        except Exception as error:  # noqa: BLE001 - the test looks at it
            self.error = error

    def send(self, text: str) -> None:
        self.socket.sendall(f"${text}#{sum(text.encode()) % 256:02x}".encode())

    def answer(self) -> str:
        """The next packet; what acknowledges ours is passed over."""
        got = b""
        while got[-3:-2] != b"#":
            got += self._byte()
        with suppress(BrokenPipeError):  # it hangs up after some answers
            self.socket.sendall(b"+")
        return got.partition(b"$")[2][:-3].decode()

    def ask(self, text: str) -> str:
        self.send(text)
        return self.answer()

    def _byte(self) -> bytes:
        got = self.socket.recv(1)
        assert got, "the terminal has hung up"
        return got

    def register(self, number: int) -> int:
        return int.from_bytes(bytes.fromhex(self.ask(f"p{number:x}")), "little")

    def hung_up(self) -> bool:
        try:
            return all(got == b"+" for got in iter(lambda: self.socket.recv(4096), b""))
        except ConnectionError:  # the last "+" came too late for it
            return True


@pytest.fixture
def terminal(unbrick_releases: Releases) -> Iterator[Terminal]:
    made = Terminal(factory_image(unbrick_releases.boot, None, "UB-000001"))
    made.thread.start()
    yield made
    made.stop.set()
    made.socket.close()
    made.thread.join(PATIENCE)
    made.engine.close()


def test_it_waits_at_the_reset_vector(terminal: Terminal) -> None:
    assert "PacketSize" in terminal.ask("qSupported:multiprocess+")
    assert terminal.ask("?") == "S05"
    assert terminal.register(15) == 0
    assert len(terminal.ask("g")) == 2 * 4 * 17
    assert terminal.engine.now == 0.0
    description = terminal.ask("qXfer:features:read:target.xml:0,ffb")
    assert description.startswith("l<?xml")
    assert terminal.ask("qXfer:features:read:target.xml:0,8") == f"m{description[1:9]}"


def test_a_breakpoint_stops_time_and_holds_again(
    terminal: Terminal, unbrick_releases: Releases
) -> None:
    boot, reset = unbrick_releases.boot, terminal.ask("g")
    assert terminal.ask("s") == "S05"
    second = terminal.register(15)  # the second instruction that a start executes
    assert second != 0
    assert terminal.ask("s") == "S05"
    third = terminal.register(15)
    assert bytes.fromhex(terminal.ask("m0,10")) == boot[:16]
    assert terminal.ask(f"Z0,{second:x},4") == "OK"
    assert terminal.ask("P f=00000000") == "E01"
    assert terminal.ask(f"G{reset}") == "OK"  # once more from the start
    assert terminal.ask("c") == "S05"
    assert terminal.register(15) == second
    stopped = terminal.engine.now
    assert terminal.ask("?") == "S05"
    assert terminal.engine.now == stopped
    assert terminal.ask(f"Z0,{third:x},4") == "OK"
    assert terminal.ask("c") == "S05"  # on from a breakpoint, to the next one
    assert terminal.register(15) == third
    assert terminal.ask("s") == "S05"
    assert terminal.register(15) != third
    assert terminal.ask(f"z0,{third:x},4") == "OK"
    assert terminal.ask(f"z0,{second:x},4") == "OK"
    terminal.send("c")
    terminal.socket.sendall(b"\x03")
    assert terminal.answer() == "S02"
    assert terminal.engine.now > stopped
    assert terminal.ask("?") == "S05"


def test_registers_and_sram_are_written(terminal: Terminal) -> None:
    every = bytes.fromhex(terminal.ask("g"))
    changed = b"\x78\x56\x34\x12" + every[4:]
    assert terminal.ask(f"G{changed.hex()}") == "OK"
    assert terminal.register(0) == 0x12345678
    assert terminal.ask("g") == changed.hex()
    assert terminal.ask(f"M{SRAM:x},3:c0ffee") == "OK"
    assert terminal.ask(f"m{SRAM:x},3") == "c0ffee"


@pytest.mark.parametrize(
    "packet",
    [
        "m10009000,4",  # a device
        "mffffffff,4",
        f"m0,{LONGEST:x}",
        "m0",
        "mx,4",
        "m-1,4",
        "M0,1:00",  # the NOR
        f"M{SRAM + BOARD.sram.size - 1:x},2:0000",
        f"M{SRAM:x},2:00",
        "p11",
        "Gff",
        "P0=ff",
        "Z0,0",
        "qXfer:features:read:target.xml:0",
    ],
)
def test_what_cannot_be_is_an_error(terminal: Terminal, packet: str) -> None:
    assert terminal.ask(packet) == "E01"
    assert terminal.ask("?") == "S05"


def test_what_is_not_known_gets_an_empty_answer(terminal: Terminal) -> None:
    assert [terminal.ask(text) for text in ("", "vMustReplyEmpty", "qSymbol::", "Z2,0,4", "!")] == [
        ""
    ] * 5


def test_breakpoints_are_bounded(terminal: Terminal) -> None:
    for number in range(MOST_BREAKPOINTS):
        assert terminal.ask(f"Z1,{4 * number:x},4") == "OK"
    assert terminal.ask("Z1,8000,4") == "E02"
    assert terminal.ask("z1,0,4") == "OK"
    assert terminal.ask("Z1,8000,4") == "OK"


def test_a_damaged_packet_is_asked_for_again(terminal: Terminal) -> None:
    terminal.socket.sendall(b"garbage$?#00")
    assert terminal.socket.recv(1) == b"-"
    assert terminal.ask("?") == "S05"
    terminal.socket.sendall(b"-")
    assert terminal.answer() == "S05"


def test_a_packet_without_end_ends_the_connection(terminal: Terminal) -> None:
    terminal.socket.sendall(b"$" + b"m" * (4 * LONGEST))
    assert terminal.hung_up()


@pytest.mark.parametrize("how", ["D", ""])
def test_a_terminal_that_is_let_go_runs_on(terminal: Terminal, how: str) -> None:
    if how:
        assert terminal.ask(how) == "OK"
        assert terminal.hung_up()
    else:
        terminal.socket.shutdown(socket.SHUT_RDWR)
    said = b""
    for _ in range(10 * PATIENCE):
        said += terminal.engine.wire.read()
        if b"restoration" in said:
            break
        terminal.thread.join(0.1)
    assert b"restoration" in said


def test_a_killed_terminal_ends_the_session(terminal: Terminal) -> None:
    terminal.send("k")
    assert terminal.hung_up()
    terminal.thread.join(PATIENCE)
    assert isinstance(terminal.error, DebuggerGoneError)


def test_a_port_that_is_taken_is_said() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(PortError):
        wait_for_debugger(taken.getsockname()[1], lambda _: None)


def test_replay_waits_for_a_debugger(unbrick_releases: Releases) -> None:
    folder = str(unbrick_releases.firmware.boot.elf.parent)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        words = ["replay", "phonebook", "--gdb", port, "--firmware", folder]
        done = CliRunner().invoke(cli, words)
    assert done.exit_code == 2, done.output
    assert f"port {port}" in done.output


# GDB --------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def gdb() -> str:
    found = shutil.which("gdb-multiarch") or shutil.which("arm-none-eabi-gdb")
    if found is None:
        pytest.skip("gdb-multiarch is missing (apt install gdb-multiarch)")
    return found


def run_gdb(gdb: str, releases: Releases, case: str, commands: list[str]) -> tuple[str, bool]:
    """What GDB says while it debugs a case, and whether it killed the terminal."""
    case_id = CaseId.parse(case)
    target = find_target(case_id.scenario, releases)
    target.start()
    ports: queue.Queue[int] = queue.Queue()
    killed: list[bool] = []

    def terminal() -> None:
        with DebuggedEngine(releases.elf_files) as engine:
            assert isinstance(engine, DebuggedEngine)

            def attach() -> None:
                engine.attach(wait_for_debugger(0, ports.put))

            try:
                debug(target, engine, case_id, attach)
            except DebuggerGoneError:
                killed.append(True)

    thread = threading.Thread(target=terminal, daemon=True)
    thread.start()
    port = ports.get(timeout=PATIENCE)
    first = [
        "set confirm off",
        f"add-symbol-file {releases.firmware.agent.elf}",
        f"target remote 127.0.0.1:{port}",
    ]
    words = [word for command in [*first, *commands] for word in ("-ex", command)]
    boot: Path = releases.firmware.boot.elf
    done = subprocess.run(
        [gdb, "-nx", "-batch", str(boot), *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    thread.join(PATIENCE)
    assert not thread.is_alive()
    return done.stdout, bool(killed)


def test_gdb_stops_in_the_agent_and_kills(gdb: str, unbrick_releases: Releases) -> None:
    said, killed = run_gdb(
        gdb,
        unbrick_releases,
        "phonebook",
        ["break nor_program", "continue", "step", "info registers pc", "print length", "kill"],
    )
    assert "Breakpoint 1, nor_program (offset=2097152" in said
    stop = said.index("Breakpoint 1, nor_program (")
    assert "firmware/agent/nor.c:" in said[stop:]
    pc = next(line for line in said[stop:].splitlines() if line.startswith("pc"))
    assert BOARD.sram.base <= int(pc.split()[1], 16) < BOARD.sram.base + BOARD.sram.size
    assert "<nor_program+" in pc
    assert "$1 = 20" in said
    assert killed


def test_gdb_is_shown_where_the_power_is_lost(gdb: str, unbrick_releases: Releases) -> None:
    said, killed = run_gdb(
        gdb,
        unbrick_releases,
        "phonebook/3-half",
        ["continue", "backtrace", "break *0", "continue", "delete", "continue"],
    )
    lost = said.index("just before flash operation 3: the power is lost here")
    assert "nor_program (offset=2097344" in said[lost:]
    start = said.index("Breakpoint 1", said.index("Breakpoint 1 at") + 15)
    assert start > lost  # power-on of the case itself
    assert "exited normally" in said[start:]
    assert not killed
