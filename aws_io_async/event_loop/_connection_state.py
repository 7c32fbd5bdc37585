"""Where a transport is in its life, whatever it carries, and who else is told."""

import enum
from typing import Protocol


class ConnectionState(enum.Enum):
    """Of a connection, an endpoint or a pipe."""

    OPEN = "open"
    CLOSING = "closing"  # close() was called; the backlog is being sent
    CLOSED = "closed"  # connection_lost() is scheduled, or has been called

    __hash__ = object.__hash__  # Enum's is written in Python, and every connection moves

    def moved_to(self, state: "ConnectionState") -> "ConnectionState":
        """`state`, if that may come next."""
        if state not in LEGAL_MOVES[self]:
            raise AssertionError(f"a transport that is {self.value} cannot become {state.value}")
        return state


OPEN, CLOSING, CLOSED = ConnectionState.OPEN, ConnectionState.CLOSING, ConnectionState.CLOSED
"""For those who ask with each message: a member takes 60 ns to be found on Python 3.11."""

LEGAL_MOVES = {
    OPEN: {CLOSING, CLOSED},
    CLOSING: {CLOSED},
    CLOSED: set[ConnectionState](),
}
"""Each state's possible next ones."""


class ConnectionOwner(Protocol):
    """The server that accepted a connection, as the connection knows it."""

    def _attach(self) -> None: ...

    def _detach(self) -> None: ...
