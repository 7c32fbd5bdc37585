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


class Ledger:
    """Who has sent and received how much. Thread: any."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._answered: dict[int, tuple[int, int]] = {}
        self.totals: Counter[str] = Counter()
        self.failures: list[BaseException] = []

    def answered(self, number: int, received: int, sent: int) -> None:
        """A server has received and sent everything of one conversation."""
        with self._lock:
            self._answered[number] = received, sent

    def completed(self, number: int, sent: int, received: int) -> None:
        """So has its client."""
        with self._lock:
            heard, said = self._answered.pop(number)
            self.totals["conversations"] += 1
            self.totals["bytes sent"] += sent + said
            self.totals["bytes received"] += heard + received

    def verified(self, size: int) -> None:
        """So many bytes of a conversation that is complete were found to be the right ones."""
        with self._lock:
            self.totals["bytes verified"] += size

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
    sent, received = Identity(f"{server}/{number}/up"), Identity(f"{server}/{number}/down")
    await wire.send(HEADER.pack(number, up, down))
    async with asyncio.TaskGroup() as both:
        both.create_task(_send(wire, sent, up))
        while data := await wire.receive():
            received.check(data)
    received.ended(down)
    ledger.completed(number, sent.position, received.position)
    ledger.verified(received.position)


async def ask_in_part(wire: Wire, server: str, number: int, ledger: Ledger, up: int) -> None:
    """A client that takes what comes first, and cuts the connection."""
    received = Identity(f"{server}/{number}/down")
    await wire.send(HEADER.pack(number, 2 * up, 1 << 20))
    await wire.send(Identity(f"{server}/{number}/up").take(up))
    data = await wire.receive()
    received.check(data)
    wire.cut()
    ledger.cut(received.position)


async def _send(wire: Wire, stream: Identity, size: int) -> None:
    while stream.position < size:
        await wire.send(stream.take(min(CHUNK, size - stream.position)))


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
    sent, received = Identity(f"{server}/{number}/down"), Identity(f"{server}/{number}/up")
    received.check(head[HEADER.size :])
    async with asyncio.TaskGroup() as both:
        both.create_task(_send(wire, sent, down))
        while received.position < up:
            data = await wire.receive()
            if not data:
                raise ConnectionResetError("the client has gone")
            received.check(data)
    received.ended(up)
    ledger.answered(number, received.position, sent.position)
    ledger.verified(received.position)


async def _close(wire: Wire) -> None:
    try:
        await wire.close()
    except GONE:
        pass
