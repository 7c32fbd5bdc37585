"""TLS on the loops: each transport against a peer that does exactly as it is told."""

import array
import asyncio
import gc
import hashlib
import random
import socket
import ssl
import struct
import tracemalloc
import warnings
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
import trustme

import aws_io_async
from aws_io_async.event_loop._tls_transport import TlsProtocol
from tests.recorders import BufferedRecorder, Recorder

HOST = "transport.example"
BIG = bytes(range(256)) * 32 * 1024  # 8 MiB: more than any socket buffer holds

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


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        near = socket.create_connection(listener.getsockname())
        far = listener.accept()[0]
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
    near, far_sock = tcp_pair()
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
            if "lost" not in protocol.events:
                transport.abort()
            await protocol.has("lost")
            await asyncio.sleep(0)


@pytest.fixture
def reported() -> Iterator[list[dict[str, Any]]]:
    """What reaches the loop's exception handler; install it with `catch`."""
    contexts: list[dict[str, Any]] = []
    yield contexts
    contexts.clear()  # tracebacks and transports


def catch(reported: list[dict[str, Any]]) -> None:
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))


both_protocols = pytest.mark.parametrize("factory", [Recorder, BufferedRecorder])


# The life of a connection


@both_protocols
async def test_made_then_data_then_close_notify_then_lost(factory: Any, contexts: Contexts) -> None:
    protocol = factory()
    async with connection(protocol, contexts) as (transport, far):
        assert protocol.transport is transport
        assert transport.get_protocol() is protocol
        assert not transport.is_closing()
        await far.send(b"one")
        assert await protocol.received(3) == b"one"
        await far.send(b"two")
        assert await protocol.received(6) == b"onetwo"
        await far.close_notify()
        assert await far.to_end() == b""
        await protocol.has("lost")
        assert transport.is_closing()
        assert protocol.lost_with is None
        transport.close()
        transport.abort()
    assert protocol.events == ["made", "data", "data", "eof", "lost"]


# uvloop does not report it: https://github.com/MagicStack/uvloop/blob/v0.21.0/uvloop/sslproto.pyx
@pytest.mark.loops("aws_io_async", "asyncio")
@both_protocols
async def test_an_end_without_close_notify(factory: Any, contexts: Contexts) -> None:
    protocol = factory()
    async with connection(protocol, contexts) as (_, far):
        await far.send(b"last")
        far.sock.shutdown(socket.SHUT_WR)
        await protocol.has("lost")
    assert protocol.events == ["made", "data", "eof", "lost"]
    assert protocol.lost_with is None
    assert protocol.data == b"last"


async def test_a_connection_that_is_reset(contexts: Contexts) -> None:
    protocol = Recorder()
    async with connection(protocol, contexts) as (_, far):
        far.reset()
        await protocol.has("lost")
    assert protocol.events == ["made", "lost"]
    assert isinstance(protocol.lost_with, ConnectionResetError)


@both_protocols
async def test_data_that_come_with_the_end_of_the_handshake(
    factory: Any, client_context: ssl.SSLContext, server_context: ssl.SSLContext
) -> None:
    protocol = factory()
    near, far_sock = tcp_pair()
    with far_sock:
        far = Far(far_sock, client_context)
        task = connecting(protocol, near, server_context)
        await far.handshake(flush=False)
        await far.send(b"at once")
        transport, _ = await task
        assert await protocol.received(7) == b"at once"
        assert protocol.events[0] == "made"
        transport.abort()
        await protocol.has("lost")


@both_protocols
async def test_megabytes_both_ways_at_once(
    factory: Any, client_context: ssl.SSLContext, server_context: ssl.SSLContext
) -> None:
    dice = random.Random(7)
    total = 6 * 1024 * 1024

    class Exchange(factory):  # type: ignore[misc]  # the class is a parameter
        def __init__(self) -> None:
            super().__init__()
            self.sent, self.sent_digest = 0, hashlib.sha256()
            self.may_write = asyncio.Event()
            self.may_write.set()

        def pause_writing(self) -> None:
            self.may_write.clear()

        def resume_writing(self) -> None:
            self.may_write.set()

        async def send(self) -> None:
            while self.sent < total:
                await self.may_write.wait()
                pieces = [
                    dice.randbytes(dice.choice((0, 1, 1000, 70_000)))
                    for _ in range(dice.randint(1, 9))
                ]
                if len(pieces) == 1:
                    self.transport.write(bytearray(pieces[0]))
                else:
                    self.transport.writelines(pieces)
                for piece in pieces:
                    self.sent_digest.update(piece)
                    self.sent += len(piece)

    near, far = tcp_pair()
    ends = [Exchange(), Exchange()]
    await asyncio.gather(
        connecting(ends[0], near, client_context), connecting(ends[1], far, server_context)
    )
    await asyncio.gather(*(end.send() for end in ends))
    for end, other in (ends, ends[::-1]):
        await end.received(other.sent)
        assert len(end.data) == other.sent
        assert hashlib.sha256(end.data).digest() == other.sent_digest.digest()
    ends[0].transport.close()
    for end in ends:
        await end.has("lost")
        assert end.lost_with is None
    await asyncio.sleep(0)


async def test_streams_over_a_unix_socket(
    tmp_path_factory: pytest.TempPathFactory,
    client_context: ssl.SSLContext,
    server_context: ssl.SSLContext,
) -> None:
    path = str(tmp_path_factory.mktemp("u") / "s")

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
        writer.close()

    server = await asyncio.start_unix_server(echo, path, ssl=server_context)
    reader, writer = await asyncio.open_unix_connection(
        path, ssl=client_context, server_hostname=HOST
    )
    sending = asyncio.ensure_future(asyncio.to_thread(len, BIG))
    await sending
    writer.write(BIG)
    assert await reader.readexactly(len(BIG)) == BIG
    writer.close()
    await writer.wait_closed()
    server.close()
    await server.wait_closed()
    await asyncio.get_running_loop().shutdown_default_executor()


async def test_what_can_be_asked_about_a_connection(contexts: Contexts) -> None:
    protocol = Recorder()
    async with connection(protocol, contexts) as (transport, far):
        ask = transport.get_extra_info
        assert ask("sslcontext") is contexts[0]
        assert ask("ssl_object").version() == "TLSv1.3"
        assert ask("cipher") == far.ssl.cipher()
        assert ask("compression") is None
        assert ask("peername") == far.sock.getsockname()
        assert ask("sockname") == far.sock.getpeername()
        assert ask("socket").fileno() > 0
        assert ask("weather") is None
        assert ask("weather", "fine") == "fine"
        if is_server(contexts[0]):
            assert ask("peercert") is None
        else:
            assert ("DNS", HOST) in ask("peercert")["subjectAltName"]


# Reading


@both_protocols
async def test_what_came_at_once_is_delivered_at_once(factory: Any, contexts: Contexts) -> None:
    protocol = factory()
    async with connection(protocol, contexts) as (_, far):
        for word in (b"one ", b"two ", b"three"):
            far.ssl.write(word)
        await far.flush()
        assert await protocol.received(13) == b"one two three"
        assert protocol.events == ["made", "data"]


async def test_a_small_buffer_gets_everything_in_turn(contexts: Contexts) -> None:
    protocol = BufferedRecorder(7)
    async with connection(protocol, contexts) as (_, far):
        sent = random.Random(1).randbytes(10_000)
        await far.send(sent)
        assert await protocol.received(len(sent)) == sent
        await far.close_notify()
        await protocol.has("eof")
        await protocol.has("lost")


@pytest.mark.parametrize("factories", [(Recorder, BufferedRecorder), (BufferedRecorder, Recorder)])
async def test_changing_the_protocol(factories: Any, contexts: Contexts) -> None:
    first, second = (factory() for factory in factories)
    async with connection(first, contexts) as (transport, far):
        await far.send(b"for the first")
        await first.received(13)
        transport.set_protocol(second)
        assert transport.get_protocol() is second
        await far.send(b"for the second")
        assert await second.received(14) == b"for the second"
        assert first.data == b"for the first"
        transport.set_protocol(first)


@pytest.mark.loops("aws_io_async")  # asyncio writes past the first record into a copy of it
async def test_a_buffer_can_be_a_bytearray(contexts: Contexts) -> None:
    protocol = BufferedRecorder()
    buffer: Any = bytearray(100_000)
    protocol.get_buffer = lambda sizehint: buffer  # type: ignore[method-assign]  # for this test
    protocol.buffer = memoryview(buffer)
    async with connection(protocol, contexts) as (_, far):
        sent = random.Random(1).randbytes(60_000)
        await far.send(sent)
        assert await protocol.received(len(sent)) == sent


async def test_changing_the_protocol_in_the_middle_of_a_message(contexts: Contexts) -> None:
    class Handing(BufferedRecorder):
        def buffer_updated(self, nbytes: int) -> None:
            super().buffer_updated(nbytes)
            self.transport.set_protocol(rest)

    first, rest = Handing(10), Recorder()
    async with connection(first, contexts) as (transport, far):
        await far.send(b"0123456789abcdef")
        assert await rest.received(6) == b"abcdef"
        assert first.data == b"0123456789"
        transport.set_protocol(first)


@pytest.mark.loops("aws_io_async")  # the others' clients do not finish the handshake then
@both_protocols
async def test_pausing_holds_from_connection_made_on(factory: Any, contexts: Contexts) -> None:
    class Paused(factory):  # type: ignore[misc]  # the class is a parameter
        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            transport.pause_reading()
            transport.pause_reading()

    protocol = Paused()
    async with connection(protocol, contexts) as (transport, far):
        assert not transport.is_reading()
        sending = asyncio.ensure_future(far.send(BIG))
        done, _ = await asyncio.wait([sending], timeout=0.2)
        assert not done  # the peer feels it
        assert protocol.events == ["made"]
        transport.resume_reading()
        transport.resume_reading()
        assert transport.is_reading()
        assert await protocol.received(len(BIG)) == BIG
        await sending


@pytest.mark.loops("aws_io_async")  # the others report the end regardless
@both_protocols
async def test_pausing_in_a_delivery_holds_back_the_rest(factory: Any, contexts: Contexts) -> None:
    class Careful(factory):  # type: ignore[misc]  # the class is a parameter
        def happened(self, what: str) -> None:
            super().happened(what)
            if what == "data":
                self.transport.pause_reading()

    protocol = Careful()
    async with connection(protocol, contexts) as (transport, far):
        far.ssl.write(b"the last")
        await far.close_notify()
        await protocol.has("data")
        await asyncio.wait([asyncio.ensure_future(protocol.has("eof"))], timeout=0.1)
        assert protocol.events == ["made", "data"]
        transport.resume_reading()
        await protocol.has("lost")
    assert protocol.events == ["made", "data", "eof", "lost"]


@pytest.mark.loops("aws_io_async")  # on the others such data may be delivered regardless
async def test_what_was_held_back_is_delivered_before_the_end(contexts: Contexts) -> None:
    class Careful(BufferedRecorder):
        def buffer_updated(self, nbytes: int) -> None:
            super().buffer_updated(nbytes)
            self.transport.pause_reading()

    protocol = Careful(4)
    async with connection(protocol, contexts) as (transport, far):
        far.ssl.write(b"01234567")
        await far.close_notify()
        far.sock.shutdown(socket.SHUT_WR)
        assert await protocol.received(4) == b"0123"
        transport.resume_reading()
        assert await protocol.received(8) == b"01234567"
        assert "eof" not in protocol.events
        transport.resume_reading()
        await protocol.has("lost")
    assert protocol.events == ["made", "data", "data", "eof", "lost"]


# Writing


async def test_every_kind_of_bytes_can_be_written(contexts: Contexts) -> None:
    protocol = Recorder()
    async with connection(protocol, contexts) as (transport, far):
        buffer = bytearray(b"two ")
        transport.write(b"one ")
        transport.write(buffer)
        buffer[:] = b"xxxx"
        transport.write(b"")
        transport.write(memoryview(b"three "))
        transport.writelines([b"four ", bytearray(b"five "), memoryview(b"six")])
        transport.writelines([])
        transport.close()
        assert await far.to_end() == b"one two three four five six"
        await far.close_notify()


@pytest.mark.loops("aws_io_async")  # asyncio and uvloop take an item for a byte
async def test_buffers_of_other_things_than_bytes_are_written_whole(contexts: Contexts) -> None:
    protocol = Recorder()
    numbers = memoryview(array.array("I", range(1000)))
    async with connection(protocol, contexts) as (transport, far):
        transport.write(numbers)
        transport.write(memoryview(b"a-b-c-")[::2])
        transport.close()
        assert await far.to_end() == numbers.tobytes() + b"abc"
        await far.close_notify()


async def test_only_bytes_can_be_written(contexts: Contexts) -> None:
    protocol = Recorder()
    async with connection(protocol, contexts) as (transport, _):
        with pytest.raises(TypeError):
            transport.write("text")
        with pytest.raises(TypeError):
            transport.write(None)


async def test_there_is_no_half_close(contexts: Contexts) -> None:
    protocol = Recorder()
    async with connection(protocol, contexts) as (transport, _):
        assert not transport.can_write_eof()
        with pytest.raises(NotImplementedError):
            transport.write_eof()


async def test_what_is_written_in_callbacks_arrives(contexts: Contexts) -> None:
    class Talkative(Recorder):
        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            transport.write(b"hello ")

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            for piece in (b"you ", b"said ", data):
                self.transport.write(piece)

        def eof_received(self) -> None:
            super().eof_received()
            self.transport.write(b", bye")

    protocol = Talkative()
    async with connection(protocol, contexts) as (_, far):
        assert await far.exactly(6) == b"hello "
        await far.send(b"this")
        assert await far.exactly(13) == b"you said this"
        await far.send(b"that")
        assert await far.exactly(13) == b"you said that"
        await far.close_notify()
        assert await far.to_end() == b", bye"
        await protocol.has("lost")


@pytest.mark.loops("aws_io_async")  # the others do not count what the transport below holds
async def test_the_writer_is_paused_and_resumed(contexts: Contexts) -> None:
    protocol = Recorder()
    async with connection(protocol, contexts) as (transport, far):
        assert transport.get_write_buffer_size() == 0
        transport.write(BIG)
        assert protocol.events == ["made", "pause"]
        assert 0 < transport.get_write_buffer_size() < 1.1 * len(BIG)
        assert await far.exactly(len(BIG)) == BIG
        await protocol.has("resume")
        assert protocol.events == ["made", "pause", "resume"]
        assert transport.get_write_buffer_size() <= transport.get_write_buffer_limits()[0]


async def test_a_writer_that_writes_until_paused_is_paused(contexts: Contexts) -> None:
    class Greedy(Recorder):
        written = 0

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            while "pause" not in self.events:
                self.transport.write(bytes(10_000))
                self.written += 10_000

    protocol = Greedy()
    async with connection(protocol, contexts) as (_, far):
        await far.send(b"go")
        await protocol.has("pause")
        assert await far.exactly(protocol.written) == bytes(protocol.written)
        await protocol.has("resume")


@pytest.mark.loops("aws_io_async")  # the others do not count what the transport below holds
async def test_write_buffer_limits(contexts: Contexts) -> None:
    protocol = Recorder()
    async with connection(protocol, contexts) as (transport, far):
        transport.set_write_buffer_limits(high=4 << 20, low=1 << 20)
        assert transport.get_write_buffer_limits() == (1 << 20, 4 << 20)
        transport.write(BIG)
        assert protocol.events == ["made", "pause"]
        await far.exactly(len(BIG))
        await protocol.has("resume")
        transport.set_write_buffer_limits(high=400)
        assert transport.get_write_buffer_limits() == (100, 400)
        with pytest.raises(ValueError, match="must be >="):
            transport.set_write_buffer_limits(high=1, low=2)


@pytest.mark.loops("aws_io_async", "asyncio")  # asyncio pauses at the mark, not above: same here
async def test_marks_of_zero(contexts: Contexts) -> None:
    protocol = Recorder()
    async with connection(protocol, contexts) as (transport, far):
        transport.set_write_buffer_limits(high=0)
        transport.write(BIG)
        await protocol.has("pause")
        await far.exactly(len(BIG))
        await protocol.has("resume")
        assert transport.get_write_buffer_size() == 0


# Closing


async def test_close_sends_what_was_written_first(contexts: Contexts) -> None:
    protocol = Recorder()
    async with connection(protocol, contexts) as (transport, far):
        transport.write(BIG)
        transport.close()
        assert transport.is_closing()
        assert await far.to_end() == BIG
        await far.close_notify()
        await protocol.has("lost")
        assert protocol.lost_with is None
    assert "eof" not in protocol.events or protocol.events[-1] == "lost"


@pytest.mark.loops("aws_io_async")  # the others go on to deliver, or fail
@both_protocols
async def test_nothing_is_delivered_after_close(factory: Any, contexts: Contexts) -> None:
    protocol = factory()
    async with connection(protocol, contexts) as (transport, far):
        await far.send(b"before")
        await protocol.received(6)
        transport.write(b"answer")
        transport.close()
        assert not transport.is_reading()
        await far.send(BIG)  # is taken in, and dropped
        assert await far.to_end() == b"answer"
        await far.close_notify()
        await protocol.has("lost")
        assert protocol.lost_with is None
    assert protocol.events == ["made", "data", "lost"]


@pytest.mark.loops("aws_io_async")  # asyncio goes on to deliver, uvloop looks at the flood in full
async def test_close_in_a_delivery_ends_it(contexts: Contexts) -> None:
    class Closing(BufferedRecorder):
        def buffer_updated(self, nbytes: int) -> None:
            super().buffer_updated(nbytes)
            self.transport.write(b"enough")
            self.transport.close()

    protocol = Closing(10)
    async with connection(protocol, contexts) as (_, far):
        await far.send(b"x" * 100)
        assert await far.to_end() == b"enough"
        await far.close_notify()
        await protocol.has("lost")
    assert protocol.events == ["made", "data", "lost"]


@pytest.mark.loops("aws_io_async")  # asyncio never hears the peer's answer in this case
async def test_a_paused_transport_can_be_closed(contexts: Contexts) -> None:
    protocol = Recorder()
    async with connection(protocol, contexts) as (transport, far):
        transport.pause_reading()
        await far.send(b"x" * 1_000_000)
        transport.close()
        assert await far.to_end() == b""
        await far.close_notify()
        await protocol.has("lost")
        assert protocol.lost_with is None
    assert protocol.events == ["made", "lost"]


@pytest.mark.loops("aws_io_async")  # asyncio fails with "application data after close notify"
async def test_a_peer_that_never_stops_is_cut_off(contexts: Contexts) -> None:
    protocol = Recorder()
    async with connection(protocol, contexts, ssl_shutdown_timeout=0.2) as (transport, far):
        transport.close()
        with pytest.raises(ConnectionError):
            while True:
                await far.send(bytes(100_000))
        await protocol.has("lost")
        assert isinstance(protocol.lost_with, TimeoutError)
        assert str(protocol.lost_with) == "SSL shutdown timed out"
    assert protocol.events == ["made", "lost"]


async def test_a_peer_that_never_answers_is_cut_off(contexts: Contexts) -> None:
    protocol = Recorder()
    async with connection(protocol, contexts, ssl_shutdown_timeout=0.1) as (transport, _):
        transport.close()
        await protocol.has("lost")
        assert isinstance(protocol.lost_with, TimeoutError)


@pytest.mark.loops("aws_io_async")  # the others cut it off in the middle
async def test_a_slow_peer_gets_everything(contexts: Contexts) -> None:
    protocol = Recorder()
    async with connection(protocol, contexts, ssl_shutdown_timeout=0.3) as (transport, far):
        transport.write(BIG)
        transport.close()
        received = 0
        while data := await far.exactly(1 << 20) if received < len(BIG) else b"":
            received += len(data)
            await asyncio.sleep(0.1)  # is the peer's slowness
        assert await far.to_end() == b""


@pytest.mark.loops("aws_io_async", "asyncio")  # uvloop reports an EOF as an error of its own
async def test_a_peer_that_leaves_while_we_close(contexts: Contexts) -> None:
    protocol = Recorder()
    async with connection(protocol, contexts) as (transport, far):
        transport.close()
        assert await far.to_end() == b""
        far.sock.close()
        await protocol.has("lost")
        assert protocol.lost_with is None


async def test_abort_does_not_wait(contexts: Contexts) -> None:
    protocol = Recorder()
    async with connection(protocol, contexts) as (transport, far):
        transport.write(BIG)
        transport.abort()
        assert transport.is_closing()
        await protocol.has("lost")
        assert protocol.lost_with is None
        with pytest.raises(ConnectionError):
            await far.exactly(len(BIG))
    assert "eof" not in protocol.events


async def test_a_connection_ended_in_connection_made(contexts: Contexts) -> None:
    class Unwilling(Recorder):
        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            transport.abort()

    protocol = Unwilling()
    near, far_sock = tcp_pair()
    with far_sock:
        far = Far(far_sock, contexts[1])
        await asyncio.gather(
            connecting(protocol, near, contexts[0]), far.handshake(), return_exceptions=True
        )
        await protocol.has("lost")
    assert protocol.events == ["made", "lost"]


async def test_writing_to_a_closed_connection_does_nothing(contexts: Contexts) -> None:
    protocol = Recorder()
    async with connection(protocol, contexts) as (transport, far):
        transport.close()
        transport.write(b"too late")
        transport.writelines([b"far ", b"too late"])
        assert await far.to_end() == b""
        await far.close_notify()
        await protocol.has("lost")
        transport.write(b"and now")
        transport.pause_reading()
        transport.resume_reading()
        transport.close()
        transport.abort()
        assert transport.is_closing()


@pytest.mark.loops("aws_io_async")  # asyncio forgets the lower transport first
async def test_the_peers_name_is_known_when_the_connection_is_lost(contexts: Contexts) -> None:
    class Logging(Recorder):
        def connection_lost(self, exc: BaseException | None) -> None:
            self.peername = self.transport.get_extra_info("peername")
            super().connection_lost(exc)

    protocol = Logging()
    async with connection(protocol, contexts) as (transport, far):
        name = far.sock.getsockname()
        transport.abort()
        await protocol.has("lost")
    assert protocol.peername == name


@pytest.mark.loops("aws_io_async")
async def test_a_lost_connection_is_freed_without_the_garbage_collector(
    contexts: Contexts,
) -> None:
    protocol = Recorder()
    gc.collect()
    gc.disable()
    try:
        async with connection(protocol, contexts) as (transport, far):
            held = weakref.ref(transport.get_extra_info("ssl_object"))
            await far.send(b"x")
            await protocol.received(1)
            transport.close()
            await far.close_notify()
            await protocol.has("lost")
        protocol.transport = None
        del transport, far
        assert held() is None
    finally:
        gc.enable()


# Handshakes that fail


async def test_a_certificate_that_is_refused(
    client_context: ssl.SSLContext, reported: list[dict[str, Any]]
) -> None:
    catch(reported)
    other = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert(HOST).configure_cert(other)
    protocol = Recorder()
    near, far_sock = tcp_pair()
    with far_sock:
        far = Far(far_sock, other)
        task = connecting(protocol, near, client_context)
        handshake = asyncio.ensure_future(far.handshake())
        with pytest.raises(ssl.SSLCertVerificationError) as caught:
            await task
        assert caught.value.verify_code in (18, 19, 20)
        assert caught.value.verify_message
        await asyncio.wait([handshake])
        handshake.exception()
    assert protocol.events == []
    assert reported == []


@pytest.mark.loops("aws_io_async")  # the others close without a word
async def test_the_peer_is_told_why_its_certificate_is_refused(
    client_context: ssl.SSLContext,
) -> None:
    other = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert(HOST).configure_cert(other)
    near, far_sock = tcp_pair()
    with far_sock:
        far = Far(far_sock, other)
        task = connecting(Recorder(), near, client_context)
        with pytest.raises(ssl.SSLError, match=r"(?i)alert unknown ca"):
            await far.handshake()
        with pytest.raises(ssl.SSLCertVerificationError):
            await task


async def test_the_default_context_checks_certificates(server_context: ssl.SSLContext) -> None:
    near, far_sock = tcp_pair()
    with far_sock:
        far = Far(far_sock, server_context)
        loop = asyncio.get_running_loop()
        task = asyncio.ensure_future(
            loop.create_connection(Recorder, sock=near, ssl=True, server_hostname=HOST)
        )
        handshake = asyncio.ensure_future(far.handshake())
        with pytest.raises(ssl.SSLCertVerificationError):
            await task
        await asyncio.wait([handshake])
        handshake.exception()


async def test_a_handshake_that_takes_too_long(contexts: Contexts) -> None:
    protocol = Recorder()
    near, far_sock = tcp_pair()
    with far_sock:
        with pytest.raises(ConnectionAbortedError) as caught:
            await connecting(protocol, near, contexts[0], ssl_handshake_timeout=0.1)
        assert str(caught.value) == (
            "SSL handshake is taking longer than 0.1 seconds: aborting the connection"
        )
        await Far(far_sock, contexts[1]).ciphertext_to_end()
    assert protocol.events == []


async def test_a_peer_that_leaves_in_the_handshake(contexts: Contexts) -> None:
    protocol = Recorder()
    near, far_sock = tcp_pair()
    with far_sock:
        task = connecting(protocol, near, contexts[0])
        await asyncio.sleep(0)
        far_sock.shutdown(socket.SHUT_WR)
        with pytest.raises(ConnectionResetError):
            await task
        await Far(far_sock, contexts[1]).ciphertext_to_end()
    assert protocol.events == []


@pytest.mark.loops("aws_io_async", "asyncio")  # uvloop leaves the socket open
async def test_a_peer_that_resets_in_the_handshake(contexts: Contexts) -> None:
    protocol = Recorder()
    near, far_sock = tcp_pair()
    with far_sock:
        task = connecting(protocol, near, contexts[0])
        await asyncio.sleep(0)
        Far(far_sock, contexts[1]).reset()
        with pytest.raises(ConnectionError):
            await task
    assert protocol.events == []


@pytest.mark.parametrize("garbage", [b"GET / HTTP/1.1\r\n\r\n", bytes(100), b"\x80" * 100])
async def test_a_peer_that_does_not_speak_tls(
    contexts: Contexts, garbage: bytes, reported: list[dict[str, Any]]
) -> None:
    catch(reported)
    protocol = Recorder()
    near, far_sock = tcp_pair()
    with far_sock:
        far_sock.send(garbage)
        with pytest.raises(ssl.SSLError):
            await connecting(protocol, near, contexts[0])
        await Far(far_sock, contexts[1]).ciphertext_to_end()
    assert protocol.events == []
    assert reported == []


async def test_a_cancelled_connect_leaves_nothing(contexts: Contexts) -> None:
    protocol = Recorder()
    near, far_sock = tcp_pair()
    with far_sock:
        task = connecting(protocol, near, contexts[0])
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await Far(far_sock, contexts[1]).ciphertext_to_end()
        await asyncio.sleep(0)
    assert protocol.events == []


async def test_a_server_outlives_bad_clients(
    client_context: ssl.SSLContext,
    server_context: ssl.SSLContext,
    reported: list[dict[str, Any]],
) -> None:
    catch(reported)
    loop = asyncio.get_running_loop()
    protocols: list[Recorder] = []

    def factory() -> Recorder:
        protocols.append(Recorder())
        return protocols[-1]

    server = await loop.create_server(factory, "127.0.0.1", 0, ssl=server_context)
    address = server.sockets[0].getsockname()
    for manner in ("garbage", "leave", "reset", "good"):
        sock = socket.socket()
        with sock:
            sock.setblocking(False)
            await loop.sock_connect(sock, address)
            far = Far(sock, client_context)
            if manner == "garbage":
                await loop.sock_sendall(sock, b"GET / HTTP/1.1\r\n\r\n")
                await far.ciphertext_to_end()
            elif manner == "leave":
                sock.shutdown(socket.SHUT_WR)
                await far.ciphertext_to_end()
            elif manner == "reset":
                far.reset()
            else:
                await far.handshake()
                await far.send(b"good")
                assert await protocols[-1].received(4) == b"good"
                await far.close_notify()
                assert await far.to_end() == b""
    await protocols[-1].has("lost")
    assert all(protocol.events == [] for protocol in protocols[:-1])
    assert reported == []
    server.close()
    await server.wait_closed()
    await asyncio.sleep(0)


@pytest.mark.parametrize("option", ["ssl_handshake_timeout", "ssl_shutdown_timeout"])
@pytest.mark.parametrize("seconds", [0, -1])
async def test_timeouts_are_positive(contexts: Contexts, option: str, seconds: float) -> None:
    near, far = tcp_pair()
    with near, far, pytest.raises(ValueError, match=f"{option} should be a positive number, got"):
        await connecting(Recorder(), near, contexts[0], **{option: seconds})


@pytest.mark.loops("aws_io_async")  # for the others this is another class
async def test_a_server_needs_a_context() -> None:
    loop = asyncio.get_running_loop()
    with pytest.raises(ValueError, match="Server side SSL needs a valid SSLContext"):
        TlsProtocol(loop, Recorder(), True, None, server_side=True)


# Failures later on


async def test_a_corrupted_record_ends_the_connection(contexts: Contexts) -> None:
    protocol = Recorder()
    async with connection(protocol, contexts) as (_, far):
        far.ssl.write(b"good")
        good = far.outgoing.read()
        far.ssl.write(b"bad")
        bad = bytearray(far.outgoing.read())
        bad[-1] ^= 1
        far.sock.send(good)
        await protocol.received(4)
        far.sock.send(bad)
        await protocol.has("lost")
        assert isinstance(protocol.lost_with, ssl.SSLError)
    assert protocol.events == ["made", "data", "lost"]


class BrokenError(Exception):
    pass


class Broken(Recorder):
    """Fails in one of its methods."""

    def __init__(self, method: str) -> None:
        super().__init__()
        setattr(self, method, self.fail)

    def fail(self, *args: Any) -> Any:
        raise BrokenError


class BrokenBuffered(BufferedRecorder):
    def __init__(self, method: str) -> None:
        super().__init__()
        setattr(self, method, self.fail)

    def fail(self, *args: Any) -> Any:
        raise BrokenError


@pytest.mark.loops("aws_io_async")  # the others report it with less detail
@pytest.mark.parametrize(
    ("factory", "method"),
    [
        (Broken, "data_received"),
        (Broken, "eof_received"),
        (BrokenBuffered, "get_buffer"),
        (BrokenBuffered, "buffer_updated"),
    ],
)
async def test_a_protocol_that_fails_ends_its_connection(
    factory: Any, method: str, contexts: Contexts, reported: list[dict[str, Any]]
) -> None:
    catch(reported)
    protocol = factory(method)
    async with connection(protocol, contexts) as (transport, far):
        far.ssl.write(b"x")
        await far.close_notify()
        await protocol.has("lost")
        assert isinstance(protocol.lost_with, BrokenError)
        (context,) = reported
        assert context["message"] == f"Fatal error: protocol.{method}() call failed."
        assert context["exception"] is protocol.lost_with
        assert context["transport"] is transport
        assert context["protocol"] is protocol


@pytest.mark.loops("aws_io_async")
async def test_a_protocol_that_fails_in_connection_made(
    contexts: Contexts, reported: list[dict[str, Any]]
) -> None:
    catch(reported)
    protocol = Broken("connection_made")
    near, far_sock = tcp_pair()
    with far_sock:
        far = Far(far_sock, contexts[1])
        task = connecting(protocol, near, contexts[0])
        await asyncio.wait([asyncio.ensure_future(far.handshake())])
        with pytest.raises(BrokenError):
            await task
        await protocol.has("lost")
    assert reported[0]["message"] == "Fatal error: protocol.connection_made() call failed."


@pytest.mark.loops("aws_io_async")  # the others do not count what the transport below holds
async def test_a_protocol_that_fails_to_pause_is_reported(
    contexts: Contexts, reported: list[dict[str, Any]]
) -> None:
    catch(reported)
    protocol = Broken("pause_writing")
    async with connection(protocol, contexts) as (transport, far):
        transport.write(BIG)
        assert await far.exactly(len(BIG)) == BIG
        assert reported[0]["message"] == "protocol.pause_writing() failed"


# Upgrades


def returned(protocol: Any) -> Any:
    return protocol


async def upgrade(
    transports: list[Any],
    ends: list[Any],
    client_context: ssl.SSLContext,
    server_context: ssl.SSLContext,
) -> list[Any]:
    """The TLS transports on top of those of a client and of its server."""
    loop = asyncio.get_running_loop()
    client, server = transports
    upgraded = await asyncio.gather(
        loop.start_tls(client, ends[0], client_context, server_hostname=HOST),
        loop.start_tls(server, ends[1], server_context, server_side=True),
    )
    return list(upgraded)


@asynccontextmanager
async def upgraded(
    ends: list[Any], client_context: ssl.SSLContext, server_context: ssl.SSLContext
) -> AsyncIterator[list[Any]]:
    """Two plain connections that have been upgraded; yields their new transports."""
    loop = asyncio.get_running_loop()
    plain = []
    for end, sock in zip(ends, tcp_pair(), strict=True):
        plain.append((await loop.create_connection(partial(returned, end), sock=sock))[0])
    transports = await upgrade(plain, ends, client_context, server_context)
    try:
        yield transports
    finally:
        for transport in transports:
            transport.abort()
        for end in ends:
            await end.has("lost")
        await asyncio.sleep(0)


@both_protocols
async def test_a_connection_can_be_upgraded(
    factory: Any, client_context: ssl.SSLContext, server_context: ssl.SSLContext
) -> None:
    ends = [factory(), factory()]
    async with upgraded(ends, client_context, server_context) as (client, server):
        assert client.get_extra_info("ssl_object").version() == "TLSv1.3"
        client.write(BIG)
        server.write(b"and back")
        assert await ends[1].received(len(BIG)) == BIG
        assert await ends[0].received(8) == b"and back"
        client.close()
        await ends[1].has("lost")
    for end in ends:
        assert end.events.count("made") == end.events.count("lost") == 1


async def test_tls_in_tls(client_context: ssl.SSLContext, server_context: ssl.SSLContext) -> None:
    ends: list[Any] = [Recorder(), BufferedRecorder()]
    async with upgraded(ends, client_context, server_context) as outer:
        client, server = await upgrade(outer, ends, client_context, server_context)
        client.write(BIG)
        server.write(b"and back")
        assert await ends[1].received(len(BIG)) == BIG
        assert await ends[0].received(8) == b"and back"
        server.close()
        await ends[0].has("lost")
        await ends[1].has("lost")
        assert ends[0].lost_with is ends[1].lost_with is None
    for end in ends:
        assert end.events.count("made") == end.events.count("lost") == 1


@pytest.mark.loops("aws_io_async")
async def test_pausing_holds_for_tls_in_tls(
    client_context: ssl.SSLContext, server_context: ssl.SSLContext
) -> None:
    ends = [Recorder(), Recorder()]
    async with upgraded(ends, client_context, server_context) as outer:
        client, server = await upgrade(outer, ends, client_context, server_context)
        server.pause_reading()
        client.write(BIG)
        client.close()
        await asyncio.wait([asyncio.ensure_future(ends[1].has("data"))], timeout=0.1)
        assert ends[1].events == ["made"]
        server.resume_reading()
        await ends[1].has("lost")
        assert ends[1].data == BIG
        assert ends[0].events[:3] == ["made", "pause", "resume"]


async def test_an_upgrade_that_fails(
    client_context: ssl.SSLContext, server_context: ssl.SSLContext
) -> None:
    loop = asyncio.get_running_loop()
    protocol = Recorder()
    near, far_sock = tcp_pair()
    with far_sock:
        transport, _ = await loop.create_connection(lambda: protocol, sock=near)
        far_sock.send(b"what?\r\n")
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await loop.start_tls(transport, protocol, client_context, server_hostname=HOST)
        await protocol.has("lost")
    assert protocol.events.count("lost") == 1


async def test_an_upgrade_that_is_cancelled(client_context: ssl.SSLContext) -> None:
    loop = asyncio.get_running_loop()
    protocol = Recorder()
    near, far_sock = tcp_pair()
    with far_sock:
        transport, _ = await loop.create_connection(lambda: protocol, sock=near)
        task = asyncio.ensure_future(
            loop.start_tls(transport, protocol, client_context, server_hostname=HOST)
        )
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await Far(far_sock, client_context).ciphertext_to_end()
        await asyncio.sleep(0)


async def test_what_cannot_be_upgraded(client_context: ssl.SSLContext) -> None:
    loop = asyncio.get_running_loop()
    protocol = Recorder()
    near, far_sock = tcp_pair()
    with far_sock:
        transport, _ = await loop.create_connection(lambda: protocol, sock=near)
        with pytest.raises(TypeError, match="SSLContext"):
            await loop.start_tls(transport, protocol, None)  # type: ignore[arg-type]  # misuse
        with pytest.raises(TypeError, match="not supported by start_tls"):
            await loop.start_tls(asyncio.Transport(), protocol, client_context)
        transport.abort()
        await protocol.has("lost")


@pytest.mark.loops("aws_io_async")  # the others wait for the handshake's timeout
async def test_a_closed_connection_cannot_be_upgraded(client_context: ssl.SSLContext) -> None:
    loop = asyncio.get_running_loop()
    protocol = Recorder()
    near, far_sock = tcp_pair()
    with far_sock:
        transport, _ = await loop.create_connection(lambda: protocol, sock=near)
        transport.abort()
        with pytest.raises(ConnectionResetError):
            await loop.start_tls(transport, protocol, client_context, server_hostname=HOST)
        await protocol.has("lost")


async def test_streams_can_be_upgraded(
    client_context: ssl.SSLContext, server_context: ssl.SSLContext
) -> None:
    outcome: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert await reader.readline() == b"STARTTLS\r\n"
        writer.write(b"220 go ahead\r\n")
        await writer.start_tls(server_context)
        received = await reader.readexactly(len(BIG))
        writer.write(b"250 OK\r\n")
        writer.close()
        await writer.wait_closed()
        outcome.set_result(received)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    writer.write(b"STARTTLS\r\n")
    assert await reader.readline() == b"220 go ahead\r\n"
    await writer.start_tls(client_context, server_hostname=HOST)
    writer.write(BIG)
    await writer.drain()
    assert await reader.read() == b"250 OK\r\n"
    assert await outcome == BIG
    writer.close()
    await writer.wait_closed()
    server.close()
    await server.wait_closed()


@pytest.mark.loops("aws_io_async")  # the others lose them (python/cpython#142352, uvloop#707)
async def test_ciphertext_that_a_stream_has_read_ahead_is_not_lost(
    client_context: ssl.SSLContext, server_context: ssl.SSLContext
) -> None:
    finished = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert await reader.readline() == b"PROXY TCP4 192.0.2.1 192.0.2.2 5 6\r\n"
        await writer.start_tls(server_context)
        writer.write((await reader.readline()).upper())
        writer.close()
        await writer.wait_closed()
        finished.set()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    sock = socket.create_connection(server.sockets[0].getsockname())
    with sock:
        sock.setblocking(False)
        far = Far(sock, client_context)
        far.outgoing.write(b"PROXY TCP4 192.0.2.1 192.0.2.2 5 6\r\n")
        await far.handshake()
        await far.send(b"hello\n")
        assert await far.to_end() == b"HELLO\n"
        await far.close_notify()
        await finished.wait()
    server.close()
    await server.wait_closed()


@pytest.mark.loops("aws_io_async")  # the others' reader pauses the transport below the TLS one
async def test_the_reader_of_an_upgraded_stream_slows_down_its_peer(
    client_context: ssl.SSLContext, server_context: ssl.SSLContext
) -> None:
    received: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
    upgraded = asyncio.Event()
    go_on = asyncio.Event()
    reading: list[bool] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        await writer.start_tls(server_context)
        upgraded.set()
        await go_on.wait()
        transport: Any = writer.transport
        reading.append(transport.is_reading())
        received.set_result(await reader.readexactly(len(BIG)))
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    writer.write(b"STARTTLS\r\n")
    await writer.start_tls(client_context, server_hostname=HOST)
    await upgraded.wait()
    writer.write(BIG)
    draining = asyncio.ensure_future(writer.drain())
    done, _ = await asyncio.wait([draining], timeout=0.2)
    assert not done
    go_on.set()
    assert await received == BIG
    assert reading == [False]
    await draining
    assert await reader.read() == b""
    writer.close()
    await writer.wait_closed()
    server.close()
    await server.wait_closed()


# What it costs


def bytes_per_connection(factory: Any, contexts: Contexts) -> int:
    """What tracemalloc says of an idle TLS connection, both its ends."""
    count = 20

    async def measure() -> int:
        ends = []
        for i in range(count + 1):
            near, far = tcp_pair()
            ends += [Recorder(), Recorder()]
            await asyncio.gather(
                connecting(ends[-2], near, contexts[0]), connecting(ends[-1], far, contexts[1])
            )
            if i == 0:  # the first one pays for what they share
                gc.collect()
                tracemalloc.start()
        gc.collect()
        size = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        for end in ends:
            end.transport.abort()
        for end in ends:
            await end.has("lost")
        await asyncio.sleep(0)
        return size // count

    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(measure())


def test_an_idle_connection_costs_a_fraction_of_asyncios(contexts: Contexts) -> None:
    ours = bytes_per_connection(aws_io_async.new_event_loop, contexts)
    theirs = bytes_per_connection(asyncio.SelectorEventLoop, contexts)
    assert ours * 10 < theirs


def test_a_transport_that_nobody_closed_is_reported(contexts: Contexts) -> None:
    async def connect_and_forget() -> None:
        near, far = tcp_pair()
        await asyncio.gather(
            connecting(Recorder(), near, contexts[0]), connecting(Recorder(), far, contexts[1])
        )

    with asyncio.Runner(loop_factory=aws_io_async.new_event_loop) as runner:
        runner.run(connect_and_forget())
    del runner
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        gc.collect()
    assert any("unclosed transport <SslTransport" in str(warning.message) for warning in caught)
