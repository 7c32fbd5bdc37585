"""Channels that are alive when their loop ends: they end before it.

Who runs a loop to its end, be it `asyncio.run` or a group, cancels its tasks, and then closes its
asynchronous generators, which may wait for something meanwhile. A channel that is idle has no task;
so as long as there are channels, there is a generator for each loop, which ends them.
"""

import asyncio
import weakref
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING

from .. import log
from ..errors import ErrorCode, make

if TYPE_CHECKING:
    from ._channel import Channel

PATIENCE = 5.0
"""Seconds for handlers to end a channel at once; a loop must not be kept from its end for ever."""

logger = log.logger(log.LogSubject.CHANNEL)


class LivingChannels:
    """The channels of one loop that have been set up, and the generator that ends them.

    It belongs to them alone: a generator holds its loop, which somebody may drop without an end.
    """

    def __init__(self) -> None:
        self._channels: weakref.WeakSet[Channel] = weakref.WeakSet()
        self._generator = _at_the_end(self._channels)
        _run_to_its_next_step(self._generator.__anext__())

    def add(self, channel: "Channel") -> None:
        """End it with its loop, unless it ends before."""
        self._channels.add(channel)

    def discard(self, channel: "Channel") -> None:
        """It has ended. With the last one, nothing has to be done at the end any more."""
        self._channels.discard(channel)
        if not self._channels and _by_loop.pop(channel.loop, None) is not None:
            _run_to_its_next_step(self._generator.aclose())


_by_loop: "weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, weakref.ref[LivingChannels]]" = (
    weakref.WeakKeyDictionary()
)


def living_channels(loop: asyncio.AbstractEventLoop) -> LivingChannels:
    """Those of a loop: to be kept by each of them. Thread: the loop's."""
    reference = _by_loop.get(loop)
    living = None if reference is None else reference()
    if living is None:
        living = LivingChannels()
        _by_loop[loop] = weakref.ref(living)
    return living


async def _at_the_end(channels: "weakref.WeakSet[Channel]") -> AsyncGenerator[None, None]:
    try:
        yield
    finally:
        alive = list(channels)  # a set of weak references may count some that are dropped just now
        if alive and asyncio._get_running_loop() is not None:
            await _end_all(alive)


async def _end_all(channels: "list[Channel]") -> None:
    _by_loop.pop(channels[0].loop, None)  # nobody has to let go of the generator any more
    for channel in channels:
        detail = f"{channel!r} was still there"
        channel.shutdown(make(ErrorCode.IO_EVENT_LOOP_SHUTDOWN, detail), immediately=True)
    try:
        async with asyncio.timeout(PATIENCE):
            for channel in channels:
                await channel.wait_closed()
    except TimeoutError:
        logger.error("the loop ends, but a handler keeps this channel from it: %r", channel)


def _run_to_its_next_step(step: object) -> None:
    """What a generator does does not suspend here: no task is needed."""
    try:
        step.send(None)  # type: ignore[attr-defined]  # typeshed has it as an awaitable only
    except (StopIteration, StopAsyncIteration):
        pass
