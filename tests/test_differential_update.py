"""Row A8 on the real ARM binary: the terminal rebuilds the new image from a differential file."""

from __future__ import annotations

import random
import re
import shutil
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from unbrick.delta import encode, read_header
from unbrick.engine.create import create_engine
from unbrick.engine.inprocess import InProcessEngine
from unbrick.firmware.signed import make_releases
from unbrick.folders import firmware_folder
from unbrick.image.format import inspect
from unbrick.image.sign import sign
from unbrick.layout import reference_layout
from unbrick.reference.system import System
from unbrick.server.core.analysis import AtOnce
from unbrick.server.core.core import ServerCore
from unbrick.server.core.difference import make_file
from unbrick.server.records.updates import UpdateState
from unbrick.wire.messages import Kind, Result

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from unbrick.firmware.signed import Releases

LAYOUT = reference_layout()
APPLICATION = LAYOUT.partition("application")


def start(make_system: Callable[..., System], engine: str = "inprocess") -> System:
    """A registered terminal with 1.0.0, and a server that knows 1.0.0 and 1.1.0."""
    system = make_system(engine=engine, differ=make_file)
    system.power_on()
    system.wait_registered()
    system.publish("1.0.0")
    system.publish("1.1.0")
    return system


def application(system: System) -> bytes:
    return system.engine.read_nor()[APPLICATION.offset : APPLICATION.end].rstrip(b"\xff")


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["inprocess", "qemu", "renode"])
def test_claim_a8_the_new_image_is_rebuilt_from_the_difference_and_the_nor(
    unbrick_make_system: Callable[..., System], engine: str
) -> None:
    system = start(unbrick_make_system, engine)
    update = system.update_to("1.1.0")
    assert update.state is UpdateState.SUCCEEDED
    assert update.kind is Kind.DIFFERENTIAL
    new = system.releases.signed["1.1.0"]
    assert application(system) == new
    file = system.records.difference(update.from_digest, update.digest)
    assert file
    announced = re.search(r"update: announced 1\.1\.0, (\d+) bytes", system.console.text)
    assert announced
    assert int(announced.group(1)) == len(file) < len(new) / 4


def test_claim_a8_sram_is_secured_for_file_image_and_working_memory(
    unbrick_make_system: Callable[..., System],
) -> None:
    system = start(unbrick_make_system)
    update = system.update_to("1.1.0")
    file = system.records.difference(update.from_digest, update.digest)
    assert file
    secured = re.search(r"update: secured (\d+) bytes", system.console.text)
    assert secured
    assert int(secured.group(1)) >= len(system.releases.signed["1.1.0"]) + len(file)


def test_claim_a8_the_full_image_when_the_server_does_not_know_what_is_installed(
    unbrick_make_system: Callable[..., System],
) -> None:
    system = unbrick_make_system(differ=make_file)
    system.power_on()
    system.wait_registered()
    system.publish("1.1.0")
    assert system.update_to("1.1.0").kind is Kind.FULL_IMAGE


def lost_while_updating(system: System) -> int:
    """Bytes that the console's receiver loses although the line is never silent."""
    engine = system.engine
    assert isinstance(engine, InProcessEngine)
    update = system.start_update("1.1.0")
    assert system.bench.run_until(lambda: bool(system.link.fetched), 60)
    while "update: checked" not in system.console.text:
        system.console.write(b" ")
        system.bench.run_for(0.0001)
    lost = engine.overruns[0]
    assert system.wait_update(update).state is UpdateState.SUCCEEDED
    return lost


@pytest.mark.slow
def test_no_more_bytes_are_lost_than_while_a_full_image_is_checked(
    unbrick_make_system: Callable[..., System],
) -> None:
    full = unbrick_make_system(engine="inprocess")
    full.power_on()
    full.wait_registered()
    full.publish("1.1.0")
    rebuilt = start(unbrick_make_system, "inprocess")
    # The check takes equally long. One byte more is lost when the first one comes a little earlier.
    assert lost_while_updating(rebuilt) <= lost_while_updating(full) + 1


def test_a_difference_to_other_software_is_refused_and_the_full_image_comes(
    unbrick_make_system: Callable[..., System],
) -> None:
    system = start(unbrick_make_system)
    other = system.releases.signed["1.3.0"]
    system.server = ServerCore(
        system.records, inspect, AtOnce(system.records, lambda _, new: encode(other, new))
    )
    system.link.server_dies()
    system.server_returns(system.server)
    update = system.update_to("1.1.0")
    assert "update: failed, made for other installed software" in system.console.text
    assert update.state is UpdateState.SUCCEEDED
    assert update.kind is Kind.FULL_IMAGE
    assert application(system) == system.releases.signed["1.1.0"]


def test_a_damaged_difference_is_refused_before_the_nor_is_touched(
    unbrick_make_system: Callable[..., System],
) -> None:
    system = start(unbrick_make_system)

    def damaged(old: bytes, new: bytes) -> bytes:
        file = bytearray(encode(old, new))
        file[random.Random(4).randrange(100, len(file))] ^= 0x40
        return bytes(file)

    system.link.server_dies()
    system.server_returns(ServerCore(system.records, inspect, AtOnce(system.records, damaged)))
    before = application(system)
    update = system.start_update("1.1.0")
    system.console.expect("update: failed, the differential file makes no image", 300)
    assert application(system) == before
    system.wait_update(update)
    assert application(system) == system.releases.signed["1.1.0"]
    assert system.update(update).result is Result.SUCCESS


@pytest.mark.slow
def test_claim_a8_where_sram_cannot_hold_all_of_it_blocks_are_decoded_as_they_arrive(
    unbrick_make_system: Callable[..., System],
) -> None:
    """Three tasks are held; file and image do not fit into what the others give up."""
    system = unbrick_make_system(differ=make_file)
    releases = system.releases
    program = releases.firmware.applications["1.1.0"]
    assert program.release
    large = sign(
        program.binary.read_bytes() + random.Random(6).randbytes(80_000),
        name=program.release.name,
        version=program.release.version,
        build_time=program.release.build_time,
        hardware_id=LAYOUT.hardware_id,
        security_counter=program.release.security_counter,
        key=releases.key,
    )
    system.releases = replace(releases, signed={**releases.signed, "1.1.0": large})
    system.power_on()
    system.wait_registered()
    for task in ("browser", "media", "maps"):
        system.console.command(f"hold {task}")
    system.publish("1.0.0")
    update = system.update_to("1.1.0")
    assert update.kind is Kind.DIFFERENTIAL
    file = system.records.difference(update.from_digest, update.digest)
    assert file
    secured = re.findall(r"update: secured (\d+) bytes", system.console.text)
    assert len(large) < int(secured[-1]) < len(large) + len(file)
    assert application(system) == large


@pytest.fixture(scope="module")
def older(tmp_path_factory: pytest.TempPathFactory) -> Releases:
    """Firmware that reads version 1 alone, whose images say nothing of versions."""
    folder = tmp_path_factory.mktemp("older")
    source = folder / "firmware"
    shutil.copytree(firmware_folder(), source)
    replace_once(source / "lib" / "delta.c", "data[2] > 2", "data[2] > 1")
    releases = source / "releases.toml"
    releases.write_text(releases.read_text().replace("delta_version = 2\n", ""))
    return make_releases(folder / "build", source=source, releases=releases)


def replace_once(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert text.count(old) == 1
    path.write_text(text.replace(old, new))


@pytest.fixture
def older_system(older: Releases) -> Iterator[Callable[..., System]]:
    """Makes a system with a terminal that reads version 1 alone."""
    with ExitStack() as engines:

        def make(*, engine: str, **options: Any) -> System:
            made = create_engine(engine, older.elf_files, board=LAYOUT.board)
            engines.callback(made.close)
            return System(made, older, **options)

        yield make


@pytest.mark.slow
def test_claim_a8_a_terminal_that_reads_version_1_alone_is_sent_version_1(
    older_system: Callable[..., System],
) -> None:
    system = start(older_system)
    update = system.update_to("1.1.0")
    assert update.state is UpdateState.SUCCEEDED
    assert update.kind is Kind.DIFFERENTIAL
    file = system.records.difference(update.from_digest, update.digest)
    assert file
    assert read_header(file).version == 1
    assert application(system) == system.releases.signed["1.1.0"]


@pytest.mark.slow
def test_version_2_is_refused_by_a_terminal_that_reads_version_1_alone(
    older_system: Callable[..., System],
) -> None:
    """It is what the server must not send; the full image follows all the same."""
    system = start(older_system)
    system.link.server_dies()
    system.server_returns(ServerCore(system.records, inspect, AtOnce(system.records, encode)))
    update = system.update_to("1.1.0")
    assert "update: failed, the differential file makes no image" in system.console.text
    assert update.kind is Kind.FULL_IMAGE
    assert application(system) == system.releases.signed["1.1.0"]
