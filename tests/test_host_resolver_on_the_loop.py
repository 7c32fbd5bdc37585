"""Who gets the cache: a loop's connections if it was told to, channels always, nobody else."""

import asyncio
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import trustme

import aws_io_async
from aws_io_async import EventLoop, HostResolver
from aws_io_async.errors import DnsError, ErrorCode
from aws_io_async.host_resolver import HostAddressFlags
from tests.bootstraps import LOOPBACK, code_of, knowing, refusing
from tests.lookups import Lookup, addresses, at_once, making_resolvers, resolver_threads
from tests.socket_tools import turns

ours = pytest.mark.loops("aws_io_async")

HOST = "host.test"


class System:
    """In place of the system's resolver: writes down what it is asked."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self._real = socket.getaddrinfo

    def __call__(self, host: Any, *args: Any, **options: Any) -> Any:
        self.asked.append(host)
        return self._real(LOOPBACK if host == HOST else host, *args, **options)

    @property
    def names(self) -> list[Any]:
        """Those that were no addresses."""
        return [host for host in self.asked if host == HOST]


@pytest.fixture
def system(monkeypatch: pytest.MonkeyPatch) -> System:
    system = System()
    monkeypatch.setattr(socket, "getaddrinfo", system)
    return system


@pytest.fixture
async def port() -> AsyncIterator[int]:
    """Where a server says hello, on both families."""
    servers = [await asyncio.start_server(greet, LOOPBACK)]
    port: int = servers[0].sockets[0].getsockname()[1]
    servers.append(await asyncio.start_server(greet, "::1", port))
    yield port
    for server in servers:
        server.close()
        await server.wait_closed()


async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"hello")
    writer.close()


async def greeted(host: Any, port: Any, **options: Any) -> str:
    """Connect as applications do; the address that was reached."""
    reader, writer = await asyncio.open_connection(host, port, **options)
    peer: str = writer.get_extra_info("peername")[0]
    assert await reader.read() == b"hello"
    writer.close()
    await writer.wait_closed()
    return peer


def running() -> EventLoop:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, EventLoop)
    return loop


@contextmanager
def resolving_by(resolver: HostResolver | None) -> Iterator[None]:
    running().set_host_resolver(resolver)
    try:
        yield
    finally:
        running().set_host_resolver(None)


# Applications that have not asked for it


@pytest.mark.loops("aws_io_async", "asyncio")  # uvloop asks the system's resolver itself
async def test_an_applications_names_are_not_cached(system: System, port: int) -> None:
    default = HostResolver.default()
    lookups = default.statistics().lookups
    for _ in range(3):
        assert await greeted(HOST, port) == LOOPBACK
    assert system.names == [HOST] * 3
    assert HostResolver.default() is default
    assert default.statistics().lookups == lookups
    default.shutdown()


@ours
async def test_by_default_there_is_none() -> None:
    assert running().get_host_resolver() is None


# A loop that was told


@ours
async def test_connections_are_made_by_the_resolver(system: System, port: int) -> None:
    with knowing(**{HOST: [LOOPBACK]}) as resolver, resolving_by(resolver):
        assert running().get_host_resolver() is resolver
        for _ in range(3):
            assert await greeted(HOST, port) == LOOPBACK
        assert await greeted(HOST, f"{port}") == LOOPBACK
        assert resolver.statistics().lookups == 1
    assert system.names == []
    assert await greeted(HOST, port) == LOOPBACK
    assert system.names == [HOST]


@ours
async def test_getaddrinfo_stays_exact(port: int) -> None:
    loop = running()
    with knowing(localhost=["192.0.2.1"], **{HOST: [LOOPBACK]}) as resolver, resolving_by(resolver):
        for host in ("localhost", LOOPBACK, None):
            expected = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            assert await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM) == expected
        with pytest.raises(socket.gaierror) as caught:
            await loop.getaddrinfo("-.invalid", port)
        assert not isinstance(caught.value, DnsError)
        assert resolver.statistics().lookups == 0


@ours
async def test_nothing_else_that_takes_names_goes_by_it(system: System) -> None:
    loop = running()
    with knowing(**{HOST: ["192.0.2.1"]}) as resolver, resolving_by(resolver):
        server = await loop.create_server(asyncio.Protocol, HOST, 0)
        assert server.sockets[0].getsockname()[0] == LOOPBACK
        address = (HOST, server.sockets[0].getsockname()[1])
        with socket.socket() as sock:
            sock.setblocking(False)
            await loop.sock_connect(sock, address)
        transport, _ = await loop.create_datagram_endpoint(
            asyncio.DatagramProtocol, remote_addr=address
        )
        transport.close()
        server.close()
        await server.wait_closed()
        assert resolver.statistics().lookups == 0
    assert set(system.names) == {HOST}


@ours
@pytest.mark.parametrize("host", [LOOPBACK, "::1", b"127.0.0.1"])
async def test_addresses_are_no_names(host: Any, port: int) -> None:
    with knowing() as resolver, resolving_by(resolver):
        assert await greeted(host, port) in (LOOPBACK, "::1")
        assert resolver.statistics().lookups == 0


@ours
async def test_a_name_where_only_an_address_is_allowed(port: int) -> None:
    with knowing(**{HOST: [LOOPBACK]}) as resolver, resolving_by(resolver):
        with pytest.raises(socket.gaierror):
            await greeted(HOST, port, flags=socket.AI_NUMERICHOST)
        assert resolver.statistics().lookups == 0


@ours
async def test_families(port: int) -> None:
    names = {HOST: [LOOPBACK, "::1"], "six.test": ["::1"]}
    with knowing(**names) as resolver, resolving_by(resolver):
        assert await greeted(HOST, port) == "::1"
        assert await greeted(HOST, port, family=socket.AF_INET6) == "::1"
        assert await greeted(HOST, port, family=socket.AF_INET) == LOOPBACK
        with pytest.raises(OSError, match=r"has no address of 'six\.test' of this family"):
            await greeted("six.test", port, family=socket.AF_INET)


@ours
@pytest.mark.parametrize("delay", [None, 0.25])
async def test_addresses_that_fail_are_recorded_and_the_next_is_tried(
    port: int, delay: float | None
) -> None:
    dead = ["255.255.255.255", "224.0.0.1"]  # that no stream goes to, anywhere
    with knowing(**{HOST: [*dead, LOOPBACK]}) as resolver, resolving_by(resolver):
        assert await greeted(HOST, port, happy_eyeballs_delay=delay) == LOOPBACK
        assert addresses(at_once(resolver.resolve_candidates(HOST))) == [LOOPBACK]


@ours
async def test_when_all_fail_it_is_told_as_ever() -> None:
    with (
        refusing() as port,
        refusing("::1", port),
        knowing(**{HOST: [LOOPBACK, "::1"]}) as resolver,
        resolving_by(resolver),
    ):
        with pytest.raises(OSError, match="Multiple exceptions") as caught:
            await greeted(HOST, port)
        assert LOOPBACK in str(caught.value)
        assert "::1" in str(caught.value)
        assert resolver.get_host_address_count(HOST) == 0


@ours
async def test_a_local_address_that_cannot_be_had_is_not_the_fault_of_the_peers(port: int) -> None:
    with knowing(**{HOST: [LOOPBACK]}) as resolver, resolving_by(resolver):
        with pytest.raises(OSError, match=r"192\.0\.2\.1"):
            await greeted(HOST, port, local_addr=("192.0.2.1", 0))
        assert resolver.get_host_address_count(HOST) == 1


@ours
@pytest.mark.parametrize(
    ("failure", "code"),
    [
        (socket.gaierror(socket.EAI_NONAME, "none"), ErrorCode.IO_DNS_INVALID_NAME),
        (socket.gaierror(socket.EAI_AGAIN, "later"), ErrorCode.IO_DNS_QUERY_AGAIN),
        ([], ErrorCode.IO_DNS_NO_ADDRESS_FOR_HOST),
    ],
)
async def test_failed_lookups_are_what_applications_catch(failure: Any, code: ErrorCode) -> None:
    with knowing(**{HOST: failure}) as resolver, resolving_by(resolver):
        with pytest.raises(socket.gaierror, match=HOST) as caught:
            await greeted(HOST, 1)
        assert code_of(caught.value) is code
        with pytest.raises(socket.gaierror, match="empty label"):
            await greeted("a..test", 1)


@ours
async def test_tls_verifies_the_name_not_the_address(ca: trustme.CA) -> None:
    theirs = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    ca.issue_cert(HOST).configure_cert(theirs)
    context = ssl.create_default_context()
    ca.configure_trust(context)
    server = await asyncio.start_server(greet, LOOPBACK, ssl=theirs)
    port = server.sockets[0].getsockname()[1]
    names = {HOST: [LOOPBACK], "other.test": [LOOPBACK]}
    with knowing(**names) as resolver, resolving_by(resolver):
        assert await greeted(HOST, port, ssl=context) == LOOPBACK
        with pytest.raises(ssl.SSLCertVerificationError, match=r"other\.test"):
            await greeted("other.test", port, ssl=context)
    server.close()
    await server.wait_closed()


@ours
async def test_cancelled_while_the_resolver_waits() -> None:
    lookup = Lookup([LOOPBACK])
    lookup.hold()
    with making_resolvers() as make, resolving_by(resolver := make(lookup)):
        connecting = asyncio.create_task(greeted(HOST, 1))
        await lookup.asked.reaches(1)
        connecting.cancel()
        await asyncio.wait({connecting})
        assert connecting.cancelled()
        assert resolver.statistics().waiting == 0
        lookup.let_all_go()


@ours
async def test_one_that_is_shut_down_says_so(port: int) -> None:
    with knowing(**{HOST: [LOOPBACK]}) as resolver, resolving_by(resolver):
        resolver.shutdown()
        with pytest.raises(RuntimeError, match="this resolver is shut down"):
            await greeted(HOST, port)


@ours
async def test_a_resolver_of_ones_own(port: int) -> None:
    class Found:
        def __init__(self, address: str) -> None:
            self.address = address

    class Own:
        failed: list[str] = []  # noqa: RUF012

        async def resolve_candidates(self, host: str) -> list[Found]:
            return [Found("255.255.255.255"), Found("::1")]

        def record_connection_failure(self, address: Found) -> None:
            self.failed.append(address.address)

    own = Own()
    running().set_host_resolver(own)
    assert await greeted(HOST, port) == "::1"
    assert own.failed == ["255.255.255.255"]
    running().set_host_resolver(None)


@ours
@pytest.mark.parametrize("nonsense", [object(), LOOPBACK, 5])
async def test_what_is_no_resolver(nonsense: Any) -> None:
    with pytest.raises(TypeError, match="a host resolver, such as HostResolver"):
        running().set_host_resolver(nonsense)
    assert running().get_host_resolver() is None


def test_each_loop_has_its_own() -> None:
    with knowing(**{HOST: [LOOPBACK]}) as resolver:
        one, other = aws_io_async.new_event_loop(), aws_io_async.new_event_loop()
        one.set_host_resolver(resolver)
        assert (one.get_host_resolver(), other.get_host_resolver()) == (resolver, None)
        one.close()
        other.close()
        assert asyncio.run(resolver.resolve_host(HOST))  # it is not the loop's to end


# Channels


async def test_connect_goes_by_the_process_wide_resolver(system: System, port: int) -> None:
    default = HostResolver.default()
    before = default.statistics().lookups
    for _ in range(3):
        async with await aws_io_async.connect(HOST, port) as stream:
            assert await stream.receive() == b"hello"
    assert HostResolver.default() is default
    assert default.statistics().lookups == before + 1
    assert default.get_host_address_count(HOST, HostAddressFlags.A) == 1
    assert system.names == [HOST]
    default.shutdown()
    for thread in resolver_threads():
        thread.join(10)


async def test_connect_goes_by_the_one_that_it_is_given(system: System, port: int) -> None:
    with knowing(**{HOST: [LOOPBACK]}) as resolver:
        async with await aws_io_async.connect(HOST, port, host_resolver=resolver) as stream:
            assert await stream.receive() == b"hello"
        assert resolver.statistics().lookups == 1
    assert system.names == []


@ours
async def test_a_loops_resolver_is_not_the_channels(system: System, port: int) -> None:
    with knowing() as resolver, resolving_by(resolver):
        async with await aws_io_async.connect(HOST, port) as stream:
            assert await stream.receive() == b"hello"
        assert resolver.statistics().lookups == 0
    HostResolver.default().shutdown()


@ours
async def test_threads_are_started_for_names_only(port: int) -> None:
    with knowing() as resolver, resolving_by(resolver):
        threads = threading.enumerate()
        assert await greeted(LOOPBACK, port) == LOOPBACK
        async with await aws_io_async.connect(LOOPBACK, port, host_resolver=resolver) as stream:
            assert await stream.receive() == b"hello"
        await turns()
        assert threading.enumerate() == threads
