"""`TestingLoop`: an event loop whose time the test decides.

Theory of operation. It is our own loop with a clock that is a number. `run_until_idle` has it take
one turn after the other, none of which waits, as `stop()` was called before. `advance` does that at
each time something becomes due, so callbacks see the time they asked for. Where the loop is run as
usual, by `run_until_complete`, it asks how long to wait for the next timer once nothing is ready:
the clock then goes there, and the answer is 0.
"""

import math
from asyncio import events
from collections.abc import Callable
from typing import TypeVar, TypeVarTuple, Unpack

from ..event_loop._crt_loop import HALF_A_NANOSECOND
from ..event_loop._loop import EventLoop

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

MAX_TURNS = 100_000
"""Turns after which a loop that does not come to rest is given up."""


class TestingLoop(EventLoop):
    """An `EventLoop` whose clock stands still until it is told to move on.

    For a plain test, which is no coroutine: `run_until_idle()` and `advance(seconds)` run what the
    test has begun, on the test's own thread, and nothing runs in between. `call` is for what has to
    be called on a running loop.

    Run as other loops are (`run_until_complete`, `asyncio.Runner`), it does not wait for timers
    either: when nothing is ready, the clock jumps to the next one. With no timer it waits for
    descriptors and other threads as usual. Where both are awaited, timers win: a test with threads
    or sockets needs another loop.

    The clock starts at `start`, in seconds. It is the one of `time()`, `call_later`,
    `asyncio.sleep`, `asyncio.timeout`, and of tasks. Whoever made the loop closes it.
    Thread: as with `EventLoop`; the methods below are for one thread only.
    """

    __test__ = False  # says to pytest that this is no class of tests

    def __init__(self, start: float = 0.0) -> None:
        self._nanoseconds = round(start * 1e9)
        super().__init__(clock=lambda: self._nanoseconds)

    def run_until_idle(self) -> None:
        """Run until nothing is ready, at the present time.

        RuntimeError if the loop is running, is closed, or does not come to rest, as something
        schedules itself again and again. What another thread is still busy with is not waited for.
        """
        for _ in range(MAX_TURNS):
            events_before = self._statistics.events
            self.stop()
            self.run_forever()  # one turn, which does not wait
            if self._statistics.events == events_before and not self._is_anything_ready():
                return
        raise RuntimeError(
            f"{self!r} has not come to rest in {MAX_TURNS} turns: something schedules itself again "
            "and again without letting time pass"
        )

    def advance(self, seconds: float) -> None:
        """Let time pass, and run what becomes due meanwhile, each at its time, until idle.

        ValueError if `seconds` is negative, and the errors of `run_until_idle`. In a coroutine,
        `await asyncio.sleep(seconds)` instead: on this loop it takes no time.
        """
        if seconds < 0:
            raise ValueError(f"time cannot go back by {-seconds!r} s")
        target = self._nanoseconds + round(seconds * 1e9)
        self.run_until_idle()
        while self._nanoseconds < target:
            due = self._next_due()
            self._nanoseconds = target if due is None else min(due, target)
            self.run_until_idle()

    def call(self, function: Callable[[Unpack[Ts]], T], *args: *Ts) -> T:
        """Call a function as the loop calls its callbacks; returns or raises what it does.

        Inside, this is the running loop. Nothing else runs: that is for `run_until_idle`.
        RuntimeError if a loop is running already, or this one is closed.
        """
        self._check_closed()
        self._check_running()
        events._set_running_loop(self)
        try:
            return function(*args)
        finally:
            events._set_running_loop(None)

    def _is_anything_ready(self) -> bool:
        return bool(self._ready or self._foreign) or self._next_due() == self._nanoseconds

    def _next_due(self) -> int | None:
        """The nanosecond at which the next timer is due, this one if it is due already."""
        due = self._timers.next_due()
        if due is None or due == math.inf:
            return None
        if due < self.time() + HALF_A_NANOSECOND:
            return self._nanoseconds
        return max(math.ceil((due - HALF_A_NANOSECOND) * 1e9), self._nanoseconds + 1)

    def _time_to_next_timer(self, now: float) -> float | None:
        due = self._next_due()
        if due is None:
            return None
        self._nanoseconds = due
        return 0.0
