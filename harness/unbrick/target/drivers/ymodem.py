"""YMODEM, by the sender of :mod:`unbrick.wire.ymodem`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from unbrick.wire.ymodem import Sender

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

    from unbrick.target.console import DriverConsole, Wait
    from unbrick.target.description import FirmwareFile

START_TIMEOUT_S = 60.0


def update(
    console: DriverConsole, payload: FirmwareFile | None, _options: Mapping[str, Any]
) -> Generator[Wait, Any, None]:
    """Send the file as a batch of one."""
    name, data = (payload.name, payload.data) if payload else ("", b"")
    sender = Sender(name, data, console.now, start_timeout=START_TIMEOUT_S)
    received = b""
    while True:
        answer = sender.step(received, console.now)
        if answer:
            console.write(answer)
        if sender.finished:
            break
        left = START_TIMEOUT_S if sender.deadline is None else sender.deadline - console.now
        received = yield console.read(1, max(0.0, left))
    if sender.error is not None:
        console.give_up(str(sender.error))
