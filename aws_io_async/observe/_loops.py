"""Which loops the process has, and what can be told of one.

Thread: any, for all of this.
"""

import itertools
import threading
import weakref
from dataclasses import asdict
from typing import Any

from ..event_loop import _registry
from ..event_loop._loop import EventLoop

_numbers: "weakref.WeakKeyDictionary[EventLoop, int]" = weakref.WeakKeyDictionary()
_next_number = itertools.count(1)

_hidden: "weakref.WeakSet[EventLoop]" = weakref.WeakSet()
"""Loops of our own, which only look at the others."""


def hide(loop: EventLoop) -> None:
    """Have `event_loops` leave this one out."""
    _hidden.add(loop)


def event_loops() -> list[EventLoop]:
    """The process's event loops of this library that are not closed, in the order of their names.

    Those that a forked child has from its parent are not its own, and are left out.
    """
    while True:
        try:
            known = list(_registry.loops)
        except RuntimeError:  # another thread has made one meanwhile
            continue
        break
    loops = [each for each in known if isinstance(each, EventLoop) and each not in _hidden]
    return sorted(filter(_is_alive, loops), key=_number)


def _is_alive(loop: EventLoop) -> bool:
    return not loop.is_closed() and not loop._forked


def loop_name(loop: EventLoop) -> str:
    """`loop-1` and so on, as they were first looked at: a loop keeps its name."""
    return f"loop-{_number(loop)}"


def _number(loop: EventLoop) -> int:
    number = _numbers.get(loop)
    # Of two threads that number a loop at the same time, one prevails.
    return _numbers.setdefault(loop, next(_next_number)) if number is None else number


def thread_of(loop: EventLoop) -> threading.Thread | None:
    """The thread that runs the loop; None if none does, or one that Python does not know."""
    ident = loop._thread_id
    if ident is None:
        return None
    return next((each for each in threading.enumerate() if each.ident == ident), None)


def connection_count(loop: EventLoop) -> int:
    """How many open transports of sockets the loop has, listeners not among them."""
    transports = [reference() for reference in list(loop._transports.values())]
    return sum(transport is not None and not transport.is_closing() for transport in transports)


def describe_loop(loop: EventLoop) -> dict[str, Any]:
    """Name, thread, state and figures of a loop, in types that JSON has.

    The fields are those of `LoopStatistics`, and those that are told of in docs/observability.md.
    """
    figures = loop.statistics()
    thread = thread_of(loop)
    state = "stopped" if not loop.is_running() else "waiting" if figures.waiting else "busy"
    return {
        "name": loop_name(loop),
        "thread": None if thread is None else thread.name,
        "state": state,
        "load_factor": loop.load_factor,
        "connections": connection_count(loop),
        **asdict(figures),
        "busy_seconds": figures.busy_seconds,
        "events_per_poll": figures.events_per_poll,
    }
