"""Loops of ours on each poller that there is, and those of others, for tests of what they share."""

import asyncio
import selectors
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from aws_io_async import EventLoop
from tests import kqueue_emulation, loops

SELECTORS = [
    name
    for name in ("EpollSelector", "KqueueSelector", "PollSelector", "SelectSelector")
    if hasattr(selectors, name) or name == "KqueueSelector"
]
"""By class name. Where there is no kqueue, the tests' emulation stands in."""

OURS = ["aws_io_async", *(name for name in SELECTORS if name != selectors.DefaultSelector.__name__)]
"""Kinds of our loop, see `open_loop`; the first is on the platform's best selector."""

EVERY_LOOP = [*OURS, *(name for name in loops.FACTORIES if name != "aws_io_async")]
"""Ours on each poller, and the others."""

if "uvloop" in loops.FACTORIES:
    loops.FACTORIES["uvloop"]().close()  # the first one opens a pipe for good, `no_leaks` sees it


def platform_of(name: str) -> AbstractContextManager[None]:
    """Where the selector class of that name is to be had."""
    return kqueue_emulation.installed() if name == "KqueueSelector" else nullcontext()


@contextmanager
def open_loop(kind: str) -> Iterator[asyncio.AbstractEventLoop]:
    """A loop by its name in `loops.FACTORIES`, or ours on the selector class of that name."""
    with platform_of(kind):
        if kind in SELECTORS:
            loop: asyncio.AbstractEventLoop = EventLoop(selector=getattr(selectors, kind)())
        else:
            loop = loops.FACTORIES[kind]()
        try:
            yield loop
        finally:
            loop.close()
