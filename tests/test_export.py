"""``unbrick export``: the flash of a case as files for a real board, with the commands for it."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from brickproof_demo import find_demo, list_builds
from click.testing import CliRunner, Result
from intelhex import IntelHex
from pyocd.target.builtin import BUILTIN_TARGETS

from unbrick.board import list_chips, load_chip
from unbrick.cli.main import cli
from unbrick.target.target import FileTarget

DEMO = find_demo()
pytestmark = pytest.mark.skipif(DEMO is None, reason="brickproof-fw is not installed")

BRICK = "brick/9"
"""A case in which this bootloader does not come back, without a torn operation."""

TARGET = """
chip = "stm32f103xb"
console = "usart2"
firmware = [
    {{ file = "bootloader_bug_consume_first.elf" }}, {{ file = "app_v1.img", at = 0x0800_2000 }},
    {further}
]
update = {{ stage = {{ file = "app_v2.img", at = 0x0801_0000 }} }}
recovered = {{ says = "APP v2", quiet = "10 ms" }}
"""


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a target that has a bug, in which one works."""
    assert DEMO is not None
    for name in ("bootloader_bug_consume_first.elf", "app_v1.img", "app_v2.img"):
        shutil.copy(DEMO / "firmware" / "prebuilt" / name, tmp_path)
    (tmp_path / "brick.toml").write_text(TARGET.format(further=""), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def call(*words: str, code: int = 0) -> Result:
    done = CliRunner().invoke(cli, list(words))
    assert done.exit_code == code, done.output
    return done


def test_a_wrong_ecc_is_told_since_no_programmer_writes_one(mine: Path) -> None:
    assert DEMO is not None
    (build,) = (one for one in list_builds(DEMO) if one.name == "l476/bug-no_ecc_nmi")
    target = build.write_target(mine)
    done = call("export", str(target), f"{target.stem}/1-scattered", "-o", "out")
    told = (
        "1 unit of the flash has a wrong ECC after the power cut; a programmer writes a right one."
    )
    assert told in done.stdout  # the double word in whose program the power was cut
    assert told in (mine / "out" / "README.txt").read_text(encoding="utf-8")
    assert "wrong ECC" not in call("export", str(target), "-o", "before").stdout


def test_the_files_bring_a_chip_into_the_state_of_the_case(mine: Path) -> None:
    done = call("export", "brick.toml", BRICK, "-o", "out")
    assert "bricked: it does not say 'APP v2'" in done.stdout
    (mine / "board.toml").write_text(
        'chip = "stm32f103xb"\nconsole = "usart2"\nfirmware = { file = "out/flash.hex" }\n'
        'recovered = { says = "APP v2", quiet = "10 ms" }\n',
        encoding="utf-8",
    )
    board = call("replay", "board.toml", code=1)
    case = call("replay", "brick.toml", BRICK, code=1)
    told = [re.sub(r"session \S+", "", one.stdout) for one in (board, case)]
    assert told[0] == told[1]


def test_what_is_blank_is_not_written_and_all_is_erased_first(mine: Path) -> None:
    call("export", "brick.toml", "-o", "out")
    made = IntelHex(str(mine / "out" / "flash.hex"))
    found = FileTarget.load(mine / "brick.toml").description
    image = found.start_image[: found.chip.main.size]
    assert len(made) < len(image) / 8
    base = found.chip.main.base
    made.padding = 0xFF
    assert made.tobinstr(start=base, size=len(image)) == image
    text = (mine / "out" / "README.txt").read_text(encoding="utf-8")
    for erases in ("stm32f1x mass_erase 0;", "--erase chip flash.hex"):
        assert erases in text
    assert "erase\nloadfile flash.hex\n" in (mine / "out" / "flash.jlink").read_text("utf-8")
    assert "nrfjprog" not in text
    assert "and it recovers." in text


def test_bits_that_are_torn_are_told(mine: Path) -> None:
    call("export", "brick.toml", "brick/20-weak+1", "-o", "one")
    text = (mine / "one" / "README.txt").read_text(encoding="utf-8")
    torn = r"^\d+ bits were torn by the power cut, and may read as 0 or as 1"
    assert re.search(torn, text, re.MULTILINE)
    call("export", "brick.toml", "brick/20-weak", "-o", "other")
    files = [(mine / name / "flash.hex").read_text("utf-8") for name in ("one", "other")]
    assert files[0] != files[1]


def test_option_bytes_are_a_file_of_their_own(mine: Path) -> None:
    protected = TARGET.format(further='{ hex = "fe01", at = 0x1FFF_F802 }')
    (mine / "brick.toml").write_text(protected, encoding="utf-8")
    done = call("export", "brick.toml", "-o", "out")
    assert "out has flash.hex, options.hex, flash.jlink, README.txt.\n" in done.stdout
    options = IntelHex(str(mine / "out" / "options.hex"))
    assert options.tobinstr(start=0x1FFF_F802, size=2) == b"\xfe\x01"
    assert "Then set the option bytes" in (mine / "out" / "README.txt").read_text("utf-8")


WORDS = """
chip = "stm32h563xi"
console = "usart3"
firmware = [{{ file = "h563_bootloader.elf" }}, {{ hex = "{hex}", at = 0xF000_0008 }}]
recovered = {{ says = "BL", within = "1 s" }}
"""


def test_option_words_that_have_no_address_are_told_with_what_sets_them(mine: Path) -> None:
    assert DEMO is not None
    shutil.copy(DEMO / "firmware" / "prebuilt" / "h563_bootloader.elf", mine)
    (mine / "secure.toml").write_text(WORDS.format(hex="7c0000b4 83ffff4b"), encoding="utf-8")
    done = call("export", "secure.toml", "-o", "out")
    assert "out has flash.hex, flash.jlink, README.txt.\n" in done.stdout
    addresses = IntelHex(str(mine / "out" / "flash.hex")).addresses()
    assert max(addresses) < 0xF000_0000
    text = (mine / "out" / "README.txt").read_text(encoding="utf-8")
    for told in (done.stdout, text):
        assert "stm32h5x option_write 0 0x74 0xb400007c; shutdown" in told
        assert "    OPTSR2 = 0xb400007c\n" in told
    (mine / "torn.toml").write_text(WORDS.format(hex="7c0000b4 83ffff4a"), encoding="utf-8")
    told = call("export", "torn.toml", "-o", "torn").stdout
    assert "OPTSR2 = torn: nobody can set it so" in told
    assert "option_write" not in told


@pytest.mark.parametrize("name", ["stm32h563xi", "stm32h743xi"])
def test_every_option_word_has_a_name_and_a_register(name: str) -> None:
    part = load_chip(name).flash[1]
    assert len(part.words) * 8 == len(part.factory)
    assert len(dict(part.words)) == len({register for _, register in part.words})


def test_what_is_there_is_not_lost(mine: Path) -> None:
    call("export", "brick.toml", BRICK)
    done = call("export", "brick.toml", BRICK, code=2)
    assert done.stderr == (
        "unbrick: export-brick-9/flash.hex is there already. Give another --out, or --force\n"
    )
    call("export", "brick.toml", BRICK, "--force")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["staged/4"], "not the file of a target: staged/4. Name a TARGET.toml and one of its"),
        (
            ["brick.toml", "other/4"],
            "brick.toml has no case other/4. Its cases begin with its name: brick/12",
        ),
        (["brick.toml", "brick/4000"], "the session brick has no power cut 4000"),
        (["brick.toml", "BRICK?"], "not a case ID: 'BRICK?'"),
        (["brick.toml", "--out", "brick.toml/x"], "brick.toml/x cannot be written"),
        (["none.toml"], "cannot read none.toml"),
    ],
)
def test_a_call_that_is_wrong_is_refused_in_one_line(
    words: list[str], said: str, mine: Path
) -> None:
    done = call("export", *words, code=2)
    assert done.stderr.count("\n") == 1
    assert said in done.stderr


@pytest.mark.parametrize("name", list_chips())
def test_every_chip_is_known_to_the_programs(name: str) -> None:
    names = load_chip(name).programmers
    assert names.openocd
    all_of_it = ("mass_erase", "mass_erase 0", "mass_erase 1", "erase_sector 0 0 last")
    assert names.openocd_erase.endswith(all_of_it)
    assert names.pyocd_pack or names.pyocd in BUILTIN_TARGETS
    family = name[: len("stm32f103")]
    assert names.pyocd.startswith(family)
    assert names.jlink.lower().startswith(family)
    assert bool(names.nrfjprog) == name.startswith("nrf")
