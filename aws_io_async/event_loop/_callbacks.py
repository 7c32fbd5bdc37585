"""What a loop is to run: the callbacks that are ready, and those that have a time.

Theory of operation. `call_soon` and its kin make handles, which wait in `_ready` or among the
timers until a turn takes them: see `_scheduler`.

While the loop runs, other threads do not touch the ready queue: `call_soon_threadsafe` appends to
`_foreign`, a deque, which the next turn takes in. While it is at rest they do, under a lock that a
run begins under. A wake-up is written only while `_polling` is set. The loop sets it *before* it
looks at its queues for the last time, so whoever queues work either is seen by that look or sees
the flag; signal handlers, which run between any two bytecodes, count as such.

`_guarded` sends the calls through their checks: in debug mode, and once the loop is closed or is a
forked child's.
"""

import asyncio
import os
import threading
import time
from asyncio import events
from collections import deque
from collections.abc import Callable
from contextvars import Context, copy_context
from typing import Any, TypeVarTuple, Unpack, cast

from .._timer_queue import TimerQueue
from ._debug import check_callback, debug_by_default, with_origin
from ._handles import HANDLES_HAVE_LOCKS, Handle, ThreadSafeHandle, TimerHandle, run_of
from ._watchers import Wakeup

Ts = TypeVarTuple("Ts")


class Callbacks(asyncio.AbstractEventLoop):
    """The queues of one loop.

    Thread: the one that runs the loop, `call_soon_threadsafe` apart.
    """

    __slots__ = ("_debug", "_guarded", "_now", "_polling", "_ready", "_timers")
    """What each turn or callback looks at: faster than in the dict, where the rest is."""

    _wakeup: Wakeup
    _closed = True  # until the constructor has succeeded

    def __init__(self) -> None:
        self._debug = debug_by_default()
        self._forked = False
        self._guarded = self._debug
        self._thread_id: int | None = None  # while it runs
        self._beginning = threading.RLock()  # reentrant, for signal handlers
        self._now: Callable[[], float] = time.monotonic  # unlike statistics', its time may be faked
        self._ready: deque[Handle] = deque()
        self._foreign: deque[Handle] = deque()
        self._timers: TimerQueue[TimerHandle] = TimerQueue()
        self._polling = False

    def call_soon(
        self,
        callback: Callable[[Unpack[Ts]], object],
        *args: *Ts,
        context: Context | None = None,
    ) -> asyncio.Handle:
        if self._guarded:
            return self._call_soon_guarded(callback, args, context)
        handle: Handle = Handle()
        handle._callback = callback
        handle._args = args
        handle._context = copy_context() if context is None else context
        handle._loop = self
        self._ready.append(handle)
        return handle

    def call_soon_threadsafe(
        self,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: Context | None = None,
    ) -> asyncio.Handle:
        handle: asyncio.Handle
        if self._guarded:
            handle = queued = self._make_handle(callback, args, context, "call_soon_threadsafe")
        elif HANDLES_HAVE_LOCKS:
            handle = ThreadSafeHandle(callback, args, self, context)
            queued = run_of(handle)
        else:
            handle = queued = Handle()
            queued._callback = callback
            queued._args = args
            queued._context = copy_context() if context is None else context
            queued._loop = self
        thread_id = self._thread_id
        if thread_id is None:
            self._queue_at_rest(queued)
        elif thread_id == threading.get_ident():
            self._ready.append(queued)
        else:
            self._foreign.append(queued)
        if self._polling:
            self._wakeup.wake()
        return handle

    def _queue_at_rest(self, handle: Handle) -> None:
        """The loop does not run, or began just now: while it does not, one queue keeps order."""
        with self._beginning:
            self._check_closed()
            if self._thread_id is None:
                self._take_foreign()  # what was too late for the last run comes first
                self._ready.append(handle)
            else:
                self._foreign.append(handle)

    def _call_soon_serialized(self, callback: Callable[[*Ts], object], *args: *Ts) -> None:
        """In the order of these calls, whichever threads make them: one queue takes them all."""
        self._foreign.append(cast(Handle, asyncio.Handle(callback, args, self)))
        if self._polling:
            self._wakeup.wake()

    def call_later(
        self,
        delay: float,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        if delay is None:
            raise TypeError("delay must not be None: give the seconds to wait")
        return self._add_timer(self._now() + delay, callback, args, context)

    def call_at(
        self,
        when: float,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        if when is None:
            raise TypeError("when must not be None: give a time of loop.time()'s clock")
        return self._add_timer(when, callback, args, context)

    def _add_timer(
        self,
        when: float,
        callback: Callable[..., object],
        args: tuple[Any, ...],
        context: Context | None,
    ) -> TimerHandle:
        if self._guarded:
            timer = self._make_timer(when, callback, args, context)
        else:
            timer = TimerHandle()
            timer._callback = callback
            timer._args = args
            timer._context = copy_context() if context is None else context
            timer._when = when
            timer._loop = self
        self._timers.push(when, timer)
        return timer

    def time(self) -> float:
        return self._now()

    def _make_handle(
        self, callback: Callable[..., object], args: tuple[Any, ...], context: Any, caller: str
    ) -> Handle:
        """asyncio's own handle, which remembers its origin. RuntimeError on a dead loop."""
        self._check_closed()
        check_callback(callback, caller)
        kind = ThreadSafeHandle if caller == "call_soon_threadsafe" else asyncio.Handle
        return with_origin(kind(callback, args, self, context), __file__)

    def _make_timer(
        self, when: float, callback: Callable[..., object], args: tuple[Any, ...], context: Any
    ) -> TimerHandle:
        """asyncio's own timer handle, which remembers its origin. RuntimeError on a dead loop."""
        self._check_closed()
        self._check_thread()
        check_callback(callback, "call_at")
        timer = asyncio.TimerHandle(when, callback, args, self, context)
        return cast(TimerHandle, with_origin(timer, __file__))

    def _call_soon_guarded(
        self, callback: Callable[..., object], args: tuple[Any, ...], context: Context | None
    ) -> asyncio.Handle:
        if self._debug:
            self._check_thread()
        handle = self._make_handle(callback, args, context, "call_soon")
        self._ready.append(handle)
        return handle

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        self._timers.note_cancelled()  # called by the handle

    def _take_foreign(self) -> None:
        foreign = self._foreign
        for _ in range(len(foreign)):  # and no more, however fast others add to it
            self._ready.append(foreign.popleft())

    # State and misuse

    def get_debug(self) -> bool:
        return self._debug

    def is_running(self) -> bool:
        return self._thread_id is not None

    def is_closed(self) -> bool:
        return self._closed

    def _disown(self) -> None:
        """This process is a forked child: the loop is its parent's."""
        self._forked = self._guarded = True
        self._polling = False  # nobody of this process is to wake it
        self._beginning = threading.RLock()  # another thread may have had it

    def _check_closed(self) -> None:
        if self._closed:
            raise RuntimeError("Event loop is closed")
        if self._forked:
            raise RuntimeError(
                f"{self!r} belongs to the parent of this process (pid {os.getppid()}): an event "
                "loop does not survive a fork, make a new one in the child"
            )

    def _check_running(self) -> None:
        if self.is_running():
            raise RuntimeError("This event loop is already running")
        if events._get_running_loop() is not None:
            raise RuntimeError("Cannot run the event loop while another loop is running")

    def _check_thread(self) -> None:
        """As in asyncio: a call from another thread can be told only while the loop runs."""
        if self._thread_id is not None and threading.get_ident() != self._thread_id:
            raise RuntimeError(
                "Non-thread-safe operation invoked on an event loop other than the current one: "
                "use call_soon_threadsafe() from other threads"
            )
