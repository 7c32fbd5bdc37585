"""`add_signal_handler` and `remove_signal_handler`.

The interpreter's own C handler does the part that has to be safe in a signal: it writes the
signal's number to a pair of sockets (`signal.set_wakeup_fd`), which is there while there are
handlers. The loop reads it and puts the user's callback into the ready queue, like any other.
"""

import asyncio
import errno
import inspect
import signal
import sys
import warnings
from asyncio.log import logger
from collections.abc import Callable
from contextvars import copy_context
from types import FrameType
from typing import Any

from ._scheduler import Scheduler
from ._wakeup import Pair


class _Handler:  # as a dataclass it would cost every import of a loop half a millisecond
    __slots__ = ("args", "callback", "context")

    def __init__(self, callback: Callable[..., object], args: tuple[Any, ...]) -> None:
        self.callback = callback
        self.args = args
        self.context = copy_context()


class SignalHandlers:
    """The signal handlers of one loop.

    Thread: the main one for `add`, `remove` and `close`, as the interpreter demands.
    """

    def __init__(self, loop: Scheduler) -> None:
        self._loop = loop
        self._handlers: dict[int, _Handler] = {}
        self._pair: Pair | None = None  # while there are handlers

    def add(self, sig: int, callback: Callable[..., object], args: tuple[Any, ...]) -> None:
        """Run `callback(*args)` on the loop, in the present context, whenever `sig` arrives.

        It takes the place of the callback there was. Raises TypeError for a coroutine function or
        a signal that is not an int, ValueError for a number that is no signal, RuntimeError if
        the loop is closed, if this is not the main thread, or if `sig` cannot be caught.
        """
        _check_callback(callback)
        _check_signal(sig)
        self._loop._check_closed()
        if self._pair is None:
            self._pair = Pair()
            self._loop._add_reader(self._pair.fileno(), self._read)
        try:
            # A full pair is no news: the loop is about to wake, and finds a byte of this signal
            # or of others there.
            signal.set_wakeup_fd(self._pair.signal_fileno(), warn_on_full_buffer=False)
            _set_disposition(sig, _do_nothing)
            signal.siginterrupt(sig, False)  # let the kernel resume interrupted system calls
        except (ValueError, OSError) as exc:
            self._close_pair_if_unused()
            raise RuntimeError(str(exc)) from exc
        except RuntimeError:
            self._close_pair_if_unused()
            raise
        self._handlers[sig] = _Handler(callback, args)

    def remove(self, sig: int) -> bool:
        """Restore the default for `sig`; says whether there was a handler.

        A callback that is already in the ready queue will not run. Raises TypeError and
        ValueError as `add` does, and ValueError outside the main thread.
        """
        _check_signal(sig)
        if sig not in self._handlers:
            return False
        _set_disposition(
            sig, signal.default_int_handler if sig == signal.SIGINT else signal.SIG_DFL
        )
        del self._handlers[sig]
        self._close_pair_if_unused()
        return True

    def _read(self) -> None:
        """Signals have come in: queue their callbacks, those that have one."""
        assert self._pair is not None
        for signum in self._pair.drain():
            handler = self._handlers.get(signum)
            if handler is not None:
                self._loop.call_soon(self._run, signum, handler, context=handler.context)

    def _run(self, signum: int, handler: _Handler) -> None:
        if self._handlers.get(signum) is handler:  # neither removed nor replaced meanwhile
            handler.callback(*handler.args)

    def close(self) -> None:
        """Restore the defaults of all signals that have a handler."""
        if not self._handlers:
            return
        if sys.is_finalizing():
            warnings.warn(
                f"Closing the loop {self._loop!r} on interpreter shutdown stage, "
                "skipping signal handlers removal",
                ResourceWarning,
                source=self._loop,
            )
            self._handlers.clear()
            self._close_pair_if_unused()
            return
        for sig in list(self._handlers):
            self.remove(sig)

    def disown(self) -> None:
        """This process is a forked child: keep its signals out of its parent's pair."""
        self._handlers.clear()
        self._close_pair_if_unused()

    def _close_pair_if_unused(self) -> None:
        """Take the pair from the interpreter first: until then signals are written to it."""
        pair = self._pair
        if self._handlers or pair is None:
            return
        self._pair = None
        try:
            fd = signal.set_wakeup_fd(-1)
            if fd not in (-1, pair.signal_fileno()):  # by now another loop's
                signal.set_wakeup_fd(fd, warn_on_full_buffer=False)
        except (ValueError, OSError) as exc:
            logger.info("set_wakeup_fd(-1) failed: %s", exc)
        self._loop._remove_reader(pair.fileno())
        pair.close()


def _check_callback(callback: object) -> None:
    if asyncio.iscoroutine(callback) or inspect.iscoroutinefunction(callback):
        raise TypeError("coroutines cannot be used with add_signal_handler()")


def _check_signal(sig: int) -> None:
    if not isinstance(sig, int):
        raise TypeError(f"sig must be an int, not {sig!r}")
    if sig not in signal.valid_signals():
        raise ValueError(f"invalid signal number {sig}")


def _set_disposition(sig: int, handler: Any) -> None:
    try:
        signal.signal(sig, handler)
    except OSError as exc:
        if exc.errno == errno.EINVAL:
            raise RuntimeError(f"sig {sig} cannot be caught") from exc
        raise


def _do_nothing(signum: int, frame: FrameType | None) -> None:
    """The interpreter writes to the wakeup fd only for signals that have a Python handler."""
