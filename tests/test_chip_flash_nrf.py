"""The flash of nRF52 does what the product specifications say, seen by real code."""

from __future__ import annotations

import pytest
from chip_probe import ChipProbe, Step, read, wait, write

NVMC = 0x4001_E000
READY, READYNEXT, CONFIG = NVMC + 0x400, NVMC + 0x408, NVMC + 0x504
ERASEPAGE, ERASEALL, ERASEUICR = NVMC + 0x508, NVMC + 0x50C, NVMC + 0x514
ERASEPAGEPARTIAL, ERASEPAGEPARTIALCFG = NVMC + 0x518, NVMC + 0x51C
REN, WEN, EEN = range(3)
BPROT, ACL = 0x4000_0600, 0x4001_E800
MAIN, PAGE, UICR = 0x8000, 4096, 0x1000_1080
IS_READY = wait(READY, 1, 1)


@pytest.fixture
def nrf() -> ChipProbe:
    return ChipProbe("nrf52840")


def erase(address: int) -> tuple[Step, ...]:
    return (write(CONFIG, EEN), write(ERASEPAGE, address), IS_READY, write(CONFIG, REN))


def program(address: int, *values: int) -> tuple[Step, ...]:
    stores = (write(address + 4 * i, value) for i, value in enumerate(values))
    return (write(CONFIG, WEN), *stores, IS_READY, write(CONFIG, REN))


@pytest.mark.parametrize(("name", "size"), [("nrf52832", 0x8_0000), ("nrf52840", 0x10_0000)])
def test_words_are_programmed_pages_erased_and_uicr_with_all(name: str, size: int) -> None:
    nrf = ChipProbe(name)
    nrf.image[0x9000:0x9004] = bytes(4)
    steps = (*program(MAIN, 0x1234_5678), *program(UICR, 1), *erase(MAIN + PAGE), read(MAIN))
    assert nrf.run(*steps, read(UICR)) == [0x1234_5678, 1]
    assert [(op.kind, op.offset, op.length) for op in nrf.engine.ops] == [
        *(("word", MAIN, 4), ("word", size + 0x80, 4), ("erase", MAIN + PAGE, PAGE)),
    ]
    assert nrf.flash(MAIN + PAGE, 4) == b"\xff" * 4
    nrf.image[:] = nrf.engine.read_nor()
    assert nrf.run(read(UICR), write(CONFIG, EEN), write(ERASEUICR, 1), read(UICR)) == [
        *(1, 0xFFFF_FFFF),
    ]
    nrf.run(write(CONFIG, EEN), write(ERASEALL, 1), IS_READY, from_ram=True)
    (op,) = nrf.engine.ops
    assert (op.kind, op.offset, op.length) == ("erase", 0, size + 1024)
    assert nrf.engine.read_nor() == b"\xff" * (size + 1024)
    assert nrf.faults == []


def test_code_in_ram_sees_it_busy(nrf: ChipProbe) -> None:
    steps = (write(CONFIG, WEN), write(MAIN, 0), read(READY), read(READYNEXT), IS_READY)
    assert nrf.run(*steps, read(READY)) == [1, 1, 1]
    assert nrf.run(*steps, read(READY), from_ram=True) == [0, 1, 1]
    (op,) = nrf.engine.ops
    assert op.end - op.start == pytest.approx(41e-6)


@pytest.mark.parametrize(
    ("steps", "faults"),
    [
        ((write(MAIN, 0),), ["flash-locked"]),
        ((write(ERASEPAGE, MAIN),), ["flash-locked"]),
        ((write(CONFIG, WEN), write(ERASEPAGE, MAIN)), ["flash-locked"]),
        ((write(CONFIG, EEN), write(MAIN, 0)), ["flash-stray"]),
        ((write(CONFIG, WEN), write(MAIN, 0, 2)), ["flash-width"]),
        ((write(CONFIG, WEN), write(MAIN, 0, 1)), ["flash-width"]),
        ((write(CONFIG, 3),), ["flash-command"]),
        ((write(CONFIG, EEN), write(ERASEPAGE, MAIN + 4)), ["flash-command"]),
        ((write(CONFIG, EEN), write(ERASEPAGE, UICR)), ["flash-command"]),
    ],
)
def test_what_is_wrong_is_refused(
    nrf: ChipProbe, steps: tuple[Step, ...], faults: list[str]
) -> None:
    nrf.run(*steps)
    assert nrf.faults == faults
    assert nrf.engine.ops == []


def test_what_comes_while_it_is_busy_is_refused() -> None:
    nrf = ChipProbe("nrf52832")
    begin = (write(CONFIG, EEN), write(ERASEPAGE, MAIN))
    nrf.run(*begin, write(ERASEPAGE, MAIN), write(CONFIG, WEN), IS_READY, from_ram=True)
    assert nrf.faults == ["flash-busy", "flash-busy"]
    assert len(nrf.engine.ops) == 1
    nrf.run(write(CONFIG, WEN), write(MAIN, 0), write(MAIN + 4, 0), IS_READY, from_ram=True)
    assert nrf.faults == ["flash-busy"]


def test_a_word_may_be_written_twice_until_its_page_is_erased(nrf: ChipProbe) -> None:
    twice = program(MAIN, 0xFFFF_FFF0) + program(MAIN, 0xFFFF_FF00)
    nrf.run(*twice, *erase(MAIN), *twice)
    assert nrf.faults == []
    nrf.run(*twice, *program(MAIN, 0))
    assert nrf.faults == ["flash-worn"]
    assert nrf.flash(MAIN, 4) == bytes(4)


def test_a_word_that_is_not_blank_was_written_before_the_power_came(nrf: ChipProbe) -> None:
    nrf.image[MAIN : MAIN + 4] = b"\xf0\xff\xff\xff"
    nrf.run(*program(MAIN, 0xFFFF_FF00))
    assert nrf.faults == []
    nrf.run(*program(MAIN, 0xFFFF_FF00), *program(MAIN, 0xFFFF_F000))
    assert nrf.faults == ["flash-worn"]


def test_a_block_of_an_nrf52832_takes_181_writes() -> None:
    nrf = ChipProbe("nrf52832")
    words = [word for word in range(128) for _ in range(2)]
    for count, faults in ((181, []), (182, ["flash-worn"])):
        nrf.image[MAIN : MAIN + 512] = b"\xff" * 512
        first = words[: count - 128]  # the others are found written when power comes
        for word in range(64, 128):
            nrf.image[MAIN + 4 * word : MAIN + 4 * word + 4] = b"\0\xff\xff\xff"
        steps = [write(MAIN + 4 * word, 0xFFFF_FF00) for word in first]
        steps += [write(MAIN + 256 + 4 * word, 0xFFFF_FF00) for word in range(64)]
        nrf.run(write(CONFIG, WEN), *steps)
        assert nrf.faults == faults


def test_bprot_and_acl_protect_until_the_reset() -> None:
    small, big = ChipProbe("nrf52832"), ChipProbe("nrf52840")
    small.run(write(BPROT, 1 << 8), write(BPROT, 0), *program(MAIN, 0), *erase(MAIN))
    assert small.faults == ["flash-protected"] * 2
    small.run(write(BPROT, 1 << 8), *erase(MAIN + PAGE))
    assert small.faults == []
    guard = (write(ACL, MAIN), write(ACL + 4, PAGE), write(ACL + 8, 2), write(ACL + 8, 0))
    big.run(*guard, *program(MAIN, 0), *erase(MAIN), *erase(MAIN + PAGE))
    assert big.faults == ["flash-protected"] * 2
    big.run(*guard, write(CONFIG, EEN), write(ERASEALL, 1))
    assert big.faults == ["flash-protected"]


def test_a_page_is_erased_in_parts(nrf: ChipProbe) -> None:
    nrf.image[MAIN : MAIN + 4] = bytes(4)
    part = (write(ERASEPAGEPARTIAL, MAIN), read(READY), IS_READY, read(MAIN))
    steps = (write(CONFIG, EEN), write(ERASEPAGEPARTIALCFG, 50), *part, *part)
    assert nrf.run(*steps, from_ram=True) == [0, 0, 0, 0xFFFF_FFFF]
    (op,) = nrf.engine.ops
    assert op.kind == "erase"
    assert op.start > 0.05
    assert nrf.faults == []
