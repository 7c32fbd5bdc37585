"""A file server and its client, over streams of channels.

Everything is sent in frames, the length as 4 bytes, big-endian, then the data. The client asks for
a file by its name; the server answers with the file's data in frames of up to CHUNK bytes, an
empty frame, and the SHA-256 digest of what it read. If it can't read the file, that last frame is
empty.
"""

import asyncio
import hashlib
import os
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import anyio
from anyio.streams.buffered import BufferedByteReceiveStream
from anyio.streams.tls import TLSAttribute

from .channel_bootstrap import ClientBootstrap
from .channel_stream import WINDOW, ChannelStream
from .errors import AwsIoError
from .tls_context import TlsConnectionOptions

CHUNK = 256 * 1024


class FileServer:
    """Serves the files of a catalogue, by name, and nothing else."""

    def __init__(self, files: Mapping[str, Path]) -> None:
        self._files = files
        self.statistics: list[list[object]] = []
        """What the handlers of each channel have counted, once it has ended."""

    async def serve(self, stream: ChannelStream) -> None:
        """Answer one client until it closes the connection. Thread: the stream's."""
        reader = BufferedByteReceiveStream(stream)
        with stream.channel.hold():  # it may have shut down when it is asked for its statistics
            try:
                while True:
                    name = await _receive_frame(reader)
                    await self._answer(os.fsdecode(name), stream)
            except (anyio.IncompleteRead, anyio.BrokenResourceError):
                pass  # the client has gone, and knows best why
            finally:
                self.statistics.append(stream.channel.statistics())

    async def _answer(self, name: str, stream: ChannelStream) -> None:
        digest = hashlib.sha256()
        result = b""
        try:
            # The disk is read on threads: the loop never waits for it.
            with await asyncio.to_thread(self._files[name].open, "rb") as file:
                while chunk := await asyncio.to_thread(_read, file, digest):
                    await self.send(stream, chunk)
            result = digest.digest()
        except (KeyError, OSError):
            pass  # the client takes the missing digest for a wrong one
        await self.send(stream, b"")
        await self.send(stream, result)

    async def send(self, stream: ChannelStream, data: bytes) -> None:
        """Send one frame."""
        await stream.send(len(data).to_bytes(4) + data)


def _read(file: BinaryIO, digest: "hashlib._Hash") -> bytes:
    chunk = file.read(CHUNK)
    digest.update(chunk)
    return chunk


@dataclass(slots=True)
class Received:
    """What has come over one connection so far."""

    files: int = 0
    bytes: int = 0
    damaged: list[str] = field(default_factory=list)
    """Names of the files whose digest is wrong, or that the server couldn't read."""
    protocol: str = ""
    tls_version: str = ""
    cipher: str = ""
    statistics: list[object] = field(default_factory=list)
    """What the channel's handlers have counted, once it has ended."""


async def fetch(
    port: int, tls: TlsConnectionOptions, names: deque[str], received: Received
) -> None:
    """Fetch files over one connection to this machine until `names` has no more.

    The data is counted, digested, and dropped. `names` may be shared with calls on other threads.
    Raises ConnectionError if there is no connection, or it fails.
    """
    try:
        channel = await ClientBootstrap().new_socket_channel(
            "127.0.0.1",
            port,
            tls=tls,
            enable_read_back_pressure=True,
            max_read_size=WINDOW,  # so much at a time is unfair to others, but fast
        )
        async with ChannelStream.attach(channel, window=WINDOW) as stream:
            with channel.hold():
                try:
                    _note_tls(stream, received)
                    while name := _next(names):
                        request = os.fsencode(name)
                        await stream.send(len(request).to_bytes(4) + request)
                        await _receive(name, stream, received)
                finally:
                    received.statistics = channel.statistics()
    except (AwsIoError, OSError, EOFError) as error:
        raise ConnectionError(f"a connection failed: {error}") from error
    except anyio.BrokenResourceError as error:
        raise ConnectionError(f"a connection failed: {error.__cause__}") from error


def _note_tls(stream: ChannelStream, received: Received) -> None:
    received.protocol = stream.extra(TLSAttribute.alpn_protocol) or "none"
    received.tls_version = stream.extra(TLSAttribute.tls_version)
    received.cipher, *_ = stream.extra(TLSAttribute.cipher)


def _next(names: deque[str]) -> str | None:
    try:
        return names.popleft()
    except IndexError:
        return None


async def _receive(name: str, stream: ChannelStream, received: Received) -> None:
    digest = hashlib.sha256()
    reader = BufferedByteReceiveStream(stream)
    try:
        while left := int.from_bytes(await reader.receive_exactly(4)):
            while left:
                data = await stream.receive(left)
                digest.update(data)
                received.bytes += len(data)
                left -= len(data)
        result = await _receive_frame(reader)
    except (anyio.EndOfStream, anyio.IncompleteRead) as error:
        raise EOFError(f"it ended within {name}") from error
    received.files += 1
    if result != digest.digest():
        received.damaged.append(name)


async def _receive_frame(reader: BufferedByteReceiveStream) -> bytes:
    return await reader.receive_exactly(int.from_bytes(await reader.receive_exactly(4)))
