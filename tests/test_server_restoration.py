"""What the server does for a terminal that registers as in restoration, by messages."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, Any

import aiocoap
import pytest
from hypothesis import given
from hypothesis import strategies as st
from server_world import SERIAL, inspect, make_image, post, registration

from unbrick.server.core.core import ServerCore
from unbrick.server.database import SqlRecords
from unbrick.server.records.memory import MemoryRecords
from unbrick.server.records.updates import Update, UpdateState
from unbrick.wire.messages import (
    Announcement,
    Decision,
    Phase,
    Report,
    Result,
    Status,
    TerminalState,
)

if TYPE_CHECKING:
    from pathlib import Path

    from unbrick.server.records.contract import Records

OLD, GOOD, NEW = (make_image(f"1.{minor}.0+0", counter=2) for minor in (9, 10, 11))
UNKNOWN = bytes(32)


class World:
    """A server with one terminal, and shorthand for what that says."""

    def __init__(self, *images: bytes, records: Records | None = None) -> None:
        self.records: Records = records or MemoryRecords()
        self.core = ServerCore(self.records, inspect)  # type: ignore[arg-type]
        self.now = 0.0
        for image in images:
            self.core.publish(image, 0.0)

    def runs(self, image: bytes, **changes: Any) -> None:
        """The application registers with this image."""
        info = inspect(image)
        self._register(digest=info.digest, version=info.version, **changes)

    def asks(self, last: int = 0, result: Result = Result.SUCCESS, **changes: Any) -> None:
        """Boot registers as in restoration; ``last`` is the update that it knows of."""
        values = {"name": "", "version": "", "build_time": "", "digest": UNKNOWN, **changes}
        self._register(
            state=TerminalState.RESTORATION, last_update_id=last, last_result=result, **values
        )

    def _register(self, **changes: Any) -> None:
        self.now += 1
        request = post("register", registration(**changes).encode())
        assert self.core.handle("a", request, self.now).code == aiocoap.CHANGED

    def refuses(self, update: int, result: Result) -> None:
        """Boot reports that the file of an update can never be used."""
        report = Report(SERIAL, update, Phase.FINISHED, result, "", UNKNOWN, "")
        answer = self.core.handle("a", post("report", report.encode()), self.now)
        assert answer.code == aiocoap.CHANGED

    def announced(self) -> Announcement | None:
        """What the server announces now, to a terminal that has lost what it was told before."""
        self.now += 1
        found = None
        for _ in range(3):
            for outgoing in self.core.poll(self.now):
                answer = aiocoap.Message(code=aiocoap.CHANGED)
                if outgoing.message.opt.uri_path == ("announce",):
                    found = Announcement.decode(outgoing.message.payload)
                    answer.payload = Decision(Result.SUCCESS, 0, 0, "").encode()
                else:
                    answer.payload = Status(Phase.IDLE, 0, 0, 0).encode()
                self.core.outcome(outgoing.ticket, answer, self.now)
        return found

    @property
    def updates(self) -> list[Update]:
        return self.records.updates(SERIAL)


def announced(world: World) -> tuple[int, bytes]:
    """Number and image of what is announced now; it must be something."""
    announcement = world.announced()
    assert announcement is not None
    return announcement.update_id, announcement.image_digest


def digest(image: bytes) -> bytes:
    return inspect(image).digest


def test_what_ran_last_is_brought_back() -> None:
    world = World(OLD, GOOD, NEW)
    world.runs(GOOD)
    world.asks()
    world.asks()  # every 15 seconds
    assert announced(world) == (1, digest(GOOD))
    world.runs(GOOD, last_update_id=1, last_result=Result.RESTORED_BY_LINK)
    (update,) = world.updates
    assert (update.state, update.result) == (UpdateState.SUCCEEDED, Result.RESTORED_BY_LINK)
    assert update.restoration


def test_a_terminal_that_has_never_run_gets_the_newest_that_it_can_take() -> None:
    other = make_image("2.0.0+0", hardware_id="other")
    old = make_image("3.0.0+0", counter=1)
    world = World(NEW, GOOD, OLD, other, old)
    world.asks(security_counter=2)
    assert announced(world) == (1, digest(NEW))


def test_nothing_is_begun_when_there_is_nothing_until_it_is_published() -> None:
    world = World()
    world.asks()
    assert world.announced() is None
    world.core.publish(GOOD, 0.0)
    world.asks()
    assert announced(world) == (1, digest(GOOD))


def test_what_failed_its_trial_is_not_sent_again() -> None:
    world = World(OLD, NEW)
    world.runs(OLD)
    world.core.start_update(SERIAL, "1.11.0", world.now)
    assert announced(world) == (1, digest(NEW))
    world.asks(1, Result.TRIAL_FAILED, digest=digest(NEW), version="1.11.0+0")
    assert world.updates[0].state is UpdateState.FAILED
    assert announced(world) == (2, digest(OLD))


def test_a_rewrite_that_was_broken_off_is_made_again_by_the_same_update() -> None:
    world = World(OLD, NEW)
    world.runs(OLD)
    world.core.start_update(SERIAL, "1.11.0", world.now)
    world.announced()
    for result in (Result.REWRITE_FAILED, Result.INTERRUPTED):
        world.asks(1, result)
        assert announced(world) == (1, digest(NEW))
    world.runs(NEW, last_update_id=1, last_result=Result.RESTORED_BY_LINK)
    assert [update.state for update in world.updates] == [UpdateState.SUCCEEDED]


def test_when_all_have_failed_what_has_run_once_is_tried_again_under_old_numbers() -> None:
    world = World(OLD, NEW)
    world.runs(OLD)
    world.asks()
    assert announced(world) == (1, digest(OLD))
    world.asks(1, Result.TRIAL_FAILED)
    assert announced(world) == (2, digest(NEW))
    world.asks(2, Result.TRIAL_FAILED)
    for number in (1, 3, 1, 3, 1):
        assert announced(world) == (number, digest(OLD))
        world.asks(number, Result.TRIAL_FAILED)
    assert len(world.updates) == 3


def test_when_all_have_failed_and_none_has_run_all_have_their_turn() -> None:
    world = World(OLD, NEW)
    world.asks()
    seen = []
    for _ in range(6):
        number, image = announced(world)
        seen.append(image)
        world.asks(number, Result.TRIAL_FAILED)
    assert seen == [digest(NEW), digest(OLD)] * 3
    assert len(world.updates) == 2


def test_what_was_refused_is_never_sent_again() -> None:
    world = World(OLD, NEW)
    world.asks()
    world.announced()
    world.refuses(1, Result.SIGNATURE_WRONG)
    world.asks()
    assert announced(world) == (2, digest(OLD))
    world.refuses(2, Result.IMAGE_HASH_WRONG)
    world.asks()
    assert world.announced() is None
    assert len(world.updates) == 2


def test_a_restoration_that_the_wire_has_overtaken_is_cancelled() -> None:
    world = World(OLD)
    world.asks()
    world.announced()
    world.runs(GOOD, last_result=Result.RESTORED)
    assert [update.state for update in world.updates] == [UpdateState.CANCELLED]
    assert world.announced() is None


def test_an_update_that_a_person_starts_takes_the_place_of_a_restoration() -> None:
    world = World(OLD, NEW)
    world.asks()
    assert announced(world) == (1, digest(NEW))
    world.core.start_update(SERIAL, "1.9.0", world.now)
    assert world.updates[0].state is UpdateState.CANCELLED
    assert announced(world) == (2, digest(OLD))


results = st.sampled_from([*Result])


@given(st.lists(st.tuples(st.sampled_from(["asks", "refuses"]), results), max_size=40))
def test_whatever_becomes_of_it_no_update_is_begun_without_end(
    said: list[tuple[str, Result]],
) -> None:
    """A terminal may fail for ever: the records do not grow with it, and it is offered again."""
    world = World(OLD, GOOD, NEW)
    world.runs(GOOD)
    world.asks()
    for what, result in said:
        announcement = world.announced()
        last = announcement.update_id if announcement else 0
        if what == "refuses" and last:
            world.refuses(last, result)
        world.asks(last, result)
        assert len(world.updates) <= 6, "two of each image"
        assert sum(not update.state.ended for update in world.updates) <= 1


@pytest.mark.parametrize("image", [OLD, GOOD])
def test_what_an_earlier_version_kept_of_a_terminal_will_do(tmp_path: Path, image: bytes) -> None:
    path = tmp_path / "server.db"
    world = World(OLD, GOOD, records=SqlRecords(str(path)))
    world.runs(image)
    with sqlite3.connect(path) as database:
        database.execute("UPDATE terminals SET confirmed = NULL")
        database.execute("UPDATE updates SET restoration = NULL")
    database.close()
    world = World(records=SqlRecords(str(path)))
    world.asks()
    assert announced(world) == (1, digest(image))
    assert world.updates[0].restoration
