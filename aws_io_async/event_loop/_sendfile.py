"""`loop.sendfile` and `loop.sock_sendfile`: by `os.sendfile` where the kernel can, else by copying.

The kernel cannot when the file is none of its own (`io.BytesIO`), when its file system has no such
operation, and when TLS has to see the bytes.
"""

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from . import _sock_ops
from ._connection_state import CLOSED
from ._scheduler import Scheduler
from ._tls_transport import SslTransport
from ._transport import SocketTransport
from ._until_done import until_done

COPY_SIZE = 256 * 1024
"""Bytes read from the file at a time when copying."""

SENDFILE_SIZE = 2**30
"""Bytes asked of one `os.sendfile`; Linux takes no more than 2 GiB."""


def check_arguments(file: Any, offset: Any, count: Any) -> None:
    """TypeError or ValueError for what cannot be sent."""
    if "b" not in getattr(file, "mode", "b"):
        raise ValueError("file should be opened in binary mode")
    if count is not None:
        if not isinstance(count, int):
            raise TypeError(f"count must be a positive integer (got {count!r})")
        if count <= 0:
            raise ValueError(f"count must be a positive integer (got {count!r})")
    if not isinstance(offset, int):
        raise TypeError(f"offset must be a non-negative integer (got {offset!r})")
    if offset < 0:
        raise ValueError(f"offset must be a non-negative integer (got {offset!r})")


async def sock_sendfile(
    loop: Scheduler, sock: socket.socket, file: Any, offset: int, count: int | None, fallback: bool
) -> int:
    """Send a file's bytes; returns how many.

    Leaves the file's position after the last one that was sent, also if it fails or is cancelled.
    """
    if loop.get_debug() and sock.gettimeout() != 0:
        raise ValueError("the socket must be non-blocking")
    _sock_ops.check_not_ssl(sock)
    if sock.type != socket.SOCK_STREAM:
        raise ValueError("only SOCK_STREAM type sockets are supported")
    check_arguments(file, offset, count)
    try:
        return await _by_kernel(
            sock, file, offset, count, lambda: _sock_ops.wait_writable(loop, sock)
        )
    except asyncio.SendfileNotAvailableError:
        if not fallback:
            raise
    return await _by_copying(loop, file, offset, count, partial(_send_some, loop, sock))


async def _send_some(loop: Scheduler, sock: socket.socket, data: memoryview) -> int:
    while True:
        try:
            return sock.send(data)
        except (BlockingIOError, InterruptedError):
            await _sock_ops.wait_writable(loop, sock)


async def sendfile(
    loop: Scheduler,
    transport: Any,
    file: Any,
    offset: int,
    count: int | None,
    fallback: bool,
) -> int:
    """Send a file's bytes through a transport, behind what has been written to it."""
    if transport.is_closing():
        raise RuntimeError("Transport is closing")
    check_arguments(file, offset, count)
    if isinstance(transport, SocketTransport):
        try:
            return await _natively(loop, transport, file, offset, count)
        except asyncio.SendfileNotAvailableError:
            if not fallback:
                raise
    elif not isinstance(transport, SslTransport):
        raise RuntimeError(f"sendfile is not supported for transport {transport!r}")
    elif not fallback:
        raise RuntimeError(
            f"fallback is disabled and native sendfile is not supported for transport {transport!r}"
        )
    writer = _Writer(loop, transport)
    try:
        return await _by_copying(loop, file, offset, count, writer.write)
    finally:
        writer.detach()


async def _natively(
    loop: Scheduler, transport: SocketTransport, file: Any, offset: int, count: int | None
) -> int:
    flushed = transport._hold_writes()
    was_reading = transport.is_reading()
    transport.pause_reading()
    try:
        await flushed
        assert transport._sock is not None
        wait_writable = partial(_until_writable, loop, transport)
        return await _by_kernel(transport._sock, file, offset, count, wait_writable)
    finally:
        transport._release_writes()
        if was_reading:
            transport.resume_reading()


async def _until_writable(loop: Scheduler, transport: SocketTransport) -> None:
    """Wait for room. Raises ConnectionError if the connection ends instead."""
    if transport.is_closing():
        raise ConnectionError("Connection is closed by peer")
    writable: asyncio.Future[None] = loop.create_future()
    transport._flushed = writable
    loop._add_writer(transport._fd, _sock_ops.wake, writable)
    try:
        await writable
    finally:
        if transport._state is not CLOSED:
            loop._remove_writer(transport._fd)


async def _by_kernel(
    sock: socket.socket,
    file: Any,
    offset: int,
    count: int | None,
    wait_writable: Callable[[], Awaitable[None]],
) -> int:
    if not hasattr(os, "sendfile"):
        raise asyncio.SendfileNotAvailableError("os.sendfile() is not available")
    try:
        file_fd = file.fileno()
        size = os.fstat(file_fd).st_size
    except (AttributeError, OSError, ValueError) as exc:  # io.UnsupportedOperation is a ValueError
        raise asyncio.SendfileNotAvailableError("not a regular file") from exc
    if not (size or count):
        return 0
    sent = 0
    answered = False  # that nothing was sent also counts: the file was asked for at `offset`
    try:
        while True:
            want = SENDFILE_SIZE if count is None else min(count - sent, SENDFILE_SIZE)
            try:
                piece = os.sendfile(sock.fileno(), file_fd, offset + sent, want)
            except (BlockingIOError, InterruptedError):
                pass
            except OSError as exc:
                if sent == 0 and not isinstance(exc, ConnectionError):
                    # The kernel cannot do it for this file, or not to this socket.
                    raise asyncio.SendfileNotAvailableError("os.sendfile call failed") from exc
                raise
            else:
                answered = True
                sent += piece
                if not piece or sent == count:  # not piece: the end of the file
                    return sent
            await wait_writable()  # which gives the others their turn, too
    finally:
        if answered:
            os.lseek(file_fd, offset + sent, os.SEEK_SET)


async def _by_copying(
    loop: Scheduler,
    file: Any,
    offset: int,
    count: int | None,
    send: Callable[[memoryview], Awaitable[int]],
) -> int:
    """Read on the default executor, as files block, and send what comes.

    `send` takes a part of it or all, and returns how many bytes.
    """
    if hasattr(file, "seek"):
        file.seek(offset)
    buffer = memoryview(bytearray(COPY_SIZE if count is None else min(count, COPY_SIZE)))
    sent = 0
    has_read = False
    try:
        while count is None or sent < count:
            room = buffer if count is None else buffer[: count - sent]
            has_read = True
            rest = room[: await _read(loop, file, room)]
            if not rest:
                break
            while rest:
                size = await send(rest)
                sent += size
                rest = rest[size:]
        return sent
    finally:
        if has_read and hasattr(file, "seek"):
            file.seek(offset + sent)


async def _read(loop: Scheduler, file: Any, room: memoryview) -> int:
    """Read on a thread; returns how many bytes.

    Cancelled, it waits for the thread to leave the file alone: the caller may close it next, and
    its descriptor be another file's.
    """
    reading = loop.run_in_executor(None, file.readinto, room)
    try:
        await until_done({reading})
    except asyncio.CancelledError:
        if not reading.cancelled():
            reading.exception()  # nobody asks for it any more
        raise
    return reading.result() or 0


class _Writer(asyncio.Protocol):
    """Stands in for a transport's protocol, to wait until there is room to write."""

    def __init__(self, loop: Scheduler, transport: Any) -> None:
        self._loop = loop
        self._transport = transport
        self._protocol = transport.get_protocol()
        self._was_reading = transport.is_reading()
        self._was_paused = transport._flow.paused
        self._room: asyncio.Future[None] | None = None
        self._lost = False
        transport.pause_reading()
        transport.set_protocol(self)
        if self._was_paused:
            self.pause_writing()

    async def write(self, data: memoryview) -> int:
        if self._lost or self._transport.is_closing():
            raise ConnectionError("Connection is closed by peer")
        if self._room is not None:
            await self._room
        self._transport.write(data)
        return len(data)

    def detach(self) -> None:
        """Give the transport back to its protocol."""
        if self._lost:
            return
        self._transport.set_protocol(self._protocol)
        if self._was_reading:
            self._transport.resume_reading()
        paused = self._room is not None
        if paused and not self._was_paused:
            self._protocol.pause_writing()
        elif self._was_paused and not paused:
            self._protocol.resume_writing()

    def pause_writing(self) -> None:
        if self._room is None:
            self._room = self._loop.create_future()

    def resume_writing(self) -> None:
        room, self._room = self._room, None
        if room is not None and not room.done():
            room.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost = True
        room, self._room = self._room, None
        if room is not None and not room.done():
            room.set_exception(exc or ConnectionError("Connection is closed by peer"))
        self._protocol.connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        raise RuntimeError("Invalid state: reading should be paused")

    def eof_received(self) -> bool | None:
        raise RuntimeError("Invalid state: reading should be paused")
