"""``unbrick init``: from firmware files to a target's file with which a seeded bug is found."""

from __future__ import annotations

import shutil
import struct
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from brickproof_demo import find_demo
from click.testing import CliRunner, Result
from intelhex import IntelHex
from small_firmware import build_small
from test_ab_updater import build, load_build
from test_check import UNLOCK, UPDATER
from test_target_files import elf, uf2

from unbrick.board import load_chip
from unbrick.cli.main import cli
from unbrick.draft.boot import split_lines
from unbrick.draft.inputs import read_input, split_place
from unbrick.draft.places import find_base, has_start
from unbrick.draft.zephyr import read_build
from unbrick.errors import SetupError
from unbrick.target.files import Piece
from unbrick.target.load import load_target

DEMO = find_demo()
FILES = DEMO / "firmware" / "prebuilt" if DEMO else Path()

with_demo = pytest.mark.skipif(DEMO is None, reason="brickproof-fw is not installed")

CHIPS = {
    # of the demo: the beginning of its names, the chip, where v1 lies, and where v2 is staged
    "f103": ("", "stm32f103xb", 0x0800_2000, 0x0801_0000),
    "f411": ("f411_", "stm32f411xe", 0x0802_0000, 0x0804_0000),
    "l476": ("l476_", "stm32l476xg", 0x0802_0000, 0x0804_0000),  # reads check cells, too
    "nrf52": ("nrf52_", "nrf52840", 0x1_0000, 0x3_0000),
    "h563": ("h563_", "stm32h563xi", 0x0C01_0000, 0x0C02_0000),  # runs as secure code
}


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fresh folder with the files of a product, in which one works."""
    for path in FILES.glob("*"):
        if path.suffix in {".elf", ".img", ".bin"}:
            shutil.copy(path, tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def init(*words: str, typed: str | None = None, code: int = 0) -> Result:
    done = CliRunner().invoke(cli, ["init", *words], input=typed)
    assert done.exit_code == code, done.output
    return done


def campaign(path: str = "target.toml") -> Result:
    words = ["campaign", path, "--jobs", "1", "--stop-early"]
    return CliRunner().invoke(cli, words)


@with_demo
@pytest.mark.slow
@pytest.mark.parametrize("name", CHIPS)
def test_files_alone_make_a_target_that_works(name: str, mine: Path) -> None:
    begin, chip, place, staged = CHIPS[name]
    files = [f"{begin}{file}" for file in ("bootloader.elf", "app_v1.img", "app_v2.img")]
    init(*files, "--yes", "--chip", chip)
    found = load_target(mine / "target.toml")
    assert found.chip.name == chip
    *programs, last = (one.pieces[0].address for one in found.programs[1:])
    options = [found.chip.secure_option[0]] if found.chip.secure_option else []
    assert [*programs, last] == [place, *options, staged]
    assert found.recovered.says == ("APP v2",)
    assert found.images["new"].pieces[0].address == place
    done = CliRunner().invoke(cli, ["check", "target.toml"])
    assert done.exit_code == 0, done.output
    assert "note" not in done.output


@with_demo
@pytest.mark.slow
@pytest.mark.parametrize("bug", ["consume_first", "trust_header", "resume_copy"])
def test_from_init_to_a_bug_nobody_says_anything_but_the_files(bug: str, mine: Path) -> None:
    init(f"bootloader_bug_{bug}.elf", "app_v1.img", "app_v2.img", "--yes")
    done = campaign()
    assert done.exit_code == 1, done.output
    assert "1 violation, first target/" in done.stdout


@with_demo
@pytest.mark.slow
def test_the_build_without_a_bug_is_not_accused(mine: Path) -> None:
    init("bootloader.elf", "app_v1.img", "app_v2.img", "--yes")
    assert campaign().exit_code == 0


def test_code_that_has_the_flash_at_its_second_address_is_taken(tmp_path: Path) -> None:
    at_second = IntelHex()
    words = (0x2000_5000, *(0x101 + 0x10 * number for number in range(15)))
    at_second.frombytes(struct.pack("<16I", *words).ljust(0x200, b"\xff"))
    at_second.tofile(str(tmp_path / "low.hex"), format="hex")
    one = read_input(tmp_path / "low.hex")
    for name, base in (("stm32f103xb", 0), ("nrf52840", 0), ("stm32h563xi", 0x0800_0000)):
        assert find_base(load_chip(name), [one]) == base
    moved = replace(one, pieces=(Piece(0x0800_4000, one.data),))
    assert find_base(load_chip("stm32f103xb"), [one, moved]) == 0x0800_0000
    assert has_start(load_chip("stm32f103xb"), [one])
    assert not has_start(load_chip("stm32f103xb"), [moved])


@with_demo
def test_only_what_is_left_is_asked(mine: Path) -> None:
    done = init("bootloader.elf", "app_v1.img", "app_v2.img", typed="\n\n")
    questions = [line for line in done.output.splitlines() if "?" in line]
    assert [line.partition("?")[0] for line in questions] == [
        "Which chip is it",
        "What does the device say once it has recovered",
    ]
    found = load_target(mine / "target.toml")
    assert (found.chip.name, found.console) == ("stm32f103xb", "usart2")
    done = init(
        *("bootloader.elf", "app_v1.img", "app_v2.img", "--force"),
        typed="stm32f103x8\nAPP v\n",
        code=2,  # the smaller one has no flash where v2 is staged
    )
    done = init("bootloader.elf", "app_v1.img", "app_v2.img", "--force", typed="\nAPP v\n")
    assert load_target(mine / "target.toml").recovered.says == ("APP v",)


@with_demo
def test_the_file_says_why_and_what_else_there_is(mine: Path) -> None:
    init("bootloader.elf", "app_v1.img", "app_v2.img", "--yes")
    text = (mine / "target.toml").read_text(encoding="utf-8")
    for comment in (
        'chip = "stm32f103xb"  # or: stm32f103x8',
        'console = "usart2"  # one of usart1, usart2, usart3',
        '# without the update it says "BL", "APP v1"',
        "# Does the device receive it over its console? Then name a `driver` instead.",
    ):
        assert comment in text
    assert str(mine) not in text


@with_demo
def test_a_file_that_is_there_is_kept(mine: Path) -> None:
    (mine / "target.toml").write_text("mine", encoding="utf-8")
    files = ("bootloader.elf", "app_v1.img", "app_v2.img", "--yes")
    done = init(*files, code=2)
    assert done.stderr == "unbrick: target.toml is there already. Give another --out, or --force\n"
    assert (mine / "target.toml").read_text(encoding="utf-8") == "mine"
    init(*files, "--force")
    load_target(mine / "target.toml")


@with_demo
def test_files_of_another_folder_are_named_from_the_target(mine: Path) -> None:
    (mine / "unbrick").mkdir()
    init("bootloader.elf", "app_v1.img", "app_v2.img", "--yes", "-o", "unbrick/f103.toml")
    text = (mine / "unbrick" / "f103.toml").read_text(encoding="utf-8")
    assert 'file = "../bootloader.elf"' in text
    load_target(mine / "unbrick" / "f103.toml")


@with_demo
def test_every_format_will_do(mine: Path) -> None:
    for name, address in (("app_v1", 0x0800_2000), ("bootloader", 0)):
        made = IntelHex()
        (piece,) = read_input(
            mine / ("bootloader.elf" if name == "bootloader" else "app_v1.img"), address or None
        ).pieces
        made.frombytes(piece.data, offset=piece.address)
        made.write_hex_file(str(mine / f"{name}.hex"))
    data = (mine / "app_v2.img").read_bytes().ljust(1024, b"\xff")
    blocks = [(0x0801_0000 + at, data[at : at + 256]) for at in range(0, 1024, 256)]
    (mine / "app_v2.uf2").write_bytes(uf2(*blocks))
    init("bootloader.hex", "app_v1.hex", "--update", "app_v2.uf2", "--yes")
    assert 'says = "APP v2"' in (mine / "target.toml").read_text(encoding="utf-8")


@with_demo
def test_data_that_nothing_leads_to_is_asked_for(mine: Path) -> None:
    files = ("bootloader.elf", "app_v1.img", "app_v2.img")
    done = init(*files, "meta_floor1.bin", "--yes", code=2)
    assert done.stderr == (
        "unbrick: nobody knows where meta_floor1.bin lies; the firmware looks at 0x8010000, "
        "0x801e000, 0x801e400. Write the address behind its name, as meta_floor1.bin@0x8010000\n"
    )
    done = init(*files, "meta_floor1.bin", typed="\n0x0801_E000\n\n")
    assert "Where does meta_floor1.bin lie?" in done.output
    init(*files, "meta_floor1.bin@0x0801E000", "--yes", "--force")
    found = load_target(mine / "target.toml")
    assert found.programs[2].pieces[0].address == 0x0801_E000


@with_demo
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["none.elf"], "cannot read none.elf: No such file or directory"),
        (["app_v1.img"], "nothing lies at 0x8000000, where a stm32f103xb starts"),
        ([sys.executable], f"{sys.executable} is no firmware for a Cortex-M"),
        (["bootloader.elf", "--console", "usart3"], "the device says nothing"),
        (["bootloader.elf", "--chip", "stm32"], "stm32"),
        (["bootloader.elf", "--chip", "nrf52840"], "bootloader.elf does not fit into a nrf52840"),
        (
            ["h563_app_v1.img@0x0C010000"],
            "nothing lies at 0xc000000, where a stm32h563xi starts",
        ),
        (["bootloader.elf", "nrf52_bootloader.elf"], "no chip of Unbrick has code at "),
        (["bootloader.elf", "--console", "uart9"], "stm32f103xb has no UART 'uart9'"),
        (["bootloader.elf", "--driver", "xmodem"], "--driver and --update are needed"),
        (["bootloader.elf", "--out", "target"], "target is no name of a target's file"),
        (["bootloader.elf", "app_v1.img@0x08000000"], "both have bytes at 0x8000000"),
        (["bootloader.elf", "app_v1.img", "app_v2.img@0x08005000"], "does nothing about app_v2"),
        (["bootloader.elf", "app_v1.img@0xFFFFFFFFFF"], "0xFFFFFFFFFF is no address"),
        (["."], ". is a folder, and Zephyr built nothing there"),
        (
            ["bootloader.elf", "app_v1.img", "--update", "app_v1.img@0x08010000"],
            "app_v1.img is named twice",
        ),
        (
            ["bootloader.elf", "bootloader_hold_pg.elf", "--update", "app_v1.img"],
            "both have bytes at 0x8000000",
        ),
    ],
)
def test_what_is_wrong_is_refused_in_one_line(words: Sequence[str], said: str, mine: Path) -> None:
    done = init("--yes", *words, code=2)
    assert done.stderr.count("\n") == 1, done.stderr
    assert said in done.stderr
    assert not (mine / "target.toml").exists()


@with_demo
def test_a_device_that_says_nothing_is_known_by_what_runs(mine: Path) -> None:
    files = ("bootloader.elf", "app_v1.img", "app_v2.img")
    init(*files, "--yes", "--console", "usart3")
    recovered = load_target(mine / "target.toml").recovered
    assert (recovered.says, recovered.runs) == ((), ("new",))
    assert CliRunner().invoke(cli, ["check", "target.toml"]).exit_code == 0


@with_demo
def test_nobody_who_answers_is_no_interruption(mine: Path) -> None:
    done = init("bootloader.elf", "app_v1.img", "app_v2.img", typed="", code=2)
    assert "nobody answers the question 'Which chip is it?'" in done.stderr
    assert "--yes takes the likeliest answers" in done.stderr


@with_demo
def test_firmware_without_an_update_gets_a_file_that_says_what_is_missing(mine: Path) -> None:
    init("bootloader.elf", "app_v1.img", "--yes")
    text = (mine / "target.toml").read_text(encoding="utf-8")
    assert "nothing does yet" in text
    assert load_target(mine / "target.toml").recovered.says == ("APP v1",)


# A Zephyr build folder

DEVICETREE = """
/ {
    compatible = "nordic,nrf52840-dk-nrf52840";
    chosen { zephyr,console = &uart0; zephyr,code-partition = &slot0_partition; };
    soc {
        compatible = "nordic,nrf52840-qiaa", "nordic,nrf52840", "simple-bus";
        flash@0 {
            partitions {
                boot_partition: partition@0 { label = "mcuboot"; reg = < 0x0 0x10000 >; };
                slot0_partition: partition@10000 { label = "image-0"; reg = < 0x10000 0x20000 >; };
                slot1_partition: partition@30000 { label = "image-1"; reg = < 0x30000 0x20000 >; };
            };
        };
    };
};
"""


@pytest.fixture
def built(mine: Path) -> Path:
    """What sysbuild leaves, with the demo's files as its images."""
    for image, files in (
        ("mcuboot", {"zephyr.elf": "nrf52_bootloader.elf"}),
        ("app", {"zephyr.signed.bin": "nrf52_app_v1.img"}),
    ):
        folder = mine / "build" / image / "zephyr"
        folder.mkdir(parents=True)
        for name, file in files.items():
            shutil.copy(mine / file, folder / name)
        (folder / "zephyr.dts").write_text(DEVICETREE, encoding="utf-8")
    (mine / "build" / "app" / "zephyr" / "zephyr.hex").touch()
    info = "cmake:\n  board:\n    name: nrf52840dk\n    qualifiers: nrf52840\n"
    (mine / "build" / "build_info.yml").write_text(info, encoding="utf-8")
    return mine


@with_demo
def test_a_build_folder_tells_chip_console_and_partitions(built: Path) -> None:
    init("build", "--update", "nrf52_app_v2.img", "--yes")
    found = load_target(built / "target.toml")
    assert (found.chip.name, found.console) == ("nrf52840", "uarte0")
    assert [one.name for one in found.programs] == [
        *("zephyr.elf", "zephyr.signed.bin", "nrf52_app_v2.img"),
    ]
    assert [(part.name, part.offset, part.size) for part in found.partitions] == [
        *(("mcuboot", 0, 0x10000), ("image-0", 0x10000, 0x20000), ("image-1", 0x30000, 0x20000)),
        ("uicr", 0x10_0000, 0x400),
    ]
    done = CliRunner().invoke(cli, ["check", "target.toml"])
    assert done.exit_code == 0, done.output
    assert "image-0: " in done.output


def load_elf(data: bytes, at: int) -> bytes:
    """An ELF file that loads ``data``, and says no more."""
    header = struct.pack("<HHIIIIIHHHHHH", 2, 40, 1, at, 52, 0, 0, 52, 32, 1, 40, 0, 0)
    segment = struct.pack("<8I", 1, 84, at, at, len(data), len(data), 5, 4)
    return b"\x7fELF\x01\x01\x01".ljust(16, b"\0") + header + segment + data


@with_demo
def test_each_image_has_the_symbols_that_it_was_made_of(built: Path) -> None:
    for folder, image in (("build/app", "nrf52_app_v1.img"), ("other", "nrf52_app_v2.img")):
        place = built / folder / "zephyr"
        place.mkdir(parents=True, exist_ok=True)
        data = (built / image).read_bytes()
        (place / "zephyr.signed.bin").write_bytes(data)
        (place / "zephyr.elf").write_bytes(load_elf(data, 0x1_0000))
    init("build", "--update", "other/zephyr/zephyr.signed.bin", "--yes")
    text = (built / "target.toml").read_text(encoding="utf-8")
    symbols = [line.split('"')[1] for line in text.splitlines() if line.startswith("symbols")]
    own, *others = symbols
    assert own == "build/app/zephyr/zephyr.elf"
    assert set(others) == {"other/zephyr/zephyr.elf"}


@with_demo
def test_without_an_update_it_is_said_where_one_would_lie(built: Path) -> None:
    done = init("build", "--yes")
    assert "update          none: so there is likely nowhere to cut; --update names one" in (
        done.output
    )
    text = (built / "target.toml").read_text(encoding="utf-8")
    assert '# stage = { file = "NEW.bin", at = 0x00030000 }' in text


def test_a_console_goes_by_its_label(tmp_path: Path) -> None:
    folder = tmp_path / "build" / "zephyr"
    folder.mkdir(parents=True)
    (folder / "zephyr.elf").write_bytes(elf())
    (folder / "zephyr.dts").write_text("chosen { zephyr,console = &usart2; };", encoding="utf-8")
    found = read_build(tmp_path / "build")
    assert found.console(["usart1", "usart2"]) == "usart2"
    assert found.console(["uarte0"]) == ""


MANAGED = """
app:
  address: 0x10200
  end_address: 0x30000
  region: flash_primary
  size: 0x1fe00
mcuboot:
  address: 0x0
  placement:
    before:
    - mcuboot_primary
  region: flash_primary
  size: 0x10000
mcuboot_primary:
  address: 0x10000
  orig_span: &id001
  - app
  region: flash_primary
  size: 0x20000
mcuboot_secondary:
  address: 0x30000
  region: flash_primary
  size: 0x20000
outside:
  address: 0x200000
  region: flash_primary
  size: 0x1000
sram_primary:
  address: 0x20000000
  region: sram_primary
  size: 0x40000
"""


@with_demo
def test_the_partition_manager_comes_before_the_devicetree(built: Path) -> None:
    app = built / "build" / "app" / "zephyr"
    (app / "zephyr.signed.bin").rename(app / "app_update.bin")
    moved = DEVICETREE.replace("0x10000", "0x14000")  # as it was before the manager had its say
    (app / "zephyr.dts").write_text(moved, encoding="utf-8")
    (built / "build" / "partitions.yml").write_text(MANAGED, encoding="utf-8")
    init("build", "--update", "nrf52_app_v2.img", "--yes")
    found = load_target(built / "target.toml")
    assert [(part.name, part.offset, part.size) for part in found.partitions] == [
        *(("mcuboot", 0, 0x10000), ("mcuboot_primary", 0x10000, 0x20000)),
        ("mcuboot_secondary", 0x30000, 0x20000),
        ("uicr", 0x10_0000, 0x400),
    ]
    assert found.programs[1].name == "app_update.bin"
    assert found.programs[1].pieces[0].address == 0x10000


# What a file tells by itself


def test_colours_and_the_times_of_a_log_are_no_words() -> None:
    said = b"\x1b[8D\x1b[J[00:00:00.008,728] \x1b[0m<inf> fs: ready\x1b[0m\r\nboots\r\n"
    assert split_lines(said) == ("<inf> fs: ready", "boots")


def test_an_address_stands_behind_a_name() -> None:
    assert split_place("app.bin@0x0800_2000") == ("app.bin", 0x0800_2000)
    assert split_place("app.bin@8192") == ("app.bin", 8192)
    assert split_place("me@home/app.bin") == ("me@home/app.bin", None)
    with pytest.raises(SetupError):
        split_place("app.bin@0x1_0000_0000")


def test_vectors_are_found_behind_a_header_and_nowhere_else(tmp_path: Path) -> None:
    table = struct.pack("<16I", 0x2000_5000, *([0x0800_2301] * 15))
    (tmp_path / "a.bin").write_bytes(b"head".ljust(0x200, b"\0") + table.ljust(0x300, b"\0"))
    found = read_input(tmp_path / "a.bin").vectors
    assert found is not None
    assert (found.offset, found.stack) == (0x200, 0x2000_5000)
    for wrong in (
        struct.pack("<16I", 0x0800_0000, *([0x0800_2301] * 15)),  # a stack in the flash
        struct.pack("<16I", 0x2000_5000, *([0x0800_2300] * 15)),  # no Thumb code
        struct.pack("<16I", 0x2000_5000, 0x0800_2301, *([0x0900_2301] * 14)),  # far away
    ):
        (tmp_path / "b.bin").write_bytes(wrong)
        assert read_input(tmp_path / "b.bin").vectors is None


def test_addresses_in_code_are_found(tmp_path: Path) -> None:
    """MOVW R1, #0x2000; MOVT R1, #0x4002; and a word of the data."""
    code = struct.pack("<4HI", 0xF242, 0x0100, 0xF2C4, 0x0102, 0x4002_3C00)
    (tmp_path / "a.bin").write_bytes(code)
    constants = read_input(tmp_path / "a.bin").constants
    assert {0x4002_2000, 0x4002_3C00} <= constants
    assert load_chip("stm32f103xb").device("flash").base in constants


# Updates that are sent, and updates that MCUboot tries


@pytest.mark.slow
def test_an_update_that_is_sent_is_heard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build(tmp_path, "stm32f103", "old-erased-early")
    monkeypatch.chdir(tmp_path / "build" / "stm32f103")
    files = ("boot.elf", "app-v1.elf", "app-v1.bin", "app-v2.elf", "--update", "app-v2.bin")
    done = init(*files, "--driver", "ymodem", "--type", "u", "--yes", code=2)
    assert "the update does not come about" in done.stderr
    assert "Correct --after, --type and --driver" in done.stderr
    init(*files, "--driver", "xmodem", "--type", "u", "--yes")
    found = load_target(Path("target.toml"))
    assert (found.update.driver, found.update.after) == ("xmodem", "APP v1")
    assert found.recovered.says == ("APP v2",)
    assert [path.name for path in found.elf_files] == ["boot.elf", "app-v1.elf", "app-v2.elf"]
    done = campaign()
    assert done.exit_code == 1
    assert "violation, first target/" in done.stdout


@pytest.mark.slow
def test_mcuboot_is_told_to_try_a_staged_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    magic = struct.unpack("<4I", bytes.fromhex("77c295f360d2ef7f3552500f2cb67980"))
    differs = f"(staged[252] ^ {magic[0]:#x} | staged[255] ^ {magic[3]:#x})"
    tries = f"*staged == 0x96F3B83D && {differs} == 0"
    source = UPDATER.replace("*staged != 0xFFFFFFFF", tries).replace("UNLOCK", UNLOCK)
    source = source.replace("*staged == 0xFFFFFFFF ?", "*installed == 0xFFFFFFFF ?")
    source = source.replace("const unsigned *const staged", "const volatile unsigned *const staged")
    build_small(tmp_path, "stm32f103xb", source)
    header = struct.pack("<IIHHIIBBHII", 0x96F3B83D, 0, 32, 0, 64, 0, 1, 2, 3, 4, 0)
    (tmp_path / "new.signed.bin").write_bytes(header.ljust(96, b"\x5a"))
    monkeypatch.chdir(tmp_path)
    update = ("--update", "new.signed.bin@0x08004000")
    init("small.elf", *update, "--yes")
    text = (tmp_path / "target.toml").read_text(encoding="utf-8")
    assert 'hex = "01ffffffffffffff77c295f360d2ef7f3552500f2cb67980"' in text
    assert "at = 0x080043e8" in text
    assert load_target(tmp_path / "target.toml").recovered.says == ("new",)


@pytest.mark.slow
def test_a_device_that_goes_back_may_do_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = load_build()
    module.copy_sources(tmp_path)
    source = (tmp_path / "app.c").read_text(encoding="utf-8")
    assert "    if (!was_confirmed(here)) {" in source
    source = source.replace("    if (!was_confirmed(here)) {", "    if (here == 1) {")
    (tmp_path / "app.c").write_text(source, encoding="utf-8")
    chips = tuple(one for one in module.CHIPS if one.name == "stm32f103")
    module.build(tmp_path / "build", tmp_path, chips)
    monkeypatch.chdir(tmp_path / "build" / "stm32f103")
    (Path() / "marks.bin").write_bytes(bytes(8))
    files = ("boot.elf", "app-v1.bin", "marks.bin@0x08003C00", "app-v2.bin")
    done = init(*files, "--yes")
    assert "starts app-v1.bin again: nobody confirms the update" in done.stdout
    recovered = load_target(Path("target.toml")).recovered
    assert recovered.says == ("APP v2", "APP v1")
    assert recovered.runs == ("new", "old")
    assert campaign().exit_code == 0
