"""The program that prepares a pair of images: both on its standard input, the rest on its output.

It takes seconds of CPU time, so the server runs it beside itself. It touches nothing else, so it
may be killed at any time.
"""

from __future__ import annotations

import os
import struct
import sys

from unbrick.errors import ImageError

REFUSED = 3
"""The exit code that says that this pair cannot be prepared, with the reason on standard error."""

CUT_SHORT = 2
"""The exit code when not all of the images came: who sent them was killed meanwhile."""

_SIZES = struct.Struct("<II")


def pack_input(old: bytes, new: bytes) -> bytes:
    """Both images, as the program reads them."""
    return _SIZES.pack(len(old), len(new)) + old + new


def main() -> int:
    """Prepare what is on the standard input; gives the exit code."""
    from unbrick.server.core.difference import prepare  # noqa: PLC0415 - the server needs none

    os.nice(10)  # What terminals wait for comes first.
    data = sys.stdin.buffer.read()
    if len(data) < _SIZES.size:
        return CUT_SHORT
    old_size, new_size = _SIZES.unpack_from(data)
    images = data[_SIZES.size :]
    if len(images) != old_size + new_size:
        return CUT_SHORT
    try:
        prepared = prepare(images[:old_size], images[old_size:])
    except ImageError as error:
        sys.stderr.write(f"{error}\n")
        return REFUSED
    sys.stdout.buffer.write(prepared.encode())
    sys.stdout.buffer.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
