"""A descriptor to watch, and what can be seen of it."""

import enum
from typing import Protocol


class HasFileno(Protocol):
    def fileno(self) -> int: ...


class IoEvents(enum.Flag):
    """What happened to a descriptor, or is to be told (aws-c-io's `aws_io_event_type`).

    READABLE and WRITABLE are asked for; the others are reported to every subscriber.
    """

    READABLE = 1
    """Data have come, or a connection to accept, or the end of the input."""
    WRITABLE = 2
    """There is room to write again."""
    REMOTE_HANG_UP = 4
    """The other end will send no more (EPOLLRDHUP; EV_EOF of kqueue's read filter)."""
    CLOSED = 8
    """The other end is closed altogether (EPOLLHUP; EV_EOF of kqueue's write filter)."""
    ERROR = 16
    """The descriptor has failed (EPOLLERR; kqueue's EV_ERROR, or EV_EOF with an errno)."""


class IoHandle:
    """A descriptor as `EventLoop.subscribe_to_io_events` takes it.

    `fd` is its number, or something that has a `fileno()`. The handle does not own it: whoever
    does unsubscribes first and closes it then. Raises TypeError if `fd` is neither, and ValueError
    if the number is negative, as that of a closed socket is.
    """

    __slots__ = ("__weakref__", "fd")

    def __init__(self, fd: int | HasFileno) -> None:
        number = fd if isinstance(fd, int) else getattr(fd, "fileno", lambda: None)()
        if not isinstance(number, int):
            raise TypeError(f"a descriptor is a number or has a fileno(), not {fd!r}")
        if number < 0:
            raise ValueError(f"{number} is no file descriptor: {fd!r} is closed")
        self.fd = number

    def fileno(self) -> int:
        return self.fd

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.fd})"
