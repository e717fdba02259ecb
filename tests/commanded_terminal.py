"""A terminal that obeys docs/protocol.md in commanded updates, as a model: application, resident
program and restoration, a NOR that can only be erased by blocks, and power that may fail.

It has no transport: ``handle`` answers requests, ``step`` gives requests whose responses
``answered`` takes. Times are in seconds.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import aiocoap
from server_world import HARDWARE, SERIAL, get_block, inspect, post

from unbrick.errors import LinkError
from unbrick.layout import reference_layout
from unbrick.wire.commands import (
    PIECE_SIZE,
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
    decode_command,
)
from unbrick.wire.messages import (
    Announcement,
    Decision,
    Kind,
    Phase,
    Registration,
    Result,
    Status,
    TerminalState,
    Text,
)

LAYOUT = reference_layout()
APPLICATION, USERDATA = LAYOUT.partition("application"), LAYOUT.partition("userdata")
BLOCK = LAYOUT.board.nor.block_size
BLANK = b"\xff"
NOTHING = hashlib.sha256(b"").digest()
REPEAT_INTERVAL_S = 2.0  # seconds until a request without an answer is made again
SERVER_SILENCE_S = 60.0  # seconds without the server until the resident program leaves
ERASING, WRITING = 0.7, 0.01  # seconds


def seal(entries: list[str], update_id: int) -> bytes:
    """Stands for the cipher: the same entries and update give the same unreadable bytes."""
    plain = json.dumps(sorted(entries)).encode().ljust(2 * PIECE_SIZE + 100)
    stream = random.Random(f"key/{update_id}").randbytes(len(plain))
    return bytes(a ^ b for a, b in zip(plain, stream, strict=True))


def unseal(sealed: bytes, update_id: int) -> list[str]:
    """The entries; raises ValueError when they were sealed for another update."""
    stream = random.Random(f"key/{update_id}").randbytes(len(sealed))
    entries: list[str] = json.loads(bytes(a ^ b for a, b in zip(sealed, stream, strict=True)))
    return entries


@dataclass
class Journal:
    """What outlives a power cut, besides code and user's data."""

    phase: str = "idle"  # or commanded, trial
    update_id: int = 0
    target: bytes = b""
    last_id: int = 0
    last_result: Result = Result.SUCCESS


@dataclass
class Asked:
    """A request to the server that has no answer yet."""

    message: Any
    kind: str
    due: float


@dataclass
class CommandedTerminal:
    """The terminal.

    Attributes:
        images: files of the images there are; one at the start of the partition is valid.
        inspect: what an image is.
        entries: what the user has stored, to begin with.
        failing: digests of the images that fail their trial.
        refuse: what the application says to ``upgrade``, or to ``backup``, when not success.
        bad: results of commands, by their kind; used up from the front, success afterwards.
        status: what ``GET /status`` said, in order.
        done: every command that was carried out, in order.
        starts: how often it has started.
    """

    images: list[bytes]
    entries: list[str]
    serial: str = SERIAL
    inspect: Callable[[bytes], Any] = inspect
    failing: set[bytes] = field(default_factory=set)
    refuse: dict[str, list[Result]] = field(default_factory=dict)
    bad: dict[type[Command], list[Result]] = field(default_factory=dict)
    lies: set[type[Command]] = field(default_factory=set)
    seed: int = 0
    texts: list[str] = field(default_factory=list)
    done: list[Command] = field(default_factory=list)
    nor: bytearray = field(init=False, repr=False)
    journal: Journal = field(default_factory=Journal)
    program: TerminalState | None = None
    starts: int = 0

    def __post_init__(self) -> None:
        self.nor = bytearray(BLANK * USERDATA.end)
        self.nor[APPLICATION.offset : APPLICATION.offset + len(self.images[0])] = self.images[0]
        self._tickets = itertools.count(1)
        self.store(self.entries)

    # The NOR

    def running(self) -> bytes | None:
        """The file of the valid image in the NOR."""
        for image in self.images:
            if self.nor[APPLICATION.offset : APPLICATION.offset + len(image)] == image:
                return image
        return None

    @property
    def digest(self) -> bytes:
        """Of the valid image in the NOR."""
        image = self.running()
        return bytes(self.inspect(image).digest) if image else bytes(32)

    def format(self) -> int:
        """Of the user's data, as the software that runs has it."""
        image = self.running()
        return int(self.inspect(image).userdata_format) if image else 0

    def read(self) -> list[str] | None:
        """What the application finds of the user's; None when it cannot read it."""
        area = bytes(self.nor[USERDATA.offset : USERDATA.end])
        if area == BLANK * len(area):
            return []
        try:
            kept = json.loads(area.partition(b"\n")[0])
            entries: list[str] = kept["entries"]
        except ValueError:
            return []  # What an erase that was broken off has left.
        return entries if kept["format"] == self.format() else None

    def store(self, entries: list[str]) -> None:
        """The user stores something."""
        line = json.dumps({"format": self.format(), "entries": entries}).encode() + b"\n"
        blank = BLANK * (USERDATA.size - len(line))
        self.nor[USERDATA.offset : USERDATA.end] = line + blank

    # Power

    def power_on(self, now: float) -> None:
        """Boot decides what runs."""
        self.starts += 1
        self._nonce = random.Random(f"{self.seed}/{self.starts}").getrandbits(32)
        self._last_step = 0
        self._busy: tuple[Command, float] | None = None
        self._result: CommandResult | None = None
        self._open: dict[int, Asked] = {}
        self._sealed = b""
        self._restoring = b""
        self._fetched = b""
        self._announced: Announcement | None = None
        self._restart: float | None = None
        self._after_result: Command | None = None
        self._register_at = now
        self._heard = now
        journal = self.journal
        if journal.phase == "commanded":
            self.program = TerminalState.COMMANDED
            return
        if self.running() is not None and journal.phase == "trial" and self.digest in self.failing:
            journal.last_id, journal.last_result = journal.update_id, Result.TRIAL_FAILED
            journal.phase = "failed"
        if self.running() is None:
            journal.last_id, journal.last_result = journal.update_id, Result.REWRITE_FAILED
            journal.phase = "failed"
        if journal.phase == "trial":
            journal.last_id, journal.last_result = journal.update_id, Result.SUCCESS
            journal.phase = "idle"
        failed = journal.phase == "failed"
        self.program = TerminalState.RESTORATION if failed else TerminalState.APPLICATION

    def cut(self, now: float) -> None:
        """Power is lost; what was being erased or written is anything, and power is back."""
        if self._busy is not None:
            command, _ = self._busy
            rng = random.Random(f"{self.seed}/cut/{self.starts}")
            if isinstance(command, Erase):
                half = command.length // 2
                self.nor[command.offset : command.offset + half] = BLANK * half
                self.nor[command.offset + half] &= rng.getrandbits(8)
            elif isinstance(command, Write):
                half = len(command.data) // 2
                self._program(command.offset, command.data[:half])
        self.power_on(now)

    def _program(self, offset: int, data: bytes) -> None:
        for at, byte in enumerate(data, offset):
            self.nor[at] &= byte

    # Requests of the server

    def handle(self, request: Any, now: float) -> Any:
        """The answer to a request of the server."""
        self._heard = now
        path = request.opt.uri_path[0]
        try:
            payload = self._answer(path, request.payload, now)
        except LinkError:
            return aiocoap.Message(code=aiocoap.BAD_REQUEST)
        if payload is None:
            return aiocoap.Message(code=aiocoap.NOT_FOUND)
        code = aiocoap.CONTENT if path == "status" else aiocoap.CHANGED
        return aiocoap.Message(code=code, payload=payload)

    def _answer(self, path: str, payload: bytes, now: float) -> bytes | None:
        if path == "status":
            busy = int(self._busy is not None)
            commanded = self.program is TerminalState.COMMANDED
            phase = Phase.COMMANDED if commanded else Phase.IDLE
            return Status(phase, self.journal.update_id, self._last_step, busy).encode()
        if self.program is TerminalState.APPLICATION:
            if path == "message":
                self.texts.append(Text.decode(payload).text)
                return b""
            if path == "backup":
                return self._back_up(BackupRequest.decode(payload)).encode()
            if path == "restore":
                return self._give_back(RestorePiece.decode(payload)).encode()
            if path == "upgrade":
                return self._upgrade(Upgrade.decode(payload), now).encode()
            return None
        if path == "announce":
            return self._announce(Announcement.decode(payload), now).encode()
        if self.program is TerminalState.COMMANDED:
            if path == "upgrade":
                known = Upgrade.decode(payload).update_id == self.journal.update_id
                return Decision(Result.SUCCESS if known else Result.BUSY, 0, 0, "").encode()
            if path in ("erase", "write", "check", "finish", "leave"):
                answer = self._command(decode_command(path, payload), now)
                return CommandAnswer(answer).encode()
        return None

    def _next(self, what: str) -> Result:
        results = self.refuse.get(what)
        return results.pop(0) if results else Result.SUCCESS

    def _back_up(self, request: BackupRequest) -> BackupPiece:
        if request.offset == 0:
            entries = self.read()
            if entries is None:
                return BackupPiece(Result.USERDATA_UNREADABLE)
            wrong = self._next("backup")
            if wrong is not Result.SUCCESS:
                return BackupPiece(wrong)
            self._sealed = seal(entries, request.update_id)
        if request.offset >= max(len(self._sealed), 1):
            return BackupPiece(Result.OUT_OF_TURN)
        piece = self._sealed[request.offset : request.offset + PIECE_SIZE]
        checksum = hashlib.sha256(self._sealed).digest()
        return BackupPiece(Result.SUCCESS, len(self._sealed), checksum, piece)

    def _give_back(self, piece: RestorePiece) -> RestoreAnswer:
        if piece.offset == 0:
            self._restoring = b""
        if piece.offset != len(self._restoring):
            return RestoreAnswer(Result.SUCCESS, len(self._restoring))
        self._restoring += piece.data
        if len(self._restoring) < piece.size:
            return RestoreAnswer(Result.SUCCESS, len(self._restoring))
        sealed, self._restoring = self._restoring, b""
        if hashlib.sha256(sealed).digest() != piece.checksum:
            return RestoreAnswer(Result.BACKUP_UNREADABLE)
        wrong = self._next("restore")
        if wrong is not Result.SUCCESS:
            return RestoreAnswer(wrong)
        there = self.read()
        if there is None:
            return RestoreAnswer(Result.NO_ROOM)
        back = unseal(sealed, piece.update_id)
        self.store(there + [entry for entry in back if entry not in there])
        return RestoreAnswer(Result.SUCCESS, piece.size)

    def _upgrade(self, upgrade: Upgrade, now: float) -> Decision:
        wrong = self._next("upgrade")
        entries = self.read()
        if entries is None:
            wrong = Result.USERDATA_UNREADABLE
        elif hashlib.sha256(seal(entries, upgrade.update_id)).digest() != upgrade.backup:
            wrong = Result.USERDATA_CHANGED
        if wrong is not Result.SUCCESS:
            return Decision(wrong, 0, 0, wrong.text)
        self.journal = Journal(
            "commanded",
            upgrade.update_id,
            upgrade.digest,
            self.journal.last_id,
            self.journal.last_result,
        )
        self._restart = now + 0.2
        return Decision(Result.SUCCESS, 0, 0, "")

    def _command(self, command: Command, now: float) -> Result:
        if command.update_id != self.journal.update_id or command.nonce != self._nonce:
            return Result.OUT_OF_TURN
        if command.step < self._last_step:
            return Result.OUT_OF_TURN
        if command.step == self._last_step:
            if self._busy is None and self._result is not None:
                self._ask_result(now)
            return Result.SUCCESS
        if self._busy is not None:
            return Result.BUSY
        if isinstance(command, Erase | Write | Check) and not self._inside(command):
            return Result.MALFORMED_ANNOUNCEMENT
        self._last_step = command.step
        takes = ERASING if isinstance(command, Erase) else WRITING
        self._busy = command, now + takes
        return Result.SUCCESS

    def _inside(self, command: Erase | Write | Check) -> bool:
        length = len(command.data) if isinstance(command, Write) else command.length
        if isinstance(command, Erase) and (command.offset % BLOCK or length != BLOCK):
            return False
        return APPLICATION.offset <= command.offset and command.offset + length <= USERDATA.end

    def _announce(self, announcement: Announcement, now: float) -> Decision:
        if self._announced is not None:
            return Decision(Result.BUSY, 0, 0, "")
        if announcement.kind is not Kind.FULL_IMAGE:
            return Decision(Result.UNKNOWN_KIND, 0, 0, "")
        self._announced, self._fetched = announcement, b""
        self._ask(get_block(announcement.update_id, 0), "block", now)
        return Decision(Result.SUCCESS, 0, 0, "")

    # What the terminal does by itself

    def step(self, now: float) -> list[tuple[int, Any]]:
        """Do what is due; the requests to send to the server, with their numbers."""
        if self._restart is not None and now >= self._restart:
            self.power_on(now)
        if self._busy is not None and now >= self._busy[1]:
            command, self._busy = self._busy[0], None
            self._carry_out(command, now)
        commanded = self.program is TerminalState.COMMANDED
        if commanded and now - self._heard > SERVER_SILENCE_S and self.running() is not None:
            self._leave()
            self.power_on(now)
        if now >= self._register_at and not any(a.kind == "register" for a in self._open.values()):
            self._ask(post("register", self.registration().encode()), "register", now)
        due = [(ticket, asked) for ticket, asked in self._open.items() if now >= asked.due]
        for _, asked in due:
            asked.due = now + REPEAT_INTERVAL_S
        return [(ticket, asked.message) for ticket, asked in due]

    def _ask(self, message: Any, kind: str, now: float) -> None:
        self._open[next(self._tickets)] = Asked(message, kind, now)

    def registration(self) -> Registration:
        """What it says of itself."""
        assert self.program is not None
        image = self.running()
        info = self.inspect(image) if image else None
        commanded = self.program is TerminalState.COMMANDED
        return Registration(
            serial=self.serial,
            hardware_id=HARDWARE,
            name=info.name if info else "",
            version=info.version if info else "",
            build_time=info.build_time if info else "",
            digest=self.digest,
            state=self.program,
            last_update_id=self.journal.update_id if commanded else self.journal.last_id,
            last_result=Result.SUCCESS if commanded else self.journal.last_result,
            security_counter=1,
            nonce=self._nonce if commanded else 0,
        )

    def answered(self, ticket: int, response: Any, now: float) -> None:
        """The response to a request of ``step``."""
        self._heard = now
        asked = self._open.pop(ticket, None)
        if asked is None:
            return
        if asked.kind == "register":
            self._register_at = now + (60.0 if self.program is TerminalState.APPLICATION else 15.0)
        elif asked.kind == "result":
            if self._after_result is not None:
                self._restart, self._after_result = now + 0.1, None
        elif asked.kind == "block":
            self._block(response, now)

    def _block(self, response: Any, now: float) -> None:
        announced = self._announced
        if announced is None or response.code != aiocoap.CONTENT:
            self._announced = None
            return
        self._fetched += response.payload
        if len(self._fetched) < announced.file_size:
            number = len(self._fetched) // 1024
            self._ask(get_block(announced.update_id, number), "block", now)
            return
        area = self._fetched.ljust(APPLICATION.size, BLANK)
        self.nor[APPLICATION.offset : APPLICATION.end] = area
        self.journal = Journal("idle", announced.update_id, b"", announced.update_id)
        self.journal.last_result = Result.RESTORED_BY_LINK
        self.failing.discard(announced.image_digest)
        self._restart = now + 0.1

    def _carry_out(self, command: Command, now: float) -> None:
        results = self.bad.get(type(command))
        result = results.pop(0) if results else Result.SUCCESS
        at, length, changed = 0, 0, type(command) not in self.lies
        if isinstance(command, Erase):
            at, length = command.offset, command.length
            if result is Result.SUCCESS and changed:
                self.nor[at : at + length] = BLANK * length
        elif isinstance(command, Write):
            at, length = command.offset, len(command.data)
            if result is Result.SUCCESS and changed:
                self._program(at, command.data)
                if self.nor[at : at + length] != command.data:
                    result = Result.OTHER_CONTENT
        elif isinstance(command, Check):
            at, length = command.offset, command.length
            there = hashlib.sha256(self.nor[at : at + length]).digest()
            if result is Result.SUCCESS and there != command.digest:
                result = Result.OTHER_CONTENT
        elif isinstance(command, Finish) and result is Result.SUCCESS:
            if self.digest == self.journal.target:
                self.journal.phase = "trial"
                self._after_result = command
            else:
                result = Result.IMAGE_HASH_WRONG
        elif isinstance(command, Leave):
            self._leave()
            self._after_result = command
        self.done.append(command)
        digest = hashlib.sha256(self.nor[at : at + length]).digest() if length else NOTHING
        self._result = CommandResult(
            self.serial, command.update_id, self._nonce, command.step, result, digest, ""
        )
        self._ask_result(now)

    def _ask_result(self, now: float) -> None:
        """Send the last result, in place of an earlier one that has no answer yet."""
        assert self._result is not None
        self._open = {t: asked for t, asked in self._open.items() if asked.kind != "result"}
        self._ask(post("result", self._result.encode()), "result", now)

    def _leave(self) -> None:
        valid = self.running() is not None
        if self.done and valid and self.digest == self.journal.target:
            self.journal.phase = "trial"
            return
        self.journal = Journal("idle" if valid else "failed", self.journal.update_id)
        self.journal.last_id = self.journal.update_id
        self.journal.last_result = Result.INTERRUPTED if valid else Result.REWRITE_FAILED


def in_nor(terminal: CommandedTerminal) -> set[str]:
    """What lies in the NOR of the user's, whoever can read it."""
    line = bytes(terminal.nor[USERDATA.offset : USERDATA.end]).partition(b"\n")[0]
    try:
        return set(json.loads(line)["entries"])
    except ValueError:
        return set()
