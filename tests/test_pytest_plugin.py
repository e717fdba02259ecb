"""Row C8: pytest drives the bench, by the fixtures of the plugin."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from unbrick.board import BOARD
from unbrick.image.hexfile import read_image, to_hex
from unbrick.server.core import ServerCore

if TYPE_CHECKING:
    from pathlib import Path

    from unbrick.bench.console import Console
    from unbrick.bench.system import System
    from unbrick.image.release import Releases
    from unbrick.link.simulated import SimulatedLink

USER_TEST = """
def test_update(system):
    system.power_on()
    system.wait_registered()
    system.update_to("1.1.0")
    assert "1.1.0" in system.console.command("version")

def test_that_fails(terminal):
    assert "a command that is not there" in terminal.command("help")
"""


def test_claim_c8_pytest_drives_terminal_server_and_link(
    terminal: Console, server: ServerCore, link: SimulatedLink, system: System
) -> None:
    """All four fixtures are parts of one system, and it works."""
    assert "unbrick-terminal 1.0.0" in terminal.command("version")
    assert system.console is terminal
    system.wait_registered()
    assert [registration.serial for registration in link.registrations] == [system.serial]
    server.send_text(system.serial, "hello", system.engine.now)
    terminal.expect("message: hello")


def test_claim_c8_what_comes_as_intel_hex_goes_into_the_terminal_and_out_again(
    system: System, releases: Releases, tmp_path: Path
) -> None:
    image = releases.signed["1.1.0"]
    there, back = tmp_path / "in.hex", tmp_path / "out.hex"
    there.write_text(to_hex(image))
    system.server.publish(read_image(there), system.engine.now)
    system.power_on()
    system.wait_registered()
    system.wait_update(system.start_update("1.1.0"))
    start = BOARD.partition("application").offset
    back.write_text(to_hex(system.engine.read_nor()[start : start + len(image)]))
    assert back.read_text() == there.read_text()


@pytest.mark.parametrize("engine", ["inprocess", "qemu"])
def test_a_users_tests_run_on_the_engine_they_ask_for_and_show_the_console(
    engine: str, firmware: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if engine == "qemu":
        request.getfixturevalue("qemu")
    file = tmp_path / "test_user.py"
    file.write_text(USER_TEST)
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--engine", engine]
    command += ["--firmware-folder", str(firmware), "--rootdir", str(tmp_path), str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 1
    assert "1 failed, 1 passed" in done.stdout
    assert f"console of UB-000001 on {engine}" in done.stdout
    assert "terminal: unbrick-terminal 1.0.0" in done.stdout
