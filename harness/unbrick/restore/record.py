"""The record of restorations: a file that only grows, one line of JSON for each."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unbrick.errors import SetupError
from unbrick.folders import state_folder
from unbrick.restore.port import PortOutcome

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import datetime

    from unbrick.restore.port import Restoration

_LINE_LIMIT = 16 * 1024  # Bytes of a line; ours have less than 2 KiB.


@dataclass(frozen=True)
class RestorationEntry:
    """One restoration.

    Attributes:
        ended: when, ISO 8601 in UTC.
        seconds: since the terminal had asked to be restored.
        port: where.
        serial: of the terminal; empty when it had not said.
        hardware: its hardware id, likewise.
        reason: why it wanted to be restored, in its words.
        software: name of the image.
        version: of the image.
        digest: of the image (its SHA-256 TLV, hexadecimal), as server and terminal know it.
        read_back: SHA-256 of the whole image as it lay in the NOR in the end; empty: not read.
        outcome: how it ended.
        error: why it did not end well.
        transfers: transfers that were begun.
        repeats: blocks that were sent again.
    """

    ended: str
    seconds: float
    port: str
    serial: str
    hardware: str
    reason: str
    software: str
    version: str
    digest: str
    read_back: str
    outcome: str
    error: str
    transfers: int
    repeats: int


_TYPES = {
    field.name: (int, float) if field.type == "float" else {"str": str, "int": int}[str(field.type)]
    for field in fields(RestorationEntry)
}


def find_default_record(environ: Mapping[str, str]) -> Path:
    """Where the record is kept: the XDG base directory for state, or its default."""
    return state_folder(environ) / "restorations.jsonl"


def make_entry(restoration: Restoration, ended: datetime) -> RestorationEntry | None:
    """The entry for a restoration; None when no terminal was found on the port."""
    apparatus, outcome = restoration.apparatus, restoration.outcome
    if apparatus is None or not (restoration.asks or outcome is PortOutcome.UP_TO_DATE):
        return None
    start, end = restoration.asked_at, restoration.ended_at
    terminal, info = apparatus.terminal, restoration.image.info
    return RestorationEntry(
        ended=ended.strftime("%Y-%m-%dT%H:%M:%SZ"),
        seconds=round(end - start, 1) if start is not None and end is not None else 0.0,
        port=restoration.port,
        serial=terminal.serial if terminal else "",
        hardware=terminal.hardware_id if terminal else "",
        reason=apparatus.reason,
        software=info.name,
        version=info.version,
        digest=info.digest.hex(),
        read_back=apparatus.digest,
        outcome=outcome.value,
        error=str(restoration.error or ""),
        transfers=apparatus.transfers,
        repeats=apparatus.repeats,
    )


class RestorationRecord:
    """The file. It and its folder are made when they are not there.

    Raises:
        SetupError: it cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("ab"):
                pass
        except OSError as error:
            raise self._unwritable(error) from None

    def append(self, entry: RestorationEntry) -> None:
        """Add an entry. It is on the disk when this returns.

        A line that a crash has cut off stays a line of its own. Two programs may append at once,
        because each entry is one write at the end of the file.

        Raises:
            SetupError: it cannot be written.
        """
        line = json.dumps(asdict(entry), ensure_ascii=True) + "\n"
        try:
            with self.path.open("a+b", buffering=0) as file:
                size = file.seek(0, os.SEEK_END)
                if size:
                    file.seek(size - 1)
                    if file.read(1) != b"\n":
                        line = "\n" + line
                file.write(line.encode("ascii"))
                os.fsync(file.fileno())
        except OSError as error:
            raise self._unwritable(error) from None

    def _unwritable(self, error: OSError) -> SetupError:
        return SetupError(
            f"cannot write the record {self.path}: {error.strerror}",
            hint="choose another place with --record",
        )


def read_record(path: Path) -> Iterator[RestorationEntry | None]:
    """The entries, oldest first; None for a line that is none. Without a file there are none.

    Raises:
        SetupError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            while line := file.readline(_LINE_LIMIT):
                if line.strip():
                    yield _entry(line)
    except FileNotFoundError:
        return
    except OSError as error:
        raise SetupError(
            f"cannot read the record {path}: {error.strerror}", hint="check its name"
        ) from None


def _entry(line: bytes) -> RestorationEntry | None:
    try:
        values = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(values, dict):
        return None
    # A later version may keep more.
    known: dict[str, Any] = {name: values.get(name) for name in _TYPES}
    right = all(
        isinstance(value, _TYPES[name]) and not isinstance(value, bool)
        for name, value in known.items()
    )
    return RestorationEntry(**known) if right else None
