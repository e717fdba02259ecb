"""What the server refuses, and why."""

from __future__ import annotations

from unbrick.errors import ServerError


class UnknownError(ServerError):
    """There is no such terminal, image or update."""


class ConflictError(ServerError):
    """What is asked for is against the rules, or against what is going on."""


class RecordsError(ServerError):
    """The records cannot be read or kept now: nothing has changed, and it may do later."""


class BusyError(ConflictError):
    """A terminal has an update under way, so it cannot have another one now."""


class NotCommandedError(ConflictError):
    """A terminal cannot be updated by commands; by a file it may be.

    Attributes:
        code: what says so to programs, beside the words for people.
    """

    code = "not commanded"


class DowngradeError(ConflictError):
    """Software is older than what the terminal runs, and nobody said that this is meant.

    Attributes:
        code: what says so to programs, beside the words for people.
    """

    code = "downgrade"
