"""The server's CoAP on UDP: carries messages between the network and the core.

What arrives together is handled together, in one transaction, and answered when that is committed:
a disk that takes its time to keep something is waited for once (docs/adr/0019-own-udp.md).
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import heapq
import random
import socket
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import aiocoap

from unbrick.errors import PortError
from unbrick.server.core.core import ServerCore, refusal_code
from unbrick.server.core.guard import LinkGuard
from unbrick.server.edge.troubles import TROUBLES
from unbrick.wire.coap import CoapEndpoint, Outgoing
from unbrick.wire.codec import Datagram, read
from unbrick.wire.glance import glance_protected, glance_serial, refuse_at_a_glance
from unbrick.wire.oscore import MESSAGE_BITS

MAX_TOGETHER = 64
"""Datagrams, and requests of ours, of one transaction at most."""

MAX_GLANCES = 1024
"""Datagrams that are looked at in one go, to find those of a transaction among refused ones."""

MAX_PEERS = 16_384
"""Endpoints whose requests are remembered, so that a duplicate gets the same answer."""

RECEIVE_BUFFER_SIZE = 4 << 20
"""Bytes that may wait in the socket; the system may allow less."""

_MAX_DATAGRAM_SIZE = 2048


@dataclass(frozen=True)
class _Arrived:
    """A datagram, and where it came from."""

    datagram: Datagram
    address: tuple[Any, ...]


class _Peer:
    """An endpoint that is spoken with."""

    def __init__(self, coap: CoapEndpoint, address: tuple[Any, ...]) -> None:
        self.coap = coap
        self.address = address
        self.armed: float | None = None


def _socket(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_DGRAM)
    try:
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_SIZE)
        sock.setblocking(False)
        sock.bind((host, port))
    except OSError as error:
        sock.close()
        raise PortError(
            f"UDP port {port} of {host} cannot be used: {error.strerror}",
            hint="is another server running? give another port, or 0 for a free one",
        ) from error
    return sock


def _endpoint(address: tuple[Any, ...]) -> str:
    host, port = address[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _address(endpoint: str) -> tuple[str, int]:
    host, _, port = endpoint.rpartition(":")
    return host.strip("[]"), int(port)


class CoapServer:
    """Runs a core behind its guard on a UDP port.

    Call ``pump`` whenever the core was told something by somebody else.
    """

    def __init__(
        self, core: ServerCore, guard: LinkGuard, clock: Callable[[], float] = time.time
    ) -> None:
        self.host = ""
        self.port = 0
        self.core = core
        self._guard = guard
        self._clock = clock
        self._socket: socket.socket | None = None
        self._rng = random.Random(random.SystemRandom().getrandbits(64))
        self._peers: OrderedDict[str, _Peer] = OrderedDict()
        self._deadlines: list[tuple[float, str]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._arrived: list[_Arrived] = []
        core.records.while_waiting(self._look_ahead)

    async def start(self, host: str, port: int) -> None:
        """Bind to an IP address and a port; 0 takes a free one.

        Raises:
            PortError: the port is taken, or the address is not of this machine.
        """
        self._socket = _socket(host, port)
        self.host, self.port = host, self._socket.getsockname()[1]
        asyncio.get_running_loop().add_reader(self._socket, self._read)
        self.pump()

    async def close(self) -> None:
        """Stop; requests that are under way are given up."""
        sock, self._socket = self._socket, None
        self._arrived.clear()
        if sock is not None:
            asyncio.get_running_loop().remove_reader(sock)
            sock.close()
        if self._timer is not None:
            self._timer.cancel()

    def pump(self) -> None:
        """Send what the core wants sent."""
        self._turn([])

    def _read(self) -> None:
        received, self._arrived = self._arrived, []
        self._gather(received)
        if not received:
            return
        try:
            self._turn(received)
        except Exception:  # noqa: BLE001 - see below
            # One may be to blame, and the others are not to suffer.
            for one in received:
                with TROUBLES.survived(f"a message of {one.address} is dropped"):
                    self._turn([one], alone=True)

    def _gather(self, arrived: list[_Arrived]) -> None:
        """Add what waits in the socket, as long as a transaction has room for it."""
        with contextlib.suppress(OSError):
            for _ in range(MAX_GLANCES):
                if self._socket is None or len(arrived) >= MAX_TOGETHER:
                    return
                data, address = self._socket.recvfrom(_MAX_DATAGRAM_SIZE)
                answer = self._refuse(data, address)
                if answer is None:
                    datagram = read(data)
                    answer = self._refuse_forged(datagram)
                    if answer is None:
                        arrived.append(_Arrived(datagram, address))
                        continue
                self._send_one(answer, address)

    def _look_ahead(self) -> bool:
        """The database keeps a transaction: meanwhile read what is handled in the next one.

        Gives whether there is anything.
        """
        with TROUBLES.survived("messages are not read ahead"):
            self._gather(self._arrived)
        if self._arrived:
            asyncio.get_running_loop().call_soon(self._read)
        return bool(self._arrived)

    def _refuse(self, data: bytes, address: tuple[Any, ...]) -> bytes | None:
        """The answer to a registration that would be refused, at next to no cost."""
        admission = self.core.admission
        if admission is None:
            return None
        plain, protected = glance_serial(data), glance_protected(data)
        serial = protected[0] if protected else plain
        if serial is None:
            return None
        made_up = plain is not None and not self._guard.insecure
        endpoint = _endpoint(address)
        refusal = admission.foresee(serial, endpoint, self._clock(), made_up=made_up)
        if refusal is None:
            return None
        return refuse_at_a_glance(data, refusal_code(refusal), refusal.wait)

    def _refuse_forged(self, datagram: Datagram) -> bytes | None:
        """The answer to a request in the name of a terminal that has not made it."""
        named = glance_protected(datagram.data)
        if named is None or datagram.message is None:
            return None
        if self._guard.foresees_forgery(named[0], datagram.message, self._clock()):
            return refuse_at_a_glance(datagram.data, aiocoap.UNAUTHORIZED)
        return None

    def _turn(self, received: list[_Arrived], *, alone: bool = False) -> None:
        """Handle what has arrived and what is due, and commit; then send.

        What arrives until the transaction has begun, because others write, is added to it, unless
        it is to be handled ``alone``.
        """
        if self._socket is None:
            return
        loop = asyncio.get_running_loop()
        now = loop.time()
        touched: dict[str, _Peer] = {}
        expired = self._expired(now)
        # Also for a single one: what is decided must hold until it is kept, whoever else writes.
        something = received or expired or self._guard.has_errands
        all_of_it = self.core.records.transaction() if something else contextlib.nullcontext()
        requests: list[Outgoing] = []
        try:
            with all_of_it:
                if received and not alone:
                    self._gather(received)
                self._receive(received, touched, now)
                for name in expired:
                    self._peer(name, touched).poll(now)
                for peer in touched.values():
                    for outcome in peer.coap.take_outcomes():
                        self._guard.outcome(outcome.ticket, outcome.response, self._clock())
                requests = self._guard.poll(self._clock(), most=MAX_TOGETHER)
                for request in requests:
                    peer_ = self._peer(request.endpoint, touched)
                    peer_.request(request.message, request.ticket, now, request.read)
        except Exception:
            # Nothing of this was kept, so nothing of it may be answered or taken for known.
            self._guard.take_back(requests)
            for name in {*touched, *expired}:
                self._forget(name)
            raise
        for name, peer in touched.items():
            self._send(peer)
            self._arm(name, peer)
            if peer.coap.idle:  # Strangers do not push out those of whom something is kept.
                self._peers.pop(name, None)
        if len(requests) == MAX_TOGETHER:
            loop.call_soon(self.pump)

    def _receive(self, received: Sequence[_Arrived], touched: dict[str, _Peer], now: float) -> None:
        protected = [glance_protected(one.datagram.data) for one in received]
        numbers = dict(found for found in protected if found is not None)
        plain = (
            (glance_serial(one.datagram.data) for one in received) if self._guard.insecure else ()
        )
        serials = {serial for serial in plain if serial is not None}
        keys = serials | set(numbers)
        if keys:
            self.core.records.links.look_ahead(sorted(keys))
        serials |= {serial for serial, number in numbers.items() if self._begins(serial, number)}
        if serials:
            self.core.records.look_ahead(sorted(serials))
        for one in received:
            self._peer(_endpoint(one.address), touched, one.address).take(one.datagram, now)

    def _peer(
        self, name: str, touched: dict[str, _Peer], address: tuple[Any, ...] | None = None
    ) -> CoapEndpoint:
        """The end of the link to an endpoint, from now on among those that are touched."""
        peer = self._peers.get(name)
        if peer is None:
            handle = functools.partial(self._handle, name)
            peer = _Peer(CoapEndpoint(handle, self._rng), address or _address(name))
            self._peers[name] = peer
            while len(self._peers) > MAX_PEERS:
                self._forget(next(iter(self._peers)))
        else:
            self._peers.move_to_end(name)
        touched[name] = peer
        return peer.coap

    def _handle(self, name: str, request: aiocoap.Message, _now: float) -> aiocoap.Message:
        response = self._guard.handle(name, request, self._clock())
        for restarted in self._guard.take_restarted():
            peer = self._peers.get(restarted)
            if peer is not None:
                peer.coap.abandon()
        return response

    def _begins(self, serial: str, number: int) -> bool:
        """Whether a number seems to be the first of a terminal's start: it is about to register."""
        link = self.core.records.links.find(serial)
        return link is not None and number >> MESSAGE_BITS > link.start

    def _forget(self, name: str) -> None:
        peer = self._peers.pop(name, None)
        if peer is None:
            return
        peer.coap.abandon()
        for outcome in peer.coap.take_outcomes():
            with contextlib.suppress(Exception):
                self._guard.outcome(outcome.ticket, None, self._clock())

    def _send(self, peer: _Peer) -> None:
        for datagram in peer.coap.take_datagrams():
            self._send_one(datagram, peer.address)

    def _send_one(self, datagram: bytes, address: tuple[Any, ...]) -> None:
        # What the system does not take is lost, as on the way, and is sent again.
        with contextlib.suppress(OSError):
            if self._socket is not None:
                self._socket.sendto(datagram, address)

    def _arm(self, name: str, peer: _Peer) -> None:
        """See to it that what is due at an endpoint is done."""
        deadline = peer.coap.deadline
        if deadline is None or deadline == peer.armed:
            return
        peer.armed = deadline
        heapq.heappush(self._deadlines, (deadline, name))
        first = self._deadlines[0][0]
        if self._timer is None or first < self._timer.when():
            self._set_timer(first)

    def _set_timer(self, deadline: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_at(deadline, self._wake)

    def _wake(self) -> None:
        self._timer = None
        with TROUBLES.survived("what is due waits"):
            self.pump()
        if self._timer is None and self._deadlines:
            self._set_timer(self._deadlines[0][0])

    def _expired(self, now: float) -> list[str]:
        """The endpoints at which something is due."""
        names: list[str] = []
        while self._deadlines and self._deadlines[0][0] <= now and len(names) < MAX_TOGETHER:
            deadline, name = heapq.heappop(self._deadlines)
            peer = self._peers.get(name)
            if peer is None or peer.armed != deadline:
                continue
            peer.armed, due = None, peer.coap.deadline
            if due is not None and due <= now:
                names.append(name)
            else:  # It was answered in time: no transaction for that.
                self._arm(name, peer)
        return names
