"""Sockets as the operating system has them: their states, and calls with peculiarities."""

import enum
import errno
import socket
from typing import Any


class SocketDirection(enum.Enum):
    """A side of a connection that can be shut down."""

    READ = socket.SHUT_RD
    WRITE = socket.SHUT_WR


class SocketState(enum.Enum):
    """Where a socket is in its life."""

    INIT = enum.auto()
    BOUND = enum.auto()
    """A stream socket with a local address."""
    LISTENING = enum.auto()
    RECEIVING = enum.auto()
    """A datagram socket with a local address: it can be read from."""
    CONNECTING = enum.auto()
    CONNECTED = enum.auto()
    READ_CLOSED = enum.auto()
    """Connected; it can only be written to."""
    WRITE_CLOSED = enum.auto()
    """Connected; it can only be read from."""
    SHUT_DOWN = enum.auto()
    """Connected; both directions are shut down."""
    ERROR = enum.auto()
    """`bind` or `listen` failed: nothing is left but to close it."""
    CLOSED = enum.auto()


MOVES: dict[SocketState, set[SocketState]] = {
    SocketState.INIT: {
        SocketState.BOUND,
        SocketState.RECEIVING,
        SocketState.CONNECTING,
        SocketState.ERROR,
        SocketState.CLOSED,
    },
    SocketState.BOUND: {SocketState.LISTENING, SocketState.ERROR, SocketState.CLOSED},
    SocketState.LISTENING: {SocketState.CLOSED},
    SocketState.RECEIVING: {SocketState.CONNECTING, SocketState.CLOSED},
    SocketState.CONNECTING: {SocketState.CONNECTED, SocketState.CLOSED},
    SocketState.CONNECTED: {
        SocketState.READ_CLOSED,
        SocketState.WRITE_CLOSED,
        SocketState.CLOSED,
    },
    SocketState.READ_CLOSED: {SocketState.SHUT_DOWN, SocketState.CLOSED},
    SocketState.WRITE_CLOSED: {SocketState.SHUT_DOWN, SocketState.CLOSED},
    SocketState.SHUT_DOWN: {SocketState.CLOSED},
    SocketState.ERROR: {SocketState.CLOSED},
    SocketState.CLOSED: set(),
}
"""The legal moves."""

WITHOUT: dict[SocketDirection, dict[SocketState, SocketState]] = {
    SocketDirection.READ: {
        SocketState.CONNECTED: SocketState.READ_CLOSED,
        SocketState.WRITE_CLOSED: SocketState.SHUT_DOWN,
    },
    SocketDirection.WRITE: {
        SocketState.CONNECTED: SocketState.WRITE_CLOSED,
        SocketState.READ_CLOSED: SocketState.SHUT_DOWN,
    },
}
"""What a connection becomes when a direction is shut down; no key: it has not got that one."""

READABLE = frozenset({SocketState.RECEIVING, *WITHOUT[SocketDirection.READ]})
WRITABLE = frozenset(WITHOUT[SocketDirection.WRITE])


def state_of(sock: socket.socket) -> SocketState:
    """The state of a socket that was made elsewhere."""
    stream = sock.type == socket.SOCK_STREAM
    if stream and sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        return SocketState.LISTENING
    try:
        sock.getpeername()
    except OSError:
        address = sock.getsockname()
        if not (address if sock.family == socket.AF_UNIX else address[1]):
            return SocketState.INIT
        return SocketState.BOUND if stream else SocketState.RECEIVING
    return SocketState.CONNECTED


def moved(sock: socket.socket) -> socket.socket:
    """The same socket, non-blocking, as a new object; the old one has no descriptor any more."""
    new = socket.socket(sock.family, sock.type, sock.proto, fileno=sock.detach())
    new.setblocking(False)
    return new


def accept(listener: socket.socket) -> tuple[socket.socket, Any]:
    """The next connection, non-blocking, and its peer. Raises OSError if the listener has one."""
    while True:
        try:
            sock, peer = listener.accept()
        except OSError as exc:
            if exc.errno not in _LOST_BEFORE_ACCEPTED:
                raise
        else:
            sock.setblocking(False)
            return sock, peer


_LOST_BEFORE_ACCEPTED = {
    errno.ECONNABORTED,
    errno.EPROTO,
    errno.ENOPROTOOPT,
    errno.ENETDOWN,
    errno.ENETUNREACH,
    errno.EHOSTDOWN,
    errno.EHOSTUNREACH,
    getattr(errno, "ENONET", errno.EHOSTUNREACH),  # Linux has it
}
"""What `accept(2)` reports of a connection, not of the listener: the next one may be well."""
