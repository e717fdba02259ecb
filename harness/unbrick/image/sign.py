"""Signing: from the binary of a program to an image that the terminal accepts.

imgtool 2.5.0 does the work (header, hash, Ed25519), so that its images and ours are the same.
"""

from __future__ import annotations

import contextlib
import io
import tempfile
from pathlib import Path

from imgtool import keys
from imgtool.image import Image
from imgtool.version import decode_version

from unbrick.errors import ImageError, SetupError
from unbrick.image.examine import TEXT_LIMIT, is_text
from unbrick.image.format import inspect, load_public_key
from unbrick.image.mcuboot import (
    TLV_BUILD_TIME,
    TLV_DELTA_VERSION,
    TLV_HARDWARE_ID,
    TLV_NAME,
    TLV_USERDATA_FORMAT,
)
from unbrick.layout import reference_layout

_VERSION_LIMITS = (0xFF, 0xFF, 0xFFFF, 0xFFFF_FFFF)


def sign(
    binary: bytes,
    *,
    name: str,
    version: str,
    build_time: str,
    hardware_id: str,
    security_counter: int,
    key: Path,
    userdata_format: int = 1,
    delta_version: int = 1,
) -> bytes:
    """Make a signed image. The same arguments always give the same bytes.

    Args:
        binary: the program, linked to lie right after the header.
        name: of the software; as all texts here 1 to 31 characters of printable ASCII.
        version: ``1.2.3`` or ``1.2.3+4``.
        build_time: ISO 8601, UTC.
        hardware_id: the hardware it is for.
        security_counter: 0 to 2**32 - 1.
        key: PEM file with the private Ed25519 key.
        userdata_format: the format in which the software keeps the user's data, 1 to 2**32 - 1.
        delta_version: the newest format version of differential files that the software reads,
            1 to 2**32 - 1.

    Raises:
        ImageError: an argument has no place in an image.
        SetupError: the key cannot be used.
    """
    texts = {TLV_HARDWARE_ID: hardware_id, TLV_NAME: name, TLV_BUILD_TIME: build_time}
    for what, text in zip(("hardware id", "name", "build time"), texts.values(), strict=True):
        if not is_text(text):
            raise ImageError(
                f"the {what} is not a text of 1 to {TEXT_LIMIT} characters: {text!r}",
                hint="choose a shorter one, in printable ASCII",
            )
    if not 0 <= security_counter < 2**32:
        raise ImageError(
            f"the security counter {security_counter} does not fit in 32 bits",
            hint="count from 0",
        )
    numbers = {TLV_USERDATA_FORMAT: userdata_format, TLV_DELTA_VERSION: delta_version}
    for what, number in zip(
        ("the format of the user's data", "the version of differential files"),
        numbers.values(),
        strict=True,
    ):
        if not 1 <= number < 2**32:
            raise ImageError(f"{what} {number} does not fit in 32 bits", hint="count from 1")
    custom = {kind: text.encode() for kind, text in texts.items()}
    for kind, number in numbers.items():
        if number != 1:
            custom[kind] = number.to_bytes(4, "little")
    layout = reference_layout()
    image = Image(
        version=_version(version),
        header_size=layout.image_header_size,
        pad_header=True,
        # Execution in place: the image is linked for this address and no other.
        rom_fixed=layout.board.nor.base + layout.partition("application").offset,
        security_counter=security_counter,
    )
    signer = _signing_key(key)
    # imgtool takes a file and reports on stdout.
    with (
        tempfile.TemporaryDirectory() as folder,
        contextlib.redirect_stdout(io.StringIO()),
    ):
        program = Path(folder) / "program.bin"
        program.write_bytes(binary)
        image.load(str(program))
        image.create(
            signer,
            "hash",
            None,
            custom_tlvs=custom,
        )
    signed = bytes(image.payload)
    inspect(signed)
    return signed


def _version(text: str) -> object:
    try:
        version = decode_version(text)
    except ValueError:
        version = None
    if version is None or any(
        number > limit for number, limit in zip(version, _VERSION_LIMITS, strict=True)
    ):
        raise ImageError(
            f"not a version of an image: {text!r}", hint="write it as 1.2.3 or 1.2.3+4"
        )
    return version


def _signing_key(path: Path) -> object:
    load_public_key(path)  # Clear errors for all that is no Ed25519 key.
    key = keys.load(str(path))
    if not isinstance(key, keys.Ed25519):
        raise SetupError(
            f"{path} holds only the public half of a key", hint="sign with the private key"
        )
    return key
