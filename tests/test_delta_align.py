"""How the encoder aligns two images: sorted suffixes, and segments that a file can hold."""

from __future__ import annotations

import ctypes
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from delta_samples import BASE, arm, thumb
from hypothesis import given, settings
from hypothesis import strategies as st

import unbrick.delta
from unbrick.delta.align import Place, align
from unbrick.delta.format import ARM, DATA, THUMB

SOURCE = Path(unbrick.delta.__file__).parent / "c" / "suffixes.c"


class Suffixes(ctypes.Structure):
    """``struct suffixes``."""

    _fields_ = (
        ("data", ctypes.c_char_p),
        ("length", ctypes.c_int32),
        ("order", ctypes.POINTER(ctypes.c_int32)),
        ("groups", ctypes.POINTER(ctypes.c_int32)),
        ("heads", ctypes.POINTER(ctypes.c_uint32)),
    )


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """The sources, compiled so that undefined behaviour traps."""
    path = tmp_path_factory.mktemp("suffixes") / "libsuffixes.so"
    compiler = shutil.which("gcc") or shutil.which("clang")
    command = [compiler] if compiler else [sys.executable, "-m", "ziglang", "cc"]
    flags = ["-std=c11", "-O1", "-shared", "-fPIC", "-fsanitize=undefined"]
    flags += ["-fsanitize-undefined-trap-on-error"] if compiler else []
    subprocess.run([*command, *flags, "-o", str(path), str(SOURCE)], check=True)
    return ctypes.CDLL(str(path))


def strings() -> st.SearchStrategy[bytes]:
    """Of few letters, so that much repeats, or of any."""
    few = st.text("ab", min_size=1, max_size=200).map(str.encode)
    return few | st.binary(min_size=1, max_size=200) | st.builds(bytes, st.integers(1, 300))


@settings(deadline=None)
@given(strings(), st.lists(strings(), max_size=4))
def test_suffixes_are_sorted_and_found(
    library: ctypes.CDLL, data: bytes, wanted: list[bytes]
) -> None:
    suffixes = Suffixes()
    assert library.suffixes_sort(ctypes.byref(suffixes), data, len(data)) & 1
    order = suffixes.order[: len(data)]
    assert order == sorted(range(len(data)), key=lambda at: data[at:])
    for string in (*wanted, data, data[len(data) // 2 :], data[-1:]):
        place = ctypes.c_int32(-1)
        found = library.suffixes_find(
            ctypes.byref(suffixes), string, len(string), ctypes.byref(place)
        )
        longest = next(n for n in range(len(string), -1, -1) if string[:n] in data)
        assert found == longest
        assert data[place.value :].startswith(string[:found])
    library.suffixes_free(ctypes.byref(suffixes))


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 1 << 32),
    st.sampled_from([THUMB, ARM, DATA]),
    st.lists(st.tuples(st.integers(0, 1 << 16), st.integers(0, 90), st.binary(max_size=60))),
    st.sampled_from([0, BASE, 0xFFFFFFFC]),
)
def test_segments_are_in_order_and_lie_in_both_images(
    seed: int, isa: int, edits: list[tuple[int, int, bytes]], base: int
) -> None:
    make = arm if isa == ARM else thumb
    old = make(random.Random(seed), 12)
    new = bytearray(old)
    for place, removed, inserted in edits:
        at = place % (len(new) + 1)
        new[at : at + removed] = inserted
    new = new or bytearray(1)
    at = 0
    for segment in align(old, bytes(new), Place(isa, base)):
        assert segment.new >= at
        assert segment.length > 0
        assert segment.old >= 0
        assert segment.old_end <= len(old)
        at = segment.end
    assert at <= len(new)


@pytest.mark.parametrize("seed", range(20))
def test_a_piece_among_new_bytes_is_found_wherever_it_lies(seed: int) -> None:
    """What need not be searched for must not hide what is there."""
    chance = random.Random(seed)
    old = chance.randbytes(4000)
    length, start = chance.randrange(24, 80), chance.randrange(3900)
    piece = old[start : start + length]
    for before, behind in ((500, 500), (0, 300), (300, 0), (301, 5)):
        new = chance.randbytes(before) + piece + chance.randbytes(behind)
        (segment,) = align(old, new, Place(DATA, BASE))
        assert segment.old - segment.new == start - before
        assert segment.new <= before
        assert segment.end >= before + len(piece)


def test_what_stays_is_one_segment() -> None:
    old = thumb(random.Random(1), 50)
    for isa in (DATA, THUMB):
        segments = align(old, b"\1\2\3\4" + old, Place(isa, BASE))
        assert [(s.new, s.length, s.old) for s in segments] == [(4, len(old), 0)]


def test_calls_and_addresses_that_only_moved_are_no_differences() -> None:
    """Read as code, more of the old image is found again."""
    old, new = (thumb(random.Random(3), 200, edits=edits) for edits in (0, 20))
    as_code, as_data = (
        sum(segment.length for segment in align(old, new, Place(isa, BASE)))
        for isa in (THUMB, DATA)
    )
    assert as_code > as_data
