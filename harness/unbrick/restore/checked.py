"""Checks of an image before any terminal is asked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from unbrick.errors import SetupError
from unbrick.folders import firmware_folder
from unbrick.image.format import (
    ImageInfo,
    check_board,
    check_entry,
    check_signature,
    check_signed,
    hash_key,
    inspect,
    load_public_key,
)
from unbrick.image.hexfile import read_image

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class CheckedImage:
    """A signed image for this board.

    Attributes:
        data: as it lies in the NOR.
        info: its own account of itself.
        verified: its signature was checked. Otherwise only the terminal can do that.
    """

    data: bytes
    info: ImageInfo
    verified: bool


def check_file(path: Path, key: Path | None = None) -> CheckedImage:
    """Read a signed image (Intel HEX or binary), and check it as far as possible here.

    Args:
        path: the file.
        key: PEM file with the key that boot trusts. Without it the signature is checked when it was
            made with the development key.

    Raises:
        ImageError: it is no image for this board, or not signed, or not with that key.
        SetupError: a file cannot be read.
    """
    data = read_image(path)
    info = inspect(data)
    check_board(info)
    check_entry(data)
    check_signed(info)
    public = None
    if key is not None:
        public = load_public_key(key)
    else:
        try:
            public = load_public_key(firmware_folder() / "keys" / "development.pem")
        except SetupError:  # This installation is without the firmware's sources.
            return CheckedImage(data, info, verified=False)
        if hash_key(public) != info.key_hash:
            return CheckedImage(data, info, verified=False)
    check_signature(info, public)
    return CheckedImage(data, info, verified=True)
