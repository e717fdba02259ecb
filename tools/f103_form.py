"""The form of brickproof's demo for the STM32F103: what its bootloader can tell apart."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from unbrick.target.form import Fields

RECORDS, RECORD_MAGIC = (0x0801_E000, 0x0801_E400), 0x4D45_5441
IMAGES, IMAGE_MAGIC = (0x0800_2000, 0x0801_0000), 0x494D_4250
BLANK = 0xFFFF_FFFF


def canonical(fields: Fields) -> None:
    """A record or an image without its magic is none; of numbers counts which is the larger."""
    valid = [record for record in RECORDS if fields.may_be(record + 8, RECORD_MAGIC)]
    numbers = sorted(fields.word(record) for record in valid)
    for record in RECORDS:
        if record not in valid:
            for at in range(record, record + 12, 4):
                fields.put(at, BLANK)
        elif not fields.weak(record):
            fields.put(record, 1 + numbers.index(fields.word(record)))
    for image in IMAGES:
        if not fields.may_be(image, IMAGE_MAGIC):
            fields.put(image, 0)
