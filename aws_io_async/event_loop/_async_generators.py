"""Asynchronous generators: those that a loop runs, and closing them (PEP 525)."""

import asyncio
import warnings
import weakref
from collections.abc import AsyncGenerator
from typing import Any

from ._scheduler import Scheduler


class AsyncGenerators:
    """The asynchronous generators that were first iterated on a loop."""

    def __init__(self, loop: Scheduler) -> None:
        self._loop = loop
        self._alive: weakref.WeakSet[AsyncGenerator[Any, Any]] = weakref.WeakSet()
        self._shut_down = False

    def begun(self, generator: AsyncGenerator[Any, Any]) -> None:
        """The interpreter's hook for the first iteration. Thread: the loop's."""
        if self._shut_down:
            warnings.warn(
                f"asynchronous generator {generator!r} was scheduled after "
                "loop.shutdown_asyncgens() call",
                ResourceWarning,
                source=self._loop,
            )
        self._alive.add(generator)

    def abandoned(self, generator: AsyncGenerator[Any, Any], loop: Scheduler) -> None:
        """The interpreter's hook for one that is collected unfinished. Thread: any.

        `loop` is ours: collected together with it, we have lost ours by then.
        """
        self._alive.discard(generator)
        if not loop.is_closed() and not loop._forked:
            loop.call_soon_threadsafe(loop.create_task, generator.aclose())

    async def shutdown(self) -> None:
        """Close all of them; errors go to the exception handler."""
        self._shut_down = True
        closing = list(self._alive)
        self._alive.clear()
        results = await asyncio.gather(
            *(generator.aclose() for generator in closing), return_exceptions=True
        )
        for result, generator in zip(results, closing, strict=True):
            if isinstance(result, Exception):
                self._loop.call_exception_handler(
                    {
                        "message": "an error occurred during closing of asynchronous generator "
                        f"{generator!r}",
                        "exception": result,
                        "asyncgen": generator,
                    }
                )
