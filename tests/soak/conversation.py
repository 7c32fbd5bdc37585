"""What is said over one connection: a header, and both sides' streams, checked byte by byte."""

import asyncio
import struct
import threading
from collections import Counter
from typing import Protocol

import anyio

from aws_io_async.errors import AwsIoError
from tests.soak.identity import Identity

HEADER = struct.Struct("!QII")
CHUNK = 16_000

GONE = (ConnectionError, AwsIoError, anyio.BrokenResourceError, anyio.ClosedResourceError)
"""What says that the other side has cut the connection."""


class Wire(Protocol):
    """One end of a connection, whatever carries it."""

    fd: int

    async def send(self, data: bytes) -> None: ...

    async def receive(self) -> bytes:
        """Some bytes; b"" at the end."""

    async def close(self) -> None:
        """In order; waits for it."""

    def cut(self) -> None:
        """At once, in the middle of everything."""


class Side:
    """What one side of a conversation has done so far."""

    def __init__(self, wire: Wire, says: str, hears: str) -> None:
        self._wire = wire
        self._says, self._hears = Identity(says), Identity(hears)
        self.sent = 0
        self.received = 0

    @property
    def verified(self) -> int:
        return self._hears.position

    async def send(self, size: int) -> None:
        """All that it has to say."""
        while self.sent < size:
            data = self._says.take(min(CHUNK, size - self.sent))
            await self._wire.send(data)
            self.sent += len(data)

    def hear(self, data: bytes) -> None:
        """Raises WrongBytesError unless they are the ones that come next."""
        self.received += len(data)
        self._hears.check(data)

    async def receive(self) -> bool:
        """Some bytes; whether there were any before the end."""
        data = await self._wire.receive()
        self.hear(data)
        return bool(data)

    def ended(self, size: int) -> None:
        """That was to be all."""
        self._hears.ended(size)


class Ledger:
    """Who has sent and received how much. Thread: any."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._answered: dict[int, Side] = {}
        self.totals: Counter[str] = Counter()
        self.failures: list[BaseException] = []

    def answered(self, number: int, server: Side) -> None:
        """A server has received and sent everything of one conversation."""
        with self._lock:
            self._answered[number] = server

    def completed(self, number: int, client: Side) -> None:
        """So has its client."""
        with self._lock:
            self.totals["conversations"] += 1
            for side in (client, self._answered.pop(number)):
                self.totals["bytes sent"] += side.sent
                self.totals["bytes received"] += side.received
                self.totals["bytes verified"] += side.verified

    def cut(self, received: int) -> None:
        """A conversation was cut; the bytes that came until then were the right ones."""
        with self._lock:
            self.totals["cut"] += 1
            self.totals["bytes before a cut"] += received

    def forget_the_cut(self) -> None:
        """All conversations are over."""
        with self._lock:
            self._answered.clear()

    def failed(self, error: BaseException) -> None:
        with self._lock:
            self.failures.append(error)


async def ask(wire: Wire, server: str, number: int, ledger: Ledger, up: int, down: int) -> None:
    """A client's side, to its end."""
    side = Side(wire, f"{server}/{number}/up", f"{server}/{number}/down")
    await wire.send(HEADER.pack(number, up, down))
    async with asyncio.TaskGroup() as both:
        both.create_task(side.send(up))
        while await side.receive():
            pass
    side.ended(down)
    ledger.completed(number, side)


async def ask_in_part(wire: Wire, server: str, number: int, ledger: Ledger, up: int) -> None:
    """A client that takes what comes first, and cuts the connection."""
    side = Side(wire, f"{server}/{number}/up", f"{server}/{number}/down")
    await wire.send(HEADER.pack(number, 2 * up, 1 << 20))
    await side.send(up)
    await side.receive()
    wire.cut()
    ledger.cut(side.verified)


async def answer(wire: Wire, server: str, ledger: Ledger) -> None:
    """A server's side; a client who cuts the connection is right to do so."""
    try:
        await _answer(wire, server, ledger)
    except* GONE:
        pass
    except* Exception as group:
        ledger.failed(group)
    finally:
        await _close(wire)


async def _answer(wire: Wire, server: str, ledger: Ledger) -> None:
    head = b""
    while len(head) < HEADER.size:
        data = await wire.receive()
        if not data:
            return
        head += data
    number, up, down = HEADER.unpack(head[: HEADER.size])
    side = Side(wire, f"{server}/{number}/down", f"{server}/{number}/up")
    side.hear(head[HEADER.size :])
    async with asyncio.TaskGroup() as both:
        both.create_task(side.send(down))
        while side.received < up:
            if not await side.receive():
                raise ConnectionResetError("the client has gone")
    side.ended(up)
    ledger.answered(number, side)


async def _close(wire: Wire) -> None:
    try:
        await wire.close()
    except GONE:
        pass
