"""`TestingChannel`, as aws-c-io's own test has its testing channel."""

from aws_io_async.message_pool import IoMessage
from aws_io_async.testing import TestingChannel


async def test_io_testing_channel() -> None:
    async with TestingChannel(initial_window=16 * 1024) as channel:
        read, write = IoMessage(bytes(64)), IoMessage(bytes(64))
        channel.push_read(read)
        channel.push_write(write)
        await channel.settle()
        assert channel.received == [read]
        assert channel.written == [write]
        channel.increment_read_window(12345)
        await channel.settle()
        assert channel.window_increments[-1] == 12345
        assert channel.read_window == 16 * 1024 - 64 + 12345
    assert channel.is_shut_down
