"""For the tests of sockets and pipes: connections, faults, another thread's loop, error codes."""

import asyncio
import resource
import socket as stdlib
import struct
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, TypeVar

import pytest

from aws_io_async.errors import AwsIoError, Code
from aws_io_async.event_loop.group import EventLoopGroup
from aws_io_async.pipe import ReadEnd, WriteEnd
from aws_io_async.socket import (
    Socket,
    SocketDomain,
    SocketEndpoint,
    SocketOptions,
    SocketState,
)
from aws_io_async.testing import local_endpoint as local_endpoint

T = TypeVar("T")

LOOPBACK = {SocketDomain.IPV4: "127.0.0.1", SocketDomain.IPV6: "::1", SocketDomain.VSOCK: "1"}


def tcp_pair() -> tuple[stdlib.socket, stdlib.socket]:
    """Two connected sockets, between which only a few MiB fit.

    A receive buffer that is set does not grow: the kernel's own choice reaches 32 MiB, so that
    once in a while a write would never have to wait.
    """
    near = stdlib.socket(proto=stdlib.IPPROTO_TCP)
    with stdlib.socket() as listener:
        for sock in listener, near:
            sock.setsockopt(stdlib.SOL_SOCKET, stdlib.SO_RCVBUF, 256 * 1024)
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        near.connect(listener.getsockname())
        far, _ = listener.accept()
        return near, far


@contextmanager
def raises(code: Code, match: str | None = None) -> Iterator[None]:
    """The block raises the error of that code, and its text matches."""
    with pytest.raises(AwsIoError, match=match) as caught:
        yield
    assert caught.value.code is code


async def listening(
    options: SocketOptions | None = None, endpoint: SocketEndpoint | None = None
) -> Socket:
    """A listener, on a port of the system's choice unless an endpoint is given."""
    options = options or SocketOptions()
    listener = Socket(options)
    try:
        listener.bind(endpoint or SocketEndpoint(LOOPBACK[options.domain]))
        listener.listen()
    except BaseException:
        listener.close()
        raise
    return listener


@asynccontextmanager
async def connected(
    options: SocketOptions | None = None, endpoint: SocketEndpoint | None = None
) -> AsyncIterator[tuple[Socket, Socket]]:
    """A client and the server's end of its connection."""
    async with await listening(options, endpoint) as listener, Socket(options) as client:
        _, server = await asyncio.gather(
            client.connect(listener.get_bound_address()), listener.accept()
        )
        async with server:
            yield client, server


@asynccontextmanager
async def filled() -> AsyncIterator[tuple[Socket, Socket, int]]:
    """A connection whose first end cannot be written to before the second has read that many."""
    writer, reader = map(Socket.from_socket, stdlib.socketpair())
    async with writer, reader:
        yield writer, reader, await fill(writer)


@contextmanager
def black_hole() -> Iterator[SocketEndpoint]:
    """An address that answers no attempt to connect: the backlog behind it is full."""
    with stdlib.socket() as listener, stdlib.socket() as first, stdlib.socket() as second:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for sock in (first, second):
            sock.setblocking(False)
            sock.connect_ex(listener.getsockname())
        yield SocketEndpoint(*listener.getsockname())


@asynccontextmanager
async def another_loop() -> AsyncIterator[asyncio.AbstractEventLoop]:
    """A loop of the running one's kind, on a thread of its own."""
    factory = type(asyncio.get_running_loop())
    async with EventLoopGroup(1, loop_factory=factory) as group:
        yield group.get_loop_at(0)


async def on(loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, T]) -> T:
    """What a coroutine returns or raises on another thread's loop."""
    return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(coroutine, loop))


def state(sock: Socket) -> SocketState:
    """Its state now: type checkers take what was asserted of an attribute for lasting."""
    return sock.state


def is_open(end: Socket | ReadEnd | WriteEnd) -> bool:
    """Whether it is open now; see `state`."""
    return end.is_open


def is_watched(fd: int) -> bool:
    """Whether the running loop has a reader or a writer for a descriptor; removes them."""
    loop = asyncio.get_running_loop()
    reader, writer = loop.remove_reader(fd), loop.remove_writer(fd)
    return reader or writer


async def turns(count: int = 10) -> None:
    """Let everything run that can."""
    for _ in range(count):
        await asyncio.sleep(0)


async def fill(sock: Socket) -> int:
    """Write until the kernel takes no more; how many bytes that were."""
    total, chunk = 0, bytes(1 << 16)
    with stdlib.socket(fileno=stdlib.dup(sock.fileno())) as same:
        while True:
            try:
                total += same.send(chunk)
            except BlockingIOError:
                return total


def reset(sock: Socket) -> None:
    """Close it so that the peer is not told in order, but by a reset."""
    with sock.detach() as plain:
        plain.setsockopt(stdlib.SOL_SOCKET, stdlib.SO_LINGER, struct.pack("ii", 1, 0))


@contextmanager
def no_more_descriptors() -> Iterator[Callable[[], None]]:
    """A limit that the process has reached already; what is yielded lifts it."""
    old = resource.getrlimit(resource.RLIMIT_NOFILE)

    def lift() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, old)

    with stdlib.socket() as probe:
        lowest = probe.fileno()
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, old[1]))
    try:
        yield lift
    finally:
        lift()
