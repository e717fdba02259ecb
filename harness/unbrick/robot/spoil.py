"""Images that must not run, made from a good one."""

from __future__ import annotations

import struct
import tempfile
from enum import Enum, auto
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from unbrick.errors import BuildError
from unbrick.image.sign import sign
from unbrick.layout import reference_layout

if TYPE_CHECKING:
    from unbrick.firmware.signed import Releases

_SIGNATURE_SIZE = 64
_SIZES = struct.Struct("<HHI")  # of header, protected TLVs and body, at offset 8


class Spoiled(Enum):
    """How an image is spoiled."""

    not_at_all = auto()
    corrupted = auto()
    truncated = auto()
    not_an_image = auto()
    signature_wrong = auto()
    signed_by_another = auto()
    for_other_hardware = auto()
    too_large = auto()
    older_than_it_says = auto()


def spoil(releases: Releases, version: str, how: Spoiled) -> bytes:
    """A release, spoiled.

    ``older_than_it_says`` is the release itself: only what the server believes of it is wrong.
    """
    good = releases.signed[version]
    if how is Spoiled.corrupted:
        header, _, body = _SIZES.unpack_from(good, 8)
        return _flipped(good, header + body // 2)
    if how is Spoiled.truncated:
        return good[: -_SIGNATURE_SIZE - 6]
    if how is Spoiled.not_an_image:
        return b"\x5a" * len(good)
    if how is Spoiled.signature_wrong:
        return _flipped(good, len(good) - _SIGNATURE_SIZE // 2)
    if how is Spoiled.signed_by_another:
        return _signed_by_another(releases, version)
    if how is Spoiled.for_other_hardware:
        return _signed(releases, version, "toaster-9000", releases.key)
    if how is Spoiled.too_large:
        return good.ljust(reference_layout().partition("application").size + 1024, b"\xff")
    return good


def _flipped(image: bytes, at: int) -> bytes:
    return image[:at] + bytes([image[at] ^ 4]) + image[at + 1 :]


def _signed(releases: Releases, version: str, hardware_id: str, key: Path) -> bytes:
    program = releases.firmware.applications[version]
    release = program.release
    if release is None:
        raise BuildError(f"{program.name} was built without a release", hint="build it again")
    return sign(
        program.binary.read_bytes(),
        name=release.name,
        version=release.version,
        build_time=release.build_time,
        hardware_id=hardware_id,
        security_counter=release.security_counter,
        key=key,
    )


def _signed_by_another(releases: Releases, version: str) -> bytes:
    """Signed with a key that no terminal trusts."""
    key = Ed25519PrivateKey.from_private_bytes(b"\x07" * 32)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "another.pem"
        path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        return _signed(releases, version, reference_layout().hardware_id, path)
