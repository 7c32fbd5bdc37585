"""Keeping a cache fresh: which lookup is made when, and what becomes of its result."""

import asyncio
import logging
import socket
import threading
from collections.abc import Callable
from typing import Any

from .. import errors, log
from .._host_cache import (
    EntryState,
    HostAddress,
    HostCache,
    HostEntry,
    HostResolutionConfig,
    ResolvedAddress,
)
from ..errors import AwsIoError, ErrorCode
from ..event_loop.entry import new_event_loop
from ..future import Promise
from . import _names
from ._threads import ResolverThreads

LONGEST_SLEEP = 24 * 3600.0
"""Seconds; an entry is looked at once a day, whatever its configuration says."""

Waiter = Promise[list[HostAddress]]
Entry = HostEntry[Waiter]

logger = log.logger(log.LogSubject.DNS)


class Refresher:
    """Has the lookups made that a cache needs, and serves those who wait.

    An idle entry has a timer for its next look. Whatever may make that earlier calls `attend_to`.
    The cache is touched under `lock` alone.

    Thread: the scheduler's, where nothing else is said.
    """

    def __init__(
        self,
        cache: HostCache[Waiter],
        lock: threading.Lock,
        clock: Callable[[], float],
        config: HostResolutionConfig,
    ) -> None:
        self._cache = cache
        self._lock = lock
        self._clock = clock
        self._lookup = config.impl or default_dns_resolve
        self._timers: dict[Entry, asyncio.TimerHandle] = {}
        self._threads: ResolverThreads[Entry] = ResolverThreads(
            new_event_loop, self._begin, self._end
        )

    def attend_to(self, *entries: Entry) -> None:
        """Look at `entries` as soon as it is time. Thread: any."""
        self._threads.call(self._attend_to, *entries)

    def stop(self) -> None:
        """End all threads. Thread: any."""
        self._threads.stop()

    def _attend_to(self, *entries: Entry) -> None:
        for entry in entries:
            timer = self._timers.pop(entry, None)
            if timer is not None:
                timer.cancel()
            with self._lock:
                idle = entry.state is EntryState.IDLE
                delay = entry.next_look() - self._clock()
            if not idle or delay <= 0:
                self._look(entry)
            else:
                delay = min(delay, LONGEST_SLEEP)
                self._timers[entry] = self._threads.call_later(delay, self._look, entry)

    def _look(self, entry: Entry) -> None:
        self._timers.pop(entry, None)
        with self._lock:
            queued = self._cache.look(entry, self._clock()) is EntryState.QUEUED
            urgent = bool(entry.waiters)
        if queued:
            lookup = entry.config.impl or self._lookup
            self._threads.submit(entry, (lookup, entry.host), urgent=urgent)

    def _begin(self, entry: Entry) -> bool:
        with self._lock:
            return self._cache.begin(entry)

    def _end(self, entry: Entry, result: Any, error: BaseException | None) -> None:
        found: list[ResolvedAddress] = []
        if error is None:
            try:
                found = _checked(result)
            except Exception as exc:
                error = exc
        with self._lock:
            was_failing = entry.failing
            self._cache.lookups += 1
            self._cache.failed_lookups += error is not None
            if error is None:
                entry.answered(found, self._clock())
            else:
                entry.failed(self._clock())
            waiters, entry.waiters = entry.waiters, []
            served = [(waiter, entry.take()) for waiter in waiters]
        _log(entry.host, len(found), error, was_failing)
        for waiter, addresses in served:
            if addresses:
                waiter.set_result(addresses)
            else:
                assert error is not None  # an answer has an address at least
                waiter.set_exception(_as_ours(error, entry.host))
        self._attend_to(entry)


def _log(host: str, found: int, error: BaseException | None, was_failing: bool) -> None:
    """An outage's beginning and end are told; in between there may be a lookup each second."""
    if error is not None:
        level = logging.DEBUG if was_failing else logging.WARNING
        logger.log(level, "%s: lookup failed: %r", host, error)
    elif was_failing:
        logger.info("%s: found %d addresses, after lookups that failed", host, found)
    else:
        logger.debug("%s: found %d addresses", host, found)


def default_dns_resolve(host: str) -> list[ResolvedAddress]:
    """The addresses of `host` by the system's getaddrinfo, of both families. It blocks.

    What a `HostResolver` does that is given no `impl`; for others to fall back on. Raises
    `socket.gaierror`. Thread: any. Source: aws-c-io's `aws_default_dns_resolve`.
    """
    found = []
    for family, _, _, _, address in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM):
        if family == socket.AF_INET6 and len(address) == 4 and address[3]:
            found.append(ResolvedAddress(f"{address[0]}%{address[3]}"))
        elif family in (socket.AF_INET, socket.AF_INET6):
            found.append(ResolvedAddress(str(address[0])))
    return found


def _checked(result: Any) -> list[ResolvedAddress]:
    """What a lookup returned, if it is what it should be."""
    found = []
    for item in result:
        text, ttl = item if isinstance(item, ResolvedAddress) else (item, None)
        address = _names.literal(text) if isinstance(text, str) else None
        if address is None or not (ttl is None or ttl >= 0):
            raise ValueError(f"the lookup returned {item!r}: no address, or no ResolvedAddress")
        found.append(ResolvedAddress(address, ttl))
    if not found:
        raise errors.make(ErrorCode.IO_DNS_NO_ADDRESS_FOR_HOST, "the answer is empty")
    return found


def _as_ours(error: BaseException, host: str) -> AwsIoError:
    """What one caller is told of a lookup's failure; each gets an exception of its own."""
    if isinstance(error, AwsIoError):
        ours = errors.make(error.code, f"{host}: {error.detail}" if error.detail else host)
    elif isinstance(error, socket.gaierror):
        ours = errors.translate(error, host)
    elif isinstance(error, TimeoutError):
        ours = errors.make(ErrorCode.IO_DNS_QUERY_AGAIN, f"{host}: {str(error) or 'timed out'}")
    else:
        ours = errors.make(ErrorCode.IO_DNS_QUERY_FAILED, f"{host}: the lookup raised {error!r}")
    ours.__cause__ = error
    return ours
