"""`add_reader` and `add_writer`: what is watched, who is told, and what happens to stale events."""

import asyncio
import contextvars
import gc
import os
import socket
import sys
import tempfile
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest

from aws_io_async import EventLoop
from tests.pollers import OURS

Loop = asyncio.AbstractEventLoop
Pair = tuple[socket.socket, socket.socket]


without_uvloop = pytest.mark.parametrize("loop", [*OURS, "asyncio"], indirect=True)
"""For what uvloop really does otherwise; each test says what that is."""


def nonblocking_pair() -> Pair:
    a, b = socket.socketpair()
    a.setblocking(False)
    b.setblocking(False)
    return a, b


@contextmanager
def number_used_anew(
    loop: Loop,
) -> Iterator[tuple[socket.socket, socket.socket, socket.socket]]:
    """A socket that was closed while it was watched, one that has its number now, and its peer."""
    a, b = nonblocking_pair()
    number = a.fileno()
    loop.add_reader(a, print)
    a.close()
    b.close()
    c, d = nonblocking_pair()
    with c, d:
        new, peer = (c, d) if c.fileno() == number else (d, c)
        yield a, new, peer


@pytest.fixture
def pair() -> Iterator[Pair]:
    a, b = nonblocking_pair()
    with a, b:
        yield a, b


def run_a_while(loop: Loop, seconds: float = 0.005) -> None:
    loop.call_later(seconds, loop.stop)
    loop.run_forever()


def in_turn(*callbacks: Callable[[], object]) -> Callable[[], None]:
    def callback() -> None:
        for each in callbacks:
            each()

    return callback


def collect_errors(loop: Loop) -> list[dict[str, Any]]:
    errors: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: errors.append(context))
    return errors


def fill(sock: socket.socket) -> None:
    """Write until no more fits."""
    with pytest.raises(BlockingIOError):
        while True:
            sock.send(bytes(65536))


def empty(sock: socket.socket) -> None:
    with pytest.raises(BlockingIOError):
        while True:
            sock.recv(65536)


class TestReadersAndWriters:
    @pytest.mark.parametrize("by_number", [False, True])
    def test_reader(self, loop: Loop, pair: Pair, by_number: bool) -> None:
        a, b = pair
        got: list[tuple[str, bytes]] = []

        def readable(name: str) -> None:
            got.append((name, a.recv(10)))
            loop.stop()

        loop.add_reader(a.fileno() if by_number else a, readable, "argument")
        b.send(b"1")
        loop.run_forever()
        b.send(b"2")
        loop.run_forever()
        assert got == [("argument", b"1"), ("argument", b"2")]
        loop.remove_reader(a)
        b.send(b"3")
        run_a_while(loop)
        assert len(got) == 2

    def test_writer(self, loop: Loop, pair: Pair) -> None:
        a, b = pair
        ran: list[str] = []

        def writable(name: str) -> None:
            ran.append(name)
            loop.remove_writer(a)
            loop.stop()

        fill(a)
        loop.add_writer(a, writable, "argument")
        run_a_while(loop)
        assert ran == []
        empty(b)
        loop.run_forever()
        run_a_while(loop)
        assert ran == ["argument"]

    @without_uvloop  # it says nothing
    def test_removing_says_whether_there_was_something(self, loop: Loop, pair: Pair) -> None:
        a, _ = pair
        assert not loop.remove_reader(a)
        loop.add_reader(a, print)
        loop.add_writer(a, print)
        assert loop.remove_reader(a)
        assert not loop.remove_reader(a)
        assert loop.remove_writer(a.fileno())
        assert not loop.remove_writer(a)

    def test_both_on_one_descriptor(self, loop: Loop, pair: Pair) -> None:
        a, b = pair
        ran: list[str] = []

        def readable() -> None:
            ran.append("read")
            a.recv(10)

        def writable() -> None:
            ran.append("write")
            loop.remove_writer(a)

        loop.add_reader(a, readable)
        loop.add_writer(a, writable)
        b.send(b"x")
        run_a_while(loop)
        assert sorted(ran) == ["read", "write"]
        b.send(b"x")
        run_a_while(loop)
        assert sorted(ran) == ["read", "read", "write"]
        loop.remove_reader(a)

    def test_removing_one_leaves_the_other(self, loop: Loop, pair: Pair) -> None:
        a, b = pair
        ran: list[str] = []
        loop.add_reader(a, lambda: ran.append(a.recv(1).decode()))
        loop.add_writer(a, ran.append, "write")
        loop.remove_writer(a)
        b.send(b"1")
        run_a_while(loop)
        assert ran == ["1"]
        loop.add_writer(a, ran.append, "write")
        loop.remove_reader(a)
        b.send(b"2")
        run_a_while(loop)
        assert set(ran[1:]) == {"write"}
        loop.remove_writer(a)

    def test_the_last_one_added_counts(self, loop: Loop, pair: Pair) -> None:
        a, b = pair
        ran: list[str] = []
        for name in ("first", "second"):
            loop.add_reader(a, in_turn(partial(a.recv, 10), partial(ran.append, name)))
        b.send(b"x")
        run_a_while(loop)
        assert ran == ["second"]
        for name in ("first", "second"):
            loop.add_writer(a, in_turn(partial(loop.remove_writer, a), partial(ran.append, name)))
        run_a_while(loop)
        assert ran == ["second", "second"]
        loop.remove_reader(a)

    def test_replacing_drops_the_old_one(self, loop: Loop, pair: Pair) -> None:
        class Token:
            def callback(self) -> None: ...

        token = Token()
        gone = weakref.ref(token)
        loop.add_reader(pair[0], token.callback)
        loop.add_reader(pair[0], print)
        del token
        gc.collect()
        assert gone() is None
        loop.remove_reader(pair[0])

    def test_removing_drops_the_callback(self, loop: Loop, pair: Pair) -> None:
        class Token:
            def callback(self) -> None: ...

        token = Token()
        gone = weakref.ref(token)
        loop.add_reader(pair[0], token.callback)
        loop.add_writer(pair[0], token.callback)
        loop.remove_reader(pair[0])
        loop.remove_writer(pair[0])
        del token
        gc.collect()
        assert gone() is None

    def test_level_triggered(self, loop: Loop, pair: Pair) -> None:
        """Who leaves something unread is told again."""
        a, b = pair
        got: list[bytes] = []

        def readable() -> None:
            got.append(a.recv(1))
            if len(got) == 3:
                loop.stop()

        loop.add_reader(a, readable)
        b.send(b"123")
        loop.run_forever()
        assert got == [b"1", b"2", b"3"]
        loop.remove_reader(a)

    def test_the_end_of_the_stream_is_readable(self, loop: Loop, pair: Pair) -> None:
        a, b = pair
        got: list[bytes] = []

        def readable() -> None:
            got.append(a.recv(10))
            loop.remove_reader(a)
            loop.stop()

        loop.add_reader(a, readable)
        b.close()
        loop.run_forever()
        assert got == [b""]

    def test_a_pipe_whose_reader_has_gone_is_writable(self, loop: Loop) -> None:
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        with pytest.raises(BlockingIOError):
            while True:
                os.write(writer, bytes(65536))
        loop.add_writer(writer, loop.stop)
        os.close(reader)
        loop.run_forever()
        loop.remove_writer(writer)
        os.close(writer)

    def test_the_context_is_the_caller_s(self, loop: Loop, pair: Pair) -> None:
        var: contextvars.ContextVar[str] = contextvars.ContextVar("var", default="default")
        a, _ = pair
        seen: list[str] = []

        def writable() -> None:
            seen.append(var.get())
            loop.remove_writer(a)

        def add() -> None:
            var.set("at the call")
            loop.add_writer(a, writable)

        contextvars.copy_context().run(add)
        run_a_while(loop)
        assert seen == ["at the call"]

    def test_many(self, loop: Loop) -> None:
        pairs = [nonblocking_pair() for _ in range(100)]
        got: set[int] = set()
        for n, (a, _) in enumerate(pairs):
            loop.add_reader(a, in_turn(partial(a.recv, 1), partial(got.add, n)))
        for _, b in pairs[::2]:
            b.send(b"x")
        run_a_while(loop, 0.02)
        assert got == set(range(0, 100, 2))
        for a, b in pairs:
            loop.remove_reader(a)
            a.close()
            b.close()


class TestErrors:
    def test_a_callback_that_raises_stops_no_other(self, loop: Loop) -> None:
        errors = collect_errors(loop)
        pairs = [nonblocking_pair() for _ in range(3)]
        ran: list[int] = []

        def readable(n: int, a: socket.socket) -> None:
            a.recv(1)
            ran.append(n)
            if n == 1:
                raise ZeroDivisionError("on purpose")

        for n, (a, b) in enumerate(pairs):
            loop.add_reader(a, readable, n, a)
            b.send(b"x")
        run_a_while(loop)
        assert sorted(ran) == [0, 1, 2]
        assert [type(context["exception"]) for context in errors] == [ZeroDivisionError]
        assert "readable" in errors[0]["message"]
        pairs[1][1].send(b"x")  # and it is still watched
        run_a_while(loop)
        assert ran[3:] == [1]
        for a, b in pairs:
            loop.remove_reader(a)
            a.close()
            b.close()

    @without_uvloop  # it goes on after SystemExit
    @pytest.mark.parametrize("exception", [KeyboardInterrupt, SystemExit])
    def test_an_exit_leaves_the_loop(
        self, loop: Loop, pair: Pair, exception: type[BaseException]
    ) -> None:
        def leave() -> None:
            raise exception

        loop.add_writer(pair[0], leave)
        with pytest.raises(exception):
            loop.run_forever()
        loop.remove_writer(pair[0])
        run_a_while(loop)

    @pytest.mark.parametrize("wrong", [-1, -2, "x", None, object(), 1.5])
    def test_what_has_no_descriptor(self, ours: EventLoop, wrong: Any) -> None:
        for method in (
            lambda: ours.add_reader(wrong, print),
            lambda: ours.add_writer(wrong, print),
            lambda: ours.remove_reader(wrong),
            lambda: ours.remove_writer(wrong),
        ):
            with pytest.raises(ValueError, match="Invalid file"):
                method()

    def test_a_closed_socket(self, ours: EventLoop) -> None:
        a, b = nonblocking_pair()
        a.close()
        b.close()
        with pytest.raises(ValueError):
            ours.add_reader(a, print)
        with pytest.raises(ValueError):
            ours.remove_writer(a)

    @pytest.mark.skipif(sys.platform != "linux", reason="kqueue takes regular files")
    @pytest.mark.parametrize("loop", ["aws_io_async", "asyncio"], indirect=True)
    def test_a_regular_file(self, loop: Loop) -> None:
        """epoll's refusal reaches the caller, and nothing stays behind."""
        with tempfile.TemporaryFile() as file:
            for _ in range(2):
                with pytest.raises(PermissionError):
                    loop.add_reader(file, print)
                with pytest.raises(PermissionError):
                    loop.add_writer(file, print)
            assert not loop.remove_reader(file)
            assert not loop.remove_writer(file)

    @pytest.mark.parametrize("loop", ["aws_io_async", "KqueueSelector", "asyncio"], indirect=True)
    def test_a_closed_descriptor(self, loop: Loop) -> None:
        reader, writer = os.pipe()
        os.close(reader)
        os.close(writer)
        with pytest.raises(OSError):
            loop.add_reader(reader, print)
        assert not loop.remove_reader(reader)

    async def test_a_descriptor_that_a_transport_owns(self) -> None:
        loop = asyncio.get_running_loop()
        a, b = nonblocking_pair()
        with b:
            transport, _ = await loop.create_connection(asyncio.Protocol, sock=a)
            for method in (
                lambda: loop.add_reader(a, print),
                lambda: loop.add_writer(a.fileno(), print),
                lambda: loop.remove_reader(a),
                lambda: loop.remove_writer(a.fileno()),
            ):
                with pytest.raises(RuntimeError, match="is used by transport"):
                    method()
            transport.close()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            await asyncio.sleep(0)


class TestOwnership:
    """A descriptor's number outlives the descriptor."""

    def test_a_stale_event_does_not_reach_the_number_s_new_owner(self, ours: EventLoop) -> None:
        """Both of two sockets are ready in one poll; the callback of the one that runs first
        closes the other, and opens a new one that gets the number."""
        pairs = [nonblocking_pair() for _ in range(2)]
        opened: list[Pair] = []
        delivered: list[str] = []

        def readable(own: socket.socket, other: socket.socket) -> None:
            own.recv(1)
            ours.remove_reader(own)
            number = other.fileno()
            ours.remove_reader(other)
            other.close()
            opened.append(nonblocking_pair())
            new = next(sock for sock in opened[0] if sock.fileno() == number)
            ours.add_reader(new, delivered.append, "to the new owner")

        for own, other in (pairs, pairs[::-1]):
            ours.add_reader(own[0], readable, own[0], other[0])
            own[1].send(b"x")
        run_a_while(ours)
        assert len(opened) == 1
        assert delivered == []
        for sock in opened[0]:
            ours.remove_reader(sock)
        for pair in (*pairs, *opened):
            for sock in pair:
                sock.close()

    def test_a_removed_watcher_is_not_called_in_the_same_turn(self, loop: Loop) -> None:
        pairs = [nonblocking_pair() for _ in range(10)]
        ran: list[int] = []

        def readable(n: int) -> None:
            ran.append(n)
            for a, _ in pairs:
                loop.remove_reader(a)

        for n, (a, b) in enumerate(pairs):
            loop.add_reader(a, readable, n)
            b.send(b"x")
        run_a_while(loop)
        assert len(ran) == 1
        for a, b in pairs:
            a.close()
            b.close()

    def test_what_is_added_in_a_callback_hears_of_what_was_ready(self, ours: EventLoop) -> None:
        """Its events are put off, not lost."""
        a, b = nonblocking_pair()
        c, d = nonblocking_pair()
        with a, b, c, d:
            got: list[bytes] = []
            d.send(b"there already")

            def first() -> None:
                ours.remove_writer(a)
                ours.add_reader(c, in_turn(lambda: got.append(c.recv(99)), ours.stop))

            ours.add_writer(a, first)
            ours.run_forever()
            assert got == [b"there already"]
            ours.remove_reader(c)

    async def test_what_is_readable_when_it_is_added_is_told_in_the_next_turn(
        self, pair: Pair
    ) -> None:
        """Also while callbacks are ready: what they do next may depend on it, in asyncssh say."""
        pair[1].send(b"x")
        told: list[str] = []
        loop = asyncio.get_running_loop()
        loop.add_reader(pair[0], told.append, "readable")
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        loop.remove_reader(pair[0])
        assert told

    def test_closed_without_being_removed(self, ours: EventLoop) -> None:
        """A bug of the descriptor's owner harms only the owner."""
        a, b = nonblocking_pair()
        number = a.fileno()
        ours.add_reader(a, print)
        ours.add_writer(a, print)
        a.close()
        b.close()
        assert ours.remove_writer(number)
        assert ours.remove_reader(number)
        c, d = nonblocking_pair()
        with c, d:
            new, peer = (c, d) if c.fileno() == number else (d, c)
            assert new.fileno() == number
            ours.add_reader(new, in_turn(partial(new.recv, 1), ours.stop))
            peer.send(b"x")
            ours.run_forever()
            ours.remove_reader(new)

    @without_uvloop  # it returns None
    def test_a_socket_closed_before_it_is_taken_away(self, loop: Loop) -> None:
        """Programs close first and call `remove_reader` then: anyio, for one."""
        a, b = nonblocking_pair()
        loop.add_reader(a, print)
        loop.add_writer(b, print)
        a.close()
        b.close()
        assert loop.remove_reader(a)
        assert loop.remove_writer(b)

    def test_a_socket_closed_while_both_directions_are_watched(self, ours: EventLoop) -> None:
        a, b = nonblocking_pair()
        with b:
            ours.add_reader(a, print)
            ours.add_writer(a, print)
            a.close()
            assert ours.remove_reader(a)
            assert ours.remove_writer(a)
            with pytest.raises(ValueError):
                ours.remove_reader(a)

    def test_a_closed_socket_does_not_take_away_the_number_s_new_owner(
        self, ours: EventLoop
    ) -> None:
        with number_used_anew(ours) as (closed, new, peer):
            receiving = ours.create_task(ours.sock_recv(new, 1))
            run_a_while(ours)
            assert not ours.remove_reader(closed)
            peer.send(b"x")
            assert ours.run_until_complete(receiving) == b"x"

    def test_a_watched_socket_is_kept_alive(self, loop: Loop) -> None:
        a, b = nonblocking_pair()
        with b:
            number = a.fileno()
            alive = weakref.ref(a)
            loop.add_reader(a, loop.stop)
            del a
            gc.collect()
            b.send(b"x")
            loop.run_forever()
            again = alive()
            assert again is not None
            assert again.fileno() == number
            with again:
                loop.remove_reader(again)
        del again
        gc.collect()
        assert alive() is None

    def test_a_number_used_anew_while_it_was_still_watched(self, ours: EventLoop) -> None:
        with number_used_anew(ours) as (_, new, peer):
            ran: list[str] = []
            ours.add_writer(
                new, in_turn(partial(ran.append, "write"), partial(ours.remove_writer, new))
            )
            ours.add_reader(new, in_turn(partial(ran.append, "read"), partial(new.recv, 1)))
            peer.send(b"x")
            run_a_while(ours)
            assert sorted(ran) == ["read", "write"]
            ours.remove_reader(new)

    def test_a_number_used_anew_and_watched_for_the_same(self, ours: EventLoop) -> None:
        """The kernel has forgotten the old one: taking over its registration is not enough."""
        with number_used_anew(ours) as (_, new, peer):
            got: list[bytes] = []
            ours.add_reader(new, lambda: got.append(new.recv(1)))
            peer.send(b"x")
            run_a_while(ours)
            assert got == [b"x"]
            ours.remove_reader(new)

    def test_a_callback_that_removes_itself_and_adds_another(self, loop: Loop, pair: Pair) -> None:
        a, b = pair
        got: list[str] = []

        def first() -> None:
            got.append("first" + a.recv(1).decode())
            loop.remove_reader(a)
            loop.add_reader(a, second)

        def second() -> None:
            got.append("second" + a.recv(1).decode())
            loop.stop()

        loop.add_reader(a, first)
        b.send(b"12")
        loop.run_forever()
        assert got == ["first1", "second2"]
        loop.remove_reader(a)

    def test_closing_the_loop_forgets_all(self, ours: EventLoop, pair: Pair) -> None:
        ours.add_reader(pair[0], print)
        ours.add_writer(pair[1], print)
        ours.close()
        assert not ours.remove_reader(pair[0])
        assert not ours.remove_writer(pair[1])
