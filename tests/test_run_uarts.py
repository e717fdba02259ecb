"""Other UARTs of a chip than its console, as ports of their own."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import serial
from patience import PATIENCE_S
from person import Person
from processes import Running, unbrick
from small_firmware import build_small

pytestmark = pytest.mark.slow

STM32 = """
static unsigned has_come(unsigned usart) { return REGISTER(usart) & 1 << 5; }
static void put(unsigned usart, unsigned byte) {
    while (!(REGISTER(usart) & 1 << 7)) {
    }
    REGISTER(usart + 4) = byte;
}
void start(void) {
    static const unsigned usarts[] = {0x40013800, 0x40004400, 0x40004800};
    for (unsigned i = 0; i < 3; i++) {
        REGISTER(usarts[i] + 8) = 8000000 / 115200;
        REGISTER(usarts[i] + 12) = 1 << 13 | 1 << 3 | 1 << 2;
    }
    put(0x40013800, '1');
    for (;;) {
        for (unsigned i = 0; i < 3; i++) {
            if (has_come(usarts[i])) {
                put(usarts[i], REGISTER(usarts[i] + 4) + i + 1);
            }
        }
    }
}
"""
"""USART1 is the console. Each USART adds its number to what comes, and sends it back."""

NRF = """
static void get(unsigned uarte, unsigned buffer) {
    REGISTER(uarte + 0x110) = 0;
    REGISTER(uarte + 0x534) = buffer;
    REGISTER(uarte + 0x538) = 1;
    REGISTER(uarte) = 1;
}
void start(void) {
    static const unsigned uartes[] = {0x40002000, 0x40028000};
    for (unsigned i = 0; i < 2; i++) {
        REGISTER(uartes[i] + 0x524) = 0x01D7E000;
        REGISTER(uartes[i] + 0x500) = 8;
        get(uartes[i], RAM + 0x2000 + 8 * i);
    }
    for (;;) {
        for (unsigned i = 0; i < 2; i++) {
            unsigned uarte = uartes[i], sent = RAM + 0x2004 + 8 * i;
            if (REGISTER(uarte + 0x110)) {
                *(volatile unsigned char *)sent = *(volatile unsigned char *)(sent - 4) + i + 1;
                REGISTER(uarte + 0x120) = 0;
                REGISTER(uarte + 0x544) = sent;
                REGISTER(uarte + 0x548) = 1;
                REGISTER(uarte + 8) = 1;
                while (!REGISTER(uarte + 0x120)) {
                }
                get(uarte, sent - 4);
            }
        }
    }
}
"""
"""The same with EasyDMA, a byte at a time."""

FIRMWARE = {"stm32f103xb": (STM32, "usart2"), "nrf52840": (NRF, "uarte1")}
"""The C, and the second UART."""


@pytest.fixture(scope="module", params=FIRMWARE)
def chip_name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def target(chip_name: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A target whose second UART is called the modem."""
    source, uart = FIRMWARE[chip_name]
    folder = tmp_path_factory.mktemp(chip_name)
    made = build_small(folder, chip_name, source)
    text = made.read_text(encoding="utf-8")
    made.write_text(f'{text}[uarts]\nmodem = "{uart}"\n', encoding="utf-8")
    return made


@contextmanager
def opened(place: str) -> Iterator[serial.Serial]:
    """A port as the ready line names it."""
    url = place if place.startswith("/") else f"socket://{place.removeprefix('tcp:')}"
    with serial.serial_for_url(url, 115200, timeout=PATIENCE_S) as port:
        yield port


def assert_adds(port: serial.Serial, number: int) -> None:
    port.write(b"ABC")
    assert port.read(3) == bytes(byte + number for byte in b"ABC")


def test_a_second_uart_is_a_port_of_its_own(target: Path) -> None:
    with Running("run", target, "--wire", "tcp:0") as chip:
        wire, modem = chip.wait_for(r"ready: wire (tcp:\S+) modem (/\S+)\n").groups()
        with opened(modem) as second, opened(wire) as first:
            first.reset_input_buffer()
            second.write(b"x")
            assert second.read(1) == b"z", "and the console hears nothing of it"
            first.write(b"ABC")
            said = first.read(3)
            assert said.lstrip(b"1") + first.read(said.count(b"1")) == b"BCD"
            assert_adds(second, 2)
        assert chip.end() == 0


def test_the_command_line_says_what_a_uart_becomes(target: Path, chip_name: str) -> None:
    uart = FIRMWARE[chip_name][1]
    for option in ("modem=tcp:0", f"{uart}=tcp:0"):
        with Running("run", target, "--uart", option) as chip:
            modem = chip.wait_for(r"ready: wire /\S+ modem (tcp:\S+)\n")[1]
            with opened(modem) as second:
                assert_adds(second, 2)
            assert chip.end() == 0


def test_a_uart_that_no_target_names_is_shown_when_it_is_wanted(tmp_path: Path) -> None:
    made = build_small(tmp_path, "stm32f103xb", STM32, 'console = "usart3"')
    options = ("--uart", "usart2", "--uart", "usart1=tcp:0")
    with Running("run", made, *options) as chip:
        found = chip.wait_for(r"ready: wire (/\S+) usart1 (tcp:\S+) usart2 (/\S+)\n")
        for place, number in zip(found.groups(), (3, 1, 2), strict=True):
            with opened(place) as port:
                assert_adds(port, number)
        assert chip.end() == 0


def test_a_person_at_the_console_has_the_others_as_ports(target: Path, tmp_path: Path) -> None:
    person = Person([target], tmp_path)
    person.window.expect(r"modem: (\S+)\r\n")
    place = person.window.match.group(1)
    person.sees("bench's prompt")
    with opened(place) as second:
        assert_adds(second, 2)
    person.types("A")
    person.sees("B")
    person.tells_the_bench("quit")
    assert person.is_gone() == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--uart", "usart9"], "stm32f103xb has no UART 'usart9'. Correct its name: `usart"),
        (["--uart", "modm=pty"], "has no UART 'modm'. Correct its name: `modem`?"),
        (["--uart", "usart1"], "usart1 is the console. Say where with --wire"),
        (["--uart", "modem", "--uart", "usart2=pty"], "--uart usart2 is there twice"),
        (["--uart", "modem=usb"], "not a port: usb. Write pty or tcp:PORT"),
        (["--uart", "modem=tcp:{taken}"], "{taken}"),
    ],
)
def test_a_wrong_option_is_refused_in_one_line(
    options: list[str], message: str, tmp_path: Path
) -> None:
    made = build_small(tmp_path, "stm32f103xb", STM32)
    made.write_text(f'{made.read_text()}[uarts]\nmodem = "usart2"\n', encoding="utf-8")
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken = server.getsockname()[1]
        done = unbrick("run", made, *(option.format(taken=taken) for option in options))
    assert done.returncode == 2
    (said,) = done.stderr.splitlines()
    assert message.format(taken=taken) in said


@pytest.mark.parametrize("command", ["run", "console"])
def test_the_reference_terminal_has_its_own(command: str) -> None:
    done = unbrick(command, "--uart", "usart1", input="")
    assert done.returncode == 2
    assert "--uart is for the chip of a target's file" in done.stderr
