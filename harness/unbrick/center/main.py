"""The customer center's process: its page on a TCP port."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
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
from unbrick.errors import SetupError
from unbrick.server.database import SqlRecords
from unbrick.server.edge.client import ServerClient
from unbrick.server.edge.serving import HttpServer, bind, format_url, wait_started

SHUTDOWN_TIMEOUT_S = 3
"""Seconds that requests under way get when the center is told to stop."""


@dataclass(frozen=True)
class CenterSettings:
    """Where the center listens, and what it works with; port 0 takes a free one.

    Attributes:
        database: of users, the server's.
        accounts: database of operators, the center's own.
        certificate: of TLS, with its ``key``; without it the page is for this machine alone.
        behind_proxy: a proxy in front does TLS.
        notify: users are told by text message what is ready for their terminals.
        upgrade: how a call upgrades a terminal, if it can be so; one of ``WAYS``.
    """

    host: str
    port: int
    server_url: str
    database: str
    accounts: str
    menu: Path = DEFAULT
    certificate: Path | None = None
    key: Path | None = None
    behind_proxy: bool = False
    notify: bool = True
    upgrade: str = COMMANDED


def _check(settings: CenterSettings) -> None:
    """Cookies of sessions travel by HTTPS alone, or within this machine."""
    if settings.certificate or settings.behind_proxy:
        return
    try:
        local = ipaddress.ip_address(settings.host).is_loopback
    except ValueError:
        local = settings.host == "localhost"
    if not local:
        raise SetupError(
            f"nobody could sign in at {settings.host} without HTTPS",
            hint="give --certificate and --key, or --behind-proxy when a proxy does TLS",
        )


async def serve(settings: CenterSettings, *, out: TextIO | None = None) -> None:
    """Run until SIGTERM or SIGINT; says one line on ``out`` when it answers.

    Raises:
        PortError: the port cannot be used.
        SetupError: a database or the menu cannot be read, or nobody could sign in.
    """
    _check(settings)
    menu = read_menu(settings.menu)
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(ServerClient(settings.server_url))
        accounts = SqlAccounts(settings.accounts)
        stack.callback(accounts.close)
        records = SqlRecords(settings.database)
        stack.callback(records.close)
        desk = Desk(records, server, settings.upgrade)
        center = Center(desk, accounts, menu, time.time, notify=settings.notify)
        sock = stack.enter_context(bind(settings.host, settings.port, "center"))
        config = uvicorn.Config(
            make_app(center),
            log_level="warning",
            lifespan="on",
            ws="none",
            proxy_headers=settings.behind_proxy,
            server_header=False,
            ssl_certfile=settings.certificate,
            ssl_keyfile=settings.key,
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
    scheme = "https" if settings.certificate else "http"
    out.write(f"center: ready, {format_url(scheme, settings.host, sock.getsockname()[1])}\n")
    if empty:
        command = "unbrick center add-operator NAME --role clerk"
        out.write(f"center: nobody can sign in, `{command} --accounts {settings.accounts}`\n")
    out.flush()
