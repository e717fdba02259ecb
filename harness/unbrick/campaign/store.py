"""Outcomes kept on disk, so that a stopped campaign goes on where it was.

A session's outcome is a pure function of the tool, the firmware, the scenario, the state it begins
with and the way in which weak cells read. It is kept under a hash of all of these: nothing that
could make a difference is left out, so a kept outcome is as good as a new one. The file is one
SQLite database of compressed JSON; nothing in it is ever executed, and what cannot be read as an
outcome counts as missing.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import threading
import zlib
from concurrent.futures import Executor, Future
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unbrick import __version__
from unbrick.campaign.memory import ServerState
from unbrick.campaign.session import Mark, Outcome, State
from unbrick.errors import SetupError
from unbrick.nor.ops import FlashOp
from unbrick.server.records import MessageState, Terminal, TextMessage, Update, UpdateState
from unbrick.server.user_records import (
    Backup,
    Session,
    SessionState,
    Step,
    StepKind,
    StepState,
)
from unbrick.wire.messages import Kind, Result, TerminalState

if TYPE_CHECKING:
    from collections.abc import Callable

    from unbrick.campaign.case import Death
    from unbrick.campaign.scenario import Scenario

FORMAT = 2
LARGEST = 8 << 20
"""Bytes that one outcome may have when it is unpacked."""

FULL = 2 << 30
"""Bytes of the file from which on outcomes of other firmware are dropped and none are added."""

_READERS: dict[type[Any], dict[str, Callable[[Any], Any]]] = {
    Terminal: {
        "digest": bytes.fromhex,
        "state": TerminalState,
        "last_result": Result,
        "confirmed": bytes.fromhex,
    },
    Update: {
        "digest": bytes.fromhex,
        "from_digest": bytes.fromhex,
        "state": UpdateState,
        "result": lambda value: None if value is None else Result(value),
        "kind": lambda value: None if value is None else Kind(value),
    },
    TextMessage: {"state": MessageState},
    Session: {"base": bytes.fromhex, "digest": bytes.fromhex, "state": SessionState},
    Step: {"kind": StepKind, "state": StepState},
    Backup: {"checksum": bytes.fromhex},
}
_PARTS: tuple[tuple[str, type[Any]], ...] = (
    ("terminals", Terminal),
    ("updates", Update),
    ("messages", TextMessage),
    ("sessions", Session),
    ("steps", Step),
    ("backups", Backup),
)


def _plain(value: Any) -> Any:
    """A field of a record as JSON has it."""
    if isinstance(value, bytes):
        return value.hex()
    return getattr(value, "value", value)


class _Rows:
    """Records as JSON has them, each kept once: a server's states have most of them in common."""

    def __init__(self) -> None:
        self.rows: list[Any] = []
        self._known: dict[Any, int] = {}

    def number(self, item: Any) -> int:
        """Of a record."""
        if item not in self._known:
            self._known[item] = len(self.rows)
            self.rows.append([_plain(getattr(item, f.name)) for f in fields(item)])
        return self._known[item]


def _server_to_json(server: ServerState | None, rows: _Rows) -> Any:
    if server is None:
        return None
    parts: dict[str, Any] = {
        part: [rows.number(item) for item in getattr(server, part)] for part, _ in _PARTS
    }
    parts["contents"] = [[number, data.hex()] for number, data in server.contents]
    parts["counts"] = [[name, count] for name, count in server.counts]
    return parts


def _server_from_json(data: Any, rows: list[Any], known: dict[int, Any]) -> ServerState:
    parts: dict[str, Any] = {}
    for part, kind in _PARTS:
        readers, names = _READERS[kind], [f.name for f in fields(kind)]
        for number in data[part]:
            if number not in known:
                known[number] = kind(
                    **{
                        name: readers.get(name, lambda same: same)(value)
                        for name, value in zip(names, rows[number], strict=True)
                    }
                )
        parts[part] = tuple(known[number] for number in data[part])
    parts["contents"] = tuple((int(key), bytes.fromhex(text)) for key, text in data["contents"])
    parts["counts"] = tuple((str(name), int(count)) for name, count in data["counts"])
    return ServerState(**parts)


def pack(outcome: Outcome, keep: Callable[[bytes], str]) -> bytes:
    """An outcome as compressed JSON.

    Args:
        outcome: what to pack; its ``final`` is left out, as it follows from the rest.
        keep: keeps the data of a flash operation and names it.
    """
    rows = _Rows()
    servers: list[Any] = [_server_to_json(mark.server, rows) for mark in outcome.marks]
    body = {
        "violation": outcome.violation,
        "route": outcome.route,
        "ops": [
            [op.index, op.kind, op.offset, op.length, op.lanes, op.start, op.end, keep(op.data)]
            for op in outcome.ops
        ],
        "rows": rows.rows,
        "marks": [
            [mark.ops, server, mark.time]
            for mark, server in zip(outcome.marks, servers, strict=True)
        ],
        "downtime": outcome.downtime,
        "virtual": outcome.virtual,
        "seconds": outcome.seconds,
        "console": outcome.console,
    }
    return zlib.compress(json.dumps(body, separators=(",", ":")).encode(), 6)


def unpack(packed: bytes, state: State, data_of: Callable[[str], bytes]) -> Outcome:
    """The outcome that :func:`pack` has packed.

    Args:
        packed: the compressed JSON.
        state: the state in which the session began.
        data_of: the data that ``keep`` has named so.

    Raises:
        ValueError: it is not an outcome.
    """
    try:
        machine = zlib.decompressobj()
        text = machine.decompress(packed, LARGEST)
        if not machine.eof:
            raise ValueError("the outcome is too large or its end is missing")
        body = json.loads(text)
        ops = [
            FlashOp(index, str(kind), offset, length, lanes, start, end, data_of(name))
            for index, kind, offset, length, lanes, start, end, name in body["ops"]
        ]
        known: dict[int, Any] = {}
        marks = [
            Mark(int(count), _server_from_json(server, body["rows"], known), float(time))
            for count, server, time in body["marks"]
        ]
        violation = None if body["violation"] is None else (*map(str, body["violation"]),)
        return Outcome(
            violation=violation if violation is None else (violation[0], violation[1]),
            route=str(body["route"]),
            ops=ops,
            marks=marks,
            downtime=None if body["downtime"] is None else float(body["downtime"]),
            virtual=float(body["virtual"]),
            seconds=float(body["seconds"]),
            console=str(body["console"]),
            final=State(state.cells.after(ops), marks[-1].server),
        )
    except (zlib.error, KeyError, TypeError, IndexError, AttributeError, OverflowError) as error:
        raise ValueError(f"not an outcome: {error}") from error


def tool_digest() -> str:
    """SHA-256 over the sources of this package: another tool's outcomes are not ours."""
    root = Path(__file__).parents[1]
    digest = hashlib.sha256(__version__.encode())
    for path in sorted(root.rglob("*")):
        beside = path.is_relative_to(root / "report") or path.name.startswith("cli")
        if path.suffix in {".py", ".c", ".h"} and not beside:
            digest.update(path.relative_to(root).as_posix().encode() + b"\0")
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


class OutcomeStore:
    """The file with the outcomes.

    Args:
        path: of the file; made when it is not there.
        context: everything that outcomes depend on besides scenario and state: firmware and tool.
        full: bytes from which on nothing is added.

    Raises:
        SetupError: the file cannot be used.
    """

    def __init__(self, path: Path, context: str, *, full: int = FULL) -> None:
        self.path, self._full = path, full
        self.reused = 0
        self.added = 0
        self._context = hashlib.sha256(f"{FORMAT}/{context}".encode()).digest()
        self._lock = threading.Lock()
        self._known: set[bytes] = set()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute(
                "CREATE TABLE IF NOT EXISTS outcomes "
                "(context BLOB, key BLOB, body BLOB, PRIMARY KEY (context, key)) WITHOUT ROWID"
            )
            self._db.execute(
                "CREATE TABLE IF NOT EXISTS data (name BLOB PRIMARY KEY, data BLOB) WITHOUT ROWID"
            )
            if self._size() > full:
                self._db.execute("DELETE FROM outcomes WHERE context != ?", (self._context,))
                self._db.execute("VACUUM")
        except (sqlite3.Error, OSError) as error:
            raise SetupError(
                f"{path} cannot be used: {error}", hint="delete it: it only saves time"
            ) from error

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def _size(self) -> int:
        pages, size = (
            int(self._db.execute(f"PRAGMA {name}").fetchone()[0])
            for name in ("page_count", "page_size")
        )
        return pages * size

    def key(
        self, scenario: Scenario, state: State, resolution: int, death: Death | None = None
    ) -> bytes:
        """The name of a session: a hash of all that it depends on."""
        what = f"{scenario!r}/{resolution}/{death}/{state.cells.weak!r}"
        digest = hashlib.sha256(what.encode())
        for block in state.cells.blocks:
            digest.update(len(block).to_bytes(8, "little"))
            digest.update(block)
        rows = _Rows()
        server = _server_to_json(state.server, rows)
        digest.update(json.dumps([server, rows.rows]).encode())
        return digest.digest()

    def get(self, key: bytes, state: State) -> Outcome | None:
        """The kept outcome, or None when there is none that can be read."""
        query = "SELECT body FROM outcomes WHERE context = ? AND key = ?"
        with self._lock:
            try:
                row = self._db.execute(query, (self._context, key)).fetchone()
                outcome = row and unpack(row[0], state, self._data)
            except (sqlite3.Error, ValueError, TypeError):
                return None
            self.reused += outcome is not None
            return outcome or None

    def put(self, key: bytes, outcome: Outcome) -> None:
        """Keep an outcome, unless the file is full."""
        with self._lock:
            try:
                if self._size() < self._full:
                    self._db.execute("BEGIN")
                    body = pack(outcome, self._keep)
                    self._db.execute(
                        "INSERT OR REPLACE INTO outcomes VALUES (?, ?, ?)",
                        (self._context, key, body),
                    )
                    self._db.execute("COMMIT")
                    self.added += 1
            except sqlite3.Error:  # a disk that is full costs time and no result
                self._known.clear()
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")

    def _keep(self, data: bytes) -> str:
        name = hashlib.sha256(data).digest()[:16]
        if name not in self._known:
            packed = zlib.compress(data)
            self._db.execute("INSERT OR IGNORE INTO data VALUES (?, ?)", (name, packed))
            self._known.add(name)
        return name.hex()

    def _data(self, name: str) -> bytes:
        row = self._db.execute("SELECT data FROM data WHERE name = ?", (bytes.fromhex(name),))
        data = zlib.decompressobj().decompress(row.fetchone()[0], LARGEST)
        if hashlib.sha256(data).digest()[:16].hex() != name:
            raise ValueError("the data of a flash operation is not what it was")
        return data


class StoringExecutor(Executor):
    """An executor that runs only sessions whose outcomes are not kept yet.

    Args:
        inner: runs the others.
        store: keeps their outcomes.
    """

    def __init__(self, inner: Executor, store: OutcomeStore) -> None:
        self._inner, self._store = inner, store

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Run one session as a search does, or look up what came of it; run everything else."""
        if len(args) not in (3, 5) or not isinstance(args[1], State):
            return self._inner.submit(fn, *args, **kwargs)
        key = self._store.key(*args[:3], *args[4:])
        state = args[1]
        kept = self._store.get(key, state)
        if kept is not None:
            done: Future[Any] = Future()
            done.set_result(kept)
            return done
        future = self._inner.submit(fn, *args, **kwargs)
        future.add_done_callback(lambda ended: self._ended(key, ended))
        return future

    def _ended(self, key: bytes, future: Future[Any]) -> None:
        if not future.cancelled() and future.exception() is None:
            self._store.put(key, future.result())
