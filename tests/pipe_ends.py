"""Pipes for the tests, and a protocol that remembers what happened to it."""

import asyncio
import io
import os
from collections.abc import Callable
from typing import Any

BIG = bytes(range(256)) * 4096
"""1 MiB: more than a pipe holds."""


class Recorder(asyncio.Protocol):
    """Writes down what happens; `closed` is done at the end of the connection."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.data = bytearray()
        self.transport: Any = None
        self.lost_with: BaseException | None = None
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._news = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self._happened("made")

    def data_received(self, data: bytes) -> None:
        self.data += data
        self._happened("data")

    def eof_received(self) -> None:
        self._happened("eof")

    def pause_writing(self) -> None:
        self._happened("pause")

    def resume_writing(self) -> None:
        self._happened("resume")

    def connection_lost(self, exc: BaseException | None) -> None:
        self.lost_with = exc
        self._happened("lost")
        self.closed.set_result(None)

    def _happened(self, what: str) -> None:
        self.events.append(what)
        self._news.set()

    async def until(self, reached: Callable[[], bool]) -> None:
        while not reached():
            self._news.clear()
            await self._news.wait()

    async def received(self, size: int) -> bytes:
        await self.until(lambda: len(self.data) >= size)
        return bytes(self.data)


async def read_from(pipe: Any) -> tuple[Any, Recorder]:
    return await asyncio.get_running_loop().connect_read_pipe(Recorder, pipe)


async def write_to(pipe: Any) -> tuple[Any, Recorder]:
    return await asyncio.get_running_loop().connect_write_pipe(Recorder, pipe)


def open_pipe() -> tuple[io.FileIO, io.FileIO]:
    reading, writing = os.pipe()
    return io.FileIO(reading, "r"), io.FileIO(writing, "w")
