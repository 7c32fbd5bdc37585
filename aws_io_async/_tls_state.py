"""Where a TLS connection stands, and where it may go from there."""

import enum


class TlsState(enum.Enum):
    """Where a TLS connection stands."""

    HANDSHAKE = enum.auto()
    """Keys are being negotiated; what is written is kept until they are there."""
    OPEN = enum.auto()
    """Plaintext flows both ways."""
    PEER_CLOSED = enum.auto()
    """The peer will send nothing more; we still may."""
    SHUTTING_DOWN = enum.auto()
    """We have said that we are done; input is discarded until the peer says so too."""
    CLOSED = enum.auto()
    """Nothing moves any more."""
    FAILED = enum.auto()
    """OpenSSL has given the connection up; `TlsEngine.error` says why."""


LEGAL_MOVES: dict[TlsState, frozenset[TlsState]] = {
    TlsState.HANDSHAKE: frozenset({TlsState.OPEN, TlsState.CLOSED, TlsState.FAILED}),
    TlsState.OPEN: frozenset(
        {TlsState.PEER_CLOSED, TlsState.SHUTTING_DOWN, TlsState.CLOSED, TlsState.FAILED}
    ),
    TlsState.PEER_CLOSED: frozenset({TlsState.CLOSED, TlsState.FAILED}),
    TlsState.SHUTTING_DOWN: frozenset({TlsState.CLOSED, TlsState.FAILED}),
    TlsState.CLOSED: frozenset(),
    TlsState.FAILED: frozenset(),
}
"""Each state's possible next ones."""
