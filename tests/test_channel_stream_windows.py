"""`ChannelStream`: a reader that is slow holds back its peer, and bounds what waits for it."""

import asyncio
import random

import pytest
import trustme

from aws_io_async.channel import Channel
from aws_io_async.channel_bootstrap import ClientBootstrap
from aws_io_async.channel_stream import WINDOW, ChannelStream
from tests.socket_tools import turns
from tests.streams import (
    LOOPBACK,
    PATIENCE,
    PLAIN,
    Security,
    end,
    port_of,
    raw_listener,
    received,
    settled,
    socket_statistics,
    stream_pair,
    tls_of,
)

DATA = random.Random(1).randbytes(2_000_000)

WINDOWS = [1, 1000, 16 * 1024, 100_000, WINDOW]


@pytest.fixture
def tls(ca: trustme.CA) -> Security:
    return tls_of(ca)


async def bytes_read(channel: Channel) -> int:
    """What the channel's socket has read when it reads no more."""
    return await settled(lambda: socket_statistics(channel).bytes_read)


def waiting(stream: ChannelStream) -> int:
    """Bytes that wait to be received."""
    return sum(map(len, stream._handler._chunks))


@pytest.mark.parametrize("window", WINDOWS)
async def test_no_more_is_read_than_the_window(window: int) -> None:
    """To the byte, on every loop; and as much again for what is received."""
    async with stream_pair(window=window) as (client, server):
        sending = asyncio.create_task(client.send(DATA))
        assert await bytes_read(server.channel) == window
        data = await server.receive(window)
        assert await bytes_read(server.channel) == window + len(data)
        if window > 100:  # so many turns take their time
            data += await received(server, len(DATA) - len(data))
            assert data == DATA
            await sending
        else:
            sending.cancel()


async def test_by_default_the_window_is_256_kib() -> None:
    async with stream_pair() as (client, server):
        sending = asyncio.create_task(client.send(DATA))
        assert await bytes_read(server.channel) == WINDOW == 256 * 1024
        await received(server, len(DATA))
        await sending


@pytest.mark.parametrize("window", [1000, 100_000, WINDOW])
async def test_no_more_is_decrypted_than_the_window(window: int, tls: Security) -> None:
    async with stream_pair(tls, window=window) as (client, server):
        sending = asyncio.create_task(client.send(DATA))
        read = await bytes_read(server.channel)
        assert waiting(server) == window
        assert read < window + 64 * 1024  # of ciphertext, that of the handshake included
        data = await received(server, 500)
        await bytes_read(server.channel)
        assert waiting(server) == window
        data += await received(server, len(DATA) - len(data))
        assert data == DATA
        await sending


async def test_windows_of_some_size_are_topped_up_late() -> None:
    """Not for each byte: when there is little left, as the channel does it for all handlers."""
    async with stream_pair(window=200_000) as (client, server):
        await client.send(DATA[:100_000])
        await bytes_read(server.channel)
        slot = server.channel.first_slot
        assert slot is not None
        assert slot.downstream_read_window == 100_000
        await received(server, 100_000)
        await turns()
        assert slot.downstream_read_window == 100_000
        for _ in range(2):
            await client.send(DATA[:25_000])
            await received(server, 25_000)
            await turns()
        assert slot.downstream_read_window > 150_000


async def test_cancelled_receives_open_no_window(tls: Security) -> None:
    """Only what has been handed over makes room for more."""
    for security in PLAIN, tls:
        async with stream_pair(security, window=50_000) as (client, server):
            sending = asyncio.create_task(client.send(DATA))
            await bytes_read(server.channel)
            for patience in range(20):
                receiving = asyncio.ensure_future(server.receive(10_000))
                await turns(patience % 3)
                if receiving.cancel():
                    await asyncio.wait({receiving})
                else:
                    assert 0 < len(receiving.result()) <= 10_000
                assert waiting(server) <= 50_000
            assert await bytes_read(server.channel)
            assert waiting(server) == 50_000
            sending.cancel()


async def test_what_is_dropped_opens_the_window() -> None:
    """A stream that closes lets everything come, so that TLS gets to the end of it."""
    async with stream_pair(window=1000) as (client, server):
        await client.send(DATA[:3000])
        assert await bytes_read(server.channel) == 1000
        async with asyncio.timeout(PATIENCE):
            await server.aclose()
        assert waiting(server) == 0


async def test_without_back_pressure_all_is_taken() -> None:
    """The window is the channel's to keep: one without back pressure has none."""
    async with raw_listener() as listener:
        channel = await ClientBootstrap().new_socket_channel(LOOPBACK, port_of(listener))
        stream = ChannelStream.attach(channel, window=10)
        peer, _ = listener.accept()
        with peer:
            peer.send(DATA[:50_000])
            assert await bytes_read(channel) == 50_000
            assert await received(stream, 50_000) == DATA[:50_000]
        await end(channel)
