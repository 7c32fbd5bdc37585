"""Scenes: channels, bootstraps, streams of channels, and httpcore over them."""

import asyncio
import contextlib
import functools
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import httpcore
from anyio.abc import SocketAttribute

from aws_io_async.channel import Channel, ChannelDirection, ChannelHandler, ChannelSlot
from aws_io_async.channel_bootstrap import ClientBootstrap, ServerBootstrap
from aws_io_async.channel_stream import ChannelStream, connect, serve
from aws_io_async.event_loop.group import EventLoopGroup
from aws_io_async.integrations.httpcore import ChannelBackend
from aws_io_async.message_pool import IoMessage
from aws_io_async.socket import SocketDomain, SocketOptions
from aws_io_async.socket_channel_handler import SocketChannelHandler
from aws_io_async.testing import TestingChannel
from tests.bootstraps import Echo, Journal, closed, connected, serving
from tests.faults.cancellation import Injection, watch
from tests.faults.scenes import (
    BIG,
    DATA,
    HOST,
    OTHER_LOOPBACK,
    ca,
    client_context,
    folder,
    injected,
    listener,
    scene,
)
from tests.lookups import Lookup, making_resolvers
from tests.serving import echo
from tests.socket_tools import black_hole
from tests.streams import PLAIN, Security, stream_pair, tls_of

LOOPBACK = "127.0.0.1"


@functools.cache
def tls() -> Security:
    return tls_of(ca())


@asynccontextmanager
async def watched_group(size: int = 1) -> AsyncIterator[EventLoopGroup]:
    """A group on whose loops suspensions count."""
    async with EventLoopGroup(size) as group:
        for loop in group:
            loop.call_soon_threadsafe(watch, loop)
        yield group


# Channels


@scene("Channel.open", "Channel.wait_closed")
async def open_channel(inject: Injection) -> None:
    outcome = await inject(Channel.open())
    if outcome.cancelled:
        return
    channel = outcome.result
    await inject(channel.wait_closed(), channel.shutdown)
    await channel.wait_closed()


@scene("Channel.__aenter__", "Channel.__aexit__", "Channel.aclose")
async def channel_block(inject: Injection) -> None:
    """It shuts the channel down, at once if it is cancelled."""

    async def block() -> None:
        async with channel:
            await asyncio.sleep(0)
        await channel.aclose()

    channel = await Channel.open()
    await inject(block())
    assert channel.is_closing()
    await closed(channel)


class Slow(ChannelHandler):
    """Waits in all that it does."""

    def __init__(self, notes: list[str]) -> None:
        self._notes = notes

    @contextlib.contextmanager
    def _noted(self) -> Iterator[None]:
        self._notes.append("begun")
        try:
            yield
        finally:
            self._notes.append("ended")

    async def process_read_message(self, slot: ChannelSlot, message: IoMessage) -> None:
        with self._noted():
            await asyncio.sleep(0)
            slot.send_message(message, ChannelDirection.READ)
            await asyncio.sleep(0)

    async def process_write_message(self, slot: ChannelSlot, message: IoMessage) -> None:
        with self._noted():
            await asyncio.sleep(0)
            slot.send_message(message, ChannelDirection.WRITE)

    async def shutdown(self, *_: object) -> None:
        with self._noted():
            await asyncio.sleep(0)


@scene(
    "ChannelHandler.process_read_message",
    "ChannelHandler.process_write_message",
    "ChannelHandler.shutdown",
    "_LeftEnd.process_write_message",
    "_LeftEnd.shutdown",
    "_RightEnd.process_read_message",
    "_RightEnd.shutdown",
)
async def coroutines_of_handlers(inject: Injection) -> None:
    """Nobody awaits them but the channel, in tasks of its own: they end with it, none is lost."""
    notes: list[str] = []
    writes: list[BaseException | None] = []

    async def block() -> None:
        async with channel:
            for _ in range(3):
                channel.push_read(DATA)
                channel.push_write(DATA)
            await channel.until(lambda: len(channel.received) == len(channel.written) == 3)
            channel.shutdown()
            await channel.wait_closed()

    def wait(_: object) -> asyncio.Future[None]:
        return asyncio.ensure_future(asyncio.sleep(0))

    channel = TestingChannel(Slow(notes), Slow(notes), enable_read_back_pressure=False)
    channel.on_received = channel.on_written = channel.on_shutdown = wait
    outcome = await inject(block())
    channel.shutdown(immediately=True)
    await channel.channel.wait_closed()
    assert notes.count("begun") == notes.count("ended")
    writes += [error for _, error in channel.completions]
    if outcome.cancelled:
        assert len(writes) in (0, 3)  # each that was begun was told of its end
    else:
        assert writes == [None] * 3


@scene("ChannelSlot.write", "SocketChannelHandler.shutdown")
async def slot_write(inject: Injection) -> None:
    """Cancelled, the bytes are written all the same."""
    with listener(receive_buffer=1 << 16) as sock:
        async with connected(sock, handlers=lambda: [Echo()]) as channel:
            peer, _ = await asyncio.get_running_loop().sock_accept(sock)
            with peer:
                reading = asyncio.ensure_future(everything(peer))
                left, *_, slot = channel.slots()
                assert isinstance(left.handler, SocketChannelHandler)
                left.handler.get_socket().setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 16)
                await inject(slot.write(BIG))
                channel.shutdown()
                assert await reading == len(BIG)


async def everything(sock: socket.socket) -> int:
    size = 0
    while data := await asyncio.get_running_loop().sock_recv(sock, 1 << 16):
        size += len(data)
    return size


# Bootstraps


async def check_client(inject: Injection, journal: Journal, call: Any) -> None:
    """Whoever was told of a channel is told of its end; who was not, of the failure."""
    outcome = await inject(call)
    if not outcome.cancelled:
        await outcome.result.aclose()
    for note in journal.all("creation"):
        await closed(note.subject)
    told = [what for what in journal.story if what != "creation"]
    assert told in (["setup", "shutdown"], ["failure"]), told
    assert outcome.cancelled or told == ["setup", "shutdown"]


@scene("ClientBootstrap.new_socket_channel")
async def client_bootstrap(inject: Injection) -> None:
    journal = Journal()
    async with serving() as server:
        call = ClientBootstrap().new_socket_channel(*server.address, **journal.of_client)
        await check_client(inject, journal, call)


@scene()
async def client_bootstrap_tls(inject: Injection) -> None:
    journal = Journal()
    async with serving(tls=tls().server) as server:
        call = ClientBootstrap().new_socket_channel(
            *server.address, tls=tls().client, **journal.of_client
        )
        await check_client(inject, journal, call)


@scene()
async def client_bootstrap_with_a_name(inject: Injection) -> None:
    """Of the addresses the first refuses."""
    journal = Journal()
    with making_resolvers() as make:
        bootstrap = ClientBootstrap(host_resolver=make(Lookup(["::1", LOOPBACK])))
        async with serving() as server:
            call = bootstrap.new_socket_channel("a.test", server.endpoint.port, **journal.of_client)
            await check_client(inject, journal, call)


@scene()
async def client_bootstrap_faster_than_another(inject: Injection) -> None:
    """The first address does not answer: its attempt is given up when the second has succeeded."""
    journal = Journal()
    with black_hole() as hole, making_resolvers() as make:
        bootstrap = ClientBootstrap(
            host_resolver=make(Lookup([hole.address, OTHER_LOOPBACK])), attempt_delay=0.001
        )
        async with serving(OTHER_LOOPBACK, hole.port):
            call = bootstrap.new_socket_channel("a.test", hole.port, **journal.of_client)
            await check_client(inject, journal, call)


@scene()
async def client_bootstrap_local(inject: Injection) -> None:
    journal = Journal()
    options = SocketOptions(domain=SocketDomain.LOCAL)
    with folder() as path:
        async with serving(f"{path}/s", socket_options=options):
            call = ClientBootstrap().new_socket_channel(
                f"{path}/s", socket_options=options, **journal.of_client
            )
            await check_client(inject, journal, call)


@scene()
async def client_bootstrap_on_a_group(inject: Injection) -> None:
    journal = Journal()
    async with watched_group() as group, serving(tls=tls().server) as server:
        call = ClientBootstrap(group).new_socket_channel(
            *server.address, tls=tls().client, **journal.of_client
        )
        await check_client(inject, journal, call)


@scene(
    "ServerBootstrap.new_socket_listener",
    "SocketListener.__aenter__",
    "SocketListener.__aexit__",
)
async def server_bootstrap(inject: Injection) -> None:
    journal = Journal()
    outcome = await inject(
        ServerBootstrap().new_socket_listener(LOOPBACK, on_destroy=journal.destroy)
    )
    if outcome.cancelled:
        return

    async def block() -> None:
        async with outcome.result:
            await asyncio.sleep(0)

    await inject(block())
    await journal.has("destroy")


@scene("SocketListener.aclose", "SocketListener.wait_closed")
async def listener_end(inject: Injection) -> None:
    """Cancelled, it closes all the same."""
    listener = await ServerBootstrap().new_socket_listener(LOOPBACK)
    await inject(listener.wait_closed(), listener.close)
    other = await ServerBootstrap().new_socket_listener(LOOPBACK)
    await inject(other.aclose())
    await listener.wait_closed()
    await other.wait_closed()
    assert listener.is_closed
    assert other.is_closed


@scene()
async def listener_accepts(inject: Injection) -> None:
    """A listener that is closed while it sets up the channel of a connection, with TLS."""
    journal = Journal()

    async def block() -> None:
        async with (
            serving(tls=tls().server, journal=journal) as server,
            connected(server, tls=tls().client),
        ):
            await server.accepted()

    await inject(block())
    for note in journal.all("creation"):
        await closed(note.subject)


# Streams


@scene("connect")
async def connect_stream(inject: Injection) -> None:
    async with serve(echo, LOOPBACK) as server:
        outcome = await inject(connect(LOOPBACK, server.endpoint.port))
        if not outcome.cancelled:
            await outcome.result.aclose()


@scene()
async def connect_stream_tls(inject: Injection) -> None:
    async with serve(echo, LOOPBACK, tls=tls().server) as server:
        outcome = await inject(connect(LOOPBACK, server.endpoint.port, tls=tls().client))
        if not outcome.cancelled:
            await outcome.result.aclose()


@scene("serve")
async def serve_streams(inject: Injection) -> None:
    await check_serve(inject, None)


@scene()
async def serve_streams_on_a_group(inject: Injection) -> None:
    async with watched_group(2) as group:
        await check_serve(inject, group)


async def check_serve(inject: Injection, group: EventLoopGroup | None) -> None:
    """When the block has ended, no handler runs any more, even if its end was cancelled."""
    running: list[ChannelStream] = []

    async def serve_one(stream: ChannelStream) -> None:
        running.append(stream)
        try:
            await echo(stream)
            await anyio.sleep(30)
        finally:
            running.remove(stream)

    async def block() -> bytes:
        async with (
            serve(serve_one, LOOPBACK, tls=tls().server, event_loop_group=group) as server,
            await connect(
                LOOPBACK, server.endpoint.port, tls=tls().client, event_loop_group=group
            ) as stream,
        ):
            await stream.send(DATA)
            return await stream.receive()

    outcome = await inject(block())
    assert not running
    assert outcome.cancelled or outcome.result == DATA


async def check_receive(inject: Injection, near: ChannelStream, far: ChannelStream) -> None:
    received = bytearray()
    sending = asyncio.ensure_future(far.send(BIG[:100_000]))
    while len(received) < 100_000:
        received += await injected(inject, near.receive)
    await sending
    assert received == BIG[:100_000]


@scene("ChannelStream.receive")
async def receive(inject: Injection) -> None:
    async with stream_pair() as (near, far):
        await check_receive(inject, near, far)


@scene()
async def receive_tls(inject: Injection) -> None:
    async with stream_pair(tls()) as (near, far):
        await check_receive(inject, near, far)


@scene()
async def receive_across_loops(inject: Injection) -> None:
    async with (
        watched_group() as group,
        stream_pair(PLAIN, client_group=group) as (near, far),
    ):
        await check_receive(inject, near, far)


@scene("ChannelStream.send")
async def send(inject: Injection) -> None:
    await check_send(inject, PLAIN)


@scene()
async def send_tls(inject: Injection) -> None:
    await check_send(inject, tls())


async def check_send(inject: Injection, security: Security) -> None:
    """Cancelled, it has sent all the same, and what follows comes behind it."""
    async with stream_pair(security, window=1 << 16) as (near, far):
        narrow(near, far)
        reading = asyncio.ensure_future(all_of(far))
        await inject(near.send(BIG))
        await near.send(DATA)
        await near.aclose()
        assert await reading == BIG + DATA


def narrow(near: ChannelStream, far: ChannelStream) -> None:
    """Have little fit between the ends of a connection."""
    for stream, buffer in (near, socket.SO_SNDBUF), (far, socket.SO_RCVBUF):
        sock = stream.extra(SocketAttribute.raw_socket)
        sock.setsockopt(socket.SOL_SOCKET, buffer, 1 << 16)


async def all_of(stream: ChannelStream) -> bytes:
    received = bytearray()
    with contextlib.suppress(anyio.EndOfStream):
        while True:
            received += await stream.receive()
    return bytes(received)


@scene("ChannelStream.send_eof")
async def send_eof(inject: Injection) -> None:
    """Cancelled, it has ended our side all the same."""
    async with stream_pair(window=1 << 16) as (near, far):
        narrow(near, far)
        sending = asyncio.ensure_future(near.send(BIG))
        await asyncio.sleep(0)
        sending.cancel()  # what waits behind it, waits for the bytes
        await asyncio.wait({sending})
        reading: list[asyncio.Future[bytes]] = []
        await inject(near.send_eof(), lambda: reading.append(asyncio.ensure_future(all_of(far))))
        assert await reading[0] == BIG
        await far.send(DATA)
        assert await near.receive() == DATA


@scene("ChannelStream.aclose", "TlsChannelHandler.shutdown")
async def stream_aclose(inject: Injection) -> None:
    """Cancelled, it has shut down at once."""
    async with stream_pair(tls()) as (near, _):
        await inject(near.aclose())
        await closed(near.channel)


# httpcore


@asynccontextmanager
async def backend_stream() -> AsyncIterator[tuple[Any, socket.socket]]:
    """A stream of the backend, and the other end."""
    with listener(receive_buffer=1 << 16) as sock:
        stream: Any = await ChannelBackend().connect_tcp(*sock.getsockname())
        near: Any = stream.get_extra_info("socket")
        near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 16)
        try:
            peer, _ = await asyncio.get_running_loop().sock_accept(sock)
            with peer:
                yield stream, peer
        finally:
            await stream.aclose()


@scene("ChannelBackend.connect_tcp", "_Stream.aclose")
async def connect_tcp(inject: Injection) -> None:
    with listener() as sock:
        host, port = sock.getsockname()
        outcome = await inject(ChannelBackend().connect_tcp(host, port, timeout=30))
        if not outcome.cancelled:
            stream = outcome.result
            await inject(stream.aclose())
            await closed(stream.get_extra_info("channel"))


@scene("ChannelBackend.connect_unix_socket")
async def connect_unix_socket(inject: Injection) -> None:
    with folder() as path, socket.socket(socket.AF_UNIX) as sock:
        sock.bind(f"{path}/s")
        sock.listen()
        outcome = await inject(ChannelBackend().connect_unix_socket(f"{path}/s"))
        if not outcome.cancelled:
            await outcome.result.aclose()


@scene("ChannelBackend.sleep")
async def backend_sleep(inject: Injection) -> None:
    await inject(ChannelBackend().sleep(0.0001))


@scene("_Stream.read")
async def backend_read(inject: Injection) -> None:
    async with backend_stream() as (stream, peer):
        got = await injected(inject, lambda: stream.read(100, timeout=30), lambda: peer.send(DATA))
        assert got == DATA


@scene("_Stream.write")
async def backend_write(inject: Injection) -> None:
    async with backend_stream() as (stream, peer):
        reading = asyncio.ensure_future(everything(peer))
        outcome = await inject(stream.write(BIG, timeout=30))
        await stream.aclose()
        size = await reading
        assert outcome.cancelled or size == len(BIG)


@scene("_Stream.start_tls")
async def backend_start_tls(inject: Injection) -> None:
    async with serving(tls=tls().server) as server:
        stream: Any = await ChannelBackend().connect_tcp(*server.address)
        outcome = await inject(stream.start_tls(client_context(), HOST, timeout=30))
        if outcome.cancelled:
            await closed(stream.get_extra_info("channel"))
        await stream.aclose()


@scene()
async def httpcore_pool(inject: Injection) -> None:
    """A request through the pool of connections; a cancelled one leaves none behind."""

    async def answer(stream: ChannelStream) -> None:
        await stream.receive()
        await stream.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        await stream.receive()

    async with serve(answer, LOOPBACK) as server:
        url = f"http://{LOOPBACK}:{server.endpoint.port}/"
        async with httpcore.AsyncConnectionPool(network_backend=ChannelBackend()) as pool:
            outcome = await inject(pool.request("GET", url))
            assert outcome.cancelled or outcome.result.content == b"ok"
