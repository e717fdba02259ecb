"""The pytest plugin: fixtures for a terminal, its server and the link between them.

::

    def test_update(unbrick_system):
        unbrick_system.power_on()
        unbrick_system.wait_registered()
        unbrick_system.update_to("1.1.0")
        assert "1.1.0" in unbrick_system.console.command("version")

A campaign as tests, one for each scenario::

    @pytest.mark.unbrick_campaign("staged", "phonebook", preset="quick")
    def test_power_cuts(unbrick_campaign):
        assert unbrick_campaign.states > 5

``--unbrick-engine`` chooses the engine. What the engine cannot know skips the test that asks for
it. When a test fails, the report shows the end of the terminal's console.

Pytest loads every plugin that is installed, also for tests that have nothing to do with terminals.
So this module imports no more than names and errors; the fixtures import what they need.
"""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from unbrick.engine import ENGINES
from unbrick.errors import MissingToolError, NotKnownHereError, SetupError, UnbrickError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from unbrick.bench.console import Console
    from unbrick.firmware.signed import Releases
    from unbrick.link.simulated import SimulatedLink
    from unbrick.reference.system import System
    from unbrick.report.model import ScenarioReport
    from unbrick.server.core.core import ServerCore

CONSOLE_TAIL = 3000
"""Characters of the terminal's console that a failure shows."""

VIOLATIONS_SHOWN = 20
"""Violations of a campaign that a failure shows."""


def pytest_configure(config: pytest.Config) -> None:
    """The marker ``unbrick_campaign``."""
    config.addinivalue_line(
        "markers",
        "unbrick_campaign(*scenarios, preset='quick'): run a test that takes the fixture "
        "`unbrick_campaign` once for each scenario (all of them by default); a violation fails it.",
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Make a test for each scenario of a campaign."""
    marker = metafunc.definition.get_closest_marker("unbrick_campaign")
    if marker is not None and "unbrick_campaign" in metafunc.fixturenames:
        names = marker.args or _all_scenarios()
        preset = str(marker.kwargs.get("preset", "quick"))
        metafunc.parametrize(
            "unbrick_campaign", [(str(name), preset) for name in names], indirect=True, ids=names
        )


def _all_scenarios() -> tuple[str, ...]:
    from unbrick.reference.scenario import SCENARIOS  # noqa: PLC0415 - see the module's docstring

    return tuple(SCENARIOS)


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--unbrick-engine NAME``, ``--unbrick-board FILE`` and ``--unbrick-firmware FOLDER``."""
    group = parser.getgroup("unbrick", "terminals (unbrick)")
    group.addoption(
        "--unbrick-engine",
        choices=ENGINES,
        default="inprocess",
        help="What runs the terminal: inprocess (the default), qemu, renode, or serial for a board",
    )
    group.addoption(
        "--unbrick-board",
        type=Path,
        metavar="FILE",
        help="With --unbrick-engine serial: the file that describes the board "
        "(default: $UNBRICK_BOARD, or board.toml)",
    )
    group.addoption(
        "--unbrick-firmware",
        metavar="FOLDER",
        help="Where the firmware is built, and kept between runs (default: build/firmware; the "
        "cache for the firmware of an installed Unbrick)",
    )


@contextmanager
def _in_one_line() -> Iterator[None]:
    """What is wrong with the set-up is said without a traceback: no line of a test caused it."""
    try:
        yield
    except NotKnownHereError:
        raise
    except SetupError as error:
        wrong = error
    except ModuleNotFoundError as error:
        from unbrick.extras import missing_extra  # noqa: PLC0415

        missing = missing_extra(error)
        if missing is None:
            raise
        wrong = missing
    else:
        return
    pytest.fail(f"{wrong} ({wrong.hint})" if wrong.hint else str(wrong), pytrace=False)


@pytest.fixture(scope="session")
def unbrick_engine_name(request: pytest.FixtureRequest) -> str:
    """The name of the engine that this run asks for (``--unbrick-engine``)."""
    return str(request.config.getoption("--unbrick-engine"))


@pytest.fixture(scope="session")
def unbrick_releases(request: pytest.FixtureRequest) -> Releases:
    """The terminal's firmware, built once and signed with the development key."""
    from unbrick.firmware.signed import make_releases  # noqa: PLC0415
    from unbrick.folders import build_folder  # noqa: PLC0415

    root = request.config.rootpath
    given = request.config.getoption("--unbrick-firmware")
    with _in_one_line():
        return make_releases(root / given if given else build_folder(root))


@pytest.fixture
def unbrick_make_system(
    request: pytest.FixtureRequest, unbrick_releases: Releases, unbrick_engine_name: str
) -> Iterator[Callable[..., System]]:
    """Makes systems: ``unbrick_make_system(installed="1.0.0", faults=…, engine="qemu")``.

    With ``speed`` its virtual time goes by the clock, so that other programs can take part.
    The test is skipped, visibly, when the engine is not on this machine.
    """
    from unbrick.engine.create import create_engine  # noqa: PLC0415
    from unbrick.layout import reference_layout  # noqa: PLC0415
    from unbrick.reference.system import System  # noqa: PLC0415

    systems: list[System] = []

    def make(*, engine: str | None = None, speed: float | None = None, **options: Any) -> System:
        name = engine or unbrick_engine_name
        board = request.config.getoption("--unbrick-board")
        try:
            made = create_engine(
                name,
                unbrick_releases.elf_files,
                speed=speed,
                board=reference_layout().board,
                board_file=board,
            )
        except MissingToolError as error:
            pytest.skip(f"{error} ({error.hint})")
        try:
            system = System(made, unbrick_releases, **options)
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
def unbrick_system(unbrick_make_system: Callable[..., System]) -> System:
    """A terminal with release 1.0.0, powered off, its server, and a link without faults."""
    with _in_one_line():
        return unbrick_make_system()


@pytest.fixture
def unbrick_console(unbrick_system: System) -> Console:
    """The console of ``unbrick_system``, whose terminal has just started."""
    unbrick_system.power_on()
    return unbrick_system.console


@pytest.fixture
def unbrick_server(unbrick_system: System) -> ServerCore:
    """The server of ``unbrick_system``."""
    return unbrick_system.server


@pytest.fixture
def unbrick_link(unbrick_system: System) -> SimulatedLink:
    """The wireless link of ``unbrick_system``."""
    return unbrick_system.link


@pytest.fixture
def unbrick_campaign(request: pytest.FixtureRequest, unbrick_releases: Releases) -> ScenarioReport:
    """What a search of a scenario has found; the test fails when an invariant does not hold.

    The marker ``unbrick_campaign`` says which scenarios and which preset.
    """
    if not hasattr(request, "param"):
        pytest.fail("mark the test with @pytest.mark.unbrick_campaign(…)", pytrace=False)
    name, preset = request.param
    with _in_one_line():
        report = _search(unbrick_releases, name, preset)
    if report.violations:
        from unbrick.report.formats import tell_how_to_replay  # noqa: PLC0415

        shown = report.violations[:VIOLATIONS_SHOWN]
        lines = [f"{c.id}: {c.kind}: {c.text}\n    {tell_how_to_replay(c)}" for c in shown]
        pytest.fail("\n".join([report.statement, *lines]), pytrace=False)
    return report


def _search(releases: Releases, name: str, preset: str) -> ScenarioReport:
    from unbrick.campaign.run import PRESETS, run_campaign  # noqa: PLC0415
    from unbrick.reference.target import find_target  # noqa: PLC0415
    from unbrick.report.model import report_scenario  # noqa: PLC0415

    if preset not in PRESETS:
        raise SetupError(f"there is no preset {preset!r}", hint=f"choose from {', '.join(PRESETS)}")
    target = find_target(name, releases)
    return report_scenario(run_campaign(target, bounds=PRESETS[preset]))


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


_SYSTEMS = pytest.StashKey["list[System]"]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show with a failure what to do about it, and the end of each terminal's console."""
    report = yield
    if not report.failed:
        return report
    error = call.excinfo.value if call.excinfo else None
    if isinstance(error, UnbrickError) and error.hint:
        report.sections.append(("what to do", error.hint))
    if report.when == "call":
        for system in item.stash.get(_SYSTEMS, [])[-2:]:
            title = f"console of {system.serial} on {system.engine.name}"
            report.sections.append((title, system.console.text[-CONSOLE_TAIL:]))
    return report
