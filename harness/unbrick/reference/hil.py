"""``make hil-test``: the whole system once, with its real parts.

The server and the bridge are processes of their own on loopback. The terminal is the real ARM
binary on an engine; its modem is a TCP port and its wire a pseudo-terminal. The restoration
apparatus is the command that a person would type. Every step checks what it says.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from unbrick.bench.bench import Bench
from unbrick.bench.process import Process
from unbrick.bench.tap import Tap
from unbrick.engine.create import create_engine
from unbrick.engine.ports import PtyPort, TcpPort
from unbrick.errors import ExpectError, NotKnownHereError, ServerError, UnbrickError
from unbrick.image.enrolment import Enrolment
from unbrick.image.factory import derive_bench_key, derive_link_key, make_factory_image
from unbrick.image.format import inspect
from unbrick.image.hexfile import to_hex
from unbrick.layout import reference_layout
from unbrick.patience import START_TIMEOUT_S
from unbrick.server.database import SqlRecords
from unbrick.server.edge.client import ServerClient
from unbrick.server.records.analysis import PreparationState, RangeKind
from unbrick.server.records.people import OF_BACKUPS
from unbrick.server.records.sessions import StepState
from unbrick.wire.messages import Result

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from unbrick.firmware.signed import Releases

SERIAL = "UB-000001"
SPEED = 4.0  # of the line and of virtual time, so that a person need not wait
WAIT_S = START_TIMEOUT_S * SPEED
"""Seconds of the engine until something must have come about: server and bridge are programs of
their own, and the machine may be busy."""

INTO_ERASE_S = 0.1  # after the agent's word, when its first erase is under way
CALL_AGAIN_S = 2.0  # after which a user calls again
CUTS = 20  # attempts to cut the power at the right time: a loaded machine misses it often
SERVER_DATABASE, CENTER_DATABASE = "server.sqlite", "center.sqlite"
RELEASES = ("1.0.0", "1.1.0", "1.2.0", "1.3.0")
ENDED = ("succeeded", "failed", "refused", "cancelled")


@dataclass
class Step:
    """One step of the test, as the table shows it."""

    name: str
    detail: str = ""
    passed: bool | None = None
    seconds: float = 0.0


class HilTest:
    """The steps, in order; :meth:`run` yields each as it begins and as it ends.

    Args:
        releases: the built firmware.
        engine: what runs the terminal.
        folder: where logs, database and images go.
        echo: called with everything the terminal says.
        enrolments: of terminals that were not made here, such as a board that is taken as it is.

    Raises:
        SetupError: the firmware lacks a release that the test needs.
    """

    def __init__(
        self,
        releases: Releases,
        engine: str,
        folder: Path,
        echo: Callable[[bytes], None] | None = None,
        enrolments: Sequence[Enrolment] = (),
    ) -> None:
        releases.require(RELEASES, "the HIL test")
        self._releases, self._folder = releases, folder
        for name in (SERVER_DATABASE, CENTER_DATABASE):  # of an earlier run
            for old in filter(Path.is_file, folder.glob(f"{name}*")):
                old.unlink()
        self._stack = ExitStack()
        self._engine = create_engine(
            engine, releases.elf_files, speed=SPEED, board=reference_layout().board
        )
        self._stack.callback(self._engine.close)
        self._bench = Bench(self._engine)
        self._console = self._bench.console
        if echo:
            self._console.listeners.append(echo)
        rate = self._engine.board.line_rate * (1 if engine != "qemu" else SPEED)
        self._modem = TcpPort(self._engine.radio, rate=rate)
        self._wire = PtyPort(Tap(self._console), rate=rate)
        for port in (self._modem, self._wire):
            self._stack.callback(port.close)
            self._bench.peers.append(port)
        self._api = ""
        self._coap = ""
        self._reason = ""
        self._serial = SERIAL
        self._enrolments = enrolments

    @property
    def console_text(self) -> str:
        """The transcript of the terminal's wire."""
        return self._console.text

    def run(self) -> Iterator[Step]:
        """Carry out the steps; stops after the first that fails."""
        steps: tuple[tuple[str, Callable[[], str]], ...] = (
            ("the terminal boots from NOR", self._boot),
            ("server and bridge start", self._start_server),
            ("the terminal registers over the wireless link", self._register),
            ("the user adds a phonebook entry", self._phonebook),
            ("1.0.0 is updated to 1.1.0 over the air", self._update),
            ("the phonebook is still there", self._phonebook_kept),
            ("power is cut in the middle of a rewrite", self._cut),
            ("the terminal asks to be restored", self._restoration_state),
            ("the apparatus restores it over the wire", self._restore),
            ("the user's data has survived it all", self._phonebook_kept),
            ("the server knows what runs", self._server_knows),
            ("an upgrade to 1.3.0 is prepared before anybody asks", self._prepared),
            ("the user is told by text message", self._told),
            ("the user calls the customer center and presses 1", self._call),
            ("1.1.0 is upgraded to 1.3.0 by commands, step by step", self._commanded),
            ("the phonebook has survived that, too", self._phonebook_kept),
            ("nothing personal is left in the database", self._nothing_left),
        )
        with self._stack:
            for name, action in steps:
                step = Step(name)
                yield step
                start = time.monotonic()
                try:
                    step.detail = action()
                    step.passed = True
                except UnbrickError as error:
                    step.detail, step.passed = str(error), False
                step.seconds = time.monotonic() - start
                yield step
                if not step.passed:
                    return

    def _boot(self) -> str:
        image = self._releases.signed["1.0.0"]
        as_found = ""
        try:
            nor = make_factory_image(
                self._releases.boot, image, SERIAL, key=derive_bench_key(SERIAL)
            )
            self._engine.load_nor(nor)
        except NotKnownHereError:
            as_found = ", as it was found"
        self._engine.power_on()
        banner = self._expect_or_restoration(r"terminal: .*(?=\r)", 30) + as_found
        if " 1.0.0," not in banner:
            raise ExpectError(f"the test begins with release 1.0.0, but this is {banner}")
        self._console.expect("\r\n> ")
        return banner

    def _expect_or_restoration(self, pattern: str, timeout: float) -> str:
        """What matched ``pattern``; a terminal that asks to be restored need not be waited for.

        Raises:
            ExpectError: it did not come, or the terminal is in the restoration state.
        """
        said = self._console.expect_pattern(rf"{pattern}|restoration: .*(?=\r)", timeout).group()
        if said.startswith("restoration: "):
            raise ExpectError(f"the terminal is in the restoration state: {said[13:]}")
        return said

    def _start_server(self) -> str:
        server = Process(
            self._folder / "server.log",
            *("server", "start", "--coap-port", "0", "--http-port", "0"),
            *("--database", str(self._folder / SERVER_DATABASE)),
        )
        self._stack.callback(server.stop)
        self._coap = server.wait_for(r"coap://(\S+?:\d+)").group(1)
        self._api = server.wait_for(r"http://\S+?:\d+").group()
        self._server = ServerClient(self._api)
        self._stack.callback(self._server.close)
        made = Enrolment(SERIAL, derive_link_key(derive_bench_key(SERIAL)))
        for enrolment in (made, *self._enrolments):
            self._server.approve(enrolment.serial, enrolment.link_key)
        self._records = SqlRecords(str(self._folder / SERVER_DATABASE))
        self._stack.callback(self._records.close)
        self._start_bridge()
        return f"CoAP on {self._coap}, bridge to the modem at {self._modem.address}"

    def _start_bridge(self) -> None:
        self._bridge = Process(
            self._folder / "bridge.log",
            *("bridge", "--modem", f"tcp:{self._modem.address}", "--server", self._coap),
        )
        self._stack.callback(self._bridge.stop)
        self._bridge.wait_for("bridge: ready")

    def _register(self) -> str:
        self._console.expect("link: registered", WAIT_S)
        (terminal,) = self._server.terminals()
        self._serial = terminal["serial"]
        return f"{self._serial} runs {terminal['version']}"

    def _phonebook(self) -> str:
        self._console.command("pb add Alice +441632960123")
        return self._phonebook_kept()

    def _phonebook_kept(self) -> str:
        listing = self._console.command("pb list")
        if "Alice" not in listing or "+441632960123" not in listing:
            raise ExpectError(f"the phonebook has lost Alice: {listing!r}")
        return "Alice +441632960123"

    def _publish(self, version: str) -> None:
        self._server.publish(self._releases.signed[version])

    def _start_update(self, version: str) -> int:
        return int(self._server.start(self._serial, version)["id"])

    def _update(self) -> str:
        self._publish("1.1.0")
        update = self._start_update("1.1.0")
        self._expect_or_restoration("confirmed", WAIT_S)
        state = self._await_end(update)
        if state != "succeeded":
            raise ServerError(f"the server says that the update {state}")
        version = self._console.command("version")
        if "1.1.0" not in version:
            raise ExpectError(f"the terminal does not run 1.1.0: {version!r}")
        return f"update {update} {state}, {len(self._releases.signed['1.1.0'])} bytes"

    def _await_end(self, update: int) -> str:
        """Wait until the server says that an update has ended; returns its state."""

        def state() -> str:
            return str(self._server.update(update)["state"])

        self._bench.run_until(lambda: state() in ENDED, WAIT_S)
        return state()

    def _cut(self) -> str:
        """Cut the power after the first erase.

        Where the NOR works at once, that is a race. Too early, the old software starts, and the
        server announces the update again. Too late, the new software fails its trial (it is broken
        on purpose), and the old one is restored first. The wireless link goes with the power:
        otherwise the terminal would restore itself.
        """
        self._publish("1.2.0")
        update = self._start_update("1.2.0")
        for attempt in range(1, CUTS + 1):
            changes = self._application_changes()
            self._console.expect("update: checked", WAIT_S)
            self._bench.run_until(changes, 60)
            self._bench.cut_power()
            self._bridge.stop()
            self._engine.power_on()
            match = self._console.expect_pattern(r"restoration: (.*)\r|terminal: .*1\.1\.0", WAIT_S)
            self._reason = match.group(1) or ""
            if "interrupted" in self._reason:
                return f"at the {attempt}. attempt" if attempt > 1 else "after the first erase"
            if self._reason:
                self._restore()
            self._start_bridge()
            if self._reason:
                self._await_end(update)
                update = self._start_update("1.2.0")
        raise ExpectError(f"the power was never cut in time, in {CUTS} attempts")

    def _application_changes(self) -> Callable[[], bool]:
        try:
            before = self._application()
        except NotKnownHereError:
            return self._first_erase()
        return lambda: self._application() != before

    def _first_erase(self) -> Callable[[], bool]:
        """Whether the agent has been at it for a moment; for a NOR that cannot be looked at."""
        begun: list[float] = []

        def erases() -> bool:
            if not begun and "agent: rewriting 1 of" in self._console.unread:
                begun.append(self._engine.now)
            return bool(begun) and self._engine.now >= begun[0] + INTO_ERASE_S

        return erases

    def _application(self) -> bytes:
        part = reference_layout().partition("application")
        return self._engine.read_nor()[part.offset : part.end]

    def _restoration_state(self) -> str:
        self._console.expect("send the signed image by YMODEM", 60)
        return self._reason

    def _restore(self) -> str:
        image = self._folder / "terminal-1.1.0.hex"
        image.write_text(to_hex(self._releases.signed["1.1.0"]))
        record = self._folder / "restorations.jsonl"
        words = ("restore", self._wire.path, str(image), "--record", str(record))
        apparatus = Process(self._folder / "restore.log", *words)
        self._stack.callback(apparatus.stop)
        if not self._bench.run_until(lambda: apparatus.popen.poll() is not None, WAIT_S):
            raise ExpectError("the apparatus did not come to an end")
        if apparatus.popen.returncode:
            raise ExpectError(f"the apparatus failed: {apparatus.output.strip()}")
        self._bench.run_until(lambda: self._console.unread.endswith("> "), 10)
        self._console.type("")
        self._console.expect("\r\n> ")
        return apparatus.output.strip().splitlines()[-1]

    def _server_knows(self) -> str:
        self._start_bridge()

        def known() -> bool:
            (terminal,) = self._server.terminals()
            restored = terminal["last_result"] == Result.RESTORED
            return bool(restored and terminal["version"].startswith("1.1.0"))

        if not self._bench.run_until(known, WAIT_S):
            raise ServerError("the server does not know that 1.1.0 runs again")
        return f"{self._serial} runs 1.1.0"

    def _prepared(self) -> str:
        self._publish("1.3.0")
        self._start_center()
        terminal = self._records.terminal(self._serial)
        pair = terminal.digest if terminal else b"", inspect(self._releases.signed["1.3.0"]).digest

        def ready() -> bool:
            prepared = self._records.preparation(*pair)
            return prepared is not None and prepared.state is PreparationState.READY

        if not self._bench.run_until(ready, WAIT_S):
            raise ServerError("the server has not prepared an upgrade to 1.3.0")
        erases, writes = (
            sum(item.length for item in self._records.ranges(*pair, kind))
            for kind in (RangeKind.ERASE, RangeKind.WRITE)
        )
        found = self._records.analysis(self._serial)
        return f"{found.reason if found else ''}: {erases} bytes to erase, {writes} to write"

    def _start_center(self) -> None:
        center = Process(
            self._folder / "center.log",
            *("center", "start", "--port", "0", "--server-url", self._api),
            *("--database", str(self._folder / SERVER_DATABASE)),
            *("--accounts", str(self._folder / CENTER_DATABASE)),
        )
        self._stack.callback(center.stop)
        center.wait_for("center: ready")

    def _told(self) -> str:
        return self._console.expect_pattern(r"message: Version 1\.3\.0.*(?=\r)", WAIT_S).group()

    def _call(self) -> str:
        """Call, as often as it takes: a center may be busy when it has just begun."""
        attempt, deadline = 1, self._engine.now + WAIT_S
        self._console.type("call")
        while (
            "nobody"
            in self._console.expect_pattern("Press 1 to upgrade|nobody takes calls", WAIT_S).group()
        ):
            if self._engine.now > deadline:
                raise ServerError("the center takes no calls")
            self._bench.run_for(CALL_AGAIN_S)
            attempt += 1
            self._console.type("call")
        self._console.type("1")
        self._console.expect("begins when this call has ended", WAIT_S)
        self._console.type("hang up")
        return f"call, 1, hang up{f', at the {attempt}. attempt' if attempt > 1 else ''}"

    def _commanded(self) -> str:
        self._expect_or_restoration("resident: commanded update", WAIT_S)
        self._expect_or_restoration(r"1\.3\.0 confirmed", WAIT_S)
        (session,) = self._records.sessions(self._serial)

        def ended() -> bool:
            (now,) = self._records.sessions(self._serial)
            return now.state.ended

        if not self._bench.run_until(ended, WAIT_S):
            raise ServerError("the server has not come to the end of the commanded update")
        state = self._await_end(session.update_id)
        if state != "succeeded":
            raise ServerError(f"the server says that the update {state}")
        steps = self._records.steps(session.id)
        not_done = [step for step in steps if step.state is not StepState.DONE]
        if not_done:
            raise ServerError(f"step {not_done[0].number} is {not_done[0].state.value}")
        return f"update {session.update_id} {state}, {len(steps)} steps"

    def _nothing_left(self) -> str:
        left = self._records.backups(self._serial)
        if left:
            raise ServerError(f"{len(left)} backups of the user's data are left")
        told = (entry.action for entry in self._records.audit(serial=self._serial))
        return ", ".join(action.value for action in told if action in OF_BACKUPS)
