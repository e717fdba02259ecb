"""Tries to refute a search of each target: what it judged without a session is run after all."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest
import test_ab_updater
import test_in_place
from brickproof_demo import find_demo, list_builds
from judged_states import find_refuted_form, find_unfollowed, search_target

from unbrick.campaign.refute import MOST_CUTS, try_states
from unbrick.campaign.search import Bounds
from unbrick.target.target import FileTarget

STATES = 300
"""Runs of each target: random states, at most so many power cuts deep as the search went."""

CUTS = 500
"""Of those in members' sessions, so many are held against what the proof asks for."""

ANY = Bounds()
ONE_CUT = Bounds(depth=1)
TOOLS = Path(__file__).parents[1] / "tools"

Make = Callable[[Path, pytest.MonkeyPatch], Path]


def make_example(chip: str) -> Make:
    return lambda folder, _: test_ab_updater.build(folder, chip)


def make_in_place(folder: Path, _: pytest.MonkeyPatch) -> Path:
    return test_in_place.build(folder)


def make_demo(name: str) -> Make:
    """A correct build of brickproof's demo."""

    def make(folder: Path, _: pytest.MonkeyPatch) -> Path:
        demo = find_demo()
        if demo is None:
            pytest.skip("brickproof-fw is not installed")
        (build,) = (build for build in list_builds(demo) if build.name == name)
        return build.write_target(folder)

    return make


def make_formed_demo(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    make_demo("f103")(folder, monkeypatch)
    monkeypatch.syspath_prepend(TOOLS)
    bench = importlib.import_module("bench_search")
    return Path(bench.build_formed_demo(folder).file)


TARGETS: dict[str, tuple[Make, Bounds]] = {
    "example-nrf52840": (make_example("nrf52840"), ANY),
    "example-stm32f103": (make_example("stm32f103"), ANY),
    "in-place": (make_in_place, ONE_CUT),
    "demo-f103": (make_demo("f103"), ONE_CUT),
    "demo-f411": (make_demo("f411"), ONE_CUT),
    "demo-h563": (make_demo("h563"), ONE_CUT),
    "demo-l476": (make_demo("l476"), ONE_CUT),
    "demo-nrf52": (make_demo("nrf52"), ONE_CUT),
    "formed-demo-f103": (make_formed_demo, ANY),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", TARGETS)
def test_what_was_not_run_is_as_it_was_said(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, bounds = TARGETS[name]
    search = search_target(FileTarget.load(make(tmp_path, monkeypatch)), bounds)
    assert find_unfollowed(search, CUTS, bounds.depth) == ""
    if search.result.formed:
        assert find_refuted_form(search, Random(0), STATES) == ""
        return
    tried = try_states(
        search, Random(0), STATES, MOST_CUTS if bounds.depth is None else bounds.depth
    )
    assert tried.difference == ""
    assert tried.unrun > STATES // 10
