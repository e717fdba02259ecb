"""TOML files that are read entry by entry, with errors that name the entry and say what to do."""

from __future__ import annotations

import sys
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unbrick.errors import SetupError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

MAX_FILE_SIZE = 64 * 1024
"""Bytes of a file that are read."""

MAX_NUMBER = (1 << 32) - 1
"""The largest number, unless another one is given."""


class Entries:
    """A table of a TOML file. Its entries are taken one by one, each once.

    Args:
        path: the file, for messages.
        name: of the table; empty for the file itself.
        values: what it holds.
    """

    def __init__(self, path: Path, name: str, values: dict[str, Any]) -> None:
        self.path, self.name = path, name
        self._left = dict(values)
        self._asked: set[str] = set()

    def wrong(self, what: str, hint: str) -> SetupError:
        """The error about this table."""
        where = f"[{self.name}] of {self.path}" if self.name else str(self.path)
        return SetupError(f"{where} {what}", hint=hint)

    def has(self, key: str) -> bool:
        """Whether there is an entry ``key`` that nothing has taken."""
        self._asked.add(key)
        return key in self._left

    def on_top_of(self, base: Entries) -> Entries:
        """What is here, and of ``base`` what is not; tables are merged, anything else is not."""
        return Entries(self.path, self.name, _merge(base._left, self._left))

    def take(self, key: str, kind: type, words: str, default: object = None) -> Any:
        """The entry ``key``, which must be a ``kind``; ``words`` describe that for people.

        Raises:
            SetupError: it is missing and has no default, or is something else.
        """
        self._asked.add(key)
        value = self._left.pop(key, default)
        if type(value) is not kind:
            what = "is missing" if value is None else f"is not {words}"
            raise self.wrong(f"is wrong: `{key}` {what}", f"give `{key}` as {words}")
        return value

    def text(self, key: str, default: str | None = None) -> str:
        """A text."""
        return str(self.take(key, str, "a text", default))

    def flag(self, key: str, *, default: bool = False) -> bool:
        """True or false; ``default`` when it is not said."""
        return bool(self.take(key, bool, "true or false", default))

    def texts(self, key: str) -> tuple[str, ...]:
        """A text, or a list of texts; none when it is not there."""
        if isinstance(self._left.get(key), str):
            return (self.text(key),)
        texts = self.take(key, list, "a text or a list of texts", [])
        if not all(isinstance(text, str) for text in texts):
            raise self.wrong(f"is wrong: `{key}` is no list of texts", "write each as a text")
        return tuple(texts)

    def number(
        self, key: str, default: int | None = None, least: int = 0, most: int = MAX_NUMBER
    ) -> int:
        """A whole number from ``least`` to ``most``."""
        value = int(self.take(key, int, "a number", default))
        if not least <= value <= most:
            raise self.wrong(f"is wrong: `{key}` is {value}", f"choose {least} to {most}")
        return value

    def table(self, key: str) -> Entries:
        """A table, which is empty when it is not there."""
        return Entries(self.path, self._below(key), self.take(key, dict, "a table", {}))

    def one_or_more(self, key: str) -> list[Entries]:
        """A table, or a list of tables; none when it is not there."""
        return [self.table(key)] if isinstance(self._left.get(key), dict) else self.rows(key)

    def plain(self) -> dict[str, Any]:
        """Everything that is left, whatever it is: for entries that somebody else knows."""
        left, self._left = self._left, {}
        return left

    def tables(self) -> Iterator[tuple[str, Entries]]:
        """Everything that is left, each by its name; all of it must be tables."""
        for key in tuple(self._left):
            yield key, self.table(key)

    def rows(self, key: str) -> list[Entries]:
        """A list of tables, which is empty when it is not there."""
        rows = self.take(key, list, "a list of tables", [])
        if not all(isinstance(row, dict) for row in rows):
            raise self.wrong(f"is wrong: `{key}` is no list of tables", "see the files there are")
        return [Entries(self.path, f"{self._below(key)} {n}", row) for n, row in enumerate(rows, 1)]

    def _below(self, key: str) -> str:
        return f"{self.name}.{key}" if self.name else key

    def all_used(self) -> None:
        """Complain about an entry that nothing asked for: likely a slip of the pen.

        Raises:
            SetupError: there is one; the hint names the nearest entry that there could be.
        """
        if self._left:
            unknown = min(self._left)
            raise self.wrong(
                f"has an unknown entry `{unknown}`", name_nearest(unknown, self._asked)
            )


def name_nearest(unknown: str, known: Iterable[str]) -> str:
    """What to do about a name that nobody knows."""
    nearest = get_close_matches(unknown, sorted(known), n=1, cutoff=0.0)
    return f"correct its name: `{nearest[0]}`?" if nearest else "take it away"


def _merge(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        if isinstance(old, dict) and isinstance(value, dict):
            merged[key] = _merge(old, value)
        else:
            merged[key] = value
    return merged


def read_toml(path: Path, hint: str) -> Entries:
    """The entries of a file.

    Args:
        path: the file.
        hint: what to do when it cannot be read.

    Raises:
        SetupError: it cannot be read, or is not TOML.
    """
    try:
        with path.open("rb") as stream:
            raw = stream.read(MAX_FILE_SIZE)
        return Entries(path, "", tomllib.loads(raw.decode()))
    except OSError as error:
        raise SetupError(f"cannot read {path}: {error.strerror}", hint=hint) from None
    except ValueError as error:
        raise SetupError(f"{path} is not TOML: {error}", hint="correct it") from None
