"""The heart of the loop: what runs when.

Theory of operation. `_run_turns` repeats one turn until told to stop. In a turn run, in asyncio's
order, the callbacks that were ready when it began, the watchers of the descriptors that the poller
reports, and the timers that are due. What they make ready waits for the next turn.

The poll waits until a descriptor is ready, the first timer is due, or another thread wakes us. If
callbacks are ready already it does not wait, and is left out every second time, or, with nothing to
watch and no other thread, up to `MAX_TURNS_WITHOUT_POLL` times in a row: a chain of `call_soon`s
does not pay for a system call a link. It is made after something was sent or watched anew.
"""

import asyncio
import sys
import threading
import time
import weakref
from asyncio import events
from asyncio.constants import DEBUG_STACK_DEPTH
from collections import deque
from collections.abc import Callable
from contextvars import Context
from selectors import BaseSelector
from typing import Any, cast

from . import _registry
from ._callbacks import Callbacks
from ._debug import report_slow
from ._handles import Handle
from ._poller import MAXIMUM_TIMEOUT, take_over
from ._statistics import LoadMeter, LoopStatistics
from ._watchers import Watcher, Watchers, fd_of

MAX_TURNS_WITHOUT_POLL = 8
"""Turns in a row that may leave out the poll while there is no descriptor to watch and no other
thread, which gets the interpreter when we poll. Otherwise it is one: a busy loop would stop threads
for seconds, and programs count on it that the loop polls while they `sleep(0)` twice."""


class Scheduler(Callbacks):
    """The turns of one loop, and the descriptors that it watches. Thread: the one that runs it."""

    __slots__ = (
        "_has_sent", "_held", "_statistics", "_stopping", "_transports", "_turns_without_poll",
        "_watchers",
    )  # fmt: skip
    """As of `Callbacks`."""

    slow_callback_duration = 0.1
    """Seconds; in debug mode, callbacks that take longer are logged."""

    def __init__(self, selector: BaseSelector | None = None) -> None:
        super().__init__()
        self._stopping = False
        self._started_at: float | None = None
        self._clock_resolution = time.get_clock_info("monotonic").resolution

        self._has_sent: object = True  # since the last poll: bytes, or the end of a connection
        self._held: deque[Callable[[], None]] = deque()  # send what waits for the turn's end
        self._turns_without_poll = 0  # since the loop was made
        self._bare_context = Context()  # for callbacks of our own that look at no variable

        self._watchers = Watchers(take_over(selector))
        self._transports: dict[int, weakref.ref[asyncio.BaseTransport]] = {}  # the last of each fd
        self._statistics = LoopStatistics()
        self._load = LoadMeter(self._statistics, time.monotonic())
        self._wakeup = self._watchers.add_wakeup(lambda wakeup: wakeup.drain())
        self._closed = False
        _registry.loops.add(self)

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
            try:
                self._run_turns()
            finally:
                self._send_held()  # an exception may have ended the turn
        finally:
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
        ready, foreign = self._ready, self._foreign
        timers, new_timers = self._timers.heap, self._timers.inbox
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
                statistics.polls += 1
                if ready:
                    events = poll(0)
                else:
                    self._polling = True
                    if ready or foreign or self._stopping:  # by now
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
            # Told before anything runs: what becomes due meanwhile, or is made, has its turn later.
            due = None
            if timers and timers[0][0] < (clock := time_of_timers()) + resolution:
                due = self._due_timers(clock)
            try:
                if ready:
                    self._run(ready)
                    if self._held:
                        self._send_held()
                if events:
                    statistics.events += len(events)
                    if self._debug:
                        self._watchers.dispatch_timed(events, failed, self._report_if_slow)
                    else:
                        dispatch(events, failed)
                    if self._held:
                        self._send_held()
            except BaseException:
                ready.extend(due or ())
                raise
            if due:
                self._run(due)
                if self._held:
                    self._send_held()
            if self._stopping:
                return

    def _send_held(self) -> None:
        while self._held:
            self._held.popleft()()

    def _time_to_next_timer(self, now: float) -> float | None:
        due: float | None
        heap: list[tuple[float, int, Any]] = self._timers.heap
        if heap and heap[0][2]._callback is not None and not self._timers.inbox:
            due = heap[0][0]  # what `next_due` would say, two calls later
        else:
            due = self._timers.next_due()
            if due is None:
                return None
        wait = due - (now if self._now is time.monotonic else self._now())
        return 0.0 if wait < 0.0 else min(wait, MAXIMUM_TIMEOUT)

    def _due_timers(self, now: float) -> deque[Handle]:
        due = self._timers.pop_due(now + self._clock_resolution)
        self._statistics.note_lag(now - due[0].when())
        return cast(deque[Handle], deque(due))

    def _run(self, batch: deque[Handle]) -> None:
        """Run callbacks, in order, but none that come meanwhile. One that raises stops no other."""
        handle: Any
        callback: Any
        args: Any
        last: Any = batch[-1]
        try:
            if self._debug:
                for _ in range(len(batch)):
                    self._run_slowly(batch.popleft())
                return
            handle = None
            while handle is not last:
                handle = batch.popleft()
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
            handle = callback = args = last = None
        except BaseException:
            if batch is not self._ready:  # timers without a turn yet come first in the next one
                self._ready.extendleft(reversed(batch))
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
        super()._disown()
        self._watchers.disown()

    # Debug mode

    def set_debug(self, enabled: bool) -> None:
        self._debug = enabled
        self._guarded = enabled or self._closed or self._forked
        if self.is_running():
            self.call_soon_threadsafe(self._track_coroutine_origins, enabled)

    def _track_coroutine_origins(self, enabled: bool) -> None:
        sys.set_coroutine_origin_tracking_depth(DEBUG_STACK_DEPTH if enabled else 0)
