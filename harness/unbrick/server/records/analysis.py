"""What terminals run, what that means, and what is prepared for them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from unbrick.server.records.tables import Record


@dataclass(frozen=True)
class Installation:
    """What a terminal runs or ran: from its first registration with it to the first without."""

    id: int
    serial: str
    hardware_id: str
    name: str
    version: str
    build_time: str
    digest: bytes
    since: float
    until: float | None


@dataclass(frozen=True)
class Software(Record):
    """Software as a terminal named it, published here or not."""

    id: int
    digest: bytes
    hardware_id: str
    name: str
    version: str
    build_time: str


@dataclass(frozen=True)
class KeptInstallation(Record):
    """How an installation is kept: its software apart, since many terminals run the same."""

    id: int
    serial: str
    software_id: int
    since: float
    until: float | None


class Verdict(Enum):
    """What comparing a terminal's software with the latest says."""

    UPGRADE = "upgrade"
    CURRENT = "current"
    NEWER = "newer"
    NOTHING_PUBLISHED = "nothing published"
    NOT_TAKEN = "not taken"
    RESTORATION = "restoration"


@dataclass(frozen=True)
class Analysis(Record):
    """A decision about a terminal, and why; ``digest`` is the latest image's, empty without one."""

    id: int
    serial: str
    time: float
    verdict: Verdict
    digest: bytes
    reason: str

    @property
    def needed(self) -> bool:
        """Whether an upgrade is needed."""
        return self.verdict is Verdict.UPGRADE


class RangeKind(Enum):
    """What a range of the NOR is for."""

    DIFFERENCE = "difference"
    ERASE = "erase"
    WRITE = "write"


@dataclass(frozen=True)
class Range:
    """A range of the NOR: ``offset`` counts from its start."""

    kind: RangeKind
    offset: int
    length: int


@dataclass(frozen=True)
class PreparedRange(Record):
    """How a range is kept: with the pair of images that it was prepared for."""

    KEY = ("base", "digest", "kind", "offset")
    base: bytes
    digest: bytes
    kind: RangeKind
    offset: int
    length: int


class PreparationState(Enum):
    """How far the work on a pair of images is."""

    QUEUED = "queued"
    READY = "ready"
    FAILED = "failed"


@dataclass(frozen=True)
class Preparation(Record):
    """What turns image ``base`` into image ``digest``, calculated before anybody asks for it.

    ``tries`` counts the times that the work was begun; ``file_size`` is the size of the
    differential file, None when there is none.
    """

    KEY = ("base", "digest")
    base: bytes
    digest: bytes
    state: PreparationState
    tries: int
    file_size: int | None
    text: str
    created: float
    changed: float
