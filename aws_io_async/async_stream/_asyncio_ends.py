"""Our streams, or anyio's, for code that wants asyncio's `StreamReader` or `StreamWriter`.

A task stands where asyncio has a socket: it feeds the reader, or empties the writer's buffer. What
asyncio's streams ask of their transport, to pause and to resume, goes to that task.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
from anyio.abc import ByteReceiveStream, ByteSendStream

from ._input import DEFAULT_READ_SIZE


@asynccontextmanager
async def stream_reader(
    source: ByteReceiveStream, *, limit: int = DEFAULT_READ_SIZE
) -> AsyncIterator[asyncio.StreamReader]:
    """`source` as a `StreamReader` of asyncio, for the time of the `async with`.

    Up to three times `limit` bytes are read ahead; those that were not read when it ends are gone.
    What the source raises is raised by the reader. `source` stays open.
    """
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=limit, loop=loop)
    gate = _Gate()
    reader.set_transport(gate)
    feeding = loop.create_task(_feed(reader, source, gate, limit))
    try:
        yield reader
    finally:
        feeding.cancel()
        await asyncio.wait([feeding])


class _Gate(asyncio.ReadTransport):
    """The part of a transport that a `StreamReader` knows."""

    def __init__(self) -> None:
        super().__init__()
        self.open = asyncio.Event()
        self.open.set()

    def pause_reading(self) -> None:
        self.open.clear()

    def resume_reading(self) -> None:
        self.open.set()


async def _feed(
    reader: asyncio.StreamReader, source: ByteReceiveStream, gate: _Gate, limit: int
) -> None:
    try:
        while True:
            await gate.open.wait()
            reader.feed_data(await source.receive(limit))
    except anyio.EndOfStream:
        reader.feed_eof()
    except Exception as exc:
        reader.set_exception(exc)


@asynccontextmanager
async def stream_writer(sink: ByteSendStream) -> AsyncIterator[asyncio.StreamWriter]:
    """`sink` as a `StreamWriter` of asyncio, for the time of the `async with`.

    At the end of the block what was written is sent; if it ends with an exception, what was not
    sent yet is gone. What the sink raises is raised by `drain()`, and at the end of the block.
    `sink` stays open.
    """
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(loop=loop)
    protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
    transport = _SinkTransport(loop, protocol, sink)
    writer = asyncio.StreamWriter(transport, protocol, reader, loop)
    try:
        yield writer
        writer.close()
        await writer.wait_closed()
    finally:
        transport.abort()
        await asyncio.wait([transport.sending])


class _SinkTransport(asyncio.WriteTransport):
    """Takes what is written into a buffer; a task sends it to the sink."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        protocol: asyncio.StreamReaderProtocol,
        sink: ByteSendStream,
    ) -> None:
        super().__init__()
        self._protocol = protocol
        self._sink = sink
        self._buffer = bytearray()
        self._in_hand = 0
        self._closing = False
        self._paused = False
        self._changed = asyncio.Event()
        self.set_write_buffer_limits()
        protocol.connection_made(self)
        self.sending = loop.create_task(self._send())
        self.sending.add_done_callback(self._ended)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._closing:
            return  # as asyncio's transports do; `drain()` says that the sink is gone
        self._buffer += data
        self._changed.set()
        if not self._paused and self.get_write_buffer_size() > self._high:
            self._paused = True
            self._protocol.pause_writing()

    async def _send(self) -> None:
        while self._buffer or not self._closing:
            if not self._buffer:
                self._changed.clear()
                await self._changed.wait()
                continue
            data = bytes(self._buffer)
            self._buffer.clear()
            self._in_hand = len(data)
            await self._sink.send(data)
            self._in_hand = 0
            self._resume()

    def _ended(self, sending: "asyncio.Task[None]") -> None:
        """The task has, which may have been cancelled before it began."""
        failure = None if sending.cancelled() else sending.exception()
        self._closing = True
        self._buffer.clear()
        self._in_hand = 0
        self._protocol.connection_lost(failure if isinstance(failure, Exception) else None)

    def _resume(self) -> None:
        if self._paused and self.get_write_buffer_size() <= self._low:
            self._paused = False
            self._protocol.resume_writing()

    def close(self) -> None:
        self._closing = True
        self._changed.set()

    def abort(self) -> None:
        self._closing = True
        self.sending.cancel()

    def is_closing(self) -> bool:
        return self._closing

    def can_write_eof(self) -> bool:
        return False

    def get_write_buffer_size(self) -> int:
        return len(self._buffer) + self._in_hand

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return self._low, self._high

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        if high is None:
            high = DEFAULT_READ_SIZE if low is None else 4 * low
        if low is None:
            low = high // 4
        if not high >= low >= 0:
            raise ValueError(f"high ({high}) must be at least low ({low}), and low at least 0")
        self._high, self._low = high, low
