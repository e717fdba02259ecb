"""Compiles and links the terminal's firmware with the pinned ``ziglang`` package.

Two builds of the same sources with the same options give the same bytes, wherever they are made.
Third-party code, libsodium's hashes, signature check and cipher, is not in the repository: it comes
from PyNaCl's source distribution, which pip fetches and checks against a pinned hash.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from elftools.elf.elffile import ELFFile

from unbrick.errors import BuildError, SetupError, UnbrickError
from unbrick.folders import firmware_folder
from unbrick.image.format import load_public_key
from unbrick.layout import Layout, c_header, linker_symbols, load_layout
from unbrick.lock import locked
from unbrick.packages import SourcePackage

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_TARGET = [
    "-target",
    "thumb-freestanding-eabi",
    # No floating point: its registers are off after a reset. No unaligned access: without MMU all
    # memory is of the Device kind, where the processor refuses it.
    "-mcpu=cortex_a9+strict_align-neon-vfp3-vfp2-fpregs",
]
_COMPILE = [
    "-Os",
    "-g",
    "-gno-record-command-line",
    "-ffreestanding",
    "-fno-sanitize=all",
    "-fno-stack-protector",
    # The NOR begins at address 0, which is a place like any other here.
    "-fno-delete-null-pointer-checks",
    "-fno-exceptions",
    "-fno-unwind-tables",
    "-fno-asynchronous-unwind-tables",
    "-ffunction-sections",
    "-fdata-sections",
]
_WARNINGS = ["-Wall", "-Wextra", "-Werror"]
_LINK = ["--gc-sections", "--no-undefined", "-z", "max-page-size=4", "--build-id=none"]

_MIN_STACK_SIZE = 16 * 1024
"""Bytes of SRAM that boot and application need for their stack at least (``board/sram.ld``)."""

_PYNACL = SourcePackage(
    "PyNaCl", "1.5.0", "8ac7448f09ab85811607bdd21ec2464495ac8b7c66d146bf545b0f08fb9220ba"
)
_SODIUM = f"{_PYNACL.folder}/src/libsodium/src/libsodium"
_SODIUM_SOURCES = (
    "crypto_aead/chacha20poly1305/sodium/aead_chacha20poly1305.c",
    "crypto_auth/hmacsha256/auth_hmacsha256.c",
    "crypto_core/ed25519/ref10/ed25519_ref10.c",
    "crypto_hash/sha256/cp/hash_sha256_cp.c",
    "crypto_hash/sha512/cp/hash_sha512_cp.c",
    "crypto_onetimeauth/poly1305/donna/poly1305_donna.c",
    "crypto_onetimeauth/poly1305/onetimeauth_poly1305.c",
    "crypto_sign/ed25519/ref10/open.c",
    "crypto_sign/ed25519/ref10/sign.c",
    "crypto_stream/chacha20/ref/chacha20_ref.c",
    "crypto_stream/chacha20/stream_chacha20.c",
    "crypto_verify/sodium/verify.c",
)
_SODIUM_HEADERS = (
    "include/",
    "crypto_core/ed25519/ref10/",
    "crypto_onetimeauth/poly1305/",
    "crypto_sign/ed25519/ref10/",
    "crypto_stream/chacha20/",
)

_STAMP = "firmware.json"

_INCLUDE = re.compile(r'^\s*#\s*include\s*"([^"]+)"', re.MULTILINE)


@dataclass(frozen=True)
class Sizes:
    """What a program takes, in bytes.

    Attributes:
        text: code and constants.
        data: initialised variables; they lie after ``text`` and are copied to the SRAM.
        bss: variables that begin as zero.
        limit: what ``text`` and ``data`` may take together.
        sram_limit: what ``data`` and ``bss`` may take together.
    """

    text: int
    data: int
    bss: int
    limit: int
    sram_limit: int


@dataclass(frozen=True)
class Release:
    """A release of the application (``firmware/releases.toml``).

    Attributes:
        name: of the software.
        version: ``major.minor.revision``.
        build_time: ISO 8601, UTC.
        security_counter: goes into the image.
        defines: C macros that make this release.
        userdata_format: in which it keeps the user's data; goes into the image, too.
        delta_version: the newest of differential files that it reads; goes into the image.
    """

    name: str
    version: str
    build_time: str
    security_counter: int
    defines: dict[str, str]
    userdata_format: int = 1
    delta_version: int = 1


@dataclass(frozen=True)
class Program:
    """One program of the firmware.

    Attributes:
        name: ``boot``, ``agent``, ``resident`` or ``app-<version>``.
        elf: with symbols and DWARF.
        binary: flat, from the program's first byte on.
        map: of the linker.
        sizes: and their limits.
        release: what the program was made from; None for the others than applications.
    """

    name: str
    elf: Path
    binary: Path
    map: Path
    sizes: Sizes
    release: Release | None = None


@dataclass(frozen=True)
class Firmware:
    """All programs of one build; the applications by their version."""

    boot: Program
    agent: Program
    resident: Program
    applications: dict[str, Program]

    @property
    def common(self) -> list[Program]:
        """What every terminal has, whatever its application: boot, agent, resident program."""
        return [self.boot, self.agent, self.resident]

    @property
    def programs(self) -> list[Program]:
        """All of them; boot is the first."""
        return [*self.common, *self.applications.values()]


def build_firmware(
    out: Path,
    *,
    key: Path | None = None,
    releases: Path | None = None,
    source: Path | None = None,
    objects: Path | None = None,
) -> Firmware:
    """Build all programs, one application a release, into the folder ``out``.

    Does nothing when ``out`` holds just that already. Safe when several processes build at once.

    Args:
        out: is made, or replaced.
        key: PEM file with the Ed25519 key, private or public, whose signature the terminal trusts;
            ``firmware/keys/development.pem`` by default.
        releases: instead of ``firmware/releases.toml``.
        source: a folder like ``firmware``, instead of that.
        objects: folder in which compiled files are kept for other builds, of whatever sources. By
            default nothing is kept. It grows with every change: it is the caller's to empty.

    Raises:
        BuildError: something does not compile, link or fit.
        SetupError: sources, key or third-party code are missing, or ``out`` holds other things.
    """
    source = (source or firmware_folder()).absolute()
    build = _Build(
        source=source,
        layout=load_layout(source / "layout.toml"),
        public_key=load_public_key(key or source / "keys" / "development.pem").public_bytes(
            serialization.Encoding.Raw, serialization.PublicFormat.Raw
        ),
        key_der=load_public_key(key or source / "keys" / "development.pem").public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        ),
        releases=read_releases(releases or source / "releases.toml"),
        objects=objects.absolute() if objects else None,
    )
    stamp = build.stamp()
    out = out.absolute()
    out.parent.mkdir(parents=True, exist_ok=True)
    with locked(out.with_name(out.name + ".lock")):
        if _read_stamp(out) != stamp:
            _check_replaceable(out)
            with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as scratch:
                fresh = Path(scratch) / "firmware"
                fresh.mkdir()
                build.run(fresh)
                (fresh / _STAMP).write_text(json.dumps({"stamp": stamp}))
                if out.exists():
                    out.rename(Path(scratch) / "old")
                fresh.rename(out)
        return build.result(out)


def read_releases(path: Path) -> list[Release]:
    """The releases of the application that a file names.

    Raises:
        SetupError: the file is missing or not as it must be.
    """
    try:
        text = path.read_text(encoding="utf-8")
        releases = [
            Release(
                name=str(entry["name"]),
                version=str(entry["version"]),
                build_time=str(entry["build_time"]),
                security_counter=int(entry["security_counter"]),
                defines={str(k): str(v) for k, v in entry.get("defines", {}).items()},
                userdata_format=int(entry.get("userdata_format", 1)),
                delta_version=int(entry.get("delta_version", 1)),
            )
            for entry in tomllib.loads(text)["release"]
        ]
    except OSError as error:
        raise SetupError(
            f"{path} cannot be read: {error.strerror}", hint="name a file of releases"
        ) from None
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise SetupError(
            f"{path} is no list of releases: {error}",
            hint="each [[release]] has name, version, build_time, security_counter and defines",
        ) from None
    if len({release.version for release in releases}) != len(releases):
        raise SetupError(f"{path} names a version twice", hint="give every release its own")
    return releases


def report_sizes(firmware: Firmware) -> str:
    """A table of what the programs take, for people."""
    lines = [f"{'program':<12}{'text':>9}{'data':>9}{'bss':>9}{'of':>10}{'used':>7}"]
    for program in firmware.programs:
        sizes = program.sizes
        share = (sizes.text + sizes.data) / sizes.limit
        lines.append(
            f"{program.name:<12}{sizes.text:>9}{sizes.data:>9}{sizes.bss:>9}"
            f"{sizes.limit:>10}{share:>7.1%}"
        )
    return "\n".join(lines)


@dataclass(frozen=True)
class _Link:
    """How one program is linked: from which folders' code, where it lies, what it may take."""

    script: str
    folders: tuple[str, ...]
    base: int
    limit: int
    sram_limit: int


_LIBRARY = ("lib", "board", "board/libc")


def _links(layout: Layout) -> dict[str, _Link]:
    """How each program is linked where the layout has it."""
    boot, application = layout.partition("boot"), layout.partition("application")
    nor, header = layout.board.nor.base, layout.image_header_size
    data = layout.pool.base - layout.board.sram.base - _MIN_STACK_SIZE
    agent, resident = layout.agent, layout.resident
    return {
        "boot": _Link("board/boot.ld", ("boot", *_LIBRARY), nor + boot.offset, boot.size, data),
        "app": _Link(
            "board/app.ld",
            ("app", "link", *_LIBRARY),
            nor + application.offset + header,
            application.size - header,
            data,
        ),
        "resident": _Link(
            "resident/resident.ld",
            ("resident", "link", *_LIBRARY),
            resident.base,
            resident.size,
            data,
        ),
        "agent": _Link(
            "agent/agent.ld", ("agent", "board/libc"), agent.base, agent.size, agent.size
        ),
    }


def _find_zig() -> Path:
    import ziglang  # noqa: PLC0415 - of the extra `system`

    return Path(ziglang.__file__).parent / "zig"


@dataclass(frozen=True)
class _Build:
    """One build: all that its result depends on."""

    source: Path
    layout: Layout
    public_key: bytes
    key_der: bytes
    releases: list[Release]
    objects: Path | None
    zig: Path = field(default_factory=_find_zig)

    def stamp(self) -> str:
        """A hash of everything that goes in."""
        digest = hashlib.sha256()
        for path in sorted(self._files()):
            digest.update(f"{path.relative_to(self.source)}\0".encode())
            digest.update(hashlib.sha256(path.read_bytes()).digest())
        digest.update(Path(__file__).read_bytes())
        digest.update(version("ziglang").encode())
        options: list[object] = [c_header(self.layout), self.public_key.hex()]
        options += [asdict(release) for release in self.releases]
        digest.update(json.dumps(options, sort_keys=True).encode())
        return digest.hexdigest()

    def _files(self) -> Iterator[Path]:
        for folder in ("lib", "board", "link", "agent", "resident", "boot", "app"):
            for path in (self.source / folder).rglob("*"):
                if path.suffix in {".c", ".h", ".S", ".ld"}:
                    yield path

    def _surroundings(self) -> str:
        """A hash of all that an object may depend on besides its source file and the command."""
        digest = hashlib.sha256(
            f"{version('ziglang')} {_PYNACL.sha256} {c_header(self.layout)}".encode()
        )
        digest.update(self.public_key)
        for path in sorted(self._files()):
            if path.suffix == ".h":
                digest.update(f"{path.relative_to(self.source)}\0".encode())
                digest.update(hashlib.sha256(path.read_bytes()).digest())
        return digest.hexdigest()

    def run(self, out: Path) -> None:
        """Compile and link into the empty folder ``out``."""
        generated = out / "generated"
        generated.mkdir()
        (generated / "board_map.h").write_text(c_header(self.layout))
        (generated / "board_map.ld").write_text(linker_symbols(self.layout))
        (generated / "trusted_key.h").write_text(_key_header(self.public_key, self.key_der))
        sodium, links = fetch_libsodium(), _links(self.layout)
        compiler = _Compiler(self.source, out, sodium, self.zig, self.objects, self._surroundings())
        with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as workers:
            third_party = list(workers.map(compiler.third_party, _SODIUM_SOURCES))

            def program(name: str, link: _Link, macros: Sequence[str] = ()) -> None:
                sources = [
                    path.relative_to(self.source)
                    for folder in link.folders
                    for path in sorted((self.source / folder).glob("*.[cS]"))
                ]
                own = link.folders[0]
                objects = workers.map(
                    lambda path: compiler.own(path, macros if path.parts[0] == own else (), name),
                    sorted(sources, key=str),
                )
                parts = list(objects) + (third_party if name != "agent" else [])
                compiler.link(name, link, parts)

            for name in ("agent", "resident", "boot"):  # each is embedded in those after it
                program(name, links[name])
            for release in self.releases:
                program(f"app-{release.version}", links["app"], _release_macros(release))
        shutil.rmtree(out / "objects")

    def result(self, out: Path) -> Firmware:
        """What lies in ``out``."""
        links = _links(self.layout)

        def program(name: str, link: _Link, release: Release | None = None) -> Program:
            elf = out / f"{name}.elf"
            sizes = _sizes(elf, link)
            return Program(name, elf, out / f"{name}.bin", out / f"{name}.map", sizes, release)

        return Firmware(
            program("boot", links["boot"]),
            program("agent", links["agent"]),
            program("resident", links["resident"]),
            {r.version: program(f"app-{r.version}", links["app"], r) for r in self.releases},
        )


@dataclass(frozen=True)
class _Compiler:
    """Runs the tools in ``out``. Objects lie in ``objects`` and are named after their sources.

    Those that are kept for other builds lie in ``kept``. Each is named after a hash of what it was
    made from: its source file, the command, and ``surroundings`` for all the rest.
    """

    source: Path
    out: Path
    sodium: Path
    zig: Path
    kept: Path | None
    surroundings: str

    @property
    def _shown(self) -> list[tuple[Path, str]]:
        """Folders of this machine, and what they are called in the debug information."""
        return [(self.source, "firmware"), (self.sodium, "libsodium"), (self.zig.parent, "zig")]

    def third_party(self, source: str) -> str:
        """Compile a file of libsodium; returns the object's path below ``out``."""
        include = self.sodium / "include"
        return self._compile(
            self.sodium / source,
            f"libsodium/{source}",
            # CONFIGURED is what its build system would say; its warnings are not ours to heed.
            ["-std=c11", "-w", "-DCONFIGURED=1", f"-I{include}/sodium", f"-I{include}"],
        )

    def own(self, source: Path, macros: Sequence[str], program: str) -> str:
        """Compile a file of ours; ``macros`` make it another object for each ``program``.

        Without the name of a macro in it, one object is for all of them.
        """
        if not self._names_one_of(macros, source):
            macros = ()
        name = f"{program}/{source}" if macros else str(source)
        # libsodium's headers count as the system's: no warnings for what is in them.
        options = [*macros, "-isystem", str(self.sodium / "include")]
        if source.suffix == ".c":
            options += ["-std=c11", *_WARNINGS]
        if source.parts[:2] == ("board", "libc"):
            options.append("-fno-builtin")
        if source.stem.endswith("_blob"):
            # The compiler's cache does not know what .incbin reads.
            embedded = self.out / f"{source.stem.removesuffix('_blob')}.bin"
            digest = hashlib.sha256(embedded.read_bytes()).hexdigest()
            options += ["-I.", f"-DEMBEDDED_SHA256={digest}"]
        return self._compile(self.source / source, name, options)

    def _names_one_of(self, macros: Sequence[str], source: Path) -> bool:
        """Whether a file, or one of ours that it includes, has the name of a macro in it."""
        names = [macro.removeprefix("-D").partition("=")[0] for macro in macros]
        macro = re.compile(rf"\b({'|'.join(names)})\b")
        waiting, seen = [self.source / source], set[Path]()
        while names and waiting:
            path = waiting.pop()
            if path in seen or not path.is_file():
                continue
            seen.add(path)
            text = path.read_text(encoding="utf-8")
            if macro.search(text):
                return True
            for name in _INCLUDE.findall(text):
                waiting += [self.source / name, path.parent / name]
        return False

    def _compile(self, source: Path, name: str, options: Sequence[str]) -> str:
        made = f"objects/{name}.o"
        target = self.out / made
        if target.exists():
            return made
        target.parent.mkdir(parents=True, exist_ok=True)
        command = ["cc", *_TARGET, *_COMPILE, "-c", str(source)]
        command += [f"-I{self.source}/board/libc", f"-I{self.source}", "-Igenerated", *options]
        # No path of this machine in the debug information.
        command.append("-fdebug-compilation-dir=build")
        command += [f"-ffile-prefix-map={path}={shown}" for path, shown in self._shown]
        kept = self._kept(command, source)
        if kept is not None and kept.exists():
            shutil.copyfile(kept, target)
            return made
        self._run([*command, "-o", made], f"{name} does not compile")
        if kept is not None:
            _copy_at_once(target, kept)
        return made

    def _kept(self, command: Sequence[str], source: Path) -> Path | None:
        """Where the object that a command makes is kept, if it is."""
        if self.kept is None:
            return None
        text = json.dumps([self.surroundings, *command])
        for path, shown in self._shown:
            text = text.replace(str(path), shown)
        digest = hashlib.sha256(text.encode())
        digest.update(source.read_bytes())
        return self.kept / f"{digest.hexdigest()}.o"

    def link(self, name: str, how: _Link, objects: Iterable[str]) -> None:
        """Link a program and write its flat binary."""
        elf = self.out / f"{name}.elf"
        command = ["ld.lld", *_LINK, f"-T{self.source / how.script}", f"-L{self.source}/board"]
        command += ["-Lgenerated", f"-Map={name}.map", "-o", elf.name, *objects]
        self._run(command, f"{name} does not link")
        sizes = _sizes(elf, how)
        if sizes.text + sizes.data > sizes.limit or sizes.data + sizes.bss > sizes.sram_limit:
            raise BuildError(f"{name} is too large: {sizes}", hint="make it smaller")
        (self.out / f"{name}.bin").write_bytes(_flat(elf, how.base))

    def _run(self, command: Sequence[str], failed: str) -> None:
        done = subprocess.run(
            [str(self.zig), *command],
            cwd=self.out,
            capture_output=True,
            text=True,
            check=False,
            errors="replace",
        )
        if done.returncode:
            raise BuildError(
                f"{failed}:\n{done.stderr.strip()}", hint="correct the firmware's sources"
            )


def _copy_at_once(source: Path, target: Path) -> None:
    """Copy a file, so that nobody ever sees a part of it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        fresh = Path(scratch) / target.name
        shutil.copyfile(source, fresh)
        fresh.replace(target)


def _macros(defines: Mapping[str, str]) -> list[str]:
    return [f"-D{name}={value}" for name, value in sorted(defines.items())]


def _release_macros(release: Release) -> list[str]:
    texts = {
        "RELEASE_NAME": release.name,
        "RELEASE_VERSION": release.version,
        "RELEASE_BUILD_TIME": release.build_time,
    }
    quoted = {name: json.dumps(text) for name, text in texts.items()}
    return _macros({**quoted, "USERDATA_FORMAT": str(release.userdata_format), **release.defines})


def _key_header(raw: bytes, der: bytes) -> str:
    def array(name: str, data: bytes) -> str:
        return f"static const uint8_t {name}[32] = {{{', '.join(map(str, data))}}};\n"

    return (
        "#pragma once\n#include <stdint.h>\n"
        + array("trusted_key", raw)
        + array("trusted_key_hash", hashlib.sha256(der).digest())
    )


def _sizes(elf: Path, how: _Link) -> Sizes:
    with elf.open("rb") as stream:
        sections = {section.name: section["sh_size"] for section in ELFFile(stream).iter_sections()}
    return Sizes(
        sections.get(".text", 0),
        sections.get(".data", 0),
        sections.get(".bss", 0),
        how.limit,
        how.sram_limit,
    )


def _flat(elf: Path, base: int) -> bytes:
    """The loaded bytes of an ELF file, by their load addresses; gaps are as erased NOR."""
    image = bytearray()
    with elf.open("rb") as stream:
        for segment in ELFFile(stream).iter_segments("PT_LOAD"):
            data = segment.data()
            offset = segment["p_paddr"] - base
            if not data:
                continue
            if offset < 0:
                raise BuildError(
                    f"{elf.name} has code below its place", hint="see its linker script"
                )
            image.extend(b"\xff" * (offset + len(data) - len(image)))
            image[offset : offset + len(data)] = data
    return bytes(image)


def _check_replaceable(out: Path) -> None:
    """A folder that holds something else than an earlier build must not be lost."""
    if out.exists() and not (out.is_dir() and ((out / _STAMP).exists() or not any(out.iterdir()))):
        raise SetupError(
            f"{out} is there already and holds no firmware", hint="name a folder of its own"
        )


def _read_stamp(out: Path) -> str:
    try:
        stamp = json.loads((out / _STAMP).read_text())["stamp"]
    except (OSError, ValueError, KeyError, TypeError):
        return ""
    return str(stamp)


# ---- Third-party sources ----


def fetch_libsodium() -> Path:
    """The folder with libsodium's sources, each file as in the checked source distribution.

    Raises:
        SetupError: the package cannot be fetched.
    """
    archive = _PYNACL.fetch("libsodium's sources")
    folder = archive.parent / f"libsodium-{_PYNACL.sha256[:16]}"
    with locked(archive.with_name("libsodium.lock")), tarfile.open(archive) as tar:
        for member in tar:
            name = member.name.removeprefix(f"{_SODIUM}/")
            stream = tar.extractfile(member)
            if stream is None or not _is_needed(name):
                continue
            data = stream.read()
            path = folder / name
            if not path.is_file() or path.read_bytes() != data:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)
    return folder


def _is_needed(name: str) -> bool:
    return name in _SODIUM_SOURCES or (name.endswith(".h") and name.startswith(_SODIUM_HEADERS))


def main(arguments: Sequence[str] | None = None) -> int:
    """``python -m unbrick.firmware.build``: returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m unbrick.firmware.build", description="Build the terminal's firmware."
    )
    parser.add_argument("out", type=Path, help="folder for the programs")
    parser.add_argument("--key", type=Path, help="PEM file with the key that the terminal trusts")
    parser.add_argument("--releases", type=Path, help="instead of firmware/releases.toml")
    options = parser.parse_args(arguments)
    try:
        firmware = build_firmware(options.out, key=options.key, releases=options.releases)
    except UnbrickError as error:
        sys.stderr.write(f"error: {error}\nhint: {error.hint}\n")
        return error.exit_code
    sys.stdout.write(report_sizes(firmware) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
