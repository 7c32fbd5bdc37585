"""Ends of pipes as transports: pipes, sockets and character devices.

The transport takes the file object over once its constructor has returned, and closes it once,
through `pipe.close()`: the file object stays the one owner of the fd, so nobody closes a number
that has been given to somebody else meanwhile. Where the constructor raises, nothing has happened
to the pipe and it is still the caller's.

The kernel tells of a reader gone away by making the writing end "readable": an error condition for
a pipe, an end of file for a socket. So the write transport watches its fd for reading, too; not on
terminals and other devices, where there may be input.
"""

import asyncio
import errno
import os
import stat
import warnings
from asyncio.log import logger
from collections.abc import Callable
from contextvars import copy_context
from typing import Any, Protocol, TypeVar

from ._connection_state import CLOSED, CLOSING, OPEN, ConnectionState
from ._flow_control import WriteFlowControl
from ._scheduler import Scheduler
from ._socket_tools import LOST_WRITES_BEFORE_WARNING, Buffer, checked, report

READ_SIZE = 64 * 1024
"""Bytes asked of one `read`: what a pipe holds."""

P = TypeVar("P", bound=asyncio.BaseProtocol)


class Pipe(Protocol):
    """A file object, or a socket."""

    def fileno(self) -> int: ...

    def close(self) -> object: ...


class _PipeTransport(asyncio.BaseTransport):
    """What both ends have in common."""

    _extra: dict[str, Any]
    _pipe: Pipe | None = None

    def __init__(
        self,
        loop: Scheduler,
        pipe: Pipe,
        protocol: asyncio.BaseProtocol,
        waiter: "asyncio.Future[None] | None",
        extra: dict[str, Any] | None,
    ) -> None:
        super().__init__(extra)
        loop._check_closed()
        self._fd = pipe.fileno()
        self._is_device = _check_is_pipe(self._fd)
        os.set_blocking(self._fd, False)
        self._extra["pipe"] = pipe
        self._loop = loop
        self._context = copy_context()
        self._state = OPEN
        self._started = False
        self._protocol: Any = protocol  # Any for its optional methods; None once closed
        loop.call_soon(self._start, waiter, context=self._context)
        self._pipe = pipe

    def _start(self, waiter: "asyncio.Future[None] | None") -> None:
        """Tell the protocol, and only then begin to watch the fd."""
        try:
            self._protocol.connection_made(self)
        finally:
            self._started = True
            try:
                self._watch()
            except OSError as exc:  # epoll takes no /dev/null, for instance
                if waiter is None:
                    self._fatal_error(exc, "Fatal error: cannot watch the pipe", expected=False)
                elif not waiter.done():
                    waiter.set_exception(exc)
            else:
                if waiter is not None and not waiter.done():
                    waiter.set_result(None)

    def _watch(self) -> None:
        """Watch the fd for reading, if it is time."""
        raise NotImplementedError

    def _watch_readable(self, callback: Callable[[], None]) -> None:
        self._loop._add_reader(self._fd, callback, context=self._context)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} fd={self._fd} {self._state.value}>"

    def __del__(self) -> None:
        if self._pipe is not None:
            warnings.warn(f"unclosed transport {self!r}", ResourceWarning, source=self)
            self._release()

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self._protocol  # type: ignore[no-any-return]  # see the constructor

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = protocol

    def is_closing(self) -> bool:
        return self._state is not OPEN

    def _move_to(self, state: ConnectionState) -> None:
        self._state = self._state.moved_to(state)

    def _force_close(self, exc: BaseException | None) -> None:
        if self._state is not CLOSED:
            self._finish(exc)

    def _fatal_error(self, exc: BaseException, message: str, *, expected: bool) -> None:
        report(self._loop, exc, message, self, self._protocol, expected=expected)
        self._force_close(exc)

    def _finish(self, exc: BaseException | None) -> None:
        """Stop watching, and tell the protocol at the next turn."""
        self._move_to(CLOSED)
        self._loop._remove_reader(self._fd)
        self._loop._remove_writer(self._fd)
        if self._loop.is_closed():  # there is no next turn
            self._release()
        else:
            self._loop.call_soon(self._connection_lost, exc, context=self._context)

    def _connection_lost(self, exc: BaseException | None) -> None:
        try:
            self._protocol.connection_lost(exc)
        finally:
            self._release()

    def _release(self) -> None:
        """Close the pipe and let go of what may refer back to this transport."""
        pipe, self._pipe = self._pipe, None
        if pipe is not None:
            pipe.close()
            self._loop._has_sent = True
        # What is left is garbage without a cycle: it goes now, and not at the next collection.
        self._protocol = None


class ReadPipeTransport(_PipeTransport, asyncio.ReadTransport):
    """The reading end of a pipe. Thread: the loop's.

    `waiter` is done once the protocol knows of its transport. Raises ValueError for a `pipe` that
    is none (a regular file, a directory), OSError if its fd is closed, RuntimeError if the loop
    is; the pipe is then untouched.
    """

    def __init__(
        self,
        loop: Scheduler,
        pipe: Pipe,
        protocol: asyncio.BaseProtocol,
        waiter: "asyncio.Future[None] | None" = None,
        extra: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(loop, pipe, protocol, waiter, extra)
        self._paused = False

    def is_reading(self) -> bool:
        return not self._paused and self._state is OPEN

    def pause_reading(self) -> None:
        if self.is_reading():
            self._paused = True
            self._loop._remove_reader(self._fd)

    def resume_reading(self) -> None:
        if self._paused and self._state is OPEN:
            self._paused = False
            self._watch()

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        super().set_protocol(protocol)
        self._watch()

    def _watch(self) -> None:
        if not self._started or not self.is_reading():
            return
        if isinstance(self._protocol, asyncio.BufferedProtocol):
            self._watch_readable(self._read_into_buffer)
        else:
            self._watch_readable(self._read_data)

    def _read_data(self) -> None:
        try:
            data = os.read(self._fd, READ_SIZE)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as exc:
            self._read_failed(exc)
            return
        if data:
            self._protocol.data_received(data)
        else:
            self._read_eof()

    def _read_into_buffer(self) -> None:
        protocol = self._protocol
        try:
            buffer = protocol.get_buffer(-1)
            if not len(buffer):
                raise RuntimeError("get_buffer() returned an empty buffer")
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as exc:  # to try again would be to loop for ever
            message = "Fatal error: protocol.get_buffer() call failed."
            self._fatal_error(exc, message, expected=False)
            return
        try:
            size = os.readv(self._fd, [buffer])
        except (BlockingIOError, InterruptedError):
            return
        except OSError as exc:
            self._read_failed(exc)
            return
        if size:
            protocol.buffer_updated(size)
        else:
            self._read_eof()

    def _read_failed(self, exc: OSError) -> None:
        # EIO is how Linux ends a terminal whose other side is closed.
        expected = exc.errno == errno.EIO
        self._fatal_error(exc, "Fatal read error on pipe transport", expected=expected)

    def _read_eof(self) -> None:
        if self._loop.get_debug():
            logger.info("%r was closed by peer", self)
        self._loop.call_soon(self._protocol.eof_received, context=self._context)
        self._finish(None)

    def close(self) -> None:
        """Stop reading; `connection_lost(None)` follows."""
        self._force_close(None)


class WritePipeTransport(_PipeTransport, asyncio.WriteTransport):
    """The writing end of a pipe. Thread: the loop's.

    `waiter` is done once the protocol knows of its transport. Raises ValueError for a `pipe` that
    is none (a regular file, a directory), OSError if its fd is closed, RuntimeError if the loop
    is; the pipe is then untouched.
    """

    def __init__(
        self,
        loop: Scheduler,
        pipe: Pipe,
        protocol: asyncio.BaseProtocol,
        waiter: "asyncio.Future[None] | None" = None,
        extra: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(loop, pipe, protocol, waiter, extra)
        self._backlog = bytearray()
        self._lost_writes = 0
        self._flow = WriteFlowControl(loop, self, protocol)

    def __repr__(self) -> str:
        return f"{super().__repr__()[:-1]} backlog={len(self._backlog)}>"

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        super().set_protocol(protocol)
        self._flow.protocol = protocol

    def _watch(self) -> None:
        if not self._is_device and self._state is not CLOSED:
            self._watch_readable(self._reader_gone)

    def _reader_gone(self) -> None:
        if self._loop.get_debug():
            logger.info("%r was closed by peer", self)
        self._force_close(BrokenPipeError() if self._backlog else None)

    def write(self, data: Buffer) -> None:
        data = checked(data)
        if not data:
            return
        if self._state is not OPEN:
            self._lost_writes += 1
            if self._lost_writes > LOST_WRITES_BEFORE_WARNING:
                logger.warning("pipe closed by peer or os.write(pipe, data) raised exception.")
            return
        if not self._backlog:
            self._loop._has_sent = True
            try:
                sent = os.write(self._fd, data)
            except (BlockingIOError, InterruptedError):
                sent = 0
            except OSError as exc:
                self._fatal_error(exc, "Fatal write error on pipe transport", expected=True)
                return
            if sent == len(data):
                return
            data = memoryview(data)[sent:]
            self._loop._add_writer(self._fd, self._write_ready, context=self._context)
        self._backlog += data
        self._flow.grown(len(self._backlog))

    def _write_ready(self) -> None:
        self._loop._has_sent = True
        try:
            sent = os.write(self._fd, self._backlog)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as exc:
            self._fatal_error(exc, "Fatal write error on pipe transport", expected=True)
            return
        del self._backlog[:sent]  # moves no bytes: a bytearray can begin later in its memory
        self._flow.shrunk(len(self._backlog))  # may write more
        if not self._backlog:
            self._loop._remove_writer(self._fd)
            if self._state is CLOSING:
                self._finish(None)

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        """Close once the backlog is written: a pipe ends by being closed."""
        if self._state is OPEN:
            self._move_to(CLOSING)
            if not self._backlog:
                self._finish(None)

    def close(self) -> None:
        self.write_eof()

    def abort(self) -> None:
        self._force_close(None)

    def _finish(self, exc: BaseException | None) -> None:
        self._backlog.clear()
        super()._finish(exc)

    def _release(self) -> None:
        super()._release()
        self._flow.release()

    def get_write_buffer_size(self) -> int:
        return len(self._backlog)

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return self._flow.low, self._flow.high

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._flow.set_limits(high, low, len(self._backlog))


async def connect_read_pipe(
    loop: Scheduler, protocol_factory: Callable[[], P], pipe: Pipe
) -> tuple[ReadPipeTransport, P]:
    """Read from `pipe`, which the transport closes at its end.

    Raises what `ReadPipeTransport` raises, the pipe being left as it was. If the call is
    cancelled, or the pipe cannot be watched (OSError), the pipe is closed.
    """
    protocol = protocol_factory()
    waiter: asyncio.Future[None] = loop.create_future()
    transport = ReadPipeTransport(loop, pipe, protocol, waiter)
    await _connected(transport, waiter)
    if loop.get_debug():
        logger.debug("Read pipe %r connected: (%r, %r)", pipe.fileno(), transport, protocol)
    return transport, protocol


async def connect_write_pipe(
    loop: Scheduler, protocol_factory: Callable[[], P], pipe: Pipe
) -> tuple[WritePipeTransport, P]:
    """Write to `pipe`, which the transport closes at its end.

    Raises what `WritePipeTransport` raises, the pipe being left as it was. If the call is
    cancelled, or the pipe cannot be watched (OSError), the pipe is closed.
    """
    protocol = protocol_factory()
    waiter: asyncio.Future[None] = loop.create_future()
    transport = WritePipeTransport(loop, pipe, protocol, waiter)
    await _connected(transport, waiter)
    if loop.get_debug():
        logger.debug("Write pipe %r connected: (%r, %r)", pipe.fileno(), transport, protocol)
    return transport, protocol


async def _connected(transport: _PipeTransport, waiter: "asyncio.Future[None]") -> None:
    try:
        await waiter
    except BaseException:
        transport.close()
        raise


def _check_is_pipe(fd: int) -> bool:
    """Whether `fd` is a device, whose reading side does not tell that a reader has gone.

    Raises ValueError if `fd` is nothing that can be waited for.
    """
    mode = os.fstat(fd).st_mode
    if stat.S_ISSOCK(mode) or stat.S_ISFIFO(mode):
        return False
    if stat.S_ISCHR(mode):
        return True
    raise ValueError("Pipe transport is only for pipes, sockets and character devices")
