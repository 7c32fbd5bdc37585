"""What `call_soon` and `call_later` return.

These are asyncio's own handle classes with their constructors left out: the loop makes an empty
handle and stores its attributes, which costs half of what `Handle.__init__` does.
A handle is cancelled when its callback is None, so that one load tells the loop all it needs.
In debug mode the loop makes asyncio's own handles instead, which remember where they came from.

From Python 3.14 on, another thread than the loop's may cancel what `call_soon_threadsafe` returns,
and waits if the callback is running: such a handle has a lock, under which its own `_run` goes.
"""

import asyncio
from collections.abc import Callable
from contextvars import Context
from typing import Any


class Handle(asyncio.Handle):
    """A callback waiting in the ready queue. Made by the loop only."""

    __slots__ = ()

    __init__ = object.__init__

    # In place of what the skipped constructor would have stored.
    _repr = None
    _source_traceback: Any = None

    _callback: Callable[..., object] | None
    _args: Any  # a tuple; None once cancelled
    _context: Context
    _loop: Any

    @property
    def _cancelled(self) -> bool:  # type: ignore[override]  # a slot in asyncio, derived here
        return self._callback is None

    def cancelled(self) -> bool:
        return self._callback is None

    def get_context(self) -> Context:  # in asyncio from Python 3.12 on
        return self._context

    def cancel(self) -> None:
        self._callback = None
        self._args = None


ThreadSafeHandle: type[asyncio.Handle] = getattr(
    asyncio.events, "_ThreadSafeHandle", asyncio.Handle
)
"""What asyncio's own `call_soon_threadsafe` returns."""

HANDLES_HAVE_LOCKS = ThreadSafeHandle is not asyncio.Handle


class _AsItIs:
    """In the place of a context, for what enters a context by itself."""

    def run(self, callback: Callable[[], object]) -> object:
        return callback()


_AS_IT_IS: Any = _AsItIs()


def run_of(locked: asyncio.Handle) -> Handle:
    """What the ready queue holds for a handle with a lock, which it then runs under it."""
    handle: Handle = Handle()
    handle._callback = locked._run
    handle._args = ()
    handle._context = _AS_IT_IS
    handle._loop = locked._loop  # type: ignore[attr-defined]  # not in typeshed
    return handle


class TimerHandle(asyncio.TimerHandle):
    """A callback waiting for its time. Made by the loop only."""

    __slots__ = ()

    __init__ = object.__init__

    _repr = None
    _source_traceback: Any = None

    _callback: Callable[..., object] | None
    _args: Any  # a tuple; None once cancelled
    _context: Context
    _loop: Any
    _when: float

    @property
    def _cancelled(self) -> bool:  # type: ignore[override]  # a slot in asyncio, derived here
        return self._callback is None

    def cancelled(self) -> bool:
        return self._callback is None

    def get_context(self) -> Context:  # in asyncio from Python 3.12 on
        return self._context

    def cancel(self) -> None:
        if self._callback is not None:
            self._callback = None
            self._args = None
            self._loop._timer_handle_cancelled(self)
