"""Our YMODEM sender against the receiver of the terminal's boot, compiled for the host."""

from __future__ import annotations

import ctypes
import random
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from unbrick.wire.ymodem import Sender, SenderPhase

if TYPE_CHECKING:
    from collections.abc import Callable

LIB = Path(__file__).parents[1] / "firmware" / "lib"
DONE = 1
LIMIT = 1 << 20

_SEND = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.POINTER(ctypes.c_uint8), ctypes.c_size_t)
_BEGIN = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_bool, ctypes.c_uint32
)
_DATA = ctypes.CFUNCTYPE(
    ctypes.c_int,
    ctypes.c_void_p,
    ctypes.c_uint32,
    ctypes.POINTER(ctypes.c_uint8),
    ctypes.c_size_t,
)


class Callbacks(ctypes.Structure):
    """`struct ymodem_callbacks`."""

    _fields_ = (
        ("send", _SEND),
        ("begin", _BEGIN),
        ("data", _DATA),
        ("ctx", ctypes.c_void_p),
    )


class FirmwareReceiver:
    """The receiver of `firmware/lib/ymodem.c`; its status is its first field."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self.name = b""
        self.data = bytearray()
        self._library = library
        self._answer = b""
        self._state = ctypes.create_string_buffer(4096)
        self._callbacks = Callbacks(_SEND(self._send), _BEGIN(self._begin), _DATA(self._store))
        library.ymodem_start(self._state, ctypes.byref(self._callbacks), LIMIT, ctypes.c_uint64(0))

    @property
    def status(self) -> int:
        return ctypes.c_int.from_buffer(self._state).value

    def step(self, received: bytes, now: float) -> bytes:
        time = ctypes.c_uint64(int(now * 1e6))
        self._library.ymodem_feed(self._state, received, ctypes.c_size_t(len(received)), time)
        self._library.ymodem_poll(self._state, time)
        answer, self._answer = self._answer, b""
        return answer

    def _send(self, _ctx: object, data: ctypes._Pointer[ctypes.c_uint8], length: int) -> None:
        self._answer += bytes(data[:length])

    def _begin(self, _ctx: object, name: bytes, known: bool, size: int) -> int:
        assert known
        self.name = name
        self.data = bytearray(size)
        return 0

    def _store(
        self, _ctx: object, offset: int, data: ctypes._Pointer[ctypes.c_uint8], length: int
    ) -> int:
        self.data[offset : offset + length] = bytes(data[:length])
        return 0


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    built = tmp_path_factory.mktemp("ymodem") / "ymodem.so"
    command = [sys.executable, "-m", "ziglang", "cc", "-shared", "-fPIC", "-O1", "-std=c11"]
    sources = [str(LIB / "ymodem.c"), str(LIB / "crc.c")]
    subprocess.run([*command, f"-I{LIB.parent}", "-o", str(built), *sources], check=True)
    return ctypes.CDLL(str(built))


def converse(
    library: ctypes.CDLL, data: bytes, disturb: Callable[[bytes], bytes]
) -> tuple[Sender, FirmwareReceiver]:
    sender, receiver = Sender("image.bin", data, 0.0), FirmwareReceiver(library)
    now, answer = 0.0, b""
    while not sender.finished and now < 2000.0:
        output = disturb(sender.step(answer, now))
        now += 0.05
        answer = receiver.step(output, now)
    return sender, receiver


@pytest.mark.parametrize("size", [1, 128, 129, 1024, 1025, 300_000])
def test_the_terminals_receiver_gets_the_file(library: ctypes.CDLL, size: int) -> None:
    data = random.Random(size).randbytes(size)
    sender, receiver = converse(library, data, lambda block: block)
    assert sender.phase is SenderPhase.DONE
    assert receiver.status == DONE
    assert bytes(receiver.data) == data
    assert receiver.name == b"image.bin"
    assert sender.repeats == 0


@pytest.mark.parametrize("seed", range(10))
def test_it_gets_it_over_a_noisy_line(library: ctypes.CDLL, seed: int) -> None:
    rng = random.Random(seed)
    data = rng.randbytes(30_000)

    def disturb(block: bytes) -> bytes:
        if not block or rng.random() >= 0.15:
            return block
        at = rng.randrange(len(block))
        return block[:at] + bytes([block[at] ^ 0x10]) + block[at + rng.randrange(1, 3) :]

    sender, receiver = converse(library, data, disturb)
    assert sender.error is None
    assert receiver.status == DONE
    assert bytes(receiver.data) == data
    assert sender.repeats > 0


def test_a_file_that_is_too_large_is_cancelled_by_the_terminal(library: ctypes.CDLL) -> None:
    sender, receiver = converse(library, bytes(LIMIT + 1), lambda block: block)
    assert "cancelled" in str(sender.error)
    assert receiver.status not in (0, DONE)
