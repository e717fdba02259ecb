"""The CBOR maps that every message is: unsigned keys, definite lengths, bounded.

Sizes are in bytes. Decoding is strict: no tags, no duplicates, no text that is not printable (it
ends up on people's screens). Keys that nobody asks for are passed over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import cbor2

from unbrick.errors import LinkError

if TYPE_CHECKING:
    from typing_extensions import Self

MAX_PAYLOAD_SIZE = 1024
DIGEST_SIZE = 32

_MAX_UINT = 0xFFFF_FFFF
_MAX_DEPTH = 4


def _skip(data: bytes, at: int, depth: int) -> int:
    """The offset after the CBOR item at ``at``. Items that the protocol lacks are refused."""
    if depth > _MAX_DEPTH:
        raise LinkError("CBOR is nested too deeply")
    if at >= len(data):
        raise LinkError("CBOR ends early")
    major, info = data[at] >> 5, data[at] & 0x1F
    at += 1
    value = info
    if info >= 24:
        if info > 27:
            raise LinkError("CBOR of indefinite length")
        size = 1 << (info - 24)
        value = int.from_bytes(data[at : at + size], "big")
        at += size
        if at > len(data):
            raise LinkError("CBOR ends early")
    if major in (2, 3):
        at += value
        if at > len(data):
            raise LinkError("CBOR ends early")
    elif major in (4, 5):
        for _ in range(value * (major - 3)):
            at = _skip(data, at, depth + 1)
    elif major == 6:
        raise LinkError("CBOR with a tag")
    elif major == 7 and info not in (20, 21, 22):
        raise LinkError("CBOR with a value that is no number, text, bytes or truth")
    return at


class Map:
    """A decoded map, read key by key. Every method raises LinkError when it is not as it must be.

    Raises:
        LinkError: the payload is no such map.
    """

    def __init__(self, payload: bytes) -> None:
        if len(payload) > MAX_PAYLOAD_SIZE:
            raise LinkError(
                f"payload of {len(payload)} bytes, at most {MAX_PAYLOAD_SIZE} are taken"
            )
        if not payload or payload[0] >> 5 != 5:
            raise LinkError("payload is no CBOR map")
        if _skip(payload, 0, 0) != len(payload):
            raise LinkError("bytes after the CBOR map")
        # The head of the map has just been checked: the count is in it, or in the bytes after it.
        info = payload[0] & 0x1F
        width = 1 << (info - 24) if info >= 24 else 0
        count = int.from_bytes(payload[1 : 1 + width], "big") if width else info
        try:
            values = cbor2.loads(payload)
        except (cbor2.CBORError, ValueError, TypeError, RecursionError) as error:
            raise LinkError("payload is not well-formed CBOR") from error
        if not isinstance(values, dict) or len(values) != count:
            raise LinkError("a key of the map occurs twice")
        if not all(type(key) is int and key >= 0 for key in values):
            raise LinkError("a key of the map is no unsigned number")
        self._values: dict[int, Any] = values

    def text(self, key: int, limit: int) -> str:
        """A printable text of at most ``limit`` bytes."""
        value = self._values.get(key)
        if not isinstance(value, str) or len(value.encode()) > limit:
            raise LinkError(f"key {key} must be a text of at most {limit} bytes")
        if not value.isprintable():
            raise LinkError(f"key {key} must be printable text")
        return value

    def uint(self, key: int, limit: int = _MAX_UINT) -> int:
        """A number from 0 to ``limit``."""
        value = self._values.get(key)
        if type(value) is not int or not 0 <= value <= limit:
            raise LinkError(f"key {key} must be a number from 0 to {limit}")
        return value

    def digest(self, key: int) -> bytes:
        """A SHA-256."""
        value = self._values.get(key)
        if not isinstance(value, bytes) or len(value) != DIGEST_SIZE:
            raise LinkError(f"key {key} must be {DIGEST_SIZE} bytes")
        return value

    def data(self, key: int, least: int, limit: int) -> bytes:
        """``least`` to ``limit`` bytes."""
        value = self._values.get(key)
        if not isinstance(value, bytes) or not least <= len(value) <= limit:
            raise LinkError(f"key {key} must be {least} to {limit} bytes")
        return value


Uint = Annotated[int, Map.uint]
Digest = Annotated[bytes, Map.digest]


def encode_map(values: Iterable[int | str | bytes]) -> bytes:
    """A map with keys from 1.

    Raises:
        LinkError: it does not fit.
    """
    payload = cbor2.dumps(dict(enumerate(values, start=1)))
    if len(payload) > MAX_PAYLOAD_SIZE:
        raise LinkError(f"payload of {len(payload)} bytes, at most {MAX_PAYLOAD_SIZE} are taken")
    return bytes(payload)


@cache
def _readers(kind: type[Any]) -> list[tuple[str, Callable[[Map, int], Any]]]:
    hints = get_type_hints(kind, include_extras=True)
    return [(field.name, hints[field.name].__metadata__[0]) for field in fields(kind)]


class Message:
    """A dataclass whose fields are the values of a map, in their order, at the keys from 1.

    What each is annotated with reads it from the map.
    """

    def encode(self) -> bytes:
        """The payload.

        Raises:
            LinkError: it does not fit, or the other side would not take it.
        """
        return encode_map(self._values())

    def _values(self) -> Iterator[int | str | bytes]:
        for name, _ in self._readers():
            value = getattr(self, name)
            yield int(value) if isinstance(value, int) else value

    @classmethod
    def decode(cls, payload: bytes) -> Self:
        """Read a payload.

        Raises:
            LinkError: it is no such message.
        """
        return cls._read(Map(payload))

    @classmethod
    def _readers(cls) -> list[tuple[str, Callable[[Map, int], Any]]]:
        return _readers(cls)  # type: ignore[arg-type]  # No class is Hashable to mypy.

    @classmethod
    def _read(cls, values: Map) -> Self:
        read = enumerate(cls._readers(), start=1)
        return cls(**{name: reader(values, key) for key, (name, reader) in read})
