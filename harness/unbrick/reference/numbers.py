"""What protects the wireless link, as nobody on it sees it: the numbers of messages, and the NOR.

With OSCORE (RFC 8613) a number that is used twice with one key gives the key away. The terminal's
numbers begin with the count of its starts, so all of them are other ones as long as this holds in
every session:

- A start counts from when its bit is programmed, and reads as 0 for sure. No start before this
  session has left that bit, or one behind it, so.
- All numbers of a start have its count, and each is of one message.
- A request of the server is answered in one way, and by the start that it came to first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from unbrick.campaign.verdict import Violation
from unbrick.errors import LinkError
from unbrick.reference.layout import find_places
from unbrick.server.core.guard import Stranger
from unbrick.wire import slipmux
from unbrick.wire.codec import decode
from unbrick.wire.oscore import MESSAGE_BITS, read_header

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import aiocoap

    from unbrick.engine.base import Line
    from unbrick.flash.cells import Cells
    from unbrick.flash.ops import FlashOp
    from unbrick.server.core.guard import LinkGuard

_NEVER = (Stranger.PLAIN, Stranger.UNKNOWN, Stranger.FORGED, Stranger.OLD)
"""Why no message of a good terminal is refused."""


class NumberWatch:
    """The terminal's radio line, with every message on it looked at.

    Args:
        line: of the terminal.
        list_starts: gives the operations on its counter of starts so far.
        cells: of its NOR when the session began, weak ones and all.
    """

    def __init__(
        self, line: Line, list_starts: Callable[[], Iterable[FlashOp]], cells: Cells
    ) -> None:
        self._line, self._list_starts, self._cells = line, list_starts, cells
        self._up, self._down = slipmux.Decoder(), slipmux.Decoder()
        self._start = 0
        self._least = _count_sure(cells) + 1
        self._said: dict[int, bytes] = {}
        self._asked: dict[int, int] = {}
        self._answered: dict[int, bytes] = {}
        self._came: dict[int, int] = {}

    def write(self, data: bytes) -> None:
        """Send to the terminal."""
        for message in _messages(self._down, data):
            header = read_header(message)
            if message.code.is_request() and header is not None:
                self._asked[message.mid] = header.sequence
                self._came.setdefault(header.sequence, self._start)
        self._line.write(data)

    def read(self) -> bytes:
        """What the terminal has sent.

        Raises:
            Violation: it must not send that.
        """
        data = self._line.read()
        for message in _messages(self._up, data):
            header = read_header(message)
            if header is None:
                continue
            if message.code.is_request():
                self._check_request(header.sequence, message.payload)
            elif message.mid in self._asked:
                self._check_reply(self._asked[message.mid], message.payload)
        return data

    def _check_request(self, number: int, payload: bytes) -> None:
        start = number >> MESSAGE_BITS
        if start != self._start:
            self._check_start(start)
        if self._said.setdefault(number, payload) != payload:
            raise Violation("number-reused", f"two messages have the number {number:#x}")

    def _check_start(self, start: int) -> None:
        """A start that was not heard of is counted, and no other one has its count."""
        if start < max(self._start + 1, self._least):
            raise Violation("number-reused", f"a start counts as {start}, as one before it")
        if not _is_sure(self._cells.after(self._list_starts()), start - 1):
            raise Violation("number-reused", f"start {start} is not counted in the NOR")
        self._start = start

    def _check_reply(self, number: int, payload: bytes) -> None:
        """``number`` is that of the request."""
        if self._came[number] != self._start:
            raise Violation("replayed", f"request {number} was said to an earlier start")
        if self._answered.setdefault(number, payload) != payload:
            raise Violation("number-reused", f"request {number} was answered in two ways")


def check_heard(guard: LinkGuard) -> None:
    """Nothing that a good terminal says over a good link is refused.

    Raises:
        Violation: something was.
    """
    for why in _NEVER:
        if guard.refused[why]:
            raise Violation("locked-out", f"the server has refused {why.value} messages")


def _messages(decoder: slipmux.Decoder, data: bytes) -> list[aiocoap.Message]:
    """Those that end with this data."""
    messages = []
    for frame in decoder.feed(data):
        if frame.type is slipmux.FrameType.COAP:
            try:
                messages.append(decode(frame.data))
            except LinkError:
                continue
    return messages


def _is_sure(cells: Cells, bit: int) -> bool:
    """Whether a bit of the counter is 0, and not weak."""
    offset = find_places().starts.offset + bit // 8
    return not cells.read(offset, 1)[0] >> bit % 8 & 1  # A weak cell is a 1 there.


def _count_sure(cells: Cells) -> int:
    """One past the last bit of the counter that is 0 for sure: the highest count that was used."""
    places = find_places().starts
    block = cells.blocks[places.offset // find_places().block]
    zeros = ~int.from_bytes(block, "little") & ((1 << 8 * len(block)) - 1)
    return zeros.bit_length()
