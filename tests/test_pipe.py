"""Pipes: bytes, events and ends that go away, with both ends on one loop and on two."""

import asyncio
import os
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import pytest

from aws_io_async.errors import AwsIoError, ErrorCode
from aws_io_async.pipe import ReadEnd, WriteEnd, open_pipe
from tests.socket_tools import another_loop, is_open, is_watched, on, raises, turns

T = TypeVar("T")

SMALL = b"abcd"
LARGE = random.Random(4).randbytes(8 * 1024 * 1024)
BROKEN_PIPE = ErrorCode.IO_BROKEN_PIPE

OnReader = Callable[[Coroutine[Any, Any, T]], Awaitable[T]]

Event = AwsIoError | None
"""What a subscriber is told: an error, or None for "readable"."""


async def run_here(coroutine: Coroutine[Any, Any, T]) -> T:
    return await coroutine


@pytest.fixture(params=["one loop", "two loops"])
def loop_count(request: pytest.FixtureRequest) -> int:
    return 1 if request.param == "one loop" else 2


@asynccontextmanager
async def pipe(loop_count: int = 1) -> AsyncIterator[tuple[ReadEnd, WriteEnd, Any]]:
    """The ends of a pipe, the write end on this loop, and what runs coroutines on the other's."""
    if loop_count == 1:
        read_end, write_end = open_pipe()
        async with read_end, write_end:
            yield read_end, write_end, run_here
        return
    async with another_loop() as other:
        read_end, write_end = open_pipe(read_loop=other)

        async def run_there(coroutine: Coroutine[Any, Any, T]) -> T:
            return await on(other, coroutine)

        async def close() -> None:
            read_end.close()

        try:
            async with write_end:
                yield read_end, write_end, run_there
        finally:
            await run_there(close())


class Events:
    """Subscribes to a read end, and hands out what it was told. On the read end's loop."""

    def __init__(self, read_end: ReadEnd) -> None:
        self.told: asyncio.Queue[Event] = asyncio.Queue()
        self.read_end = read_end
        read_end.subscribe_to_readable_events(self._on_readable)

    def _on_readable(self, read_end: ReadEnd, error: Event) -> None:
        assert read_end is self.read_end
        assert asyncio.get_running_loop() is read_end.loop
        self.told.put_nowait(error)

    async def readable(self) -> None:
        assert await self.told.get() is None

    async def broken(self) -> None:
        error = await self.told.get()
        assert error is not None
        assert error.code is BROKEN_PIPE

    async def nothing_more(self) -> None:
        await turns()
        assert self.told.empty()


async def subscribe(read_end: ReadEnd) -> Events:
    return Events(read_end)


async def read_all(read_end: ReadEnd) -> bytes:
    data = bytearray()
    while chunk := await read_end.read():
        data += chunk
    return bytes(data)


# Opening, reading, writing


async def test_pipe_open_close(loop_count: int) -> None:
    async with pipe(loop_count) as (read_end, write_end, _):
        assert write_end.loop is asyncio.get_running_loop()
        assert (read_end.loop is write_end.loop) == (loop_count == 1)
        assert is_open(read_end)
        assert is_open(write_end)
    assert not is_open(read_end)
    assert not is_open(write_end)
    assert read_end.fileno() == write_end.fileno() == -1


async def test_pipe_read_write(loop_count: int) -> None:
    async with pipe(loop_count) as (read_end, write_end, on_reader):
        reading = asyncio.ensure_future(on_reader(read_all(read_end)))
        await write_end.write(SMALL)
        write_end.close()
        assert await reading == SMALL


async def test_pipe_read_write_large_buffer(loop_count: int) -> None:
    async with pipe(loop_count) as (read_end, write_end, on_reader):
        reading = asyncio.ensure_future(on_reader(read_all(read_end)))
        await write_end.write(LARGE)
        write_end.close()
        assert await reading == LARGE


async def test_pipe_writes_are_fifo(loop_count: int) -> None:
    async with pipe(loop_count) as (read_end, write_end, on_reader):
        size = len(LARGE) // 8
        written: list[int] = []

        async def write(number: int) -> None:
            await write_end.write(memoryview(LARGE)[number * size :][:size])
            written.append(number)

        writes = [asyncio.create_task(write(number)) for number in range(8)]
        reading = asyncio.ensure_future(on_reader(read_all(read_end)))
        await asyncio.gather(*writes)
        write_end.close()
        assert written == [*range(8)]
        assert await reading == LARGE


async def test_reads_of_each_kind() -> None:
    async with pipe() as (read_end, write_end, _):
        with raises(ErrorCode.IO_READ_WOULD_BLOCK):
            read_end.read_nowait()
        await write_end.write(b"abcdef")
        assert await read_end.read(1) == b"a"
        assert read_end.read_nowait(2) == b"bc"
        buffer = bytearray(b"........")
        assert await read_end.read_into(memoryview(buffer)[1:]) == 3
        assert buffer == b".def...."
        reading = asyncio.create_task(read_end.read_into(buffer))
        await turns()
        await write_end.write(b"")
        await turns()
        assert not reading.done()
        write_end.close()
        assert await reading == 0
        assert await read_end.read() == read_end.read_nowait() == b""


@pytest.mark.parametrize("size", [0, -1])
async def test_reads_of_nothing_are_refused(size: int) -> None:
    async with pipe() as (read_end, _, _):
        with pytest.raises(ValueError, match="at least one byte"):
            await read_end.read(size)
        with pytest.raises(ValueError, match="at least one byte"):
            read_end.read_nowait(size)
        with pytest.raises(ValueError, match="at least one byte"):
            await read_end.read_into(bytearray())


# Events


async def test_what_cannot_be_called_is_no_callback() -> None:
    nothing: Any = None
    async with pipe() as (read_end, _, _):
        with pytest.raises(TypeError, match="callback must be callable, not None"):
            read_end.subscribe_to_readable_events(nothing)


async def test_what_is_no_loop_is_refused_before_a_descriptor_is_opened() -> None:
    wrong: Any = 5
    with pytest.raises(TypeError, match="an event loop is needed, not 5"):
        open_pipe(wrong)
    with pytest.raises(TypeError, match="an event loop is needed, not 5"):
        open_pipe(write_loop=wrong)


async def test_pipe_readable_event_sent_after_write(loop_count: int) -> None:
    async with pipe(loop_count) as (read_end, write_end, on_reader):
        events = await on_reader(subscribe(read_end))
        await write_end.write(SMALL)
        await on_reader(events.readable())


async def test_pipe_readable_event_sent_once(loop_count: int) -> None:
    async with pipe(loop_count) as (read_end, write_end, on_reader):
        events = await on_reader(subscribe(read_end))
        await write_end.write(SMALL)
        await on_reader(events.readable())
        await write_end.write(SMALL)
        await on_reader(events.nothing_more())


async def test_pipe_readable_event_sent_on_subscribe_if_data_present(loop_count: int) -> None:
    async with pipe(loop_count) as (read_end, write_end, on_reader):
        await write_end.write(SMALL)
        write_end.close()
        events = await on_reader(subscribe(read_end))
        await on_reader(events.readable())
        await on_reader(events.broken())


async def test_pipe_readable_event_sent_on_resubscribe_if_data_present(loop_count: int) -> None:
    told: list[str] = []

    async def resubscribe_when_told(read_end: ReadEnd) -> None:
        again = asyncio.Event()

        def first(read_end: ReadEnd, error: Event) -> None:
            told.append("first")
            read_end.unsubscribe_from_readable_events()
            read_end.subscribe_to_readable_events(second)

        def second(read_end: ReadEnd, error: Event) -> None:
            told.append("second")
            again.set()

        read_end.subscribe_to_readable_events(first)
        await again.wait()

    async with pipe(loop_count) as (read_end, write_end, on_reader):
        await write_end.write(SMALL)
        await on_reader(resubscribe_when_told(read_end))
    assert told == ["first", "second"]


async def test_pipe_readable_event_sent_again_after_all_data_read(loop_count: int) -> None:
    async def read_now(read_end: ReadEnd) -> bytes:
        data = read_end.read_nowait()
        with raises(ErrorCode.IO_READ_WOULD_BLOCK):
            read_end.read_nowait()
        return data

    async with pipe(loop_count) as (read_end, write_end, on_reader):
        events = await on_reader(subscribe(read_end))
        for _ in range(2):
            await write_end.write(SMALL)
            await on_reader(events.readable())
            assert await on_reader(read_now(read_end)) == SMALL
            await on_reader(events.nothing_more())


async def test_pipe_error_event_sent_after_write_end_closed(loop_count: int) -> None:
    async with pipe(loop_count) as (read_end, write_end, on_reader):
        events = await on_reader(subscribe(read_end))
        write_end.close()
        await on_reader(events.broken())
        await on_reader(events.nothing_more())


async def test_pipe_error_event_sent_on_subscribe_if_write_end_already_closed(
    loop_count: int,
) -> None:
    async with pipe(loop_count) as (read_end, write_end, on_reader):
        write_end.close()
        events = await on_reader(subscribe(read_end))
        await on_reader(events.broken())
        await on_reader(events.nothing_more())


async def test_the_write_end_closes_while_data_is_unread() -> None:
    async with pipe() as (read_end, write_end, _):
        events = Events(read_end)
        await write_end.write(SMALL)
        await events.readable()
        write_end.close()
        await events.nothing_more()
        assert read_end.read_nowait() == SMALL
        await events.broken()
        assert read_end.read_nowait() == b""
        await events.nothing_more()
        assert not is_watched(read_end.fileno())


async def test_subscribing() -> None:
    async with pipe() as (read_end, write_end, _):
        with raises(ErrorCode.ERROR_IO_NOT_SUBSCRIBED):
            read_end.unsubscribe_from_readable_events()
        events = Events(read_end)
        with raises(ErrorCode.ERROR_IO_ALREADY_SUBSCRIBED):
            read_end.subscribe_to_readable_events(lambda *_: None)
        read_end.unsubscribe_from_readable_events()
        assert not is_watched(read_end.fileno())
        await write_end.write(SMALL)
        await events.nothing_more()


# Ends that go away


async def test_pipe_clean_up_cancels_pending_writes(loop_count: int) -> None:
    async with pipe(loop_count) as (read_end, write_end, on_reader):
        writes = [asyncio.create_task(write_end.write(LARGE)) for _ in range(2)]
        await turns()
        fd = write_end.fileno()
        write_end.close()
        assert not is_watched(fd)
        for write in writes:
            with raises(BROKEN_PIPE):
                await write
        written = await on_reader(read_all(read_end))
        assert 0 < len(written) < len(LARGE)
        assert LARGE.startswith(written)


async def test_the_read_end_goes_away() -> None:
    async with pipe() as (read_end, write_end, _):
        writes = [asyncio.create_task(write_end.write(LARGE)) for _ in range(2)]
        await turns()
        read_end.close()
        for write in writes:
            with raises(BROKEN_PIPE, match="the read end is closed"):
                await write
        with pytest.raises(BrokenPipeError):
            await write_end.write(SMALL)
        assert is_open(write_end)
        assert not is_watched(write_end.fileno())


async def test_close_wakes_readers_and_is_idempotent() -> None:
    async with pipe() as (read_end, _, _):
        reads = [
            asyncio.create_task(read_end.read()),
            asyncio.create_task(read_end.read_into(bytearray(1))),
        ]
        await turns()
        fd = read_end.fileno()
        for _ in range(2):
            read_end.close()
        assert not is_watched(fd)
        for read in reads:
            with raises(BROKEN_PIPE, match="this end is closed"):
                await read


async def test_a_closed_end_says_so() -> None:
    async with pipe() as (read_end, write_end, _):
        read_end.close()
        write_end.close()
        with raises(BROKEN_PIPE):
            await read_end.read()
        with raises(BROKEN_PIPE):
            read_end.read_nowait()
        with raises(BROKEN_PIPE):
            await write_end.write(b"")
        with raises(BROKEN_PIPE):
            read_end.subscribe_to_readable_events(lambda *_: None)
        with raises(BROKEN_PIPE):
            read_end.unsubscribe_from_readable_events()
        assert "closed" in repr(read_end)
        assert read_end.loop is write_end.loop is asyncio.get_running_loop()


async def test_a_subscriber_may_close_its_end() -> None:
    told = asyncio.Event()

    def close(read_end: ReadEnd, error: Event) -> None:
        assert not told.is_set()
        read_end.close()
        told.set()

    async with pipe() as (read_end, write_end, _):
        read_end.subscribe_to_readable_events(close)
        await write_end.write(SMALL)
        write_end.close()
        await told.wait()
        await turns()


# Cancellation


@pytest.mark.parametrize("later", range(6))
async def test_a_cancelled_read_loses_no_byte(later: int) -> None:
    async with pipe() as (read_end, write_end, _):
        reading = asyncio.create_task(read_end.read())
        await turns()
        await write_end.write(SMALL)
        await turns(later)
        reading.cancel()
        await asyncio.wait([reading])
        assert not is_watched(read_end.fileno())
        assert (await read_end.read() if reading.cancelled() else reading.result()) == SMALL


async def test_a_cancelled_write_leaves_the_turn_to_the_next() -> None:
    async with pipe() as (read_end, write_end, _):
        first = asyncio.create_task(write_end.write(b"1" * 1_000_000))
        second = asyncio.create_task(write_end.write(b"2"))
        third = asyncio.create_task(write_end.write(b"3"))
        await turns()
        second.cancel()
        first.cancel()
        await asyncio.wait([first, second])
        reading = asyncio.create_task(read_all(read_end))
        await third
        write_end.close()
        received = await reading
        assert received.endswith(b"13")
        assert received.count(b"1") == len(received) - 1 < 1_000_000


# Loops and threads


async def test_ends_are_used_on_their_own_loop_only() -> None:
    async with another_loop() as other:
        read_end, write_end = open_pipe(other, other)
        for operation in (read_end.read(), write_end.write(SMALL)):
            with raises(ErrorCode.ERROR_IO_EVENT_LOOP_THREAD_ONLY):
                await operation
        for misuse in (
            read_end.read_nowait,
            read_end.close,
            write_end.close,
            read_end.unsubscribe_from_readable_events,
            lambda: read_end.subscribe_to_readable_events(lambda *_: None),
        ):
            with raises(ErrorCode.ERROR_IO_EVENT_LOOP_THREAD_ONLY):
                misuse()

        async def close() -> None:
            read_end.close()
            write_end.close()

        await on(other, close())


def test_without_a_loop() -> None:
    with pytest.raises(RuntimeError, match="pass read_loop and write_loop"):
        open_pipe()


async def test_an_end_that_nobody_closes_is_reported_and_closed() -> None:
    read_end, write_end = open_pipe()
    fd = write_end.fileno()
    read_end.close()
    with pytest.warns(ResourceWarning, match=f"unclosed <WriteEnd fd={fd}>"):
        del write_end
    with pytest.raises(OSError):
        os.fstat(fd)


async def test_an_end_can_be_closed_when_its_loop_has_ended() -> None:
    ends: list[ReadEnd | WriteEnd] = []

    async def main() -> None:
        ends.extend(open_pipe())

    await asyncio.to_thread(asyncio.run, main())
    for end in ends:
        assert is_open(end)
        end.close()
        assert not is_open(end)
