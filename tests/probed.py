"""A terminal that runs the probe, or a program of a few instructions, on an emulator."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from patience import PATIENCE_S

from unbrick.engine.base import Engine
from unbrick.errors import EngineError
from unbrick.layout import reference_layout

LAYOUT = reference_layout()
# In ARM code, from the reset vector on: an undefined instruction in every vector, and a program
# that says R on UART0 and asks for a reset of the board (SYS_CFGCTRL).
LOOP_OF_EXCEPTIONS = struct.pack("<I", 0xE7F000F0) * 16
LOOP_OF_RESETS = struct.pack(
    "<13I",
    0xE59F001C,  # ldr r0, uart0
    0xE59F101C,  # ldr r1, enable
    0xE5801030,  # str r1, [r0, #0x30]
    0xE3A01052,  # mov r1, #'R'
    0xE5801000,  # str r1, [r0]
    0xE59F0010,  # ldr r0, cfgctrl
    0xE59F1010,  # ldr r1, reboot
    0xE5801000,  # str r1, [r0]
    0xEAFFFFFE,  # b .
    0x10009000,  # uart0
    0x00000301,  # enable
    0x100000A4,  # cfgctrl
    0xC0900000,  # reboot
)


def hear(engine: Engine, end: bytes) -> bytes:
    """All the terminal says up to and including ``end``."""
    return hear_until(engine, lambda said: said.endswith(end))


def hear_until(engine: Engine, enough: Callable[[bytes], bool]) -> bytes:
    """All the terminal says until it is enough."""
    said, deadline = b"", engine.now + PATIENCE_S
    while not enough(said):
        assert engine.now < deadline, said[-200:]
        engine.advance(1.0)
        said += engine.wire.read()
    return said


def runs(pid: int) -> bool:
    """Whether the process exists and is not just waiting to be reaped."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def check_power_off_loses_the_sram(engine: Engine) -> None:
    """Power off loses the SRAM and keeps the NOR."""
    engine.wire.write(b"e7s")
    first = hear(engine, b"\n")
    engine.wire.write(b"s")
    assert hear(engine, b"\n") == b"12345678\n" != first
    engine.power_off()
    assert not engine.powered
    engine.power_on()
    assert hear(engine, b"!\n") == b"!\n"
    engine.wire.write(b"sc")
    assert hear(engine, b"00000007\n") == first + b"00000007\n"
    assert engine.faults == []


def check_nobody_reads(engine: Engine) -> None:
    """A terminal that does not read does not block the bench."""
    engine.wire.write(b"h")  # it loops for ever
    for _ in range(40):
        engine.wire.write(b"-" * 100_000)
    engine.advance(0.01)
    assert engine.wire.read() == b""


def check_nor_is_replaced_only_without_power(engine: Engine) -> None:
    """Contents are put in without power alone, and what is behind them is blank."""
    with pytest.raises(EngineError, match="under power"):
        engine.load_nor(b"")
    engine.power_off()
    with pytest.raises(EngineError, match="bytes"):
        engine.load_nor(b"x" * (LAYOUT.board.nor.modelled + 1))
    engine.load_nor(b"short")
    assert engine.read_nor() == b"short" + b"\xff" * (LAYOUT.board.nor.modelled - 5)
