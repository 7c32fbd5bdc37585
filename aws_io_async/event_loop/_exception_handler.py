"""Where exceptions go that nobody awaits: `loop.call_exception_handler` and its default."""

import asyncio
import traceback
from asyncio.log import logger
from collections.abc import Callable
from typing import Any

Context = dict[str, Any]
Handler = Callable[[asyncio.AbstractEventLoop, Context], object]

_TRACEBACKS = {
    "source_traceback": "Object created at (most recent call last):\n",
    "handle_traceback": "Handle created at (most recent call last):\n",
}


def log(context: Context) -> None:
    """Log an unhandled exception and what is known of where it came from."""
    exception = context.get("exception")
    lines = [context.get("message") or "Unhandled exception in event loop"]
    for key in sorted(context):
        if key in ("message", "exception"):
            continue
        value = context[key]
        if key in _TRACEBACKS:
            text = _TRACEBACKS[key] + "".join(traceback.format_list(value)).rstrip()
        else:
            text = repr(value)
        lines.append(f"{key}: {text}")
    exc_info = None if exception is None else (type(exception), exception, exception.__traceback__)
    logger.error("\n".join(lines), exc_info=exc_info)


def call(loop: asyncio.AbstractEventLoop, handler: Handler | None, context: Context) -> None:
    """Call the application's handler, or the loop's default one; no exception of theirs escapes.

    The handler runs in the context of the task, future or callback that failed.
    """
    if handler is None:
        _call_default(loop, context, "Exception in default exception handler")
        return
    try:
        failed: Any = context.get("task") or context.get("future") or context.get("handle")
        where = failed.get_context() if hasattr(failed, "get_context") else None
        if where is None:
            handler(loop, context)
        else:
            where.run(handler, loop, context)
    except (SystemExit, KeyboardInterrupt):
        raise
    except BaseException as exc:
        _call_default(
            loop,
            {
                "message": "Unhandled error in exception handler",
                "exception": exc,
                "context": context,
            },
            "Exception in default exception handler while handling an unexpected error "
            "in custom exception handler",
        )


def _call_default(loop: asyncio.AbstractEventLoop, context: Context, failure: str) -> None:
    try:
        loop.default_exception_handler(context)
    except (SystemExit, KeyboardInterrupt):
        raise
    except BaseException:  # a subclass may override it
        logger.error(failure, exc_info=True)
