"""The way in: `run`, `new_event_loop`, the policy, and names that are imported when first used."""

import asyncio
import os
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import aws_io_async

has_policies = pytest.mark.skipif(sys.version_info >= (3, 16), reason="asyncio has no policies")


async def running_loop() -> asyncio.AbstractEventLoop:
    await asyncio.sleep(0)
    return asyncio.get_running_loop()


def run_program(*lines: str) -> None:
    """In an interpreter of its own; this one has imported everything."""
    path = [str(Path(aws_io_async.__file__).parent.parent), *filter(None, sys.path)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path)}
    command = [sys.executable, "-c", "\n".join(lines)]
    subprocess.run(command, check=True, timeout=60, env=environment)


class TestRun:
    def test_the_result(self) -> None:
        loop = aws_io_async.run(running_loop())
        assert type(loop) is aws_io_async.EventLoop
        assert loop.is_closed()

    def test_the_exception(self) -> None:
        async def fail() -> None:
            raise ZeroDivisionError("on purpose")

        with pytest.raises(ZeroDivisionError, match="on purpose"):
            aws_io_async.run(fail())

    @pytest.mark.parametrize("debug", [True, False, None])
    def test_debug(self, debug: bool | None) -> None:
        async def main() -> bool:
            return asyncio.get_running_loop().get_debug()

        assert aws_io_async.run(main(), debug=debug) is (debug or sys.flags.dev_mode)

    def test_what_is_left_is_cleaned_up(self) -> None:
        ended: list[str] = []

        async def background() -> None:
            try:
                await asyncio.sleep(100)
            finally:
                ended.append("task")

        async def generator() -> Any:
            try:
                yield 1
            finally:
                ended.append("generator")

        begun = generator()

        async def main() -> None:
            task = asyncio.create_task(background())
            await anext(begun)
            await asyncio.to_thread(ended.append, "thread")
            assert not task.done()

        aws_io_async.run(main())
        assert sorted(ended) == ["generator", "task", "thread"]

    def test_inside_a_running_loop(self) -> None:
        """Refused before anything is made, and the outer loop goes on."""

        async def main() -> None:
            coroutine = running_loop()
            with pytest.raises(RuntimeError, match="cannot be called from a running event loop"):
                aws_io_async.run(coroutine)
            coroutine.close()
            await asyncio.sleep(0)

        aws_io_async.run(main())

    @pytest.mark.parametrize("wrong", [None, 3, running_loop])
    def test_what_is_no_coroutine(self, wrong: Any) -> None:
        with pytest.raises((ValueError, TypeError), match="coroutine"):
            aws_io_async.run(wrong)

    def test_in_a_thread(self) -> None:
        results: list[object] = []
        thread = threading.Thread(target=lambda: results.append(aws_io_async.run(running_loop())))
        thread.start()
        thread.join()
        assert type(results[0]) is aws_io_async.EventLoop

    def test_the_thread_s_current_loop_is_left_alone(self) -> None:
        with pytest.raises(RuntimeError, match="no running event loop"):
            asyncio.get_running_loop()
        aws_io_async.run(running_loop())
        with pytest.raises(RuntimeError, match="no running event loop"):
            asyncio.get_running_loop()


class TestNewEventLoop:
    def test_each_is_new(self) -> None:
        one, two = aws_io_async.new_event_loop(), aws_io_async.new_event_loop()
        assert one is not two
        assert type(one) is type(two) is aws_io_async.EventLoop
        assert isinstance(one, asyncio.AbstractEventLoop)
        one.close()
        two.close()

    def test_as_a_loop_factory(self) -> None:
        with asyncio.Runner(loop_factory=aws_io_async.new_event_loop) as runner:
            assert type(runner.run(running_loop())) is aws_io_async.EventLoop
        with asyncio.Runner(loop_factory=aws_io_async.EventLoop) as runner:
            assert type(runner.run(running_loop())) is aws_io_async.EventLoop

    def test_as_the_thread_s_current_loop(self) -> None:
        loop = aws_io_async.new_event_loop()
        asyncio.set_event_loop(loop)
        try:
            assert asyncio.get_event_loop() is loop
            assert loop.run_until_complete(running_loop()) is loop
        finally:
            asyncio.set_event_loop(None)
            loop.close()


@has_policies
@pytest.mark.filterwarnings("ignore:.*[pP]olicy.*deprecated:DeprecationWarning")
class TestPolicy:
    @pytest.fixture
    def policy_restored(self) -> Iterator[None]:
        before = asyncio.get_event_loop_policy()
        yield
        asyncio.set_event_loop_policy(before)

    def test_it_makes_our_loops(self) -> None:
        loop = aws_io_async.EventLoopPolicy().new_event_loop()
        assert type(loop) is aws_io_async.EventLoop
        loop.close()

    def test_it_is_asyncio_s_otherwise(self) -> None:
        policy = aws_io_async.EventLoopPolicy()
        assert isinstance(policy, asyncio.AbstractEventLoopPolicy)
        loop = policy.new_event_loop()
        policy.set_event_loop(loop)
        assert policy.get_event_loop() is loop
        policy.set_event_loop(None)
        loop.close()

    @pytest.mark.usefixtures("policy_restored")
    def test_install(self) -> None:
        aws_io_async.install()
        assert type(asyncio.get_event_loop_policy()) is aws_io_async.EventLoopPolicy
        assert type(asyncio.run(running_loop())) is aws_io_async.EventLoop
        loop = asyncio.new_event_loop()
        assert type(loop) is aws_io_async.EventLoop
        loop.close()
        with asyncio.Runner() as runner:
            assert type(runner.run(running_loop())) is aws_io_async.EventLoop


class TestLazyNames:
    def test_each_public_name_is_there(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # the policy's, from 3.14 on
            for name in aws_io_async.__all__:
                assert getattr(aws_io_async, name) is getattr(aws_io_async, name)
        assert set(aws_io_async.__all__) <= set(dir(aws_io_async))
        assert len(set(aws_io_async.__all__)) == len(aws_io_async.__all__)

    def test_a_name_that_is_not_there(self) -> None:
        with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
            _ = aws_io_async.nonsense
        assert not hasattr(aws_io_async, "nonsense")

    def test_policies_only_where_asyncio_has_them(self) -> None:
        there = sys.version_info < (3, 16)
        assert ("EventLoopPolicy" in aws_io_async.__all__) is there
        assert ("install" in aws_io_async.__all__) is there

    @pytest.mark.parametrize(
        ("statement", "loaded"),
        [
            ("import aws_io_async", False),
            ("import aws_io_async; aws_io_async.__version__; dir(aws_io_async)", False),
            ("from aws_io_async import run", True),
            ("from aws_io_async import *", True),
        ],
    )
    def test_what_is_imported_when(self, statement: str, loaded: bool) -> None:
        run_program(
            f"import sys; {statement}",
            f"assert ('aws_io_async.event_loop._loop' in sys.modules) is {loaded}",
            f"assert {loaded} or 'asyncio' not in sys.modules",
        )

    def test_the_policy_is_not_imported_along_with_the_rest(self) -> None:
        run_program(
            "import sys, aws_io_async",
            "aws_io_async.run, aws_io_async.new_event_loop, aws_io_async.EventLoop",
            "assert 'aws_io_async.event_loop.policy' not in sys.modules",
        )
