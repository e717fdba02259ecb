"""What all keywords share: the terminal they work on, and how errors are told to Robot."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from functools import cache, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Concatenate, ParamSpec, TypeVar, cast

from robot.api import Failure, FatalError, SkipExecution
from robot.api import deco as robot_deco
from robot.libraries.BuiltIn import BuiltIn, RobotNotRunningError

from unbrick.errors import (
    ExpectError,
    MissingToolError,
    NotKnownHereError,
    SetupError,
    ToolBrokenError,
    UnbrickError,
)
from unbrick.firmware.signed import Releases, make_releases
from unbrick.folders import build_folder
from unbrick.robot.device import TargetDevice
from unbrick.robot.reference import Reference

if TYPE_CHECKING:
    from unbrick.robot.device import HandledDevice

PARAMS = ParamSpec("PARAMS")
RESULT = TypeVar("RESULT")
OWNER = TypeVar("OWNER")


def keyword(
    function: Callable[Concatenate[OWNER, PARAMS], RESULT],
) -> Callable[Concatenate[OWNER, PARAMS], RESULT]:
    """Make a method a keyword that tells its errors as Robot wants to hear them.

    The test is skipped when this engine cannot do something, or something is not installed. A
    broken tool ends the run, because nothing that follows says anything about the terminal.
    Everything else fails.
    """

    @wraps(function)
    def told(owner: OWNER, /, *args: PARAMS.args, **kwargs: PARAMS.kwargs) -> RESULT:
        try:
            return function(owner, *args, **kwargs)
        except (NotKnownHereError, MissingToolError) as error:
            raise SkipExecution(tell_error(error)) from error
        except ToolBrokenError as error:
            raise FatalError(f"the tool is broken: {tell_error(error)}") from error
        except UnbrickError as error:
            raise Failure(tell_error(error)) from error

    return cast("Callable[Concatenate[OWNER, PARAMS], RESULT]", robot_deco.keyword(told))


def tell_error(error: UnbrickError) -> str:
    """What is wrong, and what to do about it."""
    return f"{error} ({error.hint})" if error.hint else str(error)


@cache
def build_releases_in(folder: Path) -> Releases:
    """The firmware, built once for all suites."""
    return make_releases(folder)


class Keywords:
    """The part of the library that every group of keywords builds on.

    Args:
        engine: what runs the terminal; None: the variable ``${ENGINE}``, or in process.
        firmware: where the firmware is built, and kept between runs; None: the variable
            ``${FIRMWARE}``, or :func:`unbrick.folders.build_folder`.
        timeout: how long to wait for the terminal when a keyword is not told.
        seed: of everything random on the server's side and on the link.
    """

    def __init__(
        self, engine: str | None, firmware: Path | None, timeout: timedelta, seed: int
    ) -> None:
        self._engine_name, self._firmware, self._seed = engine, firmware, seed
        self._timeout = timeout
        self._device_or_none: HandledDevice | None = None
        self._update_id: int | None = None

    @property
    def _releases(self) -> Releases:
        given = read_variable("FIRMWARE")
        folder = self._firmware or (Path(given) if given else build_folder())
        return build_releases_in(folder.absolute())

    @property
    def _device(self) -> HandledDevice:
        """What was started, a terminal or the device of a target file.

        Raises:
            SetupError: nothing was.
        """
        if self._device_or_none is None:
            raise SetupError(
                "there is no terminal yet", hint="begin with `Start Terminal` or `Start Target`"
            )
        return self._device_or_none

    @property
    def _terminal(self) -> Reference:
        """The terminal that was started.

        Raises:
            SetupError: there is none.
        """
        if not isinstance(self._device_or_none, Reference):
            raise SetupError("there is no terminal yet", hint="begin with `Start Terminal`")
        return self._device_or_none

    @property
    def _target(self) -> TargetDevice:
        """The device of a target file that was started.

        Raises:
            SetupError: there is none.
        """
        if not isinstance(self._device_or_none, TargetDevice):
            raise SetupError("there is no target yet", hint="begin with `Start Target`")
        return self._device_or_none

    def _close(self) -> None:
        """Switch off what was started, and give it back."""
        if self._device_or_none is not None:
            self._device_or_none.close()
            self._device_or_none = None

    def _wanted_engine(self) -> str:
        """The engine's name."""
        return self._engine_name or read_variable("ENGINE") or "inprocess"

    def _seconds(self, timeout: timedelta | None) -> float:
        return (self._timeout if timeout is None else timeout).total_seconds()

    def _image(self, version: str) -> bytes:
        """The signed image of a release.

        Raises:
            SetupError: there is no such release.
        """
        return self._releases.signed[version]


def read_variable(name: str) -> str | None:
    """What ``--variable NAME:value`` or a suite says; None when nobody does."""
    try:
        value = BuiltIn().get_variable_value(f"${{{name}}}")
    except RobotNotRunningError:
        return None
    return None if value is None else str(value)


def expect(condition: object, message: str) -> None:
    """Fail with ``message`` unless ``condition`` holds.

    Raises:
        ExpectError: it does not.
    """
    if not condition:
        raise ExpectError(message)
