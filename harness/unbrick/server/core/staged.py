"""Staged updates: the terminal is announced a file, fetches it, and rewrites itself (rows A4-A9).

::

    pending → announced → transferring → received → checked → rewriting → succeeded
                  ↓             ↓            ↓          ↓          ↓
               refused          └────────────┴──── failed ─────────┘

Such an update can be cancelled until the terminal has the whole file. It succeeds only when the
terminal registers with the digest of the new image: what a terminal merely reports never counts as
success. A terminal that registers while its update is unfinished may have lost it (power cut); it
is asked for its status, and the update is announced again when it knows nothing of it. To a
terminal in restoration an update whose rewrite was broken off is announced again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace

import aiocoap

from unbrick.delta import read_header
from unbrick.errors import LinkError
from unbrick.server.core.analysis import Analyst
from unbrick.server.core.files import Files
from unbrick.server.core.restoring import foresee_refusal, is_older
from unbrick.server.core.update_log import UpdateLog
from unbrick.server.records.contract import Records
from unbrick.server.records.updates import Image, Terminal, Update, UpdateState
from unbrick.wire.messages import (
    FILE_FORMAT,
    Announcement,
    Decision,
    Kind,
    Phase,
    Report,
    Result,
    Status,
    TerminalState,
)

WAITING = (UpdateState.PENDING, UpdateState.ANNOUNCED)
CANCELLABLE = (*WAITING, UpdateState.TRANSFERRING)

_STATE_OF_PHASE = {
    Phase.TRANSFERRING: UpdateState.TRANSFERRING,
    Phase.RECEIVED: UpdateState.RECEIVED,
    Phase.CHECKED: UpdateState.CHECKED,
    Phase.REWRITING: UpdateState.REWRITING,
}
_ORDER = (*WAITING, *_STATE_OF_PHASE.values())
_FULL_MAY_DO = (
    Result.NOT_ENOUGH_SRAM,
    Result.UNKNOWN_KIND,
    Result.MALFORMED_ANNOUNCEMENT,
    Result.WRONG_BASE,
    Result.NOT_REBUILT,
)
_BROKEN_OFF = (Result.INTERRUPTED, Result.REWRITE_FAILED)
"""Results with which a terminal in restoration can take the same file again."""


class Stager:
    """Works off staged updates. Without input or output, as the core is.

    Args:
        records: what the server remembers.
        analyst: has differential files prepared.
        files: images and differential files.
        log: writes down what happens to updates.
        make_due: called with an update that is to be announced.
    """

    def __init__(
        self,
        records: Records,
        analyst: Analyst,
        files: Files,
        log: UpdateLog,
        make_due: Callable[[Update], None],
    ) -> None:
        self._records = records
        self._analyst = analyst
        self._files = files
        self._log = log
        self._make_due = make_due

    # What terminals say

    def compare(
        self, update: Update, terminal: Terminal, before: Terminal | None, now: float
    ) -> None:
        """What a registration says about an update. In a transaction."""
        # An update that was given up here may have gone on there.
        late = update.state.ended and terminal.last_update_id == update.id
        if update.state is UpdateState.SUCCEEDED or (update.state.ended and not late):
            return
        runs = terminal.state is TerminalState.APPLICATION
        if runs and terminal.digest == update.digest:
            text = f"the terminal runs {terminal.version}"
            result = Result.SUCCESS
            if terminal.last_result is Result.RESTORED and late:
                return  # It did fail; somebody has put that software there by hand.
            if terminal.last_result in (Result.RESTORED, Result.RESTORED_BY_LINK):
                result = terminal.last_result
                text += f", {result.text}"
            self._log.change(update, UpdateState.SUCCEEDED, text, now, result)
            return
        if update.commanded:
            return  # The rest is a matter of its session.
        if runs and update.restoration and not late:
            text = f"the terminal runs {terminal.version} without it"
            self._log.change(update, UpdateState.CANCELLED, text, now)
            return
        if late or update.state is UpdateState.PENDING or before is None:
            return
        self._judge(update, terminal, before, now)

    def _judge(self, update: Update, terminal: Terminal, before: Terminal, now: float) -> None:
        """What the verdict of a terminal, that does not run the new software, says about it."""
        # A verdict that the terminal had told before this update is about an earlier one.
        verdict = (terminal.last_update_id, terminal.last_result)
        if verdict == (before.last_update_id, before.last_result):
            return
        runs = terminal.state is TerminalState.APPLICATION
        mine = terminal.last_update_id == update.id and terminal.last_result is not Result.SUCCESS
        interrupted = runs and terminal.last_result is Result.INTERRUPTED
        broken_off = not runs and terminal.last_result in _BROKEN_OFF
        if mine and (interrupted or broken_off):
            return  # It goes on: what the terminal is to run has not changed.
        if mine and terminal.last_result in _FULL_MAY_DO:
            self._give_up_difference(update, terminal.last_result, now)
            return
        restored = update.state is UpdateState.REWRITING and terminal.last_result is Result.RESTORED
        if mine or restored:
            text = terminal.last_result.text
            self._log.change(update, UpdateState.FAILED, text, now, terminal.last_result)

    def report(self, report: Report, now: float) -> aiocoap.Message:
        """The answer to ``POST /report``."""
        with self._records.transaction():
            update = self._records.update(report.update_id)
            if update is None or update.serial != report.serial:
                return aiocoap.Message(code=aiocoap.NOT_FOUND)
            self._advance(update, report, now)
        return aiocoap.Message(code=aiocoap.CHANGED)

    def _advance(self, update: Update, report: Report, now: float) -> None:
        finished = report.phase is Phase.FINISHED
        if update.state is UpdateState.PENDING:
            return  # Never announced: this is about an update of another server.
        if update.state.ended and update.state is not UpdateState.CANCELLED:
            return
        if finished and report.result is Result.SUCCESS:
            self._log.note(update.serial, "the new software confirmed itself", now, update.id)
        elif update.commanded:
            return  # Its registrations say where the terminal is, its results what it did.
        elif finished and report.result in _FULL_MAY_DO:
            self._give_up_difference(update, report.result, now)
        elif finished:
            if update.state is not UpdateState.CANCELLED:
                text = report.text or report.result.text
                self._log.change(update, UpdateState.FAILED, text, now, report.result)
        else:
            self._go_on(update, _STATE_OF_PHASE[report.phase], report.text, now)

    def _go_on(self, update: Update, state: UpdateState, text: str, now: float) -> None:
        if update.state is UpdateState.CANCELLED:
            if state is not UpdateState.TRANSFERRING:
                self._log.change(update, state, "the cancellation came too late", now)
        elif _ORDER.index(state) > _ORDER.index(update.state):
            self._log.change(update, state, text, now)

    def file(
        self, request: aiocoap.Message, name: str, now: float, serial: str | None = None
    ) -> aiocoap.Message:
        """The answer to ``GET /file/<name>``; ``serial``: only this terminal can have asked."""
        if request.code != aiocoap.GET:
            return aiocoap.Message(code=aiocoap.METHOD_NOT_ALLOWED)
        update_id = int(name) if name.isascii() and name.isdigit() and len(name) <= 10 else 0
        update = self._records.update(update_id)
        if update is None or update.state.ended or update.commanded:
            return aiocoap.Message(code=aiocoap.NOT_FOUND)
        if update.state is UpdateState.PENDING or serial not in (None, update.serial):
            return aiocoap.Message(code=aiocoap.NOT_FOUND)
        if request.opt.accept not in (None, FILE_FORMAT):
            return aiocoap.Message(code=aiocoap.NOT_ACCEPTABLE)
        response = self._files.answer_block(update, request)
        if response.code == aiocoap.CONTENT and update.state is UpdateState.ANNOUNCED:
            with self._records.transaction():
                self._log.change(update, UpdateState.TRANSFERRING, "", now)
        return response

    # What the server announces

    def announcement(self, update: Update, terminal: Terminal, now: float) -> Announcement | None:
        """What to announce to a terminal now, if anything."""
        image = self._records.image(update.digest)
        if update.state not in WAITING or image is None:
            return None
        with self._records.transaction():
            wrong = self._why_not(update, image, terminal)
            if wrong is not None:
                text, result = wrong
                self._log.change(update, UpdateState.REFUSED, text, now, result)
                return None
            difference = None
            if terminal.state is TerminalState.APPLICATION and update.kind is not Kind.FULL_IMAGE:
                if not self._analyst.ready(terminal.digest, image, now):
                    note = "its differential file is made"
                    self._log.note(terminal.serial, note, now, update.id)
                    return None
                difference = self._files.difference(terminal.digest, image.digest)
            update = replace(
                update,
                kind=Kind.FULL_IMAGE if difference is None else Kind.DIFFERENTIAL,
                from_version=terminal.version,
                from_digest=terminal.digest,
            )
            if update.state is UpdateState.PENDING:
                self._log.change(update, UpdateState.ANNOUNCED, "", now)
            else:
                self._records.save_update(update)
        return _announcement(update, image, difference)

    def _why_not(
        self, update: Update, image: Image, terminal: Terminal
    ) -> tuple[str, Result | None] | None:
        wrong = foresee_refusal(image, terminal)
        if wrong is not None:
            return f"not announced: {wrong.text}", wrong
        if is_older(image, terminal) and not update.downgrade and not update.restoration:
            text = f"not announced: {image.version} is older than {terminal.version}"
            return f"{text}, and no downgrade was ordered", None
        if update.restoration or terminal.state is not TerminalState.APPLICATION:
            return None  # Software that can run comes first.
        runs = self._records.image(terminal.digest)
        if runs is None or runs.userdata_format == image.userdata_format:
            return None
        return "not announced: it keeps the user's data in another format", None

    def decided(self, update: Update, response: aiocoap.Message | None, now: float) -> None:
        """What came of an announcement."""
        if response is None or not response.code.is_successful():
            why = "was not answered" if response is None else f"was answered {response.code}"
            with self._records.transaction():
                self._log.note(update.serial, f"the announcement {why}", now, update.id)
            return
        try:
            decision = Decision.decode(response.payload)
        except LinkError as error:
            with self._records.transaction():
                text = f"the decision is malformed: {error}"
                self._log.note(update.serial, text, now, update.id)
            return
        if update.state not in WAITING:
            return
        with self._records.transaction():
            if decision.result is Result.SUCCESS:
                self._log.change(update, UpdateState.TRANSFERRING, decision.text, now)
            elif decision.result is Result.BUSY:
                # Another update that this server has given up, or this one, the answer to an
                # earlier announcement having been lost: the next registration will tell.
                self._log.note(update.serial, decision.result.text, now, update.id)
            elif update.kind is Kind.DIFFERENTIAL and decision.result in _FULL_MAY_DO:
                self._give_up_difference(update, decision.result, now)
            else:
                text = decision.text or decision.result.text
                if decision.result is Result.NOT_ENOUGH_SRAM:
                    text += f" ({decision.needed} bytes needed, {decision.possible} possible)"
                self._log.change(update, UpdateState.REFUSED, text, now, decision.result)

    def _give_up_difference(self, update: Update, result: Result, now: float) -> None:
        """The differential file will not do: announce the full image.

        A terminal says so twice, in a report and when it registers; of a full image, which is
        announced by then, it says such things in its decision only.
        """
        if update.kind is not Kind.DIFFERENTIAL or update.state.ended:
            return
        text = f"the full image is sent, the differential file will not do: {result.text}"
        update = replace(update, kind=Kind.FULL_IMAGE)
        self._files.begin_anew(update.id)
        self._make_due(self._log.change(update, UpdateState.ANNOUNCED, text, now))

    def stands(self, update: Update, response: aiocoap.Message | None, now: float) -> None:
        """A terminal with an update under way said how far it is, or nothing."""
        if response is None or not response.code.is_successful():
            return
        try:
            status = Status.decode(response.payload)
        except LinkError:
            return
        if status.phase is Phase.IDLE or status.update_id != update.id:
            with self._records.transaction():
                text = "to be announced again, the terminal does not know of it"
                update = self._log.change(update, UpdateState.ANNOUNCED, text, now)
            self._make_due(update)


def _announcement(update: Update, image: Image, difference: bytes | None) -> Announcement:
    file_size, file_digest, memory = image.file_size, image.file_digest, 0
    if difference is not None:
        file_size, file_digest = len(difference), hashlib.sha256(difference).digest()
        memory = read_header(difference).memory
    return Announcement(
        update_id=update.id,
        kind=Kind.FULL_IMAGE if difference is None else Kind.DIFFERENTIAL,
        file_size=file_size,
        file_digest=file_digest,
        version=image.version,
        image_digest=image.digest,
        image_size=image.size,
        working_memory=memory,
    )
