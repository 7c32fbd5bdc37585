"""Loops for the tests of aws-c-io's face: on each poller, idle or running on their own thread."""

from collections.abc import Iterator
from contextlib import contextmanager
from queue import SimpleQueue
from typing import Any

from aws_io_async import EventLoop
from aws_io_async.event_loop.tasks import Task, TaskStatus
from tests.pollers import OURS, open_loop

KINDS = OURS
"""For the parameters of fixtures: see `open_ours` and `open_running`."""

PATIENCE = 30.0
"""Seconds after which something that should have happened is missed."""


@contextmanager
def open_ours(kind: str) -> Iterator[EventLoop]:
    """A loop that does not run."""
    with open_loop(kind) as loop:
        assert isinstance(loop, EventLoop)
        yield loop


@contextmanager
def open_running(kind: str) -> Iterator[EventLoop]:
    """A loop that runs on a thread of its own."""
    with open_ours(kind) as loop:
        loop.run()
        try:
            yield loop
        finally:
            loop.stop()
            loop.wait_for_stop_completion()


class Recorder:
    """Makes tasks that note how, and hands out the notes to whoever waits for them."""

    def __init__(self) -> None:
        self.notes: SimpleQueue[Any] = SimpleQueue()

    def task(self, name: str = "") -> Task:
        return Task(lambda task, status: self.notes.put((task.name, status)), name)

    def next(self) -> Any:
        """The oldest note that has not been taken, once there is one."""
        return self.notes.get(timeout=PATIENCE)

    def all(self) -> list[Any]:
        """The notes there are, oldest first."""
        taken = []
        while not self.notes.empty():
            taken.append(self.notes.get())
        return taken


def ran(*names: str) -> list[tuple[str, TaskStatus]]:
    return [(name, TaskStatus.RUN_READY) for name in names]


def cancelled(*names: str) -> list[tuple[str, TaskStatus]]:
    return [(name, TaskStatus.CANCELED) for name in names]


def run_on(loop: EventLoop, function: Any, *args: Any) -> Any:
    """Call a function on a running loop's thread; returns or raises what it does."""
    results: SimpleQueue[tuple[Any, BaseException | None]] = SimpleQueue()

    def call(_task: Task, _status: TaskStatus) -> None:
        try:
            results.put((function(*args), None))
        except BaseException as exc:
            results.put((None, exc))

    loop.schedule_task_now(Task(call))
    result, error = results.get(timeout=PATIENCE)
    if error is not None:
        raise error
    return result


def run_until_idle(loop: EventLoop) -> None:
    """Run until all that was ready has had its turn, what it made ready included."""
    for _ in range(20):
        loop.stop()
        loop.run_forever()


def collect_errors(loop: EventLoop) -> list[dict[str, Any]]:
    errors: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: errors.append(context))
    return errors
