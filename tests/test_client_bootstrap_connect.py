"""Connects of a client's bootstrap: several addresses, failures, and trying again."""

import asyncio
import os
import socket
import sys
from typing import Any

import pytest
import trustme

from aws_io_async._backoff import BackoffOptions
from aws_io_async.channel_bootstrap import ClientBootstrap
from aws_io_async.errors import (
    AwsIoError,
    CommonErrorCode,
    DnsError,
    ErrorCode,
    SocketTimeoutError,
    make,
)
from aws_io_async.event_loop.group import EventLoopGroup
from aws_io_async.host_resolver import HostAddressFlags, HostResolutionConfig, HostResolver
from aws_io_async.retry_strategy import ExponentialBackoffRetryStrategy, StandardRetryStrategy
from aws_io_async.socket import SocketDomain, SocketOptions
from tests import channels
from tests.bootstraps import (
    LOOPBACK,
    Journal,
    OnPurposeError,
    code_of,
    ended,
    error_of,
    knowing,
    listening,
    refusing,
    serving,
)
from tests.lookups import Lookup, addresses, at_once, making_resolvers
from tests.socket_tools import black_hole, local_endpoint
from tests.tls_peers import client_of, server_of

no_tasks_left = channels.no_tasks_left

HOST = "host.test"
FLEET = [f"127.0.0.{number}" for number in range(2, 12)]

many_loopbacks = pytest.mark.skipif(
    sys.platform != "linux", reason="only Linux has all of 127.0.0.0/8 on loopback"
)


def client(resolver: HostResolver, **options: Any) -> ClientBootstrap:
    return ClientBootstrap(host_resolver=resolver, **options)


async def peer_of(resolver: HostResolver, port: int) -> str:
    """Connect to the host; the address that it was."""
    async with await client(resolver).new_socket_channel(HOST, port) as channel:
        (slot,) = channel.slots()
        handler: Any = slot.handler
        peer: str = handler.get_socket().getpeername()[0]
        return peer


# Several addresses


async def test_both_families_are_tried_ipv6_first() -> None:
    with (
        listening("::1") as six,
        listening(LOOPBACK, six.getsockname()[1]) as four,
        knowing(**{HOST: [LOOPBACK, "::1"]}) as resolver,
    ):
        port = four.getsockname()[1]
        assert await peer_of(resolver, port) == "::1"
        six.close()
        assert await peer_of(resolver, port) == LOOPBACK
        assert resolver.get_host_address_count(HOST, HostAddressFlags.AAAA) == 0
        assert resolver.get_host_address_count(HOST, HostAddressFlags.A) == 1


@many_loopbacks
async def test_connects_go_round_the_addresses() -> None:
    with listening("0.0.0.0") as listener, knowing(**{HOST: FLEET[:3]}) as resolver:
        port = listener.getsockname()[1]
        assert [await peer_of(resolver, port) for _ in range(6)] == FLEET[:3] * 2


@many_loopbacks
async def test_dead_addresses_cost_no_call_and_are_left_alone_afterwards() -> None:
    with listening(FLEET[2]) as listener, knowing(**{HOST: FLEET[:3]}) as resolver:
        port = listener.getsockname()[1]
        assert await peer_of(resolver, port) == FLEET[2]
        assert addresses(at_once(resolver.resolve_candidates(HOST))) == [FLEET[2]]


@many_loopbacks
async def test_a_slow_address_is_overtaken_and_does_not_count_as_failed() -> None:
    with (
        black_hole() as slow,
        listening(FLEET[0], slow.port) as listener,
        knowing(**{HOST: [LOOPBACK, FLEET[0]]}) as resolver,
    ):
        bootstrap = client(resolver, attempt_delay=0.01)
        async with await bootstrap.new_socket_channel(HOST, slow.port):
            listener.accept()[0].close()
        assert resolver.get_host_address_count(HOST) == 2


@many_loopbacks
async def test_of_two_that_answer_the_first_is_taken_and_the_other_closed() -> None:
    """Whatever the race is like, one connection is left: the check for descriptors is a fixture."""
    with listening("0.0.0.0") as listener, knowing(**{HOST: FLEET[:2]}) as resolver:
        for delay in (0, 0.0001):
            bootstrap = client(resolver, attempt_delay=delay)
            channel = await bootstrap.new_socket_channel(HOST, listener.getsockname()[1])
            await ended(channel)
        assert resolver.get_host_address_count(HOST) == 2


@many_loopbacks
async def test_eight_addresses_are_tried_at_most() -> None:
    with refusing(FLEET[0]) as port, knowing(**{HOST: FLEET}) as resolver:
        error = await error_of(client(resolver).new_socket_channel(HOST, port))
        assert [address for address in FLEET if f"{address}:" in error.detail] == FLEET[:8]
        assert resolver.get_host_address_count(HOST) == 2


# Failures


@many_loopbacks
async def test_one_error_names_every_address_and_what_was_wrong_with_it() -> None:
    journal = Journal()
    with (
        black_hole() as hole,
        refusing(FLEET[0], hole.port),
        knowing(**{HOST: [LOOPBACK, "::1", FLEET[0], "255.255.255.255"]}) as resolver,
    ):
        attempt = client(resolver, attempt_delay=5).new_socket_channel(
            HOST,
            hole.port,
            socket_options=SocketOptions(connect_timeout=0.05),
            **journal.of_client,
        )
        error = await error_of(attempt)
        assert resolver.get_host_address_count(HOST) == 0
    for expected in (
        f"{HOST}:{hole.port}: ",
        f"connect to [::1]:{hole.port}: ",
        f"connect to {LOOPBACK}:{hole.port}: no answer in 0.05 s",
        f"connect to {FLEET[0]}:{hole.port}: ",
        f"connect to 255.255.255.255:{hole.port}: ",
        ErrorCode.IO_SOCKET_CONNECTION_REFUSED.text,
        ErrorCode.IO_SOCKET_TIMEOUT.text,
        ErrorCode.IO_SOCKET_NO_ROUTE_TO_HOST.text,
    ):
        assert expected in str(error)
    assert isinstance(error, OSError)
    assert isinstance(error.__cause__, ExceptionGroup)
    assert [code_of(each) for each in error.__cause__.exceptions] == [
        ErrorCode.IO_SOCKET_CONNECTION_REFUSED,
        ErrorCode.IO_SOCKET_TIMEOUT,
        ErrorCode.IO_SOCKET_CONNECTION_REFUSED,
        ErrorCode.IO_SOCKET_NO_ROUTE_TO_HOST,
    ]
    assert journal.story == ["failure"]
    assert journal.notes[0].error is error


async def test_a_name_of_one_address_is_told_with_both() -> None:
    with (
        refusing() as port,
        knowing(**{HOST: [LOOPBACK]}) as resolver,
        pytest.raises(ConnectionRefusedError) as caught,
    ):
        await client(resolver).new_socket_channel(HOST, port)
    assert f"{HOST}:{port}: connect to {LOOPBACK}:{port}" in str(caught.value)
    assert code_of(caught.value.__cause__) is ErrorCode.IO_SOCKET_CONNECTION_REFUSED


async def test_a_refused_literal_is_named_once() -> None:
    with refusing() as port, pytest.raises(ConnectionRefusedError) as caught:
        await ClientBootstrap().new_socket_channel(LOOPBACK, port)
    assert str(caught.value).count(f"{LOOPBACK}:{port}") == 1


async def test_a_connect_that_times_out() -> None:
    options = SocketOptions(connect_timeout=0.05)
    with black_hole() as hole, pytest.raises(TimeoutError) as caught:
        await ClientBootstrap().new_socket_channel(hole.address, hole.port, socket_options=options)
    assert isinstance(caught.value, SocketTimeoutError)
    assert f"{hole}: no answer in 0.05 s" in str(caught.value)


async def test_a_name_that_does_not_resolve() -> None:
    journal = Journal()
    failure = socket.gaierror(socket.EAI_NONAME, "no such name")
    with knowing(**{HOST: failure}) as resolver, pytest.raises(DnsError) as caught:
        await client(resolver).new_socket_channel(HOST, 1, **journal.of_client)
    assert f"{HOST}: no such name" in str(caught.value)
    assert caught.value.code is ErrorCode.IO_DNS_INVALID_NAME
    assert [(note.what, note.error) for note in journal.notes] == [("failure", caught.value)]


async def test_what_can_be_no_name() -> None:
    with pytest.raises(DnsError, match="without brackets"):
        await ClientBootstrap().new_socket_channel("[::1]", 1)


async def test_a_local_socket_that_nobody_listens_on() -> None:
    options = SocketOptions(domain=SocketDomain.LOCAL)
    with local_endpoint() as endpoint:
        error = await error_of(
            ClientBootstrap().new_socket_channel(endpoint.address, socket_options=options)
        )
    assert error.code is CommonErrorCode.ERROR_FILE_INVALID_PATH
    assert endpoint.address in str(error)


async def test_out_of_descriptors_is_not_the_fault_of_the_address() -> None:
    resource = pytest.importorskip("resource")
    with listening() as listener, knowing(**{HOST: [LOOPBACK]}) as resolver:
        port = listener.getsockname()[1]
        await peer_of(resolver, port)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        lowest = os.dup(0)
        os.close(lowest)
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
        try:
            error = await error_of(client(resolver).new_socket_channel(HOST, port))
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert error.code is CommonErrorCode.ERROR_MAX_FDS_EXCEEDED
        assert resolver.get_host_address_count(HOST) == 1
        assert await peer_of(resolver, port) == LOOPBACK


async def test_the_process_wide_resolver_is_the_default() -> None:
    with refusing() as port, pytest.raises(ConnectionRefusedError):
        await ClientBootstrap().new_socket_channel("localhost", port)
    assert HostResolver.default().statistics().lookups > 0
    HostResolver.default().shutdown()


async def test_a_configuration_for_the_bootstrap_and_one_for_the_call() -> None:
    with making_resolvers() as make, refusing() as port:
        resolver = make(Lookup(OSError()))
        ours, once = Lookup([LOOPBACK]), Lookup([LOOPBACK])
        bootstrap = client(resolver, host_resolution_config=HostResolutionConfig(ours))
        await error_of(bootstrap.new_socket_channel(HOST, port))
        config = HostResolutionConfig(once)
        await error_of(bootstrap.new_socket_channel(HOST, port, host_resolution_config=config))
        assert (ours.hosts, once.hosts) == ([HOST], [HOST])


# Trying again


class Sleeps:
    """In place of `asyncio.sleep`; what a test wants to happen meanwhile."""

    def __init__(self, *actions: Any) -> None:
        self.actions = list(actions)
        self.count = 0

    async def __call__(self, seconds: float) -> None:
        self.count += 1
        if self.actions:
            self.actions.pop(0)()
        await asyncio.sleep(0)


async def test_without_a_strategy_it_is_tried_once() -> None:
    with knowing(**{HOST: OSError("no")}) as resolver:
        await error_of(client(resolver).new_socket_channel(HOST, 1))
        assert resolver.statistics().lookups == 1


async def test_with_one_it_is_tried_again_until_it_succeeds() -> None:
    journal = Journal()
    with socket.socket() as server:
        server.bind((LOOPBACK, 0))
        sleep = Sleeps(lambda: None, server.listen)
        channel = await ClientBootstrap().new_socket_channel(
            *server.getsockname(),
            retry_strategy=ExponentialBackoffRetryStrategy(sleep=sleep),
            **journal.of_client,
        )
        assert sleep.count == 2
        assert journal.story == ["creation", "setup"]
        await ended(channel)


async def test_the_strategy_says_when_it_is_enough_and_the_last_error_is_raised() -> None:
    journal = Journal()
    sleep = Sleeps()
    strategy = ExponentialBackoffRetryStrategy(BackoffOptions(max_retries=3), sleep=sleep)
    with refusing() as port, pytest.raises(ConnectionRefusedError) as caught:
        await ClientBootstrap().new_socket_channel(
            LOOPBACK, port, retry_strategy=strategy, **journal.of_client
        )
    assert sleep.count == 3
    assert any("not retried" in note for note in caught.value.__notes__)
    assert [note.error for note in journal.notes] == [caught.value]


async def test_the_host_is_the_partition() -> None:
    strategy = StandardRetryStrategy(sleep=Sleeps())
    with refusing() as port:
        await error_of(
            ClientBootstrap().new_socket_channel(LOOPBACK, port, retry_strategy=strategy)
        )
    assert strategy.available(LOOPBACK) < 500
    assert strategy.available("other.test") == 500


async def test_what_a_callback_raises_is_not_tried_again() -> None:
    sleep = Sleeps()
    journal = Journal(setup=make(ErrorCode.IO_SOCKET_CLOSED), creation=OnPurposeError())
    strategy = ExponentialBackoffRetryStrategy(sleep=sleep)
    async with serving() as server:
        with pytest.raises(OnPurposeError):
            await ClientBootstrap().new_socket_channel(
                *server.address, retry_strategy=strategy, on_creation=journal.creation
            )
        # One that would be tried again, if the application had not been told of the channel:
        with pytest.raises(AwsIoError):
            await ClientBootstrap().new_socket_channel(
                *server.address, retry_strategy=strategy, on_setup=journal.setup
            )
    assert sleep.count == 0
    assert journal.story == ["creation", "setup"]


async def test_each_try_looks_the_name_up_anew() -> None:
    lookup = Lookup(socket.gaierror(socket.EAI_AGAIN, "later"), [LOOPBACK])
    strategy = ExponentialBackoffRetryStrategy(sleep=Sleeps())
    with making_resolvers() as make_resolver, listening() as listener:
        channel = await client(make_resolver(lookup)).new_socket_channel(
            HOST, listener.getsockname()[1], retry_strategy=strategy
        )
        await ended(channel)
    assert lookup.asked.count == 2


async def test_retries_on_a_loop_of_a_group() -> None:
    sleep, journal = Sleeps(), Journal()
    strategy = ExponentialBackoffRetryStrategy(BackoffOptions(max_retries=2), sleep=sleep)
    async with EventLoopGroup(1) as group:
        with refusing() as port, pytest.raises(ConnectionRefusedError):
            await ClientBootstrap(group).new_socket_channel(
                LOOPBACK, port, retry_strategy=strategy, **journal.of_client
            )
        assert sleep.count == 2
        assert [note.loop for note in journal.notes] == list(group)


@pytest.mark.parametrize(
    "host", ["bücher.test", "BÜCHER.test", "xn--bcher-kva.test.", "Plain.test."]
)
async def test_names_in_other_forms_are_found_and_verified(host: str, ca: trustme.CA) -> None:
    names = "bücher.test", "plain.test"
    known = {
        f"{name}{dot}": [LOOPBACK]
        for name in ("xn--bcher-kva.test", "plain.test")
        for dot in ("", ".")
    }
    async with serving(tls=server_of(ca, *names)) as server:
        with knowing(**known) as resolver:
            channel = await client(resolver).new_socket_channel(
                host, server.endpoint.port, tls=client_of(ca)
            )
            await ended(channel)
