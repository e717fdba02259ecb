"""A stand-in for a real board: an emulated terminal behind two pseudo-terminals, with a switch.

``emulated_board.py`` runs the board, by the clock, and prints one line::

    wire /dev/pts/3 modem /dev/pts/4 switch 40123

``emulated_board.py PORT on``, ``off``, ``load FILE`` and ``read FILE`` are what a board file has as
commands: they switch its power and write and read its NOR, and end when that is done.
"""

from __future__ import annotations

import socket
import sys
from contextlib import suppress
from pathlib import Path

from patience import PATIENCE_S

SPEED = 2.0  # of the terminal's time, so that a test need not wait


def run() -> None:
    """The board, until it is killed."""
    # Here, because the commands need to be quick.
    from unbrick.engine.create import create_engine  # noqa: PLC0415
    from unbrick.engine.ports import PtyPort  # noqa: PLC0415

    engine = create_engine("inprocess", speed=SPEED)
    rate = engine.board.line_rate
    wire, modem = PtyPort(engine.wire, rate=rate), PtyPort(engine.radio, rate=rate)
    server = socket.create_server(("127.0.0.1", 0))
    server.setblocking(False)
    ports = f"wire {wire.path} modem {modem.path} switch {server.getsockname()[1]}"
    print(ports, flush=True)  # noqa: T201

    def obey() -> None:
        with suppress(BlockingIOError), server.accept()[0] as client:
            client.setblocking(True)
            word, _, file = client.makefile().readline().strip().partition(" ")
            if word == "on":
                engine.power_on()
            elif word == "off":
                pass_time()  # what was said goes out first
                engine.power_off()
            elif word == "load":
                engine.load_nor(Path(file).read_bytes())
            elif word == "read":
                Path(file).write_bytes(engine.read_nor())
            client.sendall(b"done\n")

    def pass_time() -> None:
        engine.advance(0.005)
        for port in (wire, modem):
            port.step(engine.now)

    while True:
        obey()
        pass_time()  # no look at the firmware's faults: a board just stands still


def command(port: int, *words: str) -> None:
    """Have the board do something, and wait until it is done."""
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as board:
        board.sendall(" ".join(words).encode() + b"\n")
        if board.recv(16) != b"done\n":
            sys.exit("the board did not do it")


if __name__ == "__main__":
    if sys.argv[1:]:
        command(int(sys.argv[1]), *sys.argv[2:])
    else:
        run()
