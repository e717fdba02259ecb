"""The restoration apparatus at the real firmware, in virtual time: noise, power cuts, a NOR that is
not what was sent. The same seed gives the same run."""

from __future__ import annotations

import hashlib
import random
from typing import TYPE_CHECKING

import pytest
from counted_starts import but_for_starts

from unbrick.bench.tap import Tap
from unbrick.errors import RestoreError
from unbrick.image.format import inspect
from unbrick.layout import reference_layout
from unbrick.link.faults import Direction, FaultPlan, Faults
from unbrick.restore.apparatus import Apparatus, RestorationStage

if TYPE_CHECKING:
    from collections.abc import Callable

    from unbrick.engine.base import Line
    from unbrick.reference.system import System

LAYOUT = reference_layout()
APPLICATION = LAYOUT.partition("application")
OFF_S = 2.0  # seconds without power
MAX_SESSION_S = 1500.0


class NoisyLine:
    """A line with noise on it in both directions."""

    def __init__(self, line: Line, faults: Faults) -> None:
        self._line, self._faults = line, faults

    def write(self, data: bytes) -> None:
        self._line.write(self._faults.spoil(Direction.DOWN, data))

    def read(self) -> bytes:
        return self._faults.spoil(Direction.UP, self._line.read())


class Bench:
    """A terminal without an application, and an apparatus on its wire."""

    def __init__(self, system: System, faults: Faults | None = None, **options: int) -> None:
        self.system = system
        self.image = system.releases.signed["1.1.0"]
        self.stages: list[tuple[float, RestorationStage]] = []
        line: Line = Tap(system.console)
        if faults is not None:
            line = NoisyLine(line, faults)
        self.begin(line, **options)
        system.bench.peers.append(self)
        system.engine.power_on()

    def begin(self, line: Line, **options: int) -> None:
        """Start the apparatus (anew)."""
        self.apparatus = Apparatus(line, self.image, inspect(self.image), **options)

    def step(self, now: float) -> float | None:
        deadline = self.apparatus.step(now)
        if not self.stages or self.stages[-1][1] is not self.apparatus.stage:
            self.stages.append((now, self.apparatus.stage))
        return deadline

    def run_until(self, when: Callable[[], bool]) -> bool:
        return self.system.bench.run_until(lambda: self.apparatus.finished or when(), MAX_SESSION_S)

    def finish(self) -> RestorationStage:
        self.run_until(lambda: False)
        return self.apparatus.stage

    def cut(self, off: float = OFF_S) -> None:
        self.system.bench.cut_power()
        end = self.system.engine.now + off
        self.system.bench.run_until(lambda: self.system.engine.now >= end, off + 1)
        self.system.engine.power_on()

    @property
    def application(self) -> bytes:
        nor = self.system.engine.read_nor()
        return nor[APPLICATION.offset : APPLICATION.offset + len(self.image)]


@pytest.fixture
def make_bench(unbrick_make_system: Callable[..., System]) -> Callable[..., Bench]:
    """On the engine that has virtual time."""

    def make(faults: Faults | None = None, **options: int) -> Bench:
        return Bench(unbrick_make_system(engine="inprocess", installed=None), faults, **options)

    return make


def test_claim_a12_success_is_what_was_read_back_from_the_nor(
    make_bench: Callable[..., Bench],
) -> None:
    bench = make_bench()
    assert bench.finish() is RestorationStage.DONE
    assert bench.apparatus.digest == hashlib.sha256(bench.image).hexdigest()
    assert bench.application == bench.image
    order = [stage for _, stage in bench.stages]
    assert order == [stage for stage in RestorationStage if stage is not RestorationStage.FAILED]
    assert bench.system.console.command("digest").startswith(f"sha256: {bench.apparatus.digest}")


@pytest.mark.parametrize("version", ["1.1.0", "1.0.0"])
def test_a_terminal_that_runs_is_asked_what_it_runs_and_nothing_is_sent(
    unbrick_make_system: Callable[..., System], version: str
) -> None:
    bench = Bench(unbrick_make_system(engine="inprocess", installed=version))
    before = bench.system.engine.read_nor()
    bench.finish()
    if version == "1.1.0":
        assert bench.apparatus.stage is RestorationStage.DONE
        assert bench.apparatus.digest == hashlib.sha256(bench.image).hexdigest()
    else:
        assert "application runs: there is nothing to restore" in str(bench.apparatus.error)
    assert bench.apparatus.transfers == 0
    assert but_for_starts(bench.system.engine.read_nor()) == but_for_starts(before)


@pytest.mark.parametrize("share", [3e-4, 1e-3])
@pytest.mark.parametrize("seed", range(4))
def test_a_noisy_line_is_overcome(
    make_bench: Callable[..., Bench], seed: int, share: float
) -> None:
    faults = Faults(FaultPlan(noise=share), seed)
    bench = make_bench(faults)
    assert bench.finish() is RestorationStage.DONE, bench.apparatus.error
    assert bench.application == bench.image
    assert faults.counts["noise"] > 10
    assert bench.apparatus.repeats > 0


@pytest.mark.parametrize("seed", range(4))
def test_a_hopeless_line_never_looks_like_success(
    make_bench: Callable[..., Bench], seed: int
) -> None:
    bench = make_bench(Faults(FaultPlan(noise=0.02), seed))
    assert bench.finish() is RestorationStage.FAILED
    assert isinstance(bench.apparatus.error, RestoreError)
    assert bench.apparatus.error.hint


def phases(bench: Bench) -> list[float]:
    """Times at which to cut: five in each stage of an undisturbed restoration."""
    assert bench.finish() is RestorationStage.DONE
    ends = [start for start, _ in bench.stages[1:]]
    return [
        start + (end - start) * (part + 0.5) / 5
        for (start, _), end in zip(bench.stages, ends, strict=False)
        for part in range(5)
    ]


@pytest.mark.parametrize("stage", [RestorationStage.STARTING, RestorationStage.READING_BACK])
def test_the_power_may_be_away_for_long_after_the_transfer(
    make_bench: Callable[..., Bench], stage: RestorationStage
) -> None:
    """The apparatus goes on looking for it, and finds that there is nothing more to send."""
    bench = make_bench(wait=60)
    if stage is RestorationStage.STARTING:
        bench.run_until(lambda: bool(bench.apparatus.running))
    bench.run_until(lambda: bench.apparatus.stage is stage)
    bench.cut(off=45.0)
    assert bench.finish() is RestorationStage.DONE, bench.apparatus.error
    assert bench.application == bench.image
    assert bench.apparatus.transfers == 1


@pytest.mark.slow
def test_claim_a12_a_power_cut_in_any_phase_is_overcome(make_bench: Callable[..., Bench]) -> None:
    for at in phases(make_bench()):
        bench = make_bench()
        bench.run_until(lambda at=at, bench=bench: bench.system.engine.now >= at)
        cut_in = bench.apparatus.stage
        bench.cut()
        assert bench.finish() is RestorationStage.DONE, (
            f"cut at {at} while {cut_in}: {bench.apparatus.error}"
        )
        assert bench.application == bench.image
        assert bench.apparatus.transfers <= 2


@pytest.mark.parametrize("seed", range(10))
def test_noise_and_power_cuts_together_end_restored_at_the_second_start_at_the_latest(
    make_bench: Callable[..., Bench], seed: int
) -> None:
    """Whatever is said on the way, success is said of what lies in the NOR and of nothing else."""
    rng = random.Random(seed)
    bench = make_bench(Faults(FaultPlan(noise=rng.choice([0.0, 1e-4, 1e-3])), seed))
    for _ in range(rng.randrange(1, 4)):
        at = bench.system.engine.now + rng.uniform(0.0, 12.0)
        bench.run_until(lambda at=at: bench.system.engine.now >= at)
        bench.cut(off=rng.uniform(0.1, 5.0))
    if bench.finish() is not RestorationStage.DONE:
        assert isinstance(bench.apparatus.error, RestoreError)
        bench.begin(Tap(bench.system.console))
        assert bench.finish() is RestorationStage.DONE, bench.apparatus.error
    assert bench.application == bench.image
    assert bench.apparatus.digest == hashlib.sha256(bench.image).hexdigest()
