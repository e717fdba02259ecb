"""Commands for images: ``firmware``, ``image``."""

from __future__ import annotations

import json
import secrets
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from unbrick.cli.delta import apply_delta_file, make_delta_file
from unbrick.cli.options import FromLayout, json_option, write_file
from unbrick.errors import ImageError, SetupError
from unbrick.image.enrolment import Enrolment, add_enrolment, find_enrolment_file
from unbrick.image.examine import Examination, examine, identify_other_file
from unbrick.image.factory import (
    KEY_SIZE,
    derive_link_key,
    list_nor_map,
    make_factory_image,
    read_identity,
)
from unbrick.image.format import (
    check_board,
    check_entry,
    check_signature,
    inspect,
    list_refusals,
    list_warnings,
    load_public_key,
    read_bounded,
    read_info,
)
from unbrick.image.hexfile import read_image, to_hex
from unbrick.layout import reference_layout
from unbrick.screen import Column, FittedTable, open_screen, open_status
from unbrick.target.flash_map import list_flash_map
from unbrick.target.load import SUFFIX, load_target

_FILE = click.Path(dir_okay=False, path_type=Path)
_HEX_NAMES = {".hex", ".ihex"}
_DIGEST_SHOWN = 16  # Hexadecimal digits of a digest in a table.

_out_option = click.option("-o", "--output", type=_FILE, required=True, help="File to write.")


@click.group()
def firmware() -> None:
    """Build the terminal's firmware."""


@firmware.command("build")
@click.option(
    "-o",
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("build/firmware"),
    show_default=True,
    help="Folder to write.",
)
@click.option("--key", type=_FILE, help="PEM file with the private key, instead of development's.")
@json_option
def firmware_build(output: Path, key: Path | None, *, as_json: bool) -> None:
    """Compile and sign every release; write each as .bin and .hex."""
    from unbrick.firmware.build import report_sizes  # noqa: PLC0415 - needs the compiler
    from unbrick.firmware.signed import make_releases  # noqa: PLC0415 - likewise

    with open_status().status("compiling the firmware"):
        releases = make_releases(output, key)
    images: dict[str, str] = {}
    for version, data in releases.signed.items():
        stem = f"terminal-{version}"
        write_file(output / f"{stem}.bin", data)
        write_file(output / f"{stem}.hex", to_hex(data).encode())
        images[version] = str(output / f"{stem}.hex")
    boot = str(releases.firmware.boot.binary)
    if as_json:
        click.echo(json.dumps({"boot": boot, "images": images}, indent=2))
        return
    click.echo(report_sizes(releases.firmware))
    for file in (boot, *images.values()):
        click.echo(file)


@click.group()
def image() -> None:
    """Look at, sign, convert and compare images."""


@image.command("inspect")
@click.argument("file", type=_FILE)
@click.option("--key", type=_FILE, help="PEM file: check the signature with this key.")
@json_option
def image_inspect(file: Path, key: Path | None, *, as_json: bool) -> None:
    """Check an image (.hex or binary) and say what it is."""
    data = read_image(file)
    found = examine(data)
    trouble = _all_of(found.problems)
    refused: list[ImageError] = []
    warned: list[str] = []
    signature = ""
    if trouble is None:
        info = read_info(found)
        refused, warned = list_refusals(data, info), list_warnings(info)
        if key is not None:
            try:
                check_signature(info, load_public_key(key))
                signature = "right"
            except ImageError as error:
                trouble = error
                signature = "not right"
    problem = "; ".join(str(item) for item in (found.problems or refused))
    if as_json:
        click.echo(json.dumps(_as_json(found, problem, warned), indent=2))
    else:
        rows = _rows(found, signature, key_given=key is not None)
        if not found.problems:
            texts = [f"{item} ({item.hint})" for item in refused] or ["fits"]
            rows += zip(("this board", *("" for _ in texts[1:])), texts, strict=True)
        for name, value in (*rows, *(("warning", text) for text in warned)):
            click.echo(f"{name + ':' if name else '':18}{value}")
    if trouble is not None:
        raise trouble


def _all_of(problems: list[ImageError]) -> ImageError | None:
    """All that is wrong, as one error."""
    if len(problems) < 2:
        return next(iter(problems), None)
    hints = dict.fromkeys(problem.hint for problem in problems)
    return ImageError("; ".join(map(str, problems)), hint="; ".join(hints))


def _as_json(found: Examination, problem: str, warned: list[str]) -> dict[str, Any]:
    values = {
        name: value.hex() if isinstance(value, bytes) else value
        for name, value in vars(found).items()
        if name != "problems"
    }
    return {**values, "signed": found.signed, "problem": problem, "warnings": warned}


def _rows(found: Examination, checked: str, *, key_given: bool) -> list[tuple[str, str]]:
    """What is known of an image, for a person; ``checked``: what came of checking its signature."""
    signature = "none" if found.size else ""
    if found.signature_algorithm:
        by = f"by key {found.key_hash.hex()[:_DIGEST_SHOWN]}" if found.key_hash else "by a key"
        signature = f"{by} ({found.signature_algorithm})"
        signature = f"{checked}, {signature}" if checked else signature
        signature += "" if key_given else ", not checked (give --key)"
    size = f"{found.size} bytes" if found.size else f"{found.file_size} bytes in the file"
    digest = f"{found.digest.hex()} ({found.digest_algorithm})" if found.digest else ""
    counter, data_format = found.security_counter, found.userdata_format
    delta = found.delta_version
    rows = {
        "name": found.name,
        "version": found.version,
        "build time": found.build_time,
        "hardware": found.hardware_id,
        "security counter": "" if counter is None else str(counter),
        "user data": "" if data_format is None else f"format {data_format}",
        "differential": "" if delta is None else f"files up to version {delta}",
        "size": size,
        "digest": digest,
        "signature": signature,
    }
    return [(name, value) for name, value in rows.items() if value]


@image.command("sign")
@click.argument("binary", type=_FILE)
@_out_option
@click.option("--key", type=_FILE, required=True, help="PEM file with the private Ed25519 key.")
@click.option("--name", required=True, help="Name of the software.")
@click.option("--version", required=True, help="1.2.3 or 1.2.3+4.")
@click.option("--build-time", required=True, help="ISO 8601, UTC: 2026-01-31T12:00:00Z.")
@click.option("--security-counter", type=click.IntRange(0, 2**32 - 1), required=True)
@click.option(
    "--userdata-format",
    type=click.IntRange(1, 2**32 - 1),
    default=1,
    show_default=True,
    help="Format in which the software keeps the user's data.",
)
@click.option(
    "--delta-version",
    type=click.IntRange(1, 2**32 - 1),
    default=1,
    show_default=True,
    help="Newest version of differential files that the software reads.",
)
@click.option(
    "--hardware-id", default=FromLayout(lambda layout: layout.hardware_id), show_default=True
)
def image_sign(binary: Path, output: Path, **values: Any) -> None:
    """Sign a flat binary that is linked for the application partition."""
    from unbrick.image.sign import sign  # noqa: PLC0415 - of the extra `system`

    signed = sign(_read_program(binary), **values)
    info = inspect(signed)
    check_board(info)
    check_entry(signed)
    _write_image(output, signed)
    click.echo(f"{output}: {info.name} {info.version}, {info.size} bytes")
    for text in list_warnings(info):
        click.echo(f"warning: {text}", err=True)


@image.command("convert", short_help="Convert between Intel HEX and binary.")
@click.argument("source", type=_FILE)
@click.argument("target", type=_FILE)
def image_convert(source: Path, target: Path) -> None:
    """Convert a signed image between Intel HEX and binary, by the names of the files."""
    data = read_image(source)
    info = inspect(data)
    _write_image(target, data)
    click.echo(f"{target}: {info.name} {info.version}, {info.size} bytes")


@image.command("factory", short_help="Make the contents of a new terminal's NOR.")
@_out_option
@click.option("--boot", type=_FILE, required=True, help="Flat binary of the bootloader.")
@click.option("--application", type=_FILE, help="Signed image; without it there is none.")
@click.option("--serial", required=True, help="Serial number of the terminal.")
@click.option(
    "--enrolment",
    type=_FILE,
    help="File for `unbrick server enrol`; other terminals in it stay.  [default: the name of the "
    "NOR's file and .enrolment]",
)
def image_factory(
    output: Path, boot: Path, application: Path | None, serial: str, enrolment: Path | None
) -> None:
    """Make the contents of a NOR as the factory programs it, with a new key of its own.

    The server has to know a key that comes from it: that is in a second file, which is secret.
    """
    data = None if application is None else read_image(application)
    if data is not None:
        check_board(inspect(data))
    key = secrets.token_bytes(KEY_SIZE)
    nor = make_factory_image(_read_program(boot), data, serial, key=key)
    write_file(output, nor)
    place = enrolment or find_enrolment_file(output)
    add_enrolment(place, Enrolment(serial, derive_link_key(key)))
    click.echo(f"{output}: terminal {serial}, {len(nor)} bytes; {place}: its enrolment")


@image.command("map")
@click.argument("nor", type=_FILE, metavar="NOR|TARGET.toml")
@click.argument("flash", type=_FILE, required=False)
@json_option
def image_map(nor: Path, flash: Path | None, *, as_json: bool) -> None:
    """Show what is in each block of a flash: of an image, or a target.

    Of a TARGET.toml it is the flash before the update, or the one in the file FLASH, which `run`
    and `console` have written with --nor.
    """
    if nor.suffix == SUFFIX:
        _map_target(nor, flash, as_json=as_json)
        return
    if flash is not None:
        raise SetupError(
            f"{nor} is no target's file", hint="name one image, or a TARGET.toml first"
        )
    data = read_bounded(nor, reference_layout().board.nor.size)
    blocks = list_nor_map(data)
    part = reference_layout().partition("application")
    found: dict[str, str] = {}
    try:
        identity = read_identity(data)
        found["identity"] = f"{identity.serial}, {identity.hardware_id}"
    except ImageError as error:
        found["identity"] = str(error)
    try:
        info = inspect(data[part.offset : part.end], trailing=True)
        found["application"] = f"{info.name} {info.version}"
    except ImageError as error:
        found["application"] = str(error)
    if as_json:
        click.echo(json.dumps({**found, "blocks": [asdict(block) for block in blocks]}, indent=2))
        return
    rows = [
        (
            f"0x{block.offset:06x}",
            block.partition,
            f"{block.used} of {block.size}" if block.used else "blank",
            block.digest[:_DIGEST_SHOWN],
        )
        for block in blocks
    ]
    columns = [Column(heading) for heading in ("offset", "partition", "used", "SHA-256")]
    open_screen().print(FittedTable(columns, rows))
    for name, value in found.items():
        click.echo(f"{name}: {value}")


def _map_target(target: Path, flash: Path | None, *, as_json: bool) -> None:
    found = load_target(target)
    image = found.start_image
    if flash is not None:
        image = read_bounded(flash, found.chip.geometry.size).ljust(len(image), b"\xff")
    blocks = list_flash_map(found, image)
    if as_json:
        click.echo(json.dumps({"blocks": [asdict(block) for block in blocks]}, indent=2))
        return
    rows = [
        (
            f"{block.address:#010x}",
            block.partition,
            f"{block.used} of {block.size}",
            block.digest[:_DIGEST_SHOWN],
            ", ".join(block.files),
        )
        for block in blocks
        if block.used
    ]
    headings = ("address", "partition", "used", "SHA-256", "file")
    open_screen().print(FittedTable([Column(heading) for heading in headings], rows))
    click.echo(f"{len(blocks) - len(rows):,} more blocks are blank")


def _read_program(path: Path) -> bytes:
    """A flat binary, as it runs."""
    data = read_bounded(path)
    other = identify_other_file(data)
    if other is not None:
        raise ImageError(f"{path} is not a flat binary: {other}", hint=other.hint)
    return data


def _write_image(path: Path, data: bytes) -> None:
    """Write an image as the name of the file says."""
    write_file(path, to_hex(data).encode() if path.suffix.lower() in _HEX_NAMES else data)


image.add_command(make_delta_file)
image.add_command(apply_delta_file)

COMMANDS: list[click.Command] = [firmware, image]
