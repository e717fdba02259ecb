"""The server's HTTP API, for people's tools. Times in answers are ISO 8601, UTC; digests are hex.

``_Api.operations`` has every operation. ``GET /api/openapi.json`` describes them all.

Who asks shows a bearer token (``access``). Its role decides: a viewer may do what begins with GET,
an operator all but what is the center's: ``/api/center`` and ``/api/calls``. ``/health`` and the
description are for everybody.

Errors are {error, hint}: 400 a request that cannot be understood, 401 nobody that is known, 403 a
page of another site or a role that may not do this, 404 no such thing, 409 against the rules or
against what is going on, 413 too large, 415 a wrong content type, 421 another name than this
server's, 422 no image, 503 a database that does not answer.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import datetime
from time import perf_counter
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from starlette.applications import Starlette
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Message

from unbrick.errors import ImageError, LinkError, UnbrickError
from unbrick.server.core.core import ServerCore
from unbrick.server.core.guard import LinkGuard
from unbrick.server.core.lines import CallOverError
from unbrick.server.core.orders import check_serial
from unbrick.server.core.rollout_rule import MOST_GROUPS
from unbrick.server.core.rollouts import RolloutDraft, RolloutRunner
from unbrick.server.edge import shapes
from unbrick.server.edge.access import TOKEN_VARIABLE, Gate, Holder
from unbrick.server.edge.address import is_of_another_site
from unbrick.server.edge.description import Operation, describe_api
from unbrick.server.edge.event_log import EventLog
from unbrick.server.edge.metrics import CONTENT_TYPE, Metrics
from unbrick.server.edge.shapes import MOST_LISTED
from unbrick.server.errors import (
    ConflictError,
    DowngradeError,
    NotCommandedError,
    RecordsError,
    UnknownError,
)
from unbrick.server.records.access import AccessRole
from unbrick.server.records.analysis import Preparation
from unbrick.server.records.rollouts import MemberState, Rollout
from unbrick.server.records.updates import Image, Update
from unbrick.wire.messages import MAX_SERIAL, Kind

MAX_IMAGE = 16 * 1024 * 1024
MAX_JSON_SIZE = 16 * 1024
MAX_NAME = 129
"""Characters of what tells an item of a list from others: two digests."""

MAX_ID = 2**63 - 1
"""SQLite counts so far."""

_FIRST: dict[str, Any] = {"type": "integer", "minimum": 1, "maximum": MOST_LISTED}
_BY_SERIAL = {"after": {"type": "string", "maxLength": MAX_SERIAL}, "first": _FIRST}
"""What a list in the order of serials can be asked for."""

_BY_ID = {"after": {"type": "integer", "minimum": 0, "maximum": MAX_ID}, "first": _FIRST}
"""What a list in the order of ids can be asked for."""

_BY_TEXT = {"after": {"type": "string", "maxLength": MAX_NAME}, "first": _FIRST}
"""What a list can be asked for whose items are told by digests."""

MOST_FAILURES = 100
"""Terminals that failed, of a rollout, that are shown with it."""

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
        (RecordsError, 503),
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


class UpdateOrder(msgspec.Struct, forbid_unknown_fields=True):
    """Have a terminal updated to a published version.

    ``way``: by a file that it takes into its memory, or by commands. ``downgrade``: also if that is
    older than what it runs (docs/orders.md).
    """

    serial: str
    version: str
    way: Literal["staged", "commanded"] = "staged"
    downgrade: bool = False


class TextOrder(msgspec.Struct, forbid_unknown_fields=True):
    """Send a text to the user of a terminal."""

    serial: str
    text: str


LinkKeyText = Annotated[str, msgspec.Meta(pattern="^[0-9a-fA-F]{64}$")]
"""The key of a terminal's link, in hexadecimal."""


class ApprovalOrder(msgspec.Struct, forbid_unknown_fields=True):
    """Let a terminal register; the key of its link is in hexadecimal."""

    serial: str
    key: LinkKeyText | None = None


class SayingOrder(msgspec.Struct, forbid_unknown_fields=True):
    """Say something in a call, and wait for a key or end the call."""

    text: str
    then: Literal["wait", "end"]


_Percent = Annotated[int, msgspec.Meta(ge=0, le=100)]
_Pattern = Annotated[str, msgspec.Meta(max_length=64)]
_Who = Annotated[str, msgspec.Meta(max_length=64)]


class RolloutOrder(msgspec.Struct, forbid_unknown_fields=True):
    """Have a published version rolled out to the terminals that a filter takes.

    ``serials``, ``software`` and ``runs`` are patterns of serials, names and versions (docs:
    rollouts). ``consent``: each terminal's user is asked first. ``by``: the operator of a customer
    center who orders it.
    """

    version: str
    hardware: str = ""
    name: Annotated[str, msgspec.Meta(max_length=80)] = ""
    serials: _Pattern = "*"
    software: _Pattern = ""
    runs: _Pattern = "*"
    groups: Annotated[list[_Percent], msgspec.Meta(min_length=1, max_length=MOST_GROUPS)] = (
        msgspec.field(default_factory=lambda: [5, 25, 100])
    )
    success: _Percent = 90
    error: _Percent = 5
    way: Literal["staged", "commanded"] = "staged"
    downgrade: bool = False
    consent: bool = False
    not_before: Annotated[datetime, msgspec.Meta(tz=True)] | None = None
    by: _Who = ""


class RolloutDeed(msgspec.Struct, forbid_unknown_fields=True):
    """Do something with a rollout; ``by``: the operator of a customer center who does."""

    by: _Who = ""


B = TypeVar("B", bound=msgspec.Struct)
T = TypeVar("T")


def _read_number(digits: str) -> float:
    """JSON has one kind of number: 39.0 is an integer (JSON Schema Core §4.2.3)."""
    number = float(digits)
    return int(number) if number.is_integer() else number


_JSON = msgspec.json.Decoder(float_hook=_read_number)


async def _read(request: Request, kind: type[B]) -> B:
    """The JSON body, which must be of a kind."""
    # A type that pages of other sites cannot send without being asked first.
    if _content_type(request) != "application/json":
        raise RequestError(415, "the body is not JSON", hint="send it as application/json")
    body = await _body(request, MAX_JSON_SIZE)
    try:
        return msgspec.convert(_JSON.decode(body), kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        names = ", ".join(kind.__struct_fields__)
        raise RequestError(
            400, f"the body cannot be understood: {error}", hint=f"send a JSON object with {names}"
        ) from error


def _how_many(request: Request) -> int:
    """How many records of a list are asked for: ``first``."""
    return _number(request, "first", MOST_LISTED, least=1, most=MOST_LISTED)


def _after_id(request: Request) -> int:
    """The id after which a list is asked for; 0: from the beginning."""
    return _number(request, "after", 0, least=0, most=MAX_ID)


def _after_serial(request: Request) -> str:
    """The serial after which a list is asked for; empty: from the beginning."""
    after = request.query_params.get("after", "")
    if after:
        check_serial(after)
    return after


def _after_digests(request: Request) -> tuple[bytes, ...]:
    """The digests after which a list is asked for; none: from the beginning.

    Raises:
        RequestError: these are none.
    """
    after = request.query_params.get("after")
    try:
        return () if after is None else tuple(map(bytes.fromhex, after.split("-")))
    except ValueError as error:
        raise _not_listed() from error


def _not_listed() -> RequestError:
    return RequestError(
        400, "nothing in the list has what `after` says", hint="give that of the last one"
    )


def _number(request: Request, name: str, default: int, *, least: int, most: int) -> int:
    """A parameter behind the path.

    Raises:
        RequestError: it is no such number.
    """
    text = request.query_params.get(name)
    if text is None:
        return default
    value = int(text) if re.fullmatch("[0-9]{1,19}", text) else -1
    if not least <= value <= most:
        raise RequestError(
            400, f"`{name}` is no number that can be asked for", hint=f"give {least} to {most}"
        )
    return value


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
        log: EventLog | None,
        rollouts: RolloutRunner,
        guard: LinkGuard | None,
    ) -> None:
        self._core = core
        self._rollouts = rollouts
        self._pump = pump
        self._clock = clock
        self._gate = gate
        self._guard = guard
        self._metrics = Metrics(core.records, core.admission, guard)
        self._log = log

    def operations(self) -> list[Operation]:
        """Everything that the API does, and who may do it."""
        viewer, operator, center = AccessRole
        updates, update = "/api/updates", "/api/updates/{update_id:int}"
        history, saying = (
            "/api/terminals/{serial:path}",
            "/api/calls/{call_id:int}/texts/{count:int}",
        )
        nothing = shapes.NothingShape
        return [
            Operation(
                *("GET", "/api/terminals", self.terminals, viewer, list[shapes.ListedTerminal]),
                query=_BY_SERIAL,
            ),
            Operation(
                *("GET", history, self.terminal, viewer, shapes.TerminalHistory), query=_BY_ID
            ),
            Operation("GET", "/api/waiting", self.waiting, viewer, list[shapes.WaitingShape]),
            Operation(
                *("POST", "/api/approvals", self.approve, operator, shapes.ApprovedShape, 201),
                ApprovalOrder,
            ),
            Operation(
                *("GET", "/api/preparations", self.preparations, viewer),
                list[shapes.PreparationShape],
                query=_BY_TEXT,
            ),
            Operation(
                *("GET", "/api/images", self.images, viewer, list[shapes.ImageShape]),
                query=_BY_TEXT,
            ),
            Operation(
                *("POST", "/api/images", self.publish, operator, shapes.PublishedShape, 201, bytes)
            ),
            Operation(
                *("GET", updates, self.updates, viewer, list[shapes.UpdateShape]), query=_BY_ID
            ),
            Operation("POST", updates, self.start, operator, shapes.UpdateShape, 201, UpdateOrder),
            Operation("GET", update, self.update, viewer, shapes.UpdateHistory),
            Operation("DELETE", update, self.cancel, operator, shapes.UpdateShape),
            Operation("DELETE", f"{update}/backup", self.abandon, operator, shapes.UpdateShape),
            Operation(
                *("GET", "/api/sessions/{session_id:int}", self.session, viewer),
                shapes.PlannedSession,
            ),
            Operation(
                *("POST", "/api/messages", self.message, operator, shapes.MessageShape, 201),
                TextOrder,
            ),
            *self._rollout_operations(),
            Operation("POST", "/api/center", self.center_is_there, center, nothing),
            Operation("DELETE", "/api/center", self.center_leaves, center, nothing),
            Operation("PUT", saying, self.say, center, nothing, 201, SayingOrder),
            Operation("GET", "/api/openapi.json", self.description, None, dict[str, Any]),
            Operation("GET", "/health", self.health, None, shapes.HealthShape),
            Operation("GET", "/metrics", self.metrics, viewer, None),
        ]

    def _rollout_operations(self) -> list[Operation]:
        viewer, operator, _ = AccessRole
        rollouts, rollout = "/api/rollouts", "/api/rollouts/{rollout_id:int}"
        shape, members = shapes.RolloutShape, list[shapes.MemberShape]
        deeds = (self.approve_rollout, self.pause_rollout, self.resume_rollout)
        return [
            Operation(
                *("GET", rollouts, self.rollouts, viewer, list[shapes.RolloutShape]), query=_BY_ID
            ),
            Operation("POST", rollouts, self.roll_out, operator, shape, 201, RolloutOrder),
            Operation("GET", rollout, self.rollout, viewer, shapes.RolloutHistory),
            Operation(
                *("GET", f"{rollout}/members", self.rollout_members, viewer, members),
                query=_BY_SERIAL,
            ),
            *(
                Operation(
                    *("POST", f"{rollout}/{deed.__name__.partition('_')[0]}", deed, operator),
                    *(shape, 200, RolloutDeed),
                )
                for deed in (*deeds, self.abandon_rollout)
            ),
        ]

    def routes(self) -> list[Route]:
        """Every address: one for all that can be done there, so that it can say what that is."""
        found: dict[str, dict[str, Operation]] = {}
        for operation in self.operations():
            found.setdefault(operation.path, {})[operation.method] = operation
        return [self._route(path, operations) for path, operations in found.items()]

    def _route(self, path: str, operations: Mapping[str, Operation]) -> Route:
        async def handle(request: Request) -> Response:
            method = "GET" if request.method == "HEAD" else request.method
            return await self._measure(request, operations[method])

        return Route(path, handle, methods=list(operations))

    async def _measure(self, request: Request, operation: Operation) -> Response:
        """Do it for those who may, and note how long it takes."""
        began, status = perf_counter(), 500
        holder = None
        if operation.role is not None:  # Health is asked when there is no database, too.
            holder = self._gate.find_holder(request.headers.get("authorization"))
        request.state.holder = holder
        try:
            self._check(request, operation, holder)
            response = await operation.handler(request)
            status = response.status_code
        except UnbrickError as error:
            status = _status_of(error)
            raise
        finally:
            self._metrics.note_request(
                *(operation.method, operation.plain_path, status, perf_counter() - began)
            )
            if self._log is not None and operation.method != "GET":
                who = holder.name if holder else ""
                self._log.note_order(who, operation.method, request.url.path, status)
        return response

    def _check(self, request: Request, operation: Operation, holder: Holder | None) -> None:
        """See that who asks may.

        Raises:
            RequestError: they may not.
        """
        if is_of_another_site(request.headers.get("origin"), request.headers.get("host")):
            raise RequestError(
                403, "this API does not serve pages of other sites", hint="use `unbrick`"
            )
        if operation.role is None:
            return
        if holder is None:
            raise RequestError(
                UNKNOWN_SENDER,
                "this server does not know who asks",
                hint=f"set {TOKEN_VARIABLE} to a token of `unbrick server token add`",
            )
        if not holder.role.includes(operation.role):
            raise RequestError(
                403,
                f"a token of a {holder.role.value} does not let you do this",
                hint=f"use one of a {operation.role.value}",
            )

    async def terminals(self, request: Request) -> JSONResponse:
        """The terminals that registered, by serial: those after ``after``, ``first`` of them."""
        after, first = _after_serial(request), _how_many(request)
        records = self._core.records
        found = records.terminals_after(after, first)
        decisions = records.decisions(terminal.serial for terminal in found)
        return JSONResponse(
            [shapes.describe_listed(item, decisions.get(item.serial)) for item in found]
        )

    async def terminal(self, request: Request) -> JSONResponse:
        """One terminal, with its updates, what it has run, decisions and events.

        Of the events, ``first`` of those after ``after``.
        """
        after, first = _after_id(request), _how_many(request)
        serial = request.path_params["serial"]
        records = self._core.records
        terminal = records.terminal(serial)
        if terminal is None:
            raise UnknownError(
                f"no terminal {serial} has registered", hint="GET /api/terminals lists them"
            )
        events = records.events_of(serial, after=after, first=first)
        return JSONResponse(
            {
                **shapes.describe_listed(terminal, records.analysis(serial)),
                "installations": [
                    shapes.describe_installation(item) for item in records.installations(serial)
                ],
                "analyses": [shapes.describe_analysis(item) for item in records.analyses(serial)],
                "updates": self._updates(records.updates(serial)),
                "messages": [shapes.describe_message(item) for item in records.messages(serial)],
                "events": [shapes.describe_event(item) for item in events],
            }
        )

    async def waiting(self, _request: Request) -> JSONResponse:
        """The terminals that wait for approval; the newest ones are remembered."""
        return JSONResponse([shapes.describe_waiting(item) for item in self._core.waiting()])

    async def approve(self, request: Request) -> JSONResponse:
        """Let a terminal register, whether it has asked or not."""
        order = await _read(request, ApprovalOrder)
        holder: Holder = request.state.holder
        key = None if order.key is None else bytes.fromhex(order.key)
        if key is None and self._guard is not None and not self._guard.insecure:
            raise ConflictError(
                f"terminal {order.serial} cannot be let in without the key of its link",
                hint="give --key, or its enrolment file to `unbrick server enrol`",
            )
        self._core.approve_terminal(order.serial, holder.name, self._clock(), key)
        return JSONResponse({"serial": order.serial}, 201)

    async def preparations(self, request: Request) -> JSONResponse:
        """What is prepared for pairs of images: those after ``after``, ``first`` of them."""
        digests, first, records = _after_digests(request), _how_many(request), self._core.records
        after = records.preparation(*digests) if len(digests) == len(Preparation.KEY) else None
        if digests and after is None:
            raise _not_listed()
        found = records.preparations_after(after, first)
        return JSONResponse(shapes.describe_preparations(found, records))

    async def images(self, request: Request) -> JSONResponse:
        """The images, as they were published: those after ``after``, ``first`` of them."""
        digests, first, records = _after_digests(request), _how_many(request), self._core.records
        after = records.image(*digests) if len(digests) == len(Image.KEY) else None
        if digests and after is None:
            raise _not_listed()
        found = records.images_after(after, first)
        return JSONResponse([shapes.describe_image(item) for item in found])

    async def publish(self, request: Request) -> JSONResponse:
        """Publish the signed image that is the body, or the one file of a form."""
        data = await _upload(request)
        image = self._core.publish(data, self._clock())
        found = self._core.warnings(data)
        return JSONResponse(
            {**shapes.describe_image(image), **({"warnings": found} if found else {})}, 201
        )

    async def updates(self, request: Request) -> JSONResponse:
        """The updates, by id: those after ``after``, ``first`` of them."""
        found = self._core.records.updates_after(_after_id(request), _how_many(request))
        return JSONResponse(self._updates(found))

    async def start(self, request: Request) -> JSONResponse:
        """Start an update; the text of the answer is what a person should know of it."""
        order = await _read(request, UpdateOrder)
        update = self._core.start_update(
            *(order.serial, order.version, self._clock()),
            commanded=order.way == "commanded",
            downgrade=order.downgrade,
        )
        self._pump()
        return JSONResponse(self._update(update), 201)

    async def update(self, request: Request) -> JSONResponse:
        """One update, with its events, and its session if it is commanded."""
        update_id = min(request.path_params["update_id"], MAX_ID)
        update = self._core.records.update(update_id)
        if update is None:
            raise UnknownError(f"there is no update {update_id}", hint="see GET /api/updates")
        records = self._core.records
        events = [shapes.describe_event(item) for item in records.events(update_id=update_id)]
        sessions = [s for s in records.sessions(update.serial) if s.update_id == update.id]
        session = shapes.describe_session(sessions[-1], records) if sessions else None
        return JSONResponse({**self._update(update), "session": session, "events": events})

    async def session(self, request: Request) -> JSONResponse:
        """The session of a commanded update, with its plan."""
        session_id = min(request.path_params["session_id"], MAX_ID)
        session = self._core.records.session(session_id)
        if session is None:
            raise UnknownError(f"there is no session {session_id}", hint="see GET /api/updates")
        return JSONResponse(shapes.describe_plan(session, self._core.records))

    async def cancel(self, request: Request) -> JSONResponse:
        """Cancel an update."""
        update_id = min(request.path_params["update_id"], MAX_ID)
        update = self._core.cancel_update(update_id, self._clock())
        self._pump()
        return JSONResponse(self._update(update))

    async def abandon(self, request: Request) -> JSONResponse:
        """Give up a commanded update for good, and delete the backup."""
        update_id = min(request.path_params["update_id"], MAX_ID)
        update = self._core.abandon_update(update_id, self._clock())
        return JSONResponse(self._update(update))

    async def message(self, request: Request) -> JSONResponse:
        """Send a text to a terminal's user."""
        order = await _read(request, TextOrder)
        message = self._core.send_text(order.serial, order.text, self._clock())
        self._pump()
        return JSONResponse(shapes.describe_message(message), 201)

    def _rollout(self, item: Rollout) -> shapes.RolloutShape:
        return shapes.describe_rollout(item, self._core.records.rollouts.group_counts(item))

    async def rollouts(self, request: Request) -> JSONResponse:
        """The rollouts, by id: those after ``after``, ``first`` of them."""
        found = self._core.records.rollouts.after(_after_id(request), _how_many(request))
        return JSONResponse([self._rollout(item) for item in found])

    def _known_rollout(self, request: Request) -> Rollout:
        rollout_id = min(request.path_params["rollout_id"], MAX_ID)
        rollout = self._core.records.rollouts.get(rollout_id)
        if rollout is None:
            raise UnknownError(f"there is no rollout {rollout_id}", hint="see GET /api/rollouts")
        return rollout

    async def rollout(self, request: Request) -> JSONResponse:
        """One rollout, with what was done, and the first 100 terminals that failed."""
        rollout, records = self._known_rollout(request), self._core.records.rollouts
        failed = (MemberState.FAILED, MemberState.FORGIVEN)
        failures = records.members(rollout.id, states=failed, first=MOST_FAILURES)
        return JSONResponse(
            {
                **self._rollout(rollout),
                "history": [shapes.describe_deed(item) for item in records.history(rollout.id)],
                "failures": [shapes.describe_member(item) for item in failures],
            }
        )

    async def rollout_members(self, request: Request) -> JSONResponse:
        """The terminals of a rollout, by serial: those after ``after``, ``first`` of them."""
        after, first = _after_serial(request), _how_many(request)
        rollout = self._known_rollout(request)
        found = self._core.records.rollouts.members(rollout.id, after=after, first=first)
        return JSONResponse([shapes.describe_member(item) for item in found])

    async def roll_out(self, request: Request) -> JSONResponse:
        """Make a rollout. It begins when somebody else has approved it."""
        order = await _read(request, RolloutOrder)
        draft = RolloutDraft(
            version=order.version,
            hardware_id=order.hardware,
            name=order.name,
            serials=order.serials,
            software=order.software,
            runs=order.runs,
            percents=tuple(order.groups),
            success=order.success,
            error=order.error,
            commanded=order.way == "commanded",
            downgrade=order.downgrade,
            consent=order.consent,
            not_before=None if order.not_before is None else order.not_before.timestamp(),
        )
        made = self._rollouts.create(draft, _who(request, order.by), self._clock())
        return JSONResponse(self._rollout(made), 201)

    async def approve_rollout(self, request: Request) -> JSONResponse:
        """Let a rollout begin that somebody else has made."""
        return await self._do(request, self._rollouts.approve)

    async def pause_rollout(self, request: Request) -> JSONResponse:
        """Order nothing more for now, and take back what can be."""
        return await self._do(request, self._rollouts.pause)

    async def resume_rollout(self, request: Request) -> JSONResponse:
        """Go on with a rollout that was paused or has stopped."""
        return await self._do(request, self._rollouts.resume)

    async def abandon_rollout(self, request: Request) -> JSONResponse:
        """Give a rollout up for good, and take back what can be."""
        return await self._do(request, self._rollouts.abandon)

    async def _do(self, request: Request, do: Callable[[int, str, float], Rollout]) -> JSONResponse:
        deed = await _read(request, RolloutDeed)
        rollout_id = min(request.path_params["rollout_id"], MAX_ID)
        return JSONResponse(self._rollout(do(rollout_id, _who(request, deed.by), self._clock())))

    async def center_is_there(self, _request: Request) -> JSONResponse:
        """The customer center is there; calls are taken for 15 s."""
        self._core.lines.center_is_there(self._clock())
        return JSONResponse({})

    async def center_leaves(self, _request: Request) -> JSONResponse:
        """It is not, or has just begun: its calls are over."""
        self._core.center_leaves()
        self._pump()
        return JSONResponse({})

    async def say(self, request: Request) -> JSONResponse:
        """Say a text of a terminal's call."""
        order = await _read(request, SayingOrder)
        call_id, count = (min(request.path_params[name], MAX_ID) for name in ("call_id", "count"))
        self._core.say(call_id, count, order.text, last=order.then == "end")
        self._pump()
        return JSONResponse({}, 201)

    async def description(self, _request: Request) -> JSONResponse:
        """This description."""
        return JSONResponse(describe_api(self.operations()))

    async def health(self, _request: Request) -> JSONResponse:
        """Whether the server does its work: it answers, and its database does."""
        try:
            self._core.records.image(b"")
        except Exception as error:  # whatever it is, the answer is the same
            raise RequestError(
                503, "the database does not answer", hint="see the server's log"
            ) from error
        return JSONResponse({"status": "ok"})

    async def metrics(self, _request: Request) -> Response:
        """What the server measures of itself, for Prometheus."""
        return Response(self._metrics.write(), media_type=CONTENT_TYPE)

    def _update(self, item: Update) -> shapes.UpdateShape:
        return self._updates([item])[0]

    def _updates(self, items: list[Update]) -> list[shapes.UpdateShape]:
        sizes = self._core.records.file_sizes(items)
        return [self._describe_update(item, sizes[item.id]) for item in items]

    def _describe_update(self, item: Update, size: int) -> shapes.UpdateShape:
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
            "sent": self._core.progress(item, size),
            "size": size,
            "kind": kind[item.kind],
            "created": shapes.format_time(item.created),
            "changed": shapes.format_time(item.changed),
        }


def _who(request: Request, by: str) -> str:
    """Who orders: the holder of the token, or the operator of a center in whose name it asks.

    Raises:
        RequestError: that is no center.
        ConflictError: nobody can have that name.
    """
    holder: Holder = request.state.holder
    if not by:
        return holder.name
    if not holder.role.includes(AccessRole.CENTER):
        raise RequestError(
            403, "only a customer center orders for others", hint="leave `by` out of the body"
        )
    if not by.isprintable():
        raise ConflictError("that is no name of an operator", hint="leave `by` out of the body")
    return by


def make_app(
    core: ServerCore,
    pump: Callable[[], None],
    clock: Callable[[], float],
    gate: Gate,
    log: EventLog | None = None,
    rollouts: RolloutRunner | None = None,
    guard: LinkGuard | None = None,
) -> Starlette:
    """The API as an ASGI application.

    Args:
        core: the server's core.
        pump: called when the core may have something to send to terminals.
        clock: seconds since 1970.
        gate: says who may do what.
        log: is told of orders.
        rollouts: makes rollouts; None: nobody but the API asks for one that does.
        guard: says whether terminals need keys, and who was not heard; None: they need none.
    """
    rollouts = rollouts or RolloutRunner(core)
    return Starlette(
        routes=_Api(core, pump, clock, gate, log, rollouts, guard).routes(),
        exception_handlers={UnbrickError: _say_error, HTTPException: _say_error},
    )
