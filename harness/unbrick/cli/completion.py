"""What a shell completes, besides commands and options: names of scenarios, and files."""

from __future__ import annotations

import glob
from typing import TYPE_CHECKING

from click.shell_completion import CompletionItem

if TYPE_CHECKING:
    import click


def complete_file(
    ctx: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Any file: the shell knows how."""
    del ctx, parameter
    return [CompletionItem(incomplete, type="file")]


def complete_searched(
    ctx: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Scenarios, and target files of this folder; if there is none that begins so, any file."""
    found = sorted(glob.glob(f"{glob.escape(incomplete)}*.toml"))  # noqa: PTH207 - of a text
    try:
        from unbrick.reference.scenario import SCENARIOS  # noqa: PLC0415 - needs an extra
    except ModuleNotFoundError:
        pass
    else:
        found += [name for name in SCENARIOS if name.startswith(incomplete)]
    return [CompletionItem(name) for name in found] or complete_file(ctx, parameter, incomplete)
