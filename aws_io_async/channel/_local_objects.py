"""Objects that belong to a loop and are shared by its channels, on loops of any kind.

Our own loops keep such objects themselves. For those of others there is a table here; what is in
it goes with the loop object, whose closing nobody tells us of.
"""

import asyncio
import weakref
from asyncio.log import logger
from collections.abc import Hashable
from typing import Any

from ..event_loop._local_objects import LocalObjects, Removed
from ..message_pool import MessagePool

_of_other_loops: "weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Objects]" = (
    weakref.WeakKeyDictionary()
)


class _Objects(LocalObjects):
    """Those of a loop that is not ours."""

    def __del__(self) -> None:
        self.close(_log)


def _log(context: dict[str, Any]) -> None:
    logger.error(context["message"], exc_info=context["exception"])


def put(
    loop: asyncio.AbstractEventLoop, key: Hashable, value: Any, on_removed: Removed | None = None
) -> None:
    """Keep `value` under `key`, in place of what was there. Thread: the loop's."""
    ours = getattr(loop, "put_local_object", None)
    if ours is not None:
        ours(key, value, on_removed)
    else:
        _objects_of(loop).put(key, value, on_removed)


def fetch(loop: asyncio.AbstractEventLoop, key: Hashable) -> Any:
    """What is under `key`; KeyError if nothing is. Thread: the loop's."""
    ours = getattr(loop, "fetch_local_object", None)
    return ours(key) if ours is not None else _objects_of(loop).fetch(key)


def remove(loop: asyncio.AbstractEventLoop, key: Hashable) -> bool:
    """Take away what is under `key`; says whether something was. Thread: the loop's."""
    ours = getattr(loop, "remove_local_object", None)
    return bool(ours(key)) if ours is not None else _objects_of(loop).remove(key)


def message_pool(loop: asyncio.AbstractEventLoop) -> MessagePool:
    """The pool of the loop's channels, made for the first one."""
    try:
        pool: MessagePool = fetch(loop, MessagePool)
    except KeyError:
        pool = MessagePool()
        put(loop, MessagePool, pool)
    return pool


def _objects_of(loop: asyncio.AbstractEventLoop) -> LocalObjects:
    found = _of_other_loops.get(loop)
    if found is None:
        found = _of_other_loops[loop] = _Objects()
    return found
