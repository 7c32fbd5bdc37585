"""The queue of timers by itself: the times are plain numbers, no clock is involved."""

import random
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from types import FrameType
from typing import Any

import pytest

from aws_io_async._timer_queue import SWEEP_MINIMUM, TimerQueue


class Timer:
    """A timer that tells its queue of its cancellation, as the loop's handles do."""

    def __init__(self, queue: "TimerQueue[Timer]", when: float) -> None:
        self.queue = queue
        self.when = when
        self.is_cancelled = False
        queue.push(when, self)

    def cancelled(self) -> bool:
        return self.is_cancelled

    def cancel(self) -> None:
        if not self.is_cancelled:
            self.is_cancelled = True
            self.queue.note_cancelled()


@pytest.fixture
def queue() -> TimerQueue[Timer]:
    return TimerQueue()


def pop_live(queue: TimerQueue[Timer], now: float) -> list[Timer]:
    """Those due before `now` that the owner would run."""
    return [timer for timer in queue.pop_due(now) if not timer.cancelled()]


def test_empty(queue: TimerQueue[Timer]) -> None:
    assert queue.next_due() is None
    assert queue.pop_due(float("inf")) == []


def test_the_earliest_comes_first(queue: TimerQueue[Timer]) -> None:
    times = [float(n) for n in range(500)]
    random.Random(1).shuffle(times)
    for when in times:
        Timer(queue, when)
    assert queue.next_due() == 0.0
    assert [timer.when for timer in queue.pop_due(250.0)] == sorted(times)[:250]
    assert queue.next_due() == 250.0
    assert [timer.when for timer in queue.pop_due(1000.0)] == sorted(times)[250:]
    assert queue.next_due() is None


def test_due_means_before_now(queue: TimerQueue[Timer]) -> None:
    timer = Timer(queue, 5.0)
    assert queue.pop_due(5.0) == []
    assert queue.pop_due(5.1) == [timer]


def test_ties_keep_the_order_of_arrival(queue: TimerQueue[Timer]) -> None:
    timers = [Timer(queue, float(when)) for when in [1, 2, 1, 2, 1] * 40]
    expected = [t for t in timers if t.when == 1.0] + [t for t in timers if t.when == 2.0]
    assert queue.pop_due(3.0) == expected


def test_ties_keep_the_order_of_arrival_across_a_sweep(queue: TimerQueue[Timer]) -> None:
    timers = [Timer(queue, 1.0) for _ in range(1000)]
    kept = timers[::4]
    for timer in timers:
        if timer not in kept:
            timer.cancel()
    assert len(queue) < len(timers)
    assert pop_live(queue, 2.0) == kept


def test_infinite_times_are_ordered(queue: TimerQueue[Timer]) -> None:
    never, now, always = (Timer(queue, when) for when in (float("inf"), 0, float("-inf")))
    assert queue.next_due() == float("-inf")
    assert queue.pop_due(1.0) == [always, now]
    assert queue.next_due() == float("inf")
    assert queue.pop_due(1e300) == []
    assert not never.cancelled()


def test_nan_has_no_order(queue: TimerQueue[Timer]) -> None:
    with pytest.raises(ValueError, match="NaN"):
        Timer(queue, float("nan"))
    assert queue.next_due() is None


@pytest.mark.parametrize("when", [None, "1", 1j, [1.0]])
def test_what_is_no_number_is_refused(queue: TimerQueue[Timer], when: Any) -> None:
    with pytest.raises(TypeError):
        Timer(queue, when)
    assert queue.next_due() is None


def test_next_due_passes_over_cancelled_timers(queue: TimerQueue[Timer]) -> None:
    timers = [Timer(queue, float(n)) for n in range(10)]
    for timer in timers[:5]:
        timer.cancel()
    assert queue.next_due() == 5.0
    for timer in timers[5:]:
        timer.cancel()
    assert queue.next_due() is None


def test_cancelled_timers_do_not_pile_up(queue: TimerQueue[Timer]) -> None:
    """Timeouts are nearly always cancelled: 100,000 of them must not wait for their time."""
    live = [Timer(queue, 1000.0 + n) for n in range(10)]
    for n in range(100_000):
        Timer(queue, float(n)).cancel()
        assert len(queue) <= 2 * len(live) + SWEEP_MINIMUM + 2
    assert pop_live(queue, 1e6) == live


def test_a_mass_cancellation_frees_the_timers(queue: TimerQueue[Timer]) -> None:
    timers = [Timer(queue, float(n)) for n in range(100_000)]
    for timer in timers[10:]:
        timer.cancel()
    assert len(queue) <= 2 * 10 + SWEEP_MINIMUM
    assert pop_live(queue, 1e6) == timers[:10]


def test_cancelling_after_it_left_does_no_harm(queue: TimerQueue[Timer]) -> None:
    gone = [Timer(queue, 1.0) for _ in range(10 * SWEEP_MINIMUM)]
    assert queue.pop_due(2.0) == gone
    live = [Timer(queue, 3.0) for _ in range(5)]
    for timer in gone:
        timer.cancel()
    assert queue.pop_due(4.0) == live


def test_a_timer_whose_finalizer_cancels_others(queue: TimerQueue[Timer]) -> None:
    """What a sweep drops may own other timers, and cancel or add some as it goes."""

    class Owner(Timer):
        def __init__(self, when: float, owned: list[Timer]) -> None:
            super().__init__(queue, when)
            self.owned = owned

        def __del__(self) -> None:
            for timer in self.owned:
                timer.cancel()
            added.append(Timer(queue, 500.0))

    added: list[Timer] = []
    live = [Timer(queue, 100.0 + n) for n in range(20)]
    owners = [Owner(200.0, [Timer(queue, 300.0)] if n % 4 == 0 else []) for n in range(400)]
    while owners:
        owners.pop().cancel()
    assert added  # a sweep has come by
    assert pop_live(queue, 200.0) == live
    expected = set(added)
    assert set(pop_live(queue, 1000.0)) >= expected


@contextmanager
def finalizers(*functions: Any, finalize: Callable[[], object]) -> Iterator[None]:
    """The collector, and so a finalizer, may run between any two bytecodes; here it does."""
    codes = [function.__code__ for function in functions]

    def trace(frame: FrameType, event: str, _: object) -> Any:
        frame.f_trace_opcodes = True
        if event == "opcode" and frame.f_code in codes:
            finalize()
        return trace

    tracing = sys.gettrace()
    sys._getframe().f_trace_opcodes = True  # or Python 3.12 has no such events yet
    sys.settrace(trace)
    try:
        yield
    finally:
        sys.settrace(tracing)


@pytest.mark.parametrize("timers", [1, 3 * SWEEP_MINIMUM])
def test_a_timer_made_by_a_finalizer_is_not_lost(queue: TimerQueue[Timer], timers: int) -> None:
    made = [Timer(queue, 1.0) for _ in range(timers)]

    def make_one() -> None:
        made.append(Timer(queue, 1.0))

    with finalizers(TimerQueue.settle, TimerQueue._sweep, finalize=make_one):
        for timer in made[:-1]:
            timer.cancel()
        queue.settle()
    assert len(made) > timers
    found = pop_live(queue, 2.0)
    assert found == [timer for timer in made if not timer.cancelled()]


def test_finalizers_may_cancel_while_timers_are_taken(queue: TimerQueue[Timer]) -> None:
    for moment in count(1):
        due = [Timer(queue, 1.0) for _ in range(20)]
        dead = [Timer(queue, 1.0) for _ in range(2 * SWEEP_MINIMUM)]
        later = [Timer(queue, 3.0) for _ in range(20)]
        moments = count(1)

        def cancel_at_the_moment(
            moment: int = moment, moments: Iterator[int] = moments, dead: list[Timer] = dead
        ) -> None:
            if next(moments) == moment:
                for timer in dead:
                    timer.cancel()

        with finalizers(TimerQueue.pop_due, TimerQueue._cut, finalize=cancel_at_the_moment):
            taken = queue.pop_due(2.0)
        assert [timer for timer in taken if timer not in dead] == due
        assert pop_live(queue, 4.0) == later
        if not any(timer.cancelled() for timer in dead):
            break  # there are not so many moments


@pytest.mark.parametrize("burst", [1, 5, 100])
def test_random_operations_against_a_sorted_list(queue: TimerQueue[Timer], burst: int) -> None:
    rng = random.Random(7)
    model: list[Timer] = []
    now = 0.0
    for _ in range(20_000 // burst):
        action = rng.random()
        if action < 0.55:
            for _ in range(rng.randint(1, burst)):
                model.append(Timer(queue, now + rng.choice([1, 1, 2, 5, 50, 500])))
        elif action < 0.95 and model:
            model.pop(rng.randrange(len(model))).cancel()
        else:
            now += 1
            due = sorted((t for t in model if t.when < now), key=lambda timer: timer.when)
            assert pop_live(queue, now) == due
            model = [t for t in model if t.when >= now]
        assert queue.next_due() == min((t.when for t in model), default=None)


def test_clear(queue: TimerQueue[Timer]) -> None:
    timers = [Timer(queue, 1.0) for _ in range(200)]
    queue.clear()
    assert queue.next_due() is None
    for timer in timers:
        timer.cancel()
    later = Timer(queue, 3.0)
    assert queue.pop_due(4.0) == [later]
