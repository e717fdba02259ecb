"""XMODEM with CRC-16: blocks of 128 bytes, each confirmed.

Source: Chuck Forsberg, *XMODEM/YMODEM Protocol Reference*, 1988-10-14.
"""

from __future__ import annotations

import binascii
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

    from unbrick.target.console import DriverConsole, Wait
    from unbrick.target.description import FirmwareFile

SOH, EOT, ACK, CAN, WANT_CRC = b"\x01", b"\x04", b"\x06", b"\x18", b"C"
BLOCK_SIZE = 128
PAD = b"\x1a"
START_TIMEOUT_S = 60.0
ANSWER_TIMEOUT_S = 10.0
TRIES = 10


def update(
    console: DriverConsole, payload: FirmwareFile | None, _options: Mapping[str, Any]
) -> Generator[Wait, Any, None]:
    """Send the file to a receiver that asks for CRC-16."""
    data = payload.data if payload else b""
    yield console.until(WANT_CRC, START_TIMEOUT_S)
    for number, at in enumerate(range(0, len(data), BLOCK_SIZE), 1):
        block = data[at : at + BLOCK_SIZE].ljust(BLOCK_SIZE, PAD)
        head = SOH + bytes((number & 0xFF, ~number & 0xFF))
        crc = binascii.crc_hqx(block, 0).to_bytes(2, "big")
        yield from _send(console, head + block + crc, f"block {number}")
    yield from _send(console, EOT, "the end")


def _send(console: DriverConsole, what: bytes, name: str) -> Generator[Wait, Any, None]:
    """Send something until it is confirmed."""
    for _ in range(TRIES):
        console.write(what)
        answer = yield console.read(1, ANSWER_TIMEOUT_S)
        while answer == WANT_CRC:  # it was under way before the first block came
            answer = yield console.read(1, ANSWER_TIMEOUT_S)
        if answer == ACK:
            return
        if answer == CAN:
            console.give_up(f"the receiver cancelled the transfer at {name}")
    console.give_up(f"the receiver did not confirm {name} in {TRIES} tries")
