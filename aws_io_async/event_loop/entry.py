"""The way in: `run` for programs, `new_event_loop` for everything that takes a loop factory."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from ._loop import EventLoop

T = TypeVar("T")


def new_event_loop() -> EventLoop:
    """A new event loop, for `asyncio.Runner(loop_factory=…)` and the like.

    The caller closes it. Thread: any; the loop belongs to the thread that runs it.
    """
    return EventLoop()


def run(main: Coroutine[Any, Any, T], *, debug: bool | None = None) -> T:
    """Run a coroutine on a new event loop, as `asyncio.run` does on asyncio's; returns its result.

    Ctrl-C cancels `main`, then raises KeyboardInterrupt. Raises RuntimeError if the thread runs a
    loop already, and ValueError if `main` is no coroutine. Thread: any.
    """
    if asyncio._get_running_loop() is not None:  # before a runner makes a loop that it cannot run
        raise RuntimeError("run() cannot be called from a running event loop: await instead")
    with asyncio.Runner(debug=debug, loop_factory=new_event_loop) as runner:
        return runner.run(main)
