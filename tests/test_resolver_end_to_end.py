"""TTL, rotation, failover, outage: real names, real servers, connected to by a client's bootstrap.

The fleet is at addresses of loopback. Its names come from a DNS server of the tests' own, from
dnsmasq, and, by getaddrinfo, from a hosts file, which a process with mounts of its own sees in
place of the system's. The servers' deaths are real, and so is the time.
"""

import asyncio
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Protocol

import pytest

from aws_io_async.channel_bootstrap import ClientBootstrap
from aws_io_async.host_resolver import HostResolutionConfig, HostResolver
from tests import dnsmasq, resolver_client
from tests.bootstraps import PATIENCE
from tests.dns_server import DnsServer
from tests.resolver_client import ResolverClient

dns_resolver = pytest.importorskip("aws_io_async.integrations.dns")

pytestmark = [
    pytest.mark.skipif(
        sys.platform != "linux", reason="only Linux has all of 127.0.0.0/8 on loopback"
    ),
    pytest.mark.loops("aws_io_async"),  # what they have to wait for is the resolver's doing
]

NAME = "fleet.test"
FLEET = ["127.0.1.1", "127.0.1.2", "127.0.1.3"]
TTL = 1


class World(Protocol):
    """Where the names are, and a client that goes by them."""

    def set(self, addresses: Sequence[str]) -> None:
        """What NAME stands for from now on."""

    def fail(self) -> None:
        """Have lookups fail until `recover`."""

    def recover(self, addresses: Sequence[str]) -> None: ...

    async def visit(self) -> tuple[str, int]:
        """Connect to NAME: the address that was reached, and how many good ones are known."""


class Fleet:
    """Servers on one port of several addresses."""

    def __init__(self) -> None:
        self.port = 0
        self._servers: dict[str, asyncio.Server] = {}

    async def start(self, address: str) -> None:
        server = await asyncio.start_server(_hang_up, address, self.port)
        self._servers[address] = server
        self.port = server.sockets[0].getsockname()[1]

    async def stop(self, address: str) -> None:
        server = self._servers.pop(address)
        server.close()
        await server.wait_closed()

    async def stop_all(self) -> None:
        for address in list(self._servers):
            await self.stop(address)


async def _hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()
    writer.close()


@pytest.fixture
async def fleet() -> AsyncIterator[Fleet]:
    fleet = Fleet()
    for address in FLEET:
        await fleet.start(address)
    yield fleet
    await fleet.stop_all()


class OverDns:
    """A resolver in this process that asks a DNS server."""

    def __init__(self, server: DnsServer | dnsmasq.Dnsmasq, port: int) -> None:
        self._server = server
        self._port = port
        lookup = dns_resolver.DnsResolver([server.address], timeout=0.5, server_timeout=0.2)
        # DNS alone says for how long an address holds.
        self.resolver = HostResolver(
            config=HostResolutionConfig(lookup, max_ttl=1000, resolve_frequency=0.1)
        )
        self._bootstrap = ClientBootstrap(host_resolver=self.resolver)

    def set(self, addresses: Sequence[str]) -> None:
        if isinstance(self._server, DnsServer):
            self._server.records[NAME, "A"] = [(address, TTL) for address in addresses]
        else:
            self._server.set(NAME, addresses)

    def fail(self) -> None:
        self._server.stop()

    def recover(self, addresses: Sequence[str]) -> None:
        self.set(addresses)
        self._server.start()

    async def visit(self) -> tuple[str, int]:
        address = await resolver_client.visit(self._bootstrap, NAME, self._port)
        return address, self.resolver.get_host_address_count(NAME)


class OverHostsFile:
    """A resolver in another process that asks getaddrinfo; `max_ttl` is how long answers hold."""

    def __init__(self, client: ResolverClient) -> None:
        self._client = client
        self.visit = client.visit

    def set(self, addresses: Sequence[str]) -> None:
        self._client.set(NAME, list(addresses))

    def fail(self) -> None:
        self.set([])  # then there is DNS, of which no server is there

    def recover(self, addresses: Sequence[str]) -> None:
        self.set(addresses)


@asynccontextmanager
async def over_hosts_file(folder: Path, port: int) -> AsyncIterator[OverHostsFile]:
    client = ResolverClient(folder)
    command = client.unshared(
        sys.executable, "-m", "tests.resolver_client", NAME, str(port), str(TTL)
    )
    if command is None:
        pytest.skip("needs a mount namespace: root, or user namespaces")
    await client.start(command)
    try:
        yield OverHostsFile(client)
    finally:
        await client.stop()


@pytest.fixture(params=["dns", "dnsmasq", "hosts"])
async def world(
    request: pytest.FixtureRequest, tmp_path: Path, fleet: Fleet
) -> AsyncIterator[World]:
    """Each of the three, with the whole fleet behind the name."""
    if request.param == "hosts":
        async with over_hosts_file(tmp_path, fleet.port) as client:
            client.set(FLEET)
            yield client
        return
    if request.param == "dnsmasq" and dnsmasq.PROGRAM is None:
        pytest.skip("needs dnsmasq")
    server = dnsmasq.Dnsmasq(tmp_path, TTL) if request.param == "dnsmasq" else DnsServer()
    with server:
        client_here = OverDns(server, fleet.port)
        client_here.set(FLEET)
        with client_here.resolver:
            yield client_here


async def visited(world: World, times: int = 3) -> list[str]:
    return [(await world.visit())[0] for _ in range(times)]


async def until_visits_are(world: World, expected: set[str]) -> None:
    """Connect again and again, until that goes to these addresses and no other for a while.

    Not one connect fails on the way.
    """
    async with asyncio.timeout(PATIENCE):
        while True:
            seen = set(await visited(world, 2 * len(FLEET)))
            assert seen <= set(FLEET)
            if seen == expected:
                return
            await asyncio.sleep(0.05)


async def test_connects_go_round_the_fleet(world: World) -> None:
    first = await visited(world)
    assert sorted(first) == FLEET
    assert await visited(world, 6) == first * 2


async def test_addresses_that_are_not_named_any_more_go_when_their_time_is_over(
    world: World,
) -> None:
    await until_visits_are(world, set(FLEET))
    world.set(FLEET[:1])
    await until_visits_are(world, set(FLEET[:1]))
    world.set(FLEET[1:])
    await until_visits_are(world, set(FLEET[1:]))


async def test_traffic_leaves_a_dead_server_and_comes_back(world: World, fleet: Fleet) -> None:
    await until_visits_are(world, set(FLEET))
    await fleet.stop(FLEET[1])
    assert set(await visited(world, 6)) == {FLEET[0], FLEET[2]}
    await fleet.start(FLEET[1])
    await until_visits_are(world, set(FLEET))


async def test_when_all_are_dead_the_first_to_come_back_is_found(
    world: World, fleet: Fleet
) -> None:
    await until_visits_are(world, set(FLEET))
    await fleet.stop_all()
    for _ in range(3):
        assert "refused" in (await world.visit())[0]
    await fleet.start(FLEET[2])
    async with asyncio.timeout(PATIENCE):
        while (await world.visit())[0] != FLEET[2]:  # noqa: ASYNC110  there is no event for it
            await asyncio.sleep(0.05)
    for address in FLEET[:2]:
        await fleet.start(address)
    await until_visits_are(world, set(FLEET))


async def test_an_outage_of_dns_leaves_an_address_to_connect_to(world: World) -> None:
    await until_visits_are(world, set(FLEET))
    world.fail()
    async with asyncio.timeout(PATIENCE):
        while (await world.visit())[1] > 1:  # noqa: ASYNC110  there is no event for it
            await asyncio.sleep(0.05)
    (last,) = set(await visited(world, 10))
    world.recover([address for address in FLEET if address != last])
    await until_visits_are(world, set(FLEET) - {last})
