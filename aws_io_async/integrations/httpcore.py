"""A network backend for httpcore, and so for httpx: their connections are channels.

    async with httpcore.AsyncConnectionPool(network_backend=ChannelBackend()) as pool:
        response = await pool.request("GET", "https://example.com/")

Names come from the `HostResolver`, and addresses that fail are reported to it; read windows hold
back servers whose answers are not read. For httpx see `aws_io_async.integrations.httpx`.

Needs httpcore 1.0 or newer, which comes with the extra `httpx`.
"""

import asyncio
import contextlib
import select
import ssl
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import anyio
from anyio.abc import SocketAttribute
from anyio.streams.tls import TLSAttribute

try:
    import httpcore
except ModuleNotFoundError as exc:
    message = f'{__name__} needs httpcore: pip install "aws-io-async[httpx]"'
    raise ModuleNotFoundError(message, name=exc.name) from exc

from ..channel import Channel
from ..channel_bootstrap import ClientBootstrap
from ..channel_stream import WINDOW, ChannelStream
from ..errors import AwsIoError
from ..event_loop._crossing import run_on
from ..retry_strategy import RetryStrategy
from ..socket import SocketDomain, SocketOptions
from ..tls_channel_handler import setup_client_tls
from ..tls_context import TlsConnectionOptions, TlsContext

_ATTRIBUTES: dict[str, Any] = {
    "client_addr": SocketAttribute.local_address,
    "server_addr": SocketAttribute.remote_address,
    "socket": SocketAttribute.raw_socket,
    "ssl_object": TLSAttribute.ssl_object,
}

_PEER_HAS_ENDED: int = getattr(select, "POLLRDHUP", 0)
"""Linux can tell the end from data that has not been read."""


class ChannelBackend(httpcore.AsyncNetworkBackend):
    """Connects by a `ClientBootstrap`, by default one of its own. Thread: of any running loop.

    `socket_options` are those of all connections; their `connect_timeout` is for one address, and
    httpcore's for all together. With a `retry_strategy`, connecting is tried again as it says.
    `window` is how many bytes of an answer may wait to be read.
    """

    def __init__(
        self,
        bootstrap: ClientBootstrap | None = None,
        *,
        socket_options: SocketOptions | None = None,
        retry_strategy: RetryStrategy | None = None,
        window: int = WINDOW,
    ) -> None:
        self._bootstrap = bootstrap or ClientBootstrap()
        self._options = socket_options or SocketOptions()
        self._retry_strategy = retry_strategy
        self._window = window

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Raises httpcore's ConnectError and ConnectTimeout, caused by the reason.

        NotImplementedError for a `local_address`: channels choose theirs by the interface
        (`SocketOptions.network_interface_name`).
        """
        if local_address is not None:
            raise NotImplementedError(
                "a channel's local address cannot be chosen: use"
                " SocketOptions(network_interface_name=...) instead of local_address"
            )
        return await self._connect(host, port, self._options, timeout, socket_options)

    async def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Raises as `connect_tcp` does."""
        options = replace(self._options, domain=SocketDomain.LOCAL)
        return await self._connect(path, 0, options, timeout, socket_options)

    async def _connect(
        self,
        host: str,
        port: int,
        options: SocketOptions,
        timeout: float | None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None,
    ) -> httpcore.AsyncNetworkStream:
        streams: list[ChannelStream] = []

        def attach(channel: Channel | None, error: BaseException | None) -> None:
            if channel is not None:
                stream = ChannelStream.attach(channel, window=self._window)
                for option in socket_options or ():
                    stream.extra(SocketAttribute.raw_socket).setsockopt(*option)
                streams.append(stream)

        with _as_httpcores(httpcore.ConnectTimeout, httpcore.ConnectError):
            async with asyncio.timeout(timeout):
                await self._bootstrap.new_socket_channel(
                    host,
                    port,
                    socket_options=options,
                    on_setup=attach,
                    retry_strategy=self._retry_strategy,
                    enable_read_back_pressure=True,
                    half_close=True,
                )
        return _Stream(streams[0])

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class _Stream(httpcore.AsyncNetworkStream):
    """A connection: the channel's right end, as httpcore wants it."""

    def __init__(self, stream: ChannelStream) -> None:
        self._stream = stream
        self._sending = False

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        with _as_httpcores(httpcore.ReadTimeout, httpcore.ReadError):
            async with asyncio.timeout(timeout):
                try:
                    return await self._stream.receive(max_bytes)
                except anyio.EndOfStream:
                    return b""

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        if not buffer:
            return
        with _as_httpcores(httpcore.WriteTimeout, httpcore.WriteError):
            async with asyncio.timeout(timeout):
                self._sending = True
                await self._stream.send(buffer)
                self._sending = False

    async def aclose(self) -> None:
        """Close gracefully, or at once if a write was cut short: its peer may take nothing more."""
        if self._sending:
            self._stream.channel.shutdown(immediately=True)
        await self._stream.aclose()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.AsyncNetworkStream:
        try:
            with _as_httpcores(httpcore.ConnectTimeout, httpcore.ConnectError):
                async with asyncio.timeout(timeout):
                    negotiation = self._start_tls(ssl_context, server_hostname)
                    await run_on(self._stream.channel.loop, negotiation)
        except asyncio.CancelledError:
            self._stream.channel.shutdown(immediately=True)
            raise
        except Exception:
            await self.aclose()  # the peer may still have to be told why
            raise
        return self

    async def _start_tls(self, context: ssl.SSLContext, server_name: str | None) -> None:
        """Thread: the channel's."""
        channel = self._stream.channel
        negotiated: asyncio.Future[BaseException | None] = channel.loop.create_future()

        def tell(handler: object, slot: object, error: BaseException | None) -> None:
            if not negotiated.done():
                negotiated.set_result(error)

        options = TlsConnectionOptions(
            TlsContext.from_ssl_context(context), server_name, on_negotiation_result=tell, timeout=0
        )
        if channel.is_closing():
            raise channel.error or anyio.BrokenResourceError
        *_, own = channel.slots()
        assert own.left is not None
        setup_client_tls(own.left, options)  # next to the stream: within TLS to a proxy, if any
        if (error := await negotiated) is not None:
            raise error

    def get_extra_info(self, info: str) -> Any:
        """What httpcore knows, and "channel": for the statistics of its handlers, among others."""
        if info == "channel":
            return self._stream.channel
        if info == "is_readable":
            return self._is_readable()
        attribute = _ATTRIBUTES.get(info)
        return self._stream.extra(attribute, None) if attribute is not None else None

    def _is_readable(self) -> bool:
        """Whether there is something to read, the end included: an idle connection is no use then.

        What has come to the kernel and not to the stream may be TLS's own, unless it is the end.
        """
        if self._stream.is_readable():
            return True
        fd = self._stream.extra(SocketAttribute.raw_socket).fileno()
        if fd < 0:
            return True
        poll = select.poll()
        poll.register(fd, _PEER_HAS_ENDED)
        return bool(poll.poll(0))


@contextlib.contextmanager
def _as_httpcores(timeout: type[Exception], other: type[Exception]) -> Iterator[None]:
    """Raise what the block raises as httpcore's exceptions."""
    try:
        yield
    except TimeoutError as exc:
        raise timeout(str(exc)) from exc
    except (anyio.BrokenResourceError, anyio.ClosedResourceError) as exc:
        raise other(str(exc.__cause__ or exc)) from exc
    except (OSError, AwsIoError) as exc:
        raise other(str(exc)) from exc
