"""The ways to use a connection that the rig drives, each as the same few calls.

`Way.serve` runs a function with the server's end of each connection, `Way.connect` makes a client's
end. `End.receive` returns b"" at an end in order, and raises what the way itself raises.
"""

import asyncio
import socket
import ssl
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import anyio
import trustme

from aws_io_async.channel import Channel, ChannelDirection, ChannelHandler, ChannelSlot
from aws_io_async.channel_bootstrap import ClientBootstrap, ServerBootstrap
from aws_io_async.channel_stream import ChannelStream, connect, serve
from aws_io_async.message_pool import IoMessage, MessageType
from aws_io_async.socket_channel_handler import SocketChannelHandler
from aws_io_async.tls_context import TlsConnectionOptions, TlsContext
from tests.faults.proxy import LOOPBACK, PATIENCE
from tests.recorders import BufferedRecorder, Recorder
from tests.tls_peers import HOST, client_of, server_of

PIECE = 20_000
"""Bytes that are sent by one call."""


class End(ABC):
    """One end of a connection."""

    @abstractmethod
    async def send(self, data: bytes) -> None: ...

    @abstractmethod
    async def receive(self) -> bytes: ...

    @abstractmethod
    async def aclose(self) -> None: ...

    @abstractmethod
    async def abort(self) -> None:
        """Close at once, whatever has not been sent."""

    @abstractmethod
    def socket(self) -> Any:
        """What the options of the socket can be set by."""


Use = Callable[[End], Awaitable[None]]


@dataclass(frozen=True)
class Tls:
    """Contexts for both ends; None means that there is no TLS. `timeout` is the handshake's."""

    server: ssl.SSLContext | None = None
    client: ssl.SSLContext | None = None
    channel_server: TlsContext | None = None
    channel_client: TlsConnectionOptions | None = None
    timeout: float | None = None

    def __bool__(self) -> bool:
        return self.server is not None


def tls_of(ca: trustme.CA, timeout: float | None = None) -> Tls:
    """TLS with certificates of `ca`."""
    server, client = server_of(ca), client_of(ca)
    options = TlsConnectionOptions(client, HOST, timeout=timeout or 10.0)
    return Tls(server.ssl_context, client.ssl_context, server, options, timeout)


class Way(ABC):
    """One way to connect and serve, with TLS or without."""

    def __init__(self, tls: Tls) -> None:
        self._tls = tls

    @abstractmethod
    def serve(self, use: Use) -> Any:
        """An asynchronous context manager: the server, as its port."""

    @abstractmethod
    async def connect(self, port: int) -> End: ...

    @property
    def _names(self) -> dict[str, Any]:
        if not self._tls:
            return {}
        names = {"ssl": self._tls.client, "server_hostname": HOST}
        return names | {"ssl_handshake_timeout": self._tls.timeout}


class Streams(Way):
    """asyncio's streams."""

    @asynccontextmanager
    async def serve(self, use: Use) -> AsyncIterator[int]:
        users: set[asyncio.Task[None]] = set()

        def begin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            users.add(asyncio.ensure_future(used(StreamEnd(reader, writer), use)))

        server = await asyncio.start_server(begin, LOOPBACK, 0, ssl=self._tls.server)
        try:
            yield server.sockets[0].getsockname()[1]
        finally:
            await ended(server, users)

    async def connect(self, port: int) -> End:
        return StreamEnd(*await asyncio.open_connection(LOOPBACK, port, **self._names))


class StreamEnd(End):
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def send(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def receive(self) -> bytes:
        return await self._reader.read(65536)

    async def aclose(self) -> None:
        self._writer.close()
        await self._writer.wait_closed()

    async def abort(self) -> None:
        self._writer.transport.abort()
        await self._writer.wait_closed()

    def socket(self) -> Any:
        return self._writer.get_extra_info("socket")


class Protocols(Way):
    """Transports, with a protocol on one side and a buffered one on the other."""

    @asynccontextmanager
    async def serve(self, use: Use) -> AsyncIterator[int]:
        users: set[asyncio.Task[None]] = set()

        class Accepted(Slow, BufferedRecorder):
            def connection_made(self, transport: Any) -> None:
                super().connection_made(transport)
                users.add(asyncio.ensure_future(used(ProtocolEnd(self), use)))

        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: Accepted(5000), LOOPBACK, 0, ssl=self._tls.server)
        try:
            yield server.sockets[0].getsockname()[1]
        finally:
            await ended(server, users)

    async def connect(self, port: int) -> End:
        class Connected(Slow, Recorder):
            pass

        loop = asyncio.get_running_loop()
        _, protocol = await loop.create_connection(Connected, LOOPBACK, port, **self._names)
        return ProtocolEnd(protocol)


class Slow:
    """A recorder that has its transport pause while it has much that nobody has taken."""

    transport: Any
    data: bytearray
    must_wait = False
    has_paused = False

    def happened(self, what: str) -> None:
        if what in ("pause", "resume"):
            self.must_wait = what == "pause"
        if len(self.data) > PIECE and not self.has_paused:
            self.transport.pause_reading()
            self.has_paused = True
        super().happened(what)  # type: ignore[misc]  # a recorder's

    def take(self) -> bytes:
        taken = bytes(self.data)
        self.data.clear()
        if self.has_paused:
            self.transport.resume_reading()
            self.has_paused = False
        return taken

    def eof_received(self) -> bool:
        super().eof_received()  # type: ignore[misc]  # a recorder's
        return self.transport.get_extra_info("sslcontext") is None  # our side goes on


class ProtocolEnd(End):
    def __init__(self, protocol: Any) -> None:
        self._protocol = protocol

    @property
    def _is_lost(self) -> bool:
        return "lost" in self._protocol.events

    async def send(self, data: bytes) -> None:
        protocol = self._protocol
        protocol.transport.write(data)
        await protocol.until(lambda: self._is_lost or not protocol.must_wait)
        if self._is_lost:
            raise protocol.lost_with or ConnectionResetError("the connection has been closed")

    async def receive(self) -> bytes:
        protocol = self._protocol
        await protocol.until(lambda: protocol.data or "eof" in protocol.events or self._is_lost)
        if not protocol.data and protocol.lost_with is not None:
            raise protocol.lost_with
        return bytes(protocol.take())

    async def aclose(self) -> None:
        self._protocol.transport.close()
        await self._protocol.has("lost")

    async def abort(self) -> None:
        self._protocol.transport.abort()
        await self._protocol.has("lost")

    def socket(self) -> Any:
        return self._protocol.transport.get_extra_info("socket")


class Sockets(Way):
    """The loop's sock_* functions."""

    @asynccontextmanager
    async def serve(self, use: Use) -> AsyncIterator[int]:
        loop = asyncio.get_running_loop()
        users: set[asyncio.Task[None]] = set()

        async def accept() -> None:
            while True:
                sock, _ = await loop.sock_accept(listener)
                users.add(asyncio.ensure_future(used(SocketEnd(sock), use)))

        with socket.create_server((LOOPBACK, 0)) as listener:
            listener.setblocking(False)
            accepting = asyncio.ensure_future(accept())
            try:
                yield listener.getsockname()[1]
            finally:
                accepting.cancel()
                await asyncio.wait({accepting})
                await done(users)

    async def connect(self, port: int) -> End:
        sock = socket.socket()
        sock.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(sock, (LOOPBACK, port))
        except BaseException:
            sock.close()
            raise
        return SocketEnd(sock)


class SocketEnd(End):
    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._buffer = bytearray(30_000)
        self._turn = 0

    async def send(self, data: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self._socket, data)

    async def receive(self) -> bytes:
        loop = asyncio.get_running_loop()
        self._turn += 1
        if self._turn % 2:
            return bytes(await loop.sock_recv(self._socket, 30_000))
        size = await loop.sock_recv_into(self._socket, self._buffer)
        return bytes(self._buffer[:size])

    async def aclose(self) -> None:
        self._socket.close()

    async def abort(self) -> None:
        self._socket.close()

    def socket(self) -> Any:
        return self._socket


class ChannelStreams(Way):
    """`connect` and `serve`."""

    @asynccontextmanager
    async def serve(self, use: Use) -> AsyncIterator[int]:
        users: set[asyncio.Future[None]] = set()

        async def begin(stream: ChannelStream) -> None:
            users.add(end := asyncio.get_running_loop().create_future())
            try:
                await used(ChannelEnd(stream), use)
            finally:
                end.set_result(None)

        async with serve(begin, LOOPBACK, tls=self._tls.channel_server) as listener:
            yield listener.endpoint.port
            await done(users)

    async def connect(self, port: int) -> End:
        return ChannelEnd(await connect(LOOPBACK, port, tls=self._tls.channel_client))


class ChannelEnd(End):
    def __init__(self, stream: ChannelStream) -> None:
        self._stream = stream

    async def send(self, data: bytes) -> None:
        await self._stream.send(data)

    async def receive(self) -> bytes:
        try:
            return await self._stream.receive()
        except anyio.EndOfStream:
            return b""

    async def aclose(self) -> None:
        await self._stream.aclose()

    async def abort(self) -> None:
        await anyio.aclose_forcefully(self._stream)

    def socket(self) -> Any:
        return socket_of(self._stream.channel)


class Bootstraps(Way):
    """Bootstraps, with a handler that has a small window."""

    @asynccontextmanager
    async def serve(self, use: Use) -> AsyncIterator[int]:
        users: set[asyncio.Task[None]] = set()

        def begin(channel: Channel | None, error: BaseException | None) -> None:
            if channel is not None:
                users.add(asyncio.ensure_future(used(HandlerEnd(channel), use)))

        bootstrap = ServerBootstrap()
        async with await bootstrap.new_socket_listener(
            LOOPBACK,
            tls=self._tls.channel_server,
            handlers=lambda: [Collector()],
            on_incoming_channel_setup=begin,
            enable_read_back_pressure=True,
            half_close=True,
        ) as listener:
            yield listener.endpoint.port
            await done(users)

    async def connect(self, port: int) -> End:
        bootstrap = ClientBootstrap()
        channel = await bootstrap.new_socket_channel(
            LOOPBACK,
            port,
            tls=self._tls.channel_client,
            handlers=lambda: [Collector()],
            enable_read_back_pressure=True,
            half_close=True,
        )
        return HandlerEnd(channel)


class Collector(ChannelHandler):
    """Keeps what comes until it is taken."""

    initial_window_size = PIECE

    def __init__(self) -> None:
        self.data = bytearray()
        self.has_ended = False
        self.in_order = False
        self.news = asyncio.Event()

    def process_read_message(self, slot: ChannelSlot, message: IoMessage) -> None:
        assert not self.has_ended, "something has come after the end"
        if message.message_type is MessageType.END_OF_INPUT:
            self.in_order = self.has_ended = True
        else:
            self.data += message.data
            assert len(self.data) <= self.initial_window_size
        self.news.set()

    def shutdown(self, slot: ChannelSlot, direction: ChannelDirection, *_: Any) -> None:
        self.has_ended = True
        self.news.set()


class HandlerEnd(End):
    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        *_, self._slot = channel.slots()
        assert isinstance(self._slot.handler, Collector)
        self._handler = self._slot.handler

    async def send(self, data: bytes) -> None:
        await self._slot.write(data)

    async def receive(self) -> bytes:
        handler = self._handler
        while not handler.data and not handler.has_ended:
            handler.news.clear()
            await handler.news.wait()
        if not handler.data and not handler.in_order and self._channel.error is not None:
            raise self._channel.error
        taken = bytes(handler.data)
        handler.data.clear()
        if not handler.has_ended:
            self._slot.increment_read_window(len(taken))
        return taken

    async def aclose(self) -> None:
        await self._channel.aclose()

    async def abort(self) -> None:
        self._channel.shutdown(immediately=True)
        await self._channel.wait_closed()

    def socket(self) -> Any:
        return socket_of(self._channel)


def socket_of(channel: Channel) -> Any:
    """The socket at a channel's left end."""
    first = next(iter(channel.slots())).handler
    assert isinstance(first, SocketChannelHandler)
    return first.get_socket()


async def used(end: End, use: Use) -> None:
    """Use an end, and close it whatever happens."""
    try:
        await use(end)
    finally:
        try:
            await end.aclose()
        except OSError:  # which says again how the connection has ended
            pass


async def done(users: "set[Any]") -> None:
    """Wait for all, and raise what one has raised."""
    async with asyncio.timeout(PATIENCE):
        await asyncio.gather(*users)


async def ended(server: asyncio.Server, users: "set[Any]") -> None:
    """Close a server, when those who use its connections have done."""
    server.close()
    await done(users)
    async with asyncio.timeout(PATIENCE):
        await server.wait_closed()


WAYS: dict[str, type[Way]] = {
    "streams": Streams,
    "protocols": Protocols,
    "connect and serve": ChannelStreams,
    "bootstraps": Bootstraps,
    "sock_*": Sockets,
}
