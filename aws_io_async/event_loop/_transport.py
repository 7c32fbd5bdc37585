"""Stream sockets, TCP and Unix: how a connection begins, is read, and ends.

Theory of operation. Each time the socket is readable there is one `recv`, into a fresh bytes object
for a `Protocol` or into the protocol's own buffer for a `BufferedProtocol`; then the others get
their turn. What is written is the subject of `_write_side`.

The transport owns the socket. It stops watching the fd before it closes it, and closes it once,
right after `connection_lost`.
"""

import asyncio
import socket
import warnings
import weakref
from asyncio.trsock import TransportSocket
from collections.abc import Callable
from contextvars import copy_context
from typing import Any

from ._connection_state import CLOSED, CLOSING, OPEN, ConnectionOwner, ConnectionState
from ._scheduler import Scheduler
from ._socket_tools import address_or_none, disable_nagle, report
from ._write_side import NO_BACKLOG, WriteSide

READ_SIZE = 64 * 1024
"""Bytes asked of one `recv`. Small enough for malloc to serve it without mmap: with asyncio's
256 KiB, each read maps and unmaps memory, which costs more than the read."""


class SocketTransport(WriteSide):
    """A connected stream socket. Thread: the loop's."""

    # A dict as well: programs and tests put their own on transports. It costs next to nothing.
    __slots__ = (
        "__dict__", "__weakref__", "_paused", "_read_ended", "_read_size", "_recv", "_server",
        "_started", "_wants_bytes",
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
        self._sock = sock
        self._fd = sock.fileno()
        self._recv = sock.recv
        self._send = sock.send
        self._context = copy_context()
        self._state = OPEN
        self._started = False
        self._paused = False
        self._read_ended = False
        self._read_size = READ_SIZE
        self._wants_bytes = False  # whether a buffered protocol has asked for these
        self._write_ended = False
        self._flushed = None
        self._backlog = NO_BACKLOG  # most never have one
        self._backlog_size = 0
        self._merges = False
        self._held = False
        self._lost_writes = 0
        self._flow_control = None
        self._direct = True
        self._protocol = protocol  # Any for its optional methods; None once closed
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
        if self._state is OPEN:
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
        return self._state is not OPEN

    # Reading

    def is_reading(self) -> bool:
        return not self._paused and not self._read_ended and self._state is OPEN

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
        recv = self._recv  # to call what is no method as if it were one takes 30 ns more
        try:
            data = recv(self._read_size)
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
        elif self._state is not CLOSED:
            self._loop._remove_reader(self._fd)

    # Closing

    def close(self) -> None:
        if self._held:
            self._send_held()  # which may find that the peer has gone
        if self._state is not OPEN:
            return
        if not self._backlog:
            self._finish(None)
        else:
            self._move_to(CLOSING)
            self._loop._remove_reader(self._fd)

    def abort(self) -> None:
        if self._held:
            self._send_held()
        self._force_close(None)

    def _force_close(self, exc: BaseException | None) -> None:
        if self._state is not CLOSED:
            self._backlog.clear()
            self._backlog_size = 0
            self._finish(exc)

    def _fatal_error(self, exc: BaseException, message: str) -> None:
        report(self._loop, exc, message, self, self._protocol, expected=isinstance(exc, OSError))
        self._force_close(exc)

    def _finish(self, exc: BaseException | None) -> None:
        """Stop watching, and tell the protocol at the next turn."""
        self._move_to(CLOSED)
        self._loop._remove_reader(self._fd)
        if self._backlog is not NO_BACKLOG:  # there was one, so it may be watched
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
