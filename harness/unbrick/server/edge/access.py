"""Who is let in by the HTTP API: a bearer token says who asks (RFC 6750).

A server that starts makes a token for its own user, and leaves it in a file that nobody else can
read. So commands on the same machine need none. Everybody else holds one that ``unbrick server
token add`` has made. Of tokens that last, the database has digests alone.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from unbrick.errors import SetupError
from unbrick.folders import state_folder
from unbrick.server.edge.address import is_loopback
from unbrick.server.records.access import AccessRole, AccessToken, AccessTokens

if TYPE_CHECKING:
    from unbrick.server.records.contract import Records

TOKEN_VARIABLE = "UNBRICK_TOKEN"  # noqa: S105 - its name
"""Environment variable with the token that a client shows."""

_PREFIX = "unbrick_"
"""Of every token: who finds one in a log knows what it is."""

_TOKEN_BYTES = 32
"""Random bytes of a token: too many to be guessed."""

_TOKEN = re.compile(_PREFIX + r"[A-Za-z0-9_-]{20,100}")

_SCHEME = "bearer"


def make_token() -> str:
    """A new token."""
    return _PREFIX + secrets.token_urlsafe(_TOKEN_BYTES)


def digest_token(token: str) -> bytes:
    """What is kept of a token. It is random, so it needs no slow hash."""
    return hashlib.sha256(token.encode("utf-8", "replace")).digest()


def add_token(
    tokens: AccessTokens,
    name: str,
    role: AccessRole,
    now: float,
    *,
    lifetime_s: float | None = None,
) -> str:
    """Make a token, and keep its digest in place of that of an earlier one of this name.

    Returns:
        The token. It is not kept anywhere.
    """
    token = make_token()
    expires = None if lifetime_s is None else now + lifetime_s
    tokens.save(AccessToken(name, role, digest_token(token), now, expires))
    return token


@dataclass(frozen=True)
class Holder:
    """Who holds a token, and what they may do."""

    name: str
    role: AccessRole


OWN_USER = Holder("own", AccessRole.CENTER)
"""The user whose server it is, who may do everything."""


class Gate:
    """Says what the sender of a request may do.

    Args:
        tokens: those that there are.
        clock: seconds since 1970.
        own: a token of this server's own user, who may do everything.
    """

    def __init__(self, tokens: AccessTokens, clock: Callable[[], float], own: str = "") -> None:
        self._tokens, self._clock = tokens, clock
        self._own = digest_token(own) if own else b""

    def find_holder(self, authorization: str | None) -> Holder | None:
        """Who sends this ``Authorization`` header; None: nobody that is known."""
        scheme, _, token = (authorization or "").partition(" ")
        if scheme.lower() != _SCHEME or not token:
            return None
        digest = digest_token(token.strip())
        if self._own and secrets.compare_digest(digest, self._own):
            return OWN_USER
        found = self._tokens.find(digest)
        if found is None or not found.holds(self._clock()):
            return None
        return Holder(found.name, found.role)


def _token_file(port: int) -> Path:
    return state_folder() / f"server-{port}.token"


@contextlib.contextmanager
def leave_own_token(records: Records, port: int, clock: Callable[[], float]) -> Iterator[Gate]:
    """Let the own user in by a file, which is there while the block runs.

    Raises:
        SetupError: the file cannot be written.
    """
    token, file = make_token(), _token_file(port)
    new = file.with_name(f"{file.name}.{os.getpid()}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        new.touch(mode=0o600, exist_ok=False)
        new.write_text(token)
        new.replace(file)
    except OSError as error:
        raise SetupError(
            f"the token for this user's own commands cannot be left in {file}: {error.strerror}",
            hint="set XDG_STATE_HOME to a folder that can be written",
        ) from error
    try:
        yield Gate(records.tokens, clock, token)
    finally:
        with contextlib.suppress(OSError):
            if file.read_text() == token:  # Not that of a server which has started since.
                file.unlink()


def find_token(url: str) -> str:
    """The token for the server at ``url``; empty: there is none.

    It is that of the environment, or the one that a server on this machine has left for its user.

    Raises:
        SetupError: that of the environment is none.
    """
    given = os.environ.get(TOKEN_VARIABLE, "").strip()
    if given and not _TOKEN.fullmatch(given):
        raise SetupError(
            f"what {TOKEN_VARIABLE} holds is no token",
            hint="set it to what `unbrick server token add` printed",
        )
    parts = urlsplit(url)
    if given or not is_loopback(parts.hostname or ""):
        return given
    port = parts.port or {"http": 80, "https": 443}.get(parts.scheme, 0)
    with contextlib.suppress(OSError):
        return _token_file(port).read_text().strip()
    return ""
