"""Telling when something holds up a loop, and what, while it does so.

Theory of operation. A loop counts its turns and its polls anyway, and notes when it waits for the
kernel. A thread looks at these four times within the threshold. A loop that runs, does not wait,
and is in the same turn after the same poll as before is at work on the callbacks of that turn; if
that goes on for the threshold, it stalls. The thread then takes the stack of the loop's thread,
which has the culprit on top.

The loop itself does nothing for all this. A stall of which the thread gets no look, since the
culprit holds the global interpreter lock, is told when the lock is let go.
"""

import asyncio
import math
import sys
import threading
import time
import traceback
import weakref
from asyncio import AbstractEventLoop
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from .. import log
from ..event_loop._loop import EventLoop
from ..event_loop._statistics import LoopStatistics
from ._loops import loop_name, thread_of

LOOKS_A_THRESHOLD = 4
"""How often a loop is looked at within the threshold: a stall is told at most this part late."""

logger = log.logger(log.LogSubject.EVENT_LOOP)


@dataclass(frozen=True)
class Stall:
    """A loop that was in the same turn for longer than it should be."""

    loop: EventLoop
    seconds: float
    """How long it has lasted so far, at least."""
    thread: str
    """The name of the loop's thread."""
    task: str
    """The name of the task that runs; "" if it is a plain callback."""
    stack: traceback.StackSummary
    """What the loop's thread is at, the culprit last. Empty if it has just gone on."""

    def __str__(self) -> str:
        where = f"{loop_name(self.loop)} on {self.thread}"
        task = f", in {self.task}" if self.task else ""
        lines = "".join(self.stack.format()).rstrip()
        found = f"\n{lines}" if lines else ": it has gone on since"
        return f"{where} has been in one turn for {self.seconds:.3f} s{task}{found}"


def log_stall(stall: Stall) -> None:
    """Log a warning with the stack. The logger is `aws_io_async.event_loop`."""
    logger.warning("%s", stall)


class StallMeter:
    """For how long one loop has been in its present turn. The time is an argument."""

    __slots__ = ("_seen", "_since")

    def __init__(self) -> None:
        self._seen: tuple[int, int] | None = None
        self._since = 0.0

    def look(self, figures: LoopStatistics, running: bool, now: float) -> float:
        """Seconds since a look first found the loop where it is now; 0.0 if it gets on."""
        seen = (figures.turns, figures.polls) if running and not figures.waiting else None
        if seen is None or seen != self._seen:
            self._seen, self._since = seen, now
        return now - self._since


class StallWatch:
    """Made by `watch_stalls`: a thread that looks at loops, until `close()`. Thread: any."""

    def __init__(
        self, loops: Iterable[EventLoop], threshold: float, on_stall: Callable[[Stall], object]
    ) -> None:
        self.count = 0
        """How many stalls were found."""
        self.longest = 0.0
        """Seconds that the longest of them lasted, as far as it was seen."""
        self._threshold = threshold
        self._on_stall = on_stall
        self._meters = {weakref.ref(loop): StallMeter() for loop in loops}
        self._told: set[weakref.ref[EventLoop]] = set()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="aws-io-stall-watch", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the watch, and wait until its thread is done; idempotent.

        Called by `on_stall` itself, it does not wait.
        """
        self._closing.set()
        if self._thread is not threading.current_thread():
            self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "watching" if self._thread.is_alive() else "ended"
        return f"<{type(self).__name__} {state} threshold={self._threshold} stalls={self.count}>"

    def _run(self) -> None:
        while self._meters and not self._closing.wait(self._threshold / LOOKS_A_THRESHOLD):
            for reference in list(self._meters):
                loop = reference()
                if loop is None or loop.is_closed():
                    del self._meters[reference]
                else:
                    self._look_at(loop, reference)
                loop = None  # not to keep it alive until the next look

    def _look_at(self, loop: EventLoop, reference: "weakref.ref[EventLoop]") -> None:
        meter = self._meters[reference]
        seconds = meter.look(loop.statistics(), loop.is_running(), time.monotonic())
        if seconds < self._threshold:
            self._told.discard(reference)
            return
        self.longest = max(self.longest, seconds)
        if reference in self._told:
            return
        self._told.add(reference)
        self.count += 1
        stall = _describe(loop, seconds, meter)
        try:
            self._on_stall(stall)
        except Exception:
            logger.exception("on_stall %r failed", self._on_stall)


def _describe(loop: EventLoop, seconds: float, meter: StallMeter) -> Stall:
    thread = thread_of(loop)
    stack = traceback.StackSummary()
    task = ""
    frame = None if loop._thread_id is None else sys._current_frames().get(loop._thread_id)
    if frame is not None:
        stack = traceback.extract_stack(frame)
        task = _task_of(loop)
    del frame
    if not meter.look(loop.statistics(), loop.is_running(), time.monotonic()):
        stack, task = traceback.StackSummary(), ""  # they are of what came after the stall
    return Stall(loop, seconds, "?" if thread is None else thread.name, task, stack)


def _task_of(loop: EventLoop) -> str:
    task = asyncio.current_task(loop)
    return "" if task is None else task.get_name()


def watch_stalls(
    loop: EventLoop | Iterable[AbstractEventLoop],
    threshold: float = 0.1,
    on_stall: Callable[[Stall], object] = log_stall,
) -> StallWatch:
    """Have `on_stall(stall)` called when a loop is held up for `threshold` seconds.

    `loop` is one of this library's, or several, an `EventLoopGroup` for example. A thread, one for
    all of them, looks at each four times within the threshold; the loops themselves have no work
    with it, and need no debug mode. Each stall is told once, on that thread, while it lasts: if
    `on_stall` takes long, other stalls are told late. What it raises is logged. The default logs a
    warning with the stack.

    The watch ends by `close()`, at the end of a `with` block, or when its loops are closed; it
    does not keep them alive, nor the interpreter from exiting. A forked child has none.

    Raises TypeError for loops that do not count their turns, as asyncio's and uvloop's, and
    ValueError if `threshold` is not positive or there is no loop. Thread: any.
    """
    loops = [loop] if isinstance(loop, AbstractEventLoop) else list(loop)
    ours = [each for each in loops if isinstance(each, EventLoop)]
    if len(ours) < len(loops):
        other = next(each for each in loops if not isinstance(each, EventLoop))
        raise TypeError(f"{other!r} does not count its turns: only loops of aws_io_async do")
    if not ours:
        raise ValueError("there is no loop to watch")
    if not 0 < threshold < math.inf:
        raise ValueError(f"threshold must be a positive number of seconds, not {threshold!r}")
    return StallWatch(ours, threshold, on_stall)
