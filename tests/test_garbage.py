"""Loops, child processes and lookups that have ended are freed with the last reference to them.

Programs that turn the garbage collector off, or make a loop a call, would grow otherwise.
Transports have tests of this beside their others.
"""

import asyncio
import gc
import os
import signal
import socket
import sys
import threading
import weakref
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from aws_io_async import EventLoop
from aws_io_async.event_loop.io_handle import IoEvents, IoHandle
from aws_io_async.event_loop.tasks import Task
from tests import children, pollers
from tests.bootstraps import PATIENCE
from tests.recorders import Recorder
from tests.tls_transports import nonblocking_pair


@pytest.fixture(autouse=True)
def no_collector() -> Iterator[None]:
    gc.disable()
    yield
    gc.enable()


async def numbers() -> AsyncIterator[int]:
    yield 1
    yield 2


async def use_all_parts() -> None:
    loop: Any = asyncio.get_running_loop()
    await asyncio.to_thread(int)
    await loop.getaddrinfo("localhost", 80)
    await anext(aiter(numbers()))  # left to `shutdown_asyncgens`
    loop.add_signal_handler(signal.SIGUSR1, int)
    near, far = nonblocking_pair()
    far.close()
    _, protocol = await loop.create_connection(Recorder, sock=near)
    await protocol.has("lost")
    await asyncio.sleep(0)


def use_crt_parts(loop: EventLoop) -> None:
    ran = threading.Event()
    loop.run()
    loop.schedule_task_now(Task(lambda _task, _status: ran.set()))
    assert ran.wait(30)
    loop.stop()
    loop.wait_for_stop_completion()
    reading, writing = os.pipe()
    handle = IoHandle(reading)
    loop.subscribe_to_io_events(handle, IoEvents.READABLE, lambda *_: None)
    loop.unsubscribe_from_io_events(handle)
    os.close(reading)
    os.close(writing)
    loop.schedule_task_future(Task(lambda _task, _status: None), 2**62)
    loop.put_local_object("key", "value")


@pytest.mark.parametrize("kind", [*pollers.OURS, "asyncio"])
@pytest.mark.parametrize("used", [False, True])
def test_a_closed_loop(kind: str, used: bool) -> None:
    def use_a_loop() -> "weakref.ref[asyncio.AbstractEventLoop]":
        with pollers.open_loop(kind) as loop:
            if used:
                loop.run_until_complete(use_all_parts())
                loop.run_until_complete(loop.shutdown_asyncgens())
                loop.run_until_complete(loop.shutdown_default_executor())
                if isinstance(loop, EventLoop):
                    use_crt_parts(loop)
            return weakref.ref(loop)

    assert use_a_loop()() is None


def test_a_closed_loop_still_says_what_it_is(ours: EventLoop) -> None:
    ours.close()
    for misuse in (
        lambda: ours.call_soon(int),
        lambda: ours.run_in_executor(None, int),
        lambda: ours.add_signal_handler(signal.SIGUSR1, int),
        lambda: ours.schedule_task_now(Task(lambda _task, _status: None)),
        lambda: ours.subscribe_to_io_events(IoHandle(0), IoEvents.READABLE, lambda *_: None),
        ours.run,
    ):
        with pytest.raises(RuntimeError, match="closed"):
            misuse()
    ours.close()
    ours.wait_for_stop_completion()


class Keeper(children.Recorder):
    transport: asyncio.BaseTransport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport


@pytest.mark.loops("aws_io_async")
async def test_subprocesses() -> None:
    async def use_one() -> "weakref.ref[asyncio.SubprocessTransport]":
        loop = asyncio.get_running_loop()
        transport, protocol = await loop.subprocess_exec(Keeper, sys.executable, "-S", "-c", "")
        await protocol.closed
        assert protocol.transport is transport
        return weakref.ref(transport)

    known = await use_one()
    await asyncio.sleep(0)
    assert known() is None


@pytest.mark.loops("aws_io_async")
async def test_lookups_that_fail() -> None:
    loop, freed = asyncio.get_running_loop(), asyncio.Event()

    async def look_up() -> "weakref.ref[socket.gaierror]":
        try:
            await loop.getaddrinfo("name.invalid", 80)
        except socket.gaierror as error:
            return weakref.ref(error, lambda _: loop.call_soon_threadsafe(freed.set))
        raise AssertionError("there is such a name")

    known = await look_up()
    async with asyncio.timeout(PATIENCE):
        await freed.wait()  # the thread that looked it up lets go of it, too
    assert known() is None
