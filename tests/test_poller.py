"""Pollers by themselves.

The core of the loop is tested on each of them by test_scheduler, test_watchers and test_threads.
"""

import asyncio
import gc
import os
import resource
import selectors
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from aws_io_async import EventLoop
from aws_io_async.event_loop import _poller
from aws_io_async.event_loop._poller import EVENT_READ, EVENT_WRITE, Poller
from tests.pollers import OURS, SELECTORS, open_loop, platform_of


@pytest.fixture(params=SELECTORS)
def poller(request: pytest.FixtureRequest) -> Iterator[Poller]:
    with platform_of(request.param):
        poller = _poller.take_over(getattr(selectors, request.param)())
        yield poller
        poller.close()


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    a, b = socket.socketpair()
    with a, b:
        a.setblocking(False)
        b.setblocking(False)
        yield a, b


Pair = tuple[socket.socket, socket.socket]


def seen(poller: Poller, timeout: float | None = 0) -> dict[int, int]:
    """What a poll reports, as masks of EVENT_READ and EVENT_WRITE."""
    found: dict[int, int] = {}
    for fd, events in poller.poll(timeout):
        mask = (EVENT_READ if events & poller.readable else 0) | (
            EVENT_WRITE if events & poller.writable else 0
        )
        found[fd] = found.get(fd, 0) | mask
    return found


def test_nothing_is_ready(poller: Poller, pair: Pair) -> None:
    assert seen(poller) == {}
    poller.update(pair[0].fileno(), 0, EVENT_READ)
    assert seen(poller) == {}
    poller.update(pair[0].fileno(), EVENT_READ, 0)


def test_readable(poller: Poller, pair: Pair) -> None:
    a, b = pair
    poller.update(a.fileno(), 0, EVENT_READ)
    b.send(b"xy")
    assert seen(poller, None) == {a.fileno(): EVENT_READ}
    a.recv(1)
    assert seen(poller, None) == {a.fileno(): EVENT_READ}  # level-triggered
    a.recv(1)
    assert seen(poller) == {}
    poller.update(a.fileno(), EVENT_READ, 0)


def test_changing_what_is_waited_for(poller: Poller, pair: Pair) -> None:
    a, b = pair
    b.send(b"x")
    fd, old = a.fileno(), 0
    both = EVENT_READ | EVENT_WRITE
    for new in (EVENT_WRITE, both, EVENT_READ, both, EVENT_WRITE, EVENT_READ, 0, both, 0):
        poller.update(fd, old, new)
        assert seen(poller) == ({fd: new} if new else {})
        old = new


def test_a_hang_up_is_reported_to_who_waits(poller: Poller) -> None:
    """A reader learns of the end of its input, a writer of a reader that has gone."""
    for end, event in ((0, EVENT_READ), (1, EVENT_WRITE)):
        pipe = list(os.pipe())
        if event == EVENT_WRITE:  # full, so that nothing else could make it writable
            os.set_blocking(pipe[1], False)
            with pytest.raises(BlockingIOError):
                while True:
                    os.write(pipe[1], bytes(65536))
        fd = pipe[end]
        poller.update(fd, 0, event)
        assert seen(poller) == {}
        os.close(pipe[1 - end])
        assert seen(poller, None)[fd] & event
        poller.update(fd, event, 0)
        os.close(fd)


def test_a_refused_connection_wakes_reader_and_writer(poller: Poller) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()
    with socket.socket() as sock:
        sock.setblocking(False)
        with pytest.raises(BlockingIOError):
            sock.connect(address)
        both = EVENT_READ | EVENT_WRITE
        poller.update(sock.fileno(), 0, both)
        assert seen(poller, None) == {sock.fileno(): both}
        poller.update(sock.fileno(), both, 0)


def test_the_timeout_is_waited_out(poller: Poller) -> None:
    """No earlier than asked for, or the loop would spin until its timer is due."""
    for timeout in (0.0001, 0.0015, 0.02):
        started = time.monotonic()
        assert poller.poll(timeout) == []
        assert time.monotonic() - started >= timeout


def test_more_is_ready_than_one_poll_takes(poller: Poller) -> None:
    """Nobody is left out for good."""
    if isinstance(poller, _poller.SelectorPoller):
        pytest.skip("poll and select report everything at once")
    with open_many(_poller.MAX_EVENTS + 100) as fds:
        for fd in fds:
            poller.update(fd, 0, EVENT_WRITE)
        found: set[int] = set()
        for _ in range(4):
            found |= seen(poller).keys()
        assert found == set(fds)
        for fd in fds:
            poller.update(fd, EVENT_WRITE, 0)


@contextmanager
def open_many(count: int) -> Iterator[list[int]]:
    """Writable descriptors, as many as wanted."""
    if resource.getrlimit(resource.RLIMIT_NOFILE)[0] < count + 100:
        pytest.skip(f"this process may not have {count} descriptors")
    with ExitStack() as stack:
        pairs = [socket.socketpair() for _ in range(count // 2)]
        yield [stack.enter_context(sock).fileno() for pair in pairs for sock in pair]


def test_taking_away_a_closed_descriptor_never_fails(poller: Poller) -> None:
    a, b = socket.socketpair()
    fd = a.fileno()
    poller.update(fd, 0, EVENT_READ | EVENT_WRITE)
    a.close()
    b.close()
    poller.update(fd, EVENT_READ | EVENT_WRITE, EVENT_READ)
    poller.update(fd, EVENT_READ, 0)
    assert seen(poller) == {}


def test_a_number_used_anew_behind_the_poller_s_back(poller: Poller) -> None:
    """The old owner closed its descriptor and forgot to say so; the new one goes unharmed."""
    a, b = socket.socketpair()
    fd = a.fileno()
    poller.update(fd, 0, EVENT_READ)
    a.close()
    b.close()
    c, d = socket.socketpair()
    with c, d:
        assert fd in (c.fileno(), d.fileno())
        poller.update(fd, EVENT_READ, EVENT_READ | EVENT_WRITE)
        assert seen(poller) == {fd: EVENT_WRITE}
        (d if c.fileno() == fd else c).send(b"x")
        assert seen(poller, None) == {fd: EVENT_READ | EVENT_WRITE}
        poller.update(fd, EVENT_READ | EVENT_WRITE, 0)


@pytest.mark.parametrize("name", ["EpollSelector", "KqueueSelector"])
def test_a_closed_descriptor_is_refused(name: str) -> None:
    if name not in SELECTORS:
        pytest.skip(f"no {name} here")
    reader, writer = os.pipe()
    os.close(reader)
    os.close(writer)
    with platform_of(name):
        poller = _poller.take_over(getattr(selectors, name)())
        with pytest.raises(OSError):
            poller.update(reader, 0, EVENT_READ)
        poller.close()


@pytest.mark.skipif(sys.platform != "linux", reason="epoll's own limitation")
def test_epoll_refuses_a_regular_file() -> None:
    poller = _poller.take_over(selectors.EpollSelector())
    with tempfile.TemporaryFile() as file, pytest.raises(PermissionError):
        poller.update(file.fileno(), 0, EVENT_READ)
    poller.close()


def test_close_is_idempotent(poller: Poller) -> None:
    poller.close()
    poller.close()


@pytest.mark.parametrize("name", SELECTORS)
def test_which_poller_takes_over(name: str) -> None:
    expected = {"EpollSelector": "EpollPoller", "KqueueSelector": "KqueuePoller"}
    with platform_of(name):
        poller = _poller.take_over(getattr(selectors, name)())
        assert type(poller).__name__ == expected.get(name, "SelectorPoller")
        poller.close()


def test_the_default_is_the_platform_s_best() -> None:
    ours, theirs = _poller.take_over(None), _poller.take_over(selectors.DefaultSelector())
    assert type(ours) is type(theirs)
    ours.close()
    theirs.close()


@pytest.mark.parametrize("selector", ["epoll", 3, selectors.SelectSelector, object()])
def test_what_is_no_selector_is_refused(selector: Any) -> None:
    with pytest.raises(TypeError, match="selector must be an instance"):
        EventLoop(selector=selector)
    gc.collect()  # the half-made loop goes without a warning or an error


def test_the_loop_closes_the_selector_that_it_was_given() -> None:
    selector = selectors.DefaultSelector()
    EventLoop(selector).close()
    with pytest.raises((ValueError, KeyError, RuntimeError)):
        selector.select(0)


@pytest.mark.parametrize("kind", OURS)
def test_streams_on_each_poller(kind: str) -> None:
    """The whole of the loop at work: a server, clients, back pressure, timeouts."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()
        await writer.wait_closed()

    async def client(address: tuple[str, int], n: int) -> None:
        reader, writer = await asyncio.open_connection(*address)
        data = bytes([n]) * 1_000_000
        writer.write(data)
        writer.write_eof()
        assert await reader.read() == data
        writer.close()
        await writer.wait_closed()

    async def main() -> None:
        server = await asyncio.start_server(echo, "127.0.0.1", 0)
        async with server:
            address = server.sockets[0].getsockname()
            await asyncio.gather(*(client(address, n) for n in range(5)))
            reader, writer = await asyncio.open_connection(*address)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01):
                    await reader.read()
            writer.close()
            await writer.wait_closed()

    with open_loop(kind) as loop:
        loop.run_until_complete(main())
