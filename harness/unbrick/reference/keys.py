"""Keys of states of the terminal and its server: those with the same key count as one."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from unbrick.campaign.target import State
from unbrick.reference.canonical import (
    Held,
    Part,
    hold,
    hold_under_command,
    is_repaired_first,
    is_under_command,
    join,
    name_doubt,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping

    from unbrick.reference.canonical import Plan
    from unbrick.reference.memory import ServerState

_Asked = tuple[tuple[Held, ...], Held | None, str]
"""What counts of each part, and of the application under command; and the server's form."""


def key_state(state: State, images: Mapping[bytes, bytes]) -> Hashable:
    """States with the same key count as one (``unbrick.reference.canonical``).

    Args:
        state: cells, and what the server remembers.
        images: the software that the server may command, by digest.
    """
    cells, server = state.cells, state.peers
    parts = hold(cells)
    try:
        plan = server.plan(images) if server else None
    except KeyError:  # what cannot be judged counts cell by cell
        doubt = name_doubt(parts)
        return (cells, server.canonical) if doubt is None else (doubt, "")
    return _join(_ask(parts, server, plan, partial(hold_under_command, cells)))


def _ask(
    parts: tuple[Held, ...],
    server: ServerState | None,
    plan: Plan | None,
    find_under: Callable[[Plan], Held],
) -> _Asked:
    """All that a key depends on."""
    if server is None:
        return parts, None, ""
    journal = parts[Part.JOURNAL]
    if plan is None or not is_under_command(journal):
        return parts, None, server.canonical
    if is_repaired_first(journal):
        return parts, None, server.canonical_without_steps
    return parts, find_under(plan), server.canonical


def _join(asked: _Asked) -> Hashable:
    """The key of a state of which that counts."""
    parts, under, server = asked
    doubt = name_doubt(parts)
    return (join(parts, under), server) if doubt is None else (doubt, "")
