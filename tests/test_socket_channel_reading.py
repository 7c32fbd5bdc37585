"""Channels on sockets: what is read, to the byte, and what is not while nobody takes it."""

import asyncio
import random
import socket
import sys

import pytest

from aws_io_async.channel import ChannelSlot
from aws_io_async.errors import AwsIoError, ErrorCode
from aws_io_async.message_pool import MAX_READ_SIZE, IoMessage, MessageType
from aws_io_async.socket_channel_handler import SocketChannelHandler
from tests import channels
from tests.bootstraps import code_of
from tests.channels import (
    READ,
    WRITE,
    App,
    Suspending,
    bystander,
    ended,
    pipeline,
    reset,
    socket_channel,
    socket_pair,
    unread,
)
from tests.socket_channels import families
from tests.socket_tools import turns

no_tasks_left = channels.no_tasks_left


async def flood(sock: socket.socket) -> int:
    """Send for as long as the kernel takes it, in spite of some turns of the loop."""
    total, refused = 0, 0
    while refused < 30:
        try:
            total += sock.send(bytes(64 * 1024))
            refused = 0
        except BlockingIOError:
            refused += 1
        await asyncio.sleep(0)
    return total


# Windows


@families
async def test_no_byte_comes_past_the_window(family: socket.AddressFamily) -> None:
    chooser = random.Random(family)
    data = chooser.randbytes(300_000)
    loop = asyncio.get_running_loop()
    with socket_pair(family) as (ours, theirs):
        async with socket_channel(ours, app := App(window=0), enable_read_back_pressure=True):
            sending = asyncio.create_task(loop.sock_sendall(theirs, data))
            granted = 0
            while granted < len(data):
                grant = min(chooser.choice([1, 2, 100, 16_384, 50_000]), len(data) - granted)
                app.takes(grant)
                granted += grant
                assert await app.got(granted) == data[:granted]
                await turns(chooser.choice([0, 3]))
                assert len(app.data) == granted
            await sending


async def test_what_nobody_takes_stays_in_the_kernel() -> None:
    handler, app = SocketChannelHandler(max_read_size=1000), App(window=0)
    loop = asyncio.get_running_loop()
    with socket_pair() as (ours, theirs):
        async with socket_channel(
            ours, app, handler=handler, enable_read_back_pressure=True
        ) as channel:
            await loop.sock_sendall(theirs, bytes(10_000))
            await turns(20)
            assert unread(ours) >= 9000  # some loops read once, whatever they are told
            app.takes(5000)
            await app.got(5000)
            await turns(20)
            assert 4000 <= unread(ours) <= 5000
            assert channel.statistics()[0] is handler.statistics
            assert 5000 <= handler.statistics.bytes_read <= 6000


async def test_messages_are_no_larger_than_the_window() -> None:
    loop = asyncio.get_running_loop()
    with socket_pair() as (ours, theirs):
        async with socket_channel(
            ours, app := App(window=7, greedy=True), enable_read_back_pressure=True
        ):
            await loop.sock_sendall(theirs, bytes(100))
            await app.got(100)
            assert max(len(message.data) for message in app.reads) == 7


@pytest.mark.parametrize("back_pressure", [True, False])
async def test_a_flood_is_held_back(back_pressure: bool) -> None:
    """With back pressure by the window, without by what waits for a suspended handler."""
    app = App(window=100) if back_pressure else Suspending()
    handler = SocketChannelHandler()
    with socket_pair() as (ours, theirs):
        async with (
            bystander(),
            socket_channel(
                ours, app, handler=handler, enable_read_back_pressure=back_pressure
            ) as channel,
        ):
            total = await flood(theirs)
            limit = 100 if back_pressure else 64 * 1024
            assert handler.statistics.bytes_read <= limit + 3 * MAX_READ_SIZE
            assert len(app.data) <= 100
            if isinstance(app, Suspending):
                app.go_on.set()
            else:
                app.takes(sys.maxsize)
            assert len(await app.got(total)) == total
            assert channel.error is None


async def test_a_window_that_opens_from_within_a_read() -> None:
    loop = asyncio.get_running_loop()
    with socket_pair() as (ours, theirs):
        async with socket_channel(
            ours, app := App(window=1, greedy=True), enable_read_back_pressure=True
        ):
            await loop.sock_sendall(theirs, bytes(range(200)))
            assert await app.got(200) == bytes(range(200))
            assert {len(message.data) for message in app.reads} == {1}


async def test_a_window_that_is_opened_in_another_turn_than_the_data_comes() -> None:
    loop = asyncio.get_running_loop()
    with socket_pair() as (ours, theirs):
        async with socket_channel(ours, app := App(window=0), enable_read_back_pressure=True):
            for number in range(1, 50):
                if number % 2:
                    app.takes(3)
                    await turns(number % 5)
                await loop.sock_sendall(theirs, b"xyz")
                await turns(number % 7)
                if not number % 2:
                    app.takes(3)
                assert await app.got(3 * number) == b"xyz" * number


# Fairness


@pytest.mark.parametrize("size", [1, 100, 16_384, 100_000])
async def test_a_read_brings_no_more_than_it_may(size: int) -> None:
    loop = asyncio.get_running_loop()
    handler = SocketChannelHandler(max_read_size=size)
    total = min(size * 20, 500_000)
    with socket_pair() as (ours, theirs):
        async with socket_channel(ours, app := App(), handler=handler):
            sending = asyncio.create_task(loop.sock_sendall(theirs, bytes(total)))
            await app.got(total)
            await sending
            assert max(len(message.data) for message in app.reads) <= size


@pytest.mark.loops("aws_io_async", "asyncio")
async def test_a_connection_has_one_read_a_turn() -> None:
    """libuv reads up to 32 times."""
    loop = asyncio.get_running_loop()
    handler = SocketChannelHandler(max_read_size=10)
    with socket_pair() as (ours, theirs):
        async with socket_channel(ours, app := App(), handler=handler):
            await loop.sock_sendall(theirs, bytes(1000))
            while len(app.data) < 1000:
                before = len(app.data)
                await asyncio.sleep(0)
                assert len(app.data) - before <= 10


async def test_a_flood_does_not_keep_others_waiting() -> None:
    loop = asyncio.get_running_loop()
    with socket_pair() as (ours, theirs), socket_pair() as (mine, yours):
        async with (
            socket_channel(ours, busy := App(), handler=SocketChannelHandler(max_read_size=64)),
            socket_channel(mine, quiet := App()),
        ):
            await loop.sock_sendall(theirs, bytes(100_000))
            await loop.sock_sendall(yours, b"me too")
            assert await quiet.got(6) == b"me too"
            assert len(busy.data) < 100_000
            await busy.got(100_000)


# The peer's end


@families
async def test_when_the_peer_ends_its_side_the_channel_ends(family: socket.AddressFamily) -> None:
    loop = asyncio.get_running_loop()
    with socket_pair(family) as (ours, theirs):
        async with bystander(), socket_channel(ours, app := App()) as channel:
            await loop.sock_sendall(theirs, b"last words")
            theirs.shutdown(socket.SHUT_WR)
            error = await ended(channel)
            assert code_of(error) is ErrorCode.IO_SOCKET_CLOSED
            assert "has ended its side" in str(error)
            assert app.data == b"last words"
            assert app.ended_with is error


@families
async def test_a_reset_ends_the_channel(family: socket.AddressFamily) -> None:
    loop = asyncio.get_running_loop()
    with socket_pair(family) as (ours, theirs):
        async with bystander(), socket_channel(ours, app := App()) as channel:
            app.send(b"what is never read", WRITE)
            await loop.sock_sendall(theirs, b"some")
            await app.got(4)
            reset(theirs)
            error = await ended(channel)
            assert code_of(error) is ErrorCode.IO_SOCKET_CLOSED
            assert isinstance(error, ConnectionResetError)
            assert app.ended_with is error


async def test_a_reset_is_noticed_by_writing_while_nothing_is_read() -> None:
    with socket_pair(socket.AF_INET) as (ours, theirs):
        async with (
            bystander(),
            socket_channel(ours, app := App(window=0), enable_read_back_pressure=True) as channel,
        ):
            await turns(3)
            reset(theirs)
            while not channel.is_closing():
                app.send(b"are you there?", WRITE)
                await turns(2)
            assert code_of(await ended(channel)) is ErrorCode.IO_SOCKET_CLOSED


@pytest.mark.parametrize("window", [0, 4, 10, 1000])
async def test_all_that_was_sent_is_read_before_the_peers_end_counts(window: int) -> None:
    loop = asyncio.get_running_loop()
    with socket_pair() as (ours, theirs):
        async with socket_channel(
            ours, app := App(window=window), enable_read_back_pressure=True
        ) as channel:
            await loop.sock_sendall(theirs, b"0123456789")
            theirs.close()
            await turns(20)
            assert len(app.data) == min(window, 10)
            app.takes(1000)
            assert code_of(await ended(channel)) is ErrorCode.IO_SOCKET_CLOSED
            assert app.data == b"0123456789"


# Half a connection


def half_closing() -> SocketChannelHandler:
    return SocketChannelHandler(half_close=True)


@families
async def test_after_the_peers_end_one_may_go_on_writing(family: socket.AddressFamily) -> None:
    loop = asyncio.get_running_loop()
    with socket_pair(family) as (ours, theirs):
        async with (
            bystander(),
            socket_channel(ours, app := App(), handler=half_closing()) as channel,
        ):
            await loop.sock_sendall(theirs, b"question")
            theirs.shutdown(socket.SHUT_WR)
            await app.has("end of input")
            assert app.data == b"question"
            for part in (b"a long ", b"answer"):
                await app.place.write(part)
            assert await loop.sock_recv(theirs, 100) == b"a long answer"
            await turns(10)
            assert not channel.is_closing()
            channel.shutdown()
            assert await ended(channel) is None
            assert await loop.sock_recv(theirs, 100) == b""
            assert app.events.count("end of input") == 1


@pytest.mark.parametrize("window", [0, 4, 10, 1000])
async def test_the_end_of_input_comes_after_all_data(window: int) -> None:
    loop = asyncio.get_running_loop()
    with socket_pair() as (ours, theirs):
        async with socket_channel(
            ours, app := App(window=window), handler=half_closing(), enable_read_back_pressure=True
        ):
            await loop.sock_sendall(theirs, b"0123456789")
            theirs.shutdown(socket.SHUT_WR)
            await turns(20)
            if window <= 10:  # nothing is read while the window is shut, an end neither
                assert "end of input" not in app.events
                app.takes(1000)
            await app.has("end of input")
            assert app.data == b"0123456789"
            types = [message.message_type for message in app.reads]
            assert types.index(MessageType.END_OF_INPUT) == len(types) - 1


async def test_nobody_is_told_twice_of_an_end_that_waited() -> None:
    loop = asyncio.get_running_loop()
    handler = half_closing()
    with socket_pair() as (ours, theirs):
        async with socket_channel(ours, handler=handler) as channel:
            await loop.sock_sendall(theirs, b"for whom?")
            theirs.shutdown(socket.SHUT_WR)
            await turns(10)
            channel.append(app := App())
            await app.has("end of input")
            await turns(5)
            assert app.events.count("end of input") == 1
            assert app.data == b"for whom?"
            channel.trigger_read()
            await turns(5)
            assert app.events.count("end of input") == 1


async def test_a_reset_after_the_end_of_input() -> None:
    with socket_pair(socket.AF_INET) as (ours, theirs):
        async with socket_channel(ours, app := App(), handler=half_closing()) as channel:
            theirs.shutdown(socket.SHUT_WR)
            await app.has("end of input")
            reset(theirs)
            while not channel.is_closing():
                app.send(b"are you there?", WRITE)
                await turns(2)
            assert code_of(await ended(channel)) is ErrorCode.IO_SOCKET_CLOSED


# Nobody to read for


@pytest.mark.parametrize("back_pressure", [True, False])
async def test_what_comes_before_there_is_a_reader_waits(back_pressure: bool) -> None:
    loop = asyncio.get_running_loop()
    with socket_pair() as (ours, theirs):
        async with socket_channel(ours, enable_read_back_pressure=back_pressure) as channel:
            await loop.sock_sendall(theirs, bytes(100_000))
            await turns(20)
            assert unread(ours) >= 100_000 - MAX_READ_SIZE
            channel.append(app := App())
            assert len(await app.got(100_000)) == 100_000


@pytest.mark.parametrize("back_pressure", [True, False])
async def test_what_comes_while_there_is_no_reader_waits(back_pressure: bool) -> None:
    loop = asyncio.get_running_loop()
    with socket_pair() as (ours, theirs):
        async with (
            bystander(),
            socket_channel(
                ours, first := App(), enable_read_back_pressure=back_pressure
            ) as channel,
        ):
            await loop.sock_sendall(theirs, b"one ")
            await first.got(4)
            first.place.remove()
            for _ in range(3):
                await loop.sock_sendall(theirs, b"two ")
                await turns(5)
            channel.append(second := App(window=6))
            size = 6 if back_pressure else 12
            assert await second.got(size) == b"two two two "[:size]
            second.takes(100)
            assert await second.got(12) == b"two two two "


async def test_a_reader_that_leaves_in_the_midst_of_a_read() -> None:
    class Leaving(App):
        def process_read_message(self, slot: ChannelSlot, message: IoMessage) -> None:
            super().process_read_message(slot, message)
            slot.replace(new := slot.channel.new_slot())
            new.set_handler(App("next"))

    loop = asyncio.get_running_loop()
    with socket_pair() as (ours, theirs):
        async with socket_channel(ours, leaving := Leaving()) as channel:
            await loop.sock_sendall(theirs, b"one")
            await leaving.got(3)
            await loop.sock_sendall(theirs, b"two")
            _, slot = channel.slots()
            assert isinstance(slot.handler, App)
            assert await slot.handler.got(3) == b"two"
            assert leaving.data == b"one"


async def test_trigger_read_reads_if_it_may() -> None:
    loop = asyncio.get_running_loop()
    with socket_pair() as (ours, theirs):
        async with socket_channel(
            ours, app := App(window=3), enable_read_back_pressure=True
        ) as channel:
            await loop.sock_sendall(theirs, b"12345")
            channel.trigger_read()
            await app.got(3)
            channel.trigger_read()
            await turns(10)
            assert app.data == b"123"


async def test_trigger_read_before_and_after_there_is_a_connection() -> None:
    async with pipeline(SocketChannelHandler(), app := App()) as channel:
        channel.trigger_read()
        app.takes(10)
        await turns(3)
        assert channel.error is None
    with socket_pair() as (ours, _):
        handler = SocketChannelHandler()
        async with socket_channel(ours, App(), handler=handler) as channel:
            channel.shutdown()
            await turns(3)
            handler.trigger_read(handler._own_slot())
            await ended(channel)
            assert channel.error is None


async def test_data_that_comes_with_the_connection() -> None:
    loop = asyncio.get_running_loop()
    with socket_pair() as (ours, theirs):
        await loop.sock_sendall(theirs, b"early bird")
        theirs.shutdown(socket.SHUT_WR)
        async with socket_channel(
            ours, app := App(window=0), handler=half_closing(), enable_read_back_pressure=True
        ):
            await turns(10)
            assert app.data == b""
            app.takes(100)
            await app.has("end of input")
            assert app.data == b"early bird"
            with pytest.raises(AwsIoError):
                app.send(b"nobody is there", READ)
