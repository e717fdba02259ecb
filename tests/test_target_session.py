"""What ends a session while an operation of the flash is under way."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from small_firmware import build_small

from unbrick.engine.base import ChipEngine
from unbrick.errors import ExpectError, NotKnownHereError
from unbrick.started import StartedTarget
from unbrick.target.target import FileTarget

if TYPE_CHECKING:
    from pathlib import Path

    from unbrick.campaign.target import Outcome

HEAD = """console = "usart2"
[[firmware]]
hex = "00112233 44556677"
at = 0x0808_0000
[[firm"""
"""What is erased is not blank."""
FIRMWARE = """
#define FLASH_KEYR REGISTER(0x40022008)
#define FLASH_CR REGISTER(0x40022014)
#define USART_CR1 REGISTER(0x40004400)
#define USART_ISR REGISTER(0x4000441c)
#define USART_TDR REGISTER(0x40004428)
static void say(const char *text) {
    for (; *text; text++) {
        while (!(USART_ISR & 0x80)) {}
        USART_TDR = *text;
    }
}
void start(void) {
    USART_CR1 = 1 | 1 << 3;
    say("rea");
    FLASH_KEYR = 0x45670123;
    FLASH_KEYR = 0xcdef89ab;
    FLASH_CR = 0x10802; /* page 0 of bank 2, while the code is in bank 1 */
    WHILE_BUSY
    say("dy");
    for (;;) __asm__ volatile("wfi");
}
"""


def run(folder: Path, while_busy: str, recovered: str = "") -> Outcome:
    """The first session of firmware that erases a page of the other bank."""
    path = build_small(folder, "stm32l476xg", FIRMWARE.replace("WHILE_BUSY", while_busy))
    text = path.read_text(encoding="utf-8").replace("[[firm", HEAD)
    path.write_text(text + recovered, encoding="utf-8")
    target = FileTarget.load(path, tried=False)
    with target.create_engine() as engine:
        return target.run(target.start(), engine=engine)


def test_a_fault_while_the_flash_is_busy_is_the_firmwares(tmp_path: Path) -> None:
    outcome = run(tmp_path, "REGISTER(0xb0000000);")
    assert outcome.violation is not None
    assert outcome.violation[0] == "fault"
    assert "(bus-fault)" in outcome.violation[1]
    assert outcome.ops[-1].end > outcome.virtual, "it is under way"


@pytest.mark.parametrize("recovered", ["", 'quiet = "0 s"'])
def test_a_session_ends_well_when_its_last_operation_has_ended(
    tmp_path: Path, recovered: str
) -> None:
    outcome = run(tmp_path, "", recovered)
    assert outcome.violation is None
    (op,) = outcome.ops
    assert outcome.downtime is not None
    assert outcome.downtime < op.end <= outcome.virtual


KEEPS = """
#define KEPT REGISTER(0x20000800)
static void say(const char *text) {
    for (; *text; text++) {
        while (!(REGISTER(0x40004400) & 0x80)) {}
        REGISTER(0x40004404) = *text;
    }
}
void start(void) {
    REGISTER(0x4000440c) = 1 << 13 | 1 << 3;
    say(KEPT == 0x77 ? "warm\\r\\n" : "cold\\r\\n");
    KEPT = 0x77;
    REGISTER(0x40022004) = 0x45670123;
    REGISTER(0x40022004) = 0xcdef89ab;
    REGISTER(0x40022010) = 2;
    REGISTER(0x40022014) = 0x08008000;
    REGISTER(0x40022010) = 0x42;
    say("ready\\r\\n");
    for (;;) __asm__ volatile("wfi");
}
"""


def test_a_test_has_a_brown_out_in_an_operation(tmp_path: Path) -> None:
    path = build_small(tmp_path, "stm32f103xb", KEEPS, further='console = "usart2"')
    device = StartedTarget(FileTarget.load(path, tried=False))
    device.power_on()
    device.brown_out_in_operation(0)
    device.console.expect("cold")
    device.console.expect("warm")
    device.console.expect("ready")
    assert device.engine.resets == 1
    with pytest.raises(ExpectError, match="operation 0 has been"):
        device.brown_out_in_operation(0)
    with pytest.raises(ExpectError, match="did not come within 1 s"):
        device.brown_out_in_operation(5, timeout=1.0)
    device.restart()
    device.console.expect("cold")


def test_other_engines_know_no_brown_out() -> None:
    for call in (lambda: ChipEngine.brown_out(None), lambda: ChipEngine.brown_out_in_op(None, 1)):
        with pytest.raises(NotKnownHereError, match="no brown-out"):
            call()
