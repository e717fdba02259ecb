"""UARTs as TCP ports and pseudo-terminals."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest
from patience import PATIENCE_S

from unbrick.engine.ports import BURST, KEPT, Port, PtyPort, TcpPort
from unbrick.errors import PortError

RATE = 1000.0  # bytes a second


class RecordedLine:
    """A UART: what goes to the terminal, and what the terminal is to say."""

    def __init__(self) -> None:
        self.written = b""
        self.to_say = b""

    def write(self, data: bytes) -> None:
        self.written += data

    def read(self) -> bytes:
        said, self.to_say = self.to_say, b""
        return said


class TcpProgram:
    """A program that has connected to the port."""

    def __init__(self, port: TcpPort) -> None:
        host, _, number = port.address.partition(":")
        self.socket = socket.create_connection((host, int(number)), timeout=PATIENCE_S)

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def receive(self, count: int) -> bytes:
        got = b""
        while len(got) < count and (data := self.socket.recv(count - len(got))):
            got += data
        return got

    def close(self) -> None:
        self.socket.close()


class PtyProgram:
    """A program that has opened the pseudo-terminal."""

    def __init__(self, port: PtyPort) -> None:
        self.descriptor = os.open(port.path, os.O_RDWR | os.O_NOCTTY)

    def send(self, data: bytes) -> None:
        while data:
            data = data[os.write(self.descriptor, data) :]

    def receive(self, count: int) -> bytes:
        got = b""
        while len(got) < count:
            got += os.read(self.descriptor, count - len(got))
        return got

    def close(self) -> None:
        os.close(self.descriptor)


Program = TcpProgram | PtyProgram


@pytest.fixture
def line() -> RecordedLine:
    return RecordedLine()


@pytest.fixture(params=["tcp", "pty"])
def port(request: pytest.FixtureRequest, line: RecordedLine) -> Iterator[Port]:
    made = TcpPort(line, rate=RATE) if request.param == "tcp" else PtyPort(line, rate=RATE)
    yield made
    made.close()


@pytest.fixture
def program(port: Port) -> Iterator[Program]:
    assert isinstance(port, TcpPort | PtyPort)
    made = TcpProgram(port) if isinstance(port, TcpPort) else PtyProgram(port)
    yield made
    made.close()


def step_until_written(port: Port, line: RecordedLine, count: int, now: float) -> None:
    """Give the port turns without letting time pass, until ``count`` bytes are there."""
    for _ in range(100_000):
        port.step(now)
        if len(line.written) >= count:
            return
    raise AssertionError(f"only {len(line.written)} of {count} bytes came")


def test_bytes_of_every_value_pass_both_ways(
    port: Port, line: RecordedLine, program: Program
) -> None:
    every = bytes(range(256))
    line.to_say = every
    port.step(0.0)
    assert program.receive(256) == every
    program.send(every)
    step_until_written(port, line, 256, 0.0)
    assert line.written == every


def test_what_is_said_before_anyone_listens_is_kept(port: Port, line: RecordedLine) -> None:
    line.to_say = b"early, "
    port.step(0.0)
    line.to_say = b"late"
    port.step(0.1)
    assert isinstance(port, TcpPort | PtyPort)
    program = TcpProgram(port) if isinstance(port, TcpPort) else PtyProgram(port)
    port.step(0.2)
    assert program.receive(11) == b"early, late"
    program.close()


def test_not_more_than_the_lines_rate_goes_to_the_terminal(
    port: Port, line: RecordedLine, program: Program
) -> None:
    sent = bytes(i * 7 % 251 for i in range(2000))
    program.send(sent)
    step_until_written(port, line, BURST, 0.0)
    for _ in range(100):
        port.step(0.0)
    assert len(line.written) == BURST, "no time has passed"
    step_until_written(port, line, BURST + 250, 0.25)
    for _ in range(100):
        port.step(0.25)
    assert len(line.written) == BURST + 250
    port.step(60.0)
    port.step(60.0)
    assert len(line.written) <= 2 * BURST + 250, "a pause is not saved up for later"
    for second in range(61, 70):
        port.step(float(second))
    assert line.written == sent


def test_a_tcp_program_may_leave_and_another_come(line: RecordedLine) -> None:
    port = TcpPort(line, rate=RATE)
    first = TcpProgram(port)
    first.send(b"one")
    step_until_written(port, line, 3, 0.0)
    second = TcpProgram(port)
    second.send(b"two")
    port.step(1.0)
    assert line.written == b"one", "one at a time"
    first.close()
    step_until_written(port, line, 6, 2.0)
    assert line.written == b"onetwo"
    line.to_say = b"three"
    port.step(3.0)
    assert second.receive(5) == b"three"
    second.close()
    port.close()


def test_what_nobody_reads_is_kept_up_to_a_limit(line: RecordedLine) -> None:
    port = TcpPort(line, rate=RATE)
    line.to_say = b"\x00" * KEPT + b"the end"
    port.step(0.0)
    program = TcpProgram(port)
    got = b""
    while len(got) < KEPT:
        port.step(1.0)
        got += program.socket.recv(65536)
    assert got.endswith(b"the end")
    assert len(got) == KEPT
    program.close()
    port.close()


def test_a_port_that_is_taken_is_said_with_the_next_step(line: RecordedLine) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = taken.getsockname()[1]
        with pytest.raises(PortError, match=f"cannot listen on 127.0.0.1:{number}") as caught:
            TcpPort(line, number)
    assert caught.value.hint
