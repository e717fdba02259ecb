"""Servers that start within milliseconds, because this process has imported all that they need.

Run with ``killer.c`` preloaded. Each line of standard input starts a server: its database, its UDP
port, and at which of its calls it is killed (0: at none). Says its process number, what it says
itself, and how it ended.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import sys

from unbrick.server.edge.exposure import Exposure
from unbrick.server.edge.main import ServerSettings, serve

HOST = "127.0.0.1"


def say(line: str) -> None:
    """Say it at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> None:
    """Start one after the other."""
    for line in sys.stdin:
        database, port, number = line.split()
        pid = os.fork()
        if not pid:
            say(f"pid {os.getpid()}")
            ctypes.CDLL(None).kill_at(ctypes.c_long(int(number)))
            exposure = Exposure(HOST, 0, (), None, None, False)
            settings = ServerSettings(HOST, int(port), exposure, database)
            asyncio.run(serve(settings))
            os._exit(0)
        _, status = os.waitpid(pid, 0)
        say(f"ended {os.waitstatus_to_exitcode(status)}")


if __name__ == "__main__":
    main()
