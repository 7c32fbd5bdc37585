"""asyncio's streams on the loop: `open_connection`, `start_server` and their Unix counterparts."""

import asyncio
import hashlib
import random
import socket
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import trustme

LOCAL = "127.0.0.1"
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def serve(handler: Handler, **options: Any) -> tuple[asyncio.Server, Any]:
    server = await asyncio.start_server(handler, LOCAL, 0, **options)
    return server, server.sockets[0].getsockname()


async def close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    await writer.wait_closed()
    await asyncio.sleep(0)


async def end(server: asyncio.Server) -> None:
    server.close()
    await asyncio.wait_for(server.wait_closed(), 10)
    await asyncio.sleep(0)


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(1 << 16):
        writer.write(data)
        await writer.drain()
    await close(writer)


async def test_lines_and_exact_sizes() -> None:
    server, address = await serve(echo)
    reader, writer = await asyncio.open_connection(*address)
    writer.writelines([b"one\n", b"two\n", b"12345", b"part|rest"])
    writer.write_eof()
    assert await reader.readline() == b"one\n"
    assert await reader.readuntil() == b"two\n"
    assert await reader.readexactly(5) == b"12345"
    assert await reader.readuntil(b"|") == b"part|"
    with pytest.raises(asyncio.IncompleteReadError) as caught:
        await reader.readexactly(10)
    assert caught.value.partial == b"rest"
    assert reader.at_eof()
    assert await reader.read() == b""
    await close(writer)
    await end(server)


async def test_many_clients_and_much_data() -> None:
    server, address = await serve(echo, limit=1 << 16)
    dice = random.Random(11)

    async def client(number: int) -> None:
        reader, writer = await asyncio.open_connection(*address)
        sent, received = hashlib.sha256(), hashlib.sha256()

        async def send() -> None:
            for _ in range(20):
                data = dice.randbytes(dice.randrange(100_000))
                sent.update(data)
                writer.write(data)
                await writer.drain()
            writer.write_eof()

        async def receive() -> None:
            while data := await reader.read(70_000):
                received.update(data)

        await asyncio.gather(send(), receive())
        assert received.digest() == sent.digest()
        await close(writer)

    await asyncio.gather(*(client(number) for number in range(10)))
    await end(server)


async def test_drain_waits_for_a_slow_reader() -> None:
    may_read = asyncio.Event()
    done: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await may_read.wait()
        done.set_result(len(await reader.read()))
        await close(writer)

    server, address = await serve(handler)
    _, writer = await asyncio.open_connection(*address)
    big = bytes(32 * 1024 * 1024)
    writer.write(big)
    draining = asyncio.ensure_future(writer.drain())
    for _ in range(10):
        await asyncio.sleep(0)
    assert not draining.done()
    may_read.set()
    await draining
    writer.write_eof()
    assert await done == len(big)
    await close(writer)
    await end(server)


async def test_a_reader_that_does_not_keep_up_pauses_the_transport() -> None:
    wrote: list[int] = []

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(64):
            writer.write(bytes(1 << 20))
            await writer.drain()
            wrote.append(1 << 20)
        await close(writer)

    server, address = await serve(handler)
    reader, writer = await asyncio.open_connection(*address, limit=1024)
    for _ in range(200):
        await asyncio.sleep(0)
    assert sum(wrote) < 64 << 20
    received = 0
    while data := await reader.read(1 << 20):
        received += len(data)
    assert received == 64 << 20
    await close(writer)
    await end(server)


async def test_a_peer_that_resets_is_an_error_for_reader_and_writer() -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.transport.abort()

    server, address = await serve(handler)
    reader, writer = await asyncio.open_connection(*address)
    writer.write(b"go\n" + bytes(1 << 20))  # what is unread makes it a reset
    with pytest.raises(ConnectionError):
        await reader.read()
    with pytest.raises(ConnectionError):
        await writer.drain()
    writer.close()
    with pytest.raises(ConnectionError):
        await writer.wait_closed()
    await asyncio.sleep(0)
    await end(server)


async def test_a_cancelled_read_loses_nothing() -> None:
    server, address = await serve(echo)
    reader, writer = await asyncio.open_connection(*address)
    reading = asyncio.ensure_future(reader.readexactly(8))
    writer.write(b"half")
    await asyncio.sleep(0.01)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    writer.write(b"whole")
    assert await reader.readexactly(9) == b"halfwhole"
    await close(writer)
    await end(server)


async def test_unix_streams(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    server = await asyncio.start_unix_server(echo, path)
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(b"hello")
    assert await reader.readexactly(5) == b"hello"
    await close(writer)
    await end(server)


async def test_a_socket_of_the_callers() -> None:
    near, far = socket.socketpair()
    reader, writer = await asyncio.open_connection(sock=near)
    with far:
        far.send(b"hello\n")
        assert await reader.readline() == b"hello\n"
        await close(writer)


async def test_tls_and_its_start_in_the_middle(ca: trustme.CA) -> None:
    server_context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    ca.issue_cert("localhost").configure_cert(server_context)
    client_context = ssl.create_default_context()
    ca.configure_trust(client_context)

    async def upgrade(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert await reader.readline() == b"STARTTLS\n"
        writer.write(b"go ahead\n")
        await writer.drain()
        await writer.start_tls(server_context)
        await echo(reader, writer)

    for handler, options in ((echo, {"ssl": server_context}), (upgrade, {})):
        server, address = await serve(handler, **options)
        if options:
            reader, writer = await asyncio.open_connection(
                *address, ssl=client_context, server_hostname="localhost"
            )
        else:
            reader, writer = await asyncio.open_connection(*address)
            writer.write(b"STARTTLS\n")
            assert await reader.readline() == b"go ahead\n"
            await writer.start_tls(client_context, server_hostname="localhost")
        writer.write(b"secret")
        assert await reader.readexactly(6) == b"secret"
        assert writer.get_extra_info("ssl_object").version().startswith("TLS")
        await close(writer)
        await end(server)
