"""`connect`: the short way to a client's stream."""

import functools

from ..channel import Channel
from ..channel_bootstrap import ClientBootstrap
from ..event_loop.group import EventLoopGroup
from ..host_resolver import HostResolver
from ..retry_strategy import RetryStrategy
from ..socket import SocketOptions
from ..tls_context import TlsConnectionOptions, TlsContext
from ._handler import WINDOW
from ._stream import ChannelStream


async def connect(
    host: str,
    port: int = 0,
    *,
    tls: TlsConnectionOptions | TlsContext | bool | None = None,
    socket_options: SocketOptions | None = None,
    event_loop_group: EventLoopGroup | None = None,
    host_resolver: HostResolver | None = None,
    retry_strategy: RetryStrategy | None = None,
    window: int = WINDOW,
) -> ChannelStream:
    """A stream to `host`, by the library's resolver and RFC 8305; with TLS if `tls` is given.

    `tls=True` is a client with the system's trust store. `window` is how many bytes may wait to
    be received. The channel is on the caller's loop, or on one of `event_loop_group`. Raises what
    `ClientBootstrap.new_socket_channel` raises, and ValueError if `window` is below 1. Thread: of
    any running loop.
    """
    if window < 1:
        raise ValueError(f"window must be positive, not {window!r}")
    streams: list[ChannelStream] = []

    def attach(channel: Channel | None, error: BaseException | None) -> None:
        if channel is not None:
            streams.append(ChannelStream.attach(channel, window=window))

    bootstrap = ClientBootstrap(event_loop_group, host_resolver=host_resolver)
    await bootstrap.new_socket_channel(
        host,
        port,
        socket_options=socket_options,
        tls=_default_client() if tls is True else tls or None,
        on_setup=attach,
        retry_strategy=retry_strategy,
        enable_read_back_pressure=True,
        half_close=True,
    )
    return streams[0]


@functools.cache
def _default_client() -> TlsContext:
    return TlsContext.client()
