"""The two phases in which a channel ends.

Theory of operation. First the read direction ends, slot by slot from left to right, and then, after
the loop has had a turn, the write direction from right to left: so nothing that was received or
written is lost. A slot's turn comes when its handler has dealt with all messages that were
delivered to it, and lasts until its `shutdown` is done. Slots that come or go meanwhile are seen.

An immediate shutdown waits for nobody: coroutines of handlers are cancelled and messages that
wait are dropped. A graceful one becomes immediate when it is told to `hurry`, at any point; what it
waits for then is cancelled, and asked again to end at once. A loop that is about to close cancels
all tasks, this one too: that is the same haste.
"""

import asyncio
from collections.abc import Awaitable
from typing import TYPE_CHECKING

from ..errors import ErrorCode, make, translate
from ._handler import ChannelDirection, ChannelHandler
from ._slot import ChannelSlot
from ._waiters import resolve

if TYPE_CHECKING:
    from ._channel import Channel


class Shutdown:
    """That of one channel, made once. Thread: the channel's."""

    def __init__(self, channel: "Channel", immediately: bool) -> None:
        self._channel = channel
        self._task: asyncio.Task[None] | None = None
        self._haste: asyncio.Future[None] = channel.loop.create_future()
        if immediately:
            self.hurry()

    @property
    def is_immediate(self) -> bool:
        """Whether nothing is waited for, or no longer."""
        return self._haste.done()

    def hurry(self) -> None:
        """Become immediate."""
        if not self._haste.done():
            self._haste.set_result(None)

    def start(self) -> None:
        """Begin. At the end, the channel is told to."""
        name = f"shutdown of {self._channel!r}"
        self._task = self._channel.loop.create_task(self._run(), name=name)
        self._task.add_done_callback(self._stopped)

    def _stopped(self, task: "asyncio.Task[None]") -> None:
        if task.cancelled() and not self._channel._has_ended:
            self.hurry()  # it was cancelled before it had begun, and another one has to do it
            self.start()

    async def _run(self) -> None:
        try:
            await self._end_both()
        finally:
            self._channel._end()

    async def _end_both(self) -> None:
        """Both phases. No coroutine of a handler runs afterwards."""
        await self._end_all(ChannelDirection.READ)
        # Handlers may have called us from within the read phase: let them return first.
        await self._wait_for(self._turn())
        await self._end_all(ChannelDirection.WRITE)
        for slot in self._channel.slots():
            self._drop(slot, *ChannelDirection)
        while tasks := self._channel._tasks_of_handlers:
            await asyncio.wait(tasks)

    def _turn(self) -> "asyncio.Future[None]":
        turn: asyncio.Future[None] = self._channel.loop.create_future()
        self._channel.loop.call_soon(resolve, turn)
        return turn

    async def _end_all(self, direction: ChannelDirection) -> None:
        ended: set[ChannelSlot] = set()
        while (slot := self._next(direction, ended)) is not None:
            ended.add(slot)
            await self._end(slot, direction)

    def _next(self, direction: ChannelDirection, ended: set[ChannelSlot]) -> ChannelSlot | None:
        slots = list(self._channel.slots())
        if direction is ChannelDirection.WRITE:
            slots.reverse()
        return next((slot for slot in slots if slot not in ended), None)

    async def _end(self, slot: ChannelSlot, direction: ChannelDirection) -> None:
        lane = slot.lane(direction)
        if lane is not None and lane.is_busy and not self.is_immediate:
            await self._wait_for(asyncio.ensure_future(lane.drained()))
        if slot.handler is None or slot._removed:
            return
        if self.is_immediate:
            self._drop(slot, direction)
        if not await self._end_handler(slot.handler, slot, direction):
            self._drop(slot, direction)
            await self._end_handler(slot.handler, slot, direction)

    async def _end_handler(
        self, handler: ChannelHandler, slot: ChannelSlot, direction: ChannelDirection
    ) -> bool:
        """End one direction of a handler; False if that was cancelled because of the haste."""
        channel = self._channel
        immediately = self.is_immediate
        try:
            awaitable = handler.shutdown(slot, direction, channel.error, immediately)
            if awaitable is None:
                return True
            step = asyncio.ensure_future(_awaited(awaitable))
            channel._adopt(step)
            try:
                if await self._wait_for(step) and step.cancelled():
                    return immediately
                step.result()
            finally:
                if asyncio.iscoroutine(awaitable):
                    awaitable.close()  # it may not have begun when the step was cancelled
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as exc:
            channel._failed(handler, exc)
        return True

    async def _wait_for(self, step: "asyncio.Future[None]") -> bool:
        """Wait until it is done; says whether haste came first, and it has been cancelled."""
        was_immediate = self.is_immediate
        try:
            await asyncio.wait(
                {step} if was_immediate else {step, self._haste},
                return_when=asyncio.FIRST_COMPLETED,
            )
        except asyncio.CancelledError:
            self.hurry()
        if step.done() and not step.cancelled():
            return False
        step.cancel()
        await asyncio.wait({step})
        return True

    def _drop(self, slot: ChannelSlot, *directions: ChannelDirection) -> None:
        """Cancel what is suspended there, and drop what waits."""
        channel = self._channel
        dropped = slot._drop_inherited()
        for direction in directions:
            lane = slot.lane(direction)
            dropped += lane.close() if lane is not None else []
        for message in dropped:
            message.complete(
                channel,
                channel.error or make(ErrorCode.ERROR_IO_OPERATION_CANCELLED, f"{channel!r}"),
            )


async def _awaited(awaitable: Awaitable[object]) -> None:
    await awaitable


def kept_error(error: BaseException | None) -> BaseException | None:
    """The error as it is kept: a CancelledError, raised anew, would cancel who asks for it."""
    return translate(error) if isinstance(error, asyncio.CancelledError) else error
