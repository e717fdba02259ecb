"""Prepares what the analysis has queued, in a process beside the server's event loop.

The process can be killed at any time, and so can the server: what is queued is queued in the
records, and kept there when it is done.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import Callable, Sequence

from unbrick.server.core.analysis import Analyst
from unbrick.server.core.prepared import Prepared
from unbrick.server.edge.prepare import REFUSED, pack_input
from unbrick.server.edge.troubles import TROUBLES
from unbrick.server.records.analysis import Preparation

PREPARATION_TIMEOUT_S = 600.0
"""Seconds that a pair of images may take; seconds are usual."""

TROUBLE_S = 1.0
"""Seconds that the worker waits when the records cannot be read or kept."""

PROGRAM = (sys.executable, "-m", "unbrick.server.edge.prepare")


class Worker:
    """Works off what an analyst has queued, one pair of images after the other.

    Args:
        analyst: whose queue it is; the worker has itself woken by it.
        on_end: called with a job when there is no more to wait for.
        program: what prepares a pair.
        clock: seconds since 1970.
        may_work: whether it is this process that prepares, of those that share a database.
    """

    def __init__(
        self,
        analyst: Analyst,
        on_end: Callable[[Preparation], None],
        *,
        program: Sequence[str] = PROGRAM,
        clock: Callable[[], float] = time.time,
        may_work: Callable[[], bool] = lambda: True,
    ) -> None:
        self._may_work = may_work
        self._analyst = analyst
        self._on_end = on_end
        self._program = program
        self._clock = clock
        self._work = asyncio.Event()
        analyst.wake = self._work.set

    async def run(self) -> None:
        """Work until cancelled."""
        while True:
            self._work.clear()
            job, trouble = None, True
            with TROUBLES.survived("nothing is prepared"):
                job = self._analyst.next_job() if self._may_work() else None
                if job is not None:
                    await self._do(job)
                    self._on_end(job)
                trouble = False
            if trouble:
                await asyncio.sleep(TROUBLE_S)
            elif job is None:
                await self._work.wait()

    async def _do(self, job: Preparation) -> None:
        images = self._analyst.images_of(job)
        try:
            code, output, errors = await asyncio.wait_for(
                self._prepare(*images), PREPARATION_TIMEOUT_S
            )
        except asyncio.TimeoutError:  # First: it is an OSError, too.
            self._analyst.failed(
                job, f"it took more than {PREPARATION_TIMEOUT_S:.0f} s", self._clock()
            )
            return
        except OSError as error:
            self._analyst.failed(job, f"no process can be started: {error}", self._clock())
            return
        if code == REFUSED:
            why = errors.decode(errors="replace").strip()[-500:]
            self._analyst.failed(job, why, self._clock(), final=True)
            return
        if code:
            self._analyst.failed(job, f"the worker ended with {code}", self._clock())
            return
        try:
            prepared = Prepared.decode(output)
        except ValueError as error:
            self._analyst.failed(job, str(error), self._clock())
            return
        self._analyst.done(job, prepared, self._clock())

    async def _prepare(self, old: bytes, new: bytes) -> tuple[int, bytes, bytes]:
        process = await asyncio.create_subprocess_exec(
            *self._program,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            output, errors = await process.communicate(pack_input(old, new))
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
        return process.returncode or 0, output, errors
