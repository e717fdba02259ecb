"""What a terminal is offered, and how its NOR is drawn."""

from __future__ import annotations

import pytest
from center_world import SERIAL, World
from server_world import inspect, make_image

from unbrick.center.calls.machine import Need
from unbrick.center.page.nor_map import BlockMark, draw_nor_map, find_blocks
from unbrick.layout import reference_layout
from unbrick.wire.messages import Result, TerminalState

LAYOUT = reference_layout()


@pytest.fixture
def world() -> World:
    return World()


def need(world: World) -> tuple[Need, str]:
    now = world.center.desk.situation_now(SERIAL)
    return now.need, now.new


def test_the_newest_release_is_offered_by_number_not_by_letters(world: World) -> None:
    world.register(version="1.9.0+0")
    for version in ("1.8.0+0", "1.10.0+0", "1.9.5+2"):
        world.publish(make_image(version))
    assert need(world) == (Need.NEEDED, "1.10.0+0")


def test_what_is_not_offered(world: World) -> None:
    assert need(world) == (Need.UNKNOWN, "")
    world.register(security_counter=5)
    assert need(world) == (Need.UNNECESSARY, "")
    world.publish(make_image("2.0.0+0", hardware_id="other"))
    world.publish(make_image("3.0.0+0", counter=4))
    assert need(world) == (Need.UNNECESSARY, ""), "for others, and older than it takes"
    world.publish(make_image("0.9.0+0", counter=5))
    assert need(world) == (Need.UNNECESSARY, ""), "older"
    world.publish(make_image("1.0.1+0", counter=5))
    assert need(world) == (Need.NEEDED, "1.0.1+0")
    world.register(security_counter=9, state=TerminalState.RESTORATION)
    assert need(world) == (Need.UNNECESSARY, "")


def test_what_is_under_way_is_not_offered_again(world: World) -> None:
    world.register()
    world.publish()
    update = world.core.start_update(SERIAL, "1.1.0", 0.0)
    assert need(world) == (Need.UNDER_WAY, "1.1.0+0")
    world.core.cancel_update(update.id, 0.0)
    assert need(world) == (Need.NEEDED, "1.1.0+0")


def test_what_has_failed_its_trial_there_is_not_offered_again(world: World) -> None:
    base = make_image("1.0.0+0")
    runs = inspect(base).digest
    world.publish(base)
    world.publish()
    world.register(digest=runs)
    update = world.core.start_update(SERIAL, "1.1.0", 0.0).id
    world.core.poll(0.0)
    verdict = {"last_update_id": update, "last_result": Result.TRIAL_FAILED}
    world.register(digest=bytes(32), state=TerminalState.RESTORATION, **verdict)
    restoration = world.core.records.updates(SERIAL)[-1]
    assert restoration.restoration
    verdict = {"last_update_id": restoration.id, "last_result": Result.RESTORED_BY_LINK}
    world.register(digest=runs, **verdict)
    assert need(world) == (Need.UNNECESSARY, "")
    assert "1.1.0+0 has failed its trial there" in world.center.desk.situation_now(SERIAL).why
    world.publish(make_image("1.1.1+0"))
    assert need(world) == (Need.NEEDED, "1.1.1+0")


def test_the_map_has_every_block_and_how_much_of_it_the_software_takes() -> None:
    size = LAYOUT.board.nor.block_size
    application = LAYOUT.partition("application").offset // size
    blocks = draw_nor_map(size + size // 2, {application: (BlockMark.ERASING, 0)})
    assert [block.offset for block in blocks] == list(range(0, LAYOUT.board.nor.modelled, size))
    filled = [block.filled for block in blocks[application : application + 4]]
    assert filled == [100, 50, 0, 0]
    assert {block.partition for block in blocks} == {
        *(part.name for part in LAYOUT.partitions),
        "spare",
    }
    assert blocks[application].words == "application, 1024 KiB, 100 % used, being erased"
    assert [block for block in blocks if block.mark] == [blocks[application]]


@pytest.mark.parametrize(
    ("offset", "length", "numbers"),
    [(0, 0, []), (0, 1, [0]), (0x3FFFF, 2, [0, 1]), (0x40000, 0x40000, [1]), (5, -1, [])],
)
def test_the_blocks_that_a_range_touches(offset: int, length: int, numbers: list[int]) -> None:
    assert list(find_blocks(offset, length)) == numbers
