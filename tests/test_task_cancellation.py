"""Tasks that are cancelled, one by one or with their loop: each is told, exactly once."""

import threading
from collections.abc import Iterator

import pytest

from aws_io_async import EventLoop
from aws_io_async.errors import AwsIoError, ErrorCode
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

SECOND = 10**9


@pytest.fixture(params=KINDS)
def loop(request: pytest.FixtureRequest) -> Iterator[EventLoop]:
    with open_ours(request.param) as loop:
        yield loop


@pytest.fixture(params=KINDS)
def running(request: pytest.FixtureRequest) -> Iterator[EventLoop]:
    with open_running(request.param) as loop:
        yield loop


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


class TestCancel:
    def test_its_function_is_called_at_once(self, loop: EventLoop, recorder: Recorder) -> None:
        now, later = recorder.task("now"), recorder.task("later")
        serialized = recorder.task("serialized")
        loop.schedule_task_now(now)
        loop.schedule_task_now_serialized(serialized)
        loop.schedule_task_future(later, loop.current_clock_time() + 1000 * SECOND)
        for task in (later, now, serialized):
            loop.cancel_task(task)
        assert recorder.all() == cancelled("later", "now", "serialized")
        run_until_idle(loop)
        assert recorder.all() == []

    def test_on_the_loop_s_thread(self, running: EventLoop, recorder: Recorder) -> None:
        task = recorder.task("task")
        running.schedule_task_future(task, running.current_clock_time() + 1000 * SECOND)
        run_on(running, lambda: None)  # the timer has been started by now
        assert running.statistics().timers == 1
        run_on(running, running.cancel_task, task)
        assert recorder.all() == cancelled("task")

    def test_elsewhere_it_is_refused(self, running: EventLoop, recorder: Recorder) -> None:
        task = recorder.task("task")
        running.schedule_task_future(task, running.current_clock_time() + 1000 * SECOND)
        with pytest.raises(AwsIoError) as caught:
            running.cancel_task(task)
        assert caught.value.code is ErrorCode.ERROR_IO_EVENT_LOOP_THREAD_ONLY
        assert "cancel_task" in str(caught.value)
        assert task.pending
        assert recorder.all() == []

    def test_scheduled_again_it_runs_once(self, loop: EventLoop, recorder: Recorder) -> None:
        task = recorder.task("task")
        loop.schedule_task_now(task)
        loop.cancel_task(task)
        loop.schedule_task_now(task)
        run_until_idle(loop)
        assert recorder.all() == cancelled("task") + ran("task")

    def test_what_was_cancelled_does_not_run_what_is_scheduled_next(
        self, loop: EventLoop, recorder: Recorder
    ) -> None:
        task, now = recorder.task("task"), loop.current_clock_time()
        loop.schedule_task_now(task)
        loop.cancel_task(task)
        loop.schedule_task_future(task, now)
        loop.cancel_task(task)
        loop.schedule_task_future(task, now + 1000 * SECOND)
        run_until_idle(loop)
        assert recorder.all() == cancelled("task", "task")

    def test_the_timers_of_what_was_cancelled_do_not_pile_up(self, running: EventLoop) -> None:
        def schedule_and_cancel() -> None:
            task = Task(lambda task, status: None)
            for _ in range(1000):
                running.schedule_task_future(task, running.current_clock_time() + 1000 * SECOND)
                running.cancel_task(task)

        run_on(running, schedule_and_cancel)
        assert running.statistics().timers < 200

    def test_what_is_not_pending_is_refused(self, loop: EventLoop, recorder: Recorder) -> None:
        task = recorder.task("task")
        with pytest.raises(RuntimeError, match="not pending"):
            loop.cancel_task(task)
        loop.schedule_task_now(task)
        run_until_idle(loop)
        with pytest.raises(RuntimeError, match="not pending"):
            loop.cancel_task(task)
        assert recorder.all() == ran("task")

    def test_that_of_another_loop_is_refused(self, loop: EventLoop, recorder: Recorder) -> None:
        other, task = EventLoop(), recorder.task("task")
        other.schedule_task_now(task)
        with pytest.raises(RuntimeError, match="on this event loop"):
            loop.cancel_task(task)
        assert task.pending
        other.close()


class TestClose:
    def test_event_loop_canceled_tasks_run_in_el_thread(self, recorder: Recorder) -> None:
        loop = EventLoop()
        loop.run()

        def note(task: Task, status: TaskStatus) -> None:
            in_thread = loop.thread_is_callers_thread()
            recorder.notes.put((task.name, status, in_thread, threading.get_ident()))

        loop.schedule_task_now(Task(note, "now"))
        loop.schedule_task_future(Task(note, "later"), loop.current_clock_time() + 1000 * SECOND)
        assert not loop.thread_is_callers_thread()
        name, status, in_thread, thread = recorder.next()
        assert (name, status, in_thread) == ("now", TaskStatus.RUN_READY, True)
        assert thread != threading.get_ident()
        loop.stop()
        loop.wait_for_stop_completion()
        assert recorder.all() == []
        loop.close()
        later = ("later", TaskStatus.CANCELED, True, threading.get_ident())
        assert recorder.all() == [later]
        assert not loop.thread_is_callers_thread()

    def test_all_that_is_pending_is_cancelled_in_order(
        self, loop: EventLoop, recorder: Recorder
    ) -> None:
        loop.schedule_task_future(recorder.task("a"), loop.current_clock_time())
        loop.schedule_task_now_serialized(recorder.task("b"))
        loop.schedule_task_now(recorder.task("c"))
        loop.close()
        assert recorder.all() == cancelled("a", "b", "c")
        loop.close()
        assert recorder.all() == []

    def test_tasks_wait_from_one_run_to_the_next(self, loop: EventLoop, recorder: Recorder) -> None:
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.schedule_task_now(recorder.task("task"))
        assert recorder.all() == []
        loop.run_until_complete(loop.shutdown_asyncgens())
        assert recorder.all() == ran("task")

    def test_a_cancelled_task_can_cancel_others(self, loop: EventLoop, recorder: Recorder) -> None:
        other = recorder.task("other")
        loop.schedule_task_now(Task(lambda *_: loop.cancel_task(other)))
        loop.schedule_task_now(other)
        loop.close()
        assert recorder.all() == cancelled("other")

    def test_what_cancelled_tasks_schedule_is_cancelled_too(
        self, loop: EventLoop, recorder: Recorder
    ) -> None:
        loop.schedule_task_now(Task(lambda *_: loop.schedule_task_now(recorder.task("next"))))
        loop.close()
        assert recorder.all() == cancelled("next")

    def test_a_chain_without_end_is_cut_off(self, loop: EventLoop) -> None:
        errors, calls = collect_errors(loop), list[TaskStatus]()

        def again(task: Task, status: TaskStatus) -> None:
            calls.append(status)
            loop.schedule_task_now(task)

        task = Task(again)
        loop.schedule_task_now(task)
        loop.close()
        assert set(calls) == {TaskStatus.CANCELED}
        (context,) = errors
        assert "closed" in str(context["exception"])
        assert not task.pending

    def test_one_that_raises_does_not_keep_the_loop_open(
        self, loop: EventLoop, recorder: Recorder
    ) -> None:
        errors = collect_errors(loop)
        loop.schedule_task_now(Task(lambda *_: 1 / 0))
        loop.schedule_task_now(recorder.task("next"))
        loop.close()
        assert loop.is_closed()
        assert isinstance(errors[0]["exception"], ZeroDivisionError)
        assert recorder.all() == cancelled("next")

    def test_a_closed_loop_takes_no_task(self, loop: EventLoop, recorder: Recorder) -> None:
        loop.close()
        task = recorder.task("task")
        for schedule in (
            loop.schedule_task_now,
            loop.schedule_task_now_serialized,
            lambda task: loop.schedule_task_future(task, 0),
        ):
            with pytest.raises(RuntimeError, match="closed"):
                schedule(task)
            assert not task.pending
