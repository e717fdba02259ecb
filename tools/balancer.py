"""A UDP balancer for several servers: what a terminal sends goes to one of them while that lives.

Each terminal has a socket here for the server that it is given, as with the balancers of nginx and
Envoy. So a server reaches a terminal only at the socket that the terminal's datagrams came from. A
server is gone when its machine says that nobody listens there (ICMP); its terminals are given to
others.

Arguments: the port to listen on (0: a free one), the probability that a datagram goes to another
server than those before it, and the ports of the servers. Says one line with its port when it is
ready.
"""

from __future__ import annotations

import contextlib
import random
import resource
import selectors
import socket
import sys
from dataclasses import dataclass

HOST = "127.0.0.1"
BUFFER = 4 << 20  # bytes
MAX_DATAGRAM = 2048  # bytes

Address = tuple[str, int]


@dataclass
class _Terminal:
    """A terminal, and the socket that it has towards its server."""

    address: Address
    server: int
    socket: socket.socket


class Balancer:
    """Carries datagrams between terminals and servers, until it is ended.

    Args:
        port: where terminals send to.
        servers: UDP ports.
        moves: the probability that a datagram goes to another server than those before it.
    """

    def __init__(self, port: int, servers: list[int], moves: float = 0.0) -> None:
        self._servers, self._moves, self._random = servers, moves, random.Random(1)
        self._front = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._front.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
        self._front.bind((HOST, port))
        self._front.setblocking(False)
        self._terminals: dict[Address, _Terminal] = {}
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._front, selectors.EVENT_READ)
        self.port: int = self._front.getsockname()[1]

    def run(self) -> None:
        """Carry."""
        while True:
            self.carry()

    def carry(self) -> None:
        """Wait until something comes, and carry what is there then."""
        for key, _ in self._selector.select():
            if key.data is None:
                self._from_terminals()
            elif self._terminals[key.data.address] is key.data:  # It was not given away meanwhile.
                self._from_server(key.data)

    def _from_terminals(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                data, address = self._front.recvfrom(MAX_DATAGRAM)
                terminal = self._terminals.get(address)
                if terminal is None:
                    terminal = self._give(address, self._servers)
                elif self._random.random() < self._moves:
                    terminal = self._give_another(terminal)
                try:
                    terminal.socket.send(data)
                except ConnectionError:  # What was sent before has met nobody.
                    self._give_another(terminal).socket.send(data)

    def _from_server(self, terminal: _Terminal) -> None:
        try:
            while True:
                self._front.sendto(terminal.socket.recv(MAX_DATAGRAM), terminal.address)
        except BlockingIOError:
            pass
        except ConnectionError:
            self._give_another(terminal)

    def _give(self, address: Address, servers: list[int]) -> _Terminal:
        """Give a terminal to one of some servers."""
        server = self._random.choice(servers)
        back = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        back.setblocking(False)
        back.connect((HOST, server))
        terminal = self._terminals[address] = _Terminal(address, server, back)
        self._selector.register(back, selectors.EVENT_READ, terminal)
        return terminal

    def _give_another(self, terminal: _Terminal) -> _Terminal:
        """Give a terminal to another server than it has; what that one still sends is lost."""
        if self._terminals.get(terminal.address) is not terminal:
            return self._terminals[terminal.address]
        self._selector.unregister(terminal.socket)
        terminal.socket.close()
        others = [server for server in self._servers if server != terminal.server]
        return self._give(terminal.address, others or self._servers)


def main() -> None:
    """Run until ended."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    port, moves, *servers = sys.argv[1:]
    balancer = Balancer(int(port), [int(server) for server in servers], float(moves))
    print(f"balancer: ready, port {balancer.port}", flush=True)
    balancer.run()


if __name__ == "__main__":
    main()
