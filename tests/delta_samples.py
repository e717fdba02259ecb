"""Images to make differential files of: code that looks like code, and edits of it."""

from __future__ import annotations

import random
import struct
from itertools import accumulate

BASE = 0x10000


def thumb(chance: random.Random, functions: int, *, shift: int = 0, edits: int = 0) -> bytes:
    """Thumb-2 functions that call each other and load addresses, in every form that the format
    knows; ``shift`` bytes before them and ``edits`` changed ones move what follows."""
    bodies = []
    for number in range(functions):
        body: list[object] = [0xB570]
        for _ in range(chance.randrange(4, 24)):
            form = chance.randrange(8)
            if form < 3:
                body.append(chance.choice([0x2000, 0x4600, 0x6800, 0x1C40]) + chance.randrange(64))
            elif form == 3:
                body.append(("call", chance.randrange(functions)))
            elif form == 4:
                body.append(("literal", chance.randrange(functions)))
            elif form == 5:
                body.append(("move", chance.randrange(functions)))
            elif form == 6:
                body.append(("wide", chance.randrange(functions)))
            else:
                body.append(0xD000 | chance.randrange(14) << 8 | chance.randrange(8))
        body.append(0xBD70)
        bodies.append((number, body))
    change = random.Random(edits)
    for _ in range(edits):
        _, body = bodies[change.randrange(functions)]
        body.insert(change.randrange(1, len(body)), 0x3000 + change.randrange(256))
    return _link([body for _, body in bodies], shift)


def _size(item: object) -> int:
    if isinstance(item, tuple):
        return 8 if item[0] == "move" else 2 if item[0] == "literal" else 4
    return 2


def _link(bodies: list[list[object]], shift: int) -> bytes:
    sizes = []
    for body in bodies:
        literals = sum(1 for item in body if isinstance(item, tuple) and item[0] == "literal")
        sizes.append((sum(map(_size, body)) + 3 & ~3) + 4 * literals)
    starts = [shift, *(shift + end for end in accumulate(sizes))]
    out = bytearray(b"\x5a" * shift)
    for body, start, size in zip(bodies, starts, sizes, strict=False):
        code, pool = bytearray(), bytearray()
        pool_start = start + (sum(map(_size, body)) + 3 & ~3)
        for item in body:
            at = start + len(code)
            if not isinstance(item, tuple):
                code += struct.pack("<H", item)
                continue
            form, target = item[0], starts[item[1]]
            if form == "literal":
                units = (pool_start + len(pool) - (at + 4 & ~3)) // 4
                code += struct.pack("<H", 0x4800 | units & 0xFF)
                pool += struct.pack("<I", BASE + target | 1)
            elif form == "move":
                for top, half in ((0, BASE + target & 0xFFFF), (0x80, BASE + target >> 16)):
                    code += struct.pack(
                        "<HH",
                        0xF240 | top | half >> 12 | (half >> 11 & 1) << 10,
                        (half >> 8 & 7) << 12 | half & 0xFF,
                    )
            else:
                offset = target - at - 4
                s = offset >> 24 & 1
                j1, j2 = 1 ^ offset >> 23 & 1 ^ s, 1 ^ offset >> 22 & 1 ^ s
                second = 0xD000 if form == "call" else 0x9000
                code += struct.pack(
                    "<HH",
                    0xF000 | s << 10 | offset >> 12 & 0x3FF,
                    second | j1 << 13 | j2 << 11 | offset >> 1 & 0x7FF,
                )
        code += bytes(-len(code) % 4)
        out += code + pool
        assert len(out) == start + size
    return bytes(out)


def arm(chance: random.Random, functions: int, *, shift: int = 0) -> bytes:
    """ARM functions that call each other; ``shift`` words before them."""
    sizes = [chance.randrange(4, 20) for _ in range(functions)]
    starts = [shift, *(shift + end for end in accumulate(sizes))]
    words = [0xE1A00000] * shift
    for size in sizes:
        for _ in range(size - 1):
            target = starts[chance.randrange(functions)]
            call = 0xEB000000 | target - len(words) - 2 & 0xFFFFFF
            words.append(chance.choice([call, 0xE3A00000 + chance.randrange(4096), 0xE59F0004]))
        words.append(BASE + 4 * starts[chance.randrange(functions)])
    return struct.pack(f"<{len(words)}I", *words)
