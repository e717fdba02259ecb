"""Bugs of the server that somebody seeded who did not know the search: contexts, by their names.

The docstring of each says what the server does, and when it shows.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from unbrick.errors import LinkError
from unbrick.server.core import files, orders, plan
from unbrick.server.core.commanded import Commander
from unbrick.server.core.files import Files
from unbrick.server.core.staged import Stager
from unbrick.server.records.contract import Records
from unbrick.server.records.sessions import COMMANDS, SessionState, StepKind, StepState
from unbrick.wire.messages import Status, TerminalState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def _replaced(owner: Any, name: str) -> Callable[[Callable[..., Any]], Callable[[], Any]]:
    def decorate(function: Callable[..., Any]) -> Callable[[], Any]:
        @contextmanager
        def context() -> Iterator[None]:
            genuine = getattr(owner, name)

            def bad(*args: Any, **kwargs: Any) -> Any:
                return function(genuine, *args, **kwargs)

            with patch.object(owner, name, bad):
                yield

        context.__doc__ = function.__doc__
        return context

    return decorate


@_replaced(Stager, "compare")
def success_by_version(
    genuine: Any, self: Any, update: Any, terminal: Any, before: Any, now: float
) -> None:
    """An update has succeeded when the terminal registers with the new version.

    A terminal with another build of that version.
    """
    if terminal.state is TerminalState.APPLICATION and terminal.version == update.version:
        terminal = replace(terminal, digest=update.digest)
    genuine(self, update, terminal, before, now)


@_replaced(Stager, "stands")
def interrupted_not_announced(
    genuine: Any, self: Any, update: Any, response: Any, now: float
) -> None:
    """A terminal whose last update is the one that is asked for is taken to be at work on it.

    A power cut after the journal has the update's number, and before anything is rewritten.
    """
    try:
        if response is not None and Status.decode(response.payload).update_id == update.id:
            return
    except LinkError:
        pass
    genuine(self, update, response, now)


@_replaced(Stager, "__init__")
def kind_in_memory(genuine: Any, self: Any, records: Any, *args: Any) -> None:
    """Only the memory of the server knows which kind of file it has announced.

    The server dies in the transfer of a differential file, and goes on with the full image.
    """
    genuine(self, records, *args)
    for update in records.unfinished_updates():
        records.save_update(replace(update, kind=None))


@_replaced(Commander, "__init__")
def numbers_from_the_start(genuine: Any, self: Any, *args: Any, **kwargs: Any) -> None:
    """After its restart the server numbers commands from 1 again.

    The server dies in the midst of a commanded update; the terminal takes no lower number.
    """
    genuine(self, *args, **kwargs)
    for session in self._records.unfinished_sessions():
        self._records.save_session(replace(session, command=0))
        steps = self._records.steps(session.id)
        sent = [step for step in steps if step.kind in COMMANDS and step.state is StepState.SENT]
        self._save(plan.reset_steps(sent, 0.0))


@_replaced(Commander, "_carried_out")
def any_result_counts(
    genuine: Any, self: Any, session: Any, update: Any, step: Any, found: Any, now: float
) -> None:
    """A result counts for the command that is under way, whatever its number.

    A result that comes late, or twice: after the first of two erases the second counts as done.
    """
    genuine(self, session, update, step, replace(found, step=session.command), now)


@_replaced(Commander, "_piece_back")
def given_back_after_success(
    genuine: Any, self: Any, session: Any, step: Any, update: Any, now: float
) -> Any:
    """The user's data is given back only after an update that has succeeded.

    A commanded update that fails when the user's data is erased already.
    """
    if session.outcome is not SessionState.SUCCEEDED:
        return None
    return genuine(self, session, step, update, now)


@contextmanager
def format_not_checked() -> Iterator[None]:
    """Software that keeps the user's data in another format may be staged.

    A person orders it without --commanded.
    """
    genuine = Stager._why_not

    def why_not(self: Any, update: Any, image: Any, terminal: Any) -> Any:
        wrong = genuine(self, update, image, terminal)
        return None if wrong is not None and "another format" in wrong[0] else wrong

    with (
        patch.object(orders, "check_formats", lambda *_: None),
        patch.object(Stager, "_why_not", why_not),
    ):
        yield


@_replaced(plan, "plan_repeat")
def write_repeated_alone(genuine: Any, steps: Any, failed: Any, now: float) -> Any:
    """A write that has failed is given again without the erase of its block.

    A chip that fails in a program and leaves bits cleared that should not be.
    """
    if failed.kind is StepKind.WRITE and failed.tries < plan.MAX_TRIES:
        return plan.reset_steps([failed], now)
    return genuine(steps, failed, now)


@_replaced(plan, "make_plan")
def data_erased_last(genuine: Any, *args: Any, **kwargs: Any) -> Any:
    """The user's data is erased after the application is written, not before.

    The terminal leaves in between: the new software finds data that it cannot read.
    """
    steps = genuine(*args, **kwargs)
    erases = [s for s in steps if s.kind is StepKind.ERASE]
    first = next((s.number for s in steps if s.kind is StepKind.WRITE), 0)
    data = [s for s in erases if kwargs.get("new_format") and s.number < first - 1]
    others = [s for s in steps if s not in data]
    at = next(i for i, s in enumerate(others) if s.kind is StepKind.CHECK)
    ordered = [*others[:at], *data, *others[at:]]
    return [replace(step, number=number) for number, step in enumerate(ordered)]


@_replaced(files, "answer_block")
def more_after_the_last(genuine: Any, request: Any, data: bytes, content_format: int) -> Any:
    """The last block of a file says that more follows, when it is a whole one.

    A file whose size is a multiple of 1,024 bytes: it is never complete.
    """
    response = genuine(request, data, content_format)
    if response.opt.block2:
        number, more, exponent = response.opt.block2
        whole = len(response.payload) == 1 << (exponent + 4)
        response.opt.block2 = (number, more or whole, exponent)
    return response


@_replaced(Files, "_file")
def held_by_target(genuine: Any, self: Any, *key: bytes) -> Any:
    """Files are held by the image that they make, full and differential ones alike.

    A differential file will not do, and the full image follows.
    """
    held = self.__dict__.setdefault("held", {})
    if key[-1] not in held:
        held[key[-1]] = genuine(self, *key)
    return held[key[-1]]


@_replaced(Records, "delete_backup")
def bytes_left(genuine: Any, self: Any, backup_id: int, actor: Any) -> None:
    """A backup is deleted, and its bytes are left in the store.

    Every commanded update.
    """
    data = self._backups.data(backup_id)
    genuine(self, backup_id, actor)
    if data is not None:
        self._backups._data[backup_id] = data
