"""Where a TLS handler's connection stands, and the errors for what cannot be sent there."""

import enum

from .errors import AwsIoError, CommonErrorCode, ErrorCode, make, translate
from .message_pool import IoMessage, MessageType


class State(enum.Enum):
    """How far a TLS handler has come."""

    WAITING = enum.auto()
    """For start_negotiation()."""
    NEGOTIATING = enum.auto()
    NEGOTIATED = enum.auto()
    FAILED = enum.auto()
    """In the negotiation, or later."""


LEGAL_MOVES: dict[State, frozenset[State]] = {
    State.WAITING: frozenset({State.NEGOTIATING, State.FAILED}),
    State.NEGOTIATING: frozenset({State.NEGOTIATED, State.FAILED}),
    State.NEGOTIATED: frozenset({State.FAILED}),
    State.FAILED: frozenset(),
}
"""Each state's possible next ones."""


def why_not(message: IoMessage, error: BaseException | None, writing_ended: bool) -> AwsIoError:
    """What keeps a message from being sent, by a connection that may have failed or ended."""
    if message.message_type is MessageType.END_OF_INPUT:
        return make(
            CommonErrorCode.ERROR_UNSUPPORTED_OPERATION,
            "TLS ends both directions at once: shut the channel down instead",
        )
    if message.message_type is not MessageType.APPLICATION_DATA:
        return unknown(message)
    if error is not None:
        return translate(error)
    if writing_ended:
        return ended()
    return make(ErrorCode.IO_TLS_ERROR_NOT_NEGOTIATED, "wait for on_negotiation_result")


def unknown(message: IoMessage) -> AwsIoError:
    """The error for a message of another handler's."""
    return make(ErrorCode.IO_CHANNEL_UNKNOWN_MESSAGE_TYPE, f"{message!r} is nothing for TLS")


def ended() -> AwsIoError:
    """The error for what comes after the end."""
    return make(ErrorCode.IO_TLS_ERROR_WRITE_FAILURE, "the channel is being shut down")


def is_socket_closed(error: BaseException | None) -> bool:
    """Whether a channel is shut down as its peer has ended the connection."""
    return isinstance(error, AwsIoError) and error.code is ErrorCode.IO_SOCKET_CLOSED
