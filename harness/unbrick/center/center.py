"""The customer center without HTTP: who is signed in, what goes on, what was done by whom."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from sqlalchemy.exc import SQLAlchemyError
from starlette.concurrency import run_in_threadpool

from unbrick.center.calls.carry import Calls
from unbrick.center.calls.menu import Menu
from unbrick.center.calls.notify import Notifier
from unbrick.center.calls.terminal import Lines
from unbrick.center.desk import Desk
from unbrick.center.operators.accounts import Passwords, Throttle
from unbrick.center.operators.records import Accounts, Deed, LogEntry, Operator
from unbrick.center.page.live import Hub, Watcher, read_topic
from unbrick.center.page.security import SignIns, Tokens
from unbrick.center.page.views import Views
from unbrick.errors import UnbrickError
from unbrick.server.records.calls import Call
from unbrick.server.records.people import Subscriber

LOOK_INTERVAL_S = 1.0
"""Seconds between two looks at what somebody looks at."""

MAX_COMPARISONS_AT_ONCE = 2
"""Passwords that are compared at a time: each takes 64 MiB."""

_LOG = logging.getLogger(__name__)


class SignInError(UnbrickError):
    """Somebody may not sign in.

    Attributes:
        status: the HTTP status that says why.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message, hint="try again, or ask who made the account")
        self.status = status


class Center:
    """All that the page shows and does.

    Args:
        desk: database and server.
        accounts: operators and their log.
        menu: what callers hear.
        clock: seconds since 1970.
        passwords: how they are hashed.
        notify: users are told by text message what is ready for their terminals.
    """

    def __init__(
        self,
        desk: Desk,
        accounts: Accounts,
        menu: Menu,
        clock: Callable[[], float],
        passwords: Passwords | None = None,
        *,
        notify: bool = False,
    ) -> None:
        self.desk, self.accounts, self.menu = desk, accounts, menu
        self.key = secrets.token_urlsafe(32)
        self.tokens = Tokens(self.key)
        self.hub = Hub()
        self.views = Views(desk)
        self.calls = Calls(menu, desk.records, desk, clock, self._call_changed)
        self._lines = Lines(self.calls, desk.records, desk.server)
        self._clock = clock
        self._passwords = passwords or Passwords()
        self._sessions = SignIns()
        self._notifier = Notifier(desk, menu, self._notified) if notify else None
        self._watcher = Watcher(self.hub, self.views.fingerprint)
        self._comparing = asyncio.Semaphore(MAX_COMPARISONS_AT_ONCE)
        # Guessing at one account from one place, from everywhere, and at all from one place.
        self._by_both, self._by_name, self._by_address = Throttle(5), Throttle(20), Throttle(50)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Keeps pages up to date and takes calls meanwhile; ends all calls at the end."""
        tasks = [asyncio.create_task(self._watch()), asyncio.create_task(self._lines.run())]
        if self._notifier:
            tasks.append(asyncio.create_task(self._notifier.run()))
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self.hub.close()
            await self.calls.close()
            await self._lines.close()

    async def _watch(self) -> None:
        while True:
            try:
                if self.hub.topics:
                    await self.desk.refresh(self._looked_at())
                    self._watcher.look()
            except (UnbrickError, SQLAlchemyError):
                _LOG.exception("pages cannot be kept up to date")
            await asyncio.sleep(LOOK_INTERVAL_S)

    def _looked_at(self) -> list[str]:
        """The serials of the terminals whose pages somebody looks at."""
        topics = [read_topic(topic) for topic in self.hub.topics]
        calls = [self.desk.records.call(number) for kind, _, number in topics if kind == "call"]
        of_calls = [call.serial for call in calls if call is not None]
        return [name for kind, name, _ in topics if kind == "terminal"] + of_calls

    def _call_changed(self, call: Call) -> None:
        for topic in (f"call:{call.id}", f"terminal:{call.serial}", "calls", "terminals"):
            self.hub.publish(topic)

    def _notified(self, serial: str, version: str) -> None:
        about = f"about {version}"
        self.accounts.log(LogEntry(0, self._clock(), "(center)", Deed.SENT, serial[:40], about))

    # Operators

    async def sign_in(self, name: str, password: str, address: str) -> str:
        """Begin a session; returns its number.

        Raises:
            SignInError: that is no operator's password, or too many were tried.
        """
        now = self._clock()
        throttles = (
            (self._by_both, (name, address)),
            (self._by_name, name),
            (self._by_address, address),
        )
        wait = max(throttle.wait(key, now) for throttle, key in throttles)
        if wait > 0:
            minutes = -(-int(wait) // 60)
            raise SignInError(429, f"too many attempts; try again in {minutes} minutes")
        operator = self.accounts.operator(name)
        # Counted before it is known, so that attempts at the same time count, too.
        for throttle, key in throttles:
            throttle.failed(key, now)
        async with self._comparing:
            fits = await run_in_threadpool(self._passwords.fits, operator, password)
        if operator is None or not fits:
            # What was typed for an unknown name may be a password: it is not kept.
            who = operator.name if operator else "?"
            self.accounts.log(LogEntry(0, now, who, Deed.FAILED, "", f"from {address}"))
            raise SignInError(401, "name and password do not fit together")
        for throttle, key in throttles:
            throttle.succeeded(key)
        renewed = self._passwords.renewed(operator, password)
        if renewed:
            self.accounts.save_operator(renewed)
            operator = renewed
        self.note(operator, Deed.SIGNED_IN, "", f"from {address}")
        return self._sessions.begin(operator, now)

    def sign_out(self, number: str, operator: Operator) -> None:
        """End a session."""
        self._sessions.end(number)
        self.note(operator, Deed.SIGNED_OUT)

    def signed_in(self, number: str, *, use: bool = False) -> Operator | None:
        """Whose session it is; None when it has ended, or the account has."""
        session = self._sessions.find(number, self._clock(), use=use)
        operator = self.accounts.operator(session.operator) if session else None
        same = operator and session and operator.password == session.password
        return operator if same else None

    def note(self, operator: Operator, deed: Deed, serial: str = "", text: str = "") -> None:
        """Write into the log what an operator did."""
        self.accounts.log(LogEntry(0, self._clock(), operator.name, deed, serial[:40], text))

    def looked_at(self, number: str, operator: Operator, owner: Subscriber, serial: str) -> None:
        """An operator sees who a terminal belongs to: kept once for each session."""
        if self._sessions.first_look(number, serial):
            self.note(operator, Deed.LOOKED, serial, f"subscriber {owner.id}")

    def looked_at_list(self, number: str, operator: Operator) -> None:
        """An operator sees who terminals belong to: kept once for each session."""
        if self._sessions.first_look(number, ""):
            self.note(operator, Deed.LOOKED, "", "the list of terminals")
