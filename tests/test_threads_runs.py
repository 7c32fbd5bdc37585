"""Runs of a loop that begin and end while other threads call, and what is made once for all."""

import asyncio
import gc
import os
import threading
import warnings
from collections.abc import Callable
from typing import TypeVar

import pytest

from aws_io_async import EventLoop, HostResolver, _openssl_keys
from aws_io_async.event_loop.tasks import Task, TaskStatus
from tests.faults._report import Fault, few

Loop = asyncio.AbstractEventLoop
T = TypeVar("T")

RACES = Fault(
    "Threads and forks",
    "threads schedule while a loop's runs end, begin and close, threads switched all the time",
    "each call runs once, in its thread's order, or is refused",
)
DROPPED = Fault(
    "Threads and forks", "a loop is dropped without close()", "a ResourceWarning, and nothing left"
)


pytestmark = pytest.mark.usefixtures("restless")


def at_once(count: int, function: Callable[[int], T]) -> list[T]:
    """What threads return that begin at the same moment."""
    results: dict[int, T] = {}
    barrier = threading.Barrier(count)

    def run(number: int) -> None:
        barrier.wait()
        results[number] = function(number)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [results[number] for number in range(count)]


# Order over the ends of runs


def test_a_call_that_was_too_late_for_a_run_comes_first_in_the_next(loop: Loop) -> None:
    """One thread's call falls into a run's last turn, its next one between the runs."""
    ran: list[int] = []
    in_last_turn, called, ended = threading.Event(), threading.Event(), threading.Event()

    def last_turn() -> None:
        loop.stop()
        in_last_turn.set()
        called.wait()

    def call() -> None:
        in_last_turn.wait()
        loop.call_soon_threadsafe(ran.append, 1)
        called.set()
        ended.wait()
        loop.call_soon_threadsafe(ran.append, 2)

    thread = threading.Thread(target=call)
    thread.start()
    loop.call_soon(last_turn)
    loop.run_forever()
    ended.set()
    thread.join()
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert ran == [1, 2]


def test_runs_end_and_begin_while_threads_call(loop: Loop) -> None:
    """Nothing is lost, and each thread's order is kept."""
    ran: dict[int, list[int]] = {1: [], 2: [], 3: []}
    enough = threading.Event()

    def call_or_run(thread: int) -> int:
        number = 0
        if thread:
            while not enough.is_set() and number < few(3000):
                loop.call_soon_threadsafe(ran[thread].append, number)
                number += 1
            return number
        for _ in range(few(50)):
            loop.call_soon(loop.stop)
            loop.run_forever()
        enough.set()
        return 0

    counts = at_once(4, call_or_run)
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert [*ran.values()] == [[*range(count)] for count in counts[1:]]
    if isinstance(loop, EventLoop):
        RACES.seen("all ran, in order", sum(counts))


def test_tasks_of_threads_that_schedule_while_the_loop_is_closed(ours: EventLoop) -> None:
    """Each function is called once, or its thread is told that the loop is closed."""
    told: list[TaskStatus] = []
    refused: list[str] = []
    scheduled = threading.Semaphore(0)

    def schedule(_: int) -> int:
        for number in range(10_000):
            task = Task(lambda _task, status: told.append(status))
            try:
                if number % 2:
                    ours.schedule_task_now(task)
                else:
                    ours.schedule_task_now_serialized(task)
            except RuntimeError as exc:
                refused.append(str(exc))
                assert not task.pending
                return number
            scheduled.release()
        raise AssertionError("the loop was not closed")

    def run_and_close(_: int) -> int:
        for _ in range(20):
            scheduled.acquire()
        ours.call_soon(ours.stop)
        ours.run_forever()
        ours.close()
        return 0

    counts = at_once(3, lambda number: schedule(number) if number else run_and_close(number))
    assert len(told) == sum(counts)
    assert len(refused) == 2
    assert all("closed" in text for text in refused)
    RACES.seen("called once", len(told))
    RACES.seen("refused", len(refused))


def test_a_task_of_a_loop_that_is_closed_meanwhile_is_told_once(
    ours: EventLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever schedules is not told as well: what hangs on the task is released once."""
    told: list[TaskStatus] = []
    submit = ours._tasks._submit

    def submit_and_close(task: Task) -> object:
        submission = submit(task)
        ours.close()  # as another thread may just then
        return submission

    monkeypatch.setattr(ours._tasks, "_submit", submit_and_close)
    ours.schedule_task_now(Task(lambda _, status: told.append(status)))
    assert told == [TaskStatus.CANCELED]


# Ends


def test_of_two_threads_that_run_a_loop_one_is_refused(ours: EventLoop) -> None:
    for _ in range(few(20)):
        refused = threading.Event()
        ours.call_soon(refused.wait)
        ours.call_soon(ours.stop)

        def run(_: int, refused: threading.Event = refused) -> str:
            try:
                ours.run_forever()
            except RuntimeError as exc:
                refused.set()
                return str(exc)
            return "ran"

        assert sorted(at_once(2, run)) == ["This event loop is already running", "ran"]


def test_stop_from_several_threads_at_once(ours: EventLoop) -> None:
    for _ in range(few(10)):
        ours.run()
        at_once(4, lambda _: ours.stop())
        at_once(4, lambda _: ours.wait_for_stop_completion())
        assert not ours.is_running()


def test_close_from_several_threads_at_once_while_others_call() -> None:
    for _ in range(few(10)):
        ours = EventLoop()

        def close_or_call(number: int, ours: EventLoop = ours) -> str:
            if number < 2:
                ours.close()
                return "closed"
            while True:
                try:
                    ours.call_soon_threadsafe(int)
                except RuntimeError as exc:
                    return str(exc)

        outcomes = at_once(4, close_or_call)
        assert outcomes == ["closed"] * 2 + ["Event loop is closed"] * 2
        assert ours.is_closed()
        RACES.seen("refused", 2)


# Loops that nobody closes


@pytest.mark.parametrize("state", ["new", "has run", "with much to do", "ran on its own thread"])
def test_a_loop_that_is_dropped_is_closed_with_a_warning(state: str) -> None:
    """The descriptors that are left would be found by the check around each test, too."""
    before = len(os.listdir("/dev/fd"))
    loop = EventLoop()
    if state == "has run":
        loop.call_soon(loop.stop)
        loop.run_forever()
    elif state == "with much to do":
        reader, writer = os.pipe()
        loop.add_reader(reader, print)
        loop.call_later(3600, print)
        loop.call_soon(print)
        loop.call_soon_threadsafe(loop.call_soon, print)
        loop.schedule_task_now(Task(lambda task, status: None))
    elif state == "ran on its own thread":
        loop.run()
        loop.stop()
        loop.wait_for_stop_completion()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        del loop
        gc.collect()
    assert [warning.category for warning in caught] == [ResourceWarning]
    assert "unclosed event loop <EventLoop running=False closed=False" in str(caught[0].message)
    if state == "with much to do":
        os.close(reader)
        os.close(writer)
    assert len(os.listdir("/dev/fd")) == before
    DROPPED.seen("a warning, and nothing left")


# Made once


def test_what_keys_of_others_need_is_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenSSL calls functions of it: one that somebody else has made must not go."""
    for _ in range(few(5)):
        monkeypatch.setattr(_openssl_keys, "_made", {})
        first, *others = at_once(4, lambda _: _openssl_keys._openssl())
        assert all(other is first for other in others)


def test_the_default_resolver_is_one_while_threads_shut_it_down() -> None:
    def use(number: int) -> bool:
        resolver = HostResolver.default()
        if number % 2:
            resolver.shutdown()
        return HostResolver.default() is not None

    for _ in range(few(10)):
        assert all(at_once(4, use))
    HostResolver.default().shutdown()
