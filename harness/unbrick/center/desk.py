"""What operators look at and order: the user database on one side, the server on the other.

The center reads the database itself; what is to happen to terminals it has the server do, over its
HTTP API.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Protocol

from starlette.concurrency import run_in_threadpool

from unbrick.center.calls.machine import Situation
from unbrick.center.offer import find_situation
from unbrick.server.edge.client import SilentError
from unbrick.server.errors import NotCommandedError
from unbrick.server.records.contract import Records
from unbrick.server.records.updates import Terminal, UpdateState

COMMANDED, STAGED = "commanded", "staged"
WAYS = (COMMANDED, STAGED)
"""How a terminal is updated: by commands of the server, or by a file that it rewrites itself."""


MOST_ASKED = 50
"""Transfers about which the server is asked at a time, besides those that somebody looks at."""


class OrderServer(Protocol):
    """The orders that the server takes (``server.client.ServerClient``)."""

    def start(
        self, serial: str, version: str, *, way: str, downgrade: bool = False
    ) -> dict[str, Any]:
        """Have a terminal updated, in one of ``WAYS``."""

    def cancel(self, update_id: int) -> dict[str, Any]:
        """Cancel an update."""

    def abandon(self, update_id: int) -> dict[str, Any]:
        """Give up a commanded update whose terminal will not come back; deletes its backup."""

    def roll_out(self, **order: Any) -> dict[str, Any]:
        """Make a rollout; ``order`` has the fields of ``http.RolloutOrder``."""

    def do_with_rollout(self, rollout_id: int, deed: str, by: str) -> dict[str, Any]:
        """Approve, pause, resume or abandon a rollout, for an operator."""

    def send_text(self, serial: str, text: str) -> dict[str, Any]:
        """Send a text to a terminal's user."""

    def update(self, update_id: int) -> dict[str, Any]:
        """An update as it is."""

    def say(self, call_id: int, count: int, text: str, *, last: bool) -> None:
        """See ``Telephone``."""

    def center_is_there(self) -> None:
        """See ``Telephone``."""

    def center_leaves(self) -> None:
        """See ``Telephone``."""


class Desk:
    """Database and server together; to be used on one event loop.

    Args:
        records: the user database.
        server: takes the orders; each raises ServerError when it is refused.
        way: in which a call upgrades, if it can be; one of ``WAYS``.
    """

    def __init__(self, records: Records, server: OrderServer, way: str = COMMANDED) -> None:
        self.records, self.way = records, way
        self.server = server
        self._sent: dict[int, int] = {}

    async def situation(self, serial: str) -> Situation:
        """How it is with a terminal."""
        return self.situation_now(serial)

    def situation_now(self, serial: str) -> Situation:
        """How it is with a terminal."""
        return find_situation(self.records, serial)

    def way_for(self, terminal: Terminal) -> str:
        """The way in which a call would upgrade a terminal, as far as the center knows."""
        return self.way if self.records.image(terminal.digest) else STAGED

    async def upgrade(self, serial: str, version: str) -> str:
        """Start an upgrade for a caller; gives what the call's record should say of the way.

        Raises:
            SilentError: the server does not answer, and it has not begun.
            ServerError: the server refuses.
        """
        if self.way == COMMANDED:
            try:
                await self.start(serial, version, COMMANDED)
            except NotCommandedError as error:
                await self.start(serial, version, STAGED)
                return f"not by commands, but by a file: {error}"
            return "by commands"
        await self.start(serial, version, STAGED)
        return ""

    async def start(self, serial: str, version: str, way: str, *, downgrade: bool = False) -> None:
        """Start an update; ``downgrade``: also to older software.

        Raises:
            SilentError: the server does not answer, and it has not begun.
            NotCommandedError: the server refuses to do it in that way.
            DowngradeError: it is older, and ``downgrade`` is false.
            ServerError: the server refuses.
        """
        try:
            await run_in_threadpool(
                self.server.start, serial, version, way=way, downgrade=downgrade
            )
        except SilentError:
            # It may have heard, all the same: the database knows.
            if not self._begun(serial, version):
                raise

    def _begun(self, serial: str, version: str) -> bool:
        return any(
            update.version == version and not update.state.ended
            for update in self.records.updates(serial)
        )

    async def cancel(self, update_id: int) -> None:
        """Cancel an update.

        Raises:
            ServerError: the server refuses, or does not answer.
        """
        await run_in_threadpool(self.server.cancel, update_id)

    async def abandon(self, update_id: int) -> None:
        """Give up a commanded update for good; of its user's data nothing is kept then.

        Raises:
            ServerError: the server refuses, or does not answer.
        """
        await run_in_threadpool(self.server.abandon, update_id)

    async def roll_out(self, order: dict[str, Any], operator: str) -> int:
        """Make a rollout; gives its number. ``order`` is as the server takes it.

        Raises:
            ServerError: the server refuses, or does not answer.
        """
        made = await run_in_threadpool(self.server.roll_out, **order, by=operator)
        return int(made["id"])

    async def do_with_rollout(self, rollout_id: int, deed: str, operator: str) -> None:
        """Approve, pause, resume or abandon a rollout.

        Raises:
            ServerError: the server refuses, or does not answer.
        """
        await run_in_threadpool(self.server.do_with_rollout, rollout_id, deed, operator)

    async def send(self, serial: str, text: str) -> None:
        """Send a text to a terminal's user.

        Raises:
            ServerError: the server refuses, or does not answer.
        """
        await run_in_threadpool(self.server.send_text, serial, text)

    def sent(self, update_id: int) -> int:
        """Bytes of an update's file that were sent, as the server said last."""
        return self._sent.get(update_id, 0)

    def knows_sent(self, update_id: int) -> bool:
        """Whether the server was asked for that."""
        return update_id in self._sent

    @property
    def sent_in_all(self) -> int:
        """Bytes of the files of all updates of which it is known."""
        return sum(self._sent.values())

    async def refresh(self, serials: Collection[str] = ()) -> None:
        """Ask the server how far transfers are; it alone knows.

        Args:
            serials: of the terminals that somebody looks at; of others, ``MOST_ASKED`` are asked.
        """
        asked = [*self.records.unfinished_updates_of(serials)]
        asked += self.records.transfers(first=MOST_ASKED)
        sent = {}
        for update in asked:
            if update.state is UpdateState.TRANSFERRING and update.id not in sent:
                sent[update.id] = await self._ask_sent(update.id)
        self._sent = sent

    async def _ask_sent(self, update_id: int) -> int:
        try:
            answer = await run_in_threadpool(self.server.update, update_id)
        except SilentError:
            return self.sent(update_id)
        sent = answer.get("sent")
        return sent if isinstance(sent, int) else 0
