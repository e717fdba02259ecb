"""The maps of a call to the customer center (docs/protocol.md, row B4)."""

from __future__ import annotations

from dataclasses import dataclass

from unbrick.errors import LinkError
from unbrick.wire.maps import Map, encode_map
from unbrick.wire.messages import MAX_TEXT, read_serial

KEYS = "0123456789*#"


@dataclass(frozen=True)
class Call:
    """A terminal's user calls; ``number`` counts up from the terminal's last start."""

    serial: str
    number: int

    def encode(self) -> bytes:
        """The payload of ``POST /call``.

        Raises:
            LinkError: it does not fit.
        """
        return encode_map(self.serial, self.number)

    @classmethod
    def decode(cls, payload: bytes) -> Call:
        """Read a payload.

        Raises:
            LinkError: it is no call.
        """
        values = Map(payload)
        return cls(read_serial(values, 1), values.uint(2))


@dataclass(frozen=True)
class HangUp(Call):
    """A terminal's user has hung up."""


@dataclass(frozen=True)
class Key:
    """A key that was pressed in a call, after ``count`` others."""

    serial: str
    number: int
    count: int
    key: str

    def encode(self) -> bytes:
        """The payload of ``POST /key``.

        Raises:
            LinkError: it does not fit.
        """
        return encode_map(self.serial, self.number, self.count, self.key)

    @classmethod
    def decode(cls, payload: bytes) -> Key:
        """Read a payload.

        Raises:
            LinkError: it is no key.
        """
        values = Map(payload)
        key = values.text(4, 1)
        if len(key) != 1 or key not in KEYS:
            raise LinkError(f"key 4 must be one of {KEYS}")
        return cls(read_serial(values, 1), values.uint(2), values.uint(3), key)


@dataclass(frozen=True)
class Say:
    """A text of the center in a call, after ``count`` others. ``last``: the call ends with it."""

    number: int
    count: int
    text: str
    last: bool = False

    def encode(self) -> bytes:
        """The payload of ``POST /say``.

        Raises:
            LinkError: the text is too long, empty, or not printable.
        """
        if not 0 < len(self.text.encode()) <= MAX_TEXT or not self.text.isprintable():
            raise LinkError(
                f"what is said in a call is 1 to {MAX_TEXT} bytes of one line",
                hint="shorten it, or say it in several texts",
            )
        return encode_map(self.number, self.count, self.text, int(self.last))

    @classmethod
    def decode(cls, payload: bytes) -> Say:
        """Read a payload.

        Raises:
            LinkError: nothing is said.
        """
        values = Map(payload)
        text = values.text(3, MAX_TEXT)
        return cls(values.uint(1), values.uint(2), text, bool(values.uint(4, 1)))
