"""The pytest plugin: fixtures for a terminal, its server and link, and for firmware of your own.

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

Firmware of your own, which a target's file describes, and a campaign of it::

    @pytest.mark.unbrick("target.toml", preset="full")
    def test_no_cut_bricks_it(unbrick_campaign):
        assert unbrick_campaign.closed

    @pytest.mark.unbrick("target.toml")
    def test_one_cut(unbrick_target):
        unbrick_target.console.expect("APP v1")
        unbrick_target.start_update()
        unbrick_target.cut_before_operation(12)
        unbrick_target.recover()

``--unbrick-engine`` chooses the engine of the terminal. What the engine cannot know skips the test
that asks for it. When a test fails, the report shows the end of each console.

Pytest loads every plugin that is installed, also for tests that have nothing to do with terminals.
So this module imports no more than names and errors; the fixtures import what they need.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from unbrick.engine import ENGINES
from unbrick.errors import (
    CannotBeginError,
    MissingToolError,
    NotKnownHereError,
    SetupError,
    UnbrickError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Mapping

    from unbrick.bench.console import Console
    from unbrick.campaign.target import Target
    from unbrick.firmware.signed import Releases
    from unbrick.link.simulated import SimulatedLink
    from unbrick.reference.system import System
    from unbrick.report.model import ScenarioReport
    from unbrick.server.core.core import ServerCore
    from unbrick.started import StartedTarget

CONSOLE_TAIL = 3000
"""Characters of the terminal's console that a failure shows."""

TARGET_SUFFIX = ".toml"
"""What the name of a target's file ends with."""

OPTIONS = ("preset", "depth", "stop_early")
"""Of the markers: how far a campaign goes."""


def pytest_configure(config: pytest.Config) -> None:
    """The markers ``unbrick`` and ``unbrick_campaign``."""
    config.addinivalue_line(
        "markers",
        "unbrick(*targets, preset='single', depth=None, stop_early=False): run a test that takes "
        "the fixture `unbrick_target` or `unbrick_campaign` once for each file TARGET.toml, named "
        "from the folder of the test's file; a violation of the campaign fails it.",
    )
    config.addinivalue_line(
        "markers",
        "unbrick_campaign(*scenarios, preset='quick', depth=None, stop_early=False): run a test "
        "that takes the fixture `unbrick_campaign` once for each scenario (all of them by default) "
        "or file TARGET.toml; a violation fails it.",
    )


@dataclass(frozen=True)
class _Asked:
    """What a marker asks for.

    Attributes:
        what: a target's file, or the name of a scenario.
        options: how far a campaign goes.
    """

    what: Path | str
    options: Mapping[str, object]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Make a test for each target, or scenario of a campaign."""
    takes = metafunc.fixturenames
    target = campaign = metafunc.definition.get_closest_marker("unbrick")
    scenarios = metafunc.definition.get_closest_marker("unbrick_campaign")
    if "unbrick_target" not in takes:
        target = None
    if "unbrick_campaign" not in takes:
        campaign = None
    elif scenarios is not None:
        campaign = scenarios
    if target is not None and target is campaign:
        _parametrize(metafunc, target, "unbrick_target", "unbrick_campaign")
        return
    if target is not None:
        _parametrize(metafunc, target, "unbrick_target")
    if campaign is not None:
        _parametrize(metafunc, campaign, "unbrick_campaign")


def _parametrize(metafunc: pytest.Metafunc, marker: pytest.Mark, *fixtures: str) -> None:
    """Make a test for each name of a marker, and hand it to the fixtures."""
    names = tuple(map(str, marker.args))
    if not names and marker.name == "unbrick_campaign":
        names = _all_scenarios()
    if names:
        folder = metafunc.definition.path.parent
        asked = [(_ask(name, folder, marker),) * len(fixtures) for name in names]
        ids = [Path(name).name if Path(name).is_absolute() else name for name in names]
        metafunc.parametrize(fixtures, asked, indirect=True, ids=ids)


def _ask(name: str, folder: Path, marker: pytest.Mark) -> _Asked:
    is_file = marker.name == "unbrick" or name.endswith(TARGET_SUFFIX)
    return _Asked(folder / name if is_file else name, marker.kwargs)


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
    wrong: UnbrickError
    try:
        yield
    except NotKnownHereError:
        raise
    except (SetupError, CannotBeginError) as error:
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
        consoles.append((f"console of {system.serial} on {system.engine.name}", system.console))
        return system

    consoles = request.node.stash.setdefault(_CONSOLES, [])
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
def unbrick_target(request: pytest.FixtureRequest) -> Iterator[StartedTarget]:
    """A device with firmware of your own, which a target's file describes, just started.

    The marker ``unbrick`` names the file. What [update] stages is in its flash.
    """
    asked = _find_asked(request, '@pytest.mark.unbrick("target.toml")')
    with _in_one_line():
        from unbrick.started import StartedTarget  # noqa: PLC0415
        from unbrick.target.target import FileTarget  # noqa: PLC0415

        started = StartedTarget(FileTarget.load(Path(asked.what), tried=False))
    name = started.target.name
    request.node.stash.setdefault(_CONSOLES, []).append((f"console of {name}", started.console))
    started.power_on()
    yield started
    started.close()


@pytest.fixture
def unbrick_campaign(request: pytest.FixtureRequest) -> ScenarioReport:
    """What a search has found; the test fails when an invariant does not hold.

    The marker ``unbrick`` names a target's file; the marker ``unbrick_campaign`` names scenarios.
    Both have ``preset``, ``depth`` and ``stop_early``.
    """
    asked = _find_asked(request, "@pytest.mark.unbrick_campaign(…)")
    with _in_one_line():
        report = _search(request, asked)
    if report.violations:
        from unbrick.report.formats import tell_violations_briefly  # noqa: PLC0415

        pytest.fail(tell_violations_briefly(report), pytrace=False)
    return report


def _find_asked(request: pytest.FixtureRequest, example: str) -> _Asked:
    """What the test's marker asks for."""
    if not hasattr(request, "param"):
        pytest.fail(f"mark the test with {example}", pytrace=False)
    asked: _Asked = request.param
    return asked


def _search(request: pytest.FixtureRequest, asked: _Asked) -> ScenarioReport:
    from unbrick.campaign.run import PRESETS, run_campaign  # noqa: PLC0415
    from unbrick.report.model import report_scenario  # noqa: PLC0415

    for option in asked.options:
        if option not in OPTIONS:
            raise SetupError(
                f"a campaign has no option {option!r}", hint=f"choose from {', '.join(OPTIONS)}"
            )
    is_file = isinstance(asked.what, Path)
    preset = asked.options.get("preset", "single" if is_file else "quick")
    if preset not in PRESETS:
        raise SetupError(f"there is no preset {preset!r}", hint=f"choose from {', '.join(PRESETS)}")
    bounds = PRESETS[str(preset)]
    depth = asked.options.get("depth")
    if depth is not None:
        if not isinstance(depth, int) or depth < 0:
            raise SetupError(f"depth is {depth!r}", hint="it is a number of power cuts")
        bounds = replace(bounds, depth=depth)
    stop_early = asked.options.get("stop_early", False)
    if not isinstance(stop_early, bool):
        raise SetupError(
            f"stop_early is {stop_early!r}", hint="with True the first violation ends the campaign"
        )
    bounds = replace(bounds, stop_early=stop_early)
    target = _find_target(request, asked.what)
    return report_scenario(run_campaign(target, bounds=bounds, exhaustive=preset == "exhaustive"))


def _find_target(request: pytest.FixtureRequest, what: Path | str) -> Target:
    if isinstance(what, Path):
        from unbrick.target.target import FileTarget  # noqa: PLC0415

        return FileTarget.load(what)
    from unbrick.reference.target import find_target  # noqa: PLC0415

    # Who tests firmware of their own does not build ours.
    return find_target(what, request.getfixturevalue("unbrick_releases"))


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


_CONSOLES = pytest.StashKey["list[tuple[str, Console]]"]()
"""The title and the console of each device of a test."""


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
        for title, console in item.stash.get(_CONSOLES, [])[-2:]:
            report.sections.append((title, console.text[-CONSOLE_TAIL:]))
    return report
