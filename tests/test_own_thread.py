"""`run()`, `stop()` and `wait_for_stop_completion()`: a loop on a thread of its own."""

import asyncio
import contextvars
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator

import pytest

from aws_io_async import EventLoop
from aws_io_async.event_loop.tasks import Task
from tests.crt_loops import KINDS, PATIENCE, Recorder, open_ours, ran, run_on
from tests.test_fork import in_child


@pytest.fixture(params=KINDS)
def loop(request: pytest.FixtureRequest) -> Iterator[EventLoop]:
    with open_ours(request.param) as loop:
        try:
            yield loop
        finally:
            loop.stop()
            loop.wait_for_stop_completion()


def test_event_loop_stop_then_restart(loop: EventLoop) -> None:
    recorder = Recorder()
    task = recorder.task("task")
    loop.run()
    loop.schedule_task_now(task)
    assert recorder.next() == ran("task")[0]
    loop.stop()
    loop.wait_for_stop_completion()
    loop.run()
    loop.schedule_task_now(task)
    assert recorder.next() == ran("task")[0]


def test_event_loop_multiple_stops(loop: EventLoop) -> None:
    loop.run()
    for _ in range(8):
        loop.stop()
    loop.wait_for_stop_completion()
    loop.close()
    assert loop.is_closed()


def test_stops_too_many_do_not_end_the_next_run(loop: EventLoop) -> None:
    for _ in range(3):
        loop.run()
        assert run_on(loop, lambda: "works") == "works"
        loop.stop()
        loop.wait_for_stop_completion()
        loop.stop()


def test_a_stop_right_after_the_start_is_heeded(loop: EventLoop) -> None:
    for _ in range(50):
        loop.run()
        loop.stop()
        loop.wait_for_stop_completion()
        assert not loop.is_running()


def test_it_runs_when_run_returns(loop: EventLoop) -> None:
    loop.run()
    assert loop.is_running()
    assert not loop.thread_is_callers_thread()
    assert run_on(loop, loop.thread_is_callers_thread)


def test_coroutines_run_on_it(loop: EventLoop) -> None:
    async def who() -> asyncio.AbstractEventLoop:
        await asyncio.sleep(0)
        return asyncio.get_running_loop()

    loop.run()
    assert asyncio.run_coroutine_threadsafe(who(), loop).result(PATIENCE) is loop


def test_its_thread_is_a_daemon_with_a_name(loop: EventLoop) -> None:
    loop.run("resolver-7")
    thread = run_on(loop, threading.current_thread)
    assert thread.name == "resolver-7"
    assert thread.daemon


def test_its_thread_has_an_empty_context() -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="none")
    variable.set("of the main thread")
    found: list[str] = []

    class Looking(EventLoop):
        def run_forever(self) -> None:
            found.append(variable.get())
            super().run_forever()

    loop = Looking()
    loop.run()
    loop.stop()
    loop.wait_for_stop_completion()
    loop.close()
    assert found == ["none"]


def test_stopped_from_its_own_thread(loop: EventLoop) -> None:
    loop.run()
    loop.schedule_task_now(Task(lambda *_: loop.stop()))
    loop.wait_for_stop_completion()
    assert not loop.is_running()


def test_what_was_scheduled_while_it_stood_runs_next_time(loop: EventLoop) -> None:
    recorder = Recorder()
    loop.run()
    loop.stop()
    loop.wait_for_stop_completion()
    loop.schedule_task_now(recorder.task("task"))
    loop.schedule_task_future(recorder.task("future"), loop.current_clock_time())
    assert recorder.all() == []
    loop.run()
    assert [recorder.next(), recorder.next()] == ran("task", "future")


def test_by_turns_on_a_thread_and_on_this_one(loop: EventLoop) -> None:
    async def answer() -> int:
        await asyncio.sleep(0)
        return 42

    for _ in range(3):
        loop.run()
        assert asyncio.run_coroutine_threadsafe(answer(), loop).result(PATIENCE) == 42
        loop.stop()
        loop.wait_for_stop_completion()
        assert loop.run_until_complete(answer()) == 42


def test_running_twice_is_refused(loop: EventLoop) -> None:
    loop.run()
    with pytest.raises(RuntimeError, match="already running"):
        loop.run()
    with pytest.raises(RuntimeError, match="already running"):
        run_on(loop, loop.run)
    assert run_on(loop, lambda: "works") == "works"


def test_closing_it_while_it_runs_is_refused(loop: EventLoop) -> None:
    loop.run()
    with pytest.raises(RuntimeError, match="running"):
        loop.close()
    assert run_on(loop, lambda: "works") == "works"


def test_a_closed_loop_cannot_be_run(loop: EventLoop) -> None:
    loop.close()
    with pytest.raises(RuntimeError, match="closed"):
        loop.run()


def test_waiting_where_there_is_nothing_to_wait_for(loop: EventLoop) -> None:
    loop.wait_for_stop_completion()
    loop.run()
    loop.stop()
    loop.wait_for_stop_completion()
    loop.wait_for_stop_completion()


def test_waiting_for_itself_is_refused(loop: EventLoop) -> None:
    loop.run()
    with pytest.raises(RuntimeError, match="own thread"):
        run_on(loop, loop.wait_for_stop_completion)


def test_what_ended_the_loop_is_raised_to_who_waits(loop: EventLoop) -> None:
    loop.run()
    loop.schedule_task_now(Task(lambda *_: sys.exit(3)))
    with pytest.raises(SystemExit):
        loop.wait_for_stop_completion()
    loop.run()
    assert run_on(loop, lambda: "works") == "works"


def test_what_ended_a_run_is_not_raised_to_who_waits_for_the_next(loop: EventLoop) -> None:
    loop.run()
    thread = run_on(loop, threading.current_thread)
    loop.schedule_task_now(Task(lambda *_: sys.exit(3)))
    thread.join()
    loop.run()
    loop.stop()
    loop.wait_for_stop_completion()


def test_closed_without_waiting(loop: EventLoop) -> None:
    """`close()` waits for the thread, if the loop has been seen to stop."""
    ended = threading.Event()
    loop.run()
    thread = run_on(loop, threading.current_thread)
    loop.schedule_task_now(Task(lambda *_: loop.stop()))
    while loop.is_running():
        ended.wait(0.001)
    loop.close()
    assert not thread.is_alive()


def test_a_program_that_forgets_it_ends() -> None:
    source = "import aws_io_async; loop = aws_io_async.new_event_loop(); loop.run(); print('end')"
    result = subprocess.run(
        [sys.executable, "-c", source], capture_output=True, text=True, timeout=PATIENCE
    )
    assert result.stdout == "end\n"
    assert result.returncode == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform has no fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_forked_child_cannot_use_it(loop: EventLoop) -> None:
    recorder = Recorder()
    loop.run()
    pending = recorder.task("pending")
    loop.schedule_task_future(pending, loop.current_clock_time() + 10**15)
    run_on(loop, loop.put_local_object, "key", "value", recorder.notes.put)

    def child() -> None:
        attempts: list[Callable[[], None]] = [
            loop.run,
            lambda: loop.schedule_task_now(recorder.task("child's")),
        ]
        for attempt in attempts:
            with pytest.raises(RuntimeError, match="fork"):
                attempt()
        loop.close()  # tells nobody: task and object are the parent's
        assert recorder.all() == []

    assert in_child(child) == ""
    assert run_on(loop, lambda: "works") == "works"
