"""The part of ``make bench`` about microcontrollers: their core, their flash, and searches.

A program of ours runs on an nRF52840. The example and a bootloader of others are searched.
"""

from __future__ import annotations

import runpy
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from elftools.elf.elffile import ELFFile
from unicorn.arm_const import UC_ARM_REG_SP, UC_CPU_ARM_CORTEX_M4
from unicorn.unicorn_const import (
    UC_ARCH_ARM,
    UC_HOOK_CODE,
    UC_MODE_MCLASS,
    UC_MODE_THUMB,
    UC_PROT_READ,
    UC_PROT_WRITE,
)
from unicorn.unicorn_py3.unicorn import Uc

from performance_page import write_table
from unbrick.board import load_chip
from unbrick.campaign.run import run_campaign
from unbrick.campaign.search import Bounds
from unbrick.engine.mcu import McuEngine
from unbrick.errors import SetupError, ToolBrokenError
from unbrick.target.target import FileTarget

if TYPE_CHECKING:
    from unbrick.campaign.search import SearchResult

HERE = Path(__file__).resolve().parent
EXAMPLE = HERE.parent / "examples" / "ab-updater"
EXAMPLE_CHIP = "nrf52840"
DEMO = "f103"
MCUBOOT = "pr2100-fixed"
REPEAT = 5
HASHED = 1 << 20
EXCEPTIONS = 200_000
PROGRAMS = 50_000
RAM = 0x2000_0000
NOWHERE = 0xFFFF_FFFE  # where Unicorn would stop


def build(hashed: int, exceptions: int = 0, programs: int = 0) -> bytes:
    """The program as a flash image.

    It takes so many exceptions, programs so many words of the flash, and hashes so many bytes.
    """
    with tempfile.TemporaryDirectory() as folder:
        elf = Path(folder) / "bench_mcu.elf"
        command = [sys.executable, "-m", "ziglang", "cc", "-target", "thumb-freestanding-eabi"]
        command += ["-mcpu=cortex_m4+soft_float", "-std=c11", "-O2", "-ffreestanding", "-nostdlib"]
        command += ["-fno-sanitize=all", "-Wl,--entry=0", f"-Wl,-T,{HERE / 'bench_mcu.ld'}"]
        command += [f"-DHASHED={hashed}", f"-DEXCEPTIONS={exceptions}"]
        command += [f"-DPROGRAMS={programs}"]
        subprocess.run([*command, "-o", str(elf), str(HERE / "bench_mcu.c")], check=True)
        with elf.open("rb") as stream:
            segments = ELFFile(stream).iter_segments("PT_LOAD")
            return next(bytes(one.data()) for one in segments if one["p_paddr"] == 0)


def bare(image: bytes) -> Uc:
    """Unicorn with the same memories and nothing else."""
    uc = Uc(UC_ARCH_ARM, UC_MODE_THUMB | UC_MODE_MCLASS)
    uc.ctl_set_cpu_model(UC_CPU_ARM_CORTEX_M4)
    uc.mem_map(0, 1 << 20)
    uc.mem_map(RAM, 1 << 18, UC_PROT_READ | UC_PROT_WRITE)  # it stores faster where no code is
    uc.mem_write(0, image.ljust(1 << 20, b"\xff"))
    uc.reg_write(UC_ARM_REG_SP, int.from_bytes(image[:4], "little"))
    return uc


def bare_seconds(image: bytes) -> float:
    """Processor seconds that Unicorn alone takes to hash."""
    uc = bare(image)
    start = time.process_time()
    uc.emu_start(int.from_bytes(image[4:8], "little"), NOWHERE)
    return time.process_time() - start


def count_instructions(hashed: int) -> int:
    """Instructions that hashing takes."""
    image, count = build(hashed), [0]

    def step(*_: object) -> None:
        count[0] += 1

    uc = bare(image)
    uc.hook_add(UC_HOOK_CODE, step)
    uc.emu_start(int.from_bytes(image[4:8], "little"), NOWHERE)
    return count[0]


def our_seconds(image: bytes, exceptions: int, *, noting: bool = False) -> float:
    """Processor seconds that the engine takes; ``noting``, while it notes what is read."""
    chip = replace(load_chip("nrf52840"), devices=(), uarts=(), registers=(), ready=())
    with McuEngine(chip) as engine:
        engine.load_nor(image)
        if noting:
            engine.note_reads()
        elapsed = _run_to_end(engine)
        if engine.exceptions != exceptions:
            raise ToolBrokenError("the program took other exceptions")
        return elapsed


def _run_to_end(engine: McuEngine) -> float:
    """Processor seconds until a program is quiet.

    Raises:
        ToolBrokenError: it has not come to its end, or it was faulty.
    """
    engine.power_on()
    start = time.process_time()
    engine.advance(1000)
    elapsed = time.process_time() - start
    if not engine.quiet or engine.faults:
        raise ToolBrokenError("the program has not come to its end")
    return elapsed


def program_seconds() -> float:
    """Processor seconds that the engine takes for a word of an nRF52840 to be programmed."""
    with McuEngine(load_chip("nrf52840")) as engine:
        engine.load_nor(build(64, 0, PROGRAMS))
        elapsed = _run_to_end(engine)
        if engine.op_count != PROGRAMS:
            raise ToolBrokenError("the program did other flash operations")
        return elapsed / PROGRAMS


def build_example(folder: Path) -> FileTarget:
    """The example of docs/any-firmware.md."""
    subprocess.run(
        [sys.executable, str(EXAMPLE / "build.py"), "--out", str(folder / "build")], check=True
    )
    shutil.copy(EXAMPLE / f"{EXAMPLE_CHIP}.toml", folder)
    return FileTarget.load(folder / f"{EXAMPLE_CHIP}.toml")


def build_demo(folder: Path) -> FileTarget:
    """The correct bootloader for the STM32F103 of brickproof-fw (docs/brickproof.md)."""
    sys.path.append(str(HERE.parent / "tests"))
    tests = runpy.run_path(str(HERE.parent / "tests" / "brickproof_demo.py"), run_name="demo")
    found = next(one for one in tests["list_builds"](tests["find_demo"]()) if one.name == DEMO)
    return FileTarget.load(found.write_target(folder))


def search_seconds(target: FileTarget, bounds: Bounds) -> tuple[SearchResult, float]:
    """A search that finds nothing, and its processor seconds; the first session is known before."""
    target.start()
    start = time.process_time()
    result = run_campaign(target, bounds=bounds)
    if result.violations:
        raise ToolBrokenError(result.statement)
    return result, time.process_time() - start


def search_row(target: FileTarget) -> tuple[str, str, str]:
    """One power cut in the example, judged by what sessions read, and each state by itself."""
    few, few_seconds = search_seconds(target, Bounds(depth=1))
    all_, all_seconds = search_seconds(target, Bounds(depth=1, exact=True))
    each = [f"{len(few.cases):,} sessions in {few_seconds:.1f} s"]
    each += [f"{len(all_.cases):,} in {all_seconds:.1f} s"]
    return (
        f"one power cut in the example for {EXAMPLE_CHIP}, by what sessions read to state by state",
        f"{few_seconds / all_seconds:.2f}",
        " and ".join(each),
    )


def find_mcuboot(folder: Path, name: str = MCUBOOT) -> FileTarget | None:
    """A build of MCUboot that takes an upgrade back (docs/mcuboot.md); None: there is no corpus."""
    tools = runpy.run_path(str(HERE.parent / "examples" / "mcuboot" / "prepare.py"))
    try:
        return FileTarget.load(tools["prepare"](folder)[name])
    except SetupError:
        return None


def cut_row(
    name: str, target: FileTarget, bounds: Bounds, repeat: int = REPEAT
) -> tuple[str, str, str]:
    """What a power cut with its recovery costs, to a session that is not cut."""
    runs = [search_seconds(target, bounds) for _ in range(repeat)]
    result, seconds = min(runs, key=lambda run: run[1])
    start, alone = target.start(), []
    with target.create_engine() as engine:  # it shall join no session of the search
        for _ in range(REPEAT):
            began = time.process_time()
            target.run(start, engine=engine)
            alone.append(time.process_time() - began)
    each = seconds / result.transitions
    figures = (
        f"{1000 * each:.2f} ms and {1000 * min(alone):.1f} ms; {1 / each:,.0f} cuts a second, "
    )
    figures += f"{result.transitions:,} judged by {len(result.cases):,} sessions in {seconds:.1f} s"
    return (
        f"a power cut with its recovery in {name}, to the session that is cut first",
        f"{each / min(alone):.2f}",
        figures,
    )


def search_rows() -> list[tuple[str, str, str]]:
    """What searches of targets from files cost."""
    with tempfile.TemporaryDirectory() as folder:
        example, demo = build_example(Path(folder)), build_demo(Path(folder))
        single, mcuboot = Bounds(depth=1), find_mcuboot(Path(folder))
        rows = [
            search_row(example),
            cut_row(f"the example for {EXAMPLE_CHIP}", example, single),
            cut_row(f"brickproof's {DEMO}", demo, single),
        ]
        return rows + ([cut_row(f"MCUboot's {MCUBOOT}", mcuboot, single, 1)] if mcuboot else [])


def mcu_rows() -> list[tuple[str, str, str]]:
    """What there is to say: what, ratio, figures of this machine."""
    image = build(HASHED)
    ours = min(our_seconds(image, 0) for _ in range(REPEAT))
    theirs = min(bare_seconds(image) for _ in range(REPEAT))
    noted = min(our_seconds(image, 0, noting=True) for _ in range(REPEAT))
    few, more = count_instructions(1024), count_instructions(2048)
    count = (more - few) * (HASHED // 1024)
    image = build(64, EXCEPTIONS)
    each = min(our_seconds(image, EXCEPTIONS) for _ in range(REPEAT)) / EXCEPTIONS
    word = min(program_seconds() for _ in range(REPEAT))
    return [
        (
            "instructions per second, Cortex-M4 in process to bare Unicorn (SHA-256 of 1 MiB)",
            f"{theirs / ours:.2f}",
            f"{count / ours / 1e6:.0f} and {count / theirs / 1e6:.0f} million a second",
        ),
        (
            "an exception and its return, in instructions that run in the same time",
            f"{each * count / ours:.0f}",
            f"{1e-6 / each:.2f} million exceptions a second",
        ),
        (
            "a word of an nRF52840 programmed, in instructions that run in the same time",
            f"{word * count / ours:.0f}",
            f"{1e-6 / word:.2f} million operations a second",
        ),
        (
            "the same SHA-256 while what is read is noted, to without",
            f"{noted / ours:.2f}",
            f"{noted:.2f} s and {ours:.2f} s",
        ),
        *search_rows(),
    ]


def main() -> None:
    """Measure, print, and write the section."""
    write_table("Microcontrollers", mcu_rows(), "unicorn", "brickproof-fw")


if __name__ == "__main__":
    main()
