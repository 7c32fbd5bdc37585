"""Peers that ask for new keys all the time: each time costs us work, and an answer to be sent."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme

from aws_io_async._tls_engine import MAX_ANSWERS, TlsEngine
from aws_io_async._tls_state import TlsState
from aws_io_async.channel_stream import serve
from aws_io_async.errors import ErrorCode
from tests import tls_programs
from tests.bootstraps import closed, code_of, serving
from tests.faults._report import Fault, few
from tests.load.key_updates import Client, Records
from tests.serving import echo
from tests.streams import LOOPBACK, PATIENCE
from tests.tls_peers import HOST, server_of
from tests.tls_programs import s_client

files = tls_programs.files

KEY_UPDATES = Fault(
    "Load",
    "a flood of key updates (TLS 1.3) by a peer that reads no answers",
    "the connection is closed with a named error before the answers come to more than 64 KiB and"
    " what one read brings",
)
OFTEN = Fault(
    "Load",
    "key updates with every few KiB of data (TLS 1.3)",
    "all bytes arrive",
)
RENEGOTIATION = Fault(
    "Load",
    "a client that negotiates again (TLS 1.2)",
    "it is refused, by an alert; the server goes on",
)

FLOOD = 3 * MAX_ANSWERS // 27
"""Key updates whose answers come to three times what is allowed."""


@pytest.fixture
def client(ca: trustme.CA, tmp_path: Path) -> Client:
    return Client(ca, tmp_path)


def connected(client: Client, ca: trustme.CA) -> tuple[TlsEngine, Records]:
    """A server's engine that has shaken hands, and what the client writes with from now on."""
    engine = TlsEngine(server_of(ca).ssl_context, server_side=True)
    done = False
    while not (client.handshake() and done):
        engine.receive_data(client.outgoing.read())
        done = engine.handshake()
        client.incoming.write(engine.data_to_send())
    return engine, client.writer()


READERS: dict[str, Callable[[TlsEngine], object]] = {
    "read": lambda engine: engine.read(100),
    "read_available": lambda engine: engine.read_available(),
    "read_into": lambda engine: engine.read_into(bytearray(100)),
}


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
@pytest.mark.parametrize("with_data", [False, True])
def test_an_engine_bears_only_so_many(
    client: Client, ca: trustme.CA, read: Callable[[TlsEngine], object], with_data: bool
) -> None:
    engine, records = connected(client, ca)
    answers, step = 0, 100
    with pytest.raises(ssl.SSLError, match="new keys") as caught:
        for _ in range(FLOOD // step):
            engine.receive_data(records.key_updates(step))
            if with_data:
                engine.receive_data(records.data(b"!"))
            read(engine)
            answers += len(engine.data_to_send())
    assert MAX_ANSWERS - 27 * step <= answers <= MAX_ANSWERS + 2 * 27 * step
    for _ in range(2):
        with pytest.raises(ssl.SSLError) as again:
            read(engine)
        assert again.value is caught.value


def test_nor_while_it_shuts_down(client: Client, ca: trustme.CA) -> None:
    """OpenSSL answers even after it has said close_notify."""
    engine, records = connected(client, ca)
    engine.shutdown()
    for _ in range(FLOOD // 100):
        engine.receive_data(records.key_updates(100) + records.data(b"!"))
    assert engine.state is TlsState.FAILED
    assert "new keys" in str(engine.error)
    assert engine.unsent < MAX_ANSWERS + 100 * 27 + 100


def test_often_is_well_if_there_is_data_as_well(client: Client, ca: trustme.CA) -> None:
    engine, records = connected(client, ca)
    rounds = few(2000)
    for number in range(rounds):
        data = number.to_bytes(4) * 512
        engine.receive_data(records.key_update() + records.data(data))
        assert engine.read_available() == data
        engine.data_to_send()
    OFTEN.seen("all bytes", rounds)


def test_its_own_data_is_no_answer(client: Client, ca: trustme.CA) -> None:
    """What waits to be sent when something is read has nothing to do with what is read."""
    engine, records = connected(client, ca)
    for _ in range(100):
        engine.write(bytes(MAX_ANSWERS))
        engine.receive_data(records.data(b"!"))
        assert engine.read_available() == b"!"
        engine.write(bytes(MAX_ANSWERS))
    assert len(engine.data_to_send()) > 200 * MAX_ANSWERS


# Over sockets


async def flood(client: Client, port: int) -> None:
    """Shake hands, ask for new keys far too often, and read nothing until the other side ends."""
    reader, writer = await asyncio.open_connection(LOOPBACK, port, limit=1)
    while not client.handshake():
        writer.write(client.outgoing.read())
        client.incoming.write(await reader.read(1 << 16))
    writer.write(client.outgoing.read())
    try:
        async with asyncio.timeout(PATIENCE):
            writer.write(client.writer().key_updates(FLOOD))
            await writer.drain()
            while await reader.read(1 << 16):
                pass
    except ConnectionError:
        pass
    writer.close()
    try:
        await writer.wait_closed()
    except ConnectionError:
        pass


async def test_a_channel_ends(client: Client, ca: trustme.CA) -> None:
    async with serving(tls=server_of(ca)) as server:
        await flood(client, server.endpoint.port)
        error = await closed(await server.accepted())
        assert code_of(error) is ErrorCode.IO_TLS_ERROR_READ_FAILURE
        assert "new keys" in str(error)
    KEY_UPDATES.seen("closed with the error")


class Sink(asyncio.Protocol):
    def __init__(self) -> None:
        self.lost: asyncio.Future[BaseException | None] = asyncio.Future()

    def connection_lost(self, exc: BaseException | None) -> None:
        self.lost.set_result(exc)


@pytest.mark.loops("aws_io_async")
async def test_a_connection_of_the_loop_ends(client: Client, ca: trustme.CA) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert(HOST).configure_cert(context)
    sink = Sink()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: sink, LOOPBACK, 0, ssl=context)
    await flood(client, server.sockets[0].getsockname()[1])
    async with asyncio.timeout(PATIENCE):
        error = await sink.lost
    assert isinstance(error, ssl.SSLError)
    assert "new keys" in str(error)
    server.close()
    await server.wait_closed()
    KEY_UPDATES.seen("closed with the error")


@asynccontextmanager
async def loops_own_server(ca: trustme.CA) -> AsyncIterator[int]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert(HOST).configure_cert(context)
    server: Any = await asyncio.start_server(_echo, LOOPBACK, 0, ssl=context)
    yield server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()


async def _echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(1 << 16):
            writer.write(data)
    except ConnectionError:
        pass
    writer.close()


@asynccontextmanager
async def channels(ca: trustme.CA) -> AsyncIterator[int]:
    async with serve(echo, LOOPBACK, tls=server_of(ca)) as listener:
        yield listener.endpoint.port


@pytest.mark.loops("aws_io_async")
@pytest.mark.parametrize("server", [loops_own_server, channels])
async def test_a_client_that_negotiates_again_is_refused(
    server: Callable[[trustme.CA], Any], ca: trustme.CA, files: Path
) -> None:
    async with server(ca) as port:
        for _ in range(few(2)):
            async with s_client(files, port, "-tls1_2") as peer:
                await peer.said("Verify return code: 0")
                await peer.say(b"hello\n")
                await peer.said("hello")
                await peer.say(b"R\n")
                await peer.said("no renegotiation")
            RENEGOTIATION.seen("refused by an alert")
