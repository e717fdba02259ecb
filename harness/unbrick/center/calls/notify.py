"""Tells users by text message that an upgrade is ready for their terminal (row B3)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from sqlalchemy.exc import SQLAlchemyError

from unbrick.center.calls.machine import Need, shorten_version
from unbrick.center.calls.menu import Menu, fill
from unbrick.center.desk import Desk
from unbrick.center.offer import judge_situation
from unbrick.errors import UnbrickError
from unbrick.server.records.contract import Records

LOOK_INTERVAL_S = 10.0
"""Seconds between two looks at what is ready for whom."""

MAX_INVITATIONS_AT_ONCE = 50
"""Messages that one look sends at most: a new release must not block the server."""

_LOG = logging.getLogger(__name__)


def write_invitation(menu: Menu, serial: str, old: str, new: str) -> str:
    """The text that invites to call for an upgrade."""
    return fill(
        menu.message, {"old": shorten_version(old), "new": shorten_version(new), "serial": serial}
    )


def list_invitations(
    records: Records, menu: Menu, most: int | None = None
) -> list[tuple[str, str, str]]:
    """Whom to tell: serial, version and text of each invitation that was never sent.

    Args:
        records: what is known.
        menu: has the text.
        most: only so many.
    """
    images = records.images()
    # Of thousands of terminals only those are read that run something for which more is published.
    due = [
        running
        for running in sorted(records.running())
        if judge_situation(running, images, (), ()).need is Need.NEEDED
    ]
    if not due:
        return []
    busy = {update.serial for update in records.unfinished_updates()}
    busy |= {session.serial for session in records.unfinished_sessions()}
    told = {(message.serial, message.text) for message in records.messages()}
    found: list[tuple[str, str, str]] = []
    for terminal in (item for running in due for item in records.terminals_running(running)):
        if len(found) == most:
            break
        now = judge_situation(terminal, images, (), ())
        if terminal.serial in busy:
            continue
        text = write_invitation(menu, terminal.serial, now.old, now.new)
        if (terminal.serial, text) in told:
            continue
        # Only now what was ordered before is looked up: of most terminals nothing is due.
        now = judge_situation(terminal, images, records.updates(terminal.serial), ())
        text = write_invitation(menu, terminal.serial, now.old, now.new)
        if now.need is Need.NEEDED and (terminal.serial, text) not in told:
            found.append((terminal.serial, now.new, text))
    return found


class Notifier:
    """Sends each terminal's user one message for each version that is ready for it.

    What was sent is in the database, so nothing is sent twice after a restart.

    Args:
        desk: what is ready, and who sends.
        menu: has the text.
        sent: told the serial and the version of each message.
    """

    def __init__(self, desk: Desk, menu: Menu, sent: Callable[[str, str], None]) -> None:
        self._desk, self._menu, self._sent = desk, menu, sent

    async def look(self) -> None:
        """Look once, and send what is to be sent.

        Raises:
            ServerError: the server does not take a message.
        """
        for serial, version, text in list_invitations(
            self._desk.records, self._menu, MAX_INVITATIONS_AT_ONCE
        ):
            await self._desk.send(serial, text)
            self._sent(serial, version)

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            try:
                await self.look()
            except (UnbrickError, SQLAlchemyError) as error:
                _LOG.warning("users are not told of upgrades: %s", error)
            await asyncio.sleep(LOOK_INTERVAL_S)
