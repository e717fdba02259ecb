"""The vendors' flash algorithms: code that a debugger loads into the RAM.

They come with `pyocd`, and those of other chips with probe-rs, of which a developer may have a
clone. They are position-independent functions (CMSIS-Pack, "Flash programming algorithms"): `Init`,
`EraseSector`, `ProgramPage`, `UnInit`. What they return is 0 when all went well.
"""

from __future__ import annotations

import ast
import base64
import importlib.util
import re
import struct
from dataclasses import dataclass
from pathlib import Path

from unbrick.packages import find_clone

NAMES = ("FLASH_ALGO", "FLASH_ALGO_FLASH")
"""What the package calls the algorithm of a main flash."""

ERASE, PROGRAM = 1, 2
"""What `Init` is told that it is for."""


@dataclass(frozen=True)
class FlashAlgorithm:
    """One algorithm; places are offsets in ``code``.

    Attributes:
        code: to be copied to the RAM.
        init: function (base of the flash, clock in Hz, what for).
        erase_sector: function (address).
        program_page: function (address, length in bytes, address of the data).
        static_base: what R9 must hold.
    """

    code: bytes
    init: int
    erase_sector: int
    program_page: int
    static_base: int


def _find_targets() -> Path | None:
    """The folder with the folders of chips; None: the package is not installed."""
    spec = importlib.util.find_spec("pyocd")
    places = list(spec.submodule_search_locations or ()) if spec else []
    return Path(places[0]) / "target" if places else None


def read_algorithm(target: str) -> FlashAlgorithm | None:
    """The algorithm of one of the package's targets; None: the package is not installed.

    The file is read, and nothing of it is run: the package's debugger is not needed.

    Raises:
        LookupError: the file has no algorithm.
    """
    folder = _find_targets()
    if folder is None:
        return None
    (path,) = folder.glob(f"*/target_{target}.py")
    text = path.read_text(encoding="utf-8")
    for node in ast.parse(text).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) in NAMES:
            break
    else:
        raise LookupError(f"pyocd has no flash algorithm for {target}")
    assert isinstance(node.value, ast.Dict)
    told = {
        key.value: _calculate(value)
        for key, value in zip(node.value.keys, node.value.values, strict=True)
        if isinstance(key, ast.Constant) and not isinstance(value, ast.List | ast.Tuple)
    }
    words = next(
        value
        for key, value in zip(node.value.keys, node.value.values, strict=True)
        if isinstance(key, ast.Constant) and key.value == "instructions"
    )
    code = ast.literal_eval(words)
    start = told["load_address"]
    return FlashAlgorithm(
        struct.pack(f"<{len(code)}I", *code),
        told["pc_init"] - start,
        told["pc_erase_sector"] - start,
        told["pc_program_page"] - start,
        told["static_base"] - start,
    )


def read_cloned_algorithm(series: str, name: str) -> FlashAlgorithm:
    """An algorithm of the clone of probe-rs.

    Args:
        series: the file that has it, such as ``STM32G0_Series``.
        name: of the algorithm there.

    Raises:
        SetupError: there is no clone.
        LookupError: the file has no such algorithm.
    """
    file = f"probe-rs/targets/{series}.yaml"
    text = (find_clone("probe-rs/probe-rs", [file]) / file).read_text(encoding="utf-8")
    found = re.search(rf"^- name: {name}\n((?: .*\n)+)", text, re.MULTILINE)
    if found is None:
        raise LookupError(f"probe-rs has no flash algorithm {name}")
    told = dict(re.findall(r"^  (\w+): (\S+)$", found[1], re.MULTILINE))
    keys = ("pc_init", "pc_erase_sector", "pc_program_page", "data_section_offset")
    return FlashAlgorithm(
        base64.b64decode(told["instructions"]), *(int(told[key], 16) for key in keys)
    )


def _calculate(node: ast.expr) -> int:
    """A number, or a sum of numbers."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _calculate(node.left) + _calculate(node.right)
    return int(ast.literal_eval(node))
