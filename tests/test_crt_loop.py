"""aws-c-io's face of the loop: kinds of loops, the clock, local objects, whose thread it is."""

import asyncio
import selectors
import threading
from collections.abc import Iterator
from typing import Any

import pytest

import aws_io_async
from aws_io_async import EventLoop
from aws_io_async.errors import AwsIoError, ErrorCode
from aws_io_async.event_loop.group import EventLoopType
from aws_io_async.event_loop.tasks import Task, TaskStatus
from tests.crt_loops import (
    KINDS,
    Recorder,
    cancelled,
    collect_errors,
    open_ours,
    open_running,
    ran,
    run_on,
    run_until_idle,
)


@pytest.fixture(params=KINDS)
def loop(request: pytest.FixtureRequest) -> Iterator[EventLoop]:
    with open_ours(request.param) as loop:
        yield loop


@pytest.fixture(params=KINDS)
def running(request: pytest.FixtureRequest) -> Iterator[EventLoop]:
    with open_running(request.param) as loop:
        yield loop


class TestCreation:
    def works(self, type: EventLoopType) -> bool:
        """Whether a loop of this type can be made; then it also runs."""
        try:
            loop = type.new_loop()
        except NotImplementedError:
            return False
        loop.run()
        assert run_on(loop, loop.thread_is_callers_thread)
        loop.stop()
        loop.wait_for_stop_completion()
        loop.close()
        return True

    def test_event_loop_epoll_creation(self) -> None:
        assert self.works(EventLoopType.EPOLL) == hasattr(selectors, "EpollSelector")

    def test_event_loop_kqueue_creation(self) -> None:
        assert self.works(EventLoopType.KQUEUE) == hasattr(selectors, "KqueueSelector")

    def test_event_loop_iocp_creation(self) -> None:
        assert not self.works(EventLoopType.IOCP)

    def test_event_loop_dispatch_queue_creation(self) -> None:
        assert not self.works(EventLoopType.DISPATCH_QUEUE)

    def test_the_platform_s_default(self) -> None:
        assert self.works(EventLoopType.PLATFORM_DEFAULT)


class TestThread:
    def test_whose_thread_it_is(self, loop: EventLoop) -> None:
        async def inside() -> tuple[bool, bool]:
            elsewhere = asyncio.to_thread(loop.thread_is_callers_thread)
            return loop.thread_is_callers_thread(), await elsewhere

        assert not loop.thread_is_callers_thread()
        assert loop.run_until_complete(inside()) == (True, False)
        assert not loop.thread_is_callers_thread()
        loop.run_until_complete(loop.shutdown_default_executor())


class FakeClock:
    """Stands still until it is moved."""

    def __init__(self, now: int) -> None:
        self.now = now

    def __call__(self) -> int:
        return self.now


class TestClock:
    def test_both_faces_have_the_same_clock(self, loop: EventLoop) -> None:
        before = loop.time()
        now = loop.current_clock_time()
        assert isinstance(now, int)
        assert before - 1e-6 <= now / 1e9 <= loop.time() + 1e-6

    def test_from_any_thread(self, running: EventLoop) -> None:
        first = running.current_clock_time()
        second = run_on(running, running.current_clock_time)
        assert first <= second <= running.current_clock_time()

    @pytest.mark.parametrize("start", [0, 1, 10**9, 10**15])
    def test_another_clock_decides_when_tasks_and_timers_are_due(self, start: int) -> None:
        clock = FakeClock(start)
        loop = EventLoop(clock=clock)
        recorder, called = Recorder(), list[str]()
        assert loop.current_clock_time() == start
        assert loop.time() == start / 1e9
        tick = 1 if start < 10**9 else 1000  # a float has no more digits
        loop.schedule_task_future(recorder.task("task"), start + 2 * tick)
        loop.call_at((start + 2 * tick) / 1e9, called.append, "at")
        loop.call_later(2 * tick / 1e9, called.append, "later")
        for _ in range(2):
            run_until_idle(loop)
            assert (recorder.all(), called) == ([], [])
            clock.now += tick
        run_until_idle(loop)
        assert (recorder.all(), called) == (ran("task"), ["at", "later"])
        loop.close()

    def test_moving_it_and_waking_the_loop(self) -> None:
        clock = FakeClock(0)
        loop = EventLoop(clock=clock)
        recorder = Recorder()
        loop.run()
        loop.schedule_task_future(recorder.task("task"), 3600 * 10**9)
        run_on(loop, lambda: None)
        assert recorder.all() == []
        clock.now = 3600 * 10**9
        loop.call_soon_threadsafe(lambda: None)
        assert recorder.next() == ran("task")[0]
        loop.stop()
        loop.wait_for_stop_completion()
        loop.close()

    def test_the_loop_sleeps_until_then_by_its_own_clock(self) -> None:
        """And not by the real one, which is long past that time."""
        loop = EventLoop(clock=FakeClock(0))
        loop.run()
        loop.schedule_task_future(Task(lambda *_: None), 10**9)
        polls = run_on(loop, loop.statistics).polls
        threading.Event().wait(0.02)
        assert loop.statistics().polls <= polls + 2
        loop.stop()
        loop.wait_for_stop_completion()
        loop.close()

    def test_it_does_not_touch_the_statistics(self) -> None:
        loop = EventLoop(clock=FakeClock(0))
        loop.run_until_complete(asyncio.wait_for(asyncio.to_thread(lambda: None), None))
        loop.run_until_complete(loop.shutdown_default_executor())
        assert loop.statistics().running_seconds > 0
        loop.close()


class TestLocalObjects:
    def test_put_fetch_remove(self, loop: EventLoop) -> None:
        key, value = object(), object()
        loop.put_local_object(key, value)
        assert loop.fetch_local_object(key) is value
        assert loop.remove_local_object(key)
        assert not loop.remove_local_object(key)
        with pytest.raises(KeyError):
            loop.fetch_local_object(key)

    def test_each_loop_has_its_own(self, loop: EventLoop) -> None:
        other = EventLoop()
        loop.put_local_object("key", 1)
        other.put_local_object("key", 2)
        assert (loop.fetch_local_object("key"), other.fetch_local_object("key")) == (1, 2)
        other.close()

    def test_who_leaves_is_told_of_once(self, loop: EventLoop) -> None:
        left: list[str] = []
        for name in ("replaced", "removed"):
            loop.put_local_object("key", name, left.append)
        assert left == ["replaced"]
        loop.remove_local_object("key")
        assert left == ["replaced", "removed"]
        loop.put_local_object("key", "closed", left.append)
        loop.put_local_object("other", "silent")
        loop.close()
        assert left == ["replaced", "removed", "closed"]

    def test_a_callback_that_raises_at_close_is_reported(self, loop: EventLoop) -> None:
        errors, left = collect_errors(loop), list[int]()
        loop.put_local_object("good", 1, left.append)
        loop.put_local_object("bad", 0, lambda value: 1 / value)
        loop.close()
        assert left == [1]
        (context,) = errors
        assert isinstance(context["exception"], ZeroDivisionError)
        assert "'bad'" in context["message"]

    def test_at_close_they_go_after_the_tasks_on_the_loop_s_thread(self, loop: EventLoop) -> None:
        seen: list[Any] = []

        def in_task(task: Task, status: TaskStatus) -> None:
            seen.append((status, loop.fetch_local_object("key")))

        def on_removed(value: str) -> None:
            seen.append((value, loop.thread_is_callers_thread(), loop.is_closed()))

        loop.put_local_object("key", "value", on_removed)
        loop.schedule_task_now(Task(in_task))
        loop.close()
        assert seen == [(TaskStatus.CANCELED, "value"), ("value", True, False)]

    def test_on_a_wrong_thread_they_are_refused(self, running: EventLoop) -> None:
        run_on(running, running.put_local_object, "key", "value")
        attempts: list[Any] = [
            lambda: running.put_local_object("key", "other"),
            lambda: running.fetch_local_object("key"),
            lambda: running.remove_local_object("key"),
        ]
        for attempt in attempts:
            with pytest.raises(AwsIoError, match=threading.current_thread().name) as caught:
                attempt()
            assert caught.value.code is ErrorCode.ERROR_IO_EVENT_LOOP_THREAD_ONLY
        assert run_on(running, running.fetch_local_object, "key") == "value"

    def test_a_closed_loop_takes_none(self, loop: EventLoop) -> None:
        loop.close()
        with pytest.raises(RuntimeError, match="closed"):
            loop.put_local_object("key", "value")


class TestStillAsyncio:
    def test_a_loop_with_tasks_passes_for_asyncio_s(self) -> None:
        recorder = Recorder()

        async def main() -> str:
            loop = asyncio.get_running_loop()
            assert isinstance(loop, EventLoop)
            loop.schedule_task_now(recorder.task("now"))
            loop.schedule_task_future(recorder.task("never"), 10**18)
            await asyncio.sleep(0.001)
            return "done"

        assert aws_io_async.run(main()) == "done"
        assert recorder.all() == ran("now") + cancelled("never")
