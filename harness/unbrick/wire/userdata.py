"""The user's data as a terminal seals it (docs/firmware.md, *The user's data*; row B6).

The server can never open it: it has no terminal's key. A bench has one, and uses this module to
look into a backup, and to make one.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from collections.abc import Sequence
from typing import NamedTuple

import cbor2
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from unbrick.errors import LinkError

MAGIC = b"UNBRKUD1"
VERSION = 1
"""Of the contents."""

TAG_SIZE = 16

_NONCE_SIZE = 12
_HEAD_SIZE = len(MAGIC) + _NONCE_SIZE
_ASSOCIATED = struct.Struct("<8sI32s")
_MAX_ID = 0xFFFF
_PARTS = 3


class PhonebookEntry(NamedTuple):
    """An entry of the phonebook."""

    id: int
    name: str
    number: str


def seal_backup(
    entries: Sequence[PhonebookEntry], key: bytes, serial: str, update_id: int
) -> bytes:
    """The backup of these entries for an update, to the bit as a terminal makes it."""
    return seal(cbor2.dumps([VERSION, [list(entry) for entry in entries]]), key, serial, update_id)


def seal(data: bytes, key: bytes, serial: str, update_id: int) -> bytes:
    """Seal any bytes as a terminal does."""
    associated = _associated(serial, update_id)
    nonce = _derived(_derived(key, b"unbrick user data nonce"), associated + data)[:_NONCE_SIZE]
    return MAGIC + nonce + _cipher(key).encrypt(nonce, data, associated)


def open_backup(sealed: bytes, key: bytes, serial: str, update_id: int) -> list[PhonebookEntry]:
    """The entries in a backup, oldest first.

    Args:
        sealed: the backup as the terminal made it.
        key: the terminal's own.
        serial: the terminal's.
        update_id: the update that the backup was made for.

    Raises:
        LinkError: it was not sealed with that key, for that terminal and update, or was changed,
            or holds something else than entries.
    """
    if len(sealed) < _HEAD_SIZE + TAG_SIZE or not sealed.startswith(MAGIC):
        raise LinkError("not a sealed backup")
    nonce, body = sealed[len(MAGIC) : _HEAD_SIZE], sealed[_HEAD_SIZE:]
    try:
        data = _cipher(key).decrypt(nonce, body, _associated(serial, update_id))
    except InvalidTag:
        raise LinkError("the backup does not open with this key, serial and update") from None
    try:
        version, entries = cbor2.loads(data)
        opened = [PhonebookEntry(*entry) for entry in entries]
    except (cbor2.CBORError, ValueError, TypeError) as error:
        raise LinkError("the backup holds no phonebook") from error
    if version != VERSION or not all(map(_is_entry, opened)):
        raise LinkError("the backup holds no phonebook")
    return opened


def _is_entry(entry: PhonebookEntry) -> bool:
    return (
        type(entry.id) is int
        and 1 <= entry.id <= _MAX_ID
        and isinstance(entry.name, str)
        and isinstance(entry.number, str)
    )


def _associated(serial: str, update_id: int) -> bytes:
    return _ASSOCIATED.pack(MAGIC, update_id, serial.encode())


def _derived(key: bytes, data: bytes) -> bytes:
    return hmac.digest(key, data, hashlib.sha256)


def _cipher(key: bytes) -> ChaCha20Poly1305:
    return ChaCha20Poly1305(_derived(key, b"unbrick user data sealing"))
