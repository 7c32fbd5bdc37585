"""A forked child: its parent's loop is none of its business, and it is told so.

asyncio's loops know nothing of this; a child that touches one hangs, or takes its parent's events.
"""

import asyncio
import os
import signal
import socket
import sys
import threading
import traceback
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import suppress

import pytest

import aws_io_async
from aws_io_async import EventLoop
from tests.pollers import OURS, open_loop

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform has no fork"),
    # What this file is about: Python 3.12 warns of forks where there are threads.
    pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning"),
]


@pytest.fixture(params=OURS)
def loop(request: pytest.FixtureRequest) -> Iterator[EventLoop]:
    with open_loop(request.param) as loop:
        assert isinstance(loop, EventLoop)
        yield loop


def in_child(function: Callable[[], object]) -> str:
    """Run it in a forked child: "" if that went well, else the child's traceback."""
    reader, writer = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            signal.alarm(20)  # a child that hangs is killed
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            function()
            os.write(writer, b"fine")
        except BaseException:
            os.write(writer, traceback.format_exc().encode()[-4000:])
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader, "rb") as file:
        said = file.read().decode()
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    return "" if said == "fine" else said or "the child said nothing"


def still_works(loop: EventLoop) -> None:
    """Descriptors, timers, callbacks and wake-ups."""
    a, b = socket.socketpair()
    with a, b:
        got: list[bytes] = []

        def readable() -> None:
            got.append(a.recv(10))
            thread.start()

        thread = threading.Thread(target=loop.call_soon_threadsafe, args=(loop.stop,))
        loop.add_reader(a, readable)
        loop.call_later(0.001, b.send, b"x")
        loop.run_forever()
        thread.join()
        loop.remove_reader(a)
        assert got == [b"x"]


CALLS: dict[str, Callable[[EventLoop], object]] = {
    "call_soon": lambda loop: loop.call_soon(print),
    "call_soon_threadsafe": lambda loop: loop.call_soon_threadsafe(print),
    "call_later": lambda loop: loop.call_later(0, print),
    "call_at": lambda loop: loop.call_at(0, print),
    "run_forever": lambda loop: loop.run_forever(),
    "run_until_complete": lambda loop: loop.run_until_complete(loop.create_future()),
    "run_in_executor": lambda loop: loop.run_in_executor(None, print),
    "add_reader": lambda loop: loop.add_reader(0, print),
    "add_writer": lambda loop: loop.add_writer(1, print),
    "add_signal_handler": lambda loop: loop.add_signal_handler(signal.SIGUSR1, print),
}


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("debug", [False, True])
def test_a_child_gets_an_error_that_names_the_loop(loop: EventLoop, name: str, debug: bool) -> None:
    loop.set_debug(debug)

    def child() -> None:
        with pytest.raises(RuntimeError, match="does not survive a fork") as caught:
            CALLS[name](loop)
        assert repr(loop) in str(caught.value)
        assert str(os.getppid()) in str(caught.value)

    assert in_child(child) == ""
    still_works(loop)


def test_a_child_makes_no_task(loop: EventLoop) -> None:
    async def nothing() -> None: ...

    def child() -> None:
        coroutine = nothing()
        with pytest.raises(RuntimeError, match="does not survive a fork"):
            loop.create_task(coroutine)
        coroutine.close()

    assert in_child(child) == ""


def test_the_error_outlasts_a_change_of_the_debug_mode(loop: EventLoop) -> None:
    def child() -> None:
        loop.set_debug(True)
        loop.set_debug(False)
        with pytest.raises(RuntimeError, match="does not survive a fork"):
            loop.call_soon(print)

    assert in_child(child) == ""


def test_a_child_that_removes_readers_does_the_parent_no_harm(loop: EventLoop) -> None:
    """The kernel's object is one and the same: what the child takes away is away."""
    a, b = socket.socketpair()
    with a, b:
        got: list[bytes] = []
        loop.add_reader(a, lambda: got.append(a.recv(10)))

        def child() -> None:
            with suppress(RuntimeError):
                loop.remove_reader(a)

        assert in_child(child) == ""
        b.send(b"x")
        loop.call_later(0.02, loop.stop)
        loop.run_forever()
        assert got == [b"x"]
        loop.remove_reader(a)


def test_a_child_that_closes_transports_does_the_parent_no_harm(loop: EventLoop) -> None:
    got: list[bytes] = []

    class Protocol(asyncio.Protocol):
        def data_received(self, data: bytes) -> None:
            got.append(data)
            loop.stop()

    async def connect() -> asyncio.Transport:
        transport, _ = await loop.create_connection(Protocol, sock=a)
        await asyncio.sleep(0)
        return transport

    a, b = socket.socketpair()
    transport = loop.run_until_complete(connect())

    def child() -> None:
        with suppress(RuntimeError):
            transport.abort()

    assert in_child(child) == ""
    b.send(b"x")
    loop.run_forever()
    assert got == [b"x"]
    transport.abort()
    loop.run_until_complete(asyncio.sleep(0))
    b.close()


def test_a_child_that_closes_or_drops_the_loop_does_the_parent_no_harm(loop: EventLoop) -> None:
    def child() -> None:
        loop.close()
        assert loop.is_closed()

    assert in_child(child) == ""
    assert not loop.is_closed()
    still_works(loop)


def test_a_child_may_have_a_loop_of_its_own(loop: EventLoop) -> None:
    def child() -> None:
        new = EventLoop()
        still_works(new)
        new.close()

        async def main() -> int:
            return 7

        assert aws_io_async.run(main()) == 7

    assert in_child(child) == ""
    still_works(loop)


def test_a_fork_out_of_a_running_loop(loop: EventLoop) -> None:
    async def nothing() -> int:
        await asyncio.sleep(0)
        return 7

    def child() -> None:
        with pytest.raises(RuntimeError, match="does not survive a fork"):
            loop.call_soon(print)
        assert aws_io_async.run(nothing()) == 7

    async def main() -> None:
        assert in_child(child) == ""
        assert await nothing() == 7

    loop.run_until_complete(main())
    still_works(loop)


def test_a_fork_out_of_another_thread_while_the_loop_runs(loop: EventLoop) -> None:
    said: list[str] = []

    def child() -> None:
        with pytest.raises(RuntimeError, match="does not survive a fork"):
            loop.call_soon_threadsafe(print)
        loop.close()

    def fork() -> None:
        said.append(in_child(child))
        loop.call_soon_threadsafe(loop.stop)

    thread = threading.Thread(target=fork)
    thread.start()
    loop.run_forever()
    thread.join()
    assert said == [""]
    still_works(loop)


def test_a_signal_of_the_child_does_not_reach_the_parent(loop: EventLoop) -> None:
    got: list[int] = []
    loop.add_signal_handler(signal.SIGUSR1, got.append, os.getpid())

    def child() -> None:
        signal.raise_signal(signal.SIGUSR1)

    assert in_child(child) == ""
    loop.call_later(0.02, loop.stop)
    loop.run_forever()
    assert got == []
    os.kill(os.getpid(), signal.SIGUSR1)
    loop.call_later(0.02, loop.stop)
    loop.run_forever()
    assert got == [os.getpid()]
    assert loop.remove_signal_handler(signal.SIGUSR1)


def test_an_asynchronous_generator_that_goes_in_the_child(loop: EventLoop) -> None:
    async def generator() -> AsyncGenerator[int, None]:
        yield 1

    begun = [generator()]

    async def begin() -> None:
        await anext(begun[0])

    loop.run_until_complete(begin())

    def child() -> None:
        unraisable: list[object] = []
        sys.unraisablehook = unraisable.append
        begun.clear()
        assert unraisable == []

    assert in_child(child) == ""
    loop.run_until_complete(loop.shutdown_asyncgens())
