"""The command line: ``unbrick``.

Exit codes: 0 done · 1 the terminal or an update failed · 2 the call or the set-up is wrong ·
3 the tool itself is broken · 130 interrupted.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import sys
import traceback
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import click

from unbrick import __version__
from unbrick.cli.config import DEFAULT_FILE, make_default_map
from unbrick.cli.options import Unavailable
from unbrick.errors import ToolBrokenError, UnbrickError
from unbrick.extras import MissingExtraError, missing_extra

_MODULES = {
    "unbrick.cli.run": ("run", "hil-test"),
    "unbrick.cli.console": ("console",),
    "unbrick.cli.server": (
        *("server", "bridge", "publish", "terminals", "terminal", "preparations", "images"),
        *("update", "message"),
    ),
    "unbrick.cli.rollout": ("rollout",),
    "unbrick.cli.center": ("center",),
    "unbrick.cli.subscriber": ("subscriber",),
    "unbrick.cli.image": ("firmware", "image"),
    "unbrick.cli.restore": ("restore", "restorations"),
    "unbrick.cli.campaign": ("campaign", "replay"),
    "unbrick.cli.check": ("check",),
    "unbrick.cli.init": ("init",),
    "unbrick.cli.demo": ("demo",),
    "unbrick.cli.export": ("export",),
    "unbrick.cli.up": ("up",),
}
"""The modules, and the commands that each has (``COMMANDS``)."""
BRIEFLY = "Operate terminals (COMMAND --help tells how)"
"""The group of which `unbrick --help` only has the names."""
GROUPS = {
    "Prove that a device comes back": ("demo", "init", "check", "campaign", "replay", "export"),
    "Play a terminal, or a chip of yours": ("console", "run", "hil-test", "firmware", "image"),
    BRIEFLY: (
        *("up", "server", "bridge", "center", "publish", "update", "rollout", "terminals"),
        *("terminal", "preparations", "images", "message", "subscriber", "restore"),
        "restorations",
    ),
}
"""The commands as `unbrick --help` shows them, in the order in which one needs them."""

TAKE_TARGETS = {"campaign", "replay", "console", "run"}
"""Commands that are about the reference terminal when no target's file is named."""

OPTIONS = "--config FILE: the defaults of all options, TOML.  [default: unbrick.toml]"
"""The last line of `unbrick --help`."""

_INTERRUPTED = 130


def fold_error(error: UnbrickError) -> str:
    """The error and its hint as one line for a person: of a longer message, its first line."""
    message = str(error).split("\n", 1)[0].rstrip(" .:")
    hint = " ".join(error.hint.split())
    return f"{message}. {hint[:1].upper()}{hint[1:]}" if hint else message


def _load(module: str) -> list[click.Command]:
    """The commands of a module, which takes up to a second."""
    try:
        commands: list[click.Command] = importlib.import_module(module).COMMANDS
    except ModuleNotFoundError as error:
        missing = missing_extra(error)
        if missing is None:
            raise
        return [Unavailable(name, missing) for name in _MODULES[module]]
    return commands


class Unbrick(click.Group):
    """The root: loads the commands when they are needed, and is the one place that ends errors."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names of all commands."""
        del ctx
        return sorted(name for names in _MODULES.values() for name in names)

    def format_help_text(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Say what this is for, right below the usage: lines are scarce."""
        del ctx
        with formatter.indentation():
            formatter.write_text(inspect.cleandoc(self.help or ""))

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Show the commands in groups, and then the options, on a screen of 24 lines."""
        width = max(map(len, chain.from_iterable(GROUPS.values())))
        for heading, names in GROUPS.items():
            with formatter.section(heading):
                if heading == BRIEFLY:
                    formatter.write_text(", ".join(names))
                    for want in sorted(set(self._find_wants(ctx, names))):
                        formatter.write_text(f"Some of these: {want}")
                    continue
                rows = [(name.ljust(width), self._tell(ctx, name, formatter)) for name in names]
                formatter.write_dl(rows)
        formatter.write(f"{OPTIONS}\n")

    def _find_wants(self, ctx: click.Context, names: Iterable[str]) -> Iterator[str]:
        """What commands say that cannot be called, for want of an extra."""
        for name in names:
            command = self.get_command(ctx, name)
            if isinstance(command, Unavailable):
                yield command.get_short_help_str(limit=sys.maxsize)

    def _tell(self, ctx: click.Context, name: str, formatter: click.HelpFormatter) -> str:
        command = self.get_command(ctx, name)
        return command.get_short_help_str(limit=formatter.width) if command else ""

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command called ``cmd_name``; no other module than its own is loaded."""
        del ctx
        for module, names in _MODULES.items():
            if cmd_name in names:
                return next(command for command in _load(module) if command.name == cmd_name)
        return None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that ``args`` begin with.

        Raises:
            click.UsageError: there is none; says which is nearest.
        """
        name = args[0]
        if not name.startswith("-") and self.get_command(ctx, name) is None:
            close = difflib.get_close_matches(name, self.list_commands(ctx), n=1)
            near = f" Did you mean `{ctx.command_path} {close[0]}`?" if close else ""
            raise click.UsageError(f"There is no command {name!r}.{near}", ctx)
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Call the command; for want of a package say which extra brings it."""
        try:
            return super().invoke(ctx)
        except ModuleNotFoundError as error:
            missing = missing_extra(error)
            if missing is None:
                raise
            if ctx.invoked_subcommand in TAKE_TARGETS and missing.of_the_terminal:
                hint = f"name one of yours, or {missing.hint}"
                raise MissingExtraError(f"without a TARGET.toml {missing}", hint=hint) from error
            raise missing from error

    def main(self, *args: Any, **extra: Any) -> Any:
        """Run, and end the process with the documented exit code."""
        extra["standalone_mode"] = False
        try:
            result = super().main(*args, **extra)
        except UnbrickError as error:
            # A compiler's or a terminal's words, if there are any, then the error itself.
            if details := str(error).partition("\n")[2]:
                click.echo(details, err=True)
            sys.exit(_say(fold_error(error), error.exit_code))
        except click.ClickException as error:
            error.show()
            sys.exit(error.exit_code)
        except click.Abort:
            sys.exit(_say("interrupted", _INTERRUPTED))
        except Exception:  # noqa: BLE001 - the last line of defence
            sys.exit(_say_broken())
        sys.exit(result if isinstance(result, int) else 0)


def _say(message: str, code: int) -> int:
    click.echo(f"unbrick: {message}", err=True)
    return code


def _say_broken() -> int:
    """Show the exception that is being handled as a bug."""
    traceback.print_exc()
    bug = "this is a bug of unbrick. Report it with the lines above"
    return _say(bug, ToolBrokenError.exit_code)


@click.group(
    cls=Unbrick,
    options_metavar="[--config FILE] [--version] [--help]",
    context_settings={"help_option_names": ["-h", "--help"], "auto_envvar_prefix": "UNBRICK"},
)
@click.version_option(__version__, message="unbrick %(version)s")
@click.option(
    "--config",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Defaults of all options, TOML.  [default: unbrick.toml]",
)
@click.pass_context
def cli(ctx: click.Context, config: Path | None) -> None:
    """\b
    Prove that no power cut bricks a device, and update devices over the air.
    Exit codes: 0 done, 1 the device failed, 2 a wrong call, 3 a bug of unbrick.
    """
    if config is None and DEFAULT_FILE.exists():
        config = DEFAULT_FILE
    if config is not None:
        ctx.default_map = make_default_map(config, cli, ctx)


def main() -> None:
    """The entry point of ``unbrick``."""
    cli.main()
