"""The server's CoAP on UDP, with ``aiocoap``: carries messages between the network and the core."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable

import aiocoap
import aiocoap.error
from aiocoap.message import UndecidedRemote
from aiocoap.pipe import Pipe

from unbrick.errors import PortError
from unbrick.server.core import ServerCore
from unbrick.wire.coap import Outgoing

RESPONSE_TIMEOUT = 120.0
"""Seconds after which a terminal that acknowledged a request will not answer it any more."""

NETWORK_TRIES = 3
NETWORK_PAUSE = 0.5
"""Seconds before a request is tried again that the network refused."""


class _Site:
    """Gives every request to the core: no resource tree, no assembly of blocks by ``aiocoap``."""

    def __init__(self, handle: Callable[[aiocoap.Message], aiocoap.Message]) -> None:
        self._handle = handle

    async def render_to_pipe(self, pipe: Pipe) -> None:
        # Nothing is awaited before the answer is there, so it always travels in the
        # acknowledgement, as the terminal expects.
        pipe.add_response(self._handle(pipe.request), is_last=True)


def _free_port(host: str, port: int) -> int:
    """The port to bind to, known to be free (``aiocoap`` shares ports that are taken)."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((host, port))
            return int(probe.getsockname()[1])
    except OSError as error:
        raise PortError(
            f"UDP port {port} of {host} cannot be used: {error.strerror}",
            hint="is another server running? give another port, or 0 for a free one",
        ) from error


def _transport(host: str) -> str:
    """The UDP transport of ``aiocoap`` that this machine can do; the full one needs IPv6."""
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
            probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            probe.bind((host if ":" in host else f"::ffff:{host}", 0))
    except OSError:
        return "simplesocketserver"
    return "udp6"


class CoapServer:
    """Runs a core on a UDP port.

    Call ``pump`` whenever the core was told something by somebody else.
    """

    def __init__(self, core: ServerCore, clock: Callable[[], float] = time.time) -> None:
        self.host = ""
        self.port = 0
        self.core = core
        self._clock = clock
        self._context: aiocoap.Context | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self, host: str, port: int) -> None:
        """Bind to an IP address and a port; 0 takes a free one.

        Raises:
            PortError: the port is taken, or the address is not of this machine.
        """
        self.host, self.port = host, _free_port(host, port)
        self._context = await aiocoap.Context.create_server_context(
            _Site(self._handle), bind=(host, self.port), transports=[_transport(host)]
        )
        self.pump()

    async def close(self) -> None:
        """Stop; requests that are under way are given up."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        context, self._context = self._context, None
        if context is not None:
            await context.shutdown()

    def pump(self) -> None:
        """Send what the core wants sent."""
        if self._context is None:
            return
        for outgoing in self.core.poll(self._clock()):
            task = asyncio.get_running_loop().create_task(self._send(outgoing))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _handle(self, request: aiocoap.Message) -> aiocoap.Message:
        response = self.core.handle(request.remote.hostinfo, request, self._clock())
        # After the answer, so that a terminal that registers is not spoken to before it.
        asyncio.get_running_loop().call_soon(self.pump)
        return response

    async def _send(self, outgoing: Outgoing) -> None:
        if self._context is None:
            return
        response = None
        for _ in range(NETWORK_TRIES):
            message = outgoing.message.copy(remote=UndecidedRemote("coap", outgoing.endpoint))
            request = self._context.request(message, handle_blockwise=False)
            try:
                response = await asyncio.wait_for(request.response, RESPONSE_TIMEOUT)
            except (aiocoap.error.TimeoutError, asyncio.TimeoutError):
                break  # The terminal is not there: it will be told when it registers.
            except (aiocoap.error.Error, OSError):
                # That a port is closed is often told to the next who sends, whoever it is to.
                await asyncio.sleep(NETWORK_PAUSE)
            else:
                break
        self.core.outcome(outgoing.ticket, response, self._clock())
        self.pump()
