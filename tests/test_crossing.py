"""Coroutines that one loop waits for while they run on another, on whatever kind of loops."""

import asyncio
import contextvars
import logging
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest

from aws_io_async import EventLoop
from aws_io_async.errors import AwsIoError, ErrorCode
from aws_io_async.event_loop._crossing import run_on
from aws_io_async.event_loop.group import EventLoopGroup
from tests import loops
from tests.socket_tools import raises, turns
from tests.streams import PATIENCE

variable: "contextvars.ContextVar[str]" = contextvars.ContextVar("variable", default="unset")

kinds = pytest.mark.parametrize("kind", loops.FACTORIES)


@pytest.fixture(params=loops.FACTORIES)
async def loop(request: pytest.FixtureRequest) -> AsyncIterator[asyncio.AbstractEventLoop]:
    """Another thread's."""
    async with EventLoopGroup(1, loop_factory=loops.FACTORIES[request.param]) as group:
        yield group.get_loop_at(0)


async def forever() -> None:
    await asyncio.get_running_loop().create_future()


async def test_it_runs_there(loop: asyncio.AbstractEventLoop) -> None:
    async def there() -> tuple[asyncio.AbstractEventLoop, str]:
        await asyncio.sleep(0)
        return asyncio.get_running_loop(), variable.get()

    variable.set("mine")
    assert await run_on(loop, there()) == (loop, "mine")


async def test_it_runs_on_the_callers_own_loop() -> None:
    async def here() -> asyncio.AbstractEventLoop:
        return asyncio.get_running_loop()

    mine = asyncio.get_running_loop()
    assert await run_on(mine, here()) is mine


async def test_what_it_raises(loop: asyncio.AbstractEventLoop) -> None:
    async def fail() -> None:
        raise ZeroDivisionError("on purpose")

    with pytest.raises(ZeroDivisionError, match="on purpose"):
        await run_on(loop, fail())


@pytest.mark.parametrize("count", [1, 2, 3, 5])
async def test_a_cancellation_comes_after_the_first_step(
    loop: asyncio.AbstractEventLoop, count: int
) -> None:
    """As with a coroutine that is awaited: what it does before it waits is done in any case."""
    did = []

    async def begin() -> None:
        did.append("begun")
        try:
            await forever()
        finally:
            did.append("ended")

    for _ in range(50):
        did.clear()
        caller = asyncio.create_task(run_on(loop, begin()))
        await turns(count)
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller
        assert did == ["begun", "ended"]


async def test_a_result_that_came_too_late_is_undone(loop: asyncio.AbstractEventLoop) -> None:
    undone: list[str] = []

    async def stubborn() -> str:
        try:
            await forever()
        except asyncio.CancelledError:
            pass
        return "too late"

    caller = asyncio.create_task(run_on(loop, stubborn(), undone.append))
    await turns(3)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert undone == ["too late"]


async def test_cancelled_again_and_again_it_wakes_the_caller_once(
    loop: asyncio.AbstractEventLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What comes from the other thread must not pile up."""
    mine = asyncio.get_running_loop()
    wake_ups: list[object] = []
    call_soon_threadsafe = mine.call_soon_threadsafe

    def noted(*args: Any, **options: Any) -> Any:
        wake_ups.append(args)
        return call_soon_threadsafe(*args, **options)

    monkeypatch.setattr(mine, "call_soon_threadsafe", noted)
    may_end = asyncio.Event()

    async def clean_up() -> None:
        try:
            await forever()
        finally:
            await may_end.wait()

    caller = asyncio.create_task(run_on(loop, clean_up()))
    await turns(3)
    for _ in range(200):
        caller.cancel()
        await asyncio.sleep(0)
    loop.call_soon_threadsafe(may_end.set)
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert 1 <= len(wake_ups) <= 2  # the future of before the cancellation, and that of after it


@pytest.mark.loops("aws_io_async")  # which counts its turns
async def test_an_anyio_scope_does_not_keep_the_loop_busy(
    loop: asyncio.AbstractEventLoop,
) -> None:
    """Or the other thread would clean up for seconds, without the interpreter."""
    mine = asyncio.get_running_loop()
    assert isinstance(mine, EventLoop)

    async def clean_up() -> None:
        try:
            await forever()
        finally:
            await asyncio.sleep(0.05)

    with anyio.move_on_after(0.01) as scope:
        before = mine.statistics().turns
        await run_on(loop, clean_up())
    assert scope.cancelled_caught
    assert mine.statistics().turns < before + 50


async def test_timeouts_of_asyncio_and_anyio(loop: asyncio.AbstractEventLoop) -> None:
    """Both know their own cancellation again when it comes back, whatever the cleaning up took."""

    async def clean_up() -> None:
        try:
            await forever()
        finally:
            await turns(20)

    for coroutine in forever, clean_up:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await run_on(loop, coroutine())
        with pytest.raises(TimeoutError), anyio.fail_after(0.01):
            await run_on(loop, coroutine())
        with anyio.move_on_after(0.01) as scope:
            await run_on(loop, coroutine())
        assert scope.cancelled_caught
    task = asyncio.current_task()
    assert task is not None
    assert not task.cancelling()


async def test_cancelled_there(loop: asyncio.AbstractEventLoop) -> None:
    async def give_up() -> None:
        raise asyncio.CancelledError

    with raises(ErrorCode.ERROR_IO_OPERATION_CANCELLED):
        await run_on(loop, give_up())


async def test_a_loop_that_is_closed() -> None:
    group = EventLoopGroup(1)
    loop = group.get_loop_at(0)
    await group.aclose()
    with raises(ErrorCode.IO_EVENT_LOOP_SHUTDOWN):
        await run_on(loop, forever())


@kinds
async def test_nothing_hangs_when_a_group_shuts_down(
    kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    """At whichever point of that a coroutine comes: it is cancelled, or it is refused."""
    with caplog.at_level(logging.ERROR):
        for _ in range(20):
            group = EventLoopGroup(1, loop_factory=loops.FACTORIES[kind])
            loop = group.get_loop_at(0)
            callers = [asyncio.create_task(run_on(loop, forever()))]
            await turns(2)
            closing = asyncio.create_task(group.aclose())
            while not callers[-1].done():  # refused, as all that follow would be
                callers.append(asyncio.create_task(run_on(loop, forever())))
                await asyncio.sleep(0.001)  # or the other thread would get no turn
            async with asyncio.timeout(PATIENCE):
                errors = await asyncio.gather(*callers, return_exceptions=True)
                await closing
            for error in errors:
                assert isinstance(error, AwsIoError)
                assert error.code in (
                    ErrorCode.ERROR_IO_OPERATION_CANCELLED,
                    ErrorCode.IO_EVENT_LOOP_SHUTDOWN,
                )
    assert not caplog.records  # of tasks that were destroyed before their end
