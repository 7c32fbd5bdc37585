"""Stream sockets, TCP and Unix: the one place where their bytes are read and written.

Theory of operation. Reading: each time the socket is readable there is one `recv`, into a fresh
bytes object for a `Protocol` or into the protocol's own buffer for a `BufferedProtocol`; then the
others get their turn. Writing: `write()` tries `send` at once. What the kernel does not take goes
to the backlog, whose bytes are counted as they come and go, and leaves it when the socket becomes
writable, many pieces by one `sendmsg`. `_direct` is the one question of the hot path: may `write()`
send at once? It is derived from the state in `_update_direct` whenever a part of that changes.

The transport owns the socket. It stops watching the fd before it closes it, and closes it once,
right after `connection_lost`.
"""

import asyncio
import os
import socket
import warnings
import weakref
from asyncio.log import logger
from asyncio.trsock import TransportSocket
from collections import deque
from collections.abc import Callable, Iterable
from contextvars import copy_context
from itertools import islice
from typing import Any

from ._connection_state import ConnectionOwner, ConnectionState
from ._flow_control import WriteFlowControl
from ._scheduler import Scheduler
from ._socket_tools import (
    LOST_WRITES_BEFORE_WARNING,
    Buffer,
    address_or_none,
    checked,
    disable_nagle,
    report,
    snapshot,
)

READ_SIZE = 64 * 1024
"""Bytes asked of one `recv`. Small enough for malloc to serve it without mmap: with asyncio's
256 KiB, each read maps and unmaps memory, which costs more than the read."""

IOV_MAX = os.sysconf("SC_IOV_MAX")

_EMPTY: deque[bytes | memoryview] = deque(maxlen=0)
"""The backlog of transports that have none: a deque of one's own takes 600 bytes."""


class SocketTransport(asyncio.Transport):
    """A connected stream socket. Thread: the loop's."""

    # A dict as well: programs and tests put their own on transports. It costs next to nothing.
    __slots__ = (
        "__dict__", "__weakref__", "_backlog", "_backlog_size", "_context", "_direct", "_fd",
        "_flow_control", "_flushed", "_loop", "_lost_writes", "_paused", "_protocol", "_read_ended",
        "_read_size", "_recv", "_send", "_server", "_sock", "_started", "_state", "_wants_bytes",
        "_write_ended",
    )  # fmt: skip

    _start_tls_compatible = True  # asked by loop.start_tls(), asyncio's own included

    def __init__(
        self,
        loop: Scheduler,
        sock: socket.socket,
        protocol: asyncio.BaseProtocol,
        *,
        waiter: "asyncio.Future[None] | None" = None,
        peername: Any = None,
        sockname: Any = None,
        nodelay_is_set: bool = False,
        server: ConnectionOwner | None = None,
    ) -> None:
        self._extra: dict[str, Any] = {  # all that asyncio's constructor would do
            "socket": TransportSocket(sock),
            "sockname": sockname or address_or_none(sock.getsockname),
            "peername": peername or address_or_none(sock.getpeername),
        }
        self._loop = loop
        self._server = server
        self._sock: socket.socket | None = sock
        self._fd = sock.fileno()
        self._recv = sock.recv
        self._send = sock.send
        self._context = copy_context()
        self._state = ConnectionState.OPEN
        self._started = False
        self._paused = False
        self._read_ended = False
        self._read_size = READ_SIZE
        self._wants_bytes = False  # whether a buffered protocol has asked for these
        self._write_ended = False
        self._flushed: asyncio.Future[None] | None = None
        self._backlog: deque[bytes | memoryview] = _EMPTY  # most never have one
        self._backlog_size = 0
        self._lost_writes = 0
        self._flow_control: WriteFlowControl | None = None
        self._direct = True
        self._protocol: Any = protocol  # Any for its optional methods; None once closed
        if server is not None:
            server._attach()
        loop._transports[self._fd] = weakref.ref(self)
        if not nodelay_is_set:
            disable_nagle(sock)
        if server is None:
            loop.call_soon(self._start, waiter, context=self._context)

    def start(self) -> None:
        """Begin at once: for a server, whose accepting is a callback of its own. A turn less."""
        try:
            self._context.run(self._start, None)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as exc:
            self._loop._callback_failed(self._start, exc)

    def _start(self, waiter: "asyncio.Future[None] | None") -> None:
        """Tell the protocol, and only then begin to read.

        A server reads at once, as clients mostly have sent something right behind their connect:
        that saves a turn. Not if connection_made() has scheduled anything, which comes first.
        """
        scheduled = len(self._loop._ready)
        at_once = False
        try:
            self._protocol.connection_made(self)
            at_once = self._server is not None and len(self._loop._ready) == scheduled
        finally:
            self._started = True
            if at_once and self.is_reading():
                self._read_method()()
            self._watch_if_reading()
            if waiter is not None and not waiter.done():
                waiter.set_result(None)

    def __repr__(self) -> str:
        state = self._state.value
        if self._state is ConnectionState.OPEN:
            state = "paused" if self._paused else "reading"
        return f"<{type(self).__name__} fd={self._fd} {state} backlog={self._backlog_size}>"

    def __del__(self) -> None:
        # The constructor may have failed before there was a socket to own.
        if getattr(self, "_sock", None) is not None:
            warnings.warn(f"unclosed transport {self!r}", ResourceWarning, source=self)
            self._release()

    # State

    def _move_to(self, state: ConnectionState) -> None:
        self._state = self._state.moved_to(state)
        self._direct = False  # nothing moves to OPEN

    def _update_direct(self) -> None:
        self._direct = self._state is ConnectionState.OPEN and not (
            self._backlog or self._write_ended or self._flushed
        )

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self._protocol  # type: ignore[no-any-return]  # see the constructor

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = protocol
        self._read_size = READ_SIZE
        self._wants_bytes = False
        if self._flow_control is not None:
            self._flow_control.protocol = protocol
        self._watch_if_reading()

    def is_closing(self) -> bool:
        return self._state is not ConnectionState.OPEN

    # Reading

    def is_reading(self) -> bool:
        return not self._paused and not self._read_ended and self._state is ConnectionState.OPEN

    def pause_reading(self) -> None:
        if self._paused or self.is_closing():
            return
        self._paused = True
        self._loop._remove_reader(self._fd)

    def resume_reading(self) -> None:
        if not self._paused or self.is_closing():
            return
        self._paused = False
        self._watch_if_reading()

    def set_read_size(self, size: int) -> None:
        """Call `data_received` with at most `size` bytes, even if the protocol is a buffered one.

        For protocols that take bytes as well: what one read brings is theirs without a copy. To be
        called in `connection_made`.
        """
        self._read_size = size
        self._wants_bytes = True

    def _watch_if_reading(self) -> None:
        if self._started and self.is_reading():
            self._loop._add_reader(self._fd, self._read_method(), context=self._context)

    def _read_method(self) -> Callable[[], None]:
        if isinstance(self._protocol, asyncio.BufferedProtocol) and not self._wants_bytes:
            return self._read_into_buffer
        return self._read_data

    def _read_data(self) -> None:
        try:
            data = self._recv(self._read_size)
        except (BlockingIOError, InterruptedError):
            return
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as exc:
            self._fatal_error(exc, "Fatal read error on socket transport")
            return
        if not data:
            self._read_eof()
            return
        try:
            self._protocol.data_received(data)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as exc:
            self._fatal_error(exc, "Fatal error: protocol.data_received() call failed.")

    def _read_into_buffer(self) -> None:
        protocol = self._protocol
        try:
            buffer = protocol.get_buffer(-1)
            if not len(buffer):
                raise RuntimeError("get_buffer() returned an empty buffer")
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as exc:
            self._fatal_error(exc, "Fatal error: protocol.get_buffer() call failed.")
            return
        try:
            size = self._sock.recv_into(buffer)  # type: ignore[union-attr]  # there is one to read
        except (BlockingIOError, InterruptedError):
            return
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as exc:
            self._fatal_error(exc, "Fatal read error on socket transport")
            return
        if not size:
            self._read_eof()
            return
        try:
            protocol.buffer_updated(size)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as exc:
            self._fatal_error(exc, "Fatal error: protocol.buffer_updated() call failed.")

    def _read_eof(self) -> None:
        self._read_ended = True
        try:
            keep_open = self._protocol.eof_received()
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as exc:
            self._fatal_error(exc, "Fatal error: protocol.eof_received() call failed.")
            return
        if not keep_open:
            self.close()
        elif self._state is not ConnectionState.CLOSED:
            self._loop._remove_reader(self._fd)

    # Writing

    def write(self, data: Buffer) -> None:
        if not self._direct:
            self._write_later(checked(data))
            return
        if type(data) is not bytes:
            data = checked(data)
        if not data:
            return
        self._loop._has_sent = True
        try:
            sent = self._send(data)
        except (BlockingIOError, InterruptedError):
            sent = 0
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as exc:
            self._fatal_error(exc, "Fatal write error on socket transport")
            return
        if sent != len(data):
            self._keep(snapshot(data, sent))
            self._backlog_begun()

    def writelines(self, list_of_data: Iterable[Buffer]) -> None:
        pieces = [checked(data) for data in list_of_data]
        if self._write_ended:
            raise RuntimeError("Cannot call writelines() after write_eof()")
        if not self._direct:
            for piece in pieces:
                self._write_later(piece)
            return
        pieces = [piece for piece in pieces if len(piece)]
        if not pieces:
            return
        self._loop._has_sent = True
        try:
            assert self._sock is not None
            sent = self._sock.sendmsg(pieces[:IOV_MAX])
        except (BlockingIOError, InterruptedError):
            sent = 0
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as exc:
            self._fatal_error(exc, "Fatal write error on socket transport")
            return
        for piece in pieces:
            if sent >= len(piece):
                sent -= len(piece)
            else:
                self._keep(snapshot(piece, sent))
                sent = 0
        if self._backlog:
            self._backlog_begun()

    def _write_later(self, data: Buffer) -> None:
        if self._write_ended:
            raise RuntimeError("Cannot call write() after write_eof()")
        if self._flushed is not None:
            raise RuntimeError("unable to write; sendfile is in progress")
        if not len(data):
            return
        if self._state is ConnectionState.CLOSED:
            self._lost_writes += 1
            if self._lost_writes > LOST_WRITES_BEFORE_WARNING:
                logger.warning("socket.send() raised exception.")
            return
        self._keep(snapshot(data, 0))
        self._flow.grown(self._backlog_size)

    def _keep(self, data: bytes | memoryview) -> None:
        if self._backlog is _EMPTY:
            self._backlog = deque()
        self._backlog.append(data)
        self._backlog_size += len(data)

    def _backlog_begun(self) -> None:
        self._update_direct()
        self._loop._add_writer(self._fd, self._write_ready, context=self._context)
        self._flow.grown(self._backlog_size)

    def _write_ready(self) -> None:
        backlog = self._backlog
        self._loop._has_sent = True
        try:
            if len(backlog) == 1:
                sent = self._send(backlog[0])
            else:
                assert self._sock is not None
                sent = self._sock.sendmsg(islice(backlog, IOV_MAX))
        except (BlockingIOError, InterruptedError):
            return
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as exc:
            if self._flushed is not None and not self._flushed.done():
                self._flushed.set_exception(exc)
            self._fatal_error(exc, "Fatal write error on socket transport")
            return
        self._backlog_size -= sent
        while sent:
            first = backlog.popleft()
            if sent < len(first):
                backlog.appendleft(memoryview(first)[sent:])
                break
            sent -= len(first)
        self._flow.shrunk(self._backlog_size)  # may write more
        if not backlog:
            self._backlog_ended()

    def _backlog_ended(self) -> None:
        self._loop._remove_writer(self._fd)
        self._update_direct()
        if self._flushed is not None and not self._flushed.done():
            self._flushed.set_result(None)
        if self._state is ConnectionState.CLOSING:
            self._finish(None)
        elif self._write_ended and self._flushed is None:
            self._shut_down_writing()

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        if self.is_closing() or self._write_ended:
            return
        self._write_ended = True
        self._update_direct()
        if not self._backlog and self._flushed is None:
            self._shut_down_writing()

    def _shut_down_writing(self) -> None:
        self._loop._has_sent = True
        assert self._sock is not None
        try:
            self._sock.shutdown(socket.SHUT_WR)
        except OSError:  # the peer is gone already, which reading reports
            pass

    @property
    def _flow(self) -> WriteFlowControl:
        """Made when it is needed: most transports never have a backlog, nor their limits set."""
        if self._flow_control is None:
            self._flow_control = WriteFlowControl(self._loop, self, self._protocol)
        return self._flow_control

    def get_write_buffer_size(self) -> int:
        return self._backlog_size

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return self._flow.low, self._flow.high

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._flow.set_limits(high, low, self._backlog_size)

    def _hold_writes(self) -> "asyncio.Future[None]":
        """For sendfile: no more writes, and a future that is done when the backlog is sent."""
        if self._flushed is not None:
            raise RuntimeError("Empty waiter is already set")
        if self._write_ended:
            raise RuntimeError("Cannot send a file after write_eof()")
        self._flushed = self._loop.create_future()
        if not self._backlog:
            self._flushed.set_result(None)
        self._update_direct()
        return self._flushed

    def _release_writes(self) -> None:
        self._flushed = None
        if self._write_ended and not self._backlog and not self.is_closing():
            self._shut_down_writing()
        self._update_direct()

    # Closing

    def close(self) -> None:
        if self._state is not ConnectionState.OPEN:
            return
        if not self._backlog:
            self._finish(None)
        else:
            self._move_to(ConnectionState.CLOSING)
            self._loop._remove_reader(self._fd)

    def abort(self) -> None:
        self._force_close(None)

    def _force_close(self, exc: BaseException | None) -> None:
        if self._state is not ConnectionState.CLOSED:
            self._backlog.clear()
            self._backlog_size = 0
            self._finish(exc)

    def _fatal_error(self, exc: BaseException, message: str) -> None:
        report(self._loop, exc, message, self, self._protocol, expected=isinstance(exc, OSError))
        self._force_close(exc)

    def _finish(self, exc: BaseException | None) -> None:
        """Stop watching, and tell the protocol at the next turn."""
        self._move_to(ConnectionState.CLOSED)
        self._loop._remove_reader(self._fd)
        if self._backlog is not _EMPTY:  # there was one, so it may be watched
            self._loop._remove_writer(self._fd)
        if self._flushed is not None and not self._flushed.done():
            self._flushed.set_exception(ConnectionError("Connection is closed by peer"))
        self._loop.call_soon(self._connection_lost, exc, context=self._context)

    def _connection_lost(self, exc: BaseException | None) -> None:
        try:
            self._protocol.connection_lost(exc)
        finally:
            self._release()

    def _release(self) -> None:
        """Close the socket and let go of what may refer back to this transport."""
        sock, self._sock = self._sock, None
        if sock is not None:
            sock.close()
            self._loop._has_sent = True
        server, self._server = self._server, None
        if server is not None:
            server._detach()
        # What is left is garbage without a cycle: it goes now, and not at the next collection.
        if self._flow_control is not None:
            self._flow_control.release()
        self._protocol = None
        del self._recv, self._send
