"""`create_connection` and `connect_accepted_socket`."""

import asyncio
import gc
import os
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

LOCAL = "127.0.0.1"
STREAM = (socket.SOCK_STREAM, socket.IPPROTO_TCP, "")


class Client(asyncio.Protocol):
    def __init__(self) -> None:
        self.made = False
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: Any) -> None:
        self.made = True

    def connection_lost(self, exc: BaseException | None) -> None:
        if not self.lost.done():
            self.lost.set_result(None)


def open_fds() -> int:
    gc.collect()
    return len(os.listdir("/dev/fd"))


@asynccontextmanager
async def listening(*addresses: tuple[str, int]) -> AsyncIterator[list[socket.socket]]:
    """Listening sockets; connections wait in their backlogs."""
    socks: list[socket.socket] = []
    try:
        for host, port in addresses:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            socks.append(socket.create_server((host, port), family=family))
        yield socks
    finally:
        for sock in socks:
            sock.close()


async def end(transport: Any, protocol: Client) -> None:
    transport.close()
    await protocol.lost
    await asyncio.sleep(0)


def answer(loop: Any, addresses: list[Any]) -> None:
    """Let every name stand for `addresses`."""

    async def getaddrinfo(host: Any, port: Any, **options: Any) -> Any:
        return [
            (socket.AF_INET6 if ":" in address[0] else socket.AF_INET, *STREAM, address)
            for address in addresses
        ]

    loop.getaddrinfo = getaddrinfo


async def free_port() -> int:
    async with listening((LOCAL, 0)) as (sock,):
        return int(sock.getsockname()[1])


# Connecting


@pytest.mark.parametrize("host", [LOCAL, "::1", "localhost"])
async def test_connecting_to_an_address_or_a_name(host: str) -> None:
    loop = asyncio.get_running_loop()
    async with listening((LOCAL if host == "localhost" else host, 0)) as (server,):
        transport, protocol = await loop.create_connection(Client, host, server.getsockname()[1])
        assert protocol.made
        assert transport.get_extra_info("peername") == server.getsockname()
        await end(transport, protocol)


async def test_the_port_may_be_text() -> None:
    loop: Any = asyncio.get_running_loop()
    async with listening((LOCAL, 0)) as (server,):
        transport, protocol = await loop.create_connection(
            Client, LOCAL, str(server.getsockname()[1])
        )
        await end(transport, protocol)


async def test_a_local_address() -> None:
    loop = asyncio.get_running_loop()
    async with listening((LOCAL, 0)) as (server,):
        transport, protocol = await loop.create_connection(
            Client, *server.getsockname(), local_addr=("127.0.0.3", 0)
        )
        assert transport.get_extra_info("sockname")[0] == "127.0.0.3"
        await end(transport, protocol)


@pytest.mark.loops("aws_io_async", "asyncio")  # uvloop does not name it
async def test_a_local_address_that_cannot_be_had_is_named() -> None:
    loop = asyncio.get_running_loop()
    async with listening((LOCAL, 0)) as (server,):
        address = server.getsockname()
        with pytest.raises(OSError, match=r"192\.0\.2\.1"):
            await loop.create_connection(Client, *address, local_addr=("192.0.2.1", 0))
        with pytest.raises(OSError, match=r"[Nn]o matching local address|nodename|family"):
            await loop.create_connection(Client, *address, local_addr=("::1", 0))


@pytest.mark.loops("aws_io_async", "asyncio")  # uvloop does not name it
async def test_a_refused_connection_names_its_address() -> None:
    loop = asyncio.get_running_loop()
    port = await free_port()
    with pytest.raises(ConnectionRefusedError, match=f"'{LOCAL}', {port}"):
        await loop.create_connection(Client, LOCAL, port)


@pytest.mark.loops("aws_io_async", "asyncio")  # uvloop's getaddrinfo cannot be replaced
async def test_the_next_address_is_tried() -> None:
    loop: Any = asyncio.get_running_loop()
    async with listening((LOCAL, 0)) as (server,):
        port = server.getsockname()[1]
        answer(loop, [("127.0.0.2", port), ("127.0.0.3", port), (LOCAL, port)])
        transport, protocol = await loop.create_connection(Client, "name.test", port)
        assert transport.get_extra_info("peername") == (LOCAL, port)
        await end(transport, protocol)


@pytest.mark.loops("aws_io_async", "asyncio")  # uvloop tells the last one only
async def test_when_every_address_fails_the_error_tells_them_all() -> None:
    loop: Any = asyncio.get_running_loop()
    port = await free_port()
    answer(loop, [("127.0.0.2", port), (LOCAL, port)])
    with pytest.raises(OSError, match="Multiple exceptions") as caught:
        await loop.create_connection(Client, "name.test", port)
    assert "127.0.0.2" in str(caught.value)
    assert LOCAL in str(caught.value)
    answer(loop, [(LOCAL, port), (LOCAL, port)])
    with pytest.raises(ConnectionRefusedError):  # all say the same
        await loop.create_connection(Client, "name.test", port)


# asyncio has all_errors from 3.12.
@pytest.mark.loops("aws_io_async")
@pytest.mark.parametrize("delay", [None, 0.01])
@pytest.mark.parametrize("count", [1, 3])
async def test_all_errors_come_as_a_group(count: int, delay: float | None) -> None:
    loop: Any = asyncio.get_running_loop()
    port = await free_port()
    answer(loop, [(f"127.0.0.{number}", port) for number in range(1, count + 1)])
    with pytest.raises(ExceptionGroup, match="create_connection failed") as caught:
        await loop.create_connection(
            Client, "name.test", port, all_errors=True, happy_eyeballs_delay=delay
        )
    assert [type(error) for error in caught.value.exceptions] == [ConnectionRefusedError] * count
    for number, error in enumerate(caught.value.exceptions, 1):
        assert f"127.0.0.{number}" in str(error)


@pytest.mark.loops("aws_io_async", "asyncio")  # as above
async def test_a_name_without_addresses() -> None:
    loop: Any = asyncio.get_running_loop()
    answer(loop, [])
    for options in ({}, {"happy_eyeballs_delay": 0.1}, {"local_addr": ("name.test", 0)}):
        with pytest.raises(OSError, match="returned empty list"):
            await loop.create_connection(Client, "name.test", 1, **options)


# Happy eyeballs, which uvloop does not have


happy = pytest.mark.loops("aws_io_async", "asyncio")


class Slow:
    """Connects to some addresses never, and says which were tried."""

    def __init__(self, loop: Any, *hosts: str) -> None:
        self._connect = loop.sock_connect
        self._hosts = hosts
        self.tried: list[str] = []
        self.stuck: list[socket.socket] = []
        loop.sock_connect = self

    async def __call__(self, sock: socket.socket, address: Any) -> None:
        self.tried.append(address[0])
        if address[0] in self._hosts:
            self.stuck.append(sock)
            await asyncio.get_running_loop().create_future()
        await self._connect(sock, address)


@happy
async def test_a_slow_address_is_overtaken_and_its_socket_closed() -> None:
    loop: Any = asyncio.get_running_loop()
    async with listening((LOCAL, 0)) as (server,):
        port = server.getsockname()[1]
        answer(loop, [("127.0.0.2", port), ("127.0.0.3", port), (LOCAL, port)])
        slow = Slow(loop, "127.0.0.2")
        transport, protocol = await loop.create_connection(
            Client, "name.test", port, happy_eyeballs_delay=0.01
        )
        assert transport.get_extra_info("peername") == (LOCAL, port)
        assert slow.tried == ["127.0.0.2", "127.0.0.3", LOCAL]
        assert [sock.fileno() for sock in slow.stuck] == [-1]
        await end(transport, protocol)


@happy
async def test_a_delay_alternates_the_families() -> None:
    loop: Any = asyncio.get_running_loop()
    port = await free_port()
    addresses = [("::1", port), ("::1", port), (LOCAL, port), ("127.0.0.2", port)]
    answer(loop, addresses)
    for options, expected in (
        ({"happy_eyeballs_delay": 1}, ["::1", LOCAL, "::1", "127.0.0.2"]),
        ({"happy_eyeballs_delay": 1, "interleave": 0}, ["::1", "::1", LOCAL, "127.0.0.2"]),
        ({"happy_eyeballs_delay": 1, "interleave": 2}, ["::1", "::1", LOCAL, "127.0.0.2"]),
        ({"interleave": 1}, ["::1", LOCAL, "::1", "127.0.0.2"]),
        ({}, ["::1", "::1", LOCAL, "127.0.0.2"]),
    ):
        slow = Slow(loop)
        with pytest.raises(OSError, match="Multiple exceptions"):
            await loop.create_connection(Client, "name.test", port, **options)
        assert slow.tried == expected
        del loop.sock_connect


@pytest.mark.loops("aws_io_async")  # asyncio does not wait for its attempts to end
async def test_a_race_that_is_timed_out_leaves_nothing_open() -> None:
    loop: Any = asyncio.get_running_loop()
    answer(loop, [("127.0.0.2", 1), ("127.0.0.3", 1)])
    slow = Slow(loop, "127.0.0.2", "127.0.0.3")
    before = open_fds()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await loop.create_connection(Client, "name.test", 1, happy_eyeballs_delay=0.01)
    assert slow.tried == ["127.0.0.2", "127.0.0.3"]
    assert all(sock.fileno() == -1 for sock in slow.stuck)
    assert open_fds() == before


# Cancellation


@pytest.mark.loops("aws_io_async", "asyncio")  # uvloop closes some of them much later
async def test_cancelled_after_any_number_of_steps_nothing_stays_open() -> None:
    """A connect is cancelled at each place where it waits, until it is through."""
    loop = asyncio.get_running_loop()
    async with listening((LOCAL, 0)) as (server,):
        await loop.getaddrinfo("localhost", 1)  # its threads are there from now on
        before = open_fds()
        for host in (LOCAL, "localhost"):
            for steps in range(40):
                task = asyncio.ensure_future(
                    loop.create_connection(Client, host, server.getsockname()[1])
                )
                for _ in range(steps):
                    await asyncio.sleep(0)
                task.cancel()
                try:
                    transport, protocol = await task
                except asyncio.CancelledError:
                    pass
                else:
                    await end(transport, protocol)
                for _ in range(5):
                    await asyncio.sleep(0)
                task = None  # type: ignore[assignment]  # its frame may hold a socket
                server.setblocking(False)
                try:
                    while True:
                        server.accept()[0].close()
                except BlockingIOError:
                    pass
        for _ in range(5):
            await asyncio.sleep(0.01)
        assert open_fds() == before


@pytest.mark.loops("aws_io_async", "asyncio")  # released uvloops close the fd behind its owner
async def test_a_cancelled_connect_with_a_socket_closes_it_once() -> None:
    loop = asyncio.get_running_loop()
    near, far = socket.socketpair()
    number = near.fileno()
    task = asyncio.ensure_future(loop.create_connection(Client, sock=near))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    for _ in range(3):
        await asyncio.sleep(0)
    assert near.fileno() == -1
    with far:
        os.dup2(far.fileno(), number)  # whoever gets the number next
        near.close()
        gc.collect()
        for _ in range(3):
            await asyncio.sleep(0)
        os.fstat(number)
        os.close(number)


# Sockets of the caller's own, and misuse


async def test_a_connected_socket() -> None:
    loop = asyncio.get_running_loop()
    near, far = socket.socketpair()
    with far:
        transport, protocol = await loop.create_connection(Client, sock=near)
        transport.write(b"hello")
        assert far.recv(100) == b"hello"
        await end(transport, protocol)


async def test_misuse_is_refused_with_nothing_left_open() -> None:
    loop: Any = asyncio.get_running_loop()
    context = ssl.create_default_context()
    with socket.socket() as stream, socket.socket(type=socket.SOCK_DGRAM) as datagram:
        before = open_fds()
        for text, options in (
            ("host and port was not specified and no sock", {}),
            ("can not be specified at the same time", {"host": LOCAL, "port": 1, "sock": stream}),
            ("Stream Socket was expected", {"sock": datagram}),
            ("You must set server_hostname", {"sock": stream, "ssl": context}),
            ("You must set server_hostname", {"host": "", "port": 1, "ssl": context}),
            ("server_hostname is only meaningful", {"port": 1, "server_hostname": "name"}),
            ("only meaningful with ssl", {"port": 1, "ssl_handshake_timeout": 1.0}),
            ("only meaningful with ssl", {"port": 1, "ssl_shutdown_timeout": 1.0}),
        ):
            with pytest.raises(ValueError, match=text):
                await loop.create_connection(Client, **options)
        assert open_fds() == before


@pytest.mark.loops("aws_io_async", "asyncio")  # uvloop accepts one
async def test_an_ssl_socket_is_refused() -> None:
    loop: Any = asyncio.get_running_loop()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with context.wrap_socket(socket.socket(), server_side=True) as sock:
        with pytest.raises(TypeError, match="SSLSocket"):
            await loop.create_connection(Client, sock=sock)
        with pytest.raises(TypeError, match="SSLSocket"):
            await loop.connect_accepted_socket(Client, sock)


@pytest.mark.loops("aws_io_async")  # asyncio leaves the connected socket open
async def test_a_factory_that_raises_closes_the_socket() -> None:
    loop: Any = asyncio.get_running_loop()

    def fail() -> Client:
        raise ValueError("no protocol today")

    async with listening((LOCAL, 0)) as (server,):
        before = open_fds()
        with pytest.raises(ValueError, match="no protocol today"):
            await loop.create_connection(fail, *server.getsockname())
        assert open_fds() == before


# Accepted sockets


async def test_an_accepted_socket_becomes_a_transport() -> None:
    loop = asyncio.get_running_loop()
    async with listening((LOCAL, 0)) as (server,):
        with socket.create_connection(server.getsockname()) as client:
            accepted, address = server.accept()
            transport, protocol = await loop.connect_accepted_socket(Client, accepted)
            assert protocol.made
            assert transport.get_extra_info("peername") == address
            transport.write(b"hello")
            assert client.recv(100) == b"hello"
            await end(transport, protocol)


async def test_misuse_of_accepted_sockets() -> None:
    loop = asyncio.get_running_loop()
    with socket.socket() as stream, socket.socket(type=socket.SOCK_DGRAM) as datagram:
        with pytest.raises(ValueError, match="Stream Socket was expected"):
            await loop.connect_accepted_socket(Client, datagram)
        with pytest.raises(ValueError, match="only meaningful with ssl"):
            await loop.connect_accepted_socket(Client, stream, ssl_handshake_timeout=1.0)
        with pytest.raises(ValueError, match="only meaningful with ssl"):
            await loop.connect_accepted_socket(Client, stream, ssl_shutdown_timeout=1.0)
