"""Case IDs: one short string replays one case exactly.

``staged/12-weak+1/5`` reads: scenario ``staged``; in its first session power is lost in flash
operation 12, which is torn in the way called ``weak``; in the second session weak cells read in way
1, and power is lost just before operation 5; the third session is the case. A step ``7@3`` loses
power with 7 operations done, after the server's third change of mind. ``staged~17`` is the scenario
over the bad link number 17 (``unbrick.campaign.links``).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from unbrick.errors import SetupError

_STEP = re.compile(r"(\d+)(?:-([a-z-]+)|@(\d+))?(?:\+(\d))?")


@dataclass(frozen=True)
class Step:
    """One loss of power.

    Attributes:
        op: number of the flash operation, counted from 0 in its session.
        torn: how the operation is torn; empty: it was not begun.
        change: the server's changes of mind before the cut, when that is what counts; else None.
        resolution: how weak cells read in the session that follows.
    """

    op: int
    torn: str = ""
    change: int | None = None
    resolution: int = 0

    def __str__(self) -> str:
        text = str(self.op)
        text += f"-{self.torn}" if self.torn else ""
        text += f"@{self.change}" if self.change is not None else ""
        return text + (f"+{self.resolution}" if self.resolution else "")


@dataclass(frozen=True)
class CaseId:
    """A scenario, perhaps a bad link, and the losses of power that lead to a case."""

    scenario: str
    steps: tuple[Step, ...] = ()
    link: int | None = None

    def __str__(self) -> str:
        link = "" if self.link is None else f"~{self.link}"
        return "/".join((self.scenario + link, *map(str, self.steps)))

    def then(self, step: Step) -> CaseId:
        """This case and one more loss of power."""
        return replace(self, steps=(*self.steps, step))

    @classmethod
    def parse(cls, text: str) -> CaseId:
        """The case that a string names.

        Raises:
            SetupError: it names none.
        """
        scenario, *steps = text.split("/")
        scenario, tilde, link = scenario.partition("~")
        if tilde and not link.isdecimal():
            raise SetupError(f"not a case ID: {text!r}", hint="a link has a number, as staged~17")
        parsed = []
        for step in steps:
            match = _STEP.fullmatch(step)
            if match is None:
                raise SetupError(
                    f"not a case ID: {text!r}", hint="copy one from a report, as staged/12-weak+1"
                )
            op, torn, change, resolution = match.groups()
            parsed.append(
                Step(
                    int(op),
                    torn or "",
                    None if change is None else int(change),
                    int(resolution or 0),
                )
            )
        return cls(scenario, tuple(parsed), int(link) if tilde else None)
