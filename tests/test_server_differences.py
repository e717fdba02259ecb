"""Differential files on the server's side (row A8): when one is made, kept, sent and given up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import aiocoap
import pytest
from click.testing import CliRunner
from image_samples import signed, write_key
from server_world import SERIAL, get_block, inspect, make_image, open_http, post, registration

from unbrick.cli.main import cli
from unbrick.delta import decode, encode, read_header
from unbrick.server.core.analysis import AtOnce
from unbrick.server.core.core import ServerCore
from unbrick.server.core.difference import prepare
from unbrick.server.edge.client import ServerClient
from unbrick.server.records.contract import Records
from unbrick.server.records.memory import MemoryRecords
from unbrick.server.records.updates import Update, UpdateState
from unbrick.wire.messages import Announcement, Decision, Kind, Phase, Report, Result

OLD = make_image("1.0.0+0")
NEW = OLD.replace(b"1.0.0+0", b"1.1.0+0").replace(OLD[3000:3010], b"0123456789")
BASE = inspect(OLD).digest


class World:
    """A server with both images, and a terminal that runs the old one."""

    def __init__(self, records: Records | None = None) -> None:
        self.records = MemoryRecords() if records is None else records
        self.made: list[tuple[bytes, bytes]] = []
        self.core = ServerCore(self.records, inspect, AtOnce(self.records, self.differ))
        self.now = 0.0

    def differ(self, old: bytes, new: bytes) -> bytes:
        self.made.append((old, new))
        return encode(old, new)

    def begin(self, new: bytes = NEW, **changes: Any) -> Announcement:
        """Publish, register, start the update; what the terminal is announced."""
        for image in (OLD, new):
            self.core.publish(image, self.now)
        self.register(**changes)
        self.core.start_update(SERIAL, "1.1.0", self.now)
        return self.announced()

    def register(self, **changes: Any) -> None:
        self.now += 1
        payload = registration(**{"digest": BASE, **changes}).encode()
        assert self.core.handle("a", post("register", payload), self.now).code == aiocoap.CHANGED

    def announced(self) -> Announcement:
        (self.outgoing,) = self.core.poll(self.now)
        return Announcement.decode(self.outgoing.message.payload)

    def decide(self, result: Result) -> None:
        payload = Decision(result, 2000, 1000, "").encode()
        response = aiocoap.Message(code=aiocoap.CHANGED, payload=payload)
        self.core.outcome(self.outgoing.ticket, response, self.now)

    def report(self, result: Result) -> None:
        self.now += 1
        report = Report(SERIAL, 1, Phase.FINISHED, result, "1.0.0+0", BASE, "")
        self.core.handle("a", post("report", report.encode()), self.now)

    def file(self) -> bytes:
        data, number, more = b"", 0, True
        while more:
            answer = self.core.handle("a", get_block(1, number), self.now)
            assert answer.code == aiocoap.CONTENT
            data, number, more = data + answer.payload, number + 1, answer.opt.block2.more
        return data

    @property
    def update(self) -> Update:
        found = self.records.update(1)
        assert found is not None
        return found


def test_claim_a8_the_difference_is_announced_and_served() -> None:
    world = World()
    announcement = world.begin()
    assert announcement.kind is Kind.DIFFERENTIAL
    assert announcement.file_size < announcement.image_size == len(NEW)
    world.decide(Result.SUCCESS)
    file = world.file()
    assert len(file) == announcement.file_size
    assert decode(OLD, file) == NEW
    assert announcement.working_memory == read_header(file).memory


def test_claim_a8_made_once_for_each_pair_and_kept() -> None:
    world = World()
    world.begin()
    world.decide(Result.SUCCESS)
    world.file()
    world.core = ServerCore(world.records, inspect, AtOnce(world.records, world.differ))
    world.register(serial="T-0002")
    world.core.start_update("T-0002", "1.1.0", world.now)
    world.core.poll(world.now)
    assert world.made == [(OLD, NEW)]


@pytest.mark.parametrize(
    ("said", "version"), [({}, 1), ({"delta_version": 2}, 2), ({"delta_version": 9}, 2)]
)
def test_claim_a8_the_file_is_of_a_version_that_the_installed_software_reads(
    tmp_path: Path, said: dict[str, int], version: int
) -> None:
    key = write_key(tmp_path / "key.pem")
    old, new = signed(key, **said), signed(key, version="1.9.0", delta_version=2)
    file = prepare(old, new).file
    assert file
    assert read_header(file).version == version
    assert decode(old, file) == new


def test_claim_a8_the_full_image_when_the_installed_one_is_unknown() -> None:
    world = World()
    announcement = world.begin(digest=b"?" * 32)
    assert announcement.kind is Kind.FULL_IMAGE
    world.decide(Result.SUCCESS)
    assert world.file() == NEW
    assert not world.made


def test_claim_a8_the_full_image_when_the_difference_is_not_smaller() -> None:
    world = World()

    def large(old: bytes, new: bytes) -> bytes:
        return encode(old, new).ljust(len(new), b"\0")

    world.core = ServerCore(world.records, inspect, AtOnce(world.records, large))
    assert world.begin().kind is Kind.FULL_IMAGE
    world.decide(Result.SUCCESS)
    assert world.file() == NEW


@pytest.mark.parametrize(
    "result", [Result.NOT_ENOUGH_SRAM, Result.UNKNOWN_KIND, Result.MALFORMED_ANNOUNCEMENT]
)
def test_a_terminal_that_cannot_take_a_difference_is_sent_the_full_image(result: Result) -> None:
    world = World()
    world.begin()
    world.decide(result)
    assert world.announced().kind is Kind.FULL_IMAGE
    world.register(last_update_id=1, last_result=result)  # about the first announcement
    assert not world.update.state.ended
    world.decide(Result.SUCCESS)
    assert world.update.state is UpdateState.TRANSFERRING
    assert world.file() == NEW


@pytest.mark.parametrize("result", [Result.WRONG_BASE, Result.NOT_REBUILT])
@pytest.mark.parametrize("told", ["rg", "gr", "g", "r"])
def test_a_difference_that_makes_no_image_is_followed_by_the_full_one(
    result: Result, told: str
) -> None:
    """The terminal says it in a report (r) and in its registration (g), in any order."""
    world = World()
    world.begin()
    world.decide(Result.SUCCESS)
    for how in told:
        if how == "r":
            world.report(result)
        else:
            world.register(last_update_id=1, last_result=result)
    assert world.announced().kind is Kind.FULL_IMAGE
    world.decide(Result.SUCCESS)
    world.register(last_update_id=1, last_result=result)
    assert world.update.state is UpdateState.TRANSFERRING
    assert world.file() == NEW


def test_a_full_image_that_is_refused_is_not_sent_for_ever() -> None:
    world = World()
    world.begin()
    world.decide(Result.NOT_ENOUGH_SRAM)
    world.announced()
    world.decide(Result.NOT_ENOUGH_SRAM)
    assert world.update.state is UpdateState.REFUSED


def test_other_software_meanwhile_is_announced_its_own_difference() -> None:
    """Restored over the wire before it took the announcement: the base is another one."""
    between = OLD.replace(b"1.0.0+0", b"1.0.5+0")
    world = World()
    world.core.publish(between, 0.0)
    world.begin()
    world.core.outcome(world.outgoing.ticket, None, world.now)
    world.register(digest=inspect(between).digest)
    world.announced()
    world.decide(Result.SUCCESS)
    assert decode(between, world.file()) == NEW


def shown(world: World) -> dict[str, Any]:
    """The update, as the HTTP API says it."""
    http = open_http(world.core, lambda: world.now)
    answer = http.get("/api/updates/1").json()
    assert http.get("/api/updates").json()[0]["size"] == answer["size"]
    return dict(answer)


def test_what_was_sent_is_told_of_the_file_that_is_sent() -> None:
    """The differential file's bytes of the differential file's, not of the full image's."""
    world = World()
    size = world.begin().file_size
    assert size < len(NEW)
    told = shown(world)
    assert (told["sent"], told["size"], told["kind"]) == (0, size, "differential file")
    world.decide(Result.SUCCESS)
    world.file()
    assert (shown(world)["sent"], shown(world)["size"]) == (size, size)
    world.register(digest=inspect(NEW).digest, version="1.1.0+0", last_update_id=1)
    assert world.update.state is UpdateState.SUCCEEDED
    # The server starts anew, and has forgotten what it counted.
    world.core = ServerCore(world.records, inspect, AtOnce(world.records, world.differ))
    assert (shown(world)["sent"], shown(world)["size"]) == (size, size)


def test_when_the_full_image_follows_it_is_counted_from_its_start() -> None:
    world = World()
    world.begin()
    world.decide(Result.SUCCESS)
    world.file()
    world.report(Result.WRONG_BASE)
    told = shown(world)
    assert (told["sent"], told["size"], told["kind"]) == (0, len(NEW), "full image")
    world.announced()
    world.decide(Result.SUCCESS)
    world.file()
    assert (shown(world)["sent"], shown(world)["size"]) == (len(NEW), len(NEW))


def test_the_command_line_and_the_page_say_so_too(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    size = world.begin().file_size
    world.decide(Result.SUCCESS)
    world.file()
    answer = shown(world)
    monkeypatch.setattr(ServerClient, "update", lambda *_: answer)
    done = CliRunner().invoke(cli, ["update", "show", "1"], prog_name="unbrick")
    assert f"sent {size} of {size} bytes of the differential file" in done.stdout
    assert world.records.file_size(world.update) == size
