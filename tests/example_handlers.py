"""Handlers that keep their contract, to be tested by what the library offers for that."""

import asyncio

from aws_io_async.channel import ChannelDirection, ChannelHandler, ChannelSlot
from aws_io_async.message_pool import IoMessage, MessageType

READ, WRITE = ChannelDirection.READ, ChannelDirection.WRITE


class PassOn(ChannelHandler):
    """Passes everything on, its neighbours' windows too."""

    initial_window_size = 0


class SwapCase(ChannelHandler):
    """Plain methods. What the window to the right does not allow, it keeps until it grows."""

    initial_window_size = 32

    def __init__(self) -> None:
        self.kept = bytearray()
        self.end: IoMessage | None = None
        self.drained: asyncio.Future[None] | None = None

    def process_read_message(self, slot: ChannelSlot, message: IoMessage) -> None:
        if message.message_type is MessageType.APPLICATION_DATA:
            self.kept += bytes(message.data).swapcase()
        else:
            self.end = message
        self.pass_on(slot)

    def increment_read_window(self, slot: ChannelSlot, size: int) -> None:
        self.pass_on(slot)

    def pass_on(self, slot: ChannelSlot) -> None:
        while self.kept and (window := slot.downstream_read_window):
            part = bytes(self.kept[:window])
            del self.kept[:window]
            slot.send_message(IoMessage(part), READ)
            slot.increment_read_window(len(part))
        if not self.kept:
            if self.end is not None:
                end, self.end = self.end, None
                slot.send_message(end, READ)
            if self.drained is not None and not self.drained.done():
                self.drained.set_result(None)

    def process_write_message(self, slot: ChannelSlot, message: IoMessage) -> None:
        swapped = IoMessage(
            bytes(message.data).swapcase(),
            on_completion=lambda channel, _, error: message.complete(channel, error),
        )
        slot.send_message(swapped, WRITE)

    def shutdown(
        self,
        slot: ChannelSlot,
        direction: ChannelDirection,
        error: BaseException | None,
        free_scarce_resources_immediately: bool,
    ) -> "asyncio.Future[None] | None":
        if direction is READ and self.kept and not free_scarce_resources_immediately:
            self.drained = asyncio.get_running_loop().create_future()
            return self.drained
        return None


class FrameDecoder(ChannelHandler):
    """Plain methods. Frames of a length byte and so many bytes, a message each to the right."""

    initial_window_size = 256
    message_overhead = 1

    def __init__(self) -> None:
        self.kept = bytearray()
        self.drained: asyncio.Future[None] | None = None

    def process_read_message(self, slot: ChannelSlot, message: IoMessage) -> None:
        self.kept += message.data
        self.pass_on(slot)

    def increment_read_window(self, slot: ChannelSlot, size: int) -> None:
        self.pass_on(slot)

    def has_frame(self) -> bool:
        return len(self.kept) > 0 and len(self.kept) > self.kept[0]

    def pass_on(self, slot: ChannelSlot) -> None:
        while self.has_frame() and slot.downstream_read_window >= self.kept[0]:
            end = 1 + self.kept[0]
            frame = bytes(self.kept[1:end])
            del self.kept[:end]
            slot.send_message(IoMessage(frame), READ)
            slot.increment_read_window(end)
        if self.drained is not None and not self.drained.done() and not self.has_frame():
            self.drained.set_result(None)

    def process_write_message(self, slot: ChannelSlot, message: IoMessage) -> None:
        frame = IoMessage(
            bytes([len(message.data)]) + bytes(message.data),
            on_completion=lambda channel, _, error: message.complete(channel, error),
        )
        slot.send_message(frame, WRITE)

    def shutdown(
        self,
        slot: ChannelSlot,
        direction: ChannelDirection,
        error: BaseException | None,
        free_scarce_resources_immediately: bool,
    ) -> "asyncio.Future[None] | None":
        if direction is READ and self.has_frame() and not free_scarce_resources_immediately:
            self.drained = asyncio.get_running_loop().create_future()
            return self.drained
        return None


class Upper(ChannelHandler):
    """Coroutines, which wait for the window to the right, and with each write for a turn."""

    initial_window_size = 16

    def __init__(self) -> None:
        self.grown: asyncio.Future[None] | None = None

    async def process_read_message(self, slot: ChannelSlot, message: IoMessage) -> None:
        if message.message_type is not MessageType.APPLICATION_DATA:
            slot.send_message(message, READ)
        rest = bytes(message.data).upper()
        while rest:
            window = slot.downstream_read_window
            if not window:
                self.grown = asyncio.get_running_loop().create_future()
                await self.grown
                continue
            part, rest = rest[:window], rest[window:]
            slot.send_message(IoMessage(part), READ)
            slot.increment_read_window(len(part))

    def increment_read_window(self, slot: ChannelSlot, size: int) -> None:
        if self.grown is not None and not self.grown.done():
            self.grown.set_result(None)

    async def process_write_message(self, slot: ChannelSlot, message: IoMessage) -> None:
        try:
            async with asyncio.timeout(60):
                await asyncio.sleep(0)
            slot.send_message(message, WRITE)
        except BaseException as exc:
            message.complete(slot.channel, exc)
            raise


class Echo(ChannelHandler):
    """A coroutine. Answers with what it gets, and takes more once that has been written."""

    initial_window_size = 16

    async def process_read_message(self, slot: ChannelSlot, message: IoMessage) -> None:
        await slot.write(message.data)
        slot.increment_read_window(len(message.data))
