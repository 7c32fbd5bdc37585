"""A line protocol that is upgraded to TLS half way, as SMTP, IMAP and PostgreSQL are.

The server answers each line with its reverse; STARTTLS is answered by OK, and TLS begins right
behind the line. Once on streams, once on protocols.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest

from tests.applications.traffic import MIB, blob, digest, pieces

# Streams


async def converse(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, tls: ssl.SSLContext
) -> None:
    """The server's side of one connection, on streams."""
    while line := await reader.readline():
        word, _, argument = line.strip().partition(b" ")
        match word:
            case b"STARTTLS":
                writer.write(b"OK\n")
                await writer.start_tls(tls)
            case b"VERSION":
                ssl_object = writer.get_extra_info("ssl_object")
                writer.write(ssl_object.version().encode() if ssl_object else b"plain")
                writer.write(b"\n")
            case b"DIGEST":
                data = await reader.readexactly(int(argument))
                writer.write(digest(data).encode() + b"\n")
            case b"SEND":
                async for piece in pieces(blob(int(argument))):
                    writer.write(piece)
                    await writer.drain()
            case _:
                writer.write(line.strip()[::-1] + b"\n")
    writer.close()
    await writer.wait_closed()


@asynccontextmanager
async def serving(tls: ssl.SSLContext) -> AsyncIterator[int]:
    """A server of the line protocol; yields its port. Its end waits for its connections."""
    conversations: list[asyncio.Future[None]] = []

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        conversations.append(asyncio.ensure_future(converse(reader, writer, tls)))

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    await asyncio.gather(*conversations)


@asynccontextmanager
async def talking(port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    yield reader, writer
    writer.close()
    await writer.wait_closed()


async def test_the_upgrade_of_streams(
    server_tls: ssl.SSLContext, client_tls: ssl.SSLContext
) -> None:
    async with serving(server_tls) as port, talking(port) as (reader, writer):
        writer.write(b"hello\nVERSION\n")
        assert await reader.readline() == b"olleh\n"
        assert await reader.readline() == b"plain\n"
        writer.write(b"STARTTLS\n")
        assert await reader.readline() == b"OK\n"
        assert writer.get_extra_info("ssl_object") is None
        await writer.start_tls(client_tls, server_hostname="localhost")
        assert writer.get_extra_info("peercert")["issuer"]
        writer.write(b"hello\nVERSION\n")
        assert await reader.readline() == b"olleh\n"
        assert await reader.readline() == b"TLSv1.3\n"


@pytest.mark.loops("aws_io_async", "asyncio")  # uvloop waits for ever
async def test_a_stream_that_begins_with_the_upgrade(
    server_tls: ssl.SSLContext, client_tls: ssl.SSLContext
) -> None:
    """The stream's protocol gets its connection_made only with the transport that has TLS."""
    loop = asyncio.get_running_loop()
    served = loop.create_future()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write((await reader.readline())[::-1])
        writer.close()
        await writer.wait_closed()
        served.set_result(None)

    class TlsFirst(asyncio.StreamReaderProtocol):
        def connection_made(self, transport: Any) -> None:
            upgrade = loop.create_task(
                loop.start_tls(transport, self, server_tls, server_side=True)
            )
            upgrade.add_done_callback(
                lambda done: super(TlsFirst, self).connection_made(cast(Any, done.result()))
            )

    server = await loop.create_server(
        lambda: TlsFirst(asyncio.StreamReader(), answer), "127.0.0.1", 0
    )
    async with server:
        port = server.sockets[0].getsockname()[1]
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", port, ssl=client_tls, server_hostname="localhost"
        )
        writer.write(b"abc\n")
        assert await reader.read() == b"\ncba"
        writer.close()
        await writer.wait_closed()
        await served


async def test_megabytes_both_ways_after_the_upgrade(
    server_tls: ssl.SSLContext, client_tls: ssl.SSLContext
) -> None:
    data = blob(4 * MIB)
    async with serving(server_tls) as port, talking(port) as (reader, writer):
        writer.write(b"STARTTLS\n")
        await reader.readline()
        await writer.start_tls(client_tls, server_hostname="localhost")
        writer.write(b"DIGEST %d\n" % len(data))
        async for piece in pieces(data):
            writer.write(piece)
            await writer.drain()
        assert await reader.readline() == digest(data).encode() + b"\n"
        writer.write(b"SEND %d\n" % len(data))
        assert digest(await reader.readexactly(len(data))) == digest(data)


async def test_many_upgrades_at_once(
    server_tls: ssl.SSLContext, client_tls: ssl.SSLContext
) -> None:
    async def upgrade(port: int, number: int) -> None:
        async with talking(port) as (reader, writer):
            writer.write(b"STARTTLS\n")
            await reader.readline()
            await writer.start_tls(client_tls, server_hostname="localhost")
            writer.write(b"%d\n" % (1000 + number))
            assert await reader.readline() == str(1000 + number)[::-1].encode() + b"\n"

    async with serving(server_tls) as port:
        await asyncio.gather(*(upgrade(port, number) for number in range(30)))


def hello_by_hand(
    client_tls: ssl.SSLContext,
) -> tuple[ssl.SSLObject, ssl.MemoryBIO, ssl.MemoryBIO]:
    """A TLS client on buffers that has written its first message."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = client_tls.wrap_bio(incoming, outgoing, server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    return tls, incoming, outgoing


# CPython 3.13.12 and 3.14.3 were the first that kept them; uvloop's and older asyncio's streams
# lose them.
@pytest.mark.loops("aws_io_async")
async def test_a_client_hello_in_the_segment_of_the_starttls_line(
    server_tls: ssl.SSLContext, client_tls: ssl.SSLContext
) -> None:
    tls, incoming, outgoing = hello_by_hand(client_tls)
    async with serving(server_tls) as port, talking(port) as (reader, writer):
        writer.write(b"STARTTLS\n" + outgoing.read())
        assert await reader.readline() == b"OK\n"

        async def more() -> None:
            writer.write(outgoing.read())
            data = await reader.read(65_536)
            assert data, "the server closed the connection"
            incoming.write(data)

        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                await more()
        tls.write(b"hello\n")
        while True:
            try:
                assert tls.read() == b"olleh\n"
                break
            except ssl.SSLWantReadError:
                await more()


async def test_a_client_that_does_not_trust_the_server(server_tls: ssl.SSLContext) -> None:
    refused: asyncio.Future[OSError] = asyncio.get_running_loop().create_future()

    async def starttls(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(b"OK\n")
        try:
            await writer.start_tls(server_tls)
        except OSError as error:
            refused.set_result(error)
            writer.close()

    server = await asyncio.start_server(starttls, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"STARTTLS\n")
    await reader.readline()
    with pytest.raises(ssl.SSLCertVerificationError) as raised:
        await writer.start_tls(ssl.create_default_context(), server_hostname="localhost")
    assert raised.value.verify_code == 20  # X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY
    assert isinstance(await refused, ssl.SSLError | ConnectionResetError)  # if told why, or not
    writer.close()
    server.close()
    await server.wait_closed()


# Protocols


class Line(asyncio.Protocol):
    """Collects what comes; `line()` waits for a line of it."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.made = asyncio.Event()
        self.data = bytearray()
        self._news = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.made.set()

    def data_received(self, data: bytes) -> None:
        self.data += data
        self._news.set()

    def connection_lost(self, exc: BaseException | None) -> None:
        self.closed.set_result(None)

    async def news(self) -> None:
        self._news.clear()
        await self._news.wait()

    async def line(self) -> bytes:
        while b"\n" not in self.data:
            await self.news()
        line, _, self.data = self.data.partition(b"\n")
        return bytes(line)


class PausedBehindLine(Line):
    """Stops reading with the first line: what follows is TLS and stays in the kernel."""

    def data_received(self, data: bytes) -> None:
        if not self.data:
            self.transport.pause_reading()
        super().data_received(data)


@asynccontextmanager
async def pair(server_protocol: type[Line]) -> AsyncIterator[tuple[Line, Line, list[Any]]]:
    """A connected server and client; what is in the list is closed in the end, too."""
    loop = asyncio.get_running_loop()
    made: asyncio.Future[Line] = loop.create_future()

    def factory() -> Line:
        protocol = server_protocol()
        made.set_result(protocol)
        return protocol

    server = await loop.create_server(factory, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    _, client = await loop.create_connection(Line, host, port)
    accepted = await made
    await accepted.made.wait()
    upgraded: list[Any] = []
    yield accepted, client, upgraded
    for transport in (*upgraded, client.transport, accepted.transport):
        transport.close()
    await accepted.closed
    if upgraded:  # asyncio's start_tls reports no end of a connection that it failed to upgrade
        await client.closed
    server.close()
    await server.wait_closed()


async def test_the_upgrade_of_protocols(
    server_tls: ssl.SSLContext, client_tls: ssl.SSLContext
) -> None:
    loop = asyncio.get_running_loop()
    async with pair(PausedBehindLine) as (server, client, upgraded):
        client.transport.write(b"STARTTLS\n")
        assert await server.line() == b"STARTTLS"
        server.transport.write(b"OK\n")
        assert await client.line() == b"OK"
        client_side = asyncio.ensure_future(
            loop.start_tls(client.transport, client, client_tls, server_hostname="localhost")
        )
        plain = server.transport
        transport = await loop.start_tls(plain, server, server_tls, server_side=True)
        upgraded += [transport, await client_side]
        assert transport is not None
        assert transport.get_protocol() is server
        assert transport.get_extra_info("peername") == plain.get_extra_info("peername")
        assert transport.get_extra_info("ssl_object").version() == "TLSv1.3"
        upgraded[1].write(b"over TLS\n")
        assert await server.line() == b"over TLS"
        transport.write(b"I read you\n")
        assert await client.line() == b"I read you"


async def test_a_client_hello_that_comes_before_the_server_is_ready_for_it(
    server_tls: ssl.SSLContext, client_tls: ssl.SSLContext
) -> None:
    loop = asyncio.get_running_loop()
    async with pair(PausedBehindLine) as (server, client, upgraded):
        client.transport.write(b"STARTTLS\n")
        await server.line()
        client_side = asyncio.ensure_future(
            loop.start_tls(client.transport, client, client_tls, server_hostname="localhost")
        )
        with server.transport.get_extra_info("socket").dup() as sock:
            readable = asyncio.Event()
            loop.add_reader(sock, readable.set)
            await readable.wait()  # the client's first message is in the kernel
            loop.remove_reader(sock)
        assert server.data == b""
        upgraded.append(
            await loop.start_tls(server.transport, server, server_tls, server_side=True)
        )
        upgraded.append(await client_side)
        upgraded[1].write(b"over TLS\n")
        assert await server.line() == b"over TLS"


async def test_what_is_written_right_behind_the_upgrade_arrives(
    server_tls: ssl.SSLContext, client_tls: ssl.SSLContext
) -> None:
    """The server speaks first, in the flight that ends its handshake."""
    greeting = blob(MIB)
    loop = asyncio.get_running_loop()
    async with pair(PausedBehindLine) as (server, client, upgraded):
        client.transport.write(b"STARTTLS\n")
        await server.line()

        async def greet() -> None:
            transport = await loop.start_tls(server.transport, server, server_tls, server_side=True)
            assert transport is not None
            upgraded.append(transport)
            transport.write(greeting)
            transport.write(b"\n")

        greeted = asyncio.ensure_future(greet())
        upgraded.append(
            await loop.start_tls(client.transport, client, client_tls, server_hostname="localhost")
        )
        await greeted
        while len(client.data) <= len(greeting):
            await client.news()
        assert digest(client.data[:-1]) == digest(greeting)


async def test_a_handshake_that_the_peer_never_answers(client_tls: ssl.SSLContext) -> None:
    loop = asyncio.get_running_loop()
    async with pair(Line) as (server, client, _):
        with pytest.raises(ConnectionAbortedError, match="handshake"):
            await loop.start_tls(
                client.transport,
                client,
                client_tls,
                server_hostname="localhost",
                ssl_handshake_timeout=0.1,
            )
        await server.closed


async def test_a_peer_that_hangs_up_in_the_handshake(client_tls: ssl.SSLContext) -> None:
    loop = asyncio.get_running_loop()
    async with pair(Line) as (server, client, _):
        upgrade = asyncio.ensure_future(
            loop.start_tls(client.transport, client, client_tls, server_hostname="localhost")
        )
        await server.news()
        server.transport.close()
        with pytest.raises(ConnectionResetError):
            await upgrade


async def test_a_cancelled_upgrade(client_tls: ssl.SSLContext) -> None:
    loop = asyncio.get_running_loop()
    async with pair(Line) as (server, client, _):
        upgrade = asyncio.ensure_future(
            loop.start_tls(client.transport, client, client_tls, server_hostname="localhost")
        )
        await server.news()
        upgrade.cancel()
        with pytest.raises(asyncio.CancelledError):
            await upgrade
        await server.closed
