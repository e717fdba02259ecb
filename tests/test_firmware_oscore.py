"""OSCORE (RFC 8613) of the terminal, on the host: vectors of the RFC, and messages of aiocoap."""

from __future__ import annotations

import ctypes
import random
from collections.abc import Callable, Sequence
from pathlib import Path

import aiocoap
import pytest
from aiocoap import oscore
from aiocoap.message import Direction
from test_firmware_lib import ASAN, FLAGS, LIB, SEALING, TESTS, Toolchain, compile_c, run
from test_firmware_lib import build as build  # noqa: PLC0414 - fixtures
from test_firmware_lib import toolchain as toolchain  # noqa: PLC0414

from unbrick.firmware.build import fetch_libsodium

SECRET = bytes(range(1, 33))
SERIAL = "UB-000001"
START = 5
"""Of the terminal: its first number is this, shifted by the bits of a message's."""

NUMBER_BITS = 20
TAG = 16
"""Bytes."""


class Context(  # type: ignore[misc]  # aiocoap has no types
    oscore.CanProtect, oscore.CanUnprotect, oscore.SecurityContextUtils
):
    """The profile of the link, as aiocoap has it."""

    alg_aead = oscore.algorithms["ChaCha20/Poly1305"]
    hashfun = oscore.hashfunctions["sha256"]
    echo_recovery = None
    id_context = SERIAL.encode()

    def __init__(self, *, terminal: bool, number: int) -> None:
        self.sender_id, self.recipient_id = (b"", b"\1") if terminal else (b"\1", b"")
        self.sender_sequence_number = number
        self.recipient_replay_window = oscore.ReplayWindow(32, lambda: None)
        self.recipient_replay_window.initialize_empty()
        self.derive_keys(b"", SECRET)

    def post_seqnoincrease(self) -> None:
        """Nothing is kept."""


def _sodium_objects(toolchain: Toolchain, folder: Path, more: Sequence[str] = ()) -> list[str]:
    sodium = fetch_libsodium()
    flags = [*toolchain.command, "-std=c11", "-g", "-O1", *toolchain.sanitizers, *more]
    flags += ["-w", "-DCONFIGURED=1", f"-I{sodium}/include/sodium", f"-I{sodium}/include"]
    files = [*(sodium / source for source in SEALING), LIB.parent / "board" / "sodium.c"]
    compile_c([*flags, "-c", *map(str, files)], cwd=folder)
    return [f"-I{sodium}/include", *map(str, sorted(folder.glob("*.o")))]


@pytest.fixture(scope="session")
def shared(toolchain: Toolchain, tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """The library with the board's cryptography. Undefined behaviour traps."""
    folder = tmp_path_factory.mktemp("firmware_oscore")
    plain = Toolchain(toolchain.command, ["-fPIC"])
    path = folder / "liboscore.so"
    trap = ["-fsanitize=undefined", "-fsanitize-undefined-trap-on-error"]
    flags = [*toolchain.command, *FLAGS, "-O1", "-shared", "-fPIC"]
    flags += trap if toolchain.sanitizers is ASAN else []
    sources = [LIB / "oscore.c", LIB.parent / "board" / "protect.c"]
    sources += [TESTS / "board" / "oscore_shims.c"]
    more = _sodium_objects(plain, folder)
    compile_c([*flags, "-o", str(path), *map(str, sources), *more], cwd=folder)
    made = ctypes.CDLL(str(path))
    for name in ("shim_context_size", "oscore_associate", "oscore_request_option"):
        getattr(made, name).restype = ctypes.c_size_t
    made.shim_crypto.restype = ctypes.c_void_p
    for name in ("shim_open", "shim_derive", "oscore_take_number"):
        getattr(made, name).restype = ctypes.c_bool
    return made


class Terminal:
    """The terminal's context in C."""

    def __init__(self, shared: ctypes.CDLL, start: int = START) -> None:
        self._c = shared
        self._context = ctypes.create_string_buffer(shared.shim_context_size())
        crypto = ctypes.c_void_p(shared.shim_crypto())
        shared.oscore_init(self._context, crypto, SECRET, SERIAL.encode(), ctypes.c_uint32(start))

    def take_number(self) -> int | None:
        number = ctypes.c_uint64()
        taken = self._c.oscore_take_number(self._context, ctypes.byref(number))
        return number.value if taken else None

    def option(self, number: int) -> bytes:
        out = ctypes.create_string_buffer(64)
        length = self._c.oscore_request_option(self._context, ctypes.c_uint64(number), out)
        return out.raw[:length]

    def seal(self, number: int, plain: bytes, *, reply: bool = False) -> bytes:
        data = ctypes.create_string_buffer(plain, len(plain) + TAG)
        seal = self._c.oscore_seal_reply if reply else self._c.oscore_seal_request
        seal(self._context, ctypes.c_uint64(number), data, ctypes.c_size_t(len(plain)))
        return data.raw

    def open(self, option: bytes, sealed: bytes, *, reply_to: int | None = None) -> bytes | None:
        data = ctypes.create_string_buffer(sealed, len(sealed))
        opened = self._c.shim_open(
            self._context,
            ctypes.c_bool(reply_to is None),
            ctypes.c_uint64(reply_to or 0),
            option,
            ctypes.c_size_t(len(option)),
            data,
            ctypes.c_size_t(len(sealed)),
        )
        return data.raw[:-TAG] if opened else None


def _plaintext(message: aiocoap.Message) -> bytes:
    body = b"\xff" + message.payload if message.payload else b""
    return bytes((message.code,)) + message.opt.encode() + body


def _message(chance: random.Random, code: aiocoap.Code) -> aiocoap.Message:
    payload = chance.randbytes(chance.choice((0, 1, 40, 1024)))
    message = aiocoap.Message(code=code, payload=payload)
    if chance.random() < 0.7:
        message.opt.content_format = chance.choice((0, 42, 60))
    if code.is_request():
        message.opt.uri_path = ("file", str(chance.randrange(1000)))
    if chance.random() < 0.5:
        message.opt.block2 = (chance.randrange(1 << 10), False, 6)
    return message


# ---- Vectors of RFC 8613, Appendix C ----

RFC_SECRET = bytes.fromhex("0102030405060708090a0b0c0d0e0f10")
RFC_SALT = bytes.fromhex("9e7ca92223786340")
AES_CCM_16_64_128 = 10
AES_NONCE = 13
"""Bytes."""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("salt", "context", "ids", "keys", "iv"),
    [
        (
            RFC_SALT,
            None,
            (b"", b"\1"),
            ("f0910ed7295e6ad4b54fc793154302ff", "ffb14e093c94c9cac9471648b4f98710"),
            "4622d4dd6d944168eefb54987c",
        ),
        (
            b"",
            None,
            (b"\0", b"\1"),
            ("321b26943253c7ffb6003b0b64d74041", "e57b5635815177cd679ab4bcec9d7dda"),
            "be35ae297d2dace910c52e99f9",
        ),
        (
            RFC_SALT,
            bytes.fromhex("37cbf3210017a2d3"),
            (b"", b"\1"),
            ("af2a1300a5e95788b356336eeecd2b92", "e39a0c7c77b43f03b4b39ab9a268699f"),
            "2ca58fb85ff1b81c0b7181b85e",
        ),
    ],
    ids=["C.1", "C.2", "C.3"],
)
def test_keys_are_those_of_the_rfc(
    shared: ctypes.CDLL,
    salt: bytes,
    context: bytes | None,
    ids: tuple[bytes, bytes],
    keys: tuple[str, str],
    iv: str,
) -> None:
    def derive(id_: bytes, what: str, length: int) -> str:
        out = ctypes.create_string_buffer(length)
        size = ctypes.c_size_t
        assert shared.shim_derive(
            RFC_SECRET, size(len(RFC_SECRET)), salt, size(len(salt)),
            context, size(len(context or b"")), ctypes.c_uint8(AES_CCM_16_64_128),
            id_, size(len(id_)), what.encode(), out, size(length),
        )  # fmt: skip
        return out.raw.hex()

    assert tuple(derive(id_, "Key", 16) for id_ in ids) == keys
    assert derive(b"", "IV", AES_NONCE) == iv


@pytest.mark.slow
@pytest.mark.parametrize(
    ("iv", "id_", "number", "nonce"),
    [
        ("4622d4dd6d944168eefb54987c", b"", 0, "4622d4dd6d944168eefb54987c"),
        ("4622d4dd6d944168eefb54987c", b"\1", 0, "4722d4dd6d944169eefb54987c"),
        ("4622d4dd6d944168eefb54987c", b"", 20, "4622d4dd6d944168eefb549868"),
        ("be35ae297d2dace910c52e99f9", b"\0", 20, "bf35ae297d2dace910c52e99ed"),
    ],
    ids=["C.1.1", "C.1.2", "C.4", "C.5"],
)
def test_nonces_are_those_of_the_rfc(
    shared: ctypes.CDLL, iv: str, id_: bytes, number: int, nonce: str
) -> None:
    out = ctypes.create_string_buffer(AES_NONCE)
    size = ctypes.c_size_t
    shared.oscore_nonce(
        bytes.fromhex(iv), size(AES_NONCE), id_, size(len(id_)), ctypes.c_uint64(number), out
    )
    assert out.raw.hex() == nonce


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kid", "associated"),
    [
        (b"", "8368456e63727970743040488501810a40411440"),
        (b"\0", "8368456e63727970743040498501810a4100411440"),
    ],
    ids=["C.4", "C.5"],
)
def test_what_is_authenticated_is_that_of_the_rfc(
    shared: ctypes.CDLL, kid: bytes, associated: str
) -> None:
    out = ctypes.create_string_buffer(32)
    length = shared.oscore_associate(
        ctypes.c_uint8(AES_CCM_16_64_128), kid, ctypes.c_size_t(len(kid)), ctypes.c_uint64(20), out
    )
    assert out.raw[:length].hex() == associated


# ---- Against aiocoap ----


@pytest.mark.slow
def test_a_request_of_the_terminal_and_its_reply(shared: ctypes.CDLL) -> None:
    chance = random.Random(1)
    terminal, server = Terminal(shared), Context(terminal=False, number=300)
    for count in range(40):
        plain = _message(chance, aiocoap.POST)
        number = terminal.take_number()
        assert number == (START << NUMBER_BITS) + count
        outer = aiocoap.Message(code=aiocoap.POST, payload=terminal.seal(number, _plaintext(plain)))
        outer.opt.oscore = terminal.option(number)
        outer.direction = Direction.INCOMING
        opened, request_id = server.unprotect(outer)
        assert _plaintext(opened) == _plaintext(plain)
        answer = _message(chance, aiocoap.CONTENT)
        answer.direction = Direction.OUTGOING
        if count % 2 == 0:  # with a number of the server's own
            request_id.can_reuse_nonce = False
        sealed, _ = server.protect(answer, request_id)
        option = sealed.opt.oscore
        assert bool(option) == (count % 2 == 0)
        assert terminal.open(option, sealed.payload, reply_to=number + 1) is None
        assert terminal.open(option, sealed.payload, reply_to=number) == _plaintext(answer)


@pytest.mark.slow
def test_a_request_of_the_server_and_its_reply(shared: ctypes.CDLL) -> None:
    chance = random.Random(2)
    terminal, server = Terminal(shared), Context(terminal=False, number=250)
    _open_window(terminal, server)
    for _ in range(40):
        plain = _message(chance, aiocoap.POST)
        plain.direction = Direction.OUTGOING
        outer, request_id = server.protect(plain, kid_context=False)
        number = int.from_bytes(request_id.partial_iv, "big")
        assert terminal.open(outer.opt.oscore, outer.payload) == _plaintext(plain)
        assert terminal.open(outer.opt.oscore, outer.payload) is None, "a replay"
        answer = _message(chance, aiocoap.CHANGED)
        sealed = aiocoap.Message(
            code=aiocoap.CHANGED, payload=terminal.seal(number, _plaintext(answer), reply=True)
        )
        sealed.opt.oscore = b""
        sealed.direction = Direction.INCOMING
        assert _plaintext(server.unprotect(sealed, request_id)[0]) == _plaintext(answer)


def _open_window(terminal: Terminal, server: Context) -> None:
    """Have a request of the terminal answered with a number of the server's."""
    number = terminal.take_number()
    assert number is not None
    outer = aiocoap.Message(code=aiocoap.POST, payload=terminal.seal(number, b"\2"))
    outer.opt.oscore = terminal.option(number)
    outer.direction = Direction.INCOMING
    _, request_id = server.unprotect(outer)
    request_id.can_reuse_nonce = False
    answer = aiocoap.Message(code=aiocoap.CHANGED)
    answer.direction = Direction.OUTGOING
    sealed, _ = server.protect(answer, request_id)
    assert terminal.open(sealed.opt.oscore, sealed.payload, reply_to=number) == b"\x44"


def _request(server: Context) -> tuple[bytes, bytes]:
    plain = aiocoap.Message(code=aiocoap.POST, payload=b"text")
    plain.direction = Direction.OUTGOING
    outer, _ = server.protect(plain, kid_context=False)
    return outer.opt.oscore, outer.payload


@pytest.mark.slow
def test_nothing_from_before_this_start_is_taken(shared: ctypes.CDLL) -> None:
    server = Context(terminal=False, number=100)
    terminal = Terminal(shared)
    old = [_request(server) for _ in range(3)]
    assert all(terminal.open(*request) is None for request in old)
    _open_window(terminal, server)
    assert all(terminal.open(*request) is None for request in old)
    assert terminal.open(*_request(server)) is not None


@pytest.mark.slow
def test_requests_are_taken_in_any_order_and_once(shared: ctypes.CDLL) -> None:
    chance = random.Random(3)
    terminal, server = Terminal(shared), Context(terminal=False, number=100)
    _open_window(terminal, server)
    for _ in range(20):
        made = [_request(server) for _ in range(16)]
        chance.shuffle(made)
        assert all(terminal.open(*request) is not None for request in made)
        assert all(terminal.open(*request) is None for request in made)
    late = _request(server)
    for _ in range(32):
        assert terminal.open(*_request(server)) is not None
    assert terminal.open(*late) is None, "older than the window"


@pytest.mark.slow
def test_numbers_of_a_start_end_and_are_none_without_a_start(shared: ctypes.CDLL) -> None:
    terminal, last = Terminal(shared, 1), None
    for _ in range(1 << NUMBER_BITS):
        last = terminal.take_number()
    assert last == (2 << NUMBER_BITS) - 1
    assert terminal.take_number() is None
    assert Terminal(shared, 0).take_number() is None
    assert Terminal(shared, (1 << NUMBER_BITS) - 1).take_number() is not None


@pytest.mark.slow
@pytest.mark.parametrize(
    "option",
    [b"\0", b"\x20", b"\x06" + bytes(6), b"\x01", b"\x02\0\1", b"\x11\1", b"\x11\1\2s", b"\1\1x"],
    ids=["no flags", "reserved", "long", "short", "zeros", "no context", "short context", "more"],
)
def test_a_malformed_option_is_refused(shared: ctypes.CDLL, option: bytes) -> None:
    read = ctypes.create_string_buffer(256)
    shared.oscore_read_option.restype = ctypes.c_bool
    assert not shared.oscore_read_option(read, option, ctypes.c_size_t(len(option)))
    assert shared.oscore_read_option(read, b"\x01\1", ctypes.c_size_t(2))


@pytest.mark.slow
def test_hostile_bytes_do_not_open(
    toolchain: Toolchain, build: Callable[..., Path], tmp_path: Path
) -> None:
    """With libsodium as on the terminal, under sanitizers."""
    more = [*_sodium_objects(toolchain, tmp_path), str(LIB.parent / "board" / "protect.c")]
    program = build("board/fuzz_oscore", "fuzz_driver", more=more)
    server = Context(terminal=False, number=100)
    files = []
    for number in range(4):
        option, sealed = _request(server)
        files.append(tmp_path / f"seed{number}")
        files[-1].write_bytes(bytes((len(option),)) + option + sealed)
    done = run([str(program), "20000", "1", *map(str, files)])
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{20000 + len(files)} inputs\n"
