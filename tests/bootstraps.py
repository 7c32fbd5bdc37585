"""What bootstraps do, written down: callbacks, in which order and on which loop; both ends."""

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any

from aws_io_async.channel import Channel, ChannelDirection, ChannelHandler, ChannelSlot
from aws_io_async.channel_bootstrap import ClientBootstrap, ServerBootstrap, SocketListener
from aws_io_async.errors import AwsIoError, Code
from aws_io_async.event_loop.group import EventLoopGroup
from aws_io_async.future import Promise
from aws_io_async.host_resolver import HostResolutionConfig, HostResolver
from aws_io_async.message_pool import IoMessage
from aws_io_async.socket import SocketEndpoint
from tests.socket_tools import turns

LOOPBACK = "127.0.0.1"

PATIENCE = 30.0
"""Seconds after which something that should have happened is missed."""


class OnPurposeError(Exception):
    """What the tests' callbacks raise."""


@dataclass(frozen=True)
class Note:
    """One call of a callback."""

    what: str
    subject: Any
    """The channel or the listener; None if there is none."""
    error: BaseException | None
    loop: asyncio.AbstractEventLoop
    """That ran on the caller's thread."""


class Journal:
    """Callbacks that write down that they were called, and may raise. Thread: any."""

    def __init__(self, **raises: BaseException) -> None:
        self.notes: list[Note] = []
        self._raises = raises
        self._lock = threading.Lock()
        self._waiting: list[tuple[Callable[[], object], Promise[None]]] = []

    def note(self, what: str, subject: Any = None, error: BaseException | None = None) -> None:
        with self._lock:
            self.notes.append(Note(what, subject, error, asyncio.get_running_loop()))
            woken = [promise for reached, promise in self._waiting if reached()]
            self._waiting = [pair for pair in self._waiting if pair[1] not in woken]
        for promise in woken:
            promise.set_result(None)
        if what in self._raises:
            raise self._raises[what]

    def creation(self, channel: Channel) -> None:
        self.note("creation", channel)

    def setup(self, channel: Channel | None, error: BaseException | None) -> None:
        assert (channel is None) is (error is not None)
        self.note("setup" if channel is not None else "failure", channel, error)

    def shutdown(self, channel: Channel | None, error: BaseException | None) -> None:
        assert channel is not None
        self.note("shutdown", channel, error)

    def destroy(self, listener: SocketListener) -> None:
        self.note("destroy", listener)

    @property
    def of_client(self) -> dict[str, Any]:
        """The arguments for `new_socket_channel`."""
        return {
            "on_creation": self.creation,
            "on_setup": self.setup,
            "on_shutdown": self.shutdown,
        }

    @property
    def of_server(self) -> dict[str, Any]:
        """The arguments for `new_socket_listener`."""
        return {
            "on_incoming_channel_creation": self.creation,
            "on_incoming_channel_setup": self.setup,
            "on_incoming_channel_shutdown": self.shutdown,
            "on_destroy": self.destroy,
        }

    @property
    def story(self) -> list[str]:
        return [note.what for note in self.notes]

    def all(self, what: str) -> list[Note]:
        return [note for note in self.notes if note.what == what]

    async def has(self, what: str, times: int = 1) -> Note:
        """The note of that number about something, once there is one."""
        promise: Promise[None] = Promise()
        with self._lock:
            if len(self.all(what)) < times:
                self._waiting.append((lambda: len(self.all(what)) >= times, promise))
            else:
                promise.set_result(None)
        async with asyncio.timeout(PATIENCE):
            await promise.future
        return self.all(what)[times - 1]


class Echo(ChannelHandler):
    """Sends back what comes."""

    def process_read_message(self, slot: ChannelSlot, message: IoMessage) -> None:
        slot.send_message(IoMessage(message.data), ChannelDirection.WRITE)
        slot.increment_read_window(len(message.data))


class Sink(ChannelHandler):
    """Keeps what comes, and notes it. It can wait for so many bytes on any loop."""

    def __init__(self, window: int = 1 << 20) -> None:
        self.initial_window_size = window
        self.data = bytearray()
        self.journal = Journal()

    def process_read_message(self, slot: ChannelSlot, message: IoMessage) -> None:
        self.data += message.data
        for _ in range(len(message.data)):
            self.journal.note("byte")

    async def got(self, size: int) -> bytes:
        await self.journal.has("byte", size)
        return bytes(self.data)


@dataclass
class Server:
    """A listener and what has become of its connections."""

    listener: SocketListener
    journal: Journal

    @property
    def endpoint(self) -> SocketEndpoint:
        return self.listener.endpoint

    @property
    def address(self) -> tuple[str, int]:
        return self.endpoint.address, self.endpoint.port

    async def accepted(self, count: int = 1) -> Channel:
        """The channel of that number, once it is ready."""
        channel = (await self.journal.has("setup", count)).subject
        assert isinstance(channel, Channel)
        return channel


@asynccontextmanager
async def serving(
    host: str = LOOPBACK,
    port: int = 0,
    *,
    bootstrap: ServerBootstrap | None = None,
    group: EventLoopGroup | None = None,
    handlers: Callable[[], Iterable[ChannelHandler]] = lambda: [Echo()],
    journal: Journal | None = None,
    **options: Any,
) -> AsyncIterator[Server]:
    """A server that echoes, unless it is given other handlers. Its channels end with the block."""
    journal = journal or Journal()
    listener = await (bootstrap or ServerBootstrap(group)).new_socket_listener(
        host, port, handlers=handlers, **{**journal.of_server, **options}
    )
    try:
        yield Server(listener, journal)
    finally:
        await listener.aclose()
        for note in journal.all("setup"):
            await ended(note.subject)


@asynccontextmanager
async def connected(
    server: Server | socket.socket,
    *,
    bootstrap: ClientBootstrap | None = None,
    **options: Any,
) -> AsyncIterator[Channel]:
    """A client's channel to a server of ours or another's; it ends with the block."""
    host, port = server.address if isinstance(server, Server) else server.getsockname()[:2]
    channel = await (bootstrap or ClientBootstrap()).new_socket_channel(host, port, **options)
    try:
        yield channel
    finally:
        await ended(channel)


async def ended(channel: Channel) -> BaseException | None:
    """End a channel at once, and wait for that; its error."""
    channel.shutdown(immediately=True)
    async with asyncio.timeout(PATIENCE):
        await channel.wait_closed()
    return channel.error


async def closed(channel: Channel) -> BaseException | None:
    """Wait until a channel has ended; its error."""
    async with asyncio.timeout(PATIENCE):
        await channel.wait_closed()
    return channel.error


async def write(channel: Channel, data: bytes) -> None:
    """Write through the last slot of a channel of the running loop."""
    *_, slot = channel.slots()
    await slot.write(data)


async def error_of(attempt: Any) -> AwsIoError:
    """The error that an attempt fails with, if it is one of ours."""
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


def handlers_of(channel: Channel) -> list[type[Any]]:
    return [type(slot.handler) for slot in channel.slots()]


async def tasks_of(group: EventLoopGroup) -> set["asyncio.Task[Any]"]:
    """What still runs on the loops of a group."""

    async def others() -> set["asyncio.Task[Any]"]:
        await turns()
        return {task for task in asyncio.all_tasks() if task is not asyncio.current_task()}

    found: set[asyncio.Task[Any]] = set()
    for loop in group:
        found |= await group.run(others(), loop)
    return found


# Raw sockets


@contextmanager
def listening(address: str = LOOPBACK, port: int = 0) -> Iterator[socket.socket]:
    """A listening socket that is nobody's but the test's."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.create_server((address, port), family=family) as listener:
        listener.setblocking(False)
        yield listener


@contextmanager
def refusing(address: str = LOOPBACK, port: int = 0) -> Iterator[int]:
    """A port of an address at which nobody listens, and nobody else will."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family) as sock:
        sock.bind((address, port))
        yield sock.getsockname()[1]


async def dial(server: Server) -> socket.socket:
    """A plain client's socket, connected to a server of ours."""
    family = socket.AF_INET6 if ":" in server.endpoint.address else socket.AF_INET
    sock = socket.socket(family)
    sock.setblocking(False)
    try:
        await asyncio.get_running_loop().sock_connect(sock, server.address)
    except BaseException:
        sock.close()
        raise
    return sock


# Names


@contextmanager
def knowing(**names: Any) -> Iterator[HostResolver]:
    """A resolver that knows these names only: lists of addresses, or what is to be raised."""

    def look_up(host: str) -> Any:
        answer = names[host]
        if isinstance(answer, BaseException):
            raise answer
        return answer

    config = HostResolutionConfig(look_up, max_ttl=1000, resolve_frequency=1000)
    with HostResolver(config=config) as resolver:
        yield resolver
