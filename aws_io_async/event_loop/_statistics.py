"""What a loop counts about itself, and how busy it is by that."""

from dataclasses import dataclass


@dataclass(slots=True)
class LoopStatistics:
    """A loop's figures since it was made. Times are in seconds, by the monotonic clock.

    What is neither idle nor outside `run_forever` is spent in callbacks and in the loop itself.
    """

    turns: int = 0
    """Turns of the loop."""
    polls: int = 0
    """Turns that asked the kernel."""
    events: int = 0
    """Ready descriptors that those polls reported."""
    idle_seconds: float = 0.0
    """Spent waiting for the kernel with nothing else to do, up to now if that is what it does."""
    running_seconds: float = 0.0
    """Spent in `run_forever`, up to now if the loop is running."""
    ready: int = 0
    """Callbacks waiting in the ready queue."""
    timers: int = 0
    """Timers scheduled, cancelled ones that have not been dropped yet included."""
    watched: int = 0
    """Descriptors watched, the loop's own one included."""
    last_lag: float = 0.0
    """How late the most recent timer was taken up."""
    max_lag: float = 0.0
    """How late a timer was taken up at worst."""
    waiting: bool = False
    """Whether it waits for the kernel, with nothing else to do, at the moment."""
    gil_enabled: bool = True
    """Whether the interpreter runs with its global lock."""

    @property
    def busy_seconds(self) -> float:
        """Spent running callbacks."""
        return max(0.0, self.running_seconds - self.idle_seconds)

    @property
    def events_per_poll(self) -> float:
        """How many ready descriptors a poll reported, on average: many, if the loop is busy."""
        return self.events / self.polls if self.polls else 0.0

    def note_lag(self, lag: float) -> None:
        """A timer was taken up `lag` seconds late."""
        self.last_lag = lag
        if lag > self.max_lag:
            self.max_lag = lag


LOAD_WINDOW = 1.0
"""Seconds that a load factor looks back at least; twice as many at most, if the loop sleeps at all
in that time."""


class LoadMeter:
    """What share of the last second a loop was busy (after aws-c-io's `register_tick_end`).

    The loop leaves a sample of its figures when it wakes up, at most once a window. A reader
    compares the present with the youngest sample that is old enough. Times are the monotonic
    clock's. Thread: any for `factor`; what it reads while the loop writes is off by a turn at most.
    """

    __slots__ = ("_samples", "_statistics", "asleep_since", "due")

    def __init__(self, statistics: LoopStatistics, now: float) -> None:
        self._statistics = statistics
        self.asleep_since: float | None = None
        """Since when it waits for the kernel, if it does."""
        self.due = now + LOAD_WINDOW
        """When a new sample is wanted."""
        self._samples = ((now, 0.0), (now, 0.0))  # when, and the seconds that it was busy till then

    def _busy_seconds(self, now: float, running_since: float | None) -> float:
        running, idle = self._statistics.running_seconds, self._statistics.idle_seconds
        asleep_since = self.asleep_since
        if running_since is not None:
            running += now - running_since
        if asleep_since is not None:
            idle += now - asleep_since
        return running - idle

    def sample(self, asleep: float, now: float, running_since: float | None) -> None:
        """Note that the loop woke up `now`, having slept since `asleep`."""
        busy = self._busy_seconds(now, running_since)
        older = self._samples[1]
        if now - asleep >= LOAD_WINDOW:  # as if one had been left in its sleep
            older = now - LOAD_WINDOW, busy
        self._samples = older, (now, busy)
        self.due = now + LOAD_WINDOW

    def factor(self, now: float, running_since: float | None) -> float:
        """From 0.0, idle, to 1.0, busy all the time; `running_since` is None if it does not run."""
        older, younger = self._samples
        when, busy = younger if now - younger[0] >= LOAD_WINDOW else older
        if now <= when:
            return 0.0
        busy = self._busy_seconds(now, running_since) - busy
        return min(1.0, max(0.0, busy / (now - when)))
