"""What a loop takes to run callbacks, tasks and timers.

A benchmark does as many operations as it is told, on the running loop. How many that are is found
out first, so that it takes a share of the given seconds; then it is run some times, and the best
of these counts.
"""

import asyncio
import json
import socket
import threading
import time
from collections.abc import Awaitable, Callable

from ._loops import factory

Benchmark = Callable[[asyncio.AbstractEventLoop, int], Awaitable[object]]

RUNS = 3
BATCH = 1000
"""Callbacks of one turn, and timers that are there at a time."""

TASKS = 100


async def call_soon_chain(loop: asyncio.AbstractEventLoop, count: int) -> None:
    """Each callback schedules the next."""
    done = loop.create_future()
    left = count

    def step() -> None:
        nonlocal left
        left -= 1
        if left:
            loop.call_soon(step)
        else:
            done.set_result(None)

    loop.call_soon(step)
    await done


async def call_soon_batch(loop: asyncio.AbstractEventLoop, count: int) -> None:
    """Many callbacks, with an argument, in each turn."""

    def nothing(argument: int) -> None:
        pass

    for start in range(0, count, BATCH):
        for _ in range(min(BATCH, count - start)):
            loop.call_soon(nothing, 1)
        await asyncio.sleep(0)


async def task_switch(loop: asyncio.AbstractEventLoop, count: int) -> None:
    """Tasks that give way to one another."""

    async def work(rounds: int) -> None:
        for _ in range(rounds):
            await asyncio.sleep(0)

    tasks = min(TASKS, count)
    await asyncio.gather(*(work((count + n) // tasks) for n in range(tasks)))


async def task_spawn(loop: asyncio.AbstractEventLoop, count: int) -> None:
    """Tasks that have nothing to do, made and awaited."""

    async def nothing() -> None:
        pass

    for start in range(0, count, TASKS):
        await asyncio.gather(*(nothing() for _ in range(min(TASKS, count - start))))


async def future_wakeup(loop: asyncio.AbstractEventLoop, count: int) -> None:
    """A task awaits a future that a callback sets."""
    for _ in range(count):
        future = loop.create_future()
        loop.call_soon(future.set_result, None)
        await future


async def timers_fired(loop: asyncio.AbstractEventLoop, count: int) -> None:
    """Timers due within the next ten milliseconds, in mixed order."""
    done = loop.create_future()
    left = count

    def fire() -> None:
        nonlocal left
        left -= 1
        if not left:
            done.set_result(None)

    now = loop.time()
    for number in range(count):
        loop.call_at(now + number % BATCH * 1e-5, fire)
    await done


async def timers_cancelled(loop: asyncio.AbstractEventLoop, count: int) -> None:
    """Timers of a minute that are cancelled at once, as those of requests in time are."""

    def nothing() -> None:
        pass

    for number in range(count):
        loop.call_later(60 + number % 7, nothing).cancel()
        if number % BATCH == 0:
            await asyncio.sleep(0)


async def threadsafe(loop: asyncio.AbstractEventLoop, count: int) -> None:
    """A thread has the loop do something, and waits for it."""
    called = threading.Semaphore(0)
    done = loop.create_future()

    def ask() -> None:
        for _ in range(count):
            loop.call_soon_threadsafe(called.release)
            called.acquire()
        loop.call_soon_threadsafe(done.set_result, None)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    await done
    thread.join()


async def sock_pingpong(loop: asyncio.AbstractEventLoop, count: int) -> None:
    """A byte there and back between two tasks, by `sock_sendall` and `sock_recv`."""
    near, far = socket.socketpair()
    with near, far:
        near.setblocking(False)
        far.setblocking(False)

        async def answer() -> None:
            while data := await loop.sock_recv(far, 100):
                await loop.sock_sendall(far, data)

        answering = loop.create_task(answer())
        for _ in range(count):
            await loop.sock_sendall(near, b"x")
            await loop.sock_recv(near, 100)
        near.shutdown(socket.SHUT_WR)
        await answering


BENCHMARKS: dict[str, Benchmark] = {
    "call_soon, chain": call_soon_chain,
    "call_soon, batches": call_soon_batch,
    "task switch": task_switch,
    "task spawn": task_spawn,
    "future wake-up": future_wakeup,
    "timers fired": timers_fired,
    "timers cancelled": timers_cancelled,
    "thread-safe round trip": threadsafe,
    "sock ping-pong": sock_pingpong,
}
MOST = {"timers fired": 50_000}
"""Operations at a time, where it matters to the rate how many there are."""


def main(spec: str, name: str, seconds: str) -> None:
    """Print operations a second, and CPU seconds an operation, as JSON."""
    make, benchmark = factory(spec), BENCHMARKS[name]

    def run(count: int) -> tuple[float, float]:
        with asyncio.Runner(loop_factory=make) as runner:
            return runner.run(timed(benchmark, count))

    least, count = float(seconds) / 8, 100
    while run(count)[0] < least and count < MOST.get(name, 10_000_000):
        count *= 2
    taken, cpu = min(run(count) for _ in range(RUNS))
    print(json.dumps({"rate": count / taken, "cpu": cpu / count}), flush=True)


async def timed(benchmark: Benchmark, count: int) -> tuple[float, float]:
    """Seconds, and seconds of CPU time."""
    started, cpu = time.perf_counter(), time.process_time()
    await benchmark(asyncio.get_running_loop(), count)
    return time.perf_counter() - started, time.process_time() - cpu
