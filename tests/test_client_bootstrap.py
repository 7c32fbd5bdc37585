"""A client's channel by a bootstrap: what is called when and where, and what it is made of."""

import asyncio
import re
import socket
import sys
from typing import Any

import pytest
import trustme

from aws_io_async.channel import Channel, ChannelState
from aws_io_async.channel_bootstrap import ClientBootstrap, ServerBootstrap
from aws_io_async.errors import Code, DnsError, ErrorCode
from aws_io_async.message_pool import MessageType
from aws_io_async.socket import SocketDomain, SocketOptions, SocketType
from aws_io_async.socket_channel_handler import SocketChannelHandler
from tests import channels
from tests.bootstraps import (
    LOOPBACK,
    PATIENCE,
    Echo,
    Journal,
    OnPurposeError,
    closed,
    code_of,
    connected,
    ended,
    error_of,
    handlers_of,
    knowing,
    listening,
    serving,
    write,
)
from tests.channels import App
from tests.socket_tools import local_endpoint
from tests.tls_peers import server_of

no_tasks_left = channels.no_tasks_left

LOCAL = SocketOptions(domain=SocketDomain.LOCAL)


# The order of things


async def test_creation_then_setup_then_shutdown_all_on_the_callers_loop() -> None:
    journal, app = Journal(), App()
    async with serving() as server:
        channel = await ClientBootstrap().new_socket_channel(
            *server.address, handlers=lambda: [app], **journal.of_client
        )
        assert journal.story == ["creation", "setup"]
        await write(channel, b"hello")
        assert await app.got(5) == b"hello"
        channel.shutdown()
        assert await closed(channel) is None
    assert journal.story == ["creation", "setup", "shutdown"]
    assert {note.subject for note in journal.notes} == {channel}
    assert {note.loop for note in journal.notes} == {asyncio.get_running_loop()}
    assert [note.error for note in journal.notes] == [None] * 3


async def test_what_the_channel_is_made_of_at_each_step() -> None:
    seen: list[list[type[Any]]] = []

    def look(channel: Channel | None, error: BaseException | None = None) -> None:
        assert channel is not None
        seen.append(handlers_of(channel))

    async with (
        serving() as server,
        connected(
            server, handlers=lambda: iter([App(), Echo()]), on_creation=look, on_setup=look
        ) as channel,
    ):
        assert seen == [[SocketChannelHandler], [SocketChannelHandler, App, Echo]]
        assert handlers_of(channel) == seen[-1]


async def test_without_callbacks_it_is_awaited_and_a_block() -> None:
    app = App()
    async with (
        serving() as server,
        await ClientBootstrap().new_socket_channel(
            *server.address, handlers=lambda: [app]
        ) as channel,
    ):
        await write(channel, b"hello")
        assert await app.got(5) == b"hello"
    assert channel.state is ChannelState.SHUT_DOWN


async def test_no_data_passes_before_setup() -> None:
    """The server's bytes are there already when the client's handlers come."""
    log: list[tuple[str, str]] = []
    with listening() as listener:
        connecting = asyncio.create_task(
            ClientBootstrap().new_socket_channel(
                *listener.getsockname(),
                on_creation=lambda channel: log.append(("", "creation")),
                on_setup=lambda channel, error: log.append(("", "setup")),
                handlers=lambda: [app],
            )
        )
        peer, _ = await asyncio.get_running_loop().sock_accept(listener)
        with peer:
            peer.send(b"early")
            app = App(log=log)
            channel = await connecting
            assert await app.got(5) == b"early"
            assert log[:3] == [("", "creation"), ("", "setup"), ("app", "read")]
            await ended(channel)


async def test_the_peers_end_is_the_channels() -> None:
    journal = Journal()
    with listening() as listener:
        async with connected(listener, handlers=lambda: [App()], **journal.of_client) as channel:
            peer, _ = await asyncio.get_running_loop().sock_accept(listener)
            peer.close()
            error = await closed(channel)
    assert code_of(error) is ErrorCode.IO_SOCKET_CLOSED
    assert journal.notes[-1].what == "shutdown"
    assert journal.notes[-1].error is error


async def test_channels_at_the_same_time() -> None:
    journal = Journal()
    async with serving(backlog=100) as server:
        bootstrap = ClientBootstrap()
        made = await asyncio.gather(
            *(bootstrap.new_socket_channel(*server.address, **journal.of_client) for _ in range(50))
        )
        await server.accepted(50)
        assert len(set(made)) == len({note.subject for note in journal.all("setup")}) == 50
        await asyncio.gather(*map(ended, made))
    assert journal.story.count("shutdown") == 50


# Callbacks that raise


@pytest.mark.parametrize("where", ["creation", "handlers", "setup"])
async def test_what_a_callback_raises_ends_the_channel_and_is_raised(where: str) -> None:
    error = OnPurposeError()
    journal = Journal(**{where: error})

    def handlers() -> list[App]:
        journal.note("handlers")
        return [App()]

    async with serving() as server:
        with pytest.raises(OnPurposeError) as caught:
            await ClientBootstrap().new_socket_channel(
                *server.address, handlers=handlers, **journal.of_client
            )
        assert caught.value is error
        assert code_of(await closed(await server.accepted())) is ErrorCode.IO_SOCKET_CLOSED
    assert (
        journal.story
        == {
            "creation": ["creation", "failure"],
            "handlers": ["creation", "handlers", "failure"],
            "setup": ["creation", "handlers", "setup", "shutdown"],
        }[where]
    )
    assert journal.notes[-1].error is error
    assert journal.notes[0].subject.state is ChannelState.SHUT_DOWN


async def test_what_is_no_handler_is_refused() -> None:
    nonsense: Any = object()
    journal = Journal()
    async with serving() as server:
        with pytest.raises(TypeError, match="ChannelHandler"):
            await ClientBootstrap().new_socket_channel(
                *server.address, handlers=lambda: [nonsense], **journal.of_client
            )
    assert journal.story == ["creation", "failure"]


async def test_a_raising_callback_for_failures_is_reported_but_changes_nothing() -> None:
    journal = Journal(failure=OnPurposeError())
    with knowing() as resolver, channels.collected_errors() as errors:
        bootstrap = ClientBootstrap(host_resolver=resolver)
        with pytest.raises(DnsError):
            await bootstrap.new_socket_channel("no.test", 1, **journal.of_client)
        assert [type(context["exception"]) for context in errors] == [OnPurposeError]
        errors.clear()


async def test_a_raising_callback_at_the_end_is_reported_but_changes_nothing() -> None:
    journal = Journal(shutdown=OnPurposeError())
    async with serving() as server:
        with channels.collected_errors() as errors:
            async with connected(server, **journal.of_client) as channel:
                assert await ended(channel) is None
            assert [type(context["exception"]) for context in errors] == [OnPurposeError]
            errors.clear()


# Where it connects to


@pytest.mark.parametrize("host", [LOOPBACK, "localhost", "LOCALHOST."])
async def test_literal_addresses_and_names(host: str) -> None:
    app = App()
    async with serving() as server:
        with knowing(localhost=[LOOPBACK], **{"localhost.": [LOOPBACK]}) as resolver:
            channel = await ClientBootstrap(host_resolver=resolver).new_socket_channel(
                host, server.endpoint.port, handlers=lambda: [app]
            )
            await write(channel, b"hello")
            assert await app.got(5) == b"hello"
            await ended(channel)


@pytest.mark.parametrize("domain", [SocketDomain.IPV4, SocketDomain.IPV6])
@pytest.mark.parametrize("host", ["::1", "0:0::1"])
async def test_ipv6(host: str, domain: SocketDomain) -> None:
    """The address says of which family it is, whatever the options say."""
    app, options = App(), SocketOptions(domain=domain)
    async with serving("::1", socket_options=options) as server:
        assert server.endpoint.address == "::1"
        channel = await ClientBootstrap().new_socket_channel(
            host, server.endpoint.port, handlers=lambda: [app], socket_options=options
        )
        await write(channel, b"hello")
        assert await app.got(5) == b"hello"
        await ended(channel)


async def test_local_sockets() -> None:
    app, journal = App(), Journal()
    with local_endpoint() as endpoint:
        async with serving(endpoint.address, socket_options=LOCAL) as server:
            assert server.endpoint == endpoint
            channel = await ClientBootstrap().new_socket_channel(
                endpoint.address, socket_options=LOCAL, handlers=lambda: [app], **journal.of_client
            )
            await write(channel, b"hello")
            assert await app.got(5) == b"hello"
            await ended(channel)
    assert journal.story == ["creation", "setup", "shutdown"]


@pytest.mark.parametrize("no_delay", [True, False, None])
async def test_socket_options_are_those_of_the_connection(no_delay: bool | None) -> None:
    """The transports of all loops switch TCP_NODELAY on by themselves."""
    options = SocketOptions(keep_alive=True, tcp_nodelay=no_delay)
    async with (
        serving(socket_options=options, handlers=list) as server,
        connected(server, socket_options=options) as channel,
    ):
        for end in channel, await server.accepted():
            (slot,) = end.slots()
            assert isinstance(slot.handler, SocketChannelHandler)
            sock = slot.handler.get_socket()
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == bool(no_delay)


# What data does


async def test_read_back_pressure_holds_back_the_peer() -> None:
    app = App(window=1000)
    with listening() as listener:
        async with connected(
            listener, handlers=lambda: [app], enable_read_back_pressure=True
        ) as channel:
            assert channel.read_back_pressure_enabled
            peer, _ = await asyncio.get_running_loop().sock_accept(listener)
            with peer:
                peer.send(bytes(5000))
                for size in (1000, 3000, 5000):
                    assert len(await app.got(size)) == size
                    app.takes(2000)


async def test_without_it_all_is_read() -> None:
    app = App(window=1000)
    with listening() as listener:
        async with connected(listener, handlers=lambda: [app]):
            peer, _ = await asyncio.get_running_loop().sock_accept(listener)
            with peer:
                peer.send(bytes(5000))
                assert len(await app.got(5000)) == 5000


async def test_reads_are_no_larger_than_asked_for() -> None:
    app = App()
    with listening() as listener:
        async with connected(listener, handlers=lambda: [app], max_read_size=100):
            peer, _ = await asyncio.get_running_loop().sock_accept(listener)
            with peer:
                peer.send(bytes(1000))
                await app.got(1000)
    assert max(len(message.data) for message in app.reads) == 100


async def test_half_close_tells_of_the_peers_end_and_goes_on() -> None:
    app = App()
    with listening() as listener:
        async with connected(listener, handlers=lambda: [app], half_close=True) as channel:
            peer, _ = await asyncio.get_running_loop().sock_accept(listener)
            with peer:
                peer.shutdown(socket.SHUT_WR)
                async with asyncio.timeout(PATIENCE):
                    await app.has(MessageType.END_OF_INPUT.value)
                await write(channel, b"still here")
                peer.setblocking(False)
                received = await asyncio.get_running_loop().sock_recv(peer, 100)
                assert received == b"still here"


# What cannot be


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ({"port": 0}, ErrorCode.IO_SOCKET_INVALID_ADDRESS),
        ({"port": 65536}, ErrorCode.IO_SOCKET_INVALID_ADDRESS),
        (
            {"socket_options": SocketOptions(type=SocketType.DGRAM)},
            ErrorCode.IO_SOCKET_INVALID_OPTIONS,
        ),
        ({"tls": "a server's"}, ErrorCode.IO_TLS_CTX_ERROR),
    ],
)
async def test_arguments_that_cannot_be(
    arguments: dict[str, Any], code: Code, ca: trustme.CA
) -> None:
    journal = Journal()
    if "tls" in arguments:
        arguments = {"tls": server_of(ca)}
    with listening() as listener:
        attempt = ClientBootstrap().new_socket_channel(
            LOOPBACK,
            **{"port": listener.getsockname()[1], **arguments},
            **journal.of_client,
        )
        assert (await error_of(attempt)).code is code
        with pytest.raises(BlockingIOError):
            listener.accept()
    assert journal.story == []


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"host": None}, "host must be a str, not None"),
        ({"port": "80"}, "port must be an int, not '80'"),
        ({"socket_options": {}}, "socket_options must be SocketOptions, not {}"),
        ({"tls": "yes"}, "tls must be a TlsContext, TlsConnectionOptions or an ssl.SSLContext"),
        ({"handlers": [App]}, "handlers must be a function that makes them, not "),
        ({"max_read_size": "1"}, "max_read_size must be an int, not '1'"),
    ],
)
async def test_arguments_of_wrong_types(arguments: dict[str, Any], complaint: str) -> None:
    """They are told by their names, and at the call, also by who only listens."""
    arguments = {"host": LOOPBACK, "port": 1, **arguments}
    with pytest.raises(TypeError, match=re.escape(complaint)):
        await ClientBootstrap().new_socket_channel(**arguments)
    with pytest.raises(TypeError, match=re.escape(complaint)):
        await ServerBootstrap().new_socket_listener(**arguments)


@pytest.mark.parametrize("bootstrap", [ClientBootstrap, ServerBootstrap])
def test_a_group_must_be_one(bootstrap: Any) -> None:
    with pytest.raises(TypeError, match="event_loop_group must be an EventLoopGroup, not 4"):
        bootstrap(4)


@pytest.mark.parametrize(
    ("argument", "kind"),
    [
        ("host_resolver", "a HostResolver"),
        ("host_resolution_config", "a HostResolutionConfig"),
        ("retry_strategy", "a RetryStrategy"),
    ],
)
async def test_what_a_client_works_with_must_be_of_its_kind(argument: str, kind: str) -> None:
    options: dict[str, Any] = {argument: {"a": 1}}
    in_call = options if argument == "retry_strategy" else {}
    with pytest.raises(TypeError, match=f"{argument} must be {kind}, not {{'a': 1}}"):
        await ClientBootstrap(**({} if in_call else options)).new_socket_channel(
            LOOPBACK, 1, **in_call
        )


async def test_a_read_size_must_be_positive() -> None:
    with pytest.raises(ValueError, match="max_read_size must be positive, not 0"):
        await ClientBootstrap().new_socket_channel(LOOPBACK, 1, max_read_size=0)


@pytest.mark.skipif(sys.platform != "linux", reason="VSOCK is Linux's")
async def test_a_vsock_that_cannot_be_connected_to() -> None:
    """Of this domain too, what goes wrong is told by the address, and nothing stays open."""
    journal = Journal()
    options = SocketOptions(domain=SocketDomain.VSOCK, connect_timeout=0.1)
    error = await error_of(
        ClientBootstrap().new_socket_channel("77", 1, socket_options=options, **journal.of_client)
    )
    assert journal.story == ["failure"]
    assert journal.notes[0].error is error
