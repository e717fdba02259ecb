"""A first taste of the campaign: the power is cut before flash operations of a staged update.

After each cut the terminal runs a valid application or sits in the restoration state.
"""

from __future__ import annotations

import re
from itertools import groupby
from typing import TYPE_CHECKING

import pytest

from unbrick.engine.inprocess import InProcessEngine
from unbrick.layout import reference_layout
from unbrick.server.records.updates import UpdateState

if TYPE_CHECKING:
    from collections.abc import Callable

    from unbrick.flash.ops import FlashOp
    from unbrick.reference.system import System

BLOCK = reference_layout().board.nor.block_size

RESTORED = 8
"""Of so many terminals in a row that wait for the wire, one is restored: for each it is the same
transfer."""

EVERY = 6
"""Of operations of one kind on one block, the first and the last are cut, and each of so many."""

RUNS = re.compile(r"terminal: .* (1\.[01]\.0)")
WAITS = "restoration: send the signed image by YMODEM"


def start_update(system: System) -> InProcessEngine:
    system.power_on()
    system.wait_registered()
    system.console.command("pb add Alice 12345")
    system.publish("1.1.0")
    assert isinstance(system.engine, InProcessEngine)
    return system.engine


def pick_operations(ops: list[FlashOp], first: int) -> list[int]:
    """The numbers of operations from ``first`` on before which the power is cut."""
    what = [(op.kind, op.offset // BLOCK) for op in ops]
    return [
        number
        for number in range(first, len(ops))
        if not number % EVERY
        or len(set(what[number - 1 : number + 2])) > 1
        or number + 1 == len(ops)
    ]


@pytest.mark.slow(first=True)
def test_a_cut_before_any_operation_of_the_update_bricks_nothing(
    unbrick_make_system: Callable[..., System],
) -> None:
    golden = unbrick_make_system()
    engine = start_update(golden)
    first = len(engine.ops)
    golden.update_to("1.1.0")
    operations = pick_operations(engine.ops, first)
    assert len(operations) > 20
    outcomes = []
    for operation in operations:
        system = unbrick_make_system()
        engine = start_update(system)
        assert len(engine.ops) == first, "the same run up to the update"
        engine.cut_before_op(operation)
        update = system.start_update("1.1.0")
        reached = system.bench.run_until(lambda engine=engine: engine.cut_reached, 300)
        assert reached, f"operation {operation} did not come"
        system.bench.cut_power()
        engine.cut_before_op(None)
        engine.power_on()
        match = system.console.expect_pattern(f"{RUNS.pattern}|{re.escape(WAITS)}", 60)
        if match.group() == WAITS:
            outcomes.append("restoration")
            assert system.update(update).state is not UpdateState.SUCCEEDED
            if outcomes.count("restoration") % RESTORED != 1:
                engine.close()
                continue
            system.restore(system.releases.signed["1.1.0"])
        else:
            outcomes.append(match.group(1))
        system.restart()
        assert "Alice" in system.console.command("pb list")
        engine.close()
    # Before the erase the old software runs, after the last word the new one, in between none.
    order = [outcome for outcome, _ in groupby(outcomes)]
    assert order == ["1.0.0", "restoration", "1.1.0"], outcomes
