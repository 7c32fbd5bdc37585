"""Stream transports over TCP and Unix sockets, each against a plain socket at the other end."""

import array
import asyncio
import contextvars
import gc
import hashlib
import logging
import os
import random
import socket
import struct
import sys
from asyncio.trsock import TransportSocket
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from tests.connections import connection, read_exactly, read_to_end, unix_pair
from tests.recorders import BufferedRecorder, Events, Recorder
from tests.socket_tools import tcp_pair

IOV_MAX = os.sysconf("SC_IOV_MAX")
BIG = bytes(range(256)) * 32 * 1024  # 8 MiB: more than fits between tcp_pair's sockets


async def polled() -> None:
    """Come back after the loop has polled: what was readable before has been reported."""
    loop = asyncio.get_running_loop()
    near, far = unix_pair()
    with near, far:
        near.setblocking(False)
        for _ in range(2):
            waiting = asyncio.ensure_future(loop.sock_recv(near, 1))
            await asyncio.sleep(0)
            far.send(b".")
            await waiting


def reset(sock: socket.socket) -> None:
    """Close a TCP socket with RST instead of FIN."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


@pytest.fixture
def reported() -> Iterator[list[dict[str, Any]]]:
    """What reaches the loop's exception handler; install it with `catch`."""
    contexts: list[dict[str, Any]] = []
    yield contexts
    contexts.clear()  # tracebacks and transports


def catch(reported: list[dict[str, Any]]) -> None:
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))


both_pairs = pytest.mark.parametrize("pair", [tcp_pair, unix_pair])
both_protocols = pytest.mark.parametrize("factory", [Recorder, BufferedRecorder])


# The life of a connection


@both_pairs
@both_protocols
async def test_made_then_data_then_end_of_file_then_lost(factory: Any, pair: Any) -> None:
    protocol = factory()
    async with connection(protocol, pair) as (transport, far):
        assert protocol.transport is transport
        assert transport.get_protocol() is protocol
        assert not transport.is_closing()
        far.send(b"one")
        assert await protocol.received(3) == b"one"
        far.send(b"two")
        assert await protocol.received(6) == b"onetwo"
        far.shutdown(socket.SHUT_WR)
        await protocol.has("lost")
        assert transport.is_closing()
        assert protocol.lost_with is None
        assert await read_to_end(far) == b""
        transport.close()
        transport.abort()
        await polled()
    assert protocol.events == ["made", "data", "data", "eof", "lost"]


@both_protocols
async def test_an_end_of_file_without_data(factory: Any) -> None:
    protocol = factory()
    async with connection(protocol) as (_, far):
        far.close()
        await protocol.has("lost")
    assert protocol.events == ["made", "eof", "lost"]


@both_protocols
async def test_megabytes_both_ways_at_once(factory: Any) -> None:
    loop = asyncio.get_running_loop()
    dice = random.Random(7)
    total = 10 * 1024 * 1024

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

        def eof_received(self) -> bool:
            super().eof_received()
            return True  # the other direction may not have ended yet

        async def send(self) -> None:
            while self.sent < total:
                await self.may_write.wait()
                pieces = [
                    dice.randbytes(dice.choice((1, 1000, 70_000)))
                    for _ in range(dice.randint(1, 9))
                ]
                if len(pieces) == 1:
                    self.transport.write(bytearray(pieces[0]))
                else:
                    self.transport.writelines(pieces)
                for piece in pieces:
                    self.sent_digest.update(piece)
                    self.sent += len(piece)
            self.transport.write_eof()

    near, far = tcp_pair()
    ends = [(await loop.create_connection(Exchange, sock=sock))[1] for sock in (near, far)]
    await asyncio.gather(*(end.send() for end in ends))
    for end, other in (ends, ends[::-1]):
        await end.has("eof")
        assert len(end.data) == other.sent
        assert hashlib.sha256(end.data).digest() == other.sent_digest.digest()
    for end in ends:
        end.transport.close()
        await end.has("lost")
    await asyncio.sleep(0)


async def test_close_in_data_received_ends_deliveries() -> None:
    class Closing(Recorder):
        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self.transport.close()

    protocol = Closing()
    async with connection(protocol) as (_, far):
        far.send(BIG[: 1 << 20])
        await protocol.has("lost")
    assert protocol.events == ["made", "data", "lost"]


@pytest.mark.loops("aws_io_async", "asyncio")  # uvloop gives up the connect
@pytest.mark.parametrize("end", ["close", "abort"])
async def test_a_connection_ended_in_connection_made(end: str) -> None:
    class Unwilling(Recorder):
        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            getattr(transport, end)()

    protocol = Unwilling()
    async with connection(protocol) as (transport, far):
        assert transport.is_closing()
        assert await read_to_end(far) == b""
        await protocol.has("lost")
    assert protocol.events == ["made", "lost"]


async def test_writing_in_connection_made_and_in_connection_lost() -> None:
    class Polite(Recorder):
        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            transport.write(b"hello")

        def connection_lost(self, exc: BaseException | None) -> None:
            self.transport.write(b"too late")
            super().connection_lost(exc)

    protocol = Polite()
    async with connection(protocol) as (transport, far):
        transport.close()
        assert await read_to_end(far) == b"hello"
        await protocol.has("lost")


async def test_callbacks_run_in_the_context_of_the_connections_maker() -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")

    class Observer(Recorder):
        def happened(self, what: str) -> None:
            super().happened(f"{what} {variable.get('nothing')}")

    protocol = Observer()
    variable.set("maker")
    async with connection(protocol) as (_, far):
        variable.set("later")
        far.send(b"x")
        await protocol.received(1)
        far.close()
        await protocol.until(lambda: len(protocol.events) == 4)
        assert protocol.events == [f"{what} maker" for what in ("made", "data", "eof", "lost")]
        protocol.happened = lambda what: Events.happened(protocol, what)  # type: ignore[method-assign]  # for `connection`
        protocol.happened("lost")


# asyncio runs them in the context of whoever wrote or resumed last.
@pytest.mark.loops("aws_io_async")
async def test_writing_and_resuming_elsewhere_does_not_change_the_context() -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")
    seen: list[str] = []

    class Observer(Recorder):
        def resume_writing(self) -> None:
            super().resume_writing()
            seen.append(variable.get("nothing"))

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            seen.append(variable.get("nothing"))

    protocol = Observer()
    variable.set("maker")
    async with connection(protocol) as (transport, far):
        variable.set("later")
        transport.write(BIG)
        await read_exactly(far, len(BIG))
        await protocol.has("resume")
        transport.pause_reading()
        transport.resume_reading()
        far.send(b"x")
        await protocol.received(1)
        assert seen == ["maker", "maker"]


@pytest.mark.loops("aws_io_async", "asyncio")  # uvloop's is no asyncio.Transport, it has no base
async def test_it_is_an_asyncio_transport() -> None:
    protocol = Recorder()
    async with connection(protocol) as (transport, _):
        assert isinstance(transport, asyncio.Transport)


# Protocols that change


async def test_set_protocol_between_both_kinds() -> None:
    first = Recorder()
    async with connection(first) as (transport, far):
        for number, protocol in enumerate((BufferedRecorder(), Recorder(), BufferedRecorder())):
            transport.set_protocol(protocol)
            assert transport.get_protocol() is protocol
            far.send(b"%d" % number)
            assert await protocol.received(1) == b"%d" % number
        far.close()
        await protocol.has("lost")
        assert protocol.events == ["data", "eof", "lost"]
        assert first.events == ["made"]
        first.happened("lost")


async def test_set_protocol_in_data_received_sends_what_follows_to_the_new_one() -> None:
    later = BufferedRecorder()

    class Greeter(Recorder):
        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self.transport.set_protocol(later)

    first = Greeter()
    async with connection(first) as (_, far):
        far.send(b"for the first")
        await first.received(13)
        far.send(b"for the second")
        assert await later.received(14) == b"for the second"
        assert first.data == b"for the first"
        first.happened("lost")


@pytest.mark.loops("aws_io_async", "asyncio")  # uvloop reads on in spite of the pause
async def test_set_protocol_while_paused_and_before_connection_made() -> None:
    later = BufferedRecorder()

    class Delegating(Recorder):
        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            transport.pause_reading()
            transport.set_protocol(later)

    first = Delegating()
    async with connection(first) as (transport, far):
        far.send(b"early")
        await polled()
        assert later.events == []
        transport.resume_reading()
        assert await later.received(5) == b"early"
        first.happened("lost")


async def test_flow_control_follows_the_protocol() -> None:
    first, later = Recorder(), Recorder()
    async with connection(first) as (transport, far):
        transport.write(BIG)
        assert first.events == ["made", "pause"]
        transport.set_protocol(later)
        await read_exactly(far, len(BIG))
        await later.has("resume")
        first.happened("lost")


# Protocols that raise


class BoomError(Exception):
    pass


@pytest.mark.loops("aws_io_async", "asyncio")  # uvloop words and treats them otherwise
@pytest.mark.parametrize(
    ("factory", "method", "message"),
    [
        (Recorder, "data_received", "Fatal error: protocol.data_received() call failed."),
        (BufferedRecorder, "get_buffer", "Fatal error: protocol.get_buffer() call failed."),
        (BufferedRecorder, "buffer_updated", "Fatal error: protocol.buffer_updated() call failed."),
        (Recorder, "eof_received", "Fatal error: protocol.eof_received() call failed."),
    ],
)
async def test_an_error_in_a_reading_method_is_reported_and_ends_the_connection(
    factory: Any, method: str, message: str, reported: list[dict[str, Any]]
) -> None:
    catch(reported)
    error = BoomError()

    def fail(*args: Any) -> None:
        raise error

    protocol = factory()
    setattr(protocol, method, fail)
    async with connection(protocol) as (transport, far):
        if method == "eof_received":
            far.shutdown(socket.SHUT_WR)
        else:
            far.send(b"data")
        await protocol.has("lost")
        assert protocol.lost_with is error
        (context,) = reported
        assert context["exception"] is error
        assert context["transport"] is transport
        assert context["protocol"] is protocol
        assert context["message"] == message
    assert protocol.events == ["made", "lost"]


async def test_an_empty_buffer_ends_the_connection(reported: list[dict[str, Any]]) -> None:
    catch(reported)
    protocol = BufferedRecorder()
    protocol.buffer = memoryview(b"")
    async with connection(protocol) as (_, far):
        far.send(b"data")
        await protocol.has("lost")
        assert isinstance(protocol.lost_with, RuntimeError)
        assert "empty buffer" in str(protocol.lost_with)
        assert reported[0]["exception"] is protocol.lost_with


@pytest.mark.parametrize("method", ["pause_writing", "resume_writing"])
async def test_an_error_in_flow_control_is_reported_and_the_connection_goes_on(
    method: str, reported: list[dict[str, Any]]
) -> None:
    catch(reported)
    error = BoomError()

    def fail() -> None:
        raise error

    protocol = Recorder()
    setattr(protocol, method, fail)
    async with connection(protocol) as (transport, far):
        transport.write(BIG)
        assert await read_exactly(far, len(BIG)) == BIG
        transport.write(b"still here")
        assert await read_exactly(far, 10) == b"still here"
        (context,) = reported
        assert context["message"] == f"protocol.{method}() failed"
        assert context["exception"] is error
        assert context["transport"] is transport
        assert context["protocol"] is protocol


@pytest.mark.loops("aws_io_async", "asyncio")  # uvloop closes the connection
async def test_an_error_in_connection_made_is_reported_and_the_connection_goes_on(
    reported: list[dict[str, Any]],
) -> None:
    catch(reported)

    class Failing(Recorder):
        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            raise BoomError

    protocol = Failing()
    async with connection(protocol) as (_, far):
        far.send(b"data")
        assert await protocol.received(4) == b"data"
        (context,) = reported
        assert isinstance(context["exception"], BoomError)


async def test_an_error_in_connection_lost_is_reported_and_the_socket_is_closed(
    reported: list[dict[str, Any]],
) -> None:
    catch(reported)

    class Failing(Recorder):
        def connection_lost(self, exc: BaseException | None) -> None:
            super().connection_lost(exc)
            raise BoomError

    protocol = Failing()
    async with connection(protocol) as (transport, far):
        transport.close()
        assert await read_to_end(far) == b""
        await protocol.has("lost")
        await polled()
        (context,) = reported
        assert isinstance(context["exception"], BoomError)


async def test_an_error_in_the_constructor_reaches_the_caller() -> None:
    near, far = tcp_pair()

    def fail() -> asyncio.Protocol:
        raise BoomError

    with near, far, pytest.raises(BoomError):
        await asyncio.get_running_loop().create_connection(fail, sock=near)


# Pausing and resuming


@pytest.mark.loops("aws_io_async", "asyncio")  # uvloop refuses to
@both_protocols
async def test_pause_reading_in_connection_made_holds(factory: Any) -> None:
    class Paused(factory):  # type: ignore[misc]  # the class is a parameter
        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            transport.pause_reading()

    protocol = Paused()
    async with connection(protocol) as (transport, far):
        far.send(b"early")
        await polled()
        assert protocol.events == ["made"]
        assert not transport.is_reading()
        transport.resume_reading()
        assert transport.is_reading()
        assert await protocol.received(5) == b"early"
        transport.pause_reading()
        far.send(b" late")
        far.shutdown(socket.SHUT_WR)
        await polled()
        assert protocol.data == b"early"
        transport.resume_reading()
        await protocol.has("lost")
        assert protocol.data == b"early late"


async def test_pausing_and_resuming_in_data_received_keeps_the_bytes_and_their_order() -> None:
    class Stuttering(Recorder):
        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self.transport.pause_reading()
            asyncio.get_running_loop().call_soon(self.transport.resume_reading)

    protocol = Stuttering()
    async with connection(protocol) as (_, far):
        await asyncio.get_running_loop().sock_sendall(far, BIG)
        assert await protocol.received(len(BIG)) == BIG
        protocol.transport.close()
        await protocol.has("lost")


@pytest.mark.loops("aws_io_async", "asyncio")  # uvloop raises on a second pause or resume
async def test_pausing_and_resuming_twice_is_harmless() -> None:
    protocol = Recorder()
    async with connection(protocol) as (transport, far):
        assert transport.is_reading()
        transport.resume_reading()
        transport.pause_reading()
        transport.pause_reading()
        assert not transport.is_reading()
        transport.resume_reading()
        transport.resume_reading()
        far.send(b"data")
        assert await protocol.received(4) == b"data"
        transport.close()
        transport.pause_reading()
        transport.resume_reading()
        assert not transport.is_reading()


# Writing and flow control


async def test_bytes_of_every_kind_arrive() -> None:
    protocol = Recorder()
    async with connection(protocol) as (transport, far):
        numbers = array.array("i", range(4))
        transport.write(b"bytes ")
        transport.write(bytearray(b"bytearray "))
        transport.write(memoryview(b"memoryview "))
        transport.write(memoryview(b"xstrided".upper())[1:])
        transport.write(b"")
        transport.write(bytearray())
        transport.write(memoryview(b""))
        transport.write(memoryview(numbers))
        transport.close()
        assert await read_to_end(far) == (b"bytes bytearray memoryview STRIDED" + numbers.tobytes())


# asyncio counts the items, not the bytes, of what has another shape (cpython#135862).
@pytest.mark.loops("aws_io_async")
@pytest.mark.parametrize("already", [b"", BIG], ids=["at once", "behind a backlog"])
async def test_memoryviews_of_any_shape_arrive_whole(already: bytes) -> None:
    protocol = Recorder()
    grid = memoryview(BIG).cast("B", (1024, len(BIG) // 1024))
    numbers = memoryview(array.array("q", range(100_000)))
    strided = memoryview(BIG)[::3]
    nothing = memoryview(array.array("i"))
    async with connection(protocol) as (transport, far):
        transport.write(already)
        for data in (grid, numbers, strided, nothing):
            transport.write(data)
        transport.writelines([numbers, nothing, grid, strided])
        transport.close()
        flat = bytes(numbers) + BIG + bytes(strided)
        sent = already + BIG + bytes(numbers) + bytes(strided) + flat
        assert await read_to_end(far) == sent


# asyncio and uvloop keep a reference to what is waiting.
@pytest.mark.loops("aws_io_async")
@pytest.mark.parametrize("method", ["write", "writelines"])
async def test_a_buffer_may_be_changed_after_it_was_written(method: str) -> None:
    protocol = Recorder()
    async with connection(protocol) as (transport, far):
        buffer = bytearray(BIG)
        for _ in range(2):  # at once, and behind a backlog
            getattr(transport, method)(buffer if method == "write" else [buffer])
        buffer[:] = bytes(len(BIG))
        buffer.clear()  # nobody holds on to it either
        transport.close()
        assert await read_to_end(far) == BIG + BIG


async def test_writelines_with_more_pieces_than_one_call_takes() -> None:
    protocol = Recorder()
    async with connection(protocol) as (transport, far):
        pieces = [b"%d," % number for number in range(3 * IOV_MAX + 7)]
        transport.writelines(pieces)
        transport.writelines(bytes([number]) for number in range(100))
        transport.close()
        assert await read_to_end(far) == b"".join(pieces) + bytes(range(100))


@pytest.mark.loops("aws_io_async", "uvloop")  # asyncio never gets rid of an empty one
@pytest.mark.parametrize("already", [b"", BIG], ids=["at once", "behind a backlog"])
async def test_writelines_of_every_kind_and_of_nothing(already: bytes) -> None:
    protocol = Recorder()
    async with connection(protocol) as (transport, far):
        transport.write(already)
        transport.writelines([])
        transport.writelines([b""])
        transport.writelines([b"", b"a", b"", bytearray(b"b"), memoryview(b"c"), b""])
        transport.close()
        assert await read_to_end(far) == already + b"abc"


async def test_writelines_behind_a_backlog_keeps_the_order() -> None:
    protocol = Recorder()
    async with connection(protocol) as (transport, far):
        pieces = [b"%d," % number for number in range(2 * IOV_MAX)]
        transport.write(BIG)
        transport.writelines(pieces)
        transport.write(b"the end")
        transport.close()
        assert await read_to_end(far) == BIG + b"".join(pieces) + b"the end"


# asyncio has no flow control there before 3.14 (cpython#127655).
@pytest.mark.loops("aws_io_async", "uvloop")
async def test_writelines_has_flow_control() -> None:
    protocol = Recorder()
    async with connection(protocol) as (transport, far):
        transport.writelines([BIG, BIG])
        await protocol.has("pause")
        await read_exactly(far, 2 * len(BIG))
        await protocol.has("resume")
    assert protocol.events == ["made", "pause", "resume", "lost"]


async def test_pause_and_resume_writing_at_the_limits() -> None:
    protocol = Recorder()
    async with connection(protocol) as (transport, far):
        transport.write(BIG)
        assert protocol.events == ["made", "pause"]
        transport.write(BIG)
        waiting = transport.get_write_buffer_size()
        assert 0 < waiting <= 2 * len(BIG)
        await read_exactly(far, 2 * len(BIG) - waiting)
        await read_exactly(far, waiting)
        await protocol.has("resume")
        assert transport.get_write_buffer_size() <= 16 * 1024
    assert protocol.events == ["made", "pause", "resume", "lost"]


@pytest.mark.loops("aws_io_async")  # it depends on what was sent at once
async def test_the_backlog_is_counted_in_bytes() -> None:
    protocol = Recorder()
    async with connection(protocol) as (transport, far):
        transport.set_write_buffer_limits(0)
        transport.write(BIG)
        waiting = transport.get_write_buffer_size()
        transport.write(b"12345")
        transport.writelines([b"678", b"90"])
        assert transport.get_write_buffer_size() == waiting + 10
        await read_exactly(far, len(BIG) + 10)
        await protocol.has("resume")
        assert transport.get_write_buffer_size() == 0


@pytest.mark.loops("aws_io_async", "asyncio")  # uvloop cannot tell its limits
async def test_limits() -> None:
    protocol = Recorder()
    async with connection(protocol) as (transport, _):
        assert transport.get_write_buffer_limits() == (16 * 1024, 64 * 1024)
        transport.set_write_buffer_limits(high=1000)
        assert transport.get_write_buffer_limits() == (250, 1000)
        transport.set_write_buffer_limits(low=1000)
        assert transport.get_write_buffer_limits() == (1000, 4000)
        transport.set_write_buffer_limits(high=5, low=5)
        assert transport.get_write_buffer_limits() == (5, 5)
        transport.set_write_buffer_limits()
        assert transport.get_write_buffer_limits() == (16 * 1024, 64 * 1024)
        for high, low in ((1, 2), (-1, None), (10, -1)):
            with pytest.raises(ValueError, match="must be >= 0"):
                transport.set_write_buffer_limits(high=high, low=low)


async def test_lowering_the_limits_below_the_backlog_pauses_at_once() -> None:
    protocol = Recorder()
    async with connection(protocol) as (transport, far):
        transport.set_write_buffer_limits(high=2 * len(BIG))
        transport.write(BIG)
        assert protocol.events == ["made"]
        transport.set_write_buffer_limits(high=1000)
        assert protocol.events == ["made", "pause"]
        await read_exactly(far, len(BIG))
        await protocol.has("resume")


async def test_writing_in_resume_writing_keeps_the_order() -> None:
    class Chatty(Recorder):
        def resume_writing(self) -> None:
            super().resume_writing()
            if self.events.count("resume") < 4:
                self.transport.write(BIG)
            else:
                self.transport.write(b"the end")
                self.transport.close()

    protocol = Chatty()
    async with connection(protocol) as (transport, far):
        transport.write(BIG)
        assert await read_to_end(far) == 4 * BIG + b"the end"


@pytest.mark.parametrize("end", ["abort", "close", "write_eof"])
async def test_ending_the_connection_in_resume_writing(end: str) -> None:
    class Fickle(Recorder):
        def resume_writing(self) -> None:
            super().resume_writing()
            getattr(self.transport, end)()

    protocol = Fickle()
    async with connection(protocol) as (transport, far):
        transport.set_write_buffer_limits(0)
        transport.write(BIG)
        assert await read_exactly(far, len(BIG)) == BIG
        assert await read_to_end(far) == b""
        if end == "write_eof":
            far.send(b"answer")
            assert await protocol.received(6) == b"answer"
        else:
            await protocol.has("lost")


async def test_resume_writing_may_write_to_another_connection() -> None:
    other = Recorder()

    class Forwarding(Recorder):
        def resume_writing(self) -> None:
            super().resume_writing()
            other.transport.write(BIG)

    protocol = Forwarding()
    async with (
        connection(protocol) as (transport, far),
        connection(other) as (_, other_far),
    ):
        transport.write(BIG)
        await read_exactly(far, len(BIG))
        assert await read_exactly(other_far, len(BIG)) == BIG


# uvloop takes a few of them; asyncio breaks the connection by them, from Python 3.15 on.
@pytest.mark.loops("aws_io_async", *(["asyncio"] if sys.version_info < (3, 15) else []))
@pytest.mark.parametrize("data", ["text", None, 1, [1, 2], object()])
async def test_what_is_no_bytes_is_refused_and_the_connection_goes_on(data: Any) -> None:
    protocol = Recorder()
    async with connection(protocol) as (transport, far):
        with pytest.raises(TypeError):
            transport.write(data)
        with pytest.raises(TypeError):
            transport.writelines([b"good", data])
        transport.write(b"fine")
        received = await read_exactly(far, 4)
        assert received == b"fine"
        assert not transport.is_closing()


# Half-closed connections


@both_pairs
async def test_write_eof_leaves_the_reading_side_open(pair: Any) -> None:
    protocol = Recorder()
    async with connection(protocol, pair) as (transport, far):
        assert transport.can_write_eof()
        transport.write(BIG)
        transport.write_eof()
        transport.write_eof()
        assert not transport.is_closing()
        with pytest.raises(RuntimeError, match=r"write_eof"):
            transport.write(b"more")
        with pytest.raises(RuntimeError, match=r"write_eof"):
            transport.writelines([b"more"])
        if "aws_io_async" in type(transport).__module__:  # asyncio from 3.12 on, uvloop never
            with pytest.raises(RuntimeError, match=r"write_eof"):
                transport.writelines([])
        assert await read_to_end(far) == BIG
        far.send(b"answer")
        assert await protocol.received(6) == b"answer"
        far.close()
        await protocol.has("lost")
    assert protocol.events[-2:] == ["eof", "lost"]


@both_pairs
async def test_eof_received_may_keep_the_writing_side_open(pair: Any) -> None:
    class Listening(Recorder):
        def eof_received(self) -> bool:
            super().eof_received()
            return True

    protocol = Listening()
    async with connection(protocol, pair) as (transport, far):
        far.shutdown(socket.SHUT_WR)
        await protocol.has("eof")
        await polled()
        assert protocol.events == ["made", "eof"]
        assert not transport.is_closing()
        transport.write(b"answer")
        transport.close()
        assert await read_to_end(far) == b"answer"
        await protocol.has("lost")
        assert protocol.lost_with is None


async def test_pausing_after_the_end_of_file_does_not_repeat_it() -> None:
    class Listening(Recorder):
        def eof_received(self) -> bool:
            super().eof_received()
            return True

    protocol = Listening()
    async with connection(protocol) as (transport, far):
        far.shutdown(socket.SHUT_WR)
        await protocol.has("eof")
        if type(transport).__module__ == "aws_io_async.event_loop._transport":
            transport.pause_reading()  # asyncio reports the end of file again
            transport.resume_reading()
        await polled()
        assert protocol.events == ["made", "eof"]


# Closing


async def test_close_sends_the_backlog_first() -> None:
    protocol = Recorder()
    async with connection(protocol) as (transport, far):
        transport.write(BIG)
        transport.close()
        assert transport.is_closing()
        assert not transport.is_reading()
        await polled()
        assert "lost" not in protocol.events
        assert await read_to_end(far) == BIG
        await protocol.has("lost")
        assert protocol.lost_with is None


async def test_abort_drops_the_backlog() -> None:
    protocol = Recorder()
    async with connection(protocol) as (transport, far):
        transport.write(BIG)
        transport.abort()
        assert transport.is_closing()
        await protocol.has("lost")
        assert transport.get_write_buffer_size() == 0
        assert protocol.lost_with is None
        assert len(await read_to_end(far)) < len(BIG)


async def test_abort_while_closing_ends_the_wait_for_the_peer() -> None:
    protocol = Recorder()
    async with connection(protocol) as (transport, far):
        transport.write(BIG)
        transport.close()
        transport.abort()
        await protocol.has("lost")
        assert len(await read_to_end(far)) < len(BIG)
    assert protocol.events.count("lost") == 1


@pytest.mark.loops("aws_io_async", "asyncio")  # uvloop warns in other words
async def test_writes_to_a_lost_connection_are_dropped_with_a_warning_in_the_end(
    caplog: pytest.LogCaptureFixture,
) -> None:
    protocol = Recorder()
    async with connection(protocol) as (transport, far):
        reset(far)
        await protocol.has("lost")
        with caplog.at_level(logging.WARNING, logger="asyncio"):
            for _ in range(4):
                transport.write(b"data")
        assert not caplog.records
        with caplog.at_level(logging.WARNING, logger="asyncio"):
            for _ in range(4):
                transport.write(b"data")
        assert "socket.send() raised exception." in caplog.text
        assert transport.get_write_buffer_size() == 0


async def test_a_reset_by_the_peer_while_reading() -> None:
    protocol = Recorder()
    async with connection(protocol) as (transport, far):
        reset(far)
        await protocol.has("lost")
        assert isinstance(protocol.lost_with, ConnectionResetError)
        assert transport.is_closing()
    assert protocol.events == ["made", "lost"]


async def test_a_reset_by_the_peer_while_writing() -> None:
    protocol = Recorder()
    async with connection(protocol) as (transport, far):
        transport.pause_reading()
        transport.write(BIG)
        reset(far)
        await protocol.has("lost")
        assert isinstance(protocol.lost_with, ConnectionError)
        assert transport.get_write_buffer_size() == 0
    assert protocol.events == ["made", "pause", "lost"]


async def test_a_reset_noticed_by_write() -> None:
    protocol = Recorder()
    async with connection(protocol) as (transport, far):
        transport.pause_reading()
        reset(far)
        while not transport.is_closing():
            transport.write(b"data")
            await asyncio.sleep(0)
        await protocol.has("lost")
        assert isinstance(protocol.lost_with, ConnectionError)
    assert protocol.events == ["made", "lost"]


@pytest.mark.loops("aws_io_async", "asyncio")  # uvloop keeps a reference of its own
async def test_a_forgotten_transport_says_so() -> None:
    near, far = tcp_pair()
    transport, protocol = await asyncio.get_running_loop().create_connection(Recorder, sock=near)
    transport.pause_reading()
    del transport, protocol, near
    with far, pytest.warns(ResourceWarning) as warned:
        gc.collect()
    assert any("unclosed transport" in str(warning.message) for warning in warned)


# What a transport tells about itself


async def test_extra_info() -> None:
    protocol = Recorder()
    near, far = tcp_pair()
    sockname, peername = near.getsockname(), near.getpeername()
    async with connection(protocol, lambda: (near, far)) as (transport, _):
        sock = transport.get_extra_info("socket")
        assert sock.fileno() == near.fileno()
        assert sock.family == socket.AF_INET
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        for _ in range(2):  # while it is open, and afterwards
            assert transport.get_extra_info("sockname") == sockname
            assert transport.get_extra_info("peername") == peername
            assert transport.get_extra_info("no such thing") is None
            assert transport.get_extra_info("no such thing", 42) == 42
            transport.close()
            await protocol.has("lost")
            await polled()


@pytest.mark.loops("aws_io_async", "asyncio")  # uvloop's socket is a PseudoSocket
async def test_the_socket_is_a_transport_socket() -> None:
    protocol = Recorder()
    async with connection(protocol) as (transport, _):
        assert isinstance(transport.get_extra_info("socket"), TransportSocket)


@pytest.mark.loops("aws_io_async", "asyncio")  # uvloop's take nothing
async def test_a_method_can_be_replaced_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs' tests do that to lose or to record what is written: aiohttp's and uvicorn's do."""
    async with connection(Recorder()) as (transport, far):
        lost: list[bytes] = []
        with monkeypatch.context() as patch:
            patch.setattr(transport, "write", lost.append)
            transport.write(b"lost")
        transport.write(b"sent")
        assert lost == [b"lost"]
        assert await read_exactly(far, 4) == b"sent"


@pytest.mark.loops("aws_io_async")
async def test_repr_tells_the_state() -> None:
    protocol = Recorder()
    async with connection(protocol) as (transport, _):
        assert "reading backlog=0" in repr(transport)
        transport.pause_reading()
        transport.write(BIG)
        assert f"paused backlog={transport.get_write_buffer_size()}" in repr(transport)
        transport.close()
        assert "closing" in repr(transport)
        transport.abort()
        assert "closed backlog=0" in repr(transport)


# Owning the descriptor


@pytest.mark.loops("aws_io_async", "asyncio")  # uvloop's sock_* do not look
async def test_a_transports_descriptor_has_no_other_user() -> None:
    loop = asyncio.get_running_loop()
    protocol = Recorder()
    near, far = tcp_pair()
    async with connection(protocol, lambda: (near, far)):
        with pytest.raises(RuntimeError, match="is used by transport"):
            loop.add_reader(near.fileno(), lambda: None)
        with pytest.raises(RuntimeError, match="is used by transport"):
            loop.remove_writer(near)
        with pytest.raises(RuntimeError, match="is used by transport"):
            await loop.sock_recv(near, 1)
        if type(loop).__module__.startswith("aws_io_async"):  # asyncio looks from 3.12 on
            with pytest.raises(RuntimeError, match="is used by transport"):
                await loop.create_connection(Recorder, sock=near)
        far.send(b"still the first one's")
        assert await protocol.received(21) == b"still the first one's"


async def test_a_closed_connections_number_may_be_used_again() -> None:
    for _ in range(20):
        first = Recorder()
        async with connection(first) as (transport, far):
            transport.close()
            await first.has("lost")
            await asyncio.sleep(0)
        near, far = tcp_pair()
        second = Recorder()
        async with connection(second, partial(lambda *ends: ends, near, far)) as (_, far):
            first.transport.close()
            first.transport.abort()
            first.transport.pause_reading()
            far.send(b"mine")
            assert await second.received(4) == b"mine"
        assert first.data == b""
