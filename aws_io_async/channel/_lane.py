"""One direction of one slot: messages are handed to the handler, one after the other.

Theory of operation. A handler's method that is plain has done its work when it returns. One that
is a coroutine is stepped right where the message arrives, and most often it ends in that step: the
price is a coroutine, not a task. If it suspends, the lane is busy. What arrives meanwhile waits in
a queue, and the lane's own task, the pump, takes the coroutine over from where it stands, then
works through the queue, and the lane is free again.

A step taken in place must look to the coroutine as if it were a step of the pump, as
`asyncio.timeout()` keeps hold of the current task to cancel it later. So it is made with the pump
as the current task (by the functions that asyncio has for those who write tasks themselves), and
in the pump's context, so that context variables set before a suspension are there after it.

Coroutines are driven by a generator, one for all that come, as `yield from` learns of their end
without the exception that `send` would raise: 150 ns of 1000.

Anybody may cancel the pump: the lane, when it is closed; a timeout in the coroutine; a program
that cancels all tasks before its loop is closed. Whenever that happens, a coroutine that is
suspended gets the CancelledError, and a pump that has nothing to do ends. The next coroutine has a
new one made.
"""

import asyncio
import sys
import types
from asyncio import _enter_task, _leave_task
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Generator
from contextvars import Context, copy_context
from functools import partial
from types import CoroutineType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from ..errors import ErrorCode, make, translate
from ..message_pool import IoMessage
from ._handler import ChannelDirection

if TYPE_CHECKING:
    from ._slot import ChannelSlot

Process = Callable[["ChannelSlot", IoMessage], Awaitable[object] | None]

_ENDED = object()

_NO_MESSAGE: Final = object()
"""What a lane is at while its handler is busy with a message that is no longer the handler's."""

if sys.version_info >= (3, 12):
    from asyncio import current_task
else:  # where that is written in Python, this is a third of it
    current_task = asyncio.tasks._current_tasks.get  # type: ignore[attr-defined]  # private


Driver = Generator[Any, Any, None]
"""Runs the coroutines that are sent to it. Yields what they wait for, and _ENDED after each."""


@types.coroutine
def _driver() -> Driver:
    coroutine: Any = yield _ENDED
    while True:
        yield from coroutine
        coroutine = None  # or it would be kept until the next one comes
        coroutine = yield _ENDED


class _Suspended(NamedTuple):
    """A driver in a coroutine, what that waits for, and perhaps a cancellation still to come."""

    driver: Driver
    pending: Any
    cancelled: asyncio.CancelledError | None = None


class Lane:
    """The messages of one direction at one slot. Thread: the channel's.

    `process` is the handler's method. `count` is told of bytes that begin to wait, and of as many
    negative ones when they no longer do.
    """

    __slots__ = (
        "_closed",
        "_context",
        "_count",
        "_driver",
        "_freed",
        "_is_awaited",
        "_loop",
        "_pump",
        "_step",
        "_suspended",
        "_waiting",
        "_work",
        "at",
        "process",
        "slot",
    )

    def __init__(
        self, slot: "ChannelSlot", process: Process, count: Callable[[int], object] | None = None
    ) -> None:
        self.slot = slot
        self.process = process
        self.at: object = None
        """The message that a coroutine is at, or _NO_MESSAGE; None if the handler is free."""
        self._loop = slot.channel.loop
        self._count = count
        self._closed = False
        # Of lanes with coroutines only:
        self._waiting: deque[IoMessage] | None = None
        self._is_awaited = False  # whether messages wait, or somebody, for the handler to be free
        self._suspended: _Suspended | None = None
        self._driver: Driver | None = None
        self._step: Callable[[Coroutine[Any, Any, object]], Any] | None = None
        self._context: Context | None = None
        self._pump: asyncio.Task[None] | None = None
        self._work: asyncio.Future[None] | None = None  # done when the pump is needed
        self._freed: asyncio.Future[None] | None = None

    @property
    def is_busy(self) -> bool:
        """Whether a coroutine of the handler is suspended."""
        return self.at is not None and not self._closed

    def deliver(self, message: IoMessage) -> None:
        """Hand a message to the handler, now or when those before it are through."""
        if self.at is not None:
            self._keep(message)
            return
        process = self.process  # to call what is no method as if it were one takes 30 ns more
        try:
            awaitable = process(self.slot, message)
        except BaseException as exc:
            self.failed_at(message, exc)
            return
        if awaitable is not None:
            self.step_in_place(message, awaitable)

    def failed_at(self, message: IoMessage, exc: BaseException) -> None:
        """The handler has raised, and has not passed on the message.

        Raises what ends the program.
        """
        self.at = message
        try:
            self._fail(exc)
        finally:
            self.at = None

    def passed_on(self) -> None:
        """The handler has sent on the message that it is at: what becomes of it others tell."""
        self.at = _NO_MESSAGE

    def _keep(self, message: IoMessage) -> None:
        if self._closed:
            _refuse(self.slot, message)
            return
        if self._waiting is None:
            self._waiting = deque()
        self._waiting.append(message)
        self._is_awaited = True
        if self._count is not None:
            self._count(len(message.data))

    def step_in_place(self, message: IoMessage, awaitable: Awaitable[object]) -> None:
        """Step what the handler has returned for a message, until it ends or suspends."""
        self.at = message
        loop = self._loop
        while True:
            if type(awaitable) is not CoroutineType:
                awaitable = _coroutine_of(awaitable)
            step = self._step or self._start_driver()
            pump: Any = self._pump  # there is one, as there is a driver
            outer = current_task(loop)
            if outer is not None:
                _leave_task(loop, outer)
            _enter_task(loop, pump)
            try:
                pending = step(awaitable)
            except BaseException as exc:
                self._step = None  # the driver has ended by it
                self._fail(exc)
                pending = _ENDED
            finally:
                _leave_task(loop, pump)
                if outer is not None:
                    _enter_task(loop, outer)
            if pending is not _ENDED:
                self._suspend(pending)
                return
            if not self._is_awaited:
                self.at = None
                return
            following = self._next_awaitable()  # sent meanwhile
            if following is None:
                self._set_free()
                return
            awaitable = following

    def _suspend(self, pending: Any) -> None:
        assert self._driver is not None
        self._suspended = _Suspended(self._driver, pending)
        self._step = self._driver = None  # the pump has it now
        assert self._work is not None
        if not self._work.done():  # else the pump has been cancelled, and will wake as well
            self._work.set_result(None)

    def _start_driver(self) -> Callable[[Coroutine[Any, Any, object]], Any]:
        """A driver, and what steps a coroutine with it in the pump's context; and the pump."""
        if self._pump is None:
            self._start_pump()
        assert self._context is not None
        self._driver = _driver()
        self._driver.send(None)
        run: Callable[..., Any] = self._context.run
        self._step = partial(run, self._driver.send)
        return self._step

    def _start_pump(self) -> None:
        channel = self.slot.channel
        if self._context is None:
            self._context = copy_context()
            self.slot.has_coroutines(self)
        self._work = self._loop.create_future()
        self._pump = self._loop.create_task(
            self._run(),
            name=f"{type(self.slot.handler).__name__} in {channel!r}",
            context=self._context,
        )
        self._pump.add_done_callback(self._pump_ended)
        channel._adopt(self._pump)

    async def _run(self) -> None:
        """The pump: carry on with what was suspended, then with what waits."""
        try:
            while not self._closed or self._suspended is not None:
                assert self._work is not None
                try:
                    await self._work
                except asyncio.CancelledError as exc:
                    if self._suspended is None:
                        raise
                    self._suspended = self._suspended._replace(cancelled=exc)
                self._work = self._loop.create_future()
                await self._carry_on()
        finally:
            self._forget_pump()

    def _pump_ended(self, pump: "asyncio.Task[None]") -> None:
        if self._pump is not pump:
            return
        # It was cancelled before its first step, and so has not run at all.
        self._forget_pump()
        if self._suspended is not None:
            self._suspended = self._suspended._replace(cancelled=asyncio.CancelledError())
            self._start_pump()
            assert self._work is not None
            self._work.set_result(None)

    def _forget_pump(self) -> None:
        self._pump = self._step = self._driver = None

    async def _carry_on(self) -> None:
        assert self._suspended is not None
        suspended, self._suspended = self._suspended, None
        awaitable: Awaitable[object] | None = _resumed(suspended)
        while awaitable is not None:
            try:
                await awaitable
            except GeneratorExit:
                raise
            except BaseException as exc:
                self._fail(exc)
            while self._pump is not None and self._pump.uncancel():
                pass  # a cancellation that a coroutine has swallowed is no concern of the next
            self.at = _NO_MESSAGE
            awaitable = self._next_awaitable()
        self._set_free()

    def _next_awaitable(self) -> Awaitable[object] | None:
        """Hand over what waits, until a message needs waiting for, or none is left."""
        while self._waiting:
            message = self._waiting.popleft()
            if self._count is not None:
                self._count(-len(message.data))
            self.at = message
            try:
                awaitable = self.process(self.slot, message)
            except BaseException as exc:
                self._fail(exc)
            else:
                if awaitable is not None:
                    return awaitable
            self.at = _NO_MESSAGE
        return None

    def _fail(self, exc: BaseException) -> None:
        """The handler has raised, or was cancelled: it gets no more of these messages.

        What ends the program is raised again, as not every loop ends by it: others go on.
        """
        message, self.at = self.at, _NO_MESSAGE
        channel = self.slot.channel
        leaves = isinstance(exc, (SystemExit, KeyboardInterrupt))
        cancelled = isinstance(exc, asyncio.CancelledError)
        if cancelled and self._closed:
            error = channel.error or _cancelled()
        else:
            error = translate(exc) if cancelled or leaves else exc
            channel._failed(self.slot.handler, error)
        if isinstance(message, IoMessage):
            message.complete(channel, error)
        for lost in self.close():
            lost.complete(channel, error)
        if self.slot.lane(ChannelDirection.READ) is self:
            self.slot.open_for_good()
        if leaves:
            self._set_free()
            raise exc

    def _set_free(self) -> None:
        self.at = None
        self._is_awaited = False
        self._tell_free()

    def _tell_free(self) -> None:
        if self._freed is not None and not self._freed.done():
            self._freed.set_result(None)

    async def drained(self) -> None:
        """Wait until the handler has dealt with all that was delivered."""
        while self.is_busy:
            self._freed = self._loop.create_future()
            self._is_awaited = True
            await self._freed

    def close(self) -> list[IoMessage]:
        """Cancel what is suspended and take no more. Returns what still waited."""
        if self._closed:
            return []
        self._closed = True
        self.process = _refuse
        if self._pump is not None:
            self._pump.cancel()
        left = list(self._waiting or ())
        self._waiting = None
        if self._count is not None:
            self._count(-sum(len(message.data) for message in left))
        self._tell_free()
        return left


def _cancelled() -> BaseException:
    return make(ErrorCode.ERROR_IO_OPERATION_CANCELLED, "the handler takes no more messages")


def _refuse(slot: "ChannelSlot", message: IoMessage) -> None:
    """What a closed lane does with messages."""
    message.complete(slot.channel, slot.channel.error or _cancelled())


@types.coroutine
def _resumed(suspended: _Suspended) -> Generator[Any, Any, None]:
    """Carry on, in a task, with a coroutine that was stepped outside of it.

    The task has not seen yet what the coroutine waits for: that is passed on to it first. From
    there on this is `yield from`, up to the coroutine's end.
    """
    driver, pending, cancelled = suspended
    # As asyncio has it, a cancellation goes to what is waited for, if that can be cancelled.
    if cancelled is not None and not (asyncio.isfuture(pending) and pending.cancel()):
        pending = driver.throw(cancelled)
    while pending is not _ENDED:
        try:
            value = yield pending
        except GeneratorExit:
            driver.close()
            raise
        except BaseException as exc:
            pending = driver.throw(exc)
        else:
            pending = driver.send(value)


async def _coroutine_of(awaitable: Awaitable[object]) -> None:
    await awaitable
