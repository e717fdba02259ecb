"""What keeps pages up to date, by server-sent events: who looks at what, has it changed?"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager

KEEP_ALIVE_INTERVAL_S = 15.0
"""Seconds after which a silent stream says that it is still there."""

MAX_STREAMS = 200
"""Streams at a time; a page without one shows what was when it was loaded."""

MOST_DIGITS = 10
"""Digits that no number of a topic has."""

CHANGE = b"event: change\ndata:\n\n"


def read_topic(topic: str) -> tuple[str, str, int]:
    """A topic's kind, its name, and the number that this is; 0: it is none."""
    kind, _, name = topic.partition(":")
    return kind, name, int(name) if name.isdecimal() and len(name) < MOST_DIGITS else 0


class Hub:
    """Tells those who look at a topic that it has changed."""

    def __init__(self) -> None:
        self._listeners: dict[asyncio.Event, str] = {}
        self.closed = False

    @property
    def topics(self) -> set[str]:
        """What is looked at."""
        return set(self._listeners.values())

    @property
    def full(self) -> bool:
        """Whether there is no room for another stream."""
        return len(self._listeners) >= MAX_STREAMS

    @contextmanager
    def listen(self, topic: str) -> Iterator[asyncio.Event]:
        """An event that is set whenever the topic has changed; to be cleared by the listener."""
        changed = asyncio.Event()
        self._listeners[changed] = topic
        try:
            yield changed
        finally:
            del self._listeners[changed]

    def publish(self, topic: str) -> None:
        """Something about a topic has changed."""
        for changed, what in self._listeners.items():
            if what == topic:
                changed.set()

    def close(self) -> None:
        """End every stream."""
        self.closed = True
        for changed in self._listeners:
            changed.set()


async def stream(hub: Hub, topic: str, alive: Callable[[], bool]) -> AsyncIterator[bytes]:
    """The body of an event stream about a topic, while ``alive`` says so.

    The first event comes at once: something may have changed since the page was made.
    """
    with hub.listen(topic) as changed:
        yield b"retry: 2000\n\n" + CHANGE
        while True:
            try:
                await asyncio.wait_for(changed.wait(), KEEP_ALIVE_INTERVAL_S)
            except asyncio.TimeoutError:
                words = b":\n\n"
            else:
                words = CHANGE
            changed.clear()
            if hub.closed or not alive():
                return
            yield words


class Watcher:
    """Looks again and again at what somebody looks at, and publishes what has changed.

    Args:
        hub: who looks at what.
        state: how a topic is, as a value that differs when it has changed.
    """

    def __init__(self, hub: Hub, state: Callable[[str], object]) -> None:
        self._hub, self._state = hub, state
        self._seen: dict[str, object] = {}

    def look(self) -> None:
        """Look once. A new topic is published, too: nobody knows since when its page is old."""
        seen = {topic: self._state(topic) for topic in self._hub.topics}
        for topic, state in seen.items():
            if topic not in self._seen or self._seen[topic] != state:
                self._hub.publish(topic)
        self._seen = seen
