"""Factory NOR images: everything at its place, and damaged identities are refused."""

from __future__ import annotations

import struct
import zlib

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unbrick.errors import ImageError
from unbrick.image.factory import (
    KEY_SIZE,
    Identity,
    derive_bench_key,
    list_nor_map,
    make_factory_image,
    read_identity,
)
from unbrick.layout import reference_layout

LAYOUT = reference_layout()
BOOT = bytes(range(256)) * 100
APPLICATION = b"application" * 30_000
IDENTITY = LAYOUT.partition("identity")


def with_identity(raw: bytes) -> bytes:
    nor = make_factory_image(BOOT, None, "T1")
    return nor[: IDENTITY.offset] + raw + nor[IDENTITY.offset + len(raw) :]


def sealed(cbor: bytes) -> bytes:
    return b"UNBRKID1" + struct.pack("<II", len(cbor), zlib.crc32(cbor)) + cbor


def test_claim_a6_everything_is_where_the_firmware_looks_for_it() -> None:
    nor = make_factory_image(BOOT, APPLICATION, "T-0001")
    part = LAYOUT.partition("application")
    assert len(nor) == LAYOUT.board.nor.modelled
    assert nor[: len(BOOT)] == BOOT
    assert nor[part.offset : part.offset + len(APPLICATION)] == APPLICATION
    length, crc = struct.unpack_from("<II", nor, IDENTITY.offset + 8)
    cbor = nor[IDENTITY.offset + 16 : IDENTITY.offset + 16 + length]
    assert nor[IDENTITY.offset :].startswith(b"UNBRKID1")
    assert crc == zlib.crc32(cbor)
    assert cbor2.loads(cbor) == {1: "T-0001", 2: LAYOUT.hardware_id}
    assert read_identity(nor) == Identity("T-0001", LAYOUT.hardware_id)
    for name in ("journal", "userdata"):
        blank = LAYOUT.partition(name)
        assert not nor[blank.offset : blank.end].strip(b"\xff")


def test_a_terminal_has_a_key_of_its_own() -> None:
    key = bytes(range(KEY_SIZE))
    nor = make_factory_image(BOOT, APPLICATION, "T-0001", key=key)
    (length,) = struct.unpack_from("<I", nor, IDENTITY.offset + 8)
    cbor = nor[IDENTITY.offset + 16 : IDENTITY.offset + 16 + length]
    assert cbor2.loads(cbor) == {1: "T-0001", 2: LAYOUT.hardware_id, 3: key}
    identity = read_identity(nor)
    assert identity == Identity("T-0001", LAYOUT.hardware_id, key)
    assert str(key) not in repr(identity)
    assert read_identity(make_factory_image(BOOT, None, "T-0001")).key == b""
    assert len(derive_bench_key("A")) == KEY_SIZE
    assert derive_bench_key("A") != derive_bench_key("B")
    with pytest.raises(ImageError, match="has 31 bytes, not 32"):
        make_factory_image(BOOT, None, "T-0001", key=bytes(31))


def test_the_map_says_what_is_blank_and_what_is_used() -> None:
    blocks = list_nor_map(make_factory_image(BOOT, APPLICATION, "T-0001"))
    assert len(blocks) == LAYOUT.board.nor.modelled // LAYOUT.board.nor.block_size
    assert [b.partition for b in blocks[:4]] == ["boot", "identity", "journal", "journal"]
    assert blocks[-1].partition == "spare"
    assert blocks[0].used == len(BOOT.rstrip(b"\xff"))
    used = {b.offset for b in blocks if b.used}
    assert used == {0, 0x40000, 0x100000, 0x140000}
    assert all(bool(b.digest) == bool(b.used) for b in blocks)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((bytes(0x40001), None, "T1"), "boot is too large"),
        ((BOOT, bytes(0x100001), "T1"), "application is too large"),
        ((BOOT, None, ""), "serial number is not a text"),
        ((BOOT, None, "x" * 32), "serial number is not a text"),
        ((BOOT, None, "a\n"), "serial number is not a text"),
    ],
)
def test_what_does_not_fit_is_refused(
    arguments: tuple[bytes, bytes | None, str], message: str
) -> None:
    with pytest.raises(ImageError, match=message):
        make_factory_image(*arguments)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"\xff" * 64, "no identity"),
        (b"UNBRKID1" + struct.pack("<II", 5, 0) + b"12345", "damaged"),
        (b"UNBRKID1" + struct.pack("<II", 0xFFFF_FFFF, 0), "damaged"),
        (sealed(cbor2.dumps([1, 2])), "malformed"),
        (sealed(cbor2.dumps({1: "T1"})), "malformed"),
        (sealed(cbor2.dumps({1: "T1", 2: 3})), "malformed"),
        (sealed(cbor2.dumps({1: "T1", 2: "hw", 3: "x" * 32})), "malformed"),
        (sealed(cbor2.dumps({1: "T1", 2: "hw", 3: bytes(31)})), "malformed"),
        (sealed(cbor2.dumps({1: "T1", 2: "hw", 3: b""})), "malformed"),
        (sealed(cbor2.dumps({1: "T" * 32, 2: "hw"})), "malformed"),
        (sealed(cbor2.dumps({1: "T1", 2: "hw"}) + b"\0"), "malformed"),
        (sealed(b"\x81" * 200), "malformed"),
    ],
)
def test_bad_identities_are_refused(raw: bytes, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        read_identity(with_identity(raw))


@given(st.binary(max_size=200))
def test_no_sealed_bytes_crash_the_reader(cbor: bytes) -> None:
    try:
        identity = read_identity(with_identity(sealed(cbor)))
    except ImageError:
        return
    assert cbor2.loads(cbor)[1] == identity.serial
