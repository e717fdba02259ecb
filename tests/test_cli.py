"""The command line's root: help, suggestions, exit codes, errors in one line."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING

import click
import pytest
from click.testing import CliRunner

import unbrick
from unbrick.cli import main as cli_module
from unbrick.cli.main import cli, fold_error
from unbrick.errors import ImageError, RestoreError, ToolBrokenError, UnbrickError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Callable[[BaseException], None]:
    """Adds a command `fail` to the command line that raises what it is given."""

    def add(error: BaseException) -> None:
        @click.command("fail")
        def fail() -> None:
            raise error

        monkeypatch.setattr(cli_module, "_MODULES", {"of_the_test": ("fail",)})
        monkeypatch.setitem(sys.modules, "of_the_test", SimpleNamespace(COMMANDS=[fail]))

    return add


def test_version_and_help() -> None:
    assert CliRunner().invoke(cli, ["--version"]).output == f"unbrick {unbrick.__version__}\n"
    done = CliRunner().invoke(cli, ["-h"])
    assert done.exit_code == 0, done.output
    assert "Exit codes" in done.output
    for name in ("firmware", "image", "restore"):
        assert name in done.output


def commands(
    command: click.Command, context: click.Context
) -> Iterator[tuple[str, click.Command, click.Context]]:
    """A command and all below it, with what one types for it."""
    yield context.command_path, command, context
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None
            yield from commands(below, click.Context(below, parent=context, info_name=name))


def test_help_fits_a_window_of_80_columns_and_nothing_in_it_is_cut(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    found = list(commands(cli, click.Context(cli, info_name="unbrick", **cli.context_settings)))
    assert len(found) > 40
    for path, command, context in found:
        lines = command.get_help(context).splitlines()
        usage = lines.pop(0)
        assert [line for line in lines if line.endswith("...")] == [], path
        assert max(map(len, [usage, *lines])) <= 80, path


def test_the_help_shows_each_command_once_in_its_group_on_one_screen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    lines = CliRunner().invoke(cli, ["--help"]).output.splitlines()
    assert len(lines) < 24  # one is the prompt's
    context = click.Context(cli, info_name="unbrick")
    grouped = [name for names in cli_module.GROUPS.values() for name in names]
    assert sorted(grouped) == cli.list_commands(context)
    begin = lines.index("Prove that a device comes back:")
    last = next(i for i, line in enumerate(lines) if line.startswith("Operate terminals"))
    shown = [line.split()[0] for line in lines[begin:last] if line.startswith("  ")]
    brief = "".join(line for line in lines[last:] if line.startswith("  "))
    assert [*shown, *(name.strip() for name in brief.split(","))] == grouped


@pytest.mark.parametrize(
    ("wrong", "right"), [("imgae", "image"), ("restor", "restore"), ("firmwre", "firmware")]
)
def test_the_nearest_command_is_suggested(wrong: str, right: str) -> None:
    done = CliRunner().invoke(cli, [wrong], prog_name="unbrick")
    assert done.exit_code == 2
    assert f"Did you mean `unbrick {right}`?" in done.output


def test_a_command_like_no_other_has_no_suggestion() -> None:
    done = CliRunner().invoke(cli, ["xyzzy"])
    assert done.exit_code == 2
    assert "There is no command 'xyzzy'" in done.output
    assert "Did you mean" not in done.output


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UnbrickError("it went wrong"), 1),
        (RestoreError("it went wrong"), 1),
        (ImageError("it went wrong"), 2),
        (ToolBrokenError("it went wrong"), 3),
        (click.UsageError("it went wrong"), 2),
    ],
)
def test_errors_have_their_exit_codes_and_no_traceback(
    command: Callable[[BaseException], None], error: Exception, code: int
) -> None:
    command(error)
    done = CliRunner().invoke(cli, ["fail"])
    assert done.exit_code == code
    assert "it went wrong" in done.stderr
    assert "Traceback" not in done.stderr
    assert not done.stdout


def test_what_a_compiler_said_comes_before_the_error(
    command: Callable[[BaseException], None],
) -> None:
    command(UnbrickError("it does not compile:\nline 1 is wrong\nso is line 2", hint="mend it"))
    said = CliRunner().invoke(cli, ["fail"]).stderr
    assert said == "line 1 is wrong\nso is line 2\nunbrick: it does not compile. Mend it\n"


def test_a_bug_is_called_one(command: Callable[[BaseException], None]) -> None:
    command(ZeroDivisionError("unexpected"))
    done = CliRunner().invoke(cli, ["fail"])
    assert done.exit_code == 3
    assert "Traceback" in done.stderr
    assert "this is a bug of unbrick" in done.stderr.splitlines()[-1]


def test_an_interruption_is_no_error_of_ours(command: Callable[[BaseException], None]) -> None:
    command(KeyboardInterrupt())
    done = CliRunner().invoke(cli, ["fail"])
    assert done.exit_code == 130
    assert "Traceback" not in done.stderr


def test_errors_are_one_line_with_the_next_step() -> None:
    error = UnbrickError("the cable is broken.", hint="buy\na new one")
    assert fold_error(error) == "the cable is broken. Buy a new one"
    assert fold_error(UnbrickError("broken")) == "broken"
    assert fold_error(UnbrickError("broken", hint="`unbrick fix`")) == "broken. `unbrick fix`"


def test_the_program_starts_and_fails_as_a_process() -> None:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "unbrick.cli", *arguments],
            capture_output=True,
            text=True,
            check=False,
        )

    assert run("--version").stdout == f"unbrick {unbrick.__version__}\n"
    done = run("image", "inspect", "does-not-exist.bin")
    assert done.returncode == 2
    assert done.stderr == (
        "unbrick: cannot read does-not-exist.bin: No such file or directory. "
        "Check the name of the file\n"
    )
