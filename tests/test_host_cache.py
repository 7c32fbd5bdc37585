"""The resolver's cache: addresses come, rotate, fail, expire; entries are queried, dropped, end.

Time is a number here, and a lookup what the test says it brought.
"""

import math
from typing import Any

import pytest

from aws_io_async._host_cache import (
    LEGAL_MOVES,
    MAX_RECORDS,
    MINIMUM_TTL,
    MINIMUM_WAIT,
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

Cache = HostCache[str]
Entry = HostEntry[str]


def one_entry(config: HostResolutionConfig = CONFIG, now: float = 0.0) -> tuple[Cache, Entry]:
    cache: Cache = HostCache(10)
    entry, _ = cache.ask("host.test", None, config, now)
    return cache, entry


def query(cache: Cache, entry: Entry, now: float, *found: str | ResolvedAddress) -> None:
    """A query from beginning to end; without addresses, one that failed."""
    entry.waiters.append("somebody")
    assert cache.look(entry, now) is EntryState.QUEUED
    assert cache.begin(entry)
    entry.waiters.clear()
    if found:
        entry.answered(
            [ResolvedAddress(item) if isinstance(item, str) else item for item in found], now
        )
    else:
        entry.failed(now)


def taken(entry: Entry) -> list[str]:
    return [address.address for address in entry.take()]


def an_address(text: str, host: str = "host.test") -> HostAddress:
    return HostAddress(host, text, ResolvedAddress(text).record_type)


# Rotation


def test_addresses_of_each_family_are_taken_in_turn() -> None:
    cache, entry = one_entry()
    query(cache, entry, 0, "10.0.0.1", "fd00::1", "10.0.0.2", "10.0.0.3", "fd00::2")
    assert [taken(entry) for _ in range(6)] == [
        ["fd00::1", "10.0.0.1"],
        ["fd00::2", "10.0.0.2"],
        ["fd00::1", "10.0.0.3"],
        ["fd00::2", "10.0.0.1"],
        ["fd00::1", "10.0.0.2"],
        ["fd00::2", "10.0.0.3"],
    ]


@pytest.mark.parametrize("address", ["10.0.0.1", "fd00::1"])
def test_a_host_with_one_family_only(address: str) -> None:
    cache, entry = one_entry()
    query(cache, entry, 0, address)
    (found,) = entry.take()
    assert found == HostAddress("host.test", address, ResolvedAddress(address).record_type, 30.0, 0)


def test_answers_that_change_each_second_add_up() -> None:
    cache, entry = one_entry()
    for second in range(20):
        query(cache, entry, second, f"10.0.0.{second}")
    assert sorted(taken(entry)[0] for _ in range(20)) == sorted(f"10.0.0.{n}" for n in range(20))


def test_a_new_address_is_used_after_those_that_were_there() -> None:
    cache, entry = one_entry()
    query(cache, entry, 0, "10.0.0.1", "10.0.0.2")
    assert taken(entry) == ["10.0.0.1"]
    query(cache, entry, 1, "10.0.0.3", "10.0.0.1", "10.0.0.2")
    assert [taken(entry)[0] for _ in range(3)] == ["10.0.0.2", "10.0.0.1", "10.0.0.3"]


def test_an_address_twice_in_an_answer_is_one() -> None:
    cache, entry = one_entry()
    query(cache, entry, 0, "10.0.0.1", "10.0.0.1", "10.0.0.2")
    assert entry.address_count(A) == 2


def test_the_number_of_addresses_is_bounded() -> None:
    cache, entry = one_entry()
    query(cache, entry, 0, *(f"10.0.{n // 256}.{n % 256}" for n in range(1000)))
    assert entry.address_count(A) == MAX_RECORDS
    for _ in range(1000):
        entry.record_failure(entry.take()[0]) if entry.a.good else query(cache, entry, 0, "fd00::1")
    assert len(entry.a.failed) + len(entry.a.good) <= 2 * MAX_RECORDS


def test_a_taker_on_another_thread_keeps_a_list_that_only_rotates() -> None:
    cache, entry = one_entry()
    query(cache, entry, 0, "10.0.0.1", "10.0.0.2")
    in_hand = entry.a.good
    entry.record_failure(an_address("10.0.0.1"))
    query(cache, entry, 1, "10.0.0.3")
    assert {address.address for address in in_hand} == {"10.0.0.1", "10.0.0.2"}


# Expiry


def test_an_answer_puts_expiry_off() -> None:
    cache, entry = one_entry()
    query(cache, entry, 0, "10.0.0.1", "10.0.0.2")
    query(cache, entry, 20, "10.0.0.1")
    assert {address.address: address.expiry for address in entry.a.good} == {
        "10.0.0.1": 50,
        "10.0.0.2": 30,
    }
    query(cache, entry, 30, "10.0.0.1")
    assert taken(entry) == taken(entry) == ["10.0.0.1"]


def test_while_dns_works_the_last_address_of_a_family_expires_too() -> None:
    cache, entry = one_entry()
    query(cache, entry, 0, "10.0.0.1", "fd00::1")
    query(cache, entry, 30, "10.0.0.1")
    assert taken(entry) == ["10.0.0.1"]


def test_while_dns_fails_the_last_address_of_each_family_stays() -> None:
    cache, entry = one_entry()
    query(cache, entry, 0, "10.0.0.1", "10.0.0.2", "fd00::1")
    query(cache, entry, 29)
    assert entry.address_count(A) == 2
    query(cache, entry, 30)
    query(cache, entry, 1000)
    assert taken(entry) == taken(entry) == ["fd00::1", "10.0.0.2"]
    query(cache, entry, 1001, "10.0.0.9")
    assert taken(entry) == taken(entry) == ["10.0.0.9"]


def test_while_dns_fails_an_address_that_has_not_expired_is_no_reason_to_keep_others() -> None:
    cache, entry = one_entry()
    query(cache, entry, 0, "10.0.0.1")
    query(cache, entry, 10, "10.0.0.2")
    query(cache, entry, 35)
    assert taken(entry) == taken(entry) == ["10.0.0.2"]


@pytest.mark.parametrize(
    ("ttl", "expiry"), [(None, 30), (300, 30), (12, 12), (0, MINIMUM_TTL), (0.5, MINIMUM_TTL)]
)
def test_the_ttl_of_dns_caps_expiry(ttl: float | None, expiry: float) -> None:
    cache, entry = one_entry()
    query(cache, entry, 0, ResolvedAddress("10.0.0.1", ttl))
    assert entry.take()[0].expiry == expiry


# Failed connections


def test_a_failed_address_is_kept_back() -> None:
    cache, entry = one_entry()
    query(cache, entry, 0, "10.0.0.1", "10.0.0.2")
    entry.record_failure(an_address("10.0.0.1"))
    assert taken(entry) == taken(entry) == ["10.0.0.2"]
    query(cache, entry, 10, "10.0.0.1", "10.0.0.2")  # DNS naming it is no reason to trust it
    assert taken(entry) == taken(entry) == ["10.0.0.2"]
    assert entry.address_count(A) == 1


def test_a_failed_address_is_forgotten_at_its_expiry_and_may_be_found_anew() -> None:
    cache, entry = one_entry()
    query(cache, entry, 0, "10.0.0.1", "10.0.0.2")
    entry.record_failure(an_address("10.0.0.1"))
    query(cache, entry, 29, "10.0.0.1", "10.0.0.2")
    assert entry.address_count(A) == 1
    query(cache, entry, 30, "10.0.0.1", "10.0.0.2")
    found = {address.address: address for address in entry.take() + entry.take()}
    assert set(found) == {"10.0.0.1", "10.0.0.2"}
    assert found["10.0.0.1"].connection_failure_count == 0
    assert found["10.0.0.1"].expiry == 60


def test_the_one_that_rested_longest_comes_back_when_none_is_left() -> None:
    cache, entry = one_entry()
    query(cache, entry, 0, "10.0.0.1", "10.0.0.2", "10.0.0.3")
    for last in ("2", "1", "3"):
        entry.record_failure(an_address(f"10.0.0.{last}"))
    assert taken(entry) == []
    query(cache, entry, 1, "10.0.0.1", "10.0.0.2", "10.0.0.3")
    (back,) = entry.take()
    assert (back.address, back.connection_failure_count) == ("10.0.0.2", 1)
    entry.record_failure(back)
    query(cache, entry, 2, "10.0.0.1", "10.0.0.2", "10.0.0.3")
    assert taken(entry) == ["10.0.0.1"]
    query(cache, entry, 3, "10.0.0.1", "10.0.0.2", "10.0.0.3")
    assert taken(entry) == ["10.0.0.1"]  # one is enough


def test_an_address_that_came_back_keeps_its_count_of_failures() -> None:
    cache, entry = one_entry()
    query(cache, entry, 0, "10.0.0.1")
    for failures in range(1, 4):
        entry.record_failure(an_address("10.0.0.1"))
        query(cache, entry, failures, "10.0.0.1")
        assert entry.take()[0].connection_failure_count == failures
        query(cache, entry, failures, "10.0.0.1")
        assert entry.take()[0].connection_failure_count == failures


def test_a_second_failure_is_counted_but_does_not_prolong_the_rest() -> None:
    cache, entry = one_entry()
    query(cache, entry, 0, "10.0.0.1", "10.0.0.2")
    entry.record_failure(an_address("10.0.0.1"))
    entry.record_failure(an_address("10.0.0.2"))
    entry.record_failure(an_address("10.0.0.1"))
    query(cache, entry, 1, "10.0.0.1", "10.0.0.2")
    (back,) = entry.take()
    assert (back.address, back.connection_failure_count) == ("10.0.0.1", 2)


def test_families_fail_apart() -> None:
    cache, entry = one_entry()
    query(cache, entry, 0, "10.0.0.1", "fd00::1")
    entry.record_failure(an_address("fd00::1"))
    assert taken(entry) == ["10.0.0.1"]
    assert (entry.address_count(A), entry.address_count(AAAA)) == (1, 0)


def test_unknown_addresses_do_no_harm() -> None:
    cache, entry = one_entry()
    query(cache, entry, 0, "10.0.0.1")
    entry.record_failure(an_address("10.9.9.9"))
    entry.record_failure(an_address("fd00::9"))
    assert taken(entry) == ["10.0.0.1"]


def test_while_dns_fails_even_an_expired_failed_address_is_better_than_none() -> None:
    cache, entry = one_entry()
    query(cache, entry, 0, "10.0.0.1", "10.0.0.2")
    entry.record_failure(an_address("10.0.0.1"))
    entry.record_failure(an_address("10.0.0.2"))
    query(cache, entry, 1000)
    assert taken(entry) == taken(entry) == ["10.0.0.1"]
    entry.record_failure(an_address("10.0.0.1"))
    query(cache, entry, 1001)
    assert taken(entry) == ["10.0.0.1"]


# When there is a query


def test_a_new_entry_is_queried_at_once() -> None:
    cache, entry = one_entry(now=5.0)
    entry.waiters.append("somebody")
    assert entry.next_look() < 5.0
    assert cache.look(entry, 5.0) is EntryState.QUEUED
    assert cache.look(entry, 5.0) is EntryState.QUEUED
    assert cache.begin(entry)
    assert entry.state is EntryState.QUERYING
    assert not cache.begin(entry)


@pytest.mark.parametrize(
    ("max_ttl", "frequency", "ttl", "interval"),
    [
        (30, 1, None, 1),
        (30, 120, None, 30),
        (30, 0.001, None, MINIMUM_WAIT),
        (0.5, 1, None, 0.5),
        (30, 20, 10.0, 10.0),
        (30, 20, 0.0, MINIMUM_TTL),
        (math.inf, math.inf, None, 500),
    ],
)
def test_the_interval_between_queries(
    max_ttl: float, frequency: float, ttl: float | None, interval: float
) -> None:
    cache, entry = one_entry(HostResolutionConfig(max_ttl=max_ttl, resolve_frequency=frequency))
    query(cache, entry, 7.0, ResolvedAddress("10.0.0.1", ttl), ResolvedAddress("fd00::1", 500))
    assert entry.next_look() == 7.0 + interval


def test_the_ttl_of_an_old_answer_does_not_count() -> None:
    cache, entry = one_entry(HostResolutionConfig(resolve_frequency=20))
    query(cache, entry, 0, ResolvedAddress("10.0.0.1", 2))
    assert entry.next_look() == 2
    query(cache, entry, 2)
    assert entry.next_look() == 22


def test_a_waiter_hastens_the_query_but_not_below_the_minimum() -> None:
    cache, entry = one_entry()
    query(cache, entry, 10.0, "10.0.0.1")
    assert entry.next_look() == 11.0
    entry.record_failure(an_address("10.0.0.1"))
    assert entry.next_look() == 11.0
    entry.waiters.append("somebody")
    assert entry.next_look() == 10.0 + MINIMUM_WAIT


def test_queries_go_on_while_somebody_asks() -> None:
    cache, entry = one_entry()
    query(cache, entry, 0, "10.0.0.1")
    for now in range(1, 100):
        if now < 50:
            entry.asked = True
        state = cache.look(entry, now)
        if now < 49 + CONFIG.max_ttl:
            assert state is EntryState.QUEUED
            assert cache.begin(entry)
            entry.answered([ResolvedAddress("10.0.0.1")], now)
        else:
            assert state is EntryState.ENDED
    assert cache.entries == {}


def test_one_question_is_one_query_if_the_interval_is_as_long_as_the_ttl() -> None:
    cache, entry = one_entry(HostResolutionConfig(max_ttl=30, resolve_frequency=30))
    query(cache, entry, 0, "10.0.0.1")
    assert cache.look(entry, entry.next_look()) is EntryState.ENDED


def test_a_host_without_addresses_is_not_queried_for_nobody() -> None:
    cache, entry = one_entry()
    query(cache, entry, 10.0)
    assert entry.next_look() == 10.0 + MINIMUM_WAIT
    assert cache.look(entry, entry.next_look()) is EntryState.ENDED
    assert cache.entries == {}


def test_a_host_with_failed_addresses_only_is_kept() -> None:
    cache, entry = one_entry()
    query(cache, entry, 0, "10.0.0.1")
    entry.record_failure(an_address("10.0.0.1"))
    assert entry.next_look() == 1
    assert cache.look(entry, 1) is EntryState.QUEUED


# Dropping and displacing


def test_a_dropped_entry_ends_when_it_is_looked_at() -> None:
    cache, entry = one_entry()
    query(cache, entry, 0, "10.0.0.1")
    assert cache.drop("host.test") == [entry]
    assert cache.drop("host.test") == []
    assert entry.next_look() == -math.inf
    assert cache.look(entry, 0) is EntryState.ENDED


def test_a_dropped_entry_serves_those_who_wait() -> None:
    cache, entry = one_entry()
    entry.waiters.append("somebody")
    assert cache.look(entry, 0) is EntryState.QUEUED
    assert cache.drop() == [entry]
    assert cache.begin(entry)
    entry.answered([ResolvedAddress("10.0.0.1")], 0)
    assert entry.state is EntryState.ENDED
    assert taken(entry) == ["10.0.0.1"]
    assert cache.entries == {}


def test_a_dropped_entry_that_is_queued_for_nobody_is_not_queried() -> None:
    cache, entry = one_entry()
    query(cache, entry, 0, "10.0.0.1")
    assert cache.look(entry, 1) is EntryState.QUEUED
    cache.drop()
    assert not cache.begin(entry)
    assert entry.state is EntryState.ENDED


def test_an_entry_whose_waiters_left_before_its_turn_is_not_queried() -> None:
    cache, entry = one_entry()
    entry.waiters.append("somebody")
    assert cache.look(entry, 0) is EntryState.QUEUED
    entry.waiters.clear()
    assert not cache.begin(entry)
    assert entry.state is EntryState.ENDED
    assert cache.entries == {}


def test_a_new_entry_of_the_same_name_is_not_touched_by_the_old_ones_end() -> None:
    cache, old = one_entry()
    query(cache, old, 0, "10.0.0.1")
    cache.drop("host.test")
    new, _ = cache.ask("host.test", None, CONFIG, 0)
    assert cache.look(old, 1) is EntryState.ENDED
    assert cache.entries == {"host.test": new}


def test_the_host_asked_for_least_recently_makes_room() -> None:
    cache: Cache = HostCache(3)
    entries = {name: cache.ask(name, None, CONFIG, now)[0] for now, name in enumerate("abc")}
    cache.ask("a", None, CONFIG, 3)
    entries["b"].asked = True
    _, dropped = cache.ask("d", None, CONFIG, 4)
    assert dropped == [entries["c"]]
    assert set(cache.entries) == set("abd")


def test_a_later_configuration_holds_from_then_on() -> None:
    cache, entry = one_entry()
    query(cache, entry, 0, "10.0.0.1")
    config = HostResolutionConfig(max_ttl=5, resolve_frequency=3)
    assert cache.ask("host.test", config, CONFIG, 0) == (entry, [])
    assert entry.next_look() == 3
    assert cache.ask("host.test", None, CONFIG, 0) == (entry, [])
    assert entry.config is config


def test_another_lookup_starts_afresh_and_takes_the_waiters_with_it() -> None:
    cache, old = one_entry()
    query(cache, old, 0, "10.0.0.1")
    old.waiters.append("somebody")
    config = HostResolutionConfig(impl=lambda host: ["10.0.0.9"])
    new, dropped = cache.ask("host.test", config, CONFIG, 1)
    assert dropped == [old]
    assert new.waiters == ["somebody"]
    assert old.waiters == []
    assert taken(new) == []
    assert cache.look(old, 1) is EntryState.ENDED
    assert cache.ask("host.test", config, CONFIG, 2) == (new, [])


# Misuse


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_ttl": 0}, "max_ttl must be 0.1 seconds or more"),
        ({"max_ttl": math.nan}, "max_ttl must be"),
        ({"max_ttl": -1}, "max_ttl must be"),
        ({"resolve_frequency": 0}, "resolve_frequency must be a positive"),
        ({"resolve_frequency": math.nan}, "resolve_frequency must be"),
    ],
)
def test_impossible_configurations(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        HostResolutionConfig(**options)


def test_a_lookup_must_be_callable() -> None:
    impl: Any = "10.0.0.1"
    with pytest.raises(TypeError, match="a function or a coroutine function"):
        HostResolutionConfig(impl=impl)


@pytest.mark.parametrize("state", EntryState)
@pytest.mark.parametrize("target", EntryState)
def test_only_legal_moves_are_made(state: EntryState, target: EntryState) -> None:
    _, entry = one_entry()
    entry.state = state
    if target in LEGAL_MOVES[state]:
        entry._move(target)
        assert entry.state is target
    else:
        with pytest.raises(RuntimeError, match=f"host.test {state.name}.* cannot become"):
            entry._move(target)
