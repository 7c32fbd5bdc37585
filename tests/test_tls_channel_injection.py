"""TLS that is put into a channel, or taken out of it, while it runs; and TLS of one's own."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme

from aws_io_async.channel import Channel, ChannelHandler, ChannelSlot
from aws_io_async.channel_bootstrap import ClientBootstrap, ServerBootstrap
from aws_io_async.errors import ErrorCode, make
from aws_io_async.message_pool import IoMessage
from aws_io_async.tls_channel_handler import TlsChannelHandler, setup_client_tls
from aws_io_async.tls_context import TlsConnectionOptions
from tests import tls_channels
from tests.socket_tools import raises, turns
from tests.tls_channels import (
    App,
    InMemory,
    Wire,
    code_of,
    connecting,
    error_of,
    in_memory,
    listening,
    negotiated,
    openssl_client,
    openssl_server,
)
from tests.tls_peers import HOST, Peer, client_of, server_of

nothing_left = tls_channels.nothing_left


@pytest.fixture
def client(ca: trustme.CA) -> TlsConnectionOptions:
    return TlsConnectionOptions(client_of(ca), HOST)


@pytest.fixture
def server(ca: trustme.CA) -> ssl.SSLContext:
    return openssl_server(ca)


@asynccontextmanager
async def plain(app: App, *, back_pressure: bool) -> AsyncIterator[tuple[Channel, Wire]]:
    """A channel without TLS."""
    channel, wire = await Channel.open(enable_read_back_pressure=back_pressure), Wire()
    channel.append(wire)
    channel.append(app)
    try:
        yield channel, wire
    finally:
        channel.shutdown(immediately=True)
        await channel.wait_closed()


def handlers_of(channel: Channel) -> list[type[Any]]:
    return [type(slot.handler) for slot in channel.slots()]


# Putting in


@pytest.mark.parametrize("back_pressure", [False, True])
async def test_a_running_channel_can_be_upgraded(
    client: TlsConnectionOptions, server: ssl.SSLContext, back_pressure: bool
) -> None:
    app = App(20)
    results: list[Any] = []
    options = client.copy(on_negotiation_result=lambda *told: results.append(told))
    async with plain(app, back_pressure=back_pressure) as (channel, wire):
        await wire.feed(b"220 ready\r\n")
        await app.write(b"STARTTLS\r\n")
        assert (app.data, wire.take()) == (b"220 ready\r\n", b"STARTTLS\r\n")
        assert channel.first_slot is not None
        tls = setup_client_tls(channel.first_slot, options)
        assert handlers_of(channel) == [Wire, TlsChannelHandler, App]
        with raises(ErrorCode.IO_TLS_ERROR_NOT_NEGOTIATED):
            await app.write(b"too early")
        it = InMemory(channel, tls, app, Peer(server))
        it.wire = wire
        await it.handshake()
        assert results == [(tls, tls.slot, None)]
        await app.write(b"EHLO\r\n")
        assert it.sent() == b"EHLO\r\n"
        await wire.feed(it.peer.write(b"250 hello\r\n"))
        expected = b"220 ready\r\n250 hello\r\n"
        assert app.data == (expected[:20] if back_pressure else expected)
        app.takes(20)
        assert await app.received(len(expected)) == expected


async def test_a_server_can_be_upgraded(ca: trustme.CA) -> None:
    app = App()
    async with plain(app, back_pressure=True) as (channel, wire):
        assert channel.first_slot is not None
        slot = channel.new_slot()
        channel.first_slot.insert_right(slot)
        tls = TlsChannelHandler.server(TlsConnectionOptions(server_of(ca)))
        slot.set_handler(tls)
        it = InMemory(channel, tls, app, Peer(openssl_client(ca)))
        it.wire = wire
        it.peer.handshake()
        await wire.feed(it.peer.outgoing.read())
        await it.handshake()
        await wire.feed(it.peer.write(b"EHLO\r\n"))
        assert app.data == b"EHLO\r\n"


async def test_tls_within_tls(ca: trustme.CA, client: TlsConnectionOptions) -> None:
    data = bytes(range(256)) * 200
    inner_peer = Peer(openssl_server(ca))
    async with negotiated(client, openssl_server(ca), App()) as it:
        assert it.tls.slot is not None
        inner = setup_client_tls(it.tls.slot, client)
        assert inner.protocol == ""
        done = False
        while not done:
            inner_peer.incoming.write(it.sent())
            done = inner_peer.handshake()
            await it.wire.feed(it.peer.write(inner_peer.outgoing.read()))
            await turns()  # for the windows
        await it.app.write(data)
        assert inner_peer.read(it.sent()) == data
        await it.wire.feed(it.peer.write(inner_peer.write(data)))
        assert it.app.data == data
        await it.wire.feed(it.peer.write(inner_peer.close()))
        assert await it.closed() is None  # the inner end is the outer one, too
        outer = it.sent()
        assert inner_peer.has_been_closed(outer)


async def test_options_that_do_not_fit_change_nothing(
    ca: trustme.CA, client: TlsConnectionOptions
) -> None:
    async with plain(App(), back_pressure=False) as (channel, _):
        assert channel.first_slot is not None
        with raises(ErrorCode.IO_TLS_CTX_ERROR):
            setup_client_tls(channel.first_slot, TlsConnectionOptions(server_of(ca)))
        assert handlers_of(channel) == [Wire, App]
        with raises(ErrorCode.ERROR_IO_EVENT_LOOP_THREAD_ONLY):
            await asyncio.to_thread(setup_client_tls, channel.first_slot, client)
        assert handlers_of(channel) == [Wire, App]
        assert channel.error is None


# Taking out


async def test_tls_can_be_taken_out(client: TlsConnectionOptions, server: ssl.SSLContext) -> None:
    async with negotiated(client, server, App(4)) as it:
        await it.wire.feed(it.peer.write(b"0123456789"))
        assert it.tls.slot is not None
        it.tls.slot.remove()
        assert handlers_of(it.channel) == [Wire, App]
        await it.app.write(b"in the clear")
        assert it.wire.take() == b"in the clear"
        it.app.takes(100)
        await it.wire.feed(b"likewise")
        assert it.app.data == b"0123likewise"
        assert it.channel.error is None


@pytest.mark.parametrize("started", [False, True])
async def test_tls_that_is_taken_out_does_not_negotiate(
    client: TlsConnectionOptions, server: ssl.SSLContext, started: bool
) -> None:
    results: list[Any] = []
    options = client.copy(timeout=0.01, on_negotiation_result=lambda *told: results.append(told[2]))
    async with in_memory(options, server, App()) as it:
        if started:
            it.tls.start_negotiation()
        assert it.tls.slot is not None
        it.tls.slot.remove()
        assert [code_of(result) for result in results] == [ErrorCode.ERROR_IO_OPERATION_CANCELLED]
        await asyncio.sleep(0.03)
        await it.wire.feed(b"in the clear")
        assert it.app.data == b"in the clear"
        assert it.channel.error is None
    assert len(results) == 1


async def test_tls_is_taken_out_while_the_shutdown_waits_for_it(
    client: TlsConnectionOptions, server: ssl.SSLContext
) -> None:
    async with negotiated(client, server, App(4)) as it:
        await it.wire.feed(it.peer.write(b"0123456789"))
        it.channel.shutdown()
        await turns(30)
        assert it.tls.slot is not None
        it.tls.slot.remove()
        assert await it.closed() is None


async def test_an_application_that_takes_tls_out_gets_no_more(
    client: TlsConnectionOptions, server: ssl.SSLContext
) -> None:
    class Downgrades(App):
        def process_read_message(self, slot: ChannelSlot, message: IoMessage) -> None:
            super().process_read_message(slot, message)
            if slot.left is not None and isinstance(slot.left.handler, TlsChannelHandler):
                slot.left.remove()

    async with negotiated(client, server, Downgrades()) as it:
        it.wire.feed_now(it.peer.write(b"last") + it.peer.write(b"lost"))
        await it.wire.feed(b" in the clear")
        assert it.app.data == b"last in the clear"


# TLS of one's own


class Shift(ChannelHandler):
    """As if it were TLS: the sides greet each other, and bytes are shifted by one."""

    initial_window_size = 1000

    def __init__(self, options: TlsConnectionOptions, server_side: bool) -> None:
        self.options = options
        self.server_side = server_side
        self.starts = 0

    def start_negotiation(self) -> None:
        self.starts += 1
        self._send(b"I'm a big teapot" if self.server_side else b"I'm a little teapot.")

    def _send(self, data: bytes) -> None:
        assert self.slot is not None
        assert self.slot.left is not None
        super().process_write_message(self.slot, IoMessage(bytes(b ^ 1 for b in data)))

    def process_read_message(self, slot: ChannelSlot, message: IoMessage) -> None:
        data = bytes(b ^ 1 for b in message.data)
        if slot.right is not None:
            super().process_read_message(slot, IoMessage(data))
            return
        greeting = b"I'm a little teapot." if self.server_side else b"I'm a big teapot"
        error = None if data == greeting else make(ErrorCode.IO_TLS_ERROR_NEGOTIATION_FAILURE)
        assert self.options.on_negotiation_result is not None
        self.options.on_negotiation_result(self, slot, error)

    def process_write_message(self, slot: ChannelSlot, message: IoMessage) -> None:
        message.data = bytes(b ^ 1 for b in message.data)
        super().process_write_message(slot, message)


async def test_byo_tls_handler_test(
    ca: trustme.CA, client: TlsConnectionOptions, tmp_path: Path
) -> None:
    made: list[Shift] = []

    def make_shift(options: TlsConnectionOptions, server_side: bool) -> ChannelHandler:
        made.append(Shift(options, server_side))
        return made[-1]

    client_app, server_app = App(), App()
    results: list[Any] = []
    options = client.copy(on_negotiation_result=lambda *told: results.append(told))
    async with (
        listening(
            server_of(ca),
            lambda: [server_app],
            bootstrap=ServerBootstrap(tls_handler_factory=make_shift),
            path=str(tmp_path / "socket"),
            enable_read_back_pressure=True,
        ) as listener,
        connecting(
            listener,
            options,
            lambda: [client_app],
            bootstrap=ClientBootstrap(tls_handler_factory=make_shift),
        ) as ours,
    ):
        theirs = await listener.accepted()
        assert sorted(each.server_side for each in made) == [False, True]
        assert [each.starts for each in made] == [1, 1]
        (own,) = [each for each in made if not each.server_side]
        assert results == [(own, own.slot, None)]
        assert own.options.server_name == HOST
        await client_app.write(b"to the server")
        await server_app.write(b"to the client")
        assert await server_app.received(13) == b"to the server"
        assert await client_app.received(13) == b"to the client"
        theirs.shutdown()
        await ours.wait_closed()
        assert await listener.ended() is None


async def test_a_negotiation_of_ones_own_that_fails(
    ca: trustme.CA, client: TlsConnectionOptions
) -> None:
    async with listening(
        server_of(ca), bootstrap=ServerBootstrap(tls_handler_factory=Shift)
    ) as listener:
        error = await error_of(connecting(listener, client).__aenter__())  # it speaks TLS
        assert code_of(error) is ErrorCode.IO_TLS_ERROR_NEGOTIATION_FAILURE
        failed = await listener.failed()
        assert code_of(failed) is ErrorCode.IO_TLS_ERROR_NEGOTIATION_FAILURE
