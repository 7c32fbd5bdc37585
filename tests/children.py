"""Child processes for the tests, and a protocol that remembers what happened to it."""

import asyncio
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

BLOCKED = (sys.executable, "-c", "import time; print('ready', flush=True); time.sleep(3600)")
CAT = "import sys; sys.stdout.buffer.write(sys.stdin.buffer.read())"


async def python(source: str, *args: str, **options: Any) -> Process:
    return await asyncio.create_subprocess_exec(sys.executable, "-c", source, *args, **options)


async def output(process: Process, data: bytes | None = None) -> bytes:
    return (await process.communicate(data))[0]


async def blocked(**options: Any) -> Process:
    """A child that runs until it is killed, and has got as far as that."""
    process = await asyncio.create_subprocess_exec(*BLOCKED, stdout=PIPE, **options)
    assert process.stdout is not None
    assert await process.stdout.readline() == b"ready\n"
    return process


@contextmanager
def none_left() -> Iterator[None]:
    """Fail if a child is left behind, dead or alive."""
    yield
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def until_ended(pid: int | None) -> None:
    """Block until the child has ended, without reaping it; with None, until any child has."""
    if not hasattr(os, "waitid"):
        pytest.skip("needs os.waitid")
    try:
        os.waitid(os.P_ALL if pid is None else os.P_PID, pid or 0, os.WEXITED | os.WNOWAIT)
    except ChildProcessError:  # reaped by the thread that waits for it
        pass


class Recorder(asyncio.SubprocessProtocol):
    """Writes down what happens; `closed` is done at the end of it all."""

    def __init__(self) -> None:
        self.events: list[Any] = []
        self.data = {1: b"", 2: b""}
        self.exited = asyncio.Event()
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.events.append("made")

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        self.data[fd] += data
        self.events.append(("data", fd))

    def pipe_connection_lost(self, fd: int, exc: BaseException | None) -> None:
        self.events.append(("pipe lost", fd))

    def process_exited(self) -> None:
        self.events.append("exited")
        self.exited.set()

    def connection_lost(self, exc: BaseException | None) -> None:
        self.events.append(("lost", exc))
        self.closed.set_result(None)
