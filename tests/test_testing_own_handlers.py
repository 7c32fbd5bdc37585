"""The library's own handlers keep the contract that `check_handler` checks."""

import asyncio
import ssl

import pytest
import trustme

from aws_io_async.alpn_handler import AlpnHandler
from aws_io_async.channel import ChannelDirection, ChannelHandler, ChannelSlot
from aws_io_async.message_pool import IoMessage, MessageType
from aws_io_async.testing import TestingChannel, check_handler
from aws_io_async.tls_channel_handler import TlsChannelHandler
from aws_io_async.tls_context import TlsConnectionOptions, TlsNegotiatedProtocol
from tests.example_handlers import READ, WRITE, SwapCase, Upper
from tests.tls_channels import SIDES, sides
from tests.tls_peers import HOST, Peer


class PeerHandler(ChannelHandler):
    """The other side of a TLS connection, to the left of ours: plaintext on its left.

    It hands over its ciphertext in messages of `chunk` bytes at most.
    """

    initial_window_size = 64

    def __init__(self, context: ssl.SSLContext, chunk: int) -> None:
        self.peer = Peer(context)
        self.chunk = chunk
        self.is_ready = asyncio.Event()
        self.ciphertext = b""
        self.owed = 0
        self.drained: asyncio.Future[None] | None = None

    def process_read_message(self, slot: ChannelSlot, message: IoMessage) -> None:
        self.ciphertext += self.peer.write(bytes(message.data)) if message.data else b""
        self.owed += len(message.data)
        self.pass_on(slot)

    def increment_read_window(self, slot: ChannelSlot, size: int) -> None:
        self.pass_on(slot)

    def pass_on(self, slot: ChannelSlot) -> None:
        while self.ciphertext and (window := slot.downstream_read_window):
            size = min(window, self.chunk)
            part, self.ciphertext = self.ciphertext[:size], self.ciphertext[size:]
            slot.send_message(IoMessage(part), READ)
        if not self.ciphertext:
            owed, self.owed = self.owed, 0
            slot.increment_read_window(owed)
            if self.drained is not None and not self.drained.done():
                self.drained.set_result(None)

    def process_write_message(self, slot: ChannelSlot, message: IoMessage) -> None:
        if self.is_ready.is_set():
            plaintext = self.peer.read(bytes(message.data))
        else:
            plaintext = b""
            self.peer.incoming.write(message.data)
            slot.channel.loop.call_soon(self.shake_hands, slot)  # as a network does: later
        if plaintext:
            out = IoMessage(plaintext)
            out.on_completion = lambda channel, _, error: message.complete(channel, error)
            slot.send_message(out, WRITE)
        else:
            message.complete(slot.channel, None)

    def shake_hands(self, slot: ChannelSlot) -> None:
        if self.peer.handshake():
            self.is_ready.set()
        self.ciphertext += self.peer.outgoing.read()
        self.pass_on(slot)

    def shutdown(
        self,
        slot: ChannelSlot,
        direction: ChannelDirection,
        error: BaseException | None,
        free_scarce_resources_immediately: bool,
    ) -> "asyncio.Future[None] | None":
        if direction is READ and self.ciphertext and not free_scarce_resources_immediately:
            self.drained = asyncio.get_running_loop().create_future()
            return self.drained
        return None


@pytest.mark.parametrize("chunk", [1, 16 * 1024])
@pytest.mark.parametrize(("side", "version"), SIDES, ids=lambda each: getattr(each, "name", each))
async def test_the_tls_handler(
    ca: trustme.CA, side: str, version: ssl.TLSVersion, chunk: int
) -> None:
    ours, theirs = sides(ca, side, version)
    made: list[tuple[PeerHandler, TlsChannelHandler]] = []

    def make() -> tuple[PeerHandler, TlsChannelHandler]:
        options = TlsConnectionOptions(ours, HOST)
        made.append((PeerHandler(theirs, chunk), TlsChannelHandler(options, side == "server")))
        return made[-1]

    async def negotiate(channel: TestingChannel) -> None:
        peer, tls = made[-1]
        tls.start_negotiation()
        assert peer.slot is not None
        if side == "server":
            peer.shake_hands(peer.slot)
        await peer.is_ready.wait()

    await check_handler(
        make,
        reads=[b"To be decrypted", b", some times"],
        writes=[b"To be encrypted"],
        expected_received=b"To be decrypted, some times",
        expected_written=b"To be encrypted",
        ready=negotiate,
    )


@pytest.mark.parametrize("handler", [SwapCase, Upper])
async def test_the_alpn_handler(handler: type[ChannelHandler]) -> None:
    """It gives way to a handler that keeps the contract, and so do the two together."""
    negotiated = IoMessage(message_type=MessageType.OTHER, tag=TlsNegotiatedProtocol("h2"))
    await check_handler(
        lambda: AlpnHandler(lambda slot, protocol: handler()),
        reads=[
            negotiated,
            b"the bytes that follow",
            IoMessage(message_type=MessageType.END_OF_INPUT),
        ],
    )
