"""Pairs of published firmware for docs/performance.md: MicroPython for the micro:bit, Nordic's
connectivity images, and Debian's U-Boot. Packages are checked against pinned hashes, and never
enter the repository.
"""

from __future__ import annotations

import io
import re
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from bincopy import BinFile

from delta_pairs import Pair, Source, check_archive, unpack_sources
from unbrick.errors import SetupError

FLASH_END = 0x10000000
"""What lies above is configuration of the chip, in registers of its own."""

UFLASH = {
    "1.0.8": "b3bff3a02c90165c1c74cb61a7cd55c3ab5e76c4d4124cf3ee84cdcedb5609f4",
    "1.1.0": "558d0ba9ea44f5fec29dc58d8a1fe3b35531f2faf31ba857fa1888e70a493219",
    "1.3.0": "f5cd58cb84394572100715a7829f8b1278d950d793913662c5aef6849f39484e",
}
"""SHA-256 of the source distributions. Each holds MicroPython as HEX, in its Python source."""
NORDIC = Source(
    "pc-ble-driver-py==0.11.4",
    "pc_ble_driver_py-0.11.4.tar.gz",
    "8444c411621d38a624642869b5c60e100362ced1016c89c4f059f7978b6bb46b",
    (),
)
U_BOOT = {
    "2023.01": (
        "2023.01+dfsg-2+deb12u3",
        "02a14f0876b76c0d7d7934e9b83a77515c5bdbad1e00af84c445bfeb1e6b8665",
    ),
    "2025.01": (
        "2025.01-3+deb13u1",
        "a3751b5d36a411457b2e7a2834cdce0e5d40493e6588a65d51c5603740a0c71c",
    ),
}
"""Versions of the Debian package u-boot-qemu, and the SHA-256 of the packages."""

Image = tuple[bytes, int | None]
"""An image, and its address where it is known."""
Reader = Callable[[Path], Image]


@dataclass(frozen=True)
class Published:
    """A pair that others have published.

    Attributes:
        name: for people.
        isa: what the code is.
        old: reads the older image from its package, which it fetches into a folder.
        new: likewise, for the newer one.
    """

    name: str
    isa: str
    old: Reader
    new: Reader


def published_pairs(folder: Path, skipped: list[str]) -> Iterator[Pair]:
    """The pairs whose packages can be had; the others come into ``skipped``, with the reason."""
    for entry in PUBLISHED:
        try:
            (old, base), (new, _) = entry.old(folder), entry.new(folder)
        except SetupError as error:
            skipped.append(f"{entry.name}: {error}")
            continue
        yield Pair(entry.name, entry.isa, "large", old, new, base)


def _micropython(version: str) -> Reader:
    def read(folder: Path) -> Image:
        source = Source(f"uflash=={version}", f"uflash-{version}.tar.gz", UFLASH[version], ())
        text = (unpack_sources(folder, source) / "uflash.py").read_text(encoding="utf-8")
        found = re.search(r"_RUNTIME = (\"\"\"|''')(.*?)\1", text, re.DOTALL)
        if found is None:
            raise SetupError(f"uflash {version} holds no MicroPython")
        return _flat_hex(found[2].strip() + "\n")

    return read


def _connectivity(name: str) -> Reader:
    def read(folder: Path) -> Image:
        path = unpack_sources(folder, NORDIC) / "pc_ble_driver_py" / "hex" / f"{name}.hex"
        return _flat_hex(path.read_text())

    return read


def _u_boot(version: str) -> Reader:
    def read(folder: Path) -> Image:
        full, sha256 = U_BOOT[version]
        archive = folder / f"u-boot-qemu_{full}_all.deb"
        if not archive.is_file():
            _fetch_debian(f"u-boot-qemu={full}", archive)
        check_archive(archive, sha256)
        packed = _run(["dpkg-deb", "--fsys-tarfile", str(archive)], folder)
        with tarfile.open(fileobj=io.BytesIO(packed)) as files:
            image = files.extractfile("./usr/lib/u-boot/qemu_arm/u-boot.bin")
            if image is None:
                raise SetupError(f"{archive} holds no image")
            return image.read(), None

    return read


PUBLISHED = (
    Published(
        "MicroPython for micro:bit, uflash 1.0.8 → 1.1.0",
        "Thumb",
        _micropython("1.0.8"),
        _micropython("1.1.0"),
    ),
    Published(
        "MicroPython for micro:bit, uflash 1.1.0 → 1.3.0",
        "Thumb",
        _micropython("1.1.0"),
        _micropython("1.3.0"),
    ),
    Published(
        "Nordic connectivity, S132, UART → USB",
        "Thumb",
        _connectivity("sd_api_v3/connectivity_1.2.3_1m_with_s132_3.1"),
        _connectivity("sd_api_v3/connectivity_1.2.3_usb_with_s132_3.1"),
    ),
    Published(
        "Nordic connectivity, S130 → S132",
        "Thumb",
        _connectivity("sd_api_v2/connectivity_1.2.3_1m_with_s130_2.0.1"),
        _connectivity("sd_api_v3/connectivity_1.2.3_1m_with_s132_3.1"),
    ),
    Published(
        "U-Boot for qemu_arm, Debian 2023.01 → 2025.01",
        "ARM",
        _u_boot("2023.01"),
        _u_boot("2025.01"),
    ),
)


def _flat_hex(text: str) -> Image:
    """The flash of an Intel HEX file; gaps are erased."""
    file, flash = BinFile(), BinFile()
    file.add_ihex(text)
    for segment in file.segments:
        if segment.address < FLASH_END:
            flash.add_binary(bytes(segment.data), address=segment.address)
    return bytes(flash.as_binary(padding=b"\xff")), flash.minimum_address


def _fetch_debian(package: str, archive: Path) -> None:
    """Fetch a package from the archives that this system knows."""
    with tempfile.TemporaryDirectory(dir=archive.parent) as scratch:
        try:
            _run(["apt-get", "--quiet", "download", package], Path(scratch))
            next(Path(scratch).glob("*.deb")).replace(archive)
        except (SetupError, StopIteration) as error:
            raise SetupError(
                f"{package} could not be fetched",
                hint=f"give apt a source that has it, or put {archive.name} into {archive.parent}",
            ) from error


def _run(command: list[str], folder: Path) -> bytes:
    try:
        return subprocess.run(command, cwd=folder, capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        raise SetupError(f"{command[0]} does not work here") from error
