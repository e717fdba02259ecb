"""Who is heard by the server: only who has the key of a terminal, and nothing twice."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import aiocoap
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from record_stores import STORES, Open, opener
from server_world import HARDWARE, get_block, inspect, make_image

from unbrick.server.core.core import ServerCore
from unbrick.server.core.guard import RESERVED_AT_ONCE, LinkGuard, Stranger
from unbrick.server.errors import RecordsError
from unbrick.server.records.contract import Records
from unbrick.server.records.links import LinkKey
from unbrick.server.records.memory import MemoryRecords
from unbrick.server.records.people import Actor, AuditAction
from unbrick.wire.coap import CoapEndpoint, post
from unbrick.wire.codec import decode
from unbrick.wire.messages import Decision, Registration, Result, TerminalState
from unbrick.wire.oscore import MESSAGE_BITS, Context, Side, read_header
from unbrick.wire.protected import ProtectedEndpoint

SERIAL = "T-0001"
KEY = bytes(range(32))
ADA = Actor("ada", 1.0)
HERE, THERE = "198.51.100.7:1000", "203.0.113.9:2000"


def registration(serial: str = SERIAL) -> Registration:
    return Registration(
        *(serial, HARDWARE, "terminal", "1.0.0+0", "2026-01-01T00:00:00Z", bytes(32)),
        *(TerminalState.APPLICATION, 0, Result.SUCCESS, 0),
    )


class Seen:
    """Who shares the records, as a server sees it."""

    def __init__(self, me: int = 0) -> None:
        self.me, self.others, self.center_elsewhere = me, frozenset[int](), False


def guard_of(records: Records, *, me: int = 0, insecure: bool = False) -> LinkGuard:
    leases = Seen(me)
    core = ServerCore(records, inspect, leases=leases)
    return LinkGuard(core, insecure=insecure, secret=bytes([me]), leases=leases)


class Wire:
    """A terminal and the server's end of the link; what goes between them can be seen and kept."""

    def __init__(self, guard: LinkGuard, *, start: int = 1, endpoint: str = HERE) -> None:
        self.endpoint, self.start = endpoint, start
        self.texts: list[bytes] = []
        self.up: list[bytes] = []
        self.down: list[bytes] = []
        self.now = 0.0
        self.starts(start)
        self.serve(guard)

    def starts(self, start: int) -> None:
        """The terminal gets power."""
        context = Context(KEY, SERIAL, Side.TERMINAL)
        self.terminal = ProtectedEndpoint(self.answer, random.Random(start), context, start)

    def serve(self, guard: LinkGuard) -> None:
        """Another server, or the same one in its next life, is at the other end."""
        self.guard = guard
        self.server = CoapEndpoint(self.handle, random.Random(7))

    def handle(self, request: Any, now: float) -> Any:
        response = self.guard.handle(self.endpoint, request, now)
        if self.guard.take_restarted():
            self.server.abandon()
        return response

    def answer(self, request: Any, _now: float) -> Any:
        self.texts.append(request.payload)
        payload = b""
        if request.opt.uri_path == ("announce",):
            payload = Decision(Result.SUCCESS, 0, 0, "").encode()
        return aiocoap.Message(code=aiocoap.CHANGED, payload=payload)

    def run(self, loses: Callable[[bytes], bool] = lambda _datagram: False) -> None:
        """Carry messages until neither side has any more to say now."""
        while True:
            for outcome in self.server.take_outcomes():
                self.guard.outcome(outcome.ticket, outcome.response, self.now)
            for sent in self.guard.poll(self.now, self.endpoint):
                self.server.request(sent.message, sent.ticket, self.now, sent.read)
            up, down = self.terminal.take_datagrams(), self.server.take_datagrams()
            if not up and not down:
                return
            self.up += up
            self.down += down
            for datagram in up:
                if not loses(datagram):
                    self.server.receive(datagram, self.now)
            for datagram in down:
                if not loses(datagram):
                    self.terminal.receive(datagram, self.now)

    def wait(self) -> None:
        """Until something is sent again."""
        self.now = min(side.deadline or 1e9 for side in (self.terminal, self.server))
        self.terminal.poll(self.now)
        self.server.poll(self.now)
        self.run()

    def ask(self, message: Any) -> Any:
        """The terminal asks; gives the code and the response."""
        self.terminal.request(message, 1, self.now)
        self.run()
        outcomes = self.terminal.take_outcomes()
        return outcomes[0].response if outcomes else None

    def register(self) -> Any:
        return self.ask(post("register", registration().encode()))


def enrolled(records: Records | None = None) -> Records:
    records = records or MemoryRecords()
    records.links.enrol(SERIAL, KEY, ADA)
    return records


def replay(wire: Wire, datagram: bytes, endpoint: str = THERE) -> Any:
    """What the server answers somebody who sends a datagram once more."""
    return wire.guard.handle(endpoint, decode(datagram), wire.now)


def test_a_terminal_with_a_key_registers_and_is_told() -> None:
    wire = Wire(guard_of(enrolled()))
    assert wire.register().code == aiocoap.CHANGED
    wire.guard.core.send_text(SERIAL, "hello", wire.now)  # type: ignore[attr-defined]
    wire.run()
    assert len(wire.texts) == 1
    assert wire.guard.core.records.messages(SERIAL)[0].state.value == "delivered"
    assert all(b"hello" not in datagram for datagram in wire.up + wire.down)
    assert all(b"register" not in datagram for datagram in wire.up + wire.down)


def test_the_registration_is_answered_with_a_number_and_nothing_else_is() -> None:
    wire = Wire(guard_of(enrolled()))
    wire.register()
    wire.ask(aiocoap.Message(code=aiocoap.GET, uri_path=(".well-known", "core")))
    answers = [read_header(decode(datagram)) for datagram in wire.down]
    assert [header.partial_iv is not None for header in answers if header] == [True, False]


def test_an_unknown_terminal_is_refused_and_makes_no_row() -> None:
    records = MemoryRecords()
    wire = Wire(guard_of(records))
    assert wire.register() is None
    assert decode(wire.down[-1]).code == aiocoap.UNAUTHORIZED
    assert records.terminals() == []
    assert wire.guard.refused[Stranger.UNKNOWN] == 1
    enrolled(records)
    wire.wait()  # The same message, once more.
    assert wire.terminal.take_outcomes()[0].response.code == aiocoap.CHANGED


def test_what_was_made_with_another_key_is_refused() -> None:
    records = MemoryRecords()
    records.links.enrol(SERIAL, bytes(32), ADA)
    wire = Wire(guard_of(records))
    assert wire.register() is None
    assert decode(wire.down[-1]).code == aiocoap.UNAUTHORIZED
    assert wire.guard.refused[Stranger.FORGED] == 1
    assert records.links.find(SERIAL).start == 0  # type: ignore[union-attr]


@pytest.mark.parametrize("insecure", [False, True])
def test_what_is_not_protected_is_refused_but_for_tools(*, insecure: bool) -> None:
    records = MemoryRecords()
    guard = guard_of(records, insecure=insecure)
    response = guard.handle(HERE, post("register", registration().encode()), 0.0)
    assert response.code == (aiocoap.CHANGED if insecure else aiocoap.UNAUTHORIZED)
    assert len(records.terminals()) == insecure
    assert guard.refused[Stranger.PLAIN] == (not insecure)


def test_the_resources_can_be_asked_for_by_anybody() -> None:
    message = aiocoap.Message(code=aiocoap.GET, uri_path=(".well-known", "core"))
    assert guard_of(MemoryRecords()).handle(HERE, message, 0.0).code == aiocoap.CONTENT


def test_a_terminal_is_only_itself() -> None:
    records = enrolled()
    records.links.enrol("T-0002", bytes(32), ADA)
    wire = Wire(guard_of(records))
    response = wire.ask(post("register", registration("T-0002").encode()))
    assert response.code == aiocoap.FORBIDDEN
    assert records.terminal("T-0002") is None


@pytest.mark.parametrize("fails", [0, 1, 2])
def test_what_could_not_be_protected_is_told_later(
    monkeypatch: pytest.MonkeyPatch, fails: int
) -> None:
    """The database is away when a link is looked up that something is to be sent on."""
    wire = Wire(guard_of(enrolled()))
    wire.register()
    for text in ("one", "two", "three"):
        wire.guard.core.send_text(SERIAL, text, wire.now)  # type: ignore[attr-defined]
    links = wire.guard.core.records.links
    find, found = links.find, [links.find(SERIAL)] * fails

    def find_or_fail(_serial: str) -> LinkKey | None:
        if not found:
            raise RecordsError("the database does not answer", hint="wait")
        return found.pop()

    monkeypatch.setattr(links, "find", find_or_fail)
    with pytest.raises(RecordsError):
        wire.run()
    monkeypatch.setattr(links, "find", find)
    wire.run()
    assert len(wire.texts) == 3


# Replays


def forge(serial: str = SERIAL) -> Any:
    """A request in a terminal's name, by somebody without its key."""
    sealed, _ = Context(bytes(32), serial, Side.TERMINAL).seal_request(post("register", b""), 9)
    return carried(sealed)


def carried(message: Any) -> Any:
    message.mtype, message.mid, message.token = aiocoap.CON, 1, b"t"
    return decode(message.encode())


def test_what_is_looked_at_ahead_is_taken_as_if_it_had_not_been() -> None:
    wire = Wire(guard_of(enrolled()))
    taken: list[Any] = []
    handle = wire.handle

    def look_and_handle(request: Any, now: float) -> Any:
        assert not any(wire.guard.foresees_forgery(SERIAL, request, now) for _ in range(2))
        taken.append(request)
        return handle(request, now)

    wire.server = CoapEndpoint(look_and_handle, random.Random(7))
    assert wire.register().code == wire.register().code == aiocoap.CHANGED
    stale = wire.guard.refused[Stranger.STALE]
    assert not wire.guard.foresees_forgery(SERIAL, taken[-1], 0.0)
    assert wire.guard.handle("9.9.9.9:9", taken[-1], 0.0).code == aiocoap.CHANGED  # On the outside.
    assert wire.guard.refused[Stranger.STALE] == stale + 1


def test_of_forgeries_one_a_second_is_handled_and_the_others_are_counted() -> None:
    wire = Wire(guard_of(enrolled()))
    assert not wire.guard.foresees_forgery(SERIAL, forge(), 0.0)  # Nothing is known of it yet.
    assert wire.register().code == aiocoap.CHANGED
    passed = [not wire.guard.foresees_forgery(SERIAL, forge(), number / 10) for number in range(30)]
    assert passed.count(True) == 3
    assert wire.guard.refused[Stranger.FORGED] == 27
    assert not wire.guard.foresees_forgery("T-unknown", forge("T-unknown"), 0.0)
    assert wire.register().code == aiocoap.CHANGED


def test_a_key_that_was_replaced_elsewhere_is_found_out_amid_forgeries() -> None:
    records = enrolled()
    wire = Wire(guard_of(records))
    assert wire.register().code == aiocoap.CHANGED
    new = bytes(reversed(KEY))
    records.links.enrol(SERIAL, new, ADA)
    sealed, _ = Context(new, SERIAL, Side.TERMINAL).seal_request(
        post("register", registration().encode()), 5 << MESSAGE_BITS
    )
    refused = [wire.guard.foresees_forgery(SERIAL, forge(), 10.0) for _ in range(3)]
    assert refused == [False, True, True]
    # The one that has passed is not taken, but shows that the key is another one.
    assert wire.guard.handle(wire.endpoint, forge(), 10.0).code == aiocoap.UNAUTHORIZED
    assert not wire.guard.foresees_forgery(SERIAL, carried(sealed), 10.0)
    assert wire.guard.handle(wire.endpoint, carried(sealed), 10.0).code == aiocoap.CHANGED


def test_what_was_opened_with_an_old_key_is_not_taken() -> None:
    records = enrolled()
    wire = Wire(guard_of(records))
    assert wire.register().code == aiocoap.CHANGED
    wire.terminal.request(post("register", registration().encode()), 1, 0.0)
    message = decode(wire.terminal.take_datagrams()[0])
    assert not wire.guard.foresees_forgery(SERIAL, message, 0.0)
    records.links.enrol(SERIAL, bytes(reversed(KEY)), ADA)
    assert wire.guard.handle(wire.endpoint, message, 0.0).code == aiocoap.UNAUTHORIZED
    assert wire.guard.refused[Stranger.FORGED] == 1


def test_what_was_said_once_changes_nothing_from_anywhere() -> None:
    wire = Wire(guard_of(enrolled()))
    wire.register()
    before = wire.guard.core.records.terminal(SERIAL)
    sealed = replay(wire, wire.up[0])
    assert sealed.code == aiocoap.CHANGED  # Protected: 4.01 with Echo inside.
    assert wire.guard.core.records.terminal(SERIAL) == before
    assert wire.guard.refused[Stranger.STALE] == 1


def test_what_was_said_in_an_earlier_start_is_refused() -> None:
    wire = Wire(guard_of(enrolled()))
    wire.register()
    old = wire.up[0]
    wire.starts(2)
    assert wire.register().code == aiocoap.CHANGED
    assert replay(wire, old).code == aiocoap.UNAUTHORIZED
    assert wire.guard.refused[Stranger.OLD] == 1


def test_a_server_that_starts_again_asks_once_and_takes_nothing_old() -> None:
    records = enrolled()
    wire = Wire(guard_of(records))
    wire.register()
    old = wire.up[0]
    wire.serve(guard_of(records))
    assert replay(wire, old).code == aiocoap.CHANGED
    assert wire.guard.refused[Stranger.STALE] == 1
    assert wire.register().code == aiocoap.CHANGED  # With Echo, which the endpoint repeats.
    assert wire.guard.refused[Stranger.STALE] == 2
    repeated = wire.up[-1]
    assert wire.register().code == aiocoap.CHANGED
    assert wire.guard.refused[Stranger.STALE] == 2
    # And the one with the Echo value is no key to the next life.
    wire.serve(guard_of(records))
    replay(wire, repeated, HERE)
    assert wire.guard.refused == {**dict.fromkeys(Stranger, 0), Stranger.STALE: 1}


def test_an_echo_value_is_that_of_one_address() -> None:
    records = enrolled()
    wire = Wire(guard_of(records))
    wire.register()
    wire.serve(guard_of(records))
    taken: list[bytes] = []
    wire.guard.opened = lambda request, _response, _now: taken.append(request.payload)
    wire.terminal.request(post("register", registration().encode()), 1, 0.0)
    wire.server.receive(wire.terminal.take_datagrams()[0], 0.0)
    wire.terminal.receive(wire.server.take_datagrams()[0], 0.0)
    (repeated,) = wire.terminal.take_datagrams()
    replay(wire, repeated, THERE)
    assert taken == []
    replay(wire, repeated, HERE)
    assert len(taken) == 1


def test_a_restart_is_fresh_without_being_asked() -> None:
    records = enrolled()
    wire = Wire(guard_of(records))
    wire.register()
    wire.serve(guard_of(records))
    wire.starts(2)
    assert wire.register().code == aiocoap.CHANGED
    assert wire.guard.refused[Stranger.STALE] == 0


def test_what_was_not_kept_is_asked_for_again() -> None:
    records = enrolled()
    wire = Wire(guard_of(records))
    wire.register()

    class BrokenError(Exception):
        pass

    message = post("register", registration().encode())
    wire.terminal.request(message, 1, 0.0)
    (datagram,) = wire.terminal.take_datagrams()

    def break_off() -> None:
        with records.transaction():
            wire.guard.handle(HERE, decode(datagram), 0.0)
            raise BrokenError

    with pytest.raises(BrokenError):
        break_off()
    wire.serve(wire.guard)  # Its end of the link has forgotten it, too.
    wire.server.receive(datagram, 0.0)
    wire.run()
    wire.wait() if not (outcomes := wire.terminal.take_outcomes()) else None
    outcomes = outcomes or wire.terminal.take_outcomes()
    assert outcomes[0].response.code == aiocoap.CHANGED


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.sampled_from(["say", "restart", "server", "other"])
        | st.tuples(st.integers(0, 20), st.integers(0, 1), st.sampled_from([HERE, THERE])),
        max_size=14,
    )
)
@example(deeds=["say", "say", (1, 0, THERE)])
@example(deeds=["say", "restart", "other", "say", (1, 0, HERE)])
def test_nothing_is_taken_twice_whatever_happens(deeds: list[str | tuple[int, int, str]]) -> None:
    records = enrolled()
    taken: list[tuple[str, bytes]] = []
    numbers: set[bytes] = set()
    servers = {0: guard_of(records, me=1), 1: guard_of(records, me=2)}
    at = 0
    wire = Wire(servers[at])
    said = 0

    def watch(guard: LinkGuard) -> None:
        guard.opened = lambda request, _response, _now: taken.append(("", request.payload))

    for guard in servers.values():
        watch(guard)
    for deed in deeds:
        if deed == "say":
            said += 1
            response = wire.ask(post("report", str(said).encode()))
            assert response is not None, "a good terminal was locked out"
        elif isinstance(deed, tuple):  # Somebody says what the terminal has said before.
            number, server, endpoint = deed
            before = len(taken)
            for datagram in wire.up[number : number + 1]:
                servers[server].handle(endpoint, decode(datagram), wire.now)
            assert len(taken) == before
        elif deed == "restart":
            wire.start += 1
            wire.starts(wire.start)
        elif deed == "server":
            servers[at] = guard_of(records, me=at + 1)
            watch(servers[at])
            wire.serve(servers[at])
        elif deed == "other":
            at = 1 - at
            wire.serve(servers[at])
    assert [payload for _, payload in taken] == [str(n + 1).encode() for n in range(said)]
    for datagram in wire.down:  # No nonce of the server's comes twice.
        header = read_header(decode(datagram))
        if header is not None and header.partial_iv is not None:
            assert header.partial_iv not in numbers
            numbers.add(header.partial_iv)


# Files, and where they go


def with_update(records: Records) -> Wire:
    """A terminal that has a file to fetch, and was announced it where it is."""
    guard = guard_of(records)
    core = guard.core
    assert isinstance(core, ServerCore)
    core.publish(make_image(size=3000), 0.0)
    core.start_update(SERIAL, "1.1.0", 0.0)
    wire = Wire(guard)
    wire.register()
    assert wire.texts, "it was announced"
    return wire


def test_a_block_goes_only_where_the_terminal_has_answered() -> None:
    wire = with_update(enrolled())
    asked = wire.guard.refused[Stranger.STALE]
    first = wire.ask(get_block(1, 0))
    assert (first.code, len(first.payload)) == (aiocoap.CONTENT, 1024)
    assert wire.guard.refused[Stranger.STALE] == asked
    wire.endpoint = THERE
    wire.server = CoapEndpoint(wire.handle, random.Random(8))
    wire.terminal.request(get_block(1, 1), 1, wire.now)
    wire.run(loses=lambda datagram: datagram[1] == aiocoap.CHANGED)
    assert len(wire.down[-1]) < 100, "only a question goes there"
    wire.wait()
    (outcome,) = wire.terminal.take_outcomes()
    assert (outcome.response.code, outcome.response.opt.block2.block_number) == (
        aiocoap.CONTENT,
        1,
    )
    # From now on it is known to be there.
    asked = wire.guard.refused[Stranger.STALE]
    assert wire.ask(get_block(1, 2)).code == aiocoap.CONTENT
    assert wire.guard.refused[Stranger.STALE] == asked


def test_blocks_are_answered_from_memory_when_they_are_asked_for_again() -> None:
    wire = with_update(enrolled())
    wire.terminal.request(get_block(1, 0), 1, wire.now)
    wire.run(loses=lambda datagram: datagram[1] == aiocoap.CHANGED)
    before = wire.down[-1]
    wire.wait()
    assert wire.down[-1] == before
    assert wire.terminal.take_outcomes()[0].response.code == aiocoap.CONTENT


def test_a_server_that_starts_anew_amid_a_file_goes_on_with_it() -> None:
    records = enrolled()
    wire = with_update(records)
    assert wire.ask(get_block(1, 0)).code == aiocoap.CONTENT
    wire.serve(guard_of(records))
    assert wire.ask(get_block(1, 1)).code == aiocoap.CONTENT


def test_a_file_of_another_terminal_is_not_there() -> None:
    records = enrolled()
    wire = with_update(records)
    records.links.enrol("T-0002", KEY, ADA)
    context = Context(KEY, "T-0002", Side.TERMINAL)
    wire.terminal = ProtectedEndpoint(wire.answer, random.Random(1), context, 1)
    assert wire.ask(get_block(1, 0)).code == aiocoap.NOT_FOUND


# Several servers


def test_a_terminal_that_goes_to_another_server_is_asked_there_and_when_it_comes_back() -> None:
    records = enrolled()
    one, two = guard_of(records, me=1), guard_of(records, me=2)
    wire = Wire(one)
    wire.register()
    assert (one.refused[Stranger.STALE], two.refused[Stranger.STALE]) == (0, 0)
    for server, other in ((two, one), (one, two)):
        said = wire.up[-1]
        wire.serve(server)
        before = server.refused[Stranger.STALE]
        assert wire.register().code == aiocoap.CHANGED
        assert server.refused[Stranger.STALE] == before + 1
        assert records.links.find(SERIAL).holder == server.leases.me  # type: ignore[union-attr]
        replay(wire, said)
        assert wire.guard.refused[Stranger.STALE] == before + 2
        assert other is not server


def test_two_servers_never_use_one_number() -> None:
    records = enrolled()
    one, two = guard_of(records, me=1), guard_of(records, me=2)
    wire = Wire(one)
    for number in range(40):
        wire.serve((one, two)[number % 2])
        assert wire.register().code == aiocoap.CHANGED
    headers = [read_header(decode(datagram)) for datagram in wire.down]
    numbers = [header.partial_iv for header in headers if header and header.partial_iv]
    assert len(set(numbers)) == len(numbers) >= 79


# The server's own numbers


def test_numbers_of_the_server_are_reserved_before_they_are_used() -> None:
    records = enrolled()
    wire = Wire(guard_of(records))
    wire.register()
    first = read_header(decode(wire.down[0]))
    assert first is not None
    assert first.sequence < records.links.find(SERIAL).reserved == RESERVED_AT_ONCE  # type: ignore[union-attr]
    for _ in range(RESERVED_AT_ONCE):
        wire.register()
    last = read_header(decode(wire.down[-1]))
    assert last is not None
    assert last.sequence == RESERVED_AT_ONCE
    assert records.links.find(SERIAL).reserved == 2 * RESERVED_AT_ONCE  # type: ignore[union-attr]
    wire.serve(guard_of(records))
    wire.register()
    header = read_header(decode(wire.down[-1]))
    assert header is not None
    assert header.sequence >= 2 * RESERVED_AT_ONCE


def test_a_terminal_that_starts_anew_is_told_again_what_it_missed() -> None:
    wire = Wire(guard_of(enrolled()))
    wire.register()
    wire.guard.core.send_text(SERIAL, "hello", wire.now)  # type: ignore[attr-defined]
    wire.run(loses=lambda _datagram: True)
    wire.starts(2)
    wire.register()
    assert len(wire.texts) == 1


def test_what_was_sent_before_the_window_is_open_is_made_again_at_once() -> None:
    """A server has heard of a start, and ends before it answers; the next one tells something."""
    records = enrolled()
    wire = Wire(guard_of(records))
    wire.terminal.request(post("register", registration().encode()), 1, wire.now)
    wire.run(loses=lambda datagram: decode(datagram).code.is_response())
    wire.guard.core.send_text(SERIAL, "hello", wire.now)  # type: ignore[attr-defined]
    wire.serve(guard_of(records))
    wire.guard.core.go_on()  # type: ignore[attr-defined]
    wire.run()
    assert wire.texts == [], "the terminal knows no number yet"
    while not wire.terminal.take_outcomes():
        wire.wait()
    assert len(wire.texts) == 1
    assert records.messages(SERIAL)[0].state.value == "delivered"


def test_a_text_that_comes_before_the_lost_answer_is_not_lost() -> None:
    wire = Wire(guard_of(enrolled()))
    wire.terminal.request(post("register", registration().encode()), 1, 0.0)
    wire.run(loses=lambda datagram: datagram[1] == aiocoap.CHANGED)
    wire.guard.core.send_text(SERIAL, "hello", wire.now)  # type: ignore[attr-defined]
    wire.run()  # The terminal cannot take it yet: it refuses, and is not believed.
    assert wire.texts == []
    wire.wait()
    wire.wait()
    assert len(wire.texts) == 1


def test_a_forged_refusal_does_not_end_a_request() -> None:
    wire = Wire(guard_of(enrolled()))
    wire.register()
    wire.guard.core.send_text(SERIAL, "hello", wire.now)  # type: ignore[attr-defined]
    for sent in wire.guard.poll(0.0):
        wire.server.request(sent.message, sent.ticket, 0.0, sent.read)
    (datagram,) = wire.server.take_datagrams()
    asked = decode(datagram)
    forged = aiocoap.Message(code=aiocoap.NOT_FOUND)
    forged.mtype, forged.mid, forged.token = aiocoap.ACK, asked.mid, asked.token
    wire.server.receive(forged.encode(), 0.0)
    assert wire.server.take_outcomes() == []
    wire.wait()
    assert len(wire.texts) == 1


# Enrolment


@pytest.fixture(params=STORES)
def open_records(request: pytest.FixtureRequest, tmp_path: Any) -> Open:
    return opener(request, tmp_path)


def test_every_store_keeps_what_must_never_be_forgotten(open_records: Open) -> None:
    with open_records() as records:
        wire = Wire(guard_of(enrolled(records)), start=7)
        wire.register()
        old = wire.up[0]
    with open_records() as records:
        link = records.links.find(SERIAL)
        assert link is not None
        assert (link.key, link.start, link.reserved) == (KEY, 7, RESERVED_AT_ONCE)
        assert records.links.serials() == {SERIAL}
        with records.transaction():
            records.links.look_ahead([SERIAL, "T-0002"])
            assert records.links.find(SERIAL) == link
            assert records.links.find("T-0002") is None
        wire.serve(guard_of(records))
        replay(wire, old)
        assert wire.guard.refused[Stranger.STALE] == 1
        assert wire.register().code == aiocoap.CHANGED
        wire.starts(8)
        wire.register()
        assert replay(wire, old).code == aiocoap.UNAUTHORIZED


def test_enrolling_is_in_the_audit_and_the_same_key_forgets_nothing() -> None:
    records = enrolled()
    wire = Wire(guard_of(records))
    wire.register()
    before = records.links.find(SERIAL)
    assert records.links.enrol(SERIAL, KEY, ADA) is False
    assert records.links.find(SERIAL) == before
    assert records.links.enrol(SERIAL, bytes(32), ADA) is True
    after = records.links.find(SERIAL)
    assert after is not None
    assert (after.start, after.reserved) == (0, 0)
    entries = [entry for entry in records.audit() if entry.action is AuditAction.TERMINAL_ENROLLED]
    assert [(entry.serial, entry.actor) for entry in entries] == [(SERIAL, "ada")] * 2
    assert wire.register() is None


def test_a_key_is_not_shown() -> None:
    assert KEY.hex() not in repr(enrolled().links.find(SERIAL))
    assert str(KEY) not in repr(enrolled().links.find(SERIAL))


def test_counts_of_starts_are_in_the_high_bits() -> None:
    records = enrolled()
    wire = Wire(guard_of(records), start=5)
    wire.register()
    header = read_header(decode(wire.up[0]))
    assert header is not None
    assert header.sequence >> MESSAGE_BITS == 5
    assert records.links.find(SERIAL).start == 5  # type: ignore[union-attr]
