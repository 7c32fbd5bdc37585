"""Counting what happens on other threads, and waiting for it on any event loop."""

import asyncio
import threading

from aws_io_async.future import Promise


class Tally:
    """A number that goes up. Thread: any."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._count = 0
        self._awaited: list[tuple[int, Promise[None]]] = []

    @property
    def count(self) -> int:
        return self._count

    def add(self) -> int:
        """One more; returns which one."""
        with self._lock:
            self._count += 1
            count = self._count
            due = [promise for number, promise in self._awaited if number <= count]
            self._awaited = [pair for pair in self._awaited if pair[0] > count]
        for promise in due:
            promise.set_result(None)
        return count

    async def reaches(self, number: int) -> None:
        """Wait until `number` have been counted."""
        promise: Promise[None] = Promise()
        with self._lock:
            if self._count >= number:
                return
            self._awaited.append((number, promise))
        async with asyncio.timeout(30):
            await promise.future

    async def goes_up_by(self, number: int) -> None:
        """Wait until `number` more have been counted."""
        await self.reaches(self._count + number)
