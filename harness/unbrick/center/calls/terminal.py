"""Calls that users make at their terminals: the center picks up, listens and speaks (row B4).

Calls and keys come by the user database, where the server keeps them; texts go to the server, which
brings them to the terminal one after the other.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from collections import deque
from typing import Protocol

from sqlalchemy.exc import SQLAlchemyError
from starlette.concurrency import run_in_threadpool

from unbrick.center.calls.carry import CallError, Calls
from unbrick.errors import UnbrickError
from unbrick.server.edge.client import SilentError
from unbrick.server.records.calls import LineState
from unbrick.server.records.contract import Records
from unbrick.wire.messages import MAX_TEXT

LOOK_INTERVAL_S = 0.25
"""Seconds between two looks for calls and keys."""

SIGN_INTERVAL_S = 3.0
"""Seconds between two signs of life to the server, which takes no calls without them."""

SERVER_SILENCE_S = 30.0
"""Seconds that the server may be away before a call is given up."""

_LOG = logging.getLogger(__name__)


class Telephone(Protocol):
    """What this needs of the server."""

    def say(self, call_id: int, count: int, text: str, *, last: bool) -> None:
        """Say text ``count`` of a call to the terminal's user."""

    def center_is_there(self) -> None:
        """The center takes calls."""

    def center_leaves(self) -> None:
        """The center ends, or has just begun."""


def split_text(text: str, most: int = MAX_TEXT) -> list[str]:
    """A text in parts of at most ``most`` bytes: whole sentences, or words, where that can be."""
    units: list[str] = []
    for sentence in re.split(r"(?<=[.!?])\s+", " ".join(text.split())):
        fits = len(sentence.encode()) <= most
        units += [sentence] if fits else _packed(_chunks(sentence, most), most)
    return [part for part in _packed(units, most) if part]


def _packed(units: list[str], most: int) -> list[str]:
    """Neighbours together, as many as fit."""
    parts = [""]
    for unit in units:
        longer = f"{parts[-1]} {unit}".strip()
        if len(longer.encode()) > most:
            parts.append(unit)
        else:
            parts[-1] = longer
    return parts


def _chunks(sentence: str, most: int) -> list[str]:
    """Words, and of a word that is too long its parts."""
    chunks = []
    for word in sentence.split():
        chunks.append("")
        for letter in word:
            if len((chunks[-1] + letter).encode()) > most:
                chunks.append("")
            chunks[-1] += letter
    return chunks


class _Line:
    """The center's end of a call that goes on.

    Attributes:
        keys: how many keys of the terminal were passed on.
        said: how many texts the server has taken.
        waiting: what it has not, each with whether it is the last.
    """

    def __init__(self) -> None:
        self.keys = 0
        self.said = 0
        self.waiting: deque[tuple[str, bool]] = deque()
        self.dead = False
        self.speaks = asyncio.Event()
        self.mouth: asyncio.Task[None] | None = None


class Lines:
    """Brings the calls of terminals to ``calls``, and what is said there to the terminals.

    Args:
        calls: the machine of each call; told here what callers do.
        users: where the server keeps what callers do.
        server: says texts.
    """

    def __init__(self, calls: Calls, users: Records, server: Telephone) -> None:
        self._calls, self._users, self._server = calls, users, server
        self._lines: dict[int, _Line] = {}
        calls.speak = self._speak

    async def run(self) -> None:
        """Take calls until cancelled."""
        # The first has to be heard, so that calls of an earlier life are over there, too.
        while not await self._sign(begins=True):  # noqa: ASYNC110 - nothing to wait for but time
            await asyncio.sleep(1.0)
        signs = asyncio.create_task(self._signs())
        try:
            while True:
                try:
                    self.look()
                except (UnbrickError, SQLAlchemyError) as error:
                    _LOG.warning("calls of terminals are not looked at: %s", error)
                await asyncio.sleep(LOOK_INTERVAL_S)
        finally:
            signs.cancel()
            await asyncio.gather(signs, return_exceptions=True)

    async def close(self) -> None:
        """Say nothing more; the server tells those who are still on the line."""
        mouths = [line.mouth for line in self._lines.values() if line.mouth]
        for mouth in mouths:
            mouth.cancel()
        await asyncio.gather(*mouths, return_exceptions=True)
        try:
            await run_in_threadpool(self._server.center_leaves)
        except UnbrickError as error:
            _LOG.debug("the server does not hear that the center ends: %s", error)

    async def _signs(self) -> None:
        while True:
            await self._sign(begins=False)
            await asyncio.sleep(SIGN_INTERVAL_S)

    async def _sign(self, *, begins: bool) -> bool:
        """A sign of life; gives whether the server has heard it."""
        try:
            if begins:
                await run_in_threadpool(self._server.center_leaves)
            await run_in_threadpool(self._server.center_is_there)
        except UnbrickError:
            return False
        return True

    def look(self) -> None:
        """Look once who calls, what was pressed, and who has hung up."""
        for end in self._users.terminal_calls():
            call = self._users.call(end.call_id)
            known = end.call_id in self._lines or self._calls.goes_on(end.call_id)
            if not known and end.state is LineState.OPEN and call and call.ended is None:
                self._lines[call.id] = _Line()
                self._calls.pick_up(call)
        for call_id, line in list(self._lines.items()):
            # If it has ended, what was said last may still be on its way.
            with contextlib.suppress(CallError):
                self._listen(call_id, line)
            if line.dead or (not line.waiting and not self._calls.goes_on(call_id)):
                del self._lines[call_id]
                if line.mouth:
                    line.mouth.cancel()

    def _listen(self, call_id: int, line: _Line) -> None:
        end = self._users.terminal_call(call_id)
        keys = end.keys if end else ""
        for key in keys[line.keys :]:
            line.keys += 1
            self._calls.press(call_id, key)
        if end is None or end.state is not LineState.OPEN or line.dead:
            line.waiting.clear()
            self._calls.hang_up(call_id)
        elif not line.waiting:
            heard = sum(saying.heard for saying in self._users.sayings(call_id))
            if heard == line.said:
                self._calls.listens(call_id)

    def _speak(self, call_id: int, texts: list[str], *, last: bool) -> None:
        """Something is said in a call; nothing about calls that no terminal makes."""
        line = self._lines.get(call_id)
        if line is None:
            return
        parts = [part for text in texts for part in split_text(text)]
        line.waiting += [(part, last and at == len(parts)) for at, part in enumerate(parts, 1)]
        line.speaks.set()
        if line.mouth is None:
            line.mouth = asyncio.get_running_loop().create_task(self._say(call_id, line))

    async def _say(self, call_id: int, line: _Line) -> None:
        loop = asyncio.get_running_loop()
        heard_of = loop.time()
        while True:
            line.speaks.clear()
            while line.waiting:
                text, last = line.waiting[0]
                try:
                    await run_in_threadpool(self._server.say, call_id, line.said, text, last=last)
                except SilentError:
                    if loop.time() - heard_of > SERVER_SILENCE_S:
                        line.dead = True
                        return
                    await asyncio.sleep(1.0)
                except UnbrickError:
                    line.dead = True  # It is over there.
                    return
                else:
                    heard_of = loop.time()
                    line.said += 1
                    if line.waiting:
                        line.waiting.popleft()
            await line.speaks.wait()
            heard_of = loop.time()
