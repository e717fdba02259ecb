"""The YMODEM sender against a receiver of our own in virtual time, and against lrzsz's `rb`."""

from __future__ import annotations

import binascii
import os
import random
import selectors
import shutil
import subprocess
import time
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from patience import PATIENCE_S
from ymodem_receiver import ACK, CAN, EOT, NAK, SOH, STX, Receiver

from unbrick.wire.ymodem import CANCEL, Sender, SenderPhase

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SIZES = [0, 1, 127, 128, 129, 1023, 1024, 1025, 1152, 300_000]


def quiet(data: bytes) -> bytes:
    return data


def noise(rng: random.Random, share: float) -> Callable[[bytes], bytes]:
    """Flips a bit in, drops, or adds a byte to a share of the chunks that pass."""

    def disturb(data: bytes) -> bytes:
        if not data or rng.random() >= share:
            return data
        at = rng.randrange(len(data))
        kind = rng.randrange(3)
        if kind == 0:
            return data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]
        return data[:at] + data[at + 1 :] if kind == 1 else data[:at] + b"\x5a" + data[at:]

    return disturb


def converse(
    sender: Sender,
    receiver: Receiver,
    there: Callable[[bytes], bytes] = quiet,
    back: Callable[[bytes], bytes] = quiet,
    limit: float = 2000.0,
) -> float:
    """Let the two talk in virtual time until both are done; how long that took, in seconds."""
    now, answer = 0.0, b""
    while now < limit and not sender.finished:
        output = there(sender.step(answer, now))
        now += 0.05
        answer = back(receiver.step(output, now))
    return now


@pytest.mark.parametrize("size", SIZES)
def test_a_file_arrives(size: int) -> None:
    data = random.Random(size).randbytes(size)
    sender, receiver = Sender("image.bin", data, 0.0), Receiver(0.0)
    converse(sender, receiver)
    assert sender.error is None
    assert sender.phase is SenderPhase.DONE
    assert (receiver.finished, receiver.name) == (True, "image.bin")
    assert receiver.data == data
    assert sender.acknowledged == size
    assert sender.repeats == 0


@pytest.mark.parametrize("known", [False, True])
def test_on_a_bad_line_long_blocks_make_way_for_short_ones(known: bool) -> None:
    """One byte of 1,000 is spoiled: of long blocks a third comes through, of short ones most."""
    rng = random.Random(1)
    lengths: list[int] = []

    def spoil(data: bytes) -> bytes:
        lengths.append(len(data))
        return bytes(byte ^ 0xFF if rng.random() < 0.001 else byte for byte in data)

    data = rng.randbytes(30_000)
    sender, receiver = Sender("image.bin", data, 0.0, short=known), Receiver(0.0)
    converse(sender, receiver, spoil)
    assert sender.error is None
    assert receiver.data == data
    blocks = [length for length in lengths if length > 1]
    assert blocks.count(133) > 200
    assert (1029 in blocks) is not known


@pytest.mark.parametrize("seed", range(20))
def test_a_file_arrives_over_a_noisy_line_to_the_terminal(seed: int) -> None:
    rng = random.Random(seed)
    data = rng.randbytes(40_000)
    sender, receiver = Sender("image.bin", data, 0.0), Receiver(0.0)
    converse(sender, receiver, there=noise(rng, 0.15))
    assert sender.error is None
    assert receiver.data == data
    assert sender.repeats > 0


@pytest.mark.parametrize("seed", range(20))
def test_with_noise_both_ways_no_success_is_claimed_that_is_none(seed: int) -> None:
    rng = random.Random(seed)
    data = rng.randbytes(20_000)
    sender, receiver = Sender("image.bin", data, 0.0), Receiver(0.0)
    converse(sender, receiver, noise(rng, 0.1), noise(rng, 0.1))
    assert sender.finished
    if sender.phase is SenderPhase.DONE:
        assert receiver.data == data


@pytest.mark.parametrize("lost", range(12))
def test_any_one_lost_answer_is_overcome(lost: int) -> None:
    data = random.Random(lost).randbytes(3000)
    sender, receiver = Sender("image.bin", data, 0.0), Receiver(0.0)
    answers = iter(range(1000))

    def lose(answer: bytes) -> bytes:
        return b"" if answer and next(answers) == lost else answer

    converse(sender, receiver, back=lose)
    assert sender.error is None
    assert receiver.data == data
    assert sender.phase is SenderPhase.DONE


@pytest.mark.parametrize("lost", range(9))
def test_any_one_lost_block_is_overcome(lost: int) -> None:
    data = random.Random(lost).randbytes(3000)
    sender, receiver = Sender("image.bin", data, 0.0), Receiver(0.0)
    blocks = iter(range(1000))

    def lose(block: bytes) -> bytes:
        return b"" if block and next(blocks) == lost else block

    converse(sender, receiver, there=lose)
    assert sender.error is None
    assert receiver.data == data


def test_blocks_are_as_the_protocol_reference_says() -> None:
    sender = Sender("name", b"x" * 1025, 0.0)
    header = sender.step(b"C", 0.0)
    assert header[:3] == bytes([SOH, 0, 0xFF])
    assert header[3:13] == b"name\x001025\x00"
    assert header[-2:] == binascii.crc_hqx(header[3:-2], 0).to_bytes(2, "big")
    first = sender.step(bytes([ACK]) + b"C", 0.1)
    assert first[:4] == bytes([STX, 1, 0xFE]) + b"x"
    assert len(first) == 1029
    second = sender.step(bytes([ACK]), 0.2)
    assert second[:5] == bytes([SOH, 2, 0xFD]) + b"x\x1a"
    assert sender.step(bytes([NAK]), 0.3) == second
    assert sender.step(bytes([ACK]), 0.4) == bytes([EOT])
    assert sender.step(bytes([NAK]), 0.5) == bytes([EOT])
    end = sender.step(bytes([ACK]) + b"C", 0.6)
    assert end[:3] == bytes([SOH, 0, 0xFF])
    assert not any(end[3:])
    assert sender.step(bytes([ACK]) + b"\r\nrestoration: accepted", 0.7) == b""
    assert sender.rest == b"\r\nrestoration: accepted"
    assert sender.phase is SenderPhase.DONE


def test_text_instead_of_the_last_ack_ends_the_batch() -> None:
    sender = Sender("name", b"", 0.0)
    for answer in (b"C", b"\x06C", b"\x06C"):
        sender.step(answer, 0.0)
    assert sender.phase is SenderPhase.END
    sender.step(b"restoration: refused", 1.0)
    assert (sender.phase, sender.rest) == (SenderPhase.DONE, b"restoration: refused")


def test_impatient_prompts_are_not_answered_twice() -> None:
    sender = Sender("name", b"data", 0.0)
    assert len(sender.step(b"CCC", 0.0)) == 133
    assert sender.step(b"C", 0.1) == b""
    assert len(sender.step(b"C", 1.0)) == 133


def test_one_can_is_noise_and_two_cancel() -> None:
    sender = Sender("name", b"data", 0.0)
    sender.step(b"C", 0.0)
    sender.step(bytes([CAN]), 0.1)
    sender.step(bytes([ACK, CAN]), 0.2)
    assert not sender.finished
    assert sender.step(bytes([CAN]), 0.3) == CANCEL
    assert "cancelled" in str(sender.error)
    assert sender.deadline is None


def test_silence_ends_with_an_error_and_a_hint() -> None:
    sender = Sender("name", b"data", 0.0, start_timeout=5.0)
    assert sender.deadline == 5.0
    assert sender.step(b"", 4.9) == b""
    assert sender.step(b"", 5.0) == CANCEL
    assert sender.error is not None
    assert "no YMODEM receiver answers" in str(sender.error)
    assert sender.error.hint


def test_a_receiver_that_falls_silent_is_given_up() -> None:
    sender, now = Sender("name", bytes(5000), 0.0), 0.0
    for answer in (b"C", b"\x06C", b"\x06"):
        sender.step(answer, 0.0)
    while sender.deadline is not None:
        now = sender.deadline
        sender.step(b"", now)
    assert "did not confirm a block in 11 tries, while sending the file" in str(sender.error)
    assert sender.acknowledged == 1024
    assert now < 300


def test_a_receiver_that_starts_over_is_noticed() -> None:
    sender = Sender("name", bytes(5000), 0.0)
    for answer in (b"C", b"\x06C", b"\x06"):
        sender.step(answer, 0.0)
    for second in (1, 2, 3):
        sender.step(b"C", second)
    assert "started over" in str(sender.error)


@given(st.lists(st.tuples(st.binary(max_size=20), st.floats(0, 5)), max_size=60))
def test_no_answers_crash_the_sender(answers: list[tuple[bytes, float]]) -> None:
    sender, now = Sender("näme\n", bytes(3000), 0.0), 0.0
    for answer, pause in answers:
        now += pause
        output = sender.step(answer, now)
        assert len(output) <= 21 * 1029
        assert sender.finished == (sender.deadline is None)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("rb") is None, reason="rb of lrzsz is not installed")
@pytest.mark.parametrize("seed", [None, 3])
def test_lrzsz_receives_the_file(tmp_path: Path, seed: int | None) -> None:
    rng = random.Random(seed or 0)
    data = rng.randbytes(12_000)
    disturb = quiet if seed is None else noise(rng, 0.2)
    sender = Sender("image.bin", data, time.monotonic())
    with subprocess.Popen(
        ["rb", "--quiet", "--binary"],
        cwd=tmp_path,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as rb, selectors.DefaultSelector() as selector:  # fmt: skip
        assert rb.stdin is not None
        assert rb.stdout is not None
        try:
            selector.register(rb.stdout, selectors.EVENT_READ)
            while not sender.finished:
                ready = selector.select(0.5)
                received = os.read(rb.stdout.fileno(), 4096) if ready else b""
                os.write(rb.stdin.fileno(), disturb(sender.step(received, time.monotonic())))
            rb.stdin.close()
            assert rb.wait(PATIENCE_S) == 0
        finally:
            rb.kill()
    assert sender.error is None
    assert (tmp_path / "image.bin").read_bytes() == data
    assert (sender.repeats > 0) == (seed is not None)
