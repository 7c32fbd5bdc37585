"""Wakeups by themselves: what `wake` and signals write, and what `drain` makes of it."""

import os
import select
import signal
import sys
import threading
from collections.abc import Iterator

import pytest

from aws_io_async.event_loop._wakeup import Event, Pair


@pytest.fixture
def wakeup() -> Iterator[Pair]:
    wakeup = Pair()
    yield wakeup
    wakeup.close()


def is_readable(wakeup: Pair) -> bool:
    return bool(select.select([wakeup], [], [], 0)[0])


def write_as_a_signal(wakeup: Pair, data: bytes) -> None:
    """What the interpreter's C handler does."""
    with open(wakeup.signal_fileno(), "wb", buffering=0, closefd=False) as file:
        file.write(data)


def test_wake_makes_it_readable_until_drained(wakeup: Pair) -> None:
    assert not is_readable(wakeup)
    wakeup.wake()
    assert is_readable(wakeup)
    assert wakeup.drain() == b""
    assert not is_readable(wakeup)
    wakeup.wake()
    assert is_readable(wakeup)


def test_many_wakes_cost_one_write(wakeup: Pair) -> None:
    for _ in range(1000):
        wakeup.wake()
    with open(wakeup.fileno(), "rb", buffering=0, closefd=False) as file:
        assert len(file.read(4096)) == 1


def test_draining_what_is_empty(wakeup: Pair) -> None:
    assert wakeup.drain() == b""
    wakeup.wake()
    assert is_readable(wakeup)


def test_signals_come_out_in_order_without_the_wakes(wakeup: Pair) -> None:
    write_as_a_signal(wakeup, bytes([signal.SIGUSR1]))
    wakeup.wake()
    write_as_a_signal(wakeup, bytes([signal.SIGTERM, signal.SIGUSR1]))
    assert list(wakeup.drain()) == [signal.SIGUSR1, signal.SIGTERM, signal.SIGUSR1]


def test_more_signals_than_one_drain_takes(wakeup: Pair) -> None:
    write_as_a_signal(wakeup, bytes([signal.SIGUSR1]) * 5000)
    drained = wakeup.drain()
    while is_readable(wakeup):
        drained += wakeup.drain()
    assert drained == bytes([signal.SIGUSR1]) * 5000


def test_a_full_pair_is_readable_and_wake_does_not_block(wakeup: Pair) -> None:
    with pytest.raises(AssertionError):
        while True:
            with open(wakeup.signal_fileno(), "wb", buffering=0, closefd=False) as file:
                assert file.write(bytes(65536)) is not None  # None: it would have blocked
    wakeup.wake()
    assert is_readable(wakeup)
    while is_readable(wakeup):
        assert wakeup.drain() == b""
    wakeup.wake()
    assert is_readable(wakeup)


def test_wake_after_close_does_nothing(wakeup: Pair) -> None:
    wakeup.close()
    wakeup.wake()
    wakeup.close()


def test_no_wake_is_lost_between_threads(wakeup: Pair) -> None:
    """Whoever queues and then wakes is seen by a reader that drains and then looks."""
    queue: list[int] = []
    count = 20_000

    def produce() -> None:
        for n in range(count):
            queue.append(n)
            wakeup.wake()

    producers = [threading.Thread(target=produce) for _ in range(2)]
    for thread in producers:
        thread.start()
    seen = 0
    while seen < 2 * count:
        assert select.select([wakeup], [], [], 30)[0], f"{2 * count - seen} were never announced"
        wakeup.drain()
        seen += len(queue[seen:])
    for thread in producers:
        thread.join()


@pytest.mark.skipif(sys.platform != "linux", reason="eventfd is Linux's")
class TestEvent:
    @pytest.fixture
    def event(self) -> Iterator[Event]:
        event = Event()
        yield event
        event.close()

    @pytest.fixture
    def edges(self, event: Event) -> Iterator[select.epoll]:
        with select.epoll() as epoll:
            epoll.register(event, select.EPOLLIN | select.EPOLLET)
            yield epoll

    def test_each_wake_that_follows_a_drain_is_an_edge(
        self, event: Event, edges: select.epoll
    ) -> None:
        assert not edges.poll(0)
        for _ in range(3):
            event.wake()
            event.wake()
            assert len(edges.poll(0)) == 1
            assert not edges.poll(0)
            event.drain()

    def test_many_wakes_cost_one_write(self, event: Event) -> None:
        for _ in range(1000):
            event.wake()
        assert os.eventfd_read(event.fileno()) == 1

    def test_wake_after_close_does_nothing(self, event: Event) -> None:
        event.close()
        event.wake()
        event.close()
        assert event.fileno() == -1

    def test_closed_by_the_loop_while_another_thread_writes(
        self, event: Event, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The write goes to the eventfd, and to no file that has its number by then."""
        write = os.eventfd_write
        written = []

        def write_late(fd: int, value: int) -> None:
            event.close()
            with open(os.devnull, "wb") as other:
                written.append(other.fileno() != fd)
                write(fd, value)

        monkeypatch.setattr(os, "eventfd_write", write_late)
        fd = event.fileno()
        event.wake()
        assert written == [True]
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)

    def test_no_wake_is_lost_between_threads(self, event: Event, edges: select.epoll) -> None:
        queue: list[int] = []
        count = 20_000

        def produce() -> None:
            for n in range(count):
                queue.append(n)
                event.wake()

        producers = [threading.Thread(target=produce) for _ in range(2)]
        for thread in producers:
            thread.start()
        seen = 0
        while seen < 2 * count:
            assert edges.poll(30), f"{2 * count - seen} were never announced"
            event.drain()
            seen += len(queue[seen:])
        for thread in producers:
            thread.join()
