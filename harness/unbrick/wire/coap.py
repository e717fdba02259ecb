"""A CoAP endpoint (RFC 7252) that talks to one peer, without I/O, clock or global randomness.

``aiocoap`` has the messages. The message layer is here so that it can run in virtual time. The
rules of §5.4 for options are here, too, because a message forgets how they were encoded
(``wire.codec``). Times are seconds of any clock that never goes back.
"""

from __future__ import annotations

import random
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import aiocoap
from aiocoap.numbers import OptionNumber

from unbrick.wire.codec import Datagram, Options, read
from unbrick.wire.messages import CBOR_FORMAT

ACK_TIMEOUT_S = 2.0
ACK_RANDOM_FACTOR = 1.5
MAX_RETRANSMIT = 4
EXCHANGE_LIFETIME_S = 247.0
SEPARATE_TIMEOUT_S = 100.0
"""How long a response may take after an empty acknowledgement (MAX_LATENCY of RFC 7252 §4.8.2)."""

MAX_REMEMBERED = 64
"""Requests whose answers are kept for duplicates."""

MAX_REMEMBERED_SIZE = 16_384
"""Bytes of these answers: those of a protected transfer are blocks of its file."""

DISCOVERY = (".well-known", "core")
"""The path at which a peer asks which resources there are (RFC 6690 §4)."""


def post(path: str, payload: bytes) -> aiocoap.Message:
    """A ``POST`` of a map to a resource."""
    message = aiocoap.Message(code=aiocoap.POST, payload=payload, uri_path=(path,))
    message.opt.content_format = CBOR_FORMAT
    return message


@dataclass(frozen=True)
class _Rule:
    """The bounds in an option's definition. Lengths are in bytes."""

    shortest: int
    longest: int
    repeatable: bool = False


_REQUEST_RULES = {
    OptionNumber.URI_HOST: _Rule(1, 255),
    OptionNumber.OSCORE: _Rule(0, 255),
    OptionNumber.URI_PORT: _Rule(0, 2),
    OptionNumber.URI_PATH: _Rule(0, 255, repeatable=True),
    OptionNumber.ACCEPT: _Rule(0, 2),
    OptionNumber.BLOCK2: _Rule(0, 3),
    OptionNumber.PROXY_URI: _Rule(1, 1034),
    OptionNumber.PROXY_SCHEME: _Rule(1, 255),
}
"""Critical options that are recognised (RFC 7252 §5.10, RFC 7959 §2.1)."""

_DISCOVERY_RULES = {**_REQUEST_RULES, OptionNumber.URI_QUERY: _Rule(0, 255, repeatable=True)}
_RESPONSE_RULES = {OptionNumber.BLOCK2: _Rule(0, 3), OptionNumber.OSCORE: _Rule(0, 255)}

Reader = Callable[[aiocoap.Message], "aiocoap.Message | None"]
"""What a response says; None: it is not to be believed, and counts as lost."""


def read_plainly(message: aiocoap.Message) -> aiocoap.Message:
    """Believe a response as it is."""
    return message


@dataclass(frozen=True)
class Outgoing:
    """A request that somebody above wants sent to ``endpoint``; ``ticket`` names its outcome.

    Attributes:
        serial: of the terminal that it is for.
        read: reads what is answered.
        meant: the request before it was protected; None: it is not.
    """

    endpoint: str
    message: aiocoap.Message
    ticket: int
    serial: str = ""
    read: Reader = read_plainly
    meant: aiocoap.Message | None = None


@dataclass(frozen=True)
class RequestOutcome:
    """How a request ended: its response, or None when there was none."""

    ticket: int
    response: aiocoap.Message | None


def _unrecognised(options: Options, rules: Mapping[int, _Rule]) -> int | None:
    """The first critical option that is not recognised (RFC 7252 §5.4.1), or None.

    It is unknown, too short or too long (§5.4.3), or there once too often (§5.4.5).
    """
    last = 0
    for number, length in options:
        if number & 1:
            rule = rules.get(number)
            if (
                rule is None
                or not rule.shortest <= length <= rule.longest
                or (number == last and not rule.repeatable)
            ):
                return number
        last = number
    return None


def refuse_options(request: aiocoap.Message, options: Options) -> aiocoap.Message | None:
    """The answer to a request whose options are not recognised, or ask for a proxy."""
    discovery = request.opt.uri_path == DISCOVERY
    number = _unrecognised(options, _DISCOVERY_RULES if discovery else _REQUEST_RULES)
    if number is not None:
        text = f"option {number} is not recognised"
        return aiocoap.Message(code=aiocoap.BAD_OPTION, payload=text.encode())
    if request.opt.proxy_uri is not None or request.opt.proxy_scheme is not None:
        return aiocoap.Message(code=aiocoap.PROXYING_NOT_SUPPORTED)  # §5.10.2
    return None


def is_response_recognised(options: Options) -> bool:
    """Whether the critical options of a response are all recognised."""
    return _unrecognised(options, _RESPONSE_RULES) is None


def _fill(message: aiocoap.Message, mtype: aiocoap.Type, mid: int, token: bytes) -> aiocoap.Message:
    message.mtype, message.mid, message.token = mtype, mid, token
    return message


@dataclass
class _Exchange:
    """A confirmable request of ours that is under way."""

    ticket: int
    mid: int
    token: bytes
    datagram: bytes
    read: Reader
    timeout: float
    due: float
    tries: int = 0
    acknowledged: bool = False


@dataclass(frozen=True)
class _Remembered:
    request: bytes
    answer: bytes
    until: float


class CoapEndpoint:
    """Answers the peer's requests with ``handler`` and sends ours, one at a time (NSTART 1).

    A duplicate is a datagram with the message id and the bytes of an earlier one. The bytes count,
    because a peer that starts again may use its message ids again for other requests.

    Attributes:
        rejected: datagrams that were rejected: no CoAP, or with unknown critical options.
        duplicates: requests that were answered from memory.
        retransmissions: datagrams of ours that were sent again.
    """

    def __init__(
        self,
        handler: Callable[[aiocoap.Message, float], aiocoap.Message],
        rng: random.Random,
    ) -> None:
        self.rejected = 0
        self.duplicates = 0
        self.retransmissions = 0
        self._handler = handler
        self._rng = rng
        self._mid = rng.randrange(0x10000)
        self._token = rng.randrange(0x10000)
        self._waiting: deque[tuple[int, aiocoap.Message, Reader]] = deque()
        self._exchange: _Exchange | None = None
        self._remembered: OrderedDict[int, _Remembered] = OrderedDict()
        self._remembered_size = 0
        self._datagrams: list[bytes] = []
        self._outcomes: list[RequestOutcome] = []

    @property
    def deadline(self) -> float | None:
        """The time at which ``poll`` has something to do, or None."""
        return None if self._exchange is None else self._exchange.due

    @property
    def idle(self) -> bool:
        """Whether nothing of the peer has to be remembered."""
        return self._exchange is None and not (self._remembered or self._waiting or self._outcomes)

    def take_datagrams(self) -> list[bytes]:
        """The datagrams for the peer, in order."""
        datagrams, self._datagrams = self._datagrams, []
        return datagrams

    def take_outcomes(self) -> list[RequestOutcome]:
        """How requests of ours ended since the last call."""
        outcomes, self._outcomes = self._outcomes, []
        return outcomes

    def request(
        self, message: aiocoap.Message, ticket: int, now: float, read: Reader = read_plainly
    ) -> None:
        """Send ``message`` as a confirmable request; its outcome bears ``ticket``.

        A response that ``read`` does not believe counts as lost: anybody may have made it.
        """
        self._waiting.append((ticket, message, read))
        self._start_next(now)

    def abandon(self) -> None:
        """Give up every request of ours. They end without a response."""
        tickets = [ticket for ticket, *_ in self._waiting]
        if self._exchange is not None:
            tickets.insert(0, self._exchange.ticket)
        self._waiting.clear()
        self._exchange = None
        self._outcomes += [RequestOutcome(ticket, None) for ticket in tickets]

    def poll(self, now: float) -> None:
        """Do what is due: send again, or give up (RFC 7252 §4.2)."""
        exchange = self._exchange
        if exchange is None or now < exchange.due:
            return
        if exchange.acknowledged or exchange.tries >= MAX_RETRANSMIT:
            self._end(None, now)
            return
        exchange.tries += 1
        exchange.timeout *= 2
        exchange.due = now + exchange.timeout
        self.retransmissions += 1
        self._datagrams.append(exchange.datagram)

    def receive(self, datagram: bytes, now: float) -> None:
        """Take one datagram of the peer. Nothing in it makes this raise."""
        self.take(read(datagram), now)

    def take(self, arrived: Datagram, now: float) -> None:
        """The same, of a datagram that was read before."""
        datagram, message, options = arrived
        if message is None:
            self.rejected += 1
            self._reject(datagram)
            return
        if message.code.is_request() and message.mtype in (aiocoap.CON, aiocoap.NON):
            self._receive_request(message, options, datagram, now)
        elif message.code.is_response() and message.mtype is not aiocoap.RST:
            self._take_response(message, options, now)
        elif message.code == aiocoap.EMPTY and message.mtype is aiocoap.ACK:
            self._acknowledged(message.mid, now)
        elif message.code == aiocoap.EMPTY and message.mtype is aiocoap.RST:
            if self._exchange is not None and message.mid == self._exchange.mid:
                self._end(None, now)
        elif message.mtype is aiocoap.CON:
            self._send_empty(aiocoap.RST, message.mid)  # A ping, or a code of no use (§4.2, §4.3).

    def _next_mid(self) -> int:
        self._mid = (self._mid + 1) & 0xFFFF
        return self._mid

    def _send_empty(self, mtype: aiocoap.Type, mid: int) -> None:
        message = aiocoap.Message(code=aiocoap.EMPTY)
        self._datagrams.append(_fill(message, mtype, mid, b"").encode())

    def _reject(self, datagram: bytes) -> None:
        # Only a confirmable message of our version is worth a reset (§4.2, §3).
        if len(datagram) >= 4 and datagram[0] >> 4 == 0b0100:
            self._send_empty(aiocoap.RST, int.from_bytes(datagram[2:4], "big"))

    def _receive_request(
        self, request: aiocoap.Message, options: Options, datagram: bytes, now: float
    ) -> None:
        refusal = refuse_options(request, options)
        bad = refusal is not None and refusal.code == aiocoap.BAD_OPTION
        if bad and request.mtype is aiocoap.NON:
            self.rejected += 1  # In silence (§5.4.1).
            return
        while self._remembered and next(iter(self._remembered.values())).until <= now:
            self._forget_oldest()
        known = self._remembered.get(request.mid)
        if known is not None and known.request == datagram:
            self.duplicates += 1
            self._datagrams.append(known.answer)
            return
        response = self._handler(request, now) if refusal is None else refusal
        if request.mtype is aiocoap.CON:
            _fill(response, aiocoap.ACK, request.mid, request.token)
        else:
            _fill(response, aiocoap.NON, self._next_mid(), request.token)
        answer = response.encode()
        self._datagrams.append(answer)
        self._forget(request.mid)
        if request.code == aiocoap.GET or not response.code.is_successful():
            return  # It may be asked twice (§4.5), and junk fills no memory.
        self._remembered[request.mid] = _Remembered(datagram, answer, now + EXCHANGE_LIFETIME_S)
        self._remembered_size += len(answer)
        while len(self._remembered) > MAX_REMEMBERED or self._remembered_size > MAX_REMEMBERED_SIZE:
            self._forget_oldest()

    def _forget_oldest(self) -> None:
        self._forget(next(iter(self._remembered)))

    def _forget(self, mid: int) -> None:
        forgotten = self._remembered.pop(mid, None)
        if forgotten is not None:
            self._remembered_size -= len(forgotten.answer)

    def _take_response(self, message: aiocoap.Message, options: Options, now: float) -> None:
        exchange = self._exchange
        expected = (
            exchange is not None
            and message.token == exchange.token
            and (message.mtype is not aiocoap.ACK or message.mid == exchange.mid)
        )
        good = expected and is_response_recognised(options)
        if message.mtype is aiocoap.CON:
            self._send_empty(aiocoap.ACK if good else aiocoap.RST, message.mid)
        if exchange is None or not expected:
            return
        response = exchange.read(message) if good else None
        if response is not None or not good:
            self._end(response, now)

    def _acknowledged(self, mid: int, now: float) -> None:
        exchange = self._exchange
        if exchange is not None and mid == exchange.mid and not exchange.acknowledged:
            exchange.acknowledged = True
            exchange.due = now + SEPARATE_TIMEOUT_S

    def _end(self, response: aiocoap.Message | None, now: float) -> None:
        if self._exchange is not None:
            self._outcomes.append(RequestOutcome(self._exchange.ticket, response))
        self._exchange = None
        self._start_next(now)

    def _start_next(self, now: float) -> None:
        if self._exchange is not None or not self._waiting:
            return
        ticket, message, read = self._waiting.popleft()
        self._token = (self._token + 1) & 0xFFFF
        token, mid = self._token.to_bytes(2, "big"), self._next_mid()
        datagram = _fill(message, aiocoap.CON, mid, token).encode()
        timeout = ACK_TIMEOUT_S * self._rng.uniform(1.0, ACK_RANDOM_FACTOR)
        self._exchange = _Exchange(
            *(ticket, mid, token, datagram, read), timeout=timeout, due=now + timeout
        )
        self._datagrams.append(datagram)
