"""The example: an A/B updater recovers, and each bug that is put into it is found."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
from click.testing import CliRunner, Result
from test_target_files import uf2

from unbrick.campaign.run import PRESETS, run_campaign
from unbrick.cli.main import cli
from unbrick.target import console as console_module
from unbrick.target.files import Piece, read_firmware
from unbrick.target.target import FileTarget

EXAMPLE = Path(__file__).parents[1] / "examples" / "ab-updater"
CHIPS = {"nrf52840": (27, 400), "rp2040": (26, 100), "stm32f103": (40, 400)}
"""Cases that a quick search has of each, and transitions at least: an RP2040 programs by pages."""
BUGS = sorted(path.stem for path in (EXAMPLE / "bugs").glob("*.patch"))

UNSEEN = {("erase-spared", "nrf52840"), ("erase-spared", "rp2040")}
"""They may be programmed twice, so what was cut is made whole by the next try."""

pytestmark = pytest.mark.slow


def load_build() -> ModuleType:
    spec = importlib.util.spec_from_file_location("ab_build", EXAMPLE / "build.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclasses look there
    spec.loader.exec_module(module)
    return module


def build(folder: Path, chip: str, bug: str = "") -> Path:
    """Build the example for one chip, with a bug in it or none; gives its target file."""
    module = load_build()
    for file in EXAMPLE.iterdir():
        if file.suffix in {".c", ".h", ".ld", ".S", ".toml"}:
            shutil.copy(file, folder)
    if bug:
        module.put_bug(bug, folder)
    chips = tuple(one for one in module.CHIPS if one.name == chip)
    module.build(folder / "build", folder, chips)
    return folder / f"{chip}.toml"


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the F103's target, as it is."""
    return build(tmp_path_factory.mktemp("good"), "stm32f103").parent


@pytest.mark.parametrize("chip", CHIPS)
def test_the_example_recovers_from_every_kind_of_cut(chip: str, tmp_path: Path) -> None:
    target = FileTarget.load(build(tmp_path, chip))
    result = run_campaign(target, bounds=PRESETS["quick"])
    cases, transitions = CHIPS[chip]
    assert len(result.cases) == cases
    assert result.transitions > transitions
    assert [case.outcome.violation for case in result.cases if case.outcome.violation] == []


@pytest.mark.parametrize("bug", BUGS)
def test_a_bug_is_put_in_as_git_does_it(bug: str, tmp_path: Path) -> None:
    git = shutil.which("git")
    if git is None:
        pytest.skip("git is not installed")
    module = load_build()
    for name in ("ours", "gits"):
        (tmp_path / name).mkdir()
        module.copy_sources(tmp_path / name)
    module.put_bug(bug, tmp_path / "ours")
    patch = EXAMPLE / "bugs" / f"{bug}.patch"
    subprocess.run([git, "apply", str(patch)], cwd=tmp_path / "gits", check=True)
    for file in (tmp_path / "gits").iterdir():
        assert (tmp_path / "ours" / file.name).read_bytes() == file.read_bytes()


SECOND_MARKS = 0x0800_5C00
"""Of the slot that the update is written to, on the F103."""

FORM_TABLE = f"""
[canonical]
file = "form.py"
fields = [{{ at = {SECOND_MARKS:#x}, size = 8 }}]
"""

FORMS = {"right": "word if word in (0, {blank}) else 1", "wrong": "{blank}"}
"""What a mark counts as: boot asks whether it is blank, and whether it is zero."""


def refute_form(good: Path, folder: Path, counts: str) -> Result:
    shutil.copytree(good, folder, dirs_exist_ok=True)
    target = folder / "stm32f103.toml"
    target.write_text(target.read_text() + FORM_TABLE)
    lines = [
        f"word = fields.word({SECOND_MARKS} + at)",
        f"fields.put({SECOND_MARKS} + at, {counts})",
    ]
    loop = "".join(f"        {line.format(blank=0xFFFF_FFFF)}\n" for line in lines)
    (folder / "form.py").write_text(f"def canonical(fields):\n    for at in (0, 4):\n{loop}")
    words = ["--preset", "full", "--shapes", "sure", "--jobs", "1", "--refute", "60"]
    return CliRunner().invoke(cli, ["campaign", str(target), *words])


def test_states_that_were_not_run_are_tried(good: Path, tmp_path: Path) -> None:
    result = refute_form(good, tmp_path, FORMS["right"])
    assert result.exit_code == 0, result.output
    assert "held against 60 random states that were run as they are" in " ".join(
        result.output.split()
    )


def test_a_form_that_says_too_much_is_refuted(good: Path, tmp_path: Path) -> None:
    result = refute_form(good, tmp_path, FORMS["wrong"])
    assert result.exit_code == 2, result.output
    assert "otherwise than was said of it" in " ".join(result.output.split())
    assert "[canonical]" in result.output


@pytest.mark.parametrize("words", [["first", "--preset", "full"], ["f103.toml"]])
def test_what_cannot_be_tried_is_told(words: list[str], good: Path) -> None:
    words = [word.replace("f103.toml", str(good / "stm32f103.toml")) for word in words]
    preset = [] if "first" in words else ["--preset", "quick"]
    result = CliRunner().invoke(cli, ["campaign", *words, *preset, "--refute", "5"])
    assert result.exit_code == 2, result.output
    assert "--refute needs a target file" in result.output


@pytest.mark.parametrize("chip", CHIPS)
@pytest.mark.parametrize("bug", BUGS)
def test_a_bug_of_the_example_is_found(bug: str, chip: str, tmp_path: Path) -> None:
    if (bug, chip) in UNSEEN:
        pytest.skip("the chip does not show it")
    target = FileTarget.load(build(tmp_path, chip, bug))
    result = run_campaign(target, bounds=replace(PRESETS["single"], stop_early=True))
    assert result.cases[-1].outcome.violation
    assert result.cases[-1].id.cuts, "the update must work as long as nothing disturbs it"


def test_the_page_of_a_bug_shows_the_run_that_ends_well_beside_it(tmp_path: Path) -> None:
    target, out = build(tmp_path, "stm32f103", "old-erased-early"), tmp_path / "report"
    words = ["campaign", str(target), "--jobs", "1", "--stop-early", "--out", str(out)]
    assert CliRunner().invoke(cli, words).exit_code == 1
    page = (out / "report.html").read_text(encoding="utf-8")
    well, bad = page.index("It ends well when the power stays on"), page.index("It ends badly")
    assert "APP v2\n" in page[well:bad]
    assert "VIOLATION" in page[bad : page.index("</pre>", bad)]
    assert "% read" in page


def test_a_case_of_the_example_is_told_again(good: Path) -> None:
    done = CliRunner().invoke(cli, ["replay", str(good / "stm32f103.toml"), "ab-stm32f103/9"])
    assert done.exit_code == 0
    assert "erase" in done.stdout
    assert "APP v2" in done.stdout


DRIVER = "def update(console, payload, options):\n"
WRONG = {
    "a text that never comes": (
        ('says = "APP v2"', 'says = "APP v9"'),
        *("", "does not work: bricked: it does not say 'APP v9' within 5 s", "APP v2'"),
    ),
    "a prompt that never comes": (
        ('after = "APP v1"', 'after = "ready"'),
        *("", "not-updated: the device did not say 'ready' in 60 s", "'APP v1'"),
    ),
    "firmware that is never quiet": (
        ('says = "APP v2"', 'says = "APP v1"\nquiet = "30 s"\nwithin = "20 ms"'),
        *("", "restless: it still writes its flash", "et [recovered] quiet be shorter"),
    ),
    "nothing to cut": (
        (
            """driver = "xmodem"
file = "build/stm32f103/app-v2.bin"
symbols = "build/stm32f103/app-v2.elf"
""",
            "",
        ),
        *("", "does nothing to the flash", "tage something"),
    ),
    "a driver that raises": (
        ('driver = "xmodem"', 'driver = "own.py"'),
        *(DRIVER + "    yield 1 / 0\n", "own.py:2 raises ZeroDivisionError", "orrect it"),
    ),
    "a driver that hangs": (
        ('driver = "xmodem"', 'driver = "own.py"'),
        *(DRIVER + "    while True:\n        pass\n    yield\n", "own.py hangs", "ield what"),
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_target_that_cannot_work_is_refused_in_one_line(
    case: str, good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (old, new), driver, message, hint = WRONG[case]
    folder = tmp_path / "target"
    shutil.copytree(good, folder)
    text = (folder / "stm32f103.toml").read_text(encoding="utf-8")
    assert old in text
    text = text.replace(old, new)
    if case == "nothing to cut":
        text = text.replace('type = "u"\n', "").replace('"APP v2"', '"APP v1"')
    (folder / "stm32f103.toml").write_text(text, encoding="utf-8")
    (folder / "own.py").write_text(driver or DRIVER + "    yield\n", encoding="utf-8")
    monkeypatch.setattr(console_module, "TURN_TIMEOUT_S", 0.3)
    done = CliRunner().invoke(cli, ["campaign", str(folder / "stm32f103.toml"), "--jobs", "1"])
    assert done.exit_code == 2, done.output
    assert done.stderr.count("\n") == 1
    assert message in done.stderr
    assert hint in done.stderr


def test_a_uf2_file_is_known_for_an_rp2040(tmp_path: Path) -> None:
    folder = build(tmp_path, "rp2040").parent
    built = folder / "build" / "rp2040"
    pieces = [*read_firmware(built / "boot.elf", None, "cortex-m0plus")]
    pieces += [Piece(0x1000_0000, (built / "stage2.bin").read_bytes())]
    pieces += [Piece(0x1000_2000, (built / "app-v1.bin").read_bytes())]
    blocks = [
        (piece.address + at, piece.data[at : at + 256])
        for piece in pieces
        for at in range(0, len(piece.data), 256)
    ]
    (folder / "all.uf2").write_bytes(uf2(*blocks))
    words = ["init", str(folder / "all.uf2"), "--yes", "-o", str(folder / "mine.toml")]
    done = CliRunner().invoke(cli, words)
    assert "rp2040, cortex-m0plus" in done.output
    assert "'APP v1'" in done.output
    assert 'chip = "rp2040"' in (folder / "mine.toml").read_text(encoding="utf-8")
