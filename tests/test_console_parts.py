"""The parts of the console: keys, typing at the terminal's pace, and the screen."""

from __future__ import annotations

import io
import os
import re
import threading
import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from unbrick.board import load_chip
from unbrick.board.load_chip import list_chips
from unbrick.console.keys import ESCAPE, LONGEST, Keys
from unbrick.console.nor_picture import (
    CELL,
    MOST_CELLS,
    ROW_CELLS,
    SHADES,
    draw_chip_picture,
    draw_nor_picture,
    list_picture_notes,
)
from unbrick.console.power import PowerSwitch
from unbrick.console.screen import CONGESTED_BYTES, Output, Screen
from unbrick.console.typist import (
    BURST_BYTES,
    FIRST_WORDS_SILENCE_S,
    KNOWN_PROMPT_SILENCE_S,
    UNKNOWN_PROMPT_SILENCE_S,
    TypeAfter,
    Typist,
)
from unbrick.engine.base import Engine, FirmwareFault
from unbrick.engine.gdb.server import DebuggerGoneError
from unbrick.errors import EngineError, NotKnownHereError
from unbrick.firmware.signed import Releases
from unbrick.flash.partition import Partition
from unbrick.image.factory import make_factory_image
from unbrick.layout import reference_layout

LAYOUT = reference_layout()
PROMPT = b"\r\n> "


# Keys -----------------------------------------------------------------------------------------


class Typed:
    """What the keys have passed on, in order."""

    def __init__(self, *, always: bool = False) -> None:
        self.text = b""
        self.commands: list[str] = []
        self.shown = b""
        self.opened: list[bool] = []
        self.keys = Keys(
            self._text, self.commands.append, self._show, self.opened.append, always=always
        )

    def _text(self, data: bytes) -> None:
        self.text += data

    def _show(self, data: bytes) -> None:
        self.shown += data

    def everything(self) -> tuple[bytes, list[str], bytes, list[bool]]:
        return self.text, self.commands, self.shown, self.opened


def test_text_goes_to_the_terminal_and_commands_to_the_bench() -> None:
    typed = Typed()
    typed.keys.feed(b"one\r\x01cut next\rtwo\x01\x01\x01on\r\n\nthree")
    assert typed.text == b"one\rtwo\x01\nthree"
    assert typed.commands == ["cut next", "on"]
    assert typed.shown == b"cut nexton"
    assert typed.opened == [True, True, False, True]


@given(st.lists(st.sampled_from([b"\x01", b"\r", b"\n", b"\x7f", b"\x03", b"a", "ä".encode()])))
def test_it_does_not_matter_in_which_pieces_keys_come(keys: list[bytes]) -> None:
    whole, pieces = Typed(), Typed()
    whole.keys.feed(b"".join(keys))
    for byte in b"".join(keys):
        pieces.keys.feed(bytes([byte]))
    assert whole.everything() == pieces.everything()


@given(st.binary().filter(lambda data: ESCAPE not in data and b"\r\n" not in data))
def test_text_without_the_key_is_passed_on_as_it_is(data: bytes) -> None:
    typed = Typed()
    typed.keys.feed(data)
    assert typed.everything() == (data, [], b"", [])


def test_a_command_is_edited() -> None:
    typed = Typed()
    typed.keys.feed(b"\x01" + "cä".encode() + b"\x7fut\x15\x7fon\r\x01no\x03text")
    assert typed.commands == ["on"]
    assert typed.text == b"text"
    assert typed.opened == [True, True, False]
    assert typed.shown.count(b"\b \b") == 4, "a character of two bytes is one"


def test_a_command_is_bounded() -> None:
    typed = Typed()
    typed.keys.feed(b"\x01" + b"x" * (2 * LONGEST) + b"\r")
    assert typed.commands == ["x" * LONGEST]


def test_without_a_terminal_every_line_is_a_command() -> None:
    typed = Typed(always=True)
    typed.keys.feed(b"cut\non\r\n\x01quit")
    typed.keys.end()
    assert typed.commands == ["cut", "on", "quit"]
    assert typed.text == b""


# Typist ---------------------------------------------------------------------------------------


class Line:
    """A terminal's line, of which the test is the terminal."""

    def __init__(self) -> None:
        self.sent = b""
        self.said = b""

    def write(self, data: bytes) -> None:
        self.sent += data

    def read(self) -> bytes:
        said, self.said = self.said, b""
        return said


class Terminal:
    """A typist, and what its terminal gets to see."""

    def __init__(self, after: TypeAfter = TypeAfter.PROMPT) -> None:
        self.line = Line()
        self.typist = Typist(self.line, after=after)
        self.now = 0.0

    def says(self, data: bytes) -> None:
        self.line.said += data
        assert self.typist.read() == data

    def gets(self, seconds: float = 0.1) -> bytes:
        """What comes within some time."""
        self.line.sent = b""
        end = self.now + seconds
        while self.now < end:
            self.now += 0.01
            self.typist.step(self.now)
        return self.line.sent


@pytest.fixture
def terminal() -> Terminal:
    return Terminal()


def test_nothing_is_typed_before_the_first_prompt(terminal: Terminal) -> None:
    terminal.typist.write(b"id\r")
    terminal.says(b"boot: unbrick boot 1.0.0\r\nterminal: here\r\n")
    assert terminal.gets() == b""
    terminal.says(b">")
    assert terminal.gets() == b""
    terminal.says(b" ")
    assert terminal.gets() == b"id\r"


def test_the_next_line_waits_for_the_next_prompt(terminal: Terminal) -> None:
    terminal.says(PROMPT)
    terminal.typist.write(b"one\rtwo\nthree\r\nfour")
    for line in (b"one\r", b"two\n", b"three\r", b"\nfour"):
        assert terminal.gets() == line
        assert terminal.gets() == b""
        terminal.says(line.strip() + b"\r\nan answer\r\n> ")
    assert terminal.typist.waiting == 0
    assert terminal.typist.listened_to


def test_keys_of_one_line_go_at_once(terminal: Terminal) -> None:
    terminal.says(PROMPT)
    for key in (b"a", b"b", b"\x7f"):
        terminal.typist.write(key)
        assert terminal.gets(0.02) == key


def test_what_the_terminal_says_on_its_own_account_does_not_hold_up_typing(
    terminal: Terminal,
) -> None:
    terminal.says(PROMPT + b"pb")
    terminal.says(b"\rlink: registered\r\n> pb")
    terminal.typist.write(b" list\r")
    assert terminal.gets() == b" list\r"


def test_a_terminal_that_rewrites_itself_is_left_in_peace(terminal: Terminal) -> None:
    terminal.says(PROMPT + b"\rupdate: checked\r\n> \r\nagent: rewriting 1 of 1 blocks\r\n")
    terminal.typist.write(b"pb list\r")
    assert terminal.gets(UNKNOWN_PROMPT_SILENCE_S + 1) == b""
    terminal.says(b"agent: done\r\nboot: unbrick boot 1.0.0\r\nterminal: here\r\n> ")
    assert terminal.gets() == b"pb list\r"


def test_a_terminal_to_be_restored_gets_everything_as_it_comes(terminal: Terminal) -> None:
    block = bytes(range(256)) * 4
    terminal.typist.write(block)
    terminal.says(b"boot: here\r\nrestoration: send the signed image by YMODEM\r\n")
    assert terminal.gets(0.2) == block
    terminal.says(b"CC")
    terminal.typist.write(b"\r\n" * 8)
    assert terminal.gets() == b"\r\n" * 8
    terminal.says(b"\r\nboot: again\r\n")
    terminal.typist.write(b"id\r")
    assert terminal.gets() == b""


def test_software_with_another_prompt_is_typed_at_after_a_while(terminal: Terminal) -> None:
    terminal.says(b"login: ")
    terminal.typist.write(b"a\rb\r")
    assert terminal.gets(UNKNOWN_PROMPT_SILENCE_S - 0.1) == b""
    assert terminal.gets(0.3) == b"a\rb\r"
    terminal.typist.write(b"c\r")
    assert terminal.gets() == b"c\r"


def test_a_terminal_that_hangs_is_typed_at_after_a_longer_while(terminal: Terminal) -> None:
    terminal.says(PROMPT)
    terminal.typist.write(b"a\rb\r")
    assert terminal.gets(KNOWN_PROMPT_SILENCE_S - 1) == b"a\r"
    assert terminal.gets(2) == b"b\r"


def test_it_is_typed_at_the_lines_rate(terminal: Terminal) -> None:
    terminal.says(PROMPT)
    terminal.gets(1)
    terminal.typist.write(b"x" * 20_000)
    assert BURST_BYTES + 11_000 <= len(terminal.gets(1)) <= BURST_BYTES + 11_700


def test_without_power_nothing_is_typed_and_nothing_forgotten(terminal: Terminal) -> None:
    terminal.says(PROMPT)
    terminal.typist.power_off()
    terminal.typist.write(b"id\r")
    assert terminal.gets(KNOWN_PROMPT_SILENCE_S + 1) == b""
    terminal.typist.power_on(terminal.now)
    assert terminal.gets() == b"", "its old prompt is gone"
    terminal.says(b"boot: here\r\n> ")
    assert terminal.gets() == b"id\r"


def test_who_sees_what_is_said_is_typed_for_at_once() -> None:
    terminal = Terminal(TypeAfter.NOTHING)
    terminal.typist.write(b"a\rb\r")
    assert terminal.gets(0.02) == b"a\rb\r"
    terminal.says(PROMPT + b"boot: anew\r\n")
    terminal.typist.write(b"c\rd\r")
    assert terminal.gets(0.02) == b"c\rd\r"
    terminal.typist.power_off()
    terminal.typist.write(b"e")
    assert terminal.gets() == b""
    terminal.typist.power_on(terminal.now)
    assert terminal.gets(0.02) == b"e"


def test_a_script_waits_for_the_first_words_after_each_start() -> None:
    terminal = Terminal(TypeAfter.FIRST_WORDS)
    for _ in range(2):
        terminal.typist.write(b"a\rb\r")
        assert terminal.gets(UNKNOWN_PROMPT_SILENCE_S / 2) == b""
        terminal.says(b"hello\r\n")
        assert terminal.gets(FIRST_WORDS_SILENCE_S - 0.1) == b""
        assert terminal.gets(0.2) == b"a\rb\r"
        terminal.says(b"anything")
        terminal.typist.write(b"c")
        assert terminal.gets(0.02) == b"c"
        terminal.typist.power_off()
        terminal.typist.power_on(terminal.now)


def test_a_script_does_not_wait_for_ever_for_words() -> None:
    terminal = Terminal(TypeAfter.FIRST_WORDS)
    terminal.typist.write(b"a")
    assert terminal.gets(UNKNOWN_PROMPT_SILENCE_S + 0.1) == b"a"
    assert terminal.typist.listened_to


def test_a_script_types_also_at_software_that_is_never_silent() -> None:
    terminal = Terminal(TypeAfter.FIRST_WORDS)
    terminal.typist.write(b"a")
    typed = b""
    while not typed:
        terminal.says(b"tick")
        typed = terminal.gets(0.1)
    assert typed == b"a"
    assert terminal.now >= UNKNOWN_PROMPT_SILENCE_S
    assert not terminal.typist.goes_on_speaking, "it may answer what was typed"


# Screen ---------------------------------------------------------------------------------------


def test_output_waits_for_a_slow_reader_and_loses_nothing() -> None:
    reader, writer = os.pipe()
    output = Output(writer)
    data = os.urandom(300_000)
    output.write(data)
    assert 0 < output.waiting < len(data)
    got = b""

    def read() -> None:
        nonlocal got
        time.sleep(0.2)
        while piece := os.read(reader, 1000):
            got += piece

    thread = threading.Thread(target=read)
    thread.start()
    output.close()
    os.close(writer)
    thread.join()
    os.close(reader)
    assert got == data


def test_a_reader_that_has_gone_is_noticed() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    output = Output(writer)
    output.write(b"hello")
    assert output.gone
    assert output.waiting == 0
    os.close(writer)


class Window:
    """A screen on a pipe, and what it shows."""

    def __init__(self) -> None:
        self.reader, self.writer = os.pipe()
        self.output = Output(self.writer)
        self.screen = Screen(self.output, self.output, raw=True)

    def shows(self) -> bytes:
        """What has come since the last call."""
        os.set_blocking(self.reader, False)
        try:
            return os.read(self.reader, 1 << 20)
        except BlockingIOError:
            return b""


@pytest.fixture
def window() -> Iterator[Window]:
    made = Window()
    yield made
    os.close(made.reader)
    os.close(made.writer)


def test_the_benchs_words_come_between_and_the_terminals_line_goes_on(window: Window) -> None:
    window.screen.hear(b"one\r\n> pb a")
    assert window.shows() == b"one\r\n> pb a"
    window.screen.say("power cut")
    window.screen.hear(b"dd")
    assert window.shows() == b"\r\npower cut\r\n> pb add"


def test_the_terminals_output_waits_while_a_command_is_typed(window: Window) -> None:
    window.screen.hear(b"> pb")
    window.screen.hold("bench> ")
    assert window.shows() == b"> pb\r\nbench> "
    window.screen.hear(b" list\r\nAlice")
    window.screen.show(b"on\r\n")
    window.screen.say("done")
    assert window.shows() == b"on\r\ndone\r\n"
    window.screen.release()
    assert window.shows() == b"> pb list\r\nAlice"
    window.screen.hold("bench> ")
    window.screen.hear(b"x" * CONGESTED_BYTES)
    assert window.screen.congested, "the terminal has to wait then"


# Power ----------------------------------------------------------------------------------------


class FakeEngine(Engine):
    """An engine that does not count operations, and does what the test wants."""

    name = "fake"

    def __init__(self) -> None:
        self.wire = self.radio = Line()
        self.on = False
        self.nor = b"before"
        self.found: list[FirmwareFault] = []
        self.error: Exception | None = None

    @property
    def powered(self) -> bool:
        return self.on

    @property
    def now(self) -> float:
        return 0.0

    @property
    def faults(self) -> list[FirmwareFault]:
        return self.found

    def power_on(self) -> None:
        self.on = True

    def power_off(self) -> None:
        self.on = False

    def advance(self, seconds: float) -> None:
        del seconds
        if self.error is not None:
            raise self.error

    def read_nor(self) -> bytes:
        return self.nor

    def load_nor(self, image: bytes) -> None:
        self.nor = image

    def close(self) -> None:
        self.on = False


class Switched:
    """A fake terminal with power, and what was said about it."""

    def __init__(self) -> None:
        self.engine = FakeEngine()
        self.said: list[str] = []
        self.power = PowerSwitch(self.engine, Typist(self.engine.wire), self.said.append)
        self.power.on()

    def goes_on(self) -> list[str]:
        self.said.clear()
        self.power.advance(0.1)
        return list(self.said)


@pytest.fixture
def switched() -> Switched:
    return Switched()


def test_where_operations_are_not_counted_power_goes_when_the_nor_changes(
    switched: Switched,
) -> None:
    switched.power.arm()
    assert switched.goes_on() == []
    switched.engine.nor = b"after"
    assert switched.goes_on() == [
        "power cut as soon as the NOR was seen to change; `on` gives it back"
    ]
    assert not switched.engine.on
    switched.power.on()
    switched.engine.nor = b"later"
    assert switched.goes_on() == [], "it was for once"
    switched.power.arm()
    switched.power.disarm()
    switched.engine.nor = b"and so on"
    assert switched.goes_on() == []
    with pytest.raises(NotKnownHereError):
        switched.power.arm(2)


def test_what_the_firmware_does_wrong_is_told_once(switched: Switched) -> None:
    switched.engine.found.append(FirmwareFault("busy-fetch", 16, "main (main.c:1)", "bad", 0.0))
    assert switched.goes_on() == ["firmware fault in main (main.c:1): bad (busy-fetch)"]
    assert switched.goes_on() == []
    switched.engine.found.append(FirmwareFault("bounds", 16, "", "worse", 0.0))
    assert switched.goes_on() == ["firmware fault in pc 0x10: worse (bounds)"]
    assert switched.engine.on


@pytest.mark.parametrize(
    "error", [EngineError("QEMU is gone"), DebuggerGoneError("the debugger has killed it")]
)
def test_an_engine_that_fails_is_switched_off_and_the_console_goes_on(
    error: EngineError, switched: Switched
) -> None:
    switched.engine.error = error
    assert switched.goes_on() == [f"{error}; `on` gives it back"]
    assert not switched.engine.on
    switched.engine.error = None
    assert switched.goes_on() == []
    switched.power.on()
    assert switched.engine.on


# The picture ----------------------------------------------------------------------------------


def test_the_picture_shows_what_is_written_and_what_has_changed() -> None:
    blank = b"\xff" * 0x80000
    full = bytes(0x40000) + blank[0x40000:]
    contents = draw_nor_picture(full, blank).columns[2]
    first, second = list(contents.cells)
    assert str(first) == SHADES[-1] * 32
    assert str(second) == SHADES[0] * 32
    assert "reverse" in repr(first)
    assert "reverse" not in repr(second)
    what = [str(cell) for cell in draw_nor_picture(full).columns[3].cells]
    assert what == ["", "blank"]


def test_the_picture_fits_a_window_of_80_columns_whatever_is_in_the_nor(
    unbrick_releases: Releases,
) -> None:
    """As after a rewrite that was interrupted: a long reason takes nothing from the picture."""
    part = LAYOUT.partition("application")
    for image in (b"", unbrick_releases.signed["1.1.0"]):
        nor = bytearray(make_factory_image(unbrick_releases.boot, image, "UB-000001"))
        if image:
            nor[part.offset : part.offset + CELL] = b"\xff" * CELL  # the first erase
        console = Console(width=80, file=io.StringIO())
        with console.capture() as shown:
            console.print(draw_nor_picture(bytes(nor)))
        lines = shown.get().splitlines()
        assert len(lines) == 2 + LAYOUT.board.nor.modelled // LAYOUT.board.nor.block_size
        assert not [line for line in lines if "…" in line]
        assert re.match(r"0x100000 application [·░▒▓█]{32} (blank|see below) *$", lines[6])
        assert re.match(r"0x3c0000 spare       ·{32} *$", lines[-1])
    (note,) = list_picture_notes(bytes(nor))
    assert re.match(r"application: not an image: .{20,}", note)
    assert max(map(len, list_picture_notes(bytes(nor)))) > 40


def test_the_picture_of_a_chip_shows_what_is_written_and_what_has_changed() -> None:
    chip = load_chip("stm32f103xb")
    before = chip.factory_image
    changed = bytearray(before)
    changed[0x5000:0x5400] = bytes(0x400)
    parts = (Partition("boot", 0, 0x1000), Partition("app", 0x5000, 0x2000))
    table = draw_chip_picture(bytes(changed), chip, parts, before)
    address, partition, contents = (list(column.cells) for column in table.columns)
    rows = range(0x0800_0000, 0x0802_0000, 0x4000)
    assert address == [*(f"{row:#010x}" for row in rows), "0x1ffff800"]
    assert list(map(str, partition[:3])) == ["boot", "app", ""]
    assert str(contents[1]) == SHADES[0] * 8 + SHADES[-1] * 2 + SHADES[0] * 22
    assert repr(contents[1]).count("reverse") == 2
    assert "reverse" not in repr(contents[0])
    assert len(str(contents[-1])) == 1, "the option bytes are less than a character stands for"


@pytest.mark.parametrize("name", list_chips())
def test_the_picture_of_every_chip_fits_a_window(name: str) -> None:
    chip = load_chip(name)
    console = Console(width=80, file=io.StringIO())
    with console.capture() as shown:
        console.print(draw_chip_picture(chip.factory_image, chip, ()))
    lines = shown.get().splitlines()
    assert not [line for line in lines if "…" in line]
    assert len(lines) <= 2 + MOST_CELLS // ROW_CELLS + len(chip.flash[1:])
