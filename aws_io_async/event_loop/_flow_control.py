"""Back pressure on writers: when to call `pause_writing` and `resume_writing`."""

import asyncio
from typing import Any

HIGH_WATER = 64 * 1024
"""Bytes; asyncio's default."""


class WriteFlowControl:
    """Pauses the writer of a transport while its backlog is above the high-water mark.

    The transport owns one of these and reports the size of its backlog; `protocol` is whoever
    the transport talks to at the moment. Thread: the loop's.
    """

    __slots__ = ("_loop", "_transport", "high", "low", "paused", "protocol")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        transport: asyncio.BaseTransport,
        protocol: asyncio.BaseProtocol,
    ) -> None:
        self._loop = loop
        self._transport: asyncio.BaseTransport | None = transport
        self.protocol: asyncio.BaseProtocol | None = protocol
        self.paused = False
        self.high = HIGH_WATER
        self.low = HIGH_WATER // 4

    def release(self) -> None:
        """Let go of transport and protocol, which are closed."""
        self._transport = self.protocol = None

    def set_limits(self, high: int | None, low: int | None, size: int) -> None:
        """Change the marks (bytes), with asyncio's defaults; `size` is the backlog as it is.

        Raises ValueError unless high >= low >= 0.
        """
        if high is None:
            high = HIGH_WATER if low is None else 4 * low
        if low is None:
            low = high // 4
        if not high >= low >= 0:
            raise ValueError(f"high ({high!r}) must be >= low ({low!r}) must be >= 0")
        self.high = high
        self.low = low
        self.grown(size)

    def grown(self, size: int) -> None:
        """The backlog has grown to `size` bytes."""
        if size > self.high and not self.paused:
            self.paused = True
            self._tell("pause_writing")

    def shrunk(self, size: int) -> None:
        """The backlog has shrunk to `size` bytes."""
        if self.paused and size <= self.low:
            self.paused = False
            self._tell("resume_writing")

    def _tell(self, method: str) -> None:
        try:
            getattr(self.protocol, method)()
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as exc:
            context: dict[str, Any] = {
                "message": f"protocol.{method}() failed",
                "exception": exc,
                "transport": self._transport,
                "protocol": self.protocol,
            }
            self._loop.call_exception_handler(context)
