"""Small things that transports share."""

import asyncio
import socket
from asyncio.log import logger
from typing import Any

Buffer = bytes | bytearray | memoryview

_BYTES = bytes, bytearray  # to write that as a union costs 50 ns each time

LOST_WRITES_BEFORE_WARNING = 5
"""As in asyncio: writes to a lost connection that are dropped without a word."""


def address_or_none(ask: Any) -> Any:
    """The answer of `getsockname` or `getpeername`; None if the socket has no such address."""
    try:
        return ask()
    except OSError:  # not connected any more, or not bound
        return None


def disable_nagle(sock: socket.socket) -> None:
    """TCP_NODELAY, where the socket is a TCP one."""
    if sock.family in (socket.AF_INET, socket.AF_INET6) and sock.proto in (0, socket.IPPROTO_TCP):
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError:  # reset in the meantime; macOS says EINVAL then
            pass


def report(
    loop: asyncio.AbstractEventLoop,
    exc: BaseException,
    message: str,
    transport: asyncio.BaseTransport,
    protocol: asyncio.BaseProtocol,
    *,
    expected: bool = False,
) -> None:
    """Say what has broken a transport; what is to be `expected` of a peer, in debug mode only."""
    if not expected:
        loop.call_exception_handler(
            {
                "message": message,
                "exception": exc,
                "transport": transport,
                "protocol": protocol,
            }
        )
    elif loop.get_debug():
        logger.debug("%r: %s", transport, message, exc_info=exc)


def turn_away(transport: asyncio.Transport) -> None:
    """Close a connection whose end is not ours to hear of."""
    transport.set_protocol(asyncio.Protocol())
    transport.abort()


def checked(data: Buffer) -> Buffer:
    """`data` as a row of single bytes: what has another shape counts its items otherwise.

    Raises TypeError if it is not made of bytes.
    """
    if isinstance(data, memoryview):
        if data.ndim == 1 and data.itemsize == 1 and data.c_contiguous:
            return data
        # Those that are not contiguous, and empty ones, cannot be cast.
        return data.cast("B") if data.c_contiguous and data.nbytes else bytes(data)
    if isinstance(data, _BYTES):
        return data
    raise TypeError(f"data argument must be a bytes-like object, not {type(data).__name__!r}")


def snapshot(data: Buffer, start: int) -> bytes | memoryview:
    """The bytes of `data` from `start` on; its owner may change it afterwards."""
    if isinstance(data, bytes):
        return memoryview(data)[start:] if start else data
    return bytes(memoryview(data)[start:])
