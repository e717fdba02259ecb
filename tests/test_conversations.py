"""Peers that do not do again what they did: it makes no difference but to the time."""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import TYPE_CHECKING

import pytest

from unbrick.campaign.case import CaseId, Death
from unbrick.campaign.search import find_successors
from unbrick.campaign.target import UNDISTURBED, Fate
from unbrick.errors import ToolBrokenError
from unbrick.reference import session
from unbrick.reference.conversation import LONG, Conversation, Conversations
from unbrick.reference.layout import find_places
from unbrick.reference.session import Peers, name_beginning, run_session
from unbrick.reference.target import find_target, forget_peers

if TYPE_CHECKING:
    from unbrick.campaign.target import Outcome, State
    from unbrick.engine.inprocess import InProcessEngine
    from unbrick.firmware.signed import Releases
    from unbrick.reference.target import ReferenceTarget

CUTS = 8
"""Power cuts that are drawn by lot."""


@pytest.fixture
def staged(unbrick_releases: Releases) -> ReferenceTarget:
    """The scenario whose peers are the plainest."""
    return find_target("staged", unbrick_releases)


@pytest.fixture
def known() -> Conversations[Peers]:
    """Nothing is known yet."""
    return Conversations()


def run(
    target: ReferenceTarget,
    engine: InProcessEngine,
    state: State,
    known: Conversations[Peers],
    fate: Fate = UNDISTURBED,
) -> Outcome:
    """A session whose peers may be known."""
    return run_session(engine, target.releases, target.scenario, state, fate, known=known)


@pytest.mark.parametrize(
    "name", ["staged", "selfrestore", pytest.param("commanded", marks=pytest.mark.slow)]
)
def test_sessions_are_the_same_to_the_last_bit(
    name: str, unbrick_releases: Releases, remembering: InProcessEngine, known: Conversations[Peers]
) -> None:
    target = find_target(name, unbrick_releases)
    start = target.start()
    golden = target.run(start, engine=remembering)
    found = [state for _, state in find_successors(CaseId(name), start, golden)]
    for state in [start, *Random(name).sample(found, CUTS), start]:
        for fate in (Fate(0), Fate(1)) if state.cells.weak else (UNDISTURBED,):
            alone = target.run(state, fate, remembering)
            assert run(target, remembering, state, known, fate) == alone
    assert known.repeated


def test_the_peers_do_nothing_where_all_was_answered(
    staged: ReferenceTarget,
    remembering: InProcessEngine,
    known: Conversations[Peers],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    start = staged.start()
    first = run(staged, remembering, start, known)
    monkeypatch.setattr(session, "Story", None)
    assert run(staged, remembering, start, known) == first
    assert known.repeated == 1


def test_peers_whose_code_is_another_do_anew(
    staged: ReferenceTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = staged.start()
    staged.run(start)
    monkeypatch.setattr(session, "Story", None)
    staged.run(start)
    forget_peers()
    with pytest.raises(TypeError):
        staged.run(start)


def test_each_session_is_checked_by_its_own_cells(
    staged: ReferenceTarget,
    remembering: InProcessEngine,
    known: Conversations[Peers],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The terminal does not read its last cells: the peers hear the same."""
    start, seen, last = staged.start(), list[bytes](), bytes(4)
    marked = replace(start, cells=start.cells.with_range(start.cells.geometry.size - 4, last))
    monkeypatch.setattr(
        session, "check_end", lambda story, _: seen.append(story.engine.read_nor()[-4:])
    )
    run(staged, remembering, start, known)
    outcome = run(staged, remembering, marked, known)
    assert known.repeated == 1
    assert seen == [b"\xff" * 4, last]
    assert outcome.final is not None
    assert outcome.final.cells.image()[-4:] == last


def test_what_peers_begin_with_has_a_say(staged: ReferenceTarget) -> None:
    start, places = staged.start(), find_places()
    first = name_beginning(staged.scenario, start, UNDISTURBED)
    cells, starts, userdata = start.cells, places.starts.offset, places.userdata.offset
    assert name_beginning(staged.scenario, start, Fate(resolution=2)) == first
    for other in (
        replace(start, cells=cells.with_range(starts, bytes(4))),
        replace(start, cells=cells.with_range(places.starts.end - 1, b"\xff", b"\1")),
        replace(start, peers=None),
    ):
        assert name_beginning(staged.scenario, other, UNDISTURBED) != first
    doubtful = replace(start, cells=cells.with_range(userdata, bytes(4), b"\xff\0\0\0"))
    assert name_beginning(staged.scenario, doubtful, UNDISTURBED) is None
    for fate in (Fate(link=(1, 0)), Fate(death=Death(1, ""))):
        assert name_beginning(staged.scenario, start, fate) is None


def test_peers_that_begin_otherwise_are_others(
    staged: ReferenceTarget, remembering: InProcessEngine, known: Conversations[Peers]
) -> None:
    start, starts = staged.start(), find_places().starts
    run(staged, remembering, start, known)
    counted = replace(start, cells=start.cells.with_range(starts.offset, bytes(4)))
    assert run(staged, remembering, counted, known) == staged.run(counted, engine=remembering)
    later = replace(start, peers=run(staged, remembering, start, known).marks[-1].peers)
    assert run(staged, remembering, later, known) == staged.run(later, engine=remembering)
    assert known.repeated == 1


def test_only_the_latest_ends_are_kept(
    staged: ReferenceTarget, remembering: InProcessEngine
) -> None:
    known, starts = Conversations[Peers](most=1), find_places().starts
    one = staged.start()
    other = replace(one, cells=one.cells.with_range(starts.offset, bytes(4)))
    for state, repeated in ((one, 0), (one, 1), (other, 1), (one, 1), (one, 2)):
        run(staged, remembering, state, known)
        assert known.repeated == repeated


class _Echo:
    """A terminal that answers what it is told to."""

    name = board = None

    def __init__(self, *answers: bytes) -> None:
        self.left = list(answers)
        self.asked = 0
        self.wire = self.radio = self

    def write(self, data: bytes) -> None:
        self.left.append(data)

    def read_memory(self, _address: int, _length: int) -> bytes:
        self.asked += 1
        return self.left.pop(0)


def talk(known: Conversations[str], *answers: bytes) -> tuple[_Echo, Conversation[str]]:
    """A conversation with an echo."""
    echo = _Echo(*answers)
    return echo, known.begin(echo, "key")  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [1, LONG])
def test_peers_are_told_again_what_was_answered(size: int) -> None:
    known, same = Conversations[str](), bytes(size)
    _, first = talk(known, same, b"b")
    assert first.repeat() is None
    assert [first.read_memory(0, 1), first.read_memory(1, 1)] == [same, b"b"]
    first.end("one")
    echo, other = talk(known, same, b"c", b"d")
    assert other.repeat() is None
    assert echo.asked == 2
    assert [other.read_memory(0, 1), other.read_memory(1, 1)] == [same, b"c"]
    assert echo.asked == 2
    assert other.read_memory(2, 1) == b"d"
    assert echo.asked == 3
    other.end("two")
    assert talk(known, same, b"b")[1].repeat() == "one"
    assert talk(known, same, b"c", b"d")[1].repeat() == "two"
    assert talk(known, b"\1" * size, b"b")[1].repeat() is None


def test_what_is_sent_is_sent_once() -> None:
    known = Conversations[str]()
    _, first = talk(known, b"a")
    assert first.repeat() is None
    first.read_memory(0, 1)
    first.wire.write(b"sent")
    assert first.read_memory(1, 1) == b"sent"
    first.end("one")
    assert talk(known, b"a")[1].repeat() == "one"
    echo, other = talk(known, b"a", b"z")
    assert other.repeat() is None
    assert other.read_memory(0, 1) == b"a"
    other.wire.write(b"sent")
    assert [other.read_memory(1, 1), other.read_memory(2, 1)] == [b"z", b"sent"]
    assert echo.left == []


@pytest.mark.parametrize("question", [(0, 2), (1, 1)])
def test_peers_that_do_something_else_are_a_bug(question: tuple[int, int]) -> None:
    known = Conversations[str]()
    talk(known, b"a")[1].read_memory(0, 1)
    with pytest.raises(ToolBrokenError, match="before"):
        talk(known, b"a")[1].read_memory(*question)
    with pytest.raises(ToolBrokenError, match="before"):
        talk(known, b"a")[1].wire.write(b"x")


def test_what_ended_badly_is_not_repeated() -> None:
    known = Conversations[str]()
    _, first = talk(known, b"a")
    first.read_memory(0, 1)
    first.end(None)
    assert talk(known, b"a")[1].repeat() is None
