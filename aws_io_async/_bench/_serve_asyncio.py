"""Echo servers on asyncio's interfaces: a protocol, streams, bare sockets, with TLS or without."""

import asyncio
import gc
import socket
import ssl
import sys
from collections.abc import Coroutine
from typing import Any

from ._loops import factory
from ._machine import resident_bytes

BACKLOG = 4096
BUFFER = 256 * 1024
READ = 64 * 1024
SETTLED = 0.1
"""Seconds after which what sets up the last connection is gone."""


class Echo(asyncio.Protocol):
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # TCP
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


class BufferedEcho(asyncio.BufferedProtocol):
    def __init__(self) -> None:
        self.buffer = memoryview(bytearray(BUFFER))

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # TCP
        self.transport = transport

    def get_buffer(self, sizehint: int) -> memoryview:
        return self.buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.transport.write(self.buffer[:nbytes])


class DatagramEcho(asyncio.DatagramProtocol):
    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]
        self.transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.transport.sendto(data, addr)


async def stream_echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(READ):
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass  # the load ends in the middle of an answer
    finally:
        writer.close()


async def sock_echo(loop: asyncio.AbstractEventLoop, sock: socket.socket) -> None:
    with sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while data := await loop.sock_recv(sock, READ):
            await loop.sock_sendall(sock, data)


async def accept(loop: asyncio.AbstractEventLoop, listener: socket.socket) -> None:
    tasks: set[asyncio.Task[None]] = set()
    while True:
        sock, _ = await loop.sock_accept(listener)
        task = loop.create_task(sock_echo(loop, sock))
        tasks.add(task)
        task.add_done_callback(tasks.discard)


def listening(kind: socket.SocketKind = socket.SOCK_STREAM) -> socket.socket:
    """A socket on a port of the system's choice that is ready to be given to a loop."""
    protocol = socket.IPPROTO_TCP if kind is socket.SOCK_STREAM else socket.IPPROTO_UDP
    sock = socket.socket(socket.AF_INET, kind, protocol)  # asyncio asks for it, for TCP_NODELAY
    sock.bind(("127.0.0.1", 0))
    if kind is socket.SOCK_STREAM:
        sock.listen(BACKLOG)
    sock.setblocking(False)
    return sock


def server_context(certificate: str) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    return context


async def start(interface: str, tls: ssl.SSLContext | None) -> tuple[int, object]:
    """Start a server; its port, and what must be kept for it to go on."""
    loop = asyncio.get_running_loop()
    if interface == "datagram":
        sock = listening(socket.SOCK_DGRAM)
        return sock.getsockname()[1], await loop.create_datagram_endpoint(DatagramEcho, sock=sock)
    sock = listening()
    port = sock.getsockname()[1]
    if interface == "protocol":
        return port, await loop.create_server(Echo, sock=sock, ssl=tls, backlog=BACKLOG)
    if interface == "buffered":
        return port, await loop.create_server(BufferedEcho, sock=sock, ssl=tls, backlog=BACKLOG)
    if interface == "stream":
        return port, await asyncio.start_server(stream_echo, sock=sock, ssl=tls, backlog=BACKLOG)
    assert interface == "sock"
    return port, loop.create_task(accept(loop, sock))


def tell_memory_when_asked(loop: asyncio.AbstractEventLoop) -> None:
    """Answer each line on stdin by the bytes of resident memory."""
    stdin = sys.stdin.fileno()

    def asked() -> None:
        if sys.stdin.readline():
            loop.call_later(SETTLED, tell)
        else:
            loop.remove_reader(stdin)

    def tell() -> None:
        gc.collect()
        print(resident_bytes(), flush=True)

    loop.add_reader(stdin, asked)


async def serve(starting: Coroutine[Any, Any, tuple[int, object]]) -> None:
    """Print the port, then go on until somebody kills this process."""
    port, kept = await starting
    tell_memory_when_asked(asyncio.get_running_loop())
    print(port, flush=True)
    await asyncio.get_running_loop().create_future()
    del kept


def main(spec: str, interface: str, certificate: str = "") -> None:
    tls = server_context(certificate) if certificate else None
    with asyncio.Runner(loop_factory=factory(spec)) as runner:
        runner.run(serve(start(interface, tls)))
