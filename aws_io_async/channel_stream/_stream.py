"""`ChannelStream`: what the application holds.

Theory of operation. A stream may be used from another loop than the channel's. What has to be done
on the channel's loop, or waited for there, is a coroutine that crosses. Received bytes never cross
by themselves: `receive` waits for something to be there, and then takes it on its own thread, at
the moment in which it returns. So a cancellation loses none.
"""

import asyncio
import contextlib
import operator
import threading
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, TypeVar

import anyio
import anyio.abc

from ..channel import Channel
from ..errors import (
    AwsIoError,
    EventLoopShutdownError,
    OperationCancelledError,
    SocketClosedError,
)
from ..event_loop._crossing import run_on
from ..socket_channel_handler import SocketChannelHandler
from ..tls_channel_handler import TlsChannelHandler
from ._attributes import Ends, tls_attributes
from ._handler import WINDOW, StreamHandler, check_window

CALLS_A_TURN = 16
"""Calls to a stream that may return without having waited, before one lets the others run."""

T = TypeVar("T")


class OneAtATime:
    """A block that one task may be in, on whichever thread. Raises anyio.BusyResourceError."""

    def __init__(self, action: str) -> None:
        self._action = action
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        if not self._lock.acquire(blocking=False):
            raise anyio.BusyResourceError(self._action)

    def __exit__(self, *_: object) -> None:
        self._lock.release()


class ChannelStream(anyio.abc.ByteStream):
    """The right end of a channel, which it owns. Thread: any running loop's.

    To make one of a channel of one's own, append `ChannelStream.attach(channel)` last. Besides
    what is here it has `async for`, and the typed attributes of anyio's sockets and TLS streams
    (`stream.extra(SocketAttribute.remote_address)`, `stream.extra(TLSAttribute.alpn_protocol)`),
    also after it was closed. `anyio.streams.buffered.BufferedByteReceiveStream` adds
    `receive_exactly` and `receive_until`.

    One task may receive while another sends. Calls that find what they need do not wait, but
    every so often let the other tasks run.
    """

    def __init__(self, channel: Channel, handler: StreamHandler) -> None:
        self.channel = channel
        self._handler = handler
        assert handler.slot is not None
        self._slot = handler.slot
        self._receiving = OneAtATime("receiving from")
        self._sending = OneAtATime("sending to")
        self._calls = 0
        self._closed = False
        self._output_ended = False
        self._ends: Ends | None = None
        self._tls: TlsChannelHandler | None = None
        self._look_around()

    @classmethod
    def attach(cls, channel: Channel, *, window: int = WINDOW) -> "ChannelStream":
        """A stream in a new slot at the right end of `channel`. Thread: the channel's.

        `window` is in bytes; it holds back the peer only if the channel has read back pressure.
        """
        check_window(window)
        handler = StreamHandler(window)
        channel.append(handler)
        return cls(channel, handler)

    def __repr__(self) -> str:
        return f"<ChannelStream {self.channel!r}>"

    # Receiving

    async def receive(self, max_bytes: int = 65536) -> bytes:
        """What has come, at least one byte and at most `max_bytes`.

        Raises anyio.EndOfStream once the peer has ended its side in order and all was received;
        anyio.BrokenResourceError, caused by the channel's error, if the connection broke, which
        with TLS includes an end that TLS was not told of; anyio.ClosedResourceError after
        `aclose`; anyio.BusyResourceError if another task receives; ValueError for a `max_bytes`
        below 1, TypeError for one that is no integer. A cancellation loses no byte.
        """
        if operator.index(max_bytes) < 1:
            raise ValueError(f"max_bytes must be positive, not {max_bytes!r}")
        handler = self._handler
        with self._receiving:
            await self._let_others_run()
            while not self._closed:
                has_ended = handler.has_ended  # first: then all that came before is there to take
                if data := handler.take(max_bytes):
                    self._on_channel(self._slot.increment_read_window, len(data))
                    return data
                if has_ended:
                    self._raise_end()
                try:
                    await self._cross(handler.readable())
                except AwsIoError as exc:  # of the channel's loop
                    raise anyio.BrokenResourceError from exc
        raise anyio.ClosedResourceError

    def is_readable(self) -> bool:
        """Whether `receive` would not wait: there are bytes, or the end, or an error to raise."""
        return self._closed or self._handler.is_readable

    @property
    def input_has_ended(self) -> bool:
        """Whether no more will come than what waits to be received. Thread: any."""
        return self._handler.has_ended or self.channel.error is not None

    def _raise_end(self) -> None:
        error = self.channel.error
        if self._closed:
            raise anyio.ClosedResourceError
        if self._handler.input_ended or error is None or self._is_peers_end(error):
            raise anyio.EndOfStream
        raise anyio.BrokenResourceError from error

    def _is_peers_end(self, error: BaseException) -> bool:
        """Whether an error is how a socket handler without `half_close` says END_OF_INPUT.

        It then has no cause, other than an error of the system's. TLS has an end of its own.
        """
        self._look_around()
        return (
            isinstance(error, SocketClosedError) and error.__cause__ is None and self._tls is None
        )

    # Sending

    async def send(self, item: bytes | bytearray | memoryview) -> None:
        """Send all of `item`, bytes-like; done when the last byte has gone to the kernel.

        It is copied first: the caller may change it as soon as this has begun. If it is cancelled,
        the bytes are sent all the same.

        Raises anyio.BrokenResourceError, caused by the reason, if the connection is gone;
        anyio.ClosedResourceError after `aclose` and `send_eof`; anyio.BusyResourceError if another
        task sends; TypeError for what is not bytes-like.
        """
        data = item if type(item) is bytes else memoryview(item).tobytes()
        with self._sending:
            if self._closed or self._output_ended:
                raise anyio.ClosedResourceError
            try:
                await self._cross(self._slot.write(data))
            except Exception as exc:
                raise self._lost(exc) from self.channel.error or exc
            await self._let_others_run()

    async def send_eof(self) -> None:
        """End our side of the stream; the peer's goes on. Idempotent.

        Raises what `send` raises, and NotImplementedError over TLS, which ends both sides at once.
        """
        with self._sending:
            if self._closed:
                raise anyio.ClosedResourceError
            if self._output_ended:
                return
            self._output_ended = True  # also if this is cancelled
            try:
                await self._cross(self._handler.end_output())
            except NotImplementedError:
                self._output_ended = False
                raise
            except Exception as exc:
                raise self._lost(exc) from self.channel.error or exc

    def _lost(self, exc: Exception) -> Exception:
        return anyio.ClosedResourceError() if self._closed else anyio.BrokenResourceError()

    # The end

    async def aclose(self) -> None:
        """Shut the channel down gracefully, and wait for that; idempotent.

        What was sent goes out first; what was not received is dropped. Tasks that receive or send
        get anyio.ClosedResourceError. A cancellation shuts the channel down at once.
        """
        self._closed = True
        # If the channel's loop has ended, there is nothing to be done any more.
        with contextlib.suppress(EventLoopShutdownError, OperationCancelledError):
            await self._cross(self._aclose())

    async def _aclose(self) -> None:
        self._handler.discard()
        await self.channel.aclose()

    # Loops

    async def _cross(self, coroutine: Coroutine[Any, Any, T]) -> T:
        loop = self.channel.loop
        if loop is asyncio.get_running_loop():
            return await coroutine
        return await run_on(loop, coroutine)

    def _on_channel(self, function: Callable[[int], object], argument: int) -> None:
        """Call something on the channel's thread, now or soon."""
        if self.channel.thread_is_callers_thread():
            function(argument)
        else:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                self.channel.loop.call_soon_threadsafe(function, argument)

    async def _let_others_run(self) -> None:
        self._calls += 1
        if self._calls % CALLS_A_TURN == 0:
            await asyncio.sleep(0)

    # Attributes

    @property
    def extra_attributes(self) -> Mapping[Any, Callable[[], Any]]:
        """Addresses, and what TLS has negotiated."""
        self._look_around()
        attributes: dict[Any, Callable[[], Any]] = {}
        if self._ends is not None:
            attributes |= self._ends.attributes()
        if self._tls is not None:
            attributes |= tls_attributes(self._tls.ssl_object)
        return attributes

    def _look_around(self) -> None:
        """Keep what has to be known when the channel has ended, and has no handlers any more."""
        for slot in self.channel.slots():
            handler = slot.handler
            if isinstance(handler, TlsChannelHandler):
                self._tls = handler
            elif isinstance(handler, SocketChannelHandler) and self._ends is None:
                self._ends = Ends.of(handler)
