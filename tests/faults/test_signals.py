"""Signals at random moments, to handlers on the loop and to Python's own, while bytes go both ways.

Each interrupts system calls, and has Python run its handlers between any two steps of the loop.
"""

import asyncio
import os
import random
import signal
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import pytest
import trustme

from tests.faults._report import Fault, seeds, trial
from tests.faults.ends import WAYS, Tls, tls_of
from tests.faults.exchange import exchange

STORM = Fault(
    "Signals and processes",
    "signals at random moments while bytes go both ways",
    "all bytes; the last one reaches the loop's handler",
)
CHILDREN = Fault(
    "Signals and processes",
    "signals at random moments while children start, work and end",
    "all bytes, and their status",
)
WITH_TLS = [(way, tls) for way in WAYS for tls in (False, True) if not (tls and way == "sock_*")]


@contextmanager
def storm(chooser: random.Random) -> Iterator[list[int]]:
    """SIGUSR1 for the loop and SIGPROF for Python, every millisecond or so; counts both."""
    loop = asyncio.get_running_loop()
    told, over = [0, 0], threading.Event()

    def handle(number: int, *_: Any) -> None:
        told[number] += 1

    def send() -> None:
        while not over.wait(chooser.random() * 0.002):
            os.kill(os.getpid(), signal.SIGUSR1)

    before = signal.signal(signal.SIGPROF, lambda *_: handle(1))
    loop.add_signal_handler(signal.SIGUSR1, handle, 0)
    sending = threading.Thread(target=send, name="storm")
    signal.setitimer(signal.ITIMER_PROF, 0.001, 0.001)  # of CPU time
    sending.start()
    try:
        yield told
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        over.set()
        sending.join()
        loop.remove_signal_handler(signal.SIGUSR1)
        signal.signal(signal.SIGPROF, before)


async def the_last_one_is_told(told: list[int]) -> None:
    """Wait for the loop's handler to be called once more."""
    before = told[0]
    os.kill(os.getpid(), signal.SIGUSR1)
    while told[0] == before:  # noqa: ASYNC110  there is no event for this
        await asyncio.sleep(0.001)


@asynccontextmanager
async def straight(port: int) -> AsyncIterator[int]:
    yield port


@pytest.mark.parametrize(("way", "with_tls"), WITH_TLS)
async def test_bytes_among_signals(ca: trustme.CA, way: str, with_tls: bool) -> None:
    kind = WAYS[way](tls_of(ca) if with_tls else Tls())
    for seed in seeds(1):
        with trial(seed) as chooser, storm(chooser) as told:
            data = chooser.randbytes(3_000_000)
            ends = await exchange(kind, data, data[::-1], straight)
            assert all(end.is_complete for end in ends)
            await the_last_one_is_told(told)
            STORM.seen("all bytes", sum(told))


async def test_children_among_signals() -> None:
    for seed in seeds(1):
        with trial(seed) as chooser, storm(chooser) as told:
            for _ in range(3):
                data = chooser.randbytes(500_000)
                process = await asyncio.create_subprocess_exec(
                    "cat", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
                )
                output, _ = await process.communicate(data)
                assert (output, process.returncode) == (data, 0)
            await the_last_one_is_told(told)
            CHILDREN.seen("all bytes, status 0", sum(told))
