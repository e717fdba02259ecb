"""The link's faults: each does what its name says, and the seed says all."""

from __future__ import annotations

from typing import Any

import pytest

from unbrick.errors import SetupError
from unbrick.link.faults import Direction, FaultPlan, Faults
from unbrick.wire.slipmux import Decoder, encode

UP, DOWN = Direction.UP, Direction.DOWN
MESSAGES = [bytes([index]) * 20 for index in range(200)]


def carried(faults: Faults, direction: Direction = UP, now: float = 0.0) -> list[list[bytes]]:
    """For each message what arrives of it whole."""
    return [
        [
            frame.data
            for delivery in faults.carry(direction, message, now)
            for frame in Decoder().feed(delivery.frame)
        ]
        for message in MESSAGES
    ]


def test_without_faults_everything_arrives() -> None:
    faults = Faults()
    assert carried(faults) == [[message] for message in MESSAGES]
    assert faults.spoil(UP, b"bytes") == b"bytes"
    assert not faults.counts


@pytest.mark.parametrize("name", ["drop", "duplicate", "corrupt", "truncate", "garble"])
def test_a_fault_strikes_about_as_often_as_it_should(name: str) -> None:
    values: dict[str, Any] = {name: 0.3}
    faults = Faults(FaultPlan(**values), seed=1)
    results = carried(faults)
    changed = [parts != [sent] for parts, sent in zip(results, MESSAGES, strict=True)]
    assert sum(changed) == faults.counts[name]
    assert set(faults.counts) == {name}
    assert 40 <= sum(changed) <= 80
    for parts, sent, hit in zip(results, MESSAGES, changed, strict=True):
        if hit and name == "duplicate":
            assert parts == [sent, sent]
        elif hit and name == "garble":
            assert len(parts[0]) == len(sent)
        elif hit:
            assert parts == []


def test_reordered_messages_are_overtaken() -> None:
    faults = Faults(FaultPlan(reorder=0.5, hold=0.4, delay=0.1), seed=2)
    late = [faults.carry(UP, message, 0.0)[0].after for message in MESSAGES]
    held = [after for after in late if after >= 0.4]
    assert len(held) == faults.counts["reorder"]
    assert 70 <= len(held) <= 130
    assert all(0.0 <= after < 0.1 or 0.4 <= after < 0.5 for after in late)


def test_a_cut_lets_nothing_through_while_it_lasts() -> None:
    faults = Faults(FaultPlan(cuts=((1.0, 2.0),)))
    arrived = [bool(faults.carry(DOWN, b"x", now)) for now in (0.9, 1.0, 1.9, 2.0)]
    assert arrived == [True, False, False, True]
    assert faults.counts == {"cut off": 2}


def test_faults_can_be_of_one_direction() -> None:
    faults = Faults(FaultPlan(drop=1.0, noise=1.0, only=DOWN))
    assert carried(faults, UP) == [[message] for message in MESSAGES]
    assert faults.spoil(UP, b"bytes") == b"bytes"
    assert carried(faults, DOWN) == [[] for _ in MESSAGES]
    assert all(a != b for a, b in zip(faults.spoil(DOWN, b"bytes"), b"bytes", strict=True))


PLAN = FaultPlan(0.1, 0.1, 0.1, 0.1, 0.1, 0.1, noise=0.05, delay=0.2)


def test_the_seed_says_all() -> None:
    def run(seed: int) -> list[Any]:
        faults = Faults(PLAN, seed)
        return [faults.carry(UP, message, 0.0) for message in MESSAGES] + [
            faults.spoil(DOWN, bytes(1000))
        ]

    assert run(1) == run(1)
    assert run(1) != run(2)


def test_the_directions_do_not_share_their_luck() -> None:
    faults = Faults(FaultPlan(drop=0.5), 1)
    up = [bool(faults.carry(UP, message, 0.0)) for message in MESSAGES]
    down = [bool(faults.carry(DOWN, message, 0.0)) for message in MESSAGES]
    assert up != down


def test_a_message_fares_the_same_whatever_else_is_sent() -> None:
    alone, busy = Faults(PLAN, 3), Faults(PLAN, 3)
    for message in MESSAGES:
        busy.carry(DOWN, message, 5.0)
        busy.spoil(UP, message)
        assert busy.carry(UP, message, 7.0) == alone.carry(UP, message, 0.0)


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_noise_does_not_depend_on_how_the_stream_is_cut(size: int) -> None:
    stream = encode(b"text") * 500
    whole = Faults(PLAN, 4).spoil(UP, stream)
    faults = Faults(PLAN, 4)
    parts = [faults.spoil(UP, stream[at : at + size]) for at in range(0, len(stream), size)]
    assert b"".join(parts) == whole
    wrong = sum(a != b for a, b in zip(whole, stream, strict=True))
    assert wrong == faults.counts["noise"]
    assert 0.03 < wrong / len(stream) < 0.07


@pytest.mark.parametrize("values", [{"drop": 1.1}, {"noise": -0.1}, {"delay": -1.0}])
def test_impossible_plans_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(SetupError, match=next(iter(values))):
        FaultPlan(**values)
