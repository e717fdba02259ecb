"""The reference system in one process: a terminal, the wireless link and the server's core.

On the in-process engine everything runs in virtual time and is deterministic; on other engines the
same objects run by the clock.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from unbrick.bench.bench import Bench
from unbrick.bench.tap import Tap
from unbrick.errors import NotKnownHereError, RestoreError, UpdateError
from unbrick.image.factory import derive_bench_key, make_factory_image
from unbrick.image.format import inspect
from unbrick.link.guarded import guard_bench
from unbrick.link.simulated import SimulatedLink
from unbrick.restore.apparatus import Apparatus
from unbrick.server.core.analysis import Analyst, AtOnce
from unbrick.server.core.core import ServerCore
from unbrick.server.records.memory import MemoryRecords
from unbrick.server.records.updates import UpdateState

if TYPE_CHECKING:
    from collections.abc import Callable

    from unbrick.bench.console import Console
    from unbrick.engine.base import Engine
    from unbrick.firmware.signed import Releases
    from unbrick.image.format import ImageInfo
    from unbrick.link.faults import Faults
    from unbrick.server.records.contract import Records
    from unbrick.server.records.updates import Update

PROMPT = "\r\n> "
RESTORATION = "restoration: send the signed image by YMODEM"


class System:
    """A terminal fresh from the factory, with a server that it can reach over the link.

    Args:
        engine: powered off; its NOR is replaced. Where that cannot be done, on a real board, the
            terminal must be already what is wanted.
        releases: the built and signed software.
        installed: version that the factory installs; ``None``: only boot and identity.
        serial: the terminal's serial number.
        faults: of the wireless link; none by default.
        seed: of everything random on the server's side.
        records: the server's store; in memory by default.
        inspect: what the server knows of an image it publishes.
        differ: makes differential files (``difference.make_file``); by default the server sends
            full images.
        analyst: keeps the history of terminals, and has files prepared before they are asked for;
            by default they are prepared when they are.

    Raises:
        NotKnownHereError: the terminal is not what is wanted, and the engine cannot make it so.
    """

    def __init__(
        self,
        engine: Engine,
        releases: Releases,
        *,
        installed: str | None = "1.0.0",
        serial: str = "UB-000001",
        faults: Faults | None = None,
        seed: int = 0,
        records: Records | None = None,
        inspect: Callable[[bytes], ImageInfo] = inspect,
        differ: Callable[[bytes, bytes], bytes] | None = None,
        analyst: Analyst | None = None,
    ) -> None:
        self.engine, self.releases, self.serial = engine, releases, serial
        self.bench = Bench(engine)
        application = None if installed is None else releases.signed[installed]
        try:
            key = derive_bench_key(serial)
            engine.load_nor(make_factory_image(releases.boot, application, serial, key=key))
        except NotKnownHereError as error:
            self._must_be(installed, error)
        self.records = records or MemoryRecords()
        self.server = ServerCore(self.records, inspect, analyst or AtOnce(self.records, differ))
        guard = guard_bench(self.server, serial)
        self.link = SimulatedLink(engine.radio, guard, faults=faults, seed=seed)
        self.bench.peers.append(self.link)

    def _must_be(self, installed: str | None, why: NotKnownHereError) -> None:
        """Start the terminal as it is, and see that it is what a test begins with."""
        if installed is None:
            raise why
        self.power_on()
        runs, who = self.console.command("version"), self.console.command("id")
        self.bench.cut_power()
        self.engine.radio.read()
        if f" {installed}+" not in runs or self.serial not in who.split():
            raise NotKnownHereError(
                f"the board must be {self.serial} and run {installed}, but it runs "
                f"{runs.split(',')[0]}, and {why}",
                hint=why.hint,
            )

    @property
    def console(self) -> Console:
        """The terminal's console."""
        return self.bench.console

    def server_returns(self, server: ServerCore) -> None:
        """Have a server that is made anew from the records of the old one take its place."""
        self.server = server
        self.link.server_returns(guard_bench(server, self.serial))

    def power_on(self) -> None:
        """Give the terminal power and wait for its prompt."""
        self.engine.power_on()
        self.console.expect(PROMPT)

    def restart(self) -> None:
        """Cut the power, give it back, and wait for the prompt."""
        self.bench.restart()
        self.console.expect(PROMPT)

    def wait_registered(self) -> None:
        """Wait until the terminal has registered with the server."""
        self.console.expect("link: registered")

    def publish(self, version: str) -> None:
        """Publish one of the releases on the server."""
        self.server.publish(self.releases.signed[version], self.engine.now)

    def start_update(self, version: str, *, downgrade: bool = False) -> int:
        """Tell the server to update the terminal; returns the update's id.

        Args:
            version: of a published release.
            downgrade: also if that is older than what the terminal runs.
        """
        now = self.engine.now
        return self.server.start_update(self.serial, version, now, downgrade=downgrade).id

    def start_commanded_update(self, version: str, *, downgrade: bool = False) -> int:
        """Tell the server to command the terminal to a release; returns the update's id.

        Args:
            version: of a published release.
            downgrade: also if that is older than what the terminal runs.
        """
        now = self.engine.now
        return self.server.start_update(
            self.serial, version, now, commanded=True, downgrade=downgrade
        ).id

    def update(self, update_id: int) -> Update:
        """The server's record of an update.

        Raises:
            UpdateError: there is none.
        """
        found = self.records.update(update_id)
        if found is None:
            raise UpdateError(f"the server knows no update {update_id}")
        return found

    def wait_update(self, update_id: int, timeout: float = 300.0) -> Update:
        """Wait until the server says that an update has ended, well or not.

        Raises:
            UpdateError: it did not end within ``timeout`` seconds of the engine's time.
        """
        if not self.bench.run_until(lambda: self.update(update_id).state.ended, timeout):
            state = self.update(update_id).state
            raise UpdateError(
                f"update {update_id} is still {state.value} after {timeout:g} s; "
                f"the terminal's last words:\n{self.console.text[-1000:]}"
            )
        return self.update(update_id)

    def update_to(self, version: str, *, downgrade: bool = False) -> Update:
        """Publish a release, update the terminal to it and wait for the end.

        Args:
            version: of the release.
            downgrade: also if that is older than what the terminal runs.

        Raises:
            UpdateError: the update did not succeed.
        """
        self.publish(version)
        update = self.wait_update(self.start_update(version, downgrade=downgrade))
        if update.state is not UpdateState.SUCCEEDED:
            raise UpdateError(f"the update ended as {update.state.value}: {update.text}")
        return update

    def restore(self, image: bytes, timeout: float = 300.0) -> Apparatus:
        """Connect the restoration apparatus to the wire and let it restore the terminal.

        Raises:
            RestoreError: it was not finished in time; the apparatus's own error if it failed.
        """
        tap = Tap(self.console)
        apparatus = Apparatus(tap, image, inspect(image))
        self.bench.peers.append(apparatus)
        try:
            if not self.bench.run_until(lambda: apparatus.finished, timeout):
                raise RestoreError(
                    f"the restoration was not finished within {timeout:g} s; "
                    f"the terminal's last words:\n{self.console.text[-1000:]}"
                )
        finally:
            self.bench.peers.remove(apparatus)
            tap.close()
        if apparatus.error is not None:
            raise apparatus.error
        return apparatus
