"""How much ciphertext a TLS handler asks for, so that enough plaintext comes of it.

The window for ciphertext follows the one for plaintext, with room for what records add; and if
anything is wanted at all, it has room for a whole record, since nothing can be decrypted of a part
of one.
"""

from ._tls_engine import MAX_PLAINTEXT
from .channel import ChannelSlot

HANDSHAKE_WINDOW = 7 * 1024
"""Bytes of ciphertext that are taken before anyone downstream has asked for plaintext."""

RECORD_OVERHEAD = 53
"""Bytes that the ciphers in use add to a record, at most."""

RECORD_WINDOW = MAX_PLAINTEXT + RECORD_OVERHEAD
"""Bytes; with a smaller window a record might never come to its end."""


class CiphertextWindow:
    """What was asked for and has not come: the slot's window, and what is on its way there."""

    __slots__ = ("expected",)

    def __init__(self) -> None:
        self.expected = HANDSHAKE_WINDOW
        """In bytes. Whoever gets some subtracts them."""

    @property
    def is_low(self) -> bool:
        """Whether a whole record would not fit in."""
        return self.expected < RECORD_WINDOW

    def ask(self, slot: ChannelSlot, size: int) -> None:
        """Ask for so much more."""
        self.expected += size
        slot.increment_read_window(size)

    def follow(self, slot: ChannelSlot, plaintext: int) -> None:
        """Have room for the ciphertext of so much plaintext, which is not 0."""
        records = -(-plaintext // MAX_PLAINTEXT)
        wanted = max(plaintext + records * RECORD_OVERHEAD, RECORD_WINDOW)
        if wanted > self.expected:
            self.ask(slot, wanted - self.expected)
