"""What a cached answer of the resolver costs: `python examples/bench/resolve.py [ROUNDS]`.

It is compared with what asyncio itself takes to await a coroutine that returns a constant: the
least that anything can cost which is awaited. The rounds of the two alternate, and the medians
count. Names are written as programs have them: an entry of the cache is found by them at once.
"""

import statistics
import sys
import time
from collections.abc import Callable, Coroutine
from typing import Any

import aws_io_async
from aws_io_async import HostResolutionConfig, HostResolver

CALLS = 100_000
"""In a round."""

HOST = "fleet.example"
FLEETS = {
    "one address": ["10.0.0.1"],
    "one of each family": ["10.0.0.1", "fd00::1"],
    "eight of each family": [f"{net}{n}" for net in ("10.0.0.", "fd00::") for n in range(1, 9)],
}


async def constant(host: str) -> list[str]:
    """In the place of a resolver."""
    return FLEETS["one address"]


async def seconds(function: Callable[[str], Coroutine[Any, Any, object]]) -> float:
    """That a call takes."""
    started = time.perf_counter()
    for _ in range(CALLS):
        await function(HOST)
    return (time.perf_counter() - started) / CALLS


async def compare(title: str, addresses: list[str], rounds: int) -> None:
    config = HostResolutionConfig(impl=lambda host: addresses)
    with HostResolver(config=config) as resolver:
        await resolver.resolve_host(HOST)
        pairs = [
            (await seconds(constant), await seconds(resolver.resolve_host)) for _ in range(rounds)
        ]
    bare, cached = (statistics.median(column) * 1e9 for column in zip(*pairs, strict=True))
    print(
        f"{title:20} {cached:6.0f} ns, {cached / bare:.2f} times a coroutine that returns a"
        f" constant ({bare:.0f} ns)"
    )


async def main(rounds: int) -> None:
    for title, addresses in FLEETS.items():
        await compare(title, addresses, rounds)


if __name__ == "__main__":
    aws_io_async.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 15))
