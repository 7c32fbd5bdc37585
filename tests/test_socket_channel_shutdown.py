"""Channels on sockets: how they end, by whom, and what is still written."""

import asyncio
import socket
from typing import Any

import pytest

from aws_io_async.channel import Channel, ChannelSlot
from aws_io_async.errors import ErrorCode, SocketTimeoutError
from aws_io_async.message_pool import IoMessage
from aws_io_async.socket_channel_handler import SocketChannelHandler
from tests import channels
from tests.bootstraps import code_of
from tests.channels import (
    WRITE,
    App,
    Echo,
    Lingering,
    Stage,
    ended,
    pipeline,
    reset,
    socket_pair,
)
from tests.socket_channels import MUCH, Peer, connection, families
from tests.socket_tools import another_loop, on, turns

no_tasks_left = channels.no_tasks_left


class Outcome:
    """How writes were completed."""

    def __init__(self) -> None:
        self.errors: list[BaseException | None] = []

    def write(self, app: Stage, data: bytes) -> None:
        message = IoMessage(data, on_completion=lambda *args: self.errors.append(args[2]))
        app.place.send_message(message, WRITE)


# Gracefully


@families
async def test_what_was_written_is_flushed(family: socket.AddressFamily) -> None:
    outcome = Outcome()
    async with connection(app := App(), family=family) as (channel, peer):
        for data in (MUCH, b"the last ", b"of it"):
            outcome.write(app, data)
        channel.shutdown()
        assert await peer.reads() == MUCH + b"the last of it"
        assert await ended(channel) is None
        assert outcome.errors == [None] * 3


async def test_what_a_suspended_handler_still_writes_is_flushed() -> None:
    class Writing(App):
        async def process_read_message(self, slot: ChannelSlot, message: IoMessage) -> None:
            await slot.write(MUCH)
            await slot.write(b"the end")
            self.happened("written")

    async with connection(app := Writing()) as (channel, peer):
        await peer.sends(b"go")
        await turns(5)
        channel.shutdown()
        assert await peer.reads() == MUCH + b"the end"
        assert await ended(channel) is None
        assert "written" in app.events


async def test_nothing_more_is_read_once_it_has_begun() -> None:
    async with connection(Lingering(), app := App()) as (channel, peer):
        await peer.sends(b"before")
        await app.got(6)
        channel.shutdown()
        await turns(3)
        await peer.sends(b"after")
        await turns(10)
        assert app.data == b"before"
        channel.shutdown(immediately=True)
        await ended(channel)


async def test_a_peer_that_ends_meanwhile_changes_nothing() -> None:
    async with connection(slow := Lingering(), app := App()) as (channel, peer):
        channel.shutdown()
        await turns(3)
        peer.sock.shutdown(socket.SHUT_WR)
        await turns(5)
        app.send(b"still written", WRITE)
        slow.go_on.set()
        assert await peer.reads() == b"still written"
        assert await ended(channel) is None


@families
async def test_a_reset_meanwhile_is_an_error_if_it_cost_a_write(
    family: socket.AddressFamily,
) -> None:
    outcome = Outcome()
    async with connection(app := App(), family=family) as (channel, peer):
        outcome.write(app, MUCH)
        channel.shutdown()
        await turns(3)
        reset(peer.sock)
        error = await ended(channel)
        assert code_of(error) is ErrorCode.IO_SOCKET_CLOSED
        assert outcome.errors == [error]


async def test_a_reset_meanwhile_is_none_if_there_was_nothing_to_write() -> None:
    async with connection(slow := Lingering(), App()) as (channel, peer):
        channel.shutdown()
        await turns(3)
        reset(peer.sock)
        await turns(3)
        slow.go_on.set()
        assert await ended(channel) is None


async def test_who_writes_too_late_is_told() -> None:
    class Late(Stage):
        """Its own shutdown is the last but one: what it writes has to go out."""

        def shutdown(self, slot: ChannelSlot, *args: Any) -> None:
            super().shutdown(slot, *args)
            slot.channel.loop.call_soon(write)

    def write() -> None:
        if app.slot is not None and app.slot.channel.first_slot is not None:
            try:
                outcome.write(late, b"x")
            except Exception as exc:
                outcome.errors.append(exc)

    outcome, late = Outcome(), Late()
    async with connection(late, app := App()) as (channel, peer):
        channel.shutdown()
        assert await ended(channel) is None
        await peer.reads()
        assert len(outcome.errors) == 2


# A peer that takes nothing


@pytest.mark.parametrize("timeout", [0, 0.01])
async def test_what_the_peer_does_not_take_is_given_up(timeout: float) -> None:
    outcome = Outcome()
    handler = SocketChannelHandler(close_timeout=timeout)
    async with connection(app := App(), handler=handler) as (channel, peer):
        for data in (b"gone out", MUCH, b"queued"):
            outcome.write(app, data)
        channel.shutdown()
        error = await ended(channel)
        assert isinstance(error, SocketTimeoutError)
        assert f"did not take what was written before the end within {timeout:g} s" in str(error)
        assert outcome.errors == [None, error, error]
        assert len(await peer.reads()) < len(MUCH)


async def test_the_reason_of_the_shutdown_is_kept() -> None:
    outcome, reason = Outcome(), OSError("the reason")
    handler = SocketChannelHandler(close_timeout=0.01)
    async with connection(app := App(), handler=handler) as (channel, _):
        outcome.write(app, MUCH)
        channel.shutdown(reason)
        assert await ended(channel) is reason
        assert [type(error) for error in outcome.errors] == [SocketTimeoutError]


async def test_a_handler_that_waits_for_its_write_is_freed() -> None:
    """Its read direction could not end before: the time counts from the beginning."""

    class Writing(App):
        async def process_read_message(self, slot: ChannelSlot, message: IoMessage) -> None:
            await slot.write(MUCH)

    handler = SocketChannelHandler(close_timeout=0.01)
    async with connection(Writing(), handler=handler) as (channel, peer):
        await peer.sends(b"go")
        await turns(5)
        channel.shutdown()
        assert isinstance(await ended(channel), SocketTimeoutError)


async def test_the_timeout_is_not_for_handlers() -> None:
    handler = SocketChannelHandler(close_timeout=0.001)
    async with connection(slow := Lingering(), handler=handler) as (channel, peer):
        channel.shutdown()
        await asyncio.sleep(0.01)
        assert not handler.transport.is_closing()
        slow.go_on.set()
        assert await ended(channel) is None
        assert await peer.reads() == b""


# Immediately


@families
async def test_at_once_is_at_once(family: socket.AddressFamily) -> None:
    outcome = Outcome()
    async with connection(app := App(), family=family) as (channel, peer):
        for data in (b"gone out", MUCH, b"queued"):
            outcome.write(app, data)
        channel.shutdown(immediately=True)
        assert await ended(channel) is None
        assert [code_of(error) for error in outcome.errors] == [
            None,
            ErrorCode.IO_SOCKET_CLOSED,
            ErrorCode.IO_SOCKET_CLOSED,
        ]
        assert len(await peer.reads()) < len(MUCH)


async def test_a_graceful_end_that_takes_too_long_for_somebody() -> None:
    outcome = Outcome()
    async with connection(app := App()) as (channel, _):
        outcome.write(app, MUCH)
        channel.shutdown()
        await turns(5)
        channel.shutdown(immediately=True)
        assert await ended(channel) is None
        assert [code_of(error) for error in outcome.errors] == [ErrorCode.IO_SOCKET_CLOSED]


# By whom, and when


async def test_before_the_set_up() -> None:
    loop = asyncio.get_running_loop()
    handler = SocketChannelHandler()
    channel = Channel(on_setup=lambda channel, _: channel.append(handler))
    channel.shutdown(OSError("changed my mind"))
    with socket_pair() as (ours, theirs):
        await turns(1)
        await loop.connect_accepted_socket(lambda: handler, ours)
        assert str(await ended(channel)) == "changed my mind"
        assert await Peer(theirs).reads() == b""


async def test_between_the_set_up_and_the_connection() -> None:
    loop = asyncio.get_running_loop()
    handler = SocketChannelHandler()
    with socket_pair() as (ours, theirs):
        async with pipeline(handler, slow := Lingering()) as channel:
            channel.shutdown()
            await turns(3)
            await loop.connect_accepted_socket(lambda: handler, ours)
            assert await Peer(theirs).reads() == b""
            slow.go_on.set()
            assert await ended(channel) is None


@pytest.mark.parametrize("immediately", [False, True])
async def test_from_another_thread_and_twice(immediately: bool) -> None:
    error = OSError("from afar")
    async with connection(app := App()) as (channel, peer):
        app.send(b"good bye", WRITE)
        await asyncio.to_thread(channel.shutdown, error, immediately=immediately)
        await asyncio.to_thread(channel.shutdown, OSError("again"))
        assert await ended(channel) is error
        assert await peer.reads() == b"good bye"


async def test_a_channel_of_another_thread() -> None:
    with socket_pair() as (ours, theirs):
        async with another_loop() as loop:

            async def open_channel() -> Channel:
                handler = SocketChannelHandler()
                channel = await Channel.open()
                channel.append(handler)
                channel.append(Echo())
                ours.setblocking(False)
                await loop.connect_accepted_socket(lambda: handler, ours)
                return channel

            channel = await on(loop, open_channel())
            await Peer(theirs).sends(b"there and back")
            assert await asyncio.get_running_loop().sock_recv(theirs, 100) == b"there and back"
            channel.shutdown()
            assert await ended(channel) is None
            assert await Peer(theirs).reads() == b""


@pytest.mark.parametrize("immediately", [False, True])
async def test_from_inside_a_handler(immediately: bool) -> None:
    class Once(App):
        def process_read_message(self, slot: ChannelSlot, message: IoMessage) -> None:
            super().process_read_message(slot, message)
            self.send(b"answer", WRITE)
            slot.channel.shutdown(immediately=immediately)
            self.send(b", and more", WRITE)

    async with connection(app := Once()) as (channel, peer):
        await peer.sends(b"question")
        assert await ended(channel) is None
        assert app.data == b"question"
        assert await peer.reads() == b"answer, and more"
