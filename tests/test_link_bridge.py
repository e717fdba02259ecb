"""The bridge, with a scripted modem on one side and a UDP socket as server on the other."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from patience import PATIENCE_S
from server_world import SERIAL, RadioTerminal, inspect, make_image, serve_plainly

from unbrick.errors import PortError, SetupError
from unbrick.link.bridge import Bridge, parse_host_port
from unbrick.link.faults import Direction, FaultPlan, Faults
from unbrick.server.core.core import ServerCore
from unbrick.server.records.memory import MemoryRecords
from unbrick.server.records.updates import UpdateState
from unbrick.wire.slipmux import MAX_FRAME_SIZE, Decoder, encode, encode_diagnostic


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def limited() -> None:
        await asyncio.wait_for(test(), PATIENCE_S)

    asyncio.run(limited())


class UdpServer(asyncio.DatagramProtocol):
    """Keeps what it gets and from where, and can answer there."""

    def __init__(self) -> None:
        self.got: asyncio.Queue[tuple[bytes, Any]] = asyncio.Queue()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.got.put_nowait((data, addr))

    @property
    def address(self) -> tuple[str, int]:
        host, port = self.transport.get_extra_info("sockname")
        return host, port


async def udp_server() -> UdpServer:
    loop = asyncio.get_running_loop()
    _, server = await loop.create_datagram_endpoint(UdpServer, local_addr=("127.0.0.1", 0))
    return server


class Modem:
    """The terminal's end of the modem's stream."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self._decoder = Decoder()
        self._held: list[bytes] = []

    async def message(self) -> bytes:
        while not self._held:
            data = await self.reader.read(4096)
            assert data, "the bridge hung up"
            self._held += [frame.data for frame in self._decoder.feed(data)]
        return self._held.pop(0)


async def call(bridge: Bridge) -> Modem:
    return Modem(*await asyncio.open_connection("127.0.0.1", bridge.port))


async def first_contact() -> tuple[UdpServer, Bridge, Modem, Any]:
    """A bridge between both, after the first message; also where the server is to answer."""
    server = await udp_server()
    bridge = Bridge("listen:127.0.0.1:0", server.address)
    await bridge.start()
    modem = await call(bridge)
    modem.writer.write(encode(b"first"))
    _, address = await server.got.get()
    return server, bridge, modem, address


def test_messages_go_both_ways_and_terminals_are_told_apart() -> None:
    async def test() -> None:
        server = await udp_server()
        bridge = Bridge("listen:127.0.0.1:0", server.address)
        await bridge.start()
        one, two = await call(bridge), await call(bridge)
        one.writer.write(encode_diagnostic("hello") + b"noise" + encode(b"from one"))
        data, address_one = await server.got.get()
        assert data == b"from one"
        two.writer.write(encode(b"from two"))
        data, address_two = await server.got.get()
        assert data == b"from two"
        assert address_one != address_two
        server.transport.sendto(b"to two", address_two)
        server.transport.sendto(b"to one", address_one)
        assert await one.message() == b"to one"
        assert await two.message() == b"to two"
        assert vars(bridge.traffic) == {
            "messages_up": 2,
            "messages_down": 2,
            "diagnostics": 1,
            "frames_dropped": 1,
        }
        one.writer.close()
        two.writer.close()
        await bridge.close()

    run(test)


def test_a_modem_that_calls_again_has_a_new_address() -> None:
    async def test() -> None:
        server = await udp_server()
        bridge = Bridge("listen:127.0.0.1:0", server.address)
        await bridge.start()
        addresses = set()
        for _ in range(2):
            modem = await call(bridge)
            modem.writer.write(encode(b"x"))
            addresses.add((await server.got.get())[1])
            modem.writer.close()
            await modem.writer.wait_closed()
        assert len(addresses) == 2
        await bridge.close()

    run(test)


def test_the_bridge_calls_a_modem_and_calls_again_when_it_hangs_up() -> None:
    async def test() -> None:
        modems: asyncio.Queue[Modem] = asyncio.Queue()

        async def picked_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            modems.put_nowait(Modem(reader, writer))

        server = await udp_server()
        listener = await asyncio.start_server(picked_up, "127.0.0.1", 0)
        port = listener.sockets[0].getsockname()[1]
        bridge = Bridge(f"tcp:127.0.0.1:{port}", server.address)
        await bridge.start()
        for _ in range(2):
            modem = await modems.get()
            modem.writer.write(encode(b"x"))
            assert (await server.got.get())[0] == b"x"
            modem.writer.close()
        await bridge.close()
        listener.close()

    run(test)


def test_a_bridge_that_is_told_to_end_while_the_modem_hangs_up_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The connection takes a while to close, and that is when the bridge is told."""

    async def test() -> None:
        hanging_up = asyncio.Event()

        async def closes_slowly(_writer: asyncio.StreamWriter) -> None:
            hanging_up.set()
            await asyncio.Event().wait()

        async def modem(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.close()

        monkeypatch.setattr(asyncio.StreamWriter, "wait_closed", closes_slowly)
        listener = await asyncio.start_server(modem, "127.0.0.1", 0)
        port = listener.sockets[0].getsockname()[1]
        bridge = Bridge(f"tcp:127.0.0.1:{port}", ("127.0.0.1", 9))
        await bridge.start()
        waits = asyncio.create_task(bridge.wait())
        await hanging_up.wait()
        waits.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waits
        await bridge.close()
        listener.close()

    run(test)


def test_a_pseudo_terminal_is_a_modem_too() -> None:
    async def test() -> None:
        server = await udp_server()
        ours, theirs = os.openpty()
        bridge = Bridge(os.ttyname(theirs), server.address)
        await bridge.start()
        every_byte = bytes(range(256))
        os.write(ours, encode(every_byte))
        data, address = await server.got.get()
        assert data == every_byte
        server.transport.sendto(every_byte, address)
        decoder = Decoder()
        frames: list[Any] = []
        loop = asyncio.get_running_loop()
        while not frames:
            frames += decoder.feed(await loop.run_in_executor(None, os.read, ours, 4096))
        assert frames[0].data == every_byte
        os.close(theirs)
        os.close(ours)
        await bridge.wait()
        await bridge.close()

    run(test)


def test_faults_are_those_of_the_seed() -> None:
    plan = FaultPlan(drop=0.3, corrupt=0.2, duplicate=0.2, truncate=0.1)
    messages = [bytes([index]) * 10 for index in range(60)]
    faults = Faults(plan, 5)
    expected = [
        frame.data
        for message in messages
        for delivery in faults.carry(Direction.UP, message, 0.0)
        for frame in Decoder().feed(delivery.frame)
    ]
    assert expected != messages

    async def test() -> None:
        server = await udp_server()
        bridge = Bridge(
            "listen:127.0.0.1:0", server.address, faults=lambda number: Faults(plan, 5 + number)
        )
        await bridge.start()
        modem = await call(bridge)
        for message in messages:
            modem.writer.write(encode(message))
        got = [(await server.got.get())[0] for _ in expected]
        assert got == expected
        modem.writer.close()
        await bridge.close()

    run(test)


def test_hostile_bytes_and_datagrams_do_not_stop_the_bridge() -> None:
    async def test() -> None:
        server, bridge, modem, address = await first_contact()
        modem.writer.write(random.Random(1).randbytes(20_000) + b"\xa9" * 5000)
        server.transport.sendto(b"good", address)
        assert await modem.message() == b"good"
        modem.writer.write(b"\xc0" + encode(b"last"))
        while (await server.got.get())[0] != b"last":
            pass
        assert bridge.traffic.frames_dropped > 1
        modem.writer.close()
        await bridge.close()

    run(test)


def test_a_datagram_that_fits_no_frame_is_dropped_and_counted() -> None:
    async def test() -> None:
        server, bridge, modem, address = await first_contact()
        server.transport.sendto(bytes(MAX_FRAME_SIZE), address)
        server.transport.sendto(b"good", address)
        assert await modem.message() == b"good"
        assert (bridge.traffic.frames_dropped, bridge.traffic.messages_down) == (1, 1)
        modem.writer.close()
        await bridge.close()

    run(test)


def test_a_server_that_is_not_there_is_borne() -> None:
    async def test() -> None:
        server = await udp_server()
        address = server.address
        server.transport.close()
        await asyncio.sleep(0)
        bridge = Bridge("listen:127.0.0.1:0", address)
        await bridge.start()
        modem = await call(bridge)
        for _ in range(5):
            modem.writer.write(encode(b"anybody?"))
            await asyncio.sleep(0.01)
        loop = asyncio.get_running_loop()
        _, server = await loop.create_datagram_endpoint(UdpServer, local_addr=address)
        modem.writer.write(encode(b"there you are"))
        assert (await server.got.get())[0] in (b"anybody?", b"there you are")
        modem.writer.close()
        await bridge.close()

    run(test)


def test_a_whole_update_through_bridge_and_server() -> None:
    """Terminal, bridge and server on real sockets, with faults in between."""

    async def test() -> None:
        server = serve_plainly(ServerCore(MemoryRecords(), inspect))
        await server.start("127.0.0.1", 0)
        server.core.publish(make_image(size=20_000), 0.0)
        server.core.start_update(SERIAL, "1.1.0", 0.0)
        plan = FaultPlan(duplicate=0.3, reorder=0.2, hold=0.02)
        bridge = Bridge(
            "listen:127.0.0.1:0", ("127.0.0.1", server.port), faults=lambda _: Faults(plan, 2)
        )
        await bridge.start()
        modem = await call(bridge)
        terminal = RadioTerminal()
        loop = asyncio.get_running_loop()

        async def listen() -> None:
            while data := await modem.reader.read(4096):
                terminal.write(data)

        listening = asyncio.create_task(listen())
        while not server.core.records.updates()[0].state.ended:
            terminal.step(loop.time())
            modem.writer.write(terminal.read())
            await asyncio.sleep(0.002)
        listening.cancel()
        assert server.core.records.updates()[0].state is UpdateState.SUCCEEDED
        assert terminal.file == make_image(size=20_000)
        modem.writer.close()
        await bridge.close()
        await server.close()

    run(test)


@pytest.mark.parametrize("modem", ["listen:nowhere", "tcp:host", "tcp::", "listen:127.0.0.1:x"])
def test_addresses_that_are_none(modem: str) -> None:
    async def test() -> None:
        with pytest.raises(SetupError, match="no address"):
            await Bridge(modem, ("127.0.0.1", 1)).start()

    run(test)


def test_ports_that_cannot_be_opened(tmp_path: Path) -> None:
    async def test() -> None:
        plain = tmp_path / "file"
        plain.write_text("x")
        for path in ("/nowhere/tty", str(plain), "/dev/null"):
            with pytest.raises(PortError) as caught:
                await Bridge(path, ("127.0.0.1", 1)).start()
            assert "listen:HOST:PORT" in caught.value.hint
        first = Bridge("listen:127.0.0.1:0", ("127.0.0.1", 1))
        await first.start()
        with pytest.raises(PortError, match=str(first.port)):
            await Bridge(f"listen:127.0.0.1:{first.port}", ("127.0.0.1", 1)).start()
        await first.close()

    run(test)


def test_host_and_port() -> None:
    assert parse_host_port("localhost:5683") == ("localhost", 5683)
    assert parse_host_port("[::1]:5683") == ("::1", 5683)
    for text in ("", "host", ":1", "host:", "host:65536", "host:-1", "host:²"):
        with pytest.raises(SetupError):
            parse_host_port(text)
