"""The list of scenes for tests/faults/test_cancellation.py, and what several of them need."""

import asyncio
import functools
import socket
import ssl
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import trustme

from tests.faults.cancellation import Injection, Scene, When
from tests.tls_peers import HOST as HOST

T = TypeVar("T")

DATA = b"some data that must not be lost"

BIG = bytes(range(256)) * 4096
"""1 MiB: more than a socket pair or a pipe holds."""


OTHER_LOOPBACK = "127.0.0.2" if sys.platform == "linux" else "::1"


@dataclass(frozen=True)
class Entry:
    """A scene, and what it is about."""

    scene: Scene
    coroutines: tuple[str, ...]
    """The public coroutines that it has cancelled."""
    others: "Others"
    """On which other loops than ours it holds, and at which moments."""


Others = Mapping[str, tuple[When, ...]]

BOTH = (When.SUSPENDED, When.DONE)
OURS_ALONE: Others = {}
EVERYWHERE: Others = {"asyncio": BOTH, "uvloop": BOTH}
UNLESS_DONE: Others = {"asyncio": (When.SUSPENDED,), "uvloop": (When.SUSPENDED,)}
"""They take what comes before the task runs that waits for it; is that cancelled, it is lost."""
ASYNCIO: Others = {"asyncio": BOTH}
"""uvloop leaves something open for a while, or for good."""
UVLOOP_UNLESS_DONE: Others = {"asyncio": BOTH, "uvloop": (When.SUSPENDED,)}
"""uvloop keeps what has just been opened."""

SCENES: dict[str, Entry] = {}


def scene(*coroutines: str, others: Others = EVERYWHERE) -> Callable[[Scene], Scene]:
    """The decorated scene cancels these public coroutines, also on `others` than our loop."""

    def note(function: Scene) -> Scene:
        name = f"{function.__module__.rpartition('.')[2]}.{function.__name__}"
        assert name not in SCENES
        SCENES[name] = Entry(function, coroutines, others)
        return function

    return note


async def call_of(awaitable: Awaitable[T]) -> T:
    """A coroutine of what is none."""
    return await awaitable


async def injected(inject: Injection, call: Callable[[], Awaitable[T]], cue: object = None) -> T:
    """What a call returns, made once more if it was cancelled: it has lost nothing then."""
    assert cue is None or callable(cue)
    outcome = await inject(call(), cue)
    return await call() if outcome.cancelled else outcome.result


@contextmanager
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two connected sockets that do not block."""
    near, far = socket.socketpair()
    with near, far:
        near.setblocking(False)
        far.setblocking(False)
        yield near, far


@contextmanager
def listener(receive_buffer: int | None = None) -> Iterator[socket.socket]:
    """A listening socket that does not block, whose connections may have little room."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        sock.setblocking(False)
        if receive_buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        yield sock


@contextmanager
def folder() -> Iterator[Path]:
    """One for files and Unix sockets."""
    with tempfile.TemporaryDirectory() as path:
        yield Path(path)


@functools.cache
def ca() -> trustme.CA:
    """What all certificates are of."""
    return trustme.CA()


@functools.cache
def server_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca().issue_cert(HOST).configure_cert(context)
    return context


@functools.cache
def client_context() -> ssl.SSLContext:
    context = ssl.create_default_context()
    ca().configure_trust(context)
    return context


class Ends(asyncio.Protocol):
    """A protocol that keeps what comes, and knows when its connection has begun and ended."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.data = bytearray()
        self.begun = False
        self.ended: asyncio.Future[None] = loop.create_future()
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.begun = True
        self.transport = transport  # type: ignore[assignment]  # a socket's or TLS's

    def data_received(self, data: bytes) -> None:
        self.data += data

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended.set_result(None)


async def end(transport: asyncio.BaseTransport, protocol: Ends) -> None:
    """Close what a connection has brought, and wait for that."""
    transport.close()
    await protocol.ended


async def ended(protocols: list[Ends]) -> None:
    """Wait until those that have heard of the begin of a connection have heard of its end."""
    for protocol in protocols:
        if protocol.begun:
            await protocol.ended


def note(protocols: list[Ends]) -> Ends:
    protocols.append(Ends())
    return protocols[-1]


def running() -> Any:
    """The running loop, of whichever kind."""
    return asyncio.get_running_loop()
