"""A coroutine of one loop that another loop waits for."""

import asyncio
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Crossing(Generic[T]):
    """Runs a coroutine as a task of `loop`, in a copy of the present context. Thread: any.

    Raises RuntimeError if the loop is closed. If it is closed later without running once more,
    the end never comes.
    """

    def __init__(self, coroutine: Coroutine[Any, Any, T], loop: asyncio.AbstractEventLoop) -> None:
        self._coroutine = coroutine
        self._loop = loop
        self._task: asyncio.Task[T] | None = None
        self._ended: Future[asyncio.Task[T]] = Future()
        self._ended.set_running_or_notify_cancel()  # to cancel a waiter does not cancel this
        loop.call_soon_threadsafe(self._start)

    def _start(self) -> None:
        try:
            self._task = self._loop.create_task(self._coroutine)
            self._task.add_done_callback(self._ended.set_result)
        except BaseException as exc:  # of the loop's task factory
            self._coroutine.close()
            self._ended.set_exception(exc)

    async def wait(self) -> "asyncio.Task[T]":
        """Wait, on any loop, until the task is done; returns it.

        A cancellation is handed over to the task. Then CancelledError is raised once that has
        ended, or the task's exception if it ended with another one.
        """
        cancelled = False
        while not self._ended.done():
            try:
                await asyncio.wrap_future(self._ended)
            except asyncio.CancelledError:
                cancelled = True
                self._cancel()
        task = self._ended.result()
        if cancelled:
            task.result()
            raise asyncio.CancelledError
        return task

    def _cancel(self) -> None:
        try:
            self._loop.call_soon_threadsafe(self._cancel_task)
        except RuntimeError:  # closed: the task has ended before
            pass

    def _cancel_task(self) -> None:
        if self._task is not None:
            self._task.cancel()
