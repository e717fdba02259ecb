"""The releases of the terminal's software: compiled, signed and ready to publish."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property
from random import Random
from typing import TYPE_CHECKING

from unbrick.errors import BuildError, ImageError, SetupError
from unbrick.firmware.build import build_firmware
from unbrick.folders import firmware_folder
from unbrick.image.format import check_board, check_entry, inspect
from unbrick.layout import reference_layout

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from unbrick.firmware.build import Firmware, Program


FOREIGN = {"foreign": "unbrick-a9-r2", "successor": "unbrick-a9-r10"}
"""Hardware IDs by what the names of images for them begin with. One differs from ours in its last
character only, the other begins with all of ours.
"""

TWIN = "-twin"
"""What the name of an image ends with that has other contents than the release."""

TWIN_NOISE = 64
"""Bytes that a twin has more than the release that it is the twin of."""

NOISE_SIZE = 4099
"""Bytes after which noise repeats: a prime, so that no two blocks are the same."""


class SignedImages(dict[str, bytes]):
    """Signed images by their version. Looking up one that is not there says which ones are."""

    def __missing__(self, version: str) -> bytes:
        """Say that there is no release ``version``.

        Raises:
            SetupError: always.
        """
        raise SetupError(f"there is no release {version}", hint=f"choose from {', '.join(self)}")


@dataclass(frozen=True)
class Releases:
    """Everything that was built.

    Attributes:
        firmware: the programs, with their ELF and map files.
        boot: the flat binary of the bootloader.
        signed: the signed image of each version, as ``releases.toml`` names it.
        key: PEM file of the key they are signed with, and that boot trusts.
    """

    firmware: Firmware
    boot: bytes
    signed: SignedImages
    key: Path

    @cached_property
    def identity(self) -> str:
        """SHA-256 over all programs as they are in the NOR."""
        digest = hashlib.sha256(self.boot)
        for version, image in sorted(self.signed.items()):
            digest.update(f"{version}\0".encode() + hashlib.sha256(image).digest())
        return digest.hexdigest()

    @property
    def common_elf_files(self) -> list[Path]:
        """The ELF files of what every terminal has, whatever its application; boot's is first."""
        return [program.elf for program in self.firmware.common]

    @property
    def elf_files(self) -> list[Path]:
        """The ELF files of all programs, for debuggers and for messages with source lines."""
        return [program.elf for program in self.firmware.programs]

    def with_sizes(self, sizes: Mapping[str, int]) -> Releases:
        """These releases, of which some have images of just so many bytes.

        Noise follows the program, as data would that software brings. Where releases have noise
        they have the same, so that whole blocks of them are equal. It repeats, but never where
        another block or buffer begins.

        Args:
            sizes: bytes of the whole image, by version.

        Raises:
            SetupError: there is no such release.
            ImageError: the program alone is larger.
        """
        made = {version: self._pad(version, size) for version, size in sizes.items()}
        return replace(self, signed=SignedImages({**self.signed, **made}))

    def with_twin(self, version: str) -> Releases:
        """These releases and ``VERSION-twin``: other contents of the same version.

        Raises:
            SetupError: there is no such release.
        """
        twin = self._pad(version, len(self.signed[version]) + TWIN_NOISE)
        return replace(self, signed=SignedImages({**self.signed, f"{version}{TWIN}": twin}))

    def with_foreign(self, version: str) -> Releases:
        """These releases, and the same program signed for each other hardware of ``FOREIGN``.

        The names are ``foreign VERSION`` and so on.

        Raises:
            SetupError: there is no such release.
        """
        self.require([version], f"an image of {version} for other hardware")
        program = self.firmware.applications[version]
        binary = program.binary.read_bytes()
        images = {
            f"{name} {version}": _sign(program, binary, self.key, hardware_id=hardware_id)
            for name, hardware_id in FOREIGN.items()
        }
        return replace(self, signed=SignedImages({**self.signed, **images}))

    def _pad(self, version: str, size: int) -> bytes:
        whole = len(self.signed[version])
        if size < whole:
            raise ImageError(
                f"the release {version} cannot have an image of {size} bytes",
                hint=f"it has {whole} without any noise",
            )
        noise = Random("padding").randbytes(NOISE_SIZE) * (size // NOISE_SIZE + 1)
        program = self.firmware.applications[version]
        binary = program.binary.read_bytes()
        return _sign(program, binary + noise[len(binary) :][: size - whole], self.key)

    def require(self, versions: Iterable[str], who: str) -> None:
        """See that all of ``versions`` are there, before anything is begun.

        Args:
            versions: what is needed.
            who: needs them, for the message.

        Raises:
            SetupError: one is missing; says which, and which ones there are.
        """
        missing = [version for version in dict.fromkeys(versions) if version not in self.signed]
        if missing:
            raise SetupError(
                f"{who} needs {_named(missing)}, and this firmware has {_named(self.signed)}",
                hint="unset UNBRICK_FIRMWARE for the reference firmware, or add to "
                "firmware/releases.toml what is missing",
            )


def _named(versions: Iterable[str]) -> str:
    found = list(versions)
    if len(found) < 2:
        return f"the release {found[0]}" if found else "no release"
    return f"the releases {', '.join(found[:-1])} and {found[-1]}"


def make_releases(
    out: Path,
    key: Path | None = None,
    *,
    releases: Path | None = None,
    source: Path | None = None,
    objects: Path | None = None,
) -> Releases:
    """Compile the firmware and sign every release of it.

    Args:
        out: folder for what the compiler makes; nothing is compiled when it is there already.
        key: PEM file with the private key to sign with, whose public half goes into boot; by
            default the development key, which protects nothing.
        releases: what to build, instead of ``firmware/releases.toml``.
        source: the firmware's sources, instead of ``firmware``.
        objects: folder in which compiled files are kept for other builds (``build_firmware``).

    Raises:
        BuildError: something does not compile or does not fit.
        SetupError: the key or ``releases.toml`` cannot be used.
        ImageError: a release cannot run on this board.
    """
    key = key or firmware_folder() / "keys" / "development.pem"
    firmware = build_firmware(out, key=key, releases=releases, source=source, objects=objects)
    signed = SignedImages(
        (version, _sign(program, program.binary.read_bytes(), key))
        for version, program in firmware.applications.items()
    )
    boot = firmware.boot.binary.read_bytes()
    return Releases(firmware=firmware, boot=boot, signed=signed, key=key)


def _sign(program: Program, binary: bytes, key: Path, hardware_id: str = "") -> bytes:
    """The signed image of a release, for other hardware than ours if it is said.

    Raises:
        BuildError, ImageError, SetupError: as :func:`make_releases`.
    """
    from unbrick.image.sign import sign  # noqa: PLC0415 - of the extra `system`

    release = program.release
    if release is None:
        raise BuildError(
            f"{program.name} was built without a release", hint="build the firmware again"
        )
    image = sign(
        binary,
        name=release.name,
        version=release.version,
        build_time=release.build_time,
        hardware_id=hardware_id or reference_layout().hardware_id,
        security_counter=release.security_counter,
        key=key,
        userdata_format=release.userdata_format,
        delta_version=release.delta_version,
    )
    if not hardware_id:
        check_board(inspect(image))
    check_entry(image)
    return image
