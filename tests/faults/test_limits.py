"""Servers that the system gives little: few descriptors, little memory."""

import asyncio
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.faults._page import ROOT
from tests.faults._report import Fault, few, seeds, trial
from tests.faults.ends import WAYS, Tls, Way, used
from tests.faults.exchange import Received, converse, send_all
from tests.faults.limited import BUFFER, GREEDY
from tests.faults.proxy import PATIENCE, narrow

FEW = Fault(
    "Limits",
    "connections to a server with descriptors for half of them",
    "all bytes: they wait until there is one",
)
LITTLE = Fault(
    "Limits",
    "a server with 20 MB to spare, clients that send it 80 MB and do not read",
    "all bytes: what waits is bounded",
)
GREED = Fault(
    "Limits",
    "a handler that asks for more memory than there is",
    "its connection ends; all bytes to the others",
)

pytestmark = [
    pytest.mark.loops("aws_io_async"),
    pytest.mark.skipif(sys.platform != "linux", reason="reads /proc"),
]


@asynccontextmanager
async def limited(way: str, **limits: int) -> AsyncIterator[int]:
    """A server in a process with limits, as its port. It must leave nothing open."""
    options = [f"--{name}={number}" for name, number in limits.items()]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.faults.limited", way, *options,
        stdin=PIPE, stdout=PIPE, stderr=PIPE, cwd=ROOT,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        async with asyncio.timeout(PATIENCE):
            line = await process.stdout.readline()
        if line:
            yield int(line)
    except BaseException:
        process.kill()
        raise
    finally:
        output, errors = await process.communicate(b"")
    assert (output, process.returncode) == (b"0\n", 0), errors.decode()


async def echoed(way: Way, port: int, data: bytes) -> Received:
    """Send bytes, and receive them again."""
    received = Received(data)
    await used(await way.connect(port), lambda end: converse(end, data, received))
    return received


CHOSEN = list(WAYS) if few(1) > 1 else ["streams", "connect and serve"]
SERVERS = [way for way in CHOSEN if way != "sock_*"]  # which has no server: that is the program's


@pytest.mark.parametrize("way", SERVERS)
async def test_few_descriptors(way: str) -> None:
    kind = WAYS[way](Tls())
    for seed in seeds(1):
        with trial(seed) as chooser:
            async with limited(way, descriptors=10) as port, asyncio.timeout(PATIENCE):
                parts = [chooser.randbytes(20_000) for _ in range(20)]
                ends = await asyncio.gather(*(echoed(kind, port, data) for data in parts))
            assert all(end.is_complete for end in ends)
            FEW.seen("all bytes", len(ends))


@pytest.mark.parametrize("way", CHOSEN)
async def test_little_memory(way: str) -> None:
    kind = WAYS[way](Tls())
    data = bytes(8_000_000)
    for seed in seeds(1):
        with trial(seed):
            async with limited(way, memory=20) as port, asyncio.timeout(PATIENCE):
                opened = [await kind.connect(port) for _ in range(10)]
                for end in opened:
                    narrow(end.socket(), BUFFER)
                ends = [Received(data) for _ in opened]
                sending = [
                    asyncio.ensure_future(send_all(end, data, received))
                    for end, received in zip(opened, ends, strict=True)
                ]
                await asyncio.sleep(0.2)  # until nothing moves any more
                assert not all(task.done() for task in sending)
                for end, received in zip(opened, ends, strict=True):
                    await converse(end, b"", received)
                await asyncio.gather(*sending)
                for end in opened:
                    await end.aclose()
            assert all(end.is_complete for end in ends)
            LITTLE.seen("all bytes", len(ends))


@pytest.mark.parametrize("way", CHOSEN)
async def test_a_handler_that_asks_for_too_much(way: str) -> None:
    kind = WAYS[way](Tls())
    for seed in seeds(1):
        with trial(seed) as chooser:
            async with limited(way, memory=60) as port, asyncio.timeout(PATIENCE):
                greedy, *others = await asyncio.gather(
                    echoed(kind, port, GREEDY),
                    *(echoed(kind, port, chooser.randbytes(50_000)) for _ in range(5)),
                )
            assert greedy.data == b""
            assert all(end.is_complete for end in others)
            GREED.seen(greedy.outcome)
