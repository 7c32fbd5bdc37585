"""What runs when: the ready queue, timers, handles, contexts, `stop` and `run_forever`.

The tests with `loop` run on ours with each poller, on asyncio's and on uvloop's; those with `ours`
are about what only our loop has.
"""

import asyncio
import contextvars
import gc
import math
import socket
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from aws_io_async import EventLoop
from aws_io_async.event_loop._scheduler import MAX_TURNS_WITHOUT_POLL
from tests.pollers import OURS
from tests.recorders import Recorder
from tests.socket_tools import turns

Loop = asyncio.AbstractEventLoop


without_uvloop = pytest.mark.parametrize("loop", [*OURS, "asyncio"], indirect=True)
"""For what uvloop really does otherwise; each test says what that is."""


def is_uvloop(loop: Loop) -> bool:
    return type(loop).__module__.startswith("uvloop")


def run_one_turn(loop: Loop) -> None:
    loop.stop()
    loop.run_forever()


def collect_errors(loop: Loop) -> list[dict[str, Any]]:
    errors: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: errors.append(context))
    return errors


class Token:
    """Something that a weak reference can point to."""


class TestCallSoon:
    def test_in_the_order_of_the_calls(self, loop: Loop) -> None:
        ran: list[int] = []
        for n in range(1000):
            loop.call_soon(ran.append, n)
        run_one_turn(loop)
        assert ran == list(range(1000))

    def test_what_a_callback_calls_soon_is_for_the_next_turn(self, loop: Loop) -> None:
        ran: list[str] = []

        def first() -> None:
            ran.append("first")
            loop.call_soon(ran.append, "third")

        loop.call_soon(first)
        loop.call_soon(ran.append, "second")
        run_one_turn(loop)
        assert ran == ["first", "second"]
        run_one_turn(loop)
        assert ran == ["first", "second", "third"]

    @pytest.mark.parametrize("count", [0, 1, 2, 5])
    def test_arguments(self, loop: Loop, count: int) -> None:
        got: list[tuple[int, ...]] = []
        loop.call_soon(lambda *args: got.append(args), *range(count))
        run_one_turn(loop)
        assert got == [tuple(range(count))]

    def test_cancelled_before_its_turn(self, loop: Loop) -> None:
        ran: list[str] = []
        loop.call_soon(ran.append, "a").cancel()
        by_another: list[asyncio.Handle] = []
        loop.call_soon(lambda: by_another[0].cancel())
        by_another.append(loop.call_soon(ran.append, "b"))
        loop.call_soon(ran.append, "c")
        run_one_turn(loop)
        assert ran == ["c"]

    def test_a_callback_that_raises_stops_no_other(self, loop: Loop) -> None:
        errors = collect_errors(loop)
        ran: list[int] = []

        def fail() -> None:
            raise ZeroDivisionError("on purpose")

        loop.call_soon(ran.append, 1)
        handle = loop.call_soon(fail)
        loop.call_soon(ran.append, 2)
        run_one_turn(loop)
        assert ran == [1, 2]
        assert [type(context["exception"]) for context in errors] == [ZeroDivisionError]
        assert errors[0]["handle"] is handle
        assert "Exception in callback" in errors[0]["message"]
        assert "fail" in errors[0]["message"]

    @without_uvloop  # it loses callbacks
    @pytest.mark.parametrize("exception", [KeyboardInterrupt, SystemExit])
    def test_an_exit_leaves_the_others_their_places(
        self, loop: Loop, exception: type[BaseException]
    ) -> None:
        ran: list[int] = []

        def leave() -> None:
            loop.call_soon(ran.append, 4)
            raise exception

        loop.call_soon(ran.append, 1)
        loop.call_soon(leave)
        loop.call_soon(ran.append, 2)
        loop.call_soon(ran.append, 3)
        with pytest.raises(exception):
            loop.run_forever()
        assert not loop.is_running()
        assert ran == [1]
        run_one_turn(loop)
        assert ran == [1, 2, 3, 4]

    def test_a_generator_exit_or_cancellation_is_an_error_like_any_other(self, loop: Loop) -> None:
        errors = collect_errors(loop)

        def fail() -> None:
            raise asyncio.CancelledError

        loop.call_soon(fail)
        run_one_turn(loop)
        assert [type(context["exception"]) for context in errors] == [asyncio.CancelledError]


class TestTimers:
    def test_by_time_and_not_before(self, loop: Loop) -> None:
        ran: list[tuple[str, float]] = []

        def note(name: str) -> None:
            ran.append((name, loop.time()))

        started = loop.time()
        loop.call_later(0.03, note, "c")
        loop.call_later(0.01, note, "a")
        loop.call_at(started + 0.02, note, "b")
        loop.call_later(0.04, loop.stop)
        loop.run_forever()
        assert [name for name, _ in ran] == ["a", "b", "c"]
        for (_, when), delay in zip(ran, (0.01, 0.02, 0.03), strict=True):
            # uvloop's clock has milliseconds.
            assert when >= started + delay - (0.002 if is_uvloop(loop) else 1e-6)

    def test_ties_in_the_order_of_the_calls(self, ours: EventLoop) -> None:
        """A promise of ours: asyncio's heap and uvloop's mix them up."""
        ran: list[int] = []
        when = ours.time() + 0.005
        for n in range(200):
            ours.call_at(when, ran.append, n)
        ours.call_at(when + 0.01, ours.stop)
        ours.run_forever()
        assert ran == list(range(200))

    @pytest.mark.parametrize("delay", [0, -1])
    def test_a_timer_that_is_due_at_once_comes_after_what_was_ready_before_it(
        self, loop: Loop, delay: float
    ) -> None:
        """`wait_for(task, tiny)` relies on that: the task gets its first step."""
        if is_uvloop(loop):
            pytest.skip("uvloop makes call_soon of a timer that is due")
        ran: list[str] = []

        def schedule() -> None:
            loop.call_soon(ran.append, "callback")
            loop.call_later(delay, ran.append, "timer")
            loop.call_later(0.01, loop.stop)

        loop.call_soon(schedule)
        loop.run_forever()
        assert ran == ["callback", "timer"]

    def test_due_timers_survive_ctrl_c_in_a_callback_of_their_turn(self, ours: EventLoop) -> None:
        ran: list[str] = []

        def interrupt() -> None:
            raise KeyboardInterrupt

        ours.call_later(-1, ran.append, "timer")
        ours.call_soon(interrupt)
        with pytest.raises(KeyboardInterrupt):
            ours.run_forever()
        ours.call_later(0.01, ours.stop)
        ours.run_forever()
        assert ran == ["timer"]

    @pytest.mark.parametrize("delay", [0, 0.0, -1, -1e9, False])
    def test_no_delay_or_a_negative_one_is_now(self, loop: Loop, delay: float) -> None:
        ran: list[str] = []
        loop.call_later(delay, ran.append, "timer")
        loop.call_later(delay, loop.stop)
        loop.run_forever()
        assert ran == ["timer"]

    def test_an_infinite_delay_waits_for_ever(self, ours: EventLoop) -> None:
        ran: list[str] = []
        timer = ours.call_later(math.inf, ran.append, "never")
        ours.call_later(0.001, ours.stop)
        ours.run_forever()
        assert ran == []
        assert timer.when() == math.inf

    def test_a_delay_of_years(self, loop: Loop) -> None:
        """Longer than any system call waits at a time."""
        timer = loop.call_later(1e9, loop.stop)
        loop.call_later(0.001, loop.stop)
        loop.run_forever()
        assert not timer.cancelled()

    def test_nan_is_refused(self, ours: EventLoop) -> None:
        with pytest.raises(ValueError, match="NaN"):
            ours.call_later(math.nan, ours.stop)
        with pytest.raises(ValueError, match="NaN"):
            ours.call_at(math.nan, ours.stop)
        assert ours.statistics().timers == 0

    @pytest.mark.parametrize("debug", [False, True])
    @pytest.mark.parametrize("wrong", [None, "1", 1j, object()])
    def test_what_is_no_time_is_refused_at_the_call(
        self, ours: EventLoop, wrong: Any, debug: bool
    ) -> None:
        ours.set_debug(debug)
        with pytest.raises(TypeError):
            ours.call_later(wrong, ours.stop)
        with pytest.raises(TypeError):
            ours.call_at(wrong, ours.stop)
        assert ours.statistics().timers == 0

    def test_cancelled(self, loop: Loop) -> None:
        ran: list[str] = []
        loop.call_later(0.001, ran.append, "no").cancel()
        kept = loop.call_later(0.002, ran.append, "yes")
        loop.call_later(0.01, loop.stop)
        loop.run_forever()
        assert ran == ["yes"]
        kept.cancel()  # too late, and no harm

    def test_cancelled_by_one_that_is_due_at_the_same_time(self, loop: Loop) -> None:
        ran: list[str] = []
        when = loop.time() + 0.005
        timers: list[asyncio.TimerHandle] = []
        loop.call_at(when, lambda: timers[0].cancel())
        timers.append(loop.call_at(when + 0.002, ran.append, "no"))  # uvloop counts milliseconds
        time.sleep(0.02)  # both are due when the loop first looks
        loop.call_later(0.01, loop.stop)
        loop.run_forever()
        assert ran == []

    @pytest.mark.parametrize("debug", [False, True])
    def test_cancelled_timers_are_dropped_in_bulk(self, ours: EventLoop, debug: bool) -> None:
        ours.set_debug(debug)
        kept = [ours.call_later(1000, ours.stop) for _ in range(10)]
        most = 0
        for n in range(10_000 if debug else 100_000):
            ours.call_later(60, ours.stop).cancel()
            if n % 97 == 0:
                most = max(most, ours.statistics().timers)
        assert most < 200
        assert not any(timer.cancelled() for timer in kept)

    def test_a_timer_does_not_wait_for_busy_callbacks(self, loop: Loop) -> None:
        """An endless chain of `call_soon`s leaves timers their turn."""
        loop.call_later(0.005, loop.stop)

        def again() -> None:
            loop.call_soon(again)

        again()
        loop.run_forever()

    def test_many(self, loop: Loop) -> None:
        ran: list[int] = []
        now = loop.time()
        for n in range(5000):
            loop.call_at(now + (n * 7919 % 5000) * 1e-6, ran.append, n)
        loop.call_at(now + 0.05, loop.stop)
        loop.run_forever()
        assert sorted(ran) == list(range(5000))
        if not is_uvloop(loop):
            assert ran == sorted(ran, key=lambda n: n * 7919 % 5000)


class TestHandles:
    @pytest.mark.parametrize("debug", [False, True])
    def test_they_are_asyncio_s(self, ours: EventLoop, debug: bool) -> None:
        ours.set_debug(debug)
        when = ours.time() + 10
        soon, safe, timer = (
            ours.call_soon(print),
            ours.call_soon_threadsafe(print),
            ours.call_at(when, print),
        )
        assert isinstance(soon, asyncio.Handle)
        assert isinstance(safe, asyncio.Handle)
        assert isinstance(timer, asyncio.TimerHandle)
        assert timer.when() == when
        for handle in (soon, safe, timer):
            assert not handle.cancelled()
            handle.cancel()
            handle.cancel()
            assert handle.cancelled()

    def test_cancelling_drops_what_the_handle_held(self, loop: Loop) -> None:
        for schedule in (loop.call_soon, loop.call_soon_threadsafe):
            token = Token()
            gone = weakref.ref(token)
            handle = schedule(id, token)
            del token
            handle.cancel()
            gc.collect()
            assert gone() is None
        token = Token()
        gone = weakref.ref(token)
        timer = loop.call_later(100, id, token)
        del token
        timer.cancel()
        gc.collect()
        assert gone() is None

    @pytest.mark.parametrize("debug", [False, True])
    def test_repr(self, ours: EventLoop, debug: bool) -> None:
        ours.set_debug(debug)
        handle, timer = ours.call_soon(run_one_turn, ours), ours.call_later(1, print)
        assert repr(handle).startswith("<Handle run_one_turn(")
        assert f"when={timer.when()}" in repr(timer)
        assert "print" in repr(timer)
        handle.cancel()
        timer.cancel()
        assert repr(handle).startswith("<Handle cancelled")
        assert repr(timer).startswith("<TimerHandle cancelled")

    def test_the_context_of_a_handle(self, ours: EventLoop) -> None:
        context = contextvars.Context()
        for handle in (
            ours.call_soon(print, context=context),
            ours.call_soon_threadsafe(print, context=context),
            ours.call_later(1, print, context=context),
            ours.call_at(1e9, print, context=context),
        ):
            # On Python 3.11 asyncio's handles have no such method yet.
            assert handle.get_context() is context  # type: ignore[attr-defined,unused-ignore]
            handle.cancel()

    def test_timer_handles_compare_by_time(self, ours: EventLoop) -> None:
        one, two = ours.call_at(1e9, print), ours.call_at(2e9, print)
        same = ours.call_at(1e9, print)
        assert one < two <= two
        assert two > one >= same
        assert one != two
        assert len({one, two}) == 2
        for timer in (one, two, same):
            timer.cancel()

    @without_uvloop  # its handles are not made for that
    def test_they_can_be_referred_to_weakly(self, loop: Loop) -> None:
        handle = loop.call_soon(print)
        assert weakref.ref(handle)() is handle
        handle.cancel()


class TestContexts:
    var: contextvars.ContextVar[str] = contextvars.ContextVar("var", default="default")

    def schedulers(self, loop: Loop) -> list[Callable[..., Any]]:
        return [
            loop.call_soon,
            loop.call_soon_threadsafe,
            lambda f, **kwargs: loop.call_later(0, f, **kwargs),
            lambda f, **kwargs: loop.call_at(loop.time(), f, **kwargs),
        ]

    def test_a_copy_of_the_caller_s_by_default(self, loop: Loop) -> None:
        seen: list[str] = []

        def note() -> None:
            seen.append(self.var.get())
            self.var.set("changed in the callback")

        def schedule() -> None:
            self.var.set("at the call")
            for scheduler in self.schedulers(loop):
                scheduler(note)
            self.var.set("after the call")

        context = contextvars.copy_context()
        context.run(schedule)
        loop.call_later(0.01, loop.stop)
        loop.run_forever()
        assert seen == ["at the call"] * 4
        assert context[self.var] == "after the call"

    def test_a_given_one(self, loop: Loop) -> None:
        contexts = [contextvars.Context() for _ in range(4)]
        for scheduler, context in zip(self.schedulers(loop), contexts, strict=True):
            context.run(self.var.set, "given")
            scheduler(lambda: self.var.set(self.var.get() + " and changed"), context=context)
        loop.call_later(0.01, loop.stop)
        loop.run_forever()
        assert [context[self.var] for context in contexts] == ["given and changed"] * 4


class TestStop:
    def test_a_loop_that_was_stopped_before_runs_one_turn(self, loop: Loop) -> None:
        ran: list[str] = []

        def first() -> None:
            ran.append("first")
            loop.call_soon(ran.append, "second")

        loop.call_soon(first)
        loop.stop()
        loop.run_forever()
        assert ran == ["first"]
        loop.stop()
        loop.run_forever()
        assert ran == ["first", "second"]

    @without_uvloop  # its last turn takes in the next one's callbacks
    def test_the_rest_of_the_turn_still_runs(self, loop: Loop) -> None:
        ran: list[str] = []

        def stop() -> None:
            loop.call_soon(ran.append, "next turn")
            loop.stop()
            loop.stop()

        loop.call_soon(stop)
        loop.call_soon(ran.append, "same turn")
        loop.run_forever()
        assert ran == ["same turn"]
        assert not loop.is_running()
        run_one_turn(loop)
        assert ran == ["same turn", "next turn"]

    def test_descriptors_are_looked_at_in_the_one_turn(self, loop: Loop) -> None:
        a, b = socket.socketpair()
        with a, b:
            read: list[bytes] = []
            loop.add_reader(a, lambda: read.append(a.recv(10)))
            b.send(b"x")
            run_one_turn(loop)
            if is_uvloop(loop):  # two turns there
                run_one_turn(loop)
            assert read == [b"x"]
            loop.remove_reader(a)

    def test_by_an_io_callback(self, loop: Loop) -> None:
        a, b = socket.socketpair()
        with a, b:
            loop.add_reader(a, loop.stop)
            b.send(b"x")
            loop.run_forever()
            loop.remove_reader(a)

    def test_from_another_thread_while_it_waits(self, ours: EventLoop) -> None:
        thread = threading.Timer(0.01, ours.stop)
        thread.start()
        ours.run_forever()
        thread.join()

    def test_many_runs(self, loop: Loop) -> None:
        ran: list[int] = []
        for n in range(100):
            loop.call_soon(ran.append, n)
            loop.call_soon(loop.stop)
            loop.run_forever()
        assert ran == list(range(100))


class TestRunning:
    def test_is_running(self, loop: Loop) -> None:
        seen: list[bool] = []
        assert not loop.is_running()
        loop.call_soon(lambda: seen.append(loop.is_running()))
        loop.call_soon(lambda: seen.append(asyncio.get_running_loop() is loop))
        run_one_turn(loop)
        assert seen == [True, True]
        assert not loop.is_running()
        with pytest.raises(RuntimeError, match="no running event loop"):
            asyncio.get_running_loop()

    def test_running_it_twice_at_once(self, ours: EventLoop) -> None:
        """On ours alone: the attempt does damage to asyncio's loop on Python 3.13.0."""
        errors: list[str] = []

        def again() -> None:
            try:
                ours.run_forever()
            except RuntimeError as exc:
                errors.append(str(exc))

        def from_a_thread() -> None:
            thread = threading.Thread(target=again)
            thread.start()
            thread.join()

        ours.call_soon(again)
        ours.call_soon(from_a_thread)
        run_one_turn(ours)
        assert errors == ["This event loop is already running"] * 2
        run_one_turn(ours)

    def test_running_it_inside_another(self, loop: Loop) -> None:
        errors: list[str] = []

        def run_inside() -> None:
            try:
                loop.run_forever()
            except RuntimeError as exc:
                errors.append(str(exc))

        outer = asyncio.SelectorEventLoop()
        outer.call_soon(run_inside)
        run_one_turn(outer)
        outer.close()
        assert errors == ["Cannot run the event loop while another loop is running"]
        run_one_turn(loop)  # it was left in order

    def test_closed(self, loop: Loop) -> None:
        loop.close()
        loop.close()
        assert loop.is_closed()
        assert not loop.is_running()
        for call in (
            loop.run_forever,
            lambda: loop.call_soon(print),
            lambda: loop.call_soon_threadsafe(print),
            lambda: loop.call_later(0, print),
            lambda: loop.call_at(0, print),
        ):
            with pytest.raises(RuntimeError, match="Event loop is closed"):
                call()

    def test_add_and_remove_on_a_closed_loop(self, loop: Loop) -> None:
        loop.close()
        a, b = socket.socketpair()
        with a, b:
            with pytest.raises(RuntimeError, match="Event loop is closed"):
                loop.add_reader(a, print)
            with pytest.raises(RuntimeError, match="Event loop is closed"):
                loop.add_writer(a, print)

    def test_closing_while_it_runs(self, loop: Loop) -> None:
        errors: list[str] = []

        def close() -> None:
            try:
                loop.close()
            except RuntimeError as exc:
                errors.append(str(exc))

        loop.call_soon(close)
        run_one_turn(loop)
        assert errors == ["Cannot close a running event loop"]
        assert not loop.is_closed()

    def test_closing_drops_what_was_waiting(self, loop: Loop) -> None:
        tokens = [Token() for _ in range(4)]
        gone = [weakref.ref(token) for token in tokens]
        loop.call_soon(id, tokens[0])
        loop.call_soon_threadsafe(id, tokens[1])
        timer = loop.call_later(1, id, tokens[2])
        thread = threading.Thread(target=loop.call_soon_threadsafe, args=(id, tokens[3]))
        thread.start()
        thread.join()
        del thread, tokens
        loop.close()
        if is_uvloop(loop):  # the handle keeps its own
            timer.cancel()
        timer.cancel()
        gc.collect()
        assert [ref() for ref in gone] == [None] * 4

    def test_another_thread_may_run_it(self, loop: Loop) -> None:
        ran: list[int] = []
        loop.call_soon(lambda: ran.append(threading.get_ident()))
        thread = threading.Thread(target=run_one_turn, args=(loop,))
        thread.start()
        thread.join()
        run_one_turn(loop)
        assert len(ran) == 1
        assert ran != [threading.get_ident()]

    def test_an_unclosed_loop_is_reported(self, ours: EventLoop) -> None:
        name = repr(ours)
        unclosed = [EventLoop()]

        def abandon() -> None:
            unclosed.clear()
            gc.collect()

        with pytest.warns(ResourceWarning) as warned:
            abandon()
        assert [str(w.message) for w in warned] == [f"unclosed event loop {name}"]
        # And it was closed: the fixture `no_leaks` looks for its descriptors.

    def test_repr(self, ours: EventLoop) -> None:
        assert repr(ours) == "<EventLoop running=False closed=False debug=False>"
        ours.close()
        assert "closed=True" in repr(ours)


class TestFairness:
    def test_a_socket_does_not_starve_behind_a_chain_of_callbacks(self, ours: EventLoop) -> None:
        """The bound that the head of the module promises."""
        a, b = socket.socketpair()
        with a, b:
            chain = 0
            served: list[int] = []

            def link() -> None:
                nonlocal chain
                chain += 1
                if chain % 50 == 0 and not served:
                    sent.append(chain)
                    b.send(b"x")
                ours.call_soon(link)

            def readable() -> None:
                a.recv(1)
                served.append(chain)
                ours.stop()

            sent: list[int] = []
            ours.add_reader(a, readable)
            link()
            ours.run_forever()
            ours.remove_reader(a)
            assert served[0] - sent[0] <= 2

    def test_a_chain_does_not_poll_at_each_link(self, ours: EventLoop) -> None:
        turns, polls = self.of_a_chain(ours)
        assert turns >= 999
        assert polls <= turns / MAX_TURNS_WITHOUT_POLL + 2

    def test_a_chain_lets_other_threads_run(self, ours: EventLoop) -> None:
        """While the loop polls, they have the interpreter: else they would wait for long."""
        over = threading.Event()
        thread = threading.Thread(target=over.wait)
        thread.start()
        try:
            turns, polls = self.of_a_chain(ours)
        finally:
            over.set()
            thread.join()
        assert polls >= turns / 2 - 1

    def of_a_chain(self, loop: EventLoop) -> tuple[int, int]:
        """Turns and polls of a thousand callbacks, each of which schedules the next."""
        left = 1000

        def link() -> None:
            nonlocal left
            left -= 1
            if left:
                loop.call_soon(link)
            else:
                loop.stop()

        link()
        loop.run_forever()
        figures = loop.statistics()
        return figures.turns, figures.polls

    async def test_what_is_sent_on_the_loop_has_come_after_two_turns(self) -> None:
        """Programs, and tests of far above all, count on that."""
        loop = asyncio.get_running_loop()
        for round_ in range(4):
            for _ in range(round_):  # whatever the turn in which it is sent
                await asyncio.sleep(0)
            a, b = socket.socketpair()
            near, _ = await loop.create_connection(asyncio.Protocol, sock=a)
            _, far = await loop.create_connection(Recorder, sock=b)
            near.write(b"x")
            await turns(2)
            assert far.events == ["made", "data"]
            near.write_eof()
            await turns(2)
            assert far.events == ["made", "data", "eof"]
            near.close()
            await far.has("lost")

    async def test_what_others_send_has_come_after_three_turns(self) -> None:
        loop = asyncio.get_running_loop()
        a, b = socket.socketpair()
        with a, b:
            come: list[bytes] = []
            loop.add_reader(b, lambda: come.append(b.recv(1)))
            for count in range(1, 6):
                a.send(b"x")
                await turns(3)
                assert len(come) == count
            loop.remove_reader(b)

    def test_other_threads_do_not_starve_behind_it(self, loop: Loop) -> None:
        def link() -> None:
            loop.call_soon(link)

        thread = threading.Timer(0.01, lambda: loop.call_soon_threadsafe(loop.stop))
        thread.start()
        link()
        loop.run_forever()
        thread.join()

    def test_a_busy_socket_leaves_callbacks_and_timers_their_turn(self, loop: Loop) -> None:
        a, b = socket.socketpair()
        with a, b:
            ran: list[str] = []
            loop.add_writer(a, lambda: None)  # ready at every poll
            loop.call_later(0.005, ran.append, "timer")
            loop.call_later(0.01, lambda: loop.call_soon(loop.stop))
            loop.run_forever()
            loop.remove_writer(a)
            assert ran == ["timer"]


class TestGarbage:
    def test_nothing_of_the_last_callback_is_kept(self, loop: Loop) -> None:
        token = Token()
        gone = weakref.ref(token)
        loop.call_soon(id, token)
        loop.call_later(0, id, token)
        loop.call_soon_threadsafe(id, token)
        del token
        seen: list[object] = []
        # Looked at while the loop runs and later turns have come.
        loop.call_later(0.01, lambda: seen.append(gone()))
        loop.call_later(0.02, loop.stop)
        loop.run_forever()
        assert seen == [None]

    def test_nothing_of_a_callback_that_failed_is_kept(self, loop: Loop) -> None:
        loop.set_exception_handler(lambda *_: None)
        token = Token()
        gone = weakref.ref(token)

        def fail(_: Token) -> None:
            raise ZeroDivisionError

        loop.call_soon(fail, token)
        del token
        seen: list[object] = []
        loop.call_later(0.01, gc.collect)
        loop.call_later(0.015, lambda: seen.append(gone()))
        loop.call_later(0.02, loop.stop)
        loop.run_forever()
        assert seen == [None]

    def test_tasks_and_futures_go_when_they_are_done(self, loop: Loop) -> None:
        gc.collect()
        gc.disable()  # by reference counting alone
        try:

            async def work(token: Token) -> Token:
                await asyncio.sleep(0)
                return token

            async def main() -> list[weakref.ref[Any]]:
                token = Token()
                task = loop.create_task(work(token))
                future = loop.create_future()
                loop.call_soon(future.set_result, token)
                await asyncio.gather(task, future)
                return [weakref.ref(token), weakref.ref(task), weakref.ref(future)]

            references = loop.run_until_complete(main())
            run_one_turn(loop)
            assert [ref() for ref in references] == [None] * 3
        finally:
            gc.enable()

    def test_a_closed_loop_goes(self, ours: EventLoop) -> None:
        loop = EventLoop()
        loop.run_until_complete(asyncio.sleep(0))
        loop.run_until_complete(loop.run_in_executor(None, int))
        loop.close()
        gone = weakref.ref(loop)
        del loop
        gc.collect()
        assert gone() is None


class TestStatistics:
    def test_a_new_loop(self, ours: EventLoop) -> None:
        figures = ours.statistics()
        assert (figures.turns, figures.polls, figures.events) == (0, 0, 0)
        assert (figures.ready, figures.timers, figures.watched) == (0, 0, 1)
        assert figures.running_seconds == figures.idle_seconds == figures.busy_seconds == 0

    def test_counts(self, ours: EventLoop) -> None:
        a, b = socket.socketpair()
        with a, b:
            ours.call_soon(print)
            ours.call_soon_threadsafe(print)
            timers = [ours.call_later(100, print) for _ in range(3)]
            ours.add_reader(a, print)
            ours.add_writer(a, print)
            ours.add_writer(b, print)
            figures = ours.statistics()
            assert (figures.ready, figures.timers, figures.watched) == (2, 3, 3)
            ours.remove_reader(a)
            ours.remove_writer(a)
            ours.remove_writer(b)
            for timer in timers:
                timer.cancel()
            run_one_turn(ours)
            figures = ours.statistics()
            assert (figures.turns, figures.ready, figures.watched) == (1, 0, 1)

    def test_events(self, ours: EventLoop) -> None:
        a, b = socket.socketpair()
        with a, b:
            ours.add_reader(a, lambda: a.recv(1))
            b.send(b"x")
            run_one_turn(ours)
            ours.remove_reader(a)
            figures = ours.statistics()
            assert (figures.turns, figures.polls, figures.events) == (1, 1, 1)

    def test_idle_and_busy_time(self, ours: EventLoop) -> None:
        def begin() -> None:  # in the loop, so that all of the wait is within its run
            ours.call_later(0.02, time.sleep, 0.03)
            ours.call_later(0.02, ours.stop)

        ours.call_soon(begin)
        started = time.monotonic()
        ours.run_forever()
        elapsed = time.monotonic() - started
        figures = ours.statistics()
        # What a busy machine takes of the wait counts as busy: 0.02, but for what is over 0.03.
        assert 0.05 - figures.busy_seconds <= figures.idle_seconds <= elapsed
        assert 0.03 <= figures.busy_seconds <= elapsed
        assert 0.05 <= figures.running_seconds <= elapsed
        time.sleep(0.01)
        assert ours.statistics().running_seconds == figures.running_seconds  # it does not run

    def test_running_time_so_far(self, ours: EventLoop) -> None:
        seen: list[float] = []

        def look() -> None:
            time.sleep(0.01)
            seen.append(ours.statistics().running_seconds)

        ours.call_soon(look)
        run_one_turn(ours)
        assert seen[0] >= 0.01

    def test_lag(self, ours: EventLoop) -> None:
        ours.call_soon(time.sleep, 0.03)
        ours.call_later(0.001, int)
        ours.call_later(0.031, ours.stop)
        ours.run_forever()
        figures = ours.statistics()
        assert figures.max_lag >= 0.02
        assert figures.max_lag >= figures.last_lag >= 0

    def test_a_copy(self, ours: EventLoop) -> None:
        before = ours.statistics()
        run_one_turn(ours)
        assert before.turns == 0
        assert ours.statistics().turns == 1

    def test_from_another_thread_while_it_runs(self, ours: EventLoop) -> None:
        failures: list[BaseException] = []
        stopped = threading.Event()

        def look() -> None:
            try:
                while not stopped.is_set():
                    ours.statistics()
            except BaseException as exc:
                failures.append(exc)

        thread = threading.Thread(target=look)
        thread.start()
        for _ in range(500):
            ours.call_soon(ours.stop)
            ours.run_forever()
        stopped.set()
        thread.join()
        assert failures == []
