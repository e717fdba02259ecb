"""The maps of a call to the customer center (docs/protocol.md, row B4)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

from unbrick.errors import LinkError
from unbrick.wire.maps import Map, Message, Uint
from unbrick.wire.messages import MAX_TEXT, Serial, Words, check_text

KEYS = "0123456789*#"


def _read_key(values: Map, key: int) -> str:
    pressed = values.text(key, 1)
    if len(pressed) != 1 or pressed not in KEYS:
        raise LinkError(f"key {key} must be one of {KEYS}")
    return pressed


def _read_last(values: Map, key: int) -> bool:
    return bool(values.uint(key, 1))


@dataclass(frozen=True)
class CallRequest(Message):
    """A terminal's user calls: ``POST /call``; ``number`` counts up from its last start."""

    serial: Serial
    number: Uint


@dataclass(frozen=True)
class HangUp(CallRequest):
    """A terminal's user has hung up: ``POST /hang-up``."""


@dataclass(frozen=True)
class Key(Message):
    """A key that was pressed in a call, after ``count`` others: ``POST /key``."""

    serial: Serial
    number: Uint
    count: Uint
    key: Annotated[str, _read_key]


@dataclass(frozen=True)
class SayRequest(Message):
    """A text of the center in a call, after ``count`` others: ``POST /say``.

    ``last``: the call ends with it.
    """

    number: Uint
    count: Uint
    text: Words
    last: Annotated[bool, _read_last] = False

    def _values(self) -> Iterator[int | str | bytes]:
        check_text(
            self.text,
            f"what is said in a call is 1 to {MAX_TEXT} bytes of one line",
            "shorten it, or say it in several texts",
        )
        return super()._values()
