"""How event loop groups end: what they clean up, from where, at the exit, and after a fork."""

import asyncio
import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import AsyncGenerator, Iterator
from concurrent.futures import Future, wait
from pathlib import Path

import pytest

from aws_io_async.errors import ErrorCode, EventLoopShutdownError
from aws_io_async.event_loop.group import EventLoopGroup
from tests import loops
from tests.test_fork import in_child
from tests.test_group import forever, group_threads, here, new_group

KINDS = list(loops.FACTORIES)
OURS = KINDS[0]


@pytest.fixture(params=KINDS)
def group(request: pytest.FixtureRequest) -> Iterator[EventLoopGroup]:
    """For the test to shut down; the fixture does so again."""
    group = new_group(request.param)
    yield group
    group.shutdown()


def stubborn(group: EventLoopGroup) -> threading.Event:
    """Start a task that does not end, whatever happens, before the event is set."""
    started, release = threading.Event(), threading.Event()

    async def refuse() -> None:
        started.set()
        while not release.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(0.005)

    group.submit(refuse())
    started.wait()
    return release


class TestCleanUp:
    """Each loop does what `asyncio.run` does at its end."""

    def test_tasks_are_cancelled_and_may_clean_up(self, group: EventLoopGroup) -> None:
        did: list[str] = []
        started = threading.Event()

        async def task(name: str) -> None:
            started.set()
            try:
                await forever()
            finally:
                await asyncio.sleep(0)
                did.append(name)

        async def start(name: str) -> None:
            kept.append(asyncio.create_task(task(name)))
            await asyncio.sleep(0)

        kept: list[asyncio.Task[None]] = []
        for loop, name in zip(group, "ab", strict=True):
            group.submit(start(name), loop).result()
        started.clear()
        future = group.submit(task("c"))
        started.wait()
        group.shutdown()
        assert sorted(did) == ["a", "b", "c"]
        assert future.cancelled()
        assert all(task.cancelled() for task in kept)
        assert all(loop.is_closed() for loop in group)
        assert group_threads() == []

    def test_what_was_submitted_a_moment_ago_ends_too(self, group: EventLoopGroup) -> None:
        futures = [group.submit(forever()) for _ in range(100)]
        group.shutdown()
        assert all(future.cancelled() for future in futures)

    def test_asynchronous_generators_are_closed(self, group: EventLoopGroup) -> None:
        closed: list[str] = []

        async def generate() -> AsyncGenerator[int, None]:
            try:
                yield 1
            finally:
                await asyncio.sleep(0)
                closed.append("generator")

        generator = generate()
        group.submit(first_of(generator)).result()
        group.shutdown()
        assert closed == ["generator"]

    def test_default_executors_are_waited_for(self, group: EventLoopGroup) -> None:
        started, release = threading.Event(), threading.Event()
        did: list[str] = []

        def work() -> None:
            started.set()
            release.wait()
            did.append("work")

        group.submit(asyncio.to_thread(work))
        started.wait()
        with pytest.raises(TimeoutError):
            group.shutdown(timeout=0.02)
        release.set()
        group.shutdown()
        assert did == ["work"]

    def test_a_task_that_fails_at_its_cancellation_is_reported(
        self, group: EventLoopGroup, caplog: pytest.LogCaptureFixture
    ) -> None:
        started = threading.Event()

        async def fail() -> None:
            started.set()
            try:
                await forever()
            finally:
                raise ZeroDivisionError("on purpose")

        future = group.submit(fail())
        started.wait()
        group.shutdown()
        assert isinstance(future.exception(), ZeroDivisionError)
        assert "unhandled exception during asyncio.run() shutdown" in caplog.text

    def test_a_task_that_ends_the_program_then_is_reported(
        self, group: EventLoopGroup, caplog: pytest.LogCaptureFixture
    ) -> None:
        started = threading.Event()

        async def leave() -> None:
            started.set()
            try:
                await forever()
            finally:
                sys.exit(3)

        group.submit(leave(), group.get_loop_at(0))
        started.wait()
        group.shutdown()
        assert "aws-io-loop-0 ended with SystemExit(3)" in caplog.text
        assert all(loop.is_closed() for loop in group)


async def first_of(generator: AsyncGenerator[int, None]) -> int:
    return await anext(generator)


class TestShutdown:
    def test_it_is_idempotent(self, group: EventLoopGroup) -> None:
        with group:
            group.shutdown()
        group.shutdown()
        group.shutdown(timeout=0)

    def test_from_several_threads_at_once(self, group: EventLoopGroup) -> None:
        alive: list[bool] = []

        def shut_down() -> None:
            group.shutdown()
            alive.append(any(not loop.is_closed() for loop in group))

        threads = [threading.Thread(target=shut_down) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert alive == [False] * 4

    def test_on_a_loop_s_own_thread(self, group: EventLoopGroup) -> None:
        """Refused before anything happens."""

        async def shut_down() -> None:
            group.shutdown()

        with pytest.raises(RuntimeError, match=r"would wait for the thread .* await aclose\(\)"):
            group.submit(shut_down()).result()
        assert group.submit(here()).result()[0] in list(group)

    def test_a_timeout_names_the_loop_and_may_be_tried_again(self, group: EventLoopGroup) -> None:
        release = stubborn(group)
        with pytest.raises(TimeoutError, match=r"^aws-io-loop-\d did not end within 0.02 s: a ta"):
            group.shutdown(timeout=0.02)
        assert repr(group).endswith("shutting down>")
        release.set()
        group.shutdown()
        assert repr(group).endswith("shut down>")

    def test_a_block_that_fails(self) -> None:
        with pytest.raises(ZeroDivisionError), EventLoopGroup(1):
            raise ZeroDivisionError
        assert group_threads() == []

    async def test_afterwards_there_are_no_loops_to_be_had(self, group: EventLoopGroup) -> None:
        loop = group.get_loop_at(0)
        await group.aclose()
        for call in (
            group.get_next_loop,
            lambda: group.get_loop_at(0),
            lambda: group.submit(here()),  # which closes the coroutine: no RuntimeWarning
            lambda: group.submit(here(), loop),
        ):
            with pytest.raises(EventLoopShutdownError, match=r"<EventLoopGroup.* shut down>") as e:
                call()
            assert e.value.code is ErrorCode.IO_EVENT_LOOP_SHUTDOWN
        with pytest.raises(EventLoopShutdownError):
            await group.run(here())

    def test_no_future_is_left_hanging(self) -> None:
        """Other threads submit all the while; each coroutine is refused, cancelled, or done."""
        for kind in KINDS * 5:
            group = new_group(kind)
            futures: list[Future[object]] = []

            def submit(group: EventLoopGroup = group, to: list[Future[object]] = futures) -> None:
                with contextlib.suppress(EventLoopShutdownError):
                    while True:
                        to.append(group.submit(here()))

            threads = [threading.Thread(target=submit) for _ in range(2)]
            for thread in threads:
                thread.start()
            while len(futures) < 20:
                wait(futures[:1])
            group.shutdown()
            for thread in threads:
                thread.join()
            assert all(future.done() for future in futures)


class TestAclose:
    async def test_the_caller_s_loop_runs_on(self, group: EventLoopGroup) -> None:
        """A task's last words come back to that loop: blocking it would be a deadlock."""
        loop = asyncio.get_running_loop()
        started = asyncio.Event()

        async def last_words() -> None:
            loop.call_soon_threadsafe(started.set)
            try:
                await forever()
            finally:
                there = asyncio.run_coroutine_threadsafe(here(), loop)
                assert (await asyncio.wrap_future(there))[0] is loop
                said.append("last words")

        said: list[str] = []
        async with group:
            group.submit(last_words())
            await started.wait()
        assert said == ["last words"]
        assert group_threads() == []

    async def test_it_is_idempotent(self, group: EventLoopGroup) -> None:
        await asyncio.gather(group.aclose(), group.aclose())
        await group.aclose()
        group.shutdown()

    async def test_cancelled_it_goes_on(self, group: EventLoopGroup) -> None:
        release = stubborn(group)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.02):
                await group.aclose()
        with pytest.raises(EventLoopShutdownError):
            group.get_next_loop()
        release.set()
        await group.aclose()
        assert group_threads() == []

    async def test_on_a_loop_of_the_group_the_caller_is_cancelled(
        self, group: EventLoopGroup
    ) -> None:
        with pytest.raises(EventLoopShutdownError, match="cancelled"):
            await group.run(group.aclose())
        await group.aclose()

    async def test_a_coroutine_that_somebody_waits_for(self, group: EventLoopGroup) -> None:
        """Not a CancelledError: nobody has cancelled the one that waits."""
        task = asyncio.create_task(group.run(forever()))
        await asyncio.sleep(0)
        await group.aclose()
        with pytest.raises(EventLoopShutdownError, match=r"shut.* cancelled"):
            await task


def exits(kind: str, *lines: str) -> str:
    """Run lines in an interpreter of its own, which has a `group` and must end by itself.

    Returns what it wrote to stderr.
    """
    program = [
        "import asyncio, atexit, gc, os, sys, threading, warnings",
        "from aws_io_async.event_loop import group as module",
        "from tests.test_group import forever, here, new_group",
        f"group = new_group({kind!r})",
        *lines,
    ]
    path = os.pathsep.join([str(Path(__file__).parent.parent), *filter(None, sys.path)])
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(program)],
        env=os.environ | {"PYTHONPATH": path},
        stderr=subprocess.PIPE,
        text=True,
        timeout=50,
        check=True,
    )
    return done.stderr


every_kind = pytest.mark.parametrize("kind", KINDS)


class TestExit:
    """An interpreter that exits and has a group that nobody has shut down."""

    @every_kind
    def test_tasks_may_clean_up(self, kind: str) -> None:
        said = exits(
            kind,
            "started = threading.Event()",
            "async def task():",
            "    started.set()",
            "    try:",
            "        await forever()",
            "    finally:",
            "        await asyncio.sleep(0)",
            "        print('cleaned up', file=sys.stderr)",
            "group.submit(task())",
            "started.wait()",
        )
        assert said == "cleaned up\n"

    @every_kind
    def test_a_default_executor_was_in_use(self, kind: str) -> None:
        """An exiting interpreter starts no thread, as the executor's shutdown does."""
        said = exits(
            kind,
            "print(group.submit(asyncio.to_thread(len, 'abc')).result(), file=sys.stderr)",
        )
        assert said == "3\n"

    def test_other_threads_end_before_the_group(self) -> None:
        said = exits(
            OURS,
            "def work():",
            "    threading.main_thread().join()",
            "    print(group.submit(here()).result()[0] in list(group), file=sys.stderr)",
            "threading.Thread(target=work).start()",
        )
        assert said == "True\n"

    def test_exit_handlers_that_are_younger_still_have_it(self) -> None:
        said = exits(
            OURS,
            "def handler():",
            "    print(group.submit(here()).result()[0] in list(group), file=sys.stderr)",
            "atexit.register(handler)",
        )
        assert said == "True\n"

    def test_a_group_that_nobody_holds_any_more(self) -> None:
        said = exits(
            OURS,
            "loop = group.get_loop_at(0)",
            "del group",
            "gc.collect()",
            "future = asyncio.run_coroutine_threadsafe(here(), loop)",
            "print(future.result()[0] is loop, file=sys.stderr)",
        )
        assert said == "True\n"

    def test_a_task_that_does_not_end_does_not_hold_up_the_exit(self) -> None:
        said = exits(
            OURS,
            "module.EXIT_TIMEOUT = 0.05",
            "from tests.test_group_shutdown import stubborn",
            "stubborn(group)",
        )
        assert "was left at exit: aws-io-loop-" in said
        assert "did not end within 0.05 s" in said

    def test_it_was_shut_down(self) -> None:
        assert exits(OURS, "group.shutdown()") == ""
        assert exits(OURS, "asyncio.run(group.aclose())") == ""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform has no fork")
# Python 3.12 warns of forks where there are threads.
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
class TestFork:
    def test_a_child_gets_an_error_that_says_so(self, group: EventLoopGroup) -> None:
        loop = group.get_loop_at(0)

        def child() -> None:
            for call in (
                group.get_next_loop,
                lambda: group.get_loop_at(0),
                lambda: group.submit(here()),
                lambda: group.submit(here(), loop),
                lambda: asyncio.run(group.run(here())),
            ):
                with pytest.raises(RuntimeError, match="do not survive a fork, make a new") as e:
                    call()
                assert f"pid {os.getppid()}" in str(e.value)

        assert in_child(child) == ""
        assert group.submit(here()).result()[0] in list(group)

    def test_a_child_that_shuts_it_down_does_the_parent_no_harm(
        self, group: EventLoopGroup
    ) -> None:
        def child() -> None:
            with group:
                pass
            asyncio.run(group.aclose())

        assert in_child(child) == ""
        assert group.submit(here()).result()[0] in list(group)

    def test_a_child_may_have_a_group_of_its_own(self, group: EventLoopGroup) -> None:
        def child() -> None:
            with EventLoopGroup(2) as own:
                assert own.submit(here()).result()[0] in list(own)

        assert in_child(child) == ""

    def test_a_child_that_exits_as_python_does(self) -> None:
        """With the exit handlers of its parent, which it has inherited."""
        said = exits(
            OURS,
            "warnings.simplefilter('ignore', DeprecationWarning)",
            "if os.fork():",
            "    _, status = os.wait()",
            "    print(os.waitstatus_to_exitcode(status), file=sys.stderr)",
            "    print(group.submit(here()).result()[0] in list(group), file=sys.stderr)",
        )
        assert said == "0\nTrue\n"
