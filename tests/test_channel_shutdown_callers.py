"""Who may end a channel, and when; what a cancellation or a failure changes about the end."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from aws_io_async import EventLoop
from aws_io_async.channel import Channel, ChannelHandler, ChannelState
from aws_io_async.errors import AwsIoError, ErrorCode
from aws_io_async.message_pool import IoMessage
from tests import channels
from tests.channels import (
    AT_ONCE,
    IN_ORDER,
    PATIENCE,
    WRITE,
    App,
    Lingering,
    Log,
    Stage,
    Suspending,
    Wire,
    ended,
    pipeline,
    stages,
    state,
)
from tests.socket_tools import another_loop, on, turns

no_tasks_left = channels.no_tasks_left


# Who asks, and when


async def test_before_the_set_up() -> None:
    log: Log = []
    channel = Channel(
        on_setup=lambda channel, _: channel.append(Stage("a", log)),
        on_shutdown=lambda _, error: log.append(("channel", str(error))),
    )
    channel.shutdown(OSError("changed my mind"))
    assert state(channel) is ChannelState.SETTING_UP
    await ended(channel)
    assert log == [
        ("a", "shutdown read"),
        ("a", "shutdown write"),
        ("channel", "changed my mind"),
        ("a", "close"),
    ]


async def test_in_on_setup() -> None:
    channel = Channel(on_setup=lambda channel, _: channel.shutdown(OSError("no")))
    assert isinstance(await ended(channel), OSError)


async def test_from_another_thread() -> None:
    log: Log = []
    on_thread: list[int] = []
    error = OSError("from afar")
    async with pipeline(
        *stages(log), on_shutdown=lambda *_: on_thread.append(threading.get_ident())
    ) as channel:
        await asyncio.to_thread(channel.shutdown, error)
        assert await ended(channel) is error
    assert log == IN_ORDER
    assert on_thread == [threading.get_ident()]


async def test_from_many_threads_at_once() -> None:
    log: Log = []
    errors = [OSError(str(number)) for number in range(10)]
    async with pipeline(*stages(log)) as channel:
        await asyncio.gather(*(asyncio.to_thread(channel.shutdown, error) for error in errors))
        assert await ended(channel) in errors
    assert log == IN_ORDER


async def test_waiting_on_several_loops() -> None:
    async with another_loop() as loop, pipeline(Stage()) as channel:
        waiting = [on(loop, ended(channel)), ended(channel), on(loop, ended(channel))]
        gathered = asyncio.gather(*waiting)
        await turns()
        channel.shutdown(OSError("over"))
        assert await gathered == [channel.error] * 3


class Asking(Stage):
    """Shuts its channel down in the method of that name."""

    def __init__(self, where: str) -> None:
        super().__init__(where)
        self.where = where

    def reached(self, where: str) -> None:
        if where == self.where:
            self.channel.shutdown(OSError(where))
            self.channel.shutdown(OSError("again"))

    def process_read_message(self, *args: Any) -> None:
        self.reached("read")
        super().process_read_message(*args)

    async def process_write_message(self, *args: Any) -> None:
        await asyncio.sleep(0)
        self.reached("write")
        super().process_write_message(*args)

    def increment_read_window(self, *args: Any) -> None:
        self.reached("window")
        super().increment_read_window(*args)


@pytest.mark.parametrize("where", ["read", "write", "window"])
async def test_from_inside_a_handler(where: str) -> None:
    wire, app = Wire(), App(greedy=True)
    async with pipeline(wire, Asking(where), app, enable_read_back_pressure=True) as channel:
        await turns(3)
        app.send(b"out", WRITE)
        wire.send(b"in")
        app.takes(1)
        assert str(await ended(channel)) == where
    assert (bytes(app.data), wire.written) == (b"in", b"out")


async def test_from_inside_the_shutdown_itself() -> None:
    class Impatient(Stage):
        def shutdown(self, *args: Any) -> None:
            super().shutdown(*args)
            self.channel.shutdown(OSError("too late"), immediately=True)

    log: Log = []
    async with pipeline(*stages(log, Impatient("b", log))) as channel:
        channel.shutdown()
        assert await ended(channel) is None
    assert log == [*IN_ORDER[:3], *AT_ONCE[3:]]


async def test_from_a_completion() -> None:
    async with pipeline(wire := Wire(), app := App()) as channel:
        message = IoMessage(b"last", on_completion=lambda channel, *_: channel.shutdown())
        app.place.send_message(message, WRITE)
        assert await ended(channel) is None
    assert wire.written == b"last"


async def test_a_handler_that_waits_for_its_own_channel_is_told() -> None:
    class Waiting(App):
        async def process_read_message(self, slot: Any, message: IoMessage) -> None:
            await slot.channel.aclose()

    async with pipeline(wire := Wire(), Waiting()) as channel:
        with channels.collected_errors() as errors:
            wire.send(b"x")
            error = await ended(channel)
            assert isinstance(error, RuntimeError)
            assert "would wait for itself: call shutdown() and return" in str(error)
            errors.clear()


async def test_what_is_no_error_is_refused() -> None:
    async with pipeline() as channel:
        with pytest.raises(TypeError, match="must be an exception or None, not 'broken'"):
            channel.shutdown("broken")  # type: ignore[arg-type]  # the point
        assert not channel.is_closing()


async def test_a_cancellation_as_the_error_becomes_one_that_can_be_raised() -> None:
    async with pipeline() as channel:
        channel.shutdown(asyncio.CancelledError())
        error = await ended(channel)
        assert isinstance(error, AwsIoError)
        assert error.code is ErrorCode.ERROR_IO_OPERATION_CANCELLED


# Cancellation


async def test_who_waits_for_the_end_may_be_cancelled() -> None:
    async with pipeline() as channel:
        waiting = asyncio.create_task(channel.wait_closed())
        await turns(1)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await turns()
        assert not channel.is_closing()


async def test_a_cancelled_aclose_ends_at_once() -> None:
    async with pipeline(slow := Lingering()) as channel:
        closing = asyncio.create_task(channel.aclose())
        await turns()
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        await ended(channel)
    assert slow.cancelled == 1


@pytest.mark.parametrize("count", range(12))
async def test_a_program_that_cancels_everything(count: int) -> None:
    """Whatever stands at whatever step is cancelled, as `asyncio.run` does at its end."""
    log: Log = []
    app = Suspending("c", log)
    async with pipeline(wire := Wire("a", log), Lingering("b", log), app) as channel:
        wire.send(b"x")
        wire.send(b"y")
        channel.shutdown()
        await turns(count)
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        channel.shutdown(immediately=True)  # only a task that had begun can have noticed
        await ended(channel)
    assert [what for what in log if what[1] == "close"] == IN_ORDER[-3:]


@pytest.mark.loops("aws_io_async")
async def test_a_loop_that_ends_first_closes_the_handlers_all_the_same() -> None:
    def main(end: Callable[[Channel], Awaitable[object]]) -> tuple[Channel, Log]:
        log: Log = []

        async def leave() -> Channel:
            channel = await Channel.open()
            for handler in stages(log, Lingering("b", log)):
                channel.append(handler)
            await end(channel)
            return channel

        with asyncio.Runner(loop_factory=EventLoop) as runner:
            return runner.run(leave()), log

    async def begin(channel: Channel) -> None:
        channel.shutdown()
        await turns()

    channel, log = await asyncio.to_thread(main, begin)
    assert channel.state is ChannelState.SHUT_DOWN
    assert log[-3:] == IN_ORDER[-3:]


# Failures


async def test_what_on_shutdown_raises_is_reported() -> None:
    def on_shutdown(*_: Any) -> None:
        raise ValueError("at the very end")

    with channels.collected_errors() as errors:
        async with pipeline(app := App(), on_shutdown=on_shutdown) as channel:
            channel.shutdown()
            assert await ended(channel) is None
        assert [str(context["exception"]) for context in errors] == ["at the very end"]
        errors.clear()
    assert app.events[-1] == "close"


async def test_a_hundred_channels_end_together() -> None:
    opened = [await Channel.open() for _ in range(100)]
    for channel in opened:
        for handler in (Wire(), ChannelHandler(), App()):
            channel.append(handler)
        channel.shutdown(immediately=len(opened) % 2 == 0)
    async with asyncio.timeout(PATIENCE):
        await asyncio.gather(*(channel.wait_closed() for channel in opened))
    assert {channel.error for channel in opened} == {None}
