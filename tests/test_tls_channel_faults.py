"""TLS in a channel: peers that break the rules, give up or never answer, and code that fails."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme

from aws_io_async.channel import Channel, ChannelDirection, ChannelHandler, ChannelSlot
from aws_io_async.errors import ErrorCode
from aws_io_async.message_pool import IoMessage
from aws_io_async.statistics import TlsNegotiationStatus
from aws_io_async.tls_channel_handler import setup_client_tls
from aws_io_async.tls_context import TlsConnectionOptions, TlsContext, TlsContextOptions
from tests import tls_channels
from tests.certificates import identity
from tests.socket_tools import raises, turns
from tests.tls_channels import (
    App,
    InMemory,
    code_of,
    connecting,
    error_of,
    in_memory,
    listening,
    negotiated,
    openssl_server,
)
from tests.tls_engines import record_fault
from tests.tls_peers import HOST, TLS12, TLS13, client_of, server_of, trusting

nothing_left = tls_channels.nothing_left


@pytest.fixture
def client(ca: trustme.CA) -> TlsConnectionOptions:
    return TlsConnectionOptions(client_of(ca), HOST)


@pytest.fixture
def server(ca: trustme.CA) -> ssl.SSLContext:
    return openssl_server(ca)


def collected_errors() -> list[dict[str, Any]]:
    """What comes to the running loop's exception handler from now on."""
    errors: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: errors.append(context))
    return errors


@asynccontextmanager
async def deaf_server() -> AsyncIterator[tuple[int, "asyncio.Future[socket.socket]"]]:
    """A port that accepts one connection, and the connection."""
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        accepted: asyncio.Future[socket.socket] = loop.create_future()

        async def accept() -> None:
            accepted.set_result((await loop.sock_accept(listener))[0])

        task = loop.create_task(accept())
        try:
            yield listener.getsockname()[1], accepted
        finally:
            task.cancel()
            await asyncio.wait({task})
            if accepted.done():
                accepted.result().close()


@asynccontextmanager
async def plain_connection(port: int) -> AsyncIterator[socket.socket]:
    """A TCP connection without TLS."""
    with socket.socket() as sock:
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
        yield sock


# A peer that never finishes the negotiation


class Swallows(ChannelHandler):
    """A leftmost handler that writes nowhere."""

    def process_write_message(self, slot: ChannelSlot, message: IoMessage) -> None:
        message.complete(slot.channel, None)


async def test_tls_negotiation_timeout(client: TlsConnectionOptions) -> None:
    results: list[BaseException | None] = []
    options = client.copy(
        timeout=0.05, on_negotiation_result=lambda _handler, _slot, error: results.append(error)
    )
    channel = await Channel.open()
    handler = setup_client_tls(channel.append(Swallows()), options)
    await channel.wait_closed()
    assert code_of(channel.error) is ErrorCode.IO_TLS_NEGOTIATION_TIMEOUT
    assert isinstance(channel.error, TimeoutError)
    assert f"{HOST}': not finished in 0.05 s" in str(channel.error)
    assert results == [channel.error]
    assert handler.statistics.handshake_status is TlsNegotiationStatus.FAILURE


async def test_a_server_that_says_nothing_is_given_up(client: TlsConnectionOptions) -> None:
    async with deaf_server() as (port, _):
        attempt = connecting(port, client.copy(timeout=0.05)).__aenter__()
        assert code_of(await error_of(attempt)) is ErrorCode.IO_TLS_NEGOTIATION_TIMEOUT


async def test_a_client_that_says_nothing_is_given_up(ca: trustme.CA) -> None:
    options = TlsConnectionOptions(server_of(ca), timeout=0.05)
    async with listening(options) as listener, plain_connection(listener.port) as sock:
        assert code_of(await listener.failed()) is ErrorCode.IO_TLS_NEGOTIATION_TIMEOUT
        assert await asyncio.get_running_loop().sock_recv(sock, 1) == b""


async def test_a_slow_negotiation_is_one_too(
    client: TlsConnectionOptions, server: ssl.SSLContext
) -> None:
    async with in_memory(client.copy(timeout=0.05), server, App()) as it:
        it.tls.start_negotiation()
        it.peer.incoming.write(it.wire.take())
        it.peer.handshake()
        for byte in it.peer.outgoing.read()[:-1]:
            await it.wire.feed(bytes([byte]))
        assert code_of(await it.closed()) is ErrorCode.IO_TLS_NEGOTIATION_TIMEOUT


async def test_the_time_ends_with_the_negotiation(
    client: TlsConnectionOptions, server: ssl.SSLContext
) -> None:
    async with negotiated(client.copy(timeout=0.25), server, App()) as it:
        await asyncio.sleep(0.3)
        await it.wire.feed(it.peer.write(b"still here"))
        assert it.app.data == b"still here"
        assert it.channel.error is None


async def test_zero_is_no_limit(client: TlsConnectionOptions, server: ssl.SSLContext) -> None:
    async with in_memory(client.copy(timeout=0), server, App()) as it:
        it.tls.start_negotiation()
        await asyncio.sleep(0.01)
        it.peer.incoming.write(it.wire.take())
        await it.handshake()


# A peer that leaves in the negotiation


async def test_tls_server_hangup_during_negotiation(ca: trustme.CA, tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    async with listening(server_of(ca), path=path) as listener:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.setblocking(False)
            await asyncio.get_running_loop().sock_connect(sock, path)
            sock.send(b"\x16\x03\x01")
        assert code_of(await listener.failed()) is ErrorCode.IO_SOCKET_CLOSED
    assert listener.shutdowns == []  # those are of channels that were ready


async def test_a_reset_in_the_negotiation(ca: trustme.CA) -> None:
    async with listening(server_of(ca)) as listener:
        async with plain_connection(listener.port) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, bytes([1, 0, 0, 0, 0, 0, 0, 0]))
            sock.send(b"\x16")
        assert code_of(await listener.failed()) is ErrorCode.IO_SOCKET_CLOSED


async def test_tls_client_channel_negotiation_error_socket_closed(
    client: TlsConnectionOptions,
) -> None:
    results: list[BaseException | None] = []
    options = client.copy(
        timeout=0, on_negotiation_result=lambda _handler, _slot, error: results.append(error)
    )
    async with deaf_server() as (port, accepted):
        attempt = asyncio.create_task(error_of(connecting(port, options).__aenter__()))
        connection = await accepted
        await asyncio.get_running_loop().sock_recv(connection, 1 << 16)  # the client's hello
        connection.close()
        error = await attempt
        assert code_of(error) is ErrorCode.IO_SOCKET_CLOSED
        assert [code_of(result) for result in results] == [ErrorCode.IO_SOCKET_CLOSED]


async def test_an_end_of_input_in_the_negotiation(
    client: TlsConnectionOptions, server: ssl.SSLContext
) -> None:
    async with in_memory(client, server, App()) as it:
        it.tls.start_negotiation()
        it.wire.end()
        assert code_of(await it.closed()) is ErrorCode.IO_TLS_CLOSED_ABORT
        assert it.status() is TlsNegotiationStatus.FAILURE


# What is no TLS


async def test_plain_http_to_a_tls_server(ca: trustme.CA) -> None:
    async with listening(server_of(ca)) as listener, plain_connection(listener.port) as sock:
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(sock, b"GET / HTTP/1.1\r\nHost: peer.example\r\n\r\n")
        error = await listener.failed()
        assert code_of(error) is ErrorCode.IO_TLS_ERROR_NEGOTIATION_FAILURE
        assert "HTTP_REQUEST" in str(error)
        while await loop.sock_recv(sock, 1 << 16):
            pass  # up to the end of the connection


async def test_a_plain_http_server(client: TlsConnectionOptions) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1 << 16)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await reader.read()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1") as plain:
        port = plain.sockets[0].getsockname()[1]
        error = await error_of(connecting(port, client).__aenter__())
        assert code_of(error) is ErrorCode.IO_TLS_ERROR_NEGOTIATION_FAILURE
        assert "WRONG_VERSION_NUMBER" in str(error)
        assert f"server name '{HOST}'" in str(error)


NOISE: dict[str, tuple[bytes, str]] = {
    "zeros": (bytes(100), "WRONG_VERSION_NUMBER"),
    "oversized": (b"\x16\x03\x03\xff\xff" + bytes(100), record_fault("PACKET_LENGTH_TOO_LONG")),
    "application data": (b"\x17\x03\x03\x00\x10" + bytes(16), ""),
    "alert": (b"\x15\x03\x03\x00\x02\x02\x28", "HANDSHAKE_FAILURE"),
}


@pytest.mark.parametrize("noise", NOISE)
async def test_noise_in_the_negotiation(
    client: TlsConnectionOptions, server: ssl.SSLContext, noise: str
) -> None:
    errors = collected_errors()
    async with in_memory(client, server, App()) as it:
        it.tls.start_negotiation()
        await it.wire.feed(NOISE[noise][0])
        error = await it.closed()
        assert code_of(error) is ErrorCode.IO_TLS_ERROR_NEGOTIATION_FAILURE
        assert NOISE[noise][1] in str(error)
        assert errors == []


async def test_a_peer_is_told_why(ca: trustme.CA, client: TlsConnectionOptions) -> None:
    stranger = trustme.CA()
    async with in_memory(client, openssl_server(stranger), App()) as it:
        it.tls.start_negotiation()
        it.peer.incoming.write(it.wire.take())
        it.peer.handshake()
        await it.wire.feed(it.peer.outgoing.read())
        error = await it.closed()
        assert code_of(error) is ErrorCode.IO_TLS_UNKNOWN_ROOT_CERTIFICATE
        it.peer.incoming.write(it.wire.take())
        with pytest.raises(ssl.SSLError, match="UNKNOWN_CA"):
            it.peer.handshake()


async def test_a_peer_is_told_why_over_sockets(ca: trustme.CA) -> None:
    stranger = TlsConnectionOptions(client_of(trustme.CA()), HOST)
    async with listening(server_of(ca)) as listener:
        error = await error_of(connecting(listener, stranger).__aenter__())
        assert code_of(error) is ErrorCode.IO_TLS_UNKNOWN_ROOT_CERTIFICATE
        theirs = await listener.failed()
        assert code_of(theirs) is ErrorCode.IO_TLS_PEER_CERTIFICATE_UNKNOWN
        assert "UNKNOWN_CA" in str(theirs)


# Faults after the negotiation


def flipped(record: bytes) -> bytes:
    return record[:-1] + bytes([record[-1] ^ 1])


FAULTS: dict[str, Callable[[bytes], bytes]] = {
    "damaged": flipped,
    "oversized": lambda record: b"\x17\x03\x03\xff\xff" + record[5:] + bytes(70_000),
    "unknown": lambda record: b"\x63\x03\x03\x00\x10" + bytes(16),
    "truncated": lambda record: record[:-12] + record,
    "twice": lambda record: record + record,
}


@pytest.mark.parametrize("version", [TLS12, TLS13], ids=["TLSv1.2", "TLSv1.3"])
@pytest.mark.parametrize("fault", FAULTS)
async def test_a_record_that_is_none_breaks_the_connection(
    ca: trustme.CA, client: TlsConnectionOptions, version: ssl.TLSVersion, fault: str
) -> None:
    told: list[Any] = []
    options = client.copy(on_error=lambda *args: told.append(args))
    logged = collected_errors()
    async with (
        negotiated(options, openssl_server(ca, version), App()) as it,
        negotiated(client, openssl_server(ca, version), App()) as other,
    ):
        good = it.peer.write(b"good")
        it.wire.feed_now(good + FAULTS[fault](it.peer.write(b"bad")))
        error = await it.closed()
        assert code_of(error) is ErrorCode.IO_TLS_ERROR_READ_FAILURE
        assert told == [(it.tls, it.tls.slot, error)]
        assert it.app.data == (b"goodbad" if fault == "twice" else b"good")
        assert len(it.wire.take()) > 0  # the alert
        await other.wire.feed(other.peer.write(b"unharmed"))
        assert other.app.data == b"unharmed"
        assert logged == []


async def test_a_fault_waits_behind_a_shut_window(
    client: TlsConnectionOptions, server: ssl.SSLContext
) -> None:
    async with negotiated(client, server, App(2)) as it:
        it.wire.feed_now(it.peer.write(b"good") + bytes(100))
        await turns()
        assert it.app.data == b"go"
        assert it.channel.error is None
        it.app.takes(3)
        assert code_of(await it.closed()) is ErrorCode.IO_TLS_ERROR_READ_FAILURE
        assert it.app.data == b"good"


async def test_a_broken_connection_takes_no_writes(
    client: TlsConnectionOptions, server: ssl.SSLContext
) -> None:
    async with negotiated(client, server, App()) as it:
        it.wire.feed_now(bytes(100))
        with raises(ErrorCode.IO_TLS_ERROR_READ_FAILURE):
            await it.app.write(b"into the void")
        it.wire.feed_now(it.peer.write(b"more"))  # nor does it read any more
        await it.closed()
        assert it.app.reads == []


async def test_a_server_refuses_a_certificate_after_the_clients_negotiation(
    ca: trustme.CA,
) -> None:
    # In TLS 1.3 the client is done before the server has looked at its certificate.
    options = trusting(ca, TlsContextOptions.default_server(*identity(ca.issue_cert(HOST))))
    options.set_verify_peer(True)
    stranger = trustme.CA().issue_cert("client@peer.example")
    client = trusting(ca, TlsContextOptions.client_mtls(*identity(stranger)))
    told: list[BaseException] = []
    connection = TlsConnectionOptions(
        TlsContext.client(client), HOST, on_error=lambda _handler, _slot, error: told.append(error)
    )
    async with (
        listening(TlsContext.server(options)) as listener,
        connecting(listener, connection, lambda: [App()]) as ours,
    ):
        assert code_of(await listener.failed()) is ErrorCode.IO_TLS_UNKNOWN_ROOT_CERTIFICATE
        await ours.wait_closed()
        assert code_of(ours.error) is ErrorCode.IO_TLS_PEER_CERTIFICATE_UNKNOWN
        assert told == [ours.error]


async def test_a_flood_past_the_window_is_an_error(
    client: TlsConnectionOptions, server: ssl.SSLContext
) -> None:
    async with negotiated(client, server, App(0)) as it:
        assert it.wire.slot is not None
        too_much = IoMessage(bytes(it.wire.window + 1))
        with raises(ErrorCode.IO_CHANNEL_READ_WOULD_EXCEED_WINDOW):
            it.wire.slot.send_message(too_much, ChannelDirection.READ)


# Code that fails


class OnPurposeError(Exception):
    """What the tests' callbacks raise."""


def fail(*_: Any) -> None:
    raise OnPurposeError


@pytest.mark.parametrize("callback", ["on_negotiation_result", "on_data_read", "on_error"])
async def test_callbacks_that_raise_end_the_channel(
    client: TlsConnectionOptions, server: ssl.SSLContext, callback: str
) -> None:
    errors = collected_errors()
    async with in_memory(client.copy(**{callback: fail}), server, App()) as it:
        await _use(it)
        error = await it.closed()
        assert [type(context["exception"]) for context in errors] == [OnPurposeError]
        if callback == "on_error":
            assert code_of(error) is ErrorCode.IO_TLS_ERROR_READ_FAILURE
        else:
            assert isinstance(error, OnPurposeError)


async def _use(it: InMemory) -> None:
    """Negotiate, receive data, and break the connection."""
    it.tls.start_negotiation()
    done = False
    while not done and it.channel.error is None:
        it.peer.incoming.write(it.wire.take())
        done = it.peer.handshake()
        await it.wire.feed(it.peer.outgoing.read())
    if it.channel.error is None:
        await it.wire.feed(it.peer.write(b"data"))
        await it.wire.feed(bytes(100))


async def test_on_negotiation_result_that_raises_about_a_failure(
    client: TlsConnectionOptions, server: ssl.SSLContext
) -> None:
    errors = collected_errors()
    options = client.copy(on_negotiation_result=fail, timeout=0.01)
    async with in_memory(options, server, App()) as it:
        it.tls.start_negotiation()
        assert code_of(await it.closed()) is ErrorCode.IO_TLS_NEGOTIATION_TIMEOUT
        assert [type(context["exception"]) for context in errors] == [OnPurposeError]


async def test_a_name_that_the_server_refuses(ca: trustme.CA, client: TlsConnectionOptions) -> None:
    context = openssl_server(ca)
    context.sni_callback = lambda *_: ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME
    own = TlsContext.from_ssl_context(context, server_side=True)
    async with listening(own) as listener:
        error = await error_of(connecting(listener, client).__aenter__())
        assert code_of(error) is ErrorCode.IO_TLS_ERROR_NEGOTIATION_FAILURE
        assert "UNRECOGNIZED_NAME" in str(error)
        assert code_of(await listener.failed()) is ErrorCode.IO_TLS_ERROR_NEGOTIATION_FAILURE


# Cancellation


async def test_a_cancelled_attempt_leaves_nothing(client: TlsConnectionOptions) -> None:
    results: list[Any] = []
    options = client.copy(on_negotiation_result=lambda *told: results.append(told[2]))
    async with deaf_server() as (port, accepted):
        attempt = asyncio.create_task(connecting(port, options).__aenter__())
        connection = await accepted
        loop = asyncio.get_running_loop()
        await loop.sock_recv(connection, 1 << 16)
        attempt.cancel()
        with pytest.raises(asyncio.CancelledError):
            await attempt
        assert len(results) == 1
        assert await loop.sock_recv(connection, 1) == b""
