"""Faults of the wireless link, all of them from one seed.

The fate of the n-th message of a direction depends on the seed, the direction and n alone. It does
not depend on the time, or on the fate of other messages. Byte noise depends on the position of the
byte in the stream, not on how the stream is cut into pieces.
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, fields
from enum import Enum

from unbrick.errors import SetupError
from unbrick.wire import slipmux


class Direction(Enum):
    """Which way a message goes: up is from the terminal to the server."""

    UP = "up"
    DOWN = "down"


@dataclass(frozen=True)
class FaultPlan:
    """How bad the link is. Probabilities are from 0 to 1, times are seconds.

    Attributes:
        drop: a message is lost.
        duplicate: a message arrives twice.
        reorder: a message is held back for ``hold`` so that later ones overtake it.
        corrupt: a bit of the frame flips on the way; the FCS finds it.
        truncate: the frame ends early; the FCS finds it.
        garble: a byte of the message changes where no FCS protects it.
        noise: a byte of the stream is replaced by another.
        delay: every message is late by up to this long.
        hold: how long a message is held back for reordering.
        cuts: times (start, end) in which nothing gets through.
        only: the direction that is bad; None means both.
    """

    drop: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0
    corrupt: float = 0.0
    truncate: float = 0.0
    garble: float = 0.0
    noise: float = 0.0
    delay: float = 0.0
    hold: float = 0.3
    cuts: tuple[tuple[float, float], ...] = ()
    only: Direction | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            highest = float("inf") if field.name in ("delay", "hold") else 1.0
            if isinstance(value, float) and not 0.0 <= value <= highest:
                raise SetupError(
                    f"the fault {field.name} cannot be {value}",
                    hint="probabilities are from 0 to 1, times are not negative",
                )


_NO_FAULTS = FaultPlan()


@dataclass(frozen=True)
class Delivery:
    """A frame that arrives ``after`` seconds: bytes on the link, with END before and after."""

    after: float
    frame: bytes


class Faults:
    """Spoils the messages of one terminal's link as the plan and the seed say.

    Attributes:
        counts: how often each fault struck, by name.
    """

    def __init__(self, plan: FaultPlan | None = None, seed: int = 0) -> None:
        self.plan = plan or FaultPlan()
        self.counts: Counter[str] = Counter()
        self._seed = seed
        self._sent: Counter[Direction] = Counter()
        self._noise = {
            direction: random.Random(f"{seed}/noise/{direction.value}") for direction in Direction
        }
        self._quiet = {direction: self._gap(direction) for direction in Direction}

    def carry(self, direction: Direction, message: bytes, now: float) -> list[Delivery]:
        """The frames of slipmux that arrive for a CoAP message.

        Raises:
            LinkError: the message is too long for a frame.
        """
        plan = self.plan
        index = self._sent[direction]
        self._sent[direction] += 1
        if plan == _NO_FAULTS or plan.only not in (None, direction):
            return [Delivery(0.0, slipmux.encode(message))]
        if any(start <= now < end for start, end in plan.cuts):
            self.counts["cut off"] += 1
            return []
        rng = random.Random(f"{self._seed}/{direction.value}/{index}")
        if self._strikes(rng, "drop", plan.drop):
            return []
        copies = 2 if self._strikes(rng, "duplicate", plan.duplicate) else 1
        return [self._copy(rng, message) for _ in range(copies)]

    def spoil(self, direction: Direction, data: bytes) -> bytes:
        """Bytes of the stream with noise in them. Their number is the same."""
        if not self.plan.noise or self.plan.only not in (None, direction):
            return data
        spoiled = bytearray(data)
        at = self._quiet[direction]
        while at < len(spoiled):
            spoiled[at] ^= self._noise[direction].randrange(1, 256)
            self.counts["noise"] += 1
            at += 1 + self._gap(direction)
        self._quiet[direction] = at - len(spoiled)
        return bytes(spoiled)

    def _gap(self, direction: Direction) -> int:
        """The number of bytes before the next one that is hit."""
        rng, gap = self._noise[direction], 0
        while self.plan.noise and rng.random() >= self.plan.noise:
            gap += 1
        return gap

    def _strikes(self, rng: random.Random, name: str, probability: float) -> bool:
        struck = rng.random() < probability
        if struck:
            self.counts[name] += 1
        return struck

    def _copy(self, rng: random.Random, message: bytes) -> Delivery:
        plan = self.plan
        after = rng.random() * plan.delay
        if self._strikes(rng, "reorder", plan.reorder):
            after += plan.hold
        if message and self._strikes(rng, "garble", plan.garble):
            at = rng.randrange(len(message))
            changed = message[at] ^ rng.randrange(1, 256)
            message = message[:at] + bytes((changed,)) + message[at + 1 :]
        frame = slipmux.encode(message)
        if self._strikes(rng, "corrupt", plan.corrupt):
            # Never one of the ENDs: losing one would hit two messages.
            at = rng.randrange(1, len(frame) - 1)
            changed = frame[at] ^ (1 << rng.randrange(8))
            frame = frame[:at] + bytes((changed,)) + frame[at + 1 :]
        if self._strikes(rng, "truncate", plan.truncate):
            frame = frame[: rng.randrange(1, len(frame) - 1)] + frame[-1:]
        return Delivery(after, frame)
