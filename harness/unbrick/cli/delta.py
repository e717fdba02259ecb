"""Commands for differential files of anybody's images: ``image delta`` and ``image patch``."""

from __future__ import annotations

from pathlib import Path

import click

from unbrick.cli.options import write_file
from unbrick.delta.format import VERSION, VERSIONS
from unbrick.errors import DeltaError, SetupError

_FILE = click.Path(dir_okay=False, path_type=Path)
_HEX_NAMES = {".hex", ".ihex"}
_ISAS = ("data", "Thumb code", "ARM code")
_SMALL = 10  # Per cent: below that tenths are said, too.


class _Address(click.ParamType):  # type: ignore[type-arg]
    """A number as C writes it, such as 0x8000."""

    name = "address"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        if isinstance(value, int):
            return value
        try:
            number = int(str(value), 0)
        except ValueError:
            number = -1
        if number % 4 or not 0 <= number < 1 << 32:
            self.fail(f"{value} is no address. Give a multiple of 4, such as 0x8000.", param, ctx)
        return number


@click.command("delta", short_help="Make a file that turns one image into another.")
@click.argument("old", type=_FILE)
@click.argument("new", type=_FILE)
@click.option("-o", "--output", type=_FILE, required=True, help="File to write.")
@click.option("--base", type=_Address(), help="Where binary images lie when they run. [found]")
@click.option(
    "--delta-version",
    type=click.IntRange(VERSIONS[0], VERSIONS[-1]),
    default=VERSION,
    show_default=True,
    help="Newest version of the format that the decoder reads.",
)
def make_delta_file(
    old: Path, new: Path, output: Path, base: int | None, delta_version: int
) -> None:
    """Make the differential file that turns the image OLD into NEW.

    Both can be ELF, Intel HEX, S-record, UF2 or binary files, of anybody's firmware.
    """
    from unbrick.delta import make_delta  # noqa: PLC0415 - of the extra `system`
    from unbrick.target.files import read_flat  # noqa: PLC0415 - slow to import

    (installed, place), (wanted, other) = read_flat(old), read_flat(new)
    if None not in {place, other} and place != other:
        raise SetupError(
            f"{old} begins at {place:#x}, {new} at {other:#x}",
            hint="give two images that run at one address",
        )
    said = place if place is not None else other
    if base is None and said is not None and said % 4 == 0:
        base = said
    made = make_delta(installed, wanted, base_address=base, version=delta_version)
    write_file(output, made.file)
    share = 100 * len(made.file) / len(wanted)
    percent = f"{share:.1f}" if share < _SMALL else f"{share:.0f}"
    click.echo(
        f"{output}: {len(made.file):,} bytes, {percent} % of {len(wanted):,}: "
        f"{made.copied:,} copied, {made.predicted:,} predicted, {made.fresh:,} new"
    )
    where = f" at {made.header.base_address:#x}" if made.header.isa else ""
    origin = "" if base is not None or not where else " (found; --base says otherwise)"
    click.echo(f"{old} was read as {_ISAS[made.header.isa]}{where}{origin}")


@click.command("patch", short_help="Apply such a file.")
@click.argument("old", type=_FILE)
@click.argument("file", type=_FILE)
@click.option("-o", "--output", type=_FILE, required=True, help="Image to write.")
def apply_delta_file(old: Path, file: Path, output: Path) -> None:
    """Rebuild an image from OLD and a differential FILE.

    The image is binary, or Intel HEX when its name ends with .hex and OLD has an address.
    """
    from unbrick.delta import decode  # noqa: PLC0415 - of the extra `system`
    from unbrick.target.files import read_bytes, read_flat  # noqa: PLC0415 - slow to import

    installed, place = read_flat(old)
    as_hex = output.suffix.lower() in _HEX_NAMES
    if as_hex and place is None:
        raise SetupError(
            f"{old} does not say at which address {output} begins", hint="name it .bin"
        )
    try:
        image = decode(installed, read_bytes(file, hint="correct its name"))
    except DeltaError as error:
        raise DeltaError(f"{file}: {error}", hint=error.hint) from None
    write_file(output, _to_hex(image, place) if as_hex and place is not None else image)
    click.echo(f"{output}: {len(image):,} bytes")


def _to_hex(image: bytes, place: int) -> bytes:
    import bincopy  # noqa: PLC0415 - slow to import

    binary = bincopy.BinFile()
    binary.add_binary(image, address=place)
    text: str = binary.as_ihex()
    return text.encode("ascii")
