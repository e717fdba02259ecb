"""`unbrick image` as a person and a script use them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner, Result
from image_samples import FIELDS, program, signed, write_key

from unbrick.cli.main import cli
from unbrick.image.factory import KEY_SIZE, make_factory_image, read_identity
from unbrick.image.hexfile import read_image, to_hex
from unbrick.layout import reference_layout

if TYPE_CHECKING:
    from pathlib import Path

LAYOUT = reference_layout()


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli, [str(argument) for argument in arguments], prog_name="unbrick")


@pytest.fixture
def key(tmp_path: Path) -> Path:
    return write_key(tmp_path / "key.pem")


@pytest.fixture
def image(tmp_path: Path, key: Path) -> Path:
    path = tmp_path / "terminal.bin"
    path.write_bytes(signed(key))
    return path


def test_inspect_tells_a_person(image: Path, key: Path) -> None:
    done = run("image", "inspect", image)
    assert done.exit_code == 0
    assert "version:          1.1.0+7" in done.stdout
    assert "not checked (give --key)" in done.stdout
    assert "this board:       fits" in done.stdout
    assert "signature:        right" in run("image", "inspect", image, "--key", key).stdout


def test_inspect_tells_a_script(tmp_path: Path, key: Path) -> None:
    path = tmp_path / "toaster.hex"
    path.write_text(to_hex(signed(key, hardware_id="toaster-r2")))
    values = json.loads(run("image", "inspect", path, "--json").stdout)
    assert values["hardware_id"] == "toaster-r2"
    assert "other hardware" in values["problem"]
    assert values["signed"] is True
    assert len(bytes.fromhex(values["digest"])) == 32


def test_inspect_refuses_with_one_line(tmp_path: Path, image: Path) -> None:
    other = write_key(tmp_path / "other.pem", seed=2)
    done = run("image", "inspect", image, "--key", other)
    assert done.exit_code == 2
    assert done.stderr.startswith("unbrick: the image is signed with another key")
    assert done.stderr.count("\n") == 1


def test_sign_makes_what_inspect_accepts(tmp_path: Path, key: Path) -> None:
    binary = tmp_path / "program.bin"
    binary.write_bytes(program())
    options: list[object] = ["--key", key]
    for name in ("name", "version", "build_time", "security_counter"):
        options += [f"--{name.replace('_', '-')}", FIELDS[name]]
    for suffix in ("bin", "hex"):
        target = tmp_path / "new" / f"signed.{suffix}"
        done = run("image", "sign", binary, "-o", target, *options)
        assert done.exit_code == 0, done.output
        assert read_image(target) == signed(key)
    binary.write_bytes(b"not a program at all")
    done = run("image", "sign", binary, "-o", tmp_path / "bad.bin", *options)
    assert done.exit_code == 2
    assert "stack" in done.stderr
    assert not (tmp_path / "bad.bin").exists()


def test_claim_c8_convert_goes_both_ways(tmp_path: Path, image: Path) -> None:
    there, back = tmp_path / "a.hex", tmp_path / "a.bin"
    assert run("image", "convert", image, there).exit_code == 0
    assert there.read_text().startswith(":020000040010EA")
    assert run("image", "convert", there, back).exit_code == 0
    assert back.read_bytes() == image.read_bytes()
    there.write_text("nonsense")
    assert "not Intel HEX" in run("image", "convert", there, back).stderr


def test_factory_and_map(tmp_path: Path, image: Path) -> None:
    boot, nor = tmp_path / "boot.bin", tmp_path / "nor.bin"
    boot.write_bytes(b"boot" * 1000)
    done = run(
        "image", "factory", "--boot", boot, "--application", image, "--serial", "T-9", "-o", nor
    )
    assert done.exit_code == 0, done.output
    made = nor.read_bytes()
    key = read_identity(made).key
    assert made == make_factory_image(boot.read_bytes(), image.read_bytes(), "T-9", key=key)
    assert read_identity(made).serial == "T-9"
    assert len(key) == KEY_SIZE
    assert len(set(key)) > 1
    again = tmp_path / "again.bin"
    assert run("image", "factory", "--boot", boot, "--serial", "T-9", "-o", again).exit_code == 0
    assert read_identity(again.read_bytes()).key != key
    shown = run("image", "map", nor).stdout
    assert "0x100000" in shown
    assert "identity: T-9, unbrick-a9-r1" in shown
    assert "application: unbrick-terminal 1.1.0+7" in shown
    values = json.loads(run("image", "map", nor, "--json").stdout)
    assert len(values["blocks"]) == LAYOUT.board.nor.modelled // LAYOUT.board.nor.block_size
    nor.write_bytes(b"\xff" * LAYOUT.board.nor.modelled)
    shown = run("image", "map", nor).stdout
    assert "identity: the NOR has no identity" in shown
    assert "application: not an image" in shown


def test_what_cannot_be_written_is_said(tmp_path: Path, image: Path) -> None:
    (tmp_path / "file").write_text("")
    done = run("image", "convert", image, tmp_path / "file" / "a.bin")
    assert done.exit_code == 2
    assert "cannot write" in done.stderr
