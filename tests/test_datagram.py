"""Datagram endpoints: UDP over IPv4 and IPv6, and Unix."""

import asyncio
import errno
import gc
import socket
import sys
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.recorders import DatagramRecorder

LOCAL = "127.0.0.1"


@asynccontextmanager
async def endpoint(
    *args: Any, factory: Any = DatagramRecorder, **options: Any
) -> AsyncIterator[Any]:
    """The protocol of a datagram endpoint."""
    transport, protocol = await asyncio.get_running_loop().create_datagram_endpoint(
        factory, *args, **options
    )
    try:
        yield protocol
    finally:
        if "lost" not in protocol.events:
            transport.abort()
        await protocol.has("lost")
        await asyncio.sleep(0)


def name(protocol: Any) -> Any:
    return protocol.transport.get_extra_info("sockname")


@pytest.mark.parametrize("host", [LOCAL, "::1", "localhost"])
async def test_a_conversation(host: str) -> None:
    family = socket.AF_INET6 if host == "::1" else socket.AF_INET
    async with endpoint((host, 0), family=family) as server:
        address = name(server)
        async with endpoint(remote_addr=(host, address[1]), family=family) as client:
            assert client.transport.get_extra_info("peername") == address
            assert client.transport.get_protocol() is client
            client.transport.sendto(b"ping")
            await server.has("datagram")
            ((data, source),) = server.datagrams
            assert (data, source) == (b"ping", name(client))
            server.transport.sendto(b"pong", source)
            await client.has("datagram")
            assert client.datagrams == [(b"pong", address)]
        assert client.events == ["made", "datagram", "lost"]
        assert client.lost_with is None


@pytest.mark.loops("aws_io_async", "asyncio")  # uvloop has no Unix datagrams
@pytest.mark.parametrize("abstract", [False, True])
async def test_unix_datagrams(tmp_path: Path, abstract: bool) -> None:
    if abstract and sys.platform != "linux":
        pytest.skip("abstract names are Linux'")
    prefix = f"\0{tmp_path}" if abstract else str(tmp_path)
    one, other = f"{prefix}/one", f"{prefix}/other"
    async with (
        endpoint(one, family=socket.AF_UNIX) as server,
        endpoint(other, one, family=socket.AF_UNIX) as client,
    ):
        big = bytes(100_000)
        client.transport.sendto(big)
        await server.has("datagram")
        data, source = server.datagrams[0]
        assert data == big
        server.transport.sendto(b"pong", source)
        await client.has("datagram")
        assert client.datagrams[0][0] == b"pong"
    if not abstract:  # what a dead endpoint has left behind is replaced
        async with endpoint(one, family=socket.AF_UNIX):
            pass


async def test_big_datagrams_are_whole() -> None:
    async with endpoint((LOCAL, 0)) as server, endpoint((LOCAL, 0)) as client:
        biggest = bytes(range(256)) * 255
        client.transport.sendto(biggest, name(server))
        await server.has("datagram")
        assert server.datagrams[0][0] == biggest
        client.transport.sendto(bytes(70_000), name(server))
        await client.has("error")
        assert client.errors[0].errno == errno.EMSGSIZE
        assert not client.transport.is_closing()


# asyncio before 3.13 drops empty ones, uvloop does.
@pytest.mark.loops("aws_io_async")
async def test_empty_datagrams_arrive() -> None:
    async with endpoint((LOCAL, 0)) as server, endpoint(remote_addr=name(server)) as client:
        client.transport.sendto(b"")
        await server.has("datagram")
        assert server.datagrams == [(b"", name(client))]


async def test_bytes_of_every_kind() -> None:
    async with endpoint((LOCAL, 0)) as server, endpoint(remote_addr=name(server)) as client:
        kinds: list[Any] = [b"abc", bytearray(b"abc"), memoryview(b"abc")]
        for data in kinds:
            client.transport.sendto(data)
        await server.has("datagram", 3)
        assert [data for data, _ in server.datagrams] == [b"abc"] * 3


async def test_an_unreachable_port_is_an_error_and_not_the_end() -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as closed:
        closed.bind((LOCAL, 0))
        address = closed.getsockname()
    async with endpoint(remote_addr=address) as client:
        for _ in range(2):
            client.errors.clear()
            client.transport.sendto(b"anybody there?")
            await client.until(lambda: bool(client.errors))
            assert isinstance(client.errors[0], ConnectionRefusedError)
        assert not client.transport.is_closing()
        async with endpoint(address) as server:
            client.transport.sendto(b"now?")
            await server.until(lambda: (b"now?", name(client)) in server.datagrams)


@pytest.mark.loops("aws_io_async", "asyncio")  # uvloop ends the endpoint
async def test_a_protocol_that_raises_is_reported_and_goes_on() -> None:
    loop = asyncio.get_running_loop()
    reported: list[Any] = []
    loop.set_exception_handler(lambda _, context: reported.append(context["exception"]))

    class Failing(DatagramRecorder):
        def datagram_received(self, data: bytes, addr: Any) -> None:
            super().datagram_received(data, addr)
            raise ValueError(data)

    async with (
        endpoint((LOCAL, 0), factory=Failing) as server,
        endpoint(remote_addr=name(server)) as client,
    ):
        for data in (b"one", b"two"):
            client.transport.sendto(data)
        await server.has("datagram", 2)
        await asyncio.sleep(0)
        assert [str(error) for error in reported] == ["b'one'", "b'two'"]
        assert not server.transport.is_closing()
    reported.clear()


@pytest.mark.loops("aws_io_async")
async def test_many_datagrams_do_not_keep_the_others_waiting() -> None:
    loop: Any = asyncio.get_running_loop()

    class Counting(DatagramRecorder):
        def datagram_received(self, data: bytes, addr: Any) -> None:
            turns.append(loop.statistics().turns)
            super().datagram_received(data, addr)

    turns: list[int] = []
    async with endpoint((LOCAL, 0), factory=Counting) as server:
        with socket.socket(type=socket.SOCK_DGRAM) as client:
            for _ in range(100):
                client.sendto(b"x", name(server))
        await server.has("datagram", 100)
    assert max(turns.count(turn) for turn in turns) <= 16


# Sending


async def test_addresses_are_checked() -> None:
    async with endpoint((LOCAL, 0)) as server, endpoint(remote_addr=name(server)) as client:
        client.transport.sendto(b"one", name(server))
        with pytest.raises(ValueError, match="Invalid address"):
            client.transport.sendto(b"two", (LOCAL, 1))
        with pytest.raises(TypeError):
            client.transport.sendto("text")
        await server.has("datagram")
        assert server.datagrams == [(b"one", name(client))]


@pytest.mark.loops("aws_io_async")  # the accounts of asyncio are wrong before 3.14
async def test_what_the_kernel_does_not_take_waits_and_is_counted(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(path)
        server.setblocking(False)
        async with endpoint(remote_addr=path, family=socket.AF_UNIX) as client:
            transport = client.transport
            transport.set_write_buffer_limits(high=10_000, low=0)
            assert transport.get_write_buffer_limits() == (0, 10_000)
            sent = 0
            data = bytearray(1000)
            while "pause" not in client.events:
                data[:4] = sent.to_bytes(4, "big")
                transport.sendto(data)
                sent += 1
            assert transport.get_write_buffer_size() == 10 * 1008
            for number in range(sent):
                received = await asyncio.get_running_loop().sock_recv(server, 2000)
                assert received == number.to_bytes(4, "big") + bytes(996)
            await client.has("resume")
            assert transport.get_write_buffer_size() == 0
        assert client.events == ["made", "pause", "resume", "lost"]


@pytest.mark.loops("aws_io_async", "asyncio")  # needs Unix datagrams
async def test_close_sends_what_waits_and_abort_drops_it(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(path)
        server.setblocking(False)
        for end in ("close", "abort"):
            async with endpoint(remote_addr=path, family=socket.AF_UNIX) as client:
                for _ in range(1000):
                    client.transport.sendto(b"x")
                assert client.transport.get_write_buffer_size()
                getattr(client.transport, end)()
                assert client.transport.is_closing()
                received = 0
                if end == "close":
                    while received < 1000:
                        received += len(await loop.sock_recv(server, 10))
                await client.has("lost")
        assert server.recv(10) == b"x"


@pytest.mark.loops("aws_io_async", "asyncio")  # uvloop raises
async def test_sending_after_the_end_is_dropped() -> None:
    async with endpoint((LOCAL, 0)) as server, endpoint(remote_addr=name(server)) as client:
        client.transport.close()
        client.transport.close()
        assert client.transport.is_closing()
        await client.has("lost")
        client.transport.sendto(b"too late")
    assert client.events == ["made", "lost"]


# Making one


async def test_a_socket_of_the_callers() -> None:
    sock = socket.socket(type=socket.SOCK_DGRAM)
    sock.bind((LOCAL, 0))
    address = sock.getsockname()
    async with endpoint(sock=sock) as server, endpoint(remote_addr=address) as client:
        client.transport.sendto(b"hello")
        await server.has("datagram")
    if "uvloop" not in type(asyncio.get_running_loop()).__module__:
        assert sock.fileno() == -1
    sock.close()


async def test_options() -> None:
    async with endpoint((LOCAL, 0), reuse_port=True, allow_broadcast=True) as one:
        sock = one.transport.get_extra_info("socket")
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST)
        async with endpoint(name(one), reuse_port=True) as other:
            assert name(other) == name(one)


@pytest.mark.loops("aws_io_async", "asyncio")  # uvloop connects it
async def test_broadcasting_to_a_remote_address_does_not_connect() -> None:
    async with (
        endpoint((LOCAL, 0)) as server,
        endpoint(remote_addr=name(server), allow_broadcast=True) as client,
    ):
        assert client.transport.get_extra_info("peername") is None
        client.transport.sendto(b"hello")
        await server.has("datagram")


async def test_both_addresses() -> None:
    async with (
        endpoint((LOCAL, 0)) as server,
        endpoint(("127.0.0.2", 0), name(server)) as client,
    ):
        assert name(client)[0] == "127.0.0.2"
        client.transport.sendto(b"hello")
        await server.has("datagram")
        assert server.datagrams[0][1][0] == "127.0.0.2"


@pytest.mark.loops("aws_io_async", "asyncio")  # uvloop keeps them for a while
async def test_a_closed_endpoint_is_gone_without_the_garbage_collector() -> None:
    gc.disable()
    try:
        async with endpoint((LOCAL, 0)) as protocol:
            left = weakref.ref(protocol), weakref.ref(protocol.transport)
        del protocol
        await asyncio.sleep(0)
        assert [ref() for ref in left] == [None, None]
    finally:
        gc.enable()


@pytest.mark.loops("aws_io_async")  # asyncio has a cycle here
async def test_an_error_is_gone_without_the_garbage_collector() -> None:
    class Word(str):
        """Unlike an OSError, it can be watched."""

    loop = asyncio.get_running_loop()
    address = Word("192.0.2.1")  # nobody's: the frames of a traceback have it
    left = weakref.ref(address)
    gc.disable()
    try:
        with suppress(OSError):
            await loop.create_datagram_endpoint(DatagramRecorder, (address, 0))
        del address
        assert left() is None
    finally:
        gc.enable()


@pytest.mark.loops("aws_io_async", "asyncio")  # uvloop does not keep the errno
async def test_an_address_in_use() -> None:
    async with endpoint((LOCAL, 0)) as one:
        with pytest.raises(OSError) as caught:
            async with endpoint(name(one)):
                pass
        assert caught.value.errno == errno.EADDRINUSE


@pytest.mark.loops("aws_io_async", "asyncio")  # uvloop has other words
async def test_misuse_is_refused_with_nothing_left_open() -> None:
    loop: Any = asyncio.get_running_loop()
    with socket.socket() as stream, socket.socket(type=socket.SOCK_DGRAM) as datagram:
        for error, text, options in (
            (ValueError, "unexpected address family", {}),
            (ValueError, "ocket was expected", {"sock": stream}),
            (ValueError, "local_addr=", {"sock": datagram, "local_addr": (LOCAL, 0)}),
            (ValueError, "reuse_port=True", {"sock": datagram, "reuse_port": True}),
            (TypeError, "2-tuple is expected", {"local_addr": LOCAL}),
            (TypeError, "2-tuple is expected", {"remote_addr": (LOCAL, 1, 2)}),
            (TypeError, "string is expected", {"family": socket.AF_UNIX, "local_addr": 5}),
            (
                ValueError,
                "can not get address information",
                {"local_addr": (LOCAL, 0), "remote_addr": ("::1", 1)},
            ),
        ):
            with pytest.raises(error, match=text):
                await loop.create_datagram_endpoint(DatagramRecorder, **options)


@pytest.mark.loops("aws_io_async")  # asyncio leaves the socket open
async def test_a_factory_that_raises() -> None:
    def fail() -> DatagramRecorder:
        raise ValueError("no protocol today")

    with pytest.raises(ValueError, match="no protocol today"):
        async with endpoint((LOCAL, 0), factory=fail):
            pass


@pytest.mark.loops("aws_io_async")  # asyncio looks from 3.12 on
async def test_a_transports_socket_is_refused() -> None:
    sock = socket.socket(type=socket.SOCK_DGRAM)
    sock.bind((LOCAL, 0))
    async with endpoint(sock=sock) as first:
        with pytest.raises(RuntimeError, match="is used by transport"):
            async with endpoint(sock=sock):
                pass
        with socket.socket(type=socket.SOCK_DGRAM) as client:
            client.sendto(b"still the first one's", sock.getsockname())
        await first.has("datagram")
