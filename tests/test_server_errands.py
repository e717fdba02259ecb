"""What is to be told to terminals is told once, and not lost."""

from __future__ import annotations

from typing import Any

import pytest
from server_world import inspect, post, registration

from unbrick.server.core.core import ServerCore
from unbrick.server.core.errands import Errand, Errands
from unbrick.server.records.memory import MemoryRecords

ERRAND = Errand("text", 1, "T-1")


def test_an_errand_that_comes_up_again_while_it_is_under_way_is_due_beside_it() -> None:
    errands = Errands()
    errands.add(ERRAND)
    errands.add(ERRAND)
    assert list(errands.due()) == [ERRAND]
    errands.drop(ERRAND)
    ticket = errands.start(ERRAND)
    assert errands.is_under_way(ERRAND)
    errands.add(ERRAND)
    assert errands.end(ticket) == ERRAND
    assert errands.end(ticket) is None
    assert list(errands.due()) == [ERRAND]
    assert not errands.is_under_way(ERRAND)


def test_what_is_under_way_to_a_terminal_can_be_given_up() -> None:
    errands = Errands()
    other = Errand("text", 1, "T-2")
    tickets = [errands.start(errand) for errand in (ERRAND, Errand("say", 1, "T-1"), other)]
    errands.give_up("T-1")
    assert [errands.end(ticket) for ticket in tickets] == [None, None, other]
    again = errands.start(ERRAND)
    assert again not in tickets
    assert errands.end(again) == ERRAND


def test_an_errand_that_fails_does_not_take_others_with_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    core = ServerCore(MemoryRecords(), inspect)
    for number in range(4):
        request = post("register", registration(serial=f"T-{number}").encode())
        core.handle(f"127.0.0.1:{number}", request, 0.0)
        core.send_text(f"T-{number}", "hello", 0.0)
    message = core._message

    def fail(errand: Errand, *others: Any) -> Any:
        if errand.serial == "T-2":
            raise RuntimeError("disk full")
        return message(errand, *others)

    monkeypatch.setattr(core, "_message", fail)
    with pytest.raises(RuntimeError, match="disk full"):
        core.poll(0.0)
    assert {sent.endpoint for sent in core.poll(0.0)} == {f"127.0.0.1:{n}" for n in (0, 1, 3)}
    assert core.poll(0.0) == []


def test_not_more_is_sent_at_once_than_is_asked_for() -> None:
    core = ServerCore(MemoryRecords(), inspect)
    for number in range(5):
        request = post("register", registration(serial=f"T-{number}").encode())
        core.handle(f"127.0.0.1:{number}", request, 0.0)
        core.send_text(f"T-{number}", "hello", 0.0)
    assert [len(core.poll(0.0, most=2)) for _ in range(4)] == [2, 2, 1, 0]
