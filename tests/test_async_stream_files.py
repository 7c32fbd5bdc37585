"""Files as awaited sources and sinks: on worker threads, and what a cancelled call leaves there.

A pipe stands in for a slow disk: reading it blocks the worker thread until the test writes.
"""

import asyncio
import errno
import io
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import anyio
import pytest

from aws_io_async.async_stream import AsyncInputStream, AsyncOutputStream, pump
from aws_io_async.errors import AwsIoError, CommonErrorCode, ErrorCode
from aws_io_async.stream import InputStream
from aws_io_async.testing import InputStreamTester
from tests.test_async_stream import cancel, until_waiting


class Recorded(io.BytesIO):
    """Records on which threads it was used, and holds up reads and writes until told."""

    def __init__(self, data: bytes = b"") -> None:
        super().__init__(data)
        self.threads: set[int] = set()
        self.entered = threading.Event()
        self.go_on = threading.Event()
        self.go_on.set()
        self.flushed = 0

    def _here(self) -> None:
        self.threads.add(threading.get_ident())
        self.entered.set()
        assert self.go_on.wait(10)

    def read(self, size: int | None = -1) -> bytes:
        self._here()
        return super().read(size)

    def write(self, data: object) -> int:
        self._here()
        return super().write(bytes(data)[:1000])  # type: ignore[call-overload]  # a buffer

    def flush(self) -> None:
        self.flushed += 1
        super().flush()


async def until_set(event: threading.Event) -> None:
    """Until a worker thread has set `event`."""
    assert await asyncio.to_thread(event.wait, 10)


@pytest.fixture
def pipe() -> Iterator[tuple[BinaryIO, BinaryIO]]:
    """A file that blocks who reads it until the other is written to."""
    read_end, write_end = os.pipe()
    with open(read_end, "rb", buffering=0) as reader, open(write_end, "wb", buffering=0) as writer:
        yield reader, writer


# Reading


async def test_a_path_is_read_and_closed(tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.write_bytes(bytes(range(256)) * 1000)
    async with await AsyncInputStream.from_path(path) as stream:
        assert await stream.read(3) == b"\0\1\2"
        assert await stream.read_to_fill(253) == bytes(range(3, 256))
        assert len(await stream.read_to_fill(1_000_000)) == 255_744
        assert await stream.read() == b""
    with pytest.raises(anyio.ClosedResourceError):
        await stream.read()


async def test_a_path_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere") as caught:
        await AsyncInputStream.from_path(tmp_path / "nowhere")
    assert isinstance(caught.value, AwsIoError)
    assert caught.value.code is CommonErrorCode.ERROR_FILE_INVALID_PATH
    with pytest.raises(FileNotFoundError, match="nowhere"):
        await AsyncOutputStream.from_path(tmp_path / "nowhere" / "file")


async def test_the_loops_thread_does_not_touch_the_file() -> None:
    file = Recorded(b"data")
    async with AsyncInputStream.from_open_file(file) as stream:
        assert await stream.read() == b"data"
    async with AsyncOutputStream.from_open_file(file) as sink:
        await sink.write(b"data")
    assert file.threads
    assert threading.get_ident() not in file.threads
    assert not file.closed


async def test_the_loop_goes_on_while_a_file_is_read(pipe: tuple[BinaryIO, BinaryIO]) -> None:
    reader, writer = pipe
    stream = AsyncInputStream.from_open_file(reader)
    reading = asyncio.create_task(stream.read())
    await asyncio.sleep(0)
    writer.write(b"data")  # by this thread, which a blocking read would keep from it
    assert await reading == b"data"


async def test_files_in_text_mode_are_refused(tmp_path: Path) -> None:
    with (tmp_path / "text").open("w+") as file:
        with pytest.raises(TypeError, match="'rb'"):
            AsyncInputStream.from_open_file(file)  # type: ignore[arg-type]  # the mistake
        with pytest.raises(TypeError, match="'wb'"):
            AsyncOutputStream.from_open_file(file)  # type: ignore[arg-type]  # the mistake


async def test_a_file_that_fails_is_named(tmp_path: Path) -> None:
    path = tmp_path / "write-only"
    with path.open("wb") as file:
        stream = AsyncInputStream.from_open_file(file)
        with pytest.raises(AwsIoError, match="write-only") as caught:
            await stream.read()
        assert caught.value.code is ErrorCode.IO_STREAM_READ_FAILED
        with pytest.raises(AwsIoError):
            await stream.read()


# A read that was cancelled


async def test_the_bytes_of_a_cancelled_read_are_there_for_the_next() -> None:
    file = Recorded(b"0123456789")
    stream = AsyncInputStream.from_open_file(file)
    file.go_on.clear()
    reading = asyncio.create_task(stream.read(3))
    await until_set(file.entered)
    await cancel(reading)
    waiting = asyncio.create_task(stream.read(1))  # behind the thread of the first
    await until_waiting()
    await cancel(waiting)
    again = asyncio.create_task(stream.read(2))
    await until_waiting()
    file.go_on.set()
    assert await again == b"01"
    assert await stream.read_to_fill(100) == b"23456789"
    await stream.aclose()


async def test_a_fill_that_was_cancelled_in_a_thread_loses_nothing(
    pipe: tuple[BinaryIO, BinaryIO],
) -> None:
    reader, writer = pipe
    stream = AsyncInputStream.from_open_file(reader)
    writer.write(b"abc")
    assert await stream.read(1) == b"a"
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(stream.read_to_fill(5), 0.05)
    writer.write(b"def")
    assert await stream.read_to_fill(5) == b"bcdef"
    await stream.aclose()


class Slow(InputStreamTester):
    """A file on a slow disk. `go_on` lets its opening and its reading return."""

    def __init__(self) -> None:
        super().__init__(b"data")
        self.entered = threading.Event()
        self.go_on = threading.Event()
        self.gone = threading.Event()

    def opened(self, path: object) -> "Slow":
        self._read(0)
        return self

    def _read(self, size: int) -> bytes:
        self.entered.set()
        assert self.go_on.wait(10)
        return super()._read(size)

    def _close(self) -> None:
        self.gone.set()


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Slow:
    """What `AsyncInputStream.from_path` opens."""
    slow = Slow()
    monkeypatch.setattr(InputStream, "from_path", slow.opened)
    return slow


async def cancelled_read(slow: Slow) -> AsyncInputStream:
    """A stream of `slow`, in which a cancelled read has left its thread."""
    slow.go_on.set()
    stream = await AsyncInputStream.from_path("slow")
    slow.go_on.clear()
    slow.entered.clear()
    reading = asyncio.create_task(stream.read())
    await until_set(slow.entered)
    await cancel(reading)
    return stream


async def test_a_cancelled_open_closes_what_it_opens(slow: Slow) -> None:
    opening = asyncio.create_task(AsyncInputStream.from_path("slow"))
    await until_set(slow.entered)
    await cancel(opening)
    assert not slow.gone.is_set()
    slow.go_on.set()
    await until_set(slow.gone)


async def test_an_open_that_fails_has_nothing_to_close(
    slow: Slow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slow, "_read", lambda size: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        await AsyncInputStream.from_path("slow")
    assert not slow.gone.is_set()


async def test_closing_waits_for_the_thread_of_a_cancelled_read(slow: Slow) -> None:
    stream = await cancelled_read(slow)
    closing = asyncio.create_task(stream.aclose())
    await until_waiting()
    assert not closing.done()
    assert not slow.gone.is_set()
    slow.go_on.set()
    await closing
    assert slow.gone.is_set()


async def test_a_cancelled_close_closes_when_the_thread_is_done(slow: Slow) -> None:
    stream = await cancelled_read(slow)
    closing = asyncio.create_task(stream.aclose())
    await until_waiting()
    await cancel(closing)
    assert not slow.gone.is_set()
    slow.go_on.set()
    await until_set(slow.gone)


async def test_a_close_for_which_no_thread_was_free_closes_at_once(slow: Slow) -> None:
    slow.go_on.set()
    stream = await AsyncInputStream.from_path("slow")
    limiter = anyio.to_thread.current_default_thread_limiter()
    holders = [object() for _ in range(int(limiter.total_tokens))]
    for holder in holders:
        await limiter.acquire_on_behalf_of(holder)
    closing = asyncio.create_task(stream.aclose())
    await until_waiting()
    assert not slow.gone.is_set()
    await cancel(closing)
    assert slow.gone.is_set()
    for holder in holders:
        limiter.release_on_behalf_of(holder)


async def test_a_cancel_scope_waits_for_the_thread(slow: Slow) -> None:
    slow.go_on.set()
    stream = await AsyncInputStream.from_path("slow")
    slow.go_on.clear()
    slow.entered.clear()
    async with anyio.create_task_group() as group:
        group.start_soon(stream.read)
        await until_set(slow.entered)
        group.cancel_scope.cancel()
        slow.go_on.set()
    assert await stream.read() == b""
    await stream.aclose()


# Writing


async def test_a_path_is_written_appended_to_and_closed(tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.write_bytes(b"old")
    async with await AsyncOutputStream.from_path(path) as sink:
        await sink.write(b"new")
        await sink.write(memoryview(b" and more"))
        assert path.read_bytes() == b"new and more"
    async with await AsyncOutputStream.from_path(path, append=True) as sink:
        await sink.write(bytearray(b"!"))
    assert path.read_bytes() == b"new and more!"


async def test_a_file_that_takes_less_gets_the_rest() -> None:
    file = Recorded()
    data = os.urandom(3500)
    async with AsyncOutputStream.from_open_file(file) as sink:
        await sink.write(data)
    assert file.getvalue() == data
    assert file.flushed


async def test_what_is_written_after_a_cancelled_write_follows_it() -> None:
    file = Recorded()
    sink = await with_a_cancelled_write(file)
    again = asyncio.create_task(sink.write(b"second"))
    await asyncio.sleep(0)
    file.go_on.set()
    await again
    assert file.getvalue() == b"first second"
    await sink.aclose()


async def with_a_cancelled_write(file: Recorded) -> AsyncOutputStream:
    """A sink of `file`: a write that was cancelled in its thread is there until it may go on."""
    sink = AsyncOutputStream.from_open_file(file)
    file.go_on.clear()
    writing = asyncio.create_task(sink.write(b"first "))
    await until_set(file.entered)
    await cancel(writing)
    return sink


async def behind_a_cancelled_write(file: Recorded) -> AsyncOutputStream:
    """A sink of `file`: one cancelled write is in its thread, and another waits behind it."""
    sink = await with_a_cancelled_write(file)
    waiting = asyncio.create_task(sink.write(b"never"))
    await until_waiting()
    await anyio.to_thread.run_sync(int)  # meanwhile its thread has begun to wait
    await cancel(waiting)
    return sink


@pytest.mark.parametrize("times", range(5))  # whose turn it is, chance decides
async def test_a_write_that_was_cancelled_before_it_began_is_not_made(times: int) -> None:
    file = Recorded()
    sink = await behind_a_cancelled_write(file)
    again = asyncio.create_task(sink.write(b"second"))
    await until_waiting()
    file.go_on.set()
    await again
    await sink.aclose()
    assert file.getvalue() == b"first second"


@pytest.mark.parametrize("times", range(5))
async def test_nothing_is_written_after_the_close(times: int) -> None:
    file = Recorded()
    sink = await behind_a_cancelled_write(file)
    closing = asyncio.create_task(sink.aclose())
    await until_waiting()
    file.go_on.set()
    await closing
    assert file.getvalue() == b"first "
    assert file.flushed


needs_full_device = pytest.mark.skipif(not os.path.exists("/dev/full"), reason="not on this system")


@pytest.fixture
def full() -> Iterator[BinaryIO]:
    file = open("/dev/full", "wb")  # noqa: SIM115  # closing it properly fails
    yield file
    file.raw.close()


@needs_full_device
async def test_a_full_disk_is_named() -> None:
    async with await AsyncOutputStream.from_path("/dev/full") as sink:
        with pytest.raises(OSError, match="/dev/full") as caught:
            await sink.write(b"data")
        assert isinstance(caught.value, AwsIoError)
        assert caught.value.code is CommonErrorCode.ERROR_NO_SPACE
        assert caught.value.errno == errno.ENOSPC


@needs_full_device
async def test_closing_says_if_a_given_file_cannot_be_flushed(full: BinaryIO) -> None:
    sink = AsyncOutputStream.from_open_file(full)
    await sink.write(b"data")  # into the file's buffer
    with pytest.raises(OSError, match="/dev/full") as caught:
        await sink.aclose()
    assert isinstance(caught.value, AwsIoError)
    assert not full.closed


async def test_a_pipe_that_is_full_and_does_not_block_says_so(
    pipe: tuple[BinaryIO, BinaryIO],
) -> None:
    _, writer = pipe
    os.set_blocking(writer.fileno(), False)
    sink = AsyncOutputStream.from_open_file(writer)
    with pytest.raises(BlockingIOError, match="non-blocking"):
        await sink.write(bytes(1 << 20))


# Both


async def test_files_are_copied(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(os.urandom(1_000_000))
    async with (
        await AsyncInputStream.from_path(source) as reading,
        await AsyncOutputStream.from_path(target) as writing,
    ):
        assert await pump(reading, writing) == 1_000_000
    assert target.read_bytes() == source.read_bytes()
