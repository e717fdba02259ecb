"""What a store stores is read from its code and the registers."""

from __future__ import annotations

import pytest

from unbrick.engine.qemu.stores import find_stores


@pytest.mark.parametrize(
    ("code", "stores"),
    [
        (0x6021, [(0x400, 1)]),  # str r1, [r4]
        (0x5099, [(0x302, 1)]),  # str r1, [r3, r2]
        (0x9102, [(0x1308, 1)]),  # str r1, [sp, #8]
        (0xC406, [(0x400, 1), (0x404, 2)]),  # stm r4!, {r1, r2}
        (0x7021, []),  # strb r1, [r4]
        (0x6821, []),  # ldr r1, [r4]
    ],
)
def test_a_store_is_read_from_the_code(code: int, stores: list[tuple[int, int]]) -> None:
    registers = [0, 1, 2, 0x300, 0x400, *range(5, 13), 0x1300, 0, 0]
    assert find_stores(code, registers) == stores
