"""The CoAP endpoint in virtual time: retransmission, duplicates, and hostile peers."""

from __future__ import annotations

import random
from itertools import pairwise
from typing import Any

import aiocoap
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unbrick.errors import LinkError
from unbrick.wire.coap import CoapEndpoint, RequestOutcome
from unbrick.wire.codec import decode

Message = aiocoap.Message


class Echo:
    """A handler that remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[bytes] = []

    def __call__(self, request: Any, _now: float) -> Any:
        self.asked.append(request.payload)
        return Message(code=aiocoap.CHANGED, payload=b"to " + request.payload)


def make(seed: int = 1) -> tuple[CoapEndpoint, Echo]:
    echo = Echo()
    return CoapEndpoint(echo, random.Random(seed)), echo


def datagram(payload: bytes = b"x", mid: int = 7, mtype: Any = aiocoap.CON) -> bytes:
    message = Message(code=aiocoap.POST, payload=payload, uri_path=("register",))
    message.mtype, message.mid, message.token = mtype, mid, b"tok"
    return bytes(message.encode())


def reply(request: bytes, code: Any = aiocoap.CHANGED, payload: bytes = b"") -> bytes:
    asked = decode(request)
    message = Message(code=code, payload=payload)
    message.mtype, message.mid, message.token = aiocoap.ACK, asked.mid, asked.token
    return bytes(message.encode())


def empty(mtype: Any, mid: int) -> bytes:
    message = Message(code=aiocoap.EMPTY)
    message.mtype, message.mid = mtype, mid
    return bytes(message.encode())


def ask(payload: bytes = b"hello") -> Any:
    return Message(code=aiocoap.POST, payload=payload, uri_path=("announce",))


def test_an_answer_travels_in_the_acknowledgement() -> None:
    endpoint, _ = make()
    endpoint.receive(datagram(), 0.0)
    (answer,) = map(decode, endpoint.take_datagrams())
    assert (answer.mtype, answer.mid, answer.token) == (aiocoap.ACK, 7, b"tok")
    assert answer.payload == b"to x"


def test_a_duplicate_is_answered_but_not_handled_again() -> None:
    endpoint, echo = make()
    endpoint.receive(datagram(), 0.0)
    (first,) = endpoint.take_datagrams()
    endpoint.receive(datagram(), 3.0)
    assert endpoint.take_datagrams() == [first]
    assert echo.asked == [b"x"]
    assert endpoint.duplicates == 1


def test_a_get_is_handled_again_and_not_remembered() -> None:
    endpoint, echo = make()
    message = aiocoap.Message(code=aiocoap.GET, uri_path=("file", "1"))
    message.mtype, message.mid, message.token = aiocoap.CON, 7, b"tok"
    for _ in range(2):
        endpoint.receive(message.encode(), 0.0)
    assert len(echo.asked) == len(endpoint.take_datagrams()) == 2
    assert not endpoint._remembered


def test_what_was_refused_is_not_remembered() -> None:
    def refuse(_request: Any, _now: float) -> Any:
        return Message(code=aiocoap.BAD_REQUEST)

    endpoint = CoapEndpoint(refuse, random.Random(1))
    for mid in range(3):
        endpoint.receive(datagram(mid=mid), 0.0)
    assert not endpoint._remembered


def test_requests_that_are_abandoned_end_without_response() -> None:
    endpoint, _ = make()
    endpoint.request(ask(), 5, 0.0)
    endpoint.request(ask(), 6, 0.0)
    endpoint.abandon()
    assert endpoint.take_outcomes() == [RequestOutcome(5, None), RequestOutcome(6, None)]
    assert endpoint.deadline is None


def test_a_terminal_that_starts_again_may_use_its_message_ids_again() -> None:
    endpoint, echo = make()
    endpoint.receive(datagram(b"old software"), 0.0)
    endpoint.receive(datagram(b"new software"), 3.0)
    assert echo.asked == [b"old software", b"new software"]


def test_answers_are_forgotten_after_the_exchange_lifetime() -> None:
    endpoint, echo = make()
    endpoint.receive(datagram(), 0.0)
    endpoint.receive(datagram(), 248.0)
    assert echo.asked == [b"x", b"x"]


def test_memory_for_duplicates_is_bounded() -> None:
    endpoint, _ = make()
    for mid in range(500):
        endpoint.receive(datagram(mid=mid), 0.0)
    assert len(endpoint._remembered) <= 64


def test_a_request_is_sent_again_at_doubling_intervals_and_then_given_up() -> None:
    endpoint, _ = make()
    endpoint.request(ask(), 5, 100.0)
    (first,) = endpoint.take_datagrams()
    times = []
    while endpoint.deadline is not None:
        now = endpoint.deadline
        times.append(now)
        endpoint.poll(now)
        assert endpoint.take_datagrams() in ([first], [])
    gaps = [after - before for before, after in pairwise([100.0, *times])]
    assert len(gaps) == 5
    assert 2.0 <= gaps[0] <= 3.0
    for shorter, longer in pairwise(gaps):
        assert longer == pytest.approx(2 * shorter)
    (outcome,) = endpoint.take_outcomes()
    assert (outcome.ticket, outcome.response) == (5, None)
    assert endpoint.retransmissions == 4


def test_a_response_ends_the_request() -> None:
    endpoint, _ = make()
    endpoint.request(ask(), 5, 0.0)
    (sent,) = endpoint.take_datagrams()
    endpoint.receive(reply(sent, payload=b"yes"), 1.0)
    (outcome,) = endpoint.take_outcomes()
    assert outcome.response is not None
    assert outcome.response.payload == b"yes"
    assert endpoint.deadline is None
    endpoint.receive(reply(sent, payload=b"yes"), 2.0)
    assert endpoint.take_outcomes() == []


def test_requests_go_one_after_the_other() -> None:
    endpoint, _ = make()
    endpoint.request(ask(b"one"), 1, 0.0)
    endpoint.request(ask(b"two"), 2, 0.0)
    (first,) = endpoint.take_datagrams()
    assert decode(first).payload == b"one"
    endpoint.receive(reply(first), 1.0)
    (second,) = endpoint.take_datagrams()
    assert decode(second).payload == b"two"
    assert decode(second).mid != decode(first).mid
    assert decode(second).token != decode(first).token


def test_a_response_with_another_token_is_not_ours() -> None:
    endpoint, _ = make()
    endpoint.request(ask(), 1, 0.0)
    (sent,) = endpoint.take_datagrams()
    stranger = bytearray(reply(sent))
    stranger[4] ^= 0xFF
    endpoint.receive(bytes(stranger), 1.0)
    assert endpoint.take_outcomes() == []


def test_a_separate_response_is_waited_for_and_acknowledged() -> None:
    endpoint, _ = make()
    endpoint.request(ask(), 1, 0.0)
    (sent,) = endpoint.take_datagrams()
    endpoint.receive(empty(aiocoap.ACK, decode(sent).mid), 1.0)
    endpoint.poll(50.0)
    assert endpoint.take_datagrams() == []
    late = Message(code=aiocoap.CHANGED)
    late.mtype, late.mid, late.token = aiocoap.CON, 999, decode(sent).token
    endpoint.receive(late.encode(), 60.0)
    (outcome,) = endpoint.take_outcomes()
    assert outcome.response is not None
    (acknowledgement,) = endpoint.take_datagrams()
    assert acknowledgement == empty(aiocoap.ACK, 999)


def test_an_acknowledgement_without_response_ends_some_day() -> None:
    endpoint, _ = make()
    endpoint.request(ask(), 1, 0.0)
    (sent,) = endpoint.take_datagrams()
    endpoint.receive(empty(aiocoap.ACK, decode(sent).mid), 1.0)
    assert endpoint.deadline == pytest.approx(101.0)
    endpoint.poll(101.0)
    assert [outcome.response for outcome in endpoint.take_outcomes()] == [None]


def test_a_reset_ends_the_request() -> None:
    endpoint, _ = make()
    endpoint.request(ask(), 1, 0.0)
    (sent,) = endpoint.take_datagrams()
    endpoint.receive(empty(aiocoap.RST, decode(sent).mid), 1.0)
    assert [outcome.response for outcome in endpoint.take_outcomes()] == [None]


def test_a_ping_is_answered_with_a_reset() -> None:
    endpoint, _ = make()
    endpoint.receive(empty(aiocoap.CON, 77), 0.0)
    assert endpoint.take_datagrams() == [empty(aiocoap.RST, 77)]


@pytest.mark.parametrize(
    "bad",
    [
        b"",
        b"\x40",
        b"\x80\x01\x00\x01",
        b"\x49\x01\x00\x01" + bytes(9),
        b"\x44\x01\x00\x01\x00",
        b"\x40\x01\x00\x01\xf0",
        b"\x40\x01\x00\x01\xb4\xff\xff\xff\xff",
        b"\x40\x00\x00\x01\xff\x00",
        b"\x40\x01\x00\x01\xff",
        b"\x40\x01\x00\x01\xb1x\xff",
        b"\x40\x01\x00\x01\xe0\xff\xff",
    ],
    ids=lambda bad: bad.hex() or "nothing",
)
def test_what_is_no_message_is_refused(bad: bytes) -> None:
    with pytest.raises(LinkError):
        decode(bad)
    endpoint, echo = make()
    endpoint.receive(bad, 0.0)
    assert endpoint.rejected == 1
    assert echo.asked == []


# Options, RFC 7252 §5.4


def raw(options: bytes, mtype: Any = aiocoap.CON, code: int = aiocoap.GET) -> bytes:
    """A request with these options, as they are encoded."""
    return bytes((0x40 | mtype << 4, code, 0, 7)) + options


ANSWERED = {
    "Accept": (b"\xb6status\x61\x3c", aiocoap.CHANGED, None),
    "Accept, too long": (b"\xb6status\x63\0\0\x3c", aiocoap.BAD_OPTION, 17),
    "Accept, twice": (b"\xb6status\x61\x3c\x01\x3c", aiocoap.BAD_OPTION, 17),
    "Block2, too long": (b"\xb6status\xc4\0\0\0\x06", aiocoap.BAD_OPTION, 23),
    "Uri-Query": (b"\xb6status\x41x", aiocoap.BAD_OPTION, 15),
    "Uri-Query, in a discovery": (
        b"\xbb.well-known\x04core\x41x\x01y",
        aiocoap.CHANGED,
        None,
    ),
    "Uri-Host, empty": (b"\x30\x86status", aiocoap.BAD_OPTION, 3),
    "Uri-Host, twice": (b"\x31h\x01h\x86status", aiocoap.BAD_OPTION, 3),
    "Uri-Port, too long": (b"\x73\0\x16\x33\x46status", aiocoap.BAD_OPTION, 7),
    "Uri-Path, too long": (b"\xbd\xf3" + b"x" * 256, aiocoap.BAD_OPTION, 11),
    "If-None-Match": (b"\x50\x66status", aiocoap.BAD_OPTION, 5),
    "unknown": (b"\xb6status\xe1\xfc\xd1x", aiocoap.BAD_OPTION, 65001),
    "unknown, elective": (b"\xb6status\xe1\xfc\xd0x", aiocoap.CHANGED, None),
    "Content-Format, too long": (b"\xb6status\x13\0\0\x3c", aiocoap.CHANGED, None),
    "Proxy-Uri": (b"\xb6status\xd6\x0bcoap:x", aiocoap.PROXYING_NOT_SUPPORTED, None),
    "Proxy-Uri, empty": (b"\xb6status\xd0\x0b", aiocoap.BAD_OPTION, 35),
    "Proxy-Scheme": (b"\xb6status\xd4\x0fcoap", aiocoap.PROXYING_NOT_SUPPORTED, None),
    "Proxy-Uri, unknown": (b"\xd1\x16x\xe1\xfc\xb9x", aiocoap.BAD_OPTION, 65001),
}


@pytest.mark.parametrize("case", ANSWERED)
def test_a_confirmable_request_is_answered_as_its_options_demand(case: str) -> None:
    options, code, named = ANSWERED[case]
    endpoint, echo = make()
    endpoint.receive(raw(options), 0.0)
    (answer,) = map(decode, endpoint.take_datagrams())
    assert (answer.mtype, answer.mid, answer.code) == (aiocoap.ACK, 7, code)
    assert len(echo.asked) == (code == aiocoap.CHANGED)
    if named is not None:
        assert answer.payload == f"option {named} is not recognised".encode()


@pytest.mark.parametrize("case", ANSWERED)
def test_a_non_confirmable_one_with_unrecognised_options_is_rejected_in_silence(case: str) -> None:
    options, code, _named = ANSWERED[case]
    endpoint, echo = make()
    endpoint.receive(raw(options, aiocoap.NON), 0.0)
    answers = list(map(decode, endpoint.take_datagrams()))
    assert len(echo.asked) == (code == aiocoap.CHANGED)
    if code == aiocoap.BAD_OPTION:
        assert answers == []
        assert endpoint.rejected == 1
    else:
        assert [answer.code for answer in answers] == [code]


def test_an_elective_option_of_a_wrong_length_is_passed_over() -> None:
    assert decode(raw(b"\xb6status\x12\0\x32")).opt.content_format == 50
    assert decode(raw(b"\xb6status\x13\0\0\x32")).opt.content_format is None


def test_a_confirmable_message_that_ends_in_its_marker_is_reset() -> None:
    endpoint, echo = make()
    endpoint.receive(raw(b"\xb6status\xff"), 0.0)
    assert endpoint.take_datagrams() == [empty(aiocoap.RST, 7)]
    endpoint.receive(raw(b"\xb6status\xff", aiocoap.NON), 0.0)
    assert endpoint.take_datagrams() == []
    assert echo.asked == []


@pytest.mark.parametrize(
    ("options", "good"),
    [
        (b"\xd1\x0a\x06", True),
        (b"\xd4\x0a\0\0\0\x06", False),
        (b"\xd1\x0a\x06\x01\x06", False),
        (b"\xd1\x04x", False),
        (b"\xd1\x05x", True),
    ],
    ids=["Block2", "too long", "twice", "unknown", "unknown, elective"],
)
@pytest.mark.parametrize("mtype", [aiocoap.CON, aiocoap.NON, aiocoap.ACK])
def test_a_response_with_unrecognised_options_is_none(
    options: bytes, good: bool, mtype: Any
) -> None:
    endpoint, _ = make()
    endpoint.request(ask(), 5, 0.0)
    (sent,) = map(decode, endpoint.take_datagrams())
    mid = sent.mid if mtype is aiocoap.ACK else 999
    head = bytes((0x42 | mtype << 4, aiocoap.CHANGED)) + mid.to_bytes(2, "big") + sent.token
    endpoint.receive(head + options, 1.0)
    (outcome,) = endpoint.take_outcomes()
    assert (outcome.response is not None) == good
    answer = [empty(aiocoap.ACK if good else aiocoap.RST, 999)] if mtype is aiocoap.CON else []
    assert endpoint.take_datagrams() == answer


@given(st.binary(max_size=60), st.booleans())
def test_any_datagram_can_be_received(noise: bytes, plausible: bool) -> None:
    endpoint, _ = make()
    endpoint.request(ask(), 1, 0.0)
    endpoint.receive(b"\x40\x02" + noise if plausible else noise, 1.0)
    endpoint.poll(2.0)
    endpoint.take_datagrams()


@given(st.data())
def test_mutated_datagrams_can_be_received(data: st.DataObject) -> None:
    endpoint, _ = make()
    raw = bytearray(datagram(b"payload"))
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    endpoint.receive(bytes(raw), 0.0)


def test_same_seed_same_datagrams() -> None:
    def run(seed: int) -> tuple[list[bytes], float | None]:
        endpoint, _ = make(seed)
        endpoint.request(ask(), 1, 0.0)
        return endpoint.take_datagrams(), endpoint.deadline

    assert run(4) == run(4)
    assert run(4) != run(5)
