"""The portable C library of the terminal, on the host: its own test programs and fuzz targets under
sanitizers, and comparisons with other implementations of the same standards."""

from __future__ import annotations

import ctypes
import os
import random
import re
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import aiocoap
import cbor2
import pytest
from delta_samples import BASE, arm, thumb
from image_samples import signed, write_key
from patience import PATIENCE_S

from unbrick.delta import encode
from unbrick.delta.format import VERSIONS
from unbrick.errors import ImageError
from unbrick.firmware import build as firmware_build
from unbrick.image.format import inspect
from unbrick.wire import slipmux
from unbrick.wire.messages import Result
from unbrick.wire.userdata import PhonebookEntry, seal_backup

ROOT = Path(__file__).parents[1]
LIB = ROOT / "firmware" / "lib"
TESTS = ROOT / "firmware" / "tests"
LIBC = ROOT / "firmware" / "board" / "libc"

PROGRAMS = sorted(path.stem for path in TESTS.glob("test_*.c"))
TARGETS = sorted(path.stem for path in TESTS.glob("fuzz_*.c") if path.stem != "fuzz_driver")

SEALING = [
    source
    for source in firmware_build._SODIUM_SOURCES
    if not source.startswith(("crypto_core/ed25519", "crypto_hash/sha512", "crypto_sign"))
]
"""What board/seal.c needs of libsodium."""

FLAGS = ["-std=c11", "-g", "-Wall", "-Wextra", "-Werror", f"-I{LIB.parent}"]
ASAN = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
UBSAN = ["-fsanitize=undefined", "-fno-sanitize-recover=all"]
ZIG = [sys.executable, "-m", "ziglang", "cc"]
ZIG_TARGET = ["-target", "thumb-freestanding-eabi", "-mcpu=cortex_a9"]

MAX_FRAME = 400
"""Bytes of stack that one function may take; calls are not nested deeper than five."""
FUZZ_RUNS = {"fuzz_delta": 6_000}
"""Where not 150,000."""
"""Seconds after which a program hangs; they take one or two."""


def run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, capture_output=True, text=True, errors="replace", timeout=PATIENCE_S, check=False
    )


def compile_c(command: list[str], *, cwd: Path) -> None:
    done = subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    assert done.returncode == 0, done.stderr


# ---- Building ----


@dataclass(frozen=True)
class Toolchain:
    """A host compiler, and the sanitizers that it can link."""

    command: list[str]
    sanitizers: list[str]


def _find_toolchain(folder: Path) -> Toolchain:
    probe = folder / "probe.c"
    probe.write_text("int main(void) { return 0; }\n")
    for name in ("gcc", "clang"):
        path = shutil.which(name)
        if path is None:
            continue
        program = str(folder / "probe")
        if run([path, *ASAN, "-o", program, str(probe)]).returncode == 0:
            return Toolchain([path], ASAN)
    return Toolchain(ZIG, UBSAN)


@pytest.fixture(scope="session")
def toolchain(tmp_path_factory: pytest.TempPathFactory) -> Toolchain:
    return _find_toolchain(tmp_path_factory.mktemp("toolchain"))


@pytest.fixture(scope="session")
def build(toolchain: Toolchain, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Links a program from files of firmware/tests and the library, under sanitizers."""
    folder = tmp_path_factory.mktemp("firmware_lib")
    flags = [*toolchain.command, *FLAGS, "-O1", *toolchain.sanitizers]
    compile_c([*flags, "-c", *map(str, sorted(LIB.glob("*.c")))], cwd=folder)
    objects = sorted(folder.glob("*.o"))

    def link(name: str, *sources: str, more: Sequence[str] = ()) -> Path:
        program = folder / Path(name).name
        files = [str(TESTS / f"{source}.c") for source in (name, *sources)]
        compile_c([*flags, "-o", str(program), *files, *more, *map(str, objects)], cwd=folder)
        return program

    return link


@pytest.fixture(scope="session")
def library(toolchain: Toolchain, tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """The library and the shims as a shared one. Undefined behaviour traps."""
    folder = tmp_path_factory.mktemp("firmware_shared")
    path = folder / "libunbrick.so"
    trap = (
        ["-fsanitize=undefined", "-fsanitize-undefined-trap-on-error"]
        if toolchain.command != ZIG
        else []  # as zig does anyway
    )
    sources = [*sorted(LIB.glob("*.c")), TESTS / "shims.c"]
    flags = [*toolchain.command, *FLAGS, *trap, "-O1", "-shared", "-fPIC"]
    compile_c([*flags, "-o", str(path), *map(str, sources)], cwd=folder)
    shared = ctypes.CDLL(str(path))
    for name in ("describe", "rebuild"):
        getattr(shared, f"shim_coap_{name}").restype = ctypes.c_size_t
    shared.shim_cbor_rebuild.restype = ctypes.c_size_t
    shared.shim_slipmux_send.restype = ctypes.c_size_t
    shared.shim_slipmux_describe.restype = ctypes.c_size_t
    shared.result_text.restype = ctypes.c_char_p
    return shared


def call(function: Callable[..., int], data: bytes) -> tuple[int, bytes]:
    """What a shim that takes bytes and fills a buffer returns, and the whole buffer."""
    out = ctypes.create_string_buffer(16384)
    returned = function(data, ctypes.c_size_t(len(data)), out, ctypes.c_size_t(ctypes.sizeof(out)))
    return returned, out.raw


def described(function: Callable[..., int], data: bytes) -> str:
    return call(function, data)[1].split(b"\0")[0].decode()


# ---- Programs of C ----


def test_address_sanitizer_is_at_work(toolchain: Toolchain, tmp_path: Path) -> None:
    if toolchain.sanitizers is not ASAN:
        pytest.skip("no gcc or clang that links AddressSanitizer: only UBSan watches the C tests")
    source = tmp_path / "bad.c"
    source.write_text(
        "#include <stdlib.h>\n"
        "int main(int argc, char **argv) { char *p = malloc((size_t)argc); return p[argc]; }\n"
    )
    program = tmp_path / "bad"
    compile_c([*toolchain.command, *ASAN, "-o", str(program), str(source)], cwd=tmp_path)
    assert "heap-buffer-overflow" in run([str(program)]).stderr


@pytest.mark.slow
@pytest.mark.parametrize("name", PROGRAMS)
def test_program(name: str, build: Callable[..., Path]) -> None:
    done = run([str(build(name, "sim_nor"))])
    assert done.returncode == 0, done.stderr


def _seeds(target: str, folder: Path) -> Iterator[bytes]:
    """Good inputs to begin from."""
    chance = random.Random(target)
    if target == "fuzz_image":
        key = write_key(folder / "key.pem")
        yield signed(key, size=64)
        yield signed(key, size=200, version="255.0.65535+1", userdata_format=2)
    for message in _messages(chance, 40):
        encoded = message.encode()
        if len(encoded) > 254:
            continue
        if target == "fuzz_slipmux":
            yield slipmux.encode(encoded)
        elif target == "fuzz_coap":
            yield encoded
            yield bytes((len(encoded), 1)) + encoded + bytes((4, 8)) + b"\x60\x00\x00\x00"
            yield from _protected(encoded)
    if target == "fuzz_cbor":
        for value in _maps(chance, 20):
            yield cbor2.dumps(value)
    if target in _MADE:
        yield from _MADE[target](chance)
    if target == "fuzz_phonebook_pack":
        for count in (0, 1, 3, 17):
            entries = [[number, "José" * 2, "+12#"] for number in range(1, count + 1)]
            yield cbor2.dumps([1, entries])
    if target == "fuzz_ymodem":
        header = b"file.bin\0200 1 2\0"
        packets = [header.ljust(32, b"\0"), bytes(32), bytes(32)]
        yield b"".join(b"\x00" + packet for packet in packets) + b"\x60\x60\x00" + bytes(32)
        yield b"\x40" * 20 + b"what\x61\x61" + b"\x00name\0" + bytes(27) + b"\x41\x00" * 9


def _protected(encoded: bytes) -> Iterator[bytes]:
    """A message as a request and as a response, protected with a tag that fuzz_coap.c takes."""
    inner = encoded[1:2] + encoded[4 + (encoded[0] & 15) :] + b"\1" * 16
    for head in (b"\x42\x02\0\1tk\x94\x0a\x01\xff\x01", b"\x64\x44\0\1tokn\x90"):
        made = head + b"\xff" + inner
        if len(made) < 255:
            yield bytes((len(made), 1)) + made


def _conversations(chance: random.Random) -> Iterator[bytes]:
    """Commands as fuzz_commands.c frames them; their digest is the sum of the data."""
    erase, write, check, finish = range(4)
    for _ in range(10):
        made = bytearray()
        for step in range(1, 5):
            data = chance.randbytes(chance.randrange(1, 40))
            words: dict[int, int | bytes] = {1: 7, 2: 9, 3: step + chance.randrange(-1, 2)}
            kind = chance.choice((erase, write, check, finish))
            if kind != finish:
                words |= {4: chance.choice((1024, 1280, 4096, 4000)), 5: 256}
            if kind == write:
                words |= {5: data, 6: bytes((sum(data) & 255,)).ljust(8, b"\0")}
            if kind == check:
                words[6] = bytes(32)
            payload = cbor2.dumps(words)
            made += bytes((kind | chance.choice((0, 128)),))
            made += len(payload).to_bytes(2, "little") + payload
        yield bytes(made)


def _deltas(chance: random.Random) -> Iterator[bytes]:
    """Installed images and differential files against them."""
    pairs = [(chance.randbytes(300), chance.randbytes(200))]
    pairs += [(thumb(chance, 12), thumb(chance, 12)) for _ in range(2)]
    pairs += [(arm(chance, 20), arm(chance, 20, shift=3))]
    code = random.Random(1)
    pairs += [(thumb(code, 20), thumb(random.Random(1), 20, shift=8, edits=9))]
    fresh = thumb(random.Random(2), 9)
    pairs += [(thumb(random.Random(1), 12), fresh + bytes(200) + fresh)]  # has copies
    for old, new in pairs:
        for version in VERSIONS:
            file = encode(old, new, base_address=BASE, version=version)
            yield len(old).to_bytes(2, "little") + old + file


_MADE = {"fuzz_commands": _conversations, "fuzz_delta": _deltas}


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS)
def test_fuzz(target: str, build: Callable[..., Path], tmp_path: Path) -> None:
    files = []
    for number, seed in enumerate(_seeds(target, tmp_path)):
        path = tmp_path / f"{number:02}"
        path.write_bytes(seed)
        files.append(str(path))
    assert files
    runs = FUZZ_RUNS.get(target, 150_000)
    done = run([str(build(target, "fuzz_driver")), str(runs), "1", *files])
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{runs + len(files)} inputs\n"


@pytest.mark.slow
def test_claim_b6_hostile_bytes_do_not_open(
    toolchain: Toolchain, build: Callable[..., Path], tmp_path: Path
) -> None:
    """Sealing with libsodium as on the terminal, under sanitizers."""
    sodium = firmware_build.fetch_libsodium()
    flags = [*toolchain.command, "-std=c11", "-g", "-O1", *toolchain.sanitizers]
    # CONFIGURED is what libsodium's build system would say; its warnings are not ours to heed.
    flags += ["-w", "-DCONFIGURED=1", f"-I{sodium}/include/sodium", f"-I{sodium}/include"]
    files = [*(sodium / source for source in SEALING), LIB.parent / "board" / "sodium.c"]
    compile_c([*flags, "-c", *map(str, files)], cwd=tmp_path)
    more = [f"-I{sodium}/include", str(LIB.parent / "board" / "seal.c")]
    program = build("board/fuzz_seal", "fuzz_driver", more=[*more, *map(str, tmp_path.glob("*.o"))])
    seed = tmp_path / "seed"
    key = bytes((1, 2, 3)).ljust(32, b"\0")
    seed.write_bytes(seal_backup([PhonebookEntry(1, "Alice", "112")], key, "UB-000001", 7))
    done = run([str(program), "20000", "1", str(seed)])
    assert done.returncode == 0, done.stderr
    assert done.stdout == "20001 inputs\n"


# ---- For the target ----


def test_uses_only_what_it_may() -> None:
    allowed = {"stdint.h", "stddef.h", "stdbool.h", "stdarg.h", "string.h"}
    own = {f"lib/{path.name}" for path in LIB.glob("*.h")}
    for path in LIB.glob("*.[ch]"):
        text = path.read_text()
        # Assertions speak, and are for the host alone.
        more = {"stdio.h", "stdlib.h"} if path.name == "assert.h" else set()
        assert set(re.findall(r"#include <(.+)>", text)) <= allowed | more, path.name
        assert set(re.findall(r'#include "(.+)"', text)) <= own, path.name


@pytest.mark.parametrize(("stack", "good"), [(MAX_FRAME, True), (16, False)])
def test_compiles_for_the_terminal_and_uses_little_stack(
    stack: int, good: bool, tmp_path: Path
) -> None:
    flags = ["-std=c11", "-Os", "-ffreestanding", "-fno-sanitize=all", "-Wall", "-Wextra"]
    flags += ["-Werror", "-Wvla", "-Walloca", f"-Wframe-larger-than={stack}"]
    sources = sorted(map(str, LIB.glob("*.c")))
    command = [*ZIG, *ZIG_TARGET, *flags, f"-I{LIBC}", f"-I{LIB.parent}", "-c", *sources]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode == 0) == good, done.stderr


def test_an_assertion_ends_the_program_on_the_host_alone(
    toolchain: Toolchain, tmp_path: Path
) -> None:
    source = tmp_path / "enter.c"
    source.write_text(
        '#include "lib/assert.h"\n'
        "int enter(int argc) { ASSERT(argc == 1); return argc; }\n"
        "int main(int argc, char **argv) { (void)argv; return enter(argc) - 1; }\n"
    )
    program = tmp_path / "enter"
    compile_c([*toolchain.command, *FLAGS, "-o", str(program), str(source)], cwd=tmp_path)
    assert run([str(program)]).returncode == 0
    wrongly = run([str(program), "wrongly"])
    assert wrongly.returncode == -signal.SIGABRT
    assert wrongly.stderr == f"{source}:2: not so: argc == 1\n"
    target = [*ZIG, *ZIG_TARGET, "-std=c11", "-Os", "-ffreestanding", "-fno-sanitize=all"]
    compile_c([*target, f"-I{LIB.parent}", "-c", str(source)], cwd=tmp_path)
    made = (tmp_path / "enter.o").read_bytes()
    assert b"enter" in made
    assert b"abort" not in made
    assert b"not so" not in made


# ---- Comparisons ----


@pytest.mark.slow
def test_results_are_those_of_the_protocol(library: ctypes.CDLL) -> None:
    text = (ROOT / "docs" / "protocol.md").read_text()
    section = text.split("### Results\n")[1].split("\n### ")[0]
    entries = re.findall(r"^\| (\d+) \| (.+) \|$", section, re.MULTILINE)
    assert len(entries) == len(Result)
    for number, entry in enumerate(entries):
        words = library.result_text(number).decode()
        assert entry == (str(number), words)
        assert Result(number).text == words
    assert library.result_text(len(entries)) == b"unknown result"


def _messages(chance: random.Random, count: int) -> Iterator[aiocoap.Message]:
    """Messages of all shapes, with options in canonical order as aiocoap encodes them."""
    codes = [aiocoap.GET, aiocoap.POST, aiocoap.CONTENT, aiocoap.CHANGED, aiocoap.NOT_FOUND]
    for _ in range(count):
        message = aiocoap.Message(
            code=chance.choice(codes), payload=chance.randbytes(chance.choice([0, 1, 40, 1024]))
        )
        message.mtype = chance.choice(list(aiocoap.Type))
        message.mid = chance.randrange(0x10000)
        message.token = chance.randbytes(chance.randrange(9))
        message.opt.uri_path = tuple(
            "p" * chance.choice([0, 1, 12, 13, 14, 255]) for _ in range(chance.randrange(4))
        )
        if chance.random() < 0.5:
            message.opt.block2 = (chance.randrange(1 << 20), chance.random() < 0.5, 6)
        if chance.random() < 0.5:
            message.opt.content_format = chance.choice([0, 42, 60, 10000])
        if chance.random() < 0.5:
            message.opt.etag = chance.randbytes(8)
        for number in (258, 2053, 65000):
            if chance.random() < 0.3:
                value = chance.randbytes(chance.choice([0, 1, 12, 13, 14, 268, 269, 270, 600]))
                option = aiocoap.numbers.optionnumbers.OptionNumber(number)
                message.opt.add_option(option.create_option(decode=value))
        yield message


def _describe(message: aiocoap.Message) -> str:
    options = "".join(
        f" {int(option.number)}={option.encode().hex()}" for option in message.opt.option_list()
    )
    head = f"{int(message.mtype)} {int(message.code)} {message.mid} {message.token.hex()}"
    return f"{head}{options} {message.payload.hex()}"


@pytest.mark.slow
def test_coap_messages_are_those_of_aiocoap(library: ctypes.CDLL) -> None:
    for message in _messages(random.Random(1), 400):
        encoded = message.encode()
        assert described(library.shim_coap_describe, encoded) == _describe(message)
        length, out = call(library.shim_coap_rebuild, encoded)
        assert out[:length] == encoded
        assert _describe(aiocoap.Message.decode(out[:length])) == _describe(message)


@pytest.mark.slow
def test_coap_refuses_what_aiocoap_refuses(library: ctypes.CDLL) -> None:
    """Corrupted messages: when aiocoap cannot read one, the terminal does not either."""
    chance = random.Random(2)
    refused = 0
    for message in _messages(chance, 1500):
        encoded = bytearray(message.encode())
        del encoded[chance.choice([len(encoded), chance.randrange(len(encoded))]) :]
        for _ in range(chance.randrange(3)):
            if encoded:
                encoded[chance.randrange(min(len(encoded), 24))] = chance.randrange(256)
        try:
            aiocoap.Message.decode(bytes(encoded))
        except UnicodeDecodeError:
            pass  # a Uri-Path: the terminal compares bytes
        except (aiocoap.error.UnparsableMessage, ValueError, IndexError):
            refused += 1
            assert call(library.shim_coap_describe, bytes(encoded))[0] == 0, encoded.hex()
    assert refused > 200


def _maps(chance: random.Random, count: int) -> Iterator[dict[int, object]]:
    """Maps with some of the keys that the shim knows and some that it does not."""
    numbers = [0, 23, 24, 255, 256, 65535, 65536, (1 << 32) - 1, 1 << 32, (1 << 64) - 1]
    for _ in range(count):
        pairs: list[tuple[int, object]] = [
            (1, "".join(chance.choices("aZ9 é€😀", k=chance.randrange(12)))),
            (2, chance.choice(numbers)),
            (3, chance.randbytes(chance.choice([0, 1, 23, 24, 32, 256]))),
            (1000, chance.choice(numbers)),
            (4, [1, {"a": [True, None]}, -5, 1.5]),
            (70000, {"nested": {1: b"x"}}),
            (5, cbor2.CBORTag(1, 1700000000)),
            (6, float("inf")),
        ]
        yield dict(chance.sample(pairs, chance.randrange(len(pairs) + 1)))


@pytest.mark.slow
def test_cbor_maps_are_those_of_cbor2(library: ctypes.CDLL) -> None:
    for value in _maps(random.Random(3), 400):
        known = {key: value[key] for key in (1, 2, 3, 1000) if key in value}
        expected = ""
        for key, item in known.items():
            raw = item.encode() if isinstance(item, str) else item
            expected += f" {key}={raw.hex() if isinstance(raw, bytes) else f'{raw:016x}'}"
        encoded = cbor2.dumps(value)
        error, out = call(library.shim_cbor_describe, encoded)
        assert error == 0
        assert out.split(b"\0")[0].decode() == expected
        length, out = call(library.shim_cbor_rebuild, encoded)
        assert out[:length] == cbor2.dumps(known)


MALFORMED = re.compile("premature|unknown unsigned|break code|indefinite|text string|special value")


def test_cbor_refuses_what_cbor2_refuses(library: ctypes.CDLL) -> None:
    chance = random.Random(4)
    refused = 0
    for value in _maps(chance, 1500):
        encoded = bytearray(cbor2.dumps(value))
        del encoded[chance.choice([len(encoded), chance.randrange(len(encoded))]) :]
        for _ in range(chance.randrange(3)):
            if encoded:
                encoded[chance.randrange(len(encoded))] = chance.randrange(256)
        try:
            cbor2.loads(bytes(encoded))
        except cbor2.CBORDecodeError as refusal:
            # Not what a tag says of its contents: the terminal does not look at that.
            if MALFORMED.search(str(refusal)):
                refused += 1
                assert call(library.shim_cbor_describe, bytes(encoded))[0] != 0, encoded.hex()
    assert refused > 200


def test_slipmux_is_that_of_the_server(library: ctypes.CDLL) -> None:
    """Both ends find the same frames in the same bytes, good and corrupted."""
    chance = random.Random(5)
    alphabet = bytes(range(256)) + b"\xc0\xdb\xdc\xdd" * 40
    for _ in range(300):
        stream = b""
        for _ in range(chance.randrange(1, 4)):
            body = bytes(chance.choices(alphabet, k=chance.choice([0, 1, 50, 1277])))
            kind = chance.choice(list(slipmux.FrameType))
            out = ctypes.create_string_buffer(4096)
            length = library.shim_slipmux_send(
                int(kind), body, ctypes.c_size_t(len(body)), out, ctypes.c_size_t(4096)
            )
            if kind is slipmux.FrameType.COAP:
                assert out.raw[:length] == slipmux.encode(body)
            stream += out.raw[:length]
        corrupted = bytearray(stream)
        for _ in range(chance.randrange(4)):
            corrupted[chance.randrange(len(corrupted))] = chance.choice(alphabet)
        for data in (stream, bytes(corrupted)):
            decoder = slipmux.Decoder()
            frames = decoder.feed(data)
            expected = "".join(f" {int(frame.type)}={frame.data.hex()}" for frame in frames)
            expected += f" dropped={decoder.dropped}"
            assert described(library.shim_slipmux_describe, data) == expected


def test_images_are_read_as_the_bench_reads_them(library: ctypes.CDLL, tmp_path: Path) -> None:
    image = signed(write_key(tmp_path / "key.pem"), size=300, userdata_format=7)
    error, out = call(library.shim_image_describe, image + b"\xff" * 7)
    info = inspect(image)
    fields = out.split(b"\0")[0].decode().split("|")
    assert error == 0
    assert fields[:6] == [
        info.name,
        info.build_time,
        info.hardware_id,
        info.version,
        str(info.security_counter),
        str(info.userdata_format),
    ]
    hashed = info.header_size + info.body_size + info.protected_size
    assert [int(field) for field in fields[6:9]] == [info.size, hashed, info.load_address]
    body = image[info.header_size :]
    words = [int.from_bytes(body[at : at + 4], "little") for at in (0, 4)]
    assert [int(field) for field in fields[9:11]] == words
    assert fields[11:] == [info.digest.hex(), info.key_hash.hex(), info.signature.hex()]


@pytest.mark.slow
def test_images_that_the_bench_refuses_are_refused(library: ctypes.CDLL, tmp_path: Path) -> None:
    """Any byte of header and TLVs is changed. The hash is not the parser's business: what it lets
    through must differ in nothing but contents."""
    image = signed(write_key(tmp_path / "key.pem"), size=64, userdata_format=2)
    chance = random.Random(6)
    structural = 0
    for at in [*range(32), *range(0x200 + 64, len(image))]:
        changed = bytearray(image)
        changed[at] ^= 1 << chance.randrange(8)
        error, _ = call(library.shim_image_describe, bytes(changed))
        refusal = ""
        try:
            info = inspect(bytes(changed))
        except ImageError as problem:
            refusal = str(problem)
        if not refusal:  # the bench also reads what nobody signed
            assert (error == 0) == bool(info.key_hash and info.signature), f"byte {at}"
        elif "SHA-256" not in refusal:
            structural += 1
            assert error != 0, f"byte {at}: {refusal}"
    assert structural > 20


# ---- YMODEM with a real sender ----


@pytest.fixture(scope="session")
def receiver(build: Callable[..., Path]) -> Path:
    return build("receive_ymodem")


def _send_with_sb(
    receiver: Path, folder: Path, options: list[str], data: bytes, limit: int, noise: float = 0
) -> tuple[subprocess.CompletedProcess[bytes], int, bytes]:
    """Joins `sb` and the receiver by two pipes; `noise` is the share of bytes that are changed on
    their way to the receiver. Returns what became of the receiver, of `sb`, and the file."""
    sb = shutil.which("sb")
    if sb is None:
        pytest.skip("no sb of lrzsz: the receiver is not tried with a real sender")
    source = folder / "file.bin"
    source.write_bytes(data)
    target = folder / "received.bin"
    chance = random.Random(7)
    with (
        subprocess.Popen(
            [str(receiver), str(target), str(limit)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
        ) as terminal,
        subprocess.Popen(
            [sb, "-q", *options, str(source)],
            stdin=terminal.stdout,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
        ) as sender,
    ):
        assert sender.stdout is not None
        assert terminal.stdin is not None
        assert terminal.stdout is not None
        assert terminal.stderr is not None
        terminal.stdout.close()  # sb has it
        try:
            while chunk := os.read(sender.stdout.fileno(), 4096):
                dirty = bytes(byte ^ 0x55 if chance.random() < noise else byte for byte in chunk)
                try:
                    terminal.stdin.write(dirty)
                except BrokenPipeError:
                    break
                assert select.select([], [terminal.stdin], [], PATIENCE_S)[1]
            sent = sender.wait(PATIENCE_S)
            terminal.stdin.close()
            told = terminal.stderr.read()
            received = terminal.wait(PATIENCE_S)
        finally:
            sender.kill()
            terminal.kill()
    result = subprocess.CompletedProcess(["receiver"], received, b"", told)
    return result, sent, target.read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("options", [["-k"], []], ids=["1K", "128"])
@pytest.mark.parametrize("size", [0, 1, 128, 1024, 60_001])
def test_receives_from_sb(receiver: Path, tmp_path: Path, options: list[str], size: int) -> None:
    data = random.Random(size).randbytes(size)
    result, sent, received = _send_with_sb(receiver, tmp_path, options, data, 1 << 20)
    assert result.returncode == 1, result.stderr
    assert b"file.bin: received" in result.stderr
    assert sent == 0
    assert received == data


def test_refuses_what_sb_offers_beyond_the_limit(receiver: Path, tmp_path: Path) -> None:
    result, sent, received = _send_with_sb(receiver, tmp_path, ["-k"], b"x" * 1001, 1000)
    assert result.returncode == 3, result.stderr
    assert b"file too large" in result.stderr
    assert sent != 0
    assert received == b""


def test_receives_from_sb_through_noise(receiver: Path, tmp_path: Path) -> None:
    data = random.Random(8).randbytes(20_000)
    result, sent, received = _send_with_sb(receiver, tmp_path, ["-k"], data, 1 << 20, 0.0002)
    assert result.returncode == 1, result.stderr
    assert sent == 0
    assert received == data
