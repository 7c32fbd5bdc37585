"""The queue."""

import errno
import math
import operator
import os
import threading
import time
import weakref
from collections.abc import Iterable
from typing import SupportsIndex

from tests.kqueue_emulation._filter import Filter, platform_select
from tests.kqueue_emulation._kevent import EV_ERROR, EV_RECEIPT, FILTER_READ, FILTER_WRITE, Kevent

_FILE_INTERVAL = 0.005  # seconds between two looks at regular files
_LONGEST_WAIT = 3600.0  # seconds; epoll takes no more than 24 days


class Kqueue:
    """`select.kqueue`. Any thread may call its methods."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._epoll = platform_select.epoll()
        self._filters = {number: Filter(number) for number in (FILTER_READ, FILTER_WRITE)}
        self._turns = list(self._filters.values())
        for one in self._turns:
            self._epoll.register(one.epoll.fileno(), platform_select.EPOLLIN)
        _open_queues[self.fileno()] = self

    @classmethod
    def fromfd(cls, fd: int, /) -> "Kqueue":
        """Another object for the queue with the descriptor `fd`. Raises OSError (EBADF)."""
        other = _open_queues.get(fd)
        if other is None or other.closed:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        queue = cls.__new__(cls)
        vars(queue).update(vars(other), _origin=other)
        return queue

    @property
    def closed(self) -> bool:
        return bool(self._epoll.closed)

    def fileno(self) -> int:
        """A descriptor that is readable while the queue has events."""
        if self.closed:
            raise ValueError("I/O operation on closed kqueue object")
        return int(self._epoll.fileno())

    def close(self) -> None:
        for one in self._turns:
            one.epoll.close()
        self._epoll.close()

    def control(
        self,
        changelist: Iterable[Kevent] | None,
        max_events: SupportsIndex,
        timeout: float | None = None,
        /,
    ) -> list[Kevent]:
        """Apply the changes, then wait up to `timeout` seconds for up to `max_events` events.

        A change that fails is reported as an event with EV_ERROR and its errno in `data`, and
        events are then left for the next call. With no room for it OSError is raised, and the
        changes after it are not applied. With `max_events` 0 nothing is waited for.
        """
        self.fileno()
        room = operator.index(max_events)
        if room < 0:
            raise ValueError(f"Length of eventlist must be 0 or positive, got {room}")
        deadline = _deadline(timeout)
        errors = self._apply(_changes(changelist), room)
        if errors or not room:
            return errors
        while True:
            wait = _LONGEST_WAIT if deadline is None else deadline - time.monotonic()
            if events := self._wait(room, min(max(wait, 0.0), _LONGEST_WAIT)):
                return events
            if wait <= 0:
                return []

    def _apply(self, changes: list[Kevent], room: int) -> list[Kevent]:
        results: list[Kevent] = []
        with self._lock:
            for change in changes:
                code = 0
                try:
                    if change.filter not in self._filters:
                        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
                    self._filters[change.filter].change(change)
                except OSError as error:
                    if len(results) == room:
                        raise
                    code = error.errno or errno.EINVAL
                if code or (change.flags & EV_RECEIPT and len(results) < room):
                    ident, number, flags, fflags, _, udata = change._fields()
                    results.append(Kevent(ident, number, flags | EV_ERROR, fflags, code, udata))
        return results

    def _wait(self, room: int, timeout: float) -> list[Kevent]:
        """Wait for events. The result may be empty before the time is up."""
        if not any(one.has_files() for one in self._turns):
            return self._collect(room, timeout)
        return self._collect(room, 0) or self._collect(room, min(timeout, _FILE_INTERVAL))

    def _collect(self, room: int, timeout: float) -> list[Kevent]:
        ready = {fd for fd, _ in self._epoll.poll(timeout)}
        events: list[Kevent] = []
        with self._lock:
            self._turns.reverse()  # neither filter starves when there is little room
            for one in self._turns:
                if len(events) < room and (one.has_files() or one.epoll.fileno() in ready):
                    events += one.events(room - len(events))
        return events


_open_queues: weakref.WeakValueDictionary[int, Kqueue] = weakref.WeakValueDictionary()


def _close_in_child() -> None:
    """fork(2): the child does not inherit queues."""
    for queue in list(_open_queues.values()):
        queue.close()


os.register_at_fork(after_in_child=_close_in_child)


def _deadline(timeout: object) -> float | None:
    if timeout is None:
        return None
    if not isinstance(timeout, int | float):
        kind = type(timeout).__name__
        raise TypeError(f"timeout argument must be a number or None, got {kind}")
    if math.isnan(timeout):
        raise ValueError("Invalid value NaN (not a number)")
    if timeout < 0:
        raise ValueError("timeout must be positive or None")
    if timeout >= 2**63 / 10**9:
        raise OverflowError("timestamp too large to convert to C PyTime_t")
    return time.monotonic() + timeout


def _changes(changelist: Iterable[Kevent] | None) -> list[Kevent]:
    if changelist is None:
        return []
    try:
        changes = list(changelist)
    except TypeError:
        raise TypeError("changelist is not iterable") from None
    if not all(isinstance(change, Kevent) for change in changes):
        raise TypeError("changelist must be an iterable of select.kevent objects")
    return changes
