"""The command ``check``: is a target's file ready for a campaign?"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING, Any

import click

from unbrick.cli.options import chip_engine_option, platform_option, svd_option
from unbrick.engine import OWN_ENGINE
from unbrick.engine.base import FirmwareFault, VainRegister
from unbrick.screen import GAP, open_screen, open_status
from unbrick.target.load import load_target
from unbrick.target.target import FileTarget

if TYPE_CHECKING:
    from rich.console import Console

    from unbrick.target.trial import Cost, Trial

SHOWN_WORDS = 3
"""Lines of the console that are shown; the last ones say how it ended."""


def tell_time(seconds: float) -> str:
    """A time for people: 0.21 ms, 3.4 s, 5 min."""
    for least, unit, name in ((5400, 3600, "h"), (90, 60, "min"), (0.1, 1, "s")):
        if seconds >= least:
            return f"{seconds / unit:.3g} {name}"
    return f"{seconds * 1000:.2g} ms"


def list_facts(trial: Trial) -> list[tuple[str, str]]:
    """What a trial showed, as headings and texts for people."""
    found, outcome = trial.target.description, trial.outcome
    chip = found.chip
    entry, where = trial.start
    facts = [
        ("target", f"{trial.target.name}: {chip.name}, {chip.core}, console {found.console}"),
        *([("engine", trial.engine)] if trial.engine != OWN_ENGINE else []),
        ("boots", f"at {entry:#010x}" + (f", {where}" if where else "")),
        ("console", _tell_words(trial)),
    ]
    facts += [(uart, f"says {_shorten(text)!r}") for uart, text in trial.elsewhere.items()]
    facts += [
        ("flash", _tell_flash(trial)),
        ("time", _tell_duration(trial)),
        ("faults", "\n".join(map(str, trial.faults)) or "none"),
        ("waits", _tell_waits(trial)),
        ("recovered", _tell_recovered(trial)),
    ]
    return facts + (_tell_cost(trial.cost) if trial.cost and not outcome.violation else [])


def _shorten(text: str) -> str:
    return " ".join(text.split())[:60]


def _tell_words(trial: Trial) -> str:
    """The lines of the console, a line that comes again as one."""
    if not trial.words:
        return f"says nothing; at the end the core is at {trial.place}"
    lines = [list(again) for _, again in groupby(trial.words, key=lambda words: words.text)]
    shown = lines if len(lines) <= SHOWN_WORDS + 1 else [lines[0], *lines[-SHOWN_WORDS:]]
    told = [
        f"{_shorten(again[0].text)!r} after {tell_time(again[0].time)}"
        + (f", {len(again):,} times" if len(again) > 1 else "")
        for again in shown
    ]
    if len(shown) < len(lines):
        told.insert(1, f"... {len(lines) - len(shown):,} lines more")
    return "\n".join(told)


def _tell_flash(trial: Trial) -> str:
    if not trial.outcome.ops:
        return "no operations"
    return "\n".join(
        f"{part.part}: {part.erases:,} erases, {part.programs:,} programs of "
        f"{part.size:,} bytes in all"
        for part in trial.flashed
    )


def _tell_waits(trial: Trial) -> str:
    if trial.engine != OWN_ENGINE:
        return f"the engine {trial.engine} does not know"
    return "\n".join(map(str, trial.waits)) or "for no register in vain"


def _tell_duration(trial: Trial) -> str:
    outcome = trial.outcome
    text = f"{tell_time(outcome.virtual)} of the device, {tell_time(outcome.seconds)} here"
    return f"{text}; it reset itself {trial.resets:,} times" if trial.resets > 1 else text


def _tell_recovered(trial: Trial) -> str:
    outcome, recovered = trial.outcome, trial.target.description.recovered
    if outcome.violation:
        return f"no: {outcome.violation[0]}"
    saw = []
    if recovered.says and outcome.downtime is not None:
        said = [text for text in recovered.says if text in outcome.console]
        saw.append(f"says {said[0] if said else recovered.says[0]!r}")
    saw += [f"runs {name}" for name in recovered.runs]
    saw += [f"the flash holds {file.name}" for file in recovered.flash]
    when = "" if outcome.downtime is None else f" after {tell_time(outcome.downtime)}"
    return f"yes{when}: {', '.join(saw) or 'the core is where it must be'}"


def _tell_cost(cost: Cost) -> list[tuple[str, str]]:
    single = f"{cost.cuts:,} cuts, a session takes {tell_time(cost.session)}: "
    single += f"{tell_time(cost.most)} of one core at most; a guess: {tell_time(cost.single)}"
    full = f"a guess: {tell_time(cost.full)} of one core, if it comes to an end"
    return [("single", single), ("full", full)]


def show_facts(facts: list[tuple[str, str]], screen: Console) -> None:
    """Headings and texts, as wide as the window."""
    from rich.text import Text  # noqa: PLC0415 - slow to import

    indent = max(len(name) for name, _ in facts) + GAP
    for heading, text in facts:
        lines = [part for line in text.splitlines() for part in wrap(line, screen.width - indent)]
        for number, line in enumerate(lines):
            name = "" if number else heading
            screen.print(Text.assemble((name.ljust(indent), "bold"), line), soft_wrap=True)


def show_trial(trial: Trial, screen: Console) -> None:
    """All that a trial showed, for people."""
    show_facts(list_facts(trial), screen)
    for kind, style, found in (
        ("note", "yellow", trial.notes),
        ("trouble", "bold red", trial.troubles),
    ):
        for one in found:
            screen.print(f"{kind}: {one.what}", style=style, markup=False)
            screen.print(f"    {one.hint}", markup=False)
    if trial.troubles:
        screen.print("Not ready for a campaign.", style="bold red")
    else:
        screen.print("Ready. Now cut the power:", style="bold green")
        screen.print(f"    unbrick campaign {trial.target.path}", markup=False, soft_wrap=True)


def to_json(trial: Trial) -> str:
    """All that a trial showed, for a script. Times are in seconds."""
    outcome, found = trial.outcome, trial.target.description
    cost = trial.cost
    told: dict[str, Any] = {
        "target": trial.target.name,
        "engine": trial.engine,
        "chip": found.chip.name,
        "console": found.console,
        "ready": not trial.troubles,
        "start": {"address": trial.start[0], "where": trial.start[1]},
        "said": [asdict(words) for words in trial.words],
        "elsewhere": trial.elsewhere,
        "operations": len(outcome.ops),
        "flash": [asdict(part) for part in trial.flashed],
        "device_s": outcome.virtual,
        "here_s": outcome.seconds,
        "resets": trial.resets,
        "lost": trial.lost,
        "faults": [_as_dict(fault) for fault in trial.faults],
        "waits": [_as_dict(one) for one in trial.waits],
        "recovered": {
            "is": outcome.violation is None,
            "kind": (outcome.violation or ("", ""))[0],
            "text": (outcome.violation or ("", ""))[1],
            "after_s": outcome.downtime,
            "without_update": trial.idle,
        },
        "cost": cost
        and {
            "cuts": cost.cuts,
            "session_s": cost.session,
            "single_most_s": cost.most,
            "single_guess_s": cost.single,
            "full_guess_s": cost.full,
        },
        "troubles": [asdict(one) for one in trial.troubles],
        "notes": [asdict(one) for one in trial.notes],
    }
    return json.dumps(told, indent=2)


def _as_dict(found: FirmwareFault | VainRegister) -> dict[str, Any]:
    return {**asdict(found), "text": str(found)}


@click.command(short_help="Play an update once, and say whether a campaign can begin.")
@click.argument("target", type=click.Path(path_type=Path), metavar="TARGET.toml")
@svd_option
@chip_engine_option
@platform_option
@click.option("--json", "as_json", is_flag=True, help="Everything as JSON, for a script.")
def check(
    target: Path, svd: Path | None, engine: str, platform: Path | None, *, as_json: bool
) -> None:
    """Play the update of a target once, without a fault, and say what there is to see.

    Does the firmware boot? What does it say, what does it do to the flash, what does it wait for in
    vain? Which faults are there, has it recovered, and what will a campaign cost? Every trouble
    comes with what to do about it.

    \b
    Exit codes: 0 a campaign can begin, 1 there is trouble,
    2 the call or the target's file is wrong, 3 unbrick itself is broken.
    """
    # They take long to import, and most commands need none of it.
    from unbrick.target.trial import try_target  # noqa: PLC0415

    load_target(target)
    with open_status().status("playing the update once"):
        loaded = FileTarget.load(target, tried=False, svd=svd)
        trial = try_target(loaded, engine, platform)
    if as_json:
        click.echo(to_json(trial))
    else:
        show_trial(trial, open_screen())
    sys.exit(1 if trial.troubles else 0)


COMMANDS: list[click.Command] = [check]
