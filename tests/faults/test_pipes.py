"""Child processes that stop, die and stop reading while bytes go both ways through their pipes."""

import asyncio
import contextlib
import signal
from asyncio.subprocess import PIPE, Process

import pytest

from tests.faults._report import Fault, seeds, trial
from tests.faults.proxy import PATIENCE

KILLED = Fault(
    "Signals and processes",
    "a child killed while bytes go through it",
    "the first of the bytes and the end; its status says what has killed it",
)
STOPPED = Fault(
    "Signals and processes",
    "a child stopped and continued while bytes go through it",
    "all bytes",
)
CLOSED = Fault(
    "Signals and processes",
    "a child that stops reading at a random byte, and ends",
    "all that it says; writing raises a ConnectionError",
)


async def feed(process: Process, data: bytes) -> str:
    """Write all, and say how that has ended."""
    assert process.stdin is not None
    try:
        for start in range(0, len(data), 10_000):
            process.stdin.write(data[start : start + 10_000])
            await process.stdin.drain()
        process.stdin.close()
        await process.stdin.wait_closed()
    except ConnectionError as e:
        process.stdin.close()
        return type(e).__name__
    return "all bytes"


async def take(process: Process, size: int) -> bytes:
    """So many bytes of its output, or all."""
    assert process.stdout is not None
    data = bytearray()
    while len(data) < size and (more := await process.stdout.read(50_000)):
        data += more
    return bytes(data)


@pytest.mark.loops("aws_io_async", "asyncio")  # uvloop's may raise a RuntimeError if it is killed
@pytest.mark.parametrize("stop", [False, True], ids=["killed", "stopped"])
async def test_a_child_in_the_middle(stop: bool) -> None:
    for seed in seeds(2):
        with trial(seed) as chooser:
            data = chooser.randbytes(1_000_000)
            place = chooser.randrange(500_000)
            process = await asyncio.create_subprocess_exec("cat", stdin=PIPE, stdout=PIPE)
            async with asyncio.timeout(PATIENCE):
                feeding = asyncio.ensure_future(feed(process, data))
                got = await take(process, place)
                if stop:
                    process.send_signal(signal.SIGSTOP)
                    with pytest.raises(TimeoutError):
                        async with asyncio.timeout(0.01):
                            while True:  # what the pipes hold may still come
                                got += await take(process, 1)
                    process.send_signal(signal.SIGCONT)
                else:
                    with contextlib.suppress(ProcessLookupError):  # it has done all already
                        process.kill()
                got += await take(process, 1 << 30)
                status = await process.wait()
                fed = await feeding
            assert got == data[: len(got)]
            if stop:
                assert (len(got), fed, status) == (len(data), "all bytes", 0)
                STOPPED.seen("all bytes")
            else:
                assert status == -signal.SIGKILL or (len(got) == len(data) and status == 0)
                if status:
                    KILLED.seen("a prefix, then the end, status -9")


@pytest.mark.loops("aws_io_async", "asyncio")  # uvloop's raises a RuntimeError in the end
async def test_a_child_that_stops_reading() -> None:
    for seed in seeds(2):
        with trial(seed) as chooser:
            data = chooser.randbytes(400_000)
            place = chooser.randrange(1, 200_000)
            process = await asyncio.create_subprocess_exec(
                "head", "-c", str(place), stdin=PIPE, stdout=PIPE
            )
            async with asyncio.timeout(PATIENCE):
                feeding = asyncio.ensure_future(feed(process, data))
                got = await take(process, 1 << 30)
                assert await process.wait() == 0
                assert got == data[:place]
                CLOSED.seen(f"what it said, {await feeding}")
