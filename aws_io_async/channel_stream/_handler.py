"""The rightmost handler of a channel that a stream is made of.

Theory of operation. What comes waits in `_chunks` until the stream takes it, and only then does
the stream open the window for as much again: a reader that is slow holds back its peer.

The stream takes from whichever thread it is used on, while the channel's puts in. This stands on
three things: only one task takes at a time, a deque may be used at its two ends by two threads,
and the end is noted after the last byte.
"""

import asyncio
from collections import deque

from ..channel import Channel, ChannelDirection, ChannelHandler, ChannelSlot
from ..channel_bootstrap._arguments import check_whole_number
from ..message_pool import IoMessage, MessageType

WINDOW = 256 * 1024
"""Bytes that wait for the application before the peer is held back."""


def check_window(window: int) -> None:
    """Raise ValueError or TypeError if it is no number of bytes, at least 1."""
    if check_whole_number("window", window) < 1:
        raise ValueError(f"window must be positive, not {window!r}")


class StreamHandler(ChannelHandler):
    """Keeps what has come until it is asked for. Thread: the channel's, unless said otherwise."""

    def __init__(self, window: int) -> None:
        self.initial_window_size = window
        self.has_ended = False
        """Nothing will come any more."""
        self.input_ended = False
        """The peer has said so itself."""
        self._discarding = False
        self._chunks: deque[bytes | memoryview] = deque()
        self._waiter: asyncio.Future[None] | None = None

    def process_read_message(self, slot: ChannelSlot, message: IoMessage) -> None:
        if message.message_type is MessageType.END_OF_INPUT:
            self.input_ended = self.has_ended = True
            self._wake()
        elif message.message_type is MessageType.APPLICATION_DATA and message.data:
            if self._discarding:
                slot.increment_read_window(len(message.data))
            else:
                self._chunks.append(bytes(message.data))
                self._wake()

    def shutdown(
        self,
        slot: ChannelSlot,
        direction: ChannelDirection,
        error: BaseException | None,
        free_scarce_resources_immediately: bool,
    ) -> None:
        self.has_ended = True
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    @property
    def is_readable(self) -> bool:
        """Whether there is something to take, or nothing will come any more. Thread: any."""
        return bool(self._chunks) or self.has_ended

    async def readable(self) -> None:
        """Wait until there is something to take, or nothing will come any more."""
        if self.is_readable:
            return
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def take(self, max_bytes: int) -> bytes:
        """Up to `max_bytes` of what has come; b"" for nothing. Thread: any, one at a time."""
        taken: list[bytes | memoryview] = []
        room = max_bytes
        while room:
            try:
                chunk = self._chunks.popleft()
            except IndexError:
                break
            if len(chunk) > room:
                view = memoryview(chunk)
                self._chunks.appendleft(view[room:])
                chunk = view[:room]
            taken.append(chunk)
            room -= len(chunk)
        return bytes(taken[0]) if len(taken) == 1 else b"".join(taken)

    def discard(self) -> None:
        """Nobody will receive any more: let everything come, and drop it."""
        self._discarding = self.has_ended = True
        assert self.slot is not None
        while dropped := self.take(WINDOW):
            self.slot.increment_read_window(len(dropped))
        self._wake()

    async def end_output(self) -> None:
        """End our side of the connection. Raises what the handlers to the left say to that."""
        slot = self.slot
        assert slot is not None
        ended: asyncio.Future[BaseException | None] = slot.channel.loop.create_future()

        def completed(channel: Channel, message: IoMessage, error: BaseException | None) -> None:
            if not ended.done():
                ended.set_result(error)

        message = IoMessage(message_type=MessageType.END_OF_INPUT, on_completion=completed)
        slot.send_message(message, ChannelDirection.WRITE)
        if (error := await ended) is not None:
            raise error
