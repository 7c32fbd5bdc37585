"""Channels on sockets: whatever is cancelled, nothing is left of them, as of any that has ended."""

import asyncio
import gc
import socket
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from aws_io_async.channel import Channel
from aws_io_async.message_pool import IoMessage
from aws_io_async.socket_channel_handler import SocketChannelHandler
from tests import channels
from tests.channels import (
    WRITE,
    App,
    Echo,
    Suspending,
    bystander,
    ended,
    pipeline,
    socket_channel,
    socket_pair,
)
from tests.socket_channels import MUCH, Peer, connection
from tests.socket_tools import turns

no_tasks_left = channels.no_tasks_left


# Cancellation


STEPS = 8


async def with_cancellation(step: int, act: Callable[[Channel], Any]) -> None:
    """Cancel `act(channel)` after some turns; the channel ends all the same when it is told to."""
    async with connection(app := App()) as (channel, peer):
        task = asyncio.ensure_future(act(channel))
        await turns(step)
        task.cancel()
        try:
            await task
        except asyncio.CancelledError:
            pass
        reading = asyncio.ensure_future(peer.reads())
        channel.shutdown()
        await ended(channel)
        await reading
        assert app.events.count("close") == 1


@pytest.mark.parametrize("step", range(STEPS))
async def test_a_cancelled_write(step: int) -> None:
    async def write(channel: Channel) -> None:
        *_, slot = channel.slots()
        await slot.write(MUCH)

    await with_cancellation(step, write)


@pytest.mark.parametrize("step", range(STEPS))
async def test_a_cancelled_aclose(step: int) -> None:
    async def write_and_close(channel: Channel) -> None:
        *_, slot = channel.slots()
        slot.send_message(IoMessage(MUCH), WRITE)
        await channel.aclose()

    await with_cancellation(step, write_and_close)


@pytest.mark.parametrize("step", range(STEPS))
async def test_a_cancelled_connect(step: int) -> None:
    loop = asyncio.get_running_loop()
    handler = SocketChannelHandler(close_timeout=0.05)  # uvloop may not tell of the end
    with socket_pair() as (ours, theirs):
        async with bystander(), pipeline(handler, App()) as channel:
            connecting = asyncio.ensure_future(loop.connect_accepted_socket(lambda: handler, ours))
            await turns(step)
            connecting.cancel()
            try:
                await connecting
            except asyncio.CancelledError:
                pass
            channel.shutdown()
            await ended(channel)
        ours.close()
        assert await Peer(theirs).reads() == b""


@pytest.mark.parametrize("step", range(STEPS))
async def test_all_tasks_of_the_program_cancelled(step: int) -> None:
    async with connection(Suspending("s"), app := App()) as (channel, peer):
        await peer.sends(b"in")
        app.send(MUCH, WRITE)
        await turns(3)
        channel.shutdown()
        await turns(step)
        keep = {asyncio.current_task()}
        for task in asyncio.all_tasks() - keep:
            task.cancel()
        channel.shutdown(immediately=True)
        await ended(channel)


async def test_a_program_that_ends_in_the_midst_of_it() -> None:
    """`asyncio.run` cancels what is left, and closes the loop."""
    factory = type(asyncio.get_running_loop())
    app = App()

    def main() -> None:
        async def begin() -> None:
            handler = SocketChannelHandler()
            channel = await Channel.open()
            channel.append(handler)
            channel.append(app)
            await asyncio.get_running_loop().connect_accepted_socket(lambda: handler, ours)
            app.send(MUCH, WRITE)
            channel.shutdown()
            await turns(5)

        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(begin())

    with socket_pair() as (ours, theirs):
        await asyncio.to_thread(main)
        assert len(await Peer(theirs).reads()) < len(MUCH)
    assert app.events[-1] == "close"


# Nothing is left


@pytest.mark.parametrize("immediately", [False, True])
async def test_nothing_refers_to_what_has_ended(immediately: bool) -> None:
    refs: list[weakref.ref[Any]] = []
    with socket_pair() as (ours, theirs):
        async with socket_channel(ours, app := App(), enable_read_back_pressure=True) as channel:
            await Peer(theirs).sends(b"hello")
            await app.got(5)
            await app.place.write(b"hello")
            assert channel.first_slot is not None
            handler: Any = channel.first_slot.handler
            refs += map(weakref.ref, (channel, app, handler, handler.transport))
            channel.shutdown(immediately=immediately)
            await ended(channel)
        del channel, app, handler, ours
    await turns(3)
    gc.collect()
    assert [ref() for ref in refs] == [None] * len(refs)


async def test_hundreds_come_and_go() -> None:
    async def one(number: int) -> None:
        with socket_pair() as (ours, theirs):
            async with socket_channel(ours, Echo()) as channel:
                peer = Peer(theirs)
                await peer.sends(b"x" * number)
                if number % 3 == 0:
                    channel.shutdown()
                elif number % 3 == 1:
                    channel.shutdown(immediately=True)
                else:
                    theirs.shutdown(socket.SHUT_WR)
                await ended(channel)

    async with bystander():
        for start in range(0, 300, 100):
            await asyncio.gather(*(one(number) for number in range(start, start + 100)))
