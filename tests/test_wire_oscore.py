"""OSCORE: against RFC 8613's test vectors, against aiocoap, and against who has not the key."""

from __future__ import annotations

import random
from typing import Any

import aiocoap
import cbor2
import pytest
from aiocoap import oscore
from aiocoap.message import Direction
from cryptography.hazmat.primitives.ciphers.aead import AESCCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from hypothesis import given
from hypothesis import strategies as st

from unbrick.errors import LinkError
from unbrick.image.factory import derive_bench_key, derive_link_key
from unbrick.wire import slipmux
from unbrick.wire.codec import decode
from unbrick.wire.oscore import (
    CHACHA20_POLY1305,
    MAX_MESSAGES,
    SEQUENCE_LIMIT,
    WINDOW,
    Binding,
    Context,
    Header,
    ReplayWindow,
    Side,
    derive,
    flatten,
    make_aad,
    make_nonce,
    read_header,
)

SERIAL = "T-0001"
KEY = derive_link_key(derive_bench_key(SERIAL))
Message = aiocoap.Message


def sides(key: bytes = KEY, serial: str = SERIAL) -> tuple[Context, Context]:
    return Context(key, serial, Side.TERMINAL), Context(key, serial, Side.SERVER)


def carried(message: Any) -> Any:
    """A message as it arrives at the other side."""
    message.mtype, message.mid, message.token = aiocoap.CON, 1, b"t"
    arrived = decode(message.encode())
    arrived.direction = Direction.INCOMING
    return arrived


def request(payload: bytes = b"hello") -> Any:
    message = Message(code=aiocoap.POST, payload=payload, uri_path=("register",))
    message.opt.content_format = 60
    return message


def block() -> Any:
    message = Message(code=aiocoap.CONTENT, payload=bytes(1024), block2=(3, True, 6), etag=b"etag")
    message.opt.content_format = 42
    return message


def same(one: Any, other: Any) -> bool:
    return flatten(one) == flatten(other)


# RFC 8613, Appendix C. Its algorithm is AES-CCM-16-64-128 (10), with a tag of 8 bytes.

AES_CCM = 10
SECRET = bytes.fromhex("0102030405060708090a0b0c0d0e0f10")


def from_salt(sender: bytes, kind: str, size: int) -> bytes:
    """As ``derive``, with the Master Salt of C.1, which the link has not."""
    info = cbor2.dumps([sender, None, AES_CCM, kind, size])
    return HKDF(SHA256(), size, salt=bytes.fromhex("9e7ca92223786340"), info=info).derive(SECRET)


def test_keys_are_derived_as_in_appendix_c_2_and_c_3() -> None:
    def key(sender: bytes, context: bytes | None, kind: str = "Key", size: int = 16) -> str:
        return derive(SECRET, sender, kind, size, context, algorithm=AES_CCM).hex()

    assert key(b"\0", None) == "321b26943253c7ffb6003b0b64d74041"  # C.2.1, without a salt
    assert key(b"\1", None) == "e57b5635815177cd679ab4bcec9d7dda"
    assert key(b"", None, "IV", 13) == "be35ae297d2dace910c52e99f9"
    assert from_salt(b"", "Key", 16).hex() == "f0910ed7295e6ad4b54fc793154302ff"  # C.1.1


def test_nonces_are_made_as_in_appendix_c() -> None:
    iv = bytes.fromhex("4622d4dd6d944168eefb54987c")  # C.1
    assert make_nonce(iv, b"", b"\0").hex() == "4622d4dd6d944168eefb54987c"
    assert make_nonce(iv, b"\1", b"\0").hex() == "4722d4dd6d944169eefb54987c"
    iv = bytes.fromhex("be35ae297d2dace910c52e99f9")  # C.2
    assert make_nonce(iv, b"\0", b"\0").hex() == "bf35ae297d2dace910c52e99f9"


def test_a_request_is_framed_as_in_appendix_c_4() -> None:
    plain = decode(bytes.fromhex("44015d1f00003974396c6f63616c686f737483747631"))
    plain.opt.uri_host = None
    binding = Binding(b"", b"\x14")
    assert flatten(plain).hex() == "01b3747631"
    assert make_aad(binding, algorithm=AES_CCM).hex() == (
        "8368456e63727970743040488501810a40411440"
    )
    key, iv = from_salt(b"", "Key", 16), from_salt(b"", "IV", 13)
    sealed = AESCCM(key, 8).encrypt(
        make_nonce(iv, binding.kid, binding.partial_iv),
        flatten(plain),
        make_aad(binding, algorithm=AES_CCM),
    )
    assert sealed.hex() == "612f1092f1776f1c1668b3825e"
    assert Header(b"\x14", b"").encode().hex() == "0914"


def test_a_request_is_framed_as_in_appendix_c_6() -> None:
    assert Header(b"\x14", b"", bytes.fromhex("37cbf3210017a2d3")).encode().hex() == (
        "19140837cbf3210017a2d3"
    )


def test_replies_are_framed_as_in_appendix_c_7_and_c_8() -> None:
    plain = decode(bytes.fromhex("64455d1f00003974ff48656c6c6f20576f726c6421"))
    key, iv = from_salt(b"\1", "Key", 16), from_salt(b"", "IV", 13)
    binding = Binding(b"", b"\x14")
    aad = make_aad(binding, algorithm=AES_CCM)
    sealed = AESCCM(key, 8).encrypt(make_nonce(iv, b"", b"\x14"), flatten(plain), aad)
    assert sealed.hex() == "dbaad1e9a7e7b2a813d3c31524378303cdafae119106"
    sealed = AESCCM(key, 8).encrypt(make_nonce(iv, b"\1", b"\0"), flatten(plain), aad)
    assert sealed.hex() == "4d4c13669384b67354b2b6175ff4b8658c666a6cf88e"
    assert Header(b"\0").encode().hex() == "0100"
    assert Header().encode() == b""


# aiocoap


class Aiocoap(oscore.CanProtect, oscore.CanUnprotect, oscore.SecurityContextUtils):
    """The other side, by aiocoap."""

    def __init__(self, side: Side) -> None:
        self.alg_aead = oscore.ChaCha20Poly1305()
        self.hashfun = oscore.hashfunctions["sha256"]
        self.id_context = SERIAL.encode()
        self.sender_id, self.recipient_id = side.value, side.other.value
        self.derive_keys(b"", KEY)
        self.sender_sequence_number = 3 << 20
        self.recipient_replay_window = oscore.ReplayWindow(32, lambda: None)
        self.recipient_replay_window.initialize_empty()
        self.echo_recovery = None

    def post_seqnoincrease(self) -> None:
        """Nothing is stored in a test."""


@pytest.mark.parametrize("side", list(Side))
def test_aiocoap_reads_what_we_protect(side: Side) -> None:
    ours, theirs = Context(KEY, SERIAL, side), Aiocoap(side.other)
    asked, binding = ours.seal_request(request(), 77)
    read, their_binding = theirs.unprotect(carried(asked))
    assert same(read, request())
    answered, _ = theirs.protect(block(), their_binding)
    opened = ours.open_reply(carried(answered), binding)
    assert same(opened.message, block())
    assert opened.sequence is None


@pytest.mark.parametrize("side", list(Side))
@pytest.mark.parametrize("number", [None, 5])
def test_we_read_what_aiocoap_protects(side: Side, number: int | None) -> None:
    ours, theirs = Context(KEY, SERIAL, side), Aiocoap(side.other)
    asked, their_binding = theirs.protect(request(), kid_context=side is Side.SERVER)
    opened = ours.open_request(carried(asked))
    assert same(opened.message, request())
    assert opened.sequence == 3 << 20
    answered = ours.seal_reply(block(), opened.binding, number)
    read, _ = theirs.unprotect(carried(answered), their_binding)
    assert same(read, block())


def test_aiocoap_makes_the_same_bytes() -> None:
    ours, theirs = Context(KEY, SERIAL, Side.TERMINAL), Aiocoap(Side.TERMINAL)
    mine, binding = ours.seal_request(request(), 3 << 20)
    other, _ = theirs.protect(request())
    assert (mine.opt.oscore, mine.payload) == (other.opt.oscore, other.payload)
    assert make_aad(binding, algorithm=CHACHA20_POLY1305) == bytes.fromhex(
        "8368456e637279707430404b" + "8501811818" + "40" + "43300000" + "40"
    )


# A terminal and the server


def test_what_is_read_ahead_is_read_once() -> None:
    terminal, server = sides()
    first, second = (carried(terminal.seal_request(request(), number)[0]) for number in (9, 10))
    server.open_ahead(first)
    server.open_ahead(second)  # The last one is kept.
    for message, sequence in ((first, 9), (second, 10), (second, 10)):
        assert server.open_request(message).sequence == sequence
    server.open_ahead(first)
    opened = server.open_request(first)
    assert opened is not server.open_request(first)


def test_a_terminal_names_itself_and_the_server_does_not_name_it() -> None:
    terminal, server = sides()
    header = read_header(terminal.seal_request(request(), 9)[0])
    assert header == Header(b"\x09", b"", SERIAL.encode())
    assert read_header(server.seal_request(request(), 9)[0]) == Header(b"\x09", b"\x01")
    assert read_header(request()) is None


def test_nothing_of_a_message_is_outside() -> None:
    terminal, server = sides()
    asked, binding = terminal.seal_request(request(b"a secret"), 9)
    answered = server.seal_reply(block(), binding)
    for sealed, code in ((asked, aiocoap.POST), (answered, aiocoap.CHANGED)):
        assert sealed.code == code
        assert [option.number for option in sealed.opt.option_list()] == [9]
    assert b"register" not in asked.payload
    assert b"secret" not in asked.payload


@pytest.mark.parametrize("update", [1, 99_999])
def test_protection_leaves_a_transfer_at_least_95_percent_of_the_line(update: int) -> None:
    """Of 512 KiB in blocks, in the direction that a transfer fills, late in the numbers."""
    terminal, server = sides()
    protected = plain = 0
    for number in range(512):
        block_ = Message(
            code=aiocoap.CONTENT,
            payload=random.Random(number).randbytes(1024),
            block2=(number, number < 511, 6),
            etag=b"12345678",
        )
        block_.opt.content_format = 42
        asked = Message(code=aiocoap.GET, uri_path=("file", str(update)), block2=(number, False, 6))
        sealed = server.seal_reply(block_, terminal.seal_request(asked, (7 << 20) + number)[1])
        for message in (sealed, block_):
            message.mtype, message.mid, message.token = aiocoap.ACK, number, b"toke"
        protected += len(slipmux.encode(sealed.encode()))
        plain += len(slipmux.encode(block_.encode()))
    assert 0.95 < plain / protected < 1


@given(
    st.sampled_from(list(Side)),
    st.integers(0, SEQUENCE_LIMIT - 1),
    st.none() | st.integers(0, SEQUENCE_LIMIT - 1),
    st.binary(max_size=1024),
)
def test_what_one_side_protects_the_other_reads(
    side: Side, number: int, own: int | None, payload: bytes
) -> None:
    one, other = (Context(KEY, SERIAL, side) for side in (side, side.other))
    asked, binding = one.seal_request(request(payload), number)
    opened = other.open_request(carried(asked))
    assert same(opened.message, request(payload))
    assert (opened.sequence, opened.binding) == (number, binding)
    reply = one.open_reply(carried(other.seal_reply(block(), binding, own)), binding)
    assert same(reply.message, block())
    assert reply.sequence == own


@given(st.data())
def test_one_changed_bit_is_seen(data: Any) -> None:
    terminal, server = sides()
    asked, binding = terminal.seal_request(request(), 300)
    answered = server.seal_reply(block(), binding)
    for sealed in (asked, answered):
        field = data.draw(st.sampled_from(["payload", "option"]))
        value = bytearray(sealed.payload if field == "payload" else sealed.opt.oscore)
        if not value:
            continue
        bit = data.draw(st.integers(0, 8 * len(value) - 1))
        value[bit // 8] ^= 1 << bit % 8
        if field == "payload":
            sealed.payload = bytes(value)
        else:
            sealed.opt.oscore = bytes(value)
    with pytest.raises(LinkError):
        server.open_request(carried(asked))
    if answered.opt.oscore or answered.payload != server.seal_reply(block(), binding).payload:
        with pytest.raises(LinkError):
            terminal.open_reply(carried(answered), binding)


def test_a_reply_belongs_to_one_request() -> None:
    terminal, server = sides()
    first, second = (terminal.seal_request(request(), number)[1] for number in (1, 2))
    with pytest.raises(LinkError, match="link key"):
        terminal.open_reply(carried(server.seal_reply(block(), first)), second)
    with pytest.raises(LinkError, match="link key"):
        terminal.open_reply(carried(server.seal_reply(block(), first, 9)), second)


def test_what_a_side_said_is_nothing_that_it_is_told() -> None:
    terminal, server = sides()
    asked, binding = terminal.seal_request(request(), 1)
    with pytest.raises(LinkError, match="other side"):
        terminal.open_request(carried(asked))
    with pytest.raises(LinkError, match="link key"):
        server.open_reply(carried(server.seal_reply(block(), binding)), binding)


@pytest.mark.parametrize("other", [sides(key=bytes(32)), sides(serial="T-0002")])
def test_another_key_or_serial_opens_nothing(other: tuple[Context, Context]) -> None:
    asked, binding = sides()[0].seal_request(request(), 1)
    answered = sides()[1].seal_reply(block(), binding)
    with pytest.raises(LinkError):
        other[1].open_request(carried(asked))
    with pytest.raises(LinkError):
        other[0].open_reply(carried(answered), binding)


def test_a_request_inside_a_reply_and_a_reply_inside_a_request_are_refused() -> None:
    terminal, server = sides()
    binding = terminal.seal_request(request(), 1)[1]
    sealed = server.seal_reply(request(), binding)
    with pytest.raises(LinkError, match="no response"):
        terminal.open_reply(carried(sealed), binding)
    sealed, _ = terminal.seal_request(block(), 1)
    sealed.code = aiocoap.POST
    with pytest.raises(LinkError, match="no request"):
        server.open_request(carried(sealed))


@given(st.binary(max_size=24))
def test_any_option_is_read_or_refused(option: bytes) -> None:
    try:
        header = Header.decode(option)
    except LinkError:
        return
    assert header.encode() == option


@pytest.mark.parametrize("option", ["00", "09", "0609", "0200", "210100", "010102", "19010541"])
def test_a_malformed_option_is_refused(option: str) -> None:
    with pytest.raises(LinkError):
        Header.decode(bytes.fromhex(option))


@given(st.binary(max_size=64), st.binary(max_size=16))
def test_nothing_that_is_made_up_is_opened(payload: bytes, option: bytes) -> None:
    terminal, server = sides()
    made_up = carried(Message(code=aiocoap.POST, payload=payload, oscore=option))
    with pytest.raises(LinkError):
        server.open_request(made_up)
    with pytest.raises(LinkError):
        terminal.open_reply(made_up, Binding(b"", b"\1"))


def test_a_used_up_key_protects_nothing() -> None:
    with pytest.raises(LinkError, match="used up"):
        sides()[0].seal_request(request(), SEQUENCE_LIMIT)


def test_the_link_key_tells_nothing_of_the_terminals_key() -> None:
    key = derive_bench_key(SERIAL)
    assert derive_link_key(key) == KEY
    assert key != KEY
    assert KEY.hex() == "da5b89d0f7b908c69ab1a4502ec6655571ab49337bbca98f8bdcd04f3ff88ea4"


# The replay window


@given(st.lists(st.integers(0, 3 * WINDOW), max_size=200), st.integers(0, 2 * WINDOW))
def test_no_number_comes_twice_and_none_that_is_new_is_lost(
    numbers: list[int], newest: int
) -> None:
    window, taken = ReplayWindow(newest), {newest}
    for number in numbers:
        fresh = number > newest and number not in taken and number > max(taken) - WINDOW
        assert window.is_fresh(number) is fresh
        if fresh:
            window.take(number)
            taken.add(number)


def test_a_window_leaps() -> None:
    window = ReplayWindow(5)
    window.take(5 + 10 * MAX_MESSAGES)
    assert not window.is_fresh(5 + 10 * MAX_MESSAGES)
    assert window.is_fresh(4 + 10 * MAX_MESSAGES)
    assert not window.is_fresh(6)
