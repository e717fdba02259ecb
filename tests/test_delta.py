"""Differential files: what the encoder makes, the reference decoder takes apart again."""

from __future__ import annotations

import hashlib
import random
from dataclasses import replace
from pathlib import Path

import pytest
from delta_samples import BASE, arm, thumb
from hypothesis import given, settings
from hypothesis import strategies as st
from image_samples import signed, write_key

from unbrick.delta import decode, encode, read_header
from unbrick.delta.coder import RangeDecoder, RangeEncoder, squash, stretch
from unbrick.delta.format import (
    ARM,
    DATA,
    MAX_LENGTH,
    MAX_MEMORY_SIZE,
    MIN_HEADER_SIZE,
    THUMB,
    VERSIONS,
    WINDOW_UNIT,
    DeltaHeader,
)
from unbrick.delta.model import INITIAL_FLAGS, REPEAT_FLAGS
from unbrick.errors import DeltaError


def edited(image: bytes, edits: list[tuple[int, int, bytes]]) -> bytes:
    """``image`` with pieces of it replaced: where, how many bytes, by which."""
    made = bytearray(image)
    for place, removed, inserted in edits:
        at = place % (len(made) + 1)
        made[at : at + removed] = inserted
    return bytes(made) or b"\0"


EDITS = st.lists(
    st.tuples(st.integers(0, 1 << 16), st.integers(0, 40), st.binary(max_size=40)), max_size=6
)


@settings(max_examples=25)
@given(st.binary(min_size=1, max_size=600), EDITS)
def test_any_bytes_and_any_edits(image: bytes, edits: list[tuple[int, int, bytes]]) -> None:
    new = edited(image, edits)
    assert decode(image, encode(image, new)) == new


@settings(max_examples=8)
@given(st.integers(0, 1 << 32), EDITS, st.integers(0, 6))
def test_code_and_any_edits(seed: int, edits: list[tuple[int, int, bytes]], shift: int) -> None:
    old = thumb(random.Random(seed), 20)
    new = edited(thumb(random.Random(seed), 20, shift=shift * 4, edits=seed % 5), edits)
    for left, right in ((old, new), (new, old)):
        assert decode(left, encode(left, right, base_address=BASE)) == right


@pytest.mark.parametrize(("old", "new"), [(b"\0", b"\1"), (b"a" * 99, b"b"), (b"b", b"a" * 3000)])
def test_the_smallest_images(old: bytes, new: bytes) -> None:
    assert decode(old, encode(old, new)) == new


def test_the_same_image_is_hardly_more_than_a_header() -> None:
    image = thumb(random.Random(1), 200)
    assert len(encode(image, image)) < 28 + 24


def test_the_same_input_gives_the_same_file() -> None:
    old, new = (thumb(random.Random(2), 100, edits=edits) for edits in (0, 7))
    assert encode(old, new) == encode(old, new)


def test_what_only_moves_costs_nearly_nothing() -> None:
    """Every call, literal and pair of moves changes, and is predicted."""
    old, new = (thumb(random.Random(3), 300, shift=shift) for shift in (0, 64))
    changed = sum(a != b for a, b in zip(old, new[64:], strict=False))
    file = encode(old, new, base_address=BASE)
    assert changed > 1000
    assert len(file) < read_header(file).size + 60
    assert decode(old, file) == new


def test_arm_code_that_only_moves_costs_nearly_nothing() -> None:
    old, new = (arm(random.Random(4), 300, shift=shift) for shift in (0, 16))
    file = encode(old, new, base_address=BASE)
    assert read_header(file).isa == ARM
    assert len(file) < read_header(file).size + 60
    assert decode(old, file) == new


def test_instruction_set_and_address_are_found() -> None:
    header = read_header(encode(thumb(random.Random(5), 400), b"\0"))
    assert (header.isa, header.base_address) == (THUMB, BASE)
    assert read_header(encode(random.Random(5).randbytes(4000), b"\0")).isa == DATA


def test_many_segments_stay_within_the_memory() -> None:
    chance = random.Random(6)
    old = chance.randbytes(14_000)
    pieces = [old[at : at + 24] for at in range(0, 14_000, 24)]
    chance.shuffle(pieces)
    file = encode(old, b"".join(pieces))
    assert read_header(file).memory <= MAX_MEMORY_SIZE
    assert decode(old, file) == b"".join(pieces)


def test_the_digest_of_a_signed_image_is_calculated(tmp_path: Path) -> None:
    """Of two images that differ in a byte, what costs is the signature: 64 bytes."""
    key = write_key(tmp_path / "key.pem")
    old, new = signed(key, size=3000), signed(key, size=3000, build_time="2027-01-01T00:00:00Z")
    assert old != new
    file = encode(old, new)
    assert decode(old, file) == new
    assert len(file) < read_header(file).size + 64 + 30


@pytest.mark.parametrize(("version", "sizes"), [(1, (16, 8)), (2, (4, 4))])
def test_the_header_says_what_it_is_for(version: int, sizes: tuple[int, int]) -> None:
    old, new = b"old" * 100, b"new" * 120
    header = read_header(encode(old, new, version=version))
    assert header.version == version
    assert (header.base_length, header.length) == (len(old), len(new))
    assert header.base_digest == hashlib.sha256(old).digest()[: sizes[0]]
    assert header.digest == hashlib.sha256(new).digest()[: sizes[1]]


HEADERS = st.builds(
    DeltaHeader,
    version=st.just(2),
    isa=st.integers(0, 2),
    slots=st.integers(8, 11),
    repeats=st.integers(8, 11),
    base_length=st.integers(1, MAX_LENGTH),
    length=st.integers(1, MAX_LENGTH),
    segments=st.integers(0, 75),
    base_address=st.integers(0, (1 << 30) - 1).map(lambda word: word * 4),
    window=st.just(0),
    window_size=st.just(0),
    base_digest=st.binary(min_size=4, max_size=4),
    digest=st.binary(min_size=4, max_size=4),
)


@given(HEADERS, st.integers(0, 0xFFFF), st.integers(0, 255), st.booleans(), st.booleans())
def test_a_header_takes_28_bytes_at_most(
    header: DeltaHeader, window: int, pages: int, same: bool, many: bool
) -> None:
    header = replace(
        header,
        length=header.base_length if same else header.length,
        segments=300 if many else header.segments,
        slots=9 if many else header.slots,
        repeats=9 if many else header.repeats,
        window=window * WINDOW_UNIT if pages else 0,
        window_size=pages * WINDOW_UNIT,
    )
    packed = header.pack()
    assert MIN_HEADER_SIZE <= len(packed) == header.size <= 28
    assert read_header(packed + b"more") == header
    for length in range(len(packed)):
        with pytest.raises(DeltaError, match="are no header"):
            read_header(packed[:length])


@pytest.mark.parametrize("image", [b"", bytes(1 << 24)])
def test_images_that_the_format_cannot_hold_are_refused(image: bytes) -> None:
    with pytest.raises(DeltaError, match="no differential file for an image"):
        encode(image, b"new")


# ---- Hostile files ----


@pytest.fixture(scope="module", params=VERSIONS)
def file(request: pytest.FixtureRequest) -> bytes:
    return encode(OLD, NEW, base_address=BASE, version=request.param)


OLD, NEW = (thumb(random.Random(7), 60, edits=edits) for edits in (0, 30))


def test_a_wrong_base_is_refused(file: bytes) -> None:
    for wrong in (OLD[:-1], b"x" + OLD[1:], b""):
        with pytest.raises(DeltaError, match="made against another image"):
            decode(wrong, file)


def test_what_follows_the_base_does_not_matter(file: bytes) -> None:
    assert decode(OLD + b"\xff" * 100, file) == NEW


def test_truncated_files_are_refused(file: bytes) -> None:
    start = read_header(file).size
    for length in (0, 10, start - 1, start, start + 20, len(file) - 12):
        with pytest.raises(DeltaError, match=r"malformed|truncated"):
            decode(OLD, file[:length])


def test_bytes_after_the_end_are_refused(file: bytes) -> None:
    with pytest.raises(DeltaError, match="bytes follow"):
        decode(OLD, file + bytes(9))


def test_another_version_is_refused(file: bytes) -> None:
    with pytest.raises(DeltaError, match="not a differential file"):
        decode(OLD, b"UB\x03" + file[3:])


@pytest.mark.parametrize(
    ("version", "at", "value"),
    [
        *((1, at, value) for at, value in ((3, 3), (4, 0x77), (4, 0xDB), (12, 0x7F), (13, 1))),
        *((1, at, 0) for at in (5, 8)),
        *((2, 3, value) for value in (3, 0x43, 0x81)),
        *((2, at, value) for at, value in ((4, 0x77), (4, 0xDB), (5, 0), (8, 0), (12, 1))),
    ],
)
def test_header_fields_out_of_bounds_are_refused(version: int, at: int, value: int) -> None:
    data = bytearray(encode(OLD, NEW, base_address=BASE, version=version))
    data[at] = value
    if at in {5, 8}:
        data[at : at + 3] = bytes(3)
    with pytest.raises(DeltaError, match="malformed"):
        decode(OLD, bytes(data))


def test_fields_that_say_nothing_are_refused() -> None:
    """Else a file could have more than one header."""
    same = bytearray(encode(b"abc", b"abc"))
    assert same[3] == 0
    length = same[:3] + b"\4" + same[4:8] + same[5:8] + same[8:]
    segments = same[:3] + b"\x08" + same[4:9] + b"\0" + same[9:]
    address = same[:3] + b"\x10" + same[4:9] + bytes(4) + same[9:]
    window = same[:3] + b"\x20" + same[4:9] + bytes(3) + same[9:]
    for other in (length, segments, address, window):
        with pytest.raises(DeltaError, match="out of bounds"):
            read_header(bytes(other))


def test_no_damage_goes_unnoticed(file: bytes) -> None:
    chance = random.Random(8)
    for _ in range(25):
        data = bytearray(file)
        data[chance.randrange(read_header(file).size, len(data) - 4)] ^= 1 << chance.randrange(8)
        with pytest.raises(DeltaError):
            decode(OLD, bytes(data))


# ---- The coder ----


def test_squash_and_stretch_are_inverse() -> None:
    for x in range(-1400, 1401):
        assert abs(stretch(squash(x)) - x) <= 8
    assert squash(-2815) == 65536 - squash(2815) == 1


@given(st.lists(st.tuples(st.integers(1, 65535), st.booleans()), max_size=300))
def test_bits_of_any_probability(bits: list[tuple[int, bool]]) -> None:
    """Among them those that make a carry run through bytes that are written already."""
    encoder = RangeEncoder(INITIAL_FLAGS[2], REPEAT_FLAGS, 8, 8, 34)
    for p, bit in bits:
        encoder.code(p, int(bit))
    data = encoder.finish()
    decoder = RangeDecoder(data, INITIAL_FLAGS[2], REPEAT_FLAGS, 8, 8, 34)
    assert [decoder.code(p, 0) for p, _ in bits] == [int(bit) for _, bit in bits]
    assert decoder.consumed >= len(data)
