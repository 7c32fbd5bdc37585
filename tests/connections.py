"""A transport, and a plain socket at its other end."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from tests.socket_tools import tcp_pair


def unix_pair() -> tuple[socket.socket, socket.socket]:
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)


@asynccontextmanager
async def connection(
    protocol: Any, pair: Callable[[], tuple[socket.socket, socket.socket]] = tcp_pair
) -> AsyncIterator[tuple[Any, socket.socket]]:
    """A transport for `protocol`, and the socket at the other end."""
    near, far = pair()
    far.setblocking(False)
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_connection(lambda: protocol, sock=near)
    try:
        with far:
            yield transport, far
    finally:
        await ended(transport, protocol)


async def ended(transport: Any, protocol: Any) -> None:
    """Abort a recorder's connection if it is still there, and wait until it is gone."""
    if "lost" not in protocol.events:
        transport.abort()
    await protocol.has("lost")
    await asyncio.sleep(0)


async def read_to_end(sock: socket.socket) -> bytes:
    received = bytearray()
    while data := await asyncio.get_running_loop().sock_recv(sock, 1 << 20):
        received += data
    return bytes(received)


async def read_exactly(sock: socket.socket, size: int) -> bytes:
    received = bytearray()
    while len(received) < size:
        data = await asyncio.get_running_loop().sock_recv(sock, size - len(received))
        assert data, "the connection has ended"
        received += data
    return bytes(received)
