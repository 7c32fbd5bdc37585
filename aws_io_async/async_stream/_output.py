"""Sinks: `AsyncOutputStream`, and the ones made from what others have."""

import asyncio
import errno
import io
import os
from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO, cast

import anyio
from anyio.abc import AnyByteSendStream, ByteSendStream

from .. import errors
from ..pipe import WriteEnd
from ._off_loop import OffLoop


class AsyncOutputStream(ByteSendStream):
    """A sink for bytes. Thread: that of the event loop; one task at a time.

    A subclass has `_write`, and `_close` where there is something to let go of.
    """

    _closed = False
    _writing = False

    @staticmethod
    async def from_path(
        path: str | os.PathLike[str], *, append: bool = False
    ) -> "AsyncOutputStream":
        """The file at `path`, emptied or to be appended to, or a new one. On worker threads.

        Raises `AwsIoError` if it cannot be opened: ERROR_FILE_INVALID_PATH, which is a
        `FileNotFoundError`, ERROR_NO_PERMISSION, which is a `PermissionError`, or another that is
        an `OSError`.
        Cancelled, it leaves no file open, but may have made or emptied it.
        """

        def opener() -> BinaryIO:
            try:
                # Each write is one call on a thread: a buffer would only put off its error.
                return open(path, "ab" if append else "wb", buffering=0)
            except OSError as exc:
                raise errors.translate(exc, str(path)) from exc

        stream = _ToFile(None, owned=True)
        await stream.open(opener)
        return stream

    @staticmethod
    def from_open_file(file: BinaryIO) -> "AsyncOutputStream":
        """Write to `file` on worker threads. It is flushed and stays open when this is closed.

        Raises `TypeError` for a file in text mode.
        """
        if isinstance(cast(object, file), io.TextIOBase):
            raise TypeError(
                "a stream writes bytes: open the file in mode 'wb', or pass its .buffer"
            )
        return _ToFile(file, owned=False)

    @staticmethod
    def from_anyio(stream: AnyByteSendStream) -> "AsyncOutputStream":
        """Send on a stream of anyio. It stays open when this one is closed."""
        return _ToAnyio(stream)

    @staticmethod
    def from_writer(writer: asyncio.StreamWriter) -> "AsyncOutputStream":
        """Write to and drain a `StreamWriter` of asyncio. It stays open when this is closed."""
        return _ToWriter(writer)

    @staticmethod
    def from_pipe(end: WriteEnd) -> "AsyncOutputStream":
        """Write into a pipe, on the loop of its `end`, which stays open when this is closed."""
        return _ToPipe(end)

    async def write(self, data: bytes | bytearray | memoryview) -> None:
        """Write all of `data`, and wait until the sink has room for more.

        Raises `anyio.ClosedResourceError` after `aclose()`, `anyio.BusyResourceError` while another
        task writes, and what the sink raises (for a file, `AwsIoError` with the file's name).
        Cancelled, all, a part or nothing of `data` is written; what is written later follows it.
        """
        if self._closed:
            raise anyio.ClosedResourceError
        if self._writing:
            raise anyio.BusyResourceError("writing to")
        if not data:
            return
        self._writing = True
        try:
            await self._write(bytes(data))
        finally:
            self._writing = False

    async def send(self, item: bytes) -> None:
        """`write` for anyio's users."""
        await self.write(item)

    async def aclose(self) -> None:
        """Let go of the sink, when no task writes. Idempotent.

        Raises `AwsIoError` if a file cannot take what was written. Cancelled, it has let go all the
        same.
        """
        if not self._closed:
            self._closed = True
            await self._close()

    @abstractmethod
    async def _write(self, data: bytes) -> None:
        """Write `data`, which is not empty, and wait until there is room for more.

        Not called while a call is under way.
        """

    async def _close(self) -> None:
        """Called once."""


class _ToFile(AsyncOutputStream):
    """A binary file, or an object that is written to like one."""

    def __init__(self, file: BinaryIO | None, *, owned: bool) -> None:
        self._file = file
        self._owned = owned
        self._off_loop = OffLoop(self._release)

    async def open(self, opener: Callable[[], BinaryIO]) -> None:
        """Have a worker thread open the file."""

        def work() -> None:
            self._file = opener()

        await self._off_loop.acquire(work)

    async def _write(self, data: bytes) -> None:
        assert self._file is not None
        await self._off_loop.run(_write_all, self._file, data)

    async def _close(self) -> None:
        await self._off_loop.aclose()

    def _release(self) -> None:
        if self._file is None:
            return
        try:
            if self._owned:
                self._file.close()
            else:
                self._file.flush()
        except OSError as exc:
            raise errors.translate(exc, _name(self._file)) from exc


def _write_all(file: BinaryIO, data: bytes) -> None:
    """A file without a buffer may take less than it is given."""
    view = memoryview(data)
    try:
        while view:
            written: int | None = file.write(view)
            if written is None:
                raise BlockingIOError(errno.EAGAIN, "the file is non-blocking and full")
            view = view[written:]
    except OSError as exc:
        raise errors.translate(exc, _name(file)) from exc


def _name(file: BinaryIO) -> str:
    return str(getattr(file, "name", file))


class _ToAnyio(AsyncOutputStream):
    """A stream of anyio, of bytes or of objects that are bytes."""

    def __init__(self, stream: AnyByteSendStream) -> None:
        self._stream = stream

    @property
    def extra_attributes(self) -> Mapping[Any, Callable[[], Any]]:
        return self._stream.extra_attributes

    async def _write(self, data: bytes) -> None:
        await self._stream.send(data)


class _ToWriter(AsyncOutputStream):
    """A `StreamWriter`."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer

    async def _write(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()


class _ToPipe(AsyncOutputStream):
    """The end of a pipe."""

    def __init__(self, end: WriteEnd) -> None:
        self._end = end

    async def _write(self, data: bytes) -> None:
        await self._end.write(data)
