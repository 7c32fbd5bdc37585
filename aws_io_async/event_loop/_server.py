"""Listening sockets: accepting connections, and the `Server` that owns them."""

import asyncio
import errno
import os
import socket
import ssl as ssl_module
import sys
from asyncio.log import logger
from asyncio.trsock import TransportSocket
from collections.abc import Callable
from typing import Any

from ._scheduler import Scheduler
from ._socket_tools import disable_nagle
from ._tls_transport import TlsProtocol
from ._transport import SocketTransport

ACCEPT_RETRY_DELAY = 1.0
"""Seconds, as in asyncio: how long a listener rests when the process is out of descriptors."""

_OUT_OF_RESOURCES = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}


class _Listener:
    """A listening socket, and what it tells of its connections in advance."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.inherits_nodelay = sys.platform == "linux"
        if self.inherits_nodelay:
            disable_nagle(sock)
        self.connections_address = _address_of_connections(sock)
        """Their own address; None if it differs between them."""
        self.is_starved = False
        """Whether it was told that there are no descriptors, and has accepted nothing since."""
        self._family, self._type, self._proto = int(sock.family), int(sock.type), sock.proto
        self._poll = 0
        self._burst = 1

    def accept(self) -> tuple[socket.socket, Any]:
        """`socket.accept`, which asks the listener's enums each time: 2 us."""
        fd, address = self.sock._accept()  # type: ignore[attr-defined]  # typeshed has it not
        return socket.socket(self._family, self._type, self._proto, fd), address

    def burst(self, poll: int, backlog: int) -> int:
        """How many connections to accept after this one of the loop's polls.

        One, as there is mostly one, and asking for a second costs a system call; more and more
        while the listener is ready at poll after poll.
        """
        self._burst = min(2 * self._burst, max(backlog, 1)) if poll == self._poll + 1 else 1
        self._poll = poll
        return self._burst


def _address_of_connections(sock: socket.socket) -> Any:
    """That of the listener, if it is bound to one address and not to all."""
    address = sock.getsockname()
    if sock.family == socket.AF_UNIX:
        return address
    if sock.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in _WILDCARDS:
        return address
    return None


_WILDCARDS = "0.0.0.0", "::", "::ffff:0.0.0.0"
"""What a listener that is bound to every address of its families has as its own."""


class Server(asyncio.AbstractServer):
    """What `create_server` and `create_unix_server` return. Thread: the loop's."""

    def __init__(
        self,
        loop: Scheduler,
        sockets: list[socket.socket],
        protocol_factory: Callable[[], asyncio.BaseProtocol],
        *,
        ssl: ssl_module.SSLContext | None,
        backlog: int,
        ssl_handshake_timeout: float | None,
        ssl_shutdown_timeout: float | None,
        unlink_inode: int | None = None,
    ) -> None:
        self._loop = loop
        self._sockets: list[socket.socket] | None = sockets
        self._protocol_factory = protocol_factory
        self._ssl_context = ssl
        self._backlog = backlog
        self._ssl_handshake_timeout = ssl_handshake_timeout
        self._ssl_shutdown_timeout = ssl_shutdown_timeout
        self._unlink_inode = unlink_inode
        self._connections = 0
        self._waiters: list[asyncio.Future[None]] | None = []
        self._resting: dict[socket.socket, asyncio.TimerHandle] = {}
        self._serving = False
        self._serving_forever: asyncio.Future[None] | None = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} sockets={self.sockets!r}>"

    @property
    def sockets(self) -> tuple[TransportSocket, ...]:
        """The listening sockets; empty once closed."""
        return tuple(TransportSocket(sock) for sock in self._sockets or ())

    def get_loop(self) -> asyncio.AbstractEventLoop:
        return self._loop

    def is_serving(self) -> bool:
        return self._serving

    # Serving

    async def start_serving(self) -> None:
        self._start_serving()

    def _start_serving(self) -> None:
        """Listen, idempotently; RuntimeError once closed."""
        if self._sockets is None:
            raise RuntimeError(f"server {self!r} is closed")
        if self._serving:
            return
        self._serving = True
        for sock in self._sockets:
            sock.listen(self._backlog)
            self._watch(_Listener(sock))

    async def serve_forever(self) -> None:
        if self._serving_forever is not None:
            raise RuntimeError(f"server {self!r} is already being awaited on serve_forever()")
        self._start_serving()
        self._serving_forever = self._loop.create_future()
        try:
            await self._serving_forever
        except asyncio.CancelledError:
            self.close()
            self.close_clients()  # as asyncio from Python 3.14 on: idle ones would be waited for
            try:
                await self.wait_closed()
            finally:
                raise
        finally:
            self._serving_forever = None

    def _watch(self, listener: "_Listener") -> None:
        self._loop._add_reader(listener.sock.fileno(), self._accept, listener)

    def _accept(self, listener: "_Listener") -> None:
        """Take in what has connected, at most a backlog's worth before the others' turn."""
        for _ in range(listener.burst(self._loop._statistics.polls, self._backlog)):
            try:
                connection, address = listener.accept()
            except ConnectionAbortedError:  # this one has gone, others may wait behind it
                continue
            except (BlockingIOError, InterruptedError):
                return
            except OSError as exc:
                if exc.errno not in _OUT_OF_RESOURCES:
                    raise
                self._rest(listener, exc)
                return
            listener.is_starved = False
            connection.setblocking(False)
            self._serve(connection, address, listener)
            if self._sockets is None:  # closed by a protocol's constructor
                return

    def _rest(self, listener: "_Listener", exc: OSError) -> None:
        """Out of descriptors or memory: the listener stays readable, so look away for a while."""
        if self._sockets is None or listener.sock in self._resting:
            return
        if not listener.is_starved:  # that may take long: a line a second would not help
            listener.is_starved = True
            self._loop.call_exception_handler(
                {
                    "message": "socket.accept() out of system resource",
                    "exception": exc,
                    "socket": TransportSocket(listener.sock),
                }
            )
        self._loop._remove_reader(listener.sock.fileno())
        self._resting[listener.sock] = self._loop.call_later(
            ACCEPT_RETRY_DELAY, self._resume, listener
        )

    def _resume(self, listener: "_Listener") -> None:
        del self._resting[listener.sock]
        self._watch(listener)

    def _serve(self, connection: socket.socket, peername: Any, listener: _Listener) -> None:
        """Hand a connection to a protocol of its own. What goes wrong ends this connection only."""
        try:
            protocol = self._protocol_factory()
            if self._ssl_context is not None:
                protocol = self._with_tls(protocol)
            transport = SocketTransport(
                self._loop,
                connection,
                protocol,
                peername=peername,
                sockname=listener.connections_address,
                nodelay_is_set=listener.inherits_nodelay,
                server=self,
            )
        except (SystemExit, KeyboardInterrupt):
            connection.close()
            raise
        except BaseException as exc:
            connection.close()
            self._loop.call_exception_handler(
                {
                    "message": "Error on transport creation for incoming connection",
                    "exception": exc,
                }
            )
            return
        transport.start()

    def _with_tls(self, protocol: asyncio.BaseProtocol) -> TlsProtocol:
        waiter: asyncio.Future[None] = self._loop.create_future()
        waiter.add_done_callback(self._handshake_done)
        assert self._ssl_context is not None
        return TlsProtocol(
            self._loop,
            protocol,
            self._ssl_context,
            waiter,
            server_side=True,
            handshake_timeout=self._ssl_handshake_timeout,
            shutdown_timeout=self._ssl_shutdown_timeout,
        )

    def _handshake_done(self, waiter: "asyncio.Future[None]") -> None:
        """A peer that fails to shake hands is no news, unless someone is debugging."""
        if waiter.cancelled():
            return
        exc = waiter.exception()
        if exc is not None and self._loop.get_debug():
            self._loop.call_exception_handler(
                {
                    "message": "Error on transport creation for incoming connection",
                    "exception": exc,
                }
            )

    # Connections

    def _attach(self) -> None:
        self._connections += 1

    def _detach(self) -> None:
        self._connections -= 1
        self._wake_if_ended()

    def _transports(self) -> list[SocketTransport]:
        """The connections that are open. Looked for when asked: most servers never are."""
        return [
            transport
            for reference in self._loop._transports.values()
            if isinstance((transport := reference()), SocketTransport) and transport._server is self
        ]

    def close_clients(self) -> None:
        """Close every connection, with what has been written to it sent first."""
        for transport in self._transports():
            protocol = transport.get_protocol()
            if isinstance(protocol, TlsProtocol):
                protocol.app_transport.close()
            else:
                transport.close()

    def abort_clients(self) -> None:
        """Close every connection at once."""
        for transport in self._transports():
            transport.abort()

    # Closing

    def close(self) -> None:
        sockets, self._sockets = self._sockets, None
        if sockets is None:
            return
        self._serving = False
        for timer in self._resting.values():
            timer.cancel()
        self._resting.clear()
        for listener in sockets:
            self._loop._remove_reader(listener.fileno())
            self._unlink(listener)
            listener.close()
        if self._serving_forever is not None and not self._serving_forever.done():
            self._serving_forever.cancel()
        self._wake_if_ended()

    def _unlink(self, listener: socket.socket) -> None:
        """Remove the file of a Unix socket, if it is still this one's."""
        if self._unlink_inode is None:
            return
        path = listener.getsockname()
        try:
            if os.stat(path).st_ino == self._unlink_inode:
                os.unlink(path)
        except FileNotFoundError:
            pass
        except OSError as exc:
            logger.error("Unable to clean up listening UNIX socket %r: %r", path, exc)

    def _wake_if_ended(self) -> None:
        if self._sockets is not None or self._connections or self._waiters is None:
            return
        waiters, self._waiters = self._waiters, None
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def wait_closed(self) -> None:
        """Wait until the server is closed and its last connection has ended, in either order."""
        if self._waiters is None:
            return
        waiter: asyncio.Future[None] = self._loop.create_future()
        self._waiters.append(waiter)
        try:
            await waiter
        finally:
            if self._waiters is not None:
                self._waiters.remove(waiter)
