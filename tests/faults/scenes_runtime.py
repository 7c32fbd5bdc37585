"""Scenes: pipes, children, the ends of servers, and what a loop runs."""

import asyncio
import io
import os
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aws_io_async
from aws_io_async.event_loop.group import EventLoopGroup
from tests.faults.cancellation import How, Injection
from tests.faults.scenes import (
    ASYNCIO,
    DATA,
    OURS_ALONE,
    Ends,
    end,
    ended,
    injected,
    note,
    running,
    scene,
)
from tests.faults.scenes_loop import connected_to

# Pipes and children


@scene("EventLoop.connect_read_pipe", "EventLoop.connect_write_pipe", others=ASYNCIO)
async def connect_pipes(inject: Injection) -> None:
    """Cancelled, they close their end; uvloop does so later than it says."""
    reading, writing = os.pipe()
    made: list[Ends] = []
    with io.FileIO(reading, "r") as source, io.FileIO(writing, "w") as sink:
        reader = await inject(running().connect_read_pipe(lambda: note(made), source))
        writer = await inject(running().connect_write_pipe(lambda: note(made), sink))
        if not writer.cancelled:
            await end(*writer.result)
        if not reader.cancelled:
            await end(*reader.result)
        await ended(made)


class Child(asyncio.SubprocessProtocol):
    def __init__(self) -> None:
        self.ended: asyncio.Future[None] = running().create_future()

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended.set_result(None)


@scene("EventLoop.subprocess_exec", others=ASYNCIO)
async def subprocess_exec(inject: Injection) -> None:
    """A child that runs until it is killed: a cancelled call has killed and reaped it."""
    outcome = await inject(running().subprocess_exec(Child, "sleep", "1000"))
    if outcome.cancelled:
        await check_no_child(inject)
    else:
        transport, protocol = outcome.result
        transport.close()
        await protocol.ended


async def check_no_child(inject: Injection) -> None:
    """None is there; or soon, if the wait for its end was cancelled as well."""
    while hasattr(os, "waitid"):
        try:
            os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)  # noqa: ASYNC222  no wait
        except ChildProcessError:
            return
        assert inject.how is How.AGAIN, "a child was left"
        await asyncio.sleep(0.001)


@scene("EventLoop.subprocess_shell", others=ASYNCIO)
async def subprocess_shell(inject: Injection) -> None:
    outcome = await inject(running().subprocess_shell(Child, "exec sleep 1000"))
    if outcome.cancelled:
        await check_no_child(inject)
    else:
        transport, protocol = outcome.result
        transport.close()
        await protocol.ended


@scene()
async def subprocess_wait(inject: Injection) -> None:
    """By asyncio's `Process`."""
    child = await asyncio.create_subprocess_exec("cat", stdin=-1)
    assert child.stdin is not None
    assert await injected(inject, child.wait, child.stdin.close) == 0


@scene()
async def subprocess_communicate(inject: Injection) -> None:
    child = await asyncio.create_subprocess_exec("cat", stdin=-1, stdout=-1)
    outcome = await inject(child.communicate(DATA))
    if outcome.cancelled:
        assert child.stdin is not None
        child.stdin.close()
    await child.wait()
    assert outcome.cancelled or outcome.result[0] == DATA


# Servers


@scene("Server.start_serving")
async def start_serving(inject: Injection) -> None:
    serving = await running().create_server(Ends, "127.0.0.1", 0, start_serving=False)
    await injected(inject, serving.start_serving)
    assert serving.is_serving()
    serving.close()


@scene("Server.serve_forever", others=OURS_ALONE)
async def serve_forever(inject: Injection) -> None:
    """Its end is always a cancellation: if not of ours, of its `close`."""
    serving = await running().create_server(Ends, "127.0.0.1", 0)
    try:
        await inject(closed(serving), serving.close)
    finally:
        assert not serving.sockets


async def closed(serving: Any) -> None:
    task = asyncio.current_task()
    assert task is not None
    try:
        await serving.serve_forever()
    except asyncio.CancelledError:
        if task.cancelling():
            raise


@scene("Server.wait_closed", others=OURS_ALONE)
async def server_wait_closed(inject: Injection) -> None:
    protocols: list[Ends] = []
    serving = await running().create_server(lambda: note(protocols), "127.0.0.1", 0)
    async with connected_to(serving.sockets[0].getsockname()) as (transport, protocol):
        serving.close()
        await inject(serving.wait_closed(), transport.close)
    await protocol.ended
    await serving.wait_closed()
    await ended(protocols)


# What runs


@scene("Runtime.run_in_executor", others=ASYNCIO)
async def run_in_executor(inject: Injection) -> None:
    async def run() -> int:
        size: int = await running().run_in_executor(None, len, DATA)
        return size

    assert await injected(inject, run) == len(DATA)


@scene("Runtime.create_task", "Runtime.create_future")
async def tasks_and_futures(inject: Injection) -> None:
    future = running().create_future()

    async def wait() -> bytes:
        result: bytes = await asyncio.shield(future)
        return result

    async def call() -> bytes:
        result: bytes = await running().create_task(wait())
        return result

    assert await injected(inject, call, lambda: future.set_result(DATA)) == DATA


async def on_a_loop_of_its_own(inject: Injection, body: Callable[[], Awaitable[object]]) -> None:
    """Run what is the last thing that a loop does."""

    async def run() -> None:
        await body()

    def run_on_new_loop() -> None:
        with asyncio.Runner(loop_factory=aws_io_async.new_event_loop) as runner:
            runner.run(run())

    await asyncio.to_thread(run_on_new_loop)


@scene("Runtime.shutdown_asyncgens", others=OURS_ALONE)
async def shutdown_asyncgens(inject: Injection) -> None:
    """Cancelled, it has closed all generators that clean up at once; others end by themselves."""
    closed: list[int] = []

    async def numbers(number: int) -> AsyncIterator[int]:
        try:
            yield number
        finally:
            closed.append(number)
            await asyncio.sleep(0)

    async def body() -> None:
        generators = [numbers(number) for number in range(2)]
        for generator in generators:
            await anext(generator)
        outcome = await inject(running().shutdown_asyncgens())
        assert outcome.cancelled or sorted(closed) == [0, 1]

    await on_a_loop_of_its_own(inject, body)
    assert sorted(closed) == [0, 1]


@scene("Runtime.shutdown_default_executor", others=OURS_ALONE)
async def shutdown_default_executor(inject: Injection) -> None:
    """Cancelled, it leaves the threads to end by themselves."""

    async def body() -> None:
        await running().run_in_executor(None, len, DATA)
        await inject(running().shutdown_default_executor())

    await on_a_loop_of_its_own(inject, body)


@scene("EventLoopGroup.submit", others=OURS_ALONE)
async def submit(inject: Injection) -> None:
    """To cancel its future cancels the task."""
    begun, ended = threading.Event(), threading.Event()

    async def work() -> None:
        begun.set()
        try:
            await asyncio.sleep(0.001)
        finally:
            ended.set()

    async def call() -> None:
        await asyncio.wrap_future(group.submit(work()))

    async with EventLoopGroup(1) as group:
        await inject(call())
        await group.run(asyncio.sleep(0))
    assert begun.is_set() == ended.is_set()  # it may have been cancelled before it began
