"""Client channels: resolve, connect to the address that answers first, set the channel up."""

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable
from functools import partial

from .. import log
from ..channel import Channel
from ..errors import AwsIoError, ErrorCode, make, translate
from ..event_loop._crossing import run_on
from ..event_loop._happy_eyeballs import first_to_succeed
from ..event_loop.group import EventLoopGroup
from ..host_resolver import (
    AddressRecordType,
    HostAddress,
    HostResolutionConfig,
    HostResolver,
)
from ..message_pool import MAX_READ_SIZE
from ..retry_strategy import RetryStrategy
from ..socket import (
    Socket,
    SocketDomain,
    SocketEndpoint,
    SocketOptions,
    validate_port_for_connect,
)
from ..tls_channel_handler import TlsChannelHandler
from ._arguments import (
    IP_DOMAINS,
    Tls,
    check_callables,
    check_optional,
    check_place,
    client_tls,
)
from ._setup import (
    ChannelSetup,
    Handlers,
    NewChannel,
    Notified,
    OnProtocolNegotiated,
    TlsHandlerFactory,
)

ATTEMPT_DELAY = 0.25
"""Seconds until the next address is tried as well (RFC 8305, section 8)."""

_DOMAINS = {
    AddressRecordType.A: SocketDomain.IPV4,
    AddressRecordType.AAAA: SocketDomain.IPV6,
}

logger = log.logger(log.LogSubject.CHANNEL_BOOTSTRAP)


class ClientBootstrap:
    """Makes client channels; see `new_socket_channel`. Thread: any.

    - `event_loop_group`: whose loops the channels are on; by default the caller's running loop.
      Raises TypeError for what is no group.
    - `host_resolver`: by default the process's, `HostResolver.default()`.
    - `host_resolution_config`: how it looks up the hosts of this bootstrap.
    - `on_protocol_negotiated(slot, protocol)`: makes the handler for what ALPN has settled on.
    - `tls_handler_factory`: for a TLS implementation of one's own.
    - `attempt_delay`: seconds after which the next address is tried as well (RFC 8305).

    Raises TypeError for what is of the wrong type, ValueError for a delay that is negative.
    """

    def __init__(
        self,
        event_loop_group: EventLoopGroup | None = None,
        *,
        host_resolver: HostResolver | None = None,
        host_resolution_config: HostResolutionConfig | None = None,
        on_protocol_negotiated: OnProtocolNegotiated | None = None,
        tls_handler_factory: TlsHandlerFactory = TlsChannelHandler,
        attempt_delay: float = ATTEMPT_DELAY,
    ) -> None:
        self._group = check_optional("event_loop_group", event_loop_group, EventLoopGroup)
        self._resolver = check_optional("host_resolver", host_resolver, HostResolver)
        self._resolution = check_optional(
            "host_resolution_config", host_resolution_config, HostResolutionConfig
        )
        if not attempt_delay >= 0:
            raise ValueError(f"attempt_delay must be 0 or more seconds, not {attempt_delay!r}")
        self._attempt_delay = attempt_delay
        self._on_protocol_negotiated = on_protocol_negotiated
        self._tls_handler_factory = tls_handler_factory

    def set_alpn_callback(self, on_protocol_negotiated: OnProtocolNegotiated | None) -> None:
        """Change who makes the handler for a negotiated protocol, for channels to come."""
        self._on_protocol_negotiated = on_protocol_negotiated

    async def new_socket_channel(
        self,
        host: str,
        port: int = 0,
        *,
        socket_options: SocketOptions | None = None,
        tls: Tls | bool | None = None,
        handlers: Handlers | None = None,
        on_creation: Callable[[Channel], object] | None = None,
        on_setup: Notified | None = None,
        on_shutdown: Notified | None = None,
        requested_event_loop: asyncio.AbstractEventLoop | None = None,
        host_resolution_config: HostResolutionConfig | None = None,
        retry_strategy: RetryStrategy | None = None,
        enable_read_back_pressure: bool = False,
        max_read_size: int = MAX_READ_SIZE,
        half_close: bool = False,
    ) -> Channel:
        """Connect to `host`, and set up a channel whose leftmost handlers are socket and TLS.

        With the domains IPV4 and IPV6 `host` is a name or a literal address of either family;
        otherwise it is the address of a `SocketEndpoint`. A name is looked up by the resolver;
        the addresses of `HostResolver.resolve_candidates` are tried as RFC 8305 has it, each for
        `socket_options.connect_timeout` seconds, and those that fail are recorded with it.

        `tls` adds a TLS handler, which verifies that the peer is `host` unless the options name
        another server: `TlsConnectionOptions`, a `TlsContext`, an `ssl.SSLContext`, or True for a
        client with the system's trust store. `handlers()` then makes the application's handlers,
        which are appended. `half_close` and `max_read_size`: see `SocketChannelHandler`.

        Callbacks run on the channel's thread: `on_creation(channel)` before TLS; then, once,
        `on_setup(channel, None)` when the channel is ready, before any data passes, or
        `on_setup(None, error)` if it is not to be; and `on_shutdown(channel, error)` at the end of
        a channel that was ready. What they and `handlers` raise before the channel is ready, or
        when they are told that it is, shuts it down and is raised here.

        With a `retry_strategy`, all that is tried again as long as it says so after an error;
        the host is the partition. Without, it is tried once.

        Raises an AwsIoError that names each address tried and what was wrong with it;
        IO_SOCKET_INVALID_OPTIONS, IO_SOCKET_INVALID_ADDRESS, IO_TLS_CTX_ERROR for arguments that
        cannot be, ERROR_IO_PINNED_EVENT_LOOP_MISMATCH if the bootstrap has a group and
        `requested_event_loop` is not one of its loops, and TypeError for what is of the wrong type,
        before anything is done. A cancellation leaves no socket and no channel. Thread: of any
        running loop.
        """
        options = check_place(host, port, socket_options)
        check_callables(on_creation=on_creation, on_setup=on_setup, on_shutdown=on_shutdown)
        check_optional("requested_event_loop", requested_event_loop, asyncio.AbstractEventLoop)
        validate_port_for_connect(port, options.domain)
        setup = ChannelSetup(
            tls=client_tls(tls, host, options.domain),
            tls_handler_factory=self._tls_handler_factory,
            on_protocol_negotiated=self._on_protocol_negotiated,
            handlers=handlers,
            on_creation=on_creation,
            on_setup=on_setup,
            on_shutdown=on_shutdown,
            enable_read_back_pressure=enable_read_back_pressure,
            max_read_size=max_read_size,
            half_close=half_close,
        )
        connector = _Connector(
            endpoint=SocketEndpoint(host, port),
            options=options,
            setup=setup,
            resolver=self._resolver if self._resolver is not None else HostResolver.default(),
            config=host_resolution_config or self._resolution,
            attempt_delay=self._attempt_delay,
            retry_strategy=check_optional("retry_strategy", retry_strategy, RetryStrategy),
        )
        loop = self._choose_loop(requested_event_loop)
        return await run_on(loop, connector.run(), _discard)

    def _choose_loop(
        self, requested: asyncio.AbstractEventLoop | None
    ) -> asyncio.AbstractEventLoop:
        if requested is None:
            return (self._group or EventLoopGroup.current()).get_next_loop()
        if self._group is not None and requested not in list(self._group):
            raise make(
                ErrorCode.ERROR_IO_PINNED_EVENT_LOOP_MISMATCH,
                f"{requested!r} is not one of the loops of {self._group!r}",
            )
        return requested


@dataclasses.dataclass(kw_only=True)
class _Connector:
    """One call of `new_socket_channel`. Thread: that of the channel's loop."""

    endpoint: SocketEndpoint
    options: SocketOptions
    setup: ChannelSetup
    resolver: HostResolver
    config: HostResolutionConfig | None
    attempt_delay: float
    retry_strategy: RetryStrategy | None
    was_ready: bool = False
    """Whether the application was told of a channel, so that nothing must be tried again."""

    async def run(self) -> Channel:
        """The channel, after as many attempts as it takes."""
        try:
            if self.retry_strategy is None:
                return await self._new_channel()
            async with self.retry_strategy.attempt(self.endpoint.address) as attempt:
                while True:
                    try:
                        return await self._new_channel()
                    except Exception as exc:
                        if self.was_ready:
                            raise
                        await attempt.retry(exc)
        except BaseException as exc:
            logger.debug("no channel to %s: %s", self.endpoint, exc)
            if not self.was_ready:
                self.setup.report_failure(exc)
            raise

    async def _new_channel(self) -> Channel:
        if self.options.domain in IP_DOMAINS:
            sock = await self._connect_to_host()
        else:
            sock = await _connected(Socket(self.options), self.endpoint)
        peer = f"{self.endpoint}"
        if sock.remote_endpoint != self.endpoint and sock.remote_endpoint is not None:
            peer = f"{peer} ({sock.remote_endpoint.address})"
        new = NewChannel(self.setup, server_side=False)
        try:
            return await new.set_up(sock.detach(), peer)
        finally:
            self.was_ready = new.is_ready

    async def _connect_to_host(self) -> Socket:
        addresses = await self.resolver.resolve_candidates(self.endpoint.address, self.config)
        attempts: list[Callable[[], Awaitable[Socket]]] = [
            partial(self._try_address, address) for address in addresses
        ]
        outcome = await first_to_succeed(attempts, self.attempt_delay, Socket.close)
        winner, errors = outcome
        if winner is not None:
            return winner
        try:
            raise _none_connected(self.endpoint, errors)
        finally:
            errors.clear()  # an exception and its traceback would keep one another alive

    async def _try_address(self, address: HostAddress) -> Socket:
        options = dataclasses.replace(self.options, domain=_DOMAINS[address.record_type])
        sock = Socket(options)  # if there can be none, that is not the fault of the address
        try:
            return await _connected(sock, SocketEndpoint(address.address, self.endpoint.port))
        except AwsIoError:
            self.resolver.record_connection_failure(address)
            raise


async def _connected(sock: Socket, endpoint: SocketEndpoint) -> Socket:
    try:
        await sock.connect(endpoint)
    except BaseException:
        sock.close()
        raise
    return sock


def _none_connected(endpoint: SocketEndpoint, errors: list[Exception]) -> AwsIoError:
    """One error for all attempts, with the code of the last one, as in aws-c-io."""
    tried = [translate(error) for error in errors]
    last = tried[-1]
    if len(tried) == 1:
        if f"{endpoint}" in last.detail:
            return last
        error, cause = make(last.code, f"{endpoint}: {last.detail}"), errors[0]
    else:
        details = "; ".join(f"{error.detail}: {error.code.text}" for error in tried)
        error, cause = make(last.code, f"{endpoint}: {details}"), ExceptionGroup("attempts", errors)
    error.__cause__ = cause
    return error


def _discard(channel: Channel) -> None:
    channel.shutdown(immediately=True)
