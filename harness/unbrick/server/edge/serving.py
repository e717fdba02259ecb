"""What every process with an HTTP port needs around uvicorn."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator

import uvicorn

from unbrick.errors import PortError


class HttpServer(uvicorn.Server):
    """uvicorn without its handling of signals: whoever runs it ends, and with exit code 0."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave them alone."""
        yield


def bind(host: str, port: int, what: str) -> socket.socket:
    """A TCP socket for ``what``, a word for people; port 0 takes a free one.

    Raises:
        PortError: the port cannot be used.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With the protocol: only then asyncio has answers leave at once (TCP_NODELAY).
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
    except OSError as error:
        sock.close()
        raise PortError(
            f"TCP port {port} of {host} cannot be used: {error.strerror}",
            hint=f"is another {what} running? give another port, or 0 for a free one",
        ) from error
    return sock


def format_url(scheme: str, host: str, port: int) -> str:
    """A URL of a host, also of one that is an IPv6 address."""
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


async def wait_started(http: uvicorn.Server) -> None:
    """Wait until it answers."""
    while not http.started:  # noqa: ASYNC110 - uvicorn has nothing that could be waited for
        await asyncio.sleep(0.01)
