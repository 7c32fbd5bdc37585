"""The default executor: threads for `run_in_executor` and `asyncio.to_thread`."""

import asyncio
import threading
import warnings
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Any

from ._scheduler import Scheduler


class DefaultExecutor:
    """Made at first use, shut down once. Thread: the loop's."""

    def __init__(self, loop: Scheduler) -> None:
        self._loop = loop
        self._executor: ThreadPoolExecutor | None = None
        self._shut_down = False

    def set(self, executor: Any) -> None:
        """Use another one; TypeError unless it is a ThreadPoolExecutor."""
        if not isinstance(executor, ThreadPoolExecutor):
            raise TypeError("executor must be ThreadPoolExecutor instance")
        self._executor = executor

    def run(
        self, executor: Executor | None, function: Callable[..., Any], args: tuple[Any, ...]
    ) -> "asyncio.Future[Any]":
        """Submit to `executor`, or to the default one; RuntimeError once that is shut down."""
        if executor is None:
            if self._shut_down:
                raise RuntimeError("Executor shutdown has been called")
            if self._executor is None:
                self._executor = ThreadPoolExecutor(thread_name_prefix="asyncio")
            executor = self._executor
        return asyncio.wrap_future(executor.submit(function, *args), loop=self._loop)

    async def shutdown(self, timeout: float | None) -> None:
        """Wait for its threads to end, `timeout` seconds at most; RuntimeWarning if they don't.

        Cancelled, it leaves the threads to end by themselves.
        """
        self._shut_down = True
        if self._executor is None:
            return
        ended: asyncio.Future[None] = self._loop.create_future()
        thread = threading.Thread(target=self._join, args=(self._executor, ended))
        thread.start()
        try:
            async with asyncio.timeout(timeout):
                await ended
        except TimeoutError:
            warnings.warn(
                f"The executor did not finishing joining its threads within {timeout} seconds.",
                RuntimeWarning,
                stacklevel=2,
            )
            self._executor.shutdown(wait=False)
        else:
            thread.join()

    def _join(self, executor: ThreadPoolExecutor, ended: "asyncio.Future[None]") -> None:
        failure = None
        try:
            executor.shutdown(wait=True)
        except Exception as exc:  # from a subclass
            failure = exc
        try:
            self._loop.call_soon_threadsafe(_end_unless_done, ended, failure)
        except RuntimeError:  # the loop was closed before its executor ended
            pass

    def close(self) -> None:
        """Tell its threads to end, without waiting for them."""
        self._shut_down = True
        executor, self._executor = self._executor, None
        if executor is not None:
            executor.shutdown(wait=False)


def _end_unless_done(future: "asyncio.Future[None]", failure: Exception | None) -> None:
    if future.done():
        return
    if failure is None:
        future.set_result(None)
    else:
        future.set_exception(failure)
