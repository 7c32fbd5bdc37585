"""Fan-in: lines from a pipe and from sockets, into one log.

    python examples/fan_in.py [FILE]            (without a FILE the log goes to standard output)

A worker, whose loop runs on another thread, writes its lines into a pipe; clients send theirs over
TCP. The three are byte streams of the same kind by the time they arrive, and one function copies
them all. The log takes one line at a time. Whoever waits for it does not read meanwhile, so a slow
log holds back the worker, by the pipe, and the clients, by the windows of their channels.
"""

import asyncio
import contextlib
import sys

import anyio
from anyio.abc import ByteReceiveStream
from anyio.streams.buffered import BufferedByteReceiveStream

from aws_io_async import ChannelStream, EventLoopGroup, connect, run, serve
from aws_io_async.async_stream import AsyncInputStream, AsyncOutputStream
from aws_io_async.pipe import WriteEnd, open_pipe

LINES = 5
LONGEST = 64 * 1024
"""Bytes of a line; a source whose lines are longer is an error, and no reason to buffer more."""


class Log:
    """Lines of several sources, one after the other, in one stream."""

    def __init__(self, sink: AsyncOutputStream) -> None:
        self._sink = sink
        self._turn = asyncio.Lock()  # a stream has one writer at a time

    async def copy(self, name: str, source: ByteReceiveStream) -> int:
        """Log all lines of `source`, with its name before each; returns how many there were."""
        lines, count = BufferedByteReceiveStream(source), 0
        with contextlib.suppress(anyio.IncompleteRead):  # the end
            while True:
                await self._write(name, await lines.receive_until(b"\n", LONGEST))
                count += 1
        if lines.buffer:  # a last line that was not ended
            await self._write(name, lines.buffer)
            count += 1
        return count

    async def _write(self, name: str, line: bytes) -> None:
        async with self._turn:
            await self._sink.write(b"%s: %s\n" % (name.encode(), line))


async def work(end: WriteEnd) -> None:
    """Runs on the worker's thread, on whose loop the pipe has this end."""
    async with end:
        for number in range(LINES):
            await end.write(b"work item %d is done\n" % number)


async def send_lines(port: int, name: str) -> None:
    async with await connect("127.0.0.1", port) as stream:
        for number in range(LINES):
            await stream.send(f"{name} sends line {number}\n".encode())
        await stream.send(f"{name} says goodbye".encode())
        await stream.send_eof()  # our side has ended; the server may still answer
        print(f"{name}: the server has logged {(await stream.receive()).decode()} lines")


async def main(sink: AsyncOutputStream) -> None:
    log = Log(sink)

    async def log_client(stream: ChannelStream) -> None:
        logged = await log.copy("socket", stream)
        await stream.send(f"{logged}".encode())

    async with EventLoopGroup(1) as group, serve(log_client, "127.0.0.1") as listener:
        worker_loop = group.get_loop_at(0)
        read_end, write_end = open_pipe(write_loop=worker_loop)
        async with read_end, asyncio.TaskGroup() as tasks:
            tasks.create_task(group.run(work(write_end), worker_loop))
            copied = tasks.create_task(log.copy("pipe", AsyncInputStream.from_pipe(read_end)))
            for name in "Ann", "Bob":
                tasks.create_task(send_lines(listener.endpoint.port, name))
    print(f"worker: {copied.result()} lines were logged")


async def open_and_run(arguments: list[str]) -> None:
    if arguments:
        async with await AsyncOutputStream.from_path(arguments[0]) as sink:
            await main(sink)
    else:
        await main(AsyncOutputStream.from_open_file(sys.stdout.buffer))


if __name__ == "__main__":
    if len(sys.argv) > 2 or sys.argv[1:2] in (["-h"], ["--help"]):
        sys.exit(__doc__)
    run(open_and_run(sys.argv[1:]))
