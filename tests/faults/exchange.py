"""Bytes both ways at once through a way, and what became of them at each end."""

import asyncio
import ssl
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field

import anyio

from aws_io_async.errors import AwsIoError
from tests.faults.ends import PIECE, End, Way, used
from tests.faults.proxy import PATIENCE

NAMED = (ConnectionError, TimeoutError, ssl.SSLError, AwsIoError, anyio.BrokenResourceError)
"""What says that a connection is no good; anything else is a fault of the library."""


@dataclass
class Received:
    """What one end has got of the other's bytes, and what it was told at the end."""

    expected: bytes
    data: bytearray = field(default_factory=bytearray)
    error: Exception | None = None
    """Of connecting or receiving; None if all has come, or at an end in order."""
    send_error: Exception | None = None
    connected: bool = False

    @property
    def is_complete(self) -> bool:
        return self.data == self.expected

    def check(self) -> None:
        """Whatever has happened, nothing is wrong, repeated or left out."""
        assert self.data == self.expected[: len(self.data)], (
            f"{len(self.data)} bytes came that are not the first of {len(self.expected)}"
        )

    @property
    def failure(self) -> Exception | None:
        """What it was told; the kernel tells of a reset once, be it to who receives or sends."""
        return self.error or self.send_error

    @property
    def outcome(self) -> str:
        """In the words of the report."""
        self.check()
        if self.is_complete:
            return "all bytes"
        if not self.connected:
            return f"no connection, {name_of(self.error)}" if self.error else "no connection"
        return f"a prefix, then {name_of(self.failure)}"


def name_of(error: BaseException | None) -> str:
    """An end's name: the class of an error, without the error that wraps it."""
    if error is None:
        return "the end"
    if isinstance(error, anyio.BrokenResourceError) and error.__cause__ is not None:
        error = error.__cause__
    return f"`{type(error).__name__}`"


async def converse(end: End, mine: bytes, received: Received) -> None:
    """Send all of ours while receiving the peer's; what fails is noted."""
    received.connected = True
    sending = asyncio.ensure_future(send_all(end, mine, received))
    try:
        while len(received.data) < len(received.expected):
            data = await end.receive()
            received.data += data
            if not data:
                break
    except NAMED as e:
        received.error = e
    finally:
        await sending


async def send_all(end: End, data: bytes, received: Received) -> None:
    try:
        for start in range(0, len(data), PIECE):
            await end.send(data[start : start + PIECE])
    except NAMED as e:
        received.send_error = e


async def until_the_end(end: End, received: Received) -> None:
    """Receive what is not to come, until the peer closes."""
    try:
        while data := await end.receive():
            received.data += data
    except NAMED:
        pass


async def exchange(
    way: Way,
    up: bytes,
    down: bytes,
    network: Callable[[int], AbstractAsyncContextManager[int]],
    *,
    prepare: Callable[[End], object] = lambda end: None,
) -> tuple[Received, Received]:
    """Through `network`, from a server's port to the one to connect to; the server's and client's.

    Both ends are closed in the end, the client's first.
    """
    of_server, of_client = Received(up), Received(down)

    async def serve_one(end: End) -> None:
        prepare(end)
        await converse(end, down, of_server)
        await until_the_end(end, of_server)

    async def use(end: End) -> None:
        prepare(end)
        await converse(end, up, of_client)

    async with (
        asyncio.timeout(PATIENCE),
        way.serve(serve_one) as port,
        network(port) as entrance,
    ):
        try:
            end = await way.connect(entrance)
        except NAMED as e:
            of_client.error = e
        else:
            await used(end, use)
    of_server.check()
    of_client.check()
    return of_server, of_client
