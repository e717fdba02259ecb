"""MCUboot images: what is in one, and whether this terminal would run it.

An image is a header, a body, protected TLVs and TLVs (``docs/protocol.md``, *Images*). Everything
read here may come from an enemy: every length is checked before it is used.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from unbrick.board.description import BOARD
from unbrick.errors import ImageError, SetupError

if TYPE_CHECKING:
    from unbrick.board.description import Board

MAGIC = 0x96F3B83D
FLAG_ROM_FIXED = 0x100

TLV_KEY_HASH = 0x01
TLV_SHA256 = 0x10
TLV_ED25519 = 0x24
TLV_SECURITY_COUNTER = 0x50
TLV_HARDWARE_ID = 0x00A0
TLV_NAME = 0x00A1
TLV_BUILD_TIME = 0x00A2
TLV_USERDATA_FORMAT = 0x00A3

TEXT_LIMIT = 31
"""Characters of printable ASCII that a text in an image may have."""

FILE_LIMIT = 16 * 1024 * 1024
"""Bytes of an image file that are read at most: far above any partition of any board."""

_HEADER = struct.Struct("<IIHHIIBBHII")
_TLV = struct.Struct("<HH")
_TLV_INFO_MAGIC = 0x6907
_TLV_PROTECTED_MAGIC = 0x6908
_SHORTEST_BODY = 8  # Initial SP and entry address.
_PROTECTED = frozenset(
    {TLV_SECURITY_COUNTER, TLV_HARDWARE_ID, TLV_NAME, TLV_BUILD_TIME, TLV_USERDATA_FORMAT}
)
_UNPROTECTED = frozenset({TLV_KEY_HASH, TLV_SHA256, TLV_ED25519})
_FIXED_SIZES = {
    TLV_KEY_HASH: 32,
    TLV_SHA256: 32,
    TLV_ED25519: 64,
    TLV_SECURITY_COUNTER: 4,
    TLV_USERDATA_FORMAT: 4,
}


@dataclass(frozen=True)
class ImageInfo:
    """What an image says about itself; its structure and its hash were checked.

    Attributes:
        name: name of the software.
        version: ``major.minor.revision+build``.
        build_time: ISO 8601, UTC.
        hardware_id: the hardware it was made for.
        security_counter: grows when an older image must not be installed any more.
        digest: the SHA-256 TLV (32 bytes).
        size: bytes of the whole image, with header and TLVs.
        header_size: bytes from the start of the image to the body.
        body_size: bytes of the body.
        protected_size: bytes of the protected TLVs.
        flags: of the header.
        load_address: where the image must lie; 0 when the header leaves it open.
        key_hash: SHA-256 of the public key it was signed with; empty without a signature.
        signature: Ed25519 over ``digest``; empty without one.
        userdata_format: the format in which this software keeps the user's data; 1 when the image
            does not say.
    """

    name: str
    version: str
    build_time: str
    hardware_id: str
    security_counter: int
    digest: bytes
    size: int
    header_size: int
    body_size: int
    protected_size: int
    flags: int
    load_address: int
    key_hash: bytes
    signature: bytes
    userdata_format: int = 1

    @property
    def signed(self) -> bool:
        """Whether there is a signature; ``verify`` says whether it is right."""
        return bool(self.signature)


def inspect(data: bytes, *, trailing: bool = False) -> ImageInfo:
    """Check structure and hash of an image, and read what it says about itself.

    Args:
        data: the image.
        trailing: accept bytes after its end, as a partition of the NOR has them.

    Raises:
        ImageError: it is truncated, malformed or damaged.
    """
    if len(data) < _HEADER.size:
        raise _malformed(f"the image is truncated: {len(data)} bytes are no header")
    (magic, load_address, header_size, protected_size, body_size, flags, *numbers) = (
        _HEADER.unpack_from(data)
    )
    if magic != MAGIC:
        raise ImageError(
            f"not an image: it begins with 0x{magic:08x} instead of 0x{MAGIC:08x}",
            hint="give a signed image: `unbrick image sign` makes one from a binary",
        )
    if header_size < _HEADER.size:
        raise _malformed(f"the image says that its header has {header_size} bytes")
    if flags & ~FLAG_ROM_FIXED:
        raise ImageError(
            f"the image has flags that this terminal does not know: 0x{flags:08x}",
            hint="sign it without encryption, compression and RAM loading",
        )
    if body_size < _SHORTEST_BODY:
        raise _malformed(f"the body of the image has only {body_size} bytes")
    body_end = header_size + body_size
    protected, tlv_start = _tlvs(data, body_end, _TLV_PROTECTED_MAGIC, protected_size)
    plain, end = _tlvs(data, tlv_start, _TLV_INFO_MAGIC, None)
    if len(data) > end and not trailing:
        raise _malformed(f"{len(data) - end} bytes follow the end of the image")

    if misplaced := (_PROTECTED & plain.keys()) | (_UNPROTECTED & protected.keys()):
        raise _malformed(f"TLV 0x{min(misplaced):04x} of the image is in the wrong area")
    digest = plain.get(TLV_SHA256)
    if digest is None:
        raise _malformed("the image has no SHA-256")
    if hashlib.sha256(memoryview(data)[:tlv_start]).digest() != digest:
        raise ImageError(
            "the image is damaged: its SHA-256 does not match its contents",
            hint="copy it again, or build and sign it anew",
        )
    major, minor, revision, build = numbers[:4]
    return ImageInfo(
        name=_text(protected, TLV_NAME, "name"),
        version=f"{major}.{minor}.{revision}+{build}",
        build_time=_text(protected, TLV_BUILD_TIME, "build time"),
        hardware_id=_text(protected, TLV_HARDWARE_ID, "hardware id"),
        security_counter=int.from_bytes(
            _required(protected, TLV_SECURITY_COUNTER, "security counter"), "little"
        ),
        digest=digest,
        size=end,
        header_size=header_size,
        body_size=body_size,
        protected_size=protected_size,
        flags=flags,
        load_address=load_address,
        key_hash=plain.get(TLV_KEY_HASH, b""),
        signature=plain.get(TLV_ED25519, b""),
        userdata_format=int.from_bytes(protected.get(TLV_USERDATA_FORMAT, b"\x01\0\0\0"), "little"),
    )


def verify(data: bytes, public_key: Ed25519PublicKey, *, board: Board = BOARD) -> ImageInfo:
    """Check everything about an image that can be checked without the terminal.

    Raises:
        ImageError: ``inspect`` or ``check_board`` refuses it, or it is not signed with that key.
    """
    info = inspect(data)
    check_board(info, board)
    check_signature(info, public_key)
    return info


def check_signature(info: ImageInfo, public_key: Ed25519PublicKey) -> None:
    """Check that the image was signed with the private key of ``public_key``.

    Raises:
        ImageError: there is no signature, it was made with another key, or it is wrong.
    """
    if not info.signed:
        raise ImageError(
            "the image is not signed", hint="sign it: `unbrick image sign --key KEY.pem`"
        )
    expected = key_hash(public_key)
    if info.key_hash != expected:
        found = info.key_hash.hex()[:16] or "an unnamed key"
        raise ImageError(
            f"the image is signed with another key ({found}, not {expected.hex()[:16]})",
            hint="sign it with the key whose public half is in the terminal's boot",
        )
    try:
        public_key.verify(info.signature, info.digest)
    except InvalidSignature:
        raise ImageError(
            "the signature of the image is wrong", hint="sign it again, or get it again"
        ) from None


def check_board(info: ImageInfo, board: Board = BOARD) -> None:
    """Check that the image is for this hardware, this address and this partition.

    Raises:
        ImageError: it is not.
    """
    part = board.partition("application")
    if info.hardware_id != board.hardware_id:
        raise ImageError(
            f"the image is for other hardware: {info.hardware_id}, not {board.hardware_id}",
            hint="build it for this terminal",
        )
    if info.header_size != board.image_header_size:
        raise ImageError(
            f"the header of the image has {info.header_size} bytes, not {board.image_header_size}",
            hint="sign it with `unbrick image sign`",
        )
    if info.flags & FLAG_ROM_FIXED and info.load_address != board.map.nor + part.offset:
        raise ImageError(
            f"the image must lie at 0x{info.load_address:08x}, "
            f"not at 0x{board.map.nor + part.offset:08x}",
            hint="link and sign it for the application partition",
        )
    if info.size > part.size:
        raise ImageError(
            f"the image is too large for the partition: {info.size} of {part.size} bytes",
            hint="make the software smaller",
        )


def check_entry(data: bytes, board: Board = BOARD) -> None:
    """Check that the program in an image is linked for where it will lie: its first word is a stack
    in the SRAM, its second the address of Thumb code in the body.

    Raises:
        ImageError: it is not.
    """
    info = inspect(data)
    stack, entry = struct.unpack_from("<II", data, info.header_size)
    body = board.map.nor + board.partition("application").offset + info.header_size
    if not board.sram.base < stack <= board.sram.end:
        raise ImageError(
            f"the program is not for this board: its stack 0x{stack:08x} is not in the SRAM",
            hint="sign a flat binary that begins with initial SP and entry address",
        )
    if not entry & 1 or not body <= entry < body + info.body_size:
        raise ImageError(
            f"the program is not linked for the application partition: its entry 0x{entry:08x} "
            f"is not Thumb code in 0x{body:08x} to 0x{body + info.body_size - 1:08x}",
            hint="link it to lie right after the header of the image",
        )


def key_hash(public_key: Ed25519PublicKey) -> bytes:
    """SHA-256 of the key as the key hash TLV has it (DER, SubjectPublicKeyInfo of RFC 5280)."""
    der = public_key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return hashlib.sha256(der).digest()


def load_public_key(path: Path) -> Ed25519PublicKey:
    """Read an Ed25519 key from a PEM file; of a private key its public half.

    Raises:
        SetupError: there is no such file, or no such key in it.
    """
    pem = read_bounded(path, 64 * 1024)
    try:
        if b"PRIVATE KEY" in pem:
            private = serialization.load_pem_private_key(pem, password=None)
            key = private.public_key() if isinstance(private, Ed25519PrivateKey) else None
        else:
            public = serialization.load_pem_public_key(pem)
            key = public if isinstance(public, Ed25519PublicKey) else None
    except (ValueError, TypeError):
        key = None
    if key is None:
        raise SetupError(
            f"{path} is not an Ed25519 key in PEM without a password",
            hint="make one: `imgtool keygen -t ed25519 -k KEY.pem`",
        )
    return key


def is_text(value: object) -> bool:
    """Whether ``value`` can be a text in an image or in the identity partition."""
    return (
        isinstance(value, str)
        and value.isascii()
        and value.isprintable()
        and 0 < len(value) <= TEXT_LIMIT
    )


def read_bounded(path: Path, limit: int = FILE_LIMIT) -> bytes:
    """The contents of a file of at most ``limit`` bytes.

    Raises:
        SetupError: it cannot be read or is larger.
    """
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        raise SetupError(
            f"cannot read {path}: {error.strerror}", hint="check the name of the file"
        ) from error
    if len(data) > limit:
        raise SetupError(f"{path} is larger than {limit} bytes", hint="give the right file")
    return data


def _malformed(what: str) -> ImageError:
    return ImageError(what, hint="get the image again, or build and sign it anew")


def _tlvs(
    data: bytes, start: int, magic: int, expected: int | None
) -> tuple[dict[int, bytes], int]:
    """The TLVs of the area at ``start`` and where it ends; ``expected``: its size, if known."""
    if expected == 0:
        return {}, start
    if start + _TLV.size > len(data):
        raise _malformed(
            f"the image is truncated: {len(data)} bytes, its TLVs would begin at {start}"
        )
    found, size = _TLV.unpack_from(data, start)
    if found != magic:
        raise _malformed(f"no TLVs where they must be: 0x{found:04x} instead of 0x{magic:04x}")
    if size < _TLV.size or (expected is not None and size != expected):
        raise _malformed(f"the TLVs of the image have a wrong size: {size} bytes")
    end = start + size
    if end > len(data):
        raise _malformed(f"the image is truncated: {len(data)} of {end} bytes")
    values: dict[int, bytes] = {}
    at = start + _TLV.size
    while at < end:
        if at + _TLV.size > end:
            raise _malformed("a TLV of the image is cut off")
        kind, length = _TLV.unpack_from(data, at)
        at += _TLV.size
        if at + length > end:
            raise _malformed(f"TLV 0x{kind:04x} of the image is longer than what is left")
        if kind in values:
            raise _malformed(f"the image has TLV 0x{kind:04x} twice")
        if length != _FIXED_SIZES.get(kind, length):
            raise _malformed(f"TLV 0x{kind:04x} of the image has {length} bytes")
        values[kind] = bytes(data[at : at + length])
        at += length
    return values, end


def _required(tlvs: dict[int, bytes], kind: int, what: str) -> bytes:
    if kind not in tlvs:
        raise ImageError(
            f"the image has no {what}", hint="sign it with `unbrick image sign`, which adds it"
        )
    return tlvs[kind]


def _text(tlvs: dict[int, bytes], kind: int, what: str) -> str:
    raw = _required(tlvs, kind, what)
    text = raw.decode("latin-1")
    if not is_text(text):
        raise _malformed(f"the {what} of the image is not a text of 1 to {TEXT_LIMIT} characters")
    return text
