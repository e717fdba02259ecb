"""Source lines of a target that only recoveries run, and what lies in its flash."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from brickproof_demo import find_demo
from click.testing import CliRunner, Result
from small_firmware import build_small

from unbrick.board import load_chip
from unbrick.campaign.coverage import LineTable, keep_certain
from unbrick.cli.main import cli
from unbrick.engine.mcu import McuEngine
from unbrick.engine.symbols import SourceLine
from unbrick.target.target import FileTarget

DEMO = find_demo()
TARGET = """
chip = "stm32f411xe"
console = "usart2"
firmware = [
    { file = "f411_bootloader.elf" }, { file = "f411_app_v1.img", at = 0x0802_0000 },
]
update = { stage = { file = "f411_app_v2.img", at = 0x0804_0000 } }
recovered = { says = "APP v2", quiet = "10 ms" }
[partitions.boot]
at = 0x0800_0000
size = 0x8000
"""


def call(*words: object, code: int = 0) -> Result:
    done = CliRunner().invoke(cli, [*map(str, words)])
    assert done.exit_code == code, done.output
    return done


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """A target whose bootloader has lines that only recoveries run."""
    if DEMO is None:
        pytest.skip("brickproof-fw is not installed: pip install brickproof-fw==0.4.0")
    for name in ("f411_bootloader.elf", "f411_app_v1.img", "f411_app_v2.img"):
        shutil.copy(DEMO / "firmware" / "prebuilt" / name, tmp_path)
    (tmp_path / "target.toml").write_text(TARGET, encoding="utf-8")
    return tmp_path / "target.toml"


@pytest.mark.slow
def test_lines_that_only_recoveries_run_are_told(mine: Path) -> None:
    done = call("campaign", mine, "--coverage", "--json")
    files = {file["name"]: file for file in json.loads(done.stdout)["coverage"]}
    main = files["bootloader/main.c"]
    assert len(main["golden"]) > 20
    assert main["recovery"]
    assert not set(main["golden"]) & set(main["recovery"])
    assert files["common/startup.c"]["recovery"] == []
    assert "source lines run without faults" in call("campaign", mine, "--coverage").stdout


def test_code_is_noted_where_it_is_executed_also_in_ram(tmp_path: Path) -> None:
    source = """
    __attribute__((section(".data"), noinline)) static void in_ram(void) { __asm__ volatile(""); }
    void start(void) {
        unsigned short *from = (unsigned short *)((unsigned)in_ram & ~1u);
        volatile unsigned short *to = (unsigned short *)0x20000100;
        for (int i = 0; i < 16; i++) to[i] = from[i];
        ((void (*)(void))0x20000101)();
        for (;;) __asm__ volatile("wfi");
    }
    """
    target = FileTarget.load(build_small(tmp_path, "stm32f103xb", source), tried=False)
    with McuEngine(load_chip("stm32f103xb")) as engine:
        engine.load_nor(target.description.start_image)
        assert engine.executed() == []
        engine.watch_code()
        engine.power_on()
        engine.advance(0.01)
        starts = {address for address, size in engine.executed() if size}
    assert 0x2000_0100 in starts
    assert any(0x0800_0000 <= at < 0x0802_0000 for at in starts)
    assert any(at < 0x2_0000 for at in starts)  # the same flash, at its other address


def test_lines_at_addresses_of_two_programs_have_no_say() -> None:
    boot = [SourceLine(0, 8, "boot.c", 1), SourceLine(8, 16, "boot.c", 2)]
    old = [SourceLine(100, 108, "app.c", 1), SourceLine(108, 120, "app.c", 2)]
    new = [SourceLine(104, 110, "app.c", 7), SourceLine(120, 124, "app.c", 8)]
    kept = keep_certain([boot, old, new])
    assert kept == [*boot, new[1]]
    assert LineTable(kept, "").of([(0, 200)]) == {("boot.c", 1), ("boot.c", 2), ("app.c", 8)}


@pytest.mark.slow
def test_the_map_tells_what_lies_in_the_flash(mine: Path) -> None:
    text = call("image", "map", mine).stdout
    rows = {line.split()[0]: line.split()[1:] for line in text.splitlines()[1:-1]}
    assert rows["0x08000000"][0] == "boot"
    assert rows["0x08000000"][-1] == "f411_bootloader.elf"
    assert rows["0x08020000"][0] == "unused"
    assert rows["0x08040000"][-1] == "f411_app_v2.img"
    assert rows["0x1fffc000"][0] == "options"
    assert "5 more blocks are blank" in text
    flash = mine.with_name("flash.bin")
    flash.write_bytes(bytes(16))
    blocks = json.loads(call("image", "map", mine, flash, "--json").stdout)["blocks"]
    assert [block["used"] for block in blocks[:2]] == [16, 0]
    refused = call("image", "map", flash, flash, code=2)
    assert "is no target's file" in refused.stderr
