"""Scenes: streams that are awaited, copying, asyncio's streams over ours, the tools for tests."""

import asyncio
from typing import Any

from aws_io_async.async_stream import (
    AsyncInputStream,
    AsyncOutputStream,
    pump,
    stream_reader,
    stream_writer,
)
from aws_io_async.channel import ChannelState
from aws_io_async.pipe import open_pipe
from aws_io_async.stream import InputStream
from aws_io_async.testing import (
    AsyncInputStreamTester,
    TestingChannel,
    check_handler,
)
from tests.bootstraps import Echo
from tests.faults.cancellation import Injection
from tests.faults.scenes import DATA, OURS_ALONE, folder, injected, scene

SIZE = 300_000


@scene("AsyncInputStream.from_path", "AsyncInputStream.aclose")
async def from_path(inject: Injection) -> None:
    with folder() as path:
        (path / "file").write_bytes(DATA)
        outcome = await inject(AsyncInputStream.from_path(path / "file"))
        if not outcome.cancelled:
            await inject(outcome.result.aclose())


@scene("AsyncInputStream.read")
async def read_file(inject: Injection) -> None:
    with folder() as path:
        (path / "file").write_bytes(DATA)
        async with await AsyncInputStream.from_path(path / "file") as stream:
            assert await injected(inject, stream.read) == DATA
            assert await injected(inject, stream.read) == b""


@scene("AsyncInputStream.read_to_fill")
async def read_to_fill(inject: Injection) -> None:
    with folder() as path:
        (path / "file").write_bytes(DATA)
        with (path / "file").open("rb", 0) as file:
            stream = AsyncInputStream.from_open_file(Trickle(file))  # type: ignore[arg-type]  # reads
            async with stream:
                assert await injected(inject, lambda: stream.read_to_fill(12)) == DATA[:12]
                assert await injected(inject, lambda: stream.read_to_fill(100)) == DATA[12:]


class Trickle:
    """A file that gives eight bytes at a time."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def read(self, size: int) -> bytes:
        return self._file.read(min(size, 8))  # type: ignore[no-any-return]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


@scene("AsyncInputStream.receive")
async def receive_from_pipe(inject: Injection) -> None:
    source, sink = open_pipe()
    async with source, sink:
        stream = AsyncInputStream.from_pipe(source)
        got = await injected(
            inject, stream.receive, lambda: asyncio.ensure_future(sink.write(DATA))
        )
        assert got == DATA


@scene()
async def receive_from_reader(inject: Injection) -> None:
    reader = asyncio.StreamReader()
    stream = AsyncInputStream.from_reader(reader)
    assert await injected(inject, stream.receive, lambda: reader.feed_data(DATA)) == DATA


@scene()
async def receive_from_stream(inject: Injection) -> None:
    """Whose source has nothing for once."""
    source = AsyncInputStream.from_stream(Hesitant(DATA))
    assert await injected(inject, source.receive) == DATA


class Hesitant(InputStream):
    def __init__(self, data: bytes) -> None:
        self._source = InputStream.from_bytes(data)
        self._asked = 0

    def get_status(self) -> Any:
        return self._source.get_status()

    def get_length(self) -> int:
        return self._source.get_length()

    def _read(self, size: int) -> bytes:
        self._asked += 1
        return b"" if self._asked == 1 else self._source.read(size)

    def _seek(self, offset: int, basis: Any) -> None:
        self._source.seek(offset, basis)

    def _close(self) -> None:
        self._source.close()


@scene("AsyncOutputStream.from_path", "AsyncOutputStream.aclose")
async def output_from_path(inject: Injection) -> None:
    with folder() as path:
        outcome = await inject(AsyncOutputStream.from_path(path / "file"))
        if not outcome.cancelled:
            await outcome.result.write(DATA)
            await inject(outcome.result.aclose())
            assert (path / "file").read_bytes() == DATA


@scene("AsyncOutputStream.write", "AsyncOutputStream.send")
async def write_file(inject: Injection) -> None:
    with folder() as path:
        async with await AsyncOutputStream.from_path(path / "file") as stream:
            first = await inject(stream.write(b"first"))
            second = await inject(stream.send(b"second"))
            await stream.write(b"third")
        written = (path / "file").read_bytes()
        assert written in (b"firstsecondthird", b"firstthird", b"secondthird", b"third")
        assert first.cancelled or written.startswith(b"first")
        assert second.cancelled or b"second" in written


@scene()
async def write_to_pipe(inject: Injection) -> None:
    source, sink = open_pipe()
    data = bytes(SIZE)
    async with source, AsyncOutputStream.from_pipe(sink) as stream:
        reading = asyncio.ensure_future(everything(source))
        outcome = await inject(stream.write(data))
        sink.close()
        assert await reading == (SIZE if not outcome.cancelled else reading.result())


async def everything(source: Any) -> int:
    size = 0
    while data := await source.read():
        size += len(data)
    return size


@scene("pump")
async def copy(inject: Injection) -> None:
    """Cancelled, what was not copied is still in the source, but for one chunk."""
    into, out = open_pipe()
    with folder() as path:
        (path / "file").write_bytes(bytes(SIZE))
        reading = asyncio.ensure_future(everything(into))
        source = await AsyncInputStream.from_path(path / "file")
        async with into, source:
            sink = AsyncOutputStream.from_pipe(out)
            outcome = await inject(pump(source, sink, chunk_size=100_000))
            out.close()
            copied = await reading
            rest = await source.read_to_fill(SIZE)
            if outcome.cancelled:
                assert SIZE - 100_000 <= copied + len(rest) <= SIZE
            else:
                assert outcome.result == copied == SIZE


@scene("stream_reader")
async def reader_of_asyncio(inject: Injection) -> None:
    async def block() -> bytes:
        async with stream_reader(AsyncInputStream.from_pipe(source)) as reader:
            return await reader.readexactly(len(DATA))

    source, sink = open_pipe()
    async with source, sink:
        outcome = await inject(block(), lambda: asyncio.ensure_future(sink.write(DATA)))
        assert outcome.cancelled or outcome.result == DATA


@scene("stream_writer")
async def writer_of_asyncio(inject: Injection) -> None:
    async def block() -> None:
        async with stream_writer(AsyncOutputStream.from_pipe(sink)) as writer:
            writer.write(bytes(SIZE))
            await writer.drain()
            writer.write(DATA)

    source, sink = open_pipe()
    async with source:
        reading = asyncio.ensure_future(everything(source))
        async with sink:
            outcome = await inject(block())
        size = await reading
        assert outcome.cancelled or size == SIZE + len(DATA)


# The tools for tests


@scene()
async def read_from_tester(inject: Injection) -> None:
    async with AsyncInputStreamTester(DATA) as stream:
        outcome = await inject(stream.read())
        assert outcome.cancelled or outcome.result == DATA


@scene(
    "TestingChannel.__aenter__",
    "TestingChannel.__aexit__",
    "TestingChannel.settle",
    "TestingChannel.until",
    "TestingChannel.wait_closed",
)
async def testing_channel(inject: Injection) -> None:
    channels: list[TestingChannel] = []

    async def block() -> bytes:
        channels.append(TestingChannel(Echo(), enable_read_back_pressure=False))
        async with channels[0] as channel:
            channel.push_read(DATA)
            await channel.settle()
            await channel.until(lambda: channel.written)
        await channel.wait_closed()
        return channel.take_written()

    async def wait() -> None:
        await channels[0].wait_closed()

    outcome = await inject(block())
    assert outcome.cancelled or outcome.result == DATA
    if outcome.cancelled:
        channels[0].shutdown(immediately=True)
        await wait()
    channels.insert(0, TestingChannel(Echo()))
    await inject(wait(), channels[0].shutdown)
    channels[0].shutdown(immediately=True)
    await wait()


@scene("check_handler", others=OURS_ALONE)
async def check_a_handler(inject: Injection) -> None:
    def factory() -> Echo:
        handlers.append(Echo())
        return handlers[-1]

    handlers: list[Echo] = []
    outcome = await inject(check_handler(factory, reads=[b"ab"], windows=(1,), splits=1))
    if outcome.cancelled:
        for slot in [handler.slot for handler in handlers]:
            assert slot is None or slot.channel.state is ChannelState.SHUT_DOWN
