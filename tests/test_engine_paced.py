"""Virtual time that keeps to the clock. The clock is the test's own: no test here waits."""

from __future__ import annotations

import pytest

from unbrick.engine import paced
from unbrick.engine.inprocess import InProcessEngine
from unbrick.engine.paced import MAX_BEHIND_S, SLICE_S, PacedEngine


class Clock:
    """Stands in for the ``time`` module."""

    def __init__(self) -> None:
        self.time = 100.0
        self.slept: list[float] = []

    def monotonic(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.time += seconds


class Inner:
    """An engine whose time passes as it is told, and takes ``cost`` seconds of the clock."""

    name = "inner"
    wire = radio = None
    board = object()

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.now = 7.0
        self.cost = 0.0
        self.early = False
        self.calls: list[str] = []
        self.faults = ["a fault"]
        self.powered = True

    def advance(self, seconds: float) -> None:
        self.now += seconds / 10 if self.early else seconds
        self._clock.time += self.cost

    def power_on(self) -> None:
        self.calls.append("on")

    def power_off(self) -> None:
        self.calls.append("off")

    def read_nor(self) -> bytes:
        return b"cells"

    def load_nor(self, image: bytes) -> None:
        self.calls.append(f"load {image!r}")

    def close(self) -> None:
        self.calls.append("close")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(paced, "time", made)
    return made


@pytest.fixture
def inner(clock: Clock) -> Inner:
    return Inner(clock)


def make(inner: Inner, speed: float) -> PacedEngine:
    return PacedEngine(inner, speed)  # type: ignore[arg-type]


@pytest.mark.parametrize("speed", [0.5, 1.0, 8.0])
def test_a_second_of_the_terminal_takes_as_long_as_was_asked_for(
    clock: Clock, inner: Inner, speed: float
) -> None:
    engine = make(inner, speed)
    inner.cost = SLICE_S / 3
    while engine.now < 8.0:
        engine.advance(8.0 - engine.now)
    assert engine.now == pytest.approx(8.0)
    assert clock.time == pytest.approx(100.0 + 1.0 / speed, abs=SLICE_S)


def test_the_world_has_its_turn_after_a_slice(inner: Inner) -> None:
    engine = make(inner, 4.0)
    engine.advance(3600.0)
    assert engine.now == pytest.approx(7.0 + 4.0 * SLICE_S)


def test_an_engine_that_returns_early_is_not_slept_for_in_full(clock: Clock, inner: Inner) -> None:
    engine = make(inner, 1.0)
    inner.early = True
    engine.advance(SLICE_S)
    assert clock.slept == [pytest.approx(SLICE_S / 10)]


def test_a_short_delay_is_caught_up_with(clock: Clock, inner: Inner) -> None:
    engine = make(inner, 1.0)
    clock.time += MAX_BEHIND_S / 2  # this process was not running
    start = clock.time
    while engine.now < 8.0:
        engine.advance(8.0 - engine.now)
    assert clock.time - start == pytest.approx(1.0 - MAX_BEHIND_S / 2, abs=SLICE_S)


def test_a_long_delay_is_forgotten(clock: Clock, inner: Inner) -> None:
    engine = make(inner, 1.0)
    clock.time += 60.0
    engine.advance(SLICE_S)
    start, begun = clock.time, engine.now
    while engine.now < begun + 1.0:
        engine.advance(1.0)
    assert clock.time - start == pytest.approx(engine.now - begun)


def test_everything_else_is_the_inner_engines(inner: Inner) -> None:
    engine = make(inner, 1.0)
    engine.load_nor(b"image")
    engine.power_on()
    engine.power_off()
    assert engine.read_nor() == b"cells"
    assert engine.faults == ["a fault"]
    assert engine.powered
    assert (engine.name, engine.board) == ("inner", inner.board)
    engine.close()
    assert inner.calls == ["load b'image'", "on", "off", "close"]


def test_it_has_the_abilities_of_what_it_paces() -> None:
    with InProcessEngine() as able:
        made = PacedEngine(able)
        abilities = (made.flash_trace, made.memory_access, made.wearing_flash)
        assert abilities == (able, able, able)
