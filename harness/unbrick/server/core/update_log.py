"""Keeps updates and what happened to them: no change of one without an event."""

from __future__ import annotations

from dataclasses import replace

from unbrick.server.records.contract import Records
from unbrick.server.records.updates import Event, Update, UpdateState
from unbrick.wire.messages import Result


class UpdateLog:
    """What the parts of the server write to the records about updates.

    Args:
        records: what the server remembers.
    """

    def __init__(self, records: Records) -> None:
        self._records = records

    def change(
        self,
        update: Update,
        state: UpdateState,
        text: str,
        now: float,
        result: Result | None = None,
    ) -> Update:
        """Keep the new state of an update; gives the update as it is then."""
        update = replace(update, state=state, text=text, result=result, changed=now)
        self._records.save_update(update)
        self.event(update, now)
        return update

    def event(self, update: Update, now: float) -> None:
        """Keep that an update is in its state."""
        event = Event(0, now, update.serial, update.id, update.state, update.text)
        self._records.add_event(event)

    def note(self, serial: str, text: str, now: float, update_id: int | None = None) -> None:
        """Keep that something happened, unless it is what happened last."""
        if update_id is not None:
            last = self._records.events(update_id=update_id, newest=1)
            if last and last[0].text == text:
                return  # A terminal that does not answer is asked every minute.
        self._records.add_event(Event(0, now, serial, update_id, None, text))
