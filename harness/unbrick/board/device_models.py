"""The models of a microcontroller's devices: what each has to be told in a chip's file.

A model is C code in ``engine/mcu/c``, whose constructor takes the numbers in the order given here.
"""

from __future__ import annotations

from dataclasses import dataclass, field

MICROSECONDS_MAX = 100_000_000
"""The longest operation of a flash: 100 s."""


PROGRAM_MOST = 2048
"""Bytes that one program takes at most (``OPERATION_MAX``)."""


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
        in_memory: whether it takes commands where its flash is read, so that it has no other base.
        others: names of numbers that are the base of another device, which the file names, and the
            model that device must have.
        does: what is modelled, for people.
        lacks: what is not, of what the device has, for people; empty: nothing that we know of.
    """

    interrupt: bool
    flash_regions: int
    is_uart: bool
    numbers: dict[str, ModelNumber]
    bus: str = ""
    others: dict[str, str] = field(default_factory=dict)
    in_memory: bool = False
    does: str = ""
    lacks: str = ""


def _time_us(default: int | None = None) -> ModelNumber:
    return ModelNumber(default, least=1, most=MICROSECONDS_MAX)


_PAGES = {
    "program_us": _time_us(),
    "erase_us": _time_us(),
    "mass_erase_us": _time_us(),
    "page_size": ModelNumber(least=1024, most=1 << 16),
}
_SECTORS = {
    "program_us": _time_us(),
    "erase_us": _time_us(),
    "bank_erase_us": _time_us(),
    "sector_size": ModelNumber(least=1024, most=1 << 18),
}

_SPI_NOR = {
    "id": ModelNumber(most=0xFF_FFFF),  # JEDEC: maker, type, capacity
    "program_us": _time_us(),
    "sector_us": _time_us(),  # 4 KiB
    "half_block_us": _time_us(),  # 32 KiB
    "block_us": _time_us(),  # 64 KiB
    "chip_us": _time_us(),
    "status_us": _time_us(),
}

_PARALLEL_NOR = {
    "width": ModelNumber(16, least=8, most=16),  # bits of a chip's bus
    "chips": ModelNumber(1, least=1, most=2),  # side by side
    "byte_mode": ModelNumber(0, most=1),  # a chip of 16 bits that is used with 8
    "size": ModelNumber(0, most=1 << 30),  # bytes of all chips; 0: as the region
    "maker": ModelNumber(most=0xFFFF),
    "device": ModelNumber(most=0xFFFF),
    "extended": ModelNumber(0),  # words 0x0E and 0x0F of the identity
    "buffer": ModelNumber(0, most=PROGRAM_MOST),  # bytes of a chip's write buffer; 0: none
    "program_us": _time_us(),
    "buffer_us": _time_us(1),  # of a full one
    "erase_us": _time_us(),  # of a block
    "suspend_us": _time_us(20),
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
        does="half-words, erases of a page and of all, option bytes, protection",
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
        does="programs by PSIZE, erases of a sector and of all, option bytes, protection",
        lacks="two banks, OTP",
    ),
    # RM0351: double words with ECC, pages in two banks, option bytes of each bank.
    "flash_stm32l4": DeviceModel(
        True,
        3,
        False,
        _PAGES,
        does="double words with ECC, erases of a page and of a bank, option bytes, protection",
        lacks="fast programming, PCROP, the firewall, OTP, the start from bank 2 (BFB2)",
    ),
    # RM0394: one bank.
    "flash_stm32l4_one_bank": DeviceModel(
        True,
        2,
        False,
        _PAGES,
        does="double words with ECC, erases of a page and of all, option bytes, protection",
        lacks="fast programming, PCROP, the firewall, OTP, PEMPTY",
    ),
    # RM0444: as STM32L4, but the banks can swap, and each has its ECC register.
    "flash_stm32g0": DeviceModel(
        True,
        2,
        False,
        _PAGES,
        does="double words with ECC, erases of a page and of a bank, bank swap, option bytes, "
        "protection",
        lacks="fast programming, PCROP, the securable area, OTP, one bank instead of two",
    ),
    "flash_stm32g0_one_bank": DeviceModel(
        True,
        2,
        False,
        _PAGES,
        does="double words with ECC, erases of a page and of all, option bytes, protection",
        lacks="fast programming, PCROP, the securable area, OTP",
    ),
    # RM0481: quad words with ECC, sectors in two banks, option words.
    "flash_stm32h5": DeviceModel(
        True,  # and the next one is that of the secure state
        2,
        False,
        _SECTORS,
        does="quad words with ECC, erases of a sector, a bank and all, bank swap, option words, "
        "write protection; code stays in one security state",
        lacks="the other security state, watermarks, HDP, OBK, high-cycle data, OTP, the product "
        "state",
    ),
    # RM0433: words of 256 bits with ECC, two banks with registers of their own, option words.
    "flash_stm32h7": DeviceModel(
        True,
        2,
        False,
        _SECTORS,
        does="words of 256 bits with ECC, erases of a sector, a bank and all, bank swap, option "
        "words, write protection; a wrong word is a bus fault",
        lacks="other times with less parallelism, PCROP, the secure area, read protection, CRC",
    ),
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
        does="words, how often each is written, erases of a page and of all, UICR, BPROT, ACL",
        lacks="the protection of nRF51",
    ),
    # RM0008, RM0090: the USART of STM32F1 and F4.
    "uart_stm32": DeviceModel(
        True,
        0,
        True,
        {},
        does="status bits, overruns, interrupts; the rate is the chip's `baud`",
        lacks="DMA, parity, flow control, synchronous modes",
    ),
    # RM0351: the USART of STM32L4, and of most that are newer.
    "uart_stm32v2": DeviceModel(
        True,
        0,
        True,
        {},
        does="status bits, overruns, interrupts; the rate is the chip's `baud`",
        lacks="DMA, FIFO, parity, flow control, synchronous modes",
    ),
    # nRF52 product specifications: UART, and UARTE with EasyDMA, at one address.
    "uart_nrf": DeviceModel(
        True,
        0,
        True,
        {"easydma_bits": ModelNumber(least=8, most=16)},
        does="UART with its FIFO, and UARTE with EasyDMA, shorts and flush",
        lacks="parity, flow control",
    ),
    # DDI 0183.
    "uart_pl011": DeviceModel(
        True,
        0,
        True,
        {},
        does="FIFOs, flags, interrupts without a level; the rate is the chip's `baud`",
        lacks="DMA, parity, flow control, breaks",
    ),
    # RM0383: a port, of which pins may select chips.
    "gpio_stm32": DeviceModel(
        False,
        0,
        False,
        {"moder_reset": ModelNumber(0)},
        does="outputs, and pins that select a chip; an input reads as 0",
        lacks="interrupts and alternate functions of pins",
    ),
    # RM0008, RM0383: I2C and SPI of STM32F1 and F4 as masters.
    "i2c_stm32": DeviceModel(
        True,
        0,
        False,
        {"error_interrupt": ModelNumber(most=479)},
        does="the master, byte by byte, with its interrupts",
        lacks="the slave, DMA, SMBus, addresses of 10 bits",
    ),
    "spi_stm32": DeviceModel(
        True,
        0,
        False,
        {"clock_hz": ModelNumber(least=1)},
        does="the master, frames of 8 bits, with its interrupts",
        lacks="the slave, DMA, CRC, frames of 16 bits",
    ),
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
        does="writes of groups of bytes in a page, reads, no answer meanwhile",
        lacks="protection by a pin",
    ),
    # W25Q80DV, W25Q256JV: a NOR flash.
    "nor_spi": DeviceModel(
        interrupt=False,
        flash_regions=2,
        is_uart=False,
        numbers={
            "select_port": ModelNumber(),
            "select_pin": ModelNumber(most=15),
            **_SPI_NOR,
            "four_byte_commands": ModelNumber(0),  # by their bits in the table 84h of JESD216
            "four_byte_table": ModelNumber(0, most=1),  # whether SFDP has that table
        },
        bus="spi_stm32",
        others={"select_port": "gpio_stm32"},
        does="reads, page programs, erases, suspend, identity, SFDP, status registers, "
        "protection, power-down, four bytes of address",
        lacks="several data lines, protection by a pin, protection of single blocks",
    ),
    # W25Q16JV: a NOR flash that code runs from.
    "nor_qspi": DeviceModel(
        interrupt=False,
        flash_regions=2,
        is_uart=False,
        numbers={
            "quad": ModelNumber(0, most=1),  # whether QE is always set
            **_SPI_NOR,
        },
        bus="ssi_rp2040",
        does="reads by one, two and four lines and without a command, page programs, erases, "
        "suspend, identity, SFDP, both status registers, protection, power-down",
        lacks="protection of single blocks, security registers",
    ),
    # The RP2040 data sheet.
    "ssi_rp2040": DeviceModel(
        interrupt=False,
        flash_regions=0,
        is_uart=False,
        numbers={
            "clock_hz": ModelNumber(least=1),
            "window": ModelNumber(),  # where the flash is read
            "cache": ModelNumber(),  # XIP_CTRL
            "pins": ModelNumber(),  # IO_QSPI
        },
        does="frames through the FIFO, reads with command and address, reads in place, the pin "
        "that selects the flash, flushes of the cache",
        lacks="what the cache holds, its counters and its stream, DMA, reads without sending",
    ),
    "resets_rp2040": DeviceModel(
        False, 0, False, {}, does="blocks are ready as soon as they are released"
    ),
    "clocks_rp2040": DeviceModel(
        False,
        0,
        False,
        {},
        does="what each clock is made of shows at once",
        lacks="frequencies: time is that of `clock_hz`",
    ),
    "watchdog_rp2040": DeviceModel(
        False,
        0,
        False,
        {"chip_reset": ModelNumber()},  # VREG_AND_CHIP_RESET
        does="the watchdog, resets on demand and their reason, scratch registers",
        lacks="parts of the chip that keep what they hold over its reset",
    ),
    "timer_rp2040": DeviceModel(
        True, 0, False, {}, does="the microseconds, four alarms and their interrupts", lacks="pause"
    ),
    "sio_rp2040": DeviceModel(
        False,
        0,
        False,
        {},
        does="the number of the core, outputs, spinlocks, the divider",
        lacks="the other core, which stays asleep; the interpolators",
    ),
    # Am29LV160D, S29GL-N: the AMD command set.
    "nor_cfi_amd": DeviceModel(
        interrupt=False,
        flash_regions=1,
        is_uart=False,
        numbers={**_PARALLEL_NOR, "window_us": _time_us(50)},  # in which an erase takes sectors
        in_memory=True,
        does="CFI, identity, words, buffers, unlock bypass, erases with suspend, DQ1 to DQ7",
        lacks="protection of sectors, secured silicon, a reset that stops an operation",
    ),
    # P30-65nm: the Intel command set.
    "nor_cfi_intel": DeviceModel(
        interrupt=False,
        flash_regions=1,
        is_uart=False,
        numbers={**_PARALLEL_NOR, "locks": ModelNumber(1, most=1)},  # locked when power comes
        in_memory=True,
        does="CFI, identity, words, buffers, erases, suspend of both, locks, status register",
        lacks="locks that last, protection registers, blank check, a reset that stops an operation",
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
            "pin_flag": ModelNumber(26, least=2, most=29),  # behind it those of power and software
            "watchdog_flag": ModelNumber(29, most=31),
            "lsi": ModelNumber(1, most=1),  # whether that register has the bits of LSI, too
            "window_flag": ModelNumber(30, most=31),
            "options_flag": ModelNumber(0, most=31),  # of a launch of options; 0: there is none
            "brown_out_flag": ModelNumber(0, most=31),  # 0: it is that of power
            "window": ModelNumber(0, most=1),  # whether it has WINR
            "prescalers": ModelNumber(6, least=6, most=8),  # the largest number in PR that counts
        },
        does="the independent watchdog with its window, the flags of resets, and LSI, in RCC_CSR",
        lacks="the early wake-up interrupt, the flags of domains of an STM32H7",
    ),
    # RM0008, RM0090, RM0351: the window watchdog.
    "wwdg_stm32": DeviceModel(
        True,
        0,
        False,
        {
            "clock_hz": ModelNumber(least=1),  # PCLK, as the firmware of this chip has it
            "prescaler_bits": ModelNumber(3, least=2, most=3),
            "option": ModelNumber(0),  # address of the option byte with WWDG_SW; 0: there is none
            "option_mask": ModelNumber(0, most=0xFF),
        },
        does="the window watchdog: too early, too late, the early wake-up interrupt",
        lacks="the counter while it is off, the phase of its prescaler",
    ),
    # RM0008, RM0090: registers that outlive resets.
    "backup_stm32": DeviceModel(
        False,
        0,
        False,
        {
            "count": ModelNumber(least=1, most=32),
            "unlock": ModelNumber(),  # address of the register with DBP
            "unlock_mask": ModelNumber(),
            "bits": ModelNumber(32, least=16, most=32),  # of each register
        },
        does="backup registers, and what protects them from writes (DBP)",
        lacks="a battery, tampering, the reset of the backup domain (BDRST)",
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
        does="Standby, and that voltage scaling is ready",
        lacks="Stop, wake-up pins, the brown-out detector",
    ),
    # RM0351, and headers: Standby of newer ones.
    "standby_stm32": DeviceModel(
        interrupt=False,
        flash_regions=0,
        is_uart=False,
        numbers={
            "standby_us": _time_us(200_000),  # until the chip wakes from Standby
            # Offsets and bits: of the mode, which is Standby with `mode`; of SBF; what clears it.
            "mode_register": ModelNumber(0, most=0x3FC),
            "mode_mask": ModelNumber(),
            "mode": ModelNumber(),
            "flag_register": ModelNumber(most=0x3FC),
            "flag": ModelNumber(),
            "clear_register": ModelNumber(most=0x3FC),
            "clear": ModelNumber(),
        },
        does="Standby, and its flag",
        lacks="Stop, Shutdown, wake-up pins and their flags, RAM that is kept in Standby",
    ),
    # RM0008, RM0090, RM0351: timers of all kinds.
    "timer_stm32": DeviceModel(
        True,
        0,
        False,
        {
            "clock_hz": ModelNumber(least=1),  # as the firmware of this chip has it
            "wide": ModelNumber(0, most=1),  # whether it counts 32 bits; else 16
        },
        does="counts up with a prescaler; updates, compares and their interrupts",
        lacks="counting down, captures, outputs, DMA, slave modes, own interrupts of compares",
    ),
    # CLOCK and POWER, and the watchdog, since POWER says why the chip was reset.
    "power_nrf": DeviceModel(
        interrupt=True,
        flash_regions=0,
        is_uart=False,
        numbers={"watchdog": ModelNumber(), "watchdog_interrupt": ModelNumber(most=479)},
        does="clocks, the reasons of a reset, retained registers, the watchdog",
        lacks="System OFF, RAM sections, the power-fail comparator",
    ),
    "rtc_nrf": DeviceModel(
        True,
        0,
        False,
        {"compares": ModelNumber(least=1, most=4)},
        does="the counter, compares, events, interrupts, PPI",
    ),
    "timer_nrf": DeviceModel(
        True,
        0,
        False,
        {"compares": ModelNumber(least=1, most=6)},
        does="timer and counter, compares, captures, shorts, interrupts, PPI",
    ),
    # Before what has events, in a chip's file.
    "ppi_nrf": DeviceModel(
        False,
        0,
        False,
        {},
        does="channels and forks",
        lacks="channels of the factory, groups",
    ),
    "rng_nrf": DeviceModel(
        True,
        0,
        False,
        {},
        does="numbers that look random, and are the same after each power-on",
    ),
}
