"""`serve`: a coroutine for each connection, and what becomes of those that fail."""

import asyncio
import errno
import os
import socket
import ssl
import struct
from contextlib import AsyncExitStack

import anyio
import pytest
import trustme
from anyio.streams.buffered import BufferedByteReceiveStream

from aws_io_async.channel_stream import ChannelStream, connect, serve
from aws_io_async.errors import ErrorCode
from aws_io_async.retry_strategy import BackoffOptions, StandardRetryStrategy
from aws_io_async.socket import SocketDomain, SocketOptions
from aws_io_async.socket_channel_handler import SocketChannelHandler
from aws_io_async.tls_context import TlsConnectionOptions
from tests import channels
from tests.channels import collected_errors
from tests.serving import Handler, Waits, client_of_server, connected, echo, everything
from tests.socket_tools import local_endpoint, raises
from tests.streams import (
    LOOPBACK,
    PLAIN,
    Security,
    raw_client,
    received,
    settled,
    socket_statistics,
    tls_of,
    until,
)
from tests.tls_peers import HOST, client_of

no_tasks_left = channels.no_tasks_left


@pytest.fixture(params=["plain", "tls"])
def security(request: pytest.FixtureRequest, ca: trustme.CA) -> Security:
    return tls_of(ca) if request.param == "tls" else PLAIN


# Serving


async def test_echo(security: Security) -> None:
    async with client_of_server(echo, security) as client:
        for text in b"hello", b"again":
            await client.send(text)
            assert await received(client, len(text)) == text


async def test_an_ssl_context_does(ca: trustme.CA) -> None:
    """On both sides, as everywhere in asyncio."""
    theirs = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    ca.issue_cert(LOOPBACK).configure_cert(theirs)
    ours = ssl.create_default_context()
    ca.configure_trust(ours)
    async with (
        serve(echo, LOOPBACK, tls=theirs) as listener,
        await connect(LOOPBACK, listener.endpoint.port, tls=ours) as client,
    ):
        await client.send(b"hello")
        assert await received(client, 5) == b"hello"


async def test_many_connections_at_once(security: Security) -> None:
    async with serve(echo, LOOPBACK, tls=security.server) as listener, AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(await connected(listener, security)) for _ in range(20)
        ]
        for number, client in enumerate(clients):
            await client.send(bytes([number]) * 1000)
        for number, client in enumerate(clients):
            assert await received(client, 1000) == bytes([number]) * 1000


async def test_the_stream_is_closed_after_its_handler(security: Security) -> None:
    """In order: all that was sent arrives first."""

    async def answer(stream: ChannelStream) -> None:
        await stream.send(bytes(300_000))

    async with client_of_server(answer, security) as client:
        assert await everything(client) == bytes(300_000)


async def test_a_handler_may_close_its_stream() -> None:
    async def answer(stream: ChannelStream) -> None:
        async with stream:
            await stream.send(b"bye")

    async with client_of_server(answer) as client:
        assert await everything(client) == b"bye"


async def test_any_callable_that_returns_an_awaitable() -> None:
    async with client_of_server(lambda stream: asyncio.ensure_future(echo(stream))) as client:
        await client.send(b"x")
        assert await received(client, 1) == b"x"


async def test_a_local_socket() -> None:
    options = SocketOptions(domain=SocketDomain.LOCAL)
    with local_endpoint() as endpoint:
        async with (
            serve(echo, endpoint.address, socket_options=options),
            await connect(endpoint.address, socket_options=options) as client,
        ):
            await client.send(b"x")
            assert await received(client, 1) == b"x"


async def test_the_window_holds_back_clients() -> None:
    waits = Waits()
    proceed = asyncio.Event()

    async def slow(stream: ChannelStream) -> None:
        waits.streams.append(stream)
        await proceed.wait()
        await everything(stream)

    async with (
        serve(slow, LOOPBACK, window=1000) as listener,
        await connected(listener) as client,
    ):
        await client.send(bytes(50_000))
        await until(lambda: waits.streams)
        (served,) = waits.streams
        assert await settled(lambda: socket_statistics(served.channel).bytes_read) == 1000
        proceed.set()


# Handlers that fail


async def test_what_a_handler_raises_is_reported(security: Security) -> None:
    """The peer sees the end of the stream, and the server goes on."""

    async def fails(stream: ChannelStream) -> None:
        await stream.send(b"before")
        if await stream.receive() == b"fail":
            raise ZeroDivisionError("on purpose")
        await stream.send(b"well")

    with collected_errors() as errors:
        async with serve(fails, LOOPBACK, tls=security.server) as listener:
            async with await connected(listener, security) as client:
                await client.send(b"fail")
                assert await everything(client) == b"before"
            async with await connected(listener, security) as client:
                await client.send(b"go on")
                assert await everything(client) == b"beforewell"
        (context,) = errors
        assert isinstance(context["exception"], ZeroDivisionError)
        assert isinstance(context["stream"], ChannelStream)
        assert "fails" in context["message"]
        errors.clear()


async def test_a_handler_that_is_no_coroutine_function() -> None:
    with collected_errors() as errors:
        async with client_of_server(lambda stream: None) as client:  # type: ignore[arg-type,return-value]  # on purpose
            assert await everything(client) == b""
        (context,) = errors
        assert isinstance(context["exception"], TypeError)
        errors.clear()


async def read_forever(stream: ChannelStream) -> None:
    while True:
        await stream.receive()


async def read_exactly(stream: ChannelStream) -> None:
    await BufferedByteReceiveStream(stream).receive_exactly(1000)


async def read_in_a_group(stream: ChannelStream) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(read_forever(stream))


@pytest.mark.parametrize("handler", [read_forever, read_exactly, read_in_a_group])
@pytest.mark.parametrize("in_order", [True, False])
async def test_a_peer_that_has_gone_is_no_failure(handler: Handler, in_order: bool) -> None:
    with collected_errors():
        async with serve(handler, LOOPBACK) as listener:
            client = await connected(listener)
            await client.send(b"half")
            if in_order:
                await client.aclose()
            else:
                await anyio.aclose_forcefully(client)
            async with raw_client(listener.endpoint.port) as raw:
                raw.reset()
            await listener.aclose()
            await until(lambda: len(asyncio.all_tasks()) == 1)  # before serve() cancels any


async def test_another_stream_that_breaks_is_one() -> None:
    """A handler that is a client itself: its server has gone, and its own peer has not."""

    async def proxy(stream: ChannelStream) -> None:
        async with await connected(backend) as upstream:
            await upstream.receive()

    async def leave(stream: ChannelStream) -> None:
        pass

    with collected_errors() as errors:
        async with serve(leave, LOOPBACK) as backend, client_of_server(proxy) as client:
            assert await everything(client) == b""
        (context,) = errors
        assert isinstance(context["exception"], anyio.EndOfStream)
        errors.clear()


async def test_clients_that_fail_at_tls(ca: trustme.CA) -> None:
    """Their handler does not run; the others are served."""
    security = tls_of(ca)
    with collected_errors():
        async with serve(echo, LOOPBACK, tls=security.server) as listener:
            async with raw_client(listener.endpoint.port) as raw:
                await raw.send(b"GET / HTTP/1.1\r\n\r\n")
                await raw.end()
            stranger = TlsConnectionOptions(client_of(trustme.CA()), HOST)
            with raises(ErrorCode.IO_TLS_UNKNOWN_ROOT_CERTIFICATE):
                await connected(listener, Security(None, stranger))
            async with await connected(listener, security) as client:
                await client.send(b"x")
                assert await received(client, 1) == b"x"


# With retries


async def test_an_exchange_that_is_cut_short_is_tried_again() -> None:
    """A stream's end, and a connection that broke, are failures that may pass."""
    failures = [0, 1]  # what SO_LINGER has instead of an end: a reset

    async def answer(stream: ChannelStream) -> None:
        await stream.receive()
        if not failures:
            await stream.send(b"an answer")
        elif failures.pop():
            (handler, *_) = (slot.handler for slot in stream.channel.slots())
            assert isinstance(handler, SocketChannelHandler)
            linger = struct.pack("ii", 1, 0)
            handler.get_socket().setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)

    strategy = StandardRetryStrategy(BackoffOptions(max_retries=2, scale_factor=0.001))
    async with serve(answer, LOOPBACK) as listener:

        @strategy.retrying()
        async def ask() -> bytes:
            async with await connect(LOOPBACK, listener.endpoint.port) as stream:
                await stream.send(b"a question")
                return await received(stream, 9)

        assert await ask() == b"an answer"
    assert failures == []


# Arguments


BAD: list[tuple[dict[str, object], type[Exception], str]] = [
    ({"handler": None}, TypeError, "handler must be a coroutine function of a stream"),
    ({"host": 5}, TypeError, "host must be a str"),
    ({"host": "localhost"}, ValueError, "'localhost' is no IPv4 address, and names are not looked"),
    ({"host": "127.0.0"}, ValueError, r"'127.0.0' is no IPv4 address \("),
    ({"host": "/run/socket"}, ValueError, "no IPv4 address: a path needs SocketDomain.LOCAL"),
    ({"host": "192.0.2.1"}, OSError, os.strerror(errno.EADDRNOTAVAIL)),
    ({"port": "80"}, TypeError, "port must be an int, not '80'"),
    ({"port": -1}, ValueError, "port -1"),
    ({"port": 65536}, ValueError, "port 65536"),
    ({"window": 0}, ValueError, "window must be positive"),
    ({"window": 1.5}, TypeError, "window must be an int, not 1.5"),
    ({"tls": True}, TypeError, "tls must be a TlsContext"),
    ({"tls": ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)}, OSError, "PROTOCOL_TLS_CLIENT"),
    ({"event_loop_group": 3}, TypeError, "must be an EventLoopGroup"),
    ({"socket_options": {}}, TypeError, "must be SocketOptions"),
]


@pytest.mark.parametrize(("arguments", "kind", "text"), BAD, ids=lambda value: str(value)[:30])
async def test_what_cannot_be(
    arguments: dict[str, object], kind: type[Exception], text: str
) -> None:
    with pytest.raises(kind, match=text):
        async with serve(**{"handler": echo, "host": LOOPBACK, **arguments}):  # type: ignore[arg-type]  # on purpose
            pytest.fail("it serves")


async def test_a_clients_context(ca: trustme.CA) -> None:
    with raises(ErrorCode.IO_TLS_CTX_ERROR, "a server's is needed"):
        async with serve(echo, LOOPBACK, tls=client_of(ca)):
            pytest.fail("it serves")


async def test_a_port_that_is_taken() -> None:
    async with serve(echo, LOOPBACK) as listener:
        with raises(ErrorCode.IO_SOCKET_ADDRESS_IN_USE):
            async with serve(echo, LOOPBACK, listener.endpoint.port):
                pytest.fail("it serves")
