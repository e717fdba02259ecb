"""Who may register now: a pure rule over token buckets, whose memory does not grow with addresses.

Terminals that the server knows have a bucket each, so no stranger can take their turn. Strangers
share a bucket with their network, and another one with all strangers. Only when both let one in
are the records asked about it.

A bucket is one number: the time at which it would be full again (the virtual scheduling algorithm
of ITU-T I.371). Buckets lie in tables of a fixed size. Two keys of one place share a bucket.
"""

from __future__ import annotations

import hashlib
import ipaddress
import math
from array import array
from collections import OrderedDict
from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from unbrick.wire.messages import Registration

BURST_S = 120.0
"""Seconds of saving: so many seconds' worth of strangers may come at once."""

NETWORK_SHARE = 0.5
"""What one network may have of all that strangers may have together."""

KNOWN_PER_S = 1.0
"""Registrations a second of one terminal that the server knows, in the long run."""

KNOWN_BURST = 60
"""Registrations of such a terminal that may come at once."""

PLACES = 65_536
"""Buckets in a table: 8 bytes each."""

MOST_WAITING = 256
"""Terminals that are shown as waiting for approval; the newest stay."""

APPROVAL_WAIT_S = 60
"""Seconds after which a terminal that waits for approval may ask again."""

LONGEST_WAIT_S = 255
"""Seconds that a Max-Age of one byte can say."""


class Unknown(Enum):
    """What becomes of a terminal that registers for the first time."""

    TAKE = "take"
    """It is taken."""

    WAIT = "wait"
    """It waits until somebody approves it."""


class Reason(Enum):
    """Why a registration is refused."""

    TERMINAL = "terminal"
    """That terminal registers too often."""

    NETWORK = "network"
    """Too many new ones come from its network."""

    SERVER = "server"
    """Too many new ones come from everywhere."""

    APPROVAL = "approval"
    """Nobody has approved it."""

    @property
    def theirs(self) -> bool:
        """Whether who asks has asked too often (RFC 8516), and not all together."""
        return self in (Reason.TERMINAL, Reason.NETWORK)


@dataclass(frozen=True)
class Refusal:
    """A registration is not taken; after ``wait`` seconds it may come again."""

    reason: Reason
    wait: int


@dataclass(frozen=True)
class Limits:
    """What the server takes.

    Attributes:
        unknown: what becomes of a terminal that registers for the first time.
        new_per_second: how many of these may ask in the long run.
    """

    unknown: Unknown = Unknown.TAKE
    new_per_second: float = 40.0


@dataclass(frozen=True)
class WaitingTerminal:
    """A terminal that waits for approval, as it said. Times are seconds since 1970.

    Attributes:
        endpoint: from where it asked last.
        first: when it asked first, of those times that are remembered.
        last: when it asked last.
        times: how often it did.
    """

    serial: str
    hardware_id: str
    name: str
    version: str
    endpoint: str
    first: float
    last: float
    times: int


class Buckets:
    """Token buckets in a table of a fixed size.

    Args:
        rate: tokens a second that come into each.
        burst: tokens in a full one; one at least.
        places: how many there are.
        salt: decides who shares a place; nobody outside knows it, so nobody can choose.
    """

    def __init__(self, rate: float, burst: float, places: int = 1, salt: bytes = b"") -> None:
        self._interval = 1.0 / rate
        self._room = (max(burst, 1.0) - 1.0) * self._interval
        self._places = places
        self._full_at = array("d")  # all are full until the first token is taken
        self._salt = salt

    def look(self, key: str, now: float) -> float:
        """Seconds until a token is there; 0: there is one."""
        return max(0.0, self._ahead(self._place(key), now) - self._room)

    def take(self, key: str, now: float) -> None:
        """Take the token that ``look`` has seen."""
        if not self._full_at:
            self._full_at = array("d", [-math.inf]) * self._places
        place = self._place(key)
        self._full_at[place] = now + self._ahead(place, now) + self._interval

    def _ahead(self, place: int, now: float) -> float:
        """Seconds until a bucket is full."""
        if not self._full_at:
            return 0.0
        # More than an empty bucket needs: the clock has gone back.
        return min(max(self._full_at[place] - now, 0.0), self._room + self._interval)

    def _place(self, key: str) -> int:
        if self._places == 1:
            return 0
        digest = hashlib.blake2b(key.encode(errors="replace"), key=self._salt, digest_size=8)
        return int.from_bytes(digest.digest(), "big") % self._places


def find_network(endpoint: str) -> str:
    """The network of an endpoint: /24 with IPv4, also inside IPv6, and /64 with IPv6."""
    host = endpoint.rpartition(":")[0].strip("[]")
    if ":" not in host:
        return host.rpartition(".")[0]
    try:
        address = ipaddress.IPv6Address(host.partition("%")[0])
    except ValueError:
        return host
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped).rpartition(".")[0]
    return address.packed[:8].hex()


class Admission:
    """Decides about registrations.

    Args:
        limits: what is taken.
        known: serials of terminals that have registered, or were approved.
        salt: see ``Buckets``.

    Attributes:
        limits: as given.
        refused: how many were refused, by reason.
    """

    def __init__(self, limits: Limits, known: Iterable[str] = (), salt: bytes = b"") -> None:
        self.limits = limits
        self.refused = dict.fromkeys(Reason, 0)
        self._known = set(known)
        self._waiting: OrderedDict[str, WaitingTerminal] = OrderedDict()
        rate, of_network = limits.new_per_second, limits.new_per_second * NETWORK_SHARE
        self._of_all = Buckets(rate, rate * BURST_S)
        self._of_network = Buckets(of_network, of_network * BURST_S, PLACES, salt)
        self._of_terminal = Buckets(KNOWN_PER_S, KNOWN_BURST, PLACES, salt)

    def foresee(
        self, serial: str, endpoint: str, now: float, *, made_up: bool = False
    ) -> Refusal | None:
        """What the buckets say, without taking anything from them; a refusal is counted.

        ``made_up``: anybody can have given that serial, so it makes nobody known.
        """
        if serial in self._known and not made_up:
            return self._refuse(Reason.TERMINAL, self._of_terminal.look(serial, now))
        of_network = self._of_network.look(find_network(endpoint), now)
        if of_network:
            return self._refuse(Reason.NETWORK, of_network)
        return self._refuse(Reason.SERVER, self._of_all.look("", now))

    def judge(
        self,
        registration: Registration,
        endpoint: str,
        now: float,
        is_let_in: Callable[[str], bool],
    ) -> Refusal | None:
        """Whether a registration is refused.

        ``is_let_in`` asks the records whether a serial has registered, or was approved. It is asked
        only about strangers that the buckets let in, when strangers wait.
        """
        serial = registration.serial
        refusal = self.foresee(serial, endpoint, now)
        if refusal is not None:
            return refusal
        if serial in self._known:
            self._of_terminal.take(serial, now)
            return None
        self._of_network.take(find_network(endpoint), now)
        self._of_all.take("", now)
        if self.limits.unknown is Unknown.WAIT and not is_let_in(serial):
            self._let_wait(serial, registration, endpoint, now)
            return self._refuse(Reason.APPROVAL, APPROVAL_WAIT_S)
        return None

    def hear(
        self, serial: str, endpoint: str, now: float, said: Registration | None = None
    ) -> None:
        """A terminal is not taken for want of a key; it waits, unless too many ask.

        ``said`` is its registration, if it could be read. Nobody has shown that it is true.
        """
        if self.foresee(serial, endpoint, now, made_up=True) is not None:
            return
        self._of_network.take(find_network(endpoint), now)
        self._of_all.take("", now)
        self._let_wait(serial, said, endpoint, now)

    def let_in(self, serial: str) -> None:
        """A terminal has registered, or was approved: it is known from now on."""
        self._known.add(serial)
        self._waiting.pop(serial, None)

    def waiting(self) -> list[WaitingTerminal]:
        """The terminals that wait for approval, those that asked last at the end."""
        return list(self._waiting.values())

    def _let_wait(
        self, serial: str, registration: Registration | None, endpoint: str, now: float
    ) -> None:
        before = self._waiting.pop(serial, None)
        said = WaitingTerminal(
            serial=serial,
            hardware_id=registration.hardware_id if registration else "",
            name=registration.name if registration else "",
            version=registration.version if registration else "",
            endpoint=endpoint,
            first=now,
            last=now,
            times=1,
        )
        if before is not None:
            said = replace(said, first=before.first, times=before.times + 1)
        self._waiting[serial] = said
        while len(self._waiting) > MOST_WAITING:
            self._waiting.popitem(last=False)

    def _refuse(self, reason: Reason, wait: float) -> Refusal | None:
        if not wait:
            return None
        self.refused[reason] += 1
        return Refusal(reason, min(math.ceil(wait), LONGEST_WAIT_S))
