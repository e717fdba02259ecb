"""Fetching a backup of the user's data from a terminal, and giving it back (row B6).

The pieces are in memory until they are all there: a server that is killed begins with the first.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from dataclasses import dataclass, replace

from unbrick.server.core import plan
from unbrick.server.core.ending import ACTOR, Sessions
from unbrick.server.core.update_log import UpdateLog
from unbrick.server.records.contract import Records
from unbrick.server.records.people import Actor
from unbrick.server.records.sessions import (
    Backup,
    CommandedSession,
    PlannedStep,
    StepKind,
    StepState,
)
from unbrick.server.records.updates import Update
from unbrick.wire.commands import (
    PIECE_SIZE,
    BackupPiece,
    BackupRequest,
    RestoreAnswer,
    RestorePiece,
)
from unbrick.wire.messages import Result

REMEMBERED_SIZE = 1 << 20
"""Bytes of backups, sealed as they are, that need not be read from the records again."""

MISSES = 3
"""Answers that lead nowhere until the server waits for the terminal's next registration."""


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


class Keeper(Sessions):
    """Fetches backups and gives them back."""

    def __init__(self, records: Records, log: UpdateLog) -> None:
        super().__init__(records, log)
        self._gathered: dict[int, _Gathered] = {}
        self._given: dict[int, _Given] = {}
        self._remembered: OrderedDict[bytes, bytes] = OrderedDict()
        self._remembered_size = 0

    def _forget(self, session: CommandedSession) -> None:
        self._gathered.pop(session.id, None)
        self._given.pop(session.id, None)

    def _piece_wanted(
        self, session: CommandedSession, step: PlannedStep, update: Update, now: float
    ) -> BackupRequest:
        self._sent(step, now)
        gathered = self._gathered.setdefault(session.id, _Gathered())
        return BackupRequest(update.id, len(gathered.data))

    def _keeps_none(self, session: CommandedSession, request: object) -> bool:
        """Whether a terminal that has refused a request knows nothing of backups.

        Once or twice it may only not have been in the application.
        """
        if not isinstance(request, BackupRequest):
            return False
        gathered = self._gathered.setdefault(session.id, _Gathered())
        gathered.misses += 1
        return gathered.misses > MISSES

    def _backed_up(
        self,
        session: CommandedSession,
        update: Update,
        request: BackupRequest,
        piece: BackupPiece,
        now: float,
    ) -> bool:
        step = plan.find_step(StepKind.BACK_UP, self._records.steps(session.id))
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
        due = min(PIECE_SIZE, gathered.size - len(gathered.data))
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
        self._remember(backup, gathered.data)
        self._done(step, now)
        return True

    def _gather_again(self, session: CommandedSession, gathered: _Gathered) -> bool:
        """Fetch the backup from its beginning, at once or when the terminal registers."""
        misses = gathered.misses + 1
        if misses > MISSES:
            self._gathered.pop(session.id, None)
            return False
        self._gathered[session.id] = _Gathered(misses=misses)
        return True

    def _piece_back(
        self, session: CommandedSession, step: PlannedStep, update: Update, now: float
    ) -> RestorePiece | None:
        backup = self._backup(session)
        if backup is None:
            return None
        given = self._given.get(session.id)
        if given is None:
            why = Actor(ACTOR, now, "it is given back")
            # What has its checksum is it, whatever has become of the transaction that kept it.
            known = self._remembered.get(backup.checksum)
            given = _Given(self._records.read_backup(backup.id, why, known), backup.checksum)
            self._given[session.id] = given
        self._sent(step, now)
        piece = given.data[given.offset : given.offset + PIECE_SIZE]
        return RestorePiece(update.id, len(given.data), given.checksum, given.offset, piece)

    def _gave_back(
        self,
        session: CommandedSession,
        update: Update,
        request: RestorePiece,
        answer: RestoreAnswer,
        now: float,
    ) -> bool:
        step = plan.find_step(StepKind.GIVE_BACK, self._records.steps(session.id))
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
        if answer.offset % PIECE_SIZE or answer.offset > request.size:
            return False
        given.misses = given.misses + 1 if answer.offset <= given.offset else 0
        given.offset = answer.offset
        if given.misses > MISSES:
            given.misses = 0
            return False
        return True

    def _remember(self, backup: Backup, data: bytes) -> None:
        """Remember what a backup holds, until it is deleted; the oldest make room."""
        self._forget_data(backup.checksum)
        self._remembered[backup.checksum] = data
        self._remembered_size += len(data)
        while self._remembered_size > REMEMBERED_SIZE:
            self._forget_data(next(iter(self._remembered)))

    def _forget_data(self, checksum: bytes) -> None:
        self._remembered_size -= len(self._remembered.pop(checksum, b""))

    def _delete_backup(
        self, session: CommandedSession, why: str, now: float, actor: str = ACTOR
    ) -> None:
        backup = self._backup(session)
        if backup is not None:
            self._forget_data(backup.checksum)
        super()._delete_backup(session, why, now, actor)
