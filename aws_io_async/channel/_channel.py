"""The channel: a chain of slots on one loop, and its life from set-up to the closing of handlers.

The channel is made from any thread and set up on its loop's. It ends by `shutdown`, which may be
asked for from any thread, more than once: the first error is kept, and a graceful shutdown can
become an immediate one. `_shutdown` has the two phases of that. Then the channel's tasks are run
as cancelled, `on_shutdown` is called, and once nobody holds the channel any more, its handlers are
closed.
"""

import asyncio
import contextlib
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any

from .. import log
from ..errors import AwsIoError, CommonErrorCode, ErrorCode, make
from ..event_loop._crossing import call_on
from ..event_loop._local_objects import Removed
from ..message_pool import MessagePool, MessageType, PooledMessage
from ..statistics import StatisticsHandler
from . import _local_objects
from ._handler import ChannelHandler
from ._loop_end import LivingChannels, living_channels
from ._reports import Reports
from ._shutdown import Shutdown, kept_error
from ._slot import ChannelSlot, check_handler
from ._state import LEGAL_MOVES, ChannelState
from ._tasks import ChannelTask, TaskQueue
from ._waiters import Waiters, plain, resolve
from ._windows import WINDOW_UPDATE_THRESHOLD, ReadWindows

Notified = Callable[["Channel", BaseException | None], object]

logger = log.logger(log.LogSubject.CHANNEL)


class Channel:
    """A pipeline of handlers; see the package. Source: aws-c-io's `channel.h`.

    `loop` is any asyncio loop, by default the running one. The constructor may be called from any
    thread; the channel is set up on the loop's, which calls `on_setup(channel, None)`.
    `on_shutdown(channel, error)` is called there when all has ended; error is None if nothing
    went wrong. With `enable_read_back_pressure` handlers get no more than their windows allow;
    `window_update_threshold` is in bytes. If `on_setup` raises, the channel is shut down with that.
    Raises TypeError for callbacks that cannot be called, ValueError for a negative threshold,
    RuntimeError if the loop is closed, and IO_EVENT_LOOP_SHUTDOWN, which is one, if it is about to.
    A loop that is run to its end, by `asyncio.run` or a group, ends its channels before, with
    IO_EVENT_LOOP_SHUTDOWN.

    Where no thread is named, methods are for the loop's thread, and raise
    ERROR_IO_EVENT_LOOP_THREAD_ONLY in another. Those that change the chain raise
    ERROR_INVALID_STATE once the channel has shut down.
    """

    __slots__ = (
        "__weakref__", "_has_ended", "_holds", "_living", "_lock", "_on_setup", "_on_shutdown",
        "_pool", "_reports", "_shutdown", "_shutdown_requested", "_state", "_tasks",
        "_tasks_of_handlers", "_thread_id", "_waiters", "_windows", "error", "first_slot",
        "is_clogged", "loop", "read_back_pressure_enabled", "window_update_threshold",
    )  # fmt: skip

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop | None = None,
        *,
        on_setup: Notified | None = None,
        on_shutdown: Notified | None = None,
        enable_read_back_pressure: bool = False,
        window_update_threshold: int = WINDOW_UPDATE_THRESHOLD,
    ) -> None:
        for callback in on_setup, on_shutdown:
            if callback is not None and not callable(callback):
                raise TypeError(f"on_setup and on_shutdown must be callable, not {callback!r}")
        if window_update_threshold < 0:
            raise ValueError(f"windows are never down to {window_update_threshold!r} bytes")
        self._state = ChannelState.SETTING_UP
        self.loop = loop if loop is not None else asyncio.get_running_loop()
        self.read_back_pressure_enabled = enable_read_back_pressure
        self.window_update_threshold = window_update_threshold
        self.is_clogged = False
        """Whether too much waits for suspended handlers; kept by `_windows`."""
        self.first_slot: ChannelSlot | None = None
        self.error: BaseException | None = None
        """Why the channel is shut down; None while it is not, and if nothing was wrong."""
        self._on_setup = on_setup
        self._on_shutdown = on_shutdown
        self._thread_id: int | None = None
        self._pool: MessagePool | None = None
        self._living: LivingChannels
        self._windows = ReadWindows(self)
        self._tasks = TaskQueue(self.loop, self.thread_is_callers_thread)
        self._reports = Reports(self)
        self._tasks_of_handlers: set[asyncio.Future[None]] = set()
        self._has_ended = False
        self._shutdown: Shutdown | None = None
        self._waiters = Waiters()

        # Reentrant, as a garbage collection may run anything in between. Guards the following:
        self._lock = threading.RLock()
        self._shutdown_requested = False
        self._holds = 0
        call_on(self.loop, self._set_up)

    @classmethod
    async def open(
        cls,
        loop: asyncio.AbstractEventLoop | None = None,
        *,
        on_setup: Notified | None = None,
        **options: Any,
    ) -> "Channel":
        """A channel on `loop` that has been set up; arguments are the constructor's.

        Raises what `on_setup` raises. Thread: of any running loop. If it fails or is cancelled,
        the channel is shut down.
        """
        here = asyncio.get_running_loop()
        done: asyncio.Future[None] = here.create_future()

        def tell(channel: Channel, error: BaseException | None) -> None:
            failure = None
            try:
                if on_setup is not None:
                    plain(on_setup, on_setup(channel, error))
            except BaseException as exc:
                failure = kept_error(exc)
                raise
            finally:
                with contextlib.suppress(RuntimeError):  # the caller's loop has ended meanwhile
                    here.call_soon_threadsafe(resolve, done, failure)
                del failure

        channel = cls(loop if loop is not None else here, on_setup=tell, **options)
        try:
            await done
        except BaseException:
            channel.shutdown(immediately=True)
            raise
        return channel

    def _set_up(self) -> None:
        self._thread_id = threading.get_ident()
        self._pool = _local_objects.message_pool(self.loop)
        self._living = living_channels(self.loop)
        self._living.add(self)
        self._move_to(ChannelState.ACTIVE)
        logger.debug("%r is set up", self)
        on_setup, self._on_setup = self._on_setup, None
        if on_setup is not None:
            self._call(on_setup, self, None)

    def _move_to(self, state: ChannelState) -> None:
        if state not in LEGAL_MOVES[self._state]:
            raise AssertionError(
                f"a channel that is {self._state.value} cannot become {state.value}"
            )
        self._state = state
        self._has_ended = state is ChannelState.SHUT_DOWN
        for slot in self.slots():
            slot.follow_chain()

    @property
    def state(self) -> ChannelState:
        """Where the channel is in its life. Thread: any."""
        return self._state

    def is_closing(self) -> bool:
        """Whether its end has been asked for, by whomever; `state` follows soon. Thread: any."""
        return self._shutdown_requested

    def __repr__(self) -> str:
        handlers = " ".join(
            type(slot.handler).__name__ if slot.handler is not None else "-"
            for slot in self.slots()
        )
        return f"<Channel {id(self):#x} {self._state.value} [{handlers}]>"

    def __del__(self) -> None:
        # The constructor may have failed before there was a state, or more than that.
        if getattr(self, "_state", None) is not ChannelState.ACTIVE or self.first_slot is None:
            return
        if self.first_slot.handler is not None and not self.loop.is_closed():
            warnings.warn(f"unclosed channel {self!r}", ResourceWarning, source=self)

    # Threads and time

    def thread_is_callers_thread(self) -> bool:
        """Whether the caller is on the channel's thread. Thread: any."""
        if self._thread_id == threading.get_ident():
            return True
        if self._thread_id is None or asyncio._get_running_loop() is not self.loop:
            return False
        self._thread_id = threading.get_ident()  # the loop was stopped, and is run by another now
        return True

    def _check_thread(self) -> None:
        if self._thread_id is None:
            raise RuntimeError(f"{self!r} is being set up: wait for on_setup, or use open()")
        if not self.thread_is_callers_thread():
            raise make(
                ErrorCode.ERROR_IO_EVENT_LOOP_THREAD_ONLY,
                f"{self!r} is used outside its loop's thread: use schedule_task_now() there",
            )

    def _check_usable(self) -> None:
        """Whether slots and handlers may be changed, here and now."""
        self._check_thread()
        if self._has_ended:
            raise make(
                CommonErrorCode.ERROR_INVALID_STATE, f"{self!r} has ended: use a new channel"
            )

    def current_clock_time(self) -> int:
        """The time of the loop's clock in nanoseconds. Thread: any."""
        exact: Callable[[], int] | None = getattr(self.loop, "current_clock_time", None)
        return exact() if exact is not None else round(self.loop.time() * 1e9)

    # Slots

    def new_slot(self, handler: ChannelHandler | None = None) -> ChannelSlot:
        """A slot of this channel; the first one is the leftmost, others are yet to be inserted."""
        self._check_usable()
        if handler is not None:
            check_handler(handler)
        slot = ChannelSlot(self)
        if self.first_slot is None:
            self.first_slot = slot
        if handler is not None:
            slot.set_handler(handler)
        return slot

    def append(self, handler: ChannelHandler) -> ChannelSlot:
        """Put a handler in a new slot at the right end."""
        check_handler(handler)
        slot = self.new_slot()
        if self.first_slot is not slot:
            assert self.first_slot is not None
            self.first_slot.insert_end(slot)
        slot.set_handler(handler)
        return slot

    def slots(self) -> Iterator[ChannelSlot]:
        """The slots, left to right."""
        slot = self.first_slot
        while slot is not None:
            yield slot
            slot = slot.right

    def _chain_changed(self) -> None:
        overhead = 0
        for slot in self.slots():
            slot.follow_chain()
            slot.upstream_message_overhead = overhead
            if slot.handler is not None:
                overhead += slot.handler.message_overhead
        self._windows.chain_changed()

    def trigger_read(self) -> None:
        """Have the leftmost handler read, if there is anything to read.

        ERROR_INVALID_STATE if there is no leftmost handler.
        """
        self._check_thread()
        slot = self.first_slot
        if slot is None or slot.handler is None:
            raise make(CommonErrorCode.ERROR_INVALID_STATE, f"{self!r} has nobody who reads")
        self._call(slot.handler.trigger_read, slot)

    # Messages

    def acquire_message_from_pool(self, message_type: MessageType, size_hint: int) -> PooledMessage:
        """An empty message that may be filled up to its capacity, at most `size_hint` bytes."""
        return self.message_pool.acquire(message_type, size_hint)

    @property
    def message_pool(self) -> MessagePool:
        """The pool that the channels of the loop share."""
        if self._pool is None:
            self._check_thread()
        assert self._pool is not None
        return self._pool

    # Tasks

    def schedule_task_now(self, task: ChannelTask) -> None:
        """Run a task on the channel's thread as soon as possible. Thread: any."""
        self._tasks.schedule(task, None)

    def schedule_task_now_serialized(self, task: ChannelTask) -> None:
        """The same, after all tasks that were serialized earlier. Thread: any."""
        self._tasks.schedule_serialized(task)

    def schedule_task_future(self, task: ChannelTask, run_at_nanos: int) -> None:
        """Run a task at a time of `current_clock_time`'s clock. Thread: any."""
        self._tasks.schedule(task, run_at_nanos / 1e9)

    def _adopt(self, task: "asyncio.Future[None]") -> None:
        """A task runs code of a handler: the shutdown waits for it."""
        self._tasks_of_handlers.add(task)
        task.add_done_callback(self._tasks_of_handlers.discard)

    # Objects of the loop

    def put_local_object(
        self, key: object, value: object, on_removed: Removed | None = None
    ) -> None:
        """Keep an object with the loop, for all its channels, in place of what was there.

        `on_removed(value)` is called once: when it is removed or replaced, or the loop ends.
        """
        self._check_thread()
        _local_objects.put(self.loop, key, value, on_removed)

    def fetch_local_object(self, key: object) -> Any:
        """The object of that key; KeyError if there is none."""
        self._check_thread()
        return _local_objects.fetch(self.loop, key)

    def remove_local_object(self, key: object) -> bool:
        """Remove the object of that key; says whether there was one."""
        self._check_thread()
        return _local_objects.remove(self.loop, key)

    # Statistics

    def set_statistics_handler(self, handler: StatisticsHandler | None) -> None:
        """Report the handlers' figures at the handler's interval; None ends that.

        The channel owns `handler`, and closes it when it gets another or ends. TypeError for what
        is no handler, ValueError for an interval that is not positive.
        """
        self._check_thread()
        if handler is not None:
            self._check_usable()
        self._reports.set_handler(handler)

    def statistics(self) -> list[object]:
        """The handlers' figures as they are, left to right."""
        self._check_thread()
        return self._reports.gather()

    # Failures of code that is not ours

    def _failed(self, culprit: object, exc: BaseException) -> None:
        """A handler's method or a callback has raised: that ends the channel.

        A shutdown that went well so far does no longer.
        """
        if not isinstance(exc, AwsIoError | OSError | EOFError | asyncio.CancelledError):
            self._report_failure(culprit, exc)
        self.shutdown(exc)
        with self._lock:
            if self.error is None and not self._has_ended:
                self.error = kept_error(exc)

    def _report_failure(self, culprit: object, exc: BaseException) -> None:
        message = f"{culprit!r} failed in {self!r}"
        self.loop.call_exception_handler({"message": message, "exception": exc, "channel": self})

    def _call(self, function: Callable[..., object], *args: Any) -> Any:
        """Call what may fail, or be a coroutine function by mistake; None if it is, or does."""
        try:
            return plain(function, function(*args))
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as exc:
            self._failed(function, exc)
            return None

    def _close_handler(self, handler: ChannelHandler) -> None:
        self._call(handler.close)

    # Shutdown

    def shutdown(self, error: BaseException | None = None, *, immediately: bool = False) -> None:
        """Begin to end the channel; `wait_closed` tells when it has ended. Thread: any.

        Of several calls the first one's error is kept; a later one with `immediately` makes a
        graceful shutdown immediate. If it was None, the error is what a handler raises meanwhile.
        A CancelledError is kept as an ERROR_IO_OPERATION_CANCELLED.
        """
        if error is not None and not isinstance(error, BaseException):
            raise TypeError(f"error must be an exception or None, not {error!r}")
        with self._lock:
            first, self._shutdown_requested = not self._shutdown_requested, True
            if first:
                self.error = kept_error(error)
        if not first and not immediately:
            return
        with contextlib.suppress(RuntimeError):  # a loop that was closed took its channels along
            if self.thread_is_callers_thread():
                self.loop.call_soon(self._begin_shutdown, immediately)
            else:
                self.loop.call_soon_threadsafe(self._begin_shutdown, immediately)

    def _begin_shutdown(self, immediately: bool) -> None:
        if self._state is ChannelState.SETTING_UP:
            # Asked for on the loop's thread, this has overtaken what another thread has queued.
            self.loop.call_soon(self._begin_shutdown, immediately)
        elif self._state is ChannelState.ACTIVE:
            self._move_to(ChannelState.SHUTTING_DOWN)
            logger.debug("%r: shutdown begins: %r", self, self.error)
            self._shutdown = Shutdown(self, immediately)
            self._shutdown.start()
        elif immediately and self._shutdown is not None:
            self._shutdown.hurry()

    def _end(self) -> None:
        self._move_to(ChannelState.SHUT_DOWN)
        self._living.discard(self)
        logger.debug("%r: shutdown has ended", self)
        self._call(self._reports.set_handler, None)
        self._tasks.shut_down()
        on_shutdown, self._on_shutdown = self._on_shutdown, None
        if on_shutdown is not None:
            try:
                plain(on_shutdown, on_shutdown(self, self.error))
            except (SystemExit, KeyboardInterrupt):
                raise
            except BaseException as exc:
                self._report_failure(on_shutdown, exc)
        self._waiters.release()
        self._let_go()

    def _let_go(self) -> None:
        """Close the handlers, if the channel has shut down and nobody holds it."""
        with self._lock:
            if not self._has_ended or self._holds:
                return
            slots = list(self.slots())
            self.first_slot = None
        for slot in slots:
            if slot.handler is not None:
                self._close_handler(slot.handler)
            slot.left = slot.right = None

    async def wait_closed(self) -> None:
        """Wait until the channel has shut down; `error` then tells why. Thread: of any loop.

        Does not begin the shutdown. May be cancelled at no cost. Raises RuntimeError in a handler
        of the channel, which would wait for itself, and IO_EVENT_LOOP_SHUTDOWN if the channel's
        loop has been closed before the channel had ended; one that is closed later ends no wait.
        """
        if not self._waiters.released:
            if self.loop.is_closed():
                raise make(ErrorCode.IO_EVENT_LOOP_SHUTDOWN, f"{self!r} cannot end any more")
            if asyncio.current_task() in self._tasks_of_handlers:
                raise RuntimeError(
                    f"a handler of {self!r} would wait for itself: call shutdown() and return"
                )
        await self._waiters.wait()

    async def aclose(self) -> None:
        """Shut down gracefully, and wait until that is done; at once if cancelled.

        Raises as `wait_closed`. Thread: of any loop.
        """
        self.shutdown()
        try:
            await self.wait_closed()
        except asyncio.CancelledError:
            self.shutdown(immediately=True)
            raise

    async def __aenter__(self) -> "Channel":
        return self

    async def __aexit__(self, kind: object, exc: BaseException | None, traceback: object) -> None:
        if exc is not None:
            self.shutdown(exc, immediately=True)
        await self.aclose()

    def acquire_hold(self) -> None:
        """Keep the handlers from being closed after the shutdown. Thread: any."""
        with self._lock:
            self._holds += 1

    def release_hold(self) -> None:
        """Undo one `acquire_hold`. RuntimeError if there was none. Thread: any."""
        with self._lock:
            if not self._holds:
                raise RuntimeError(f"{self!r} is not held: one release_hold() too many")
            self._holds -= 1
            last = self._has_ended and not self._holds
        if last and (self.thread_is_callers_thread() or self.loop.is_closed()):
            self._let_go()
        elif last:
            self.loop.call_soon_threadsafe(self._let_go)

    @contextlib.contextmanager
    def hold(self) -> Iterator["Channel"]:
        """`acquire_hold` and `release_hold` as a block. Thread: any."""
        self.acquire_hold()
        try:
            yield self
        finally:
            self.release_hold()
