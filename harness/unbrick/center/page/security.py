"""Sign-ins of operators, tokens against forged requests, and the headers of every answer.

The cookie is signed by Starlette's session middleware and carries a random number alone; whose
sign-in it is, is kept here, so that signing out ends it for good. All sign-ins end with the
process: its key is made anew at each start.
"""

from __future__ import annotations

import secrets
from collections import OrderedDict
from dataclasses import dataclass, replace

from itsdangerous import BadData, URLSafeTimedSerializer
from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from unbrick.center.operators.records import Operator
from unbrick.server.edge.address import is_of_another_site

COOKIE = "__Host-unbrick-center"
SIGN_IN_LIFETIME_S = 10 * 3600
"""Seconds that a sign-in lasts at most."""

SIGN_IN_IDLE_S = 3600
"""Seconds after which a sign-in ends that nothing was done in."""

SIGN_INS = 1000

_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "connect-src 'self'; img-src 'self'; form-action 'self'; frame-ancestors 'none'; "
    "base-uri 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


@dataclass(frozen=True)
class SignIn:
    """An operator who is signed in. Times are seconds since 1970.

    Attributes:
        password: the hash that was right; another one ends the sign-in.
    """

    operator: str
    password: str
    began: float
    used: float
    looked_at: frozenset[str] = frozenset()


class SignIns:
    """Who is signed in, by the number in the cookie."""

    def __init__(self) -> None:
        self._sign_ins: OrderedDict[str, SignIn] = OrderedDict()

    def begin(self, operator: Operator, now: float) -> str:
        """A new sign-in; returns its number."""
        number = secrets.token_urlsafe(32)
        self._sign_ins[number] = SignIn(operator.name, operator.password, now, now)
        if len(self._sign_ins) > SIGN_INS:
            self._sign_ins.popitem(last=False)
        return number

    def find(self, number: str, now: float, *, use: bool = False) -> SignIn | None:
        """The sign-in with this number while it lasts; ``use`` makes it last longer."""
        sign_in = self._sign_ins.get(number)
        if sign_in is None:
            return None
        if now - sign_in.began >= SIGN_IN_LIFETIME_S or now - sign_in.used >= SIGN_IN_IDLE_S:
            del self._sign_ins[number]
            return None
        if use:
            sign_in = self._sign_ins[number] = replace(sign_in, used=now)
        return sign_in

    def first_look(self, number: str, serial: str) -> bool:
        """Whether this sign-in looks at a terminal's subscriber for the first time."""
        sign_in = self._sign_ins[number]
        if serial in sign_in.looked_at:
            return False
        self._sign_ins[number] = replace(sign_in, looked_at=sign_in.looked_at | {serial})
        return True

    def end(self, number: str) -> None:
        """Sign out."""
        self._sign_ins.pop(number, None)


class Tokens:
    """Tokens that a form of ours carries and a page of somebody else cannot have."""

    def __init__(self, key: str) -> None:
        self._serializer = URLSafeTimedSerializer(key, salt="form")

    def make(self, number: str) -> str:
        """A token for the sign-in with this number."""
        return str(self._serializer.dumps(number))

    def fits(self, token: str, number: str) -> bool:
        """Whether a token was made for that sign-in, and not too long ago."""
        try:
            inside = self._serializer.loads(token, max_age=SIGN_IN_LIFETIME_S)
        except BadData:
            return False
        return isinstance(inside, str) and secrets.compare_digest(inside, number)


def comes_from_elsewhere(request: Request) -> bool:
    """Whether a browser says that a page of another site sent this."""
    if is_of_another_site(request.headers.get("origin"), request.headers.get("host")):
        return True
    return request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none")


class SafeHeaders:
    """Middleware: every answer says what its page may do, and that it is not to be kept."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(_HEADERS)
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        await self._app(scope, receive, with_headers)
