"""Sockets: bytes and datagrams there and back, shutting down and closing.

How they connect is in test_socket_connect, subscribers in test_socket_events, loops, threads and
owners in test_socket_ownership.
"""

import asyncio
import socket as stdlib
import sys
import uuid
from pathlib import Path

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
    LOOPBACK,
    connected,
    fill,
    filled,
    is_open,
    is_watched,
    listening,
    local_endpoint,
    raises,
    reset,
    state,
    turns,
)

IPV4, IPV6, LOCAL, VSOCK = SocketDomain
STREAM, DGRAM = SocketType
READ, WRITE = SocketDirection
TEAPOT = b"I'm a little teapot\0"
INTERFACE = "lo" if sys.platform == "linux" else "lo0"


def why_no_vsock() -> str | None:
    """Why the kernel cannot connect to itself over VSOCK, if it cannot."""
    if not hasattr(stdlib, "AF_VSOCK"):
        return "no AF_VSOCK"
    try:
        with stdlib.socket(stdlib.AF_VSOCK, stdlib.SOCK_STREAM) as sock:
            sock.bind((1, stdlib.VMADDR_PORT_ANY))
    except OSError as exc:
        return str(exc)
    return None


def link_local_address() -> str | None:
    """An IPv6 address of this machine that only a zone makes unambiguous, with that."""
    try:
        lines = Path("/proc/net/if_inet6").read_text().splitlines()
    except OSError:
        return None
    for packed, _, _, scope, _, interface in map(str.split, lines):
        if scope == "20":
            address = stdlib.inet_ntop(stdlib.AF_INET6, bytes.fromhex(packed))
            return f"{address}%{interface}"
    return None


async def check_stream(options: SocketOptions, endpoint: SocketEndpoint | None = None) -> None:
    """What is written on one side is read on the other, in both directions."""
    async with connected(options, endpoint) as (client, server):
        assert state(client) is state(server) is SocketState.CONNECTED
        assert server.options == client.options == options
        for writer, reader in ((client, server), (server, client)):
            await writer.write(TEAPOT)
            data = b""
            while len(data) < len(TEAPOT):
                data += await reader.read()
            assert data == TEAPOT
        client.close()
        assert await server.read() == b""
    assert state(client) is state(server) is SocketState.CLOSED


async def check_datagrams(
    options: SocketOptions, endpoint: SocketEndpoint | None = None, *, bound: bool = False
) -> None:
    """Datagrams arrive whole; a socket that is only bound cannot answer."""
    here = endpoint or SocketEndpoint(LOOPBACK[options.domain])
    async with Socket(options) as receiver, Socket(options) as sender:
        receiver.bind(here)
        assert state(receiver) is SocketState.RECEIVING
        if bound:
            sender.bind(here)
            own = sender.get_bound_address()
        await sender.connect(receiver.get_bound_address())
        if bound:
            assert sender.get_bound_address() == own
        await sender.write(TEAPOT)
        await sender.write(b"")
        await sender.write(b"short and stout")
        assert await receiver.read() == TEAPOT
        assert await receiver.read() == b""
        assert await receiver.read(5) == b"short"  # what does not fit is lost: a datagram
        with raises(ErrorCode.IO_SOCKET_NOT_CONNECTED):
            await receiver.write(b"to whom?")
        await receiver.connect(sender.get_bound_address())
        await receiver.write(b"here is my handle")
        assert await sender.read() == b"here is my handle"


# Communication


async def test_local_socket_communication() -> None:
    with local_endpoint() as endpoint:
        await check_stream(SocketOptions(domain=LOCAL), endpoint)


async def test_tcp_socket_communication() -> None:
    await check_stream(
        SocketOptions(keep_alive=True, keep_alive_interval=1000, keep_alive_timeout=6000)
    )


async def test_tcp_over_ipv6() -> None:
    await check_stream(SocketOptions(domain=IPV6))


@pytest.mark.skipif(link_local_address() is None, reason="no link-local address here")
async def test_link_local_ends_have_the_zone_that_is_needed_to_reach_them() -> None:
    own = SocketEndpoint(link_local_address() or "")
    await check_stream(SocketOptions(domain=IPV6), own)
    await check_datagrams(SocketOptions(type=DGRAM, domain=IPV6), own, bound=True)
    async with connected(SocketOptions(domain=IPV6), own) as (client, server):
        assert server.remote_endpoint == client.get_bound_address()
        async with Socket.from_socket(server.detach()) as same:
            assert same.remote_endpoint == client.get_bound_address()


@pytest.mark.skipif(sys.platform != "linux", reason="abstract names are Linux's")
async def test_local_sockets_with_an_abstract_name() -> None:
    await check_stream(SocketOptions(domain=LOCAL), SocketEndpoint(f"\0{uuid.uuid4()}"))


@pytest.mark.skipif(why_no_vsock() is not None, reason=f"no VSOCK loopback: {why_no_vsock()}")
async def test_vsock_loopback_socket_communication() -> None:
    endpoint = SocketEndpoint("1", 8127)
    await check_stream(SocketOptions(domain=VSOCK), endpoint)


async def test_udp_socket_communication() -> None:
    await check_datagrams(SocketOptions(type=DGRAM))


async def test_udp_bind_connect_communication() -> None:
    await check_datagrams(SocketOptions(type=DGRAM), bound=True)


async def test_a_datagram_that_is_too_long_is_refused() -> None:
    options = SocketOptions(type=DGRAM)
    async with Socket(options) as receiver, Socket(options) as sender:
        receiver.bind(SocketEndpoint("127.0.0.1"))
        await sender.connect(receiver.get_bound_address())
        with pytest.raises(OSError, match="too long"):
            await sender.write(bytes(70_000))
        await sender.write(b"short")
        assert await receiver.read() == b"short"


async def test_udp_over_ipv6() -> None:
    await check_datagrams(SocketOptions(type=DGRAM, domain=IPV6), bound=True)


async def test_socket_with_bind_to_interface() -> None:
    await check_stream(SocketOptions(network_interface_name=INTERFACE))
    await check_datagrams(SocketOptions(type=DGRAM, network_interface_name=INTERFACE))
    await check_stream(SocketOptions(domain=IPV6, network_interface_name=INTERFACE))


# Reading


async def test_read_waits_takes_at_most_what_is_asked_for_and_ends_with_nothing() -> None:
    async with connected() as (client, server):
        reading = asyncio.create_task(server.read(3))
        await turns()
        assert not reading.done()
        await client.write(b"abcdef")
        assert await reading == b"abc"
        buffer = bytearray(10)
        assert await server.read_into(memoryview(buffer)[2:]) == 3
        assert buffer == b"\0\0def\0\0\0\0\0"
        client.shutdown_dir(WRITE)
        assert await server.read() == b""
        assert await server.read_into(buffer) == 0


async def test_read_nowait_reads_what_there_is() -> None:
    async with connected() as (client, server):
        with raises(ErrorCode.IO_READ_WOULD_BLOCK):
            server.read_nowait()
        await client.write(b"abc")
        assert server.read_nowait(2) == b"ab"
        assert server.read_nowait() == b"c"
        with pytest.raises(BlockingIOError):
            server.read_nowait()


async def test_reads_of_nothing_are_refused() -> None:
    async with connected() as (_, server):
        with pytest.raises(ValueError, match="at least one byte"):
            await server.read(0)
        with pytest.raises(ValueError, match="at least one byte"):
            await server.read_into(bytearray())
        with pytest.raises(ValueError, match="at least one byte"):
            server.read_nowait(-1)


async def test_readers_that_wait_are_served_in_turn() -> None:
    async with connected() as (client, server):
        readers = [asyncio.create_task(server.read(1)) for _ in range(3)]
        await turns()
        for reader, byte in zip(readers, (b"a", b"b", b"c"), strict=True):
            await client.write(byte)
            assert await reader == byte


@pytest.mark.parametrize("later", range(6))
async def test_a_cancelled_read_loses_no_byte(later: int) -> None:
    async with connected() as (client, server):
        reading = asyncio.create_task(server.read())
        await turns()
        await client.write(b"abc")
        await turns(later)
        reading.cancel()
        await asyncio.wait([reading])
        assert not is_watched(server.fileno())
        assert (await server.read() if reading.cancelled() else reading.result()) == b"abc"


async def test_a_reset_is_told_to_reader_and_writer() -> None:
    async with connected() as (client, server):
        await fill(client)
        reading = asyncio.create_task(client.read())
        writing = asyncio.create_task(client.write(b"more"))
        await turns()
        reset(server)
        with raises(ErrorCode.IO_SOCKET_CLOSED):
            await writing
        with raises(ErrorCode.IO_SOCKET_CLOSED):
            assert await reading == b""
            await client.write(b"again")
        assert is_open(client)


async def test_an_icmp_error_is_raised_once_and_the_socket_lives_on() -> None:
    options = SocketOptions(type=DGRAM)
    async with Socket(options) as gone, Socket(options) as sender:
        gone.bind(SocketEndpoint("127.0.0.1"))
        nobody = gone.get_bound_address()
        gone.close()
        await sender.connect(nobody)
        readers = [asyncio.create_task(sender.read()) for _ in range(3)]
        await turns()
        await sender.write(b"hello?")
        with raises(ErrorCode.IO_SOCKET_CONNECTION_REFUSED):
            await readers[0]
        async with Socket(options) as receiver:
            receiver.bind(nobody)
            await receiver.connect(sender.get_bound_address())
            for reader in readers[1:]:
                await receiver.write(b"now")
                assert await reader == b"now"


# Writing


async def test_writes_that_wait_are_made_in_order() -> None:
    async with filled() as (client, server, backlog):
        pieces = [bytes([65 + n]) * 300_000 for n in range(5)]
        writes = [asyncio.create_task(client.write(piece)) for piece in pieces]
        await turns()
        received = bytearray()
        done = [write.done() for write in writes]
        while len(received) < backlog + 1_500_000:
            assert done == sorted(done, reverse=True)
            assert sum(done) * 300_000 <= len(received)
            received += await server.read()
            done = [write.done() for write in writes]
        assert received[backlog:] == b"".join(pieces)
        await asyncio.gather(*writes)
        assert not is_watched(client.fileno())


async def test_sock_write_cb_is_async() -> None:
    """Writes complete in order, none inside the call of another; D is written when A is done."""
    completed: list[str] = []
    tasks: list[asyncio.Task[None]] = []

    async def write(client: Socket, name: str) -> None:
        await client.write(name.encode())
        completed.append(name)
        if name == "A":
            tasks.append(asyncio.create_task(write(client, "D")))

    async with connected() as (client, server):
        tasks += [asyncio.create_task(write(client, name)) for name in "ABC"]
        assert completed == []
        while len(completed) < 4:
            await asyncio.wait(tasks)
        assert completed == ["A", "B", "C", "D"]
        client.close()
        received = b""
        while data := await server.read():
            received += data
        assert received == b"ABCD"


async def test_cleanup_in_write_cb_doesnt_explode() -> None:
    async with connected() as (client, server):
        for writer in (client, server):
            await writer.write(TEAPOT)
            writer.close()
            assert not is_open(writer)


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
async def test_what_can_be_written(kind: type[bytes] | type[bytearray] | type[memoryview]) -> None:
    async with connected() as (client, server):
        await client.write(kind(b""))
        await client.write(kind(b"abc"))
        assert await server.read() == b"abc"
        with pytest.raises(TypeError):
            await client.write("text")  # type: ignore[arg-type]  # the point of it


async def test_a_cancelled_write_leaves_the_turn_to_the_next() -> None:
    async with filled() as (client, server, backlog):
        first = asyncio.create_task(client.write(b"1" * 1000))
        second = asyncio.create_task(client.write(b"2" * 1000))
        third = asyncio.create_task(client.write(b"3" * 1000))
        await turns()
        second.cancel()
        first.cancel()
        await asyncio.wait([first, second])
        assert first.cancelled()
        assert second.cancelled()
        while backlog:
            backlog -= len(await server.read(backlog))
        await third
        assert await server.read() == b"3" * 1000
        assert not is_watched(client.fileno())


# Shutting down and closing


async def test_shutdown_of_the_write_direction() -> None:
    async with connected() as (client, server):
        client.shutdown_dir(WRITE)
        client.shutdown_dir(WRITE)
        assert state(client) is SocketState.WRITE_CLOSED
        assert await server.read() == b""
        with raises(ErrorCode.IO_SOCKET_NOT_CONNECTED):
            await client.write(b"too late")
        await server.write(b"still")
        assert await client.read() == b"still"
        client.shutdown_dir(READ)
        assert state(client) is SocketState.SHUT_DOWN
        with raises(ErrorCode.IO_SOCKET_NOT_CONNECTED):
            await client.read()


async def test_shutdown_wakes_who_waits() -> None:
    async with filled() as (client, server, _):
        reading = asyncio.create_task(client.read())
        writing = asyncio.create_task(client.write(b"more"))
        await turns()
        client.shutdown_dir(READ)
        assert state(client) is SocketState.READ_CLOSED
        with raises(ErrorCode.IO_SOCKET_NOT_CONNECTED):
            await reading
        assert not writing.done()
        client.shutdown_dir(WRITE)
        with raises(ErrorCode.IO_SOCKET_NOT_CONNECTED):
            await writing
        assert is_open(server)


async def test_close_wakes_who_waits_and_is_idempotent() -> None:
    async with filled() as (client, server, _), await listening() as listener:
        waiting = [
            asyncio.create_task(client.read()),
            asyncio.create_task(client.read_into(bytearray(1))),
            asyncio.create_task(client.write(b"1")),
            asyncio.create_task(client.write(b"2")),
            asyncio.create_task(listener.accept()),
        ]
        await turns()
        fds = [client.fileno(), listener.fileno()]
        for _ in range(2):
            client.close()
            listener.close()
        assert not any(is_watched(fd) for fd in fds)
        for task in waiting:
            with raises(ErrorCode.IO_SOCKET_CLOSED):
                await task
        assert is_open(server)


async def test_a_closed_socket_says_so() -> None:
    async with connected() as (client, _):
        client.close()
        with raises(ErrorCode.IO_SOCKET_CLOSED):
            await client.read()
        with raises(ErrorCode.IO_SOCKET_CLOSED):
            client.read_nowait()
        with raises(ErrorCode.IO_SOCKET_CLOSED):
            await client.write(b"")
        with raises(ErrorCode.IO_SOCKET_CLOSED):
            client.detach()
        with raises(ErrorCode.IO_SOCKET_CLOSED):
            client.subscribe_to_readable_events(lambda *_: None)
        with raises(ErrorCode.IO_SOCKET_CLOSED):
            client.shutdown_dir(READ)
        error = client.get_error()
        assert error is not None
        assert error.code is ErrorCode.IO_SOCKET_CLOSED
        assert "CLOSED" in repr(client)
