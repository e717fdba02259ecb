"""MCUboot images: what is in one, and whether this terminal would run it.

An image is a header, a body, protected TLVs and TLVs (``docs/protocol.md``, *Images*).
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from unbrick.errors import ImageError, SetupError
from unbrick.image.examine import OUR_SIGNATURE, USE_OUR_KEY, Examination, examine
from unbrick.image.mcuboot import FLAG_ROM_FIXED
from unbrick.layout import reference_layout

if TYPE_CHECKING:
    from collections.abc import Iterator

    from unbrick.layout import Layout

MAX_FILE_SIZE = 16 * 1024 * 1024
"""Bytes of an image file that are read at most: far above any partition of any board."""

MAX_COUNTER = 2**32 - 1
"""The largest security counter; no image has one above it."""

STACK_ALIGNMENT_BYTES = 8
"""Bytes (Procedure Call Standard for the Arm Architecture, "Stack constraints")."""


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
        signature_algorithm: how it is signed, ``Ed25519`` or otherwise; empty when it is not.
        userdata_format: the format in which this software keeps the user's data; 1 when the image
            does not say.
        delta_version: the newest format version of differential files that this software reads; 1
            when the image does not say.
        dependencies: on other images, as text; terminals do not look at them.
        strange_tlvs: types of TLVs outside of the protected area that no terminal knows.
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
    signature_algorithm: str
    userdata_format: int
    delta_version: int
    dependencies: tuple[str, ...]
    strange_tlvs: tuple[int, ...]

    @property
    def signed(self) -> bool:
        """Whether a terminal can check the signature; ``verify`` says whether it is right."""
        return bool(self.signature and self.key_hash)


def inspect(data: bytes, *, trailing: bool = False) -> ImageInfo:
    """Check structure and hash of an image, and read what it says about itself.

    Args:
        data: the image.
        trailing: accept bytes after its end, as a partition of the NOR has them.

    Raises:
        ImageError: it is truncated, malformed or damaged; see ``examine`` for all that is wrong.
    """
    return read_info(examine(data, trailing=trailing))


def read_info(found: Examination) -> ImageInfo:
    """What was examined, as an image without problems.

    Raises:
        ImageError: the first problem.
    """
    if found.problems:
        raise found.problems[0]
    return ImageInfo(**{item.name: getattr(found, item.name) for item in fields(ImageInfo)})


def verify(data: bytes, public_key: Ed25519PublicKey, *, layout: Layout | None = None) -> ImageInfo:
    """Check everything about an image that can be checked without the terminal.

    Raises:
        ImageError: ``inspect`` or ``check_board`` refuses it, or it is not signed with that key.
    """
    info = inspect(data)
    check_board(info, layout)
    check_signature(info, public_key)
    return info


def check_signed(info: ImageInfo) -> None:
    """Check that the image has a signature that a terminal can check, by whatever key.

    Raises:
        ImageError: it has none.
    """
    if not info.signature_algorithm:
        raise ImageError(
            "the image is not signed, no terminal would take it",
            hint="sign it: `unbrick image sign --key KEY.pem`",
        )
    if info.signature_algorithm != OUR_SIGNATURE:
        raise ImageError(
            f"the image is signed by {info.signature_algorithm},"
            f" terminals check {OUR_SIGNATURE} alone",
            hint=USE_OUR_KEY,
        )
    if not info.key_hash:
        raise ImageError(
            "the image does not say the hash of the key that it is signed with",
            hint="sign it without --public-key-format full",
        )


def check_signature(info: ImageInfo, public_key: Ed25519PublicKey) -> None:
    """Check that the image was signed with the private key of ``public_key``.

    Raises:
        ImageError: there is no signature, it was made with another key, or it is wrong.
    """
    check_signed(info)
    expected = hash_key(public_key)
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


def check_board(info: ImageInfo, layout: Layout | None = None) -> None:
    """Check that the image is for this hardware, this address and this partition.

    Raises:
        ImageError: it is not.
    """
    for problem in _misfits(info, layout or reference_layout()):
        raise problem


def check_entry(data: bytes, layout: Layout | None = None) -> None:
    """Check that the program in an image is linked for where it will lie: its first word is a stack
    in the SRAM, its second the address of Thumb code in the body.

    Raises:
        ImageError: it is not.
    """
    for problem in _bad_start(data, inspect(data), layout or reference_layout()):
        raise problem


def list_refusals(data: bytes, info: ImageInfo, layout: Layout | None = None) -> list[ImageError]:
    """Why no terminal with this board would take an image, whoever signed it.

    Args:
        data: the image.
        info: of it.
        layout: the terminals'; by default ours.
    """
    layout = layout or reference_layout()
    found = [*_misfits(info, layout), *_bad_start(data, info, layout)]
    try:
        check_signed(info)
    except ImageError as error:
        found.append(error)
    else:
        found += [
            ImageError(
                f"the image has a TLV 0x{kind:04x} that its hash does not cover",
                hint="sign it with `unbrick image sign`",
            )
            for kind in info.strange_tlvs
        ]
    return found


def list_warnings(info: ImageInfo) -> list[str]:
    """What a person should know before a terminal gets an image that it would take."""
    found = []
    if info.security_counter == MAX_COUNTER:
        found.append(
            f"the security counter {MAX_COUNTER} is the last one: a terminal that has run this"
            " takes nothing with another counter any more"
        )
    found += [
        f"it depends on {other}, which neither the server nor a terminal checks"
        for other in info.dependencies
    ]
    return found


def _misfits(info: ImageInfo, layout: Layout) -> Iterator[ImageError]:
    """What of the header does not fit the board."""
    part = layout.partition("application")
    if info.hardware_id != layout.hardware_id:
        yield ImageError(
            f"the image is for other hardware: {info.hardware_id}, not {layout.hardware_id}",
            hint="build it for this terminal",
        )
    if info.header_size != layout.image_header_size:
        yield ImageError(
            f"the header of the image has {info.header_size} bytes, not {layout.image_header_size}",
            hint="sign it with `unbrick image sign`, or with --header-size"
            f" {layout.image_header_size:#x}",
        )
    start = layout.board.nor.base + part.offset
    fixed = info.flags & FLAG_ROM_FIXED or info.load_address
    if fixed and info.load_address != start:
        yield ImageError(
            f"the image must lie at 0x{info.load_address:08x}, not at 0x{start:08x}",
            hint="link and sign it for the application partition",
        )
    if info.size > part.size:
        yield ImageError(
            f"the image is too large for the partition: {info.size} of {part.size} bytes",
            hint="make the software smaller",
        )


def _bad_start(data: bytes, info: ImageInfo, layout: Layout) -> Iterator[ImageError]:
    """What of the first two words of the program keeps it from running."""
    stack, entry = struct.unpack_from("<II", data, info.header_size)
    body = layout.board.nor.base + layout.partition("application").offset + info.header_size
    sram = layout.board.sram
    if not sram.base < stack <= sram.end or stack % STACK_ALIGNMENT_BYTES:
        yield ImageError(
            f"the program is not for this board: its stack 0x{stack:08x} is not in the SRAM,"
            f" at a multiple of {STACK_ALIGNMENT_BYTES}",
            hint="sign a flat binary that begins with initial SP and entry address",
        )
    if not entry & 1 or not body <= entry < body + info.body_size:
        yield ImageError(
            f"the program is not linked for the application partition: its entry 0x{entry:08x} "
            f"is not Thumb code in 0x{body:08x} to 0x{body + info.body_size - 1:08x}",
            hint="link it to lie right after the header of the image",
        )


def hash_key(public_key: Ed25519PublicKey) -> bytes:
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


def read_bounded(path: Path, limit: int = MAX_FILE_SIZE) -> bytes:
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
