"""Registration and analysis (rows B1, B2): what each terminal runs, and whether it should upgrade.

Without input or output, as the core is: what takes long is queued in the records, and somebody
else (``server.worker``) does it. Times are in the server's seconds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from unbrick.layout import reference_layout
from unbrick.server.core.prepared import Prepared
from unbrick.server.judgment import judge
from unbrick.server.records.analysis import (
    Analysis,
    Installation,
    Preparation,
    PreparationState,
    Verdict,
)
from unbrick.server.records.contract import Records
from unbrick.server.records.updates import Image, Terminal
from unbrick.wire.messages import TerminalState

TERMINALS_AT_ONCE = 500
"""Terminals that are read together."""

MAX_TRIES = 3
"""Times that the worker may die of a pair of images before it is given up."""


class Analyst:
    """Keeps the history of terminals, decides whether they need an upgrade, and queues the rest.

    Args:
        records: what the server remembers.
        wake: called when there is something to prepare; it must not do it at once.
    """

    def __init__(self, records: Records, wake: Callable[[], None] | None = None) -> None:
        self.records = records
        self.wake = wake or (lambda: None)

    def registered(self, terminal: Terminal, before: Terminal | None, now: float) -> None:
        """A terminal has registered; ``before`` is what it had said last. In a transaction."""
        known = self.records.analysis(terminal.serial) is not None
        if before is not None and known and _same(before, terminal):
            return
        self._keep_history(terminal, now)
        if terminal.state is not TerminalState.COMMANDED:  # Being changed, it is nothing to judge.
            self._decide(terminal, self.records.images(), now)

    def published(self, image: Image, now: float) -> None:
        """An image was published: is it for any of the terminals? In a transaction."""
        images = self.records.images()
        for running in sorted(self.records.running()):
            if (running.hardware_id, running.name) != (image.hardware_id, image.name):
                continue  # Nothing that was decided there changes.
            last = ""
            while terminals := self.records.terminals_running(
                running, after=last, first=TERMINALS_AT_ONCE
            ):
                self.records.look_ahead([terminal.serial for terminal in terminals])
                for terminal in terminals:
                    self._decide(terminal, images, now)
                last = terminals[-1].serial

    def _keep_history(self, terminal: Terminal, now: float) -> None:
        now_runs = None
        if terminal.state is TerminalState.APPLICATION:
            now_runs = Installation(
                0,
                terminal.serial,
                terminal.hardware_id,
                terminal.name,
                terminal.version,
                terminal.build_time,
                terminal.digest,
                now,
                None,
            )
        last = next(reversed(self.records.installations(terminal.serial)), None)
        if last is not None and last.until is None:
            if now_runs is not None and replace(now_runs, id=last.id, since=last.since) == last:
                return
            self.records.end_installation(terminal.serial, now)
        if now_runs is not None:
            self.records.add_installation(now_runs)

    def _decide(self, terminal: Terminal, images: list[Image], now: float) -> None:
        found = judge(terminal, images, self.records.updates(terminal.serial))
        reason = found.reason
        if found.verdict is Verdict.UPGRADE and found.latest is not None:
            if not self.can_prepare(terminal.digest, found.latest):
                reason += "; what it runs is not published here, so nothing is prepared"
            else:
                self._queue(terminal.digest, found.latest.digest, now)
        digest = found.latest.digest if found.latest else b""
        new = Analysis(0, terminal.serial, now, found.verdict, digest, reason)
        last = self.records.analysis(terminal.serial)
        if last is None or replace(last, id=0, time=now) != new:
            self.records.add_analysis(new)

    # What is prepared before anybody asks

    def can_prepare(self, base: bytes, image: Image) -> bool:
        """Whether both images are known, and the board's layout is."""
        if base == image.digest or image.hardware_id != reference_layout().hardware_id:
            return False
        return self.records.image(base) is not None

    def _queue(self, base: bytes, digest: bytes, now: float) -> Preparation:
        preparation = self.records.preparation(base, digest)
        if preparation is None:
            preparation = Preparation(
                base, digest, PreparationState.QUEUED, 0, None, "", created=now, changed=now
            )
            self.records.save_preparation(preparation)
            self.wake()
        return preparation

    def ready(self, base: bytes, image: Image, now: float) -> bool:
        """Whether all is prepared that can be; if not, it will be. In a transaction."""
        if not self.can_prepare(base, image):
            return True
        return self._queue(base, image.digest, now).state is not PreparationState.QUEUED

    def next_job(self) -> Preparation | None:
        """What is to be prepared next. The ones that the worker died of come last."""
        queued = self.records.preparations(PreparationState.QUEUED)
        return min(queued, key=lambda item: item.tries, default=None)

    def images_of(self, job: Preparation) -> tuple[bytes, bytes]:
        """The files of both images: the installed and the wanted one."""
        return self.records.image_file(job.base), self.records.image_file(job.digest)

    def done(self, job: Preparation, prepared: Prepared, now: float) -> None:
        """Keep what was prepared."""
        with self.records.transaction():
            self._keep(job, prepared, now)

    def _keep(self, job: Preparation, prepared: Prepared, now: float) -> Preparation:
        size = None if prepared.file is None else len(prepared.file)
        ready = replace(
            job,
            state=PreparationState.READY,
            tries=job.tries + 1,
            file_size=size,
            text=prepared.text,
            changed=now,
        )
        self.records.save_preparation(ready)
        self.records.set_ranges(job.base, job.digest, prepared.ranges)
        if prepared.file is not None:
            self.records.add_difference(job.base, job.digest, prepared.file)
        return ready

    def failed(self, job: Preparation, why: str, now: float, *, final: bool = False) -> None:
        """It could not be prepared; ``final``: it never can. Otherwise it is tried again."""
        tries = job.tries + 1
        given_up = final or tries >= MAX_TRIES
        state = PreparationState.FAILED if given_up else PreparationState.QUEUED
        self.records.save_preparation(replace(job, state=state, tries=tries, text=why, changed=now))


class AtOnce(Analyst):
    """For simulations: what is to be prepared is prepared at once, by nobody else.

    Args:
        records: what the server remembers.
        differ: makes the differential file from an installed and a wanted image file; without it
            only full images are sent.
        foresees: keeps the history of terminals, decides and prepares before anybody asks, as a
            real server does; otherwise it prepares when it is asked whether it has.
    """

    def __init__(
        self,
        records: Records,
        differ: Callable[[bytes, bytes], bytes] | None = None,
        *,
        foresees: bool = False,
    ) -> None:
        super().__init__(records)
        self._differ, self._foresees = differ, foresees

    def registered(self, terminal: Terminal, before: Terminal | None, now: float) -> None:
        """See ``Analyst``."""
        if self._foresees:
            super().registered(terminal, before, now)

    def published(self, image: Image, now: float) -> None:
        """See ``Analyst``."""
        if self._foresees:
            super().published(image, now)

    def _queue(self, base: bytes, digest: bytes, now: float) -> Preparation:
        from unbrick.server.core.difference import find_ranges  # noqa: PLC0415 - needs NumPy

        queued = super()._queue(base, digest, now)
        if queued.state is not PreparationState.QUEUED:
            return queued
        old, new = self.images_of(queued)
        file = self._differ(old, new) if self._differ else None
        return self._keep(queued, Prepared(find_ranges(old, new), file, ""), now)


def _same(before: Terminal, terminal: Terminal) -> bool:
    """Whether a registration says nothing new about the software."""
    return (
        before.hardware_id,
        before.name,
        before.version,
        before.build_time,
        before.digest,
        before.state,
        before.security_counter,
    ) == (
        terminal.hardware_id,
        terminal.name,
        terminal.version,
        terminal.build_time,
        terminal.digest,
        terminal.state,
        terminal.security_counter,
    )
