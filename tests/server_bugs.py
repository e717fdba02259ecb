"""Bugs of the server: contexts in which methods of it are replaced, in this process."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from unbrick.reference.memory import ServerMemory
from unbrick.server.core.commanded import Commander
from unbrick.server.core.staged import Stager
from unbrick.server.records.people import AuditEntry
from unbrick.server.records.sessions import COMMANDS, StepKind, StepState
from unbrick.server.records.updates import UpdateState
from unbrick.wire.commands import CommandResult
from unbrick.wire.messages import Result

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def _replaced(owner: type[Any], name: str) -> Callable[[Callable[..., Any]], Callable[[], Any]]:
    """Makes of a function, which gets the genuine method first, a context that replaces it."""

    def decorate(function: Callable[..., Any]) -> Callable[[], Any]:
        @contextmanager
        def context() -> Iterator[None]:
            genuine = getattr(owner, name)

            def bad(*args: Any, **kwargs: Any) -> Any:
                return function(genuine, *args, **kwargs)

            with patch.object(owner, name, bad):
                yield

        return context

    return decorate


@_replaced(Commander, "_piece_back")
def deleted_when_sent(
    genuine: Any, self: Any, session: Any, step: Any, update: Any, now: float
) -> Any:
    """The backup is deleted when the last of it has been sent."""
    piece = genuine(self, session, step, update, now)
    if piece is not None and piece.offset + len(piece.data) == piece.size:
        self._delete_backup(session, "it was sent", now)
    return piece


@_replaced(Commander, "_settle")
def backup_left(_genuine: Any, self: Any, session: Any, now: float) -> None:
    """A session that comes to nothing ends without a thought of the backup."""
    self._end(session, now)


@_replaced(Commander, "_sent")
def done_when_sent(genuine: Any, self: Any, step: Any, now: float) -> None:
    """A command is done when it is sent."""
    if step.kind in (StepKind.ERASE, StepKind.WRITE, StepKind.CHECK):
        self._done(step, now)
    else:
        genuine(self, step, now)


@_replaced(Commander, "__init__")
def sent_is_done_after_a_restart(genuine: Any, self: Any, *args: Any, **kwargs: Any) -> None:
    """After its restart the server goes on behind what it had sent."""
    genuine(self, *args, **kwargs)
    for session in self._records.unfinished_sessions():
        for step in self._records.steps(session.id):
            if step.kind in COMMANDS and step.state is StepState.SENT:
                self._done(step, 0.0)


@_replaced(Commander, "result")
def old_result_believed(genuine: Any, self: Any, found: CommandResult, now: float) -> Any:
    """The result of another start of the terminal counts, too."""
    terminal = self._records.terminal(found.serial)
    if terminal is not None:
        found = replace(found, nonce=terminal.nonce)
    return genuine(self, found, now)


@_replaced(Commander, "_carried_out")
def success_when_told(
    genuine: Any, self: Any, session: Any, update: Any, step: Any, found: Any, now: float
) -> None:
    """The update has succeeded when the resident program says that it is finished."""
    genuine(self, session, update, step, found, now)
    if step.kind is StepKind.RESTART and found.result is Result.SUCCESS:
        self._log.change(update, UpdateState.SUCCEEDED, "finished", now, Result.SUCCESS)


@_replaced(Commander, "can_cancel")
def cancelled_too_late(_genuine: Any, _self: Any, update: Any) -> bool:
    """An update can be cancelled until it has ended."""
    return not update.state.ended


@_replaced(Commander, "_fail")
def failed_and_deleted(
    genuine: Any, self: Any, session: Any, update: Any, text: str, now: float, result: Any = None
) -> Any:
    """When an update fails its backup is deleted."""
    self._delete_backup(session, text, now)
    return genuine(self, session, update, text, now, result)


@_replaced(Commander, "_upgrading")
def old_backup_kept(
    genuine: Any, self: Any, session: Any, update: Any, decision: Any, now: float
) -> Any:
    """When the user's data has changed since its backup, the backup is kept as it is."""
    if decision.result is not Result.USERDATA_CHANGED:
        return genuine(self, session, update, decision, now)
    return False


@_replaced(ServerMemory, "delete_backup")
def deleted_in_silence(genuine: Any, self: Any, backup_id: int, actor: Any) -> None:
    """The audit does not say that a backup was deleted."""
    before = self.tables[AuditEntry].take()
    genuine(self, backup_id, actor)
    self.tables[AuditEntry].put_back(before)


@_replaced(Stager, "compare")
def success_by_version(
    genuine: Any, self: Any, update: Any, terminal: Any, before: Any, now: float
) -> None:
    """The update has succeeded when the terminal runs software of that version."""
    if terminal.version == update.version:
        terminal = replace(terminal, digest=update.digest)
    genuine(self, update, terminal, before, now)


@_replaced(Commander, "_gave_back")
def deleted_on_an_error(
    genuine: Any, self: Any, session: Any, update: Any, request: Any, answer: Any, now: float
) -> Any:
    """When the terminal cannot take the backup it is deleted."""
    more = genuine(self, session, update, request, answer, now)
    if answer.result is not Result.SUCCESS:
        self._delete_backup(session, answer.result.text, now)
    return more
