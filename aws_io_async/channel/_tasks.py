"""Tasks of a channel: functions that run on its thread, and are told if the channel ends first.

A task that was scheduled from the channel's own thread is in `_pending` with its handle. One from
another thread, or one that is serialized, passes through `_foreign`, a queue under a lock, which
a single callback on the loop empties; so those keep the order they came in, whatever thread they
came from. Once the channel has shut down nothing is queued any more: tasks are run on the spot,
as cancelled.
"""

import asyncio
import threading
from collections.abc import Callable
from typing import cast

from ..event_loop.tasks import Task, TaskStatus


class ChannelTask(Task):
    """A function for `Channel.schedule_task_now` and its kin.

    `function(task, status)` is called once for each time the task is scheduled: with RUN_READY on
    the channel's thread, or with CANCELED if the channel shuts down first. If it had shut down
    already, that call is made at once, by whoever schedules. What the function raises goes to the
    loop's exception handler. `name` is for messages. Raises TypeError for what is not callable,
    and for coroutine functions: let a plain one call `channel.loop.create_task()`.
    Thread: any; one channel at a time.
    """

    __slots__ = ()

    def __init__(
        self, function: "Callable[[ChannelTask, TaskStatus], object]", name: str = ""
    ) -> None:
        super().__init__(cast(Callable[[Task, TaskStatus], object], function), name)


class TaskQueue:
    """The tasks of one channel. Thread: any to schedule, the channel's for the rest."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, thread_is_callers_thread: Callable[[], bool]
    ) -> None:
        self._loop = loop
        self._on_thread = thread_is_callers_thread
        self._pending: dict[ChannelTask, asyncio.Handle] = {}
        # Reentrant, as a garbage collection may run anything in between. Guards the two below:
        self._lock = threading.RLock()
        self._foreign: list[tuple[ChannelTask, float | None]] = []
        self._shut_down = False

    def schedule(self, task: ChannelTask, when: float | None) -> None:
        """Run the task as soon as possible, or at `when`, a time of the loop's clock.

        RuntimeError if it is scheduled already, or the loop is closed.
        """
        _claim(task)
        if not self._on_thread():
            self._queue(task, when)
        elif self._shut_down:
            self._run(task, TaskStatus.CANCELED)
        else:
            self._hand_to_loop(task, when)

    def schedule_serialized(self, task: ChannelTask) -> None:
        """Run the task after all that were serialized before it, on any thread."""
        _claim(task)
        self._queue(task, None)

    def _queue(self, task: ChannelTask, when: float | None) -> None:
        with self._lock:
            shut_down = self._shut_down
            if not shut_down:
                if not self._foreign:
                    self._unless_closed(task, self._loop.call_soon_threadsafe, self._take_foreign)
                self._foreign.append((task, when))
        if shut_down:
            self._run(task, TaskStatus.CANCELED)

    def _hand_to_loop(self, task: ChannelTask, when: float | None) -> None:
        if when is None:
            handle = self._unless_closed(task, self._loop.call_soon, self._run_pending, task)
        else:
            handle = self._unless_closed(task, self._loop.call_at, when, self._run_pending, task)
        self._pending[task] = handle

    def _unless_closed(
        self, task: ChannelTask, schedule: Callable[..., asyncio.Handle], *args: object
    ) -> asyncio.Handle:
        try:
            return schedule(*args)
        except BaseException:
            task._not_pending()
            raise

    def _take_foreign(self) -> None:
        with self._lock:
            taken, self._foreign = self._foreign, []
        taken.reverse()
        try:
            while taken:
                self._start(*taken.pop())
        finally:
            if taken:  # SystemExit or KeyboardInterrupt: the rest is for the next turn
                with self._lock:
                    self._foreign[:0] = reversed(taken)
                self._loop.call_soon(self._take_foreign)

    def _start(self, task: ChannelTask, when: float | None) -> None:
        if self._shut_down:
            self._run(task, TaskStatus.CANCELED)
        elif when is None:
            self._run(task, TaskStatus.RUN_READY)
        else:
            self._hand_to_loop(task, when)

    def _run_pending(self, task: ChannelTask) -> None:
        del self._pending[task]
        self._run(task, TaskStatus.RUN_READY)

    def _run(self, task: ChannelTask, status: TaskStatus) -> None:
        task._not_pending()  # so that its function may schedule it again
        try:
            task.function(task, status)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as exc:
            self._loop.call_exception_handler(
                {"message": f"Exception in {task!r} with status {status.name}", "exception": exc}
            )

    def shut_down(self) -> None:
        """Run all tasks as cancelled, now and from now on."""
        with self._lock:
            self._shut_down = True
        while self._pending:
            task = next(iter(self._pending))
            self._pending.pop(task).cancel()
            self._run(task, TaskStatus.CANCELED)
        self._take_foreign()


def _claim(task: ChannelTask) -> None:
    if not isinstance(task, ChannelTask):
        raise TypeError(f"a channel runs ChannelTasks, not {task!r}")
    task._make_pending()
