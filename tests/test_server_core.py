"""The server's core, by messages: what it answers, what it asks, and what it keeps."""

from __future__ import annotations

import hashlib
import random
import re
from typing import Any

import aiocoap
import pytest
from hypothesis import given
from hypothesis import strategies as st
from server_world import (
    HARDWARE,
    SERIAL,
    get_block,
    inspect,
    make_image,
    post,
    registration,
)

from unbrick.errors import ImageError, LinkError, ServerError
from unbrick.server.core.core import ServerCore
from unbrick.server.errors import ConflictError, UnknownError
from unbrick.server.records.memory import MemoryRecords
from unbrick.server.records.updates import MessageState, Update, UpdateState
from unbrick.wire.coap import Outgoing
from unbrick.wire.messages import (
    Announcement,
    Decision,
    Phase,
    Registration,
    Report,
    Result,
    Status,
    TerminalState,
    Text,
)

IMAGE = make_image()
TARGET = inspect(IMAGE).digest
OLD = registration().digest


class World:
    """A core, its records, and shorthand for what terminals and people say to it."""

    def __init__(self) -> None:
        self.records = MemoryRecords()
        self.core = ServerCore(self.records, inspect)
        self.now = 0.0

    def restart(self) -> None:
        """The server is killed and starts again."""
        self.core = ServerCore(self.records, inspect)

    def register(self, endpoint: str = "a", **changes: Any) -> None:
        self.now += 1
        request = post("register", registration(**changes).encode())
        assert self.core.handle(endpoint, request, self.now).code == aiocoap.CHANGED

    def report(self, phase: Phase, result: Result = Result.SUCCESS, **changes: Any) -> Any:
        self.now += 1
        values = {
            "serial": SERIAL,
            "update_id": 1,
            "version": "1.0.0+0",
            "digest": OLD,
            "text": "",
            **changes,
        }
        report = Report(phase=phase, result=result, **values)
        return self.core.handle("a", post("report", report.encode()), self.now)

    def get(self, update_id: int | str, number: int = 0, exponent: int = 6) -> Any:
        return self.core.handle("a", get_block(update_id, number, exponent), self.now)

    def poll(self) -> list[Outgoing]:
        self.now += 1
        return self.core.poll(self.now)

    def decide(self, outgoing: Outgoing, result: Result = Result.SUCCESS, text: str = "") -> None:
        payload = Decision(result, 2000, 1000, text).encode()
        response = aiocoap.Message(code=aiocoap.CHANGED, payload=payload)
        self.core.outcome(outgoing.ticket, response, self.now)

    def start(self) -> Update:
        """A registered terminal and an update of it that is to be announced."""
        self.core.publish(IMAGE, self.now)
        self.register()
        return self.core.start_update(SERIAL, "1.1.0", self.now)

    def transferring(self) -> Update:
        update = self.start()
        (announcement,) = self.poll()
        self.decide(announcement)
        return update

    @property
    def update(self) -> Update:
        update = self.records.update(1)
        assert update is not None
        return update

    @property
    def state(self) -> UpdateState:
        """The state of update 1."""
        return self.update.state

    @property
    def states(self) -> list[UpdateState]:
        """Every state that update 1 went through."""
        events = self.records.events(update_id=1)
        return [event.state for event in events if event.state is not None]


@pytest.fixture
def world() -> World:
    return World()


def path_of(outgoing: Outgoing) -> str:
    return "/".join(outgoing.message.opt.uri_path)


# Registration


def test_a_registration_is_kept_and_acknowledged(world: World) -> None:
    world.register(endpoint="127.0.0.1:4000", security_counter=4)
    terminal = world.records.terminal(SERIAL)
    assert terminal is not None
    said = registration(security_counter=4)
    assert {name: getattr(terminal, name) for name in vars(said)} == vars(said)
    assert terminal.endpoint == "127.0.0.1:4000"


def test_registering_again_updates_and_makes_no_noise(world: World) -> None:
    world.register()
    world.register()
    (terminal,) = world.records.terminals()
    assert (terminal.first_seen, terminal.last_seen) == (1.0, 2.0)
    assert len(world.records.events()) == 1
    world.register(version="2.0.0+0", digest=b"2" * 32)
    assert [event.text for event in world.records.events()] == [
        "registered with 1.0.0+0",
        "registered with 2.0.0+0",
    ]


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (post("register", b"\xff"), aiocoap.BAD_REQUEST),
        (post("report", b""), aiocoap.BAD_REQUEST),
        (post("nowhere", b""), aiocoap.NOT_FOUND),
        (aiocoap.Message(code=aiocoap.GET, uri_path=("register",)), aiocoap.METHOD_NOT_ALLOWED),
        (aiocoap.Message(code=aiocoap.PUT, uri_path=("file", "1")), aiocoap.METHOD_NOT_ALLOWED),
        (aiocoap.Message(code=aiocoap.GET), aiocoap.NOT_FOUND),
        (get_block("1; drop table", 0), aiocoap.NOT_FOUND),
        (get_block("٣", 0), aiocoap.NOT_FOUND),
        (get_block("-1", 0), aiocoap.NOT_FOUND),
        (get_block("9" * 400, 0), aiocoap.NOT_FOUND),
    ],
)
def test_bad_requests_get_the_code_that_says_why(world: World, request_: Any, code: Any) -> None:
    assert world.core.handle("a", request_, 0.0).code == code


def test_wrong_formats_are_refused(world: World) -> None:
    request = post("register", registration().encode())
    request.opt.content_format = 50
    assert world.core.handle("a", request, 0.0).code == aiocoap.UNSUPPORTED_CONTENT_FORMAT
    request = post("register", registration().encode())
    request.opt.accept = 42
    assert world.core.handle("a", request, 0.0).code == aiocoap.NOT_ACCEPTABLE
    assert world.records.terminals() == []
    request.opt.accept = 60
    assert world.core.handle("a", request, 0.0).code == aiocoap.CHANGED


def test_the_resources_are_listed_in_blocks_of_any_size(world: World) -> None:
    listed = b""
    for number in range(100):
        request = aiocoap.Message(code=aiocoap.GET, uri_path=(".well-known", "core"))
        request.opt.block2 = (number, False, 0)
        answer = world.core.handle("a", request, 0.0)
        assert answer.opt.content_format == 40
        listed += answer.payload
        if not answer.opt.block2.more:
            break
    names = re.findall(r"</([^>]+)>;ct=60(?:,|$)", listed.decode())
    assert names == ["call", "hang-up", "key", "register", "report", "result"]
    for name in names:
        asked = world.core.handle("a", post(name, b""), 0.0)
        assert asked.code == aiocoap.BAD_REQUEST
    for code, accept, answer_ in (
        (aiocoap.POST, None, aiocoap.METHOD_NOT_ALLOWED),
        (aiocoap.GET, 60, aiocoap.NOT_ACCEPTABLE),
        (aiocoap.GET, 40, aiocoap.CONTENT),
    ):
        request = aiocoap.Message(code=code, uri_path=(".well-known", "core"))
        request.opt.accept = accept
        assert world.core.handle("a", request, 0.0).code == answer_


# Images


def test_publishing_keeps_what_the_image_says(world: World) -> None:
    image = world.core.publish(IMAGE, 5.0)
    assert (image.version, image.hardware_id, image.security_counter) == ("1.1.0+0", HARDWARE, 2)
    assert image.file_digest == hashlib.sha256(IMAGE).digest()
    assert world.records.image_file(image.digest) == IMAGE


def test_publishing_twice_is_once_and_another_content_is_refused(world: World) -> None:
    first = world.core.publish(IMAGE, 5.0)
    assert world.core.publish(IMAGE, 6.0) == first
    with pytest.raises(ConflictError, match="other contents"):
        world.core.publish(make_image(salt="other"), 7.0)
    world.core.publish(make_image(hardware_id="other"), 8.0)
    assert len(world.records.images()) == 2


def test_what_is_no_image_is_not_published(world: World) -> None:
    with pytest.raises(ImageError):
        world.core.publish(b"not an image", 0.0)
    assert world.records.images() == []


# The course of an update


def test_an_update_goes_all_the_way(world: World) -> None:
    update = world.start()
    assert update.state is UpdateState.PENDING
    (outgoing,) = world.poll()
    assert (outgoing.endpoint, path_of(outgoing)) == ("a", "announce")
    assert Announcement.decode(outgoing.message.payload) == Announcement(
        update_id=1,
        kind=0,  # type: ignore[arg-type]
        file_size=len(IMAGE),
        file_digest=hashlib.sha256(IMAGE).digest(),
        version="1.1.0+0",
        image_digest=TARGET,
        image_size=len(IMAGE),
        working_memory=0,
    )
    assert world.poll() == []
    world.decide(outgoing)
    for phase in (Phase.TRANSFERRING, Phase.RECEIVED, Phase.CHECKED, Phase.REWRITING):
        assert world.report(phase).code == aiocoap.CHANGED
    world.register(version="1.1.0+0", digest=TARGET, last_update_id=1)
    assert world.states == [
        UpdateState.PENDING,
        UpdateState.ANNOUNCED,
        UpdateState.TRANSFERRING,
        UpdateState.RECEIVED,
        UpdateState.CHECKED,
        UpdateState.REWRITING,
        UpdateState.SUCCEEDED,
    ]
    assert (world.update.result, world.update.from_version) == (Result.SUCCESS, "1.0.0+0")


def test_success_is_never_said_on_a_report_alone(world: World) -> None:
    world.transferring()
    world.report(Phase.REWRITING)
    world.report(Phase.FINISHED, Result.SUCCESS, version="1.1.0+0", digest=TARGET)
    assert world.state == UpdateState.REWRITING
    world.register(last_update_id=1)
    assert world.state == UpdateState.REWRITING
    world.register(digest=TARGET, state=TerminalState.RESTORATION)
    assert world.state == UpdateState.REWRITING
    world.register(digest=TARGET)
    assert world.state == UpdateState.SUCCEEDED


def test_an_update_waits_for_a_terminal_that_never_registered(world: World) -> None:
    world.core.publish(IMAGE, 0.0)
    world.core.start_update(SERIAL, "1.1.0+0", 0.0)
    assert world.poll() == []
    world.register("somewhere")
    (outgoing,) = world.poll()
    assert outgoing.endpoint == "somewhere"
    assert world.update.from_version == "1.0.0+0"


def test_an_announcement_without_answer_is_made_again_at_the_next_registration(
    world: World,
) -> None:
    world.start()
    for _ in range(3):
        (outgoing,) = world.poll()
        world.core.outcome(outgoing.ticket, None, world.now)
        assert world.poll() == []
        assert world.state == UpdateState.ANNOUNCED
        world.register()
    notes = [event.text for event in world.records.events(update_id=1)]
    assert notes.count("the announcement was not answered") == 1


def test_a_refusal_ends_the_update_and_says_why(world: World) -> None:
    world.start()
    (outgoing,) = world.poll()
    world.decide(outgoing, Result.NOT_ENOUGH_SRAM, "maps is held")
    assert world.state == UpdateState.REFUSED
    assert world.update.result is Result.NOT_ENOUGH_SRAM
    assert world.update.text == "maps is held (2000 bytes needed, 1000 possible)"
    world.register()
    assert world.poll() == []


def test_a_busy_terminal_is_asked_again_later(world: World) -> None:
    world.start()
    (outgoing,) = world.poll()
    world.decide(outgoing, Result.BUSY)
    assert world.state == UpdateState.ANNOUNCED
    assert world.poll() == []
    world.register()
    assert [path_of(item) for item in world.poll()] == ["announce"]


@pytest.mark.parametrize("payload", [b"", b"\xa0", b"\xff\xff", b"\xa1\x01\x00"])
def test_a_malformed_decision_decides_nothing(world: World, payload: bytes) -> None:
    world.start()
    (outgoing,) = world.poll()
    response = aiocoap.Message(code=aiocoap.CHANGED, payload=payload)
    world.core.outcome(outgoing.ticket, response, world.now)
    assert world.state == UpdateState.ANNOUNCED


def test_a_failure_that_is_reported_ends_the_update(world: World) -> None:
    world.transferring()
    world.report(Phase.FINISHED, Result.SIGNATURE_WRONG)
    assert world.state == UpdateState.FAILED
    assert world.update.result is Result.SIGNATURE_WRONG
    assert world.update.text == "signature wrong or missing"


def test_a_failure_whose_report_was_lost_is_learnt_from_the_registration(world: World) -> None:
    world.transferring()
    world.report(Phase.REWRITING)
    world.register(last_update_id=1, last_result=Result.SIGNATURE_WRONG)
    assert world.state == UpdateState.FAILED
    assert world.update.result is Result.SIGNATURE_WRONG


def test_an_update_that_the_power_has_interrupted_is_announced_again(world: World) -> None:
    """It is still wanted, and nothing of it was written."""
    world.transferring()
    world.report(Phase.REWRITING)
    world.register(last_update_id=1, last_result=Result.INTERRUPTED)
    assert world.state == UpdateState.REWRITING
    (outgoing,) = world.poll()
    assert outgoing.message.code is aiocoap.GET
    idle = Status(phase=Phase.IDLE, update_id=0, received=0, file_size=0)
    response = aiocoap.Message(code=aiocoap.CONTENT, payload=idle.encode())
    world.core.outcome(outgoing.ticket, response, world.now)
    assert world.state == UpdateState.ANNOUNCED


def test_an_old_verdict_about_another_update_is_not_taken_for_this_one(world: World) -> None:
    """The terminal has known another server, whose updates had the same numbers."""
    world.core.publish(IMAGE, 0.0)
    old: dict[str, Any] = {"last_update_id": 1, "last_result": Result.TRIAL_FAILED}
    world.register(**old)
    world.core.start_update(SERIAL, "1.1.0", 0.0)
    world.register(**old)
    (outgoing,) = world.poll()
    world.register(**old)
    world.decide(outgoing)
    world.register(**old)
    assert world.state == UpdateState.TRANSFERRING


def test_a_terminal_restored_over_the_wire_with_old_software_has_failed(world: World) -> None:
    world.transferring()
    world.report(Phase.REWRITING)
    world.register(last_result=Result.RESTORED)
    assert world.state == UpdateState.FAILED
    assert world.update.text == "restored over the wire"


def test_a_terminal_restored_over_the_wire_with_the_new_software_runs_it(world: World) -> None:
    world.transferring()
    world.report(Phase.REWRITING)
    world.register(digest=TARGET, version="1.1.0+0", last_result=Result.RESTORED)
    assert world.state == UpdateState.SUCCEEDED
    assert world.update.result is Result.RESTORED
    assert "restored over the wire" in world.update.text


def test_a_restoration_of_long_ago_is_not_this_updates_failure(world: World) -> None:
    world.core.publish(IMAGE, 0.0)
    world.register(last_result=Result.RESTORED)
    world.core.start_update(SERIAL, "1.1.0", 0.0)
    (outgoing,) = world.poll()
    world.decide(outgoing)
    world.report(Phase.REWRITING)
    world.register(last_result=Result.RESTORED)
    assert world.state == UpdateState.REWRITING


def status(world: World, outgoing: Outgoing, phase: Phase, update_id: int) -> None:
    payload = Status(phase, update_id, 0, 0).encode()
    response = aiocoap.Message(code=aiocoap.CONTENT, payload=payload)
    world.core.outcome(outgoing.ticket, response, world.now)


def test_a_terminal_that_lost_its_update_in_a_power_cut_is_told_again(world: World) -> None:
    world.transferring()
    world.report(Phase.TRANSFERRING)
    world.register()
    (question,) = world.poll()
    assert (path_of(question), question.message.code) == ("status", aiocoap.GET)
    status(world, question, Phase.IDLE, 0)
    (announcement,) = world.poll()
    assert path_of(announcement) == "announce"
    assert world.state == UpdateState.ANNOUNCED
    world.decide(announcement)
    assert world.state == UpdateState.TRANSFERRING


def test_a_terminal_that_goes_on_is_not_disturbed(world: World) -> None:
    world.transferring()
    world.register()
    (question,) = world.poll()
    status(world, question, Phase.TRANSFERRING, 1)
    assert world.poll() == []
    assert world.state == UpdateState.TRANSFERRING


def test_reports_only_go_forward(world: World) -> None:
    world.transferring()
    world.report(Phase.CHECKED)
    world.report(Phase.RECEIVED)
    world.report(Phase.TRANSFERRING)
    assert world.state == UpdateState.CHECKED


def test_reports_about_what_does_not_exist_are_refused(world: World) -> None:
    world.transferring()
    assert world.report(Phase.CHECKED, update_id=2).code == aiocoap.NOT_FOUND
    assert world.report(Phase.CHECKED, serial="T-0002").code == aiocoap.NOT_FOUND
    assert world.state == UpdateState.TRANSFERRING


def test_a_report_about_an_update_that_was_never_announced_changes_nothing(world: World) -> None:
    world.start()
    world.report(Phase.FINISHED, Result.TRIAL_FAILED)
    assert world.state == UpdateState.PENDING


# What the server refuses to start


def refuse(world: World, complaint: str, kind: type[ServerError] = ConflictError) -> None:
    with pytest.raises(kind, match=complaint) as caught:
        world.core.start_update(SERIAL, "1.1.0", world.now)
    assert caught.value.hint
    assert world.records.updates() == []
    assert world.poll() == []


def test_no_update_to_an_image_that_is_not_there(world: World) -> None:
    world.register()
    refuse(world, r"no image 1\.1\.0\+0", UnknownError)


def test_no_update_to_other_hardware(world: World) -> None:
    world.core.publish(make_image(hardware_id="unbrick-b1"), 0.0)
    world.register()
    refuse(world, "is for unbrick-b1, T-0001 is a unbrick-a9-r1")


def test_no_update_below_the_security_counter(world: World) -> None:
    world.core.publish(make_image(counter=2), 0.0)
    world.register(security_counter=3)
    refuse(world, "security counter 2, T-0001 takes nothing below 3")


def test_no_update_to_what_runs_already(world: World) -> None:
    world.core.publish(IMAGE, 0.0)
    world.register(digest=TARGET)
    refuse(world, "runs 1.1.0[+]0 already")


def test_a_terminal_in_restoration_does_not_run_what_its_nor_holds(world: World) -> None:
    world.core.publish(IMAGE, 0.0)
    world.register(digest=TARGET, state=TerminalState.RESTORATION)
    assert world.core.start_update(SERIAL, "1.1.0", 0.0).state is UpdateState.PENDING


def test_no_second_update_while_one_is_under_way(world: World) -> None:
    world.transferring()
    with pytest.raises(ConflictError, match="still transferring"):
        world.core.start_update(SERIAL, "1.1.0", 0.0)


@pytest.mark.parametrize("serial", ["", "x" * 32, "T\n1"])
def test_no_update_of_what_can_be_no_terminal(world: World, serial: str) -> None:
    world.core.publish(IMAGE, 0.0)
    with pytest.raises(ConflictError, match="no serial"):
        world.core.start_update(serial, "1.1.0", 0.0)


def test_what_a_terminal_turns_out_to_be_is_looked_at_before_the_announcement(
    world: World,
) -> None:
    world.core.publish(IMAGE, 0.0)
    world.core.start_update(SERIAL, "1.1.0", 0.0)
    world.register(hardware_id="unbrick-b1")
    assert world.poll() == []
    assert (world.update.state, world.update.result) == (
        UpdateState.REFUSED,
        Result.OTHER_HARDWARE,
    )


def test_the_image_for_the_terminals_hardware_is_taken(world: World) -> None:
    world.core.publish(make_image(hardware_id="unbrick-b1"), 0.0)
    world.core.publish(IMAGE, 0.0)
    with pytest.raises(ConflictError, match="several kinds"):
        world.core.start_update(SERIAL, "1.1.0", 0.0)
    world.register()
    assert world.core.start_update(SERIAL, "1.1.0", 0.0).digest == TARGET


# Cancelling


def test_a_cancelled_update_is_neither_announced_nor_served(world: World) -> None:
    update = world.transferring()
    assert world.get(1).code == aiocoap.CONTENT
    world.core.cancel_update(update.id, world.now)
    assert world.get(1).code == aiocoap.NOT_FOUND
    world.register()
    assert world.poll() == []
    assert world.state == UpdateState.CANCELLED


def test_cancelling_while_the_announcement_is_on_its_way(world: World) -> None:
    update = world.start()
    (outgoing,) = world.poll()
    world.core.cancel_update(update.id, world.now)
    world.decide(outgoing)
    assert world.state == UpdateState.CANCELLED


def test_what_the_terminal_has_cannot_be_cancelled(world: World) -> None:
    world.transferring()
    world.report(Phase.RECEIVED)
    with pytest.raises(ConflictError, match="received, which cannot be cancelled"):
        world.core.cancel_update(1, world.now)
    with pytest.raises(UnknownError):
        world.core.cancel_update(2, world.now)


def test_a_cancellation_that_came_too_late_is_owned_up_to(world: World) -> None:
    world.transferring()
    world.core.cancel_update(1, world.now)
    world.report(Phase.REWRITING)
    assert world.state == UpdateState.REWRITING
    world.register(digest=TARGET, last_update_id=1)
    assert world.state == UpdateState.SUCCEEDED


@pytest.mark.parametrize("given_up", ["cancelled", "failed"])
def test_an_update_given_up_that_went_on_all_the_same_is_owned_up_to(
    world: World, given_up: str
) -> None:
    world.transferring()
    if given_up == "cancelled":
        world.core.cancel_update(1, world.now)
    else:
        world.report(Phase.FINISHED, Result.TRANSFER_GAVE_UP)
    world.register(digest=TARGET, last_update_id=1)
    assert world.state == UpdateState.SUCCEEDED


def test_a_failed_update_stays_failed_when_its_image_comes_by_wire(world: World) -> None:
    world.transferring()
    world.report(Phase.FINISHED, Result.TRIAL_FAILED)
    world.register(digest=TARGET, last_update_id=1, last_result=Result.RESTORED)
    assert world.state == UpdateState.FAILED


# The file


@pytest.mark.parametrize("exponent", range(7))
def test_blocks_of_every_size_in_any_order_make_the_file(world: World, exponent: int) -> None:
    world.transferring()
    size = 16 << exponent
    count = -(-len(IMAGE) // size)
    numbers = list(range(count))
    random.Random(exponent).shuffle(numbers)
    parts = {}
    for number in numbers:
        response = world.get(1, number, exponent)
        assert response.code == aiocoap.CONTENT
        assert response.opt.block2 == (number, number < count - 1, exponent)
        assert response.opt.etag == hashlib.sha256(IMAGE).digest()[:8]
        assert response.opt.content_format == 42
        parts[number] = response.payload
    assert b"".join(parts[number] for number in range(count)) == IMAGE
    update = world.records.update(1)
    assert update is not None
    assert world.core.progress(update, len(IMAGE)) == len(IMAGE)


def test_blocks_that_are_not_there(world: World) -> None:
    world.transferring()
    last = (len(IMAGE) - 1) // 1024
    assert not world.get(1, last).opt.block2.more
    beyond = world.get(1, last + 1)
    assert beyond.code == aiocoap.BAD_OPTION
    assert b"option 23 " in beyond.payload
    assert world.get(1, 0xFFFFF).code == aiocoap.BAD_OPTION
    assert world.get(1, 0, 7).code == aiocoap.BAD_REQUEST
    assert world.get(2).code == aiocoap.NOT_FOUND


def test_an_exact_multiple_of_the_block_ends_where_it_should(world: World) -> None:
    world.core.publish(make_image(size=2048), 0.0)
    world.register()
    world.core.start_update(SERIAL, "1.1.0", 0.0)
    world.decide(world.poll()[0])
    assert not world.get(1, 1).opt.block2.more
    assert world.get(1, 2).code == aiocoap.BAD_OPTION


def test_without_block_option_the_first_block_is_served(world: World) -> None:
    world.transferring()
    request = aiocoap.Message(code=aiocoap.GET, uri_path=("file", "1"))
    response = world.core.handle("a", request, 0.0)
    assert response.opt.block2 == (0, True, 6)
    assert response.payload == IMAGE[:1024]


@pytest.mark.parametrize(
    ("accept", "code"),
    [(42, aiocoap.CONTENT), (60, aiocoap.NOT_ACCEPTABLE), (0, aiocoap.NOT_ACCEPTABLE)],
)
def test_a_file_is_given_as_octets_only(world: World, accept: int, code: Any) -> None:
    world.transferring()
    request = get_block(1, 0)
    request.opt.accept = accept
    assert world.core.handle("a", request, 0.0).code == code
    request = get_block(2, 0)
    request.opt.accept = accept
    assert world.core.handle("a", request, 0.0).code == aiocoap.NOT_FOUND


def test_no_file_before_the_announcement_and_none_after_the_end(world: World) -> None:
    world.start()
    assert world.get(1).code == aiocoap.NOT_FOUND
    (outgoing,) = world.poll()
    assert world.get(1).code == aiocoap.CONTENT
    assert world.state == UpdateState.TRANSFERRING
    world.decide(outgoing)
    world.report(Phase.FINISHED, Result.FILE_DIGEST_WRONG)
    assert world.get(1).code == aiocoap.NOT_FOUND


# Text messages


def test_texts_are_queued_until_they_are_delivered(world: World) -> None:
    world.register()
    world.core.send_text(SERIAL, "hello", 0.0)
    (outgoing,) = world.poll()
    assert path_of(outgoing) == "message"
    assert Text.decode(outgoing.message.payload).text == "hello"
    world.core.outcome(outgoing.ticket, None, 0.0)
    assert world.poll() == []
    world.register()
    (outgoing,) = world.poll()
    world.core.outcome(outgoing.ticket, aiocoap.Message(code=aiocoap.CHANGED), 0.0)
    world.register()
    assert world.poll() == []
    (message,) = world.records.messages()
    assert message.state is MessageState.DELIVERED


def test_a_text_that_is_refused_is_not_sent_for_ever(world: World) -> None:
    world.register()
    world.core.send_text(SERIAL, "hello", 0.0)
    (outgoing,) = world.poll()
    world.core.outcome(outgoing.ticket, aiocoap.Message(code=aiocoap.BAD_REQUEST), 0.0)
    world.register()
    assert world.poll() == []
    assert world.records.messages()[0].state is MessageState.REFUSED


def test_texts_that_cannot_be_sent(world: World) -> None:
    with pytest.raises(UnknownError, match="no terminal T-0001"):
        world.core.send_text(SERIAL, "hello", 0.0)
    world.register()
    with pytest.raises(LinkError):
        world.core.send_text(SERIAL, "x" * 161, 0.0)
    assert world.records.messages() == []


# Lives of the server, and of terminals


def test_what_was_due_is_due_after_a_restart(world: World) -> None:
    world.start()
    world.core.send_text(SERIAL, "hello", 0.0)
    world.restart()
    assert sorted(map(path_of, world.poll())) == ["announce", "message"]
    assert world.state == UpdateState.ANNOUNCED
    world.restart()
    assert sorted(map(path_of, world.poll())) == ["announce", "message"]


def test_a_transfer_goes_on_after_a_restart(world: World) -> None:
    world.transferring()
    world.restart()
    (question,) = world.poll()
    assert path_of(question) == "status"
    status(world, question, Phase.TRANSFERRING, 1)
    assert world.get(1, 4).payload == IMAGE[4096:]
    assert world.poll() == []


def test_outcomes_of_an_earlier_life_are_ignored(world: World) -> None:
    world.start()
    (outgoing,) = world.poll()
    world.restart()
    world.decide(outgoing, Result.TOO_LARGE)
    assert world.state == UpdateState.ANNOUNCED


def test_a_terminal_that_moved_is_told_where_it_is_now(world: World) -> None:
    world.start()
    (old,) = world.poll()
    world.register("b")
    (new,) = world.poll()
    assert new.endpoint == "b"
    world.decide(old, Result.TOO_LARGE)
    assert world.state == UpdateState.ANNOUNCED
    world.decide(new)
    assert world.state == UpdateState.TRANSFERRING


def test_an_announcement_under_way_is_not_doubled_by_a_registration(world: World) -> None:
    world.start()
    (outgoing,) = world.poll()
    world.register()
    assert world.poll() == []
    world.decide(outgoing)
    assert world.state == UpdateState.TRANSFERRING


def test_terminals_are_polled_apart(world: World) -> None:
    world.core.publish(IMAGE, 0.0)
    for serial, endpoint in (("T-1", "one"), ("T-2", "two")):
        world.register(endpoint, serial=serial)
        world.core.start_update(serial, "1.1.0", 0.0)
    assert [item.endpoint for item in world.core.poll(0.0, "two")] == ["two"]
    assert [item.endpoint for item in world.core.poll(0.0)] == ["one"]


def test_what_is_answered_is_committed(world: World) -> None:
    """When the store cannot keep it, the terminal is not told that it was kept."""

    class FailingRecords(MemoryRecords):
        def add_event(self, event: Any) -> Any:
            del event
            raise OSError("disk full")

    world.records = FailingRecords()
    world.restart()
    with pytest.raises(OSError, match="disk full"):
        world.register()
    assert world.records.terminals() == []


# Hostile peers


def requests() -> list[Any]:
    report = Report(SERIAL, 1, Phase.CHECKED, Result.SUCCESS, "1.0.0+0", OLD, "")
    return [
        post("register", registration().encode()),
        post("report", report.encode()),
        get_block(1, 2),
    ]


@given(st.integers(0, 2), st.data())
def test_mutated_requests_never_break_the_core(which: int, data: st.DataObject) -> None:
    world = World()
    world.transferring()
    request = requests()[which]
    payload = bytearray(request.payload or b"\0")
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(payload)))
        payload[at : at + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=2))
    request.payload = bytes(payload)
    response = world.core.handle("a", request, 0.0)
    assert response.code.is_response()
    assert world.state != UpdateState.SUCCEEDED
    for terminal in world.records.terminals():
        said = {name: getattr(terminal, name) for name in vars(registration())}
        assert Registration.decode(Registration(**said).encode()) == Registration(**said)


@given(st.binary(max_size=60))
def test_mutated_answers_never_break_the_core(payload: bytes) -> None:
    world = World()
    world.start()
    (outgoing,) = world.poll()
    response = aiocoap.Message(code=aiocoap.CHANGED, payload=payload)
    world.core.outcome(outgoing.ticket, response, 0.0)
    world.register()
    for item in world.poll():
        world.core.outcome(item.ticket, response, 0.0)
    assert world.state != UpdateState.SUCCEEDED
