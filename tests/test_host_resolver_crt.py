"""aws-c-io's own tests of its resolver (`default_host_resolver_test.c`), under their names.

Those that ask Amazon's name servers there get the same kind of answer from the system's resolver
here, which is replaced. Where they sleep until the background thread must have run, these wait for
the lookups that it makes.
"""

import socket
from collections.abc import Iterator
from typing import Any

import pytest

from aws_io_async.host_resolver import (
    AddressRecordType,
    HostAddress,
    HostAddressFlags,
    HostResolutionConfig,
    HostResolver,
)
from tests.lookups import Clock, Lookup, Make, addresses, making_resolvers

HOST = "host_address"
FOUR = ["10.0.0.1", "fd00::1", "10.0.0.2", "fd00::2"]
FIRST, SECOND = ["fd00::1", "10.0.0.1"], ["fd00::2", "10.0.0.2"]


@pytest.fixture
def make() -> Iterator[Make]:
    with making_resolvers() as make:
        yield make


@pytest.fixture
def system(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """What the system's resolver knows: addresses by name."""
    known: dict[str, list[str]] = {}

    def getaddrinfo(host: str, port: Any, **options: Any) -> list[Any]:
        return [
            (socket.AF_INET6, 1, 6, "", (address, 0, 0, 0))
            if ":" in address
            else (socket.AF_INET, 1, 6, "", (address, 0))
            for address in known[host]
        ]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return known


async def refreshed(lookup: Lookup) -> None:
    """Wait until a lookup that had not begun yet is over: the next one follows it."""
    await lookup.asked.goes_up_by(2)


async def test_default_with_ipv6_lookup(make: Make, system: dict[str, list[str]]) -> None:
    host = "s3.dualstack.us-east-1.amazonaws.com"
    system[host] = ["203.0.113.1", "2001:db8::1"]
    aaaa, a = await make(max_entries=10, max_ttl=10).resolve_host(host)
    assert (aaaa.record_type, aaaa.host) == (AddressRecordType.AAAA, host)
    assert (a.record_type, a.host) == (AddressRecordType.A, host)
    assert (aaaa.address, a.address) == ("2001:db8::1", "203.0.113.1")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("0:0::1", "::1"),
        ("::1", "::1"),
        ("0:0:0:0:0:0:0:1", "::1"),
        ("fd00:ec2:0:0:0:0:0:23", "fd00:ec2::23"),
    ],
)
async def test_default_host_resolver_ipv6_address_variations(
    make: Make, given: str, expected: str
) -> None:
    (found,) = await make(max_entries=10, max_ttl=10).resolve_host(given)
    assert (found.record_type, found.address) == (AddressRecordType.AAAA, expected)


async def test_default_with_ipv4_only_lookup(make: Make, system: dict[str, list[str]]) -> None:
    host = "s3.us-east-1.amazonaws.com"
    system[host] = ["203.0.113.1"]
    (found,) = await make(max_entries=10, max_ttl=10).resolve_host(host)
    assert (found.record_type, found.host) == (AddressRecordType.A, host)


async def test_default_with_multiple_lookups(make: Make, system: dict[str, list[str]]) -> None:
    one, other = "ec2.us-east-1.api.aws", "ec2.us-east-1.amazonaws.com"
    system[one], system[other] = ["2001:db8::1", "203.0.113.1"], ["203.0.113.2"]
    resolver = make(max_entries=10, max_ttl=10)
    for _ in range(2):
        assert addresses(await resolver.resolve_host(one)) == ["2001:db8::1", "203.0.113.1"]
        assert addresses(await resolver.resolve_host(other)) == ["203.0.113.2"]


async def test_resolver_ttls(make: Make) -> None:
    clock = Clock()
    lookup = Lookup(FIRST, SECOND, OSError("that was all"))
    resolver = make(lookup, max_entries=10, max_ttl=2, resolve_frequency=0.1, clock=clock)

    async def resolve() -> list[str]:
        return addresses(await resolver.resolve_host(HOST))

    lookup.hold()
    lookup.let_go()
    assert await resolve() == FIRST
    clock.now = 1.5
    lookup.let_all_go()
    await lookup.asked.reaches(3)
    assert await resolve() == FIRST  # what is new comes after what was there
    assert await resolve() == SECOND
    clock.now = 2.001
    await refreshed(lookup)
    assert await resolve() == SECOND  # the first have expired
    clock.now = 4
    await refreshed(lookup)
    assert await resolve() == SECOND  # these too, but they are the last


async def test_resolver_connect_failure_recording(make: Make) -> None:
    lookup = Lookup(FOUR)
    resolver = make(lookup, max_entries=10, max_ttl=30, resolve_frequency=0.1)

    async def resolve(expected: list[str]) -> list[HostAddress]:
        found = await resolver.resolve_host(HOST)
        assert addresses(found) == expected
        return found

    first = await resolve(FIRST)
    second = await resolve(SECOND)
    for address in first:
        resolver.record_connection_failure(address)
    await resolve(SECOND)
    for address in second:
        resolver.record_connection_failure(address)
    await resolve(FIRST)  # all have failed: those that rested longest
    await refreshed(lookup)
    await resolve(FIRST)  # that DNS names the others again is no reason to trust them


async def test_resolver_ttl_refreshes_on_resolve(make: Make) -> None:
    clock = Clock()
    lookup = Lookup(FOUR)
    resolver = make(lookup, max_entries=10, max_ttl=30, resolve_frequency=0.1, clock=clock)
    first = await resolver.resolve_host(HOST)
    second = await resolver.resolve_host(HOST)
    assert (addresses(first), addresses(second)) == (FIRST, SECOND)
    clock.now = 1.5
    await refreshed(lookup)
    for before in (first, second):
        after = await resolver.resolve_host(HOST)
        assert addresses(after) == addresses(before)
        assert [new.expiry - old.expiry for new, old in zip(after, before, strict=True)] == [
            1.5
        ] * 2


async def test_resolver_bad_list_expires_eventually(make: Make) -> None:
    clock = Clock()
    lookup = Lookup(["10.0.0.1", "10.0.0.2"])
    resolver = make(lookup, max_entries=10, max_ttl=2, resolve_frequency=0.1, clock=clock)
    (failed,) = await resolver.resolve_host(HOST)
    assert failed.address == "10.0.0.1"
    resolver.record_connection_failure(failed)
    for now in (1.0, 1.9):
        clock.now = now
        await refreshed(lookup)
        for _ in range(3):
            assert addresses(await resolver.resolve_host(HOST)) == ["10.0.0.2"]
    clock.now = 2.0
    await refreshed(lookup)
    seen = [addresses(await resolver.resolve_host(HOST))[0] for _ in range(2)]
    assert sorted(seen) == ["10.0.0.1", "10.0.0.2"]


async def test_resolver_ipv4_address_lookup(make: Make) -> None:
    (found,) = await make(max_entries=10, max_ttl=10).resolve_host("127.0.0.1")
    assert found == HostAddress("127.0.0.1", "127.0.0.1", AddressRecordType.A)


async def test_resolver_ipv6_address_lookup(make: Make) -> None:
    (found,) = await make(max_entries=10, max_ttl=10).resolve_host("::1")
    assert found == HostAddress("::1", "::1", AddressRecordType.AAAA)


async def resolves_to_one(resolver: HostResolver, host: str) -> None:
    (found,) = await resolver.resolve_host(host)
    assert (found.record_type, found.host) == (AddressRecordType.A, host)
    both = HostAddressFlags.A | HostAddressFlags.AAAA
    assert resolver.get_host_address_count(host, both) == 1
    assert resolver.get_host_address_count(host, HostAddressFlags.A) == 1
    assert resolver.get_host_address_count(host, HostAddressFlags.AAAA) == 0


async def test_resolver_purge_host_cache(make: Make) -> None:
    resolver = make(Lookup(["127.0.0.1"]), max_entries=10, max_ttl=10)
    await resolves_to_one(resolver, HOST)
    for _ in range(2):
        resolver.purge_host_cache(HOST)
        assert resolver.get_host_address_count(HOST) == 0
    await resolves_to_one(resolver, HOST)


async def test_resolver_purge_cache(make: Make) -> None:
    resolver = make(Lookup(["127.0.0.1"]), max_entries=10, max_ttl=10)
    await resolves_to_one(resolver, HOST)
    await resolves_to_one(resolver, "another_host")
    for _ in range(2):
        resolver.purge_cache()
        assert resolver.get_host_address_count(HOST) == 0
        assert resolver.get_host_address_count("another_host") == 0
    await resolves_to_one(resolver, HOST)


async def test_resolver_low_frequency_starvation(make: Make) -> None:
    lookup = Lookup(["10.0.0.1"])
    config = HostResolutionConfig(impl=lookup, max_ttl=30, resolve_frequency=120)
    resolver = make(max_entries=10)
    (address,) = await resolver.resolve_host(HOST, config)
    resolver.record_connection_failure(address)
    assert addresses(await resolver.resolve_host(HOST, config)) == ["10.0.0.1"]
    first, second = lookup.times
    assert second - first > 0.09  # not at once, and not in two minutes
