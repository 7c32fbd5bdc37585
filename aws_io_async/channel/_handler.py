"""What every handler of a channel is."""

import enum
import sys
from collections.abc import Awaitable
from typing import TYPE_CHECKING

from ..message_pool import IoMessage

if TYPE_CHECKING:
    from ._slot import ChannelSlot


class ChannelDirection(enum.Enum):
    """Which way a message goes."""

    READ = "read"
    """From the socket to the application, left to right."""
    WRITE = "write"
    """From the application to the socket, right to left."""


class ChannelHandler:
    """One stage of a pipeline; a subclass overrides what it is there for.

    The methods that process messages and `shutdown` may be plain or `async def`. A coroutine that
    does not suspend costs no task switch. One that does holds back what follows in its slot and
    direction, which waits in order, and nothing else; `asyncio.timeout` and `TaskGroup` work
    inside it. It must not wait for its own channel to close: `shutdown()` and return.

    A method that raises shuts the channel down with its exception as the error. If it was one
    that processes messages, it gets no more of them; what still waited for it is dropped.

    Thread: all methods are called on the channel's.
    """

    initial_window_size: int = sys.maxsize
    """Bytes that the handler is ready to receive from its left before it has consumed any."""

    message_overhead: int = 0
    """Bytes that the handler adds to a message on its way to the left; for those to its right."""

    slot: "ChannelSlot | None" = None
    """Where the handler is, or was; set by the slot."""

    def process_read_message(
        self, slot: "ChannelSlot", message: IoMessage
    ) -> Awaitable[object] | None:
        """A message has come from the left. The default passes it on."""
        slot.send_message(message, ChannelDirection.READ)
        return None

    def process_write_message(
        self, slot: "ChannelSlot", message: IoMessage
    ) -> Awaitable[object] | None:
        """A message has come from the right. The default passes it on.

        A handler that does not pass it on, but sends others in its place or none, says what
        became of it by `message.complete(slot.channel, error)`.
        """
        slot.send_message(message, ChannelDirection.WRITE)
        return None

    def increment_read_window(self, slot: "ChannelSlot", size: int) -> None:
        """The neighbour to the right takes `size` more bytes. The default asks for as many.

        A size of 0 says that the way to the right may have changed: what is left of
        `slot.downstream_read_window` can be sent.
        """
        slot.increment_read_window(size)

    def shutdown(
        self,
        slot: "ChannelSlot",
        direction: ChannelDirection,
        error: BaseException | None,
        free_scarce_resources_immediately: bool,
    ) -> Awaitable[object] | None:
        """End one direction. It has ended when this returns, or when its awaitable is done.

        `error` is the reason, None for none. If `free_scarce_resources_immediately`, what costs
        the system something is to be let go at once, and nothing waited for. A graceful shutdown
        that is turned into an immediate one cancels the awaitable, and calls this again.
        """
        return None

    def gather_statistics(self) -> object | None:
        """The handler's figures since `reset_statistics`, if it counts any."""
        return None

    def reset_statistics(self) -> None:
        """Begin to count anew."""

    def trigger_read(self, slot: "ChannelSlot") -> None:
        """Read now if there is anything to read; asked of the leftmost handler."""

    def close(self) -> None:
        """The channel has ended, or the slot was removed. Nothing is called after this."""
