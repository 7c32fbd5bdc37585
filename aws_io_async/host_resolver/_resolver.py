"""The resolver as its callers see it.

Theory of operation. All that changes the cache does so under one lock, which is held for moments,
and never while somebody is called. A host that is cached is answered without it, on the caller's
thread and without suspending: a look into a dict, and `HostEntry.take`, which may be called at any
time. Whoever finds no address there becomes a waiter of the entry and has the refresher attend to
it; what the lookup brings is handed to all who wait.
"""

import asyncio
import os
import threading
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from enum import Flag
from typing import ClassVar, Self

from .. import errors
from .._host_cache import (
    AddressRecordType,
    HostAddress,
    HostCache,
    HostResolutionConfig,
    ResolvedAddress,
)
from ..errors import CommonErrorCode, ErrorCode
from ..future import Promise
from . import _names
from ._refresher import Refresher, Waiter, logger

MAX_CANDIDATES = 8
"""Addresses that are tried for one connection, at most."""


class HostAddressFlags(Flag):
    """Which addresses to count (aws-c-io: `aws_get_host_address_flags`)."""

    A = 1
    """IPv4."""
    AAAA = 2
    """IPv6."""


@dataclass(frozen=True)
class HostResolverStatistics:
    """What a resolver has done so far, and has to do now."""

    hosts: int
    """In the cache."""
    waiting: int
    """Callers for whom there is no address yet."""
    lookups: int
    failed_lookups: int
    """Of those, the ones that raised or found no address."""


@dataclass(frozen=True)
class KnownAddresses:
    """What a resolver knows of a host; see `HostResolver.known_addresses`."""

    good: tuple[HostAddress, ...] = ()
    """Those that calls go round: AAAA, then A, of each family the one to be given out next first.
    """
    failed: tuple[HostAddress, ...] = ()
    """Those to which a connection failed, of each family the one that has rested longest first."""


class HostResolver:
    """A cache of host names, and the threads that keep it fresh.

    `max_entries`: hosts in the cache; the one asked for least recently makes room. `config`: how
    hosts are looked up, for calls that do not say. `clock`: the time in seconds by which addresses
    expire, for tests. Raises ValueError if `max_entries` is less than one, TypeError if `config` is
    none.

    There is no thread until the first name is looked up, and 8 at most after that, all daemons. A
    forked child finds the cache empty, and starts threads of its own. Close it by `shutdown`, or
    use it in a `with` or `async with` statement; most programs need only `default()`.

    Thread: any, for all methods.
    """

    _default: ClassVar["HostResolver | None"] = None

    def __init__(
        self,
        max_entries: int = 1024,
        *,
        config: HostResolutionConfig | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if max_entries < 1:
            raise ValueError(f"max_entries must be 1 or more, not {max_entries}")
        _check_config(config)
        self._max_entries = max_entries
        self._config = config or HostResolutionConfig()
        self._clock = clock
        self._shut_down = False
        self._make_empty()
        _resolvers.add(self)

    def _make_empty(self) -> None:
        self._lock = threading.Lock()
        self._cache: HostCache[Waiter] = HostCache(self._max_entries)
        self._entries = self._cache.entries
        self._waiters: dict[Waiter, str] = {}
        self._refresher: Refresher | None = None

    @classmethod
    def default(cls) -> "HostResolver":
        """The resolver that all share who have none of their own; a new one after its shutdown."""
        with _default_lock:
            if HostResolver._default is None or HostResolver._default._shut_down:
                HostResolver._default = HostResolver()
            return HostResolver._default

    def __repr__(self) -> str:
        state = "shut down" if self._shut_down else f"hosts={len(self._entries)}"
        return f"<{type(self).__name__} {state}>"

    async def resolve_host(
        self, host: str, config: HostResolutionConfig | None = None
    ) -> list[HostAddress]:
        """Addresses of `host`: at most one AAAA and one A, in this order, and at least one.

        Each call gets those that were used least recently, so that calls go round all that are
        known. As long as some are known, it returns without suspending; else it waits for DNS. An
        address in place of the name (IPv6 with or without a zone, no brackets) comes back as it
        is, in its shortest form, and is not cached.

        `config` holds for the host from now on, also for calls without one. If its `impl` is
        another than the one before, what that one has found is dropped.

        Raises a `DnsError`: IO_DNS_INVALID_NAME if this can be no name, or DNS says that there is
        none such; IO_DNS_NO_ADDRESS_FOR_HOST if it has no address; IO_DNS_QUERY_AGAIN and
        IO_DNS_QUERY_FAILED if there was no answer, with the lookup's exception as `__cause__`;
        IO_DNS_HOST_REMOVED_FROM_CACHE if the resolver was shut down meanwhile. While DNS fails,
        what is known is returned nevertheless. Raises ERROR_INVALID_STATE if the resolver had been
        shut down before, and TypeError if `host` is no str.

        Cancelled, it leaves a lookup under way to itself, and what it finds to the cache.
        """
        entry = self._entries.get(host)
        if entry is not None and (config is None or config is entry.config):
            entry.asked = True
            addresses = entry.take()
            if addresses:
                return addresses
        return await self._resolve(host, config)

    async def _resolve(self, host: str, config: HostResolutionConfig | None) -> list[HostAddress]:
        address = _names.literal(host)
        if address is not None:
            return [HostAddress(host, address, ResolvedAddress(address).record_type)]
        name = _names.normalize(host)
        _check_config(config)
        waiter: Waiter = Promise()
        with self._lock:
            refresher = self._running_refresher()
            entry, dropped = self._cache.ask(name, config, self._config, self._clock())
            addresses = entry.take()
            if not addresses:
                entry.waiters.append(waiter)
                self._waiters[waiter] = name
        refresher.attend_to(entry, *dropped)
        if addresses:
            return addresses
        try:
            return await waiter.future
        except asyncio.CancelledError:
            with self._lock:
                if waiter in entry.waiters:
                    entry.waiters.remove(waiter)
            raise
        finally:
            self._waiters.pop(waiter, None)

    async def resolve_candidates(
        self, host: str, config: HostResolutionConfig | None = None
    ) -> list[HostAddress]:
        """Addresses to try one after the other for one connection: 8 at most, and at least one.

        First what `resolve_host` returns, then the other good ones that are known, the families in
        turn. These do not count as used: as long as the first ones answer, calls go round all.
        Arguments, errors and cancellation: as `resolve_host`.
        """
        first = await self.resolve_host(host, config)
        entry = self._entries.get(first[0].host)
        others = entry.others(first) if entry is not None else []
        return [*first, *others][:MAX_CANDIDATES]

    def record_connection_failure(self, address: HostAddress) -> None:
        """A connection to `address` failed: keep it back while the host has others.

        It comes back when there is no other left and it has rested longest, or when DNS still
        names it after its expiry. One that is not known any more, or never was, is no matter.
        """
        logger.info("%s: connecting to %s failed", address.host, address.address)
        with self._lock:
            entry = self._entries.get(address.host)
            if entry is not None:
                entry.record_failure(address)

    def get_host_address_count(
        self, host: str, flags: HostAddressFlags = HostAddressFlags.A | HostAddressFlags.AAAA
    ) -> int:
        """How many addresses of `host` calls go round at present; 0 if it is not cached.

        Raises IO_DNS_INVALID_NAME if `host` can be no name.
        """
        with self._lock:
            entry = self._entries.get(_key(host))
            if entry is None:
                return 0
            return sum(
                entry.address_count(kind)
                for kind in AddressRecordType
                if HostAddressFlags[kind.name] in flags
            )

    def known_addresses(self, host: str) -> KnownAddresses:
        """All that is known of `host`, for people to look at: nothing is asked for by this.

        Empty if it is not cached, as an address in place of a name never is. Raises
        IO_DNS_INVALID_NAME if `host` can be no name.
        """
        with self._lock:
            entry = self._entries.get(_key(host))
            if entry is None:
                return KnownAddresses()
            families = (entry.aaaa, entry.a)
            return KnownAddresses(
                tuple(address for family in families for address in family.good.copy()),
                tuple(address for family in families for address in family.failed),
            )

    def purge_cache(self) -> None:
        """Forget all hosts. Callers that wait get what the lookup under way brings."""
        self._purge(None)

    def purge_host_cache(self, host: str) -> None:
        """Forget `host`, if it is known, as `purge_cache` does all.

        Raises IO_DNS_INVALID_NAME if it can be no name.
        """
        self._purge(_key(host))

    def _purge(self, host: str | None) -> None:
        with self._lock:
            dropped = self._cache.drop(host)
            refresher = self._refresher
        if refresher is not None:
            refresher.attend_to(*dropped)

    def statistics(self) -> HostResolverStatistics:
        """How it is going."""
        with self._lock:
            cache = self._cache
            return HostResolverStatistics(
                len(cache.entries), len(self._waiters), cache.lookups, cache.failed_lookups
            )

    def shutdown(self) -> None:
        """Forget all hosts and let the threads end, without waiting for them. Idempotent.

        Callers that wait get IO_DNS_HOST_REMOVED_FROM_CACHE. A lookup that blocks keeps its thread
        until it returns.
        """
        with self._lock:
            self._shut_down = True
            self._cache.drop()
            refresher, self._refresher = self._refresher, None
        if refresher is not None:
            refresher.stop()
        for waiter, name in self._waiters.copy().items():  # those that are served leave meanwhile
            detail = f"{name}: the resolver was shut down while the name was looked up"
            waiter.set_exception(errors.make(ErrorCode.IO_DNS_HOST_REMOVED_FROM_CACHE, detail))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.shutdown()

    def _running_refresher(self) -> Refresher:
        if self._shut_down:
            raise errors.make(
                CommonErrorCode.ERROR_INVALID_STATE,
                "this resolver is shut down: make a new one, or use HostResolver.default()",
            )
        if self._refresher is None:
            self._refresher = Refresher(self._cache, self._lock, self._clock, self._config)
        return self._refresher


def _check_config(config: object) -> None:
    """One that is none would be kept, and keep whoever asks next from an answer."""
    if config is not None and not isinstance(config, HostResolutionConfig):
        raise TypeError(f"config must be a HostResolutionConfig, not {config!r}")


def _key(host: str) -> str:
    return _names.literal(host) or _names.normalize(host)


_resolvers: "weakref.WeakSet[HostResolver]" = weakref.WeakSet()
_default_lock = threading.Lock()


def _start_afresh() -> None:
    """This process is a forked child: the threads are its parent's, and locks may be held."""
    global _default_lock
    _default_lock = threading.Lock()
    for resolver in _resolvers:
        resolver._make_empty()


os.register_at_fork(after_in_child=_start_afresh)
