"""One face for epoll, kqueue, poll and select, with the shortest way to their results.

Each poller takes over a selector of the standard library. `poll()` returns plain `(fd, events)`
pairs: the selectors' own `select()` looks up and packs a `SelectorKey` for each event, which costs
a busy loop more than the system call does. For the same reason epoll and kqueue are updated
directly: the loop keeps its own table of what is registered, so the selector's would be a copy.

The bits of `events` are the poller's own: test them with its `readable` and `writable` masks.
As in `selectors`, a hang-up or an error is both, so that whoever waits comes to know of it.
"""

import os
import select
import selectors
import sys
from typing import Any, Protocol

EVENT_READ = selectors.EVENT_READ
EVENT_WRITE = selectors.EVENT_WRITE

MAXIMUM_TIMEOUT = 24 * 3600.0
"""Seconds; as in asyncio, epoll and kqueue take no longer ones on some systems."""

MAX_EVENTS = 512
"""Events taken from the kernel at a time; the others are still there at the next poll."""


class Poller(Protocol):
    """What the loop knows of its poller. Thread: the loop's own, `close` included."""

    readable: int
    writable: int
    has_edges: bool
    """Whether `report_edges` can be called."""

    def update(self, fd: int, old: int, new: int) -> None:
        """Change what is waited for on `fd` from `old` to `new`, masks of EVENT_READ and
        EVENT_WRITE, 0 for nothing; what is not in `old` may be registered all the same. Raises
        OSError if the kernel refuses `fd` (EBADF; EPERM for a regular file under epoll); taking
        away never fails."""

    def poll(self, timeout: float | None) -> list[tuple[int, int]]:
        """Wait for events, at most `timeout` seconds (0: don't, None: for ever)."""

    def report_edges(self, fd: int) -> None:
        """Report `fd`, watched for reading, at each write to its other end, read or not."""

    def close(self) -> None:
        """Release the kernel object; idempotent."""


class SelectorPoller:
    """Any selector, by its public methods: for `PollSelector` and `SelectSelector`."""

    readable = EVENT_READ
    writable = EVENT_WRITE
    has_edges = False

    def __init__(self, selector: selectors.BaseSelector) -> None:
        self._selector = selector

    def update(self, fd: int, old: int, new: int) -> None:
        if not new:
            self._selector.unregister(fd)
        elif old or fd in self._selector.get_map():
            self._selector.modify(fd, new)
        else:
            self._selector.register(fd, new)

    def poll(self, timeout: float | None) -> list[tuple[int, int]]:
        return [(key.fd, events) for key, events in self._selector.select(timeout)]

    def report_edges(self, fd: int) -> None:
        raise NotImplementedError("this poller reports levels only")

    def close(self) -> None:
        self._selector.close()


if sys.platform == "linux":
    _EPOLL_EVENTS = (0, select.EPOLLIN, select.EPOLLOUT, select.EPOLLIN | select.EPOLLOUT)

    class EpollPoller:
        """epoll, level-triggered unless edges are asked for."""

        readable = ~select.EPOLLOUT
        writable = ~select.EPOLLIN
        has_edges = hasattr(os, "eventfd")

        def __init__(self, selector: selectors.EpollSelector) -> None:
            self._selector = selector
            self._epoll: select.epoll = selector._selector  # type: ignore[attr-defined]  # see head
            self.poll = self._epoll.poll  # the fastest method is none

        def update(self, fd: int, old: int, new: int) -> None:
            try:
                if not new:
                    self._epoll.unregister(fd)
                elif old:
                    self._epoll.modify(fd, _EPOLL_EVENTS[new])
                else:
                    self._epoll.register(fd, _EPOLL_EVENTS[new])
            except FileExistsError:
                self._epoll.modify(fd, _EPOLL_EVENTS[new])
            except OSError as exc:
                if not new & ~old:
                    return  # closed by its owner before it was taken away: gone already
                if not isinstance(exc, FileNotFoundError):
                    raise
                # Closed behind our back, and the number used anew.
                self._epoll.register(fd, _EPOLL_EVENTS[new])

        def report_edges(self, fd: int) -> None:
            self._epoll.modify(fd, select.EPOLLIN | select.EPOLLET)

        def close(self) -> None:
            self._selector.close()


class KqueuePoller:
    """kqueue, level-triggered; one filter a direction, so one fd may come up twice."""

    readable = EVENT_READ
    writable = EVENT_WRITE
    has_edges = False

    def __init__(self, selector: selectors.BaseSelector) -> None:
        self._selector = selector
        self._kqueue: Any = selector._selector  # type: ignore[attr-defined]  # see the head

    def update(self, fd: int, old: int, new: int) -> None:
        # With what is new all of `new` is added, as adding twice does no harm: had the fd been
        # closed behind our back and its number used anew, nothing of `old` would be left.
        kq: Any = select  # typeshed has kqueue's names on the platforms that have kqueue only
        for event, kind in ((EVENT_READ, kq.KQ_FILTER_READ), (EVENT_WRITE, kq.KQ_FILTER_WRITE)):
            if new & event and new & ~old:
                self._kqueue.control([kq.kevent(fd, kind, kq.KQ_EV_ADD)], 0, 0)
            elif old & ~new & event:
                try:
                    self._kqueue.control([kq.kevent(fd, kind, kq.KQ_EV_DELETE)], 0, 0)
                except OSError:  # closed by its owner before it was taken away: gone already
                    pass

    def poll(self, timeout: float | None) -> list[tuple[int, int]]:
        read = select.KQ_FILTER_READ  # type: ignore[attr-defined,unused-ignore]  # not on Linux
        return [
            (event.ident, EVENT_READ if event.filter == read else EVENT_WRITE)
            for event in self._kqueue.control(None, MAX_EVENTS, timeout)
        ]

    def report_edges(self, fd: int) -> None:
        raise NotImplementedError("this poller reports levels only")

    def close(self) -> None:
        self._selector.close()


def take_over(selector: selectors.BaseSelector | None) -> Poller:
    """The poller for `selector`, by default the platform's best. It owns the selector."""
    if selector is None:
        selector = selectors.DefaultSelector()
    if not isinstance(selector, selectors.BaseSelector):
        raise TypeError(
            f"selector must be an instance of a class of the selectors module, not {selector!r}"
        )
    if sys.platform == "linux" and isinstance(selector, selectors.EpollSelector):
        return EpollPoller(selector)
    kqueue_selector = getattr(selectors, "KqueueSelector", None)
    if kqueue_selector is not None and isinstance(selector, kqueue_selector):
        return KqueuePoller(selector)
    return SelectorPoller(selector)
