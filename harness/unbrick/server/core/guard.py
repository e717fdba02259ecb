"""Between the network and the core: who has no key is not heard (RFC 8613, RFC 9175).

A terminal and the server share a link key, which an enrolment brings (``records.links``). What
bears no protection, what cannot be opened, and what is from an earlier start of the terminal is
answered 4.01 in the open, and changes nothing.

A number comes once. Which ones have come is known in memory: when this server has lost it, or
another server has it, the terminal is asked to say the same once more with an Echo value that only
who hears this server now can know. So it is, too, before a file goes to an address that has not
answered.

The server's own numbers are reserved in the records, many at once, before one is used.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import partial
from typing import Protocol

import aiocoap

from unbrick.errors import LinkError
from unbrick.server.core.admission import PLACES, Admission, Buckets
from unbrick.server.core.leases import Alone, Leases
from unbrick.server.records.contract import Records
from unbrick.server.records.links import LinkKey
from unbrick.wire.coap import DISCOVERY, Outgoing, is_response_recognised, refuse_options
from unbrick.wire.messages import MAX_SERIAL, Registration
from unbrick.wire.oscore import (
    MESSAGE_BITS,
    Binding,
    Context,
    Opened,
    ReplayWindow,
    Side,
    read_header,
)

RESERVED_AT_ONCE = 1024
"""Numbers of the server that are reserved with one record (RFC 8613, B.1.1)."""

DOUBTS_PER_S = 1.0
"""Messages a second in a terminal's name that cannot be opened, and are handled all the same."""

ECHO_SIZE = 8
"""Bytes of an Echo value (RFC 9175 §5: 64 bits)."""


class Stranger(Enum):
    """Why a message is not heard."""

    PLAIN = "plain"
    """It is not protected."""

    UNKNOWN = "unknown"
    """No key is known of the terminal that it names, or it names none."""

    FORGED = "forged"
    """It was not made with the key of that terminal."""

    OLD = "old"
    """It is from an earlier start of the terminal."""

    STALE = "stale"
    """It may have come before, and is asked for once more."""


class Core(Protocol):
    """What is behind the guard: see ``core.ServerCore``."""

    records: Records
    admission: Admission | None

    def handle(
        self, endpoint: str, request: aiocoap.Message, now: float, serial: str | None = None
    ) -> aiocoap.Message:
        """The answer to a request of a terminal; ``serial``: only this one can have made it."""

    def poll(
        self, now: float, endpoint: str | None = None, most: int | None = None
    ) -> list[Outgoing]:
        """The requests to send now."""

    def take_back(self, requests: list[Outgoing]) -> None:
        """Make them due again."""

    def outcome(self, ticket: int, response: aiocoap.Message | None, now: float) -> None:
        """Take in how one of them ended."""

    @property
    def has_errands(self) -> bool:
        """Whether ``poll`` may have something to send."""


@dataclass
class _Link:
    """What is known of a link in memory.

    Attributes:
        context: of its key.
        first: the first number that was reserved; Echo values come from it.
        next: the next number of the server.
        end: numbers from here are not reserved.
        window: which numbers of the terminal have come; None: that is not known.
        proven: the endpoint at which the terminal has answered.
    """

    key: bytes
    context: Context
    first: int = 0
    next: int = 0
    end: int = 0
    window: ReplayWindow | None = None
    proven: str = ""

    def still_holds(self, record: LinkKey, me: int) -> bool:
        """Whether no other server, and no new key, has made this worthless."""
        if self.key != record.key or self.end not in (0, record.reserved):
            return False
        return self.window is None or record.holder == me


@dataclass
class LinkGuard:
    """Lets through what terminals say that have a key, and protects what they are told.

    It is to the network what the core is. When a transaction fails, what is known in memory no
    longer fits the records, or a number counts as come: then the terminal is asked once more.

    Attributes:
        core: what is behind it.
        insecure: whether it also hears what is not protected.
        secret: random bytes, so that nobody can guess an Echo value.
        leases: which other servers share the records.
        opened: called with each protected request and its answer, as they were meant.
        refused: how many messages were not heard, by the reason.
    """

    core: Core
    insecure: bool = False
    secret: bytes = b""
    leases: Leases = field(default_factory=Alone)
    refused: dict[Stranger, int] = field(default_factory=lambda: dict.fromkeys(Stranger, 0))

    def __post_init__(self) -> None:
        self.opened: Callable[[aiocoap.Message, aiocoap.Message, float], None] = _pass_over
        self._records = self.core.records
        self._links: dict[str, _Link] = {}
        self._doubts = Buckets(DOUBTS_PER_S, 1, PLACES, self.secret)
        self._restarted: list[str] = []

    # Requests of terminals

    def foresees_forgery(self, serial: str, request: aiocoap.Message, now: float) -> bool:
        """Whether a request in a terminal's name is not made with its key, as far as is known here.

        It asks no records, which may be waited for, and changes nothing but the count of what is
        refused. What it opens need not be opened again. Once a second and terminal it lets a
        forgery pass, so that a key that another process has replaced is found out.
        """
        link = self._links.get(serial)
        if link is None or link.context.open_ahead(request):
            return False
        if not self._doubts.look(serial, now):
            self._doubts.take(serial, now)
            return False
        self._refuse(Stranger.FORGED)
        return True

    def handle(self, endpoint: str, request: aiocoap.Message, now: float) -> aiocoap.Message:
        """The answer to a terminal's request; never raises for what is in it."""
        try:
            header = read_header(request)
        except LinkError:
            return self._refuse(Stranger.UNKNOWN)
        if header is None:
            return self._handle_plain(endpoint, request, now)
        serial = _read_serial(header.kid_context)
        link = self._records.links.find(serial) if serial else None
        if link is None:
            if serial and self.core.admission is not None:
                self.core.admission.hear(serial, endpoint, now)
            return self._refuse(Stranger.UNKNOWN)
        try:
            opened = self._known(link).context.open_request(request)
        except LinkError:
            return self._refuse(Stranger.FORGED)
        with self._records.transaction():
            return self._handle_opened(endpoint, link, opened, now)

    def _handle_plain(self, endpoint: str, request: aiocoap.Message, now: float) -> aiocoap.Message:
        if self.insecure or request.opt.uri_path == DISCOVERY:
            return self.core.handle(endpoint, request, now)
        if self.core.admission is not None and request.opt.uri_path == ("register",):
            try:
                said = Registration.decode(request.payload)
            except LinkError:
                pass
            else:
                self.core.admission.hear(said.serial, endpoint, now, said)
        return self._refuse(Stranger.PLAIN)

    def _handle_opened(
        self, endpoint: str, record: LinkKey, opened: Opened, now: float
    ) -> aiocoap.Message:
        """The answer to a request that was made with the terminal's key, whenever that was."""
        serial, sequence = record.serial, opened.sequence or 0
        start = sequence >> MESSAGE_BITS
        if start < record.start:
            return self._refuse(Stranger.OLD)
        link = self._known(record)
        echo = opened.message.opt.echo
        echoes = echo is not None and hmac.compare_digest(echo, self._echo(serial, link, endpoint))
        registers = opened.message.opt.uri_path == ("register",)
        if start > record.start:
            link.window = None
            self._begin(endpoint, serial, start, registers=registers)
        elif link.window is None and echoes:
            self._begin(endpoint, serial, start, registers=registers)
        elif link.window is None or not link.window.is_fresh(sequence):
            return self._challenge(serial, link, endpoint, opened)
        if link.window is None:
            link.window = ReplayWindow(sequence)
        else:
            link.window.take(sequence)
        if echoes:
            link.proven = endpoint
        if opened.message.opt.uri_path[:1] == ("file",) and link.proven != endpoint:
            return self._challenge(serial, link, endpoint, opened)
        response = refuse_options(opened.message, opened.options)
        if response is None:
            response = self.core.handle(endpoint, opened.message, now, serial)
        self.opened(opened.message, response, now)
        # With this number begin those that the terminal takes after its start.
        number = self._draw(serial, link) if registers else None
        return link.context.seal_reply(response, opened.binding, number)

    def _begin(self, endpoint: str, serial: str, start: int, *, registers: bool) -> None:
        """A terminal is heard whose numbers were not known.

        What it was sent before it never takes after a new start. Nor after a registration that
        only an earlier life of this server has heard: its numbers begin with the Echo value.
        """
        record = self._record(serial)
        if start > record.start or registers:
            self._restarted.append(endpoint)
        self._records.links.save(replace(record, start=start, holder=self.leases.me))
        if self.core.admission is not None:
            self.core.admission.let_in(serial)

    def _challenge(
        self, serial: str, link: _Link, endpoint: str, opened: Opened
    ) -> aiocoap.Message:
        """Ask for a request once more.

        The number of the request may have been used for a reply before, so this one has its own.
        """
        self.refused[Stranger.STALE] += 1
        response = aiocoap.Message(
            code=aiocoap.UNAUTHORIZED, echo=self._echo(serial, link, endpoint)
        )
        return link.context.seal_reply(response, opened.binding, self._draw(serial, link))

    def _refuse(self, why: Stranger) -> aiocoap.Message:
        self.refused[why] += 1
        return aiocoap.Message(code=aiocoap.UNAUTHORIZED)

    # Requests to terminals

    def poll(
        self, now: float, endpoint: str | None = None, most: int | None = None
    ) -> list[Outgoing]:
        """The requests to send now; see ``core.ServerCore``."""
        requests = self.core.poll(now, endpoint, most)
        try:
            return [sealed for request in requests for sealed in self._seal(request, now)]
        except BaseException:
            self.take_back(requests)
            raise

    def take_back(self, requests: list[Outgoing]) -> None:
        """These requests of ``poll`` are not sent; see ``core.ServerCore``."""
        self.core.take_back(requests)

    def _seal(self, request: Outgoing, now: float) -> list[Outgoing]:
        """A request as it is to be sent; nothing when it cannot be."""
        record = self._records.links.find(request.serial)
        if record is None or not record.start:
            if self.insecure:
                return [request]
            self.core.outcome(request.ticket, None, now)  # It is made again when it registers.
            return []
        link = self._known(record)
        number = self._draw(request.serial, link)
        sealed, binding = link.context.seal_request(request.message, number)
        read = partial(self._read, link, request.endpoint, binding)
        return [replace(request, message=sealed, read=read, meant=request.message)]

    def _read(
        self, link: _Link, endpoint: str, binding: Binding, response: aiocoap.Message
    ) -> aiocoap.Message | None:
        """What a terminal answers; None: it is not to be believed."""
        try:
            opened = link.context.open_reply(response, binding)
        except LinkError:
            return None
        if not is_response_recognised(opened.options):
            return None
        link.proven = endpoint
        return opened.message

    def outcome(self, ticket: int, response: aiocoap.Message | None, now: float) -> None:
        """What came of a request of ``poll``; see ``core.ServerCore``."""
        self.core.outcome(ticket, response, now)

    @property
    def has_errands(self) -> bool:
        """Whether ``poll`` may have something to send."""
        return self.core.has_errands

    def take_restarted(self) -> list[str]:
        """The endpoints of terminals that may have started anew: what is under way is void."""
        restarted, self._restarted = self._restarted, []
        return restarted

    # What is known of links

    def _known(self, record: LinkKey) -> _Link:
        """What is known of a link, unless another server, or another key, has made it worthless."""
        link = self._links.get(record.serial)
        if link is not None and not link.still_holds(record, self.leases.me):
            link = None
        if link is None:
            link = _Link(record.key, Context(record.key, record.serial, Side.SERVER))
            self._links[record.serial] = link
        return link

    def _echo(self, serial: str, link: _Link, endpoint: str) -> bytes:
        """The value that a terminal at an endpoint is to repeat; another one after each loss."""
        if not link.end:
            self._reserve(serial, link)
        subject = f"{link.first} {serial} {endpoint}".encode()
        return hmac.digest(self.secret, subject, hashlib.sha256)[:ECHO_SIZE]

    def _draw(self, serial: str, link: _Link) -> int:
        """A number of the server that was never used."""
        if link.next == link.end:
            self._reserve(serial, link)
        link.next += 1
        return link.next - 1

    def _reserve(self, serial: str, link: _Link) -> None:
        record = self._record(serial)
        if not link.end:
            link.first = record.reserved
        link.next, link.end = record.reserved, record.reserved + RESERVED_AT_ONCE
        self._records.links.save(replace(record, reserved=link.end))

    def _record(self, serial: str) -> LinkKey:
        record = self._records.links.find(serial)
        if record is None:
            raise KeyError(serial)
        return record


def _pass_over(_request: aiocoap.Message, _response: aiocoap.Message, _now: float) -> None:
    """Nobody wants to know."""


def _read_serial(kid_context: bytes | None) -> str:
    """The serial that a message names; empty when no terminal can have it."""
    text = (kid_context or b"").decode("ascii", errors="replace")
    return text if len(text) <= MAX_SERIAL and text.isascii() and text.isprintable() else ""
