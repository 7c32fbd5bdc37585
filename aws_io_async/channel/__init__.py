"""Channels: pipelines of handlers between a socket and an application.

          read direction  ->
    +--------+    +--------+    +-------------+
    | socket | <> |  TLS   | <> | application |      a slot each, a handler in each slot
    +--------+    +--------+    +-------------+
          <-  write direction

Source: aws-c-io's `channel.h`. How it works is told at the heads of the modules: `_channel` has
the life of a channel, `_shutdown` how it ends, `_slot` the passing of messages, `_windows` when
the read windows are topped up, `_lane` handlers that are coroutines, `_tasks` the tasks.
"""

from ._channel import Channel
from ._handler import ChannelDirection, ChannelHandler
from ._slot import ChannelSlot
from ._state import ChannelState
from ._tasks import ChannelTask

__all__ = [
    "Channel",
    "ChannelDirection",
    "ChannelHandler",
    "ChannelSlot",
    "ChannelState",
    "ChannelTask",
]
