"""The life of a TLS connection on each loop, and what is read."""

import asyncio
import gc
import hashlib
import random
import socket
import ssl
import tracemalloc
import warnings
from typing import Any

import pytest

import aws_io_async
from tests import tls_transports
from tests.recorders import BufferedRecorder, Recorder
from tests.tls_transports import (
    BIG,
    HOST,
    Contexts,
    Far,
    both_protocols,
    connecting,
    connection,
    is_server,
    nonblocking_pair,
)

server_context = tls_transports.server_context
client_context = tls_transports.client_context
contexts = tls_transports.contexts
reported = tls_transports.reported


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
    near, far_sock = nonblocking_pair()
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

    near, far = nonblocking_pair()
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


@pytest.mark.loops("aws_io_async", "asyncio")  # uvloop's take nothing
async def test_a_method_can_be_replaced_for_a_while(
    contexts: Contexts, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with connection(Recorder(), contexts) as (transport, far):
        lost: list[bytes] = []
        with monkeypatch.context() as patch:
            patch.setattr(transport, "write", lost.append)
            transport.write(b"lost")
        transport.write(b"sent")
        assert lost == [b"lost"]
        assert await far.exactly(4) == b"sent"


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


# What it costs


def bytes_per_connection(factory: Any, contexts: Contexts) -> int:
    """What tracemalloc says of an idle TLS connection, both its ends."""
    count = 20

    async def measure() -> int:
        ends = []
        for i in range(count + 1):
            near, far = nonblocking_pair()
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
        near, far = nonblocking_pair()
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
