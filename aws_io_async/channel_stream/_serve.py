"""`serve`: the short way to a server, a coroutine for each connection."""

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Awaitable, Callable

import anyio

from .. import log
from ..channel import Channel
from ..channel_bootstrap import ServerBootstrap, SocketListener
from ..channel_bootstrap._arguments import Tls
from ..errors import ErrorCode, EventLoopShutdownError, OperationCancelledError, make
from ..event_loop._crossing import run_on
from ..event_loop.group import EventLoopGroup
from ..socket import SocketOptions
from ._handler import WINDOW, check_window
from ._stream import ChannelStream

StreamFunction = Callable[[ChannelStream], Awaitable[object]]

logger = log.logger(log.LogSubject.CHANNEL_BOOTSTRAP)


@contextlib.asynccontextmanager
async def serve(
    handler: StreamFunction,
    host: str,
    port: int = 0,
    *,
    tls: Tls | None = None,
    socket_options: SocketOptions | None = None,
    event_loop_group: EventLoopGroup | None = None,
    window: int = WINDOW,
    max_handshakes: int | None = None,
) -> AsyncIterator[SocketListener]:
    """A server that runs `await handler(stream)` for each connection, while the block lasts.

    Each runs as a task on the loop of its channel, and its stream is closed after it. What it
    raises goes to that loop's exception handler, unless it says that the peer has gone, and it
    has. At the end of the block the listener is closed, the handlers that still run are cancelled,
    which closes their connections at once, and the end of both is waited for, also if that is
    cancelled.

    `host` is a literal address, or a path for a socket of the domain LOCAL. Port 0 has the system
    choose one: see `listener.endpoint`. `tls` is a server's `TlsContext`, `ssl.SSLContext` or
    `TlsConnectionOptions`. `window` is how many bytes of a stream may wait to be received.
    `max_handshakes` is how many connections may negotiate TLS at a time: others wait in the
    kernel's backlog, see `ServerBootstrap.new_socket_listener`.

    Raises what `ServerBootstrap.new_socket_listener` raises, and ValueError if `window` is below 1.
    Thread: of any running loop.
    """
    if not callable(handler):
        raise TypeError(f"handler must be a coroutine function of a stream, not {handler!r}")
    check_window(window)
    service = _Service(handler, window)
    listener = await ServerBootstrap(event_loop_group).new_socket_listener(
        host,
        port,
        socket_options=socket_options,
        tls=tls,
        on_incoming_channel_setup=service.begin,
        enable_read_back_pressure=True,
        half_close=True,
        max_handshakes=max_handshakes,
    )
    try:
        yield listener
    finally:
        with anyio.CancelScope(shield=True):  # others cancel again and again
            await service.end(listener)


class _Service:
    """The tasks that serve streams, on the loops of their channels."""

    def __init__(self, function: StreamFunction, window: int) -> None:
        self._function = function
        self._window = window
        # Reentrant, as a garbage collection may run anything in between.
        self._lock = threading.RLock()
        self._running: dict[asyncio.Task[None], ChannelStream] = {}
        self._has_ended = False

    def begin(self, channel: Channel | None, error: BaseException | None) -> None:
        """Serve a channel that is ready. Thread: the channel's."""
        if channel is None:
            return
        with self._lock:
            if self._has_ended:  # while this channel was set up, whose end is waited for there
                raise make(ErrorCode.ERROR_IO_OPERATION_CANCELLED, "the server has ended")
            stream = ChannelStream.attach(channel, window=self._window)
            task = channel.loop.create_task(self._run(stream), name=f"serve {stream!r}")
            self._running[task] = stream
        task.add_done_callback(self._ended)

    async def _run(self, stream: ChannelStream) -> None:
        try:
            await self._function(stream)
        except asyncio.CancelledError:
            stream.channel.shutdown(immediately=True)
            raise
        except Exception as exc:
            if _says_that_the_peer_has_gone(exc) and stream.input_has_ended:
                logger.debug("%r: its peer has gone: %r", stream, exc)
            else:
                stream.channel.loop.call_exception_handler(
                    {"message": f"{self._function!r} failed", "exception": exc, "stream": stream}
                )
        finally:
            await stream.aclose()

    def _ended(self, task: "asyncio.Task[None]") -> None:
        with self._lock:
            stream = self._running.pop(task)
        stream.channel.shutdown(immediately=True)  # if it was cancelled before it began

    async def end(self, listener: SocketListener) -> None:
        """Close the listener, cancel all, and wait until they and their channels have ended.

        Cancelled, it does all that nevertheless. Thread: of any loop.
        """
        listener.close()
        on_loop: dict[asyncio.AbstractEventLoop, dict[asyncio.Task[None], ChannelStream]] = {}
        with self._lock:
            self._has_ended = True
            for task, stream in self._running.items():
                on_loop.setdefault(stream.channel.loop, {})[task] = stream
        for loop, running in on_loop.items():
            with contextlib.suppress(RuntimeError):  # that loop has ended, and its tasks with it
                loop.call_soon_threadsafe(_cancel, list(running))

        async def wait() -> None:
            await listener.wait_closed()
            for each in on_loop.items():
                await _all_ended(*each)

        def is_over() -> bool:
            return listener.is_closed and all(
                task.done() for each in on_loop.values() for task in each
            )

        cancellation: asyncio.CancelledError | None = None
        try:
            while cancellation is None or not is_over():
                try:
                    await wait()
                    break
                except asyncio.CancelledError as exc:
                    cancellation = exc
            if cancellation is not None:
                raise cancellation
        finally:
            del cancellation  # it, its traceback and this frame would keep one another alive


def _cancel(tasks: "list[asyncio.Task[None]]") -> None:
    for task in tasks:
        task.cancel()


async def _all_ended(
    loop: asyncio.AbstractEventLoop, running: "dict[asyncio.Task[None], ChannelStream]"
) -> None:
    """Wait for tasks of another loop, and for their channels."""

    async def wait() -> None:
        await asyncio.wait(running)
        for stream in running.values():
            await stream.channel.wait_closed()

    with contextlib.suppress(EventLoopShutdownError, OperationCancelledError):  # of that loop
        await run_on(loop, wait())


def _says_that_the_peer_has_gone(exc: BaseException) -> bool:
    """An exception, or all of a group."""
    if isinstance(exc, BaseExceptionGroup):
        return all(map(_says_that_the_peer_has_gone, exc.exceptions))
    return isinstance(exc, anyio.BrokenResourceError | anyio.EndOfStream | anyio.IncompleteRead)
