"""The files behind pipe transports: their kinds, and who closes them when."""

import asyncio
import gc
import io
import os
import pty
import tty
from pathlib import Path
from typing import Any

import pytest

from tests import loops
from tests.pipe_ends import BIG, Recorder, open_pipe, read_from, write_to


def forget(objects: list[Any]) -> None:
    objects.clear()
    gc.collect()


class CountedFile(io.FileIO):
    """Knows how often its fd was really closed."""

    closes = 0

    def close(self) -> None:
        if not self.closed:
            os.fstat(self.fileno())  # EBADF if someone else has closed it
            self.closes += 1
        super().close()


# Kinds of files


async def test_named_pipe(tmp_path: Path) -> None:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    reading = io.FileIO(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "r")
    writing = io.FileIO(os.open(path, os.O_WRONLY), "w")
    _, received = await read_from(reading)
    transport, protocol = await write_to(writing)
    transport.write(BIG)
    transport.close()
    await received.closed
    await protocol.closed
    assert received.data == BIG


async def test_terminal() -> None:
    master, slave = pty.openpty()
    tty.setraw(slave)
    screen, received = await read_from(io.FileIO(master, "r"))
    terminal, protocol = await write_to(io.FileIO(slave, "w"))
    terminal.write(b"hello")
    assert await received.received(5) == b"hello"
    terminal.close()
    await protocol.closed
    await received.closed  # by an end of file or by EIO: systems differ
    assert screen.is_closing()


async def test_input_on_a_terminal_does_not_end_its_write_transport() -> None:
    master, slave = pty.openpty()
    tty.setraw(slave)
    transport, protocol = await write_to(io.FileIO(slave, "w"))
    screen, received = await read_from(io.FileIO(os.dup(master), "r"))
    os.write(master, b"typed")
    transport.write(b"printed")
    assert await received.received(7) == b"printed"
    transport.close()
    await protocol.closed
    assert protocol.lost_with is None
    screen.close()
    await received.closed
    os.close(master)


@pytest.mark.loops("aws_io_async", "asyncio")  # uvloop takes regular files
@pytest.mark.parametrize("connect", [read_from, write_to])
async def test_regular_file_is_refused_and_stays_the_callers(tmp_path: Path, connect: Any) -> None:
    (tmp_path / "file").write_bytes(b"contents")
    with io.FileIO(tmp_path / "file", "r+") as file:
        with pytest.raises(ValueError, match=r"pipes.*sockets"):
            await connect(file)
        gc.collect()
        assert file.read() == b"contents"
        assert os.get_blocking(file.fileno())


@pytest.mark.loops("aws_io_async", "uvloop")  # asyncio's half-made transport warns when collected
@pytest.mark.parametrize("connect", [read_from, write_to])
async def test_closed_file_is_refused(connect: Any) -> None:
    reading, writing = open_pipe()
    reading.close()
    writing.close()
    with pytest.raises(ValueError):
        await connect(reading)


@pytest.mark.loops("aws_io_async")  # asyncio logs, and reads never
async def test_device_that_epoll_refuses_fails_at_once_or_is_read() -> None:
    device = io.FileIO("/dev/null", "r")
    try:
        _, protocol = await read_from(device)
    except PermissionError:
        await asyncio.sleep(0)
    else:  # polled by something else
        await protocol.closed
        assert protocol.events == ["made", "eof", "lost"]
        await asyncio.sleep(0)
    assert device.closed


# Owning the file


@pytest.mark.loops("aws_io_async", "asyncio")  # uvloop closes the fd twice
@pytest.mark.parametrize("side", ["read", "write"])
async def test_cancelled_connect_closes_the_pipe_once(side: str) -> None:
    for delay in range(3):  # turns of the loop before the cancellation
        reading, writing = os.pipe()
        pipe = CountedFile(*((reading, "r") if side == "read" else (writing, "w")))
        task = asyncio.ensure_future((read_from if side == "read" else write_to)(pipe))
        for _ in range(delay):
            await asyncio.sleep(0)
        task.cancel()
        results = await asyncio.gather(task, return_exceptions=True)
        if not isinstance(results[0], asyncio.CancelledError):
            transport, _ = results[0]  # type: ignore[misc]  # too late to be cancelled
            transport.close()
        del task, results
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        if delay == 0:  # it did not begin
            assert pipe.closes == 0
            pipe.close()
        assert pipe.closes == 1
        others = open_pipe()  # the number may have been given out again
        gc.collect()
        os.fstat(others[0].fileno())
        os.fstat(others[1].fileno())
        for file in others:
            file.close()
        os.close(writing if side == "read" else reading)


@pytest.mark.loops("aws_io_async", "asyncio")
async def test_failing_protocol_factory_leaves_the_pipe_alone() -> None:
    def fail() -> asyncio.Protocol:
        raise ZeroDivisionError

    reading, writing = open_pipe()
    loop = asyncio.get_running_loop()
    with pytest.raises(ZeroDivisionError):
        await loop.connect_read_pipe(fail, reading)
    with pytest.raises(ZeroDivisionError):
        await loop.connect_write_pipe(fail, writing)
    writing.write(b"still open")
    writing.close()
    assert reading.readall() == b"still open"
    reading.close()


@pytest.mark.loops("aws_io_async")  # asyncio calls connection_lost() again after a second abort()
async def test_connection_lost_comes_once_whatever_is_called() -> None:
    reading, writing = open_pipe()
    transport, protocol = await write_to(writing)
    transport.write(BIG)
    transport.close()
    reading.close()
    transport.abort()
    transport.abort()
    transport.close()
    transport.write_eof()
    await protocol.closed
    transport.abort()
    transport.close()
    await asyncio.sleep(0)
    assert protocol.events.count("lost") == 1

    reading, writing = open_pipe()
    transport, protocol = await read_from(reading)
    writing.close()
    transport.close()
    transport.close()
    await protocol.closed
    transport.close()
    transport.resume_reading()
    await asyncio.sleep(0)
    assert protocol.events == ["made", "lost"]


@pytest.mark.loops("aws_io_async", "asyncio")  # uvloop's warn differently
async def test_forgotten_transports_warn_and_close() -> None:
    reading, writing = open_pipe()
    transport, protocol = await read_from(reading)
    transport.pause_reading()  # or else the loop holds it
    del transport, protocol
    with pytest.warns(ResourceWarning, match="unclosed transport"):
        gc.collect()
    assert reading.closed
    writing.close()


@pytest.mark.parametrize("name", ["aws_io_async", "asyncio"])
def test_loop_closed_under_open_transports(name: str) -> None:
    reading, writing = open_pipe()
    loop = loops.FACTORIES[name]()
    reader, _ = loop.run_until_complete(loop.connect_read_pipe(asyncio.Protocol, reading))
    writer, _ = loop.run_until_complete(loop.connect_write_pipe(asyncio.Protocol, writing))
    loop.close()
    assert "open" in repr(reader)
    assert "open" in repr(writer)
    ends = [reader, writer]
    del reader, writer
    with pytest.warns(ResourceWarning, match="unclosed transport"):
        forget(ends)
    assert reading.closed
    assert writing.closed


def test_closing_transports_of_a_closed_loop_closes_the_pipes() -> None:
    reading, writing = open_pipe()
    loop = loops.FACTORIES["aws_io_async"]()
    reader, _ = loop.run_until_complete(loop.connect_read_pipe(asyncio.Protocol, reading))
    writer, _ = loop.run_until_complete(loop.connect_write_pipe(asyncio.Protocol, writing))
    loop.close()
    reader.close()
    writer.close()
    assert reading.closed
    assert writing.closed


# Protocols that raise


@pytest.mark.loops("aws_io_async", "asyncio")  # uvloop closes the transport
async def test_protocol_that_raises_is_reported_and_reading_goes_on() -> None:
    class Raising(Recorder):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(transport)
            raise ZeroDivisionError

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            raise IndexError

        def eof_received(self) -> None:
            super().eof_received()
            raise KeyError

        def connection_lost(self, exc: BaseException | None) -> None:
            super().connection_lost(exc)
            raise LookupError

    loop = asyncio.get_running_loop()
    reported: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: reported.append(context))
    reading, writing = open_pipe()
    _, protocol = await loop.connect_read_pipe(Raising, reading)
    writing.write(b"a")
    await protocol.received(1)
    writing.write(b"b")
    assert await protocol.received(2) == b"ab"
    writing.close()
    await protocol.closed
    await asyncio.sleep(0)
    loop.set_exception_handler(None)
    raised = [type(context["exception"]) for context in reported]
    assert raised == [ZeroDivisionError, IndexError, IndexError, KeyError, LookupError]
    assert reading.closed
