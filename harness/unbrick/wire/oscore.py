"""OSCORE (RFC 8613) between a terminal and the server: CoAP messages that nobody else can make.

A terminal and the server share a link key. A request names the terminal and bears a number, the
Partial IV, that was never used before. A reply is bound to its request. Everything of a message is
inside: code, options and payload. What is outside is a ``POST``, or a 2.04.

The cryptography is ``cryptography``'s: ChaCha20-Poly1305 and HKDF-SHA-256. The structures around it
are here. ``aiocoap.oscore`` keeps windows and Echo values in its own way, and takes three times as
long to protect a message. Tests compare the two.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from functools import cache, cached_property
from typing import NamedTuple

import aiocoap
import cbor2
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from unbrick.errors import LinkError
from unbrick.wire.codec import Options, decode_inner

CHACHA20_POLY1305 = 24
"""The number of the algorithm in COSE (RFC 9053 §4.3)."""

TAG_SIZE = 16
KEY_SIZE = 32
NONCE_SIZE = 12

SEQUENCE_LIMIT = 1 << 40
"""Partial IVs are below (RFC 8613 §7.2.1)."""

MESSAGE_BITS = 20
"""Low bits of a terminal's Partial IV: they count the messages since its start. The bits above
count its starts."""

MAX_MESSAGES = 1 << MESSAGE_BITS
"""Messages that a terminal protects in one start."""

WINDOW = 32
"""Partial IVs behind the highest one that may still come (RFC 8613 §7.4)."""

_LENGTH_BITS = 0x07
_HAS_KID = 0x08
_HAS_KID_CONTEXT = 0x10
_RESERVED = 0xE0
_MAX_PARTIAL_IV = 5
"""Bytes (RFC 8613 §6.1)."""


class Side(Enum):
    """A side of the link; the value is its Sender ID."""

    TERMINAL = b""
    SERVER = b"\x01"

    @property
    def other(self) -> Side:
        """The side that it speaks with."""
        return Side.SERVER if self is Side.TERMINAL else Side.TERMINAL


class Header(NamedTuple):
    """What a protected message says in the open: the option OSCORE (RFC 8613 §6.1).

    Attributes:
        partial_iv: its number as it is encoded; None: a reply that has the number of its request.
        kid: the Sender ID of who made it, if it says so.
        kid_context: the terminal's serial in UTF-8, if it says so.
    """

    partial_iv: bytes | None = None
    kid: bytes | None = None
    kid_context: bytes | None = None

    @property
    def sequence(self) -> int:
        """The number."""
        return int.from_bytes(self.partial_iv or b"", "big")

    def encode(self) -> bytes:
        """The value of the option."""
        number = self.partial_iv or b""
        flags, value = len(number), number
        if self.kid_context is not None:
            flags |= _HAS_KID_CONTEXT
            value += bytes((len(self.kid_context),)) + self.kid_context
        if self.kid is not None:
            flags |= _HAS_KID
            value += self.kid
        return bytes((flags,)) + value if flags else b""

    @classmethod
    def decode(cls, option: bytes) -> Header:
        """Read the option's value.

        Raises:
            LinkError: it is none that RFC 8613 knows.
        """
        if not option:
            return cls()
        flags, at = option[0], 1 + (option[0] & _LENGTH_BITS)
        number = option[1:at]
        if flags & _RESERVED or not flags or len(number) > _MAX_PARTIAL_IV or at > len(option):
            raise LinkError("malformed OSCORE option")
        kid = kid_context = None
        if flags & _HAS_KID_CONTEXT:
            if at == len(option) or at + 1 + option[at] > len(option):
                raise LinkError("malformed OSCORE option")
            kid_context = option[at + 1 : at + 1 + option[at]]
            at += 1 + option[at]
        if flags & _HAS_KID:
            kid = option[at:]
        elif at != len(option):
            raise LinkError("malformed OSCORE option")
        if number[:1] == b"\0" and len(number) > 1:
            raise LinkError("OSCORE partial IV with zeros before it")
        return cls(number or None, kid, kid_context)


@dataclass(frozen=True)
class Binding:
    """What binds replies to a request: who has made it, and its Partial IV."""

    kid: bytes
    partial_iv: bytes

    @cached_property
    def aad(self) -> bytes:
        """What is authenticated besides the request, and besides each of its replies."""
        return make_aad(self, algorithm=CHACHA20_POLY1305)


class Opened(NamedTuple):
    """A message as its maker meant it.

    Attributes:
        message: with its options and payload.
        options: as they were encoded.
        binding: of a request, or the one of the request that a reply belongs to.
        sequence: its own number; None: a reply without.
    """

    message: aiocoap.Message
    options: Options
    binding: Binding
    sequence: int | None


def derive(
    secret: bytes, sender: bytes, kind: str, size: int, context: bytes | None, *, algorithm: int
) -> bytes:
    """A key or the Common IV of RFC 8613 §3.2.1, for an empty Master Salt.

    Args:
        secret: the Master Secret.
        sender: the ID of who uses the key; empty for the IV.
        kind: ``Key`` or ``IV``.
        size: bytes.
        context: the ID Context, if there is one.
        algorithm: COSE's number of the AEAD algorithm.
    """
    info = cbor2.dumps([sender, context, algorithm, kind, size])
    return HKDF(SHA256(), size, salt=b"", info=info).derive(secret)


def make_nonce(common_iv: bytes, kid: bytes, partial_iv: bytes) -> bytes:
    """The nonce of a message (RFC 8613 §5.2); it is as long as the Common IV."""
    plain = (
        bytes((len(kid),))
        + kid.rjust(len(common_iv) - 1 - _MAX_PARTIAL_IV, b"\0")
        + partial_iv.rjust(_MAX_PARTIAL_IV, b"\0")
    )
    return (int.from_bytes(plain, "big") ^ int.from_bytes(common_iv, "big")).to_bytes(
        len(common_iv), "big"
    )


def make_aad(binding: Binding, *, algorithm: int) -> bytes:
    """What is authenticated besides a message (RFC 8613 §5.4): without class I options."""
    external = (
        *(_head_of_external(algorithm), _encode_bytes(binding.kid)),
        *(_encode_bytes(binding.partial_iv), _encode_bytes(b"")),
    )
    return _HEAD_OF_AAD + _encode_bytes(b"".join(external))


@cache
def _head_of_external(algorithm: int) -> bytes:
    """How the array of five begins, with the version and the algorithms."""
    return b"\x85" + cbor2.dumps(1) + cbor2.dumps([algorithm])


_HEAD_OF_AAD = b"\x83" + cbor2.dumps("Encrypt0") + cbor2.dumps(b"")


def _encode_bytes(data: bytes) -> bytes:
    """CBOR of less than 24 bytes, which all of these are."""
    return bytes((0x40 | len(data),)) + data


def flatten(message: aiocoap.Message) -> bytes:
    """What of a message is encrypted: its code, options and payload (RFC 8613 §5.3)."""
    options: bytes = message.opt.encode()
    return (
        bytes((message.code,)) + options + (b"\xff" + message.payload if message.payload else b"")
    )


def read_header(message: aiocoap.Message) -> Header | None:
    """What a message says in the open; None: it is not protected.

    Raises:
        LinkError: the option OSCORE is malformed.
    """
    option = message.opt.oscore
    return None if option is None else Header.decode(option)


class Context:
    """The link between one terminal and the server, as one side sees it (RFC 8613 §3).

    It numbers nothing and remembers nothing: who uses it must never give a number twice.

    Args:
        link_key: what both sides have, 32 bytes (``unbrick.image.factory.derive_link_key``).
        serial: of the terminal.
        side: which one.
    """

    def __init__(self, link_key: bytes, serial: str, side: Side) -> None:
        self._side = side
        self._id_context = serial.encode()
        keys = {
            one: derive(
                *(link_key, one.value, "Key", KEY_SIZE, self._id_context),
                algorithm=CHACHA20_POLY1305,
            )
            for one in Side
        }
        self._sealing = ChaCha20Poly1305(keys[side])
        self._opening = ChaCha20Poly1305(keys[side.other])
        self._common_iv = derive(
            *(link_key, b"", "IV", NONCE_SIZE, self._id_context), algorithm=CHACHA20_POLY1305
        )
        self._ahead: tuple[aiocoap.Message, Opened] | None = None

    def seal_request(
        self, message: aiocoap.Message, sequence: int
    ) -> tuple[aiocoap.Message, Binding]:
        """Protect a request of this side under a number; gives what binds its replies, too."""
        kid, number = self._side.value, _encode_sequence(sequence)
        context = self._id_context if self._side is Side.TERMINAL else None
        binding = Binding(kid, number)
        header = Header(number, kid, context)
        return self._seal(message, binding, kid, number, header), binding

    def seal_reply(
        self, message: aiocoap.Message, binding: Binding, sequence: int | None = None
    ) -> aiocoap.Message:
        """Protect the reply to a request.

        Without a number of its own a request can be replied to only once, in all times.
        """
        if sequence is None:
            return self._seal(message, binding, binding.kid, binding.partial_iv, Header())
        number = _encode_sequence(sequence)
        return self._seal(message, binding, self._side.value, number, Header(number))

    def open_ahead(self, message: aiocoap.Message) -> bool:
        """Read a request that ``open_request`` is going to be asked for; the last one is kept.

        Gives whether the other side has made it.
        """
        try:
            self._ahead = message, self.open_request(message)
        except LinkError:
            return False
        return True

    def open_request(self, message: aiocoap.Message) -> Opened:
        """Read a request of the other side.

        Raises:
            LinkError: the other side has not made it.
        """
        ahead, self._ahead = self._ahead, None
        if ahead is not None and ahead[0] is message:
            return ahead[1]
        header = read_header(message)
        kid = self._side.other.value
        if header is None or header.partial_iv is None or header.kid != kid:
            raise LinkError("no OSCORE request of the other side")
        self._check_context(header)
        binding = Binding(kid, header.partial_iv)
        opened = self._open(message, binding, kid, header.partial_iv, header.sequence)
        if not opened.message.code.is_request():
            raise LinkError("no request inside")
        return opened

    def open_reply(self, message: aiocoap.Message, binding: Binding) -> Opened:
        """Read the reply to a request of this side.

        Raises:
            LinkError: the other side has not made it for that request.
        """
        header = read_header(message)
        kid = self._side.other.value
        if header is None or header.kid not in (None, kid):
            raise LinkError("no OSCORE reply of the other side")
        self._check_context(header)
        if header.partial_iv is None:
            opened = self._open(message, binding, binding.kid, binding.partial_iv, None)
        else:
            opened = self._open(message, binding, kid, header.partial_iv, header.sequence)
        if not opened.message.code.is_response():
            raise LinkError("no response inside")
        return opened

    def _check_context(self, header: Header) -> None:
        if header.kid_context not in (None, self._id_context):
            raise LinkError("a message about another terminal")

    def _seal(
        self, message: aiocoap.Message, binding: Binding, kid: bytes, number: bytes, header: Header
    ) -> aiocoap.Message:
        nonce = make_nonce(self._common_iv, kid, number)
        outer = aiocoap.POST if message.code.is_request() else aiocoap.CHANGED
        payload = self._sealing.encrypt(nonce, flatten(message), binding.aad)
        return aiocoap.Message(code=outer, payload=payload, oscore=header.encode())

    def _open(
        self,
        message: aiocoap.Message,
        binding: Binding,
        kid: bytes,
        number: bytes,
        sequence: int | None,
    ) -> Opened:
        nonce = make_nonce(self._common_iv, kid, number)
        if len(message.payload) <= TAG_SIZE:
            raise LinkError("nothing is inside")
        try:
            plain = self._opening.decrypt(nonce, message.payload, binding.aad)
        except InvalidTag:
            raise LinkError("not made with the link key") from None
        inner, options = decode_inner(plain[0], plain[1:])
        return Opened(inner, options, binding, sequence)


def _encode_sequence(sequence: int) -> bytes:
    if not 0 <= sequence < SEQUENCE_LIMIT:
        raise LinkError("the link key is used up", hint="give the terminal a new key")
    return sequence.to_bytes(_MAX_PARTIAL_IV, "big").lstrip(b"\0") or b"\0"


class ReplayWindow:
    """Which numbers of the other side may still come (RFC 8613 §7.4).

    Args:
        newest: the one with which it begins. It has come, and all before count as come.
    """

    def __init__(self, newest: int) -> None:
        self._newest = newest
        self._seen = (1 << WINDOW) - 1  # Bit 0 is that of the newest.

    def is_fresh(self, sequence: int) -> bool:
        """Whether a number may come now."""
        behind = self._newest - sequence
        return behind < 0 or (behind < WINDOW and not self._seen >> behind & 1)

    def take(self, sequence: int) -> None:
        """A fresh number has come, and will not come again."""
        ahead = sequence - self._newest
        if ahead > 0:
            kept = self._seen << ahead if ahead < WINDOW else 0
            self._seen = (kept | 1) & ((1 << WINDOW) - 1)
            self._newest = sequence
        else:
            self._seen |= 1 << -ahead
