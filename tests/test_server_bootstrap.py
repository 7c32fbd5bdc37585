"""Listeners of a server's bootstrap: what is called when and where, and how they end."""

import asyncio
import socket
import threading
from typing import Any

import pytest
import trustme

from aws_io_async.channel import ChannelState
from aws_io_async.channel_bootstrap import ServerBootstrap, SocketListener
from aws_io_async.errors import Code, CommonErrorCode, ErrorCode, EventLoopShutdownError
from aws_io_async.event_loop.group import EventLoopGroup
from aws_io_async.message_pool import MAX_READ_SIZE, MessageType
from aws_io_async.socket import SocketDomain, SocketOptions, SocketType
from aws_io_async.socket_channel_handler import SocketChannelHandler
from aws_io_async.statistics import SocketStatistics
from aws_io_async.tls_context import TlsConnectionOptions
from tests import channels, loops
from tests.bootstraps import (
    LOOPBACK,
    PATIENCE,
    Echo,
    Journal,
    Sink,
    closed,
    code_of,
    connected,
    dial,
    ended,
    error_of,
    handlers_of,
    listening,
    serving,
    tasks_of,
    write,
)
from tests.channels import App
from tests.socket_tools import local_endpoint, on, turns
from tests.tls_peers import HOST, client_of, server_of

no_tasks_left = channels.no_tasks_left

LOCAL = SocketOptions(domain=SocketDomain.LOCAL)


# The order of things


async def test_creation_setup_shutdown_and_at_last_destroy() -> None:
    loop = asyncio.get_running_loop()
    async with serving() as server:
        with await dial(server) as peer:
            channel = await server.accepted()
            assert server.journal.story == ["creation", "setup"]
            await loop.sock_sendall(peer, b"hello")
            assert await loop.sock_recv(peer, 100) == b"hello"
            await server.listener.aclose()
            assert server.journal.story == ["creation", "setup"]  # the channel goes on
            await loop.sock_sendall(peer, b"again")
            assert await loop.sock_recv(peer, 100) == b"again"
        last = await server.journal.has("destroy")
        assert server.journal.story == ["creation", "setup", "shutdown", "destroy"]
        assert last.subject is server.listener
        assert [note.subject for note in server.journal.notes[:3]] == [channel] * 3
        assert code_of(server.journal.notes[2].error) is ErrorCode.IO_SOCKET_CLOSED
        assert {note.loop for note in server.journal.notes} == {loop}


async def test_without_channels_closing_destroys() -> None:
    async with serving() as server:
        assert server.journal.story == []
        await server.listener.aclose()
        assert server.journal.story == ["destroy"]
        await server.listener.aclose()
    assert server.journal.story == ["destroy"]


async def test_destroy_waits_for_the_last_of_many() -> None:
    async with serving() as server:
        peers = [await dial(server) for _ in range(20)]
        await server.accepted(20)
        await server.listener.aclose()
        for peer in peers:
            assert "destroy" not in server.journal.story
            peer.close()
        await server.journal.has("destroy")
    assert server.journal.story[-21:] == ["shutdown"] * 20 + ["destroy"]


async def test_as_a_block_it_closes_and_its_channels_go_on() -> None:
    journal = Journal()
    bootstrap = ServerBootstrap()
    async with await bootstrap.new_socket_listener(LOOPBACK, **journal.of_server) as listener:
        assert repr(listener) == f"<SocketListener {listener.endpoint}>"
        with socket.create_connection((LOOPBACK, listener.endpoint.port)):
            channel = (await journal.has("setup")).subject
    assert repr(listener) == f"<SocketListener {listener.endpoint} closed>"
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((LOOPBACK, listener.endpoint.port))
    await ended(channel)
    await journal.has("destroy")


async def test_what_channels_are_made_of() -> None:
    seen: list[list[type[Any]]] = []
    async with serving(
        handlers=lambda: iter([App(), Echo()]),
        on_incoming_channel_creation=lambda channel: seen.append(handlers_of(channel)),
    ) as server:
        for number in (1, 2):
            with await dial(server):
                seen.append(handlers_of(await server.accepted(number)))
    assert seen == [[SocketChannelHandler], [SocketChannelHandler, App, Echo]] * 2


async def test_no_data_passes_before_setup() -> None:
    log: list[tuple[str, str]] = []
    app = App(log=log)
    async with serving(
        handlers=lambda: [app],
        on_incoming_channel_creation=lambda channel: log.append(("", "creation")),
    ) as server:
        with await dial(server) as peer:
            peer.send(b"early")
            await app.got(5)
            assert log[:2] == [("", "creation"), ("app", "read")]
            assert server.journal.story == ["setup"]


async def test_connections_that_came_in_a_burst() -> None:
    async with serving() as server:
        peers = [socket.create_connection(server.address) for _ in range(100)]
        await server.accepted(100)
        for peer in peers:
            peer.close()
        await server.journal.has("shutdown", 100)


# Where it listens


async def test_the_same_port_again_right_away() -> None:
    async with serving() as server:
        with await dial(server):
            channel = await server.accepted()
            await ended(channel)
        await server.listener.aclose()
        async with serving(port=server.endpoint.port) as again:
            assert again.endpoint == server.endpoint


@pytest.mark.parametrize("domain", [SocketDomain.IPV4, SocketDomain.IPV6])
@pytest.mark.parametrize("host", [LOOPBACK, "::1"])
async def test_the_address_says_which_family_it_is(host: str, domain: SocketDomain) -> None:
    async with serving(host, socket_options=SocketOptions(domain=domain)) as server:
        assert server.endpoint.address == host
        with await dial(server):
            await server.accepted()


async def test_local_sockets() -> None:
    with local_endpoint() as endpoint:
        async with serving(endpoint.address, socket_options=LOCAL) as server:
            assert server.endpoint == endpoint
            with socket.socket(socket.AF_UNIX) as peer:
                peer.connect(endpoint.address)
                await server.accepted()
            await server.journal.has("shutdown")


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ({"host": "localhost"}, ErrorCode.IO_SOCKET_INVALID_ADDRESS),
        ({"host": "192.0.2.1"}, ErrorCode.IO_SOCKET_INVALID_ADDRESS),
        ({"port": 65536}, ErrorCode.IO_SOCKET_INVALID_ADDRESS),
        (
            {"socket_options": SocketOptions(type=SocketType.DGRAM)},
            ErrorCode.IO_SOCKET_INVALID_OPTIONS,
        ),
        (
            {"host": "/no/such/folder", "socket_options": LOCAL},
            CommonErrorCode.ERROR_FILE_INVALID_PATH,
        ),
        ({"tls": "a client's"}, ErrorCode.IO_TLS_CTX_ERROR),
    ],
)
async def test_where_it_cannot_listen(
    arguments: dict[str, Any], code: Code, ca: trustme.CA
) -> None:
    journal = Journal()
    if "tls" in arguments:
        arguments = {"tls": client_of(ca)}
    attempt = ServerBootstrap().new_socket_listener(
        **{"host": LOOPBACK, **arguments}, **journal.of_server
    )
    assert (await error_of(attempt)).code is code
    assert journal.story == []


async def test_an_address_in_use_is_named() -> None:
    journal = Journal()
    with listening() as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=f"{LOOPBACK}:{port}") as caught:
            await ServerBootstrap().new_socket_listener(LOOPBACK, port, **journal.of_server)
    assert code_of(caught.value) is ErrorCode.IO_SOCKET_ADDRESS_IN_USE
    assert journal.story == []


# What data does


async def test_read_back_pressure_holds_back_the_peer() -> None:
    app = App(window=1000)
    async with serving(handlers=lambda: [app], enable_read_back_pressure=True) as server:
        with await dial(server) as peer:
            peer.send(bytes(5000))
            for size in (1000, 3000, 5000):
                assert len(await app.got(size)) == size
                app.takes(2000)


async def test_nothing_is_read_before_it_is_wanted() -> None:
    """uvloop's transports begin to read although they were told not to."""
    app = App(window=0)
    async with serving(handlers=lambda: [app], enable_read_back_pressure=True) as server:
        with await dial(server) as peer:
            sent = peer.send(bytes(1 << 20))
            channel = await server.accepted()
            for _ in range(10):
                await asyncio.sleep(0.001)  # many turns that may read
            figures = channel.statistics()[0]
            assert isinstance(figures, SocketStatistics)
            assert figures.bytes_read <= MAX_READ_SIZE
            app.takes(sent)
            assert len(await app.got(sent)) == sent


async def test_reads_are_no_larger_than_asked_for() -> None:
    app = App()
    async with serving(handlers=lambda: [app], max_read_size=100) as server:
        with await dial(server) as peer:
            peer.send(bytes(1000))
            await app.got(1000)
    assert max(len(message.data) for message in app.reads) == 100


async def test_half_close_tells_of_the_peers_end_and_goes_on() -> None:
    app = App()
    async with serving(handlers=lambda: [app], half_close=True) as server:
        with await dial(server) as peer:
            peer.shutdown(socket.SHUT_WR)
            async with asyncio.timeout(PATIENCE):
                await app.has(MessageType.END_OF_INPUT.value)
            await write(await server.accepted(), b"still here")
            assert await asyncio.get_running_loop().sock_recv(peer, 100) == b"still here"


# Loops of a group


@pytest.mark.parametrize("kind", loops.FACTORIES)
async def test_channels_are_on_all_loops_of_a_group(kind: str) -> None:
    loop = asyncio.get_running_loop()
    async with EventLoopGroup(2, loop_factory=loops.FACTORIES[kind]) as group:
        async with serving(group=group) as server:
            assert server.listener.loop in list(group)
            peers = []
            while len({note.loop for note in server.journal.all("setup")}) < 2:
                peers.append(await dial(server))
                await server.accepted(len(peers))
            for number, peer in enumerate(peers, 1):
                data = b"%d" % number
                await loop.sock_sendall(peer, data)
                assert await loop.sock_recv(peer, 100) == data
                peer.close()
            await server.journal.has("shutdown", len(peers))
            for note in server.journal.notes:
                assert note.loop is note.subject.loop
            await server.listener.aclose()
            assert (await server.journal.has("destroy")).loop is server.listener.loop
        assert not await tasks_of(group)


async def test_destroy_on_the_listeners_loop_though_the_last_channel_is_on_another() -> None:
    async with EventLoopGroup(2) as group, serving(group=group) as server:
        peers = []
        while all(note.loop is server.listener.loop for note in server.journal.all("setup")):
            peers.append(await dial(server))
            await server.accepted(len(peers))
        await server.listener.aclose()
        *others, last = peers
        for number, peer in enumerate(others, 1):
            peer.close()
            await server.journal.has("shutdown", number)
        assert "destroy" not in server.journal.story
        last.close()
        assert (await server.journal.has("destroy")).loop is server.listener.loop
        assert server.journal.notes[-2].loop is not server.listener.loop


async def test_both_ends_on_groups() -> None:
    sink = Sink()
    async with (
        EventLoopGroup(2) as group,
        EventLoopGroup(1) as other,
        serving(group=group) as server,
        connected(
            server, requested_event_loop=other.get_loop_at(0), handlers=lambda: [sink]
        ) as channel,
    ):
        await on(channel.loop, write(channel, b"hello"))
        assert await sink.got(5) == b"hello"
        assert (await server.accepted()).loop in list(group)


async def test_a_group_that_was_shut_down() -> None:
    group = EventLoopGroup(1)
    await group.aclose()
    with pytest.raises(EventLoopShutdownError):
        await ServerBootstrap(group).new_socket_listener(LOOPBACK)


# How it ends


async def test_closing_from_another_thread() -> None:
    async with serving() as server:
        thread = threading.Thread(target=server.listener.close)
        thread.start()
        await server.listener.wait_closed()
        thread.join()
        assert server.journal.story == ["destroy"]


async def test_closing_from_a_callback() -> None:
    listeners: list[SocketListener] = []
    async with serving(
        on_incoming_channel_shutdown=lambda channel, error: listeners[0].close()
    ) as server:
        listeners.append(server.listener)
        with await dial(server):
            await server.accepted()
        await server.journal.has("destroy")
        assert server.journal.story == ["creation", "setup", "destroy"]


async def test_waiting_for_the_end_is_not_ending() -> None:
    async with serving() as server:
        waiting = [asyncio.create_task(server.listener.wait_closed()) for _ in range(3)]
        await turns()
        waiting[0].cancel()
        await asyncio.wait({waiting[0]})
        assert waiting[0].cancelled()
        with await dial(server):
            await server.accepted()
        assert not any(task.done() for task in waiting[1:])
        server.listener.close()
        await asyncio.gather(*waiting[1:])


async def test_waiting_on_any_loop() -> None:
    async with EventLoopGroup(2) as group, serving(group=group) as server:
        waiting = [
            asyncio.ensure_future(group.run(server.listener.wait_closed(), loop)) for loop in group
        ]
        await server.listener.aclose()
        await asyncio.gather(*waiting)


async def test_a_cancelled_aclose_has_begun_to_close() -> None:
    async with serving() as server:
        closing = asyncio.create_task(server.listener.aclose())
        await asyncio.sleep(0)
        closing.cancel()
        await asyncio.wait({closing})
        await server.listener.wait_closed()
        assert server.journal.story == ["destroy"]


async def test_a_connection_that_was_accepted_before_the_end_is_ended_by_its_owner() -> None:
    async with serving() as server:
        with await dial(server):
            channel = await server.accepted()
            await server.listener.aclose()
            assert channel.state is ChannelState.ACTIVE
            channel.shutdown()
            assert await closed(channel) is None


@pytest.mark.parametrize("count", [0, 1, 2, 3, 5])
async def test_cancelled_while_it_begins_to_listen(count: int) -> None:
    journal = Journal()
    task = asyncio.create_task(ServerBootstrap().new_socket_listener(LOOPBACK, **journal.of_server))
    await turns(count)
    task.cancel()
    await asyncio.wait({task})
    if not task.cancelled():
        await task.result().aclose()
    elif count and "destroy" not in journal.story:
        await turns(20)  # until the one that came too late has been closed


@pytest.mark.skipif(not hasattr(asyncio, "eager_task_factory"), reason="Python 3.12 has it")
@pytest.mark.loops("aws_io_async", "asyncio")  # uvloop cannot do with that factory
async def test_tasks_that_begin_at_once(ca: trustme.CA) -> None:
    loop: Any = asyncio.get_running_loop()
    factory: Any = getattr(asyncio, "eager_task_factory", None)
    tls = TlsConnectionOptions(client_of(ca), HOST)
    loop.set_task_factory(factory)
    try:
        async with serving(tls=server_of(ca)) as server:
            async with connected(server, tls=tls):
                await server.accepted()
            await server.journal.has("shutdown")
            with await dial(server):
                await server.journal.has("creation", 2)
                await server.listener.aclose()
            await server.journal.has("destroy")
    finally:
        loop.set_task_factory(None)
    expected = ["creation", "setup", "shutdown", "creation", "failure", "destroy"]
    assert server.journal.story == expected
