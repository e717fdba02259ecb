"""Rows A11, A12 and C3: a terminal without a valid application is restored over the wire."""

from __future__ import annotations

import shutil
import subprocess
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from patience import PATIENCE_S

from unbrick.bench.tap import Tap
from unbrick.engine.ports import PtyPort
from unbrick.errors import UnbrickError
from unbrick.image.hexfile import to_hex
from unbrick.layout import reference_layout
from unbrick.restore.port import restore

if TYPE_CHECKING:
    from collections.abc import Callable

    from unbrick.reference.system import System

LAYOUT = reference_layout()
APPLICATION = LAYOUT.partition("application")


@pytest.fixture(params=["inprocess", "qemu", "renode"])
def engine(request: pytest.FixtureRequest) -> str:
    """The engine's name."""
    return str(request.param)


def application(system: System) -> bytes:
    """What lies in the application's partition."""
    return system.engine.read_nor()[APPLICATION.offset : APPLICATION.end]


@pytest.mark.slow
def test_claim_a11_a_failed_rewrite_leads_to_the_restoration_state(
    unbrick_make_system: Callable[..., System], engine: str
) -> None:
    system = unbrick_make_system(engine=engine)
    system.power_on()
    system.wait_registered()
    system.publish("1.1.0")
    before = application(system)
    system.start_update("1.1.0")
    system.console.expect("update: checked", 300)
    assert system.bench.run_until(lambda: application(system) != before, 30)
    system.bench.restart()
    match = system.console.expect_pattern("restoration: (.*)\r|terminal: .* 1.1.0", 60)
    if engine == "qemu" and not match.group(1):
        pytest.skip("QEMU's NOR works at once: the rewrite was over before the power was cut")
    assert match.group(1) == "rewrite was interrupted"
    system.console.expect("restoration: send the signed image by YMODEM")


def test_claim_a11_a_damaged_application_is_found_at_a_later_start(
    unbrick_make_system: Callable[..., System], engine: str
) -> None:
    system = unbrick_make_system(engine=engine)
    cells = bytearray(system.engine.read_nor())
    cells[APPLICATION.offset + 0x1234] ^= 1
    system.engine.load_nor(bytes(cells))
    system.engine.power_on()
    system.console.expect("restoration: application damaged", 60)


@pytest.mark.slow
def test_claim_a12_the_apparatus_restores_the_terminal(
    unbrick_make_system: Callable[..., System], engine: str
) -> None:
    system = unbrick_make_system(engine=engine, installed=None)
    system.engine.power_on()
    image = system.releases.signed["1.1.0"]
    apparatus = system.restore(image)
    assert apparatus.reason == "no application"
    assert apparatus.terminal is not None
    assert apparatus.terminal.serial == system.serial
    assert apparatus.running
    assert application(system).startswith(image)
    system.restart()
    assert "1.1.0" in system.console.command("version")


def test_restoration_refuses_a_bad_image_and_waits_for_a_good_one(
    unbrick_make_system: Callable[..., System],
) -> None:
    system = unbrick_make_system(installed=None)
    system.engine.power_on()
    system.console.expect("restoration: send the signed image", 60)
    before = system.engine.read_nor()
    bad = bytearray(system.releases.signed["1.1.0"])
    bad[-20] ^= 1  # in the signature
    with pytest.raises(UnbrickError, match="signature"):
        system.restore(bytes(bad))
    assert system.engine.read_nor() == before
    system.restore(system.releases.signed["1.1.0"])


class Pumped:
    """Lets the bench run in this thread while another program uses the pty."""

    def __init__(self, system: System) -> None:
        self._system = system
        system.bench.peers.remove(system.console)
        self.port = PtyPort(system.engine.wire, rate=LAYOUT.board.line_rate)
        system.bench.peers.append(self.port)

    def while_running(self, work: Callable[[], object]) -> None:
        """Run the terminal until ``work``, in a thread, has come to its end."""
        failure: list[BaseException] = []

        def guarded() -> None:
            try:
                work()
            except BaseException as error:  # noqa: BLE001 - given to the test below
                failure.append(error)

        thread = threading.Thread(target=guarded)
        thread.start()
        self._system.bench.run_until(lambda: not thread.is_alive(), 600)
        thread.join(PATIENCE_S)
        if failure:
            raise failure[0]


@pytest.fixture
def waiting(unbrick_make_system: Callable[..., System], engine: str) -> System:
    """A terminal in the restoration state, by the clock, its wire untouched."""
    return unbrick_make_system(engine=engine, installed=None, speed=8.0)


@pytest.mark.slow
def test_claim_c3_python_drives_the_wire_of_a_real_serial_port(
    waiting: System, tmp_path: Path
) -> None:
    image = tmp_path / "terminal.hex"
    image.write_text(to_hex(waiting.releases.signed["1.1.0"]))
    pumped = Pumped(waiting)
    waiting.engine.power_on()
    pumped.while_running(lambda: restore(pumped.port.path, image, wait=60))
    assert application(waiting).startswith(waiting.releases.signed["1.1.0"])


@pytest.mark.slow
def test_sb_of_lrzsz_restores_the_terminal(waiting: System, tmp_path: Path) -> None:
    sb = shutil.which("sb")
    if sb is None:
        pytest.skip("sb is not installed (apt install lrzsz)")
    image = tmp_path / "terminal.bin"
    signed = waiting.releases.signed["1.1.0"]
    image.write_bytes(signed)
    pumped = Pumped(waiting)
    waiting.engine.power_on()

    def send() -> None:
        with Path(pumped.port.path).open("r+b", buffering=0) as port:
            done = subprocess.run(
                [sb, "-k", str(image)],
                stdin=port,
                stdout=port,
                stderr=subprocess.PIPE,
                check=False,
                timeout=PATIENCE_S,
            )
        assert done.returncode == 0, done.stderr.decode(errors="replace")

    pumped.while_running(send)
    assert waiting.bench.run_until(lambda: application(waiting).startswith(signed), 30)


def test_who_sends_with_sx_is_told_that_ymodem_is_wanted(waiting: System, tmp_path: Path) -> None:
    sx = shutil.which("sx")
    if sx is None:
        pytest.skip("sx is not installed (apt install lrzsz)")
    image = tmp_path / "terminal.bin"
    image.write_bytes(waiting.releases.signed["1.1.0"])
    pty = PtyPort(Tap(waiting.console), rate=LAYOUT.board.line_rate)
    waiting.bench.peers.append(pty)
    with (
        Path(pty.path).open("r+b", buffering=0) as port,
        subprocess.Popen(
            [sx, "-k", str(image)], stdin=port, stdout=port, stderr=subprocess.PIPE
        ) as sender,
    ):
        # It listens before the terminal asks: old questions would be tries that have failed.
        assert sender.stderr is not None
        assert b"XMODEM receive command" in sender.stderr.readline()
        waiting.engine.power_on()
        try:
            said = waiting.console.expect_pattern(r"restoration: refused, (.*)\r", 600)[1]
            assert sender.wait(60) != 0
        finally:
            sender.kill()
    assert said == (
        "the file came without its name and size: send it by YMODEM (sb), not XMODEM (sx)"
    )
