"""The models of a microcontroller's devices: what each has to be told in a chip's file.

A model is C code in ``engine/mcu/c``, whose constructor takes the numbers in the order given here.
"""

from __future__ import annotations

from dataclasses import dataclass, field

MICROSECONDS_MAX = 100_000_000
"""The longest operation of a flash: 100 s."""


@dataclass(frozen=True)
class ModelNumber:
    """A number that a model wants to know.

    Attributes:
        default: what it is when the file does not say; None: the file must say.
        least, most: what fits.
    """

    default: int | None = None
    least: int = 0
    most: int = (1 << 32) - 1


@dataclass(frozen=True)
class DeviceModel:
    """A model of a device.

    Attributes:
        interrupt: whether it has an interrupt, which the file must give.
        flash_regions: how many regions of flash it controls: the first ones of the chip.
        is_uart: whether it has a serial line.
        numbers: by name, in the order of the constructor.
        bus: the model of the device that it hangs on, which the file must name; empty: it has
            registers of its own.
        others: names of numbers that are the base of another device, which the file names, and the
            model that device must have.
    """

    interrupt: bool
    flash_regions: int
    is_uart: bool
    numbers: dict[str, ModelNumber]
    bus: str = ""
    others: dict[str, str] = field(default_factory=dict)


def _time_us(default: int | None = None) -> ModelNumber:
    return ModelNumber(default, least=1, most=MICROSECONDS_MAX)


_PAGES_OF_L4 = {
    "program_us": _time_us(),
    "erase_us": _time_us(),
    "mass_erase_us": _time_us(),
    "page_size": ModelNumber(least=1024, most=1 << 16),
}

MODELS = {
    # RM0008 and PM0075: half-words, pages, option bytes.
    "flash_stm32f1": DeviceModel(
        interrupt=True,
        flash_regions=2,
        is_uart=False,
        numbers={
            "program_us": _time_us(),
            "erase_us": _time_us(),
            "mass_erase_us": _time_us(),
            "page_size": ModelNumber(least=256, most=1 << 16),
            "protected_pages": ModelNumber(least=1, most=32),  # by one bit of WRPR
        },
    ),
    # RM0090 and RM0383: sectors, parallelism, option bytes.
    "flash_stm32f4": DeviceModel(
        interrupt=True,
        flash_regions=2,
        is_uart=False,
        numbers={
            "program_us": _time_us(),
            # Of a sector of 16 KiB, of 64 KiB, of 128 KiB, and of all, 32 bits at a time.
            "erase_16k_us": _time_us(),
            "erase_64k_us": _time_us(),
            "erase_128k_us": _time_us(),
            "mass_erase_us": _time_us(),
            "parallelism": ModelNumber(least=8, most=64),  # bits at most, with the supply there is
            "read_protection_error": ModelNumber(0, most=1),  # whether there is RDERR
        },
    ),
    # RM0351: double words with ECC, pages in two banks, option bytes of each bank.
    "flash_stm32l4": DeviceModel(True, 3, False, _PAGES_OF_L4),
    # RM0394: one bank.
    "flash_stm32l4_one_bank": DeviceModel(True, 2, False, _PAGES_OF_L4),
    # nRF52 product specifications, NVMC.
    "flash_nrf": DeviceModel(
        interrupt=False,
        flash_regions=2,
        is_uart=False,
        numbers={
            "program_us": _time_us(),
            "erase_us": _time_us(),
            "mass_erase_us": _time_us(),
            "page_size": ModelNumber(least=1024, most=1 << 16),
            "word_writes": ModelNumber(least=1, most=255),  # of a word until it is erased
            "block_writes": ModelNumber(0, most=1 << 16),  # of 512 bytes; 0: no limit
            "partial_erase": ModelNumber(0, most=1),
            "ready_next": ModelNumber(0, most=1),  # whether it has READYNEXT
            "bprot": ModelNumber(0),  # address of CONFIG0 of BPROT; 0: there is none
            "acl": ModelNumber(0),  # address of the access control lists; 0: there are none
        },
    ),
    # RM0008, RM0090: the USART of STM32F1 and F4.
    "uart_stm32": DeviceModel(True, 0, True, {}),
    # RM0351: the USART of STM32L4, and of most that are newer.
    "uart_stm32v2": DeviceModel(True, 0, True, {}),
    # nRF52 product specifications: UART, and UARTE with EasyDMA, at one address.
    "uart_nrf": DeviceModel(True, 0, True, {"easydma_bits": ModelNumber(least=8, most=16)}),
    # RM0383: a port, of which pins may select chips.
    "gpio_stm32": DeviceModel(False, 0, False, {"moder_reset": ModelNumber(0)}),
    # RM0008, RM0383: I2C and SPI of STM32F1 and F4 as masters.
    "i2c_stm32": DeviceModel(True, 0, False, {"error_interrupt": ModelNumber(most=479)}),
    "spi_stm32": DeviceModel(True, 0, False, {"clock_hz": ModelNumber(least=1)}),
    # M24256-BW, 24LC256: an EEPROM.
    "eeprom_i2c": DeviceModel(
        interrupt=False,
        flash_regions=1,
        is_uart=False,
        numbers={
            "address": ModelNumber(0x50, most=0x7F),  # 7 bits
            "page": ModelNumber(least=8, most=256),
            "group": ModelNumber(1, least=1, most=256),  # bytes that are written together
            "write_us": _time_us(5_000),
        },
        bus="i2c_stm32",
    ),
    # W25Q80DV: a NOR flash.
    "nor_spi": DeviceModel(
        interrupt=False,
        flash_regions=2,
        is_uart=False,
        numbers={
            "select_port": ModelNumber(),
            "select_pin": ModelNumber(most=15),
            "id": ModelNumber(most=0xFF_FFFF),  # JEDEC: maker, type, capacity
            "program_us": _time_us(),
            "sector_us": _time_us(),  # 4 KiB
            "half_block_us": _time_us(),  # 32 KiB
            "block_us": _time_us(),  # 64 KiB
            "chip_us": _time_us(),
            "status_us": _time_us(),
        },
        bus="spi_stm32",
        others={"select_port": "gpio_stm32"},
    ),
    # The independent watchdog, and RCC_CSR, which says why the chip was reset.
    "iwdg_stm32": DeviceModel(
        interrupt=False,
        flash_regions=0,
        is_uart=False,
        numbers={
            "clock_hz": ModelNumber(least=1),
            "csr": ModelNumber(),  # its address
            "option": ModelNumber(0),  # address of the option byte with WDG_SW; 0: there is none
            "option_mask": ModelNumber(0, most=0xFF),
            "remove_flags": ModelNumber(1 << 24),  # RMVF of that register
            "csr_reset": ModelNumber(0),  # its bits besides the flags
        },
    ),
    # PWR: Standby, and voltage scaling.
    "pwr_stm32": DeviceModel(
        interrupt=False,
        flash_regions=0,
        is_uart=False,
        numbers={
            "cr_reset": ModelNumber(0),
            "standby_us": _time_us(200_000),  # until the chip wakes from Standby
        },
    ),
    # CLOCK and POWER, and the watchdog, since POWER says why the chip was reset.
    "power_nrf": DeviceModel(
        interrupt=True,
        flash_regions=0,
        is_uart=False,
        numbers={"watchdog": ModelNumber(), "watchdog_interrupt": ModelNumber(most=479)},
    ),
    "rtc_nrf": DeviceModel(True, 0, False, {"compares": ModelNumber(least=1, most=4)}),
    "timer_nrf": DeviceModel(True, 0, False, {"compares": ModelNumber(least=1, most=6)}),
    # Before what has events, in a chip's file.
    "ppi_nrf": DeviceModel(False, 0, False, {}),
    "rng_nrf": DeviceModel(True, 0, False, {}),
}
