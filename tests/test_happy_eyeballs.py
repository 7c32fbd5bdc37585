"""RFC 8305: the order of addresses, and the race between them."""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import pytest

from aws_io_async.event_loop._happy_eyeballs import first_to_succeed, interleave

V4, V6 = socket.AF_INET, socket.AF_INET6


def info(family: int, number: int) -> Any:
    return (family, socket.SOCK_STREAM, 0, "", number)


def order(infos: list[Any]) -> list[int]:
    return [entry[4] for entry in infos]


# The order


@pytest.mark.parametrize(
    ("families", "count", "expected"),
    [
        ([], 1, []),
        ([V4], 1, [0]),
        ([V6, V6, V4, V4], 1, [0, 2, 1, 3]),
        ([V6, V6, V6, V4], 1, [0, 3, 1, 2]),
        ([V4, V6, V6, V6], 1, [0, 1, 2, 3]),
        ([V6, V6, V6, V4, V4], 2, [0, 1, 3, 2, 4]),
        ([V6, V6, V4], 5, [0, 1, 2]),
        ([V4, V4, V4], 2, [0, 1, 2]),
    ],
)
def test_families_alternate(families: list[int], count: int, expected: list[int]) -> None:
    infos = [info(family, number) for number, family in enumerate(families)]
    assert order(interleave(infos, count)) == expected
    assert order(infos) == list(range(len(families)))  # the argument is as it was


# The race. An attempt waits for its gate, and then does what the gate says.


class Attempts:
    def __init__(self, count: int) -> None:
        loop = asyncio.get_running_loop()
        self.gates: list[asyncio.Future[Any]] = [loop.create_future() for _ in range(count)]
        self.log: list[str] = []
        self.discarded: list[Any] = []
        self._news = asyncio.Event()

    def functions(self) -> list[Callable[[], Awaitable[Any]]]:
        return [partial(self._attempt, number) for number in range(len(self.gates))]

    async def _attempt(self, number: int) -> Any:
        self._note(f"start {number}")
        try:
            return await self.gates[number]
        except asyncio.CancelledError:
            self._note(f"cancelled {number}")
            raise

    def _note(self, what: str) -> None:
        self.log.append(what)
        self._news.set()

    async def has(self, what: str) -> None:
        while what not in self.log:
            self._news.clear()
            await self._news.wait()

    def race(self, delay: float | None) -> "asyncio.Task[Any]":
        return asyncio.ensure_future(
            first_to_succeed(self.functions(), delay, self.discarded.append)
        )


async def test_the_first_success_ends_the_race_and_cancels_the_others() -> None:
    attempts = Attempts(3)
    race = attempts.race(0.001)
    await attempts.has("start 2")
    attempts.gates[1].set_result("one")
    assert await race == ("one", [])
    assert attempts.log[:3] == ["start 0", "start 1", "start 2"]
    assert sorted(attempts.log[3:]) == ["cancelled 0", "cancelled 2"]
    assert attempts.discarded == []


async def test_a_failure_starts_the_next_at_once() -> None:
    attempts = Attempts(3)
    race = attempts.race(3600)
    await attempts.has("start 0")
    attempts.gates[0].set_exception(OSError("zero"))
    await attempts.has("start 1")
    assert "start 2" not in attempts.log
    attempts.gates[1].set_result("one")
    result, errors = await race
    assert result == "one"
    assert [str(error) for error in errors] == ["zero"]


async def test_without_a_delay_one_runs_after_the_other() -> None:
    attempts = Attempts(2)
    race = attempts.race(None)
    await attempts.has("start 0")
    for _ in range(5):
        await asyncio.sleep(0)
    assert attempts.log == ["start 0"]
    attempts.gates[0].set_exception(OSError("zero"))
    await attempts.has("start 1")
    attempts.gates[1].set_result("one")
    assert (await race)[0] == "one"


@pytest.mark.parametrize("delay", [None, 0, 0.001])
async def test_when_all_fail_every_error_is_told(delay: float | None) -> None:
    attempts = Attempts(3)
    for number, gate in enumerate(attempts.gates):
        gate.set_exception(OSError(str(number)))
    result, errors = await attempts.race(delay)
    assert result is None
    assert sorted(str(error) for error in errors) == ["0", "1", "2"]


async def test_two_that_succeed_at_once_leave_one_result() -> None:
    attempts = Attempts(2)
    race = attempts.race(0.001)
    await attempts.has("start 1")
    attempts.gates[0].set_result("zero")
    attempts.gates[1].set_result("one")
    result, _ = await race
    assert {result, *attempts.discarded} == {"zero", "one"}
    assert len(attempts.discarded) == 1


async def test_a_loser_that_succeeds_all_the_same_is_discarded() -> None:
    discarded: list[str | None] = []
    loop = asyncio.get_running_loop()
    stubborn = asyncio.Event()

    async def loser() -> str:
        try:
            await loop.create_future()
        except asyncio.CancelledError:
            stubborn.set()
        return "late"

    async def winner() -> str:
        return "won"

    result, _ = await first_to_succeed([loser, winner], 0, discarded.append)
    assert result == "won"
    assert stubborn.is_set()
    assert discarded == ["late"]


async def test_cancelled_it_takes_its_attempts_along() -> None:
    attempts = Attempts(2)
    race = attempts.race(0.001)
    await attempts.has("start 1")
    race.cancel()
    with pytest.raises(asyncio.CancelledError):
        await race
    assert {"cancelled 0", "cancelled 1"} <= set(attempts.log)


async def test_cancelled_at_the_moment_of_success_it_discards_the_result() -> None:
    attempts = Attempts(1)
    race = attempts.race(None)
    await attempts.has("start 0")
    attempts.gates[0].set_result("zero")
    await asyncio.sleep(0)  # the attempt is done, the race not yet awake
    race.cancel()
    with pytest.raises(asyncio.CancelledError):
        await race
    assert attempts.discarded == ["zero"]


async def test_an_attempt_that_somebody_cancels_has_failed_like_any_other() -> None:
    attempts = Attempts(2)
    attempts.gates[0].cancel()
    attempts.gates[1].set_result("one")
    result, errors = await attempts.race(None)
    assert result == "one"
    assert [type(error) for error in errors] == [ConnectionAbortedError]


async def test_nothing_to_try() -> None:
    assert await first_to_succeed([], 0.1, lambda _: None) == (None, [])
