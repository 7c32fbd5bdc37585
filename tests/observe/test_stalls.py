"""A watch tells of loops that are held up, and where; the rules with made-up times as well."""

import asyncio
import gc
import logging
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from queue import SimpleQueue

import pytest

from aws_io_async import EventLoop, EventLoopGroup, observe
from aws_io_async.event_loop._statistics import LoopStatistics
from aws_io_async.observe import Stall
from aws_io_async.observe._stalls import StallMeter
from tests.crt_loops import PATIENCE, open_ours, open_running, run_on


@pytest.fixture
def loop() -> Iterator[EventLoop]:
    with open_running("aws_io_async") as loop:
        yield loop


class Watched:
    """Stalls as they are told, and a callback that stalls until it was."""

    def __init__(self) -> None:
        self.stalls: SimpleQueue[Stall] = SimpleQueue()
        self._told = threading.Event()

    def __call__(self, stall: Stall) -> None:
        self.stalls.put(stall)
        self._told.set()

    def hold_up(self) -> None:
        self._told.clear()
        assert self._told.wait(PATIENCE)

    def next(self) -> Stall:
        return self.stalls.get(timeout=PATIENCE)


def test_a_stall_is_told_with_the_stack_while_it_lasts(loop: EventLoop) -> None:
    watched = Watched()
    with observe.watch_stalls(loop, 0.02, watched) as watch:
        run_on(loop, watched.hold_up)  # returns as soon as it was told
        stall = watched.next()
    assert stall.loop is loop
    assert stall.seconds >= 0.02
    assert stall.thread == "aws-io-loop"
    assert stall.task == ""
    assert "hold_up" in [frame.name for frame in stall.stack]
    assert "assert self._told.wait(PATIENCE)" in str(stall)
    assert watch.count == 1
    assert watch.longest >= 0.02


@pytest.mark.loops("aws_io_async")
async def test_the_task_is_named() -> None:
    watched = Watched()

    async def culprit() -> None:
        watched.hold_up()

    loop = asyncio.get_running_loop()
    assert isinstance(loop, EventLoop)
    with observe.watch_stalls(loop, 0.02, watched):
        await loop.create_task(culprit(), name="the culprit")
    stall = watched.next()
    assert (stall.task, stall.thread) == ("the culprit", "MainThread")
    assert "in the culprit" in str(stall)


def test_each_stall_is_told_once(loop: EventLoop) -> None:
    watched = Watched()
    with observe.watch_stalls(loop, 0.02, watched) as watch:
        for _ in range(3):
            run_on(loop, watched.hold_up)
    assert watch.count == watched.stalls.qsize() >= 3


def test_a_long_stall_is_one_and_its_length_is_known(loop: EventLoop) -> None:
    watched = Watched()
    with observe.watch_stalls(loop, 0.1, watched) as watch:

        def hold_up_for_long() -> None:
            watched.hold_up()
            until = time.monotonic() + PATIENCE
            while watch.longest < 0.3 and time.monotonic() < until:
                time.sleep(0.001)

        run_on(loop, hold_up_for_long)
    assert watch.longest >= 0.3
    assert watch.count == 1


def test_many_callbacks_of_one_turn_can_be_a_stall_too(loop: EventLoop) -> None:
    watched = Watched()

    def fill() -> None:
        for _ in range(2000):
            loop.call_soon(time.sleep, 0.0001)

    with observe.watch_stalls(loop, 0.02, watched):
        run_on(loop, fill)
        assert watched.next().seconds >= 0.02


def test_neither_sleep_nor_many_turns_is_a_stall(loop: EventLoop) -> None:
    watched = Watched()

    async def be_lively() -> None:
        until = time.monotonic() + 1.1
        while time.monotonic() < until:  # noqa: ASYNC110  # the turns are what it is about
            await asyncio.sleep(0)
        await asyncio.sleep(1.1)

    with observe.watch_stalls(loop, 1.0, watched) as watch:
        asyncio.run_coroutine_threadsafe(be_lively(), loop).result()
    assert watch.count == 0


def test_a_loop_that_does_not_run_is_not_stalled() -> None:
    watched = Watched()
    with open_ours("aws_io_async") as loop, observe.watch_stalls(loop, 0.004, watched) as watch:
        threading.Event().wait(0.1)
        assert watch.count == 0


def test_one_watch_for_a_group() -> None:
    watched = Watched()
    with EventLoopGroup(2) as group, observe.watch_stalls(group, 0.02, watched):
        before = threading.active_count()
        for index in range(2):
            loop = group.get_loop_at(index)
            loop.call_soon_threadsafe(watched.hold_up)
            stall = watched.next()
            assert stall.loop is loop
            assert stall.thread == f"aws-io-loop-{index}"
        assert threading.active_count() == before


@pytest.mark.parametrize("turns_before", [0, 1000])
def test_a_culprit_that_holds_the_interpreter_lock(loop: EventLoop, turns_before: int) -> None:
    """The watch cannot look while it does: one call of C code, which lets nobody in."""
    watched = Watched()

    def hold_the_lock() -> None:
        sum(range(30_000_000))

    def come_to_it(turns: int) -> None:
        if turns:
            loop.call_soon(come_to_it, turns - 1)
        else:
            hold_the_lock()

    with observe.watch_stalls(loop, 0.1, watched):
        loop.call_soon_threadsafe(loop.call_later, 0.02, come_to_it, turns_before)
        stall = watched.next()
    assert stall.seconds >= 0.1
    assert "hold_the_lock" in [frame.name for frame in stall.stack]


def test_the_default_is_to_log(loop: EventLoop, caplog: pytest.LogCaptureFixture) -> None:
    told = threading.Event()

    class Tell(logging.Filter):
        def filter(self, record: logging.LogRecord) -> bool:
            told.set()
            return True

    logger = logging.getLogger("aws_io_async.event_loop")
    tell = Tell()
    logger.addFilter(tell)
    with caplog.at_level(logging.WARNING, logger.name), observe.watch_stalls(loop, 0.02):
        run_on(loop, told.wait, PATIENCE)
    logger.removeFilter(tell)
    assert caplog.records[0].levelname == "WARNING"
    text = caplog.records[0].getMessage()
    assert "on aws-io-loop has been in one turn for 0." in text
    assert "in wait" in text


def test_what_on_stall_raises_is_logged(loop: EventLoop, caplog: pytest.LogCaptureFixture) -> None:
    watched = Watched()

    def on_stall(stall: Stall) -> None:
        watched(stall)
        raise ZeroDivisionError("mine")

    with observe.watch_stalls(loop, 0.02, on_stall) as watch:
        run_on(loop, watched.hold_up)
        run_on(loop, watched.hold_up)  # the watch goes on
    assert watch.count >= 2
    assert "on_stall" in caplog.text
    assert "ZeroDivisionError: mine" in caplog.text


def test_on_stall_may_end_the_watch(loop: EventLoop) -> None:
    closed = threading.Event()

    def on_stall(stall: Stall) -> None:
        watch.close()
        closed.set()

    watch = observe.watch_stalls(loop, 0.02, on_stall)
    run_on(loop, closed.wait, PATIENCE)
    watch.close()
    assert closed.is_set()
    assert "ended" in repr(watch)


def test_a_watch_ends_with_its_loops() -> None:
    loop = EventLoop()
    watch = observe.watch_stalls(loop, 0.004)
    assert "watching" in repr(watch)
    loop.close()
    watch._thread.join(PATIENCE)
    assert "ended" in repr(watch)
    watch.close()


def test_a_watch_does_not_keep_its_loop() -> None:
    loop = EventLoop()
    with observe.watch_stalls(loop, 0.004) as watch:
        loop.close()
        gone = weakref.ref(loop)
        del loop
        watch._thread.join(PATIENCE)
        gc.collect()
        assert gone() is None


@pytest.mark.loops("asyncio", "uvloop")
async def test_other_loops_are_refused() -> None:
    with pytest.raises(TypeError, match="does not count its turns"):
        observe.watch_stalls([asyncio.get_running_loop()])
    with pytest.raises(TypeError, match="does not count its turns"):
        observe.watch_stalls(asyncio.get_running_loop())


def test_bad_arguments() -> None:
    with open_ours("aws_io_async") as loop:
        for threshold in (0, -1, float("nan"), float("inf")):
            with pytest.raises(ValueError, match="threshold"):
                observe.watch_stalls(loop, threshold)
        with pytest.raises(TypeError, match="on_stall must be a function of a Stall, not 3"):
            observe.watch_stalls(loop, on_stall=3)  # type: ignore[arg-type]  # on purpose
    with pytest.raises(ValueError, match="no loop"):
        observe.watch_stalls([])


def figures(turns: int, polls: int = 0, waiting: bool = False, busy: float = 0.0) -> LoopStatistics:
    return LoopStatistics(turns=turns, polls=polls, waiting=waiting, running_seconds=busy)


def test_the_meter_counts_from_when_it_first_saw_the_turn() -> None:
    meter = StallMeter(0.7, figures(7, 3))
    assert meter.look(figures(7, 3), True, 10.0) == 0.0
    assert meter.look(figures(7, 3), True, 10.5) == 0.5
    assert meter.look(figures(7, 3), True, 11.0) == 1.0
    assert meter.look(figures(8, 3), True, 11.5) == 0.0
    # Before its poll and after it, with a sleep in between that nobody saw.
    assert meter.look(figures(8, 4), True, 15.0) == 0.0
    assert meter.look(figures(8, 4), True, 16.0) == 1.0
    assert meter.look(figures(8, 4, waiting=True), True, 17.0) == 0.0
    assert meter.look(figures(8, 4, waiting=True), True, 18.0) == 0.0
    assert meter.look(figures(8, 4), False, 19.0) == 0.0
    assert meter.look(figures(8, 4), False, 20.0) == 0.0


def test_a_late_look_counts_for_a_loop_that_is_at_work() -> None:
    meter = StallMeter(3.0, figures(1))
    assert meter.look(figures(1, 1, waiting=True), True, 10.0, 4.0) == 0.0
    assert meter.look(figures(1000, 2), True, 15.0, 4.0) == 4.0
    assert meter.look(figures(1000, 2), True, 16.0) == 5.0
    assert meter.look(figures(1001, 2), True, 17.0, 2.9) == 0.0


def test_a_turn_that_nobody_looked_at_is_known_by_the_time_it_took() -> None:
    meter = StallMeter(3.0, figures(1, 1))
    assert meter.look(figures(2, 2, waiting=True, busy=8.0), True, 10.0) == 4.0
    assert meter.look(figures(2, 2, waiting=True, busy=8.0), True, 11.0) == 0.0
    assert (
        meter.look(figures(9, 9, waiting=True, busy=16.0), True, 20.0) == 0.0
    )  # eight of a second
    meter.pass_over(figures(10, 10, busy=30.0))
    assert meter.look(figures(10, 10, waiting=True, busy=30.0), True, 35.0) == 0.0


@pytest.mark.skipif(sys.version_info < (3, 12), reason="needs sys.monitoring")
def test_the_loop_itself_has_no_work_with_it(loop: EventLoop) -> None:
    """While a watch looks on, the loop's thread runs the same Python functions as without."""
    monitoring = sys.monitoring  # type: ignore[attr-defined,unused-ignore]  # of Python 3.12
    called: set[str] = set()
    thread = run_on(loop, threading.get_ident)

    def note(code: object, offset: int) -> None:
        if threading.get_ident() == thread:
            called.add(code.co_qualname)  # type: ignore[attr-defined]

    monitoring.use_tool_id(3, "test")
    monitoring.register_callback(3, monitoring.events.PY_START, note)
    monitoring.set_events(3, monitoring.events.PY_START)
    try:
        run_on(loop, int)
        before = set(called)
        with observe.watch_stalls(loop, 0.004):
            threading.Event().wait(0.05)
            run_on(loop, int)
        assert called == before
    finally:
        monitoring.set_events(3, 0)
        monitoring.free_tool_id(3)
