"""The simulated link, with a scripted terminal on one side and the real core on the other."""

from __future__ import annotations

from typing import Any

import pytest
from server_world import SERIAL, RadioTerminal, inspect, make_image, run

from unbrick.link.faults import FaultPlan, Faults
from unbrick.link.simulated import SimulatedLink
from unbrick.server.core.core import ServerCore
from unbrick.server.records.memory import MemoryRecords
from unbrick.server.records.updates import UpdateState
from unbrick.wire.messages import Phase, Result

IMAGE = make_image(size=20_000)
BLOCKS = list(range(20))


class World:
    """A terminal, a link and a server that holds an image for it."""

    def __init__(self, plan: FaultPlan | None = None, *, seed: int = 1) -> None:
        self.records = MemoryRecords()
        self.core = ServerCore(self.records, inspect)
        self.core.publish(IMAGE, 0.0)
        self.terminal = RadioTerminal(seed=seed)
        faults = Faults(plan, seed)
        self.link = SimulatedLink(self.terminal, self.core, faults=faults, seed=seed)
        self.now = 0.0

    def run(self, seconds: float, stop: Any = None) -> None:
        until = self.now + seconds
        self.now = run(until, self.terminal, self.link, start=self.now, stop=stop)

    def start(self) -> None:
        self.run(1.0)
        self.core.start_update(SERIAL, "1.1.0", self.now)

    def until_ended(self, seconds: float = 3000.0) -> UpdateState:
        self.run(seconds, lambda: self.records.updates()[0].state.ended)
        return self.records.updates()[0].state

    def kill_server(self) -> None:
        self.link.server_dies()

    def start_server(self) -> None:
        self.core = ServerCore(self.records, inspect)
        self.link.server_returns(self.core)


def test_a_whole_update_over_a_good_link() -> None:
    world = World()
    world.start()
    assert world.until_ended() is UpdateState.SUCCEEDED
    assert world.terminal.file == IMAGE
    assert world.link.fetched_blocks(1) == BLOCKS
    assert [fetch.size for fetch in world.link.fetched] == [1024] * 19 + [544]
    assert [report.phase for _, report in world.link.reports] == [
        Phase.RECEIVED,
        Phase.CHECKED,
        Phase.REWRITING,
    ]
    assert [item.version for item in world.link.registrations] == ["1.0.0+0", "1.1.0+0"]
    requests = [exchange.request for exchange in world.link.exchanges]
    assert requests[:3] == ["POST /register", "POST /announce", "GET /file/1"]
    assert world.link.bytes_down > len(IMAGE)


def test_a_message_takes_the_latency_each_way() -> None:
    world = World()
    world.link.latency = 3.0
    world.run(2.9)
    assert world.records.terminals() == []
    world.run(0.2)
    assert len(world.records.terminals()) == 1


FAULTS = {
    "drop": FaultPlan(drop=0.2),
    "duplicate": FaultPlan(duplicate=0.5),
    "reorder": FaultPlan(reorder=0.5, delay=0.3),
    "corrupt": FaultPlan(corrupt=0.2),
    "truncate": FaultPlan(truncate=0.2),
    "noise": FaultPlan(noise=0.0002),
    "cut": FaultPlan(cuts=((2.0, 30.0),)),
    "everything": FaultPlan(0.05, 0.1, 0.2, 0.05, 0.05, noise=0.00005, delay=0.2),
}


@pytest.mark.parametrize("name", FAULTS)
def test_an_update_survives_a_link_that_is_bad(name: str) -> None:
    world = World(FAULTS[name])
    world.start()
    assert world.until_ended() is UpdateState.SUCCEEDED
    assert world.terminal.file == IMAGE
    assert world.link.faults.counts


def test_the_same_seed_is_the_same_run() -> None:
    def transcript(seed: int) -> list[Any]:
        world = World(FAULTS["everything"], seed=seed)
        world.start()
        world.until_ended()
        return [*world.link.exchanges, *world.records.events(), world.link.bytes_up]

    assert transcript(7) == transcript(7)
    assert transcript(7) != transcript(8)


def test_a_server_that_dies_in_mid_transfer_and_returns() -> None:
    world = World()
    world.start()
    world.run(10.0, lambda: len(world.link.fetched) == 5)
    world.kill_server()
    world.run(20.0)
    assert len(world.link.fetched) == 5
    assert not world.link.server_alive
    world.start_server()
    assert world.until_ended() is UpdateState.SUCCEEDED
    assert world.link.fetched_blocks(1) == BLOCKS


@pytest.mark.parametrize("blocks", [0, 1, 10, 20])
def test_a_terminal_that_loses_power_in_mid_transfer_starts_over(blocks: int) -> None:
    world = World()
    if blocks == len(BLOCKS):
        world.terminal.after_transfer = world.terminal.power_cut
    world.start()
    world.run(60.0, lambda: len(world.link.fetched) == blocks)
    if blocks < len(BLOCKS):
        world.terminal.power_cut()
    world.run(60.0, lambda: len(world.link.fetched) > blocks + 1)
    world.terminal.after_transfer = world.terminal._install
    assert world.until_ended() is UpdateState.SUCCEEDED
    assert len(world.link.fetched) >= blocks + len(BLOCKS)


def test_a_link_that_is_cut_off_delays_and_loses_nothing() -> None:
    world = World()
    world.run(1.0)
    world.link.cut_off(300.0)
    world.core.start_update(SERIAL, "1.1.0", world.now)
    world.core.send_text(SERIAL, "hello", world.now)
    world.run(298.0)
    assert world.terminal.texts == []
    assert world.until_ended() is UpdateState.SUCCEEDED
    world.run(200.0)
    assert world.terminal.texts == ["hello"]


def test_a_link_that_carries_lies_breaks_nobody() -> None:
    """Garbled messages pass the FCS: anything may come of them but a false success."""
    world = World(FaultPlan(garble=0.3))
    world.terminal.after_transfer = lambda: None
    world.start()
    world.run(300.0)
    assert world.link.faults.counts["garble"] > 10
    update = world.records.update(1)
    assert update is not None
    assert update.state is not UpdateState.SUCCEEDED


def test_a_terminal_that_refuses() -> None:
    world = World()
    world.terminal.decision = type(world.terminal.decision)(Result.TOO_LARGE, 1, 0, "no")
    world.start()
    assert world.until_ended() is UpdateState.REFUSED
    assert world.link.fetched == []


def test_two_terminals_on_one_server() -> None:
    world = World()
    other = RadioTerminal("T-0002", seed=9)
    second = SimulatedLink(other, world.core, endpoint="second", seed=9)
    now = run(2.0, world.terminal, other, world.link, second)
    world.core.start_update(SERIAL, "1.1.0", now)
    world.core.start_update("T-0002", "1.1.0", now)
    run(600.0, world.terminal, other, world.link, second, start=now)
    assert [item.state for item in world.records.updates()] == [UpdateState.SUCCEEDED] * 2
    assert second.fetched_blocks(2) == BLOCKS
    assert second.fetched_blocks(1) == []


def test_hostile_bytes_on_the_line_are_passed_over() -> None:
    world = World(seed=3)
    world.terminal._line += bytes(range(256)) * 40 + b"\xc0\x0ahello\xc0\xc0\xa9junk\xc0"
    world.start()
    assert world.until_ended() is UpdateState.SUCCEEDED
    assert world.link.diagnostics == ["hello"]
    assert world.link.frames_lost > 0
