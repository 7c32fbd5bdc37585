"""Channels on sockets: aws-c-io's own cases, setting a handler up, and its figures.

What is read is in test_socket_channel_reading, what is written in test_socket_channel_writing, and
how it ends in test_socket_channel_shutdown.
"""

import asyncio
import contextlib
import math
import random
import socket
import sys
from collections.abc import Sequence
from typing import Any

import pytest

from aws_io_async.channel import Channel
from aws_io_async.channel_bootstrap import ClientBootstrap
from aws_io_async.errors import DnsError, ErrorCode, ThreadOnlyError
from aws_io_async.event_loop.group import EventLoopGroup
from aws_io_async.message_pool import MAX_FRAGMENT_SIZE
from aws_io_async.socket import SocketDomain, SocketOptions
from aws_io_async.socket_channel_handler import SocketChannelHandler
from aws_io_async.statistics import SampleInterval, SocketStatistics, StatisticsHandler
from tests import bootstraps, channels
from tests.bootstraps import Journal, code_of, knowing, serving
from tests.channels import (
    PATIENCE,
    WRITE,
    App,
    Echo,
    Stage,
    Wire,
    bystander,
    ended,
    pipeline,
    socket_channel,
    socket_pair,
)
from tests.socket_tools import another_loop, black_hole, local_endpoint, on, raises, turns

no_tasks_left = channels.no_tasks_left

LOCAL = SocketOptions(domain=SocketDomain.LOCAL)


# aws-c-io's cases


async def test_socket_handler_echo_and_backpressure() -> None:
    from_server, from_client = b"I'm a little teapot.", b"I'm a big teapot"
    client_app, server_app = App("client", window=9), App("server", window=8)
    with socket_pair() as (ours, theirs):
        async with (
            socket_channel(ours, client_app, enable_read_back_pressure=True) as client,
            socket_channel(theirs, server_app, enable_read_back_pressure=True) as server,
        ):
            await client_app.place.write(from_client)
            await server_app.got(8)
            await server_app.place.write(from_server)
            await client_app.got(9)
            await turns(20)
            assert client_app.data == from_server[:9]
            assert server_app.data == from_client[:8]

            for app, message in ((server_app, from_client), (client_app, from_server)):
                app.takes(100)
                assert await app.got(len(message)) == message

            server.shutdown()
            client.shutdown()
            assert await ended(server) is None
            assert await ended(client) is None


async def test_socket_data_over_multiple_frames() -> None:
    size = MAX_FRAGMENT_SIZE * 1024
    message = random.Random(0).randbytes(size)
    client_app, server_app = App("client", window=10_000), App("server", window=10_000)
    with socket_pair() as (ours, theirs):
        async with (
            socket_channel(ours, client_app, enable_read_back_pressure=True),
            socket_channel(theirs, server_app, enable_read_back_pressure=True),
        ):
            writing = asyncio.create_task(server_app.place.write(message))
            await client_app.got(10_000)
            await turns(20)
            assert len(client_app.data) == 10_000
            client_app.takes(size)
            assert await client_app.got(size) == message
            await writing


async def test_socket_handler_close() -> None:
    with socket_pair() as (ours, theirs):
        async with (
            socket_channel(ours, App("client")) as client,
            socket_channel(theirs, App("server")) as server,
        ):
            server.shutdown()
            assert await ended(server) is None
            assert code_of(await ended(client)) in (
                ErrorCode.IO_SOCKET_CLOSED,
                ErrorCode.IO_SOCKET_NOT_CONNECTED,
            )


async def read_to_eof_after_peer_hangup(family: socket.AddressFamily) -> None:
    """The server closes after it has written, while the client is far from having read it all."""
    message = b"s" * MAX_FRAGMENT_SIZE
    client_app, server_app = App("client", window=0), App("server")
    with socket_pair(family) as (ours, theirs):
        async with (
            socket_channel(ours, client_app, enable_read_back_pressure=True) as client,
            socket_channel(theirs, server_app) as server,
        ):
            writing = asyncio.create_task(server_app.place.write(message))
            await turns()
            while not writing.done():
                client_app.takes(128)
                await client_app.got(len(client_app.data) + 128)
            server.shutdown()
            assert await ended(server) is None

            await turns(20)
            assert not client.is_closing()
            assert len(client_app.data) < len(message)

            client_app.takes(len(message) * 3)
            assert await client_app.got(len(message)) == message
            assert code_of(await ended(client)) is ErrorCode.IO_SOCKET_CLOSED


async def test_socket_handler_read_to_eof_after_peer_hangup() -> None:
    await read_to_eof_after_peer_hangup(socket.AF_UNIX)


async def test_socket_handler_ipv4_read_to_eof_after_peer_hangup() -> None:
    await read_to_eof_after_peer_hangup(socket.AF_INET)


async def test_socket_handler_ipv6_read_to_eof_after_peer_hangup() -> None:
    await read_to_eof_after_peer_hangup(socket.AF_INET6)


class Totals(StatisticsHandler):
    """Adds up what is reported."""

    report_interval_ms = 1

    def __init__(self) -> None:
        self.total = SocketStatistics()
        self.complete = asyncio.Event()

    def process_statistics(
        self, interval: SampleInterval, statistics: Sequence[object], channel: Channel
    ) -> None:
        for item in statistics:
            assert isinstance(item, SocketStatistics)
            self.total.bytes_read += item.bytes_read
            self.total.bytes_written += item.bytes_written
        if self.total.bytes_read and self.total.bytes_written:
            self.complete.set()


async def test_open_channel_statistics_test() -> None:
    from_server, from_client = b"Some bytes", b"Fresh pressed Washington apples"
    totals, client_app = Totals(), App("client")
    with local_endpoint() as endpoint:
        async with serving(
            endpoint.address, socket_options=LOCAL, handlers=lambda: [App("server")]
        ) as server:
            channel = await ClientBootstrap().new_socket_channel(
                endpoint.address,
                socket_options=LOCAL,
                handlers=lambda: [client_app],
                on_creation=lambda channel: channel.set_statistics_handler(totals),
            )
            server_app = list((await server.accepted()).slots())[-1].handler
            assert isinstance(server_app, App)
            await client_app.place.write(from_client)
            await server_app.got(len(from_client))
            await server_app.place.write(from_server)
            async with asyncio.timeout(PATIENCE):
                await totals.complete.wait()
            assert totals.total == SocketStatistics(len(from_server), len(from_client))
            server_app.channel.shutdown()
            await ended(server_app.channel)
            assert code_of(await ended(channel)) is ErrorCode.IO_SOCKET_CLOSED


async def test_socket_pinned_event_loop() -> None:
    factory = type(asyncio.get_running_loop())
    with local_endpoint() as endpoint:
        async with (
            EventLoopGroup(3, loop_factory=factory) as group,
            serving(endpoint.address, socket_options=LOCAL) as server,
        ):
            pinned = group.get_next_loop()
            channel = await ClientBootstrap(group).new_socket_channel(
                endpoint.address, socket_options=LOCAL, requested_event_loop=pinned
            )
            assert channel.loop is pinned
            await server.accepted()
            await channel.aclose()


async def test_socket_pinned_event_loop_dns_failure() -> None:
    factory = type(asyncio.get_running_loop())
    journal = Journal()
    async with EventLoopGroup(3, loop_factory=factory) as group:
        pinned = group.get_next_loop()
        with knowing() as resolver, pytest.raises(DnsError):
            await ClientBootstrap(group, host_resolver=resolver).new_socket_channel(
                "notavalid.domain-seriously.uffda",
                443,
                requested_event_loop=pinned,
                **journal.of_client,
            )
    assert [(note.what, note.loop) for note in journal.notes] == [("failure", pinned)]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has all of 127.0.0.0/8")
async def test_channel_connect_some_hosts_timeout() -> None:
    """Of two addresses, the one that is tried first never answers."""
    with (
        black_hole() as hole,
        bootstraps.listening("127.0.0.2", hole.port) as listener,
        knowing(some=[hole.address, "127.0.0.2"]) as resolver,
    ):
        bootstrap = ClientBootstrap(host_resolver=resolver, attempt_delay=0.01)
        channel = await bootstrap.new_socket_channel("some", hole.port)
        listener.accept()[0].close()
        channel.shutdown()
        assert await ended(channel) is None


# Setting it up


@pytest.mark.parametrize(
    "arguments",
    [
        {"max_read_size": 0},
        {"max_read_size": -1},
        {"close_timeout": -0.1},
        {"close_timeout": math.nan},
    ],
    ids=str,
)
def test_arguments_that_cannot_be(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(arguments))} must"):
        SocketChannelHandler(**arguments)


def test_a_read_size_is_a_whole_number() -> None:
    with pytest.raises(TypeError, match="cannot be interpreted as an integer"):
        SocketChannelHandler(max_read_size=2.5)  # type: ignore[arg-type]  # the point


async def test_what_it_knows_of_its_connection() -> None:
    handler = SocketChannelHandler()
    assert repr(handler) == "<SocketChannelHandler not connected>"
    for ask in (lambda: handler.transport, handler.get_socket):
        with pytest.raises(RuntimeError, match="no transport yet: connect it first"):
            ask()
    with socket_pair(socket.AF_INET) as (ours, theirs):
        async with socket_channel(ours, App(window=0), handler=handler) as channel:
            assert handler.get_socket().getpeername() == theirs.getsockname()
            assert handler.transport.get_extra_info("peername") == theirs.getsockname()
            assert repr(handler) == "<SocketChannelHandler reading, 0 writes waiting>"
            channel.shutdown()
            await ended(channel)
            assert repr(handler).startswith("<SocketChannelHandler closing ")


async def test_it_needs_a_slot_before_it_is_connected() -> None:
    loop = asyncio.get_running_loop()
    with socket_pair() as (ours, theirs), channels.collected_errors() as errors:
        await loop.connect_accepted_socket(SocketChannelHandler, ours)
        assert await loop.sock_recv(theirs, 1) == b""
        for context in errors:
            assert "put the handler in a slot before you connect it" in str(context["exception"])
        errors.clear()


async def test_it_takes_no_connection_of_another_loop() -> None:
    """Its handlers would be called on that loop's thread."""
    loop = asyncio.get_running_loop()
    async with another_loop() as elsewhere:
        channel = await Channel.open(elsewhere)
        handler, app = SocketChannelHandler(), App()

        async def set_up() -> None:
            channel.append(handler)
            channel.append(app)

        await on(elsewhere, set_up())
        with socket_pair() as (ours, theirs), channels.collected_errors() as errors:
            theirs.send(b"nobody")
            await loop.connect_accepted_socket(lambda: handler, ours)
            with contextlib.suppress(ConnectionResetError):
                assert await loop.sock_recv(theirs, 1) == b""
            for context in errors:
                assert isinstance(context["exception"], ThreadOnlyError)
            errors.clear()
        await channel.aclose()
        assert not app.data


async def test_it_serves_one_connection() -> None:
    loop = asyncio.get_running_loop()
    handler = SocketChannelHandler()
    with socket_pair() as (ours, theirs), socket_pair() as (others, _):
        async with socket_channel(ours, app := App(), handler=handler) as channel:
            with channels.collected_errors() as errors:
                await loop.connect_accepted_socket(lambda: handler, others)
                await turns()
                for context in errors:
                    assert "serves one connection" in str(context["exception"])
                errors.clear()
            await loop.sock_sendall(theirs, b"still there")
            assert await app.got(11) == b"still there"
            assert channel.error is None


async def test_a_connection_that_comes_too_late_is_closed() -> None:
    loop = asyncio.get_running_loop()
    handler = SocketChannelHandler()
    async with pipeline(handler) as channel:
        channel.shutdown()
        await ended(channel)
    with socket_pair() as (ours, theirs):
        transport, _ = await loop.connect_accepted_socket(lambda: handler, ours)
        assert transport.is_closing()
        assert await loop.sock_recv(theirs, 1) == b""


async def test_what_is_written_before_there_is_a_connection_fails() -> None:
    async with pipeline(SocketChannelHandler(), app := App()) as channel:
        with raises(ErrorCode.IO_SOCKET_NOT_CONNECTED):
            await app.place.write(b"too early")
        assert channel.error is None
        app.send(b"nobody would be told", WRITE)
        assert code_of(await ended(channel)) is ErrorCode.IO_SOCKET_NOT_CONNECTED


async def test_a_channel_that_is_never_connected_ends() -> None:
    for immediately in (False, True):
        async with pipeline(SocketChannelHandler(), App()) as channel:
            channel.shutdown(immediately=immediately)
            assert await ended(channel) is None


async def test_it_belongs_in_the_first_slot() -> None:
    async with pipeline(wire := Wire(), SocketChannelHandler()) as channel:
        wire.send(b"x")
        error = await ended(channel)
        assert code_of(error) is ErrorCode.IO_CHANNEL_ERROR_ERROR_CANT_ACCEPT_INPUT
        assert "belongs in the first slot" in str(error)


async def test_any_transport_will_do() -> None:
    """Pipes, a listening server's connection, a client's: here those of a pair of streams."""
    loop = asyncio.get_running_loop()
    echo = Echo()
    opened: list[Channel] = []

    def connected() -> SocketChannelHandler:
        handler = SocketChannelHandler()
        opened[0].append(handler)
        opened[0].append(echo)
        return handler

    opened.append(await Channel.open())
    server = await loop.create_server(connected, "127.0.0.1", 0)
    try:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(b"there and back")
        assert await reader.readexactly(14) == b"there and back"
        writer.close()
        await writer.wait_closed()
        assert code_of(await ended(opened[0])) is ErrorCode.IO_SOCKET_CLOSED
    finally:
        server.close()
        await server.wait_closed()


# Figures


async def test_its_figures_count_bytes_until_they_are_reset() -> None:
    loop = asyncio.get_running_loop()
    with socket_pair() as (ours, theirs):
        async with socket_channel(ours, app := App()) as channel:
            await app.place.write(b"12345")
            await loop.sock_sendall(theirs, b"123")
            await app.got(3)
            assert channel.statistics() == [SocketStatistics(3, 5)]
            (slot, _) = channel.slots()
            assert slot.handler is not None
            slot.handler.reset_statistics()
            assert channel.statistics() == [SocketStatistics()]


async def test_slots_may_change_while_it_is_connected() -> None:
    loop = asyncio.get_running_loop()
    with socket_pair() as (ours, theirs):
        async with bystander(), socket_channel(ours, middle := Stage(), app := App()) as channel:
            await loop.sock_sendall(theirs, b"one ")
            await app.got(4)
            middle.place.remove()
            await loop.sock_sendall(theirs, b"two ")
            await app.got(8)
            app.place.insert_left(channel.new_slot(other := Stage()))
            await loop.sock_sendall(theirs, b"three")
            assert await app.got(13) == b"one two three"
            assert [stage.data for stage in (middle, other)] == [b"one ", b"three"]


async def test_taking_its_slot_out_closes_the_connection() -> None:
    loop = asyncio.get_running_loop()
    with socket_pair() as (ours, theirs):
        async with bystander(), socket_channel(ours, App()) as channel:
            assert channel.first_slot is not None
            channel.first_slot.remove()
            assert await loop.sock_recv(theirs, 1) == b""
            assert code_of(await ended(channel)) is ErrorCode.IO_SOCKET_CLOSED
