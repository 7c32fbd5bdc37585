"""Awaited streams: reading and filling, and those of anyio and asyncio as sources and sinks.

Files are in test_async_stream_files.py, copying in test_pump.py, and the way to asyncio's streams
in test_asyncio_ends.py.
"""

import asyncio
import hashlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import anyio
import anyio.abc
import pytest
from anyio.streams.buffered import BufferedByteReceiveStream
from anyio.streams.stapled import StapledByteStream

from aws_io_async.async_stream import AsyncInputStream, AsyncOutputStream, pump
from aws_io_async.errors import AwsIoError, ErrorCode
from aws_io_async.pipe import open_pipe
from aws_io_async.stream import InputStream
from aws_io_async.testing import (
    AsyncInputStreamTester,
    InputStreamTester,
    ReadCompletion,
    StreamBehavior,
)

LOCAL = "127.0.0.1"
DIGITS = b"123456789"


class Trickle(AsyncInputStream):
    """Hands out the pieces that it is told to, and raises the exceptions among them."""

    def __init__(self, *pieces: bytes | Exception) -> None:
        self.pieces = asyncio.Queue[bytes | Exception]()
        self.asked: list[int] = []
        self.closed = 0
        for piece in pieces:
            self.pieces.put_nowait(piece)

    async def _read(self, max_bytes: int) -> bytes:
        self.asked.append(max_bytes)
        piece = await self.pieces.get()
        if isinstance(piece, Exception):
            raise piece
        return piece

    async def _close(self) -> None:
        self.closed += 1


async def until_waiting() -> None:
    """Let what was started run until it waits."""
    for _ in range(5):
        await asyncio.sleep(0)


async def cancel(task: asyncio.Task[object]) -> None:
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


# aws-c-io's cases


async def check_fill(completion: ReadCompletion) -> None:
    behavior = StreamBehavior(max_bytes_per_read=1)
    async with AsyncInputStreamTester(DIGITS, behavior, completion=completion) as stream:
        assert await stream.read_to_fill(5) == b"12345"
        assert await stream.read_to_fill(5) == b"6789"
        assert await stream.read_to_fill(5) == b""


async def test_async_input_stream_fill_completes_on_thread() -> None:
    await check_fill(ReadCompletion.ON_ANOTHER_THREAD)


async def test_async_input_stream_fill_completes_immediately() -> None:
    await check_fill(ReadCompletion.IMMEDIATELY)


async def test_async_input_stream_fill_completes_randomly() -> None:
    await check_fill(ReadCompletion.RANDOMLY)


async def test_async_input_stream_fill_eof_requires_extra_read() -> None:
    stream = AsyncInputStreamTester(DIGITS, StreamBehavior(eof_requires_extra_read=True))
    assert await stream.read_to_fill(9) == DIGITS
    assert stream.source.reads == 1
    assert await stream.read_to_fill(9) == b""
    assert stream.source.reads == 2


async def test_async_input_stream_fill_reports_error() -> None:
    behavior = StreamBehavior(max_bytes_per_read=1, fail_on_nth_read=2)
    stream = AsyncInputStreamTester(DIGITS, behavior)
    with pytest.raises(AwsIoError) as caught:
        await stream.read_to_fill(512)
    assert caught.value.code is ErrorCode.IO_STREAM_READ_FAILED
    # What had arrived is not lost with the error.
    assert await stream.read_to_fill(512) == DIGITS


# Reading


async def test_a_read_returns_what_there_is() -> None:
    stream = Trickle(b"one", b"two", b"")
    assert await stream.read(100) == b"one"
    assert await stream.read(100) == b"two"
    assert await stream.read(100) == b""
    assert stream.asked == [100] * 3


async def test_the_end_is_the_end() -> None:
    stream = Trickle(b"", b"after the end")
    assert await stream.read() == b""
    assert await stream.read() == b""
    assert await stream.read_to_fill(3) == b""
    with pytest.raises(anyio.EndOfStream):
        await stream.receive()
    assert len(stream.asked) == 1


async def test_pieces_larger_than_asked_for_are_kept() -> None:
    stream = Trickle(b"abcdefgh", b"ij", b"")
    assert await stream.read(3) == b"abc"
    assert await stream.read_to_fill(2) == b"de"
    assert await stream.read(100) == b"fgh"
    assert await stream.read_to_fill(1) == b"i"
    assert await stream.read_to_fill(100) == b"j"
    assert stream.asked == [3, 1, 99]


async def test_filling_asks_for_what_is_missing() -> None:
    stream = Trickle(b"abc", b"de", b"fghi", b"")
    assert await stream.read_to_fill(6) == b"abcdef"
    assert stream.asked == [6, 3, 1]
    assert await stream.read_to_fill(4) == b"ghi"


@pytest.mark.parametrize("size", [0, -1])
async def test_there_must_be_room(size: int) -> None:
    stream = Trickle(b"data")
    for read in (stream.read, stream.read_to_fill, stream.receive):
        with pytest.raises(ValueError, match=f"{size} bytes"):
            await read(size)
    assert await stream.read() == b"data"


async def test_iteration_ends_with_the_stream() -> None:
    assert [piece async for piece in Trickle(b"one", b"two", b"")] == [b"one", b"two"]


async def test_one_task_at_a_time_reads() -> None:
    stream = Trickle()
    reading = asyncio.create_task(stream.read())
    await until_waiting()
    for read in (stream.read, stream.receive, stream.read_to_fill):
        with pytest.raises(anyio.BusyResourceError):
            await read(1)
    stream.pieces.put_nowait(b"data")
    assert await reading == b"data"


async def test_a_closed_stream_is_not_read() -> None:
    stream = Trickle(b"data")
    assert await stream.read(1) == b"d"
    await stream.aclose()
    await stream.aclose()
    assert stream.closed == 1
    with pytest.raises(anyio.ClosedResourceError):
        await stream.read()
    with pytest.raises(anyio.ClosedResourceError):
        await stream.read_to_fill(1)


async def test_a_cancelled_read_takes_nothing() -> None:
    stream = Trickle()
    reading = asyncio.create_task(stream.read())
    await until_waiting()
    await cancel(reading)
    stream.pieces.put_nowait(b"data")
    assert await stream.read() == b"data"


async def test_a_cancelled_fill_takes_nothing() -> None:
    stream = Trickle(b"abc", b"de")
    filling = asyncio.create_task(stream.read_to_fill(8))
    await until_waiting()
    assert stream.asked == [8, 5, 3]
    await cancel(filling)
    stream.pieces.put_nowait(b"fgh")
    assert await stream.read(4) == b"abcd"
    assert await stream.read_to_fill(4) == b"efgh"


async def test_filling_under_a_timeout_can_be_taken_up_again() -> None:
    stream = Trickle(b"abc")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(stream.read_to_fill(6), 0.01)
    stream.pieces.put_nowait(b"def")
    assert await stream.read_to_fill(6) == b"abcdef"


# Writing


class Slow(AsyncOutputStream):
    """Takes a piece when `room` is released."""

    def __init__(self) -> None:
        self.room = asyncio.Semaphore(0)
        self.taken: list[bytes] = []

    async def _write(self, data: bytes) -> None:
        await self.room.acquire()
        self.taken.append(data)


async def test_a_write_waits_for_the_sink() -> None:
    sink = Slow()
    writing = asyncio.create_task(sink.write(bytearray(b"data")))
    await until_waiting()
    assert not writing.done()
    with pytest.raises(anyio.BusyResourceError):
        await sink.send(b"more")
    sink.room.release()
    await writing
    assert sink.taken == [b"data"]


async def test_writing_nothing_asks_nothing_of_the_sink() -> None:
    sink = Slow()
    await sink.write(b"")
    assert sink.taken == []


async def test_a_closed_sink_takes_nothing() -> None:
    sink = Slow()
    async with sink:
        pass
    await sink.aclose()
    for write in (sink.write, sink.send):
        with pytest.raises(anyio.ClosedResourceError):
            await write(b"data")


async def test_a_cancelled_write_leaves_the_sink_usable() -> None:
    sink = Slow()
    writing = asyncio.create_task(sink.write(b"one"))
    await until_waiting()
    await cancel(writing)
    sink.room.release()
    await sink.write(b"two")
    assert sink.taken == [b"two"]


# Memory, and streams that answer at once


async def test_bytes_are_read_without_a_thread() -> None:
    async with AsyncInputStream.from_bytes(bytearray(DIGITS)) as stream:
        reading = stream.read_to_fill(5)
        with pytest.raises(StopIteration) as caught:
            reading.send(None)
        assert caught.value.value == b"12345"
        assert await stream.read() == b"6789"


async def test_a_given_stream_is_read_on_and_stays_open() -> None:
    source = InputStream.from_bytes(DIGITS)
    source.seek(4)
    async with AsyncInputStream.from_stream(source) as stream:
        assert await stream.read(100) == b"56789"
    source.seek(0)
    assert source.read(100) == DIGITS


async def test_a_source_that_has_nothing_now_is_asked_again() -> None:
    source = InputStreamTester(
        DIGITS, StreamBehavior(max_bytes_per_read=5, read_zero_bytes_on_nth_read=2)
    )
    stream = AsyncInputStream.from_stream(source)
    assert await stream.read_to_fill(100) == DIGITS
    assert source.reads == 4


async def test_a_source_that_failed_goes_on_failing() -> None:
    source = InputStreamTester(
        DIGITS, StreamBehavior(fail_on_nth_read=1, fail_with=OSError(5, "broken"))
    )
    stream = AsyncInputStream.from_stream(source)
    with pytest.raises(OSError, match="broken"):
        await stream.read()
    source.close()
    with pytest.raises(ValueError, match="closed"):
        await stream.read()


# anyio's streams


async def test_ours_are_streams_of_anyio() -> None:
    stream = BufferedByteReceiveStream(AsyncInputStream.from_bytes(b"one\ntwo\nrest"))
    assert await stream.receive_until(b"\n", 100) == b"one"
    assert await stream.receive_exactly(3) == b"two"
    sink = Slow()
    sink.room.release()
    both = StapledByteStream(sink, Trickle(b"data"))
    await both.send(b"out")
    assert sink.taken == [b"out"]
    assert await both.receive() == b"data"
    await both.aclose()


async def test_messages_of_anyio_are_bytes() -> None:
    send, receive = anyio.create_memory_object_stream[bytes](4)
    source, sink = AsyncInputStream.from_anyio(receive), AsyncOutputStream.from_anyio(send)
    for piece in (b"one", b"", b"three"):
        await send.send(piece)
    await sink.write(b"four")
    await sink.aclose()
    assert await source.read(2) == b"on"
    assert await source.read_to_fill(6) == b"ethree"
    await send.aclose()
    assert await source.read_to_fill(10) == b"four"
    assert await source.read() == b""
    await source.aclose()
    with pytest.raises(anyio.EndOfStream):
        receive.receive_nowait()  # the stream that was given is still open
    await receive.aclose()


@asynccontextmanager
async def anyio_connection() -> AsyncIterator[
    tuple[anyio.abc.SocketStream, anyio.abc.SocketStream]
]:
    accepted = asyncio.get_running_loop().create_future()
    done = asyncio.Event()

    async def handle(stream: anyio.abc.SocketStream) -> None:
        async with stream:
            accepted.set_result(stream)
            await done.wait()

    listener = await anyio.create_tcp_listener(local_host=LOCAL)
    async with listener, anyio.create_task_group() as group:
        group.start_soon(listener.serve, handle)
        port = listener.extra(anyio.abc.SocketAttribute.local_port)
        async with await anyio.connect_tcp(LOCAL, port) as client:
            yield client, await accepted
        done.set()
        group.cancel_scope.cancel()


async def test_a_connection_of_anyio() -> None:
    async with anyio_connection() as (client, server):
        source, sink = AsyncInputStream.from_anyio(client), AsyncOutputStream.from_anyio(server)
        assert source.extra(anyio.abc.SocketAttribute.remote_port) == server.extra(
            anyio.abc.SocketAttribute.local_port
        )
        assert sink.extra(anyio.abc.SocketAttribute.local_address)[0] == LOCAL
        reading = asyncio.create_task(source.read_to_fill(8))
        await sink.write(b"1234")
        await until_waiting()
        await cancel(reading)
        await sink.write(b"5678")
        assert await source.read_to_fill(8) == b"12345678"
        await server.send_eof()
        assert await source.read() == b""


# asyncio's streams

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def connection(
    handler: Handler,
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    server = await asyncio.start_server(handler, LOCAL, 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    try:
        yield reader, writer
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()
        server.close()
        await server.wait_closed()
        await asyncio.sleep(0)


async def test_asyncio_streams_are_a_source_and_a_sink() -> None:
    payload = random.Random(0).randbytes(3_000_000)

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await pump(AsyncInputStream.from_reader(reader), AsyncOutputStream.from_writer(writer))
        writer.close()
        await writer.wait_closed()

    async with connection(echo) as (reader, writer):
        sending = asyncio.create_task(
            pump(AsyncInputStream.from_bytes(payload), AsyncOutputStream.from_writer(writer))
        )
        source = AsyncInputStream.from_reader(reader)
        received = await source.read_to_fill(len(payload))
        assert hashlib.sha256(received).digest() == hashlib.sha256(payload).digest()
        assert await sending == len(payload)
        writer.write_eof()
        assert await source.read() == b""


async def test_a_writer_holds_back_who_writes_to_it() -> None:
    resume = asyncio.Event()
    total = 0

    async def late(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal total
        await resume.wait()
        async for piece in AsyncInputStream.from_reader(reader):
            total += len(piece)
        writer.close()
        await writer.wait_closed()

    async with connection(late) as (reader, writer):
        sink = AsyncOutputStream.from_writer(writer)
        written = 0

        async def write() -> None:
            nonlocal written
            for _ in range(500):
                await sink.write(bytes(64 * 1024))
                written += 64 * 1024
            writer.write_eof()

        writing = asyncio.create_task(write())
        before = -1
        while written > before:
            before = written
            await until_waiting()
        assert not writing.done()
        resume.set()
        await writing
        assert await reader.read() == b""
        assert total == written


async def test_a_reset_connection_is_told_to_both() -> None:
    async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(1)
        writer.transport.abort()

    async with connection(reset) as (reader, writer):
        source, sink = AsyncInputStream.from_reader(reader), AsyncOutputStream.from_writer(writer)
        with pytest.raises(ConnectionError):
            while True:
                await sink.write(bytes(1 << 20))
        with pytest.raises(ConnectionError):
            await source.read()


# Pipes


async def test_the_ends_of_a_pipe_are_a_source_and_a_sink() -> None:
    read_end, write_end = open_pipe()
    async with read_end, write_end:
        data = random.Random(1).randbytes(500_000)  # more than a pipe holds
        source, sink = AsyncInputStream.from_pipe(read_end), AsyncOutputStream.from_pipe(write_end)

        async def write() -> None:
            await pump(AsyncInputStream.from_bytes(data), sink)
            await sink.aclose()
            await write_end.write(b"!")  # it was given, and is left open
            write_end.close()

        writing = asyncio.ensure_future(write())
        assert await source.read_to_fill(len(data) + 1) == data + b"!"
        assert await source.read() == b""
        await writing
        await source.aclose()
        assert read_end.is_open


async def test_a_pipe_whose_reader_has_gone() -> None:
    read_end, write_end = open_pipe()
    async with write_end:
        sink = AsyncOutputStream.from_pipe(write_end)
        read_end.close()
        with pytest.raises(BrokenPipeError):
            await sink.write(b"x")
        with pytest.raises(BrokenPipeError):
            await AsyncInputStream.from_pipe(read_end).read()


async def test_a_cancelled_read_of_a_pipe_takes_nothing() -> None:
    read_end, write_end = open_pipe()
    async with read_end, write_end:
        source = AsyncInputStream.from_pipe(read_end)
        task = asyncio.ensure_future(source.read_to_fill(6))
        await write_end.write(b"abc")
        await until_waiting()
        await cancel(task)
        await write_end.write(b"def")
        assert await source.read_to_fill(6) == b"abcdef"
