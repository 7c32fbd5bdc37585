"""What is given as a host: addresses in numbers, names, and what is neither."""

from collections.abc import Iterator
from typing import Any

import pytest

from aws_io_async.errors import DnsError, ErrorCode
from aws_io_async.host_resolver import AddressRecordType
from tests.lookups import Lookup, Make, at_once, making_resolvers, resolver_threads


@pytest.fixture
def make() -> Iterator[Make]:
    with making_resolvers() as make:
        yield make


# Literal addresses


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("::1", "::1"),
        ("FD00:0::1", "fd00::1"),
        ("fe80::1%eth0", "fe80::1%eth0"),
        ("fe80:0::1%3", "fe80::1%3"),
    ],
)
async def test_literal_addresses_need_no_thread_and_no_cache(
    make: Make, host: str, address: str
) -> None:
    resolver = make(Lookup(AssertionError("a lookup of a literal address")))
    (found,) = at_once(resolver.resolve_host(host))
    assert (found.host, found.address) == (host, address)
    assert found.record_type is AddressRecordType("AAAA" if ":" in host else "A")
    assert resolver_threads() == []
    assert resolver.get_host_address_count(host) == 0
    resolver.record_connection_failure(found)
    resolver.purge_host_cache(host)


# Names


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("Example.TEST", "example.test"),
        ("example.test.", "example.test."),
        ("_service.a-.test", "_service.a-.test"),
        ("bücher.test", "xn--bcher-kva.test"),
        ("例え。test", "xn--r8jz45g.test"),
        ("a" * 63 + ".test", "a" * 63 + ".test"),
        ("1.2.3.4.5", "1.2.3.4.5"),
    ],
)
async def test_names_are_looked_up_in_one_form(make: Make, host: str, name: str) -> None:
    lookup = Lookup(["10.0.0.1"])
    resolver = make(lookup)
    (address,) = await resolver.resolve_host(host)
    assert address.host == name
    assert lookup.hosts == [name]
    assert resolver.get_host_address_count(host) == 1


@pytest.mark.parametrize(
    ("host", "message"),
    [
        ("", "empty label"),
        (".", "empty label"),
        ("a..test", "empty label"),
        (".test", "empty label"),
        ("a" * 64 + ".test", "has more than 63 characters"),
        ("a." * 130, "has 259 characters"),
        ("ü" * 254, "has 254 characters"),
        ("ü" * 63, "cannot be IDNA-encoded"),
        ("-a.test", "'-a' begins with a hyphen"),
        ("a b.test", "'a b' has characters that no host name has"),
        ("a\0.test", "has characters that no host name has"),
        ("user@host.test", "has characters that no host name has"),
        ("127.0.0.1%lo", "has characters that no host name has"),
        ("fe80::1%", "has characters that no host name has"),
        ("[::1]", "without brackets"),
        ("\ud800.test", "cannot be IDNA-encoded"),
    ],
)
async def test_what_can_be_no_name_is_refused_at_once(make: Make, host: str, message: str) -> None:
    lookup = Lookup(["10.0.0.1"])
    resolver = make(lookup)
    with pytest.raises(DnsError, match=message) as caught:
        await resolver.resolve_host(host)
    assert caught.value.code is ErrorCode.IO_DNS_INVALID_NAME
    with pytest.raises(DnsError, match=message):
        resolver.purge_host_cache(host)
    assert lookup.asked.count == 0
    assert resolver_threads() == []


async def test_a_host_is_a_str(make: Make) -> None:
    host: Any = b"example.test"
    with pytest.raises(TypeError, match="a host must be a str, not bytes"):
        await make().resolve_host(host)
