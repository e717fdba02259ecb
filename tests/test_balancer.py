"""The UDP balancer that tests and measurements put before several servers."""

from __future__ import annotations

import socket
from contextlib import ExitStack, closing

from patience import PATIENCE_S

from balancer import Balancer


def open_socket(stack: ExitStack) -> socket.socket:
    """One that is bound, and waits as long as a test does."""
    opened = stack.enter_context(closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)))
    opened.bind(("127.0.0.1", 0))
    opened.settimeout(PATIENCE_S)
    return opened


def test_what_a_server_says_to_a_terminal_that_was_given_away_is_lost() -> None:
    with ExitStack() as stack:
        terminal, first, second = (open_socket(stack) for _ in range(3))
        balancer = Balancer(0, [first.getsockname()[1], second.getsockname()[1]], moves=1.0)
        front = ("127.0.0.1", balancer.port)
        terminal.sendto(b"one", front)
        balancer.carry()
        first.setblocking(False)
        try:
            _, back = first.recvfrom(16)
            here = first
        except BlockingIOError:
            _, back = second.recvfrom(16)
            here = second
        # Both are there when the balancer looks, first what moves the terminal.
        terminal.sendto(b"two", front)
        here.sendto(b"lost", back)
        balancer.carry()
        other = second if here is first else first
        other.settimeout(PATIENCE_S)
        data, back = other.recvfrom(16)
        assert data == b"two"
        other.sendto(b"answer", back)
        balancer.carry()
        assert terminal.recvfrom(16)[0] == b"answer"
