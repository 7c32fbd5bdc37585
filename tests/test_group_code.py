"""Running code on the loops of a group, from threads and from other loops."""

import asyncio
import contextvars
import gc
import threading
import weakref
from collections.abc import Iterator
from typing import Any

import pytest

from aws_io_async import new_event_loop
from aws_io_async.event_loop.group import EventLoopGroup
from tests import loops
from tests.test_group import forever, here, new_group


@pytest.fixture(params=list(loops.FACTORIES))
def group(request: pytest.FixtureRequest) -> Iterator[EventLoopGroup]:
    with new_group(request.param) as group:
        yield group


async def fail() -> None:
    await asyncio.sleep(0)
    raise ZeroDivisionError("on purpose")


class TestSubmit:
    def test_the_result(self, group: EventLoopGroup) -> None:
        loop, _ = group.submit(here()).result()
        assert loop in list(group)

    def test_on_a_given_loop(self, group: EventLoopGroup) -> None:
        for loop in group:
            assert group.submit(here(), loop).result()[0] is loop

    def test_the_exception(self, group: EventLoopGroup) -> None:
        with pytest.raises(ZeroDivisionError, match="on purpose"):
            group.submit(fail()).result()

    def test_cancelling_the_future_cancels_the_task(self, group: EventLoopGroup) -> None:
        started, ended = threading.Event(), threading.Event()

        async def wait() -> None:
            started.set()
            try:
                await forever()
            finally:
                ended.set()

        future = group.submit(wait())
        started.wait()
        assert future.cancel()
        ended.wait()

    def test_the_caller_s_context_is_copied(self, group: EventLoopGroup) -> None:
        variable = contextvars.ContextVar("variable", default="nothing")
        variable.set("the caller's")

        async def look() -> str:
            seen = variable.get()
            variable.set("the task's")
            return seen

        assert group.submit(look()).result() == "the caller's"
        assert variable.get() == "the caller's"

    def test_a_task_lives_on_when_its_future_is_dropped(self, group: EventLoopGroup) -> None:
        """Nobody else has it: it waits for something that only it knows."""
        waiting, ended = threading.Event(), threading.Event()
        known: list[weakref.ref[asyncio.Future[None]]] = []

        async def wait() -> None:
            waiter = asyncio.get_running_loop().create_future()
            known.append(weakref.ref(waiter))
            waiting.set()
            await waiter
            ended.set()

        group.submit(wait(), group.get_loop_at(0))
        waiting.wait()
        gc.collect()
        waiter = known[0]()
        assert waiter is not None
        group.get_loop_at(0).call_soon_threadsafe(waiter.set_result, None)
        ended.wait()

    def test_what_is_done_is_let_go(self, group: EventLoopGroup) -> None:
        future = group.submit(here())
        future.result()
        for loop in group:  # then the callbacks of the future have run, too
            group.submit(here(), loop).result()
        known = weakref.ref(future)
        del future
        gc.collect()
        assert known() is None

    def test_no_coroutine(self, group: EventLoopGroup) -> None:
        with pytest.raises(TypeError, match=r"a coroutine is needed, what f\(\) returns"):
            group.submit(here)  # type: ignore[arg-type]  # on purpose

    def test_a_loop_of_others(self, group: EventLoopGroup) -> None:
        loop = new_event_loop()
        with pytest.raises(ValueError, match="is not a loop of <EventLoopGroup"):
            group.submit(here(), loop)
        loop.close()

    @pytest.mark.parametrize("end", [SystemExit, KeyboardInterrupt])
    def test_a_task_that_ends_the_program_does_not_end_its_loop(
        self, group: EventLoopGroup, caplog: pytest.LogCaptureFixture, end: type[BaseException]
    ) -> None:
        async def leave() -> None:
            raise end(3)

        loop = group.get_loop_at(0)
        with pytest.raises(end, match="3"):
            group.submit(leave(), loop).result()
        assert group.submit(here(), loop).result()[0] is loop
        assert f"aws-io-loop-0 goes on after {end.__name__}(3)" in caplog.text

    def test_a_loop_that_somebody_stops_goes_on(
        self, group: EventLoopGroup, caplog: pytest.LogCaptureFixture
    ) -> None:
        loop = group.get_loop_at(1)
        loop.call_soon_threadsafe(loop.stop)
        assert group.submit(here(), loop).result()[0] is loop
        assert group.submit(here(), loop).result()[0] is loop
        assert "aws-io-loop-1 goes on after a call of its loop's stop()" in caplog.text


class TestRun:
    """The awaiting loop is each of the three in turn, the group's as well."""

    async def test_the_result(self, group: EventLoopGroup) -> None:
        loop, _ = await group.run(here())
        assert loop in list(group)
        for loop in group:
            assert (await group.run(here(), loop))[0] is loop

    async def test_the_exception(self, group: EventLoopGroup) -> None:
        with pytest.raises(ZeroDivisionError, match="on purpose"):
            await group.run(fail())

    async def test_many_at_once(self, group: EventLoopGroup) -> None:
        async def double(n: int) -> int:
            await asyncio.sleep(0)
            return 2 * n

        results = await asyncio.gather(*(group.run(double(n)) for n in range(100)))
        assert results == [2 * n for n in range(100)]

    async def test_a_cancellation_waits_for_the_end(self, group: EventLoopGroup) -> None:
        did: list[str] = []
        started = asyncio.Event()
        loop = asyncio.get_running_loop()

        async def clean_up() -> None:
            loop.call_soon_threadsafe(started.set)
            try:
                await forever()
            finally:
                await asyncio.sleep(0.02)
                did.append("cleaned up")

        task = asyncio.create_task(group.run(clean_up()))
        await started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert did == ["cleaned up"]

    async def test_a_timeout(self, group: EventLoopGroup) -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await group.run(forever())

    async def test_cancelled_before_it_began(self, group: EventLoopGroup) -> None:
        task = asyncio.create_task(group.run(forever()))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    async def test_a_coroutine_that_outlives_its_cancellation(self, group: EventLoopGroup) -> None:
        """Its result is dropped: whoever cancels a caller must see the caller end."""
        started = asyncio.Event()
        loop = asyncio.get_running_loop()

        async def stubborn() -> str:
            loop.call_soon_threadsafe(started.set)
            try:
                await forever()
            except asyncio.CancelledError:
                pass
            return "done"

        task = asyncio.create_task(group.run(stubborn()))
        await started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    async def test_a_coroutine_that_fails_at_its_cancellation(self, group: EventLoopGroup) -> None:
        async def fails() -> None:
            try:
                await forever()
            finally:
                await fail()

        with pytest.raises(ZeroDivisionError, match="on purpose"):
            async with asyncio.timeout(0.05):
                await group.run(fails())

    async def test_a_coroutine_that_cancels_itself(self, group: EventLoopGroup) -> None:
        async def give_up() -> None:
            raise asyncio.CancelledError

        with pytest.raises(asyncio.CancelledError):
            await group.run(give_up())

    async def test_no_coroutine(self, group: EventLoopGroup) -> None:
        with pytest.raises(TypeError, match="a coroutine is needed"):
            await group.run(here)  # type: ignore[arg-type]  # on purpose

    async def test_a_loop_that_makes_no_task(self, group: EventLoopGroup) -> None:
        def factory(*_: object, **__: object) -> Any:
            raise ZeroDivisionError("on purpose")

        loop = group.get_loop_at(0)
        loop.set_task_factory(factory)
        with pytest.raises(ZeroDivisionError, match="on purpose"):
            await group.run(here(), loop)
        loop.set_task_factory(None)
