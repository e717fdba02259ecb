"""The serial bootloader of Nordic's nRF5 SDK: power cuts in its updates (docs/nrf5-sdk.md).

It is no part of this repository: UNBRICK_CORPUS names the folder that has it.
"""

from __future__ import annotations

import runpy
import struct
import zipfile
from pathlib import Path
from zlib import crc32

import pytest
from corpus import judge, why_no_clone
from test_target_drivers import DATA, drive

from unbrick.errors import DriverGaveUpError, SetupError
from unbrick.target.target import FileTarget

EXAMPLE = Path(__file__).parents[1] / "examples" / "nrf5-sdk"
PREPARE = runpy.run_path(str(EXAMPLE / "prepare.py"), run_name="prepare")
DRIVER = EXAMPLE / "serial_dfu.py"
NO_CLONE = why_no_clone(PREPARE["find_corpus"])
INIT = bytes(range(0xB0, 0xF0)) * 2
"""An init packet, with bytes that SLIP escapes."""


class Bootloader:
    """Takes objects as the serial bootloader does."""

    MTU, MOST = 131, {1: 512, 2: 256}

    def __init__(self, *, lose: int = 0) -> None:
        self.objects, self.kind = {1: b"", 2: b""}, 1
        self.executed, self.heard, self.lose = 0, b"", lose

    def __call__(self, data: bytes) -> bytes:
        self.heard += data
        said = b""
        while b"\xc0" in self.heard:
            frame, _, self.heard = self.heard.partition(b"\xc0")
            packet = frame.replace(b"\xdb\xdc", b"\xc0").replace(b"\xdb\xdd", b"\xdb")
            answer = bytes([0x60]) + self.answer(packet[0], packet[1:])
            said += answer.replace(b"\xdb", b"\xdb\xdd").replace(b"\xc0", b"\xdb\xdc") + b"\xc0"
        return said

    def answer(self, code: int, body: bytes) -> bytes:
        if code == 9:
            return bytes([9, 1]) + body
        if code == 7:
            return bytes([7, 1]) + struct.pack("<H", self.MTU)
        if code == 6:
            self.kind = body[0]
            return bytes([6, 1]) + struct.pack("<III", self.MOST[self.kind], 0, 0)
        if code == 8:
            assert len(body) <= (self.MTU - 1) // 2 - 1
            self.objects[self.kind] += body[self.lose :]
            there = self.objects[self.kind]
            return bytes([3, 1]) + struct.pack("<II", len(there), crc32(there))
        self.executed += code == 4
        return bytes([code, 1])


def test_the_driver_sends_init_packet_and_firmware_in_objects() -> None:
    device = Bootloader()
    drive(device, DRIVER, {"init": INIT.hex()})
    assert device.objects == {1: INIT, 2: DATA}
    assert device.executed == 1 + -(-len(DATA) // 256)


def test_the_driver_gives_up_when_bytes_are_lost() -> None:
    with pytest.raises(DriverGaveUpError, match="it has not taken all of 64 bytes"):
        drive(Bootloader(lose=1), DRIVER, {"init": INIT.hex()})


def test_a_device_that_does_not_answer_is_left_to_the_judge() -> None:
    drive(lambda _: b"", DRIVER, {"init": INIT.hex()})


def test_another_folder_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("UNBRICK_CORPUS", str(tmp_path))
    with pytest.raises(SetupError, match=r"uart_mbr_pca10040_debug\.hex is missing"):
        PREPARE["find_corpus"]()


def test_a_package_has_a_firmware_and_its_init_packet(tmp_path: Path) -> None:
    path = tmp_path / "package.zip"
    with zipfile.ZipFile(path, "w") as package:
        package.writestr("manifest.json", "{}")
        package.writestr("app.bin", DATA)
        package.writestr("app.dat", INIT)
    assert PREPARE["read_package"](path) == (DATA, INIT)


@pytest.fixture(scope="module")
def targets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, FileTarget]:
    """All target files by name."""
    if NO_CLONE:
        pytest.skip(NO_CLONE)
    found = PREPARE["prepare"](tmp_path_factory.mktemp("nrf5"))
    return {name: FileTarget.load(path) for name, path in found.items()}


def test_the_corpus_is_there(targets: dict[str, FileTarget]) -> None:
    names = [update.name for update in PREPARE["UPDATES"]]
    assert set(targets) == {f"{name}{again}" for name in names for again in ("", "-again")}


@pytest.mark.slow
class TestCuts:
    """What docs/nrf5-sdk.md says; with the corpus alone."""

    __test__ = not NO_CLONE

    @pytest.mark.parametrize(
        ("case", "kind"),
        [("", ""), ("/1-scattered", ""), ("/2-scattered", "fault"), ("/3-scattered", "fault")],
    )
    def test_a_torn_address_for_the_mbr_is_the_end(
        self, targets: dict[str, FileTarget], case: str, kind: str
    ) -> None:
        assert judge(targets["application"], f"nrf5-application{case}") == kind
