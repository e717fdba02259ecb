"""The board is data: its files are checked, and every copy of one of its numbers is compared."""

from __future__ import annotations

import pickle
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import unbrick
from unbrick.board import Board, load_board, load_flash_chip
from unbrick.cli.main import cli
from unbrick.engine.create import create_engine
from unbrick.engine.inprocess import NorModel
from unbrick.errors import EngineError, SetupError
from unbrick.folders import firmware_folder, renode_folder
from unbrick.layout import c_header, linker_symbols, load_layout, reference_layout

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PACKAGE = Path(unbrick.__file__).parent
MODELS = PACKAGE / "engine" / "inprocess" / "c"
BOARD_FILE = PACKAGE / "board" / "boards" / "vexpress-a9.toml"
CHIP_FILE = PACKAGE / "board" / "flash_chips" / "p30-256mbit.toml"
LAYOUT_FILE = firmware_folder() / "layout.toml"


def read(path: Path) -> dict[str, Any]:
    """A file as TOML has it, without the loader that is tested here."""
    return tomllib.loads(path.read_text(encoding="utf-8"))


RAW, CHIP = read(BOARD_FILE), read(CHIP_FILE)
DEVICES, COUNT = RAW["devices"], RAW["nor"]["side_by_side"]
(BLOCKS,) = CHIP["blocks"]
BLOCK, SIZE = BLOCKS["size"] * COUNT, BLOCKS["count"] * BLOCKS["size"] * COUNT
TIMES = CHIP["times_ns"]
BUFFER_TIMES = [number for row in TIMES["buffer"] for number in (row["words"], row["ns"])]
SPI = 32  # the number of the first shared interrupt (Arm IHI 0048, 2.2.1)
PAGE = 4096
MHZ = 1_000_000


def numbers(text: str) -> list[int]:
    """The numbers of a text, a product as one; as C, C# and Renode write them."""
    products = re.findall(r"\b(?:0x[0-9a-fA-F]+|\d+)u?\b(?: \* \d+u?)*", text)
    found = []
    for product in products:
        value = 1
        for factor in product.split(" * "):
            value *= int(factor.rstrip("u"), 0)
        found.append(value)
    return found


# Where a number of the board stands once more: the file, a pattern around it, what the board says.
COPIES: list[tuple[Path, str, list[int]]] = [
    (MODELS / "board.h", r"#define NOR_CHIPS (.*)", [COUNT]),
    (MODELS / "board.h", r"#define NOR_BLOCK \((.*?)\)", [BLOCK]),
    (MODELS / "board.h", r"#define NOR_TOTAL \((.*?)\)", [SIZE]),
    (MODELS / "board.h", r"#define NOR_MODELLED \((.*?)\)", [RAW["nor"]["modelled"]]),
    (MODELS / "board.h", r"#define NOR_BUFFER_WORDS (\w+)", [BUFFER_TIMES[-2]]),
    (MODELS / "parts.h", r"#define SRAM_BASE (\w+)", [RAW["sram"]["base"]]),
    (MODELS / "parts.h", r"#define SRAM_SIZE \((.*?)\)", [RAW["sram"]["size"]]),
    (MODELS / "p30.c", r"#define T_WORD (\w+)", [TIMES["word"]]),
    (MODELS / "p30.c", r"#define T_ERASE (\w+)", [TIMES["erase"]]),
    (MODELS / "p30.c", r"#define T_BLANK (\w+)", [TIMES["blank_check"]]),
    (MODELS / "p30.c", r"#define T_SUSPEND (\w+)", [TIMES["suspend"]]),
    (
        MODELS / "p30.c",
        r"(?s)uint64_t buffer_time.*?\{\n(.*?)\n\}",
        [*BUFFER_TIMES[:-2], BUFFER_TIMES[-1]],
    ),
    (MODELS / "p30.c", r"(?s)case 0x00:\n\s+return (0x\w+);", [CHIP["manufacturer_id"]]),
    (MODELS / "p30.c", r"(?s)case 0x01:\n\s+return (0x\w+);", [CHIP["device_id"]]),
    (MODELS / "board.c", r"gic_passes\(b, (\d+)\)", [DEVICES["timer"]["interrupt"]]),
    (MODELS / "board.c", r"gic_passes\(b, (\d+) \+", [DEVICES["uart0"]["interrupt"]]),
    (MODELS / "vexpress.c", r"b->now \* (\d+) / 1000", [DEVICES["sys_24mhz"]["clock_hz"] // MHZ]),
    (
        MODELS / "vexpress.c",
        r"reg == (0x\w+)\) \{\n\s+return",
        [DEVICES["sys_24mhz"]["base"] % PAGE],
    ),
    (MODELS / "vexpress.c", r"reg == (0x\w+) && word", [DEVICES["sys_cfgctrl"]["base"] % PAGE]),
    (MODELS / "pl011.c", r"16 \* 1000 / \(64 \* (\d+)\)", [DEVICES["uart0"]["clock_hz"] // MHZ]),
    *(
        (
            MODELS / "vexpress.c",
            rf"case (0x\w+):\n[^;]*{what}",
            [(DEVICES[name]["base"] - DEVICES["sysreg"]["base"]) // PAGE],
        )
        for name, what in (
            ("uart0", r"uart_read\(b, &b->uarts\[0\]"),
            ("uart1", r"uart_read\(b, &b->uarts\[1\]"),
            ("uart0", r"uart_write\(b, &b->uarts\[0\]"),
            ("uart1", r"uart_write\(b, &b->uarts\[1\]"),
            ("timer", r"timer_read\("),
            ("timer", r"timer_write\("),
        )
    ),
    (
        MODELS / "vexpress.c",
        r"fault\(b, FAULT_BOUNDS, (0x1e\w+)",
        [DEVICES["gic_cpu"]["base"] & ~(PAGE - 1)],
    ),
    (
        MODELS / "vexpress.c",
        r"== (0x\w+)\) \{\n\s+return g->cpu_control",
        [DEVICES["gic_cpu"]["base"] % PAGE],
    ),
    (
        MODELS / "vexpress.c",
        r"== (0x\w+)\) \{\n\s+return g->dist_control",
        [DEVICES["gic_dist"]["base"] - (DEVICES["gic_cpu"]["base"] & ~(PAGE - 1))],
    ),
]
RENODE = renode_folder()
COPIES += [
    (
        RENODE / "terminal.repl",
        r"address: (\w+); size: \w+; region: \"array\"",
        [RAW["nor"]["base"]],
    ),
    (
        RENODE / "terminal.repl",
        r"address: (\w+); size: \w+; region: \"window\"",
        [RAW["nor"]["window"]],
    ),
    (RENODE / "terminal.repl", r"size: (\w+); region: \"array\"", [SIZE]),
    (RENODE / "terminal.repl", r"size: (\w+); region: \"window\"", [SIZE]),
    (RENODE / "terminal.repl", r"sram: Memory.MappedMemory @ sysbus (\w+)", [RAW["sram"]["base"]]),
    (
        RENODE / "terminal.repl",
        r"sram: Memory.MappedMemory @ sysbus \w+\s+size: (\w+)",
        [RAW["sram"]["size"]],
    ),
    (
        RENODE / "terminal.repl",
        r"address: (\w+); size: \w+; region: \"distributor\"",
        [DEVICES["gic_dist"]["base"]],
    ),
    (
        RENODE / "terminal.repl",
        r"address: (\w+); size: \w+; region: \"cpuInterface\"",
        [DEVICES["gic_cpu"]["base"]],
    ),
    (RENODE / "terminal.repl", r"BoardRegisters @ sysbus (\w+)", [DEVICES["sysreg"]["base"]]),
    *(
        (
            RENODE / "terminal.repl",
            rf"(?s)\n{name}: \S+ @ sysbus (\w+\n    -> gic@\w+)",
            [DEVICES[name]["base"], DEVICES[name]["interrupt"] - SPI],
        )
        for name in ("uart0", "uart1", "timer")
    ),
    *(
        (RENODE / "peripherals" / "NorChip.cs", rf"const \w+ {name} = (.*);", [value])
        for name, value in {
            "Block": BLOCK,
            "Total": SIZE,
            "Modelled": RAW["nor"]["modelled"],
            "BufferWords": BUFFER_TIMES[-2],
            "WordTime": TIMES["word"],
            "EraseTime": TIMES["erase"],
            "BlankTime": TIMES["blank_check"],
            "SuspendTime": TIMES["suspend"],
        }.items()
    ),
    (
        RENODE / "peripherals" / "NorChip.cs",
        r"(?s)ulong BufferTime.*?return (.*?);",
        [*BUFFER_TIMES[:-2], BUFFER_TIMES[-1]],
    ),
    (
        RENODE / "peripherals" / "NorChip.cs",
        r"case 0x00:\s+return (\w+);",
        [CHIP["manufacturer_id"]],
    ),
    (RENODE / "peripherals" / "NorChip.cs", r"case 0x01:\s+return (\w+);", [CHIP["device_id"]]),
    (
        RENODE / "peripherals" / "BoardRegisters.cs",
        r"long Counter = (\w+);",
        [DEVICES["sys_24mhz"]["base"] % PAGE],
    ),
    (
        RENODE / "peripherals" / "BoardRegisters.cs",
        r"long Control = (\w+);",
        [DEVICES["sys_cfgctrl"]["base"] % PAGE],
    ),
    (
        RENODE / "peripherals" / "BoardRegisters.cs",
        r"TotalSeconds \* (\d+)e6",
        [DEVICES["sys_24mhz"]["clock_hz"] // MHZ],
    ),
]


def name_copy(value: object) -> str:
    return value.name if isinstance(value, Path) else ""


@pytest.mark.parametrize(("file", "pattern", "wanted"), COPIES, ids=name_copy)
def test_every_copy_of_a_number_is_that_of_the_board(
    file: Path, pattern: str, wanted: list[int]
) -> None:
    found = re.findall(pattern, file.read_text(encoding="utf-8"))
    assert found, f"{file.name} has no {pattern}"
    assert [numbers(text) for text in found] == [wanted] * len(found), f"{file.name}: {found}"


def test_compiler_and_engines_have_the_core_of_the_board() -> None:
    core = RAW["core"]
    assert f'cpuType: "{core}"' in (RENODE / "terminal.repl").read_text(encoding="utf-8")
    emulator = (PACKAGE / "engine" / "inprocess" / "engine.py").read_text(encoding="utf-8")
    constant = f"UC_CPU_ARM_{core.replace('-', '_').upper()}"
    assert f"ctl_set_cpu_model({constant})" in emulator
    build = (PACKAGE / "firmware" / "build.py").read_text(encoding="utf-8")
    assert f"-mcpu={core.replace('-', '_')}+" in build


def test_the_model_answers_the_cfi_query_as_the_chip_is_described() -> None:
    nor = NorModel()
    nor.write32(0x55 * 4, 0x98 << 16 | 0x98)
    low = [nor.read32(word * 4) & 0xFFFF for word in range(0x10, 0x31)]
    assert bytes(low[:3]) == b"QRY"
    assert 1 << low[0x27 - 0x10] == BLOCKS["size"] * BLOCKS["count"]
    assert 1 << (low[0x2A - 0x10] | low[0x2B - 0x10] << 8) == CHIP["write_buffer"]
    assert (low[0x2D - 0x10] | low[0x2E - 0x10] << 8) + 1 == BLOCKS["count"]
    assert (low[0x2F - 0x10] | low[0x30 - 0x10] << 8) * 256 == BLOCKS["size"]


def macros() -> dict[str, int]:
    text = c_header(reference_layout())
    return {name: int(value, 16) for name, value in re.findall(r"#define (\w+) (0x\w+)u\n", text)}


def test_the_firmwares_header_says_what_the_files_say() -> None:
    layout = read(LAYOUT_FILE)
    sram = RAW["sram"]["base"]
    wanted = {
        "BOARD_NOR": RAW["nor"]["base"],
        "BOARD_NOR_WINDOW": RAW["nor"]["window"],
        "BOARD_SRAM": sram,
        "BOARD_SRAM_BASE": sram,
        "BOARD_SRAM_SIZE": RAW["sram"]["size"],
        "BOARD_IMAGE_HEADER_SIZE": layout["image_header_size"],
        "BOARD_BAUD": RAW["baud"],
        "BOARD_UART_CLOCK_HZ": DEVICES["uart0"]["clock_hz"],
        "BOARD_TIMER_HZ": DEVICES["timer"]["clock_hz"],
        "BOARD_COUNTER_HZ": DEVICES["sys_24mhz"]["clock_hz"],
    }
    for name, device in DEVICES.items():
        wanted[f"BOARD_{name.upper()}"] = device["base"]
        if "interrupt" in device:
            wanted[f"BOARD_IRQ_{name.upper()}"] = device["interrupt"]
    for name, part in layout["partitions"].items():
        wanted[f"BOARD_{name.upper()}_OFFSET"] = part["offset"]
        wanted[f"BOARD_{name.upper()}_SIZE"] = part["size"]
    for name, region in layout["sram"].items():
        wanted[f"BOARD_{name.upper()}_BASE"] = sram + region["offset"]
        wanted[f"BOARD_{name.upper()}_SIZE"] = region["size"]
    assert macros() == wanted
    assert f'#define BOARD_HARDWARE_ID "{layout["hardware_id"]}"\n' in c_header(reference_layout())


def test_the_linker_gets_what_the_compiler_gets() -> None:
    symbols = re.findall(r"(\w+) = (0x\w+);\n", linker_symbols(reference_layout()))
    assert {name: int(value, 16) for name, value in symbols} == macros()


# ---- The files ----


def test_a_board_is_found_by_name_and_by_path() -> None:
    board = load_board("vexpress-a9")
    assert load_board(str(BOARD_FILE)) == board
    assert pickle.loads(pickle.dumps(board)) == board  # noqa: S301 - as to other processes
    assert board.nor.size == SIZE
    assert (board.nor.block_size, board.nor.write_buffer) == (BLOCK, CHIP["write_buffer"] * COUNT)
    assert board.nor.geometry.size == board.nor.modelled
    assert [board.device(name).interrupt for name in board.uarts] == [37, 38]
    assert board.line_rate == board.baud / 10


F405 = """
core = "cortex-m4"
uarts = ["usart2"]
baud = 115_200
[nor]
chip = "f405.toml"
base = 0x0800_0000
[sram]
base = 0x2000_0000
size = 0x2_0000
[devices]
usart2 = { base = 0x4000_4400, interrupt = 38, clock_hz = 42_000_000 }
"""
F405_FLASH = """
width = 32
blocks = [
  { count = 4, size = 0x4000 },
  { count = 1, size = 0x1_0000 },
  { count = 7, size = 0x2_0000 },
]
[times_ns]
word = 16_000
erase = 1_000_000_000
"""


def microcontroller(folder: Path) -> Board:
    """A board that nothing here emulates, in files of its own."""
    (folder / "mine.toml").write_text(F405)
    (folder / "f405.toml").write_text(F405_FLASH)
    return load_board(folder / "mine.toml")


def test_a_microcontroller_with_its_own_flash_is_one_more_file(tmp_path: Path) -> None:
    board = microcontroller(tmp_path)
    assert board.nor.size == board.nor.modelled == 1024 * 1024
    assert board.nor.window == board.nor.base
    assert board.nor.geometry.find_block(0x1_0000) == (4, 0)
    assert len(board.nor.geometry.block_sizes) == 12
    with pytest.raises(SetupError, match="differ in size") as error:
        _ = board.nor.block_size
    assert "geometry" in error.value.hint


@pytest.mark.parametrize("engine", ["inprocess", "qemu", "renode"])
def test_an_engine_refuses_a_board_that_it_does_not_emulate(engine: str, tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=f"{engine} does not emulate the board mine") as error:
        create_engine(engine, board=microcontroller(tmp_path))
    assert "vexpress-a9" in error.value.hint


def test_an_engine_takes_a_board_with_the_same_numbers_by_whatever_name(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(BOARD_FILE.read_text(encoding="utf-8"))
    mine = load_board(tmp_path / "mine.toml")
    with create_engine("inprocess", board=mine) as engine:
        assert engine.board.name == "mine"
    other = replace(mine, sram=replace(mine.sram, base=mine.sram.base + PAGE))
    with pytest.raises(SetupError, match="does not emulate"):
        create_engine("inprocess", board=other)


def test_help_is_given_whatever_the_layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sign = ["image", "sign", "--help"]
    assert "[default: unbrick-a9-r1]" in CliRunner().invoke(cli, sign).output
    monkeypatch.setenv("UNBRICK_FIRMWARE", str(tmp_path))
    reference_layout.cache_clear()
    helped = CliRunner().invoke(cli, sign)
    assert helped.exit_code == 0
    assert "layout says" in helped.output


def test_an_engine_says_which_board_it_is() -> None:
    with create_engine("inprocess", speed=1.0) as engine:
        assert engine.board == load_board("vexpress-a9")
        assert engine.geometry == engine.board.nor.geometry
        with pytest.raises(EngineError, match=str(engine.board.nor.modelled)):
            engine.load_nor(bytes(engine.board.nor.modelled + 1))


def write_changed(file: Path, old: str, new: str, folder: Path) -> Path:
    """A copy of a file of ours in which one thing is another."""
    text = file.read_text(encoding="utf-8")
    assert old in text
    copy = folder / "mine.toml"
    copy.write_text(text.replace(old, new, 1))
    return copy


def check_refused(load: Callable[[Path], object], file: Path, why: str, hint: str) -> None:
    with pytest.raises(SetupError, match=why) as error:
        load(file)
    assert hint in error.value.hint


WRONG_BOARDS = [
    ('core = "cortex-a9"\n', "", "`core` is missing", "give `core`"),
    ("baud = 115_200", "baud = 0", "`baud` is 0", "choose 1 to"),
    ('"uart1"]', '"uart7"]', "`uarts` names 'uart7'", "uart1"),
    ("side_by_side = 2", "side_by_side = 3", "`side_by_side` is 3", "1, 2, 4"),
    ("modelled = 0x0040_0000", "modelled = 0x0041_0000", "within an erase block", "0x440000"),
    ("modelled = 0x0040_0000", "modelled = 0x0800_0000", "`modelled` is 134217728", "choose 1 to"),
    ('chip = "p30-256mbit"', 'chip = "p31"', "there is no flash chip 'p31'", "p30-256mbit"),
    ('chip = "p30-256mbit"', 'chip = "p31.toml"', "cannot read .*p31.toml", "name a file"),
    ("base = 0x4800_0000", "base = 0x4100_0000", "ends at 0x44000000, after 0x41000000", "overlap"),
    ("base = 0x4800_0000", "base = 0xFFF0_0000", "ends at 0x100100000", "correct"),
    ("base = 0x1000_9000", "base = 0x0000_9000", "device uart0 at 0x9000 is in .nor", "correct"),
    ("interrupt = 37", "interrupt = 5000", "`interrupt` is 5000", "choose 0 to 1019"),
    ("interrupt = 37", "irq = 37", "unknown entry `irq`", "correct its name"),
    ("[sram]", "[sram", "is not TOML", "correct it"),
    ("timer = {", 'timer = "here" #', "`timer` is not a table", "a table"),
]


@pytest.mark.parametrize(("old", "new", "why", "hint"), WRONG_BOARDS)
def test_a_wrong_board_is_told_where(
    old: str, new: str, why: str, hint: str, tmp_path: Path
) -> None:
    wrong = write_changed(BOARD_FILE, old, new, tmp_path)
    check_refused(load_board, wrong, why, hint)


@pytest.mark.parametrize(
    ("old", "new", "why", "hint"),
    [
        ("width = 16", "width = 12", "`width` is 12", "8, 16, 32, 64"),
        ("write_buffer = 0x400", "write_buffer = 0x200", "`buffer` ends with 512", "whole buffer"),
        ("count = 256, ", "", "`count` is missing", "a number"),
        ("blocks = [{ count = 256, size = 0x2_0000 }]", "", "`blocks` is missing", "`count`"),
        ("word = 270_000", "words = 270_000", "`word` is missing", "give `word`"),
        ("suspend = 25_000", "resume = 25_000", "unknown entry `resume`", "correct"),
        ("blocks = [{", "blocks = [1, {", "no list of tables", "see the files"),
    ],
)
def test_a_wrong_chip_is_told_where(
    old: str, new: str, why: str, hint: str, tmp_path: Path
) -> None:
    wrong = write_changed(CHIP_FILE, old, new, tmp_path)
    check_refused(lambda file: load_flash_chip(file.name, file.parent), wrong, why, hint)


@pytest.mark.parametrize(
    ("old", "new", "why", "hint"),
    [
        ('board = "vexpress-a9"', 'board = "pc"', "there is no board 'pc'", "vexpress-a9"),
        ("offset = 0x10_0000, size = 0x10", "offset = 0x11_0000, size = 0x10", "erase block", "0x"),
        ("0x04_0000, size = 0x04", "0x04_0000, size = 0x08", "identity. and .journal. ov", "move"),
        ("offset = 0x1F_0000", "offset = 0x1F_8000", "`agent` ends at 0x208000", "0x200000"),
        ("offset = 0x1F_0000", "offset = 0x1E_0000", "`agent` and `pool` overlap", "move"),
        ("offset = 0x1D_0000", "offset = 0x1C_0000", "`resident` is not the end of", "move"),
        ('hardware_id = "unbrick-a9-r1"', "", "`hardware_id` is missing", "a text"),
        ("boot = {", "loader = {", "`offset` is missing", "a number"),
        ("[sram]", "[ram]", "`offset` is missing", "a number"),
    ],
)
def test_a_wrong_layout_is_told_where(
    old: str, new: str, why: str, hint: str, tmp_path: Path
) -> None:
    wrong = write_changed(LAYOUT_FILE, old, new, tmp_path)
    check_refused(load_layout, wrong, why, hint)


def test_sources_without_a_layout_are_told_where_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=r"layout\.toml") as error:
        load_layout(tmp_path / "layout.toml")
    assert "copy" in error.value.hint


@pytest.mark.parametrize("ask", [lambda b: b.device("uart9"), lambda _: load_board("stm32")])
def test_what_is_not_there_is_told_with_what_is(ask: Callable[[Board], object]) -> None:
    with pytest.raises(SetupError, match=r"uart9|stm32") as error:
        ask(load_board("vexpress-a9"))
    assert re.search("uart1|vexpress-a9", error.value.hint)


def test_a_partition_that_is_not_there_is_told_with_those_that_are() -> None:
    with pytest.raises(SetupError, match="swap") as error:
        reference_layout().partition("swap")
    assert "journal" in error.value.hint
