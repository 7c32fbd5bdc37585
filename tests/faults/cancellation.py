"""Cancellation at every await point: an injector, and what must not be left after each.

Theory of operation. A scene is a coroutine that sets something up, has `inject` run the call that
is tried, and looks at what has become of it. It is run again and again: in round k, the k-th
suspension of the call brings the cancellation, until a round ends before that. The suspensions of
tasks that the call has made in turn count as well: a task factory wraps their coroutines.

What is cancelled is always the call, as by its user. When: in the moment in which it suspends, or
when what it waits for is done and it has not run again: what was done for it must not be lost then.
How: once, as `Task.cancel` has it; again each time that the call waits, to clean up as it is;
together with all tasks that it has made, as at the end of a loop; by `asyncio.timeout`; or by a
cancel scope of anyio's, which cancels again in each turn of the loop.
"""

import asyncio
import contextvars
import enum
import gc
import os
import threading
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import CodeType
from typing import Any, Generic, TypeVar

import anyio

from aws_io_async import EventLoop
from tests.faults._report import few

T = TypeVar("T")

PATIENCE = 5.0
"""Seconds until what is still there counts as left: far less than the library's own timeouts."""

ALL_POINTS = 64
"""So many suspensions bring the cancellation one after the other; of those behind, some do."""

POOLS = ("AnyIO worker thread", "asyncio_", "aws_io_async-names", "aws_io_async-resolver")
"""What the threads are called that wait for more work, and end with their loop or resolver."""


class How(enum.Enum):
    """By what a call is cancelled."""

    TASK = "Task.cancel"
    AGAIN = "Task.cancel, again and again"
    ALL = "Task.cancel, and so are the tasks that it has made"
    TIMEOUT = "asyncio.timeout"
    SCOPE = "anyio.CancelScope"


class When(enum.Enum):
    """At which moment of a suspension."""

    SUSPENDED = "suspended"
    DONE = "done"


@dataclass(frozen=True)
class Outcome(Generic[T]):
    """What came of a call."""

    cancelled: bool
    value: T | None = None

    @property
    def result(self) -> T:
        """What it returned."""
        assert not self.cancelled
        return self.value  # type: ignore[return-value]  # None is one, too, if T says so


class Injection:
    """One round: cancels at the suspension of that number; 0 for none."""

    def __init__(self, how: How = How.TASK, when: When = When.SUSPENDED, at: int = 0) -> None:
        self.how = how
        self.when = when
        self.at = at
        self.suspensions = 0
        self.was_cancelled = False
        """Whether a cancellation has been brought about."""
        self.reached: set[CodeType] = set()
        """The coroutines and generators that wait for one another there, as far as one can see."""
        self._made: list[weakref.ref[asyncio.Task[Any]]] = []
        """A list, as the loops of a group add to it from their threads while it is copied."""
        self._cues: list[Callable[[], object]] = []
        self._cancel: Callable[[], object] | None = None
        self._task: asyncio.Task[Any] | None = None

    async def __call__(
        self, coroutine: Awaitable[T], cue: Callable[[], object] | None = None
    ) -> Outcome[T]:
        """Run a call. `cue` is called once, a turn after it has suspended for the first time."""
        self._loop = loop = asyncio.get_running_loop()
        self._cues = [cue] if cue is not None else []
        self._own_context = contextvars.copy_context()
        context = contextvars.copy_context()
        context.run(_injection.set, self)
        former = loop.get_task_factory()
        watch(loop)
        try:
            task = loop.create_task(self._run(coroutine), context=context)
            await asyncio.wait({task})
        finally:
            loop.set_task_factory(former)
            self._cancel = None
        if task.cancelled():
            assert self.was_cancelled, "it was cancelled by nobody"
            return Outcome(cancelled=True)
        return task.result()

    async def _run(self, awaitable: Awaitable[T]) -> Outcome[T]:
        self._task = task = asyncio.current_task()
        assert task is not None
        if self.how is How.TIMEOUT:
            try:
                async with asyncio.timeout(None) as timeout:
                    value = await self._until_done(awaitable, lambda: timeout.reschedule(0))
            except TimeoutError:
                assert timeout.expired()
                return Outcome(cancelled=True)
            return Outcome(cancelled=False, value=value)
        if self.how is How.SCOPE:
            with anyio.CancelScope() as scope:
                value = await self._until_done(awaitable, scope.cancel)
            return Outcome(scope.cancelled_caught, None if scope.cancelled_caught else value)
        value = await self._until_done(awaitable, task.cancel)
        assert not task.cancelling(), "the cancellation was swallowed"
        return Outcome(cancelled=False, value=value)

    async def _until_done(self, awaitable: Awaitable[T], cancel: Callable[[], object]) -> T:
        self._cancel = cancel
        try:
            return await awaitable
        finally:
            self._cancel = None  # another thread's loop may still come to say so

    def suspends(self, coroutine: Any, awaited: Any) -> None:
        """The call, or a task that it has made, is about to wait for something, or for a turn."""
        if self._cancel is None:
            return
        while self._cues:
            self._loop.call_soon_threadsafe(self._cues.pop(), context=self._own_context)
        if self.was_cancelled:
            if self.how is How.AGAIN and asyncio.current_task() is self._task:
                self._cancel()
            return
        self.suspensions += 1
        if self.suspensions != self.at:
            return
        self.reached.update(_codes(coroutine))
        assert self._task is not None
        self.reached.update(_codes(self._task.get_coro()))
        if self.when is When.SUSPENDED or awaited is None:
            self._inject()
        else:  # before whoever waits for it, who adds itself after this
            awaited.add_done_callback(self._inject)

    def made(self, task: "asyncio.Task[Any]") -> None:
        """The call has made a task, or is one."""
        if self.how is How.ALL and self._cancel is not None:
            self._made.append(weakref.ref(task))

    def _inject(self, _awaited: object = None) -> None:
        if asyncio.get_running_loop() is not self._loop:  # but of a group
            self._loop.call_soon_threadsafe(self._inject)
        elif self._cancel is not None:
            self.was_cancelled = True
            self._cancel()
            for made in self._made.copy():
                task = made()
                if task is not None and task.get_loop() is self._loop and not task.done():
                    task.cancel()


def _codes(coroutine: Any) -> Iterator[CodeType]:
    """What a coroutine is in, from the outside to the inside."""
    while coroutine is not None:
        for kind, inner in ("cr", "cr_await"), ("gi", "gi_yieldfrom"), ("ag", "ag_await"):
            if hasattr(coroutine, inner):
                yield getattr(coroutine, f"{kind}_code")
                coroutine = getattr(coroutine, inner)
                break
        else:
            return


_injection: contextvars.ContextVar[Injection | None] = contextvars.ContextVar(
    "injection", default=None
)


class _Watched(Coroutine[Any, Any, T]):
    """A coroutine that tells when it suspends."""

    def __init__(self, coroutine: Coroutine[Any, Any, T], injection: Injection) -> None:
        self._coroutine = coroutine
        self._injection = injection

    def send(self, value: Any) -> Any:
        return self._suspended(self._coroutine.send(value))

    def throw(self, *exc: Any) -> Any:
        return self._suspended(self._coroutine.throw(*exc))

    def _suspended(self, awaited: Any) -> Any:
        self._injection.suspends(self._coroutine, awaited)
        return awaited

    def close(self) -> None:
        self._coroutine.close()

    def __await__(self) -> Any:
        return self._coroutine.__await__()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._coroutine, name)


def _make_task(
    loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any
) -> "asyncio.Task[Any]":
    context: contextvars.Context | None = options.get("context")
    injection = context.get(_injection) if context is not None else _injection.get()
    if injection is not None:
        coroutine = _Watched(coroutine, injection)
    task = asyncio.Task(coroutine, loop=loop, **options)
    if injection is not None:
        injection.made(task)
    return task


def watch(loop: asyncio.AbstractEventLoop) -> None:
    """Have the suspensions of tasks count that calls make on this loop. Thread: the loop's."""
    loop.set_task_factory(_make_task)


Scene = Callable[[Injection], Awaitable[object]]


async def at_every_point(scene: Scene, how: How, when: When) -> list[set[CodeType]]:
    """Run a scene with a cancellation at each point in turn; what was cancelled there.

    The first round, without one, is for what is made once and kept.
    """
    errors: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: errors.append(context))
    await scene(Injection())
    points: list[set[CodeType]] = []
    for number in _points():
        injection = Injection(how, when, number)
        try:
            async with nothing_left():
                await scene(injection)
            assert not errors, errors
        except BaseException as e:
            e.add_note(f"cancelled at suspension {number} by {how.value}, {when.value}")
            raise
        if injection.was_cancelled:
            points.append(injection.reached)
        if injection.suspensions < number:
            break
    gc.collect()  # futures and tasks whose exceptions nobody has asked for tell now
    await asyncio.sleep(0)
    assert not errors, errors
    return points


def _points() -> Iterator[int]:
    """The numbers of suspensions to cancel at; the rig has more of the later ones."""
    number = 0
    while True:
        number += max(1, (number - ALL_POINTS) // few(2) + 1)
        yield number


# What is left


@asynccontextmanager
async def nothing_left() -> AsyncIterator[None]:
    """Nothing is there after the block, or soon, that was not there before it.

    Soon, because the peers are in the same process, and have to notice the end of a connection.
    """
    before = holdings()
    yield
    loop = asyncio.get_running_loop()
    begun = loop.time()
    while left := holdings() - before:
        assert loop.time() < begun + PATIENCE, f"left: {left}"
        await asyncio.sleep(0 if loop.time() < begun + 0.01 else 0.001)


def holdings() -> set[Any]:
    """What the process and the running loop have: descriptors, threads, tasks, timers, watches."""
    loop: Any = asyncio.get_running_loop()
    held: set[Any] = set(_descriptors())
    held |= {t for t in threading.enumerate() if not t.name.startswith(POOLS)}
    held |= asyncio.all_tasks()
    if isinstance(loop, EventLoop):
        timers = [handle for _, _, handle in loop._timers.heap + loop._timers.inbox]
        watched = loop.statistics().watched
    elif isinstance(loop, asyncio.SelectorEventLoop):
        timers = loop._scheduled  # type: ignore[attr-defined]
        watched = len(loop._selector.get_map())  # type: ignore[attr-defined]
    else:
        timers, watched = [], 0
    held |= {timer for timer in timers if not timer.cancelled()}
    return held | {f"{number + 1} descriptors watched" for number in range(watched)}


def _descriptors() -> list[str]:
    found = []
    for name in os.listdir("/dev/fd"):
        try:
            found.append(f"{name}: {os.readlink(f'/proc/self/fd/{name}')}")
        except OSError:  # the descriptor of the listing itself, or no /proc
            continue
    return found
