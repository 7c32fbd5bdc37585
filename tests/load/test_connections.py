"""Many connections: open at a time, coming at once, and one that reads slowly among fast ones."""

import asyncio
import hashlib
import random
import resource
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from aws_io_async.channel_stream import ChannelStream, serve
from aws_io_async.event_loop._flow_control import HIGH_WATER
from tests.faults._report import Fault, few
from tests.serving import echo
from tests.streams import LOOPBACK, PATIENCE, until
from tests.tls_programs import running

pytestmark = pytest.mark.loops("aws_io_async")

MANY = Fault(
    "Load",
    "thousands of connections on one loop",
    "each gets its own bytes; when they have ended, nothing of them is left",
)
STORM = Fault(
    "Load",
    "a storm of connections, several times as many as the backlog",
    "all are served",
)
SLOW = Fault(
    "Load",
    "a reader that does not read, among fast ones",
    "its memory is bounded by the high-water mark; the others are not held up; it loses nothing",
)

CONNECTIONS = min(few(500), 10_000)

STORM_SIZE = min(few(25), 1000)
BACKLOG = STORM_SIZE // 4

Server = Callable[..., Any]


class Echo(asyncio.Protocol):
    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


@asynccontextmanager
async def loops_own_server(backlog: int = 1024) -> AsyncIterator[int]:
    loop = asyncio.get_running_loop()
    server: Any = await loop.create_server(Echo, LOOPBACK, 0, backlog=backlog)
    yield server.sockets[0].getsockname()[1]
    server.close()
    server.abort_clients()  # SYN cookies make connections up whose clients have long gone
    await server.wait_closed()


@asynccontextmanager
async def channels(backlog: int = 1024) -> AsyncIterator[int]:
    async with serve(echo, LOOPBACK) as listener:
        listener._socket._sock.listen(backlog)  # a smaller one than `serve` has
        yield listener.endpoint.port


@pytest.fixture
def descriptors() -> Any:
    """As many as the system allows; skips if that is too few."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= hard < CONNECTIONS + 200:
        pytest.skip(f"no more than {hard} open files are allowed")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("descriptors")
@pytest.mark.parametrize("server", [loops_own_server, channels])
async def test_all_are_answered(server: Server) -> None:
    loop: Any = asyncio.get_running_loop()
    async with server() as port:
        watched, tasks = loop.statistics().watched, len(asyncio.all_tasks())
        arguments = ["-m", "tests.load.clients", f"{port}", f"{CONNECTIONS}"]
        async with running(sys.executable, *arguments) as clients:
            await clients.said("connected")
            assert loop.statistics().watched >= watched + CONNECTIONS
            await clients.say(b"\n")
            await clients.said("answered")
            clients.say_no_more()
            assert await clients.ended() == 0
        await until(lambda: loop.statistics().watched == watched)
        await until(lambda: len(asyncio.all_tasks()) == tasks)
    MANY.seen("each got its own bytes; nothing was left", CONNECTIONS)


@pytest.mark.parametrize("server", [loops_own_server, channels])
async def test_a_storm(server: Server) -> None:
    """All knock before the loop has its next turn; the kernel turns most of them away at first."""
    loop = asyncio.get_running_loop()
    socks = [socket.socket() for _ in range(STORM_SIZE)]
    async with server(BACKLOG) as port, asyncio.timeout(PATIENCE):
        for sock in socks:
            sock.setblocking(False)
            sock.connect_ex((LOOPBACK, port))

        async def ask(number: int, sock: socket.socket) -> None:
            question = number.to_bytes(8)
            with sock:
                await loop.sock_sendall(sock, question)
                assert await loop.sock_recv(sock, 8) == question

        await asyncio.gather(*(ask(*each) for each in enumerate(socks)))
    STORM.seen("all were served", STORM_SIZE)


# Slow and fast readers

CHUNK = random.Random(1).randbytes(48 * 1024)
CHUNKS = 400  # 19 MB: more than the kernel takes for one that does not read
DIGEST = hashlib.sha256(CHUNK * CHUNKS).digest()


class Senders:
    """Send the same to everybody, as fast as each of them takes it."""

    def __init__(self) -> None:
        self.most_kept = 0
        self.ended = 0

    def note(self, transport: Any) -> None:
        self.most_kept = max(self.most_kept, transport.get_write_buffer_size())

    async def to_stream(self, stream: ChannelStream) -> None:
        for _ in range(CHUNKS):
            sending = asyncio.ensure_future(stream.send(CHUNK))
            await asyncio.sleep(0)
            handler: Any = next(stream.channel.slots()).handler
            self.note(handler.transport)
            await sending
        self.ended += 1

    async def to_writer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(CHUNKS):
            writer.write(CHUNK)
            self.note(writer.transport)
            await writer.drain()
        writer.close()
        await writer.wait_closed()
        self.ended += 1


@asynccontextmanager
async def sending_streams(senders: Senders) -> AsyncIterator[int]:
    async with serve(senders.to_stream, LOOPBACK) as listener:
        yield listener.endpoint.port
        await until(lambda: senders.ended == READERS + 1)


@asynccontextmanager
async def sending_writers(senders: Senders) -> AsyncIterator[int]:
    server = await asyncio.start_server(senders.to_writer, LOOPBACK, 0)
    yield server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()


READERS = 4


async def digest_of_all(sock: socket.socket) -> bytes:
    loop = asyncio.get_running_loop()
    digest, buffer = hashlib.sha256(), bytearray(1 << 18)
    while size := await loop.sock_recv_into(sock, buffer):
        digest.update(memoryview(buffer)[:size])
    return digest.digest()


@pytest.mark.parametrize("sending", [sending_streams, sending_writers])
async def test_a_slow_reader_among_fast_ones(sending: Callable[[Senders], Any]) -> None:
    loop = asyncio.get_running_loop()
    senders = Senders()
    async with sending(senders) as port, asyncio.timeout(PATIENCE):
        socks = [socket.socket() for _ in range(READERS + 1)]
        for sock in socks:
            sock.setblocking(False)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
            await loop.sock_connect(sock, (LOOPBACK, port))
        slow, *fast = socks
        assert await asyncio.gather(*map(digest_of_all, fast)) == [DIGEST] * READERS
        for sock in fast:
            sock.close()
        await until(lambda: senders.ended == READERS)  # and the slow one is still being sent to
        assert await digest_of_all(slow) == DIGEST
        slow.close()
    assert senders.most_kept <= HIGH_WATER + len(CHUNK)
    SLOW.seen("bounded, and all bytes arrived")
