"""The graph of behaviours, in C (``c/graph.c``): where cuts lead from each, and what each needs.

Behaviours are nodes, numbered from 0. Who leads to a behaviour (a *user*) needs what it needs, less
what was erased before the first such cut. Sets of units and of operations are integers: bit n
stands for number n.
"""

from __future__ import annotations

import ctypes as c
from typing import TYPE_CHECKING, Any, NamedTuple

from unbrick.campaign.book import NONE, count_set_bytes, load_book

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from unbrick.campaign.walk import Walker
    from unbrick.flash.geometry import FlashGeometry

_WORD = 64  # operations


class Erasure(NamedTuple):
    """The units from ``first`` to before ``end`` have been erased before operation ``before``."""

    before: int
    first: int
    end: int


class Graph:
    """Nodes and edges.

    Args:
        geometry: of the flash.
        fields: units of a target's own form: what any of them is made of, all are.

    Raises:
        MemoryError: there is no room for it.
    """

    def __init__(self, geometry: FlashGeometry, fields: int) -> None:
        self._library = load_book()
        self._size = count_set_bytes(geometry)
        self._graph = self._library.graph_new(8 * self._size, self._pack(fields))
        if not self._graph:
            raise MemoryError

    def __del__(self) -> None:
        if getattr(self, "_graph", None):
            self._library.graph_free(self._graph)

    def add(self, entry: int, counted: int | None, units: int, erasures: Sequence[Erasure]) -> int:
        """A new node, which needs some units.

        Args:
            entry: of the book.
            counted: the node for which cuts that lead here are counted; None: this one.
            units: see above.
            erasures: of its session, in order.
        """
        numbers = [number for erasure in erasures for number in erasure]
        packed = (c.c_uint32 * len(numbers))(*numbers)
        return int(
            self._library.graph_add(
                *(self._graph, entry, NONE if counted is None else counted),
                *(self._pack(units), len(erasures), packed),
            )
        )

    def find_needs(self, node: int) -> int:
        """Where the units that a node needs lie in memory, until something is led or taken."""
        return int(self._library.graph_needs(self._graph, node))

    def read_needs(self, node: int) -> int:
        """The units that a node needs."""
        return int.from_bytes(c.string_at(self.find_needs(node), self._size), "little")

    def count_growths(self, node: int) -> int:
        """How often these have grown."""
        return int(self._library.graph_version(self._graph, node))

    def lead(self, user: int, leads: Iterable[tuple[int, int]]) -> None:
        """Cuts lead from a user to some nodes, each with the operations of these cuts.

        The nodes have their user before anything follows from it.
        """
        for node, ops in leads:
            words = ops.bit_length() // _WORD + 1
            packed = ops.to_bytes(8 * words, "little")
            self._library.graph_note(self._graph, user, node, words, packed)
        self._library.graph_settle(self._graph)

    def leads_at(self, user: int, node: int, op: int) -> bool:
        """Whether it is known that cuts at an operation do."""
        return bool(self._library.graph_leads_at(self._graph, user, node, op))

    def take(self, user: int, walker: Walker, *, counts: bool) -> int:
        """Note what the last part of a walk in a user's session has found.

        Args:
            user: a node.
            walker: has walked.
            counts: whether the cuts are counted where they lead.

        Returns:
            How many cuts these are.
        """
        return int(self._library.graph_take(self._graph, user, walker.handle, counts))

    def take_count(self, node: int) -> int:
        """How many cuts were counted that lead to a node, since the last call."""
        return int(self._library.graph_take_count(self._graph, node))

    def lean(self, whole: int, leaner: int, here: int, there: int) -> None:
        """From operation ``there`` on, what is led from ``whole`` after ``here`` is led from it."""
        self._library.graph_lean(self._graph, whole, leaner, here, there)

    def find_live(self, node: int, start: int) -> int:
        """The units that must agree before operation ``start`` for the same to follow its cuts."""
        units = c.create_string_buffer(self._size)
        self._library.graph_live(self._graph, node, start, units)
        return int.from_bytes(units.raw, "little")

    def find_erasing(self, node: int, units: int, first: int) -> int | None:
        """The first operation before which erases from ``first`` on have taken all of some units.

        None: they do not take all.
        """
        found = self._library.graph_find_erasing(self._graph, node, self._pack(units), first)
        return None if found == NONE else int(found)

    def find_first(self, user: int, node: int) -> int | None:
        """The first operation at which cuts lead from a user to a node."""
        found = int(self._library.graph_first(self._graph, user, node))
        return None if found == NONE else found

    def list_users(self, node: int) -> list[int]:
        """The nodes from which cuts lead to a node."""
        count = self._library.graph_user_count(self._graph, node)
        edge = self._library.graph_user
        return [edge(self._graph, node, number).contents.user for number in range(count)]

    def list_leads(self, user: int, start: int) -> list[tuple[int, int]]:
        """Where cuts from operation ``start`` on lead, each with those that do, ``start`` as 0."""
        found = list[tuple[int, int]]()
        for number in range(self._library.graph_led_count(self._graph, user)):
            edge = self._library.graph_led(self._graph, user, number).contents
            packed = c.string_at(edge.ops, 8 * edge.count)
            ops = int.from_bytes(packed, "little") << edge.first * _WORD >> start
            if ops:
                found.append((edge.node, ops))
        return found

    def list_grown(self) -> list[int]:
        """The nodes whose needs have grown since the last call."""
        return self._list(self._library.graph_list_grown)

    def list_leaners(self) -> list[int]:
        """The leaners from which more cuts lead somewhere than at the last call."""
        return self._list(self._library.graph_list_leaners)

    def _list(self, function: Any) -> list[int]:
        nodes = c.POINTER(c.c_uint32)()
        count = function(self._graph, c.byref(nodes))
        return nodes[:count] if count else []

    def _pack(self, units: int) -> bytes:
        return units.to_bytes(self._size, "little")
