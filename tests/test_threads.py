"""Into the loop from outside: other threads, and Python's signal handlers."""

import asyncio
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any

import pytest

from aws_io_async import EventLoop
from tests.pollers import OURS

Loop = asyncio.AbstractEventLoop


def in_threads(count: int, target: Callable[[int], object]) -> list[threading.Thread]:
    threads = [threading.Thread(target=target, args=(n,)) for n in range(count)]
    for thread in threads:
        thread.start()
    return threads


def join(threads: list[threading.Thread]) -> None:
    for thread in threads:
        thread.join()


class TestCallSoonThreadsafe:
    def test_it_wakes_a_loop_that_waits(self, loop: Loop) -> None:
        thread = threading.Timer(0.01, loop.call_soon_threadsafe, (loop.stop,))
        thread.start()
        loop.run_forever()
        thread.join()

    def test_before_the_loop_runs(self, loop: Loop) -> None:
        ran: list[int] = []
        join(in_threads(3, lambda n: loop.call_soon_threadsafe(ran.append, n)))
        loop.call_soon_threadsafe(loop.stop)
        loop.run_forever()
        assert sorted(ran) == [0, 1, 2]

    def test_from_the_loop_s_own_thread_it_is_call_soon(self, loop: Loop) -> None:
        ran: list[str] = []

        def first() -> None:
            loop.call_soon(ran.append, "a")
            loop.call_soon_threadsafe(ran.append, "b")
            loop.call_soon(ran.append, "c")
            loop.call_soon_threadsafe(loop.stop)

        loop.call_soon(first)
        loop.run_forever()
        assert ran == ["a", "b", "c"]

    def test_the_handle_can_be_cancelled(self, loop: Loop) -> None:
        ran: list[int] = []
        handles = [loop.call_soon_threadsafe(ran.append, n) for n in range(3)]
        handles[1].cancel()
        loop.call_soon_threadsafe(loop.stop)
        loop.run_forever()
        assert ran == [0, 2]

    @pytest.mark.skipif(sys.version_info < (3, 14), reason="handles have locks since Python 3.14")
    def test_to_cancel_what_is_running_waits_until_it_has_run(self, ours: EventLoop) -> None:
        started, cancelled = threading.Event(), threading.Event()
        ran_first: list[bool] = []

        def run() -> None:
            started.set()
            ran_first.append(not cancelled.wait(0.1))

        def cancel(_: int) -> None:
            handle = ours.call_soon_threadsafe(run)
            started.wait()
            handle.cancel()
            cancelled.set()
            ours.call_soon_threadsafe(ours.stop)

        threads = in_threads(1, cancel)
        ours.run_forever()
        join(threads)
        assert ran_first == [True]

    def test_what_raises_is_reported_with_its_handle(self, ours: EventLoop) -> None:
        reported: list[dict[str, Any]] = []
        ours.set_exception_handler(lambda _, context: reported.append(context))
        handle = ours.call_soon_threadsafe(divmod, 1, 0)
        ours.call_soon_threadsafe(ours.stop)
        ours.run_forever()
        (context,) = reported
        assert context["handle"] is handle
        assert isinstance(context["exception"], ZeroDivisionError)

    def test_on_a_closed_loop(self, loop: Loop) -> None:
        loop.close()
        failures: list[str] = []

        def call(_: int) -> None:
            try:
                loop.call_soon_threadsafe(print)
            except RuntimeError as exc:
                failures.append(str(exc))

        join(in_threads(1, call))
        assert failures == ["Event loop is closed"]

    def test_many_calls_while_the_loop_is_busy_cost_one_wake_up_at_most(
        self, ours: EventLoop
    ) -> None:
        """The descriptor of the wakeup pair would be an event of a poll."""
        ran: list[int] = []

        def busy() -> None:
            def call(_: int) -> None:
                for n in range(1000):
                    ours.call_soon_threadsafe(ran.append, n)
                ours.call_soon_threadsafe(ours.stop)

            join(in_threads(1, call))

        ours.call_soon(busy)
        ours.run_forever()
        assert ran == list(range(1000))
        assert ours.statistics().events <= 1

    def test_calls_to_a_loop_that_waits_run_in_their_order(self, loop: Loop) -> None:
        """Some come while it waits, some while it wakes. What a wake-up costs: test_wakeup."""
        ran: list[int] = []

        def call(_: int) -> None:
            for n in range(1000):
                loop.call_soon_threadsafe(ran.append, n)
            loop.call_soon_threadsafe(loop.stop)

        threads = in_threads(1, call)
        loop.run_forever()
        join(threads)
        assert ran == list(range(1000))

    def test_run_coroutine_threadsafe(self, loop: Loop) -> None:
        async def double(n: int) -> int:
            await asyncio.sleep(0)
            return 2 * n

        results: list[int] = []

        def call(n: int) -> None:
            futures = [asyncio.run_coroutine_threadsafe(double(n), loop) for n in range(50)]
            results.extend(future.result(30) for future in futures)

        async def main() -> None:
            await asyncio.gather(*(asyncio.to_thread(call, n) for n in range(4)))
            await loop.shutdown_default_executor()

        loop.run_until_complete(main())
        assert sorted(results) == sorted([2 * n for n in range(50)] * 4)

    def test_a_run_that_is_cut_off_with_a_wake_up_in_its_hands_loses_it_not(
        self, ours: EventLoop
    ) -> None:
        """Ctrl-C in a callback ends the turn before the loop has seen that it was woken."""
        near, far = socket.socketpair()

        def interrupt() -> None:
            ours.remove_reader(near)
            raise KeyboardInterrupt

        with near, far:
            ours.add_reader(near, interrupt)
            far.send(b"x")
            ours._wakeup.wake()  # as a thread would now
            with pytest.raises(KeyboardInterrupt):
                ours.run_forever()

        def stop_once_it_waits() -> None:
            while not ours._polling:
                time.sleep(0)
            ours.call_soon_threadsafe(ours.stop)

        thread = threading.Thread(target=stop_once_it_waits)
        ours.call_soon(thread.start)
        ours.run_forever()
        thread.join()


@pytest.mark.usefixtures("restless")
class TestStress:
    def test_nothing_is_lost_and_each_thread_s_order_is_kept(self, loop: Loop) -> None:
        count, threads = 2000, 4
        ran: list[tuple[int, int]] = []

        def took(thread: int, n: int) -> None:
            ran.append((thread, n))
            if len(ran) == count * threads:
                loop.stop()

        def call(thread: int) -> None:
            for n in range(count):
                loop.call_soon_threadsafe(took, thread, n)

        started = in_threads(threads, call)
        loop.run_forever()
        join(started)
        for thread in range(threads):
            assert [n for who, n in ran if who == thread] == list(range(count))

    def test_each_call_wakes_a_loop_that_has_nothing_else(self, loop: Loop) -> None:
        """A ping-pong: one lost wake-up, and both wait for ever."""

        def call(_: int) -> None:
            for n in range(3000):
                answer: Future[int] = Future()
                loop.call_soon_threadsafe(answer.set_result, n)
                assert answer.result(30) == n
            loop.call_soon_threadsafe(loop.stop)

        threads = in_threads(1, call)
        loop.run_forever()
        join(threads)

    def test_with_callbacks_timers_and_descriptors_around(self, ours: EventLoop) -> None:
        reader, writer = os.pipe()
        left = 3 * 500
        chains = 0

        def took() -> None:
            nonlocal left
            left -= 1
            if not left:
                ours.stop()

        def call(_: int) -> None:
            for _ in range(500):
                ours.call_soon_threadsafe(took)

        def again(depth: int) -> None:
            nonlocal chains
            chains += 1
            if depth:
                ours.call_soon(again, depth - 1)
            else:
                ours.call_later(0.0001, again, 20)

        ours.add_reader(reader, lambda: (os.read(reader, 1), os.write(writer, b"x")))
        os.write(writer, b"x")
        again(5)
        threads = in_threads(3, call)
        ours.run_forever()
        join(threads)
        ours.remove_reader(reader)
        os.close(reader)
        os.close(writer)
        assert chains

    def test_closing_while_threads_call(self, ours: EventLoop) -> None:
        """Each call is either taken or refused with the loop's own error."""
        refused: list[str] = []

        def call(_: int) -> None:
            while True:
                try:
                    ours.call_soon_threadsafe(int)
                except RuntimeError as exc:
                    refused.append(str(exc))
                    return

        threads = in_threads(3, call)
        ours.call_later(0.01, ours.stop)
        ours.run_forever()
        ours.close()
        join(threads)
        assert refused == ["Event loop is closed"] * 3


@pytest.mark.usefixtures("no_handlers_left")
class TestSignalHandlers:
    """Handlers of `signal.signal`, which the interpreter runs in the main thread, anywhere."""

    @pytest.fixture
    def no_handlers_left(self) -> Iterator[None]:
        before = {sig: signal.getsignal(sig) for sig in (signal.SIGALRM, signal.SIGINT)}
        yield
        signal.setitimer(signal.ITIMER_REAL, 0)
        for sig, handler in before.items():
            signal.signal(sig, handler)

    # uvloop keeps Python's handlers waiting until the loop has something to do.
    without_uvloop = pytest.mark.parametrize("loop", [*OURS, "asyncio"], indirect=True)

    @without_uvloop
    def test_while_the_loop_waits(self, loop: Loop) -> None:
        def handler(signum: int, frame: object) -> None:
            loop.call_soon_threadsafe(loop.stop)

        signal.signal(signal.SIGALRM, handler)
        loop.call_soon(signal.setitimer, signal.ITIMER_REAL, 0.01)
        loop.run_forever()

    def test_stop_while_the_loop_waits(self, ours: EventLoop) -> None:
        signal.signal(signal.SIGALRM, lambda *_: ours.stop())
        ours.call_soon(signal.setitimer, signal.ITIMER_REAL, 0.01)
        ours.run_forever()

    def test_a_storm(self, ours: EventLoop) -> None:
        """Signals between any two bytecodes of a loop that is busy and of one that waits."""
        sent: list[int] = []
        ran: list[int] = []

        def handler(signum: int, frame: object) -> None:
            sent.append(len(sent))
            ours.call_soon_threadsafe(ran.append, sent[-1])
            if len(sent) == 500:
                signal.setitimer(signal.ITIMER_REAL, 0)
                ours.call_soon_threadsafe(ours.stop)

        def again() -> None:
            ours.call_later(0.0005, ours.call_soon, again)

        signal.signal(signal.SIGALRM, handler)
        again()
        signal.setitimer(signal.ITIMER_REAL, 0.0003, 0.0003)
        ours.run_forever()
        assert sorted(ran) == sent == list(range(500))  # one handler may interrupt another

    @without_uvloop
    def test_an_exception_out_of_one_leaves_the_loop(self, loop: Loop) -> None:
        ran: list[int] = []

        def handler(signum: int, frame: object) -> None:
            raise KeyboardInterrupt

        signal.signal(signal.SIGALRM, handler)
        loop.call_soon(signal.setitimer, signal.ITIMER_REAL, 0.01)
        with pytest.raises(KeyboardInterrupt):
            loop.run_forever()
        loop.call_soon(ran.append, 1)
        loop.call_soon(loop.stop)
        loop.run_forever()
        assert ran == [1]

    @without_uvloop
    def test_ctrl_c_cancels_the_main_task_of_a_runner(self, loop: Loop) -> None:
        seen: list[str] = []

        async def main() -> None:
            loop.call_later(0.01, os.kill, os.getpid(), signal.SIGINT)
            try:
                await asyncio.sleep(100)
            except asyncio.CancelledError:
                seen.append("cancelled")
                raise

        signal.signal(signal.SIGINT, signal.default_int_handler)
        runner = asyncio.Runner(loop_factory=lambda: loop)
        with pytest.raises(KeyboardInterrupt), runner:
            runner.run(main())
        assert seen == ["cancelled"]
