"""What a loop runs: futures, tasks, executors, asynchronous generators, exceptions, debug mode."""

import asyncio
import contextvars
import gc
import logging
import socket
import sys
import threading
import time
import traceback
import weakref
from collections.abc import AsyncGenerator, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from typing import Any

import pytest

from aws_io_async import EventLoop, new_event_loop
from tests import loops
from tests.pollers import open_loop

Loop = asyncio.AbstractEventLoop
Errors = list[dict[str, Any]]


@pytest.fixture(params=list(loops.FACTORIES))
def loop(request: pytest.FixtureRequest) -> Iterator[Loop]:
    with open_loop(request.param) as loop:
        yield loop


@pytest.fixture
def ours() -> Iterator[EventLoop]:
    loop = new_event_loop()
    yield loop
    loop.close()


without_uvloop = pytest.mark.parametrize("loop", ["aws_io_async", "asyncio"], indirect=True)
"""For what uvloop really does otherwise; each test says what that is."""


def collect_errors(loop: Loop) -> Errors:
    errors: Errors = []
    loop.set_exception_handler(lambda _, context: errors.append(context))
    return errors


async def answer() -> int:
    await asyncio.sleep(0)
    return 42


async def fail() -> None:
    await asyncio.sleep(0)
    raise ZeroDivisionError("on purpose")


async def first_of(generator: AsyncGenerator[int, None]) -> int:
    return await anext(generator)


class TestRunUntilComplete:
    def test_a_coroutine(self, loop: Loop) -> None:
        assert loop.run_until_complete(answer()) == 42
        assert loop.run_until_complete(answer()) == 42

    def test_a_task_a_future_and_an_awaitable(self, loop: Loop) -> None:
        assert loop.run_until_complete(loop.create_task(answer())) == 42
        future = loop.create_future()
        loop.call_soon(future.set_result, 43)
        assert loop.run_until_complete(future) == 43

        class Awaitable:
            def __await__(self) -> Any:
                return answer().__await__()

        assert loop.run_until_complete(Awaitable()) == 42

    def test_a_future_that_is_done(self, loop: Loop) -> None:
        future = loop.create_future()
        future.set_result(1)
        assert loop.run_until_complete(future) == 1

    def test_the_exception_comes_out(self, loop: Loop) -> None:
        errors = collect_errors(loop)
        with pytest.raises(ZeroDivisionError, match="on purpose"):
            loop.run_until_complete(fail())
        gc.collect()
        assert errors == []

    @pytest.mark.parametrize("exception", [KeyboardInterrupt, SystemExit])
    def test_an_exit_comes_out_of_the_task(
        self, loop: Loop, exception: type[BaseException]
    ) -> None:
        errors = collect_errors(loop)

        async def leave() -> None:
            raise exception

        with pytest.raises(exception):
            loop.run_until_complete(leave())
        assert loop.run_until_complete(answer()) == 42  # nothing of it is left
        gc.collect()
        assert errors == []

    def test_an_exit_leaves_the_task_to_be_finished(self, loop: Loop) -> None:
        """How a runner gets to clean up after Ctrl-C."""
        seen: list[str] = []

        async def main() -> None:
            try:
                await asyncio.sleep(100)
            except asyncio.CancelledError:
                seen.append("cancelled")
                raise

        def interrupt() -> None:
            raise KeyboardInterrupt

        task = loop.create_task(main())
        loop.call_later(0.001, interrupt)
        with pytest.raises(KeyboardInterrupt):
            loop.run_until_complete(task)
        assert not task.done()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            loop.run_until_complete(task)
        assert seen == ["cancelled"]

    def test_stopped_before_it_is_done(self, loop: Loop) -> None:
        future = loop.create_future()
        loop.call_soon(loop.stop)
        with pytest.raises(RuntimeError, match="Event loop stopped before Future completed"):
            loop.run_until_complete(future)
        future.set_result(None)  # has no callback left that would stop the loop
        loop.call_soon(future.add_done_callback, lambda _: loop.call_soon(loop.stop))
        loop.run_forever()

    def test_a_future_of_another_loop(self, loop: Loop) -> None:
        other = asyncio.SelectorEventLoop()
        future = other.create_future()
        with pytest.raises(ValueError, match="loop"):
            loop.run_until_complete(future)
        other.close()

    @pytest.mark.parametrize("wrong", [None, 3, "x", print])
    def test_what_cannot_be_awaited(self, loop: Loop, wrong: Any) -> None:
        with pytest.raises(TypeError):
            loop.run_until_complete(wrong)

    def test_on_a_closed_loop(self, loop: Loop) -> None:
        loop.close()
        coroutine = answer()
        with pytest.raises(RuntimeError, match="Event loop is closed"):
            loop.run_until_complete(coroutine)
        coroutine.close()

    async def test_inside_a_running_loop(self) -> None:
        for loop in (asyncio.get_running_loop(), asyncio.SelectorEventLoop()):
            coroutine = answer()
            with pytest.raises(RuntimeError, match="running"):
                loop.run_until_complete(coroutine)
            coroutine.close()
            if loop is not asyncio.get_running_loop():
                loop.close()

    @pytest.mark.loops("aws_io_async", "asyncio")  # uvloop has a callback of its own
    async def test_the_root_task_is_known_by_asyncio_s_callback(self) -> None:
        """anyio finds it so; pytest-asyncio's runner called `run_until_complete` for this test."""
        callback = asyncio.base_events._run_until_complete_cb  # type: ignore[attr-defined]
        task = asyncio.current_task()
        callbacks = [found for found, _ in task._callbacks]  # type: ignore[union-attr]
        assert callback in callbacks


class TestTasks:
    async def test_name_and_loop(self) -> None:
        loop = asyncio.get_running_loop()
        task = loop.create_task(answer(), name="named")
        assert task.get_name() == "named"
        assert task.get_loop() is loop
        assert task in asyncio.all_tasks()
        assert await task == 42
        assert task not in asyncio.all_tasks()

    async def test_context(self) -> None:
        var: contextvars.ContextVar[int] = contextvars.ContextVar("var", default=0)

        async def change() -> None:
            var.set(var.get() + 1)

        loop = asyncio.get_running_loop()
        context = contextvars.Context()
        await loop.create_task(change(), context=context)
        await loop.create_task(change(), context=context)
        await loop.create_task(change())
        assert context[var] == 2
        assert var.get() == 0

    async def test_cancellation(self) -> None:
        task = asyncio.get_running_loop().create_task(asyncio.sleep(100))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    async def test_task_groups_and_timeouts(self) -> None:
        with pytest.raises(ExceptionGroup) as caught:
            async with asyncio.TaskGroup() as group:
                group.create_task(asyncio.sleep(100))
                group.create_task(fail())
        assert isinstance(caught.value.exceptions[0], ZeroDivisionError)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.001):
                await asyncio.sleep(100)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.sleep(100), 0.001)

    def test_a_closed_loop_makes_none(self, loop: Loop) -> None:
        loop.close()
        coroutine = answer()
        with pytest.raises(RuntimeError, match="Event loop is closed"):
            loop.create_task(coroutine)
        coroutine.close()

    def test_what_is_no_coroutine(self, loop: Loop) -> None:
        with pytest.raises(TypeError, match="coroutine"):
            loop.create_task(print)  # type: ignore[arg-type]  # that is the test

    async def test_an_exception_that_nobody_asks_for(self) -> None:
        loop = asyncio.get_running_loop()
        errors = collect_errors(loop)
        task = loop.create_task(fail())
        await asyncio.wait([task])
        del task
        gc.collect()
        loop.set_exception_handler(None)
        assert [context["message"] for context in errors] == ["Task exception was never retrieved"]
        assert isinstance(errors[0]["exception"], ZeroDivisionError)

    async def test_a_task_destroyed_while_it_is_pending(self) -> None:
        loop = asyncio.get_running_loop()
        errors = collect_errors(loop)

        async def wait_for_nobody() -> None:
            await loop.create_future()

        task = loop.create_task(wait_for_nobody())
        await asyncio.sleep(0)
        await asyncio.sleep(0)  # the turn in which it ran is over
        del task
        gc.collect()
        loop.set_exception_handler(None)
        assert [c["message"] for c in errors] == ["Task was destroyed but it is pending!"]


class TestTaskFactories:
    async def test_one_that_makes_the_tasks(self) -> None:
        loop = asyncio.get_running_loop()
        made: list[asyncio.Task[Any]] = []

        class MyTask(asyncio.Task[Any]):
            pass

        def factory(loop: Loop, coro: Any, **kwargs: Any) -> asyncio.Task[Any]:
            task = MyTask(coro, loop=loop, **kwargs)
            made.append(task)
            return task

        assert loop.get_task_factory() is None
        loop.set_task_factory(factory)
        assert loop.get_task_factory() is factory
        task = loop.create_task(answer(), name="named")
        assert type(task) is MyTask
        assert made == [task]
        assert task.get_name() == "named"
        assert await task == 42
        loop.set_task_factory(None)
        task = loop.create_task(answer())
        assert type(task) is asyncio.Task
        await task

    async def test_the_context_reaches_it(self) -> None:
        loop = asyncio.get_running_loop()
        got: list[dict[str, Any]] = []

        def factory(loop: Loop, coro: Any, **kwargs: Any) -> asyncio.Task[Any]:
            got.append({key: value for key, value in kwargs.items() if value is not None})
            return asyncio.Task(coro, loop=loop, **kwargs)

        loop.set_task_factory(factory)
        context = contextvars.Context()
        await loop.create_task(answer())
        await loop.create_task(answer(), context=context)
        loop.set_task_factory(None)
        assert got == [{}, {"context": context}]

    @pytest.mark.loops("aws_io_async", "asyncio")  # uvloop passes more on
    async def test_one_of_the_old_kind(self) -> None:
        """It takes a loop and a coroutine, and no more."""
        loop = asyncio.get_running_loop()

        def factory(loop: Loop, coro: Any) -> asyncio.Task[Any]:
            return asyncio.Task(coro, loop=loop)

        loop.set_task_factory(factory)
        task = loop.create_task(answer())
        loop.set_task_factory(None)
        assert await task == 42

    def test_what_cannot_be_called(self, loop: Loop) -> None:
        with pytest.raises(TypeError, match="callable"):
            loop.set_task_factory("x")  # type: ignore[arg-type]  # that is the test

    @pytest.mark.skipif(sys.version_info < (3, 12), reason="Python 3.12 has eager tasks")
    @pytest.mark.loops("aws_io_async", "asyncio")  # uvloop's tasks are another matter
    async def test_eager_tasks(self) -> None:
        loop = asyncio.get_running_loop()
        ran: list[str] = []

        async def at_once() -> str:
            ran.append("ran")
            return "result"

        async def with_a_wait() -> str:
            ran.append("began")
            await asyncio.sleep(0)
            ran.append("ended")
            return "result"

        factory: Any = getattr(asyncio, "eager_task_factory")  # noqa: B009  # not in 3.11
        loop.set_task_factory(factory)
        try:
            done = loop.create_task(at_once(), name="eager")
            assert done.done()
            assert done.get_name() == "eager"
            assert ran == ["ran"]
            waiting = loop.create_task(with_a_wait())
            assert ran == ["ran", "began"]
            assert not waiting.done()
            assert await waiting == await done == "result"
            async with asyncio.TaskGroup() as group:
                in_group = group.create_task(at_once())
            assert in_group.result() == "result"
        finally:
            loop.set_task_factory(None)

    @pytest.mark.skipif(sys.version_info < (3, 12), reason="Python 3.12 has eager tasks")
    @pytest.mark.loops("aws_io_async")  # asyncio's, too, from Python 3.14 on
    @pytest.mark.parametrize("name", [None, "eager"])
    async def test_a_failed_eager_task_is_in_no_cycle(self, name: str | None) -> None:
        async def at_once() -> None:
            raise ZeroDivisionError("on purpose")

        loop = asyncio.get_running_loop()
        factory: Any = getattr(asyncio, "eager_task_factory")  # noqa: B009  # not in 3.11
        loop.set_task_factory(factory)
        gc.disable()
        try:
            task = loop.create_task(at_once(), name=name)
            assert isinstance(task.exception(), ZeroDivisionError)
            left = weakref.ref(task)
            del task
            assert left() is None
        finally:
            gc.enable()
            loop.set_task_factory(None)

    @pytest.mark.skipif(sys.version_info < (3, 14), reason="Python 3.14 has eager_start")
    async def test_eager_start(self) -> None:
        async def at_once() -> int:
            return 1

        create_task: Any = asyncio.get_running_loop().create_task
        assert create_task(at_once(), eager_start=True).done()


class TestExecutor:
    async def test_results_and_exceptions(self) -> None:
        loop = asyncio.get_running_loop()
        thread = await loop.run_in_executor(None, threading.get_ident)
        assert thread != threading.get_ident()
        assert await loop.run_in_executor(None, divmod, 7, 3) == (2, 1)
        with pytest.raises(ZeroDivisionError):
            await loop.run_in_executor(None, divmod, 1, 0)
        assert await asyncio.to_thread(divmod, 7, 3) == (2, 1)

    async def test_one_of_the_caller_s(self) -> None:
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(1, thread_name_prefix="mine") as executor:
            name = await loop.run_in_executor(executor, lambda: threading.current_thread().name)
            assert name.startswith("mine")

    async def test_another_default(self) -> None:
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(1, thread_name_prefix="default"))
        name = await loop.run_in_executor(None, lambda: threading.current_thread().name)
        assert name.startswith("default")

    @without_uvloop  # it takes anything
    @pytest.mark.parametrize("wrong", [None, 3, ProcessPoolExecutor])
    def test_what_is_no_thread_pool(self, loop: Loop, wrong: Any) -> None:
        with pytest.raises(TypeError, match="ThreadPoolExecutor"):
            loop.set_default_executor(wrong)

    def test_on_a_closed_loop(self, loop: Loop) -> None:
        loop.close()
        with pytest.raises(RuntimeError, match="Event loop is closed"):
            loop.run_in_executor(None, print)

    def test_shutdown_waits_for_its_threads(self, loop: Loop) -> None:
        release = threading.Event()
        ended: list[str] = []

        def work() -> None:
            release.wait(30)
            ended.append("work")

        async def main() -> None:
            loop.run_in_executor(None, work)
            loop.call_later(0.01, release.set)
            await loop.shutdown_default_executor()
            assert ended == ["work"]
            with pytest.raises(RuntimeError, match="Executor shutdown has been called"):
                loop.run_in_executor(None, print)

        loop.run_until_complete(main())

    def test_shutdown_of_none(self, loop: Loop) -> None:
        loop.run_until_complete(loop.shutdown_default_executor())

    def test_shutdown_with_a_timeout(self, ours: EventLoop) -> None:
        """On every Python; asyncio has the argument from 3.12 on."""
        release = threading.Event()
        ours.run_in_executor(None, release.wait, 30)
        with pytest.warns(RuntimeWarning, match=r"within 0\.01 seconds"):
            ours.run_until_complete(ours.shutdown_default_executor(0.01))
        release.set()

    def test_shutdown_in_time(self, ours: EventLoop) -> None:
        ours.run_in_executor(None, int)
        ours.run_until_complete(ours.shutdown_default_executor(30))

    def test_a_cancelled_shutdown(self, ours: EventLoop) -> None:
        release = threading.Event()

        async def main() -> None:
            ours.run_in_executor(None, release.wait, 30)
            task = ours.create_task(ours.shutdown_default_executor())
            await asyncio.sleep(0.001)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

        ours.run_until_complete(main())
        ours.close()
        release.set()  # the thread that waits for it finds a closed loop, and ends without a word

    def test_an_executor_whose_shutdown_fails(self, ours: EventLoop) -> None:
        class Broken(ThreadPoolExecutor):
            def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
                super().shutdown(wait, cancel_futures=cancel_futures)
                if wait:
                    raise ZeroDivisionError("on purpose")

        ours.set_default_executor(Broken())
        with pytest.raises(ZeroDivisionError, match="on purpose"):
            ours.run_until_complete(ours.shutdown_default_executor())

    async def test_a_cancelled_call_is_not_run(self) -> None:
        loop = asyncio.get_running_loop()
        release = threading.Event()
        ran: list[int] = []
        with ThreadPoolExecutor(1) as executor:
            blocking = loop.run_in_executor(executor, release.wait, 30)
            future = loop.run_in_executor(executor, ran.append, 1)
            future.cancel()
            with pytest.raises(asyncio.CancelledError):
                await future
            await asyncio.sleep(0)  # a turn, in which the executor is told
            release.set()
            await blocking
        assert ran == []


class TestAsyncGenerators:
    async def generator(self, closed: list[str], name: str = "closed") -> AsyncGenerator[int, None]:
        try:
            for n in range(10):
                yield n
                await asyncio.sleep(0)
        finally:
            await asyncio.sleep(0)
            closed.append(name)

    def test_abandoned_ones_are_closed(self, loop: Loop) -> None:
        closed: list[str] = []

        async def main() -> None:
            async for _ in self.generator(closed):
                break
            gc.collect()
            for _ in range(5):
                await asyncio.sleep(0)
            assert closed == ["closed"]

        loop.run_until_complete(main())

    def test_shutdown_closes_those_that_are_alive(self, loop: Loop) -> None:
        closed: list[str] = []
        generators = [self.generator(closed, str(n)) for n in range(3)]

        async def main() -> None:
            for generator in generators:
                await anext(generator)

        loop.run_until_complete(main())
        assert closed == []
        loop.run_until_complete(loop.shutdown_asyncgens())
        assert sorted(closed) == ["0", "1", "2"]
        loop.run_until_complete(loop.shutdown_asyncgens())

    def test_one_that_fails_at_shutdown(self, loop: Loop) -> None:
        errors = collect_errors(loop)

        async def generator() -> AsyncGenerator[int, None]:
            try:
                yield 1
            finally:
                raise ZeroDivisionError("on purpose")

        failing = generator()
        loop.run_until_complete(first_of(failing))
        loop.run_until_complete(loop.shutdown_asyncgens())
        assert len(errors) == 1
        assert isinstance(errors[0]["exception"], ZeroDivisionError)
        assert errors[0]["asyncgen"] is failing
        assert "an error occurred during closing of asynchronous generator" in errors[0]["message"]

    def test_one_begun_after_shutdown(self, loop: Loop) -> None:
        loop.run_until_complete(loop.shutdown_asyncgens())
        closed: list[str] = []

        async def main() -> None:
            generator = self.generator(closed)
            with pytest.warns(ResourceWarning, match="was scheduled after"):
                await anext(generator)
            await generator.aclose()

        loop.run_until_complete(main())

    def test_the_hooks_are_restored(self, loop: Loop) -> None:
        def firstiter(generator: Any) -> None: ...

        before = sys.get_asyncgen_hooks()
        sys.set_asyncgen_hooks(firstiter=firstiter)
        try:
            loop.run_until_complete(answer())
            assert sys.get_asyncgen_hooks() == (firstiter, None)
        finally:
            sys.set_asyncgen_hooks(*before)

    def test_one_abandoned_after_its_loop_was_closed(self, loop: Loop) -> None:
        generator = self.generator([])
        loop.run_until_complete(first_of(generator))
        loop.close()
        del generator
        gc.collect()  # without a word


class TestExceptionHandlers:
    def test_the_default_logs(self, loop: Loop, caplog: pytest.LogCaptureFixture) -> None:
        assert loop.get_exception_handler() is None
        try:
            raise ZeroDivisionError("on purpose")
        except ZeroDivisionError as exc:
            loop.call_exception_handler({"message": "it failed", "exception": exc, "what": 7})
        assert caplog.records[0].name == "asyncio"
        assert caplog.records[0].levelno == logging.ERROR
        assert caplog.records[0].getMessage() == "it failed\nwhat: 7"
        assert "ZeroDivisionError: on purpose" in caplog.text

    def test_a_context_that_says_nothing(
        self, loop: Loop, caplog: pytest.LogCaptureFixture
    ) -> None:
        loop.call_exception_handler({})
        assert caplog.records[0].getMessage() == "Unhandled exception in event loop"
        assert not caplog.records[0].exc_info

    def test_an_exception_that_is_false(self, loop: Loop, caplog: pytest.LogCaptureFixture) -> None:
        """Some collect errors, and have a length."""

        class EmptyError(Exception):
            def __len__(self) -> int:
                return 0

        loop.call_exception_handler({"message": "it failed", "exception": EmptyError()})
        assert "EmptyError" in caplog.text

    def test_tracebacks_are_formatted(self, loop: Loop, caplog: pytest.LogCaptureFixture) -> None:
        loop.call_exception_handler(
            {"message": "it failed", "source_traceback": traceback.extract_stack()}
        )
        text = caplog.records[0].getMessage()
        assert "Object created at (most recent call last):" in text
        assert "test_tracebacks_are_formatted" in text

    def test_one_of_the_application_s(self, loop: Loop) -> None:
        got: list[tuple[Loop, dict[str, Any]]] = []

        def handler(loop: Loop, context: dict[str, Any]) -> None:
            got.append((loop, context))

        loop.set_exception_handler(handler)
        assert loop.get_exception_handler() is handler
        context = {"message": "it failed"}
        loop.call_exception_handler(context)
        assert got == [(loop, context)]
        loop.set_exception_handler(None)
        assert loop.get_exception_handler() is None

    def test_what_cannot_be_called(self, loop: Loop) -> None:
        with pytest.raises(TypeError, match="callable object or None"):
            loop.set_exception_handler("x")  # type: ignore[arg-type]  # that is the test

    def test_one_that_fails_itself(self, loop: Loop, caplog: pytest.LogCaptureFixture) -> None:
        def handler(loop: Loop, context: dict[str, Any]) -> None:
            raise ZeroDivisionError("in the handler")

        loop.set_exception_handler(handler)
        loop.call_exception_handler({"message": "it failed"})
        assert "Unhandled error in exception handler" in caplog.text
        assert "it failed" in caplog.text
        assert "in the handler" in caplog.text

    @pytest.mark.parametrize("exception", [KeyboardInterrupt, SystemExit])
    def test_one_that_exits(self, loop: Loop, exception: type[BaseException]) -> None:
        def handler(loop: Loop, context: dict[str, Any]) -> None:
            raise exception

        loop.set_exception_handler(handler)
        with pytest.raises(exception):
            loop.call_exception_handler({"message": "it failed"})

    def test_a_default_that_was_overridden_and_fails(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        class MyLoop(EventLoop):
            def default_exception_handler(self, context: dict[str, Any]) -> None:
                raise ZeroDivisionError("in the default")

        loop = MyLoop()
        loop.call_exception_handler({"message": "it failed"})
        loop.close()
        assert "Exception in default exception handler" in caplog.text
        assert "in the default" in caplog.text

    @pytest.mark.skipif(sys.version_info < (3, 12), reason="Python 3.12 has Task.get_context")
    @without_uvloop  # it runs the handler wherever it is
    def test_it_runs_in_the_context_of_what_failed(self, loop: Loop) -> None:
        var: contextvars.ContextVar[str] = contextvars.ContextVar("var", default="default")
        seen: list[str] = []
        loop.set_exception_handler(lambda *_: seen.append(var.get()))

        def failing() -> None:
            raise ZeroDivisionError

        context = contextvars.Context()
        context.run(var.set, "of the callback")
        loop.call_soon(failing, context=context)
        loop.run_until_complete(answer())
        assert seen == ["of the callback"]


class TestDebugMode:
    def test_off_by_default_and_switched_on_by_the_environment(
        self, monkeypatch: pytest.MonkeyPatch, ours: EventLoop
    ) -> None:
        assert ours.get_debug() is (sys.flags.dev_mode or False)
        monkeypatch.setenv("PYTHONASYNCIODEBUG", "1")
        loop = EventLoop()
        assert loop.get_debug() is not sys.flags.ignore_environment
        loop.close()

    @pytest.mark.parametrize("method", ["call_soon", "call_later", "call_at"])
    def test_a_call_from_the_wrong_thread(self, loop: Loop, method: str) -> None:
        loop.set_debug(True)
        errors: list[str] = []

        def schedule() -> None:
            arguments: tuple[Any, ...] = (print,) if method == "call_soon" else (0, print)
            try:
                getattr(loop, method)(*arguments)
            except RuntimeError as exc:
                errors.append(str(exc))

        async def main() -> None:
            thread = threading.Thread(target=schedule)
            thread.start()
            thread.join()

        loop.run_until_complete(main())
        assert len(errors) == 1
        assert "Non-thread-safe operation" in errors[0]

    def test_threads_may_schedule_while_it_does_not_run(self, loop: Loop) -> None:
        loop.set_debug(True)
        thread = threading.Thread(target=loop.call_soon, args=(int,))
        thread.start()
        thread.join()
        loop.run_until_complete(answer())

    @without_uvloop  # it looks at none of them
    @pytest.mark.parametrize("method", ["call_soon", "call_soon_threadsafe", "call_later"])
    def test_a_coroutine_is_no_callback(self, loop: Loop, method: str) -> None:
        loop.set_debug(True)
        coroutine = answer()
        leading = (0,) if method == "call_later" else ()
        for wrong in (coroutine, answer):
            with pytest.raises(TypeError, match="coroutines cannot be used with"):
                getattr(loop, method)(*leading, wrong)
        coroutine.close()
        with pytest.raises(TypeError, match="callable"):
            getattr(loop, method)(*leading, 3)

    def test_a_coroutine_for_the_executor(self, loop: Loop) -> None:
        loop.set_debug(True)
        with pytest.raises(TypeError, match="coroutines cannot be used with"):
            loop.run_in_executor(None, answer)

    def test_slow_callbacks_are_reported(
        self, loop: Loop, caplog: pytest.LogCaptureFixture
    ) -> None:
        loop.set_debug(True)
        loop.slow_callback_duration = 0.01
        loop.call_soon(time.sleep, 0.02)
        loop.run_until_complete(answer())
        reports = [r.getMessage() for r in caplog.records if "took" in r.getMessage()]
        assert len(reports) == 1
        assert "sleep" in reports[0]
        assert "Executing" in reports[0]
        assert float(reports[0].split("took ")[1].split()[0]) >= 0.02

    @without_uvloop  # it names the handle
    def test_a_slow_task_is_reported_by_name(
        self, loop: Loop, caplog: pytest.LogCaptureFixture
    ) -> None:
        async def slow() -> None:
            time.sleep(0.02)  # noqa: ASYNC251  # blocks, that is the test

        loop.set_debug(True)
        loop.slow_callback_duration = 0.01
        loop.run_until_complete(loop.create_task(slow(), name="tortoise"))
        reports = [r.getMessage() for r in caplog.records if "took" in r.getMessage()]
        assert len(reports) == 1
        assert "tortoise" in reports[0]

    @without_uvloop  # it does not look at those
    def test_slow_readers_are_reported(self, loop: Loop, caplog: pytest.LogCaptureFixture) -> None:
        loop.set_debug(True)
        loop.slow_callback_duration = 0.01
        a, b = socket.socketpair()
        with a, b:

            def slow_writer() -> None:
                time.sleep(0.02)
                loop.remove_writer(a)
                loop.stop()

            loop.add_writer(a, slow_writer)
            loop.run_forever()
        reports = [r.getMessage() for r in caplog.records if "took" in r.getMessage()]
        assert len(reports) == 1
        assert "slow_writer" in reports[0]

    def test_callbacks_that_fail(self, loop: Loop) -> None:
        errors = collect_errors(loop)

        def failing() -> None:
            raise ZeroDivisionError

        loop.set_debug(True)
        loop.call_soon(failing)
        loop.call_later(0, failing)
        loop.call_later(0.01, loop.stop)
        loop.run_forever()
        assert [type(context["exception"]) for context in errors] == [ZeroDivisionError] * 2
        assert "failing" in errors[0]["message"]

    def test_switched_while_callbacks_wait(self, loop: Loop) -> None:
        errors = collect_errors(loop)
        ran: list[int] = []

        def failing() -> None:
            raise ZeroDivisionError

        for debug in (True, False):
            loop.call_soon(failing)
            loop.call_soon(ran.append, 1)
            loop.call_soon(ran.append, 2).cancel()
            timers = [loop.call_later(0, ran.append, 3) for _ in range(200)]
            for timer in timers[:150]:
                timer.cancel()
            loop.set_debug(debug)
            loop.call_later(0.01, loop.stop)
            loop.run_forever()
            assert ran == [1] + [3] * 50
            assert len(errors) == 1
            ran.clear()
            errors.clear()

    def test_coroutine_origins_are_tracked(self, loop: Loop) -> None:
        before = sys.get_coroutine_origin_tracking_depth()
        depths: list[int] = []

        async def note() -> None:
            depths.append(sys.get_coroutine_origin_tracking_depth())
            loop.set_debug(False)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            depths.append(sys.get_coroutine_origin_tracking_depth())

        loop.set_debug(True)
        loop.run_until_complete(note())
        assert depths[0] > 0
        assert depths[1] == 0
        assert sys.get_coroutine_origin_tracking_depth() == before

    def test_a_coroutine_that_nobody_awaits_says_where_it_was_made(self, loop: Loop) -> None:
        async def forget() -> None:
            answer()  # type: ignore[unused-coroutine]  # that is the test

        loop.set_debug(True)
        with pytest.warns(RuntimeWarning, match="was never awaited") as warned:
            loop.run_until_complete(forget())
        assert "Coroutine created at" in str(warned[0].message)
        assert "in forget" in str(warned[0].message)

    @without_uvloop  # its frames are not to be seen
    def test_handles_and_tasks_know_their_origin(self, loop: Loop) -> None:
        loop.set_debug(True)
        made: list[Any] = [
            loop.call_soon(int),
            loop.call_soon_threadsafe(int),
            loop.call_later(0, int),
            loop.call_at(0, int),
        ]
        task = loop.create_task(answer())
        descriptions = [repr(each) for each in (*made, task)]
        loop.run_until_complete(task)
        for description in descriptions:
            assert f"created at {__file__}:" in description

    def test_task_errors_say_where_the_task_was_made(
        self, loop: Loop, caplog: pytest.LogCaptureFixture
    ) -> None:
        async def main() -> None:
            task = loop.create_task(fail())
            await asyncio.wait([task])

        loop.set_debug(True)
        loop.run_until_complete(main())
        gc.collect()
        assert "Object created at (most recent call last)" in caplog.text
        assert "in main" in caplog.text


class TestClosing:
    def test_with_tasks_pending(self) -> None:
        """They go with the loop; asyncio's warning about them is the only word."""
        messages: list[str] = []
        loop = new_event_loop()
        loop.set_exception_handler(lambda _, context: messages.append(context["message"]))

        async def wait() -> None:
            await loop.create_future()

        async def main() -> None:
            loop.create_task(wait())
            await asyncio.sleep(0)

        loop.run_until_complete(main())
        loop.close()
        gc.collect()
        assert messages == ["Task was destroyed but it is pending!"]

    def test_with_an_executor_at_work(self, ours: EventLoop) -> None:
        release = threading.Event()
        future = ours.run_in_executor(None, release.wait, 30)
        ours.close()
        release.set()
        assert not future.done()

    def test_a_runner(self) -> None:
        seen: list[str] = []

        async def main() -> int:
            async def background() -> None:
                try:
                    await asyncio.sleep(100)
                finally:
                    seen.append("cancelled")

            background_task = asyncio.create_task(background())
            await asyncio.sleep(0)
            assert not background_task.done()
            return 7

        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            assert runner.run(main()) == 7
            assert isinstance(runner.get_loop(), EventLoop)
        assert seen == ["cancelled"]
