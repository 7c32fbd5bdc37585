"""Debug mode: when it is on by itself, what it checks and remembers of callbacks, and reports."""

import asyncio
import inspect
import os
import sys
from asyncio.log import logger
from typing import Any, cast

from ._handles import Handle


def debug_by_default() -> bool:
    """Whether asyncio would turn debug mode on: for -X dev and PYTHONASYNCIODEBUG."""
    return sys.flags.dev_mode or (
        not sys.flags.ignore_environment and bool(os.environ.get("PYTHONASYNCIODEBUG"))
    )


def check_callback(callback: object, caller: str) -> None:
    """TypeError for what `caller`, a method of the loop, cannot schedule."""
    if asyncio.iscoroutine(callback) or inspect.iscoroutinefunction(callback):
        raise TypeError(f"coroutines cannot be used with {caller}(): use create_task() instead")
    if not callable(callback):
        raise TypeError(f"a callable object was expected by {caller}(), got {callback!r}")


def report_slow(callback: object, duration: float) -> None:
    """Log that a handle or a callback took so many seconds; of a task's step, name the task."""
    step_of = getattr(getattr(callback, "_callback", None), "__self__", None)
    if isinstance(step_of, asyncio.Task):
        callback = step_of
    logger.warning("Executing %r took %.3f seconds", callback, duration)


def with_origin(handle: asyncio.Handle, file: str) -> Handle:
    """`handle`, remembering who scheduled it, and not how that came to pass in `file`."""
    made = cast(Handle, handle)
    trace: Any = made._source_traceback
    while trace and trace[-1].filename in (file, asyncio.events.__file__):
        trace.pop()
    return made
