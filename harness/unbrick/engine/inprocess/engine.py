"""The in-process engine: Unicorn runs the CPU, the models in ``c/`` are the board, time is virtual.

The same NOR and the same bytes at the same virtual times give the same run, bit for bit.
"""

from __future__ import annotations

import ctypes as c
import random
from typing import TYPE_CHECKING, Any

from unicorn.arm_const import (
    UC_ARM_REG_CPSR,
    UC_ARM_REG_LR,
    UC_ARM_REG_R0,
    UC_ARM_REG_SP,
    UC_CPU_ARM_CORTEX_A9,
)
from unicorn.unicorn_const import (
    UC_ARCH_ARM,
    UC_HOOK_BLOCK,
    UC_HOOK_CODE,
    UC_HOOK_MEM_FETCH_PROT,
    UC_HOOK_MEM_READ,
    UC_HOOK_MEM_READ_PROT,
    UC_HOOK_MEM_WRITE,
    UC_HOOK_TLB_FILL,
    UC_MODE_ARM,
    UC_PROT_ALL,
    UC_PROT_EXEC,
    UC_PROT_READ,
    UC_TLB_VIRTUAL,
)
from unicorn.unicorn_py3 import unicorn as binding

from unbrick.engine.base import FirmwareFault, emulated_board
from unbrick.engine.compiled import CompiledEngine, Watchpoint, check_watchpoint, pack_watches
from unbrick.engine.inprocess.models import COPIED, FAULT_KINDS, CUnicorn, Models, Stop
from unbrick.engine.symbols import Symbols
from unbrick.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from unbrick.board import Board
    from unbrick.engine.compiled import CFault
    from unbrick.flash.ops import Worn

_FAULT_TEXTS = {
    "busy-fetch": "executed from the NOR at {address:#x} while it was not in read-array mode",
    "busy-read": "read the NOR at {address:#x} while it was not in read-array mode",
    "program-set-bit": "programmed {detail:#010x} (old, new) at {address:#x} without an erase",
    "command": "the NOR refused {detail:#x} at {address:#x}",
    "locked": "program or erase of the locked block at {address:#x}",
    "bounds": "access to {address:#x}, which is not there",
    "exception": "the CPU took an exception at {address:#x} (emulator error {detail})",
    "uart-lost": "UART{address} could not take byte {detail:#04x}",
}


TRANSLATED = 32 << 20  # bytes of translated code; Unicorn's 1 GiB would all be used in time
PC, CPSR = 15, 16
_REGISTERS = (
    *(UC_ARM_REG_R0 + number for number in range(13)),
    UC_ARM_REG_SP,
    UC_ARM_REG_LR,
    None,  # the models have the PC
    UC_ARM_REG_CPSR,
)


_LONGEST_ACCESS = 16  # bytes
_COPIES = 2 << 32
"""Where the copies of pages with code are (``COPIED`` in ``c/parts.h``)."""

_NOTED = 1 << 32
"""Where the NOR is for loads that are noted: so much further (``NOTED`` in ``c/parts.h``)."""


def _address(function: object) -> int:
    return c.cast(function, c.c_void_p).value or 0  # type: ignore[arg-type]


class _Line:
    """One UART of the models."""

    def __init__(self, models: Models, uart: int) -> None:
        self._models, self._uart = models, uart

    def write(self, data: bytes) -> None:
        """Send ``data``; bytes arrive one after the other at the line's rate."""
        self._models.lib.board_uart_push(self._models.board, self._uart, data, len(data))

    def read(self) -> bytes:
        """What the terminal has sent since the last call."""
        return self._models.take(self._uart)


class InProcessEngine(CompiledEngine[Models]):
    """A terminal in this process, in virtual time.

    Args:
        elf_files: firmware ELF files with symbols, so that faults name function and line.
        board: what it is; by default the board that is modelled.
        remembers: bytes in which it keeps what it did. Where it does the same again, that is not
            executed. It makes no difference but to the time that it takes.

    Raises:
        SetupError: it is another board.
    """

    name = "inprocess"

    def __init__(
        self,
        elf_files: Iterable[Path] = (),
        *,
        board: Board | None = None,
        remembers: int = 0,
    ) -> None:
        self.board = emulated_board(board, self.name)
        super().__init__(Models(self.board))
        self._symbols = Symbols(elf_files)
        self._last = Stop.TIME
        self._code_sizes: Any = None
        self._breakpoints: dict[int, Any] = {}
        self._watchpoints: dict[Watchpoint, Any] = {}
        self._watch_hit: tuple[Watchpoint, int] | None = None
        self._stepping = False
        self.wire = _Line(self._models, 0)
        self.radio = _Line(self._models, 1)
        self._sram_garbage = random.Random(0x5EED).randbytes(self.board.sram.size)
        self._uc: Any = binding.Uc(UC_ARCH_ARM, UC_MODE_ARM)
        self._uc.ctl_set_tcg_buffer_size(TRANSLATED)  # before all else
        self._uc.ctl_set_cpu_model(UC_CPU_ARM_CORTEX_A9)
        self._uc.ctl_set_tlb_mode(UC_TLB_VIRTUAL)
        self._scratch = self._uc.context_save()
        self._connect()
        self._reset_state = self._uc.context_save()
        if remembers:
            self._models.lib.board_remember(self._models.board, remembers)

    def _connect(self) -> None:
        """Map the memories and give Unicorn the C callbacks, with no Python in between."""
        models, lib, uclib = self._models, self._models.lib, binding.uclib
        chips, sram = self.board.nor, self.board.sram
        handle = self._uc._uch  # noqa: SLF001 - the binding has no public name for it
        self._uc.mem_map_ptr(
            chips.base, chips.modelled, UC_PROT_READ | UC_PROT_EXEC, models.flash_address
        )
        self._uc.mem_map_ptr(sram.base, sram.size, UC_PROT_ALL, models.sram_address)
        self._uc.mem_map_ptr(_COPIES, COPIED, UC_PROT_READ | UC_PROT_EXEC, models.copies_address)
        functions = CUnicorn(
            handle,
            *(
                _address(getattr(uclib, f"uc_{name}"))
                for name in (
                    "emu_start",
                    "emu_stop",
                    "reg_read",
                    "reg_write",
                    "mem_protect",
                    "ctl",
                    "context_save",
                    "context_restore",
                    "context_size",
                )
            ),
            self._scratch.context,
        )
        lib.board_attach(models.board, c.byref(functions))
        pointer, size = c.c_void_p, c.c_size_t
        mmio_map = c.CFUNCTYPE(c.c_int, pointer, c.c_uint64, size, *(pointer,) * 4)(
            _address(uclib.uc_mmio_map)
        )
        regions = (
            (chips.window, chips.size, "nor"),
            (self.board.device("sysreg").base, 0x12000, "motherboard"),
            (self.board.device("gic_cpu").base & ~0xFFF, 0x2000, "private"),
            (_NOTED + chips.base, chips.modelled, "noted"),
        )
        for base, length, name in regions:
            read = _address(getattr(lib, f"board_mmio_{name}_read"))
            write = _address(getattr(lib, f"board_mmio_{name}_write", None))
            error = mmio_map(handle, base, length, read, models.board, write, models.board)
            if error:
                raise EngineError(f"Unicorn refused the device region at {base:#x} ({error})")
        protected = UC_HOOK_MEM_FETCH_PROT | UC_HOOK_MEM_READ_PROT
        nor = (chips.base, chips.base + chips.modelled - 1)
        hooks = (
            (UC_HOOK_BLOCK, lib.board_on_block, (1, 0)),  # everywhere
            (UC_HOOK_TLB_FILL, lib.board_on_page, (1, 0)),
            # Only there: every store is slow where there is any hook for memory.
            (protected, lib.board_on_protected, nor),
        )
        self._hooks = [self._add_hook(*hook) for hook in hooks]

    def _add_hook(self, kind: int, function: object, where: tuple[int, int]) -> Any:
        """Have Unicorn call one of the models' functions; gives the hook."""
        pointer, hook = c.c_void_p, c.c_size_t()
        hook_add = c.CFUNCTYPE(
            c.c_int, pointer, pointer, c.c_int, pointer, pointer, c.c_uint64, c.c_uint64
        )(_address(binding.uclib.uc_hook_add))
        handle = self._uc._uch  # noqa: SLF001 - as in _connect
        error = hook_add(
            handle, c.addressof(hook), kind, _address(function), self._models.board, *where
        )
        if error:
            raise EngineError(f"Unicorn refused a hook ({error})")
        return hook

    @property
    def blocks(self) -> int:
        """Basic blocks executed so far."""
        return int(self._models.lib.board_blocks(self._models.board))

    @property
    def followed(self) -> int:
        """Basic blocks that were not executed, for what comes of them was known; since ever."""
        return int(self._models.lib.board_followed(self._models.board))

    def watch_code(self) -> None:
        """From now on note which code is executed; see :meth:`executed`."""
        memories = self.board.nor.modelled + self.board.sram.size
        self._code_sizes = c.create_string_buffer(memories // 2)
        self._models.lib.board_watch_code(self._models.board, self._code_sizes)

    def executed(self) -> list[tuple[int, int]]:
        """(address, length in bytes) of every basic block that was executed since then."""
        if self._code_sizes is None:
            return []
        sram, base = self.board.nor.modelled // 2, self.board.sram.base
        return [
            (2 * i if i < sram else base + 2 * (i - sram), 2 * size)
            for i, size in enumerate(self._code_sizes.raw)
            if size
        ]

    @property
    def overruns(self) -> tuple[int, ...]:
        lib, board = self._models.lib, self._models.board
        return int(lib.board_uart_overruns(board, 0)), int(lib.board_uart_overruns(board, 1))

    def _describe(self, fault: CFault) -> FirmwareFault:
        kind = FAULT_KINDS[fault.kind]
        text = _FAULT_TEXTS[kind].format(address=fault.address, detail=fault.detail)
        where = self._symbols.describe(fault.pc)
        return FirmwareFault(kind, fault.pc, where, text, fault.time / 1e9)

    def power_on(self) -> None:
        if self._powered:
            return
        self._models.sram[:] = self._sram_garbage
        self._uc.context_restore(self._reset_state)
        self._models.lib.board_power_on(self._models.board, self.board.nor.base)
        self._powered = True
        self._last = Stop.TIME

    def wear(self, worn: Iterable[Worn]) -> None:
        """Have flash operations end with an error from now on; what was said before is forgotten.

        Raises:
            EngineError: these are more places than the models can keep.
        """
        self._models.wear(worn)

    def is_locked_down(self, offset: int) -> bool:
        """Whether no software can change the NOR's block at an offset before the next power-up."""
        return bool(self._models.lib.board_locked_down(self._models.board, offset))

    @property
    def cut_reached(self) -> bool:
        """Whether the armed cut stopped the terminal; :meth:`power_off` completes it."""
        return self._powered and self._last is Stop.CUT

    def advance(self, seconds: float) -> None:
        self._ended(self._models.run(self._find_end(seconds)))

    def _ended(self, reason: int) -> None:
        self._last = Stop(reason)
        if self._last is Stop.RESET:  # the SRAM is given up, too: nothing may rely on it
            self.power_off()
            self.power_on()
        elif self._last is Stop.WATCH:
            address = c.c_uint32()
            index = self._models.lib.board_watch_hit(self._models.board, c.byref(address))
            self._watch_hit = list(self._watchpoints)[index], address.value

    # For a debugger; each may be called between two runs only.

    @property
    def last_stop(self) -> Stop:
        """Why :meth:`advance` or :meth:`step` came back."""
        return self._last

    def step(self, *, over_watchpoints: bool = False) -> None:
        """Execute one instruction, also one with a breakpoint; virtual time is only roughly so.

        Args:
            over_watchpoints: also one that accesses what is watched.
        """
        self._stepping = True
        self._uc.ctl_flush_tb()  # Unicorn does not count in what it translated without counting.
        try:
            self._ended(self._models.lib.board_step(self._models.board, over_watchpoints))
        finally:
            self._stepping = False

    def read_register(self, number: int) -> int:
        """R0 to R15 (15 is the PC) and, as 16, the CPSR."""
        register = _REGISTERS[number]
        self._models.arrive()
        if register is None:
            return int(self._models.lib.board_pc(self._models.board))
        return int(self._uc.reg_read(register))

    def write_register(self, number: int, value: int) -> None:
        """Set a register, numbered as in :meth:`read_register`."""
        register = _REGISTERS[number]
        self._models.leave()
        if register is None:
            self._models.lib.board_set_pc(self._models.board, value & ~1)
        else:
            self._uc.reg_write(register, value)

    def read_memory(self, address: int, length: int) -> bytes:
        """NOR (its cells, whatever the chips answer now) or SRAM; shorter at the memory's end.

        Raises:
            EngineError: it is another place; to look at a device would change it.
        """
        sram = address - self.board.sram.base
        if 0 <= address < self.board.nor.modelled:
            self._models.note(address, min(length, self.board.nor.modelled - address))
            return bytes(self._models.flash[address : address + length])
        if 0 <= sram < self.board.sram.size:
            self._models.arrive()
            return bytes(self._models.sram[sram : sram + length])
        raise EngineError(f"{address:#x} is neither in the NOR nor in the SRAM")

    def write_sram(self, address: int, data: bytes) -> None:
        """Change the SRAM.

        Raises:
            EngineError: it is not in the SRAM.
        """
        self._models.leave()
        at = address - self.board.sram.base
        if not 0 <= at <= at + len(data) <= self.board.sram.size:
            raise EngineError(f"{address:#x} is not in the SRAM")
        self._models.sram[at : at + len(data)] = data
        self._models.changed(address, address + len(data))

    @property
    def breakpoints(self) -> frozenset[int]:
        """Addresses of instructions before which :meth:`advance` comes back."""
        return frozenset(self._breakpoints)

    def set_breakpoint(self, address: int) -> None:
        """Stop before the instruction at ``address``, every time."""

        def reached(*_: object) -> None:
            if not self._stepping:
                self._models.lib.board_break(self._models.board)

        self._models.leave()
        if address not in self._breakpoints:
            hook = self._uc.hook_add(UC_HOOK_CODE, reached, begin=address, end=address)
            self._breakpoints[address] = hook
            self._uc.ctl_flush_tb()

    def clear_breakpoint(self, address: int) -> None:
        """No longer stop there."""
        hook = self._breakpoints.pop(address, None)
        if hook is not None:
            self._uc.hook_del(hook)
            self._uc.ctl_flush_tb()

    @property
    def watchpoints(self) -> frozenset[Watchpoint]:
        """What is watched: :meth:`advance` and :meth:`step` come back before an access to it."""
        return frozenset(self._watchpoints)

    @property
    def watch_hit(self) -> tuple[Watchpoint, int] | None:
        """Which watchpoint stopped the terminal last, and the address that was to be accessed."""
        return self._watch_hit

    def set_watchpoint(self, watchpoint: Watchpoint) -> None:
        """Stop before every instruction that accesses what is watched.

        Everything is slower then; without watchpoints nothing is.

        Raises:
            EngineError: there are too many already, or it is not within the 32-bit addresses.
        """
        first, last = watchpoint.address, watchpoint.address + watchpoint.length - 1
        if watchpoint in self._watchpoints:
            return
        check_watchpoint(watchpoint, len(self._watchpoints))
        # Unicorn looks only at where an access begins.
        where = (max(0, first - _LONGEST_ACCESS + 1), last)
        hook = self._add_hook(
            UC_HOOK_MEM_READ | UC_HOOK_MEM_WRITE, self._models.lib.board_on_access, where
        )
        self._watchpoints[watchpoint] = hook
        self._watch()

    def clear_watchpoint(self, watchpoint: Watchpoint) -> None:
        """No longer watch it."""
        hook = self._watchpoints.pop(watchpoint, None)
        if hook is not None:
            binding.uclib.uc_hook_del(self._uc._uch, hook)  # noqa: SLF001 - as in _connect
            self._watch()

    def _watch(self) -> None:
        array = pack_watches(self._watchpoints)
        self._models.lib.board_watch(self._models.board, array, len(array))
        self._uc.ctl_flush_tb()

    def read_sram(self) -> bytes:
        """The SRAM as it is now."""
        self._models.arrive()
        return bytes(self._models.sram)

    def load_nor(self, image: bytes) -> None:
        if self._powered:
            raise EngineError("the NOR cannot be replaced under power", hint="power off first")
        self._check_size(image)
        whole, size, nor = self.board.nor.modelled, self.board.nor.block_size, self._models.flash
        image = image.ljust(whole, b"\xff")
        for start in range(0, whole, size):
            fresh = image[start : start + size]
            if nor[start : start + size] != fresh:
                nor[start : start + size] = fresh
                self._models.changed(start, start + size)
