"""The leftmost handler of a channel: between a transport, of any loop, and the next slot.

Theory of operation. Reading: the handler is an `asyncio.BufferedProtocol`, so it decides how much
the transport may read: `_view`, the pool's buffer cut to what the window downstream allows at that
moment; our own transports hand out bytes instead, if there is no window to be minded. When the
window is shut, reading is paused. Some loops read once more after that; and the chain may change
while they wait for data. What is read without anyone to take it is held.

Writing: the transport's water marks are set to 0, so it says at once, by `pause_writing`, that it
could not hand all of a message to the kernel, and by `resume_writing` that it now has. A message is
complete when the transport is not paused after it. While it is, further messages wait in `_queue`.
`_direct` is the one question of the hot path: may a message be written right away?

Ending: a graceful shutdown waits for the queue, but not for a peer who takes nothing: when it has
gone on for `close_timeout` seconds and the transport is paused, the connection is aborted. That
counts from the read phase on, as a coroutine may be suspended there until its write is complete.
Whatever keeps writes from the peer by then is an error, though the shutdown was without one.

Source: aws-c-io's `socket_channel_handler.c`.
"""

import asyncio
import operator
import sys
from collections import deque
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any, cast

from . import log
from .channel import Channel, ChannelDirection, ChannelHandler, ChannelSlot
from .channel._slot import note_outcome
from .errors import AwsIoError, ChannelError, CommonErrorCode, ErrorCode, make, translate
from .event_loop._socket_tools import turn_away
from .message_pool import MAX_READ_SIZE, DataMessage, IoMessage, MessageType
from .statistics import SocketStatistics

if TYPE_CHECKING:
    from asyncio.trsock import TransportSocket

CLOSE_TIMEOUT = 10.0
"""Seconds that a graceful shutdown may take to write what is left."""

BATCH_SIZE = 64 * 1024
"""Bytes; messages of the queue are handed to the transport together, up to about this many."""

_DATA = MessageType.APPLICATION_DATA  # found faster than a member
_READ = ChannelDirection.READ

logger = log.logger(log.LogSubject.SOCKET_HANDLER)


class SocketChannelHandler(asyncio.BufferedProtocol, ChannelHandler):
    """Reads from and writes to a stream transport; to be in the first slot of a channel.

    It is the transport's protocol: `loop.create_connection(lambda: handler, sock=sock)`, on the
    channel's loop, after the handler was put in its slot. `max_read_size` is in bytes a turn of the
    loop, for fairness between connections. When the peer ends its side, the channel is shut down
    with IO_SOCKET_CLOSED; with `half_close` an END_OF_INPUT message goes to the right instead, and
    the channel goes on. END_OF_INPUT from the right ends our side; what is written after it fails
    with IO_SOCKET_ILLEGAL_OPERATION_FOR_STATE. `close_timeout` (seconds) bounds what a graceful
    shutdown waits for the peer to take what was written.
    """

    initial_window_size = sys.maxsize

    def __init__(
        self,
        *,
        max_read_size: int = MAX_READ_SIZE,
        half_close: bool = False,
        close_timeout: float = CLOSE_TIMEOUT,
    ) -> None:
        if operator.index(max_read_size) <= 0:
            raise ValueError(f"max_read_size must be positive, not {max_read_size!r}")
        if not close_timeout >= 0:
            raise ValueError(f"close_timeout must not be negative, but is {close_timeout!r}")
        self._max_read_size = max_read_size
        self._half_close = half_close
        self._close_timeout = close_timeout
        self._transport: asyncio.Transport | None = None
        self._lost: asyncio.Future[None] | None = None
        self._shut_down = False
        self._in_haste = False  # whether what is left to be written does not matter any more
        self._reason: AwsIoError | None = None  # why we have aborted the connection
        self._timer: asyncio.TimerHandle | None = None
        self.statistics = SocketStatistics()
        # Input
        self._buffer = self._view = memoryview(b"")
        self._exact = False  # whether the window may be smaller than the buffer
        self._open = False  # whether what is read can be passed on
        self._reading = False
        self._input_ended = False
        self._held = b""
        self._end_is_held = False
        # Output
        self._direct = False
        self._paused = False
        self._output_ended = False
        self._queue: deque[IoMessage] = deque()
        self._in_flight: list[IoMessage] = []
        self._flushed: asyncio.Future[None] | None = None

    def __repr__(self) -> str:
        if self._transport is None:
            return f"<{type(self).__name__} not connected>"
        closing = " closing" if self._transport.is_closing() else ""
        reading = "reading" if self._reading else "not reading"
        waiting = len(self._queue) + len(self._in_flight)
        return f"<{type(self).__name__}{closing} {reading}, {waiting} writes waiting>"

    @property
    def transport(self) -> asyncio.Transport:
        """The transport; RuntimeError before there is one."""
        if self._transport is None:
            raise RuntimeError("the handler has no transport yet: connect it first")
        return self._transport

    def get_socket(self) -> "TransportSocket":
        """The transport's socket, to ask it for its addresses and options."""
        return cast("TransportSocket", self.transport.get_extra_info("socket"))

    def _own_slot(self) -> ChannelSlot:
        assert self.slot is not None
        return self.slot

    @property
    def _channel(self) -> Channel:
        return self._own_slot().channel

    def _peer(self) -> str:
        peer = self.transport.get_extra_info("peername")
        return f"peer {peer!r}" if peer else ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport = cast(asyncio.Transport, transport)
        if self._shut_down:
            turn_away(transport)  # the channel did not wait for us
            return
        if (
            self.slot is None
            or self._transport is not None
            or not self._channel.thread_is_callers_thread()
        ):
            turn_away(transport)
            if self.slot is None:
                raise RuntimeError("put the handler in a slot before you connect it")
            self._channel._check_thread()
            raise RuntimeError(f"{self!r} serves one connection: make another handler")
        channel = self._channel
        self._transport = transport
        self._transport.set_write_buffer_limits(high=0)
        self._lost = channel.loop.create_future()
        self._buffer = self._view = channel.message_pool.acquire_read_buffer(self._max_read_size)
        self._exact = channel.read_back_pressure_enabled
        if not self._exact and hasattr(transport, "set_read_size"):
            transport.set_read_size(self._max_read_size)  # bytes, for a copy and 300 ns less
        self._direct = True
        self._reading = True
        self._follow_window()

    # Reading

    def get_buffer(self, sizehint: int) -> memoryview:
        if self._exact:
            window = self._window()
            self._open = window > 0 and not self._held
            size = len(self._buffer)
            self._view = self._buffer[:window] if 0 < window < size else self._buffer
        return self._view

    def buffer_updated(self, nbytes: int) -> None:
        self.data_received(self._view[:nbytes].tobytes())

    def data_received(self, data: bytes) -> None:
        self.statistics.bytes_read += len(data)
        if not self._open:
            self._hold(data)
            return
        message = DataMessage()
        message.data = data
        message.message_type = _DATA
        message.on_completion = message.tag = None
        slot: Any = self.slot  # _open says that there is one
        lane = slot.lane_to_right
        if lane is not None:
            lane.deliver(message)
            if slot.channel.is_clogged:
                self._follow_window()
            return
        try:
            slot.send_message(message, _READ)
        except ChannelError:  # nobody is to the right, for now
            self._hold(data)
            return
        self._follow_window()

    def _window(self) -> int:
        slot = self.slot
        assert slot is not None
        return slot.downstream_read_window if slot.right is not None else 0

    def _hold(self, data: bytes) -> None:
        self._held += data
        self._reading = True  # uvloop begins to, even if it was told in connection_made not to
        self._follow_window()

    def _follow_window(self) -> None:
        """Pass on what is held, and let the transport read if the next handler can take more."""
        transport = self._transport
        if transport is None:
            return
        self._send_held()
        self._open = not self._held and self._window() > 0
        if self._open is self._reading or self._input_ended or transport.is_closing():
            return
        self._reading = self._open
        if self._open:
            transport.resume_reading()
        else:
            transport.pause_reading()

    def _send_held(self) -> None:
        slot = self._own_slot()
        while self._held and (window := self._window()):
            data, self._held = self._held[:window], self._held[window:]
            slot.send_message(IoMessage(data), _READ)
        if self._end_is_held and not self._held:
            self._tell_end_of_input()

    def eof_received(self) -> bool:
        self._input_ended = True
        self._tell_end_of_input()
        return True  # what is being written is still to be written

    def _tell_end_of_input(self) -> None:
        self._end_is_held = True
        if self._held:
            return
        if not self._half_close:
            error = make(ErrorCode.IO_SOCKET_CLOSED, f"{self._peer()} has ended its side".strip())
            self._channel.shutdown(error)
        elif (right := self._own_slot().right) is None or right.handler is None:
            return
        else:
            self._own_slot().send_message(IoMessage(message_type=MessageType.END_OF_INPUT), _READ)
        self._end_is_held = False

    def process_read_message(self, slot: ChannelSlot, message: IoMessage) -> None:
        """Nobody is to the left: raises IO_CHANNEL_ERROR_ERROR_CANT_ACCEPT_INPUT."""
        why = "a socket's handler belongs in the first slot"
        raise make(ErrorCode.IO_CHANNEL_ERROR_ERROR_CANT_ACCEPT_INPUT, why)

    def increment_read_window(self, slot: ChannelSlot, size: int) -> None:
        self._follow_window()

    def trigger_read(self, slot: ChannelSlot) -> None:
        self._follow_window()

    # Writing

    def process_write_message(self, slot: ChannelSlot, message: IoMessage) -> None:
        """Write a message, or keep it until the transport has written those before it.

        It completes with IO_SOCKET_CLOSED if the connection is gone, or what made it go, and with
        IO_SOCKET_NOT_CONNECTED if there is none yet. Raises IO_CHANNEL_UNKNOWN_MESSAGE_TYPE for
        what a socket cannot do.
        """
        if not self._direct or message.message_type is not _DATA:
            self._write_otherwise(message)
            return
        data = message.data
        transport = self._transport
        transport.write(data)  # type: ignore[union-attr]  # _direct says that there is one
        if self._paused:
            self._in_flight.append(message)
            return
        self.statistics.bytes_written += len(data)
        if message.on_completion is not None:
            if message.on_completion is not note_outcome or transport.is_closing():  # type: ignore[union-attr]
                self._complete(message)
            else:  # of `write`, which sends no more in there
                message.complete(slot.channel, None)

    def _write_otherwise(self, message: IoMessage) -> None:
        """Write what is not data, or cannot be written right away."""
        if message.message_type not in (_DATA, MessageType.END_OF_INPUT):
            raise make(ErrorCode.IO_CHANNEL_UNKNOWN_MESSAGE_TYPE, f"a socket writes no {message!r}")
        if not isinstance(message.data, (bytes, bytearray, memoryview)):
            raise TypeError(f"data must be bytes-like, not {type(message.data).__name__}")
        if self._transport is None:
            self._refuse(message, make(ErrorCode.IO_SOCKET_NOT_CONNECTED, "not connected yet"))
        elif self._output_ended:
            why = "our side was ended by END_OF_INPUT: nothing may be written after it"
            self._refuse(message, make(ErrorCode.IO_SOCKET_ILLEGAL_OPERATION_FOR_STATE, why))
        elif self._lost is None or self._lost.done():
            message.complete(self._channel, make(ErrorCode.IO_SOCKET_CLOSED, self._peer()))
        elif self._direct:
            self._end_output(message)
        else:
            self._queue.append(message)

    def _refuse(self, message: IoMessage, error: AwsIoError) -> None:
        if message.on_completion is None:
            raise error  # else nobody would know
        message.complete(self._channel, error)

    def _complete(self, message: IoMessage) -> None:
        """The transport took a message; tell its sender, unless the connection broke with it.

        What the sender sends then goes by the queue: it would go deeper into the stack each time.
        """
        self._direct = False
        if self._transport.is_closing():  # type: ignore[union-attr]  # there is one: see above
            self._in_flight.append(message)  # `connection_lost` knows why
            return
        try:
            message.complete(self.slot.channel, None)  # type: ignore[union-attr]  # and a slot
        finally:
            self._go_on_writing()

    def _end_output(self, message: IoMessage) -> None:
        transport = self.transport
        if not transport.can_write_eof():
            why = f"{transport!r} cannot end one side only: shut the channel down"
            raise make(CommonErrorCode.ERROR_UNSUPPORTED_OPERATION, why)
        self._output_ended = True
        self._direct = False
        transport.write_eof()
        self._complete(message)

    def pause_writing(self) -> None:
        self._paused = True
        self._direct = False

    def resume_writing(self) -> None:
        self._paused = False
        written, self._in_flight = self._in_flight, []
        for message in written:
            self._written(message)
        self._write_queued()

    def _write_queued(self) -> None:
        """Write what waits, as long as the transport takes it."""
        waiting = len(self._queue)
        while waiting > 0 and not self._paused and not self.transport.is_closing():
            waiting -= self._write_batch()
        self._go_on_writing()

    def _go_on_writing(self) -> None:
        """Senders who were told may have sent more: that is written in the next turn."""
        if self._paused or self._transport.is_closing():  # type: ignore[union-attr]  # as above
            return
        if self._queue:
            self._channel.loop.call_soon(self._write_queued)
        else:
            self._direct = not self._output_ended
            self._wake_closer()

    def _written(self, message: IoMessage) -> None:
        self.statistics.bytes_written += len(message.data)
        message.complete(self._channel, None)

    def _write_batch(self) -> int:
        """Write the first messages of the queue, and say how many those were.

        As one piece: `writelines` of some versions of asyncio says nothing if it cannot hand all of
        it to the kernel.
        """
        queue = self._queue
        if self._output_ended or queue[0].message_type is not _DATA:
            self._write_ending(queue.popleft())
            return 1
        batch: list[IoMessage] = []
        size = 0
        while queue and queue[0].message_type is _DATA and size < BATCH_SIZE:
            batch.append(queue.popleft())
            size += len(batch[-1].data)
        one = len(batch) == 1
        self.transport.write(batch[0].data if one else b"".join(item.data for item in batch))
        if self._paused or self.transport.is_closing():
            self._in_flight = batch
        else:
            for message in batch:
                self._written(message)
        return len(batch)

    def _write_ending(self, message: IoMessage) -> None:
        """END_OF_INPUT, or what comes after it."""
        try:
            if self._output_ended:
                self._write_otherwise(message)
            else:
                self._end_output(message)
        except AwsIoError as exc:
            self._channel._failed(self, exc)
            message.complete(self._channel, exc)

    # Ending

    def connection_lost(self, exc: BaseException | None) -> None:
        if self._lost is None or self._lost.done():
            return  # it had not begun, or we did not wait any longer
        self._input_ended = True
        self._direct = False
        self._stop_timer()
        if exc is not None:
            error: BaseException = translate(exc, self._peer())
        else:
            error = self._reason or make(ErrorCode.IO_SOCKET_CLOSED, self._peer())
        logger.debug("%r: connection lost: %s", self, error)
        self._lost.set_result(None)
        lost = [*self._in_flight, *self._queue]
        if lost and not self._in_haste:
            self._channel._failed(self, error)  # even if a shutdown was under way
        else:
            self._channel.shutdown(error)
        self._in_flight.clear()
        self._queue.clear()
        for message in lost:
            message.complete(self._channel, error)
        self._wake_closer()

    def shutdown(
        self,
        slot: ChannelSlot,
        direction: ChannelDirection,
        error: BaseException | None,
        free_scarce_resources_immediately: bool,
    ) -> Awaitable[object] | None:
        self._shut_down = True
        transport = self._transport
        if transport is None:
            return None
        if free_scarce_resources_immediately:
            self._input_ended = self._in_haste = True
            transport.abort()
            return self._until_lost()
        if self._timer is None and not transport.is_closing():
            self._start_timer()
        if direction is ChannelDirection.WRITE:
            return self._close()
        self._send_held()
        self._input_ended = True
        if not transport.is_closing():
            transport.pause_reading()
        return None

    async def _close(self) -> None:
        while self._queue or self._in_flight:
            self._flushed = self._channel.loop.create_future()
            await self._flushed
        self._in_haste = True
        self.transport.close()
        await self._until_lost()

    async def _until_lost(self) -> None:
        assert self._lost is not None
        # Not the future itself, which a cancellation would end. And not forever: uvloop says no
        # more of a transport if who waited for the connection was cancelled.
        await asyncio.wait({self._lost}, timeout=self._close_timeout)
        if not self._lost.done():
            self.connection_lost(None)

    def _wake_closer(self) -> None:
        if self._flushed is not None and not self._flushed.done():
            self._flushed.set_result(None)

    def _start_timer(self) -> None:
        loop = self._channel.loop
        self._timer = loop.call_later(self._close_timeout, self._close_timed_out)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _close_timed_out(self) -> None:
        if self._paused:
            self._reason = make(
                ErrorCode.IO_SOCKET_TIMEOUT,
                f"{self._peer()} did not take what was written before the end within "
                f"{self._close_timeout:g} s".strip(),
            )
            self.transport.abort()
        else:
            self._start_timer()

    def close(self) -> None:
        """Let go of the connection, if the slot was removed while there was one."""
        self._shut_down = self._input_ended = self._in_haste = True
        self._stop_timer()
        if self._transport is not None and not self._transport.is_closing():
            self._transport.abort()

    def gather_statistics(self) -> SocketStatistics:
        return self.statistics

    def reset_statistics(self) -> None:
        self.statistics.reset()
