"""What the database has answered, so that it need not be asked again.

Answers are remembered by groups of records: those with certain values in certain fields, which
never change of a record. Who writes a record says so, and the answers of its groups follow. Other
processes that share the database are told of the groups, and forget what they remember of them.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from itertools import islice
from typing import Any, NamedTuple

from unbrick.server.records.tables import Containing, holds

REMEMBERED = 100_000
"""Answers, and records in them, that are kept in memory."""

Group = tuple[Hashable, ...]
"""The name of a table, the values, and the names of their fields."""

Answer = dict[Any, Any]
"""Records by their keys, in order."""


class Query(NamedTuple):
    """What a table was asked for, as ``Table.select`` has it.

    That a record is of a group is no condition of a question about the group.
    """

    where: tuple[tuple[str, Any], ...]
    first: int | None = None
    last: int | None = None
    below: int | None = None
    last_of_each: str = ""
    after: str | int | tuple[Any, ...] | None = None
    search: Containing | None = None
    by: tuple[str, ...] = ()

    def fits(self, record: Any) -> bool:
        """Whether the conditions hold for a record."""
        return holds(record, self.where) and (self.below is None or record.id < self.below)


WHOLE = Query(())
"""The question for all records of a group."""


class Answers:
    """Those that are remembered; of too many the oldest are forgotten."""

    def __init__(self) -> None:
        self._groups: dict[Group, dict[Query, Answer]] = {}
        self._sizes: dict[Group, int] = {}
        self.size = 0
        """What is remembered: answers, and records in them."""
        self.written: dict[Group, None] = {}
        """Groups of which records were written, until somebody clears it."""

    def clear(self) -> None:
        """Forget all."""
        self._groups.clear()
        self._sizes.clear()
        self.size = 0

    def forget(self, groups: Iterable[Group]) -> None:
        """Forget what was answered about these groups."""
        for group in groups:
            self._groups.pop(group, None)
            self.size -= self._sizes.pop(group, 0)

    def appended(self, groups: Iterable[Group]) -> None:
        """A record was added whose key is not known."""
        for group in groups:
            self.written[group] = None
            self.forget((group,))

    def find(self, group: Group, query: Query = WHOLE) -> Answer | None:
        """What was answered, if that is remembered, or follows from what is."""
        answers = self._groups.get(group)
        if answers is None:
            return None
        answer = answers.get(query)
        if answer is not None or WHOLE not in answers:
            return answer
        fitting = (item for item in answers[WHOLE].items() if query.fits(item[1]))
        if query.last is None:
            return dict(islice(fitting, query.first))
        found = list(fitting)
        return dict(found[max(0, len(found) - query.last) :])

    def remember(self, group: Group, query: Query, answer: Answer) -> None:
        """Remember an answer about a group."""
        answers = self._groups.pop(group, {})
        answers[query] = answer
        self._groups[group] = answers
        self._weigh(group)

    def _weigh(self, group: Group) -> None:
        """Count what is remembered of a group; of too much, the oldest groups are forgotten."""
        size = sum(1 + len(answer) for answer in self._groups[group].values())
        self.size += size - self._sizes.get(group, 0)
        self._sizes[group] = size
        while self.size > REMEMBERED:
            self.forget((next(iter(self._groups)),))

    def know(self, groups: Iterable[Group], key: Any) -> bool:
        """Whether a record of these groups is in any answer, and so in the database."""
        for group in groups:
            for answer in self._groups.get(group, {}).values():
                if key in answer:
                    return True
        return False

    def added(self, groups: Iterable[Group], key: Any, record: Any) -> None:
        """A record was added, behind the others of its kind."""
        for group in groups:
            self.written[group] = None
            answers = self._groups.get(group, {})
            for query, answer in list(answers.items()):
                if not query.fits(record):
                    continue
                if query.first is not None:
                    del answers[query]
                    continue
                answer[key] = record
                if query.last is not None and len(answer) > query.last:
                    del answer[next(iter(answer))]
            if answers:
                self._weigh(group)

    def changed(self, groups: Iterable[Group], key: Any, record: Any) -> None:
        """A record was changed."""
        for group in groups:
            self.written[group] = None
            answers = self._groups.get(group, {})
            for query, answer in list(answers.items()):
                was, fits = key in answer, query.fits(record)
                if was and fits:
                    answer[key] = record
                elif was and query.first is None and query.last is None:
                    del answer[key]
                elif was or fits:  # Others move up; or its place is not known.
                    del answers[query]

    def removed(self, groups: Iterable[Group], key: Any) -> None:
        """A record was removed."""
        for group in groups:
            self.written[group] = None
            answers = self._groups.get(group, {})
            for query, answer in list(answers.items()):
                if answer.pop(key, None) is not None and (query.first or query.last):
                    del answers[query]  # Others move up.
