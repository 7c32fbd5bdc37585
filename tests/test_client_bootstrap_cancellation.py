"""Cancelled while a client's channel is being made, at each point: nothing stays, all are told."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
import trustme

from aws_io_async.channel_bootstrap import ClientBootstrap
from aws_io_async.errors import AwsIoError, ErrorCode, OperationCancelledError
from aws_io_async.event_loop.group import EventLoopGroup
from aws_io_async.retry_strategy import ExponentialBackoffRetryStrategy
from aws_io_async.socket import SocketDomain, SocketOptions
from aws_io_async.tls_context import TlsConnectionOptions
from tests import channels, loops
from tests.bootstraps import (
    LOOPBACK,
    PATIENCE,
    Journal,
    Server,
    code_of,
    ended,
    listening,
    refusing,
    serving,
    tasks_of,
)
from tests.lookups import Lookup, making_resolvers
from tests.socket_tools import black_hole, local_endpoint, turns
from tests.tls_peers import HOST, client_of, server_of

no_tasks_left = channels.no_tasks_left

PATIENT = SocketOptions(connect_timeout=PATIENCE)


def attempt(server: Any, group: EventLoopGroup | None = None, **options: Any) -> Any:
    """A call of `new_socket_channel` that has not begun; the journal of its callbacks."""
    journal = Journal()
    host, port = server.address if isinstance(server, Server) else server
    bootstrap = options.pop("bootstrap", None) or ClientBootstrap(group)
    return bootstrap.new_socket_channel(host, port, **options, **journal.of_client), journal


async def check_told(journal: Journal) -> None:
    """Whoever was told of a channel is told of its end; else there was one failure."""
    if "setup" in journal.story:
        assert (await journal.has("shutdown")).error is None
        assert journal.story == ["creation", "setup", "shutdown"]
    else:
        assert journal.story in (["failure"], ["creation", "failure"])
        assert isinstance(journal.notes[-1].error, OperationCancelledError)


async def cut_short_at_each_turn(begin: Callable[[], Any]) -> int:
    """Begin again and again, and cancel one turn later each time, until that is too late.

    Many turns later, once there have been many: another thread may need thousands of ours.
    """
    count = 0
    while True:
        count += 1 + max(0, count - 64) // 4
        coroutine, journal = begin()
        task = asyncio.create_task(coroutine)
        await turns(count)
        if task.done():
            await ended(task.result())
            return count
        task.cancel()
        await asyncio.wait({task})
        assert task.cancelled()
        await check_told(journal)


# On the caller's loop


async def test_plain() -> None:
    async with serving() as server:
        assert await cut_short_at_each_turn(lambda: attempt(server)) > 5


async def test_local() -> None:
    options = SocketOptions(domain=SocketDomain.LOCAL)
    with local_endpoint() as endpoint:
        async with serving(endpoint.address, socket_options=options) as server:
            assert await cut_short_at_each_turn(lambda: attempt(server, socket_options=options)) > 5


async def test_tls(ca: trustme.CA) -> None:
    tls = TlsConnectionOptions(client_of(ca), HOST)
    async with serving(tls=server_of(ca)) as server:
        assert await cut_short_at_each_turn(lambda: attempt(server, tls=tls)) > 10


async def test_before_it_has_begun_nobody_is_told() -> None:
    coroutine, journal = attempt((LOOPBACK, 1))
    task = asyncio.create_task(coroutine)
    task.cancel()
    await asyncio.wait({task})
    assert task.cancelled()
    assert journal.story == []


async def test_while_the_name_is_looked_up() -> None:
    lookup = Lookup([LOOPBACK])
    lookup.hold()
    with making_resolvers() as make:
        bootstrap = ClientBootstrap(host_resolver=make(lookup))
        coroutine, journal = attempt(("host.test", 1), bootstrap=bootstrap)
        task = asyncio.create_task(coroutine)
        await lookup.asked.reaches(1)
        task.cancel()
        await asyncio.wait({task})
        lookup.let_all_go()
    assert task.cancelled()
    assert journal.story == ["failure"]


async def test_while_several_addresses_are_tried() -> None:
    """Two attempts are under way, of which the check for descriptors finds nothing."""
    with black_hole() as hole, making_resolvers() as make:
        resolver = make(Lookup([hole.address, "::1", "255.255.255.255"]))
        bootstrap = ClientBootstrap(host_resolver=resolver, attempt_delay=0)
        coroutine, journal = attempt(
            ("host.test", hole.port), bootstrap=bootstrap, socket_options=PATIENT
        )
        task = asyncio.create_task(coroutine)
        while resolver.get_host_address_count("host.test") != 1:  # noqa: ASYNC110  no event for it
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait({task})
        assert task.cancelled()
        assert resolver.get_host_address_count("host.test") == 1
    assert journal.story == ["failure"]


async def test_while_tls_is_negotiated(ca: trustme.CA) -> None:
    """The peer, who says nothing, finds the connection ended."""
    tls = TlsConnectionOptions(client_of(ca), HOST)
    loop = asyncio.get_running_loop()
    with listening() as listener:
        coroutine, journal = attempt(listener.getsockname(), tls=tls)
        task = asyncio.create_task(coroutine)
        peer, _ = await loop.sock_accept(listener)
        with peer:
            assert (await loop.sock_recv(peer, 10_000))[0] == 22  # a handshake record
            task.cancel()
            await asyncio.wait({task})
            assert task.cancelled()
            await check_told(journal)
            with pytest.raises(ConnectionResetError):
                while not await loop.sock_recv(peer, 10_000):
                    raise ConnectionResetError
    assert journal.story == ["creation", "failure"]


async def test_while_it_waits_to_try_again() -> None:
    waits = asyncio.Event()

    async def sleep(seconds: float) -> None:
        waits.set()
        await asyncio.get_running_loop().create_future()

    with refusing() as port:
        strategy = ExponentialBackoffRetryStrategy(sleep=sleep)
        coroutine, journal = attempt((LOOPBACK, port), retry_strategy=strategy)
        task = asyncio.create_task(coroutine)
        await waits.wait()
        task.cancel()
        await asyncio.wait({task})
    assert task.cancelled()
    await check_told(journal)


async def test_a_timeout_stays_the_callers() -> None:
    with black_hole() as hole:
        coroutine, journal = attempt((hole.address, hole.port), socket_options=PATIENT)
        with pytest.raises(TimeoutError) as caught:
            async with asyncio.timeout(0.05):
                await coroutine
    assert not isinstance(caught.value, AwsIoError)
    await check_told(journal)


# On a loop of a group


@pytest.mark.parametrize("kind", loops.FACTORIES)
@pytest.mark.parametrize("security", ["plain", "tls"])
@pytest.mark.usefixtures("restless")
async def test_on_a_group(kind: str, security: str, ca: trustme.CA) -> None:
    """The two threads run as they like, so each count of turns means another moment each time."""
    tls = TlsConnectionOptions(client_of(ca), HOST) if security == "tls" else None
    async with (
        EventLoopGroup(1, loop_factory=loops.FACTORIES[kind]) as group,
        serving(group=group, tls=server_of(ca) if tls else None) as server,
    ):
        await cut_short_at_each_turn(lambda: attempt(server, group, tls=tls))
        await server.listener.aclose()
        for note in server.journal.all("setup"):
            await ended(note.subject)
        assert not await tasks_of(group)


async def test_a_group_that_is_shut_down_meanwhile() -> None:
    group = EventLoopGroup(1)
    with black_hole() as hole:
        coroutine, journal = attempt((hole.address, hole.port), group, socket_options=PATIENT)
        task = asyncio.create_task(coroutine)
        while not await tasks_of(group):
            pass
        await group.aclose()
        with pytest.raises(OperationCancelledError):
            await task
    assert journal.story == ["failure"]


@pytest.mark.parametrize("factory", loops.FACTORIES.values(), ids=loops.FACTORIES)
def test_a_loop_that_ends_takes_the_attempts_along(factory: loops.Factory) -> None:
    journals: list[tuple[Journal, asyncio.Task[Any]]] = []

    async def main() -> None:
        coroutine, journal = attempt((hole.address, hole.port), socket_options=PATIENT)
        journals.append((journal, asyncio.create_task(coroutine)))
        await turns()

    with black_hole() as hole, asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main())
    ((journal, task),) = journals
    assert task.cancelled()
    assert journal.story == ["failure"]
    assert code_of(journal.notes[0].error) is ErrorCode.ERROR_IO_OPERATION_CANCELLED
