"""Firmware files: what each format puts where, and what is said of those that are wrong."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from unbrick.errors import SetupError
from unbrick.target.files import Piece, read_firmware, read_flat

HEX = ":0400000001020304F2\n:020000040800F2\n:04001000AABBCCDDDE\n:00000001FF\n"
SREC = "S00600004844521B\nS30908000010AABBCCDDD0\nS70500000000FA\n"


def uf2(*blocks: tuple[int, bytes], flags: int = 0) -> bytes:
    made = b""
    for number, (address, data) in enumerate(blocks):
        head = (0x0A324655, 0x9E5D5157, flags, address, len(data), number, len(blocks), 0)
        made += struct.pack("<8I", *head) + data.ljust(476, b"\0") + struct.pack("<I", 0x0AB16F30)
    return made


def elf(machine: int = 40, attributes: bytes = b"", at: int = 0x0800_0000) -> bytes:
    """An ELF file with eight bytes to load, and perhaps the attributes of its processor."""
    names = b"\0.ARM.attributes\0.shstrtab\0"
    section = b""
    if attributes:
        inner = b"\x01" + struct.pack("<I", 5 + len(attributes)) + attributes
        body = b"aeabi\0" + inner
        section = b"A" + struct.pack("<I", 4 + len(body)) + body
    data_at = 52 + 32
    section_at = data_at + 8
    names_at = section_at + len(section)
    headers_at = names_at + len(names)
    ident = b"\x7fELF\x01\x01\x01".ljust(16, b"\0")
    made = ident + struct.pack(
        "<HHIIIIIHHHHHH", 2, machine, 1, at, 52, headers_at, 0, 52, 32, 1, 40, 3, 2
    )
    made += struct.pack("<8I", 1, data_at, at, at, 8, 8, 5, 4)
    made += bytes(range(8)) + section + names
    made += bytes(40)
    made += struct.pack(
        *("<10I", *((1, 0x70000003) if attributes else (0, 0)), 0, 0),
        *(section_at, len(section), 0, 0, 1, 0),
    )
    return made + struct.pack("<10I", 17, 3, 0, 0, names_at, len(names), 0, 0, 1, 0)


CASES = {
    "elf": ("boot.elf", elf(), None, (Piece(0x0800_0000, bytes(range(8))),)),
    "hex": (
        *("app.hex", HEX.encode(), None),
        (Piece(0, b"\1\2\3\4"), Piece(0x0800_0010, b"\xaa\xbb\xcc\xdd")),
    ),
    "srec": ("app.srec", SREC.encode(), None, (Piece(0x0800_0010, b"\xaa\xbb\xcc\xdd"),)),
    "uf2": (
        *("app.uf2", uf2((0x2000, b"\1" * 256), (0x2100, b"\2" * 256)), None),
        (Piece(0x2000, b"\1" * 256 + b"\2" * 256),),
    ),
    "bin": ("app.bin", b"\x7fELF or not", 0x2000, (Piece(0x2000, b"\x7fELF or not"),)),
    "a name without meaning": ("image", b"\0\1\2", 16, (Piece(16, b"\0\1\2"),)),
}


@pytest.mark.parametrize("case", CASES)
def test_each_format_is_read(case: str, tmp_path: Path) -> None:
    name, data, at, pieces = CASES[case]
    (tmp_path / name).write_bytes(data)
    assert read_firmware(tmp_path / name, at, "cortex-m3") == pieces


CORTEX_M4 = b"\x06\x0d\x07M"  # Tag_CPU_arch: v7E-M, Tag_CPU_arch_profile: M
CORTEX_A9 = b"\x06\x0a\x07A"

WRONG = {
    "not there": ("boot.elf", None, None, "cannot read", "correct the name"),
    "empty": ("boot.bin", b"", 0, "is empty", "build the firmware again"),
    "no address": ("boot.bin", b"\0", None, "does not say where it lies", "give `at`"),
    "two addresses": ("boot.elf", elf(), 0, "has addresses of its own", "leave out `at`"),
    "another machine": ("boot.elf", elf(62), None, "for another core", "correct `chip`"),
    "a Cortex-A": ("a.elf", elf(attributes=CORTEX_A9), None, "a Cortex-A", "correct `chip`"),
    "a larger core": ("a.elf", elf(attributes=CORTEX_M4), None, "Armv7E-M", "correct `chip`"),
    "half an ELF file": ("a.elf", elf()[:40], None, "is damaged", "build it again"),
    "a wrong checksum": ("a.hex", HEX.replace("F2", "F3").encode(), None, "is damaged", "again"),
    "no S-record": ("a.srec", b"S3zz\n", None, "is damaged", "build it again"),
    "half a block": ("a.uf2", uf2((0, b"\1" * 4))[:-1] * 2, None, "is damaged", "build it again"),
    "twice the same": ("a.uf2", uf2((0, b"\1" * 8), (4, b"\2")), None, "is there twice", "again"),
    "nothing to load": ("a.uf2", uf2((0, b"\1"), flags=1), None, "nothing to load", "flashed"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_file_is_refused_with_a_hint(case: str, tmp_path: Path) -> None:
    name, data, at, message, hint = WRONG[case]
    if data is not None:
        (tmp_path / name).write_bytes(data)
    with pytest.raises(SetupError) as raised:
        read_firmware(tmp_path / name, at, "cortex-m3")
    assert message in str(raised.value)
    assert hint in raised.value.hint
    assert name in str(raised.value)


def test_a_core_runs_what_was_built_for_a_smaller_one(tmp_path: Path) -> None:
    (tmp_path / "a.elf").write_bytes(elf(attributes=CORTEX_M4))
    assert read_firmware(tmp_path / "a.elf", None, "cortex-m7")


@pytest.mark.parametrize(
    ("case", "flat"),
    [
        ("elf", (bytes(range(8)), 0x0800_0000)),
        ("srec", (b"\xaa\xbb\xcc\xdd", 0x0800_0010)),
        ("uf2", (b"\1" * 256 + b"\2" * 256, 0x2000)),
        ("bin", (b"\x7fELF or not", None)),
    ],
)
def test_a_file_for_any_processor_is_one_image(
    case: str, flat: tuple[bytes, int | None], tmp_path: Path
) -> None:
    name, data, _, _ = CASES[case]
    (tmp_path / name).write_bytes(data)
    assert read_flat(tmp_path / name) == flat


def test_gaps_are_filled_as_blank_flash_is(tmp_path: Path) -> None:
    (tmp_path / "a.uf2").write_bytes(uf2((0, b"\1" * 8), (16, b"\2")))
    assert read_flat(tmp_path / "a.uf2") == (b"\1" * 8 + b"\xff" * 8 + b"\2", 0)
    (tmp_path / "b.elf").write_bytes(elf(62))
    assert read_flat(tmp_path / "b.elf") == (bytes(range(8)), 0x0800_0000)


def test_parts_that_lie_far_apart_are_no_one_image(tmp_path: Path) -> None:
    (tmp_path / "a.hex").write_text(HEX)
    with pytest.raises(SetupError, match="at 0x0 and 0x8000010") as raised:
        read_flat(tmp_path / "a.hex")
    assert "the program alone" in raised.value.hint
