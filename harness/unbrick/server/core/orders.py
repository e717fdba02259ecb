"""What a person may order for a terminal: one rule, whoever orders (``docs/orders.md``).

1. Never what the terminal would refuse: other hardware, a security counter below its own.
2. One update at a time. Only what the server began by itself gives way, while it can be cancelled.
3. Not what it runs already, and older software only if that is meant.
4. Only in a way that keeps the user's data.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from unbrick.image.format import MAX_COUNTER
from unbrick.server.core.restoring import foresee_refusal, is_older
from unbrick.server.errors import (
    BusyError,
    ConflictError,
    DowngradeError,
    NotCommandedError,
    UnknownError,
)
from unbrick.server.judgment import find_failed_trials
from unbrick.server.records.sessions import CommandedSession
from unbrick.server.records.updates import Image, Terminal, Update
from unbrick.wire.messages import MAX_SERIAL, Result, TerminalState


def complete_version(text: str) -> str:
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
    found = [image for image in images if image.version == complete_version(version)]
    if not found:
        raise UnknownError(
            f"there is no image {complete_version(version)}",
            hint="publish it with `unbrick publish`; `unbrick images` lists what there is",
        )
    if terminal is None and len(found) > 1:
        raise ConflictError(
            f"there is {complete_version(version)} for several kinds of hardware",
            hint="start the update when the terminal has registered",
        )
    fitting = [image for image in found if terminal and image.hardware_id == terminal.hardware_id]
    return (fitting or found)[0]


@dataclass(frozen=True)
class Order:
    """What a person wants.

    Attributes:
        image: that the terminal shall run.
        serial: of the terminal.
        commanded: by commands, not by a file.
        downgrade: also if that is older than what it runs.
    """

    image: Image
    serial: str
    commanded: bool
    downgrade: bool


@dataclass(frozen=True)
class Standing:
    """How it is with the terminal of an order.

    Attributes:
        terminal: as it registered last, None if it never has.
        base: what it registered with, if that is published.
        updates: those of this terminal, in their order.
        cancellable: numbers of those that can still be cancelled.
        session: of a commanded update, while a step of it is left.
        prepared: where the image differs from what it runs is known, or can be.
    """

    terminal: Terminal | None
    base: Image | None
    updates: list[Update]
    cancellable: frozenset[int]
    session: CommandedSession | None
    prepared: bool

    @property
    def under_way(self) -> list[Update]:
        """The updates that have not ended."""
        return [update for update in self.updates if not update.state.ended]

    def gives_way(self, update: Update) -> bool:
        """Whether an update is the server's own, and can be cancelled: an order replaces it."""
        return update.restoration and update.id in self.cancellable


def check_order(order: Order, at: Standing) -> list[str]:
    """Whether an order is carried out; the rule is in the docstring of this module.

    Returns:
        What a person should know although it is.

    Raises:
        ConflictError: it is not; the hint says what to do.
    """
    if at.terminal is not None:
        _check_taken(order.image, at.terminal)
    _check_free(order, at)
    if at.terminal is not None:
        _check_wanted(order, at.terminal)
    _check_way(order, at)
    return list(_notes(order, at))


def _check_taken(image: Image, terminal: Terminal) -> None:
    wrong = foresee_refusal(image, terminal)
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
            hint="release it again with a counter that is not lower; no option overrides that",
        )


def _check_free(order: Order, at: Standing) -> None:
    for update in at.under_way:
        if at.gives_way(update):
            continue
        if update.digest == order.image.digest:
            hint = f"that is what was ordered: `unbrick update show {update.id}` follows it"
        elif update.id in at.cancellable:
            hint = f"wait for it, or `unbrick update cancel {update.id}`, then order again"
        else:
            hint = f"wait for it, it cannot be cancelled: `unbrick update show {update.id}`"
        raise BusyError(
            f"update {update.id} of {order.serial} to {update.version} is still"
            f" {update.state.value}, and a terminal has one update at a time",
            hint=hint,
        )
    if at.session is not None:
        number = at.session.update_id
        raise BusyError(
            f"update {number} of {order.serial} is over, but not in its last step",
            hint=f"wait for it; `unbrick update show {number}` says which",
        )


def _check_wanted(order: Order, terminal: Terminal) -> None:
    image = order.image
    if image.digest == terminal.digest and terminal.state is TerminalState.APPLICATION:
        raise ConflictError(
            f"{order.serial} runs {image.version} already", hint="there is nothing to do"
        )
    if is_older(image, terminal) and not order.downgrade:
        raise DowngradeError(
            f"{image.version} is older than {terminal.version}, which {order.serial} runs",
            hint="if that is meant, order it as a downgrade (--downgrade)",
        )


def _check_way(order: Order, at: Standing) -> None:
    runs = at.terminal is not None and at.terminal.state is TerminalState.APPLICATION
    if order.commanded:
        if not runs:
            raise NotCommandedError(
                f"{order.serial} has not registered with software that runs, so it cannot be"
                " commanded",
                hint="wait until it has, or leave out --commanded",
            )
        check_commanded(order.image, at.base, order.serial, prepared=at.prepared)
    elif runs:
        check_formats(order.image, at.base, order.serial)


def _notes(order: Order, at: Standing) -> Iterator[str]:
    image = order.image
    if at.terminal is not None and is_older(image, at.terminal):
        yield f"a downgrade from {at.terminal.version}"
    if image.digest in find_failed_trials(at.updates):
        yield f"{image.version} has failed its trial there before"
    if image.security_counter == MAX_COUNTER:
        yield "its security counter is the last one: no other can follow"
    for update in at.under_way:
        yield f"in place of update {update.id} to {update.version}, which the server had begun"


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
