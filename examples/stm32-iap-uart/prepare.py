"""Writes stm32-iap-uart-boot, a bootloader with a menu, as target files.

`UNBRICK_CORPUS=FOLDER python examples/stm32-iap-uart/prepare.py` does it. The folder has clones of
github.com/havenxie/stm32-iap-uart-boot and stm32-iap-uart-app, of which this takes the builds for
an STM32F103xE. docs/stm32-iap-uart.md says what searches find in them.
"""

from __future__ import annotations

from pathlib import Path

from unbrick.packages import find_clone, run_by_hand

BOOT = "MDK-ARM/OUTPUT/STM32-IAP_HD/STM32-IAP_HD.hex"
PROGRAM = "OUTPUT/Demo.bin"
PROGRAM_AT = 0x0800_3000
BUILD = Path(__file__).parent / "build"
DRIVER = Path(__file__).parent / "menu.py"

BOARD = """# STM32F103xE, "high density", with an LCD behind FSMC, as the demo wants it.
# Sources: RM0008, DS5792.
like = "stm32f103xb"
interrupts = 60

[flash.main]
blocks = [{ count = 256, size = 2048 }]

[ram.sram]
size = 0x1_0000

[devices.flash]
page_size = 2048
protected_pages = 2

[registers.fsmc]
base = 0xA000_0000
bcr1 = { offset = 0x00, reset = 0x0000_30DB }

[registers.lcd]
base = 0x6C00_0000
command = { offset = 0x7FC }
data = { offset = 0x800 }
"""

OPTIONS = {
    "update": "{}",
    "upload": '{ command = "upload" }',
}
"""The options of the driver, by the name of the target file."""


def find_corpus() -> tuple[Path, Path]:
    """The bootloader, and the program.

    Raises:
        SetupError: one is not there.
    """
    boot = find_clone("havenxie/stm32-iap-uart-boot", [BOOT]) / BOOT
    return boot, find_clone("havenxie/stm32-iap-uart-app", [PROGRAM]) / PROGRAM


def prepare(folder: Path = BUILD) -> dict[str, Path]:
    """Write all target files to a folder; their paths by name, such as ``update``.

    Raises:
        SetupError: the corpus is not there.
    """
    boot, program = find_corpus()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "board.toml").write_text(BOARD, encoding="utf-8")
    (folder / "boot.hex").write_bytes(boot.read_bytes())
    (folder / "program.bin").write_bytes(program.read_bytes())
    for name, options in OPTIONS.items():
        lines = [
            f'name = "iap-{name}"',
            'about = "stm32-iap-uart-boot takes a program by YMODEM"',
            'chip = "board.toml"',
            'console = "usart1"',
            'firmware = [{ file = "boot.hex" }]',
            "[update]",
            f'driver = "{DRIVER}"',
            'file = "program.bin"',
            f"at = {PROGRAM_AT:#x}",
            f"options = {options}",
            "[recovered]",
            'runs = ["new"]',
            'within = "200 ms"',
            "[images]",
            f'new = {{ file = "program.bin", at = {PROGRAM_AT:#x} }}',
        ]
        (folder / f"{name}.toml").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return {name: folder / f"{name}.toml" for name in OPTIONS}


if __name__ == "__main__":
    run_by_hand(prepare, f"the target files are in {BUILD}")
