"""Rows A1 to A10 and A13: the staged update, on the real ARM binary."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from bug_search import BUILDS
from counted_starts import but_for_starts

from unbrick.engine.inprocess import InProcessEngine
from unbrick.firmware.signed import make_releases
from unbrick.image.format import inspect
from unbrick.layout import reference_layout
from unbrick.reference.system import System
from unbrick.server.records.updates import UpdateState
from unbrick.wire.messages import Result

if TYPE_CHECKING:
    from collections.abc import Callable

    from unbrick.firmware.signed import Releases

LAYOUT = reference_layout()
APPLICATION = LAYOUT.partition("application")


@pytest.fixture(params=["inprocess", "qemu", "renode"])
def registered(
    request: pytest.FixtureRequest, unbrick_make_system: Callable[..., System]
) -> System:
    """A terminal with 1.0.0 that has registered; 1.1.0 is published."""
    system = unbrick_make_system(engine=request.param)
    system.power_on()
    system.wait_registered()
    system.publish("1.1.0")
    return system


def largest_free(system: System) -> int:
    """The largest free piece of SRAM, in bytes, as the terminal's user is told."""
    match = re.search(r"largest free\D+(\d+)", system.console.command("mem"))
    assert match
    return int(match.group(1))


def run_to_the_first_block(system: System) -> None:
    """Run until the file is asked for; what the terminal has said before is in the console then."""
    assert system.bench.run_until(lambda: bool(system.link.fetched), 60)
    system.bench.run_for(0)  # by the clock, what was said before may be read after


def test_claim_a1_sram_is_freed_only_as_much_as_needed_before_the_file_comes(
    registered: System,
) -> None:
    free = largest_free(registered)
    need = len(registered.releases.signed["1.1.0"])
    assert free < need, "the software must really use the SRAM"
    assert "errors" not in registered.console.command("tasks")
    registered.start_update("1.1.0")
    run_to_the_first_block(registered)
    secured = registered.console.expect("update: secured", 0)
    assert re.findall(r"update: limited (\w+)", secured) == ["browser"]
    registered.console.expect("update: received 10 %")
    tasks = registered.console.command("tasks")
    assert re.search(r"browser .*ended", tasks)
    assert re.search(r"media .*running", tasks), "what need not be limited keeps working"


def test_claim_a2_the_transfer_is_requested_after_the_area_is_secured(registered: System) -> None:
    registered.start_update("1.1.0")
    run_to_the_first_block(registered)
    assert "update: secured" in registered.console.text


def test_claim_a3_the_file_is_received_into_the_secured_area_and_nowhere_else(
    unbrick_make_system: Callable[..., System],
) -> None:
    system = unbrick_make_system(engine="inprocess")
    system.power_on()
    system.wait_registered()
    system.publish("1.1.0")
    system.start_update("1.1.0")
    match = system.console.expect_pattern(r"update: secured (\d+) bytes at (0x[0-9a-f]+)")
    size, area = int(match.group(1)), int(match.group(2), 16)
    file = system.releases.signed["1.1.0"]
    assert size >= len(file)
    assert LAYOUT.pool.base <= area
    assert area + size <= LAYOUT.pool.end
    system.console.expect("update: checked")
    assert isinstance(system.engine, InProcessEngine)
    sram = system.engine.read_sram()
    start = area - LAYOUT.board.sram.base
    assert sram[start : start + len(file)] == file
    old = system.releases.signed["1.0.0"]
    elsewhere = sram[:start] + sram[start + len(file) :]
    pieces = [file[i : i + 256] for i in range(0, len(file) - 256, 256)]
    fresh = [piece for piece in pieces if piece not in old and piece.count(piece[0]) < 200]
    # The last block may still lie in the receive buffer of the link.
    assert len([piece for piece in fresh if piece in elsewhere]) <= 5


@pytest.mark.slow
def test_claim_a4_the_application_is_rewritten_from_sram_by_code_in_sram(
    registered: System,
) -> None:
    registered.start_update("1.1.0")
    registered.console.expect("agent: done", 300)
    registered.console.expect("update: 1.1.0 confirmed", 60)
    file = registered.releases.signed["1.1.0"]
    nor = registered.engine.read_nor()
    assert nor[APPLICATION.offset : APPLICATION.offset + len(file)] == file
    # The engine reports any fetch from the chip while it is busy.
    assert registered.engine.faults == []


def test_claim_a5_refused_when_even_limiting_everything_cannot_make_room(
    registered: System,
) -> None:
    for task in ("browser", "media", "maps", "logger"):
        registered.console.command(f"hold {task}")
    before = registered.console.command("tasks")
    update = registered.start_update("1.1.0")
    record = registered.wait_update(update)
    assert record.state is UpdateState.REFUSED
    assert record.result is Result.NOT_ENOUGH_SRAM
    assert re.search(r"\d+", record.text)
    assert registered.link.fetched == []
    registered.console.expect("update: refused")
    assert registered.console.command("tasks") == before


def test_claim_a5_a_held_task_is_spared_and_others_are_limited(registered: System) -> None:
    registered.console.command("hold browser")
    registered.start_update("1.1.0")
    secured = registered.console.expect("update: secured")
    assert re.findall(r"update: limited (\w+)", secured) == ["media"]


def test_claim_a6_the_terminals_identification_reaches_the_server(registered: System) -> None:
    (registration,) = registered.link.registrations[:1]
    assert registration.serial == registered.serial
    assert registration.hardware_id == LAYOUT.hardware_id
    identity = LAYOUT.partition("identity")
    assert (
        registered.serial.encode() in registered.engine.read_nor()[identity.offset : identity.end]
    )


def test_claim_a7_the_identification_of_its_software_reaches_the_server(
    registered: System,
) -> None:
    (registration,) = registered.link.registrations[:1]
    info = inspect(registered.releases.signed["1.0.0"])
    assert registration.digest == info.digest
    assert registration.version == info.version
    assert registration.name == info.name
    assert registration.build_time == info.build_time


@pytest.mark.slow
def test_claim_a9_everything_goes_over_the_wireless_link(registered: System) -> None:
    before = registered.link.bytes_down
    registered.start_update("1.1.0")
    registered.console.expect("update: checked", 300)
    file = registered.releases.signed["1.1.0"]
    assert registered.link.bytes_down - before >= len(file)
    fetched = {fetch.block for fetch in registered.link.fetched}
    assert fetched == set(range((len(file) + 1023) // 1024))


@pytest.mark.slow
def test_claim_a10_success_is_judged_from_the_nor(registered: System) -> None:
    """What was sent was right, what lies in the NOR is not: the terminal must notice."""
    update = registered.start_update("1.1.0")
    registered.console.expect("agent: done", 300)
    registered.bench.cut_power()
    cells = bytearray(registered.engine.read_nor())
    cells[APPLICATION.offset + 0x4321] ^= 0x10
    registered.engine.load_nor(bytes(cells))
    registered.engine.power_on()
    registered.console.expect("restoration: send the signed image", 60)
    assert registered.update(update).state is not UpdateState.SUCCEEDED


@pytest.mark.slow
def test_claim_a13_the_server_keeps_identifications_and_transmits_on_request(
    registered: System,
) -> None:
    terminal = registered.records.terminal(registered.serial)
    assert terminal is not None
    assert terminal.version == inspect(registered.releases.signed["1.0.0"]).version
    update = registered.update_to("1.1.0")
    assert update.state is UpdateState.SUCCEEDED
    file = registered.releases.signed["1.1.0"]
    assert registered.records.image_file(update.digest) == file
    terminal = registered.records.terminal(registered.serial)
    assert terminal is not None
    assert terminal.digest == inspect(file).digest


@pytest.mark.slow
def test_a_person_sees_the_difference_between_the_versions(registered: System) -> None:
    registered.console.command("pb add Zoe 111")
    registered.console.command("pb add Adam 222")
    listing = registered.console.command("pb list")
    assert listing.index("Zoe") < listing.index("Adam")
    assert "find" not in registered.console.command("help")
    registered.update_to("1.1.0")
    registered.console.expect("link: registered")
    listing = registered.console.command("pb list")
    assert listing.index("Adam") < listing.index("Zoe")
    assert "Zoe" in registered.console.command("find zo")
    assert "1.1.0" in registered.console.command("version")


@pytest.mark.slow
def test_a_healthy_start_changes_one_bit_that_counts_it(registered: System) -> None:
    registered.update_to("1.1.0")
    registered.console.expect("link: registered")
    before = registered.engine.read_nor()
    registered.restart()
    registered.wait_registered()
    after = registered.engine.read_nor()
    assert but_for_starts(after) == but_for_starts(before)
    changed = int.from_bytes(before, "little") ^ int.from_bytes(after, "little")
    assert changed.bit_count() == 1


def test_only_the_blocks_that_differ_are_rewritten(
    unbrick_make_system: Callable[..., System],
) -> None:
    system = unbrick_make_system(engine="inprocess")
    system.power_on()
    system.wait_registered()
    assert isinstance(system.engine, InProcessEngine)
    first = len(system.engine.ops)
    system.update_to("1.1.0")
    erased = [op.offset for op in system.engine.ops[first:] if op.kind == "erase"]
    blocks = {
        offset
        for offset in range(APPLICATION.offset, APPLICATION.end, LAYOUT.board.nor.block_size)
        if offset < APPLICATION.offset + len(system.releases.signed["1.1.0"])
    }
    assert set(erased) & set(range(APPLICATION.offset, APPLICATION.end)) == blocks


LARGE = """
[[release]]
name = "unbrick-terminal"
version = "1.0.0"
build_time = "2026-01-12T09:00:00Z"
security_counter = 1
defines = { RESOURCE_BYTES = "524288", RESOURCE_SEED = "7" }

[[release]]
name = "unbrick-terminal"
version = "1.1.0"
build_time = "2026-03-02T09:00:00Z"
security_counter = 2
defines = { RESOURCE_BYTES = "524288", RESOURCE_SEED = "7" }
"""


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Releases:
    """Two releases of three NOR blocks, of which the one in the middle is the same in both."""
    folder = tmp_path_factory.mktemp("large")
    (folder / "releases.toml").write_text(LARGE)
    releases = folder / "releases.toml"
    return make_releases(folder / "firmware", releases=releases, objects=BUILDS / "objects")


@pytest.mark.slow
def test_a_block_that_does_not_differ_is_left_alone(large: Releases) -> None:
    size = LAYOUT.board.nor.block_size
    old, new = (
        large.signed[version].ljust(APPLICATION.size, b"\xff") for version in ("1.0.0", "1.1.0")
    )
    differing = [
        APPLICATION.offset + start
        for start in range(0, APPLICATION.size, size)
        if old[start : start + size] != new[start : start + size]
    ]
    blocks = [APPLICATION.offset + i * size for i in range(3)]
    assert differing == [blocks[0], blocks[2]], "these releases are made so"
    with InProcessEngine(large.elf_files) as engine:
        system = System(engine, large)
        system.power_on()
        system.wait_registered()
        before = len(engine.ops)
        system.update_to("1.1.0")
        erased = [op.offset for op in engine.ops[before:] if op.kind == "erase"]
        application = range(APPLICATION.offset, APPLICATION.end)
        assert sorted(offset for offset in erased if offset in application) == differing
        assert "agent: rewriting 2 of 3 blocks" in system.console.text
        cells = engine.read_nor()
        assert cells[APPLICATION.offset : APPLICATION.end] == new
        assert engine.faults == []
