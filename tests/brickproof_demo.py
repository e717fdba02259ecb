"""The demo of `brickproof-fw` as targets of ours: its YAML files say how each build is driven.

Run as a program it prints the rows of docs/brickproof.md: `python tests/brickproof_demo.py
[BUILD]...`, where a build is named by how its name begins.
"""

from __future__ import annotations

import importlib.util
import json
import re
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import yaml

from unbrick.campaign.run import PRESETS, run_campaign
from unbrick.errors import UpdateNeverWorksError
from unbrick.target.target import FileTarget

if TYPE_CHECKING:
    from collections.abc import Mapping

CHIPS = {
    "stm32f103": "stm32f103xb",
    "stm32f411": "stm32f411xe",
    "stm32l476": "stm32l476xg",
    "stm32h563": "stm32h563xi",
    "nrf52840": "nrf52840",
}
EEPROM = """like = "stm32f411xe"
[flash.eeprom]
base = 0xB000_0000
blocks = [{ count = 512, size = 64 }]
[devices.eeprom]
model = "eeprom_i2c"
bus = "i2c1"
page = 64
group = 4
"""
"""The board of `ee`: an M24256-BW, whose ECC is for groups of four bytes (its data sheet)."""

NOR = """like = "stm32f411xe"
[flash.nor]
base = 0xA000_0000
blocks = [{ count = 256, size = 4096 }]
[flash.nor_status]
base = 0xA800_0000
blocks = [{ count = 1, size = 4 }]
[devices.nor]
model = "nor_spi"
bus = "spi1"
select_port = "gpioa"
select_pin = 4
id = 0xEF_4014
program_us = 800
sector_us = 45_000
half_block_us = 120_000
block_us = 150_000
chip_us = 2_000_000
status_us = 10_000
"""
"""The board of `ext`: a W25Q80DV, with the typical times of its data sheet."""

BOARDS = {"external_eeprom": EEPROM, "external_flash": NOR}
"""By the entry of a YAML file that asks for it."""

NO_ECC = """like = "stm32h563xi"
[flash.main]
ecc = 0
"""
"""An STM32H563 that does not see wrong words, for firmware that has no handler of its NMI."""

F1_USER, F1_WRP, F1_PAGES_PER_BIT, F1_PAGE = 0x1FFF_F802, 0x1FFF_F808, 4, 1024
F4_USER, F4_WRP = 0x1FFF_C000, 0x1FFF_C008
L4_WRP, L4_PAGE = 0x1FFF_7818, 2048
H5_OPTSR2, H5_WRP1, H5_GROUP = 0xF000_0008, 0xF000_0020, 4 * 8192
H5_SECURE = 0xB400_007C
F1_HARDWARE_WATCHDOG, F4_HARDWARE_WATCHDOG = bytes((0xFE, 0x01)), bytes((0xCF,))
"""Option bytes of the STM32: PM0075 2.5, RM0383 3.6, RM0351 3.4.1, RM0481 7.4."""


def find_demo() -> Path | None:
    """The folder of the demo; None: the package is not installed."""
    spec = importlib.util.find_spec("brickproof")
    places = list(spec.submodule_search_locations or ()) if spec else []
    return Path(places[0]) / "demo" if places else None


@dataclass(frozen=True)
class Build:
    """A build of the demo.

    Attributes:
        name: such as ``f103/bug-consume_first``; the correct one is called after its folder.
        path: of its YAML file.
        config: what that says, with what it extends.
        ecc: whether an STM32H563 is to see words that are wrong.
    """

    name: str
    path: Path
    config: Mapping[str, Any]
    ecc: bool = False

    @property
    def is_bug(self) -> bool:
        """Whether a bug was put into it."""
        return "bug" in self.path.stem

    @property
    def depth(self) -> int:
        """Power cuts in a row that it is searched with."""
        return int(self.config["scenario"].get("depth", 1))

    def write_target(self, folder: Path) -> Path:
        """Write it as a target file of ours; gives the path."""
        name = self.name.replace("/", "-").replace("_", "-")
        chip = CHIPS[self.config["platform"]["base"]]
        boards = [board for entry, board in BOARDS.items() if entry in self.config]
        if chip == "stm32h563xi" and not self.ecc:
            boards.append(NO_ECC)
        for board in boards:
            chip = f"{name}-board.toml"
            (folder / chip).write_text(board, encoding="utf-8")
        path = folder / f"{name}.toml"
        path.write_text(_tell(self, name, chip), encoding="utf-8")
        return path


def list_builds(demo: Path) -> list[Build]:
    """Every build for the chips that have models."""
    builds = []
    for folder in ("f103", "f411", "h563", "l476", "nrf52"):
        for path in sorted((demo / folder).glob("*.yaml")):
            name = path.stem.removeprefix(f"{folder}-")
            whole = folder if name in {"adapter", folder} else f"{folder}/{name}"
            builds.append(Build(whole, path, _read(path)))
    return builds


@cache
def _read(path: Path) -> Mapping[str, Any]:
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # The other one takes seconds for them.
    found: dict[str, Any] = yaml.load(path.read_text(encoding="utf-8"), Loader=loader)  # noqa: S506
    base = found.pop("extends", None)
    if base is None:
        return found
    return _merge(_read(path.parent / base), found)


def _merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    tables = {
        key: _merge(below[key], value)
        for key, value in above.items()
        if isinstance(value, dict) and isinstance(below.get(key), dict)
    }
    return {**below, **above, **tables}


def _tell(build: Build, name: str, chip: str) -> str:
    config = build.config
    root = (build.path.parent / config["target"]).resolve()
    options, oracle = config["driver"]["options"], config["oracle"]
    uart = str(config["uart"]).replace("uart0", "uarte0")

    def placed(key: str, file: str, at: int | None) -> str:
        place = "" if at is None else f", at = {at:#x}"
        return f"{{ {key} = {json.dumps(str(root / file))}{place} }}"

    firmware = [placed("file", row["file"], row.get("addr")) for row in config["firmware"]]
    firmware += [f'{{ hex = "{data.hex()}", at = {at:#x} }}' for at, data in _option_bytes(config)]
    staged = placed("file", options["image"], options["slot"])
    old = placed("file", options["rollback"]["image"], options["slot"])
    within = json.dumps(f"{options.get('boot_timeout', 3)} s")
    lines = [
        f"name = {json.dumps(name)}",
        f'chip = "{chip}"',
        f'console = "{uart}"',
        f"firmware = [{', '.join(firmware)}]",
        f"update = {{ stage = {staged} }}",
        "[recovered]",
        f"says = {json.dumps(options['expect'])}",
        f"within = {within}",
        f"runs = {json.dumps(oracle['accept'])}",
        'quiet = "10 ms"',  # longer than any gap between operations; the firmware never sleeps
        # A second of waiting costs one of the processor. Only this build has a watchdog running.
        f'stays = "{1 if "boot_loop" in build.name else 0} s"',
        "[afterwards]",
        f"stage = {old}",
        f"says = [{json.dumps(options['expect'])}, {json.dumps(options['rollback']['forbidden'])}]",
        f"never = {json.dumps(options['rollback']['forbidden'])}",
        f"within = {within}",
    ]
    for key, image in oracle["images"].items():
        where = root / image["file"]
        lines += [f"[images.{key}]", f"file = {json.dumps(str(where))}", f"at = {image['at']}"]
    return "\n".join(lines) + "\n"


def _option_bytes(config: Mapping[str, Any]) -> list[tuple[int, bytes]]:
    """Write protection and the hardware watchdog, as the chip's option bytes have them."""
    flash, chip = config["flash"], config["platform"]["base"]
    spans = [(row["from"] - flash["base"], row["size"]) for row in flash.get("write_protected", ())]
    made = []
    if chip == "stm32f103":
        protected = {
            page // F1_PAGES_PER_BIT
            for start, size in spans
            for page in range(start // F1_PAGE, (start + size) // F1_PAGE)
        }
        words = 0xFFFF_FFFF & ~sum(1 << bit for bit in protected)
        if protected:
            pairs = [bytes((one, one ^ 0xFF)) for one in words.to_bytes(4, "little")]
            made.append((F1_WRP, b"".join(pairs)))
        if flash.get("hardware_watchdog"):
            made.append((F1_USER, F1_HARDWARE_WATCHDOG))
    if chip == "stm32f411":
        starts = [sum(flash["sectors"][:n]) for n in range(len(flash["sectors"]))]
        protected = {
            n for start, size in spans for n, at in enumerate(starts) if start <= at < start + size
        }
        if protected:
            made.append((F4_WRP, bytes((0xFF & ~sum(1 << n for n in protected), 0x7F))))
        if flash.get("hardware_watchdog"):
            made.append((F4_USER, F4_HARDWARE_WATCHDOG))
    if chip == "stm32l476":
        for area, (start, size) in enumerate(spans):  # first and last page, in bank 1
            word = start // L4_PAGE | ((start + size) // L4_PAGE - 1) << 16
            made.append((L4_WRP + 8 * area, _with_complement(word)))
    if chip == "stm32h563":
        groups = {
            group
            for start, size in spans
            for group in range(start // H5_GROUP, (start + size) // H5_GROUP)
        }
        word = 0xFFFF_FFFF & ~sum(1 << group for group in groups)
        made += [(H5_OPTSR2, _with_complement(H5_SECURE)), (H5_WRP1, _with_complement(word))]
    return made


def _with_complement(word: int) -> bytes:
    return word.to_bytes(4, "little") + (word ^ 0xFFFF_FFFF).to_bytes(4, "little")


@dataclass(frozen=True)
class Verdict:
    """What came of a build.

    Attributes:
        found: the first case that failed, and how; empty: every case recovered.
        sessions: how many were run.
        seconds: of the processor.
    """

    found: str
    sessions: int
    seconds: float


def judge(build: Build, folder: Path, preset: str = "single") -> Verdict:
    """Cut the power at every operation of a build's update, before it and torn."""
    began = time.process_time()
    target = FileTarget.load(build.write_target(folder))
    bounds = replace(PRESETS[preset], depth=build.depth, stop_early=True)
    found, sessions = "", 1
    try:
        result = run_campaign(target, bounds=bounds)
    except UpdateNeverWorksError as error:
        found = f"without a cut: {str(error).split('does not work: ')[-1]}"
    else:
        sessions = len(result.cases)
        case = next((case for case in result.cases if case.outcome.violation), None)
        if case is not None and case.outcome.violation is not None:
            found = f"{case.id}: {': '.join(case.outcome.violation)}"
    return Verdict(found, sessions, time.process_time() - began)


_FAULT = re.compile(r"fault: (?:pc (?P<pc>\w+)|(?P<function>\w+)).*\((?P<kind>[\w-]+)\)")


def tell_row(build: Build, folder: Path) -> str:
    """The row of docs/brickproof.md for a build."""
    verdict = judge(build, folder)
    where, _, what = verdict.found.partition(": ")
    fault = _FAULT.match(what)
    if fault:
        place = f"at {fault['pc']}" if fault["pc"] else f"in `{fault['function']}`"
        what = f"`{fault['kind']}` {place}"
    what = what.replace(": it does", ": does")
    cuts = [f"`{cut}`" for cut in where.split("/")[1:]]
    by = f"by {cuts[0]}" if len(cuts) == 1 else f"by two cuts, {' and then '.join(cuts)}"
    found = f"found {by if cuts else where}: {what}" if verdict.found else "recovers"
    return f"| `{build.name}` | {found} | {verdict.sessions:,} | {verdict.seconds:.1f} |"


def main(names: list[str]) -> None:
    """Judge the builds that are named, or all, and print a row for each."""
    demo = find_demo()
    if demo is None:
        sys.exit("install brickproof-fw first")
    with tempfile.TemporaryDirectory() as folder:
        for build in list_builds(demo):
            if names and not build.name.startswith(tuple(names)):
                continue
            click.echo(tell_row(build, Path(folder)))


if __name__ == "__main__":
    main(sys.argv[1:])
