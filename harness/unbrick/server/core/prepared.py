"""What is prepared for a pair of images (row B2), and how the program that prepares it says so."""

from __future__ import annotations

from dataclasses import dataclass

import cbor2

from unbrick.server.records.analysis import Range, RangeKind


@dataclass(frozen=True)
class Prepared:
    """What is prepared for a pair; ``file`` is None when there can be none, ``text`` says why."""

    ranges: tuple[Range, ...]
    file: bytes | None
    text: str

    def encode(self) -> bytes:
        """As bytes for the server."""
        ranges = [[item.kind.value, item.offset, item.length] for item in self.ranges]
        return bytes(cbor2.dumps([ranges, self.file, self.text]))

    @classmethod
    def decode(cls, data: bytes) -> Prepared:
        """What ``encode`` made.

        Raises:
            ValueError: it is something else.
        """
        try:
            ranges, file, text = cbor2.loads(data)
            found = tuple(Range(RangeKind(kind), int(at), int(size)) for kind, at, size in ranges)
            return cls(found, None if file is None else bytes(file), str(text))
        except (cbor2.CBORDecodeError, TypeError) as error:
            raise ValueError("what was prepared is malformed") from error
