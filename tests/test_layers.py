"""Imports point one way: what is below knows nothing of what is above (docs/architecture.md)."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import unbrick

ROOT = Path(unbrick.__file__).parent

# From top to bottom; a part may use its own and every layer below.
LAYERS = (
    {"cli", "pytest_plugin", "robot"},
    {"draft", "started"},
    {"reference", "target"},
    {"report"},
    {"campaign"},
    {"bench", "console", "center"},
    {"engine", "server", "restore", "link", "firmware"},
    {"wire", "image", "delta"},
    {"layout", "packages"},
    {"board"},
    {"flash", "folders", "extras"},
    {"library", "lock", "screen", "tables"},
    {"compile", "errors", "patience"},
)

# Within a layer, only these.
SIDEWAYS = {
    ("link", "engine"),
    ("link", "server"),
    ("restore", "engine"),
    ("restore", "firmware"),
}

# What does input or output, or asks the clock.
IO = {"asyncio", "os", "select", "serial", "socket", "sqlalchemy", "threading", "time"}

# What a part must never use, whatever the layers say. One name stands for all below it.
NEVERS = {
    "flash": {
        *("board", "layout", "engine", "image", "wire", "server"),
        *("campaign", "reference", "bench"),
    },
    "board": {
        *("layout", "folders", "engine", "image", "wire", "server"),
        *("campaign", "reference", "bench"),
    },
    "engine": {"layout", "image", "wire", "server", "reference", "target", "campaign"},
    "bench": {"layout", "server", "link", "restore"},
    "report": {"layout"},
    "campaign": {
        *("layout", "server", "wire", "image", "delta", "link", "restore", "center", "firmware"),
        *("reference", "target", "bench", "console"),
    },
    "target": {
        *("layout", "server", "image", "delta", "link", "restore", "center", "firmware"),
        *("reference", "bench", "console"),
    },
    "draft": {"layout", "server", "delta", "link", "restore", "center", "firmware", "reference"},
    "center": {"server.core"},
    "wire": IO,
    "server.core": {"server.database", "server.edge", *IO},
    "server.database": {"server.core", "server.edge", "server.judgment"},
    "server.judgment": {"server.core", "server.database", "server.edge", *IO},
    "server.records": {"server.core", "server.database", "server.edge", "server.judgment", *IO},
}

LEVEL = {part: level for level, parts in enumerate(LAYERS) for part in parts}


def imports(tree: ast.AST) -> Iterator[str]:
    """Names of modules that the code imports, wherever it does."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            module = node.module or ""
            yield from (f"{module}.{alias.name}" for alias in node.names)


def wrong_way(part: str, tree: ast.AST) -> list[str]:
    """What the part ``part`` imports although it may not."""
    wrong = []
    for name in imports(tree):
        top, _, rest = name.partition(".")
        used = rest.partition(".")[0]
        if top != "unbrick" or used in {part, "__version__", ""} or (part, used) in SIDEWAYS:
            continue
        if LEVEL[part] >= LEVEL[used]:
            wrong.append(f"{part} uses {name}")
    return wrong


def nevers(module: str, tree: ast.AST) -> list[str]:
    """What a module, such as ``server.core.plan``, imports although it never may."""
    banned = {
        used if used in IO else f"unbrick.{used}"
        for part, never in NEVERS.items()
        if f"{module}.".startswith(f"{part}.")
        for used in never
    }
    return [
        f"{module} uses {name}"
        for name in imports(tree)
        if any(f"{name}.".startswith(f"{used}.") for used in banned)
    ]


def parts() -> list[Path]:
    return sorted(ROOT.rglob("*.py"))


@pytest.mark.parametrize("file", parts(), ids=lambda file: file.relative_to(ROOT).as_posix())
def test_imports_point_down(file: Path) -> None:
    part = file.relative_to(ROOT).parts[0].removesuffix(".py")
    if part == "__init__":
        return
    assert part in LEVEL, f"{part} has no place in LAYERS and docs/architecture.md"
    tree = ast.parse(file.read_text(encoding="utf-8"))
    assert wrong_way(part, tree) == []
    module = ".".join(file.relative_to(ROOT).with_suffix("").parts)
    assert nevers(module, tree) == []


@pytest.mark.parametrize(
    ("module", "code", "wrong"),
    [
        ("campaign.search", "from unbrick.server.records.updates import Update", True),
        ("campaign.search", "from unbrick.reference.story import Story", True),
        ("campaign.search", "from unbrick.target.target import FileTarget", True),
        ("target.session", "from unbrick.reference.story import Story", True),
        ("campaign.search", "from unbrick.flash.cells import Cells", False),
        ("server.core.plan", "import unbrick.server.edge.http", True),
        ("server.core.plan", "import asyncio", True),
        ("server.core.plan", "from sqlalchemy.orm import Mapper", True),
        ("wire.coap", "def f():\n    from time import monotonic", True),
        ("center.desk", "from unbrick.server.core.orders import check_order", True),
        ("center.desk", "from unbrick.server.records.updates import Update", False),
        ("center.desk", "import asyncio", False),
        ("server.edge.http", "from unbrick.server.core.core import ServerCore", False),
    ],
)
def test_a_never_is_seen(module: str, code: str, *, wrong: bool) -> None:
    assert bool(nevers(module, ast.parse(code))) is wrong


@pytest.mark.parametrize(
    ("part", "code", "wrong"),
    [
        ("wire", "from unbrick.server.core.core import ServerCore", True),
        ("engine", "import unbrick.bench.bench", True),
        ("engine", "from unbrick.link import simulated", True),
        ("engine", "from unbrick import bench", True),
        ("board", "def f():\n    from unbrick.wire import coap", True),
        ("link", "from unbrick.server.core.core import ServerCore", False),
        ("bench", "from unbrick.errors import LinkError\nimport os", False),
    ],
)
def test_the_rule_tells_right_from_wrong(part: str, code: str, *, wrong: bool) -> None:
    assert bool(wrong_way(part, ast.parse(code))) is wrong


def test_every_never_is_about_a_part_that_exists() -> None:
    known = {".".join(file.relative_to(ROOT).with_suffix("").parts) for file in parts()}
    known |= {module.removesuffix(".__init__") for module in known}
    assert set(NEVERS) <= known
    assert {used for never in NEVERS.values() for used in never - IO} <= known


HANDED_IN = {"load_board", "reference_layout", "find_places"}
"""What gives a board, or a layout, to somebody who was not given one."""


def kept_by_modules(tree: ast.Module) -> list[str]:
    """What a module takes from a board or a layout when it is imported, for all its functions."""
    kept: list[str] = []

    def look(node: ast.AST) -> None:
        if isinstance(node, ast.Lambda):
            return
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            for part in (*node.decorator_list, *node.args.defaults, *node.args.kw_defaults):
                if part is not None:
                    look(part)
            return
        if isinstance(node, ast.Name) and node.id in {"BOARD", "MAP", "LAYOUT"}:
            kept.append(node.id)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            kept.extend({node.func.id} & HANDED_IN)
        for child in ast.iter_child_nodes(node):
            look(child)

    look(tree)
    return kept


@pytest.mark.parametrize("file", parts(), ids=lambda file: file.relative_to(ROOT).as_posix())
def test_no_module_keeps_a_board_or_a_layout(file: Path) -> None:
    assert kept_by_modules(ast.parse(file.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    ("code", "kept"),
    [
        ("BOARD = Board()", True),
        ("SIZE = load_board('vexpress-a9').nor.size", True),
        ("def f(size=reference_layout().board.nor.size): ...", True),
        ("class A:\n    block = find_places().block", True),
        ("def f():\n    return reference_layout()", False),
        (
            "@click.option(default=FromLayout(lambda layout: layout.hardware_id))\ndef f(): ...",
            False,
        ),
    ],
)
def test_what_a_module_keeps_is_seen(code: str, *, kept: bool) -> None:
    assert bool(kept_by_modules(ast.parse(code))) is kept


def test_no_two_public_classes_have_one_name() -> None:
    found: dict[str, list[str]] = {}
    for file in parts():
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                found.setdefault(node.name, []).append(file.relative_to(ROOT).as_posix())
    assert {name: files for name, files in found.items() if len(files) > 1} == {}
