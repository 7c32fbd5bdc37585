"""`ChannelStream` on another loop than its channel's, of whatever kind the two loops are."""

import asyncio
import random
import threading
from collections.abc import AsyncIterator

import anyio
import pytest
import trustme
from anyio.abc import SocketAttribute

from aws_io_async.channel import ChannelState
from aws_io_async.channel_stream import ChannelStream, connect
from aws_io_async.event_loop.group import EventLoopGroup
from tests import loops
from tests.socket_tools import turns
from tests.streams import (
    LOOPBACK,
    PATIENCE,
    PLAIN,
    Security,
    cut_short,
    give_up,
    is_blocked,
    port_of,
    raw_listener,
    received,
    send_for_ever,
    settled,
    socket_statistics,
    stream_pair,
    tls_of,
    until,
)

DATA = random.Random(1).randbytes(400_000)

KINDS = [name for name in loops.FACTORIES if name != "asyncio"]
"""Of loops on threads; the loop of the test is of each kind in any case."""


@pytest.fixture(params=KINDS)
async def group(request: pytest.FixtureRequest) -> AsyncIterator[EventLoopGroup]:
    async with EventLoopGroup(2, loop_factory=loops.FACTORIES[request.param]) as group:
        yield group


@pytest.fixture(params=["plain", "tls"])
def security(request: pytest.FixtureRequest, ca: trustme.CA) -> Security:
    return tls_of(ca) if request.param == "tls" else PLAIN


async def blocked_sender(stream: ChannelStream, group: EventLoopGroup) -> "asyncio.Task[None]":
    """A task that sends until it has to wait for the peer."""
    task = asyncio.create_task(send_for_ever(stream))
    await group.run(is_blocked(stream), stream.channel.loop)
    return task


async def test_bytes_both_ways(group: EventLoopGroup, security: Security) -> None:
    async with stream_pair(security, client_group=group, server_group=group) as (client, server):
        assert client.channel.loop in list(group)
        assert not client.channel.thread_is_callers_thread()
        sent, answered, *_ = await asyncio.gather(
            received(server, len(DATA)),
            received(client, len(DATA)),
            client.send(DATA),
            server.send(DATA[::-1]),
        )
        assert sent == DATA
        assert answered == DATA[::-1]


async def test_the_ends_of_a_stream(group: EventLoopGroup) -> None:
    async with stream_pair(client_group=group, server_group=group) as (client, server):
        await client.send(b"a question")
        await client.send_eof()
        assert [data async for data in server] == [b"a question"]
        await server.send(b"an answer")
        await server.aclose()
        assert [data async for data in client] == [b"an answer"]
        await client.aclose()
        for stream in client, server:
            assert stream.channel.state is ChannelState.SHUT_DOWN
            assert stream.extra(SocketAttribute.local_address)[0] == LOOPBACK
            with pytest.raises(anyio.ClosedResourceError):
                await stream.receive()


async def test_tls_has_no_half_close(group: EventLoopGroup, ca: trustme.CA) -> None:
    async with stream_pair(tls_of(ca), client_group=group) as (client, _):
        with pytest.raises(NotImplementedError):
            await client.send_eof()


async def test_a_cancelled_receive_loses_nothing(group: EventLoopGroup, security: Security) -> None:
    """Nor does it take so much out that a window is opened for more than was received."""
    chooser = random.Random(7)
    window = 20_000
    async with stream_pair(security, server_group=group, window=window) as (client, server):

        async def send() -> None:
            sent = 0
            while sent < len(DATA):
                size = chooser.randint(1, 3000)
                await client.send(DATA[sent : sent + size])
                sent += size
                await asyncio.sleep(0)
            await client.aclose()

        sending = asyncio.create_task(send())
        data = bytearray()
        cancelled = 0
        while True:
            receiving = asyncio.ensure_future(server.receive(chooser.randint(1, 5000)))
            await turns(chooser.randint(0, 3))
            cancelled += receiving.cancel()
            try:
                data += await receiving
            except asyncio.CancelledError:
                pass
            except anyio.EndOfStream:
                break
            assert sum(map(len, server._handler._chunks)) <= window
        await sending
        assert data == DATA
        assert cancelled > 10


async def test_no_more_is_read_than_the_window(group: EventLoopGroup) -> None:
    async with stream_pair(server_group=group, window=50_000) as (client, server):

        async def bytes_read() -> int:
            return await settled(lambda: socket_statistics(server.channel).bytes_read)

        sending = asyncio.create_task(client.send(DATA))
        assert await group.run(bytes_read(), server.channel.loop) == 50_000
        await received(server, 20_000)
        assert await group.run(bytes_read(), server.channel.loop) == 70_000
        await received(server, len(DATA) - 20_000)
        await sending


async def test_one_receives_at_a_time_on_all_threads(group: EventLoopGroup) -> None:
    async with stream_pair(client_group=group) as (client, server):
        receiving = asyncio.create_task(client.receive())
        await turns()
        with pytest.raises(anyio.BusyResourceError):
            await client.receive()
        for loop in group:
            with pytest.raises(anyio.BusyResourceError):
                await group.run(client.receive(), loop)
        await server.send(b"x")
        assert await receiving == b"x"


async def test_one_thread_receives_while_another_sends(group: EventLoopGroup) -> None:
    async with stream_pair(client_group=group) as (client, server):
        here = threading.get_ident()

        async def receive() -> bytes:
            assert threading.get_ident() != here
            return await received(client, len(DATA))

        for loop in group:
            _, data, _, back = await asyncio.gather(
                server.send(DATA),
                group.run(receive(), loop),
                client.send(DATA),
                received(server, len(DATA)),
            )
            assert data == back == DATA


async def test_closing_tells_those_who_wait(group: EventLoopGroup) -> None:
    async with stream_pair(client_group=group) as (client, _):
        receiving = asyncio.create_task(client.receive())
        sending = await blocked_sender(client, group)
        await cut_short(client.aclose(), 5)
        for waiting in receiving, sending:
            with pytest.raises(anyio.ClosedResourceError):
                await waiting
        async with asyncio.timeout(PATIENCE):
            await client.aclose()
        assert client.channel.state is ChannelState.SHUT_DOWN


@pytest.mark.parametrize("count", [1, 2, 3, 5])
async def test_what_is_cancelled_on_its_way_is_done_all_the_same(
    group: EventLoopGroup, count: int
) -> None:
    """Bytes are sent, our side is ended, and the channel is shut down, as on one loop."""
    async with stream_pair(client_group=group) as (client, server):
        await cut_short(client.send(b"a question"), count)
        await cut_short(client.send_eof(), count)
        assert [data async for data in server] == [b"a question"]
        await cut_short(client.aclose(), count)
        async with asyncio.timeout(PATIENCE):
            await client.channel.wait_closed()


async def test_closing_by_another_thread(group: EventLoopGroup) -> None:
    async with stream_pair(client_group=group) as (client, _):
        receiving = asyncio.create_task(client.receive())
        await turns()
        other = next(loop for loop in group if loop is not client.channel.loop)
        await group.run(client.aclose(), other)
        with pytest.raises(anyio.ClosedResourceError):
            await receiving


@pytest.mark.parametrize("count", [0, 1, 2, 5, 20])
async def test_a_cancelled_connect_leaves_nothing(
    group: EventLoopGroup, security: Security, count: int
) -> None:
    """The check for descriptors is made after each test."""
    async with raw_listener() as listener:
        await give_up(
            connect(LOOPBACK, port_of(listener), tls=security.client, event_loop_group=group), count
        )
        if security:
            assert not await channels_tasks(group)


async def channels_tasks(group: EventLoopGroup) -> set["asyncio.Task[object]"]:
    """What still runs on the loops of a group, other than what asks."""

    async def others() -> set["asyncio.Task[object]"]:
        await turns()
        return asyncio.all_tasks() - {asyncio.current_task()}

    found: set[asyncio.Task[object]] = set()
    for loop in group:
        found |= await group.run(others(), loop)
    return found


class TestWhenTheLoopHasEnded:
    """The group was shut down before its channels, which end with it; nothing hangs."""

    async def test_whoever_waits_is_told(self) -> None:
        async with raw_listener() as listener:
            group = EventLoopGroup(1)
            stream = await connect(LOOPBACK, port_of(listener), event_loop_group=group)
            receiving = asyncio.create_task(stream.receive())
            sending = await blocked_sender(stream, group)
            await group.aclose()
            async with asyncio.timeout(PATIENCE):
                for waiting in receiving, sending:
                    with pytest.raises(anyio.BrokenResourceError):
                        await waiting

    async def test_afterwards(self) -> None:
        async with raw_listener() as listener:
            group = EventLoopGroup(1)
            stream = await connect(LOOPBACK, port_of(listener), event_loop_group=group)
            await group.aclose()
            async with asyncio.timeout(PATIENCE):
                with pytest.raises(anyio.BrokenResourceError):
                    await stream.receive()
                with pytest.raises(anyio.BrokenResourceError):
                    await stream.send(b"x")
                await stream.aclose()
                with pytest.raises(anyio.ClosedResourceError):
                    await stream.receive()

    async def test_while_it_closes(self) -> None:
        async with raw_listener() as listener:
            group = EventLoopGroup(1)
            stream = await connect(LOOPBACK, port_of(listener), event_loop_group=group)
            sending = await blocked_sender(stream, group)
            closing = asyncio.create_task(stream.aclose())
            await until(lambda: stream.channel.state is ChannelState.SHUTTING_DOWN)
            await group.aclose()
            async with asyncio.timeout(PATIENCE):
                await closing
                with pytest.raises(anyio.ClosedResourceError):
                    await sending
