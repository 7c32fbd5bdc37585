"""The addresses to try for one connection: whose turn it is, then the others that are good."""

from collections.abc import Iterator

import pytest

from aws_io_async.errors import DnsError, ErrorCode
from aws_io_async.host_resolver import HostResolutionConfig
from tests.lookups import Clock, Lookup, Make, addresses, at_once, making_resolvers

HOST = "example.test"


@pytest.fixture
def make() -> Iterator[Make]:
    with making_resolvers() as make:
        yield make


async def test_the_next_in_turn_then_the_others_of_each_family_in_turn(make: Make) -> None:
    four, six = [f"10.0.0.{n}" for n in (1, 2, 3)], [f"fd00::{n}" for n in (1, 2)]
    resolver = make(Lookup([*four, *six]), clock=Clock())
    assert addresses(await resolver.resolve_candidates(HOST)) == [
        "fd00::1",
        "10.0.0.1",
        "fd00::2",
        "10.0.0.2",
        "10.0.0.3",
    ]


async def test_only_the_first_count_as_used(make: Make) -> None:
    fleet = ["10.0.0.1", "10.0.0.2", "10.0.0.3"]
    resolver = make(Lookup(fleet), clock=Clock())
    rounds = [addresses(await resolver.resolve_candidates(HOST)) for _ in range(4)]
    assert [each[0] for each in rounds] == [*fleet, fleet[0]]
    assert all(sorted(each) == fleet for each in rounds)
    assert addresses(await resolver.resolve_host(HOST)) == [fleet[1]]


async def test_failed_ones_are_not_among_them(make: Make) -> None:
    resolver = make(Lookup(["10.0.0.1", "10.0.0.2", "10.0.0.3"]), clock=Clock())
    for address in (await resolver.resolve_candidates(HOST))[:2]:
        resolver.record_connection_failure(address)
    assert addresses(await resolver.resolve_candidates(HOST)) == ["10.0.0.3"]


async def test_there_are_eight_at_most(make: Make) -> None:
    fleet = [f"10.0.0.{n}" for n in range(100)]
    resolver = make(Lookup(fleet), clock=Clock())
    assert addresses(await resolver.resolve_candidates(HOST)) == fleet[:8]
    assert addresses(await resolver.resolve_candidates(HOST)) == fleet[1:9]


async def test_a_cached_answer_returns_without_suspending(make: Make) -> None:
    lookup = Lookup(["10.0.0.1", "10.0.0.2"])
    resolver = make(lookup)
    await resolver.resolve_candidates(HOST)
    assert len(at_once(resolver.resolve_candidates(HOST))) == 2
    assert len(at_once(resolver.resolve_candidates("EXAMPLE.test"))) == 2
    assert lookup.asked.count == 1


async def test_an_address_is_the_only_one(make: Make) -> None:
    resolver = make(Lookup(AssertionError("a lookup of a literal address")))
    assert addresses(at_once(resolver.resolve_candidates("fe80:0::1%3"))) == ["fe80::1%3"]


async def test_configurations_and_errors_are_those_of_resolve_host(make: Make) -> None:
    resolver = make(Lookup(OSError("no")))
    with pytest.raises(DnsError, match="no") as caught:
        await resolver.resolve_candidates(HOST)
    assert caught.value.code is ErrorCode.IO_DNS_QUERY_FAILED
    config = HostResolutionConfig(Lookup(["10.0.0.1"]))
    assert addresses(await resolver.resolve_candidates(HOST, config)) == ["10.0.0.1"]
