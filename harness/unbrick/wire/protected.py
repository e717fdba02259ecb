"""A terminal's end of the link, without firmware: a CoAP endpoint whose messages are protected."""

from __future__ import annotations

import random
from collections.abc import Callable

import aiocoap

from unbrick.errors import LinkError
from unbrick.wire.coap import (
    CoapEndpoint,
    Reader,
    RequestOutcome,
    is_response_recognised,
    read_plainly,
    refuse_options,
)
from unbrick.wire.oscore import MAX_MESSAGES, MESSAGE_BITS, Binding, Context, ReplayWindow

MOST_ECHOES = 3
"""How often in a row a request is made again because the server asks for that."""


class ProtectedEndpoint(CoapEndpoint):
    """As the firmware does it (docs/protocol.md): see ``CoapEndpoint``.

    A request that the server answers with an Echo value is made again with it, under a new number.

    Args:
        handler: answers the server's requests.
        rng: for message ids and times.
        context: the terminal's side of the link.
        start: how often the terminal has started; another one each time.
    """

    def __init__(
        self,
        handler: Callable[[aiocoap.Message, float], aiocoap.Message],
        rng: random.Random,
        context: Context,
        start: int,
    ) -> None:
        super().__init__(self._answer_protected, rng)
        self._answer, self._context = handler, context
        self._sequence, self._used_up = (
            start << MESSAGE_BITS,
            (start << MESSAGE_BITS) + MAX_MESSAGES,
        )
        self._window: ReplayWindow | None = None
        self._meant: dict[int, aiocoap.Message] = {}
        self._echoes = 0

    def request(
        self, message: aiocoap.Message, ticket: int, now: float, read: Reader = read_plainly
    ) -> None:
        """See ``CoapEndpoint``; a number is given to the request now."""
        if self._sequence == self._used_up:
            raise LinkError("all numbers of this start are used", hint="start the terminal again")
        sealed, binding = self._context.seal_request(message, self._sequence)
        self._sequence += 1
        self._meant[ticket] = message

        def open_and_read(response: aiocoap.Message) -> aiocoap.Message | None:
            opened = self._open(response, binding)
            return None if opened is None else read(opened)

        super().request(sealed, ticket, now, open_and_read)

    def receive(self, datagram: bytes, now: float) -> None:
        """See ``CoapEndpoint``."""
        super().receive(datagram, now)
        outcomes, self._outcomes = self._outcomes, []
        for outcome in outcomes:
            response, ticket = outcome.response, outcome.ticket
            if response is None or response.code != aiocoap.UNAUTHORIZED or not response.opt.echo:
                self._echoes = 0
                self._outcomes.append(outcome)
            elif self._echoes == MOST_ECHOES:  # As if nothing had been answered.
                self._echoes = 0
                self._outcomes.append(RequestOutcome(ticket, None))
            else:
                self._echoes += 1
                self.request(self._meant[ticket].copy(echo=response.opt.echo), ticket, now)

    def _open(self, response: aiocoap.Message, binding: Binding) -> aiocoap.Message | None:
        """What the server answers; None: anybody may have made it."""
        try:
            opened = self._context.open_reply(response, binding)
        except LinkError:
            return None
        if not is_response_recognised(opened.options):
            return None
        if opened.sequence is not None and self._window is None:
            self._window = ReplayWindow(opened.sequence)
        return opened.message

    def _answer_protected(self, request: aiocoap.Message, now: float) -> aiocoap.Message:
        try:
            opened = self._context.open_request(request)
        except LinkError:
            return aiocoap.Message(code=aiocoap.UNAUTHORIZED)
        sequence = opened.sequence or 0
        if self._window is None or not self._window.is_fresh(sequence):
            return aiocoap.Message(code=aiocoap.UNAUTHORIZED)
        self._window.take(sequence)
        response = refuse_options(opened.message, opened.options)
        if response is None:
            response = self._answer(opened.message, now)
        return self._context.seal_reply(response, opened.binding)
