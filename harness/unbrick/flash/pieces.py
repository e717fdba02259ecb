"""Long bytes in pieces, most of which other ones have, too: thousands take little memory.

Sessions of a search end with the same operations. Their traces share the pieces of these.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

MOST_WHOLE = 8
"""So many are kept whole, of those that were asked for last."""


class Pieces:
    """Bytes in pieces.

    Args:
        pieces: of them, each of ``size`` bytes, but for the last one.
        size: see there; a single piece may be longer.
    """

    def __init__(self, pieces: Iterable[bytes], size: int) -> None:
        self._pieces, self._size = tuple(pieces), size

    @classmethod
    def of(cls, whole: bytes | Pieces, size: int) -> Pieces:
        """The pieces of bytes, if they are not yet in pieces."""
        if isinstance(whole, Pieces):
            return whole
        if len(whole) <= size:
            return cls((whole,), size)
        return cls((whole[at : at + size] for at in range(0, len(whole), size)), size)

    def __len__(self) -> int:
        return self._size * (len(self._pieces) - 1) + len(self._pieces[-1])

    def __reduce__(self) -> tuple[type[Pieces], tuple[tuple[bytes, ...], int]]:
        return Pieces, (self._pieces, self._size)

    def followed_by(self, other: Pieces) -> Pieces:
        """These bytes, and then those of another one from there on, in pieces of the same size."""
        count, rest = divmod(len(self), self._size)
        whole = self._pieces[:count]
        if not rest:
            return Pieces(whole + other._pieces[count:] or (b"",), self._size)
        seam = self._pieces[count] + b"".join(other._pieces[count : count + 1])[rest:]
        return Pieces((*whole, seam, *other._pieces[count + 1 :]), self._size)

    def share(self, known: dict[bytes, bytes]) -> None:
        """Have each piece be one of those that are known, which it joins if it is none of them."""
        self._pieces = tuple(known.setdefault(piece, piece) for piece in self._pieces)

    def find(self, at: int) -> tuple[bytes, int]:
        """The piece with a byte, and where in it that is."""
        number, place = divmod(at, self._size)
        return self._pieces[number], place

    def read(self, at: int, length: int) -> bytes:
        """So many bytes; less at the end."""
        number, place = divmod(at, self._size)
        found = self._pieces[number][place : place + length] if length else b""
        while len(found) < length and number + 1 < len(self._pieces):
            number += 1
            found += self._pieces[number][: length - len(found)]
        return found

    @property
    def whole(self) -> bytes:
        """All bytes."""
        return self._pieces[0] if len(self._pieces) == 1 else _join(self._pieces)


@lru_cache(maxsize=MOST_WHOLE)
def _join(pieces: tuple[bytes, ...]) -> bytes:
    return b"".join(pieces)
