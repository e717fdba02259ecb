"""stm32-iap-uart-boot, a bootloader with a menu (docs/stm32-iap-uart.md).

It is no part of this repository: UNBRICK_CORPUS names the folder that has it.
"""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest
from corpus import judge, why_no_clone
from test_target_drivers import DATA, drive
from ymodem_receiver import Receiver

from unbrick.errors import DriverGaveUpError, SetupError
from unbrick.target.target import FileTarget

EXAMPLE = Path(__file__).parents[1] / "examples" / "stm32-iap-uart"
PREPARE = runpy.run_path(str(EXAMPLE / "prepare.py"), run_name="prepare")
NO_CLONE = why_no_clone(PREPARE["find_corpus"])
MENU = b" IAP Main Menu\r\n update\r\n runapp\r\n"

DEAD = "iap-update/0-scattered"
"""The flag is torn that says that an update is to come."""


class Bootloader:
    """Shows its menu, and takes a program when that is typed."""

    def __init__(self) -> None:
        self.typed, self.receiver = b"", Receiver(0.0)

    def __call__(self, data: bytes) -> bytes:
        if self.typed.endswith(b"\r\n"):
            return self.receiver.step(data, 0.0)
        self.typed += data
        return self.receiver.step(b"", 0.0) if self.typed == b"update\r\n" else b""


def test_the_driver_types_update_and_sends_the_program() -> None:
    device = Bootloader()
    drive(device, EXAMPLE / "menu.py", first=MENU)
    assert device.typed == b"update\r\n"
    assert device.receiver.data[: device.receiver.size] == DATA


def test_the_driver_sends_the_program_to_one_that_waits_for_it() -> None:
    receiver = Receiver(0.0)
    invitations = 2 * receiver.step(b"", 0.0)
    drive(lambda data: receiver.step(data, 0.0), EXAMPLE / "menu.py", first=invitations)
    assert receiver.data[: receiver.size] == DATA


def test_the_driver_leaves_a_program_alone_that_is_started() -> None:
    drive(lambda _: b"", EXAMPLE / "menu.py", first=b"\r\n Run to app.")


def test_the_driver_gives_up_when_nothing_is_said() -> None:
    with pytest.raises(DriverGaveUpError, match="says nothing for 5 s"):
        drive(lambda _: b"", EXAMPLE / "menu.py")
    with pytest.raises(DriverGaveUpError, match="says nothing for 5 s"):
        drive(lambda _: b"", EXAMPLE / "menu.py", {"command": "upload"}, first=MENU)


def test_another_folder_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("UNBRICK_CORPUS", str(tmp_path))
    with pytest.raises(SetupError, match=r"STM32-IAP_HD\.hex is missing"):
        PREPARE["find_corpus"]()


@pytest.fixture(scope="module")
def targets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, FileTarget]:
    """All target files by name."""
    if NO_CLONE:
        pytest.skip(NO_CLONE)
    found = PREPARE["prepare"](tmp_path_factory.mktemp("iap"))
    return {name: FileTarget.load(path, tried=False) for name, path in found.items()}


def test_the_corpus_is_there(targets: dict[str, FileTarget]) -> None:
    assert set(targets) == {"update", "upload"}


@pytest.mark.slow
class TestCuts:
    """What docs/stm32-iap-uart.md says; with the corpus alone."""

    __test__ = not NO_CLONE

    def test_the_update_works(self, targets: dict[str, FileTarget]) -> None:
        assert judge(targets["update"], "iap-update") == ""

    def test_a_torn_flag_is_the_end(self, targets: dict[str, FileTarget]) -> None:
        assert judge(targets["update"], DEAD) == "not-updated"

    def test_a_command_of_the_menu_is_the_end_without_a_cut(
        self, targets: dict[str, FileTarget]
    ) -> None:
        assert judge(targets["upload"], "iap-upload") == "not-updated"
