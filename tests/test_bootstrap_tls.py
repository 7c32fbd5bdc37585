"""TLS by bootstraps: what is verified, when callbacks are called, ALPN, TLS of one's own."""

import asyncio
from typing import Any

import pytest
import trustme

from aws_io_async.alpn_handler import AlpnHandler
from aws_io_async.channel import Channel, ChannelDirection, ChannelHandler, ChannelSlot
from aws_io_async.channel_bootstrap import ClientBootstrap, ServerBootstrap
from aws_io_async.errors import ErrorCode, TlsError
from aws_io_async.event_loop.group import EventLoopGroup
from aws_io_async.message_pool import IoMessage
from aws_io_async.socket import SocketDomain, SocketOptions
from aws_io_async.socket_channel_handler import SocketChannelHandler
from aws_io_async.tls_channel_handler import TlsChannelHandler
from aws_io_async.tls_context import TlsConnectionOptions, TlsContext, TlsContextOptions
from tests import channels, loops
from tests.bootstraps import (
    LOOPBACK,
    Echo,
    Journal,
    OnPurposeError,
    Sink,
    closed,
    code_of,
    connected,
    dial,
    ended,
    error_of,
    handlers_of,
    knowing,
    listening,
    serving,
    tasks_of,
    write,
)
from tests.certificates import identity
from tests.channels import App
from tests.socket_tools import local_endpoint, on
from tests.tls_peers import HOST, client_of, server_of

no_tasks_left = channels.no_tasks_left

LOCAL = SocketOptions(domain=SocketDomain.LOCAL)


def named(ca: trustme.CA, **options: Any) -> TlsConnectionOptions:
    """A client's options, which look for HOST in the server's certificate."""
    return TlsConnectionOptions(client_of(ca), HOST, **options)


# The order of things


async def test_creation_before_tls_and_setup_after_it(ca: trustme.CA) -> None:
    ours, theirs, app = Journal(), Journal(), App()
    made_of: list[list[type[Any]]] = []

    def negotiated(handler: Any, slot: Any, error: BaseException | None) -> None:
        ours.note("negotiated", slot.channel, error)

    def created(channel: Channel) -> None:
        ours.creation(channel)
        made_of.append(handlers_of(channel))

    async with (
        serving(tls=server_of(ca), journal=theirs) as server,
        connected(
            server,
            tls=named(ca, on_negotiation_result=negotiated),
            handlers=lambda: [app],
            **{**ours.of_client, "on_creation": created},
        ) as channel,
    ):
        assert ours.story == ["creation", "negotiated", "setup"]
        assert made_of == [[SocketChannelHandler]]
        assert handlers_of(channel) == [SocketChannelHandler, TlsChannelHandler, App]
        await write(channel, b"hello")
        assert await app.got(5) == b"hello"
        channel.shutdown()
        assert await closed(channel) is None
        assert (await theirs.has("shutdown")).error is None
        await server.listener.aclose()
        await theirs.has("destroy")
    assert ours.story == ["creation", "negotiated", "setup", "shutdown"]
    assert theirs.story == ["creation", "setup", "shutdown", "destroy"]
    assert {note.subject for note in ours.notes} == {channel}


@pytest.mark.parametrize("kind", loops.FACTORIES)
async def test_on_loops_of_groups(kind: str, ca: trustme.CA) -> None:
    ours, sink = Journal(), Sink()
    async with EventLoopGroup(2, loop_factory=loops.FACTORIES[kind]) as group:
        async with (
            serving(group=group, tls=server_of(ca)) as server,
            connected(
                server,
                bootstrap=ClientBootstrap(group),
                tls=named(ca),
                handlers=lambda: [sink],
                **ours.of_client,
            ) as channel,
        ):
            await on(channel.loop, write(channel, b"hello"))
            assert await sink.got(5) == b"hello"
            assert {note.loop for note in ours.notes} == {channel.loop}
        assert not await tasks_of(group)


async def test_ssl_contexts_as_they_are(ca: trustme.CA) -> None:
    """What `connect` and `serve` take, bootstraps take."""
    server, client = server_of(ca, LOOPBACK).ssl_context, client_of(ca).ssl_context
    sink = Sink()
    async with await ServerBootstrap().new_socket_listener(
        LOOPBACK, tls=server, handlers=lambda: [Echo()]
    ) as listener:
        async with await ClientBootstrap().new_socket_channel(
            LOOPBACK, listener.endpoint.port, tls=client, handlers=lambda: [sink]
        ) as channel:
            assert [type(slot.handler) for slot in channel.slots()][1] is TlsChannelHandler
            await write(channel, b"hello")
            assert await sink.got(5) == b"hello"
        error = await error_of(
            ClientBootstrap().new_socket_channel(LOOPBACK, listener.endpoint.port, tls=True)
        )
        assert isinstance(error, TlsError)
        assert error.code is ErrorCode.IO_TLS_UNKNOWN_ROOT_CERTIFICATE


async def test_local_sockets(ca: trustme.CA) -> None:
    app = App()
    with local_endpoint() as endpoint:
        async with serving(endpoint.address, socket_options=LOCAL, tls=server_of(ca)) as server:
            bootstrap = ClientBootstrap()
            with pytest.raises(TlsError, match=r"no name that a certificate could have"):
                await bootstrap.new_socket_channel(
                    endpoint.address, socket_options=LOCAL, tls=client_of(ca)
                )
            channel = await bootstrap.new_socket_channel(
                endpoint.address, socket_options=LOCAL, tls=named(ca), handlers=lambda: [app]
            )
            await write(channel, b"hello")
            assert await app.got(5) == b"hello"
            await ended(channel)
            assert len(server.journal.all("creation")) == 1


# Who the peer has to be


async def test_the_host_is_verified_unless_another_name_is_given(ca: trustme.CA) -> None:
    journal = Journal()
    with knowing(**{HOST: [LOOPBACK], "other.test": [LOOPBACK]}) as resolver:
        bootstrap = ClientBootstrap(host_resolver=resolver)
        async with serving(tls=server_of(ca)) as server:
            port = server.endpoint.port
            for host, tls in ((HOST, client_of(ca)), ("other.test", named(ca))):
                await ended(await bootstrap.new_socket_channel(host, port, tls=tls))
            error = await error_of(
                bootstrap.new_socket_channel(
                    "other.test", port, tls=client_of(ca), **journal.of_client
                )
            )
    assert error.code is ErrorCode.IO_TLS_HOST_NAME_MISMATCH
    assert isinstance(error, TlsError)
    assert error.verify_code == 62
    assert f"other.test:{port} ({LOOPBACK})" in str(error)
    assert journal.story == ["creation", "failure"]
    assert journal.notes[1].error is error


@pytest.mark.parametrize("host", [LOOPBACK, "::1"])
async def test_an_address_is_verified_too(host: str, ca: trustme.CA) -> None:
    async with (
        serving(host, tls=server_of(ca, host)) as server,
        connected(server, tls=client_of(ca)),
    ):
        pass
    async with serving(host, tls=server_of(ca, HOST)) as server:
        error = await error_of(
            ClientBootstrap().new_socket_channel(*server.address, tls=client_of(ca))
        )
        assert error.code is ErrorCode.IO_TLS_HOST_NAME_MISMATCH


async def test_a_server_that_is_not_trusted_hears_why(ca: trustme.CA) -> None:
    journal = Journal()
    async with serving(tls=server_of(trustme.CA(), LOOPBACK)) as server:
        error = await error_of(
            ClientBootstrap().new_socket_channel(
                *server.address, tls=client_of(ca), **journal.of_client
            )
        )
        failure = await server.journal.has("failure")
    assert error.code is ErrorCode.IO_TLS_UNKNOWN_ROOT_CERTIFICATE
    assert code_of(failure.error) is ErrorCode.IO_TLS_PEER_CERTIFICATE_UNKNOWN
    assert journal.story == server.journal.story[:2] == ["creation", "failure"]


async def test_a_peer_that_does_not_speak_tls(ca: trustme.CA) -> None:
    async with serving() as server:
        error = await error_of(ClientBootstrap().new_socket_channel(*server.address, tls=named(ca)))
        assert error.code in (
            ErrorCode.IO_TLS_ERROR_NEGOTIATION_FAILURE,
            ErrorCode.IO_TLS_ERROR_ALERT_RECEIVED,
        )
        assert f"{LOOPBACK}:{server.endpoint.port}" in str(error)


async def test_a_peer_that_says_nothing_is_given_up_in_time(ca: trustme.CA) -> None:
    journal = Journal()
    with listening() as silent:
        error = await error_of(
            ClientBootstrap().new_socket_channel(
                *silent.getsockname(), tls=named(ca, timeout=0.05), **journal.of_client
            )
        )
    assert error.code is ErrorCode.IO_TLS_NEGOTIATION_TIMEOUT
    assert isinstance(error, TimeoutError)
    assert journal.story == ["creation", "failure"]


async def test_a_client_that_says_nothing_is_given_up_in_time(ca: trustme.CA) -> None:
    async with serving(tls=TlsConnectionOptions(server_of(ca), timeout=0.05)) as server:
        with await dial(server) as peer:
            assert await asyncio.get_running_loop().sock_recv(peer, 100) == b""
        failure = await server.journal.has("failure")
        assert code_of(failure.error) is ErrorCode.IO_TLS_NEGOTIATION_TIMEOUT


# Callbacks that raise


@pytest.mark.parametrize("where", ["negotiated", "handlers", "setup"])
async def test_what_a_callback_raises_ends_the_channel_and_is_raised(
    where: str, ca: trustme.CA
) -> None:
    error = OnPurposeError()
    journal = Journal(**{where: error})

    def handlers() -> list[App]:
        journal.note("handlers")
        return [App()]

    async with serving(tls=server_of(ca)) as server:
        with pytest.raises(OnPurposeError) as caught:
            await ClientBootstrap().new_socket_channel(
                *server.address,
                tls=named(ca, on_negotiation_result=lambda *_: journal.note("negotiated")),
                handlers=handlers,
                **journal.of_client,
            )
        assert caught.value is error
        await server.listener.aclose()
    assert (
        journal.story
        == {
            "negotiated": ["creation", "negotiated", "failure"],
            "handlers": ["creation", "negotiated", "handlers", "failure"],
            "setup": ["creation", "negotiated", "handlers", "setup", "shutdown"],
        }[where]
    )
    assert journal.notes[-1].error is error


# ALPN


def alpn_server(ca: trustme.CA, protocols: str) -> TlsContext:
    options = TlsContextOptions.default_server(*identity(ca.issue_cert(HOST)))
    options.set_alpn_list(protocols)
    return TlsContext.server(options)


class Speaker(Echo):
    """What speaks a protocol."""

    def __init__(self, protocol: str) -> None:
        self.protocol = protocol


def protocol_of(channel: Channel) -> str:
    _, _, slot = channel.slots()
    assert isinstance(slot.handler, Speaker)
    return slot.handler.protocol


@pytest.mark.parametrize(
    ("asked", "expected"), [("h2;http/1.1", "h2"), ("http/1.1", "http/1.1"), ("", "")]
)
async def test_the_callback_makes_the_handler_for_the_protocol(
    asked: str, expected: str, ca: trustme.CA
) -> None:
    def choose(slot: ChannelSlot, protocol: str) -> ChannelHandler:
        return Speaker(protocol)

    server_bootstrap, bootstrap = ServerBootstrap(on_protocol_negotiated=choose), ClientBootstrap()
    bootstrap.set_alpn_callback(choose)
    async with (
        serving(
            bootstrap=server_bootstrap, handlers=list, tls=alpn_server(ca, "h2;http/1.1")
        ) as server,
        connected(server, bootstrap=bootstrap, tls=named(ca, alpn_list=asked or None)) as channel,
    ):
        assert protocol_of(channel) == protocol_of(await server.accepted()) == expected
        assert AlpnHandler not in handlers_of(channel)


async def test_a_protocol_that_nobody_speaks_fails_the_set_up(ca: trustme.CA) -> None:
    journal = Journal()
    bootstrap = ClientBootstrap(on_protocol_negotiated=lambda slot, protocol: None)
    async with serving(tls=alpn_server(ca, "h2")) as server:
        error = await error_of(
            bootstrap.new_socket_channel(
                *server.address, tls=named(ca, alpn_list="h2"), **journal.of_client
            )
        )
    assert error.code is ErrorCode.IO_UNHANDLED_ALPN_PROTOCOL_MESSAGE
    assert journal.story == ["creation", "failure"]


async def test_an_alpn_callback_that_raises_fails_the_set_up(ca: trustme.CA) -> None:
    def choose(slot: ChannelSlot, protocol: str) -> ChannelHandler:
        raise OnPurposeError

    journal = Journal()
    bootstrap = ClientBootstrap(on_protocol_negotiated=choose)
    async with serving(tls=alpn_server(ca, "h2")) as server:
        with channels.collected_errors() as errors:
            with pytest.raises(OnPurposeError):
                await bootstrap.new_socket_channel(
                    *server.address, tls=named(ca, alpn_list="h2"), **journal.of_client
                )
            assert [type(context["exception"]) for context in errors] == [OnPurposeError]
            errors.clear()
    assert journal.story == ["creation", "failure"]


async def test_without_tls_the_alpn_callback_is_not_called() -> None:
    bootstrap = ClientBootstrap(on_protocol_negotiated=lambda *_: None)
    async with serving() as server, connected(server, bootstrap=bootstrap) as channel:
        assert handlers_of(channel) == [SocketChannelHandler]


# TLS of one's own


class Xor(ChannelHandler):
    """Not TLS, but it has a handshake: each side greets, and then changes all bits."""

    GREETING = b"hi"

    def __init__(self, options: TlsConnectionOptions, server_side: bool) -> None:
        self.options = options
        self.server_side = server_side
        self.greeted = False

    def start_negotiation(self) -> None:
        assert self.slot is not None
        self.slot.send_message(IoMessage(self.GREETING), ChannelDirection.WRITE)

    def process_read_message(self, slot: ChannelSlot, message: IoMessage) -> None:
        data = bytes(message.data)
        if not self.greeted:
            self.greeted = True
            assert data[:2] == self.GREETING
            data = data[2:]
            assert self.options.on_negotiation_result is not None
            self.options.on_negotiation_result(self, slot, None)
        if data:
            slot.send_message(IoMessage(bytes(b ^ 255 for b in data)), ChannelDirection.READ)

    def process_write_message(self, slot: ChannelSlot, message: IoMessage) -> None:
        message.data = bytes(b ^ 255 for b in message.data)
        slot.send_message(message, ChannelDirection.WRITE)


class Mute(Xor):
    """Never comes to an end of its negotiation."""

    def start_negotiation(self) -> None:
        pass


async def test_a_handler_factory_of_ones_own(ca: trustme.CA) -> None:
    app = App()
    async with (
        serving(bootstrap=ServerBootstrap(tls_handler_factory=Xor), tls=server_of(ca)) as server,
        connected(
            server,
            bootstrap=ClientBootstrap(tls_handler_factory=Xor),
            tls=named(ca),
            handlers=lambda: [app],
        ) as channel,
    ):
        assert handlers_of(channel) == [SocketChannelHandler, Xor, App]
        await write(channel, b"hello")
        assert await app.got(5) == b"hello"
        for end, server_side in ((channel, False), (await server.accepted(), True)):
            _, slot, _ = end.slots()
            assert isinstance(slot.handler, Xor)
            assert slot.handler.server_side is server_side
            assert slot.handler.options.context.server_side is server_side


async def test_one_that_never_reports_is_given_up_in_time(ca: trustme.CA) -> None:
    journal = Journal()
    bootstrap = ClientBootstrap(tls_handler_factory=Mute)
    with listening() as listener:
        error = await error_of(
            bootstrap.new_socket_channel(
                *listener.getsockname(), tls=named(ca, timeout=0.05), **journal.of_client
            )
        )
    assert error.code is ErrorCode.IO_TLS_NEGOTIATION_TIMEOUT
    assert "reported nothing in 0.05 s" in str(error)
    assert journal.story == ["creation", "failure"]


async def test_one_whose_peer_leaves_has_failed(ca: trustme.CA) -> None:
    journal = Journal()
    async with serving(
        bootstrap=ServerBootstrap(tls_handler_factory=Mute), tls=server_of(ca), journal=journal
    ) as server:
        peer = await dial(server)
        await journal.has("creation")
        peer.close()
        failure = await journal.has("failure")
        assert code_of(failure.error) is ErrorCode.IO_SOCKET_CLOSED


async def test_one_that_fails_to_be_made_or_started(ca: trustme.CA) -> None:
    def none(options: TlsConnectionOptions, server_side: bool) -> ChannelHandler:
        raise OnPurposeError

    class Bad(Xor):
        def start_negotiation(self) -> None:
            raise OnPurposeError

    for factory in (none, Bad):
        journal = Journal()
        bootstrap = ClientBootstrap(tls_handler_factory=factory)
        with listening() as listener, pytest.raises(OnPurposeError):
            await bootstrap.new_socket_channel(
                *listener.getsockname(), tls=named(ca), **journal.of_client
            )
        assert journal.story == ["creation", "failure"]


async def test_one_gets_the_users_options(ca: trustme.CA) -> None:
    """What a user asked of TLS is not taken back by the bootstrap."""
    seen: list[TlsConnectionOptions] = []

    def factory(options: TlsConnectionOptions, server_side: bool) -> ChannelHandler:
        seen.append(options)
        return TlsChannelHandler(options, server_side)

    async with serving(tls=server_of(ca)) as server:
        tls = named(ca, timeout=5, advertise_alpn_message=True)
        bootstrap = ClientBootstrap(tls_handler_factory=factory)
        async with connected(server, bootstrap=bootstrap, tls=tls):
            pass
    assert seen[0].copy(on_negotiation_result=None) == tls
