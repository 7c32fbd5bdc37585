"""Scenes: channels and bootstraps."""

import asyncio
import contextlib
import functools
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

from aws_io_async.channel import Channel, ChannelDirection, ChannelHandler, ChannelSlot
from aws_io_async.channel_bootstrap import ClientBootstrap, ServerBootstrap
from aws_io_async.event_loop.group import EventLoopGroup
from aws_io_async.message_pool import IoMessage
from aws_io_async.socket import SocketDomain, SocketOptions
from aws_io_async.socket_channel_handler import SocketChannelHandler
from aws_io_async.testing import TestingChannel
from tests.bootstraps import Echo, Journal, closed, connected, serving
from tests.faults.cancellation import Injection, watch
from tests.faults.scenes import (
    BIG,
    DATA,
    OTHER_LOOPBACK,
    ca,
    folder,
    listener,
    scene,
)
from tests.lookups import Lookup, making_resolvers
from tests.socket_tools import black_hole
from tests.streams import Security, tls_of

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
