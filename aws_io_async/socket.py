"""Sockets with aws-c-io's options and states, and awaitable operations, on any asyncio loop.

A `Socket` is for those who want the connection itself: bootstraps, datagrams, one's own protocol
without a channel. It owns its descriptor until `close` or `detach`.

It belongs to one loop: the one it is assigned to, or that of its first operation. From then on it
is used on that loop's thread only; elsewhere, operations raise ERROR_IO_EVENT_LOOP_THREAD_ONLY.

Source: aws-c-io, `aws/io/socket.h`. What is a callback there is awaited here. A listener accepts
while somebody awaits `accept` or iterates over it, and stops when they are cancelled.
"""

import asyncio
import errno
import os
import ssl
from collections.abc import Callable, Collection
from functools import partial
from socket import SO_ERROR, SOL_SOCKET
from socket import socket as OsSocket  # noqa: N812  # Python's own, to tell the two apart
from typing import Any, Self, TypeVar

from . import errors, log
from ._loop_io import LoopIo, ReadEvent, check_callback
from ._os_socket import (
    MOVES,
    READABLE,
    WITHOUT,
    WRITABLE,
    SocketDirection,
    SocketState,
    accept,
    moved,
    state_of,
)
from ._socket_options import (
    SocketDomain,
    SocketEndpoint,
    SocketOptions,
    SocketType,
    check_endpoint,
    create,
    from_sockaddr,
    is_network_interface_name_valid,
    options_of,
    own_endpoint,
    parse_ipv4_address,
    parse_ipv6_address,
    peer_endpoint,
    to_sockaddr,
    validate_port_for_bind,
    validate_port_for_connect,
)
from .errors import AwsIoError, ErrorCode
from .event_loop._socket_tools import Buffer, checked

__all__ = [
    "Socket",
    "SocketDirection",
    "SocketDomain",
    "SocketEndpoint",
    "SocketOptions",
    "SocketState",
    "SocketType",
    "is_network_interface_name_valid",
    "parse_ipv4_address",
    "parse_ipv6_address",
    "validate_port_for_bind",
    "validate_port_for_connect",
]

logger = log.logger(log.LogSubject.SOCKET)

READ_SIZE = 64 * 1024
"""Bytes that a read takes at most by default: as many as a datagram can have."""

_T = TypeVar("_T")

ReadableCallback = Callable[["Socket", AwsIoError | None], object]


class Socket:
    """A socket of `SocketOptions`. `async with` closes it.

    Making one raises IO_SOCKET_INVALID_OPTIONS for options that the kernel refuses,
    IO_SOCKET_UNSUPPORTED_ADDRESS_FAMILY for a domain that it lacks, ERROR_MAX_FDS_EXCEEDED. Any
    thread.

    Operations raise ERROR_IO_EVENT_LOOP_THREAD_ONLY on another thread or loop than the socket's
    own, and IO_SOCKET_CLOSED once it is closed, but for those that are for a new one.
    """

    options: SocketOptions
    """Those it was made with; `set_options` changes them."""
    local_endpoint: SocketEndpoint | None
    """Its own address, once it has one."""
    remote_endpoint: SocketEndpoint | None
    """The peer's address, once it has one. For an accepted LOCAL socket, the listener's."""

    def __init__(self, options: SocketOptions | None = None) -> None:
        options = options if options is not None else SocketOptions()
        self._set_up(create(options), options, SocketState.INIT)

    def _set_up(
        self,
        sock: OsSocket,
        options: SocketOptions,
        state: SocketState,
        local: SocketEndpoint | None = None,
        remote: SocketEndpoint | None = None,
    ) -> None:
        self._sock = sock
        self.options = options
        self._state = state
        self.local_endpoint = local
        self.remote_endpoint = remote
        self._io = LoopIo(sock.fileno(), self)

    @classmethod
    def from_socket(cls, sock: OsSocket, options: SocketOptions | None = None) -> Self:
        """Take over an OS socket, in whatever state it is. Any thread.

        The descriptor goes over: `sock` itself is closed afterwards, as after `sock.detach()`.
        With `options`, they are set on it; otherwise its settings stay as they are.

        Raises IO_SOCKET_INVALID_OPTIONS if they are of another domain or type, and TypeError for an
        `ssl.SSLSocket`; it is still the caller's then.
        """
        if isinstance(sock, ssl.SSLSocket):
            raise TypeError("an SSLSocket has a TLS session of its own: pass the plain socket")
        own = options_of(sock)
        if options is not None:
            own.require_same_kind(options)
            options.apply(sock)
        state = state_of(sock)
        local = None if state is SocketState.INIT else own_endpoint(sock, own.domain)
        remote = peer_endpoint(sock, own.domain)
        self = cls.__new__(cls)
        self._set_up(moved(sock), options or own, state, local, remote)
        return self

    def __repr__(self) -> str:
        ends = {"local": self.local_endpoint, "remote": self.remote_endpoint}
        shown = "".join(f" {name}={end}" for name, end in ends.items() if end is not None)
        return f"<{type(self).__name__} fd={self.fileno()} {self._state.name}{shown}>"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self.close()

    # What it is: any thread

    @property
    def state(self) -> SocketState:
        """Where it is in its life."""
        return self._state

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None:
        """The loop it belongs to, if it does so far."""
        return self._io.loop

    @property
    def is_open(self) -> bool:
        """Whether it has its descriptor: it is neither closed nor detached."""
        return self._state is not SocketState.CLOSED

    def fileno(self) -> int:
        """Its descriptor; -1 when it is closed."""
        return self._sock.fileno()

    def get_bound_address(self) -> SocketEndpoint:
        """The local address; raises IO_SOCKET_ILLEGAL_OPERATION_FOR_STATE if it has none."""
        if self.local_endpoint is None:
            raise self._illegal("it has no local address, bind() first")
        return self.local_endpoint

    def get_error(self) -> AwsIoError | None:
        """The error that is pending on the socket (SO_ERROR), which this clears; None for none."""
        if not self.is_open:
            return self._closed()
        number = self._sock.getsockopt(SOL_SOCKET, SO_ERROR)
        if not number:
            return None
        return errors.translate(OSError(number, os.strerror(number)), repr(self))

    def set_options(self, options: SocketOptions) -> None:
        """Give it other options, of the same domain and type. One thread at a time.

        Raises IO_SOCKET_INVALID_OPTIONS, naming what the kernel refuses or what differs.
        """
        if not self.is_open:
            raise self._closed()
        self.options.require_same_kind(options)
        options.apply(self._sock)
        self.options = options

    def assign_to_event_loop(self, loop: asyncio.AbstractEventLoop) -> None:
        """Make it `loop`'s: from now on it is used there only. Any thread.

        Without this it becomes that loop's on which its first operation is made. Raises
        IO_EVENT_LOOP_ALREADY_ASSIGNED if it belongs to a loop.
        """
        if not self.is_open:
            raise self._closed()
        self._io.assign(loop)

    # From nothing to a connection

    def bind(self, endpoint: SocketEndpoint) -> None:
        """Bind it to a local address. A datagram socket can be read from then. Any thread.

        Port 0 has the system choose one: see `get_bound_address`. Raises
        IO_SOCKET_INVALID_ADDRESS, IO_SOCKET_ADDRESS_IN_USE, ERROR_NO_PERMISSION, and
        IO_SOCKET_ILLEGAL_OPERATION_FOR_STATE if it is not new. If the kernel refuses the address,
        all that is left is to close it.
        """
        stream = self.options.type is SocketType.STREAM
        bound = SocketState.BOUND if stream else SocketState.RECEIVING
        self._require_move("bind", bound)
        check_endpoint(endpoint)
        validate_port_for_bind(endpoint.port, self.options.domain)
        address = to_sockaddr(endpoint, self.options.domain)
        try:
            self._sock.bind(address)
        except OSError as exc:
            self._move_to(SocketState.ERROR)
            raise errors.translate(exc, f"bind to {endpoint}") from exc
        self.local_endpoint = own_endpoint(self._sock, self.options.domain)
        self._move_to(bound)

    def listen(self, backlog: int = 1024) -> None:
        """Have the kernel queue connections, `backlog` of them at most, for `accept`. Any thread.

        Raises IO_SOCKET_INVALID_OPERATION_FOR_TYPE for datagrams, IO_SOCKET_ADDRESS_IN_USE, and
        IO_SOCKET_ILLEGAL_OPERATION_FOR_STATE if it is not bound.
        """
        self._require_stream("listen")
        self._require_move("listen", SocketState.LISTENING)
        try:
            self._sock.listen(backlog)
        except OSError as exc:
            self._move_to(SocketState.ERROR)
            raise errors.translate(exc, f"listen on {self.local_endpoint}") from exc
        self._move_to(SocketState.LISTENING)
        logger.debug("%r", self)

    async def connect(self, endpoint: SocketEndpoint) -> None:
        """Connect to a peer, in `options.connect_timeout` seconds at most.

        A datagram socket, which may be bound before, only remembers the peer: nothing is sent.

        Raises IO_SOCKET_INVALID_ADDRESS, IO_SOCKET_CONNECTION_REFUSED, IO_SOCKET_NO_ROUTE_TO_HOST,
        IO_SOCKET_NETWORK_DOWN, IO_SOCKET_TIMEOUT, ERROR_FILE_INVALID_PATH, IO_SOCKET_CLOSED if it
        is closed meanwhile, and IO_SOCKET_ILLEGAL_OPERATION_FOR_STATE if it is not new. An attempt
        that fails or is cancelled closes the socket: it cannot be taken back otherwise.
        """
        self._io.require_loop()
        self._require_move("connect", SocketState.CONNECTING)
        check_endpoint(endpoint)
        validate_port_for_connect(endpoint.port, self.options.domain)
        address = to_sockaddr(endpoint, self.options.domain)
        self._move_to(SocketState.CONNECTING)
        seconds = self.options.connect_timeout
        try:
            async with asyncio.timeout(seconds):
                await self._establish(f"connect to {endpoint}", address)
        except TimeoutError as exc:
            self.close()
            if isinstance(exc, AwsIoError):
                raise  # the kernel gave up first
            detail = f"connect to {endpoint}: no answer in {seconds:g} s"
            raise errors.make(ErrorCode.IO_SOCKET_TIMEOUT, detail) from exc
        except BaseException:
            self.close()
            raise
        self.remote_endpoint = endpoint
        self.local_endpoint = own_endpoint(self._sock, self.options.domain)
        self._move_to(SocketState.CONNECTED)
        logger.debug("%r", self)

    async def _establish(self, what: str, address: Any) -> None:
        try:
            self._sock.connect(address)
            return
        except (BlockingIOError, InterruptedError) as exc:  # it goes on
            if exc.errno == errno.EAGAIN:  # the backlog of a LOCAL listener is full: that is all
                raise errors.translate(exc, what) from exc
        except OSError as exc:
            raise errors.translate(exc, what) from exc
        await self._io.until_writable()
        if not self.is_open:
            raise errors.make(ErrorCode.IO_SOCKET_CLOSED, f"{what}: closed meanwhile")
        number = self._sock.getsockopt(SOL_SOCKET, SO_ERROR)
        if number:
            raise errors.translate(OSError(number, os.strerror(number)), what)

    async def accept(self) -> "Socket":
        """The next connection. It belongs to no loop yet, and has the listener's options.

        Raises IO_SOCKET_INVALID_OPERATION_FOR_TYPE for datagrams,
        IO_SOCKET_ILLEGAL_OPERATION_FOR_STATE if it does not listen, and ERROR_MAX_FDS_EXCEEDED, in
        which case the connection waits for a later call. Cancellation loses no connection.
        """
        self._require_stream("accept")
        return await self._io.read(self._accept, "accept")

    def _accept(self) -> "Socket":
        if not self.is_open:
            raise self._closed()
        if self._state is not SocketState.LISTENING:
            raise self._illegal("cannot accept, listen() first")
        sock, peer = accept(self._sock)
        try:
            self.options.apply(sock)
        except AwsIoError:
            pass  # reset in the meantime; macOS says EINVAL then
        domain = self.options.domain
        local = remote = self.local_endpoint
        if domain is not SocketDomain.LOCAL:
            local, remote = own_endpoint(sock, domain), from_sockaddr(peer, domain)
        connection = Socket.__new__(Socket)
        connection._set_up(sock, self.options, SocketState.CONNECTED, local, remote)
        logger.debug("%r: accepted %r", self, connection)
        return connection

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> "Socket":
        """The next connection, until the listener is closed. Raises what `accept` raises."""
        try:
            return await self.accept()
        except AwsIoError:
            if self.is_open:
                raise
        raise StopAsyncIteration

    # Bytes

    async def read(self, max_bytes: int = READ_SIZE) -> bytes:
        """Up to `max_bytes` bytes, as soon as there are some, or one datagram.

        b"" is the end of a stream, or an empty datagram. Raises IO_SOCKET_NOT_CONNECTED if it
        cannot be read from, IO_SOCKET_CLOSED also if the peer reset the connection, and
        IO_SOCKET_CONNECTION_REFUSED if a datagram that was sent before found nobody. Cancellation
        loses no data.
        """
        _check_size(max_bytes)
        return await self._io.read(partial(self._receive, self._sock.recv, max_bytes))

    async def read_into(self, buffer: bytearray | memoryview) -> int:
        """Read into `buffer`, and say how many bytes there were. Otherwise like `read`."""
        _check_size(memoryview(buffer).nbytes)
        return await self._io.read(partial(self._receive, self._sock.recv_into, buffer))

    def read_nowait(self, max_bytes: int = READ_SIZE) -> bytes:
        """What there is now. Raises IO_READ_WOULD_BLOCK if that is nothing; otherwise like `read`.

        `subscribe_to_readable_events` tells when to read again.
        """
        _check_size(max_bytes)
        try:
            return self._io.read_now(partial(self._receive, self._sock.recv, max_bytes))
        except (BlockingIOError, InterruptedError) as exc:
            raise errors.make(ErrorCode.IO_READ_WOULD_BLOCK, repr(self)) from exc

    def _receive(self, call: Callable[[Any], _T], argument: Any) -> _T:
        self._require("read", READABLE)
        return call(argument)

    def subscribe_to_readable_events(self, callback: ReadableCallback) -> None:
        """Have `callback(socket, None)` called when there is something to read.

        It is called on the loop, once; again only after a read, when there is more or more comes.
        `callback(socket, error)` tells that the peer has hung up (IO_SOCKET_CLOSED: what it sent
        before can still be read, and no call follows), or of an error of the socket.

        Raises IO_SOCKET_NOT_CONNECTED if it cannot be read from, ERROR_IO_ALREADY_SUBSCRIBED, and
        TypeError for what cannot be called.
        """
        check_callback(callback)
        self._io.require_loop()
        self._require("subscribe", READABLE)

        def tell(event: ReadEvent) -> None:
            if event is ReadEvent.READABLE:
                callback(self, None)
            elif event is ReadEvent.HANG_UP:
                callback(self, errors.make(ErrorCode.IO_SOCKET_CLOSED, f"by the peer: {self!r}"))
            elif error := self.get_error():
                callback(self, error)

        self._io.subscribe(tell)

    def unsubscribe_from_readable_events(self) -> None:
        """Have the callback called no more. Raises ERROR_IO_NOT_SUBSCRIBED."""
        self._io.unsubscribe()

    async def write(self, data: Buffer) -> None:
        """Send `data`, as one datagram if they are; returns when the kernel has the last byte.

        Several writes may wait: they are made in the order of the calls. `data` must not change
        before this returns. Raises IO_SOCKET_NOT_CONNECTED if it cannot be written to, and
        IO_SOCKET_CLOSED also if the peer is gone. Cancellation drops what has not been sent: on a
        stream, that may leave a part of `data` sent.
        """
        await self._io.write(memoryview(checked(data)), self._send)

    def _send(self, data: memoryview) -> int:
        self._require("write", WRITABLE)
        return self._sock.send(data)

    # The end

    def shutdown_dir(self, direction: SocketDirection) -> None:
        """End one direction: the peer reads the end of the stream, or nothing is read any more.

        Reads or writes of that direction that wait fail with IO_SOCKET_NOT_CONNECTED, and later
        ones do. Idempotent. Raises IO_SOCKET_NOT_CONNECTED if there is no connection (any more).
        """
        self._io.require_loop_or_idle()
        moves = WITHOUT[direction]
        if self._state in moves.values():
            return
        self._require(f"shut down {direction.name}", moves.keys())
        try:
            self._sock.shutdown(direction.value)
        except OSError as exc:
            raise errors.translate(exc, f"shut down {direction.name}: {self!r}") from exc
        self._move_to(moves[self._state])
        if direction is SocketDirection.READ:
            self._io.wake_readers()
        else:
            self._io.wake_writers()

    def close(self) -> None:
        """Close it; idempotent. Whoever waits for it gets IO_SOCKET_CLOSED.

        On its loop's thread, or on any while that loop does not run. Data that was written is
        still sent; data that waits to be written is lost. The file of a LOCAL listener stays.
        """
        if self.is_open:
            self._let_go("is closed")
            self._sock.close()

    def detach(self) -> OsSocket:
        """Hand the non-blocking OS socket over to a new owner; this one is closed.

        On its loop's thread, or on any while that loop does not run. Whoever waits gets
        IO_SOCKET_CLOSED.
        """
        if not self.is_open:
            raise self._closed()
        self._let_go("is handed over")
        return moved(self._sock)

    def _let_go(self, how: str) -> None:
        self._io.require_loop_or_idle()
        logger.debug("%r %s", self, how)
        self._move_to(SocketState.CLOSED)
        self._io.close()

    # States and errors

    def _move_to(self, state: SocketState) -> None:
        self._require_move(f"become {state.name}", state)
        self._state = state

    def _require_move(self, what: str, state: SocketState) -> None:
        if state not in MOVES[self._state]:
            raise self._illegal(f"cannot {what}")

    def _require(self, what: str, states: Collection[SocketState]) -> None:
        if not self.is_open:
            raise self._closed()
        if self._state not in states:
            raise errors.make(ErrorCode.IO_SOCKET_NOT_CONNECTED, f"cannot {what}: {self!r}")

    def _require_stream(self, what: str) -> None:
        if self.options.type is not SocketType.STREAM:
            raise errors.make(
                ErrorCode.IO_SOCKET_INVALID_OPERATION_FOR_TYPE,
                f"{what} is for STREAM sockets; datagrams can be read after bind()",
            )

    def _illegal(self, what: str) -> AwsIoError:
        return errors.make(ErrorCode.IO_SOCKET_ILLEGAL_OPERATION_FOR_STATE, f"{what}: {self!r}")

    def _closed(self) -> AwsIoError:
        return errors.make(ErrorCode.IO_SOCKET_CLOSED, repr(self))


def _check_size(size: int) -> None:
    if size < 1:
        raise ValueError(f"there must be room for at least one byte, not for {size}")
