"""Messages whose plaintext is kept: TLS 1.2 negotiates new keys, and encrypts nothing meanwhile."""

from collections.abc import Callable

from .channel import Channel
from .message_pool import IoMessage


class HeldWrites:
    """They are complete when what they came to has been written. Thread: the channel's."""

    __slots__ = ("_messages",)

    def __init__(self) -> None:
        self._messages: list[IoMessage] = []

    def hold(self, message: IoMessage) -> None:
        """Keep one more."""
        self._messages.append(message)

    def go_with(self, out: IoMessage) -> None:
        """All of them are encrypted, and complete when `out` is."""
        if self._messages:
            held, self._messages = self._messages, []
            out.on_completion = lambda channel, _, error: _complete(held, channel, error)

    def fail(self, channel: Channel, error: BaseException) -> None:
        """They will not be sent."""
        held, self._messages = self._messages, []
        _complete(held, channel, error)


def _complete(messages: list[IoMessage], channel: Channel, error: BaseException | None) -> None:
    for message in messages:
        message.complete(channel, error)


def completing(message: IoMessage) -> Callable[[Channel, IoMessage, BaseException | None], None]:
    """What tells a message's sender, when the ciphertext that was made of it has gone.

    Not in line: a variable of an inner function would make each use of it slower.
    """
    return lambda channel, _, error: message.complete(channel, error)
