"""What the server's process says of its troubles, without ending because of them."""

from __future__ import annotations

import contextlib
import logging
import time
from typing import TYPE_CHECKING

from unbrick.server.errors import RecordsError

if TYPE_CHECKING:
    from collections.abc import Iterator

AGAIN_S = 60.0
"""Seconds after which the same trouble is said again."""

_log = logging.getLogger(__name__)


class Troubles:
    """Says each trouble once, not for every message of every terminal."""

    def __init__(self) -> None:
        self._said: dict[str, float] = {}

    @contextlib.contextmanager
    def survived(self, what: str) -> Iterator[None]:
        """Whatever goes wrong inside, all is as before, and another time may do."""
        try:
            yield
        except RecordsError as error:
            self._say(f"{error}; {error.hint}")
        except Exception:  # noqa: BLE001 - see above
            _log.exception(what)

    def _say(self, line: str) -> None:
        now = time.monotonic()
        if now - self._said.get(line, -AGAIN_S) >= AGAIN_S:
            self._said = {line: now}
            _log.error("server: %s", line)


TROUBLES = Troubles()
"""Those of this process."""
