"""`TestingLoop`: time that passes when the test says so."""

import asyncio
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from aws_io_async import EventLoop
from aws_io_async.event_loop.tasks import Task, TaskStatus
from aws_io_async.testing import TestingLoop


@pytest.fixture
def loop() -> Iterator[TestingLoop]:
    loop = TestingLoop()
    yield loop
    loop.close()


def test_time_stands_still(loop: TestingLoop) -> None:
    assert loop.time() == 0
    loop.run_until_idle()
    assert loop.time() == 0
    assert isinstance(loop, EventLoop)


def test_time_begins_where_it_is_told_to() -> None:
    loop = TestingLoop(start=1234.5)
    assert loop.time() == 1234.5
    assert loop.current_clock_time() == 1_234_500_000_000
    loop.advance(0.5)
    assert loop.time() == 1235
    loop.close()


def test_callbacks_run_until_none_is_ready(loop: TestingLoop) -> None:
    ran: list[int] = []

    def chain(number: int) -> None:
        ran.append(number)
        if number:
            loop.call_soon(chain, number - 1)

    loop.call_soon(chain, 5)
    assert ran == []
    loop.run_until_idle()
    assert ran == [5, 4, 3, 2, 1, 0]


def test_what_is_due_runs_at_its_time(loop: TestingLoop) -> None:
    ran: list[tuple[str, float]] = []

    def note(name: str) -> None:
        ran.append((name, loop.time()))
        if name == "b":
            loop.call_later(0.5, note, "b again")

    for name, delay in (("c", 3.0), ("a", 0.1), ("b", 1.0), ("at once", 0.0)):
        loop.call_later(delay, note, name)
    loop.run_until_idle()
    assert ran == [("at once", 0)]
    loop.advance(2)
    assert ran[1:] == [("a", 0.1), ("b", 1.0), ("b again", 1.5)]
    assert loop.time() == 2
    loop.advance(1)
    assert ran[-1] == ("c", 3.0)


def test_a_cancelled_timer_does_not_run(loop: TestingLoop) -> None:
    ran: list[int] = []
    loop.call_later(1, ran.append, 1).cancel()
    loop.call_later(1, ran.append, 2)
    loop.advance(1)
    assert ran == [2]


def test_tasks_sleep_as_long_as_they_are_told(loop: TestingLoop) -> None:
    async def main() -> float:
        await asyncio.sleep(10)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(20):
                await asyncio.Event().wait()
        return loop.time()

    task = loop.create_task(main())
    loop.advance(29.9)
    assert not task.done()
    loop.advance(0.1)
    assert task.result() == 30


def test_tasks_of_the_loop_know_their_times(loop: TestingLoop) -> None:
    ran: list[TaskStatus] = []
    loop.schedule_task_future(Task(lambda _, status: ran.append(status)), 2_000_000_000)
    loop.advance(1.999_999_999)
    assert ran == []
    loop.advance(0.000_000_001)
    assert ran == [TaskStatus.RUN_READY]


def test_a_year_passes_at_once(loop: TestingLoop) -> None:
    async def main() -> float:
        for _ in range(365):
            await asyncio.sleep(86_400)
        return loop.time()

    assert loop.run_until_complete(main()) == pytest.approx(365 * 86_400)


def test_it_runs_as_other_loops_do() -> None:
    async def main() -> list[Any]:
        started = asyncio.get_running_loop().time()
        first = await asyncio.wait_for(asyncio.sleep(5, "first"), 10)
        done = await asyncio.gather(asyncio.sleep(1, "a"), asyncio.sleep(2, "b"))
        return [first, *done, asyncio.get_running_loop().time() - started]

    with asyncio.Runner(loop_factory=TestingLoop) as runner:
        assert runner.run(main()) == ["first", "a", "b", 7]


def test_it_waits_for_other_threads_and_descriptors_as_usual(loop: TestingLoop) -> None:
    async def main() -> bytes:
        assert await asyncio.to_thread(threading.get_ident) != threading.get_ident()
        one, other = socket.socketpair()
        with one, other:
            one.setblocking(False)
            other.send(b"hello")
            data = await loop.sock_recv(one, 10)
        await loop.shutdown_default_executor()
        return data

    assert loop.run_until_complete(main()) == b"hello"


def test_descriptors_are_looked_at_until_none_is_ready(loop: TestingLoop) -> None:
    one, other = socket.socketpair()
    with one, other:
        one.setblocking(False)
        got: list[bytes] = []
        loop.add_reader(one, lambda: got.append(one.recv(1)))
        loop.run_until_idle()
        assert got == []
        other.send(b"abc")
        loop.run_until_idle()
        assert got == [b"a", b"b", b"c"]
        loop.remove_reader(one)


def test_what_needs_a_running_loop_is_called_on_it(loop: TestingLoop) -> None:
    assert loop.call(asyncio.get_running_loop) is loop
    with pytest.raises(RuntimeError, match="no running event loop"):
        asyncio.get_running_loop()
    with pytest.raises(ValueError, match="invalid literal"):
        loop.call(int, "x")
    task = loop.call(asyncio.ensure_future, asyncio.sleep(0, "done"))
    loop.run_until_idle()
    assert task.result() == "done"


def test_a_loop_that_does_not_come_to_rest(loop: TestingLoop) -> None:
    def again() -> None:
        loop.call_soon(again)

    again()
    with pytest.raises(RuntimeError, match="has not come to rest in 100000 turns"):
        loop.run_until_idle()


def test_misuse_is_told_at_once(loop: TestingLoop) -> None:
    with pytest.raises(ValueError, match="time cannot go back by 1 s"):
        loop.advance(-1)

    async def nested() -> None:
        for use in (loop.run_until_idle, lambda: loop.advance(1), lambda: loop.call(print)):
            with pytest.raises(RuntimeError, match="running"):
                use()

    loop.run_until_complete(nested())
    closed = TestingLoop()
    closed.close()
    for use in (closed.run_until_idle, lambda: closed.call(print)):
        with pytest.raises(RuntimeError, match="closed"):
            use()


def test_what_a_callback_raises_goes_to_the_exception_handler(loop: TestingLoop) -> None:
    told: list[Any] = []
    loop.set_exception_handler(lambda _, context: told.append(context["exception"]))
    error = ValueError("in a callback")

    def fail() -> None:
        raise error

    loop.call_soon(fail)
    loop.run_until_idle()
    assert told == [error]


def test_a_callback_that_ends_the_program(loop: TestingLoop) -> None:
    def leave() -> None:
        raise SystemExit(3)

    loop.call_soon(leave)
    with pytest.raises(SystemExit):
        loop.run_until_idle()
    loop.run_until_idle()
