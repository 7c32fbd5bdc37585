"""Reading from pipes and writing to them."""

import asyncio
import gc
import logging
import socket
import weakref
from typing import Any

import pytest

from tests.pipe_ends import BIG, Recorder, open_pipe, read_from, write_to

# Reading


async def test_data_then_end_of_file_then_connection_lost() -> None:
    reading, writing = open_pipe()
    transport, protocol = await read_from(reading)
    assert transport.get_extra_info("pipe") is reading
    assert transport.get_protocol() is protocol
    writing.write(b"one")
    assert await protocol.received(3) == b"one"
    writing.write(b"two")
    assert await protocol.received(6) == b"onetwo"
    writing.close()
    await protocol.closed
    await asyncio.sleep(0)
    assert protocol.events == ["made", "data", "data", "eof", "lost"]
    assert protocol.lost_with is None
    assert transport.is_closing()
    assert reading.closed


@pytest.mark.loops("aws_io_async", "asyncio")  # it does not hold in uvloop
async def test_pause_reading_in_connection_made_holds() -> None:
    class Paused(Recorder):
        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            transport.pause_reading()

    reading, writing = open_pipe()
    other_reading, other_writing = open_pipe()
    writing.write(b"early")
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.connect_read_pipe(Paused, reading)
    other, other_protocol = await read_from(other_reading)
    for count in range(1, 4):  # the other pipe has been polled: so has this one
        other_writing.write(b".")
        await other_protocol.received(count)
    assert protocol.data == b""
    transport.resume_reading()
    assert await protocol.received(5) == b"early"
    transport.pause_reading()
    writing.write(b" late")
    other_writing.write(b"!")
    await other_protocol.received(4)
    assert protocol.data == b"early"
    transport.resume_reading()
    assert await protocol.received(10) == b"early late"
    for end in (transport, other):
        end.close()
    await protocol.closed
    await other_protocol.closed
    writing.close()
    other_writing.close()


@pytest.mark.loops("aws_io_async", "asyncio")  # uvloop raises on a second pause or resume
async def test_pausing_twice_is_harmless_and_is_reading_tells() -> None:
    reading, writing = open_pipe()
    transport, protocol = await read_from(reading)
    assert transport.is_reading()
    transport.pause_reading()
    transport.pause_reading()
    assert not transport.is_reading()
    transport.resume_reading()
    transport.resume_reading()
    assert transport.is_reading()
    writing.write(b"x")
    await protocol.received(1)
    transport.close()
    assert not transport.is_reading()
    transport.pause_reading()
    transport.resume_reading()
    await protocol.closed
    assert protocol.events == ["made", "data", "lost"]
    writing.close()


@pytest.mark.loops("aws_io_async")  # asyncio's read pipes know no BufferedProtocol
async def test_buffered_protocol_reads_into_its_own_buffer() -> None:
    class Buffered(asyncio.BufferedProtocol):
        def __init__(self) -> None:
            self.buffer = bytearray(4)
            self.pieces: list[bytes] = []
            self.closed = asyncio.get_running_loop().create_future()

        def get_buffer(self, sizehint: int) -> bytearray:
            return self.buffer

        def buffer_updated(self, nbytes: int) -> None:
            self.pieces.append(bytes(self.buffer[:nbytes]))

        def eof_received(self) -> None:
            self.pieces.append(b"eof")

        def connection_lost(self, exc: BaseException | None) -> None:
            self.closed.set_result(exc)

    reading, writing = open_pipe()
    loop = asyncio.get_running_loop()
    _, protocol = await loop.connect_read_pipe(Buffered, reading)
    writing.write(b"abcdefgh!")
    writing.close()
    assert await protocol.closed is None
    assert protocol.pieces == [b"abcd", b"efgh", b"!", b"eof"]


@pytest.mark.loops("aws_io_async")
@pytest.mark.parametrize("buffer", [None, bytearray()])
async def test_no_buffer_to_read_into_ends_the_transport(buffer: bytearray | None) -> None:
    class Broken(asyncio.BufferedProtocol):
        def __init__(self) -> None:
            self.closed = asyncio.get_running_loop().create_future()

        def get_buffer(self, sizehint: int) -> bytearray:
            if buffer is None:
                raise ZeroDivisionError
            return buffer

        def connection_lost(self, exc: BaseException | None) -> None:
            self.closed.set_result(exc)

    loop = asyncio.get_running_loop()
    reported: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: reported.append(context))
    reading, writing = open_pipe()
    _, protocol = await loop.connect_read_pipe(Broken, reading)
    writing.write(b"x")
    exc = await protocol.closed
    assert isinstance(exc, ZeroDivisionError if buffer is None else RuntimeError)
    assert [context["exception"] for context in reported] == [exc]
    writing.close()


async def test_set_protocol_takes_over_the_data() -> None:
    reading, writing = open_pipe()
    transport, first = await read_from(reading)
    writing.write(b"first")
    await first.received(5)
    second = Recorder()
    transport.set_protocol(second)
    assert transport.get_protocol() is second
    writing.write(b"second")
    assert await second.received(6) == b"second"
    transport.close()
    await second.closed
    assert first.data == b"first"
    assert "lost" not in first.events
    writing.close()


@pytest.mark.loops("aws_io_async")  # asyncio's set_protocol changes no way of reading
async def test_set_protocol_changes_the_way_of_reading() -> None:
    class Buffered(asyncio.BufferedProtocol):
        def __init__(self) -> None:
            self.buffer = bytearray(16)
            self.read = asyncio.get_running_loop().create_future()

        def get_buffer(self, sizehint: int) -> bytearray:
            return self.buffer

        def buffer_updated(self, nbytes: int) -> None:
            self.read.set_result(bytes(self.buffer[:nbytes]))

    reading, writing = open_pipe()
    transport, recorder = await read_from(reading)
    writing.write(b"one")
    await recorder.received(3)
    buffered = Buffered()
    transport.set_protocol(buffered)
    writing.write(b"two")
    assert await buffered.read == b"two"
    transport.set_protocol(recorder)
    writing.write(b"three")
    assert await recorder.received(8) == b"onethree"
    transport.close()
    await recorder.closed
    writing.close()


# Writing


async def test_what_is_written_arrives_and_close_is_the_end_of_file() -> None:
    reading, writing = open_pipe()
    transport, protocol = await write_to(writing)
    assert transport.get_extra_info("pipe") is writing
    assert transport.can_write_eof()
    transport.write(b"bytes ")
    transport.write(bytearray(b"bytearray "))
    transport.write(memoryview(b"memoryview "))
    transport.write(b"")
    transport.writelines([b"and ", b"lines"])
    transport.close()
    assert transport.is_closing()
    await protocol.closed
    assert reading.readall() == b"bytes bytearray memoryview and lines"
    assert protocol.lost_with is None
    assert writing.closed
    reading.close()


@pytest.mark.loops("aws_io_async")  # asyncio counts the elements, uvloop refuses
async def test_memoryviews_of_other_shapes_are_written_whole() -> None:
    reading, writing = open_pipe()
    transport, protocol = await write_to(writing)
    transport.write(memoryview(b"abcdefgh").cast("B", (2, 4)))
    transport.write(memoryview(b"ijklmnop").cast("I"))
    transport.write(memoryview(b"q_r_s_")[::2])
    transport.close()
    await protocol.closed
    assert reading.readall() == b"abcdefghijklmnopqrs"
    reading.close()


@pytest.mark.loops("aws_io_async", "asyncio")  # uvloop keeps the buffer that was given to it
async def test_backlog_pauses_the_writer_is_a_copy_and_drains_in_order() -> None:
    reading, writing = open_pipe()
    transport, protocol = await write_to(writing)
    transport.set_write_buffer_limits(high=1000, low=100)
    assert transport.get_write_buffer_limits() == (100, 1000)
    data = bytearray(BIG)
    transport.write(data)
    data[:] = bytes(len(data))
    transport.write(b"the end")
    assert transport.get_write_buffer_size() > 1000
    assert protocol.events == ["made", "pause"]

    reader, received = await read_from(reading)
    await protocol.until(lambda: "resume" in protocol.events)
    assert transport.get_write_buffer_size() <= 100
    await received.received(len(BIG) + 7)
    assert received.data == BIG + b"the end"
    assert transport.get_write_buffer_size() == 0
    assert protocol.events == ["made", "pause", "resume"]
    transport.close()
    await received.closed
    await protocol.closed
    assert reader.is_closing()


async def check_that_closing_writes_the_backlog_first(method: str) -> None:
    reading, writing = open_pipe()
    transport, protocol = await write_to(writing)
    transport.write(BIG)
    getattr(transport, method)()
    assert "lost" not in protocol.events
    reader, received = await read_from(reading)
    await received.closed
    await protocol.closed
    assert received.data == BIG
    assert protocol.lost_with is None
    assert reader.is_closing()
    assert writing.closed


async def test_close_writes_the_backlog_first() -> None:
    await check_that_closing_writes_the_backlog_first("close")


@pytest.mark.loops("aws_io_async", "asyncio")  # uvloop can end sockets only
async def test_write_eof_writes_the_backlog_first() -> None:
    await check_that_closing_writes_the_backlog_first("write_eof")


async def test_abort_drops_the_backlog() -> None:
    reading, writing = open_pipe()
    transport, protocol = await write_to(writing)
    transport.write(BIG)
    transport.abort()
    await protocol.closed
    assert protocol.lost_with is None
    assert 0 < len(reading.readall()) < len(BIG)
    assert transport.get_write_buffer_size() == 0
    reading.close()


@pytest.mark.loops("aws_io_async", "asyncio")  # uvloop raises after write_eof()
async def test_writes_after_closing_are_dropped_and_at_last_warned_of(
    caplog: pytest.LogCaptureFixture,
) -> None:
    reading, writing = open_pipe()
    transport, protocol = await write_to(writing)
    transport.close()
    for _ in range(5):
        transport.write(b"lost")
    assert caplog.records == []
    transport.write(b"lost")
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    await protocol.closed
    assert reading.readall() == b""
    reading.close()


@pytest.mark.loops("aws_io_async", "uvloop")  # an assertion in asyncio
@pytest.mark.parametrize("data", ["text", 7])
async def test_only_bytes_can_be_written(data: Any) -> None:
    reading, writing = open_pipe()
    transport, protocol = await write_to(writing)
    with pytest.raises(TypeError):
        transport.write(data)
    transport.close()
    await protocol.closed
    reading.close()


@pytest.mark.parametrize(("high", "low"), [(10, 20), (-1, None), (5, -1)])
async def test_impossible_limits(high: int, low: int | None) -> None:
    reading, writing = open_pipe()
    transport, protocol = await write_to(writing)
    with pytest.raises(ValueError):
        transport.set_write_buffer_limits(high, low)
    transport.close()
    await protocol.closed
    reading.close()


async def test_reader_that_goes_away_is_noticed_without_a_write() -> None:
    reading, writing = open_pipe()
    transport, protocol = await write_to(writing)
    reading.close()
    await protocol.closed
    assert protocol.lost_with is None
    assert transport.is_closing()
    assert writing.closed


@pytest.mark.loops("aws_io_async", "asyncio")  # uvloop says None
async def test_reader_that_goes_away_breaks_the_backlog() -> None:
    reading, writing = open_pipe()
    transport, protocol = await write_to(writing)
    transport.write(BIG)
    reading.close()
    await protocol.closed
    assert isinstance(protocol.lost_with, BrokenPipeError)
    assert transport.get_write_buffer_size() == 0


async def test_other_end_of_a_socket_is_noticed_too() -> None:
    ours, theirs = socket.socketpair()
    transport, protocol = await write_to(ours)
    transport.write(b"hello")
    assert theirs.recv(10) == b"hello"
    theirs.close()
    await protocol.closed
    assert transport.is_closing()


async def test_streams_over_pipes() -> None:
    loop = asyncio.get_running_loop()
    reading, writing = open_pipe()
    reader = asyncio.StreamReader(limit=1024)
    reader_transport, _ = await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), reading
    )
    transport, protocol = await loop.connect_write_pipe(
        lambda: asyncio.StreamReaderProtocol(asyncio.StreamReader()), writing
    )
    writer = asyncio.StreamWriter(transport, protocol, None, loop)

    async def write() -> None:
        for number in range(20_000):
            writer.write(b"line %d\n" % number)
            await writer.drain()
        writer.close()
        await writer.wait_closed()

    task = asyncio.create_task(write())
    lines = [line async for line in reader]
    await task
    assert lines == [b"line %d\n" % number for number in range(20_000)]
    reader_transport.close()
    await asyncio.sleep(0)


@pytest.mark.loops("aws_io_async", "asyncio")
@pytest.mark.parametrize("which", ["read", "write"])
async def test_a_closed_transport_is_gone_without_the_garbage_collector(which: str) -> None:
    ends = open_pipe()
    connect, end = (read_from, ends[0]) if which == "read" else (write_to, ends[1])
    transport, protocol = await connect(end)
    if which == "write":
        transport.set_write_buffer_limits(high=10)
    left = weakref.ref(transport), weakref.ref(protocol)
    gc.disable()
    try:
        transport.close()
        await protocol.closed
        del transport, protocol
        await asyncio.sleep(0)
        assert [ref() for ref in left] == [None, None]
    finally:
        gc.enable()
        for each in ends:
            each.close()
