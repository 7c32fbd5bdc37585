"""Copying from a source to a sink."""

import inspect
from collections.abc import Awaitable, Callable

import anyio
import anyio.lowlevel
from anyio.abc import ByteReceiveStream, ByteSendStream

from ._input import DEFAULT_READ_SIZE


async def pump(
    source: ByteReceiveStream,
    sink: ByteSendStream,
    *,
    max_bytes: int | None = None,
    chunk_size: int = DEFAULT_READ_SIZE,
    on_progress: Callable[[int], Awaitable[object] | object] | None = None,
) -> int:
    """Copy `source` to its end, or `max_bytes` of it, and return how many bytes that were.

    Reads `chunk_size` bytes at most, and again once the sink took them: a slow sink holds back the
    source. Other tasks get their turn between the chunks even if neither ever waits. Both streams,
    ours or anyio's, stay open.

    `on_progress` is called with the number of bytes copied so far, after each chunk that the sink
    took; if it returns an awaitable, that is awaited. What it raises ends the copying.

    Raises what the source and the sink raise, and `ValueError` for a negative `max_bytes` or a
    `chunk_size` that is not positive. Cancelled or failed while the sink takes a chunk, the chunk
    has left the source, and the sink may have it; otherwise no byte is lost.
    """
    if chunk_size < 1 or (max_bytes is not None and max_bytes < 0):
        raise ValueError(f"cannot copy {max_bytes} bytes in chunks of {chunk_size}")
    copied = 0
    while max_bytes is None or copied < max_bytes:
        size = chunk_size if max_bytes is None else min(chunk_size, max_bytes - copied)
        try:
            data = await source.receive(size)
        except anyio.EndOfStream:
            break
        await sink.send(data)
        copied += len(data)
        if on_progress is not None:
            told = on_progress(copied)
            if inspect.isawaitable(told):
                await told
        await anyio.lowlevel.checkpoint()
    return copied
