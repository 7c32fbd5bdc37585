"""Channels that are ready when their loop ends: they end before it.

Who runs a loop to its end, be it `asyncio.run` or a group, cancels its tasks, and then closes its
asynchronous generators, which may wait for something meanwhile. A channel that is idle has no task;
so as long as there are channels, there is a generator for each loop, which ends them.
"""

import asyncio
import weakref
from collections.abc import AsyncGenerator

from .. import log
from ..channel import Channel
from ..errors import ErrorCode, make

PATIENCE = 5.0
"""Seconds for handlers to end a channel at once; a loop must not be kept from its end for ever."""

logger = log.logger(log.LogSubject.CHANNEL_BOOTSTRAP)


class _Living:
    """The channels of one loop that are ready, and the generator that ends them."""

    def __init__(self) -> None:
        self.channels: weakref.WeakSet[Channel] = weakref.WeakSet()
        self._generator = _at_the_end(self.channels)
        _run_to_its_next_step(self._generator.__anext__())

    def let_go(self) -> None:
        """None is left: nothing has to be done at the end."""
        _run_to_its_next_step(self._generator.aclose())


_living: "weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Living]" = (
    weakref.WeakKeyDictionary()
)


def add(channel: Channel) -> None:
    """End it with its loop, unless it ends before. Thread: the channel's."""
    living = _living.get(channel.loop)
    if living is None:
        living = _living[channel.loop] = _Living()
    living.channels.add(channel)


def discard(channel: Channel) -> None:
    """It has ended. Thread: the channel's."""
    living = _living.get(channel.loop)
    if living is None:
        return
    living.channels.discard(channel)
    if not living.channels:
        del _living[channel.loop]
        living.let_go()


async def _at_the_end(channels: "weakref.WeakSet[Channel]") -> AsyncGenerator[None, None]:
    try:
        yield
    finally:
        if channels and asyncio._get_running_loop() is not None:
            await _end_all(list(channels))


async def _end_all(channels: list[Channel]) -> None:
    _living.pop(channels[0].loop, None)  # nobody has to let go of the generator any more
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
