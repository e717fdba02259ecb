"""Images and keys by the real imgtool, as people make them: with its options, right and wrong."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from image_samples import FIELDS, program

from unbrick.layout import reference_layout

LAYOUT = reference_layout()
KEY_TYPES = ("ed25519", "ecdsa-p256", "ecdsa-p384", "rsa-2048", "rsa-3072", "x25519")
SLOT = LAYOUT.partition("application").size
START = LAYOUT.board.nor.base + LAYOUT.partition("application").offset

TEXTS = (
    *("--custom-tlv", "0xa0", FIELDS["hardware_id"]),
    *("--custom-tlv", "0xa1", FIELDS["name"]),
    *("--custom-tlv", "0xa2", FIELDS["build_time"]),
)
COUNTER = ("--security-counter", "2")
FIXED = ("--rom-fixed", hex(START))


class Imgtool:
    """imgtool, with keys of all types in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._made = 0
        (folder / "program.bin").write_bytes(program())

    def key(self, kind: str) -> Path:
        """A private key, made when it is asked for first."""
        path = self._folder / f"{kind}.pem"
        if not path.exists():
            self._run("keygen", "--type", kind, "--key", path)
        return path

    def sign(
        self,
        *options: object,
        key: str | None = "ed25519",
        header: int = LAYOUT.image_header_size,
        texts: tuple[str, ...] = TEXTS,
        counter: tuple[str, ...] = COUNTER,
        place: tuple[str, ...] = FIXED,
        binary: bytes | None = None,
    ) -> Path:
        """Sign a program; gives the file."""
        self._made += 1
        source, target = self._folder / "program.bin", self._folder / f"{self._made}.bin"
        if binary is not None:
            source = self._folder / f"{self._made}-program.bin"
            source.write_bytes(binary)
        with_key = () if key is None else ("--key", self.key(key))
        sizes = ("--header-size", hex(header), "--pad-header", "--slot-size", hex(SLOT))
        known = ("--version", FIELDS["version"], *texts, *counter, *place)
        self._run("sign", *with_key, *sizes, *known, *options, source, target)
        return target

    def _run(self, *arguments: object) -> None:
        command = [sys.executable, "-m", "imgtool.main", *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
