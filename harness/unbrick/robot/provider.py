"""Keywords: the service provider: analysis, customer center, commanded updates, backups."""

from __future__ import annotations

from datetime import timedelta

from robot.api import logger

from unbrick.errors import ServerError, UpdateError
from unbrick.image.format import inspect
from unbrick.reference.center import SimulatedCenter
from unbrick.robot.base import Keywords, expect, keyword
from unbrick.server.records.analysis import PreparationState, RangeKind, Verdict
from unbrick.server.records.people import OF_BACKUPS, Actor, AuditAction
from unbrick.server.records.sessions import (
    CommandedSession,
    PlannedStep,
    SessionState,
    StepKind,
    StepState,
)

LONG = timedelta(minutes=2)
BENCH = "bench"  # who looks into backups here, in the audit


class ProviderKeywords(Keywords):
    """The user database, the customer center, and updates that the server commands step by step."""

    @keyword
    def open_customer_center(self) -> None:
        """From now on users are told of upgrades by text message, and their calls are taken."""
        terminal = self._terminal
        terminal.bench.peers.append(SimulatedCenter(terminal.system.server))

    @keyword
    def prepare_upgrades_before_they_are_asked_for(self) -> None:
        """From now on the server keeps the history of terminals, compares what they run with the
        latest release, and prepares what differs, as soon as either changes.
        """
        self._terminal.foresees = True
        self._terminal.new_server()

    @keyword
    def server_should_know_its_software(self, name: str, version: str, built: str) -> None:
        """Name, version and compile time that the terminal has registered are in the records."""
        system = self._terminal.system
        known = system.records.installations(system.serial)
        expect(known, "the server knows of no software there")
        last = known[-1]
        found = (last.name, last.version, last.build_time)
        expect(found == (name, version, built), f"the server knows {' '.join(found)}")
        expect(last.until is None, "it does not run any more")

    @keyword
    def no_update_should_have_begun(self) -> None:
        """The server has no update of this terminal, not even an old one."""
        system = self._terminal.system
        known = system.records.updates(system.serial)
        expect(not known, f"there are {len(known)} updates")

    @keyword
    def wait_for_commanded_update(
        self, state: SessionState = SessionState.SUCCEEDED, timeout: timedelta = LONG
    ) -> None:
        """Waits until the commanded update has come to its end: the user's data is back, too."""

        def ended() -> bool:
            return self._session().state.ended

        self._terminal.bench.run_until(ended, timeout.total_seconds())
        found = self._session()
        said = f"{found.state.value} ({found.text or 'no more is said'})"
        expect(
            found.state is state, f"it should be {state.value}, it is {said}: {self._in_steps()}"
        )

    @keyword
    def server_should_have_judged(self, verdict: Verdict, reason: str = "") -> None:
        """What the server concluded from comparing the terminal's software with the latest.

        ``verdict`` is ``upgrade``, ``current``, ``newer``, ``restoration`` and so on; ``reason`` is
        a part of the recorded reason.

        | `Server Should Have Judged` | upgrade | 1.1.0+0 is newer than 1.0.0+0 |
        """
        system = self._terminal.system
        found = system.records.analysis(system.serial)
        if found is None:
            raise ServerError("the server has not judged the terminal's software")
        said = f"{found.verdict.value}: {found.reason}"
        expect(found.verdict is verdict, f"the judgment should be {verdict.value}, it is {said}")
        expect(reason in found.reason, f"the reason should be {reason!r}, it is {said}")

    @keyword
    def what_differs_should_be_prepared(self, version: str) -> int:
        """The ranges that differ between what the terminal runs and a release are in the records.

        Nobody has asked for an update yet. Returns how many bytes of the NOR would be written.
        """
        system = self._terminal.system
        terminal = system.records.terminal(system.serial)
        if terminal is None:
            raise ServerError("the terminal has never registered")
        pair = terminal.digest, inspect(self._image(version)).digest
        prepared = system.records.preparation(*pair)
        expect(
            prepared is not None and prepared.state is PreparationState.READY,
            f"nothing is prepared for {terminal.version} to {version}",
        )
        expect(not system.records.updates(system.serial), "an update was asked for already")
        writes = system.records.ranges(*pair, RangeKind.WRITE)
        erases = system.records.ranges(*pair, RangeKind.ERASE)
        logger.info(f"{len(erases)} blocks to erase, {len(writes)} ranges to write")
        expect(bool(writes and erases), "no range is prepared")
        return sum(item.length for item in writes)

    @keyword
    def start_commanded_update(
        self,
        version: str,
        downgrade: bool = False,
    ) -> int:
        """Has the server command the terminal to a published release, erase by erase, write by
        write; returns the update's id.

        Software that is older than what the terminal runs needs ``downgrade=True``.
        """
        terminal = self._terminal
        system = terminal.system
        started = system.server.start_update(
            system.serial, version, terminal.engine.now, commanded=True, downgrade=downgrade
        )
        self._update_id = started.id
        return started.id

    @keyword
    def take_up_update(self, timeout: timedelta = LONG) -> int:
        """Waits until the server has begun an update by somebody else's order (a call); the
        keywords about *the update* mean that one from now on. Returns its id.
        """
        terminal = self._terminal
        system = terminal.system

        def begun() -> bool:
            return bool(system.records.updates(system.serial))

        if not terminal.bench.run_until(begun, timeout.total_seconds()):
            raise UpdateError("no update has begun")
        self._update_id = system.records.updates(system.serial)[-1].id
        return self._update_id

    @keyword
    def wait_for_step(self, kind: StepKind, timeout: timedelta = LONG) -> None:
        """Waits until a step of that kind is carried out: ``back up``, ``prepare``, ``erase``,
        ``write``, ``check``, ``restart``, ``give back`` or ``delete backup``.
        """

        def sent() -> bool:
            return any(
                step.kind is kind and step.state is not StepState.WAITING for step in self._steps()
            )

        if not self._terminal.bench.run_until(sent, timeout.total_seconds()):
            raise UpdateError(f"no step {kind.value} has begun: {self._in_steps()}")

    @keyword
    def all_steps_should_be_done(self, *kinds: StepKind) -> None:
        """Every step of the commanded update, or every one of these kinds, is done."""
        steps = [step for step in self._steps() if not kinds or step.kind in kinds]
        expect(steps, "there is no such step")
        left = [step for step in steps if step.state is not StepState.DONE]
        expect(not left, f"not all steps are done: {self._in_steps()}")

    @keyword
    def get_steps(self, kind: StepKind | None = None) -> list[PlannedStep]:
        """The steps of the commanded update, with ``offset``, ``length``, ``state``, ``result``."""
        return [step for step in self._steps() if kind in (None, step.kind)]

    @keyword
    def only_what_differs_should_be_touched(self) -> None:
        """No block is erased, and no byte written, but those that were prepared for this pair."""
        session = self._session()
        ranges = self._terminal.system.records.ranges(session.base, session.digest)
        for kind, allowed in ((StepKind.ERASE, RangeKind.ERASE), (StepKind.WRITE, RangeKind.WRITE)):
            for step in self.get_steps(kind):
                fits = any(
                    item.offset <= step.offset
                    and step.offset + step.length <= item.offset + item.length
                    for item in ranges
                    if item.kind is allowed
                )
                expect(fits, f"step {step.number} touches {step.offset:#x}, which does not differ")

    @keyword
    def backup_should_be_kept(self) -> int:
        """The server keeps the user's data, and can not read it. Returns its bytes.

        Fails when a name or a number of the phonebook stands in it.
        """
        terminal = self._terminal
        system = terminal.system
        backups = system.records.backups(system.serial)
        expect(len(backups) == 1, f"there are {len(backups)} backups")
        data = system.records.read_backup(backups[0].id, Actor(BENCH, terminal.engine.now))
        for name, number in self._terminal.entries:
            for word in (name, number):
                expect(word.encode() not in data, f"{word} can be read in the backup")
        return len(data)

    @keyword
    def no_personal_data_should_be_left(self) -> None:
        """The server holds no backup of the terminal's, and the audit says why."""
        system = self._terminal.system
        left = system.records.backups(system.serial)
        expect(not left, f"{len(left)} backups are left")

    @keyword
    def audit_should_say(self, *actions: AuditAction) -> None:
        """What was done to personal data of this terminal, in that order, and nothing else.

        | `Audit Should Say` | backup kept | backup read | backup deleted |
        """
        system = self._terminal.system
        entries = system.records.audit(serial=system.serial)
        of_backups = (entry for entry in entries if entry.action in OF_BACKUPS)
        said = [entry.action for entry in of_backups if entry.actor != BENCH]
        found = ", ".join(action.value for action in said) or "nothing"
        expect(said == list(actions), f"the audit says: {found}")

    @keyword
    def get_requests(self, *paths: str) -> list[str]:
        """What went over the link so far: requests of both sides, with the codes of their answers.

        | ${said} = | `Get Requests` | /erase | /result |
        """
        exchanges = self._terminal.system.link.exchanges
        wanted = [e for e in exchanges if not paths or e.request.split(" ", 1)[1] in paths]
        return [f"{e.request} {e.answer}" for e in wanted]

    def _session(self) -> CommandedSession:
        system = self._terminal.system
        sessions = [
            s for s in system.records.sessions(system.serial) if s.update_id == self._update_id
        ]
        if not sessions:
            raise UpdateError("no update is commanded", hint="begin with `Start Commanded Update`")
        return sessions[-1]

    def _steps(self) -> list[PlannedStep]:
        return self._terminal.system.records.steps(self._session().id)

    def _in_steps(self) -> str:
        return ", ".join(
            f"{step.number} {step.kind.value} {step.state.value}" for step in self._steps()
        )
