"""The table of differential files in docs/performance.md: ours and those of other tools, for pairs
of releases of our own, of public projects, and of published firmware. Written by ``make bench``.

What is measured of a pair is kept in ``build/delta-pairs``. With ``--resume`` it is taken from
there when the images, our file and the decoder are the same; times are taken anew.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import lzma
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from itertools import chain
from typing import Literal, get_args

import bsdiff4
import bsdiff4.core
import detools
import hdiffpatch
import zstandard

from delta_pairs import CODE_BASE, RAM_BASE, Pair, pairs
from delta_published import published_pairs
from delta_terminal import TerminalDecoder
from performance_page import ROOT, machine, write_section
from unbrick.delta import encode, read_header
from unbrick.errors import ToolBrokenError

FOLDER = ROOT / "build" / "delta-pairs"
SEGMENT = 4096
"""Bytes of a segment of an in-place patch."""
ROUNDS = 5
"""How often the time of an encoder is taken."""
MATCH_SCORES = range(10)
"""What detools takes for its hdiffpatch; 6 unless told."""
Compression = Literal["none", "lzma", "lzma2", "zstd", "brotli", "bzip2", "zlib", "tuz"]
COMPRESSIONS: tuple[Compression, ...] = get_args(Compression)
"""Of HDiffPatch, tried one after the other; those that its small decoder knows, too."""
HALF = 0.5
"""Of the best of the others: what our file for a small change should take at the most."""
SIGNATURE = 64
"""Bytes of an Unbrick image that nobody can predict."""
SIGNED = "Unbrick"
"""Names of pairs of such images begin so."""

INTRODUCTION = """\
How many bytes does a file take that updates one image to another?

| word | is |
|---|---|
| *small* | a release or an option of the same sources |
| *large* | two versions of a project |
| *ours* | our file, with digests of both images (8 bytes); the others have none, or a short one |
| *version 1* | our file for decoders that read the first version of the format alone |
| *best of the others* | the smallest file of the tools below |
| *encode* | processor time, as a ratio to that of bsdiff4 |
| *decode* | instructions of the emulated Cortex-A9, without the SHA-256 of both images |
| *working memory* | bytes that the file announces; the emulated decoder can touch no more |

`tools/delta_pairs.py` and `tools/delta_published.py` say where the pairs come from. The Unbrick
images are those in the NOR, with header, digest and a 64-byte signature that no tool can shorten.

The others are:

| name | is |
|---|---|
| bsdiff4 | bsdiff with bzip2 |
| bsdiff, xz | the same three parts as one XZ stream, or as three: the smaller |
| detools | sequential, with LZMA; or CRLE, heatshrink, Zstandard as named |
| detools M4 | with LZMA and `data_format='arm-cortex-m4'` |
| hdiffpatch | that of detools, with LZMA and the best `match_score` of 0 to 9 |
| HDiffPatch | the library of `hdiffz`, with the best of eight compressions |
| HPatchLite | its form for small decoders, likewise |
| in place | of detools, with CRLE |
| zstd | Zstandard -19 with the old image as dictionary (`--patch-from` without its checksum) |

detools M4 is told the address of the code, where constants and data lie in the image, and the range
of the variables, for the images that were linked here. For the other images nobody says that, and
it gets none. It reads Thumb-2 alone.

There is no package of the command `hdiffz` itself. The wheel `hdiffpatch` has its library, with the
default match score.

"""


@dataclass(frozen=True)
class Row:
    """One pair measured.

    Attributes:
        name: of the pair.
        isa: what its code is.
        change: small or large.
        image: bytes of the new image.
        ours: bytes of our file.
        version_1: bytes of our file in the first version of the format.
        header: bytes of our file that are header.
        others: bytes of the other tools' files.
        full: bytes of the new image alone, compressed.
        encode_ratio: processor time, of that of bsdiff4.
        instructions: of the decoder, without hashing.
        memory: bytes of working memory of the decoder.
        stack: bytes of stack of the decoder.
    """

    name: str
    isa: str
    change: str
    image: int
    ours: int
    version_1: int
    header: int
    others: dict[str, int]
    full: int
    encode_ratio: float
    instructions: int
    memory: int
    stack: int

    @property
    def best(self) -> tuple[str, int]:
        """The smallest of the other tools, the compressed full image apart."""
        return min(self.others.items(), key=lambda item: item[1])

    @property
    def ratio(self) -> float:
        """Of our file to the best of the others."""
        return self.ours / self.best[1]


def detools_size(pair: Pair, **options: object) -> int:
    out = io.BytesIO()
    detools.create_patch(io.BytesIO(pair.old), io.BytesIO(pair.new), out, **options)
    return len(out.getvalue())


def cortex_m4_size(pair: Pair) -> int:
    told: dict[str, object] = {}
    if pair.sections:
        for side, image, has in zip(
            ("from", "to"), (pair.old, pair.new), pair.sections, strict=True
        ):
            told |= {
                f"{side}_data_offset_begin": has.constants,
                f"{side}_data_offset_end": len(image) & -4,
                f"{side}_data_begin": RAM_BASE,
                f"{side}_data_end": has.ram_end,
                f"{side}_code_begin": CODE_BASE,
                f"{side}_code_end": CODE_BASE + len(image),
            }
    return detools_size(pair, data_format="arm-cortex-m4", **told)


def hdiffpatch_size(pair: Pair) -> int:
    options = {"algorithm": "hdiffpatch", "patch_type": "hdiffpatch", "use_mmap": False}
    return min(detools_size(pair, match_score=score, **options) for score in MATCH_SCORES)


def bsdiff_xz_size(pair: Pair) -> int:
    control, difference, extra = bsdiff4.core.diff(pair.old, pair.new)
    numbers = b"".join(bsdiff4.core.encode_int64(number) for number in control)
    parts = (numbers, difference, extra)

    def xz(data: bytes) -> int:
        preset = 9 | lzma.PRESET_EXTREME
        return len(lzma.compress(data, lzma.FORMAT_XZ, lzma.CHECK_NONE, preset))

    lengths = 8 * len(parts)
    return lengths + min(xz(b"".join(parts)), sum(xz(part) for part in parts))


def hdiffz_size(pair: Pair) -> int:
    made = (hdiffpatch.diff(pair.old, pair.new, compression=kind) for kind in COMPRESSIONS)
    return min(map(len, made))


def hpatchlite_size(pair: Pair) -> int:
    made = (hdiffpatch.diff_lite(pair.old, pair.new, compression=kind) for kind in COMPRESSIONS)
    return min(map(len, made))


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
    "bsdiff, xz": bsdiff_xz_size,
    "detools": detools_size,
    "detools crle": lambda pair: detools_size(pair, compression="crle"),
    "detools heatshrink": lambda pair: detools_size(pair, compression="heatshrink"),
    "detools zstd": lambda pair: detools_size(pair, compression="zstd"),
    "detools M4": cortex_m4_size,
    "hdiffpatch": hdiffpatch_size,
    "HDiffPatch": hdiffz_size,
    "HPatchLite": hpatchlite_size,
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


def encode_ratio(pair: Pair) -> float:
    """Processor time for our file, to that for the one of bsdiff4."""
    ours = processor_seconds(lambda: encode(pair.old, pair.new, base_address=pair.base))
    return ours / processor_seconds(lambda: bsdiff4.diff(pair.old, pair.new))


def measure(pair: Pair, decoder: TerminalDecoder) -> Row:
    file = encode(pair.old, pair.new, base_address=pair.base)
    run = decoder.run(pair.old, file, pair.new)
    if run.error or run.image != pair.new:
        raise ToolBrokenError(f"{pair.name}: the terminal rebuilds another image")
    return Row(
        name=pair.name,
        isa=pair.isa,
        change=pair.change,
        image=len(pair.new),
        ours=len(file),
        version_1=len(encode(pair.old, pair.new, base_address=pair.base, version=1)),
        header=read_header(file).size,
        others={name: size(pair) for name, size in OTHERS.items()},
        full=full_size(pair),
        encode_ratio=encode_ratio(pair),
        instructions=run.instructions,
        memory=run.memory,
        stack=run.stack,
    )


def measure_once(pair: Pair, decoder: TerminalDecoder, *, resume: bool) -> Row:
    """The row of a pair; kept, so that a run that was interrupted can go on."""
    file = encode(pair.old, pair.new, base_address=pair.base)
    digest = hashlib.sha256(b"".join((pair.old, pair.new, file, decoder.code)))
    kept = FOLDER / f"row-{digest.hexdigest()[:16]}.json"
    if resume and kept.is_file():
        return replace(Row(**json.loads(kept.read_text())), encode_ratio=encode_ratio(pair))
    row = measure(pair, decoder)
    kept.write_text(json.dumps(asdict(row)))
    return row


def summary(rows: list[Row]) -> str:
    """What the table says: on how many pairs our file is smaller, and where it is not by half."""
    smaller = [row for row in rows if row.ratio < 1]
    small = [row for row in rows if row.change == "small"]
    half = [row for row in small if row.ratio <= HALF]
    lines = [
        f"Our file is smaller than the best of the others on {len(smaller)} of {len(rows)} pairs. "
        f"On small changes it is at most half as large on {len(half)} of {len(small)}"
        + (f": {', '.join(f'{row.name} ({row.isa})' for row in half)}." if half else "."),
        "",
        (
            f"Encoding takes {min(row.encode_ratio for row in rows):.1f} to "
            f"{max(row.encode_ratio for row in rows):.1f} times as long as bsdiff4 does."
        ),
    ]
    larger = [f"{row.name} ({row.isa}): {row.ratio:.2f}" for row in rows if row.ratio >= 1]
    if larger:
        lines += ["", f"Not smaller: {'; '.join(larger)}."]
    rest = [row for row in small if row not in half]
    if rest:
        lines += [
            "",
            (
                "Of the other small changes the files are mostly header and signature, which no "
                "model shortens:"
            ),
            "",
            "| pair | ISA | ours | header | signature | change | best of the others |",
            "|---|---|--:|--:|--:|--:|--:|",
        ]
    for row in rest:
        signature = SIGNATURE if row.name.startswith(SIGNED) else 0
        lines.append(
            f"| {row.name} | {row.isa} | {row.ours} | {row.header} | {signature} "
            f"| {row.ours - row.header - signature} | {row.best[1]} |"
        )
    return "\n".join(lines)


def table(rows: list[Row], skipped: list[str], code_size: int) -> str:
    lines = [INTRODUCTION]
    lines.append(
        "| pair | ISA | change | image | ours | version 1 | best of the others | ours / best "
        "| full, LZMA | encode | decode, 10⁶ instr. | working memory |"
    )
    lines.append("|---|---|---|--:|--:|--:|---|--:|--:|--:|--:|--:|")
    for row in rows:
        name, best = row.best
        lines.append(
            f"| {row.name} | {row.isa} | {row.change} | {row.image:,} | {row.ours:,} "
            f"| {row.version_1:,} | {best:,} ({name}) | {row.ratio:.2f} | {row.full:,} "
            f"| {row.encode_ratio:.1f} | {row.instructions / 1e6:.0f} | {row.memory:,} |"
        )
    lines += ["", summary(rows)]
    if skipped:
        lines += ["", "Skipped, since packages could not be had:", ""]
        lines += [f"- {reason}" for reason in skipped]
    lines += ["", "Each of the others:", ""]
    lines.append("| pair | ISA | " + " | ".join(OTHERS) + " |")
    lines.append("|---|---|" + "--:|" * len(OTHERS))
    for row in rows:
        sizes = " | ".join(f"{row.others[name]:,}" for name in OTHERS)
        lines.append(f"| {row.name} | {row.isa} | {sizes} |")
    stack = max(row.stack for row in rows)
    names = ("detools", "bsdiff4", "hdiffpatch", "zstandard", "heatshrink2", "ziglang", "unicorn")
    lines += [
        "",
        (f"The decoder's code takes {code_size:,} bytes, its stack {stack} at the most."),
        "",
        machine(*names, "numpy"),
        "",
    ]
    return "\n".join(lines)


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--resume", action="store_true", help="take what an earlier run kept")
    resume = options.parse_args().resume
    FOLDER.mkdir(parents=True, exist_ok=True)
    decoder = TerminalDecoder(FOLDER)
    rows: list[Row] = []
    skipped: list[str] = []
    for pair in chain(pairs(FOLDER), published_pairs(FOLDER, skipped)):
        row = measure_once(pair, decoder, resume=resume)
        rows.append(row)
        name, best = row.best
        print(f"{row.name} ({row.isa}): {row.ours:,}; {name} {best:,}", flush=True)
    for reason in skipped:
        print(f"skipped: {reason}")
    write_section("Differential files", table(rows, skipped, decoder.code_size))
    return 0


if __name__ == "__main__":
    sys.exit(main())
