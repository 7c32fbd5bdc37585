"""Slots: where a handler sits, how messages pass between neighbours, and the chain they form.

With read back pressure, `window_size` counts how many bytes the handler can still take from the
left: a message takes from it, and one past it is an error. It grows again when what handlers have
asked for, saved up in `_batch`, is emitted; see `_windows`.

A slot that leaves the chain may have messages inside that wait for its handler. They were let in
by its own window, so nothing keeps the neighbour from being sent more: whoever takes them over
gets them on top of what its window allows, and owes that many bytes. Its `window_size` may then
be negative; there is no room before it is positive again.

A left neighbour is told of what the window grows by. If it passes everything on, it has promised
as much to its own left, and cannot hold back what then comes. So when neighbours change, what the
left one was told stays good: `_ahead` is by how much that is more than the window. Up to that much
may come past the window, and be owed. The next increments are told of once they exceed it. A left
neighbour that is new has been told nothing yet, but may pass on what was promised to the one before
it; and what a slot that left had promised may now come to any slot that was right of it. `_extra`
is by how much these promises are more than what the left neighbour was told.

Source: aws-c-io's `channel.h` and `channel.c`.
"""

import asyncio
import operator
import sys
from threading import get_ident
from typing import TYPE_CHECKING, Any

from ..errors import CommonErrorCode, ErrorCode, make
from ..message_pool import MAX_FRAGMENT_SIZE, DataMessage, IoMessage, MessageType, PooledMessage
from ._handler import ChannelDirection, ChannelHandler
from ._lane import Lane
from ._trace import traced

if TYPE_CHECKING:
    from ._channel import Channel

UNLIMITED = sys.maxsize
"""The window where there is no back pressure."""

_READ, _WRITE = ChannelDirection.READ, ChannelDirection.WRITE  # found faster than a member
_APPLICATION_DATA = MessageType.APPLICATION_DATA


class ChannelSlot:
    """A place in a channel. Made by `Channel.new_slot`; its neighbours are `left` and `right`.

    Thread: the channel's; ERROR_IO_EVENT_LOOP_THREAD_ONLY from another.
    """

    __slots__ = (
        "__weakref__",
        "_ahead",
        "_batch",
        "_extra",
        "_inherited",
        "_reads",
        "_removed",
        "_stepping",
        "_writes",
        "channel",
        "handler",
        "lane_to_left",
        "lane_to_right",
        "left",
        "right",
        "upstream_message_overhead",
        "window_size",
    )

    def __init__(self, channel: "Channel") -> None:
        self.channel = channel
        self.handler: ChannelHandler | None = None
        self.left: ChannelSlot | None = None
        self.right: ChannelSlot | None = None
        self.window_size = 0
        """Bytes that the handler can take from the left, if there is back pressure."""
        self.upstream_message_overhead = 0
        """Bytes that the handlers to the left add to a message on its way to the socket."""
        self._batch = 0  # granted, and not yet part of the window
        self._ahead = 0  # what the left neighbour believes that the window is, less what it is
        self._extra = 0  # what may come from the left, less what the left neighbour believes
        self._removed = False
        self._reads: Lane | None = None
        self._writes: Lane | None = None
        self._stepping: Lane | None = None  # the lane of writes, if these are coroutines
        # The neighbours' lanes, while no window and no end has a say in what is sent there.
        self.lane_to_left: Lane | None = None
        self.lane_to_right: Lane | None = None
        self._inherited: list[tuple[ChannelDirection, IoMessage]] = []  # wait for the handler

    def __repr__(self) -> str:
        name = type(self.handler).__name__ if self.handler is not None else "empty"
        state = " removed" if self._removed else ""
        return f"<ChannelSlot {name} window={self.window_size}{state}>"

    # The chain

    def set_handler(self, handler: ChannelHandler) -> None:
        """Put a handler in, for good. Its initial window is granted to the left.

        RuntimeError if the slot has one, or the handler has another slot, or the slot has been
        removed; ValueError for a negative window or overhead.
        """
        self.channel._check_usable()
        if self._removed:
            raise RuntimeError(f"{self!r} has left the channel: use a new slot")
        if self.handler is not None:
            raise RuntimeError(f"{self!r} has a handler: put a new slot in its place by replace()")
        window = check_handler(handler)
        handler.slot = self
        self.handler = handler
        read, write = handler.process_read_message, handler.process_write_message
        self._reads = Lane(self, traced(read, _READ), self.channel._windows.waiting)
        self._writes = Lane(self, traced(write, _WRITE))
        self.channel._chain_changed()
        self.increment_read_window(window)
        inherited, self._inherited = self._inherited, []
        for direction, message in inherited:
            self._take_over(direction, message)

    def insert_left(self, new: "ChannelSlot") -> None:
        """Put a new slot between this one and its left neighbour."""
        self._check_insertion(new)
        new._link(self.left, self, self)
        self.channel._chain_changed()

    def insert_right(self, new: "ChannelSlot") -> None:
        """Put a new slot between this one and its right neighbour."""
        self._check_insertion(new)
        new._link(self, self.right, self.right)
        self.channel._chain_changed()

    def insert_end(self, new: "ChannelSlot") -> None:
        """Put a new slot at the right end of the channel."""
        last = self
        while last.right is not None:
            last = last.right
        last.insert_right(new)

    def _check_insertion(self, new: "ChannelSlot") -> None:
        self._check_in_chain()
        if new.channel is not self.channel:
            raise ValueError(f"{new!r} was made by another channel: use new_slot() of this one")
        if new._is_in_chain() or new._removed:
            raise RuntimeError(f"{new!r} is, or was, in the channel already: use a new slot")

    def _is_in_chain(self) -> bool:
        return self.left is not None or self.channel.first_slot is self

    def _check_in_chain(self) -> None:
        self.channel._check_usable()
        if not self._is_in_chain():
            raise RuntimeError(f"{self!r} is not in the channel: insert it first")

    def _link(
        self,
        left: "ChannelSlot | None",
        right: "ChannelSlot | None",
        former: "ChannelSlot | None",
    ) -> None:
        """Take a place in the chain, where the left neighbour has had `former` to its right."""
        self.left, self.right = left, right
        if former is not None:
            self._keep_promises_of(former)
        if left is not None:
            left.right = self
        if right is not None:
            right.left = self
            right._extra = right._promised
            right._ahead = -right.window_size
        if left is None:
            self.channel.first_slot = self

    def remove(self) -> None:
        """Take the slot out, and close its handler.

        A coroutine of the handler that is suspended is cancelled. What waited for it passes on
        to the neighbours, to the right also past their windows; it is lost if there are none.
        """
        self._check_in_chain()
        self._leave(None)

    def replace(self, new: "ChannelSlot") -> None:
        """Put a new slot in the place of this one, whose handler is closed.

        As with `remove`; what waited passes on to the new slot, once that has a handler.
        """
        self._check_insertion(new)
        self._leave(new)

    def _leave(self, new: "ChannelSlot | None") -> None:
        left, right = self.left, self.right
        self.left = self.right = self.lane_to_left = self.lane_to_right = None
        self._removed = True
        if new is not None:
            new._link(left, right, self)
        else:
            if left is not None:
                left.right = right
            if right is not None:
                right.left = left
                right._keep_promises_of(self)
            if self.channel.first_slot is self:
                self.channel.first_slot = right
        slot = right
        while slot is not None:
            slot._extra = max(slot._extra, self._promised - slot._told)
            slot = slot.right
        self.channel._chain_changed()
        inherited, self._inherited = self._inherited, []
        for direction, lane in ((_READ, self._reads), (_WRITE, self._writes)):
            inherited += [(direction, message) for message in lane.close()] if lane else []
        if self.handler is not None:
            self.channel._close_handler(self.handler)
        for direction, message in inherited:
            heir = new or (right if direction is _READ else left)
            if heir is not None:
                heir._take_over(direction, message)
            else:
                message.complete(self.channel, self._no_taker(direction))

    def _take_over(self, direction: ChannelDirection, message: IoMessage) -> None:
        """Take a message that was in another slot when that left the chain."""
        lane = self.lane(direction)
        if lane is None:
            self._inherited.append((direction, message))
            return
        if direction is _READ and self.channel.read_back_pressure_enabled:
            self._debit(len(message.data))
            self._ahead += len(message.data)
        lane.deliver(message)

    # Messages

    def send_message(self, message: IoMessage, direction: ChannelDirection) -> None:
        """Pass a message to the next handler; READ: to the right, WRITE: to the left.

        IO_CHANNEL_READ_WOULD_EXCEED_WINDOW if it is larger than the right neighbour's window, and
        than what was left of the window before the chain was changed;
        IO_CHANNEL_ERROR_ERROR_CANT_ACCEPT_INPUT if there is no next handler, or the channel has
        shut down. The message is then still the caller's. What the next handler raises is not
        raised here: it ends the channel.
        """
        lane = self.lane_to_left if direction is _WRITE else self.lane_to_right
        if lane is None or lane.at is not None or self.channel._thread_id != get_ident():
            self._send_with_care(message, direction)
            return
        own = self._stepping
        if own is not None and own.at is message and direction is _WRITE:
            own.passed_on()
        # As in Lane.deliver: a call less, 40 of 550 ns that an echo takes without the kernel.
        process = lane.process
        try:
            awaitable = process(lane.slot, message)
        except BaseException as exc:
            lane.failed_at(message, exc)
            return
        if awaitable is not None:
            lane.step_in_place(message, awaitable)

    def _send_with_care(self, message: IoMessage, direction: ChannelDirection) -> None:
        """The same for messages that wait or are debited to a window, and for misuse."""
        if self.channel._thread_id != get_ident():
            self.channel._check_thread()
        if direction is _WRITE:
            lane = self.lane_to_left
        else:
            lane = self.lane_to_right or self._lane_within_window(message)
        if lane is None:
            raise self._no_taker(direction)
        own = self._stepping
        if own is not None and own.at is message and direction is _WRITE:
            own.passed_on()
        lane.deliver(message)

    def _lane_within_window(self, message: IoMessage) -> Lane | None:
        """The right neighbour's lane, once its window has been debited with the message."""
        right = self.right
        if right is None or right._reads is None or self.channel._has_ended:
            return None
        size = len(message.data)
        if size > right.window_size and size > right._promised and size:
            raise make(
                ErrorCode.IO_CHANNEL_READ_WOULD_EXCEED_WINDOW,
                f"a message of {size} bytes to {right!r}",
            )
        right._debit(size)
        return right._reads

    def _debit(self, size: int) -> None:
        self.window_size -= size
        # Only the window that has shrunk can have made an emission due.
        if self.window_size <= self.channel.window_update_threshold:
            self.channel._windows.shrunk()

    def _no_taker(self, direction: ChannelDirection) -> Exception:
        why = (
            "the channel has shut down"
            if self.channel._has_ended
            else f"no handler follows {self!r} in {direction.value} direction"
        )
        return make(ErrorCode.IO_CHANNEL_ERROR_ERROR_CANT_ACCEPT_INPUT, why)

    async def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send bytes to the left; done when the last one has gone to the kernel.

        Raises what `send_message` raises, and the error that kept the bytes from being written.
        If it is cancelled, the bytes are written all the same.
        """
        message = _Write()
        message.data = data
        message.message_type = _APPLICATION_DATA
        message.on_completion = note_outcome
        message.tag = None
        message.outcome = _PENDING
        self.send_message(message, _WRITE)
        if message.outcome is not None:
            await message.wait(self.channel.loop)

    def acquire_max_message_for_write(self) -> PooledMessage:
        """A message to the left, with all the capacity that the handlers there leave.

        ERROR_INVALID_STATE if they leave none.
        """
        overhead = self.upstream_message_overhead
        if overhead >= MAX_FRAGMENT_SIZE:
            raise make(
                CommonErrorCode.ERROR_INVALID_STATE,
                f"the handlers left of {self!r} add {overhead} bytes to a message, which has "
                f"room for {MAX_FRAGMENT_SIZE}",
            )
        return self.channel.acquire_message_from_pool(
            MessageType.APPLICATION_DATA, MAX_FRAGMENT_SIZE - overhead
        )

    # Windows

    @property
    def downstream_read_window(self) -> int:
        """Bytes that may be sent to the right now; 0 while there is no handler.

        Without back pressure it is unlimited, but for the leftmost slot 0 while too much waits for
        suspended handlers of the channel. RuntimeError if there is no right neighbour.
        """
        right = self.right
        if right is None:
            raise RuntimeError(f"{self!r} is the last slot: there is nothing downstream")
        if right._reads is None:
            return 0
        if self.channel.read_back_pressure_enabled:
            return right.window_size if right.window_size > 0 else 0
        return 0 if self.channel.is_clogged and self.left is None else UNLIMITED

    def increment_read_window(self, size: int) -> None:
        """The handler has consumed `size` bytes, and can take as many more.

        Saved up, and emitted when some slot needs it; see `_windows`. ValueError if it is
        negative.
        """
        channel = self.channel
        if channel._thread_id != get_ident():
            channel._check_thread()
        if size < 0:
            raise ValueError(f"a window grows by 0 or more bytes, not by {size!r}")
        if not channel.read_back_pressure_enabled or channel._has_ended or self._removed:
            return
        self._batch = min(self._batch + size, UNLIMITED)
        channel._windows.granted(self)

    @property
    def _told(self) -> int:
        """What the left neighbour believes that the window is."""
        return self.window_size + self._ahead

    @property
    def _promised(self) -> int:
        """How much may come from the left, whatever the window is."""
        return max(0, self._told + self._extra)

    def _keep_promises_of(self, former: "ChannelSlot") -> None:
        """The left neighbour relies on what it was told by `former`, and others through it."""
        self._ahead = former._told - self.window_size
        self._extra = former._extra

    def _emit_batch(self) -> None:
        size, self._batch = self._batch, 0
        self.window_size = min(self.window_size + size, UNLIMITED)
        self._ahead -= size

    def _take_news(self) -> int:
        """How many bytes the left neighbour is to be told of."""
        size = min(-self._ahead, UNLIMITED)
        if size <= 0:
            return 0
        self._ahead = 0
        self._extra = max(0, self._extra - size)
        return size

    # For the channel

    def follow_chain(self) -> None:
        """Neighbours, or their handlers, are others, or the channel has ended."""
        left, right = self.left, self.right
        ended = self.channel._has_ended
        self.lane_to_left = left._writes if left is not None and not ended else None
        windows = self.channel.read_back_pressure_enabled
        self.lane_to_right = right._reads if right is not None and not (windows or ended) else None

    def has_coroutines(self, lane: Lane) -> None:
        """The handler's method for a direction is one that is stepped."""
        if lane is self._writes:
            self._stepping = lane

    def open_for_good(self) -> None:
        """The handler has failed, and will not open its window any more.

        Whoever to the left still has data may wait for that with the end of its read direction: let
        it all come, and be dropped.
        """
        if self.window_size + self._batch < UNLIMITED // 2:  # else it has failed again
            self.increment_read_window(UNLIMITED)

    def lane(self, direction: ChannelDirection) -> Lane | None:
        """Where the messages of one direction pass through; None without a handler."""
        return self._reads if direction is _READ else self._writes

    def _drop_inherited(self) -> list[IoMessage]:
        inherited, self._inherited = self._inherited, []
        return [message for _, message in inherited]


def check_handler(handler: ChannelHandler) -> int:
    """The initial window of a handler that can be put in a slot.

    TypeError if it is none, or its window or overhead is no whole number; RuntimeError if it has a
    slot, ValueError if one of these is negative.
    """
    if not isinstance(handler, ChannelHandler):
        raise TypeError(f"a slot takes a ChannelHandler, not {handler!r}")
    if handler.slot is not None:
        raise RuntimeError(f"{handler!r} has a slot already: a handler serves one channel")
    window = operator.index(handler.initial_window_size)
    if window < 0:
        raise ValueError(f"initial_window_size of {handler!r} must not be negative: {window!r}")
    if operator.index(handler.message_overhead) < 0:
        raise ValueError(f"message_overhead of {handler!r} must not be negative")
    return window


class _Write(DataMessage):
    """A message that is waited for. Most often it is complete before anyone waits."""

    __slots__ = ("outcome",)

    outcome: "BaseException | asyncio.Future[None] | object | None"
    """_PENDING, then who waits, if anyone does; in the end what went wrong, or None."""

    def complete(self, channel: Any, error: BaseException | None) -> None:
        """At once what `on_completion` would do: most often there is nobody to tell yet."""
        outcome = self.outcome
        if outcome is _PENDING:
            self.outcome = error
        elif asyncio.isfuture(outcome):
            self.outcome = error
            if not outcome.done():
                outcome.set_result(None)

    async def wait(self, loop: asyncio.AbstractEventLoop) -> None:
        """Wait until it is complete, and raise what went wrong."""
        if self.outcome is _PENDING:
            waiter = self.outcome = loop.create_future()
            await waiter
        error = self.outcome
        if isinstance(error, BaseException):
            self.outcome = None  # error, traceback and this frame would keep one another alive
            try:
                raise error
            finally:
                del error


_PENDING = object()


def note_outcome(channel: object, message: Any, error: BaseException | None) -> None:
    message.complete(channel, error)
