"""Rows B1 and B2: what terminals run is kept, compared, and what an upgrade needs is prepared."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import aiocoap
import pytest
from hypothesis import given
from hypothesis import strategies as st
from record_stores import Open
from server_world import HARDWARE, SERIAL, inspect, make_image, post, registration

from unbrick.delta import decode
from unbrick.errors import ImageError
from unbrick.flash.partition import Partition
from unbrick.image.format import inspect as inspect_image
from unbrick.layout import Layout, reference_layout
from unbrick.reference.system import System
from unbrick.server.core.analysis import MAX_TRIES, Analyst
from unbrick.server.core.core import ServerCore
from unbrick.server.core.difference import WORD, find_ranges, prepare
from unbrick.server.core.prepared import Prepared
from unbrick.server.judgment import judge
from unbrick.server.records.analysis import PreparationState, Range, RangeKind, Verdict
from unbrick.server.records.contract import Records
from unbrick.server.records.memory import MemoryRecords
from unbrick.server.records.updates import UpdateState
from unbrick.wire.messages import Announcement, Kind, Result, TerminalState

LAYOUT = reference_layout()
ENGINES = ["inprocess", "qemu", "renode"]
APPLICATION = LAYOUT.partition("application")
OLD, NEW = make_image("1.0.0+0", counter=1), make_image("1.1.0+0")


def work_off(analyst: Analyst, now: float) -> int:
    """Prepare in this process what is queued; gives how many pairs."""
    count = 0
    while job := analyst.next_job():
        analyst.done(job, prepare(*analyst.images_of(job)), now)
        count += 1
    return count


def rewritten(nor: bytes, ranges: list[Range], image: bytes) -> bytes:
    """The NOR after the erases and the writes of ``ranges``; what is not erased cannot be set."""
    cells = bytearray(nor)
    for item in ranges:
        if item.kind is RangeKind.ERASE:
            cells[item.offset : item.offset + item.length] = b"\xff" * item.length
    padded = image.ljust(APPLICATION.size, b"\xff")
    for item in ranges:
        if item.kind is RangeKind.WRITE:
            for at in range(item.offset, item.offset + item.length):
                cells[at] &= padded[at - APPLICATION.offset]
    return bytes(cells)


# On the real binary


def analysed(make_system: Callable[..., System], engine: str) -> tuple[System, Analyst]:
    records = MemoryRecords()
    analyst = Analyst(records)
    return make_system(engine=engine, records=records, analyst=analyst), analyst


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
def test_claim_b1_version_and_compile_time_are_collected_and_kept(
    unbrick_make_system: Callable[..., System], engine: str
) -> None:
    system, analyst = analysed(unbrick_make_system, engine)
    system.power_on()
    system.wait_registered()
    info = inspect_image(system.releases.signed["1.0.0"])
    (runs,) = system.records.installations(system.serial)
    assert (runs.name, runs.version, runs.build_time) == (info.name, info.version, info.build_time)
    assert (runs.digest, runs.until) == (info.digest, None)
    system.publish("1.0.0")
    system.publish("1.1.0")
    work_off(analyst, system.engine.now)
    system.update_to("1.1.0")
    then, runs = system.records.installations(system.serial)
    assert (then.version, runs.version) == ("1.0.0+0", "1.1.0+0")
    assert runs.build_time == inspect_image(system.releases.signed["1.1.0"]).build_time
    assert then.since < runs.since == then.until
    assert runs.until is None


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
def test_claim_b2_what_differs_is_prepared_before_anybody_asks(
    unbrick_make_system: Callable[..., System], engine: str
) -> None:
    system, analyst = analysed(unbrick_make_system, engine)
    system.power_on()
    nor = system.engine.read_nor()
    system.wait_registered()
    for version in ("1.0.0", "1.1.0"):
        system.publish(version)
    decision = system.records.analysis(system.serial)
    assert decision
    assert decision.needed
    assert "1.1.0+0 is newer than 1.0.0+0" in decision.reason
    assert work_off(analyst, system.engine.now) == 1
    assert system.records.updates() == []

    old, new = (system.releases.signed[version] for version in ("1.0.0", "1.1.0"))
    pair = inspect_image(old).digest, inspect_image(new).digest
    file = system.records.difference(*pair)
    assert file
    assert decode(old, file) == new
    update = system.update_to("1.1.0")
    assert update.state is UpdateState.SUCCEEDED
    assert update.kind is Kind.DIFFERENTIAL
    assert system.records.difference(*pair) == file, "it was the one that was prepared"
    # A rewrite by the ranges leaves what the terminal's own rewrite has left.
    application = slice(APPLICATION.offset, APPLICATION.end)
    after = rewritten(nor, system.records.ranges(*pair), new)
    assert after[application] == system.engine.read_nor()[application]
    decision = system.records.analysis(system.serial)
    assert decision
    assert decision.verdict is Verdict.CURRENT


# On the server


class World:
    """A server with an analyst, and a terminal."""

    def __init__(self, records: Records | None = None) -> None:
        self.records = MemoryRecords() if records is None else records
        self.now = 0.0
        self.woken = 0
        self.start()

    def start(self) -> None:
        self.analyst = Analyst(self.records, self._wake)
        self.core = ServerCore(self.records, inspect, analyst=self.analyst)

    def _wake(self) -> None:
        self.woken += 1

    def publish(self, *images: bytes) -> None:
        for image in images:
            self.core.publish(image, self.now)

    def runs(self, image: bytes, **changes: Any) -> None:
        info = inspect(image)
        said = {"version": info.version, "build_time": info.build_time, "digest": info.digest}
        self.asks(**{**said, **changes})

    def asks(self, **changes: Any) -> None:
        self.now += 1
        payload = registration(**changes).encode()
        assert self.core.handle("a", post("register", payload), self.now).code == aiocoap.CHANGED

    @property
    def verdicts(self) -> list[Verdict]:
        return [item.verdict for item in self.records.analyses(SERIAL)]

    def announced(self) -> list[Announcement]:
        return [Announcement.decode(out.message.payload) for out in self.core.poll(self.now)]


def test_claim_b1_the_history_says_what_ran_and_when(open_records: Open) -> None:
    with open_records() as records:
        world = World(records)
        world.runs(OLD)
        world.runs(OLD)
        world.runs(OLD, state=TerminalState.RESTORATION)
        world.runs(NEW)
        world.runs(NEW, build_time="2024-06-01T12:00:00Z")
    with open_records() as records:
        assert [
            (item.version, item.build_time[5:7], item.since, item.until)
            for item in records.installations(SERIAL)
        ] == [("1.0.0+0", "05", 1, 3), ("1.1.0+0", "05", 4, 5), ("1.1.0+0", "06", 5, None)]


def test_claim_b2_the_decision_and_its_reason_are_kept(open_records: Open) -> None:
    with open_records() as records:
        world = World(records)
        world.runs(OLD)
        world.publish(OLD, NEW)
        world.runs(OLD)
        world.runs(NEW)
        world.runs(OLD, state=TerminalState.RESTORATION)
    with open_records() as records:
        kept = records.analyses(SERIAL)
        assert [item.verdict for item in kept] == [
            Verdict.NOTHING_PUBLISHED,
            Verdict.CURRENT,
            Verdict.UPGRADE,
            Verdict.CURRENT,
            Verdict.RESTORATION,
        ]
        assert kept[2].digest == inspect(NEW).digest
        assert kept[2].reason == "1.1.0+0 is newer than 1.0.0+0"
        assert records.decisions([SERIAL]) == {SERIAL: kept[-1]}


def test_what_has_failed_its_trial_there_is_passed_over() -> None:
    world = World()
    world.publish(OLD, NEW)
    world.runs(OLD)
    update = world.core.start_update(SERIAL, "1.1.0", world.now).id
    world.core.cancel_update(update, world.now)
    record = world.records.update(update)
    assert record is not None
    failed = replace(record, state=UpdateState.FAILED, result=Result.TRIAL_FAILED)
    world.records.save_update(failed)
    world.publish(make_image("0.5.0+0"))
    decision = world.records.analysis(SERIAL)
    assert decision is not None
    assert decision.verdict is Verdict.CURRENT
    assert decision.reason == "it runs 1.0.0+0, the latest; 1.1.0+0 has failed its trial there"
    world.records.save_update(replace(failed, state=UpdateState.SUCCEEDED, result=Result.SUCCESS))
    world.publish(make_image("0.5.1+0"))
    assert world.verdicts[-1] is Verdict.UPGRADE
    (terminal,) = world.records.terminals()
    alone = judge(terminal, [world.records.images()[1]], [failed])
    assert alone.verdict is Verdict.NOT_TAKEN


BUILT = inspect(NEW).build_time
LATER, EARLIER = "2024-05-02T00:00:00Z", "2024-04-30T23:00:00+00:00"


@pytest.mark.parametrize(
    ("changes", "verdict", "reason"),
    [
        ({"version": "1.0.9+9"}, Verdict.UPGRADE, "newer"),
        ({"version": "1.1.0+1"}, Verdict.NEWER, "the latest here is 1.1.0"),
        ({"version": "1.10.0+0"}, Verdict.NEWER, "the latest here is 1.1.0"),
        ({"build_time": EARLIER}, Verdict.UPGRADE, "was built"),
        ({"build_time": LATER}, Verdict.NEWER, "the latest here is 1.1.0"),
        ({"build_time": "yesterday"}, Verdict.UPGRADE, "was built yesterday"),
        ({"build_time": "0001-01-01T00:00:00+23:59"}, Verdict.UPGRADE, "was built"),
        ({"build_time": BUILT}, Verdict.UPGRADE, "is not the one that is published"),
        ({"hardware_id": "other"}, Verdict.NOTHING_PUBLISHED, "no terminal for other"),
        ({"name": "game"}, Verdict.NOTHING_PUBLISHED, "no game for"),
        ({"security_counter": 3}, Verdict.NOT_TAKEN, "security counter 3"),
    ],
)
def test_claim_b2_version_and_compile_time_decide(
    changes: dict[str, Any], verdict: Verdict, reason: str
) -> None:
    world = World()
    world.publish(OLD, NEW)
    world.runs(NEW, **{"digest": b"?" * 32, **changes})
    decision = world.records.analysis(SERIAL)
    assert decision
    assert decision.verdict is verdict
    assert reason in decision.reason
    assert world.records.preparations() == []


def test_what_older_software_may_not_follow_is_not_the_latest() -> None:
    world = World()
    world.publish(NEW, make_image("1.2.0+0", counter=1))
    world.runs(NEW, security_counter=2)
    assert world.verdicts == [Verdict.CURRENT]


def test_claim_b2_a_pair_is_prepared_once_for_all_terminals(open_records: Open) -> None:
    with open_records() as records:
        world = World(records)
        world.publish(OLD, NEW)
        for serial in ("T-1", "T-2"):
            world.runs(OLD, serial=serial)
        assert world.woken == 1
        assert work_off(world.analyst, world.now) == 1
        world.runs(OLD, serial="T-3")
        assert world.analyst.next_job() is None
    pair = inspect(OLD).digest, inspect(NEW).digest
    with open_records() as records:
        (ready,) = records.preparations(PreparationState.READY)
        file = records.difference(*pair)
        assert file
        assert ready.file_size == len(file)
        assert decode(OLD, file) == NEW
        assert records.ranges(*pair) == sorted(
            find_ranges(OLD, NEW), key=lambda item: (item.kind.value, item.offset)
        )


def test_a_base_that_is_published_later_is_prepared_for_then() -> None:
    world = World()
    world.publish(NEW)
    world.runs(OLD)
    (decision,) = world.records.analyses(SERIAL)
    assert decision.needed
    assert "nothing is prepared" in decision.reason
    world.publish(OLD)
    assert work_off(world.analyst, world.now) == 1


def test_an_update_is_announced_when_its_file_is_prepared(open_records: Open) -> None:
    """And not forgotten when the server ends before."""
    with open_records() as records:
        world = World(records)
        world.publish(OLD, NEW)
        world.runs(OLD)
        world.core.start_update(SERIAL, "1.1.0", world.now)
        assert world.announced() == []
        world.start()
        assert world.announced() == []
        assert [event.text for event in records.events(update_id=1)].count(
            "its differential file is made"
        ) == 1
        work_off(world.analyst, world.now)
        world.core.prepared(inspect(NEW).digest)
        (announcement,) = world.announced()
        assert announcement.file_size == records.preparations()[0].file_size


def test_what_nobody_had_expected_is_prepared_when_it_is_asked_for() -> None:
    """An update to software that is not the latest."""
    world = World()
    world.publish(OLD, NEW, make_image("1.2.0+0"))
    world.runs(OLD)
    work_off(world.analyst, world.now)
    world.core.start_update(SERIAL, "1.1.0", world.now)
    assert world.announced() == []
    assert work_off(world.analyst, world.now) == 1
    world.core.prepared(inspect(NEW).digest)
    assert [item.image_digest for item in world.announced()] == [inspect(NEW).digest]


def test_what_cannot_be_prepared_is_given_up_and_the_full_image_sent() -> None:
    world = World()
    world.publish(OLD, NEW)
    world.runs(OLD)
    world.core.start_update(SERIAL, "1.1.0", world.now)
    for tries in range(1, MAX_TRIES + 1):
        job = world.analyst.next_job()
        assert job
        world.analyst.failed(job, "the worker ended with -9", world.now)
        (preparation,) = world.records.preparations()
        assert preparation.tries == tries
    assert preparation.state is PreparationState.FAILED
    assert preparation.text == "the worker ended with -9"
    assert world.analyst.next_job() is None
    world.core.prepared(job.digest)
    (announcement,) = world.announced()
    assert announcement.file_size == len(NEW)


def test_a_pair_that_the_worker_dies_of_does_not_hold_up_others() -> None:
    world = World()
    world.publish(OLD, NEW)
    world.runs(OLD)
    bad = world.analyst.next_job()
    assert bad
    world.analyst.failed(bad, "killed", world.now)
    world.publish(make_image("1.2.0+0"))
    job = world.analyst.next_job()
    assert job
    assert job.digest != bad.digest


# The ranges

BLOCK = 64
NOR = LAYOUT.board.nor
CHIP = replace(NOR.chip, blocks=((1024, BLOCK // NOR.side_by_side),))
SMALL: Layout = replace(
    LAYOUT,
    board=replace(LAYOUT.board, nor=replace(NOR, chip=CHIP)),
    partitions=(Partition("application", 128, 10 * BLOCK),),
)
PIECES = st.lists(
    st.tuples(st.integers(0, 9), st.binary(min_size=1, max_size=70) | st.just(b"\xff" * 90)),
    max_size=12,
)


@given(st.binary(min_size=1, max_size=10 * BLOCK), PIECES, st.integers(1, 10 * BLOCK), st.data())
def test_claim_b2_ranges_are_aligned_and_a_rewrite_by_them_makes_the_new_image(
    old: bytes, pieces: list[tuple[int, bytes]], size: int, data: st.DataObject
) -> None:
    cells = bytearray(old.ljust(size, b"\xff")[:size])
    for block, piece in pieces:
        cells[block * BLOCK : block * BLOCK + len(piece)] = piece
    new = bytes(cells[: 10 * BLOCK])
    ranges = find_ranges(old, new, SMALL)
    start = SMALL.partition("application").offset
    # What lies behind the old image is not known.
    behind = data.draw(st.binary(min_size=10 * BLOCK, max_size=10 * BLOCK))
    nor = bytearray(start) + old + behind[len(old) :]
    before = bytes(nor)

    for item in ranges:
        unit = BLOCK if item.kind is RangeKind.ERASE else WORD
        assert item.offset % unit == item.length % unit == 0 < item.length
        if item.kind is RangeKind.ERASE:
            nor[item.offset : item.offset + item.length] = b"\xff" * item.length
    padded = new.ljust(11 * BLOCK, b"\xff")
    for item in ranges:
        if item.kind is RangeKind.WRITE:
            assert item.offset // BLOCK == (item.offset + item.length - 1) // BLOCK
            span = slice(item.offset, item.offset + item.length)
            assert set(nor[span]) == {0xFF}, "nothing is written that is not erased, none twice"
            nor[span] = padded[item.offset - start : item.offset + item.length - start]
    assert bytes(nor[start : start + len(new)]) == new
    erased = {item.offset for item in ranges if item.kind is RangeKind.ERASE}
    for offset in range(start, len(nor), BLOCK):
        if offset not in erased:
            assert nor[offset : offset + BLOCK] == before[offset : offset + BLOCK]
            block = slice(offset - start, min(offset - start + BLOCK, len(new)))
            assert old[block] == new[block], "only blocks without a difference are left alone"
    differing = {
        offset
        for item in ranges
        if item.kind is RangeKind.DIFFERENCE
        for offset in range(item.offset - start, item.offset + item.length - start)
    }
    for at, byte in enumerate(new):
        if at >= len(old) or byte != old[at]:
            assert at in differing


def test_nothing_is_erased_where_nothing_differs() -> None:
    assert find_ranges(OLD, OLD) == ()
    changed = bytearray(OLD)
    changed[4000] ^= 1
    kinds = [item.kind for item in find_ranges(OLD, bytes(changed))]
    assert kinds == [RangeKind.DIFFERENCE, RangeKind.ERASE, RangeKind.WRITE]


def test_an_image_that_would_reach_into_the_users_data_is_refused() -> None:
    with pytest.raises(ImageError, match="partition"):
        find_ranges(OLD, bytes(APPLICATION.size + 1))


def test_what_was_prepared_survives_its_way_to_the_server() -> None:
    prepared = prepare(OLD, NEW)
    assert Prepared.decode(prepared.encode()) == prepared
    for data in (b"", b"\xff", prepared.encode()[:-9], b"\x83\x01\x02\x03"):
        with pytest.raises(ValueError, match="malformed"):
            Prepared.decode(data)


def test_other_hardware_than_the_boards_is_not_prepared_for() -> None:
    world = World()
    world.publish(*(make_image(v, hardware_id="other") for v in ("1.0.0+0", "1.1.0+0")))
    world.runs(make_image("1.0.0+0", hardware_id="other"), hardware_id="other")
    assert world.verdicts == [Verdict.UPGRADE]
    assert world.records.preparations() == []
    assert LAYOUT.hardware_id == HARDWARE
