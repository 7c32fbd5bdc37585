"""Callbacks of futures: called at once, on a loop, on a channel."""

import asyncio
import contextvars
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import pytest

from aws_io_async.channel import Channel
from aws_io_async.future import Future, Promise
from tests import loops
from tests.test_future import broken, in_thread, resolved

Loop = asyncio.AbstractEventLoop


class Recorder:
    """A callback that notes what it finds."""

    def __init__(self) -> None:
        self.futures: list[Future[int]] = []
        self.threads: list[threading.Thread] = []

    def __call__(self, future: Future[int]) -> None:
        self.futures.append(future)
        self.threads.append(threading.current_thread())


@contextmanager
def running(factory: loops.Factory) -> Iterator[tuple[Loop, threading.Thread]]:
    """A loop on a thread of its own; afterwards it has run all that it was given."""
    loop = factory()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield loop, thread
    finally:
        loop.call_soon_threadsafe(loop.call_soon, loop.stop)
        thread.join()
        loop.close()


@pytest.fixture(params=loops.FACTORIES)
def factory(request: pytest.FixtureRequest) -> loops.Factory:
    return loops.FACTORIES[request.param]


class TestCallback:
    def test_future_callback_fires_immediately(self) -> None:
        future, recorder = resolved(123), Recorder()
        future.register_callback(recorder)
        assert recorder.futures == [future]
        assert recorder.threads == [threading.current_thread()]

    def test_future_callback_fires_on_another_thread(self) -> None:
        promise: Promise[int] = Promise()
        recorder = Recorder()
        promise.future.register_callback(recorder)
        thread = in_thread(lambda: promise.set_result(987))
        thread.join()
        assert recorder.threads == [thread]
        assert recorder.futures[0].result() == 987

    def test_future_register_callback_if_not_done(self) -> None:
        recorder = Recorder()
        assert not resolved(555).register_callback_if_not_done(recorder)
        assert recorder.futures == []
        promise: Promise[int] = Promise()
        assert promise.future.register_callback_if_not_done(recorder)
        assert recorder.futures == []
        promise.set_result(555)
        assert recorder.futures == [promise.future]
        assert not promise.future.register_callback_if_not_done(recorder)
        assert len(recorder.futures) == 1

    def test_many_are_called_in_order_and_once(self) -> None:
        promise: Promise[int] = Promise()
        calls: list[int] = []

        def note(number: int, future: Future[int]) -> None:
            calls.append(number)

        for number in range(5):
            promise.future.register_callback(partial(note, number))
        promise.set_result(1)
        promise.set_result(2)
        assert calls == [0, 1, 2, 3, 4]

    def test_one_that_raises_is_logged_and_disturbs_nobody(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        promise: Promise[int] = Promise()
        recorder = Recorder()
        promise.future.register_callback(lambda _: broken())
        promise.future.register_callback(recorder)
        with caplog.at_level(logging.ERROR):
            assert promise.set_result(1)
            promise.future.register_callback(lambda _: broken())
        assert len(recorder.futures) == 1
        assert caplog.text.count("ZeroDivisionError: by broken()") == 2

    def test_nor_does_one_that_finds_something_cancelled(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        promise: Promise[int] = Promise()
        recorder = Recorder()

        def look_at_another(_: Future[int]) -> None:
            raise asyncio.CancelledError

        promise.future.register_callback(look_at_another)
        promise.future.register_callback(recorder)
        with caplog.at_level(logging.ERROR):
            assert promise.set_result(1)
            promise.future.register_callback(look_at_another)
        assert len(recorder.futures) == 1
        assert caplog.text.count("CancelledError") >= 2

    def test_one_that_ends_the_program_leaves_nobody_waiting(self) -> None:
        promise: Promise[int] = Promise()
        recorder = Recorder()
        ended: list[str] = []

        def end(why: str, _: Future[int]) -> None:
            ended.append(why)
            raise SystemExit(why)

        promise.future.register_callback(partial(end, "first"))
        promise.future.register_callback(partial(end, "second"))
        promise.future.register_callback(recorder)
        with pytest.raises(SystemExit):
            promise.set_result(1)
        assert ended == ["first", "second"]
        assert len(recorder.futures) == 1

    def test_what_cannot_be_called_is_refused_at_once(self) -> None:
        promise: Promise[int] = Promise()
        for register in (
            promise.future.register_callback,
            promise.future.register_callback_if_not_done,
        ):
            with pytest.raises(TypeError, match="callable, not None"):
                register(None)  # type: ignore[arg-type]  # that is the point
        assert promise.set_result(1)

    def test_it_runs_in_the_context_it_was_registered_in(self) -> None:
        user: contextvars.ContextVar[str] = contextvars.ContextVar("user", default="nobody")
        promise: Promise[int] = Promise()
        found: list[str] = []

        def register() -> None:
            user.set("alice")
            promise.future.register_callback(lambda _: found.append(user.get()))

        contextvars.Context().run(register)
        promise.set_result(1)
        assert found == ["alice"]

    def test_coroutine_functions_are_refused(self) -> None:
        async def callback(future: Future[int]) -> None: ...

        future, loop = resolved(1), asyncio.SelectorEventLoop()
        with pytest.raises(TypeError, match="let a task await"):
            future.register_callback(callback)
        with pytest.raises(TypeError, match="let a task await"):
            future.register_event_loop_callback(loop, callback)
        loop.close()

    @pytest.mark.usefixtures("restless")
    def test_registered_while_another_thread_resolves(self) -> None:
        for _ in range(50):
            promise: Promise[int] = Promise()
            recorders = [Recorder() for _ in range(20)]
            thread = in_thread(partial(promise.set_result, 1))
            for recorder in recorders:
                promise.future.register_callback(recorder)
            thread.join()
            assert [len(recorder.futures) for recorder in recorders] == [1] * 20


class TestEventLoopCallback:
    def test_future_register_event_loop_callback_after_done(self, factory: loops.Factory) -> None:
        future, recorder = resolved(765), Recorder()
        with running(factory) as (loop, thread):
            future.register_event_loop_callback(loop, recorder)
        assert recorder.futures == [future]
        assert recorder.threads == [thread]

    def test_future_register_event_loop_callback_before_done(self, factory: loops.Factory) -> None:
        promise: Promise[int] = Promise()
        recorder = Recorder()
        with running(factory) as (loop, thread):
            promise.future.register_event_loop_callback(loop, recorder)
            promise.set_result(765)
        assert recorder.threads == [thread]
        assert recorder.futures[0].result() == 765

    def test_future_register_event_loop_callback_always_scheduled(
        self, factory: loops.Factory
    ) -> None:
        promise: Promise[int] = Promise()
        recorder, called_within = Recorder(), []

        def resolve() -> None:
            promise.set_result(1234567)
            called_within.append(bool(recorder.futures))

        with running(factory) as (loop, thread):
            promise.future.register_event_loop_callback(loop, recorder)
            loop.call_soon_threadsafe(resolve)
        assert called_within == [False]
        assert recorder.threads == [thread]

    def test_a_loop_that_is_closed_by_then_is_passed_over(self, factory: loops.Factory) -> None:
        promise: Promise[int] = Promise()
        recorder, other = Recorder(), Recorder()
        loop = factory()
        promise.future.register_event_loop_callback(loop, recorder)
        promise.future.register_callback(other)
        loop.close()
        assert promise.set_result(1)
        assert recorder.futures == []
        assert len(other.futures) == 1

    def test_a_loop_that_is_closed_already_is_refused(self, factory: loops.Factory) -> None:
        loop = factory()
        loop.close()
        with pytest.raises(RuntimeError, match="closed"):
            resolved(1).register_event_loop_callback(loop, Recorder())


class TestChannelCallback:
    async def test_future_register_channel_callback(self) -> None:
        channel = await Channel.open()
        future, called = resolved(234567), asyncio.Event()
        recorder = Recorder()

        def callback(future: Future[int]) -> None:
            recorder(future)
            called.set()

        future.register_channel_callback(channel, callback)
        assert recorder.futures == []
        await called.wait()
        assert recorder.futures == [future]
        assert recorder.threads == [threading.current_thread()]
        channel.shutdown()
        await channel.wait_closed()

    async def test_it_is_called_also_if_the_channel_has_shut_down(self) -> None:
        channel = await Channel.open()
        promise: Promise[int] = Promise()
        called = asyncio.Event()
        promise.future.register_channel_callback(channel, lambda _: called.set())
        channel.shutdown()
        await channel.wait_closed()
        in_thread(lambda: promise.set_result(1)).join()
        await called.wait()
        with pytest.raises(RuntimeError):  # the hold has been given back
            channel.release_hold()
