"""XCP on a serial line, as OpenBLT's boot programs speak it: erase, program, start.

Packets have their length in front, one byte. Source: ASAM MCD-1 XCP 1.1, part 2 (commands) and
part 3 (SxI, header LEN BYTE).

Options: ``connect_s``, for how long to ask until the device answers (5); ``mode`` of CONNECT (0).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

    from unbrick.target.console import DriverConsole, Wait
    from unbrick.target.description import FirmwareFile

CONNECT, SET_MTA, PROGRAM_START, PROGRAM_CLEAR = 0xFF, 0xF6, 0xD2, 0xD1
PROGRAM, PROGRAM_RESET = 0xD0, 0xCF
POSITIVE = 0xFF
ASK_AGAIN_S = 0.1
ANSWER_TIMEOUT_S = 2.0
ERASE_TIMEOUT_S = 30.0
_HEADER_SIZE = 2
"""Bytes of a PROGRAM packet before its data: command and number of elements."""


def update(
    console: DriverConsole, payload: FirmwareFile | None, options: Mapping[str, Any]
) -> Generator[Wait, Any, None]:
    """Program what the file puts into the flash, and start it."""
    packet_size = yield from _connect(console, options)
    yield from _ask(console, bytes([PROGRAM_START]), "PROGRAM_START")
    pieces = payload.pieces if payload else ()
    for piece in pieces:
        yield from _point(console, piece.address)
        clear = bytes([PROGRAM_CLEAR, 0, 0, 0]) + len(piece.data).to_bytes(4, "little")
        yield from _ask(console, clear, "PROGRAM_CLEAR", ERASE_TIMEOUT_S)
    for piece in pieces:
        yield from _point(console, piece.address)
        step = packet_size - _HEADER_SIZE
        for at in range(0, len(piece.data), step):
            part = piece.data[at : at + step]
            yield from _ask(console, bytes([PROGRAM, len(part)]) + part, "PROGRAM")
    yield from _ask(console, bytes([PROGRAM, 0]), "PROGRAM, which ends the programming")
    _send(console, bytes([PROGRAM_RESET]))


def _connect(console: DriverConsole, options: Mapping[str, Any]) -> Generator[Wait, Any, int]:
    """Ask until there is an answer; gives the bytes of a packet."""
    until = console.now + float(options.get("connect_s", 5.0))
    while True:
        _send(console, bytes([CONNECT, int(options.get("mode", 0))]))
        answer = yield from _take(console, ASK_AGAIN_S)
        if len(answer) >= 4 and answer[0] == POSITIVE:
            return max(_HEADER_SIZE + 1, answer[3])
        if console.now >= until:
            console.give_up("the device does not answer CONNECT")


def _point(console: DriverConsole, address: int) -> Generator[Wait, Any, None]:
    yield from _ask(console, bytes([SET_MTA, 0, 0, 0]) + address.to_bytes(4, "little"), "SET_MTA")


def _ask(
    console: DriverConsole, packet: bytes, name: str, within: float = ANSWER_TIMEOUT_S
) -> Generator[Wait, Any, None]:
    _send(console, packet)
    answer = yield from _take(console, within)
    if not answer:
        console.give_up(f"the device does not answer {name}")
    if answer[0] != POSITIVE:
        console.give_up(f"the device refuses {name}: {answer.hex(' ')}")


def _send(console: DriverConsole, packet: bytes) -> None:
    console.write(bytes([len(packet)]) + packet)


def _take(console: DriverConsole, within: float) -> Generator[Wait, Any, bytes]:
    """The next packet; empty: none came whole."""
    length = yield console.read(1, within)
    if not length:
        return b""
    packet: bytes = yield console.read(length[0], within)
    return packet if len(packet) == length[0] else b""
