"""``make bench``: what the engines and the transfer achieve, as ratios within this one run.

Absolute figures depend on the machine and are there to be read, not compared with other machines.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING
from unittest import mock

from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection
from unicorn.arm_const import UC_ARM_REG_PC, UC_CPU_ARM_CORTEX_A9
from unicorn.unicorn_const import UC_ARCH_ARM, UC_HOOK_CODE, UC_MODE_ARM, UC_PROT_ALL
from unicorn.unicorn_py3.unicorn import Uc

from performance_page import write_table
from unbrick.campaign.run import run_campaign
from unbrick.campaign.search import Bounds
from unbrick.engine.create import create_engine
from unbrick.engine.inprocess import InProcessEngine
from unbrick.errors import MissingToolError, ToolBrokenError
from unbrick.firmware.signed import make_releases
from unbrick.layout import reference_layout
from unbrick.reference.system import System
from unbrick.reference.target import find_target

if TYPE_CHECKING:
    from collections.abc import Callable

    from unbrick.firmware.signed import Releases

LAYOUT = reference_layout()
HASHED = 1 << 20  # bytes of NOR that the processor benchmark hashes
STUB = 0x3F0000  # spare NOR: where the stub lies
REPEAT = 5


def best(action: Callable[[], float]) -> float:
    """The shortest of a few runs, in seconds."""
    return min(action() for _ in range(REPEAT))


def symbol(elf: Path, name: str) -> int:
    """Address of a function."""
    with elf.open("rb") as stream:
        for section in ELFFile(stream).iter_sections():
            if isinstance(section, SymbolTableSection):
                for found in section.get_symbol_by_name(name) or ():
                    return int(found["st_value"])
    raise KeyError(name)


def hashing_nor(releases: Releases, length: int) -> bytes:
    """A NOR whose reset hashes ``length`` bytes with boot's own SHA-256 and then waits."""
    nor = bytearray(releases.boot.ljust(LAYOUT.board.nor.modelled, b"\xff"))
    boot = releases.firmware.boot.elf
    code_words = (
        0xE59FD038,  # ldr sp, [stack]
        0xE59F0038,  # ldr r0, [state]
        0xE59FC038,  # ldr r12, [init]
        0xE12FFF3C,  # blx r12
        0xE59F002C,  # ldr r0, [state]
        0xE3A01000,  # mov r1, #0      from address 0
        0xE59F2030,  # ldr r2, [length]
        0xE3A03000,  # mov r3, #0      upper half of the length
        0xE59FC024,  # ldr r12, [update]
        0xE12FFF3C,  # blx r12
        0xE320F003,  # wfi
        0xEAFFFFFD,  # b back to it
        *(0,) * 4,
    )
    literals = (
        LAYOUT.board.sram.base + 0x20000,  # stack
        LAYOUT.board.sram.base,  # state
        symbol(boot, "crypto_hash_sha256_init") | 1,
        symbol(boot, "crypto_hash_sha256_update") | 1,
        length,
    )
    words = code_words + literals
    code = b"".join(word.to_bytes(4, "little") for word in words)
    nor[STUB : STUB + len(code)] = code
    branch = 0xEA000000 | ((STUB - 8) >> 2)
    nor[0:4] = branch.to_bytes(4, "little")
    return bytes(nor)


def in_process_seconds(nor: bytes) -> float:
    """Seconds that the in-process engine takes to hash."""
    with InProcessEngine() as engine:
        engine.load_nor(nor)
        engine.power_on()
        start = time.perf_counter()
        engine.advance(1000)
        return time.perf_counter() - start


def bare(nor: bytes) -> Uc:
    """Unicorn with the same memory and nothing else."""
    uc = Uc(UC_ARCH_ARM, UC_MODE_ARM)
    uc.ctl_set_cpu_model(UC_CPU_ARM_CORTEX_A9)
    uc.mem_map(LAYOUT.board.nor.base, LAYOUT.board.nor.modelled, UC_PROT_ALL)
    uc.mem_map(LAYOUT.board.sram.base, LAYOUT.board.sram.size, UC_PROT_ALL)
    uc.mem_write(0, nor)
    return uc


def bare_seconds(nor: bytes) -> float:
    """Seconds that Unicorn alone takes for the same."""
    uc = bare(nor)
    start = time.perf_counter()
    uc.emu_start(0, 0xFFFFFFFF)
    elapsed = time.perf_counter() - start
    if uc.reg_read(UC_ARM_REG_PC) < STUB:
        raise ToolBrokenError("the hashing has not come to its end")
    return elapsed


def instructions(releases: Releases) -> float:
    """Instructions that hashing ``HASHED`` bytes takes, counted on a small piece."""
    counts = []
    for length in (4096, 8192):
        uc = bare(hashing_nor(releases, length))
        count = [0]

        def step(*_: object, count: list[int] = count) -> None:
            count[0] += 1

        uc.hook_add(UC_HOOK_CODE, step)
        uc.emu_start(0, 0xFFFFFFFF)
        counts.append(count[0])
    return counts[0] + (counts[1] - counts[0]) / 4096 * (HASHED - 4096)


def update_seconds(engine: str, releases: Releases) -> float:
    """Seconds of the clock from power-on to the confirmed update."""
    with create_engine(engine, releases.elf_files) as made:
        system = System(made, releases)
        start = time.perf_counter()
        system.power_on()
        system.wait_registered()
        system.update_to("1.1.0")
        return time.perf_counter() - start


def line_use(releases: Releases, latency: float) -> float:
    """Share of the line's rate that the file itself gets, in virtual time."""
    with InProcessEngine() as engine:
        system = System(engine, releases)
        system.link.latency = latency
        system.power_on()
        system.wait_registered()
        system.publish("1.1.0")
        system.start_update("1.1.0")
        system.bench.run_until(lambda: bool(system.link.fetched), 60)
        start = engine.now
        system.console.expect("update: received 100 %", 300)
        file = releases.signed["1.1.0"]
        return len(file) * 10 / LAYOUT.board.baud / (engine.now - start)


def campaign_figures(releases: Releases) -> tuple[float, float, str]:
    """Sessions a second, cases judged a second, and what the time goes to; one core.

    A case is one power cut and its recovery to a running application. A session judges many:
    where power can be cut in it follows from its trace, and cases with the same state after the
    cut share their recovery (docs/campaign.md).
    """
    target = find_target("staged", releases)
    inside = [0.0]
    advance = InProcessEngine.advance

    def timed(engine: InProcessEngine, seconds: float) -> None:
        start = time.perf_counter()
        advance(engine, seconds)
        inside[0] += time.perf_counter() - start

    target.run(target.start())
    with mock.patch.object(InProcessEngine, "advance", timed):
        began = time.perf_counter()
        result = run_campaign(target, bounds=Bounds(depth=2, states=60))
        elapsed = time.perf_counter() - began
    costs = sorted(case.outcome.seconds for case in result.cases)
    text = (
        f"{len(costs)} sessions, median {1000 * costs[len(costs) // 2]:.0f} ms, "
        f"worst {1000 * costs[-1]:.0f} ms; "
        f"{100 * inside[0] / elapsed:.0f} % in the emulator, "
        f"{100 * (sum(costs) - inside[0]) / elapsed:.0f} % in peers and checks, "
        f"{100 * (elapsed - sum(costs)) / elapsed:.0f} % in calculating states"
    )
    return len(costs) / elapsed, result.transitions / elapsed, text


def main() -> None:
    """Measure and print."""
    releases = make_releases(Path("build/firmware"))
    rows: list[tuple[str, str, str]] = []

    nor = hashing_nor(releases, HASHED)
    ours, theirs = best(lambda: in_process_seconds(nor)), best(lambda: bare_seconds(nor))
    count = instructions(releases)
    rows.append(
        (
            "instructions per second, in-process engine to bare Unicorn (SHA-256 of 1 MiB, XIP)",
            f"{theirs / ours:.2f}",
            f"{count / ours / 1e6:.0f} and {count / theirs / 1e6:.0f} million a second",
        )
    )
    ours = best(lambda: update_seconds("inprocess", releases))
    try:
        theirs = update_seconds("qemu", releases)
        ratio, figures = f"{theirs / ours:.1f}", f"{ours:.2f} s and {theirs:.2f} s"
    except MissingToolError as error:
        ratio, figures = "skipped", f"{ours:.2f} s; {error}"
    rows.append(("full update, time on QEMU to time in process", ratio, figures))
    rows += [
        (
            f"transfer, share of 115200 baud used by the file, {2000 * wait:.0f} ms round trip",
            f"{line_use(releases, wait):.2f}",
            f"{len(releases.signed['1.1.0'])} bytes",
        )
        for wait in (0.0, 0.05, 0.15)
    ]
    sessions, cases, text = campaign_figures(releases)
    rows.append(
        (
            "campaign, full update and recovery: cases judged to one session run",
            f"{cases / sessions:.0f}",
            f"{cases:.0f} cases and {sessions:.1f} sessions a second and core; {text}",
        )
    )
    write_table("Engines, transfer, campaign", rows, "unicorn")


if __name__ == "__main__":
    main()
