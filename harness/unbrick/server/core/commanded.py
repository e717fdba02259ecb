"""Commanded updates (rows B5, B8, B10): sessions that are planned, stored and worked off.

A session is a plan (``server.plan``) in the records. This server, or the one after it, needs
nothing else to go on. The records are committed before a message leaves that relies on them. A step
that was sent without a known result is sent again. One message of a session is under way at a time.

The terminal's registrations say where it is: in the application (backing up, starting the resident
program, giving back), in the resident program (erasing, writing, checking), or in restoration. Only
a registration with the new digest is success. How a session ends is said in ``server.sessions``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache

import aiocoap

from unbrick.errors import LinkError
from unbrick.image.format import ImageInfo
from unbrick.server.core import plan
from unbrick.server.core.analysis import Analyst
from unbrick.server.core.backups import Keeper
from unbrick.server.core.ending import PERSON
from unbrick.server.core.files import Files
from unbrick.server.core.restoring import is_older
from unbrick.server.core.update_log import UpdateLog
from unbrick.server.records.contract import Records
from unbrick.server.records.sessions import (
    COMMANDS,
    CommandedSession,
    PlannedStep,
    SessionState,
    StepKind,
    StepState,
    may_have_erased,
)
from unbrick.server.records.updates import Terminal, Update, UpdateState
from unbrick.wire.coap import post
from unbrick.wire.commands import (
    BackupPiece,
    BackupRequest,
    Check,
    Command,
    CommandAnswer,
    CommandResult,
    Erase,
    Finish,
    Leave,
    RestoreAnswer,
    RestorePiece,
    Upgrade,
    Write,
)
from unbrick.wire.messages import Decision, Result, TerminalState

LAST_COMMAND = 0xFFFF_FFFF
"""A number of a command that nothing can follow."""

Request = BackupRequest | Upgrade | Command | RestorePiece


@dataclass
class _Asked:
    """The one request of a session that is under way; ``overtaken``: what came of it is known."""

    request: Request
    time: float
    overtaken: bool = False


def find_path(request: Request) -> str:
    """The resource of the terminal that a request goes to."""
    if isinstance(request, Command):
        return request.path
    return {BackupRequest: "backup", Upgrade: "upgrade", RestorePiece: "restore"}[type(request)]


def _message(request: Request) -> aiocoap.Message:
    return post(find_path(request), request.encode())


def _only_received(request: Request, response: aiocoap.Message | None) -> bool:
    """Whether a response says that a command has come; what comes of it comes in a request."""
    if response is None or not response.code.is_successful() or not isinstance(request, Command):
        return False
    try:
        return CommandAnswer.decode(response.payload).result in (Result.SUCCESS, Result.BUSY)
    except LinkError:
        return False


@lru_cache(maxsize=16)
def _digest_blank(length: int) -> bytes:
    """The SHA-256 of so many bytes of erased NOR."""
    return hashlib.sha256(b"\xff" * length).digest()


class Commander(Keeper):
    """Works off the sessions of a server. Without input or output, as the core is.

    Args:
        records: what the server remembers.
        analyst: knows which ranges of a pair of images are prepared.
        files: the images.
        log: writes down what happens to updates.
        inspect: what an image file is; its signature is what the terminal checks.
        make_due: called with an update whose terminal is to be sent the next message.
    """

    def __init__(
        self,
        records: Records,
        analyst: Analyst,
        files: Files,
        log: UpdateLog,
        inspect: Callable[[bytes], ImageInfo],
        make_due: Callable[[Update], None],
    ) -> None:
        super().__init__(records, log)
        self._analyst = analyst
        self._files = files
        self._inspect = inspect
        self._make_due = make_due
        self._asked: dict[int, _Asked] = {}

    # Beginning and cancelling

    def begin(self, update: Update, terminal: Terminal, now: float) -> CommandedSession | None:
        """Plan the session of an update, if what it needs is prepared. In a transaction."""
        image = self._records.image(update.digest)
        base = self._records.image(terminal.digest)
        if image is None or terminal.state is not TerminalState.APPLICATION:
            return None
        if base is None:
            text = f"cannot be commanded: what {terminal.serial} runs is not published here"
            self._log.change(update, UpdateState.FAILED, text, now)
            return None
        if is_older(image, terminal) and not update.downgrade:
            text = f"not begun: {image.version} is older than {terminal.version}"
            text += ", and no downgrade was ordered"
            self._log.change(update, UpdateState.FAILED, text, now)
            return None
        if not self._analyst.ready(base.digest, image, now):
            self._log.note(update.serial, "what differs is looked for", now, update.id)
            return None
        ranges = self._records.ranges(base.digest, image.digest)
        if not ranges:
            self._log.change(update, UpdateState.FAILED, "cannot be commanded: no ranges", now)
            return None
        self._records.save_update(
            replace(update, from_version=base.version, from_digest=base.digest)
        )
        new_format = base.userdata_format != image.userdata_format
        return self._records.add_session(
            CommandedSession(
                id=0,
                update_id=update.id,
                serial=update.serial,
                base=base.digest,
                digest=image.digest,
                state=SessionState.PLANNED,
                text="",
                created=now,
                changed=now,
            ),
            plan.make_plan(ranges, image.file_size, new_format=new_format),
        )

    def commands(self, terminal: Terminal) -> bool:
        """Whether a terminal in the resident program is told there what to do."""
        session = self.live(terminal.serial)
        return (
            terminal.state is TerminalState.COMMANDED
            and session is not None
            and session.update_id == terminal.last_update_id
        )

    def send_away(self, terminal: Terminal) -> aiocoap.Message | None:
        """What a terminal is told in whose resident program nothing is to be done, if it is."""
        if terminal.state is not TerminalState.COMMANDED or self.commands(terminal):
            return None
        return _message(Leave(terminal.last_update_id, terminal.nonce, LAST_COMMAND))

    def can_cancel(self, update: Update) -> bool:
        """Whether nothing has been erased yet."""
        session = self._session(update)
        if update.state.ended:
            return False
        if session is None:
            return True
        return session.outcome is None and not may_have_erased(self._records.steps(session.id))

    def cancelled(self, update: Update, now: float) -> None:
        """The update was cancelled, which ``can_cancel`` allowed. In a transaction."""
        session = self._session(update)
        if session is None:
            return
        session = self._decide(session, SessionState.CANCELLED, "", now)
        self._delete_backup(session, "the update was cancelled before anything was erased", now)
        if not plan.find_step(StepKind.PREPARE, self._records.steps(session.id)).begun:
            self._end(session, now)
        self._make_due(update)  # The terminal may have to leave.

    def abandoned(self, update: Update, now: float) -> bool:
        """A person gives a terminal up: its backup is deleted, wherever its user's data is.

        In a transaction. Gives whether there was a session to give up.
        """
        session = self._session(update)
        if session is None:
            return False
        text = "given up by a person"
        if session.outcome is None:
            session = self._fail(session, update, text, now)
        self._delete_backup(session, text, now, PERSON)
        self._end(session, now)
        return True

    # What the terminal says by registering

    def registered(self, terminal: Terminal, now: float) -> None:
        """A terminal says where it is. In a transaction."""
        session = self.live(terminal.serial)
        update = self._records.update(session.update_id) if session else None
        if session is None or update is None:
            return
        mine = terminal.last_update_id == update.id
        if terminal.state is TerminalState.COMMANDED and mine:
            self._in_resident_program(session, now)
        elif terminal.state is TerminalState.APPLICATION:
            if terminal.digest == session.digest:
                session = self._arrived(session, update, now)
            elif session.outcome is None:
                session = self._in_application(session, update, terminal, now)
            if session.outcome is not None:
                self._settle(session, now)
        else:
            if session.outcome is None:
                result = terminal.last_result if mine else Result.SUCCESS
                text = result.text if result else "the terminal needs to be restored"
                session = self._fail(session, update, text, now, result)
            if not may_have_erased(self._records.steps(session.id)):
                self._settle(session, now)
        self._make_due(update)

    def begin_anew(self, serial: str) -> None:
        """Another server has spoken with a terminal: of what is only in memory, nothing holds."""
        session = self.live(serial)
        if session is not None:
            self._forget(session)
            self._asked.pop(session.update_id, None)

    def _in_resident_program(self, session: CommandedSession, now: float) -> None:
        steps = self._records.steps(session.id)
        prepare = plan.find_step(StepKind.PREPARE, steps)
        known = prepare.begun and self._backup(session) is not None
        if session.outcome is not None or not known:
            return  # It is told to leave.
        if prepare.state is not StepState.DONE:
            self._prepared(session, now)
        # It was taken to be elsewhere, which was old news.
        late = [s for s in steps if s.kind in COMMANDS and s.state is StepState.SKIPPED]
        self._save(plan.reset_steps(late, now))

    def _arrived(self, session: CommandedSession, update: Update, now: float) -> CommandedSession:
        """The terminal runs the new software, by whatever way."""
        steps = self._records.steps(session.id)
        restart = plan.find_step(StepKind.RESTART, steps)
        if restart.state is StepState.SENT:
            done = replace(restart, state=StepState.DONE, result=int(Result.SUCCESS), changed=now)
            self._records.save_step(done)
        late = session.outcome is SessionState.FAILED and update.state is UpdateState.SUCCEEDED
        if session.outcome is None or late:
            session = self._decide(session, SessionState.SUCCEEDED, "", now)
        return session

    def _in_application(
        self, session: CommandedSession, update: Update, terminal: Terminal, now: float
    ) -> CommandedSession:
        """It runs other software than the new one, and nothing is decided."""
        if terminal.digest != session.base:
            text = f"the terminal runs {terminal.version}, for which it was not planned"
            return self._fail(session, update, text, now)
        steps = self._records.steps(session.id)
        prepare = plan.find_step(StepKind.PREPARE, steps)
        if prepare.state is not StepState.DONE:
            return session
        prepare = replace(prepare, tries=prepare.tries + 1)
        if prepare.tries >= plan.MAX_STARTS:
            text = f"the terminal has left {prepare.tries} times"
            return self._fail(session, update, text, now, terminal.last_result)
        self._save([prepare])
        if may_have_erased(steps):
            self._log.note(update.serial, "the terminal has left; it begins again", now, update.id)
            self._save(plan.skip_steps(steps, now, plan.REWRITING))
        else:
            self._save(plan.reset_steps([prepare], now))
        return session

    # What is sent

    def message(self, update: Update, terminal: Terminal, now: float) -> aiocoap.Message | None:
        """The next message of an update's session to its terminal. Not in a transaction."""
        with self._records.transaction():
            session = self._session(update)
            if session is None:
                session = None if update.state.ended else self.begin(update, terminal, now)
            if session is None:
                return None
            request = self._next(session, update, terminal, now)
        if request is None:
            return None
        self._asked[update.id] = _Asked(request, now)
        return _message(request)

    def _next(
        self, session: CommandedSession, update: Update, terminal: Terminal, now: float
    ) -> Request | None:
        step = self._records.next_step(session.id)
        if terminal.state is TerminalState.COMMANDED:
            if terminal.last_update_id != update.id:
                return None
            if session.outcome is not None or step is None or step.kind not in COMMANDS:
                return Leave(update.id, terminal.nonce, session.command + 1)
            return self._command(session, step, terminal, now)
        if step is None or terminal.state is not TerminalState.APPLICATION:
            return None
        if step.kind is StepKind.BACK_UP:
            if session.state is SessionState.PLANNED:
                running = replace(session, state=SessionState.RUNNING, changed=now)
                self._records.save_session(running)
                self._log.change(update, UpdateState.ANNOUNCED, "the user's data is backed up", now)
            return self._piece_wanted(session, step, update, now)
        if step.kind is StepKind.PREPARE:
            return self._upgrade(session, step, update, now)
        if step.kind is StepKind.GIVE_BACK:
            return self._piece_back(session, step, update, now)
        return None  # It is on its way into the resident program.

    def _command(
        self, session: CommandedSession, step: PlannedStep, terminal: Terminal, now: float
    ) -> Command:
        if step.state is not StepState.SENT:
            session = replace(session, command=session.command + 1, changed=now)
            self._records.save_session(session)
            self._sent(step, now)
        head = session.update_id, terminal.nonce, session.command
        if step.kind is StepKind.ERASE:
            return Erase(*head, step.offset, step.length)
        if step.kind is StepKind.RESTART:
            return Finish(*head)
        image = self._files.image(session.digest)
        if step.kind is StepKind.CHECK:
            return Check(*head, step.offset, step.length, hashlib.sha256(image).digest())
        return Write(*head, step.offset, plan.slice_data(step, image))

    def _upgrade(
        self, session: CommandedSession, step: PlannedStep, update: Update, now: float
    ) -> Request | None:
        backup, image = self._backup(session), self._records.image(session.digest)
        if backup is None or image is None:
            return None
        self._sent(step, now)
        return Upgrade(
            update_id=update.id,
            version=image.version,
            digest=image.digest,
            size=image.size,
            signature=self._inspect(self._files.image(image.digest)).signature,
            hardware_id=image.hardware_id,
            security_counter=image.security_counter,
            backup=backup.checksum,
        )

    # What comes back

    def outcome(self, update: Update, response: aiocoap.Message | None, now: float) -> None:
        """What came of the last message of an update's session; None: there was no response."""
        asked = self._asked.pop(update.id, None)
        if asked is None:
            return
        if _only_received(asked.request, response):
            if asked.overtaken:
                self._make_due(update)
            return
        with self._records.transaction():
            session = self._session(update)
            if session is None:
                return
            if response is None or not response.code.is_successful():
                self._unanswered(session, update, asked, response, now)
                return
            try:
                more = self._take(session, update, asked.request, response.payload, now)
            except LinkError as error:
                text = f"the answer to {find_path(asked.request)} is malformed: {error}"
                self._log.note(update.serial, text, now, update.id)
                return
        if more or asked.overtaken:
            self._make_due(update)

    def _unanswered(
        self,
        session: CommandedSession,
        update: Update,
        asked: _Asked,
        response: aiocoap.Message | None,
        now: float,
    ) -> None:
        """It is sent again when the terminal registers, or at once when it has meanwhile."""
        terminal = self._records.terminal(session.serial)
        if asked.overtaken or (terminal is not None and terminal.last_seen > asked.time):
            self._make_due(update)
            return
        if response is not None and self._keeps_none(session, asked.request):
            text = f"its software keeps no backup: {response.code}"
            self._settle(self._fail(session, update, text, now), now)
            return
        why = "was not answered" if response is None else f"was answered {response.code}"
        self._log.note(update.serial, f"{find_path(asked.request)} {why}", now, update.id)

    def _take(
        self,
        session: CommandedSession,
        update: Update,
        request: Request,
        payload: bytes,
        now: float,
    ) -> bool:
        """Take an answer; gives whether there is something to send at once."""
        if isinstance(request, BackupRequest):
            return self._backed_up(session, update, request, BackupPiece.decode(payload), now)
        if isinstance(request, Upgrade):
            return self._upgrading(session, update, Decision.decode(payload), now)
        if isinstance(request, RestorePiece):
            return self._gave_back(session, update, request, RestoreAnswer.decode(payload), now)
        return self._commanded(session, update, request, CommandAnswer.decode(payload), now)

    def _upgrading(
        self, session: CommandedSession, update: Update, decision: Decision, now: float
    ) -> bool:
        steps = self._records.steps(session.id)
        prepare = plan.find_step(StepKind.PREPARE, steps)
        if session.outcome is not None or prepare.state is not StepState.SENT:
            return False
        if decision.result is Result.SUCCESS:
            self._prepared(session, now)
            return False  # It says so when the resident program runs.
        if decision.result is Result.BUSY:
            self._log.note(update.serial, decision.result.text, now, update.id)
            return False
        text = decision.text or decision.result.text
        prepare = replace(prepare, tries=prepare.tries + 1)
        if decision.result is Result.USERDATA_CHANGED and prepare.tries < plan.MAX_STARTS:
            self._log.note(update.serial, text, now, update.id)
            self._delete_backup(session, "the user's data has changed, another one follows", now)
            others = (
                plan.find_step(kind, steps) for kind in (StepKind.BACK_UP, StepKind.DELETE_BACKUP)
            )
            self._save(plan.reset_steps((*others, prepare), now))
            return True
        self._settle(self._fail(session, update, text, now, decision.result), now)
        return False

    def _prepared(self, session: CommandedSession, now: float) -> None:
        self._done(plan.find_step(StepKind.PREPARE, self._records.steps(session.id)), now)
        update = self._records.update(session.update_id)
        if update is not None and update.state in (UpdateState.PENDING, UpdateState.ANNOUNCED):
            self._log.change(update, UpdateState.REWRITING, "the resident program is started", now)

    def _commanded(
        self,
        session: CommandedSession,
        update: Update,
        request: Command,
        answer: CommandAnswer,
        now: float,
    ) -> bool:
        """The resident program does not take a command."""
        if answer.result is Result.OUT_OF_TURN:
            terminal = self._records.terminal(session.serial)
            return terminal is not None and terminal.nonce != request.nonce
        if session.outcome is not None:
            return False
        step = self._records.next_step(session.id)
        if step is None or step.state is not StepState.SENT or request.step != session.command:
            return False
        self._failed(session, update, step, answer.result, answer.result.text, now)
        return True

    def result(self, found: CommandResult, now: float) -> aiocoap.Message:
        """The answer to ``POST /result``: what came of a command."""
        with self._records.transaction():
            update = self._records.update(found.update_id)
            terminal = self._records.terminal(found.serial)
            session = self._session(update) if update is not None else None
            if update is None or terminal is None or update.serial != found.serial:
                return aiocoap.Message(code=aiocoap.NOT_FOUND)
            # What is not awaited is answered, too, so that the terminal stops saying it.
            expected = terminal.state is TerminalState.COMMANDED and terminal.nonce == found.nonce
            if session is not None and session.outcome is None and expected:
                step = self._records.next_step(session.id)
                if step is not None and step.state is StepState.SENT:
                    self._carried_out(session, update, step, found, now)
        return aiocoap.Message(code=aiocoap.CHANGED)

    def _carried_out(
        self,
        session: CommandedSession,
        update: Update,
        step: PlannedStep,
        found: CommandResult,
        now: float,
    ) -> None:
        if found.step != session.command or step.kind not in COMMANDS:
            return
        result, text = found.result, found.text or found.result.text
        if result is Result.SUCCESS and not self._is_so(session, step, found.digest):
            result, text = Result.OTHER_CONTENT, Result.OTHER_CONTENT.text
        if result is not Result.SUCCESS:
            self._failed(session, update, step, result, text, now)
        elif step.kind is StepKind.RESTART:
            # Whether it has succeeded is not known before the new software registers.
            self._records.save_step(replace(step, text="on trial", changed=now))
            return
        else:
            self._done(step, now)
        asked = self._asked.get(update.id)
        if asked is not None:
            asked.overtaken = True
        self._make_due(update)

    def _is_so(self, session: CommandedSession, step: PlannedStep, digest: bytes) -> bool:
        """Whether the NOR reads as it must after a command."""
        if step.kind is StepKind.RESTART:
            return True
        if step.kind is StepKind.ERASE:
            return _digest_blank(step.length) == digest
        image = self._files.image(session.digest)
        expected = image if step.kind is StepKind.CHECK else plan.slice_data(step, image)
        return hashlib.sha256(expected).digest() == digest

    def _failed(
        self,
        session: CommandedSession,
        update: Update,
        step: PlannedStep,
        result: Result,
        text: str,
        now: float,
    ) -> None:
        """A command has failed: it is given again, with what it builds on, or all is given up."""
        where = f" at {step.offset:#x}" if step.offset else ""
        said = f"{step.kind.value}{where}: {text}"
        self._log.note(update.serial, said, now, update.id)
        step = replace(
            step,
            state=StepState.FAILED,
            tries=step.tries + 1,
            result=int(result),
            text=text,
            changed=now,
        )
        self._records.save_step(step)
        repeat = None
        if result not in plan.LASTING:
            repeat = plan.plan_repeat(self._records.steps(session.id), step, now)
        if repeat is None:
            # A command that makes no sense there says nothing of the image.
            self._fail(session, update, said, now, None if result in plan.SENSELESS else result)
        else:
            self._save(repeat)
