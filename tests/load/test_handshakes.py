"""Slow-loris: peers that begin to shake hands, and never end."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trustme

from aws_io_async.channel_bootstrap import ServerBootstrap
from aws_io_async.channel_stream import connect, serve
from aws_io_async.errors import ErrorCode
from aws_io_async.event_loop.group import EventLoopGroup
from aws_io_async.tls_context import TlsConnectionOptions
from tests.bootstraps import LOOPBACK, Journal, Server, code_of, connected, dial, serving
from tests.faults._report import Fault, few
from tests.serving import echo
from tests.socket_tools import turns
from tests.streams import received, until
from tests.tls_peers import HOST, client_of, openssl_client_hello, server_of

NEVER_ENDING = Fault(
    "Load",
    "handshakes that never end, by silent peers and by ones that send a byte at a time",
    "given up after the negotiation timeout; others are served meanwhile",
)
TOO_MANY = Fault(
    "Load",
    "more handshakes at a time than `max_handshakes`",
    "the cap holds at every moment; the others wait in the backlog, and get their turn",
)

PEERS = min(few(30), 1000)


class Census(Journal):
    """Knows how many connections are in the making, and the most that ever were."""

    most = 0

    @property
    def now(self) -> int:
        ended = len(self.all("setup")) + len(self.all("failure"))
        return len(self.all("creation")) - ended

    def note(self, what: str, subject: Any = None, error: BaseException | None = None) -> None:
        super().note(what, subject, error)
        self.most = max(self.most, self.now)


@asynccontextmanager
async def peers(server: Server, number: int) -> AsyncIterator[list[socket.socket]]:
    """So many that say nothing, with their sockets to close."""
    socks: list[socket.socket] = []
    try:
        for _ in range(number):
            socks.append(await dial(server))
        yield socks
    finally:
        for sock in socks:
            sock.close()


def trusting(ca: trustme.CA) -> TlsConnectionOptions:
    return TlsConnectionOptions(client_of(ca), HOST)


def hurried(ca: trustme.CA, timeout: float) -> TlsConnectionOptions:
    """A server's options with little time for a negotiation."""
    return TlsConnectionOptions(server_of(ca)).copy(timeout=timeout)


async def test_no_more_at_a_time_than_the_cap(ca: trustme.CA) -> None:
    journal = Census()
    async with (
        serving(tls=server_of(ca), journal=journal, max_handshakes=3) as server,
        peers(server, 10) as silent,
    ):
        await journal.has("creation", 3)
        await turns(20)
        assert journal.now == 3
        for number, peer in enumerate(silent, 1):  # each that leaves lets another one in
            peer.close()
            await journal.has("failure", number)
        async with connected(server, tls=trusting(ca)):
            await server.accepted()
        TOO_MANY.seen("never more than the cap, and all had their turn")
    assert journal.most == 3


@pytest.mark.parametrize("ending", ["garbage", "timeout", "success", "plain"])
async def test_room_is_given_back_however_it_ends(ca: trustme.CA, ending: str) -> None:
    journal = Census()
    tls = None if ending == "plain" else hurried(ca, 0.05) if ending == "timeout" else server_of(ca)
    async with serving(tls=tls, journal=journal, max_handshakes=1) as server:
        for _ in range(3):
            if ending == "success":
                async with connected(server, tls=trusting(ca)):
                    pass
                continue
            with await dial(server) as peer:
                if ending == "garbage":
                    await asyncio.get_running_loop().sock_sendall(peer, bytes(100))
                if ending != "plain":
                    assert await asyncio.get_running_loop().sock_recv(peer, 100) is not None
        await journal.has("creation", 3)
    assert journal.most <= 1


async def test_the_cap_is_one_of_all_the_loops_of_a_group(ca: trustme.CA) -> None:
    journal = Journal()
    async with (
        EventLoopGroup(2) as group,
        serving(group=group, tls=server_of(ca), journal=journal, max_handshakes=2) as server,
        peers(server, 5) as silent,
    ):
        await journal.has("creation", 2)
        for number, peer in enumerate(silent, 1):
            assert len(journal.all("creation")) - len(journal.all("failure")) <= 2
            peer.close()
            await journal.has("failure", number)
        assert len(journal.all("creation")) == 5


async def test_closed_while_no_more_may_come(ca: trustme.CA) -> None:
    async with (
        serving(tls=server_of(ca), max_handshakes=1) as server,
        peers(server, 3) as silent,
    ):
        await server.journal.has("creation")
        await server.listener.aclose()
        for peer in silent:
            try:
                assert await asyncio.get_running_loop().sock_recv(peer, 100) == b""
            except ConnectionResetError:
                pass  # it was in the backlog
    assert server.journal.story == ["creation", "failure", "destroy"]


@pytest.mark.parametrize(("number", "error"), [(0, ValueError), (-1, ValueError), (1.5, TypeError)])
async def test_a_cap_must_be_a_positive_number(number: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        await ServerBootstrap().new_socket_listener(LOOPBACK, max_handshakes=number)
    with pytest.raises(error):
        async with serve(echo, LOOPBACK, max_handshakes=number):
            pass


# Those who never end


async def trickle(sock: socket.socket, hello: bytes) -> None:
    """A byte now and then, until the other side has had enough."""
    loop = asyncio.get_running_loop()
    try:
        for byte in hello:
            await loop.sock_sendall(sock, bytes([byte]))
            await asyncio.sleep(0.02)
    except OSError:
        pass


@pytest.mark.loops("aws_io_async")
async def test_never_ending_handshakes_of_channels(ca: trustme.CA) -> None:
    hello = openssl_client_hello()
    journal = Census()
    async with (
        serving(tls=hurried(ca, 1.0), journal=journal) as server,
        peers(server, PEERS) as slow,
    ):
        trickling = [asyncio.create_task(trickle(sock, hello)) for sock in slow[::2]]
        async with connected(server, tls=trusting(ca)):  # the others do not matter to this one
            await server.accepted()
            await journal.has("failure", PEERS)
        await asyncio.gather(*trickling)
        for note in journal.all("failure"):
            assert code_of(note.error) is ErrorCode.IO_TLS_NEGOTIATION_TIMEOUT
    NEVER_ENDING.seen("given up after the timeout", PEERS)


@pytest.mark.loops("aws_io_async")
async def test_never_ending_handshakes_of_the_loops_own_server(ca: trustme.CA) -> None:
    loop: Any = asyncio.get_running_loop()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert(HOST).configure_cert(context)
    server = await loop.create_server(
        asyncio.Protocol, LOOPBACK, 0, ssl=context, ssl_handshake_timeout=0.3
    )
    address = server.sockets[0].getsockname()
    watched = loop.statistics().watched
    slow, hello = [], openssl_client_hello()
    for _ in range(PEERS):
        sock = socket.socket()
        sock.setblocking(False)
        await loop.sock_connect(sock, address)
        slow.append(sock)
    trickling = [loop.create_task(trickle(sock, hello)) for sock in slow[::2]]
    for sock in slow:
        with sock:
            try:
                assert await loop.sock_recv(sock, 100) == b""
            except ConnectionResetError:
                pass
    await asyncio.gather(*trickling)
    await until(lambda: loop.statistics().watched == watched)
    server.close()
    await server.wait_closed()
    NEVER_ENDING.seen("given up after the timeout", PEERS)


@pytest.mark.loops("aws_io_async")
async def test_a_capped_server_serves_when_the_slow_ones_are_given_up(ca: trustme.CA) -> None:
    """As many as may shake hands are before this client in the queue."""
    async with (
        serve(echo, LOOPBACK, tls=hurried(ca, 1.0), max_handshakes=4) as listener,
        peers(Server(listener, Journal()), 4),
        await connect(LOOPBACK, listener.endpoint.port, tls=trusting(ca)) as stream,
    ):
        await stream.send(b"hello")
        assert await received(stream, 5) == b"hello"
    TOO_MANY.seen("never more than the cap, and all had their turn")
