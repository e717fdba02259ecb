"""A shell completes commands, options, scenarios and files: the real shells, at a real terminal."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pexpect
import pytest
from person import close

ROOT = Path(__file__).parents[1]
PATIENCE_S = 60.0
DONE = "that was all"
SET_UP = {
    "bash": 'eval "$(_UNBRICK_COMPLETE=bash_source unbrick)"',
    "zsh": 'autoload -Uz compinit; compinit -u; eval "$(_UNBRICK_COMPLETE=zsh_source unbrick)"',
    "fish": "_UNBRICK_COMPLETE=fish_source unbrick | source",
}
"""What docs/configuration.md has, for a shell without a file of its user."""
CALLS = {
    "bash": ("--norc", "--noprofile", "-i"),
    "zsh": ("--no-rcs", "-i"),
    "fish": ("--no-config", "--interactive"),
}


class Shell:
    """A shell at a terminal of its own, in which ``unbrick`` is on the path."""

    def __init__(self, name: str, folder: Path) -> None:
        programs = Path(sys.executable).parent
        environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith("UNBRICK_")},
            "PATH": f"{programs}:{os.environ['PATH']}",
            "HOME": str(folder),
            "TERM": "dumb",
            "PS1": "$ ",
        }
        self._shell = pexpect.spawn(
            name,
            list(CALLS[name]),
            cwd=folder,
            env=environment,
            encoding="utf-8",
            timeout=PATIENCE_S,
            dimensions=(24, 200),
        )
        self.run(SET_UP[name])

    def run(self, line: str) -> str:
        """Type a line, and wait until it is done; returns what was shown."""
        self._shell.sendline(f"{line}; echo 'that'' was all'")
        self._shell.expect_exact(DONE)
        return str(self._shell.before)

    def complete(self, line: str, expected: str) -> None:
        """Type the beginning of a line and a tab, and wait for what the shell makes of it."""
        self._shell.send(f"{line}\t")
        self._shell.expect(re.escape(expected))
        self._shell.send("\x15")  # Ctrl-U: away with it

    def end(self) -> None:
        close(self._shell)


@pytest.fixture(params=SET_UP)
def shell(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Shell]:
    if shutil.which(request.param) is None:
        pytest.skip(f"{request.param} is not installed (Debian: apt install {request.param})")
    (tmp_path / "gadget.toml").touch()
    (tmp_path / "firmware.elf").touch()
    shell = Shell(request.param, tmp_path)
    yield shell
    shell.end()


@pytest.mark.slow
def test_a_shell_completes_commands_options_scenarios_and_files(shell: Shell) -> None:
    shell.complete("unbrick camp", "unbrick campaign ")
    shell.complete("unbrick campaign --pres", "unbrick campaign --preset ")
    shell.complete("unbrick campaign --preset exh", "--preset exhaustive ")
    shell.complete("unbrick campaign phon", "unbrick campaign phonebook ")
    shell.complete("unbrick campaign gad", "unbrick campaign gadget.toml ")
    shell.complete("unbrick check gad", "unbrick check gadget.toml ")
    shell.complete("unbrick console gad", "unbrick console gadget.toml ")
    shell.complete("unbrick init firm", "unbrick init firmware.elf ")
    shell.complete("unbrick update sta", "unbrick update start ")


def test_the_page_has_the_lines_that_set_a_shell_up() -> None:
    page = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8").replace("\\|", "|")
    for line in SET_UP.values():
        assert f"`{line.rpartition('; ')[2]}`" in page
