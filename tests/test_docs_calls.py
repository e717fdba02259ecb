"""What the docs tell a reader to type besides ``unbrick`` and ``make``: pytest, modules, pip."""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import metadata
from pathlib import Path

import click
import pytest
from imgtool.main import imgtool
from test_docs import PAGES, ROOT, blocks, code_spans, command_lines, name, tokens

from unbrick.cli.main import cli

TUTORIALS = ROOT / "docs" / "tutorials"  # played, so that their files are made
NOW = [page for page in PAGES if page.name != "CHANGELOG.md"]  # that tells of what was


def calls_of(program: str) -> Iterator[tuple[Path, list[str]]]:
    """What comes after ``program``, wherever the docs call it."""
    for page in NOW:
        for line in command_lines(page):
            call = re.split(r"\s[|&;<>]\s?|\s+#\s", line.removeprefix("$ "))[0].strip()
            if call.startswith(f"{program} "):
                yield page, shlex.split(call)[len(program.split()) :]


# Pytest's exit codes for each call in turn, in one process, since a start of it takes seconds.
EXIT_CODES = """
import json, sys, pytest
calls = json.loads(sys.stdin.read())
print(json.dumps([int(pytest.main(words, plugins=[])) for words in calls]), file=sys.stderr)
"""


# What Robot's libdoc says to each call in turn.
BETWEEN = "--- the next call ---\n"
MANUALS = f"""
import json, sys
from robot.libdoc import LibDoc
for words in json.loads(sys.stdin.read()):
    LibDoc().execute_cli(words, exit=False)
    print({BETWEEN!r}, end="")
"""


def run_pytest(*words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)


def exit_codes(calls: list[list[str]], folder: Path) -> list[int]:
    command = [sys.executable, "-c", EXIT_CODES]
    given = json.dumps([["-p", "no:cacheprovider", "--collect-only", *words] for words in calls])
    done = subprocess.run(
        command, input=given, capture_output=True, text=True, check=True, cwd=folder
    )
    codes: list[int] = json.loads(done.stderr.splitlines()[-1])
    return codes


@pytest.mark.slow
def test_every_call_of_pytest_has_options_that_exist_and_files_that_are_there(
    tmp_path: Path,
) -> None:
    """Without their files the calls plan nothing; an option that is wrong ends pytest at once."""
    found = list(calls_of("pytest"))
    assert len(found) > 5
    for page, words in found:
        files = [word for word in words if word.endswith(".py")]
        played = page.is_relative_to(TUTORIALS)
        assert played or all((ROOT / file).exists() for file in files), name(page)
    options = [[word for word in words if not word.endswith(".py")] for _, words in found]
    wrong = [["--engine", "qemu"], ["--fixtures", "-p", "unbrick.no_such_plugin"]]
    *codes, unknown, missing = exit_codes([*options, *wrong], tmp_path)
    fine = {pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED}
    assert not [call for call, code in zip(found, codes, strict=True) if code not in fine]
    assert unknown not in fine
    assert missing not in fine


def test_every_module_that_python_is_to_run_is_there() -> None:
    found = list(calls_of("python -m"))
    assert {words[0] for _, words in found} >= {"robot.libdoc", "serial.tools.miniterm"}
    gone = [words[0] for _, words in found if importlib.util.find_spec(words[0]) is None]
    assert not gone


@pytest.mark.slow
def test_the_manual_of_the_keywords_is_made_as_it_is_said(tmp_path: Path) -> None:
    found = [words[1:] for _, words in calls_of("python -m") if words[0] == "robot.libdoc"]
    (tmp_path / "build" / "robot").mkdir(parents=True)
    command = [sys.executable, "-c", MANUALS]
    done = subprocess.run(
        command, input=json.dumps(found), capture_output=True, text=True, check=True, cwd=tmp_path
    )
    said = done.stdout.split(BETWEEN)[:-1]
    assert len(said) == len(found)
    for words, text in zip(found, said, strict=True):
        asked = words[-1].endswith(".html")
        assert (tmp_path / words[-1]).is_file() if asked else "Wait For Registration" in text, words


def test_every_extra_that_pip_is_to_install_exists() -> None:
    extras = set(metadata("unbrick").get_all("Provides-Extra") or ())
    named = {
        extra
        for page, words in calls_of("pip install")
        for word in words
        for extra in re.findall(r"unbrick\S*\[([\w,]+)\]", word)
    }
    assert named
    assert {part for extra in named for part in extra.split(",")} <= extras


@pytest.mark.slow
def test_every_test_that_is_shown_has_fixtures_and_markers_that_exist(
    firmware: Path, tmp_path: Path
) -> None:
    """Those of pages that no test plays: pytest plans them, and runs none."""
    shown = [
        token.content
        for page in NOW
        if not page.is_relative_to(TUTORIALS)
        for token in tokens(page)
        if token.type == "fence" and token.info == "python" and "def test_" in token.content
    ]
    assert shown
    for number, text in enumerate(shown):
        (tmp_path / f"test_shown_{number}.py").write_text(f"import pytest\n\n{text}")
    words = ("--setup-plan", "--strict-markers", "--unbrick-firmware", str(firmware))
    done = run_pytest("-q", *words, folder=tmp_path)
    assert done.returncode == 0, done.stdout
    assert "unbrick_" in done.stdout


# What a machine has, or a page says how to get.
PROGRAMS = {
    *("unbrick", "make", "pytest", "python", "pip", "robot", "imgtool"),
    *(
        "renode",
        "renode-test",
        "gdb-multiarch",
        "createdb",
        "dask",
        "git",
        "apt",
        ".venv/bin/pre-commit",
        "podman",
        "python3",
        "sudo",
    ),
    *(".", "cat", "cmp", "cp", "export", "grep", "head", "ls", "printf", "rm", "sed"),
    "./apply",  # which a page has compiled
}


def test_every_line_of_a_shell_calls_a_program_that_is_known() -> None:
    lines = [line for page in NOW for block in blocks(page) for line in block.splitlines()]
    shells = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
    called = {re.sub(r"^(?:[A-Z_]+=\S+ )*", "", line).split()[0] for line in shells}
    assert called == PROGRAMS


# Of other programs: mypy, zstd, Robot, Renode and Twister.
OTHER_OPTIONS = {"--strict", "--patch-from", "--variable", "--console", "--west-flash"}
ENVIRONMENT = re.compile(r"\bUNBRICK_[A-Z_]*[A-Z]\b")


def all_options(command: click.Command, context: click.Context) -> Iterator[tuple[str, str]]:
    """Every option of a command and of those below it, with its variable of the environment."""
    for parameter in command.get_params(context):
        variable = f"{context.auto_envvar_prefix}_{parameter.name or ''}".upper()
        yield from ((text, variable) for text in (*parameter.opts, *parameter.secondary_opts))
    if isinstance(command, click.Group):
        for inner in command.list_commands(context):
            below = command.get_command(context, inner)
            assert below is not None
            yield from all_options(below, click.Context(below, context, info_name=inner))


def test_every_option_that_is_named_alone_exists() -> None:
    plugin = (ROOT / "harness" / "unbrick" / "pytest_plugin.py").read_text(encoding="utf-8")
    known = OTHER_OPTIONS | set(re.findall(r'"(--unbrick-[a-z-]+)"', plugin))
    for group in (cli, imgtool):
        known |= {
            text
            for text, _ in all_options(
                group, click.Context(group, info_name="x", **group.context_settings)
            )
        }
    named = {
        (name(page), match.group())
        for page in NOW
        for span in code_spans(page)
        if (match := re.match(r"--[a-z][\w-]*", span))
    }
    assert len(named) > 50
    assert [where for where in sorted(named) if where[1] not in known] == []


def test_every_variable_of_the_environment_that_is_named_is_read() -> None:
    files = [file for name in ("harness", "examples") for file in (ROOT / name).rglob("*.py")]
    files += (ROOT / "ci").rglob("*.*")
    sources = [file.read_text(encoding="utf-8") for file in files]
    read = {variable for text in sources for variable in ENVIRONMENT.findall(text)}
    context = click.Context(cli, info_name="unbrick", **cli.context_settings)
    read |= {variable for _, variable in all_options(cli, context)}
    named = {word for page in NOW for word in ENVIRONMENT.findall(page.read_text(encoding="utf-8"))}
    assert named
    assert named <= read
