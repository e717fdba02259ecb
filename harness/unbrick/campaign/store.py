"""Outcomes kept on disk, so that a stopped campaign goes on where it was.

A session's outcome is a pure function of the tool, the target with its firmware, the state in which
it begins, and its fate. It is kept under a hash of all of these: nothing that
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
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING

from unbrick import __version__
from unbrick.campaign.target import MemoryMark, Outcome, State
from unbrick.errors import SetupError
from unbrick.flash.ops import FlashOp

if TYPE_CHECKING:
    from collections.abc import Callable

    from unbrick.campaign.target import Fate, Target

FORMAT = 5
MAX_OUTCOME_SIZE = 8 << 20
"""Bytes that one outcome may have when it is unpacked."""

MAX_STORE_SIZE = 2 << 30
"""Bytes of the file from which on outcomes of other firmware are dropped and none are added."""


def pack(outcome: Outcome, target: Target, keep: Callable[[bytes], str]) -> bytes:
    """An outcome as compressed JSON.

    Args:
        outcome: what to pack; its ``final`` is left out, as it follows from the rest.
        target: that of the session.
        keep: keeps the data of a flash operation and names it.
    """
    body = {
        "violation": outcome.violation,
        "route": outcome.route,
        "ops": [
            [
                *(op.index, op.kind, op.offset, op.length, op.lanes, op.start, op.end),
                *(keep(op.data), op.failed),
            ]
            for op in outcome.ops
        ],
        "marks": [[mark.ops, mark.time] for mark in outcome.marks],
        "peers": target.pack_peers([mark.peers for mark in outcome.marks]),
        "downtime": outcome.downtime,
        "virtual": outcome.virtual,
        "seconds": outcome.seconds,
        "console": outcome.console,
        "flight": outcome.flight,
        "relevant": None if outcome.relevant is None else f"{outcome.relevant:x}",
    }
    return zlib.compress(json.dumps(body, separators=(",", ":")).encode(), 6)


def unpack(packed: bytes, target: Target, state: State, data_of: Callable[[str], bytes]) -> Outcome:
    """The outcome that :func:`pack` has packed.

    Args:
        packed: the compressed JSON.
        target: that of the session.
        state: the state in which the session began.
        data_of: the data that ``keep`` has named so.

    Raises:
        ValueError: it is not an outcome.
    """
    try:
        machine = zlib.decompressobj()
        text = machine.decompress(packed, MAX_OUTCOME_SIZE)
        if not machine.eof:
            raise ValueError("the outcome is too large or its end is missing")
        body = json.loads(text)
        ops = [
            FlashOp(index, str(kind), offset, length, lanes, start, end, data_of(name), int(failed))
            for index, kind, offset, length, lanes, start, end, name, failed in body["ops"]
        ]
        marks = [
            MemoryMark(int(count), peers, float(time))
            for (count, time), peers in zip(
                body["marks"], target.unpack_peers(body["peers"]), strict=True
            )
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
            flight=float(body["flight"]),
            final=State(state.cells.after(ops), marks[-1].peers),
            relevant=None if body["relevant"] is None else int(body["relevant"], 16),
        )
    except (zlib.error, KeyError, TypeError, IndexError, AttributeError, OverflowError) as error:
        raise ValueError(f"not an outcome: {error}") from error


def digest_tool() -> str:
    """SHA-256 over the sources of this package: another tool's outcomes are not ours."""
    root = Path(__file__).parents[1]
    digest = hashlib.sha256(__version__.encode())
    for path in sorted(root.rglob("*")):
        beside = path.is_relative_to(root / "report") or path.is_relative_to(root / "cli")
        if path.suffix in {".py", ".c", ".h"} and not beside:
            digest.update(path.relative_to(root).as_posix().encode() + b"\0")
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


class OutcomeStore:
    """The file with the outcomes.

    Args:
        path: of the file; made when it is not there.
        context: everything that outcomes depend on besides target and state: firmware and tool.
        full: bytes from which on nothing is added.

    Raises:
        SetupError: the file cannot be used.
    """

    def __init__(self, path: Path, context: str, *, full: int = MAX_STORE_SIZE) -> None:
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

    def key(self, target: Target, state: State, fate: Fate) -> bytes:
        """The name of a session: a hash of all that it depends on."""
        what = f"{target.identity}/{fate!r}/{state.cells.weak!r}"
        digest = hashlib.sha256(what.encode())
        for block in state.cells.blocks:
            digest.update(len(block).to_bytes(8, "little"))
            digest.update(block)
        digest.update(json.dumps(target.pack_peers([state.peers])).encode())
        return digest.digest()

    def get(self, key: bytes, target: Target, state: State) -> Outcome | None:
        """The kept outcome, or None when there is none that can be read."""
        query = "SELECT body FROM outcomes WHERE context = ? AND key = ?"
        with self._lock:
            try:
                row = self._db.execute(query, (self._context, key)).fetchone()
                outcome = row and unpack(row[0], target, state, self._data)
            except (sqlite3.Error, ValueError, TypeError):
                return None
            self.reused += outcome is not None
            return outcome or None

    def put(self, key: bytes, target: Target, outcome: Outcome) -> None:
        """Keep an outcome, unless the file is full."""
        with self._lock:
            try:
                if self._size() < self._full:
                    self._db.execute("BEGIN")
                    body = pack(outcome, target, self._keep)
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
        data = zlib.decompressobj().decompress(row.fetchone()[0], MAX_OUTCOME_SIZE)
        if hashlib.sha256(data).digest()[:16].hex() != name:
            raise ValueError("the data of a flash operation is not what it was")
        return data


class Recall:
    """Has only those sessions run whose outcomes are not kept yet.

    Args:
        submit: has a session run, and promises its outcome.
        store: keeps the outcomes.
        target: that of the sessions.
    """

    def __init__(
        self,
        submit: Callable[[State, Fate], Future[Outcome]],
        store: OutcomeStore,
        target: Target,
    ) -> None:
        self._submit, self._store, self._target = submit, store, target

    def __call__(self, state: State, fate: Fate) -> Future[Outcome]:
        """Have a session run, or look up what came of it."""
        key = self._store.key(self._target, state, fate)
        kept = self._store.get(key, self._target, state)
        if kept is not None:
            done: Future[Outcome] = Future()
            done.set_result(kept)
            return done
        future = self._submit(state, fate)
        future.add_done_callback(lambda ended: self._keep(key, ended))
        return future

    def _keep(self, key: bytes, future: Future[Outcome]) -> None:
        if not future.cancelled() and future.exception() is None:
            self._store.put(key, self._target, future.result())
