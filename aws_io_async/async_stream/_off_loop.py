"""Calls that block, made on worker threads so that the event loop goes on.

A thread cannot be interrupted. A task that is cancelled while it waits for one leaves it behind,
holding the lock: the next call waits for it there, in a thread of its own. If that one is cancelled
too, its call is not made: it might come after those that follow it, as the lock knows no order.

Closing has two steps. `_closing` is set first. Then whoever gets the lock releases the resource:
the closer, or else the thread that has it, which looks at `_closing` after it gave the lock back.
"""

import threading
from collections.abc import Callable
from typing import TypeVar, TypeVarTuple

import anyio
import anyio.to_thread

T = TypeVar("T")
Args = TypeVarTuple("Args")


class OffLoop:
    """One resource whose calls block. Its methods are for the thread of an event loop."""

    def __init__(self, release: Callable[[], object]) -> None:
        """`release` lets go of the resource; it is called once, and may block."""
        self._release = release
        self._lock = threading.Lock()
        self._closing = False
        self._released = False

    async def run(self, function: Callable[[*Args], T], *args: *Args) -> T:
        """Call `function(*args)` on a worker thread, after the calls before it.

        A call that is cancelled before it has begun is not made. Raises anyio.ClosedResourceError
        once the resource is released.
        """
        abandoned = False

        def work() -> T:
            try:
                with self._lock:
                    if abandoned or self._released:
                        raise anyio.ClosedResourceError
                    return function(*args)
            finally:
                if self._closing:
                    self._release_once()

        try:
            return await anyio.to_thread.run_sync(work)
        except BaseException:
            abandoned = True
            raise

    async def acquire(self, function: Callable[[], object]) -> None:
        """Call `function` on a worker thread to get hold of the resource.

        If it fails or is cancelled, what it got hold of is released.
        """
        try:
            await self.run(function)
        except BaseException:
            self.abandon()
            raise

    async def aclose(self) -> None:
        """Release the resource on a worker thread; raises what that raises. Idempotent.

        Cancelled, it is released all the same, by and by if a call is under way.
        """
        self._closing = True
        try:
            await anyio.to_thread.run_sync(self._release_once)
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Release the resource: now, or, if a call is under way, when that returns."""
        self._closing = True
        if self._lock.acquire(blocking=False):
            try:
                self._release_locked()
            finally:
                self._lock.release()

    def _release_once(self) -> None:
        with self._lock:
            self._release_locked()

    def _release_locked(self) -> None:
        if not self._released:
            self._released = True
            self._release()
