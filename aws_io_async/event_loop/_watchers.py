"""What is watched on which descriptor, and running it when the poller says that it is ready.

`readers` and `writers` say what the poller has been told: an fd is registered for what it is a key
of. A callback runs straight from the poll's result, in the context it was registered in: no handle
is made, nothing passes through the ready queue.

An fd that was registered since the last poll is in `fresh`, and events for it are left for the
next one: they may be about a descriptor that was closed in this turn and whose number was used
again. As polling is level-triggered, nothing is lost by that.
"""

import time
from collections.abc import Callable
from contextvars import Context, copy_context
from functools import partial
from typing import Any

from ._poller import EVENT_READ, EVENT_WRITE, Poller
from ._wakeup import Event, Pair

Watcher = tuple[Callable[..., object], Callable[[], object]]
"""What runs when an fd is ready: a context's `run`, and the callback."""

Wakeup = Event | Pair

Failed = Callable[[object, BaseException], None]
"""Told of a callback and of the exception that it raised."""


class Watchers:
    """The watched descriptors of one loop. Thread: the loop's."""

    def __init__(self, poller: Poller) -> None:
        self.readers: dict[int, Watcher] = {}
        self.writers: dict[int, Watcher] = {}
        self.fresh: set[int] = set()
        """Registered since the last poll: to be cleared before the next one."""
        self.poll = poller.poll
        """What is ready, after waiting so many seconds at most (0: none; None: for ever)."""
        self._poller = poller
        self._directions = (poller.readable, self.readers), (poller.writable, self.writers)

    def add_reader(
        self,
        fd: int,
        callback: Callable[..., object],
        args: tuple[Any, ...],
        context: Context | None,
    ) -> Watcher:
        """Run `callback(*args)` whenever `fd` is readable, in place of what ran so far."""
        self._register(fd, EVENT_WRITE if fd in self.writers else 0, EVENT_READ)
        watcher = self.readers[fd] = _watcher(callback, args, context)
        return watcher

    def add_writer(
        self,
        fd: int,
        callback: Callable[..., object],
        args: tuple[Any, ...],
        context: Context | None,
    ) -> Watcher:
        """Run `callback(*args)` whenever `fd` is writable, in place of what ran so far."""
        self._register(fd, EVENT_READ if fd in self.readers else 0, EVENT_WRITE)
        watcher = self.writers[fd] = _watcher(callback, args, context)
        return watcher

    def remove_reader(self, fd: int, only: Watcher | None = None) -> bool:
        """Stop watching, if it is `only` that watches; says whether there was a watcher to stop."""
        if fd not in self.readers or (only is not None and self.readers[fd] is not only):
            return False
        del self.readers[fd]
        other = EVENT_WRITE if fd in self.writers else 0
        self._poller.update(fd, other | EVENT_READ, other)
        return True

    def remove_writer(self, fd: int, only: Watcher | None = None) -> bool:
        """Stop watching, if it is `only` that watches; says whether there was a watcher to stop."""
        if fd not in self.writers or (only is not None and self.writers[fd] is not only):
            return False
        del self.writers[fd]
        other = EVENT_READ if fd in self.readers else 0
        self._poller.update(fd, other | EVENT_WRITE, other)
        return True

    def _register(self, fd: int, other: int, event: int) -> None:
        """Watch for `event`, beside the `other` direction if that is watched."""
        # Also if it is said to be registered: it may have been closed behind our back, and the
        # number be used anew.
        self._poller.update(fd, other, other | event)
        if not other:
            self.fresh.add(fd)

    def add_wakeup(self, callback: Callable[[Wakeup], object]) -> Wakeup:
        """A new wakeup of the kind that suits the poller; `callback` is told of its calls."""
        wakeup: Wakeup = Event() if self._poller.has_edges else Pair()
        self.add_reader(wakeup.fileno(), callback, (wakeup,), None)
        if isinstance(wakeup, Event):
            self._poller.report_edges(wakeup.fileno())
        return wakeup

    def dispatch(self, ready: list[tuple[int, int]], failed: Failed) -> None:
        """Run the callbacks of the descriptors that are ready. One that raises stops no other."""
        readers, fresh = self.readers, self.fresh
        run: Any
        callback: Any
        for fd, events in ready:
            if events != EVENT_READ or fresh:
                self._dispatch_with_care(fd, events, failed)
                continue
            try:
                run, callback = readers[fd]
            except KeyError:  # removed by one that ran just now
                continue
            try:
                run(callback)
            except (SystemExit, KeyboardInterrupt):
                raise
            except BaseException as exc:
                failed(callback, exc)
        # A traceback that is kept keeps this frame: it must not keep what ran here as well.
        run = callback = None

    def _dispatch_with_care(self, fd: int, events: int, failed: Failed) -> None:
        """The same for one descriptor that may be writable, or new, or hung up."""
        run: Any
        callback: Any
        for direction, watchers in self._directions:
            if events & direction and fd in watchers and fd not in self.fresh:
                run, callback = watchers[fd]
                try:
                    run(callback)
                except (SystemExit, KeyboardInterrupt):
                    raise
                except BaseException as exc:
                    failed(callback, exc)
        run = callback = None

    def dispatch_timed(
        self,
        ready: list[tuple[int, int]],
        failed: Failed,
        took: Callable[[object, float], None],
    ) -> None:
        """The same for debug mode; `took` is told of each callback and when it began."""
        for event in ready:
            started = time.monotonic()
            watched = self.readers.get(event[0]) or self.writers.get(event[0])
            self.dispatch([event], failed)
            if watched is not None:
                took(watched[1], started)

    def count(self) -> int:
        """Descriptors watched."""
        return len(self.readers.keys() | self.writers.keys())

    def disown(self) -> None:
        """This process is a forked child: forget everything, and leave the poller as it is.

        An epoll is shared with the parent, who would lose what the child takes away.
        """
        self.readers.clear()
        self.writers.clear()

    def close(self) -> None:
        """Forget everything and close the poller; idempotent."""
        self.readers.clear()
        self.writers.clear()
        self._poller.close()


def _watcher(
    callback: Callable[..., object], args: tuple[Any, ...], context: Context | None
) -> Watcher:
    run = (copy_context() if context is None else context).run
    return run, partial(callback, *args) if args else callback


def fd_of(fileobj: Any) -> int:
    """The descriptor of what is one or has one; ValueError if it has none."""
    fd = fileobj
    if not isinstance(fd, int):
        try:
            fd = int(fileobj.fileno())
        except (AttributeError, TypeError, ValueError):
            raise ValueError(f"Invalid file object: {fileobj!r}") from None
    if fd < 0:
        raise ValueError(f"Invalid file descriptor: {fd}")
    return fd
