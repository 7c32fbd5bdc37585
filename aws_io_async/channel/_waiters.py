"""Waiting, on any loop, for the end of something that lives on one."""

import asyncio
import contextlib
import threading
from typing import TypeVar

T = TypeVar("T")


class Waiters:
    """Who waits for one thing that happens once. Thread: any."""

    __slots__ = ("_lock", "_waiting")

    def __init__(self) -> None:
        # Reentrant, as a garbage collection may run anything in between.
        self._lock = threading.RLock()
        self._waiting: list[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] | None = []

    @property
    def released(self) -> bool:
        """Whether it has happened."""
        return self._waiting is None

    def release(self) -> None:
        """It has happened: wake all who wait. Nobody will from now on."""
        with self._lock:
            waiting, self._waiting = self._waiting or [], None
        for loop, waiter in waiting:
            with contextlib.suppress(RuntimeError):  # the waiter's loop has ended
                loop.call_soon_threadsafe(resolve, waiter)

    async def wait(self) -> None:
        """Wait until it has happened. Thread: of any running loop."""
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[None] = loop.create_future()
        with self._lock:
            if self._waiting is None:
                return
            self._waiting.append((loop, waiter))
        try:
            await waiter
        finally:
            with self._lock:
                if self._waiting is not None:
                    self._waiting.remove((loop, waiter))


def resolve(future: "asyncio.Future[None]", error: BaseException | None = None) -> None:
    """Make a future done, unless whoever waits for it has been cancelled."""
    if future.done():
        return
    if isinstance(error, StopIteration):  # which no `await` can raise: as coroutines have it
        future.set_exception(RuntimeError("a callback raised StopIteration"))
    elif error is not None:
        future.set_exception(error)
    else:
        future.set_result(None)


def plain(function: object, result: T) -> T:
    """What a plain function has returned. TypeError if it is a coroutine function by mistake."""
    if asyncio.iscoroutine(result):
        result.close()
        raise TypeError(f"{function!r} must be a plain function, not a coroutine function")
    return result
