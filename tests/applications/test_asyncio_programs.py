"""Programs in asyncio's own terms: task groups, time-outs, runners, Ctrl-C, test cases."""

import asyncio
import contextvars
import os
import signal
import subprocess
import sys
import unittest
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import loops

ROOT = Path(__file__).parents[2]


@pytest.fixture(params=list(loops.FACTORIES))
def name(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


# Tasks


async def test_a_task_group_cancels_the_others_when_one_fails() -> None:
    ended = []

    async def wait_forever(number: int) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(number)

    async def fail() -> None:
        raise ValueError("one task fails")

    with pytest.raises(ExceptionGroup) as raised:
        async with asyncio.TaskGroup() as group:
            for number in range(3):
                group.create_task(wait_forever(number))
            group.create_task(fail())
    assert raised.group_contains(ValueError, match="one task fails")
    assert sorted(ended) == [0, 1, 2]
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_timeouts_within_timeouts() -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(60) as outer:
            async with asyncio.timeout(0.01) as inner:
                await asyncio.Event().wait()
    assert inner.expired()
    assert not outer.expired()
    async with asyncio.timeout(0.01) as rescheduled:
        rescheduled.reschedule(None)
        await asyncio.sleep(0.05)
    assert not rescheduled.expired()


async def test_queues_locks_and_barriers_among_many_tasks() -> None:
    queue: asyncio.Queue[int] = asyncio.Queue(maxsize=3)
    lock, barrier, inside, seen = asyncio.Lock(), asyncio.Barrier(5), 0, []

    async def consume() -> None:
        nonlocal inside
        await barrier.wait()
        while True:
            number = await queue.get()
            async with lock:
                inside += 1
                assert inside == 1
                await asyncio.sleep(0)
                inside -= 1
                seen.append(number)
            queue.task_done()

    consumers = [asyncio.create_task(consume()) for _ in range(5)]
    for number in range(200):
        await queue.put(number)
    await queue.join()
    for consumer in consumers:
        consumer.cancel()
    await asyncio.gather(*consumers, return_exceptions=True)
    assert sorted(seen) == list(range(200))


async def test_threads_and_contexts() -> None:
    user: contextvars.ContextVar[str] = contextvars.ContextVar("user")
    user.set("me")
    assert await asyncio.to_thread(user.get) == "me"
    loop = asyncio.get_running_loop()

    async def answer() -> int:
        await asyncio.sleep(0)
        return 42

    def ask() -> int:
        return asyncio.run_coroutine_threadsafe(answer(), loop).result()

    assert await asyncio.gather(*(asyncio.to_thread(ask) for _ in range(20))) == [42] * 20


# Runners


def test_a_runner_runs_again_and_again_in_one_context(name: str) -> None:
    variable: contextvars.ContextVar[int] = contextvars.ContextVar("variable", default=0)
    ended = []

    async def add_one() -> int:
        variable.set(variable.get() + 1)
        return variable.get()

    async def left_behind() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(True)

    async def leave() -> None:
        background.append(asyncio.create_task(left_behind()))
        await asyncio.sleep(0)

    background: list[asyncio.Task[None]] = []
    with asyncio.Runner(loop_factory=loops.FACTORIES[name]) as runner:
        assert [runner.run(add_one()) for _ in range(3)] == [1, 2, 3]
        runner.run(leave())
        assert not ended
        loop = runner.get_loop()
    assert ended == [True]
    assert background[0].cancelled()
    assert loop.is_closed()


RUN = {  # how a program gets each loop from asyncio.run, on every supported Python
    "aws_io_async": "import aws_io_async; run = aws_io_async.run",
    "asyncio": "import asyncio; run = asyncio.run",
    "uvloop": "import uvloop; run = uvloop.run",
}

WAITS_FOR_CTRL_C = """
import asyncio, sys
async def main():
    print("running", flush=True)
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        await asyncio.sleep(0.01)
        print("cleaned up", flush=True)
        raise
try:
    run(main())
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""

SPINS_UNTIL_CTRL_C = """
import asyncio, sys
async def main():
    print("running", flush=True)
    while True:
        await asyncio.sleep(0)
try:
    run(main())
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


@pytest.mark.parametrize(
    ("program", "output"),
    [
        (WAITS_FOR_CTRL_C, "cleaned up\ninterrupted\n"),
        (SPINS_UNTIL_CTRL_C, "interrupted\n"),
    ],
    ids=["waiting", "busy"],
)
def test_ctrl_c(name: str, program: str, output: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-W", "error", "-c", f"{RUN[name]}\n{program}"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "running\n"
        process.send_signal(signal.SIGINT)
        assert process.communicate() == (output, "")
    assert process.returncode == 0


# unittest


@pytest.fixture
def policy_put_back() -> Iterator[None]:
    yield
    with warnings.catch_warnings():  # deprecated from 3.14 on
        warnings.simplefilter("ignore", DeprecationWarning)
        asyncio.set_event_loop_policy(None)


def passes(case: type[unittest.TestCase]) -> None:
    result = unittest.TestResult()
    unittest.defaultTestLoader.loadTestsFromTestCase(case).run(result)
    assert result.testsRun == 1
    assert result.errors == result.failures == []


def test_isolated_asyncio_test_case(name: str, policy_put_back: None) -> None:
    steps = []

    class Case(unittest.IsolatedAsyncioTestCase):
        if sys.version_info >= (3, 13):
            loop_factory = staticmethod(loops.FACTORIES[name])

        async def asyncSetUp(self) -> None:
            self.loop = asyncio.get_running_loop()
            steps.append("set up")

        async def test_it(self) -> None:
            made = loops.FACTORIES[name]()
            made.close()
            assert type(asyncio.get_running_loop()) is type(made)
            assert asyncio.get_running_loop() is self.loop
            self.addAsyncCleanup(self.clean_up)
            await asyncio.sleep(0)

        async def clean_up(self) -> None:
            assert asyncio.get_running_loop() is self.loop
            steps.append("clean up")

    if sys.version_info < (3, 13):
        asyncio.set_event_loop_policy(policy(name))
    passes(Case)
    assert steps == ["set up", "clean up"]


def policy(name: str) -> asyncio.AbstractEventLoopPolicy | None:
    match name:
        case "aws_io_async":
            import aws_io_async

            return aws_io_async.EventLoopPolicy()
        case "uvloop":
            import uvloop

            made: asyncio.AbstractEventLoopPolicy = uvloop.EventLoopPolicy()
            return made
        case _:
            return None


@pytest.mark.skipif(sys.version_info >= (3, 16), reason="policies are gone")
@pytest.mark.filterwarnings("ignore:.*olicy:DeprecationWarning")  # from 3.14 on
def test_the_policy_gives_asyncio_run_the_loop(policy_put_back: None) -> None:
    import aws_io_async

    async def main() -> asyncio.AbstractEventLoop:
        process = await asyncio.create_subprocess_exec("true")  # 3.11 asks the policy for a watcher
        assert await process.wait() == 0
        return asyncio.get_running_loop()

    aws_io_async.install()
    assert isinstance(asyncio.run(main()), aws_io_async.EventLoop)
