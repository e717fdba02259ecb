"""The commands for subscribers, on a database of each kind."""

from __future__ import annotations

import getpass
import json
from collections.abc import Callable
from typing import Any

import pytest
from click.testing import CliRunner

from unbrick.cli.subscriber import subscriber
from unbrick.errors import SetupError, UnbrickError
from unbrick.server.database import SqlRecords

Invoke = Callable[..., str]
ALICE, BOB = "+44 1632 960-001", "+441632960002"


@pytest.fixture
def invoke(database_url: str) -> Invoke:
    """Runs a command; errors of ours are raised."""

    def run(*arguments: str) -> str:
        result = CliRunner().invoke(
            subscriber, [*arguments, "--database", database_url], standalone_mode=False
        )
        if isinstance(result.exception, UnbrickError):
            raise result.exception
        assert result.exception is None, result.exception
        return result.output

    return run


def listed(invoke: Invoke) -> list[dict[str, Any]]:
    return list(json.loads(invoke("list", "--json")))


def test_subscribers_from_the_first_to_the_last(invoke: Invoke) -> None:
    assert invoke("list") == "there are no subscribers\n"
    assert invoke("add", ALICE, "Alice", "--terminal", "T-1") == "+441632960001 is Alice\n"
    invoke("add", BOB, "Bob")
    assert invoke("assign", "T-2", BOB) == "T-2 is Bob's\n"
    assert invoke("list") == "+441632960001  Alice  T-1\n+441632960002  Bob  T-2\n"
    assert invoke("assign", "T-2") == "T-2 is nobody's\n"
    assert invoke("remove", ALICE) == "+441632960001 is forgotten\n"
    assert listed(invoke) == [{"phone": BOB, "name": "Bob", "terminals": []}]
    audit = invoke("audit")
    assert len(audit.splitlines()) == 7
    assert f"{getpass.getuser()}: terminal assigned 1 T-1 (by the command line)" in audit
    assert "Alice" not in audit


def test_who_cannot_be_added_leaves_nothing(invoke: Invoke, database_url: str) -> None:
    invoke("add", BOB, "Bob")
    with pytest.raises(SetupError, match="another subscriber's"):
        invoke("add", BOB, "Eve", "--terminal", "T-1")
    with pytest.raises(SetupError, match="no serial"):
        invoke("add", ALICE, "Alice", "--terminal", "T" * 32)
    records = SqlRecords(database_url)
    assert [item.name for item in records.subscribers()] == ["Bob"]
    assert len(records.audit()) == 1
    records.close()


@pytest.mark.parametrize(
    "arguments",
    [
        ("add", "01632960001", "Alice"),
        ("add", "+44163296000123456", "Alice"),
        ("add", "+44163296000\n1", "Alice"),
        ("add", "+٤٤١٦٣٢٩٦٠٠٠١", "Alice"),
        ("add", BOB, " "),
        ("add", BOB, "\x1b[2J"),
        ("add", BOB, "A" * 101),
        ("assign", "T-1", BOB),
        ("assign", "", BOB),
        ("remove", BOB),
    ],
)
def test_what_is_none_is_refused_with_the_next_step(
    invoke: Invoke, arguments: tuple[str, ...]
) -> None:
    with pytest.raises(SetupError) as caught:
        invoke(*arguments)
    assert caught.value.hint
    assert listed(invoke) == []
