"""The emulation of kqueue: kinds of descriptors and how they end, held against kqueue(2)."""

import errno
import os
import select
import signal
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.kqueue_emulation import emulated_select

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


@pytest.fixture
def pipe() -> Iterator[list[int]]:
    """The descriptors of a pipe, read end first; -1 in place of one says the test closed it."""
    ends = list(os.pipe())
    yield ends
    for fd in ends:
        if fd >= 0:
            os.close(fd)


def tcp_pair() -> Pair:
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = socket.create_connection(server.getsockname())
        accepted, _ = server.accept()
    return client, accepted


def add(kq: Any, source: Any, filter: int = READ, flags: int = 0, udata: int = 0) -> None:
    kq.control([KQ.kevent(source, filter, ADD | flags, udata=udata)], 0)


def seen(events: list[Any]) -> list[tuple[int, int]]:
    return sorted((event.ident, event.filter) for event in events)


class TestDescriptors:
    def test_close_removes_the_registration(self, kq: Any, pair: Pair) -> None:
        a, b = pair
        fd = a.fileno()
        add(kq, a, WRITE)
        a.close()
        assert kq.control(None, 8, 0) == []
        os.dup2(b.fileno(), fd)
        try:
            with pytest.raises(FileNotFoundError):
                kq.control([KQ.kevent(fd, WRITE, DELETE)], 0)
            add(kq, fd, WRITE, udata=5)
            assert [event.udata for event in kq.control(None, 8, 0)] == [5]
        finally:
            os.close(fd)

    def test_reused_number_is_a_new_registration(self, kq: Any, pair: Pair) -> None:
        a, b = pair
        fd = a.fileno()
        add(kq, a, WRITE, udata=5)
        a.close()
        os.dup2(b.fileno(), fd)
        try:
            add(kq, fd, WRITE, udata=6)
            assert [event.udata for event in kq.control(None, 8, 0)] == [6]
        finally:
            os.close(fd)

    def test_close_removes_it_although_a_duplicate_is_open(self, kq: Any, pair: Pair) -> None:
        a, b = pair
        with a.dup() as duplicate:
            add(kq, a, READ)
            add(kq, a, WRITE)
            a.close()
            b.send(b"x")
            assert kq.control(None, 8, 0) == []
            assert select.select([kq.fileno()], [], [], 0)[0] == []  # or a wait would spin
            add(kq, duplicate)
            assert seen(kq.control(None, 8, 0)) == [(duplicate.fileno(), READ)]

    def test_reused_number_of_a_duplicated_descriptor(self, kq: Any, pair: Pair) -> None:
        a, b = pair
        with a.dup():
            fd = a.fileno()
            add(kq, a)
            os.dup2(b.fileno(), fd)
            b.send(b"x")
            assert kq.control(None, 8, 0) == []

    def test_event_descriptors_that_share_one_inode(self, kq: Any) -> None:
        if not hasattr(os, "eventfd"):
            pytest.skip("no eventfd")
        first = os.eventfd(1)
        add(kq, first)
        os.close(first)
        second = os.eventfd(1)
        try:
            assert second == first
            with pytest.raises(FileNotFoundError):
                kq.control([KQ.kevent(second, READ, DELETE)], 0)
            add(kq, second)
            assert seen(kq.control(None, 8, 0)) == [(second, READ)]
        finally:
            os.close(second)

    def test_regular_file_is_readable_up_to_its_end(self, kq: Any, tmp_path: Path) -> None:
        path = tmp_path / "file"
        path.write_bytes(b"0123456789")
        with path.open("rb", buffering=0) as file:
            add(kq, file, udata=4)
            for _ in range(2):
                (event,) = kq.control(None, 8)
                assert (event.ident, event.data, event.udata) == (file.fileno(), 10, 4)
            file.read(7)
            assert [event.data for event in kq.control(None, 8)] == [3]
            file.read()
            assert kq.control(None, 8, 0.02) == []
            with path.open("ab") as more:
                more.write(b"more")
            assert [event.data for event in kq.control(None, 8)] == [4]
            kq.control([KQ.kevent(file, READ, DELETE)], 0)
            assert kq.control(None, 8, 0) == []

    def test_regular_file_grows_during_the_wait(self, kq: Any, tmp_path: Path) -> None:
        with (tmp_path / "file").open("w+b", buffering=0) as file:
            add(kq, file)
            before = signal.signal(signal.SIGALRM, lambda *_: os.truncate(file.fileno(), 6))
            try:
                signal.setitimer(signal.ITIMER_REAL, 0.05)
                assert [event.data for event in kq.control(None, 8)] == [6]
            finally:
                signal.signal(signal.SIGALRM, before)

    def test_regular_file_does_not_hide_other_events(self, kq: Any, pair: Pair) -> None:
        with open(__file__, "rb") as file:
            add(kq, file)
            add(kq, pair[0], WRITE)
            expected = sorted([(file.fileno(), READ), (pair[0].fileno(), WRITE)])
            assert seen(kq.control(None, 8)) == expected
            add(kq, file, READ, KQ.KQ_EV_CLEAR)
            assert seen(kq.control(None, 8)) == expected
            assert seen(kq.control(None, 8)) == [(pair[0].fileno(), WRITE)]
            add(kq, file, READ, KQ.KQ_EV_CLEAR)
            assert seen(kq.control(None, 8)) == expected

    def test_regular_file_has_no_write_filter(self, kq: Any, tmp_path: Path) -> None:
        with (tmp_path / "file").open("wb") as file, pytest.raises(OSError) as caught:
            add(kq, file, WRITE)
        assert caught.value.errno == errno.EINVAL


class TestEndOfFile:
    def test_peer_shuts_down_with_data_pending(self, kq: Any) -> None:
        client, accepted = tcp_pair()
        with client, accepted:
            add(kq, client)
            add(kq, client, WRITE)
            accepted.send(b"last")
            accepted.shutdown(socket.SHUT_WR)
            events = {event.filter: event for event in kq.control(None, 8, 5)}
            while not events[READ].flags & EOF:
                events = {event.filter: event for event in kq.control(None, 8, 5)}
            assert (events[READ].data, events[READ].fflags) == (4, 0)
            assert not events[WRITE].flags & EOF
            client.recv(4)
            events = {event.filter: event for event in kq.control(None, 8, 5)}
            assert events[READ].flags & EOF
            assert events[READ].data == 0

    def test_peer_closes_a_unix_socket(self, kq: Any, pair: Pair) -> None:
        a, b = pair
        add(kq, a)
        add(kq, a, WRITE)
        b.close()
        events = kq.control(None, 8, 5)
        assert seen(events) == [(a.fileno(), WRITE), (a.fileno(), READ)]
        assert all(event.flags & EOF for event in events)

    def test_reset_connection(self, kq: Any) -> None:
        client, accepted = tcp_pair()
        with client, accepted:
            add(kq, client)
            accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            accepted.close()
            (event,) = kq.control(None, 8, 5)
            assert event.flags & EOF
            assert event.fflags == errno.ECONNRESET
            with pytest.raises(ConnectionResetError):
                client.recv(1)

    def test_refused_connection_leaves_the_error_to_the_program(self, kq: Any) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            address = server.getsockname()
        with socket.socket() as client:
            client.setblocking(False)
            assert client.connect_ex(address) == errno.EINPROGRESS
            add(kq, client, WRITE)
            (event,) = kq.control(None, 8, 5)
            assert event.flags & EOF
            assert event.fflags == errno.ECONNREFUSED
            assert client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNREFUSED

    def test_listening_socket(self, kq: Any) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            add(kq, server)
            assert kq.control(None, 8, 0) == []
            with socket.create_connection(server.getsockname()):
                (event,) = kq.control(None, 8, 5)
                assert (event.ident, event.data) == (server.fileno(), 1)
                assert not event.flags & EOF
                server.accept()[0].close()

    def test_last_writer_of_a_pipe_closes(self, kq: Any, pipe: list[int]) -> None:
        reader, writer = pipe
        add(kq, reader)
        os.write(writer, b"end")
        (event,) = kq.control(None, 8, 0)
        assert event.data == 3
        assert not event.flags & EOF
        os.close(writer)
        pipe[1] = -1
        (event,) = kq.control(None, 8, 0)
        assert event.data == 3
        assert event.flags & EOF

    def test_reader_of_a_pipe_closes(self, kq: Any, pipe: list[int]) -> None:
        reader, writer = pipe
        add(kq, writer, WRITE)
        (event,) = kq.control(None, 8, 0)
        assert event.data > 0
        assert not event.flags & EOF
        os.close(reader)
        pipe[0] = -1
        add(kq, writer, READ)
        events = kq.control(None, 8, 0)
        assert seen(events) == [(writer, WRITE), (writer, READ)]
        assert all(event.flags & EOF for event in events)
