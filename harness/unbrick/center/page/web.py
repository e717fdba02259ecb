"""The customer center's page: Starlette, templates of the server, and a little JavaScript.

Every order is a form that works without JavaScript, too; with it, the parts of a page that are
marked as live are fetched again when the event stream says that something has changed.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from unbrick.center.calls.machine import Need, shorten_version
from unbrick.center.calls.notify import write_invitation
from unbrick.center.center import Center, SignInError
from unbrick.center.desk import STAGED, WAYS
from unbrick.center.operators.accounts import Permission, may
from unbrick.center.operators.records import Deed, Operator
from unbrick.center.page import views
from unbrick.center.page.hints import say_on_page
from unbrick.center.page.live import stream
from unbrick.center.page.rollouts import BLANK, read_order
from unbrick.center.page.security import (
    COOKIE,
    SIGN_IN_LIFETIME_S,
    SafeHeaders,
    comes_from_elsewhere,
)
from unbrick.center.page.terminal_list import KINDS, Wanted
from unbrick.errors import UnbrickError
from unbrick.server.records.calls import CALLER

MAX_FORM, MAX_FIELDS = 8 * 1024, 16
MAX_FIELD = 200
"""Characters of a field that are shown again when something is wrong with it."""

ROLLOUT_DEEDS = ("approve", "pause", "resume", "abandon")
KEY_ANSWER_TIMEOUT_S = 3.0
"""Seconds that the answer to a key waits for the server."""

_HERE = Path(__file__).parent
Handler = Callable[[Request, Operator], Awaitable[Response]]


class PageError(UnbrickError):
    """A request that gets no page.

    Attributes:
        status: the HTTP status that says why.
    """

    def __init__(self, status: int, message: str, *, hint: str) -> None:
        super().__init__(message, hint=hint)
        self.status = status


class _Static(StaticFiles):
    """Style and script; browsers ask each time whether they have changed."""

    def file_response(self, *args: Any, **extra: Any) -> Response:
        response = super().file_response(*args, **extra)
        response.headers["Cache-Control"] = "no-cache"
        return response


class Pages:
    """The handlers, over a center."""

    def __init__(self, center: Center) -> None:
        self._center = center
        self._templates = Environment(
            loader=FileSystemLoader(_HERE / "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._templates.filters.update(
            moment=views.format_moment,
            machine_time=views.format_machine_time,
            short=shorten_version,
            on_page=say_on_page,
            path=_in_path,
        )

    def routes(self) -> list[Route | Mount]:
        """Every address."""
        see, post = self._seen, self._posted
        update = Permission.UPDATE
        return [
            Route("/sign-in", self.sign_in_page),
            Route("/sign-in", self.sign_in, methods=["POST"]),
            Route("/sign-out", post(self.sign_out), methods=["POST"]),
            Route("/", see(self.terminals)),
            Route("/terminals/{serial}", see(self.terminal)),
            Route("/terminals/{serial}/calls", post(self.call, Permission.CALL), methods=["POST"]),
            Route(
                "/terminals/{serial}/messages", post(self.send, Permission.SEND), methods=["POST"]
            ),
            Route("/terminals/{serial}/updates", post(self.start, update), methods=["POST"]),
            Route("/updates/{update_id:int}/cancel", post(self.cancel, update), methods=["POST"]),
            Route("/updates/{update_id:int}/abandon", post(self.abandon, update), methods=["POST"]),
            Route("/rollouts", see(self.rollouts)),
            Route("/rollouts", post(self.roll_out, update), methods=["POST"]),
            Route("/rollouts/new", see(self.new_rollout, update)),
            Route("/rollouts/{rollout_id:int}", see(self.rollout)),
            Route(
                "/rollouts/{rollout_id:int}/{deed}",
                post(self.rule_on_rollout, update),
                methods=["POST"],
            ),
            Route("/calls", see(self.calls)),
            Route("/calls/{call_id:int}", see(self.one_call)),
            Route("/calls/{call_id:int}/key", post(self.key, Permission.CALL), methods=["POST"]),
            Route(
                "/calls/{call_id:int}/hang-up",
                post(self.hang_up, Permission.CALL),
                methods=["POST"],
            ),
            Route("/log", see(self.log, Permission.SEE_LOG)),
            Route("/live", self.live),
            Mount("/static", _Static(directory=_HERE / "static")),
        ]

    # Signing in and out

    async def sign_in_page(self, request: Request) -> Response:
        """The form, or the way to where a sign-in leads."""
        if self._signed_in(request):
            return RedirectResponse("/", 303)
        return self._render(request, "sign_in.html", None, wrong="", name="")

    async def sign_in(self, request: Request) -> Response:
        """Begin a sign-in."""
        form = await self._form(request)
        name = form.get("name", "")
        address = request.client.host if request.client else ""
        try:
            number = await self._center.sign_in(name, form.get("password", ""), address)
        except SignInError as error:
            return self._render(
                *(request, "sign_in.html", None, error.status), wrong=str(error), name=name[:64]
            )
        # A number that was there before signing in is nobody's any more.
        request.session.clear()
        request.session["number"] = number
        return RedirectResponse("/", 303)

    async def sign_out(self, request: Request, operator: Operator) -> Response:
        """End the sign-in."""
        self._center.sign_out(_number(request), operator)
        request.session.clear()
        return RedirectResponse("/sign-in", 303)

    # Pages

    async def terminals(self, request: Request, operator: Operator) -> Response:
        """Every terminal at a glance."""
        query = {
            name: request.query_params.get(name, "")[:MAX_FIELD].strip()
            for name in ("q", "kind", "version", "after")
        }
        kind = query["kind"] if query["kind"] in KINDS else ""
        wanted = Wanted(query["q"][:64], kind, query["version"], query["after"])
        owners = may(operator, Permission.SEE_SUBSCRIBERS)
        rows, page = self._center.views.rows(wanted, owners=owners)
        if any(row.owner for row in rows):
            self._center.looked_at_list(_number(request), operator)
        return self._render(
            *(request, "terminals.html", operator),
            topic="terminals",
            wanted=wanted,
            kinds=KINDS,
            rows=rows,
            page=page,
            next=urlencode({**query, "after": page.next}) if page.next else "",
            owners=owners,
        )

    async def terminal(self, request: Request, operator: Operator) -> Response:
        """One terminal."""
        serial = _serial(request)
        owners = may(operator, Permission.SEE_SUBSCRIBERS)
        view = self._center.views.terminal(serial, owners=owners)
        if view is None:
            raise PageError(
                404, f"no terminal {serial[:40]!r} has registered", hint="see the list of terminals"
            )
        if view.row.owner:
            self._center.looked_at(_number(request), operator, view.row.owner, serial)
        now = view.row.situation
        needed = now.need is Need.NEEDED
        return self._render(
            *(request, "terminal.html", operator),
            topic=f"terminal:{serial}",
            view=view,
            offer=write_invitation(self._center.menu, serial, now.old, now.new) if needed else "",
            way=self._center.desk.way_for(view.row.terminal),
        )

    async def rollouts(self, request: Request, operator: Operator) -> Response:
        """The newest rollouts."""
        return self._render(
            *(request, "rollouts.html", operator),
            topic="rollouts",
            views=self._center.views.rollouts(),
        )

    async def rollout(self, request: Request, operator: Operator) -> Response:
        """One rollout."""
        rollout_id = min(request.path_params["rollout_id"], 2**63 - 1)
        page = self._center.views.rollout(rollout_id)
        if page is None:
            raise PageError(
                404, f"there is no rollout {rollout_id}", hint="see the list of rollouts"
            )
        return self._render(
            request, "rollout.html", operator, topic=f"rollout:{rollout_id}", page=page
        )

    async def new_rollout(self, request: Request, operator: Operator) -> Response:
        """The form for a new rollout."""
        return self._show_draft(request, operator, BLANK)

    def _show_draft(
        self,
        request: Request,
        operator: Operator,
        draft: Mapping[str, str],
        wrong: UnbrickError | None = None,
    ) -> Response:
        """The form with what was filled in, and what is wrong with it."""
        return self._render(
            *(request, "new_rollout.html", operator, 409 if wrong else 200),
            images=self._center.desk.records.images()[::-1],
            draft=draft,
            wrong=wrong,
        )

    async def calls(self, request: Request, operator: Operator) -> Response:
        """The latest calls."""
        before = _number_in(request, "before")
        calls = self._center.desk.records.calls(newest=views.MOST_ROWS, before=before)[::-1]
        return self._render(
            *(request, "calls.html", operator),
            topic="calls",
            calls=calls,
            older=calls[-1].id if len(calls) == views.MOST_ROWS else 0,
        )

    async def one_call(self, request: Request, operator: Operator) -> Response:
        """A call, with its keys while it lasts."""
        call_id = min(request.path_params["call_id"], 2**63 - 1)
        call = self._center.desk.records.call(call_id)
        if call is None:
            raise PageError(404, f"there is no call {call_id}", hint="see the list of calls")
        view = self._center.views.terminal(call.serial, owners=False)
        return self._render(
            *(request, "call.html", operator),
            topic=f"call:{call.id}",
            call=call,
            lines=[line.partition(": ")[::2] for line in call.text.splitlines()],
            choices=self._center.calls.choices(call.id),
            update=view.row.update if view else None,
        )

    async def log(self, request: Request, operator: Operator) -> Response:
        """What operators did, and what was done to personal data."""
        most = views.MOST_ROWS
        deeds, data = _number_in(request, "deeds"), _number_in(request, "data")
        entries = self._center.accounts.entries(most, deeds)
        audit = self._center.desk.records.audit(newest=most, before=data)[::-1]
        return self._render(
            *(request, "log.html", operator),
            entries=entries,
            audit=audit,
            older_entries=entries[-1].id if len(entries) == most else 0,
            older_audit=audit[-1].id if len(audit) == most else 0,
        )

    # Orders

    async def call(self, request: Request, operator: Operator) -> Response:
        """Begin a call."""
        serial = _serial(request)
        call = self._center.calls.begin(serial, operator.name)
        self._center.note(operator, Deed.CALLED, serial, f"call {call.id}")
        await self._center.calls.settled(call.id, KEY_ANSWER_TIMEOUT_S)
        return RedirectResponse(f"/calls/{call.id}", 303)

    async def key(self, request: Request, _operator: Operator) -> Response:
        """Press a key."""
        call_id = request.path_params["call_id"]
        form = await self._form(request)
        self._center.calls.press(self._clerks(call_id), form.get("key", ""))
        await self._center.calls.settled(call_id, KEY_ANSWER_TIMEOUT_S)
        return RedirectResponse(f"/calls/{call_id}", 303)

    async def hang_up(self, request: Request, _operator: Operator) -> Response:
        """Hang up."""
        call_id = request.path_params["call_id"]
        self._center.calls.hang_up(self._clerks(call_id))
        return RedirectResponse(f"/calls/{call_id}", 303)

    def _clerks(self, call_id: int) -> int:
        """A call that a clerk makes."""
        call = self._center.desk.records.call(min(call_id, 2**63 - 1))
        if call is not None and call.caller == CALLER:
            raise PageError(
                409, f"the user of {call.serial} makes this call", hint="the keys are there"
            )
        return call_id

    async def send(self, request: Request, operator: Operator) -> Response:
        """Send a text message."""
        serial = _serial(request)
        form = await self._form(request)
        await self._center.desk.send(serial, form.get("text", "").strip())
        self._center.note(operator, Deed.SENT, serial)
        return RedirectResponse(f"/terminals/{_in_path(serial)}#messages", 303)

    async def start(self, request: Request, operator: Operator) -> Response:
        """Start an update without a call."""
        serial = _serial(request)
        form = await self._form(request)
        version, way = form.get("version", ""), form.get("way", STAGED)
        if way not in WAYS:
            raise PageError(400, "there is no such way to update", hint="load the page anew")
        downgrade = form.get("downgrade") == "yes"
        await self._center.desk.start(serial, version, way, downgrade=downgrade)
        meant = ", older or not" if downgrade else ""
        self._center.note(operator, Deed.STARTED, serial, f"to {version[:40]}, {way}{meant}")
        return RedirectResponse(f"/terminals/{_in_path(serial)}", 303)

    async def cancel(self, request: Request, operator: Operator) -> Response:
        """Cancel an update."""
        return await self._end(request, operator, self._center.desk.cancel, Deed.CANCELLED)

    async def abandon(self, request: Request, operator: Operator) -> Response:
        """Give up a commanded update whose terminal will not come back."""
        return await self._end(request, operator, self._center.desk.abandon, Deed.ABANDONED)

    async def _end(
        self,
        request: Request,
        operator: Operator,
        end: Callable[[int], Awaitable[None]],
        deed: Deed,
    ) -> Response:
        update_id = min(request.path_params["update_id"], 2**63 - 1)
        update = self._center.desk.records.update(update_id)
        if update is None:
            raise PageError(404, f"there is no update {update_id}", hint="see its terminal's page")
        await end(update_id)
        self._center.note(operator, deed, update.serial, f"update {update_id}")
        return RedirectResponse(f"/terminals/{_in_path(update.serial)}", 303)

    async def roll_out(self, request: Request, operator: Operator) -> Response:
        """Make a rollout; what cannot be is said above the form."""
        form = await self._form(request)
        draft = {name: form.get(name, "")[:MAX_FIELD] for name in BLANK}
        try:
            rollout_id = await self._center.desk.roll_out(read_order(draft), operator.name)
        except UnbrickError as error:
            return self._show_draft(request, operator, draft, error)
        self._center.note(operator, Deed.ROLLED_OUT, "", f"create rollout {rollout_id}")
        return RedirectResponse(f"/rollouts/{rollout_id}", 303)

    async def rule_on_rollout(self, request: Request, operator: Operator) -> Response:
        """Approve, pause, resume or abandon a rollout."""
        rollout_id = min(request.path_params["rollout_id"], 2**63 - 1)
        deed: str = request.path_params["deed"]
        if deed not in ROLLOUT_DEEDS:
            raise PageError(404, "nobody can do that with a rollout", hint="load the page anew")
        await self._center.desk.do_with_rollout(rollout_id, deed, operator.name)
        self._center.note(operator, Deed.ROLLED_OUT, "", f"{deed} rollout {rollout_id}")
        return RedirectResponse(f"/rollouts/{rollout_id}", 303)

    async def live(self, request: Request) -> Response:
        """The event stream about a topic."""
        number = _number(request)
        if self._signed_in(request) is None or comes_from_elsewhere(request):
            return Response(status_code=403)
        if self._center.hub.full:
            return Response(status_code=503)
        alive = lambda: self._center.signed_in(number) is not None  # noqa: E731
        topic = request.query_params.get("topic", "")[:80]
        return StreamingResponse(
            stream(self._center.hub, topic, alive),
            media_type="text/event-stream",
            headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
        )

    # What they have in common

    def _signed_in(self, request: Request, *, use: bool = False) -> Operator | None:
        return self._center.signed_in(_number(request), use=use)

    def _seen(
        self, handler: Handler, needs: Permission | None = None
    ) -> Callable[[Request], Awaitable[Response]]:
        """A page for operators, or for those with a permission."""

        async def guarded(request: Request) -> Response:
            # A page that keeps itself up to date is no sign of a person.
            use = "x-live" not in request.headers
            operator = self._signed_in(request, use=use)
            if operator is None:
                return RedirectResponse("/sign-in", 303)
            self._check(operator, needs)
            return await handler(request, operator)

        return guarded

    def _posted(
        self, handler: Handler, needs: Permission | None = None
    ) -> Callable[[Request], Awaitable[Response]]:
        """An order of an operator, which came from a form of ours."""

        async def guarded(request: Request) -> Response:
            operator = self._signed_in(request, use=True)
            if operator is None:
                return RedirectResponse("/sign-in", 303)
            form = await self._form(request)
            if not self._center.tokens.fits(form.get("token", ""), _number(request)):
                raise PageError(403, "the form is out of date", hint="go back, load it anew")
            self._check(operator, needs)
            return await handler(request, operator)

        return guarded

    def _check(self, operator: Operator, needs: Permission | None) -> None:
        if needs is not None and not may(operator, needs):
            self._center.note(operator, Deed.REFUSED, "", needs.value)
            raise PageError(
                403, f"as {operator.role.value} you may not {needs.value}", hint="ask who may"
            )

    async def _form(self, request: Request) -> dict[str, str]:
        """The fields of a form, read only as far as it may be long.

        Raises:
            PageError: it is none, too long, or came from a page of another site.
        """
        if comes_from_elsewhere(request):
            raise PageError(403, "that came from another site", hint="use this site's own forms")
        if hasattr(request.state, "form"):
            return dict(request.state.form)
        kind = Headers(scope=request.scope).get("content-type", "").partition(";")[0]
        if kind.strip().lower() != "application/x-www-form-urlencoded":
            raise PageError(415, "that is no form", hint="use this site's own forms")
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) > MAX_FORM:
                raise PageError(413, "the form is too long", hint="write less")
        try:
            fields = parse_qsl(
                body.decode("ascii"), keep_blank_values=True, max_num_fields=MAX_FIELDS
            )
        except ValueError as error:
            raise PageError(400, "the form is malformed", hint="load the page anew") from error
        request.state.form = dict(fields)
        return dict(fields)

    def _render(
        self,
        request: Request,
        template: str,
        operator: Operator | None,
        status: int = 200,
        **values: Any,
    ) -> HTMLResponse:
        number = _number(request)
        page = self._templates.get_template(template).render(
            operator=operator,
            may={item.name.lower() for item in Permission if operator and may(operator, item)},
            token=self._center.tokens.make(number) if operator else "",
            path=request.url.path,
            status=status,
            **{"topic": "", **values},
        )
        return HTMLResponse(page, status)

    async def say_error(self, request: Request, error: Exception) -> Response:
        """A page that says what went wrong."""
        if isinstance(error, HTTPException):
            status, what, hint = error.status_code, str(error.detail), "see the list of terminals"
        elif isinstance(error, UnbrickError):
            status = error.status if isinstance(error, PageError) else 409
            what, hint = str(error), say_on_page(error.hint)
        else:
            raise error
        operator = self._signed_in(request) if "session" in request.scope else None
        return self._render(request, "error.html", operator, status, what=what, hint=hint)


def _number(request: Request) -> str:
    number = request.session.get("number", "")
    return number if isinstance(number, str) else ""


def _number_in(request: Request, name: str) -> int | None:
    """A number of the query, if it is there and one; databases count to 2^63."""
    text = request.query_params.get(name, "")
    return min(int(text), 2**63 - 1) if re.fullmatch("[0-9]{1,19}", text) else None


def _in_path(text: str) -> str:
    """A serial as one part of a path, also one with a slash: what is not plain as ``~2f``."""
    return "".join(
        chr(byte) if (chr(byte).isalnum() and byte < 128) or byte in b"-_" else f"~{byte:02x}"
        for byte in text.encode()
    )


def _serial(request: Request) -> str:
    part: str = request.path_params["serial"]
    plain = re.sub(r"~([0-9a-f]{2})", lambda found: chr(int(found.group(1), 16)), part)
    try:
        return plain.encode("latin-1").decode()
    except UnicodeError as error:
        raise PageError(404, "that is no serial", hint="see the list of terminals") from error


def make_app(center: Center) -> Starlette:
    """The pages as an ASGI application, which runs the center meanwhile."""
    pages = Pages(center)

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        async with center.running():
            yield

    return Starlette(
        routes=pages.routes(),
        lifespan=lifespan,
        middleware=[
            Middleware(SafeHeaders),
            Middleware(
                SessionMiddleware,
                secret_key=center.key,
                session_cookie=COOKIE,
                max_age=SIGN_IN_LIFETIME_S,
                same_site="strict",
                https_only=True,
            ),
        ],
        exception_handlers={UnbrickError: pages.say_error, HTTPException: pages.say_error},
    )
