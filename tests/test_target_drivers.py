"""Drivers of updates, against a scripted device at the other end of the line."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import cbor2
import pytest
from ymodem_receiver import Receiver

from unbrick.errors import DeviceSilentError, DriverGaveUpError, SetupError
from unbrick.target import console as console_module
from unbrick.target.console import DriverConsole, DriverRun
from unbrick.target.description import FirmwareFile
from unbrick.target.drivers import read_driver, start_driver
from unbrick.target.drivers.smp import frame, unframe
from unbrick.target.files import Piece

DATA = bytes(range(256)) * 3 + b"end"
FILE = FirmwareFile("app.bin", (Piece(0x2000, DATA),))
STEP_S = 0.01


class ScriptedLine:
    """A line to a device that is a function from what it hears to what it says."""

    def __init__(self, device: Callable[[bytes], bytes]) -> None:
        self.device = device
        self.answers = b""

    def write(self, data: bytes) -> None:
        self.answers += self.device(data)

    def read(self) -> bytes:
        answers, self.answers = self.answers, b""
        return answers


def drive(
    device: Callable[[bytes], bytes],
    driver: str | Path,
    options: Mapping[str, Any] | None = None,
    first: bytes = b"",
) -> None:
    """Let a driver do its work with a device, which has said ``first``."""
    line = ScriptedLine(device)
    console = DriverConsole(line, 0.0)
    path = driver if isinstance(driver, Path) else None
    run = DriverRun(start_driver(driver, console, FILE, options or {}), console, path)
    console.hear(first)
    now = 0.0
    while not run.finished:
        run.step(now)
        console.hear(line.read())
        now += STEP_S
        assert now < 1000, "it does not come to an end"


class XmodemDevice:
    """Takes a file by XMODEM-CRC."""

    def __init__(self, *, refuse: int = 0) -> None:
        self.data, self.heard, self.ended = b"", b"", False
        self.refuse = refuse

    def __call__(self, data: bytes) -> bytes:
        self.heard += data
        said = b""
        while self.heard:
            if self.heard[:1] == b"\x04":
                self.ended, self.heard = True, b""
                return said + b"\x06"
            if len(self.heard) < 133:
                return said
            block, self.heard = self.heard[:133], self.heard[133:]
            number = len(self.data) // 128 + 1
            assert block[:3] == bytes((1, number & 0xFF, ~number & 0xFF))
            assert binascii.crc_hqx(block[3:131], 0) == int.from_bytes(block[131:], "big")
            if self.refuse:
                self.refuse -= 1
                said += b"\x15"
                continue
            self.data += block[3:131]
            said += b"\x06"
        return said


def test_xmodem_sends_the_file_in_blocks() -> None:
    device = XmodemDevice()
    drive(device, "xmodem", first=b"ready\r\nC")
    assert device.ended
    assert device.data == DATA.ljust(len(device.data), b"\x1a")


def test_xmodem_repeats_a_block_that_is_refused() -> None:
    device = XmodemDevice(refuse=2)
    drive(device, "xmodem", first=b"CC")
    assert device.data.startswith(DATA)


@pytest.mark.parametrize(
    ("answer", "words"), [(b"\x15", "in 10 tries"), (b"\x18", "cancelled"), (b"", "in 10 tries")]
)
def test_xmodem_gives_up_with_a_device_that_does_not_do_its_part(answer: bytes, words: str) -> None:
    with pytest.raises(DriverGaveUpError, match=words):
        drive(lambda _: answer, "xmodem", first=b"C")


def test_xmodem_gives_up_with_a_device_that_does_not_ask() -> None:
    with pytest.raises(DeviceSilentError, match="did not say 'C' in 60 s"):
        drive(lambda _: b"", "xmodem")


class XcpDevice:
    """Erases and programs as XCP commands it."""

    def __init__(self, refuse: int | None = None) -> None:
        self.flash = bytearray(b"\0" * 0x4000)
        self.heard, self.at, self.refuse = b"", 0, refuse
        self.commands: list[int] = []

    def __call__(self, data: bytes) -> bytes:
        self.heard += data
        said = b""
        while self.heard and len(self.heard) > self.heard[0]:
            packet, self.heard = self.heard[1 : 1 + self.heard[0]], self.heard[1 + self.heard[0] :]
            said += self.answer(packet)
        return said

    def answer(self, packet: bytes) -> bytes:
        command = packet[0]
        self.commands.append(command)
        if command == self.refuse:
            return b"\x02\xfe\x20"
        if command == 0xFF:
            return b"\x08\xff\x10\x00\x40\x40\x00\x01\x01"
        if command == 0xF6:
            self.at = int.from_bytes(packet[4:8], "little")
        if command == 0xD1:
            size = int.from_bytes(packet[4:8], "little")
            self.flash[self.at : self.at + size] = b"\xff" * size
        if command == 0xD0:
            assert packet[1] == len(packet) - 2
            self.flash[self.at : self.at + packet[1]] = packet[2:]
            self.at += packet[1]
        return b"" if command == 0xCF else b"\x01\xff"


def test_xcp_erases_programs_and_starts() -> None:
    device = XcpDevice()
    drive(device, "xcp")
    assert device.flash[0x2000 : 0x2000 + len(DATA)] == DATA
    assert device.commands[:5] == [0xFF, 0xD2, 0xF6, 0xD1, 0xF6]
    assert device.commands[-2:] == [0xD0, 0xCF]


@pytest.mark.parametrize(("refuse", "name"), [(0xD1, "PROGRAM_CLEAR"), (0xD2, "PROGRAM_START")])
def test_xcp_gives_up_when_a_command_is_refused(refuse: int, name: str) -> None:
    with pytest.raises(DriverGaveUpError, match=f"refuses {name}"):
        drive(XcpDevice(refuse), "xcp")


def test_xcp_asks_until_the_device_is_there() -> None:
    device, asked = XcpDevice(), []

    def late(data: bytes) -> bytes:
        asked.append(data)
        return device(data) if len(asked) > 4 else b""

    drive(late, "xcp")
    assert device.flash[0x2000 : 0x2000 + len(DATA)] == DATA
    with pytest.raises(DriverGaveUpError, match="does not answer CONNECT"):
        drive(lambda _: b"", "xcp", {"connect_s": 1.0})


class SmpDevice:
    """Takes an image as mcumgr has it uploaded, and starts anew."""

    def __init__(self, rc: int = 0) -> None:
        self.image, self.heard, self.rc = b"", b"", rc
        self.text = b""
        self.asked: list[tuple[int, int, int]] = []
        self.chosen: object = None

    def __call__(self, data: bytes) -> bytes:
        self.heard += data
        said = b""
        while b"\n" in self.heard:
            line, _, self.heard = self.heard.partition(b"\n")
            self.text = line[2:] if line[:2] == b"\x06\x09" else self.text + line[2:]
            packet = unframe(self.text)
            if packet is not None:
                said += b"[00:01] <inf> a log line\r\n" + frame(self.answer(packet))
        return said

    def answer(self, packet: bytes) -> bytes:
        operation, group, command = packet[0], packet[5], packet[7]
        assert len(packet) == 8 + int.from_bytes(packet[2:4], "big")
        body = cbor2.loads(packet[8:])
        self.asked.append((operation, group, command))
        answer: dict[str, object] = {"rc": self.rc}
        if (group, command) == (1, 1):
            assert body["off"] == len(self.image)
            self.image += body["data"]
            answer["off"] = len(self.image)
        elif (operation, group, command) == (0, 1, 0):
            answer["images"] = [{"slot": 0, "hash": b"old"}, {"slot": 1, "hash": b"new"}]
        elif (group, command) == (1, 0):
            self.chosen = body
        content = cbor2.dumps(answer)
        return bytes((operation + 1, 0)) + len(content).to_bytes(2, "big") + packet[4:8] + content


def test_smp_uploads_has_it_tried_and_starts_the_device_anew() -> None:
    device = SmpDevice()
    drive(device, "smp")
    assert device.image == DATA
    assert device.chosen == {"hash": b"new", "confirm": False}
    assert device.asked[-1] == (2, 0, 5)


def test_smp_without_a_trial_uploads_alone() -> None:
    device = SmpDevice()
    drive(device, "smp", {"test": False})
    assert device.image == DATA
    assert device.chosen is None
    assert device.asked[-1] == (2, 0, 5)


def test_smp_gives_up_when_it_is_refused() -> None:
    with pytest.raises(DriverGaveUpError, match="the device refuses 1/1: 5"):
        drive(SmpDevice(rc=5), "smp")


def test_a_frame_is_as_the_protocol_has_it() -> None:
    packet = bytes(range(200))
    lines = frame(packet).splitlines(keepends=True)
    assert [line[:2] for line in lines] == [b"\x06\x09", b"\x04\x14", b"\x04\x14"]
    assert all(len(line) <= 127 and line.endswith(b"\n") for line in lines)
    text = b"".join(line[2:-1] for line in lines)
    assert base64.b64decode(text)[:2] == (202).to_bytes(2, "big")
    assert unframe(text) == packet
    assert unframe(text[:-4]) is None
    assert unframe(b"AAAA" + text[4:]) is None


def test_ymodem_sends_the_file() -> None:
    receiver = Receiver(0.0)
    first = receiver.step(b"", 0.0)
    drive(lambda data: receiver.step(data, 0.0), "ymodem", first=first)
    assert receiver.finished
    assert (receiver.name, receiver.data[: receiver.size]) == ("app.bin", DATA)


USER_DRIVERS = {
    "raises": ("    yield console.pause(1)\n    1 / 0\n", ":3 raises ZeroDivisionError", "correct"),
    "yields something": ("    yield 5\n", "yields 5", "yield console.until"),
    "hangs": ("    while True:\n        pass\n    yield\n", "hangs", "yield what it waits for"),
    "is no generator": ("    return 5\n", "gives 5", "a generator"),
}


@pytest.mark.parametrize("case", USER_DRIVERS)
def test_a_wrong_driver_is_refused_with_a_hint(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    body, message, hint = USER_DRIVERS[case]
    path = tmp_path / "driver.py"
    path.write_text("def update(console, payload, options):\n" + body)
    monkeypatch.setattr(console_module, "TURN_TIMEOUT_S", 0.3)
    with pytest.raises(SetupError) as raised:
        drive(lambda _: b"", path)
    assert message in str(raised.value)
    assert hint in raised.value.hint


@pytest.mark.parametrize(
    ("source", "message"),
    [("def upd", "cannot be loaded: SyntaxError"), ("x = 1\n", "has no function update")],
)
def test_a_file_that_is_no_driver_is_refused(source: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "driver.py").write_text(source)
    with pytest.raises(SetupError, match=message):
        read_driver(tmp_path / "driver.py")


def test_a_driver_of_ones_own_waits_and_reads(tmp_path: Path) -> None:
    path = tmp_path / "own.py"
    path.write_text(
        "def update(console, payload, options):\n"
        "    before = yield console.until('> ', within=1)\n"
        "    assert before == b'hello > ', before\n"
        "    console.write('load\\r')\n"
        "    assert (yield console.read(2, within=1)) == b'OK'\n"
        "    assert (yield console.read(5, within=1)) == b'!'\n"
        "    try:\n"
        "        yield console.until('never', within=1)\n"
        "    except Exception as silent:\n"
        "        assert 'never' in str(silent)\n"
        "    else:\n"
        "        assert False\n"
        "    yield console.pause(options['pause'])\n"
        "    console.write(payload.data)\n"
    )
    heard: list[bytes] = []

    def device(data: bytes) -> bytes:
        heard.append(data)
        return b"OK!" if data == b"load\r" else b""

    drive(device, path, {"pause": 2.0}, first=b"hello > ")
    assert heard == [b"load\r", DATA]
