"""The documentation keeps its promises: short sentences, and nothing named that is not there."""

from __future__ import annotations

import ast
import importlib.util
import re
import shlex
from collections.abc import Iterator
from functools import cache
from importlib.metadata import metadata
from itertools import chain, pairwise
from pathlib import Path

import click
import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token
from processes import unbrick
from robot.libdocpkg import LibraryDocumentation
from test_layers import LAYERS

from unbrick.campaign.run import PRESETS
from unbrick.cli.main import cli
from unbrick.engine.gdb.server import MOST_BREAKPOINTS
from unbrick.flash.torn import ERASES, PROGRAMS
from unbrick.layout import reference_layout
from unbrick.reference.scenario import SCENARIOS, Scenario

LAYOUT = reference_layout()
ROOT = Path(__file__).parents[1]
PAGES = sorted(
    page
    for page in chain(
        ROOT.glob("*.md"), (ROOT / "docs").rglob("*.md"), ROOT.glob("firmware/*/*.md")
    )
    if "build" not in page.parts
)
SOURCES = sorted(
    file
    for folder in ("harness", "firmware", "tests", "tools", "renode", "robot_tests")
    for kind in ("*.py", "*.c", "*.h", "*.cs", "*.repl", "*.resc", "*.robot", "*.toml", "*.ld")
    for file in (ROOT / folder).rglob(kind)
    if "build" not in file.relative_to(ROOT).parts
)

LONGEST_SENTENCE_WORDS = 30  # the aim is 25

# What `docs/architecture.md` has a table of.
ADDRESSES = (
    *(LAYOUT.board.nor.base, LAYOUT.board.nor.window, LAYOUT.board.sram.base),
    *(device.base for device in LAYOUT.board.devices if device.name != "sysreg"),
)

# Where a path in backticks may begin, besides the root and the page's own folder.
FOLDERS = ("firmware", "harness/unbrick", "docs", "tests")
PATH = re.compile(r"^(?!/|\.\./|~|https?:)[\w.-]+(?:/[\w.-]+)+/?$")
OURS = re.compile(
    r"^(?:harness|firmware|tests|tools|docs|renode|robot_tests|\.ci|lib|board|link|agent|resident"
    r"|boot|app|engine|campaign|reference|flash|server|center|bench|wire|report)/"
)
MADE = ("build/", "outcomes.sqlite")  # what commands make
PLACEHOLDER = re.compile(r"[<>…{}*]|\.\.\.|[A-Z]{4,}")

_MARKDOWN = MarkdownIt("gfm-like", {"linkify": False})
_SENTENCE_END = re.compile(r"(?<=[.!?])[*_)”\"]*\s+(?=[\W_]*[A-Z0-9`])|\s·\s|:\s*$")
_ABBREVIATION = re.compile(r"\b(e\.g|i\.e|etc|No|vs|Rev)\.$")
_COMMAND = re.compile(r"^(?:\$ )?(?:[A-Z_]+=\S+ )*(?:\.venv/bin/)?(unbrick\b.*)$")
_MAKE = re.compile(r"\bmake ([a-z][\w/-]*)")


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


PLACE = re.compile(r"<[^>]+>|…")  # of what differs from line to line
NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
"""In words; docs/bugs.md and others write larger ones in digits."""


@cache
def tokens(page: Path) -> tuple[Token, ...]:
    return tuple(_MARKDOWN.parse(page.read_text(encoding="utf-8")))


def inlines(page: Path) -> Iterator[Token]:
    """Every paragraph, heading, cell and list item that has text."""
    return (token for token in tokens(page) if token.type == "inline")


def code_spans(page: Path) -> Iterator[str]:
    for inline in inlines(page):
        for child in inline.children or ():
            if child.type == "code_inline":
                yield child.content.strip()


def blocks(page: Path) -> Iterator[str]:
    return (token.content for token in tokens(page) if token.type == "fence")


def plain(inline: Token) -> str:
    """The text as a reader hears it: a code span is one word."""
    words = []
    for child in inline.children or ():
        if child.type == "code_inline":
            words.append("`code`")
        elif child.type == "text":
            words.append(child.content)
        elif child.type in ("softbreak", "hardbreak") or child.content == "<br>":
            words.append(" ")
    return " ".join("".join(words).split())


def sentences(text: str) -> list[str]:
    found: list[str] = []
    for part in _SENTENCE_END.split(text):
        if found and _ABBREVIATION.search(found[-1]):
            found[-1] += " " + part
        else:
            found.append(part)
    return found


def words(sentence: str) -> int:
    return len([word for word in sentence.split() if re.search(r"\w", word)])


# ---- Sentences ----


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_no_sentence_is_longer_than_anybody_can_keep_in_mind(page: Path) -> None:
    long = [
        f"{words(sentence)} words: {sentence}"
        for inline in inlines(page)
        for sentence in sentences(plain(inline))
        if words(sentence) > LONGEST_SENTENCE_WORDS
    ]
    assert not long, "\n".join(long)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("It ends. Then another begins.", 2),
        ("**Why.** Because.", 2),
        ("Version 1.1.0 runs, e.g. Here.", 1),
        ("See `code`. `code` follows.", 2),
        ("0 done · 1 failed", 2),
    ],
)
def test_sentences_are_told_apart(text: str, count: int) -> None:
    assert len(sentences(text)) == count


# ---- What is shown ----


@pytest.mark.slow
def test_the_readme_shows_what_a_campaign_says(firmware: Path) -> None:
    page = (ROOT / "README.md").read_text(encoding="utf-8")
    shown = page.split("$ unbrick campaign phonebook --preset full\n")[1].split("```")[0]
    done = unbrick("campaign", "phonebook", "--preset", "full", "--firmware", firmware)
    assert done.returncode == 0, done.stderr

    def without_times(text: str) -> list[str]:
        lines = [line.rstrip() for line in text.strip().splitlines()]
        return [line for line in lines if " sessions in " not in line]

    assert without_times(done.stdout) == without_times(shown)


def test_the_steps_that_are_shown_of_the_hil_test_are_its_steps() -> None:
    page = (ROOT / "docs" / "tutorials" / "reference-system.md").read_text(encoding="utf-8")
    table = page.split("```text\nUnbrick HIL test, engine inprocess\n")[1].split("\n```")[0]
    head, *lines = table.splitlines()
    step, result = head.index("step"), head.index("result")
    shown: list[str] = []
    for line in lines:
        cell = line[step:result].strip()
        if line[:step].strip():
            shown.append(cell)
        else:
            shown[-1] = f"{shown[-1]} {cell}".strip()
    hil = (ROOT / "harness" / "unbrick" / "reference" / "hil.py").read_text(encoding="utf-8")
    assert shown == re.findall(r'^            \("(.+?)", self\._\w+\),$', hil, re.MULTILINE)
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert f"plays the whole system once in {len(shown)} steps" in readme


def test_the_architecture_has_the_addresses_of_the_board() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    addresses = {f"`0x{value >> 16:04X}_{value & 0xFFFF:04X}`" for value in ADDRESSES}
    assert addresses == set(re.findall(r"`0x[0-9A-F]{4}_[0-9A-F]{4}`", page))
    listed = re.findall(r"^\| ([a-z ]+) \| `(0x\w{6})`, (\d+) KiB", page, re.MULTILINE)
    assert [
        (found.replace(" ", ""), int(offset, 16), int(size)) for found, offset, size in listed
    ] == [(part.name, part.offset, part.size // 1024) for part in LAYOUT.partitions]


def test_the_architecture_lists_every_part_of_the_package() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    tree = page.split("harness/unbrick/\n")[1].split("renode/")[0]
    listed = {
        part
        for line in re.findall(r"^  (\w+(?:, \w+)*)", tree, re.MULTILINE)
        for part in line.split(", ")
    }
    package = ROOT / "harness" / "unbrick"
    parts = {path.stem for path in package.glob("[a-z]*.py")}
    parts |= {path.parent.name for path in package.glob("*/__init__.py")}
    assert listed == parts


def test_the_layers_that_the_architecture_draws_are_those_of_the_test() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    drawing = page.split("flowchart TD\n")[1].split("```")[0]
    names = re.findall(r"(\w+)(?:\[([^\]]*)\])?(?: -->|$)", drawing, re.MULTILINE)
    drawn: dict[str, set[str]] = {}
    for short, long in names:
        drawn.setdefault(short, set((long or short).split(", ")))
    assert list(drawn.values()) == [set(layer) for layer in LAYERS]


def test_the_campaigns_page_has_its_figures() -> None:
    page = (ROOT / "docs" / "campaign.md").read_text(encoding="utf-8")
    assert f"{NUMBERS[len(PROGRAMS)]} of a program and {NUMBERS[len(ERASES)]} of an erase" in page
    quick = PRESETS["quick"]
    assert quick.depth == 1
    assert f"at most {quick.states} states of a scenario, {quick.deaths} deaths" in page
    assert f"up to {MOST_BREAKPOINTS} breakpoints" in page
    numbers = page.split("<!-- numbers: begin")[1]
    searched = re.findall(r"^\| (\w+) \| [\d,]+ \|", numbers, re.MULTILINE)
    assert searched
    assert set(searched) <= set(SCENARIOS)
    assert set(re.findall(r"`([a-z]+)`", numbers)) - {"quick", "unbrick"} <= set(SCENARIOS)


def test_the_page_that_compares_has_our_figures() -> None:
    page = " ".join((ROOT / "docs" / "comparison.md").read_text(encoding="utf-8").split())
    assert f"{len(PROGRAMS)} shapes of a program, {len(ERASES)} of an erase" in page
    mcuboot = (ROOT / "docs" / "mcuboot.md").read_text(encoding="utf-8")
    cuts, seconds = re.findall(
        r"([\d,]+) cuts, torn, in ([\d.]+) s of one core", " ".join(mcuboot.split())
    )[0]
    assert f"{float(seconds):.0f} s for the {cuts} cuts of `pr2100`" in page


def test_the_page_of_seeded_bugs_has_them_all_in_the_words_of_their_patches() -> None:
    page = (ROOT / "docs" / "bugs.md").read_text(encoding="utf-8")
    row = re.compile(r"^\| ([a-z-]+) \| ([A-Z].+?\.) \|", re.MULTILINE)
    known = page.partition("## Bugs seeded blind")[0]
    firmware, server = (row.findall(part) for part in known.split("## In the server"))
    subjects = {
        patch.stem: re.findall(r"^Subject: (.+)$", patch.read_text(encoding="utf-8"), re.MULTILINE)
        for patch in (ROOT / "tests" / "seeded_bugs").glob("*.patch")
    }
    assert {name: [about] for name, about in firmware} == subjects
    in_words = NUMBERS[len(server)] if len(server) < len(NUMBERS) else len(server)
    counts = f"{len(firmware)} in the firmware and {in_words} in the server"
    assert counts in " ".join(page.split())


def test_the_page_of_robot_suites_lists_them_all() -> None:
    page = (ROOT / "docs" / "robot.md").read_text(encoding="utf-8")
    table = page.split("| suite | tells |")[1].split("\n\n")[0]
    listed = re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)
    suites = [file.stem for file in (ROOT / "robot_tests").glob("[a-z]*.robot")]
    assert sorted(listed) == sorted(suites)


# Of Renode 1.16.1, by subject, as its XML-RPC server names them.
RENODE_KEYWORDS = """
ClearTerminalTesterReport CreateTerminalTester GetTerminalTesterReport RegisterFailingUartString
SendKeyToUart SetDefaultTester SetDefaultUartTimeout ShouldNotBeOnUart TestIfUartIsIdle
UnregisterFailingUartString WaitForBytesOnUart WaitForLineOnUart WaitForLinesOnUart
WaitForNextLineOnUart WaitForPromptOnUart WriteCharDelay WriteCharOnUart WriteLineToUart WriteToUart
AllocateTemporaryFile CloseGUI DownloadFile ExecuteCommand ExecutePython ExecuteScript HandleHotSpot
OpenGUI Provides Requires ResetEmulation StartEmulation StopRemoteServer WaitForPause
ClearCachedLog ClearLogTesterHistory CreateLogTester EnableLoggingToCache LogToFile
RegisterFailingLogString SaveCachedLog ShouldNotBeInLog UnregisterFailingLogString WaitForLogEntry
PcShouldBeEqual RegisterShouldBeEqual RunUntilBreakpoint WaitForGdbConnection
AssertAndHoldLedState AssertLedDutyCycle AssertLedIsBlinking AssertLedState CreateLedTester
SetDefaultLedTimeout
CreateNetworkInterfaceTester SendFrame WaitForOutgoingPacket WaitForOutgoingPacketWithBytesAtIndex
"""


def test_the_page_of_robot_lists_every_keyword_of_renode_and_names_only_ours() -> None:
    page = (ROOT / "docs" / "robot.md").read_text(encoding="utf-8")
    table = page.split("| Renode 1.16.1 | here |\n| -- | -- |\n")[1].split("\n\n")[0]
    ours = {keyword.name for keyword in LibraryDocumentation("unbrick.robot").keywords}
    listed: list[str] = []
    for row in table.splitlines():
        _, theirs, here, _ = re.split(r" *\| *", row)
        names = re.findall(r"`([^`]+)`", theirs)
        listed += names
        named = names if here.startswith("the same") else re.findall(r"`([A-Z][^`]+)`", here)
        assert set(named) <= ours, row
    plain = sorted(name.replace(" ", "").lower() for name in listed)
    assert plain == sorted(name.lower() for name in RENODE_KEYWORDS.split())


def test_the_page_of_renode_lists_every_command_of_the_nor() -> None:
    """What a person can use of the peripheral: no access by the CPU, no call of the chips."""
    source = (ROOT / "renode" / "peripherals" / "NorFlash.cs").read_text(encoding="utf-8")
    chips = (ROOT / "renode" / "peripherals" / "NorChip.cs").read_text(encoding="utf-8")
    of_chips = re.findall(r"(\w+)\(.*\);", chips.split("interface INorPair")[1].split("    }")[0])
    peripheral = re.sub(r"\[ConnectionRegion.*\]\n.*", "", source.split("class NorFlash :")[1])
    found = re.findall(
        r"^        public (?!const|NorFlash)[\w<>\[,\]]+ (\w+)", peripheral, re.MULTILINE
    )
    # Of types that the monitor cannot say.
    unsaid = {"Operations", "FaultList", "SetCells", "Wear", "Carry"}
    commands = set(found) - unsaid - set(of_chips)
    page = (ROOT / "docs" / "renode.md").read_text(encoding="utf-8")
    table = page.split("| command | does |")[1].split("\n\n")[0]
    assert set(re.findall(r"`nor (\w+)", table)) == commands
    assert set(re.findall(r"`nor (\w+)", page)) <= commands


def test_the_page_of_licences_names_every_package_that_pip_installs() -> None:
    page = (ROOT / "docs" / "licences.md").read_text(encoding="utf-8")
    table = page.split("| what | licence | for |")[1].split("\n\n")[0]
    named = re.sub(r"[^a-z0-9,|]", "", table.lower())
    project = metadata("unbrick")
    needed = {re.split(r"[^\w.-]", one)[0] for one in project.get_all("Requires-Dist") or ()}
    assert len(needed) > 30
    gone = [
        package
        for package in sorted(needed - {"unbrick"})
        if re.sub(r"[^a-z0-9]", "", package.lower()).removesuffix("2") not in named
    ]
    assert gone == []


def firmware_texts() -> set[str]:
    """All string literals of the firmware's sources, as they are printed."""
    sources = [
        file
        for folder in ("agent", "app", "board", "boot", "lib", "link", "resident")
        for file in (ROOT / "firmware" / folder).glob("*.[ch]")
    ]
    literal = r'"((?:[^"\\\n]|\\.)*)"'
    return {
        "".join(re.findall(literal, match.group())).replace("\\n", "")
        for file in sources
        for match in re.finditer(rf"(?:{literal}\s*)+", file.read_text(encoding="utf-8"))
    }


def can_say(line: str, texts: set[str]) -> bool:
    """Whether a text makes the line: what it has for a ``%s`` is a text as well, or a number."""
    for text in texts:
        match = re.fullmatch(re.sub(r"%[\d.]*[a-z]", "(.*)", re.escape(text)), line)
        filled = match.groups() if match else ["no"]
        if all(re.fullmatch(r"[\d.+]*|0x\w+", part) or part in texts for part in filled):
            return True
    return False


def test_the_firmware_says_the_lines_that_its_page_has() -> None:
    said = {text.replace("\\r", "").replace("%%", "%") for text in firmware_texts()}
    sources = r"boot|call|link|message|phonebook|resident|restoration|update"
    page = (ROOT / "docs" / "firmware.md").read_text(encoding="utf-8")
    lines = re.findall(rf"`((?:{sources}): [^`]+)`", page)
    assert len(lines) > 30
    assert [line for line in lines if not can_say(PLACE.sub("7", line), said)] == []
    # The agent has no format strings: it says its lines in pieces.
    pieces = {piece for line in re.findall(r"`(agent: .+?)`", page) for piece in PLACE.split(line)}
    assert pieces <= said | {""}


def messages(folder: Path) -> set[str]:
    """All string literals of a folder's Python, with ``…`` for what is formatted into them."""
    return {
        "".join(
            str(part.value) if isinstance(part, ast.Constant) else "…"
            for part in (node.values if isinstance(node, ast.JoinedStr) else (node,))
        )
        for file in folder.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, (ast.JoinedStr, ast.Constant))
    }


def test_the_troubles_that_the_page_of_restoration_solves_are_said() -> None:
    page = (ROOT / "docs" / "restoration.md").read_text(encoding="utf-8")
    table = page.split("| it says | do this |\n| -- | -- |\n")[1].split("\n\n")[0]
    troubles = [line.split(" | ")[0].removeprefix("| ") for line in table.splitlines()]
    assert len(troubles) > 8
    package = ROOT / "harness" / "unbrick"
    said = messages(package / "restore") | messages(package / "engine") | firmware_texts()
    for trouble in troubles:
        for part in re.split(r"\s?…,?\s?|\s/\s|: (?=signature|the new)|refused, ", trouble):
            assert any(part in text for text in said), f"nobody says {part!r} of {trouble!r}"


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "docs/campaign.md"])
def test_a_scenario_that_is_shown_as_an_example_is_one(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    examples = re.findall(r"^```python\n(Scenario\(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert examples
    for example in examples:
        assert isinstance(eval(example, {"Scenario": Scenario}), Scenario)  # noqa: S307


# ---- Links ----


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    found: dict[str, int] = {}
    parsed = tokens(page)
    for opening, inline in pairwise(parsed):
        if opening.type == "heading_open":
            text = "".join(child.content for child in inline.children or ())
            slug = re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
            count = found.setdefault(slug, 0)
            found[slug] += 1
            if count:
                found[f"{slug}-{count}"] = 1
    return set(found)


def links(page: Path) -> Iterator[str]:
    for inline in inlines(page):
        for child in inline.children or ():
            target = child.attrs.get("href") or child.attrs.get("src")
            if target is not None:
                yield str(target)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_link_within_the_repository_leads_somewhere(page: Path) -> None:
    lost = []
    for link in links(page):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            lost.append(link)
    assert not lost


def test_every_page_is_reached_from_the_readme() -> None:
    reached, ahead = set(), [ROOT / "README.md"]
    while ahead:
        page = ahead.pop()
        if page in reached or page.suffix != ".md":
            continue
        reached.add(page)
        for link in links(page):
            target = (page.parent / link.partition("#")[0]).resolve()
            ahead += [target] if ":" not in link and target.is_file() else []
    assert set((ROOT / "docs").rglob("*.md")) <= reached


# ---- Names ----


def exists(path: str, page: Path) -> bool:
    roots = [ROOT, page.parent, *(ROOT / folder for folder in FOLDERS)]
    return any((root / path).exists() for root in roots)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_path_that_is_named_is_there(page: Path) -> None:
    gone = [
        span
        for span in code_spans(page)
        if PATH.match(span)
        and OURS.match(span)
        and not span.startswith(MADE)
        and not PLACEHOLDER.search(span)
        and not exists(span, page)
    ]
    assert not gone


def test_every_page_that_the_sources_name_is_there() -> None:
    gone = [
        f"{name(file)}: {path}"
        for file in SOURCES
        for path in re.findall(r"\bdocs/[\w/-]+\.md", file.read_text(encoding="utf-8"))
        if not (ROOT / path).exists()
    ]
    assert not gone


def resolves(dotted: str) -> bool:
    """Whether a dotted name of the package is a module, or something in one."""
    parts = dotted.split(".")
    for count in range(len(parts), 0, -1):
        try:
            spec = importlib.util.find_spec(".".join(parts[:count]))
        except ModuleNotFoundError:
            continue
        if spec is None:
            continue
        found = importlib.import_module(".".join(parts[:count]))
        for part in parts[count:]:
            if not hasattr(found, part):
                return part in getattr(found, "__annotations__", {})
            found = getattr(found, part)
        return True
    return False


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_name_of_the_package_resolves(page: Path) -> None:
    gone = [
        span
        for span in code_spans(page)
        if re.fullmatch(r"unbrick(\.\w+)+", span)
        and not span.endswith((".toml", ".db"))
        and not resolves(span)
    ]
    assert not gone


# ---- Commands ----


def command_lines(page: Path) -> Iterator[str]:
    """Calls of ``unbrick``, from blocks and from code spans, without comments."""
    for block in blocks(page):
        for line in block.replace("\\\n", " ").splitlines():
            if line.startswith(("$ ", "unbrick ")):
                yield line.strip()
    yield from code_spans(page)


def calls(line: str) -> Iterator[list[str]]:
    """The words of each call of ``unbrick`` in a line of a shell."""
    for part in re.split(r"\s[|&;]+\s?|\s#\s", line.removeprefix("$ ")):
        match = _COMMAND.match(part.strip())
        if match:
            try:
                yield shlex.split(match.group(1))
            except ValueError:
                yield match.group(1).split()


def complaint(call: list[str]) -> str | None:
    """What is wrong with a call, as far as names of commands and options go."""
    command: click.Command = cli
    context = click.Context(cli, info_name="unbrick", **cli.context_settings)
    for word in call[1:]:
        if word in {">", "…", "..."}:
            break
        if word.startswith("-") and len(word) > 1:
            option = word.split("=")[0]
            known = {
                text
                for parameter in command.get_params(context)
                for text in (*parameter.opts, *parameter.secondary_opts)
            }
            if option not in known:
                return f"{' '.join(call)}: {command.name} has no option {option}"
        elif isinstance(command, click.Group) and not PLACEHOLDER.search(word):
            inner = command.get_command(context, word.rstrip(","))
            if inner is None:
                return f"{' '.join(call)}: there is no command {word}"
            command, context = inner, click.Context(inner, context, info_name=inner.name)
    return None


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_command_line_names_a_command_and_options_that_exist(page: Path) -> None:
    complaints = [complaint(call) for line in command_lines(page) for call in calls(line)]
    assert not list(filter(None, complaints))


@pytest.mark.parametrize(
    ("line", "bad"),
    [
        ("$ unbrick run --engine qemu", False),
        ("$ UNBRICK_X=1 unbrick console --gdb 1 | cat", False),
        ("$ unbrick run --no-such-option", True),
        ("$ unbrick no-such-command", True),
        ("$ unbrick update no-such-command", True),
        ("$ true && unbrick update start --no-such", True),
    ],
)
def test_a_command_line_that_is_wrong_is_found(line: str, bad: bool) -> None:
    assert any(complaint(call) for call in calls(line)) == bad


def targets() -> set[str]:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    return set(re.findall(r"^([a-z][\w/-]*):", makefile, re.MULTILINE))


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_target_of_make_exists(page: Path) -> None:
    asked = {
        target
        for text in chain(blocks(page), code_spans(page))
        for line in text.splitlines()
        if line.removeprefix("$ ").startswith("make ")
        for target in _MAKE.findall(line.partition("#")[0])
    }
    assert asked <= targets()


# ---- Decision records ----

RECORDS = sorted((ROOT / "docs" / "adr").glob("[0-9]*.md"))
_HEAD = re.compile(r"# (\d{4}): (.+)\n\n- Date: (\d{4}-\d\d-\d\d)\n- Status: ((?:.+\n)+)\n")
_RELATION = re.compile(r"(amends|amended by|supersedes|superseded by)\s\[(\d{4})\]")
_OPPOSITE = {
    "amends": "amended by",
    "amended by": "amends",
    "supersedes": "superseded by",
    "superseded by": "supersedes",
}


def head(record: Path) -> tuple[str, str, str, str]:
    """Number, title, date and status of a decision record."""
    match = _HEAD.match(record.read_text(encoding="utf-8"))
    assert match, f"{name(record)} does not begin with title, date and status"
    number, title, date, status = match.groups()
    return number, title, date, " ".join(status.split())


@pytest.mark.parametrize("record", RECORDS, ids=name)
def test_a_decision_has_a_date_and_a_status(record: Path) -> None:
    number, _, _, status = head(record)
    assert record.name.startswith(f"{number}-")
    assert re.match(r"(proposed|accepted|superseded by)\b", status)


def test_decisions_that_change_each_other_name_each_other() -> None:
    named = {
        (number, relation, other)
        for number, _, _, status in map(head, RECORDS)
        for relation, other in _RELATION.findall(status)
    }
    assert named
    for number, relation, other in named:
        assert (other, _OPPOSITE[relation], number) in named, f"{number} is {relation} {other}"


def test_the_list_of_decisions_is_that_of_the_pages() -> None:
    page = (ROOT / "docs" / "adr" / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| \[(\d+)\]\((.+?)\) \| (.+?) \| (.+?) \|$", page, re.MULTILINE)
    listed = [(number, file, title) for number, file, title, _ in rows]
    assert listed == [(*head(record)[:1], record.name, head(record)[1]) for record in RECORDS]
    for record, (*_, status) in zip(RECORDS, rows, strict=True):
        assert _RELATION.findall(status) == _RELATION.findall(head(record)[3])
