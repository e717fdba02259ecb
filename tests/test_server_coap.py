"""The server on a real UDP port, with the client of ``aiocoap`` as a terminal."""

from __future__ import annotations

import asyncio
import hashlib
import random
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import aiocoap
import pytest
from patience import PATIENCE_S
from server_world import SERIAL, get_block, inspect, make_image, post, registration, serve_plainly

from unbrick.errors import PortError
from unbrick.server.core.core import ServerCore
from unbrick.server.core.guard import LinkGuard, Stranger
from unbrick.server.edge import udp as coap
from unbrick.server.edge.udp import CoapServer
from unbrick.server.records.memory import MemoryRecords
from unbrick.server.records.people import Actor
from unbrick.server.records.updates import MessageState, Terminal, UpdateState
from unbrick.wire.coap import CoapEndpoint
from unbrick.wire.codec import decode
from unbrick.wire.messages import Decision, Result
from unbrick.wire.oscore import Context, Side

IMAGE = make_image(size=20_000)


def with_server(test: Callable[[CoapServer], Awaitable[None]]) -> None:
    async def run() -> None:
        server = serve_plainly(ServerCore(MemoryRecords(), inspect))
        await server.start("127.0.0.1", 0)
        try:
            await asyncio.wait_for(test(server), PATIENCE_S)
        finally:
            await server.close()

    asyncio.run(run())


async def ask(client: Any, server: CoapServer, message: Any) -> Any:
    message.remote = aiocoap.message.UndecidedRemote("coap", f"127.0.0.1:{server.port}")
    return await client.request(message, handle_blockwise=False).response


async def until(condition: Callable[[], bool]) -> None:
    """Returns when the condition holds; the test's own time limit ends a vain wait."""
    while not condition():  # noqa: ASYNC110 - what is waited for is in the records
        await asyncio.sleep(0.01)


def prepare(server: CoapServer) -> None:
    """An update of a terminal that is announced, so that its file can be had."""
    server.core.publish(IMAGE, 0.0)
    server.core.start_update(SERIAL, "1.1.0", 0.0)
    request = post("register", registration().encode())
    server.core.handle("127.0.0.1:1", request, 0.0)
    (outgoing,) = server.core.poll(0.0)
    server.core.outcome(outgoing.ticket, None, 0.0)


def test_blocks_in_random_order_and_in_parallel() -> None:
    async def test(server: CoapServer) -> None:
        prepare(server)
        numbers = list(range(-(-len(IMAGE) // 256)))
        random.Random(3).shuffle(numbers)
        parts: dict[int, bytes] = {}
        queue = iter(numbers)

        async def fetch() -> None:
            # A context each: that of aiocoap has one request under way per server.
            client = await aiocoap.Context.create_client_context()
            for number in queue:
                response = await ask(client, server, get_block(1, number, 4))
                assert response.code == aiocoap.CONTENT
                assert response.opt.etag == hashlib.sha256(IMAGE).digest()[:8]
                parts[number] = response.payload
            await client.shutdown()

        await asyncio.gather(*(fetch() for _ in range(4)))
        assert b"".join(parts[number] for number in sorted(parts)) == IMAGE

    with_server(test)


def test_any_client_with_block_wise_transfer_gets_the_whole_file() -> None:
    async def test(server: CoapServer) -> None:
        prepare(server)
        client = await aiocoap.Context.create_client_context()
        uri = f"coap://127.0.0.1:{server.port}/file/1"
        response = await client.request(aiocoap.Message(code=aiocoap.GET, uri=uri)).response
        assert response.payload == IMAGE
        await client.shutdown()

    with_server(test)


class UdpTerminal(asyncio.DatagramProtocol):
    """A terminal behind a bridge: one UDP socket that asks and is asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.answers: list[Any] = []
        self.deaf = 0
        self._coap = CoapEndpoint(self._handle, random.Random(1))

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, _addr: object) -> None:
        if self.deaf:
            self.deaf -= 1
            return
        self._coap.receive(data, 0.0)
        self.answers += self._coap.take_outcomes()
        self._flush()

    def request(self, message: Any) -> None:
        self._coap.request(message, 1, 0.0)
        self._flush()

    def again(self) -> None:
        """The time has come to send again what was not answered."""
        self._coap.poll(3.0)
        self._flush()

    def _flush(self) -> None:
        for datagram in self._coap.take_datagrams():
            self._transport.sendto(datagram)

    def _handle(self, request: Any, _now: float) -> Any:
        path = "/".join(request.opt.uri_path)
        self.asked.append(path)
        payload = Decision(Result.SUCCESS, 0, 0, "").encode() if path == "announce" else b""
        return aiocoap.Message(code=aiocoap.CHANGED, payload=payload)


async def udp_terminal(server: CoapServer) -> tuple[Any, UdpTerminal]:
    loop = asyncio.get_running_loop()
    return await loop.create_datagram_endpoint(UdpTerminal, remote_addr=("127.0.0.1", server.port))


def test_a_terminal_is_spoken_to_where_it_registered_from() -> None:
    async def test(server: CoapServer) -> None:
        records = server.core.records
        server.core.publish(IMAGE, 0.0)
        socket_, terminal = await udp_terminal(server)
        terminal.request(post("register", registration().encode()))
        await until(lambda: records.terminals() != [])
        server.core.start_update(SERIAL, "1.1.0", 0.0)
        server.core.send_text(SERIAL, "hello", 0.0)
        server.pump()
        await until(lambda: records.messages()[0].state is MessageState.DELIVERED)
        await until(lambda: records.updates()[0].state is UpdateState.TRANSFERRING)
        assert sorted(terminal.asked) == ["announce", "message"]
        socket_.close()

    with_server(test)


def test_a_terminal_that_registers_is_told_at_once_what_waits_for_it() -> None:
    async def test(server: CoapServer) -> None:
        server.core.publish(IMAGE, 0.0)
        server.core.start_update(SERIAL, "1.1.0", 0.0)
        socket_, terminal = await udp_terminal(server)
        terminal.request(post("register", registration().encode()))
        await until(lambda: terminal.asked == ["announce"])
        socket_.close()

    with_server(test)


def test_a_terminal_that_is_gone_is_told_when_it_registers_again() -> None:
    async def test(server: CoapServer) -> None:
        records = server.core.records
        server.core.publish(IMAGE, 0.0)
        socket_, terminal = await udp_terminal(server)
        terminal.request(post("register", registration().encode()))
        await until(lambda: records.terminals() != [])
        socket_.close()
        await asyncio.sleep(0)
        server.core.start_update(SERIAL, "1.1.0", 0.0)
        server.pump()
        socket_, terminal = await udp_terminal(server)
        terminal.request(post("register", registration().encode()))
        await until(lambda: records.updates()[0].state is UpdateState.TRANSFERRING)
        assert terminal.asked == ["announce"]
        socket_.close()

    with_server(test)


def test_hostile_datagrams_do_not_stop_the_server() -> None:
    async def test(server: CoapServer) -> None:
        rng = random.Random(5)
        good = bytearray(b"\x40\x02\x00\x01\xb8register\xff" + registration().encode())
        # Bytes of an option that are no UTF-8 make the codec itself stumble.
        hostile = [b"", b"\x40", b"\xff" * 40, b"\x40\x01\x00\x01\xb2\xff\xff"]
        for _ in range(200):
            mutant = bytearray(good)
            for _ in range(rng.randrange(1, 5)):
                mutant[rng.randrange(len(mutant))] = rng.randrange(256)
            hostile.append(bytes(mutant))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as enemy:
            for datagram in hostile:
                enemy.sendto(datagram, ("127.0.0.1", server.port))
                await asyncio.sleep(0)
        client = await aiocoap.Context.create_client_context()
        response = await ask(client, server, post("register", registration(serial="ok").encode()))
        assert response.code == aiocoap.CHANGED
        assert server.core.records.terminal("ok") is not None
        await client.shutdown()

    asyncio.run(_quiet(test))


async def _quiet(test: Callable[[CoapServer], Awaitable[None]]) -> None:
    """Like ``with_server``, without the loop's complaints about what the codec raised."""
    asyncio.get_running_loop().set_exception_handler(lambda _loop, _context: None)
    server = serve_plainly(ServerCore(MemoryRecords(), inspect))
    await server.start("127.0.0.1", 0)
    try:
        await asyncio.wait_for(test(server), PATIENCE_S)
    finally:
        await server.close()


def test_of_what_arrives_together_one_that_fails_does_not_harm_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A disk that is full, say, at one of them: no answer, nothing kept, and it may come again."""

    async def test(server: CoapServer) -> None:
        records = server.core.records
        save, full = MemoryRecords.save_terminal, [True]

        def save_or_fail(records: MemoryRecords, terminal: Terminal) -> None:
            save(records, terminal)
            if terminal.serial == "T-2" and full[0]:
                raise RuntimeError("disk full")

        monkeypatch.setattr(MemoryRecords, "save_terminal", save_or_fail)
        server.core.publish(IMAGE, 0.0)
        server.core.start_update("T-1", "1.1.0", 0.0)
        terminals = [await udp_terminal(server) for _ in range(4)]
        for number, (_, terminal) in enumerate(terminals):  # The server's turn is after the last.
            terminal.request(post("register", registration(serial=f"T-{number}").encode()))
        await until(lambda: terminals[1][1].asked == ["announce"])
        await until(lambda: len(records.terminals()) == 3)
        assert records.terminal("T-2") is None
        assert [len(terminal.answers) for _, terminal in terminals] == [1, 1, 0, 1]
        full[0] = False
        terminals[2][1].again()
        await until(lambda: records.terminal("T-2") is not None)
        for socket_, _ in terminals:
            socket_.close()

    with_server(test)


def test_what_is_read_while_the_database_is_waited_for_is_handled_next() -> None:
    async def test(server: CoapServer) -> None:
        records = server.core.records
        assert not server._look_ahead()
        socket_, terminal = await udp_terminal(server)
        terminal.request(post("register", registration().encode()))
        assert server._look_ahead()
        assert records.terminals() == []
        await until(lambda: terminal.answers != [])
        assert records.terminals() != []
        assert not server._look_ahead()
        terminal.request(post("register", registration().encode()))
        assert server._look_ahead()
        await server.close()
        assert not server._look_ahead()  # Nothing follows any more.
        socket_.close()

    with_server(test)


def test_what_arrives_while_others_write_belongs_to_the_same_transaction(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def test(server: CoapServer) -> None:
        records = server.core.records
        transaction, depth, kept = records.transaction, [0], []
        terminals = [await udp_terminal(server) for _ in range(2)]

        @contextmanager
        def begin_late() -> Iterator[None]:
            depth[0] += 1
            with transaction():
                if depth[0] == 1 and not kept:  # Others write, and meanwhile the second one speaks.
                    terminals[1][1].request(post("register", registration(serial="T-1").encode()))
                yield
            depth[0] -= 1
            if not depth[0]:
                kept.append(len(records.terminals()))

        monkeypatch.setattr(records, "transaction", begin_late)
        terminals[0][1].request(post("register", registration(serial="T-0").encode()))
        await until(lambda: all(terminal.answers for _, terminal in terminals))
        assert kept[0] == 2
        for socket_, _ in terminals:
            socket_.close()

    with_server(test)


def test_the_keys_of_all_that_register_together_are_asked_for_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def test(server: CoapServer) -> None:
        asked: list[list[str]] = []
        monkeypatch.setattr(
            server.core.records.links, "look_ahead", lambda serials: asked.append(list(serials))
        )
        terminals = [await udp_terminal(server) for _ in range(3)]
        for number, (_, terminal) in enumerate(terminals):  # The server's turn is after the last.
            terminal.request(post("register", registration(serial=f"T-{number}").encode()))
        await until(lambda: all(terminal.answers for _, terminal in terminals))
        assert asked == [["T-0", "T-1", "T-2"]]
        for socket_, _ in terminals:
            socket_.close()

    with_server(test)


def test_what_the_database_did_not_keep_is_told_when_it_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def test(server: CoapServer) -> None:
        records = server.core.records
        transaction, kept = records.transaction, False

        @contextmanager
        def break_off() -> Iterator[None]:
            with transaction():
                yield
                if not kept:
                    raise RuntimeError("terminating connection")

        socket_, terminal = await udp_terminal(server)
        terminal.request(post("register", registration().encode()))
        await until(lambda: records.terminals() != [])
        server.core.send_text(SERIAL, "hello", 0.0)
        monkeypatch.setattr(records, "transaction", break_off)
        with pytest.raises(RuntimeError):
            server.pump()
        kept = True
        server.pump()
        await until(lambda: records.messages()[0].state is MessageState.DELIVERED)
        assert terminal.asked == ["message"]
        socket_.close()

    with_server(test)


def test_forgeries_in_a_terminals_name_are_refused_at_a_glance() -> None:
    async def run() -> None:
        key, records = bytes(range(32)), MemoryRecords()
        records.links.enrol(SERIAL, key, Actor("ada", 0.0))
        core = ServerCore(records, inspect)
        guard = LinkGuard(core, secret=b"secret")
        server = CoapServer(core, guard, lambda: 9.0)
        handled: list[str] = []
        handle = guard.handle
        guard.handle = lambda name, *rest: handled.append(name) or handle(name, *rest)  # type: ignore[method-assign,func-returns-value]
        await server.start("127.0.0.1", 0)
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            sock.connect(("127.0.0.1", server.port))

            async def say(secret: bytes, number: int) -> Any:
                plain = post("register", registration().encode())
                sealed, _ = Context(secret, SERIAL, Side.TERMINAL).seal_request(plain, number)
                sealed.mtype, sealed.mid, sealed.token = aiocoap.CON, number & 0xFFFF, b"tok"
                await loop.sock_sendall(sock, sealed.encode())
                answer = decode(await loop.sock_recv(sock, 2048))
                assert (answer.mid, answer.token) == (number & 0xFFFF, b"tok")
                return answer

            assert (await say(key, 1 << 20)).opt.oscore is not None
            for number in range(5):
                answer = await say(bytes(32), (2 << 20) + number)
                assert (answer.code, answer.opt.oscore) == (aiocoap.UNAUTHORIZED, None)
            assert (await say(key, (1 << 20) + 1)).opt.oscore is not None
        await server.close()
        assert len(handled) == 3  # One forgery a second, which may be of a new key.
        assert guard.refused[Stranger.FORGED] == 5

    asyncio.run(asyncio.wait_for(run(), PATIENCE_S))


def test_the_memory_of_endpoints_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coap, "MAX_PEERS", 3)

    async def test(server: CoapServer) -> None:
        sockets = [await udp_terminal(server) for _ in range(6)]
        for number, (_, terminal) in enumerate(sockets):
            terminal.request(post("register", registration(serial=f"T-{number}").encode()))
        await until(lambda: len(server.core.records.terminals()) == 6)
        assert len(server._peers) == 3
        server.core.send_text("T-0", "hello", 0.0)
        server.pump()
        await until(lambda: sockets[0][1].asked == ["message"])
        for socket_, _ in sockets:
            socket_.close()

    with_server(test)


@pytest.mark.slow
def test_a_request_that_is_not_answered_is_sent_again() -> None:
    async def test(server: CoapServer) -> None:
        socket_, terminal = await udp_terminal(server)
        terminal.request(post("register", registration().encode()))
        await until(lambda: terminal.answers != [])
        terminal.deaf = 1
        server.core.send_text(SERIAL, "hello", 0.0)
        server.pump()
        await until(lambda: terminal.asked == ["message"])
        assert terminal.deaf == 0
        socket_.close()

    with_server(test)


def test_a_port_that_is_taken_is_refused() -> None:
    async def test(server: CoapServer) -> None:
        second = serve_plainly(ServerCore(MemoryRecords(), inspect))
        with pytest.raises(PortError, match=f"UDP port {server.port}"):
            await second.start("127.0.0.1", server.port)

    with_server(test)
