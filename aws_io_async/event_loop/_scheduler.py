"""The heart of the loop: what runs when.

Theory of operation. `_run_turns` repeats one turn until told to stop. In a turn run, in asyncio's
order, the callbacks that were ready when it began, the watchers of the descriptors that the poller
reports, and the timers that are due. What they make ready waits for the next turn.

The poll waits until a descriptor is ready, the first timer is due, or another thread wakes us. If
callbacks are ready already it does not wait, and is left out every second time, or, with nothing to
watch and no other thread, up to `MAX_TURNS_WITHOUT_POLL` times in a row: a chain of `call_soon`s
does not pay for a system call a link. It is made after something was sent or watched anew.

While the loop runs, other threads do not touch the ready queue: `call_soon_threadsafe` appends to
`_foreign`, a deque, which the next turn takes in. While it is at rest they do, under a lock that a
run begins under. A wake-up is written only while `_polling` is set. The loop sets it *before* it
looks at its queues for the last time, so whoever queues work either is seen by that look or sees
the flag; signal handlers, which run between any two bytecodes, count as such.
"""

import asyncio
import os
import sys
import threading
import time
import weakref
from asyncio import events
from asyncio.constants import DEBUG_STACK_DEPTH
from collections import deque
from collections.abc import Callable
from contextvars import Context, copy_context
from selectors import BaseSelector
from typing import Any, TypeVarTuple, Unpack, cast

from .._timer_queue import TimerQueue
from . import _registry
from ._debug import check_callback, debug_by_default, report_slow, with_origin
from ._handles import HANDLES_HAVE_LOCKS, Handle, ThreadSafeHandle, TimerHandle, run_of
from ._poller import MAXIMUM_TIMEOUT, take_over
from ._statistics import LoadMeter, LoopStatistics
from ._watchers import Watcher, Watchers, fd_of

Ts = TypeVarTuple("Ts")

MAX_TURNS_WITHOUT_POLL = 8
"""Turns in a row that may leave out the poll while there is no descriptor to watch and no other
thread, which gets the interpreter when we poll. Otherwise it is one: a busy loop would stop threads
for seconds, and programs count on it that the loop polls while they `sleep(0)` twice."""


class Scheduler(asyncio.AbstractEventLoop):
    """Ready queue, timers and descriptor watchers of one loop.

    Thread: the one that runs the loop, `call_soon_threadsafe` apart.
    """

    __slots__ = (
        "_debug", "_guarded", "_has_sent", "_held", "_polling", "_ready", "_statistics",
        "_stopping", "_transports", "_turns_without_poll", "_watchers",
    )  # fmt: skip
    """What turns, messages and connections look at: faster than in the dict, where the rest is."""

    slow_callback_duration = 0.1
    """Seconds; in debug mode, callbacks that take longer are logged."""

    _closed = True  # until the constructor has succeeded

    def __init__(self, selector: BaseSelector | None = None) -> None:
        self._debug = debug_by_default()
        self._forked = False
        self._guarded = self._debug  # True sends the scheduling calls through their checks
        self._stopping = False
        self._thread_id: int | None = None
        self._beginning = threading.RLock()  # reentrant, for signal handlers
        self._started_at: float | None = None
        self._now: Callable[[], float] = time.monotonic  # unlike statistics', its time may be faked
        self._clock_resolution = time.get_clock_info("monotonic").resolution

        self._ready: list[Handle] = []
        self._foreign: deque[Handle] = deque()
        self._timers: TimerQueue[TimerHandle] = TimerQueue()
        self._polling = False
        self._has_sent: object = True  # since the last poll: bytes, or the end of a connection
        self._held: list[Callable[[], None]] = []  # send what waits for the end of the turn
        self._turns_without_poll = 0  # since the loop was made
        self._bare_context = Context()  # for callbacks of our own that look at no variable

        self._watchers = Watchers(take_over(selector))
        self._transports: dict[int, weakref.ref[asyncio.BaseTransport]] = {}  # the last of each fd
        self._statistics = LoopStatistics()
        self._load = LoadMeter(self._statistics, time.monotonic())
        self._wakeup = self._watchers.add_wakeup(lambda wakeup: wakeup.drain())
        self._closed = False
        _registry.loops.add(self)

    # Scheduling callbacks

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

    # Watching descriptors

    def _add_reader(
        self, fd: int, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> Watcher:
        """Run `callback(*args)` whenever `fd` is readable, in place of what ran so far."""
        self._check_closed()
        return self._watchers.add_reader(fd, callback, args, context)

    def _add_writer(
        self, fd: int, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> Watcher:
        """Run `callback(*args)` whenever `fd` is writable, in place of what ran so far."""
        self._check_closed()
        return self._watchers.add_writer(fd, callback, args, context)

    def _remove_reader(self, fd: int, only: Watcher | None = None) -> bool:
        """Stop watching, if it is `only` that watches; says whether there was a watcher to stop."""
        return self._watchers.remove_reader(fd, only)

    def _remove_writer(self, fd: int, only: Watcher | None = None) -> bool:
        """As `_remove_reader`."""
        return self._watchers.remove_writer(fd, only)

    def _check_no_transport(self, fd: int) -> None:
        """An fd has one owner: RuntimeError if that is a transport of this loop."""
        reference = self._transports.get(fd)
        transport = reference() if reference is not None else None
        if transport is not None and not transport.is_closing():
            raise RuntimeError(f"File descriptor {fd!r} is used by transport {transport!r}")

    def _free_fd(self, fileobj: Any) -> int:
        """The fd of what the application wants to watch itself; ValueError if it has none."""
        fd = fd_of(fileobj)
        self._check_no_transport(fd)
        return fd

    # Running

    def run_forever(self) -> None:
        old_hooks = sys.get_asyncgen_hooks()
        old_depth = sys.get_coroutine_origin_tracking_depth()
        with self._beginning:
            self._check_closed()
            self._check_running()
            self._thread_id = threading.get_ident()
        self._started_at = time.monotonic()
        try:
            self._track_coroutine_origins(self._debug)
            sys.set_asyncgen_hooks(
                firstiter=self._asyncgen_firstiter_hook, finalizer=self._asyncgen_finalizer_hook
            )
            events._set_running_loop(self)
            self._wakeup.drain()  # the run before may have been cut off with one in its hands
            self._run_turns()
        finally:
            self._send_held()
            self._stopping = False
            self._polling = False
            self._load.asleep_since = None
            self._thread_id = None
            self._statistics.running_seconds += time.monotonic() - self._started_at
            self._started_at = None
            events._set_running_loop(None)
            sys.set_coroutine_origin_tracking_depth(old_depth)
            sys.set_asyncgen_hooks(*old_hooks)

    def _asyncgen_firstiter_hook(self, agen: Any) -> None:
        raise NotImplementedError

    def _asyncgen_finalizer_hook(self, agen: Any) -> None:
        raise NotImplementedError

    def _run_turns(self) -> None:
        statistics, load = self._statistics, self._load
        foreign, timers, new_timers = self._foreign, self._timers.heap, self._timers.inbox
        fresh, poll = self._watchers.fresh, self._watchers.poll
        readers, writers = self._watchers.readers, self._watchers.writers
        dispatch, failed = self._watchers.dispatch, self._callback_failed
        now, time_of_timers, resolution = time.monotonic, self._now, self._clock_resolution
        skipped = MAX_TURNS_WITHOUT_POLL  # the first turn looks at the descriptors
        alone = False  # nobody is waited for, and nobody waits for us to poll
        while True:
            if foreign:
                self._take_foreign()
            if new_timers:
                self._timers.settle()
            ready = self._ready
            skip: Any = ready and not (fresh or self._has_sent)
            if skip and skipped:
                if skipped == 1:  # the only reader is the wakeup; of another we would know: fresh
                    alone = len(readers) == 1 and not writers and threading.active_count() == 1
                skip = alone and skipped < MAX_TURNS_WITHOUT_POLL
            if skip:
                skipped += 1
                self._turns_without_poll += 1
                events = None
            else:
                skipped = 0
                self._has_sent = False
                if fresh:
                    fresh.clear()
                self._polling = True
                if ready or foreign or self._stopping:
                    events = poll(0)
                else:
                    asleep = load.asleep_since = now()
                    events = poll(self._time_to_next_timer(asleep) if timers else None)
                    awake = now()
                    load.asleep_since = None
                    statistics.idle_seconds += awake - asleep
                    if awake > load.due:
                        load.sample(asleep, awake, self._started_at)
                self._polling = False
                statistics.polls += 1
                statistics.events += len(events)
            # Told before anything runs: what becomes due meanwhile, or is made, has its turn later.
            due = None
            if timers and timers[0][0] < (clock := time_of_timers()) + resolution:
                due = self._due_timers(clock)
            try:
                if ready:
                    self._ready = []
                    self._run(ready)
                    if self._held:
                        self._send_held()
                if events:
                    if self._debug:
                        self._watchers.dispatch_timed(events, failed, self._report_if_slow)
                    else:
                        dispatch(events, failed)
            except BaseException:
                self._ready.extend(due or ())
                raise
            if due:
                self._run(due)
            if self._held:
                self._send_held()
            if self._stopping:
                return

    def _send_held(self) -> None:
        while self._held:
            held, self._held = self._held, []
            for send in held:
                send()

    def _time_to_next_timer(self, now: float) -> float | None:
        due = self._timers.next_due()
        if due is None:
            return None
        wait = due - (now if self._now is time.monotonic else self._now())
        return 0.0 if wait < 0.0 else min(wait, MAXIMUM_TIMEOUT)

    def _take_foreign(self) -> None:
        foreign = self._foreign
        for _ in range(len(foreign)):  # and no more, however fast others add to it
            self._ready.append(foreign.popleft())

    def _due_timers(self, now: float) -> list[Handle]:
        due = self._timers.pop_due(now + self._clock_resolution)
        self._statistics.note_lag(now - due[0].when())
        return cast(list[Handle], due)

    def _run(self, batch: list[Handle]) -> None:
        """Run callbacks, in order. One that raises stops no other."""
        handle: Any
        callback: Any
        args: Any
        batch.reverse()  # not a loop over the list, which would keep alive what has had its turn
        try:
            if self._debug:
                while batch:
                    self._run_slowly(batch.pop())
                return
            while batch:
                handle = batch.pop()
                callback = handle._callback
                if callback is None:  # cancelled
                    continue
                try:
                    args = handle._args
                    if not args:
                        handle._context.run(callback)
                    elif len(args) == 1:  # a call with `*` would build the tuple anew: 60 ns
                        handle._context.run(callback, args[0])
                    else:
                        handle._context.run(callback, *args)
                except (SystemExit, KeyboardInterrupt):
                    raise
                except BaseException as exc:
                    self._callback_failed(handle, exc)
            # A traceback that is kept keeps this frame: it must not keep what ran here as well.
            handle = callback = args = None
        except BaseException:
            self._ready[:0] = reversed(batch)  # those without a turn yet keep their place
            raise

    def _run_slowly(self, handle: asyncio.Handle) -> None:
        """Run one handle in debug mode."""
        if not handle.cancelled():
            started = time.monotonic()
            handle._run()
            self._report_if_slow(handle, started)
        del handle  # see _run

    def _report_if_slow(self, callback: object, started: float) -> None:
        duration = time.monotonic() - started
        if duration >= self.slow_callback_duration:
            report_slow(callback, duration)

    def _callback_failed(self, callback: object, exc: BaseException) -> None:
        message = f"Exception in callback {callback!r}"
        context: dict[str, Any] = {"message": message, "exception": exc}
        if isinstance(callback, asyncio.Handle):
            context["handle"] = callback
        self.call_exception_handler(context)

    def stop(self) -> None:
        self._stopping = True
        if self._polling:  # called by a signal handler, or by another thread
            self._wakeup.wake()

    def is_running(self) -> bool:
        return self._thread_id is not None

    def is_closed(self) -> bool:
        return self._closed

    def close(self) -> None:
        with self._beginning:
            if self._thread_id is not None and not self._forked:
                raise RuntimeError("Cannot close a running event loop")
            if self._closed:
                return
            self._closed = self._guarded = True
            self._ready.clear()
            self._foreign.clear()
        self._timers.clear()
        self._watchers.close()
        self._wakeup.close()

    def _disown(self) -> None:
        """This process is a forked child: the loop is its parent's."""
        self._forked = self._guarded = True
        self._polling = False  # nobody of this process is to wake it
        self._beginning = threading.RLock()  # another thread may have had it
        self._watchers.disown()

    # Debug mode and misuse

    def get_debug(self) -> bool:
        return self._debug

    def set_debug(self, enabled: bool) -> None:
        self._debug = enabled
        self._guarded = enabled or self._closed or self._forked
        if self.is_running():
            self.call_soon_threadsafe(self._track_coroutine_origins, enabled)

    def _track_coroutine_origins(self, enabled: bool) -> None:
        sys.set_coroutine_origin_tracking_depth(DEBUG_STACK_DEPTH if enabled else 0)

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
