"""Errors of a restoration, with hints for a person."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from unbrick.errors import RestoreError, UnbrickError

if TYPE_CHECKING:
    from unbrick.image.format import ImageInfo
    from unbrick.restore.words import WiredTerminal

_SHOWN = 16  # Hexadecimal digits of a digest in a message.


def unfit(info: ImageInfo, found: WiredTerminal | None) -> UnbrickError | None:
    """Why the terminal would refuse the image, by what it says about itself."""
    if found is None:
        return None
    if found.hardware_id != info.hardware_id:
        return RestoreError(
            f"the image is for {info.hardware_id}, "
            f"the terminal {found.serial} is {found.hardware_id}",
            hint="give the image that was built for this hardware",
        )
    if found.security_counter is not None and info.security_counter < found.security_counter:
        return RestoreError(
            f"the image is too old: its security counter is {info.security_counter}, "
            f"the terminal {found.serial} holds {found.security_counter}",
            hint="give a newer image",
        )
    return None


def refused(reason: str) -> UnbrickError:
    """The terminal has received the image, and refuses it."""
    hint = "give an image that is meant for this terminal: `unbrick image inspect` tells"
    if "journal" in reason:
        hint = "power-cycle it and try again; if that does not help its NOR is worn"
    return RestoreError(f"the terminal refused the image: {reason}", hint=hint)


def broken_off(error: UnbrickError, said: str) -> UnbrickError:
    """A transfer has ended early; ``said``: what the terminal gave as its reason, if anything."""
    return RestoreError(
        f"{error}; the terminal said: {said}" if said else str(error), hint=error.hint
    )


def asks_again(transfers: int) -> UnbrickError:
    """No attempts are left."""
    return RestoreError(
        f"the terminal asks to be restored again, after {transfers} transfers",
        hint="check its power and the cable, then start again",
    )


def not_better(reason: str) -> UnbrickError:
    """The NOR was rewritten, and boot does not accept the image that is there now."""
    return RestoreError(
        f"the terminal is in the restoration state again: {reason}",
        hint="restore it with another version of the software",
    )


def no_verdict() -> UnbrickError:
    """The transfer was complete, and then the terminal said nothing of it."""
    return RestoreError(
        "the terminal received the image but says nothing", hint="power-cycle it and try again"
    )


def not_started(version: str, seconds: float) -> UnbrickError:
    """The image was accepted, and no application has started."""
    return RestoreError(
        f"the terminal accepted {version} but has not started it in {seconds:.0f} s",
        hint="power-cycle it; when it is in the restoration state again, restore it again",
    )


def silent_again() -> UnbrickError:
    """It has started, and then nothing was heard any more."""
    return RestoreError(
        "the terminal has started what was sent, and then fell silent",
        hint="check its power and the cable, and start again, which reads back what is there "
        "without sending it again",
    )


def not_what_was_sent(found: str, image: bytes) -> UnbrickError:
    """The NOR holds something else."""
    sent = hashlib.sha256(image).hexdigest()
    return RestoreError(
        f"what lies in the NOR is not what was sent: it reads back as {found[:_SHOWN]}…, "
        f"not as {sent[:_SHOWN]}…",
        hint="do not use the terminal; erase its application partition and restore it again, "
        "and if that does not help its NOR is worn",
    )


def not_read_back() -> UnbrickError:
    """The software does not answer the question."""
    return RestoreError(
        "the terminal runs, but does not say what lies in its NOR",
        hint="check the line and start again, which reads it back without sending; "
        "for software without the command `digest` give --no-read-back",
    )


def runs_fine() -> UnbrickError:
    """An application runs, and not because of this restoration."""
    return RestoreError(
        "the terminal's application runs: there is nothing to restore",
        hint="change its software with an update over the air; to force a restoration, "
        "erase the application partition, then power-cycle the terminal",
    )


def cancelled() -> UnbrickError:
    """A person has ended it."""
    return RestoreError("the restoration was cancelled", hint="start it again")
