"""aiohttp's client with our resolver: who is asked, who is not asked any more."""

import asyncio
import contextlib
import socket
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence

import aiohttp
import pytest
from aiohttp import web

from aws_io_async import HostResolutionConfig, HostResolver
from aws_io_async.errors import ErrorCode
from aws_io_async.integrations.aiohttp import AiohttpResolver, connector
from tests.socket_tools import raises

NAME = "fleet.example"


@contextlib.contextmanager
def resolver_of(*addresses: str) -> Iterator[HostResolver]:
    """A resolver to which every name has these addresses."""
    config = HostResolutionConfig(impl=lambda host: addresses)
    with HostResolver(config=config) as resolver:
        yield resolver


@contextlib.asynccontextmanager
async def fleet(*addresses: str) -> AsyncIterator[int]:
    """A server at each address, which says at which; yields their port."""

    async def which(request: web.Request) -> web.Response:
        assert request.transport is not None
        return web.Response(text=request.transport.get_extra_info("sockname")[0])

    app = web.Application()
    app.add_routes([web.get("/", which)])
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        port = 0
        for address in addresses:
            await web.TCPSite(runner, address, port).start()
            port = runner.addresses[0][1]
        yield port
    finally:
        await runner.cleanup()


async def ask(session: aiohttp.ClientSession, port: int, times: int) -> Counter[str]:
    """How many requests, each on a connection of its own, each address has answered."""
    answers: Counter[str] = Counter()
    for _ in range(times):
        async with session.get(f"http://{NAME}:{port}/", headers={"Connection": "close"}) as answer:
            answers[await answer.text()] += 1
    return answers


FLEET = ["127.0.0.1", "127.0.0.2", "127.0.0.3"]


async def test_connections_go_round_the_addresses() -> None:
    with resolver_of(*FLEET) as resolver:
        async with (
            fleet(*FLEET) as port,
            aiohttp.ClientSession(connector=connector(resolver)) as session,
        ):
            assert await ask(session, port, 9) == dict.fromkeys(FLEET, 3)


@pytest.mark.parametrize("happy", [None, 0.25], ids=["in order", "happy eyeballs"])
async def test_an_address_that_refuses_is_left_out(happy: float | None) -> None:
    with resolver_of(*FLEET) as resolver:
        async with (
            fleet("127.0.0.1", "127.0.0.3") as port,
            aiohttp.ClientSession(
                connector=connector(resolver, happy_eyeballs_delay=happy)
            ) as session,
        ):
            answers = await ask(session, port, 12)
            assert set(answers) == {"127.0.0.1", "127.0.0.3"}
            assert min(answers.values()) >= 5
            assert resolver.get_host_address_count(NAME) == 2


async def test_nobody_answers() -> None:
    with resolver_of(*FLEET) as resolver:
        async with fleet("127.0.0.1") as port:
            pass
        async with aiohttp.ClientSession(connector=connector(resolver)) as session:
            with pytest.raises(aiohttp.ClientConnectorError) as raised:
                await ask(session, port, 1)
            assert isinstance(raised.value.os_error, ConnectionRefusedError)
        assert resolver.get_host_address_count(NAME) == 0


async def test_names_are_cached() -> None:
    asked = []

    def look_up(host: str) -> Sequence[str]:
        asked.append(host)
        return ["127.0.0.1"]

    config = HostResolutionConfig(impl=look_up, resolve_frequency=1000, max_ttl=1000)
    with HostResolver() as resolver:
        async with (
            fleet("127.0.0.1") as port,
            aiohttp.ClientSession(connector=connector(resolver, config)) as session,
        ):
            assert await ask(session, port, 5) == {"127.0.0.1": 5}
    assert asked == [NAME]


async def test_a_name_that_does_not_exist() -> None:
    def fail(host: str) -> Sequence[str]:
        raise socket.gaierror(socket.EAI_NONAME, "no such name")

    with HostResolver(config=HostResolutionConfig(impl=fail)) as resolver:
        async with aiohttp.ClientSession(connector=connector(resolver)) as session:
            with pytest.raises(aiohttp.ClientConnectorDNSError, match="no such name"):
                await ask(session, 80, 1)


async def test_families() -> None:
    with resolver_of("127.0.0.1", "::1", "127.0.0.2") as resolver:
        adapter = AiohttpResolver(resolver)

        async def look_up(family: socket.AddressFamily) -> list[str]:
            found = await adapter.resolve(NAME, 80, family)
            assert all(item["port"] == 80 and item["hostname"] == NAME for item in found)
            assert all(
                (":" in item["host"]) == (item["family"] == socket.AF_INET6) for item in found
            )
            return [item["host"] for item in found]

        assert await look_up(socket.AF_INET) == ["127.0.0.1", "127.0.0.2"]
        assert await look_up(socket.AF_INET) == ["127.0.0.2", "127.0.0.1"]
        assert await look_up(socket.AF_INET6) == ["::1"]
        assert sorted(await look_up(socket.AF_UNSPEC)) == ["127.0.0.1", "127.0.0.2", "::1"]
    with resolver_of("127.0.0.1") as resolver, raises(ErrorCode.IO_DNS_NO_ADDRESS_FOR_HOST):
        await AiohttpResolver(resolver).resolve(NAME, 80, socket.AF_INET6)


async def test_closing_leaves_the_resolver_open() -> None:
    with resolver_of("127.0.0.1") as resolver:
        adapter = AiohttpResolver(resolver)
        await adapter.close()
        assert len(await adapter.resolve(NAME)) == 1


async def test_of_many_addresses_the_latest_are_remembered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("aws_io_async.integrations.aiohttp.MAX_KNOWN", 2)
    with resolver_of(*FLEET) as resolver:
        adapter = AiohttpResolver(resolver)
        order = [item["host"] for item in await adapter.resolve(NAME)]
        adapter.connection_failed(order[0])  # forgotten
        assert resolver.get_host_address_count(NAME) == 3
        adapter.connection_failed(order[2])
        assert resolver.get_host_address_count(NAME) == 2
        adapter.connection_failed("127.0.0.99")  # nobody's
        await asyncio.sleep(0)
        assert resolver.get_host_address_count(NAME) == 2
