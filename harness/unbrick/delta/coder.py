"""The adaptive binary range coder of differential files: mixed predictions, integers only.

A few counters predict every decision, which is one bit. Their predictions are mixed in the logistic
domain, with weights that learn. The range coder codes the bit by the mixed prediction. Encoder and
decoder differ in one method, so one model drives both (``unbrick.delta.model``). The mathematics is
that of docs/delta-format.md and, bit for bit, of ``firmware/lib/delta.c``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from operator import mul

from unbrick.delta.format import truncated

MASK32 = 0xFFFFFFFF
TOP = 1 << 24
"""The range is kept at this or above."""

STRETCH_LIMIT = 2815
"""Logits are in units of 1/256 and no larger than this: 11.0."""
INPUTS = 6
"""Predictions that one decision mixes at most."""
WEIGHT_INITIAL = 19661
"""Weights are in units of 1/65536: 0.3."""
WEIGHT_LIMIT = (1 << 19) - 1
MIX_SHIFT = 14

LOG_TABLE = [round(4096 * math.log2(1 + i / 64)) for i in range(65)]
"""log2(1 + i/64) in units of 1/4096."""
SQUASH_TABLE = [min(65535, round(65536 / (1 + math.exp(-i / 4)))) for i in range(45)]
"""65536 / (1 + exp(-i/4))."""


def _log2(x: int) -> int:
    """log2 of 1..65535 in units of 1/4096."""
    exponent = x.bit_length() - 1
    mantissa = (x << (15 - exponent)) & 0x7FFF
    low, fraction = mantissa >> 9, mantissa & 511
    step = LOG_TABLE[low + 1] - LOG_TABLE[low]
    return (exponent << 12) + LOG_TABLE[low] + (step * fraction >> 9)


def stretch(p: int) -> int:
    """ln(p / (1 - p)) of a probability in units of 1/65536 (1..65535), in units of 1/256."""
    logit = (_log2(p) - _log2(65536 - p)) * 177 >> 12
    return max(-STRETCH_LIMIT, min(STRETCH_LIMIT, logit))


def squash(x: int) -> int:
    """The inverse of ``stretch``; 1..65535."""
    magnitude = abs(x)
    low, fraction = magnitude >> 6, magnitude & 63
    step = SQUASH_TABLE[low + 1] - SQUASH_TABLE[low]
    p = SQUASH_TABLE[low] + (step * fraction >> 6)
    return p if x >= 0 else 65536 - p


_STRETCH: list[int] = []
_SQUASH: list[int] = []


def _fill_tables() -> None:
    """Fill what the coders look up, once: a server that sends no difference needs none of it."""
    if not _STRETCH:
        _SQUASH[:] = [squash(x) for x in range(-STRETCH_LIMIT, STRETCH_LIMIT + 1)]
        _STRETCH[:] = [stretch(p or 1) for p in range(65536)]


COUNT_LIMIT = 127
_FLAG_RATE = [(1 << 17) // (2 * n + 3) for n in range(COUNT_LIMIT + 1)]
"""A counter that has seen n bits moves by 1/(n + 1.5) of the way, in units of 1/65536."""
SLOT_LIMIT = 15
SLOT_INITIAL = 0x8000
REPEATS = 3
REPEAT_LIMIT = 15


class Coder:
    """Counters and mixers: the common part of encoder and decoder.

    Args:
        flags: initial states of the counters for single decisions: probability of a 1 in units of
            2**-22 in the upper 22 bits, bits seen in the lower 10.
        repeat_flags: where those begin that tell how far a repeated byte is trusted.
        slots: log2 of how many counters the bits of bytes share.
        repeats: log2 of how many last bytes are remembered.
        mixers: sets of weights.
    """

    def __init__(
        self, flags: Sequence[int], repeat_flags: int, slots: int, repeats: int, mixers: int
    ) -> None:
        _fill_tables()
        self.flags = list(flags)
        self._repeat_flags = repeat_flags
        self._slots = [SLOT_INITIAL] * (1 << slots)
        self._slot_shift = 32 - slots
        self._repeats = [0] * (1 << repeats)
        self._repeat_shift = 32 - repeats
        self._weights = [[WEIGHT_INITIAL] * INPUTS for _ in range(mixers)]

    def code(self, p: int, bit: int) -> int:
        """One bit, 1 with the probability p/65536: the encoder's ``bit``, or the decoder's."""
        raise NotImplementedError

    def flag(self, contexts: Sequence[int], mixer: int, bit: int) -> int:
        """A single decision; ``contexts`` are numbers of flags."""
        flags = self.flags
        weights = self._weights[mixer]
        inputs = [_STRETCH[flags[c] >> 16] for c in contexts]
        p = _mixed(weights, inputs)
        bit = self.code(p, bit)
        _learn(weights, inputs, (bit << 16) - p)
        for c in contexts:
            flags[c] = _adapted(flags[c], bit)
        return bit

    def byte(
        self,
        contexts: Sequence[int],
        repeats: Sequence[int],
        mixer: int,
        value: int,
        *,
        known: bool = False,
    ) -> int:
        """A byte, from its highest bit down. A ``known`` byte is learned without being coded.

        ``contexts``, numbers of 32 bits, choose a slot for every bit. ``repeats``, such numbers,
        too, remember the byte that came last in that context.
        """
        slots, shift, flags = self._slots, self._slot_shift, self.flags
        weights = self._weights[mixer]
        memory = []
        for number, context in enumerate(repeats):
            hashed = context * 0x9E3779B1 & MASK32
            at, check = hashed >> self._repeat_shift, hashed >> 8 & 15
            entry = self._repeats[at]
            count = entry & 15 if entry >> 4 & 15 == check else 0
            flag = self._repeat_flags + number * 16 + count
            memory.append((at, check, count, entry >> 8, flag))
        node = 1
        for k in range(7, -1, -1):
            places = [((c + node * 0x9E3779B1) * 0x85EBCA6B & MASK32) >> shift for c in contexts]
            inputs = [_STRETCH[slots[i] & 0xFFF0 | 8] for i in places]
            trusted = []
            for _, _, count, last, flag in memory:
                if count and (256 | last) >> k + 1 == node:
                    expected = last >> k & 1
                    trusted.append((flag, expected))
                    logit = _STRETCH[flags[flag] >> 16]
                    inputs.append(logit if expected else -logit)
                else:
                    inputs.append(0)
            p = _mixed(weights, inputs)
            bit = value >> k & 1
            if not known:
                bit = self.code(p, bit)
            _learn(weights, inputs, (bit << 16) - p)
            for i in places:
                state = slots[i]
                n = state & 15
                half = state >> 4
                if bit:
                    half += (4095 - half) * _FLAG_RATE[n] >> 16
                else:
                    half -= half * _FLAG_RATE[n] >> 16
                slots[i] = half << 4 | (n + 1 if n < SLOT_LIMIT else n)
            for flag, expected in trusted:
                flags[flag] = _adapted(flags[flag], bit == expected)
            node = node << 1 | bit
        value = node & 255
        for at, check, count, last, _ in memory:
            again = min(count + 1, REPEAT_LIMIT) if count and last == value else 1
            self._repeats[at] = value << 8 | check << 4 | again
        return value


# These run for every bit. What is nearly always so is asked first: that is faster than a call.


def _adapted(state: int, bit: int) -> int:
    """A flag that has seen one more bit."""
    n = state & 1023
    p = state >> 10
    if bit:
        p += (0x3FFFFF - p) * _FLAG_RATE[n] >> 16
    else:
        p -= p * _FLAG_RATE[n] >> 16
    return p << 10 | (n + 1 if n < COUNT_LIMIT else n)


def _mixed(weights: Sequence[int], inputs: Sequence[int]) -> int:
    logit: int = sum(map(mul, weights, inputs)) >> 16
    if -STRETCH_LIMIT <= logit <= STRETCH_LIMIT:
        return _SQUASH[logit + STRETCH_LIMIT]
    return _SQUASH[0] if logit < 0 else _SQUASH[-1]


def _learn(weights: list[int], inputs: Sequence[int], error: int) -> None:
    for i, value in enumerate(inputs):
        weight = weights[i] + (value * error >> MIX_SHIFT)
        if not -WEIGHT_LIMIT <= weight <= WEIGHT_LIMIT:
            weight = -WEIGHT_LIMIT if weight < 0 else WEIGHT_LIMIT
        weights[i] = weight


class RangeEncoder(Coder):
    """Writes; ``finish`` gives the bytes."""

    _low = 0
    _range = MASK32
    _pending = 0
    _held: int | None = None

    def __init__(
        self, flags: Sequence[int], repeat_flags: int, slots: int, repeats: int, mixers: int
    ) -> None:
        super().__init__(flags, repeat_flags, slots, repeats, mixers)
        self._out = bytearray()

    def code(self, p: int, bit: int) -> int:
        bound = (self._range >> 16) * p
        if bit:
            self._range = bound
        else:
            self._low += bound
            self._range -= bound
        while self._range < TOP:
            self._range = self._range << 8 & MASK32
            self._shift()
        return bit

    def _shift(self) -> None:
        """Move the highest byte out. One of 0xFF waits, because a carry may yet come."""
        low = self._low
        if low < 0xFF000000 or low > MASK32:
            carry = low >> 32
            if self._held is not None:
                self._out.append(self._held + carry & 255)
            self._out += bytes((0xFF + carry & 255,)) * self._pending
            self._pending = 0
            self._held = low >> 24 & 255
        else:
            self._pending += 1
        self._low = low << 8 & MASK32

    def finish(self) -> bytes:
        """All bytes. A decoder reads zeros beyond them."""
        self._low = _last(self._low, self._range)
        for _ in range(5):
            self._shift()
        out = self._out
        spare = 4
        while out and not out[-1] and spare:
            del out[-1]
            spare -= 1
        return bytes(out)


def _last(low: int, size: int) -> int:
    """The number in ``low`` to ``low + size`` that ends with the most bytes of 0; the smallest."""
    for zeros in range(32, 0, -8):
        rounded = -(-low >> zeros) << zeros
        if rounded < low + size:
            return rounded
    return low


BEYOND = 8
"""Zero bytes that a decoder reads beyond the end of the file at most."""


class RangeDecoder(Coder):
    """Reads; raises DeltaError when it needs more than there is."""

    def __init__(
        self,
        data: bytes,
        flags: Sequence[int],
        repeat_flags: int,
        slots: int,
        repeats: int,
        mixers: int,
    ) -> None:
        super().__init__(flags, repeat_flags, slots, repeats, mixers)
        self._data = data
        self.consumed = 0
        self._low = 0
        self._range = MASK32
        self._code = 0
        for _ in range(4):
            self._next()

    def _next(self) -> None:
        byte = 0
        if self.consumed < len(self._data):
            byte = self._data[self.consumed]
        elif self.consumed >= len(self._data) + BEYOND:
            raise truncated()
        self.consumed += 1
        self._code = (self._code << 8 | byte) & MASK32

    def code(self, p: int, bit: int) -> int:
        bound = (self._range >> 16) * p
        if self._code < bound:
            self._range = bound
            bit = 1
        else:
            self._code -= bound
            self._low = self._low + bound & MASK32
            self._range -= bound
            bit = 0
        while self._range < TOP:
            self._range = self._range << 8 & MASK32
            self._low = self._low << 8 & MASK32
            self._next()
        return bit

    @property
    def ends_well(self) -> bool:
        """Whether the bytes were those that an encoder ends with, and none more."""
        last = _last(self._low, self._range) & MASK32
        zeros = 4 - len(last.to_bytes(4, "big").rstrip(b"\0"))
        return self.consumed == len(self._data) + zeros and self._low + self._code & MASK32 == last
