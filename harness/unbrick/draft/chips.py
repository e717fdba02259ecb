"""Which chip a firmware was built for, by where it lies, its stack, and what it uses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from unbrick.board import load_chip
from unbrick.board.device_models import MODELS
from unbrick.board.load_chip import list_chips
from unbrick.errors import SetupError
from unbrick.target.files import count_architectures, is_elf, read_firmware

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from unbrick.board.mcu import McuChip
    from unbrick.draft.inputs import Input, Vectors

_DEVICE_SIZE = 0x400
"""Bytes of registers that a device has at least."""

_NAME_LEAST = 8
"""Letters of a chip's name that must be in a file, such as ``nrf52840`` or ``stm32f10``."""


@dataclass(frozen=True)
class Fit:
    """How well a chip goes with the files.

    Attributes:
        chip: the chip.
        named: letters of its name that are in the files.
        controls: whether they use its flash controller.
        beyond: how many architectures its core runs, where a file says which one it is made for. A
            core that runs less is likelier.
        devices: how many of its devices they use.
        full: whether a stack begins at the end of its RAM.
    """

    chip: McuChip
    named: int
    controls: bool
    beyond: int
    devices: int
    full: bool

    @property
    def family(self) -> tuple[int, bool, int]:
        """Higher is better; chips that only differ in size are of one family."""
        return self.named, self.controls, -self.beyond

    @property
    def score(self) -> tuple[int, bool, int, bool, int]:
        """Higher is better."""
        return (*self.family, self.full, self.devices)


def rank_chips(inputs: Sequence[Input], words: str = "") -> list[Fit]:
    """The chips on which all files could run, the likeliest first.

    Args:
        inputs: the files.
        words: what else is known of the chip, in words.

    Raises:
        SetupError: there is none.
    """
    fits = [_fit(chip, inputs, words) for chip in map(load_chip, list_chips())]
    found = [fit for fit in fits if fit is not None]
    if not found:
        raise SetupError(
            f"no chip of Unbrick has {_tell_places(inputs)}",
            hint="name one with --chip, or write a file for yours (docs/chips.md)",
        )
    # Of two chips that only differ in size, the larger one takes all that the smaller one does.
    return sorted(found, key=lambda fit: (fit.score, fit.chip.main.size), reverse=True)


def is_sure(fits: Sequence[Fit]) -> bool:
    """Whether the first chip is better than the second by more than its size."""
    return len(fits) == 1 or fits[0].score > fits[1].score


def fits_into(chip: McuChip, one: Input) -> bool:
    """Whether a chip has flash wherever a file has bytes, and could run it."""
    for piece in one.pieces if one.placed else ():
        place = chip.find_flash(piece.address)
        if place is None or place[1] < len(piece.data):
            return False
    vectors = one.vectors
    if vectors is None:
        return True
    stack = _find_stack(chip, vectors)
    stacks = any(ram.base < stack <= ram.base + ram.size for _, ram in chip.rams)
    return stacks and chip.find_flash(vectors.handlers[0]) is not None


def _fit(chip: McuChip, inputs: Sequence[Input], words: str) -> Fit | None:
    if not all(fits_into(chip, one) and _has_core(chip, one) for one in inputs):
        return None
    constants = frozenset().union(*(one.constants for one in inputs))
    plain = {chip.plain_address(number) for number in constants}
    used = [device for device in chip.devices if _is_used(device.base, plain)]
    named = max((_count_letters(chip.name, text) for text in _list_words(inputs, words)), default=0)
    stacks = {_find_stack(chip, one.vectors) for one in inputs if one.vectors}
    return Fit(
        chip,
        named,
        any(MODELS[device.model].flash_regions for device in used),
        count_architectures(chip.core) if any(is_elf(one.path) for one in inputs) else 0,
        len(used),
        any(ram.base + ram.size in stacks for _, ram in chip.rams),
    )


def _find_stack(chip: McuChip, vectors: Vectors) -> int:
    """Where the stack begins; it may be the end of a RAM."""
    return chip.plain_address(vectors.stack - 4) + 4


def _has_core(chip: McuChip, one: Input) -> bool:
    if not is_elf(one.path):
        return True
    try:
        read_firmware(one.path, None, chip.core)
    except SetupError:
        return False
    return True


def _is_used(base: int, constants: Iterable[int]) -> bool:
    return any(base <= number < base + _DEVICE_SIZE for number in constants)


def _list_words(inputs: Sequence[Input], words: str) -> list[bytes]:
    return [words.lower().encode(), *(one.path.read_bytes().lower() for one in inputs)]


def _count_letters(name: str, text: bytes) -> int:
    """How many letters of a chip's name are in a text, from the first on."""
    for size in range(len(name), _NAME_LEAST - 1, -1):
        if name[:size].encode() in text:
            return size
    return 0


def _tell_places(inputs: Sequence[Input]) -> str:
    one = next((one for one in inputs if one.vectors), inputs[0])
    if one.vectors is None:
        return f"flash at {one.pieces[0].address:#x}"
    return (
        f"code at {one.vectors.handlers[0]:#x} and a stack up to {one.vectors.stack:#x}, as "
        f"{one.path} wants"
    )
