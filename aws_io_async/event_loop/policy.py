"""The event loop policy, for programs that choose their loop that way.

Policies are asyncio's old mechanism: deprecated from Python 3.14 on and gone in 3.16. Prefer
`aws_io_async.run`, or `asyncio.Runner(loop_factory=aws_io_async.new_event_loop)`.
"""

import asyncio

from ._loop import EventLoop


class EventLoopPolicy(asyncio.DefaultEventLoopPolicy):
    """asyncio's policy with our loops in it. From Python 3.14 on, asyncio warns at its use."""

    _loop_factory = EventLoop


def install() -> None:
    """Make `asyncio.run`, `asyncio.new_event_loop` and the like give loops of this library.

    For the whole process. From Python 3.14 on it gives asyncio's own DeprecationWarning.
    """
    asyncio.set_event_loop_policy(EventLoopPolicy())
