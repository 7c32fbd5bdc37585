"""The servers that soak tests talk to; each checks what it is sent."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import trustme

from aws_io_async.channel_stream import ChannelStream, serve
from aws_io_async.event_loop.group import EventLoopGroup
from aws_io_async.tls_context import TlsConnectionOptions, TlsContext
from tests.soak.conversation import Ledger, answer
from tests.soak.wires import ChannelWire, StreamWire
from tests.tls_peers import HOST, client_of, server_of

LOOPBACK = "127.0.0.1"


@dataclass
class Keys:
    """Both ends' TLS, of the ssl module and of the library."""

    ssl_server: ssl.SSLContext
    ssl_client: ssl.SSLContext
    server: TlsContext
    client: TlsConnectionOptions

    @classmethod
    def make(cls) -> "Keys":
        ca = trustme.CA()
        ssl_server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        ca.issue_cert(HOST).configure_cert(ssl_server)
        ssl_client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        ca.configure_trust(ssl_client)
        client = TlsConnectionOptions(client_of(ca), HOST)
        return cls(ssl_server, ssl_client, server_of(ca), client)

    @property
    def for_streams(self) -> dict[str, object]:
        return {"ssl": self.ssl_client, "server_hostname": HOST}


@asynccontextmanager
async def stream_server(
    name: str, ledger: Ledger, tls: ssl.SSLContext | None = None
) -> AsyncIterator[int]:
    """asyncio's streams on the loop's own server; its port."""

    async def serve_client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await answer(StreamWire(reader, writer), name, ledger)

    server = await asyncio.start_server(serve_client, LOOPBACK, 0, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await server.wait_closed()


@asynccontextmanager
async def channel_server(
    name: str,
    ledger: Ledger,
    tls: TlsContext | None = None,
    group: EventLoopGroup | None = None,
) -> AsyncIterator[int]:
    """Channels; its port."""

    async def serve_client(stream: ChannelStream) -> None:
        await answer(ChannelWire(stream), name, ledger)

    async with serve(serve_client, LOOPBACK, tls=tls, event_loop_group=group) as listener:
        yield listener.endpoint.port
