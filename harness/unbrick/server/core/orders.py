"""Whether what a person orders makes sense, and which image is meant."""

from __future__ import annotations

from unbrick.errors import ServerError
from unbrick.server.core.restoring import unfit
from unbrick.server.records.updates import Image, Terminal
from unbrick.wire.messages import MAX_SERIAL, Result, TerminalState


class UnknownError(ServerError):
    """There is no such terminal, image or update."""


class ConflictError(ServerError):
    """What is asked for is against the rules, or against what is going on."""


class NotCommandedError(ConflictError):
    """A terminal cannot be updated by commands; by a file it may be.

    Attributes:
        code: what says so to programs, beside the words for people.
    """

    code = "not commanded"


def full_version(text: str) -> str:
    """``1.1.0`` as ``1.1.0+0``, the way images say it."""
    return text if "+" in text else f"{text}+0"


def check_serial(serial: str) -> None:
    """Whether a terminal can have this serial.

    Raises:
        ConflictError: none can.
    """
    if not serial or not serial.isprintable() or len(serial.encode()) > MAX_SERIAL:
        raise ConflictError(
            "this is no serial of a terminal",
            hint="`unbrick terminals` lists the terminals that registered",
        )


def find_image(images: list[Image], version: str, terminal: Terminal | None) -> Image:
    """The image with that version for that terminal's hardware, or else any with that version.

    Raises:
        UnknownError: there is none.
        ConflictError: the terminal is not known, and there are several.
    """
    found = [image for image in images if image.version == full_version(version)]
    if not found:
        raise UnknownError(
            f"there is no image {full_version(version)}",
            hint="publish it with `unbrick publish`; `unbrick images` lists what there is",
        )
    if terminal is None and len(found) > 1:
        raise ConflictError(
            f"there is {full_version(version)} for several kinds of hardware",
            hint="start the update when the terminal has registered",
        )
    fitting = [image for image in found if terminal and image.hardware_id == terminal.hardware_id]
    return (fitting or found)[0]


def check_fit(image: Image, terminal: Terminal) -> None:
    """Whether a terminal would take an image.

    Raises:
        ConflictError: it would not, or it runs it already.
    """
    wrong = unfit(image, terminal)
    if wrong is Result.OTHER_HARDWARE:
        raise ConflictError(
            f"{image.version} is for {image.hardware_id}, {terminal.serial} is a"
            f" {terminal.hardware_id}",
            hint="publish a build for that hardware",
        )
    if wrong is Result.OLDER_THAN_COUNTER:
        raise ConflictError(
            f"{image.version} has security counter {image.security_counter}, {terminal.serial}"
            f" takes nothing below {terminal.security_counter}",
            hint="release it again with a counter that is not lower",
        )
    if image.digest == terminal.digest and terminal.state is TerminalState.APPLICATION:
        raise ConflictError(
            f"{terminal.serial} runs {image.version} already", hint="there is nothing to do"
        )


def check_formats(image: Image, base: Image | None, serial: str) -> None:
    """Whether software can be staged where ``base`` runs, None if that is not known.

    Raises:
        ConflictError: the user's data would not survive.
    """
    if base is not None and base.userdata_format != image.userdata_format:
        raise ConflictError(
            f"{image.version} keeps the user's data in another format than what {serial} runs",
            hint="update it with --commanded, which backs the data up and gives it back",
        )


def check_commanded(image: Image, base: Image | None, serial: str, *, prepared: bool) -> None:
    """Whether a terminal where ``base`` runs can be commanded; ``prepared``: its ranges can be.

    Raises:
        NotCommandedError: it cannot.
    """
    if base is None:
        raise NotCommandedError(
            f"what {serial} runs is not published here, so it is not known what differs",
            hint="publish that software, or leave out --commanded",
        )
    if not prepared:
        raise NotCommandedError(
            f"where {image.version} differs cannot be prepared for {image.hardware_id}",
            hint="leave out --commanded",
        )
