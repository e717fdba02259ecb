"""`unbrick image delta` and `unbrick image patch` as a person uses them."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from bincopy import BinFile
from click.testing import CliRunner, Result
from delta_samples import BASE, thumb

from unbrick.cli.main import cli
from unbrick.delta import read_header

OLD, NEW = (thumb(random.Random(7), 60, edits=edits) for edits in (0, 9))


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli, [str(argument) for argument in arguments], prog_name="unbrick")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two images, each binary and as HEX."""
    for name, image in (("old", OLD), ("new", NEW)):
        (tmp_path / f"{name}.bin").write_bytes(image)
        binary = BinFile()
        binary.add_binary(image, address=BASE)
        (tmp_path / f"{name}.hex").write_text(binary.as_ihex())
    return tmp_path


@pytest.mark.parametrize("form", ["bin", "hex"])
def test_there_and_back(folder: Path, form: str) -> None:
    old, new, file = folder / f"old.{form}", folder / f"new.{form}", folder / "a.delta"
    done = run("image", "delta", old, new, "-o", file)
    assert done.exit_code == 0, done.output
    assert file.stat().st_size < len(NEW) / 5
    back = folder / "sub" / f"back.{form}"
    done = run("image", "patch", old, file, "-o", back)
    assert done.exit_code == 0, done.output
    assert f"{len(NEW):,} bytes" in done.stdout
    if form == "bin":
        assert back.read_bytes() == NEW
    else:
        assert BinFile(str(back)).as_binary() == NEW
        assert BinFile(str(back)).minimum_address == BASE


def test_it_says_what_was_saved_and_why(folder: Path) -> None:
    done = run("image", "delta", folder / "old.bin", folder / "new.bin", "-o", folder / "a.delta")
    first, second = done.stdout.splitlines()
    numbers = first.replace(",", "").split(": ", 1)[1].split()
    length, copied, predicted, fresh = (
        int(numbers[numbers.index(word) - 1].strip(":")) if word != "of" else len(NEW)
        for word in ("of", "copied", "predicted", "new")
    )
    assert copied + predicted + fresh == length
    assert min(predicted, fresh) > 0
    assert f"Thumb code at {BASE:#x} (found; --base says otherwise)" in second


def test_the_address_of_a_file_counts_and_the_option_above_it(folder: Path) -> None:
    file = folder / "a.delta"
    for options, base in (((), BASE), (("--base", "0x4000"), 0x4000)):
        done = run("image", "delta", folder / "old.hex", folder / "new.hex", "-o", file, *options)
        assert done.stdout.endswith(f"at {base:#x}\n")
        assert read_header(file.read_bytes()).base_address == base


@pytest.mark.parametrize(("options", "version"), [((), 2), (("--delta-version", 1), 1)])
def test_a_decoder_that_reads_version_1_alone_gets_it(
    folder: Path, options: tuple[object, ...], version: int
) -> None:
    old, file, back = folder / "old.bin", folder / "a.delta", folder / "back.bin"
    done = run("image", "delta", old, folder / "new.bin", "-o", file, *options)
    assert done.exit_code == 0, done.output
    assert read_header(file.read_bytes()).version == version
    assert run("image", "patch", old, file, "-o", back).exit_code == 0
    assert back.read_bytes() == NEW


def test_bad_input_is_one_line_that_says_what_to_do(folder: Path) -> None:
    old, new, file = folder / "old.bin", folder / "new.bin", folder / "a.delta"
    elsewhere, empty = folder / "elsewhere.hex", folder / "empty.bin"
    binary = BinFile()
    binary.add_binary(NEW, address=BASE + 4)
    elsewhere.write_text(binary.as_ihex())
    empty.write_bytes(b"")
    assert run("image", "delta", old, new, "-o", file).exit_code == 0
    out = folder / "out.bin"
    for arguments, says in (
        (("delta", "nothing.bin", new), "cannot read nothing.bin"),
        (("delta", empty, new), "is empty"),
        (("delta", folder / "old.hex", elsewhere), "Give two images that run at one address"),
        (("patch", new, file), "made against another image"),
        (("patch", old, old), "not a differential file"),
        (("patch", old, file, "-o", folder / "out.hex"), "Name it .bin"),
    ):
        done = run("image", arguments[0], "-o", out, *arguments[1:])  # the last -o counts
        assert done.exit_code == 2
        assert says in done.stderr
        assert done.stderr.count("\n") == 1
    assert not out.exists()
    done = run("image", "delta", old, new, "-o", out, "--base", "3")
    assert "Give a multiple of 4" in done.stderr
    done = run("image", "delta", old, new, "-o", out, "--delta-version", "3")
    assert done.exit_code == 2
    assert "3 is not in the range 1<=x<=2" in done.stderr
