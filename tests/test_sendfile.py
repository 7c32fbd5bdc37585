"""`loop.sendfile` and `loop.sock_sendfile`."""

import asyncio
import io
import os
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme

from aws_io_async import EventLoop
from tests import connections
from tests.connections import read_to_end
from tests.recorders import Recorder

# uvloop has no sendfile.
pytestmark = pytest.mark.loops("aws_io_async", "asyncio")

CONTENT = bytes(range(256)) * 16 * 1024  # 4 MiB


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Any]:
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    with path.open("r+b", buffering=0) as opened:
        yield opened


@asynccontextmanager
async def connection() -> AsyncIterator[tuple[Any, Recorder, socket.socket]]:
    protocol = Recorder()
    async with connections.connection(protocol, connections.unix_pair) as (transport, far):
        yield transport, protocol, far


async def begun(coroutine: Any) -> "asyncio.Task[Any]":
    """A task that has filled the socket's buffer, or waits for the file."""
    task: asyncio.Task[Any] = asyncio.ensure_future(coroutine)
    for _ in range(3):
        await asyncio.sleep(0)
    assert not task.done()
    return task


ranges = pytest.mark.parametrize(
    ("offset", "count"),
    [
        (0, None),
        (1000, None),
        (0, 1000),
        (1000, 2_000_000),
        (0, len(CONTENT)),
        (len(CONTENT) - 10, 1000),
        (len(CONTENT), None),
        (2 * len(CONTENT), None),
    ],
)


def part(offset: int, count: int | None) -> bytes:
    return CONTENT[offset:] if count is None else CONTENT[offset : offset + count]


# Through a transport


@ranges
@pytest.mark.parametrize("native", [True, False])
async def test_the_right_part_is_sent_and_the_position_is_after_it(
    file: Any, offset: int, count: int | None, native: bool
) -> None:
    loop = asyncio.get_running_loop()
    source = file if native else io.BytesIO(CONTENT)
    expected = part(offset, count)
    async with connection() as (transport, _, far):
        sending = asyncio.ensure_future(loop.sendfile(transport, source, offset, count))
        sending.add_done_callback(lambda _: transport.close())
        assert await read_to_end(far) == expected
        assert await sending == len(expected)
        if expected or isinstance(loop, EventLoop):  # asyncio from Python 3.14 on
            assert source.tell() == offset + len(expected)
    if not native:
        await loop.shutdown_default_executor()


async def test_writes_before_and_after_keep_their_order(file: Any) -> None:
    loop = asyncio.get_running_loop()
    async with connection() as (transport, _, far):

        async def send() -> None:
            for _ in range(2):
                transport.write(b"<" + CONTENT)
                assert await loop.sendfile(transport, file) == len(CONTENT)
                transport.write(b">")
            transport.close()

        sending = asyncio.ensure_future(send())
        assert await read_to_end(far) == 2 * (b"<" + CONTENT + CONTENT + b">")
        await sending


async def test_reading_rests_meanwhile(file: Any) -> None:
    loop = asyncio.get_running_loop()
    async with connection() as (transport, protocol, far):
        sending = await begun(loop.sendfile(transport, file))
        far.send(b"early")
        received = 0
        while received < len(CONTENT):
            assert protocol.data == b""
            received += len(await loop.sock_recv(far, 1 << 16))
        await sending
        await protocol.until(lambda: protocol.data == b"early")


async def test_a_reader_that_was_paused_stays_so(file: Any) -> None:
    loop = asyncio.get_running_loop()
    async with connection() as (transport, _, far):
        transport.pause_reading()
        sending = asyncio.ensure_future(loop.sendfile(transport, file, 0, 1000))
        assert len(await loop.sock_recv(far, 1000)) == 1000
        await sending
        assert not transport.is_reading()


@pytest.mark.parametrize("method", ["write", "writelines"])
async def test_writing_meanwhile_is_refused(file: Any, method: str) -> None:
    loop = asyncio.get_running_loop()
    async with connection() as (transport, _, far):
        sending = await begun(loop.sendfile(transport, file))
        with pytest.raises(RuntimeError, match="sendfile is in progress"):
            getattr(transport, method)(b"x" if method == "write" else [b"x"])
        sending.add_done_callback(lambda _: transport.close())
        assert await read_to_end(far) == CONTENT
        await sending


@pytest.mark.loops("aws_io_async")  # asyncio shuts the socket down in the middle of the file
async def test_write_eof_meanwhile_waits_for_the_end_of_the_file(file: Any) -> None:
    loop = asyncio.get_running_loop()
    async with connection() as (transport, _, far):
        sending = await begun(loop.sendfile(transport, file))
        transport.write_eof()
        assert await read_to_end(far) == CONTENT
        assert await sending == len(CONTENT)
        with pytest.raises(RuntimeError, match=r"write_eof"):
            await loop.sendfile(transport, file)


@pytest.mark.loops("aws_io_async")  # asyncio forgets the transport
async def test_a_second_file_at_once_is_refused_and_the_first_arrives(file: Any) -> None:
    loop = asyncio.get_running_loop()
    async with connection() as (transport, _, far):
        sending = await begun(loop.sendfile(transport, file))
        with pytest.raises(RuntimeError):
            await loop.sendfile(transport, file)
        with pytest.raises(RuntimeError, match="sendfile is in progress"):
            transport.write(b"x")
        sending.add_done_callback(lambda _: transport.close())
        assert await read_to_end(far) == CONTENT
        await sending


async def test_an_empty_file(tmp_path: Path) -> None:
    loop = asyncio.get_running_loop()
    (tmp_path / "empty").touch()
    async with connection() as (transport, _, far):
        with (tmp_path / "empty").open("rb") as empty:
            assert await loop.sendfile(transport, empty) == 0
        transport.write(b"still open")
        assert await loop.sock_recv(far, 100) == b"still open"


@pytest.mark.loops("aws_io_async")  # asyncio reads the size at the beginning
async def test_a_file_that_grows_is_sent_to_its_new_end(file: Any) -> None:
    loop = asyncio.get_running_loop()
    async with connection() as (transport, _, far):
        sending = await begun(loop.sendfile(transport, file))
        os.pwrite(file.fileno(), b"more", len(CONTENT))
        sending.add_done_callback(lambda _: transport.close())
        assert await read_to_end(far) == CONTENT + b"more"
        assert await sending == len(CONTENT) + 4


async def test_without_the_fallback() -> None:
    loop = asyncio.get_running_loop()
    async with connection() as (transport, _, far):
        with pytest.raises(asyncio.SendfileNotAvailableError):
            await loop.sendfile(transport, io.BytesIO(CONTENT), fallback=False)
        with pytest.raises(asyncio.SendfileNotAvailableError):
            await loop.sock_sendfile(far, io.BytesIO(CONTENT), fallback=False)
        transport.write(b"still open")
        assert await loop.sock_recv(far, 100) == b"still open"


async def test_the_peer_goes_in_the_middle(file: Any) -> None:
    loop = asyncio.get_running_loop()
    for source in (file, io.BytesIO(CONTENT)):
        async with connection() as (transport, protocol, far):
            sending = await begun(loop.sendfile(transport, source))
            await loop.sock_recv(far, 1 << 16)
            far.close()
            with pytest.raises(ConnectionError):
                await sending
            transport.abort()
            await protocol.until(lambda: "lost" in protocol.events)
            assert protocol.events.count("lost") == 1
    await loop.shutdown_default_executor()


@pytest.mark.loops("aws_io_async")  # asyncio waits for ever
@pytest.mark.parametrize("end", ["close", "abort"])
async def test_the_transport_ends_in_the_middle(file: Any, end: str) -> None:
    loop = asyncio.get_running_loop()
    async with connection() as (transport, _, far):
        sending = await begun(loop.sendfile(transport, file))
        getattr(transport, end)()
        with pytest.raises(ConnectionError):
            await sending
        assert 0 < len(await read_to_end(far)) < len(CONTENT)


@pytest.mark.loops("aws_io_async")  # asyncio leaves the position behind
async def test_cancelled_the_connection_stays_usable(file: Any) -> None:
    loop = asyncio.get_running_loop()
    async with connection() as (transport, protocol, far):
        sending = await begun(loop.sendfile(transport, file))
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        sent = file.tell()
        assert 0 < sent < len(CONTENT)
        far.send(b"answer")
        await protocol.until(lambda: protocol.data == b"answer")
        transport.write(b"the end")
        transport.close()
        assert await read_to_end(far) == CONTENT[:sent] + b"the end"


@pytest.mark.loops("aws_io_async")  # asyncio forgets about write_eof
async def test_cancelled_before_its_turn_it_cuts_nothing_off(file: Any) -> None:
    loop = asyncio.get_running_loop()
    async with connection() as (transport, protocol, far):
        transport.write(CONTENT)
        sending = await begun(loop.sendfile(transport, file))
        transport.write_eof()
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        assert await read_to_end(far) == CONTENT
        assert "lost" not in protocol.events


async def test_the_fallback_keeps_the_protocols_accounts() -> None:
    loop = asyncio.get_running_loop()
    async with connection() as (transport, protocol, far):
        sending = asyncio.ensure_future(loop.sendfile(transport, io.BytesIO(CONTENT)))
        received = 0
        while received < len(CONTENT):
            received += len(await loop.sock_recv(far, 1 << 20))
        await sending
        assert transport.get_protocol() is protocol
        assert protocol.events.count("pause") == protocol.events.count("resume")
        far.send(b"answer")
        await protocol.until(lambda: protocol.data == b"answer")
    await loop.shutdown_default_executor()


async def test_misuse_is_refused(file: Any, tmp_path: Path) -> None:
    loop: Any = asyncio.get_running_loop()
    (tmp_path / "text").write_text("text")
    async with connection() as (transport, protocol, far):
        with (tmp_path / "text").open() as text:
            for send, target in ((loop.sendfile, transport), (loop.sock_sendfile, far)):
                for error, arguments in (
                    (ValueError, (text,)),
                    (ValueError, (file, -1)),
                    (TypeError, (file, "1")),
                    (ValueError, (file, 0, 0)),
                    (ValueError, (file, 0, -1)),
                    (TypeError, (file, 0, "1")),
                ):
                    with pytest.raises(error):
                        await send(target, *arguments)
        transport.close()
        with pytest.raises(RuntimeError, match="is closing"):
            await loop.sendfile(transport, file)
        await protocol.until(lambda: "lost" in protocol.events)


async def test_transports_that_cannot(file: Any) -> None:
    loop: Any = asyncio.get_running_loop()
    udp, _ = await loop.create_datagram_endpoint(
        asyncio.DatagramProtocol, local_addr=("127.0.0.1", 0)
    )
    with pytest.raises(RuntimeError, match="sendfile is not supported"):
        await loop.sendfile(udp, file)
    udp.close()
    await asyncio.sleep(0)


async def test_over_tls(file: Any, ca: trustme.CA) -> None:
    loop = asyncio.get_running_loop()
    server_context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    ca.issue_cert("localhost").configure_cert(server_context)
    client_context = ssl.create_default_context()
    ca.configure_trust(client_context)
    near, far = socket.socketpair()
    (server, sender), (client, receiver) = await asyncio.gather(
        loop.connect_accepted_socket(Recorder, far, ssl=server_context),
        loop.create_connection(
            Recorder, sock=near, ssl=client_context, server_hostname="localhost"
        ),
    )
    with pytest.raises(RuntimeError, match="fallback is disabled"):
        await loop.sendfile(server, file, fallback=False)
    server.write(b"<")
    assert await loop.sendfile(server, file, 10, 3_000_000) == 3_000_000
    server.write(b">")
    server.close()
    await receiver.until(lambda: "lost" in receiver.events)
    assert receiver.data == b"<" + CONTENT[10:3_000_010] + b">"
    client.close()
    await sender.until(lambda: "lost" in sender.events)
    await loop.shutdown_default_executor()
    await asyncio.sleep(0)


# Through a socket of the caller's


@ranges
@pytest.mark.parametrize("native", [True, False])
async def test_a_socket_gets_the_right_part(
    file: Any, offset: int, count: int | None, native: bool
) -> None:
    loop = asyncio.get_running_loop()
    source = file if native else io.BytesIO(CONTENT)
    expected = part(offset, count)
    near, far = socket.socketpair()
    near.setblocking(False)
    far.setblocking(False)
    with near, far:
        sending = asyncio.ensure_future(loop.sock_sendfile(near, source, offset, count))
        sending.add_done_callback(lambda _: near.close())
        assert await read_to_end(far) == expected
        assert await sending == len(expected)
    if not native:
        await loop.shutdown_default_executor()


@pytest.mark.loops("aws_io_async")  # as above
async def test_a_cancelled_one_lets_go_of_the_socket(file: Any) -> None:
    loop = asyncio.get_running_loop()
    near, far = socket.socketpair()
    near.setblocking(False)
    with near, far:
        sending = await begun(loop.sock_sendfile(near, file))
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        assert not loop.remove_writer(near)
        sent = file.tell()
        near.close()
        assert far.recv(1) == CONTENT[:1]
        assert 0 < sent < len(CONTENT)


async def test_sockets_that_cannot(file: Any) -> None:
    loop = asyncio.get_running_loop()
    with socket.socket(type=socket.SOCK_DGRAM) as datagram:
        datagram.setblocking(False)
        with pytest.raises(ValueError, match="SOCK_STREAM"):
            await loop.sock_sendfile(datagram, file)
    loop.set_debug(True)
    with socket.socket() as blocking, pytest.raises(ValueError, match="must be non-blocking"):
        await loop.sock_sendfile(blocking, file)
