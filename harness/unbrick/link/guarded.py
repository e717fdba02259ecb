"""A server that knows the key of a terminal on the bench, as if the factory had enrolled it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from unbrick.image.factory import derive_bench_key, derive_link_key
from unbrick.server.core.guard import LinkGuard
from unbrick.server.records.people import Actor

if TYPE_CHECKING:
    from unbrick.server.core.guard import Core


def guard_bench(core: Core, serial: str, key: bytes | None = None) -> LinkGuard:
    """What protects the messages between a server and a terminal on the bench.

    Nothing in it is random: the same session is the same again.

    Args:
        core: the server.
        serial: of the terminal.
        key: the terminal's own; by default the one that the bench gives it.
    """
    link_key = derive_link_key(key or derive_bench_key(serial))
    core.records.links.enrol(serial, link_key, Actor("factory", 0.0))
    return LinkGuard(core)
