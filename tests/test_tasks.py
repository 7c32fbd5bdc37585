"""Tasks: when they run, in which order, and from which threads they can be scheduled."""

import contextvars
import functools
import gc
import sys
import threading
import weakref
from collections.abc import Callable, Iterator

import pytest

from aws_io_async import EventLoop
from aws_io_async.event_loop.tasks import Task, TaskStatus
from tests.crt_loops import (
    KINDS,
    PATIENCE,
    Recorder,
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


class TestTask:
    def test_its_function_gets_the_task_and_a_status(self, loop: EventLoop) -> None:
        calls: list[tuple[Task, TaskStatus]] = []
        task = Task(lambda *args: calls.append(args))
        loop.schedule_task_now(task)
        run_until_idle(loop)
        assert calls == [(task, TaskStatus.RUN_READY)]

    def test_what_is_no_plain_function_is_refused(self) -> None:
        async def coroutine_function(task: Task, status: TaskStatus) -> None: ...

        for function in (coroutine_function, functools.partial(coroutine_function), None, "f"):
            with pytest.raises(TypeError):
                Task(function)  # type: ignore[arg-type]  # on purpose

    def test_its_repr_tells_name_and_state(self, loop: EventLoop) -> None:
        def flush(task: Task, status: TaskStatus) -> None: ...

        task = Task(flush, "connection 7")
        assert repr(task) == "<Task connection 7>"
        assert "flush" in repr(Task(flush))
        loop.schedule_task_now(task)
        assert repr(task) == "<Task connection 7 pending>"

    def test_pending_until_its_function_is_called(
        self, loop: EventLoop, recorder: Recorder
    ) -> None:
        task = Task(lambda task, status: recorder.notes.put(task.pending))
        recorder.notes.put(task.pending)
        loop.schedule_task_now(task)
        recorder.notes.put(task.pending)
        run_until_idle(loop)
        assert recorder.all() == [False, True, False]

    def test_it_may_schedule_itself_again(self, loop: EventLoop) -> None:
        count = 0

        def again(task: Task, status: TaskStatus) -> None:
            nonlocal count
            count += 1
            if count < 3:
                loop.schedule_task_now(task)

        loop.schedule_task_now(Task(again))
        run_until_idle(loop)
        assert count == 3

    def test_nothing_keeps_it_when_it_has_run(self, loop: EventLoop) -> None:
        task = Task(lambda task, status: None)
        alive = weakref.ref(task)
        loop.schedule_task_now(task)
        run_until_idle(loop)
        del task
        gc.collect()
        assert alive() is None


class TestScheduling:
    def test_it_runs_in_the_context_of_who_scheduled_it(
        self, loop: EventLoop, recorder: Recorder
    ) -> None:
        variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="none")
        schedules: list[Callable[[Task], None]] = [
            loop.schedule_task_now,
            loop.schedule_task_now_serialized,
            lambda task: loop.schedule_task_future(task, 0),
        ]
        for n, schedule in enumerate(schedules):
            context = contextvars.copy_context()
            context.run(variable.set, f"of {n}")
            context.run(schedule, Task(lambda *_: recorder.notes.put(variable.get())))
        run_until_idle(loop)
        assert sorted(recorder.all()) == ["of 0", "of 1", "of 2"]

    def test_what_was_scheduled_before_the_loop_runs_runs_then(
        self, loop: EventLoop, recorder: Recorder
    ) -> None:
        loop.schedule_task_now(recorder.task("now"))
        loop.schedule_task_now_serialized(recorder.task("serialized"))
        loop.schedule_task_future(recorder.task("future"), loop.current_clock_time())
        run_until_idle(loop)
        assert sorted(recorder.all()) == ran("future", "now", "serialized")

    def test_future_tasks_run_in_the_order_of_their_times(
        self, loop: EventLoop, recorder: Recorder
    ) -> None:
        now = loop.current_clock_time()
        for name, delay in (("c", 3_000_000), ("a", -SECOND), ("b", 2_000_000)):
            loop.schedule_task_future(recorder.task(name), now + delay)
        last = Task(lambda task, status: loop.stop())
        loop.schedule_task_future(last, now + 4_000_000)
        loop.run_forever()
        assert recorder.all() == ran("a", "b", "c")
        assert loop.current_clock_time() >= now + 4_000_000

    def test_a_task_in_the_far_future_does_not_run(
        self, running: EventLoop, recorder: Recorder
    ) -> None:
        running.schedule_task_future(
            recorder.task("far"), running.current_clock_time() + 1000 * SECOND
        )
        run_on(running, lambda: None)
        assert recorder.all() == []

    def test_one_from_another_thread_comes_before_a_timer_that_is_later(
        self, running: EventLoop, recorder: Recorder
    ) -> None:
        later = running.current_clock_time() + 1000 * SECOND
        run_on(running, running.schedule_task_future, recorder.task("later"), later)
        running.schedule_task_future(recorder.task("sooner"), running.current_clock_time() + 1000)
        assert recorder.next() == ran("sooner")[0]

    def test_twice_is_refused_while_it_is_pending(
        self, loop: EventLoop, recorder: Recorder
    ) -> None:
        task = recorder.task("once")
        loop.schedule_task_now(task)
        other = EventLoop()
        for schedule in (
            loop.schedule_task_now,
            loop.schedule_task_now_serialized,
            lambda task: loop.schedule_task_future(task, 0),
            other.schedule_task_now,
        ):
            with pytest.raises(RuntimeError, match="scheduled already"):
                schedule(task)
        other.close()
        run_until_idle(loop)
        assert recorder.all() == ran("once")

    @pytest.mark.parametrize("status", TaskStatus)
    def test_one_that_raises_is_reported_and_stops_no_other(
        self, loop: EventLoop, recorder: Recorder, status: TaskStatus
    ) -> None:
        errors = collect_errors(loop)

        def fail(task: Task, status: TaskStatus) -> None:
            raise LookupError("on purpose")

        task = Task(fail, "bad")
        loop.schedule_task_now(task)
        loop.schedule_task_now(recorder.task("good"))
        if status is TaskStatus.CANCELED:
            loop.cancel_task(task)
        run_until_idle(loop)
        assert recorder.all() == ran("good")
        (context,) = errors
        assert isinstance(context["exception"], LookupError)
        assert "bad" in context["message"]
        assert status.name in context["message"]

    def test_system_exit_leaves_the_loop_and_the_others_keep_their_turn(
        self, loop: EventLoop, recorder: Recorder
    ) -> None:
        loop.schedule_task_now(Task(lambda *_: sys.exit(3)))
        loop.schedule_task_now(recorder.task("next"))
        with pytest.raises(SystemExit):
            loop.run_forever()
        run_until_idle(loop)
        assert recorder.all() == ran("next")

    def test_in_debug_mode_too(self, loop: EventLoop, recorder: Recorder) -> None:
        loop.set_debug(True)
        loop.schedule_task_now(recorder.task("a"))
        loop.schedule_task_now_serialized(recorder.task("b"))
        loop.schedule_task_future(recorder.task("c"), 0)
        run_until_idle(loop)
        assert sorted(recorder.all()) == ran("a", "b", "c")


class TestFromOtherThreads:
    def test_event_loop_xthread_scheduled_tasks_execute(
        self, running: EventLoop, recorder: Recorder
    ) -> None:
        task = Task(lambda task, status: recorder.notes.put((status, threading.get_ident())))
        schedules: list[Callable[[Task], None]] = [
            lambda task: running.schedule_task_future(task, running.current_clock_time()),
            running.schedule_task_now,
            running.schedule_task_now_serialized,
        ]
        for schedule in schedules:
            schedule(task)
            status, thread = recorder.next()
            assert status is TaskStatus.RUN_READY
            assert thread != threading.get_ident()

    @pytest.mark.parametrize("running", KINDS[:1], indirect=True)
    def test_of_two_threads_that_schedule_the_same_task_one_succeeds(
        self, running: EventLoop
    ) -> None:
        counted, succeeded, refused = [0], [0] * 4, [0] * 4

        def count(task: Task, status: TaskStatus) -> None:
            counted[0] += 1  # on the loop's thread only

        task = Task(count)

        def hammer(n: int) -> None:
            for _ in range(2000):
                try:
                    running.schedule_task_now(task)
                    succeeded[n] += 1
                except RuntimeError:
                    refused[n] += 1

        threads = [threading.Thread(target=hammer, args=(n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        while task.pending:
            run_on(running, lambda: None)
        assert counted[0] == sum(succeeded)
        assert sum(succeeded) + sum(refused) == 8000

    def test_serialized_ones_keep_their_order_over_the_threads(self, running: EventLoop) -> None:
        """Scheduled in turn by the loop and by a thread, each waiting for the other's call."""
        order: list[str] = []

        def on_loop() -> None:
            for n in range(100):
                names = f"thread {n}", f"loop {n}"
                thread = threading.Thread(target=schedule, args=names[:1])
                thread.start()
                thread.join()
                schedule(names[1])

        def schedule(name: str) -> None:
            task = Task(lambda task, status: order.append(name))
            running.schedule_task_now_serialized(task)

        run_on(running, on_loop)
        run_on(running, lambda: None)
        assert order == [name for n in range(100) for name in (f"thread {n}", f"loop {n}")]

    @pytest.mark.parametrize("running", KINDS[:1], indirect=True)
    def test_event_loop_serialized_scheduling(self, running: EventLoop) -> None:
        """Two threads, the loop's and another one, schedule as fast as they can."""
        lock, done = threading.Lock(), threading.Event()
        submitted, executed = [0], list[int]()
        total = 20_000

        def submit_one() -> bool:
            with lock:
                number = submitted[0]
                if number >= total:
                    return False
                submitted[0] += 1
                running.schedule_task_now_serialized(
                    Task(lambda task, status: executed.append(number))
                )
                return True

        by_thread, by_loop = [0], [0]

        def on_thread() -> None:
            while submit_one():
                by_thread[0] += 1

        def on_loop(task: Task, status: TaskStatus) -> None:
            for _ in range(200):
                if not submit_one():
                    done.set()
                    return
                by_loop[0] += 1
            running.schedule_task_now(task)

        interval = sys.getswitchinterval()
        sys.setswitchinterval(1e-5)
        try:
            running.schedule_task_now(Task(on_loop))
            thread = threading.Thread(target=on_thread)
            thread.start()
            assert done.wait(PATIENCE)
            thread.join()
        finally:
            sys.setswitchinterval(interval)
        last = threading.Event()
        running.schedule_task_now_serialized(Task(lambda task, status: last.set()))
        assert last.wait(PATIENCE)
        assert executed == list(range(total))
        assert by_thread[0] > 0
        assert by_loop[0] > 0
