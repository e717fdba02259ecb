"""What the server remembers, as JSON: kept outcomes are written and read with it."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

from unbrick.reference.memory import PARTS, ServerState
from unbrick.server.records.sessions import (
    Backup,
    CommandedSession,
    PlannedStep,
    SessionState,
    StepKind,
    StepState,
)
from unbrick.server.records.updates import MessageState, Terminal, TextMessage, Update, UpdateState
from unbrick.wire.messages import Kind, Result, TerminalState

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

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
    CommandedSession: {"base": bytes.fromhex, "digest": bytes.fromhex, "state": SessionState},
    PlannedStep: {"kind": StepKind, "state": StepState},
    Backup: {"checksum": bytes.fromhex},
}


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


def pack(servers: Sequence[ServerState | None]) -> Any:
    """What the server remembers, moment by moment, as JSON."""
    rows = _Rows()
    return {"moments": [_pack_server(server, rows) for server in servers], "rows": rows.rows}


def _pack_server(server: ServerState | None, rows: _Rows) -> Any:
    if server is None:
        return None
    parts: dict[str, Any] = {
        part: [rows.number(item) for item in getattr(server, part)] for part in PARTS
    }
    parts["contents"] = [[number, data.hex()] for number, data in server.contents]
    parts["counts"] = [[name, count] for name, count in server.counts]
    return parts


def unpack(packed: Any) -> list[ServerState]:
    """What :func:`pack` has packed.

    Raises:
        ValueError, KeyError, TypeError, IndexError: it is nothing of that kind.
    """
    known: dict[int, Any] = {}
    return [_unpack_server(moment, packed["rows"], known) for moment in packed["moments"]]


def _unpack_server(data: Any, rows: list[Any], known: dict[int, Any]) -> ServerState:
    parts: dict[str, Any] = {}
    for part, kind in PARTS.items():
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
