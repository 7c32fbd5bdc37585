"""`CrtLoop`: aws-c-io's event loop, on the same object as asyncio's.

Tasks, clock, subscriptions to descriptors, local objects, a thread of its own and the load factor
of aws-c-io's `event_loop.h`. Each method hands over to the module that it belongs to.
"""

import threading
import time
from collections.abc import Callable, Hashable
from selectors import BaseSelector
from typing import Any

from ._io_subscriptions import IoSubscriptions, OnEvent
from ._local_objects import LocalObjects, Removed
from ._own_thread import OwnThread
from ._runtime import Runtime
from ._task_queue import TaskQueue
from .io_handle import IoEvents, IoHandle
from .tasks import Task

Clock = Callable[[], int]
"""Nanoseconds of a clock that does not go back."""

HALF_A_NANOSECOND = 0.5e-9


class CrtLoop(Runtime):
    """The part of a loop that asyncio's have not got.

    `clock` replaces the monotonic clock for `time()`, timers and tasks, in tests. Moving it does
    not wake a loop that waits in real time: whoever moves it calls `call_soon_threadsafe` then.
    """

    def __init__(self, selector: BaseSelector | None = None, clock: Clock | None = None) -> None:
        super().__init__(selector)
        self._clock: Clock = time.monotonic_ns
        if clock is not None:
            self._clock = clock
            self._now = lambda: clock() / 1e9
            self._clock_resolution = HALF_A_NANOSECOND  # a timer is due at its nanosecond
        self._closing_thread: int | None = None
        self._tasks = TaskQueue(self)
        self._subscriptions = IoSubscriptions(self)
        self._local_objects = LocalObjects()
        self._own_thread = OwnThread(self)

    # A thread of its own

    def run(self, name: str = "aws-io-loop") -> None:
        """Run the loop on a new thread, until `stop()`; returns once it runs.

        The thread has this name and an empty context, and does not keep the interpreter from
        exiting. A loop that was stopped can be run again. Raises RuntimeError if the loop runs
        already or is closed, or if no thread can be started. Thread: any but the loop's, one at
        a time.
        """
        self._check_closed()
        self._check_not_running()
        self._own_thread.start(name)

    def wait_for_stop_completion(self) -> None:
        """Wait until the thread that `run()` started has ended. `stop()` is another's to call.

        Returns at once if there is no such thread. If a callback ended the loop by SystemExit or
        KeyboardInterrupt, that is raised. Raises RuntimeError on the loop's own thread.
        Thread: any other.
        """
        self._own_thread.wait()

    def thread_is_callers_thread(self) -> bool:
        """Whether the loop runs, or is just being closed, on the calling thread. Thread: any."""
        return threading.get_ident() in (self._thread_id, self._closing_thread)

    @property
    def load_factor(self) -> float:
        """The share of the last one to two seconds that the loop was busy: 0.0 to 1.0.

        By the monotonic clock, whatever the loop's own is. Thread: any.
        """
        return self._load.factor(time.monotonic(), self._started_at)

    def current_clock_time(self) -> int:
        """The time in nanoseconds, of the clock that `time()` tells in seconds. Thread: any."""
        return self._clock()

    # Tasks

    def schedule_task_now(self, task: Task) -> None:
        """Have `task` run as soon as possible.

        All `schedule_` methods raise RuntimeError if the task is pending already, here or on
        another loop, and if this loop is closed. Tasks that are pending when the loop is closed
        are cancelled by `close()`, on the thread that calls it. Thread: any.
        """
        self._tasks.schedule_now(task)

    def schedule_task_now_serialized(self, task: Task) -> None:
        """The same; tasks scheduled by this method run in the order of the calls.

        That holds over all threads, the loop's among them, whose `schedule_task_now` may overtake
        what other threads have scheduled. Cancelled tasks keep no order. Thread: any.
        """
        self._tasks.schedule_now_serialized(task)

    def schedule_task_future(self, task: Task, run_at_nanos: int) -> None:
        """Have `task` run when `current_clock_time()` reaches `run_at_nanos`. Thread: any."""
        self._tasks.schedule_future(task, run_at_nanos)

    def cancel_task(self, task: Task) -> None:
        """Call the task's function with `TaskStatus.CANCELED`, at once, instead of in its turn.

        Raises RuntimeError if the task is not pending on this loop, and
        ERROR_IO_EVENT_LOOP_THREAD_ONLY on a wrong thread. Thread: the loop's; any while the loop
        does not run.
        """
        self._check_loop_thread("cancel_task")
        self._tasks.cancel(task)

    # Descriptors

    def subscribe_to_io_events(self, handle: IoHandle, events: IoEvents, on_event: OnEvent) -> None:
        """Call `on_event(loop, handle, events)` at each new event of the handle's descriptor.

        `events` asks for READABLE, WRITABLE or both; hang-ups and errors are always told. A first
        call comes for what is so at the time of subscribing. From then on each is about something
        new: who was told that the descriptor is readable and does not read until there is no more
        hears of the rest when new data come, and not before. Calls are made on the loop's thread
        in a copy of the present context; exceptions go to the loop's exception handler. The
        descriptor should not block.

        Raises ERROR_IO_ALREADY_SUBSCRIBED if the descriptor has a subscriber on this loop,
        RuntimeError if a transport of the loop owns it or the loop is closed, ValueError and
        TypeError for bad arguments, and OSError if the kernel refuses it (EBADF if it is closed;
        EPERM for a regular file on Linux). Thread: any.
        """
        self._subscriptions.subscribe(handle, events, on_event)

    def unsubscribe_from_io_events(self, handle: IoHandle) -> None:
        """End a subscription. No call follows, not even for an event that was found already.

        Raises ERROR_IO_NOT_SUBSCRIBED if the handle has no subscriber on this loop, and
        ERROR_IO_EVENT_LOOP_THREAD_ONLY on a wrong thread. Closing the loop ends all
        subscriptions. Thread: the loop's; any while the loop does not run.
        """
        self._check_loop_thread("unsubscribe_from_io_events")
        self._subscriptions.unsubscribe(handle)

    # Local objects

    def put_local_object(
        self, key: Hashable, value: Any, on_removed: Removed | None = None
    ) -> None:
        """Keep `value` for this loop under `key`, in place of what was there.

        `on_removed(value)` is called once: when the object is removed or replaced, or when the
        loop is closed, after the pending tasks were cancelled, on the thread that closes it.

        The three methods raise ERROR_IO_EVENT_LOOP_THREAD_ONLY on a wrong thread. Thread: the
        loop's; any while the loop does not run.
        """
        self._check_loop_thread("put_local_object")
        self._check_closed()
        self._local_objects.put(key, value, on_removed)

    def fetch_local_object(self, key: Hashable) -> Any:
        """What was put under `key`. Raises KeyError if there is nothing."""
        self._check_loop_thread("fetch_local_object")
        return self._local_objects.fetch(key)

    def remove_local_object(self, key: Hashable) -> bool:
        """Remove what was put under `key`; says whether there was something."""
        self._check_loop_thread("remove_local_object")
        return self._local_objects.remove(key)

    # Life and misuse

    def close(self) -> None:
        if not self.is_closed() and not self.is_running() and not self._forked:
            self._own_thread.join()
            self._closing_thread = threading.get_ident()
            try:
                self._tasks.close()
                self._local_objects.close(self.call_exception_handler)
                self._subscriptions.close()
            finally:
                self._closing_thread = None
        super().close()

    def _disown(self) -> None:
        super()._disown()
        self._own_thread.disown()
        self._tasks.disown()
        self._local_objects.disown()
        self._subscriptions.disown()

    def _check_not_running(self) -> None:
        if self.is_running():
            raise RuntimeError("This event loop is already running")

    def _check_loop_thread(self, method: str) -> None:
        """While the loop does not run, no thread can be told to be the wrong one."""
        if self._thread_id is not None and threading.get_ident() != self._thread_id:
            # Imported when needed: most programs with a loop never do, and it takes milliseconds.
            from ..errors import ErrorCode, make

            raise make(
                ErrorCode.ERROR_IO_EVENT_LOOP_THREAD_ONLY,
                f"{method}() was called on {threading.current_thread().name}: "
                "schedule a task on the loop that calls it there",
            )
