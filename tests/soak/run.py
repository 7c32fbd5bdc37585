"""A soak: the mixture in rounds, with a look at what the process holds between them."""

import asyncio
import ssl
import traceback
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from tests.soak.measure import Sample, spread
from tests.soak.mix import Mix

WORKERS = 24
FLAT = 0.05
"""How far apart the samples of memory may be in the second half."""

PATIENCE = 60.0
"""Seconds for connections to end that nobody uses any more."""

ENOUGH = 8
"""Samples in the second half that say something of memory; fewer are but shown."""


@dataclass
class Report:
    """What a soak has come to."""

    seconds: float
    seed: int
    totals: Counter[str]
    begun: Counter[str]
    done: Counter[str]
    reused: int
    over: dict[str, int]
    resident: list[int] = field(repr=False)
    complaints: list[str]

    @property
    def second_half(self) -> float:
        """How far the samples of memory are apart in the second half."""
        return spread(self.resident[len(self.resident) // 2 :])

    def broken(self) -> list[str]:
        """The promises that were not kept."""
        found = list(self.complaints)
        sent, received, verified = (
            self.totals[f"bytes {what}"] for what in ("sent", "received", "verified")
        )
        if not sent == received == verified:
            found.append(f"{sent} bytes were sent, {received} received, {verified} verified")
        found += [f"{n} {what} over the start" for what, n in self.over.items() if n > 0]
        if len(self.resident) >= 2 * ENOUGH and self.second_half > FLAT:
            found.append(f"memory varied by {self.second_half:.1%} in the second half")
        return found

    def table(self) -> str:
        """For people to read."""
        rows = [("", "begun", "to the end")]
        rows += [(kind, f"{self.begun[kind]:,}", f"{self.done[kind]:,}") for kind in self.begun]
        lines = [f"{kind:<20}{begun:>10}{done:>12}" for kind, begun, done in rows]
        lines.append("")
        facts: dict[str, Any] = {
            "seconds": f"{self.seconds:.0f}",
            **{what: f"{number:,}" for what, number in sorted(self.totals.items())},
            "descriptors of cut connections reused": f"{self.reused:,}",
            **{f"{what} over the start": number for what, number in self.over.items()},
        }
        if self.resident:
            half = [size / 1e6 for size in self.resident[len(self.resident) // 2 :]]
            facts["MB resident, second half"] = f"{min(half):.1f} to {max(half):.1f}"
            facts["which is a spread of"] = f"{self.second_half:.1%}"
        lines += [f"{what:<40}{value:>20}" for what, value in facts.items()]
        return "\n".join(lines)

    def as_json(self) -> dict[str, Any]:
        figures = {
            name: dict(value) if isinstance(value, Counter) else value
            for name, value in vars(self).items()
        }
        return {**figures, "spread": self.second_half, "broken": self.broken()}


async def until_tasks_are(number: int) -> None:
    """So few, or until that has taken too long: what is left is in the report then."""
    loop = asyncio.get_running_loop()
    give_up = loop.time() + PATIENCE
    while len(asyncio.all_tasks()) > number and loop.time() < give_up:  # noqa: ASYNC110  no event
        await asyncio.sleep(0.01)


async def until_nothing_is_left(start: Sample) -> dict[str, int]:
    """As it was at the start, or until that has taken too long: what there is more than then."""
    loop = asyncio.get_running_loop()
    give_up = loop.time() + PATIENCE
    while True:
        over = (await Sample.take()).over(start)
        if max(over.values()) <= 0 or loop.time() > give_up:
            return over
        await asyncio.sleep(0.05)  # threads take a moment to end


def describe(failure: BaseException) -> str:
    """With its traceback."""
    return "".join(traceback.format_exception(failure))


async def soak(seconds: float, seed: int, rounds: int) -> Report:
    """Run it on the running loop, which is one of ours."""
    loop = asyncio.get_running_loop()
    complaints: list[str] = []

    def complain(_: object, context: dict[str, Any]) -> None:
        gone = isinstance(context.get("exception"), ConnectionError | ssl.SSLEOFError)
        if not (gone and loop.get_debug()):  # which tells of each client that leaves too early
            complaints.append(f"{context}")

    loop.set_exception_handler(complain)
    mix = Mix(seed)
    start = await Sample.take()
    resident = []
    began = loop.time()
    async with mix.servers():
        idle = len(asyncio.all_tasks())
        for number in range(1, rounds + 1):
            until = began + seconds * number / rounds
            await asyncio.gather(*(mix.work(until) for _ in range(WORKERS)))
            await until_tasks_are(idle)
            mix.ledger.forget_the_cut()
            resident.append((await Sample.take()).resident_bytes)
            if mix.ledger.failures:
                break
    over = await until_nothing_is_left(start)
    complaints += [describe(failure) for failure in mix.ledger.failures]
    return Report(
        seconds=loop.time() - began,
        seed=seed,
        totals=mix.ledger.totals,
        begun=mix.begun,
        done=mix.done,
        reused=mix.reused,
        over=over,
        resident=resident,
        complaints=complaints,
    )
