"""Datagram sockets, UDP and Unix.

As with streams, `sendto()` tries at once and keeps what the kernel does not take. Errors of single
datagrams, such as an ICMP "port unreachable", go to `protocol.error_received` and end nothing.
"""

import asyncio
import os
import socket
import sys
import warnings
import weakref
from asyncio.log import logger
from asyncio.trsock import TransportSocket
from collections import deque
from collections.abc import Callable
from contextvars import copy_context
from typing import Any, TypeVar

from ._connection_state import CLOSED, CLOSING, OPEN
from ._flow_control import WriteFlowControl
from ._listen import remove_stale_socket
from ._names import resolve
from ._scheduler import Scheduler
from ._socket_tools import LOST_WRITES_BEFORE_WARNING, Buffer, address_or_none, report

MAX_UDP_DATAGRAM = 64 * 1024
"""Bytes; more than a UDP datagram can have, and little enough for malloc to serve without mmap."""

MAX_UNIX_DATAGRAM = 256 * 1024
"""Bytes; more than a Unix datagram has with the kernel's default limits."""

DATAGRAMS_PER_WAKEUP = 16
"""Datagrams received before others get their turn."""

DATAGRAM_OVERHEAD = 8
"""Bytes that a waiting datagram counts beside its data, so that empty ones fill a backlog too."""

_DATAGRAM_SOCKET = "datagram socket" if sys.version_info >= (3, 13) else "UDP Socket"
"""What this Python's asyncio calls one in its error message."""

P = TypeVar("P", bound=asyncio.BaseProtocol)


class DatagramTransport(asyncio.DatagramTransport, asyncio.Transport):
    """A datagram socket, connected or not; a Transport too, as asyncio's is. Thread: the loop's."""

    def __init__(
        self,
        loop: Scheduler,
        sock: socket.socket,
        protocol: asyncio.BaseProtocol,
        *,
        address: Any = None,
        waiter: "asyncio.Future[None] | None" = None,
    ) -> None:
        peername = address_or_none(sock.getpeername)
        super().__init__(
            {
                "socket": TransportSocket(sock),
                "sockname": address_or_none(sock.getsockname),
                "peername": peername,
            }
        )
        self._loop = loop
        self._sock: socket.socket | None = sock
        self._fd = sock.fileno()
        self._max_size = MAX_UNIX_DATAGRAM if sock.family == socket.AF_UNIX else MAX_UDP_DATAGRAM
        self._protocol: Any = protocol  # Any for its optional methods; None once closed
        self._address = address
        self._connected = peername is not None
        self._context = copy_context()
        self._state = OPEN
        self._backlog: deque[tuple[bytes, Any]] = deque()
        self._backlog_size = 0
        self._lost_writes = 0
        self._flow = WriteFlowControl(loop, self, protocol)
        loop._transports[self._fd] = weakref.ref(self)
        loop.call_soon(self._start, waiter, context=self._context)

    def _start(self, waiter: "asyncio.Future[None] | None") -> None:
        try:
            self._protocol.connection_made(self)
        finally:
            if self._state is OPEN:
                self._loop._add_reader(self._fd, self._read_ready, context=self._context)
            if waiter is not None and not waiter.done():
                waiter.set_result(None)

    def __repr__(self) -> str:
        return (
            f"<{type(self).__name__} fd={self._fd} {self._state.value} "
            f"backlog={self._backlog_size}>"
        )

    def __del__(self) -> None:
        if getattr(self, "_sock", None) is not None:
            warnings.warn(f"unclosed transport {self!r}", ResourceWarning, source=self)
            self._release()

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self._protocol  # type: ignore[no-any-return]  # see the constructor

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = protocol
        self._flow.protocol = protocol

    def is_closing(self) -> bool:
        return self._state is not OPEN

    # Receiving

    def _read_ready(self) -> None:
        for _ in range(DATAGRAMS_PER_WAKEUP):
            if self._sock is None or self._state is not OPEN:
                return
            try:
                data, address = self._sock.recvfrom(self._max_size)
            except (BlockingIOError, InterruptedError):
                return
            except OSError as exc:
                self._tell("error_received", exc)
            else:
                self._tell("datagram_received", data, address)

    def _tell(self, method: str, *args: Any) -> None:
        """Call the protocol. An error there is reported and, as in asyncio, ends nothing."""
        try:
            getattr(self._protocol, method)(*args)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as exc:
            self._report(exc, f"protocol.{method}() failed")

    # Sending

    def sendto(self, data: Buffer, addr: Any = None) -> None:
        if not isinstance(data, bytes | bytearray | memoryview):
            raise TypeError(
                f"data argument must be a bytes-like object, not {type(data).__name__!r}"
            )
        if self._address:
            if addr not in (None, self._address):
                raise ValueError(f"Invalid address: must be None or {self._address}")
            addr = self._address
        if self._state is CLOSED:
            self._lost_writes += 1
            if self._lost_writes > LOST_WRITES_BEFORE_WARNING:
                logger.warning("socket.send() raised exception.")
            return
        if self._backlog or not self._send(data, addr):
            if not self._backlog:
                self._loop._add_writer(self._fd, self._write_ready, context=self._context)
            self._backlog.append((bytes(data), addr))
            self._backlog_size += len(self._backlog[-1][0]) + DATAGRAM_OVERHEAD
            self._flow.grown(self._backlog_size)

    def _send(self, data: Buffer, address: Any) -> bool:
        """Send one datagram; says whether it is off our hands, for good or for ill."""
        assert self._sock is not None
        self._loop._has_sent = True
        try:
            if self._connected:
                self._sock.send(data)
            else:
                self._sock.sendto(data, address)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError as exc:
            self._tell("error_received", exc)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as exc:
            self._fatal_error(exc, "Fatal write error on datagram transport")
        return True

    def _write_ready(self) -> None:
        backlog = self._backlog
        while backlog:
            data, address = backlog[0]
            if not self._send(data, address):
                break
            if backlog:  # an error may have ended the transport
                backlog.popleft()
                self._backlog_size -= len(data) + DATAGRAM_OVERHEAD
        self._flow.shrunk(self._backlog_size)  # may send more
        if not backlog and self._state is not CLOSED:
            self._loop._remove_writer(self._fd)
            if self._state is CLOSING:
                self._finish(None)

    def get_write_buffer_size(self) -> int:
        return self._backlog_size

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return self._flow.low, self._flow.high

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._flow.set_limits(high, low, self._backlog_size)

    # Closing

    def close(self) -> None:
        if self._state is not OPEN:
            return
        self._state = self._state.moved_to(CLOSING)
        self._loop._remove_reader(self._fd)
        if not self._backlog:
            self._finish(None)

    def abort(self) -> None:
        self._force_close(None)

    def _force_close(self, exc: BaseException | None) -> None:
        if self._state is not CLOSED:
            self._backlog.clear()
            self._backlog_size = 0
            self._finish(exc)

    def _fatal_error(self, exc: BaseException, message: str) -> None:
        self._report(exc, message)
        self._force_close(exc)

    def _report(self, exc: BaseException, message: str) -> None:
        report(self._loop, exc, message, self, self._protocol)

    def _finish(self, exc: BaseException | None) -> None:
        self._state = self._state.moved_to(CLOSED)
        self._loop._remove_reader(self._fd)
        self._loop._remove_writer(self._fd)
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
        # What is left is garbage without a cycle: it goes now, and not at the next collection.
        self._flow.release()
        self._protocol = None


async def create_datagram_endpoint(
    loop: Scheduler,
    protocol_factory: Callable[[], P],
    local_addr: Any,
    remote_addr: Any,
    *,
    family: int,
    proto: int,
    flags: int,
    reuse_port: bool | None,
    allow_broadcast: bool | None,
    sock: socket.socket | None,
) -> tuple[DatagramTransport, P]:
    options = {
        "local_addr": local_addr,
        "remote_addr": remote_addr,
        "family": family,
        "proto": proto,
        "flags": flags,
        "reuse_port": reuse_port,
        "allow_broadcast": allow_broadcast,
    }
    address = None
    if sock is None:
        sock, address = await _open(loop, **options)
    else:
        _check_ready_made(sock, options)
        sock.setblocking(False)
    loop._check_no_transport(sock.fileno())
    waiter: asyncio.Future[None] = loop.create_future()
    try:
        protocol = protocol_factory()
        transport = DatagramTransport(loop, sock, protocol, address=address, waiter=waiter)
    except BaseException:
        sock.close()
        raise
    if loop.get_debug():
        logger.debug("Datagram endpoint created: (%r, %r)", transport, protocol)
    try:
        await waiter
    except BaseException:
        transport.close()
        raise
    return transport, protocol


def _check_ready_made(sock: socket.socket, options: dict[str, Any]) -> None:
    if sock.type == socket.SOCK_STREAM:
        raise ValueError(f"A {_DATAGRAM_SOCKET} was expected, got {sock!r}")
    given = ", ".join(f"{name}={value}" for name, value in options.items() if value)
    if given:
        raise ValueError(
            f"socket modifier keyword arguments can not be used when sock is specified. ({given})"
        )


async def _open(
    loop: Scheduler,
    *,
    local_addr: Any,
    remote_addr: Any,
    family: int,
    proto: int,
    flags: int,
    reuse_port: bool | None,
    allow_broadcast: bool | None,
) -> tuple[socket.socket, Any]:
    """A socket for the first combination of family and addresses that works, and its peer."""
    errors: list[OSError] = []
    for key, local, remote in await _candidates(
        loop, local_addr, remote_addr, family, proto, flags
    ):
        sock = None
        try:
            sock = socket.socket(key[0], socket.SOCK_DGRAM, key[1])
            sock.setblocking(False)
            if reuse_port:
                if not hasattr(socket, "SO_REUSEPORT"):
                    raise ValueError("reuse_port not supported by socket module")
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if allow_broadcast:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            if local_addr:
                sock.bind(local)
            if remote_addr and not allow_broadcast:
                await loop.sock_connect(sock, remote)
        except OSError as exc:
            if sock is not None:
                sock.close()
            errors.append(exc)
        except BaseException:
            if sock is not None:
                sock.close()
            raise
        else:
            return sock, remote if remote_addr else None
    try:
        raise errors[0]
    finally:
        errors.clear()  # an exception and its traceback would keep one another alive


async def _candidates(
    loop: Scheduler, local_addr: Any, remote_addr: Any, family: int, proto: int, flags: int
) -> list[tuple[tuple[int, int], Any, Any]]:
    """`((family, protocol), local address, remote address)`, each a thing to try."""
    if not (local_addr or remote_addr):
        if family == 0:
            raise ValueError("unexpected address family")
        return [((family, proto), None, None)]
    if family == socket.AF_UNIX:
        for path in (local_addr, remote_addr):
            if path is not None and not isinstance(path, str | bytes | os.PathLike):
                raise TypeError("string is expected")
        local, remote = (path and os.fspath(path) for path in (local_addr, remote_addr))
        if local:
            remove_stale_socket(local)
        return [((family, proto), local, remote)]
    found: dict[tuple[int, int], list[Any]] = {}
    for side, address in enumerate((local_addr, remote_addr)):
        if address is None:
            continue
        if not (isinstance(address, tuple) and len(address) == 2):
            raise TypeError("2-tuple is expected")
        for info in await resolve(
            loop, address, family=family, type=socket.SOCK_DGRAM, proto=proto, flags=flags
        ):
            found.setdefault((info[0], info[2]), [None, None])[side] = info[4]
    candidates = [
        (key, local, remote)
        for key, (local, remote) in found.items()
        if not (local_addr and local is None) and not (remote_addr and remote is None)
    ]
    if not candidates:
        raise ValueError("can not get address information")
    return candidates
