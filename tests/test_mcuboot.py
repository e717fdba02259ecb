"""MCUboot, before and after its fixes: each build is found out or clean (docs/mcuboot.md).

Its firmware is no part of this repository: UNBRICK_CORPUS names the folder that has it.
"""

from __future__ import annotations

import runpy
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
from corpus import why_no_clone
from judged_states import search_target

from unbrick.campaign.behaviour import BehaviourSearch
from unbrick.campaign.case import CaseId
from unbrick.campaign.run import run_campaign
from unbrick.campaign.search import Bounds, find_cells, find_cuts
from unbrick.campaign.target import Fate, State
from unbrick.errors import SetupError, UpdateNeverWorksError
from unbrick.image.mcuboot import MAGIC
from unbrick.packages import run_by_hand
from unbrick.target.target import FileTarget

PREPARE = runpy.run_path(
    str(Path(__file__).parents[1] / "examples" / "mcuboot" / "prepare.py"), run_name="prepare"
)
NO_CLONE = why_no_clone(PREPARE["find_corpus"])

SINGLE = Bounds(depth=1)
CUTS_ALONE = Bounds(depth=1, shapes="none")
ANY = Bounds()
SURE = Bounds(shapes="sure")

AT_ONCE = {"pr2199": "afterwards", "pr2206": "bricked"}
"""Pairs whose bug needs no power cut, and the kind of what comes of it."""

BY_CUTS = {
    "pr1597": CUTS_ALONE,
    "pr2100": SINGLE,
    "pr2109": CUTS_ALONE,
    "scratch": CUTS_ALONE,
}
"""Pairs whose bug needs one, and how it is searched for."""

CLEAN = {
    "pr1597-fixed": CUTS_ALONE,
    "pr2100-fixed": SINGLE,
    "pr2109-fixed": SINGLE,
    "pr2199-fixed": ANY,
    "pr2205-broken": CUTS_ALONE,
    "pr2205-fixed": SINGLE,
    "scratch-fixed": CUTS_ALONE,
}
"""Builds in which nothing is found, as far as a search of a minute goes."""


@pytest.fixture(scope="module")
def targets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, FileTarget]:
    """All builds by name."""
    if NO_CLONE:
        pytest.skip(NO_CLONE)
    found = PREPARE["prepare"](tmp_path_factory.mktemp("mcuboot"))
    return {name: FileTarget.load(path) for name, path in found.items()}


def test_the_corpus_is_there(targets: dict[str, FileTarget]) -> None:
    assert len(targets) == 2 * len(PREPARE["PAIRS"]) + 1  # and one with a form of its own


def test_a_corpus_that_is_not_named_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("UNBRICK_CORPUS", raising=False)
    with pytest.raises(SetupError, match="UNBRICK_CORPUS names no folder with a clone"):
        PREPARE["find_corpus"]()


def test_another_folder_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("UNBRICK_CORPUS", str(tmp_path))
    with pytest.raises(SetupError, match=r"oss_mcuboot_pr1597_stm32f4_broken\.elf is missing"):
        PREPARE["find_corpus"]()


def test_a_script_that_cannot_prepare_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("UNBRICK_CORPUS", raising=False)
    with pytest.raises(SystemExit, match=r"names no folder .*\nclone github\.com/"):
        run_by_hand(PREPARE["prepare"], "all is there")
    assert capsys.readouterr().out == ""
    run_by_hand(lambda: None, "all is there")
    assert capsys.readouterr().out == "all is there\n"


def test_a_clone_is_found_beside_others(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("UNBRICK_CORPUS", str(tmp_path))
    assets = tmp_path / "tardigrade" / PREPARE["ASSETS"]
    assets.mkdir(parents=True)
    for name in PREPARE["list_files"]():
        (assets / name).touch()
    assert PREPARE["find_corpus"]() == assets


def test_an_image_has_the_size_that_is_asked_for() -> None:
    image = PREPARE["make_image"](b"application!", "2.0.0", 0x3000)
    assert len(image) == 0x3000
    assert int.from_bytes(image[:4], "little") == MAGIC
    assert image[PREPARE["HEADER_SIZE"] :].startswith(b"application!")


def test_a_second_header_is_left_out(tmp_path: Path) -> None:
    room = bytes(PREPARE["HEADER_SIZE"])
    path = tmp_path / "image.bin"
    path.write_bytes(PREPARE["make_image"](room + b"application!", "1.0.0"))
    assert PREPARE["read_application"](path) == b"application!"


def find_refuted(search: BehaviourSearch, dice: Random, count: int, most_cuts: int = 8) -> str:
    """Run random states as they are, not as they count: the first whose verdict is another one.

    Empty: there is none.
    """
    target, seen = search.result.target, 0
    with target.create_engine() as engine:
        while seen < count:
            case, state = CaseId(target.name), target.start()
            for _ in range(most_cuts + 1):
                said = search.judge(state)
                outcome = target.run(state, Fate(), engine)
                seen += 1
                if said is None or bool(said[0].outcome.violation) != bool(outcome.violation):
                    return str(case)
                if outcome.violation:
                    break
                cuts = find_cuts(case, outcome, state.cells.geometry, shapes=SURE.shapes)
                case, peers = dice.choice(list(cuts))
                state = State(find_cells(state.cells, outcome.ops, case.cuts[-1]), peers)
    return ""


@pytest.mark.slow
class TestSearches:
    """What docs/mcuboot.md says; :func:`test_the_corpus_is_there` tells when it cannot run."""

    __test__ = not NO_CLONE

    @pytest.mark.parametrize(("pair", "kind"), AT_ONCE.items())
    def test_a_bug_is_found_without_a_cut(
        self, targets: dict[str, FileTarget], pair: str, kind: str
    ) -> None:
        with pytest.raises(UpdateNeverWorksError, match=f"does not work: {kind}:"):
            targets[f"{pair}-broken"].start()
        targets[f"{pair}-fixed"].start()

    @pytest.mark.parametrize(("pair", "bounds"), BY_CUTS.items())
    def test_a_bug_is_found(
        self, targets: dict[str, FileTarget], pair: str, bounds: Bounds
    ) -> None:
        result = run_campaign(targets[f"{pair}-broken"], bounds=replace(bounds, stop_early=True))
        assert len(result.violations) == 1

    @pytest.mark.parametrize(("name", "bounds"), CLEAN.items())
    def test_a_build_is_clean(
        self, targets: dict[str, FileTarget], name: str, bounds: Bounds
    ) -> None:
        result = run_campaign(targets[name], bounds=bounds)
        assert result.violations == []
        assert result.closed == (bounds == ANY)

    def test_any_number_of_cuts_is_searched_to_the_end_by_a_form(
        self, targets: dict[str, FileTarget]
    ) -> None:
        search = search_target(targets["pr2100-form"], SURE)
        assert search.result.closed
        assert "pr2100-form/8/1" in map(str, (case.id for case in search.result.violations))
        assert not find_refuted(search, Random(1), 200)
