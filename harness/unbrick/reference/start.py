"""Where a scenario begins: a terminal that was really run, and the server that it met."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from unbrick.campaign.target import State
from unbrick.errors import CannotBeginError
from unbrick.flash.cells import Cells
from unbrick.image.factory import derive_bench_key, make_factory_image
from unbrick.reference.layout import SLOT_SIZE, find_places
from unbrick.reference.session import run_session
from unbrick.reference.story import SERIAL, inspect_once

if TYPE_CHECKING:
    from unbrick.engine.base import TracedEngine
    from unbrick.firmware.signed import Releases
    from unbrick.reference.scenario import Scenario


def find_images(releases: Releases) -> dict[bytes, bytes]:
    """The signed software, by digest."""
    return {inspect_once(image).digest: image for image in releases.signed.values()}


def make_initial_state(engine: TracedEngine, releases: Releases, scenario: Scenario) -> State:
    """Where a scenario begins, made by really running the terminal.

    Raises:
        SetupError: the firmware lacks a release that the scenario plays with.
        CannotBeginError: the terminal does not come that far without any fault.
    """
    releases.require(scenario.releases, f"the scenario {scenario.name}")
    application = None if scenario.installed is None else releases.signed[scenario.installed]
    cells = Cells.of(
        make_factory_image(releases.boot, application, SERIAL, key=derive_bench_key(SERIAL)),
        find_places().geometry,
    )
    if scenario.fresh or scenario.installed is None:
        return State(cells, None)
    before = scenario.preparation
    outcome = run_session(engine, releases, before, State(cells, None))
    if outcome.violation or outcome.final is None:
        raise CannotBeginError(
            f"the scenario {scenario.name} cannot begin: without any fault it comes to this: "
            + ": ".join(outcome.violation or ("the session has no end",)),
            hint=f"see it with: unbrick replay {before.name}",
        )
    state, log = outcome.final, find_places()
    if scenario.journal_free is not None:
        state = State(_fill(state.cells, log.journal.offset, scenario.journal_free), state.peers)
    if scenario.phonebook_free is not None:
        state = State(_fill(state.cells, log.userdata.offset, scenario.phonebook_free), state.peers)
    if scenario.phonebook_moved:
        state = State(_move(state.cells, log.userdata.offset), state.peers)
    return state


def _move(cells: Cells, offset: int) -> Cells:
    """Have a record log in its other half: there it is after another compaction."""
    blocks, first = list(cells.blocks), offset // find_places().block
    blocks[first], blocks[first + 1] = blocks[first + 1], blocks[first]
    return replace(cells, blocks=tuple(blocks))


def _fill(cells: Cells, half: int, free: int) -> Cells:
    """Repeat a record log's newest record until ``free`` slots of ``half`` are left.

    What is behind that record, its seal, stays behind the last one.
    """
    size = find_places().block
    block = cells.blocks[half // size]
    used = len(block) + -len(block) % SLOT_SIZE
    slots = cells.read(half, used)
    end = -(-len(slots.rstrip(b"\0")) // SLOT_SIZE) * SLOT_SIZE  # of the newest record
    count = (size - used) // SLOT_SIZE - free
    return cells.with_range(half + end, slots[end - SLOT_SIZE : end] * count + slots[end:])
