"""Subscribers of sockets: what they are told, when, and how often."""

import asyncio

from aws_io_async.errors import AwsIoError, ErrorCode
from aws_io_async.socket import Socket, SocketEndpoint, SocketOptions, SocketType
from tests.socket_tools import connected, is_watched, raises, reset, turns


async def test_the_subscriber_is_told_once_and_again_after_a_read() -> None:
    events: asyncio.Queue[AwsIoError | None] = asyncio.Queue()
    async with connected() as (client, server):
        server.subscribe_to_readable_events(lambda sock, error: events.put_nowait(error))
        await client.write(b"abc")
        assert await events.get() is None
        await client.write(b"def")
        await turns()
        assert events.empty()
        assert server.read_nowait(1) == b"a"
        assert await events.get() is None
        assert await server.read() == b"bcdef"
        await turns()
        assert events.empty()
        await client.write(b"g")
        assert await events.get() is None


async def test_the_subscriber_is_told_that_the_peer_has_gone() -> None:
    events: asyncio.Queue[AwsIoError | None] = asyncio.Queue()
    async with connected() as (client, server):
        server.subscribe_to_readable_events(lambda sock, error: events.put_nowait(error))
        client.close()
        assert await events.get() is None  # the end of the stream can be read
        error = await events.get()
        assert error is not None
        assert error.code is ErrorCode.IO_SOCKET_CLOSED
        assert server.read_nowait() == b""
        await turns()
        assert events.empty()
        assert not is_watched(server.fileno())


async def test_what_came_before_a_hang_up_is_told_first() -> None:
    events: list[bytes | str] = []
    told = asyncio.Event()

    def on_readable(sock: Socket, error: AwsIoError | None) -> None:
        if error is None:
            events.append(sock.read_nowait())
        else:
            events.append(error.name)
            told.set()

    async with connected() as (client, server):
        await client.write(b"last words")
        client.close()
        await turns()
        server.subscribe_to_readable_events(on_readable)
        await told.wait()
        assert events == [b"last words", "AWS_IO_SOCKET_CLOSED"]
        assert await server.read() == b""


async def test_a_subscriber_may_close_the_socket() -> None:
    calls: list[AwsIoError | None] = []
    closed = asyncio.Event()

    def on_readable(sock: Socket, error: AwsIoError | None) -> None:
        calls.append(error)
        sock.close()
        closed.set()

    async with connected() as (client, server):
        server.subscribe_to_readable_events(on_readable)
        await client.write(b"abc")
        client.close()
        await closed.wait()
        await turns()
    assert len(calls) == 1


async def test_subscribing() -> None:
    async with connected() as (client, server):
        calls: list[str] = []
        with raises(ErrorCode.ERROR_IO_NOT_SUBSCRIBED):
            server.unsubscribe_from_readable_events()
        server.subscribe_to_readable_events(lambda *_: calls.append("first"))
        with raises(ErrorCode.ERROR_IO_ALREADY_SUBSCRIBED):
            server.subscribe_to_readable_events(lambda *_: calls.append("second"))
        server.unsubscribe_from_readable_events()
        assert not is_watched(server.fileno())
        await client.write(b"abc")
        assert await server.read() == b"abc"
        await turns()
        assert calls == []
    async with Socket() as new:
        with raises(ErrorCode.IO_SOCKET_NOT_CONNECTED):
            new.subscribe_to_readable_events(lambda *_: None)


async def test_a_reset_is_told_as_the_end() -> None:
    events: asyncio.Queue[AwsIoError | None] = asyncio.Queue()
    async with connected() as (client, server):
        client.subscribe_to_readable_events(lambda sock, error: events.put_nowait(error))
        writing = asyncio.create_task(client.write(bytes(10_000_000)))
        await turns()
        reset(server)
        while (error := await events.get()) is None:
            pass
        assert error.code is ErrorCode.IO_SOCKET_CLOSED
        with raises(ErrorCode.IO_SOCKET_CLOSED):
            await writing
        assert not is_watched(client.fileno())


async def test_an_error_of_the_socket_is_told_and_the_subscription_goes_on() -> None:
    events: asyncio.Queue[AwsIoError | None] = asyncio.Queue()
    options = SocketOptions(type=SocketType.DGRAM)
    async with Socket(options) as receiver, Socket(options) as sender:
        receiver.bind(SocketEndpoint("127.0.0.1"))
        address = receiver.get_bound_address()
        receiver.close()
        await sender.connect(address)
        sender.subscribe_to_readable_events(lambda sock, error: events.put_nowait(error))
        await sender.write(b"hello?")
        error = await events.get()
        assert error is not None
        assert error.code is ErrorCode.IO_SOCKET_CONNECTION_REFUSED
        assert sender.get_error() is None
        async with Socket(options) as again:
            again.bind(address)
            await again.connect(sender.get_bound_address())
            await again.write(b"now")
            assert await events.get() is None
            assert sender.read_nowait() == b"now"
