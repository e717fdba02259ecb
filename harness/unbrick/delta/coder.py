"""The adaptive binary range coder of differential files: mixed predictions, integers only.

Every decision, a bit, is predicted by a few adaptive counters. Their predictions are mixed in the
logistic domain with weights that learn, and the range coder spends what the mixed prediction says.
Encoder and decoder differ in one method, so that one model drives both (``unbrick.delta.model``).
The mathematics is that of docs/delta-format.md, bit for bit that of ``firmware/lib/delta.c``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from unbrick.errors import DeltaError

TOP = 1 << 24
"""The range is kept at this or above."""
MASK32 = 0xFFFFFFFF

STRETCH_LIMIT = 2815
"""Logits are in units of 1/256 and no larger than this: 11.0."""
INPUTS = 6
WEIGHT_ONE = 1 << 16
WEIGHT_LIMIT = (1 << 19) - 1

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
    x = max(-STRETCH_LIMIT, min(STRETCH_LIMIT, x))
    magnitude = abs(x)
    low, fraction = magnitude >> 6, magnitude & 63
    step = SQUASH_TABLE[low + 1] - SQUASH_TABLE[low]
    p = SQUASH_TABLE[low] + (step * fraction >> 6)
    return p if x >= 0 else 65536 - p


_STRETCH = [0, *(stretch(p) for p in range(1, 65536))]
_SQUASH = [squash(x) for x in range(-STRETCH_LIMIT, STRETCH_LIMIT + 1)]

COUNT_LIMIT = 255
"""A flag's counter adapts no slower than 1/(this + 1.5)."""
_FLAG_RATE = [(1 << 17) // (2 * n + 3) for n in range(COUNT_LIMIT + 1)]
SLOT_LIMIT = 15
_SLOT_RATE = [(1 << 17) // (2 * n + 3) for n in range(SLOT_LIMIT + 1)]
FLAG_INITIAL = 1 << 31
SLOT_INITIAL = 0x8000
MIX_SHIFT = 14


class Coder:
    """Counters, mixers and what encoder and decoder have in common.

    Args:
        flags: counters for single decisions.
        slots: counters that the decisions of bytes share, by hash; a power of two.
        mixers: sets of weights.
    """

    def __init__(self, flags: int, slots: int, mixers: int) -> None:
        self.flags = [FLAG_INITIAL] * flags
        self.slots = [SLOT_INITIAL] * slots
        self.weights = [[WEIGHT_ONE * 2 // 5] * INPUTS for _ in range(mixers)]
        self._shift = 32 - (slots.bit_length() - 1)

    def code(self, p: int, bit: int) -> int:
        """One bit, that is 1 with the probability p/65536."""
        raise NotImplementedError

    def flag(self, contexts: Sequence[int], mixer: int, bit: int) -> int:
        """A single decision in up to INPUTS contexts; the encoder's ``bit``, or the decoder's."""
        flags = self.flags
        weights = self.weights[mixer]
        inputs = [_STRETCH[flags[c] >> 16 or 1] for c in contexts]
        dot = 0
        for weight, value in zip(weights, inputs):
            dot += weight * value
        p = _SQUASH[max(-STRETCH_LIMIT, min(STRETCH_LIMIT, dot >> 16)) + STRETCH_LIMIT]
        bit = self.code(p, bit)
        error = (bit << 16) - p
        for i, value in enumerate(inputs):
            weight = weights[i] + (value * error >> MIX_SHIFT)
            weights[i] = max(-WEIGHT_LIMIT, min(WEIGHT_LIMIT, weight))
        for c in contexts:
            state = flags[c]
            n = state & 1023
            p22 = state >> 10
            if bit:
                p22 += (4194303 - p22) * _FLAG_RATE[n] >> 16
            else:
                p22 -= p22 * _FLAG_RATE[n] >> 16
            flags[c] = p22 << 10 | (n + 1 if n < COUNT_LIMIT else n)
        return bit

    def byte(self, contexts: Sequence[int], mixer: int, value: int) -> int:
        """A byte, from its highest bit down, in contexts that are numbers of 32 bits."""
        slots, shift, code = self.slots, self._shift, self.code
        rate = _SLOT_RATE
        node = 1
        for k in range(7, -1, -1):
            places = [((c + node * 0x9E3779B1) * 0x85EBCA6B & MASK32) >> shift for c in contexts]
            weights = self.weights[mixer]
            inputs = [_STRETCH[slots[i] & 0xFFF0 | 8] for i in places]
            dot = 0
            for weight, logit in zip(weights, inputs):
                dot += weight * logit
            p = _SQUASH[max(-STRETCH_LIMIT, min(STRETCH_LIMIT, dot >> 16)) + STRETCH_LIMIT]
            bit = code(p, value >> k & 1)
            error = (bit << 16) - p
            for i, logit in enumerate(inputs):
                weight = weights[i] + (logit * error >> MIX_SHIFT)
                weights[i] = max(-WEIGHT_LIMIT, min(WEIGHT_LIMIT, weight))
            for i in places:
                state = slots[i]
                n = state & 15
                p12 = state >> 4
                if bit:
                    p12 += (4095 - p12) * rate[n] >> 16
                else:
                    p12 -= p12 * rate[n] >> 16
                slots[i] = p12 << 4 | (n + 1 if n < SLOT_LIMIT else n)
            node = node << 1 | bit
        return node & 255


class RangeEncoder(Coder):
    """Writes; ``finish`` gives the bytes."""

    def __init__(self, flags: int, slots: int, mixers: int) -> None:
        super().__init__(flags, slots, mixers)
        self._low = 0
        self._range = MASK32
        self._cache = 0
        self._pending = 0
        self._begun = False
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
            self._shift_low()
        return bit

    def _shift_low(self) -> None:
        low = self._low
        if low < 0xFF000000 or low > MASK32:
            carry = low >> 32
            if self._begun:
                self._out.append(self._cache + carry & 255)
            self._begun = True
            if self._pending:
                self._out += bytes((0xFF + carry & 255,)) * self._pending
                self._pending = 0
            self._cache = low >> 24 & 255
        else:
            self._pending += 1
        self._low = low << 8 & MASK32

    def finish(self) -> bytes:
        """All bytes. What the decoder reads beyond them is zero."""
        top = self._low + self._range - 1
        for keep in range(24, -1, -8):
            rounded = top >> keep << keep
            if rounded >= self._low:
                self._low = rounded
                break
        for _ in range(5):
            self._shift_low()
        return bytes(self._out).rstrip(b"\0")


BEYOND = 8
"""Zero bytes that a decoder may read beyond the end of the file."""


class RangeDecoder(Coder):
    """Reads; raises DeltaError when it needs more than there is."""

    def __init__(self, data: bytes, flags: int, slots: int, mixers: int) -> None:
        super().__init__(flags, slots, mixers)
        self._data = data
        self._at = 4
        self._range = MASK32
        self._code = int.from_bytes(data[:4].ljust(4, b"\0"), "big")

    def code(self, p: int, bit: int) -> int:  # noqa: ARG002  the encoder's
        bound = (self._range >> 16) * p
        if self._code < bound:
            self._range = bound
            bit = 1
        else:
            self._code -= bound
            self._range -= bound
            bit = 0
        while self._range < TOP:
            byte = 0
            if self._at < len(self._data):
                byte = self._data[self._at]
            elif self._at >= len(self._data) + BEYOND:
                raise DeltaError(
                    "the differential file is truncated", hint="get it again, or make it anew"
                )
            self._at += 1
            self._range = self._range << 8 & MASK32
            self._code = (self._code << 8 | byte) & MASK32
        return bit

    @property
    def consumed(self) -> int:
        """Bytes that were read, those beyond the end included."""
        return self._at
