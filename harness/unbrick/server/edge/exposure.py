"""How people reach an HTTP port, and by which names."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from unbrick.errors import SetupError
from unbrick.server.edge.address import is_ip_address, is_loopback, split_host

MISDIRECTED = 421
"""The HTTP status of a request for a name that is not this server's (RFC 9110, 15.5.20)."""


@dataclass(frozen=True)
class Exposure:
    """How people reach an HTTP port.

    Attributes:
        host: where it listens.
        port: likewise; 0 takes a free one.
        names: those that people reach it by, besides ``localhost``.
        certificate: of TLS, with its ``key``; without it the port is for this machine alone.
        behind_proxy: a proxy in front does TLS.
    """

    host: str
    port: int
    names: Collection[str] = ()
    certificate: Path | None = None
    key: Path | None = None
    behind_proxy: bool = False

    @property
    def scheme(self) -> str:
        """Of its URL."""
        return "https" if self.certificate else "http"

    def check(self) -> None:
        """See that nothing secret travels in the open: only by HTTPS, or within this machine.

        Raises:
            SetupError: it would.
        """
        if not (self.certificate or self.behind_proxy or is_loopback(self.host)):
            raise SetupError(
                f"nobody could sign in at {self.host} without HTTPS",
                hint="give --certificate and --key, or --behind-proxy when a proxy does TLS, or "
                "listen for HTTP on 127.0.0.1 alone",
            )

    def options(self) -> dict[str, Any]:
        """Arguments of ``uvicorn.Config``."""
        return {
            "proxy_headers": self.behind_proxy,
            "server_header": False,
            "ssl_certfile": self.certificate,
            "ssl_keyfile": self.key,
        }


class HostGuard:
    """Middleware: answers only who means this server, wherever a name leads.

    A page of another site can have its own name lead to this machine (DNS rebinding). Its requests
    still say that name. An IP address is never such a name.

    Args:
        app: what is guarded.
        names: by which people reach it, besides ``localhost``.
    """

    def __init__(self, app: ASGIApp, names: Collection[str] = ()) -> None:
        self._app = app
        self._names = {"localhost", *(name.lower() for name in names)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] == "http" and not self._is_meant(Headers(scope=scope).get("host", "")):
            body = {
                "error": "this server was not told that it has this name",
                "hint": "use its address, or start it with --host-name NAME",
            }
            await JSONResponse(body, MISDIRECTED)(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _is_meant(self, netloc: str) -> bool:
        host = split_host(netloc)
        return host in self._names or is_ip_address(host)
