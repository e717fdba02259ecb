"""The server's process: CoAP and HTTP side by side on one event loop."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TextIO

import uvicorn

from unbrick.errors import ImageError, PortError
from unbrick.image import format as image_format
from unbrick.server.analysis import Analyst
from unbrick.server.coap import CoapServer
from unbrick.server.core import ServerCore
from unbrick.server.database import SqlRecords
from unbrick.server.http import make_app
from unbrick.server.user_records import Preparation
from unbrick.server.worker import Worker

SHUTDOWN_TIMEOUT = 3
"""Seconds that HTTP requests under way get when the server is told to stop."""


@dataclass(frozen=True)
class Settings:
    """Where the server listens and where it keeps its records; port 0 takes a free one."""

    host: str = "127.0.0.1"
    coap_port: int = 5683
    http_port: int = 8080
    database: str = "unbrick-server.db"


class _HttpServer(uvicorn.Server):
    """uvicorn without its handling of signals: ours ends CoAP too, and with exit code 0."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def inspect_signed(data: bytes) -> image_format.ImageInfo:
    """What an image says about itself.

    Raises:
        ImageError: it is damaged, or not signed.
    """
    info = image_format.inspect(data)
    if not info.signed:
        raise ImageError(
            "the image is not signed, no terminal would take it",
            hint="sign it with `unbrick image sign`",
        )
    return info


def _bind(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
    except OSError as error:
        sock.close()
        raise PortError(
            f"TCP port {port} of {host} cannot be used: {error.strerror}",
            hint="is another server running? give another port, or 0 for a free one",
        ) from error
    return sock


def _url(scheme: str, host: str, port: int) -> str:
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


async def serve(
    settings: Settings,
    *,
    inspect: Callable[[bytes], image_format.ImageInfo] = inspect_signed,
    out: TextIO | None = None,
) -> None:
    """Run until SIGTERM or SIGINT; says one line on ``out`` when both ports answer.

    Raises:
        PortError: a port cannot be used.
        SetupError: the database cannot be opened.
    """
    records = SqlRecords(settings.database)
    analyst = Analyst(records)
    core = ServerCore(records, inspect, analyst=analyst)
    coap = CoapServer(core)

    def announce(prepared: Preparation) -> None:
        core.prepared(prepared.digest)
        coap.pump()

    worker = Worker(analyst, announce)
    with contextlib.ExitStack() as stack:
        stack.callback(records.close)
        sock = stack.enter_context(_bind(settings.host, settings.http_port))
        await coap.start(settings.host, settings.coap_port)
        config = uvicorn.Config(
            make_app(coap.core, coap.pump, time.time),
            log_level="warning",
            lifespan="off",
            ws="none",
            timeout_graceful_shutdown=SHUTDOWN_TIMEOUT,
        )
        http = _HttpServer(config)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, _stop, http)
            stack.callback(loop.remove_signal_handler, number)
        ready = asyncio.create_task(_say_ready(http, coap, sock, out or sys.stdout))
        work = asyncio.create_task(worker.run())
        work.add_done_callback(lambda _: _stop(http))  # Without it updates would wait for ever.
        try:
            await http.serve(sockets=[sock])
        finally:
            ready.cancel()
            work.cancel()
            await coap.close()
            with contextlib.suppress(asyncio.CancelledError):
                await work


def _stop(http: uvicorn.Server) -> None:
    http.should_exit = True


async def _say_ready(
    http: uvicorn.Server, coap: CoapServer, sock: socket.socket, out: TextIO
) -> None:
    while not http.started:  # noqa: ASYNC110 - uvicorn has nothing that could be waited for
        await asyncio.sleep(0.01)
    port = sock.getsockname()[1]
    addresses = _url("coap", coap.host, coap.port), _url("http", coap.host, port)
    out.write(f"server: ready, {addresses[0]} {addresses[1]}\n")
    out.flush()
