"""What happens at a server, for programs: one JSON object a line.

What terminals and updates do is read from the records, so that nothing is said that was not kept.
What is ordered over the HTTP API is said when it is answered, and by whom. Texts for users, names
and phone numbers are in neither.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, TextIO

from unbrick.server.edge.shapes import format_time

if TYPE_CHECKING:
    from collections.abc import Callable

    from unbrick.server.records.contract import Records
    from unbrick.server.records.rollouts import Rollout


class EventLog:
    """Writes lines.

    Args:
        records: in which events are kept. Those that are there already are passed over.
        out: where lines go.
        clock: seconds since 1970.
    """

    def __init__(self, records: Records, out: TextIO, clock: Callable[[], float]) -> None:
        self._records, self._out, self._clock = records, out, clock
        newest = records.events(newest=1)
        self._seen = newest[-1].id if newest else 0

    def look(self) -> None:
        """Write what has happened since the last look."""
        for event in self._records.events_after(self._seen):
            self._seen = event.id
            self._write(
                time=format_time(event.time),
                event="terminal" if event.update_id is None else "update",
                serial=event.serial,
                update=event.update_id,
                state=event.state.value if event.state else None,
                text=event.text,
            )

    def note_order(self, who: str, method: str, path: str, status: int) -> None:
        """Write that somebody has ordered something by HTTP, and the status of the answer.

        ``who`` is the name of a token; empty: nobody that is known.
        """
        now = format_time(self._clock())
        self._write(time=now, event="order", who=who, method=method, path=path, status=status)

    def note_rollout(self, rollout: Rollout) -> None:
        """Write how far a rollout is."""
        self._write(
            time=format_time(rollout.changed),
            event="rollout",
            rollout=rollout.id,
            state=rollout.state.value,
            group=rollout.group,
            text=rollout.text,
        )

    def _write(self, **values: object) -> None:
        self._out.write(json.dumps(values) + "\n")
        self._out.flush()
