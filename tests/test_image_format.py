"""Images: what `inspect`, `verify` and `sign` accept, and that nothing hostile crashes them."""

from __future__ import annotations

import hashlib
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from image_samples import FIELDS, program, signed, write_key
from imgtool import keys

from unbrick.errors import ImageError, SetupError
from unbrick.image import format as fmt
from unbrick.image import mcuboot
from unbrick.image.sign import sign
from unbrick.layout import reference_layout

LAYOUT = reference_layout()
PROTECTED_MAGIC = b"\x08\x69"


@pytest.fixture(scope="session")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_key(tmp_path_factory.mktemp("keys") / "key.pem")


@pytest.fixture(scope="session")
def other_key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_key(tmp_path_factory.mktemp("keys") / "other.pem", seed=2)


@pytest.fixture(scope="session")
def image(key: Path) -> bytes:
    return signed(key)


def rehash(image: bytes) -> bytes:
    """Repair the SHA-256 of a changed image, as an enemy without the key could."""
    at = image.rindex(b"\x10\x00\x20\x00")
    end = image.rindex(b"\x07\x69", 0, at)
    return image[: at + 4] + hashlib.sha256(image[:end]).digest() + image[at + 36 :]


def test_inspect_reads_what_sign_was_given(image: bytes) -> None:
    info = fmt.inspect(image)
    assert {name: getattr(info, name) for name in FIELDS} == FIELDS
    assert info.size == len(image)
    assert info.body_size == len(program())
    assert info.header_size == LAYOUT.image_header_size
    assert info.load_address == LAYOUT.partition("application").offset
    assert info.signed
    assert image[info.header_size : info.header_size + info.body_size] == program()


def test_an_image_says_in_which_format_its_software_keeps_the_users_data(
    key: Path, image: bytes
) -> None:
    assert fmt.inspect(image).userdata_format == 1
    assert b"\xa3\0\x04\0" not in image[-300:]  # As images from before there was another one.
    assert fmt.inspect(signed(key, userdata_format=2)).userdata_format == 2
    assert fmt.inspect(signed(key, userdata_format=2**32 - 1)).userdata_format == 2**32 - 1
    for wrong in (0, 2**32):
        with pytest.raises(ImageError, match="format of the user's data"):
            signed(key, userdata_format=wrong)


def test_an_image_says_which_differential_files_its_software_reads(key: Path, image: bytes) -> None:
    assert fmt.inspect(image).delta_version == 1
    assert b"\xa4\0\x04\0" not in image[-300:]  # As images from before there was version 2.
    assert fmt.inspect(signed(key, delta_version=2)).delta_version == 2
    both = fmt.inspect(signed(key, userdata_format=3, delta_version=2))
    assert (both.userdata_format, both.delta_version) == (3, 2)
    for wrong in (0, 2**32):
        with pytest.raises(ImageError, match="version of differential files"):
            signed(key, delta_version=wrong)


def test_signing_is_deterministic_and_never_padded_to_a_slot(key: Path, image: bytes) -> None:
    assert signed(key) == image
    assert len(image) < LAYOUT.image_header_size + len(program()) + 256


def test_imgtool_itself_accepts_the_image(tmp_path: Path, key: Path, image: bytes) -> None:
    file = tmp_path / "image.bin"
    file.write_bytes(image)
    done = subprocess.run(
        [sys.executable, "-m", "imgtool.main", "verify", "-k", str(key), str(file)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert fmt.inspect(image).digest.hex() in done.stdout


def test_verify_accepts_the_right_key_from_either_half(
    tmp_path: Path, key: Path, image: bytes
) -> None:
    public = tmp_path / "public.pem"
    keys.load(str(key)).export_public(str(public))
    assert fmt.verify(image, fmt.load_public_key(public)) == fmt.inspect(image)
    assert fmt.verify(image, fmt.load_public_key(key)).version == FIELDS["version"]


def test_verify_refuses_another_key(image: bytes, other_key: Path) -> None:
    with pytest.raises(ImageError, match="signed with another key"):
        fmt.verify(image, fmt.load_public_key(other_key))


def test_verify_refuses_a_forged_signature(image: bytes, key: Path) -> None:
    forged = image[:-1] + bytes([image[-1] ^ 1])
    fmt.inspect(forged)  # Nothing but the signature is wrong.
    with pytest.raises(ImageError, match="signature of the image is wrong"):
        fmt.verify(forged, fmt.load_public_key(key))


def test_verify_refuses_a_repaired_hash(image: bytes, key: Path) -> None:
    changed = bytearray(image)
    changed[0x300] ^= 1
    forged = rehash(bytes(changed))
    fmt.inspect(forged)
    with pytest.raises(ImageError, match="signature of the image is wrong"):
        fmt.verify(forged, fmt.load_public_key(key))


def test_verify_refuses_an_unsigned_image(image: bytes, key: Path) -> None:
    start = image.rindex(b"\x07\x69", 0, image.rindex(b"\x10\x00\x20\x00"))
    unsigned = image[:start] + struct.pack("<HH", 0x6907, 40) + image[start + 4 : start + 40]
    assert not fmt.inspect(unsigned).signed
    with pytest.raises(ImageError, match="not signed"):
        fmt.verify(unsigned, fmt.load_public_key(key))


def test_verify_refuses_other_hardware(key: Path) -> None:
    other = signed(key, hardware_id="toaster-r2")
    with pytest.raises(ImageError, match="other hardware: toaster-r2"):
        fmt.verify(other, fmt.load_public_key(key))


def test_verify_refuses_what_the_partition_cannot_hold(key: Path) -> None:
    large = signed(key, LAYOUT.partition("application").size)
    with pytest.raises(ImageError, match="too large for the partition"):
        fmt.verify(large, fmt.load_public_key(key))


def test_check_board_refuses_another_address_and_header(image: bytes) -> None:
    info = fmt.inspect(image)
    with pytest.raises(ImageError, match="must lie at 0x00200000"):
        fmt.check_board(replace(info, load_address=0x200000))
    with pytest.raises(ImageError, match="header of the image has 32 bytes"):
        fmt.check_board(replace(info, header_size=32))


@pytest.mark.parametrize(
    ("stack", "entry", "message"),
    [
        (0x2000_0000, 0x100209, "not in the SRAM"),
        (LAYOUT.board.sram.end, 0x100208, "is not Thumb code"),
    ],
)
def test_check_entry_refuses_a_program_for_elsewhere(
    key: Path, stack: int, entry: int, message: str
) -> None:
    fmt.check_entry(signed(key))
    wrong = sign(struct.pack("<II", stack, entry) + program()[8:], **FIELDS, key=key)
    with pytest.raises(ImageError, match=message):
        fmt.check_entry(wrong)


@pytest.mark.parametrize(
    ("length", "message"),
    [(0, "truncated"), (31, "truncated"), (0x200, "truncated"), (-1, "truncated"), (-300, "trunc")],
)
def test_inspect_refuses_truncated_images(image: bytes, length: int, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        fmt.inspect(image[:length])


def test_every_truncation_is_refused(image: bytes) -> None:
    for length in [*range(600), *range(len(image) - 300, len(image))]:
        with pytest.raises(ImageError):
            fmt.inspect(image[:length])


@pytest.mark.parametrize(
    ("at", "value", "message"),
    [
        (0, b"\x7fELF", "not an image: it begins with 0x464c457f"),
        (8, struct.pack("<H", 16), "header has 16 bytes"),
        (12, struct.pack("<I", 4), "body of the image has only 4 bytes"),
        (12, struct.pack("<I", 0xFFFF_FFFF), "truncated"),
        (12, struct.pack("<I", 1000), "no TLVs where they must be"),
        (16, struct.pack("<I", 0x4), "flags that this terminal does not know"),
        (10, struct.pack("<H", 12), "wrong size"),
        (0x300, b"changed", "SHA-256 does not match"),
        (20, b"\x09", "SHA-256 does not match"),
    ],
)
def test_inspect_says_what_is_wrong(image: bytes, at: int, value: bytes, message: str) -> None:
    changed = image[:at] + value + image[at + len(value) :]
    with pytest.raises(ImageError, match=message) as caught:
        fmt.inspect(changed)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b"\xa0\x00", b"\xb0\x00", "no hardware id"),
        (b"\xa1\x00", b"\xa0\x00", "has TLV 0x00a0 twice"),
        (b"\x50\x00\x04\x00", b"\x50\x00\x05\x00", "TLV 0x0050 of the image has 5 bytes"),
        (b"\x50\x00", b"\x10\x00", "TLV 0x0010 of the image has 4 bytes"),
        (b"unbrick-terminal", b"unbrick\nterminal", "name of the image is not a text"),
        (b"unbrick-terminal", b"unbrick\xffterminal", "name of the image is not a text"),
        (b"\xa2\x00\x14\x00", b"\xa2\x00\xff\x00", "longer than what is left"),
    ],
)
def test_inspect_refuses_bad_tlvs_even_with_the_right_hash(
    image: bytes, old: bytes, new: bytes, message: str
) -> None:
    start = image.index(PROTECTED_MAGIC, LAYOUT.image_header_size + len(program()))
    tail = image[start:].replace(old, new, 1)
    with pytest.raises(ImageError, match=message):
        fmt.inspect(rehash(image[:start] + tail))


def test_inspect_refuses_a_hardware_id_that_the_hash_does_not_cover(image: bytes) -> None:
    extra = struct.pack("<HH", mcuboot.TLV_HARDWARE_ID, 4) + b"evil"
    at = image.rindex(b"\x07\x69", 0, image.rindex(b"\x10\x00\x20\x00"))
    (size,) = struct.unpack_from("<H", image, at + 2)
    longer = image[: at + 2] + struct.pack("<H", size + len(extra)) + image[at + 4 :] + extra
    with pytest.raises(ImageError, match="wrong area"):
        fmt.inspect(longer)


def test_bytes_behind_the_image_need_to_be_allowed(image: bytes) -> None:
    with pytest.raises(ImageError, match="2 bytes follow the end"):
        fmt.inspect(image + b"\xff\xff")
    assert fmt.inspect(image + b"\xff" * 1000, trailing=True) == fmt.inspect(image)


@given(data=st.data())
def test_no_mutation_crashes_or_passes_verification(
    image: bytes, key: Path, data: st.DataObject
) -> None:
    public = fmt.load_public_key(key)
    changed = bytearray(image)
    for _ in range(data.draw(st.integers(1, 4))):
        # Header and TLVs are where the structure is.
        at = data.draw(
            st.one_of(
                st.integers(0, 40),
                st.integers(LAYOUT.image_header_size + len(program()), len(image) - 1),
                st.integers(0, len(image) - 1),
            )
        )
        changed[at] = data.draw(st.integers(0, 255))
    hostile = bytes(changed[: data.draw(st.sampled_from([len(image), 0x210, len(image) - 9]))])
    if hostile == image:
        return
    for candidate in (hostile, hostile + b"\0"):
        with pytest.raises(ImageError):
            fmt.verify(candidate, public)


@given(st.binary(max_size=600))
def test_inspect_survives_any_bytes_behind_a_good_magic(tail: bytes) -> None:
    with pytest.raises(ImageError):
        fmt.inspect(struct.pack("<I", mcuboot.MAGIC) + tail)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": "one"}, "not a version"),
        ({"version": "256.0.0"}, "not a version"),
        ({"version": "1.0.0+4294967296"}, "not a version"),
        ({"name": ""}, "name is not a text"),
        ({"name": "x" * 32}, "name is not a text"),
        ({"hardware_id": "a\nb"}, "hardware id is not a text"),
        ({"build_time": "\udcff"}, "build time is not a text"),
        ({"security_counter": -1}, "does not fit in 32 bits"),
        ({"security_counter": 2**32}, "does not fit in 32 bits"),
    ],
)
def test_sign_refuses_what_has_no_place_in_an_image(
    key: Path, change: dict[str, object], message: str
) -> None:
    with pytest.raises(ImageError, match=message):
        signed(key, **change)


def test_sign_refuses_an_empty_program(key: Path) -> None:
    with pytest.raises(ImageError, match="only 0 bytes"):
        sign(b"", **FIELDS, key=key)


def test_keys_that_do_not_serve_are_refused(tmp_path: Path, key: Path) -> None:
    public = tmp_path / "public.pem"
    keys.load(str(key)).export_public(str(public))
    with pytest.raises(SetupError, match="only the public half"):
        sign(program(), **FIELDS, key=public)
    with pytest.raises(SetupError, match="cannot read"):
        sign(program(), **FIELDS, key=tmp_path / "none.pem")
    rsa_key = tmp_path / "ec.pem"
    keys.ECDSA256P1.generate().export_private(str(rsa_key))
    garbage = tmp_path / "garbage.pem"
    garbage.write_bytes(b"-----BEGIN PRIVATE KEY-----\n!\n")
    for path in (rsa_key, garbage):
        with pytest.raises(SetupError, match="not an Ed25519 key"):
            fmt.load_public_key(path)


def test_files_are_read_only_up_to_their_limit(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"12345")
    assert fmt.read_bounded(file, 5) == b"12345"
    with pytest.raises(SetupError, match="larger than 4 bytes"):
        fmt.read_bounded(file, 4)
    with pytest.raises(SetupError, match="cannot read"):
        fmt.read_bounded(tmp_path)
