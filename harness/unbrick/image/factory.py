"""What the factory programs into a NOR, and what is in one."""

from __future__ import annotations

import hashlib
import hmac
import io
import struct
import zlib
from dataclasses import dataclass, field

import cbor2

from unbrick.errors import ImageError
from unbrick.image.examine import TEXT_LIMIT, is_text
from unbrick.layout import reference_layout

BLANK = 0xFF

_LINK_LABEL = b"unbrick link"
"""What the link key of a terminal is derived with."""

_MAGIC = b"UNBRKID1"
_HEADER = struct.Struct("<8sII")
_CBOR_LIMIT = 256
_KEY_SERIAL = 1
_KEY_HARDWARE_ID = 2
_KEY_KEY = 3

KEY_SIZE = 32
"""Bytes of a terminal's own key."""


@dataclass(frozen=True)
class Identity:
    """Who a terminal is, from its identity partition.

    Attributes:
        serial: its number.
        hardware_id: what it is.
        key: its own, ``KEY_SIZE`` bytes, which nobody else has and the user's data is sealed with;
            empty on a terminal from before there was one.
    """

    serial: str
    hardware_id: str
    key: bytes = field(default=b"", repr=False)


@dataclass(frozen=True)
class NorBlock:
    """One erase block of the NOR.

    Attributes:
        offset: from the start of the NOR.
        size: bytes.
        partition: its name, ``spare`` for none.
        used: bytes up to the last one that is not blank; 0 when the block is blank.
        digest: SHA-256 of the block, hexadecimal; empty when it is blank.
    """

    offset: int
    size: int
    partition: str
    used: int
    digest: str


def make_factory_image(
    boot: bytes,
    application: bytes | None,
    serial: str,
    *,
    hardware_id: str | None = None,
    key: bytes = b"",
) -> bytes:
    """A NOR as a terminal leaves the factory: boot, identity and perhaps an application.

    Args:
        boot: the flat binary of the bootloader.
        application: a signed image, or None: the terminal starts in the restoration state.
        serial: the serial number, 1 to 31 characters of printable ASCII.
        hardware_id: the hardware that the terminal says it is; by default that of our layout.
        key: the terminal's own, ``KEY_SIZE`` bytes from ``secrets``, or ``derive_bench_key`` where
            every run is to be the same; without one the user's data cannot be backed up.

    Returns:
        All bytes of the NOR that engines keep.

    Raises:
        ImageError: something does not fit in its partition, or a text is not as it must be.
    """
    layout = reference_layout()
    nor = bytearray([BLANK]) * layout.board.nor.modelled
    parts = {
        "boot": boot,
        "identity": _identity(Identity(serial, hardware_id or layout.hardware_id, key)),
        "application": application or b"",
    }
    for name, data in parts.items():
        part = layout.partition(name)
        if len(data) > part.size:
            raise ImageError(
                f"{name} is too large for its partition: {len(data)} of {part.size} bytes",
                hint="make it smaller",
            )
        nor[part.offset : part.offset + len(data)] = data
    return bytes(nor)


def derive_bench_key(serial: str) -> bytes:
    """The key of a terminal on a bench. It protects nothing: anybody can compute it."""
    return hashlib.sha256(f"unbrick bench key of {serial}".encode()).digest()


def derive_link_key(key: bytes) -> bytes:
    """What a terminal and the server share (OSCORE's Master Secret), of the terminal's own key.

    The server cannot get that key from it, so it cannot open what the terminal has sealed.
    """
    return hmac.digest(key, _LINK_LABEL, hashlib.sha256)


def read_identity(nor: bytes) -> Identity:
    """The identity partition of a NOR image.

    Raises:
        ImageError: there is none, or it is damaged.
    """
    part = reference_layout().partition("identity")
    area = nor[part.offset : part.end]
    hint = "make a new NOR image: `unbrick image factory`"
    if len(area) < _HEADER.size or not area.startswith(_MAGIC):
        raise ImageError("the NOR has no identity", hint=hint)
    _, length, crc = _HEADER.unpack_from(area)
    raw = area[_HEADER.size : _HEADER.size + length]
    if length > _CBOR_LIMIT or len(raw) != length or zlib.crc32(raw) != crc:
        raise ImageError("the identity in the NOR is damaged", hint=hint)
    try:
        stream = io.BytesIO(raw)
        values = cbor2.load(stream)
        serial, hardware = values[_KEY_SERIAL], values[_KEY_HARDWARE_ID]
        key = values.get(_KEY_KEY)
    except (
        *(cbor2.CBORDecodeError, LookupError, TypeError, ValueError),
        *(AttributeError, RecursionError),
    ):
        raise ImageError("the identity in the NOR is malformed", hint=hint) from None
    known = is_text(serial) and is_text(hardware) and (key is None or _is_key(key))
    if stream.tell() != length or not known:
        raise ImageError("the identity in the NOR is malformed", hint=hint)
    return Identity(serial, hardware, key or b"")


def list_nor_map(nor: bytes) -> list[NorBlock]:
    """What is in each erase block of a NOR image."""
    layout, blocks = reference_layout(), []
    size = layout.board.nor.block_size
    for offset in range(0, len(nor), size):
        data = nor[offset : offset + size]
        used = len(data.rstrip(bytes([BLANK])))
        name = next(
            (part.name for part in layout.partitions if part.offset <= offset < part.end), "spare"
        )
        digest = hashlib.sha256(data).hexdigest() if used else ""
        blocks.append(NorBlock(offset, len(data), name, used, digest))
    return blocks


def _is_key(value: object) -> bool:
    return isinstance(value, bytes) and len(value) == KEY_SIZE


def _identity(identity: Identity) -> bytes:
    texts = (("serial number", identity.serial), ("hardware id", identity.hardware_id))
    for what, text in texts:
        if not is_text(text):
            raise ImageError(
                f"the {what} is not a text of 1 to {TEXT_LIMIT} characters: {text!r}",
                hint="choose a shorter one, in printable ASCII",
            )
    if identity.key and not _is_key(identity.key):
        raise ImageError(
            f"the key of the terminal has {len(identity.key)} bytes, not {KEY_SIZE}",
            hint="take `secrets.token_bytes`",
        )
    values: dict[int, str | bytes] = {
        _KEY_SERIAL: identity.serial,
        _KEY_HARDWARE_ID: identity.hardware_id,
    }
    if identity.key:
        values[_KEY_KEY] = identity.key
    raw = cbor2.dumps(values)
    return _HEADER.pack(_MAGIC, len(raw), zlib.crc32(raw)) + raw
