"""What a loop counts about itself."""

from dataclasses import dataclass


@dataclass(slots=True)
class LoopStatistics:
    """A loop's figures since it was made. Times are in seconds of `loop.time()`'s clock.

    What is neither idle nor outside `run_forever` is spent in callbacks and in the loop itself.
    """

    turns: int = 0
    """Turns of the loop."""
    polls: int = 0
    """Turns that asked the kernel."""
    events: int = 0
    """Ready descriptors that those polls reported."""
    idle_seconds: float = 0.0
    """Spent waiting for the kernel with nothing else to do."""
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
    gil_enabled: bool = True
    """Whether the interpreter runs with its global lock."""

    @property
    def busy_seconds(self) -> float:
        """Spent running callbacks."""
        return max(0.0, self.running_seconds - self.idle_seconds)

    def note_lag(self, lag: float) -> None:
        """A timer was taken up `lag` seconds late."""
        self.last_lag = lag
        if lag > self.max_lag:
            self.max_lag = lag
