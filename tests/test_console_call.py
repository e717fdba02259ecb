"""The user calls the customer center from the terminal's console; a scripted server answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import aiocoap
import pytest
from scripted_server import SERIAL, World

from unbrick.engine.inprocess import InProcessEngine
from unbrick.wire.calls import CallRequest, HangUp, Key, SayRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from unbrick.firmware.signed import Releases


@pytest.fixture
def world(unbrick_releases: Releases) -> Iterator[World]:
    with InProcessEngine(unbrick_releases.elf_files) as engine:
        made = World(engine, unbrick_releases)
        made.start()
        yield made


def say(world: World, number: int, count: int, text: str, *, last: bool = False) -> str:
    """The code of the answer to a text."""
    return world.ask("say", SayRequest(number, count, text, last).encode()).code.dotted


def keys(world: World) -> list[Key]:
    return [Key.decode(payload) for payload in world.server.asked("key")]


def call(world: World, number: int = 1) -> None:
    """Call, and wait until the server has taken it."""
    before = len(world.server.asked("call"))
    world.console.command("call")
    sent(world, "call", before + 1)
    assert CallRequest.decode(world.server.asked("call")[-1]) == CallRequest(SERIAL, number)


def sent(world: World, path: str, count: int) -> None:
    """Wait until so many requests of a path have come, and a little more: no others come."""
    assert world.bench.run_until(lambda: len(world.server.asked(path)) >= count, 30)
    world.bench.run_for(1)
    assert len(world.server.asked(path)) == count


@pytest.mark.slow
def test_claim_b4_the_user_calls_hears_the_menu_and_presses_a_key(
    make_world: Callable[..., World],
) -> None:
    world = make_world()
    world.start()
    assert "type the keys you press" in world.console.command("call")
    sent(world, "call", 1)
    assert say(world, 1, 0, "A new version is there. Press 1 to upgrade.") == "2.04"
    world.console.expect("call: A new version is there. Press 1 to upgrade.\r\n> ")
    assert world.console.command("1") == "pressed 1"
    sent(world, "key", 1)
    assert keys(world) == [Key(SERIAL, 1, 0, "1")]
    assert say(world, 1, 1, "The upgrade begins. Goodbye.", last=True) == "2.04"
    world.console.expect("call: The upgrade begins. Goodbye.\r\n")
    world.console.expect("call: ended\r\n> ")
    assert "no command" in world.console.command("1")


def test_keys_go_one_by_one_in_their_order(world: World) -> None:
    world.console.type("call")
    world.console.type("12 *")  # Before anybody has answered.
    world.console.type("#")
    sent(world, "key", 4)
    assert keys(world) == [Key(SERIAL, 1, count, key) for count, key in enumerate("12*#")]


def test_commands_work_during_a_call_and_keys_only_then(world: World) -> None:
    assert "no command" in world.console.command("1")
    assert "type help" in world.console.command("*")
    call(world)
    assert SERIAL in world.console.command("id")
    assert "no command" in world.console.command("12a")
    assert "a call is on" in world.console.command("call")
    assert world.server.asked("key") == []


def test_hanging_up_is_told_and_the_next_call_has_the_next_number(world: World) -> None:
    assert "no call is on" in world.console.command("hang up")
    assert "type hang up" in world.console.command("hang on")
    call(world)
    assert world.console.command("hang up") == "call: ended"
    sent(world, "hang-up", 1)
    assert HangUp.decode(world.server.asked("hang-up")[0]) == HangUp(SERIAL, 1)
    assert say(world, 1, 0, "Anybody there?") == "4.04"
    assert "no call is on" in world.console.command("hang up")
    call(world, 2)
    assert say(world, 2, 0, "Hello again.") == "2.04"


def test_a_text_that_comes_again_is_shown_once(world: World) -> None:
    call(world)
    for _ in range(3):
        assert say(world, 1, 0, "Press 1.") == "2.04"
    assert say(world, 1, 1, "Bye.", last=True) == "2.04"
    assert say(world, 1, 1, "Bye.", last=True) == "2.04"  # Its answer was lost.
    world.bench.run_for(1)
    assert world.console.text.count("call: Press 1.") == 1
    assert world.console.text.count("call: Bye.") == 1
    assert world.console.text.count("call: ended") == 1


def test_texts_of_other_calls_are_not_shown(world: World) -> None:
    assert say(world, 0, 0, "psst") == "4.04"
    call(world)
    assert say(world, 2, 0, "psst") == "4.04"
    assert say(world, 1, 1, "psst") == "4.04"  # Of a call before the last start.
    world.restart()
    assert say(world, 1, 0, "psst") == "4.04"
    assert "psst" not in world.console.text


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (aiocoap.SERVICE_UNAVAILABLE, "nobody takes calls"),
        (aiocoap.NOT_FOUND, "refused"),
    ],
)
def test_a_call_that_is_not_taken_says_so(world: World, code: aiocoap.Code, said: str) -> None:
    world.server.answers["call"] = code
    world.console.command("call")
    world.console.expect(f"call: {said}\r\n> ")
    assert "no call is on" in world.console.command("hang up")
    world.server.answers.clear()
    call(world, 2)


def test_a_key_in_a_call_that_is_over_ends_it(world: World) -> None:
    call(world)
    world.server.answers["key"] = aiocoap.NOT_FOUND
    world.console.command("12")
    world.console.expect("call: ended\r\n> ")
    sent(world, "key", 1)


@pytest.mark.parametrize("typed", ["call", "5"])
def test_a_dead_line_ends_the_call(world: World, typed: str) -> None:
    if typed != "call":
        call(world)
    world.link.server_dies()
    world.console.command(typed)
    world.console.expect("call: the line is dead\r\n> ", 120)
    assert "no call is on" in world.console.command("hang up")


def test_hanging_up_is_at_once_though_the_line_is_dead(world: World) -> None:
    call(world)
    world.link.server_dies()
    world.console.command("9")
    assert world.console.command("hang up") == "call: ended"
    world.bench.run_for(120)
    assert "the line is dead" not in world.console.text


def test_too_many_keys_are_not_taken(world: World) -> None:
    call(world)
    world.link.cut_off(float("inf"))
    assert world.console.command("0" * 32) == f"pressed {'0' * 32}"
    assert "too many keys" in world.console.command("1")


def test_what_is_said_cannot_command_the_users_screen(world: World) -> None:
    call(world)
    payload = bytes.fromhex("a4 01 01 02 00 03 66 1b5b324a c29b 04 00")
    assert world.ask("say", payload).code.dotted == "2.04"
    world.console.expect("call:  [2J  \r\n> ")


@pytest.mark.parametrize(
    "payload",
    [b"", b"\xa0", bytes.fromhex("a40101020003600400"), bytes.fromhex("a4010102000361610402")],
)
def test_malformed_texts_are_refused(world: World, payload: bytes) -> None:
    call(world)
    assert world.ask("say", payload).code.dotted == "4.00"
