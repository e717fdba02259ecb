"""Commanded updates (rows B5, B6, B8, B10): sessions that are planned, stored and worked off.

A session is a plan (``server.plan``) in the records. Whoever goes on with it, this server or the
one after it, needs nothing else: what a message relies on is committed before it leaves, and a step
that was sent without a known result is sent again. One message of a session is under way at a time.

The terminal's registrations say where it is: in the application (backing up, starting the resident
program, giving back), in the resident program (erasing, writing, checking), or in restoration. Only
a registration with the new digest is success. ``Session.outcome`` is decided when the rewriting is
over, well or not; the session ends when the user's data is back in its place, whatever software
runs then. When it is back and nothing was decided (the terminal had left by itself), all begins
again.

The backup is deleted when the terminal has confirmed that it has stored it, or when nothing was
ever erased. Until then it is kept, whatever happens, unless a person gives the terminal up.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import aiocoap

from unbrick.errors import LinkError
from unbrick.image.format import ImageInfo
from unbrick.server import plan
from unbrick.server.analysis import Analyst
from unbrick.server.files import Files
from unbrick.server.records import Records, Terminal, Update, UpdateState
from unbrick.server.update_log import UpdateLog
from unbrick.server.user_records import (
    Actor,
    Backup,
    Session,
    SessionState,
    Step,
    StepKind,
    StepState,
)
from unbrick.wire.commands import (
    PIECE,
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
from unbrick.wire.messages import CBOR_FORMAT, Decision, Result, TerminalState

ACTOR, PERSON = "server", "operator"
"""Who touches backups, in the audit: the server by itself, or because it was told to."""

MISSES = 3
"""Answers that lead nowhere until the server waits for the terminal's next registration."""

LAST_COMMAND = 0xFFFF_FFFF
"""A number of a command that nothing can follow."""

Request = BackupRequest | Upgrade | Command | RestorePiece


@dataclass
class _Gathered:
    """A backup that is being fetched, piece by piece."""

    size: int = 0
    checksum: bytes = b""
    data: bytes = b""
    misses: int = 0


@dataclass
class _Given:
    """A backup that is being given back; ``offset`` is what the terminal wants next."""

    data: bytes
    checksum: bytes
    offset: int = 0
    misses: int = 0


@dataclass
class _Asked:
    """The one request of a session that is under way; ``overtaken``: what came of it is known."""

    request: Request
    time: float
    overtaken: bool = False


def path_of(request: Request) -> str:
    """The resource of the terminal that a request goes to."""
    if isinstance(request, Command):
        return request.path
    return {BackupRequest: "backup", Upgrade: "upgrade", RestorePiece: "restore"}[type(request)]


def _message(request: Request) -> aiocoap.Message:
    payload = request.encode()
    message = aiocoap.Message(code=aiocoap.POST, payload=payload, uri_path=(path_of(request),))
    message.opt.content_format = CBOR_FORMAT
    return message


class Commander:
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
        self._records = records
        self._analyst = analyst
        self._files = files
        self._log = log
        self._inspect = inspect
        self._make_due = make_due
        self._asked: dict[int, _Asked] = {}
        self._gathered: dict[int, _Gathered] = {}
        self._given: dict[int, _Given] = {}

    # Beginning and cancelling

    def live(self, serial: str) -> Session | None:
        """The session of a terminal that has not ended."""
        return next(iter(self._records.unfinished_sessions(serial)), None)

    def open_updates(self) -> list[Update]:
        """The updates that sessions are still going on for, ended or not."""
        found = [
            self._records.update(item.update_id) for item in self._records.unfinished_sessions()
        ]
        return [update for update in found if update is not None]

    def _session(self, update: Update) -> Session | None:
        live = self.live(update.serial)
        return live if live is not None and live.update_id == update.id else None

    def begin(self, update: Update, terminal: Terminal, now: float) -> Session | None:
        """Plan the session of an update, if what it needs is prepared. In a transaction."""
        image = self._records.image(update.digest)
        base = self._records.image(terminal.digest)
        if image is None or terminal.state is not TerminalState.APPLICATION:
            return None
        if base is None:
            text = f"cannot be commanded: what {terminal.serial} runs is not published here"
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
            Session(
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
            plan.plan(ranges, image.file_size, new_format=new_format),
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
        return session.outcome is None and not plan.touched(self._records.steps(session.id))

    def cancelled(self, update: Update, now: float) -> None:
        """The update was cancelled, which ``can_cancel`` allowed. In a transaction."""
        session = self._session(update)
        if session is None:
            return
        session = self._decide(session, SessionState.CANCELLED, "", now)
        self._delete_backup(session, "the update was cancelled before anything was erased", now)
        if not plan.begun(plan.of(StepKind.PREPARE, self._records.steps(session.id))):
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
            if not plan.touched(self._records.steps(session.id)):
                self._settle(session, now)
        self._make_due(update)

    def _in_resident_program(self, session: Session, now: float) -> None:
        steps = self._records.steps(session.id)
        prepare = plan.of(StepKind.PREPARE, steps)
        known = plan.begun(prepare) and self._backup(session) is not None
        if session.outcome is not None or not known:
            return  # It is told to leave.
        if prepare.state is not StepState.DONE:
            self._prepared(session, now)
        # It was taken to be elsewhere, which was old news.
        late = [s for s in steps if s.kind in plan.COMMANDS and s.state is StepState.SKIPPED]
        self._save(plan.again(late, now))

    def _arrived(self, session: Session, update: Update, now: float) -> Session:
        """The terminal runs the new software, by whatever way."""
        steps = self._records.steps(session.id)
        restart = plan.of(StepKind.RESTART, steps)
        if restart.state is StepState.SENT:
            done = replace(restart, state=StepState.DONE, result=int(Result.SUCCESS), changed=now)
            self._records.save_step(done)
        late = session.outcome is SessionState.FAILED and update.state is UpdateState.SUCCEEDED
        if session.outcome is None or late:
            session = self._decide(session, SessionState.SUCCEEDED, "", now)
        return session

    def _in_application(
        self, session: Session, update: Update, terminal: Terminal, now: float
    ) -> Session:
        """It runs other software than the new one, and nothing is decided."""
        if terminal.digest != session.base:
            text = f"the terminal runs {terminal.version}, for which it was not planned"
            return self._fail(session, update, text, now)
        steps = self._records.steps(session.id)
        prepare = plan.of(StepKind.PREPARE, steps)
        if prepare.state is not StepState.DONE:
            return session
        prepare = replace(prepare, tries=prepare.tries + 1)
        if prepare.tries >= plan.MAX_STARTS:
            text = f"the terminal has left {prepare.tries} times"
            return self._fail(session, update, text, now, terminal.last_result)
        self._save([prepare])
        if plan.touched(steps):
            self._log.note(update.serial, "the terminal has left; it begins again", now, update.id)
            self._save(plan.skipped(steps, now, plan.REWRITING))
        else:
            self._save(plan.again([prepare], now))
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
        self, session: Session, update: Update, terminal: Terminal, now: float
    ) -> Request | None:
        step = self._records.next_step(session.id)
        if terminal.state is TerminalState.COMMANDED:
            if terminal.last_update_id != update.id:
                return None
            if session.outcome is not None or step is None or step.kind not in plan.COMMANDS:
                return Leave(update.id, terminal.nonce, session.command + 1)
            return self._command(session, step, terminal, now)
        if step is None or terminal.state is not TerminalState.APPLICATION:
            return None
        if step.kind is StepKind.BACK_UP:
            if session.state is SessionState.PLANNED:
                running = replace(session, state=SessionState.RUNNING, changed=now)
                self._records.save_session(running)
                self._log.change(update, UpdateState.ANNOUNCED, "the user's data is backed up", now)
            self._sent(step, now)
            return BackupRequest(
                update.id, len(self._gathered.setdefault(session.id, _Gathered()).data)
            )
        if step.kind is StepKind.PREPARE:
            return self._upgrade(session, step, update, now)
        if step.kind is StepKind.GIVE_BACK:
            return self._piece_back(session, step, update, now)
        return None  # It is on its way into the resident program.

    def _sent(self, step: Step, now: float) -> None:
        if step.state is not StepState.SENT:
            self._records.save_step(replace(step, state=StepState.SENT, changed=now))

    def _command(self, session: Session, step: Step, terminal: Terminal, now: float) -> Command:
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
        return Write(*head, step.offset, plan.written(step, image))

    def _upgrade(self, session: Session, step: Step, update: Update, now: float) -> Request | None:
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

    def _piece_back(
        self, session: Session, step: Step, update: Update, now: float
    ) -> Request | None:
        backup = self._backup(session)
        if backup is None:
            return None
        given = self._given.get(session.id)
        if given is None:
            why = Actor(ACTOR, now, "it is given back")
            given = _Given(self._records.read_backup(backup.id, why), backup.checksum)
            self._given[session.id] = given
        self._sent(step, now)
        piece = given.data[given.offset : given.offset + PIECE]
        return RestorePiece(update.id, len(given.data), given.checksum, given.offset, piece)

    # What comes back

    def outcome(self, update: Update, response: aiocoap.Message | None, now: float) -> None:
        """What came of the last message of an update's session; None: there was no response."""
        asked = self._asked.pop(update.id, None)
        if asked is None:
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
                text = f"the answer to {path_of(asked.request)} is malformed: {error}"
                self._log.note(update.serial, text, now, update.id)
                return
        if more or asked.overtaken:
            self._make_due(update)

    def _unanswered(
        self,
        session: Session,
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
        if response is not None and isinstance(asked.request, BackupRequest):
            gathered = self._gathered.setdefault(session.id, _Gathered())
            gathered.misses += 1
            if gathered.misses > MISSES:
                text = f"its software keeps no backup: {response.code}"
                self._settle(self._fail(session, update, text, now), now)
                return
        why = "was not answered" if response is None else f"was answered {response.code}"
        self._log.note(update.serial, f"{path_of(asked.request)} {why}", now, update.id)

    def _take(
        self, session: Session, update: Update, request: Request, payload: bytes, now: float
    ) -> bool:
        """Take an answer; gives whether there is something to send at once."""
        if isinstance(request, BackupRequest):
            return self._backed_up(session, update, request, BackupPiece.decode(payload), now)
        if isinstance(request, Upgrade):
            return self._upgrading(session, update, Decision.decode(payload), now)
        if isinstance(request, RestorePiece):
            return self._gave_back(session, update, request, RestoreAnswer.decode(payload), now)
        return self._commanded(session, update, request, CommandAnswer.decode(payload), now)

    def _backed_up(
        self,
        session: Session,
        update: Update,
        request: BackupRequest,
        piece: BackupPiece,
        now: float,
    ) -> bool:
        step = plan.of(StepKind.BACK_UP, self._records.steps(session.id))
        if session.outcome is not None or step.state is not StepState.SENT:
            return False
        gathered = self._gathered.setdefault(session.id, _Gathered())
        if piece.result in (Result.OUT_OF_TURN, Result.BUSY):
            # It has started anew, and seals again what has not been fetched.
            return self._gather_again(session, gathered)
        if piece.result is not Result.SUCCESS:
            text = f"no backup: {piece.result.text}"
            self._settle(self._fail(session, update, text, now, piece.result), now)
            return False
        if request.offset == 0:
            gathered = _Gathered(piece.size, piece.checksum, b"", gathered.misses)
        belongs = (piece.size, piece.checksum) == (gathered.size, gathered.checksum)
        due = min(PIECE, gathered.size - len(gathered.data))
        if not belongs or request.offset != len(gathered.data) or len(piece.data) != due:
            return self._gather_again(session, gathered)
        gathered.data += piece.data
        self._gathered[session.id] = gathered
        if len(gathered.data) < gathered.size:
            return True
        if hashlib.sha256(gathered.data).digest() != gathered.checksum:
            return self._gather_again(session, gathered)
        del self._gathered[session.id]
        backup = Backup(0, session.id, session.serial, gathered.size, gathered.checksum, now)
        why = Actor(ACTOR, now, f"for update {update.id}")
        self._records.add_backup(backup, gathered.data, why)
        self._done(step, now)
        return True

    def _gather_again(self, session: Session, gathered: _Gathered) -> bool:
        """Fetch the backup from its beginning, at once or when the terminal registers."""
        misses = gathered.misses + 1
        if misses > MISSES:
            self._gathered.pop(session.id, None)
            return False
        self._gathered[session.id] = _Gathered(misses=misses)
        return True

    def _upgrading(self, session: Session, update: Update, decision: Decision, now: float) -> bool:
        steps = self._records.steps(session.id)
        prepare = plan.of(StepKind.PREPARE, steps)
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
            others = (plan.of(kind, steps) for kind in (StepKind.BACK_UP, StepKind.DELETE_BACKUP))
            self._save(plan.again((*others, prepare), now))
            return True
        self._settle(self._fail(session, update, text, now, decision.result), now)
        return False

    def _prepared(self, session: Session, now: float) -> None:
        self._done(plan.of(StepKind.PREPARE, self._records.steps(session.id)), now)
        update = self._records.update(session.update_id)
        if update is not None and update.state in (UpdateState.PENDING, UpdateState.ANNOUNCED):
            self._log.change(update, UpdateState.REWRITING, "the resident program is started", now)

    def _commanded(
        self,
        session: Session,
        update: Update,
        request: Command,
        answer: CommandAnswer,
        now: float,
    ) -> bool:
        """The resident program has received a command; what comes of it comes in a request."""
        if answer.result is Result.OUT_OF_TURN:
            terminal = self._records.terminal(session.serial)
            return terminal is not None and terminal.nonce != request.nonce
        if answer.result in (Result.SUCCESS, Result.BUSY) or session.outcome is not None:
            return False
        step = self._records.next_step(session.id)
        if step is None or step.state is not StepState.SENT or request.step != session.command:
            return False
        self._failed(session, update, step, answer.result, answer.result.text, now)
        return True

    def result(self, payload: bytes, now: float) -> aiocoap.Message:
        """The answer to ``POST /result``: what came of a command.

        Raises:
            LinkError: it is malformed.
        """
        found = CommandResult.decode(payload)
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
        self, session: Session, update: Update, step: Step, found: CommandResult, now: float
    ) -> None:
        if found.step != session.command or step.kind not in plan.COMMANDS:
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

    def _is_so(self, session: Session, step: Step, digest: bytes) -> bool:
        """Whether the NOR reads as it must after a command."""
        if step.kind is StepKind.RESTART:
            return True
        if step.kind is StepKind.ERASE:
            expected = b"\xff" * step.length
        else:
            image = self._files.image(session.digest)
            expected = image if step.kind is StepKind.CHECK else plan.written(step, image)
        return hashlib.sha256(expected).digest() == digest

    def _failed(
        self, session: Session, update: Update, step: Step, result: Result, text: str, now: float
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
            repeat = plan.repeated(self._records.steps(session.id), step, now)
        if repeat is None:
            # A command that makes no sense there says nothing of the image.
            self._fail(session, update, said, now, None if result in plan.SENSELESS else result)
        else:
            self._save(repeat)

    def _gave_back(
        self,
        session: Session,
        update: Update,
        request: RestorePiece,
        answer: RestoreAnswer,
        now: float,
    ) -> bool:
        step = plan.of(StepKind.GIVE_BACK, self._records.steps(session.id))
        given = self._given.get(session.id)
        if given is None or step.state is not StepState.SENT:
            return False
        if answer.result is not Result.SUCCESS:
            given.offset = 0  # From the beginning, when the terminal registers.
            text = f"the user's data cannot be given back: {answer.result.text}"
            self._log.note(update.serial, text, now, update.id)
            result = int(answer.result)
            self._records.save_step(replace(step, result=result, text=text, changed=now))
            return False
        if answer.offset == request.size:
            del self._given[session.id]
            self._done(step, now)
            self._delete_backup(session, "the terminal has confirmed that it has it", now)
            self._close(session, now)
            return self._records.next_step(session.id) is not None
        if answer.offset % PIECE or answer.offset > request.size:
            return False
        given.misses = given.misses + 1 if answer.offset <= given.offset else 0
        given.offset = answer.offset
        if given.misses > MISSES:
            given.misses = 0
            return False
        return True

    # How it ends

    def _decide(self, session: Session, outcome: SessionState, text: str, now: float) -> Session:
        """The rewriting is over; what is left is to see that the user's data is in its place."""
        self._gathered.pop(session.id, None)
        session = replace(session, outcome=outcome, text=text, changed=now)
        self._records.save_session(session)
        over = (StepKind.BACK_UP, *plan.REWRITING)
        self._save(plan.skipped(self._records.steps(session.id), now, over))
        return session

    def _fail(
        self,
        session: Session,
        update: Update,
        text: str,
        now: float,
        result: Result | None = None,
    ) -> Session:
        if not update.state.ended:
            result = None if result is Result.SUCCESS else result
            self._log.change(update, UpdateState.FAILED, text, now, result)
        return self._decide(session, SessionState.FAILED, text, now)

    def _settle(self, session: Session, now: float) -> None:
        """End a session if nothing of the user's is anywhere else than on the terminal."""
        if not plan.touched(self._records.steps(session.id)):
            self._delete_backup(session, "nothing was erased", now)
        if self._backup(session) is None:
            self._end(session, now)

    def _end(self, session: Session, now: float) -> None:
        left = plan.skipped(self._records.steps(session.id), now, tuple(StepKind))
        self._save(left)
        state = session.outcome or SessionState.FAILED
        self._records.save_session(replace(session, state=state, changed=now))
        self._asked.pop(session.update_id, None)
        self._given.pop(session.id, None)

    def _close(self, session: Session, now: float) -> None:
        """The user's data is back: it is over, or begins again when nothing was decided."""
        if session.outcome is not None:
            self._end(session, now)
            return
        steps = self._records.steps(session.id)
        self._save(plan.from_the_beginning(steps, now))

    # Records

    def _backup(self, session: Session) -> Backup | None:
        found = self._records.backups(session.serial)
        return next((item for item in found if item.session_id == session.id), None)

    def _delete_backup(self, session: Session, why: str, now: float, actor: str = ACTOR) -> None:
        backup = self._backup(session)
        if backup is None:
            return
        self._records.delete_backup(backup.id, Actor(actor, now, why))
        self._done(plan.of(StepKind.DELETE_BACKUP, self._records.steps(session.id)), now)

    def _done(self, step: Step, now: float) -> None:
        done = replace(step, state=StepState.DONE, result=0, text="", changed=now)
        self._records.save_step(done)

    def _save(self, steps: Iterable[Step]) -> None:
        for step in steps:
            self._records.save_step(step)
