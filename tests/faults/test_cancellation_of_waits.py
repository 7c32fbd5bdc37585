"""What cancelled waits leave where no descriptor or task tells: files in use, lists, reports."""

import asyncio
import gc
import io
import socket
import sys
import threading
import weakref
from typing import Any

import pytest

from aws_io_async import connect, new_event_loop
from aws_io_async.async_stream import AsyncOutputStream, stream_writer
from aws_io_async.pipe import open_pipe

pytestmark = pytest.mark.loops("aws_io_async")


class SlowFile(io.BytesIO):
    """A file that takes its time to be read."""

    def __init__(self, data: bytes, error: Exception | None = None) -> None:
        super().__init__(data)
        self.error = error
        self.being_read = threading.Event()
        self.let_go = threading.Event()
        self.reads_under_way = 0

    def readinto(self, buffer: Any) -> int:
        self.reads_under_way += 1
        self.being_read.set()
        self.let_go.wait(30)
        if self.error is not None:
            raise self.error
        size = super().readinto(buffer)
        self.reads_under_way -= 1
        return size


@pytest.mark.parametrize("cancellations", [1, 2])
async def test_a_cancelled_sendfile_does_not_read_any_more(cancellations: int) -> None:
    """The caller closes the file next, and its descriptor may be another's then."""
    loop: Any = asyncio.get_running_loop()
    near, far = socket.socketpair()
    with near, far, SlowFile(b"data") as file:
        near.setblocking(False)
        sending = asyncio.ensure_future(loop.sock_sendfile(near, file))
        await asyncio.to_thread(file.being_read.wait, 30)
        for _ in range(cancellations):
            sending.cancel()
            await asyncio.sleep(0)
        assert not sending.done()
        file.let_go.set()
        await asyncio.wait({sending})
        assert sending.cancelled()
        assert not file.reads_under_way
        assert file.tell() == 0  # as nothing was sent


async def test_an_error_of_a_file_that_nobody_waits_for_is_no_news() -> None:
    loop: Any = asyncio.get_running_loop()
    reports: list[Any] = []
    loop.set_exception_handler(lambda _, context: reports.append(context))
    near, far = socket.socketpair()
    with near, far, SlowFile(b"data", OSError("on purpose")) as file:
        near.setblocking(False)
        sending = asyncio.ensure_future(loop.sock_sendfile(near, file))
        await asyncio.to_thread(file.being_read.wait, 30)
        sending.cancel()
        await asyncio.sleep(0)
        file.let_go.set()
        await asyncio.wait({sending})
        assert sending.cancelled()
        del sending
        gc.collect()
    assert not reports


async def count_waiting(make: Any) -> int:
    """How many futures are still there of those of ten waits that were cancelled."""
    futures: weakref.WeakSet[asyncio.Future[Any]] = weakref.WeakSet()
    loop = asyncio.get_running_loop()
    create_future = loop.create_future

    def note() -> "asyncio.Future[Any]":
        future = create_future()
        futures.add(future)
        return future

    loop.create_future = note  # type: ignore[method-assign]
    try:
        for _ in range(10):
            task = asyncio.ensure_future(make())
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait({task})
    finally:
        del loop.create_future
    del task
    gc.collect()
    return len(futures)


async def test_a_server_forgets_who_has_given_up_waiting_for_its_end() -> None:
    server = await asyncio.get_running_loop().create_server(asyncio.Protocol, "127.0.0.1", 0)
    assert await count_waiting(server.wait_closed) < 5
    server.close()
    await server.wait_closed()


async def test_a_child_forgets_who_has_given_up_waiting_for_its_end() -> None:
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", "input()", stdin=asyncio.subprocess.PIPE
    )
    assert await count_waiting(child.wait) < 5
    assert child.stdin is not None
    child.stdin.write(b"\n")
    assert await child.wait() == 0
    child.stdin.close()


async def test_a_writer_whose_block_ends_before_it_has_begun_to_send_is_closed() -> None:
    source, sink = open_pipe()
    async with source, sink:
        with pytest.raises(ValueError):
            async with stream_writer(AsyncOutputStream.from_pipe(sink)) as writer:
                writer.write(b"data")
                raise ValueError
        assert writer.is_closing()
        await writer.wait_closed()


async def test_a_loop_that_ends_while_a_channel_gets_its_transport() -> None:
    """No callback fails on the way."""
    reports: list[Any] = []

    def main(turns: int) -> None:
        async def connect_and_wait() -> None:
            asyncio.get_running_loop().set_exception_handler(
                lambda _, context: reports.append(context)
            )
            task = asyncio.ensure_future(connect("127.0.0.1", listener.getsockname()[1]))
            for _ in range(turns):
                await asyncio.sleep(0)
            if task.done():
                task.result().channel.shutdown(immediately=True)
                await task.result().channel.wait_closed()

        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            runner.run(connect_and_wait())

    with socket.create_server(("127.0.0.1", 0)) as listener:
        for turns in range(24):
            await asyncio.to_thread(main, turns)
    assert not reports
