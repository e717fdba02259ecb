"""Users are told once of each upgrade that is ready for their terminal."""

from __future__ import annotations

import asyncio

import pytest
from center_world import SERIAL, World
from patience import PATIENCE_S
from server_world import make_image

from unbrick.center.calls import notify
from unbrick.center.calls.menu import read_menu
from unbrick.center.calls.notify import Notifier
from unbrick.errors import ServerError
from unbrick.server.edge.client import SilentError


@pytest.fixture
def world() -> World:
    made = World()
    made.register()
    return made


def look(world: World) -> list[tuple[str, str]]:
    told: list[tuple[str, str]] = []
    notifier = Notifier(world.center.desk, read_menu(), lambda *what: told.append(what))
    asyncio.run(notifier.look())
    return told


def test_once_for_each_version(world: World) -> None:
    assert look(world) == [], "nothing is published"
    world.publish()
    assert look(world) == [(SERIAL, "1.1.0+0")]
    assert look(world) == []
    world.publish(make_image("1.2.0+0"))
    assert look(world) == [(SERIAL, "1.2.0+0")]
    texts = [message.text for message in world.records.messages(SERIAL)]
    assert [text.partition(" of ")[0] for text in texts] == ["Version 1.1.0", "Version 1.2.0"]


def test_nobody_is_told_who_runs_it_or_is_being_updated(world: World) -> None:
    world.publish()
    world.register("T-0002", version="1.1.0+0", digest=world.records.images()[0].digest)
    world.register("T-0003", hardware_id="other")
    world.core.start_update(SERIAL, "1.1.0", 0.0)
    assert look(world) == []


def test_not_all_at_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notify, "MAX_INVITATIONS_AT_ONCE", 2)
    world.register("T-0002")
    world.register("T-0003")
    world.publish()
    assert [len(look(world)) for _ in range(3)] == [2, 1, 0]


def test_a_server_that_is_silent_is_asked_again(world: World) -> None:
    world.publish()
    world.server.silent = world.server.deaf = True
    with pytest.raises(SilentError):
        look(world)
    world.server.silent = world.server.deaf = False
    assert look(world) == [(SERIAL, "1.1.0+0")]


def test_it_goes_on_after_what_fails(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notify, "LOOK_INTERVAL_S", 0.0)
    looks = 0

    async def play() -> None:
        notifier = Notifier(world.center.desk, read_menu(), lambda *_: None)
        again = asyncio.Event()

        async def failing() -> None:
            nonlocal looks
            looks += 1
            if looks == 3:
                again.set()
            raise ServerError("no")

        monkeypatch.setattr(notifier, "look", failing)
        task = asyncio.create_task(notifier.run())
        await asyncio.wait_for(again.wait(), PATIENCE_S)
        task.cancel()

    asyncio.run(play())
    assert looks >= 3
