"""Messages and the pool that they come from."""

from typing import Any

import pytest

from aws_io_async.message_pool import MAX_FRAGMENT_SIZE, IoMessage, MessagePool, MessageType


class NoChannel:
    """Stands for the channel of a message: keeps what failed."""

    def __init__(self) -> None:
        self.failures: list[tuple[object, BaseException]] = []

    def _failed(self, culprit: object, exc: BaseException) -> None:
        self.failures.append((culprit, exc))


def test_a_message_is_application_data_unless_it_says_so() -> None:
    message = IoMessage(b"abc")
    assert message.data == b"abc"
    assert message.message_type is MessageType.APPLICATION_DATA
    assert message.tag is None
    assert repr(message) == "<IoMessage application data, 3 bytes>"


def test_a_message_completes_once() -> None:
    channel, told = NoChannel(), []
    message = IoMessage(b"abc", on_completion=lambda *args: told.append(args))
    message.complete(channel, None)
    message.complete(channel, ValueError("too late"))
    assert told == [(channel, message, None)]


def test_a_message_that_nobody_asks_about_completes_silently() -> None:
    channel = NoChannel()
    IoMessage().complete(channel, ValueError())
    assert not channel.failures


def test_what_a_completion_raises_is_the_channels_to_know() -> None:
    error = ValueError("in the callback")

    def on_completion(*_: Any) -> None:
        raise error

    channel = NoChannel()
    IoMessage(on_completion=on_completion).complete(channel, None)
    assert channel.failures == [(on_completion, error)]


@pytest.mark.parametrize("leave", [SystemExit, KeyboardInterrupt])
def test_a_completion_may_end_the_program(leave: type[BaseException]) -> None:
    def on_completion(*_: Any) -> None:
        raise leave

    with pytest.raises(leave):
        IoMessage(on_completion=on_completion).complete(NoChannel(), None)


@pytest.mark.parametrize(
    ("size_hint", "capacity"),
    [(0, 0), (1, 1), (128, 128), (129, 129), (MAX_FRAGMENT_SIZE, MAX_FRAGMENT_SIZE)],
)
def test_a_pooled_message_has_the_capacity_that_was_asked_for(
    size_hint: int, capacity: int
) -> None:
    message = MessagePool().acquire(MessageType.APPLICATION_DATA, size_hint)
    assert message.capacity == capacity
    assert message.data == b""


def test_a_pooled_message_is_no_larger_than_a_fragment() -> None:
    pool = MessagePool()
    assert pool.acquire(MessageType.APPLICATION_DATA, MAX_FRAGMENT_SIZE + 1).capacity == 16 * 1024
    assert MessagePool(100).acquire(MessageType.APPLICATION_DATA, 1000).capacity == 100


def test_pooled_messages_do_not_share_their_data() -> None:
    pool = MessagePool()
    one, other = (pool.acquire(MessageType.OTHER, 10) for _ in range(2))
    assert isinstance(one.data, bytearray)
    one.data += b"abc"
    assert [bytes(message.data) for message in (one, other)] == [b"abc", b""]
    assert one.message_type is MessageType.OTHER


def test_misuse_is_told_at_once() -> None:
    with pytest.raises(ValueError, match="size_hint must not be negative"):
        MessagePool().acquire(MessageType.APPLICATION_DATA, -1)
    with pytest.raises(ValueError, match="max_fragment_size must be positive"):
        MessagePool(0)
    with pytest.raises(ValueError, match="size must be positive"):
        MessagePool().acquire_read_buffer(0)


def test_the_read_buffer_is_shared_and_grows_to_the_largest_that_is_asked_for() -> None:
    pool = MessagePool()
    small = pool.acquire_read_buffer(10)
    assert len(small) == 10
    small[:3] = b"abc"
    assert bytes(pool.read_buffer[:3]) == b"abc"
    large = pool.acquire_read_buffer(100_000)
    assert len(large) == len(pool.read_buffer) == 100_000
    assert len(pool.acquire_read_buffer(MAX_FRAGMENT_SIZE)) == MAX_FRAGMENT_SIZE
    assert bytes(small[:3]) == b"abc"  # whoever has the old one may go on with it
