"""`ChannelStream` as an `anyio.abc.ByteStream`: bytes both ways, and the ends of a stream."""

import asyncio
import random
import socket
import struct

import anyio
import anyio.abc
import pytest
import trustme
from anyio.streams.buffered import BufferedByteReceiveStream, BufferedByteStream

from aws_io_async.channel import Channel, ChannelDirection, ChannelHandler, ChannelSlot
from aws_io_async.channel_bootstrap import ClientBootstrap
from aws_io_async.channel_stream import ChannelStream, connect
from aws_io_async.errors import AwsIoError, ErrorCode
from aws_io_async.message_pool import IoMessage, MessageType
from aws_io_async.tls_context import TlsConnectionOptions
from tests.socket_tools import turns
from tests.streams import (
    LOOPBACK,
    PATIENCE,
    PLAIN,
    Security,
    cut_short,
    end,
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

DATA = random.Random(1).randbytes(1_000_000)


@pytest.fixture(params=["plain", "tls"])
def security(request: pytest.FixtureRequest, ca: trustme.CA) -> Security:
    return tls_of(ca) if request.param == "tls" else PLAIN


@pytest.fixture
def tls(ca: trustme.CA) -> Security:
    return tls_of(ca)


def cause_of(caught: "pytest.ExceptionInfo[anyio.BrokenResourceError]") -> ErrorCode:
    """The code of what broke a stream."""
    cause = caught.value.__cause__
    assert isinstance(cause, AwsIoError), repr(cause)
    assert isinstance(cause.code, ErrorCode)
    return cause.code


def reset(sock: socket.socket) -> None:
    """Close a connection by a reset."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


# Bytes


async def test_it_is_a_byte_stream(security: Security) -> None:
    async with stream_pair(security) as (client, server):
        assert isinstance(client, anyio.abc.ByteStream)
        await client.send(b"hello")
        assert await received(server, 5) == b"hello"
        await server.send(b"and back")
        assert await received(client, 8) == b"and back"


async def test_much_both_ways_at_once(security: Security) -> None:
    async with stream_pair(security) as (client, server):
        sent, answered, *_ = await asyncio.gather(
            received(server, len(DATA)),
            received(client, len(DATA)),
            client.send(DATA),
            server.send(DATA[::-1]),
        )
        assert sent == DATA
        assert answered == DATA[::-1]


async def test_a_stream_says_whether_receiving_would_wait(security: Security) -> None:
    async with stream_pair(security) as (client, server):
        assert not client.is_readable()
        await server.send(b"ab")
        assert await client.receive(1) == b"a"
        assert client.is_readable()
        assert await client.receive() == b"b"
        assert not client.is_readable()
        await server.aclose()
        with pytest.raises(anyio.EndOfStream):
            await client.receive()
        assert client.is_readable()  # as the end can be received again


async def test_a_stream_that_was_closed_is_readable() -> None:
    async with stream_pair() as (client, _):
        await client.aclose()
        assert client.is_readable()
        with pytest.raises(anyio.ClosedResourceError):
            await client.receive()


async def test_no_more_is_received_than_asked_for(security: Security) -> None:
    async with stream_pair(security) as (client, server):
        await client.send(DATA[:40_000])
        parts: list[bytes] = []
        while sum(map(len, parts)) < 40_000:
            size = random.Random(len(parts)).randint(1, 3000)
            parts.append(await server.receive(size))
            assert 1 <= len(parts[-1]) <= size
        assert b"".join(parts) == DATA[:40_000]


async def test_by_default_64_kib_are_received_at_most() -> None:
    async with stream_pair() as (client, server):
        await client.send(DATA[:200_000])
        await settled(lambda: socket_statistics(server.channel).bytes_read)
        assert await server.receive() == DATA[:65536]


@pytest.mark.parametrize("size", [0, -1])
async def test_a_senseless_size(size: int) -> None:
    async with stream_pair() as (client, _):
        with pytest.raises(ValueError, match="max_bytes must be positive"):
            await client.receive(size)


@pytest.mark.parametrize("size", [1.5, "5", None])
async def test_a_size_that_is_no_integer(size: object) -> None:
    async with stream_pair() as (client, server):
        await server.send(b"kept")
        await settled(lambda: socket_statistics(client.channel).bytes_read)
        with pytest.raises(TypeError):
            await client.receive(size)  # type: ignore[arg-type]  # on purpose
        assert await client.receive() == b"kept"


async def test_bytes_like_objects_are_copied(security: Security) -> None:
    """The sender may change them as soon as the call has ended, however that was."""
    async with stream_pair(security) as (client, server):
        data = bytearray(DATA)
        sending = asyncio.create_task(client.send(data))
        await asyncio.sleep(0)
        sending.cancel()
        await asyncio.wait({sending})
        data[:] = bytes(len(data))
        assert await received(server, len(DATA)) == DATA
        await client.send(memoryview(DATA)[:10])
        assert await received(server, 10) == DATA[:10]


@pytest.mark.parametrize("item", ["text", 5, None])
async def test_what_cannot_be_sent(item: object) -> None:
    async with stream_pair() as (client, server):
        with pytest.raises(TypeError):
            await client.send(item)  # type: ignore[arg-type]  # on purpose
        await client.send(b"")
        await client.send(b"x")
        assert await server.receive() == b"x"


async def test_sends_that_are_cancelled_send_all(security: Security) -> None:
    """Wherever they were; some let other tasks run although they need not wait."""
    async with stream_pair(security) as (client, server):
        numbers = [bytes([number]) for number in range(60)]
        for number in numbers:
            await cut_short(client.send(number), 1)
        assert await received(server, len(numbers)) == b"".join(numbers)


async def test_a_long_send_that_is_cancelled_sends_all(security: Security) -> None:
    async with stream_pair(security) as (client, server):
        sent = await fill(client)
        receiving = asyncio.create_task(received(server, len(sent) + 3))
        await client.send(b"end")
        assert await receiving == sent + b"end"


async def test_a_send_is_done_when_the_kernel_has_the_bytes() -> None:
    async with with_raw_peer() as (stream, peer):
        await stream.send(DATA[:1000])
        assert peer.recv(2000) == DATA[:1000]


async def test_buffered_streams_of_anyio(security: Security) -> None:
    async with stream_pair(security) as (client, server):
        buffered = BufferedByteReceiveStream(server)
        await client.send(b"GET / HTTP/1.1\r\n\r\nbody and more")
        assert await buffered.receive_until(b"\r\n\r\n", 100) == b"GET / HTTP/1.1"
        assert await buffered.receive_exactly(4) == b"body"
        both = BufferedByteStream(client)
        await server.send(b"0123456789")
        assert await both.receive_exactly(10) == b"0123456789"
        await client.aclose()
        with pytest.raises(anyio.IncompleteRead):
            await buffered.receive_exactly(100)


async def test_calls_that_need_not_wait_let_others_run() -> None:
    """A task that always finds something to receive, or room to send, does not keep the loop."""
    async with stream_pair() as (client, server):
        await client.send(bytes(1000))
        await settled(lambda: socket_statistics(server.channel).bytes_read)
        ran = 0

        async def count() -> None:
            nonlocal ran
            while True:
                ran += 1
                await asyncio.sleep(0)

        counting = asyncio.create_task(count())
        for _ in range(500):
            assert await server.receive(1)
        assert ran >= 500 // 16
        for _ in range(500):
            await server.send(b"x")
        assert ran >= 1000 // 16
        counting.cancel()


# The end of the input


async def test_iteration_ends_with_the_peers_side(security: Security) -> None:
    async with stream_pair(security) as (client, server):
        await client.send(b"all of it")
        await client.aclose()
        assert b"".join([data async for data in server]) == b"all of it"
        for _ in range(2):
            with pytest.raises(anyio.EndOfStream):
                await server.receive()


async def test_what_had_come_is_received_before_the_end(security: Security) -> None:
    """Also when the channel has shut down long since."""
    async with stream_pair(security) as (client, server):
        await client.send(DATA[:200_000])
        await settled(lambda: socket_statistics(server.channel).bytes_read)
        await client.aclose()
        if security:  # it says that both directions have ended
            await server.channel.wait_closed()
        assert await received(server, 200_000) == DATA[:200_000]
        with pytest.raises(anyio.EndOfStream):
            await server.receive()


async def test_an_end_that_is_waited_for(security: Security) -> None:
    async with stream_pair(security) as (client, server):
        receiving = asyncio.create_task(server.receive())
        await turns()
        await client.aclose()
        with pytest.raises(anyio.EndOfStream):
            await receiving


async def test_a_reset_breaks_the_stream() -> None:
    async with with_raw_peer() as (stream, peer):
        receiving = asyncio.create_task(stream.receive())
        await turns()
        reset(peer)
        with pytest.raises(anyio.BrokenResourceError) as caught:
            await receiving
        assert cause_of(caught) is ErrorCode.IO_SOCKET_CLOSED
        with pytest.raises(anyio.BrokenResourceError):
            await stream.receive()


async def test_what_had_come_is_received_before_the_break() -> None:
    async with with_raw_peer() as (stream, peer):
        peer.send(b"last words")
        await settled(lambda: socket_statistics(stream.channel).bytes_read)
        reset(peer)
        await stream.channel.wait_closed()
        assert await stream.receive() == b"last words"
        with pytest.raises(anyio.BrokenResourceError):
            await stream.receive()


async def test_with_tls_an_end_that_tls_was_not_told_of_is_a_break(ca: trustme.CA) -> None:
    """Somebody in between could have cut the stream short (RFC 8446, section 6.1)."""
    context = server_of(ca).ssl_context

    async def server(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"half of it")
        await writer.drain()
        with socket.socket(fileno=socket.dup(writer.get_extra_info("socket").fileno())) as raw:
            raw.shutdown(socket.SHUT_WR)
        await reader.read()
        writer.transport.abort()

    async with await asyncio.start_server(server, LOOPBACK, ssl=context) as listener:
        options = TlsConnectionOptions(client_of(ca), HOST)
        async with await connect(LOOPBACK, port_of(listener.sockets[0]), tls=options) as stream:
            assert await received(stream, 10) == b"half of it"
            with pytest.raises(anyio.BrokenResourceError) as caught:
                await stream.receive()
            assert cause_of(caught) is ErrorCode.IO_TLS_CLOSED_ABORT


class TestOnAChannelWithoutHalfClose:
    """There, the socket handler shuts the channel down when the peer ends its side."""

    async def attached(self, port: int) -> ChannelStream:
        channel = await ClientBootstrap().new_socket_channel(LOOPBACK, port)
        return ChannelStream.attach(channel)

    async def test_the_peers_end_is_the_end(self) -> None:
        async with raw_listener() as listener:
            stream = await self.attached(port_of(listener))
            peer, _ = listener.accept()
            peer.send(b"bye")
            peer.close()
            assert await received(stream, 3) == b"bye"
            with pytest.raises(anyio.EndOfStream):
                await stream.receive()
            await stream.channel.wait_closed()

    async def test_a_reset_is_a_break(self) -> None:
        async with raw_listener() as listener:
            stream = await self.attached(port_of(listener))
            peer, _ = listener.accept()
            reset(peer)
            with pytest.raises(anyio.BrokenResourceError):
                await stream.receive()
            await stream.channel.wait_closed()

    async def test_shut_down_by_somebody_else(self) -> None:
        async with raw_listener() as listener:
            stream = await self.attached(port_of(listener))
            stream.channel.shutdown(ZeroDivisionError("on purpose"))
            with pytest.raises(anyio.BrokenResourceError) as caught:
                await stream.receive()
            assert isinstance(caught.value.__cause__, ZeroDivisionError)
            await stream.channel.wait_closed()
            with pytest.raises(anyio.BrokenResourceError):
                await stream.send(b"x")
            with pytest.raises(anyio.BrokenResourceError):
                await stream.send_eof()


# The end of the output


async def test_sending_when_the_peer_has_gone(security: Security) -> None:
    async with stream_pair(security) as (client, server):
        await end(server.channel)
        with pytest.raises(anyio.BrokenResourceError) as caught:
            async with asyncio.timeout(PATIENCE):
                while True:
                    await client.send(DATA)
        assert isinstance(caught.value.__cause__, Exception)
        with pytest.raises(anyio.BrokenResourceError):
            await client.send(b"x")


async def test_a_reset_while_a_send_waits() -> None:
    async with with_raw_peer() as (stream, peer):
        sending = asyncio.create_task(send_for_ever(stream))
        await is_blocked(stream)
        reset(peer)
        with pytest.raises(anyio.BrokenResourceError) as caught:
            await sending
        assert cause_of(caught) is ErrorCode.IO_SOCKET_CLOSED


async def test_ending_our_side() -> None:
    async with stream_pair() as (client, server):
        await client.send(b"a question")
        await client.send_eof()
        await client.send_eof()
        assert b"".join([data async for data in server]) == b"a question"
        await server.send(b"an answer")
        assert await received(client, 9) == b"an answer"
        with pytest.raises(anyio.ClosedResourceError):
            await client.send(b"more")
        await server.send_eof()
        with pytest.raises(anyio.EndOfStream):
            await client.receive()


async def test_our_end_comes_after_what_was_sent() -> None:
    async with stream_pair() as (client, server):
        sent = await fill(client)
        ending = asyncio.create_task(client.send_eof())
        assert b"".join([data async for data in server]) == sent
        await ending


async def test_tls_has_no_half_close(tls: Security) -> None:
    async with stream_pair(tls) as (client, server):
        with pytest.raises(NotImplementedError, match="both directions at once"):
            await client.send_eof()
        await client.send(b"still there")
        assert await received(server, 11) == b"still there"


async def test_a_handler_that_fails_to_write() -> None:
    class Fails(ChannelHandler):
        def process_write_message(self, slot: ChannelSlot, message: IoMessage) -> None:
            raise OSError("on purpose")

    async with raw_listener() as listener:
        channel = await ClientBootstrap().new_socket_channel(
            LOOPBACK, port_of(listener), handlers=lambda: [Fails()]
        )
        stream = ChannelStream.attach(channel)
        with pytest.raises(anyio.BrokenResourceError) as caught:
            async with asyncio.timeout(PATIENCE):
                await stream.send(b"x")
        assert str(caught.value.__cause__) == "on purpose"
        await end(channel)


async def test_other_messages_are_not_data() -> None:
    async with stream_pair() as (client, server):
        slot = server.channel.first_slot
        assert slot is not None
        slot.send_message(IoMessage(b"tag", MessageType.OTHER), ChannelDirection.READ)
        await client.send(b"data")
        assert await server.receive() == b"data"


async def test_a_window_must_be_positive() -> None:
    channel = await Channel.open()
    with pytest.raises(ValueError, match="window must be positive"):
        ChannelStream.attach(channel, window=0)
    with pytest.raises(ValueError, match="window must be positive"):
        await connect(LOOPBACK, 1, window=0)
    await end(channel)
