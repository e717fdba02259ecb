"""Keeps a virtual-time engine in step with the clock, for people and other programs."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from unbrick.engine.base import Engine

if TYPE_CHECKING:
    from collections.abc import Callable

    from unbrick.engine.base import FirmwareFault, FlashTrace, MemoryAccess, WearingFlash

SLICE_S = 0.005  # of the clock, between two looks at the world
MAX_BEHIND_S = 0.25  # behind the clock: what is still caught up with


class PacedEngine(Engine):
    """``inner``, whose time passes ``speed`` times as fast as the clock and no faster."""

    def __init__(self, inner: Engine, speed: float = 1.0) -> None:
        self.inner, self._speed = inner, speed
        self.name, self.board = inner.name, inner.board
        self.wire, self.radio = inner.wire, inner.radio
        self._anchor()

    def _anchor(self) -> None:
        self._clock, self._virtual = time.monotonic(), self.inner.now

    @property
    def flash_trace(self) -> FlashTrace | None:
        return self.inner.flash_trace

    @property
    def memory_access(self) -> MemoryAccess | None:
        return self.inner.memory_access

    @property
    def wearing_flash(self) -> WearingFlash | None:
        return self.inner.wearing_flash

    @property
    def powered(self) -> bool:
        return self.inner.powered

    @property
    def now(self) -> float:
        return self.inner.now

    @property
    def faults(self) -> list[FirmwareFault]:
        return self.inner.faults

    @property
    def overruns(self) -> tuple[int, ...]:
        return self.inner.overruns

    def advance(self, seconds: float) -> None:
        self.inner.advance(min(seconds, SLICE_S * self._speed))
        ahead = (self.inner.now - self._virtual) / self._speed
        ahead -= time.monotonic() - self._clock
        if ahead > 0:
            time.sleep(ahead)
        elif ahead < -MAX_BEHIND_S:
            self._anchor()

    def power_on(self) -> None:
        self.inner.power_on()

    def power_off(self) -> None:
        self.inner.power_off()

    def read_nor(self) -> bytes:
        return self.inner.read_nor()

    def load_nor(self, image: bytes) -> None:
        self.inner.load_nor(image)

    def gdb_server(self, port: int, idle: Callable[[], None]) -> int:
        return self.inner.gdb_server(port, idle)

    def close(self) -> None:
        self.inner.close()
