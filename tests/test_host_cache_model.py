"""The resolver's cache against a simple model of it: whatever happens, in whatever order."""

import math
from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from aws_io_async._host_cache import (
    AddressRecordType,
    EntryState,
    HostAddress,
    HostCache,
    HostEntry,
    HostResolutionConfig,
    ResolvedAddress,
)

CONFIG = HostResolutionConfig(max_ttl=30, resolve_frequency=1)
A, AAAA = AddressRecordType.A, AddressRecordType.AAAA

Entry = HostEntry[str]


class FamilyModel:
    """The rules for one family's addresses, on lists of names in order of use."""

    def __init__(self) -> None:
        self.good: list[str] = []
        self.failed: list[str] = []
        self.expiry: dict[str, float] = {}
        self.failures: dict[str, int] = {}

    def take(self) -> list[str]:
        if self.good:
            self.good.append(self.good.pop(0))
        return self.good[-1:]

    def fail(self, address: str) -> None:
        if address in self.good:
            self.good.remove(address)
            self.failed.append(address)
        if address in self.failed:
            self.failures[address] += 1

    def answered(self, answer: dict[str, float], now: float) -> None:
        self.failed = [address for address in self.failed if self.expiry[address] > now]
        for address, expiry in answer.items():
            if address in self.failed:
                continue
            if address not in self.good:
                self.good.append(address)
                self.failures[address] = 0
            self.expiry[address] = expiry
        self.good = [address for address in self.good if self.expiry[address] > now]
        self.bring_one_back()

    def went_unanswered(self, now: float) -> None:
        last_good, first_failed = self.good[-1:], self.failed[:1]
        self.good = [address for address in self.good if self.expiry[address] > now] or last_good
        self.failed = [address for address in self.failed if self.expiry[address] > now]
        if not self.good and not self.failed:
            self.failed = first_failed
        self.bring_one_back()

    def bring_one_back(self) -> None:
        if self.failed and not self.good:
            self.good.append(self.failed.pop(0))

    def listed(self, addresses: list[str]) -> list[tuple[str, float, int]]:
        return [(address, self.expiry[address], self.failures[address]) for address in addresses]


@dataclass
class EntryModel:
    """A host: its addresses, and when it was asked for."""

    last_asked: float
    state: EntryState = EntryState.IDLE
    cached: bool = True
    asked: bool = False
    waiting: bool = False
    families: dict[AddressRecordType, FamilyModel] = field(
        default_factory=lambda: {AAAA: FamilyModel(), A: FamilyModel()}
    )

    def note_use(self, now: float) -> None:
        if self.asked:
            self.asked, self.last_asked = False, now

    def known(self) -> bool:
        return any(family.good or family.failed for family in self.families.values())

    def look(self, now: float) -> None:
        if self.state is not EntryState.IDLE:
            return
        if not self.waiting and self.cached:
            self.note_use(now)
        in_use = self.cached and self.known() and now < self.last_asked + CONFIG.max_ttl
        self.state = EntryState.QUEUED if self.waiting or in_use else EntryState.ENDED
        self.cached = self.cached and self.state is not EntryState.ENDED

    def query_ended(self, answer: dict[str, float | None], now: float) -> None:
        for kind, family in self.families.items():
            if not answer:
                family.went_unanswered(now)
                continue
            ttls = {
                address: min(CONFIG.max_ttl, math.inf if ttl is None else max(ttl, 1))
                for address, ttl in answer.items()
                if ResolvedAddress(address).record_type is kind
            }
            family.answered({address: now + ttl for address, ttl in ttls.items()}, now)

    def compare(self, entry: Entry) -> None:
        for kind, family in self.families.items():
            records = entry.aaaa if kind is AAAA else entry.a
            for real, names in ((records.good, family.good), (records.failed, family.failed)):
                listed = [(r.address, r.expiry, r.connection_failure_count) for r in real]
                assert listed == family.listed(names)


HOSTS = st.sampled_from(["a.test", "b.test", "c.test"])
ADDRESSES = ["10.0.0.1", "10.0.0.2", "10.0.0.3", "fd00::1", "fd00::2"]
TTLS = st.sampled_from([None, 0, 1, 5, 29, 31, 300])
ANSWERS = st.dictionaries(st.sampled_from(ADDRESSES), TTLS)
"""TTLs by address; the empty one is a lookup that failed."""


def end_query(entry: Entry, answer: dict[str, float | None], now: float) -> None:
    if answer:
        entry.answered([ResolvedAddress(*item) for item in answer.items()], now)
    else:
        entry.failed(now)


class EntryAgainstModel(RuleBasedStateMachine):
    """One host: which addresses it has, in which order."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.entry: Entry = HostEntry("host.test", CONFIG, 0.0)
        self.model = EntryModel(0.0)

    @rule(seconds=st.sampled_from([1.0, 5.0, 29.0, 30.0, 100.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(answer=ANSWERS)
    def query(self, answer: dict[str, float | None]) -> None:
        self.entry.state = EntryState.QUERYING
        end_query(self.entry, answer, self.now)
        self.model.query_ended(answer, self.now)

    @rule()
    def outage(self) -> None:
        self.query({})

    @rule()
    def take(self) -> None:
        expected = self.model.families[AAAA].take() + self.model.families[A].take()
        assert [address.address for address in self.entry.take()] == expected

    @rule(address=st.sampled_from(ADDRESSES))
    def connection_fails(self, address: str) -> None:
        kind = ResolvedAddress(address).record_type
        self.entry.record_failure(HostAddress("host.test", address, kind))
        self.model.families[kind].fail(address)

    @rule()
    def the_next_connection_fails(self) -> None:
        for address in self.entry.take():
            self.model.families[address.record_type].take()
            self.connection_fails(address.address)

    @invariant()
    def the_entry_is_as_the_model(self) -> None:
        self.model.compare(self.entry)


class CacheAgainstModel(RuleBasedStateMachine):
    """Several hosts: who is in the cache, who is queried, who ends."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.cache: HostCache[str] = HostCache(2)
        self.pairs: list[tuple[Entry, EntryModel]] = []

    def model_of(self, host: str) -> EntryModel | None:
        return next((m for e, m in self.pairs if e.host == host and m.cached), None)

    @rule(seconds=st.sampled_from([0.0, 0.1, 1.0, 5.0, 29.0, 30.0, 31.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(host=HOSTS)
    def ask(self, host: str) -> None:
        model = self.model_of(host)
        cached = [m for _, m in self.pairs if m.cached]
        entry, dropped = self.cache.ask(host, None, CONFIG, self.now)
        if model is not None:
            assert not dropped
        else:
            model = EntryModel(self.now)
            if len(cached) == 2:
                for other in cached:
                    other.note_use(self.now)
                oldest = min(cached, key=lambda other: other.last_asked)
                (gone,) = dropped
                assert (gone, oldest) in self.pairs
                oldest.cached = False
            self.pairs.append((entry, model))
        model.last_asked = self.now

    @rule(host=HOSTS)
    def take(self, host: str) -> None:
        model = self.model_of(host)
        if model is not None:
            entry = self.cache.entries[host]
            entry.asked = model.asked = True
            expected = model.families[AAAA].take() + model.families[A].take()
            assert [address.address for address in entry.take()] == expected

    @precondition(lambda self: self.pairs)
    @rule(data=st.data())
    def wait(self, data: st.DataObject) -> None:
        entry, model = data.draw(st.sampled_from(self.pairs))
        if model.cached and not model.waiting:
            entry.waiters.append("somebody")
            model.waiting = True

    @precondition(lambda self: self.pairs)
    @rule(data=st.data())
    def give_up(self, data: st.DataObject) -> None:
        entry, model = data.draw(st.sampled_from(self.pairs))
        entry.waiters.clear()
        model.waiting = False

    @precondition(lambda self: self.pairs)
    @rule(data=st.data())
    def look(self, data: st.DataObject) -> None:
        entry, model = data.draw(st.sampled_from(self.pairs))
        model.look(self.now)
        assert self.cache.look(entry, self.now) is model.state

    @precondition(lambda self: self.pairs)
    @rule(data=st.data(), answer=ANSWERS)
    def query(self, data: st.DataObject, answer: dict[str, float | None]) -> None:
        self.run_query(*data.draw(st.sampled_from(self.pairs)), answer)

    @rule(host=HOSTS, answer=ANSWERS)
    def ask_and_query(self, host: str, answer: dict[str, float | None]) -> None:
        self.ask(host)
        entry, model = next((e, m) for e, m in self.pairs if e.host == host and m.cached)
        entry.waiters.append("somebody")
        model.waiting = True
        model.look(self.now)
        assert self.cache.look(entry, self.now) is model.state
        self.run_query(entry, model, answer)

    def run_query(self, entry: Entry, model: EntryModel, answer: dict[str, float | None]) -> None:
        if model.state is not EntryState.QUEUED:
            assert not self.cache.begin(entry)
            return
        if not model.waiting and not (model.cached and model.known()):
            assert not self.cache.begin(entry)
            model.state, model.cached = EntryState.ENDED, False
            return
        assert self.cache.begin(entry)
        model.state = EntryState.IDLE if model.cached else EntryState.ENDED
        end_query(entry, answer, self.now)
        model.query_ended(answer, self.now)
        entry.waiters.clear()
        model.waiting = False

    @rule(host=HOSTS, address=st.sampled_from(ADDRESSES))
    def connection_fails(self, host: str, address: str) -> None:
        model = self.model_of(host)
        kind = ResolvedAddress(address).record_type
        if model is not None:
            self.cache.entries[host].record_failure(HostAddress(host, address, kind))
            model.families[kind].fail(address)

    @rule(host=st.none() | HOSTS)
    def drop(self, host: str | None) -> None:
        gone = [(e, m) for e, m in self.pairs if m.cached and host in (None, e.host)]
        assert self.cache.drop(host) == [entry for entry, _ in gone]
        for _, model in gone:
            model.cached = False

    @invariant()
    def the_cache_is_as_the_model(self) -> None:
        assert len(self.cache.entries) <= 2
        assert {e.host: e for e, m in self.pairs if m.cached} == self.cache.entries
        for entry, model in self.pairs:
            assert (entry.state, entry.cached) == (model.state, model.cached)
            model.compare(entry)
        self.pairs = [(e, m) for e, m in self.pairs if m.state is not EntryState.ENDED]


for machine in (EntryAgainstModel, CacheAgainstModel):
    machine.TestCase.settings = settings(max_examples=150, stateful_step_count=50, deadline=None)

TestEntryAgainstModel = EntryAgainstModel.TestCase
TestCacheAgainstModel = CacheAgainstModel.TestCase
