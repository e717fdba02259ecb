"""Tries to refute the search by relevance, beyond what ``unbrick.campaign.refute`` does."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial, reduce
from operator import or_
from random import Random
from typing import TYPE_CHECKING

from unbrick.campaign import refute
from unbrick.campaign.behaviour import BehaviourSearch, CountedFields
from unbrick.campaign.book import UNIT, find_units
from unbrick.campaign.case import CaseId
from unbrick.campaign.refute import MOST_CUTS, choose_cut
from unbrick.campaign.run import Here
from unbrick.campaign.search import Bounds, find_cells, find_cuts
from unbrick.campaign.target import Fate, FormedTarget, Outcome, State, Target
from unbrick.flash.cells import RESOLUTIONS, Cells

if TYPE_CHECKING:
    from collections.abc import Callable

    from unbrick.campaign.behaviour import Behaviour
    from unbrick.flash.ops import FlashOp

EVERYTHING = Bounds()

CUTS_OF_A_MEMBER = 50
"""Looked at, at least, of those that a search has not run."""


def search_target(target: Target, bounds: Bounds = EVERYTHING) -> BehaviourSearch:
    """A search that has ended."""
    submit = partial(Here().submit, target.run)
    search = BehaviourSearch(target, target.start(), submit, bounds, keep_traces=True)
    list(search.cases())
    return search


def _is_nothing(_: FlashOp) -> bool:
    return False


@dataclass(frozen=True)
class Ignored:
    """What two sessions that are the same may have otherwise.

    Attributes:
        name: of a part of the outcome. Where checks look for something that may be in several
            places, what they look at (``relevant``) may be something else.
        op: says which operations may be at another place, with other data.
        times: when something was, which is then left out everywhere. Of what a server remembers,
            what it decides by is left.
    """

    name: str = ""
    op: Callable[[FlashOp], bool] = _is_nothing
    times: bool = False

    def apply(self, outcome: Outcome) -> Outcome:
        """The outcome without it."""
        ops = [op._replace(offset=0, data=b"") if self.op(op) else op for op in outcome.ops]
        outcome = replace(outcome, ops=ops)
        if not self.times:
            return outcome
        ops = [op._replace(start=0.0, end=0.0) for op in ops]
        peers = (mark.peers.whole if mark.peers else None for mark in outcome.marks)
        marks = [
            replace(mark, time=0.0, peers=kept)
            for mark, kept in zip(outcome.marks, peers, strict=True)
        ]
        return replace(outcome, ops=ops, marks=marks, downtime=0.0, virtual=0.0)


NOTHING = Ignored()


def find_difference(said: Outcome, outcome: Outcome, ignored: Ignored = NOTHING) -> str:
    """In what a session is another than it was said to be; empty: in nothing."""
    return refute.find_difference(ignored.apply(said), ignored.apply(outcome), ignored.name)


def find_refuted_form(
    search: BehaviourSearch, dice: Random, count: int, most_cuts: int = MOST_CUTS
) -> str:
    """Run random states as they are and as they count: the first with which the form is wrong.

    Both must have a verdict that the search has said. What a cut leaves of both must count as the
    same. This is asked where no cell is weak, as it may count as one that is not. Empty: all is
    right.
    """
    target, tried = search.result.target, 0
    assert isinstance(target, FormedTarget)
    fields = CountedFields(target.form)
    with target.create_engine() as engine:
        while tried < count:
            case, state = CaseId(target.name), target.start()
            for _ in range(most_cuts + 1):
                said = search.judge(state)
                if said is None:
                    return f"nobody judged {case}"
                verdicts = {behaviour.outcome.violation for behaviour in said}
                counted = State(fields.apply(state.cells), state.peers)
                fate = Fate(dice.randrange(RESOLUTIONS) if state.cells.weak else 0)
                outcome = target.run(state, fate, engine)
                tried += 1
                if bool(outcome.violation) not in map(bool, verdicts):
                    return f"{case} has another verdict"
                if outcome.violation or tried >= count:
                    break
                case = case.with_resolution(fate.resolution)
                after, left = choose_cut(search, dice, case, state, outcome)
                if not state.cells.weak and counted != state:
                    whole = target.run(counted, engine=engine)
                    tried += 1
                    other = find_cells(counted.cells, whole.ops, after.cuts[-1])
                    if fields.apply(other) != fields.apply(left.cells):
                        return f"{after} does not count as what it leaves of what {case} counts as"
                case, state = after, left
    return ""


def find_erased(behaviour: Behaviour, op: int) -> int:
    """The units that a session has erased before an operation."""
    geometry, lanes = behaviour.geometry, (1 << behaviour.geometry.chips) - 1
    erases = [
        erase
        for erase in behaviour.outcome.ops[:op]
        if erase.kind == "erase" and not erase.failed and erase.lanes & lanes == lanes
    ]
    parts = {part for erase in erases for part in geometry.list_parts(erase)}
    return reduce(or_, (find_units(part.offset, part.length) for part in parts), 0)


def agree(one: Cells, other: Cells, units: int) -> bool:
    """Whether two flashes hold the same in some units, weak bits and all."""
    while units:
        unit = (units & -units).bit_length() - 1
        units &= units - 1
        place = unit * UNIT, UNIT
        if one.read(*place) != other.read(*place) or one.read_weak(*place) != other.read_weak(
            *place
        ):
            return False
    return True


def find_unfollowed(
    search: BehaviourSearch, most: int = 1_000_000, depth: int | None = None, seed: int = 0
) -> str:
    """What the proof asks of a search that has ended, and it has not; empty: it has all.

    Each cut in a member's session must lead to a known behaviour, and to a state that a member
    stands for. What that behaviour needs its user must need, too, unless it was erased by then.

    Args:
        search: it has ended.
        most: about so many cuts are looked at, of random members.
        depth: the search's bound on power cuts in a row.
        seed: which ones.
    """
    dice, target, shapes = Random(seed), search.result.target, search.result.shapes
    fields = CountedFields(target.form if isinstance(target, FormedTarget) else None)
    members = [member for behaviour in search.behaviours for member in behaviour.members]
    chosen = dice.sample(members, min(len(members), -(-most // CUTS_OF_A_MEMBER)))
    for member in chosen:
        user, left_open = member.behaviour, len(member.case.cuts) + 1 == depth
        cuts = list(find_cuts(member.case, user.outcome, user.geometry, shapes=shapes))
        for case, peers in dice.sample(cuts, min(len(cuts), -(-most // len(chosen)))):
            cut = case.cuts[-1]
            left = find_cells(member.state.cells, user.outcome.ops, cut)
            state, erased = State(fields.apply(left), peers), find_erased(user, cut.op)
            led = search.judge(state)
            if led is None:
                return f"{case} is not judged"
            for behaviour in led:
                needs = behaviour.needs
                if needs & fields.units:
                    needs |= fields.units  # what a field counts as is made of all
                if needs & ~erased & ~user.needs:
                    return f"{user.case.id} needs more, for {case}"
                if not (behaviour.outcome.violation or left_open) and not any(
                    agree(state.cells, other.state.cells, behaviour.needs)
                    and (depth is None or len(other.case.cuts) <= len(case.cuts))
                    for other in behaviour.members
                ):
                    return f"nobody stands for {case}"
    return ""


def scramble(state: State, relevant: int, dice: Random) -> State:
    """A state that agrees on what is relevant; every other unit of the flash holds anything."""
    image = bytearray(state.cells.image())
    bits = relevant.to_bytes(-(-len(image) // UNIT // 8), "little")
    free = [unit for unit in range(len(image) // UNIT) if not bits[unit // 8] >> unit % 8 & 1]
    noise = dice.randbytes(len(free) * UNIT)
    for number, unit in enumerate(free):
        image[unit * UNIT : (unit + 1) * UNIT] = noise[number * UNIT : (number + 1) * UNIT]
    return State(Cells.of(bytes(image), state.cells.geometry), state.peers)
