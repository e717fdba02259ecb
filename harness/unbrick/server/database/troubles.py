"""What the database says when it cannot go on, in words that say what to do."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from sqlalchemy.exc import DBAPIError, InternalError, OperationalError

from unbrick.server.errors import RecordsError

if TYPE_CHECKING:
    from collections.abc import Iterator

_HINTS = {
    "disk is full": "make room on the disk; the server goes on then",
    "no space left": "make room on the disk of PostgreSQL; the server goes on then",
    "readonly": "let the server's user write the file and its folder; the server goes on then",
    "read-only": "let PostgreSQL write again; the server goes on then",
    "is locked": "end what else writes to the file; the server goes on then",
    "disk i/o": "see that the disk can be written; the server goes on then",
}
"""What to do, by a part of what SQLite or PostgreSQL says."""

_LOST = "the server goes on when the database answers"


@contextmanager
def told() -> Iterator[None]:
    """Say it as an error of ours when the database, not the program, is to blame.

    Raises:
        RecordsError: the disk is full, the database cannot be written or reached.
    """
    try:
        yield
    except (OperationalError, InternalError) as error:
        raise explain(error) from error


def explain(error: DBAPIError) -> RecordsError:
    """In one line what has happened; the hint says what to do."""
    said = str(error.orig).strip().splitlines() or [type(error.orig).__name__]
    hint = next((hint for part, hint in _HINTS.items() if part in said[0].lower()), _LOST)
    return RecordsError(f"the database does not keep anything: {said[0]}", hint=hint)
