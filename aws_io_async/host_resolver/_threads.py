"""The threads of a resolver: one that keeps the time, and a few for lookups that block.

The first one, the scheduler, runs an event loop: timers are its timers, coroutine lookups its
tasks. Blocking lookups go to worker threads, started as they are needed. All threads are daemons: a
lookup that hangs in the system's resolver keeps neither `stop` nor the interpreter's exit waiting.

Lookups wait in two lines, blocking ones and coroutines, each of which has so many under way at
most. In either, those that a caller waits for overtake those that only keep the cache fresh.
"""

import asyncio
import inspect
import threading
from collections import OrderedDict
from collections.abc import Callable
from contextvars import Context
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

MAX_WORKERS = 7
"""Blocking lookups under way at once; with the scheduler, a resolver has 8 threads at most."""

MAX_COROUTINES = 64
"""Coroutine lookups under way at once; each may have a few sockets."""

NAME = "aws_io_async-resolver"

K = TypeVar("K")

Lookup = tuple[Callable[[str], Any], str]
"""A function or coroutine function, and the name for it."""


class _Line(Generic[K]):
    """Lookups of one kind that wait for their turn."""

    def __init__(self, limit: int, start: Callable[[K, Lookup], None]) -> None:
        self.limit = limit
        self.start = start
        self.under_way = 0
        self._urgent: OrderedDict[K, Lookup] = OrderedDict()
        self._routine: OrderedDict[K, Lookup] = OrderedDict()

    def put(self, key: K, lookup: Lookup, urgent: bool) -> None:
        if urgent:
            self._routine.pop(key, None)
            self._urgent[key] = lookup
        elif key not in self._urgent:
            self._routine[key] = lookup

    def pop(self) -> tuple[K, Lookup] | None:
        line = self._urgent or self._routine
        if not line or self.under_way >= self.limit:
            return None
        return line.popitem(last=False)


class ResolverThreads(Generic[K]):
    """Runs lookups, each for a key, and calls functions at a time.

    `begin(key)` is called when the turn of a lookup has come, and says whether it is still wanted;
    `end(key, result, error)` when it is over. Both, and all that is given to `call` and
    `call_later`, run on the scheduler's thread. Nothing runs there after `stop`.
    """

    def __init__(
        self,
        loop_factory: Callable[[], asyncio.AbstractEventLoop],
        begin: Callable[[K], bool],
        end: Callable[[K, Any, BaseException | None], object],
    ) -> None:
        self._begin = begin
        self._end = end
        self._blocking: _Line[K] = _Line(MAX_WORKERS, self._give_to_worker)
        self._coroutines: _Line[K] = _Line(MAX_COROUTINES, self._start_task)
        self._jobs: SimpleQueue[tuple[K, Lookup] | None] = SimpleQueue()
        self._workers = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = loop_factory()
        self._stopped = asyncio.Event()
        try:
            self._start_thread(NAME, self._schedule)
        except BaseException:
            self._loop.close()
            raise

    def call(self, function: Callable[..., object], *args: Any) -> None:
        """Call `function` soon. Thread: any. After `stop` it does nothing."""
        try:
            self._loop.call_soon_threadsafe(function, *args)
        except RuntimeError:
            if not self._loop.is_closed():
                raise

    def call_later(
        self, delay: float, function: Callable[..., object], *args: Any
    ) -> asyncio.TimerHandle:
        """Call `function` after `delay` seconds. Thread: the scheduler's."""
        return self._loop.call_later(delay, function, *args)

    def submit(self, key: K, lookup: Lookup, *, urgent: bool) -> None:
        """Run `lookup` when its turn comes; submitted twice, it is run once.

        Thread: the scheduler's.
        """
        line = self._coroutines if _is_coroutine_function(lookup[0]) else self._blocking
        line.put(key, lookup, urgent)
        self._advance(line)

    def stop(self) -> None:
        """Have the threads end, without waiting for lookups under way. Thread: any; idempotent."""
        self.call(self._stopped.set)

    def _advance(self, line: _Line[K]) -> None:
        while (turn := line.pop()) is not None:
            key, lookup = turn
            if self._begin(key):
                line.under_way += 1
                line.start(key, lookup)

    def _over(self, line: _Line[K], key: K, result: Any, error: BaseException | None) -> None:
        line.under_way -= 1
        if not self._stopped.is_set():
            self._end(key, result, error)
            self._advance(line)

    def _schedule(self) -> None:
        try:
            with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
                runner.run(self._until_stopped())
        finally:
            for _ in range(self._workers):
                self._jobs.put(None)

    async def _until_stopped(self) -> None:
        await self._stopped.wait()
        # Each lookup ends the tasks that it has made. Left to the runner, they would be cancelled
        # beside it, and one that fails instead would be reported as nobody's.
        for task in self._tasks:
            task.cancel()
        # One that has not begun yet is cancelled for good, and no reason to stop waiting.
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _start_task(self, key: K, lookup: Lookup) -> None:
        task = self._loop.create_task(self._run_coroutine(key, lookup), context=Context())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run_coroutine(self, key: K, lookup: Lookup) -> None:
        function, host = lookup
        result, error = None, None
        try:
            result = await function(host)
        except BaseException as exc:  # a cancellation is the lookup's own, or `stop` comes first
            error = exc
        self._over(self._coroutines, key, result, error)

    def _give_to_worker(self, key: K, lookup: Lookup) -> None:
        if self._blocking.under_way > self._workers:
            try:
                self._start_thread(f"{NAME}-{self._workers + 1}", self._work)
                self._workers += 1
            except RuntimeError as exc:  # the system has no more: those that there are do it
                if not self._workers:
                    self.call(self._over, self._blocking, key, None, exc)
                    return
        self._jobs.put((key, lookup))

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            key, (function, host) = job
            result, error = None, None
            try:
                result = function(host)
                if inspect.isawaitable(result):
                    _refuse(result)
            except BaseException as exc:
                error = exc
            self.call(self._over, self._blocking, key, result, error)
            del job, key, function, host, result, error

    def _start_thread(self, name: str, target: Callable[[], None]) -> None:
        threading.Thread(target=Context().run, args=(target,), name=name, daemon=True).start()


def _is_coroutine_function(function: Callable[..., Any]) -> bool:
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
        getattr(function, "__call__", None)  # noqa: B004  an object whose call is a coroutine
    )


def _refuse(awaitable: Any) -> None:
    if inspect.iscoroutine(awaitable):
        awaitable.close()
    raise TypeError("a lookup that returns an awaitable must be declared with `async def`")
