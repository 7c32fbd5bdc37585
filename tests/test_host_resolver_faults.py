"""A resolver among broken answers and too many names."""

import asyncio
import gc
import random
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import pytest

from aws_io_async._host_cache import MAX_RECORDS, HostEntry
from aws_io_async.errors import AwsIoError, ErrorCode
from aws_io_async.host_resolver._threads import NAME
from tests.dns_server import DnsServer
from tests.lookups import Clock, Lookup, Make, addresses, at_once, making_resolvers
from tests.lookups import resolver_threads as threads

dns_resolver = pytest.importorskip("aws_io_async.integrations.dns")

ours = pytest.mark.loops("aws_io_async")

HOST = "example.test"


@pytest.fixture
def make() -> Iterator[Make]:
    with making_resolvers() as make:
        yield make


@pytest.fixture
def server() -> Iterator[DnsServer]:
    with DnsServer() as server:
        server.records[HOST, "A"] = [("10.0.0.1", 60)]
        yield server


# Outages


@ours
async def test_an_outage_is_a_line_in_the_log_when_it_begins_and_when_it_ends(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    down = OSError("no server answers")
    lookup = Lookup(["10.0.0.1"], down, down, down, ["10.0.0.1"])
    caplog.set_level("INFO", "aws_io_async.dns")
    await make(lookup, resolve_frequency=0.1).resolve_host(HOST)
    await lookup.asked.reaches(6)  # so the fifth has ended
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("WARNING", f"{HOST}: lookup failed: {down!r}"),
        ("INFO", f"{HOST}: found 1 addresses, after lookups that failed"),
    ]


# Broken answers


@ours
@pytest.mark.parametrize(
    "garble",
    [
        lambda answer: b"",
        lambda answer: answer[:7],
        lambda answer: answer[:-3],
        lambda answer: random.Random(1).randbytes(len(answer)),
        lambda answer: bytes([answer[0] ^ 1]) + answer[1:],
        lambda answer: answer.replace(b"example", b"another"),
        lambda answer: answer[:12] + b"\xc0\x0c" * 20,
    ],
    ids=["empty", "short", "cut", "random", "of another question's number", "other name", "loop"],
)
async def test_an_answer_that_is_none_is_not_waited_for_forever(
    server: DnsServer, make: Make, garble: Callable[[bytes], bytes]
) -> None:
    """What it is called matters less: the name that was asked for is told, and nothing hangs."""
    lookup = dns_resolver.DnsResolver([server.address], timeout=0.2, server_timeout=0.1)
    resolver = make(lookup)
    server.garble = garble
    with pytest.raises(AwsIoError, match=HOST) as caught:
        await resolver.resolve_host(HOST)
    assert caught.value.code in (ErrorCode.IO_DNS_QUERY_AGAIN, ErrorCode.IO_DNS_QUERY_FAILED)
    server.garble = None
    assert addresses(await resolver.resolve_host(HOST)) == ["10.0.0.1"]


@pytest.mark.parametrize(("ttl", "expiry"), [(0, 1.0), (2**31 - 1, 30.0)])
async def test_times_to_live_that_are_no_use(
    server: DnsServer, make: Make, ttl: int, expiry: float
) -> None:
    server.records[HOST, "A"] = [("10.0.0.1", ttl)]
    resolver = make(dns_resolver.DnsResolver([server.address]), clock=Clock())
    (address,) = await resolver.resolve_host(HOST)
    assert address.expiry == expiry


# Much of something


@ours
async def test_a_thousand_names_by_dns_take_one_thread(make: Make) -> None:
    with DnsServer() as server:
        names = [f"{number}.test" for number in range(1000)]
        server.records |= {(name, "A"): [("10.0.0.1", 1)] for name in names}
        lookup = dns_resolver.DnsResolver([server.address], timeout=20, server_timeout=5)
        resolver = make(lookup, resolve_frequency=0.1)
        found = await asyncio.gather(*map(resolver.resolve_host, names))
        assert {item[0].address for item in found} == {"10.0.0.1"}
        await server.asked.goes_up_by(len(names))  # of refreshes
        assert [thread.name for thread in threads()] == [NAME]


def host_entries() -> set[HostEntry[Any]]:
    return {thing for thing in gc.get_objects() if isinstance(thing, HostEntry)}


@ours
async def test_names_that_were_displaced_leave_nothing(make: Make) -> None:
    others = host_entries()  # of resolvers that other tests have used
    resolver = make(Lookup(["10.0.0.1"]), max_entries=100)
    for batch in range(20):
        names = [f"{batch}-{number}.test" for number in range(500)]
        assert all(await asyncio.gather(*map(resolver.resolve_host, names)))
    await resolver.resolve_host("last.test")  # what came before has been seen to
    del names
    gc.collect()
    assert len(host_entries() - others) <= 101
    refresher = resolver._refresher
    assert refresher is not None
    assert len(refresher._timers) <= 101


@ours
async def test_an_answer_that_is_another_each_time_does_not_pile_up(make: Make) -> None:
    """While the time stands still, nothing expires: then it is the number that is bounded."""
    numbers = count()
    lookup = Lookup([])

    def answer(host: str) -> list[str]:
        lookup(host)
        first = 50 * next(numbers)
        return [f"10.0.{n // 256}.{n % 256}" for n in range(first, first + 50)]

    resolver = make(answer, clock=(clock := Clock()), resolve_frequency=0.1)
    await resolver.resolve_host(HOST)
    await lookup.asked.reaches(9)
    assert resolver.get_host_address_count(HOST) == MAX_RECORDS
    clock.now = 29.0
    at_once(resolver.resolve_host(HOST))
    await lookup.asked.goes_up_by(2)
    clock.now = 31.0
    await lookup.asked.goes_up_by(2)
    assert resolver.get_host_address_count(HOST) < MAX_RECORDS
