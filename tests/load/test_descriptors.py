"""A server without descriptors for a while: one line in the log, no spinning, and back again."""

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trustme

from aws_io_async import channel_bootstrap
from aws_io_async.channel_stream import serve
from aws_io_async.event_loop import _server
from tests.faults._report import Fault, few
from tests.serving import echo
from tests.socket_tools import no_more_descriptors
from tests.streams import LOOPBACK, PATIENCE, tls_of, until

pytestmark = pytest.mark.loops("aws_io_async")

STARVED = Fault(
    "Load",
    "no descriptors for a while (EMFILE), with connections that wait",
    "one line in the log, no busy loop; all are served when there are descriptors again",
)

CLIENTS = few(5)

Address = tuple[str, int]


class Echo(asyncio.Protocol):
    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


@asynccontextmanager
async def loops_own_server() -> AsyncIterator[Address]:
    server = await asyncio.get_running_loop().create_server(Echo, LOOPBACK, 0)
    yield server.sockets[0].getsockname()
    server.close()
    await server.wait_closed()


@asynccontextmanager
async def channels() -> AsyncIterator[Address]:
    async with serve(echo, LOOPBACK) as listener:
        yield LOOPBACK, listener.endpoint.port


@pytest.fixture
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """The next try comes soon, so that there are many."""
    monkeypatch.setattr(_server, "ACCEPT_RETRY_DELAY", 0.05)
    monkeypatch.setattr(channel_bootstrap._server, "ACCEPT_RETRY_DELAY", 0.05)


@pytest.mark.parametrize("server", [loops_own_server, channels])
@pytest.mark.usefixtures("hurry")
async def test_starved_for_a_while(
    server: Callable[[], Any], caplog: pytest.LogCaptureFixture
) -> None:
    loop: Any = asyncio.get_running_loop()
    caplog.set_level(logging.WARNING)
    async with server() as address:
        watched = loop.statistics().watched
        for _ in range(2):
            clients = [socket.socket() for _ in range(CLIENTS)]
            with no_more_descriptors() as lift:
                for client in clients:
                    client.setblocking(False)
                    await loop.sock_connect(client, address)
                await until(lambda: len(caplog.records))
                before = loop.statistics().turns
                await asyncio.sleep(0.3)  # some six tries
                assert loop.statistics().turns - before < 40
                lift()
                async with asyncio.timeout(PATIENCE):
                    for client in clients:
                        with client:
                            await loop.sock_sendall(client, b"x")
                            assert await loop.sock_recv(client, 1) == b"x"
            (record,) = caplog.records
            assert "Too many open files" in caplog.text, record
            caplog.clear()
            await until(lambda: loop.statistics().watched == watched)  # what ends gives room again
            STARVED.seen("one line, then all were served", CLIENTS)


@pytest.mark.usefixtures("hurry")
async def test_closed_while_it_is_starved(ca: trustme.CA) -> None:
    with socket.socket() as client:
        client.setblocking(False)
        async with serve(echo, LOOPBACK, tls=tls_of(ca).server) as listener:
            with no_more_descriptors():
                address = (LOOPBACK, listener.endpoint.port)
                await asyncio.get_running_loop().sock_connect(client, address)
                await asyncio.sleep(0.12)
                await listener.aclose()
