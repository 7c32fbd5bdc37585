"""Forks by `multiprocessing` and its pools, where a group, a loop and a resolver are running."""

import asyncio
import multiprocessing
import os
import threading
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import pytest

import aws_io_async
from aws_io_async import ChannelStream, EventLoop, EventLoopGroup, HostResolver, connect, serve
from aws_io_async.event_loop import _crossing
from aws_io_async.host_resolver import HostResolutionConfig
from tests.faults._report import Fault
from tests.test_group import here, new_group

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform has no fork"),
    # What this file is about: Python 3.12 warns of forks where there are threads.
    pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning"),
]

FORKS = Fault(
    "Threads and forks",
    "a process forks, by os.fork or multiprocessing, while a group and a loop are running",
    "the child is told so by an error, and may have its own; the parent goes on",
)

PATIENCE = 30.0
"""Seconds after which a child hangs."""

fork = multiprocessing.get_context("fork") if hasattr(os, "fork") else multiprocessing


@pytest.fixture(params=["aws_io_async", "uvloop"])
def group(request: pytest.FixtureRequest) -> Iterator[EventLoopGroup]:
    with new_group(request.param) as group:
        yield group


def _report(function: Callable[[], object], pipe: Any) -> None:
    try:
        pipe.send((function(), None))
    except BaseException:
        pipe.send((None, traceback.format_exc()))
    pipe.close()


def in_process(function: Callable[[], object]) -> Any:
    """What the function returns in a forked process; fails with the traceback of what it raises.

    The process ends as those of `multiprocessing` do, with the exit handlers that it has inherited.
    """
    ours, theirs = fork.Pipe(duplex=False)
    child = fork.Process(target=_report, args=(function, theirs))
    child.start()
    theirs.close()
    assert ours.poll(PATIENCE), "the child says nothing"
    result, error = ours.recv()
    ours.close()
    child.join(PATIENCE)
    exitcode = child.exitcode
    child.close()
    assert error is None, error
    assert exitcode == 0
    return result


def what_raises(call: Callable[[], object]) -> str:
    try:
        call()
    except RuntimeError as exc:
        return str(exc)
    return "nothing was raised"


def test_a_process_is_told_that_the_group_is_its_parents(group: EventLoopGroup) -> None:
    def child() -> list[str]:
        return [
            what_raises(group.get_next_loop),
            what_raises(lambda: group.submit(here())),
            what_raises(lambda: asyncio.run(group.run(here()))),
        ]

    for text in in_process(child):
        assert "threads do not survive a fork, make a new group in the child" in text
        assert f"pid {os.getpid()}" in text
        FORKS.seen("an error that says so")
    assert group.submit(here()).result()[0] in list(group)


def test_a_process_of_a_running_loop() -> None:
    """Forked on the loop's thread, out of a coroutine that goes on."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        text = in_process(lambda: what_raises(lambda: loop.call_soon_threadsafe(print)))
        assert "an event loop does not survive a fork, make a new one in the child" in text
        FORKS.seen("an error that says so")
        assert in_process(lambda: aws_io_async.run(here())[1]) == "MainThread"
        await asyncio.sleep(0.001)
        FORKS.seen("the parent goes on")

    aws_io_async.run(main())


def test_a_process_may_have_all_of_its_own(group: EventLoopGroup) -> None:
    """Group, channels and resolver, beside the parent's, which are in use meanwhile."""
    config = HostResolutionConfig(impl=lambda host: ["127.0.0.1"])

    async def echo(stream: ChannelStream) -> None:
        async for data in stream:
            await stream.send(data)

    async def talk(own: EventLoopGroup) -> bytes:
        async with HostResolver(config=config) as resolver:
            assert (await resolver.resolve_host("host.example"))[0].address == "127.0.0.1"
        async with (
            serve(echo, "127.0.0.1", event_loop_group=own) as listener,
            await connect("127.0.0.1", listener.endpoint.port, event_loop_group=own) as stream,
        ):
            await stream.send(b"hello")
            return await stream.receive()

    def child() -> bytes:
        with EventLoopGroup(2) as own:
            return aws_io_async.run(talk(own))

    assert in_process(child) == b"hello"
    assert aws_io_async.run(talk(group)) == b"hello"
    FORKS.seen("its own works, and so does the parent's")


def test_the_default_resolver_begins_anew() -> None:
    config = HostResolutionConfig(impl=lambda host: [f"127.0.0.{len(host)}"])

    def resolve() -> str:
        found = aws_io_async.run(HostResolver.default().resolve_host("abc", config))
        return found[0].address

    assert resolve() == "127.0.0.3"
    assert in_process(lambda: HostResolver.default().statistics().hosts) == 0
    assert in_process(resolve) == "127.0.0.3"
    assert HostResolver.default().statistics().hosts == 1
    HostResolver.default().shutdown()


def test_a_child_of_a_thread_of_the_group(group: EventLoopGroup) -> None:
    async def have_a_child() -> str:
        loop = asyncio.get_running_loop()
        return str(in_process(lambda: what_raises(lambda: group.submit(here(), loop))))

    assert "do not survive a fork" in group.submit(have_a_child()).result(PATIENCE)
    assert group.submit(here()).result()[0] in list(group)
    FORKS.seen("an error that says so")


def test_locks_that_another_thread_had_at_that_moment(group: EventLoopGroup) -> None:
    """Nobody lets go of them in the child, and nobody there waits for that."""
    have, done = threading.Event(), threading.Event()

    def keep() -> None:
        with group._lock, _crossing._lock:
            have.set()
            done.wait()

    async def on_another_loop(own: EventLoopGroup) -> str:
        return (await own.run(here()))[1]

    def child() -> tuple[str, str, str]:
        with EventLoopGroup(1) as own:
            name = asyncio.run(on_another_loop(own))
        submitted = what_raises(lambda: group.submit(here()))
        return submitted, what_raises(lambda: asyncio.run(group.run(here()))), name

    thread = threading.Thread(target=keep)
    thread.start()
    have.wait()
    try:
        submitted, run, name = in_process(child)
    finally:
        done.set()
        thread.join()
    assert "do not survive a fork" in submitted
    assert "do not survive a fork" in run
    assert name == "aws-io-loop-0"


def square(number: int) -> tuple[int, int]:
    """On a loop of the worker's own."""

    async def main() -> int:
        await asyncio.sleep(0)
        return number * number

    return aws_io_async.run(main()), os.getpid()


def test_a_pool_of_processes_that_have_loops() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with ProcessPoolExecutor(2, mp_context=fork) as pool:  # type: ignore[arg-type] # fork's
            calls = [loop.run_in_executor(pool, square, number) for number in range(10)]
            results = await asyncio.gather(*calls)
        assert [result for result, _ in results] == [number * number for number in range(10)]
        assert os.getpid() not in {pid for _, pid in results}

    aws_io_async.run(main())
    FORKS.seen("its own works, and so does the parent's")


def test_a_loop_that_is_dropped_in_the_child_gives_no_warning() -> None:
    """It is the parent's to close."""
    loops = [EventLoop()]
    try:
        assert in_process(loops.clear) is None
        loops[0].run_until_complete(asyncio.sleep(0))
    finally:
        loops[0].close()
