"""What an image tells of itself: the encoder finds where it runs without being told."""

from __future__ import annotations

import random
import struct
from pathlib import Path

import pytest
from delta_samples import BASE, arm, thumb
from elftools.elf.elffile import ELFFile
from image_samples import signed, write_key

from unbrick.delta import encode, read_header
from unbrick.delta.format import ARM, DATA, THUMB
from unbrick.delta.place import find_base, find_isa
from unbrick.firmware.signed import Releases


def vectors(base: int, length: int) -> bytes:
    """A Cortex-M's table before code that begins behind it: an SP, and handlers in that code."""
    chance = random.Random(1)
    words = [0x20010000, *(base + chance.randrange(256, length, 2) | 1 for _ in range(63))]
    return struct.pack("<64I", *words)


@pytest.mark.parametrize("seed", range(4))
def test_pointers_to_functions_tell_the_address(seed: int) -> None:
    code = thumb(random.Random(seed), 60)
    assert (find_isa(code), find_base(code, THUMB)) == (THUMB, BASE)
    assert find_base(vectors(BASE - 256, len(code)) + code, THUMB) == BASE - 256


def test_pointers_to_strings_tell_the_address() -> None:
    """As in ARM code whose functions push nothing."""
    chance = random.Random(2)
    base = 0x30000000
    texts = [f"message {chance.randrange(10**9)}" for _ in range(40)]
    code = arm(chance, 100)
    pool, at = bytearray(b"\0"), []
    for text in texts:
        at.append(len(code) + len(pool))
        pool += text.encode() + b"\0"
    pool += bytes(-len(pool) % 4)
    image = code + pool + struct.pack(f"<{len(at)}I", *(base + place for place in at))
    assert find_base(image, ARM) == base


def test_a_header_that_says_it_is_believed(tmp_path: Path) -> None:
    image = signed(write_key(tmp_path / "key.pem"), size=3000)
    load = int.from_bytes(image[4:8], "little")
    assert load
    assert find_base(image, DATA) == load


def test_an_image_that_tells_nothing_is_taken_to_lie_at_0() -> None:
    for image in (b"\0", b"abc", bytes(3000), random.Random(1).randbytes(5000)):
        for isa in (DATA, THUMB, ARM):
            assert find_base(image, isa) == 0


def test_many_pointers_to_as_many_places_take_no_long_time() -> None:
    """All in one group of a low byte: 64,000 times 16,000 pairs, of which a part is looked at."""
    image = b"".join(struct.pack("<I", at * 256 + 1) * 3 + b"\0\xb5\0\0" for at in range(16_000))
    assert find_base(image, THUMB) >= 0


def test_the_programs_of_our_firmware_are_found(unbrick_releases: Releases) -> None:
    """Thumb behind ARM vectors, programs in RAM, and an application without its header."""
    found, linked = {}, {}
    for program in unbrick_releases.firmware.programs:
        data = program.binary.read_bytes()
        with program.elf.open("rb") as stream:
            loads = [
                segment["p_paddr"]
                for segment in ELFFile(stream).iter_segments()
                if segment["p_type"] == "PT_LOAD" and segment["p_filesz"]
            ]
        found[program.elf.name] = find_base(data, find_isa(data))
        linked[program.elf.name] = min(loads)
    assert found == linked


def test_a_file_says_what_was_found() -> None:
    code = thumb(random.Random(5), 100)
    assert read_header(encode(code, b"\0")).base_address == BASE
    assert read_header(encode(code, b"\0", base_address=BASE + 512)).base_address == BASE + 512
