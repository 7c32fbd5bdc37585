"""A promise that is resolved in the middle of a future's method, on the same thread.

Signal handlers and the garbage collector do that, between any two bytecodes. Here a trace function
does it, at each bytecode in turn: nothing may hang, be forgotten, or be called twice.
"""

import asyncio
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest

from aws_io_async import future as module
from aws_io_async.errors import OperationCancelledError
from aws_io_async.future import Future, Promise


def interrupted(function: Callable[[], object], at: int, interrupt: Callable[[], object]) -> bool:
    """Call `function`, and `interrupt` before the bytecode of the module that has number `at`.

    Returns whether there are as many.
    """
    count = 0

    def trace(frame: FrameType, event: str, arg: Any) -> Any:
        nonlocal count
        if frame.f_code.co_filename != module.__file__:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            count += 1
            if count == at:
                interrupt()
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        function()
    finally:
        sys.settrace(before)
    return count >= at


def at_each_bytecode(trial: Callable[[int], bool]) -> None:
    """Run a trial that is interrupted at bytecode 1, 2, ... until it has no more of them."""
    trial(1)  # the first time, Python 3.12 does not tell of bytecodes
    at = 1
    while trial(at):
        at += 1
    assert at > 20


class Dropped:
    """A promise that can be dropped, and what becomes of its future."""

    def __init__(self) -> None:
        promise: Promise[int] = Promise()
        self._only_reference = [promise]
        self.future = promise.future
        self.calls: list[Future[int]] = []

    def drop(self) -> None:
        self._only_reference.clear()


def test_a_callback_is_called_once() -> None:
    def trial(at: int) -> bool:
        dropped = Dropped()
        future, calls = dropped.future, dropped.calls
        reached = interrupted(lambda: future.register_callback(calls.append), at, dropped.drop)
        dropped.drop()
        assert calls == [future]
        return reached

    at_each_bytecode(trial)


def test_a_callback_that_is_registered_only_if_not_done_is_called_if_it_was() -> None:
    def trial(at: int) -> bool:
        dropped = Dropped()
        registered: list[bool] = []

        def register() -> None:
            done = dropped.future.register_callback_if_not_done(dropped.calls.append)
            registered.append(done)

        reached = interrupted(register, at, dropped.drop)
        dropped.drop()
        assert len(dropped.calls) == registered[0]
        return reached

    at_each_bytecode(trial)


def test_a_thread_that_waits_goes_on() -> None:
    def trial(at: int) -> bool:
        dropped = Dropped()
        timer = threading.Timer(0.005, dropped.drop)  # for when it comes to waiting
        timer.start()
        reached = interrupted(lambda: dropped.future.wait(), at, dropped.drop)
        timer.cancel()
        timer.join()
        assert dropped.future.done()
        return reached

    at_each_bytecode(trial)


def test_a_task_that_waits_goes_on() -> None:
    loop = asyncio.SelectorEventLoop()

    def trial(at: int) -> bool:
        dropped = Dropped()

        async def wait() -> None:
            timer = loop.call_later(0.005, dropped.drop)  # for when it comes to waiting
            with pytest.raises(OperationCancelledError):
                await dropped.future
            timer.cancel()

        return interrupted(lambda: loop.run_until_complete(wait()), at, dropped.drop)

    at_each_bytecode(trial)
    loop.close()


def test_of_two_results_one_is_kept() -> None:
    def trial(at: int) -> bool:
        promise: Promise[str] = Promise()
        calls: list[Future[str]] = []
        won: list[str] = []
        promise.future.register_callback(calls.append)

        def resolve(name: str) -> None:
            if promise.set_result(name):
                won.append(name)

        reached = interrupted(lambda: resolve("outer"), at, lambda: resolve("inner"))
        assert won == [promise.future.result()]
        assert calls == [promise.future]
        return reached

    at_each_bytecode(trial)
