"""A non-blocking descriptor on its asyncio loop: who may use it, who waits, who is told about it.

Theory of operation. `add_reader` and `add_writer` report levels, for as long as they are
registered. Here a registration lives for one report: whoever still waits afterwards registers
again. That leaves nothing registered while nobody waits, and it is what uvloop needs: after an
error on the descriptor (POLLERR) it drops the registration by itself and forgets those that are
made from inside the report. For the same reason nothing of a user's runs inside the report: tasks
are woken by futures, subscribers by `call_soon`.

A waiter makes its attempt to read or write itself, when it runs: a task that is cancelled after it
was woken has taken nothing from the descriptor.

`Subscription` makes edges of the levels: its callback hears that there is something to read once,
and again only after a read.
"""

import asyncio
import enum
import select
import weakref
from collections.abc import Callable
from typing import TypeVar

from . import errors
from .errors import AwsIoError, ErrorCode

_HANG_UP = select.POLLHUP | getattr(select, "POLLRDHUP", 0)

_NOT_NOW = (BlockingIOError, InterruptedError)

_T = TypeVar("_T")


class Readiness:
    """One direction of one descriptor. Thread: the loop's."""

    __slots__ = ("_fd", "_loop", "_registered", "_subscriber", "_waiters", "_writable")

    def __init__(self, loop: asyncio.AbstractEventLoop, fd: int, *, writable: bool = False) -> None:
        self._loop = loop
        self._fd = fd
        self._writable = writable
        self._registered = False
        self._waiters: list[asyncio.Future[None]] = []
        self._subscriber: Callable[[], object] | None = None

    async def wait(self) -> None:
        """Return when the descriptor may be ready, or after `wake`: then look at your own state.

        Several may wait: all are woken, in the order in which they came. Cancellation leaves
        nothing registered.
        """
        future: asyncio.Future[None] = self._loop.create_future()
        self._waiters.append(future)
        self._register()
        try:
            await future
        finally:
            if future in self._waiters:
                self._waiters.remove(future)
                self._unregister_if_unwanted()

    def call_once(self, callback: Callable[[], object]) -> None:
        """Run `callback` when the descriptor is ready: once, and in place of the one before."""
        self._subscriber = callback
        self._register()

    def forget_callback(self) -> None:
        """Do not run the callback of `call_once`, if it has not been scheduled yet."""
        self._subscriber = None
        self._unregister_if_unwanted()

    def wake(self) -> None:
        """Have all waiters look at their state."""
        waiters, self._waiters = self._waiters, []
        self._unregister_if_unwanted()
        for future in waiters:
            # A waiter of a loop that was closed cannot be woken, and a cancelled one need not be.
            if not future.done() and not self._loop.is_closed():
                future.set_result(None)

    def close(self) -> None:
        """Unregister, then wake all waiters: call this before the descriptor is closed."""
        self._subscriber = None
        self.wake()

    def _register(self) -> None:
        if self._registered:
            return
        add = self._loop.add_writer if self._writable else self._loop.add_reader
        add(self._fd, self._report)
        self._registered = True

    def _unregister_if_unwanted(self) -> None:
        if self._registered and not self._waiters and self._subscriber is None:
            self._unregister()

    def _unregister(self) -> None:
        self._registered = False
        if self._loop.is_closed():
            return  # it has closed its poller
        remove = self._loop.remove_writer if self._writable else self._loop.remove_reader
        remove(self._fd)

    def _report(self) -> None:
        self._unregister()
        subscriber, self._subscriber = self._subscriber, None
        self.wake()
        if subscriber is not None:
            self._loop.call_soon(subscriber)


class ReadEvent(enum.Enum):
    """What a subscriber is told."""

    READABLE = enum.auto()
    """There are bytes to read, or the end of the stream."""
    HANG_UP = enum.auto()
    """The peer has ended its side. Nothing else is told after this."""
    ERROR = enum.auto()
    """The descriptor has an error to ask for."""


class Subscription:
    """Tells a callback that there is something to read. Thread: the loop's.

    The callback runs once; again after `rearm`, which follows each read, if there is more, and
    when more comes. As in aws-c-io, a hang-up that comes with data is told right after the data.
    """

    __slots__ = ("_active", "_fd", "_on_event", "_readiness")

    def __init__(
        self, readiness: Readiness, fd: int, on_event: Callable[[ReadEvent], object]
    ) -> None:
        self._readiness = readiness
        self._fd = fd
        self._on_event = on_event
        self._active = True
        self.rearm()

    def rearm(self) -> None:
        """A read was made: tell of what there is, or will be."""
        if self._active:
            self._readiness.call_once(self._deliver)

    def cancel(self) -> None:
        """Tell nothing more; idempotent."""
        if self._active:
            self._active = False
            self._readiness.forget_callback()

    def _deliver(self) -> None:
        events = _pending(self._fd) if self._active else 0
        if events & select.POLLIN:
            self._on_event(ReadEvent.READABLE)
        if not self._active:
            return
        if events & _HANG_UP:
            self.cancel()
            self._on_event(ReadEvent.HANG_UP)
        elif events & select.POLLERR:
            self.rearm()
            self._on_event(ReadEvent.ERROR)
        elif not events & select.POLLIN:
            self.rearm()  # somebody else was faster


def _pending(fd: int) -> int:
    """What `poll` says of `fd` now, of what concerns a reader."""
    poll = select.poll()
    poll.register(fd, select.POLLIN | _HANG_UP)
    return sum(events for _, events in poll.poll(0))


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def check_loop(loop: object) -> None:
    """Raise TypeError for what is no loop."""
    if not isinstance(loop, asyncio.AbstractEventLoop):
        raise TypeError(f"an event loop is needed, not {loop!r}")


def check_callback(callback: object) -> None:
    """Raise TypeError for what cannot be called."""
    if not callable(callback):
        raise TypeError(f"callback must be callable, not {callback!r}")


class LoopIo:
    """One descriptor's reads and writes. Thread: the loop's, once it has one.

    Its owner opens and closes the descriptor, says how an attempt to read or write is made, and is
    shown in errors.
    """

    def __init__(self, fd: int, owner: object) -> None:
        self.loop: asyncio.AbstractEventLoop | None = None
        self._fd = fd
        self._owner = weakref.ref(owner)  # no cycle: what nobody closes is reported at once
        self._readable: Readiness
        self._writable: Readiness
        self._write_turn = asyncio.Lock()
        self._subscription: Subscription | None = None

    # The loop

    def assign(self, loop: asyncio.AbstractEventLoop) -> None:
        """Raises IO_EVENT_LOOP_ALREADY_ASSIGNED, TypeError for what is no loop. Any thread."""
        check_loop(loop)
        if self.loop is not None:
            raise errors.make(ErrorCode.IO_EVENT_LOOP_ALREADY_ASSIGNED, repr(self._owner()))
        self.loop = loop
        self._readable = Readiness(loop, self._fd)
        self._writable = Readiness(loop, self._fd, writable=True)

    def require_loop(self) -> None:
        """Check that the caller runs on its loop, which is the running one if it had none.

        Raises ERROR_IO_EVENT_LOOP_THREAD_ONLY, IO_SOCKET_MISSING_EVENT_LOOP. Any thread.
        """
        running = _running_loop()
        if running is self.loop is not None:
            return
        if self.loop is not None:
            raise self._wrong_thread()
        if running is None:
            raise errors.make(
                ErrorCode.IO_SOCKET_MISSING_EVENT_LOOP,
                f"no loop is running here: assign {self._owner()!r} to one first",
            )
        self.assign(running)

    def require_loop_or_idle(self) -> None:
        """For what ends a descriptor: also allowed while its loop does not run. Any thread."""
        if self.loop is not None and self.loop.is_running() and _running_loop() is not self.loop:
            raise self._wrong_thread()

    def _wrong_thread(self) -> AwsIoError:
        return errors.make(
            ErrorCode.ERROR_IO_EVENT_LOOP_THREAD_ONLY,
            f"{self._owner()!r} belongs to {self.loop!r}: use its call_soon_threadsafe, or "
            "asyncio.run_coroutine_threadsafe",
        )

    # Reading

    async def read(self, attempt: Callable[[], _T], what: str = "read") -> _T:
        """What `attempt` returns, as soon as it does not raise BlockingIOError.

        Raises what `attempt` does, an OSError translated. Cancellation loses nothing.
        """
        while True:
            try:
                return self.read_now(attempt, what)
            except _NOT_NOW:
                await self._readable.wait()

    def read_now(self, attempt: Callable[[], _T], what: str = "read") -> _T:
        """One attempt; the subscriber is told afterwards if there is more."""
        self.require_loop()
        try:
            return attempt()
        except (AwsIoError, *_NOT_NOW):
            raise
        except OSError as exc:
            raise errors.translate(exc, f"{what}: {self._owner()!r}") from exc
        finally:
            if self._subscription is not None:
                self._subscription.rearm()

    def subscribe(self, on_event: Callable[[ReadEvent], object]) -> None:
        """Tell `on_event` of what there is to read. Raises ERROR_IO_ALREADY_SUBSCRIBED."""
        self.require_loop()
        if self._subscription is not None:
            raise errors.make(ErrorCode.ERROR_IO_ALREADY_SUBSCRIBED, repr(self._owner()))
        self._subscription = Subscription(self._readable, self._fd, on_event)

    def unsubscribe(self) -> None:
        """Tell nothing more. Raises ERROR_IO_NOT_SUBSCRIBED."""
        self.require_loop()
        if self._subscription is None:
            raise errors.make(ErrorCode.ERROR_IO_NOT_SUBSCRIBED, repr(self._owner()))
        self._subscription.cancel()
        self._subscription = None

    # Writing

    async def write(self, data: memoryview, send: Callable[[memoryview], int]) -> None:
        """Send all of `data`; writes are made one after the other, in the order of the calls."""
        self.require_loop()
        async with self._write_turn:
            rest = data[await self._send(data, send) :]
            while rest:
                await self._writable.wait()  # let others run before more is sent
                rest = rest[await self._send(rest, send) :]

    async def _send(self, data: memoryview, send: Callable[[memoryview], int]) -> int:
        while True:
            try:
                return send(data)
            except AwsIoError:
                raise
            except _NOT_NOW:
                await self._writable.wait()
            except OSError as exc:
                raise errors.translate(exc, f"write: {self._owner()!r}") from exc

    async def until_writable(self) -> None:
        """Wait until it is writable, or woken."""
        self.require_loop()
        await self._writable.wait()

    # Its end

    def wake_readers(self) -> None:
        """Have those who wait to read make an attempt, which now fails."""
        if self.loop is not None:
            self._readable.wake()

    def wake_writers(self) -> None:
        """Have those who wait to write make an attempt, which now fails."""
        if self.loop is not None:
            self._writable.wake()

    def close(self) -> None:
        """Unregister the descriptor, tell the subscriber nothing more, and wake all who wait."""
        if self._subscription is not None:
            self._subscription.cancel()
        if self.loop is not None:
            self._readable.close()
            self._writable.close()
