"""Names of registers, from a file in the format CMSIS-SVD that the chip's vendor hands out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from unbrick.errors import SetupError

if TYPE_CHECKING:
    from pathlib import Path

_HINT = "name the .svd file of the chip's vendor"

_ROOT = b"<device"
_LOOKED_AT = 64 * 1024


def check_svd(path: Path) -> None:
    """See soon that a file may be an SVD, and that it can be read when a name is wanted.

    Raises:
        SetupError: the file cannot be read, or is no SVD.
        ModuleNotFoundError: the extra ``svd`` is not installed.
    """
    import cmsis_svd  # noqa: F401, PLC0415 - an extra

    try:
        with path.open("rb") as file:
            if _ROOT in file.read(_LOOKED_AT):
                return
    except OSError as error:
        raise SetupError(f"cannot read {path}: {error.strerror}", hint=_HINT) from None
    raise SetupError(f"{path} is no SVD file: it describes no device", hint=_HINT)


def read_register_names(path: Path) -> dict[int, str]:
    """The name of each register by its address, such as ``USART2.SR``.

    Takes seconds. Where several registers share an address, the first one in the file is named.

    Raises:
        SetupError: the file cannot be read, or is no SVD.
        ModuleNotFoundError: the extra ``svd`` is not installed.
    """
    import cmsis_svd  # noqa: PLC0415 - an extra

    library: Any = cmsis_svd
    names: dict[int, str] = {}
    try:
        for peripheral in library.SVDParser.for_xml_file(str(path)).get_device().peripherals:
            for register in peripheral.get_registers():
                address = peripheral.base_address + register.address_offset
                names.setdefault(address, f"{peripheral.name}.{register.name}")
    except Exception as error:  # noqa: BLE001 - a bad file makes the library raise anything
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise SetupError(f"{path} is no SVD file: {reason}", hint=_HINT) from None
    if not names:
        raise SetupError(
            f"{path} is no SVD file: it has no register",
            hint=_HINT,
        )
    return names
