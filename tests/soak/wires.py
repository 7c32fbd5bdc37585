"""What carries conversations: each way to connect that the library has, behind one small face."""

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable
from typing import Any

import anyio

from aws_io_async.channel_stream import ChannelStream, connect
from aws_io_async.socket import Socket, SocketEndpoint
from tests.soak.conversation import Wire

RESET = struct.pack("ii", 1, 0)
SIZE = 1 << 16


class StreamWire:
    """asyncio's streams, plain or with TLS, over the loop's own transports."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self.fd = writer.get_extra_info("socket").fileno()

    @classmethod
    async def open(cls, port: int, **options: Any) -> "StreamWire":
        return cls(*await asyncio.open_connection("127.0.0.1", port, **options))

    async def send(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def receive(self) -> bytes:
        return await self._reader.read(SIZE)

    async def close(self) -> None:
        self._writer.close()
        await self._writer.wait_closed()

    def cut(self) -> None:
        self._writer.transport.abort()


class ChannelWire:
    """A channel, plain or with TLS."""

    def __init__(self, stream: ChannelStream) -> None:
        self._stream = stream
        handler: Any = next(stream.channel.slots()).handler
        self.fd = handler.get_socket().fileno()

    @classmethod
    async def open(cls, host: str, port: int, **options: Any) -> "ChannelWire":
        return cls(await connect(host, port, **options))

    async def send(self, data: bytes) -> None:
        await self._stream.send(data)

    async def receive(self) -> bytes:
        try:
            return await self._stream.receive()
        except anyio.EndOfStream:
            return b""

    async def close(self) -> None:
        await self._stream.aclose()

    def cut(self) -> None:
        self._stream.channel.shutdown(immediately=True)


class RawWire:
    """A plain socket, and the loop's `sock_*`."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._loop = asyncio.get_running_loop()
        self.fd = sock.fileno()

    @classmethod
    async def open(cls, port: int) -> "RawWire":
        sock = socket.socket()
        sock.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
        except BaseException:
            sock.close()
            raise
        return cls(sock)

    async def send(self, data: bytes) -> None:
        await self._loop.sock_sendall(self._socket, data)

    async def receive(self) -> bytes:
        return await self._loop.sock_recv(self._socket, SIZE)

    async def close(self) -> None:
        self._socket.close()

    def cut(self) -> None:
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        self._socket.close()


class SocketWire:
    """A `Socket`."""

    def __init__(self, sock: Socket) -> None:
        self._socket = sock
        self.fd = sock.fileno()

    @classmethod
    async def open(cls, port: int) -> "SocketWire":
        sock = Socket()
        try:
            await sock.connect(SocketEndpoint("127.0.0.1", port))
        except BaseException:
            sock.close()
            raise
        return cls(sock)

    async def send(self, data: bytes) -> None:
        await self._socket.write(data)

    async def receive(self) -> bytes:
        return await self._socket.read(SIZE)

    async def close(self) -> None:
        self._socket.close()

    def cut(self) -> None:
        with self._socket.detach() as plain:
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)


Opener = Callable[[], Awaitable[Wire]]
