"""A stream transport against a model of it: which callbacks may come in which order, and the bytes.

The peer is a plain socket, the loop takes one turn at a time. The model knows positions only: what
each side says is an endless text, so that a count of bytes tells which bytes they are.

asyncio's own transport does not pass: that of 3.11 says `eof_received` again to who pauses and
resumes reading after it, and fails with AttributeErrors if written to or closed after its end.
"""

import asyncio
import fcntl
import socket
import struct
import termios
import time
from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from aws_io_async import EventLoop
from tests.faults._report import Fault
from tests.models.endless import text
from tests.models.rounds import checked
from tests.socket_tools import tcp_pair

SIZES = st.sampled_from([0, 1, 100, 5_000, 70_000, 300_000])
LAST = st.sampled_from([""] * 6 + ["write_lines", "write_eof", "close", "abort"])
ANYTHING = Fault(
    "Network",
    "program and peer write, pause, end, close, abort and reset in any order",
    "callbacks in their order, every byte once, as a model has it",
)


PATIENCE = 10.0
"""Seconds after which something that should have happened is missed."""


def small_buffers(*socks: socket.socket) -> None:
    for sock in socks:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16 * 1024)


def unread(sock: socket.socket) -> int:
    """Bytes that wait in a socket's receive buffer."""
    (count,) = struct.unpack("i", fcntl.ioctl(sock, termios.FIONREAD, bytes(4)))
    return int(count)


class Told(asyncio.Protocol):
    """What the transport says, checked as it comes: nothing before `made` or after `lost`, no data
    while it must be silent, or after the end, pause and resume in turn and at their marks."""

    def __init__(self, model: "TransportMachine") -> None:
        self._model = model
        self.made = self.paused = self.ended = self.lost = False
        self.lost_with: BaseException | None = None
        self.received = 0

    def connection_made(self, transport: Any) -> None:
        assert not self.made
        self.made = True

    def data_received(self, data: bytes) -> None:
        self._may_read()
        assert data == text(self.received, len(data))
        assert data
        self.received += len(data)

    def eof_received(self) -> bool:
        self._may_read()
        assert self._model.peer_ended
        self.ended = True
        self._model.closing = not self._model.keeps_open
        return self._model.keeps_open

    def _may_read(self) -> None:
        assert self.made
        assert not self.ended
        assert not self.lost
        assert not self._model.reading_paused
        assert not self._model.closing

    def pause_writing(self) -> None:
        assert self.made
        assert not self.paused
        assert not self.lost
        self.paused = True
        transport = self._model.transport
        assert transport.get_write_buffer_size() > transport.get_write_buffer_limits()[1]

    def resume_writing(self) -> None:
        assert self.paused
        assert not self.lost
        self.paused = False
        transport = self._model.transport
        assert transport.get_write_buffer_size() <= transport.get_write_buffer_limits()[0]

    def connection_lost(self, exc: BaseException | None) -> None:
        assert self.made
        assert not self.lost
        assert self._model.closing or self._model.peer_ended
        self.lost, self.lost_with = True, exc


class ToldByBuffer(Told, asyncio.BufferedProtocol):
    """The same, with a buffer of its own."""

    _buffer = bytearray(10_000)

    def get_buffer(self, sizehint: int) -> bytearray:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.data_received(bytes(self._buffer[:nbytes]))


class TransportMachine(RuleBasedStateMachine):
    """One connection, from its first turn on."""

    protocol: type[Told] = Told
    pair: Callable[[], tuple[socket.socket, socket.socket]] = socket.socketpair

    def __init__(self) -> None:
        super().__init__()
        self.loop = EventLoop()
        self.failures: list[Any] = []
        self.loop.set_exception_handler(lambda _, context: self.failures.append(context))
        ours, self.peer = type(self).pair()
        small_buffers(ours, self.peer)
        self.said = self.heard = self.peer_said = 0
        self.reading_paused = self.closing = self.no_more_writes = False
        self.aborted = self.dropped = False
        self.peer_ended = self.peer_gone = self.heard_end = self.keeps_open = False
        self.told = self.protocol(self)
        self.transport, _ = self.loop.run_until_complete(
            self.loop.create_connection(lambda: self.told, sock=ours)
        )

    def turn(self) -> None:
        self.loop.call_soon(self.loop.stop)
        self.loop.run_forever()

    # The program

    def write_with(self, size: int, write: Callable[[bytes], None]) -> None:
        data = text(self.said, size)
        if self.no_more_writes:
            try:
                write(data)
            except RuntimeError:
                return
            assert self.told.lost or self.closing or not size
            return
        before = self.transport.get_write_buffer_size()
        write(data)
        if self.closing and not before:
            assert self.transport.get_write_buffer_size() == 0  # nobody will send it
        elif not self.peer_gone:
            self.said += size

    @rule(size=SIZES)
    def write(self, size: int) -> None:
        self.write_with(size, self.transport.write)

    @rule(size=SIZES, cut=st.integers(1, 5))
    def write_lines(self, size: int, cut: int) -> None:
        def write(data: bytes) -> None:
            step = size // cut + 1
            self.transport.writelines([data[at : at + step] for at in range(0, size, step)])

        self.write_with(size, write)

    @rule(size=SIZES)
    def write_what_changes_afterwards(self, size: int) -> None:
        def write(data: bytes) -> None:
            changing = bytearray(data)
            self.transport.write(changing)
            changing[:] = bytes(len(changing))

        self.write_with(size, write)

    @rule(sizes=st.lists(SIZES, min_size=2, max_size=5), last=LAST)
    def write_several_times_in_a_turn(self, sizes: list[int], last: str) -> None:
        def write() -> None:
            for size in sizes:
                self.write(size)
            if last == "write_lines":
                self.write_lines(sizes[0], 2)
            elif last == "write_eof":
                self.write_eof(True)
            elif last:
                self.end(last)

        self.loop.call_soon(write)
        self.turn()

    @rule(sure=st.sampled_from([False, False, True]))
    def write_eof(self, sure: bool) -> None:
        if not sure:
            return
        self.no_more_writes = self.no_more_writes or not self.transport.is_closing()
        self.transport.write_eof()

    @rule()
    def pause_reading(self) -> None:
        self.transport.pause_reading()
        self.reading_paused = self.reading_paused or not self.transport.is_closing()

    @rule()
    def resume_reading(self) -> None:
        self.transport.resume_reading()
        self.reading_paused = self.reading_paused and self.transport.is_closing()

    @rule(low=st.sampled_from([0, 1000, 64_000]), more=st.sampled_from([0, 1000, 200_000]))
    def set_limits(self, low: int, more: int) -> None:
        self.transport.set_write_buffer_limits(low + more, low)

    def close(self) -> None:
        self.transport.close()
        self.closing = True

    def abort(self) -> None:
        self.aborted = self.aborted or not self.transport.is_closing()
        self.transport.abort()
        self.closing = self.dropped = True
        assert self.transport.get_write_buffer_size() == 0

    @rule(which=st.sampled_from(["settle"] * 4 + ["close", "abort", "peer_closes", "peer_resets"]))
    def end(self, which: str) -> None:
        """One rule, and not always, so that most of what happens does before it."""
        getattr(self, which)()

    @rule(keeps_open=st.booleans())
    def choose_what_to_do_at_the_end(self, keeps_open: bool) -> None:
        self.keeps_open = keeps_open

    # The peer

    @precondition(lambda self: not self.peer_gone and not self.peer_ended)
    @rule(size=SIZES)
    def peer_writes(self, size: int) -> None:
        try:
            self.peer_said += self.peer.send(text(self.peer_said, size))
        except (BlockingIOError, BrokenPipeError, ConnectionResetError):
            pass

    @precondition(lambda self: not self.peer_gone)
    @rule(size=SIZES)
    def peer_reads(self, size: int) -> None:
        try:
            data = self.peer.recv(size)
        except BlockingIOError:
            return
        except ConnectionResetError:
            assert self.closing  # with data of ours that nobody had read
            return
        assert data == text(self.heard, len(data))
        assert data or not size or self.closing or self.no_more_writes
        self.heard += len(data)
        self.heard_end = self.heard_end or (size > 0 and not data)

    @precondition(lambda self: not self.peer_gone and not self.peer_ended)
    @rule()
    def peer_says_no_more(self) -> None:
        try:
            self.peer.shutdown(socket.SHUT_WR)
        except OSError:
            assert self.closing
        self.peer_ended = True

    def peer_closes(self) -> None:
        self.peer.close()
        self.peer_ended = self.peer_gone = True

    def peer_resets(self) -> None:
        if not self.peer_gone:
            self.peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.peer_closes()

    # Time

    @rule()
    def take_a_turn(self) -> None:
        self.turn()

    @rule()
    def settle(self) -> None:
        """Turn, the peer reading all it can, until what had to happen has happened."""
        deadline = time.monotonic() + PATIENCE
        while not self.is_at_rest():
            assert time.monotonic() < deadline, f"{self.transport} does not come to rest"
            self.turn()
            if not self.peer_gone:
                self.peer_reads(1 << 20)

    def is_at_rest(self) -> bool:
        told = self.told
        if told.lost or self.closing:
            return told.lost
        if self.peer_gone:
            return told.ended or self.reading_paused
        everything_sent = self.heard == self.said and self.heard_end == self.no_more_writes
        nothing_to_read = told.received == self.peer_said and told.ended == self.peer_ended
        return everything_sent and not told.paused and (nothing_to_read or self.reading_paused)

    # What always holds

    @invariant()
    def nothing_went_wrong(self) -> None:
        assert not self.failures

    @invariant()
    def bytes_are_where_they_should_be(self) -> None:
        told = self.told
        assert told.received <= self.peer_said
        assert self.heard <= self.said
        if self.pair is socket.socketpair and not (self.peer_gone or told.lost or self.dropped):
            in_between = unread(self.peer) + self.transport.get_write_buffer_size()
            assert self.heard + in_between == self.said

    @invariant()
    def writing_is_paused_as_the_marks_say(self) -> None:
        size = self.transport.get_write_buffer_size()
        if self.told.lost or self.dropped or self.peer_gone:
            return
        assert self.told.paused or size <= self.transport.get_write_buffer_limits()[1]
        assert size or not self.told.paused

    @invariant()
    def the_end_is_as_it_was_brought_about(self) -> None:
        if not self.told.lost:
            return
        if not self.peer_gone or self.aborted:  # whoever aborts has the first word
            assert self.told.lost_with is None
        else:
            exc = self.told.lost_with
            assert exc is None or isinstance(exc, ConnectionResetError | BrokenPipeError)

    def teardown(self) -> None:
        self.abort()
        for _ in range(3):
            self.turn()
        assert self.told.lost
        self.nothing_went_wrong()
        self.peer.close()
        self.loop.close()
        ANYTHING.seen("as the model has it")


class BufferedMachine(TransportMachine):
    protocol = ToldByBuffer


class TcpMachine(TransportMachine):
    pair = tcp_pair


TestOverUnix = checked(TransportMachine, 150)
TestBufferedOverUnix = checked(BufferedMachine, 50)
TestOverTcp = checked(TcpMachine, 80)
