"""Replaying a case: one timeline, virtual time, and a waveform of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from unbrick.campaign.case import CaseId
from unbrick.campaign.replay import list_events, render_vcd, replay
from unbrick.campaign.target import Fate, Outcome, ReplayedSession, State, TimelineEvent
from unbrick.cli.main import cli
from unbrick.engine.inprocess import InProcessEngine
from unbrick.errors import SetupError
from unbrick.firmware.signed import Releases
from unbrick.layout import reference_layout
from unbrick.reference.target import ReferenceTarget, find_target

LAYOUT = reference_layout()
Play = Callable[[str], list[ReplayedSession]]
Tell = Callable[[ReplayedSession], list[TimelineEvent]]
WaveOf = Callable[[list[ReplayedSession]], dict[str, Any]]


@pytest.fixture
def engine(unbrick_releases: Releases) -> Iterator[InProcessEngine]:
    made = InProcessEngine(unbrick_releases.elf_files)
    yield made
    made.close()


@pytest.fixture
def played(engine: InProcessEngine, unbrick_releases: Releases) -> Play:
    def play(text: str) -> list[ReplayedSession]:
        case = CaseId.parse(text)
        return replay(find_target(case.scenario, unbrick_releases), engine, case)

    return play


@pytest.fixture
def tell(unbrick_releases: Releases) -> Tell:
    target = find_target("staged", unbrick_releases)
    return lambda session: list_events(session, target)


@pytest.fixture
def wave_of(unbrick_releases: Releases) -> WaveOf:
    target = find_target("staged", unbrick_releases)
    return lambda sessions: parse(render_vcd(sessions, target))


def erase_of_the_application(session: ReplayedSession) -> int:
    """The number of the operation that begins the rewrite."""
    application = LAYOUT.partition("application").offset
    ops = session.outcome.ops
    return next(i for i, op in enumerate(ops) if op.kind == "erase" and op.offset == application)


def test_an_update_is_told_in_one_order(played: Play, tell: Tell) -> None:
    (session,) = played("staged")
    events = tell(session)
    assert [event.time for event in events] == sorted(event.time for event in events)
    said = [f"{event.source} {event.text}" for event in events]
    erase = f"nor {erase_of_the_application(session)}: erase at 0x100000 (application)"
    in_order = [
        "power on",
        "radio -> CON",
        "server update 1 to 1.1.0+0: transferring",
        "uart0 update: checked",
        erase,
        "uart0 update: 1.1.0 confirmed",
        "server update 1 to 1.1.0+0: succeeded",
        "uart0 typed: pb list",
        "power off; all has come about: application",
    ]
    at = [next(i for i, line in enumerate(said) if line.startswith(key)) for key in in_order]
    assert at == sorted(at)
    assert sum(line.startswith("nor ") for line in said) == len(session.outcome.ops)


@pytest.mark.slow
def test_the_timeline_ends_where_power_was_lost(played: Play, tell: Tell) -> None:
    (golden,) = played("staged")
    erase = erase_of_the_application(golden)
    for step, words, ops in (
        (f"{erase}", f"LOST before operation {erase}", erase),
        (f"{erase}-half", f"LOST in operation {erase}, torn: half", erase + 1),
    ):
        first, second = played(f"staged/{step}")
        events = tell(first)
        assert events[-1].text == words
        assert [e.source for e in events].count("nor") == ops
        op = first.outcome.ops[erase]
        lost = events[-1].time
        assert op.start < lost < op.end if "-" in step else lost == op.start
        assert all(event.time <= events[-1].time for event in events)
        assert first.outcome.ops == golden.outcome.ops
        assert tell(second)[0].text == "on"
    assert "restoration: send the signed image by YMODEM" in [e.text for e in tell(second)]
    assert tell(second)[-1].text == "off; all has come about: restored"


@pytest.mark.slow
def test_a_restoration_that_was_begun_is_not_needless(played: Play) -> None:
    """An erase barely began, so a person restored; after two cuts the old software reads whole."""
    last = played("staged/4-barely/5+1/47-first-word")[-1]
    assert "restoration: the new software failed its trial" in last.outcome.console
    assert last.outcome.violation is None
    assert last.outcome.route == "restored"


def test_the_same_case_is_told_the_same_way(played: Play, tell: Tell) -> None:
    assert tell(played("phonebook/1-half")[-1]) == tell(played("phonebook/1-half")[-1])


def test_a_case_over_a_bad_link(played: Play, tell: Tell) -> None:
    bad, good = played("staged~1")[0], played("staged")[0]
    assert bad.outcome.violation is None
    assert tell(bad) != tell(good)


def test_a_case_that_does_not_exist(played: Play) -> None:
    with pytest.raises(SetupError, match="no power cut 999"):
        played("phonebook/999")


# Waveforms --------------------------------------------------------------------------------------


def parse(text: str) -> dict[str, list[tuple[int, str]]]:
    """Signal name -> (time in ns, value), as IEEE 1364 has it; fails on what it does not know."""
    names, found, now = {}, {}, -1
    header, _, body = text.partition("$enddefinitions $end\n")
    for line in header.splitlines():
        words = line.split()
        if words[0] == "$var":
            names[words[3]] = words[4]
            found[words[4]] = list[tuple[int, str]]()
    assert "$timescale 1 ns $end" in header
    for line in body.splitlines():
        if line.startswith("#"):
            assert int(line[1:]) > now
            now = int(line[1:])
        elif line[0] in "01":
            found[names[line[1:]]].append((now, line[0]))
        elif line[0] in "bs":
            value, code = line[1:].split(" ")
            found[names[code]].append((now, value))
        else:
            assert line in {"$dumpvars", "$end"}
    return found


def test_the_waveform_has_every_operation(
    played: Play,
    wave_of: WaveOf,
) -> None:
    sessions = played("phonebook/1-half")
    wave = wave_of(sessions)
    assert [value for _, value in wave["power"]] == ["0", "1", "0", "1", "0"]
    kinds = [value for _, value in wave["op_kind"] if value != "00"]
    done = [op.kind for op in sessions[0].outcome.ops[:2]]
    done += [op.kind for op in sessions[1].outcome.ops]
    assert kinds == [{"erase": "01", "buffer": "10", "word": "11"}[kind] for kind in done]
    userdata, starts = (
        LAYOUT.partition(name).offset // LAYOUT.board.nor.block_size
        for name in ("userdata", "starts")
    )
    blocks = {int(value, 2) for _, value in wave["op_block"][1:]}
    assert blocks <= {userdata, userdata + 1, starts}
    off = wave["power"][2][0]
    assert off == round(sessions[0].end * 1e9)
    assert any(time == off and value == "0" for time, value in wave["nor_low_busy"])
    for name in ("uart0_tx", "uart0_rx", "uart1_tx", "uart1_rx", "nor_low_busy", "nor_high_busy"):
        values = [value for _, value in wave[name]]
        assert values == ["0", "1"] * (len(values) // 2) + ["0"], name  # every 1 ends
        assert len(values) > 2, name


def test_the_waveform_shows_the_server(
    played: Play,
    wave_of: WaveOf,
) -> None:
    states = [value for _, value in wave_of(played("staged"))["server"]]
    assert states[0] == "none"
    assert states[-1] == "succeeded"
    assert states.index("transferring") < states.index("rewriting")


# From the command line --------------------------------------------------------------------------


@pytest.fixture
def invoke(unbrick_releases: Releases) -> Callable[..., Result]:
    folder = unbrick_releases.firmware.boot.elf.parent
    return lambda *words: CliRunner().invoke(cli, ["replay", *words, "--firmware", str(folder)])


def test_replay_on_the_command_line(invoke: Callable[..., Result], tmp_path: Path) -> None:
    last = invoke("phonebook/1-half")
    assert last.exit_code == 0, last.output
    assert "session phonebook/1-half" in last.output
    assert "LOST" not in last.output
    wave = tmp_path / "case.vcd"
    every = invoke("phonebook/1-half", "--all", "--vcd", str(wave))
    assert every.exit_code == 0, every.output
    assert "LOST in operation 1, torn: half" in every.output
    assert parse(wave.read_text())["power"]


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        # What fails whenever a cell has changed needs the first operations (0 and 1 affirm).
        (lambda state, start: state.cells != start.cells, "unbrick replay phonebook/3\n"),
        # What fails without a power cut needs none, and no bad link.
        (lambda *_: True, "unbrick replay phonebook\n"),
        (lambda *_: False, "every invariant holds"),
    ],
)
def test_a_case_is_reduced_to_what_it_needs(
    unbrick_releases: Releases,
    invoke: Callable[..., Result],
    monkeypatch: pytest.MonkeyPatch,
    broken: Callable[[State, State], bool],
    said: str,
) -> None:
    start = find_target("phonebook", unbrick_releases).start()
    run = ReferenceTarget.run

    def bad(target: ReferenceTarget, state: State, fate: Fate, *rest: Any) -> Outcome:
        outcome = run(target, state, fate, *rest)
        kind = ("data-lost", "Alice is gone") if broken(state, start) else None
        return replace(outcome, violation=kind)

    monkeypatch.setattr(ReferenceTarget, "run", bad)
    done = invoke("phonebook~1/3-half+1/0", "--minimise")
    assert said in done.output, done.output


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["phonebook/x"], "not a case ID"),
        (["nothing/1"], "there is no scenario"),
        (["phonebook/999"], "has no power cut 999"),
        (["phonebook", "--vcd", "/nowhere/at/all.vcd"], "cannot be written"),
    ],
)
def test_wrong_calls_end_with_2(invoke: Callable[..., Result], words: list[str], said: str) -> None:
    done = invoke(*words)
    assert done.exit_code == 2, done.output
    assert said in done.output
