"""The read windows of a channel: when they are topped up, and when the way is clogged.

Theory of operation. With read back pressure, what handlers ask for by `increment_read_window` is
saved up slot by slot, and emitted for the whole channel at once, from right to left: each slot's
window grows by its batch, and the handler to the left of it is told, down to the socket, which
reads again. The emission is due when some slot has saved something, and the scarcest window has
come down to the threshold. Which slot saves and which is scarce are two questions: a handler above
TLS asks for plaintext while the slot of TLS runs out of ciphertext. Both a grant and a message can
make it due, so both ask. The leftmost slot does not count: nobody sends it anything to read.

Without back pressure, handlers take what comes. But what comes while a coroutine is suspended has
to wait, and must not become any amount: when more than CLOGGED bytes wait in the channel, the
leftmost handler may send nothing more until half of that has been taken. The others may, as one
of them could be what the rest waits for.

When the chain has changed, or is no longer clogged, handlers are told in the same way, if need be
with a size of 0: look again how much you can send.

Source: aws-c-io's `channel.c`.
"""

from typing import TYPE_CHECKING

from ..errors import translate
from ..message_pool import MAX_FRAGMENT_SIZE

if TYPE_CHECKING:
    from ._channel import Channel
    from ._slot import ChannelSlot

WINDOW_UPDATE_THRESHOLD = 4 * MAX_FRAGMENT_SIZE
"""Bytes; windows are topped up when the scarcest has come down to this, as in aws-c-io."""

CLOGGED = 64 * 1024
"""Bytes that may wait for suspended handlers, all told, before reading stops."""


class ReadWindows:
    """Those of one channel. Thread: the channel's."""

    __slots__ = ("_channel", "_emission_due", "_scheduled", "_waiting_bytes")

    def __init__(self, channel: "Channel") -> None:
        self._channel = channel
        self._scheduled = False
        self._emission_due = False
        self._waiting_bytes = 0

    def granted(self, asker: "ChannelSlot") -> None:
        """A slot, which may not be in the chain yet, has saved up a grant."""
        if self._emission_due or asker is self._channel.first_slot:
            return  # nothing is emitted from the leftmost slot: asked for again, it would spin
        if self._is_emission_needed(asker):
            self._schedule_emission()

    def shrunk(self) -> None:
        """A window has come down to the threshold, or below."""
        if not self._emission_due and self._anything_granted():
            self._schedule_emission()

    def chain_changed(self) -> None:
        """There are other slots now, or one has its handler: some may be able to send."""
        first = self._channel.first_slot
        if first is not None and first.right is not None:
            self.granted(first.right)  # a slot may have brought its grant along
        self._schedule()

    def waiting(self, change: int) -> None:
        """Bytes have begun to wait for a suspended handler, or have ended waiting."""
        self._waiting_bytes += change
        if self._waiting_bytes > CLOGGED:
            self._channel.is_clogged = True
        elif self._channel.is_clogged and self._waiting_bytes <= CLOGGED // 2:
            self._channel.is_clogged = False
            self._schedule()

    def _anything_granted(self) -> bool:
        return any(slot._batch for slot in self._channel.slots() if slot.left is not None)

    def _is_emission_needed(self, asker: "ChannelSlot") -> bool:
        threshold = self._channel.window_update_threshold
        granted, scarce = asker._batch > 0, asker.window_size <= threshold
        first = self._channel.first_slot
        slot = first.right if first is not None else None
        while slot is not None and not (granted and scarce):
            granted = granted or slot._batch > 0
            scarce = scarce or slot.window_size <= threshold
            slot = slot.right
        return granted and scarce

    def _schedule_emission(self) -> None:
        self._emission_due = True
        self._schedule()

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._channel.loop.call_soon(self._update)

    def _update(self) -> None:
        emit, self._emission_due, self._scheduled = self._emission_due, False, False
        channel = self._channel
        if channel._has_ended:
            return
        for slot in reversed(list(channel.slots())):
            left = slot.left
            if left is not None and left.handler is not None:
                if emit:
                    slot._emit_batch()
                try:
                    left.handler.increment_read_window(left, slot._take_news())
                except (SystemExit, KeyboardInterrupt) as exc:  # others are told the next time
                    channel._failed(left.handler, translate(exc))
                    left.open_for_good()
                    raise
                except BaseException as exc:
                    channel._failed(left.handler, exc)
                    left.open_for_good()
