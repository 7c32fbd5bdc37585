"""`TestingChannel`: a channel that ends in the test's hands instead of in a socket.

          read direction  ->
    +------+    +----------+    +-------+
    | left | <> | handlers | <> | right |
    |  end |    |   under  |    |  end  |
    +------+    |   test   |    +-------+
                +----------+
          <-  write direction

The left end stands for the socket: what the test pushes to read goes in there, and what is written
comes out there. The right end stands for the application: what was read comes out, and what the
test pushes to write goes in. The channel between them is a real one.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import NamedTuple, Self, TypeVar, TypeVarTuple, Unpack

from ..channel import Channel, ChannelDirection, ChannelHandler, ChannelSlot, ChannelState
from ..errors import ErrorCode, make
from ..message_pool import IoMessage, MessageType
from ._loop import TestingLoop

T = TypeVar("T")
Ts = TypeVarTuple("Ts")
Data = bytes | bytearray | memoryview

INITIAL_WINDOW = 16 * 1024
"""Bytes that the right end takes before the test says more, as in aws-c-io."""

QUIET_TURNS = 20
"""Turns of the loop without news at either end after which a channel counts as settled."""


class ShutdownCall(NamedTuple):
    """How an end was told to shut down one direction."""

    end: str
    """"left" or "right"."""
    direction: ChannelDirection
    error: BaseException | None
    immediately: bool


OnMessage = Callable[[IoMessage], Awaitable[object] | None]
OnShutdown = Callable[[ShutdownCall], Awaitable[object] | None]


class TestingChannel:
    """A channel of `handlers`, left to right, between two ends that the test operates.

        async with TestingChannel(Decoder()) as channel:    # on any running loop
            channel.push_read(b"...")
            await channel.settle()
            assert channel.take_received() == b"..."

        with TestingChannel(Decoder(), loop=testing_loop) as channel:    # in a plain test
            channel.push_read(b"...")
            testing_loop.run_until_idle()

    When the block ends, so does the channel, immediately. Without a block the channel is set up
    once the loop has had a turn; until then all methods raise RuntimeError.

    `initial_window` (bytes) is the right end's; it takes more when the test says so by
    `increment_read_window`. Without `right_end` the last handler under test is the channel's last.
    The other options are `Channel`'s. TypeError if a handler is none.

    A `TestingLoop` that does not run is entered for each call, so that handlers find a running
    loop; what they leave to be done later waits for `run_until_idle`. Thread: the loop's.
    """

    __test__ = False  # says to pytest that this is no class of tests

    def __init__(
        self,
        *handlers: ChannelHandler,
        loop: asyncio.AbstractEventLoop | None = None,
        initial_window: int = INITIAL_WINDOW,
        right_end: bool = True,
        enable_read_back_pressure: bool = True,
        window_update_threshold: int | None = None,
    ) -> None:
        for handler in handlers:
            if not isinstance(handler, ChannelHandler):
                raise TypeError(f"a channel is made of ChannelHandlers, not {handler!r}")
        if loop is None:
            loop = asyncio._get_running_loop()
            if loop is None:
                raise RuntimeError("no loop is running here: give the channel a TestingLoop")
        self.written: list[IoMessage] = []
        """What has reached the left end and has not been taken."""
        self.received: list[IoMessage] = []
        """What has reached the right end and has not been taken."""
        self.completions: list[tuple[IoMessage, BaseException | None]] = []
        """The writes that were pushed as bytes and are complete, with their errors."""
        self.window_increments: list[int] = []
        """The increments of the read window that have reached the left end, in bytes."""
        self.shutdowns: list[ShutdownCall] = []
        """How the ends were told to shut down, in order."""

        self.hold_writes = False
        """Whether what is written is complete at `complete_write` only, not at once."""
        self.write_error: BaseException | None = None
        """What writes fail with that are complete at once."""
        self.on_written: OnMessage | None = None
        """Called with each message at the left end. An error, or an awaitable, is the end's."""
        self.on_received: OnMessage | None = None
        """The same at the right end."""
        self.on_shutdown: OnShutdown | None = None
        """Called when an end is told to shut down. If it returns an awaitable, the end's shutdown
        lasts until that is done."""

        self._handlers = handlers
        self._left = _LeftEnd(self)
        self._right = _RightEnd(self, initial_window) if right_end else None
        self._is_set_up = False
        self._set_up_error: Exception | None = None
        self._news = asyncio.Event()
        self.news_count = 0
        """How often something has happened at an end, or to the channel."""
        options = (
            {}
            if window_update_threshold is None
            else {"window_update_threshold": window_update_threshold}
        )
        self.channel = Channel(
            loop,
            on_setup=self._set_up,
            on_shutdown=lambda *_: self._happened(),
            enable_read_back_pressure=enable_read_back_pressure,
            **options,
        )

    def _set_up(self, channel: Channel, _error: BaseException | None) -> None:
        self._is_set_up = True
        try:
            for handler in (self._left, *self._handlers, self._right):
                if handler is not None:
                    channel.append(handler)
        except Exception as exc:
            self._set_up_error = exc
        self._happened()

    def _check_set_up(self) -> None:
        if self._set_up_error is not None:
            raise self._set_up_error
        if not self._is_set_up:
            raise RuntimeError(
                "the channel is being set up: use it in a `with` block, or let the loop run first"
            )

    # Life

    def __enter__(self) -> Self:
        self._own_loop().run_until_idle()
        self._check_set_up()
        return self

    def __exit__(self, kind: object, exc: BaseException | None, traceback: object) -> None:
        self.channel.shutdown(immediately=True)
        self._own_loop().run_until_idle()
        if not self.is_shut_down and exc is None:
            raise RuntimeError(
                f"{self.channel!r} has not shut down although it was to do so immediately: a "
                "handler waits for something. If that is time, advance() the loop first"
            )

    def _own_loop(self) -> TestingLoop:
        loop = self.channel.loop
        if not isinstance(loop, TestingLoop):
            raise RuntimeError(f"{loop!r} is no TestingLoop: use `async with` on it")
        return loop

    async def __aenter__(self) -> Self:
        if asyncio.get_running_loop() is not self.channel.loop:
            raise RuntimeError(f"{self.channel!r} belongs to another loop than the running one")
        await self.until(lambda: self._is_set_up)
        self._check_set_up()
        return self

    async def __aexit__(self, kind: object, exc: object, traceback: object) -> None:
        self.channel.shutdown(immediately=True)
        await self.channel.wait_closed()

    def shutdown(self, error: BaseException | None = None, *, immediately: bool = False) -> None:
        """Begin to shut the channel down; see `Channel.shutdown`."""
        self.channel.shutdown(error, immediately=immediately)

    async def wait_closed(self) -> None:
        """Wait until the channel has shut down; see `Channel.wait_closed`."""
        await self.channel.wait_closed()

    @property
    def is_shut_down(self) -> bool:
        """Whether the shutdown has ended."""
        return self.channel.state is ChannelState.SHUT_DOWN

    @property
    def error(self) -> BaseException | None:
        """Why the channel is shut down; None while it is not, and if nothing was wrong."""
        return self.channel.error

    @property
    def left_slot(self) -> ChannelSlot:
        """The left end's slot."""
        self._check_set_up()
        assert self._left.slot is not None
        return self._left.slot

    @property
    def right_slot(self) -> ChannelSlot:
        """The right end's slot; RuntimeError if the channel was made without a right end."""
        self._check_set_up()
        if self._right is None:
            raise RuntimeError("the channel was made without a right end")
        assert self._right.slot is not None
        return self._right.slot

    def __repr__(self) -> str:
        return f"<TestingChannel of {self.channel!r}>"

    # Waiting

    def _happened(self) -> None:
        self.news_count += 1
        self._news.set()

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait until a condition holds, which is asked anew when something happens at an end."""
        while not condition():
            self._news.clear()
            await self._news.wait()

    async def settle(self) -> None:
        """Wait until nothing has happened at either end for 20 turns of the loop.

        Time does not count: for a handler that waits for a timer, a descriptor or another thread,
        wait by `until`.
        """
        quiet = 0
        while quiet < QUIET_TURNS:
            before = self.news_count
            await asyncio.sleep(0)
            quiet = quiet + 1 if self.news_count == before else 0

    def _call(self, function: Callable[[Unpack[Ts]], T], *args: *Ts) -> T:
        """As the loop would, for handlers ask for the running one."""
        loop = self.channel.loop
        if isinstance(loop, TestingLoop) and asyncio._get_running_loop() is None:
            return loop.call(function, *args)
        return function(*args)

    # The left end

    @property
    def read_window(self) -> int:
        """Bytes that `push_read` may send now."""
        return self.left_slot.downstream_read_window

    def push_read(self, data: Data | IoMessage) -> None:
        """Send bytes, or a message, to the right, as if it had come from the network.

        IO_CHANNEL_READ_WOULD_EXCEED_WINDOW if it is more than `read_window`. What a handler raises
        is not raised here: it ends the channel, as it always does.
        """
        message = data if isinstance(data, IoMessage) else IoMessage(data)
        self._call(self.left_slot.send_message, message, ChannelDirection.READ)

    def push_end_of_input(self) -> None:
        """Send END_OF_INPUT to the right, as if the peer had ended its side."""
        self.push_read(IoMessage(message_type=MessageType.END_OF_INPUT))

    def take_written(self) -> bytes:
        """The bytes that were written since the last time; `written` is empty then."""
        return _taken(self.written)

    @property
    def held_writes(self) -> int:
        """How many messages wait for `complete_write`."""
        return len(self._left.held)

    def complete_write(self, error: BaseException | None = None) -> None:
        """Complete the oldest message that is held, perhaps with an error.

        RuntimeError if none is: set `hold_writes` before anything is written.
        """
        if not self._left.held:
            raise RuntimeError("no write is held: set hold_writes before anything is written")
        self._call(self._left.held.popleft().complete, self.channel, error)

    # The right end

    def push_write(self, data: Data | IoMessage) -> IoMessage:
        """Send bytes, or a message, to the left, as the application would; returns the message.

        If bytes were given, its completion will be in `completions`. Errors: `send_message`'s.
        """
        if isinstance(data, IoMessage):
            message = data
        else:
            message = IoMessage(data, on_completion=self._completed)
        self._call(self.right_slot.send_message, message, ChannelDirection.WRITE)
        return message

    def _completed(
        self, _channel: Channel, message: IoMessage, error: BaseException | None
    ) -> None:
        self.completions.append((message, error))
        self._happened()

    def take_received(self) -> bytes:
        """The bytes that were received since the last time; `received` is empty then."""
        return _taken(self.received)

    def increment_read_window(self, size: int) -> None:
        """The right end takes `size` more bytes."""
        self._call(self.right_slot.increment_read_window, size)

    # For the ends

    def _arrived(self, message: IoMessage, hook: OnMessage | None) -> Awaitable[object] | None:
        self._happened()
        return hook(message) if hook is not None else None

    def _shutdown_called(self, call: ShutdownCall) -> Awaitable[object] | None:
        self.shutdowns.append(call)
        self._happened()
        return self.on_shutdown(call) if self.on_shutdown is not None else None


def _taken(messages: list[IoMessage]) -> bytes:
    data = b"".join(message.data for message in messages)
    messages.clear()
    return data


class _LeftEnd(ChannelHandler):
    """Where the socket would be."""

    def __init__(self, owner: TestingChannel) -> None:
        self._owner = owner
        self._ended = False
        self.held: deque[IoMessage] = deque()

    def process_write_message(
        self, slot: ChannelSlot, message: IoMessage
    ) -> Awaitable[object] | None:
        owner = self._owner
        if self._ended:
            message.complete(slot.channel, make(ErrorCode.IO_SOCKET_CLOSED, "written too late"))
            return None
        owner.written.append(message)
        if owner.hold_writes:
            self.held.append(message)
        else:
            message.complete(slot.channel, owner.write_error)
        return owner._arrived(message, owner.on_written)

    def increment_read_window(self, slot: ChannelSlot, size: int) -> None:
        if size:  # others only say that the way is free
            self._owner.window_increments.append(size)
        self._owner._happened()

    def shutdown(
        self,
        slot: ChannelSlot,
        direction: ChannelDirection,
        error: BaseException | None,
        free_scarce_resources_immediately: bool,
    ) -> Awaitable[object] | None:
        call = ShutdownCall("left", direction, error, free_scarce_resources_immediately)
        pending = self._owner._shutdown_called(call)
        if direction is ChannelDirection.READ:
            return pending
        if pending is not None:
            return self._end_after(pending, slot.channel)
        self._end(slot.channel)
        return None

    async def _end_after(self, pending: Awaitable[object], channel: Channel) -> None:
        try:
            await pending
        finally:
            self._end(channel)

    def _end(self, channel: Channel) -> None:
        self._ended = True
        while self.held:
            error = make(ErrorCode.IO_SOCKET_CLOSED, "the channel was shut down")
            self.held.popleft().complete(channel, error)


class _RightEnd(ChannelHandler):
    """Where the application would be."""

    def __init__(self, owner: TestingChannel, initial_window: int) -> None:
        self._owner = owner
        self.initial_window_size = initial_window

    def process_read_message(
        self, slot: ChannelSlot, message: IoMessage
    ) -> Awaitable[object] | None:
        owner = self._owner
        owner.received.append(message)
        return owner._arrived(message, owner.on_received)

    def shutdown(
        self,
        slot: ChannelSlot,
        direction: ChannelDirection,
        error: BaseException | None,
        free_scarce_resources_immediately: bool,
    ) -> Awaitable[object] | None:
        call = ShutdownCall("right", direction, error, free_scarce_resources_immediately)
        return self._owner._shutdown_called(call)
