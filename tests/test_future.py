"""Promises and futures: results, exceptions, and threads that wait.

Tasks that wait are the subject of test_future_awaiting, callbacks of test_future_callbacks, and
interruptions of test_future_reentry.
"""

import asyncio
import gc
import signal
import threading
import traceback
import weakref
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from aws_io_async.errors import AwsIoError, ErrorCode, OperationCancelledError
from aws_io_async.future import Future, Promise

FOREVER = 2**64 / 1e9
"""Seconds: the longest wait that aws-c-io can be asked for."""


class Thing:
    """Something whose end can be seen."""


def resolved(value: int) -> Future[int]:
    promise: Promise[int] = Promise()
    promise.set_result(value)
    return promise.future


def in_thread(target: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=target)
    thread.start()
    return thread


def broken() -> None:
    raise ZeroDivisionError("by broken()")


def caught(function: Callable[[], object]) -> Exception:
    try:
        function()
    except Exception as exc:
        return exc
    raise AssertionError("nothing was raised")


class TestResult:
    def test_future_by_value(self) -> None:
        promise: Promise[bool] = Promise()
        future = promise.future
        assert not future.done()
        assert promise.set_result(True)
        assert future.done()
        assert future.exception() is None
        assert future.result() is True
        assert future.result() is True

    def test_future_void(self) -> None:
        promise: Promise[None] = Promise()
        promise.set_result(None)
        assert promise.future.done()
        assert promise.future.exception() is None

    def test_future_by_pointer_accepts_null_result(self) -> None:
        promise: Promise[Thing | None] = Promise()
        assert promise.set_result(None)
        assert promise.future.result() is None
        assert not promise.set_result(Thing())
        assert promise.future.result() is None

    def test_future_pointer_with_destroy(self) -> None:
        promise: Promise[Thing] = Promise()
        future, thing = promise.future, Thing()
        dead = weakref.ref(thing)
        promise.set_result(thing)
        assert future.result() is thing
        del thing, promise
        assert dead() is not None
        del future
        assert dead() is None

    def test_future_pointer_with_release(self) -> None:
        promise: Promise[Thing] = Promise()
        future, thing = promise.future, Thing()
        dead = weakref.ref(thing)
        promise.set_result(thing)
        del thing, future
        assert dead() is not None
        del promise
        assert dead() is None

    def test_future_get_result_by_move(self) -> None:
        promise: Promise[Thing] = Promise()
        promise.set_result(Thing())
        taken = promise.future.result()
        dead = weakref.ref(taken)
        del promise
        assert dead() is taken
        del taken
        assert dead() is None

    def test_future_set_multiple_times(self) -> None:
        promise: Promise[Thing] = Promise()
        first, second = Thing(), Thing()
        assert promise.set_result(first)
        let_go = weakref.ref(second)
        assert not promise.set_result(second)
        del second
        assert let_go() is None
        assert not promise.set_exception(OSError())
        assert promise.future.result() is first
        assert promise.future.exception() is None

    def test_a_result_before_its_time(self) -> None:
        promise: Promise[int] = Promise()
        with pytest.raises(asyncio.InvalidStateError, match="await it"):
            promise.future.result()
        with pytest.raises(asyncio.InvalidStateError, match="await it"):
            promise.future.exception()

    def test_they_say_how_they_stand(self) -> None:
        promise: Promise[int] = Promise()
        assert "pending" in repr(promise.future)
        assert "pending" in repr(promise)
        promise.set_result(17)
        assert "with a result, int" in repr(promise.future)
        other: Promise[int] = Promise()
        other.set_exception(OSError("gone"))
        assert "OSError('gone')" in repr(other.future)

    @pytest.mark.usefixtures("restless")
    def test_of_many_threads_one_sets_the_result(self) -> None:
        def compete(
            promise: Promise[int], number: int, start: threading.Barrier, won: list[int]
        ) -> None:
            start.wait()
            if promise.set_result(number):
                won.append(number)

        for _ in range(50):
            promise: Promise[int] = Promise()
            start = threading.Barrier(4)
            won: list[int] = []
            threads = [in_thread(partial(compete, promise, n, start, won)) for n in range(4)]
            for thread in threads:
                thread.join()
            assert won == [promise.future.result()]


class TestException:
    def test_future_set_error(self) -> None:
        promise: Promise[Thing] = Promise()
        error = AwsIoError(ErrorCode.IO_SOCKET_CLOSED)
        assert promise.set_exception(error)
        assert promise.future.done()
        assert promise.future.exception() is error
        assert not promise.set_exception(OSError("later"))
        assert promise.future.exception() is error
        thing = Thing()
        let_go = weakref.ref(thing)
        assert not promise.set_result(thing)
        del thing
        assert let_go() is None
        with pytest.raises(AwsIoError) as info:
            promise.future.result()
        assert info.value is error

    def test_each_time_it_is_raised_with_its_own_traceback(self) -> None:
        promise: Promise[int] = Promise()
        promise.set_exception(caught(broken))
        shown = [
            [frame.name for frame in traceback.extract_tb(caught(raiser).__traceback__)]
            for raiser in [promise.future.result] * 3
        ]
        assert shown[0][-1] == "broken"
        assert shown[0] == shown[1] == shown[2]

    def test_nothing_is_kept_alive_by_its_frames(self) -> None:
        class OwnError(Exception):
            pass

        promise: Promise[int] = Promise()
        promise.set_exception(OwnError())
        gc.disable()
        try:
            try:
                promise.future.result()
            except OwnError as exc:
                dead = weakref.ref(exc)
            del promise
            assert dead() is None
        finally:
            gc.enable()

    def test_cancellation_becomes_an_error(self) -> None:
        promise: Promise[int] = Promise()
        cancelled = asyncio.CancelledError()
        promise.set_exception(cancelled)
        error = promise.future.exception()
        assert isinstance(error, OperationCancelledError)
        assert error.__cause__ is cancelled

    @pytest.mark.parametrize("wrong", [OSError, "gone", None, StopIteration()])
    def test_what_cannot_be_raised_is_refused(self, wrong: Any) -> None:
        promise: Promise[int] = Promise()
        with pytest.raises(TypeError):
            promise.set_exception(wrong)
        assert not promise.future.done()


class TestDroppedPromise:
    def test_future_can_die_incomplete(self) -> None:
        promise: Promise[Thing] = Promise()
        future = promise.future
        dead = weakref.ref(future)
        del future, promise
        assert dead() is None

    def test_its_future_fails(self) -> None:
        promise: Promise[int] = Promise()
        future, called = promise.future, list[Future[int]]()
        future.register_callback(called.append)
        del promise
        assert called == [future]
        with pytest.raises(OperationCancelledError, match="dropped before it was resolved"):
            future.result()

    def test_a_resolved_one_leaves_its_result(self) -> None:
        assert resolved(5).result() == 5


class TestWait:
    def test_future_wait_timeout(self) -> None:
        promise: Promise[None] = Promise()
        assert not promise.future.wait(0.01)
        assert not promise.future.wait(0)

    def test_future_wait_timeout_max(self) -> None:
        promise: Promise[int] = Promise()
        thread = in_thread(lambda: promise.set_result(1))
        assert promise.future.wait(FOREVER)
        thread.join()
        assert promise.future.wait(FOREVER)
        assert promise.future.wait(0)

    def test_any_number_of_threads(self) -> None:
        promise: Promise[str] = Promise()
        future, results = promise.future, []

        def wait() -> None:
            assert future.wait()
            results.append(future.result())

        threads = [in_thread(wait) for _ in range(5)]
        promise.set_result("here")
        for thread in threads:
            thread.join()
        assert results == ["here"] * 5

    def test_a_dropped_promise_ends_it(self) -> None:
        promises: list[Promise[int]] = [Promise()]
        future = promises[0].future
        thread = in_thread(promises.clear)
        assert future.wait()
        thread.join()
        assert isinstance(future.exception(), OperationCancelledError)

    def test_a_signal_handler_may_end_it(self) -> None:
        promise: Promise[int] = Promise()
        before = signal.signal(signal.SIGALRM, lambda *_: promise.set_result(14))
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.01)
            assert promise.future.wait()
        finally:
            signal.signal(signal.SIGALRM, before)
        assert promise.future.result() == 14

    @pytest.mark.parametrize("timeout", [-1, float("nan")])
    def test_a_timeout_that_makes_no_sense(self, timeout: float) -> None:
        with pytest.raises(ValueError, match="timeout"):
            resolved(1).wait(timeout)

    async def test_it_is_refused_on_a_thread_that_runs_a_loop(self) -> None:
        promise: Promise[int] = Promise()
        with pytest.raises(RuntimeError, match="await the future"):
            promise.future.wait(1)
        promise.set_result(1)
        with pytest.raises(RuntimeError, match="await the future"):
            promise.future.wait()
