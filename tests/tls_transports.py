"""TLS transports of the loops, and peers that do exactly as they are told."""

import asyncio
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trustme

from tests.connections import ended
from tests.recorders import BufferedRecorder, Recorder
from tests.socket_tools import tcp_pair

HOST = "transport.example"
BIG = bytes(range(256)) * 32 * 1024  # 8 MiB: more than fits between tcp_pair's sockets

Contexts = tuple[ssl.SSLContext, ssl.SSLContext]


class Far:
    """The other end of a connection: OpenSSL and a socket, and nothing that happens by itself."""

    def __init__(self, sock: socket.socket, context: ssl.SSLContext) -> None:
        self.sock = sock
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        server_side = context.protocol is ssl.PROTOCOL_TLS_SERVER
        self.ssl = context.wrap_bio(
            self.incoming, self.outgoing, server_side, None if server_side else HOST
        )
        self._loop = asyncio.get_running_loop()

    async def flush(self) -> None:
        await self._loop.sock_sendall(self.sock, self.outgoing.read())

    async def _until_done(self, step: Callable[[], Any]) -> Any:
        while True:
            try:
                result = step()
            except ssl.SSLWantReadError:
                await self.flush()
                data = await self._loop.sock_recv(self.sock, 1 << 16)
                if not data:
                    raise ConnectionResetError("the connection has ended") from None
                self.incoming.write(data)
            else:
                return result

    async def handshake(self, *, flush: bool = True) -> None:
        await self._until_done(self.ssl.do_handshake)
        if flush:
            await self.flush()

    async def send(self, data: bytes) -> None:
        self.ssl.write(data)
        await self.flush()

    async def recv(self) -> bytes:
        """Some plaintext; b"" for the other side's close_notify."""
        try:
            return bytes(await self._until_done(lambda: self.ssl.read(1 << 16)))
        except ssl.SSLZeroReturnError:  # if we have closed as well
            return b""

    async def exactly(self, size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            more = await self.recv()
            assert more, "the connection has ended"
            data += more
        return bytes(data)

    async def to_end(self) -> bytes:
        data = bytearray()
        while more := await self.recv():
            data += more
        return bytes(data)

    async def close_notify(self) -> None:
        try:
            self.ssl.unwrap()
        except ssl.SSLWantReadError:
            pass
        await self.flush()

    async def ciphertext_to_end(self) -> None:
        while await self._loop.sock_recv(self.sock, 1 << 16):
            pass

    def reset(self) -> None:
        """Close with RST instead of FIN."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()


def nonblocking_pair() -> tuple[socket.socket, socket.socket]:
    near, far = tcp_pair()
    near.setblocking(False)
    far.setblocking(False)
    return near, far


@pytest.fixture(scope="session")
def server_context(ca: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    ca.issue_cert(HOST, "127.0.0.1").configure_cert(context)
    return context


@pytest.fixture(scope="session")
def client_context(ca: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    ca.configure_trust(context)
    return context


@pytest.fixture(params=["client", "server"])
def contexts(
    request: pytest.FixtureRequest, client_context: ssl.SSLContext, server_context: ssl.SSLContext
) -> Contexts:
    """The context of the transport, and that of its peer."""
    pair = client_context, server_context
    return pair if request.param == "client" else pair[::-1]


def is_server(context: ssl.SSLContext) -> bool:
    return context.protocol is ssl.PROTOCOL_TLS_SERVER


def connecting(
    protocol: Any, sock: socket.socket, context: ssl.SSLContext, **options: Any
) -> "asyncio.Task[tuple[Any, Any]]":
    loop = asyncio.get_running_loop()
    if is_server(context):
        making = loop.connect_accepted_socket(lambda: protocol, sock, ssl=context, **options)
    else:
        making = loop.create_connection(
            lambda: protocol, sock=sock, ssl=context, server_hostname=HOST, **options
        )
    return asyncio.ensure_future(making)


@asynccontextmanager
async def connection(
    protocol: Any, contexts: Contexts, **options: Any
) -> AsyncIterator[tuple[Any, Far]]:
    """A transport with a protocol, and its peer; the handshake is done."""
    near, far_sock = nonblocking_pair()
    with far_sock:
        far = Far(far_sock, contexts[1])
        transport, _ = (
            await asyncio.gather(
                connecting(protocol, near, contexts[0], **options), far.handshake()
            )
        )[0]
        try:
            yield transport, far
        finally:
            await ended(transport, protocol)


@pytest.fixture
def reported() -> Iterator[list[dict[str, Any]]]:
    """What reaches the loop's exception handler; install it with `catch`."""
    contexts: list[dict[str, Any]] = []
    yield contexts
    contexts.clear()  # tracebacks and transports


def catch(reported: list[dict[str, Any]]) -> None:
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))


both_protocols = pytest.mark.parametrize("factory", [Recorder, BufferedRecorder])
