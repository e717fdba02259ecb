"""Every error that Unbrick raises on purpose, in one tree.

Each says what went wrong in one line and, in ``hint``, what to do next. ``exit_code`` is what the
command line ends with: 1 the terminal or an update failed, 2 the call or the set-up is wrong,
3 the tool itself is broken.
"""

from __future__ import annotations


class UnbrickError(Exception):
    """The root of the tree."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class SetupError(UnbrickError):
    """The call, the configuration or the machine is not as it must be."""

    exit_code = 2


class MissingToolError(SetupError):
    """A program that this needs is not installed."""


class PortError(SetupError):
    """A serial or network port does not exist or cannot be opened."""


class ImageError(UnbrickError):
    """A file is not an image that this terminal could run."""

    exit_code = 2


class DeltaError(UnbrickError):
    """A file is not a differential file that could be applied to this image."""

    exit_code = 2


class BuildError(SetupError):
    """The firmware or a device model did not compile."""


class EngineError(UnbrickError):
    """An engine could not do what was asked."""


class NotKnownHereError(SetupError):
    """This engine cannot do or know it: what emulation has, a real board does not show.

    Tests turn it into a skip that gives the reason.
    """


class FirmwareFaultError(UnbrickError):
    """The terminal's firmware did what the hardware forbids."""


class LinkError(UnbrickError):
    """The wireless link, or what came over it, is broken."""


class ServerError(UnbrickError):
    """The software management server refused or failed."""


class UpdateError(UnbrickError):
    """An update did not end with the wanted software."""


class RestoreError(UnbrickError):
    """The terminal could not be restored over the wire."""


class ExpectError(UnbrickError):
    """The terminal did not say or do what was expected in time."""


class CannotBeginError(UnbrickError):
    """A target does not come to where a search begins, although nothing disturbs it."""


class UpdateNeverWorksError(CannotBeginError):
    """The update of a target from a file does not work, although nothing disturbs it."""

    exit_code = 2


class DriverGaveUpError(UnbrickError):
    """What drives an update cannot go on, for the device does not do its part."""


class DeviceSilentError(DriverGaveUpError):
    """The device did not say in time what the driver of an update waits for."""


class ToolBrokenError(UnbrickError):
    """Unbrick contradicts itself: a bug of the tool, no verdict on the firmware."""

    exit_code = 3
