"""The emulation of kqueue: events, changes and registrations, held against kqueue(2)."""

import errno
import operator
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.kqueue_emulation import EV_DISPATCH, EV_RECEIPT, emulated_select

KQ: Any = emulated_select()
READ, WRITE = KQ.KQ_FILTER_READ, KQ.KQ_FILTER_WRITE
ADD, DELETE = KQ.KQ_EV_ADD, KQ.KQ_EV_DELETE
EOF, ERROR = KQ.KQ_EV_EOF, KQ.KQ_EV_ERROR

Pair = tuple[socket.socket, socket.socket]

pytestmark = pytest.mark.skipif(hasattr(select, "kqueue"), reason="this platform has a kqueue")


@pytest.fixture
def kq() -> Iterator[Any]:
    with closing(KQ.kqueue()) as queue:
        yield queue


@pytest.fixture
def pair() -> Iterator[Pair]:
    a, b = socket.socketpair()
    with a, b:
        a.setblocking(False)
        b.setblocking(False)
        yield a, b


def add(kq: Any, source: Any, filter: int = READ, flags: int = 0, udata: int = 0) -> None:
    kq.control([KQ.kevent(source, filter, ADD | flags, udata=udata)], 0)


def seen(events: list[Any]) -> list[tuple[int, int]]:
    return sorted((event.ident, event.filter) for event in events)


def fill(sock: socket.socket) -> None:
    with pytest.raises(BlockingIOError):
        while True:
            sock.send(bytes(65536))


def drain(sock: socket.socket) -> None:
    with pytest.raises(BlockingIOError):
        while True:
            sock.recv(65536)


class TestKevent:
    def test_defaults(self, pair: Pair) -> None:
        event = KQ.kevent(pair[0])
        assert (event.ident, event.filter, event.flags) == (pair[0].fileno(), READ, ADD)
        assert (event.fflags, event.data, event.udata) == (0, 0, 0)

    def test_repr(self) -> None:
        event = KQ.kevent(7, WRITE, ADD | EOF, 54, -1, 0x10)
        expected = "<select.kevent ident=7 filter=-2 flags=0x8001 fflags=0x36"
        assert repr(event) == f"{expected} data=0xffffffffffffffff udata=0x10>"

    def test_is_compared_by_its_fields_in_order(self) -> None:
        assert KQ.kevent(1, READ, ADD, 2, 3, 4) == KQ.kevent(1, READ, ADD, 2, 3, 4)
        assert KQ.kevent(1) != KQ.kevent(2)
        assert KQ.kevent(1, READ, udata=1) > KQ.kevent(1, READ)
        assert KQ.kevent(1, WRITE) < KQ.kevent(1, READ)
        assert KQ.kevent(1) != 1
        with pytest.raises(TypeError):
            operator.lt(KQ.kevent(1), 1)
        with pytest.raises(TypeError):
            hash(KQ.kevent(1))

    @pytest.mark.parametrize(
        ("ident", "error"), [(-1, OverflowError), ("x", TypeError), (2**64, OverflowError)]
    )
    def test_bad_ident(self, ident: Any, error: type[Exception]) -> None:
        with pytest.raises(error):
            KQ.kevent(ident)


class TestQueue:
    def test_close(self) -> None:
        kq = KQ.kqueue()
        assert not kq.closed
        assert not os.get_inheritable(kq.fileno())
        kq.close()
        kq.close()
        assert kq.closed
        with pytest.raises(ValueError, match="closed kqueue"):
            kq.fileno()
        with pytest.raises(ValueError, match="closed kqueue"):
            kq.control(None, 1, 0)

    def test_fromfd_is_the_same_queue(self, kq: Any, pair: Pair) -> None:
        other = KQ.kqueue.fromfd(kq.fileno())
        add(other, pair[0], WRITE)
        assert seen(kq.control(None, 8, 0)) == [(pair[0].fileno(), WRITE)]

    def test_descriptor_is_readable_while_there_are_events(self, kq: Any, pair: Pair) -> None:
        a, b = pair
        add(kq, a)
        assert select.select([kq.fileno()], [], [], 0)[0] == []
        b.send(b"x")
        assert select.select([kq.fileno()], [], [], 0)[0] == [kq.fileno()]
        kq.control(None, 8, 0)
        assert select.select([kq.fileno()], [], [], 0)[0] == [kq.fileno()]
        a.recv(1)
        assert select.select([kq.fileno()], [], [], 0)[0] == []

    def test_queue_in_a_queue(self, kq: Any, pair: Pair) -> None:
        with closing(KQ.kqueue()) as inner:
            add(kq, inner)
            assert kq.control(None, 8, 0) == []
            add(inner, pair[0], WRITE)
            (event,) = kq.control(None, 8, 5)
            assert (event.ident, event.data) == (inner.fileno(), 1)

    def test_is_not_inherited_by_a_fork(self) -> None:
        script = (
            "import os\n"
            "from tests.kqueue_emulation import emulated_select\n"
            "kq = emulated_select().kqueue(); fd = kq.fileno()\n"
            "pid = os.fork()\n"
            "if not pid:\n"
            "    try: os.fstat(fd)\n"
            "    except OSError: os._exit(0)\n"
            "    os._exit(1)\n"
            "assert os.waitpid(pid, 0)[1] == 0\n"
            "assert not kq.closed"
        )
        root = Path(__file__).parents[1]
        subprocess.run([sys.executable, "-c", script], cwd=root, check=True)


class TestArguments:
    @pytest.mark.parametrize(
        ("arguments", "error"),
        [
            ((None, -1), ValueError),
            ((None, 1, -1), ValueError),
            ((None, 1, -0.5), ValueError),
            ((None, 1, float("nan")), ValueError),
            ((None, 1, float("inf")), OverflowError),
            ((None, 1, "soon"), TypeError),
            ((None, 1.5), TypeError),
            ((1, 1, 0), TypeError),
            (([1], 1, 0), TypeError),
        ],
    )
    def test_bad_arguments(
        self, kq: Any, arguments: tuple[Any, ...], error: type[Exception]
    ) -> None:
        with pytest.raises(error):
            kq.control(*arguments)

    def test_any_iterable_of_changes(self, kq: Any, pair: Pair) -> None:
        kq.control((KQ.kevent(s, WRITE) for s in pair), 0)
        assert len(kq.control((), 8, 0)) == 2

    def test_fraction_of_a_second(self, kq: Any) -> None:
        start = time.monotonic()
        assert kq.control(None, 1, 0.05) == []
        assert time.monotonic() - start >= 0.05

    def test_no_room_for_events_means_no_wait(self, kq: Any, pair: Pair) -> None:
        add(kq, pair[0], WRITE)
        assert kq.control(None, 0) == []
        assert kq.control([], 0, 3600) == []

    def test_signal_does_not_end_the_wait(self, kq: Any) -> None:
        called: list[int] = []
        before = signal.signal(signal.SIGALRM, lambda number, _: called.append(number))
        try:
            start = time.monotonic()
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            assert kq.control(None, 1, 0.2) == []
            assert time.monotonic() - start >= 0.2
        finally:
            signal.signal(signal.SIGALRM, before)
        assert called == [signal.SIGALRM]

    def test_signal_handler_that_raises_ends_the_wait(self, kq: Any) -> None:
        def interrupt(number: int, frame: object) -> None:
            raise KeyboardInterrupt

        before = signal.signal(signal.SIGALRM, interrupt)
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            with pytest.raises(KeyboardInterrupt):
                kq.control(None, 1)
        finally:
            signal.signal(signal.SIGALRM, before)


class TestErrors:
    def test_errors_are_raised_without_room_for_events(self, kq: Any, pair: Pair) -> None:
        fd = os.dup(0)
        os.close(fd)
        for change, code in (
            (KQ.kevent(pair[0], READ, DELETE), errno.ENOENT),
            (KQ.kevent(pair[0], READ, KQ.KQ_EV_ENABLE), errno.ENOENT),
            (KQ.kevent(fd, READ, ADD), errno.EBADF),
            (KQ.kevent(fd, READ, DELETE), errno.EBADF),
            (KQ.kevent(2**40, READ, ADD), errno.EBADF),
            (KQ.kevent(pair[0], -100, ADD), errno.EINVAL),
        ):
            with pytest.raises(OSError) as caught:
                kq.control([change], 0)
            assert caught.value.errno == code

    def test_filters_are_deleted_one_by_one(self, kq: Any, pair: Pair) -> None:
        add(kq, pair[0], WRITE)
        with pytest.raises(FileNotFoundError):
            kq.control([KQ.kevent(pair[0], READ, DELETE)], 0)
        kq.control([KQ.kevent(pair[0], WRITE, DELETE)], 0)
        with pytest.raises(FileNotFoundError):
            kq.control([KQ.kevent(pair[0], WRITE, DELETE)], 0)

    def test_errors_are_events_where_there_is_room(self, kq: Any, pair: Pair) -> None:
        a, _ = pair
        changes = [KQ.kevent(a, READ, DELETE, udata=9), KQ.kevent(a, WRITE, ADD)]
        (event,) = kq.control(changes, 8, 5)
        assert event.flags & ERROR
        assert (event.ident, event.data, event.udata) == (a.fileno(), errno.ENOENT, 9)
        assert seen(kq.control(None, 8, 0)) == [(a.fileno(), WRITE)]

    def test_changes_after_the_error_without_room_are_not_applied(
        self, kq: Any, pair: Pair
    ) -> None:
        a, b = pair
        changes = [KQ.kevent(a, READ, DELETE), KQ.kevent(b, READ, DELETE), KQ.kevent(a, WRITE)]
        with pytest.raises(FileNotFoundError):
            kq.control(changes, 1)
        assert kq.control(None, 8, 0) == []

    def test_receipt(self, kq: Any, pair: Pair) -> None:
        (event,) = kq.control([KQ.kevent(pair[0], WRITE, ADD | EV_RECEIPT)], 8, 5)
        assert event.flags & ERROR
        assert event.data == 0
        (event,) = kq.control(None, 8, 0)
        assert not event.flags & ERROR

    def test_what_cannot_be_polled_is_refused(self, kq: Any) -> None:
        with open(os.devnull, "rb") as file, pytest.raises(OSError) as caught:
            add(kq, file)
        assert caught.value.errno == errno.EINVAL
        with pytest.raises(OSError) as caught:
            add(kq, kq)
        assert caught.value.errno == errno.EINVAL


class TestRegistrations:
    def test_each_filter_has_its_own_event_and_udata(self, kq: Any, pair: Pair) -> None:
        a, b = pair
        add(kq, a, READ, udata=11)
        add(kq, a, WRITE, udata=22)
        b.send(b"hello")
        events = {event.filter: event for event in kq.control(None, 8, 0)}
        assert (events[READ].udata, events[WRITE].udata) == (11, 22)
        assert events[READ].data == 5
        assert events[WRITE].data > 0

    def test_is_level_triggered(self, kq: Any, pair: Pair) -> None:
        a, b = pair
        add(kq, a)
        b.send(b"hello")
        assert [event.data for event in kq.control(None, 8, 0)] == [5]
        a.recv(3)
        assert [event.data for event in kq.control(None, 8, 0)] == [2]
        a.recv(2)
        assert kq.control(None, 8, 0) == []

    def test_adding_again_modifies(self, kq: Any, pair: Pair) -> None:
        a, _ = pair
        add(kq, a, WRITE, udata=1)
        add(kq, a, WRITE, udata=2)
        assert [event.udata for event in kq.control(None, 8, 0)] == [2]
        kq.control([KQ.kevent(a, WRITE, DELETE)], 0)
        assert kq.control(None, 8, 0) == []

    def test_disable_and_enable(self, kq: Any, pair: Pair) -> None:
        a, b = pair
        add(kq, a)
        b.send(b"x")
        kq.control([KQ.kevent(a, READ, KQ.KQ_EV_DISABLE)], 0)
        assert kq.control(None, 8, 0) == []
        assert kq.control(None, 8, 0) == []
        kq.control([KQ.kevent(a, READ, KQ.KQ_EV_ENABLE, udata=3)], 0)
        assert [event.udata for event in kq.control(None, 8, 0)] == [3]
        assert seen(kq.control(None, 8, 0)) == [(a.fileno(), READ)]

    def test_add_disabled(self, kq: Any, pair: Pair) -> None:
        add(kq, pair[0], WRITE, KQ.KQ_EV_DISABLE)
        assert kq.control(None, 8, 0) == []
        add(kq, pair[0], WRITE)
        assert len(kq.control(None, 8, 0)) == 1

    def test_oneshot(self, kq: Any, pair: Pair) -> None:
        add(kq, pair[0], WRITE, KQ.KQ_EV_ONESHOT)
        (event,) = kq.control(None, 8, 0)
        assert event.flags & KQ.KQ_EV_ONESHOT
        assert kq.control(None, 8, 0) == []
        with pytest.raises(FileNotFoundError):
            kq.control([KQ.kevent(pair[0], WRITE, DELETE)], 0)

    def test_dispatch(self, kq: Any, pair: Pair) -> None:
        add(kq, pair[0], WRITE, EV_DISPATCH)
        assert len(kq.control(None, 8, 0)) == 1
        assert kq.control(None, 8, 0) == []
        kq.control([KQ.kevent(pair[0], WRITE, KQ.KQ_EV_ENABLE)], 0)
        assert len(kq.control(None, 8, 0)) == 1
        assert kq.control(None, 8, 0) == []

    def test_clear_reports_each_arrival_once(self, kq: Any, pair: Pair) -> None:
        a, b = pair
        add(kq, a, READ, KQ.KQ_EV_CLEAR)
        b.send(b"x")
        assert [event.data for event in kq.control(None, 8, 0)] == [1]
        assert kq.control(None, 8, 0) == []
        b.send(b"y")
        assert [event.data for event in kq.control(None, 8, 0)] == [2]
        assert kq.control(None, 8, 0) == []

    def test_clear_of_one_filter_is_not_stirred_by_the_other(self, kq: Any, pair: Pair) -> None:
        a, b = pair
        add(kq, a, WRITE, KQ.KQ_EV_CLEAR)
        add(kq, a, READ)
        assert seen(kq.control(None, 8, 0)) == [(a.fileno(), WRITE)]
        b.send(b"x")
        assert seen(kq.control(None, 8, 0)) == [(a.fileno(), READ)]

    def test_write_waits_for_room(self, kq: Any, pair: Pair) -> None:
        a, b = pair
        fill(a)
        add(kq, a, WRITE)
        assert kq.control(None, 8, 0) == []
        drain(b)
        assert seen(kq.control(None, 8, 5)) == [(a.fileno(), WRITE)]

    def test_little_room_starves_nobody(self, kq: Any, pair: Pair) -> None:
        a, b = pair
        a.send(b"x")
        b.send(b"x")
        every = [(sock.fileno(), number) for sock in pair for number in (READ, WRITE)]
        for sock in pair:
            add(kq, sock, READ)
            add(kq, sock, WRITE)
        reported: list[tuple[int, int]] = []
        for _ in range(8):
            events = kq.control(None, 1, 0)
            assert len(events) == 1
            reported += seen(events)
        assert sorted(set(reported)) == sorted(every)

    def test_another_thread_registers_while_one_waits(self, kq: Any, pair: Pair) -> None:
        a, b = pair
        b.send(b"x")
        results: list[Any] = []
        waiter = threading.Thread(target=lambda: results.extend(kq.control(None, 8)))
        waiter.start()
        add(kq, a)
        waiter.join()
        assert seen(results) == [(a.fileno(), READ)]
