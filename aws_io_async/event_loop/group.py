"""`EventLoopGroup`: several event loops, each on a thread of its own, and code on them."""

import asyncio
import atexit
import enum
import operator
import os
import random
import selectors
import threading
import time
import weakref
from asyncio.log import logger
from collections.abc import Coroutine, Iterator
from concurrent.futures import Future
from typing import Any, Self, TypeVar

from .. import errors
from ..errors import CommonErrorCode, ErrorCode
from ._cpu import cpus_of_group, usable_cpu_count
from ._crossing import Crossing
from ._loop import EventLoop
from ._loop_thread import LoopFactory, LoopThread

T = TypeVar("T")

EXIT_TIMEOUT = 5.0
"""Seconds that an exiting interpreter waits for the loops of groups that were not shut down."""


class EventLoopType(enum.Enum):
    """What a loop waits with (aws-c-io's `aws_event_loop_type`, and POLL)."""

    PLATFORM_DEFAULT = 0
    """epoll on Linux, kqueue on macOS and the BSDs."""
    EPOLL = 1
    IOCP = 2
    """On no platform of this library."""
    KQUEUE = 3
    DISPATCH_QUEUE = 4
    """On no platform of this library."""
    POLL = 5
    """`poll`, for where neither epoll nor kqueue may be used. Slow with many descriptors."""

    def resolve(self) -> "EventLoopType":
        """Itself, or what PLATFORM_DEFAULT stands for here. Thread: any.

        Raises UnsupportedError, a NotImplementedError, if the platform does not have it.
        """
        if self is not EventLoopType.PLATFORM_DEFAULT:
            _selector_class(self)
            return self
        return next(best for best in _SELECTORS if hasattr(selectors, _SELECTORS[best]))

    def new_loop(self) -> EventLoop:
        """A new event loop of this type; the caller closes it. Errors and threads: as `resolve`."""
        return EventLoop(_selector_class(self.resolve())())


_SELECTORS = {
    EventLoopType.EPOLL: "EpollSelector",
    EventLoopType.KQUEUE: "KqueueSelector",
    EventLoopType.POLL: "PollSelector",
}
"""The best first."""


def _selector_class(type: EventLoopType) -> Any:
    selector = getattr(selectors, _SELECTORS.get(type, ""), None)
    if selector is None:
        raise errors.make(
            CommonErrorCode.ERROR_PLATFORM_NOT_SUPPORTED,
            f"no event loops of type {type.name} here, use PLATFORM_DEFAULT",
        )
    return selector


class EventLoopGroup:
    """Event loops, each running on a thread of its own until the group is shut down.

    `loop_count` is their number, by default the number of CPUs that the process may use. `type`
    says what they wait with; or else `loop_factory` makes them, asyncio's or uvloop's for example:
    it is called on each thread, and returns a new loop each time.

    With `cpu_group`, the number of a NUMA node (Linux only), there are no more loops than the node
    has cores that the process may use, one on each. Threads that such a loop starts, its default
    executor's among them, share its CPU.

    Raises TypeError and ValueError for bad arguments, UnsupportedError (a NotImplementedError) for
    what the platform does not have, RuntimeError if no thread can be started, and whatever
    `loop_factory` raises. A constructor that raises leaves no thread.

    The group and its loops live until `shutdown()` or `aclose()`, which leaving a `with` or
    `async with` block calls: dropping the last reference does not end them, as there may be
    channels on the loops. An interpreter that exits shuts down what is still running, after its
    other threads have ended, and waits for tasks that will not end no longer than `EXIT_TIMEOUT`.

    The threads are named `aws-io-loop-0` and so on and start with an empty context. A task that
    raises SystemExit does not end the loop it is on, nor does a call of that loop's `stop()`.

    Thread: all methods may be called from any. Fork: a child has none of its parent's threads; it
    gets a RuntimeError from whatever would give it a loop, while shutting down does nothing.

    After `aws_event_loop_group` of aws-c-io's `event_loop.h`.
    """

    def __init__(
        self,
        loop_count: int | None = None,
        type: EventLoopType = EventLoopType.PLATFORM_DEFAULT,
        *,
        cpu_group: int | None = None,
        loop_factory: LoopFactory | None = None,
    ) -> None:
        _check_arguments(loop_count, type, loop_factory)
        resolved = type.resolve()
        cpus: list[int] | list[None]
        if cpu_group is None:
            cpus = [None] * (loop_count or usable_cpu_count())
        else:
            cpus = cpus_of_group(cpu_group)[:loop_count]
        threads: list[LoopThread] = []
        try:
            for number, cpu in enumerate(cpus):
                name = f"aws-io-loop-{number}"
                threads.append(LoopThread(name, loop_factory or resolved.new_loop, cpu))
        except BaseException:
            for thread in threads:
                thread.stop()
            for thread in threads:
                thread.join()
            raise
        self._set_up([thread.loop for thread in threads], threads)
        if loop_factory is None:
            self._type = resolved
        atexit.register(self._at_exit)

    def _set_up(self, loops: list[asyncio.AbstractEventLoop], threads: list[LoopThread]) -> None:
        self._loops = loops
        self._threads = threads
        self._type = EventLoopType.PLATFORM_DEFAULT
        self._random = random.Random()  # its own: the application may have seeded the common one
        self._pid = os.getpid()
        self._shutting_down = False
        self._submitted: set[Future[Any]] = set()  # a loop itself does not keep its tasks alive
        # Held while work is queued, so that the order to stop comes after it. Reentrant, as a
        # garbage collection may run anything in between.
        self._lock = threading.RLock()

    @staticmethod
    def current() -> "EventLoopGroup":
        """The group of the running loop alone: what is done with it happens on the caller's loop.

        It owns no thread, and shutting it down does nothing. For one loop it is the same object
        each time. Raises RuntimeError if the thread runs no loop.
        """
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            raise RuntimeError(
                "no running event loop: this needs one of asyncio's, or an EventLoopGroup()"
            ) from None
        group = _current_groups.get(loop)
        if group is None:
            group = _current_groups[loop] = object.__new__(EventLoopGroup)
            group._set_up([loop], [])
        return group

    def __repr__(self) -> str:
        state = "running"
        if self._shutting_down:
            ended = all(thread.ended.done() for thread in self._threads)
            state = "shut down" if ended else "shutting down"
        return f"<EventLoopGroup loops={len(self._loops)} type={self._type.name} {state}>"

    # Loops

    @property
    def type(self) -> EventLoopType:
        """The type of its loops; PLATFORM_DEFAULT if it did not choose it: see `loop_factory`."""
        return self._type

    @property
    def loop_count(self) -> int:
        """The number of its loops."""
        return len(self._loops)

    def __len__(self) -> int:
        return len(self._loops)

    def __iter__(self) -> Iterator[asyncio.AbstractEventLoop]:
        return iter(tuple(self._loops))

    def get_loop_at(self, index: int) -> asyncio.AbstractEventLoop:
        """The loop of that index, 0 to `loop_count - 1`.

        Raises IndexError if there is none, and EventLoopShutdownError after shutdown.
        """
        self._check_usable()
        if not 0 <= operator.index(index) < len(self._loops):
            raise IndexError(f"no loop {index}: the loops are 0 to {len(self._loops) - 1}")
        return self._loops[index]

    def get_next_loop(self) -> asyncio.AbstractEventLoop:
        """The loop to put new work on: of two random ones that with the lower `load_factor`.

        Both may be the same, so that the busiest loop has its share of a burst that comes before
        the figures are new. Loops that measure no load, asyncio's and uvloop's, are chosen at
        random. Raises EventLoopShutdownError after shutdown.
        """
        self._check_usable()
        one, other = self._random.choices(self._loops, k=2)
        return other if _load(other) < _load(one) else one

    # Code on a loop

    def submit(
        self, coroutine: Coroutine[Any, Any, T], loop: asyncio.AbstractEventLoop | None = None
    ) -> Future[T]:
        """Start a coroutine on `loop` of the group, by default the next one, and do not wait.

        For threads that run no loop: the future's `result()` waits. In a coroutine use `run`. The
        task starts in a copy of the caller's context, and lives on if the future is dropped.
        Cancelling the future cancels the task; shutting down cancels both.

        Raises TypeError if `coroutine` is none, ValueError if `loop` is not of the group, and
        EventLoopShutdownError after shutdown; the coroutine is closed then.
        """
        _check_coroutine(coroutine)
        try:
            self._check_usable()  # a forked child must not wait for the lock: nobody might let go
            with self._lock:
                future = asyncio.run_coroutine_threadsafe(coroutine, self._target(loop))
        except BaseException:
            coroutine.close()
            raise
        self._submitted.add(future)
        future.add_done_callback(self._submitted.discard)
        return future

    async def run(
        self, coroutine: Coroutine[Any, Any, T], loop: asyncio.AbstractEventLoop | None = None
    ) -> T:
        """Run a coroutine on `loop` of the group, by default the next one; returns its result.

        Awaited on any loop; the task starts in a copy of the caller's context. A cancellation is
        handed over to the task, and its end is waited for.

        Raises what the coroutine does, what `submit` does, and EventLoopShutdownError if the
        coroutine was cancelled because the group was shut down.
        """
        _check_coroutine(coroutine)
        try:
            self._check_usable()  # as in `submit`
            with self._lock:
                crossing = Crossing(coroutine, self._target(loop))
        except BaseException:
            coroutine.close()
            raise
        task = await crossing.wait()
        if task.cancelled() and self._shutting_down:
            raise errors.make(ErrorCode.IO_EVENT_LOOP_SHUTDOWN, f"{self!r} cancelled {task!r}")
        return task.result()

    def _target(self, loop: asyncio.AbstractEventLoop | None) -> asyncio.AbstractEventLoop:
        if loop is None:
            return self.get_next_loop()
        self._check_usable()
        if loop not in self._loops:
            raise ValueError(f"{loop!r} is not a loop of {self!r}")
        return loop

    def _check_usable(self) -> None:
        if os.getpid() != self._pid:
            raise RuntimeError(
                f"{self!r} belongs to the parent of this process (pid {self._pid}): threads do not "
                "survive a fork, make a new group in the child"
            )
        if self._shutting_down:
            raise errors.make(ErrorCode.IO_EVENT_LOOP_SHUTDOWN, repr(self))

    # Shutting down

    def shutdown(self, timeout: float | None = None) -> None:
        """Stop and close all loops, and wait for the end of their threads. Idempotent.

        Each loop does what `asyncio.run` does at its end: cancel the tasks that are left, close
        asynchronous generators, wait for the default executor.

        Raises TimeoutError if that takes longer than `timeout` seconds: it goes on, and may be
        waited for by another call. Raises RuntimeError on a thread of the group, which would wait
        for itself; a thread of its loops' default executors would, too, and is not told. It blocks
        the caller: in a coroutine use `aclose`.
        """
        if not self._has_threads():
            return
        if any(thread.is_current() for thread in self._threads):
            raise RuntimeError(
                "shutdown() would wait for the thread that it was called on: call it on a thread "
                "that is not the group's, or await aclose()"
            )
        self._begin_shutdown()
        deadline = None if timeout is None else time.monotonic() + timeout
        late = [
            thread.name
            for thread in self._threads
            if not thread.join(None if deadline is None else max(0.0, deadline - time.monotonic()))
        ]
        if late:
            raise TimeoutError(
                f"{', '.join(late)} did not end within {timeout} s: a task has not ended after its "
                "cancellation, or the default executor is busy"
            )
        atexit.unregister(self._at_exit)

    async def aclose(self) -> None:
        """`shutdown()` that does not block the caller's loop. Idempotent.

        Cancelled, it stops waiting, while the loops go on to their end. On a loop of the group
        itself it does not return: the caller is among the tasks that are cancelled.
        """
        if not self._has_threads():
            return
        self._begin_shutdown()
        for thread in self._threads:
            await asyncio.wrap_future(thread.ended)
        for thread in self._threads:
            thread.join()
        atexit.unregister(self._at_exit)

    def _has_threads(self) -> bool:
        """Not so for the group of the running loop, nor in a forked child."""
        return bool(self._threads) and os.getpid() == self._pid

    def _begin_shutdown(self, *, exiting: bool = False) -> None:
        with self._lock:
            if not self._shutting_down:
                self._shutting_down = True
                for thread in self._threads:
                    thread.stop(exiting=exiting)

    def _at_exit(self) -> None:
        if not self._has_threads():
            return
        self._begin_shutdown(exiting=True)
        try:
            self.shutdown(EXIT_TIMEOUT)
        except TimeoutError as exc:
            logger.warning("%r was left at exit: %s", self, exc)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


_current_groups: "weakref.WeakValueDictionary[asyncio.AbstractEventLoop, EventLoopGroup]" = (
    weakref.WeakValueDictionary()
)
"""Those of `current()` that somebody still has."""


def _load(loop: asyncio.AbstractEventLoop) -> float:
    return getattr(loop, "load_factor", 0.0)


def _check_coroutine(coroutine: object) -> None:
    if not asyncio.iscoroutine(coroutine):
        raise TypeError(f"a coroutine is needed, what f() returns, and not {coroutine!r}")


def _check_arguments(loop_count: int | None, type: object, loop_factory: object) -> None:
    if loop_count is not None and operator.index(loop_count) < 1:
        raise ValueError(f"loop_count must be at least 1, or None for the default: {loop_count}")
    if not isinstance(type, EventLoopType):
        raise TypeError(f"type must be an EventLoopType, not {type!r}")
    if loop_factory is not None and not callable(loop_factory):
        raise TypeError(f"loop_factory must be callable, not {loop_factory!r}")
    if loop_factory is not None and type is not EventLoopType.PLATFORM_DEFAULT:
        raise ValueError(f"either type ({type.name}) or loop_factory: a factory makes its own type")
