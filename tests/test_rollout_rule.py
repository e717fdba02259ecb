"""What a rollout does next, whatever its counts are: never stuck, never too far."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unbrick.server.core.rollout_rule import (
    BeginGroup,
    Filter,
    FinishRollout,
    KeepWaiting,
    StopAll,
    check_groups,
    decide,
    divide,
    follow,
)
from unbrick.server.errors import ConflictError
from unbrick.server.records.rollouts import GroupCount, MemberState
from unbrick.server.records.updates import UpdateState

NUMBERS = st.integers(0, 30)
COUNTS = st.builds(GroupCount, *[NUMBERS] * 7)
OVER = st.builds(GroupCount, *[st.just(0)] * 3, *[NUMBERS] * 4)
PERCENTS = st.integers(0, 100)
GROUPS = st.lists(st.integers(1, 99), max_size=5, unique=True).map(lambda p: (*sorted(p), 100))


@st.composite
def plans(draw: st.DrawFn, counts: st.SearchStrategy[GroupCount]) -> tuple[list[GroupCount], int]:
    """Groups of which some have begun; those that have not, only wait."""
    groups = draw(st.lists(counts, min_size=1, max_size=5))
    begun = draw(st.integers(0, len(groups)))
    waiting = [GroupCount(waiting=group.total) for group in groups[begun:]]
    return [*groups[:begun], *waiting], begun


@given(plans(COUNTS), PERCENTS, PERCENTS)
def test_a_group_begins_only_when_the_ones_before_are_good(
    plan: tuple[list[GroupCount], int], success: int, error: int
) -> None:
    groups, begun = plan
    decision = decide(groups, begun, success=success, error=error)
    if not isinstance(decision, BeginGroup):
        return
    assert decision.group == begun + 1 <= len(groups)
    for group in groups[:begun]:
        assert 100 * group.failed <= error * group.counted
    if begun:
        before = groups[begun - 1]
        assert 100 * before.succeeded >= success * before.counted


@given(plans(COUNTS), PERCENTS, PERCENTS)
def test_more_failures_than_allowed_always_stop_it(
    plan: tuple[list[GroupCount], int], success: int, error: int
) -> None:
    groups, begun = plan
    bad = any(100 * group.failed > error * group.counted for group in groups[:begun])
    decision = decide(groups, begun, success=success, error=error)
    assert not bad or isinstance(decision, StopAll)
    if isinstance(decision, StopAll):
        assert decision.why
        assert begun > 0


@given(plans(OVER), PERCENTS, PERCENTS)
def test_it_never_waits_for_nothing(
    plan: tuple[list[GroupCount], int], success: int, error: int
) -> None:
    groups, begun = plan
    assert not isinstance(decide(groups, begun, success=success, error=error), KeepWaiting)


@given(plans(COUNTS), PERCENTS, PERCENTS)
def test_it_finishes_when_all_are_over_and_not_before(
    plan: tuple[list[GroupCount], int], success: int, error: int
) -> None:
    groups, begun = plan
    decision = decide(groups, begun, success=success, error=error)
    if isinstance(decision, FinishRollout):
        assert begun == len(groups)
        assert not any(group.open for group in groups)


@given(st.lists(COUNTS, min_size=1, max_size=4), PERCENTS, PERCENTS)
def test_one_more_failure_never_opens_a_group(
    groups: list[GroupCount], success: int, error: int
) -> None:
    begun = len(groups)
    rest = [GroupCount(waiting=5)]
    worse = replace(groups[-1], failed=groups[-1].failed + 1)
    if isinstance(
        decide([*groups[:-1], worse, *rest], begun, success=success, error=error), BeginGroup
    ):
        before = decide([*groups, *rest], begun, success=success, error=error)
        assert isinstance(before, BeginGroup)


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (GroupCount(ordered=100), KeepWaiting()),
        (GroupCount(asked=100), KeepWaiting()),
        (GroupCount(succeeded=89, asked=11), KeepWaiting()),
        (GroupCount(succeeded=89, ordered=11), KeepWaiting()),
        (GroupCount(succeeded=90, ordered=10), BeginGroup(2)),
        (GroupCount(succeeded=95, failed=5), BeginGroup(2)),
        (
            GroupCount(ordered=94, failed=6),
            StopAll("group 1: 6 of 100 failed, more than 5 %"),
        ),
        (GroupCount(skipped=100), BeginGroup(2)),
        (GroupCount(succeeded=10, forgiven=90), BeginGroup(2)),
        (GroupCount(), BeginGroup(2)),
    ],
)
def test_the_defaults_as_the_page_says_them(count: GroupCount, expected: object) -> None:
    assert decide([count, GroupCount(waiting=9)], 1, success=90, error=5) == expected


def test_what_cannot_succeed_any_more_stops() -> None:
    groups = [GroupCount(succeeded=5, failed=1), GroupCount(waiting=9)]
    stop = decide(groups, 1, success=90, error=50)
    assert stop == StopAll("group 1: 90 % cannot succeed any more, 1 failed")
    last = decide([GroupCount(succeeded=5, failed=1)], 1, success=90, error=50)
    assert last == FinishRollout(), "nothing would begin after it"


@given(st.sets(st.text(min_size=1, max_size=8), max_size=300), GROUPS, st.text(max_size=4))
def test_every_terminal_is_in_one_group_and_groups_have_their_sizes(
    serials: set[str], percents: tuple[int, ...], salt: str
) -> None:
    groups = divide(serials, percents, salt)
    assert groups == divide(sorted(serials, reverse=True), percents, salt), "chosen by serial alone"
    assert set(groups) == serials
    for number, percent in enumerate(percents, 1):
        asked = sum(group <= number for group in groups.values())
        assert asked == -(-len(serials) * percent // 100)


def test_another_rollout_has_other_canaries() -> None:
    serials = [f"T-{number:04}" for number in range(1000)]
    first = [{s for s, g in divide(serials, (5, 100), salt).items() if g == 1} for salt in "12"]
    assert len(first[0]) == len(first[1]) == 50
    assert len(first[0] & first[1]) < 15


@pytest.mark.parametrize("percents", [(), (5,), (0, 100), (5, 5, 100), (25, 5, 100), (101,)])
def test_groups_that_cannot_be_are_refused(percents: tuple[int, ...]) -> None:
    with pytest.raises(ConflictError, match="rise"):
        check_groups(percents)


def test_what_becomes_of_a_terminal() -> None:
    ordered, waiting, skipped = MemberState.ORDERED, MemberState.WAITING, MemberState.SKIPPED
    for state in UpdateState:
        expected = {
            UpdateState.SUCCEEDED: MemberState.SUCCEEDED,
            UpdateState.FAILED: MemberState.FAILED,
            UpdateState.REFUSED: MemberState.FAILED,
            UpdateState.CANCELLED: skipped,
        }.get(state, ordered)
        assert follow(ordered, state) is expected
    assert follow(waiting, UpdateState.CANCELLED) is waiting, "it was taken back"
    for late in (waiting, skipped):
        assert follow(late, UpdateState.REWRITING) is ordered, "the cancellation came too late"
    assert follow(MemberState.FORGIVEN, UpdateState.FAILED) is MemberState.FORGIVEN
    assert follow(MemberState.FORGIVEN, UpdateState.SUCCEEDED) is MemberState.SUCCEEDED
    assert follow(MemberState.FAILED, UpdateState.SUCCEEDED) is MemberState.SUCCEEDED


def test_patterns_are_of_whole_words_with_capitals() -> None:
    from server_world import registration  # noqa: PLC0415 - for one test

    from unbrick.server.records.updates import Terminal  # noqa: PLC0415

    terminal = Terminal(
        **vars(registration(serial="EU-0007", version="1.0.3+0")),
        endpoint="",
        first_seen=0.0,
        last_seen=0.0,
    )
    for wanted, takes in (
        (Filter("*", "terminal", "*"), True),
        (Filter("EU-*", "*", "1.0.*"), True),
        (Filter("EU-000?", "term*", "1.0.3+0"), True),
        (Filter("eu-*", "*", "*"), False),
        (Filter("0007", "*", "*"), False),
        (Filter("*", "other", "*"), False),
        (Filter("*", "*", "1.1.*"), False),
    ):
        assert wanted.takes(terminal) is takes
