"""UARTs do what RM0008, RM0090 and the nRF52 product specifications say, seen by real code."""

from __future__ import annotations

import pytest
from chip_probe import FREE_RAM, ChipProbe, Step, enable_interrupt, read, sleep, wait, write

USART, USART_INTERRUPT = 0x4000_4400, 38
SR, DR, CR1 = USART, USART + 4, USART + 0xC
ORE, IDLE, RXNE, TC, TXE = (1 << bit for bit in range(3, 8))
RE, TE, IDLEIE, RXNEIE, TCIE, TXEIE, UE = (1 << bit for bit in (2, 3, 4, 5, 6, 7, 13))
ON = write(CR1, UE | TE | RE)
BYTE_S = 10 / 115_200

UARTE, UARTE_INTERRUPT = 0x4000_2000, 2
STARTRX, STOPRX, STARTTX, STOPTX, FLUSHRX = (UARTE + at for at in (0, 4, 8, 0xC, 0x2C))
RXDRDY, ENDRX, TXDRDY, ENDTX, ERROR, RXTO, RXSTARTED, TXSTARTED, TXSTOPPED = (
    UARTE + 0x100 + 4 * bit for bit in (2, 4, 7, 8, 9, 17, 19, 20, 22)
)
SHORTS, INTENSET, ERRORSRC = UARTE + 0x200, UARTE + 0x304, UARTE + 0x480
ENABLE, RXD, TXD, BAUDRATE = UARTE + 0x500, UARTE + 0x518, UARTE + 0x51C, UARTE + 0x524
RX_PTR, RX_MAXCNT, RX_AMOUNT = UARTE + 0x534, UARTE + 0x538, UARTE + 0x53C
TX_PTR, TX_MAXCNT, TX_AMOUNT = UARTE + 0x544, UARTE + 0x548, UARTE + 0x54C
AT_115200 = write(BAUDRATE, 0x01D7_E000)


@pytest.fixture(params=["stm32f103xb", "stm32f411xe"])
def stm32(request: pytest.FixtureRequest) -> ChipProbe:
    return ChipProbe(request.param, console="usart2")


@pytest.fixture
def nrf() -> ChipProbe:
    return ChipProbe("nrf52840")


def begin(probe: ChipProbe, *steps: Step, typed: bytes) -> list[int]:
    """Run steps to a sleep or a wait of theirs, type, and run on."""
    probe.load(*steps)
    probe.engine.forget()
    probe.engine.power_on()
    probe.engine.advance(0.001)
    probe.engine.wire.write(typed)
    return probe.go_on(1.0)


# STM32


def test_bytes_are_sent_one_after_the_other_and_tc_tells_the_end(stm32: ChipProbe) -> None:
    steps = (ON, read(SR), write(DR, 0x41), read(SR), write(DR, 0x42), read(SR), wait(SR, TXE, TXE))
    values = stm32.run(*steps, read(SR), write(DR, 0x43), wait(SR, TC, TC), read(SR))
    assert values == [TXE | TC, TXE, 0, TXE, TXE | TC]
    assert stm32.engine.wire.read() == b"ABC"
    assert stm32.faults == []


@pytest.mark.parametrize(
    "steps",
    [
        (write(DR, 0x41),),
        (write(CR1, UE), write(DR, 0x41)),
        (ON, write(DR, 0x40), write(DR, 0x40), write(DR, 0x41)),
    ],
)
def test_a_byte_that_the_usart_cannot_take_is_told(
    stm32: ChipProbe, steps: tuple[Step, ...]
) -> None:
    stm32.run(*steps)
    assert stm32.faults == ["uart-lost"]
    assert b"A" not in stm32.engine.wire.read()


def test_a_byte_that_comes_waits_in_dr_and_the_next_one_is_lost(stm32: ChipProbe) -> None:
    late = (wait(SR, ORE, ORE), read(SR), read(DR), read(SR), wait(SR, RXNE, RXNE), read(DR))
    assert begin(stm32, ON, *late, typed=b"xyz") == [
        *(ORE | RXNE | TC | TXE, ord("x"), TC | TXE, ord("z")),
    ]
    assert stm32.engine.overruns[0] == 1


@pytest.mark.parametrize(
    ("flags", "first", "status"),
    [
        (TXEIE, (), TXE | TC),
        (TCIE, (), TXE | TC),
        (RXNEIE, (sleep(),), TXE | TC | RXNE),
        (IDLEIE, (sleep(),), TXE | TC | RXNE | IDLE),
    ],
)
def test_the_usart_interrupts(
    stm32: ChipProbe, flags: int, first: tuple[Step, ...], status: int
) -> None:
    steps = (enable_interrupt(USART_INTERRUPT), write(CR1, UE | TE | RE | flags), *first, read(SR))
    assert begin(stm32, *steps, typed=b"x") == [status]
    assert stm32.interrupts(USART_INTERRUPT) == 1


def test_a_byte_takes_its_time(stm32: ChipProbe) -> None:
    stm32.load(ON, write(DR, 0x41), wait(SR, TC, TC))
    stm32.engine.forget()
    stm32.engine.power_on()
    stm32.engine.advance(0.9 * BYTE_S)
    assert stm32.engine.wire.read() == b""
    stm32.engine.advance(0.5 * BYTE_S)
    assert stm32.engine.wire.read() == b"A"


# STM32L4 and newer


V2_CR1, V2_CR3, RQR, ISR, ICR, RDR, TDR = (
    USART + at for at in (0x00, 0x08, 0x18, 0x1C, 0x20, 0x24, 0x28)
)
V2_UE, OVRDIS, RXFRQ, TEACK, REACK = 1 << 0, 1 << 12, 1 << 3, 1 << 21, 1 << 22
V2_ON = write(V2_CR1, V2_UE | TE | RE)
ACKS = TEACK | REACK


@pytest.fixture
def l4() -> ChipProbe:
    return ChipProbe("stm32l476xg", console="usart2")


def test_the_newer_usart_sends_by_tdr(l4: ChipProbe) -> None:
    steps = (V2_ON, write(TDR, 0x41), read(ISR), write(TDR, 0x42), read(ISR))
    assert l4.run(read(ISR)) == [TXE | TC]
    values = l4.run(*steps, wait(ISR, TC, TC), write(ICR, TC), read(ISR))
    assert values == [one | ACKS for one in (TXE, 0, TXE)]
    assert l4.engine.wire.read() == b"AB"
    l4.run(write(TDR, 0x41))
    assert l4.faults == ["uart-lost"]


def test_the_newer_usart_receives_in_rdr_and_loses_what_comes_too_early(l4: ChipProbe) -> None:
    late = (wait(ISR, ORE, ORE), read(ISR), read(RDR), read(ISR), write(ICR, ORE), read(ISR))
    flush = (wait(ISR, RXNE, RXNE), write(RQR, RXFRQ), read(ISR))
    first, data, *rest = begin(l4, V2_ON, *late, *flush, typed=b"xyz")
    assert data == ord("x")
    assert [value & (ORE | RXNE) for value in (first, *rest)] == [ORE | RXNE, ORE, 0, 0]
    assert l4.engine.overruns[0] == 1
    newest = (write(V2_CR3, OVRDIS), V2_ON, wait(ISR, IDLE, IDLE), read(RDR), read(ISR))
    data, status = begin(l4, *newest, typed=b"xy")
    assert (data, status & ORE) == (ord("y"), 0)


@pytest.mark.parametrize("flag", [TXEIE, TCIE, RXNEIE])
def test_the_newer_usart_interrupts(l4: ChipProbe, flag: int) -> None:
    on = (enable_interrupt(USART_INTERRUPT), write(V2_CR1, V2_UE | TE | RE | flag))
    begin(l4, *on, *((sleep(),) if flag == RXNEIE else ()), typed=b"x")
    assert l4.interrupts(USART_INTERRUPT) == 1


# nRF52


def test_the_uart_sends_byte_by_byte(nrf: ChipProbe) -> None:
    on = (write(ENABLE, 4), AT_115200, write(STARTTX, 1))
    send = (write(TXD, 0x41), read(TXDRDY), wait(TXDRDY, 1, 1), write(TXDRDY, 0))
    assert nrf.run(*on, *send, write(TXD, 0x42), wait(TXDRDY, 1, 1)) == [0]
    assert nrf.engine.wire.read() == b"AB"
    assert nrf.faults == []
    nrf.run(*on, write(TXD, 0x41), write(TXD, 0x42))
    assert nrf.faults == ["uart-lost"]


def test_the_uart_keeps_six_bytes_that_wait_to_be_read(nrf: ChipProbe) -> None:
    take = (read(RXDRDY), write(RXDRDY, 0), read(RXD))
    steps = (write(ENABLE, 4), AT_115200, write(STARTRX, 1), wait(ERROR, 1, 1), read(ERRORSRC))
    values = begin(nrf, *steps, *take * 6, read(RXDRDY), typed=b"1234567")
    assert values == [1, *(value for byte in b"123456" for value in (1, byte)), 0]
    assert nrf.engine.overruns[0] == 1


def test_the_uarte_sends_a_buffer_by_itself(nrf: ChipProbe) -> None:
    text = int.from_bytes(b"hey\n", "little")
    steps = (write(ENABLE, 8), AT_115200, write(FREE_RAM, text), write(TX_PTR, FREE_RAM))
    values = nrf.run(
        *(*steps, write(TX_MAXCNT, 4), write(STARTTX, 1), read(TXSTARTED), read(ENDTX)),
        *(wait(ENDTX, 1, 1), read(TX_AMOUNT), write(STOPTX, 1), read(TXSTOPPED), read(TXDRDY)),
    )
    assert values == [1, 0, 4, 1, 1]
    assert nrf.engine.wire.read() == b"hey\n"
    assert nrf.faults == []


def test_the_uarte_stops_after_the_byte_that_is_under_way(nrf: ChipProbe) -> None:
    steps = (write(ENABLE, 8), AT_115200, write(FREE_RAM, 0x6463_6261), write(TX_PTR, FREE_RAM))
    start = (write(TX_MAXCNT, 4), write(STARTTX, 1), wait(TXDRDY, 1, 1), write(STOPTX, 1))
    assert nrf.run(*steps, *start, wait(TXSTOPPED, 1, 1), read(TX_AMOUNT)) == [2]
    assert nrf.engine.wire.read() == b"ab"


def test_the_uarte_does_not_reach_the_flash(nrf: ChipProbe) -> None:
    nrf.run(write(ENABLE, 8), write(TX_PTR, 0x1000), write(TX_MAXCNT, 4), write(STARTTX, 1))
    assert nrf.faults == ["bus-fault"]
    assert nrf.engine.wire.read() == b""


def test_the_uarte_fills_a_buffer_and_goes_on_with_the_next(nrf: ChipProbe) -> None:
    on = (write(ENABLE, 8), AT_115200, write(SHORTS, 1 << 5), write(RX_PTR, FREE_RAM))
    next_buffer = (write(RX_MAXCNT, 4), write(STARTRX, 1), write(RX_PTR, FREE_RAM + 4))
    ends = (wait(ENDRX, 1, 1), read(RX_AMOUNT), write(ENDRX, 0), wait(ENDRX, 1, 1))
    values = begin(
        nrf, *on, *next_buffer, *ends, read(FREE_RAM), read(FREE_RAM + 4), typed=b"8bytes!\n"
    )
    assert values == [4, *(int.from_bytes(part, "little") for part in (b"8byt", b"es!\n"))]


def test_the_uarte_interrupts_and_is_stopped_and_flushed(nrf: ChipProbe) -> None:
    on = (write(ENABLE, 8), AT_115200, write(RX_PTR, FREE_RAM), write(RX_MAXCNT, 1))
    first = (enable_interrupt(UARTE_INTERRUPT), write(INTENSET, 1 << 4), write(STARTRX, 1), sleep())
    steps = (read(ENDRX), wait(ERROR, 1, 1), write(ENDRX, 0), write(STOPRX, 1), read(RXTO))
    flush = (write(RX_PTR, FREE_RAM + 4), write(RX_MAXCNT, 4), write(FLUSHRX, 1))
    values = begin(
        nrf, *on, *first, *steps, *flush, read(RX_AMOUNT), read(FREE_RAM + 4), typed=b"123456789"
    )
    assert nrf.interrupts(UARTE_INTERRUPT) == 1
    assert values == [1, 1, 4, int.from_bytes(b"2345", "little")]
