"""The reference system as keywords use it: a terminal, its server and link, and what is logged."""

from __future__ import annotations

from html import escape
from itertools import groupby
from typing import TYPE_CHECKING

from unbrick.errors import UnbrickError
from unbrick.image.format import inspect
from unbrick.reference.system import System
from unbrick.robot.device import HandledDevice
from unbrick.robot.picture import draw_nor_picture
from unbrick.server.core.analysis import AtOnce
from unbrick.server.core.core import ServerCore

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from unbrick.engine.base import Engine
    from unbrick.firmware.signed import Releases
    from unbrick.flash.ops import FlashOp
    from unbrick.image.format import ImageInfo

SHOWN = 30  # lines of a log that a failure shows; the file has all of them


class Reference(HandledDevice):
    """A terminal fresh from the factory, and everything around it.

    Attributes:
        claims: what the server believes of an image, instead of what is in it.
        factory: the NOR as it left the factory; None when the engine cannot show it.
        differ: makes the server's differential files; None: it sends full images.
        foresees: the server prepares upgrades before they are asked for.
        entries: what the user has saved, name and number.
    """

    def __init__(
        self,
        engine: Engine,
        releases: Releases,
        *,
        installed: str | None,
        serial: str,
        seed: int,
    ) -> None:
        self.engine = engine
        self.claims: dict[bytes, ImageInfo] = {}
        self.differ: Callable[[bytes, bytes], bytes] | None = None
        self.foresees = False
        self.entries: list[tuple[str, str]] = []
        try:
            self.system = System(
                engine,
                releases,
                installed=installed,
                serial=serial,
                seed=seed,
                inspect=self._believe,
            )
            self.factory = self.nor()
        except BaseException:
            engine.close()
            raise
        super().__init__(engine, self.system.bench, "terminal")

    def _believe(self, image: bytes) -> ImageInfo:
        return self.claims.get(image) or inspect(image)

    def nor(self) -> bytes | None:
        """The NOR's contents; None when this engine cannot show them."""
        try:
            return self.engine.read_nor()
        except UnbrickError:
            return None

    @property
    def ops(self) -> Sequence[FlashOp]:
        """The flash operations so far, as far as the engine writes them down."""
        trace = self.engine.flash_trace
        return trace.ops if trace else []

    def new_server(self) -> None:
        """A server made anew from the records of the old one."""
        records = self.system.records
        analyst = AtOnce(records, self.differ, foresees=self.foresees)
        self.system.server_returns(ServerCore(records, self._believe, analyst))

    def radio_log(self) -> str:
        """The requests of both sides of the wireless link and their answers."""
        link = self.system.link
        lines = []
        for words, run in groupby(link.exchanges, lambda e: f"{e.request} -> {e.answer}"):
            first, *more = run
            times = f", {1 + len(more)} times until {more[-1].time:.3f}" if more else ""
            lines.append(f"[{first.time:10.3f}] {words}{times}")
        faults = ", ".join(f"{name} {count}" for name, count in sorted(link.faults.counts.items()))
        return "\n".join([*lines, f"faults of the link: {faults}" if faults else ""]).rstrip()

    def picture(self) -> str:
        """The NOR, compared with how it left the factory, as HTML."""
        now = self.nor()
        if now is None or self.factory is None:
            return f"<i>the {escape(self.engine.name)} engine cannot show the NOR</i>"
        return draw_nor_picture(now, self.factory, self.ops)

    def logs(self) -> Mapping[str, tuple[str, str]]:
        """What a failure shows."""
        return {**super().logs(), "UART1, the wireless link": ("radio", self.radio_log())}


def make_attachment(title: str, log: str, link: str | None) -> str:
    """The end of a log as HTML; ``link`` leads to the file that has all of it."""
    lines = log.splitlines()
    where = f" (<a href='{escape(link)}'>all {len(lines)} lines</a>)" if link else ""
    left_out = "…\n" if len(lines) > SHOWN else ""
    tail = escape("\n".join(lines[-SHOWN:]))
    return (
        f"<details open><summary><b>{escape(title)}</b>{where}</summary>"
        f"<pre>{left_out}{tail}</pre></details>"
    )
