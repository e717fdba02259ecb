"""Case IDs: one short string replays one case exactly.

``staged/12-weak+1/5`` is a case of the scenario ``staged``, with two power cuts:

- In the first session the power is cut in flash operation 12, which is torn in the way ``weak``.
- In the second session weak cells read in way 1. The power is cut just before operation 5.
- The third session is the case.

``staged~17`` is the scenario over the bad link number 17 (``unbrick.reference.links``). A step
``7@3`` cuts the power with 7 operations done, after the server's third change of mind;
``7-half@3`` in the middle of operation 7, after it.

``commanded/12!7``: in the session that follows, the server dies at its seventh change of mind,
before it tells, and is back at once. With ``!7-said`` it dies when it has told, with ``!7-late``
then and for long (``unbrick.reference.story``). ``commanded!7`` says that of the first session.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from unbrick.errors import SetupError

_DEATH = r"(?:!(\d+)(?:-(said|late))?)?"
_FIRST = re.compile(rf"([a-z0-9-]+)(?:~(\d+))?{_DEATH}")
_STEP = re.compile(rf"(\d+)(?:-([a-z][a-z0-9-]*))?(?:@(\d+))?(?:\+(\d))?{_DEATH}")


@dataclass(frozen=True)
class Death:
    """The server dies at its change of mind number ``change``.

    ``when``: empty, before it has told anybody; ``said``, when it has; ``late``, when it has, and
    it stays away for long.
    """

    change: int
    when: str = ""

    def __str__(self) -> str:
        return f"!{self.change}" + (f"-{self.when}" if self.when else "")


def _death(change: str | None, when: str | None) -> Death | None:
    return None if change is None else Death(int(change), when or "")


@dataclass(frozen=True)
class PowerCut:
    """One power cut, and the session that follows it.

    Attributes:
        op: number of the flash operation, counted from 0 in its session.
        torn: how the operation is torn; empty: it was not begun.
        change: the server's changes of mind before the cut, when that is what counts; else None.
        resolution: how weak cells read in the session that follows.
        death: of the server in the session that follows.
    """

    op: int
    torn: str = ""
    change: int | None = None
    resolution: int = 0
    death: Death | None = None

    def __str__(self) -> str:
        text = str(self.op)
        text += f"-{self.torn}" if self.torn else ""
        text += f"@{self.change}" if self.change is not None else ""
        text += f"+{self.resolution}" if self.resolution else ""
        return text + str(self.death or "")


@dataclass(frozen=True)
class CaseId:
    """A target, perhaps a bad link, and the power cuts that lead to a case.

    ``first_death`` is of the server in the first session.
    """

    scenario: str
    cuts: tuple[PowerCut, ...] = ()
    link: int | None = None
    first_death: Death | None = None

    def __str__(self) -> str:
        link = "" if self.link is None else f"~{self.link}"
        first = f"{self.scenario}{link}{self.first_death or ''}"
        return "/".join((first, *map(str, self.cuts)))

    @property
    def resolution(self) -> int:
        """How weak cells read in the case's own session."""
        return self.cuts[-1].resolution if self.cuts else 0

    @property
    def death(self) -> Death | None:
        """Of the server in the case's own session."""
        return self.cuts[-1].death if self.cuts else self.first_death

    @property
    def before(self) -> CaseId | None:
        """The session that the last power cut ends, or the case without the server's death."""
        if self.death is not None:
            return self.with_death(None)
        return replace(self, cuts=self.cuts[:-1]) if self.cuts else None

    def then(self, cut: PowerCut) -> CaseId:
        """This case and one more power cut."""
        return CaseId(self.scenario, (*self.cuts, cut), self.link, self.first_death)

    def with_death(self, death: Death | None) -> CaseId:
        """This case, with another fate of the server in its own session."""
        if not self.cuts:
            return replace(self, first_death=death)
        *before, last = self.cuts
        return replace(self, cuts=(*before, replace(last, death=death)))

    def with_resolution(self, resolution: int) -> CaseId:
        """This case, with weak cells that read otherwise in its own session.

        No case ID says that of a session without a power cut before it; it stays as it is.
        """
        if self.resolution == resolution or not self.cuts:
            return self
        *before, last = self.cuts
        return replace(self, cuts=(*before, replace(last, resolution=resolution)))

    @classmethod
    def parse(cls, text: str) -> CaseId:
        """The case that a string names.

        Raises:
            SetupError: it names none.
        """
        first, *steps = text.split("/")
        begins = _FIRST.fullmatch(first)
        if begins is None:
            hint = "a link has a number, as staged~17" if "~" in first else ""
            raise SetupError(
                f"not a case ID: {text!r}",
                hint=hint or "copy one from a report, as staged/12-weak+1",
            )
        scenario, link, change, when = begins.groups()
        parsed = []
        for step in steps:
            match = _STEP.fullmatch(step)
            if match is None:
                raise SetupError(
                    f"not a case ID: {text!r}", hint="copy one from a report, as staged/12-weak+1"
                )
            op, torn, mark, resolution, *death = match.groups()
            parsed.append(
                PowerCut(
                    int(op),
                    torn or "",
                    None if mark is None else int(mark),
                    int(resolution or 0),
                    _death(*death),
                )
            )
        return cls(
            scenario,
            tuple(parsed),
            None if link is None else int(link),
            _death(change, when),
        )
