"""Tries where an update must lie in the flash for the firmware to take it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from unbrick.draft.boot import boot
from unbrick.draft.places import list_blank_reads, list_ends
from unbrick.image.mcuboot import TRAILER_MAGIC
from unbrick.target.description import put_pieces
from unbrick.target.files import Piece, is_elf

if TYPE_CHECKING:
    from collections.abc import Sequence

    from unbrick.draft.boot import Boot
    from unbrick.draft.draft import Draft
    from unbrick.draft.inputs import Input

PLACES_MOST = 16
"""So many places are tried; a start takes up to seconds."""

CONFIRMED = b"\x01".ljust(8, b"\xff")
"""MCUboot's `image_ok`, before the magic: the image stays. Where it writes more than 8 bytes at
once, the flag lies elsewhere, and this has no say."""

SLOTS = {"image-1", "slot1", "mcuboot_secondary"}
"""What Zephyr and the nRF Connect SDK call the partition where an update lies."""


@dataclass(frozen=True)
class Staging:
    """An update that lies somewhere when the firmware starts.

    Attributes:
        update: the update, in its place.
        trailer: what lies at the end of its slot; None: nothing.
        came: what came of it.
        again: what came of the next start; None: it was not tried.
        fresh: whether the console says what it does not say without the update.
    """

    update: Input
    trailer: Piece | None
    came: Boot
    fresh: bool
    again: Boot | None = None

    @property
    def score(self) -> tuple[bool, bool, int]:
        """Higher is better."""
        return self.came.ops > 0, self.fresh, self.came.ops


def start(draft: Draft, files: Sequence[Input], further: Sequence[Piece] = ()) -> Boot:
    """Start a chip with files in its flash."""
    pieces = [*(piece for one in files for piece in one.pieces), *draft.options, *further]
    image = put_pieces(draft.chip, draft.chip.factory_image, pieces)
    symbols = [one.symbols or one.path for one in files if one.symbols or is_elf(one.path)]
    return boot(draft.chip, draft.base, image, symbols)


def find_staging(draft: Draft, update: Input, before: Boot) -> Staging | None:
    """The place at which the firmware does most about an update; None: it does nothing at any.

    Args:
        draft: what is known by now.
        update: what is staged.
        before: what came of a start without it.
    """
    tried: list[Staging] = []
    for at in _list_stages(draft, update, before)[:PLACES_MOST]:
        moved = update if update.fixed else update.put(at)
        if any(one.overlaps(moved) for one in draft.firmware):
            continue
        alone = _try(draft, moved, None)
        trailers = _list_trailers(draft, moved, (*before.reads, *alone.came.reads))
        tried += [alone, *(_try(draft, moved, trailer) for trailer in trailers)]
    best = max(tried, key=lambda one: one.score, default=None)
    if best is None or not best.came.ops:
        return None
    return replace(best, again=boot(draft.chip, draft.base, best.came.image))


def _try(draft: Draft, update: Input, trailer: Piece | None) -> Staging:
    came = start(draft, (*draft.firmware, update), (trailer,) if trailer else ())
    lines = came.lines.get(draft.console, ())
    return Staging(update, trailer, came, any(line not in draft.old for line in lines))


def _list_stages(draft: Draft, update: Input, before: Boot) -> list[int]:
    """Where the update may have to lie, the likeliest place first."""
    if update.fixed or not any(one.overlaps(update) for one in draft.firmware):
        return [update.pieces[0].address]
    slots = [at for name, at, _ in draft.partitions if name in SLOTS]
    return slots or list_blank_reads(draft.chip, draft.base, draft.firmware, before.reads)


def _list_trailers(draft: Draft, update: Input, reads: Sequence[tuple[int, int]]) -> list[Piece]:
    """What may have to lie at the end of its slot, for MCUboot to try it."""
    if not update.version or update.has_trailer:
        return []
    begin = update.pieces[0].address
    ends = [at + size for _, at, size in draft.partitions if at == begin]
    if not ends:
        found = (
            end for first, last in reads for end in list_ends(draft.chip, draft.base, first, last)
        )
        ends = sorted({end for end in found if end > update.pieces[-1].end})
    trailer = CONFIRMED + TRAILER_MAGIC
    return [Piece(end - len(trailer), trailer) for end in ends[:PLACES_MOST]]


def find_running(draft: Draft, update: Input, came: Boot) -> Input | None:
    """The update where the core is in it at the end, if all of it is there; None: it is not."""
    files = (update,) if update.at is None else (*draft.firmware, update)
    for at in dict.fromkeys(one.pieces[0].address for one in files):
        if at <= came.pc < at + len(update.data):
            offset = draft.chip.image_offset(at)
            if came.image[offset : offset + len(update.data)] == update.data:
                return update if update.at is None else update.put(at)
    return None


def find_reverted(draft: Draft, staging: Staging) -> Input | None:
    """The old image, if the device goes back to it at the start after its update."""
    if staging.again is None or find_running(draft, staging.update, staging.again):
        return None
    for old in draft.firmware:
        if old.at is not None and find_running(draft, old, staging.again):
            return old
    return None
