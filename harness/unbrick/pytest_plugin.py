"""The pytest plugin: fixtures for a terminal, its server and the link between them.

::

    def test_update(system):
        system.power_on()
        system.wait_registered()
        system.update_to("1.1.0")
        assert "1.1.0" in system.console.command("version")

A campaign as tests, one for each scenario::

    @pytest.mark.campaign("staged", "phonebook", preset="quick")
    def test_power_cuts(campaign):
        assert campaign.states > 5

``--engine`` chooses the engine; tests that take ``system`` run on it. What it cannot know skips the
test that asks for it. When one fails, the report
shows the end of the terminal's console.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from unbrick.bench.system import System
from unbrick.campaign.presets import PRESETS
from unbrick.campaign.run import Here
from unbrick.campaign.scenario import SCENARIOS, find_scenario
from unbrick.campaign.search import search
from unbrick.campaign.session import initial_state, run_session
from unbrick.engine.create import ENGINES, create_engine
from unbrick.engine.inprocess import InProcessEngine
from unbrick.errors import MissingToolError, NotKnownHereError
from unbrick.image.release import Releases, make_releases
from unbrick.report.formats import how_to_replay
from unbrick.report.model import ScenarioReport, scenario_report

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from unbrick.bench.console import Console
    from unbrick.link.simulated import SimulatedLink
    from unbrick.server.core import ServerCore

TAIL = 3000  # characters of the console that a failure shows


def pytest_configure(config: pytest.Config) -> None:
    """The marker ``campaign``."""
    config.addinivalue_line(
        "markers",
        "campaign(*scenarios, preset='quick'): run a test that takes the fixture `campaign` once "
        "for each scenario (all of them by default); a violation fails it.",
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Make a test for each scenario of a campaign."""
    marker = metafunc.definition.get_closest_marker("campaign")
    if marker is not None and "campaign" in metafunc.fixturenames:
        names = marker.args or tuple(SCENARIOS)
        preset = str(marker.kwargs.get("preset", "quick"))
        metafunc.parametrize(
            "campaign", [(str(name), preset) for name in names], indirect=True, ids=names
        )


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--engine NAME``, ``--board FILE`` and ``--firmware-folder DIR``."""
    group = parser.getgroup("unbrick")
    group.addoption("--engine", choices=ENGINES, default="inprocess", help="what runs the terminal")
    group.addoption(
        "--board",
        type=Path,
        help="with --engine serial: the file that describes the board (UNBRICK_BOARD, board.toml)",
    )
    group.addoption(
        "--firmware-folder",
        default="build/firmware",
        help="where the firmware is built, and kept between runs",
    )


@pytest.fixture(scope="session")
def engine_name(request: pytest.FixtureRequest) -> str:
    """The engine that this run asks for."""
    return str(request.config.getoption("--engine"))


@pytest.fixture(scope="session")
def releases(request: pytest.FixtureRequest) -> Releases:
    """The firmware, built once and signed with the development key."""
    folder = Path(str(request.config.getoption("--firmware-folder")))
    if not folder.is_absolute():
        folder = request.config.rootpath / folder
    return make_releases(folder)


@pytest.fixture
def make_system(
    request: pytest.FixtureRequest, releases: Releases, engine_name: str
) -> Iterator[Callable[..., System]]:
    """Makes reference systems: ``make_system(installed="1.0.0", faults=…, engine="qemu")``.

    With ``speed`` its virtual time goes by the clock, so that other programs can take part.
    The test is skipped, visibly, when the engine is not on this machine.
    """
    systems: list[System] = []

    def make(*, engine: str | None = None, speed: float | None = None, **options: Any) -> System:
        name = engine or engine_name
        board = request.config.getoption("--board")
        try:
            made = create_engine(name, releases.elf_files, speed=speed, board=board)
        except MissingToolError as error:
            pytest.skip(f"{error} ({error.hint})")
        try:
            system = System(made, releases, **options)
        except BaseException:
            made.close()
            raise
        systems.append(system)
        return system

    request.node.stash[_SYSTEMS] = systems
    yield make
    for system in systems:
        system.engine.close()


@pytest.fixture
def system(make_system: Callable[..., System]) -> System:
    """A terminal with release 1.0.0, powered off, its server and a link without faults."""
    return make_system()


@pytest.fixture
def terminal(system: System) -> Console:
    """The console of a terminal that has just started."""
    system.power_on()
    return system.console


@pytest.fixture
def server(system: System) -> ServerCore:
    """The server of ``system``."""
    return system.server


@pytest.fixture
def link(system: System) -> SimulatedLink:
    """The wireless link of ``system``."""
    return system.link


@pytest.fixture
def campaign(request: pytest.FixtureRequest, releases: Releases) -> ScenarioReport:
    """What a search of a scenario has found; the test fails when an invariant does not hold.

    The marker ``campaign`` says which scenarios and which preset.
    """
    if not hasattr(request, "param"):
        pytest.fail("mark the test with @pytest.mark.campaign(…)", pytrace=False)
    name, preset = request.param
    engine = InProcessEngine(releases.elf_files)
    try:
        scenario = find_scenario(name)
        start = initial_state(engine, releases, scenario)
        run = partial(run_session, engine, releases)
        report = scenario_report(search(scenario, start, run, Here(), PRESETS[preset]), start)
    finally:
        engine.close()
    if report.violations:
        lines = [f"{c.id}: {c.kind}: {c.text}\n    {how_to_replay(c)}" for c in report.violations]
        pytest.fail("\n".join([report.statement, *lines[:20]]), pytrace=False)
    return report


def _skip_what_is_not_known() -> Generator[None, object, object]:
    try:
        return (yield)
    except NotKnownHereError as error:
        pytest.skip(f"{error} ({error.hint})" if error.hint else str(error))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup() -> Generator[None, object, object]:
    """A fixture that needs what the engine cannot know skips the test, visibly."""
    return (yield from _skip_what_is_not_known())


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Generator[None, object, object]:
    """So does the test itself."""
    return (yield from _skip_what_is_not_known())


_SYSTEMS = pytest.StashKey[list[System]]()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Show the end of each terminal's console with a failure."""
    outcome = yield
    report: pytest.TestReport = outcome.get_result()  # type: ignore[attr-defined]
    if report.when == "call" and report.failed:
        for system in item.stash.get(_SYSTEMS, [])[-2:]:
            title = f"console of {system.serial} on {system.engine.name}"
            report.sections.append((title, system.console.text[-TAIL:]))
