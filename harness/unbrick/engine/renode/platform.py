"""A chip as a platform of Renode: its core and devices are Renode's, its flash is ours.

What Renode has no device for reads as 0 there, unless the chip's file knows registers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from unbrick.board.device_models import MODELS
from unbrick.errors import NotKnownHereError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from unbrick.board.mcu import McuChip, McuDevice

_NVIC = "nvic"

_FLASHES = {
    "flash_nrf": "FlashNrf",
    "flash_stm32f1": "FlashStm32F1",
    "flash_stm32f4": "FlashStm32F4",
}
"""The controllers that ``renode/peripherals`` has, by our models."""

_NOT_THERE = {"block_writes", "bprot", "acl"}
"""Numbers of our models for what those controllers do not model."""

_FLASH_SWITCHES = {"partial_erase", "read_protection_error", "ready_next"}
"""Numbers of a controller that say whether something is there."""

_NAME_SECTORS = {"flash_stm32f4"}
"""Those that erase sectors of several sizes."""

_DEVICES = {
    "uart_nrf": ("UART.NRF52840_UART", "", ("easyDMA: {easy_dma}",)),
    "uart_stm32": ("UART.STM32_UART", "0x100", ()),
    "timer_nrf": ("Timers.NRF52840_Timer", "", ("numberOfEvents: {compares}",)),
    "rtc_nrf": ("Timers.NRF52840_RTC", "", ("numberOfEvents: {compares}",)),
    "rng_nrf": ("Miscellaneous.NRF52840_RNG", "", ()),
    "power_nrf": ("Miscellaneous.NRF_CLOCK", "", ()),
}
"""Renode's devices, by our models: type, size where it has none of its own, and settings."""

REGISTER_PAGE = 0x400
"""Bytes of registers that one peripheral of Renode stands for."""

_CORES = {
    "cortex-m0plus": "cortex-m0+",
}


def describe_devices(chip: McuChip, *, easy_dma: bool = False) -> str:
    """A platform description (``.repl``) of a chip, without its flash.

    Args:
        chip: what it is.
        easy_dma: whether its UARTs move bytes by DMA; Renode's nRF52 ones can do one of both.
    """
    core = _CORES.get(chip.core, chip.core) + ("f" if chip.core == "cortex-m4" and chip.fpu else "")
    lines = [
        f"{_NVIC}: IRQControllers.NVIC @ sysbus 0xE000E000",
        f"    priorityMask: {0xFF << (8 - chip.priority_bits) & 0xFF:#x}",
        f"    systickFrequency: {chip.clock_hz}",
        "    -> cpu@0",
        "cpu: CPU.CortexM @ sysbus",
        f'    cpuType: "{core}"',
        f"    nvic: {_NVIC}",
        f"    PerformanceInMips: {chip.clock_hz // 1_000_000}",
    ]
    for name, ram in chip.rams:
        lines += [f"{name}: Memory.MappedMemory @ sysbus {ram.base:#x}", f"    size: {ram.size:#x}"]
    for device in chip.devices:
        lines += _describe_device(device, easy_dma)
    lines += _describe_registers(chip)
    return "\n".join(lines) + "\n"


def describe_flash(chip: McuChip) -> str:
    """The part of a platform description that has our flash: its controller and its regions.

    Raises:
        NotKnownHereError: there is no such controller of ours.
    """
    found = [device for device in chip.devices if MODELS[device.model].flash_regions]
    unknown = [device.model for device in found if device.model not in _FLASHES]
    if unknown or len(found) != 1:
        raise NotKnownHereError(
            f"the engine renode has no flash of {chip.name}",
            hint="leave out --engine; docs/second-opinion.md lists the chips that it knows",
        )
    (device,) = found
    kind = _FLASHES[device.model]
    lines = [f"{device.name}: Unbrick.{kind} @ sysbus {device.base:#x}"]
    numbers = {k: n for k, n in _name_numbers(device).items() if k not in _NOT_THERE}
    for key, number in numbers.items():
        value = str(bool(number)).lower() if key in _FLASH_SWITCHES else number
        lines.append(f"    {_camel_case(key)}: {value}")
    if device.model in _NAME_SECTORS:
        lines.append(f'    sectors: "{" ".join(f"{size:x}" for size in chip.main.block_sizes)}"')
    if device.interrupt is not None:
        lines.append(f"    -> {_NVIC}@{device.interrupt}")
    for region in chip.flash:
        places = [base for base in (region.base, region.alias) if base is not None]
        where = "; ".join(f"sysbus {base:#x}" for base in places)
        lines += [
            f"flash_{region.name}: Unbrick.FlashRegion @ {{ {where} }}",
            f"    controller: {device.name}",
            f"    start: {region.base:#x}",
            f"    size: {region.size:#x}",
        ]
    return "\n".join(lines) + "\n"


def list_code_ranges(chip: McuChip) -> list[tuple[int, int]]:
    """Address and length of all flash that code is executed from."""
    main = chip.main
    return [(base, main.size) for base in (main.base, main.alias) if base is not None]


def _name_numbers(device: McuDevice) -> dict[str, int]:
    return dict(zip(MODELS[device.model].numbers, device.numbers, strict=True))


def _camel_case(name: str) -> str:
    """The name of a property; that of a time does not say its unit, which is the microsecond."""
    first, *rest = name.removesuffix("_us").split("_") + ["time"] * name.endswith("_us")
    return first + "".join(map(str.capitalize, rest))


def _describe_device(device: McuDevice, easy_dma: bool) -> Iterator[str]:
    if device.model not in _DEVICES:
        return
    kind, size, settings = _DEVICES[device.model]
    place = f"<{device.base:#x}, +{size}>" if size else f"{device.base:#x}"
    yield f"{device.name}: {kind} @ sysbus {place}"
    for setting in settings:
        numbers = _name_numbers(device)
        yield "    " + setting.format(easy_dma=str(easy_dma).lower(), **numbers)
    if device.interrupt is not None:
        yield f"    -> {_NVIC}@{device.interrupt}"


def _describe_registers(chip: McuChip) -> Iterator[str]:
    """Registers that have a value or follow others, as far as no device is in their page."""
    taken = {device.base // REGISTER_PAGE for device in chip.devices}
    taken |= {region.base // REGISTER_PAGE for region in chip.flash}
    pages: dict[int, list[str]] = {}
    for one in chip.registers:
        page, offset = divmod(one.address, REGISTER_PAGE)
        pages.setdefault(page, []).append(f"{offset:x}={one.reset:x}")
    rules: dict[int, list[str]] = {}
    for rule in chip.ready:
        page, offset = divmod(rule.enable[0], REGISTER_PAGE)
        if rule.ready[0] // REGISTER_PAGE == page:
            numbers = (offset, rule.enable[1], rule.ready[0] % REGISTER_PAGE, rule.ready[1])
            rules.setdefault(page, []).append(",".join(f"{number:x}" for number in numbers))
    for page in sorted((pages.keys() | rules.keys()) - taken):
        base = page * REGISTER_PAGE
        yield f"registers_{base:x}: Unbrick.ReadyRegisters @ sysbus {base:#x}"
        yield f"    size: {REGISTER_PAGE:#x}"
        yield f'    resets: "{" ".join(pages.get(page, []))}"'
        yield f'    ready: "{" ".join(rules.get(page, []))}"'
