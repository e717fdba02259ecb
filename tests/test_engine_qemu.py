"""The QEMU engine alone, with the probe as firmware."""

from __future__ import annotations

import gc
import os
import signal
import socket
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from patience import PATIENCE_S, until
from probed import (
    LOOP_OF_EXCEPTIONS,
    LOOP_OF_RESETS,
    check_nobody_reads,
    check_nor_is_replaced_only_without_power,
    check_power_off_loses_the_sram,
    hear,
    hear_until,
    runs,
)

from unbrick.engine.qemu.engine import QemuEngine, QemuNor
from unbrick.engine.qemu.process import find_qemu
from unbrick.errors import EngineError, MissingToolError
from unbrick.layout import reference_layout

LAYOUT = reference_layout()


@pytest.fixture
def engine(qemu: str, probe_image: bytes) -> Iterator[QemuEngine]:
    """A terminal that runs the probe and has said so."""
    assert qemu
    with QemuEngine() as made:
        assert isinstance(made, QemuEngine)
        made.load_nor(probe_image)
        made.power_on()
        hear(made, b"!\n")
        yield made


def pid_of(engine: QemuEngine) -> int:
    assert engine._process is not None
    return engine._process._child.pid


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_what_was_programmed_is_in_the_nor_at_the_moment_of_the_cut(engine: QemuEngine) -> None:
    engine.wire.write(b"e7c")
    hear(engine, b"00000007\n")
    engine.power_off()
    assert engine.read_nor()[0x80000:0x80008] == bytes.fromhex("07207047ffffffff")


def test_power_off_loses_the_sram_and_keeps_the_nor(engine: QemuEngine) -> None:
    check_power_off_loses_the_sram(engine)


def test_no_byte_is_lost_however_many(engine: QemuEngine) -> None:
    text = bytes(b"ABDGIJKLMNPQ"[i * i % 12] for i in range(30_000)) + b"Z"
    engine.wire.write(text)
    assert hear(engine, b"Z") == text


def test_a_terminal_that_does_not_read_does_not_block_the_bench(engine: QemuEngine) -> None:
    check_nobody_reads(engine)


def test_what_is_written_without_power_is_lost(engine: QemuEngine) -> None:
    engine.power_off()
    engine.wire.write(b"A")
    before = engine.now
    engine.advance(0.01)
    assert engine.now >= before + 0.01
    engine.power_on()
    hear(engine, b"!\n")
    engine.wire.write(b"B")
    assert hear(engine, b"B") == b"B"


def test_what_was_sent_before_the_cut_can_be_read_after_it(engine: QemuEngine) -> None:
    assert engine._process is not None
    end = engine._process.ends["wire"]
    end.send(b"AB")  # not by the line, which would take the echo at once
    until(lambda: len(peek(end)) == 2)
    engine.power_off()
    assert engine.wire.read() == b"AB"
    assert engine.wire.read() == b""


def peek(end: socket.socket) -> bytes:
    try:
        return end.recv(16, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return b""


def test_the_nor_is_replaced_only_without_power(engine: QemuEngine) -> None:
    check_nor_is_replaced_only_without_power(engine)


def test_exceptions_are_faults_and_a_flood_of_them_blocks_nothing(qemu: str) -> None:
    assert qemu
    with QemuEngine() as engine:
        assert isinstance(engine, QemuEngine)
        engine.load_nor(LOOP_OF_EXCEPTIONS)
        engine.power_on()
        deadline = engine.now + PATIENCE_S
        while len(engine.faults) < 64 and engine.now < deadline:
            engine.advance(0.05)
        assert {fault.kind for fault in engine.faults} == {"exception"}
        assert len(engine.faults) == 64
        assert "Undefined" in engine.faults[0].detail
        engine.power_off()


def test_an_emulator_that_dies_is_an_error_and_not_a_hang(engine: QemuEngine) -> None:
    os.kill(pid_of(engine), signal.SIGKILL)
    with pytest.raises(EngineError, match="ended by itself"):
        hear(engine, b"never said")
    assert not engine.powered
    engine.power_on()
    hear(engine, b"!\n")


def test_a_board_that_resets_itself_starts_again_from_the_nor(qemu: str) -> None:
    assert qemu
    with QemuEngine() as engine:
        assert isinstance(engine, QemuEngine)
        engine.load_nor(LOOP_OF_RESETS)
        engine.power_on()
        first = pid_of(engine)
        # On a busy machine it may have begun a third time before anybody looks.
        assert set(hear_until(engine, lambda said: len(said) > 1)) == set(b"R")
        assert pid_of(engine) != first
        assert engine.powered
        assert engine.faults == []


def test_arguments_that_qemu_refuses_are_told_in_its_words(qemu: str) -> None:
    assert qemu
    with QemuEngine(["-gdb", "nonsense"]) as engine:
        before = open_files()
        for _ in range(3):
            with pytest.raises(EngineError, match=r"ended by itself.*nonsense"):
                engine.power_on()
        assert not engine.powered
        assert open_files() == before


def test_without_qemu_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QEMU_SYSTEM_ARM", "")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(MissingToolError) as caught:
        QemuEngine()
    assert "apt install qemu-system-arm" in caught.value.hint
    monkeypatch.setenv("QEMU_SYSTEM_ARM", "/nowhere/qemu")
    with pytest.raises(MissingToolError, match="/nowhere/qemu"):
        find_qemu()


def test_the_variable_names_another_qemu(
    qemu: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    other = tmp_path / "my-qemu"
    other.symlink_to(qemu)
    monkeypatch.setenv("QEMU_SYSTEM_ARM", str(other))
    assert find_qemu() == str(other)
    with QemuEngine() as engine:
        assert isinstance(engine, QemuEngine)
        assert engine.version >= (7, 2, 0)


def test_close_leaves_no_process_and_no_file(
    qemu: str, probe_image: bytes, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert qemu
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    engine = QemuEngine()
    engine.load_nor(probe_image)
    engine.power_on()
    pid = pid_of(engine)
    assert runs(pid)
    assert list(tmp_path.iterdir())
    engine.close()
    engine.close()
    assert not runs(pid)
    assert list(tmp_path.iterdir()) == []


def test_an_engine_that_is_forgotten_ends_its_process(qemu: str) -> None:
    assert qemu
    engine = QemuEngine()
    engine.power_on()
    pid = pid_of(engine)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # the folder says that it was forgotten
        del engine
        gc.collect()
    assert not runs(pid)


def test_a_bench_that_is_killed_takes_its_qemu_along(qemu: str) -> None:
    assert qemu
    script = (
        "import time; from unbrick.engine.qemu.engine import QemuEngine\n"
        "e = QemuEngine(); e.power_on(); print(e._process._child.pid, e._folder.name, flush=True)\n"
        "time.sleep(600)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True
    ) as bench:
        assert bench.stdout is not None
        pid, folder = bench.stdout.readline().split()
        try:
            assert runs(int(pid))
        finally:
            bench.kill()
    until(lambda: not runs(int(pid)))
    for file in Path(folder).iterdir():
        file.unlink()
    Path(folder).rmdir()


def test_the_nor_alone_answers_the_bus(qemu: str) -> None:
    assert qemu
    with QemuNor() as nor:
        nor.write32(0x154, 0x00980098)
        assert [nor.read32(4 * word) for word in (0x10, 0x11, 0x12)] == [
            0x00510051,
            0x00520052,
            0x00590059,
        ]
        nor.reset()
        assert nor.read32(0) == 0xFFFFFFFF
