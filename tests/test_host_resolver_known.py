"""What can be seen of a resolver's cache, without asking it for anything."""

import pytest

from aws_io_async.errors import ErrorCode
from aws_io_async.host_resolver import KnownAddresses
from tests.lookups import Clock, Lookup, addresses, making_resolvers
from tests.socket_tools import raises

HOST = "example.com"


async def test_good_addresses_in_the_order_in_which_they_are_given_out() -> None:
    with making_resolvers() as make:
        resolver = make(Lookup(["10.0.0.1", "10.0.0.2", "10.0.0.3", "::1", "::2"]), clock=Clock())
        await resolver.resolve_host(HOST)
        known = resolver.known_addresses(HOST.upper())
        assert addresses([*known.good]) == ["::2", "::1", "10.0.0.2", "10.0.0.3", "10.0.0.1"]
        assert known.failed == ()
        assert {address.expiry for address in known.good} == {30.0}
        assert known == resolver.known_addresses(HOST)  # looking turns nothing
        given = await resolver.resolve_host(HOST)
        assert addresses(given) == ["::2", "10.0.0.2"]


async def test_failed_addresses_are_apart() -> None:
    with making_resolvers() as make:
        resolver = make(Lookup(["10.0.0.1", "10.0.0.2"]), clock=Clock())
        (first,) = await resolver.resolve_host(HOST)
        resolver.record_connection_failure(first)
        known = resolver.known_addresses(HOST)
        assert addresses([*known.good]) == ["10.0.0.2"]
        assert addresses([*known.failed]) == [first.address]
        assert known.failed[0].connection_failure_count == 1


@pytest.mark.loops("aws_io_async")
async def test_what_is_not_cached_is_not_asked_for() -> None:
    with making_resolvers() as make:
        lookup = Lookup(["10.0.0.1"])
        resolver = make(lookup)
        assert resolver.known_addresses(HOST) == KnownAddresses()
        assert resolver.known_addresses("127.0.0.1") == KnownAddresses()
        with raises(ErrorCode.IO_DNS_INVALID_NAME):
            resolver.known_addresses("-no-name-")
        assert lookup.hosts == []
