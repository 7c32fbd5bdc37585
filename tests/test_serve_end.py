"""`serve`: its end, whoever brings it about, and loops on threads."""

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import anyio
import pytest
import trustme

from aws_io_async.channel import ChannelState
from aws_io_async.channel_stream import ChannelStream, serve
from aws_io_async.errors import ErrorCode
from aws_io_async.event_loop.group import EventLoopGroup
from tests import channels, loops
from tests.channels import collected_errors
from tests.serving import Waits, connected, echo, everything
from tests.socket_tools import raises, turns
from tests.streams import (
    LOOPBACK,
    PATIENCE,
    PLAIN,
    Security,
    received,
    tls_of,
    until,
)

no_tasks_left = channels.no_tasks_left


@pytest.fixture(params=["plain", "tls"])
def security(request: pytest.FixtureRequest, ca: trustme.CA) -> Security:
    return tls_of(ca) if request.param == "tls" else PLAIN


# The end


async def test_handlers_that_still_run_are_cancelled(security: Security) -> None:
    waits = Waits()
    async with AsyncExitStack() as stack:
        async with serve(waits, LOOPBACK, tls=security.server) as listener:
            clients = [
                await stack.enter_async_context(await connected(listener, security))
                for _ in range(3)
            ]
            for client in clients:
                assert await received(client, 1) == b"!"
        assert waits.did == ["ended"] * 3
        assert {stream.channel.state for stream in waits.streams} == {ChannelState.SHUT_DOWN}
        for client in clients:
            with pytest.raises((anyio.EndOfStream, anyio.BrokenResourceError)):
                await client.receive()
        with raises(ErrorCode.IO_SOCKET_CONNECTION_REFUSED):
            await connected(listener, security)


async def test_their_cleaning_up_is_waited_for() -> None:
    did: list[str] = []

    async def clean_up(stream: ChannelStream) -> None:
        await stream.send(b"!")
        try:
            await stream.receive()
        except asyncio.CancelledError:
            await turns(20)
            did.append("cleaned up")
            raise

    async with AsyncExitStack() as stack:
        async with serve(clean_up, LOOPBACK) as listener:
            client = await stack.enter_async_context(await connected(listener))
            await received(client, 1)
        assert did == ["cleaned up"]


async def test_a_handler_that_ends_well_when_it_is_cancelled() -> None:
    """It may still say something."""

    async def polite(stream: ChannelStream) -> None:
        await stream.send(b"!")
        try:
            await stream.receive()
        except asyncio.CancelledError:
            await stream.send(b"sorry")

    async with AsyncExitStack() as stack:
        async with serve(polite, LOOPBACK) as listener:
            client = await stack.enter_async_context(await connected(listener))
            await received(client, 1)
        assert await everything(client) == b"sorry"


async def test_a_handler_that_fails_when_it_is_cancelled() -> None:
    async def fails(stream: ChannelStream) -> None:
        await stream.send(b"!")
        try:
            await stream.receive()
        finally:
            raise ZeroDivisionError("on purpose")

    with collected_errors() as errors:
        async with AsyncExitStack() as stack, serve(fails, LOOPBACK) as listener:
            client = await stack.enter_async_context(await connected(listener))
            await received(client, 1)
        (context,) = errors
        assert isinstance(context["exception"], ZeroDivisionError)
        errors.clear()


@pytest.mark.parametrize("count", range(8))
async def test_the_end_comes_while_a_connection_is_made(count: int, security: Security) -> None:
    """Whatever of it has begun ends with the block."""
    waits = Waits()
    with collected_errors():
        async with serve(waits, LOOPBACK, tls=security.server) as listener:
            connecting = asyncio.create_task(connected(listener, security))
            await turns(count)
        assert len(waits.did) == len(waits.streams)
        for stream in waits.streams:
            assert stream.channel.state is ChannelState.SHUT_DOWN
        await asyncio.wait({connecting})
        if connecting.exception() is None:
            await connecting.result().aclose()


async def test_an_error_in_the_block() -> None:
    waits = Waits()
    client: ChannelStream | None = None
    with pytest.raises(ZeroDivisionError, match="on purpose"):
        async with serve(waits, LOOPBACK) as listener:
            client = await connected(listener)
            await received(client, 1)
            raise ZeroDivisionError("on purpose")
    assert waits.did == ["ended"]
    assert client is not None
    await client.aclose()


async def test_the_block_is_cancelled(security: Security) -> None:
    waits = Waits()
    clients: list[ChannelStream] = []

    async def serving() -> None:
        async with serve(waits, LOOPBACK, tls=security.server) as listener:
            clients.append(await connected(listener, security))
            await received(clients[0], 1)
            await listener.wait_closed()

    task = asyncio.create_task(serving())
    await until(lambda: waits.streams)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert waits.did == ["ended"]
    with anyio.move_on_after(0) as scope:
        await serving()
    assert scope.cancelled_caught
    for client in clients:
        await client.aclose()


@pytest.mark.parametrize("count", range(6))
async def test_the_end_is_cancelled(count: int) -> None:
    """Even so, all that was served has been cancelled."""
    waits = Waits()
    clients: list[ChannelStream] = []
    leaving = asyncio.Event()

    async def serving() -> None:
        async with serve(waits, LOOPBACK) as listener:
            clients.append(await connected(listener))
            await received(clients[0], 1)
            leaving.set()

    task = asyncio.create_task(serving())
    await leaving.wait()
    await turns(count)
    task.cancel()
    await asyncio.wait({task})
    await until(lambda: waits.did)
    for stream in waits.streams:
        await stream.channel.wait_closed()
    for client in clients:
        await client.aclose()


async def test_the_listener_may_be_closed_earlier() -> None:
    """Those who are connected go on."""
    async with serve(echo, LOOPBACK) as listener, await connected(listener) as client:
        await client.send(b"x")
        assert await received(client, 1) == b"x"
        await listener.aclose()
        await client.send(b"y")
        assert await received(client, 1) == b"y"


# Loops on threads


@pytest.fixture(params=[name for name in loops.FACTORIES if name != "asyncio"])
async def group(request: pytest.FixtureRequest) -> AsyncIterator[EventLoopGroup]:
    async with EventLoopGroup(2, loop_factory=loops.FACTORIES[request.param]) as group:
        yield group


async def test_handlers_run_on_the_loops_of_the_group(
    group: EventLoopGroup, security: Security
) -> None:
    threads: set[int] = set()

    async def note(stream: ChannelStream) -> None:
        assert asyncio.get_running_loop() is stream.channel.loop
        threads.add(threading.get_ident())
        await echo(stream)

    async with serve(note, LOOPBACK, tls=security.server, event_loop_group=group) as listener:
        for _ in range(50):
            async with await connected(listener, security) as client:
                await client.send(b"x")
                assert await received(client, 1) == b"x"
            if len(threads) == 2:
                break
    assert len(threads) == 2
    assert threading.get_ident() not in threads


async def test_their_end_is_waited_for(group: EventLoopGroup, security: Security) -> None:
    waits = Waits()
    async with AsyncExitStack() as stack:
        async with serve(waits, LOOPBACK, tls=security.server, event_loop_group=group) as listener:
            for _ in range(10):
                client = await stack.enter_async_context(await connected(listener, security))
                await received(client, 1)
        assert waits.did == ["ended"] * 10
        assert {stream.channel.state for stream in waits.streams} == {ChannelState.SHUT_DOWN}


async def test_failures_go_to_the_loop_of_the_channel(group: EventLoopGroup) -> None:
    reports: list[tuple[int, BaseException]] = []
    for loop in group:
        loop.call_soon_threadsafe(
            loop.set_exception_handler,
            lambda _, context: reports.append((threading.get_ident(), context["exception"])),
        )

    async def fails(stream: ChannelStream) -> None:
        raise ZeroDivisionError(threading.get_ident())

    async with (
        serve(fails, LOOPBACK, event_loop_group=group) as listener,
        await connected(listener) as client,
    ):
        assert await everything(client) == b""
    ((thread, exception),) = reports
    assert isinstance(exception, ZeroDivisionError)
    assert exception.args == (thread,)


async def test_the_group_is_shut_down_first(security: Security) -> None:
    """Handlers are cancelled by that, and the block still ends."""
    waits = Waits()
    async with EventLoopGroup(2) as group, AsyncExitStack() as stack:
        async with serve(waits, LOOPBACK, tls=security.server, event_loop_group=group) as listener:
            for _ in range(4):
                client = await stack.enter_async_context(await connected(listener, security))
                await received(client, 1)
            async with asyncio.timeout(PATIENCE):
                await group.aclose()
        assert waits.did == ["ended"] * 4
        assert {stream.channel.state for stream in waits.streams} == {ChannelState.SHUT_DOWN}
