"""Images that must not run: each is refused in SRAM with a clear reason, and nothing is lost.

The server is told lies about them (``inspect``), so that the terminal has to see for itself.
"""

from __future__ import annotations

import struct
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from unbrick.image.format import inspect
from unbrick.image.sign import sign
from unbrick.layout import reference_layout
from unbrick.server.records.updates import UpdateState
from unbrick.wire.messages import Result

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from unbrick.firmware.signed import Releases
    from unbrick.reference.system import System

LAYOUT = reference_layout()
APPLICATION = LAYOUT.partition("application")
SIGNATURE_TLV = 0x24
TLV_HEADER = 4


def signed_again(releases: Releases, version: str = "1.1.0", **changes: object) -> bytes:
    """A release signed with something changed."""
    program = releases.firmware.applications[version]
    assert program.release is not None
    options = {
        "name": program.release.name,
        "version": program.release.version,
        "build_time": program.release.build_time,
        "hardware_id": LAYOUT.hardware_id,
        "security_counter": program.release.security_counter,
        "key": releases.key,
        **changes,
    }
    return sign(program.binary.read_bytes(), **options)  # type: ignore[arg-type]


def without_signature(file: bytes) -> bytes:
    """Take the signature out of an image's last TLV area."""
    header_size, protected, body = struct.unpack_from("<HHI", file, 8)
    start = header_size + body + protected
    magic, _ = struct.unpack_from("<HH", file, start)
    at, kept = start + TLV_HEADER, b""
    while at < len(file):
        kind, length = struct.unpack_from("<HH", file, at)
        if kind != SIGNATURE_TLV:
            kept += file[at : at + TLV_HEADER + length]
        at += TLV_HEADER + length
    assert at == len(file)
    return file[:start] + struct.pack("<HH", magic, TLV_HEADER + len(kept)) + kept


def flip(file: bytes, at: int) -> bytes:
    """One bit changed."""
    return file[:at] + bytes([file[at] ^ 4]) + file[at + 1 :]


def another_key(folder: Path) -> Path:
    """A key that no terminal trusts."""
    path = folder / "another.pem"
    key = Ed25519PrivateKey.from_private_bytes(b"\x07" * 32)
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return path


BAD: dict[str, tuple[Callable[[Releases, Path], bytes], set[Result]]] = {
    "truncated": (
        lambda releases, _: releases.signed["1.1.0"][:-70],
        {Result.IMAGE_MALFORMED},
    ),
    "not an image": (
        lambda releases, _: b"\x5a" * len(releases.signed["1.1.0"]),
        {Result.IMAGE_MALFORMED},
    ),
    "corrupted": (
        lambda releases, _: flip(releases.signed["1.1.0"], 0x3000),
        {Result.IMAGE_HASH_WRONG},
    ),
    "unsigned": (
        lambda releases, _: without_signature(releases.signed["1.1.0"]),
        {Result.SIGNATURE_WRONG},
    ),
    "signed by another key": (
        lambda releases, folder: signed_again(releases, key=another_key(folder)),
        {Result.SIGNATURE_WRONG},
    ),
    "signature spoiled": (
        lambda releases, _: flip(releases.signed["1.1.0"], len(releases.signed["1.1.0"]) - 9),
        {Result.SIGNATURE_WRONG},
    ),
    "for other hardware": (
        lambda releases, _: signed_again(releases, hardware_id="toaster-9000"),
        {Result.OTHER_HARDWARE},
    ),
    "too large for the partition": (
        lambda releases, _: releases.signed["1.1.0"].ljust(APPLICATION.size + 1024, b"\xff"),
        {Result.TOO_LARGE},
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_image_is_refused_and_nothing_is_lost(
    unbrick_make_system: Callable[..., System],
    tmp_path: Path,
    unbrick_releases: Releases,
    name: str,
) -> None:
    make, expected = BAD[name]
    file = make(unbrick_releases, tmp_path)
    good = inspect(unbrick_releases.signed["1.1.0"])
    system = unbrick_make_system(inspect=lambda data: replace(good, size=len(data)))
    system.power_on()
    system.wait_registered()
    system.console.command("pb add Alice 12345")
    tasks = system.console.command("tasks")
    before = system.engine.read_nor()
    system.server.publish(file, system.engine.now)
    record = system.wait_update(system.start_update("1.1.0"))
    assert record.state in {UpdateState.REFUSED, UpdateState.FAILED}
    assert record.result in expected
    assert record.text
    system.console.expect_pattern(r"update: (refused|failed), \S+")
    system.bench.run_for(1)
    assert system.engine.read_nor() == before
    assert system.console.command("tasks") == tasks, "everything limited works again"
    # The terminal is none the worse for it: the good image goes through.
    if name == "corrupted":
        system.restart()
        assert "Alice" in system.console.command("pb list")


def test_an_image_older_than_the_security_counter_is_refused(
    unbrick_make_system: Callable[..., System], unbrick_releases: Releases
) -> None:
    def lie(data: bytes) -> object:
        return replace(inspect(data), security_counter=99)

    system = unbrick_make_system(inspect=lie)
    system.power_on()
    system.wait_registered()
    system.update_to("1.1.0")
    system.console.expect("link: registered")
    before = system.engine.read_nor()
    system.publish("1.0.0")
    record = system.wait_update(system.start_update("1.0.0", downgrade=True))
    assert record.result is Result.OLDER_THAN_COUNTER
    assert system.engine.read_nor() == before
    del unbrick_releases


def test_an_old_image_put_into_the_nor_does_not_run(
    unbrick_make_system: Callable[..., System], unbrick_releases: Releases
) -> None:
    system = unbrick_make_system()
    system.power_on()
    system.wait_registered()
    system.update_to("1.1.0")
    system.bench.cut_power()
    cells = bytearray(system.engine.read_nor())
    old = unbrick_releases.signed["1.0.0"]
    cells[APPLICATION.offset : APPLICATION.offset + len(old)] = old
    system.engine.load_nor(bytes(cells))
    system.engine.power_on()
    system.console.expect("restoration: application damaged: older than the security counter", 60)


def test_a_signed_release_that_fails_its_trial_ends_in_the_restoration_state(
    unbrick_make_system: Callable[..., System],
) -> None:
    system = unbrick_make_system()
    system.power_on()
    system.wait_registered()
    system.console.command("pb add Alice 12345")
    system.publish("1.2.0")
    system.start_update("1.2.0")
    said = system.console.expect("restoration: the new software failed its trial", 300)
    assert said.count("panic:") == 3
    system.restore(system.releases.signed["1.1.0"])
    system.restart()
    assert "Alice" in system.console.command("pb list")
