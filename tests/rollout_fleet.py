"""Robot keywords for a rollout to many simulated terminals (``robot_tests/rollout.robot``).

The server is a process of its own, which can be killed. The terminals are in this one, each with a
UDP socket of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from patience import PATIENCE_S, until
from processes import Running

sys.path.append(str(Path(__file__).parents[1] / "tools"))  # Robot does not have it there.

from fleet import FACTORY, Fleet, make_small_image
from fleet_terminal import find_link_key
from unbrick.center.calls.carry import Calls
from unbrick.center.calls.menu import read_menu
from unbrick.center.desk import Desk
from unbrick.server.database import SqlRecords
from unbrick.server.edge.access import add_token
from unbrick.server.edge.client import ServerClient, SilentError
from unbrick.server.records.access import AccessRole
from unbrick.server.records.calls import CALLER

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

HOST = "127.0.0.1"
VERSION = "1.1.0"
MOST_AT_ONCE_A_SECOND = 60
"""Registrations of idle terminals: more would only slow the others down."""


def look(ask: Callable[[], T]) -> T:
    """What a server answers, also one that has just closed a connection under load."""

    def answer() -> list[T]:
        with contextlib.suppress(SilentError):
            return [ask()]
        return []

    return until(answer, "an answer of the server")[0]


class rollout_fleet:  # noqa: N801 - Robot looks for a class with the name of the file
    """A server, terminals, and two people with tokens: Ada and Bob."""

    ROBOT_LIBRARY_SCOPE = "TEST"

    def __init__(self) -> None:
        self._close = contextlib.ExitStack()
        self._server: Running | None = None
        self._ports = (0, 0)
        self._rollout = 0
        self._called: set[str] = set()
        self._people: dict[str, ServerClient] = {}

    # The stage

    def begin(self, count: int) -> None:
        """A server that has published a release, and so many terminals that do not run it."""
        folder = self._close.enter_context(tempfile.TemporaryDirectory())
        self._database = f"{folder}/server.db"
        self.start_server()
        with contextlib.closing(SqlRecords(self._database)) as records:
            tokens = {
                name: add_token(records.tokens, name, AccessRole.OPERATOR, time.time())
                for name in ("ada", "bob")
            }
        url = f"http://{HOST}:{self._ports[1]}"
        for name, token in tokens.items():
            client = ServerClient(url, token=token)
            self._people[name] = self._close.enter_context(contextlib.closing(client))
        self._people["ada"].publish(make_small_image(VERSION))
        self._serials = [f"T-{number:05}" for number in range(count)]
        self._enrol()
        self._fleet = Fleet(
            *(self._serials, (HOST, self._ports[0])),
            at_once=count,
            patience=max(5.0, count / MOST_AT_ONCE_A_SECOND),
            gives_up=True,
        )
        live = self._fleet.run(settled=lambda: False)
        self._living = threading.Thread(target=lambda: asyncio.run(live))
        self._living.start()
        until(
            lambda: len(self._people["ada"].terminals()) == count, "every terminal's registration"
        )

    def _enrol(self) -> None:
        """Let the server know the link keys of all terminals."""
        with contextlib.closing(SqlRecords(self._database)) as records, records.transaction():
            for serial in self._serials:
                records.links.enrol(serial, find_link_key(serial), FACTORY)

    def start_server(self) -> None:
        """Start it, on the ports that it had before."""
        coap, http = self._ports
        options = ("--coap-port", coap, "--http-port", http, "--database", self._database)
        self._server = Running("server", "start", *options)
        self._server.__enter__()
        said = self._server.wait_for(r"ready, coap://127\.0\.0\.1:(\d+) http://127\.0\.0\.1:(\d+)")
        self._ports = (int(said[1]), int(said[2]))

    def kill_server(self) -> None:
        """End it as a power cut would, and start it again."""
        assert self._server is not None
        self._server.end(signal.SIGKILL)
        self._server.__exit__(None, None, None)
        self.start_server()

    def end(self) -> None:
        """Send all of them home."""
        self._fleet.dismissed = True
        self._living.join()
        if self._server is not None:
            self._server.__exit__(None, None, None)
        self._close.close()

    # People

    def make_rollout(self, who: str, error: int, groups: str = "5,25,100", **more: Any) -> None:
        """Somebody makes a rollout of the release for all terminals."""
        percents = [int(part) for part in groups.split(",")]
        made = self._people[who].roll_out(version=VERSION, error=error, groups=percents, **more)
        self._rollout = made["id"]

    def do_with_rollout(self, who: str, deed: str) -> None:
        """Somebody approves, pauses, resumes or abandons it."""
        self._people[who].do_with_rollout(self._rollout, deed)

    def let_fail(self, percent: int) -> None:
        """So many percent of each group do not start the new software; a part of one is none."""
        groups: dict[int, list[str]] = {}
        for member in self._members():
            groups.setdefault(member["group"], []).append(member["serial"])
        failing = {
            serial
            for serials in groups.values()
            for serial in serials[: len(serials) * percent // 100]
        }
        self._fleet.let_fail(failing)
        self._failing = {group: len(failing & set(found)) for group, found in groups.items()}
        self._sizes = {group: len(found) for group, found in groups.items()}

    def users_call(self, percent: int) -> None:
        """So many percent of the users who were asked call the center and press 1."""
        asked = [m["serial"] for m in self._members() if m["state"] == "asked"]
        calling = asked[: -(-len(asked) * percent // 100)]
        asyncio.run(self._call(calling))
        self._called |= set(calling)

    async def _call(self, serials: list[str]) -> None:
        with contextlib.closing(SqlRecords(self._database)) as records:
            desk = Desk(records, self._people["bob"])
            calls = Calls(read_menu(), records, desk, time.time, lambda _call: None)
            for serial in serials:
                number = calls.begin(serial, CALLER).id
                await calls.settled(number, PATIENCE_S)
                calls.press(number, "1")
                await calls.settled(number, PATIENCE_S)
                calls.hang_up(number)
            await calls.close()

    # What is seen

    def wait_for_asked(self, percent: int) -> None:
        """So many users have got the text message, and none of those has got it twice."""
        count = -(-len(self._serials) * percent // 100)
        until(lambda: sum(self._fleet.texts.values()) >= count, f"{count} texts")
        assert set(self._fleet.texts.values()) <= {0, 1}, "nobody was asked twice"
        asked = sum(group["asked"] + group["consented"] for group in self._show()["groups"])
        assert asked == sum(self._fleet.texts.values()) == count

    def only_who_has_called_should_have_been_updated(self) -> None:
        """No other terminal has an update, and the rollout counts those as consents."""
        assert {update["serial"] for update in self._updates()} == self._called
        agreed = sum(group["consented"] for group in self._show()["groups"])
        assert agreed == len(self._called)

    def wait_for_state(self, state: str) -> None:
        """It comes into a state."""
        until(lambda: self._show()["state"] == state, f"a rollout that is {state}")

    def wait_for_successes(self, percent: int) -> None:
        """So many percent of all terminals run the release."""
        wanted = len(self._serials) * percent // 100
        until(lambda: self._states().get("succeeded", 0) >= wanted, f"{wanted} successes")

    def wait_until_nothing_is_under_way(self) -> None:
        """No terminal has an update that has not ended."""
        until(lambda: not self._under_way(), "the end of all updates")

    def updates_should_be(self, count: int) -> None:
        """So many were ordered until now."""
        found = len(self._updates())
        assert found == count, f"{found} updates"

    def only_the_failing_should_have_failed(self) -> None:
        """All terminals run the release but those that cannot."""
        failing = sum(self._failing.values())
        assert failing > 0
        assert self._states() == {
            "failed": failing,
            "succeeded": len(self._serials) - failing,
        }, self._states()

    def it_should_have_stopped_where_it_must(self, error: int) -> None:
        """In the first group of which too many fail, and with as many failures as that takes."""
        wrong = [g for g, bad in self._failing.items() if 100 * bad > error * self._sizes[g]]
        group = min(wrong)
        shown = self._show()
        assert shown["group"] == group, shown
        assert shown["text"].startswith(f"group {group}: "), shown["text"]
        later = [m for m in self._members() if m["group"] > group]
        assert later
        assert {member["state"] for member in later} == {"waiting"}
        asked = {update["serial"] for update in self._updates()}
        assert not asked & {member["serial"] for member in later}, "none of them was asked"

    def nobody_should_have_been_asked_twice(self) -> None:
        """Each terminal has one update at most."""
        counts = Counter(update["serial"] for update in self._updates())
        assert set(counts.values()) == {1}, counts.most_common(3)

    def nobody_should_have_been_updated_twice(self) -> None:
        """Each terminal has one update at most that was not taken back."""
        kept = [update for update in self._updates() if update["state"] != "cancelled"]
        counts = Counter(update["serial"] for update in kept)
        assert set(counts.values()) == {1}, counts.most_common(3)

    def history_should_be(self, *deeds: str) -> None:
        """What was done with it, and by whom."""
        said = [f"{deed['who']} {deed['what']}" for deed in self._show()["history"]]
        assert said == list(deeds), said

    def _show(self) -> dict[str, Any]:
        return look(lambda: self._people["bob"].rollout(self._rollout))

    def _members(self) -> list[dict[str, Any]]:
        return look(lambda: self._people["bob"].rollout_members(self._rollout))

    def _updates(self) -> list[dict[str, Any]]:
        return look(self._people["bob"].updates)

    def _under_way(self) -> list[dict[str, Any]]:
        return [update for update in self._updates() if not update["ended"]]

    def _states(self) -> dict[str, int]:
        """How many terminals are in each state that there is."""
        groups = self._show()["groups"]
        states = ("waiting", "asked", "ordered", "succeeded", "failed", "skipped", "forgiven")
        counts = {state: sum(group[state] for group in groups) for state in states}
        return {state: count for state, count in counts.items() if count}
