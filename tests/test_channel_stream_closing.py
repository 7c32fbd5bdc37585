"""`ChannelStream`: closing it, cancelling what waits, several tasks at once, and what is known."""

import asyncio
import random
import socket
import ssl
from collections.abc import Callable, Coroutine
from typing import Any

import anyio
import pytest
import trustme
from anyio.abc import SocketAttribute
from anyio.streams.tls import TLSAttribute

from aws_io_async.channel import Channel, ChannelState
from aws_io_async.channel_stream import ChannelStream, connect
from aws_io_async.errors import AwsIoError
from aws_io_async.socket import SocketDomain, SocketOptions
from aws_io_async.tls_channel_handler import setup_client_tls
from aws_io_async.tls_context import TlsConnectionOptions
from tests.socket_tools import local_endpoint, turns
from tests.streams import (
    LOOPBACK,
    PATIENCE,
    PLAIN,
    Security,
    cut_short,
    fill,
    is_blocked,
    port_of,
    raw_listener,
    received,
    send_for_ever,
    settled,
    socket_statistics,
    stream_pair,
    tls_of,
    with_raw_peer,
)
from tests.tls_peers import HOST, client_of, server_of

DATA = random.Random(1).randbytes(500_000)

Call = Callable[[ChannelStream], Coroutine[Any, Any, object]]

CALLS: dict[str, Call] = {
    "receive": lambda stream: stream.receive(),
    "send": lambda stream: stream.send(b"x"),
    "send_eof": lambda stream: stream.send_eof(),
}


@pytest.fixture(params=["plain", "tls"])
def security(request: pytest.FixtureRequest, ca: trustme.CA) -> Security:
    return tls_of(ca) if request.param == "tls" else PLAIN


def state(channel: Channel) -> ChannelState:
    """Its state now: type checkers take what was asserted of an attribute for lasting."""
    return channel.state


# Closing


async def test_closing_ends_the_channel(security: Security) -> None:
    async with stream_pair(security) as (client, _):
        await client.aclose()
        assert state(client.channel) is ChannelState.SHUT_DOWN
        assert client.channel.error is None
        await client.aclose()


async def test_leaving_the_block_closes(security: Security) -> None:
    async with stream_pair(security) as (client, server):
        async with client:
            await client.send(b"x")
        assert state(client.channel) is ChannelState.SHUT_DOWN
        assert [data async for data in server] == [b"x"]


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())
async def test_nothing_goes_after_closing(call: Call, security: Security) -> None:
    async with stream_pair(security) as (client, _):
        await client.aclose()
        with pytest.raises(anyio.ClosedResourceError):
            await call(client)


async def test_nothing_goes_while_it_closes(security: Security) -> None:
    async with stream_pair(security) as (client, _):
        closing = asyncio.create_task(client.aclose())
        await asyncio.sleep(0)
        for call in CALLS.values():
            with pytest.raises(anyio.ClosedResourceError):
                await call(client)
        await closing


async def test_two_tasks_close(security: Security) -> None:
    async with stream_pair(security) as (client, _):
        await asyncio.gather(client.aclose(), client.aclose())
        assert state(client.channel) is ChannelState.SHUT_DOWN


async def test_a_receiver_that_waits_is_told(security: Security) -> None:
    async with stream_pair(security) as (client, _):
        receiving = asyncio.create_task(client.receive())
        await turns()
        await client.aclose()
        with pytest.raises(anyio.ClosedResourceError):
            await receiving


async def test_a_sender_that_waits_is_told() -> None:
    async with with_raw_peer() as (stream, _):
        sending = asyncio.create_task(send_for_ever(stream))
        await is_blocked(stream)
        await cut_short(stream.aclose(), 3)
        with pytest.raises(anyio.ClosedResourceError):
            await sending


async def test_what_was_not_received_is_dropped(security: Security) -> None:
    """A peer that goes on sending into a full window cannot keep the stream from closing."""
    async with stream_pair(security, window=1000) as (client, server):
        sending = asyncio.create_task(send_for_ever(client))
        await settled(lambda: socket_statistics(server.channel).bytes_read)
        assert await server.receive(10)
        async with asyncio.timeout(PATIENCE):
            await server.aclose()
            with pytest.raises(anyio.BrokenResourceError):
                await sending
        with pytest.raises(anyio.ClosedResourceError):
            await server.receive()


async def test_what_was_sent_goes_out_before_the_end(security: Security) -> None:
    async with stream_pair(security) as (client, server):
        sent = await fill(client)
        closing = asyncio.create_task(client.aclose())
        assert b"".join([data async for data in server]) == sent
        await closing


async def test_closing_does_not_hang_on_a_peer_that_reads_nothing() -> None:
    """It is bounded; and here it is cut short, which shuts the channel down at once."""
    async with with_raw_peer() as (stream, _):
        sending = asyncio.create_task(send_for_ever(stream))
        await is_blocked(stream)
        async with asyncio.timeout(PATIENCE):
            await anyio.aclose_forcefully(stream)
            await stream.channel.wait_closed()
        with pytest.raises(anyio.ClosedResourceError):
            await sending


@pytest.mark.parametrize("turns", range(6))
async def test_closing_is_cancelled(turns: int, security: Security) -> None:
    async with stream_pair(security) as (client, server):
        await server.send(DATA[:10_000])
        await cut_short(client.aclose(), turns)
        async with asyncio.timeout(PATIENCE):
            if turns:  # otherwise it has not begun
                await client.channel.wait_closed()
            await client.aclose()
        assert state(client.channel) is ChannelState.SHUT_DOWN


# Cancelling


async def test_a_cancelled_receive_loses_nothing(security: Security) -> None:
    chooser = random.Random(7)
    async with stream_pair(security) as (client, server):

        async def send() -> None:
            sent = 0
            while sent < len(DATA):
                size = chooser.randint(1, 5000)
                await client.send(DATA[sent : sent + size])
                sent += size
                if chooser.random() < 0.5:
                    await asyncio.sleep(0)
            await client.aclose()

        sending = asyncio.create_task(send())
        data = bytearray()
        cancelled = 0
        while True:
            receiving = asyncio.ensure_future(server.receive(chooser.randint(1, 5000)))
            await turns(chooser.randint(0, 3))
            cancelled += receiving.cancel()
            try:
                data += await receiving
            except asyncio.CancelledError:
                pass
            except anyio.EndOfStream:
                break
        await sending
        assert data == DATA
        assert cancelled > 50


async def test_a_receive_that_is_cancelled_as_data_comes() -> None:
    """The task has been woken, but has not run yet."""
    async with with_raw_peer() as (stream, peer):
        receiving = asyncio.create_task(stream.receive())
        await turns()
        peer.send(b"kept")
        while socket_statistics(stream.channel).bytes_read == 0:  # noqa: ASYNC110  nor later
            await asyncio.sleep(0)
        receiving.cancel()
        await asyncio.wait({receiving})
        assert receiving.cancelled() or receiving.result() == b"kept"
        if receiving.cancelled():
            assert await stream.receive() == b"kept"


async def test_timeouts(security: Security) -> None:
    async with stream_pair(security) as (client, server):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await client.receive()
        with anyio.move_on_after(0.01) as scope:
            await client.receive()
        assert scope.cancelled_caught
        await server.send(b"now")
        assert await client.receive() == b"now"


async def test_a_cancelled_end_of_output_has_happened() -> None:
    async with stream_pair() as (client, server):
        sent = await fill(client)
        assert await cut_short(client.send_eof(), 3)
        assert b"".join([data async for data in server]) == sent
        with pytest.raises(anyio.ClosedResourceError):
            await client.send(b"x")


# Several tasks


async def test_one_receives_at_a_time(security: Security) -> None:
    async with stream_pair(security) as (client, server):
        receiving = asyncio.create_task(client.receive())
        await turns()
        with pytest.raises(anyio.BusyResourceError, match="receiving from"):
            await client.receive()
        await server.send(b"x")
        assert await receiving == b"x"
        await server.send(b"y")
        assert await client.receive() == b"y"


async def test_one_sends_at_a_time() -> None:
    async with with_raw_peer() as (stream, _):
        sending = asyncio.create_task(send_for_ever(stream))
        await is_blocked(stream)
        with pytest.raises(anyio.BusyResourceError, match="sending to"):
            await stream.send(b"x")
        with pytest.raises(anyio.BusyResourceError, match="sending to"):
            await stream.send_eof()
        sending.cancel()
        await asyncio.wait({sending})


async def test_a_cancelled_call_is_not_in_the_way(security: Security) -> None:
    async with stream_pair(security) as (client, server):
        await cut_short(client.receive(), 3)
        await server.send(b"x")
        assert await client.receive() == b"x"


# What is known


async def test_addresses() -> None:
    async with stream_pair() as (client, server):
        for _ in range(2):
            local = client.extra(SocketAttribute.local_address)
            assert local == server.extra(SocketAttribute.remote_address)
            assert local[0] == LOOPBACK
            assert client.extra(SocketAttribute.local_port) == local[1]
            assert server.extra(SocketAttribute.remote_port) == local[1]
            assert client.extra(SocketAttribute.family) is socket.AF_INET
            await client.aclose()  # the second time, afterwards
            await server.aclose()


async def test_the_socket() -> None:
    async with stream_pair() as (client, _):
        sock = client.extra(SocketAttribute.raw_socket)
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        with pytest.raises(anyio.TypedAttributeLookupError):
            client.extra(TLSAttribute.tls_version)


async def test_addresses_of_ipv6() -> None:
    async with stream_pair(host="::1") as (client, server):
        assert client.extra(SocketAttribute.remote_address) == (
            "::1",
            server.extra(SocketAttribute.local_port),
        )


async def test_addresses_of_local_sockets() -> None:
    with local_endpoint() as endpoint:
        options = SocketOptions(domain=SocketDomain.LOCAL)
        async with stream_pair(host=endpoint.address, socket_options=options) as (client, server):
            await client.send(b"x")
            assert await server.receive() == b"x"
            assert client.extra(SocketAttribute.remote_address) == endpoint.address
            assert server.extra(SocketAttribute.local_address) == endpoint.address
            assert client.extra(SocketAttribute.family) is socket.AF_UNIX
            assert client.extra(SocketAttribute.local_port, None) is None


async def test_what_tls_has_negotiated(ca: trustme.CA) -> None:
    options = TlsConnectionOptions(client_of(ca), HOST, alpn_list="h2;http/1.1")
    security = Security(server_of(ca).with_alpn("http/1.1"), options)
    async with stream_pair(security) as (client, server):
        for _ in range(2):
            for stream in client, server:
                assert stream.extra(TLSAttribute.alpn_protocol) == "http/1.1"
                assert stream.extra(TLSAttribute.tls_version) == "TLSv1.3"
                assert stream.extra(TLSAttribute.standard_compatible) is True
                assert stream.extra(TLSAttribute.cipher)[1] == "TLSv1.3"
            assert client.extra(TLSAttribute.server_side) is False
            assert server.extra(TLSAttribute.server_side) is True
            certificate = client.extra(TLSAttribute.peer_certificate)
            assert certificate is not None
            assert ("DNS", HOST) in certificate["subjectAltName"]
            assert client.extra(TLSAttribute.peer_certificate_binary)
            assert isinstance(client.extra(TLSAttribute.ssl_object), ssl.SSLObject)
            assert client.extra(SocketAttribute.remote_address)[0] == LOOPBACK
            await client.aclose()
            await server.aclose()


async def test_tls_that_was_put_in_later(ca: trustme.CA) -> None:
    """As for STARTTLS: the stream sees plaintext before and after."""

    async def start_tls(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"ready")
        await writer.start_tls(server_of(ca).ssl_context)
        writer.write(await reader.readexactly(5))
        await writer.drain()
        writer.close()

    async with (
        await asyncio.start_server(start_tls, LOOPBACK) as server,
        await connect(LOOPBACK, port_of(server.sockets[0])) as stream,
    ):
        assert await received(stream, 5) == b"ready"
        negotiated: asyncio.Future[BaseException | None] = asyncio.Future()
        assert stream.channel.first_slot is not None
        setup_client_tls(
            stream.channel.first_slot,
            TlsConnectionOptions(
                client_of(ca),
                HOST,
                on_negotiation_result=lambda _, __, error: negotiated.set_result(error),
            ),
        )
        assert await negotiated is None
        await stream.send(b"hello")
        assert await received(stream, 5) == b"hello"
        assert stream.extra(TLSAttribute.tls_version) == "TLSv1.3"


async def test_a_stream_of_a_channel_without_a_socket() -> None:
    channel = await Channel.open()
    stream = ChannelStream.attach(channel)
    assert stream.extra(SocketAttribute.family, None) is None
    with pytest.raises(anyio.BrokenResourceError) as caught:
        await stream.send(b"x")
    assert isinstance(caught.value.__cause__, AwsIoError)
    await stream.aclose()


async def test_what_a_stream_looks_like() -> None:
    async with raw_listener() as listener, await connect(LOOPBACK, port_of(listener)) as stream:
        assert repr(stream).startswith("<ChannelStream <Channel")
