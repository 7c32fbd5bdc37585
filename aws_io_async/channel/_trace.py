"""Every message that a handler is given, in the log at the level TRACE."""

from typing import TYPE_CHECKING

from .. import log
from ..message_pool import IoMessage
from ._handler import ChannelDirection
from ._lane import Process

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from ._slot import ChannelSlot

_logger = log.logger(log.LogSubject.CHANNEL)


def traced(process: Process, direction: ChannelDirection) -> Process:
    """A handler's method, and before it a line of the log: if TRACE is on now.

    If it is not, this is the method itself, and no message costs anything; it is asked when a
    handler is put into its slot.
    """
    if not _logger.isEnabledFor(log.TRACE):
        return process

    def tell_and_process(slot: "ChannelSlot", message: IoMessage) -> "Awaitable[object] | None":
        _logger.log(log.TRACE, "%r %s: %r", slot.channel, direction.value, message)
        return process(slot, message)

    return tell_and_process
