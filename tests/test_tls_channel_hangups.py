"""TLS in a channel: peers that leave, or stumble, at any moment; and attempts that are given up."""

import asyncio
import random
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trustme

from aws_io_async.errors import AwsIoError, ErrorCode, is_tls_error
from aws_io_async.statistics import TlsNegotiationStatus
from aws_io_async.tls_context import TlsConnectionOptions, TlsContext
from tests import tls_channels
from tests.socket_tools import turns
from tests.tls_channels import (
    SIDES,
    App,
    InMemory,
    code_of,
    connecting,
    error_of,
    in_memory,
    listening,
    negotiated,
    openssl_client,
    openssl_server,
    sides,
)
from tests.tls_peers import HOST, TLS12, TLS13, Peer, client_of, server_of

nothing_left = tls_channels.nothing_left

Pair = tuple[TlsContext, ssl.SSLContext]


@pytest.fixture(params=SIDES, ids=lambda each: f"{each[0]}-{each[1].name}")
def pair(request: pytest.FixtureRequest, ca: trustme.CA) -> Pair:
    """Our handler's context and the peer's, on each side and of each version."""
    return sides(ca, *request.param)


class Attempt:
    """A negotiation in memory, and what its callback was told."""

    def __init__(self, it: InMemory, results: list[BaseException | None]) -> None:
        self.it = it
        self.results = results
        self.came = 0  # bytes of the peer's

    async def go_on(self, limit: int | None = None, flipped: int | None = None) -> None:
        """Negotiate until there is nothing more to say, or the peer has said so many bytes.

        `flipped` is the number of a byte of the peer's that comes with a wrong bit.
        """
        it = self.it
        it.tls.start_negotiation()
        while True:
            said = it.wire.take()
            it.peer.incoming.write(said)
            try:
                it.peer.handshake()
            except ssl.SSLError:
                pass  # it has been told that we object, or objects itself
            answer = bytearray(it.peer.outgoing.read())
            if flipped is not None and 0 <= flipped - self.came < len(answer):
                answer[flipped - self.came] ^= 1
            allowed = len(answer) if limit is None else min(len(answer), limit - self.came)
            self.came += allowed
            await it.wire.feed(bytes(answer[:allowed]))
            if it.is_negotiated() or not (said or answer) or allowed < len(answer):
                return

    async def error(self) -> BaseException | None:
        """The channel's error, which is what the callback was told, once."""
        error = await self.it.closed()
        assert self.results == [error]
        assert self.it.status() is TlsNegotiationStatus.FAILURE
        return error


@asynccontextmanager
async def attempt(pair: Pair) -> AsyncIterator[Attempt]:
    results: list[BaseException | None] = []
    options = TlsConnectionOptions(
        pair[0], HOST, on_negotiation_result=lambda *told: results.append(told[2])
    )
    async with in_memory(options, pair[1], App()) as it:
        yield Attempt(it, results)


async def length_of_negotiation(pair: Pair) -> int:
    """How many bytes of the peer's it takes."""
    async with attempt(pair) as ours:
        await ours.go_on()
        assert ours.results == [None]
        return ours.came


# In memory


async def test_the_end_comes_at_any_byte_of_the_negotiation(pair: Pair) -> None:
    length = await length_of_negotiation(pair)
    for limit in {0, 1, 4, 5, 6, *range(0, length - 20, 61)}:
        async with attempt(pair) as ours:
            await ours.go_on(limit)
            ours.it.wire.end()
            error = await ours.error()
            assert code_of(error) is ErrorCode.IO_TLS_CLOSED_ABORT, limit
            assert isinstance(error, ssl.SSLEOFError)


async def test_any_byte_of_the_negotiation_comes_damaged(pair: Pair) -> None:
    length = await length_of_negotiation(pair)
    outcomes: set[str] = set()
    for position in {0, 1, 2, 3, 4, 5, 6, 9, 10, *range(11, length - 20, 47)}:
        async with attempt(pair) as ours:
            await ours.go_on(flipped=position)
            if ours.it.is_negotiated():  # the versions of records are for show
                outcomes.add("success")
                continue
            ours.it.wire.end()
            error = await ours.error()
            assert isinstance(error, AwsIoError), position
            assert is_tls_error(error.code), position
            outcomes.add(error.code.name)
    assert "IO_TLS_ERROR_NEGOTIATION_FAILURE" in outcomes


@pytest.mark.parametrize("seed", range(20))
async def test_noise_instead_of_a_peer(pair: Pair, seed: int) -> None:
    chooser = random.Random(seed)
    noise = chooser.randbytes(300)
    if seed % 2:  # a record that looks like one
        noise = b"\x16\x03\x03" + len(noise).to_bytes(2) + noise
    async with attempt(pair) as ours:
        ours.it.tls.start_negotiation()
        await ours.it.wire.feed(noise)
        ours.it.wire.end()
        error = await ours.error()
        assert isinstance(error, AwsIoError)
        assert is_tls_error(error.code)


async def test_the_end_comes_at_any_byte_of_a_record(pair: Pair) -> None:
    for missing in (1, 2, 10, 20, 100):
        async with negotiated(*pair, App()) as it:
            good, cut = it.peer.write(b"all of it"), it.peer.write(b"?" * 100)
            await it.wire.feed(good + cut[:-missing])
            it.wire.end()
            assert code_of(await it.closed()) is ErrorCode.IO_TLS_CLOSED_ABORT
            assert it.app.data == b"all of it"


# Over sockets

WAYS_TO_LEAVE = ["closes", "resets"]


def leave(sock: socket.socket, how: str) -> None:
    if how == "resets":
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, bytes([1, 0, 0, 0, 0, 0, 0, 0]))
    sock.close()


@pytest.mark.parametrize("how", WAYS_TO_LEAVE)
@pytest.mark.parametrize("share", [0, 0.1, 0.5, 0.99])
async def test_a_client_leaves_in_its_hello(ca: trustme.CA, how: str, share: float) -> None:
    peer = Peer(openssl_client(ca))
    peer.handshake()
    hello = peer.outgoing.read()
    async with listening(server_of(ca)) as listener:
        with socket.socket() as sock:
            sock.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.sock_connect(sock, ("127.0.0.1", listener.port))
            await loop.sock_sendall(sock, hello[: int(len(hello) * share)])
            leave(sock, how)
        assert code_of(await listener.failed()) is ErrorCode.IO_SOCKET_CLOSED
        assert len(listener.failures) == 1
        assert listener.channels == []


@pytest.mark.parametrize("how", WAYS_TO_LEAVE)
@pytest.mark.parametrize("share", [0, 0.1, 0.5, 0.99])
async def test_a_server_leaves_in_its_answer(ca: trustme.CA, how: str, share: float) -> None:
    loop = asyncio.get_running_loop()
    peer = Peer(openssl_server(ca))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)

        async def serve() -> None:
            sock, _ = await loop.sock_accept(listener)
            with sock:
                sock.setblocking(False)
                peer.incoming.write(await loop.sock_recv(sock, 1 << 16))
                peer.handshake()
                answer = peer.outgoing.read()
                await loop.sock_sendall(sock, answer[: int(len(answer) * share)])
                leave(sock, how)

        serving = asyncio.create_task(serve())
        error = await error_of(connecting(listener.getsockname()[1], client_of(ca)).__aenter__())
        assert error.code is ErrorCode.IO_SOCKET_CLOSED
        await serving


async def test_clients_that_say_nothing_are_in_nobodys_way(ca: trustme.CA) -> None:
    silent = 40
    app = App()
    async with listening(server_of(ca), lambda: [app]) as listener:
        loop = asyncio.get_running_loop()
        socks = [socket.socket() for _ in range(silent)]
        try:
            for sock in socks:
                sock.setblocking(False)
                await loop.sock_connect(sock, ("127.0.0.1", listener.port))
            ours = App()
            async with connecting(listener, client_of(ca), lambda: [ours]):
                await ours.write(b"through")
                assert await app.received(7) == b"through"
            await listener.listener.aclose()
            codes = [code_of(failure) for failure in listener.failures]
            assert codes == [ErrorCode.ERROR_IO_OPERATION_CANCELLED] * silent
            for sock in socks:
                assert await loop.sock_recv(sock, 1) == b""
        finally:
            for sock in socks:
                sock.close()


# Given up


@pytest.mark.parametrize("version", [TLS12, TLS13])
async def test_an_attempt_can_be_cancelled_at_any_moment(
    ca: trustme.CA, version: ssl.TLSVersion
) -> None:
    context = TlsContext.from_ssl_context(openssl_server(ca, version), server_side=True)
    results: list[Any] = []
    client = TlsConnectionOptions(
        client_of(ca), HOST, on_negotiation_result=lambda *told: results.append(told[2])
    )
    outcomes = ""
    async with listening(context, lambda: [App()]) as listener:
        count = 0
        while not outcomes.endswith("done done done "):  # after so many turns of the loop
            connection = connecting(listener, client, lambda: [App()])
            opening = asyncio.create_task(connection.__aenter__())
            await turns(count)
            opening.cancel()
            try:
                await opening
                await connection.__aexit__(None, None, None)
                outcomes += "done "
            except asyncio.CancelledError:
                outcomes += "cancelled "
            assert len(results) <= 1
            results.clear()
            count += 1 + count // 20
    assert outcomes.startswith("cancelled ")


async def test_a_listener_that_closes_gives_up_who_is_negotiating(ca: trustme.CA) -> None:
    created = asyncio.Event()
    async with listening(
        server_of(ca), on_incoming_channel_creation=lambda _channel: created.set()
    ) as listener:
        with socket.socket() as sock:
            sock.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.sock_connect(sock, ("127.0.0.1", listener.port))
            await created.wait()
            await listener.listener.aclose()
            assert await loop.sock_recv(sock, 1) == b""
        assert code_of(listener.failures[0]) is ErrorCode.ERROR_IO_OPERATION_CANCELLED
