"""Sessions of commanded updates in the records: which one goes on, and how one ends (row B6).

``CommandedSession.outcome`` is decided when the rewriting is over, well or not. The session ends
when the user's data is back in its place, whatever software runs then. When it is back and nothing
was decided (the terminal had left by itself), all begins again.

The backup is deleted when the terminal has confirmed that it has stored it, or when nothing was
ever erased. Until then it is kept, whatever happens, unless a person gives the terminal up.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from unbrick.server.core import plan
from unbrick.server.core.update_log import UpdateLog
from unbrick.server.records.contract import Records
from unbrick.server.records.people import Actor
from unbrick.server.records.sessions import (
    Backup,
    CommandedSession,
    PlannedStep,
    SessionState,
    StepKind,
    StepState,
    may_have_erased,
)
from unbrick.server.records.updates import Update, UpdateState
from unbrick.wire.messages import Result

ACTOR, PERSON = "server", "operator"
"""Who touches backups, in the audit: the server by itself, or because it was told to."""


class Sessions:
    """What is common to all that works on sessions. Everything but listing is in a transaction.

    Args:
        records: what the server remembers.
        log: writes down what happens to updates.
    """

    def __init__(self, records: Records, log: UpdateLog) -> None:
        self._records = records
        self._log = log

    def live(self, serial: str) -> CommandedSession | None:
        """The session of a terminal that has not ended."""
        return next(iter(self._records.unfinished_sessions(serial)), None)

    def open_updates(self) -> list[Update]:
        """The updates that sessions are still going on for, ended or not."""
        found = [
            self._records.update(item.update_id) for item in self._records.unfinished_sessions()
        ]
        return [update for update in found if update is not None]

    def _session(self, update: Update) -> CommandedSession | None:
        live = self.live(update.serial)
        return live if live is not None and live.update_id == update.id else None

    # How it ends

    def _decide(
        self, session: CommandedSession, outcome: SessionState, text: str, now: float
    ) -> CommandedSession:
        """The rewriting is over; what is left is to see that the user's data is in its place."""
        self._forget(session)
        session = replace(session, outcome=outcome, text=text, changed=now)
        self._records.save_session(session)
        over = (StepKind.BACK_UP, *plan.REWRITING)
        self._save(plan.skip_steps(self._records.steps(session.id), now, over))
        return session

    def _fail(
        self,
        session: CommandedSession,
        update: Update,
        text: str,
        now: float,
        result: Result | None = None,
    ) -> CommandedSession:
        if not update.state.ended:
            result = None if result is Result.SUCCESS else result
            self._log.change(update, UpdateState.FAILED, text, now, result)
        return self._decide(session, SessionState.FAILED, text, now)

    def _settle(self, session: CommandedSession, now: float) -> None:
        """End a session if nothing of the user's is anywhere else than on the terminal."""
        if not may_have_erased(self._records.steps(session.id)):
            self._delete_backup(session, "nothing was erased", now)
        if self._backup(session) is None:
            self._end(session, now)

    def _end(self, session: CommandedSession, now: float) -> None:
        left = plan.skip_steps(self._records.steps(session.id), now, tuple(StepKind))
        self._save(left)
        state = session.outcome or SessionState.FAILED
        self._records.save_session(replace(session, state=state, changed=now))
        self._forget(session)

    def _close(self, session: CommandedSession, now: float) -> None:
        """The user's data is back: it is over, or begins again when nothing was decided."""
        if session.outcome is not None:
            self._end(session, now)
            return
        steps = self._records.steps(session.id)
        self._save(plan.start_over(steps, now))

    def _forget(self, session: CommandedSession) -> None:
        """Of what is in memory alone, nothing is needed any more."""

    # Records

    def _sent(self, step: PlannedStep, now: float) -> None:
        if step.state is not StepState.SENT:
            self._records.save_step(replace(step, state=StepState.SENT, changed=now))

    def _backup(self, session: CommandedSession) -> Backup | None:
        return self._records.backup(session.id)

    def _delete_backup(
        self, session: CommandedSession, why: str, now: float, actor: str = ACTOR
    ) -> None:
        backup = self._backup(session)
        if backup is None:
            return
        self._records.delete_backup(backup.id, Actor(actor, now, why))
        self._done(plan.find_step(StepKind.DELETE_BACKUP, self._records.steps(session.id)), now)

    def _done(self, step: PlannedStep, now: float) -> None:
        done = replace(step, state=StepState.DONE, result=0, text="", changed=now)
        self._records.save_step(done)

    def _save(self, steps: Iterable[PlannedStep]) -> None:
        for step in steps:
            self._records.save_step(step)
