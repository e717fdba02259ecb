"""The software management server without sockets, clock, threads or randomness (rows A5-A7, A13).

It takes messages and gives messages. Everything it knows is in ``Records``, and is committed before
a message that says so leaves. So its word stays true when it is killed at any point.

Messages from terminals, messages to them, and people's orders meet here. The course of an update
is in ``server.staged`` (by a file) and ``server.commanded`` (by commands). A terminal that
registers as in restoration has no software that may run; the server then begins an update by
itself, to software that ``server.restoring`` chooses.

Several servers may share the records. Then a terminal is the server's that it speaks with, and the
others leave it alone (``leases``). What one of them keeps, the others see when they look.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import aiocoap

from unbrick.errors import LinkError
from unbrick.image.format import ImageInfo, list_warnings
from unbrick.server.core.admission import Admission, Refusal, WaitingTerminal
from unbrick.server.core.analysis import Analyst, AtOnce
from unbrick.server.core.commanded import Commander
from unbrick.server.core.errands import Errand, Errands
from unbrick.server.core.files import Files, answer_block
from unbrick.server.core.leases import Alone, Leases
from unbrick.server.core.lines import CallLines
from unbrick.server.core.orders import Order, Standing, check_order, check_serial, find_image
from unbrick.server.core.restoring import choose_image
from unbrick.server.core.staged import CANCELLABLE, WAITING, Stager
from unbrick.server.core.update_log import UpdateLog
from unbrick.server.errors import ConflictError, UnknownError
from unbrick.server.records.analysis import PreparationState
from unbrick.server.records.calls import TerminalCall
from unbrick.server.records.contract import Records
from unbrick.server.records.people import Actor
from unbrick.server.records.updates import (
    Image,
    MessageState,
    Terminal,
    TextMessage,
    Update,
    UpdateState,
)
from unbrick.wire.calls import CallRequest, HangUp, Key
from unbrick.wire.coap import DISCOVERY, Outgoing, post
from unbrick.wire.commands import CommandResult
from unbrick.wire.messages import (
    CBOR_FORMAT,
    LINK_FORMAT,
    Registration,
    Report,
    TerminalState,
    Text,
)

_ANNOUNCE, _STATUS, _COMMAND, _SEND_AWAY = "announce", "status", "command", "send away"
_TEXT, _SAY = "text", "say"

_ORDERED = frozenset({UpdateState.PENDING, UpdateState.CANCELLED})
"""What an update is in when somebody has ordered it, or its end."""

TEXTS_AT_ONCE = 50
"""Texts for users that others have queued, and that are seen in one look."""

_PLACE = {
    TerminalState.APPLICATION: "",
    TerminalState.RESTORATION: ", in restoration",
    TerminalState.COMMANDED: ", in the resident program",
}


@dataclass(frozen=True)
class _Action:
    """What is done with a request of a terminal.

    Attributes:
        decode: its payload; raises LinkError.
        do: called with where it came from, what it says, and the time.
    """

    decode: Callable[[bytes], Any]
    do: Callable[[str, Any, float], aiocoap.Message]


class ServerCore:
    """The server. Every method that takes ``now`` takes seconds; none of them waits.

    Args:
        records: what it remembers.
        inspect: what an image file is; raises ImageError.
        admit: raises ImageError for an image that no terminal would take; without it the server
            publishes whatever is an image.
        analyst: what keeps the history of terminals and has prepared what turns one image into
            another; an update waits until it is there (``prepared``). Without one only full images
            are sent.
        admission: decides which registrations are taken; without it all are.
        leases: which other servers share the records; without it none do.
    """

    def __init__(
        self,
        records: Records,
        inspect: Callable[[bytes], ImageInfo],
        analyst: Analyst | None = None,
        *,
        admit: Callable[[bytes, ImageInfo], None] | None = None,
        admission: Admission | None = None,
        leases: Leases | None = None,
    ) -> None:
        self.records = records
        self.admission = admission
        self._leases = leases or Alone()
        self._admit = admit
        self._analyst = analyst or AtOnce(records)
        self._inspect = inspect
        self._log = UpdateLog(records)
        self._files = Files(records)
        self._stager = Stager(records, self._analyst, self._files, self._log, self._go_on)
        self._commander = Commander(
            records, self._analyst, self._files, self._log, inspect, self._go_on
        )
        self._errands = Errands()
        self._kept: dict[Errand, None] = {}
        self.lines = CallLines(records, self._leases)
        self._actions = {
            "call": _Action(CallRequest.decode, lambda _, said, now: self.lines.call(said, now)),
            "hang-up": _Action(HangUp.decode, lambda _, said, _now: self.lines.hang_up(said)),
            "key": _Action(Key.decode, lambda _, said, _now: self.lines.key(said)),
            "register": _Action(Registration.decode, self._register),
            "report": _Action(Report.decode, lambda _, said, now: self._stager.report(said, now)),
            "result": _Action(
                CommandResult.decode, lambda _, said, now: self._commander.result(said, now)
            ),
        }
        self._seen = 0
        self._seen_text = 0
        self._prepared: set[tuple[bytes, bytes]] = set()
        self.go_on()

    # Requests of terminals

    def handle(
        self, endpoint: str, request: aiocoap.Message, now: float, serial: str | None = None
    ) -> aiocoap.Message:
        """The answer to a terminal's request; never raises for what is in it.

        Critical options that nobody here knows have been refused before (``CoapEndpoint``).

        Args:
            endpoint: from where it came.
            request: what it says.
            now: seconds.
            serial: of the terminal that has made it for certain; None: anybody may have.
        """
        path = request.opt.uri_path
        if path == DISCOVERY:
            return self._discover(request)
        if len(path) == 2 and path[0] == "file":
            return self._stager.file(request, path[1], now, serial)
        action = self._actions.get(path[0]) if len(path) == 1 else None
        if action is None:
            return aiocoap.Message(code=aiocoap.NOT_FOUND)
        if request.code != aiocoap.POST:
            return aiocoap.Message(code=aiocoap.METHOD_NOT_ALLOWED)
        if request.opt.content_format not in (None, CBOR_FORMAT):
            return aiocoap.Message(code=aiocoap.UNSUPPORTED_CONTENT_FORMAT)
        if request.opt.accept not in (None, CBOR_FORMAT):
            return aiocoap.Message(code=aiocoap.NOT_ACCEPTABLE)
        try:
            said = action.decode(request.payload)
        except LinkError:
            return aiocoap.Message(code=aiocoap.BAD_REQUEST)
        if serial not in (None, said.serial):
            return aiocoap.Message(code=aiocoap.FORBIDDEN)
        response = action.do(endpoint, said, now)
        if response.code.is_successful():
            self._hold(said.serial, endpoint)
        return response

    def _discover(self, request: aiocoap.Message) -> aiocoap.Message:
        """The resources as links (RFC 6690); a query is no filter here, as §4.1 allows.

        Files are not among them: a terminal is told of its file by an announcement.
        """
        if request.code != aiocoap.GET:
            return aiocoap.Message(code=aiocoap.METHOD_NOT_ALLOWED)
        if request.opt.accept not in (None, LINK_FORMAT):
            return aiocoap.Message(code=aiocoap.NOT_ACCEPTABLE)
        links = ",".join(f"</{name}>;ct={CBOR_FORMAT}" for name in sorted(self._actions))
        return answer_block(request, links.encode(), LINK_FORMAT)

    def _register(self, endpoint: str, registration: Registration, now: float) -> aiocoap.Message:
        if self.admission is not None:
            refusal = self.admission.judge(registration, endpoint, now, self._is_let_in)
            if refusal is not None:
                return aiocoap.Message(code=refusal_code(refusal), max_age=refusal.wait)
        with self.records.transaction():
            before = self.records.terminal(registration.serial)
            terminal = Terminal(
                **vars(registration),
                endpoint=endpoint,
                first_seen=before.first_seen if before else now,
                last_seen=now,
                confirmed=_confirmed(registration, before),
                holder=self._leases.me,
            )
            if before is not None and before.holder != terminal.holder:
                self._commander.begin_anew(terminal.serial)
            self.records.save_terminal(terminal)
            if (
                before is None
                or before.digest != terminal.digest
                or before.state is not terminal.state
            ):
                text = f"registered with {terminal.version or 'no software'}"
                self._log.note(terminal.serial, text + _PLACE[terminal.state], now)
            for update in self.records.updates(terminal.serial):
                self._stager.compare(update, terminal, before, now)
            self._commander.registered(terminal, now)
            self._analyst.registered(terminal, before, now)
            if terminal.state is TerminalState.RESTORATION:
                self._restore(terminal, now)
        if self.admission is not None:
            self.admission.let_in(terminal.serial)
        self._reconsider(terminal, moved=before is not None and before.endpoint != endpoint)
        return aiocoap.Message(code=aiocoap.CHANGED)

    def _is_let_in(self, serial: str) -> bool:
        """Whether a terminal has registered, or was approved: here or by another process."""
        return self.records.terminal(serial) is not None or self.records.is_approved(serial)

    def _hold(self, serial: str, endpoint: str) -> None:
        """A terminal has said something here: it is this server's from now on."""
        terminal = self.records.terminal(serial)
        if terminal is None or terminal.holder == self._leases.me:
            return
        terminal = replace(terminal, endpoint=endpoint, holder=self._leases.me)
        self.records.save_terminal(terminal)
        self._commander.begin_anew(serial)
        for update in self.records.updates(serial):
            # It has just said where it is, so it need not be asked.
            if update.commanded or update.state in WAITING:
                self._go_on(update)
        self._tell(terminal)

    def _reconsider(self, terminal: Terminal, *, moved: bool) -> None:
        """Make due what this terminal is to be told or asked, now that it can be reached."""
        if moved:
            # What is under way goes to where the terminal is no longer.
            self._errands.give_up(terminal.serial)
        for update in self.records.updates(terminal.serial):
            if not update.state.ended:
                self._go_on(update)
        self._tell(terminal)

    def _tell(self, terminal: Terminal) -> None:
        """Make due what does not belong to an update that goes on."""
        if terminal.state is TerminalState.COMMANDED and not self._commander.commands(terminal):
            self._errands.add(Errand(_SEND_AWAY, terminal.last_update_id, terminal.serial))
        if terminal.state is not TerminalState.APPLICATION:
            return
        for message in self.records.messages(terminal.serial):
            if message.state is MessageState.QUEUED:
                self._make_due(_TEXT, message)
        self._say(self.lines.waiting(terminal.serial))

    def _restore(self, terminal: Terminal, now: float) -> None:
        """Begin an update to software that can run, unless one is under way."""
        updates = self.records.updates(terminal.serial)
        image = choose_image(terminal, updates, self.records.images())
        if image is None or not all(update.state.ended for update in updates):
            return
        text = f"the terminal is to be restored with {image.version}"
        # Under a number that it had before, if there is one besides that of the terminal's last
        # verdict: a terminal that fails for ever must not fill the records.
        for update in updates:
            if update.commanded or update.id == terminal.last_update_id:
                continue
            if update.digest == image.digest:
                failed = update.state in (UpdateState.FAILED, UpdateState.REFUSED)
                if failed or update.restoration:
                    again = replace(update, restoration=True)
                    self._log.change(again, UpdateState.PENDING, f"{text}, once more", now)
                    return
        self._add_update(terminal.serial, image, terminal, now, text=text, restoration=True)

    # Requests to terminals

    def poll(
        self, now: float, endpoint: str | None = None, most: int | None = None
    ) -> list[Outgoing]:
        """The requests to send now, to every terminal or only to ``endpoint``; ``most`` at most.

        ``outcome`` must be called once for each of them, whatever comes of it.
        """
        self._say(self.lines.look(now))
        for errand in self._kept:
            self._errands.add(errand)
        requests: list[Outgoing] = []
        try:
            for errand in self._errands.due():
                if len(requests) == most:
                    break
                terminal = self.records.terminal(errand.serial)
                if terminal is not None and endpoint not in (None, terminal.endpoint):
                    continue
                self._errands.drop(errand)
                if terminal is None or self._errands.is_under_way(errand):
                    continue  # It will be due when the terminal registers.
                if terminal.holder != self._leases.me:
                    self._kept.pop(errand, None)
                    continue  # Its server makes it due, or this one when it speaks with it.
                message = self._message(errand, terminal, now)
                if message is not None:
                    ticket = self._errands.start(errand)
                    requests.append(Outgoing(terminal.endpoint, message, ticket, terminal.serial))
        except BaseException:
            self.take_back(requests)
            raise
        return requests

    def take_back(self, requests: list[Outgoing]) -> None:
        """These requests of ``poll`` are not sent: they are due again."""
        for request in requests:
            errand = self._errands.end(request.ticket)
            if errand is not None:
                self._errands.add(errand)

    def outcome(self, ticket: int, response: aiocoap.Message | None, now: float) -> None:
        """What came of a request of ``poll``: the response, or None when there was none.

        A request without response is made again when the terminal registers.
        """
        errand = self._errands.end(ticket)
        if errand is None:
            return
        if errand.kind == _TEXT:
            self._told(errand.subject, response, now)
            return
        terminal = self.records.terminal(errand.serial)
        if terminal is not None and terminal.holder != self._leases.me:
            return  # Lost, as when this server had ended; another one goes on.
        if errand.kind == _SAY:
            if self.lines.heard(errand.subject, response):
                self._errands.add(errand)
            return
        update = self.records.update(errand.subject)
        if update is None or errand.kind == _SEND_AWAY:
            return
        if errand.kind == _COMMAND:
            self._commander.outcome(update, response, now)
        elif update.state.ended:
            return
        elif errand.kind == _ANNOUNCE:
            self._stager.decided(update, response, now)
        else:
            self._stager.stands(update, response, now)

    @property
    def has_errands(self) -> bool:
        """Whether ``poll`` may have something to send."""
        return bool(self._kept) or next(self._errands.due(), None) is not None

    # What earlier lives of this server, and others, have left and do

    def go_on(self) -> None:
        """Make due all that is to be told or asked: at the beginning, and when servers change."""
        newest, texts = self.records.events(newest=1), self.records.queued_messages()
        self._seen = newest[-1].id if newest else 0
        self._seen_text = texts[-1].id if texts else 0
        self._prepared = self._find_prepared()
        for update in (*self.records.unfinished_updates(), *self._commander.open_updates()):
            self._go_on(update)
        for message in texts:
            self._make_due(_TEXT, message)
        self.lines.wake()
        self._say(self.lines.waiting())

    def follow(self) -> None:
        """Make due what other servers have kept since the last look."""
        newest = self.records.events(newest=1)
        if newest and newest[-1].id != self._seen:
            ordered = [event.update_id for event in self.records.events_after(self._seen, _ORDERED)]
            self._seen = newest[-1].id
            for update_id in ordered:
                update = self.records.update(update_id) if update_id else None
                if update is not None and (update.commanded or update.state in WAITING):
                    self._go_on(update)
        texts = self.records.queued_messages(newest=TEXTS_AT_ONCE)
        for message in texts:
            if message.id > self._seen_text:
                self._make_due(_TEXT, message)
        self._seen_text = max([self._seen_text, *(message.id for message in texts)])
        prepared = self._find_prepared()
        for _, digest in prepared - self._prepared:
            self.prepared(digest)
        self._prepared = prepared
        self._say(self.lines.waiting())

    def _find_prepared(self) -> set[tuple[bytes, bytes]]:
        """The pairs of images for which nothing is to be prepared any more."""
        return {
            (item.base, item.digest)
            for item in self.records.preparations()
            if item.state is not PreparationState.QUEUED
        }

    def _go_on(self, update: Update) -> None:
        """The terminal of an update is to be told, or asked, whatever is next."""
        if update.commanded:
            self._make_due(_COMMAND, update)
        else:
            self._make_due(_ANNOUNCE if update.state in WAITING else _STATUS, update)

    def _make_due(self, kind: str, subject: Update | TextMessage) -> None:
        self._errands.add(Errand(kind, subject.id, subject.serial))

    def _say(self, calls: list[TerminalCall]) -> None:
        """Something waits to be heard in these calls."""
        for call in calls:
            self._errands.add(Errand(_SAY, call.call_id, call.serial))

    def _message(self, errand: Errand, terminal: Terminal, now: float) -> aiocoap.Message | None:
        if errand.kind == _TEXT:
            message = self.records.message(errand.subject)
            if message is None or message.state is not MessageState.QUEUED:
                return None
            if message.serial != errand.serial:
                return None  # What it was for was undone, and its id went to another.
            return post("message", Text(message.text).encode())
        if errand.kind == _SAY:
            said = self.lines.message(errand.subject)
            return None if said is None else post("say", said)
        if errand.kind == _SEND_AWAY:
            return self._commander.send_away(terminal)
        update = self.records.update(errand.subject)
        if update is None:
            return None
        if errand.kind != _STATUS and self._is_kept(update, now):
            if errand not in self._kept:
                self._kept[errand] = None
                with self.records.transaction():
                    text = "it begins when the call has ended"
                    self._log.note(update.serial, text, now, update.id)
            return None
        self._kept.pop(errand, None)
        if errand.kind == _COMMAND:
            return self._commander.message(update, terminal, now)
        if update.state.ended:
            return None
        if errand.kind == _STATUS:
            return aiocoap.Message(code=aiocoap.GET, uri_path=("status",))
        announcement = self._stager.announcement(update, terminal, now)
        return None if announcement is None else post("announce", announcement.encode())

    def _is_kept(self, update: Update, now: float) -> bool:
        """Whether an update waits for the end of a call; a restoration has nobody to wait for."""
        if update.state not in WAITING or update.restoration:
            return False
        return self.lines.keeps(update.serial, now)

    def _told(self, message_id: int, response: aiocoap.Message | None, now: float) -> None:
        message = self.records.message(message_id)
        if message is None or response is None:
            return
        state = MessageState.DELIVERED if response.code.is_successful() else MessageState.REFUSED
        with self.records.transaction():
            self.records.save_message(replace(message, state=state, changed=now))
            self._log.note(message.serial, f"text message {message_id} {state.value}", now)

    # Orders of people

    def waiting(self) -> list[WaitingTerminal]:
        """The terminals that wait for approval; only the newest are remembered."""
        return [] if self.admission is None else self.admission.waiting()

    def approve_terminal(
        self, serial: str, who: str, now: float, link_key: bytes | None = None
    ) -> None:
        """Let a terminal register, whether it has asked or not. The audit says who did.

        Args:
            serial: of the terminal.
            who: lets it in.
            now: seconds.
            link_key: what protects its messages; None: they are not protected.

        Raises:
            ConflictError: it has registered already, or no terminal can have that serial.
        """
        check_serial(serial)
        if link_key is not None:
            self.records.links.enrol(serial, link_key, Actor(who, now))
            if self.admission is not None:
                self.admission.let_in(serial)
            return
        with self.records.transaction():
            if self.records.terminal(serial) is not None:
                raise ConflictError(
                    f"terminal {serial} has registered, so there is nothing to approve",
                    hint=f"see `unbrick terminal {serial}`",
                )
            if not self.records.is_approved(serial):
                self.records.approve(serial, Actor(who, now))
        if self.admission is not None:
            self.admission.let_in(serial)

    def publish(self, data: bytes, now: float) -> Image:
        """Take a signed image into the store; one that is there already is left as it is.

        Raises:
            ImageError: it is no image, or no terminal would take it.
            ConflictError: there is another image of that version for that hardware, or that one
                with another signature.
        """
        info = self._inspect(data)
        if self._admit is not None:
            self._admit(data, info)
        with self.records.transaction():
            return self._publish(data, info, now)

    def _publish(self, data: bytes, info: ImageInfo, now: float) -> Image:
        file_digest = hashlib.sha256(data).digest()
        known = self.records.image(info.digest)
        if known is not None:
            if known.file_digest != file_digest:
                raise ConflictError(
                    f"{info.version} for {info.hardware_id} is published with another signature",
                    hint="give the software that is signed anew a new version",
                )
            return known
        for other in self.records.images():
            if (other.version, other.hardware_id) == (info.version, info.hardware_id):
                raise ConflictError(
                    f"{info.version} for {info.hardware_id} is published with other contents",
                    hint="give the new software a new version",
                )
        image = Image(
            digest=info.digest,
            version=info.version,
            hardware_id=info.hardware_id,
            name=info.name,
            build_time=info.build_time,
            security_counter=info.security_counter,
            size=info.size,
            file_size=len(data),
            file_digest=file_digest,
            published=now,
            userdata_format=info.userdata_format,
        )
        self.records.add_image(image, data)
        self._analyst.published(image, now)
        return image

    def warnings(self, data: bytes) -> list[str]:
        """What a person should know of an image that was published.

        Raises:
            ImageError: it is no image.
        """
        return list_warnings(self._inspect(data))

    def prepared(self, digest: bytes) -> None:
        """What turns others into image ``digest`` is there, or will not be: updates go on."""
        for update in self.records.unfinished_updates():
            if update.digest == digest and update.state in WAITING:
                self._go_on(update)

    def start_update(
        self,
        serial: str,
        version: str,
        now: float,
        *,
        commanded: bool = False,
        downgrade: bool = False,
    ) -> Update:
        """Have a terminal updated; one that never registered is told when it does.

        Args:
            serial: of the terminal.
            version: of a published image.
            now: seconds.
            commanded: not by a file but by commands, with a backup of the user's data.
            downgrade: also if that is older than what the terminal runs.

        Raises:
            UnknownError: there is no such image.
            ConflictError: the rule of ``orders`` is against it.
        """
        check_serial(serial)
        with self.records.transaction():
            image = find_image(self.records.images(), version, self.records.terminal(serial))
            update = self.order(serial, image, now, commanded=commanded, downgrade=downgrade)
            called = any(call.serial == serial for call in self.records.open_calls())
            self.records.rollouts.take_order(update, now, called=called)
        self.carry_out(update)
        return update

    def order(
        self, serial: str, image: Image, now: float, *, commanded: bool, downgrade: bool
    ) -> Update:
        """Keep that a terminal is to be updated to an image.

        It is told so after ``carry_out``, which is to be called when no transaction is under way.

        Raises:
            BusyError: it has an update under way.
            ConflictError: the rule of ``orders`` is against it; nothing has changed.
        """
        terminal = self.records.terminal(serial)
        order = Order(image, serial, commanded, downgrade)
        at, notes = self._check(order, terminal)
        text = "; ".join(notes)
        with self.records.transaction():
            for replaced in at.under_way:  # What a person wants is better than a guess.
                self.cancel_update(replaced.id, now)
            update = self._add_update(
                serial, image, terminal, now, text=text, commanded=commanded, downgrade=downgrade
            )
            if commanded and terminal is not None:
                self._commander.begin(update, terminal, now)
        return update

    def check(self, order: Order) -> None:
        """Whether an order would be taken now.

        Raises:
            BusyError: its terminal has an update under way.
            ConflictError: the rule of ``orders`` is against it.
        """
        self._check(order, self.records.terminal(order.serial))

    def _check(self, order: Order, terminal: Terminal | None) -> tuple[Standing, list[str]]:
        at = self._standing(order.serial, terminal, order.image)
        return at, check_order(order, at)

    def carry_out(self, update: Update) -> None:
        """Begin with an update that was ordered."""
        self._go_on(update)

    def _standing(self, serial: str, terminal: Terminal | None, image: Image) -> Standing:
        updates = self.records.updates(serial)
        base = self.records.image(terminal.digest) if terminal is not None else None
        return Standing(
            terminal=terminal,
            base=base,
            updates=updates,
            cancellable=frozenset(
                u.id for u in updates if not u.state.ended and self._can_cancel(u)
            ),
            session=self._commander.live(serial),
            prepared=base is not None and self._analyst.can_prepare(base.digest, image),
        )

    def _add_update(
        self,
        serial: str,
        image: Image,
        terminal: Terminal | None,
        now: float,
        *,
        text: str,
        restoration: bool = False,
        commanded: bool = False,
        downgrade: bool = False,
    ) -> Update:
        """A new update; ``text`` is what a person should know of it."""
        update = self.records.add_update(
            Update(
                id=0,
                serial=serial,
                version=image.version,
                digest=image.digest,
                from_version=terminal.version if terminal else "",
                from_digest=terminal.digest if terminal else b"",
                state=UpdateState.PENDING,
                result=None,
                text=text,
                created=now,
                changed=now,
                restoration=restoration,
                commanded=commanded,
                downgrade=downgrade,
            )
        )
        self._log.event(update, now)
        return update

    def cancel_update(self, update_id: int, now: float) -> Update:
        """Cancel an update: until the terminal has the whole file, or until the first erase.

        Raises:
            UnknownError: there is no such update.
            ConflictError: it is too late.
        """
        with self.records.transaction():
            update = self._known(update_id)
            if not self._can_cancel(update):
                raise ConflictError(
                    f"update {update_id} is {update.state.value}, which cannot be cancelled",
                    hint=f"see `unbrick update show {update_id}`",
                )
            cancelled = self._log.change(update, UpdateState.CANCELLED, "", now)
            if update.commanded:
                self._commander.cancelled(cancelled, now)
        return cancelled

    def try_to_cancel(self, update_id: int, now: float) -> bool:
        """Cancel an update unless it is too late; gives whether it was not."""
        update = self.records.update(update_id)
        if update is None or update.state.ended or not self._can_cancel(update):
            return False
        self.cancel_update(update_id, now)
        return True

    def _can_cancel(self, update: Update) -> bool:
        if update.commanded:
            return self._commander.can_cancel(update)
        return update.state in CANCELLABLE

    def abandon_update(self, update_id: int, now: float) -> Update:
        """Give up a commanded update whose terminal will not come back, and delete its backup.

        Raises:
            UnknownError: there is no such update.
            ConflictError: nothing of it goes on.
        """
        with self.records.transaction():
            update = self._known(update_id)
            if not self._commander.abandoned(update, now):
                raise ConflictError(
                    f"update {update_id} is {update.state.value}, and nothing of it goes on",
                    hint=f"see `unbrick update show {update_id}`",
                )
        return self._known(update_id)

    def _known(self, update_id: int) -> Update:
        update = self.records.update(update_id)
        if update is None:
            raise UnknownError(f"there is no update {update_id}", hint="see `unbrick update list`")
        return update

    def send_text(self, serial: str, text: str, now: float) -> TextMessage:
        """Send a text to a terminal's user; it is queued until it is delivered.

        Raises:
            UnknownError: the terminal never registered.
            LinkError: the text is too long or not printable.
        """
        Text(text).encode()
        if self.records.terminal(serial) is None:
            raise UnknownError(
                f"no terminal {serial} has registered",
                hint="`unbrick terminals` lists the terminals that registered",
            )
        draft = TextMessage(0, serial, text, MessageState.QUEUED, now, now)
        with self.records.transaction():
            message = self.records.add_message(draft)
        self._make_due(_TEXT, message)
        return message

    def say(self, call_id: int, count: int, text: str, *, last: bool) -> None:
        """Say text ``count`` of a call to the user of the terminal that makes it.

        Raises:
            CallOverError: nothing can be said any more.
            LinkError: the text is too long or not printable.
        """
        self._say([self.lines.say(call_id, count, text, last=last)])

    def center_leaves(self) -> None:
        """The customer center ends, or has just begun: its calls are over."""
        self._say(self.lines.center_leaves())

    def progress(self, update: Update, size: int) -> int:
        """Bytes that were sent for an update of its file, which has ``size``: ``Files.sent``."""
        return self._files.sent(update, size)


def refusal_code(refusal: Refusal) -> aiocoap.Code:
    """4.29 for who asks too often (RFC 8516), 5.03 for who has to wait."""
    return aiocoap.TOO_MANY_REQUESTS if refusal.reason.theirs else aiocoap.SERVICE_UNAVAILABLE


def _confirmed(registration: Registration, before: Terminal | None) -> bytes:
    """The digest of what ran last: an application registers only after its trial."""
    if registration.state is TerminalState.APPLICATION:
        return registration.digest
    if before is None:
        return b""
    ran = before.state is TerminalState.APPLICATION
    return before.digest if ran else before.confirmed
