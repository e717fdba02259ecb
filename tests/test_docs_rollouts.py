"""What docs/rollouts.md shows is what comes: its commands are typed, one after the other."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from server_world import make_image, open_http
from test_server_rollouts import World, call

from unbrick.cli.main import cli
from unbrick.server.edge.access import add_token
from unbrick.server.edge.client import ServerClient
from unbrick.server.records.access import AccessRole

PAGE = Path(__file__).parents[1] / "docs" / "rollouts.md"
BLOCK = re.compile(r"```console\n(.*?)```|<!-- (.*?) -->", re.DOTALL)


def _matches(shown: list[str], said: list[str]) -> bool:
    """Whether lines are as shown: ``...`` stands for any text, and alone for any lines."""
    pattern = "".join(
        r"(?:.*\n)*" if line == "..." else ".*".join(map(re.escape, line.split("..."))) + r"\n"
        for line in shown
    )
    return re.fullmatch(pattern, "".join(f"{line.rstrip()}\n" for line in said)) is not None


def _commands(block: str) -> Iterator[tuple[list[str], list[str]]]:
    """The words of each command of a block, and what is shown below it."""
    for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
        command, *shown = part.splitlines()
        yield shlex.split(command), shown


@pytest.mark.slow
def test_the_examples_of_the_page_are_true(
    monkeypatch: pytest.MonkeyPatch, play: Callable[[World, list[str]], list[str]]
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    world = World(40)
    world.core.publish(make_image("1.2.0+0"), world.now)
    typed = 0
    for block, stage in BLOCK.findall(PAGE.read_text(encoding="utf-8")):
        for succeed, fail in re.findall(r"(\d+) succeeds?(?: and (\d+) fails?)?", stage):
            _let_end(world, int(succeed), int(fail or 0))
        for calls in re.findall(r"(\d+) users call", stage):
            _let_call(world, int(calls))
        for words, shown in _commands(block):
            said = play(world, words)
            assert _matches(shown, said), "\n".join([" ".join(words), *said])
            typed += 1
    assert typed == 10


def _let_end(world: World, succeed: int, fail: int) -> None:
    world.look()
    open_ = world.open()
    for serial in open_[:succeed]:
        world.end(serial)
    for serial in open_[succeed : succeed + fail]:
        world.end(serial, well=False, text="the new software did not start")
    world.look()


def _let_call(world: World, count: int) -> None:
    world.look()
    for message in world.records.messages()[:count]:
        call(world, message.serial, "1.2.0")
    world.look()


@pytest.fixture
def play(monkeypatch: pytest.MonkeyPatch) -> Callable[[World, list[str]], list[str]]:
    """Types a command: ada makes, bob approves."""

    def type_(world: World, words: list[str]) -> list[str]:
        who = "bob" if "approve" in words else "ada"
        token = add_token(world.records.tokens, who, AccessRole.OPERATOR, world.now)
        http = open_http(world.core, lambda: world.now, token=token)
        monkeypatch.setattr(
            ServerClient,
            "_ask",
            lambda _client, method, path, **more: http.request(method, path, **more).json(),
        )
        done = CliRunner().invoke(cli, words[1:], prog_name=words[0])
        assert done.exit_code == 0, done.output
        return str(done.output).splitlines()

    return type_


def test_shown_lines_are_compared() -> None:
    assert _matches(["a...c", "...", "z"], ["abc", "x", "y", "z"])
    assert not _matches(["a...c"], ["abd"])
    assert not _matches(["a"], ["a", "b"])
