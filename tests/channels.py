"""Channels for tests: handlers that write down what happens, in memory or over sockets."""

import asyncio
import fcntl
import socket
import struct
import sys
import termios
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import pytest

from aws_io_async.channel import (
    Channel,
    ChannelDirection,
    ChannelHandler,
    ChannelSlot,
    ChannelState,
)
from aws_io_async.message_pool import IoMessage, MessageType
from aws_io_async.socket_channel_handler import SocketChannelHandler
from tests.recorders import Events

READ, WRITE = ChannelDirection.READ, ChannelDirection.WRITE

Log = list[tuple[str, str]]
"""Who, and what happened to it."""

PATIENCE = 30.0
"""Seconds after which something that should have happened is missed."""


@pytest.fixture(autouse=True)
async def no_tasks_left() -> AsyncIterator[None]:
    """Fail the test that leaves a task.

    For all tests of a module: `no_tasks_left = channels.no_tasks_left`.
    """
    yield
    left = asyncio.all_tasks() - {asyncio.current_task()}
    assert not left, f"tasks left running: {left}"


@contextmanager
def collected_errors() -> Iterator[list[dict[str, Any]]]:
    """What goes to the running loop's exception handler; to be empty, or be emptied, at the end."""
    loop = asyncio.get_running_loop()
    errors: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: errors.append(context))
    try:
        yield errors
    finally:
        loop.set_exception_handler(None)
    assert not errors


class Stage(Events, ChannelHandler):
    """Passes everything on, as far as there is a neighbour, and writes it down.

    `log` may be shared with others: a list of (name, what). `data` is what has come from the left.
    """

    def __init__(
        self,
        name: str = "",
        log: Log | None = None,
        *,
        window: int = sys.maxsize,
        overhead: int = 0,
    ) -> None:
        super().__init__()
        self.name = name
        self.log: Log = log if log is not None else []
        self.initial_window_size = window
        self.message_overhead = overhead
        self.reads: list[IoMessage] = []
        self.writes: list[IoMessage] = []
        self.increments: list[int] = []
        self.ended_with: BaseException | None = None

    def note(self, what: str) -> None:
        self.log.append((self.name, what))
        self.happened(what)

    @property
    def place(self) -> ChannelSlot:
        assert self.slot is not None
        return self.slot

    @property
    def channel(self) -> Channel:
        return self.place.channel

    def process_read_message(self, slot: ChannelSlot, message: IoMessage) -> Any:
        self.reads.append(message)
        self.data += message.data
        is_data = message.message_type is MessageType.APPLICATION_DATA
        self.note("read" if is_data else message.message_type.value)
        if slot.right is not None:
            slot.send_message(message, READ)

    def process_write_message(self, slot: ChannelSlot, message: IoMessage) -> Any:
        self.writes.append(message)
        self.note("write")
        if slot.left is not None:
            slot.send_message(message, WRITE)
        else:
            message.complete(slot.channel, None)

    def increment_read_window(self, slot: ChannelSlot, size: int) -> None:
        self.increments.append(size)
        self.happened("increment")
        slot.increment_read_window(size)

    def shutdown(
        self,
        slot: ChannelSlot,
        direction: ChannelDirection,
        error: BaseException | None,
        free_scarce_resources_immediately: bool,
    ) -> Any:
        self.ended_with = error
        how = " immediately" if free_scarce_resources_immediately else ""
        self.note(f"shutdown {direction.value}{how}")

    def close(self) -> None:
        self.note("close")

    @property
    def written(self) -> bytes:
        """What has come from the right."""
        return b"".join(message.data for message in self.writes)

    def send(self, data: bytes, direction: ChannelDirection = READ) -> IoMessage:
        """Send bytes to the neighbour."""
        message = IoMessage(data)
        self.place.send_message(message, direction)
        return message


class Wire(Stage):
    """The leftmost handler: `send` is what the network brings, `written` what it got.

    With `holds_writes`, messages stay uncompleted until `complete` is called.
    """

    def __init__(self, name: str = "wire", log: Any = None, *, holds_writes: bool = False) -> None:
        super().__init__(name, log)
        self.holds_writes = holds_writes

    def process_write_message(self, slot: ChannelSlot, message: IoMessage) -> None:
        self.writes.append(message)
        self.note("write")
        if not self.holds_writes:
            message.complete(slot.channel, None)

    def complete(self, error: BaseException | None = None) -> None:
        """Complete all writes that are not complete yet."""
        for message in self.writes:
            message.complete(self.channel, error)


class App(Stage):
    """The rightmost handler. It consumes what comes at once if `greedy`, else when told to."""

    def __init__(
        self, name: str = "app", log: Any = None, *, window: int = sys.maxsize, greedy: bool = False
    ) -> None:
        super().__init__(name, log, window=window)
        self.greedy = greedy

    def process_read_message(self, slot: ChannelSlot, message: IoMessage) -> Any:
        super().process_read_message(slot, message)
        if self.greedy:
            slot.increment_read_window(len(message.data))

    async def got(self, size: int) -> bytes:
        """What has come, once there are so many bytes."""
        async with asyncio.timeout(PATIENCE):
            return await self.received(size)

    def takes(self, size: int) -> None:
        """Open the window by so many bytes."""
        self.place.increment_read_window(size)


class Suspending(App):
    """Waits at each message for `go_on`."""

    def __init__(self, name: str = "app", log: Log | None = None) -> None:
        super().__init__(name, log)
        self.go_on = asyncio.Event()

    async def process_read_message(self, slot: Any, message: IoMessage) -> None:
        await self.go_on.wait()
        super().process_read_message(slot, message)

    async def process_write_message(self, slot: Any, message: IoMessage) -> None:
        await self.go_on.wait()
        super().process_write_message(slot, message)


IN_ORDER = [
    ("a", "shutdown read"),
    ("b", "shutdown read"),
    ("c", "shutdown read"),
    ("c", "shutdown write"),
    ("b", "shutdown write"),
    ("a", "shutdown write"),
    ("a", "close"),
    ("b", "close"),
    ("c", "close"),
]
"""What `stages` write down of a graceful shutdown,"""
AT_ONCE = [(name, f"{what} immediately" * (what != "close") or what) for name, what in IN_ORDER]
"""and of an immediate one."""


class Lingering(Stage):
    """Its shutdown of some directions lasts until `go_on` is set, or it is to be immediate."""

    def __init__(self, name: str = "b", log: Log | None = None, *directions: ChannelDirection):
        super().__init__(name, log)
        self.directions = directions or (READ, WRITE)
        self.go_on = asyncio.Event()
        self.cancelled = 0

    async def shutdown(self, slot: Any, direction: ChannelDirection, *args: Any) -> None:
        super().shutdown(slot, direction, *args)
        if direction in self.directions and not args[-1]:
            try:
                await self.go_on.wait()
            except asyncio.CancelledError:
                self.cancelled += 1
                raise


def stages(log: Log, middle: Stage | None = None) -> list[Stage]:
    """A chain of three that share a log."""
    return [Wire("a", log), middle or Stage("b", log), App("c", log)]


@asynccontextmanager
async def pipeline(*handlers: ChannelHandler, **options: Any) -> AsyncIterator[Channel]:
    """A channel on the running loop with these handlers; it has ended when the block has."""
    channel = await Channel.open(**options)
    try:
        for handler in handlers:
            channel.append(handler)
        yield channel
    finally:
        channel.shutdown(immediately=True)
        await ended(channel)


def channel_of_a_closed_loop(factory: Callable[[], asyncio.AbstractEventLoop]) -> Channel:
    """A channel whose loop was closed, and not run to its end before. Thread: without a loop."""
    loop = factory()
    try:
        return loop.run_until_complete(Channel.open())
    finally:
        loop.close()


def state(channel: Channel) -> ChannelState:
    """Its state now: type checkers take what was asserted of an attribute for lasting."""
    return channel.state


def is_clogged(channel: Channel) -> bool:
    """Whether it is clogged now; see `state`."""
    return channel.is_clogged


async def ended(channel: Channel) -> BaseException | None:
    """Wait for the end of a channel; its error."""
    async with asyncio.timeout(PATIENCE):
        await channel.wait_closed()
    return channel.error


@asynccontextmanager
async def socket_channel(
    sock: socket.socket,
    *handlers: ChannelHandler,
    handler: SocketChannelHandler | None = None,
    **options: Any,
) -> AsyncIterator[Channel]:
    """The same, leftmost a handler for `sock`, which is connected and belongs to the channel."""
    handler = handler if handler is not None else SocketChannelHandler()
    sock.setblocking(False)
    async with pipeline(handler, *handlers, **options) as channel:
        loop = asyncio.get_running_loop()
        await loop.connect_accepted_socket(lambda: handler, sock)
        yield channel


class Echo(Stage):
    """Sends back what comes, and takes as much again."""

    def process_read_message(self, slot: ChannelSlot, message: IoMessage) -> None:
        self.data += message.data
        slot.send_message(IoMessage(message.data), WRITE)
        slot.increment_read_window(len(message.data))


@asynccontextmanager
async def bystander() -> AsyncIterator[Channel]:
    """Another channel of the loop, which must be as well after the block as it was before."""
    loop = asyncio.get_running_loop()
    with socket_pair() as (ours, theirs):
        async with socket_channel(ours, Echo("bystander")) as channel:
            for data in (b"before", b"after"):
                if data == b"after":
                    yield channel
                async with asyncio.timeout(PATIENCE):
                    await loop.sock_sendall(theirs, data)
                    assert await loop.sock_recv(theirs, 100) == data
            assert channel.error is None


@contextmanager
def socket_pair(family: socket.AddressFamily = socket.AF_UNIX) -> Iterator[tuple[Any, Any]]:
    """Two connected sockets, closed at the end unless they were before."""
    if family == socket.AF_UNIX:
        ours, theirs = socket.socketpair()
    else:
        with socket.create_server(
            ("::1" if family == socket.AF_INET6 else "127.0.0.1", 0), family=family
        ) as listener:
            ours = socket.create_connection(listener.getsockname()[:2])
            theirs, _ = listener.accept()
    with ours, theirs:
        for sock in (ours, theirs):
            sock.setblocking(False)
        yield ours, theirs


def unread(sock: socket.socket) -> int:
    """Bytes that have come to a socket and wait in the kernel."""
    return _asked(sock, termios.FIONREAD)


def unsent(sock: socket.socket) -> int:
    """Bytes that were written to a socket and wait in the kernel until the peer has them."""
    return _asked(sock, termios.TIOCOUTQ)


def _asked(sock: socket.socket, what: int) -> int:
    return int.from_bytes(fcntl.ioctl(sock.fileno(), what, b"\0" * 4), sys.byteorder)


def reset(sock: socket.socket) -> None:
    """Close it so that the peer is not told in order, but by a reset."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()
