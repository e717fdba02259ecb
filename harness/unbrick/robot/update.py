"""Keywords: the server, updates over the air, the link and its faults, restoration."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from enum import Enum

from robot.api import logger

from unbrick.errors import ServerError, UpdateError
from unbrick.image.format import inspect
from unbrick.link.faults import Direction, FaultPlan, Faults
from unbrick.robot.base import Keywords, expect, keyword
from unbrick.robot.spoil import Spoiled, spoil
from unbrick.robot.uart import compile_pattern
from unbrick.server.core.difference import make_file
from unbrick.server.records.updates import Update, UpdateState
from unbrick.wire.messages import Kind, Result

UPDATE_TIME = timedelta(minutes=5)
REGISTERED = compile_pattern("link: registered", regex=False)


class Way(Enum):
    """Which way messages go: ``up`` is from the terminal to the server."""

    up = Direction.UP
    down = Direction.DOWN
    both = None


class UpdateKeywords(Keywords):
    """The server and what it does; the link; the restoration apparatus."""

    @keyword
    def wait_for_registration(self, timeout: timedelta = timedelta(minutes=2)) -> None:
        """Waits until the terminal says that it has registered with the server."""
        self._terminal.uart.wait(REGISTERED, timeout.total_seconds())

    @keyword
    def publish(self, version: str, spoiled: Spoiled = Spoiled.not_at_all) -> None:
        """Publishes a release on the server.

        ``spoiled`` publishes an image that must not run, and has the server believe that it is the
        release, so that the terminal has to see for itself.

        | `Publish` | 1.1.0 |                   |
        | `Publish` | 1.1.0 | spoiled=corrupted |
        """
        terminal = self._terminal
        image = self._spoilt(version, spoiled)
        if spoiled is not Spoiled.not_at_all:
            good = inspect(self._image(version))
            counter = 99 if spoiled is Spoiled.older_than_it_says else good.security_counter
            terminal.claims[image] = replace(good, size=len(image), security_counter=counter)
        terminal.system.server.publish(image, terminal.engine.now)

    def _spoilt(self, version: str, how: Spoiled) -> bytes:
        self._image(version)
        return spoil(self._releases, version, how)

    @keyword
    def send_differential_files(self) -> None:
        """From now on the server sends differential files where they help.

        It must know both images, also the installed one:

        | `Send Differential Files` |       |
        | `Publish`                 | 1.0.0 |
        | `Update Terminal`         | 1.1.0 |
        | ${bytes} =                | `Get Size Of Differential File` |
        """
        self._terminal.differ = make_file
        self._terminal.new_server()

    @keyword
    def get_size_of_differential_file(self) -> int:
        """Bytes of the differential file that the update sent; fails when it was a full image."""
        update = self._update()
        file = self._terminal.system.records.difference(update.from_digest, update.digest)
        if update.kind is not Kind.DIFFERENTIAL or file is None:
            raise UpdateError("the update did not send a differential file")
        return len(file)

    @keyword
    def update_should_have_sent_full_image(self) -> None:
        """The update sent the full image, for want of a differential file or after it failed."""
        expect(self._update().kind is Kind.FULL_IMAGE, "the update did not send the full image")

    @keyword
    def start_update(self, version: str, downgrade: bool = False) -> int:
        """Has the server update the terminal to a published release; returns the update's id.

        Software that is older than what the terminal runs needs ``downgrade=True``.
        """
        self._update_id = self._terminal.system.start_update(version, downgrade=downgrade)
        return self._update_id

    def _update(self) -> Update:
        if self._update_id is None:
            raise UpdateError("no update was started", hint="begin with `Start Update`")
        return self._terminal.system.update(self._update_id)

    @keyword
    def wait_for_update(
        self, state: UpdateState = UpdateState.SUCCEEDED, timeout: timedelta = UPDATE_TIME
    ) -> Update:
        """Waits until the server says that the update has ended, and how it should have.

        ``state`` is ``succeeded``, ``refused``, ``failed`` or ``cancelled``. Returns the server's
        record, with ``result`` and ``text``.
        """
        terminal, update = self._terminal, self._update()
        ended = terminal.system.wait_update(update.id, timeout.total_seconds())
        logger.info(f"update {ended.id} to {ended.version} {ended.state.value}: {ended.text}")
        if ended.state is not state:
            raise UpdateError(f"the update should be {state.value}, it {_in_words(ended)}")
        return ended

    @keyword
    def update_terminal(
        self,
        version: str,
        timeout: timedelta = UPDATE_TIME,
        downgrade: bool = False,
    ) -> None:
        """Publishes a release, updates the terminal to it, and waits until that has succeeded.

        Software that is older than what the terminal runs needs ``downgrade=True``.
        """
        self.publish(version)
        self.start_update(version, downgrade)
        self.wait_for_update(timeout=timeout)

    @keyword
    def update_should_be(self, *states: UpdateState) -> None:
        """The server's word on the update, now, is one of ``states``."""
        update = self._update()
        wanted = " or ".join(state.value for state in states)
        expect(update.state in states, f"the update should be {wanted}, it {_in_words(update)}")

    @keyword
    def update_should_have_ended_with(self, *results: Result) -> None:
        """Why the update ended, as `docs/protocol.md` names the results.

        | `Update Should Have Ended With` | SIGNATURE_WRONG |
        """
        update = self._update()
        wanted = " or ".join(result.text for result in results)
        expect(update.result in results, f"the result should be: {wanted}; it {_in_words(update)}")

    @keyword
    def server_should_know_that_terminal_runs(
        self, version: str, timeout: timedelta = timedelta(minutes=3)
    ) -> None:
        """Waits until that release is what the terminal has registered last."""
        terminal = self._terminal
        digest = inspect(self._image(version)).digest

        def known() -> bool:
            record = terminal.system.records.terminal(terminal.system.serial)
            return record is not None and record.digest == digest

        if not terminal.bench.run_until(known, timeout.total_seconds()):
            raise ServerError(f"the server does not know that {version} runs")

    @keyword
    def send_text_message(self, text: str) -> None:
        """The server sends a text of at most 160 bytes to the terminal's user."""
        system = self._terminal.system
        system.server.send_text(system.serial, text, system.engine.now)

    @keyword
    def stop_server(self) -> None:
        """The server dies: nobody answers any more, and what is in the air is lost."""
        self._terminal.system.link.server_dies()

    @keyword
    def start_server(self) -> None:
        """A server is there again, made from the records of the one that died."""
        self._terminal.new_server()

    @keyword
    def nothing_should_be_transferred(self) -> None:
        """The terminal has not asked for any block of an update file."""
        blocks = self._terminal.system.link.fetched
        expect(not blocks, f"the terminal has asked for {len(blocks)} blocks")

    @keyword
    def wait_for_transfer(self, timeout: timedelta = timedelta(minutes=2)) -> None:
        """Waits until the terminal asks for the first block of an update file.

        What it has said before is on the UART then:

        | `Start Update`          | 1.1.0 |
        | `Wait For Transfer`     |
        | `Wait For Line On Uart` | update: secured | timeout=0 s |
        """
        link = self._terminal.system.link
        if not self._terminal.bench.run_until(lambda: bool(link.fetched), timeout.total_seconds()):
            raise UpdateError("the terminal has not asked for the update file")

    @keyword
    def get_transferred_blocks(self) -> list[int]:
        """The numbers of the update file's blocks that were asked for, with repetitions."""
        return self._terminal.system.link.fetched_blocks(self._update().id)

    @keyword
    def make_link_bad(
        self,
        *,
        drop: float = 0.0,
        duplicate: float = 0.0,
        reorder: float = 0.0,
        corrupt: float = 0.0,
        truncate: float = 0.0,
        garble: float = 0.0,
        noise: float = 0.0,
        delay: timedelta = timedelta(0),
        way: Way = Way.both,
        seed: int | None = None,
    ) -> None:
        """From now on the wireless link fails, always in the same way for the same seed.

        Probabilities are from 0 to 1, for each message (``noise``: for each byte):

        | = fault =   | = what becomes of a message =                              |
        | drop        | lost                                                       |
        | duplicate   | arrives twice                                              |
        | reorder     | held back, so that later ones overtake it                  |
        | corrupt     | a bit flips; the checksum of the frame finds it            |
        | truncate    | ends early; the checksum of the frame finds it             |
        | garble      | a byte changes where no checksum of the frame protects it  |
        | noise       | a byte of the stream is replaced                           |
        | delay       | up to so late, as a time                                   |

        | `Make Link Bad` | drop=0.1 | delay=300 ms | seed=7 |
        """
        plan = FaultPlan(
            drop=drop,
            duplicate=duplicate,
            reorder=reorder,
            corrupt=corrupt,
            truncate=truncate,
            garble=garble,
            noise=noise,
            delay=delay.total_seconds(),
            only=way.value,
        )
        self._terminal.system.link.faults = Faults(plan, self._seed if seed is None else seed)

    @keyword
    def make_link_good(self) -> None:
        """The link has no faults any more."""
        self._terminal.system.link.faults = Faults()

    @keyword
    def cut_link(self, time: timedelta) -> None:
        """For a while nothing gets through, either way."""
        link = self._terminal.system.link
        link.cut_off(self._terminal.engine.now + time.total_seconds())

    @keyword
    def link_should_have_failed(self) -> None:
        """A fault has struck at least once: else a test of a bad link shows nothing."""
        counts = self._terminal.system.link.faults.counts
        logger.info(", ".join(f"{name}: {count}" for name, count in sorted(counts.items())))
        expect(counts.total() > 0, "no fault of the link has struck")

    @keyword
    def wait_for_restoration_state(
        self, reason: str = "", timeout: timedelta = timedelta(minutes=2)
    ) -> None:
        """Waits until the terminal asks to be restored over the wire, because of ``reason``."""
        uart = self._terminal.uart
        said = uart.wait(compile_pattern(r"restoration: (.*)", regex=True), timeout.total_seconds())
        expect(reason in said.Line, f"the reason should be {reason!r}: {said.Line}")
        wish = compile_pattern("restoration: send the signed image", regex=False)
        uart.wait(wish, timeout.total_seconds())

    @keyword
    def restore_terminal(
        self,
        version: str,
        timeout: timedelta = UPDATE_TIME,
        spoiled: Spoiled = Spoiled.not_at_all,
    ) -> str:
        """Connects the restoration apparatus to the wire, and has it restore the terminal.

        Returns what the restored application says when it starts. An image that the terminal
        refuses fails the keyword, with the terminal's reason.
        """
        image = self._spoilt(version, spoiled)
        terminal = self._terminal
        apparatus = terminal.system.restore(image, timeout.total_seconds())
        return apparatus.running


def _in_words(update: Update) -> str:
    result = "" if update.result is None else f" with: {update.result.text}"
    return f"is {update.state.value}{result} ({update.text or 'no more is said'})"
