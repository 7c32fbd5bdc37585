"""Servers made with `serve`: their clients, and handlers of which several test modules make use."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from aws_io_async.channel_bootstrap import SocketListener
from aws_io_async.channel_stream import ChannelStream, connect, serve
from tests.streams import LOOPBACK, PATIENCE, PLAIN, Security

Handler = Callable[[ChannelStream], Awaitable[object]]


async def connected(listener: SocketListener, security: Security = PLAIN) -> ChannelStream:
    """A client's stream to a server."""
    endpoint = listener.endpoint
    async with asyncio.timeout(PATIENCE):
        return await connect(endpoint.address, endpoint.port, tls=security.client)


@asynccontextmanager
async def client_of_server(
    handler: Handler, security: Security = PLAIN
) -> AsyncIterator[ChannelStream]:
    """A client of a server that both end with the block, the client first."""
    async with (
        serve(handler, LOOPBACK, tls=security.server) as listener,
        await connected(listener, security) as client,
    ):
        yield client


async def everything(stream: ChannelStream) -> bytes:
    """All that comes until the end."""
    async with asyncio.timeout(PATIENCE):
        return b"".join([data async for data in stream])


async def echo(stream: ChannelStream) -> None:
    """A handler that sends back what it gets."""
    async for data in stream:
        await stream.send(data)


class Waits:
    """A handler that waits until it is cancelled; notes what happens."""

    def __init__(self) -> None:
        self.streams: list[ChannelStream] = []
        self.did: list[str] = []

    async def __call__(self, stream: ChannelStream) -> None:
        self.streams.append(stream)
        await stream.send(b"!")
        try:
            await stream.receive()
        finally:
            self.did.append("ended")
