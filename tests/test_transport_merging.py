"""Writes of one turn may be sent together at its end, which nobody notices but by the speed."""

import asyncio
import random
import socket
import struct
import sys
import tempfile
from collections.abc import Callable
from typing import Any

import pytest

import aws_io_async
from tests.connections import connection, read_exactly, read_to_end, unix_pair
from tests.loops import FACTORIES
from tests.recorders import Recorder
from tests.socket_tools import tcp_pair

ours_and_asyncios = pytest.mark.loops("aws_io_async", "asyncio")  # uvloop sends late


def writer(transport: Any, *pieces: bytes) -> Callable[[], None]:
    def write() -> None:
        for piece in pieces:
            transport.write(piece)

    return write


async def in_one_turn(call: Callable[[], object]) -> None:
    """Call it from the loop, and come back when that turn is over."""

    async def turn() -> None:
        call()

    await asyncio.ensure_future(turn())


async def begin_to_merge(transport: Any, far: socket.socket) -> None:
    await in_one_turn(writer(transport, b"be", b"gin"))
    assert await read_exactly(far, 5) == b"begin"


def segments_sent(sock: socket.socket) -> int:
    """tcpi_data_segs_out."""
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 160)
    return int(struct.unpack_from("I", info, 156)[0])


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux's TCP")
@pytest.mark.loops("aws_io_async")
async def test_a_head_and_a_body_go_out_together() -> None:
    protocol = Recorder()
    async with connection(protocol) as (transport, far):
        sock = transport.get_extra_info("socket")
        await begin_to_merge(transport, far)
        before = segments_sent(sock)
        for _ in range(20):
            await in_one_turn(writer(transport, b"head", b"body", b"end"))
            assert await read_exactly(far, 11) == b"headbodyend"
        assert segments_sent(sock) - before == 20


@pytest.mark.parametrize("pair", [tcp_pair, unix_pair])
async def test_bytes_arrive_in_the_order_of_the_calls(pair: Any) -> None:
    dice = random.Random(5)
    said = bytearray()
    protocol = Recorder()

    def write(transport: Any) -> None:
        for _ in range(dice.randint(1, 6)):
            data = dice.randbytes(dice.choice((1, 100, 5_000, 20_000)))
            said.extend(data)
            match dice.randint(0, 3):
                case 0:
                    transport.write(data)
                case 1:
                    transport.write(memoryview(data))
                case 2:
                    changing = bytearray(data)
                    transport.write(changing)
                    if len(data) <= 100:  # asyncio may keep what the kernel does not take
                        changing[:] = bytes(len(data))
                case 3:
                    transport.writelines([data[:50], b"", data[50:]])

    async with connection(protocol, pair) as (transport, far):
        for _ in range(100):
            begun = len(said)
            await in_one_turn(lambda: write(transport))
            assert await read_exactly(far, len(said) - begun) == said[begun:]


def close(transport: Any) -> None:
    transport.close()


def abort(transport: Any) -> None:
    transport.abort()


def write_eof(transport: Any) -> None:
    transport.write_eof()


def write_much(transport: Any) -> None:
    transport.write(bytes(1 << 20))
    transport.close()


def write_much_of_anothers(transport: Any) -> None:
    transport.write(memoryview(bytearray(1 << 20)))
    transport.close()


def write_lines(transport: Any) -> None:
    transport.writelines([bytes(10), bytes(1 << 20)])
    transport.close()


def close_twice(transport: Any) -> None:
    transport.write(b"!")
    transport.close()
    transport.close()
    transport.abort()


ENDS: dict[Callable[[Any], None], bytes] = {
    close: b"",
    abort: b"",
    write_eof: b"",
    write_much: bytes(1 << 20),
    write_much_of_anothers: bytes(1 << 20),
    write_lines: bytes((1 << 20) + 10),
    close_twice: b"!",
}


@ours_and_asyncios
@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("pair", [tcp_pair, unix_pair])
async def test_what_was_written_comes_before_what_is_done_then(
    end: Callable[[Any], None], pair: Any
) -> None:
    protocol = Recorder()
    async with connection(protocol, pair) as (transport, far):
        await begin_to_merge(transport, far)

        def write_and_end() -> None:
            transport.write(b"one")
            transport.write(b"two")
            end(transport)

        await in_one_turn(write_and_end)
        assert await read_to_end(far) == b"onetwo" + ENDS[end]


@ours_and_asyncios
@pytest.mark.parametrize("end", ENDS)
async def test_what_was_written_fails_before_what_is_done_then(end: Callable[[Any], None]) -> None:
    protocol = Recorder()
    async with connection(protocol, unix_pair) as (transport, far):
        await begin_to_merge(transport, far)
        far.close()

        def write_and_end() -> None:
            transport.write(b"one")
            transport.write(b"two")
            end(transport)

        await in_one_turn(write_and_end)
        await protocol.has("lost")
    assert protocol.events.count("lost") == 1
    assert protocol.lost_with is None or isinstance(protocol.lost_with, BrokenPipeError)


@ours_and_asyncios
async def test_a_file_that_follows_a_write_that_fails_is_not_sent() -> None:
    protocol = Recorder()
    async with connection(protocol, unix_pair) as (transport, far):
        await begin_to_merge(transport, far)
        far.close()
        with tempfile.TemporaryFile() as file:
            file.write(b"file")
            file.seek(0)
            transport.write(b"he")
            transport.write(b"ad")
            with pytest.raises((RuntimeError, OSError)):
                await asyncio.get_running_loop().sendfile(transport, file)


@ours_and_asyncios
async def test_a_file_follows_what_was_written() -> None:
    protocol = Recorder()
    async with connection(protocol) as (transport, far):
        await begin_to_merge(transport, far)
        with tempfile.TemporaryFile() as file:
            file.write(b"file")
            file.seek(0)
            transport.write(b"he")
            transport.write(b"ad")
            assert await asyncio.get_running_loop().sendfile(transport, file) == 4
        assert await read_exactly(far, 8) == b"headfile"


@ours_and_asyncios
async def test_the_peer_has_gone() -> None:
    protocol = Recorder()
    async with connection(protocol, unix_pair) as (transport, far):
        await begin_to_merge(transport, far)
        far.close()
        await in_one_turn(writer(transport, b"one", b"two"))
        await protocol.has("lost")
        await in_one_turn(writer(transport, b"three", b"four"))


@pytest.mark.loops("aws_io_async")
async def test_one_write_a_turn_leaves_at_once() -> None:
    protocol = Recorder()
    async with connection(protocol) as (transport, far):
        await begin_to_merge(transport, far)
        await in_one_turn(writer(transport, b"held"))
        assert await read_exactly(far, 4) == b"held"
        transport.write(b"at once")
        assert transport.get_write_buffer_size() == 0
        assert far.recv(10) == b"at once"


@pytest.mark.loops("aws_io_async")
async def test_a_turn_does_not_hold_much() -> None:
    """Neither more than some bytes nor any for a protocol that is to know of each in the buffer."""
    protocol = Recorder()
    async with connection(protocol) as (transport, far):
        await begin_to_merge(transport, far)
        for size in (1, 9_999, 10_000):
            transport.write(bytes(size))
        assert transport.get_write_buffer_size() == 0
        assert await read_exactly(far, 20_000) == bytes(20_000)
        await in_one_turn(writer(transport, b"be", b"gin"))
        assert await read_exactly(far, 5) == b"begin"
        transport.write(b"held")
        transport.set_write_buffer_limits(high=0)
        assert transport.get_write_buffer_size() == 0
        assert await read_exactly(far, 4) == b"held"
        for _ in range(3):
            await in_one_turn(writer(transport, b"one", b"two"))
            assert await read_exactly(far, 6) == b"onetwo"
    assert "pause" not in protocol.events


async def test_a_peer_that_does_not_read_pauses_the_writer() -> None:
    protocol = Recorder()
    total = 0
    async with connection(protocol) as (transport, far):
        await begin_to_merge(transport, far)
        while "pause" not in protocol.events:
            await in_one_turn(writer(transport, bytes(10_000), bytes(5_000), bytes(10_000)))
            total += 25_000
        assert await read_exactly(far, total) == bytes(total)
        await protocol.has("resume")
        await in_one_turn(writer(transport, b"one", b"two"))
        assert await read_exactly(far, 6) == b"onetwo"


@pytest.fixture(params=["aws_io_async", "asyncio"])
def loop(request: pytest.FixtureRequest) -> Any:
    loop = FACTORIES[request.param]()
    yield loop
    loop.close()


@pytest.fixture
def merging(loop: Any) -> Any:
    """A transport that merges, and the other end of its connection."""
    near, far = tcp_pair()
    far.setblocking(False)
    transport, protocol = loop.run_until_complete(loop.create_connection(Recorder, sock=near))
    loop.run_until_complete(begin_to_merge(transport, far))
    with far:
        yield transport, far
        transport.abort()
        loop.run_until_complete(protocol.has("lost"))
        loop.run_until_complete(asyncio.sleep(0))


def test_what_is_written_while_the_loop_rests_leaves_at_once(merging: Any) -> None:
    transport, far = merging
    transport.write(b"one")
    transport.write(b"two")
    assert far.recv(10) == b"onetwo"


def test_what_is_written_before_the_loop_is_stopped_leaves_first(loop: Any, merging: Any) -> None:
    transport, far = merging

    def write() -> None:
        transport.write(b"one")
        transport.write(b"two")
        loop.stop()

    loop.call_soon(write)
    loop.run_forever()
    assert far.recv(10) == b"onetwo"


@pytest.mark.parametrize("end", [SystemExit, KeyboardInterrupt])
def test_what_is_written_before_the_program_ends_leaves_first(
    loop: Any, merging: Any, end: type[BaseException]
) -> None:
    transport, far = merging

    def write() -> None:
        transport.write(b"one")
        transport.write(b"two")
        raise end

    loop.call_soon(write)
    with pytest.raises(end):
        loop.run_forever()
    assert far.recv(10) == b"onetwo"


def test_a_loop_that_is_never_run_again_loses_nothing() -> None:
    async def serve(writer: asyncio.StreamWriter) -> None:
        for _ in range(2):
            writer.write(b"head")
            writer.write(b"body")
            await asyncio.sleep(0)
        writer.write(b"head")
        writer.write(b"body")

    async def main(near: socket.socket) -> None:
        _, writer = await asyncio.open_connection(sock=near)
        await serve(writer)
        writer.close()
        await writer.wait_closed()

    near, far = unix_pair()
    with far:
        aws_io_async.run(main(near))
        assert far.recv(100) == b"headbody" * 3
