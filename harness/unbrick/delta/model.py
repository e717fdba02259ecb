"""The common part of encoder and decoder of differential files.

It walks through the new image, predicts each unit from the old one, and codes whether the
prediction holds. Where it does not, it codes the unit itself. docs/delta-format.md describes it;
``firmware/lib/delta.c`` does the same. Names and numbers of contexts are part of the format.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from unbrick.delta.code import Instructions
from unbrick.delta.coder import MASK32, REPEATS, Coder
from unbrick.delta.format import DATA, DeltaHeader, malformed
from unbrick.delta.plan import Copy, DeltaPlan, Segment

# Kinds of units of the old image.
(BYTE, PLAIN, PLAIN_LONG, SHORT_BRANCH, SHORT_LOAD, BRANCH, LOAD, MOVE) = range(8)
(POOL_IMAGE, POOL_WINDOW, POOL_OTHER, WORD_IMAGE, WORD_WINDOW) = range(8, 13)
_IMAGE_WORDS = (POOL_IMAGE, WORD_IMAGE)
_ADDRESSES = (BRANCH, MOVE, POOL_IMAGE, POOL_WINDOW, WORD_IMAGE, WORD_WINDOW)
"""Kinds whose keys in the dictionary are addresses."""

MIXERS = {1: 32, 2: 34}
"""By format version."""
_MIX_NUMBER, _MIX_MISS, _MIX_WORD, _MIX_HIGH, _MIX_LOW, _MIX_BYTE = 13, 16, 14, 29, 30, 31
_MIX_COPY, _MIX_COPY_OLD = 32, 33

_HITS, _NEXT, _REPEAT, _NUMBER, _LOCAL = 0, 672, 772, 820, 940
_COPY, _COPY_OLD, _COPY_NUMBER = 941, 943, 945
_NUMBER_KINDS = 40


def _counter(p: float, seen: int) -> int:
    return int(p * (1 << 22)) << 10 | seen


# Kinds of numbers; from _DISTANCE_OLD on those of copies.
_GAP, _JUMP, _LENGTH, _DISTANCE_OLD, _DISTANCE_NEW, _LENGTH_NEW, _LENGTH_OLD = range(7)

_FIRST_FLAGS = (
    [_counter(0.95, 1)] * (_NEXT - _HITS)
    + [_counter(0.5, 0)] * (_REPEAT - _NEXT)
    + [_counter(0.7, 0)] * (16 * REPEATS)
    + [_counter(0.5, 0)] * (_LOCAL - _NUMBER)
    + [_counter(0.1, 0)]
)
INITIAL_FLAGS = {
    1: _FIRST_FLAGS,
    2: [
        *_FIRST_FLAGS,
        *[_counter(0.2, 0)] * (_COPY_NUMBER - _COPY),
        *[_counter(0.5, 0)] * (4 * _NUMBER_KINDS),
    ],
}
"""By format version."""
REPEAT_FLAGS = _REPEAT

DICTIONARY = 128
NEIGHBOURS = 32
LOOK_BACK = 8
TRAIN_BEFORE, TRAIN_OLD = 64, 128
DIGEST = 32
NUMBER_BITS = 24


class AddressMap:
    """From offsets in the old image to offsets in the new one, as the segments imply."""

    def __init__(self, segments: Sequence[Segment]) -> None:
        self._ordered = sorted(segments, key=lambda s: s.old)
        self._starts = [s.old for s in self._ordered]

    def __call__(self, offset: int) -> int:
        """The new offset. In no segment, it moves with that before; of several the last counts."""
        if not self._ordered:
            return offset
        last = max(bisect_right(self._starts, offset) - 1, 0)
        for at in range(last, max(last - LOOK_BACK, -1), -1):
            segment = self._ordered[at]
            if 0 <= offset - segment.old < segment.length:
                return offset - segment.old + segment.new
        return offset - self._ordered[last].old + self._ordered[last].new


class Dictionary:
    """The replacements of units, or of the addresses in them: a table by hash."""

    def __init__(self) -> None:
        self.keys = [0] * DICTIONARY
        self.values = [0] * DICTIONARY
        self.trust = [0] * DICTIONARY

    @staticmethod
    def place(key: int) -> int:
        return (key * 0x9E3779B1 & MASK32) >> 25


@dataclass
class _Unit:
    """A unit of the old image, with its predictions."""

    kind: int
    size: int
    raw: int
    mapped: int = 0
    key: int | None = None
    whole: int = 0
    top: bool = False
    place: int = 0
    learned: int | None = None


class Model:
    """One pass over the new image.

    Args:
        coder: encodes or decodes.
        old: the installed image.
        header: of the file.
    """

    def __init__(self, coder: Coder, old: bytes, header: DeltaHeader) -> None:
        self._coder = coder
        self._old = old
        self._header = header
        self._code = Instructions(header.isa)
        self._map = AddressMap(())
        self._out = bytearray(header.length)
        self._want: bytes | None = None
        self._copies: dict[int, Copy] = {}
        self._digest = (0, 0)
        self._pool = bytearray(1024)
        self._words = Dictionary()
        self._near: list[tuple[int, int]] = []
        self._near_next = 0
        self._misses = 0
        self._since = 0
        self._difference = 0

    def run(self, want: bytes | None = None, plan: DeltaPlan | None = None) -> bytes:
        """Code the image ``want`` by a plan; decode it when there is none.

        Raises:
            DeltaError: the file is malformed.
        """
        self._want = want
        self._copies = {copy.new: copy for copy in plan.copies} if plan else {}
        table, local = plan.parted() if plan else ([], [])
        main, self._digest = self._table(table, plan.digest if plan else (0, 0))
        self._map = AddressMap(main)
        end = Segment(self._header.length, 0, len(self._old))
        at = source = 0
        for segment in [*main, end]:
            while at < segment.new:
                here = local.pop(0) if local and local[0].new < segment.new else None
                here = self._local(at, source, segment.new, here)
                following = here or segment
                self._gap(at, following.new, source, following.old)
                at = following.new
                if here:
                    self._copy(here)
                    at, source = here.end, here.old_end
            self._copy(segment)
            at, source = segment.end, segment.old_end
        return bytes(self._out)

    # ---- The table ----

    def _table(
        self, segments: Sequence[Segment], digest: tuple[int, int]
    ) -> tuple[list[Segment], tuple[int, int]]:
        """Where the digest lies, and the segments."""
        length = self._header.length
        place = hashed = 0
        behind = self._number(_GAP, length - digest[0] if digest[0] else 0)
        if behind:
            place = length - behind
            hashed = place - self._number(_JUMP, digest[0] - digest[1])
            if hashed < 0 or behind < DIGEST:
                raise malformed("its digest lies outside the image")
        made: list[Segment] = []
        at = source = 0
        for i in range(self._header.segments):
            made.append(self._segment(at, source, length, segments[i] if segments else None))
            at, source = made[-1].end, made[-1].old_end
        return made, (place, hashed)

    def _local(self, at: int, source: int, end: int, segment: Segment | None) -> Segment | None:
        """A segment before ``end`` that is not in the table, if one comes."""
        if self._coder.flag((_LOCAL,), _MIX_NUMBER, int(segment is not None)):
            return self._segment(at, source, end, segment)
        return None

    def _segment(self, at: int, source: int, end: int, segment: Segment | None) -> Segment:
        """The segment behind that which ended at ``at`` and ``source``. It ends before ``end``."""
        segment = segment or Segment(at, 0, source)
        gap = self._number(_GAP, segment.new - at)
        jump = segment.old - source - gap
        folded = self._number(_JUMP, abs(jump) * 2 - (jump > 0))
        jump = folded + 1 >> 1 if folded & 1 else -(folded >> 1)
        at += gap
        source += gap + jump
        length = self._number(_LENGTH, segment.length)
        if not length or at + length > end or source < 0 or source + length > len(self._old):
            raise malformed("a segment lies outside the images")
        return Segment(at, length, source)

    def _number(self, kind: int, value: int) -> int:
        """A number below 2**25: its length in bits, then its bits."""
        coder = self._coder
        context = _NUMBER + kind * _NUMBER_KINDS
        if kind >= _DISTANCE_OLD:
            context = _COPY_NUMBER + (kind - _DISTANCE_OLD) * _NUMBER_KINDS
        want = value.bit_length()
        length = 0
        while length < NUMBER_BITS + 1 and coder.flag(
            (context + length,), _MIX_NUMBER, int(length < want)
        ):
            length += 1
        if length == 0:
            return 0
        made = 1
        for bit in range(length - 2, -1, -1):
            here = value >> bit & 1
            if bit == length - 2:
                here = coder.flag((context + 25 + min(bit, 6),), _MIX_NUMBER, here)
            elif bit < 2:
                flag = context + 32 + bit * 4 + (made & 3)
                here = coder.flag((flag,), _MIX_NUMBER, here)
            else:
                here = coder.code(1 << 15, here)
            made = made << 1 | here
        return made

    # ---- What is predicted ----

    def _map_value(self, value: int) -> int:
        """Where an address of the old image, or of its RAM, should be in the new one."""
        header = self._header
        offset = value - header.base_address
        if 0 <= offset <= len(self._old):
            return self._map(offset) + header.base_address & MASK32
        if 0 <= value - header.window < header.window_size:
            return self._near_value(value)
        return value

    def _near_value(self, value: int) -> int:
        """The address, moved like the nearest one below that was learned, or else above."""
        below, above = -1, MASK32 + 1
        low = high = 0
        for key, delta in self._near:
            if below < key <= value:
                below, low = key, delta
            elif value < key < above:
                above, high = key, delta
        return value + (low if below >= 0 else high) & MASK32

    def _word_kind(self, word: int, *, pooled: bool) -> int | None:
        header = self._header
        if 0 <= word - header.base_address <= len(self._old):
            return POOL_IMAGE if pooled else WORD_IMAGE
        if 0 <= word - header.window < header.window_size:
            return POOL_WINDOW if pooled else WORD_WINDOW
        return POOL_OTHER if pooled else None

    def _classify(self, q: int, p: int, left: int) -> _Unit:
        """The unit of the old image at ``q``, which becomes that at ``p``.

        ``left`` bytes of both are in the segment.
        """
        old, code = self._old, self._code
        if code.isa == DATA or (p ^ q) & code.align or p & code.align or left <= code.align:
            return _Unit(BYTE, 1, old[q])
        first = old[q] | old[q + 1] << 8
        if not (p | q) & 3 and left >= 4:
            word = first | old[q + 2] << 16 | old[q + 3] << 24
            pooled = bool(self._pool[q >> 2 & 1023])
            self._pool[q >> 2 & 1023] = 0
            kind = self._word_kind(word, pooled=pooled)
            if kind is not None and not (kind == WORD_WINDOW and code.bit and code.is_long(first)):
                return _Unit(kind, 4, word)
        if left >= 4 and code.is_long(first):
            word = code.word(old, q)
            if code.branch(word, q) is not None:
                return _Unit(BRANCH, 4, word)
            target = code.load(word, q)
            if target is not None:
                self._mark(q, target)
                return _Unit(LOAD, 4, word)
            if code.move(word) is not None:
                return _Unit(MOVE, 4, word)
            return _Unit(PLAIN_LONG, 4, word)
        if code.short_branch(first, q) is not None:
            return _Unit(SHORT_BRANCH, 2, first)
        target = code.short_load(first, q)
        if target is not None:
            self._mark(q, target)
            return _Unit(SHORT_LOAD, 2, first)
        return _Unit(PLAIN, 2, first)

    def _mark(self, q: int, target: int) -> None:
        """Note that code at ``q`` loads from ``target``: constants are there, no code."""
        if 0 < target - q <= 4096:
            self._pool[target >> 2 & 1023] = 1

    def _predict(self, unit: _Unit, q: int, p: int) -> None:
        """Predict the unit by the address map."""
        kind, raw, code = unit.kind, unit.raw, self._code
        unit.mapped = raw
        if kind in (PLAIN, PLAIN_LONG, POOL_OTHER):
            unit.key = raw
        elif kind >= POOL_IMAGE:
            unit.key = raw
            unit.mapped = self._map_value(raw)
        elif kind == MOVE:
            moved = code.moved(self._old, q, raw)
            if moved is not None:
                unit.key, unit.top = moved
                unit.whole = self._map_value(unit.key)
                unit.mapped = code.with_half(raw, unit.whole, top=unit.top)
        elif kind != BYTE:
            target = self._target(kind, raw, q) or 0
            new = self._map(target) if 0 <= target <= len(self._old) else target
            unit.mapped = self._aimed(kind, raw, p, new)
            if kind == BRANCH:
                unit.key = self._address(target)

    def _target(self, kind: int, value: int, place: int) -> int | None:
        """The offset that an instruction at ``place`` refers to, if it is of that kind."""
        code = self._code
        if kind == BRANCH:
            return code.branch(value, place)
        if kind == LOAD:
            return code.load(value, place)
        if kind == SHORT_BRANCH:
            return code.short_branch(value, place)
        return code.short_load(value, place)

    def _aimed(self, kind: int, value: int, place: int, target: int) -> int:
        """The instruction made to refer to ``target``, or as it is when it cannot."""
        code = self._code
        if kind == BRANCH:
            made = code.with_branch(value, place, target)
        elif kind == LOAD:
            made = code.with_load(value, place, target)
        elif kind == SHORT_BRANCH:
            made = code.with_short_branch(value, place, target)
        else:
            made = code.with_short_load(value, place, target)
        return value if made is None else made

    def _address(self, target: int) -> int:
        """As a word would hold the address of code."""
        return (target + self._header.base_address | self._code.bit) & MASK32

    # ---- The dictionary ----

    def _look_up(self, unit: _Unit, p: int) -> None:
        if unit.key is None:
            return
        group = 1 if unit.kind in _ADDRESSES else unit.kind + 2
        unit.key = unit.key + group * 0x61C88647 & MASK32
        place = unit.place = Dictionary.place(unit.key)
        words = self._words
        if not words.trust[place] or words.keys[place] != unit.key:
            return
        value = words.values[place]
        if unit.kind == BRANCH:
            target = (value & ~self._code.bit) - self._header.base_address
            unit.learned = self._aimed(BRANCH, unit.raw, p, target)
        elif unit.kind == MOVE:
            unit.learned = self._code.with_half(unit.raw, value, top=unit.top)
        else:
            unit.learned = value

    def _learn(self, unit: _Unit, actual: int, p: int) -> None:
        if unit.key is None:
            return
        words, place = self._words, unit.place
        if unit.learned is not None:
            if actual == unit.learned:
                words.trust[place] = min(3, words.trust[place] + 1)
                return
            if actual == unit.mapped:
                words.trust[place] -= 1
                return
        elif actual == unit.mapped:
            return
        value = actual
        if unit.kind == BRANCH:
            target = self._code.branch(actual, p)
            if target is None:
                return
            value = self._address(target)
        elif unit.kind == MOVE:
            half = self._code.move(actual)
            if half is None or unit.top:
                return
            value = unit.whole & 0xFFFF0000 | half
        words.keys[place] = unit.key
        words.values[place] = value
        words.trust[place] = 1
        if unit.kind in _ADDRESSES and unit.kind != BRANCH:
            self._learn_near(unit.key - 0x61C88647 & MASK32, value)

    def _learn_near(self, old: int, new: int) -> None:
        entry = (old, new - old)
        for i, (key, _) in enumerate(self._near):
            if key == old:
                self._near[i] = entry
                return
        if len(self._near) < NEIGHBOURS:
            self._near.append(entry)
        else:
            self._near[self._near_next] = entry
            self._near_next = (self._near_next + 1) % NEIGHBOURS

    # ---- Segments ----

    def _copy(self, segment: Segment) -> None:
        p, q = segment.new, segment.old
        want = self._want
        while p < segment.end:
            if self._calculated(p, segment.end):
                p += DIGEST
                q += DIGEST
                continue
            unit = self._classify(q, p, self._until(p, segment.end) - p)
            instruction = unit.size == 4 and unit.kind < POOL_IMAGE
            actual = 0
            if want is not None:
                actual = self._code.word(want, p) if instruction else _little(want, p, unit.size)
            self._predict(unit, q, p)
            self._look_up(unit, p)
            actual = self._unit(unit, p, actual)
            self._learn(unit, actual, p)
            if instruction:
                actual = self._code.swapped(actual)
            self._out[p : p + unit.size] = actual.to_bytes(unit.size, "little")
            p += unit.size
            q += unit.size

    def _unit(self, unit: _Unit, p: int, actual: int) -> int:
        """Code one unit of a segment; returns its value."""
        kind, raw = unit.kind, unit.raw
        candidates = [unit.mapped]
        trust = 0
        if unit.learned is not None and unit.learned != unit.mapped:
            candidates.insert(0, unit.learned)
            trust = self._words.trust[unit.place]
        if kind in _IMAGE_WORDS and self._near:
            near = self._near_value(raw)
            if near not in candidates:
                candidates.append(near)
        if raw not in candidates:
            candidates.append(raw)

        recent = self._misses & 7
        variant = (kind * 2 + (trust > 0)) * 8
        contexts: tuple[int, ...] = (
            variant + recent,
            208 + variant + min(self._since.bit_length(), 7),
            416 + (raw >> 8 * unit.size - 8),
        )
        value = -1
        for number, candidate in enumerate(candidates):
            if number:
                contexts = (
                    _NEXT + kind * 4 + number,
                    _NEXT + 52 + trust * 4 + number,
                    _NEXT + 68 + recent * 4 + number,
                )
            if self._coder.flag(contexts, kind, int(actual == candidate)):
                value = candidate
                break
        if value < 0:
            value = self._miss(unit, candidates[0], p, actual)
        hit = value == candidates[0]
        self._misses = self._misses << 1 & 6 | (not hit)
        self._since = min(self._since + 1, 255) if hit else 0
        return value

    def _miss(self, unit: _Unit, predicted: int, p: int, actual: int) -> int:
        """Code a unit, from its highest byte down, as differences to the prediction."""
        made = 0
        same = 1
        before = self._out[p - 1] if p else 0
        for j in range(unit.size - 1, -1, -1):
            guess = predicted >> 8 * j & 255
            last = self._difference
            tag = unit.kind << 27 | j << 25 | same << 24
            contexts = (
                tag | guess,
                0x40000000 ^ (j << 27 | unit.size << 24 | same << 23) ^ last << 8 ^ made & 255,
                0xA0000000 ^ tag,
            )
            repeats = (
                0x80000000 ^ (j << 29 | unit.size << 26) ^ (made & 0xFFFF) << 8 ^ guess,
                0x60000000 ^ tag ^ guess << 8 ^ last,
                0x80000000 ^ tag ^ before << 8 ^ (made & 255) * 0x1003F,
            )
            want = (actual >> 8 * j) - guess & 255
            difference = self._coder.byte(contexts, repeats, _MIX_MISS + unit.kind, want)
            if difference:
                self._difference = difference
                same = 0
            made = made << 8 | guess + difference & 255
        return made

    # ---- What is new ----

    def _gap(self, p: int, end: int, source: int, source_end: int) -> None:
        """Code bytes of the new image that correspond to nothing in the old one.

        The old image has at most those from ``source`` to ``source_end`` in their place.
        """
        if p >= end:
            return
        want, out = self._want, self._out
        self._train(out, max(0, p - TRAIN_BEFORE), p)
        self._train(self._old, source, min(source_end, source + TRAIN_OLD))
        source &= ~self._code.align
        after = 0
        while p < end:
            if self._calculated(p, end):
                p += DIGEST
                continue
            stop = self._until(p, end)
            if self._begins_copy(p, stop, after):
                copy = self._new_copy(p, stop, source, after)
                p, after = copy.new + copy.length, 1
                source = copy.start + copy.length if copy.old else source
                continue
            after = 0
            size = self._new_size(p, stop)
            actual = 0 if want is None else _little(want, p, size)
            out[p : p + size] = self._new(out, p, size, actual).to_bytes(size, "little")
            p += size

    def _begins_copy(self, p: int, end: int, after: int) -> bool:
        """Whether a copy comes, as it can where a whole unit would. ``after``: one ends here."""
        align = self._code.align
        if self._header.version == 1 or p & align or p + align >= end:
            return False
        return bool(self._coder.flag((_COPY + after,), _MIX_COPY, int(p in self._copies)))

    def _new_copy(self, p: int, end: int, source: int, after: int) -> Copy:
        """Code a copy, and make it.

        From the old image its place is told from ``source`` on, the end of the last such copy,
        from the new one backwards from here.
        """
        unit = self._code.align + 1
        copy = self._copies.get(p) or Copy(p, 0, 0, old=False)
        old = bool(self._coder.flag((_COPY_OLD + after,), _MIX_COPY_OLD, int(copy.old)))
        if old:
            distance = (copy.start - source) // unit
            told = self._number(_DISTANCE_OLD, abs(distance) * 2 - (distance < 0))
            start = source + (-(told + 1 >> 1) if told & 1 else told >> 1) * unit
        else:
            start = p - self._number(_DISTANCE_NEW, (p - copy.start) // unit) * unit
        length = self._number(_LENGTH_OLD if old else _LENGTH_NEW, copy.length // unit) * unit
        room = len(self._old) - length if old else p - 1
        if not 0 <= start <= room or not 0 < length <= end - p:
            raise malformed("a copy lies outside the images")
        for i in range(length):
            self._out[p + i] = self._old[start + i] if old else self._out[start + i]
        return Copy(p, length, start, old)

    def _until(self, p: int, end: int) -> int:
        """Where units from ``p`` on must end: units do not reach into the digest."""
        return self._digest[0] if p < self._digest[0] < end else end

    def _calculated(self, p: int, end: int) -> bool:
        """Whether the digest lies at ``p``; then it is there now."""
        place, hashed = self._digest
        if not place or p != place:
            return False
        if end - p < DIGEST:
            raise malformed("a segment ends in its digest")
        self._out[p : p + DIGEST] = hashlib.sha256(self._out[:hashed]).digest()
        return True

    def _train(self, data: bytes | bytearray, p: int, end: int) -> None:
        """Learn from bytes that are known as if they were new."""
        while p < end:
            size = self._new_size(p, end)
            self._new(data, p, size, _little(data, p, size), known=True)
            p += size

    def _new_size(self, p: int, end: int) -> int:
        align = self._code.align
        return 1 if p & align or p + align >= end else align + 1

    def _new(
        self, data: bytes | bytearray, p: int, size: int, actual: int, *, known: bool = False
    ) -> int:
        byte = self._coder.byte
        b1, b2, b3, b4 = (data[p - i] if p >= i else 0 for i in (1, 2, 3, 4))
        if size == 1:
            return byte(
                (0x60000000, 0x61000000 | b1),
                (0x62000000 | b1 << 8 | b2, 0x63000000 | b1 << 16 | b2 << 8 | b3, 0x64000000 | b2),
                _MIX_BYTE,
                actual,
                known=known,
            )
        if size == 2:
            high = byte(
                (0x50000000, 0x51000000 | b1),
                (
                    0x52000000 | b1 << 8 | b2,
                    0x53000000 | b1 << 8 | b3,
                    0x54000000 ^ (b1 << 24 | b2 << 16 | b3 << 8 | b4) * 0x2F0B4C47 & MASK32,
                ),
                _MIX_HIGH,
                actual >> 8,
                known=known,
            )
            low = byte(
                (0x57000000, 0x58000000 | high, 0x59000000 | high << 8 | b1),
                (
                    0x5A000000 | high << 8 | b1,
                    0x5B000000 | high << 16 | b1 << 8 | b2,
                    0x5C000000 ^ (high << 24 | b1 << 16 | b2 << 8 | b3) * 0x2F0B4C47 & MASK32,
                ),
                _MIX_LOW,
                actual & 255,
                known=known,
            )
            return high << 8 | low
        made = 0
        for j, before in zip((3, 2, 1, 0), (b1, b2, b3, b4), strict=True):
            tag = 0x70000000 | j << 24
            value = byte(
                (tag, tag ^ 0x04000000 ^ (made & 255), tag ^ 0x08000000 ^ before),
                (
                    tag ^ 0x0C000000 ^ (made & 0xFFFF),
                    tag ^ (made & 255) << 8 ^ before << 16,
                    tag ^ 0x84000000 ^ (made << 8 | before) * 0x2F0B4C47 & MASK32,
                ),
                _MIX_WORD if j == 3 else _MIX_HIGH if j == 2 else _MIX_LOW,
                actual >> 8 * j & 255,
                known=known,
            )
            made = made << 8 | value
        return made


def _little(data: bytes | bytearray, at: int, size: int) -> int:
    return int.from_bytes(data[at : at + size], "little")
