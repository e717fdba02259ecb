"""What must be true of a server that commands an update, whenever it changes its mind (B6 to B10).

It has the user's data in its care, sealed, and writes down step by step what the terminal has done.
The judge sees what no server sees: the NOR, the key of the terminal, and everything in the records.
"""

from __future__ import annotations

import zlib
from bisect import bisect_right
from functools import lru_cache
from typing import TYPE_CHECKING

from unbrick.campaign.verdict import Violation
from unbrick.errors import UnbrickError
from unbrick.reference.canonical import HEADER, is_commanded, read_valid_header
from unbrick.reference.layout import SLOT_SIZE, find_places
from unbrick.server.records.people import OF_BACKUPS, AuditAction
from unbrick.server.records.sessions import StepKind, StepState
from unbrick.server.records.updates import UpdateState
from unbrick.wire.messages import TerminalState
from unbrick.wire.userdata import open_backup

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from unbrick.engine.base import TracedEngine
    from unbrick.flash.cells import Cells
    from unbrick.flash.partition import Partition
    from unbrick.reference.looks import Looks
    from unbrick.reference.memory import ServerMemory, ServerState
    from unbrick.reference.story import Story
    from unbrick.server.records.people import AuditEntry
    from unbrick.server.records.sessions import Backup, CommandedSession, PlannedStep


_BLANK = b"\xff" * 2 * SLOT_SIZE
"""More than a valid record or header ends with."""

_PIECE = 256
"""Bytes of a log that are looked at together."""

_NONCE = slice(8, 20)
"""Where a sealed backup has its nonce: behind the magic number."""


class Judge:
    """Looks at everything that a server newly remembers.

    Args:
        story: the session.
        engine: its terminal.
        cells: at the beginning, weak ones and all.
        key: that the terminal seals with.
        looks: notes what is looked at besides the terminal's NOR as it is.
    """

    def __init__(
        self, story: Story, engine: TracedEngine, cells: Cells, key: bytes, looks: Looks
    ) -> None:
        userdata = find_places().userdata
        doubtful = any(userdata.offset <= at < userdata.end for at, _ in cells.weak)
        self._doubtful = cells if doubtful else None
        if doubtful:
            looks.note_earlier(userdata.offset, userdata.size)
        self._store, self._scenario, self._engine = story.store, story.scenario, engine
        self._key, self._link_is_bad = key, story.link_is_bad
        self._kept = {backup.id for backup in self._store.backups()}
        self._sealed_with: dict[bytes, bytes] = {}
        self._audited = len(self._entries())
        self._succeeded = {
            update.id for update in self._store.updates() if update.state is UpdateState.SUCCEEDED
        }
        self._sure = {
            terminal.serial: terminal.last_update_id
            for terminal in self._store.terminals()
            if terminal.last_update_id in self._succeeded
        }

    def look(self, server: ServerState) -> None:
        """Judge what is newly remembered.

        Raises:
            Violation: it is not true, or not right.
        """
        self._check_success(server)
        self._check_memory(server)
        if not server.sessions:
            return
        self._check_audit(server)
        for backup in server.backups:
            self._check_sealed(backup)
        self._check_care(server)
        self._check_steps(server)

    def _read(self, offset: int, length: int) -> bytes:
        return self._engine.read_memory(self._engine.board.nor.base + offset, length)

    def _halves(self, log: Partition) -> list[bytes]:
        """The halves of a record log, each to where it is blank."""
        block = find_places().block
        return [self._read_log(at, block) for at in range(log.offset, log.end, block)]

    def _read_log(self, offset: int, length: int) -> bytes:
        """Cells to where they are blank. What comes behind is not looked at, and has no say."""
        read = b""
        while len(read) < length:
            start = max(0, len(read) - len(_BLANK) + 1)
            read += self._read(offset + len(read), min(_PIECE, length - len(read)))
            blank = read.find(_BLANK, start)
            if blank >= 0:
                return read[:blank]
        return read

    def _check_memory(self, server: ServerState) -> None:
        """A terminal that has confirmed an update remembers it."""
        succeeded = {u.id for u in server.updates if u.state is UpdateState.SUCCEEDED}
        for terminal in server.terminals:
            sure = self._sure.get(terminal.serial, 0)
            if terminal.last_update_id < sure and not self._link_is_bad:
                raise Violation("forgotten", f"the terminal has forgotten update {sure}")
            if terminal.last_update_id in succeeded:
                self._sure[terminal.serial] = terminal.last_update_id

    def _check_success(self, server: ServerState) -> None:
        """An update succeeds by a registration with the new digest, and by nothing else."""
        runs = {
            terminal.digest
            for terminal in server.terminals
            if terminal.state is TerminalState.APPLICATION
        }
        succeeded = {
            update.id: update for update in server.updates if update.state is UpdateState.SUCCEEDED
        }
        for number, update in succeeded.items():
            if number not in self._succeeded and update.digest not in runs:
                text = f"update {number} succeeded, and {update.version} has not registered"
                raise Violation("server-lies", text)
        self._succeeded = set(succeeded)

    # The user's data

    def _entries(self) -> list[AuditEntry]:
        return [entry for entry in self._store.audit() if entry.action in OF_BACKUPS]

    def _check_audit(self, server: ServerState) -> None:
        """Every backup was kept, perhaps read, then deleted, and the audit says all of it."""
        entries = self._entries()
        for entry in entries[self._audited :]:
            known = entry.subject in self._kept
            if known is (entry.action is AuditAction.BACKUP_KEPT):
                raise Violation("unaudited", f"backup {entry.subject}: {entry.action.value}")
            if entry.action is AuditAction.BACKUP_KEPT:
                self._kept.add(entry.subject)
            elif entry.action is AuditAction.BACKUP_DELETED:
                self._kept.remove(entry.subject)
        self._audited = len(entries)
        there = {backup.id for backup in server.backups}
        if there != self._kept:
            raise Violation("unaudited", f"backups {there} are there, by the audit {self._kept}")

    def _check_sealed(self, backup: Backup) -> None:
        """Nobody but the terminal can read a backup, and the terminal can."""
        session = self._store.session(backup.session_id)
        if session is None:
            raise Violation("data-left", f"backup {backup.id} is of no session")
        sealed = self._store.sealed(backup.id)
        nonce = sealed[_NONCE]
        if self._sealed_with.setdefault(nonce, sealed) != sealed:
            raise Violation("data-read", f"backup {backup.id} has the nonce of another one")
        for words in (*self._scenario.saved, *self._scenario.saves):
            if any(word.encode() in sealed for word in words):
                raise Violation("data-read", f"backup {backup.id} can be read")
        try:
            open_entries(sealed, self._key, backup.serial, session.update_id)
        except UnbrickError as error:
            raise Violation("data-lost", f"backup {backup.id} cannot be opened: {error}") from error

    def _check_care(self, server: ServerState) -> None:
        """The user's data is in the NOR or in a backup; and no backup is kept without need."""
        check_nothing_left(self._store)
        for halves in self._list_halves(find_places().userdata):
            self._check_stored(b"".join(map(_valid_slots, halves)), server)

    def _list_halves(self, log: Partition) -> Iterator[list[bytes]]:
        """The halves of a record log, in every way in which weak cells may read."""
        if self._doubtful is None:
            yield self._halves(log)
            return
        ops = (op for op in self._engine.ops if log.offset <= op.offset < log.end)
        first = log.offset // find_places().block
        for reading in self._doubtful.after(ops).readings():
            yield list(reading.blocks[first : first + log.size // find_places().block])

    def _check_stored(self, stored: bytes, server: ServerState) -> None:
        for name, number in self._scenario.saved:
            if name in self._scenario.deletes:
                continue
            if name.encode() in stored and number.encode() in stored:
                continue
            if not any(self._holds(backup, name, number) for backup in server.backups):
                raise Violation("data-lost", f"{name} {number} is nowhere: not even in a backup")

    def _holds(self, backup: Backup, name: str, number: str) -> bool:
        session = self._store.session(backup.session_id)
        sealed = self._store.sealed(backup.id)
        entries = open_entries(
            sealed, self._key, backup.serial, session.update_id if session else 0
        )
        return any(entry[1:] == (name, number) for entry in entries)

    # The steps

    def _check_steps(self, server: ServerState) -> None:
        """One after the other; and while the terminal is commanded, what is done is done."""
        for session in server.sessions:
            if session.state.ended or session.outcome is not None:
                continue
            steps = self._store.steps(session.id)
            open_steps = [step for step in steps if not step.state.over]
            if any(step.state is StepState.SENT for step in open_steps[1:]):
                first = open_steps[0]
                raise Violation("server-lies", f"a step is sent before step {first.number}")
            if self._is_commanded():
                self._check_truth(session, [s for s in steps if s.state is StepState.DONE])

    def _is_commanded(self) -> bool:
        return is_commanded(*self._halves(find_places().journal))

    def _check_truth(self, session: CommandedSession, done: list[PlannedStep]) -> None:
        image = self._store.image_file(session.digest)
        writes = [step for step in self._store.steps(session.id) if step.kind is StepKind.WRITE]
        begun = [step for step in writes if step.state is not StepState.WAITING]
        done = [step for step in done if step.kind in _OF_CELLS]
        if not done:
            return
        wanted: list[tuple[PlannedStep, int, bytes]] = []
        for step in done:
            if step.kind is StepKind.ERASE:
                left = _left_out(step, begun)
                wanted += ((step, at, b"\xff" * size) for at, size in left)
            else:
                wanted.append((step, step.offset, _wanted(image, step.offset, step.length)))
        cells = _Cells(self._read, ((at, len(data)) for _, at, data in wanted))
        for step, at, data in wanted:
            if not cells.hold(at, data):
                text = f"step {step.number}, {step.kind.value}, is not done"
                raise Violation("server-lies", f"{text} at {step.offset:#x}")


_OF_CELLS = (StepKind.ERASE, StepKind.WRITE, StepKind.CHECK)
"""Steps that can be seen in the NOR."""


@lru_cache(maxsize=4096)
def _wanted(image: bytes, offset: int, length: int) -> bytes:
    """What an image has at an offset in the NOR; what is beyond its end is blank."""
    start = offset - find_places().application.offset
    return image[start : start + length].ljust(length, b"\xff")


class _Cells:
    """Parts of the NOR, read at once where they touch.

    A plan has hundreds of steps, and each is looked at every time. What lies between them is not.

    Args:
        read: reads the NOR: offset and length.
        parts: offset and length of each.
    """

    def __init__(self, read: Callable[[int, int], bytes], parts: Iterable[tuple[int, int]]) -> None:
        spans: list[tuple[int, int]] = []
        for offset, length in sorted(parts):
            start, end = spans[-1] if spans else (0, -1)
            if offset <= end:
                spans[-1] = start, max(end, offset + length)
            else:
                spans.append((offset, offset + length))
        self._starts = [start for start, _ in spans]
        self._pieces = [read(start, end - start) for start, end in spans]

    def hold(self, offset: int, data: bytes) -> bool:
        """Whether a part holds this."""
        number = bisect_right(self._starts, offset) - 1
        return self._pieces[number].startswith(data, offset - self._starts[number])


def _left_out(erase: PlannedStep, writes: list[PlannedStep]) -> Iterator[tuple[int, int]]:
    """(offset, length) of what an erase has erased and no write has begun with."""
    at, end = erase.offset, erase.offset + erase.length
    for write in sorted(writes, key=lambda step: step.offset):
        if at <= write.offset < end:
            yield at, write.offset - at
            at = write.offset + write.length
    yield at, max(0, end - at)


def check_nothing_left(store: ServerMemory) -> None:
    """No backup is kept of a session that has ended.

    Raises:
        Violation: one is.
    """
    left = {number for number, _ in store.snapshot().contents}
    left -= {backup.id for backup in store.backups()}
    if left:
        raise Violation("data-left", f"the bytes of backup {min(left)} are left, which is deleted")
    for backup in store.backups():
        session = store.session(backup.session_id)
        if session is None or session.state.ended:
            raise Violation("data-left", f"backup {backup.id} is left when its session has ended")


@lru_cache(maxsize=256)
def open_entries(
    sealed: bytes, key: bytes, serial: str, update_id: int
) -> tuple[tuple[int, str, str], ...]:
    """The entries in a backup; the same few backups are met in every session.

    Raises:
        UnbrickError: it cannot be opened.
    """
    return tuple(open_backup(sealed, key, serial, update_id))


@lru_cache(maxsize=64)
def _valid_slots(half: bytes) -> bytes:
    """The slots of a record log's half whose CRC is right, if its header is."""
    if read_valid_header(half) is None:
        return b""
    slots = (
        half[at : at + SLOT_SIZE].ljust(SLOT_SIZE, b"\xff")
        for at in range(HEADER, len(half), SLOT_SIZE)
    )
    return b"".join(
        slot for slot in slots if zlib.crc32(slot[:-4]) == int.from_bytes(slot[-4:], "little")
    )
