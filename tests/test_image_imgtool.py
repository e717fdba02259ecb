"""What people make with imgtool: `image inspect` says all that is known of it, then what is wrong;
`publish` refuses what no terminal would take, and warns of what ends updates."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from image_samples import FIELDS, program
from imgtool_samples import Imgtool

from unbrick.cli.main import cli
from unbrick.errors import ImageError
from unbrick.image.examine import examine
from unbrick.image.format import inspect
from unbrick.layout import reference_layout
from unbrick.server.core.core import ServerCore
from unbrick.server.edge.main import admit
from unbrick.server.errors import ConflictError
from unbrick.server.records.memory import MemoryRecords

LAYOUT = reference_layout()
Make = Callable[[Imgtool], Path]

KNOWN = {
    "version": FIELDS["version"],
    "name": FIELDS["name"],
    "hardware_id": FIELDS["hardware_id"],
    "security_counter": 2,
}


@pytest.fixture(scope="session")
def imgtool(tmp_path_factory: pytest.TempPathFactory) -> Imgtool:
    return Imgtool(tmp_path_factory.mktemp("imgtool"))


def look(file: Path, *options: object) -> Result:
    arguments = ["image", "inspect", str(file), *map(str, options)]
    return CliRunner().invoke(cli, arguments, prog_name="unbrick")


def said(result: Result) -> str:
    """Everything that a person reads."""
    return f"{result.stdout}\n{result.stderr}"


BROKEN: list[tuple[str, Make, dict[str, Any], str, str]] = [
    (
        "sha-512",
        lambda tool: tool.sign("--sha", "512"),
        {"digest_algorithm": "SHA-512", "signature_algorithm": "Ed25519"},
        "hashed by SHA-512, terminals check SHA-256",
        "without --sha 512",
    ),
    (
        "p-384",
        lambda tool: tool.sign(key="ecdsa-p384"),
        {"digest_algorithm": "SHA-384", "signature_algorithm": "ECDSA P-384"},
        "hashed by SHA-384, terminals check SHA-256",
        "with an Ed25519 key",
    ),
    (
        "pure",
        lambda tool: tool.sign("--pure"),
        {"digest_algorithm": "SHA-512", "signature_algorithm": "Ed25519"},
        "over the image itself",
        "without --pure",
    ),
    (
        "pad",
        lambda tool: tool.sign("--pad"),
        {"digest_algorithm": "SHA-256", "signature_algorithm": "Ed25519"},
        "padded to a slot",
        "without --pad",
    ),
    (
        "confirm",
        lambda tool: tool.sign("--confirm"),
        {"digest_algorithm": "SHA-256"},
        "padded to a slot",
        "and --confirm",
    ),
    (
        "aligned",
        lambda tool: tool.sign("--pad", "--align", "16", "--max-align", "16"),
        {"digest_algorithm": "SHA-256"},
        "padded to a slot",
        "without --pad",
    ),
    (
        "encrypted",
        lambda tool: tool.sign("--encrypt", tool.key("x25519")),
        {"signature_algorithm": "Ed25519", "flags": 0x104},
        "0x00000004, encrypted",
        "without --encrypt",
    ),
    (
        "in RAM",
        lambda tool: tool.sign("--load-addr", "0x48000000", place=()),
        {"load_address": 0x4800_0000},
        "to be loaded into RAM",
        "without --load-addr",
    ),
    (
        "not bootable",
        lambda tool: tool.sign("--non-bootable"),
        {},
        "not bootable",
        "without --non-bootable",
    ),
    (
        "compressed",
        lambda tool: tool.sign("--compression", "lzma2", binary=program(8) + bytes(9000)),
        {},
        "compressed",
        "without --compression",
    ),
]


@pytest.mark.parametrize(
    ("make", "known", "wrong", "hint"), [item[1:] for item in BROKEN], ids=[i[0] for i in BROKEN]
)
def test_what_is_known_is_said_before_what_is_wrong(
    imgtool: Imgtool, make: Make, known: dict[str, Any], wrong: str, hint: str
) -> None:
    file = make(imgtool)
    done = look(file)
    assert done.exit_code == 2
    assert f"version:          {FIELDS['version']}" in done.stdout
    assert "digest:  " in done.stdout
    assert known.get("signature_algorithm", "Ed25519") in done.stdout
    assert wrong in done.stderr
    assert hint in done.stderr
    assert done.stderr.count("\n") == 1
    values = json.loads(look(file, "--json").stdout)
    for name, value in {**KNOWN, **known}.items():
        assert values[name] == value, name
    assert values["size"]
    assert wrong in values["problem"]


def test_everything_that_is_missing_is_said_at_once(imgtool: Imgtool) -> None:
    done = look(imgtool.sign(texts=(), counter=()))
    assert done.exit_code == 2
    assert f"version:          {FIELDS['version']}" in done.stdout
    assert "Ed25519" in done.stdout
    assert "no name, no build time, no hardware id, no security counter" in done.stderr
    assert "`unbrick image sign`, which adds them" in done.stderr


def test_a_damaged_image_still_says_what_it_claims_to_be(imgtool: Imgtool, tmp_path: Path) -> None:
    data = bytearray(imgtool.sign().read_bytes())
    data[0x300] ^= 1
    file = tmp_path / "damaged.bin"
    file.write_bytes(data)
    done = look(file)
    assert FIELDS["version"] in done.stdout
    assert "SHA-256 does not match" in done.stderr
    file.write_bytes(data[:2000])
    done = look(file)
    assert FIELDS["version"] in done.stdout
    assert "size:             2000 bytes in the file" in done.stdout
    assert "truncated: 2000 bytes" in done.stderr


UNFIT: list[tuple[str, Make, str, str]] = [
    ("unsigned", lambda tool: tool.sign(key=None), "is not signed", "sign it: `unbrick"),
    (
        "p-256",
        lambda tool: tool.sign(key="ecdsa-p256"),
        "signed by ECDSA P-256, terminals check Ed25519 alone",
        "imgtool keygen -t ed25519",
    ),
    ("rsa-2048", lambda tool: tool.sign(key="rsa-2048"), "signed by RSA-2048", "ed25519"),
    ("rsa-3072", lambda tool: tool.sign(key="rsa-3072"), "signed by RSA-3072", "ed25519"),
    (
        "whole key",
        lambda tool: tool.sign("--public-key-format", "full"),
        "does not say the hash of the key",
        "without --public-key-format full",
    ),
    (
        "large header",
        lambda tool: tool.sign(header=0x400),
        "header of the image has 1024 bytes, not 512",
        "--header-size 0x200",
    ),
    (
        "small header",
        lambda tool: tool.sign(header=0x20),
        "header of the image has 32 bytes, not 512",
        "--header-size 0x200",
    ),
    (
        "other place",
        lambda tool: tool.sign(place=("--rom-fixed", "0x200000")),
        "must lie at 0x00200000, not at 0x00100000",
        "link and sign it for the application partition",
    ),
    (
        "program for elsewhere",
        lambda tool: tool.sign(binary=b"\x00\x00\x00\x20\x01\x02\x00\x08" + program()[8:]),
        "its stack 0x20000000 is not in the SRAM",
        "initial SP",
    ),
    (
        "crooked stack",
        lambda tool: tool.sign(
            binary=(LAYOUT.board.sram.end - 4).to_bytes(4, "little") + program()[4:]
        ),
        "multiple of 8",
        "initial SP",
    ),
]  # fmt: skip


@pytest.mark.parametrize(
    ("make", "wrong", "hint"), [item[1:] for item in UNFIT], ids=[item[0] for item in UNFIT]
)
def test_what_no_terminal_takes_is_said_and_is_not_published(
    imgtool: Imgtool, make: Make, wrong: str, hint: str
) -> None:
    file = make(imgtool)
    done = look(file)
    assert done.exit_code == 0
    assert "this board:       fits" not in done.stdout
    assert wrong in done.stdout
    assert hint in done.stdout
    core = ServerCore(MemoryRecords(), inspect, admit=admit)
    with pytest.raises(ImageError) as caught:
        core.publish(file.read_bytes(), 0.0)
    assert wrong in str(caught.value) or wrong in done.stdout
    assert caught.value.hint
    assert core.records.images() == []


@pytest.mark.slow
def test_how_it_is_signed_is_said(imgtool: Imgtool) -> None:
    for kind, name in (
        ("ecdsa-p256", "ECDSA P-256"),
        ("rsa-2048", "RSA-2048"),
        ("rsa-3072", "RSA-3072"),
    ):
        found = examine(imgtool.sign(key=kind).read_bytes())
        assert found.signature_algorithm == name
        assert not found.problems
        assert not found.signed
        assert "signature:        none" not in look(imgtool.sign(key=kind)).stdout


def test_software_for_other_hardware_is_published_though_its_layout_is_not_known(
    imgtool: Imgtool,
) -> None:
    texts = ("--custom-tlv", "0xa0", "toaster-r2", "--custom-tlv", "0xa1", "crumbs",
             "--custom-tlv", "0xa2", FIELDS["build_time"])  # fmt: skip
    core = ServerCore(MemoryRecords(), inspect, admit=admit)
    taken = core.publish(imgtool.sign(header=0x400, texts=texts).read_bytes(), 0.0)
    assert taken.hardware_id == "toaster-r2"
    with pytest.raises(ImageError, match="not signed"):
        core.publish(imgtool.sign(texts=texts, key=None).read_bytes(), 0.0)


def test_what_ends_all_updates_and_what_nobody_checks_is_warned_of(imgtool: Imgtool) -> None:
    last = imgtool.sign(counter=("--security-counter", str(2**32 - 1)))
    depends = imgtool.sign("--dependencies", "(1,1.2.3+4),(2,5.0.0)")
    for file, words in (
        (last, ["the security counter 4294967295 is the last one"]),
        (depends, ["image 1 of 1.2.3+4 or newer, which neither", "image 2 of 5.0.0+0 or newer"]),
    ):
        done = look(file)
        assert done.exit_code == 0
        core = ServerCore(MemoryRecords(), inspect, admit=admit)
        core.publish(file.read_bytes(), 0.0)
        warnings = core.warnings(file.read_bytes())
        assert len(warnings) == len(words)
        for word, warning in zip(words, warnings, strict=True):
            assert word in warning
            assert f"warning:          {warning}" in done.stdout
    assert ServerCore(MemoryRecords(), inspect).warnings(imgtool.sign().read_bytes()) == []


def test_the_same_software_with_another_signature_is_not_taken_for_published(
    imgtool: Imgtool, tmp_path: Path
) -> None:
    """Its hash is the same, so the server would go on with the file that it has."""
    first = imgtool.sign().read_bytes()
    other = Imgtool(tmp_path).sign().read_bytes()
    assert inspect(first).digest == inspect(other).digest
    core = ServerCore(MemoryRecords(), inspect, admit=admit)
    core.publish(first, 0.0)
    core.publish(first, 1.0)
    with pytest.raises(ConflictError, match="another signature") as caught:
        core.publish(other, 2.0)
    assert "new version" in caught.value.hint


def test_signing_with_the_last_counter_warns(imgtool: Imgtool, tmp_path: Path) -> None:
    binary = tmp_path / "program.bin"
    binary.write_bytes(program())
    options = ["-o", tmp_path / "last.bin", "--key", imgtool.key("ed25519"), "--name", "x"]
    options += ["--version", "1.0.0", "--build-time", "now", "--security-counter", 2**32 - 1]
    arguments = ["image", "sign", str(binary), *map(str, options)]
    done = CliRunner().invoke(cli, arguments, prog_name="unbrick")
    assert done.exit_code == 0, said(done)
    assert "warning: the security counter 4294967295 is the last one" in done.stderr


@pytest.mark.parametrize(
    ("begin", "what"),
    [
        (b"\x7fELF\x01\x01\x01", "an ELF program"),
        (b"S00600004844521B\nS1130000285F245F2212226A000424290008237C2A\n", "Motorola S-records"),
        (b"S315001000003DB8F396000010000002490000B80B00\n", "Motorola S-records"),
        (b":10000000\n", "Intel HEX"),
        (b"PK\x03\x04", "a zip archive"),
        (b"\xff" * 64, "erased flash"),
        (b"-----BEGIN PRIVATE KEY-----\n", "a key"),
    ],
)
def test_other_files_are_named(begin: bytes, what: str, tmp_path: Path) -> None:
    data = begin + b"\0" * 64
    with pytest.raises(ImageError, match="not an image") as caught:
        inspect(data)
    assert what in str(caught.value)
    assert caught.value.hint
    if begin.startswith(b":"):
        return
    for name in ("terminal.hex", "terminal.bin"):
        file = tmp_path / name
        file.write_bytes(data)
        done = look(file)
        assert done.exit_code == 2
        assert what in done.stderr
    program_file = tmp_path / "terminal.elf"
    program_file.write_bytes(data)
    arguments = ["image", "sign", program_file, "-o", tmp_path / "signed.bin", "--key", file]
    arguments += ["--name", "x", "--version", "1.0.0", "--build-time", "now"]
    arguments += ["--security-counter", "1"]
    done = CliRunner().invoke(cli, [str(word) for word in arguments], prog_name="unbrick")
    assert done.exit_code == 2
    assert what in done.stderr


def test_a_big_endian_image_is_named(imgtool: Imgtool) -> None:
    done = look(imgtool.sign("--endian", "big"))
    assert done.exit_code == 2
    assert "big-endian" in done.stderr
    assert "without --endian big" in done.stderr
