"""What a loop runs: futures, tasks, executors, asynchronous generators, and their exceptions."""

import asyncio
import sys
import time
import warnings
from asyncio import futures, tasks
from asyncio.base_events import _run_until_complete_cb  # type: ignore[attr-defined]  # see below
from asyncio.log import logger
from collections.abc import Awaitable, Callable, Coroutine, Generator
from concurrent.futures import Executor
from contextvars import Context
from dataclasses import replace
from selectors import BaseSelector
from typing import Any, TypeVar, TypeVarTuple, Unpack

from . import _exception_handler
from ._async_generators import AsyncGenerators
from ._debug import check_callback
from ._executor import DefaultExecutor
from ._scheduler import Scheduler
from ._statistics import LoopStatistics

FACTORIES_TAKE_NAMES = sys.version_info >= (3, 13, 3)
"""Whether this Python's asyncio gives a task's name to its factory, or sets it afterwards."""

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class Runtime(Scheduler):
    """The part of a loop that knows of coroutines, and of no socket."""

    def __init__(self, selector: BaseSelector | None = None) -> None:
        super().__init__(selector)
        self._task_factory: Any = None
        self._exception_handler: _exception_handler.Handler | None = None
        self._executor = DefaultExecutor(self)
        self._async_generators = AsyncGenerators(self)

    def __repr__(self) -> str:
        return (
            f"<{type(self).__name__} running={self.is_running()} closed={self.is_closed()} "
            f"debug={self.get_debug()}>"
        )

    def __del__(self, _warn: Callable[..., None] = warnings.warn) -> None:
        if not self._closed and not self._forked:
            _warn(f"unclosed event loop {self!r}", ResourceWarning, source=self)
            if not self.is_running():
                self.close()

    # Life

    def run_until_complete(self, future: Generator[Any, None, T] | Awaitable[T]) -> T:
        self._check_closed()
        self._check_running()
        is_new = not asyncio.isfuture(future)
        awaitable: Any = future
        task: Any = asyncio.ensure_future(awaitable, loop=self)
        if is_new:
            task._log_destroy_pending = False  # what follows says more than that warning
        # asyncio's own callback: libraries, anyio among them, know the root task by it.
        task.add_done_callback(_run_until_complete_cb)
        try:
            self.run_forever()
        except BaseException:
            if is_new and task.done() and not task.cancelled():
                task.exception()  # the caller gets this one, so it was retrieved
            raise
        finally:
            task.remove_done_callback(_run_until_complete_cb)
        if not task.done():
            raise RuntimeError("Event loop stopped before Future completed.")
        return task.result()  # type: ignore[no-any-return]  # the future's own type

    def close(self) -> None:
        if self.is_running() and not self._forked:
            raise RuntimeError("Cannot close a running event loop")
        if self.is_closed():
            return
        if self._debug:
            logger.debug("Close %r", self)
        super().close()
        self._executor.close()

    async def shutdown_asyncgens(self) -> None:
        await self._async_generators.shutdown()

    def _asyncgen_firstiter_hook(self, agen: Any) -> None:
        self._async_generators.begun(agen)

    def _asyncgen_finalizer_hook(self, agen: Any) -> None:
        self._async_generators.abandoned(agen, self)

    def statistics(self) -> LoopStatistics:
        """A copy of the loop's figures as they are now. Thread: any."""
        # What has ended is read before what goes on, lest something is counted twice.
        idle, running = self._statistics.idle_seconds, self._statistics.running_seconds
        asleep_since, started = self._load.asleep_since, self._started_at
        now = time.monotonic()
        if asleep_since is not None:
            idle += now - asleep_since
        if started is not None:
            running += now - started
        return replace(
            self._statistics,
            turns=self._statistics.polls + self._turns_without_poll,
            running_seconds=running,
            idle_seconds=idle,
            waiting=asleep_since is not None,
            ready=len(self._ready) + len(self._foreign),
            timers=len(self._timers),
            watched=self._watchers.count(),
            gil_enabled=getattr(sys, "_is_gil_enabled", lambda: True)(),
        )

    # Futures, tasks, executors, exceptions

    def create_future(self) -> "asyncio.Future[Any]":
        return futures.Future(loop=self)

    def create_task(
        self,
        coro: Coroutine[Any, Any, T] | Generator[Any, None, T],
        *,
        name: str | None = None,
        context: Context | None = None,
        **kwargs: Any,
    ) -> "asyncio.Task[T]":
        if self._guarded:
            self._check_closed()
        elif self._task_factory is None and not kwargs:  # each keyword costs 20 ns, `**` more
            if name is None and context is None:
                return tasks.Task(coro, loop=self)
            return tasks.Task(coro, loop=self, name=name, context=context)
        task: Any = None
        try:
            if self._task_factory is None:
                task = tasks.Task(coro, loop=self, name=name, context=context, **kwargs)
                if getattr(task, "_source_traceback", None):
                    del task._source_traceback[-1]  # this frame
                return task  # type: ignore[no-any-return]  # Any for its traceback
            # A factory gets what was given, and no more: it may be older than some arguments.
            if context is not None:
                kwargs["context"] = context
            if name is not None and FACTORIES_TAKE_NAMES:
                kwargs["name"] = name
            task = self._task_factory(self, coro, **kwargs)
            if name is not None and not FACTORIES_TAKE_NAMES:
                task.set_name(name)
            return task  # type: ignore[no-any-return]  # the factory's
        finally:
            # The traceback of an eager task that failed leads to this frame, and here to the task.
            del task

    def set_task_factory(self, factory: Any) -> None:
        if factory is not None and not callable(factory):
            raise TypeError("task factory must be a callable or None")
        self._task_factory = factory

    def get_task_factory(self) -> Any:
        return self._task_factory

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[Unpack[Ts]], T], *args: *Ts
    ) -> "asyncio.Future[T]":
        self._check_closed()
        if self._debug:
            check_callback(func, "run_in_executor")
        return self._executor.run(executor, func, args)

    def set_default_executor(self, executor: Any) -> None:
        self._executor.set(executor)

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        await self._executor.shutdown(timeout)

    def set_exception_handler(self, handler: Any) -> None:
        if handler is not None and not callable(handler):
            raise TypeError(f"A callable object or None is expected, got {handler!r}")
        self._exception_handler = handler

    def get_exception_handler(self) -> Any:
        return self._exception_handler

    def default_exception_handler(self, context: dict[str, Any]) -> None:
        _exception_handler.log(context)

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        _exception_handler.call(self, self._exception_handler, context)
