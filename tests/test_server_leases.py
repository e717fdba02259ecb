"""Several servers on one database: which one speaks with which terminal."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass

import aiocoap
import pytest
from patience import until
from server_world import SERIAL, inspect, make_image, registration
from sqlalchemy import create_engine, text

from unbrick.server.core.core import ServerCore
from unbrick.server.core.leases import is_first
from unbrick.server.database import SqlRecords
from unbrick.server.database.connection import complete_url
from unbrick.server.records.memory import MemoryRecords
from unbrick.server.records.updates import MessageState, UpdateState
from unbrick.wire.calls import CallRequest
from unbrick.wire.coap import Outgoing, post
from unbrick.wire.messages import Announcement, Decision, Phase, Report, Result

HERE, THERE = "10.0.0.1:1000", "10.0.0.2:2000"


@dataclass
class Seen:
    """What a server sees of the others, as a test has it."""

    me: int
    others: frozenset[int]
    center_elsewhere: bool = False


class Pair:
    """Two servers, 1 and 2, on the same records."""

    def __init__(self) -> None:
        self.records = MemoryRecords()
        self.leases = [Seen(1, frozenset({2})), Seen(2, frozenset({1}))]
        self.cores = [ServerCore(self.records, inspect, leases=seen) for seen in self.leases]
        self.image = self.cores[0].publish(make_image(), 0.0)

    def register(self, core: int, endpoint: str, now: float, **changes: object) -> None:
        said = post("register", registration(**changes).encode())
        assert self.cores[core].handle(endpoint, said, now).code == aiocoap.CHANGED

    def report(self, core: int, endpoint: str, phase: Phase, now: float) -> None:
        said = Report(SERIAL, 1, phase, Result.SUCCESS, "1.0.0+0", bytes(32), "")
        answer = self.cores[core].handle(endpoint, post("report", said.encode()), now)
        assert answer.code == aiocoap.CHANGED

    def sent(self, core: int, now: float) -> list[Outgoing]:
        return self.cores[core].poll(now)

    def holder(self) -> int:
        terminal = self.records.terminal(SERIAL)
        assert terminal is not None
        return terminal.holder

    def dies(self, core: int) -> None:
        """One is not there any more, and the other notices it."""
        self.leases[1 - core].others = frozenset()
        self.cores[1 - core].go_on()


@pytest.fixture
def pair() -> Pair:
    return Pair()


def paths(requests: list[Outgoing]) -> list[str]:
    return [request.message.opt.uri_path[0] for request in requests]


ACCEPTED = aiocoap.Message(
    code=aiocoap.CHANGED, payload=Decision(Result.SUCCESS, 0, 0, "").encode()
)


def test_the_first_is_who_has_been_there_longest() -> None:
    one, two, three = (Seen(me, frozenset({1, 2, 3} - {me})) for me in (1, 2, 3))
    assert [is_first(seen) for seen in (one, two, three)] == [True, False, False]
    assert is_first(Seen(2, frozenset({3})))


def test_who_hears_a_terminal_speaks_with_it_whoever_took_the_order(pair: Pair) -> None:
    pair.register(1, THERE, 1.0)
    assert pair.holder() == 2
    pair.cores[0].start_update(SERIAL, "1.1.0", 2.0)
    assert pair.sent(0, 3.0) == []
    assert pair.sent(1, 3.0) == []
    pair.cores[1].follow()
    (announced,) = pair.sent(1, 4.0)
    assert announced.endpoint == THERE
    assert Announcement.decode(announced.message.payload).update_id == 1
    pair.cores[1].outcome(announced.ticket, ACCEPTED, 5.0)
    for core in (0, 1):
        pair.cores[core].follow()
        assert pair.sent(core, 6.0) == []


def test_a_text_for_a_user_goes_out_once_and_where_the_terminal_is(pair: Pair) -> None:
    pair.register(1, THERE, 1.0)
    pair.cores[0].send_text(SERIAL, "hello", 2.0)
    assert pair.sent(0, 3.0) == []
    pair.cores[1].follow()
    (sent,) = pair.sent(1, 4.0)
    pair.cores[1].outcome(sent.ticket, aiocoap.Message(code=aiocoap.CHANGED), 5.0)
    pair.cores[0].go_on()
    pair.cores[1].go_on()
    assert pair.sent(0, 6.0) + pair.sent(1, 6.0) == []
    (kept,) = pair.records.messages()
    assert kept.state is MessageState.DELIVERED


def test_what_is_cancelled_at_one_server_is_not_sent_by_the_other(pair: Pair) -> None:
    pair.register(1, THERE, 1.0)
    pair.cores[0].start_update(SERIAL, "1.1.0", 2.0)
    pair.cores[1].follow()
    pair.cores[0].cancel_update(1, 3.0)
    assert pair.sent(1, 4.0) == []
    update = pair.records.update(1)
    assert update is not None
    assert update.state is UpdateState.CANCELLED


def test_a_dead_servers_terminal_is_told_all_where_it_speaks_next(pair: Pair) -> None:
    pair.register(1, THERE, 1.0)
    pair.cores[0].start_update(SERIAL, "1.1.0", 2.0)
    pair.cores[0].send_text(SERIAL, "hello", 2.0)
    pair.dies(1)
    # Where the dead one has heard it, somebody else may be now.
    assert pair.sent(0, 3.0) == []
    pair.register(0, HERE, 4.0)
    sent = pair.sent(0, 5.0)
    assert sorted(paths(sent)) == ["announce", "message"]
    assert {request.endpoint for request in sent} == {HERE}
    assert pair.holder() == 1
    # It was not dead, but slow.
    pair.cores[1].follow()
    assert pair.sent(1, 6.0) == []


def test_a_terminal_that_reports_to_another_server_is_that_ones(pair: Pair) -> None:
    pair.register(0, HERE, 1.0)
    pair.cores[0].start_update(SERIAL, "1.1.0", 2.0)
    (announced,) = pair.sent(0, 3.0)
    pair.cores[0].send_text(SERIAL, "hello", 3.5)
    pair.report(1, THERE, Phase.TRANSFERRING, 4.0)
    assert pair.holder() == 2
    assert paths(pair.sent(1, 5.0)) == ["message"]
    assert pair.sent(0, 5.0) == []
    # The answer to what the other one had sent is lost, as if that one were dead.
    pair.cores[0].outcome(announced.ticket, None, 6.0)
    texts = [event.text for event in pair.records.events(update_id=1)]
    assert not [text for text in texts if "not answered" in text]
    pair.report(0, HERE, Phase.RECEIVED, 7.0)
    assert pair.holder() == 1


def test_a_forged_report_moves_nothing(pair: Pair) -> None:
    pair.register(0, HERE, 1.0)
    said = Report(SERIAL, 77, Phase.TRANSFERRING, Result.SUCCESS, "1.0.0+0", bytes(32), "")
    answer = pair.cores[1].handle(THERE, post("report", said.encode()), 2.0)
    assert answer.code == aiocoap.NOT_FOUND
    assert pair.holder() == 1


def test_an_update_that_waits_for_its_file_goes_on_when_another_server_has_made_it(
    pair: Pair,
) -> None:
    seen: list[bytes] = []
    pair.cores[1].prepared = seen.append  # type: ignore[method-assign]
    pair.cores[1].follow()
    pair.register(0, HERE, 1.0, digest=pair.image.digest, version="1.1.0+0")
    newer = pair.cores[0].publish(make_image("1.2.0+0"), 2.0)
    with pair.records.transaction():
        pair.cores[0]._analyst.ready(pair.image.digest, newer, 3.0)
    pair.cores[1].follow()
    pair.cores[1].follow()
    assert seen == [newer.digest]


def test_a_call_is_taken_where_the_center_is_elsewhere(pair: Pair) -> None:
    pair.register(1, THERE, 1.0)
    call = post("call", CallRequest(SERIAL, 7).encode())
    assert pair.cores[1].handle(THERE, call, 2.0).code == aiocoap.SERVICE_UNAVAILABLE
    pair.cores[0].lines.center_is_there(2.0)
    assert pair.cores[0].lines.has_center(2.0)
    pair.leases[1].center_elsewhere = True
    assert pair.cores[1].handle(THERE, call, 3.0).code == aiocoap.CHANGED
    pair.cores[0].say(1, 0, "Good morning.", last=False)
    assert pair.sent(0, 4.0) == []
    pair.cores[1].follow()
    assert paths(pair.sent(1, 40.0)) == ["say"]


def test_a_server_that_is_alone_goes_on_by_itself() -> None:
    records = MemoryRecords()
    core = ServerCore(records, inspect)
    core.handle(HERE, post("register", registration().encode()), 1.0)
    core.send_text(SERIAL, "hello", 2.0)
    assert paths(ServerCore(records, inspect).poll(3.0)) == ["message"]


# Who is there


def test_servers_on_postgresql_see_each_other_come_and_go(new_postgresql: str) -> None:
    with closing(SqlRecords(new_postgresql)) as records:
        first, second = records.join(), records.join()
        assert first is not None
        assert second is not None
        assert first.me < second.me
        assert second.others == {first.me}
        assert first.look(has_center=False)
        assert first.others == {second.me}
        assert not first.look(has_center=True)
        second.look(has_center=False)
        assert (first.center_elsewhere, second.center_elsewhere) == (False, True)
        first.look(has_center=False)
        second.look(has_center=False)
        assert not second.center_elsewhere
        first.close()
        until(lambda: second.look(has_center=False) or not second.others, "an end that is seen")
        assert second.others == frozenset()
        third = records.join()
        assert third is not None
        assert third.me > second.me
        third.close()
        second.close()


PROGRAM = """
import sys
from unbrick.server.database import SqlRecords
presence = SqlRecords(sys.argv[1]).join()
print(presence.me, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def other_server(new_postgresql: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", PROGRAM, new_postgresql]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield process
        process.kill()


def test_a_server_that_is_killed_is_gone_at_once(
    new_postgresql: str, other_server: subprocess.Popen[str]
) -> None:
    assert other_server.stdout is not None
    number = int(other_server.stdout.readline())
    with closing(SqlRecords(new_postgresql)) as records:
        presence = records.join()
        assert presence is not None
        assert presence.others == {number}
        other_server.send_signal(signal.SIGKILL)
        until(lambda: presence.look(has_center=False) or not presence.others, "its end")
        assert presence.others == frozenset()
        presence.close()


def test_a_server_whose_connection_is_cut_keeps_its_number(new_postgresql: str) -> None:
    with closing(SqlRecords(new_postgresql)) as records:
        presence = records.join()
        assert presence is not None
        number = presence.me
        engine = create_engine(complete_url(new_postgresql), isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.execute(
                text(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE pid <> pg_backend_pid() AND datname = current_database()"
                )
            )
        presence.look(has_center=False)
        until(lambda: not presence.look(has_center=False), "a connection")
        other = records.join()
        assert other is not None
        assert presence.me == number
        assert other.others == {number}
        presence.close()
        other.close()
        engine.dispose()


def test_a_file_of_sqlite_is_one_servers() -> None:
    with closing(SqlRecords("sqlite://")) as records:
        assert records.join() is None


# Moved at random


def test_wherever_messages_arrive_each_thing_happens_once() -> None:
    """A terminal whose every request goes to another server, by chance, is updated once."""
    rng = random.Random(1)
    for _ in range(50):
        pair = Pair()
        pair.register(rng.randrange(2), HERE, 0.0)
        pair.cores[rng.randrange(2)].start_update(SERIAL, "1.1.0", 0.5)
        course = [Phase.TRANSFERRING, Phase.RECEIVED, Phase.CHECKED, Phase.REWRITING]
        for now, phase in enumerate(course, 1):
            for core in (0, 1):
                pair.cores[core].follow()
                for request in pair.sent(core, now):
                    answer = rng.choice([ACCEPTED, None])
                    if request.message.opt.uri_path[0] == "announce":
                        pair.cores[core].outcome(request.ticket, answer, now)
            pair.report(rng.randrange(2), rng.choice([HERE, THERE]), phase, now)
        digest, version = pair.image.digest, pair.image.version
        pair.register(
            rng.randrange(2), THERE, 9.0, digest=digest, version=version, last_update_id=1
        )
        states = [event.state for event in pair.records.events(update_id=1) if event.state]
        assert len(set(states)) == len(states)
        assert states[-1] is UpdateState.SUCCEEDED
