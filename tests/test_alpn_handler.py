"""ALPN in a channel: the negotiated protocol chooses the application's handler."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trustme

from aws_io_async.alpn_handler import AlpnHandler
from aws_io_async.channel import Channel, ChannelDirection, ChannelHandler, ChannelSlot
from aws_io_async.channel_bootstrap import ClientBootstrap, ServerBootstrap
from aws_io_async.errors import ErrorCode
from aws_io_async.message_pool import IoMessage, MessageType
from aws_io_async.tls_channel_handler import TlsChannelHandler
from aws_io_async.tls_context import TlsConnectionOptions, TlsNegotiatedProtocol
from tests import tls_channels
from tests.socket_tools import turns
from tests.tls_channels import (
    App,
    Wire,
    code_of,
    connecting,
    error_of,
    in_memory,
    listening,
    negotiated,
    openssl_server,
    tls_of,
)
from tests.tls_peers import HOST, client_of, server_of

nothing_left = tls_channels.nothing_left


@asynccontextmanager
async def waiting_for_alpn(choose: Any) -> AsyncIterator[tuple[Channel, Wire]]:
    """A channel of a wire and an ALPN handler, which has not been told a protocol yet."""
    channel, wire = await Channel.open(), Wire()
    channel.append(wire)
    channel.append(AlpnHandler(choose))
    try:
        yield channel, wire
    finally:
        channel.shutdown(immediately=True)
        await channel.wait_closed()


def tell(wire: Wire, protocol: str) -> None:
    """What a TLS handler says to its right neighbour."""
    assert wire.slot is not None
    message = IoMessage(message_type=MessageType.OTHER, tag=TlsNegotiatedProtocol(protocol))
    wire.slot.send_message(message, ChannelDirection.READ)


def handlers_of(channel: Channel) -> list[type[Any]]:
    return [type(slot.handler) for slot in channel.slots()]


# aws-c-io's cases


async def test_alpn_successfully_negotiates() -> None:
    app = App()
    told: list[tuple[ChannelSlot, str]] = []

    def choose(slot: ChannelSlot, protocol: str) -> ChannelHandler:
        told.append((slot, protocol))
        return app

    async with waiting_for_alpn(choose) as (channel, wire):
        tell(wire, "h2")
        assert told == [(app.slot, "h2")]
        assert handlers_of(channel) == [Wire, App]
        channel.shutdown()
        await channel.wait_closed()
        assert channel.error is None


async def test_alpn_no_protocol_message() -> None:
    async with waiting_for_alpn(lambda *_: App()) as (channel, wire):
        assert wire.slot is not None
        wire.slot.send_message(IoMessage(b"data"), ChannelDirection.READ)
        await channel.wait_closed()
        assert code_of(channel.error) is ErrorCode.IO_MISSING_ALPN_MESSAGE


async def test_alpn_error_creating_handler() -> None:
    async with waiting_for_alpn(lambda *_: None) as (channel, wire):
        tell(wire, "h2")
        await channel.wait_closed()
        assert code_of(channel.error) is ErrorCode.IO_UNHANDLED_ALPN_PROTOCOL_MESSAGE
        assert "'h2'" in str(channel.error)


# What else can go wrong


def test_a_callback_is_needed() -> None:
    with pytest.raises(TypeError, match="callable"):
        AlpnHandler(None)  # type: ignore[arg-type] # what is refused


@pytest.mark.parametrize(
    "message",
    [
        IoMessage(message_type=MessageType.OTHER, tag="h2"),
        IoMessage(message_type=MessageType.END_OF_INPUT),
    ],
)
async def test_other_messages_are_not_the_one(message: IoMessage) -> None:
    async with waiting_for_alpn(lambda *_: App()) as (channel, wire):
        assert wire.slot is not None
        wire.slot.send_message(message, ChannelDirection.READ)
        await channel.wait_closed()
        assert code_of(channel.error) is ErrorCode.IO_MISSING_ALPN_MESSAGE


class OnPurposeError(Exception):
    """What the tests' callbacks raise."""


def fail(*_: Any) -> ChannelHandler:
    raise OnPurposeError


@pytest.mark.parametrize(
    ("choose", "error"), [(fail, OnPurposeError), (lambda *_: "h2", TypeError)]
)
async def test_callbacks_that_fail_end_the_channel(choose: Any, error: type[Exception]) -> None:
    errors: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context))
    async with waiting_for_alpn(choose) as (channel, wire):
        tell(wire, "h2")
        await channel.wait_closed()
        assert isinstance(channel.error, error)
        assert [context["exception"] for context in errors] == [channel.error]


async def test_tls_that_does_not_tell_is_found_out(ca: trustme.CA) -> None:
    client = TlsConnectionOptions(client_of(ca), HOST)
    for back_pressure in (False, True):
        async with negotiated(
            client, openssl_server(ca), AlpnHandler(lambda *_: App()), back_pressure=back_pressure
        ) as it:
            it.wire.feed_now(it.peer.write(b"data"))
            if back_pressure:  # an ALPN handler takes no data: none is decrypted for it
                await turns()
                assert it.channel.error is None
            else:
                error = await it.closed()
                assert code_of(error) is ErrorCode.IO_MISSING_ALPN_MESSAGE


# With TLS


@pytest.mark.parametrize("protocols", ["h2", "http/1.1;h2", None])
@pytest.mark.parametrize("back_pressure", [False, True])
async def test_the_first_data_is_for_the_chosen_handler(
    ca: trustme.CA, protocols: str | None, back_pressure: bool
) -> None:
    # It comes in one piece with the end of the negotiation.
    server = openssl_server(ca)
    server.set_alpn_protocols(["h2"])
    app = App(10)
    told: list[str] = []

    def choose(_slot: ChannelSlot, protocol: str) -> ChannelHandler:
        told.append(protocol)
        return app

    options = TlsConnectionOptions(
        client_of(ca), HOST, alpn_list=protocols, advertise_alpn_message=True
    )
    alpn = AlpnHandler(choose)
    async with in_memory(options, server, alpn, back_pressure=back_pressure) as it:
        it.tls.start_negotiation()
        it.peer.incoming.write(it.wire.take())
        it.peer.handshake()
        await it.wire.feed(it.peer.outgoing.read())
        it.peer.incoming.write(it.wire.take())
        assert it.peer.handshake()
        await it.wire.feed(it.peer.outgoing.read() + it.peer.write(b"hello, world"))
        assert told == ["h2" if protocols else ""]
        assert handlers_of(it.channel) == [Wire, TlsChannelHandler, App]
        assert await app.received(10) == b"hello, world"[: 10 if back_pressure else None]
        app.takes(10)
        assert await app.received(12) == b"hello, world"
        await app.write(b"and back")
        assert it.sent() == b"and back"


async def test_on_negotiation_result_comes_after_the_handler_is_there(ca: trustme.CA) -> None:
    events: list[str] = []

    def choose(_slot: ChannelSlot, protocol: str) -> ChannelHandler:
        events.append(protocol)
        return App()

    options = TlsConnectionOptions(
        client_of(ca),
        HOST,
        advertise_alpn_message=True,
        on_negotiation_result=lambda _handler, slot, error: events.append(
            f"{type(slot.right.handler).__name__} {error}"
        ),
    )
    async with negotiated(options, openssl_server(ca), AlpnHandler(choose)):
        assert events == ["", "App None"]


async def test_a_refused_protocol_is_a_failed_negotiation(ca: trustme.CA) -> None:
    results: list[Any] = []
    options = TlsConnectionOptions(
        client_of(ca),
        HOST,
        advertise_alpn_message=True,
        on_negotiation_result=lambda _handler, _slot, error: results.append(error),
    )
    async with in_memory(options, openssl_server(ca), AlpnHandler(lambda *_: None)) as it:
        await it.handshake()
        error = await it.closed()
        assert code_of(error) is ErrorCode.IO_UNHANDLED_ALPN_PROTOCOL_MESSAGE
        assert results == [error]


# By the bootstraps


class Protocols:
    """Chooses an application that knows its protocol; refuses what is not in the list."""

    def __init__(self, *known: str) -> None:
        self._known = known
        self.apps: list[tuple[str, App]] = []

    def __call__(self, slot: ChannelSlot, protocol: str) -> ChannelHandler | None:
        if protocol not in self._known:
            return None
        self.apps.append((protocol, App()))
        return self.apps[-1][1]


async def test_both_sides_choose(ca: trustme.CA) -> None:
    ours, theirs = Protocols("h2", "http/1.1"), Protocols("h2", "http/1.1", "")
    client = ClientBootstrap()
    client.set_alpn_callback(ours)
    server = ServerBootstrap(on_protocol_negotiated=theirs)
    context = server_of(ca).with_alpn("h2;http/1.1")
    async with listening(context, bootstrap=server) as listener:
        for count, protocol in enumerate(("http/1.1", "h2"), 1):
            options = TlsConnectionOptions(client_of(ca), HOST, alpn_list=protocol)
            async with connecting(listener, options, bootstrap=client) as channel:
                accepted = await listener.accepted(count)
                assert tls_of(channel).protocol == tls_of(accepted).protocol == protocol
                (our_protocol, app), (their_protocol, other) = ours.apps[-1], theirs.apps[-1]
                assert our_protocol == their_protocol == protocol
                data = random.Random(count).randbytes(50_000)
                await app.write(data)
                assert await other.received(len(data)) == data
                await other.write(b"thanks")
                assert await app.received(6) == b"thanks"
        async with connecting(listener, TlsConnectionOptions(client_of(ca), HOST)):
            await listener.accepted(3)
            assert theirs.apps[-1][0] == ""


async def test_no_shared_protocol_fails_the_set_up(ca: trustme.CA) -> None:
    options = TlsConnectionOptions(client_of(ca), HOST, alpn_list="mqtt")
    client, server = (
        ClientBootstrap(on_protocol_negotiated=Protocols("mqtt")),
        ServerBootstrap(on_protocol_negotiated=Protocols("h2")),
    )
    context = server_of(ca).with_alpn("h2")
    async with listening(context, bootstrap=server) as listener:
        error = await error_of(connecting(listener, options, bootstrap=client).__aenter__())
        assert code_of(error) is ErrorCode.IO_UNHANDLED_ALPN_PROTOCOL_MESSAGE
        failed = await listener.failed()
        assert code_of(failed) is ErrorCode.IO_UNHANDLED_ALPN_PROTOCOL_MESSAGE
        good = ClientBootstrap(on_protocol_negotiated=Protocols("h2"))
        async with connecting(listener, options.copy(alpn_list="h2"), bootstrap=good):
            await listener.accepted()  # the listener goes on
