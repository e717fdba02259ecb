"""The debugger's access to the in-process engine: GDB itself, and its protocol byte by byte."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Iterator

import pytest
from click.testing import CliRunner
from debuggee import Debuggee, as_words, play_gdb
from patience import PATIENCE_S, until

from unbrick.campaign.case import CaseId
from unbrick.campaign.replay import debug
from unbrick.cli.main import cli
from unbrick.engine.gdb.connection import MAX_PACKET_SIZE, Connection, wait_for_debugger
from unbrick.engine.gdb.server import MONITOR, MOST_BREAKPOINTS, DebuggerGoneError
from unbrick.engine.inprocess import MOST_WATCHPOINTS, InProcessEngine, Watchpoint
from unbrick.engine.inprocess.debugged import DebuggedTerminal
from unbrick.errors import PortError
from unbrick.firmware.signed import Releases
from unbrick.image.factory import make_factory_image
from unbrick.layout import reference_layout
from unbrick.reference.target import find_target

LAYOUT = reference_layout()
SRAM = LAYOUT.board.sram.base


class Terminal(Debuggee):
    """A debugged terminal in a thread of its own, and the debugger's end of its socket."""

    def __init__(self, image: bytes) -> None:
        super().__init__(DebuggedTerminal(), image)


@pytest.fixture
def terminal(unbrick_releases: Releases) -> Iterator[Terminal]:
    made = Terminal(make_factory_image(unbrick_releases.boot, None, "UB-000001"))
    made.thread.start()
    yield made
    made.end()


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
        f"m0,{MAX_PACKET_SIZE:x}",
        "m0",
        "mx,4",
        "m-1,4",
        "M0,1:00",  # the NOR
        f"M{SRAM + LAYOUT.board.sram.size - 1:x},2:0000",
        f"M{SRAM:x},2:00",
        "p11",
        "Gff",
        "P0=ff",
        "Z0,0",
        "qXfer:features:read:target.xml:0",
        "Z2,0",
        "Z2,0,0",
        "Z3,ffffffff,2",
        "qRcmd,6",
    ],
)
def test_what_cannot_be_is_an_error(terminal: Terminal, packet: str) -> None:
    assert terminal.ask(packet) == "E01"
    assert terminal.ask("?") == "S05"


def test_what_is_not_known_gets_an_empty_answer(terminal: Terminal) -> None:
    for packet in ("", "vMustReplyEmpty", "qSymbol::", "Z5,0,4", "qXfer:osdata:read::0,4", "!"):
        assert terminal.ask(packet) == ""


def test_breakpoints_are_bounded(terminal: Terminal) -> None:
    for number in range(MOST_BREAKPOINTS):
        assert terminal.ask(f"Z1,{4 * number:x},4") == "OK"
    assert terminal.ask("Z1,8000,4") == "E02"
    assert terminal.ask("z1,0,4") == "OK"
    assert terminal.ask("Z1,8000,4") == "OK"


# What is watched --------------------------------------------------------------------------------

CODE, DATA, OTHER = SRAM + 0x1000, SRAM + 0x8000, SRAM + 0x9000
THUMB = "33000020"  # the CPSR, in the order of its bytes: system mode, Thumb
UART0 = 0x10009000

PROGRAM = {
    "movs r0, #1": "0120",
    "cmp r0, #1": "0128",
    "itttt eq": "01bf",
    "streq r0, [r1]": "0860",
    "addeq r0, #1": "401c",
    "streq r0, [r2]": "1060",
    "moveq r3, #7": "0723",
    "ldr r4, [r1]": "0c68",
    "strb r0, [r1, #3]": "c870",
    "str.w r0, [r1, #-2]": "41f8020c",
    "stmia r1!, {r0, r3}": "09c1",
    "b .": "fee7",
}
"""Thumb instructions and how they are encoded."""
PLACES = {
    text: CODE + sum(len(code) // 2 for code in list(PROGRAM.values())[:number])
    for number, text in enumerate(PROGRAM)
}


def put_program(terminal: Terminal, r1: int = DATA, r2: int = OTHER) -> None:
    """The terminal is to execute PROGRAM next, and stops at its end."""
    code = "".join(PROGRAM.values())
    assert terminal.ask(f"M{CODE:x},{len(code) // 2:x}:{code}") == "OK"
    for number, value in ((1, r1), (2, r2), (15, CODE)):
        data = value.to_bytes(4, "little").hex()
        assert terminal.ask(f"P{number:x}={data}") == "OK"
    assert terminal.ask(f"P10={THUMB}") == "OK"
    assert terminal.ask(f"Z1,{PLACES['b .']:x},2") == "OK"


def where(terminal: Terminal) -> str:
    """The instruction that is executed next."""
    pc = terminal.register(15)
    return next(text for text, place in PLACES.items() if place == pc)


def all_stops(terminal: Terminal) -> list[tuple[str, str]]:
    """Why the terminal stops, and before what, until the end of PROGRAM."""
    stops = []
    while (why := terminal.ask("c")) != "S05":
        assert terminal.ask("?") == why
        stops.append((why, where(terminal)))
    assert where(terminal) == "b ."
    return stops


@pytest.mark.parametrize(
    ("kind", "word", "places"),
    [
        (
            2,
            "watch",
            ["streq r0, [r1]", "strb r0, [r1, #3]", "str.w r0, [r1, #-2]", "stmia r1!, {r0, r3}"],
        ),
        (3, "rwatch", ["ldr r4, [r1]"]),
        (
            4,
            "awatch",
            [
                "streq r0, [r1]",
                "ldr r4, [r1]",
                "strb r0, [r1, #3]",
                "str.w r0, [r1, #-2]",
                "stmia r1!, {r0, r3}",
            ],
        ),
    ],
)
def test_a_watchpoint_stops_before_each_access(
    terminal: Terminal, kind: int, word: str, places: list[str]
) -> None:
    put_program(terminal)
    assert terminal.ask(f"M{DATA - 4:x},10:{bytes(16).hex()}") == "OK"
    assert terminal.ask("c") == "S05"
    unwatched = terminal.ask("g"), terminal.ask(f"m{DATA - 4:x},10")
    put_program(terminal)
    assert terminal.ask(f"M{DATA - 4:x},10:{bytes(16).hex()}") == "OK"
    assert terminal.ask(f"Z{kind},{DATA:x},4") == "OK"
    addresses = {"strb r0, [r1, #3]": DATA + 3}
    assert all_stops(terminal) == [
        (f"T05{word}:{addresses.get(place, DATA):x};", place) for place in places
    ]
    assert (terminal.ask("g"), terminal.ask(f"m{DATA - 4:x},10")) == unwatched
    assert terminal.ask(f"z{kind},{DATA:x},4") == "OK"
    put_program(terminal)
    assert all_stops(terminal) == []


def test_nothing_is_done_behind_a_watchpoint_before_it_is_let_go(
    terminal: Terminal,
) -> None:
    put_program(terminal)
    assert terminal.ask(f"M{DATA:x},4:efbeadde") == "OK"
    assert terminal.ask(f"M{OTHER:x},4:efbeadde") == "OK"
    assert terminal.ask(f"Z2,{DATA:x},4") == "OK"
    assert terminal.ask(f"Z4,{OTHER:x},1") == "OK"
    assert terminal.ask("c") == f"T05watch:{DATA:x};"
    assert where(terminal) == "streq r0, [r1]"  # and the rest of that block is in an IT block
    assert terminal.register(0) == 1
    assert terminal.ask(f"m{DATA:x},4") == terminal.ask(f"m{OTHER:x},4") == "efbeadde"
    assert terminal.ask("s") == f"T05awatch:{OTHER:x};"  # an IT block is one step
    assert where(terminal) == "streq r0, [r2]"
    assert terminal.register(0) == 2
    assert terminal.ask(f"m{DATA:x},4") == "01000000"
    assert terminal.ask(f"m{OTHER:x},4") == "efbeadde"
    assert terminal.ask(f"z2,{DATA:x},4") == "OK"
    assert terminal.ask("s") == "S05"  # as GDB does, to see what has become of the value
    assert where(terminal) == "ldr r4, [r1]"
    assert (terminal.register(3), terminal.ask(f"m{OTHER:x},4")) == (7, "02000000")


def test_a_step_is_one_instruction_and_stops_before_what_is_watched(
    terminal: Terminal,
) -> None:
    put_program(terminal)
    assert terminal.ask(f"Z3,{DATA:x},4") == "OK"
    for place in ("cmp r0, #1", "itttt eq", "ldr r4, [r1]"):
        assert terminal.ask("s") == "S05"
        assert where(terminal) == place
    assert terminal.ask("s") == f"T05rwatch:{DATA:x};"
    assert where(terminal) == "ldr r4, [r1]"
    for place in list(PROGRAM)[list(PROGRAM).index("ldr r4, [r1]") + 1 :]:
        assert terminal.ask("s") == "S05"
        assert where(terminal) == place


def test_neighbours_of_what_is_watched_are_not(terminal: Terminal) -> None:
    put_program(terminal)
    assert terminal.ask(f"Z4,{DATA - 4:x},2") == "OK"
    assert terminal.ask(f"Z4,{DATA + 8:x},4") == "OK"
    assert all_stops(terminal) == []


def test_a_device_is_watched_and_not_touched_meanwhile(terminal: Terminal) -> None:
    terminal.engine.wire.read()
    put_program(terminal, r1=OTHER, r2=UART0 + 0x2C)  # the line control, for one
    assert terminal.ask(f"Z4,{UART0 + 0x2C:x},4") == "OK"
    assert terminal.ask("c") == f"T05awatch:{UART0 + 0x2C:x};"
    assert where(terminal) == "streq r0, [r2]"
    assert terminal.ask("c") == "S05"
    assert terminal.engine.faults == []


def test_watchpoints_are_bounded_and_outlive_a_reset(terminal: Terminal) -> None:
    for number in range(MOST_WATCHPOINTS):
        assert terminal.ask(f"Z2,{DATA + 16 * number:x},4") == "OK"
    assert terminal.ask(f"Z2,{DATA:x},4") == "OK"  # it is there already
    assert terminal.ask(f"Z2,{OTHER:x},4") == "E01"
    assert terminal.ask(f"z2,{DATA:x},4") == "OK"
    assert terminal.ask(f"z2,{DATA:x},4") == "OK"
    assert terminal.ask(f"Z2,{OTHER:x},4") == "OK"
    terminal.engine.power_off()
    terminal.engine.power_on()
    put_program(terminal)
    assert terminal.ask("c") == f"T05watch:{OTHER:x};"
    assert terminal.ask("D") == "OK"
    assert terminal.hung_up()
    assert terminal.engine.watchpoints == frozenset()


def test_without_watchpoints_the_run_is_the_same_and_no_hook_is_left(
    unbrick_releases: Releases,
) -> None:
    """Virtual time, blocks and contents are the same whether something was watched or not."""
    ends = []
    for watched in (False, True):
        with InProcessEngine() as engine:
            engine.load_nor(make_factory_image(unbrick_releases.boot, None, "UB-000001"))
            engine.power_on()
            if watched:
                engine.set_watchpoint(Watchpoint(0x60000000, 4, "access"))
            for _ in range(20):
                engine.advance(0.01)
            ends.append((engine.now, engine.blocks, engine.read_sram(), engine.wire.read()))
    assert ends[0] == ends[1]


def test_a_debugger_is_told_what_memory_there_is(terminal: Terminal) -> None:
    assert "qXfer:memory-map:read+" in terminal.ask("qSupported:hwbreak+")
    said = terminal.ask("qXfer:memory-map:read::0,ffb")
    assert said[0] == "l"
    assert re.findall(r'<memory type="(.+?)" start="(.+?)" length="(.+?)"/>', said) == [
        ("rom", "0x0", hex(LAYOUT.board.nor.modelled)),
        ("ram", hex(SRAM), hex(LAYOUT.board.sram.size)),
    ]


def test_the_monitor_says_what_it_can_do(terminal: Terminal) -> None:
    def monitor(line: str) -> str:
        answers = [terminal.ask(f"qRcmd,{line.encode().hex()}")]
        while answers[-1] != "OK":
            answers.append(terminal.answer())
        assert all(answer.startswith("O") for answer in answers)
        return "".join(bytes.fromhex(answer[1:]).decode() for answer in answers[:-1])

    names = [line.split()[0] for line in monitor("help").splitlines()]
    assert names == sorted(MONITOR, key=list(MONITOR).index)
    assert monitor("") == monitor("help")
    for name in names:
        assert monitor(name).strip()
    for line in ("nonsense", "time 5", "help \x00\xff"):
        assert "`monitor help`" in monitor(line)
    assert monitor("time").startswith("0.000000000 s")


def test_a_damaged_packet_is_asked_for_again(terminal: Terminal) -> None:
    terminal.socket.sendall(b"garbage$?#00")
    assert terminal.socket.recv(1) == b"-"
    assert terminal.ask("?") == "S05"
    terminal.socket.sendall(b"-")
    assert terminal.answer() == "S05"


def test_a_packet_without_end_ends_the_connection(terminal: Terminal) -> None:
    terminal.socket.sendall(b"$" + b"m" * (4 * MAX_PACKET_SIZE))
    assert terminal.hung_up()


@pytest.mark.parametrize("how", ["D", ""])
def test_a_terminal_that_is_let_go_runs_on(terminal: Terminal, how: str) -> None:
    if how:
        assert terminal.ask(how) == "OK"
        assert terminal.hung_up()
    else:
        terminal.socket.shutdown(socket.SHUT_RDWR)
    said = bytearray()

    def restores() -> bool:
        said.extend(terminal.engine.wire.read())
        return b"restoration" in said

    until(restores)


def test_a_killed_terminal_ends_the_session(terminal: Terminal) -> None:
    terminal.send("k")
    assert terminal.hung_up()
    terminal.thread.join(PATIENCE_S)
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


def run_gdb(gdb: str, releases: Releases, case: str, commands: list[str]) -> tuple[str, bool]:
    """What GDB says while it debugs a case, and whether it killed the terminal."""
    case_id = CaseId.parse(case)
    target = find_target(case_id.scenario, releases)
    target.start()
    killed: list[bool] = []

    def terminal(wait: Callable[[], Connection]) -> None:
        with DebuggedTerminal(releases.elf_files) as engine:
            try:
                debug(target, engine, case_id, lambda: engine.attach(wait()))
            except DebuggerGoneError:
                killed.append(True)

    def find_words(port: int) -> list[str]:
        first = [
            "set confirm off",
            f"add-symbol-file {releases.firmware.agent.elf}",
            f"target remote 127.0.0.1:{port}",
        ]
        return [str(releases.firmware.boot.elf), *as_words([*first, *commands])]

    return play_gdb(gdb, terminal, find_words), bool(killed)


def test_gdb_stops_in_the_agent_and_kills(gdb: str, unbrick_releases: Releases) -> None:
    said, killed = run_gdb(
        gdb,
        unbrick_releases,
        "phonebook",
        ["break nor_program", "continue", "step", "info registers pc", "print length", "kill"],
    )
    assert "Breakpoint 1, nor_program (offset=2621440" in said
    stop = said.index("Breakpoint 1, nor_program (")
    assert "firmware/agent/nor.c:" in said[stop:]
    pc = next(line for line in said[stop:].splitlines() if line.startswith("pc"))
    assert (
        LAYOUT.board.sram.base
        <= int(pc.split()[1], 16)
        < LAYOUT.board.sram.base + LAYOUT.board.sram.size
    )
    assert "<nor_program+" in pc
    assert "$1 = 4" in said
    assert killed


def test_gdb_is_shown_where_the_power_is_lost(gdb: str, unbrick_releases: Releases) -> None:
    said, killed = run_gdb(
        gdb,
        unbrick_releases,
        "phonebook/4-half",
        ["continue", "backtrace", "break *0", "continue", "delete", "continue"],
    )
    lost = said.index("just before flash operation 4: the power is lost here")
    assert "nor_program (offset=2097344" in said[lost:]
    start = said.index("Breakpoint 1", said.index("Breakpoint 1 at") + 15)
    assert start > lost  # power-on of the case itself
    assert "exited normally" in said[start:]
    assert not killed


def test_gdb_watches_memory_and_devices(gdb: str, unbrick_releases: Releases) -> None:
    said, killed = run_gdb(
        gdb,
        unbrick_releases,
        "phonebook",
        [
            f"add-symbol-file {unbrick_releases.firmware.applications['1.0.0'].elf}",
            "watch geometry.size",
            "continue",
            "backtrace",
            "continue",
            "delete",
            "rwatch geometry.size",
            "continue",
            "delete",
            f"awatch *(unsigned *){UART0:#x}",
            "continue",
            "kill",
        ],
    )
    zeroed, read, sent = (said.index(word) for word in ("in agent_load", "Value = ", "uart_put ("))
    assert "Hardware watchpoint 1: geometry.size" in said
    assert "New value = 0\nmemset (" in said[:zeroed]
    assert f"Old value = 0\nNew value = {LAYOUT.board.nor.size}" in said[zeroed:read]
    assert "Hardware read watchpoint 2" in said[zeroed:read]
    assert f"Value = {LAYOUT.board.nor.size}" in said[read:sent]
    assert "in nor_program (" in said[read:sent]
    assert "Hardware access (read/write) watchpoint 3" in said[read:sent]
    assert killed


def test_gdb_knows_the_memories_and_asks_the_monitor(gdb: str, unbrick_releases: Releases) -> None:
    said, killed = run_gdb(
        gdb,
        unbrick_releases,
        "phonebook",
        ["info mem", "tbreak *0x1000", "print *(int *)0x10009000", "monitor help", "kill"],
    )
    assert "memory regions provided by the target" in said
    assert f"0x00000000 {LAYOUT.board.nor.modelled:#010x} ro" in said
    assert f"{SRAM:#010x} {LAYOUT.board.sram.end:#010x} rw" in said
    assert "using hardware breakpoints for read-only addresses" in said
    assert "Cannot access memory at address 0x10009000" in said
    for name, command in MONITOR.items():
        assert f"{name:<8}{command.purpose}" in said
    assert killed
