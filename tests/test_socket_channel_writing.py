"""Channels on sockets: what is written, in which order, and when a write is complete."""

import asyncio
import random
import socket
import sys
from typing import Any

import pytest

from aws_io_async.errors import CommonErrorCode, ErrorCode
from aws_io_async.message_pool import IoMessage, MessageType
from aws_io_async.socket_channel_handler import BATCH_SIZE, SocketChannelHandler
from tests import channels
from tests.bootstraps import code_of
from tests.channels import (
    PATIENCE,
    WRITE,
    App,
    Stage,
    bystander,
    ended,
    reset,
    socket_channel,
    socket_pair,
    unread,
    unsent,
)
from tests.socket_channels import MUCH, families
from tests.socket_tools import raises, turns

no_tasks_left = channels.no_tasks_left

END = MessageType.END_OF_INPUT


class Writer(App):
    """Sends messages, and notes how each was completed, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.done: list[tuple[IoMessage, BaseException | None]] = []

    def write(self, data: Any, kind: MessageType = MessageType.APPLICATION_DATA) -> IoMessage:
        message = IoMessage(data, kind, on_completion=self.completed)
        self.place.send_message(message, WRITE)
        return message

    def completed(self, _: object, message: IoMessage, error: BaseException | None) -> None:
        self.done.append((message, error))
        self.happened("completed")

    @property
    def errors(self) -> list[BaseException | None]:
        return [error for _, error in self.done]


async def read_all(sock: socket.socket) -> bytes:
    """What comes until the end."""
    loop, data = asyncio.get_running_loop(), bytearray()
    async with asyncio.timeout(PATIENCE):
        while more := await loop.sock_recv(sock, 1 << 20):
            data += more
    return bytes(data)


# Completion


async def test_a_write_that_the_kernel_takes_is_complete_at_once() -> None:
    with socket_pair() as (ours, theirs):
        async with socket_channel(ours, writer := Writer()):
            message = writer.write(b"hello")
            assert writer.done == [(message, None)]
            assert unread(theirs) == 5
            writer.write(b"")
            assert writer.errors == [None, None]


@families
async def test_a_write_is_complete_when_its_last_byte_is_the_kernels(
    family: socket.AddressFamily,
) -> None:
    loop = asyncio.get_running_loop()
    chooser = random.Random(family)
    sizes = [chooser.choice([1, 1000, 70_000, 1_000_000]) for _ in range(40)]
    with socket_pair(family) as (ours, theirs):
        async with socket_channel(ours, writer := Writer()):
            for size in sizes:
                writer.write(bytes(size))
            total, read = sum(sizes), 0
            assert len(writer.done) < len(sizes)
            while read < total:
                read += len(await loop.sock_recv(theirs, 100_000))
                complete = sum(len(message.data) for message, _ in writer.done)
                assert complete <= read + in_kernel(ours, theirs)
            await writer.has("completed", len(sizes))
            assert writer.errors == [None] * len(sizes)


def in_kernel(sender: socket.socket, receiver: socket.socket) -> int:
    """Bytes on their way, at most: some may be counted at both ends."""
    if sender.family == socket.AF_UNIX:
        return unread(receiver)
    return unread(receiver) + unsent(sender)


@families
async def test_writes_arrive_and_complete_in_their_order(family: socket.AddressFamily) -> None:
    chooser = random.Random(family)
    with socket_pair(family) as (ours, theirs):
        async with socket_channel(ours, writer := Writer()) as channel:
            reading = asyncio.create_task(read_all(theirs))
            sent = []
            for number in range(2000):
                sent.append(writer.write(b"%d " % number * chooser.choice([1, 10, 1000])))
                if chooser.random() < 0.1:
                    await turns(chooser.choice([1, 5]))
            await writer.has("completed", len(sent))
            assert writer.done == [(message, None) for message in sent]
            channel.shutdown()
            assert await reading == b"".join(message.data for message in sent)


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
async def test_whatever_is_like_bytes_can_be_written(kind: Any) -> None:
    with socket_pair() as (ours, theirs):
        async with socket_channel(ours, writer := Writer()) as channel:
            reading = asyncio.create_task(read_all(theirs))
            for part in (b"first, ", MUCH, b", queued, ", b"and queued"):
                writer.write(kind(part))
            await writer.has("completed", 4)
            channel.shutdown()
            assert await reading == b"first, " + MUCH + b", queued, and queued"


@pytest.mark.parametrize("queued", [False, True])
async def test_what_is_not_like_bytes_ends_the_channel(queued: bool) -> None:
    with socket_pair() as (ours, theirs):
        async with bystander(), socket_channel(ours, writer := Writer()) as channel:
            if queued:
                writer.write(MUCH)
            with channels.collected_errors() as errors:
                writer.write("text")
                reading = asyncio.create_task(read_all(theirs))
                assert isinstance(await ended(channel), TypeError)
                errors.clear()
            assert await reading == (MUCH if queued else b"")
            assert [type(error) for _, error in writer.done if error] == [TypeError]


async def test_many_small_writes_behind_a_large_one_go_out_together() -> None:
    class Counting:
        """A transport that counts its writes."""

        def __init__(self, transport: Any) -> None:
            self.transport = transport
            self.writes: list[int] = []

        def write(self, data: Any) -> None:
            self.writes.append(len(data))
            self.transport.write(data)

        def __getattr__(self, name: str) -> Any:
            return getattr(self.transport, name)

    handler = SocketChannelHandler()
    with socket_pair() as (ours, theirs):
        async with socket_channel(ours, writer := Writer(), handler=handler) as channel:
            counting: Any = Counting(handler.transport)
            handler._transport = counting
            writer.write(MUCH)
            for _ in range(1000):
                writer.write(bytes(100))
            reading = asyncio.create_task(read_all(theirs))
            await writer.has("completed", 1001)
            channel.shutdown()
            assert len(await reading) == len(MUCH) + 100_000
            assert len(counting.writes) < 20
            assert max(counting.writes[1:]) <= BATCH_SIZE + 100


async def test_who_is_told_of_a_write_may_write_more() -> None:
    class Going(Writer):
        def completed(self, *args: Any) -> None:
            super().completed(*args)
            if len(self.done) <= 3:
                self.write(b"more %d, " % len(self.done))

    with socket_pair() as (ours, theirs):
        async with socket_channel(ours, writer := Going()) as channel:
            writer.write(MUCH)
            writer.write(b"queued, ")
            reading = asyncio.create_task(read_all(theirs))
            await writer.has("completed", 5)
            channel.shutdown()
            assert await reading == MUCH + b"queued, more 1, more 2, more 3, "
            assert writer.errors == [None] * 5


@pytest.mark.parametrize("first", [b"first, ", MUCH], ids=["taken", "waiting"])
async def test_who_is_told_may_write_more_again_and_again(first: bytes) -> None:
    """Without end: neither is it a matter of the stack, nor does it keep others from their turn."""

    class Endless(Writer):
        stopped = False

        def completed(self, *args: Any) -> None:
            super().completed(*args)
            if not self.stopped:
                self.write(b"more")

    with socket_pair() as (ours, theirs):
        async with socket_channel(ours, writer := Endless()) as channel:
            reading = asyncio.create_task(read_all(theirs))
            writer.write(first)
            async with asyncio.timeout(PATIENCE):
                await writer.has("completed", 3 * sys.getrecursionlimit())
            writer.stopped = True
            channel.shutdown()
            assert await reading == first + b"more" * (len(writer.done) - 1)
            assert set(writer.errors) == {None}


async def test_a_write_that_is_waited_for() -> None:
    with socket_pair() as (ours, theirs):
        async with socket_channel(ours, app := App()) as channel:
            writing = asyncio.create_task(app.place.write(MUCH))
            await turns(10)
            assert not writing.done()
            reading = asyncio.create_task(read_all(theirs))
            await writing
            channel.shutdown()
            assert await reading == MUCH


async def test_a_write_whose_waiter_is_cancelled_is_written_all_the_same() -> None:
    with socket_pair() as (ours, theirs):
        async with socket_channel(ours, app := App()) as channel:
            writes = [asyncio.create_task(app.place.write(part)) for part in (MUCH, b"the end")]
            await turns(3)
            for writing in writes:
                writing.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await writing
            reading = asyncio.create_task(read_all(theirs))
            channel.shutdown()
            assert await reading == MUCH + b"the end"
            assert await ended(channel) is None


async def test_figures_count_what_has_been_written() -> None:
    handler = SocketChannelHandler()
    with socket_pair() as (ours, theirs):
        async with socket_channel(ours, writer := Writer(), handler=handler) as channel:
            writer.write(b"12345")
            writer.write(MUCH)
            writer.write(b"123")
            assert handler.statistics.bytes_written == 5
            reading = asyncio.create_task(read_all(theirs))
            await writer.has("completed", 3)
            assert handler.statistics.bytes_written == len(MUCH) + 8
            channel.shutdown()
            await reading


# The end of the output


@pytest.mark.parametrize("queued", [False, True])
@families
async def test_our_side_can_end_first(family: socket.AddressFamily, queued: bool) -> None:
    loop = asyncio.get_running_loop()
    with socket_pair(family) as (ours, theirs):
        async with bystander(), socket_channel(ours, writer := Writer()) as channel:
            if queued:
                writer.write(MUCH)
            writer.write(b"all")
            writer.write(b"", END)
            assert len(await read_all(theirs)) == 3 + queued * len(MUCH)
            await writer.has("completed", 2 + queued)
            assert set(writer.errors) == {None}
            await loop.sock_sendall(theirs, b"and the answer")
            assert await writer.got(14) == b"and the answer"
            assert not channel.is_closing()
            theirs.close()
            assert code_of(await ended(channel)) is ErrorCode.IO_SOCKET_CLOSED


@pytest.mark.parametrize("queued", [False, True])
async def test_nothing_can_be_written_after_our_end(queued: bool) -> None:
    with socket_pair() as (ours, theirs):
        async with bystander(), socket_channel(ours, writer := Writer()) as channel:
            if queued:
                writer.write(MUCH)
            writer.write(b"", END)
            late = [writer.write(b"late"), writer.write(b"", END)]
            await read_all(theirs)
            await writer.has("completed", 3 + queued)
            assert [message for message, error in writer.done if error] == late
            assert {code_of(error) for error in writer.errors if error} == {
                ErrorCode.IO_SOCKET_ILLEGAL_OPERATION_FOR_STATE
            }
            assert channel.error is None
            writer.send(b"without anyone who is told", WRITE)
            assert code_of(await ended(channel)) is ErrorCode.IO_SOCKET_ILLEGAL_OPERATION_FOR_STATE


@pytest.mark.parametrize("queued", [False, True])
async def test_what_a_socket_cannot_write_ends_the_channel(queued: bool) -> None:
    with socket_pair() as (ours, theirs):
        async with bystander(), socket_channel(ours, writer := Writer()) as channel:
            if queued:
                writer.write(MUCH)
            writer.write(b"what?", MessageType.OTHER)
            reading = asyncio.create_task(read_all(theirs))
            assert code_of(await ended(channel)) is ErrorCode.IO_CHANNEL_UNKNOWN_MESSAGE_TYPE
            assert await reading == (MUCH if queued else b"")
            assert code_of(writer.errors[0]) is ErrorCode.IO_CHANNEL_UNKNOWN_MESSAGE_TYPE


async def test_a_transport_that_cannot_end_one_side() -> None:
    class Whole(asyncio.Transport):
        def can_write_eof(self) -> bool:
            return False

        def set_write_buffer_limits(self, *_: Any, **__: Any) -> None: ...

        def pause_reading(self) -> None: ...

        def is_closing(self) -> bool:
            return False

        def get_extra_info(self, name: str, default: Any = None) -> Any:
            return default

        def abort(self) -> None:
            handler.connection_lost(None)

    handler, writer = SocketChannelHandler(), Writer()
    async with channels.pipeline(handler, writer) as channel:
        handler.connection_made(Whole())
        writer.write(b"", END)
        channel.shutdown(immediately=True)
        error = await ended(channel)
        assert code_of(error) is CommonErrorCode.ERROR_UNSUPPORTED_OPERATION
        assert "shut the channel down" in str(error)
        assert writer.errors == [error]


# Failures


@families
async def test_writes_that_a_reset_cuts_off_fail_with_the_channels_error(
    family: socket.AddressFamily,
) -> None:
    with socket_pair(family) as (ours, theirs):
        async with bystander(), socket_channel(ours, writer := Writer()) as channel:
            for data in (b"gone out", MUCH, b"queued", b"queued"):
                writer.write(data)
            await turns(3)
            reset(theirs)
            error = await ended(channel)
            assert code_of(error) is ErrorCode.IO_SOCKET_CLOSED
            assert writer.errors == [None, error, error, error]
            with raises(ErrorCode.IO_CHANNEL_ERROR_ERROR_CANT_ACCEPT_INPUT):
                writer.write(b"after the end")


async def test_writes_after_the_connection_was_lost_fail() -> None:
    class Slow(Stage):
        """Keeps the channel from ending for a while."""

        async def shutdown(self, *_: Any) -> None:
            await go_on.wait()

    go_on = asyncio.Event()
    with socket_pair() as (ours, theirs):
        async with socket_channel(ours, Slow(), writer := Writer()) as channel:
            theirs.close()
            while not channel.is_closing():
                writer.write(b"x")
                await turns(3)
            for _ in range(10):
                writer.write(b"too late")
            await writer.until(lambda: len(writer.done) >= 11)
            for error in writer.errors[-10:]:
                assert code_of(error) is ErrorCode.IO_SOCKET_CLOSED
            with raises(ErrorCode.IO_SOCKET_CLOSED):
                await writer.place.write(b"too late")
            go_on.set()
            await ended(channel)


async def test_a_completion_that_raises_ends_the_channel_and_no_other_write_is_forgotten() -> None:
    error = OSError("in a completion")

    class Raising(Writer):
        def completed(self, *args: Any) -> None:
            super().completed(*args)
            if len(self.done) == 2:
                raise error

    with socket_pair() as (ours, theirs):
        async with bystander(), socket_channel(ours, writer := Raising()) as channel:
            for data in (MUCH, b"one", b"two", b"three"):
                writer.write(data)
            reading = asyncio.create_task(read_all(theirs))
            assert await ended(channel) is error
            assert await reading == MUCH + b"onetwothree"
            assert writer.errors == [None] * 4


async def test_a_completion_that_ends_the_channel_at_once() -> None:
    class Ending(Writer):
        def completed(self, channel: Any, *args: Any) -> None:
            super().completed(channel, *args)
            channel.shutdown(OSError("enough"), immediately=True)

    with socket_pair() as (ours, theirs):
        async with bystander(), socket_channel(ours, writer := Ending()) as channel:
            for data in (MUCH, b"one", MUCH, b"three"):
                writer.write(data)
            reading = asyncio.ensure_future(read_all(theirs))
            assert str(await ended(channel)) == "enough"
            try:
                assert len(await reading) >= len(MUCH)
            except ConnectionResetError:
                pass
            assert writer.errors[0] is None
            assert len(writer.done) == 4
