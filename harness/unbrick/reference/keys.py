"""Keys of states of the terminal and its server: those with the same key count as one.

A search asks for the keys of all that power cuts leave, of thousands in a session. Most sessions do
the same to the same contents of a partition: they write an image anew, and their journals alone
differ. A cut in an operation changes nothing but what the operation touches. So it is remembered
what counts of each part of the NOR (:class:`unbrick.reference.canonical.Part`), by all that it
holds, and what each operation makes of that, whole or torn.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from unbrick.campaign.keys import LeftCells, PlainLeft
from unbrick.campaign.target import State
from unbrick.flash.cells import Cells
from unbrick.flash.torn import tear
from unbrick.reference.canonical import (
    Held,
    Part,
    hold,
    hold_part,
    hold_under_command,
    is_repaired_first,
    is_under_command,
    join,
    list_parts,
    name_doubt,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping, Sequence

    from unbrick.flash.ops import FlashOp
    from unbrick.reference.canonical import Plan
    from unbrick.reference.memory import ServerState

MOST_REMEMBERED = 64 << 20
"""Bytes of what is remembered of contents and operations, about."""

_ENTRY = 500
"""Bytes that remembering one thing takes besides, about."""

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


class RememberedKeys:
    """The keys of :func:`key_state` as numbers; see :class:`unbrick.campaign.target.StateKeys`.

    Args:
        images: the software that the server may command, by digest.
    """

    def __init__(self, images: Mapping[bytes, bytes]) -> None:
        self._images = images
        self._numbers: dict[Hashable, int] = {}
        self._known: dict[_Asked, int] = {}
        self._held: dict[tuple[bool, tuple[Any, ...]], Held] = {}
        self._contents: dict[tuple[Part, Cells], _Contents] = {}
        self._size = 0

    def find(self, state: State) -> Hashable:
        """The key of a state."""
        return self.follow(state.cells, ()).find_key(0, "", state.peers)

    def find_plainly(self, state: State) -> int:
        """The same, of which nothing is remembered."""
        return self._number(key_state(state, self._images))

    def follow(self, cells: Cells, ops: Sequence[FlashOp]) -> _Left | PlainLeft:
        """See :class:`unbrick.campaign.target.StateKeys`."""
        contents = self._split(cells)
        if contents is None:
            return self.follow_plainly(cells, ops)
        return _Left(self, contents, ops)

    def follow_plainly(self, cells: Cells, ops: Sequence[FlashOp], done: int = 0) -> PlainLeft:
        """The same one by one, from an operation on; see :class:`LeftCells`."""
        return PlainLeft(self.find_plainly, LeftCells(cells, ops, done))

    def find_joined(self, asked: _Asked) -> int:
        """The key of a state of which that counts."""
        key = self._known.get(asked)
        if key is None:
            key = self._known[asked] = self._number(_join(asked))
        return key

    def _number(self, key: Hashable) -> int:
        return self._numbers.setdefault(key, len(self._numbers))

    def meet(self, server: ServerState | None) -> _Server:
        """What the server makes of a key."""
        try:
            return _Server(server, server.plan(self._images) if server else None)
        except KeyError:
            return _Server(server, None, judged=False)

    def intern(self, held: Held) -> Held:
        """The one object for what counts."""
        return self._held.setdefault((held.weak, held.ways), held)

    def remember(self, size: int) -> None:
        """Make room for so many bytes: all that is remembered is forgotten at times."""
        self._size += size + _ENTRY
        if self._size > MOST_REMEMBERED:
            for contents in self._contents.values():
                contents.forget()
            self._contents.clear()
            self._size = 0

    def take(self, part: Part, cells: Cells) -> _Contents:
        """The one object for what a part holds; the rest of the cells is blank."""
        found = self._contents.get((part, cells))
        if found is None:
            self.remember(sum(map(len, cells.blocks)))
            found = self._contents[part, cells] = _Contents(self, part, cells)
        return found

    def _split(self, cells: Cells) -> list[_Contents] | None:
        """What each part holds; None: that cannot be told apart."""
        parts = list_parts()
        weak: dict[Part, list[tuple[int, bytes]]] = {part: [] for part in Part}
        for offset, mask in cells.weak:
            part = find_part(cells, offset, len(mask))
            if part is None:
                return None
            weak[part].append((offset, mask))
        contents = []
        for part in Part:
            held = (
                block if of is part else b"" for block, of in zip(cells.blocks, parts, strict=True)
            )
            alone = Cells(cells.geometry, tuple(held), tuple(weak[part]))
            contents.append(self.take(part, alone))
        return contents


def find_part(cells: Cells, offset: int, length: int) -> Part | None:
    """The part that has a range; None: several have some of it."""
    first, last = (cells.geometry.find_block(at)[0] for at in (offset, offset + length - 1))
    parts = {*list_parts()[first : last + 1]}
    return parts.pop() if len(parts) == 1 else None


class _Server(NamedTuple):
    """What the server makes of a key.

    Attributes:
        state: what it remembers.
        plan: of the update that it commands.
        judged: whether the image of that is known.
    """

    state: ServerState | None
    plan: Plan | None
    judged: bool = True


class _Counted:
    """What a part of the NOR holds, of which all is remembered that counts.

    Args:
        keys: where it is.
        part: of the NOR.
        make: makes the cells; the rest of them is blank.
    """

    def __init__(self, keys: RememberedKeys, part: Part, make: Callable[[], Cells]) -> None:
        self._keys, self._make = keys, make
        self._under: dict[Plan, Held] = {}
        self.held = keys.intern(hold_part(make(), part))

    def find_under(self, plan: Plan) -> Held:
        """What counts besides of the application, where the journal says COMMANDED."""
        found = self._under.get(plan)
        if found is None:
            self._keys.remember(0)
            found = self._keys.intern(hold_under_command(self._make(), plan))
            self._under[plan] = found
        return found


class _Contents(_Counted):
    """What a part of the NOR holds between two operations.

    Args:
        keys: where it is remembered.
        part: of the NOR.
        cells: the rest of which is blank.
    """

    def __init__(self, keys: RememberedKeys, part: Part, cells: Cells) -> None:
        super().__init__(keys, part, lambda: cells)
        self.part, self.cells = part, cells
        self._is_solid = all(mask.strip(b"\0") for _, mask in cells.weak)
        self._steps: dict[tuple[str, int, int, bytes], _Step] = {}

    def find_step(self, op: FlashOp) -> _Step:
        """What an operation on it makes of it."""
        named = op.kind, op.offset, op.length, op.data
        found = self._steps.get(named)
        if found is None:
            self._keys.remember(len(op.data))
            found = self._steps[named] = _Step(self._keys, self, op)
        return found

    def find_solid(self) -> _Contents:
        """It without ranges that are kept as weak cells and have none."""
        if self._is_solid:
            return self
        weak = tuple((at, mask) for at, mask in self.cells.weak if mask.strip(b"\0"))
        return self._keys.take(self.part, replace(self.cells, weak=weak))

    def forget(self) -> None:
        """Forget what operations make of it. They lead in circles, as an erase of what is blank."""
        self._steps.clear()


class _Step:
    """An operation on what a part holds.

    Args:
        keys: where it is remembered.
        before: what the part holds before it.
        op: the operation.

    Attributes:
        after: what the part holds after it.
        erases: whether it is an erase.
    """

    def __init__(self, keys: RememberedKeys, before: _Contents, op: FlashOp) -> None:
        self._keys, self._before, self._op = keys, before, op
        self._torn: dict[str, _Counted] = {}
        self.after = keys.take(before.part, before.cells.after([op]))
        self.erases = op.kind == "erase"

    def find_torn(self, variant: str) -> _Counted:
        """What it leaves when it is torn."""
        found = self._torn.get(variant)
        if found is None:
            self._keys.remember(0)
            make = partial(tear, self._before.cells, self._op, variant)
            found = self._torn[variant] = _Counted(self._keys, self._before.part, make)
        return found


class _Left:
    """What power cuts in a session leave; see :class:`unbrick.campaign.target.LeftByCuts`.

    Args:
        keys: where it is remembered.
        contents: what each part holds where the session begins.
        ops: of the session.
    """

    def __init__(
        self, keys: RememberedKeys, contents: list[_Contents], ops: Sequence[FlashOp]
    ) -> None:
        self._keys, self._ops = keys, ops
        self._contents = contents
        self._done, self._torn = 0, ""
        self._next: _Step | None = None
        self._plain: PlainLeft | None = None
        self._servers: dict[int, _Server] = {}
        self._show()

    def find_key(self, op: int, torn: str, peers: ServerState | None) -> Hashable:
        """Of what a cut leaves."""
        if op != self._done or torn != self._torn:
            self._go_to(op, torn)
        if self._plain is not None:
            return self._plain.find_key(op, torn, peers)
        server = self._servers.get(id(peers))
        if server is None:
            server = self._servers[id(peers)] = self._keys.meet(peers)
        if not server.judged:
            return self._keys.find_plainly(State(self.make_cells(), peers))
        asked = _ask(self._parts, server.state, server.plan, self._application.find_under)
        return self._keys.find_joined(asked)

    def make_cells(self) -> Cells:
        """The flash as the cut leaves it that was asked for last."""
        if self._plain is not None:
            return self._plain.make_cells()
        cells = self._join()
        return tear(cells, self._ops[self._done], self._torn) if self._torn else cells

    def _join(self) -> Cells:
        """The flash before the operation that comes next."""
        held = [contents.cells for contents in self._contents]
        blocks = tuple(held[part].blocks[number] for number, part in enumerate(list_parts()))
        weak = sorted(found for cells in held for found in cells.weak)
        return Cells(held[0].geometry, blocks, tuple(weak))

    def _go_to(self, op: int, torn: str) -> None:
        """A cut comes at an operation, which is torn or was not begun."""
        while self._done < op:
            step = self._find_next()
            if step is None:
                return
            if not step.erases:
                # A program, wherever it is, has ranges without weak cells forgotten.
                self._contents = [contents.find_solid() for contents in self._contents]
            self._contents[step.after.part] = step.after
            self._done, self._next = self._done + 1, None
        step = self._find_next() if torn else None
        if self._plain is None:
            self._torn = torn
            self._show(step)

    def _find_next(self) -> _Step | None:
        """The operation that comes next; None: from there on cuts are looked at one by one."""
        if self._next is None and self._plain is None:
            op = self._ops[self._done]
            part = find_part(self._contents[0].cells, op.offset, op.length)
            if part is None or op.failed:
                self._plain = self._keys.follow_plainly(self._join(), self._ops, self._done)
            else:
                self._next = self._contents[part].find_step(op)
        return self._next

    def _show(self, step: _Step | None = None) -> None:
        """The flash is as it is before the next operation, or as that one leaves it when torn."""
        left: list[_Counted] = [*self._contents]
        if step is not None:
            left[step.after.part] = step.find_torn(self._torn)
        self._parts = tuple([what.held for what in left])
        self._application = left[Part.APPLICATION]
