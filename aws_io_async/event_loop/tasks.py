"""What an event loop runs besides callbacks and coroutines: aws-c-io's tasks.

A task is a function that is called exactly once for each time it is scheduled: with
`TaskStatus.RUN_READY` when its turn has come, or with `TaskStatus.CANCELED` when its turn will
not come any more. What hangs on a task can be released in either case, whereas a callback that a
loop drops is never heard of again.
"""

import enum
import inspect
import threading
from collections.abc import Callable


class TaskStatus(enum.Enum):
    """Why a task's function is called (aws-c-common's task_scheduler.h)."""

    RUN_READY = 0
    """Its turn has come."""
    CANCELED = 1
    """It was cancelled, or its loop was closed first."""


class Task:
    """A function for `EventLoop.schedule_task_now` and its kin.

    `function(task, status)` is called on the loop's thread; what it returns is ignored, and what
    it raises goes to the loop's exception handler. It may schedule its task again. `name` is for
    messages. Raises TypeError for what is not callable, and for coroutine functions: those are
    for `asyncio.Task`s, which a plain function may create.
    Thread: any; one loop at a time.
    """

    __slots__ = ("__weakref__", "_claim", "function", "name")

    def __init__(self, function: Callable[["Task", TaskStatus], object], name: str = "") -> None:
        if not callable(function):
            raise TypeError(f"a task needs a function, not {function!r}")
        if inspect.iscoroutinefunction(function):
            raise TypeError(
                f"a task needs a plain function, not the coroutine function {function!r}: "
                "let a plain one call loop.create_task()"
            )
        self.function = function
        self.name = name
        self._claim = threading.Lock()

    def __repr__(self) -> str:
        name = self.name or getattr(self.function, "__qualname__", repr(self.function))
        return f"<{type(self).__name__} {name}{' pending' if self.pending else ''}>"

    @property
    def pending(self) -> bool:
        """Whether it has been scheduled and its function has not been called yet. Thread: any."""
        return self._claim.locked()

    def _make_pending(self) -> None:
        """It is scheduled. Raises RuntimeError if it is pending already, on whatever loop."""
        if not self._claim.acquire(blocking=False):
            raise RuntimeError(
                f"{self!r} is scheduled already: wait until its function has been called, cancel "
                "it, or use another Task for the same function"
            )

    def _not_pending(self) -> None:
        """Its function is about to be called."""
        self._claim.release()
