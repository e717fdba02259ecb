"""The configuration file: defaults of commands' options, for all parts of the system in one place.

TOML. A section has the name of a command and sets its options; that of a group (``[center]``) sets
those of all its commands that have them. What stands before the first section is for every command
that has such an option. The command line and the environment come first, the file next, the
options' own defaults last.
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click

from unbrick.cli.options import Unavailable
from unbrick.errors import SetupError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

DEFAULT_FILE = Path("unbrick.toml")
"""What is read when it is there and no other is named."""

_LIMIT = 64 * 1024


def make_default_map(file: Path, root: click.Group, ctx: click.Context) -> dict[str, Any]:
    """What a configuration file says, in the form of click's ``make_default_map``.

    Raises:
        SetupError: it cannot be read, or sets what there is not.
    """
    values = _read(file)
    shared = {name: value for name, value in values.items() if not isinstance(value, dict)}
    commands = {name: _of(root, name, ctx) for name in root.list_commands(ctx)}
    options = {
        name: {option for command in of_name.values() for option in command}
        for name, of_name in commands.items()
    }
    known = {option for of_command in options.values() for option in of_command}
    unknowable = {name for name in commands if isinstance(root.get_command(ctx, name), Unavailable)}
    if not unknowable:
        _check(file, "", shared, known, "an option of any command")
    _check(file, "", values.keys() - shared.keys(), options.keys(), "a command")
    found: dict[str, Any] = {}
    for name, of_name in commands.items():
        own = {} if name in shared else values.get(name, {})  # `firmware` is an option, too.
        if name not in unknowable:
            _check(file, f"[{name}] ", own, options[name], f"an option of `unbrick {name}`")
        wanted = {**shared, **own}
        maps = {
            command: {parameter: wanted[key] for key, parameter in keys.items() if key in wanted}
            for command, keys in of_name.items()
        }
        found[name] = maps.get("", maps)
    return found


def _of(root: click.Group, name: str, ctx: click.Context) -> dict[str, dict[str, str]]:
    """The options of a command, under an empty name, or of each command of a group."""
    command = root.get_command(ctx, name)
    if isinstance(command, click.Group):
        return {each: _options(found) for each, found in command.commands.items()}
    return {} if command is None else {"": _options(command)}


def _read(file: Path) -> dict[str, Any]:
    try:
        with file.open("rb") as stream:
            data = stream.read(_LIMIT + 1)
        if len(data) > _LIMIT:
            raise SetupError(
                f"{file} has more than {_LIMIT} bytes", hint="give a configuration file"
            )
        return dict(tomllib.loads(data.decode()))
    except OSError as error:
        raise SetupError(
            f"{file} cannot be read: {error.strerror}", hint="give another --config"
        ) from error
    except ValueError as error:  # TOML's errors and those of UTF-8 are such.
        raise SetupError(f"{file} is no TOML: {error}", hint="see docs/configuration.md") from error


def _options(command: click.Command) -> dict[str, str]:
    """Options as they are called in the file, and the parameters behind them."""
    return {
        text.lstrip("-"): option.name
        for option in command.params
        if isinstance(option, click.Option) and option.name is not None
        for text in option.opts
        if text.startswith("--")
    }


def _check(file: Path, where: str, names: Iterable[str], known: Iterable[str], what: str) -> None:
    known = sorted(known)
    for name in sorted(names):
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]}?" if close else "see docs/configuration.md"
            raise SetupError(f"{file}: {where}{name} is not {what}", hint=hint)
