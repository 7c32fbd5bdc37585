"""Pipes: bytes from one end to the other within a process, or across loops and threads.

Each end belongs to a loop, which may be any asyncio loop, and is used on that loop's thread only:
elsewhere, operations raise ERROR_IO_EVENT_LOOP_THREAD_ONLY. An end that is closed, or whose other
end is, raises IO_BROKEN_PIPE.

Source: aws-c-io, `aws/io/pipe.h`.
"""

import asyncio
import os
import warnings
from collections.abc import Callable
from typing import Self

from . import errors
from ._loop_io import LoopIo, ReadEvent, check_callback, check_loop
from .errors import AwsIoError, ErrorCode
from .event_loop._socket_tools import Buffer, checked

__all__ = ["ReadEnd", "WriteEnd", "open_pipe"]

READ_SIZE = 64 * 1024
"""Bytes that a read takes at most by default: what a pipe holds."""

ReadableCallback = Callable[["ReadEnd", AwsIoError | None], object]


def open_pipe(
    read_loop: asyncio.AbstractEventLoop | None = None,
    write_loop: asyncio.AbstractEventLoop | None = None,
) -> tuple["ReadEnd", "WriteEnd"]:
    """A new pipe, an end on each loop; by default both on the running one. Any thread.

    Raises RuntimeError if a loop is left out where none runs, TypeError for what is no loop,
    ERROR_MAX_FDS_EXCEEDED.
    """
    if read_loop is None or write_loop is None:
        try:
            running = asyncio.get_running_loop()
        except RuntimeError:
            message = "no loop is running here: pass read_loop and write_loop"
            raise RuntimeError(message) from None
        read_loop, write_loop = read_loop or running, write_loop or running
    check_loop(read_loop)
    check_loop(write_loop)
    try:
        read_fd, write_fd = os.pipe()
    except OSError as exc:
        raise errors.translate(exc, "open a pipe") from exc
    return ReadEnd(read_fd, read_loop), WriteEnd(write_fd, write_loop)


class _End:
    """What both ends have. Made by `open_pipe`; takes over the descriptor."""

    def __init__(self, fd: int, loop: asyncio.AbstractEventLoop) -> None:
        os.set_blocking(fd, False)
        self._fd = fd
        self._loop = loop
        self._io = LoopIo(fd, self)
        self._io.assign(loop)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {f'fd={self._fd}' if self.is_open else 'closed'}>"

    def __del__(self) -> None:
        if getattr(self, "_fd", -1) >= 0:
            warnings.warn(f"unclosed {self!r}", ResourceWarning, source=self)
            os.close(self._fd)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self.close()

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop that it belongs to. Any thread."""
        return self._loop

    @property
    def is_open(self) -> bool:
        """Whether it has not been closed. Any thread."""
        return self._fd >= 0

    def fileno(self) -> int:
        """Its descriptor; -1 when it is closed. Any thread."""
        return self._fd

    def close(self) -> None:
        """Close it; idempotent. Whoever waits for it gets IO_BROKEN_PIPE.

        On its loop's thread, or on any while that loop does not run. What was written can still
        be read.
        """
        if not self.is_open:
            return
        self._io.require_loop_or_idle()
        fd, self._fd = self._fd, -1
        self._io.close()
        os.close(fd)

    def _require_open(self) -> None:
        if not self.is_open:
            raise self._broken("this end is closed")

    def _broken(self, why: str) -> AwsIoError:
        return errors.make(ErrorCode.IO_BROKEN_PIPE, f"{why}: {self!r}")


class ReadEnd(_End):
    """The end of a pipe that bytes come out of. `async with` closes it."""

    async def read(self, max_bytes: int = READ_SIZE) -> bytes:
        """Up to `max_bytes` bytes, as soon as there are some.

        b"" once the write end is closed and all is read. Raises IO_BROKEN_PIPE if this end is
        closed. Cancellation loses no data.
        """
        return await self._io.read(lambda: self._read(max_bytes))

    async def read_into(self, buffer: bytearray | memoryview) -> int:
        """Read into `buffer`, and say how many bytes there were. Otherwise like `read`."""
        _check_size(memoryview(buffer).nbytes)
        return await self._io.read(lambda: self._read_into(buffer))

    def read_nowait(self, max_bytes: int = READ_SIZE) -> bytes:
        """What there is now. Raises IO_READ_WOULD_BLOCK if that is nothing; otherwise like `read`.

        `subscribe_to_readable_events` tells when to read again.
        """
        try:
            return self._io.read_now(lambda: self._read(max_bytes))
        except BlockingIOError as exc:
            raise errors.make(ErrorCode.IO_READ_WOULD_BLOCK, repr(self)) from exc

    def _read(self, max_bytes: int) -> bytes:
        _check_size(max_bytes)
        self._require_open()
        return os.read(self._fd, max_bytes)

    def _read_into(self, buffer: bytearray | memoryview) -> int:
        self._require_open()
        return os.readv(self._fd, [buffer])

    def subscribe_to_readable_events(self, callback: ReadableCallback) -> None:
        """Have `callback(read_end, None)` called when there is something to read.

        It is called on the loop, once; again only after a read, when there is more or more comes.
        `callback(read_end, error)` tells that the write end is closed (IO_BROKEN_PIPE: what it
        wrote before can still be read, and no call follows).

        Raises ERROR_IO_ALREADY_SUBSCRIBED, IO_BROKEN_PIPE if this end is closed, and TypeError for
        what cannot be called.
        """
        self._require_open()
        check_callback(callback)

        def tell(event: ReadEvent) -> None:
            closed = event is not ReadEvent.READABLE
            callback(self, self._broken("the write end is closed") if closed else None)

        self._io.subscribe(tell)

    def unsubscribe_from_readable_events(self) -> None:
        """Have the callback called no more.

        Raises ERROR_IO_NOT_SUBSCRIBED, IO_BROKEN_PIPE if this end is closed.
        """
        self._require_open()
        self._io.unsubscribe()


class WriteEnd(_End):
    """The end of a pipe that bytes are put into. `async with` closes it."""

    async def write(self, data: Buffer) -> None:
        """Write `data`; returns when the last byte is in the pipe.

        Several writes may wait: they are made in the order of the calls. `data` must not change
        before this returns. Raises IO_BROKEN_PIPE if either end is closed. Cancellation drops what
        has not been written: a part of `data` may be.
        """
        await self._io.write(memoryview(checked(data)), self._write)

    def _write(self, data: memoryview) -> int:
        self._require_open()
        try:
            return os.write(self._fd, data)
        except BrokenPipeError as exc:
            raise self._broken("the read end is closed") from exc


def _check_size(size: int) -> None:
    if size < 1:
        raise ValueError(f"there must be room for at least one byte, not for {size}")
