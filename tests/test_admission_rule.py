"""Who may register: bounded whatever comes, in fixed memory, and known terminals do not notice."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from server_world import registration

from unbrick.server.core import admission as rule
from unbrick.server.core.admission import (
    BURST_S,
    KNOWN_BURST,
    LONGEST_WAIT_S,
    MOST_WAITING,
    NETWORK_SHARE,
    Admission,
    Buckets,
    Limits,
    Reason,
    Refusal,
    Unknown,
    find_network,
)

RATES = st.floats(0.01, 100.0)
BURSTS = st.floats(1.0, 50.0)
STEPS = st.lists(st.floats(0.0, 5.0), min_size=1, max_size=200)
HERE = "192.0.2.7:5683"


def ask(
    door: Admission, serial: str, now: float, endpoint: str = HERE, *, let_in: bool = False
) -> Refusal | None:
    return door.judge(registration(serial=serial), endpoint, now, lambda _serial: let_in)


def endpoint(number: int) -> str:
    """Each in a network of its own."""
    return f"10.{number >> 8 & 255}.{number & 255}.1:5683"


@given(RATES, BURSTS, STEPS)
def test_a_bucket_never_gives_more_than_it_holds_and_gets(
    rate: float, burst: float, steps: list[float]
) -> None:
    bucket, now = Buckets(rate, burst), 1000.0
    taken: list[float] = []
    for step in steps:
        now += step
        if not bucket.look("", now):
            bucket.take("", now)
            taken.append(now)
    for first in range(len(taken)):
        assert len(taken) - first <= burst + rate * (now - taken[first]) + 1e-6


@given(RATES, BURSTS, STEPS)
def test_who_waits_as_long_as_told_gets_a_token(
    rate: float, burst: float, steps: list[float]
) -> None:
    bucket, now = Buckets(rate, burst), 1000.0
    for step in steps:
        now += step
        wait = bucket.look("", now)
        now += wait
        assert bucket.look("", now) <= 1e-6
        bucket.take("", now)


@given(st.floats(0.0, 1e9), RATES, BURSTS)
def test_a_clock_that_goes_back_locks_nobody_out(back: float, rate: float, burst: float) -> None:
    bucket = Buckets(rate, burst)
    while not bucket.look("", 2e9):
        bucket.take("", 2e9)
    assert bucket.look("", 2e9 - back) <= 1 / rate + 1e-6


@given(st.lists(st.tuples(st.integers(0, 60_000), st.floats(0.0, 0.1)), max_size=300))
def test_a_known_terminal_is_taken_whatever_strangers_do(flood: list[tuple[int, float]]) -> None:
    door, now = Admission(Limits(new_per_second=0.1), ["known"]), 1000.0
    for number, step in flood:
        now += step
        ask(door, f"stranger-{number}", now, endpoint(number))
    assert ask(door, "known", now) is None
    assert door.foresee("known", HERE, now) is None


@pytest.mark.parametrize("unknown", list(Unknown))
def test_strangers_of_all_networks_together_are_bounded(unknown: Unknown) -> None:
    door, asked = Admission(Limits(unknown, new_per_second=1.0)), []

    def is_let_in(serial: str) -> bool:
        asked.append(serial)
        return False

    refusals = [
        door.judge(registration(serial=f"S-{n}"), endpoint(n), 1000.0 + n / 1000, is_let_in)
        for n in range(2000)
    ]
    let_through = [one for one in refusals if one is None or one.reason is Reason.APPROVAL]
    assert len(let_through) == BURST_S + 1
    assert len(asked) == (len(let_through) if unknown is Unknown.WAIT else 0)
    assert door.refused[Reason.SERVER] == 2000 - len(let_through)
    assert all(1 <= one.wait <= LONGEST_WAIT_S for one in refusals if one is not None)


def test_one_network_leaves_room_for_the_others() -> None:
    door = Admission(Limits(new_per_second=1.0))
    refusals = [ask(door, f"S-{n}", 1000.0, f"192.0.2.{n % 256}:{n}") for n in range(500)]
    assert sum(one is None for one in refusals) == BURST_S * NETWORK_SHARE
    assert {one.reason for one in refusals if one is not None} == {Reason.NETWORK}
    assert ask(door, "elsewhere", 1000.0, "198.51.100.1:5683") is None


def test_a_known_terminal_that_asks_for_ever_is_bounded_alone() -> None:
    door = Admission(Limits(), ["mad", "calm"])
    refusals = [ask(door, "mad", 1000.0) for _ in range(100)]
    assert sum(one is None for one in refusals) == KNOWN_BURST
    assert refusals[-1] == Refusal(Reason.TERMINAL, 1)
    assert ask(door, "calm", 1000.0) is None
    assert ask(door, "mad", 1001.0) is None


def test_memory_does_not_grow_with_the_number_of_strangers() -> None:
    door = Admission(Limits(Unknown.WAIT, new_per_second=1e9))
    buckets = [value for value in vars(door).values() if isinstance(value, Buckets)]
    before = []
    for number in range(5000):
        refusal = ask(door, f"S-{number}", 1000.0, endpoint(number))
        assert refusal is not None
        assert refusal.reason is Reason.APPROVAL
        sizes = [sys.getsizeof(bucket._full_at) for bucket in buckets]
        before = before or sizes  # tables are made for the first one
        assert sizes == before
    assert not door._known
    assert len(door.waiting()) == MOST_WAITING


def test_the_newest_wait_with_how_often_they_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rule, "MOST_WAITING", 2)
    door = Admission(Limits(Unknown.WAIT))
    for now, serial in enumerate(("A", "B", "A", "C")):
        ask(door, serial, now)
    assert [(item.serial, item.first, item.last, item.times) for item in door.waiting()] == [
        ("A", 0, 2, 2),
        ("C", 3, 3, 1),
    ]
    door.let_in("A")
    assert [item.serial for item in door.waiting()] == ["C"]
    assert ask(door, "A", 5.0) is None


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("192.0.2.1:5683", "192.0.2.200:1", True),
        ("192.0.2.1:5683", "192.0.3.1:5683", False),
        ("[2001:db8:0:1::1]:5683", "[2001:db8:0:1:ffff::2]:1", True),
        ("[2001:db8:0:1::1]:5683", "[2001:db8:0:2::1]:5683", False),
        ("[::ffff:192.0.2.1]:5683", "192.0.2.9:5683", True),
        ("[fe80::1%eth0]:5683", "[fe80::2]:5683", True),
    ],
)
def test_a_network_is_24_bits_of_ipv4_and_64_of_ipv6(one: str, other: str, *, same: bool) -> None:
    assert (find_network(one) == find_network(other)) is same


@given(st.text("0123456789abcdef:.[]%", max_size=60))
def test_any_endpoint_has_a_network(text: str) -> None:
    assert isinstance(find_network(text), str)


def test_who_shares_a_bucket_cannot_be_known_without_the_salt() -> None:
    places = [
        [Buckets(1, 1, 65_536, salt)._place(f"10.0.{n}") for n in range(64)]
        for salt in (b"a", b"b")
    ]
    assert places[0] != places[1]
