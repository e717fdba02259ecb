"""The restoration apparatus against a scripted terminal: in virtual time, and on real ports."""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import select
import socket
import threading
import time
import tty
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from image_samples import signed, write_key
from scripted_terminal import ScriptedTerminal

from unbrick.errors import ImageError, PortError, RestoreError
from unbrick.image.format import inspect
from unbrick.image.hexfile import to_hex
from unbrick.restore.apparatus import Apparatus, RestorationStage, WiredTerminal
from unbrick.restore.port import SerialLine, restore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

TICK_S = 0.02


@pytest.fixture(scope="session")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_key(tmp_path_factory.mktemp("keys") / "key.pem")


@pytest.fixture(scope="session")
def image(key: Path) -> bytes:
    return signed(key, 20_000)


def apparatus_for(terminal: ScriptedTerminal, image: bytes, **options: Any) -> Apparatus:
    return Apparatus(terminal, image, inspect(image), **options)


def run(
    apparatus: Apparatus, terminal: ScriptedTerminal, *, on_at: float = 0.0, limit: float = 600.0
) -> float:
    """Virtual time until the apparatus is done; the terminal gets power at ``on_at``."""
    now, on = 0.0, False
    while now < limit and not apparatus.finished:
        if not on and now >= on_at:
            on = True
            terminal.start(now)
        terminal.step(now)
        deadline = apparatus.step(now)
        assert deadline is None or deadline > now - TICK_S
        now += TICK_S
    return now


def failure(apparatus: Apparatus) -> str:
    assert apparatus.stage is RestorationStage.FAILED
    assert isinstance(apparatus.error, RestoreError)
    assert apparatus.error.hint
    return str(apparatus.error)


def test_claim_a12_a_terminal_without_software_is_restored(image: bytes) -> None:
    terminal, said = ScriptedTerminal(), list[str]()
    apparatus = apparatus_for(terminal, image, say=said.append)
    run(apparatus, terminal)
    assert apparatus.stage is RestorationStage.DONE
    assert terminal.image == image
    assert apparatus.reason == "no application"
    assert apparatus.terminal == WiredTerminal("T-0001", terminal.hardware_id, 1)
    assert apparatus.accepted == "1.1.0+7"
    assert apparatus.running.startswith("unbrick-terminal 1.1.0")
    assert apparatus.transfers == 1
    assert apparatus.digest == hashlib.sha256(image).hexdigest()
    assert said[0] == "boot: unbrick boot 1.0.0"
    assert "agent: done" in said


def test_a_terminal_that_waits_already_is_found_by_its_prompts(image: bytes) -> None:
    terminal = ScriptedTerminal(banner=False)
    apparatus = apparatus_for(terminal, image)
    run(apparatus, terminal)
    assert apparatus.stage is RestorationStage.DONE
    assert apparatus.terminal == WiredTerminal("T-0001", terminal.hardware_id, None)
    assert terminal.image == image


def test_a_terminal_that_gets_power_late_is_awaited(image: bytes) -> None:
    terminal = ScriptedTerminal()
    apparatus = apparatus_for(terminal, image)
    assert run(apparatus, terminal, on_at=40.0) > 40.0
    assert apparatus.stage is RestorationStage.DONE


def test_nothing_answers(image: bytes) -> None:
    terminal = ScriptedTerminal()
    apparatus = apparatus_for(terminal, image, wait=10.0)
    run(apparatus, terminal, on_at=1000.0)
    assert "nothing answers on the wire in 10 s" in failure(apparatus)
    assert "power-cycle the terminal" in apparatus.error.hint  # type: ignore[union-attr]


def test_something_else_talks(image: bytes) -> None:
    terminal = ScriptedTerminal(garbled=lambda _data: b"login: ")
    apparatus = apparatus_for(terminal, image, wait=10.0)
    run(apparatus, terminal)
    assert "nothing that asks to be restored" in failure(apparatus)


@pytest.mark.parametrize("banner", [True, False])
def test_an_application_that_runs_needs_no_restoration(image: bytes, banner: bool) -> None:
    terminal = ScriptedTerminal(application=True, banner=banner)
    apparatus = apparatus_for(terminal, image)
    terminal.start(0.0)
    if not banner:
        terminal.read()  # It started long before the apparatus was connected.
    run(apparatus, terminal, on_at=1000.0)
    assert "application runs" in failure(apparatus)
    assert "to force" in apparatus.error.hint  # type: ignore[union-attr]
    assert not terminal.image


def test_a_patient_apparatus_ignores_an_application_that_runs(image: bytes) -> None:
    terminal = ScriptedTerminal(application=True)
    apparatus = apparatus_for(terminal, image, wait=None)
    run(apparatus, terminal, limit=200.0)
    assert apparatus.stage is RestorationStage.SEARCHING
    terminal.application = False
    run(apparatus, terminal)
    assert apparatus.stage is RestorationStage.DONE


def test_an_image_for_other_hardware_is_not_even_sent(key: Path) -> None:
    terminal = ScriptedTerminal()
    apparatus = apparatus_for(terminal, signed(key, hardware_id="toaster-r2"))
    run(apparatus, terminal)
    assert "the image is for toaster-r2" in failure(apparatus)
    assert apparatus.transfers == 0


def test_an_image_older_than_the_counter_is_not_even_sent(key: Path) -> None:
    terminal = ScriptedTerminal(counter=3)
    apparatus = apparatus_for(terminal, signed(key, security_counter=2))
    run(apparatus, terminal)
    assert "its security counter is 2, the terminal T-0001 holds 3" in failure(apparatus)
    assert apparatus.transfers == 0


def test_the_terminals_refusal_is_passed_on(image: bytes) -> None:
    terminal = ScriptedTerminal(check=lambda _image: "signature wrong")
    apparatus = apparatus_for(terminal, image)
    run(apparatus, terminal)
    assert "refused the image: signature wrong" in failure(apparatus)


def test_a_file_that_is_too_large_is_refused_once(image: bytes) -> None:
    terminal = ScriptedTerminal(limit=1000)
    apparatus = apparatus_for(terminal, image)
    run(apparatus, terminal)
    assert "refused the image: file too large" in failure(apparatus)
    assert apparatus.transfers == 1


def test_a_transfer_that_the_terminal_breaks_off_is_tried_again_but_not_for_ever(
    image: bytes,
) -> None:
    terminal = ScriptedTerminal(limit=1000, garbled=lambda data: data.replace(b"large", b"l#rge"))
    apparatus = apparatus_for(terminal, image, attempts=3)
    run(apparatus, terminal)
    assert "cancelled the transfer" in failure(apparatus)
    assert apparatus.transfers == 3


def test_damage_on_the_way_is_sent_again_but_a_lasting_objection_is_believed(image: bytes) -> None:
    objections = ["image hash wrong", ""]
    terminal = ScriptedTerminal(check=lambda _image: objections.pop(0))
    apparatus = apparatus_for(terminal, image)
    run(apparatus, terminal)
    assert apparatus.stage is RestorationStage.DONE
    assert apparatus.transfers == 2
    terminal = ScriptedTerminal(check=lambda _image: "image hash wrong")
    apparatus = apparatus_for(terminal, image)
    run(apparatus, terminal)
    assert "refused the image: image hash wrong" in failure(apparatus)
    assert apparatus.transfers == 2


def test_software_that_fails_its_trial_is_no_success(image: bytes) -> None:
    terminal = ScriptedTerminal(trials=["panic"] * 3)
    apparatus = apparatus_for(terminal, image)
    run(apparatus, terminal)
    assert "again: the new software failed its trial" in failure(apparatus)
    assert terminal.starts == 3


def test_software_that_passes_its_second_trial_is_a_success(image: bytes) -> None:
    terminal = ScriptedTerminal(trials=["panic", "ok"])
    apparatus = apparatus_for(terminal, image)
    run(apparatus, terminal)
    assert apparatus.stage is RestorationStage.DONE
    assert terminal.starts == 2


def test_software_that_runs_on_is_a_success_even_if_unsaid(image: bytes) -> None:
    terminal = ScriptedTerminal(trials=["quiet"])
    apparatus = apparatus_for(terminal, image)
    assert run(apparatus, terminal) > 10.0
    assert apparatus.stage is RestorationStage.DONE


def test_software_that_dies_is_no_success(image: bytes) -> None:
    terminal = ScriptedTerminal(trials=["dead"])
    apparatus = apparatus_for(terminal, image)
    run(apparatus, terminal)
    assert "has not started it" in failure(apparatus)


def test_software_whose_start_was_not_heard_is_found_by_its_prompt(image: bytes) -> None:
    terminal = ScriptedTerminal(garbled=lambda data: data.split(b"boot: ")[0])
    apparatus = apparatus_for(terminal, image)
    terminal.start(0.0)
    terminal._outbox = terminal._outbox.split(b"\r\n", 1)[1]
    terminal.garbled = lambda data: data.replace(b"built", b"b*ilt")
    run(apparatus, terminal, on_at=1000.0)
    assert apparatus.stage is RestorationStage.DONE
    assert apparatus.digest == hashlib.sha256(image).hexdigest()
    assert apparatus.running == ""


@pytest.mark.parametrize("cut_at", [1, 1024, 9000, 20_000])
@pytest.mark.parametrize("banner", [True, False])
def test_a_power_cut_in_mid_transfer_is_overcome(
    image: bytes,
    cut_at: int,
    banner: bool,
) -> None:
    terminal = ScriptedTerminal(cut_at=cut_at, banner=banner)
    apparatus = apparatus_for(terminal, image)
    run(apparatus, terminal)
    assert apparatus.stage is RestorationStage.DONE
    assert apparatus.transfers == 2
    assert terminal.image == image
    assert apparatus.reason == ("power came back" if banner else "")


@pytest.mark.parametrize("seed", range(12))
def test_noise_from_the_terminal_is_overcome(image: bytes, seed: int) -> None:
    rng = random.Random(seed)

    def garble(data: bytes) -> bytes:
        if not data or rng.random() >= 0.05:
            return data
        at = rng.randrange(len(data))
        return data[:at] + bytes([rng.randrange(256)]) + data[at + 1 :]

    terminal = ScriptedTerminal(garbled=garble)
    apparatus = apparatus_for(terminal, image)
    run(apparatus, terminal, limit=2000.0)
    assert apparatus.stage is RestorationStage.DONE
    assert terminal.image == image


def test_a_cancelled_restoration_lets_the_terminal_wait_again(image: bytes) -> None:
    terminal = ScriptedTerminal()
    apparatus = apparatus_for(terminal, image)
    run(apparatus, terminal, limit=0.3)
    assert apparatus.stage is RestorationStage.SENDING
    apparatus.cancel()
    assert "cancelled" in failure(apparatus)
    second = apparatus_for(terminal, image)
    now = 1.0
    while not second.finished and now < 60.0:
        terminal.step(now)
        second.step(now)
        now += TICK_S
    assert second.stage is RestorationStage.DONE


@contextlib.contextmanager
def served(
    terminal: ScriptedTerminal, receive: Callable[[], bytes], send: Callable[[bytes], object]
) -> Iterator[None]:
    """Let a scripted terminal live on a real port, in a thread."""
    stop = threading.Event()

    def live() -> None:
        terminal.start(time.monotonic())
        while not stop.is_set():
            terminal.write(receive())
            terminal.step(time.monotonic())
            if output := terminal.read():
                send(output)

    thread = threading.Thread(target=live)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@pytest.fixture
def pseudo_terminal() -> Iterator[tuple[int, str]]:
    master, slave = os.openpty()
    tty.setraw(slave)
    yield master, os.ttyname(slave)
    os.close(slave)
    os.close(master)


def reader(descriptor: int) -> Callable[[], bytes]:
    def receive() -> bytes:
        ready, _, _ = select.select([descriptor], [], [], 0.02)
        return os.read(descriptor, 4096) if ready else b""

    return receive


@pytest.mark.parametrize("suffix", [".hex", ".bin"])
def test_claim_a12_any_serial_port_will_do(
    tmp_path: Path, image: bytes, pseudo_terminal: tuple[int, str], suffix: str
) -> None:
    master, name = pseudo_terminal
    file = tmp_path / f"image{suffix}"
    file.write_bytes(to_hex(image).encode() if suffix == ".hex" else image)
    terminal, stages = ScriptedTerminal(), set[RestorationStage]()
    with served(terminal, reader(master), lambda data: os.write(master, data)):
        done = restore(name, file, wait=30.0, progress=lambda a: stages.add(a.stage))
    assert done.stage is RestorationStage.DONE
    assert terminal.image == image
    assert stages >= {RestorationStage.SENDING, RestorationStage.DONE}


def test_a_tcp_port_will_do_too(tmp_path: Path, image: bytes) -> None:
    file = tmp_path / "image.bin"
    file.write_bytes(image)
    terminal = ScriptedTerminal()
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"tcp:127.0.0.1:{server.getsockname()[1]}"
        connection: list[socket.socket] = []

        def receive() -> bytes:
            if not connection:
                connection.append(server.accept()[0])
            return reader(connection[0].fileno())()

        def send(data: bytes) -> None:
            connection[0].sendall(data)

        with served(terminal, receive, send):
            done = restore(address, file, wait=30.0)
        connection[0].close()
    assert done.stage is RestorationStage.DONE
    assert terminal.image == image


def test_a_port_that_vanishes_is_an_error_of_the_port() -> None:
    def use(line: SerialLine) -> None:
        for _ in range(100):
            line.wait(1.0)
            line.write(b"x")

    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        SerialLine(f"socket://127.0.0.1:{server.getsockname()[1]}", 115_200) as line,
    ):
        server.accept()[0].close()
        with pytest.raises(PortError, match="is gone"):
            use(line)


@pytest.mark.parametrize(
    ("port", "message"),
    [
        ("/dev/does-not-exist", "cannot open the port /dev/does-not-exist: it does not exist"),
        ("tcp:127.0.0.1:1", "nobody listens there"),
        ("nonsense://x", "cannot open the port"),
        ("tcp:nowhere", "cannot open the port"),
    ],
)
def test_ports_that_cannot_be_opened(tmp_path: Path, image: bytes, port: str, message: str) -> None:
    file = tmp_path / "image.bin"
    file.write_bytes(image)
    with pytest.raises(PortError, match=message) as caught:
        restore(port, file)
    assert caught.value.hint
    assert caught.value.exit_code == 2


def test_bad_files_are_refused_before_the_port_is_opened(tmp_path: Path, key: Path) -> None:
    cases = {
        "not.hex": (b"hello", "not Intel HEX"),
        "elsewhere.hex": (b":020000048000" + b"7A\n:0100000041BE\n:00000001FF\n", "this board"),
        "noise.bin": (b"\0" * 100, "not an image"),
        "toaster.bin": (signed(key, hardware_id="toaster-r2"), "other hardware"),
        "large.bin": (signed(key, 1 << 20), "too large for the partition"),
    }
    for name, (content, message) in cases.items():
        file = tmp_path / name
        file.write_bytes(content)
        with pytest.raises(ImageError, match=message):
            restore("/dev/does-not-exist", file)
