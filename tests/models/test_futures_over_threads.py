"""Futures used by many threads at once: one outcome, which everybody sees, and hears of once.

What each thread does is drawn; they begin together, and the interpreter is told to switch between
them as often as it can.
"""

import asyncio
import sys
import threading
from collections.abc import Iterator
from concurrent import futures

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aws_io_async import EventLoop
from aws_io_async.errors import OperationCancelledError
from aws_io_async.future import Future, Promise
from tests.faults._report import Fault
from tests.models.rounds import bounded, seeded

PATIENCE = 30.0

AT_ONCE = Fault(
    "Threads and forks",
    "a promise is resolved, dropped, awaited and given callbacks by many threads at once",
    "one outcome, which all see; each callback is called once",
)

SETS = ("set_result", "set_exception")
LISTENS = ("callback", "callback if not done", "loop callback", "look", "await", "await and cancel")
ACTIONS = st.lists(st.sampled_from(SETS + LISTENS), max_size=5)


class ChosenError(Exception):
    """What a promise is failed with."""


class Meeting:
    """A promise, and all that is done with its future."""

    def __init__(self, loop: EventLoop) -> None:
        self._loop = loop
        self.promise: Promise[object] | None = Promise()
        self.future: Future[object] = self.promise.future
        self.winners: list[object] = []
        self.heard: list[list[object]] = []
        """For each who listens: the outcomes that it was told."""
        self.tasks: list[futures.Future[None]] = []
        self.failures: list[BaseException] = []

    def carry_out(self, actions: list[str], begin: threading.Barrier) -> None:
        try:
            begin.wait(PATIENCE)
            for action in actions:
                if action in SETS:
                    self._set(action)
                else:
                    self._listen(action)
        except BaseException as exc:
            self.failures.append(exc)

    def _set(self, action: str) -> None:
        assert self.promise is not None
        outcome: object = ChosenError() if action == "set_exception" else object()
        if getattr(self.promise, action)(outcome):
            self.winners.append(outcome)

    def _listen(self, action: str) -> None:
        told: list[object] = []

        def tell(future: Future[object]) -> None:
            told.append(outcome_of(future))

        if action == "callback":
            self.future.register_callback(tell)
        elif action == "callback if not done":
            if not self.future.register_callback_if_not_done(tell):
                tell(self.future)
        elif action == "loop callback":
            self.future.register_event_loop_callback(self._loop, tell)
        elif action == "look":
            if not self.future.wait(0):
                return
            tell(self.future)
        else:
            task = asyncio.run_coroutine_threadsafe(self._wait(told), self._loop)
            self.tasks.append(task)
            if action == "await and cancel" and task.cancel():
                return
        self.heard.append(told)

    async def _wait(self, told: list[object]) -> None:
        try:
            told.append(await self.future)
        except (ChosenError, OperationCancelledError) as exc:
            told.append(exc)


def outcome_of(future: Future[object]) -> object:
    assert future.done()
    return future.exception() or future.result()


@pytest.fixture
def loop() -> Iterator[EventLoop]:
    """A loop on a thread of its own, and as many switches between threads as there can be."""
    loop = EventLoop()
    loop.run()
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield loop
    sys.setswitchinterval(interval)
    loop.stop()
    loop.wait_for_stop_completion()
    loop.close()


@seeded
@given(plans=st.lists(ACTIONS, min_size=2, max_size=4), waiters=st.integers(0, 2))
@bounded(60)
def test_one_outcome_that_all_hear_of_once(
    loop: EventLoop, plans: list[list[str]], waiters: int
) -> None:
    meeting = Meeting(loop)
    begin = threading.Barrier(len(plans) + waiters)
    threads = [threading.Thread(target=meeting.carry_out, args=(plan, begin)) for plan in plans]
    woken: list[object] = []

    def wait() -> None:
        begin.wait(PATIENCE)
        if meeting.future.wait(PATIENCE):
            woken.append(outcome_of(meeting.future))

    threads += [threading.Thread(target=wait) for _ in range(waiters)]
    for thread in threads:
        thread.start()
    for thread in threads[: len(plans)]:
        thread.join(PATIENCE)
    meeting.promise = None  # unless somebody has resolved it, that does
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive()
    futures.wait(meeting.tasks, PATIENCE)
    asyncio.run_coroutine_threadsafe(asyncio.sleep(0), loop).result(PATIENCE)  # callbacks are over
    assert meeting.failures == []

    if any(action in SETS for plan in plans for action in plan):
        (outcome,) = meeting.winners
    else:
        assert meeting.winners == []
        outcome = meeting.future.exception()
        assert isinstance(outcome, OperationCancelledError)
    assert outcome_of(meeting.future) is outcome
    assert meeting.heard == [[outcome]] * len(meeting.heard)
    assert woken == [outcome] * waiters
    AT_ONCE.seen("one outcome, heard of once")
