"""The resolver's threads: how few there are, who goes first, and how they end."""

import asyncio
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from aws_io_async.errors import DnsError, ErrorCode, InvalidStateError
from aws_io_async.event_loop.entry import new_event_loop
from aws_io_async.host_resolver import HostResolutionConfig, HostResolver
from aws_io_async.host_resolver._threads import MAX_WORKERS, NAME, ResolverThreads
from tests.lookups import Lookup, Make, addresses, at_once, making_resolvers, resolver_threads
from tests.tally import Tally
from tests.test_fork import in_child

ours = pytest.mark.loops("aws_io_async")
MAX_THREADS = 8


@pytest.fixture
def make() -> Iterator[Make]:
    with making_resolvers() as make:
        yield make


# Threads


@ours
async def test_a_thousand_names_under_refresh_take_eight_threads(make: Make) -> None:
    lookup = Lookup(["10.0.0.1"])
    resolver = make(lookup, resolve_frequency=0.1, max_entries=1000)
    lookup.hold()
    names = [f"{number}.test" for number in range(1000)]
    asking = [asyncio.ensure_future(resolver.resolve_host(name)) for name in names]
    await lookup.asked.reaches(MAX_WORKERS)
    lookup.let_all_go()
    await asyncio.gather(*asking)
    await lookup.asked.reaches(3000)
    assert len(resolver_threads()) == MAX_THREADS
    assert lookup.most == MAX_WORKERS
    assert min(lookup.hosts.count(name) for name in names) > 1
    assert all(at_once(resolver.resolve_host(name)) for name in names)


@ours
async def test_ten_thousand_names_do_not_outgrow_the_cache(make: Make) -> None:
    resolver = make(Lookup(["10.0.0.1"]), max_entries=100)
    for batch in range(20):
        names = [f"{batch}-{number}.test" for number in range(500)]
        assert all(await asyncio.gather(*map(resolver.resolve_host, names)))
    assert resolver.statistics().hosts == 100
    assert resolver.statistics().waiting == 0
    assert resolver.statistics().lookups >= 10_000
    assert len(resolver_threads()) <= MAX_THREADS
    assert at_once(resolver.resolve_host("19-499.test"))


async def test_a_caller_does_not_wait_behind_the_refreshing_of_others(make: Make) -> None:
    lookup = Lookup(["10.0.0.1"])
    resolver = make(lookup, resolve_frequency=0.1)
    names = [f"{number}.test" for number in range(3 * MAX_WORKERS)]
    await asyncio.gather(*map(resolver.resolve_host, names))
    lookup.hold()
    await lookup.asked.reaches(len(names) + MAX_WORKERS)  # as many refreshes hang
    waiting = asyncio.ensure_future(resolver.resolve_host("new.test"))
    await asyncio.sleep(0.15)  # until the others are due, too
    lookup.let_go()
    await lookup.asked.reaches(len(names) + MAX_WORKERS + 1)
    assert lookup.hosts[-1] == "new.test"
    lookup.let_all_go()
    assert await waiting


async def test_lookups_that_hang_do_not_delay_what_is_cached(make: Make) -> None:
    lookup = Lookup(["10.0.0.1"])
    resolver = make(lookup, resolve_frequency=0.1)
    await resolver.resolve_host("example.test")
    lookup.hold()
    waiting = [
        asyncio.ensure_future(resolver.resolve_host(f"{n}.test")) for n in range(MAX_WORKERS)
    ]
    await lookup.asked.reaches(1 + MAX_WORKERS)
    assert at_once(resolver.resolve_host("example.test"))
    lookup.let_all_go()
    await asyncio.gather(*waiting)


async def test_one_after_the_other_needs_one_worker(make: Make) -> None:
    lookup = Lookup(["10.0.0.1"])
    resolver = make(lookup)
    for number in range(20):
        await resolver.resolve_host(f"{number}.test")
    assert lookup.threads == {f"{NAME}-1"}


async def test_no_thread_to_be_had(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    lookup = Lookup(["10.0.0.1"])
    resolver = make(lookup)
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name.startswith(refused):
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    refused = NAME
    with pytest.raises(RuntimeError, match="can't start new thread"):
        await resolver.resolve_host("example.test")
    refused = f"{NAME}-"
    with pytest.raises(DnsError, match="can't start new thread"):
        await resolver.resolve_host("example.test")
    refused = f"{NAME}-2"
    found = await asyncio.gather(*(resolver.resolve_host(f"{n}.test") for n in range(5)))
    assert all(found)
    assert len(lookup.threads) == 1


# Cancellation, purging, shutting down


async def test_a_cancelled_caller_leaves_the_lookup_to_the_cache(make: Make) -> None:
    lookup = Lookup(["10.0.0.1"])
    lookup.hold()
    resolver = make(lookup, resolve_frequency=0.1)
    cancelled = asyncio.ensure_future(resolver.resolve_host("example.test"))
    await lookup.asked.reaches(1)
    staying = asyncio.ensure_future(resolver.resolve_host("example.test"))
    await asyncio.sleep(0)
    cancelled.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    assert resolver.statistics().waiting == 1
    lookup.let_all_go()
    assert addresses(await staying) == ["10.0.0.1"]
    assert resolver.statistics().waiting == 0


async def test_nobody_is_left_but_the_answer_is_kept(make: Make) -> None:
    lookup = Lookup(["10.0.0.1"])
    lookup.hold()
    resolver = make(lookup, resolve_frequency=0.1)
    cancelled = asyncio.ensure_future(resolver.resolve_host("example.test"))
    await lookup.asked.reaches(1)
    cancelled.cancel()
    await asyncio.wait([cancelled])
    lookup.let_all_go()
    await lookup.asked.reaches(2)
    assert at_once(resolver.resolve_host("example.test"))


async def test_a_lookup_that_has_not_begun_is_not_made_for_nobody(make: Make) -> None:
    lookup = Lookup(["10.0.0.1"])
    resolver = make(lookup)
    await resolver.resolve_host("one.test")
    lookup.hold()
    for number in range(MAX_WORKERS):
        asyncio.ensure_future(resolver.resolve_host(f"{number}.test"))
    await lookup.asked.reaches(1 + MAX_WORKERS)
    cancelled = asyncio.ensure_future(resolver.resolve_host("late.test"))
    await asyncio.sleep(0)

    async def idle(host: str) -> list[str]:
        return ["10.0.0.1"]

    await resolver.resolve_host("idle.test", HostResolutionConfig(idle))  # late.test is in line now
    cancelled.cancel()
    await asyncio.wait([cancelled])
    lookup.let_all_go()
    await resolver.resolve_host("last.test")
    assert "late.test" not in lookup.hosts


async def test_purging_serves_those_who_wait(make: Make) -> None:
    lookup = Lookup(["10.0.0.1"], ["10.0.0.2"])
    lookup.hold()
    resolver = make(lookup)
    waiting = asyncio.ensure_future(resolver.resolve_host("example.test"))
    await lookup.asked.reaches(1)
    resolver.purge_cache()
    resolver.purge_host_cache("example.test")
    lookup.let_all_go()
    assert addresses(await waiting) == ["10.0.0.1"]
    assert addresses(await resolver.resolve_host("example.test")) == ["10.0.0.2"]


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_shutdown_with_callers_waiting(make: Make, asynchronous: bool) -> None:
    lookup = Lookup(["10.0.0.1"])
    lookup.hold()
    asked = Tally()

    async def hang(host: str) -> list[str]:
        asked.add()
        return await asyncio.get_running_loop().create_future() or [""]

    resolver = make(hang if asynchronous else lookup)
    waiting = [asyncio.ensure_future(resolver.resolve_host(f"{n}.test")) for n in range(10)]
    waiting.append(asyncio.ensure_future(resolver.resolve_host("1.test")))
    await (asked if asynchronous else lookup.asked).reaches(MAX_WORKERS)
    resolver.purge_host_cache("1.test")  # who waits for it is not forgotten
    resolver.shutdown()
    resolver.shutdown()
    for task in waiting:
        with pytest.raises(DnsError, match=r"\d.test: the resolver was shut down") as caught:
            await task
        assert caught.value.code is ErrorCode.IO_DNS_HOST_REMOVED_FROM_CACHE
    with pytest.raises(InvalidStateError, match="this resolver is shut down"):
        await resolver.resolve_host("example.test")
    assert repr(resolver) == "<HostResolver shut down>"
    lookup.let_all_go()


async def test_after_shutdown_nothing_is_left(make: Make) -> None:
    resolver = make(Lookup(["10.0.0.1"]))
    async with resolver:
        await resolver.resolve_host("example.test")
        assert repr(resolver) == "<HostResolver hosts=1>"
        assert resolver_threads()
    assert resolver.get_host_address_count("example.test") == 0
    for thread in resolver_threads():
        thread.join(10)
        assert not thread.is_alive()
    with resolver:  # ends without complaint
        resolver.purge_cache()


async def test_the_tasks_of_a_lookup_are_its_own_to_end(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    asked = Tally()

    async def ask(family: str) -> str:
        try:
            asked.add()
            return await asyncio.get_running_loop().create_future() or ""
        except asyncio.CancelledError:  # the answer had come already, and is a bad one
            raise OSError(f"no {family}") from None

    async def lookup(host: str) -> list[str]:
        return [*await asyncio.gather(ask("A"), ask("AAAA"))]

    resolver = make(lookup)
    waiting = asyncio.ensure_future(resolver.resolve_host("example.test"))
    await asked.reaches(2)
    resolver.shutdown()
    with pytest.raises(DnsError, match="the resolver was shut down"):
        await waiting
    for thread in resolver_threads():
        thread.join(10)
    assert not caplog.records


@ours
def test_a_lookup_that_is_due_as_the_threads_end() -> None:
    begun = []
    ended = []

    async def lookup(host: str) -> list[str]:
        begun.append(host)
        return ["10.0.0.1"]

    threads: ResolverThreads[str] = ResolverThreads(
        new_event_loop, lambda key: True, lambda *outcome: ended.append(outcome)
    )
    gate = threading.Event()
    threads.call(gate.wait)  # so that what follows comes to pass in one turn
    threads.stop()
    threads.call(lambda: threads.submit("key", (lookup, "example.test"), urgent=True))
    gate.set()
    for thread in resolver_threads():
        thread.join(10)
        assert not thread.is_alive()
    assert not begun
    assert not ended  # and no thread has died of it: that would be a warning


async def test_what_was_not_begun_at_shutdown_is_not_begun_any_more(make: Make) -> None:
    lookup = Lookup(["10.0.0.1"])
    lookup.hold()
    resolver = make(lookup)
    waiting = [asyncio.ensure_future(resolver.resolve_host(f"{n}.test")) for n in range(20)]
    await lookup.asked.reaches(MAX_WORKERS)
    resolver.shutdown()
    await asyncio.wait(waiting)
    assert all(task.exception() for task in waiting)
    lookup.let_all_go()
    for thread in resolver_threads():
        thread.join(10)
    assert lookup.asked.count == MAX_WORKERS


# Processes


def test_the_default_resolver_is_one() -> None:
    resolver = HostResolver.default()
    assert HostResolver.default() is resolver
    resolver.shutdown()
    assert HostResolver.default() is not resolver
    HostResolver.default().shutdown()


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_forked_child_starts_afresh(make: Make) -> None:
    lookup = Lookup(["10.0.0.1"])
    resolver = make(lookup)
    assert asyncio.run(resolver.resolve_host("example.test"))

    def child() -> None:
        assert resolver.statistics().hosts == 0
        assert asyncio.run(resolver.resolve_host("example.test"))
        assert asyncio.run(resolver.resolve_host("other.test"))
        assert lookup.asked.count == 3
        resolver.shutdown()
        for thread in resolver_threads():
            thread.join(10)
        default = HostResolver.default()
        assert asyncio.run(default.resolve_host("localhost"))

    default = HostResolver.default()
    with default._lock:  # as a thread may that is not there any more
        assert in_child(child) == ""
    assert at_once(resolver.resolve_host("example.test"))
    default.shutdown()


def test_a_lookup_that_hangs_does_not_keep_the_program_from_its_end() -> None:
    program = """
import asyncio, threading
from aws_io_async.host_resolver import HostResolutionConfig, HostResolver

def hang(host):
    begun.set()
    threading.Event().wait()

async def main():
    lookup = asyncio.ensure_future(HostResolver.default().resolve_host(
        "example.test", HostResolutionConfig(hang)))
    await asyncio.to_thread(begun.wait)
    lookup.cancel()

begun = threading.Event()
asyncio.run(main())
"""
    run = subprocess.run(
        [sys.executable, "-X", "dev", "-c", program], capture_output=True, text=True, timeout=30
    )
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")


def test_a_resolver_needs_room(make: Make) -> None:
    with pytest.raises(ValueError, match="max_entries must be 1 or more, not 0"):
        HostResolver(max_entries=0)
    with pytest.raises(TypeError, match="config must be a HostResolutionConfig, not"):
        HostResolver(config={})  # type: ignore[arg-type]  # what is tested
