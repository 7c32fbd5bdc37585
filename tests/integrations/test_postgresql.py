"""asyncpg and psycopg on our loop, asyncio's and uvloop's, with a real PostgreSQL."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import trustme

from tests.applications.traffic import MIB, blob, digest
from tests.integrations.database_servers import Server, postgresql

asyncpg: Any = pytest.importorskip("asyncpg")
psycopg: Any = pytest.importorskip("psycopg")

TERMINATE = "SELECT pg_terminate_backend({})"


@pytest.fixture(scope="module")
def server(ca: trustme.CA) -> Iterator[Server]:
    with postgresql(ca) as running:
        yield running


@pytest.fixture(params=["TCP", "TLS", "local socket"])
def address(request: pytest.FixtureRequest, server: Server, client_tls: ssl.SSLContext) -> Any:
    """Arguments of `asyncpg.connect`."""
    where: dict[str, dict[str, Any]] = {
        "TCP": {"host": "localhost", "ssl": False},
        "TLS": {"host": "localhost", "ssl": client_tls},
        "local socket": {"host": str(server.folder)},
    }
    return {"port": server.port, "user": "test", "database": "postgres", **where[request.param]}


@contextlib.asynccontextmanager
async def connected(**address: Any) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(timeout=30, **address)
    try:
        yield connection
    finally:
        await connection.close(timeout=30)


@pytest.fixture
def tcp(server: Server) -> dict[str, Any]:
    return {
        "host": "localhost",
        "port": server.port,
        "user": "test",
        "database": "postgres",
        "ssl": False,
    }


# asyncpg


async def test_queries(address: Any) -> None:
    async with connected(**address) as connection:
        assert await connection.fetchval("SELECT $1::int + 1", 41) == 42
        rows = await connection.fetch("SELECT n, n::text AS t FROM generate_series(1, 50000) n")
        assert [row["n"] for row in rows] == list(range(1, 50001))
        body = blob(4 * MIB)
        assert await connection.fetchval("SELECT $1::bytea", body) == body
        secure = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
        assert await connection.fetchval(secure) is bool(address.get("ssl"))


async def test_a_certificate_is_verified(server: Server, tcp: dict[str, Any]) -> None:
    with pytest.raises(ssl.SSLCertVerificationError):
        await asyncpg.connect(**{**tcp, "ssl": ssl.create_default_context()})


async def test_transactions_and_cursors(address: Any) -> None:
    async with connected(**address) as connection:
        await connection.execute("CREATE TEMPORARY TABLE numbers (n int PRIMARY KEY)")
        async with connection.transaction():
            await connection.executemany(
                "INSERT INTO numbers VALUES ($1)", [(n,) for n in range(500)]
            )
        with pytest.raises(asyncpg.UniqueViolationError):
            async with connection.transaction():
                await connection.execute("INSERT INTO numbers VALUES (1000)")
                await connection.execute("INSERT INTO numbers VALUES (1)")
        async with connection.transaction():
            seen = [
                row["n"]
                async for row in connection.cursor("SELECT n FROM numbers ORDER BY n", prefetch=7)
            ]
        assert seen == list(range(500))


async def test_copying_in_and_out(address: Any) -> None:
    lines = b"".join(b"%d\t%s\n" % (n, b"x" * 50) for n in range(40_000))

    async def parts() -> AsyncIterator[bytes]:
        for start in range(0, len(lines), 30_011):
            yield lines[start : start + 30_011]

    back = bytearray()

    async def take(data: bytes) -> None:
        back.extend(data)
        await asyncio.sleep(0)

    async with connected(**address) as connection:
        await connection.execute("CREATE TEMPORARY TABLE lines (n int, t text)")
        await connection.copy_to_table("lines", source=parts())
        await connection.copy_from_query("SELECT * FROM lines ORDER BY n", output=take)
    assert digest(back) == digest(lines)


async def test_a_pool_of_connections(address: Any) -> None:
    async with asyncpg.create_pool(min_size=2, max_size=5, **address) as pool:
        answers = await asyncio.gather(
            *(pool.fetchval("SELECT $1::int FROM pg_sleep(0.001)", n) for n in range(200))
        )
        pids = {await pool.fetchval("SELECT pg_backend_pid()") for _ in range(20)}
    assert answers == list(range(200))
    assert 1 <= len(pids) <= 5


async def test_notifications(address: Any) -> None:
    told: asyncio.Queue[tuple[str, str]] = asyncio.Queue()
    async with connected(**address) as listener, connected(**address) as speaker:
        await listener.add_listener("news", lambda _, __, *what: told.put_nowait(what))
        for number in range(10):
            await speaker.execute(f"NOTIFY news, '{number}'")
        received = [await told.get() for _ in range(10)]
    assert received == [("news", str(number)) for number in range(10)]


async def test_a_query_that_takes_too_long_is_cancelled_on_the_server(address: Any) -> None:
    async with connected(**address) as connection:
        with pytest.raises(TimeoutError):
            await connection.execute("SELECT pg_sleep(100)", timeout=0.2)
        assert await connection.fetchval("SELECT 1") == 1
        query = asyncio.ensure_future(connection.execute("SELECT pg_sleep(100)"))
        await asyncio.sleep(0.1)
        query.cancel()
        with pytest.raises(asyncio.CancelledError):
            await query
        assert await connection.fetchval("SELECT 2") == 2


async def test_the_server_ends_the_connection(tcp: dict[str, Any]) -> None:
    async with connected(**tcp) as victim, connected(**tcp) as other:
        query = asyncio.ensure_future(victim.execute("SELECT pg_sleep(100)"))
        await asyncio.sleep(0.1)
        await other.execute(TERMINATE.format(victim.get_server_pid()))
        with pytest.raises((asyncpg.AdminShutdownError, asyncpg.ConnectionDoesNotExistError)):
            await query
        await asyncio.sleep(0)
        assert await other.fetchval("SELECT 1") == 1


async def test_nobody_listens() -> None:
    with pytest.raises(ConnectionRefusedError):
        await asyncpg.connect(host="127.0.0.1", port=1, user="test", ssl=False)


# psycopg, which waits for its own descriptor by add_reader and add_writer


@pytest.fixture(params=["TCP", "TLS", "local socket"])
def conninfo(request: pytest.FixtureRequest, server: Server) -> str:
    where = f"port={server.port} user=test dbname=postgres connect_timeout=30"
    return (
        where
        + {
            "TCP": " host=localhost sslmode=disable",
            "TLS": f" host=localhost sslmode=verify-full sslrootcert={server.folder}/ca.pem",
            "local socket": f" host={server.folder}",
        }[request.param]
    )


async def test_psycopgs_queries(conninfo: str) -> None:
    body = blob(4 * MIB)
    async with (
        await psycopg.AsyncConnection.connect(conninfo) as connection,
        connection.cursor() as cursor,
    ):
        await cursor.execute("SELECT %s::int + 1", [41])
        assert await cursor.fetchone() == (42,)
        await cursor.execute("SELECT n FROM generate_series(1, 50000) n")
        assert [n async for (n,) in cursor] == list(range(1, 50001))
        await cursor.execute("SELECT %s::bytea", [body])
        assert (await cursor.fetchone())[0] == body


async def test_psycopgs_copying_and_pipelines(conninfo: str) -> None:
    async with (
        await psycopg.AsyncConnection.connect(conninfo) as connection,
        connection.cursor() as cursor,
    ):
        await cursor.execute("CREATE TEMPORARY TABLE lines (n int, t text)")
        async with cursor.copy("COPY lines FROM STDIN") as copy:
            for n in range(40_000):
                await copy.write_row((n, "x" * 50))
        total = 0
        async with cursor.copy("COPY (SELECT * FROM lines) TO STDOUT") as copy:
            async for part in copy:
                total += len(part)
        assert total == sum(len(f"{n}\t{'x' * 50}\n") for n in range(40_000))
        async with connection.pipeline():
            cursors = [await connection.execute("SELECT %s::int", [n]) for n in range(500)]
            assert [(await each.fetchone())[0] for each in cursors] == list(range(500))


async def test_psycopgs_notifications(conninfo: str) -> None:
    connect = psycopg.AsyncConnection.connect
    async with await connect(conninfo, autocommit=True) as listener:
        await listener.execute("LISTEN news")
        async with await connect(conninfo, autocommit=True) as speaker:
            for number in range(5):
                await speaker.execute(f"NOTIFY news, '{number}'")
        told = [note.payload async for note in listener.notifies(timeout=30, stop_after=5)]
    assert told == [str(number) for number in range(5)]


async def test_psycopgs_cancellation(conninfo: str) -> None:
    async with await psycopg.AsyncConnection.connect(conninfo, autocommit=True) as connection:
        query = asyncio.ensure_future(connection.execute("SELECT pg_sleep(100)"))
        await asyncio.sleep(0.1)
        query.cancel()
        with pytest.raises((asyncio.CancelledError, psycopg.errors.QueryCanceled)):
            await query
        cursor = await connection.execute("SELECT 2")
        assert await cursor.fetchone() == (2,)


async def test_psycopgs_connections_at_once(conninfo: str) -> None:
    async def ask(number: int) -> int:
        async with await psycopg.AsyncConnection.connect(conninfo) as connection:
            cursor = await connection.execute("SELECT %s::int FROM pg_sleep(0.05)", [number])
            (answer,) = await cursor.fetchone()
            return int(answer)

    assert await asyncio.gather(*map(ask, range(20))) == list(range(20))
