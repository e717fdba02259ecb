"""A client of the server's HTTP API."""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from unbrick.errors import ImageError, ServerError, SetupError, UnbrickError
from unbrick.patience import ANSWER_TIMEOUT_S
from unbrick.server.edge.access import find_token
from unbrick.server.edge.shapes import MOST_LISTED
from unbrick.server.errors import DowngradeError, NotCommandedError

if TYPE_CHECKING:
    import httpx

NO_IMAGE = 422
"""The HTTP status that says that what was sent is no image."""

POLL_INTERVAL_S = 0.5
"""Seconds between questions when an update is watched."""


_CODES = {error.code: error for error in (NotCommandedError, DowngradeError)}


class SilentError(ServerError):
    """No server answers; what it was told to do may have been done."""


class ServerClient:
    """Talks to the server at ``url``; every method raises ServerError when it cannot or may not.

    Args:
        url: such as ``http://127.0.0.1:8080``.
        transport: for tests.
        token: says who asks; None: the one of the environment, or of a server on this machine.

    Raises:
        SetupError: ``url`` is not of that form.
    """

    def __init__(
        self, url: str, transport: httpx.BaseTransport | None = None, token: str | None = None
    ) -> None:
        self._url, self._token = url, token
        if not _is_address(url):
            raise SetupError(
                f"{url!r} is no address of a server", hint="write it as http://HOST:PORT"
            )
        import httpx  # noqa: PLC0415 - slow to import: a server that starts needs none

        # Never by a proxy: the server is on this machine or on the bench's network.
        self._http = httpx.Client(
            base_url=url,
            timeout=ANSWER_TIMEOUT_S,
            transport=transport,
            trust_env=False,
            # The certificates that this machine trusts; SSL_CERT_FILE adds one's own.
            verify=ssl.create_default_context() if url.startswith("https:") else False,
        )

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> ServerClient:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def terminals(self) -> list[dict[str, Any]]:
        """Every terminal that registered."""
        return self._list("/api/terminals", "serial")

    def terminal(self, serial: str) -> dict[str, Any]:
        """One terminal with its history."""
        path = f"/api/terminals/{quote(serial, safe='')}"
        found = dict(self._ask("GET", path))

        def events_after(number: str) -> list[dict[str, Any]]:
            return list(self._ask("GET", f"{path}?after={number}")["events"])

        found["events"] = self._complete(found["events"], "id", events_after)
        return found

    def waiting(self) -> list[dict[str, Any]]:
        """The terminals that wait for approval."""
        return list(self._ask("GET", "/api/waiting"))

    def approve(self, serial: str, link_key: bytes | None = None) -> None:
        """Let a terminal register, with the key of its link."""
        key = {} if link_key is None else {"key": link_key.hex()}
        self._ask("POST", "/api/approvals", json={"serial": serial, **key})

    def preparations(self) -> list[dict[str, Any]]:
        """What is prepared for pairs of images."""
        return self._list("/api/preparations", "id")

    def images(self) -> list[dict[str, Any]]:
        """Every published image."""
        return self._list("/api/images", "digest")

    def publish(self, data: bytes) -> dict[str, Any]:
        """Publish a signed image.

        Raises:
            ImageError: the server says that it is none.
        """
        kind = {"content-type": "application/octet-stream"}
        return dict(self._ask("POST", "/api/images", content=data, headers=kind))

    def updates(self) -> list[dict[str, Any]]:
        """Every update, without events."""
        return self._list("/api/updates", "id")

    def update(self, update_id: int) -> dict[str, Any]:
        """One update with its events."""
        return dict(self._ask("GET", f"/api/updates/{update_id}"))

    def start(
        self, serial: str, version: str, way: str = "staged", *, downgrade: bool = False
    ) -> dict[str, Any]:
        """Have a terminal updated.

        Args:
            serial: of the terminal.
            version: of a published image.
            way: ``staged`` or ``commanded``.
            downgrade: also if that is older than what the terminal runs.

        Raises:
            NotCommandedError: that terminal cannot be commanded.
            DowngradeError: it is older, and ``downgrade`` is false.
        """
        values = {"serial": serial, "version": version, "way": way, "downgrade": downgrade}
        return dict(self._ask("POST", "/api/updates", json=values))

    def session(self, session_id: int) -> dict[str, Any]:
        """The session of a commanded update, with its plan."""
        return dict(self._ask("GET", f"/api/sessions/{session_id}"))

    def cancel(self, update_id: int) -> dict[str, Any]:
        """Cancel an update."""
        return dict(self._ask("DELETE", f"/api/updates/{update_id}"))

    def abandon(self, update_id: int) -> dict[str, Any]:
        """Give up a commanded update whose terminal will not come back; deletes its backup."""
        return dict(self._ask("DELETE", f"/api/updates/{update_id}/backup"))

    def send_text(self, serial: str, text: str) -> dict[str, Any]:
        """Send a text to a terminal's user."""
        return dict(self._ask("POST", "/api/messages", json={"serial": serial, "text": text}))

    def rollouts(self) -> list[dict[str, Any]]:
        """Every rollout."""
        return self._list("/api/rollouts", "id")

    def rollout(self, rollout_id: int) -> dict[str, Any]:
        """One rollout, with what was done, and which terminals failed."""
        return dict(self._ask("GET", f"/api/rollouts/{rollout_id}"))

    def rollout_members(self, rollout_id: int) -> list[dict[str, Any]]:
        """The terminals of a rollout."""
        return self._list(f"/api/rollouts/{rollout_id}/members", "serial")

    def roll_out(self, **order: Any) -> dict[str, Any]:
        """Make a rollout; ``order`` has the fields of ``http.RolloutOrder``."""
        return dict(self._ask("POST", "/api/rollouts", json=order))

    def do_with_rollout(self, rollout_id: int, deed: str, by: str = "") -> dict[str, Any]:
        """Do something with a rollout.

        Args:
            rollout_id: its number.
            deed: ``approve``, ``pause``, ``resume`` or ``abandon``.
            by: the operator of a customer center who does, if this is one.
        """
        return dict(self._ask("POST", f"/api/rollouts/{rollout_id}/{deed}", json={"by": by}))

    def center_is_there(self) -> None:
        """The customer center says that it takes calls."""
        self._ask("POST", "/api/center")

    def center_leaves(self) -> None:
        """The customer center ends, or has just begun."""
        self._ask("DELETE", "/api/center")

    def say(self, call_id: int, count: int, text: str, *, last: bool) -> None:
        """Say text ``count`` of a call to the user of the terminal that makes it."""
        values = {"text": text, "then": "end" if last else "wait"}
        self._ask("PUT", f"/api/calls/{call_id}/texts/{count}", json=values)

    def watch(self, update_id: int) -> Iterator[dict[str, Any]]:
        """An update as it is, again and again until it, and its session if any, has ended."""
        while True:
            update = self.update(update_id)
            yield update
            session = update["session"]
            if update["ended"] and (session is None or session["ended"]):
                return
            time.sleep(POLL_INTERVAL_S)

    def _list(self, path: str, key: str) -> list[dict[str, Any]]:
        """All of a list of which the server gives so many at a time, in the order of a key."""
        return self._complete(
            self._ask("GET", path), key, lambda last: self._ask("GET", f"{path}?after={last}")
        )

    def _complete(
        self,
        part: list[dict[str, Any]],
        key: str,
        ask_after: Callable[[str], list[dict[str, Any]]],
    ) -> list[dict[str, Any]]:
        """A list whose first part this is.

        Raises:
            ServerError: what comes has come before, and so there may be no end.
        """
        found: dict[Any, dict[str, Any]] = {}
        while True:
            for item in part:
                if item[key] in found:
                    raise ServerError(
                        f"the server at {self._url} lists the same again",
                        hint="it may be of another version: start the one of this `unbrick`",
                    )
                found[item[key]] = item
            if len(part) < MOST_LISTED:
                return list(found.values())
            part = ask_after(quote(str(part[-1][key]), safe=""))

    def _ask(self, method: str, path: str, **extra: Any) -> Any:
        import httpx  # noqa: PLC0415 - as above

        token = find_token(self._url) if self._token is None else self._token
        if token:
            extra["headers"] = {**extra.get("headers", {}), "authorization": f"Bearer {token}"}
        try:
            response = self._http.request(method, path, **extra)
        except httpx.TransportError as error:
            raise SilentError(
                f"no server answers at {self._url}: {error}",
                hint="start one with `unbrick server start`, or give its --server-url",
            ) from error
        try:
            answer = response.json()
        except ValueError as error:
            raise _no_api(self._url) from error
        if response.is_success:
            return answer
        if not isinstance(answer, dict) or not isinstance(answer.get("error"), str):
            raise _no_api(self._url)
        kind: type[UnbrickError] = ServerError
        if response.status_code == NO_IMAGE:
            kind = ImageError
        else:
            kind = _CODES.get(str(answer.get("code")), ServerError)
        raise kind(answer["error"], hint=str(answer.get("hint", "")))


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _no_api(url: str) -> ServerError:
    return ServerError(
        f"what answers at {url} is no software management server",
        hint="give the address that the server printed when it started",
    )
