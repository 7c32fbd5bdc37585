"""The resolver: what callers get on whatever loop, and what goes on behind them."""

import asyncio
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

import aws_io_async
from aws_io_async.errors import DnsError, ErrorCode
from aws_io_async.host_resolver import (
    AddressRecordType,
    HostAddress,
    HostResolutionConfig,
    HostResolver,
    ResolvedAddress,
    default_dns_resolve,
)
from aws_io_async.host_resolver._threads import MAX_COROUTINES, NAME
from tests.lookups import (
    Answer,
    Clock,
    Lookup,
    Make,
    addresses,
    at_once,
    forgets_all,
    making_resolvers,
    resolver_threads,
)

ours = pytest.mark.loops("aws_io_async")


@pytest.fixture
def make() -> Iterator[Make]:
    with making_resolvers() as make:
        yield make


# Answers


async def test_one_address_of_each_family(make: Make) -> None:
    resolver = make(Lookup(["10.0.0.1", "fd00::1", "10.0.0.2"]), clock=Clock())
    assert await resolver.resolve_host("example.test") == [
        HostAddress("example.test", "fd00::1", AddressRecordType.AAAA, expiry=30.0),
        HostAddress("example.test", "10.0.0.1", AddressRecordType.A, expiry=30.0),
    ]


async def test_a_cached_answer_returns_without_suspending(make: Make) -> None:
    lookup = Lookup(["10.0.0.1", "10.0.0.2"])
    resolver = make(lookup)
    assert addresses(await resolver.resolve_host("example.test")) == ["10.0.0.1"]
    assert addresses(at_once(resolver.resolve_host("example.test"))) == ["10.0.0.2"]
    assert addresses(at_once(resolver.resolve_host("EXAMPLE.test"))) == ["10.0.0.1"]
    assert lookup.asked.count == 1


async def test_callers_at_the_same_time_share_a_lookup_and_go_round(make: Make) -> None:
    lookup = Lookup(["10.0.0.1", "10.0.0.2", "10.0.0.3"])
    resolver = make(lookup)
    found = await asyncio.gather(*(resolver.resolve_host("example.test") for _ in range(6)))
    assert [addresses(item) for item in found] == [[f"10.0.0.{n}"] for n in (1, 2, 3, 1, 2, 3)]
    assert lookup.asked.count == 1


async def test_a_caller_may_do_what_it_likes_with_its_list(make: Make) -> None:
    resolver = make(Lookup(["10.0.0.1"]))
    (await resolver.resolve_host("example.test")).clear()
    assert addresses(await resolver.resolve_host("example.test")) == ["10.0.0.1"]


async def test_a_coroutine_function_as_lookup(make: Make) -> None:
    threads: set[threading.Thread] = set()

    async def lookup(host: str) -> list[str]:
        await asyncio.sleep(0)
        threads.add(threading.current_thread())
        return ["10.0.0.1"]

    resolver = make(lookup)
    found = await asyncio.gather(*(resolver.resolve_host(f"{n}.test") for n in range(20)))
    assert {item[0].address for item in found} == {"10.0.0.1"}
    assert len(threads) == 1
    assert threading.current_thread() not in threads


async def test_an_object_with_an_asynchronous_call_as_lookup(make: Make) -> None:
    class AsLookup:
        async def __call__(self, host: str) -> tuple[ResolvedAddress, ...]:
            return (ResolvedAddress("10.0.0.1", ttl=5),)

    (address,) = await make(AsLookup(), clock=Clock()).resolve_host("example.test")
    assert address.expiry == 5


@ours
async def test_coroutine_lookups_are_made_side_by_side_but_not_all_at_once(make: Make) -> None:
    under_way, most = 0, 0
    full = asyncio.Event()  # of the scheduler's loop

    async def lookup(host: str) -> list[str]:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        if under_way == MAX_COROUTINES:
            full.set()
        await full.wait()
        under_way -= 1
        return ["10.0.0.1"]

    resolver = make(lookup)
    names = range(2 * MAX_COROUTINES)
    await asyncio.gather(*(resolver.resolve_host(f"{n}.test") for n in names))
    assert most == MAX_COROUTINES
    assert [thread.name for thread in resolver_threads()] == [NAME]


async def test_localhost_by_the_systems_resolver(make: Make) -> None:
    found = await make().resolve_host("localhost")
    known = {info[4][0] for info in socket.getaddrinfo("localhost", None)}
    assert set(addresses(found)) <= known


def test_default_dns_resolve_keeps_the_zone(monkeypatch: pytest.MonkeyPatch) -> None:
    def getaddrinfo(host: str, port: None, **options: Any) -> list[Any]:
        return [
            (socket.AF_INET6, 1, 6, "", ("fe80::1", 0, 0, 3)),
            (socket.AF_INET6, 1, 6, "", ("fd00::1", 0, 0, 0)),
            (socket.AF_INET, 1, 6, "", ("10.0.0.1", 0)),
            (socket.AF_UNIX, 1, 0, "", "/"),
        ]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    found = [item.address for item in default_dns_resolve("example.test")]
    assert found == ["fe80::1%3", "fd00::1", "10.0.0.1"]


def test_loops_on_several_threads_share_a_resolver(make: Make) -> None:
    lookup = Lookup([f"10.0.0.{n}" for n in range(8)])
    resolver = make(lookup)
    lookup.hold()
    found: list[str] = []

    async def ask() -> None:
        for _ in range(50):
            found.extend(addresses(await resolver.resolve_host("example.test")))

    runs = (asyncio.run, aws_io_async.run) * 2
    threads = [threading.Thread(target=run, args=(ask(),)) for run in runs]
    for thread in threads:
        thread.start()
    lookup.let_all_go()
    for thread in threads:
        thread.join()
    assert len(found) == 200
    assert len(set(found)) == 8


# Failures


@pytest.mark.parametrize(
    ("answer", "code", "message"),
    [
        (socket.gaierror(socket.EAI_AGAIN, "try"), ErrorCode.IO_DNS_QUERY_AGAIN, "try"),
        (socket.gaierror(socket.EAI_FAIL, "no"), ErrorCode.IO_DNS_QUERY_FAILED, "no"),
        (socket.gaierror(socket.EAI_NONAME, "none"), ErrorCode.IO_DNS_INVALID_NAME, "none"),
        ([], ErrorCode.IO_DNS_NO_ADDRESS_FOR_HOST, "the answer is empty"),
        (TimeoutError(), ErrorCode.IO_DNS_QUERY_AGAIN, "timed out"),
        (ZeroDivisionError(), ErrorCode.IO_DNS_QUERY_FAILED, r"raised ZeroDivisionError"),
        (SystemExit(), ErrorCode.IO_DNS_QUERY_FAILED, r"raised SystemExit"),
        (["nonsense"], ErrorCode.IO_DNS_QUERY_FAILED, "returned 'nonsense': no address"),
        ([b"10.0.0.1"], ErrorCode.IO_DNS_QUERY_FAILED, "returned b'10.0.0.1': no address"),
        ([("10.0.0.1", 5)], ErrorCode.IO_DNS_QUERY_FAILED, "or no ResolvedAddress"),
        ([ResolvedAddress("10.0.0.1", -1)], ErrorCode.IO_DNS_QUERY_FAILED, "ttl=-1"),
        (None, ErrorCode.IO_DNS_QUERY_FAILED, "NoneType"),
    ],
)
async def test_what_a_failed_lookup_looks_like(
    make: Make, answer: Answer, code: ErrorCode, message: str
) -> None:
    resolver = make(Lookup(answer))
    with pytest.raises(DnsError, match=f"example.test: .*{message}") as caught:
        await resolver.resolve_host("example.test")
    assert caught.value.code is code
    if isinstance(answer, BaseException):
        assert caught.value.__cause__ is answer
    assert resolver.get_host_address_count("example.test") == 0


async def test_coroutine_lookups_fail_alike(make: Make) -> None:
    async def lookup(host: str) -> list[str]:
        if host == "cancelled.test":
            raise asyncio.CancelledError
        raise ZeroDivisionError(host)

    resolver = make(lookup)
    for name in ("one.test", "cancelled.test"):
        with pytest.raises(DnsError, match=f"{name}: the lookup raised"):
            await resolver.resolve_host(name)


async def test_a_plain_function_that_returns_a_coroutine_is_told_so(make: Make) -> None:
    async def lookup(host: str) -> list[str]:
        return ["10.0.0.1"]

    with pytest.raises(DnsError, match="must be declared with `async def`"):
        await make(lambda host: lookup(host)).resolve_host("example.test")


async def test_each_caller_has_an_exception_of_its_own(make: Make) -> None:
    failure = ZeroDivisionError()
    resolver = make(Lookup(failure))
    errors = await asyncio.gather(
        *(resolver.resolve_host("example.test") for _ in range(3)), return_exceptions=True
    )
    assert len({id(error) for error in errors}) == 3
    assert [isinstance(error, BaseException) and error.__cause__ for error in errors] == (
        [failure] * 3
    )


async def test_failures_are_not_cached_but_do_not_make_a_storm_either(make: Make) -> None:
    lookup = Lookup(OSError(), ["10.0.0.1"])
    resolver = make(lookup)
    with pytest.raises(DnsError):
        await resolver.resolve_host("example.test")
    assert addresses(await resolver.resolve_host("example.test")) == ["10.0.0.1"]
    first, second = lookup.times
    assert second - first > 0.09


async def test_a_host_that_has_no_address_is_not_looked_up_for_nobody(make: Make) -> None:
    lookup = Lookup(OSError())
    resolver = make(lookup, resolve_frequency=0.1)
    with pytest.raises(DnsError):
        await resolver.resolve_host("example.test")
    await forgets_all(resolver)
    assert lookup.asked.count == 1


# Refreshing


async def test_addresses_are_refreshed_while_somebody_asks(make: Make) -> None:
    lookup = Lookup(["10.0.0.1"], ["10.0.0.2"], ["10.0.0.3"])
    resolver = make(lookup, resolve_frequency=0.1)
    await resolver.resolve_host("example.test")
    await lookup.asked.reaches(4)
    assert resolver.get_host_address_count("example.test") == 3
    found = [at_once(resolver.resolve_host("example.test"))[0].address for _ in range(3)]
    assert sorted(found) == ["10.0.0.1", "10.0.0.2", "10.0.0.3"]


async def test_a_host_that_nobody_asks_for_is_forgotten(make: Make) -> None:
    lookup = Lookup(["10.0.0.1"])
    clock = Clock()
    resolver = make(lookup, resolve_frequency=0.1, clock=clock)
    await resolver.resolve_host("example.test")
    clock.now = 29.9
    await lookup.asked.goes_up_by(2)
    clock.now = 30.0
    await forgets_all(resolver)
    asked = lookup.asked.count
    assert resolver.get_host_address_count("example.test") == 0
    await resolver.resolve_host("example.test")
    assert lookup.asked.count == asked + 1


async def test_an_outage_leaves_the_last_address(make: Make) -> None:
    clock = Clock()
    lookup = Lookup(["10.0.0.1", "10.0.0.2"], OSError("outage"))
    resolver = make(lookup, resolve_frequency=0.1, max_ttl=5, clock=clock)
    await resolver.resolve_host("example.test")
    clock.now = 6.0
    at_once(resolver.resolve_host("example.test"))
    await lookup.asked.goes_up_by(2)
    assert resolver.get_host_address_count("example.test") == 1
    lookup.answers = [["10.0.0.3"]]
    await lookup.asked.goes_up_by(2)
    assert addresses(at_once(resolver.resolve_host("example.test"))) == ["10.0.0.3"]
    assert resolver.get_host_address_count("example.test") == 1


async def test_when_all_addresses_failed_a_caller_wakes_the_refresh(make: Make) -> None:
    lookup = Lookup(["10.0.0.1"], ["10.0.0.1", "10.0.0.2"])
    resolver = make(lookup, resolve_frequency=1000, max_ttl=1000)
    (address,) = await resolver.resolve_host("example.test")
    resolver.record_connection_failure(address)
    assert resolver.get_host_address_count("example.test") == 0
    assert addresses(await resolver.resolve_host("example.test")) == ["10.0.0.2"]
    assert lookup.asked.count == 2


async def test_a_configuration_given_with_a_call_holds_from_then_on(make: Make) -> None:
    lookup = Lookup(["10.0.0.1"])
    resolver = make(lookup, resolve_frequency=1000, max_ttl=1000)
    await resolver.resolve_host("example.test")
    at_once(resolver.resolve_host("example.test", HostResolutionConfig(resolve_frequency=0.1)))
    await lookup.asked.reaches(3)


async def test_what_is_no_configuration_is_refused_and_not_kept(make: Make) -> None:
    resolver = make(Lookup(["10.0.0.1"]))
    junk: Any = {"max_ttl": 5}
    with pytest.raises(TypeError, match=r"config must be a HostResolutionConfig, not \{"):
        await resolver.resolve_host("example.test", junk)
    assert addresses(await resolver.resolve_host("example.test")) == ["10.0.0.1"]
    with pytest.raises(TypeError, match="config must be a HostResolutionConfig"):
        HostResolver(config=junk)


async def test_another_lookup_for_the_host_drops_what_is_known(make: Make) -> None:
    resolver = make(Lookup(["10.0.0.1"]))
    other = HostResolutionConfig(impl=Lookup(["10.0.0.9"]))
    await resolver.resolve_host("example.test")
    assert addresses(await resolver.resolve_host("example.test", other)) == ["10.0.0.9"]
    assert addresses(at_once(resolver.resolve_host("example.test"))) == ["10.0.0.9"]
    assert addresses(at_once(resolver.resolve_host("example.test", other))) == ["10.0.0.9"]


async def test_whoever_waits_for_a_lookup_that_is_replaced_gets_the_new_ones_answer(
    make: Make,
) -> None:
    lookup = Lookup(["10.0.0.1"])
    lookup.hold()
    resolver = make(lookup)
    waiting = asyncio.ensure_future(resolver.resolve_host("example.test"))
    await lookup.asked.reaches(1)
    other = HostResolutionConfig(impl=Lookup(["10.0.0.9"]))
    assert addresses(await resolver.resolve_host("example.test", other)) == ["10.0.0.9"]
    assert addresses(await waiting) == ["10.0.0.9"]
    lookup.let_all_go()
