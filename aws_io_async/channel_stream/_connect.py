"""`connect`: the short way to a client's stream."""

from ..channel import Channel
from ..channel_bootstrap import ClientBootstrap
from ..channel_bootstrap._arguments import Tls
from ..event_loop.group import EventLoopGroup
from ..host_resolver import HostResolver
from ..retry_strategy import RetryStrategy
from ..socket import SocketOptions
from ._handler import WINDOW, check_window
from ._stream import ChannelStream


async def connect(
    host: str,
    port: int = 0,
    *,
    tls: Tls | bool | None = None,
    socket_options: SocketOptions | None = None,
    event_loop_group: EventLoopGroup | None = None,
    host_resolver: HostResolver | None = None,
    retry_strategy: RetryStrategy | None = None,
    window: int = WINDOW,
) -> ChannelStream:
    """A stream to `host`, by the library's resolver and RFC 8305; with TLS if `tls` is given.

    `tls=True` is a client with the system's trust store; other clients are a `TlsContext`, an
    `ssl.SSLContext`, or `TlsConnectionOptions`, which can name another server than `host`. `window`
    is how many bytes may wait to be received. The channel is on the caller's loop, or on one of
    `event_loop_group`; the stream may be used on any.

    Raises what `ClientBootstrap.new_socket_channel` raises, and ValueError if `window` is
    below 1. A cancellation leaves no socket. Thread: of any running loop.
    """
    check_window(window)
    streams: list[ChannelStream] = []

    def attach(channel: Channel | None, error: BaseException | None) -> None:
        if channel is not None:
            streams.append(ChannelStream.attach(channel, window=window))

    bootstrap = ClientBootstrap(event_loop_group, host_resolver=host_resolver)
    await bootstrap.new_socket_channel(
        host,
        port,
        socket_options=socket_options,
        tls=tls,
        on_setup=attach,
        retry_strategy=retry_strategy,
        enable_read_back_pressure=True,
        half_close=True,
    )
    return streams[0]
