"""A microcontroller on Renode: its core and devices, with our model of its flash."""

from __future__ import annotations

import random
import struct
from typing import TYPE_CHECKING

from unbrick.engine.lines import NoLine
from unbrick.engine.opinion import SecondOpinion
from unbrick.engine.renode.engine import RenodeRun
from unbrick.engine.renode.link import RenodeMachine
from unbrick.engine.renode.platform import describe_devices, describe_flash, list_code_ranges
from unbrick.errors import EngineError, MissingToolError, NotKnownHereError, SetupError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from unbrick.board.mcu import McuChip

_PERIPHERALS = ("Flash", "ChipFlash", "FlashNrf", "FlashStm32F1", "FlashStm32F4", "ReadyRegisters")
"""Files of ours that a chip needs, in the order in which they need each other."""

_SCRIPT = """\
mach create "chip"
machine LoadPlatformDescription $CWD/{devices}
machine LoadPlatformDescription $CWD/flash.repl
"""


_NO_CORE = "translate-arm-m"
"""What Renode does not find then."""

_QUANTUM_S = "0.0002"
"""Seconds: an STM32F103 takes 53 us to program a half-word, with its core halted."""


class RenodeChip(RenodeRun, SecondOpinion):
    """A microcontroller in a Renode process, in virtual time.

    Args:
        chip: what it is.
        elf_files: firmware ELF files with symbols, so that faults name function and line.
        console: name of the UART that is the console.
        platform: a ``.repl`` of the user's with the core, called ``cpu``, its ``nvic``, and the
            devices, but without the flash; None: ours.

    Raises:
        NotKnownHereError: its flash has no model here, or the console is none of its UARTs.
        SetupError: the file of the platform is missing.
        MissingToolError: Renode is not installed, or has no Cortex-M core.
        EngineError: it does not start.
    """

    def __init__(
        self,
        chip: McuChip,
        elf_files: Iterable[Path] = (),
        *,
        console: str | None = None,
        platform: Path | None = None,
    ) -> None:
        console = console or (chip.uarts[0] if chip.uarts else "")
        if console not in chip.uarts:
            raise NotKnownHereError(
                f"the engine {self.name} has no console {console!r}", hint="leave out --engine"
            )
        self.chip = chip
        files = {"flash.repl": describe_flash(chip)}
        devices = "devices.repl"
        if platform is None:
            files[devices] = describe_devices(chip)
        else:
            files[devices] = _read_platform(platform)
        script = [f"include $CWD/renode/peripherals/{name}.cs" for name in _PERIPHERALS]
        script.append(_SCRIPT.format(devices=devices))
        script += [
            f"cpu RegisterAccessFlags {start:#x} {length:#x} true\n"
            for start, length in list_code_ranges(chip)
        ]
        order = (console, *(name for name in chip.uarts if name != console))
        uarts = [f"{chip.device(name).base:#x}" for name in order]
        machine = RenodeMachine(
            "\n".join(script), uarts, is_chip=True, files=files, quantum_s=_QUANTUM_S
        )
        try:
            super().__init__(chip.board, machine, elf_files)
        except EngineError as error:
            if _NO_CORE in str(error):
                raise MissingToolError(
                    "this Renode has no Cortex-M core", hint="get a whole one from renode.io"
                ) from error
            raise
        self.lines = dict(zip(order, self._lines, strict=True))
        self.wire = self.lines[console]
        self.radio = self._lines[1] if len(order) > 1 else NoLine()
        for _, ram in chip.rams:  # as in process
            garbage = random.Random(ram.base).randbytes(ram.size)
            self._garbage += struct.pack("<Qi", ram.base, ram.size) + garbage
        self.load_nor(b"")

    @property
    def pc(self) -> int:
        """Address of the code that the core is at."""
        return self._pc

    @property
    def resets(self) -> int:
        """How often the chip has reset itself since the power came."""
        return self._resets

    def press_reset(self) -> None:
        if not self.powered:
            raise EngineError("without power there is no reset", hint="power on first")
        self._link.ask("S")

    def read_memory(self, address: int, length: int) -> bytes:
        place = self.chip.find_flash(address)
        if place is not None:
            start, left = place
            return self.read_nor()[start : start + min(length, left)]
        for _, ram in self.chip.rams:
            if ram.base <= address < ram.base + ram.size:
                size = min(length, ram.base + ram.size - address)
                return self._link.ask("M", struct.pack("<Qi", address, size))
        raise EngineError(f"{address:#x} is neither in the flash nor in the RAM")


def _read_platform(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SetupError(f"{path} cannot be read", hint="name a .repl file of yours") from error
