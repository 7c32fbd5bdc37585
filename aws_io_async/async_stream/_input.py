"""Sources: `AsyncInputStream`, and the ones made from what others have."""

import asyncio
import os
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, BinaryIO

import anyio
from anyio.abc import AnyByteReceiveStream, ByteReceiveStream

from .. import errors
from ..errors import ErrorCode
from ..pipe import ReadEnd
from ..stream import InputStream
from ._off_loop import OffLoop

DEFAULT_READ_SIZE = 64 * 1024

_ASK_AGAIN_AFTER = 0.01
"""Seconds. An `InputStream` that has nothing now cannot say when it will have something."""


class AsyncInputStream(ByteReceiveStream):
    """A source of bytes. Thread: that of the event loop; one task at a time.

    A subclass has `_read`, and `_close` where there is something to let go of.
    """

    _unread = b""
    _ended = False
    _closed = False
    _reading = False

    @staticmethod
    def from_bytes(data: bytes | bytearray | memoryview) -> "AsyncInputStream":
        """The bytes of `data`, which is not copied: it must not change meanwhile."""
        return _FromStream(InputStream.from_bytes(data), owned=True)

    @staticmethod
    def from_stream(stream: InputStream) -> "AsyncInputStream":
        """What `stream` has from its position on; read on a worker thread if `stream.blocks`.

        Nobody else may use `stream` until this one is closed; it stays open then.
        """
        return _FromStream(stream, owned=False)

    @staticmethod
    async def from_path(path: str | os.PathLike[str]) -> "AsyncInputStream":
        """The file at `path`, opened, read and closed on worker threads.

        Raises `AwsIoError` as `InputStream.from_path` does if it cannot be opened.
        Cancelled, it leaves no file open.
        """
        stream = _FromStream(None, owned=True)
        await stream.open(lambda: InputStream.from_path(path))
        return stream

    @staticmethod
    def from_open_file(file: BinaryIO) -> "AsyncInputStream":
        """What `file` has from its position on, read on worker threads. It stays open.

        Raises `TypeError` for a file in text mode.
        """
        return _FromStream(InputStream.from_open_file(file), owned=True)

    @staticmethod
    def from_anyio(stream: AnyByteReceiveStream) -> "AsyncInputStream":
        """What a stream of anyio receives. It stays open when this one is closed."""
        return _FromAnyio(stream)

    @staticmethod
    def from_reader(reader: asyncio.StreamReader) -> "AsyncInputStream":
        """What a `StreamReader` of asyncio reads."""
        return _FromReader(reader)

    @staticmethod
    def from_pipe(end: ReadEnd) -> "AsyncInputStream":
        """What comes out of a pipe, on the loop of its `end`, which stays open."""
        return _FromPipe(end)

    async def read(self, max_bytes: int = DEFAULT_READ_SIZE) -> bytes:
        """Between 1 and `max_bytes` bytes, as soon as there are some; none at the end.

        Raises `anyio.ClosedResourceError` after `aclose()`, `anyio.BusyResourceError` while another
        task reads, `ValueError` if `max_bytes` is not positive, and what the source raises
        (`AwsIoError` IO_STREAM_READ_FAILED for a file). Cancelled, it has taken no bytes.
        """
        with self._reader(max_bytes):
            if self._unread:
                data = self._unread
            elif self._ended:
                data = b""
            else:
                data = await self._read(max_bytes)
                self._ended = not data
            self._unread = data[max_bytes:]
            return data[:max_bytes]

    async def read_to_fill(self, size: int) -> bytes:
        """Exactly `size` bytes, or, when the stream ends before that, those that were left.

        Raises as `read` does. Cancelled or failed, it has taken no bytes: what had arrived is there
        for the next read.
        """
        with self._reader(size):
            filled = bytearray(self._unread)
            self._unread = b""
            try:
                while len(filled) < size and not self._ended:
                    data = await self._read(size - len(filled))
                    self._ended = not data
                    filled += data
            except BaseException:
                self._unread = bytes(filled)
                raise
            self._unread = bytes(filled[size:])
            del filled[size:]
            return bytes(filled)

    async def receive(self, max_bytes: int = DEFAULT_READ_SIZE) -> bytes:
        """`read` for anyio's users: raises `anyio.EndOfStream` at the end."""
        data = await self.read(max_bytes)
        if not data:
            raise anyio.EndOfStream
        return data

    async def aclose(self) -> None:
        """Let go of the source, when no task reads. Idempotent.

        Cancelled, it has let go all the same.
        """
        if not self._closed:
            self._closed = True
            self._unread = b""
            await self._close()

    @abstractmethod
    async def _read(self, max_bytes: int) -> bytes:
        """Wait for bytes; none at the end. What exceeds `max_bytes` is kept for the next read.

        Not called while a call is under way, nor after the end. Cancelled, it must lose no bytes.
        """

    async def _close(self) -> None:
        """Called once."""

    @contextmanager
    def _reader(self, size: int) -> Iterator[None]:
        """What reading asks for, and the mark that one task does."""
        if size < 1:
            raise ValueError(f"{size} bytes asked for: there must be room for one at least")
        if self._closed:
            raise anyio.ClosedResourceError
        if self._reading:
            raise anyio.BusyResourceError("reading from")
        self._reading = True
        try:
            yield
        finally:
            self._reading = False


class _FromStream(AsyncInputStream):
    """An `InputStream`.

    A worker thread puts what it has read into `_fetched`, and only if that is empty; the loop's
    thread takes it from there. So the bytes of a read whose task was cancelled wait for the next.
    """

    def __init__(self, source: InputStream | None, *, owned: bool) -> None:
        self._source = source
        self._owned = owned
        self._fetched = b""
        self._source_ended = False
        self._off_loop = OffLoop(self._release)

    async def open(self, opener: Callable[[], InputStream]) -> None:
        """Have a worker thread open the source."""

        def work() -> None:
            self._source = opener()

        await self._off_loop.acquire(work)

    async def _read(self, max_bytes: int) -> bytes:
        assert self._source is not None
        while True:
            if self._source.blocks:
                await self._off_loop.run(self._fetch, self._source, max_bytes)
            else:
                self._fetch(self._source, max_bytes)
            data, self._fetched = self._fetched, b""
            if data or self._source_ended:
                return data
            await anyio.sleep(_ASK_AGAIN_AFTER)

    def _fetch(self, source: InputStream, max_bytes: int) -> None:
        if self._fetched:
            return
        self._fetched = source.read(max_bytes)
        status = source.get_status()
        self._source_ended = status.is_end_of_stream
        if not status.is_valid:
            raise errors.make(ErrorCode.IO_STREAM_READ_FAILED, "an earlier read failed")

    async def _close(self) -> None:
        if self._source is not None and self._source.blocks:
            await self._off_loop.aclose()
        else:
            self._off_loop.abandon()

    def _release(self) -> None:
        if self._owned and self._source is not None:
            self._source.close()


class _FromAnyio(AsyncInputStream):
    """A stream of anyio, of bytes or of objects that are bytes."""

    def __init__(self, stream: AnyByteReceiveStream) -> None:
        self._stream = stream

    @property
    def extra_attributes(self) -> Mapping[Any, Callable[[], Any]]:
        return self._stream.extra_attributes

    async def _read(self, max_bytes: int) -> bytes:
        try:
            while True:
                if isinstance(self._stream, ByteReceiveStream):
                    data = await self._stream.receive(max_bytes)
                else:
                    data = await self._stream.receive()
                if data:
                    return data
        except anyio.EndOfStream:
            return b""


class _FromReader(AsyncInputStream):
    """A `StreamReader`."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self._reader_of_asyncio = reader

    async def _read(self, max_bytes: int) -> bytes:
        return await self._reader_of_asyncio.read(max_bytes)


class _FromPipe(AsyncInputStream):
    """The end of a pipe."""

    def __init__(self, end: ReadEnd) -> None:
        self._end = end

    async def _read(self, max_bytes: int) -> bytes:
        return await self._end.read(max_bytes)
