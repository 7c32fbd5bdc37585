"""What is written to a stream socket: at once what the kernel takes, and the rest when it can.

Theory of operation. `write()` tries `send` at once. What the kernel does not take goes to the
backlog, whose bytes are counted as they come and go, and leaves it when the socket becomes
writable, many pieces by one `sendmsg`. `_direct` is the one question of the hot path: may `write()`
send at once? It is derived from the state in `_update_direct` whenever a part of that changes.
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

from ._connection_state import ConnectionState
from ._flow_control import WriteFlowControl
from ._scheduler import Scheduler
from ._socket_tools import LOST_WRITES_BEFORE_WARNING, Buffer, checked, snapshot

IOV_MAX = os.sysconf("SC_IOV_MAX")

NO_BACKLOG: deque[bytes | memoryview] = deque(maxlen=0)
"""The backlog of transports that have none: a deque of one's own takes 600 bytes."""


class WriteSide(asyncio.Transport):
    """The half of a transport that sends. Thread: the loop's.

    `SocketTransport` is the other one: it sets all attributes, and begins and ends the connection.
    """

    __slots__ = (
        "_backlog", "_backlog_size", "_context", "_direct", "_fd", "_flow_control", "_flushed",
        "_loop", "_lost_writes", "_protocol", "_send", "_sock", "_state", "_write_ended",
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
    _flow_control: WriteFlowControl | None
    _write_ended: bool
    _flushed: "asyncio.Future[None] | None"
    _lost_writes: int

    def _finish(self, exc: BaseException | None) -> None:
        raise NotImplementedError

    def _fatal_error(self, exc: BaseException, message: str) -> None:
        raise NotImplementedError

    def _update_direct(self) -> None:
        self._direct = self._state is ConnectionState.OPEN and not (
            self._backlog or self._write_ended or self._flushed
        )

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
