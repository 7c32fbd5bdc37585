"""Listeners when things go wrong: descriptors run out, peers vanish, callbacks raise, loops end."""

import asyncio
import logging
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import trustme

from aws_io_async.channel import ChannelState
from aws_io_async.channel_bootstrap import ServerBootstrap, SocketListener, _server
from aws_io_async.errors import EventLoopShutdownError, OperationCancelledError
from aws_io_async.event_loop.group import EventLoopGroup
from tests import channels, loops
from tests.bootstraps import (
    LOOPBACK,
    Echo,
    Journal,
    OnPurposeError,
    Server,
    closed,
    dial,
    serving,
    tasks_of,
)
from tests.socket_tools import turns
from tests.tls_peers import server_of

no_tasks_left = channels.no_tasks_left


def reset(sock: socket.socket) -> None:
    """Close it so that the peer is not told in order, but by a reset."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


async def echoes(peer: socket.socket) -> None:
    """The other end is alive."""
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(peer, b"hello")
    assert await loop.sock_recv(peer, 100) == b"hello"


# Descriptors


@contextmanager
def no_descriptors_left() -> Iterator[None]:
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_out_of_descriptors_it_waits_and_then_goes_on(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line in the log however often it tries, and no other turn of the loop."""
    monkeypatch.setattr(_server, "ACCEPT_RETRY_DELAY", 0.05)
    async with serving() as server:
        with await dial(server) as first, socket.socket() as second:
            await server.accepted()
            second.setblocking(False)
            with no_descriptors_left(), caplog.at_level(logging.WARNING):
                second.connect_ex(server.address)
                await asyncio.sleep(0.07)  # as long as two tries, or very many turns that spin
                await echoes(first)  # others go on
            assert len(server.journal.all("setup")) == 1
            await server.accepted(2)
            await echoes(second)
    (line,) = caplog.text.splitlines()
    assert f"<SocketListener {server.endpoint}>: tries every 0.05 s: " in line
    assert "AWS_ERROR_MAX_FDS_EXCEEDED" in line


def test_the_wait_for_descriptors_is_a_second() -> None:
    assert _server.ACCEPT_RETRY_DELAY == 1.0


async def test_closing_while_it_waits_for_descriptors() -> None:
    async with serving() as server:
        with socket.socket() as peer:
            peer.setblocking(False)
            with no_descriptors_left():
                peer.connect_ex(server.address)
                await turns(20)
                await server.listener.aclose()
    assert server.journal.story == ["destroy"]


# Peers


async def test_peers_that_leave_before_they_are_accepted() -> None:
    """Their channels may be ready or not: that is the loops' to say."""
    async with serving() as server:
        for leave in (reset, socket.socket.close):
            leave(socket.create_connection(server.address))
        with await dial(server) as peer:
            await echoes(peer)
        await server.listener.aclose()
        await server.journal.has("destroy")
    story = server.journal.story
    assert story.count("setup") == story.count("shutdown") >= 1
    assert story.count("setup") + story.count("failure") == 3


async def test_a_peer_that_sends_and_leaves_is_heard() -> None:
    """What it sent is delivered, whether the channel was ready before it left or not."""
    received = bytearray()

    class Ear(Echo):
        def process_read_message(self, slot: Any, message: Any) -> None:
            received.extend(message.data)

    async with serving(handlers=lambda: [Ear()]) as server:
        with socket.create_connection(server.address) as peer:
            peer.send(b"hello, and good-bye")
        await server.journal.has("shutdown")
    assert received == b"hello, and good-bye"


@pytest.mark.parametrize("leave", [reset, socket.socket.close])
@pytest.mark.parametrize("said", [b"", b"\x16\x03\x01", b"GET / HTTP/1.1\r\n\r\n"])
async def test_peers_that_leave_while_tls_is_negotiated(
    leave: Any, said: bytes, ca: trustme.CA
) -> None:
    async with serving(tls=server_of(ca)) as server:
        peer = await dial(server)
        await server.journal.has("creation")
        if said:
            peer.send(said)
        leave(peer)
        failure = await server.journal.has("failure")
        await server.listener.aclose()
        await server.journal.has("destroy")
    assert server.journal.story == ["creation", "failure", "destroy"]
    assert isinstance(failure.error, OSError)
    assert f"{LOOPBACK}:" in str(failure.error)  # the peer's address


# Callbacks that raise


@pytest.mark.parametrize("where", ["creation", "handlers", "setup"])
async def test_a_callback_that_raises_ends_its_channel_only(where: str) -> None:
    error = OnPurposeError()
    journal = Journal(**{where: error})

    def handlers() -> list[Echo]:
        journal.note("handlers")
        return [Echo()]

    with channels.collected_errors() as errors:
        async with serving(journal=journal, handlers=handlers) as server:
            with await dial(server) as peer:
                assert await asyncio.get_running_loop().sock_recv(peer, 100) == b""
            channel = journal.notes[0].subject
            assert await closed(channel) is error
            journal._raises.clear()
            with await dial(server) as peer:
                await echoes(peer)
            await server.listener.aclose()
            await journal.has("destroy")
        assert [context["exception"] for context in errors] == [error]
        assert f"no channel for {LOOPBACK}:" in errors[0]["message"]
        errors.clear()
    first = {
        "creation": ["creation", "failure"],
        "handlers": ["creation", "handlers", "failure"],
        "setup": ["creation", "handlers", "setup", "shutdown"],
    }[where]
    assert journal.story[: len(first)] == first
    assert journal.notes[len(first) - 1].error is error


@pytest.mark.parametrize("where", ["shutdown", "destroy"])
async def test_callbacks_at_the_end_that_raise_are_reported(where: str) -> None:
    journal = Journal(**{where: OnPurposeError()})
    with channels.collected_errors() as errors:
        async with serving(journal=journal) as server:
            with await dial(server):
                await server.accepted()
            await server.listener.aclose()
            await journal.has("destroy")
        assert [type(context["exception"]) for context in errors] == [OnPurposeError]
        errors.clear()
    assert journal.story == ["creation", "setup", "shutdown", "destroy"]


async def test_a_callback_for_failures_that_raises_is_reported(ca: trustme.CA) -> None:
    journal = Journal(failure=OnPurposeError())
    with channels.collected_errors() as errors:
        async with serving(journal=journal, tls=server_of(ca)) as server:
            (await dial(server)).close()
            await journal.has("failure")
            await turns()
        assert [type(context["exception"]) for context in errors] == [OnPurposeError]
        errors.clear()


# Ends in the middle of something


async def hanging(server: Server, count: int) -> list[socket.socket]:
    """Peers that say nothing, so that TLS waits for them."""
    peers = [await dial(server) for _ in range(count)]
    await server.journal.has("creation", count)
    return peers


@pytest.mark.parametrize("grouped", [False, True])
async def test_closed_while_channels_are_set_up(grouped: bool, ca: trustme.CA) -> None:
    loop = asyncio.get_running_loop()
    async with EventLoopGroup(2) as group:
        group_or_none = group if grouped else None
        async with serving(group=group_or_none, tls=server_of(ca)) as server:
            peers = await hanging(server, 5)
            await server.listener.aclose()
            for note in server.journal.all("creation"):
                assert note.subject.state is ChannelState.SHUT_DOWN
            for peer in peers:
                with peer:
                    assert await loop.sock_recv(peer, 100) == b""
            await server.journal.has("destroy")
            assert server.journal.story == ["creation"] * 5 + ["failure"] * 5 + ["destroy"]
            for note in server.journal.all("failure"):
                assert isinstance(note.error, OperationCancelledError)
        assert not await tasks_of(group)


async def test_a_close_of_which_the_end_is_not_waited_for(ca: trustme.CA) -> None:
    async with serving(tls=server_of(ca)) as server:
        for peer in await hanging(server, 3):
            peer.close()
        closing = [asyncio.create_task(server.listener.aclose()) for _ in range(3)]
        await asyncio.sleep(0)
        for task in closing[1:]:
            task.cancel()
        await asyncio.wait(closing)
        assert closing[0].exception() is None
        await server.journal.has("destroy")
    assert server.journal.story[-1] == "destroy"


@pytest.mark.parametrize("kind", loops.FACTORIES)
async def test_a_group_that_is_shut_down_takes_its_listeners_along(
    kind: str, ca: trustme.CA
) -> None:
    """The journal may miss what would have to cross from one loop that ends to another."""
    journal = Journal()
    group = EventLoopGroup(2, loop_factory=loops.FACTORIES[kind])
    listener = await ServerBootstrap(group).new_socket_listener(
        LOOPBACK, tls=server_of(ca), **journal.of_server
    )
    server = Server(listener, journal)
    peers = await hanging(server, 5)
    await group.aclose()
    assert journal.story.count("failure") == 5
    for peer in peers:
        with peer:
            assert await asyncio.get_running_loop().sock_recv(peer, 100) == b""
    with pytest.raises(ConnectionRefusedError):
        await dial(server)
    await listener.aclose()  # harmless
    await listener.wait_closed()
    with pytest.raises(EventLoopShutdownError):
        await ServerBootstrap(group).new_socket_listener(LOOPBACK)


async def test_a_group_of_one_that_is_shut_down_destroys_its_listeners() -> None:
    journal = Journal()
    group = EventLoopGroup(1)
    await ServerBootstrap(group).new_socket_listener(LOOPBACK, **journal.of_server)
    await group.aclose()
    assert journal.story == ["destroy"]


@pytest.mark.parametrize("factory", loops.FACTORIES.values(), ids=loops.FACTORIES)
@pytest.mark.parametrize("later", [0, 1, 2, 5])
def test_a_loop_that_ends_takes_its_listeners_along(
    factory: loops.Factory, later: int, ca: trustme.CA
) -> None:
    """Also one that was made just now, and connections that were accepted just now."""
    journal, sockets = Journal(), []
    listeners: list[SocketListener] = []

    async def main() -> None:
        for _ in range(2):
            listeners.append(
                await ServerBootstrap().new_socket_listener(
                    LOOPBACK, tls=server_of(ca), **journal.of_server
                )
            )
            if len(listeners) == 1:
                for _ in range(3):
                    address = (LOOPBACK, listeners[0].endpoint.port)
                    sockets.append(socket.create_connection(address))
        await turns(later)

    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main())
    assert journal.story.count("destroy") == 2
    assert journal.story.count("failure") >= journal.story.count("creation")
    for sock in sockets:
        with sock:
            try:
                assert sock.recv(100) == b""
            except ConnectionResetError:
                pass  # it was in the backlog
