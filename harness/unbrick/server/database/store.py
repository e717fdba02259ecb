"""``Records`` in a database: how each kind of records is kept."""

from __future__ import annotations

from typing import Any

from unbrick.server.database import models
from unbrick.server.database.tables import Keeping, SqlStore
from unbrick.server.records.analysis import (
    Analysis,
    KeptInstallation,
    Preparation,
    PreparedRange,
    Software,
)
from unbrick.server.records.calls import Call, Saying, TerminalCall
from unbrick.server.records.contract import SOFTWARE, Records
from unbrick.server.records.people import AuditEntry, Ownership, Subscriber
from unbrick.server.records.sessions import Backup, Session, Step
from unbrick.server.records.updates import (
    Difference,
    Event,
    File,
    Image,
    Terminal,
    TextMessage,
    Update,
)

_ID, _SERIAL, _ALL = ("id",), ("serial",), ()

KINDS: dict[type[Any], Keeping] = {
    Terminal: Keeping(models.TerminalRow, (_SERIAL,)),
    Image: Keeping(models.ImageRow, (("digest",), _ALL)),
    File: Keeping(models.FileRow),
    Difference: Keeping(models.DifferenceRow),
    Update: Keeping(models.UpdateRow, (_ID, _SERIAL)),
    Event: Keeping(models.EventRow),
    TextMessage: Keeping(models.MessageRow, (_SERIAL,)),
    Subscriber: Keeping(models.SubscriberRow, personal=True),
    Ownership: Keeping(models.OwnershipRow),
    AuditEntry: Keeping(models.AuditRow),
    Software: Keeping(models.SoftwareRow, (_ID, SOFTWARE)),
    KeptInstallation: Keeping(models.InstallationRow, (_SERIAL,)),
    Analysis: Keeping(models.AnalysisRow, (_SERIAL,)),
    Preparation: Keeping(models.PreparationRow),
    PreparedRange: Keeping(models.RangeRow),
    Call: Keeping(models.CallRow),
    TerminalCall: Keeping(models.TerminalCallRow),
    Saying: Keeping(models.SayingRow),
    Session: Keeping(models.SessionRow, (_SERIAL,)),
    Step: Keeping(models.StepRow, (("session_id",),), longest=1),  # A plan may be long.
    Backup: Keeping(models.BackupRow, personal=True),
}
"""How each kind of records is kept."""


class SqlRecords(Records):
    """``Records`` in a database.

    Args:
        url: an SQLAlchemy URL, or the path of an SQLite file, which is made when it is missing.

    Raises:
        SetupError: the database cannot be opened, or is a later version's.
    """

    def __init__(self, url: str) -> None:
        self._database = SqlStore(url, KINDS)
        super().__init__(self._database)

    def close(self) -> None:
        """Let go of the database."""
        self._database.close()
