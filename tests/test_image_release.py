"""The real releases: built, signed with the key that boot trusts, and fit for the board."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from unbrick.cli.main import cli
from unbrick.firmware.build import read_releases
from unbrick.image.format import load_public_key, verify
from unbrick.image.hexfile import read_image

if TYPE_CHECKING:
    from pathlib import Path

    from unbrick.firmware.signed import Releases


def test_every_release_is_signed_as_its_list_says(unbrick_releases: Releases) -> None:
    listed = read_releases(unbrick_releases.key.parents[1] / "releases.toml")
    assert sorted(unbrick_releases.signed) == sorted(release.version for release in listed)
    for release in listed:
        info = verify(
            unbrick_releases.signed[release.version], load_public_key(unbrick_releases.key)
        )
        assert info.name == release.name
        assert info.version == f"{release.version}+0"
        assert info.build_time == release.build_time
        assert info.security_counter == release.security_counter
        assert info.userdata_format == release.userdata_format
        assert info.delta_version == release.delta_version


def test_boot_holds_the_public_key(unbrick_releases: Releases) -> None:
    raw = load_public_key(unbrick_releases.key).public_bytes_raw()
    assert raw in unbrick_releases.boot
    assert all(path.is_file() for path in unbrick_releases.elf_files)
    assert len(unbrick_releases.elf_files) == 3 + len(unbrick_releases.signed)


@pytest.mark.slow
def test_firmware_build_writes_images_for_both_ways(
    tmp_path: Path, unbrick_releases: Releases
) -> None:
    folder = tmp_path / "firmware"
    shutil.copytree(
        unbrick_releases.firmware.boot.binary.parent, folder
    )  # So nothing is compiled again.
    done = CliRunner().invoke(cli, ["firmware", "build", "-o", str(folder), "--json"])
    assert done.exit_code == 0, done.output
    made = json.loads(done.stdout)
    assert sorted(made["images"]) == sorted(unbrick_releases.signed)
    for version, image in unbrick_releases.signed.items():
        assert read_image(folder / f"terminal-{version}.hex") == image
        assert read_image(folder / f"terminal-{version}.bin") == image
    shown = CliRunner().invoke(cli, ["firmware", "build", "-o", str(folder)]).stdout
    assert "app-1.1.0" in shown
    assert str(folder / "terminal-1.1.0.hex") in shown
