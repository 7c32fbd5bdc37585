"""The tasks that wait on one loop.

`_pending` is the arbiter: whoever takes a task out of it, the loop whose turn it is, or who
cancels, calls the task's function. A handle in the loop's queues that comes too late finds that
its submission is not the pending one any more, and does nothing.
"""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from .tasks import Task, TaskStatus

if TYPE_CHECKING:
    from ._crt_loop import CrtLoop

MAX_CANCEL_ROUNDS = 64
"""How often `close()` looks again for tasks that were scheduled while it cancelled others."""


class Submission:
    """One time that a task was scheduled."""

    __slots__ = ("task", "timer")

    def __init__(self, task: Task) -> None:
        self.task = task
        self.timer: asyncio.TimerHandle | None = None


class TaskQueue:
    """Thread: any for the `schedule_` methods, the loop's for the others."""

    def __init__(self, loop: "CrtLoop") -> None:
        self._loop = loop
        self._pending: dict[Task, Submission] = {}
        self._open = True

    def schedule_now(self, task: Task) -> None:
        self._hand_over(self._loop.call_soon_threadsafe, self._run, self._submit(task))

    def schedule_now_serialized(self, task: Task) -> None:
        self._hand_over(self._loop._call_soon_serialized, self._run, self._submit(task))

    def schedule_future(self, task: Task, run_at_nanos: int) -> None:
        when = run_at_nanos / 1e9
        submission = self._submit(task)
        if self._loop.thread_is_callers_thread():
            submission.timer = self._loop.call_at(when, self._run, submission)
        else:
            schedule = self._loop.call_soon_threadsafe
            self._hand_over(schedule, self._start_timer, submission, when)

    def _start_timer(self, submission: Submission, when: float) -> None:
        if self._pending.get(submission.task) is submission:
            submission.timer = self._loop.call_at(when, self._run, submission)

    def _submit(self, task: Task) -> Submission:
        self._loop._check_closed()
        task._make_pending()
        submission = self._pending[task] = Submission(task)
        # Looked at after the task is in: `close()` on another thread saw it, or is seen here.
        if not self._open and self._pending.pop(task, None) is not None:
            task._not_pending()
            raise RuntimeError(f"{task!r} cannot be scheduled: the event loop is closed")
        return submission

    def _hand_over(
        self, schedule: Callable[..., object], run: Callable[..., None], submission: Submission,
        *args: float,
    ) -> None:  # fmt: skip
        """`schedule(run, submission, *args)`, unless the loop is closed and has told the task."""
        try:
            schedule(run, submission, *args)
        except RuntimeError:
            if self._pending.get(submission.task) is submission:
                del self._pending[submission.task]
                submission.task._not_pending()
                raise

    def cancel(self, task: Task) -> None:
        submission = self._pending.pop(task, None)
        if submission is None:
            raise RuntimeError(
                f"{task!r} is not pending on this event loop: cancel only what has been scheduled "
                "on it and has not run yet (see Task.pending)"
            )
        if submission.timer is not None:
            submission.timer.cancel()
        self._call(task, TaskStatus.CANCELED)

    def _run(self, submission: Submission) -> None:
        task = submission.task
        if self._pending.get(task) is submission:
            del self._pending[task]
            self._call(task, TaskStatus.RUN_READY)

    def _call(self, task: Task, status: TaskStatus) -> None:
        task._not_pending()  # so that its function may schedule it again
        try:
            task.function(task, status)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as exc:
            message = f"Exception in {task!r} with status {status.name}"
            self._loop.call_exception_handler({"message": message, "exception": exc})

    def close(self) -> None:
        """Cancel what is pending, in the order in which it was scheduled.

        What the cancelled tasks schedule is cancelled too; a chain of them that does not come to
        an end is cut off: `schedule_` methods raise RuntimeError then, and ever after.
        """
        for _ in range(MAX_CANCEL_ROUNDS):
            if not self._pending:
                break
            self._cancel_all()
        self._open = False
        self._cancel_all()

    def _cancel_all(self) -> None:
        for task in list(self._pending):
            if task in self._pending:  # not cancelled by one before it
                self.cancel(task)

    def disown(self) -> None:
        """This process is a forked child: the tasks are its parent's."""
        self._pending.clear()
