"""TLS on the loops: connections that are upgraded."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest

from tests import tls_transports
from tests.recorders import BufferedRecorder, Recorder
from tests.tls_transports import BIG, HOST, Far, both_protocols, nonblocking_pair

server_context = tls_transports.server_context
client_context = tls_transports.client_context
contexts = tls_transports.contexts


# Upgrades


def returned(protocol: Any) -> Any:
    return protocol


async def upgrade(
    transports: list[Any],
    ends: list[Any],
    client_context: ssl.SSLContext,
    server_context: ssl.SSLContext,
) -> list[Any]:
    """The TLS transports on top of those of a client and of its server."""
    loop = asyncio.get_running_loop()
    client, server = transports
    upgraded = await asyncio.gather(
        loop.start_tls(client, ends[0], client_context, server_hostname=HOST),
        loop.start_tls(server, ends[1], server_context, server_side=True),
    )
    return list(upgraded)


@asynccontextmanager
async def upgraded(
    ends: list[Any], client_context: ssl.SSLContext, server_context: ssl.SSLContext
) -> AsyncIterator[list[Any]]:
    """Two plain connections that have been upgraded; yields their new transports."""
    loop = asyncio.get_running_loop()
    plain = []
    for end, sock in zip(ends, nonblocking_pair(), strict=True):
        plain.append((await loop.create_connection(partial(returned, end), sock=sock))[0])
    transports = await upgrade(plain, ends, client_context, server_context)
    try:
        yield transports
    finally:
        for transport in transports:
            transport.abort()
        for end in ends:
            await end.has("lost")
        await asyncio.sleep(0)


@both_protocols
async def test_a_connection_can_be_upgraded(
    factory: Any, client_context: ssl.SSLContext, server_context: ssl.SSLContext
) -> None:
    ends = [factory(), factory()]
    async with upgraded(ends, client_context, server_context) as (client, server):
        assert client.get_extra_info("ssl_object").version() == "TLSv1.3"
        client.write(BIG)
        server.write(b"and back")
        assert await ends[1].received(len(BIG)) == BIG
        assert await ends[0].received(8) == b"and back"
        client.close()
        await ends[1].has("lost")
    for end in ends:
        assert end.events.count("made") == end.events.count("lost") == 1


async def test_tls_in_tls(client_context: ssl.SSLContext, server_context: ssl.SSLContext) -> None:
    ends: list[Any] = [Recorder(), BufferedRecorder()]
    async with upgraded(ends, client_context, server_context) as outer:
        client, server = await upgrade(outer, ends, client_context, server_context)
        client.write(BIG)
        server.write(b"and back")
        assert await ends[1].received(len(BIG)) == BIG
        assert await ends[0].received(8) == b"and back"
        server.close()
        await ends[0].has("lost")
        await ends[1].has("lost")
        assert ends[0].lost_with is ends[1].lost_with is None
    for end in ends:
        assert end.events.count("made") == end.events.count("lost") == 1


@pytest.mark.loops("aws_io_async")
async def test_pausing_holds_for_tls_in_tls(
    client_context: ssl.SSLContext, server_context: ssl.SSLContext
) -> None:
    ends = [Recorder(), Recorder()]
    async with upgraded(ends, client_context, server_context) as outer:
        client, server = await upgrade(outer, ends, client_context, server_context)
        server.pause_reading()
        client.write(BIG)
        client.close()
        await asyncio.wait([asyncio.ensure_future(ends[1].has("data"))], timeout=0.1)
        assert ends[1].events == ["made"]
        server.resume_reading()
        await ends[1].has("lost")
        assert ends[1].data == BIG
        assert ends[0].events[:3] == ["made", "pause", "resume"]


async def with_first_data(upgrade: Coroutine[Any, Any, Any], far: Far) -> Any:
    """What `upgrade` returns; the peer sends its first data right behind the handshake."""
    upgrading = asyncio.ensure_future(upgrade)
    await asyncio.sleep(0)  # or uvloop loses what comes before start_tls has begun
    await far.handshake(flush=False)
    await far.send(b"first")
    return await upgrading


@both_protocols
@pytest.mark.loops("aws_io_async", "uvloop")  # asyncio's calls data_received before
async def test_the_first_data_comes_when_the_upgrade_has_returned(
    factory: Any, client_context: ssl.SSLContext, server_context: ssl.SSLContext
) -> None:
    """Who is called with what came right behind the handshake would answer in plaintext."""
    loop = asyncio.get_running_loop()
    protocol = factory()
    near, far_sock = nonblocking_pair()
    with far_sock:
        transport, _ = await loop.create_connection(lambda: protocol, sock=near)

        async def upgrade() -> Any:
            upgraded = await loop.start_tls(transport, protocol, server_context, server_side=True)
            assert "data" not in protocol.events
            return upgraded

        far = Far(far_sock, client_context)
        transport = await with_first_data(upgrade(), far)
        assert await protocol.received(5) == b"first"
        await far.send(b"second")
        assert await protocol.received(11) == b"firstsecond"
        transport.abort()
        await protocol.has("lost")


@pytest.mark.loops("aws_io_async", "uvloop")  # asyncio's calls data_received before
async def test_who_closes_at_the_upgrade_has_no_first_data(
    client_context: ssl.SSLContext, server_context: ssl.SSLContext
) -> None:
    loop = asyncio.get_running_loop()
    protocol = Recorder()
    near, far_sock = nonblocking_pair()
    with far_sock:
        transport, _ = await loop.create_connection(lambda: protocol, sock=near)

        async def upgrade() -> None:
            upgraded: Any = await loop.start_tls(
                transport, protocol, server_context, server_side=True
            )
            upgraded.close()

        far = Far(far_sock, client_context)
        await with_first_data(upgrade(), far)
        assert await far.to_end() == b""
        await far.close_notify()
        await protocol.has("lost")
        assert protocol.lost_with is None
        assert protocol.data == b""


async def test_an_upgrade_that_fails(
    client_context: ssl.SSLContext, server_context: ssl.SSLContext
) -> None:
    loop = asyncio.get_running_loop()
    protocol = Recorder()
    near, far_sock = nonblocking_pair()
    with far_sock:
        transport, _ = await loop.create_connection(lambda: protocol, sock=near)
        far_sock.send(b"what?\r\n")
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await loop.start_tls(transport, protocol, client_context, server_hostname=HOST)
        await protocol.has("lost")
    assert protocol.events.count("lost") == 1


async def test_an_upgrade_that_is_cancelled(client_context: ssl.SSLContext) -> None:
    loop = asyncio.get_running_loop()
    protocol = Recorder()
    near, far_sock = nonblocking_pair()
    with far_sock:
        transport, _ = await loop.create_connection(lambda: protocol, sock=near)
        task = asyncio.ensure_future(
            loop.start_tls(transport, protocol, client_context, server_hostname=HOST)
        )
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await Far(far_sock, client_context).ciphertext_to_end()
        await asyncio.sleep(0)


async def test_what_cannot_be_upgraded(client_context: ssl.SSLContext) -> None:
    loop = asyncio.get_running_loop()
    protocol = Recorder()
    near, far_sock = nonblocking_pair()
    with far_sock:
        transport, _ = await loop.create_connection(lambda: protocol, sock=near)
        with pytest.raises(TypeError, match="SSLContext"):
            await loop.start_tls(transport, protocol, None)  # type: ignore[arg-type]  # misuse
        with pytest.raises(TypeError, match="not supported by start_tls"):
            await loop.start_tls(asyncio.Transport(), protocol, client_context)
        transport.abort()
        await protocol.has("lost")


@pytest.mark.loops("aws_io_async")  # the others wait for the handshake's timeout
async def test_a_closed_connection_cannot_be_upgraded(client_context: ssl.SSLContext) -> None:
    loop = asyncio.get_running_loop()
    protocol = Recorder()
    near, far_sock = nonblocking_pair()
    with far_sock:
        transport, _ = await loop.create_connection(lambda: protocol, sock=near)
        transport.abort()
        with pytest.raises(ConnectionResetError):
            await loop.start_tls(transport, protocol, client_context, server_hostname=HOST)
        await protocol.has("lost")


async def test_streams_can_be_upgraded(
    client_context: ssl.SSLContext, server_context: ssl.SSLContext
) -> None:
    outcome: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert await reader.readline() == b"STARTTLS\r\n"
        writer.write(b"220 go ahead\r\n")
        await writer.start_tls(server_context)
        received = await reader.readexactly(len(BIG))
        writer.write(b"250 OK\r\n")
        writer.close()
        await writer.wait_closed()
        outcome.set_result(received)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    writer.write(b"STARTTLS\r\n")
    assert await reader.readline() == b"220 go ahead\r\n"
    await writer.start_tls(client_context, server_hostname=HOST)
    writer.write(BIG)
    await writer.drain()
    assert await reader.read() == b"250 OK\r\n"
    assert await outcome == BIG
    writer.close()
    await writer.wait_closed()
    server.close()
    await server.wait_closed()


@pytest.mark.loops("aws_io_async")  # the others lose them (python/cpython#142352, uvloop#707)
async def test_ciphertext_that_a_stream_has_read_ahead_is_not_lost(
    client_context: ssl.SSLContext, server_context: ssl.SSLContext
) -> None:
    finished = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert await reader.readline() == b"PROXY TCP4 192.0.2.1 192.0.2.2 5 6\r\n"
        await writer.start_tls(server_context)
        writer.write((await reader.readline()).upper())
        writer.close()
        await writer.wait_closed()
        finished.set()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    sock = socket.create_connection(server.sockets[0].getsockname())
    with sock:
        sock.setblocking(False)
        far = Far(sock, client_context)
        far.outgoing.write(b"PROXY TCP4 192.0.2.1 192.0.2.2 5 6\r\n")
        await far.handshake()
        await far.send(b"hello\n")
        assert await far.to_end() == b"HELLO\n"
        await far.close_notify()
        await finished.wait()
    server.close()
    await server.wait_closed()


@pytest.mark.loops("aws_io_async")  # the others' reader pauses the transport below the TLS one
async def test_the_reader_of_an_upgraded_stream_slows_down_its_peer(
    client_context: ssl.SSLContext, server_context: ssl.SSLContext
) -> None:
    received: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
    upgraded = asyncio.Event()
    go_on = asyncio.Event()
    reading: list[bool] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        await writer.start_tls(server_context)
        upgraded.set()
        await go_on.wait()
        transport: Any = writer.transport
        reading.append(transport.is_reading())
        received.set_result(await reader.readexactly(len(BIG)))
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    writer.write(b"STARTTLS\r\n")
    await writer.start_tls(client_context, server_hostname=HOST)
    await upgraded.wait()
    writer.write(BIG)
    draining = asyncio.ensure_future(writer.drain())
    done, _ = await asyncio.wait([draining], timeout=0.2)
    assert not done
    go_on.set()
    assert await received == BIG
    assert reading == [False]
    await draining
    assert await reader.read() == b""
    writer.close()
    await writer.wait_closed()
    server.close()
    await server.wait_closed()
