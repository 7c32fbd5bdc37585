"""Chooses the application's handler by the protocol that TLS has negotiated.

Source: aws-c-io's `alpn_handler.c`.
"""

from collections.abc import Callable

from . import log
from .channel import ChannelHandler, ChannelSlot
from .errors import ErrorCode, make
from .message_pool import IoMessage, MessageType
from .tls_context import TlsNegotiatedProtocol

logger = log.logger(log.LogSubject.ALPN)


class AlpnHandler(ChannelHandler):
    """Sits to the right of the TLS handler, and gives way to the handler it is told.

    `on_protocol_negotiated(slot, protocol)` is called on the channel's thread with the new slot
    and the protocol, such as "h2", or "" if none was agreed on. What it returns goes into the
    slot, which takes the place of this handler's. If it returns None, the channel is shut down
    with IO_UNHANDLED_ALPN_PROTOCOL_MESSAGE; if data comes before the TLS handler has told the
    protocol, with IO_MISSING_ALPN_MESSAGE: set `advertise_alpn_message` in its options.
    """

    initial_window_size = 0  # the message of the TLS handler carries no bytes

    def __init__(
        self, on_protocol_negotiated: Callable[[ChannelSlot, str], ChannelHandler | None]
    ) -> None:
        if not callable(on_protocol_negotiated):
            raise TypeError(
                f"on_protocol_negotiated must be callable, not {on_protocol_negotiated!r}"
            )
        self._on_protocol_negotiated = on_protocol_negotiated

    def process_read_message(self, slot: ChannelSlot, message: IoMessage) -> None:
        """Take the TLS handler's message, and give way."""
        if message.message_type is not MessageType.OTHER or not isinstance(
            message.tag, TlsNegotiatedProtocol
        ):
            raise make(ErrorCode.IO_MISSING_ALPN_MESSAGE, f"{message!r} came instead")
        protocol = message.tag.protocol
        new_slot = slot.channel.new_slot()
        handler = self._on_protocol_negotiated(new_slot, protocol)
        if handler is None:
            raise make(ErrorCode.IO_UNHANDLED_ALPN_PROTOCOL_MESSAGE, f"protocol {protocol!r}")
        logger.debug("%r: protocol %r is for %r", slot.channel, protocol, handler)
        slot.replace(new_slot)
        new_slot.set_handler(handler)
