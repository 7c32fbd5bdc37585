"""What subscribers are told of their descriptors, and which descriptors cannot be subscribed."""

import asyncio
import os
import select
import socket
import tempfile
from collections.abc import Iterator

import pytest

from aws_io_async import EventLoop
from aws_io_async.errors import AwsIoError, ErrorCode
from aws_io_async.event_loop.io_handle import IoEvents, IoHandle
from tests.crt_loops import KINDS, open_ours, run_until_idle
from tests.io_ends import Ends, nonblocking_pair

READABLE, WRITABLE = IoEvents.READABLE, IoEvents.WRITABLE
END_OF_INPUT = IoEvents.REMOTE_HANG_UP | IoEvents.CLOSED


@pytest.fixture(params=KINDS)
def loop(request: pytest.FixtureRequest) -> Iterator[EventLoop]:
    with open_ours(request.param) as loop:
        yield loop


@pytest.fixture
def pipe(loop: EventLoop) -> Iterator[Ends]:
    reader, writer = os.pipe()
    yield Ends(loop, reader, writer)
    os.close(reader)
    os.close(writer)


class TestFlags:
    """What the kernel says of the other end."""

    def test_a_pipe_s_writer_has_gone(self, loop: EventLoop) -> None:
        read_fd, write_fd = os.pipe()
        ends = Ends(loop, read_fd, write_fd)
        loop.subscribe_to_io_events(ends.reader, READABLE, ends.note)
        run_until_idle(loop)
        assert ends.told[ends.reader] == []
        os.close(write_fd)
        run_until_idle(loop)
        (events,) = ends.told[ends.reader]
        assert events & END_OF_INPUT
        assert IoEvents.ERROR not in events
        loop.unsubscribe_from_io_events(ends.reader)
        os.close(read_fd)

    def test_a_pipe_s_reader_has_gone(self, loop: EventLoop) -> None:
        read_fd, write_fd = os.pipe()
        ends = Ends(loop, read_fd, write_fd)
        loop.subscribe_to_io_events(ends.writer, WRITABLE, ends.note)
        run_until_idle(loop)
        assert ends.told[ends.writer] == [WRITABLE]
        os.close(read_fd)
        run_until_idle(loop)
        assert len(ends.told[ends.writer]) == 2
        assert ends.told[ends.writer][1] & (IoEvents.CLOSED | IoEvents.ERROR)
        loop.unsubscribe_from_io_events(ends.writer)
        os.close(write_fd)

    def test_a_peer_that_shuts_down_its_sending_side(self, loop: EventLoop) -> None:
        a, b = nonblocking_pair()
        with a, b:
            ends = Ends(loop, a.fileno(), b.fileno())
            loop.subscribe_to_io_events(ends.reader, READABLE, ends.note)
            b.shutdown(socket.SHUT_WR)
            run_until_idle(loop)
            (events,) = ends.told[ends.reader]
            assert IoEvents.REMOTE_HANG_UP in events
            assert not events & (IoEvents.CLOSED | IoEvents.ERROR)
            loop.unsubscribe_from_io_events(ends.reader)

    def test_a_peer_that_closes(self, loop: EventLoop) -> None:
        a, b = nonblocking_pair()
        with a:
            ends = Ends(loop, a.fileno(), b.fileno())
            loop.subscribe_to_io_events(ends.reader, READABLE | WRITABLE, ends.note)
            run_until_idle(loop)
            assert ends.told[ends.reader] == [WRITABLE]
            b.close()
            run_until_idle(loop)
            seen = ends.told[ends.reader][-1]
            assert IoEvents.REMOTE_HANG_UP in seen
            assert IoEvents.CLOSED in seen
            loop.unsubscribe_from_io_events(ends.reader)

    def test_a_peer_that_resets(self, loop: EventLoop) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            client = socket.create_connection(server.getsockname())
            peer, _ = server.accept()
            with client:
                ends = Ends(loop, client.fileno(), 0)
                loop.subscribe_to_io_events(ends.reader, READABLE, ends.note)
                linger = b"\1\0\0\0\0\0\0\0"
                peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                peer.close()
                run_until_idle(loop)
                seen = ends.told[ends.reader][-1]
                assert IoEvents.ERROR in seen
                assert seen & END_OF_INPUT
                loop.unsubscribe_from_io_events(ends.reader)

    def test_a_refused_connection(self, loop: EventLoop) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            address = server.getsockname()
        with socket.socket() as client:
            client.setblocking(False)
            client.connect_ex(address)
            ends = Ends(loop, client.fileno(), 0)
            loop.subscribe_to_io_events(ends.reader, WRITABLE, ends.note)
            run_until_idle(loop)
            assert IoEvents.ERROR in ends.told[ends.reader][-1]
            loop.unsubscribe_from_io_events(ends.reader)


class TestMisuse:
    def test_twice(self, loop: EventLoop, pipe: Ends) -> None:
        pipe.subscribe()
        for handle in (pipe.reader, IoHandle(pipe.reader.fd)):
            with pytest.raises(AwsIoError) as caught:
                loop.subscribe_to_io_events(handle, READABLE, pipe.note)
            assert caught.value.code is ErrorCode.ERROR_IO_ALREADY_SUBSCRIBED
        pipe.write()
        assert pipe.times_readable() == 1  # it is as it was
        pipe.unsubscribe()

    def test_ending_what_was_not_begun(self, loop: EventLoop, pipe: Ends) -> None:
        def check(handle: IoHandle) -> None:
            with pytest.raises(AwsIoError) as caught:
                loop.unsubscribe_from_io_events(handle)
            assert caught.value.code is ErrorCode.ERROR_IO_NOT_SUBSCRIBED

        check(pipe.reader)
        pipe.subscribe()
        check(IoHandle(pipe.reader.fd))  # another handle than the one that was subscribed
        pipe.unsubscribe()
        check(pipe.reader)

    def test_bad_arguments(self, loop: EventLoop, pipe: Ends) -> None:
        for handle, events, on_event, error in (
            (pipe.reader.fd, READABLE, pipe.note, TypeError),
            (pipe.reader, IoEvents.CLOSED, pipe.note, ValueError),
            (pipe.reader, IoEvents(0), pipe.note, ValueError),
            (pipe.reader, 1, pipe.note, ValueError),
            (pipe.reader, READABLE, None, TypeError),
        ):
            with pytest.raises(error):
                loop.subscribe_to_io_events(handle, events, on_event)  # type: ignore[arg-type]  # on purpose
        pipe.subscribe()
        pipe.unsubscribe()

    def test_bad_handles(self) -> None:
        a, b = socket.socketpair()
        a.close()
        b.close()
        with pytest.raises(ValueError, match="closed"):
            IoHandle(a)
        with pytest.raises(ValueError):
            IoHandle(-1)
        with pytest.raises(TypeError):
            IoHandle("stdin")  # type: ignore[arg-type]  # on purpose

    def test_a_closed_descriptor(self, loop: EventLoop) -> None:
        handle = IoHandle(500)  # a number that nothing here gets
        for _ in range(2):  # nothing is left of the first attempt
            with pytest.raises(OSError, match="Bad file descriptor"):
                loop.subscribe_to_io_events(handle, READABLE | WRITABLE, lambda *_: None)

    @pytest.mark.skipif(not hasattr(select, "epoll"), reason="kqueue takes regular files")
    def test_a_regular_file(self) -> None:
        loop = EventLoop()
        with tempfile.TemporaryFile() as file, pytest.raises(PermissionError):
            loop.subscribe_to_io_events(IoHandle(file), READABLE, lambda *_: None)
        loop.close()

    def test_a_transport_s_socket(self, loop: EventLoop) -> None:
        async def attempt() -> None:
            a, b = nonblocking_pair()
            with b:
                transport, _ = await loop.create_connection(asyncio.Protocol, sock=a)
                with pytest.raises(RuntimeError, match="used by transport"):
                    loop.subscribe_to_io_events(IoHandle(a), READABLE, lambda *_: None)
                transport.close()
                await asyncio.sleep(0)

        loop.run_until_complete(attempt())

    def test_a_closed_loop(self, loop: EventLoop, pipe: Ends) -> None:
        loop.close()
        with pytest.raises(RuntimeError, match="closed"):
            pipe.subscribe()
