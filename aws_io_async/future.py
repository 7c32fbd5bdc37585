"""Results that cross threads and event loops: a `Promise` gives, a `Future` takes.

Theory of operation. Whoever does the work keeps the promise and hands its future to whoever wants
the result, on any thread, on any loop, or on none. The promise is resolved once, from anywhere.
The future then wakes everyone who waits: tasks by `call_soon_threadsafe` of their loops, threads by
a lock of their own, callbacks by a call or by way of the loop that they were registered for.

Lock discipline: there is no lock. A promise may be resolved by a signal handler, or by the garbage
collector that finds it dropped, and both may interrupt any line of this module on the same thread:
a lock could be held already, for good, by the very code that was interrupted. Two dicts do the
work, by single operations that are atomic with the GIL and on free-threaded builds:

- `_settled` holds the outcome. `setdefault` puts it there, so that of two that resolve the promise
  at once one wins and the other sees that it has lost.
- `_callbacks` holds what is to be run then. A registration puts its callback in and *then* looks
  for the outcome; the completion puts the outcome in and *then* looks for callbacks. So at least
  one of them sees the other's, and whoever takes the callback out by `pop` has to run it: once.

Nothing is changed in an outcome after it is there: it may be read by anybody.
"""

import asyncio
import threading
from asyncio.log import logger
from collections.abc import Callable, Generator
from contextvars import copy_context
from functools import partial
from typing import Any, Generic, NoReturn, Protocol, TypeVar

from . import errors
from ._plain_functions import check_plain_function

T = TypeVar("T")


class CallbackChannel(Protocol):
    """What a future asks of a channel: its loop, and to stay until the callback has run."""

    @property
    def loop(self) -> asyncio.AbstractEventLoop: ...

    def acquire_hold(self) -> object: ...

    def release_hold(self) -> object: ...


class _Result(Generic[T]):
    __slots__ = ("value",)

    def __init__(self, value: T) -> None:
        self.value = value

    def get(self) -> T:
        return self.value


class _Failure:
    """An exception, and the traceback that it came with: each `raise` adds to the exception's."""

    __slots__ = ("exception", "traceback")

    def __init__(self, exception: BaseException) -> None:
        self.exception = exception
        self.traceback = exception.__traceback__

    def get(self) -> NoReturn:
        try:
            raise self.exception.with_traceback(self.traceback)
        finally:
            del self  # else exception, traceback and this frame keep one another alive


class Future(Generic[T]):
    """A result that may not be there yet. Made by a `Promise`; `await` it, or `wait` for it.

    `await future` returns the result or raises the exception, in any number of tasks on any number
    of loops, as often as one likes; once the future is done it does not suspend. A task that is
    cancelled while it waits leaves the future and all others that wait as they are.

    Source: aws-c-io's `future.h`, where a future has one callback; here it has any number.
    Thread: any, for all methods.
    """

    __slots__ = ("__weakref__", "_callbacks", "_settled")

    def __init__(self) -> None:
        self._settled: dict[str, _Result[T] | _Failure] = {}
        self._callbacks: dict[object, Callable[[], object]] = {}

    def __repr__(self) -> str:
        outcome = self._settled.get("outcome")
        if outcome is None:
            return f"<{type(self).__name__} pending>"
        if isinstance(outcome, _Failure):
            return f"<{type(self).__name__} exception={outcome.exception!r}>"
        # Its type only: reprs go to logs, where what passes has no place.
        return f"<{type(self).__name__} with a result, {type(outcome.value).__name__}>"

    def done(self) -> bool:
        """Whether there is a result or an exception. It never becomes false again."""
        return bool(self._settled)

    def result(self) -> T:
        """The result.

        Raises the exception if there is one, each time with the traceback that it was set with,
        and `asyncio.InvalidStateError` if the future is not done.
        """
        try:
            return self._outcome().get()
        finally:
            del self  # as in `_Failure.get`

    def exception(self) -> BaseException | None:
        """The exception, or None if there is a result.

        Raises `asyncio.InvalidStateError` if the future is not done.
        """
        outcome = self._outcome()
        return outcome.exception if isinstance(outcome, _Failure) else None

    def _outcome(self) -> _Result[T] | _Failure:
        outcome = self._settled.get("outcome")
        if outcome is None:
            raise asyncio.InvalidStateError("the future is not done: await it, or wait() for it")
        return outcome

    def __await__(self) -> Generator[Any, None, T]:
        try:
            if not self._settled:
                yield from self._suspend()
            return self._outcome().get()
        finally:
            del self  # as in `_Failure.get`

    def _suspend(self) -> Generator[Any, None, None]:
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[None] = loop.create_future()
        key = object()
        if self._register(key, partial(_call_on, loop, _wake, waiter)):
            try:
                yield from waiter
            finally:
                self._callbacks.pop(key, None)

    def wait(self, timeout: float | None = None) -> bool:
        """Block the calling thread until the future is done. Thread: any that runs no event loop.

        `timeout`: seconds; None, or more than the system can wait, is for ever. Returns whether
        the future is done. Raises RuntimeError on a thread that runs an event loop, also if the
        future is done: `await` it there. Raises ValueError for a negative timeout or NaN.
        """
        if _runs_a_loop():
            raise RuntimeError("wait() would block the event loop of this thread: await the future")
        if timeout is not None and not timeout >= 0:
            raise ValueError(f"timeout must be 0 or more seconds, or None, not {timeout!r}")
        gate, key = threading.Lock(), object()
        gate.acquire()
        if not self._register(key, gate.release):
            return True
        try:
            return gate.acquire(
                timeout=-1 if timeout is None else min(timeout, threading.TIMEOUT_MAX)
            )
        finally:
            self._callbacks.pop(key, None)

    def register_callback(self, callback: "Callable[[Future[T]], object]") -> None:
        """Call `callback(future)` when the future is done, on the thread that completes it.

        If it is done already, the callback is called at once, here. What it raises is logged. It
        runs in the context that it was registered in. Callbacks are called in the order of their
        registration. Raises TypeError for a coroutine function and for what cannot be called, as
        all registrations do.
        """
        if not self.register_callback_if_not_done(callback):
            self._call(callback)

    def register_callback_if_not_done(self, callback: "Callable[[Future[T]], object]") -> bool:
        """As `register_callback`, but if the future is done, only return False.

        For callers to whom a call from within this one would do harm, by recursion or because of
        a lock they hold.
        """
        _check_callback(callback)
        return self._register(object(), partial(copy_context().run, self._call, callback))

    def register_event_loop_callback(
        self, loop: asyncio.AbstractEventLoop, callback: "Callable[[Future[T]], object]"
    ) -> None:
        """Call `callback(future)` on the thread of `loop` when the future is done.

        It is always scheduled, never called from within this call or within the one that resolves
        the promise. It runs in the context that it was registered in; what it raises goes to the
        loop's exception handler. If the loop is closed by then, it is not called. Raises
        RuntimeError if the loop is closed now.
        """
        _check_callback(callback)
        if loop.is_closed():
            raise RuntimeError("the event loop for the callback is closed")
        schedule = partial(_call_on, loop, callback, self, context=copy_context())
        if not self._register(object(), schedule):
            schedule()

    def register_channel_callback(
        self, channel: CallbackChannel, callback: "Callable[[Future[T]], object]"
    ) -> None:
        """Call `callback(future)` on the thread of `channel` when the future is done.

        As `register_event_loop_callback`. The channel is held from now on until the callback has
        been called, which it is also if the channel has been shut down by then.
        """
        _check_callback(callback)
        channel.acquire_hold()
        try:
            self.register_event_loop_callback(
                channel.loop, partial(_call_and_release, channel, callback)
            )
        except BaseException:
            channel.release_hold()
            raise

    def _call(self, callback: "Callable[[Future[T]], object]") -> None:
        try:
            callback(self)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException:  # CancelledError, too: it is not about whoever resolves the promise
            logger.exception("%r, registered for %r, raised", callback, self)

    def _register(self, key: object, callback: Callable[[], object]) -> bool:
        """Have `callback` called at completion; False if that was before, and it will not be."""
        self._callbacks[key] = callback
        if not self._settled:
            return True
        return self._callbacks.pop(key, None) is None  # None: the completion has taken it

    def _complete(self, outcome: _Result[T] | _Failure) -> bool:
        """Settle the future; False if it was settled before, and nothing has changed."""
        if self._settled.setdefault("outcome", outcome) is not outcome:
            return False
        self._run_callbacks()
        return True

    def _run_callbacks(self) -> None:
        """All of them, though one ends the program: nobody is to wait for ever because of that."""
        for key in list(self._callbacks):
            callback = self._callbacks.pop(key, None)
            if callback is None:
                continue
            try:
                callback()
            except BaseException:
                self._run_callbacks()
                raise


class Promise(Generic[T]):
    """The end of a `Future` that gives it its result.

        promise: Promise[int] = Promise()
        start_work(promise)
        return promise.future

    It is resolved once: what is set later is ignored, and let go. A promise that is dropped before
    it is resolved fails its future with `OperationCancelledError`, so that nobody waits for ever.

    Thread: any, for all methods. Also from signal handlers; callbacks of the future that were not
    registered for a loop are then called there.
    """

    __slots__ = ("__weakref__", "_future")

    def __init__(self) -> None:
        self._future: Future[T] = Future()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._future!r}>"

    @property
    def future(self) -> Future[T]:
        """The end to hand out. It does not keep the promise alive."""
        return self._future

    def set_result(self, result: T) -> bool:
        """Complete the future with `result`; None is one, too.

        Returns False, and changes nothing, if the promise had been resolved before.
        """
        return self._future._complete(_Result(result))

    def set_exception(self, exception: BaseException) -> bool:
        """Complete the future with an exception.

        Returns False, and changes nothing, if the promise had been resolved before. An
        `asyncio.CancelledError` becomes an `OperationCancelledError`: tasks that wait would take
        it for their own cancellation. Raises TypeError for what is no exception, and for
        StopIteration, which cannot pass through an `await`.
        """
        if not isinstance(exception, BaseException):
            raise TypeError(f"an exception is needed, not {exception!r}")
        if isinstance(exception, StopIteration):
            raise TypeError("StopIteration cannot be raised into a Future: use another exception")
        if isinstance(exception, asyncio.CancelledError):
            exception = errors.translate(exception, "whoever was to resolve the promise")
        return self._future._complete(_Failure(exception))

    def __del__(self) -> None:
        if not self._future.done():
            self.set_exception(
                errors.make(
                    errors.ErrorCode.ERROR_IO_OPERATION_CANCELLED,
                    "the promise was dropped before it was resolved",
                )
            )


def _runs_a_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _check_callback(callback: object) -> None:
    check_plain_function("a callback", callback, "let a task await the future")


def _call_on(
    loop: asyncio.AbstractEventLoop, callback: Callable[..., object], *args: Any, **kwargs: Any
) -> None:
    """`loop.call_soon_threadsafe`, and nothing if the loop is closed: nobody waits there."""
    try:
        loop.call_soon_threadsafe(callback, *args, **kwargs)
    except RuntimeError:
        if not loop.is_closed():
            raise


def _wake(waiter: "asyncio.Future[None]") -> None:
    if not waiter.done():  # else its task was cancelled meanwhile
        waiter.set_result(None)


def _call_and_release(
    channel: CallbackChannel, callback: Callable[[Future[T]], object], future: Future[T]
) -> None:
    try:
        callback(future)
    finally:
        channel.release_hold()
