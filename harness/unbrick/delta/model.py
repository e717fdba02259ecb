"""What encoder and decoder do alike: walk through the new image, predict each unit from the old one,
code whether the prediction holds and, where it does not, what is there instead.

docs/delta-format.md describes it; ``firmware/lib/delta.c`` does the same.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from unbrick.delta import arm
from unbrick.delta.coder import Coder

MASK32 = 0xFFFFFFFF


@dataclass(frozen=True)
class Segment:
    """``length`` bytes of the new image from ``new`` on correspond to those of the old from ``old``."""

    new: int
    length: int
    old: int


@dataclass(frozen=True)
class Layout:
    """What is known of both images: ISA (0: none), where they lie, and a range of RAM addresses."""

    isa: int
    base: int
    window: int
    window_size: int


# Kinds of units. The order matters to nobody but the contexts.
(BYTE, PLAIN, PLAIN_LONG, SHORT_BRANCH, SHORT_LOAD, BRANCH, LOAD, MOVE) = range(8)
(POOL_IMAGE, POOL_WINDOW, POOL_OTHER, WORD_IMAGE, WORD_WINDOW, GAP, GAP_BYTE) = range(8, 15)

FLAGS = 1024 + 3 * 128
MIXERS = 32
SUBSTITUTIONS = 256
NEIGHBOURS = 64
LOOK_BACK = 8


class AddressMap:
    """From offsets in the old image to offsets in the new one, as the segments imply."""

    def __init__(self, segments: Sequence[Segment]) -> None:
        self._ordered = sorted(segments, key=lambda s: s.old)
        self._starts = [s.old for s in self._ordered]

    def __call__(self, offset: int) -> int:
        """What lies in no segment moves with the one before; of several, the last to begin counts."""
        if not self._ordered:
            return offset
        last = max(bisect_right(self._starts, offset) - 1, 0)
        for at in range(last, max(last - LOOK_BACK, -1), -1):
            segment = self._ordered[at]
            if offset - segment.old < segment.length:
                return offset - segment.old + segment.new
        return offset - self._ordered[last].old + self._ordered[last].new


class Model:
    """One pass over the new image."""

    def __init__(
        self, coder: Coder, old: bytes, layout: Layout, length: int, segments: Sequence[Segment]
    ) -> None:
        self.coder = coder
        self.old = old
        self.layout = layout
        self.length = length
        self.segments = segments
        self.map = AddressMap(segments)
        self.out = bytearray(length)
        self._want: bytes | None = None
        self._pool = bytearray(1024)
        self._keys = [0] * SUBSTITUTIONS
        self._values = [0] * SUBSTITUTIONS
        self._conf = [0] * SUBSTITUTIONS
        self._near: list[tuple[int, int]] = []
        self._near_next = 0
        self._history = 0
        self._since = 0
        self.cost: dict[object, list[float]] = {}

    def number(self, kind: int, value: int) -> int:
        """A number below 2**24: its length in bits, then its bits, the lowest two with contexts."""
        coder = self.coder
        base = 1024 + kind * 128
        length = 0
        want = value.bit_length()
        while length < 24 and coder.flag((base + length,), 31, int(length < want)):
            length += 1
        if length == 0:
            return 0
        made = 1
        for bit in range(length - 2, -1, -1):
            here = value >> bit & 1
            if bit < 2 or bit == length - 2:
                here = coder.flag((base + 32 + (min(length, 7) * 3 + min(bit, 2)) * 4 + (made & 3 if bit != length - 2 else 0),), 31, here)
            else:
                here = coder.code(1 << 15, here)
            made = made << 1 | here
        return made

    def table(self, count: int) -> None:
        """The segments."""
        at = source = 0
        made = []
        self.tag = ("table",)
        for i in range(count):
            new = old = length = 0
            if self.segments:
                segment = self.segments[i]
                new, old, length = segment.new - at, segment.old - source, segment.length
            new = self.number(0, new)
            jump = old - new
            jump = self.number(1, abs(jump) * 2 - (jump > 0) if jump else 0)
            jump = (jump + 1) // 2 if jump & 1 else -(jump // 2)
            length = self.number(2, length)
            at += new
            source += new + jump
            made.append(Segment(at, length, source))
            at += length
            source += length
        self.segments = made

    def run(self, want: bytes | None = None) -> bytes:
        """Code the image ``want``; decode it when that is None."""
        self._want = want
        at = 0
        for segment in self.segments:
            self._gap(at, segment.new)
            self._copy(segment)
            at = segment.new + segment.length
        self._gap(at, self.length)
        return bytes(self.out)

    # ---- What is predicted ----

    def _map_value(self, value: int) -> int:
        """Where an address of the old image, or of its RAM, should be in the new one."""
        layout = self.layout
        offset = value - layout.base
        if 0 <= offset <= len(self.old):
            return self.map(offset) + layout.base & MASK32
        if 0 <= value - layout.window < layout.window_size:
            return self._near_value(value)
        return value

    def _near_value(self, value: int) -> int:
        below, above = -1, MASK32 + 1
        low = high = 0
        for key, delta in self._near:
            if below < key <= value:
                below, low = key, delta
            elif value < key < above:
                above, high = key, delta
        if below >= 0:
            return value + low & MASK32
        return value + high & MASK32

    def _word_kind(self, word: int, pooled: bool) -> int | None:
        layout = self.layout
        if 0 <= word - layout.base <= len(self.old):
            return POOL_IMAGE if pooled else WORD_IMAGE
        if 0 <= word - layout.window < layout.window_size:
            return POOL_WINDOW if pooled else WORD_WINDOW
        return POOL_OTHER if pooled else None

    def _mark(self, q: int, target: int) -> None:
        if 0 < target - q <= 4096:
            self._pool[target >> 2 & 1023] = 1

    def _classify(self, q: int, p: int, left: int) -> tuple[int, int, int]:
        """Kind, size and value of the unit of the old image at ``q``."""
        old = self.old
        isa = self.layout.isa
        if isa == 0 or (p ^ q) & (3 if isa == arm.ARM else 1):
            return BYTE, 1, old[q]
        if p & 1 or left < 2 or (isa == arm.ARM and (p & 3 or left < 4)):
            return BYTE, 1, old[q]
        first = old[q] | old[q + 1] << 8
        if not (p | q) & 3 and left >= 4:
            word = first | old[q + 2] << 16 | old[q + 3] << 24
            pooled = self._pool[q >> 2 & 1023]
            self._pool[q >> 2 & 1023] = 0
            kind = self._word_kind(word, bool(pooled))
            if kind is not None and not (
                kind == WORD_WINDOW and isa == arm.THUMB and arm.is_long(first)
            ):
                return kind, 4, word
            if isa == arm.ARM:
                if arm.arm_branch(word) is not None:
                    return BRANCH, 4, word
                if (offset := arm.arm_load(word)) is not None:
                    self._mark(q, q + 8 + offset)
                    return LOAD, 4, word
                if arm.arm_wide_move(word) is not None:
                    return MOVE, 4, word
                return PLAIN_LONG, 4, word
        if arm.is_long(first) and left >= 4:
            word = first << 16 | old[q + 2] | old[q + 3] << 8
            if arm.long_branch(word) is not None:
                return BRANCH, 4, word
            if (offset := arm.long_load(word)) is not None:
                self._mark(q, (q + 4 & ~3) + offset)
                return LOAD, 4, word
            if arm.wide_move(word) is not None:
                return MOVE, 4, word
            return PLAIN_LONG, 4, word
        if arm.short_branch(first) is not None:
            return SHORT_BRANCH, 2, first
        if (offset := arm.short_load(first)) is not None:
            self._mark(q, (q + 4 & ~3) + offset)
            return SHORT_LOAD, 2, first
        return PLAIN, 2, first

    def _address(self, kind: int, value: int, place: int) -> int | None:
        """The offset in the image that a unit at ``place`` refers to, or its absolute address when it
        is a word; None when the unit is not of that kind."""
        thumb = self.layout.isa == arm.THUMB
        offset: int | None
        if kind == BRANCH:
            if not thumb:
                offset = arm.arm_branch(value)
                return None if offset is None else place + 8 + offset
            offset = arm.long_branch(value)
            if offset is None:
                return None
            return (place + 4 & ~3 if value & 0x5000 == 0x4000 else place + 4) + offset
        if kind == LOAD:
            offset = arm.long_load(value) if thumb else arm.arm_load(value)
            if offset is None:
                return None
            return ((place + 4 & ~3) if thumb else place + 8) + offset
        if kind == SHORT_BRANCH:
            offset = arm.short_branch(value)
            return None if offset is None else place + 4 + offset
        offset = arm.short_load(value)
        return None if offset is None else (place + 4 & ~3) + offset

    def _with_address(self, kind: int, value: int, place: int, address: int) -> int | None:
        thumb = self.layout.isa == arm.THUMB
        if kind == BRANCH:
            if not thumb:
                return arm.with_arm_branch(value, address - place - 8)
            pc = place + 4 & ~3 if value & 0x5000 == 0x4000 else place + 4
            return arm.with_long_branch(value, address - pc)
        if kind == LOAD:
            if thumb:
                return arm.with_long_load(value, address - (place + 4 & ~3))
            return arm.with_arm_load(value, address - place - 8)
        if kind == SHORT_BRANCH:
            return arm.with_short_branch(value, address - place - 4)
        return arm.with_short_load(value, address - (place + 4 & ~3))

    def _moved_value(self, q: int, word: int) -> tuple[int, bool] | None:
        """The 32 bits that a MOVW or MOVT and its partner load, and whether it is the MOVT."""
        thumb = self.layout.isa == arm.THUMB
        read = arm.wide_move if thumb else arm.arm_wide_move
        top = 0x00800000 if thumb else 0x00400000
        register = 0x0F00 if thumb else 0xF000
        step = 2 if thumb else 4
        is_top = bool(word & top)
        for distance in range(4, 28, step):
            at = q - distance if is_top else q + distance
            if at < 0 or at + 4 > len(self.old):
                break
            other = self._word(self.old, at)
            half = read(other)
            if half is None or (other ^ word) & register or bool(other & top) == is_top:
                continue
            mine = read(word)
            assert mine is not None
            return (mine << 16 | half, True) if is_top else (half << 16 | mine, False)
        return None

    def _word(self, data: bytes | bytearray, at: int) -> int:
        """A 32-bit instruction."""
        if self.layout.isa == arm.THUMB:
            return data[at] << 16 | data[at + 1] << 24 | data[at + 2] | data[at + 3] << 8
        return int.from_bytes(data[at : at + 4], "little")

    # ---- Walking ----

    def _value(self, data: bytes, at: int, size: int, kind: int) -> int:
        if size == 4 and kind < POOL_IMAGE:
            return self._word(data, at)
        return int.from_bytes(data[at : at + size], "little")

    def _put(self, at: int, size: int, kind: int, value: int) -> None:
        if size == 4 and kind < POOL_IMAGE and self.layout.isa == arm.THUMB:
            value = value >> 16 | (value & 0xFFFF) << 16
        self.out[at : at + size] = value.to_bytes(size, "little")

    def _copy(self, segment: Segment) -> None:
        p, q, left = segment.new, segment.old, segment.length
        want = self._want
        while left > 0:
            kind, size, raw = self._classify(q, p, left)
            actual = 0 if want is None else self._value(want, p, size, kind)
            self.tag = (kind, "hit")
            actual = self._unit(kind, size, raw, q, p, actual)
            self._put(p, size, kind, actual)
            p += size
            q += size
            left -= size

    def _unit(self, kind: int, size: int, raw: int, q: int, p: int, actual: int) -> int:
        """Code one unit of a segment; returns its value."""
        coder = self.coder
        mapped = raw
        key: int | None = None
        whole = 0
        top = False
        if kind in (PLAIN, PLAIN_LONG):
            key = raw
        elif kind == POOL_OTHER:
            key = raw
        elif kind >= POOL_IMAGE:
            key = raw
            mapped = self._map_value(raw)
        elif kind == MOVE:
            moved = self._moved_value(q, raw)
            if moved is not None:
                whole, top = moved
                key = whole
                whole = self._map_value(whole)
                mapped = self._with_half(raw, whole, top)
        elif kind != BYTE:
            target = self._address(kind, raw, q)
            assert target is not None
            new = self.map(target) if 0 <= target <= len(self.old) else target
            mapped = self._fit(kind, raw, p, new)
            if kind == BRANCH:
                key = (target + self.layout.base | (self.layout.isa == arm.THUMB)) & MASK32

        # A unit, or an address, that was replaced before is replaced in the same way again.
        slot = 0
        learned = None
        group = 1 if kind in (BRANCH, MOVE) or kind in (POOL_IMAGE, WORD_IMAGE, POOL_WINDOW, WORD_WINDOW) else kind + 2
        if key is not None:
            key = key + group * 0x61C88647 & MASK32
            slot = (key * 0x9E3779B1 & MASK32) >> 24
            if self._conf[slot] and self._keys[slot] == key:
                learned = self._learned(kind, raw, p, slot, top)
        candidates = [mapped]
        if learned is not None and learned != mapped:
            candidates.insert(0, learned)
        if raw not in candidates:
            candidates.append(raw)

        since = min(self._since.bit_length(), 7)
        history = self._history
        lead = raw >> (8 * size - 8)
        conf = self._conf[slot] if len(candidates) > 1 and learned == candidates[0] else 0
        found = False
        for number, candidate in enumerate(candidates):
            if number == 0:
                variant = kind * 2 + (conf > 0)
                contexts = (
                    variant * 8 + (history & 7),
                    256 + variant * 8 + since,
                    512 + lead,
                )
            else:
                contexts = (
                    768 + kind * 4 + number,
                    832 + conf * 4 + number,
                    848 + (history & 7) * 4 + number,
                )
            self.tag = (kind, "hit", number)
            if coder.flag(contexts, kind, int(actual == candidate)):
                actual = candidate
                found = True
                break
        if not found:
            self.tag = (kind, "miss")
            actual = self._miss(kind, size, candidates[0], p, actual)
        hit = actual == candidates[0]
        self._history = (self._history << 1 | (not hit)) & 255
        self._since = self._since + 1 if hit else 0

        if key is not None:
            self._learn(kind, slot, key, raw, mapped, actual, p, whole, top, learned)
        return actual

    def _with_half(self, raw: int, whole: int, top: bool) -> int:
        half = whole >> 16 if top else whole & 0xFFFF
        if self.layout.isa == arm.THUMB:
            return arm.with_wide_move(raw, half)
        return arm.with_arm_wide_move(raw, half)

    def _fit(self, kind: int, raw: int, p: int, target: int) -> int:
        made = self._with_address(kind, raw, p, target)
        return raw if made is None else made

    def _learned(self, kind: int, raw: int, p: int, slot: int, top: bool) -> int:
        value = self._values[slot]
        if kind == BRANCH:
            return self._fit(kind, raw, p, (value & ~1 if self.layout.isa == arm.THUMB else value) - self.layout.base)
        if kind == MOVE:
            return self._with_half(raw, value, top)
        return value

    def _learn(
        self, kind: int, slot: int, key: int, raw: int, mapped: int, actual: int, p: int,
        whole: int, top: bool, learned: int | None,
    ) -> None:
        if learned is not None:
            if actual == learned:
                self._conf[slot] = min(3, self._conf[slot] + 1)
                return
            if actual == mapped:
                self._conf[slot] -= 1
                return
        elif actual == mapped:
            return
        value: int | None = actual
        if kind == BRANCH:
            target = self._address(kind, actual, p)
            if target is None:
                return
            value = (target + self.layout.base | (self.layout.isa == arm.THUMB)) & MASK32
        elif kind == MOVE:
            read = arm.wide_move if self.layout.isa == arm.THUMB else arm.arm_wide_move
            half = read(actual)
            if half is None or top:
                return
            value = whole & 0xFFFF0000 | half
        self._keys[slot] = key
        self._values[slot] = value
        self._conf[slot] = 1
        old = key - 0x61C88647 & MASK32
        if 0 <= old - self.layout.window < self.layout.window_size and (kind in (POOL_WINDOW, WORD_WINDOW, MOVE)):
            entry = (old, value - old)
            for i, (k, _) in enumerate(self._near):
                if k == old:
                    self._near[i] = entry
                    return
            if len(self._near) < NEIGHBOURS:
                self._near.append(entry)
            else:
                self._near[self._near_next] = entry
                self._near_next = (self._near_next + 1) % NEIGHBOURS

    def _miss(self, kind: int, size: int, predicted: int, p: int, actual: int) -> int:
        """Code a unit byte by byte from its highest, knowing what was predicted."""
        made = 0
        same = 1
        out = self.out
        before = out[p - 1] << 8 | out[p - 2] if p >= 2 else 0
        for j in range(size - 1, -1, -1):
            o = predicted >> 8 * j & 255
            tag = kind << 27 | j << 25 | same << 24
            contexts = (
                tag | o,
                (1 << 31 | j << 29 | size << 26) ^ (made & 0xFFFF) << 8 ^ o,
                (2 << 29 | j << 27 | size << 24) | made & 0xFFFFFF,
                (3 << 29) ^ tag ^ o << 8 ^ (made & 255),
                (4 << 29) ^ tag ^ before >> 8 << 8 ^ (made & 255) * 0x1003F,
            )
            byte = self.coder.byte(contexts, 16 + kind, actual >> 8 * j & 255)
            same &= byte == o
            made = made << 8 | byte
        return made

    def _gap(self, p: int, end: int) -> None:
        """Bytes that correspond to nothing in the old image."""
        want = self._want
        out = self.out
        self.tag = (GAP, "miss")
        while p < end:
            size = 1 if self.layout.isa == 0 or p & 1 or p + 1 == end else 2
            actual = 0 if want is None else int.from_bytes(want[p : p + size], "little")
            b1, b2, b3, b4 = (out[p - i] if p >= i else 0 for i in (1, 2, 3, 4))
            if size == 2:
                contexts = (
                    0x50000000,
                    0x51000000 | b1,
                    0x52000000 | b1 << 8 | b2,
                    0x53000000 | b1 << 8 | b3,
                    0x54000000 ^ (b1 << 24 | b2 << 16 | b3 << 8 | b4) * 0x2F0B4C47 & MASK32,
                )
                high = self.coder.byte(contexts, 16 + GAP, actual >> 8)
                contexts = (
                    0x58000000 | high,
                    0x59000000 | high << 8 | b1,
                    0x5A000000 | high << 8 | b2,
                    0x5B000000 | high << 16 | b1 << 8 | b2,
                    0x5C000000 ^ (high << 24 | b1 << 16 | b2 << 8 | b3) * 0x2F0B4C47 & MASK32,
                )
                low = self.coder.byte(contexts, 0, actual & 255)
                out[p] = low
                out[p + 1] = high
            else:
                contexts = (
                    0x60000000,
                    0x61000000 | b1,
                    0x62000000 | b1 << 8 | b2,
                    0x63000000 | b1 << 16 | b2 << 8 | b3,
                    0x64000000 | b2,
                )
                out[p] = self.coder.byte(contexts, 16 + GAP_BYTE, actual)
            p += size
