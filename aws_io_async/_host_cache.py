"""What is known of hosts and their addresses: rules alone, without clock, thread or lookup.

Theory of operation. A `HostCache` has one `HostEntry` per host name. An entry has, for A and for
AAAA, the addresses that are good, least recently used first, and those to which a connection
failed. Whoever asks gets the first good address of each family, which goes to the end: repeated
questions go round all of them. While somebody asks, a query now and then adds addresses and puts
off their expiry; those it no longer names stay in use until they expire. So the addresses of a
fleet that shows a few of them at a time are collected.

A query ends in one of two ways, and each is the occasion to clear up both lists:

- `answered`: what has expired goes, whatever is in the answer and not failed is good from now on;
- `failed`: what has expired goes, but for the last address of each family.

After either, a family without a good address gets the failed one back that has rested longest.
A failed address is not put off by answers: it is forgotten at its expiry, and the next answer that
names it makes it a good one.

The owner makes the queries and keeps the time. An entry's state is its part in that:

    IDLE -- look --> QUEUED -- begin --> QUERYING -- answered, failed --> IDLE or ENDED
      \\---- look --> ENDED <-- begin --/          (nobody asks any more, or it was dropped)

`next_look` says when `look` is due: after the interval of the configuration, or, when callers
wait, as soon as `MINIMUM_WAIT` has passed since the last query. A dropped entry that has waiters
goes on until they are served. A host that has no address is forgotten soon: nothing keeps asking
DNS for it, and the next caller has it asked again.

Threads: one at a time, but for `HostEntry.take` and `others`, which any may call at any moment.
That is why a list of good addresses is replaced when addresses come or go: the one that another
thread has in hand is only ever rotated.
"""

import enum
import math
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from itertools import chain, zip_longest
from typing import Any, Generic, NamedTuple, TypeVar

MINIMUM_WAIT = 0.1
"""Seconds between two queries for the same host, at least."""

MINIMUM_TTL = 1.0
"""Seconds; a record of DNS that is to be used for less is used for so long all the same."""

MAX_RECORDS = 256
"""Addresses kept in each list of a host; those used or failed least recently give way."""

W = TypeVar("W")


class AddressRecordType(enum.Enum):
    """The type of the DNS record that an address is from."""

    A = "A"
    """IPv4."""
    AAAA = "AAAA"
    """IPv6."""


class ResolvedAddress(NamedTuple):
    """What a lookup found: an address, and for how many seconds DNS says that it holds."""

    address: str
    ttl: float | None = None
    """None if the lookup does not know: the host's `max_ttl` alone decides."""

    @property
    def record_type(self) -> AddressRecordType:
        """By the notation of the address."""
        return AddressRecordType.AAAA if ":" in self.address else AddressRecordType.A


@dataclass(frozen=True, slots=True)
class HostAddress:
    """An address of a host (aws-c-io: `aws_host_address`)."""

    host: str
    """The name it belongs to, as it was looked up: in lower case, and IDNA-encoded."""
    address: str
    """In numbers, with the zone of an IPv6 address where it has one."""
    record_type: AddressRecordType
    expiry: float = math.inf
    """When it is no longer used unless found again, in seconds of the resolver's clock."""
    connection_failure_count: int = 0
    """How many failures have been recorded since it was found."""


@dataclass(frozen=True)
class HostResolutionConfig:
    """How a host is looked up (aws-c-io: `aws_host_resolution_config`).

    Raises ValueError if a number is too small, TypeError if `impl` cannot be called.
    """

    impl: Callable[[str], Any] | None = None
    """The lookup, given the host's name; None is the resolver's own, by default getaddrinfo.

    A coroutine function, or a function, which may block. It returns a sequence of addresses, `str`
    or `ResolvedAddress`, or raises.
    """
    max_ttl: float = 30.0
    """Seconds for which an address is used after DNS has named it for the last time, at most; a
    host that nobody asked for in that time is forgotten. At least `MINIMUM_WAIT`."""
    resolve_frequency: float = 1.0
    """Seconds between queries while the host is asked for; `MINIMUM_WAIT` if it is less."""

    def __post_init__(self) -> None:
        if not self.max_ttl >= MINIMUM_WAIT:
            raise ValueError(f"max_ttl must be {MINIMUM_WAIT} seconds or more, not {self.max_ttl}")
        if not self.resolve_frequency > 0:
            raise ValueError("resolve_frequency must be a positive number of seconds")
        if self.impl is not None and not callable(self.impl):
            raise TypeError("impl must be a function or a coroutine function of the host's name")


class EntryState(enum.Enum):
    """What happens to an entry at the moment."""

    IDLE = enum.auto()
    """Nothing, until it is looked at."""
    QUEUED = enum.auto()
    """It needs a query."""
    QUERYING = enum.auto()
    """A query is under way."""
    ENDED = enum.auto()
    """It has left the cache for good, and nobody waits for it."""


LEGAL_MOVES: dict[EntryState, frozenset[EntryState]] = {
    EntryState.IDLE: frozenset({EntryState.QUEUED, EntryState.ENDED}),
    EntryState.QUEUED: frozenset({EntryState.QUERYING, EntryState.ENDED}),
    EntryState.QUERYING: frozenset({EntryState.IDLE, EntryState.ENDED}),
    EntryState.ENDED: frozenset(),
}
"""Each state's possible next ones."""


class _Records:
    """The addresses of one family of a host."""

    __slots__ = ("failed", "good")

    def __init__(self) -> None:
        self.good: deque[HostAddress] = deque(maxlen=MAX_RECORDS)
        """Least recently used first."""
        self.failed: deque[HostAddress] = deque(maxlen=MAX_RECORDS)
        """The one that rested longest first."""

    def add(self, found: Iterable[HostAddress], now: float) -> None:
        """Take in what a query found."""
        good = {record.address: record for record in self.good.copy()}
        failed = {record.address for record in self.failed if record.expiry > now}
        for record in found:
            known = good.get(record.address)
            if known is not None:
                record = replace(record, connection_failure_count=known.connection_failure_count)
            if record.address not in failed:
                good[record.address] = record
        self.good = deque(good.values(), MAX_RECORDS)

    def clear_up(self, now: float, *, outage: bool) -> None:
        """Let go of what has expired, and see that there is a good address if possible."""
        all_good = self.good.copy()
        good = deque((record for record in all_good if record.expiry > now), MAX_RECORDS)
        failed = deque((record for record in self.failed if record.expiry > now), MAX_RECORDS)
        if outage and not good:
            if all_good:
                good.append(all_good[-1])
            elif self.failed and not failed:
                failed.append(self.failed[0])
        if failed and not good:
            good.append(failed.popleft())
        self.good, self.failed = good, failed

    def __bool__(self) -> bool:
        return bool(self.good or self.failed)

    def record_failure(self, address: str) -> None:
        """Put `address` behind the failed ones; one that is there already keeps its place."""
        good = self.good.copy()
        for record in good:
            if record.address == address:
                good.remove(record)
                self.good = good
                self.failed.append(_once_more(record))
                return
        for index, record in enumerate(self.failed):
            if record.address == address:
                self.failed[index] = _once_more(record)
                return


def _once_more(record: HostAddress) -> HostAddress:
    return replace(record, connection_failure_count=record.connection_failure_count + 1)


class HostEntry(Generic[W]):
    """One host: its addresses, who waits for them, and when to ask DNS again."""

    __slots__ = (
        "a",
        "aaaa",
        "asked",
        "cached",
        "config",
        "failing",
        "host",
        "last_asked",
        "last_query",
        "shortest_ttl",
        "state",
        "waiters",
    )

    def __init__(self, host: str, config: HostResolutionConfig, now: float) -> None:
        self.host = host
        self.config = config
        self.aaaa = _Records()
        self.a = _Records()
        self.state = EntryState.IDLE
        self.waiters: list[W] = []
        """Callers for whom there was no address; the owner's."""
        self.cached = True
        """Whether the cache has it: one that was dropped ends as soon as nobody waits."""
        self.asked = False
        """Whether somebody took addresses since the last look. A flag, as the clock costs more."""
        self.last_asked = now
        self.last_query = -math.inf
        """When the last query ended."""
        self.shortest_ttl = math.inf
        """That of the last answer."""
        self.failing = False
        """Whether the last query failed."""

    def __repr__(self) -> str:
        counts = f"{len(self.aaaa.good)} AAAA, {len(self.a.good)} A"
        return f"<{type(self).__name__} {self.host} {self.state.name} {counts}>"

    def take(self) -> list[HostAddress]:
        """The least recently used good address of each family, AAAA first; [] if there is none.

        Who takes for a caller sets `asked`. Thread: any, at any time.
        """
        addresses = []
        # Two threads may take the same address at the same moment, which does no harm.
        if good := self.aaaa.good:
            addresses.append(good[0])
            good.rotate(-1)
        if good := self.a.good:
            addresses.append(good[0])
            good.rotate(-1)
        return addresses

    def others(self, taken: Iterable[HostAddress]) -> list[HostAddress]:
        """The good addresses but for `taken`, least recently used first, the families in turn.

        They stay where they are. Thread: any, at any time.
        """
        left_out = {record.address for record in taken}
        rows = (
            [record for record in records.good.copy() if record.address not in left_out]
            for records in (self.aaaa, self.a)
        )
        return [record for record in chain(*zip_longest(*rows)) if record is not None]

    @property
    def known(self) -> bool:
        """Whether there is any address, be it a failed one."""
        return bool(self.aaaa or self.a)

    def address_count(self, record_type: AddressRecordType) -> int:
        """How many good addresses there are."""
        return len(self._records(record_type).good)

    def record_failure(self, address: HostAddress) -> None:
        """A connection to `address` failed. One that is not known any more is no matter."""
        self._records(address.record_type).record_failure(address.address)

    def next_look(self) -> float:
        """When an idle entry is to be looked at; in the past if that is due."""
        if not self.cached and not self.waiters:
            return -math.inf
        if self.waiters or not self.known:
            return self.last_query + MINIMUM_WAIT
        config = self.config
        interval = min(config.resolve_frequency, config.max_ttl, self.shortest_ttl)
        return self.last_query + max(interval, MINIMUM_WAIT)

    def answered(self, found: Iterable[ResolvedAddress], now: float) -> None:
        """The query brought addresses, at least one."""
        self.shortest_ttl = math.inf
        fresh: dict[AddressRecordType, list[HostAddress]] = {kind: [] for kind in AddressRecordType}
        for item in found:
            ttl = self.config.max_ttl
            if item.ttl is not None:
                self.shortest_ttl = min(self.shortest_ttl, max(item.ttl, MINIMUM_TTL))
                ttl = min(ttl, max(item.ttl, MINIMUM_TTL))
            fresh[item.record_type].append(
                HostAddress(self.host, item.address, item.record_type, now + ttl)
            )
        for kind, addresses in fresh.items():
            self._records(kind).add(addresses, now)
        self._query_ended(now, outage=False)

    def failed(self, now: float) -> None:
        """The query failed, or brought no address at all."""
        self.shortest_ttl = math.inf
        self._query_ended(now, outage=True)

    def _query_ended(self, now: float, *, outage: bool) -> None:
        self.a.clear_up(now, outage=outage)
        self.aaaa.clear_up(now, outage=outage)
        self.last_query = now
        self.failing = outage
        self._move(EntryState.IDLE if self.cached else EntryState.ENDED)

    def _records(self, record_type: AddressRecordType) -> _Records:
        return self.aaaa if record_type is AddressRecordType.AAAA else self.a

    def _move(self, state: EntryState) -> None:
        if state not in LEGAL_MOVES[self.state]:
            raise RuntimeError(f"{self!r} cannot become {state.name}")
        self.state = state


class HostCache(Generic[W]):
    """The entries of a resolver, at most `max_entries` of them."""

    def __init__(self, max_entries: int) -> None:
        self.max_entries = max_entries
        self.entries: dict[str, HostEntry[W]] = {}
        """By host; the one dict for the cache's life."""
        self.lookups = self.failed_lookups = 0
        """Counted by the owner."""

    def ask(
        self,
        host: str,
        config: HostResolutionConfig | None,
        default: HostResolutionConfig,
        now: float,
    ) -> tuple[HostEntry[W], list[HostEntry[W]]]:
        """Somebody wants addresses of `host`: the entry for that, and those that it displaces.

        A `config` holds for the host from now on. If its `impl` is another than before, what that
        one found is dropped, and who waited for it waits for the new one.
        """
        entry = self.entries.get(host)
        dropped = []
        waiters: list[W] = []
        if entry is not None and config is not None:
            if (config.impl or default.impl) != (entry.config.impl or default.impl):
                dropped = self.drop(host)
                waiters, entry.waiters = entry.waiters, []
                entry = None
            else:
                entry.config = config
        if entry is None:
            entry = self.entries[host] = HostEntry(host, config or default, now)
            entry.waiters = waiters
            dropped += self._shrink(now)
        entry.last_asked = now
        return entry, dropped

    def look(self, entry: HostEntry[W], now: float) -> EntryState:
        """The time of `next_look` has come, or `entry` was dropped: its state from now on."""
        if entry.state is not EntryState.IDLE:
            return entry.state
        if entry.waiters or (entry.cached and _in_use(entry, now)):
            entry._move(EntryState.QUEUED)
        else:
            self._end(entry)
        return entry.state

    def begin(self, entry: HostEntry[W]) -> bool:
        """The turn of `entry` for a query has come: returns whether there is to be one.

        It is not made for nobody: if those who waited have left, and nothing is known so far.
        """
        if entry.state is not EntryState.QUEUED:
            return False
        if entry.waiters or (entry.cached and entry.known):
            entry._move(EntryState.QUERYING)
            return True
        self._end(entry)
        return False

    def drop(self, host: str | None = None) -> list[HostEntry[W]]:
        """Forget `host`, or all hosts; returns the entries, for the owner to look at."""
        if host is None:
            dropped = list(self.entries.values())
            self.entries.clear()
        else:
            dropped = [self.entries.pop(host)] if host in self.entries else []
        for entry in dropped:
            entry.cached = False
        return dropped

    def _end(self, entry: HostEntry[W]) -> None:
        if entry.cached:
            self.drop(entry.host)
        entry._move(EntryState.ENDED)

    def _shrink(self, now: float) -> list[HostEntry[W]]:
        """Drop what was asked for least recently, until the rest is few enough."""
        dropped = []
        while len(self.entries) > self.max_entries:
            for entry in self.entries.values():
                _note_use(entry, now)
            oldest = min(self.entries.values(), key=lambda entry: entry.last_asked)
            dropped += self.drop(oldest.host)
        return dropped


def _in_use(entry: HostEntry[Any], now: float) -> bool:
    _note_use(entry, now)
    return entry.known and now < entry.last_asked + entry.config.max_ttl


def _note_use(entry: HostEntry[Any], now: float) -> None:
    if entry.asked:
        entry.asked = False
        entry.last_asked = now
