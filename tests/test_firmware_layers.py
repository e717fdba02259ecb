"""Includes of the firmware go one way, and go in no circle (docs/firmware.md)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FIRMWARE = ROOT / "firmware"
ENGINES = ROOT / "harness" / "unbrick" / "engine"

GENERATED = {"board_map.h", "trusted_key.h"}
"""What the build makes; these include nothing of ours."""


def read_rules() -> dict[str, set[str]]:
    """What the code of each folder may include besides its own, by the table in docs/firmware.md:
    whole folders, such as ``lib/``, and single headers, such as ``agent/agent.h``."""
    rules = {}
    for line in (ROOT / "docs" / "firmware.md").read_text(encoding="utf-8").splitlines():
        if row := re.fullmatch(r"\| `(\w+)/` \| .* \| ([^|]*) \|", line):
            rules[row[1]] = set(re.findall(r"`(\w+/(?:\w+\.h)?)`", row[2]))
    return rules


RULES = read_rules()


def sources(root: Path) -> dict[str, str]:
    """The text of each C file below a folder, by its path from there."""
    return {
        path.relative_to(root).as_posix(): path.read_text(encoding="utf-8")
        for path in sorted(root.rglob("*.[ch]"))
    }


def includes(text: str) -> list[str]:
    """The files of ours that a file includes, as it names them."""
    return re.findall(r'^\s*#\s*include\s+"([^"]+)"', text, re.MULTILINE)


def unresolved(files: Mapping[str, str]) -> Iterator[str]:
    """Includes that do not name a file by its path from the root."""
    for path, text in files.items():
        for used in includes(text):
            if used not in files and used not in GENERATED:
                yield f"{path} includes {used}"


def wrong_way(files: Mapping[str, str], rules: Mapping[str, set[str]]) -> Iterator[str]:
    """Includes between folders that the rules do not allow."""
    for path, text in files.items():
        folder = path.split("/")[0]
        for used in includes(text):
            top = used.split("/")[0]
            if used not in GENERATED and top != folder and not {f"{top}/", used} & rules[folder]:
                yield f"{path} includes {used}"


def find_circle(files: Mapping[str, str]) -> list[str]:
    """A circle of parts whose code calls each other, or of files that include each other.

    A part is a ``.c`` file with its header. Its code calls what the ``.c`` file includes; what its
    header includes are types.
    """
    parts = {
        path.removesuffix(".c"): {used.removesuffix(".h") for used in includes(text)}
        for path, text in files.items()
        if path.endswith(".c")
    }
    parts = {part: used - {part} for part, used in parts.items()}
    return circle_of({path: includes(text) for path, text in files.items()}) or circle_of(parts)


def circle_of(graph: Mapping[str, Iterable[str]]) -> list[str]:
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return [str(node) for node in error.args[1]]
    return []


def programs() -> dict[str, str]:
    """What is linked into the terminal's programs: all but the tests."""
    return {path: text for path, text in sources(FIRMWARE).items() if not path.startswith("tests/")}


def test_every_folder_has_its_rule() -> None:
    assert set(RULES) == {path.split("/")[0] for path in programs()}
    assert RULES["lib"] == set()


@pytest.mark.parametrize(
    "root",
    [FIRMWARE, ENGINES / "c", ENGINES / "inprocess" / "c", ENGINES / "mcu" / "c"],
    ids=["firmware", "engines", "inprocess", "mcu"],
)
def test_a_file_is_included_by_its_path_from_the_root(root: Path) -> None:
    shared = sources(ENGINES / "c") if root.is_relative_to(ENGINES) else {}
    assert list(unresolved(sources(root) | shared)) == []


def test_includes_point_down() -> None:
    assert list(wrong_way(programs(), RULES)) == []


def test_no_includes_go_in_a_circle() -> None:
    assert find_circle(programs()) == []


def test_folders_do_not_depend_on_each_other_in_a_circle() -> None:
    # A single header, such as agent/agent.h, is an interface: whoever includes it calls a table.
    folders = {
        folder: {used.rstrip("/") for used in rule if used.endswith("/")}
        for folder, rule in RULES.items()
    }
    TopologicalSorter(folders).prepare()


@pytest.mark.parametrize(
    ("path", "include", "wrong"),
    [
        ("lib/crc.c", "board/uart.h", True),
        ("board/uart.c", "link/radio.h", True),
        ("boot/main.c", "resident/by_link.h", True),
        ("boot/main.c", "resident/resident.h", False),
        ("app/main.c", "lib/crc.h", False),
        ("app/main.c", "agent/nor.h", True),
        ("app/main.c", "board_map.h", False),
    ],
)
def test_the_rule_tells_right_from_wrong(path: str, include: str, *, wrong: bool) -> None:
    assert bool(list(wrong_way({path: f'#include "{include}"\n'}, RULES))) is wrong


def test_a_circle_of_sources_is_seen() -> None:
    files = {
        "app/one.h": "",
        "app/one.c": '#include "app/one.h"\n\n#include "app/two.h"\n',
        "app/two.h": "",
        "app/two.c": '#include "app/two.h"\n\n#include "app/three.h"\n',
        "app/three.h": "",
        "app/three.c": '#include "app/three.h"\n',
    }
    assert find_circle(files) == []
    files["app/three.c"] += '#include "app/one.h"\n'
    assert set(find_circle(files)) == {"app/one", "app/two", "app/three"}


def test_a_circle_of_headers_is_seen() -> None:
    files = {"lib/one.h": '#include "lib/two.h"\n', "lib/two.h": '#include "lib/one.h"\n'}
    assert set(find_circle(files)) == {"lib/one.h", "lib/two.h"}


def test_a_path_that_is_not_from_the_root_is_seen() -> None:
    files = {"lib/crc.h": "", "lib/crc.c": '#include "crc.h"\n'}
    assert list(unresolved(files)) == ["lib/crc.c includes crc.h"]
