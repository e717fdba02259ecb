"""Plays a draft whose update is sent, to hear what the device says then."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from unbrick.draft.write import render_target
from unbrick.target.target import FileTarget
from unbrick.target.trial import try_target

if TYPE_CHECKING:
    from collections.abc import Sequence

    from unbrick.draft.draft import Draft

NEVER_SAID = "\x00"
"""What no device says: so the trial waits for all that it has to say."""


def send_update(draft: Draft) -> tuple[Sequence[str], float, str]:
    """Send the update: the lines of the console, when the last one came, and what went wrong.

    Raises:
        SetupError: the driver, or what it sends, is wrong.
    """
    asked = replace(draft, says=(NEVER_SAID,))
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "draft.toml"
        path.write_text(render_target(asked, path.parent), encoding="utf-8")
        trial = try_target(FileTarget.load(path, tried=False))
    kind, why = trial.outcome.violation or ("", "")
    seconds = trial.words[-1].time if trial.words else 0.0
    lines = tuple(
        dict.fromkeys(line for words in trial.words if len(line := words.text.strip()) > 1)
    )
    return lines, seconds, "" if kind == "bricked" else why
