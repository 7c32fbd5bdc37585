"""What any two-way byte stream of anyio's must do, whatever it is made of.

After `trio.testing.check_two_way_stream` and `check_half_closeable_stream`, in anyio's words. Each
check is given a function that makes both ends of a connection, as a block.
"""

import asyncio
import random
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from typing import Any

import anyio
import pytest
from anyio.abc import ByteStream

from tests.socket_tools import turns

PATIENCE = 30.0
"""Seconds after which something that should have happened is missed."""

Pair = tuple[ByteStream, ByteStream]
Make = Callable[[], AbstractAsyncContextManager[Pair]]

Call = Callable[[ByteStream], Coroutine[Any, Any, object]]


def receive(stream: ByteStream) -> Coroutine[Any, Any, bytes]:
    return stream.receive()


def send(stream: ByteStream) -> Coroutine[Any, Any, None]:
    return stream.send(b"x")


def send_nothing(stream: ByteStream) -> Coroutine[Any, Any, None]:
    return stream.send(b"")


async def flood(stream: ByteStream) -> None:
    """Send for ever: soon that has to wait for the peer."""
    while True:
        await stream.send(bytes(1 << 20))


async def drain(stream: ByteStream) -> bytes:
    """All that comes until the end, whether that is in order or not."""
    data = bytearray()
    async with asyncio.timeout(PATIENCE):
        try:
            async for chunk in stream:
                data += chunk
        except anyio.BrokenResourceError:
            pass
    return bytes(data)


async def raises(kind: type[Exception], call: Coroutine[Any, Any, object]) -> None:
    async with asyncio.timeout(PATIENCE):
        with pytest.raises(kind):
            await call


async def stuck(call: Coroutine[Any, Any, object]) -> "asyncio.Task[object]":
    """A task that still waits after a while in which all else could go on."""
    task = asyncio.create_task(call)
    for _ in range(5):
        await turns()
        await asyncio.sleep(0.005)
    assert not task.done()
    return task


# Bytes


async def check_bytes(make: Make) -> None:
    """One way, at each end: what is sent arrives, in pieces no larger than asked for."""
    async with make() as (one, other):
        for sender, receiver in (one, other), (other, one):
            await sender.send(b"x")
            assert await receiver.receive() == b"x"
            await sender.send(b"")
            await sender.send(b"yz")
            assert await receiver.receive(1) == b"y"
            assert await receiver.receive(1) == b"z"
            for bad in 0, -1:
                await raises(ValueError, receiver.receive(bad))
            await raises(TypeError, receiver.receive(1.5))  # type: ignore[arg-type]  # on purpose
            await raises(TypeError, sender.send("text"))  # type: ignore[arg-type]  # on purpose


async def check_both_ways_at_once(make: Make) -> None:
    """Pieces of random sizes, each way and at the same time."""
    chooser = random.Random(3)
    data = {0: chooser.randbytes(400_000), 1: chooser.randbytes(400_000)}

    async def send_all(stream: ByteStream, data: bytes) -> None:
        while data:
            size = chooser.randint(1, 20_000)
            await stream.send(data[:size])
            data = data[size:]
            if chooser.random() < 0.2:
                await asyncio.sleep(0)

    async def receive_all(stream: ByteStream, size: int) -> bytes:
        got = bytearray()
        while len(got) < size:
            got += await stream.receive(chooser.randint(1, 20_000))
        return bytes(got)

    async with make() as (one, other), asyncio.timeout(PATIENCE):
        _, _, forth, back = await asyncio.gather(
            send_all(one, data[0]),
            send_all(other, data[1]),
            receive_all(other, len(data[0])),
            receive_all(one, len(data[1])),
        )
        assert forth == data[0]
        assert back == data[1]


# Misuse


async def check_one_at_a_time(make: Make) -> None:
    """A second call of a kind is refused, and the first one goes on."""
    async with make() as (one, other):
        receiving = await stuck(one.receive())
        await raises(anyio.BusyResourceError, one.receive())
        await one.send(b"x")  # the other direction is free
        assert await other.receive() == b"x"
        await other.send(b"y")
        assert await receiving == b"y"
        sending = await stuck(flood(one))
        await raises(anyio.BusyResourceError, one.send(b"z"))
        sending.cancel()
        await asyncio.wait({sending})


# Closing


async def check_closing(make: Make) -> None:
    """Nothing goes any more at the closed end, and the peer is told."""
    async with make() as (one, other):
        await one.aclose()
        await one.aclose()
        for call in receive, send, send_nothing:
            await raises(anyio.ClosedResourceError, call(one))
        for _ in range(2):
            await raises(anyio.EndOfStream, other.receive())
        await raises(anyio.BrokenResourceError, flood(other))
        await other.aclose()
        for call in receive, send, send_nothing:
            await raises(anyio.ClosedResourceError, call(other))


async def check_closing_under_a_receiver(make: Make) -> None:
    """Who waits at the closed end is told, by either end's closing."""
    async with make() as (one, other):
        ours, theirs = await stuck(one.receive()), await stuck(other.receive())
        await one.aclose()
        async with asyncio.timeout(PATIENCE):
            with pytest.raises(anyio.ClosedResourceError):
                await ours
            with pytest.raises(anyio.EndOfStream):
                await theirs


async def check_closing_under_a_sender(make: Make) -> None:
    """The same, for who waits for the kernel to take bytes."""
    async with make() as (one, _):
        sending = await stuck(flood(one))
        await anyio.aclose_forcefully(one)
        async with asyncio.timeout(PATIENCE):
            with pytest.raises(anyio.ClosedResourceError):
                await sending
    async with make() as (one, other):
        sending = await stuck(flood(one))
        await anyio.aclose_forcefully(other)
        async with asyncio.timeout(PATIENCE):
            with pytest.raises(anyio.BrokenResourceError):
                await sending


async def check_closing_that_is_cancelled(make: Make) -> None:
    """It closes all the same, and tells the peer one way or the other."""
    for count in range(5):
        async with make() as (one, other):
            closing = asyncio.create_task(one.aclose())
            await turns(count + 1)
            closing.cancel()
            await asyncio.wait({closing})
            for call in receive, send:
                await raises(anyio.ClosedResourceError, call(one))
            assert await drain(other) == b""
    async with make() as (one, other):
        with anyio.CancelScope() as scope:
            scope.cancel()
            await one.aclose()
        await raises(anyio.ClosedResourceError, receive(one))
        assert await drain(other) == b""


# Cancelling


async def check_cancelling(make: Make) -> None:
    """At each point where a call may wait; it can be made again, and no byte is lost."""
    async with make() as (one, other):
        for count in range(12):
            receiving = asyncio.create_task(other.receive())
            await turns(count)
            receiving.cancel()
            await asyncio.wait({receiving})
            assert receiving.cancelled()
        expected, got = bytearray(), bytearray()
        for count in range(40):
            sending = asyncio.create_task(one.send(bytes([count])))
            await turns(1 + count % 5)
            sending.cancel()
            await asyncio.wait({sending})
            expected.append(count)
            receiving = asyncio.create_task(other.receive())
            await turns(count % 7)
            if receiving.cancel():
                await asyncio.wait({receiving})
            got += receiving.result() if not receiving.cancelled() else b""
        async with asyncio.timeout(PATIENCE):
            while len(got) < len(expected):
                got += await other.receive()
        assert got == expected


async def check_timeouts(make: Make) -> None:
    """asyncio's and anyio's; both know their own cancellation again."""
    async with make() as (one, other):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await one.receive()
        with pytest.raises(TimeoutError), anyio.fail_after(0.01):
            await one.receive()
        with anyio.move_on_after(0.01) as scope:
            await flood(one)
        assert scope.cancelled_caught
        with anyio.move_on_after(0.01) as scope:
            await other.receive(1)
            await one.receive()
        assert scope.cancelled_caught


# The ends


async def check_half_close(make: Make) -> None:
    """One side ends, the other goes on."""
    async with make() as (one, other):
        for sender, receiver in (one, other), (other, one):
            receiving = await stuck(receiver.receive())
            await sender.send_eof()
            await sender.send_eof()
            with pytest.raises(anyio.EndOfStream):
                await receiving
            await raises(anyio.EndOfStream, receiver.receive())
            for call in send, send_nothing:
                await raises(anyio.ClosedResourceError, call(sender))
            if sender is one:
                await other.send(b"still there")
                assert await one.receive() == b"still there"
    async with make() as (one, _):
        sending = await stuck(flood(one))
        await raises(anyio.BusyResourceError, one.send_eof())
        sending.cancel()
        await asyncio.wait({sending})
        await anyio.aclose_forcefully(one)
        await raises(anyio.ClosedResourceError, one.send_eof())


async def check_no_half_close(make: Make) -> None:
    """It says so, and the stream is none the worse for it."""
    async with make() as (one, other):
        await raises(NotImplementedError, one.send_eof())
        await one.send(b"x")
        assert await other.receive() == b"x"


CHECKS = [
    check_bytes,
    check_both_ways_at_once,
    check_one_at_a_time,
    check_closing,
    check_closing_under_a_receiver,
    check_closing_under_a_sender,
    check_closing_that_is_cancelled,
    check_cancelling,
    check_timeouts,
]
"""Of all streams; half closing is for those that have it."""
