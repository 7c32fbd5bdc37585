"""Ends under load: a peer that goes on to send while we close, and a great many ends at once."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trustme

from aws_io_async.channel import Channel, ChannelState
from aws_io_async.channel_bootstrap import ClientBootstrap
from aws_io_async.event_loop.group import EventLoopGroup
from tests.bootstraps import Journal, Server, dial, serving, tasks_of
from tests.faults._report import Fault, few
from tests.streams import LOOPBACK, PATIENCE, PLAIN, Security, tls_of
from tests.tls_channels import openssl_client
from tests.tls_peers import HOST, Peer

FLOOD = Fault(
    "Load",
    "a peer that floods us while we close, and never ends its side",
    "the connection ends all the same; nothing of the flood is delivered or kept",
)
AT_ONCE = Fault(
    "Load",
    "a great many channels shut down at once",
    "each is told of its end once; no channel, task or descriptor is left",
)

CHANNELS = min(few(50), 1000)


class Flooder:
    """A client's raw socket that sends for as long as it can, with TLS if it has a peer."""

    def __init__(self, sock: socket.socket, peer: Peer | None) -> None:
        self._sock = sock
        self._peer = peer
        self._loop = asyncio.get_running_loop()
        self.sent = 0

    async def handshake(self) -> None:
        if self._peer is None:
            return
        while not self._peer.handshake():
            await self._loop.sock_sendall(self._sock, self._peer.outgoing.read())
            self._peer.incoming.write(await self._loop.sock_recv(self._sock, 1 << 16))
        await self._loop.sock_sendall(self._sock, self._peer.outgoing.read())

    async def flood(self) -> None:
        """Until the other side has had enough; what it says, such as close_notify, is not read."""
        data = bytes(16_384)
        try:
            async with asyncio.timeout(PATIENCE):
                while True:
                    record = data if self._peer is None else self._peer.write(data)
                    await self._loop.sock_sendall(self._sock, record)
                    self.sent += len(data)
        except ConnectionError:
            pass


@asynccontextmanager
async def flooder(address: tuple[str, int], ca: trustme.CA, tls: bool) -> AsyncIterator[Flooder]:
    with socket.socket() as sock:
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, address)
        it = Flooder(sock, Peer(openssl_client(ca), HOST) if tls else None)
        await it.handshake()
        yield it


class Closes(asyncio.Protocol):
    """Closes as soon as a few records have come."""

    received = 0
    received_after = 0

    def __init__(self) -> None:
        self.lost: asyncio.Future[None] = asyncio.Future()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.received += len(data)
        if self.transport.is_closing():
            self.received_after += len(data)
        elif self.received > 100_000:
            self.transport.close()

    def connection_lost(self, exc: BaseException | None) -> None:
        self.lost.set_result(None)


@pytest.mark.loops("aws_io_async")
@pytest.mark.parametrize("tls", [False, True])
async def test_a_flood_while_the_loops_transport_closes(tls: bool, ca: trustme.CA) -> None:
    options: dict[str, Any] = {}
    if tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        ca.issue_cert(HOST).configure_cert(context)
        options = {"ssl": context, "ssl_shutdown_timeout": 0.2}
    closes = Closes()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: closes, LOOPBACK, 0, **options)
    async with flooder(server.sockets[0].getsockname(), ca, tls) as it:
        await it.flood()
        async with asyncio.timeout(PATIENCE):
            await closes.lost
    assert 100_000 < closes.received <= it.sent
    assert closes.received_after == 0
    server.close()
    await server.wait_closed()
    FLOOD.seen("ended; nothing more was delivered")


@pytest.mark.parametrize("tls", [False, True])
async def test_a_flood_while_a_channel_shuts_down(tls: bool, ca: trustme.CA) -> None:
    security = tls_of(ca) if tls else PLAIN
    async with serving(tls=security.server, handlers=list) as server:
        async with flooder(server.address, ca, tls) as it:
            flooding = asyncio.create_task(it.flood())
            channel = await server.accepted()
            channel.shutdown()
            async with asyncio.timeout(PATIENCE):
                await channel.wait_closed()
            await flooding
        assert (await server.journal.has("shutdown")).error is None
    FLOOD.seen("ended; nothing more was delivered")


# At once


async def connect_all(server: Server, security: Security) -> list[Channel]:
    """The clients' channels, when those of the server are ready as well."""
    bootstrap = ClientBootstrap()
    clients = [
        await bootstrap.new_socket_channel(*server.address, tls=security.client)
        for _ in range(CHANNELS)
    ]
    await server.accepted(CHANNELS)
    return clients


def shut_down_clients(clients: list[Channel], server: list[Channel]) -> None:
    for channel in clients:
        channel.shutdown()


def shut_down_both(clients: list[Channel], server: list[Channel]) -> None:
    for channel in clients + server:
        channel.shutdown()


def shut_down_at_once(clients: list[Channel], server: list[Channel]) -> None:
    for channel in clients + server:
        channel.shutdown(immediately=True)


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("end", [shut_down_clients, shut_down_both, shut_down_at_once])
async def test_all_at_once(
    end: Callable[[list[Channel], list[Channel]], None], tls: bool, ca: trustme.CA
) -> None:
    security = tls_of(ca) if tls else PLAIN
    async with serving(tls=security.server) as server:
        clients = await connect_all(server, security)
        accepted = [note.subject for note in server.journal.all("setup")]
        end(clients, accepted)
        async with asyncio.timeout(PATIENCE):
            for channel in clients + accepted:
                await channel.wait_closed()
        assert {channel.state for channel in clients + accepted} == {ChannelState.SHUT_DOWN}
        await server.journal.has("shutdown", CHANNELS)
        told = [note.subject for note in server.journal.all("shutdown")]
        assert sorted(map(id, told)) == sorted(map(id, accepted))
    assert len(asyncio.all_tasks()) == 1
    AT_ONCE.seen("each told once, nothing left", 2 * CHANNELS)


async def test_all_on_the_loops_of_a_group() -> None:
    journal = Journal()
    async with (
        EventLoopGroup(2) as group,
        serving(group=group, journal=journal) as server,
    ):
        peers = [await dial(server) for _ in range(CHANNELS)]
        await journal.has("setup", CHANNELS)
        for note in journal.all("setup"):  # from another thread than theirs
            note.subject.shutdown()
        await journal.has("shutdown", CHANNELS)
        for peer in peers:
            with peer:
                assert await asyncio.get_running_loop().sock_recv(peer, 1) == b""
        await server.listener.aclose()
        assert not await tasks_of(group)
    AT_ONCE.seen("each told once, nothing left", CHANNELS)
