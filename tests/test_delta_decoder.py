"""The terminal's decoder of differential files, on the host: the same as the reference decoder."""

from __future__ import annotations

import ctypes
import hashlib
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from delta_samples import BASE, arm, thumb
from hypothesis import given, settings
from hypothesis import strategies as st

from unbrick.delta import encode, read_header
from unbrick.delta.format import HEADER_SIZE, MAX_MEMORY_SIZE
from unbrick.delta.reference import decode
from unbrick.errors import DeltaError

LIB = Path(__file__).parents[1] / "firmware" / "lib"
GUARD = 64

SHA256 = ctypes.CFUNCTYPE(
    None, ctypes.POINTER(ctypes.c_uint8), ctypes.POINTER(ctypes.c_uint8), ctypes.c_uint32
)


@SHA256
def sha256(digest: ctypes._Pointer[ctypes.c_uint8], data: object, length: int) -> None:
    ctypes.memmove(digest, hashlib.sha256(ctypes.string_at(data, length)).digest(), 32)


class Job(ctypes.Structure):
    """``struct delta_job``."""

    _fields_ = [
        ("base", ctypes.c_void_p),
        ("base_size", ctypes.c_uint32),
        ("image", ctypes.c_void_p),
        ("image_size", ctypes.c_uint32),
        ("memory", ctypes.c_void_p),
        ("memory_size", ctypes.c_uint32),
        ("sha256", SHA256),
        ("progress", ctypes.c_void_p),
    ]


class Decoder:
    """The library as a shared one; undefined behaviour traps."""

    def __init__(self, folder: Path) -> None:
        path = folder / "libdelta.so"
        compiler = shutil.which("gcc") or shutil.which("clang")
        command = [compiler] if compiler else [sys.executable, "-m", "ziglang", "cc"]
        flags = ["-std=c11", "-O1", "-shared", "-fPIC", "-fsanitize=undefined"]
        flags += ["-fsanitize-undefined-trap-on-error"] if compiler else []
        sources = map(str, sorted(LIB.glob("delta*.c")))
        subprocess.run([*command, *flags, f"-I{LIB.parent}", "-o", str(path), *sources], check=True)
        self.library = ctypes.CDLL(str(path))
        self.library.delta_begin.restype = ctypes.c_void_p
        self.library.delta_error_text.restype = ctypes.c_char_p
        self.memory_used = 0

    def rebuild(
        self,
        old: bytes,
        file: bytes,
        *,
        chance: random.Random | None = None,
        room: int | None = None,
        memory: int | None = None,
    ) -> tuple[str, bytes]:
        """What is said of a file, and the image; checks that nothing else was written."""
        header = read_header(file)
        room = header.length if room is None else room
        size = header.memory if memory is None else memory
        image = ctypes.create_string_buffer(b"\xc3" * (room + GUARD), room + GUARD)
        work = ctypes.create_string_buffer(b"\xc3" * (size + GUARD + 8), size + GUARD + 8)
        start = -ctypes.addressof(work) % 8
        base = ctypes.create_string_buffer(old, len(old))
        job = Job(
            ctypes.addressof(base),
            len(old),
            ctypes.addressof(image),
            room,
            ctypes.addressof(work) + start,
            size,
            sha256,
            None,
        )
        error = ctypes.c_int(1)
        handle = self.library.delta_begin(
            ctypes.byref(job), file[:HEADER_SIZE], ctypes.byref(error)
        )
        said = error.value
        if handle is not None:
            delta = ctypes.c_void_p(handle)
            for piece in _pieces(file[HEADER_SIZE:], chance):
                said = self.library.delta_feed(delta, piece, ctypes.c_size_t(len(piece)))
            said = self.library.delta_finish(delta)
        assert image.raw[room:] == b"\xc3" * GUARD
        assert work.raw[start + size : start + size + GUARD] == b"\xc3" * GUARD
        assert base.raw == old
        return self.library.delta_error_text(said).decode(), image.raw[:room]


def _pieces(data: bytes, chance: random.Random | None) -> Iterator[bytes]:
    while data:
        length = len(data) if chance is None else chance.choice([1, 2, 7, 100, 300, 1024])
        yield data[:length]
        data = data[length:]


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> Decoder:
    return Decoder(tmp_path_factory.mktemp("delta"))


OLD, NEW = (thumb(random.Random(7), 60, edits=edits) for edits in (0, 30))


@pytest.fixture(scope="module")
def file() -> bytes:
    return encode(OLD, NEW, base_address=BASE)


@settings(max_examples=25)
@given(st.binary(min_size=1, max_size=600), st.binary(min_size=1, max_size=600), st.integers(0, 9))
def test_any_bytes(decoder: Decoder, old: bytes, new: bytes, seed: int) -> None:
    for left, right in ((old, new), (old, old + new), (old + new, new)):
        file = encode(left, right)
        said = decoder.rebuild(left, file, chance=random.Random(seed))
        assert said == ("no error", right)


@settings(max_examples=8)
@given(st.integers(0, 1 << 32), st.integers(0, 6), st.integers(0, 12))
def test_code(decoder: Decoder, seed: int, shift: int, edits: int) -> None:
    old = thumb(random.Random(seed), 40)
    new = thumb(random.Random(seed), 40, shift=4 * shift, edits=edits)
    file = encode(old, new, base_address=BASE)
    assert decoder.rebuild(old, file, chance=random.Random(seed)) == ("no error", new)


@settings(max_examples=8)
@given(st.integers(0, 1 << 32), st.integers(1, 6), st.binary(max_size=60))
def test_arm_code(decoder: Decoder, seed: int, shift: int, inserted: bytes) -> None:
    old = arm(random.Random(seed), 60)
    moved = arm(random.Random(seed), 60, shift=shift)
    new = moved[:200] + inserted + moved[200:]
    file = encode(old, new, base_address=BASE)
    assert decoder.rebuild(old, file) == ("no error", new)


@pytest.mark.slow
def test_other_programs(decoder: Decoder, file: bytes) -> None:
    """Nothing in common, and different instruction sets."""
    other = arm(random.Random(9), 80)
    for old, new in ((OLD, other), (other, OLD)):
        assert decoder.rebuild(old, encode(old, new, base_address=BASE)) == ("no error", new)


def test_the_length_of_the_pieces_does_not_matter(decoder: Decoder, file: bytes) -> None:
    for seed in range(10):
        assert decoder.rebuild(OLD, file, chance=random.Random(seed)) == ("no error", NEW)


def test_a_wrong_base_is_refused_before_anything_is_written(decoder: Decoder, file: bytes) -> None:
    for wrong in (OLD[:-1], b"x" + OLD[1:], OLD[:-1] + b"x"):
        said, image = decoder.rebuild(wrong, file)
        assert said == "made against another image"
        assert image == b"\xc3" * len(NEW)


def test_the_announced_memory_is_enough_and_less_is_refused(decoder: Decoder, file: bytes) -> None:
    memory = read_header(file).memory
    assert memory <= MAX_MEMORY_SIZE
    assert decoder.rebuild(OLD, file, memory=memory)[0] == "no error"
    for little in (memory - 1, 100, 0):
        assert decoder.rebuild(OLD, file, memory=little)[0] == "not enough memory"
    assert decoder.rebuild(OLD, file, room=len(NEW) - 1)[0] == "not enough memory"


def test_truncated_and_longer_files_are_refused(decoder: Decoder, file: bytes) -> None:
    for length in (HEADER_SIZE, HEADER_SIZE + 40, len(file) - 12):
        assert decoder.rebuild(OLD, file[:length])[0] in {"truncated", "malformed"}
    assert decoder.rebuild(OLD, file + bytes(9))[0] == "longer than it should be"
    assert decoder.rebuild(OLD, file + bytes(2000))[0] == "longer than it should be"


@pytest.mark.slow
def test_damaged_files_are_refused_as_the_reference_decoder_does(
    decoder: Decoder, file: bytes
) -> None:
    chance = random.Random(8)
    for _ in range(60):
        data = bytearray(file)
        for _ in range(chance.choice([1, 1, 5])):
            data[chance.randrange(6, len(data) - 4)] = chance.randrange(256)
        try:
            expected = decode(OLD, bytes(data))
        except DeltaError:
            try:
                read_header(bytes(data))
            except DeltaError:
                continue
            assert decoder.rebuild(OLD, bytes(data))[0] != "no error"
        else:
            assert decoder.rebuild(OLD, bytes(data)) == ("no error", expected)


def test_segments_outside_the_installed_image_are_refused(decoder: Decoder) -> None:
    """A file whose header is right for a shorter image than its segments are."""
    chance = random.Random(10)
    whole, new = chance.randbytes(4000), chance.randbytes(50)
    new += whole[2000:]
    file = bytearray(encode(whole, new))
    old = whole[:3000]
    file[5:8] = len(old).to_bytes(3, "little")
    file[20:36] = hashlib.sha256(old).digest()[:16]
    assert decoder.rebuild(old, bytes(file))[0] == "malformed"
    with pytest.raises(DeltaError, match="segment lies outside"):
        decode(old, bytes(file))
