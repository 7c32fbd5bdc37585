"""`serve`: the short way to a server, a coroutine for each connection."""

import asyncio
import contextlib
import functools
import threading
from collections.abc import AsyncIterator, Awaitable, Callable

import anyio

from ..channel import Channel, ChannelState
from ..channel_bootstrap import ServerBootstrap, SocketListener
from ..event_loop._crossing import run_on
from ..event_loop.group import EventLoopGroup
from ..socket import SocketOptions
from ..tls_context import TlsConnectionOptions, TlsContext
from ._handler import WINDOW
from ._stream import ChannelStream

StreamFunction = Callable[[ChannelStream], Awaitable[object]]


@contextlib.asynccontextmanager
async def serve(
    handler: StreamFunction,
    host: str,
    port: int = 0,
    *,
    tls: TlsConnectionOptions | TlsContext | None = None,
    socket_options: SocketOptions | None = None,
    event_loop_group: EventLoopGroup | None = None,
    window: int = WINDOW,
) -> AsyncIterator[SocketListener]:
    """A server that runs `await handler(stream)` for each connection, while the block lasts.

    Each runs as a task on the loop of its channel, and its stream is closed after it. What it
    raises goes to that loop's exception handler, unless it says that the peer has gone. At the
    end of the block the listener is closed, the handlers that still run are cancelled, which
    closes their connections at once, and their end is waited for. Port 0 has the system choose
    one: see `listener.endpoint`. Raises what `ServerBootstrap.new_socket_listener` raises, and
    ValueError if `window` is below 1. Thread: of any running loop.
    """
    if window < 1:
        raise ValueError(f"window must be positive, not {window!r}")
    service = _Service(handler, window)
    listener = await ServerBootstrap(event_loop_group).new_socket_listener(
        host,
        port,
        socket_options=socket_options,
        tls=tls,
        on_incoming_channel_setup=service.begin,
        enable_read_back_pressure=True,
        half_close=True,
    )
    try:
        yield listener
    finally:
        with anyio.CancelScope(shield=True):
            try:
                await listener.aclose()
            finally:
                await service.cancel()


class _Service:
    """The tasks that serve streams, on the loops of their channels."""

    def __init__(self, function: StreamFunction, window: int) -> None:
        self._function = function
        self._window = window
        self._lock = threading.Lock()
        self._running: dict[asyncio.Task[None], asyncio.AbstractEventLoop] = {}

    def begin(self, channel: Channel | None, error: BaseException | None) -> None:
        """Serve a channel that is ready. Thread: the channel's."""
        if channel is None:
            return
        stream = ChannelStream.attach(channel, window=self._window)
        task = channel.loop.create_task(self._run(stream), name=f"serve {stream!r}")
        with self._lock:
            self._running[task] = channel.loop
        task.add_done_callback(functools.partial(self._ended, channel))

    async def _run(self, stream: ChannelStream) -> None:
        try:
            await self._function(stream)
        except asyncio.CancelledError:
            stream.channel.shutdown(immediately=True)
            raise
        except Exception as exc:
            if not _is_disconnection(exc):
                stream.channel.loop.call_exception_handler(
                    {"message": f"{self._function!r} failed", "exception": exc, "stream": stream}
                )
        finally:
            await stream.aclose()

    def _ended(self, channel: Channel, task: "asyncio.Task[None]") -> None:
        if channel.state is not ChannelState.SHUT_DOWN:  # it was cancelled before it began
            channel.shutdown(immediately=True)
        with self._lock:
            self._running.pop(task, None)

    async def cancel(self) -> None:
        """Cancel all, and wait until they have ended. Thread: of any loop."""
        on_loop: dict[asyncio.AbstractEventLoop, set[asyncio.Task[None]]] = {}
        with self._lock:
            for task, loop in self._running.items():
                on_loop.setdefault(loop, set()).add(task)
        # What this raises says that a loop has ended, and its tasks with it.
        await asyncio.gather(
            *(run_on(loop, _cancel(tasks)) for loop, tasks in on_loop.items()),
            return_exceptions=True,
        )


def _is_disconnection(exc: BaseException) -> bool:
    """Whether an exception, or all of a group, says no more than that the peer has gone."""
    if isinstance(exc, BaseExceptionGroup):
        return all(map(_is_disconnection, exc.exceptions))
    return isinstance(exc, anyio.BrokenResourceError | anyio.EndOfStream)


async def _cancel(tasks: "set[asyncio.Task[None]]") -> None:
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
