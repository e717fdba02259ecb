"""What keeps pages up to date: the hub, the watcher and the body of an event stream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from center_world import SERIAL, World
from patience import PATIENCE_S

from unbrick.center.page import live
from unbrick.center.page.live import CHANGE, Hub, Watcher, stream
from unbrick.server.records.updates import MessageState, UpdateState

TOPIC = f"terminal:{SERIAL}"


def test_only_those_are_told_who_look_at_it() -> None:
    hub = Hub()
    with hub.listen("a") as first, hub.listen("a") as second, hub.listen("b") as other:
        assert hub.topics == {"a", "b"}
        hub.publish("a")
        assert (first.is_set(), second.is_set(), other.is_set()) == (True, True, False)
    assert hub.topics == set()


async def _next(events: AsyncIterator[bytes]) -> bytes:
    return await asyncio.wait_for(anext(events), PATIENCE_S)


def test_a_stream_tells_of_each_change_and_ends_with_the_session() -> None:
    async def play() -> None:
        hub, alive = Hub(), True
        events = stream(hub, "a", lambda: alive)
        assert (await _next(events)).endswith(CHANGE), "the page may be older than the stream"
        hub.publish("a")
        hub.publish("a")
        assert await _next(events) == CHANGE, "two changes at once are one"
        hub.publish("a")
        assert await _next(events) == CHANGE
        alive = False
        hub.publish("a")
        with pytest.raises(StopAsyncIteration):
            await _next(events)
        assert hub.topics == set()

    asyncio.run(play())


def test_a_stream_ends_with_the_center_and_says_meanwhile_that_it_is_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(live, "KEEP_ALIVE_INTERVAL_S", 0.01)

    async def play() -> None:
        hub = Hub()
        events = stream(hub, "a", lambda: True)
        await _next(events)
        assert await _next(events) == b":\n\n"
        hub.close()
        with pytest.raises(StopAsyncIteration):
            await _next(events)

    asyncio.run(play())


def test_streams_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "MAX_STREAMS", 1)
    world = World()
    browser = world.browser("cleo")
    with world.center.hub.listen("a"):
        assert browser.http.get("/live?topic=a").status_code == 503


def test_the_watcher_looks_at_what_somebody_looks_at_and_tells_of_changes() -> None:
    hub, states, asked = Hub(), {"a": 1, "b": 1}, []

    def state(topic: str) -> int:
        asked.append(topic)
        return states[topic]

    watcher = Watcher(hub, state)
    watcher.look()
    assert asked == []
    with hub.listen("a") as changed:
        watcher.look()
        assert changed.is_set(), "it may have changed since the page was made"
        changed.clear()
        watcher.look()
        assert not changed.is_set()
        states["a"] = 2
        watcher.look()
        assert changed.is_set()
        changed.clear()
    assert set(asked) == {"a"}


def test_what_changes_a_terminals_page() -> None:
    world = World()
    world.register()
    world.register("other")
    world.publish()
    seen = [world.center.views.fingerprint(TOPIC)]

    def changed(topic: str = TOPIC) -> bool:
        seen.append(world.center.views.fingerprint(topic))
        return seen[-1] != seen[-2]

    assert not changed()
    world.core.start_update("other", "1.1.0", 0.0)
    assert not changed(), "another terminal's"
    update = world.core.start_update(SERIAL, "1.1.0", 0.0)
    assert changed()
    world.records.save_update(replace(update, state=UpdateState.CHECKED))
    assert changed()
    message = world.core.send_text(SERIAL, "hello", 0.0)
    assert changed()
    world.records.save_message(replace(message, state=MessageState.DELIVERED))
    assert changed()
    world.now += 1
    world.register()
    assert changed(), "seen again"


@pytest.mark.parametrize(
    "topic", ["", "x", "call:", "call:-1", "call:9" * 20, "terminal:", "calls"]
)
def test_a_topic_that_is_none_never_changes(topic: str) -> None:
    world = World()
    before = world.center.views.fingerprint(topic)
    world.register()
    world.publish()
    assert world.center.views.fingerprint(topic) == before
