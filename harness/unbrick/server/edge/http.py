"""The server's HTTP API, for people's tools. Times in answers are ISO 8601, UTC; digests are hex.

==========  ==========================  ========================================================
method      path                        what it does
==========  ==========================  ========================================================
GET         /api/terminals              every terminal that registered
GET         /api/terminals/{serial}     one, with its updates, events, what it has run, and the
                                        decisions whether it should run other software
GET         /api/preparations           what is prepared for pairs of images
GET         /api/images                 every published image
POST        /api/images                 publishes the signed image that is the body, or the one
                                        file of a multipart form; what a person should know
                                        of it is in warnings
GET, POST   /api/updates                every update; starts one: {serial, version}, and way, which
                                        is "staged" (what it is without) or "commanded", and
                                        downgrade, true if older software is meant (docs/orders.md);
                                        the answer's text is what a person should know of it
GET         /api/updates/{id}           one, with its events, and its session if it is commanded
DELETE      /api/updates/{id}           cancels it
DELETE      /api/updates/{id}/backup    gives up a commanded update whose terminal will not come
                                        back, and deletes the backup of its user's data
GET         /api/sessions/{id}          the session of a commanded update, with its plan
POST        /api/messages               sends a text to a terminal's user: {serial, text}
POST        /api/center                 the customer center is there; calls are taken for 15 s
DELETE      /api/center                 it is not, or has just begun: its calls are over
PUT         /api/calls/{id}/texts/{n}   says text n of a terminal's call: {text, then}; then is
                                        "wait" or "end"
==========  ==========================  ========================================================

Who asks shows a bearer token (``access``). Its role decides: a viewer may do what begins with GET,
an operator all but what is the center's: ``/api/center`` and ``/api/calls``.

Errors are {error, hint}: 400 a request that cannot be understood, 401 nobody that is known, 403 a
page of another site or a role that may not do this, 404 no such thing, 409 against the rules or
against what is going on, 413 too large, 415 a wrong content type, 421 another name than this
server's, 422 no image.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterable
from typing import Any
from urllib.parse import urlsplit

from starlette.applications import Starlette
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.types import Message

from unbrick.errors import ImageError, LinkError, UnbrickError
from unbrick.server.core.core import ServerCore
from unbrick.server.core.lines import CallOverError
from unbrick.server.edge import shapes
from unbrick.server.edge.access import TOKEN_VARIABLE, Gate
from unbrick.server.errors import (
    ConflictError,
    DowngradeError,
    NotCommandedError,
    UnknownError,
)
from unbrick.server.records.access import AccessRole
from unbrick.server.records.analysis import Preparation, RangeKind
from unbrick.server.records.updates import Update
from unbrick.wire.messages import Kind

MAX_IMAGE = 16 * 1024 * 1024
MAX_JSON_SIZE = 16 * 1024
UNKNOWN_SENDER = 401
"""The HTTP status of a request of which nobody knows who sends it."""

_FORM_OVERHEAD_BYTES = 4096
"""Bytes of a multipart form beside the file."""


class RequestError(UnbrickError):
    """A request that this API does not take.

    Attributes:
        status: the HTTP status that says why.
    """

    def __init__(self, status: int, message: str, *, hint: str) -> None:
        super().__init__(message, hint=hint)
        self.status = status


def _status_of(error: UnbrickError) -> int:
    if isinstance(error, RequestError):
        return error.status
    for kind, status in (
        (UnknownError, 404),
        (ConflictError, 409),
        (CallOverError, 409),
        (ImageError, 422),
        (LinkError, 400),
    ):
        if isinstance(error, kind):
            return status
    return 500


async def _say_error(_request: Request, error: Exception) -> JSONResponse:
    if isinstance(error, HTTPException):
        body = {"error": error.detail, "hint": "see the list of paths in the documentation"}
        return JSONResponse(body, error.status_code, headers=error.headers)
    if not isinstance(error, UnbrickError):
        raise error
    body = {"error": str(error), "hint": error.hint}
    status = _status_of(error)
    headers = {"WWW-Authenticate": "Bearer"} if status == UNKNOWN_SENDER else None  # RFC 6750, 3.
    if isinstance(error, (NotCommandedError, DowngradeError)):
        body["code"] = error.code
    return JSONResponse(body, status, headers=headers)


def _content_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def _body(request: Request, limit: int) -> bytes:
    """The body, read only as far as it may be long."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            raise RequestError(
                413, f"the body has more than {limit} bytes", hint="send the signed image alone"
            )
    return bytes(body)


async def _object(request: Request, hint: str) -> dict[str, object]:
    """The JSON object that is the body."""
    # A type that pages of other sites cannot send without being asked first.
    if _content_type(request) != "application/json":
        raise RequestError(415, "the body is not JSON", hint="send it as application/json")
    try:
        values = json.loads(await _body(request, MAX_JSON_SIZE))
    except (ValueError, RecursionError) as error:
        raise RequestError(400, "the body is not JSON", hint=hint) from error
    if not isinstance(values, dict):
        raise RequestError(400, "the body is no JSON object", hint=hint)
    return values


async def _texts(request: Request, *names: str) -> list[str]:
    """The texts with these names from a JSON body that has nothing else."""
    hint = _example(names)
    values = await _object(request, hint)
    if set(values) != set(names):
        raise RequestError(400, f"the body must be texts: {', '.join(names)}", hint=hint)
    return [_text(values[name], names, hint) for name in names]


def _text(value: object, names: Iterable[str], hint: str) -> str:
    if not isinstance(value, str):
        raise RequestError(400, f"the body must be texts: {', '.join(names)}", hint=hint)
    return value


def _example(names: Iterable[str]) -> str:
    return "send " + json.dumps(dict.fromkeys(names, "…"), ensure_ascii=False)


async def _upload(request: Request) -> bytes:
    body = await _body(request, MAX_IMAGE + _FORM_OVERHEAD_BYTES)
    if _content_type(request) == "multipart/form-data":
        body = await _only_file(request, body)
    if len(body) > MAX_IMAGE:
        raise RequestError(
            413, f"the image has more than {MAX_IMAGE} bytes", hint="send the signed image alone"
        )
    return body


async def _only_file(request: Request, body: bytes) -> bytes:
    async def again() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    hint = "send one file, or the image as the body"
    try:
        async with Request(request.scope, again).form(max_files=1, max_fields=0) as form:
            files = [value for value in form.values() if isinstance(value, UploadFile)]
            if len(files) != 1:
                raise RequestError(400, "the form has no file", hint=hint)
            return await files[0].read()
    except (HTTPException, MultiPartException) as error:
        raise RequestError(400, "the form is malformed", hint=hint) from error


class _Api:
    """The handlers, over a core."""

    def __init__(
        self,
        core: ServerCore,
        pump: Callable[[], None],
        clock: Callable[[], float],
        gate: Gate,
    ) -> None:
        self._core = core
        self._pump = pump
        self._clock = clock
        self._gate = gate

    def routes(self) -> list[Route]:
        """Every address, and who may use it."""
        viewer, operator, center = AccessRole
        return [
            self._route("GET", "/api/terminals", self.terminals, viewer),
            self._route("GET", "/api/terminals/{serial:path}", self.terminal, viewer),
            self._route("GET", "/api/preparations", self.preparations, viewer),
            self._route("GET", "/api/images", self.images, viewer),
            self._route("POST", "/api/images", self.publish, operator),
            self._route("GET", "/api/updates", self.updates, viewer),
            self._route("POST", "/api/updates", self.start, operator),
            self._route("GET", "/api/updates/{update_id:int}", self.update, viewer),
            self._route("DELETE", "/api/updates/{update_id:int}", self.cancel, operator),
            self._route("DELETE", "/api/updates/{update_id:int}/backup", self.abandon, operator),
            self._route("GET", "/api/sessions/{session_id:int}", self.session, viewer),
            self._route("POST", "/api/messages", self.message, operator),
            self._route("POST", "/api/center", self.center_is_there, center),
            self._route("DELETE", "/api/center", self.center_leaves, center),
            self._route("PUT", "/api/calls/{call_id:int}/texts/{count:int}", self.say, center),
        ]

    def _route(
        self,
        method: str,
        path: str,
        handler: Callable[[Request], Awaitable[JSONResponse]],
        needed: AccessRole,
    ) -> Route:
        """An address for those who have at least the role that is needed, and no page of others."""

        async def guarded(request: Request) -> JSONResponse:
            origin = request.headers.get("origin")
            if origin is not None and urlsplit(origin).netloc != request.headers.get("host"):
                raise RequestError(
                    403, "this API does not serve pages of other sites", hint="use `unbrick`"
                )
            role = self._gate.find_role(request.headers.get("authorization"))
            if role is None:
                raise RequestError(
                    UNKNOWN_SENDER,
                    "this server does not know who asks",
                    hint=f"set {TOKEN_VARIABLE} to a token of `unbrick server token add`",
                )
            if not role.includes(needed):
                raise RequestError(
                    403,
                    f"a token of a {role.value} does not let you do this",
                    hint=f"use one of a {needed.value}",
                )
            return await handler(request)

        return Route(path, guarded, methods=[method])

    async def terminals(self, _request: Request) -> JSONResponse:
        records = self._core.records
        decisions = records.decisions()
        return JSONResponse(
            [
                shapes.describe_listed(item, decisions.get(item.serial))
                for item in records.terminals()
            ]
        )

    async def terminal(self, request: Request) -> JSONResponse:
        serial = request.path_params["serial"]
        records = self._core.records
        terminal = records.terminal(serial)
        if terminal is None:
            raise UnknownError(
                f"no terminal {serial} has registered", hint="GET /api/terminals lists them"
            )
        return JSONResponse(
            {
                **shapes.describe_listed(terminal, records.analysis(serial)),
                "installations": [
                    shapes.describe_installation(item) for item in records.installations(serial)
                ],
                "analyses": [shapes.describe_analysis(item) for item in records.analyses(serial)],
                "updates": [self._update(item) for item in records.updates(serial)],
                "messages": [shapes.describe_message(item) for item in records.messages(serial)],
                "events": [shapes.describe_event(item) for item in records.events(serial=serial)],
            }
        )

    async def preparations(self, _request: Request) -> JSONResponse:
        return JSONResponse([self._preparation(item) for item in self._core.records.preparations()])

    def _preparation(self, item: Preparation) -> dict[str, Any]:
        records = self._core.records
        base, image = records.image(item.base), records.image(item.digest)
        ranges = records.ranges(item.base, item.digest)
        of_kind = {kind: [r for r in ranges if r.kind is kind] for kind in RangeKind}
        return {
            "hardware_id": image.hardware_id if image else "",
            "from_version": base.version if base else "",
            "version": image.version if image else "",
            "state": item.state.value,
            "text": item.text,
            "file_size": item.file_size,
            "full_size": image.file_size if image else 0,
            "ranges": {
                kind.value: {"count": len(found), "bytes": sum(r.length for r in found)}
                for kind, found in of_kind.items()
            },
            "changed": shapes.format_time(item.changed),
        }

    async def images(self, _request: Request) -> JSONResponse:
        return JSONResponse([shapes.describe_image(item) for item in self._core.records.images()])

    async def publish(self, request: Request) -> JSONResponse:
        data = await _upload(request)
        image = self._core.publish(data, self._clock())
        found = self._core.warnings(data)
        return JSONResponse(
            {**shapes.describe_image(image), **({"warnings": found} if found else {})}, 201
        )

    async def updates(self, _request: Request) -> JSONResponse:
        return JSONResponse([self._update(item) for item in self._core.records.updates()])

    async def start(self, request: Request) -> JSONResponse:
        names = ("serial", "version")
        hint = _example(names)
        values = {"way": "staged", "downgrade": False, **await _object(request, hint)}
        downgrade = values.pop("downgrade")
        if set(values) != {*names, "way"}:
            raise RequestError(400, f"the body must be texts: {', '.join(names)}", hint=hint)
        serial, version, way = (_text(values[name], names, hint) for name in (*names, "way"))
        if way not in ("staged", "commanded"):
            raise RequestError(400, f"no update goes the way {way}", hint="staged or commanded")
        if not isinstance(downgrade, bool):
            raise RequestError(400, "downgrade is neither true nor false", hint="send one of them")
        update = self._core.start_update(
            serial, version, self._clock(), commanded=way == "commanded", downgrade=downgrade
        )
        self._pump()
        return JSONResponse(self._update(update), 201)

    async def update(self, request: Request) -> JSONResponse:
        # SQLite counts to 2^63.
        update_id = min(request.path_params["update_id"], 2**63 - 1)
        update = self._core.records.update(update_id)
        if update is None:
            raise UnknownError(f"there is no update {update_id}", hint="see GET /api/updates")
        records = self._core.records
        events = [shapes.describe_event(item) for item in records.events(update_id=update_id)]
        sessions = [s for s in records.sessions(update.serial) if s.update_id == update.id]
        session = shapes.describe_session(sessions[-1], records) if sessions else None
        return JSONResponse({**self._update(update), "session": session, "events": events})

    async def session(self, request: Request) -> JSONResponse:
        session_id = min(request.path_params["session_id"], 2**63 - 1)
        session = self._core.records.session(session_id)
        if session is None:
            raise UnknownError(f"there is no session {session_id}", hint="see GET /api/updates")
        return JSONResponse(shapes.describe_session(session, self._core.records, plan=True))

    async def cancel(self, request: Request) -> JSONResponse:
        update_id = min(request.path_params["update_id"], 2**63 - 1)
        update = self._core.cancel_update(update_id, self._clock())
        self._pump()
        return JSONResponse(self._update(update))

    async def abandon(self, request: Request) -> JSONResponse:
        update_id = min(request.path_params["update_id"], 2**63 - 1)
        update = self._core.abandon_update(update_id, self._clock())
        return JSONResponse(self._update(update))

    async def message(self, request: Request) -> JSONResponse:
        serial, text = await _texts(request, "serial", "text")
        message = self._core.send_text(serial, text, self._clock())
        self._pump()
        return JSONResponse(shapes.describe_message(message), 201)

    async def center_is_there(self, _request: Request) -> JSONResponse:
        self._core.lines.center_is_there(self._clock())
        return JSONResponse({})

    async def center_leaves(self, _request: Request) -> JSONResponse:
        self._core.center_leaves()
        self._pump()
        return JSONResponse({})

    async def say(self, request: Request) -> JSONResponse:
        text, then = await _texts(request, "text", "then")
        if then not in ("wait", "end"):
            raise RequestError(400, "then is neither wait nor end", hint="say what comes after it")
        call_id, count = (
            min(request.path_params[name], 2**63 - 1) for name in ("call_id", "count")
        )
        self._core.say(call_id, count, text, last=then == "end")
        self._pump()
        return JSONResponse({}, 201)

    def _update(self, item: Update) -> dict[str, Any]:
        kind = {None: None, Kind.FULL_IMAGE: "full image", Kind.DIFFERENTIAL: "differential file"}
        return {
            "id": item.id,
            "serial": item.serial,
            "version": item.version,
            "digest": item.digest.hex(),
            "from_version": item.from_version,
            "state": item.state.value,
            "ended": item.state.ended,
            "restoration": item.restoration,
            "commanded": item.commanded,
            "result": None if item.result is None else int(item.result),
            "text": item.text,
            "sent": self._core.progress(item.id),
            "size": self._core.records.file_size(item),
            "kind": kind[item.kind],
            "created": shapes.format_time(item.created),
            "changed": shapes.format_time(item.changed),
        }


def make_app(
    core: ServerCore, pump: Callable[[], None], clock: Callable[[], float], gate: Gate
) -> Starlette:
    """The API as an ASGI application.

    Args:
        core: the server's core.
        pump: called when the core may have something to send to terminals.
        clock: seconds since 1970.
        gate: says who may do what.
    """
    return Starlette(
        routes=_Api(core, pump, clock, gate).routes(),
        exception_handlers={UnbrickError: _say_error, HTTPException: _say_error},
    )
