"""Futures that tasks wait for: on one loop or many, cancelled or not."""

import asyncio
import gc
import threading
import traceback
from collections.abc import Awaitable
from typing import Any

import pytest

from aws_io_async.errors import OperationCancelledError
from aws_io_async.future import Promise
from tests import loops


async def turns(count: int = 3) -> None:
    """Let everything run that can run."""
    for _ in range(count):
        await asyncio.sleep(0)


async def get(awaitable: Awaitable[Any]) -> Any:
    return await awaitable


async def test_a_result_from_another_thread() -> None:
    promise: Promise[str] = Promise()
    thread = threading.Thread(target=lambda: promise.set_result("from afar"))
    waiting = asyncio.create_task(get(promise.future))
    await turns()
    thread.start()
    assert await waiting == "from afar"
    thread.join()


async def test_a_result_from_the_loop_s_own_thread() -> None:
    promise: Promise[int] = Promise()
    asyncio.get_running_loop().call_soon(promise.set_result, 1)
    assert await promise.future == 1


def test_a_done_future_does_not_suspend() -> None:
    promise: Promise[int] = Promise()
    promise.set_result(7)
    for _ in range(2):
        with pytest.raises(StopIteration) as info:
            get(promise.future).send(None)
        assert info.value.value == 7


async def test_any_number_of_tasks_as_often_as_they_like() -> None:
    promise: Promise[int] = Promise()
    tasks = [asyncio.create_task(get(promise.future)) for _ in range(10)]
    await turns()
    promise.set_result(3)
    assert await asyncio.gather(*tasks) == [3] * 10
    assert await promise.future == 3
    assert await asyncio.wait_for(promise.future, 10) == 3
    assert await asyncio.gather(*[promise.future] * 2) == [3, 3]


def test_any_number_of_loops() -> None:
    promise: Promise[int] = Promise()
    factories = list(loops.FACTORIES.values()) * 2
    ready = threading.Barrier(len(factories) + 1)
    results: list[int] = []

    async def wait() -> None:
        waiting = asyncio.create_task(get(promise.future))
        await turns()
        ready.wait()  # every loop stops here until all have a task that waits
        results.append(await waiting)

    def run(factory: loops.Factory) -> None:
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(wait())

    threads = [threading.Thread(target=run, args=(factory,)) for factory in factories]
    for thread in threads:
        thread.start()
    ready.wait()
    promise.set_result(42)
    for thread in threads:
        thread.join()
    assert results == [42] * len(factories)


async def test_a_cancelled_waiter_leaves_the_others() -> None:
    promise: Promise[int] = Promise()
    tasks = [asyncio.create_task(get(promise.future)) for _ in range(3)]
    await turns()
    tasks[1].cancel()
    await asyncio.wait([tasks[1]])
    assert tasks[1].cancelled()
    assert not promise.future.done()
    promise.set_result(1)
    assert await tasks[0] == await tasks[2] == 1


async def test_a_result_for_a_waiter_that_is_cancelled_meanwhile_is_no_error() -> None:
    failures: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context))
    for cancel_first in (True, False):
        promise: Promise[int] = Promise()
        task = asyncio.create_task(get(promise.future))
        await turns()
        if cancel_first:
            task.cancel()
        promise.set_result(1)
        if not cancel_first:
            task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await turns()
        assert await promise.future == 1  # nothing is lost
    assert failures == []


async def test_a_timeout_leaves_the_future_as_it_was() -> None:
    promise: Promise[int] = Promise()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.001):
            await promise.future
    promise.set_result(8)
    async with asyncio.timeout(10):
        assert await promise.future == 8


async def test_exceptions_reach_every_task_with_their_own_traceback() -> None:
    promise: Promise[int] = Promise()
    tasks = [asyncio.create_task(get(promise.future)) for _ in range(3)]
    await turns()
    try:
        raise ConnectionResetError("reset by peer")
    except ConnectionResetError as exc:
        promise.set_exception(exc)
    lengths = set()
    for task in tasks:
        with pytest.raises(ConnectionResetError, match="reset by peer"):
            await task
    for _ in range(3):
        with pytest.raises(ConnectionResetError) as info:
            await promise.future
        frames = traceback.extract_tb(info.value.__traceback__)
        assert "raise ConnectionResetError" in (frames[-1].line or "")
        lengths.add(len(frames))
    assert len(lengths) == 1


async def test_a_producer_s_cancellation_does_not_cancel_who_waits() -> None:
    promise: Promise[int] = Promise()

    async def produce() -> None:
        try:
            await asyncio.get_running_loop().create_future()
        except BaseException as exc:
            promise.set_exception(exc)
            raise

    producer = asyncio.create_task(produce())
    await turns()
    producer.cancel()
    with pytest.raises(OperationCancelledError):
        async with asyncio.timeout(10):
            await promise.future
    await asyncio.wait([producer])


async def test_a_dropped_promise_fails_its_future() -> None:
    promise: Promise[int] = Promise()
    waiting = asyncio.create_task(get(promise.future))
    await turns()
    del promise
    with pytest.raises(OperationCancelledError, match="dropped"):
        await waiting


async def test_a_promise_that_only_the_collector_finds_fails_its_future() -> None:
    promise: Promise[int] = Promise()
    waiting = asyncio.create_task(get(promise.future))
    cycle: list[Any] = [promise]
    cycle.append(cycle)
    await turns()
    del promise, cycle
    gc.collect()
    with pytest.raises(OperationCancelledError, match="dropped"):
        await waiting


def test_a_task_that_was_abandoned_with_its_loop_does_not_hinder_the_result() -> None:
    promise: Promise[int] = Promise()
    loop = asyncio.SelectorEventLoop()
    loop.set_exception_handler(lambda *_: None)  # it will miss its task
    coroutine = get(promise.future)
    task = loop.create_task(coroutine)
    loop.run_until_complete(asyncio.sleep(0))
    task.cancel()
    loop.close()
    assert promise.set_result(1)
    coroutine.close()
    assert promise.future.result() == 1


async def test_without_a_loop_there_is_nothing_to_wait_on() -> None:
    promise: Promise[int] = Promise()
    errors: list[BaseException] = []

    def outside() -> None:
        try:
            get(promise.future).send(None)
        except RuntimeError as exc:
            errors.append(exc)

    thread = threading.Thread(target=outside)
    thread.start()
    thread.join()
    assert "no running event loop" in str(errors[0])
