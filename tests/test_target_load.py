"""Target files: what they say, and what is said of those that are wrong."""

from __future__ import annotations

import pickle
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from unbrick.cli.main import cli
from unbrick.errors import SetupError
from unbrick.target.description import Description
from unbrick.target.load import load_target
from unbrick.target.target import FileTarget

BOOT = bytes(range(64))
PLAIN = """\
chip = "stm32f103xb"
[[firmware]]
file = "boot.bin"
at = 0x0800_0000
[recovered]
says = "APP v2"
"""
WHOLE = """\
name = "two-slots"
about = "version 1 to 2"
chip = "stm32f103xb"
console = "usart2"
[[firmware]]
file = "boot.bin"
at = 0x0800_0000
[images.v2]
file = "app.bin"
at = 0x0800_2000
[partitions.boot]
at = 0x0800_0000
size = 0x2000
[update]
stage = [{ file = "app.bin", at = 0x0801_0000 }, { hex = "01 02", at = 0x0801_F000 }]
after = "ready"
type = ["a\\r", "b\\r"]
driver = "xmodem"
file = "app.bin"
options = { limit = 5 }
again = false
within = "2 min"
[recovered]
says = ["APP v2", "APP v3"]
within = "200 ms"
flash = { at = 0x0800_2000, equals = "app.bin" }
runs = "v2"
pc = { from = 0x0800_2000, to = 0x0800_4000 }
quiet = "5 ms"
stays = "1 s"
[never]
says = "HARD FAULT"
allowed = ["flash-dirty"]
[afterwards]
stage = { file = "app.bin", at = 0x0801_0000 }
says = "APP v2"
never = "APP v1"
within = "3 s"
"""


def write(folder: Path, text: str) -> Path:
    (folder / "boot.bin").write_bytes(BOOT)
    (folder / "app.bin").write_bytes(BOOT[::-1])
    (folder / "x.toml").write_text(text)
    return folder / "x.toml"


def load(folder: Path, text: str) -> Description:
    return load_target(write(folder, text))


def test_ten_lines_are_enough(tmp_path: Path) -> None:
    target = load(tmp_path, PLAIN)
    assert (target.name, target.console) == ("x", "usart1")
    assert target.start_image[:64] == BOOT
    assert len(target.start_image) == target.chip.geometry.size
    assert [part.name for part in target.partitions] == ["main", "options"]
    assert not target.update.is_driven


def test_a_file_says_all_that_there_is(tmp_path: Path) -> None:
    target = load(tmp_path, WHOLE)
    assert (target.name, target.about, target.console) == ("two-slots", "version 1 to 2", "usart2")
    image = target.start_image
    assert image[0x10000:0x10040] == BOOT[::-1]
    assert image[0x1F000:0x1F002] == b"\1\2"
    update, recovered, never = target.update, target.recovered, target.never
    assert (update.after, update.typed, update.driver) == ("ready", ("a\r", "b\r"), "xmodem")
    assert (update.options, update.again, update.within) == ({"limit": 5}, False, 120)
    assert update.payload is not None
    assert update.payload.data == BOOT[::-1]
    assert (recovered.says, recovered.within) == (("APP v2", "APP v3"), 0.2)
    assert recovered.flash[0].pieces[0].address == 0x0800_2000
    assert (recovered.runs, recovered.pc) == (("v2",), (0x0800_2000, 0x0800_4000))
    assert (recovered.quiet, recovered.stays) == (0.005, 1)
    assert (never.says, never.faults, never.allowed) == (("HARD FAULT",), True, ("flash-dirty",))
    assert target.afterwards is not None
    assert target.afterwards.never == ("APP v1",)


WRONG = {
    "a wrong chip": (("stm32f103xb", "stm32f103xy"), "stm32f103xy", "stm32f103xb"),
    "no such UART": (('console = "usart2"', 'console = "uart9"'), "`console` is 'uart9'", "usart2"),
    "a slip": (('"boot.bin"\nat', '"boot.bin"\nadr'), "unknown entry `adr`", "`at`"),
    "a slip in a table": (("quiet =", "quite ="), "unknown entry `quite`", "`quiet`"),
    "a slip at the top": (("about =", "abuot ="), "unknown entry `abuot`", "`about`"),
    "no file": (('"boot.bin"', '"boot.elf"'), "cannot read", "correct the name"),
    "a place where no flash is": (("0x0800_0000", "0x1000_0000"), "does not fit", "main at"),
    "past the end": (("0x0801_0000 }, {", "0x0801_FFF0 }, {"), "does not fit", "main at"),
    "two in one place": (
        ("[images.v2]", '[[firmware]]\nfile = "app.bin"\nat = 0x0800_0010\n[images.v2]'),
        *("both have bytes at 0x8000010", "leave one of them out"),
    ),
    "symbols of no program": (
        ('"boot.bin"\nat', '"boot.bin"\nsymbols = "app.bin"\nat'),
        *("`symbols` is", "name an ELF file"),
    ),
    "no such driver": (('"xmodem"', '"zmodem"'), "no driver 'zmodem'", "smp, xcp, xmodem, ymodem"),
    "nothing to send": (
        ('driver = "xmodem"\nfile = "app.bin"', 'driver = "xmodem"'),
        *("`file` is missing", "what xmodem sends"),
    ),
    "no such image": (('runs = "v2"', 'runs = "v3"'), "`runs` names 'v3'", "[images] has v2"),
    "a time without unit": (('"200 ms"', '"200"'), "`within` is '200'", "200 ms"),
    "a number as a time": (('"200 ms"', "200"), "`within` is not a text", "as a text"),
    "bad digits": (('"01 02"', '"01 0"'), "`hex` is '01 0'", "pairs of digits"),
    "no TOML": (("[never]", "[never"), "is not TOML", "correct it"),
    "a name for no case": (('"two-slots"', '"two slots"'), "`name` is 'two slots'", "hyphens"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_file_is_refused_with_a_hint(case: str, tmp_path: Path) -> None:
    (old, new), message, hint = WRONG[case]
    assert old in WHOLE
    with pytest.raises(SetupError) as raised:
        load(tmp_path, WHOLE.replace(old, new, 1))
    assert message in str(raised.value)
    assert hint in raised.value.hint
    assert "\n" not in str(raised.value)


def test_binary_files_may_have_symbols(tmp_path: Path) -> None:
    for name in ("boot.elf", "app.elf"):
        (tmp_path / name).write_bytes(b"\x7fELF")
    text = PLAIN.replace('"boot.bin"', '"boot.bin"\nsymbols = "boot.elf"')
    text = text.replace(
        "[recovered]",
        """[update]
driver = "xmodem"
file = "app.bin"
symbols = "app.elf"
[images.v1]
file = "boot.bin"
symbols = "boot.elf"
at = 0x0800_0000
[recovered]""",
    )
    assert load(tmp_path, text).elf_files == (tmp_path / "boot.elf", tmp_path / "app.elf")
    assert load(tmp_path, PLAIN).elf_files == ()


def test_other_uarts_have_names_which_change_no_verdict(tmp_path: Path) -> None:
    named = load(tmp_path, f'{PLAIN}[uarts]\nmodem = "usart3"\nusart2 = "usart2"\n')
    assert named.uarts == {"modem": "usart3", "usart2": "usart2"}
    plain = load(tmp_path, PLAIN)
    assert plain.uarts == {}
    assert plain.digest == named.digest


@pytest.mark.parametrize(
    ("entry", "message", "hint"),
    [
        ('modem = "usart4"', "`modem` is 'usart4'", "`usart"),
        ("modem = 2", "`modem` is 2", "`usart"),
        ('modem = "usart1"', "usart1, which is the console", "leave it out"),
        ('a = "usart2"\nb = "usart2"', "`b` is usart2, which is there twice", "leave it out"),
        ('wire = "usart2"', "cannot be called 'wire'", "small letters"),
        ('usart3 = "usart2"', "cannot be called 'usart3'", "names of others"),
        ('"a b" = "usart2"', "cannot be called 'a b'", "small letters"),
    ],
)
def test_a_uart_that_cannot_be_is_refused(
    entry: str, message: str, hint: str, tmp_path: Path
) -> None:
    with pytest.raises(SetupError, match=re.escape(message)) as raised:
        load(tmp_path, f"{PLAIN}[uarts]\n{entry}\n")
    assert hint in raised.value.hint


def test_a_file_must_say_what_recovered_means(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="says nothing of when the device has recovered"):
        load(tmp_path, PLAIN.replace('says = "APP v2"', ""))


def test_whatever_changes_in_a_target_changes_its_digest(tmp_path: Path) -> None:
    seen = {load(tmp_path, WHOLE).digest}
    for old, new in (("200 ms", "201 ms"), ("limit = 5", "limit = 6"), ('"APP v1"', '"APP v0"')):
        seen.add(load(tmp_path, WHOLE.replace(old, new)).digest)
    path = write(tmp_path, WHOLE)
    (tmp_path / "boot.bin").write_bytes(b"other" + BOOT)
    seen.add(load_target(path).digest)
    assert len(seen) == 5


def test_a_target_that_changes_meanwhile_is_refused_by_other_processes(tmp_path: Path) -> None:
    path = write(tmp_path, PLAIN)
    packed = pickle.dumps(FileTarget.load(path))
    assert pickle.loads(packed).name == "x"  # noqa: S301 - our own
    path.write_text(PLAIN.replace("v2", "v3"))
    target = FileTarget(path, FileTarget.load(path).digest[:-1] + "x")
    with pytest.raises(SetupError, match="has changed meanwhile"):
        _ = target.name


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["campaign", "x.toml", "staged"], "files and scenarios cannot be searched together"),
        (["campaign", "x.toml", "x.toml"], "two of the targets are called x"),
        (["campaign", "y.toml"], "cannot read y.toml"),
        (["replay", "x.toml", "y/1"], "x.toml has no case y/1"),
        (["replay", "x.toml", "x/1", "x/2"], "too many words"),
        (["replay", "staged/1", "x.toml"], "not the file of a target: staged/1"),
    ],
)
def test_a_wrong_call_says_what_to_do(
    words: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, PLAIN)
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(cli, words)
    assert done.exit_code == 2
    assert done.stderr.startswith(f"unbrick: {message}")
    assert done.stderr.count("\n") == 1
