"""TLS on the loops: what is written, and what fails later on."""

import array
import asyncio
import ssl
from typing import Any

import pytest

from tests import tls_transports
from tests.recorders import BufferedRecorder, Recorder
from tests.tls_transports import (
    BIG,
    Contexts,
    Far,
    catch,
    connecting,
    connection,
    nonblocking_pair,
)

server_context = tls_transports.server_context
client_context = tls_transports.client_context
contexts = tls_transports.contexts
reported = tls_transports.reported


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
    near, far_sock = nonblocking_pair()
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
