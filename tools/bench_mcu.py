"""The part of ``make bench`` about microcontrollers: a program of ours on an nRF52840's core."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from elftools.elf.elffile import ELFFile
from unicorn.arm_const import UC_ARM_REG_SP, UC_CPU_ARM_CORTEX_M4
from unicorn.unicorn_const import UC_ARCH_ARM, UC_HOOK_CODE, UC_MODE_MCLASS, UC_MODE_THUMB
from unicorn.unicorn_py3.unicorn import Uc

from unbrick.board import load_chip
from unbrick.campaign.run import run_campaign
from unbrick.campaign.search import Bounds
from unbrick.engine.mcu import McuEngine
from unbrick.errors import ToolBrokenError
from unbrick.target.target import FileTarget

HERE = Path(__file__).resolve().parent
EXAMPLE = HERE.parent / "examples" / "ab-updater"
EXAMPLE_CHIP = "nrf52840"
REPEAT = 5
HASHED = 1 << 20
EXCEPTIONS = 200_000
RAM = 0x2000_0000
NOWHERE = 0xFFFF_FFFE  # where Unicorn would stop


def build(hashed: int, exceptions: int) -> bytes:
    """The program as a flash image: it takes so many exceptions, and hashes so many bytes."""
    with tempfile.TemporaryDirectory() as folder:
        elf = Path(folder) / "bench_mcu.elf"
        command = [sys.executable, "-m", "ziglang", "cc", "-target", "thumb-freestanding-eabi"]
        command += ["-mcpu=cortex_m4+soft_float", "-std=c11", "-O2", "-ffreestanding", "-nostdlib"]
        command += ["-fno-sanitize=all", "-Wl,--entry=0", f"-Wl,-T,{HERE / 'bench_mcu.ld'}"]
        command += [f"-DHASHED={hashed}", f"-DEXCEPTIONS={exceptions}"]
        subprocess.run([*command, "-o", str(elf), str(HERE / "bench_mcu.c")], check=True)
        with elf.open("rb") as stream:
            segments = ELFFile(stream).iter_segments("PT_LOAD")
            return next(bytes(one.data()) for one in segments if one["p_paddr"] == 0)


def bare(image: bytes) -> Uc:
    """Unicorn with the same memories and nothing else."""
    uc = Uc(UC_ARCH_ARM, UC_MODE_THUMB | UC_MODE_MCLASS)
    uc.ctl_set_cpu_model(UC_CPU_ARM_CORTEX_M4)
    uc.mem_map(0, 1 << 20)
    uc.mem_map(RAM, 1 << 18)
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
    image, count = build(hashed, 0), [0]

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
        engine.power_on()
        start = time.process_time()
        engine.advance(1000)
        elapsed = time.process_time() - start
        if not engine.quiet or engine.faults or engine.exceptions != exceptions:
            raise ToolBrokenError("the program has not come to its end")
        return elapsed


def build_example(folder: Path) -> FileTarget:
    """The example of docs/any-firmware.md."""
    subprocess.run(
        [sys.executable, str(EXAMPLE / "build.py"), "--out", str(folder / "build")], check=True
    )
    shutil.copy(EXAMPLE / f"{EXAMPLE_CHIP}.toml", folder)
    return FileTarget.load(folder / f"{EXAMPLE_CHIP}.toml")


def search_seconds(target: FileTarget, bounds: Bounds) -> tuple[int, float]:
    """Sessions, and processor seconds, that a search of the example takes."""
    start = time.process_time()
    result = run_campaign(target, bounds=bounds)
    if result.violations:
        raise ToolBrokenError(result.statement)
    return len(result.cases), time.process_time() - start


def search_row() -> tuple[str, str, str]:
    """One power cut in the example, judged by what sessions read, and each state by itself."""
    with tempfile.TemporaryDirectory() as folder:
        target = build_example(Path(folder))
        few, few_seconds = search_seconds(target, Bounds(depth=1))
        all_, all_seconds = search_seconds(target, Bounds(depth=1, exact=True))
    return (
        f"one power cut in the example for {EXAMPLE_CHIP}, by what sessions read to state by state",
        f"{few_seconds / all_seconds:.2f}",
        f"{few:,} sessions in {few_seconds:.1f} s and {all_:,} in {all_seconds:.1f} s",
    )


def mcu_rows() -> list[tuple[str, str, str]]:
    """What there is to say: what, ratio, figures of this machine."""
    image = build(HASHED, 0)
    ours = min(our_seconds(image, 0) for _ in range(REPEAT))
    theirs = min(bare_seconds(image) for _ in range(REPEAT))
    noted = min(our_seconds(image, 0, noting=True) for _ in range(REPEAT))
    few, more = count_instructions(1024), count_instructions(2048)
    count = (more - few) * (HASHED // 1024)
    image = build(64, EXCEPTIONS)
    each = min(our_seconds(image, EXCEPTIONS) for _ in range(REPEAT)) / EXCEPTIONS
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
            "the same SHA-256 while what is read is noted, to without",
            f"{noted / ours:.2f}",
            f"{noted:.2f} s and {ours:.2f} s",
        ),
        search_row(),
    ]
