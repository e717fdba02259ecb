"""The customer center's process: its page on a TCP port."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import uvicorn

from unbrick.center.calls.menu import DEFAULT, read_menu
from unbrick.center.center import Center
from unbrick.center.desk import COMMANDED, Desk
from unbrick.center.operators.database import SqlAccounts
from unbrick.center.page.web import make_app
from unbrick.server.database import SqlRecords
from unbrick.server.edge.client import ServerClient
from unbrick.server.edge.exposure import Exposure, HostGuard
from unbrick.server.edge.serving import HttpServer, bind, format_url, wait_started

SHUTDOWN_TIMEOUT_S = 3
"""Seconds that requests under way get when the center is told to stop."""


@dataclass(frozen=True)
class CenterSettings:
    """Where the center listens, and what it works with.

    Attributes:
        exposure: of its page.
        database: of users, the server's.
        accounts: database of operators, the center's own.
        notify: users are told by text message what is ready for their terminals.
        upgrade: how a call upgrades a terminal, if it can be so; one of ``WAYS``.
    """

    exposure: Exposure
    server_url: str
    database: str
    accounts: str
    menu: Path = DEFAULT
    notify: bool = True
    upgrade: str = COMMANDED


async def serve(settings: CenterSettings, *, out: TextIO | None = None) -> None:
    """Run until SIGTERM or SIGINT; says one line on ``out`` when it answers.

    Raises:
        PortError: the port cannot be used.
        SetupError: a database or the menu cannot be read, or nobody could sign in.
    """
    exposure = settings.exposure
    exposure.check()
    menu = read_menu(settings.menu)
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(ServerClient(settings.server_url))
        accounts = SqlAccounts(settings.accounts)
        stack.callback(accounts.close)
        records = SqlRecords(settings.database)
        stack.callback(records.close)
        desk = Desk(records, server, settings.upgrade)
        center = Center(desk, accounts, menu, time.time, notify=settings.notify)
        sock = stack.enter_context(bind(exposure.host, exposure.port, "center"))
        config = uvicorn.Config(
            HostGuard(make_app(center), exposure.names),
            log_level="warning",
            lifespan="on",
            ws="none",
            **exposure.options(),
            timeout_graceful_shutdown=SHUTDOWN_TIMEOUT_S,
        )
        http = HttpServer(config)
        loop = asyncio.get_running_loop()

        def stop() -> None:
            center.hub.close()
            http.should_exit = True

        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop)
            stack.callback(loop.remove_signal_handler, number)
        words = out or sys.stdout
        ready = asyncio.create_task(
            _say_ready(http, sock, settings, words, empty=not accounts.operators())
        )
        try:
            await http.serve(sockets=[sock])
        finally:
            ready.cancel()


async def _say_ready(
    http: uvicorn.Server, sock: socket.socket, settings: CenterSettings, out: TextIO, *, empty: bool
) -> None:
    await wait_started(http)
    exposure = settings.exposure
    url = format_url(exposure.scheme, exposure.host, sock.getsockname()[1])
    out.write(f"center: ready, {url}\n")
    if empty:
        command = "unbrick center add-operator NAME --role clerk"
        out.write(f"center: nobody can sign in, `{command} --accounts {settings.accounts}`\n")
    out.flush()
