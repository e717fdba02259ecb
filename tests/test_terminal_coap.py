"""The terminal's CoAP against RFC 7252 and RFC 6690: the real firmware, and a peer that sends
messages as no server of ours would."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import aiocoap
import pytest

from unbrick.image.factory import make_factory_image
from unbrick.wire import slipmux
from unbrick.wire.codec import decode

if TYPE_CHECKING:
    from collections.abc import Callable

    from unbrick.engine.base import Line
    from unbrick.reference.system import System

ANSWER_TIMEOUT_S = 10.0
"""Virtual seconds within which a terminal has answered, or does not."""

DISCOVERY = b"\xbb.well-known\x04core"
APPLICATION_LINKS = (
    b"</announce>;ct=60,</backup>;ct=60,</message>;ct=60,</restore>;ct=60,</say>;ct=60,"
    b"</status>;ct=60,</upgrade>;ct=60"
)


class Radio:
    """A peer at the terminal's modem that sends bytes as they are."""

    def __init__(self, line: Line) -> None:
        self.answers: list[aiocoap.Message] = []
        self._line = line
        self._decoder = slipmux.Decoder()
        self._mids = itertools.count(1)

    def step(self, _now: float) -> float | None:
        """Take what the terminal says, but for requests of its own."""
        for frame in self._decoder.feed(self._line.read()):
            message = decode(frame.data)
            if not message.code.is_request():
                self.answers.append(message)
        return None

    def send(self, mtype: aiocoap.Type, code: int, options: bytes) -> None:
        """Send a message without a token; ``options`` as they are encoded."""
        head = bytes((0x40 | mtype << 4, code)) + next(self._mids).to_bytes(2, "big")
        self._line.write(slipmux.encode(head + options))


class Terminal:
    """A terminal with a peer at its modem in the server's place."""

    def __init__(self, system: System) -> None:
        self._bench = system.bench
        self._bench.peers.remove(system.link)
        self._radio = Radio(system.engine.radio)
        self._bench.peers.append(self._radio)

    def ask(
        self, options: bytes, mtype: aiocoap.Type = aiocoap.CON, code: int = aiocoap.GET
    ) -> aiocoap.Message | None:
        """The answer to a request; None: there is none."""
        self._radio.answers.clear()
        self._radio.send(mtype, code, options)
        self._bench.run_until(lambda: bool(self._radio.answers), ANSWER_TIMEOUT_S)
        return self._radio.answers[0] if self._radio.answers else None


def without_key(system: System, application: str | None) -> None:
    """Have a terminal that has no key of its own: it speaks plainly."""
    image = None if application is None else system.releases.signed[application]
    system.engine.load_nor(make_factory_image(system.releases.boot, image, system.serial))


@pytest.fixture
def terminal(unbrick_system: System) -> Terminal:
    """One that runs its application."""
    without_key(unbrick_system, "1.0.0")
    unbrick_system.power_on()
    return Terminal(unbrick_system)


def test_with_a_key_nothing_is_heard_that_is_not_protected(unbrick_system: System) -> None:
    unbrick_system.power_on()
    protected = Terminal(unbrick_system)
    for options in (b"\xb6status", DISCOVERY, *(options for options, _ in REFUSED.values())):
        answer = protected.ask(options)
        assert answer is not None
        assert answer.code == aiocoap.UNAUTHORIZED
        assert not answer.payload
        assert protected.ask(options, aiocoap.NON) is None


REFUSED = {
    "unknown": (b"\xb6status\xe1\xfc\xd1x", 65001),
    "too long": (b"\xb6status\x63\x00\x00\x3c", 17),
    "repeated": (b"\xb6status\x61\x3c\x01\x3c", 17),
    "a query": (b"\xb6status\x41x", 15),
    "a block": (b"\xb6status\xc1\x06", 23),
    "an empty host": (b"\x30\x86status", 3),
    "no proxy's URI": (b"\xb6status\xd0\x0b", 35),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_critical_option_that_is_not_recognised_is_named(terminal: Terminal, case: str) -> None:
    options, number = REFUSED[case]
    answer = terminal.ask(options)
    assert answer is not None
    assert answer.code == aiocoap.BAD_OPTION
    assert answer.payload.decode() == f"option {number} is not recognised"
    assert answer.opt.content_format is None


def test_a_non_confirmable_request_with_one_is_rejected_in_silence(terminal: Terminal) -> None:
    for options, _number in REFUSED.values():
        assert terminal.ask(options, aiocoap.NON) is None
    answer = terminal.ask(b"\xb6status", aiocoap.NON)
    assert answer is not None
    assert answer.code == aiocoap.CONTENT


@pytest.mark.parametrize("mtype", [aiocoap.CON, aiocoap.NON])
def test_it_is_no_proxy(terminal: Terminal, mtype: aiocoap.Type) -> None:
    for option in (b"\xdd\x16\x0ccoap://example.org/status", b"\xb6status\xd4\x0fcoap"):
        answer = terminal.ask(option, mtype)
        assert answer is not None
        assert answer.code == aiocoap.PROXYING_NOT_SUPPORTED


def test_a_marker_without_payload_is_a_format_error(terminal: Terminal) -> None:
    answer = terminal.ask(b"\xb6status\xff")
    assert answer is not None
    assert (answer.mtype, answer.code) == (aiocoap.RST, aiocoap.EMPTY)
    assert terminal.ask(b"\xb6status\xff", aiocoap.NON) is None


def test_the_application_lists_its_resources(terminal: Terminal) -> None:
    for query in (b"", b"\x49rt=nobody"):
        answer = terminal.ask(DISCOVERY + query)
        assert answer is not None
        assert answer.code == aiocoap.CONTENT
        assert answer.opt.content_format == 40
        assert answer.payload == APPLICATION_LINKS
    for accept, code in ((40, aiocoap.CONTENT), (60, aiocoap.NOT_ACCEPTABLE)):
        answer = terminal.ask(DISCOVERY + bytes((0x61, accept)))
        assert answer is not None
        assert answer.code == code
    answer = terminal.ask(DISCOVERY, code=aiocoap.POST)
    assert answer is not None
    assert answer.code == aiocoap.METHOD_NOT_ALLOWED


def test_so_does_the_resident_program(
    unbrick_make_system: Callable[..., System],
) -> None:
    system = unbrick_make_system(installed=None)
    without_key(system, None)
    system.engine.power_on()
    system.console.expect("restoration: no application")
    answer = Terminal(system).ask(DISCOVERY)
    assert answer is not None
    assert answer.payload == b"</announce>;ct=60,</status>;ct=60"
