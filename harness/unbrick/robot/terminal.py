"""Keywords: the terminal and its power, and what its user does at the console."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path

from robot.api import logger

from unbrick.engine.create import create_engine
from unbrick.errors import EngineError, ExpectError, NotKnownHereError
from unbrick.layout import reference_layout
from unbrick.robot.base import Keywords, expect, keyword, read_variable
from unbrick.robot.device import TargetDevice
from unbrick.robot.reference import Reference
from unbrick.robot.uart import compile_pattern

NOTHING = "nothing"
PROMPT = compile_pattern(r"^> $", regex=True)
ASKS = re.compile(r"^C*restoration: send the signed image")


class TerminalKeywords(Keywords):
    """Start, power, time, and the console's commands."""

    @keyword
    def start_terminal(self, installed: str = "1.0.0", serial: str = "UB-000001") -> None:
        """Takes a terminal fresh from the factory, with a server and a link without faults.

        ``installed`` is the release in its NOR, or ``nothing``: then there are only boot and
        identity, and the terminal asks to be restored. The power is given, and the terminal
        awaited: its prompt, or its wish to be restored. Everything that it says is still there to
        be waited for.

        A terminal that was started before is switched off and given back.

        | `Start Terminal`       |                   |
        | `Wait For Registration` |                  |
        | `Start Terminal`       | installed=nothing |
        | `Restore Terminal`     | 1.1.0             |
        """
        self._close()
        if installed != NOTHING:
            self._image(installed)
        board = read_variable("BOARD")
        engine = create_engine(
            self._wanted_engine(),
            self._releases.elf_files,
            board=reference_layout().board,
            board_file=None if board is None else Path(board),
        )
        self._device_or_none = Reference(
            engine,
            self._releases,
            installed=None if installed == NOTHING else installed,
            serial=serial,
            seed=self._seed,
        )
        self._update_id = None
        logger.info(f"{serial} on the engine {engine.name}, installed: {installed}")
        self._power_on(wait=True)

    @keyword
    def stop_terminal(self) -> None:
        """Switches the terminal, or the device of a target file, off and gives it back.

        The end of the suite does so, too.
        """
        self._close()

    @keyword
    def power_on(self, wait: bool = True) -> None:
        """Gives the terminal power, and waits until it has its prompt or asks to be restored.

        The device of a target file is not waited for.
        """
        if isinstance(self._device, TargetDevice):
            self._device.power_on()
        else:
            self._power_on(wait=wait)

    def _power_on(self, *, wait: bool) -> None:
        terminal = self._terminal
        terminal.power_on()

        def up() -> bool:
            return bool(terminal.uart.find(PROMPT, unfinished=True) or terminal.uart.find(ASKS))

        if wait and not terminal.bench.run_until(up, self._seconds(None)):
            said = terminal.uart.last_words()
            raise ExpectError(f"the terminal does not start; its last words were:\n{said}")

    @keyword
    def cut_power(self) -> None:
        """Cuts the power: CPU and SRAM forget everything, the NOR's cells stay as they are.

        What the terminal said before is not looked for any more.
        """
        self._device.cut_power()

    @keyword
    def restart_terminal(self) -> None:
        """Cuts the power and gives it back."""
        self._terminal.cut_power()
        self._power_on(wait=True)

    @keyword
    def cut_power_at_flash_operation(
        self, number: int, timeout: timedelta = timedelta(minutes=5)
    ) -> None:
        """Lets everything run, and cuts the power just before a flash operation.

        ``number`` counts from now: 1 is the next operation (an erase of a block, or a program of up
        to 2 KiB). The test fails when it does not come within ``timeout``, and is skipped on
        engines that cannot stop there.

        | `Start Update`                 | 1.1.0 |
        | `Cut Power At Flash Operation` | 5     |
        | `Power On`                     |       |
        """
        expect(number >= 1, "flash operations are counted from 1, the next one")
        terminal = self._terminal
        engine = terminal.engine.flash_trace
        if engine is None:
            raise NotKnownHereError(
                f"the engine {terminal.engine.name} cannot cut the power at a flash operation",
                hint="--variable ENGINE:inprocess can",
            )
        engine.cut_before_op(engine.op_count + number - 1)
        try:
            if not terminal.bench.run_until(lambda: engine.cut_reached, timeout.total_seconds()):
                raise EngineError(
                    f"flash operation {number} did not come within {timeout.total_seconds():g} s"
                )
            terminal.cut_power()
        finally:
            engine.cut_before_op(None)

    @keyword
    def run_for(self, time: timedelta) -> None:
        """Lets terminal, link and server run for a while, of the engine's time."""
        self._device.bench.run_for(time.total_seconds())

    @keyword
    def type_command(self, command: str, timeout: timedelta | None = None) -> str:
        """Types a command at the terminal's prompt and returns its answer, without the prompt.

        | ${answer} =      | `Type Command` | version |
        | `Should Contain` | ${answer}      | 1.1.0   |
        """
        return self._command(command, self._seconds(timeout))

    def _command(self, command: str, timeout: float = 30.0) -> str:
        terminal = self._terminal
        terminal.system.console.type(command)
        terminal.uart.wait_for_echo(command, timeout)
        start = terminal.uart.cursor
        terminal.uart.wait(PROMPT, timeout, unfinished=True)
        answer = terminal.uart.text[start : terminal.uart.cursor]
        logger.info(answer.removesuffix("> ").rstrip())
        return answer.removesuffix("> ").rstrip().replace("\r\n", "\n")

    @keyword
    def terminal_should_run(self, version: str) -> None:
        """Asks the terminal which release it runs."""
        answer = self._command("version")
        expect(f" {version}+" in answer, f"the terminal does not run {version}, but:\n{answer}")

    @keyword
    def add_phonebook_entry(self, name: str, number: str) -> None:
        """The user saves a name, without blanks, and a number."""
        answer = self._command(f"pb add {name} {number}")
        expect(answer.startswith("added"), f"{name} was not saved: {answer}")
        self._terminal.entries.append((name, number))

    @keyword
    def phonebook_should_contain(self, *names: str) -> None:
        """Every one of ``names`` (or numbers) is in the phonebook."""
        self._phonebook(names, there=True)

    @keyword
    def phonebook_should_not_contain(self, *names: str) -> None:
        """None of ``names`` (or numbers) is in the phonebook."""
        self._phonebook(names, there=False)

    def _phonebook(self, names: tuple[str, ...], *, there: bool) -> None:
        listing = self._command("pb list")
        wrong = [name for name in names if (name in listing.split()) is not there]
        state = "not" if there else "still"
        expect(not wrong, f"{', '.join(wrong)} is {state} in the phonebook:\n{listing}")

    @keyword
    def tasks_should_work(self, *names: str) -> None:
        """The terminal's software, or that of ``names``, runs and finds no error in its memory."""
        listing = self._command("tasks")
        lines = {line.split()[0]: line for line in listing.splitlines() if line.strip()}
        for name in names or lines:
            line = lines.get(name, "")
            expect(
                ", running," in line and "errors" not in line, f"{name} does not work:\n{listing}"
            )
