"""The software management server without sockets, clock, threads or randomness (rows A5-A7, A13).

It takes messages and gives messages; everything it knows is in ``Records`` and is committed before
a message that says so leaves, so that its word stays true when it is killed at any point.

An update goes ::

    pending → announced → transferring → received → checked → rewriting → succeeded
                  ↓             ↓            ↓          ↓          ↓
               refused          └────────────┴──── failed ─────────┘

and can be cancelled until the terminal has the whole file. It succeeds only when the terminal
registers with the digest of the new image: what a terminal merely reports never counts as success.
A terminal that registers while its update is unfinished may have lost it (power cut); it is asked
for its status, and the update is announced again when it knows nothing of it.

A terminal that registers as in restoration has no software that may run. An update whose rewrite
was broken off is then announced to it again; without an unfinished one the server begins one by
itself, to software that it chooses (``_choose``).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace

import aiocoap
from aiocoap.numbers import OptionNumber

from unbrick.delta import read_header
from unbrick.errors import LinkError, ServerError
from unbrick.image.format import ImageInfo
from unbrick.server.analysis import Analyst, version_key
from unbrick.server.calls import CallLines
from unbrick.server.records import (
    Event,
    Image,
    MessageState,
    Records,
    Terminal,
    TextMessage,
    Update,
    UpdateState,
)
from unbrick.server.user_records import TerminalCall
from unbrick.wire.coap import Outgoing
from unbrick.wire.messages import (
    CBOR_FORMAT,
    FILE_FORMAT,
    MAX_SERIAL,
    Announcement,
    Decision,
    Kind,
    Phase,
    Registration,
    Report,
    Result,
    Status,
    TerminalState,
    Text,
)

BLOCK_EXPONENT = 6
"""1,024-byte blocks, unless a request asks for others (RFC 7959 §2.2)."""

FILES_HELD = 4
"""Update files kept in memory between the blocks of a transfer."""

_KNOWN_CRITICAL = frozenset(
    (
        OptionNumber.URI_HOST,
        OptionNumber.URI_PORT,
        OptionNumber.URI_PATH,
        OptionNumber.BLOCK2,
    )
)

_STATE_OF_PHASE = {
    Phase.TRANSFERRING: UpdateState.TRANSFERRING,
    Phase.RECEIVED: UpdateState.RECEIVED,
    Phase.CHECKED: UpdateState.CHECKED,
    Phase.REWRITING: UpdateState.REWRITING,
}
_WAITING = (UpdateState.PENDING, UpdateState.ANNOUNCED)
_UNDER_WAY = (
    UpdateState.TRANSFERRING,
    UpdateState.RECEIVED,
    UpdateState.CHECKED,
    UpdateState.REWRITING,
)
_FULL_MAY_DO = (
    Result.NOT_ENOUGH_SRAM,
    Result.UNKNOWN_KIND,
    Result.MALFORMED_ANNOUNCEMENT,
    Result.WRONG_BASE,
    Result.NOT_REBUILT,
)
_CANCELLABLE = (*_WAITING, UpdateState.TRANSFERRING)
_ORDER = (*_WAITING, *_UNDER_WAY)

_BROKEN_OFF = (Result.INTERRUPTED, Result.REWRITE_FAILED)
"""Results with which a terminal in restoration can take the same file again."""

_UNUSABLE = frozenset(
    (
        Result.TOO_LARGE,
        Result.UNKNOWN_KIND,
        Result.MALFORMED_ANNOUNCEMENT,
        Result.IMAGE_MALFORMED,
        Result.IMAGE_HASH_WRONG,
        Result.SIGNATURE_WRONG,
        Result.OTHER_HARDWARE,
        Result.OLDER_THAN_COUNTER,
    )
)
"""Results after which a terminal would refuse the same file every time."""


class UnknownError(ServerError):
    """There is no such terminal, image or update."""


class ConflictError(ServerError):
    """What is asked for is against the rules, or against what is going on."""


@dataclass(frozen=True)
class _Errand:
    """Something to tell or ask a terminal: ``subject`` is an update's, message's or call's id."""

    kind: str
    subject: int
    serial: str


_ANNOUNCE, _STATUS, _TEXT, _SAY = "announce", "status", "text", "say"


def full_version(text: str) -> str:
    """``1.1.0`` as ``1.1.0+0``, the way images say it."""
    return text if "+" in text else f"{text}+0"


class ServerCore:
    """The server. Every method that takes ``now`` takes seconds; none of them waits.

    Args:
        records: what it remembers.
        inspect: what an image file is; raises ImageError.
        differ: makes the differential file from an installed and a wanted image file; without it
            only full images are sent.
        analyst: what keeps the history of terminals and has differential files prepared; an update
            that one is prepared for is announced when it is there (``prepared``).
    """

    def __init__(
        self,
        records: Records,
        inspect: Callable[[bytes], ImageInfo],
        differ: Callable[[bytes, bytes], bytes] | None = None,
        analyst: Analyst | None = None,
    ) -> None:
        self.records = records
        self._analyst = analyst
        self._inspect = inspect
        self._differ = differ
        self._due: dict[_Errand, None] = {}
        self._flights: dict[int, _Errand] = {}
        self._tickets = 0
        self._files: dict[tuple[bytes, ...], tuple[bytes, bytes]] = {}
        self._served: dict[int, int] = {}
        # What was under way when an earlier life of this server ended.
        for update in records.unfinished_updates():
            self._make_due(_ANNOUNCE if update.state in _WAITING else _STATUS, update)
        for message in records.queued_messages():
            self._make_due(_TEXT, message)
        self.lines = CallLines(records)
        self._say(self.lines.waiting())

    # Requests of terminals

    def handle(self, endpoint: str, request: aiocoap.Message, now: float) -> aiocoap.Message:
        """The answer to a terminal's request; never raises for what is in it."""
        critical = {o.number for o in request.opt.option_list() if o.number.is_critical()}
        if critical - _KNOWN_CRITICAL:
            return aiocoap.Message(code=aiocoap.BAD_OPTION)
        path = request.opt.uri_path
        if path == ("register",):
            return self._post(request, lambda payload: self._register(endpoint, payload, now))
        if path == ("report",):
            return self._post(request, lambda payload: self._report(payload, now))
        if path == ("call",):
            return self._post(request, lambda payload: self.lines.call(payload, now))
        if path == ("key",):
            return self._post(request, self.lines.key)
        if path == ("hang-up",):
            return self._post(request, self.lines.hang_up)
        if len(path) == 2 and path[0] == "file":
            return self._file(request, path[1], now)
        return aiocoap.Message(code=aiocoap.NOT_FOUND)

    def _post(
        self, request: aiocoap.Message, action: Callable[[bytes], aiocoap.Message]
    ) -> aiocoap.Message:
        if request.code != aiocoap.POST:
            return aiocoap.Message(code=aiocoap.METHOD_NOT_ALLOWED)
        if request.opt.content_format not in (None, CBOR_FORMAT):
            return aiocoap.Message(code=aiocoap.UNSUPPORTED_CONTENT_FORMAT)
        try:
            return action(request.payload)
        except LinkError:
            return aiocoap.Message(code=aiocoap.BAD_REQUEST)

    def _register(self, endpoint: str, payload: bytes, now: float) -> aiocoap.Message:
        registration = Registration.decode(payload)
        with self.records.transaction():
            before = self.records.terminal(registration.serial)
            said = {name: value for name, value in vars(registration).items() if name != "nonce"}
            terminal = Terminal(
                **said,
                endpoint=endpoint,
                first_seen=before.first_seen if before else now,
                last_seen=now,
                confirmed=_confirmed(registration, before),
            )
            self.records.save_terminal(terminal)
            if self._analyst is not None:
                self._analyst.registered(terminal, before, now)
            if (
                before is None
                or before.digest != terminal.digest
                or before.state is not terminal.state
            ):
                state = "" if terminal.state is TerminalState.APPLICATION else ", in restoration"
                version = terminal.version or "no software"
                self._note(terminal.serial, f"registered with {version}{state}", now)
            for update in self.records.updates(terminal.serial):
                self._compare(update, terminal, before, now)
            if terminal.state is TerminalState.RESTORATION:
                self._restore(terminal, now)
        self._reconsider(terminal, moved=before is not None and before.endpoint != endpoint)
        return aiocoap.Message(code=aiocoap.CHANGED)

    def _compare(
        self, update: Update, terminal: Terminal, before: Terminal | None, now: float
    ) -> None:
        """What a registration says about an update."""
        # An update that was given up here may have gone on there.
        late = update.state.ended and terminal.last_update_id == update.id
        if update.state is UpdateState.SUCCEEDED or (update.state.ended and not late):
            return
        runs = terminal.state is TerminalState.APPLICATION
        if runs and terminal.digest == update.digest:
            text = f"the terminal runs {terminal.version}"
            result = Result.SUCCESS
            if terminal.last_result is Result.RESTORED and late:
                return  # It did fail; somebody has put that software there by hand.
            if terminal.last_result in (Result.RESTORED, Result.RESTORED_BY_LINK):
                result = terminal.last_result
                text += f", {result.text}"
            self._change(update, UpdateState.SUCCEEDED, text, now, result)
            return
        if runs and update.restoration and not late:
            text = f"the terminal runs {terminal.version} without it"
            self._change(update, UpdateState.CANCELLED, text, now)
            return
        if late or update.state is UpdateState.PENDING or before is None:
            return
        # A verdict that the terminal had told before this update is about an earlier one.
        verdict = (terminal.last_update_id, terminal.last_result)
        if verdict == (before.last_update_id, before.last_result):
            return
        mine = terminal.last_update_id == update.id and terminal.last_result is not Result.SUCCESS
        if mine and not runs and terminal.last_result in _BROKEN_OFF:
            return  # It goes on: what the terminal is to run has not changed.
        if mine and terminal.last_result in _FULL_MAY_DO:
            self._give_up_difference(update, terminal.last_result, now)
            return
        restored = update.state is UpdateState.REWRITING and terminal.last_result is Result.RESTORED
        if mine or restored:
            text = terminal.last_result.text
            self._change(update, UpdateState.FAILED, text, now, terminal.last_result)

    def _reconsider(self, terminal: Terminal, *, moved: bool) -> None:
        """Make due what this terminal is to be told or asked, now that it can be reached."""
        if moved:
            # What is under way goes to where the terminal is no longer.
            self._flights = {
                ticket: flight
                for ticket, flight in self._flights.items()
                if flight.serial != terminal.serial
            }
        for update in self.records.updates(terminal.serial):
            if not update.state.ended:
                self._make_due(_ANNOUNCE if update.state in _WAITING else _STATUS, update)
        if terminal.state is not TerminalState.APPLICATION:
            return
        for message in self.records.messages(terminal.serial):
            if message.state is MessageState.QUEUED:
                self._make_due(_TEXT, message)
        self._say(self.lines.waiting(terminal.serial))

    def _restore(self, terminal: Terminal, now: float) -> None:
        """Begin an update to software that can run, unless one is under way."""
        updates = self.records.updates(terminal.serial)
        image = self._choose(terminal, updates)
        if image is None or not all(update.state.ended for update in updates):
            return
        text = f"the terminal is to be restored with {image.version}"
        # Under a number that it had before, if there is one besides that of the terminal's last
        # verdict: a terminal that fails for ever must not fill the records.
        for update in updates:
            if update.digest == image.digest and update.id != terminal.last_update_id:
                failed = update.state in (UpdateState.FAILED, UpdateState.REFUSED)
                if failed or update.restoration:
                    again = replace(update, restoration=True)
                    self._change(again, UpdateState.PENDING, f"{text}, once more", now)
                    return
        self._add_update(terminal.serial, image, terminal, now, restoration=text)

    def _choose(self, terminal: Terminal, updates: list[Update]) -> Image | None:
        """What a terminal without valid software shall run.

        The software that ran last, unless it is what has just failed its trial; else the newest
        that has not failed there; when all have failed (power cuts in the trial make good software
        fail) what ran last, else one after the other. Never what the terminal would refuse, nor
        what it has refused.
        """
        ended = [update for update in updates if update.state.ended]
        refused = {update.digest for update in ended if update.result in _UNUSABLE}
        failed = [update.digest for update in ended if update.result is Result.TRIAL_FAILED]
        just = [update.digest for update in ended if update.id == terminal.last_update_id]
        if terminal.last_result is not Result.TRIAL_FAILED or terminal.confirmed not in just:
            failed = [digest for digest in failed if digest != terminal.confirmed]
        usable = [
            image
            for image in self.records.images()
            if _unfit(image, terminal) is None and image.digest not in refused
        ]
        good = [image for image in usable if image.digest not in failed]
        ran = [image for image in good or usable if image.digest == terminal.confirmed]
        if ran or good:
            return ran[0] if ran else max(good, key=lambda image: version_key(image.version))
        turn = sorted(usable, key=lambda image: failed.index(image.digest))
        at = [number for number, image in enumerate(turn, 1) if image.digest in just]
        return turn[at[0] % len(turn)] if at else next(iter(turn), None)

    def _report(self, payload: bytes, now: float) -> aiocoap.Message:
        report = Report.decode(payload)
        with self.records.transaction():
            update = self.records.update(report.update_id)
            if update is None or update.serial != report.serial:
                return aiocoap.Message(code=aiocoap.NOT_FOUND)
            self._advance(update, report, now)
        return aiocoap.Message(code=aiocoap.CHANGED)

    def _advance(self, update: Update, report: Report, now: float) -> None:
        if update.state is UpdateState.PENDING:
            return  # Never announced: this is about an update of another server.
        if update.state.ended and update.state is not UpdateState.CANCELLED:
            return
        if report.phase is Phase.FINISHED:
            if report.result is Result.SUCCESS:
                self._note(update.serial, "the new software confirmed itself", now, update.id)
            elif report.result in _FULL_MAY_DO:
                self._give_up_difference(update, report.result, now)
            elif update.state is not UpdateState.CANCELLED:
                text = report.text or report.result.text
                self._change(update, UpdateState.FAILED, text, now, report.result)
            return
        state = _STATE_OF_PHASE[report.phase]
        if update.state is UpdateState.CANCELLED:
            if state is not UpdateState.TRANSFERRING:
                self._change(update, state, "the cancellation came too late", now)
        elif _ORDER.index(state) > _ORDER.index(update.state):
            self._change(update, state, report.text, now)

    def _file(self, request: aiocoap.Message, name: str, now: float) -> aiocoap.Message:
        if request.code != aiocoap.GET:
            return aiocoap.Message(code=aiocoap.METHOD_NOT_ALLOWED)
        update_id = int(name) if name.isascii() and name.isdigit() and len(name) <= 10 else 0
        update = self.records.update(update_id)
        if update is None or update.state.ended or update.state is UpdateState.PENDING:
            return aiocoap.Message(code=aiocoap.NOT_FOUND)
        block = request.opt.block2
        number, exponent = (block[0], block[2]) if block else (0, BLOCK_EXPONENT)
        if exponent > BLOCK_EXPONENT:
            return aiocoap.Message(code=aiocoap.BAD_REQUEST)
        data, etag = self._update_file(update)
        size = 1 << (exponent + 4)
        start = number * size
        if start >= len(data):
            return aiocoap.Message(code=aiocoap.BAD_OPTION)
        if update.state is UpdateState.ANNOUNCED:
            with self.records.transaction():
                self._change(update, UpdateState.TRANSFERRING, "", now)
        part = data[start : start + size]
        end = start + len(part)
        self._served[update.id] = max(end, self._served.get(update.id, 0))
        response = aiocoap.Message(code=aiocoap.CONTENT, payload=part)
        response.opt.etag = etag
        response.opt.content_format = FILE_FORMAT
        response.opt.block2 = (number, end < len(data), exponent)
        return response

    def _update_file(self, update: Update) -> tuple[bytes, bytes]:
        """The file of an update that was announced, and its ETag."""
        key: tuple[bytes, ...] = (update.digest,)
        if update.kind is Kind.DIFFERENTIAL:
            key = (update.from_digest, update.digest)
        held = self._files.pop(key, None)
        if held is None:
            data = self.records.difference(*key) if len(key) == 2 else None
            data = self.records.image_file(update.digest) if data is None else data
            held = data, hashlib.sha256(data).digest()[:8]
        self._files[key] = held
        if len(self._files) > FILES_HELD:
            self._files.pop(next(iter(self._files)))
        return held

    def _difference(self, base: bytes, image: Image) -> bytes | None:
        """The differential file from image ``base``, if it helps; made once for each pair."""
        if self.records.image(base) is None or base == image.digest:
            return None
        file = self.records.difference(base, image.digest)
        if file is None:
            if self._differ is None:
                return None
            full = self.records.image_file(image.digest)
            file = self._differ(self.records.image_file(base), full)
            self.records.add_difference(base, image.digest, file)
        return file if len(file) < image.file_size else None

    # Requests to terminals

    def poll(
        self, now: float, endpoint: str | None = None, most: int | None = None
    ) -> list[Outgoing]:
        """The requests to send now, to every terminal or only to ``endpoint``; ``most`` at most.

        ``outcome`` must be called once for each of them, whatever comes of it.
        """
        self._say(self.lines.look(now))
        requests: list[Outgoing] = []
        for errand in list(self._due):
            if len(requests) == most:
                break
            terminal = self.records.terminal(errand.serial)
            if terminal is None:
                del self._due[errand]  # It is due when the terminal registers.
                continue
            if endpoint is not None and terminal.endpoint != endpoint:
                continue
            del self._due[errand]
            if any(flight == errand for flight in self._flights.values()):
                continue
            message = self._message(errand, terminal, now)
            if message is not None:
                self._tickets += 1
                self._flights[self._tickets] = errand
                requests.append(Outgoing(terminal.endpoint, message, self._tickets))
        return requests

    def outcome(self, ticket: int, response: aiocoap.Message | None, now: float) -> None:
        """What came of a request of ``poll``: the response, or None when there was none.

        A request without response is made again when the terminal registers.
        """
        errand = self._flights.pop(ticket, None)
        if errand is None:
            return
        if errand.kind == _TEXT:
            self._told(errand.subject, response, now)
            return
        if errand.kind == _SAY:
            if self.lines.heard(errand.subject, response):
                self._due[errand] = None
            return
        update = self.records.update(errand.subject)
        if update is None or update.state.ended:
            return
        if errand.kind == _ANNOUNCE:
            self._decided(update, response, now)
        else:
            self._stands(update, response, now)

    def _make_due(self, kind: str, subject: Update | TextMessage) -> None:
        self._due[_Errand(kind, subject.id, subject.serial)] = None

    def _say(self, calls: list[TerminalCall]) -> None:
        """Something waits to be heard in these calls."""
        for call in calls:
            self._due[_Errand(_SAY, call.call_id, call.serial)] = None

    def _message(self, errand: _Errand, terminal: Terminal, now: float) -> aiocoap.Message | None:
        if errand.kind == _TEXT:
            message = self.records.message(errand.subject)
            if message is None or message.state is not MessageState.QUEUED:
                return None
            return _post_message("message", Text(message.text).encode())
        if errand.kind == _SAY:
            said = self.lines.message(errand.subject)
            return None if said is None else _post_message("say", said)
        update = self.records.update(errand.subject)
        if update is None or update.state.ended:
            return None
        if errand.kind == _STATUS:
            return aiocoap.Message(code=aiocoap.GET, uri_path=("status",))
        if update.state not in _WAITING:
            return None
        image = self.records.image(update.digest)
        if image is None:
            return None
        with self.records.transaction():
            wrong = _unfit(image, terminal)
            if wrong is not None:
                text = f"not announced: {wrong.text}"
                self._change(update, UpdateState.REFUSED, text, now, wrong)
                return None
            difference = None
            if terminal.state is TerminalState.APPLICATION and update.kind is not Kind.FULL_IMAGE:
                if self._analyst and not self._analyst.ready(terminal.digest, image, now):
                    self._note(terminal.serial, "its differential file is made", now, update.id)
                    return None
                difference = self._difference(terminal.digest, image)
            update = replace(
                update,
                kind=Kind.FULL_IMAGE if difference is None else Kind.DIFFERENTIAL,
                from_version=terminal.version,
                from_digest=terminal.digest,
            )
            if update.state is UpdateState.PENDING:
                self._change(update, UpdateState.ANNOUNCED, "", now)
            else:
                self.records.save_update(update)
        return _post_message("announce", _announcement(update, image, difference).encode())

    def _decided(self, update: Update, response: aiocoap.Message | None, now: float) -> None:
        if response is None or not response.code.is_successful():
            why = "was not answered" if response is None else f"was answered {response.code}"
            with self.records.transaction():
                self._note(update.serial, f"the announcement {why}", now, update.id)
            return
        try:
            decision = Decision.decode(response.payload)
        except LinkError as error:
            with self.records.transaction():
                self._note(update.serial, f"the decision is malformed: {error}", now, update.id)
            return
        if update.state not in _WAITING:
            return
        with self.records.transaction():
            if decision.result is Result.SUCCESS:
                self._change(update, UpdateState.TRANSFERRING, decision.text, now)
            elif decision.result is Result.BUSY:
                # Another update that this server has given up, or this one, the answer to an
                # earlier announcement having been lost: the next registration will tell.
                self._note(update.serial, decision.result.text, now, update.id)
            elif update.kind is Kind.DIFFERENTIAL and decision.result in _FULL_MAY_DO:
                self._give_up_difference(update, decision.result, now)
            else:
                text = decision.text or decision.result.text
                if decision.result is Result.NOT_ENOUGH_SRAM:
                    text += f" ({decision.needed} bytes needed, {decision.possible} possible)"
                self._change(update, UpdateState.REFUSED, text, now, decision.result)

    def _give_up_difference(self, update: Update, result: Result, now: float) -> None:
        """The differential file will not do: announce the full image.

        A terminal says so twice, in a report and when it registers; of a full image, which is
        announced by then, it says such things in its decision only.
        """
        if update.kind is not Kind.DIFFERENTIAL or update.state.ended:
            return
        text = f"the full image is sent, the differential file will not do: {result.text}"
        update = replace(update, kind=Kind.FULL_IMAGE)
        self._make_due(_ANNOUNCE, self._change(update, UpdateState.ANNOUNCED, text, now))

    def _stands(self, update: Update, response: aiocoap.Message | None, now: float) -> None:
        """A terminal with an update under way said how far it is, or nothing."""
        if response is None or not response.code.is_successful():
            return
        try:
            status = Status.decode(response.payload)
        except LinkError:
            return
        if status.phase is Phase.IDLE or status.update_id != update.id:
            with self.records.transaction():
                text = "to be announced again, the terminal does not know of it"
                update = self._change(update, UpdateState.ANNOUNCED, text, now)
            self._make_due(_ANNOUNCE, update)

    def _told(self, message_id: int, response: aiocoap.Message | None, now: float) -> None:
        message = self.records.message(message_id)
        if message is None or response is None:
            return
        state = MessageState.DELIVERED if response.code.is_successful() else MessageState.REFUSED
        with self.records.transaction():
            self.records.save_message(replace(message, state=state, changed=now))
            self._note(message.serial, f"text message {message_id} {state.value}", now)

    # Orders of people

    def publish(self, data: bytes, now: float) -> Image:
        """Take a signed image into the store; one that is there already is left as it is.

        Raises:
            ImageError: it is no image.
            ConflictError: there is another image of that version for that hardware.
        """
        info = self._inspect(data)
        known = self.records.image(info.digest)
        if known is not None:
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
            file_digest=hashlib.sha256(data).digest(),
            published=now,
            userdata_format=info.userdata_format,
        )
        with self.records.transaction():
            self.records.add_image(image, data)
            if self._analyst is not None:
                self._analyst.published(image, now)
        return image

    def prepared(self, digest: bytes) -> None:
        """A differential file to image ``digest`` is there, or will not be: announce it."""
        for update in self.records.unfinished_updates():
            if update.digest == digest and update.state in _WAITING:
                self._make_due(_ANNOUNCE, update)

    def start_update(self, serial: str, version: str, now: float) -> Update:
        """Have a terminal updated; one that never registered is told when it does.

        Raises:
            UnknownError: there is no such image.
            ConflictError: the terminal would refuse it, runs it already, or is being updated.
        """
        if not serial or not serial.isprintable() or len(serial.encode()) > MAX_SERIAL:
            raise ConflictError(
                "this is no serial of a terminal",
                hint="`unbrick terminals` lists the terminals that registered",
            )
        terminal = self.records.terminal(serial)
        image = self._find_image(full_version(version), terminal)
        for update in self.records.updates(serial):
            if update.restoration and update.state in _CANCELLABLE:
                self.cancel_update(update.id, now)  # What a person wants is better than a guess.
            elif not update.state.ended:
                raise ConflictError(
                    f"update {update.id} of {serial} is still {update.state.value}",
                    hint=f"wait for it, or `unbrick update cancel {update.id}`",
                )
        if terminal is not None:
            _check_fit(image, terminal)
        with self.records.transaction():
            update = self._add_update(serial, image, terminal, now)
        self._make_due(_ANNOUNCE, update)
        return update

    def _add_update(
        self,
        serial: str,
        image: Image,
        terminal: Terminal | None,
        now: float,
        *,
        restoration: str = "",
    ) -> Update:
        """A new update; ``restoration`` says in words that the server begins it by itself."""
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
                text=restoration,
                created=now,
                changed=now,
                restoration=bool(restoration),
            )
        )
        self._event(update, now)
        return update

    def cancel_update(self, update_id: int, now: float) -> Update:
        """Cancel an update that the terminal has not wholly received.

        Raises:
            UnknownError: there is no such update.
            ConflictError: it is too late.
        """
        update = self.records.update(update_id)
        if update is None:
            raise UnknownError(f"there is no update {update_id}", hint="see `unbrick update list`")
        if update.state not in _CANCELLABLE:
            raise ConflictError(
                f"update {update_id} is {update.state.value}, which cannot be cancelled",
                hint=f"see `unbrick update show {update_id}`",
            )
        with self.records.transaction():
            return self._change(update, UpdateState.CANCELLED, "", now)

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

    def progress(self, update_id: int) -> int:
        """Bytes of the file that were sent for an update since this server started."""
        return self._served.get(update_id, 0)

    def _find_image(self, version: str, terminal: Terminal | None) -> Image:
        images = [image for image in self.records.images() if image.version == version]
        if not images:
            raise UnknownError(
                f"there is no image {version}",
                hint="publish it with `unbrick publish`; `unbrick images` lists what there is",
            )
        if terminal is None and len(images) > 1:
            raise ConflictError(
                f"there is {version} for several kinds of hardware",
                hint="start the update when the terminal has registered",
            )
        fitting = [
            image for image in images if terminal and image.hardware_id == terminal.hardware_id
        ]
        return (fitting or images)[0]

    # Records

    def _change(
        self,
        update: Update,
        state: UpdateState,
        text: str,
        now: float,
        result: Result | None = None,
    ) -> Update:
        update = replace(update, state=state, text=text, result=result, changed=now)
        self.records.save_update(update)
        self._event(update, now)
        return update

    def _event(self, update: Update, now: float) -> None:
        self.records.add_event(Event(0, now, update.serial, update.id, update.state, update.text))

    def _note(self, serial: str, text: str, now: float, update_id: int | None = None) -> None:
        if update_id is not None:
            last = self.records.events(update_id=update_id)[-1:]
            if last and last[0].text == text:
                return  # A terminal that does not answer is asked every minute.
        self.records.add_event(Event(0, now, serial, update_id, None, text))


def _post_message(path: str, payload: bytes) -> aiocoap.Message:
    message = aiocoap.Message(code=aiocoap.POST, payload=payload, uri_path=(path,))
    message.opt.content_format = CBOR_FORMAT
    return message


def _confirmed(registration: Registration, before: Terminal | None) -> bytes:
    """The digest of what ran last: an application registers only after its trial."""
    if registration.state is TerminalState.APPLICATION:
        return registration.digest
    if before is None:
        return b""
    ran = before.state is TerminalState.APPLICATION
    return before.digest if ran else before.confirmed


def _announcement(update: Update, image: Image, difference: bytes | None) -> Announcement:
    file_size, file_digest, memory = image.file_size, image.file_digest, 0
    if difference is not None:
        file_size, file_digest = len(difference), hashlib.sha256(difference).digest()
        memory = read_header(difference).memory
    return Announcement(
        update_id=update.id,
        kind=Kind.FULL_IMAGE if difference is None else Kind.DIFFERENTIAL,
        file_size=file_size,
        file_digest=file_digest,
        version=image.version,
        image_digest=image.digest,
        image_size=image.size,
        working_memory=memory,
    )


def _unfit(image: Image, terminal: Terminal) -> Result | None:
    """Why a terminal would refuse an image, as far as the server can know."""
    if image.hardware_id != terminal.hardware_id:
        return Result.OTHER_HARDWARE
    if image.security_counter < terminal.security_counter:
        return Result.OLDER_THAN_COUNTER
    return None


def _check_fit(image: Image, terminal: Terminal) -> None:
    wrong = _unfit(image, terminal)
    if wrong is Result.OTHER_HARDWARE:
        raise ConflictError(
            f"{image.version} is for {image.hardware_id}, {terminal.serial} is a"
            f" {terminal.hardware_id}",
            hint="publish a build for that hardware",
        )
    if wrong is Result.OLDER_THAN_COUNTER:
        raise ConflictError(
            f"{image.version} has security counter {image.security_counter}, {terminal.serial}"
            f" takes nothing below {terminal.security_counter}",
            hint="release it again with a counter that is not lower",
        )
    if image.digest == terminal.digest and terminal.state is TerminalState.APPLICATION:
        raise ConflictError(
            f"{terminal.serial} runs {image.version} already", hint="there is nothing to do"
        )
