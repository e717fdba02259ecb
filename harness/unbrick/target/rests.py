"""Sessions that come to where an earlier one has been: their rest is known.

The engine compares the whole machine (``engine/mcu/c/joins.c``). Here is what came of the earlier
sessions. docs/adr/0033-sessions-that-join.md says why the rest is the same.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from unbrick.campaign.target import Outcome
    from unbrick.engine.mcu import McuEngine
    from unbrick.engine.mcu.models import JoinPart
    from unbrick.flash.trace import Trace

MOST_SESSIONS = 64
"""Sessions of which the engine keeps where others may join them. Each has about 0.2 MB."""

MOST_OPS = 4 << 20
"""Flash operations of all of them together, of 56 bytes each."""


MOST_RAM = 2 << 20
"""Bytes of RAM up to which sessions join: each that is kept has up to three copies of it."""


class SessionJoined(Exception):  # noqa: N818 - it is none
    """The session has joined another one."""


class KnownRests:
    """The sessions of one engine that later ones may join, all of one target.

    Args:
        engine: runs them; no session has begun. Its chip has at most ``MOST_RAM``.
        parts: of the machine, that must be the same; None: all.
    """

    def __init__(self, engine: McuEngine, parts: JoinPart | None = None) -> None:
        self.engine = engine
        self._rests: OrderedDict[int, Outcome] = OrderedDict()
        self._count, self._ops = 0, 0
        self._kinds: dict[str | None, int] = {}
        engine.join_sessions(*(() if parts is None else (parts,)))

    def begin(self, peers: str | None) -> None:
        """A session is to begin in which the peers remember this, so that they do the same."""
        self.engine.set_kind(self._kinds.setdefault(peers, len(self._kinds)))

    def find_joined(self) -> Outcome:
        """What came of the session that the one under way has joined."""
        return self._rests[self.engine.joined]

    def follow(self, joined: Outcome) -> Trace:
        """The operations so far, and then those of the session that was joined."""
        return self.engine.ops.followed_by(cast("Trace", joined.ops))

    def keep(self, outcome: Outcome) -> None:
        """Keep the session that has ended, if it can be joined; the oldest ones make room."""
        if not self.engine.keep_session(self._count):
            return
        self._rests[self._count] = replace(outcome, final=None)
        self._count += 1
        self._ops += len(outcome.ops)
        while len(self._rests) > MOST_SESSIONS or self._ops > MOST_OPS:
            number, oldest = self._rests.popitem(last=False)
            self._ops -= len(oldest.ops)
            self.engine.drop_session(number)
