"""Server channels: listen, accept, and set up a channel for each connection."""

import asyncio
import contextlib
import dataclasses
import errno
import sys
from collections.abc import Callable
from functools import partial

from .. import log
from ..channel import Channel
from ..errors import AwsIoError, EventLoopShutdownError, OperationCancelledError
from ..event_loop._crossing import run_on
from ..event_loop.group import EventLoopGroup
from ..message_pool import MAX_READ_SIZE
from ..socket import (
    Socket,
    SocketDomain,
    SocketEndpoint,
    SocketOptions,
    validate_port_for_bind,
)
from ..tls_channel_handler import TlsChannelHandler
from ._arguments import (
    IP_DOMAINS,
    Tls,
    check_callables,
    check_optional,
    check_place,
    check_whole_number,
    server_tls,
)
from ._setup import (
    ChannelSetup,
    Handlers,
    NewChannel,
    Notified,
    OnProtocolNegotiated,
    TlsHandlerFactory,
)

BACKLOG = 1024
"""Connections that the kernel keeps until they are accepted."""

ACCEPTS_A_TURN = 16
"""Connections that are accepted before the loop does something else."""

ACCEPT_RETRY_DELAY = 1.0
"""Seconds until the next try, after an accept failed for want of descriptors or memory."""

_EXHAUSTED = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}

logger = log.logger(log.LogSubject.CHANNEL_BOOTSTRAP)


class ServerBootstrap:
    """Makes listeners, which make channels; see `new_socket_listener`. Thread: any.

    `event_loop_group` is whose loops channels are on, by default the caller's running loop. Raises
    TypeError for what is no group.
    `on_protocol_negotiated(slot, protocol)` makes the handler for what ALPN has settled on;
    `tls_handler_factory` is for a TLS implementation of one's own.
    """

    def __init__(
        self,
        event_loop_group: EventLoopGroup | None = None,
        *,
        on_protocol_negotiated: OnProtocolNegotiated | None = None,
        tls_handler_factory: TlsHandlerFactory = TlsChannelHandler,
    ) -> None:
        self._group = check_optional("event_loop_group", event_loop_group, EventLoopGroup)
        self._on_protocol_negotiated = on_protocol_negotiated
        self._tls_handler_factory = tls_handler_factory

    def set_alpn_callback(self, on_protocol_negotiated: OnProtocolNegotiated | None) -> None:
        """Change who makes the handler for a negotiated protocol, for listeners to come."""
        self._on_protocol_negotiated = on_protocol_negotiated

    async def new_socket_listener(
        self,
        host: str,
        port: int = 0,
        *,
        socket_options: SocketOptions | None = None,
        tls: Tls | None = None,
        handlers: Handlers | None = None,
        on_incoming_channel_creation: Callable[[Channel], object] | None = None,
        on_incoming_channel_setup: Notified | None = None,
        on_incoming_channel_shutdown: Notified | None = None,
        on_destroy: "Callable[[SocketListener], object] | None" = None,
        backlog: int = BACKLOG,
        enable_read_back_pressure: bool = False,
        max_read_size: int = MAX_READ_SIZE,
        half_close: bool = False,
        max_handshakes: int | None = None,
    ) -> "SocketListener":
        """Listen on an address (a literal, or a path for LOCAL) and set up a channel for each peer.

        With the domains IPV4 and IPV6 the literal says which one it is. Port 0 has the system
        choose one: see `SocketListener.endpoint`. The arguments mean what they mean for
        `ClientBootstrap.new_socket_channel`. `max_handshakes` is how many connections may be in the
        making at a time, from their acceptance until their channel is ready, TLS and ALPN included;
        others wait in the kernel's backlog. None stands for as many as there are descriptors.
        A connection that fails before its channel is ready
        is reported by `on_incoming_channel_setup(None, error)`, on the channel's loop, or on the
        listener's if there was no channel yet, and to nobody else: the listener goes on.
        `on_destroy(listener)` is called on the listener's loop when it has closed and the last of
        its channels has ended.

        Raises IO_SOCKET_ADDRESS_IN_USE, IO_SOCKET_INVALID_ADDRESS, ERROR_NO_PERMISSION,
        IO_SOCKET_INVALID_OPTIONS, IO_TLS_CTX_ERROR; ValueError if `max_handshakes` is below 1, and
        TypeError for what is of the wrong type. A cancellation leaves no socket. Thread: of any
        running loop; the listener itself is on a loop of the group.
        """
        options = check_place(host, port, socket_options)
        check_callables(
            on_incoming_channel_creation=on_incoming_channel_creation,
            on_incoming_channel_setup=on_incoming_channel_setup,
            on_incoming_channel_shutdown=on_incoming_channel_shutdown,
            on_destroy=on_destroy,
        )
        if options.domain in IP_DOMAINS:
            domain = SocketDomain.IPV6 if ":" in host else SocketDomain.IPV4
            options = dataclasses.replace(options, domain=domain)
        validate_port_for_bind(port, options.domain)
        check_max_handshakes(max_handshakes)
        setup = ChannelSetup(
            tls=server_tls(tls),
            tls_handler_factory=self._tls_handler_factory,
            on_protocol_negotiated=self._on_protocol_negotiated,
            handlers=handlers,
            on_creation=on_incoming_channel_creation,
            on_setup=on_incoming_channel_setup,
            on_shutdown=on_incoming_channel_shutdown,
            enable_read_back_pressure=enable_read_back_pressure,
            max_read_size=max_read_size,
            half_close=half_close,
        )
        group = self._group if self._group is not None else EventLoopGroup.current()
        loop = group.get_next_loop()

        async def listen() -> SocketListener:
            sock = Socket(options)
            try:
                sock.assign_to_event_loop(loop)
                sock.bind(SocketEndpoint(host, port))
                sock.listen(backlog)
                return SocketListener(loop, group, sock, setup, on_destroy, max_handshakes)
            except BaseException:
                sock.close()
                raise

        return await run_on(loop, listen(), SocketListener.close)


class SocketListener:
    """A listening socket and the channels of its connections. Made by a `ServerBootstrap`.

    Thread: any, unless said otherwise. `async with` closes it at the end; channels that are ready
    go on.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        group: EventLoopGroup,
        sock: Socket,
        setup: ChannelSetup,
        on_destroy: "Callable[[SocketListener], object] | None",
        max_handshakes: int | None,
    ) -> None:
        self.loop = loop
        """The one it accepts on; channels may be on others of the group."""
        self.endpoint: SocketEndpoint = sock.get_bound_address()
        """Where it listens."""
        self._group = group
        self._socket = sock
        self._setup = setup
        self._on_destroy = on_destroy
        self._closing = False
        self._alive = 1  # itself, and the channels that have not ended, or are in the making
        self._setting_up: set[asyncio.Task[None]] = set()
        self._room = asyncio.Semaphore(sys.maxsize if max_handshakes is None else max_handshakes)
        self._task = loop.create_task(self._run(), name=f"listener on {self.endpoint}")
        self._task.add_done_callback(self._ended)

    def __repr__(self) -> str:
        return f"<SocketListener {self.endpoint}{' closed' if self._task.done() else ''}>"

    @property
    def is_closed(self) -> bool:
        """Whether it has closed: it accepts no more, and no channel is being set up."""
        return self._task.done()

    async def _run(self) -> None:
        try:
            await self._accept()
        except OSError as exc:
            logger.error("%r can accept no more: %s", self, exc)
            self._setup.report_failure(exc)
        finally:
            self._closing = True
            self._socket.close()
            for task in self._setting_up:
                if not task.cancelling():  # by a loop that ends: once more would disturb it
                    task.cancel()
            if self._setting_up:
                await asyncio.wait(self._setting_up)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self._socket.close()  # if the task was cancelled before it began
        self._one_less()

    async def _accept(self) -> None:
        accepted = 0
        while True:
            await self._room.acquire()
            connection = await self._next_connection()
            self._alive += 1
            task = self.loop.create_task(self._welcome(connection))
            self._setting_up.add(task)
            task.add_done_callback(self._set_up_ended)
            task.add_done_callback(partial(self._turn_away, connection))
            accepted += 1
            if accepted % ACCEPTS_A_TURN == 0:
                await asyncio.sleep(0)

    async def _next_connection(self) -> Socket:
        told = False
        while True:
            try:
                return await self._socket.accept()
            except OSError as exc:
                if exc.errno not in _EXHAUSTED:
                    raise
                if not told:  # that may take long: a line a second would not help
                    told = True
                    logger.error("%r: tries every %g s: %s", self, ACCEPT_RETRY_DELAY, exc)
            await asyncio.sleep(ACCEPT_RETRY_DELAY)

    def _set_up_ended(self, task: "asyncio.Task[None]") -> None:
        self._setting_up.discard(task)
        self._room.release()

    async def _welcome(self, connection: Socket) -> None:
        """Set up the channel of one connection, on a loop of the group."""
        peer = f"{connection.remote_endpoint}"
        sock = connection.detach()
        new: NewChannel | None = None

        async def set_up() -> None:
            nonlocal new
            new = NewChannel(self._setup, server_side=True, on_end=self._channel_ended)
            try:
                await new.set_up(sock, peer)
            except BaseException as exc:
                if not new.is_ready:
                    self._setup.report_failure(exc)
                raise

        try:
            loop = self._group.get_next_loop()
            await (set_up() if loop is self.loop else run_on(loop, set_up()))
        except BaseException as exc:
            if new is None:  # it did not begin
                sock.close()
                self._setup.report_failure(exc)
            if new is None or not new.is_ready:
                self._one_less()
            self._note_failure(exc, peer)

    def _turn_away(self, connection: Socket, task: "asyncio.Task[None]") -> None:
        """Close what the task would have taken over, if it was cancelled before it began."""
        if connection.is_open:
            connection.close()
            self._setup.report_failure(asyncio.CancelledError())
            self._one_less()

    def _note_failure(self, exc: BaseException, peer: str) -> None:
        if isinstance(exc, AwsIoError | OSError):
            logger.debug("%r: no channel for %s: %s", self, peer, exc)
        elif isinstance(exc, Exception):
            self.loop.call_exception_handler(
                {"message": f"{self!r}: no channel for {peer}", "exception": exc}
            )
        else:
            raise exc

    def _channel_ended(self) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self.loop.call_soon_threadsafe(self._one_less)

    def _one_less(self) -> None:
        self._alive -= 1
        if self._alive or self._on_destroy is None:
            return
        try:
            self._on_destroy(self)
        except Exception as exc:
            self.loop.call_exception_handler(
                {"message": f"on_destroy of {self!r} failed", "exception": exc}
            )

    def close(self) -> None:
        """Accept no more, and give up channels that are not ready yet; `aclose` waits for that."""
        with contextlib.suppress(RuntimeError):  # the loop has ended, and closed it
            self.loop.call_soon_threadsafe(self._begin_to_close)

    def _begin_to_close(self) -> None:
        if not self._closing:
            self._closing = True
            self._task.cancel()

    async def aclose(self) -> None:
        """`close`, and wait until it is done. Idempotent. Thread: of any running loop.

        Cancelled, it closes all the same, without being waited for.
        """
        self.close()
        await self.wait_closed()

    async def wait_closed(self) -> None:
        """Wait until it is closed, which this does not do. Thread: of any running loop."""
        with contextlib.suppress(EventLoopShutdownError, OperationCancelledError):  # of the loop
            await run_on(self.loop, self._wait())

    async def _wait(self) -> None:
        await asyncio.wait({self._task})

    async def __aenter__(self) -> "SocketListener":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


def check_max_handshakes(number: int | None) -> None:
    """Raise ValueError or TypeError if it is neither None nor a positive number."""
    if number is not None and check_whole_number("max_handshakes", number) < 1:
        raise ValueError(f"max_handshakes must be positive, or None, not {number!r}")
