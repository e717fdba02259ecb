"""Row C6: Robot Framework drives the bench, by the keywords of ``unbrick.robot``."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from patience import PATIENCE_S
from robot import api
from robot.api import ExecutionResult, Failure, FatalError, SkipExecution
from robot.libdocpkg import LibraryDocumentation
from test_ab_updater import build
from test_engine_serial import Board, board  # noqa: F401 - the fixture

from unbrick.errors import (
    ExpectError,
    ImageError,
    MissingToolError,
    NotKnownHereError,
    ToolBrokenError,
    UnbrickError,
)
from unbrick.flash.ops import FlashOp
from unbrick.image.format import inspect, load_public_key, verify
from unbrick.layout import reference_layout
from unbrick.robot import UnbrickLibrary
from unbrick.robot.base import keyword
from unbrick.robot.picture import COLOURS, draw_nor_picture
from unbrick.robot.reference import make_attachment
from unbrick.robot.spoil import Spoiled, spoil
from unbrick.robot.uart import Uart, compile_pattern

if TYPE_CHECKING:
    from unbrick.firmware.signed import Releases

LAYOUT = reference_layout()
ROOT = Path(__file__).parents[1]
SUITES = sorted((ROOT / "robot_tests").glob("[a-z]*.robot"))
BLOCK = LAYOUT.board.nor.block_size


def make_robot(engine: str, folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """``make robot`` as a person types it, without looking whether the installation is current."""
    if shutil.which("make") is None:
        pytest.skip("make is not installed (apt install make)")
    venv = Path(sys.executable).parents[1]
    command = ["make", "-o", f"{venv}/.unbrick-installed", f"VENV={venv}"]
    robot = " ".join(["--outputdir", str(folder), *options])
    command += ["robot", f"ENGINE={engine}", f"ROBOT={robot}"]
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=3 * PATIENCE_S
    )


def run_robot(suite: str, folder: Path, firmware: Path, *options: str) -> Any:
    """Run a suite of this text; returns Robot's result."""
    source = folder / "suite.robot"
    source.write_text(f"*** Settings ***\nLibrary    unbrick.robot\n\n*** Test Cases ***\n{suite}")
    command = [sys.executable, "-m", "robot", "--outputdir", str(folder / "out"), *options]
    command += ["--variable", f"FIRMWARE:{firmware}"]
    done = subprocess.run(
        [*command, str(source)], capture_output=True, text=True, check=False, timeout=PATIENCE_S
    )
    assert (folder / "out" / "output.xml").exists(), done.stderr
    return ExecutionResult(folder / "out" / "output.xml")


def skipped(folder: Path) -> dict[str, str]:
    """Tests that were skipped, and why."""
    tests = ExecutionResult(folder / "output.xml").suite.all_tests
    return {test.name: test.message for test in tests if test.skipped}


@pytest.mark.slow(first=True)
def test_claim_c6_the_suites_pass_in_process(unbrick_releases: Releases, tmp_path: Path) -> None:
    done = make_robot("inprocess", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert skipped(tmp_path) == {}
    written = api.TestSuite.from_file_system(ROOT / "robot_tests").test_count
    assert ExecutionResult(tmp_path / "output.xml").statistics.total.passed == written
    assert (tmp_path / "log.html").exists()


def test_claim_c6_there_are_many_of_them() -> None:
    assert api.TestSuite.from_file_system(ROOT / "robot_tests").test_count > 60


@pytest.mark.slow(first=True)
def test_claim_c6_the_suites_pass_on_qemu(
    qemu: str, unbrick_releases: Releases, tmp_path: Path
) -> None:
    """By the clock, so all at once, and those tests alone that use every keyword between them."""

    def play(suite: Path) -> subprocess.CompletedProcess[str]:
        folder = tmp_path / suite.stem
        return make_robot("qemu", folder, "--suite", suite.stem, "--include", "qemu")

    with ThreadPoolExecutor(len(SUITES)) as pool:
        runs = dict(zip(SUITES, pool.map(play, SUITES), strict=True))
    wrong = [done.stdout + done.stderr for done in runs.values() if done.returncode]
    assert not wrong, "\n".join(wrong)
    reasons = {k: v for suite in SUITES for k, v in skipped(tmp_path / suite.stem).items()}
    assert {name: why.split(" (")[0] for name, why in reasons.items()} == {
        "Every Power Cut While An Entry Is Saved": "campaigns run in process",
        "Power Is Lost While The User Saves An Entry": (
            "the engine qemu cannot cut the power at a flash operation"
        ),
    }
    used = set().union(*(used_keywords(tmp_path / suite.stem) for suite in SUITES))
    assert written_keywords() - used == set()


def used_keywords(folder: Path) -> set[str]:
    """The keywords of the library that were used in a run."""
    tree = ET.parse(folder / "output.xml")  # noqa: S314 - it is ours
    return {kw.get("name", "") for kw in tree.iter("kw") if kw.get("owner") == "unbrick.robot"}


def written_keywords() -> set[str]:
    """The keywords of the library that are written in the suites."""
    files = [*SUITES, ROOT / "robot_tests" / "terminal.resource"]
    cells = {
        cell
        for file in files
        for line in file.read_text(encoding="utf-8").splitlines()
        for cell in re.split(r"\s{2,}", line)
    }
    return cells & {each.name for each in LibraryDocumentation("unbrick.robot").keywords}


@pytest.mark.slow
def test_claim_c6_a_suite_runs_on_serial_ports(
    board: Board,  # noqa: F811
    unbrick_releases: Releases,
    tmp_path: Path,
) -> None:
    tests = ("No Bit Of It Changes In An Update", "Every Power Cut While An Entry Is Saved")
    options = [f"--test '{name}'" for name in tests]
    done = make_robot("serial", tmp_path, "--variable", f"BOARD:{board.file}", *options)
    assert done.returncode == 0, done.stdout + done.stderr
    assert list(skipped(tmp_path)) == ["Every Power Cut While An Entry Is Saved"]
    assert ExecutionResult(tmp_path / "output.xml").statistics.total.passed == 1


FAILS = """
It fails
    Start Terminal
    Type Command    pb add <b>Alice 112
    Phonebook Should Contain    Bob

It passes
    Phonebook Should Contain    112
"""


@pytest.mark.slow
def test_a_failure_shows_the_uart_the_link_and_the_nor(firmware: Path, tmp_path: Path) -> None:
    result = run_robot(FAILS, tmp_path, firmware)
    failed, passed = result.suite.tests
    assert (failed.status, passed.status) == ("FAIL", "PASS")
    assert "Bob is not in the phonebook" in failed.message
    shown = [item.message for item in failed.body if item.type == "MESSAGE"]
    assert all(item.html for item in failed.body if item.type == "MESSAGE")
    assert [item for item in passed.body if item.type == "MESSAGE"] == []
    wire, radio, nor = shown
    assert "terminal: unbrick-terminal 1.0.0" in wire
    assert "&lt;b&gt;Alice" in wire
    assert "<b>Alice" not in wire
    assert "POST /register -&gt; 2.04" in radio
    assert "<svg" in nor
    assert "application 0" in nor
    links = re.findall(r"href='([^']+)'", "".join(shown))
    assert len(links) == 2
    log = (tmp_path / "out" / links[0]).read_text()
    assert "*** power on ***" in log
    assert "<b>Alice" in log
    picture = next((tmp_path / "out" / "logs").glob("*.svg"))
    assert ET.parse(picture).getroot().tag.endswith("svg")  # noqa: S314 - it is ours


OF_A_TARGET = """
It fails
    Start Target    app/stm32f103.toml
    Wait For Line On Uart    APP v9    timeout=1 s

There is one device at a time
    Run Keyword And Expect Error    there is no terminal yet (begin with `Start Terminal`)
    ...    Type Command    help
    Stop Terminal
    Run Keyword And Expect Error    there is no target yet (begin with `Start Target`)
    ...    Target Should Recover
    Run Keyword And Expect Error
    ...    there is no terminal yet (begin with `Start Terminal` or `Start Target`)    Power On

What is wrong is said
    Run Keyword And Expect Error    *missing.toml*    Start Target    missing.toml
    Run Keyword And Expect Error    depth is -1 (it is a number of power cuts)
    ...    Campaign Should Find No Violation    app/stm32f103.toml    depth=-1
"""


@pytest.mark.slow
def test_a_failure_of_a_target_shows_its_console(tmp_path: Path) -> None:
    (tmp_path / "app").mkdir()
    build(tmp_path / "app", "stm32f103")
    failed, *passed = run_robot(OF_A_TARGET, tmp_path, tmp_path).suite.tests
    assert {test.name: test.message for test in passed if not test.passed} == {}
    assert "the device did not say 'APP v9' within 1 s" in failed.message
    (shown,) = [item.message for item in failed.body if item.type == "MESSAGE"]
    assert "APP v1" in shown
    (log,) = (tmp_path / "out" / "logs").iterdir()
    assert "*** power on ***" in log.read_text()


@pytest.mark.slow
def test_the_example_of_the_page_is_true(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "robot.md").read_text(encoding="utf-8")
    example = page.partition("```robotframework\n")[2].partition("```")[0]
    build(tmp_path, "stm32f103")
    cases = example.partition("*** Test Cases ***\n")[2]
    result = run_robot(cases, tmp_path, tmp_path)
    assert {test.name: test.message for test in result.suite.tests if not test.passed} == {}
    assert result.statistics.total.passed == 2


@pytest.mark.slow
def test_an_engine_that_does_not_exist_fails(firmware: Path, tmp_path: Path) -> None:
    suite = "It runs\n    Start Terminal\n"
    (test,) = run_robot(suite, tmp_path, firmware, "--variable", "ENGINE:abacus").suite.tests
    assert test.failed
    assert "there is no engine 'abacus' (choose one of" in test.message


@pytest.mark.slow
def test_without_qemu_the_test_is_skipped_and_says_how_to_get_it(
    firmware: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QEMU_SYSTEM_ARM", "/nowhere/qemu-system-arm")
    suite = "It runs\n    Start Terminal\n"
    (test,) = run_robot(suite, tmp_path, firmware, "--variable", "ENGINE:qemu").suite.tests
    assert test.skipped
    assert "apt install qemu-system-arm" in test.message


FOUND = """
Lines are found one behind the other
    Start Terminal
    ${line} =    Wait For Line On Uart    built (\\\\S+)    treatAsRegex=true
    Should Match Regexp    ${line.Groups[0]}    ^2026-01
    Should Be True    0 < ${line.Timestamp} < 1
    ${next} =    Wait For Next Line On Uart
    Should Be Equal    ${next.Line}    link: registered
    Wait For Prompt On Uart
    Test If Uart Is Idle    2 s
    Run Keyword And Expect Error    the terminal did not say 'built' within 2 s*
    ...    Wait For Line On Uart    built    timeout=2 s
    Write Line To Uart    version
    ${lines} =    Wait For Lines On Uart    ${{['1.0.0', 'digest']}}
    Should Be True    $lines[0].Timestamp <= $lines[1].Timestamp
    Wait For Prompt On Uart
    Should Not Be On Uart    panic    timeout=1 min
    Write Line To Uart    id
    Run Keyword And Expect Error    the terminal should not have said: serial:*
    ...    Should Not Be On Uart    serial:    timeout=1 min

Keywords without a terminal say what to do
    Stop Terminal
    Run Keyword And Expect Error    there is no terminal yet (begin with `Start Terminal`)
    ...    Type Command    help

The NOR is compared
    Start Terminal
    ${before} =    Get Nor
    Nor Should Hold Image    1.0.0
    Run Keyword And Expect Error    *does not hold 1.1.0    Nor Should Hold Image    1.1.0
    Nor Block Should Be Blank    5
    Run Keyword And Expect Error    block 5 (application 1) is blank
    ...    Nor Block Should Not Be Blank    5
    Run Keyword And Expect Error    there are blocks 0 to 15    Nor Block Should Be Blank    16
    Run Keyword And Expect Error    the NOR cannot be replaced under power*
    ...    Flip Nor Bit    application    0x50000
    Cut Power
    Flip Nor Bit    application    0x50000    bit=3
    Run Keyword And Expect Error    the NOR is not as it was: application 1 at 0x150000
    ...    Nor Should Equal    ${before}
    Nor Should Equal    ${before}    partition=userdata
    Nor Block Should Equal    4    ${before}
    Run Keyword And Expect Error    block 5 (application 1) differs at 0x150000
    ...    Nor Block Should Equal    5    ${before}
    Run Keyword And Expect Error    there is no partition 'attic' (choose one of *
    ...    Nor Should Equal    ${before}    attic

Times in Robot's notation
    Start Terminal
    Run For    1 min 30 s
    ${count} =    Get Flash Operation Count
    Should Be Equal    ${count}    ${1}
    Run Keyword And Expect Error    flash operation 1 did not come within 2.5 s
    ...    Cut Power At Flash Operation    1    timeout=2500 ms

Flash operations are counted from the next one
    Start Terminal
    Write Line To Uart    pb add Alice 112    waitForEcho=false
    Cut Power At Flash Operation    1
    ${count} =    Get Flash Operation Count
    Should Be Equal    ${count}    ${1}
    Power On
    Write Line To Uart    pb add Alice 112    waitForEcho=false
    Cut Power At Flash Operation    2
    ${count} =    Get Flash Operation Count
    Should Be Equal    ${count}    ${3}

What an update came to
    Start Terminal
    Wait For Registration
    Publish    1.1.0    spoiled=signature_wrong
    Start Update    1.1.0
    Run Keyword And Expect Error    the update should be succeeded, it is failed*signature*
    ...    Wait For Update
    Run Keyword And Expect Error    *    Update Should Be    succeeded
    Run Keyword And Expect Error    *    Update Should Have Ended With    SUCCESS
    Run Keyword And Expect Error    there is no release 9.9 (choose from *    Publish    9.9
    Run Keyword And Expect Error    no fault of the link has struck    Link Should Have Failed
    Run Keyword And Expect Error    the terminal has asked for * blocks
    ...    Nothing Should Be Transferred
"""


@pytest.mark.slow
def test_keywords_tell_right_from_wrong(firmware: Path, tmp_path: Path) -> None:
    result = run_robot(FOUND, tmp_path, firmware)
    assert {test.name: test.message for test in result.suite.tests if not test.passed} == {}
    assert result.statistics.total.passed == 6


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ExpectError("it said nothing", hint="listen"), Failure("it said nothing (listen)")),
        (NotKnownHereError("no NOR here"), SkipExecution("no NOR here")),
        (MissingToolError("no QEMU", hint="get it"), SkipExecution("no QEMU (get it)")),
        (ToolBrokenError("2 is 3"), FatalError("the tool is broken: 2 is 3")),
    ],
)
def test_errors_are_told_as_robot_wants_them(error: UnbrickError, told: Exception) -> None:
    class Library:
        @keyword
        def fail(self) -> None:
            raise error

    with pytest.raises(type(told)) as raised:
        Library().fail()
    assert str(raised.value) == str(told)


def test_the_manual_is_complete() -> None:
    """libdoc's: every keyword has a text, every argument a type, and what is named exists."""
    manual = LibraryDocumentation("unbrick.robot")
    names = {each.name for each in manual.keywords}
    assert manual.version
    assert manual.scope == "SUITE"
    assert len(names) > 50
    assert [each.name for each in manual.keywords if not each.doc.strip()] == []
    untyped = [
        f"{e.name}: {a.name}" for e in manual.keywords for a in e.args if a.name and not a.type
    ]
    assert untyped == []
    texts = [manual.doc, *(each.doc for each in [*manual.inits, *manual.keywords])]
    mentioned = {
        name for text in texts for name in re.findall(r"(?<!`)`([A-Z][A-Za-z ]+)`(?!`)", text)
    }
    builtin = {"Log", "Should Contain"}
    assert mentioned - names - builtin == set()


def test_keywords_for_the_uart_have_renodes_names() -> None:
    """And its arguments in its order, as far as they are there: a suite can be taken over."""
    renodes = {
        "Wait For Line On Uart": ["content", "timeout", "treatAsRegex", "includeUnfinishedLine"],
        "Wait For Lines On Uart": ["content", "timeout", "treatAsRegex"],
        "Wait For Prompt On Uart": ["prompt", "timeout", "treatAsRegex"],
        "Wait For Next Line On Uart": ["timeout"],
        "Should Not Be On Uart": ["content", "timeout", "treatAsRegex", "includeUnfinishedLine"],
        "Write Line To Uart": ["content", "waitForEcho"],
        "Write To Uart": ["content"],
        "Test If Uart Is Idle": ["timeout"],
        "Set Default Uart Timeout": ["timeout"],
    }
    manual = LibraryDocumentation("unbrick.robot")
    ours = {each.name: [a.name for a in each.args] for each in manual.keywords}
    assert {name: ours.get(name) for name in renodes} == renodes


def test_the_librarys_listener_is_itself() -> None:
    library = UnbrickLibrary()
    assert library.ROBOT_LIBRARY_LISTENER is library
    library.close()
    library.close()


class Said:
    """A UART that says ``pieces`` one after the other, a second apart."""

    def __init__(self, *pieces: bytes) -> None:
        self.now = 0.0
        self._pieces = list(pieces)
        self.uart = Uart(self._run, lambda: self.now)

    def _run(self, condition: Any, timeout: float) -> bool:
        end = self.now + timeout
        while not condition():
            if self.now + 1 > end or not self._pieces:
                return False
            self.now += 1
            self.uart.hear(self._pieces.pop(0))
        return True


def test_a_line_comes_in_pieces() -> None:
    said = Said(b"termi", b"nal: r\xc3", b"\xbcns\r", b"\n> ")
    line = said.uart.wait(compile_pattern("terminal", regex=False), 9)
    assert line == ("terminal: r\N{LATIN SMALL LETTER U WITH DIAERESIS}ns", 1, ())
    assert said.uart.text[said.uart.cursor :] == "> "


def test_a_message_above_the_prompt_is_a_line_of_its_own() -> None:
    said = Said(b"> pb \rlink: registered   \r\n> pb ")
    line = said.uart.wait(compile_pattern("^link: registered$|^link: registered +$", regex=True), 9)
    assert line.Line == "link: registered"


def test_half_a_line_is_found_only_when_it_is_asked_for() -> None:
    said = Said(b"one\r\n> ")
    with pytest.raises(ExpectError, match=r"did not say '> '.*\n.*one"):
        said.uart.wait(compile_pattern("> ", regex=False), 3)
    assert said.uart.wait(compile_pattern("^> $", regex=True), 3, unfinished=True).Line == ">"
    assert said.uart.find(compile_pattern("", regex=False), unfinished=True) is not None


def test_nothing_is_seen_twice_and_events_are_in_the_log() -> None:
    said = Said(b"a 1\r\n", b"a 2\r\nb", b"\r\n")
    for number in ("1", "2"):
        line = said.uart.wait(compile_pattern(r"a (\d)", regex=True), 9)
        assert line.Groups == (number,)
    said.uart.note("power cut")
    with pytest.raises(ExpectError):
        said.uart.wait(compile_pattern("a", regex=False), 9)
    log = [line.split("] ")[1] for line in said.uart.log().splitlines()]
    assert log == ["a 1", "a 2", "b", "*** power cut ***"]


def test_a_pattern_that_is_none_is_refused() -> None:
    with pytest.raises(ExpectError, match="is not a regular expression"):
        compile_pattern("(", regex=True)
    assert compile_pattern("(", regex=False).search("a(b")


def test_the_picture_shows_what_has_changed() -> None:
    before = bytearray(b"\xff" * LAYOUT.board.nor.modelled)
    before[0 : 2 * 2048] = b"\0" * 4096
    now = bytearray(before)
    now[0:2048] = b"\xff" * 2048
    now[BLOCK : BLOCK + 5] = b"12345"
    ops = [FlashOp(0, "erase", 0, BLOCK, 3, 0.0, 1.0), FlashOp(1, "buffer", BLOCK, 4, 3, 1.0, 2.0)]
    picture = draw_nor_picture(bytes(now), bytes(before), ops)
    tree = ET.fromstring(picture)  # noqa: S314 - it is ours
    name = "{http://www.w3.org/2000/svg}"
    titles = [e.text for e in tree.iter(f"{name}title")]
    assert titles[1:] == [
        "erased since: 0x0 to 0x7ff of the block",
        "as before: 0x800 to 0xfff of the block",
        "written since: 0x0 to 0x7ff of the block",
    ]
    texts = [e.text or "" for e in tree.iter(f"{name}text")]
    assert set(COLOURS) < set(texts)
    assert {"erased 1\N{MULTIPLICATION SIGN}", "programmed 1\N{MULTIPLICATION SIGN}"} < set(texts)
    assert not [text for text in texts if text.startswith("spare")]


def test_logs_are_escaped_and_cut() -> None:
    shown = make_attachment("a <title>", "\n".join(f"<{n}>" for n in range(100)), "logs/a'b.log")
    assert "&lt;99&gt;" in shown
    assert "&lt;3&gt;" not in shown
    assert "<99>" not in shown
    assert "a'b" not in shown
    assert "all 100 lines" in shown


@pytest.mark.parametrize("how", [how for how in Spoiled if how is not Spoiled.older_than_it_says])
def test_a_spoiled_image_is_spoiled(unbrick_releases: Releases, how: Spoiled) -> None:
    key = load_public_key(unbrick_releases.key)
    image = spoil(unbrick_releases, "1.1.0", how)
    if how is Spoiled.not_at_all:
        assert verify(image, key) == inspect(unbrick_releases.signed["1.1.0"])
        return
    with pytest.raises(ImageError):
        verify(image, key)
