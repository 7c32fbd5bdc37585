"""`TestingChannel`: a channel whose two ends are in the test's hands."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from aws_io_async.channel import Channel, ChannelHandler, ChannelState, ChannelTask
from aws_io_async.errors import AwsIoError, ErrorCode
from aws_io_async.message_pool import IoMessage, MessageType
from aws_io_async.testing import ShutdownCall, TestingChannel, TestingLoop
from tests import channels
from tests.channels import READ, WRITE, App, Stage, state
from tests.example_handlers import FrameDecoder, PassOn, SwapCase, Upper
from tests.socket_tools import raises, turns

no_tasks_left = channels.no_tasks_left

WINDOW = 16 * 1024


@pytest.fixture
def loop() -> Iterator[TestingLoop]:
    loop = TestingLoop()
    yield loop
    assert not asyncio.all_tasks(loop)
    loop.close()


async def test_io_testing_channel() -> None:
    async with TestingChannel(initial_window=WINDOW) as channel:
        read, write = IoMessage(bytes(64)), IoMessage(bytes(64))
        channel.push_read(read)
        channel.push_write(write)
        await channel.settle()
        assert channel.received == [read]
        assert channel.written == [write]
        channel.increment_read_window(12345)
        await channel.settle()
        assert channel.window_increments[-1] == 12345
        assert channel.read_window == WINDOW - 64 + 12345
    assert channel.is_shut_down


# In a coroutine


async def test_what_is_pushed_to_read_comes_out_at_the_right_end() -> None:
    async with TestingChannel(FrameDecoder()) as channel:
        channel.push_read(b"\3abc\2")
        channel.push_read(bytearray(b"de"))
        assert [bytes(message.data) for message in channel.received] == [b"abc", b"de"]
        assert channel.take_received() == b"abcde"
        assert channel.received == []


async def test_what_is_pushed_to_write_comes_out_at_the_left_end_and_is_completed() -> None:
    async with TestingChannel(FrameDecoder()) as channel:
        message = channel.push_write(b"abc")
        assert channel.take_written() == b"\3abc"
        assert channel.written == []
        assert channel.completions == [(message, None)]


async def test_coroutines_are_given_their_turns() -> None:
    async with TestingChannel(Upper(), initial_window=0) as channel:
        channel.push_read(b"window by window")
        await channel.settle()
        assert channel.take_received() == b""
        for size in (3, 13):
            channel.increment_read_window(size)
            await channel.settle()
        assert channel.take_received() == b"WINDOW BY WINDOW"
        channel.push_write(b"abc")
        await channel.until(lambda: channel.completions)
        assert channel.take_written() == b"abc"


async def test_messages_that_carry_something_else() -> None:
    async with TestingChannel(PassOn()) as channel:
        channel.push_end_of_input()
        channel.push_read(IoMessage(message_type=MessageType.OTHER, tag="news"))
        kinds = [(message.message_type, message.tag) for message in channel.received]
        assert kinds == [(MessageType.END_OF_INPUT, None), (MessageType.OTHER, "news")]


async def test_the_windows_are_real() -> None:
    async with TestingChannel(PassOn(), initial_window=10) as channel:
        await channel.settle()
        assert channel.read_window == 10
        with raises(ErrorCode.IO_CHANNEL_READ_WOULD_EXCEED_WINDOW):
            channel.push_read(bytes(11))
        channel.push_read(bytes(10))
        assert channel.read_window == 0
        channel.increment_read_window(7)
        await channel.settle()
        assert channel.read_window == 7
        assert channel.window_increments == [10, 7]


async def test_without_back_pressure_there_are_none() -> None:
    async with TestingChannel(initial_window=0, enable_read_back_pressure=False) as channel:
        channel.push_read(bytes(1000))
        assert len(channel.take_received()) == 1000


async def test_a_threshold_for_what_is_saved_up() -> None:
    async with TestingChannel(initial_window=100, window_update_threshold=10) as channel:
        await channel.settle()
        channel.increment_read_window(50)
        await channel.settle()
        assert channel.window_increments == [100]
        channel.push_read(bytes(90))
        await channel.settle()
        assert channel.window_increments == [100, 50]


async def test_without_a_right_end() -> None:
    async with TestingChannel(Stage(), app := App(), right_end=False) as channel:
        channel.push_read(b"abc")
        assert app.data == b"abc"
        app.send(b"def", WRITE)
        assert channel.take_written() == b"def"
        for use in (lambda: channel.push_write(b"x"), lambda: channel.increment_read_window(1)):
            with pytest.raises(RuntimeError, match="made without a right end"):
                use()


# Completions and failures


async def test_writes_can_be_held_and_completed_later() -> None:
    async with TestingChannel(SwapCase()) as channel:
        channel.hold_writes = True
        one, two = channel.push_write(b"one"), channel.push_write(b"two")
        assert (channel.held_writes, channel.completions) == (2, [])
        error = OSError("no cable")
        channel.complete_write()
        channel.complete_write(error)
        assert channel.completions == [(one, None), (two, error)]
        with pytest.raises(RuntimeError, match="no write is held: set hold_writes"):
            channel.complete_write()


async def test_held_writes_end_with_the_channel() -> None:
    async with TestingChannel(PassOn()) as channel:
        channel.hold_writes = True
        channel.push_write(b"one")
    ((_, error),) = channel.completions
    assert isinstance(error, AwsIoError)
    assert error.code is ErrorCode.IO_SOCKET_CLOSED


async def test_writes_that_fail() -> None:
    async with TestingChannel(PassOn()) as channel:
        channel.write_error = error = OSError("no cable")
        message = channel.push_write(b"one")
        assert channel.completions == [(message, error)]


async def test_an_end_may_answer_wait_or_fail() -> None:
    def answer(message: IoMessage) -> None:
        channel.push_read(bytes(message.data).upper())

    error = OSError("not this one")

    async def fail(message: IoMessage) -> None:
        await asyncio.sleep(0)
        if message.data == b"BAD":
            raise error

    async with TestingChannel(PassOn()) as channel:
        channel.on_written, channel.on_received = answer, fail
        channel.push_write(b"good")
        channel.push_write(b"bad")
        await channel.until(lambda: channel.is_shut_down)
        assert channel.error is error
        assert channel.take_received() == b"GOODBAD"


async def test_what_a_handler_raises_is_the_channels_error() -> None:
    class Failing(ChannelHandler):
        def process_read_message(self, *_: Any) -> None:
            raise OSError("broken")

    async with TestingChannel(Failing()) as channel:
        channel.push_read(b"x")
        await channel.wait_closed()
        assert str(channel.error) == "broken"


# The end


async def test_how_the_ends_are_shut_down() -> None:
    reason = OSError("enough")
    async with TestingChannel(SwapCase()) as channel:
        channel.shutdown(reason)
        await channel.wait_closed()
    assert channel.shutdowns == [
        ShutdownCall("left", READ, reason, False),
        ShutdownCall("right", READ, reason, False),
        ShutdownCall("right", WRITE, reason, False),
        ShutdownCall("left", WRITE, reason, False),
    ]


async def test_an_end_may_take_its_time_to_shut_down() -> None:
    go_on = asyncio.Event()

    def wait(call: ShutdownCall) -> Any:
        return go_on.wait() if call[:2] == ("left", WRITE) and not call.immediately else None

    async with TestingChannel(PassOn()) as channel:
        channel.on_shutdown = wait
        channel.shutdown()
        await channel.until(lambda: len(channel.shutdowns) == 4)
        await channel.settle()
        assert not channel.is_shut_down
        go_on.set()
        await channel.wait_closed()


async def test_the_block_ends_the_channel_at_once() -> None:
    async with TestingChannel(PassOn()) as channel:
        pass
    assert channel.is_shut_down
    assert {call.immediately for call in channel.shutdowns} == {True}
    with pytest.raises(ValueError, match="in the block"):
        async with TestingChannel(PassOn()) as channel:
            raise ValueError("in the block")
    assert channel.is_shut_down


async def test_settling_waits_for_chains_of_events() -> None:
    class Relay(ChannelHandler):
        """Passes a message on after some turns."""

        async def process_read_message(self, *args: Any) -> None:
            await turns(10)
            super().process_read_message(*args)

    async with TestingChannel(PassOn(), Relay()) as channel:
        for _ in range(5):
            channel.push_read(b"x")
        await channel.settle()
        assert channel.take_received() == b"xxxxx"


async def test_misuse_is_told_at_once() -> None:
    with pytest.raises(TypeError, match="made of ChannelHandlers, not 'abc'"):
        TestingChannel("abc")  # type: ignore[arg-type]  # the point
    with pytest.raises(TypeError, match="made of ChannelHandlers, not <class"):
        TestingChannel(PassOn)  # type: ignore[arg-type]  # a class instead of an instance
    channel = TestingChannel()
    for use in (lambda: channel.push_read(b"x"), lambda: channel.right_slot):
        with pytest.raises(RuntimeError, match="is being set up: use it in a `with` block"):
            use()
    with pytest.raises(RuntimeError, match="is no TestingLoop: use `async with` on it"):
        channel.__enter__()
    async with channel:
        channel.push_read(b"x")


async def test_a_handler_that_has_a_slot_already() -> None:
    handler = PassOn()
    async with TestingChannel(handler):
        with pytest.raises(RuntimeError, match="a handler serves one channel"):
            async with TestingChannel(handler) as other:
                del other


async def test_another_loop_than_the_running_one() -> None:
    other = TestingLoop()
    channel = TestingChannel(loop=other)
    with pytest.raises(RuntimeError, match="belongs to another loop than the running one"):
        async with channel:
            pass
    other.close()


def test_it_needs_a_loop() -> None:
    with pytest.raises(RuntimeError, match="no loop is running here: give the channel a Testing"):
        TestingChannel()


# In a plain test


def test_without_a_running_loop(loop: TestingLoop) -> None:
    with TestingChannel(FrameDecoder(), loop=loop) as channel:
        channel.push_read(b"\3abc")
        assert channel.take_received() == b"abc"
        message = channel.push_write(b"de")
        assert channel.take_written() == b"\2de"
        assert channel.completions == [(message, None)]
    assert channel.is_shut_down


def test_coroutines_run_when_the_loop_does(loop: TestingLoop) -> None:
    class Patient(ChannelHandler):
        """Passes a message on after a minute."""

        async def process_read_message(self, *args: Any) -> None:
            async with asyncio.timeout(120):
                await asyncio.sleep(60)
            super().process_read_message(*args)

    with TestingChannel(Patient(), loop=loop) as channel:
        channel.push_read(b"x")
        loop.run_until_idle()
        assert channel.take_received() == b""
        loop.advance(59.9)
        assert channel.take_received() == b""
        loop.advance(0.1)
        assert channel.take_received() == b"x"


def test_tasks_run_at_their_times(loop: TestingLoop) -> None:
    ran: list[float] = []
    with TestingChannel(loop=loop) as channel:
        for seconds in (0, 1, 5):
            task = ChannelTask(lambda *_: ran.append(loop.time()))
            at = channel.channel.current_clock_time() + seconds * 1_000_000_000
            channel.channel.schedule_task_future(task, at)
        loop.run_until_idle()
        assert ran == [0]
        loop.advance(3)
        assert ran == [0, 1]
    assert ran == [0, 1, 3]  # the last one was run as cancelled, at the end


def test_what_a_plain_test_finds_when_the_channel_does_not_end(loop: TestingLoop) -> None:
    class Slow(ChannelHandler):
        async def shutdown(self, *_: Any) -> None:
            await asyncio.sleep(5)

    channel = TestingChannel(Slow(), loop=loop)
    with (
        pytest.raises(RuntimeError, match=r"something\. If that is time, advance"),
        channel,
    ):
        pass
    loop.advance(10)
    assert channel.is_shut_down


def test_an_error_of_the_test_itself_is_not_hidden(loop: TestingLoop) -> None:
    class Slow(ChannelHandler):
        async def shutdown(self, *_: Any) -> None:
            await asyncio.sleep(5)

    with pytest.raises(AssertionError, match="the test's"), TestingChannel(Slow(), loop=loop):
        raise AssertionError("the test's")
    loop.advance(10)


def test_its_text_names_the_channel(loop: TestingLoop) -> None:
    with TestingChannel(PassOn(), loop=loop) as channel:
        assert repr(channel).startswith("<TestingChannel of <Channel ")
        assert isinstance(channel.channel, Channel)
        assert state(channel.channel) is ChannelState.ACTIVE
