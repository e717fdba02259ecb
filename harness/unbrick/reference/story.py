"""The course of a session, from power-on until all that a scenario wants has come about.

It is the same after every power cut. The server goes on from its records. The user types unsaved
entries again. Somebody stands by with the restoration apparatus.
"""

from __future__ import annotations

import math
import re
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache, partial
from typing import TYPE_CHECKING

from unbrick.bench.bench import Bench
from unbrick.bench.tap import Tap
from unbrick.campaign.verdict import Violation
from unbrick.errors import ExpectError, FirmwareFaultError
from unbrick.image.format import inspect
from unbrick.layout import reference_layout
from unbrick.link.faults import Faults
from unbrick.link.guarded import guard_bench
from unbrick.link.simulated import SimulatedLink
from unbrick.reference.adversary import NETWORK, OUTSIDE, Network, TamperedStore
from unbrick.reference.links import BAD_LINK_DURATION_S
from unbrick.reference.memory import ServerMemory
from unbrick.restore.apparatus import Apparatus, RestorationStage
from unbrick.server.core.analysis import AtOnce
from unbrick.server.core.core import ServerCore
from unbrick.server.core.difference import make_file
from unbrick.server.errors import ConflictError
from unbrick.server.records.sessions import StepKind, StepState
from unbrick.server.records.updates import UpdateState
from unbrick.wire.messages import Result, TerminalState

if TYPE_CHECKING:
    from collections.abc import Callable

    from unbrick.bench.console import Console
    from unbrick.engine.base import Engine, Line
    from unbrick.firmware.signed import Releases
    from unbrick.image.format import ImageInfo
    from unbrick.reference.links import BadLink
    from unbrick.reference.memory import ServerState
    from unbrick.reference.scenario import Scenario
    from unbrick.server.core.guard import Core, LinkGuard
    from unbrick.server.records.updates import Update

SERIAL = "UB-000001"
MAX_SESSION_S = 1500.0  # virtual time in which everything must have come about
QUIET_S = 0.3  # in which a terminal that is done must not touch its NOR


LATE_SERVER_AWAY_S = 100.0
"""Seconds that a server stays away that is late: a resident program has long given it up by then.
"""

SIGNATURE_SIZE = 64
"""Bytes of an Ed25519 signature, which is what comes last in an image."""

MOST_TRANSFERS = 5  # that a terminal needs to be restored, and more
MOST_STARTS = 40  # that any story needs, and more
LONG_TEXT = 8000  # characters of a console in which it is worth to look for too many starts


@lru_cache(maxsize=64)
def inspect_once(image: bytes) -> ImageInfo:
    """What an image is; the same few images are met in every session."""
    return inspect(image)


@lru_cache(maxsize=64)
def inspect_installed(partition: bytes) -> ImageInfo:
    """What the image in the application's partition is, whatever lies behind it.

    Raises:
        ImageError: there is none.
    """
    return inspect(partition, trailing=True)


@lru_cache(maxsize=16)
def inspect_as_claimed(image: bytes, genuine: ImageInfo) -> ImageInfo:
    """What an imposter claims to be, with the signature that it has."""
    return replace(genuine, signature=image[-SIGNATURE_SIZE:])


@lru_cache(maxsize=16)
def differ_once(kind: str, old: bytes, new: bytes) -> bytes:
    """The differential file of a pair; the same few pairs are met in every session."""
    base, wanted = bytearray(old), bytearray(new)
    if kind == "misfit":
        base[len(base) // 2] ^= 1
    elif kind == "forged":
        wanted[-1] ^= 1  # the signature is what comes last
    return make_file(bytes(base), bytes(wanted))


class Bystander:
    """The person with the restoration apparatus: restores whenever the terminal asks for it."""

    def __init__(
        self, console: Console, image: bytes, imposter: tuple[bytes, ImageInfo] | None = None
    ) -> None:
        self._console = console
        self._tap, self._image, self._imposter = Tap(console), image, imposter
        self._apparatus = self._fresh()
        self.restorations = 0

    def _fresh(self) -> Apparatus:
        image, info = self._imposter or (self._image, inspect_once(self._image))
        return Apparatus(self._tap, image, info, wait=None)

    def _say_restored_in_vain(self) -> str:
        """What the terminal says about its restorations that did not help."""
        what = inspect_once(self._image)
        said = re.findall(
            r"^(?:boot|restoration|agent): [^\r\n]*", self._console.text, re.MULTILINE
        )
        return (
            f"{what.name} {what.version} was sent {self._apparatus.transfers} times over the wire, "
            f"and the terminal asks for it again; it says {said[-1] if said else 'nothing'!r}"
        )

    def step(self, now: float) -> float | None:
        """Do what is due.

        Raises:
            Violation: an image was accepted that must not be, or a good one does not help.
        """
        deadline = self._apparatus.step(now)
        if self._apparatus.transfers > MOST_TRANSFERS:
            raise Violation("bricked", self._say_restored_in_vain())
        if self._imposter:
            if self._apparatus.accepted:
                raise Violation("forged", "an image was accepted that must be refused")
            tried = (
                self._apparatus.transfers and self._apparatus.stage is RestorationStage.SEARCHING
            )
            if tried or self._apparatus.stage is RestorationStage.FAILED:
                self._imposter = None
                self._apparatus = self._fresh()
                deadline = self._apparatus.step(now)
        if self._apparatus.error:
            raise Violation("bricked", f"it cannot be restored: {self._apparatus.error}")
        if self._apparatus.finished:
            self.restorations += 1
            self._apparatus = self._fresh()
            deadline = self._apparatus.step(now)
        return deadline


class Story:
    """One session of one terminal: the peers around it and what they do.

    Args:
        engine: powered off, with its NOR loaded.
        releases: the built software.
        scenario: what is wanted.
        server: what the server remembers.
        link: what is wrong with the wireless link and the server; nothing by default.
        line: the terminal's radio line, with whoever listens there; by default nobody does.
    """

    def __init__(
        self,
        engine: Engine,
        releases: Releases,
        scenario: Scenario,
        server: ServerState | None = None,
        *,
        link: BadLink | None = None,
        line: Line | None = None,
    ) -> None:
        self.engine, self.releases, self.scenario = engine, releases, scenario
        self.store = TamperedStore() if scenario.tampered else ServerMemory()
        self._imposter = _imposter(releases, scenario)
        self.network: list[Network] = []
        self.core = self.new_server()
        self._stock()
        if server is not None:
            self.store.put_back(server)
            self.core = self.new_server()
        self._was_backed_up = bool(self.store.backups(SERIAL))
        self.bench = Bench(engine)
        faults = None if link is None else link.faults()
        self.guard = self._guard(self.core)
        self._outside = [OUTSIDE[name](self.guard) for name in scenario.network if name in OUTSIDE]
        self.link = SimulatedLink(
            line or engine.radio,
            self._outside[0] if self._outside else self.guard,
            faults=faults,
            latency=scenario.latency,
            guard=self.guard,
        )
        self.bystander = Bystander(
            self.bench.console, releases.signed[scenario.rescue], self._imposter
        )
        if scenario.rescue_by == "wire":
            self.bench.peers.append(_DeadInRestoration(self.bench.console, self.link))
        self.bench.peers.append(self.link)
        if scenario.rescue_by != "link":
            self.bench.peers.append(self.bystander)
        if link is not None:
            self.bench.peers.append(_Fate(self, link))
        self.absence = _Absence(self)
        if scenario.mortal:
            self.bench.peers.append(self.absence)
        if scenario.recalled:
            self.bench.peers.append(_Recall(self))
        if scenario.tampered:
            self.bench.peers.append(_Repentance(self))
        self._held = link.held if link else ()
        self.link.cut_off(scenario.silent)
        self._refused: set[str] = set()
        self.first_prompt: float | None = None
        self.link_is_bad = link is not None

    def _stock(self) -> None:
        """Publish what the server has."""
        scenario = self.scenario
        wanted = {*scenario.before, *scenario.updates, *scenario.published}
        if scenario.interrupted_by:
            wanted.add(scenario.interrupted_by)
        for version in sorted(wanted):
            self.core.publish(self._published(version), 0.0)
        if scenario.foreign in wanted:
            pass  # It has taken the place of the genuine one.
        elif self._imposter and scenario.commanded:
            self.store.spoil_file(self._imposter[1].digest, self._imposter[0])
        elif self._imposter and scenario.rescue_by == "link":
            self.core.publish(self._imposter[0], 0.0)

    def new_server(self) -> ServerCore:
        """A server that goes on from the records."""
        kind = self.scenario.differences
        return ServerCore(
            self.store,
            self._inspect,
            AtOnce(self.store, partial(differ_once, kind) if kind is not None else None),
        )

    def _inspect(self, image: bytes) -> ImageInfo:
        """What an image is, or claims to be."""
        if self._imposter is not None and image == self._imposter[0]:
            return inspect_as_claimed(*self._imposter)
        return inspect_once(image)

    def _published(self, version: str) -> bytes:
        """What the server has as a release."""
        if self._imposter and self.scenario.foreign == version:
            return self._imposter[0]
        return self.releases.signed[version]

    def _guard(self, core: ServerCore) -> LinkGuard:
        """What protects the server's messages, and those of the parts of its network."""
        if self.network:
            self.network[0].returns(core)
        else:
            seen: Core = core
            for name in self.scenario.network:
                if name in OUTSIDE:
                    continue
                part = NETWORK[name](seen, SERIAL)
                self.network.append(part)
                seen = part
        return guard_bench(self.network[-1] if self.network else core, SERIAL)

    def server_dies(self, when: str) -> None:
        """The server is killed, and goes on from its records.

        Args:
            when: empty: before its message has left. ``said``: after that. ``late``: after that,
                and it stays away for ``LATE_SERVER_AWAY_S``. If somebody stands by with the
                apparatus, it also stays away until an application runs.
        """
        self.link.server_dies(unsent=not when)
        if when == "late":
            self.absence.begin(self.engine.now + LATE_SERVER_AWAY_S)
        else:
            self.server_returns()

    def server_returns(self) -> None:
        """A server is there again."""
        self.core = self.new_server()
        self.guard = self._guard(self.core)
        for part in self._outside:
            part.returns(self.guard)
        self.link.server_returns(self._outside[0] if self._outside else self.guard, self.guard)

    def run(self) -> None:
        """From power-on until everything wanted has come about.

        Raises:
            Violation: it did not, or an invariant was broken on the way.
        """
        self.engine.power_on()
        try:
            self._wait("the terminal does not come back", lambda: self._is_up() or self.given_up)
            if self.given_up:
                return
            self.first_prompt = self.engine.now
            for task in (*self._held, *self.scenario.held):
                self.bench.console.command(f"hold {task}")
            self._delete_entries()
            if not self.scenario.meddled:
                self._save_entries()
            for number, version in enumerate(self.scenario.updates):
                if number > 0:  # The one before may have failed: then something is restored first.
                    self._wait("the terminal does not come back", self._is_up)
                self._update(version)
            if self.scenario.interrupted_by:
                self._update(self.scenario.interrupted_by)
            if self.scenario.given_up:
                self._wait("the terminal does not say that it gives up", lambda: self.given_up)
                return
            self._quiet()
            self._check_phonebook()
            if self.scenario.saves or self.scenario.deletes:
                self.bench.restart()
                self.bench.console.expect("\r\n> ")
                self._check_phonebook()
        except FirmwareFaultError as error:
            raise Violation("executed-or-programmed-wrongly", str(error)) from error
        except ExpectError as error:
            raise Violation("silent", str(error).splitlines()[0]) from error

    def _wait(self, what: str, condition: Callable[[], bool]) -> None:
        def holds() -> bool:
            text = self.bench.console.text
            if len(text) > LONG_TEXT and text.count("boot: unbrick boot") > MOST_STARTS:
                raise Violation("bricked", "the terminal starts again and again")
            return condition()

        if not self.bench.run_until(holds, MAX_SESSION_S):
            raise Violation("bricked", what)

    def _is_up(self) -> bool:
        """The application has registered since this power-on and the console waits."""
        seen = self.link.registrations
        up = bool(seen) and seen[-1].state is TerminalState.APPLICATION
        return up and self.bench.console.text.endswith("\r\n> ")

    @property
    def given_up(self) -> bool:
        """Whether a terminal that cannot be helped has said so, to people and to the server."""
        text, seen = self.bench.console.text, self.link.registrations
        asks = text.rfind("restoration: send the signed image") > text.rfind("agent: failed") >= 0
        told = bool(seen) and seen[-1].state is TerminalState.RESTORATION
        return self.scenario.given_up and asks and told

    def _save_entries(self) -> None:
        console = self.bench.console
        for name, number in self.scenario.saves:
            console.skip()
            wanted = self.scenario.saves.count((name, number))
            if _count_entries(console.command("pb list"), name, number) < wanted:
                said = console.command(f"pb add {name} {number}")
                if self.scenario.worn and "not added, the flash" in said:
                    self._refused.add(name)

    def _delete_entries(self) -> None:
        """Delete what is to be deleted, unless it has been. Nothing is backed up before that.

        Raises:
            Violation: something is there again.
        """
        console = self.bench.console
        for name in self.scenario.deletes:
            console.skip()
            found = re.search(rf"^ *(\d+)  {name} ", console.command("pb list"), re.MULTILINE)
            if found and self._was_backed_up:
                raise Violation("data-lost", f"{name} was deleted and is in the phonebook again")
            if found:
                console.command(f"pb del {found[1]}")

    def _update(self, version: str) -> None:
        """Start an update that was not started yet, and wait until it has ended, well or not."""
        digest = self._inspect(self._published(version)).digest
        known = [update for update in self.store.updates(SERIAL) if update.digest == digest]
        terminal = self.store.terminal(SERIAL)
        if not known and terminal is not None and terminal.digest == digest:
            return  # the bystander had to restore the terminal, and had this release with him
        self._wait("the server does not return", lambda: self.link.server_alive)
        if not known:
            commanded = self.scenario.commanded
            now = self.engine.now
            try:  # The bystander may have restored the terminal with a newer release.
                begun = self.core.start_update(
                    SERIAL, version, now, commanded=commanded, downgrade=True
                )
            except ConflictError:
                if self.scenario.refused:
                    return
                raise
            known = [begun]
        update = known[-1].id
        if self.scenario.meddled:
            self._meddle(update)
        overtaking = self.scenario.interrupted_by
        if overtaking and version != overtaking:
            self._wait(f"the update to {version} does not begin", lambda: self._began(update))
            if self._state(update) in _CANCELLABLE:
                self.core.cancel_update(update, self.engine.now)
        self._wait(
            f"the update to {version} does not end",
            lambda: self._has_ended(update) or self.given_up,
        )
        ended = self.store.update(update)
        if self.scenario.must_fail:
            return
        if ended and self._is_unfounded(ended) and not self.link_is_bad:
            why = "no result" if ended.result is None else ended.result.text
            raise Violation("rejected", f"the update to {version} ended with {why}")

    def _state(self, update: int) -> UpdateState:
        found = self.store.update(update)
        if found is None:
            raise Violation("server-lies", f"the server has forgotten update {update}")
        return found.state

    def _is_unfounded(self, ended: Update) -> bool:
        """Whether an update has failed for a reason that it cannot have had."""
        if ended.result in _NOT_OUR_FAULT:
            return True
        return ended.commanded and ended.state is UpdateState.FAILED and ended.result in _NO_REASON

    def _has_ended(self, update: int) -> bool:
        return self._state(update).ended and not self.store.unfinished_sessions(SERIAL)

    def _meddle(self, update: int) -> None:
        """Save entries just when a backup has been made, or when it is too late for that.

        A backup that was there before is no occasion: the terminal may be starting again already.
        """
        old = self.store.backups(SERIAL)

        def is_time() -> bool:
            new = not old and self.store.backups(SERIAL)
            return bool(new) or self._has_ended(update)

        self._wait("the data is not backed up", is_time)
        self._save_entries()

    def _began(self, update: int) -> bool:
        return self._state(update) not in {UpdateState.PENDING, UpdateState.ANNOUNCED}

    def _quiet(self) -> None:
        """Wait until the console waits and nothing is written any more."""
        self._wait("the terminal does not come to rest", self._is_up)
        before: object = None
        for _ in range(20):
            written = self._written()
            if written == before and self._is_up():
                return
            before = written
            self.bench.run_for(QUIET_S)
        raise Violation("restless", "the terminal writes its NOR without end")

    def _written(self) -> object:
        """Changes when the terminal writes its NOR; on some engines only when it changes it."""
        trace = self.engine.flash_trace
        return self.engine.read_nor() if trace is None else trace.op_count

    def _check_phonebook(self) -> None:
        console = self.bench.console
        console.skip()
        listing = console.command("pb list")
        for name in self.scenario.deletes:
            if name in listing:
                raise Violation("data-lost", f"{name} was deleted and is in the phonebook again")
        wanted = (*self.scenario.saved, *self.scenario.saves)
        for name, number in wanted:
            if name in self._refused or name in self.scenario.deletes:
                continue
            if _count_entries(listing, name, number) < wanted.count((name, number)):
                raise Violation("data-lost", f"{name} {number} is gone from the phonebook")


def _count_entries(listing: str, name: str, number: str) -> int:
    """How often an entry is in what the terminal has listed."""
    return sum(line.split()[1:] == [name, number] for line in listing.splitlines())


class _DeadInRestoration:
    """Lets nothing through the link while the terminal is in the restoration state."""

    def __init__(self, console: Console, link: SimulatedLink) -> None:
        self._console, self._link, self._seen = console, link, 0

    def step(self, _now: float) -> None:
        """Look at what the terminal has said."""
        text = self._console.text
        if len(text) != self._seen:
            self._seen = len(text)
            waits = text.rfind("restoration: ") > text.rfind("terminal: ")
            self._link.cut_off(math.inf if waits else 0.0)


class _Recall:
    """The operator cancels the update, once in a session, when it is as far as that."""

    def __init__(self, story: Story) -> None:
        self._story, self._tried = story, False

    def step(self, now: float) -> None:
        """Do what is due."""
        story = self._story
        if self._tried or not story.link.server_alive:
            return
        for session in story.store.unfinished_sessions(SERIAL):
            if self._is_time(session.id):
                self._tried = True
                with suppress(ConflictError):  # it is too late
                    story.core.cancel_update(session.update_id, now)

    def _is_time(self, session_id: int) -> bool:
        store = self._story.store
        if self._story.scenario.recalled == "backed up":
            return bool(store.backups(SERIAL))
        erases = [step for step in store.steps(session_id) if step.kind is StepKind.ERASE]
        return erases[-1].state is StepState.SENT


class _Repentance:
    """Whoever has changed the user's data on its way back does so no more, once it was refused."""

    def __init__(self, story: Story) -> None:
        self._story = story

    def step(self, _now: float) -> None:
        """Do what is due."""
        store = self._story.store
        if not isinstance(store, TamperedStore) or not store.tampered:
            return
        for session in store.unfinished_sessions(SERIAL):
            steps = store.steps(session.id)
            if any(step.result == Result.BACKUP_UNREADABLE for step in steps):
                store.repent()
                self._story.server_dies("")


class _Absence:
    """Brings back a server that has died; ``was_long``: one has been away."""

    def __init__(self, story: Story) -> None:
        self._story = story
        self._until: float | None = None
        self.was_long = False

    def begin(self, until: float) -> None:
        """The server is back at that time, at the earliest."""
        self._until, self.was_long = until, True

    def step(self, now: float) -> float | None:
        """Do what is due; returns when to look again."""
        if self._until is None or now < self._until:
            return self._until
        story = self._story
        if story.scenario.rescue_by == "link" or story.bench.console.text.endswith("\r\n> "):
            self._until = None
            story.server_returns()
        return None


class _Fate:
    """Makes the link good again after a time, and lets the server die and return."""

    def __init__(self, story: Story, link: BadLink) -> None:
        self._story, self._away = story, link.away

    def step(self, now: float) -> float | None:
        """Do what is due; returns when to look again."""
        link = self._story.link
        if now >= BAD_LINK_DURATION_S:
            link.faults = Faults()
        away = any(start <= now < end for start, end in self._away)
        if away and link.server_alive:
            link.server_dies()
        elif not away and not link.server_alive:
            self._story.server_returns()
        times = [time for pair in self._away for time in pair] + [BAD_LINK_DURATION_S]
        return min((time for time in times if time > now), default=None)


def _imposter(releases: Releases, scenario: Scenario) -> tuple[bytes, ImageInfo] | None:
    """The image that the terminal must refuse, and what it claims to be."""
    if scenario.imposter is None:
        return None
    image = releases.signed.get(scenario.imposter)
    if image is not None:
        info = inspect_once(image)
        if scenario.foreign:  # Whoever offers it takes it for one that fits.
            info = replace(info, hardware_id=reference_layout().hardware_id)
        return image, info
    kind, _, version = scenario.imposter.partition(" ")
    genuine = releases.signed[version or scenario.rescue]
    info = inspect_once(genuine)
    # The signature is what comes last; the program is in the middle.
    places = {"forged": -1, "misclaimed": genuine.rindex(info.digest) + len(info.digest) - 1}
    changed = bytearray(genuine)
    changed[places.get(kind, len(changed) // 2)] ^= 1
    return bytes(changed), info


_NO_REASON = {None, Result.SUCCESS, Result.INTERRUPTED}
_NOT_OUR_FAULT = {
    Result.FILE_DIGEST_WRONG,
    Result.IMAGE_MALFORMED,
    Result.IMAGE_HASH_WRONG,
    Result.SIGNATURE_WRONG,
    Result.WRONG_BASE,
    Result.NOT_REBUILT,
    Result.USERDATA_CHANGED,
    Result.OUT_OF_TURN,
    Result.ERASE_FAILED,
    Result.PROGRAM_FAILED,
    Result.OTHER_CONTENT,
}
_CANCELLABLE = {UpdateState.PENDING, UpdateState.ANNOUNCED, UpdateState.TRANSFERRING}
