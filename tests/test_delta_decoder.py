"""The terminal's decoder of differential files, on the host: the same as the reference decoder."""

from __future__ import annotations

import ctypes
import hashlib
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from delta_samples import BASE, arm, thumb
from hypothesis import given, settings
from hypothesis import strategies as st

from unbrick.delta import encode, read_header, reference
from unbrick.delta.codec import make_plan
from unbrick.delta.compiled import make
from unbrick.delta.format import MAX_MEMORY_SIZE, VERSIONS, digest_base
from unbrick.delta.model import Model
from unbrick.delta.plan import Copy, DeltaPlan
from unbrick.delta.reference import decode
from unbrick.errors import DeltaError
from unbrick.firmware.build import read_releases

LIB = Path(__file__).parents[1] / "firmware" / "lib"
GUARD = 64

SHA256 = ctypes.CFUNCTYPE(
    None, ctypes.POINTER(ctypes.c_uint8), ctypes.POINTER(ctypes.c_uint8), ctypes.c_uint32
)


@SHA256
def sha256(digest: ctypes._Pointer[ctypes.c_uint8], data: object, length: int) -> None:
    ctypes.memmove(digest, hashlib.sha256(ctypes.string_at(data, length)).digest(), 32)


class Header(ctypes.Structure):
    """``struct delta_header``."""

    _fields_ = [
        ("base_length", ctypes.c_uint32),
        ("length", ctypes.c_uint32),
        ("memory", ctypes.c_uint32),
        ("size", ctypes.c_uint32),
        ("base_digest", ctypes.c_uint8 * 16),
        ("digest", ctypes.c_uint8 * 8),
        ("sizes", ctypes.c_uint8 * 2),
        ("version", ctypes.c_uint8),
        ("isa", ctypes.c_uint8),
        ("tables", ctypes.c_uint8 * 2),
        ("segments", ctypes.c_uint16),
        ("addresses", ctypes.c_uint32 * 3),
    ]


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
        parsed = Header()
        said = self.library.delta_parse_header(
            ctypes.byref(parsed), file, ctypes.c_size_t(len(file))
        )
        assert said == 0
        assert (parsed.size, parsed.memory) == (header.size, header.memory)
        handle = self.library.delta_begin(
            ctypes.byref(job), ctypes.byref(parsed), ctypes.byref(error)
        )
        said = error.value
        if handle is not None:
            delta = ctypes.c_void_p(handle)
            for piece in _pieces(file[header.size :], chance):
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


@pytest.fixture(scope="module", params=VERSIONS)
def file(request: pytest.FixtureRequest) -> bytes:
    return encode(OLD, NEW, base_address=BASE, version=request.param)


def test_releases_say_the_newest_version_that_their_decoder_reads(decoder: Decoder) -> None:
    newest = {release.delta_version for release in read_releases(LIB.parent / "releases.toml")}
    assert newest == {max(VERSIONS)}
    header, file = Header(), bytearray(encode(OLD, NEW, base_address=BASE))
    assert file[2] == max(VERSIONS)
    said = []
    for version in (max(VERSIONS), max(VERSIONS) + 1):
        file[2] = version
        error = decoder.library.delta_parse_header(
            ctypes.byref(header), bytes(file), ctypes.c_size_t(len(file))
        )
        said.append(decoder.library.delta_error_text(error).decode())
    assert said == ["no error", "not a differential file"]


@settings(max_examples=25)
@given(st.binary(min_size=1, max_size=600), st.binary(min_size=1, max_size=600), st.integers(0, 9))
def test_any_bytes(decoder: Decoder, old: bytes, new: bytes, seed: int) -> None:
    for left, right in ((old, new), (old, old + new), (old + new, new)):
        file = encode(left, right, version=1 + seed % 2)
        said = decoder.rebuild(left, file, chance=random.Random(seed))
        assert said == ("no error", right)


@settings(max_examples=8)
@given(st.integers(0, 1 << 32), st.integers(0, 6), st.integers(0, 12))
def test_code(decoder: Decoder, seed: int, shift: int, edits: int) -> None:
    old = thumb(random.Random(seed), 40)
    new = thumb(random.Random(seed), 40, shift=4 * shift, edits=edits)
    file = encode(old, new, base_address=BASE, version=1 + seed % 2)
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
    start = read_header(file).size
    for length in (start, start + 40, len(file) - 12):
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
    file = bytearray(encode(whole, new, version=1))
    old = whole[:3000]
    file[5:8] = len(old).to_bytes(3, "little")
    file[20:36] = hashlib.sha256(old).digest()[:16]
    assert decoder.rebuild(old, bytes(file))[0] == "malformed"
    with pytest.raises(DeltaError, match="segment lies outside"):
        decode(old, bytes(file))


def test_bytes_that_are_appended_unread_are_refused(decoder: Decoder) -> None:
    """The range decoder reads four bytes ahead: those count, too. One file, one encoding."""
    for seed in range(12):
        chance = random.Random(seed)
        old, new = chance.randbytes(60), chance.randbytes(chance.randrange(1, 60))
        file = encode(old, new)
        assert decoder.rebuild(old, file) == ("no error", new)
        for end in (b"\0", b"\0\0\0\0", b"\1", b"\xff\xff"):
            assert decoder.rebuild(old, file + end)[0] in {"malformed", "longer than it should be"}
            with pytest.raises(DeltaError, match="malformed"):
                decode(old, file + end)


def test_other_last_bytes_are_refused(decoder: Decoder) -> None:
    """Even those with which all decisions come out the same."""
    chance = random.Random(1)
    old, new = chance.randbytes(60), chance.randbytes(50)
    file = encode(old, new)
    refused = set()
    for back in range(1, 4):
        for change in range(1, 256):
            other = bytearray(file)
            other[-back] ^= change
            refused.add(decoder.rebuild(old, bytes(other))[0])
    assert refused <= {"malformed", "gives another image than it says", "truncated"}
    assert "malformed" in refused


def with_copy(old: bytes, new: bytes, copy: Copy) -> DeltaPlan:
    """All bytes are new but for one copy."""
    header = replace(make_plan(old, new).header, segments=0)
    return DeltaPlan(header, (), frozenset(), copies=(copy,))


def test_a_copy_may_reach_into_itself(decoder: Decoder) -> None:
    old, new = b"old", bytes(301)
    plan = with_copy(old, new, Copy(1, 300, 0, old=False))
    file = make(old, new, plan).file
    assert decoder.rebuild(old, file) == ("no error", new)
    assert decode(old, file) == new
    assert len(file) < plan.header.size + 12


@pytest.mark.parametrize("old", [True, False])
def test_copies_outside_the_images_are_refused(decoder: Decoder, old: bool) -> None:
    """As they are in files that were made for another length of the images."""
    base = b"abcdefgh" * 40
    new = b"abcdefgh" * 6
    plan = with_copy(base, new, Copy(8, 40, 160 if old else 0, old=old))
    file = make(base, new, plan).file
    assert decoder.rebuild(base, file) == ("no error", new)
    shorter = base[:180] if old else base
    header = replace(
        plan.header,
        base_length=len(shorter),
        base_digest=digest_base(shorter, 2),
        length=len(new) if old else 24,
    )
    other = header.pack() + file[plan.header.size :]
    assert decoder.rebuild(shorter, other)[0] == "malformed"
    with pytest.raises(DeltaError, match="a copy lies outside"):
        decode(shorter, other)


def test_a_copy_from_what_is_not_there_yet_is_refused(
    decoder: Decoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The place that the file says is here itself; no encoder writes that."""
    old, new = b"old", b"abcdefgh" * 6
    plan = with_copy(old, new, Copy(8, 40, 0, old=False))
    number = Model._number

    def lie(model: Model, kind: int, value: int) -> int:
        distance_in_new = 4
        number(model, kind, 0 if kind == distance_in_new else value)
        return value

    with monkeypatch.context() as patched:
        patched.setattr(Model, "_number", lie)
        file = reference.write(old, new, plan)
    assert decoder.rebuild(old, file)[0] == "malformed"
    with pytest.raises(DeltaError, match="a copy lies outside"):
        decode(old, file)
