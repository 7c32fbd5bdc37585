"""A coroutine of one loop that another loop waits for."""

import asyncio
import contextlib
import os
import threading
import weakref
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, Generic, TypeVar

from .. import errors
from ..errors import ErrorCode
from ._until_done import until_done

T = TypeVar("T")

_ending: "weakref.WeakSet[asyncio.AbstractEventLoop]" = weakref.WeakSet()
_lock = threading.RLock()  # reentrant, as a garbage collection may run anything in between


def _start_afresh() -> None:
    """This process is a forked child: another thread of its parent may have had the lock."""
    global _lock
    _lock = threading.RLock()


os.register_at_fork(after_in_child=_start_afresh)


def refuse_crossings(loop: asyncio.AbstractEventLoop) -> None:
    """Let no coroutine begin on a loop any more that is about to cancel its tasks and to close.

    One that began later would be forgotten, and its end waited for in vain. Those on their way
    are refused on the loop, which therefore has to make one more turn. Thread: the loop's.
    """
    with _lock:
        _ending.add(loop)


def call_on(loop: asyncio.AbstractEventLoop, callback: Callable[[], object]) -> None:
    """`loop.call_soon_threadsafe`, for what must not be forgotten. Thread: any.

    Raises RuntimeError if the loop is closed, and IO_EVENT_LOOP_SHUTDOWN, which is one, if it is
    one of a group that is shutting down.
    """
    with _lock:
        if loop in _ending:
            raise errors.make(ErrorCode.IO_EVENT_LOOP_SHUTDOWN, repr(loop))
        loop.call_soon_threadsafe(callback)


class Crossing(Generic[T]):
    """Runs a coroutine as a task of `loop`, in a copy of the present context. Thread: any.

    Raises RuntimeError if the loop is closed, or is one of a group that is shutting down. If
    another loop is closed later without running once more, the end never comes.
    """

    def __init__(self, coroutine: Coroutine[Any, Any, T], loop: asyncio.AbstractEventLoop) -> None:
        self._coroutine = coroutine
        self._loop = loop
        self._task: asyncio.Task[T] | None = None
        self._ended: Future[asyncio.Task[T]] = Future()
        self._ended.set_running_or_notify_cancel()  # to cancel a waiter does not cancel this
        call_on(loop, self._start)

    def _start(self) -> None:
        try:
            if self._loop in _ending:
                raise errors.make(ErrorCode.IO_EVENT_LOOP_SHUTDOWN, repr(self._loop))
            self._task = self._loop.create_task(self._coroutine)
            self._task.add_done_callback(self._ended.set_result)
        except BaseException as exc:  # that one, or what the loop's task factory raises
            self._coroutine.close()
            self._ended.set_exception(exc)

    async def wait(self, undo: Callable[[T], object] | None = None) -> "asyncio.Task[T]":
        """Wait, on any loop, until the task is done; returns it.

        A cancellation is handed over to the task, once: those that follow do not disturb what the
        task does to clean up. As with a coroutine that is awaited in place, it comes where that
        waits for something, not before it has begun. Then CancelledError is raised as soon as the
        task has ended, or its exception if it ended with another one. If it has a result all the
        same, `undo` gets it.
        """
        try:
            while not self._ended.done():
                await asyncio.wrap_future(self._ended)
        except asyncio.CancelledError:
            if self._cancel():
                task = await self._until_ended()
                if not task.cancelled():
                    result = task.result()
                    if undo is not None:
                        undo(result)
            raise  # this very one: by its message anyio knows whose cancellation it is
        return self._ended.result()

    async def _until_ended(self) -> "asyncio.Task[T]":
        import anyio  # here, as few programs come here, and all would pay for it

        # One future for all cancellations: what it has added to `_ended` stays there. And none of
        # anyio's, which come in each turn: they would keep this loop busy, and the interpreter
        # from the other thread, which is to come to its end.
        ended = asyncio.wrap_future(self._ended)
        with anyio.CancelScope(shield=True), contextlib.suppress(asyncio.CancelledError):
            await until_done([ended])
        return ended.result()

    def _cancel(self) -> bool:
        """False if the loop is closed, so that there is nothing to wait for."""
        try:
            self._loop.call_soon_threadsafe(self._cancel_task)
        except RuntimeError:
            return False
        return True

    def _cancel_task(self) -> None:
        # Not at once, as it may be in this very turn that the task was made: one that is cancelled
        # before its first step does nothing of what the coroutine does before it waits.
        if self._task is not None:
            self._loop.call_soon(self._task.cancel)


async def run_on(
    loop: asyncio.AbstractEventLoop,
    coroutine: Coroutine[Any, Any, T],
    undo: Callable[[T], object] | None = None,
) -> T:
    """Run `coroutine` on `loop`, which may be the caller's own; returns its result.

    It is a task of its own in any case. A cancellation of the caller is handed over to it and its
    end waited for, as `Crossing.wait` has it; a result that comes too late is given to `undo`, on
    the caller's thread.

    Raises what the coroutine does, IO_EVENT_LOOP_SHUTDOWN if the loop is closed or closing, and
    ERROR_IO_OPERATION_CANCELLED if the task was cancelled there, as a loop that ends does.
    """
    try:
        crossing = Crossing(coroutine, loop)
    except RuntimeError as exc:
        coroutine.close()
        raise errors.make(ErrorCode.IO_EVENT_LOOP_SHUTDOWN, repr(loop)) from exc
    task = await crossing.wait(undo)
    if task.cancelled():
        raise errors.make(ErrorCode.ERROR_IO_OPERATION_CANCELLED, f"{task!r} of {loop!r}")
    return task.result()
