"""Which software a terminal can take, and which one it is restored to."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from unbrick.server.judgment import parse_version
from unbrick.server.records.updates import Image, Running, Terminal, Update
from unbrick.wire.messages import Result, TerminalState

UNUSABLE = frozenset(
    (
        Result.TOO_LARGE,
        Result.UNKNOWN_KIND,
        Result.MALFORMED_ANNOUNCEMENT,
        Result.IMAGE_MALFORMED,
        Result.IMAGE_HASH_WRONG,
        Result.SIGNATURE_WRONG,
        Result.OTHER_HARDWARE,
        Result.OLDER_THAN_COUNTER,
    )
)
"""Results after which a terminal would refuse the same file every time."""


def foresee_refusal(image: Image, terminal: Terminal | Running) -> Result | None:
    """Why a terminal would refuse an image, as far as the server can know."""
    if image.hardware_id != terminal.hardware_id:
        return Result.OTHER_HARDWARE
    if image.security_counter < terminal.security_counter:
        return Result.OLDER_THAN_COUNTER
    return None


def is_older(image: Image, terminal: Terminal | Running) -> bool:
    """Whether an image is an older version of the software that a terminal runs.

    The order is that of imgtool: major, minor, revision, build. Other software, and a terminal in
    restoration, which runs nothing, have nothing to compare with.
    """
    if terminal.state is TerminalState.RESTORATION or image.name != terminal.name:
        return False
    return parse_version(image.version) < parse_version(terminal.version)


@dataclass(frozen=True)
class History:
    """What the updates of a terminal say about images, by their digests."""

    refused: frozenset[bytes]
    failed: tuple[bytes, ...]
    just: frozenset[bytes]


def _history(terminal: Terminal, updates: Iterable[Update]) -> History:
    ended = [update for update in updates if update.state.ended]
    just = frozenset(update.digest for update in ended if update.id == terminal.last_update_id)
    failed = [update.digest for update in ended if update.result is Result.TRIAL_FAILED]
    if terminal.last_result is not Result.TRIAL_FAILED or terminal.confirmed not in just:
        failed = [digest for digest in failed if digest != terminal.confirmed]
    refused = frozenset(update.digest for update in ended if update.result in UNUSABLE)
    return History(refused, tuple(failed), just)


def choose_image(terminal: Terminal, updates: list[Update], images: list[Image]) -> Image | None:
    """Choose the software for a terminal without valid software.

    It is the first of these that there is:

    1. the software that ran last, unless it has just failed its trial,
    2. the newest that has not failed there, preferably one that reads the user's data as it is,
    3. when all have failed, the one that ran last, else one after the other: power cuts in the
       trial make good software fail.

    It is never software that the terminal would refuse, or has refused.
    """
    history = _history(terminal, updates)
    usable = [
        image
        for image in images
        if foresee_refusal(image, terminal) is None and image.digest not in history.refused
    ]
    good = [image for image in usable if image.digest not in history.failed]
    ran = [image for image in good or usable if image.digest == terminal.confirmed]
    if ran:
        return ran[0]
    if good:
        data = next((i.userdata_format for i in images if i.digest == terminal.confirmed), None)

        def order(image: Image) -> tuple[bool, tuple[int, ...]]:
            return image.userdata_format == data, parse_version(image.version)

        return max(good, key=order)
    turn = sorted(usable, key=lambda image: history.failed.index(image.digest))
    at = [number for number, image in enumerate(turn, 1) if image.digest in history.just]
    return turn[at[0] % len(turn)] if at else next(iter(turn), None)
