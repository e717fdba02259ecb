"""Writes a device tree blob: what a boot loader is told of its board.

The format is that of the Devicetree Specification, release 0.4, chapter 5.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence

Value = int | str | bytes | Sequence[int] | Sequence[str]
"""A property: numbers of 32 bits, texts, or bytes; an empty one is there, and no more."""

Tree = Mapping[str, "Value | Tree"]
"""A node: its properties and nodes by their names."""

MAGIC, VERSION, OLDEST_VERSION = 0xD00D_FEED, 17, 16
HEADER_SIZE, RESERVATIONS_SIZE = 40, 16
BEGIN_NODE, END_NODE, PROPERTY, END = 1, 2, 3, 9


def _pad(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


def _pack(value: Value) -> bytes:
    if isinstance(value, bytes):
        return value
    parts = [value] if isinstance(value, int | str) else value
    return b"".join(
        struct.pack(">I", part) if isinstance(part, int) else part.encode() + b"\0"
        for part in parts
    )


class _Strings:
    """The names of properties, each once."""

    def __init__(self) -> None:
        self.data = b""
        self._places: dict[str, int] = {}

    def place(self, name: str) -> int:
        if name not in self._places:
            self._places[name] = len(self.data)
            self.data += name.encode() + b"\0"
        return self._places[name]


def _pack_node(name: str, tree: Tree, strings: _Strings) -> bytes:
    packed = struct.pack(">I", BEGIN_NODE) + _pad(name.encode() + b"\0")
    for key, value in tree.items():  # properties come before nodes
        if not isinstance(value, Mapping):
            data = _pack(value)
            packed += struct.pack(">3I", PROPERTY, len(data), strings.place(key)) + _pad(data)
    for key, value in tree.items():
        if isinstance(value, Mapping):
            packed += _pack_node(key, value, strings)
    return packed + struct.pack(">I", END_NODE)


def write_tree(tree: Tree) -> bytes:
    """The blob of a tree, whose root has no name."""
    strings = _Strings()
    nodes = _pack_node("", tree, strings) + struct.pack(">I", END)
    start = HEADER_SIZE + RESERVATIONS_SIZE
    names = start + len(nodes)
    header = (
        *(MAGIC, names + len(strings.data), start, names, HEADER_SIZE),
        *(VERSION, OLDEST_VERSION, 0, len(strings.data), len(nodes)),
    )
    return struct.pack(">10I", *header) + bytes(RESERVATIONS_SIZE) + nodes + strings.data
