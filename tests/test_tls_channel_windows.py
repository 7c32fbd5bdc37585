"""TLS in a channel: no more plaintext than the windows allow, and where it goes."""

import asyncio
import random
import ssl
from pathlib import Path
from typing import Any

import pytest
import trustme

from aws_io_async._tls_window import HANDSHAKE_WINDOW, RECORD_OVERHEAD, RECORD_WINDOW
from aws_io_async.channel import ChannelSlot
from aws_io_async.message_pool import IoMessage
from aws_io_async.tls_context import TlsConnectionOptions, TlsContext
from tests import tls_channels
from tests.socket_tools import turns
from tests.tls_channels import (
    SIDES,
    App,
    connecting,
    listening,
    negotiated,
    openssl_server,
    sides,
    tls_of,
)
from tests.tls_peers import HOST, client_of, server_of

nothing_left = tls_channels.nothing_left


@pytest.fixture(params=SIDES, ids=lambda each: f"{each[0]}-{each[1].name}")
def pair(request: pytest.FixtureRequest, ca: trustme.CA) -> tuple[TlsContext, ssl.SSLContext]:
    """Our handler's context and the peer's, on each side and of each version."""
    return sides(ca, *request.param)


@pytest.fixture
def client(ca: trustme.CA) -> TlsConnectionOptions:
    return TlsConnectionOptions(client_of(ca), HOST)


@pytest.fixture
def server(ca: trustme.CA) -> ssl.SSLContext:
    return openssl_server(ca)


async def test_tls_channel_echo_and_backpressure_test(ca: trustme.CA, tmp_path: Path) -> None:
    to_client, to_server = b"I'm a little teapot.", b"I'm a big teapot"
    client_app, server_app = App(len(to_server) // 2), App(len(to_client) // 2)
    client = TlsConnectionOptions(client_of(ca), HOST, alpn_list="h2;http/1.1")
    async with (
        listening(
            server_of(ca).with_alpn("h2;http/1.1"),
            lambda: [server_app],
            path=str(tmp_path / "echo"),
            enable_read_back_pressure=True,
        ) as listener,
        connecting(listener, client, lambda: [client_app], enable_read_back_pressure=True) as ours,
    ):
        theirs = await listener.accepted()
        assert tls_of(ours).protocol == tls_of(theirs).protocol == "h2"
        await client_app.write(to_server)
        await server_app.write(to_client)
        assert await client_app.received(1) == to_client[: len(to_server) // 2]
        assert await server_app.received(1) == to_server[: len(to_client) // 2]
        await turns(50)
        assert len(client_app.reads) == len(server_app.reads) == 1
        client_app.takes(100)
        server_app.takes(100)
        assert await client_app.received(len(to_client)) == to_client
        assert await server_app.received(len(to_server)) == to_server
        assert len(client_app.reads) == len(server_app.reads) == 2
        theirs.shutdown()
        assert await listener.ended() is None
        await ours.wait_closed()
        assert ours.error is None


# Plaintext without an application


async def test_on_data_read_sees_all_plaintext(
    client: TlsConnectionOptions, server: ssl.SSLContext
) -> None:
    seen: list[Any] = []
    options = client.copy(on_data_read=lambda *told: seen.append(told))
    async with negotiated(options, server, App()) as it:
        await it.wire.feed(it.peer.write(b"hello"))
        assert seen == [(it.tls, it.tls.slot, b"hello")]
        assert it.app.reads == [b"hello"]


@pytest.mark.parametrize("back_pressure", [True, False])
async def test_on_data_read_alone_takes_everything(
    client: TlsConnectionOptions, server: ssl.SSLContext, back_pressure: bool
) -> None:
    data = random.Random(3).randbytes(200_000)
    seen: list[bytes] = []
    options = client.copy(on_data_read=lambda _handler, _slot, data: seen.append(data))
    async with negotiated(options, server, back_pressure=back_pressure) as it:
        await it.wire.feed(it.peer.write(data))
        assert b"".join(seen) == data
        await it.wire.feed(it.peer.close())
        assert await it.closed() is None


@pytest.mark.parametrize("back_pressure", [True, False])
async def test_plaintext_is_kept_for_an_application_that_comes_later(
    client: TlsConnectionOptions, server: ssl.SSLContext, back_pressure: bool
) -> None:
    async with negotiated(client, server, back_pressure=back_pressure) as it:
        await it.wire.feed(it.peer.write(b"early"))
        slot = it.channel.new_slot()
        assert it.channel.first_slot is not None
        it.channel.first_slot.insert_end(slot)
        await it.wire.feed(it.peer.write(b" bird"))
        slot.set_handler(it.app)
        assert await it.app.received(10) == b"early bird"


# Read windows


async def test_no_more_is_decrypted_than_the_window_allows(
    pair: tuple[TlsContext, ssl.SSLContext],
) -> None:
    data = random.Random(4).randbytes(40_000)
    chooser = random.Random(5)
    async with negotiated(*pair, App(10)) as it:
        records = iter(chooser.choices([1, 20, 1000, 16_384], k=1000))
        ciphertext, start = b"", 0
        while start < len(data):
            size = next(records)
            ciphertext += it.peer.write(data[start : start + size])
            start += size
        feeding = asyncio.create_task(it.wire.feed(ciphertext))
        allowed = 10
        while True:
            await it.app.received(min(allowed, len(data)))
            await turns(3)
            assert it.app.size == min(allowed, len(data))
            if allowed >= len(data):
                break
            more = chooser.choice([1, 15, 100, 5000])
            it.app.takes(more)
            allowed += more
        await feeding
        assert it.app.data == data


async def test_a_shut_window_bounds_what_is_kept(
    client: TlsConnectionOptions, server: ssl.SSLContext
) -> None:
    async with negotiated(client, server, App(0)) as it:
        await turns()  # what the handshake took is given back
        ciphertext = it.peer.write(bytes(100_000))
        left = it.wire.feed_now(ciphertext)
        await turns()
        assert it.wire.window == 0
        assert len(ciphertext) - len(left) <= HANDSHAKE_WINDOW
        assert it.app.reads == []
        it.app.takes(1)
        await turns()
        while left and it.wire.window:
            left = it.wire.feed_now(left)
            await turns()
        assert it.app.size == 1
        assert len(ciphertext) - len(left) <= HANDSHAKE_WINDOW + RECORD_WINDOW


async def test_the_window_has_room_for_what_records_add(
    client: TlsConnectionOptions, server: ssl.SSLContext
) -> None:
    async with negotiated(client, server, App(0)) as it:
        it.app.takes(40_000)
        await turns()
        assert it.wire.window == 40_000 + 3 * RECORD_OVERHEAD
        it.app.takes(1)
        await turns()
        assert it.wire.window == 40_001 + 3 * RECORD_OVERHEAD


async def test_a_whole_record_fits_in_however_small_a_window(
    client: TlsConnectionOptions, server: ssl.SSLContext
) -> None:
    async with negotiated(client, server, App(1)) as it:
        await it.wire.feed(it.peer.write(bytes(16_384)))
        assert await it.app.received(1) == b"\0"


async def test_small_records_do_not_use_the_window_up(
    client: TlsConnectionOptions, server: ssl.SSLContext
) -> None:
    # Each adds 22 bytes to one: what an application has asked for comes nevertheless.
    async with negotiated(client, server, App(30_000)) as it:
        data = random.Random(6).randbytes(30_000)
        await it.wire.feed(b"".join(it.peer.write(data[i : i + 1]) for i in range(len(data))))
        assert it.app.data == data


async def test_without_back_pressure_nothing_waits(
    pair: tuple[TlsContext, ssl.SSLContext],
) -> None:
    async with negotiated(*pair, App(0), back_pressure=False) as it:
        it.wire.feed_now(it.peer.write(bytes(500_000)))
        assert it.app.size == 500_000


async def test_a_suspended_application_holds_up_the_sender_at_the_other_end(
    ca: trustme.CA,
) -> None:
    """Without windows, what waits for a coroutine stops the reading: TLS passes that on."""
    data = random.Random(7).randbytes(24 << 20)  # more than sockets hold

    class Slow(App):
        gate = asyncio.Event()

        async def process_read_message(self, slot: ChannelSlot, message: IoMessage) -> None:  # type: ignore[override] # plain in App
            await self.gate.wait()
            super().process_read_message(slot, message)

    slow, source = Slow(), App()
    async with (
        listening(server_of(ca), lambda: [source]) as listener,
        connecting(listener, client_of(ca), lambda: [slow]) as channel,
    ):
        await listener.accepted()
        sending = asyncio.ensure_future(source.write(data))
        while not channel.is_clogged:
            await turns(1)
        await turns(50)  # what is on its way may still come
        assert slow.size == 0
        assert not sending.done()
        slow.gate.set()
        await sending
        assert await slow.received(len(data)) == data
