"""The websockets library, server and client, unmodified: the same on each loop."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import websockets
from websockets.asyncio.client import ClientConnection, connect, unix_connect
from websockets.asyncio.server import ServerConnection, serve, unix_serve

from tests.applications.traffic import KIB, MIB, blob, digest, pieces

Handler = Callable[[ServerConnection], Awaitable[None]]


async def echo(connection: ServerConnection) -> None:
    async for message in connection:
        await connection.send(message)


@asynccontextmanager
async def connected(
    handler: Handler = echo,
    *,
    server_tls: ssl.SSLContext | None = None,
    client_tls: ssl.SSLContext | None = None,
    **options: Any,
) -> AsyncIterator[ClientConnection]:
    """A client of a server that both end with the block; `options` are for both."""
    options = {"max_size": None, "compression": None} | options
    async with serve(handler, "127.0.0.1", 0, ssl=server_tls, **options) as server:
        port = server.sockets[0].getsockname()[1]
        url = f"wss://localhost:{port}" if server_tls else f"ws://127.0.0.1:{port}"
        if server_tls:
            options |= {"host": "127.0.0.1", "ssl": client_tls}
        async with connect(url, proxy=None, **options) as connection:
            yield connection


async def test_text_and_binary() -> None:
    async with connected() as connection:
        await connection.send("grüß Gott")
        assert await connection.recv() == "grüß Gott"
        for size in (0, 1, 125, 126, 65_535, 65_536):
            data = blob(size)
            await connection.send(data)
            assert await connection.recv() == data


async def test_a_large_message_whole_and_in_fragments() -> None:
    data = blob(8 * MIB)
    async with connected() as connection:
        await connection.send(data)
        assert digest(await connection.recv(decode=False)) == digest(data)
        await connection.send(pieces(data, 300_000))
        received = bytearray()
        async for fragment in connection.recv_streaming(decode=False):
            received += fragment
        assert digest(received) == digest(data)


async def test_compression() -> None:
    text = "All work and no play makes Jack a dull boy.\n" * 20_000
    async with connected(compression="deflate") as connection:
        assert connection.response is not None
        assert "permessage-deflate" in connection.response.headers["Sec-WebSocket-Extensions"]
        for message in (text, blob(MIB), text.encode()):
            await connection.send(message)
            assert await connection.recv() == message


async def test_messages_in_both_directions_at_once() -> None:
    outward = [blob(20 * KIB, seed) for seed in range(100)]
    inward = [blob(30 * KIB, seed) for seed in range(100, 200)]
    arrived: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()

    async def send_all(connection: Any, messages: list[bytes]) -> None:
        for message in messages:
            await connection.send(message)

    async def handler(connection: ServerConnection) -> None:
        sending = asyncio.ensure_future(send_all(connection, inward))
        arrived.set_result([await connection.recv() for _ in outward])
        await sending

    async with connected(handler) as connection:
        sending = asyncio.ensure_future(send_all(connection, outward))
        assert [await connection.recv() for _ in inward] == inward
        await sending
        assert await arrived == outward


async def test_many_clients_at_once() -> None:
    async def talk(url: str, number: int) -> None:
        async with connect(url, proxy=None) as connection:
            for turn in range(10):
                await connection.send(f"{number} {turn}")
                assert await connection.recv() == f"{number} {turn}"

    async with serve(echo, "127.0.0.1", 0) as server:
        url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        await asyncio.gather(*(talk(url, number) for number in range(50)))


async def test_tls(server_tls: ssl.SSLContext, client_tls: ssl.SSLContext) -> None:
    data = blob(4 * MIB)
    async with connected(server_tls=server_tls, client_tls=client_tls) as connection:
        assert connection.transport.get_extra_info("ssl_object").version() == "TLSv1.3"
        await connection.send(data)
        assert digest(await connection.recv(decode=False)) == digest(data)


async def test_a_client_that_does_not_trust_the_server(server_tls: ssl.SSLContext) -> None:
    context = ssl.create_default_context()
    with pytest.raises(ssl.SSLCertVerificationError):
        async with connected(server_tls=server_tls, client_tls=context):
            raise AssertionError("connected")


async def test_close_codes() -> None:
    server_saw: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    async def note_close(connection: ServerConnection) -> None:
        await connection.wait_closed()
        server_saw.set_result((connection.close_code, connection.close_reason))

    async with connected(note_close) as connection:
        await connection.close(4000, "enough")
        assert await server_saw == (4000, "enough")
        with pytest.raises(websockets.ConnectionClosedError):
            await connection.send("too late")


async def test_a_server_that_closes() -> None:
    async def refuse(connection: ServerConnection) -> None:
        await connection.close(4001, "not today")

    async with connected(refuse) as connection:
        with pytest.raises(websockets.ConnectionClosedError) as raised:
            await connection.recv()
        assert raised.value.rcvd is not None
        assert (raised.value.rcvd.code, raised.value.rcvd.reason) == (4001, "not today")


async def test_a_message_past_the_limit_closes_with_1009() -> None:
    async with connected(max_size=MIB) as connection:
        await connection.send(blob(MIB + 1))
        with pytest.raises(websockets.ConnectionClosedError) as raised:
            await connection.recv()
        assert raised.value.rcvd is not None
        assert raised.value.rcvd.code == 1009


async def test_a_peer_that_vanishes() -> None:
    async def vanish(connection: ServerConnection) -> None:
        connection.transport.abort()

    async with connected(vanish) as connection:
        with pytest.raises(websockets.ConnectionClosedError) as raised:
            await connection.recv()
        assert raised.value.rcvd is None
        assert connection.close_code == 1006


async def test_keepalive_measures_the_latency() -> None:
    async with connected(ping_interval=0.05, ping_timeout=20) as connection:
        assert not connection.latency
        while not connection.latency:  # noqa: ASYNC110  # the library has no event for it
            await asyncio.sleep(0.01)
        await connection.send("still here")
        assert await connection.recv() == "still here"


async def test_keepalive_gives_up_on_a_silent_peer() -> None:
    async def deaf(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """A WebSocket handshake by hand, then no answer to anything."""
        head = await reader.readuntil(b"\r\n\r\n")
        key = head.partition(b"Sec-WebSocket-Key: ")[2].partition(b"\r\n")[0].decode()
        writer.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + websockets.utils.accept_key(key).encode() + b"\r\n\r\n"
        )
        await reader.read()
        writer.close()
        await writer.wait_closed()
        gone.set()

    gone = asyncio.Event()
    server = await asyncio.start_server(deaf, "127.0.0.1", 0)
    url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with connect(
        url, proxy=None, ping_interval=0.05, ping_timeout=0.05, close_timeout=0.05
    ) as connection:
        with pytest.raises(websockets.ConnectionClosedError, match="keepalive ping timeout"):
            await connection.recv()
    await gone.wait()
    server.close()
    await server.wait_closed()


async def test_the_end_of_the_server_closes_its_clients_with_1001() -> None:
    server = await serve(echo, "127.0.0.1", 0)
    url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with connect(url, proxy=None) as connection:
        server.close()
        with pytest.raises(websockets.ConnectionClosedOK) as raised:
            await connection.recv()
        assert raised.value.rcvd is not None
        assert raised.value.rcvd.code == 1001
        await server.wait_closed()
        with pytest.raises(ConnectionRefusedError):
            await connect(url, proxy=None)


async def test_a_unix_socket(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    data = blob(MIB // 2)
    async with (
        unix_serve(echo, path),
        unix_connect(path, "ws://localhost/") as connection,
    ):
        await connection.send(data)
        assert await connection.recv() == data
