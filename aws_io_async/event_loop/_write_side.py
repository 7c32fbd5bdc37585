"""What is written to a stream socket: at once what the kernel takes, and the rest when it can.

Theory of operation. `write()` tries `send` at once. What the kernel does not take goes to the
backlog, whose bytes are counted as they come and go, and leaves it when the socket becomes
writable, many pieces by one `sendmsg`. `_direct` is the one question of the hot path: may `write()`
send at once? It is derived from the state in `_update_direct` whenever a part of that changes.

A transport that is written to twice in one turn merges: from then on what is small waits in the
backlog for the end of the turn, when it is sent by one call (`_held`). HTTP servers write the head
of an answer, then its body, and the kernel wakes the peer for each: uvicorn answers a tenth more
requests so. When a turn has brought one write only, they are sent at once again, as to wait takes
0.3 us. Whoever else does something to the output first sends what is held.
"""

import asyncio
import os
import socket
from asyncio.log import logger
from collections import deque
from collections.abc import Callable, Iterable
from contextvars import Context
from itertools import islice
from typing import Any

from ._connection_state import CLOSED, CLOSING, OPEN, ConnectionState
from ._flow_control import WriteFlowControl
from ._scheduler import Scheduler
from ._socket_tools import LOST_WRITES_BEFORE_WARNING, Buffer, checked, snapshot

IOV_MAX = os.sysconf("SC_IOV_MAX")

MAX_HELD = 16 * 1024
"""Bytes that may wait for the end of a turn. What is larger gains little from it."""

NO_BACKLOG: deque[bytes | memoryview] = deque(maxlen=0)
"""The backlog of transports that have none: a deque of one's own takes 600 bytes."""


class WriteSide(asyncio.Transport):
    """The half of a transport that sends. Thread: the loop's.

    `SocketTransport` is the other one: it sets all attributes, and begins and ends the connection.
    """

    __slots__ = (
        "_backlog", "_backlog_size", "_context", "_direct", "_fd", "_flow_control", "_flushed",
        "_held", "_loop", "_lost_writes", "_merges", "_protocol", "_send", "_sock", "_state",
        "_write_ended",
    )  # fmt: skip

    _loop: Scheduler
    _sock: socket.socket | None
    _fd: int
    _context: Context
    _state: ConnectionState
    _protocol: Any
    _send: Callable[[Buffer], int]
    _direct: bool
    _backlog: deque[bytes | memoryview]
    _backlog_size: int
    _merges: bool
    _held: bool
    _flow_control: WriteFlowControl | None
    _write_ended: bool
    _flushed: "asyncio.Future[None] | None"
    _lost_writes: int

    def _finish(self, exc: BaseException | None) -> None:
        raise NotImplementedError

    def _fatal_error(self, exc: BaseException, message: str) -> None:
        raise NotImplementedError

    def _update_direct(self) -> None:
        self._direct = self._state is OPEN and not (
            self._backlog or self._write_ended or self._flushed or self._merges
        )

    def write(self, data: Buffer) -> None:
        if not self._direct:
            self._write_later(checked(data))
            return
        if type(data) is bytes:
            size = len(data)
        elif type(data) is memoryview and data.c_contiguous:
            size = data.nbytes
        else:
            data = checked(data)
            size = len(data)
        if not size:
            return
        loop = self._loop
        if loop._has_sent is self:
            self._begin_to_merge(size)
        loop._has_sent = self
        send = self._send  # to call what is no method as if it were one takes 30 ns more
        try:
            sent = send(data)
        except (BlockingIOError, InterruptedError):
            sent = 0
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as exc:
            self._fatal_error(exc, "Fatal write error on socket transport")
            return
        if sent != size:
            self._keep(snapshot(checked(data), sent))
            self._backlog_begun()

    def writelines(self, list_of_data: Iterable[Buffer]) -> None:
        pieces = [checked(data) for data in list_of_data]
        if self._write_ended:
            raise RuntimeError("Cannot call writelines() after write_eof()")
        if self._merges:
            self._end_merging()
        if not self._direct:
            for piece in pieces:
                self._write_later(piece)
            return
        pieces = [piece for piece in pieces if len(piece)]
        if not pieces:
            return
        self._loop._has_sent = self
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
        if self._state is CLOSED:
            self._lost_writes += 1
            if self._lost_writes > LOST_WRITES_BEFORE_WARNING:
                logger.warning("socket.send() raised exception.")
            return
        if self._merges and not self._hold(data):
            self._end_merging()
            self.write(data)
            return
        self._keep(snapshot(data, 0))
        self._flow.grown(self._backlog_size)

    def _begin_to_merge(self, size: int) -> None:
        """From the next write on, if writes are small and may be in the backlog without a pause."""
        if size < MAX_HELD and (self._flow_control is None or self._flow_control.high >= MAX_HELD):
            self._merges = True
            self._direct = False

    def _hold(self, data: Buffer) -> bool:
        """Whether `data` may wait for the end of the turn, or waits for the kernel in any case."""
        if self._backlog and not self._held:
            return True
        if self._backlog_size + len(data) > MAX_HELD or not self._loop.is_running():
            return False
        if not self._held:
            self._held = True
            self._loop._held.append(self._send_held)
        return True

    def _send_held(self) -> None:
        """At the end of a turn, or before anything else is done to the output."""
        if not self._held:  # nor at the end of the turn, if it was sent before
            return
        self._held = False
        if len(self._backlog) == 1:
            self._merges = False
        self._write_ready()
        if self._backlog:
            self._backlog_begun()

    def _end_merging(self) -> None:
        self._send_held()
        self._merges = False
        self._update_direct()

    def _keep(self, data: bytes | memoryview) -> None:
        if self._backlog is NO_BACKLOG:
            self._backlog = deque()
        self._backlog.append(data)
        self._backlog_size += len(data)

    def _backlog_begun(self) -> None:
        self._update_direct()
        self._loop._add_writer(self._fd, self._write_ready, context=self._context)
        self._flow.grown(self._backlog_size)

    def _write_ready(self) -> None:
        backlog = self._backlog
        self._loop._has_sent = self
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
        if self._state is CLOSING:
            self._finish(None)
        elif self._write_ended and self._flushed is None:
            self._shut_down_writing()

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self._send_held()  # which may find that the peer has gone
        if self.is_closing() or self._write_ended:
            return
        self._write_ended = True
        self._update_direct()
        if not self._backlog and self._flushed is None:
            self._shut_down_writing()

    def _shut_down_writing(self) -> None:
        self._loop._has_sent = self
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
        if self._merges:
            self._end_merging()
        self._flow.set_limits(high, low, self._backlog_size)

    def _hold_writes(self) -> "asyncio.Future[None]":
        """For sendfile: no more writes, and a future that is done when the backlog is sent."""
        if self._flushed is not None:
            raise RuntimeError("Empty waiter is already set")
        if self._write_ended:
            raise RuntimeError("Cannot send a file after write_eof()")
        self._send_held()
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
