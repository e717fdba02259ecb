"""What a target's file will say: worked out from the files, by starting them, and by asking."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Protocol

from unbrick.board import load_chip
from unbrick.draft.chips import fits_into, is_sure, rank_chips
from unbrick.draft.inputs import find_likeness
from unbrick.draft.places import find_base, has_start, list_blank_reads, list_places
from unbrick.draft.staging import find_reverted, find_running, find_staging, start
from unbrick.errors import SetupError
from unbrick.target.drivers import DRIVERS
from unbrick.target.files import Piece, is_elf

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from unbrick.board.mcu import McuChip
    from unbrick.draft.boot import Boot
    from unbrick.draft.inputs import Input
    from unbrick.draft.zephyr import Build

NOTHING = "none"
"""What a person answers when there is no such file."""

SHOWN = 3
"""Lines of a console that are shown: its last ones."""


class Asking(Protocol):
    """Somebody who knows more than the files."""

    def choose(self, question: str, choices: Sequence[str], option: str) -> str:
        """One of several; the first is the likeliest."""

    def tell(self, question: str, default: str, option: str) -> str:
        """A text, which may be the default."""

    def find(self, question: str, unknown: SetupError) -> int:
        """An address.

        Raises:
            SetupError: nobody knows: that is ``unknown``.
        """

    def note(self, heading: str, text: str) -> None:
        """Hear what was found."""


@dataclass(frozen=True)
class Wishes:
    """What was said with the call. What is empty is worked out, or asked.

    Attributes:
        chip: its name, or the path of its file.
        console: name of a UART.
        update: the file that is the update.
        driver: what sends it.
        after: what the device says before it can be sent.
        typed: what must then be typed.
        says: what the device says once it is updated.
        build: a Zephyr build folder.
    """

    chip: str = ""
    console: str = ""
    update: Path | None = None
    driver: str = ""
    after: str = ""
    typed: str = ""
    says: tuple[str, ...] = ()
    build: Build | None = None


@dataclass(frozen=True)
class Draft:
    """What a target's file will say.

    Attributes:
        chip: the chip.
        chip_name: how the file names it.
        base: where the files have its main flash.
        others: chips on which the files run as well.
        firmware: what is flashed before the update.
        options: option bytes that the files need.
        console: name of a UART; empty: none spoke.
        update: what is staged or sent; None: nothing is.
        staged: whether it is staged, and nobody sends it.
        trailer: bytes of MCUboot that have a staged image tried; None: there are none.
        driver: what sends it; empty: nothing does.
        after: what the device says before.
        typed: what is then typed.
        says: what it says once it is updated.
        old: what it says without the update.
        runs: the image that the core is in at the end; None: it is not known.
        reverted: the old image, where the device goes back to it at its next start.
        seconds: virtual seconds that the update took.
        partitions: name, address and size of parts of the flash.
    """

    chip: McuChip
    chip_name: str
    base: int
    others: tuple[str, ...] = ()
    firmware: tuple[Input, ...] = ()
    options: tuple[Piece, ...] = ()
    console: str = ""
    update: Input | None = None
    staged: bool = False
    trailer: Piece | None = None
    driver: str = ""
    after: str = ""
    typed: str = ""
    says: tuple[str, ...] = ()
    old: tuple[str, ...] = ()
    runs: Input | None = None
    reverted: Input | None = None
    seconds: float = 0.0
    partitions: tuple[tuple[str, int, int], ...] = ()
    symbols: tuple[Path, ...] = field(default=(), repr=False)


def make_draft(inputs: Sequence[Input], wishes: Wishes, asking: Asking) -> Draft:
    """Work out what a target's file says.

    Args:
        inputs: the files, in the order in which they were named.
        wishes: what was said with the call.
        asking: is asked what is left.

    Raises:
        SetupError: no chip has room for them, or nobody knows what must be known.
    """
    files = _tie_symbols(inputs, wishes.update)
    draft = _choose_base(_choose_chip(files, wishes, asking), files, asking)
    if wishes.build is not None:
        parts = tuple(
            (name, draft.base + at, size)
            for name, at, size in wishes.build.partitions
            if at + size <= draft.chip.main.size
        )
        draft = replace(draft, partitions=parts)
    files = _place_all(draft, files, wishes, asking)
    draft = _split_update(draft, files, wishes, asking)
    if not has_start(draft.chip, draft.firmware):
        raise SetupError(
            f"nothing lies at {draft.base:#x}, where a {draft.chip.name} starts",
            hint="name the bootloader, too",
        )
    before = _start(draft, asking)
    draft = _choose_console(draft, before, wishes, asking)
    if draft.update is None:
        asking.note("update", "none: so there is likely nowhere to cut; --update names one")
        return _choose_words(draft, before.lines.get(draft.console, ()), wishes, asking)
    if wishes.driver:
        return replace(
            draft,
            driver=wishes.driver,
            after=wishes.after or (draft.old[-1] if draft.old else ""),
            typed=wishes.typed,
            says=wishes.says,
        )
    return _stage(draft, draft.update, before, wishes, asking)


def _tie_symbols(inputs: Sequence[Input], update: Path | None) -> list[Input]:
    """The files that are flashed; an ELF file of which another one was made is its symbols."""
    elves = [one for one in inputs if one.path != update and is_elf(one.path)]
    alike = {
        one.path: {elf.path: find_likeness(one, elf) for elf in elves}
        for one in inputs
        if not is_elf(one.path)
    }
    most = {elf.path: max((row[elf.path] for row in alike.values()), default=0.0) for elf in elves}
    tied: list[Input] = []
    used: set[Path] = set()
    for one in inputs:  # an older version of the image is like the file, too, but less so
        row = [(like, path) for path, like in alike.get(one.path, {}).items() if like == most[path]]
        likeness, path = max(row, default=(0.0, one.path))
        tied.append(replace(one, symbols=path) if likeness else one)
        used |= {path} if likeness else set()
    return [one for one in tied if one.path not in used]


def _choose_chip(files: Sequence[Input], wishes: Wishes, asking: Asking) -> Draft:
    words = wishes.build.words if wishes.build else ""
    if wishes.chip:
        chip = load_chip(wishes.chip)
        for one in files:
            if not fits_into(chip, one):
                raise SetupError(
                    f"{one.path} does not fit into a {chip.name}",
                    hint="name another --chip, or leave it out",
                )
        return Draft(chip, wishes.chip, chip.main.base)
    fits = rank_chips(files, words)
    names = [fit.chip.name for fit in fits if fit.family == fits[0].family]
    name = names[0]
    if not is_sure(fits):
        name = asking.choose("Which chip is it?", names, "--chip")
    asking.note("chip", f"{name}, {load_chip(name).core}")
    chip = load_chip(name)
    return Draft(chip, name, chip.main.base, tuple(other for other in names if other != name))


def _choose_base(draft: Draft, files: Sequence[Input], asking: Asking) -> Draft:
    """At which address the files have the flash; only secure code has it at its second one."""
    chip, base = draft.chip, find_base(draft.chip, files)
    if base == chip.main.base:
        return draft
    if chip.secure_option is None:
        asking.note("flash", f"at {base:#x}, where {chip.name} has it, too")
        return replace(draft, base=base)
    asking.note("flash", f"at {base:#x}, for secure code: so its option is set")
    return replace(draft, base=base, options=(Piece(*chip.secure_option),))


def _place_all(draft: Draft, files: Sequence[Input], wishes: Wishes, asking: Asking) -> list[Input]:
    """Find out where each binary file lies: by its vectors, and by what the others read.

    A file that is sent as it is need not lie anywhere.
    """
    sent = wishes.update if wishes.driver and not is_addressed(wishes.driver) else None
    placed: list[Input] = [one for one in files if one.placed]
    for one in files:
        if one.placed or one.path == sent:
            continue
        reads = start(draft, placed).reads if has_start(draft.chip, placed) else ()
        places = list_places(draft.chip, draft.base, one)
        read = [at for at in places if any(at <= start < at + 0x40 for start, _ in reads)]
        if read or places:
            at = (read or places)[0]
            how = "the firmware looks there" if read else "its vectors lead there"
            asking.note(one.path.name, f"lies at {at:#x}: {how}")
        else:
            at = _ask_place(draft, one, placed, reads, asking)
        placed.append(one.put(at))
    order = [one.path for one in files]
    placed += [one for one in files if not one.placed and one.path == sent]
    return sorted(placed, key=lambda one: order.index(one.path))


def is_addressed(driver: str) -> bool:
    """Whether a driver sends addresses with its data, as far as that is known."""
    return driver not in DRIVERS or DRIVERS[driver].addressed


def _ask_place(
    draft: Draft,
    one: Input,
    placed: Sequence[Input],
    reads: Sequence[tuple[int, int]],
    asking: Asking,
) -> int:
    looked = list_blank_reads(draft.chip, draft.base, placed, reads)
    place = (looked or [draft.base])[0]
    where = f"; the firmware looks at {', '.join(map(hex, looked))}" if looked else ""
    return asking.find(
        f"Where does {one.path.name} lie?{where}",
        SetupError(
            f"nobody knows where {one.path} lies{where}",
            hint=f"write the address behind its name, as {one.path}@{place:#x}",
        ),
    )


def _split_update(draft: Draft, files: Sequence[Input], wishes: Wishes, asking: Asking) -> Draft:
    """Tell the update from what is flashed before it."""
    named = [one for one in files if one.path == wishes.update]
    update = named[0] if named else _guess_update(draft, files, asking)
    rest = tuple(one for one in files if one is not update)
    fixed = (update,) if update and update.fixed and not wishes.driver else ()
    ordered = sorted((*rest, *fixed), key=lambda one: one.pieces[0].address)
    for one, other in pairwise(ordered):
        if one.overlaps(other):
            raise SetupError(
                f"{one.path} and {other.path} both have bytes at {other.pieces[0].address:#x}",
                hint="leave one out, or give the update as a binary file, FILE.bin@ADDRESS",
            )
    return replace(draft, firmware=rest, update=update)


def _guess_update(draft: Draft, files: Sequence[Input], asking: Asking) -> Input | None:
    """What lies over something else is newer; of several programs the last one may be."""
    over = [
        newer
        for number, newer in enumerate(files)
        if any(newer.overlaps(old) for old in files[:number])
    ]
    if over:
        update = max(over, key=lambda one: (one.version, files.index(one)))
        older = next(one for one in files if one is not update and one.overlaps(update))
        if older.version > update.version:
            update = older
        asking.note("update", f"{update.path.name}, which takes the place of another file")
        return update
    programs = [one for one in files if one.vectors and one.pieces[0].address != draft.base]
    if len(programs) < 2:
        return None
    names = [programs[-1].path.name, *(one.path.name for one in programs[:-1]), NOTHING]
    chosen = asking.choose("Which file is the update?", names, "--update")
    return next((one for one in programs if one.path.name == chosen), None)


def _start(draft: Draft, asking: Asking) -> Boot:
    """Start what is flashed before the update."""
    found = start(draft, draft.firmware)
    if not found.lines:
        asking.note("boots", f"says nothing; at the end the core is at {found.pc:#x}")
    for uart, lines in found.lines.items():
        asking.note(uart, f"says {', '.join(map(repr, lines[-SHOWN:]))}")
    for fault in found.faults[:3]:
        asking.note("fault", str(fault))
    for waited in found.waits[:3]:
        asking.note("waits", str(waited))
    return found


def _choose_console(draft: Draft, before: Boot, wishes: Wishes, asking: Asking) -> Draft:
    speaking = list(before.lines)
    built = wishes.build.console(draft.chip.uarts) if wishes.build else ""
    if wishes.console or built:
        console = wishes.console or built
        if console not in draft.chip.uarts:
            raise SetupError(
                f"{draft.chip.name} has no UART {console!r}",
                hint=f"choose one of {', '.join(draft.chip.uarts)}",
            )
    elif len(speaking) > 1:
        console = asking.choose("Which UART is the console?", speaking, "--console")
    else:
        console = speaking[0] if speaking else next(iter(draft.chip.uarts), "")
    return replace(draft, console=console, old=before.lines.get(console, ()))


def _choose_words(draft: Draft, lines: Sequence[str], wishes: Wishes, asking: Asking) -> Draft:
    """What the device says once it has recovered."""
    new = [line for line in lines if line not in draft.old]
    likely = lines if draft.runs or not new else new  # what runs is known to be new by itself
    says = wishes.says
    if not says:
        question = "What does the device say once it has recovered?"
        said = asking.tell(question, likely[-1] if likely else "", "--says")
        if not said and not draft.runs:
            raise SetupError(
                "the device says nothing, so nobody knows when it has recovered",
                hint="give --says TEXT or another --console",
            )
        says = (said,) if said else ()
    return replace(draft, says=says)


def _stage(draft: Draft, update: Input, before: Boot, wishes: Wishes, asking: Asking) -> Draft:
    """Find where the update must lie for the firmware to take it, by trying."""
    best = find_staging(draft, update, before)
    if best is None:
        raise SetupError(
            f"the firmware does nothing about {update.path.name}, wherever it is staged",
            hint="say where it looks, --update FILE@ADDRESS, or what sends it, --driver NAME",
        )
    came, place = best.came, best.update.pieces[0].address
    asking.note("stage", f"{update.path.name} at {place:#x}: {came.ops:,} flash operations")
    lines = came.lines.get(draft.console, ())
    fresh = [line for line in lines if line not in draft.old]
    asking.note("then", f"says {', '.join(map(repr, (fresh or lines)[-SHOWN:])) or 'nothing'}")
    draft = replace(
        draft,
        update=best.update,
        staged=True,
        trailer=best.trailer,
        seconds=came.seconds,
        runs=find_running(draft, best.update, came),
        reverted=find_reverted(draft, best),
    )
    draft = _choose_words(draft, lines, wishes, asking)
    if draft.reverted is None:
        return draft
    asking.note("and then", f"starts {draft.reverted.path.name} again: nobody confirms the update")
    return replace(draft, says=tuple(dict.fromkeys((*draft.says, *draft.old[-1:]))))
