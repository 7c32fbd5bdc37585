"""TLS on the loops: connections that end."""

import asyncio
import gc
import weakref
from typing import Any

import pytest

from tests import tls_transports
from tests.recorders import BufferedRecorder, Recorder
from tests.tls_transports import (
    BIG,
    Contexts,
    Far,
    both_protocols,
    connecting,
    connection,
    nonblocking_pair,
)

server_context = tls_transports.server_context
client_context = tls_transports.client_context
contexts = tls_transports.contexts


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
    near, far_sock = nonblocking_pair()
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
