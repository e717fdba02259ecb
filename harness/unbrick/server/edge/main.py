"""The server's process: CoAP and HTTP side by side on one event loop."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from dataclasses import dataclass, field
from typing import TextIO

import uvicorn

from unbrick.image import format as image_format
from unbrick.layout import reference_layout
from unbrick.server.core.admission import Admission, Limits
from unbrick.server.core.analysis import Analyst
from unbrick.server.core.core import ServerCore
from unbrick.server.core.guard import LinkGuard
from unbrick.server.core.leases import Alone, Leases, is_first
from unbrick.server.core.rollouts import RolloutRunner
from unbrick.server.database import SqlRecords
from unbrick.server.database.presence import Presence
from unbrick.server.edge.access import leave_own_token
from unbrick.server.edge.event_log import EventLog
from unbrick.server.edge.exposure import Exposure, HostGuard
from unbrick.server.edge.http import make_app
from unbrick.server.edge.serving import HttpServer, bind, format_url, wait_started
from unbrick.server.edge.troubles import TROUBLES
from unbrick.server.edge.udp import CoapServer
from unbrick.server.edge.worker import Worker
from unbrick.server.records.analysis import Preparation

SHUTDOWN_TIMEOUT_S = 3
"""Seconds that HTTP requests under way get when the server is told to stop."""


LOOK_INTERVAL_S = 2.0
"""Seconds between two looks at what is due by the clock alone."""


SALT_SIZE = 16
"""Bytes that decide which networks share a bucket (``admission.Buckets``)."""

ROLLOUT_INTERVAL_S = 0.5
"""Seconds between two looks at rollouts with nothing to be ordered."""

INSECURE = "server: --insecure, anybody can speak as any terminal that has no key here\n"
"""What is said at every start with it."""

TOUCH_INTERVAL_S = 0.5
"""Seconds between two looks at the other servers on the same database, and at what they did."""


@dataclass(frozen=True)
class ServerSettings:
    """Where the server listens and where it keeps its records.

    Attributes:
        host: where it listens for CoAP.
        coap_port: likewise; 0 takes a free one.
        http: how people reach its HTTP API.
        database: an SQLAlchemy URL, or the path of an SQLite file.
        log: whether all that happens is said, a JSON object a line.
        self_approval: whether who makes a rollout may approve it.
        limits: which registrations it takes.
        insecure: whether it also hears terminals that protect nothing, for tools and tests.
    """

    host: str
    coap_port: int
    http: Exposure
    database: str
    log: bool = False
    self_approval: bool = False
    limits: Limits = field(default_factory=Limits)
    insecure: bool = False


def admit(data: bytes, info: image_format.ImageInfo) -> None:
    """Refuse an image that no terminal would take.

    Of images for other hardware than this server's board, nothing but the signature can be known.

    Raises:
        ImageError: it is not signed, not as terminals check it, or does not fit the board.
    """
    image_format.check_signed(info)
    if info.hardware_id == reference_layout().hardware_id:
        for problem in image_format.list_refusals(data, info):
            raise problem


async def serve(
    settings: ServerSettings,
    *,
    out: TextIO | None = None,
) -> None:
    """Run until SIGTERM or SIGINT; says one line on ``out`` when both ports answer.

    Raises:
        PortError: a port cannot be used.
        SetupError: the database cannot be opened, or nobody could sign in.
    """
    exposure = settings.http
    exposure.check()
    records = SqlRecords(settings.database)
    presence = records.join()
    leases = presence or Alone()
    analyst = Analyst(records)
    known = records.serials() | records.approved() | records.links.serials()
    core = ServerCore(
        *(records, image_format.inspect, analyst),
        admit=admit,
        admission=Admission(settings.limits, known, salt=os.urandom(SALT_SIZE)),
        leases=leases,
    )
    guard = LinkGuard(core, insecure=settings.insecure, secret=os.urandom(SALT_SIZE), leases=leases)
    coap = CoapServer(core, guard)

    def announce(prepared: Preparation) -> None:
        core.prepared(prepared.digest)
        coap.pump()

    worker = Worker(analyst, announce, may_work=lambda: is_first(leases))
    out = out or sys.stdout
    log = EventLog(records, out, time.time) if settings.log else None
    rollouts = RolloutRunner(
        core,
        self_approval=settings.self_approval,
        on_change=log.note_rollout if log else lambda _rollout: None,
    )
    with contextlib.ExitStack() as stack:
        stack.callback(records.close)
        if presence is not None:
            stack.callback(presence.close)
        sock = stack.enter_context(bind(exposure.host, exposure.port, "server"))
        port = sock.getsockname()[1]
        gate = stack.enter_context(leave_own_token(records, port, time.time))
        await coap.start(settings.host, settings.coap_port)
        config = uvicorn.Config(
            HostGuard(
                make_app(core, coap.pump, time.time, gate, log, rollouts, guard), exposure.names
            ),
            log_level="warning",
            lifespan="off",
            ws="none",
            **exposure.options(),
            timeout_graceful_shutdown=SHUTDOWN_TIMEOUT_S,
        )
        http = HttpServer(config)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, _stop, http)
            stack.callback(loop.remove_signal_handler, number)
        ready = asyncio.create_task(_say_ready(http, coap, guard, exposure, port, out))
        work = asyncio.create_task(worker.run())
        work.add_done_callback(lambda _: _stop(http))  # Without it updates would wait for ever.
        tasks = [ready, work]
        tasks.append(asyncio.create_task(_look(coap, log)))
        tasks.append(asyncio.create_task(_roll_out(rollouts, coap, leases)))
        if presence is not None:
            tasks.append(asyncio.create_task(_keep_in_touch(presence, core, coap, analyst)))
        try:
            await http.serve(sockets=[sock])
        finally:
            for task in tasks:
                task.cancel()
            await coap.close()
            if log is not None:
                log.look()
            with contextlib.suppress(asyncio.CancelledError):
                await work


async def _look(coap: CoapServer, log: EventLog | None) -> None:
    """Let the core see what time it is, also when nothing happens; and say what has happened."""
    while True:
        await asyncio.sleep(LOOK_INTERVAL_S)
        with TROUBLES.survived("nothing is sent"):
            coap.pump()
            if log is not None:
                log.look()


async def _roll_out(rollouts: RolloutRunner, coap: CoapServer, leases: Leases) -> None:
    """Carry rollouts out, a few orders at a time, so that terminals are answered in between."""
    while True:
        more = False
        if is_first(leases):
            with TROUBLES.survived("rollouts do not go on"):
                more = rollouts.look(time.time())
                coap.pump()
        await asyncio.sleep(0 if more else ROLLOUT_INTERVAL_S)


async def _keep_in_touch(
    presence: Presence, core: ServerCore, coap: CoapServer, analyst: Analyst
) -> None:
    """See which servers there are, and do what others have left to this one."""
    while True:
        with TROUBLES.survived("nothing of other servers is seen"):
            if presence.look(has_center=core.lines.has_center(time.time())):
                core.go_on()
            elif presence.others:
                core.follow()
            if presence.others:
                analyst.wake()
                coap.pump()
        await asyncio.sleep(TOUCH_INTERVAL_S)


def _stop(http: uvicorn.Server) -> None:
    http.should_exit = True


async def _say_ready(
    http: uvicorn.Server,
    coap: CoapServer,
    guard: LinkGuard,
    exposure: Exposure,
    port: int,
    out: TextIO,
) -> None:
    await wait_started(http)
    url = format_url(exposure.scheme, exposure.host, port)
    out.write(f"server: ready, {format_url('coap', coap.host, coap.port)} {url}\n")
    if guard.insecure:
        out.write(INSECURE)
    out.flush()
