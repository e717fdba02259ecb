"""Making, reading and applying a differential file."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class DeltaHeader:
    """What a differential file says about itself.

    Attributes:
        base_length: bytes of the installed image that it was made against.
        length: bytes of the new image.
        memory: bytes of working memory that the terminal needs besides file and new image.
        base_digest: SHA-256 of the installed image, all of it (32 bytes).
        digest: SHA-256 of the new image, all of it (32 bytes).
    """

    base_length: int
    length: int
    memory: int
    base_digest: bytes
    digest: bytes


def encode(old: bytes, new: bytes, *, base_address: int | None = None) -> bytes:
    """Make the differential file that turns ``old`` into ``new``; the same input, the same file.

    Args:
        old: the installed image, as it lies in the NOR: with header and TLVs.
        new: the wanted image.
        base_address: where both lie when they run; found from their contents when not given.

    Raises:
        DeltaError: an image is empty or larger than the format allows.
    """
    raise NotImplementedError


def read_header(file: bytes) -> DeltaHeader:
    """Read and check the header of a differential file.

    Raises:
        DeltaError: it is no differential file, or its header is malformed.
    """
    raise NotImplementedError


def decode(old: bytes, file: bytes) -> bytes:
    """Rebuild the new image; the reference for the terminal's decoder.

    Raises:
        DeltaError: the file is for another image, malformed, or gives another image than it says.
    """
    raise NotImplementedError
