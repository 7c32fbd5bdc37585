"""redis-py's asyncio client on our loop, asyncio's and uvloop's, with a real Redis."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import trustme

from tests.applications.traffic import MIB, blob
from tests.integrations.database_servers import Server
from tests.integrations.database_servers import redis as redis_server

redis: Any = pytest.importorskip("redis.asyncio")
backoff: Any = pytest.importorskip("redis.backoff")
exceptions: Any = pytest.importorskip("redis.exceptions")
retry: Any = pytest.importorskip("redis.asyncio.retry")


@pytest.fixture(scope="module")
def server(ca: trustme.CA) -> Iterator[Server]:
    with redis_server(ca) as running:
        yield running


@pytest.fixture(params=["TCP", "TLS", "local socket"])
def address(request: pytest.FixtureRequest, server: Server) -> dict[str, Any]:
    addresses: dict[str, dict[str, Any]] = {
        "TCP": {"host": "localhost", "port": server.port},
        "TLS": {
            "host": "localhost",
            "port": server.tls_port,
            "ssl": True,
            "ssl_ca_certs": str(server.folder / "ca.pem"),
        },
        "local socket": {"unix_socket_path": str(server.folder / "redis.sock")},
    }
    return addresses[request.param]


@contextlib.asynccontextmanager
async def connected(**address: Any) -> AsyncIterator[Any]:
    async with redis.Redis(**address) as client:
        await client.flushall()
        yield client


async def test_commands(address: dict[str, Any]) -> None:
    body = blob(8 * MIB)
    async with connected(**address) as client:
        assert await client.get("nothing") is None
        await client.set("key", body)
        assert await client.get("key") == body
        with pytest.raises(exceptions.ResponseError):
            await client.incr("key")


async def test_pipelines(address: dict[str, Any]) -> None:
    async with connected(**address) as client, client.pipeline(transaction=False) as pipe:
        for number in range(5000):
            pipe.set(f"key {number}", number)
            pipe.get(f"key {number}")
        answers = await pipe.execute()
    assert answers[1::2] == [b"%d" % number for number in range(5000)]


async def test_many_at_once(address: dict[str, Any]) -> None:
    async with connected(**address, max_connections=50) as client:
        await asyncio.gather(*(client.incr("counter") for _ in range(50)))
        assert await client.get("counter") == b"50"


async def test_publishing_and_subscribing(address: dict[str, Any]) -> None:
    async with connected(**address) as client, client.pubsub() as subscription:
        await subscription.subscribe("news")
        assert (await subscription.get_message(timeout=30))["type"] == "subscribe"
        for number in range(100):
            await client.publish("news", number)
        told = [await subscription.get_message(timeout=30) for _ in range(100)]
        assert [note["data"] for note in told] == [b"%d" % number for number in range(100)]
        assert await subscription.get_message(timeout=0.05) is None


async def test_waiting_and_giving_up(address: dict[str, Any]) -> None:
    async with connected(**address) as client:
        waiting = asyncio.ensure_future(client.blpop("queue", timeout=30))
        await asyncio.sleep(0.05)
        await client.rpush("queue", "work")
        assert await waiting == (b"queue", b"work")
        waiting = asyncio.ensure_future(client.blpop("queue", timeout=30))
        await asyncio.sleep(0.05)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert await client.ping()


async def test_a_connection_that_the_server_ends_is_made_anew(address: dict[str, Any]) -> None:
    async with connected(**address) as client:
        await client.set("key", "value")
        async with redis.Redis(**address) as other:
            await other.client_kill_filter(_type="normal", skipme=True)
        assert await client.get("key") == b"value"


async def test_nobody_listens() -> None:
    once = retry.Retry(backoff.NoBackoff(), 0)
    async with redis.Redis(host="127.0.0.1", port=1, retry=once) as client:
        with pytest.raises(exceptions.ConnectionError):
            await client.ping()
