"""What no peer of the terminal sees: the locks of its NOR, and what an update does to its SRAM."""

from __future__ import annotations

import re
import struct
from typing import TYPE_CHECKING

from unbrick.campaign.verdict import Violation
from unbrick.engine.base import LockingFlash
from unbrick.layout import reference_layout

if TYPE_CHECKING:
    from unbrick.engine.base import TracedEngine
    from unbrick.reference.story import Story

WINDOW = 2048
"""Bytes that a task of the application writes at once: words that count up."""

_PROTECTED = ("boot", "identity", "starts")
_STEADY = struct.Struct(f"<{WINDOW // 4}I")


class TerminalWatch:
    """Looks at the terminal whenever it has said something.

    - A program that has registered was started by boot, and boot locks down itself, the identity
      and the counter of starts before it starts one.
    - From when an update has secured its memory until the image is checked, nothing else of the
      pool changes but what running tasks write.

    Args:
        story: the session.
        engine: its terminal.
    """

    def __init__(self, story: Story, engine: TracedEngine) -> None:
        self._console, self._engine = story.bench.console, engine
        self._looked = self._seen = 0
        layout = reference_layout()
        self._locked = [layout.partition(name).offset for name in _PROTECTED]
        self._base, self._size = layout.pool.base, layout.pool.size
        self._secured: tuple[int, int] | None = None
        self._before = b""

    def step(self, _now: float) -> None:
        """Look at what has been said since.

        Raises:
            Violation: the terminal does what it must not do.
        """
        text = self._console.text
        if len(text) == self._looked:
            return
        self._looked, end = len(text), text.rfind("\n") + 1
        if end <= self._seen:
            return  # No whole line is new.
        new, self._seen = text[self._seen : end], end
        if "link: registered" in new.rpartition("boot: ")[2]:
            self._check_locks()
        secured = re.findall(r"update: secured (\d+) bytes at (0x[0-9a-f]+)", new)
        if secured:
            size, start = int(secured[-1][0]), int(secured[-1][1], 16)
            self._secured = start - self._base, size
            self._before = self._read()
        elif "boot: " in new or "update: failed" in new:
            self._secured = None
        elif "update: checked" in new and self._secured:
            self._check_memory(*self._secured)
            self._secured, self._before = None, b""

    def _read(self) -> bytes:
        return self._engine.read_memory(self._base, self._size)

    def _check_locks(self) -> None:
        if not isinstance(self._engine, LockingFlash):
            return
        for name, offset in zip(_PROTECTED, self._locked, strict=True):
            if not self._engine.is_locked_down(offset):
                raise Violation("unprotected", f"a program runs, and {name} is not locked down")

    def _check_memory(self, start: int, size: int) -> None:
        """Of the pool but for ``size`` bytes from ``start`` on only tasks change anything."""
        before, after = bytearray(self._before), bytearray(self._read())
        end = start + -(-size // 64) * 64
        before[start:end] = after[start:end] = bytes(end - start)
        for at in range(0, self._size, WINDOW):
            old, new = before[at : at + WINDOW], after[at : at + WINDOW]
            if old != new and not _is_of_a_task(old, new):
                where = self._base + at
                text = f"the update has changed memory near {where:#x} that it has not secured"
                raise Violation("overwritten", text)


def _is_of_a_task(old: bytearray, new: bytearray) -> bool:
    """Whether all that is new in a window counts up from its first word."""
    now = _STEADY.unpack(new)
    if now[0] + len(now) <= 2**32 and now == tuple(range(now[0], now[0] + len(now))):
        return True  # All of it does, as nearly always: what follows is ten times as slow.
    then = _STEADY.unpack(old)
    return all(
        word == (now[0] + number) % 2**32 or word == then[number] for number, word in enumerate(now)
    )
