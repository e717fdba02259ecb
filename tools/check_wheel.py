"""Installs the wheel in a clean virtual environment and uses it in an empty folder, as a user does.

The wheel is made from the source distribution. First it is installed without extras, then with
those for the whole system and for Robot Framework. Needs the package index, as any install does.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TAIL = 4000  # characters of a failed command that are shown

PYTEST_SUITE = """
def test_update(unbrick_system):
    unbrick_system.power_on()
    unbrick_system.wait_registered()
    unbrick_system.update_to("1.1.0")
    assert "1.1.0" in unbrick_system.console.command("version")
"""

ROBOT_SUITE = """
*** Settings ***
Library    unbrick.robot

*** Test Cases ***
It is updated over the air
    Start Terminal    installed=1.0.0
    Wait For Registration
    Update Terminal    1.1.0
    Terminal Should Run    1.1.0
"""


BOOT_ROM = """
from unbrick.board import load_chip
from unbrick.engine.mcu import McuEngine
with McuEngine(load_chip("rp2040")) as engine:
    engine.power_on()
    engine.advance(0.1)
    assert engine.pc < 0x8000, "it is not in its boot ROM"
    assert not engine.faults
"""
"""Starts a chip in its boot ROM; its flash is blank."""


class CheckError(Exception):
    """The wheel does not do what it must."""


class User:
    """Somebody with the wheel's virtual environment on the path, and nothing of this checkout."""

    def __init__(self, home: Path) -> None:
        self.folder, self.cache = home / "empty", home / "cache"
        self.folder.mkdir()
        self._bin = home / "venv" / "bin"
        ours = ("PYTHONPATH", "UNBRICK_")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
        self._environment = {
            **kept,
            "PATH": f"{self._bin}:{os.environ['PATH']}",
            "XDG_CACHE_HOME": str(self.cache),
            "XDG_STATE_HOME": str(home / "state"),
        }

    def call(self, *command: str, code: int = 0) -> str:
        """Run a command to its end; returns what it said on both streams.

        Raises:
            CheckError: it ended with another exit code than ``code``.
        """
        print("$", *command, flush=True)
        done = subprocess.run(
            [str(self._bin / command[0]), *command[1:]],
            cwd=self.folder,
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if done.returncode != code:
            raise CheckError(f"exit code {done.returncode}, not {code}:\n{done.stdout[-TAIL:]}")
        return done.stdout

    def install(self, *what: str) -> None:
        """Install with the versions that were tested together."""
        command = [str(self._bin / "python"), "-m", "pip", "install", "--quiet"]
        command += ["--disable-pip-version-check", "--constraint", str(ROOT / "constraints.txt")]
        print("installing", *what, flush=True)
        subprocess.run([*command, *what], check=True)  # with the cache that pip has here

    def site_packages(self) -> set[str]:
        """The files of the installed package, but what Python itself compiles."""
        (package,) = self._bin.parent.glob("lib/python*/site-packages/unbrick")
        return {str(p) for p in package.rglob("*") if "__pycache__" not in p.parts}


def make_wheel(out: Path) -> Path:
    """The wheel, from the source distribution, as `python -m build` makes it."""
    script = "import sys; from setuptools import build_meta; build_meta.build_sdist(sys.argv[1])"
    done = subprocess.run(
        [sys.executable, "-c", script, str(out)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    check(not done.returncode, f"no source distribution: {done.stderr[-TAIL:]}")
    (archive,) = out.iterdir()
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps"]
    command += ["--no-build-isolation", "--wheel-dir", str(out), str(archive)]
    subprocess.run(command, check=True)
    (wheel,) = out.glob("*.whl")
    return wheel


def check(condition: object, wrong: str) -> None:
    """See that something is so.

    Raises:
        CheckError: it is not.
    """
    if not condition:
        raise CheckError(wrong)


def check_without_extras(user: User) -> None:
    """The bench is there; what needs an extra says which."""
    user.call("unbrick", "--version")
    said = user.call("unbrick", "--help")
    check("unbrick[system]" in said, f"the list of commands does not name the extra:\n{said}")
    said = user.call("unbrick", "demo")
    check("One cut bricks it" in said, f"the demo finds nothing:\n{said}")
    shutil.rmtree(user.folder / "unbrick-demo")
    said = user.call("unbrick", "hil-test", code=2)
    check("pip install 'unbrick[system]'" in said, f"the extra is not named: {said}")
    user.call("python", "-c", "from unbrick.engine.inprocess import InProcessEngine as E; E(())")
    user.call("python", "-c", BOOT_ROM)
    said = user.call(
        "python", "-c", "from unbrick.layout import reference_layout as f; print(f().board.name)"
    )
    check(said.strip() == "vexpress-a9", f"the board and the layout are not there: {said}")


def check_with_extras(user: User) -> None:
    """The whole system is played, and leaves nothing where it does not belong."""
    before = user.site_packages()
    said = user.call("unbrick", "hil-test")
    check(len(re.findall(r"\bpassed\b", said)) > 1, f"the HIL test has no steps:\n{said}")
    said = user.call("unbrick", "campaign", "phonebook")
    check("No violation found" in said, f"the campaign says nothing:\n{said}")
    check(not list(user.folder.iterdir()), f"left behind: {list(user.folder.iterdir())}")
    (user.folder / "test_user.py").write_text(PYTEST_SUITE)
    said = user.call("pytest", "-p", "no:cacheprovider")
    check("1 passed" in said, f"pytest: {said}")
    (user.folder / "user.robot").write_text(ROBOT_SUITE)
    said = user.call("robot", "--output", "NONE", "--report", "NONE", "--log", "NONE", "user.robot")
    check("1 test, 1 passed" in said, f"Robot: {said}")
    check(not (user.folder / "build").exists(), "the firmware was built in the user's folder")
    check(list(user.cache.glob("unbrick/firmware/*/boot.bin")), "the firmware is not in the cache")
    user.call("unbrick", "firmware", "build")
    check(
        (user.folder / "build" / "firmware" / "terminal-1.0.0.hex").is_file(),
        "`unbrick firmware build` does not build in the current folder",
    )
    changed = user.site_packages() ^ before
    check(not changed, f"changed in the installed package: {sorted(changed)}")


def main() -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--keep", type=Path, help="work in this folder, and leave it")
    options = parser.parse_args()
    home = options.keep or Path(tempfile.mkdtemp(prefix="unbrick-wheel-"))
    try:
        (home / "dist").mkdir(parents=True)
        wheel = make_wheel(home / "dist")
        print(wheel.name)
        venv.create(home / "venv", with_pip=True)
        user = User(home)
        user.install(str(wheel))
        check_without_extras(user)
        user.install(f"{wheel}[robot,system]", "pytest")
        check_with_extras(user)
    except CheckError as error:
        print(f"the wheel is not right: {error}", file=sys.stderr)
        return 1
    finally:
        if not options.keep:
            shutil.rmtree(home)
    print("the wheel does all that it must")
    return 0


if __name__ == "__main__":
    sys.exit(main())
