"""Reads microcontrollers from their TOML files, and checks them."""

from __future__ import annotations

from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from unbrick.board.description import Region
from unbrick.board.device_models import MODELS, PROGRAM_MOST
from unbrick.board.load import (
    ADDRESS_SPACE_SIZE,
    SUFFIX,
    UNREADABLE_HINT,
    find_file,
    read_pairs,
)
from unbrick.board.mcu import (
    APPLICATION_CORES,
    OPTION_WORD,
    BootRom,
    FlashRegion,
    McuChip,
    McuDevice,
    Programmers,
    ReadyRule,
    Register,
)
from unbrick.tables import read_toml

if TYPE_CHECKING:
    from unbrick.board.device_models import DeviceModel
    from unbrick.tables import Entries

CORES = (
    *("cortex-m0", "cortex-m0plus", "cortex-m3", "cortex-m4", "cortex-m7", "cortex-m33"),
    *APPLICATION_CORES,
)
PAGE_SIZE = 4096
"""Bytes that memories are multiples of, as emulators see it."""
UNITS = (1, 2, 4, 8, 16, 32)
"""Bytes that one program may take."""

ECC_UNITS = (8, 16, 32)
"""Bytes that a check cell may be for."""
ECC_BLOCK = 1024
"""Bytes that erase blocks with check cells are multiples of: the page that the engine looks at."""
EEPROM_MOST = 1 << 16
"""Bytes of an EEPROM that two bytes of address reach."""
NOR_BLOCK = 1 << 16
"""Bytes of the largest block that a NOR flash on SPI erases at once."""
NOR_NEAR = 1 << 24
"""Bytes of such a flash that three bytes of address reach."""
NOR_MOST = 1 << 28
"""Bytes of such a flash whose size SFDP tells in bits, which have 31 bits."""
NOR_FOUR_BYTES = 0xE43
"""Commands with four bytes of address that are modelled: 13h, 0Ch, 12h, 21h, 5Ch and DCh."""

CFI_BLOCK = 256
"""Bytes in which the query of a NOR flash counts blocks of a chip."""
CFI_REGIONS = 4
"""Sizes of blocks that the models of NOR flashes tell."""

_HERE = Path(__file__).resolve().parent
_LIKES_MAX = 8
_FACTORY_MAX = 4096
_INTERRUPTS_MAX = 480


def list_chips() -> tuple[str, ...]:
    """The names of the microcontrollers that come with Unbrick."""
    return tuple(path.stem for path in sorted((_HERE / "chips").glob(f"*{SUFFIX}")))


@cache
def load_chip(name_or_path: str | Path, folder: Path = Path()) -> McuChip:
    """A microcontroller, by the name of one that comes with Unbrick, or from a file.

    Args:
        name_or_path: a name, such as ``stm32f103xb``, or a path that ends with ``.toml``. A file
            that says ``like`` has all that it does not say from the chip named there.
        folder: where a path begins.

    Raises:
        SetupError: there is no such chip, or its file is wrong.
    """
    path = find_file("chips", str(name_or_path), folder)
    entries = _read(path)
    core = _one_of(entries, "core", entries.text("core"), CORES)
    is_application = core in APPLICATION_CORES
    flash = tuple(_flash(name, table) for name, table in entries.table("flash").tables())
    loaded: dict[str, bytes] = {}
    rams = tuple(
        (name, _ram(name, table, path.parent, loaded))
        for name, table in entries.table("ram").tables()
    )
    devices: list[McuDevice] = []
    for name, table in entries.table("devices").tables():
        devices.append(_device(name, table, devices, flash))
    blocks = [_registers(name, table) for name, table in entries.table("registers").tables()]
    chip = McuChip(
        name=path.stem,
        core=core,
        clock_hz=entries.number("clock_hz", least=1_000, most=1_000_000_000),
        interrupts=_INTERRUPTS_MAX
        if is_application
        else entries.number("interrupts", least=1, most=_INTERRUPTS_MAX),
        priority_bits=8 if is_application else entries.number("priority_bits", least=2, most=8),
        mpu_regions=entries.number("mpu_regions", 0, most=16),
        fpu=entries.number("fpu", 0, most=2),
        bit_band=entries.flag("bit_band"),
        secure_alias=entries.flag("secure_alias"),
        secure_option=_option(entries.table("secure_option")),
        baud=entries.number("baud", 115_200, least=1, most=10_000_000),
        unit=entries.number("unit"),
        flash=flash,
        rams=rams,
        devices=tuple(devices),
        uarts=tuple(entries.take("uarts", list, "a list of names of devices")),
        registers=tuple(register for registers, _ in blocks for register in registers),
        ready=tuple(rule for _, rules in blocks for rule in rules),
        systick_divider=entries.number("systick_divider", 0, most=64),
        shared_bus=entries.flag("shared_bus"),
        boot_rom=_boot_rom(entries.table("boot_rom")) if entries.has("boot_rom") else None,
        loaded=loaded,
        programmers=_programmers(entries.table("programmers")),
        unmodelled=entries.texts("unmodelled"),
    )
    entries.all_used()
    _check_parts(chip, entries)
    _check_memories(chip, entries)
    _check_places(chip, entries)
    return chip


def _read(path: Path) -> Entries:
    """The entries of a file, with those that it takes over from others."""
    entries = read_toml(path, UNREADABLE_HINT)
    for _ in range(_LIKES_MAX):
        if not entries.has("like"):
            return entries
        base = find_file("chips", entries.text("like"), path.parent)
        entries = entries.on_top_of(read_toml(base, UNREADABLE_HINT))
    raise entries.wrong("is wrong: `like` leads in a circle", "name a chip that is complete")


def _programmers(entries: Entries) -> Programmers:
    names = ("openocd", "openocd_erase", "pyocd", "jlink", "nrfjprog")
    texts = {name: entries.text(name, "") for name in names}
    found = Programmers(**texts, pyocd_pack=entries.flag("pyocd_pack"))
    entries.all_used()
    return found


def _option(entries: Entries) -> tuple[int, bytes] | None:
    if not entries.has("at"):
        return None
    found = entries.number("at"), _bytes(entries, "bytes")
    entries.all_used()
    return found


def _bytes(entries: Entries, key: str) -> bytes:
    found = entries.take(key, list, "a list of bytes", [])
    if len(found) > _FACTORY_MAX or not all(
        type(byte) is int and 0 <= byte <= 0xFF for byte in found
    ):
        raise entries.wrong(
            f"is wrong: `{key}` has something that is no byte",
            f"give at most {_FACTORY_MAX} numbers from 0 to 255",
        )
    return bytes(found)


def _one_of(entries: Entries, key: str, value: str, known: tuple[str, ...]) -> str:
    if value in known:
        return value
    nearest = get_close_matches(value, known, n=1, cutoff=0.0)
    raise entries.wrong(
        f"is wrong: `{key}` is {value!r}", f"did you mean {nearest[0]}? There is {', '.join(known)}"
    )


def _flash(name: str, entries: Entries) -> FlashRegion:
    factory = _bytes(entries, "factory")
    region = FlashRegion(
        name=name,
        base=entries.number("base"),
        blocks=tuple(read_pairs(entries, "blocks", "count", "size")),
        alias=entries.number("alias") if entries.has("alias") else None,
        factory=factory,
        ecc=entries.number("ecc", 0, most=max(UNITS)),
        words=tuple(_word(row) for row in entries.rows("words")),
    )
    entries.all_used()
    if not region.blocks:
        raise entries.wrong("is wrong: `blocks` is missing", "give each `count` and `size`")
    if region.size > ADDRESS_SPACE_SIZE // 2 or len(region.block_sizes) > 1 << 16:
        raise entries.wrong("is wrong: `blocks` are too many", "correct `count` and `size`")
    if region.ecc and region.ecc not in ECC_UNITS:
        raise entries.wrong(f"is wrong: `ecc` is {region.ecc}", f"choose one of {ECC_UNITS}")
    if OPTION_WORD * len(region.words) > region.size:
        raise entries.wrong("is wrong: `words` are too many", f"each takes {OPTION_WORD} bytes")
    wrong = [size for size in region.block_sizes if region.ecc and size % ECC_BLOCK]
    if wrong:
        raise entries.wrong(
            f"is wrong: a block with `ecc` has {wrong[0]} bytes", f"take multiples of {ECC_BLOCK}"
        )
    if len(factory) > region.size:
        raise entries.wrong(
            f"is wrong: `factory` has {len(factory)} bytes, the region {region.size}",
            "leave out what is 0xFF at the end",
        )
    return region


def _boot_rom(entries: Entries) -> BootRom:
    names = tuple(path.parent.name for path in (_HERE / "roms").glob("*/rom.ld"))
    rom = BootRom(
        _one_of(entries, "program", entries.text("program"), names),
        entries.number("base"),
        entries.number("size", least=PAGE_SIZE),
        entries.number("stage", 0, most=PAGE_SIZE),
    )
    entries.all_used()
    _check_pages(entries, rom.base, rom.size)
    return rom


def _word(entries: Entries) -> tuple[str, int]:
    found = entries.text("name"), _aligned(entries, "register")
    entries.all_used()
    return found


def _check_pages(entries: Entries, base: int, size: int) -> None:
    for key, value in (("base", base), ("size", size)):
        if value % PAGE_SIZE:
            raise entries.wrong(
                f"is wrong: `{key}` is {value:#x}, no multiple of {PAGE_SIZE:#x}",
                f"choose {value // PAGE_SIZE * PAGE_SIZE:#x}",
            )


def _ram(name: str, entries: Entries, folder: Path, loaded: dict[str, bytes]) -> Region:
    """A RAM; what its entry `loaded` names goes into ``loaded``."""
    file = folder / entries.text("loaded", "")
    region = Region(entries.number("base"), entries.number("size", least=PAGE_SIZE))
    entries.all_used()
    _check_pages(entries, region.base, region.size)
    if file != folder:
        loaded[name] = _read_loaded(entries, file, region.size)
    return region


def _read_loaded(entries: Entries, file: Path, most: int) -> bytes:
    try:
        data = file.read_bytes()
    except OSError as error:
        raise entries.wrong(
            f"is wrong: `loaded`: {file.name} cannot be read ({error.strerror})",
            "name a file beside the chip file",
        ) from error
    if len(data) > most:
        raise entries.wrong(
            f"is wrong: {file.name} has {len(data)} bytes, the RAM {most}", "name a smaller file"
        )
    return data


def _device(
    name: str, entries: Entries, earlier: list[McuDevice], flash: tuple[FlashRegion, ...]
) -> McuDevice:
    known = _one_of(entries, "model", entries.text("model"), tuple(MODELS))
    model = MODELS[known]
    device = McuDevice(
        name=name,
        model=known,
        base=_base(entries, model, earlier, flash),
        interrupt=entries.number("interrupt", most=_INTERRUPTS_MAX - 1)
        if model.interrupt
        else None,
        numbers=tuple(
            _other(entries, key, model.others[key], earlier)
            if key in model.others
            else entries.number(key, number.default, least=number.least, most=number.most)
            for key, number in model.numbers.items()
        ),
    )
    entries.all_used()
    return device


def _base(
    entries: Entries, model: DeviceModel, earlier: list[McuDevice], flash: tuple[FlashRegion, ...]
) -> int:
    """Where a device is: at its bus, at its flash, or where the file says."""
    if model.bus:
        return _other(entries, "bus", model.bus, earlier)
    if not model.in_memory:
        return _aligned(entries, "base")
    used = sum(MODELS[device.model].flash_regions for device in earlier)
    if used >= len(flash):
        raise entries.wrong("is wrong: it has no flash", "describe its region after the others")
    return flash[used].base


def _other(entries: Entries, key: str, model: str, earlier: list[McuDevice]) -> int:
    """The base of a device that a file names, of this model."""
    known = {device.name: device.base for device in earlier if device.model == model}
    if not known:
        raise entries.wrong(
            f"is wrong: `{key}` names a device of the model {model}, and none comes before it",
            "describe that device first",
        )
    return known[_one_of(entries, key, entries.text(key), tuple(known))]


def _aligned(entries: Entries, key: str) -> int:
    value = entries.number(key)
    if value % 4:
        raise entries.wrong(
            f"is wrong: `{key}` is {value:#x}, no multiple of 4", f"choose {value & ~3:#x}"
        )
    return value


def _registers(name: str, entries: Entries) -> tuple[list[Register], list[ReadyRule]]:
    """The registers of a device that has no model, and what follows what."""
    base = _aligned(entries, "base")
    rows: dict[str, list[Entries]] = {}
    registers: dict[str, Register] = {}
    for key, table in entries.tables():
        address = base + _aligned(table, "offset")
        registers[key] = Register(f"{name}.{key}", address, table.number("reset", 0))
        rows[key] = table.rows("ready")
        table.all_used()
    rules = [_rule(row, registers[key], registers) for key, found in rows.items() for row in found]
    return list(registers.values()), rules


def _rule(row: Entries, own: Register, registers: dict[str, Register]) -> ReadyRule:
    other = (
        _one_of(row, "register", row.text("register"), tuple(registers))
        if row.has("register")
        else ""
    )
    ready = registers[other] if other else own
    rule = ReadyRule(
        enable=(own.address, row.number("enable", least=1)),
        ready=(ready.address, row.number("ready", least=1)),
    )
    row.all_used()
    if rule.enable[1].bit_count() != rule.ready[1].bit_count():
        raise row.wrong(
            "is wrong: `enable` and `ready` differ in their number of bits",
            "give the mask of one field each",
        )
    return rule


def _check_parts(chip: McuChip, entries: Entries) -> None:
    """See that what belongs together is there."""
    if chip.unit not in UNITS:
        raise entries.wrong(f"is wrong: `unit` is {chip.unit}", f"choose one of {UNITS}")
    for key, found in (("flash", chip.flash), ("ram", chip.rams)):
        if not found:
            raise entries.wrong(f"is wrong: [{key}] has no table", f"describe one, [{key}.main]")
    uarts = tuple(device.name for device in chip.devices if MODELS[device.model].is_uart)
    for uart in chip.uarts:
        if uart not in uarts:
            raise entries.wrong(
                f"is wrong: `uarts` names {uart!r}", f"name UARTs: {', '.join(uarts) or 'none'}"
            )
    controlled = sum(MODELS[device.model].flash_regions for device in chip.devices)
    if controlled != len(chip.flash):
        raise entries.wrong(
            f"is wrong: [flash] has {len(chip.flash)} regions, its controllers have {controlled}",
            "describe the main flash, and what the controller has beside it",
        )
    for device in chip.devices:
        if device.interrupt is not None and device.interrupt >= chip.interrupts:
            raise entries.wrong(
                f"is wrong: {device.name} has interrupt {device.interrupt}, the chip has "
                f"{chip.interrupts}",
                "correct `interrupt` or `interrupts`",
            )


def _check_memories(chip: McuChip, entries: Entries) -> None:
    """See that flash behind a bus has the size that its chip can have."""
    used = 0
    for device in chip.devices:
        model = MODELS[device.model]
        size = chip.flash[used].size if model.flash_regions else 0
        used += model.flash_regions
        if device.model == "eeprom_i2c":
            _, page, group, _ = device.numbers
            if page % group or size % page or size > EEPROM_MOST:
                raise entries.wrong(
                    f"is wrong: {device.name} has {size} bytes, pages of {page}, groups of {group}",
                    f"take at most {EEPROM_MOST} bytes in whole pages, and pages of whole groups",
                )
        elif device.model in {"nor_spi", "nor_qspi"}:
            _check_spi_nor(device, size, entries)
        elif model.in_memory:
            _check_parallel_nor(device, chip.flash[used - 1], entries)


def _check_spi_nor(device: McuDevice, size: int, entries: Entries) -> None:
    """See that addresses reach a NOR flash, and that its commands are modelled."""
    n = dict(zip(MODELS[device.model].numbers, device.numbers, strict=True))
    most = NOR_MOST if device.model == "nor_spi" else NOR_NEAR
    commands, table = n.get("four_byte_commands", 0), n.get("four_byte_table", 0)
    wrong: tuple[str, str] | None = None
    if size % NOR_BLOCK:
        wrong = f"{device.name} has {size} bytes", f"take a multiple of {NOR_BLOCK}"
    elif size > most:
        wrong = f"{device.name} has {size} bytes", f"take at most {most}"
    elif commands & ~NOR_FOUR_BYTES:
        wrong = f"`four_byte_commands` is {commands:#x}", f"take bits of {NOR_FOUR_BYTES:#x}"
    elif (commands or table) and size <= NOR_NEAR:
        wrong = (
            f"{device.name} has four bytes of address and {size} bytes",
            f"leave `four_byte_commands` and `four_byte_table` to more than {NOR_NEAR} bytes",
        )
    if wrong:
        raise entries.wrong(f"is wrong: {wrong[0]}", wrong[1])


def _check_parallel_nor(device: McuDevice, region: FlashRegion, entries: Entries) -> None:
    """See that what the query says of a NOR flash can be said, and fits its region."""
    n = dict(zip(MODELS[device.model].numbers, device.numbers, strict=True))
    chips, size = n["chips"], n["size"] or region.size
    last, kinds = region.blocks[-1][1], len(region.blocks)
    wrong: tuple[str, str] | None = None
    if n["width"] % 8 or (n["byte_mode"] and n["width"] == 16):
        wrong = f"`width` is {n['width']}", "take 8 or 16, and 8 with `byte_mode`"
    elif size // chips & (size // chips - 1) or size < region.size or (size - region.size) % last:
        wrong = f"`size` is {size}", "give each chip a power of two, and whole blocks"
    elif any(one % (CFI_BLOCK * chips) for one in region.block_sizes) or kinds > CFI_REGIONS:
        wrong = (
            f"{device.name} has blocks that the query cannot tell",
            f"take at most {CFI_REGIONS} sizes, of multiples of {CFI_BLOCK} bytes in a chip",
        )
    elif n["buffer"] & (n["buffer"] - 1) or n["buffer"] * chips > PROGRAM_MOST:
        wrong = f"`buffer` is {n['buffer']}", f"take a power of two, all at most {PROGRAM_MOST}"
    elif region.base % PAGE_SIZE or region.size % PAGE_SIZE:
        wrong = f"{region.name} is no whole pages", f"take multiples of {PAGE_SIZE}"
    if wrong:
        raise entries.wrong(f"is wrong: {wrong[0]}", wrong[1])


def _check_places(chip: McuChip, entries: Entries) -> None:
    """See that nothing lies over something else."""
    memories = [(f"ram.{name}", ram.base, ram.size) for name, ram in chip.rams]
    if chip.boot_rom is not None:
        memories.append(("boot_rom", chip.boot_rom.base, chip.boot_rom.size))
    for part in chip.flash:
        memories += [
            (f"flash.{part.name}", base, part.size)
            for base in (part.base, part.alias)
            if base is not None
        ]
    memories.sort(key=lambda memory: memory[1])
    starts = [*(base for _, base, _ in memories[1:]), ADDRESS_SPACE_SIZE]
    for (name, base, size), start in zip(memories, starts, strict=True):
        if base + size > start:
            raise entries.wrong(
                f"is wrong: [{name}] at {base:#x} ends at {base + size:#x}, after {start:#x}",
                "correct its place or its size, so that no two memories overlap",
            )
    placed = (device for device in chip.devices if not MODELS[device.model].in_memory)
    used = [(device.name, device.base) for device in placed]
    used += [(register.name, register.address) for register in chip.registers]
    for what, address in used:
        for name, base, size in memories:
            if base <= address < base + size:
                raise entries.wrong(
                    f"is wrong: {what} at {address:#x} is in [{name}]", "correct its `base`"
                )
