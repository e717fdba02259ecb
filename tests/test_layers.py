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
    {
        *("cli", "cli_run", "cli_console", "cli_image", "cli_server", "cli_campaign"),
        *("cli_restore", "cli_config", "cli_center", "cli_subscriber", "cli_up"),
        *("pytest_plugin", "robot"),
    },
    {"cli_options"},
    {"reference"},
    {"report"},
    {"campaign"},
    {"bench", "console", "center"},
    {"engine", "server", "restore", "link"},
    {"wire", "image", "delta"},
    {"board"},
    {"flash", "lock"},
    {"errors"},
)

# Within a layer, only these.
SIDEWAYS = {
    ("cli", "cli_config"),
    ("cli", "cli_run"),
    ("cli", "cli_console"),
    ("cli_console", "cli_run"),
    ("cli_up", "cli_run"),
    ("cli_up", "cli_server"),
    ("cli_up", "cli_center"),
    ("cli", "cli_image"),
    ("cli", "cli_restore"),
    ("cli", "cli_server"),
    ("cli", "cli_campaign"),
    ("cli", "cli_center"),
    ("link", "engine"),
    ("link", "server"),
    ("restore", "engine"),
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


def parts() -> list[Path]:
    return sorted(ROOT.rglob("*.py"))


@pytest.mark.parametrize("file", parts(), ids=lambda file: file.relative_to(ROOT).as_posix())
def test_imports_point_down(file: Path) -> None:
    part = file.relative_to(ROOT).parts[0].removesuffix(".py")
    if part == "__init__":
        return
    assert part in LEVEL, f"{part} has no place in LAYERS and docs/architecture.md"
    assert wrong_way(part, ast.parse(file.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    ("part", "code", "wrong"),
    [
        ("wire", "from unbrick.server.core import ServerCore", True),
        ("engine", "import unbrick.bench.bench", True),
        ("engine", "from unbrick.link import simulated", True),
        ("engine", "from unbrick import bench", True),
        ("board", "def f():\n    from unbrick.wire import coap", True),
        ("link", "from unbrick.server.core import ServerCore", False),
        ("bench", "from unbrick.errors import LinkError\nimport os", False),
    ],
)
def test_the_rule_tells_right_from_wrong(part: str, code: str, *, wrong: bool) -> None:
    assert bool(wrong_way(part, ast.parse(code))) is wrong


def test_the_wire_and_the_servers_core_do_no_input_or_output() -> None:
    forbidden = {"asyncio", "os", "select", "serial", "socket", "sqlalchemy", "threading", "time"}
    core = ("core", "calls", "commanded", "errands", "files", "keeper", "orders", "plan")
    core += ("restoring", "sessions", "staged")
    files = [*(ROOT / "wire").glob("*.py"), *(ROOT / "server" / f"{name}.py" for name in core)]
    assert len(files) > 3
    for file in files:
        used = {n.partition(".")[0] for n in imports(ast.parse(file.read_text(encoding="utf-8")))}
        assert not used & forbidden, file.name
