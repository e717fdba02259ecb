"""The table of differential files in docs/performance.md: ours and those of other tools, for pairs
of releases of our own and of public projects. Written by ``make bench``.
"""

from __future__ import annotations

import io
import lzma
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import bsdiff4
import detools
import zstandard

from delta_pairs import Pair, pairs
from delta_terminal import Run, TerminalDecoder
from performance_page import ROOT, machine, write_section
from unbrick.delta import encode
from unbrick.errors import ToolBrokenError

FOLDER = ROOT / "build" / "delta-pairs"
SEGMENT = 4096
"""Bytes of a segment of an in-place patch."""
ROUNDS = 5
"""How often the time of an encoder is taken."""

INTRODUCTION = """\
How many bytes does a file take that updates one image to another?

| word | is |
|---|---|
| *small* | a release or an option of the same sources |
| *large* | two versions of a project |
| *ours* | our file, with digests of both images (8 bytes); the others have none, or a short one |
| *best of the others* | the smallest file of the tools below |
| *encode* | processor time, as a ratio to that of bsdiff4 |
| *decode* | instructions of the emulated Cortex-A9, without the SHA-256 of both images |
| *working memory* | bytes that the file announces; the emulated decoder can touch no more |

`tools/delta_pairs.py` says how the pairs are made. The Unbrick images are those in the NOR, with
header, digest and a 64-byte signature that no tool can shorten.

The others are:

- bsdiff4;
- detools: sequential with LZMA, CRLE, heatshrink and Zstandard; its hdiffpatch with LZMA; in place
  with CRLE;
- Zstandard -19 with the old image as dictionary (`--patch-from` without its checksum).
"""


@dataclass(frozen=True)
class Row:
    """One pair measured. Sizes in bytes."""

    pair: Pair
    ours: int
    others: dict[str, int]
    encode_ratio: float
    run: Run

    @property
    def best(self) -> tuple[str, int]:
        """The smallest of the other tools, the compressed full image apart."""
        return min(self.others.items(), key=lambda item: item[1])


def detools_size(pair: Pair, **options: object) -> int:
    out = io.BytesIO()
    detools.create_patch(io.BytesIO(pair.old), io.BytesIO(pair.new), out, **options)
    return len(out.getvalue())


def hdiffpatch_size(pair: Pair) -> int:
    with tempfile.TemporaryDirectory() as scratch:
        old, new, patch = (Path(scratch) / name for name in ("old", "new", "patch"))
        old.write_bytes(pair.old)
        new.write_bytes(pair.new)
        detools.create_patch_filenames(
            str(old), str(new), str(patch), algorithm="hdiffpatch", patch_type="hdiffpatch"
        )
        return patch.stat().st_size


def in_place_size(pair: Pair) -> int:
    room = -(-max(len(pair.old), len(pair.new)) // SEGMENT + 1) * SEGMENT
    return detools_size(
        pair,
        patch_type="in-place",
        compression="crle",
        memory_size=2 * room,
        segment_size=SEGMENT,
    )


def zstd_size(pair: Pair) -> int:
    old = zstandard.ZstdCompressionDict(pair.old, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
    log = max(len(pair.old) + len(pair.new), 1 << 20).bit_length()
    parameters = zstandard.ZstdCompressionParameters.from_level(19, window_log=log)
    compressor = zstandard.ZstdCompressor(dict_data=old, compression_params=parameters)
    return len(compressor.compress(pair.new))


OTHERS: dict[str, Callable[[Pair], int]] = {
    "bsdiff4": lambda pair: len(bsdiff4.diff(pair.old, pair.new)),
    "detools": detools_size,
    "detools crle": lambda pair: detools_size(pair, compression="crle"),
    "detools heatshrink": lambda pair: detools_size(pair, compression="heatshrink"),
    "detools zstd": lambda pair: detools_size(pair, compression="zstd"),
    "hdiffpatch": hdiffpatch_size,
    "in place": in_place_size,
    "zstd": zstd_size,
}


def processor_seconds(work: Callable[[], object]) -> float:
    """The least that it took in a few rounds."""
    taken = []
    for _ in range(ROUNDS):
        start = time.process_time()
        work()
        taken.append(time.process_time() - start)
    return min(taken)


def full_size(pair: Pair) -> int:
    """The new image alone, compressed."""
    return len(lzma.compress(pair.new, format=lzma.FORMAT_ALONE, preset=9 | lzma.PRESET_EXTREME))


def measure(pair: Pair, decoder: TerminalDecoder) -> Row:
    ours = processor_seconds(lambda: encode(pair.old, pair.new, base_address=pair.base))
    theirs = processor_seconds(lambda: bsdiff4.diff(pair.old, pair.new))
    file = encode(pair.old, pair.new, base_address=pair.base)
    run = decoder.run(pair.old, file, pair.new)
    if run.error or run.image != pair.new:
        raise ToolBrokenError(f"{pair.name}: the terminal rebuilds another image")
    others = {name: size(pair) for name, size in OTHERS.items()}
    others["full, LZMA"] = full_size(pair)
    return Row(pair, len(file), others, ours / theirs, run)


def table(rows: list[Row], code_size: int) -> str:
    lines = [INTRODUCTION]
    lines.append(
        "| pair | ISA | change | image | ours | best of the others | ours / best | full, LZMA "
        "| encode | decode, 10⁶ instr. | working memory |"
    )
    lines.append("|---|---|---|--:|--:|---|--:|--:|--:|--:|--:|")
    for row in rows:
        name, best = row.best
        pair = row.pair
        lines.append(
            f"| {pair.name} | {pair.isa} | {pair.change} | {len(pair.new):,} | {row.ours:,} "
            f"| {best:,} ({name}) | {row.ours / best:.2f} | {row.others['full, LZMA']:,} "
            f"| {row.encode_ratio:.1f} | {row.run.instructions / 1e6:.0f} | {row.run.memory:,} |"
        )
    lines += ["", "Each of the others:", ""]
    lines.append("| pair | ISA | " + " | ".join(OTHERS) + " |")
    lines.append("|---|---|" + "--:|" * len(OTHERS))
    for row in rows:
        sizes = " | ".join(f"{row.others[name]:,}" for name in OTHERS)
        lines.append(f"| {row.pair.name} | {row.pair.isa} | {sizes} |")
    stack = max(row.run.stack for row in rows)
    names = ("detools", "bsdiff4", "zstandard", "heatshrink2", "ziglang", "unicorn", "numpy")
    lines += [
        "",
        (f"The decoder's code takes {code_size:,} bytes, its stack {stack} at the most."),
        "",
        machine(*names),
        "",
    ]
    return "\n".join(lines)


def main() -> int:
    FOLDER.mkdir(parents=True, exist_ok=True)
    decoder = TerminalDecoder(FOLDER)
    rows = []
    for pair in pairs(FOLDER):
        rows.append(measure(pair, decoder))
        name, best = rows[-1].best
        print(f"{pair.name} ({pair.isa}): {rows[-1].ours:,}; {name} {best:,}", flush=True)
    write_section("Differential files", table(rows, decoder.code_size))
    return 0


if __name__ == "__main__":
    sys.exit(main())
