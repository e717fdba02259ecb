"""The firmware's build, and boot and agent as it makes them."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from bug_search import BUILDS
from counted_starts import but_for_starts
from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection

from unbrick.engine.base import Engine
from unbrick.engine.create import create_engine
from unbrick.errors import BuildError, ImageError, SetupError
from unbrick.firmware import build
from unbrick.firmware.build import Firmware, build_firmware, report_sizes
from unbrick.firmware.signed import Releases
from unbrick.folders import cache_folder, firmware_folder
from unbrick.image.factory import make_factory_image
from unbrick.image.format import inspect
from unbrick.image.sign import sign
from unbrick.layout import reference_layout
from unbrick.packages import SourcePackage

LAYOUT = reference_layout()
ONE_RELEASE = """
[[release]]
name = "probe"
version = "1.0.0"
build_time = "2026-01-01T00:00:00Z"
security_counter = 1
defines = {}
"""
USERDATA = LAYOUT.partition("userdata").offset
KEY = firmware_folder() / "keys" / "development.pem"


def copy_sources(place: Path, *, application: Path | None = None) -> Path:
    """The firmware's sources in another folder, with another application if one is given."""
    copy = place / "firmware"
    shutil.copytree(firmware_folder(), copy, ignore=shutil.ignore_patterns("tests"))
    if application is not None:
        shutil.rmtree(copy / "app")
        (copy / "app").mkdir()
        shutil.copy(application, copy / "app" / "main.c")
        (copy / "releases.toml").write_text(ONE_RELEASE)
    return copy


def contents(folder: Path) -> dict[str, bytes]:
    """All files below a folder."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


# ---- The build ----


@pytest.mark.slow
def test_two_builds_in_different_folders_are_equal_to_the_bit(
    tmp_path: Path, unbrick_releases: Releases, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Other sources, other third-party sources, and a compiler that remembers nothing.
    archive = cache_folder() / build._PYNACL.archive
    (tmp_path / "cache").mkdir()
    shutil.copy(archive, tmp_path / "cache")
    monkeypatch.setenv("UNBRICK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("ZIG_GLOBAL_CACHE_DIR", str(tmp_path / "zig"))
    monkeypatch.setenv("ZIG_LOCAL_CACHE_DIR", str(tmp_path / "zig"))
    monkeypatch.setenv("UNBRICK_FIRMWARE", str(copy_sources(tmp_path)))
    build_firmware(tmp_path / "deep" / "down" / "out")
    first = contents(unbrick_releases.firmware.boot.elf.parent)
    second = contents(tmp_path / "deep" / "down" / "out")
    assert first.keys() == second.keys()
    assert [name for name in first if first[name] != second[name]] == []
    for folder in (tmp_path, firmware_folder().parent, Path(sys.prefix), Path.home()):
        named = [name for name, data in second.items() if str(folder).encode() + b"/" in data]
        assert named == [], f"a path of this machine ({folder}) is in the firmware"


def test_programs_keep_within_their_limits(unbrick_releases: Releases) -> None:
    firmware = unbrick_releases.firmware
    assert firmware.boot.sizes.limit == LAYOUT.partition("boot").size
    for program in firmware.programs:
        sizes = program.sizes
        assert 0 < sizes.text + sizes.data <= sizes.limit
        assert sizes.data + sizes.bss <= sizes.sram_limit
        assert program.binary.stat().st_size == sizes.text + sizes.data
        assert program.name in report_sizes(firmware)
        assert program.map.stat().st_size > 0
        with program.elf.open("rb") as stream:
            assert ELFFile(stream).has_dwarf_info()


@pytest.mark.slow
def test_an_application_that_does_not_fit_is_an_error(tmp_path: Path) -> None:
    large = tmp_path / "releases.toml"
    size = LAYOUT.partition("application").size
    large.write_text(ONE_RELEASE.replace("{}", f'{{ RESOURCE_BYTES = "{size}" }}'))
    with pytest.raises(BuildError, match="does not fit"):
        build_firmware(tmp_path / "out", releases=large, objects=BUILDS / "objects")
    assert not (tmp_path / "out").exists()


def test_the_agent_needs_nothing_outside_its_own_memory(unbrick_releases: Releases) -> None:
    agent = LAYOUT.agent
    with unbrick_releases.firmware.agent.elf.open("rb") as stream:
        elf = ELFFile(stream)
        for segment in elf.iter_segments("PT_LOAD"):
            start, end = segment["p_vaddr"], segment["p_vaddr"] + segment["p_memsz"]
            assert agent.base <= start
            assert end <= agent.end
        symbols = elf.get_section_by_name(".symtab")
        text = elf.get_section_by_name(".text")
        assert isinstance(symbols, SymbolTableSection)
        assert text is not None
        for symbol in [symbol for symbol in symbols.iter_symbols() if symbol.name]:
            assert symbol["st_shndx"] != "SHN_UNDEF", symbol.name
            if symbol["st_info"]["type"] in {"STT_FUNC", "STT_OBJECT"}:
                assert agent.base <= symbol["st_value"] < agent.end, symbol.name
        table = text.data()[:36]
    words = [int.from_bytes(table[i : i + 4], "little") for i in range(0, 36, 4)]
    assert words[:2] == [0x544E4741, 2]
    assert all(agent.base < word < agent.end and word & 1 for word in words[2:])


def test_boot_begins_with_its_vectors_and_the_application_with_stack_and_entry(
    unbrick_releases: Releases,
) -> None:
    boot = unbrick_releases.boot
    assert boot[2:4] == bytes.fromhex("9fe5")  # ldr pc, [pc, …]
    for vector in range(4, 32, 4):
        assert boot[vector + 3] == 0xEA  # b …
    app = unbrick_releases.firmware.applications["1.0.0"]
    binary = app.binary.read_bytes()
    start = LAYOUT.partition("application").offset + LAYOUT.image_header_size
    assert int.from_bytes(binary[:4], "little") == LAYOUT.pool.base
    entry = int.from_bytes(binary[4:8], "little")
    assert entry & 1
    assert start < entry < start + len(binary)


def test_what_is_there_already_is_not_built_again(
    tmp_path: Path, unbrick_releases: Releases, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    shutil.copytree(unbrick_releases.firmware.boot.elf.parent, out)

    def no_work(*_: object) -> None:
        pytest.fail("was built again")

    monkeypatch.setattr(build._Build, "run", no_work)
    assert build_firmware(out).boot.binary.read_bytes() == unbrick_releases.boot
    changed = copy_sources(tmp_path)
    (changed / "lib" / "crc.h").write_text("/* changed */")
    with pytest.raises(pytest.fail.Exception):
        build_firmware(out, source=changed)


def test_releases_share_what_names_no_macro_of_theirs(tmp_path: Path) -> None:
    (tmp_path / "app").mkdir()
    sources = {
        "itself.c": "int kib = MEDIA_KIB;",
        "header.c": '#include "app/outer.h"\n',
        "outer.h": '# include "inner.h"\n',
        "inner.h": '#include "outer.h"\n#ifndef MEDIA_KIB\n',
        "neither.c": '#include "app/none.h"\n#include <string.h>\nint MEDIA_KIB_S;',
    }
    for name, text in sources.items():
        (tmp_path / "app" / name).write_text(text)
    compiler = build._Compiler(tmp_path, tmp_path, tmp_path, tmp_path, None, "")
    macros = ["-DFEATURE=1", "-DMEDIA_KIB=512"]
    for name, names in (("itself.c", True), ("header.c", True), ("neither.c", False)):
        assert compiler._names_one_of(macros, Path("app", name)) is names, name
        assert not compiler._names_one_of([], Path("app", name))


@pytest.mark.slow
def test_what_was_compiled_for_one_build_serves_another(
    tmp_path: Path, probe_sources: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = tmp_path / "objects"
    first = build_firmware(tmp_path / "first", source=probe_sources, objects=kept)
    compiled: list[str] = []
    genuine = build._Compiler._run

    def run(self: object, command: list[str], failed: str) -> None:
        if command[0] == "cc":
            compiled.append(failed)
        genuine(self, command, failed)

    monkeypatch.setattr(build._Compiler, "_run", run)
    copy = tmp_path / "copy" / "firmware"
    shutil.copytree(probe_sources, copy)
    build_firmware(tmp_path / "second", source=copy, objects=kept)
    assert compiled == []
    assert contents(tmp_path / "second") == contents(tmp_path / "first")

    main = copy / "boot" / "main.c"
    main.write_text(main.read_text().replace("boot: unbrick boot", "boot: unbrick BOOT"))
    changed = build_firmware(tmp_path / "third", source=copy, objects=kept)
    assert compiled == ["boot/main.c does not compile"]
    assert changed.boot.binary.read_bytes() != first.boot.binary.read_bytes()

    compiled.clear()
    header = copy / "lib" / "crc.h"
    header.write_text(header.read_text() + "\n")
    build_firmware(tmp_path / "fourth", source=copy, objects=kept)
    assert "lib/crc.c does not compile" in compiled


@pytest.mark.slow
def test_the_key_goes_into_boot_and_application_and_nowhere_else(
    tmp_path: Path, unbrick_releases: Releases
) -> None:
    key = tmp_path / "other.pem"
    command = [sys.executable, "-m", "imgtool.main", "keygen", "-t", "ed25519", "-k", str(key)]
    subprocess.run(command, check=True)
    other = build_firmware(tmp_path / "out", key=key)
    ours = unbrick_releases.firmware
    assert other.boot.binary.read_bytes() != ours.boot.binary.read_bytes()
    assert other.agent.binary.read_bytes() == ours.agent.binary.read_bytes()
    for version, program in other.applications.items():
        assert program.binary.read_bytes() != ours.applications[version].binary.read_bytes()
    secret = KEY.read_bytes().splitlines()[1]
    for data in contents(ours.boot.elf.parent).values():
        assert secret not in data


@pytest.mark.slow
def test_what_the_compiler_says_comes_out_and_the_old_build_stays(
    tmp_path: Path, probe: Firmware, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    shutil.copytree(probe.boot.elf.parent, out)
    before = contents(out)
    broken = copy_sources(tmp_path)
    (broken / "boot" / "main.c").write_text("int wrong(void) { return undeclared; }\n")
    monkeypatch.setenv("UNBRICK_FIRMWARE", str(broken))
    with pytest.raises(BuildError, match=r"firmware/boot/main.c:1:(?s:.*)undeclared"):
        build_firmware(out, objects=BUILDS / "objects")
    assert contents(out) == before


def test_a_folder_with_other_things_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("data")
    with pytest.raises(SetupError, match="holds no firmware"):
        build_firmware(tmp_path)
    assert (tmp_path / "precious").read_text() == "data"


def test_without_sources_the_error_says_where_to_get_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNBRICK_FIRMWARE", str(tmp_path / "nowhere"))
    with pytest.raises(SetupError, match="no firmware sources") as error:
        build_firmware(tmp_path / "out")
    assert "UNBRICK_FIRMWARE" in error.value.hint


def test_third_party_sources_that_are_not_the_pinned_ones_are_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cached = cache_folder() / build._PYNACL.archive
    forged = tmp_path / "cache" / cached.name
    forged.parent.mkdir()
    forged.write_bytes(cached.read_bytes() + b"!")
    fetched: list[Path] = []

    def fetch(_: SourcePackage, archive: Path, what: str) -> None:
        assert what == "libsodium's sources"
        fetched.append(archive)
        shutil.copy(cached, archive)

    monkeypatch.setenv("UNBRICK_CACHE", str(forged.parent))
    monkeypatch.setattr(SourcePackage, "_download", fetch)
    folder = build.fetch_libsodium()
    assert fetched == [forged]
    source = folder / build._SODIUM_SOURCES[0]
    genuine = source.read_bytes()
    source.write_bytes(b"#error changed on disk\n")
    assert build.fetch_libsodium() == folder
    assert source.read_bytes() == genuine


def _build_into(out: Path, sources: Path) -> bytes:
    os.environ["UNBRICK_FIRMWARE"] = str(sources)
    return build_firmware(out).boot.binary.read_bytes()


@pytest.mark.slow
def test_two_processes_may_build_at_once(tmp_path: Path, probe_sources: Path) -> None:
    # `spawn`, because this process may have threads.
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        results = pool.starmap(_build_into, [(tmp_path / "out", probe_sources)] * 2)
    assert results[0] == results[1]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "out.lock"]


# ---- What the compiler calls by itself ----


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """board/libc of the firmware, compiled for this machine, its functions renamed."""
    libc = firmware_folder() / "board" / "libc"
    library = tmp_path_factory.mktemp("libc") / "libc.so"
    names = ["memcpy", "memmove", "memset", "memcmp", "memchr", "strlen", "strcmp", "strncmp"]
    command = [sys.executable, "-m", "ziglang", "cc", "-std=c11", "-O1", "-fno-builtin", "-shared"]
    command += ["-fPIC", *(f"-D{name}=our_{name}" for name in [*names, "strchr"])]
    command += ["-o", str(library), str(libc / "aeabi.c"), str(libc / "memory.c")]
    subprocess.run(command, check=True)
    return ctypes.CDLL(str(library))


def test_divisions_are_right(runtime: ctypes.CDLL) -> None:
    rng = random.Random(1)
    u32 = ctypes.c_uint32
    unsigned, signed = runtime["__aeabi_uidivmod"], runtime["__aeabi_idivmod"]
    wide = runtime["aeabi_divide"]
    unsigned.restype = signed.restype = wide.restype = ctypes.c_uint64
    for _ in range(2000):
        n, d = rng.getrandbits(rng.randint(1, 32)), rng.getrandbits(rng.randint(1, 32)) or 1
        both = unsigned(u32(n), u32(d))
        assert (both & 0xFFFFFFFF, both >> 32) == divmod(n, d)
        sn, sd = ctypes.c_int32(n).value, ctypes.c_int32(d).value
        both = signed(u32(n), u32(d))
        quotient = abs(sn) // abs(sd) * (1 if (sn < 0) == (sd < 0) else -1)
        assert ctypes.c_int32(both & 0xFFFFFFFF).value == ctypes.c_int32(quotient).value
        assert ctypes.c_int32(both >> 32).value == sn - quotient * sd
        n, d = rng.getrandbits(rng.randint(1, 64)), rng.getrandbits(rng.randint(1, 64)) or 1
        rest = ctypes.c_uint64()
        quotient = wide(ctypes.c_uint64(n), ctypes.c_uint64(d), ctypes.byref(rest))
        assert (quotient, rest.value) == divmod(n, d)


def test_memory_functions_are_right(runtime: ctypes.CDLL) -> None:
    rng = random.Random(2)
    for _ in range(1000):
        model = bytearray(rng.randbytes(64))
        memory = (ctypes.c_uint8 * 64).from_buffer_copy(model)
        base = ctypes.addressof(memory)
        to, origin, length = rng.randrange(32), rng.randrange(32), rng.randrange(32)
        runtime.our_memmove(ctypes.c_void_p(base + to), ctypes.c_void_p(base + origin), length)
        model[to : to + length] = model[origin : origin + length]
        assert bytes(memory) == model
        half = rng.randrange(17)
        runtime.our_memcpy(ctypes.c_void_p(base + 32 + half), ctypes.c_void_p(base + half), 8)
        model[32 + half : 40 + half] = model[half : half + 8]
        assert bytes(memory) == model
        runtime.our_memset(ctypes.c_void_p(base + to), 0x5A, length)
        model[to : to + length] = b"\x5a" * length
        assert bytes(memory) == model
        a, b = rng.randbytes(9), rng.randbytes(9)
        b = a[: rng.randrange(9)] + b[: rng.randrange(9)]
        size = min(len(a), len(b))
        order = runtime.our_memcmp(a, b, size)
        assert (order > 0) == (a[:size] > b[:size])
        assert (order == 0) == (a[:size] == b[:size])


# ---- Boot and the agent, running ----


@pytest.fixture(scope="session")
def probe_sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The firmware with an application that does with the agent what it is told."""
    application = Path(__file__).with_name("agent_probe.c")
    return copy_sources(tmp_path_factory.mktemp("probe"), application=application)


@pytest.fixture(scope="session")
def probe(probe_sources: Path) -> Firmware:
    """The same, built."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UNBRICK_FIRMWARE", str(probe_sources))
        return build_firmware(probe_sources.parent / "out", key=KEY, objects=BUILDS / "objects")


class Terminal:
    """A terminal that runs the probe."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.heard = ""

    def expect(self, text: str) -> str:
        """Let it run until it has said ``text``; returns what it said up to there."""
        for _ in range(400):
            self.heard += self.engine.wire.read().decode(errors="replace")
            before, found, after = self.heard.partition(text)
            if found:
                self.heard = after
                return before
            self.engine.advance(0.05)
        pytest.fail(f"never said {text!r}: {self.heard!r}")

    def do(self, line: str) -> int:
        """The status that the agent returns."""
        self.engine.wire.write(line.encode() + b"\r")
        self.expect("= ")
        return int(self.expect("\r\n"))


@pytest.fixture(params=["inprocess", "qemu"])
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    if request.param == "qemu":
        request.getfixturevalue("qemu")  # skips, visibly, where there is none
    with create_engine(request.param) as made:
        yield made


@pytest.fixture
def start(engine: Engine, probe: Firmware) -> Callable[[], Terminal]:
    """Starts the probe; boot has accepted it as an application."""

    def begin() -> Terminal:
        binary = probe.applications["1.0.0"].binary.read_bytes()
        image = sign(
            binary,
            name="probe",
            version="1.0.0",
            build_time="2026-01-01T00:00:00Z",
            hardware_id=LAYOUT.hardware_id,
            security_counter=1,
            key=KEY,
        )
        engine.load_nor(make_factory_image(probe.boot.binary.read_bytes(), image, "PROBE"))
        engine.power_on()
        return Terminal(engine)

    return begin


def pattern(length: int, seed: int) -> bytes:
    """What the probe programs."""
    return bytes((seed + 7 * i + (i >> 8)) & 0xFF for i in range(length))


def test_boot_says_what_it_wants_when_there_is_no_application(
    engine: Engine, unbrick_releases: Releases
) -> None:
    engine.load_nor(make_factory_image(unbrick_releases.boot, None, "T-1"))
    before = engine.read_nor()
    engine.power_on()
    terminal = Terminal(engine)
    said = terminal.expect("YMODEM")
    assert said.splitlines()[0] == "boot: unbrick boot 1.0.0"
    assert "restoration: no application\r\n" in said
    assert f"restoration: serial=T-1 hardware={LAYOUT.hardware_id} counter=0\r\n" in said
    terminal.expect("C")  # invites a sender
    assert but_for_starts(engine.read_nor()) == but_for_starts(before)
    assert engine.faults == []


@pytest.mark.slow
def test_the_agent_learns_the_geometry_from_the_chips(start: Callable[[], Terminal]) -> None:
    terminal = start()
    terminal.expect("probe: ")
    values = [int(word) for word in terminal.expect("\r\n").split()]
    assert values == [
        0,
        LAYOUT.board.nor.size,
        LAYOUT.board.nor.block_size,
        LAYOUT.board.nor.write_buffer,
    ]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("offset", "length"),
    [
        (0, 1),
        (3, 1),
        (1, 2),
        (2, 4),
        (5, 64),
        (2048 - 4, 8),  # over the border of a write buffer
        (2047, 2),
        (2048 - 3, 2048 + 7),
        (0, 8192),
    ],
)
def test_the_agent_programs_any_range_and_nothing_else(
    start: Callable[[], Terminal], offset: int, length: int
) -> None:
    terminal = start()
    terminal.expect("probe: ")
    engine = terminal.engine
    expected = bytearray(engine.read_nor())
    # Neighbours that share words with the range must stay as they are.
    around = [(USERDATA, offset), (USERDATA + offset + length, 5)]
    for place, size in around:
        assert terminal.do(f"p {place} {size} 1") == 0
        expected[place : place + size] = pattern(size, 1)
    assert terminal.do(f"p {USERDATA + offset} {length} 99") == 0
    expected[USERDATA + offset : USERDATA + offset + length] = pattern(length, 99)
    assert engine.read_nor() == expected
    assert engine.faults == []


@pytest.mark.slow
def test_the_agent_erases_one_block_and_copies_from_the_nor(
    start: Callable[[], Terminal],
) -> None:
    terminal = start()
    terminal.expect("probe: ")
    engine = terminal.engine
    before = engine.read_nor()
    second = USERDATA + LAYOUT.board.nor.block_size
    assert terminal.do(f"n {USERDATA + 5} 3 5000") == 0
    assert terminal.do(f"n {second} 0 100") == 0
    cells = engine.read_nor()
    assert cells[USERDATA + 5 : USERDATA + 5005] == before[3:5003]
    assert terminal.do(f"e {USERDATA}") == 0
    expected = bytearray(before)
    expected[second : second + 100] = before[:100]
    assert engine.read_nor() == expected
    assert engine.faults == []


def test_the_agent_refuses_what_cannot_be_done(start: Callable[[], Terminal]) -> None:
    terminal = start()
    terminal.expect("probe: ")
    engine = terminal.engine
    assert terminal.do(f"p {USERDATA} 16 0") == 0
    before = engine.read_nor()
    assert terminal.do(f"p {USERDATA} 16 1") == -6  # bits would have to be set
    assert terminal.do(f"e {USERDATA + 4}") == -5  # not the start of a block
    assert terminal.do(f"e {LAYOUT.board.nor.size}") == -5
    assert terminal.do(f"p {LAYOUT.board.nor.size - 4} 8 1") == -5
    assert terminal.do("p 4294967295 8 1") == -5
    assert but_for_starts(engine.read_nor()) == but_for_starts(before)
    assert engine.faults == []


@pytest.mark.parametrize("engine", ["inprocess"], indirect=True)  # QEMU knows no lock-down
def test_boot_locks_itself_down_before_it_starts_the_application(
    start: Callable[[], Terminal],
) -> None:
    terminal = start()
    terminal.expect("probe: ")
    engine = terminal.engine
    before = engine.read_nor()
    for name in ("boot", "identity"):
        part = LAYOUT.partition(name)
        assert terminal.do(f"e {part.offset}") == -4
        assert terminal.do(f"p {part.end - 16} 16 1") == -4
    assert engine.read_nor() == before
    assert {fault.kind for fault in engine.faults} == {"locked"}


# The in-process engine stops at an exception and reports a fault of the firmware.
only_qemu = pytest.mark.parametrize("engine", ["qemu"], indirect=True)


@only_qemu
def test_an_exception_is_said_and_boot_starts_again(start: Callable[[], Terminal]) -> None:
    terminal = start()
    terminal.expect("probe: ")
    terminal.engine.wire.write(b"x\r")
    terminal.expect("probe: undefined instruction")
    terminal.expect("boot: unbrick boot 1.0.0")
    terminal.expect("probe: ")


@only_qemu
def test_an_exception_in_the_agent_is_said_and_boot_starts_again(
    start: Callable[[], Terminal], probe: Firmware
) -> None:
    with probe.agent.elf.open("rb") as stream:
        symbols = ELFFile(stream).get_section_by_name(".symtab")
        assert isinstance(symbols, SymbolTableSection)
        found = symbols.get_symbol_by_name("memcmp")
        assert found is not None
        address = found[0]["st_value"] & ~1
    terminal = start()
    terminal.expect("probe: ")
    terminal.engine.wire.write(f"y {address}\r".encode())
    terminal.expect(f"agent: exception before {address + 2}\r\n")
    terminal.expect("boot: unbrick boot 1.0.0")
    terminal.expect("probe: ")


def test_a_release_can_have_an_image_of_any_size(unbrick_releases: Releases) -> None:
    sizes = {"1.0.0": 262_144, "1.1.0": 524_292}
    padded = unbrick_releases.with_sizes(sizes)
    for version, size in sizes.items():
        image, info = padded.signed[version], inspect(padded.signed[version])
        assert (len(image), info.size, info.version) == (size, size, f"{version}+0")
        program = unbrick_releases.firmware.applications[version].binary.read_bytes()
        assert image[info.header_size :].startswith(program)
    last = [
        image[-4096:-2048]
        for image in (
            unbrick_releases.with_sizes({version: 524_292}).signed[version] for version in sizes
        )
    ]
    assert last[0] == last[1], "where both have noise, they have the same"
    assert padded.signed["1.3.0"] == unbrick_releases.signed["1.3.0"]
    assert padded.identity != unbrick_releases.identity
    assert padded.identity == unbrick_releases.with_sizes(sizes).identity
    with pytest.raises(ImageError, match="cannot have an image of 9 bytes"):
        unbrick_releases.with_sizes({"1.0.0": 9})
    with pytest.raises(SetupError, match=r"there is no release 9\.9"):
        unbrick_releases.with_sizes({"9.9": 262_144})
