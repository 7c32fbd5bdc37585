"""From a connected socket to a channel that is ready for the application, on either side.

Theory of operation. `ChannelSetup` is what the caller asked for, `NewChannel` the set-up of one
channel. The socket handler is put in first and connected to a transport, which reads nothing as
long as there is no handler to its right. Then TLS negotiates, if it is asked for. The channel is
ready at the moment in which TLS says so: the application's handlers are put in, and `on_setup` is
called, before the first plaintext passes. Until then, any end of the channel is a failure of the
set-up, whoever has brought it about; afterwards it is told to `on_shutdown`.
"""

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, cast

from ..alpn_handler import AlpnHandler
from ..channel import Channel, ChannelHandler, ChannelSlot, ChannelState
from ..errors import AwsIoError, ErrorCode, TlsError, make, translate
from ..message_pool import MAX_READ_SIZE
from ..socket_channel_handler import SocketChannelHandler
from ..tls_channel_handler import TlsChannelHandler
from ..tls_context import TlsConnectionOptions
from ._arguments import check_callables, check_whole_number

Notified = Callable[[Channel | None, BaseException | None], object]
"""Called on the channel's thread; the channel is None if there is none, because of the error."""

Handlers = Callable[[], Iterable[ChannelHandler]]
"""Makes the application's handlers for one channel, left to right."""

OnProtocolNegotiated = Callable[[ChannelSlot, str], ChannelHandler | None]
"""Makes the handler for the protocol that ALPN has settled on."""


class TlsHandler(Protocol):
    """What a bootstrap needs of a TLS handler, its own or the user's."""

    def start_negotiation(self) -> object: ...


TlsHandlerFactory = Callable[[TlsConnectionOptions, bool], ChannelHandler]
"""Makes the TLS handler of one channel from the options, and whether it is the server's side.

The handler has `start_negotiation()`, and calls the options' `on_negotiation_result` once. If it
has not done so after `timeout` seconds, or when the channel ends, the set-up has failed.
"""


@dataclass(frozen=True, kw_only=True)
class ChannelSetup:
    """What is common to all channels of a bootstrap's call."""

    tls: TlsConnectionOptions | None = None
    tls_handler_factory: TlsHandlerFactory = TlsChannelHandler
    on_protocol_negotiated: OnProtocolNegotiated | None = None
    handlers: Handlers | None = None
    on_creation: Callable[[Channel], object] | None = None
    on_setup: Notified | None = None
    on_shutdown: Notified | None = None
    enable_read_back_pressure: bool = False
    max_read_size: int = MAX_READ_SIZE
    half_close: bool = False

    def __post_init__(self) -> None:
        if self.handlers is not None and not callable(self.handlers):
            raise TypeError(f"handlers must be a function that makes them, not {self.handlers!r}")
        check_callables(
            tls_handler_factory=self.tls_handler_factory,
            on_protocol_negotiated=self.on_protocol_negotiated,
            handlers=self.handlers,
        )
        if check_whole_number("max_read_size", self.max_read_size) < 1:
            raise ValueError(f"max_read_size must be positive, not {self.max_read_size!r}")

    def report_failure(self, error: BaseException) -> None:
        """Tell `on_setup` that there is no channel. Thread: that of a loop."""
        if self.on_setup is None:
            return
        if isinstance(error, asyncio.CancelledError):
            error = translate(error)
        try:
            self.on_setup(None, error)
        except Exception as exc:
            asyncio.get_running_loop().call_exception_handler(
                {"message": f"on_setup {self.on_setup!r} failed", "exception": exc}
            )


class NewChannel:
    """The set-up of one channel on the running loop. Thread: that of the loop.

    `on_end` is called when a channel ends that was ready.
    """

    __slots__ = (
        "_channel", "_negotiation", "_on_end", "_server_side", "_setup", "is_ready",
    )  # fmt: skip

    def __init__(
        self,
        setup: ChannelSetup,
        *,
        server_side: bool,
        on_end: Callable[[], object] | None = None,
    ) -> None:
        self._setup = setup
        self._server_side = server_side
        self._on_end = on_end
        self._channel: Channel
        self._negotiation: asyncio.Future[BaseException | None]
        self.is_ready = False
        """Whether the application has been told of the channel."""

    async def set_up(self, sock: socket.socket, peer: str) -> Channel:
        """The channel over `sock`, which belongs to it from here on. To be called once.

        Raises an AwsIoError whose text names `peer`, or what a function of the user's raised.
        Whatever it raises, cancellation included, the channel has been shut down.
        """
        try:
            await self._open(sock)
        except (AwsIoError, OSError) as exc:
            raise _named(exc, peer) from exc
        return self._channel

    async def _open(self, sock: socket.socket) -> None:
        setup = self._setup
        self._negotiation = asyncio.get_running_loop().create_future()
        try:
            self._channel = await Channel.open(
                on_shutdown=self._channel_ended,
                enable_read_back_pressure=setup.enable_read_back_pressure,
            )
        except BaseException:
            sock.close()
            raise
        try:
            await self._open_transport(sock)
            if setup.on_creation is not None:
                setup.on_creation(self._channel)
            if setup.tls is None:
                self._get_ready()
            else:
                await self._negotiate(setup.tls)
        except BaseException as exc:
            await self._abandon(exc)
            raise

    async def _open_transport(self, sock: socket.socket) -> None:
        handler = SocketChannelHandler(
            max_read_size=self._setup.max_read_size, half_close=self._setup.half_close
        )
        self._channel.append(handler)
        delays = _delays_small_writes(sock)
        # A transport that is half made leaves open whose the descriptor is. To make one takes a
        # few turns of the loop and depends on nobody else, so it is done to the end.
        opening = asyncio.ensure_future(
            self._channel.loop.connect_accepted_socket(lambda: handler, sock)
        )
        opening.add_done_callback(partial(_close_unless_opened, sock, handler))
        try:
            await asyncio.shield(opening)
        except BaseException:
            await asyncio.wait({opening})
            raise
        if delays:  # the loops' transports do not, but the socket's options say so
            with contextlib.suppress(OSError):  # the connection is gone
                handler.get_socket().setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 0)

    async def _negotiate(self, options: TlsConnectionOptions) -> None:
        handler = self._append_tls(options)
        timer = None
        try:
            handler.start_negotiation()
            if options.timeout:  # for handlers that have no timer of their own
                timer = self._channel.loop.call_later(options.timeout, self._timed_out, options)
            error = await self._negotiation
        except asyncio.CancelledError:
            if not self.is_ready:
                raise
            error = self._negotiation.result()  # the application has the channel already
        finally:
            if timer is not None:
                timer.cancel()
        if error is not None:
            raise error

    def _append_tls(self, options: TlsConnectionOptions) -> TlsHandler:
        users_callback = options.on_negotiation_result

        def negotiated(handler: Any, slot: Any, error: BaseException | None) -> None:
            try:
                if users_callback is not None:
                    users_callback(handler, slot, error)
                if error is None and not self._negotiation.done():
                    self._get_ready()
            except Exception as exc:
                error = exc
            self._settle(error)

        on_protocol_negotiated = self._setup.on_protocol_negotiated
        handler = self._setup.tls_handler_factory(
            options.copy(
                on_negotiation_result=negotiated,
                advertise_alpn_message=options.advertise_alpn_message
                or on_protocol_negotiated is not None,
            ),
            self._server_side,
        )
        self._channel.append(handler)
        if on_protocol_negotiated is not None:
            self._channel.append(AlpnHandler(on_protocol_negotiated))
        return cast(TlsHandler, handler)

    def _settle(self, error: BaseException | None) -> None:
        if not self._negotiation.done():
            self._negotiation.set_result(error)

    def _timed_out(self, options: TlsConnectionOptions) -> None:
        detail = f"the TLS handler has reported nothing in {options.timeout:g} s"
        error = make(ErrorCode.IO_TLS_NEGOTIATION_TIMEOUT, detail)
        self._channel.shutdown(error, immediately=True)
        self._settle(error)

    def _get_ready(self) -> None:
        channel, setup = self._channel, self._setup
        if channel.error is not None or channel.state is not ChannelState.ACTIVE:
            raise channel.error or _ended_too_early()
        for handler in setup.handlers() if setup.handlers is not None else ():
            channel.append(handler)
        self.is_ready = True
        if setup.on_setup is not None:
            setup.on_setup(channel, None)

    async def _abandon(self, reason: BaseException) -> None:
        channel = self._channel
        if isinstance(reason, asyncio.CancelledError):
            reason = translate(reason)
            immediately = True
        else:  # if the negotiation has failed, TLS still has to tell the peer why
            immediately = not (self._negotiation.done() and isinstance(reason, AwsIoError))
        channel.shutdown(reason, immediately=immediately)
        cancellation: asyncio.CancelledError | None = None
        try:
            while channel.state is not ChannelState.SHUT_DOWN:
                try:
                    await channel.wait_closed()
                except asyncio.CancelledError as exc:  # perhaps of a loop that is about to close
                    cancellation = exc
                    channel.shutdown(immediately=True)
            if cancellation is not None:
                raise cancellation
        finally:
            del cancellation  # it, its traceback and this frame would keep one another alive

    def _channel_ended(self, channel: Channel, error: BaseException | None) -> None:
        self._settle(error or _ended_too_early())
        if not self.is_ready:
            return
        try:
            if self._setup.on_shutdown is not None:
                self._setup.on_shutdown(channel, error)
        finally:
            if self._on_end is not None:
                self._on_end()


def _close_unless_opened(
    sock: socket.socket, handler: SocketChannelHandler, opening: "asyncio.Future[Any]"
) -> None:
    """If no transport has become the socket's owner, there is no connection any more."""
    if opening.cancelled() or opening.exception() is not None:
        sock.close()
        handler.connection_lost(None)  # uvloop does not say so if it was cancelled just now


def _delays_small_writes(sock: socket.socket) -> bool:
    return sock.family in (socket.AF_INET, socket.AF_INET6) and not sock.getsockopt(
        socket.IPPROTO_TCP, socket.TCP_NODELAY
    )


def _ended_too_early() -> AwsIoError:
    return make(ErrorCode.IO_SOCKET_CLOSED, "the channel ended while it was being set up")


def _named(exc: AwsIoError | OSError, peer: str) -> AwsIoError:
    """The same error, with the peer in its text."""
    if not isinstance(exc, AwsIoError):
        return translate(exc, peer)
    error = make(exc.code, f"{peer}: {exc.detail}" if exc.detail else peer)
    if isinstance(error, TlsError) and isinstance(exc, TlsError):
        error.library, error.reason = exc.library, exc.reason
        error.verify_code, error.verify_message = exc.verify_code, exc.verify_message
    return error
