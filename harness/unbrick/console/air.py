"""The air of a terminal at the console: the server's core and the link to it, in this process."""

from __future__ import annotations

from typing import TYPE_CHECKING

from unbrick.errors import UnbrickError
from unbrick.image.factory import read_identity
from unbrick.image.format import inspect
from unbrick.link.guarded import guard_bench
from unbrick.link.simulated import SimulatedLink
from unbrick.server.core.core import ServerCore
from unbrick.server.core.guard import LinkGuard
from unbrick.server.records.memory import MemoryRecords

if TYPE_CHECKING:
    from collections.abc import Callable

    from unbrick.engine.base import Engine
    from unbrick.firmware.signed import Releases

FOREVER = float("inf")


def _find_guard(engine: Engine, server: ServerCore) -> LinkGuard:
    """What protects a terminal's messages. Without a key that can be read it may speak plainly."""
    try:
        identity = read_identity(engine.read_nor())
    except UnbrickError:
        return LinkGuard(server, insecure=True)
    if not identity.key:
        return LinkGuard(server, insecure=True)
    return guard_bench(server, identity.serial, identity.key)


class Air:
    """A server that knows the releases, and a link that can be taken down; a peer of the bench.

    Args:
        engine: runs the terminal.
        releases: those that can be published.
        say: called with a line for a person when something has happened.

    Attributes:
        up: whether the link carries anything.
    """

    def __init__(self, engine: Engine, releases: Releases, say: Callable[[str], None]) -> None:
        self._engine, self._releases, self._say = engine, releases, say
        self._server = ServerCore(MemoryRecords(), inspect)
        self._link = SimulatedLink(engine.radio, _find_guard(engine, self._server))
        self._watched: set[int] = set()
        self.up = True

    def step(self, now: float) -> float | None:
        """Carry what is due at ``now``, in seconds; returns the time of the next deadline."""
        deadline = self._link.step(now)
        for number in sorted(self._watched):
            update = self._server.records.update(number)
            if update is not None and update.state.ended:
                self._watched.remove(number)
                text = f", {update.text}" if update.text else ""
                self._say(f"server: update {number} {update.state.value}{text}")
        return deadline

    def set_up(self, *, up: bool) -> None:
        """Let the link carry everything, or nothing."""
        self._link.cut_off(0.0 if up else FOREVER)
        self.up = up

    def update(self, version: str, *, downgrade: bool = False) -> int:
        """Publish a release, and have the terminal updated to it; returns the update's id.

        Args:
            version: of the release.
            downgrade: also if that is older than what the terminal runs.

        Raises:
            SetupError: there is no such release.
            ServerError: the server refuses.
            ImageError: the NOR has no identity.
            NotKnownHereError: the terminal has not registered, and its NOR cannot be read.
        """
        image = self._releases.signed[version]
        now = self._engine.now
        self._server.publish(image, now)
        update = self._server.start_update(self._serial(), version, now, downgrade=downgrade)
        self._watched.add(update.id)
        return update.id

    def send_text(self, text: str) -> None:
        """Send a text message to the terminal's user.

        Raises:
            ServerError: the terminal has never registered.
            LinkError: the text is too long or not printable.
            ImageError: the NOR has no identity.
        """
        self._server.send_text(self._serial(), text, self._engine.now)

    def _serial(self) -> str:
        """The serial as the terminal has said it, or as it stands in the NOR."""
        if self._link.registrations:
            return self._link.registrations[-1].serial
        return read_identity(self._engine.read_nor()).serial
