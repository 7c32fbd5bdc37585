"""Both ends of streams, plain or with TLS, and raw sockets at the other end of one."""

import asyncio
import random
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import trustme

from aws_io_async.channel import Channel
from aws_io_async.channel_bootstrap import ServerBootstrap
from aws_io_async.channel_stream import WINDOW, ChannelStream, connect
from aws_io_async.event_loop.group import EventLoopGroup
from aws_io_async.future import Promise
from aws_io_async.socket import SocketOptions
from aws_io_async.statistics import SocketStatistics
from aws_io_async.tls_context import TlsConnectionOptions, TlsContext
from tests.tls_peers import HOST, client_of, server_of

PATIENCE = 30.0
"""Seconds after which something that should have happened is missed."""

LOOPBACK = "127.0.0.1"

CHUNK = random.Random(2).randbytes(100_000)
"""What the functions below send."""


@dataclass(frozen=True)
class Security:
    """What the two ends speak: TLS, or nothing."""

    server: TlsContext | None = None
    client: TlsConnectionOptions | None = None

    def __bool__(self) -> bool:
        return self.client is not None


PLAIN = Security()


def tls_of(ca: trustme.CA) -> Security:
    """TLS with certificates of `ca`."""
    return Security(server_of(ca), TlsConnectionOptions(client_of(ca), HOST))


@asynccontextmanager
async def stream_pair(
    security: Security = PLAIN,
    *,
    client_group: EventLoopGroup | None = None,
    server_group: EventLoopGroup | None = None,
    host: str = LOOPBACK,
    socket_options: SocketOptions | None = None,
    window: int = WINDOW,
) -> AsyncIterator[tuple[ChannelStream, ChannelStream]]:
    """A client's stream and the server's; `window` is the server's."""
    accepted: Promise[ChannelStream] = Promise()

    def attach(channel: Channel | None, error: BaseException | None) -> None:
        if channel is not None:
            accepted.set_result(ChannelStream.attach(channel, window=window))

    listener = await ServerBootstrap(server_group).new_socket_listener(
        host,
        socket_options=socket_options,
        tls=security.server,
        on_incoming_channel_setup=attach,
        enable_read_back_pressure=True,
        half_close=True,
    )
    streams: list[ChannelStream] = []
    try:
        async with asyncio.timeout(PATIENCE):
            streams.append(
                await connect(
                    listener.endpoint.address,
                    listener.endpoint.port,
                    socket_options=socket_options,
                    tls=security.client,
                    event_loop_group=client_group,
                )
            )
            streams.append(await accepted.future)
        await listener.aclose()
        yield streams[0], streams[1]
    finally:
        await listener.aclose()
        for stream in streams:
            await end(stream.channel)


async def end(channel: Channel) -> None:
    """Shut a channel down at once, and wait for that."""
    channel.shutdown(immediately=True)
    async with asyncio.timeout(PATIENCE):
        await channel.wait_closed()


@asynccontextmanager
async def raw_listener() -> AsyncIterator[socket.socket]:
    """A listening socket that is nobody's but the test's."""
    with socket.create_server((LOOPBACK, 0)) as listener:
        listener.setblocking(False)
        yield listener


def port_of(sock: socket.socket) -> int:
    """The port that a socket is bound to."""
    port: int = sock.getsockname()[1]
    return port


@asynccontextmanager
async def with_raw_peer() -> AsyncIterator[tuple[ChannelStream, socket.socket]]:
    """A client's plain stream, and the peer's socket."""
    async with raw_listener() as listener:
        stream = await connect(LOOPBACK, port_of(listener))
        peer, _ = await asyncio.get_running_loop().sock_accept(listener)
        peer.setblocking(False)
        with peer:
            try:
                yield stream, peer
            finally:
                await end(stream.channel)


class RawClient:
    """A client's socket that is nobody's but the test's."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock

    async def send(self, data: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self._socket, data)

    async def end(self) -> bytes:
        """End our side, and receive all of the peer's."""
        self._socket.shutdown(socket.SHUT_WR)
        data = bytearray()
        async with asyncio.timeout(PATIENCE):
            while chunk := await asyncio.get_running_loop().sock_recv(self._socket, 65536):
                data += chunk
        return bytes(data)

    def reset(self) -> None:
        """Close by a reset."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._socket.close()


@asynccontextmanager
async def raw_client(port: int) -> AsyncIterator[RawClient]:
    """One that is connected to a port."""
    with socket.socket() as sock:
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, (LOOPBACK, port))
        yield RawClient(sock)


async def received(stream: ChannelStream, size: int) -> bytes:
    """So many bytes of a stream, and no more."""
    data = bytearray()
    async with asyncio.timeout(PATIENCE):
        while len(data) < size:
            data += await stream.receive(size - len(data))
    return bytes(data)


async def until(reached: Callable[[], object]) -> None:
    """Wait for what no event tells of, such as another thread's doing."""
    async with asyncio.timeout(PATIENCE):
        while not reached():  # noqa: ASYNC110  there is no event for this
            await asyncio.sleep(0.001)


async def settled(figure: Callable[[], int]) -> int:
    """A figure, when it has not changed any more for a while."""
    async with asyncio.timeout(PATIENCE):
        before = -1
        while (now := figure()) != before:
            before = now
            await asyncio.sleep(0.03)
    return now


async def send_for_ever(stream: ChannelStream) -> None:
    """Send CHUNK after CHUNK."""
    while True:
        await stream.send(CHUNK)


async def is_blocked(stream: ChannelStream) -> None:
    """Wait until the kernel takes no more of what the stream sends. Thread: the channel's."""
    await settled(lambda: socket_statistics(stream.channel).bytes_written)


async def fill(stream: ChannelStream) -> bytes:
    """Send until the kernel takes no more, and cancel the last call; all that was to be sent."""
    count = 0

    async def send() -> None:
        nonlocal count
        while True:
            count += 1
            await stream.send(CHUNK)

    sending = asyncio.create_task(send())
    await is_blocked(stream)
    sending.cancel()
    await asyncio.wait({sending})
    assert sending.cancelled()
    return CHUNK * count


def socket_statistics(channel: Channel) -> SocketStatistics:
    """What the channel's socket has read and written."""
    figures = channel.statistics()[0]
    assert isinstance(figures, SocketStatistics)
    return figures


async def cut_short(attempt: Awaitable[object], turns: int) -> bool:
    """Begin something, and cancel it after so many turns of the loop; whether it was not done."""
    task = asyncio.ensure_future(attempt)
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait({task})
    return task.cancelled()


async def give_up(connecting: Coroutine[Any, Any, ChannelStream], turns: int) -> None:
    """Begin to connect, and cancel that after so many turns; close what has been made by then."""
    task = asyncio.create_task(connecting)
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait({task})
    if not task.cancelled():
        await end(task.result().channel)
