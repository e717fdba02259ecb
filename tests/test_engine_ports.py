"""UARTs as TCP ports and pseudo-terminals."""

from __future__ import annotations

import os
import socket
import termios
import tty
from collections.abc import Iterator

import pytest
from patience import PATIENCE_S

from unbrick.engine.ports import BURST_BYTES, MAX_BEHIND_BYTES, Port, PtyPort, TcpPort
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


def come(port: Port) -> Program:
    """A program that opens the port."""
    assert isinstance(port, TcpPort | PtyPort)
    return TcpProgram(port) if isinstance(port, TcpPort) else PtyProgram(port)


def step_until_closed(port: Port) -> None:
    """Give the port turns until it has seen that the program is gone."""
    for _ in range(100_000):
        port.step(0.0)
        if not port._open:
            return
    raise AssertionError("the port takes the program for one that is there")


def test_what_is_said_while_no_program_has_the_port_open_is_lost(
    port: Port, line: RecordedLine
) -> None:
    line.to_say = b"early, "
    port.step(0.0)
    program = come(port)
    line.to_say = b"in between, "
    port.step(0.2)
    assert program.receive(12) == b"in between, "
    line.to_say = b"not read"
    port.step(0.3)
    program.close()
    step_until_closed(port)
    line.to_say = b"nobody"
    port.step(0.4)
    program = come(port)
    line.to_say = b"late"
    port.step(0.5)
    assert program.receive(4) == b"late"
    assert port.lost == 0, "there was nobody to lose it"
    program.close()


class Notes:
    """Remembers what was missed, and what was not."""

    def __init__(self) -> None:
        self.heard: list[tuple[bytes, bool]] = []

    def hear(self, data: bytes, *, read: bool) -> None:
        if data:
            self.heard.append((data, read))

    def take(self) -> bytes:
        return b"you have missed it, "


@pytest.mark.parametrize("kind", [TcpPort, PtyPort])
def test_a_program_that_comes_late_is_told_what_it_missed(
    kind: type[TcpPort | PtyPort], line: RecordedLine
) -> None:
    notes = Notes()
    port = kind(line, rate=RATE, missed=notes)
    line.to_say = b"early"
    port.step(0.0)
    program = come(port)
    line.to_say = b"now"
    port.step(0.1)
    assert program.receive(23) == b"you have missed it, now"
    assert notes.heard == [(b"early", False), (b"now", True)]
    program.close()
    port.close()


def test_a_program_that_empties_its_input_first_is_told_again(line: RecordedLine) -> None:
    port = PtyPort(line, rate=RATE, missed=Notes())
    program = PtyProgram(port)
    line.to_say = b"and this"
    port.step(0.0)
    termios.tcflush(program.descriptor, termios.TCIFLUSH)
    line.to_say = b", now"
    port.step(0.0)
    port.step(0.0)
    assert program.receive(33) == b"you have missed it, and this, now"
    termios.tcflush(program.descriptor, termios.TCIFLUSH)
    line.to_say = b"once"
    port.step(0.0)
    port.step(0.0)
    assert program.receive(4) == b"once", "it has had what it missed"
    program.close()
    port.close()


@pytest.mark.parametrize("late", [False, True])
def test_what_a_program_reads_in_answer_is_not_told_again(line: RecordedLine, late: bool) -> None:
    port = PtyPort(line, rate=RATE, missed=Notes())
    program = PtyProgram(port)
    if late:
        termios.tcflush(program.descriptor, termios.TCIFLUSH)
    port.step(0.0)
    assert program.receive(20) == b"you have missed it, "
    if not late:
        program.send(b"status")
        step_until_written(port, line, 6, 0.0)
    termios.tcflush(program.descriptor, termios.TCIFLUSH)
    line.to_say = b"well"
    port.step(0.0)
    port.step(0.0)
    assert program.receive(4) == b"well"
    program.close()
    port.close()


def test_what_a_program_leaves_behind_still_arrives(port: Port, line: RecordedLine) -> None:
    program = come(port)
    port.step(0.0)
    program.send(b"bye")
    program.close()
    step_until_written(port, line, 3, 0.0)
    assert line.written == b"bye"


def test_a_program_finds_the_pseudo_terminal_raw_whatever_the_last_one_did(
    line: RecordedLine,
) -> None:
    port = PtyPort(line, rate=RATE)
    first = PtyProgram(port)
    port.step(0.0)
    settings = termios.tcgetattr(first.descriptor)
    settings[tty.LFLAG] |= termios.ECHO | termios.ICANON
    termios.tcsetattr(first.descriptor, termios.TCSANOW, settings)
    first.close()
    step_until_closed(port)
    second = PtyProgram(port)
    line.to_say = b"\x03\r\n"
    port.step(0.0)
    assert second.receive(3) == b"\x03\r\n"
    assert line.written == b"", "nothing is echoed"
    second.close()
    port.close()


def test_no_more_is_taken_than_there_is_room_for(line: RecordedLine) -> None:
    room = [0]
    port = PtyPort(line, rate=RATE, room=lambda: room[0])
    program = PtyProgram(port)
    program.send(b"0123456789")
    for _ in range(100):
        port.step(0.0)
    assert line.written == b""
    room[0] = 4
    step_until_written(port, line, 4, 0.0)
    assert line.written == b"0123"
    program.close()
    port.close()


def test_not_more_than_the_lines_rate_goes_to_the_terminal(
    port: Port, line: RecordedLine, program: Program
) -> None:
    sent = bytes(i * 7 % 251 for i in range(2000))
    program.send(sent)
    step_until_written(port, line, BURST_BYTES, 0.0)
    for _ in range(100):
        port.step(0.0)
    assert len(line.written) == BURST_BYTES, "no time has passed"
    step_until_written(port, line, BURST_BYTES + 250, 0.25)
    for _ in range(100):
        port.step(0.25)
    assert len(line.written) == BURST_BYTES + 250
    port.step(60.0)
    port.step(60.0)
    assert len(line.written) <= 2 * BURST_BYTES + 250, "a pause is not saved up for later"
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


def test_a_program_that_does_not_read_is_waited_for_up_to_a_limit(line: RecordedLine) -> None:
    port = PtyPort(line, rate=RATE)
    program = PtyProgram(port)
    line.to_say = b"begin" + b"\0" * 10 * MAX_BEHIND_BYTES + b"the end"
    port.step(0.0)
    assert 8 * MAX_BEHIND_BYTES < port.lost <= 9 * MAX_BEHIND_BYTES + 12
    expected = 10 * MAX_BEHIND_BYTES + 12 - port.lost
    got = b""
    while len(got) < expected:
        port.step(1.0)
        got += program.receive(1)
        got += program.receive(min(100, expected - len(got)))
    assert got.startswith(b"begin")
    assert got.endswith(b"the end")
    assert port._unsent == b""
    program.close()
    port.close()


def test_a_port_that_is_taken_is_said_with_the_next_step(line: RecordedLine) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = taken.getsockname()[1]
        with pytest.raises(PortError, match=f"cannot listen on 127.0.0.1:{number}") as caught:
            TcpPort(line, number, rate=RATE)
    assert caught.value.hint
