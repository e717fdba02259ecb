"""Bad links by number: what is wrong with the wireless link and the server, and what SRAM is held.

Number N says everything: which faults, how bad, when the server is away. Session after session of a
case it goes on failing, differently each time.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, fields, replace
from typing import Any

from unbrick.link.faults import Direction, FaultPlan, Faults

WORST = {
    "drop": 0.12,
    "duplicate": 0.3,
    "reorder": 0.3,
    "corrupt": 0.1,
    "truncate": 0.1,
    "noise": 0.0002,
    "delay": 0.5,
}
TASKS = ("browser", "media", "maps", "logger")
BAD_LINK_DURATION_S = 400.0  # after which a link is good again, so that all can come to its end


@dataclass(frozen=True)
class BadLink:
    """What is wrong.

    Attributes:
        plan: of the link.
        away: (start, end) in seconds: when the server is dead.
        held: tasks that the user holds, so that their SRAM cannot be had: with all of them there is
            no room for an update.
        seed: of both.
    """

    plan: FaultPlan
    away: tuple[tuple[float, float], ...]
    held: tuple[str, ...]
    seed: int

    def faults(self) -> Faults:
        """The faults, to be given to a link."""
        return Faults(self.plan, seed=self.seed)


def make_bad_link(number: int, session: int = 0) -> BadLink:
    """The bad link ``number`` as it is in the ``session``-th session of a case."""
    seed = number * 16 + session
    rng = random.Random(f"link {seed}")
    kinds = rng.sample(sorted(WORST), rng.randint(1, len(WORST)))
    chosen: dict[str, Any] = {kind: WORST[kind] * rng.random() for kind in kinds}
    plan = FaultPlan(**chosen)
    if rng.random() < 0.3:
        start = rng.uniform(0, 10)
        plan = replace(plan, cuts=((start, start + rng.uniform(1, 90)),))
    if rng.random() < 0.25:
        plan = replace(plan, only=rng.choice(list(Direction)))
    away: tuple[tuple[float, float], ...] = ()
    if rng.random() < 0.4:
        start = rng.uniform(0, 8)
        away = ((start, start + rng.uniform(0.5, 100)),)
    held: tuple[str, ...] = ()
    if rng.random() < 0.25:
        held = tuple(rng.sample(TASKS, rng.randint(1, len(TASKS))))
    return BadLink(plan, away, held, seed)


def describe(link: BadLink) -> str:
    """One line for people."""
    parts = [
        f"{field.name} {getattr(link.plan, field.name):.3g}"
        for field in fields(link.plan)
        if field.name in WORST and getattr(link.plan, field.name)
    ]
    parts += [f"cut off {start:.1f}-{end:.1f} s" for start, end in link.plan.cuts]
    parts += [f"server away {start:.1f}-{end:.1f} s" for start, end in link.away]
    parts += [f"{task} held" for task in link.held]
    if link.plan.only:
        parts.append(f"{link.plan.only.value} only")
    return ", ".join(parts)
