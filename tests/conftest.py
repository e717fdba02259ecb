"""What every test can use, besides the fixtures of the plugin (``unbrick.pytest_plugin``)."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile
from person import Person

from unbrick.engine.qemu import find_qemu
from unbrick.engine.renode_link import find_renode
from unbrick.errors import MissingToolError
from unbrick.image.release import Releases

PROBE = Path(__file__).with_name("probe")


@pytest.fixture(scope="session", autouse=True)
def _state(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What commands record for their user (XDG base directories) is not written to the tester's."""
    os.environ["XDG_STATE_HOME"] = str(tmp_path_factory.mktemp("state"))


@pytest.fixture(scope="session")
def qemu() -> str:
    """The path of QEMU; without it the test is skipped, and the summary says what is missing."""
    try:
        return find_qemu()
    except MissingToolError as error:
        pytest.skip(f"{error} ({error.hint})")


@pytest.fixture(scope="session")
def firmware(releases: Releases) -> Path:
    """The folder of the firmware that is built already, for commands with ``--firmware``."""
    return releases.firmware.boot.elf.parent


@pytest.fixture(scope="session")
def probe_elf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The probe, a program that does one thing for each letter it is sent, compiled."""
    elf = tmp_path_factory.mktemp("probe") / "probe.elf"
    command = [sys.executable, "-m", "ziglang", "cc", "-target", "thumb-freestanding-eabi"]
    command += ["-mcpu=cortex_a9", "-O2", "-g", "-fno-sanitize=all", "-nostdlib"]
    command += [f"-Wl,-T,{PROBE / 'probe.ld'}", "-o", str(elf), str(PROBE / "probe.c")]
    subprocess.run(command, check=True, capture_output=True)
    return elf


@pytest.fixture(scope="session")
def probe_image(probe_elf: Path) -> bytes:
    """The probe as contents of the NOR."""
    image = bytearray(b"\xff" * 0x40000)
    with probe_elf.open("rb") as stream:
        for segment in ELFFile(stream).iter_segments("PT_LOAD"):
            start = segment["p_paddr"]
            image[start : start + segment["p_filesz"]] = segment.data()
    return bytes(image)


@pytest.fixture(params=["inprocess", "qemu", "renode"])
def emulator(request: pytest.FixtureRequest) -> str:
    """The name of each engine that emulates; a test is skipped where one is not installed."""
    name = str(request.param)
    try:
        if name == "qemu":
            find_qemu()
        elif name == "renode":
            find_renode()
    except MissingToolError as error:
        pytest.skip(f"{error} ({error.hint})")
    return name


@pytest.fixture
def sit_down(firmware: Path, tmp_path: Path) -> Iterator[Callable[..., Person]]:
    """Has somebody sit down at ``unbrick console``; waits for the terminal's first prompt."""
    people: list[Person] = []

    def sit(*options: object, prompt: bool = True) -> Person:
        person = Person(["--firmware", firmware, *options], tmp_path)
        people.append(person)
        if prompt:
            person.sees("\r\n> ")
        return person

    yield sit
    for person in people:
        person.window.close(force=True)
