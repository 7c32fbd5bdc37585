"""Channels with TLS: driven in memory with OpenSSL at the other end, or over sockets."""

import asyncio
import gc
import ssl
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trustme

from aws_io_async.channel import Channel, ChannelDirection, ChannelHandler, ChannelSlot
from aws_io_async.channel_bootstrap import ClientBootstrap, ServerBootstrap, SocketListener
from aws_io_async.errors import AwsIoError, Code
from aws_io_async.message_pool import IoMessage, MessageType
from aws_io_async.socket import SocketDomain, SocketOptions
from aws_io_async.statistics import TlsNegotiationStatus
from aws_io_async.tls_channel_handler import TlsChannelHandler
from aws_io_async.tls_context import TlsConnectionOptions, TlsContext
from tests.certificates import Identity
from tests.socket_tools import turns
from tests.tls_peers import HOST, TLS12, TLS13, Peer, client_of, server_of

PATIENCE = 30.0
"""Seconds after which something that should have happened is missed."""

LOCAL = SocketOptions(domain=SocketDomain.LOCAL)
IPV4 = SocketOptions(domain=SocketDomain.IPV4)


@pytest.fixture(autouse=True)
async def nothing_left(caplog: pytest.LogCaptureFixture) -> AsyncIterator[None]:
    """Fail the test that leaves a task, or a TLS handler, which a timer or a callback would hold.

    For a test module: `nothing_left = tls_channels.nothing_left`.
    """
    yield
    await turns()
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    assert not tasks, f"tasks left running: {tasks}"
    asyncio.get_running_loop().set_exception_handler(None)  # it may remember some on purpose,
    caplog.get_records("call").clear()  # and so may records
    for patience in range(100):
        if not (handlers := _living_handlers()):
            return
        await asyncio.sleep(patience / 1000)  # a thread may be just about to let go of one
    pytest.fail(f"TLS handlers left: {handlers}")


def _living_handlers() -> list[str]:
    gc.collect()
    return [repr(each) for each in gc.get_objects() if isinstance(each, TlsChannelHandler)]


class News:
    """Wakes who waits for a condition, whenever something may have changed it."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def tell(self) -> None:
        self._event.set()

    async def until(self, reached: Callable[[], object]) -> None:
        async with asyncio.timeout(PATIENCE):
            while not reached():
                self._event.clear()
                await self._event.wait()


class Wire(ChannelHandler):
    """The leftmost handler: keeps what is written, and sends to the right what a test feeds."""

    def __init__(self) -> None:
        self.sent = bytearray()
        self.lost_with: BaseException | None = None  # what messages from now on are completed with
        self._news = News()

    def process_write_message(self, slot: ChannelSlot, message: IoMessage) -> None:
        if self.lost_with is None:
            self.sent += message.data
        message.complete(slot.channel, self.lost_with)

    def increment_read_window(self, slot: ChannelSlot, size: int) -> None:
        self._news.tell()

    def shutdown(self, *_: Any) -> None:
        self._news.tell()

    def take(self) -> bytes:
        """What has been written and not been taken."""
        taken = bytes(self.sent)
        self.sent.clear()
        return taken

    @property
    def window(self) -> int:
        assert self.slot is not None
        return self.slot.downstream_read_window

    async def feed(self, data: bytes) -> None:
        """Send bytes to the right, as fast as the window allows."""
        slot = self.slot
        assert slot is not None
        while data:
            await self._news.until(lambda: self.window or slot.channel.error is not None)
            if slot.channel.error is not None:
                return
            chunk, data = data[: self.window], data[self.window :]
            slot.send_message(IoMessage(chunk), ChannelDirection.READ)

    def feed_now(self, data: bytes) -> bytes:
        """Send as many bytes to the right as the window allows; returns the others."""
        assert self.slot is not None
        size = min(self.window, len(data))
        self.slot.send_message(IoMessage(data[:size]), ChannelDirection.READ)
        return data[size:]

    def end(self) -> None:
        """The peer has ended its side."""
        assert self.slot is not None
        message = IoMessage(message_type=MessageType.END_OF_INPUT)
        self.slot.send_message(message, ChannelDirection.READ)


class App(ChannelHandler):
    """The rightmost handler: writes down what comes. It takes more only when it is told to."""

    def __init__(self, window: int = sys.maxsize) -> None:
        self.initial_window_size = window
        self.reads: list[bytes] = []
        self.others: list[IoMessage] = []
        self.ended = False
        self._news = News()

    def process_read_message(self, slot: ChannelSlot, message: IoMessage) -> None:
        if message.message_type is MessageType.APPLICATION_DATA:
            assert not self.ended, "data after the end"
            self.reads.append(bytes(message.data))
        else:
            self.others.append(message)
        self._news.tell()

    def shutdown(self, slot: ChannelSlot, direction: ChannelDirection, *_: Any) -> None:
        self.ended = self.ended or direction is ChannelDirection.READ
        self._news.tell()

    @property
    def data(self) -> bytes:
        return b"".join(self.reads)

    @property
    def size(self) -> int:
        return sum(map(len, self.reads))

    async def received(self, size: int) -> bytes:
        """All data, once there are so many bytes."""
        await self._news.until(lambda: self.size >= size)
        return self.data

    def takes(self, size: int) -> None:
        assert self.slot is not None
        self.slot.increment_read_window(size)

    async def write(self, data: bytes | memoryview) -> None:
        assert self.slot is not None
        await self.slot.write(data)


class Echo(App):
    """Sends back what comes, as fast as it leaves."""

    async def process_read_message(self, slot: ChannelSlot, message: IoMessage) -> None:  # type: ignore[override] # plain in App
        await slot.write(message.data)
        slot.increment_read_window(len(message.data))


class InMemory:
    """A channel of a wire, TLS and perhaps an application, and its peer."""

    def __init__(self, channel: Channel, tls: TlsChannelHandler, app: App, peer: Peer) -> None:
        self.channel = channel
        self.wire = Wire()
        self.tls = tls
        self.app = app
        self.peer = peer

    async def handshake(self) -> None:
        """Shake hands, and read what TLS says by itself afterwards (session tickets)."""
        self.tls.start_negotiation()
        done = False
        while not (done and self.is_negotiated()):
            self.peer.incoming.write(self.wire.take())
            done = self.peer.handshake()
            await self.wire.feed(self.peer.outgoing.read())
        assert self.peer.read(self.wire.take()) == b""

    def is_negotiated(self) -> bool:
        return self.status() is TlsNegotiationStatus.SUCCESS

    def status(self) -> TlsNegotiationStatus:
        return self.tls.statistics.handshake_status

    def sent(self) -> bytes:
        """The plaintext of what was written and not been taken."""
        return self.peer.read(self.wire.take())

    async def closed(self) -> BaseException | None:
        """The channel's error, once it has shut down."""
        async with asyncio.timeout(PATIENCE):
            await self.channel.wait_closed()
        return self.channel.error


@asynccontextmanager
async def in_memory(
    tls: TlsConnectionOptions | TlsContext,
    peer: ssl.SSLContext,
    app: ChannelHandler | None = None,
    *,
    back_pressure: bool = True,
    name: str | None = HOST,
) -> AsyncIterator[InMemory]:
    """A channel that has not begun to negotiate. Without `app` TLS is its last handler.

    `name` is the server's name that a peer asks for.
    """
    options = tls if isinstance(tls, TlsConnectionOptions) else TlsConnectionOptions(tls, HOST)
    handler = TlsChannelHandler(options, options.context.server_side)
    channel = await Channel.open(enable_read_back_pressure=back_pressure)
    memory = InMemory(channel, handler, app if isinstance(app, App) else App(), Peer(peer, name))
    channel.append(memory.wire)
    channel.append(handler)
    if app is not None:
        channel.append(app)
    try:
        yield memory
    finally:
        channel.shutdown(immediately=True)
        await channel.wait_closed()


@asynccontextmanager
async def negotiated(
    tls: TlsConnectionOptions | TlsContext,
    peer: ssl.SSLContext,
    app: ChannelHandler | None = None,
    *,
    back_pressure: bool = True,
) -> AsyncIterator[InMemory]:
    """As `in_memory`, when the negotiation is over."""
    async with in_memory(tls, peer, app, back_pressure=back_pressure) as memory:
        await memory.handshake()
        yield memory


def openssl_server(
    ca: trustme.CA, version: ssl.TLSVersion | None = None, name: str = HOST
) -> ssl.SSLContext:
    """A server's context of the ssl module, perhaps of one version only."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert(name).configure_cert(context)
    return _of_version(context, version)


def lenient_server(
    certificate: Identity, version: ssl.TLSVersion | None = None, ciphers: str = "ALL"
) -> TlsContext:
    """A server that presents any certificate, and agrees on anything that OpenSSL still has."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_ciphers(f"{ciphers}:@SECLEVEL=0")
    with tempfile.NamedTemporaryFile() as file:
        file.write(b"".join(certificate))
        file.flush()
        context.load_cert_chain(file.name)
    context.set_alpn_protocols(["h2", "http/1.1"])
    return TlsContext.from_ssl_context(_of_version(context, version), server_side=True)


def openssl_client(ca: trustme.CA, version: ssl.TLSVersion | None = None) -> ssl.SSLContext:
    """A client's, which verifies."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    ca.configure_trust(context)
    return _of_version(context, version)


SIDES = [(side, version) for side in ("client", "server") for version in (TLS12, TLS13)]
"""Which side our handler is on, and the peer's version; for `sides`."""


def sides(ca: trustme.CA, side: str, version: ssl.TLSVersion) -> tuple[TlsContext, ssl.SSLContext]:
    """Our handler's context and the peer's."""
    if side == "client":
        return client_of(ca), openssl_server(ca, version)
    return server_of(ca), openssl_client(ca, version)


def _of_version(context: ssl.SSLContext, version: ssl.TLSVersion | None) -> ssl.SSLContext:
    if version is not None:
        context.minimum_version = context.maximum_version = version
    return context


class Listener:
    """A server over sockets, and the channels that it has set up."""

    def __init__(self) -> None:
        self.listener: SocketListener
        self.channels: list[Channel] = []
        self.failures: list[BaseException] = []
        self.shutdowns: list[BaseException | None] = []
        self._news = News()

    def set_up(self, channel: Channel | None, error: BaseException | None) -> None:
        if channel is not None:
            self.channels.append(channel)
        else:
            assert error is not None
            self.failures.append(error)
        self._news.tell()

    def shut_down(self, channel: Channel | None, error: BaseException | None) -> None:
        self.shutdowns.append(error)
        self._news.tell()

    async def accepted(self, count: int = 1) -> Channel:
        """The channel of that number, once it is ready."""
        await self._news.until(lambda: len(self.channels) >= count)
        return self.channels[count - 1]

    async def failed(self, count: int = 1) -> BaseException:
        """Why the connection of that number failed before it was ready."""
        await self._news.until(lambda: len(self.failures) >= count)
        return self.failures[count - 1]

    async def ended(self, count: int = 1) -> BaseException | None:
        """What the channel of that number ended with."""
        await self._news.until(lambda: len(self.shutdowns) >= count)
        return self.shutdowns[count - 1]

    @property
    def port(self) -> int:
        return self.listener.endpoint.port


@asynccontextmanager
async def listening(
    tls: TlsConnectionOptions | TlsContext | None,
    handlers: Callable[[], Iterable[ChannelHandler]] | None = None,
    *,
    bootstrap: ServerBootstrap | None = None,
    path: str | None = None,
    **options: Any,
) -> AsyncIterator[Listener]:
    """A server, with TLS unless that is None, on a port of the system's choice, or on a path.

    Its channels end with it.
    """
    server = Listener()
    listener = await (bootstrap or ServerBootstrap()).new_socket_listener(
        path or "127.0.0.1",
        socket_options=LOCAL if path else IPV4,
        tls=tls,
        handlers=handlers,
        on_incoming_channel_setup=server.set_up,
        on_incoming_channel_shutdown=server.shut_down,
        **options,
    )
    server.listener = listener
    try:
        yield server
    finally:
        await listener.aclose()
        for channel in server.channels:
            channel.shutdown(immediately=True)
            await channel.wait_closed()


@asynccontextmanager
async def connecting(
    server: Listener | int,
    tls: TlsConnectionOptions | TlsContext,
    handlers: Callable[[], Iterable[ChannelHandler]] | None = None,
    *,
    bootstrap: ClientBootstrap | None = None,
    **options: Any,
) -> AsyncIterator[Channel]:
    """A client's channel to a listener, or to a port of this machine."""
    if isinstance(server, int):
        host, port, socket_options = "127.0.0.1", server, IPV4
    else:
        endpoint = server.listener.endpoint
        host, port = endpoint.address, endpoint.port
        socket_options = IPV4 if port else LOCAL
    if isinstance(tls, TlsContext):
        tls = TlsConnectionOptions(tls, HOST)
    channel = await (bootstrap or ClientBootstrap()).new_socket_channel(
        host, port, socket_options=socket_options, tls=tls, handlers=handlers, **options
    )
    try:
        yield channel
    finally:
        channel.shutdown(immediately=True)
        await channel.wait_closed()


def tls_of(channel: Channel) -> TlsChannelHandler:
    """The TLS handler of a channel."""
    found = [s.handler for s in channel.slots() if isinstance(s.handler, TlsChannelHandler)]
    return found[0]


async def error_of(attempt: Coroutine[Any, Any, object]) -> AwsIoError:
    """The error that an attempt fails with."""
    try:
        async with asyncio.timeout(PATIENCE):
            await attempt
    except AwsIoError as exc:
        return exc
    raise AssertionError("it did not fail")


def code_of(error: BaseException | None) -> Code | None:
    """An error's code; None for no error."""
    if error is None:
        return None
    assert isinstance(error, AwsIoError), repr(error)
    return error.code
