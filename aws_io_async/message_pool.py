"""Messages, what travels between the handlers of a channel, and where their memory comes from.

aws-c-io pools its messages because its allocator is not free. Python's is close to it for objects
of this size, so what is pooled here is the one thing that is large: the buffer that sockets are
read into, which all channels of a loop share. What was read is copied out of it at its true size,
and so the data of a message belongs to whoever holds the message, for as long as they like.

Source: aws-c-io's `message_pool.h` and `io.h`.
"""

import enum
from collections.abc import Callable
from typing import Any

MAX_FRAGMENT_SIZE = 16 * 1024
"""Bytes; the most that a message of a pool carries, as in aws-c-io."""

MAX_READ_SIZE = 64 * 1024
"""Bytes; what a socket's handler reads at a time, unless it is told otherwise. aws-c-io's reads 16
KiB: a message of 64 KiB then takes four reads and four writes, at twice the price."""


class MessageType(enum.Enum):
    """What a message carries."""

    APPLICATION_DATA = "application data"
    END_OF_INPUT = "end of input"
    """To the right: the peer has ended its side. To the left: end ours. Nothing follows."""
    OTHER = "other"
    """Handlers' own, told apart by `tag`."""


class IoMessage:
    """One message. `data` is bytes-like and must not be changed once the message was sent.

    `on_completion(channel, message, error)` is called once, on the channel's thread: with None
    when the last byte of a message to the left has gone to the kernel, or with the reason why it
    never will. If it raises, the channel is shut down with what it raised.
    """

    __slots__ = ("data", "message_type", "on_completion", "tag")

    def __init__(
        self,
        data: bytes | bytearray | memoryview = b"",
        message_type: MessageType = MessageType.APPLICATION_DATA,
        on_completion: "Callable[[Any, IoMessage, BaseException | None], object] | None" = None,
        tag: Any = None,
    ) -> None:
        self.data = data
        self.message_type = message_type
        self.on_completion = on_completion
        self.tag = tag

    def __repr__(self) -> str:
        return f"<IoMessage {self.message_type.value}, {len(self.data)} bytes>"

    def complete(self, channel: Any, error: BaseException | None) -> None:
        """Tell the sender, if it wants to know and does not know yet.

        To be called by whoever ends the way of a message to the left: the leftmost handler, or
        one that does not pass it on. Thread: that of `channel`.
        """
        on_completion, self.on_completion = self.on_completion, None
        if on_completion is None:
            return
        try:
            on_completion(channel, self, error)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as exc:
            channel._failed(on_completion, exc)


class DataMessage(IoMessage):
    """One whose maker stores the four attributes: half of what the constructor takes."""

    __slots__ = ()

    __init__ = object.__init__


class PooledMessage(IoMessage):
    """A message of a pool: an empty bytearray to fill, up to `capacity` bytes."""

    __slots__ = ("capacity",)

    def __init__(self, message_type: MessageType, capacity: int) -> None:
        super().__init__(bytearray(), message_type)
        self.capacity = capacity


class MessagePool:
    """The messages of one loop. Thread: the loop's."""

    def __init__(self, max_fragment_size: int = MAX_FRAGMENT_SIZE) -> None:
        if max_fragment_size <= 0:
            raise ValueError(f"max_fragment_size must be positive, not {max_fragment_size!r}")
        self.max_fragment_size = max_fragment_size
        self.read_buffer = memoryview(bytearray(max_fragment_size))
        """For one read at a time; what was read is to be copied before the next one."""

    def acquire(self, message_type: MessageType, size_hint: int) -> PooledMessage:
        """An empty message. Its capacity is `size_hint`, or `max_fragment_size` if that is less.

        `size_hint` is in bytes; ValueError if it is negative.
        """
        if size_hint < 0:
            raise ValueError(f"size_hint must not be negative, but is {size_hint!r}")
        return PooledMessage(message_type, min(size_hint, self.max_fragment_size))

    def acquire_read_buffer(self, size: int) -> memoryview:
        """`size` bytes of `read_buffer`, which is replaced by a larger one if it has fewer.

        ValueError if `size` is not positive.
        """
        if size <= 0:
            raise ValueError(f"size must be positive, not {size!r}")
        if size > len(self.read_buffer):
            self.read_buffer = memoryview(bytearray(size))
        return self.read_buffer[:size]
