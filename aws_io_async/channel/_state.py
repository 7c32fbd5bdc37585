"""Where a channel is in its life, and where it may go from there."""

import enum


class ChannelState(enum.Enum):
    """Where a channel is in its life."""

    SETTING_UP = "setting up"
    ACTIVE = "active"
    SHUTTING_DOWN = "shutting down"
    SHUT_DOWN = "shut down"


LEGAL_MOVES = {
    ChannelState.SETTING_UP: {ChannelState.ACTIVE},
    ChannelState.ACTIVE: {ChannelState.SHUTTING_DOWN},
    ChannelState.SHUTTING_DOWN: {ChannelState.SHUT_DOWN},
    ChannelState.SHUT_DOWN: set[ChannelState](),
}
"""Each state's possible next ones."""
