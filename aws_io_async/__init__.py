"""aws-c-io reborn for asyncio: an event loop in pure Python, and the AWS CRT's I/O model on it.

The names below are imported when they are first used.
"""

import importlib
import sys
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0.dev0"

if TYPE_CHECKING:
    from .event_loop._loop import EventLoop as EventLoop
    from .event_loop._statistics import LoopStatistics as LoopStatistics
    from .event_loop.entry import new_event_loop as new_event_loop
    from .event_loop.entry import run as run
    from .event_loop.policy import EventLoopPolicy as EventLoopPolicy
    from .event_loop.policy import install as install

_HOME = {
    "EventLoop": "event_loop._loop",
    "LoopStatistics": "event_loop._statistics",
    "new_event_loop": "event_loop.entry",
    "run": "event_loop.entry",
}
if sys.version_info < (3, 16):  # where asyncio has policies
    _HOME |= {"EventLoopPolicy": "event_loop.policy", "install": "event_loop.policy"}

__all__ = ["__version__", *_HOME]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
