"""What a TLS connection is made of besides its keys: timeouts, a context, a buffer to read to."""

import asyncio
import ssl
import weakref
from typing import Any

READ_BUFFER_SIZE = 128 * 1024
"""Bytes. With 64 KiB, a message of 64 KiB, which is some 90 bytes longer under TLS, would take two
reads, and as many deliveries, each."""

_buffers: "weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, memoryview]" = (
    weakref.WeakKeyDictionary()
)


def shared_buffer(loop: asyncio.AbstractEventLoop) -> memoryview:
    """Where the connections of a loop read to; its contents last until the callback returns."""
    buffer = _buffers.get(loop)
    if buffer is None:
        buffer = _buffers[loop] = memoryview(bytearray(READ_BUFFER_SIZE))
    return buffer


def timeout(seconds: float | None, default: float, name: str) -> float:
    if seconds is None:
        return default
    if seconds <= 0:
        raise ValueError(f"{name} should be a positive number, got {seconds}")
    return seconds


def default_context(server_side: bool, server_hostname: str | None) -> ssl.SSLContext:
    """What `ssl=True` stands for: a client's context, as asyncio makes it."""
    if server_side:
        raise ValueError("Server side SSL needs a valid SSLContext")
    context = ssl.create_default_context()
    if not server_hostname:
        context.check_hostname = False
    return context


def writing_is_paused(transport: Any) -> bool:
    """Whether a transport has called pause_writing() last: one of ours, or of asyncio."""
    flow = getattr(transport, "_flow", None)
    return bool(getattr(transport, "_protocol_paused", False) if flow is None else flow.paused)
