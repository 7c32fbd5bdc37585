"""A queue of timers: pure data, no clock of its own.

Theory of operation: a binary heap of `(when, sequence, timer)` tuples. Tuples are compared in C,
and the sequence number, unique, keeps timers of the same instant in the order in which they were
added and the timers themselves out of the comparison. Cancelling does not touch the heap, as
finding a timer there is linear: the owner reports it by `note_cancelled()`. Cancelled timers leave
with those that are due, or all at once when more cancellations have been reported than half of the
heap. Some of those may be about timers that had left already: the sweep then comes a little early,
and still each is paid for by half as many cancellations as it looks at timers.

What is pushed waits in the inbox until somebody asks what is due. Few timers are then pushed on the
heap one by one; more than it has are added to it and sorted with it (a sorted list is a heap):
timers mostly come in runs of rising times, which a sort merges and a heap would scatter.

Taking timers off the heap one by one costs twice what sorting it does, if most of them are due.
So once a sixteenth of the heap has been taken and there is more, the rest is sorted and cut: the
sort costs no more than a fixed number of times what was taken before it. A heap that is sorted
still is cut right away, if a sixteenth of it is due.
"""

from bisect import bisect_left
from heapq import heapify, heappop, heappush
from operator import itemgetter
from typing import Generic, Protocol, TypeVar


class Cancellable(Protocol):
    """What the queue asks of a timer."""

    def cancelled(self) -> bool: ...


T = TypeVar("T", bound=Cancellable)

SWEEP_MINIMUM = 64
"""Fewer cancelled timers than this are not worth a sweep."""


class TimerQueue(Generic[T]):
    """Timers ordered by due time, ties by order of arrival. Not thread-safe."""

    __slots__ = ("_cancelled", "_is_sorted", "_sequence", "_taking", "heap", "inbox")

    def __init__(self) -> None:
        self.heap: list[tuple[float, int, T]] = []
        """The one list for the queue's life; cancelled timers that have not left are in it."""
        self.inbox: list[tuple[float, int, T]] = []
        """What has been pushed since `settle()`. One list as well."""
        self._is_sorted = True  # the heap
        self._sequence = 0
        self._cancelled = 0
        self._taking = False  # while pop_due() is under way: nothing is swept then

    def push(self, when: float, timer: T) -> None:
        """Add `timer`, due at `when` on the owner's clock.

        Raises TypeError if `when` is no number and ValueError if it is NaN, which has no order.
        """
        if not (when > 0 or when <= 0):
            raise ValueError("a timer cannot be due at NaN")
        self._sequence = sequence = self._sequence + 1
        self.inbox.append((when, sequence, timer))

    def __len__(self) -> int:
        """How many timers there are, cancelled ones that have not left included."""
        return len(self.heap) + len(self.inbox)

    def settle(self) -> None:
        """Put into the heap what is in the inbox."""
        heap, pushed = self.heap, self.inbox[:]
        del self.inbox[: len(pushed)]  # no more: a finalizer may have pushed another in between
        if len(pushed) > len(heap):
            heap += pushed
            self._is_sorted = True  # first: a sweep by a finalizer may have the last word
            heap.sort()
        else:
            self._is_sorted = False
            for entry in pushed:
                heappush(heap, entry)

    def note_cancelled(self) -> None:
        """Tell the queue that a timer that was pushed has been cancelled, or is just being."""
        self._cancelled += 1
        if self._cancelled > SWEEP_MINIMUM and self._cancelled * 2 > len(self) and not self._taking:
            self._sweep()

    def _sweep(self) -> None:
        # `cancelled()` and what goes with a dropped timer may run code that pushes and cancels:
        # the heap is in order whenever that can happen.
        self._cancelled = 0
        pushed = self.inbox[:]
        del self.inbox[: len(pushed)]  # as in `settle`
        entries = self.heap + pushed
        self.heap.clear()
        live = [entry for entry in entries if not entry[2].cancelled()]
        self.heap += live
        heapify(self.heap)
        self._is_sorted = False

    def next_due(self) -> float | None:
        """When the first live timer is due, or None if there is none."""
        heap = self.heap
        if self.inbox:
            self.settle()
        while heap:
            first = heap[0]
            if not first[2].cancelled():
                return first[0]
            if heap and heap[0] is first:
                heappop(heap)
                self._is_sorted = False
        return None

    def pop_due(self, now: float) -> list[T]:
        """Remove and return the timers due before `now`, the earliest first.

        Those that were cancelled are among them, as they may still be until each gets its turn.
        """
        self._taking = True  # a finalizer that cancels is not to move what is looked at
        try:
            heap = self.heap
            if self.inbox:
                self.settle()
            due: list[T] = []
            some = len(heap) // 16
            if self._is_sorted and heap and heap[some][0] < now:
                return self._cut(now)
            while heap and heap[0][0] < now:
                self._is_sorted = False
                if len(due) == some + 8:
                    heap.sort()
                    self._is_sorted = True
                    return due + self._cut(now)
                due.append(heappop(heap)[2])
            return due
        finally:
            self._taking = False

    def _cut(self, now: float) -> list[T]:
        """Take those due before `now` off a heap that is sorted."""
        cut = bisect_left(self.heap, now, key=itemgetter(0))
        due = [entry[2] for entry in self.heap[:cut]]
        del self.heap[:cut]
        return due

    def clear(self) -> None:
        """Drop every timer."""
        self.heap.clear()
        self._is_sorted = True
        self.inbox.clear()
        self._cancelled = 0
