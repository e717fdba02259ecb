"""The terminal's console as tests use it."""

from __future__ import annotations

from unbrick.bench.console import Console


class PieceByPiece:
    """A line on which every byte comes alone."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def write(self, data: bytes) -> None:
        raise AssertionError(data)

    def read(self) -> bytes:
        first, self.data = self.data[:1], self.data[1:]
        return first


def test_a_character_may_come_in_pieces() -> None:
    line = PieceByPiece("José € \U0001f600".encode() + b"\xff!")
    console = Console(line, lambda *_: True)
    while line.data:
        console.step(0.0)
    assert console.text == "José € \U0001f600�!"
