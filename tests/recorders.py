"""Protocols that write down what happens to them."""

import asyncio
from collections.abc import Callable
from typing import Any


class Events:
    """Writes down what happens to a protocol, and waits for it to happen."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.data = bytearray()
        self.transport: Any = None
        self.lost_with: BaseException | None = None
        self._news = asyncio.Event()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.happened("made")

    def eof_received(self) -> bool | None:
        self.happened("eof")
        return None

    def pause_writing(self) -> None:
        self.happened("pause")

    def resume_writing(self) -> None:
        self.happened("resume")

    def connection_lost(self, exc: BaseException | None) -> None:
        self.lost_with = exc
        self.happened("lost")

    def happened(self, what: str) -> None:
        self.events.append(what)
        self._news.set()

    async def until(self, reached: Callable[[], bool]) -> None:
        while not reached():
            self._news.clear()
            await self._news.wait()

    async def has(self, event: str, times: int = 1) -> None:
        await self.until(lambda: self.events.count(event) >= times)

    async def received(self, size: int) -> bytes:
        await self.until(lambda: len(self.data) >= size)
        return bytes(self.data)


class Recorder(Events, asyncio.Protocol):
    """Keeps what a stream brings."""

    def data_received(self, data: bytes) -> None:
        self.data += data
        self.happened("data")


class BufferedRecorder(Events, asyncio.BufferedProtocol):
    """The same, with a buffer of its own of `size` bytes."""

    def __init__(self, size: int = 64 * 1024) -> None:
        super().__init__()
        self.buffer = memoryview(bytearray(size))

    def get_buffer(self, sizehint: int) -> memoryview:
        return self.buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.data += self.buffer[:nbytes]
        self.happened("data")


class DatagramRecorder(Events, asyncio.DatagramProtocol):
    """Keeps the datagrams and errors that an endpoint brings."""

    def __init__(self) -> None:
        super().__init__()
        self.datagrams: list[tuple[bytes, Any]] = []
        self.errors: list[Exception] = []

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.datagrams.append((data, addr))
        self.happened("datagram")

    def error_received(self, exc: Exception) -> None:
        self.errors.append(exc)
        self.happened("error")
