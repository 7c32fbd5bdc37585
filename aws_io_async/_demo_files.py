"""A file server and its client, over asyncio's streams.

Everything is sent in frames, the length as 4 bytes, big-endian, then the data. The client asks for
a file by its name; the server answers with the file's data in frames of up to CHUNK bytes, an
empty frame, and the SHA-256 digest of what it read. If it can't read the file, that last frame is
empty.
"""

import asyncio
import hashlib
import os
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

CHUNK = 256 * 1024


class FileServer:
    """Serves the files of a catalogue, by name, and nothing else."""

    def __init__(self, files: Mapping[str, Path]) -> None:
        self._files = files

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one client until it closes the connection."""
        try:
            while (length := await _receive_header(reader)) is not None:
                await self._answer(os.fsdecode(await reader.readexactly(length)), writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the client has gone, and knows best why
        finally:
            writer.close()

    async def _answer(self, name: str, writer: asyncio.StreamWriter) -> None:
        digest = hashlib.sha256()
        result = b""
        try:
            # The disk is read on threads: the loop never waits for it.
            with await asyncio.to_thread(self._files[name].open, "rb") as file:
                while chunk := await asyncio.to_thread(_read, file, digest):
                    await self.send(writer, chunk)
            result = digest.digest()
        except ConnectionError:
            raise
        except (KeyError, OSError):
            pass  # the client takes the missing digest for a wrong one
        await self.send(writer, b"")
        await self.send(writer, result)

    async def send(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        """Send one frame."""
        writer.writelines((len(data).to_bytes(4), data))
        await writer.drain()


def _read(file: BinaryIO, digest: "hashlib._Hash") -> bytes:
    chunk = file.read(CHUNK)
    digest.update(chunk)
    return chunk


@dataclass(slots=True)
class Received:
    """What has arrived so far, on all of a client's connections."""

    files: int = 0
    bytes: int = 0
    damaged: list[str] = field(default_factory=list)
    """Names of the files whose digest is wrong, or that the server couldn't read."""
    tls: set[tuple[str, str]] = field(default_factory=set)
    """The TLS versions and ciphers that the connections use."""


async def fetch(
    port: int, context: ssl.SSLContext, host: str, names: Iterator[str], received: Received
) -> None:
    """Fetch files over one connection to this machine until `names` has no more.

    The data is counted, digested, and dropped. `names` may be shared with other calls. Raises
    ConnectionError if the connection fails, or OSError if there is none.
    """
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", port, ssl=context, server_hostname=host, limit=CHUNK
    )
    try:
        connection: ssl.SSLObject = writer.get_extra_info("ssl_object")
        cipher = connection.cipher()
        received.tls.add((connection.version() or "none", cipher[0] if cipher else "none"))
        for name in names:
            request = os.fsencode(name)
            writer.write(len(request).to_bytes(4) + request)
            await _receive(name, reader, received)
    except (EOFError, OSError) as error:
        raise ConnectionError(f"a connection failed: {error}") from error
    finally:
        writer.close()
    await writer.wait_closed()


async def _receive(name: str, reader: asyncio.StreamReader, received: Received) -> None:
    digest = hashlib.sha256()
    while left := int.from_bytes(await reader.readexactly(4)):
        while left:
            data = await reader.read(left)
            if not data:
                raise EOFError(f"it ended within {name}")
            digest.update(data)
            received.bytes += len(data)
            left -= len(data)
    length = int.from_bytes(await reader.readexactly(4))
    received.files += 1
    if await reader.readexactly(length) != digest.digest():
        received.damaged.append(name)


async def _receive_header(reader: asyncio.StreamReader) -> int | None:
    """The length of the next frame; None if the connection has ended instead."""
    try:
        return int.from_bytes(await reader.readexactly(4))
    except asyncio.IncompleteReadError as error:
        if error.partial:
            raise
        return None
