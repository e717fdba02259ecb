"""The debugger's access to a chip, packet by packet."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from debuggee import Debuggee
from patience import until
from small_firmware import build_small

from unbrick.board import load_chip
from unbrick.engine.compiled import Watchpoint
from unbrick.engine.gdb.connection import MAX_PACKET_SIZE
from unbrick.engine.gdb.server import MOST_BREAKPOINTS
from unbrick.engine.mcu.debugged import DebuggedChip
from unbrick.engine.symbols import Symbols
from unbrick.target.load import load_target

CHIPS = ("stm32f103xb", "nrf52840")

PROGRAM = """
#define WORD REGISTER(RAM + 0x800)
#define TICKS REGISTER(RAM + 0x804)
#define MODE REGISTER(RAM + 0x808)

void tick(void) { TICKS = TICKS + 1; }
void hard(void) { for (;;) { } }

__attribute__((aligned(128))) static void *const handlers[16] = {[3] = hard, [15] = tick};

__attribute__((noinline)) unsigned work(unsigned x) {
    WORD = x;
    return WORD + REGISTER(0xE000E010); /* which clears COUNTFLAG */
}

__attribute__((noinline)) void rest(void) { __asm volatile("wfi\\nnop"); }

void start(void) {
    REGISTER(0xE000ED08) = (unsigned)handlers;
    REGISTER(0xE000E014) = 3999;
    REGISTER(0xE000E018) = 0;
    REGISTER(0xE000E010) = 7;
    MODE = 0;
    for (unsigned x = 0;; x++) {
        work(x);
        if (MODE == 1) {
            __asm volatile("bkpt 1");
        }
        if (MODE == 2) {
            (void)REGISTER(0xC0000000);
        }
        rest();
    }
}
"""
"""A tick wakes it; what it then does, the debugger says by MODE."""


@pytest.fixture(scope="module", params=CHIPS)
def target(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The target file of PROGRAM, for each chip."""
    return build_small(tmp_path_factory.mktemp("program"), request.param, PROGRAM)


@pytest.fixture(scope="module")
def places(target: Path) -> dict[str, int]:
    """Where its functions begin."""
    symbols = Symbols([target.with_name("small.elf")])
    return {name: start for start, _, name in symbols._functions}


@pytest.fixture
def make(target: Path) -> Iterator[Callable[..., Debuggee]]:
    """Makes a debugged chip with PROGRAM, which runs."""
    made: list[Debuggee] = []

    def make_one(*, live: bool = False) -> Debuggee:
        found = load_target(target)
        engine = DebuggedChip(found.chip, found.elf_files)
        made.append(Debuggee(engine, found.start_image, live=live))
        made[-1].thread.start()
        return made[-1]

    yield make_one
    for one in made:
        one.end()


@pytest.fixture
def chip(make: Callable[..., Debuggee]) -> Debuggee:
    """A chip with PROGRAM, at its first instruction."""
    return make()


def ram(chip: Debuggee, offset: int = 0) -> int:
    return chip.engine.board.sram.base + 0x800 + offset


def word(chip: Debuggee, address: int) -> int:
    return int.from_bytes(bytes.fromhex(chip.ask(f"m{address:x},4")), "little")


def set_word(chip: Debuggee, address: int, value: int) -> None:
    assert chip.ask(f"M{address:x},4:{value.to_bytes(4, 'little').hex()}") == "OK"


def set_register(chip: Debuggee, number: int, value: int, size: int = 4) -> None:
    assert chip.ask(f"P{number:x}={value.to_bytes(size, 'little').hex()}") == "OK"


PC, LR, XPSR, MSP, PSP, PRIMASK, CONTROL = 15, 14, 16, 17, 18, 19, 20
BASEPRI, FAULTMASK, D0, FPSCR = 21, 22, 23, 39
"""As GDB counts them."""


COUNTFLAG = 1 << 16


def run_to(chip: Debuggee, address: int) -> None:
    assert chip.ask(f"Z1,{address:x},2") == "OK"
    assert chip.ask("c") == "S05"
    assert chip.register(PC) == address
    assert chip.ask(f"z1,{address:x},2") == "OK"


def test_it_waits_at_the_reset_vector_with_all_registers(
    chip: Debuggee, places: dict[str, int]
) -> None:
    document = chip.ask("qXfer:features:read:target.xml:0,fff")
    named = re.findall(r'name="(\w+)" bitsize="(\d+)"', document)
    has_fpu = chip.engine.board.core == "cortex-m4"
    assert [name for name, _ in named[:17]] == [
        *(f"r{number}" for number in range(13)),
        *("sp", "lr", "pc", "xpsr"),
    ]
    system = ["msp", "psp", "primask", "control", "basepri", "faultmask"]
    assert [name for name, _ in named[17:23]] == system
    floats = [*(f"d{number}" for number in range(16)), "fpscr"] if has_fpu else []
    assert [name for name, _ in named[23:]] == floats
    assert len(chip.ask("g")) == sum(int(bits) for _, bits in named) // 4
    assert chip.ask("?") == "S05"
    assert chip.register(PC) == places["start"]
    assert chip.register(13) == chip.register(MSP) == chip.engine.board.sram.base + 0x1000
    assert chip.register(XPSR) & 1 << 24
    assert chip.engine.now == 0.0


def test_registers_are_written(chip: Debuggee) -> None:
    every = bytes.fromhex(chip.ask("g"))
    assert chip.ask(f"G{every.hex()}") == "OK"
    assert chip.ask("g") == every.hex()
    values = {0: 0x12345678, 12: 7, LR: 99, PSP: 0x20000400, PRIMASK: 1, BASEPRI: 0x20}
    for number, value in values.items():
        set_register(chip, number, value, 1 if number in {PRIMASK, BASEPRI} else 4)
        assert chip.register(number) == value
    set_register(chip, XPSR, 0xA100_0000)
    assert chip.register(XPSR) == 0xA100_0000
    if chip.engine.board.core == "cortex-m4":
        set_register(chip, D0 + 3, 0x0123_4567_89AB_CDEF, 8)
        assert chip.register(D0 + 3) == 0x0123_4567_89AB_CDEF
        set_register(chip, FPSCR, 0x0300_0000)
        assert chip.register(FPSCR) == 0x0300_0000


def test_a_breakpoint_holds_in_a_handler_and_its_frame_is_there(
    chip: Debuggee, places: dict[str, int]
) -> None:
    for count in range(3):
        run_to(chip, places["tick"])
        assert word(chip, ram(chip, 4)) >= count
        assert chip.register(XPSR) & 0x1FF == 15
        assert chip.register(LR) == 0xFFFF_FFF9
        returns_to = word(chip, chip.register(13) + 24)
        assert places["rest"] < returns_to < places["rest"] + 8


def test_steps_go_through_sleep_handler_and_return(chip: Debuggee, places: dict[str, int]) -> None:
    run_to(chip, places["rest"])
    before = chip.engine.now
    assert chip.ask("s") == "S05"
    assert chip.register(PC) == places["tick"], "the sleep is part of the step"
    assert chip.engine.now > before + 1e-5
    ticks = word(chip, ram(chip, 4))
    for _ in range(20):
        assert chip.ask("s") == "S05"
        if not chip.register(XPSR) & 0x1FF:
            break
    assert chip.register(PC) == places["rest"] + 2, "the instruction after the WFI"
    assert word(chip, ram(chip, 4)) == ticks + 1
    assert chip.ask("s") == "S05"
    assert chip.register(PC) == places["rest"] + 4


def test_a_sleep_that_a_masked_interrupt_ends_is_one_step(
    chip: Debuggee, places: dict[str, int]
) -> None:
    run_to(chip, places["rest"])
    set_register(chip, PRIMASK, 1, 1)
    before = chip.engine.now
    assert chip.ask("s") == "S05"
    assert chip.register(PC) == places["rest"] + 2
    assert chip.engine.now > before + 1e-5
    set_register(chip, PRIMASK, 0, 1)
    assert chip.ask("s") == "S05"
    assert chip.register(PC) == places["tick"], "the begin of an exception is a step"


def test_a_sleep_without_end_is_interrupted(chip: Debuggee, places: dict[str, int]) -> None:
    run_to(chip, places["rest"])
    set_register(chip, FAULTMASK, 1, 1)  # which keeps SysTick from ending it
    ticks = word(chip, ram(chip, 4))
    for packet in ("s", "c", "s"):
        passed = chip.engine.now + 0.01
        chip.send(packet)
        until(lambda: chip.engine.now > passed)  # noqa: B023 - at once
        chip.socket.sendall(b"\x03")
        assert chip.answer() == "S02"
        assert chip.register(PC) == places["rest"] + 2
        assert word(chip, ram(chip, 4)) == ticks
    set_register(chip, FAULTMASK, 0, 1)
    assert chip.ask("s") == "S05"
    assert chip.register(PC) == places["tick"]


def test_a_watchpoint_stops_before_the_access_and_is_passed_once(
    chip: Debuggee, places: dict[str, int]
) -> None:
    run_to(chip, places["work"])
    assert chip.ask(f"Z2,{ram(chip):x},4") == "OK"
    for number in range(3):
        assert chip.ask("c") == f"T05watch:{ram(chip):x};"
        assert places["work"] <= chip.register(PC) < places["work"] + 12
        assert word(chip, ram(chip)) == max(0, number - 1) or number == 0
        assert chip.ask("?") == f"T05watch:{ram(chip):x};"
    assert chip.ask(f"z2,{ram(chip):x},4") == "OK"
    assert chip.ask(f"Z3,{ram(chip):x},4") == "OK"
    assert chip.ask("c") == f"T05rwatch:{ram(chip):x};"
    assert word(chip, ram(chip)) == 2
    assert chip.ask(f"z3,{ram(chip):x},4") == "OK"
    assert chip.ask("Z4,e000e010,4") == "OK"
    assert chip.ask("Z2,e000e010,4") == "OK"
    assert chip.ask("D") == "OK"
    assert chip.hung_up()
    assert chip.engine.watchpoints == frozenset()


def test_a_read_that_is_watched_has_no_effect_before_it_is_let_go(
    chip: Debuggee, places: dict[str, int]
) -> None:
    run_to(chip, places["tick"])
    for packet, stop in (
        (f"2,{ram(chip):x},4", f"watch:{ram(chip):x}"),
        ("3,e000e010,4", "rwatch:e000e010"),
    ):
        assert chip.ask(f"Z{packet}") == "OK"
        assert chip.ask("c") == f"T05{stop};"
        assert word(chip, 0xE000_E010) & COUNTFLAG, "the read would clear it"
        assert chip.ask(f"z{packet}") == "OK"
    assert chip.ask("s") == "S05"
    assert not word(chip, 0xE000_E010) & COUNTFLAG


def test_a_device_is_watched_and_not_touched_before(chip: Debuggee) -> None:
    assert chip.ask("Z4,e000e010,4") == "OK"
    assert chip.ask("c") == "T05awatch:e000e010;"
    assert word(chip, 0xE000_E010) & 7 in {0, 4}
    assert chip.ask("s") == "S05"
    assert word(chip, 0xE000_E010) & 7 == 7


@pytest.mark.parametrize("how", ["breakpoints", "watchpoint", "steps"])
def test_time_passes_as_without_a_debugger(how: str, target: Path, places: dict[str, int]) -> None:
    """What was executed in the same virtual time is the same."""
    found = load_target(target)
    ends = []
    for debugged in (False, True):
        with DebuggedChip(found.chip, found.elf_files) as engine:
            engine.load_nor(found.start_image)
            engine.power_on()
            stops = 0
            if debugged:
                engine.note_debugger(attached=True)
                if how == "breakpoints":
                    for name in ("tick", "work"):
                        engine.set_breakpoint(places[name])
                        engine.set_breakpoint(places[name] + 4)
                if how == "watchpoint":
                    address = engine.board.sram.base + 0x800
                    engine.set_watchpoint(Watchpoint(address, 4, "access"))

            steps = debugged and how == "steps"
            while engine.now < 0.01:
                left = 0.01 - engine.now + 1e-9
                halt = engine.run_debugged(left, steps=steps, passes=True, past_watch=True)
                stops += halt is not None
            for address in engine.breakpoints:
                engine.clear_breakpoint(address)
            for watchpoint in engine.watchpoints:
                engine.clear_watchpoint(watchpoint)
            while engine.now < 0.02:
                engine.run_freely(0.02 - engine.now)
            ram = engine.read_memory(engine.board.sram.base, engine.board.sram.size)
            ends.append((engine.instruction_bytes, engine.exceptions, engine.ops, ram))
            assert bool(stops) is debugged
    assert ends[0] == ends[1]


def test_a_fault_stops_it_in_the_handler_with_a_word(
    chip: Debuggee, places: dict[str, int]
) -> None:
    run_to(chip, places["work"])
    set_word(chip, ram(chip, 8), 2)
    chip.send("c")
    said = bytes.fromhex(chip.answer().removeprefix("O")).decode()
    assert said.startswith("unbrick: BusFault at 0xc0000000: nothing is there")
    assert chip.answer() == "S0b"
    assert chip.register(PC) == places["hard"]
    assert word(chip, 0xE000_ED28) & 1 << 9, "PRECISERR"
    assert "BusFault at 0xc0000000" in chip.monitor("faults")


def test_a_bkpt_stops_it_and_is_a_fault_when_it_is_passed(
    chip: Debuggee, places: dict[str, int]
) -> None:
    run_to(chip, places["work"])
    set_word(chip, ram(chip, 8), 1)
    assert chip.ask("c") == "S05"
    assert chip.ask(f"m{chip.register(PC):x},2") == "01be"
    chip.send("c")
    assert "HardFault" in bytes.fromhex(chip.answer().removeprefix("O")).decode()
    assert chip.answer() == "S0b"
    assert chip.register(PC) == places["hard"]


def test_the_registers_of_the_core_are_shown_and_not_changed(chip: Debuggee) -> None:
    core = {"cortex-m3": 0x412FC231, "cortex-m4": 0x410FC241}[chip.engine.board.core]
    assert word(chip, 0xE000_ED00) == core
    assert chip.ask("me000ed02,1") == f"{core >> 16 & 0xFF:02x}"
    assert len(chip.ask("me000effc,10")) == 8, "they end there"
    assert chip.ask("Me000ed00,4:00000000") == "E01"
    assert chip.ask("me0001004,4") == "E01"


def test_a_debugger_is_told_of_flash_with_its_pages(chip: Debuggee) -> None:
    said = chip.ask("qXfer:memory-map:read::0,fff")
    found = re.findall(
        r'type="(\w+)" start="(\w+)" length="(\w+)"(?:><property name="blocksize">(\w+)<)?', said
    )
    flash = load_chip(chip.engine.board.name).main
    page = hex(flash.block_sizes[0])
    assert found[0] == ("flash", hex(flash.base), hex(flash.size), page)
    sram = chip.engine.board.sram
    assert ("ram", hex(sram.base), hex(sram.size), "") in found
    assert found[-1] == ("rom", "0xe000e000", "0x1000", "")


def test_sectors_of_different_sizes_are_ranges_of_their_own() -> None:
    with DebuggedChip(load_chip("stm32f407xg")) as engine:
        flash = [(one.size, one.block_size) for one in engine.memories if one.kind == "flash"]
    assert flash[:3] == [
        (4 * 0x4000, 0x4000),
        (0x10000, 0x10000),
        (7 * 0x20000, 0x20000),
    ]


@pytest.mark.parametrize(
    "packet",
    [
        "m40000000,4",
        "mffffffff,4",
        f"m20000000,{MAX_PACKET_SIZE:x}",
        "M8000000,1:00",
        "M20000000,2:00",
        "P13=00000000",  # PRIMASK has one byte
        "p99",
        "Gff",
        "Z2,0,0",
        "Z0,0",
        "Z0,x,2",
        "vFlashErase:8000000,400",  # in a case
        "vFlashWrite:8000000:xx",
        "qRcmd,6",
        "c\xff",
    ],
)
def test_what_cannot_be_is_an_error(chip: Debuggee, packet: str) -> None:
    assert chip.ask(packet) == "E01"
    assert chip.ask("?") == "S05"


def test_breakpoints_are_bounded(chip: Debuggee) -> None:
    base = load_chip(chip.engine.board.name).main.base
    for number in range(MOST_BREAKPOINTS):
        assert chip.ask(f"Z1,{base + 0x1000 + 4 * number:x},2") == "OK"
    assert chip.ask(f"Z1,{base + 0x800:x},2") == "E02"
    assert chip.ask(f"z1,{base + 0x1000:x},2") == "OK"
    assert chip.ask(f"Z1,{base + 0x800:x},2") == "OK"


def test_the_monitor_of_a_case_leaves_power_and_reset_alone(chip: Debuggee) -> None:
    assert [line.split()[0] for line in chip.monitor("help").splitlines()] == [
        *("help", "time", "ops", "faults")
    ]
    assert "`monitor help`" in chip.monitor("reset")
    assert "0 bytes of instructions executed" in chip.monitor("time")


# A chip that runs for no case -------------------------------------------------------------------


def test_reset_and_power_cut_by_the_monitor_and_breakpoints_stay(
    make: Callable[..., Debuggee], places: dict[str, int]
) -> None:
    chip = make(live=True)
    for command, keeps in (("reset", True), ("reset halt", True), ("cut", False)):
        run_to(chip, places["work"])
        set_word(chip, ram(chip, 0x100), 0xC0FFEE)
        assert chip.ask(f"Z1,{places['work']:x},2") == "OK"
        assert "register-cache" in chip.monitor(command)
        assert chip.register(PC) == places["start"]
        assert (word(chip, ram(chip, 0x100)) == 0xC0FFEE) is keeps
        assert chip.ask("c") == "S05"
        assert chip.register(PC) == places["work"]
        assert chip.ask(f"z1,{places['work']:x},2") == "OK"
    assert "`monitor help`" in chip.monitor("reset now")
    names = [line.split()[0] for line in chip.monitor("help").splitlines()]
    assert names == ["help", "time", "ops", "faults", "cut", "reset"]


def test_flash_is_loaded_by_the_debugger(
    make: Callable[..., Debuggee], places: dict[str, int]
) -> None:
    chip = make(live=True)
    run_to(chip, places["work"])
    flash = load_chip(chip.engine.board.name).main
    page, size = flash.base, flash.block_sizes[0]
    before = bytes.fromhex(chip.ask(f"m{page:x},{size:x}"))
    at = places["work"] - page
    changed = before[:at] + b"\xfe\xe7" + before[at + 2 :]  # b .
    assert chip.ask(f"vFlashErase:{page:x},{size:x}") == "OK"
    assert chip.ask(f"m{page:x},8") == "ff" * 8
    escaped = re.sub(rb"[#$}*]", lambda found: b"}" + bytes([found[0][0] ^ 0x20]), changed)
    for start in range(0, len(escaped), 0x400):
        piece = escaped[start : start + 0x400]
        piece = piece[:-1] if piece.endswith(b"}") else piece
        body = b"vFlashWrite:%x:" % (page + start) + piece
        if b"}" in piece:
            continue
        chip.socket.sendall(b"$" + body + b"#%02x" % (sum(body) % 256))
        assert chip.answer() == "OK"
    assert chip.ask("vFlashDone") == "OK"
    assert chip.engine.ops == [], "no operation of the firmware"
    for packet in (
        f"vFlashErase:{page + 4:x},{size:x}",
        f"vFlashErase:{page:x},{size + 4:x}",
        "vFlashErase:20000000,400",
        f"vFlashWrite:{page + flash.size - 1:x}:xx",
        "vFlashWrite:20000000:x",
        f"vFlashWrite:{page:x}:x}}",
    ):
        assert chip.ask(packet) == "E01", packet
