"""Whose a socket is: loops and threads, and descriptors that change hands."""

import asyncio
import socket as stdlib
import ssl
from typing import Any

import pytest

from aws_io_async.errors import ErrorCode
from aws_io_async.socket import (
    Socket,
    SocketDirection,
    SocketDomain,
    SocketEndpoint,
    SocketOptions,
    SocketState,
    SocketType,
)
from tests.socket_tools import (
    another_loop,
    connected,
    is_open,
    is_watched,
    listening,
    on,
    raises,
    state,
    turns,
)

HERE = SocketEndpoint("127.0.0.1")
DGRAM = SocketOptions(type=SocketType.DGRAM)
THREAD_ONLY = ErrorCode.ERROR_IO_EVENT_LOOP_THREAD_ONLY


# Loops and threads


async def test_wrong_thread_read_write_fails() -> None:
    async with another_loop() as other, Socket(DGRAM) as peer:
        sock = Socket(DGRAM)
        sock.bind(HERE)
        peer.bind(HERE)
        sock.assign_to_event_loop(other)
        for operation in (
            sock.read(),
            sock.read_into(bytearray(1)),
            sock.write(b"abc"),
            sock.connect(peer.get_bound_address()),
        ):
            with raises(THREAD_ONLY):
                await operation
        with raises(THREAD_ONLY, match="call_soon_threadsafe"):
            sock.read_nowait()
        with raises(THREAD_ONLY):
            sock.subscribe_to_readable_events(lambda *_: None)
        with raises(THREAD_ONLY):
            sock.close()
        with raises(THREAD_ONLY):
            sock.detach()
        with raises(THREAD_ONLY):
            sock.shutdown_dir(SocketDirection.READ)
        assert state(sock) is SocketState.RECEIVING

        async def use_and_close() -> bytes:
            await sock.connect(peer.get_bound_address())
            data = await sock.read()
            sock.close()
            return data

        using = asyncio.create_task(on(other, use_and_close()))
        await peer.connect(sock.get_bound_address())
        await peer.write(b"abc")
        assert await using == b"abc"
        assert not is_open(sock)


async def test_a_socket_becomes_that_loops_which_uses_it_first() -> None:
    async with another_loop() as other, await listening() as listener, Socket() as client:
        before = client.loop
        assert before is None
        await client.connect(listener.get_bound_address())
        assert client.loop is asyncio.get_running_loop()
        server = await listener.accept()
        before = server.loop
        assert before is None

        async def serve() -> None:
            async with server:
                await server.write((await server.read()).upper())

        serving = asyncio.create_task(on(other, serve()))
        await client.write(b"abc")
        assert await client.read() == b"ABC"
        await serving
        assert server.loop is other
        with raises(ErrorCode.IO_EVENT_LOOP_ALREADY_ASSIGNED):
            client.assign_to_event_loop(other)
        with raises(ErrorCode.IO_SOCKET_CLOSED):
            server.assign_to_event_loop(other)


def test_without_a_loop() -> None:
    sock = Socket(DGRAM)
    try:
        sock.bind(HERE)
        with raises(ErrorCode.IO_SOCKET_MISSING_EVENT_LOOP, match="assign"):
            sock.read_nowait()
        assert sock.loop is None
    finally:
        sock.close()


def test_it_can_be_closed_when_its_loop_does_not_run_any_more() -> None:
    sock = Socket(DGRAM)
    sock.bind(HERE)

    async def main() -> None:
        reading = asyncio.create_task(sock.read())
        await turns()
        reading.cancel()
        await asyncio.wait([reading])
        sock.subscribe_to_readable_events(lambda *_: None)

    asyncio.run(main())
    assert sock.loop is not None
    assert sock.loop.is_closed()
    sock.close()
    assert not is_open(sock)


# Descriptors that change hands


async def test_detach_hands_the_descriptor_over() -> None:
    async with connected() as (client, server):
        reading = asyncio.create_task(server.read())
        server.subscribe_to_readable_events(lambda *_: pytest.fail("it is not its own any more"))
        await turns()
        fd = server.fileno()
        with server.detach() as plain:
            assert plain.fileno() == fd
            assert not plain.getblocking()
            assert not is_watched(fd)
            assert not is_open(server)
            assert state(server) is SocketState.CLOSED
            with raises(ErrorCode.IO_SOCKET_CLOSED):
                await reading
            server.close()
            await client.write(b"abc")
            await asyncio.get_running_loop().sock_sendall(plain, b"def")
            assert await asyncio.get_running_loop().sock_recv(plain, 10) == b"abc"
            assert await client.read() == b"def"


async def test_the_log_does_not_call_closed_what_was_handed_over(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with connected() as (client, server):
        caplog.set_level("DEBUG", "aws_io_async.socket")
        server.detach().close()
        client.close()
        handed_over, closed = caplog.messages
        assert handed_over.endswith("is handed over")
        assert closed.endswith("is closed")


async def test_from_socket_takes_the_descriptor_over() -> None:
    left, right = stdlib.socketpair()
    fd = left.fileno()
    async with Socket.from_socket(left) as sock:
        assert left.fileno() == -1
        assert sock.fileno() == fd
        assert state(sock) is SocketState.CONNECTED
        assert sock.options.domain is SocketDomain.LOCAL
        assert sock.local_endpoint is sock.remote_endpoint is None
        with raises(ErrorCode.IO_SOCKET_ILLEGAL_OPERATION_FOR_STATE):
            sock.get_bound_address()
        async with Socket.from_socket(right) as other:
            await sock.write(b"abc")
            assert await other.read() == b"abc"


async def test_from_socket_knows_the_state() -> None:
    states = {}
    listener = stdlib.create_server(("127.0.0.1", 0))
    client = stdlib.create_connection(listener.getsockname())
    bound = stdlib.socket()
    bound.bind(("127.0.0.1", 0))
    datagrams = stdlib.socket(type=stdlib.SOCK_DGRAM)
    datagrams.bind(("127.0.0.1", 0))
    peers = {"client": SocketEndpoint(*client.getpeername())}
    for name, plain in {
        "new": stdlib.socket(),
        "client": client,
        "listener": listener,
        "bound": bound,
        "datagrams": datagrams,
    }.items():
        own = plain.getsockname()
        async with Socket.from_socket(plain) as sock:
            states[name] = sock.state
            assert sock.local_endpoint == (None if name == "new" else SocketEndpoint(*own))
            assert sock.remote_endpoint == peers.get(name)
    assert states == {
        "new": SocketState.INIT,
        "client": SocketState.CONNECTED,
        "listener": SocketState.LISTENING,
        "bound": SocketState.BOUND,
        "datagrams": SocketState.RECEIVING,
    }


async def test_from_socket_sets_the_options_that_are_given_and_no_others() -> None:
    nodelay = (stdlib.IPPROTO_TCP, stdlib.TCP_NODELAY)
    for options, expected in ((None, 0), (SocketOptions(), 1)):
        plain = stdlib.socket()
        plain.setsockopt(*nodelay, 0)
        async with Socket.from_socket(plain, options) as sock:
            with sock.detach() as plain:
                assert bool(plain.getsockopt(*nodelay)) == expected


async def test_what_from_socket_refuses_stays_the_callers() -> None:
    with stdlib.socket() as plain:
        for options in (SocketOptions(domain=SocketDomain.IPV6), DGRAM):
            with raises(ErrorCode.IO_SOCKET_INVALID_OPTIONS):
                Socket.from_socket(plain, options)
        assert plain.fileno() >= 0
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    with (
        context.wrap_socket(stdlib.socket(), server_hostname="example.com") as secure,
        pytest.raises(TypeError, match="SSLSocket"),
    ):
        Socket.from_socket(secure)
    with (
        stdlib.socket(stdlib.AF_UNIX, stdlib.SOCK_DGRAM) as datagrams,
        raises(ErrorCode.IO_SOCKET_INVALID_OPTIONS),
    ):
        Socket.from_socket(datagrams)


async def test_a_socket_that_nobody_closes_is_reported() -> None:
    sock = Socket()
    with pytest.warns(ResourceWarning, match="unclosed"):
        del sock


async def test_repr_tells_descriptor_state_and_ends() -> None:
    async with connected() as (client, _):
        text = repr(client)
        assert f"fd={client.fileno()} CONNECTED" in text
        assert f"local={client.local_endpoint}" in text
        assert f"remote={client.remote_endpoint}" in text


async def test_what_a_socket_cannot_use_is_refused_and_leaves_it_as_it_was() -> None:
    wrong: Any = ("127.0.0.1", 80)
    with pytest.raises(TypeError, match="options must be SocketOptions, not"):
        Socket(wrong)
    async with Socket() as sock:
        with pytest.raises(TypeError, match="an event loop is needed, not"):
            sock.assign_to_event_loop(wrong)
        assert sock.loop is None
        with pytest.raises(TypeError, match="an address is a SocketEndpoint here, not"):
            sock.bind(wrong)
        with pytest.raises(TypeError, match="an address is a SocketEndpoint here, not"):
            await sock.connect(wrong)
        port: Any = 80.5
        with pytest.raises(TypeError, match="cannot be interpreted as an integer"):
            await sock.connect(SocketEndpoint("127.0.0.1", port))
        assert state(sock) is SocketState.INIT
