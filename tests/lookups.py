"""Lookups for a resolver, in the place of DNS: they answer what the test says, when it says so."""

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

from aws_io_async.host_resolver import (
    HostAddress,
    HostResolutionConfig,
    HostResolver,
    ResolvedAddress,
)
from aws_io_async.host_resolver._threads import NAME
from tests.tally import Tally

Make = Callable[..., HostResolver]
"""Of a lookup, and of options of the resolver or of its configuration."""

Answer = Sequence[str | ResolvedAddress] | BaseException
"""What a lookup returns, or raises."""


class Lookup:
    """A function that blocks. It gives its answers in turn, and the last one ever after."""

    def __init__(self, *answers: Answer) -> None:
        self.answers = list(answers)
        self.hosts: list[str] = []
        self.times: list[float] = []
        """When they began."""
        self.asked = Tally()
        """Lookups that have begun."""
        self.under_way = self.most = 0
        self.threads: set[str] = set()
        self._lock = threading.Lock()
        self._turnstile: threading.Semaphore | None = None

    def hold(self) -> None:
        """Have the lookups that begin from now on wait until they are let go."""
        self._turnstile = threading.Semaphore(0)

    def let_go(self, number: int = 1) -> None:
        """Let so many of those that were held finish."""
        assert self._turnstile is not None
        self._turnstile.release(number)

    def let_all_go(self) -> None:
        """Let all finish, and hold none any more."""
        turnstile, self._turnstile = self._turnstile, None
        assert turnstile is not None
        turnstile.release(100_000)

    def __call__(self, host: str) -> Sequence[str | ResolvedAddress]:
        with self._lock:
            self.hosts.append(host)
            self.times.append(time.monotonic())
            self.threads.add(threading.current_thread().name)
            self.under_way += 1
            self.most = max(self.most, self.under_way)
            answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
            turnstile = self._turnstile
        self.asked.add()
        if turnstile is not None:
            turnstile.acquire()
        with self._lock:
            self.under_way -= 1
        if isinstance(answer, BaseException):
            raise answer
        return answer


class Clock:
    """The time, as the test sets it."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@contextmanager
def making_resolvers() -> Iterator[Make]:
    """The resolvers made in the block are shut down at its end."""
    made = []

    def make(impl: Any = None, **options: Any) -> HostResolver:
        timing = {k: options.pop(k) for k in ("max_ttl", "resolve_frequency") if k in options}
        made.append(HostResolver(config=HostResolutionConfig(impl, **timing), **options))
        return made[-1]

    try:
        yield make
    finally:
        for resolver in made:
            resolver.shutdown()


def addresses(found: list[HostAddress]) -> list[str]:
    """In numbers."""
    return [item.address for item in found]


def at_once(awaitable: Awaitable[list[HostAddress]]) -> list[HostAddress]:
    """The result of a coroutine that does not suspend."""
    coroutine: Any = awaitable
    with pytest.raises(StopIteration) as stopped:
        coroutine.send(None)
    found: list[HostAddress] = stopped.value.value
    return found


async def forgets_all(resolver: HostResolver) -> None:
    """Wait until no host is in the cache any more."""
    async with asyncio.timeout(30):
        while resolver.statistics().hosts:  # noqa: ASYNC110  there is no event for this
            await asyncio.sleep(0.01)


def resolver_threads() -> list[threading.Thread]:
    """The threads of all resolvers."""
    return [thread for thread in threading.enumerate() if thread.name.startswith(NAME)]
