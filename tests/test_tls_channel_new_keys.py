"""TLS in a channel: what is written while TLS 1.2 negotiates again. OpenSSL asks for that."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trustme

from aws_io_async.errors import AwsIoError, ErrorCode
from aws_io_async.tls_context import TlsConnectionOptions
from tests import tls_channels, tls_programs
from tests.socket_tools import turns
from tests.tls_channels import PATIENCE, App, InMemory, code_of, in_memory, openssl_server
from tests.tls_peers import HOST, client_of
from tests.tls_programs import Program, s_server

nothing_left = tls_channels.nothing_left
files = tls_programs.files


class Relay:
    """Moves bytes between a channel in memory and a socket, when it is told to."""

    def __init__(self, it: InMemory, sock: socket.socket) -> None:
        self._wire = it.wire
        self._sock = sock
        self._loop = asyncio.get_running_loop()

    async def push(self) -> int:
        """What has been written goes to the peer; how much that was."""
        data = self._wire.take()
        await self._loop.sock_sendall(self._sock, data)
        return len(data)

    async def pull(self) -> None:
        """Something of the peer's comes."""
        async with asyncio.timeout(PATIENCE):
            await self._wire.feed(await self._loop.sock_recv(self._sock, 1 << 16))


@asynccontextmanager
async def negotiating_again(
    ca: trustme.CA, files: Path
) -> AsyncIterator[tuple[InMemory, Relay, Program]]:
    """A client whose server has just asked for new keys."""
    options = TlsConnectionOptions(client_of(ca), HOST)
    async with (
        s_server(files, "-tls1_2") as (server, port),
        in_memory(options, openssl_server(ca), App()) as it,
    ):
        with socket.socket() as sock:
            sock.setblocking(False)
            await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
            relay = Relay(it, sock)
            it.tls.start_negotiation()
            while not it.is_negotiated():
                await relay.push()
                await relay.pull()
            await relay.push()
            await server.say(b"r\n")
            await relay.pull()
            assert await relay.push() > 0  # a hello again
            yield it, relay, server


async def test_a_write_is_over_when_there_are_new_keys_and_it_has_left(
    ca: trustme.CA, files: Path
) -> None:
    async with negotiating_again(ca, files) as (it, relay, server):
        writes = [asyncio.create_task(it.app.write(b"%d\n" % number)) for number in range(3)]
        await turns()
        assert it.wire.take() == b""
        assert not any(write.done() for write in writes)
        while not all(write.done() for write in writes):
            await relay.pull()
            await turns()
            await relay.push()
        await asyncio.gather(*writes)
        await server.said(r"0\n1\n2\n")
        await it.app.write(b"and later\n")
        await relay.push()
        await server.said("and later")
        assert it.channel.error is None


@pytest.mark.parametrize("ending", ["shutdown", "immediate shutdown", "removal", "fault"])
async def test_a_write_that_new_keys_come_too_late_for(
    ca: trustme.CA, files: Path, ending: str
) -> None:
    async with negotiating_again(ca, files) as (it, _, _server):
        write = asyncio.create_task(it.app.write(b"lost\n"))
        await turns()
        match ending:
            case "fault":
                it.wire.feed_now(bytes(100))
            case "removal":
                assert it.tls.slot is not None
                it.tls.slot.remove()
            case _:
                it.channel.shutdown(immediately=ending == "immediate shutdown")
        with pytest.raises(AwsIoError) as caught:
            async with asyncio.timeout(PATIENCE):
                await write
        fault = ending == "fault"
        assert code_of(caught.value) is (
            ErrorCode.IO_TLS_ERROR_READ_FAILURE if fault else ErrorCode.IO_TLS_ERROR_WRITE_FAILURE
        )
