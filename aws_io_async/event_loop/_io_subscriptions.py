"""Subscriptions to the events of descriptors, with edge semantics.

Theory of operation. The loop's own poller is level-triggered and tells read from write, no more. A
subscriber is told once of what is new, and of hang-ups and errors as such. So the subscriptions of
a loop have a kernel object of their own, an epoll with EPOLLET or a kqueue with EV_CLEAR, made
when the first one is. It is itself a descriptor that is readable while it has events, and the loop
watches it like any other, whatever poller it runs on: loops without subscribers pay nothing, and
edges are the kernel's even under `PollSelector`.

The events of one look are matched with their subscriptions before the first callback runs. A
callback that ends another's subscription makes that one inactive, and its event is dropped; a
descriptor that gets a number which was closed meanwhile cannot be mistaken for the old one.
"""

import select
import sys
import threading
from collections import deque
from collections.abc import Callable
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, Protocol

from .io_handle import IoEvents, IoHandle

if TYPE_CHECKING:
    from ..errors import AwsIoError
    from ._crt_loop import CrtLoop

OnEvent = Callable[[Any, IoHandle, IoEvents], object]
"""Called with the loop, the handle, and what happened to it."""

MAX_EVENTS = 512
"""Events taken from a kqueue at a time; the others are still there at the next look."""


class EdgePoller(Protocol):
    """Thread: any for `add`, the loop's for the others."""

    def fileno(self) -> int:
        """A descriptor that is readable while there are events."""

    def add(self, fd: int, events: IoEvents) -> None:
        """Report `fd`. Raises OSError if the kernel refuses it."""

    def remove(self, fd: int) -> None:
        """Stop reporting `fd`; nothing to do for one that was closed before."""

    def poll(self) -> list[tuple[int, IoEvents]]:
        """What is new, one entry a descriptor; does not wait."""

    def close(self) -> None: ...


if sys.platform == "linux":

    class EpollEdges:
        """epoll with EPOLLET."""

        def __init__(self) -> None:
            self._epoll = select.epoll()
            self._known: dict[int, IoEvents] = {}  # by epoll's bits: an enum.Flag is slow to make

        def fileno(self) -> int:
            return self._epoll.fileno()

        def add(self, fd: int, events: IoEvents) -> None:
            mask = select.EPOLLET | select.EPOLLRDHUP  # hang-ups and errors come unasked
            if IoEvents.READABLE in events:
                mask |= select.EPOLLIN
            if IoEvents.WRITABLE in events:
                mask |= select.EPOLLOUT
            self._epoll.register(fd, mask)

        def remove(self, fd: int) -> None:
            try:
                self._epoll.unregister(fd)
            except OSError:
                pass

        def poll(self) -> list[tuple[int, IoEvents]]:
            return [
                (fd, self._known.get(bits) or self._translate(bits))
                for fd, bits in self._epoll.poll(0)
            ]

        def _translate(self, bits: int) -> IoEvents:
            events = IoEvents(0)
            for bit, event in (
                (select.EPOLLIN, IoEvents.READABLE),
                (select.EPOLLOUT, IoEvents.WRITABLE),
                (select.EPOLLRDHUP, IoEvents.REMOTE_HANG_UP),
                (select.EPOLLHUP, IoEvents.CLOSED),
                (select.EPOLLERR, IoEvents.ERROR),
            ):
                if bits & bit:
                    events |= event
            self._known[bits] = events
            return events

        def close(self) -> None:
            self._epoll.close()


class KqueueEdges:
    """kqueue with EV_CLEAR; one filter a direction."""

    def __init__(self) -> None:
        self._names: Any = select  # typeshed has kqueue's on the platforms that have kqueue only
        self._kqueue = self._names.kqueue()

    def fileno(self) -> int:
        return int(self._kqueue.fileno())

    def add(self, fd: int, events: IoEvents) -> None:
        kq = self._names
        try:
            for event, kind in (
                (IoEvents.READABLE, kq.KQ_FILTER_READ),
                (IoEvents.WRITABLE, kq.KQ_FILTER_WRITE),
            ):
                if event in events:
                    flags = kq.KQ_EV_ADD | kq.KQ_EV_CLEAR
                    self._kqueue.control([kq.kevent(fd, kind, flags)], 0, 0)
        except OSError:
            self.remove(fd)
            raise

    def remove(self, fd: int) -> None:
        kq = self._names
        for kind in (kq.KQ_FILTER_READ, kq.KQ_FILTER_WRITE):
            try:
                self._kqueue.control([kq.kevent(fd, kind, kq.KQ_EV_DELETE)], 0, 0)
            except OSError:
                pass

    def poll(self) -> list[tuple[int, IoEvents]]:
        found: dict[int, IoEvents] = {}
        for event in self._kqueue.control(None, MAX_EVENTS, 0):
            found[event.ident] = found.get(event.ident, IoEvents(0)) | self._translate(event)
        return [(fd, events) for fd, events in found.items() if events]

    def _translate(self, event: Any) -> IoEvents:
        kq = self._names
        if event.flags & kq.KQ_EV_ERROR:
            return IoEvents.ERROR
        reading = event.filter == kq.KQ_FILTER_READ
        events = IoEvents(0)
        if event.data:
            events |= IoEvents.READABLE if reading else IoEvents.WRITABLE
        if event.flags & kq.KQ_EV_EOF:
            events |= IoEvents.REMOTE_HANG_UP if reading else IoEvents.CLOSED
            if event.fflags:
                events |= IoEvents.ERROR
        return events

    def close(self) -> None:
        self._kqueue.close()


def new_edge_poller() -> EdgePoller:
    """What this platform has. Raises NotImplementedError if it has neither."""
    if hasattr(select, "kqueue"):
        return KqueueEdges()
    if sys.platform == "linux":
        return EpollEdges()
    raise NotImplementedError("subscriptions to I/O events need epoll or kqueue")


class Subscription:
    """One subscriber."""

    __slots__ = ("active", "handle", "on_event", "run")

    def __init__(self, handle: IoHandle, on_event: OnEvent) -> None:
        self.handle = handle
        self.on_event = on_event
        self.run = copy_context().run
        self.active = True


class IoSubscriptions:
    """The subscriptions of one loop. Thread: any for `subscribe`, the loop's for the others."""

    def __init__(self, loop: "CrtLoop") -> None:
        self._loop = loop
        self._by_fd: dict[int, Subscription] = {}
        self._edges: EdgePoller | None = None
        self._lock = threading.Lock()  # held while `_edges` is made
        self._found: deque[tuple[Subscription, IoEvents]] = deque()

    def subscribe(self, handle: IoHandle, events: IoEvents, on_event: OnEvent) -> None:
        self._loop._check_closed()
        _check_arguments(handle, events, on_event)
        self._loop._check_no_transport(handle.fd)
        edges = self._get_edges()
        subscription = Subscription(handle, on_event)
        there = self._by_fd.setdefault(handle.fd, subscription)
        if there is not subscription:
            raise _error(
                "ERROR_IO_ALREADY_SUBSCRIBED",
                f"fd {handle.fd} has a subscriber already: unsubscribe {there.handle!r} first, "
                "and before its fd is closed",
            )
        try:
            edges.add(handle.fd, events)
        except BaseException:
            del self._by_fd[handle.fd]
            raise

    def unsubscribe(self, handle: IoHandle) -> None:
        subscription = self._by_fd.get(handle.fd)
        if subscription is None or subscription.handle is not handle:
            raise _error("ERROR_IO_NOT_SUBSCRIBED", f"{handle!r} has no subscriber on this loop")
        assert self._edges is not None
        subscription.active = False
        del self._by_fd[handle.fd]
        self._edges.remove(handle.fd)

    def _get_edges(self) -> EdgePoller:
        with self._lock:
            if self._edges is None:
                self._edges = new_edge_poller()
                if self._loop.thread_is_callers_thread():
                    self._watch()
                else:
                    self._loop.call_soon_threadsafe(self._watch)
            return self._edges

    def _watch(self) -> None:
        if self._edges is not None:
            self._loop._add_reader(self._edges.fileno(), self._look)

    def _look(self) -> None:
        """Tell the subscribers what is new. A callback that raises stops no other."""
        assert self._edges is not None
        by_fd, found = self._by_fd, self._found
        for fd, events in self._edges.poll():
            subscription = by_fd.get(fd)  # one look: another thread's may fail, and be gone
            if subscription is not None:
                found.append((subscription, events))
        try:
            while found:
                subscription, events = found.popleft()
                if subscription.active:
                    self._tell(subscription, events)
        except BaseException:  # ends the run: an edge that is not told of now would never be
            self._loop.call_soon(self._look)
            raise

    def _tell(self, subscription: Subscription, events: IoEvents) -> None:
        handle, on_event = subscription.handle, subscription.on_event
        try:
            subscription.run(on_event, self._loop, handle, events)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as exc:
            message = f"Exception in {on_event!r}, the subscriber of {handle!r}"
            self._loop.call_exception_handler({"message": message, "exception": exc})

    def close(self) -> None:
        """End all subscriptions, without a word to the subscribers."""
        self._by_fd.clear()
        edges, self._edges = self._edges, None
        if edges is not None:
            self._loop._remove_reader(edges.fileno())
            edges.close()

    def disown(self) -> None:
        """This process is a forked child: what it changed in the epoll, its parent would lose."""
        self._by_fd.clear()
        self._edges = None


def _check_arguments(handle: object, events: object, on_event: object) -> None:
    if not isinstance(handle, IoHandle):
        raise TypeError(f"subscribe an IoHandle: IoHandle(fd), not {handle!r}")
    if not isinstance(events, IoEvents) or not events & (IoEvents.READABLE | IoEvents.WRITABLE):
        raise ValueError(f"ask for IoEvents.READABLE, WRITABLE or both, not for {events!r}")
    if not callable(on_event):
        raise TypeError(f"on_event must be callable, not {on_event!r}")


def _error(name: str, detail: str) -> "AwsIoError":
    from .. import errors  # a few milliseconds that most programs with a loop never need

    return errors.make(errors.ErrorCode[name], detail)
