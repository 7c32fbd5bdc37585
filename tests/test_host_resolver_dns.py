"""The resolver on DNS itself: a real server, which fails in the ways that servers do."""

import asyncio
import sys
from collections.abc import Awaitable, Callable, Iterator

import pytest

from aws_io_async.errors import AwsIoError, DnsError, ErrorCode
from aws_io_async.host_resolver import HostResolver, ResolvedAddress
from tests import dns_server
from tests.dns_server import DnsServer
from tests.lookups import Clock, Make, addresses, at_once, making_resolvers

dns_resolver = pytest.importorskip("aws_io_async.integrations.dns")
DnsResolver = dns_resolver.DnsResolver

NAME = "example.test"


@pytest.fixture
def make() -> Iterator[Make]:
    with making_resolvers() as make:
        yield make


@pytest.fixture
def server() -> Iterator[DnsServer]:
    with DnsServer() as server:
        yield server


@pytest.fixture
def lookup(server: DnsServer) -> Callable[[str], Awaitable[list[ResolvedAddress]]]:
    """To be called by the resolver, or by a test on its own loop."""
    found: Callable[[str], Awaitable[list[ResolvedAddress]]] = DnsResolver(
        [server.address], timeout=1, server_timeout=0.3
    )
    return found


Lookup = Callable[[str], Awaitable[list[ResolvedAddress]]]


async def refreshed(server: DnsServer) -> None:
    """Wait until two lookups have begun anew, each of two questions: the first one is over."""
    await server.asked.goes_up_by(4)


# Lookups on any loop


async def test_both_families_with_their_ttl(server: DnsServer, lookup: Lookup) -> None:
    server.records[NAME, "A"] = [("10.0.0.1", 7), ("10.0.0.2", 7)]
    server.records[NAME, "AAAA"] = [("fd00::1", 300)]
    assert sorted(await lookup(NAME)) == [("10.0.0.1", 7), ("10.0.0.2", 7), ("fd00::1", 300)]
    assert sorted(server.questions) == [(NAME, "A"), (NAME, "AAAA")]


async def test_one_family_only(server: DnsServer, lookup: Lookup) -> None:
    server.records[NAME, "A"] = [("10.0.0.1", 60)]
    assert await lookup(f"{NAME}.") == [ResolvedAddress("10.0.0.1", 60)]


async def test_the_shortest_ttl_on_the_way_counts(server: DnsServer, lookup: Lookup) -> None:
    server.records["www.test", "CNAME"] = [("cdn.test", 20)]
    server.records["cdn.test", "CNAME"] = [("edge.test", 5)]
    server.records["edge.test", "A"] = [("10.0.0.1", 60)]
    assert await lookup("www.test") == [ResolvedAddress("10.0.0.1", 5)]


async def test_a_large_answer_comes_by_tcp(server: DnsServer, lookup: Lookup) -> None:
    server.records[NAME, "A"] = [(f"10.0.1.{n}", 60) for n in range(200)]
    assert len(await lookup(NAME)) == 200


@pytest.mark.parametrize("host", ["localhost", "localhost.", "db.localhost"])
async def test_localhost_is_not_asked_for(server: DnsServer, lookup: Lookup, host: str) -> None:
    assert [item.address for item in await lookup(host)] == ["::1", "127.0.0.1"]
    assert server.questions == []


async def test_no_such_name(lookup: Lookup) -> None:
    with pytest.raises(AwsIoError, match=r"(?i)does not exist: example.test") as caught:
        await lookup(NAME)
    assert caught.value.code is ErrorCode.IO_DNS_INVALID_NAME


async def test_a_name_without_addresses(server: DnsServer, lookup: Lookup) -> None:
    server.records[NAME, "MX"] = []
    with pytest.raises(AwsIoError, match="neither AAAA nor A records") as caught:
        await lookup(NAME)
    assert caught.value.code is ErrorCode.IO_DNS_NO_ADDRESS_FOR_HOST


@pytest.mark.parametrize(
    ("rcode", "text"), [(dns_server.SERVFAIL, "SERVFAIL"), (dns_server.REFUSED, "REFUSED")]
)
async def test_a_server_that_cannot_answer(
    server: DnsServer, lookup: Lookup, rcode: int, text: str
) -> None:
    server.fail(rcode)
    with pytest.raises(AwsIoError, match=text) as caught:
        await lookup(NAME)
    assert caught.value.code is ErrorCode.IO_DNS_QUERY_AGAIN
    assert str(server.address[1]) in str(caught.value)


@pytest.mark.parametrize("dead", [False, True])
async def test_a_server_that_says_nothing(server: DnsServer, dead: bool) -> None:
    server.silent = True
    if dead:
        server.stop()
    with pytest.raises(AwsIoError, match=f"{server.address[1]} answered .* timed out") as caught:
        await DnsResolver([server.address], timeout=0.2)(NAME)
    assert caught.value.code is ErrorCode.IO_DNS_QUERY_AGAIN


async def test_the_next_server_is_asked(server: DnsServer) -> None:
    server.records[NAME, "A"] = [("10.0.0.1", 60)]
    with DnsServer() as dead:
        pass
    lookup = DnsResolver([dead.address, server.address], server_timeout=0.1)
    assert await lookup(NAME) == [ResolvedAddress("10.0.0.1", 60)]


@pytest.mark.parametrize("failing", ["A", "AAAA"])
async def test_one_family_answers_though_the_other_fails(
    server: DnsServer, lookup: Lookup, failing: str
) -> None:
    server.records[NAME, "A"] = [("10.0.0.1", 60)]
    server.records[NAME, "AAAA"] = [("fd00::1", 60)]
    server.rcodes[failing] = dns_server.SERVFAIL
    (found,) = await lookup(NAME)
    assert found.record_type.name != failing


async def test_a_failure_that_may_pass_counts_more_than_no_records(
    server: DnsServer, lookup: Lookup
) -> None:
    server.records[NAME, "MX"] = []
    server.rcodes["A"] = dns_server.SERVFAIL
    with pytest.raises(AwsIoError) as caught:
        await lookup(NAME)
    assert caught.value.code is ErrorCode.IO_DNS_QUERY_AGAIN


async def test_cancelling_a_lookup(server: DnsServer, lookup: Lookup) -> None:
    server.silent = True
    waiting = asyncio.ensure_future(lookup(NAME))
    await server.asked.reaches(2)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


def test_without_configuration_there_is_no_name_server(monkeypatch: pytest.MonkeyPatch) -> None:
    import dns.resolver

    def none(*args: object) -> None:
        raise dns.resolver.NoResolverConfiguration

    monkeypatch.setattr(dns.resolver.BaseResolver, "read_resolv_conf", none)
    with pytest.raises(DnsError, match="no name server"):
        DnsResolver()
    assert repr(DnsResolver(["127.0.0.1"])) == "<DnsResolver Do53:127.0.0.1@53>"


def test_a_name_server_is_given_by_its_address() -> None:
    with pytest.raises(ValueError, match=r"by its address, not as 'dns\.test'"):
        DnsResolver(["dns.test"])


# The cache on top of it


async def test_the_ttl_caps_expiry(server: DnsServer, lookup: Lookup, make: Make) -> None:
    server.records[NAME, "A"] = [("10.0.0.1", 7)]
    server.records[NAME, "AAAA"] = [("fd00::1", 300)]
    resolver = make(lookup, clock=Clock())
    assert [item.expiry for item in await resolver.resolve_host(NAME)] == [30, 7]


async def test_a_record_whose_ttl_is_over_gives_way(
    server: DnsServer, lookup: Lookup, make: Make
) -> None:
    clock = Clock()
    server.records[NAME, "A"] = [("10.0.0.1", 7)]
    resolver = make(lookup, clock=clock, resolve_frequency=0.1)
    await resolver.resolve_host(NAME)
    server.records[NAME, "A"] = [("10.0.0.2", 7)]
    await refreshed(server)
    assert resolver.get_host_address_count(NAME) == 2
    clock.now = 7
    await refreshed(server)
    assert addresses(at_once(resolver.resolve_host(NAME))) == ["10.0.0.2"]
    assert resolver.get_host_address_count(NAME) == 1


async def test_answers_that_change_each_time_add_up_to_the_fleet(
    server: DnsServer, lookup: Lookup, make: Make
) -> None:
    resolver = make(lookup, resolve_frequency=0.1)
    for number in range(4):
        server.records[NAME, "A"] = [(f"10.0.0.{number}", 60)]
        if number:
            await refreshed(server)
        else:
            await resolver.resolve_host(NAME)
    seen = {at_once(resolver.resolve_host(NAME))[0].address for _ in range(4)}
    assert seen == {f"10.0.0.{number}" for number in range(4)}


async def test_a_server_that_dies_and_comes_back_while_records_expire(
    server: DnsServer, make: Make
) -> None:
    clock = Clock()
    server.records[NAME, "A"] = [("10.0.0.1", 60), ("10.0.0.2", 60)]
    lookup = DnsResolver([server.address], timeout=0.2)
    resolver = make(lookup, clock=clock, resolve_frequency=0.1)
    await resolver.resolve_host(NAME)
    server.stop()
    clock.now = 29
    failed = resolver.statistics().failed_lookups
    while resolver.statistics().failed_lookups == failed:
        assert at_once(resolver.resolve_host(NAME))
        await asyncio.sleep(0.02)
    assert resolver.get_host_address_count(NAME) == 2
    clock.now = 31
    while resolver.get_host_address_count(NAME) == 2:
        assert at_once(resolver.resolve_host(NAME))
        await asyncio.sleep(0.02)
    assert resolver.get_host_address_count(NAME) == 1
    last = addresses(at_once(resolver.resolve_host(NAME)))
    assert last == addresses(at_once(resolver.resolve_host(NAME)))
    server.records[NAME, "A"] = [("10.0.0.3", 60)]
    server.start()
    await refreshed(server)
    assert addresses(at_once(resolver.resolve_host(NAME))) == ["10.0.0.3"]


async def test_a_failure_is_told_with_the_name(
    server: DnsServer, lookup: Lookup, make: Make
) -> None:
    server.fail(dns_server.SERVFAIL)
    resolver = make(lookup)
    with pytest.raises(DnsError, match=rf"{NAME}: .*SERVFAIL") as caught:
        await resolver.resolve_host(NAME)
    assert caught.value.code is ErrorCode.IO_DNS_QUERY_AGAIN
    server.fail(dns_server.NOERROR)
    with pytest.raises(DnsError, match=f"{NAME}: ") as caught:
        await resolver.resolve_host(NAME)
    assert caught.value.code is ErrorCode.IO_DNS_INVALID_NAME


async def test_shutdown_cancels_lookups(server: DnsServer, lookup: Lookup, make: Make) -> None:
    server.silent = True
    resolver = make(lookup)
    waiting = asyncio.ensure_future(resolver.resolve_host(NAME))
    await server.asked.reaches(2)
    resolver.shutdown()
    with pytest.raises(DnsError, match="the resolver was shut down"):
        await waiting


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has all of 127.0.0.0/8 on loopback")
async def test_traffic_leaves_a_dead_server_and_comes_back(
    server: DnsServer, lookup: Lookup, make: Make
) -> None:
    clock = Clock()
    fleet = [f"127.0.0.{number}" for number in (2, 3, 4)]
    server.records[NAME, "A"] = [(address, 60) for address in fleet]
    resolver = make(lookup, clock=clock, resolve_frequency=0.1)
    listeners = {fleet[0]: await listen(fleet[0], 0)}
    port = listeners[fleet[0]].sockets[0].getsockname()[1]
    for address in fleet[1:]:
        listeners[address] = await listen(address, port)
    assert [await connected_to(resolver, port) for _ in range(3)] == fleet
    listeners[fleet[1]].close()
    await listeners[fleet[1]].wait_closed()
    for _ in range(3):
        assert await connected_to(resolver, port) != fleet[1]
    assert resolver.get_host_address_count(NAME) == 2
    listeners[fleet[1]] = await listen(fleet[1], port)
    clock.now = 30
    await refreshed(server)
    assert {await connected_to(resolver, port) for _ in range(3)} == set(fleet)
    for listener in listeners.values():
        listener.close()
        await listener.wait_closed()


async def listen(address: str, port: int) -> asyncio.Server:
    return await asyncio.start_server(lambda reader, writer: writer.close(), address, port)


async def connected_to(resolver: HostResolver, port: int) -> str:
    """Connect to the name, as clients do: to the next address if one fails."""
    while True:
        (address,) = await resolver.resolve_host(NAME)
        try:
            reader, writer = await asyncio.open_connection(address.address, port)
        except ConnectionRefusedError:
            resolver.record_connection_failure(address)
            continue
        await reader.read()
        writer.close()
        await writer.wait_closed()
        return address.address
