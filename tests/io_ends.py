"""Two connected descriptors for the tests of subscriptions, and what their subscriber was told."""

import os
import socket

import pytest

from aws_io_async import EventLoop
from aws_io_async.event_loop.io_handle import IoEvents, IoHandle
from tests.crt_loops import run_until_idle

READABLE, WRITABLE = IoEvents.READABLE, IoEvents.WRITABLE


class Ends:
    """The two ends of a pipe or pair, subscribed at will; notes what each is told."""

    def __init__(self, loop: EventLoop, read_fd: int, write_fd: int) -> None:
        self.loop = loop
        self.reader, self.writer = IoHandle(read_fd), IoHandle(write_fd)
        self.told: dict[IoHandle, list[IoEvents]] = {self.reader: [], self.writer: []}

    def note(self, loop: EventLoop, handle: IoHandle, events: IoEvents) -> None:
        assert loop is self.loop
        self.told[handle].append(events)

    def subscribe(self) -> None:
        self.loop.subscribe_to_io_events(self.reader, READABLE, self.note)
        self.loop.subscribe_to_io_events(self.writer, WRITABLE, self.note)

    def unsubscribe(self) -> None:
        self.loop.unsubscribe_from_io_events(self.reader)
        self.loop.unsubscribe_from_io_events(self.writer)

    def write(self, data: bytes = b"abc") -> None:
        assert os.write(self.writer.fd, data) == len(data)

    def read(self) -> None:
        """Read until there is no more."""
        with pytest.raises(BlockingIOError):
            while os.read(self.reader.fd, 2):
                pass

    def times_readable(self) -> int:
        """How often the reader was told that it is readable, since last asked."""
        run_until_idle(self.loop)
        told, self.told[self.reader] = self.told[self.reader], []
        return sum(READABLE in events for events in told)

    def times_writable(self) -> int:
        """The same for the writer."""
        run_until_idle(self.loop)
        told, self.told[self.writer] = self.told[self.writer], []
        return sum(WRITABLE in events for events in told)


def nonblocking_pair() -> tuple[socket.socket, socket.socket]:
    a, b = socket.socketpair()
    a.setblocking(False)
    b.setblocking(False)
    return a, b
