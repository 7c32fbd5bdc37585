"""Scenes: streams of channels, with `connect` and `serve`, and httpcore over them."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import httpcore
from anyio.abc import SocketAttribute

from aws_io_async.channel_stream import ChannelStream, connect, serve
from aws_io_async.event_loop.group import EventLoopGroup
from aws_io_async.integrations.httpcore import ChannelBackend
from tests.bootstraps import closed, serving
from tests.faults.cancellation import Injection
from tests.faults.scenes import (
    BIG,
    DATA,
    HOST,
    client_context,
    folder,
    injected,
    listener,
    scene,
)
from tests.faults.scenes_channels import LOOPBACK, everything, tls, watched_group
from tests.serving import echo
from tests.streams import PLAIN, Security, stream_pair


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
