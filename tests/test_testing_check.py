"""`check_handler` with handlers that keep their contract, and what its options do."""

import asyncio

import pytest

from aws_io_async.channel import ChannelHandler
from aws_io_async.message_pool import IoMessage, MessageType
from aws_io_async.testing import check_handler
from tests.example_handlers import Echo, FrameDecoder, PassOn, SwapCase, Upper

END = IoMessage(message_type=MessageType.END_OF_INPUT)

FRAMES = [b"frame", b"", b"another frame", bytes(200), b"!"]
FRAMED = b"".join(bytes([len(frame)]) + frame for frame in FRAMES)


@pytest.mark.parametrize("handler", [PassOn, SwapCase, Upper])
async def test_handlers_of_streams(handler: type[ChannelHandler]) -> None:
    await check_handler(
        handler, reads=[b"Some bytes", b"", b", and more of them", END], writes=[b"One", b"Two"]
    )


async def test_a_decoder_of_frames() -> None:
    await check_handler(
        FrameDecoder,
        reads=[FRAMED],
        writes=[b"One", b"Two"],
        expected_received=b"".join(FRAMES),
        expected_written=b"\x03One\x03Two",
        keep_messages=True,
        windows=[200, 1000],
    )


async def test_a_handler_that_answers() -> None:
    await check_handler(Echo, reads=[b"Answer", b" this"], expected_written=b"Answer this")


async def test_handlers_side_by_side() -> None:
    await check_handler(
        lambda: [SwapCase(), PassOn(), Upper()],
        reads=[b"Some bytes"],
        expected_received=b"SOME BYTES",
    )


async def test_without_input() -> None:
    await check_handler(PassOn)


async def test_it_leaves_nothing_behind() -> None:
    loop = asyncio.get_running_loop()
    before = asyncio.all_tasks(), loop.call_later, loop.call_at
    await check_handler(Upper, reads=[b"abc"])
    assert (asyncio.all_tasks(), loop.call_later, loop.call_at) == before


async def test_that_it_can_be_cancelled() -> None:
    handlers: list[Upper] = []
    made_ten = asyncio.Event()

    def make() -> Upper:
        handlers.append(Upper())
        if len(handlers) == 10:
            made_ten.set()
        return handlers[-1]

    before = asyncio.all_tasks()
    check = asyncio.ensure_future(check_handler(make, reads=[b"abc"] * 3))
    await made_ten.wait()
    check.cancel()
    with pytest.raises(asyncio.CancelledError):
        await check
    assert asyncio.all_tasks() == before
    assert handlers[-1].slot is not None
    assert handlers[-1].slot.channel.first_slot is None
