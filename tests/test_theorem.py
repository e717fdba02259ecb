"""Tries to refute a search of each target: what it judged without a session is run after all."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import NamedTuple

import pytest
import test_ab_updater
import test_in_place
import test_littlefs
from brickproof_demo import find_demo, list_builds
from judged_states import find_refuted_form, find_unfollowed, search_target

from unbrick.campaign.refute import MOST_CUTS, try_states
from unbrick.campaign.search import Bounds
from unbrick.target.target import FileTarget

STATES = 300
"""Runs of a target: random states, at most so many power cuts deep as the search went."""

FEW_STATES = 30
"""The same, where a session takes half a second."""

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


def make_littlefs(folder: Path, _: pytest.MonkeyPatch) -> Path:
    return test_littlefs.build(test_littlefs.load(), folder)


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


class Searched(NamedTuple):
    """A target, how far it is searched, and how many states are run after that."""

    make: Make
    bounds: Bounds = ONE_CUT
    states: int = STATES


TARGETS: dict[str, Searched] = {
    "example-nrf51822": Searched(make_example("nrf51822"), ANY),
    "example-nrf52840": Searched(make_example("nrf52840"), ANY),
    "example-rp2040": Searched(make_example("rp2040"), states=FEW_STATES),
    "example-stm32f103": Searched(make_example("stm32f103"), ANY),
    "in-place": Searched(make_in_place),
    "littlefs": Searched(make_littlefs),
    "demo-f103": Searched(make_demo("f103")),
    "demo-f411": Searched(make_demo("f411")),
    "demo-h563": Searched(make_demo("h563")),
    "demo-l476": Searched(make_demo("l476")),
    "demo-nrf52": Searched(make_demo("nrf52")),
    "formed-demo-f103": Searched(make_formed_demo, ANY),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", TARGETS)
def test_what_was_not_run_is_as_it_was_said(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, bounds, states = TARGETS[name]
    search = search_target(FileTarget.load(make(tmp_path, monkeypatch)), bounds)
    assert find_unfollowed(search, CUTS, bounds.depth) == ""
    if search.result.formed:
        assert find_refuted_form(search, Random(0), states) == ""
        return
    tried = try_states(
        search, Random(0), states, MOST_CUTS if bounds.depth is None else bounds.depth
    )
    assert tried.difference == ""
    assert tried.unrun > states // 10
