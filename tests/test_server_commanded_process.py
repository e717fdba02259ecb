"""A server killed (SIGKILL) at every step of a commanded update goes on from its database."""

from __future__ import annotations

import hashlib
import random
import re
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import aiocoap
import pytest
from commanded_terminal import CommandedTerminal, in_nor, seal
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from patience import PATIENCE_S
from server_world import SERIAL
from test_server_process import ServerProcess, start

from unbrick.image.factory import derive_link_key
from unbrick.image.format import inspect
from unbrick.image.sign import sign
from unbrick.layout import reference_layout
from unbrick.server.database import SqlRecords
from unbrick.server.edge.client import ServerClient
from unbrick.server.records.people import Actor, AuditAction
from unbrick.wire.coap import CoapEndpoint
from unbrick.wire.oscore import Context, Side, read_header
from unbrick.wire.protected import ProtectedEndpoint

LAYOUT = reference_layout()
LINK_KEY = derive_link_key(bytes(range(32)))
ENTRIES = ["Alice +441632960123", "Bob +441632960456"]
SPEED = 8.0
"""Seconds of the terminal in a second: it waits for nobody as long as a real one."""
LONGEST_STEP_S = 0.02
"""Seconds of ours that count, between two calls of ``serve``."""


def make_signed(folder: Path, version: str, userdata_format: int) -> bytes:
    key = folder / "key.pem"
    if not key.exists():
        private = Ed25519PrivateKey.from_private_bytes(bytes(32))
        encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
        key.write_bytes(private.private_bytes(encoding, form, serialization.NoEncryption()))
    start = LAYOUT.partition("application").offset + LAYOUT.image_header_size
    head = LAYOUT.board.sram.end.to_bytes(4, "little") + (start + 0x41).to_bytes(4, "little")
    return sign(
        head + random.Random(version).randbytes(2500),
        name="terminal",
        version=version,
        build_time="2024-05-01T12:00:00Z",
        hardware_id=LAYOUT.hardware_id,
        security_counter=1,
        key=key,
        userdata_format=userdata_format,
    )


class ModelOnUdp:
    """The modelled terminal on a UDP socket.

    Attributes:
        on_event: called for each request of the server, before its answer, and for each result of
            a command, when it has been sent.
    """

    def __init__(self, model: CommandedTerminal) -> None:
        self.model = model
        self.port = 0
        self.on_event: Callable[[], None] = lambda: None
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self._socket.settimeout(0.005)
        self.now = 0.0
        self._served = time.monotonic()
        self._sent_result = False
        model.power_on(self.now)
        self._start()

    def _start(self) -> None:
        """What is under way is forgotten with each start."""
        self._starts = self.model.starts
        self._coap = self._make_endpoint()

    def _make_endpoint(self) -> CoapEndpoint:
        """Its end of the link, for one start."""
        return CoapEndpoint(self._handle, random.Random(self._starts))

    def close(self) -> None:
        self._socket.close()

    def serve(self) -> None:
        """Do what is due, for a few milliseconds.

        Its clock stands still between two calls, as long as a server takes to begin.
        """
        elapsed, self._served = time.monotonic() - self._served, time.monotonic()
        self.now += min(elapsed, LONGEST_STEP_S) * SPEED
        requests = self.model.step(self.now)
        if self._starts != self.model.starts:
            self._start()
        for ticket, message in requests:
            self._sent_result |= message.opt.uri_path == ("result",)
            self._coap.request(message, ticket, self.now)
        self._coap.poll(self.now)
        self._flush()
        with suppress(TimeoutError, ConnectionError):
            self._receive(self._socket.recv(2048))
        for outcome in self._coap.take_outcomes():
            if outcome.response is not None:
                self.model.answered(outcome.ticket, outcome.response, self.now)
        self._flush()
        if self._sent_result:
            self._sent_result = False
            self.on_event()

    def _receive(self, datagram: bytes) -> None:
        self._coap.receive(datagram, self.now)

    def _flush(self) -> None:
        for datagram in self._coap.take_datagrams():
            self._send(datagram)

    def _send(self, datagram: bytes) -> None:
        with suppress(ConnectionError):
            self._socket.sendto(datagram, ("127.0.0.1", self.port))

    def _handle(self, request: Any, _now: float) -> Any:
        self.on_event()
        return self.model.handle(request, self.now)


class ProtectedOnUdp(ModelOnUdp):
    """The modelled terminal on a protected link; sees that no number is used for two messages.

    The server encrypts with a number of its own, or, in a reply, with the number of the request.

    Attributes:
        seen: what it has encrypted, by whose number that was, and the number.
    """

    def __init__(self, model: CommandedTerminal, link_key: bytes) -> None:
        self._context = Context(link_key, model.serial, Side.TERMINAL)
        self._asked: dict[tuple[int, bytes], int] = {}
        self.seen: dict[tuple[Side, int], bytes] = {}
        super().__init__(model)

    def numbers(self, side: Side) -> list[int]:
        """The numbers of a side with which the server has encrypted."""
        return [number for whose, number in self.seen if whose is side]

    def _make_endpoint(self) -> CoapEndpoint:
        return ProtectedEndpoint(
            self._handle, random.Random(self._starts), self._context, self._starts
        )

    def _send(self, datagram: bytes) -> None:
        message = aiocoap.Message.decode(datagram)
        header = read_header(message)
        if message.code.is_request() and header is not None:
            self._asked[message.mid, message.token] = header.sequence
        super()._send(datagram)

    def _receive(self, datagram: bytes) -> None:
        message = aiocoap.Message.decode(datagram)
        header = read_header(message)
        if header is not None:
            number = Side.SERVER, header.sequence
            if header.partial_iv is None:
                number = Side.TERMINAL, self._asked[message.mid, message.token]
            known = self.seen.setdefault(number, message.payload)
            assert known == message.payload, f"{number} was used for two messages"
        super()._receive(datagram)


def enrol(database: str, *serials: str) -> None:
    """The server knows the key of the links of these terminals."""
    with closing(SqlRecords(database)) as records:
        for serial in serials:
            records.links.enrol(serial, LINK_KEY, Actor("factory", 1.0))


class Bench:
    """The server's process, its database, and the terminal."""

    def __init__(self, database: str, images: list[bytes]) -> None:
        self.database = database
        model = CommandedTerminal(images, list(ENTRIES), inspect=inspect)
        self.terminal = ProtectedOnUdp(model, LINK_KEY)
        enrol(database, SERIAL)
        self.server = self.start()
        with ServerClient(self.server.url) as client:
            for image in images:
                client.publish(image)

    def start(self) -> ServerProcess:
        server = ServerProcess(self.database, insecure=False)
        self.terminal.port = server.coap_port
        return server

    def kill(self) -> None:
        """SIGKILL; then another one begins with its database."""
        self.server.kill()
        self.server = self.start()

    def close(self) -> None:
        self.server.kill()
        self.terminal.close()

    def wait(self, until: Callable[[ServerClient], bool]) -> None:
        """Serve until something is so, which is looked at from time to time."""
        end = time.monotonic() + PATIENCE_S
        while True:
            url = self.server.url
            with ServerClient(url) as client:
                while self.server.url == url:
                    for _ in range(5):
                        self.terminal.serve()
                    if self.server.url == url and until(client):
                        return
                    assert time.monotonic() < end, self.terminal.model.journal

    def update(self, version: str) -> dict[str, Any]:
        """Have the terminal updated until the session has ended; the update as it is then."""
        with ServerClient(self.server.url) as client:
            started = client.start(SERIAL, version, "commanded", downgrade=True)["id"]

        def over(client: ServerClient) -> bool:
            found = client.update(started)
            return bool(found["session"] and found["session"]["ended"])

        self.wait(over)
        self.terminal.on_event = lambda: None
        with ServerClient(self.server.url) as client:
            return client.update(started)

    def data_is_somewhere(self) -> bool:
        """The user's data is in the NOR, or the database has a backup of it."""
        if in_nor(self.terminal.model) >= set(ENTRIES):
            return True
        records = SqlRecords(self.database)
        try:
            kept = records.backups(SERIAL)
            sums = {
                hashlib.sha256(seal(ENTRIES, update.id)).digest() for update in records.updates()
            }
            return any(backup.checksum in sums for backup in kept)
        finally:
            records.close()


@pytest.fixture
def bench(database_url: str, tmp_path: Path) -> Iterator[Bench]:
    images = [make_signed(tmp_path, "1.0.0", 1), make_signed(tmp_path, "2.0.0", 2)]
    bench = Bench(database_url, images)
    yield bench
    bench.close()


def check(bench: Bench, update: dict[str, Any], version: str) -> None:
    """It has succeeded, the data is back, and nothing of it is left; the audit says so."""
    model = bench.terminal.model
    assert (update["state"], update["session"]["state"]) == ("succeeded", "succeeded")
    assert model.running() == model.images[0 if version == "1.0.0" else 1]
    assert set(model.read() or ()) == set(ENTRIES)
    assert update["session"]["backup"] is None
    records = SqlRecords(bench.database)
    try:
        assert records.backups() == []
        of_each: dict[int, list[str]] = {}
        for entry in records.audit(serial=SERIAL):
            if entry.action is not AuditAction.TERMINAL_ENROLLED:
                of_each.setdefault(entry.subject, []).append(entry.action.value)
        assert len(of_each) == update["id"]
        for actions in of_each.values():
            assert actions[0] == "backup kept"
            assert actions[-1] == "backup deleted"
            # A server that went on after another one has read it again.
            assert set(actions[1:-1]) == {"backup read"}
    finally:
        records.close()


@pytest.mark.slow(first=True)
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_claim_b6_a_server_killed_at_every_step_of_a_session_loses_and_leaves_nothing(
    bench: Bench,
) -> None:
    """In a session for each of them: as a message of the server arrives, as a result has left."""
    bench.wait(lambda client: bool(client.terminals()))
    moment = 0
    while True:
        version = ("2.0.0", "1.0.0")[moment % 2]
        count = iter(range(10_000))
        killed = False

        def kill(moment: int = moment, count: Iterator[int] = count) -> None:
            nonlocal killed
            if next(count) == moment:
                killed = True
                assert bench.data_is_somewhere()
                bench.kill()
                assert bench.data_is_somewhere()

        bench.terminal.on_event = kill
        update = bench.update(version)
        check(bench, update, version)
        if not killed:
            break
        moment += 1
    # Two formats, so there are three erases beside writes, check, restart, and the data's pieces.
    assert moment >= 25


@pytest.mark.slow
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_commanded_update_from_the_command_line(bench: Bench) -> None:
    bench.wait(lambda client: bool(client.terminals()))
    where = ("--server-url", bench.server.url)
    waiting = start("update", "start", SERIAL, "2.0.0", "--commanded", "--wait", *where)
    while waiting.poll() is None:
        bench.terminal.serve()
    said = waiting.communicate()
    assert waiting.returncode == 0, said
    shown = start("update", "show", "1", *where).communicate()[0]
    assert "update 1 of T-0001, 1.0.0+0 to 2.0.0+0: succeeded" in shown
    assert re.search(r"session 1 succeeded, (\d+) of \1 steps done, 0 repeated\n", shown)
    assert "sealed" not in shown
    abandoned = start("update", "abandon", "1", "--yes", *where)
    assert "nothing of it goes on" in abandoned.communicate()[1]


@pytest.mark.slow
def test_a_server_that_is_killed_at_each_step_of_the_same_session_goes_on(
    bench: Bench,
) -> None:
    """On each database: that what is written is kept is up to it, what that is is not."""
    bench.wait(lambda client: bool(client.terminals()))
    seen: set[tuple[int, str]] = set()

    def kill() -> None:
        """After what is new: of a step, its request or its result, once."""
        model = bench.terminal.model
        moment = len(model.done), model.journal.phase
        if moment not in seen:
            seen.add(moment)
            bench.kill()

    bench.terminal.on_event = kill
    update = bench.update("2.0.0")
    check(bench, update, "2.0.0")
    assert len(seen) >= 10
