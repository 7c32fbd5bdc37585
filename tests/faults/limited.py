"""An echo server with little of what the system has: a child of test_limits.py's tests.

`python -m tests.faults.limited WAY --descriptors N --memory MB`: so many above what it begins with.
It prints its port, serves until its input ends, and then says what it has left open.
"""

import argparse
import asyncio
import os
import resource
import sys

import aws_io_async
from tests.faults.ends import WAYS, End, Tls
from tests.faults.exchange import NAMED
from tests.faults.proxy import narrow

GREEDY = b"greedy"
"""What a client begins with to have its handler ask for more memory than there is."""


BUFFER = 256 * 1024
"""Of sockets: the kernel's own choice takes megabytes before anybody has to wait."""


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd")) - 1  # without that of the listing


def memory() -> int:
    """Bytes of data that the process has mapped, used or not."""
    with open("/proc/self/status") as file:
        (line,) = (line for line in file if line.startswith("VmData:"))
    return int(line.split()[1]) * 1024


def limit(kind: int, number: int) -> None:
    resource.setrlimit(kind, (number, resource.getrlimit(kind)[1]))


async def echo(end: End) -> None:
    narrow(end.socket(), BUFFER)
    try:
        while data := await end.receive():
            if data.startswith(GREEDY):
                bytes(1 << 40)
            await end.send(data)
    except (*NAMED, MemoryError):
        pass


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("way", choices=WAYS)
    parser.add_argument("--descriptors", type=int)
    parser.add_argument("--memory", type=int)
    options = parser.parse_args()
    loop = asyncio.get_running_loop()
    before = descriptors()
    async with WAYS[options.way](Tls()).serve(echo) as port:
        if options.descriptors:
            limit(resource.RLIMIT_NOFILE, descriptors() + options.descriptors)
        if options.memory:
            limit(resource.RLIMIT_DATA, memory() + options.memory * 1_000_000)
        sys.stdout.write(f"{port}\n")
        sys.stdout.flush()
        over = asyncio.Event()
        loop.add_reader(sys.stdin, over.set)
        await over.wait()
        loop.remove_reader(sys.stdin)
        limit(resource.RLIMIT_NOFILE, 1000)
    sys.stdout.write(f"{descriptors() - before}\n")


if __name__ == "__main__":
    aws_io_async.run(main())
