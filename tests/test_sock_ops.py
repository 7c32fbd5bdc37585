"""`loop.sock_*` on sockets of the caller's own."""

import asyncio
import errno
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

BIG = bytes(range(256)) * 16 * 1024  # 4 MiB


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    near, far = socket.socketpair()
    with near, far:
        near.setblocking(False)
        far.setblocking(False)
        yield near, far


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        sock.setblocking(False)
        yield sock


@pytest.fixture
def udp() -> Iterator[tuple[socket.socket, socket.socket]]:
    one, other = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
    with one, other:
        for sock in (one, other):
            sock.setblocking(False)
            sock.bind(("127.0.0.1", 0))
        yield one, other


def tcp() -> socket.socket:
    sock = socket.socket()
    sock.setblocking(False)
    return sock


async def begun(coroutine: Any) -> "asyncio.Task[Any]":
    """A task that has come to its first wait."""
    task: asyncio.Task[Any] = asyncio.ensure_future(coroutine)
    await asyncio.sleep(0)
    assert not task.done()
    return task


async def cancelled_when_reported(task: "asyncio.Task[Any]") -> None:
    """Cancel `task` after the poll that reports its socket, and before its own wake-up."""
    loop = asyncio.get_running_loop()
    cancelled = loop.create_future()
    near, far = socket.socketpair()
    with near, far:
        far.send(b".")

        def cancel() -> None:
            loop.remove_reader(near)
            task.cancel()
            cancelled.set_result(None)

        loop.add_reader(near, cancel)
        await cancelled
    with pytest.raises(asyncio.CancelledError):
        await task


def renumbered(sock: socket.socket, number: int) -> socket.socket:
    """The same socket under another fd."""
    with sock:
        os.dup2(sock.fileno(), number)
        new = socket.socket(fileno=number)
        new.setblocking(False)
        return new


# Streams


async def test_what_is_there_is_received_at_once(pair: Any) -> None:
    loop = asyncio.get_running_loop()
    near, far = pair
    far.send(b"hello")
    assert await loop.sock_recv(near, 2) == b"he"
    buffer = bytearray(8)
    assert await loop.sock_recv_into(near, buffer) == 3
    assert buffer[:3] == b"llo"


async def test_receiving_waits_for_data_and_ends_with_nothing(pair: Any) -> None:
    loop = asyncio.get_running_loop()
    near, far = pair
    task = await begun(loop.sock_recv(near, 100))
    far.send(b"data")
    assert await task == b"data"
    buffer = bytearray(8)
    task = await begun(loop.sock_recv_into(near, buffer))
    far.send(b"more")
    assert await task == 4
    assert buffer == b"more\0\0\0\0"
    task = await begun(loop.sock_recv(near, 100))
    far.close()
    assert await task == b""


async def test_big_data_passes_through_in_both_directions(pair: Any) -> None:
    loop = asyncio.get_running_loop()

    async def read(sock: socket.socket) -> bytes:
        received = bytearray()
        while len(received) < len(BIG):
            received += await loop.sock_recv(sock, 1 << 20)
        return bytes(received)

    results = await asyncio.gather(
        *(loop.sock_sendall(sock, BIG) for sock in pair), *(read(sock) for sock in pair)
    )
    assert results[2:] == [BIG, BIG]


@pytest.mark.parametrize(
    "data", [b"", bytearray(b"abc"), memoryview(b"abc")], ids=lambda data: type(data).__name__
)
async def test_sendall_takes_bytes_of_every_kind(pair: Any, data: Any) -> None:
    near, far = pair
    await asyncio.get_running_loop().sock_sendall(near, data)
    near.close()
    assert await asyncio.get_running_loop().sock_recv(far, 10) == bytes(data)


@pytest.mark.loops("aws_io_async")  # the others count items instead of bytes
async def test_sendall_takes_memoryviews_of_any_shape(pair: Any) -> None:
    near, far = pair
    loop = asyncio.get_running_loop()
    grid = memoryview(BIG).cast("i", (1024, len(BIG) // 4096))
    sending = asyncio.ensure_future(loop.sock_sendall(near, grid))
    received = bytearray()
    while len(received) < len(BIG):
        received += await loop.sock_recv(far, 1 << 20)
    await sending
    assert received == BIG


async def test_sending_to_a_peer_that_has_gone(pair: Any) -> None:
    near, far = pair
    task = await begun(asyncio.get_running_loop().sock_sendall(near, BIG))
    far.close()
    with pytest.raises(ConnectionError):
        await task


# Connecting and accepting


async def test_connect_and_accept(listener: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    accepting = await begun(loop.sock_accept(listener))
    with tcp() as client:
        await loop.sock_connect(client, listener.getsockname())
        connection, address = await accepting
        with connection:
            assert address == client.getsockname()
            assert connection.gettimeout() == 0
            await loop.sock_sendall(client, b"hello")
            assert await loop.sock_recv(connection, 10) == b"hello"


async def test_connect_resolves_names(listener: socket.socket) -> None:
    with tcp() as client:
        await asyncio.get_running_loop().sock_connect(
            client, ("localhost", listener.getsockname()[1])
        )
        assert client.getpeername() == listener.getsockname()


async def test_connect_by_ipv6() -> None:
    loop = asyncio.get_running_loop()
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as server:
        for address in (server.getsockname(), server.getsockname()[:2]):
            with socket.socket(socket.AF_INET6) as client:
                client.setblocking(False)
                await loop.sock_connect(client, address)
                assert client.getpeername() == server.getsockname()


async def test_a_refused_connection_names_its_address(listener: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    address = listener.getsockname()
    listener.close()
    with tcp() as client:
        with pytest.raises(ConnectionRefusedError) as caught:
            await loop.sock_connect(client, address)
        assert caught.value.errno == errno.ECONNREFUSED
        if "uvloop" not in type(loop).__module__:
            assert str(address) in str(caught.value)


async def test_connect_to_a_unix_socket(tmp_path: Path) -> None:
    loop = asyncio.get_running_loop()
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
        client.setblocking(False)
        with pytest.raises(FileNotFoundError):
            await loop.sock_connect(client, path)
        server.bind(path)
        with pytest.raises(ConnectionRefusedError):
            await loop.sock_connect(client, path)
        server.listen()
        await loop.sock_connect(client, path)


# asyncio reports a connection that was never made.
@pytest.mark.loops("aws_io_async")
async def test_a_unix_server_whose_backlog_is_full(tmp_path: Path) -> None:
    loop = asyncio.get_running_loop()
    path = str(tmp_path / "socket")
    waiting: list[socket.socket] = []
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen(1)
        with pytest.raises(BlockingIOError):
            while True:
                waiting.append(socket.socket(socket.AF_UNIX))
                waiting[-1].setblocking(False)
                await loop.sock_connect(waiting[-1], path)
        for sock in waiting[:-1]:
            assert sock.getpeername() == path
        for sock in waiting:
            sock.close()


# Datagrams, which uvloop does not have here


@pytest.mark.loops("aws_io_async", "asyncio")
async def test_datagrams(udp: Any) -> None:
    loop = asyncio.get_running_loop()
    one, other = udp
    assert await loop.sock_sendto(one, b"hello", other.getsockname()) == 5
    assert await loop.sock_recvfrom(other, 100) == (b"hello", one.getsockname())
    task = await begun(loop.sock_recvfrom(other, 100))
    await loop.sock_sendto(one, b"again", other.getsockname())
    assert await task == (b"again", one.getsockname())


@pytest.mark.loops("aws_io_async", "asyncio")
async def test_datagrams_into_a_buffer(udp: Any) -> None:
    loop = asyncio.get_running_loop()
    one, other = udp
    buffer = bytearray(16)
    task = await begun(loop.sock_recvfrom_into(other, buffer))
    await loop.sock_sendto(one, b"hello", other.getsockname())
    assert await task == (5, one.getsockname())
    assert buffer[:5] == b"hello"
    await loop.sock_sendto(one, b"HELLO", other.getsockname())
    assert await loop.sock_recvfrom_into(other, buffer, 2) == (2, one.getsockname())
    assert buffer[:5] == b"HEllo"


# Cancellation


async def test_a_cancelled_recv_takes_no_data(pair: Any) -> None:
    loop = asyncio.get_running_loop()
    near, far = pair
    task = await begun(loop.sock_recv(near, 100))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    far.send(b"kept")
    assert await loop.sock_recv(near, 100) == b"kept"


# The others read in the callback, and what they have read is lost with the future.
@pytest.mark.loops("aws_io_async")
@pytest.mark.parametrize("operation", ["recv", "recv_into", "recvfrom", "recvfrom_into"])
async def test_a_recv_cancelled_after_the_socket_was_reported_takes_no_data(
    pair: Any, operation: str
) -> None:
    loop = asyncio.get_running_loop()
    near, far = pair
    argument: Any = bytearray(100) if operation.endswith("into") else 100
    task = await begun(getattr(loop, f"sock_{operation}")(near, argument))
    far.send(b"kept")
    await cancelled_when_reported(task)
    assert await loop.sock_recv(near, 100) == b"kept"


@pytest.mark.loops("aws_io_async")  # as above
async def test_an_accept_cancelled_after_the_socket_was_reported_loses_no_connection(
    listener: socket.socket,
) -> None:
    loop = asyncio.get_running_loop()
    task = await begun(loop.sock_accept(listener))
    with socket.create_connection(listener.getsockname()) as client:
        await cancelled_when_reported(task)
        connection, _ = await loop.sock_accept(listener)
        with connection:
            assert connection.getpeername() == client.getsockname()


async def test_a_cancelled_operation_lets_go_of_the_descriptor_at_once(pair: Any) -> None:
    """Its number may be another socket's in the next moment."""
    loop = asyncio.get_running_loop()
    near, _ = pair
    new, peer = socket.socketpair()
    task = await begun(loop.sock_recv(near, 1))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    number = near.fileno()
    near.close()
    with renumbered(new, number) as again, peer:
        task = await begun(loop.sock_recv(again, 10))
        peer.send(b"data")
        assert await task == b"data"


async def test_a_cancelled_connect_lets_go_of_the_descriptor_at_once() -> None:
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0), backlog=1) as full:
        waiting = []
        while True:  # until the kernel takes no more for this listener
            waiting.append(tcp())
            task = asyncio.ensure_future(loop.sock_connect(waiting[-1], full.getsockname()))
            done, _ = await asyncio.wait([task], timeout=0.2)
            if not done:
                break
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        client = waiting[-1]
        number = client.fileno()
        assert not loop.remove_writer(number)
        near, far = socket.socketpair()
        client.close()
        with renumbered(near, number) as again, far:
            await loop.sock_sendall(again, b"data")
            assert far.recv(10) == b"data"
        for sock in waiting:
            sock.close()


async def test_a_cancelled_sendall_may_be_followed_by_another(pair: Any) -> None:
    loop = asyncio.get_running_loop()
    near, far = pair
    task = await begun(loop.sock_sendall(near, BIG))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    sent = len(await loop.sock_recv(far, len(BIG)))
    assert 0 < sent < len(BIG)
    while True:
        try:
            far.recv(1 << 20)
        except BlockingIOError:
            break
    await loop.sock_sendall(near, b"afterwards")
    assert await loop.sock_recv(far, 100) == b"afterwards"


async def test_reading_and_writing_wait_apart_from_one_another(pair: Any) -> None:
    loop = asyncio.get_running_loop()
    near, far = pair
    writing = await begun(loop.sock_sendall(near, BIG))
    reading = await begun(loop.sock_recv(near, 10))
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    received = 0
    while received < len(BIG):
        received += len(await loop.sock_recv(far, 1 << 20))
    await writing


@pytest.mark.loops("aws_io_async", "asyncio")  # uvloop watches a duplicate
async def test_a_socket_closed_under_a_waiting_task_does_no_harm_to_the_loop(pair: Any) -> None:
    loop = asyncio.get_running_loop()
    near, far = pair
    task = await begun(loop.sock_recv(near, 10))
    near.close()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    one, other = socket.socketpair()
    with one, other:
        one.setblocking(False)
        task = await begun(loop.sock_recv(one, 10))
        other.send(b"data")
        assert await task == b"data"
    far.close()


# Misuse


async def calls(loop: Any, sock: Any) -> Any:
    """One of each, to be awaited one after the other."""
    yield loop.sock_recv(sock, 1)
    yield loop.sock_recv_into(sock, bytearray(1))
    yield loop.sock_recvfrom(sock, 1)
    yield loop.sock_recvfrom_into(sock, bytearray(1))
    yield loop.sock_sendall(sock, b"x")
    yield loop.sock_sendto(sock, b"x", ("127.0.0.1", 1))
    yield loop.sock_connect(sock, ("127.0.0.1", 1))
    yield loop.sock_accept(sock)


@pytest.mark.loops("aws_io_async", "asyncio")
async def test_closed_sockets_are_refused() -> None:
    sock = tcp()
    sock.close()
    async for call in calls(asyncio.get_running_loop(), sock):
        with pytest.raises((OSError, ValueError)):
            await call


@pytest.mark.loops("aws_io_async", "asyncio")
async def test_blocking_sockets_are_refused_in_debug_mode() -> None:
    loop = asyncio.get_running_loop()
    loop.set_debug(True)
    with socket.socket() as sock:
        async for call in calls(loop, sock):
            with pytest.raises(ValueError, match="must be non-blocking"):
                await call


@pytest.mark.loops("aws_io_async", "asyncio")  # uvloop does not ask who owns a descriptor
async def test_a_transports_socket_is_refused() -> None:
    loop = asyncio.get_running_loop()
    near, far = socket.socketpair()
    with far:
        transport, _ = await loop.create_connection(asyncio.Protocol, sock=near)
        with pytest.raises(RuntimeError, match="is used by transport"):
            await loop.sock_recv(near, 1)
        transport.close()
        await asyncio.sleep(0)
