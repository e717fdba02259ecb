"""Canonical forms: cells that no run of the firmware can tell apart count as one state.

Without them a search over power cuts would never meet a state again: the record logs grow with
every write, and every torn operation leaves other cells behind. What is left out, and why that is
sound:

- **Record logs** (journal, phonebook). The firmware asks of a slot whether it is blank, all zero,
  valid, or none of these (*torn*), and of a header whether it is valid. A slot counts as the answer
  to that question, with its payload when it is valid. Cleared (all-zero) slots are passed over, so
  how many there are is left out; so are, in the journal, records older than the newest, which is
  the whole state. Boot asks one thing more of a journal that says IDLE: whether one cleared slot is
  behind that record, and nothing else, for then it is sure (decision 0029). Of generations only the
  order of the halves counts. How many slots are free is left out while they are more than
  ``PLENTY``; scenarios that begin with a nearly full log search compaction. A half is erased before
  it is used: while its header is not valid its slots are left out, and so are those of the older of
  two halves with valid headers.
- **Application.** Boot asks whether it is valid, and the rewrite erases a block that differs at
  all. An image whose hash is right counts as its bytes, for the hash does not cover the signature.
  A damaged one counts as how far a check of it comes: whether it has a header, which, and whether
  TLVs follow where that says (``_damage``). So firmware that checks less than all is told apart.
- **Application under command.** Only while the journal says so (phase COMMANDED) is it rewritten
  step by step over power cuts, and only then does anything else than its validity count; what
  is not COMMANDED begins again with a valid image and an erase. What the steps ask of the cells:
  an erase nothing; a write whether its data can be programmed over what is there, and then it
  programs all of that, also what is there already; a check and the verdict at the end whether what
  is there is what is wanted. A step whose result the server does not know is given again. So the
  range of a write that is not over is *open* as long as its data can be programmed: blank, torn on
  the way or all there. What was written, and what lies between, is *done* when it is as wanted.
  All else counts cell by cell. Blocks whose erase is still to come do not count. What the steps
  are the server knows: this part of the form needs its plan. When weak cells make no difference
  here in any way of reading, they are none: the write that is to come makes them sure.
- **Journal under command.** At every start boot writes the journal's state once more before
  anything else is looked at, and how it does that depends on nothing else. So for a journal that
  says COMMANDED in every way of reading, and has torn or weak slots besides, it is left out how far
  the steps are (``is_repaired_first``): what it is like when boot has repaired it is a state of its
  own, which was met before, for it is the one in which boot had begun to write.
- **Count of starts.** Every start clears the next bit and uses its number alone, so how many there
  are is left out. It gives messages other bytes, and a session some nanoseconds more or less. Where
  the power was cut in that, bits may be weak, or a 0 may come after a 1. No start reads the counter
  before boot starts a program, and boot makes a bit sure then that has no number yet. So such a
  state goes on as the one without doubt does, which is met besides, and only the counter is to be
  tried: all states count as one in which it is in doubt and boot starts the same (``name_doubt``).
- **Weak cells.** Each of these answers is taken in every way in which weak cells may read. What
  counts is the answer where all of them read as 1, for a torn operation begins with that; and which
  answers there are, for each of them has a session. Which of the other ways gives which answer does
  not count. Where few cells are weak, their mixed way is like one of the others by chance, and that
  chance lies in cells that are left out.

Everything else counts as it is.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from dataclasses import dataclass
from enum import IntEnum
from functools import cache, cached_property, lru_cache, wraps
from operator import itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple, ParamSpec, TypeVar

from unbrick.flash.bits import intersect, strip_ones
from unbrick.flash.cells import RESOLUTIONS
from unbrick.image import mcuboot
from unbrick.image.examine import examine
from unbrick.reference.layout import SLOT_SIZE, find_places

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence

    from unbrick.flash.cells import Cells

HEADER = SLOT_SIZE
HEADER_USED = 20
PLENTY = 24  # more than an update makes sure of, and than a session uses up besides
IDLE = 0
"""The journal's phase while nothing is under way."""

REWRITING = 1
"""The journal's phase while the application is replaced, in one go."""

COMMANDED = 4
"""The journal's phase, the first byte of a record, while the server commands what is rewritten."""


CACHE_SIZE = 128 << 20
"""Bytes of the questions that a function here keeps the answers to."""

P = ParamSpec("P")
R = TypeVar("R")


def _keep_latest(function: Callable[P, R]) -> Callable[P, R]:
    """A pure function that knows its result as long as it is asked the same.

    States that follow each other share most blocks as objects, and those are equal at once. A cache
    of many results holds others, and has to compare all their bytes.
    """
    latest: list[tuple[tuple[object, ...], R]] = []

    @wraps(function)
    def ask(*args: P.args, **kwargs: P.kwargs) -> R:
        asked = (*args, *kwargs.items())
        result = latest[0][1] if latest and latest[0][0] == asked else function(*args, **kwargs)
        latest[:] = [(asked, result)]
        return result

    return ask


def _keep_some(function: Callable[P, R]) -> Callable[P, R]:
    """A pure function that knows its latest results, as long as what was asked has its bounds.

    ``lru_cache`` bounds how many there are. Blocks of a large image would take gigabytes so.
    """
    known: dict[object, R] = {}
    total = 0

    @wraps(function)
    def ask(*args: P.args, **kwargs: P.kwargs) -> R:
        nonlocal total
        asked: object = (args, *kwargs.items()) if kwargs else args
        if asked in known:
            return known[asked]
        result = known[asked] = function(*args, **kwargs)
        total += _find_size(asked)
        while total > CACHE_SIZE:
            oldest = next(iter(known))
            del known[oldest]
            total -= _find_size(oldest)
        return result

    return ask


def _find_size(asked: object) -> int:
    """Bytes of what was asked, in strings and tuples of them; others are small."""
    if isinstance(asked, tuple):
        return sum(map(_find_size, asked))
    return len(asked) if isinstance(asked, bytes) else 0


@dataclass(frozen=True, eq=False)
class Plan:
    """What the server's steps make of the application's partition.

    Attributes:
        image: that they make.
        writes: (offset in the NOR, bytes, whether it is over) of each range that they write.
        to_erase: offsets of the blocks whose erase is not done for sure.

    Only the same object is equal: see :func:`make_plan`.
    """

    image: bytes
    writes: tuple[tuple[int, int, bool], ...]
    to_erase: frozenset[int]

    @cached_property
    def blocks(self) -> dict[int, _BlockPlan]:
        """What is made of the application's blocks, by the numbers of these."""
        writes = sorted(self.writes)
        spans = tuple((offset, length) for offset, length, _ in writes)
        overs = [*(over for *_, over in writes), True]
        found: dict[int, _BlockPlan] = {}
        for number, offset, parts in _cut_image(self.image, spans):
            erased = 2 * (offset in self.to_erase)
            ranges = tuple(ways[erased + overs[write]] for write, ways in parts)
            found[number] = _make_block_plan(ranges)
        return found


@lru_cache(maxsize=1 << 16)
def _slice(image: bytes, begin: int, end: int) -> bytes:
    """A part of an image, once for all plans that have it."""
    return image[begin:end]


class _Range(NamedTuple):
    """A part of an image that lies in one block: where in the NOR and in the block, and what."""

    begin: int
    start: int
    wanted: bytes
    over: bool
    to_be_erased: bool


@dataclass(frozen=True, eq=False)
class _BlockPlan:
    """The ranges of an image that lie in a block. Only the same object is equal."""

    ranges: tuple[_Range, ...]


@lru_cache(maxsize=1024)
def _make_block_plan(ranges: tuple[_Range, ...]) -> _BlockPlan:
    """The plan of a block, once: most are the same in plans that follow each other."""
    return _BlockPlan(ranges)


@lru_cache(maxsize=16)
def _cut_image(
    image: bytes, spans: tuple[tuple[int, int], ...]
) -> list[tuple[int, int, list[tuple[int, tuple[_Range, ...]]]]]:
    """An image cut at the borders of what is written and of blocks.

    It is the same whatever the server thinks in a session.

    Args:
        image: that is wanted.
        spans: (offset in the NOR, bytes) of each write, in the order of the offsets.

    Returns:
        The number of each block, its offset in the NOR, and its parts: the number of the write that
        makes it, -1: nothing writes it; and the part as it is when that is not over, or over, then
        the same when the block is to be erased.
    """
    block, application = find_places().block, find_places().application
    parts: dict[int, list[tuple[int, tuple[_Range, ...]]]] = {}

    def cut(begin: int, end: int, write: int) -> None:
        while begin < end:
            first = begin - application.offset
            number, start = divmod(first, block)
            size = min(end - begin, block - start)
            wanted = _slice(image, first, first + size)
            ways = tuple(
                _Range(begin, start, wanted, over, erased)
                for erased in (False, True)
                for over in (False, True)
            )
            parts.setdefault(number, []).append((write, ways))
            begin += size

    at = application.offset
    end = at + len(image)
    for write, (offset, length) in enumerate(spans):
        cut(at, offset, -1)
        cut(offset, min(end, offset + length), write)
        at = max(at, offset + length)
    cut(at, end, -1)
    return [(number, application.offset + number * block, parts[number]) for number in parts]


@lru_cache(maxsize=1024)
def make_plan(
    image: bytes, writes: tuple[tuple[int, int, bool], ...], to_erase: frozenset[int]
) -> Plan:
    """The plan, once: it is compared with every state of the NOR."""
    return Plan(image, writes, to_erase)


def read_valid_header(half: bytes) -> tuple[int, int] | None:
    """Generation and format of a half with a valid header, else None."""
    return _read_header(half[:HEADER_USED].ljust(HEADER_USED, b"\xff"))


@lru_cache(maxsize=4096)
def _read_header(header: bytes) -> tuple[int, int] | None:
    magic, layout, generation, _, crc = struct.unpack("<5I", header)
    valid = crc == zlib.crc32(header[:16]) and magic not in {0, 0xFFFFFFFF}
    return (int(generation), int(layout)) if valid else None


def _slot(raw: bytes) -> bytes | str:
    if not raw.strip(b"\xff"):
        return "blank"
    if not raw.strip(b"\0"):
        return "zero"
    if zlib.crc32(raw[:-4]) == struct.unpack_from("<I", raw, SLOT_SIZE - 4)[0]:
        return raw
    return "torn"


@_keep_some
def _half(
    half: bytes, *, newest_only: bool
) -> tuple[tuple[bytes | str, ...], int, tuple[bytes | str, ...], bool]:
    """The slots of a half with a valid header, up to the first blank one and what may follow it.

    The last item is whether boot writes the newest record again before all else: it says IDLE, and
    was not sealed.
    """
    raw = half + b"\xff" * (-len(half) % SLOT_SIZE)
    slots = [_slot(raw[at : at + SLOT_SIZE]) for at in range(HEADER, len(raw), SLOT_SIZE)]
    used = slots.index("blank") if "blank" in slots else len(slots)
    free = (find_places().block - HEADER) // SLOT_SIZE - used
    beyond = tuple(slots[used:])
    kept = slots[:used]
    doubted = False
    if newest_only:
        records = [i for i, slot in enumerate(kept) if isinstance(slot, bytes)]
        kept = kept[records[-1] :] if records else kept
        doubted = bool(records) and kept[0][0] == IDLE and kept[1:] != ["zero"]
    return (tuple(slot for slot in kept if slot != "zero"), min(free, PLENTY), beyond, doubted)


def find_newest(half: bytes) -> bytes | None:
    """The newest valid record of a half with a valid header; None when there is none."""
    records = _half(strip_ones(half), newest_only=True)[0]
    return next((slot for slot in records if isinstance(slot, bytes)), None)


def _halves(cells: Cells, offset: int) -> tuple[bytes, bytes]:
    """The two blocks of a record log that begins at an offset."""
    number = offset // find_places().block
    return cells.blocks[number], cells.blocks[number + 1]


@_keep_some
def _log(first: bytes, second: bytes, *, newest_only: bool) -> tuple[object, ...]:
    """The form of a record log with these halves."""
    headers = read_valid_header(first), read_valid_header(second)
    forms = [
        ("none", _slot(half[:HEADER].ljust(HEADER, b"\xff")) in {"blank", "zero"})
        if header is None
        else ("log", header[1], _half(half, newest_only=newest_only))
        for half, header in zip((first, second), headers, strict=True)
    ]
    swapped = headers[0] is None or (
        headers[1] is not None and (headers[1][0] - headers[0][0]) % 2**32 < 2**31
    )
    newer, older = forms[::-1] if swapped else forms
    return newer, older[:2]


@_keep_some
def is_commanded(first: bytes, second: bytes) -> bool:
    """Whether the newest record of the journal says so, in either of its halves."""
    for half in (first, second):
        if read_valid_header(half) is not None:
            kept = _half(half, newest_only=True)[0]
            if any(isinstance(slot, bytes) and slot[0] == COMMANDED for slot in kept):
                return True
    return False


@_keep_latest
def _image(blocks: tuple[bytes, ...]) -> tuple[object, ...]:
    """What names an image whose hash is right: all its bytes; or how a damaged one is damaged.

    The signature is not looked at here, and the hash does not cover it: so it counts as it is.
    """
    first = blocks[0]
    if len(first) < HEADER or struct.unpack_from("<I", first)[0] != mcuboot.MAGIC:
        return _damage(first)
    return _name_image(blocks)


@_keep_some
def _name_image(blocks: tuple[bytes, ...]) -> tuple[object, ...]:
    """The name of an image that begins as one."""
    whole = b"".join(block.ljust(find_places().block, b"\xff") for block in blocks)
    found = examine(whole, trailing=True)
    if found.problems:
        return _damage(whole)
    return ("whole", hashlib.sha256(whole[: found.size]).digest())


def _damage(image: bytes) -> tuple[object, ...]:
    """How far a check of a damaged image comes: to its header, to its TLVs, or to its end."""
    header = image[: mcuboot.HEADER.size].ljust(mcuboot.HEADER.size, b"\xff")
    if struct.unpack_from("<I", header)[0] != mcuboot.MAGIC:
        return ("no header", not header.strip(b"\xff"))
    _, _, header_size, _, body_size, *_ = mcuboot.HEADER.unpack(header)
    tlvs = image[header_size + body_size :][:2].ljust(2, b"\xff")
    begun = int.from_bytes(tlvs, "little") in {mcuboot.TLV_INFO_MAGIC, mcuboot.TLV_PROTECTED_MAGIC}
    return ("damaged", header, begun)


@_keep_latest
def _under_command(blocks: tuple[bytes, ...], plan: Plan) -> tuple[object, ...]:
    """How far each range of the image is; what is done besides the ranges named is not named."""
    forms = (
        _block_under_command(blocks[number], number, block_plan)
        for number, block_plan in plan.blocks.items()
    )
    return tuple(filter(None, forms))


@_keep_some
def _block_under_command(block: bytes, number: int, plan: _BlockPlan) -> tuple[object, ...]:
    """What each range in a block is unless it is done: kind, where, contents."""
    forms: list[tuple[str, int, str]] = []
    for begin, start, wanted, over, to_be_erased in plan.ranges:
        if to_be_erased:
            forms.append(("to be erased", number, ""))
            continue
        if not over and start >= len(block):  # It is blank.
            forms.append(("open", begin, ""))
            continue
        there = block[start : start + len(wanted)].ljust(len(wanted), b"\xff")
        if not over and (there == wanted or intersect(there, wanted) == wanted):
            forms.append(("open", begin, ""))
        elif there != wanted:
            forms.append(("other", begin, hashlib.sha256(there).hexdigest()))
    return tuple(dict.fromkeys(forms))


@_keep_latest
def _read(cells: Cells) -> tuple[Cells, ...]:
    """The cells in every way in which weak ones may read."""
    return tuple(cells.readings())


class Part(IntEnum):
    """What the NOR is divided into: four partitions, and all that is plain."""

    PLAIN = 0
    APPLICATION = 1
    JOURNAL = 2
    USERDATA = 3
    STARTS = 4


@cache
def list_parts() -> tuple[Part, ...]:
    """The part that each block belongs to."""
    places = find_places()
    named = {
        Part.APPLICATION: places.application,
        Part.JOURNAL: places.journal,
        Part.USERDATA: places.userdata,
        Part.STARTS: places.starts,
    }
    return tuple(
        next((part for part, at in named.items() if at.offset <= start < at.end), Part.PLAIN)
        for start in places.geometry.starts
    )


@dataclass(frozen=True, eq=False)
class Held:
    """What counts of what a part holds. Only the same object is equal.

    Attributes:
        weak: whether weak cells begin there.
        ways: it, for each way in which weak cells may read; one: it is the same in all.
    """

    weak: bool
    ways: tuple[Any, ...]

    def read(self, way: int) -> Any:
        """It, in one way of reading."""
        return self.ways[way if len(self.ways) > 1 else 0]


class _JournalForm(NamedTuple):
    """What counts of a journal.

    Attributes:
        log: its form.
        phases: those that its newest records say.
        commanded: whether one of these is COMMANDED.
        torn: whether a half has a header or slots that are torn.
    """

    log: tuple[object, ...]
    phases: frozenset[int | bytes | None]
    commanded: bool
    torn: bool


@_keep_some
def _form_journal(first: bytes, second: bytes) -> _JournalForm:
    """The form of a journal with these halves."""
    newest = [find_newest(half) for half in (first, second) if read_valid_header(half) is not None]
    return _JournalForm(
        _log(first, second, newest_only=True),
        frozenset(record and record[0] for record in newest),
        is_commanded(first, second),
        _is_torn(first, second),
    )


def _form_part(cells: Cells, part: Part) -> object:
    """What counts of what a part holds, where no cell is weak."""
    known, blocks = find_places(), cells.blocks
    if part is Part.PLAIN:
        return itemgetter(*known.plain_blocks)(blocks)
    if part is Part.APPLICATION:
        return _image(_find_application(cells))
    if part is Part.JOURNAL:
        return _form_journal(*_halves(cells, known.journal.offset))
    if part is Part.USERDATA:
        return _log(*_halves(cells, known.userdata.offset), newest_only=False)
    return _count(blocks[known.starts.offset // known.block])


def _find_application(cells: Cells) -> tuple[bytes, ...]:
    """The blocks of the application."""
    numbers = find_places().application_blocks
    return cells.blocks[numbers.start : numbers.stop]


def hold_part(cells: Cells, part: Part) -> Held:
    """What counts of what a part holds. The rest of the cells is not looked at, but for weak ones.

    Args:
        cells: the NOR.
        part: the part of it.
    """
    parts, block = list_parts(), find_places().block
    weak = any(parts[offset // block] is part for offset, _ in cells.weak)
    return Held(weak, tuple(_form_part(reading, part) for reading in _read(cells)))


def hold(cells: Cells) -> tuple[Held, ...]:
    """What counts of what each part holds, in the order of the parts."""
    return tuple(hold_part(cells, part) for part in Part)


def hold_under_command(cells: Cells, plan: Plan) -> Held:
    """What counts besides of the application, where the journal says COMMANDED.

    Args:
        cells: the NOR. The rest of it is not looked at, but for weak cells.
        plan: of the commanded update that is under way on the server.
    """
    ways = tuple(_under_command(_find_application(reading), plan) for reading in _read(cells))
    return Held(weak=False, ways=ways)


def is_repaired_first(journal: Held) -> bool:
    """Whether boot only repairs a journal that says COMMANDED, whatever else there is."""
    forms: tuple[_JournalForm, ...] = journal.ways
    return all(form.commanded for form in forms) and (
        journal.weak or any(form.torn for form in forms)
    )


def is_under_command(journal: Held) -> bool:
    """Whether the journal says COMMANDED in a way of reading, so that a plan counts."""
    return any(form.commanded for form in journal.ways)


def _is_torn(first: bytes, second: bytes) -> bool:
    """Whether a half of the journal has a header or slots that are torn."""
    for half in (first, second):
        if read_valid_header(half) is None:
            if half.strip(b"\xff"):
                return True
        else:
            kept, _, beyond, _ = _half(half, newest_only=True)
            if "torn" in kept or any(slot != "blank" for slot in beyond):
                return True
    return False


COUNT_WORD = 4
"""Bytes of the counter of starts that are programmed together."""


@_keep_some
def _count(block: bytes) -> tuple[bool, bool]:
    """What the counter of starts is besides its count.

    Whether a blank word lies before another one, and whether its last word has a 1 before a 0.
    """
    words = [block[at : at + COUNT_WORD] for at in range(0, len(block), COUNT_WORD)] or [b""]
    used = ~int.from_bytes(words[-1].ljust(COUNT_WORD, b"\xff"), "little") % (1 << 8 * COUNT_WORD)
    return b"\xff" * COUNT_WORD in words[:-1], used & (used + 1) != 0


def name_doubt(parts: Sequence[Held]) -> Hashable | None:
    """What states share in which the count of starts is in doubt; None: it is in none.

    That is what boot may start. Of the bits behind the last one that is 0 for sure, whatever reads
    as 0, a start uses the one behind the last 0, and clears all before it in that word.
    """
    starts, journal, application = (
        parts[part] for part in (Part.STARTS, Part.JOURNAL, Part.APPLICATION)
    )
    if not starts.weak and not starts.read(0)[1]:
        return None
    started = frozenset(
        (journal.read(way).phases, application.read(way)[0]) for way in _list_ways(parts)
    )
    return "in doubt", starts.weak, started


def _list_ways(parts: Sequence[Held]) -> range:
    """The ways in which the weak cells of a NOR may read."""
    return range(RESOLUTIONS if any(held.weak for held in parts) else 1)


def _form(parts: Sequence[Held], under: Held | None, way: int) -> tuple[object, ...]:
    plain, image, journal, userdata, starts = (held.read(way) for held in parts)
    commanded = under is not None and journal.commanded
    return (
        plain,
        ("under command",) if commanded and image[0] != "whole" else image,
        journal.log,
        userdata,
        starts[0],
        under.read(way) if under is not None and commanded else (),
    )


def join(parts: Sequence[Held], under: Held | None = None) -> tuple[object, ...]:
    """The canonical form of a NOR: see :func:`canonicalise`.

    Args:
        parts: what counts of each part.
        under: what counts besides of the application, where a commanded update is under way.
    """
    forms = tuple(_form(parts, under, way) for way in _list_ways(parts))
    weak = [part for part in Part if parts[part].weak]
    if not weak:
        return forms[0]
    if weak == [Part.APPLICATION] and forms[0][-1] and len(set(forms)) == 1:
        return forms[0]
    return forms[0], frozenset(forms)


def canonicalise(cells: Cells, plan: Plan | None = None) -> tuple[object, ...]:
    """What two states of the NOR share exactly when they count as one; hashable.

    Args:
        cells: the NOR.
        plan: of the commanded update that is under way on the server, if there is one.
    """
    parts = hold(cells)
    if plan is None or not is_under_command(parts[Part.JOURNAL]):
        return join(parts)
    return join(parts, hold_under_command(cells, plan))
