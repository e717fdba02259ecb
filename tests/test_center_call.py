"""The state machine of a call: what is said and done about each event, in each state."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unbrick.center.calls.machine import (
    MAX_KEYS,
    Action,
    AskSituation,
    Begins,
    CallMachine,
    CallOutcome,
    CallState,
    EndCall,
    Event,
    HungUp,
    KeyPressed,
    Need,
    SayText,
    ServerSilent,
    SetTimer,
    Situation,
    StartUpgrade,
    TimedOut,
    Told,
    UpgradeRefused,
    UpgradeStarted,
)
from unbrick.center.calls.menu import read_menu

MENU = read_menu()
DUE = Told(Situation(Need.NEEDED, "1.0.0+0", "1.1.0+0"))
UNNECESSARY = Told(Situation(Need.UNNECESSARY, "1.1.0+0"))
UNDER_WAY = Told(Situation(Need.UNDER_WAY, "1.0.0+0", "1.1.0+0"))


class Caller:
    """Plays a call: what has been said, and what is to be done besides."""

    def __init__(self, *events: Event) -> None:
        self.machine = CallMachine(MENU, "UB-000001")
        self.said: list[str] = []
        self.done: list[Action] = []
        self.timer = 0
        self.play(*events)

    def play(self, *events: Event) -> Caller:
        for event in events:
            for action in self.machine.handle(event):
                if isinstance(action, SayText):
                    self.said.append(action.text)
                elif isinstance(action, SetTimer):
                    self.timer = action.timer
                else:
                    self.done.append(action)
        return self

    def keys(self, keys: str) -> Caller:
        return self.play(*map(KeyPressed, keys))

    def silence(self) -> Caller:
        return self.play(TimedOut(self.timer))

    @property
    def outcome(self) -> CallOutcome | None:
        ends = [action.outcome for action in self.done if isinstance(action, EndCall)]
        assert len(ends) == (self.machine.state is CallState.ENDED)
        return ends[0] if ends else None


def started(caller: Caller) -> list[Action]:
    return [action for action in caller.done if isinstance(action, StartUpgrade)]


def at_menu() -> Caller:
    return Caller(Begins(), DUE)


def test_claim_b4_press_1_to_upgrade() -> None:
    caller = Caller(Begins())
    assert caller.done == [AskSituation()]
    assert caller.said == []
    caller.play(DUE)
    assert "Version 1.1.0 is ready" in caller.said[-1]
    assert "which runs 1.0.0" in caller.said[-1]
    caller.keys("1")
    assert caller.done[1:] == [StartUpgrade("1.1.0+0")]
    caller.play(UpgradeStarted())
    assert "The upgrade to 1.1.0 begins when this call has ended" in caller.said[-1]
    caller.keys("0")
    assert caller.outcome is CallOutcome.STARTED
    assert caller.said[-1] == MENU.phrases["goodbye"]


def test_the_menu_is_repeated() -> None:
    caller = at_menu().keys("99")
    assert caller.said == [caller.said[0]] * 3


def test_from_menu_to_menu() -> None:
    caller = at_menu().keys("2")
    assert "your phonebook stays" in caller.said[-1]
    caller.keys("1")
    assert len(started(caller)) == 1


@pytest.mark.parametrize("key", ["5", "*", "#", "", "11", "x"])
def test_a_wrong_key_is_named_and_the_menu_said_again(key: str) -> None:
    caller = at_menu().play(KeyPressed(key))
    assert caller.said[1:] == [f"{key} is not one of the choices.", caller.said[0]]
    assert caller.outcome is None


def test_after_wrong_keys_and_silences_the_call_ends() -> None:
    caller = at_menu().keys("5").silence()
    assert caller.outcome is None
    caller.keys("6")
    assert caller.outcome is CallOutcome.NO_CHOICE
    assert caller.said[-1] == MENU.phrases["no-choice"]


def test_a_choice_forgives_what_was_wrong_before_but_a_repetition_does_not() -> None:
    assert at_menu().keys("55").keys("2").keys("55").outcome is None
    assert at_menu().keys("55").keys("9").keys("5").outcome is CallOutcome.NO_CHOICE


def test_a_timer_that_was_set_before_a_key_means_nothing_after_it() -> None:
    caller = at_menu()
    old = caller.timer
    caller.keys("9").play(TimedOut(old))
    assert MENU.phrases["silence"] not in caller.said
    assert caller.silence().said[-2] == MENU.phrases["silence"]


def test_a_caller_who_presses_repeat_for_ever_is_sent_away() -> None:
    caller = at_menu().keys("9" * (MAX_KEYS - 1))
    assert caller.outcome is None
    assert caller.keys("9").outcome is CallOutcome.NO_CHOICE


def test_hanging_up() -> None:
    assert at_menu().play(HungUp()).outcome is CallOutcome.HUNG_UP
    assert Caller(HungUp()).outcome is CallOutcome.HUNG_UP
    assert Caller(Begins(), HungUp()).outcome is CallOutcome.HUNG_UP
    assert at_menu().keys("0").outcome is CallOutcome.ENDED


def test_who_hangs_up_after_the_key_has_the_upgrade_and_the_record_says_so() -> None:
    caller = at_menu().keys("1").play(HungUp())
    assert caller.outcome is None, "what the server does is not known yet"
    before = len(caller.said)
    assert caller.silence().play(UpgradeStarted()).outcome is CallOutcome.STARTED
    caller = at_menu().keys("1").play(HungUp(), UpgradeRefused("no"))
    assert caller.outcome is CallOutcome.REFUSED
    caller = at_menu().keys("1").play(HungUp(), ServerSilent())
    assert caller.outcome is CallOutcome.NO_ANSWER
    assert len(caller.said) == before, "nobody is there to hear it"


def test_key_1_twice_starts_one_upgrade() -> None:
    assert len(started(at_menu().keys("11").play(UpgradeStarted()).keys("1"))) == 1


def test_keys_before_the_menu_start_nothing() -> None:
    caller = Caller(Begins()).keys("1").play(DUE)
    assert started(caller) == []
    assert caller.machine.state is CallState.MENU


@pytest.mark.parametrize(
    ("told", "said"), [(UNNECESSARY, "there is nothing newer"), (UNDER_WAY, "at this moment")]
)
def test_an_upgrade_that_is_unnecessary_or_under_way(told: Told, said: str) -> None:
    caller = Caller(Begins(), told)
    assert said in caller.said[-1]
    assert started(caller.keys("1")) == [], "1 is no choice here"
    # It has become so between the menu and the key.
    caller = at_menu().keys("1").play(UpgradeRefused("it runs already"))
    assert caller.done[-1] == AskSituation()
    caller.play(told)
    assert said in caller.said[-1]
    assert caller.keys("0").outcome is CallOutcome.ENDED


def test_an_upgrade_that_the_server_refuses_although_it_is_due() -> None:
    caller = at_menu().keys("1").play(UpgradeRefused("it is for other hardware"), DUE)
    assert caller.outcome is CallOutcome.REFUSED
    assert "it is for other hardware" in caller.said[-1]
    caller = at_menu().keys("1").play(UpgradeRefused("because"), ServerSilent())
    assert caller.outcome is CallOutcome.REFUSED


def test_a_terminal_that_nobody_knows() -> None:
    caller = Caller(Begins(), Told(Situation(Need.UNKNOWN)))
    assert caller.outcome is CallOutcome.UNKNOWN
    assert "UB-000001" in caller.said[-1]


def test_a_server_that_does_not_answer() -> None:
    caller = Caller(Begins()).silence()
    assert caller.said == [MENU.phrases["moment"]]
    assert caller.play(ServerSilent()).outcome is CallOutcome.NO_ANSWER
    assert at_menu().keys("1").play(ServerSilent()).outcome is CallOutcome.NO_ANSWER


EVENTS: st.SearchStrategy[Any] = st.one_of(
    st.builds(KeyPressed, st.sampled_from([*"0123456789*#", "", "{new}"])),
    st.sampled_from([Begins(), HungUp(), DUE, UNNECESSARY, UNDER_WAY, UpgradeStarted()]),
    st.sampled_from([UpgradeRefused("{why}"), ServerSilent(), Told(Situation(Need.UNKNOWN))]),
    st.builds(TimedOut, st.integers(0, 20)),
)


@given(st.lists(EVENTS, max_size=60))
def test_whatever_comes_there_is_one_end_and_a_record_that_is_true(events: list[Event]) -> None:
    """An answer of the server that was not asked for changes nothing; a menu always has a timer."""
    caller = Caller(Begins())
    open_question = True
    for event in events:
        server = isinstance(event, Told | UpgradeStarted | UpgradeRefused | ServerSilent)
        if server and not open_question:
            continue
        before, was = list(caller.done), caller.machine.state
        caller.play(event)
        new = caller.done[len(before) :]
        if was is CallState.ENDED:
            assert new == []
        asked = any(isinstance(action, AskSituation | StartUpgrade) for action in new)
        fits = (was is CallState.ASKING and isinstance(event, Told | ServerSilent)) or (
            was is CallState.STARTING and server and not isinstance(event, Told)
        )
        open_question = asked or (open_question and not fits)
    caller.play(HungUp(), ServerSilent())
    assert caller.machine.state is CallState.ENDED
    assert caller.outcome is not None
    if caller.outcome is CallOutcome.STARTED:
        assert started(caller)
