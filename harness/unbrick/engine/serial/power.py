"""Switches the power of a real board: by commands, by a USB relay, or by labgrid."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import serial

from unbrick.errors import EngineError, MissingToolError, PortError, SetupError

if TYPE_CHECKING:
    from collections.abc import Sequence

COMMAND_TIMEOUT_S = 60.0  # for a command that switches the power
RELAY_BAUD = 9600
RELAY_CHANNELS = 8


class Power(Protocol):
    """Whatever gives a board power and takes it away. Both may be asked for twice."""

    def on(self) -> None:
        """Give power."""

    def off(self) -> None:
        """Cut the power; it is gone when this returns."""


def run_command(command: Sequence[str], folder: Path, timeout: float) -> None:
    """Run a command of the board file to its end, without a shell.

    Args:
        command: program and arguments.
        folder: to run it in.
        timeout: seconds that it may take.

    Raises:
        MissingToolError: there is no such program.
        EngineError: it failed or took too long; gives the last line it said.
    """
    shown = shlex.join(command)
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise EngineError(
            f"`{shown}` did not end within {timeout:g} s", hint="try it by hand"
        ) from None
    except OSError as error:
        raise MissingToolError(
            f"cannot run `{shown}`: {error.strerror}", hint="install it, or correct the board file"
        ) from None
    if done.returncode:
        said = done.stdout.decode(errors="replace").strip().splitlines()
        raise EngineError(
            f"`{shown}` failed ({done.returncode}): {said[-1] if said else 'it said nothing'}",
            hint="try it by hand",
        )


class CommandPower:
    """Power by two commands: ``uhubctl``, ``usbrelay``, a script, anything.

    Args:
        on, off: commands, in words; they end when the power is switched.
        folder: to run them in.
    """

    def __init__(self, on: Sequence[str], off: Sequence[str], folder: Path) -> None:
        self._on, self._off, self._folder = on, off, folder

    def on(self) -> None:
        """Give power."""
        run_command(self._on, self._folder, COMMAND_TIMEOUT_S)

    def off(self) -> None:
        """Cut the power."""
        run_command(self._off, self._folder, COMMAND_TIMEOUT_S)


class RelayPower:
    """Power by a USB relay of the LCUS kind: a serial port at 9600 baud, 4 bytes a command.

    The bytes are 0xA0, the channel, 1 (closed) or 0 (open), and the low byte of their sum.

    Args:
        port: where the relay is.
        channel: 1 to 8.
        inverted: the board hangs on the contact that the relay opens.

    Raises:
        PortError: the port cannot be opened.
    """

    def __init__(self, port: str, channel: int = 1, *, inverted: bool = False) -> None:
        self._name, self._channel, self._inverted = port, channel, inverted

    def on(self) -> None:
        """Give power."""
        self._switch(closed=not self._inverted)

    def off(self) -> None:
        """Cut the power."""
        self._switch(closed=self._inverted)

    def _switch(self, *, closed: bool) -> None:
        command = bytes([0xA0, self._channel, closed])
        command += bytes([sum(command) & 0xFF])
        try:
            with serial.Serial(self._name, RELAY_BAUD, timeout=0, write_timeout=5) as port:
                port.write(command)
                port.flush()
        except (serial.SerialException, OSError) as error:
            raise PortError(
                f"the relay at {self._name} cannot be switched: {str(error).splitlines()[0]}",
                hint="check `relay` in the board file",
            ) from None


class LabgridPower:
    """Power by whatever driver labgrid has for the board.

    Args:
        environment: labgrid's YAML file.
        target: its name there.

    Raises:
        MissingToolError: labgrid is not installed.
        SetupError: labgrid cannot use the file, or the target has no power driver.
    """

    def __init__(self, environment: Path, target: str = "main") -> None:
        try:
            from labgrid import Environment  # noqa: PLC0415 - large, and not everybody has it
        except ImportError:
            raise MissingToolError(
                "labgrid is not installed", hint="run: pip install 'unbrick[labgrid]'"
            ) from None
        try:
            self._environment = Environment(str(environment))
            found = self._environment.get_target(target)
            self._driver: Any = found and found.get_driver("PowerProtocol")
        except Exception as error:
            raise SetupError(
                f"labgrid cannot use {environment}: {str(error).splitlines()[0]}",
                hint="try `labgrid-client` with it",
            ) from error
        if self._driver is None:
            raise SetupError(f"{environment} has no target {target!r}", hint="correct `target`")

    def on(self) -> None:
        """Give power."""
        self._do("on")

    def off(self) -> None:
        """Cut the power."""
        self._do("off")

    def _do(self, what: str) -> None:
        try:
            getattr(self._driver, what)()
        except Exception as error:
            raise EngineError(
                f"labgrid could not switch the power {what}: {error}", hint="try it by hand"
            ) from error
