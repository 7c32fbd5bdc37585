"""Telling when something holds up a loop, and what, while it does so.

Theory of operation. A loop counts its turns and its polls anyway, and notes when it waits for the
kernel. A thread looks at these four times within the threshold. A loop that runs, does not wait,
and is in the same turn after the same poll as before is at work on the callbacks of that turn; if
that goes on for the threshold, it stalls. The thread then takes the stack of the loop's thread,
which has the culprit on top.

The thread itself may be held up: a culprit that holds the global interpreter lock lets nobody look
before it is done. Two things make up for that. A look that comes late by the threshold stands for
those that could not be made, if the loop is still at work. And the time that the loop was busy
since the last look, divided by the number of its turns since, is what at least one of them took.
Mostly the lock passes to the thread right where the culprit lets it go, and the stack has it still.
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

    __slots__ = ("_busy", "_seen", "_since", "_threshold", "_turns")

    def __init__(self, threshold: float, figures: LoopStatistics) -> None:
        self._threshold = threshold
        self._seen: tuple[int, int] | None = None
        self._since = 0.0
        self.pass_over(figures)

    def pass_over(self, figures: LoopStatistics) -> None:
        """Ask no more what the loop has done until now."""
        self._turns, self._busy = figures.turns, figures.busy_seconds

    def look(self, figures: LoopStatistics, running: bool, now: float, late: float = 0.0) -> float:
        """Seconds since a look first found the loop where it is now; 0.0 if it has got on.

        Or, if that is the threshold at least, what a turn took that nobody looked at, this look
        being so `late`.
        """
        at_work = running and not figures.waiting
        seen = (figures.turns, figures.polls) if at_work else None
        if seen is None or seen != self._seen:
            unseen = (figures.busy_seconds - self._busy) / (figures.turns - self._turns + 1)
            if at_work:
                unseen = max(unseen, late)
            self._since = now - unseen if unseen >= self._threshold else now
        self._seen = seen
        self.pass_over(figures)
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
        self._meters = {
            weakref.ref(loop): StallMeter(threshold, loop.statistics()) for loop in loops
        }
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

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "watching" if self._thread.is_alive() else "ended"
        return f"<{type(self).__name__} {state} threshold={self._threshold} stalls={self.count}>"

    def _run(self) -> None:
        interval = self._threshold / LOOKS_A_THRESHOLD
        due = time.monotonic() + interval
        while self._meters and not self._closing.wait(interval):
            late = time.monotonic() - due
            for reference in list(self._meters):
                loop = reference()
                if loop is None or loop.is_closed():
                    del self._meters[reference]
                else:
                    self._look_at(loop, reference, late)
                loop = None  # not to keep it alive until the next look
            due = time.monotonic() + interval  # not too late because on_stall took long

    def _look_at(self, loop: EventLoop, reference: "weakref.ref[EventLoop]", late: float) -> None:
        meter, now = self._meters[reference], time.monotonic()
        seconds = meter.look(loop.statistics(), loop.is_running(), now, late)
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
        meter.pass_over(loop.statistics())  # what on_stall has not let us look at


def _describe(loop: EventLoop, seconds: float, meter: StallMeter) -> Stall:
    thread, frame, task = thread_of(loop), None, ""
    if loop._thread_id is not None:
        frame = sys._current_frames().get(loop._thread_id)
    # Lines of source are read afterwards: that lets the loop's thread go on.
    found = [] if frame is None else list(traceback.walk_stack(frame))
    if found:
        task = _task_of(loop)
    if not meter.look(loop.statistics(), loop.is_running(), time.monotonic()):
        found, task = [], ""  # they are of what came after the stall
    stack = traceback.StackSummary.extract(reversed(found))
    return Stall(loop, seconds, "?" if thread is None else thread.name, task, stack)


def _task_of(loop: EventLoop) -> str:
    task = asyncio.current_task(loop)
    return "" if task is None else task.get_name()


def watch_stalls(
    loop: AbstractEventLoop | Iterable[AbstractEventLoop],
    threshold: float = 0.1,
    on_stall: Callable[[Stall], object] = log_stall,
) -> StallWatch:
    """Have `on_stall(stall)` called when a loop is held up for `threshold` seconds.

    `loop` is one of this library's, or several, an `EventLoopGroup` for example. A thread, one for
    all of them, looks at each four times within the threshold; the loops themselves have no work
    with it, and need no debug mode. Each stall is told once, on that thread, while it lasts: if
    `on_stall` takes long, other stalls are told late. What it raises is logged. The default logs a
    warning with the stack, which nobody sees unless the program has set up `logging`.

    The watch ends by `close()`, at the end of a `with` block, or when its loops are closed; it
    does not keep them alive, nor the interpreter from exiting. A forked child has none.

    Raises TypeError for loops that do not count their turns, as asyncio's and uvloop's, and for an
    `on_stall` that cannot be called, and ValueError if `threshold` is not positive or there is no
    loop. Thread: any.
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
    if not callable(on_stall):
        raise TypeError(f"on_stall must be a function of a Stall, not {on_stall!r}")
    return StallWatch(ours, threshold, on_stall)
