"""Whether a terminal needs an upgrade, by what is published and what became of its updates (B2).

All of it is pure: the server decides by it, and the customer center tells callers by it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timezone

from unbrick.server.records.analysis import Verdict
from unbrick.server.records.updates import Image, Running, Terminal, Update, UpdateState
from unbrick.wire.messages import Result, TerminalState

_BEGIN = datetime.min.replace(tzinfo=timezone.utc)


def parse_version(version: str) -> tuple[int, ...]:
    """Versions in their order: ``1.10.0+0`` is newer than ``1.9.0+0``."""
    return tuple(int(part) for part in re.findall(r"[0-9]+", version))


def _built(time: str) -> datetime:
    """A build time; what is none (a terminal may say anything) is before all others."""
    try:
        moment = datetime.fromisoformat(time.replace("Z", "+00:00"))
    except ValueError:
        return _BEGIN
    moment = moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)
    return moment if 1970 <= moment.year < 9999 else _BEGIN


def _age(software: Terminal | Running | Image) -> tuple[tuple[int, ...], datetime]:
    return parse_version(software.version), _built(software.build_time)


@dataclass(frozen=True)
class Judgment:
    """Whether a terminal needs an upgrade, to which image, and why."""

    verdict: Verdict
    latest: Image | None
    reason: str


def find_failed_trials(updates: Iterable[Update]) -> frozenset[bytes]:
    """Digests of the software that failed its trial, the last time that a terminal was given it."""
    last = {update.digest: update.result for update in updates if update.result is not None}
    return frozenset(digest for digest, result in last.items() if result is Result.TRIAL_FAILED)


def find_meant_downgrade(terminal: Terminal | Running, updates: Iterable[Update]) -> Update | None:
    """The update by which a terminal runs older software on purpose, if one has put it there.

    Args:
        terminal: as it registered last, or what it runs.
        updates: those of this terminal, in their order.
    """
    succeeded = [update for update in updates if update.state is UpdateState.SUCCEEDED]
    last = succeeded[-1] if succeeded else None
    if last is None or not last.downgrade or last.digest != terminal.digest:
        return None
    return last if parse_version(last.version) < parse_version(last.from_version) else None


def judge(
    terminal: Terminal | Running, images: list[Image], updates: Iterable[Update] = ()
) -> Judgment:
    """Compare what a terminal runs with the latest release for its hardware.

    Args:
        terminal: as it registered last, or what it runs.
        images: everything that is published.
        updates: those of this terminal, in their order; software that has failed its trial there
            is passed over, and so is what was published when older software was ordered.
    """
    updates = list(updates)
    if terminal.state is TerminalState.RESTORATION:
        return Judgment(Verdict.RESTORATION, None, "it has no software that may run")
    for_it = [
        image
        for image in images
        if (image.hardware_id, image.name) == (terminal.hardware_id, terminal.name)
    ]
    if not for_it:
        what = f"{terminal.name} for {terminal.hardware_id}"
        return Judgment(Verdict.NOTHING_PUBLISHED, None, f"no {what} is published")
    taken = [image for image in for_it if image.security_counter >= terminal.security_counter]
    if not taken:
        reason = f"it takes nothing below security counter {terminal.security_counter}"
        return Judgment(Verdict.NOT_TAKEN, max(for_it, key=_age), reason)
    down = find_meant_downgrade(terminal, updates)
    if down is not None:
        newer = [image for image in taken if image.published > down.created]
        taken = [i for i in taken if i.digest == terminal.digest] + newer or taken
    failed = find_failed_trials(updates) - {terminal.digest}
    good = [image for image in taken if image.digest not in failed]
    newest = max(taken, key=_age)
    besides = f"{newest.version} has failed its trial there" if newest.digest in failed else ""
    if not good:
        return Judgment(Verdict.NOT_TAKEN, newest, besides)
    found = _compare(terminal, max(good, key=_age))
    if down is not None and found.verdict is Verdict.CURRENT:
        reason = f"it runs {down.version} instead of {down.from_version}, as update {down.id} meant"
        found = replace(found, reason=reason)
    return replace(found, reason="; ".join(part for part in (found.reason, besides) if part))


def _compare(terminal: Terminal | Running, latest: Image) -> Judgment:
    if latest.digest == terminal.digest:
        return Judgment(Verdict.CURRENT, latest, f"it runs {latest.version}, the latest")
    if _age(terminal) > _age(latest):
        return Judgment(Verdict.NEWER, latest, f"the latest here is {latest.version}")
    if parse_version(terminal.version) < parse_version(latest.version):
        reason = f"{latest.version} is newer than {terminal.version}"
    elif _age(terminal) < _age(latest):
        reason = f"its {terminal.version} was built {terminal.build_time}, not {latest.build_time}"
    else:
        reason = f"its {terminal.version} is not the one that is published"
    return Judgment(Verdict.UPGRADE, latest, reason)
