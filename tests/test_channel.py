"""The life of a channel: set-up, threads, holds, and what it leaves behind."""

import asyncio
import contextlib
import gc
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from aws_io_async import EventLoop
from aws_io_async.channel import Channel, ChannelHandler, ChannelState, ChannelTask
from aws_io_async.errors import (
    CommonErrorCode,
    ErrorCode,
    EventLoopShutdownError,
    OperationCancelledError,
)
from aws_io_async.event_loop.group import EventLoopGroup
from aws_io_async.event_loop.tasks import TaskStatus
from aws_io_async.message_pool import IoMessage, MessageType
from tests import channels
from tests.channels import (
    READ,
    App,
    Stage,
    Wire,
    channel_of_a_closed_loop,
    collected_errors,
    ended,
    pipeline,
    state,
)
from tests.socket_tools import another_loop, on, raises, turns

no_tasks_left = channels.no_tasks_left


# Set-up


async def test_channel_setup() -> None:
    told: list[tuple[Channel, BaseException | None, int]] = []

    def on_setup(channel: Channel, error: BaseException | None) -> None:
        told.append((channel, error, threading.get_ident()))

    made = [Channel(on_setup=on_setup), Channel(on_setup=on_setup)]
    assert [channel.state for channel in made] == [ChannelState.SETTING_UP] * 2
    assert not told
    await turns(2)
    assert told == [(channel, None, threading.get_ident()) for channel in made]
    assert [channel.state for channel in made] == [ChannelState.ACTIVE] * 2
    assert made[0].message_pool is made[1].message_pool
    for channel in made:
        await channel.aclose()
        assert channel.state is ChannelState.SHUT_DOWN


async def test_open_returns_a_channel_that_has_been_set_up() -> None:
    told: list[object] = []
    channel = await Channel.open(on_setup=lambda *args: told.append(args))
    assert told == [(channel, None)]
    assert channel.state is ChannelState.ACTIVE
    assert channel.loop is asyncio.get_running_loop()
    assert channel.thread_is_callers_thread()
    await channel.aclose()


async def test_a_channel_may_be_made_on_any_thread() -> None:
    loop = asyncio.get_running_loop()
    set_up: asyncio.Future[int] = loop.create_future()
    channel = await asyncio.to_thread(
        lambda: Channel(loop, on_setup=lambda *_: set_up.set_result(threading.get_ident()))
    )
    assert await set_up == threading.get_ident()
    await channel.aclose()


@pytest.mark.parametrize("immediately", [False, True])
async def test_a_channel_made_on_another_thread_can_be_shut_down_before_its_set_up(
    immediately: bool,
) -> None:
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor() as executor:
        channel = executor.submit(Channel, loop).result()  # the loop has had no turn meanwhile
    assert state(channel) is ChannelState.SETTING_UP
    channel.shutdown(immediately=immediately)
    await channel.wait_closed()
    assert state(channel) is ChannelState.SHUT_DOWN


async def test_a_channel_may_be_opened_on_another_loop() -> None:
    async with another_loop() as loop:
        channel = await Channel.open(loop)
        assert channel.loop is loop
        assert state(channel) is ChannelState.ACTIVE
        assert not channel.thread_is_callers_thread()
        await channel.aclose()
        assert state(channel) is ChannelState.SHUT_DOWN


def test_a_channel_needs_a_loop() -> None:
    with pytest.raises(RuntimeError, match="no running event loop"):
        Channel()


async def test_before_the_set_up_a_channel_is_not_to_be_used() -> None:
    channel = Channel()
    for use in (channel.new_slot, channel.trigger_read, channel.statistics):
        with pytest.raises(RuntimeError, match="being set up: wait for on_setup"):
            use()
    with pytest.raises(RuntimeError, match="being set up"):
        channel.append(App())
    await channel.aclose()


async def test_what_on_setup_raises_ends_the_channel() -> None:
    error = ValueError("not today")

    def on_setup(channel: Channel, _: BaseException | None) -> None:
        raise error

    with collected_errors() as errors:
        channel = Channel(on_setup=on_setup)
        assert await ended(channel) is error
        assert [context["exception"] for context in errors] == [error]
        errors.clear()


async def test_open_raises_what_on_setup_raises() -> None:
    seen: list[Channel] = []

    def on_setup(channel: Channel, _: BaseException | None) -> None:
        seen.append(channel)
        raise OSError("no cable")

    with pytest.raises(OSError, match="no cable"):
        await Channel.open(on_setup=on_setup)
    assert isinstance(await ended(seen[0]), OSError)


@pytest.mark.parametrize(
    ("raised", "expected"),
    [(StopIteration(), RuntimeError), (asyncio.CancelledError(), OperationCancelledError)],
)
async def test_open_does_not_take_what_on_setup_raises_for_its_own(
    raised: BaseException, expected: type[Exception]
) -> None:
    """An iterator that has no more, or something else that was cancelled."""

    def on_setup(channel: Channel, _: BaseException | None) -> None:
        raise raised

    with collected_errors() as errors:
        async with asyncio.timeout(channels.PATIENCE):
            with pytest.raises(expected):
                await Channel.open(on_setup=on_setup)
        await turns()
        errors.clear()


async def test_arguments_that_cannot_be() -> None:
    wrong: Any = 5
    for arguments in {"on_setup": wrong}, {"on_shutdown": wrong}:
        with pytest.raises(TypeError, match="must be callable, not 5"):
            Channel(**arguments)
    with pytest.raises(ValueError, match="-1"):
        Channel(window_update_threshold=-1)
    with pytest.raises(TypeError):
        await Channel.open(no_such_argument=1)


async def test_a_cancelled_open_leaves_no_channel() -> None:
    seen: list[Channel] = []
    opening = asyncio.ensure_future(Channel.open(on_setup=lambda channel, _: seen.append(channel)))
    await asyncio.sleep(0)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    await turns()
    assert [channel.state for channel in seen] == [ChannelState.SHUT_DOWN]


def gc_after(function: Callable[[], object]) -> None:
    function()
    gc.collect()


# Threads


async def test_a_wrong_thread_is_told() -> None:
    async with pipeline(wire := Wire(), app := App()) as channel:
        slot, other = app.place, channel.new_slot()
        message = IoMessage(b"x")
        uses: list[Any] = [
            channel.new_slot,
            lambda: channel.append(App()),
            channel.trigger_read,
            channel.statistics,
            lambda: channel.set_statistics_handler(None),
            lambda: channel.put_local_object("key", 1),
            lambda: channel.fetch_local_object("key"),
            lambda: channel.remove_local_object("key"),
            lambda: slot.send_message(message, READ),
            lambda: slot.increment_read_window(1),
            lambda: slot.insert_right(other),
            lambda: slot.insert_left(other),
            lambda: slot.replace(other),
            lambda: slot.remove(),
            lambda: other.set_handler(App()),
        ]

        def try_all() -> None:
            assert not channel.thread_is_callers_thread()
            for use in uses:
                with raises(ErrorCode.ERROR_IO_EVENT_LOOP_THREAD_ONLY, "use schedule_task_now"):
                    use()

        await asyncio.to_thread(try_all)
        assert [slot.handler for slot in channel.slots()] == [wire, app]


async def test_writing_on_a_wrong_thread_is_told() -> None:
    async with another_loop() as loop, pipeline(Wire(), app := App()):
        with raises(ErrorCode.ERROR_IO_EVENT_LOOP_THREAD_ONLY):
            await on(loop, app.place.write(b"x"))


@pytest.mark.loops("aws_io_async")
async def test_a_channel_goes_with_its_loop_to_another_thread() -> None:
    loop = EventLoop()
    loop.run()
    channel = await Channel.open(loop)
    loop.stop()
    await asyncio.to_thread(loop.wait_for_stop_completion)
    loop.run()
    try:

        async def use() -> None:
            assert channel.thread_is_callers_thread()
            channel.append(App())
            await channel.aclose()

        await on(loop, use())
    finally:
        loop.stop()
        await asyncio.to_thread(loop.wait_for_stop_completion)
        loop.close()


async def test_the_clock_is_the_loops() -> None:
    async with pipeline() as channel:
        before = channel.current_clock_time()
        now = asyncio.get_running_loop().time()
        after = channel.current_clock_time()
        assert before / 1e9 - 1e-3 <= now <= after / 1e9 + 1e-3
        assert isinstance(before, int)


def test_the_clock_of_our_loop_is_exact() -> None:
    loop = EventLoop(clock=lambda: 123_456_789_012_345_678)
    channel = Channel(loop)
    assert channel.current_clock_time() == 123_456_789_012_345_678
    loop.close()


# The end


async def test_channel_single_slot_cleans_up() -> None:
    channel = await Channel.open()
    app = App()
    channel.new_slot(app)
    await channel.aclose()
    assert app.events == ["shutdown read", "shutdown write", "close"]
    assert channel.first_slot is None


async def test_a_slot_without_handler_does_not_hinder_the_end() -> None:
    channel = await Channel.open()
    channel.new_slot()
    await channel.aclose()
    assert channel.state is ChannelState.SHUT_DOWN


async def test_a_channel_says_at_once_that_its_end_was_asked_for() -> None:
    channel = await Channel.open()
    channel.append(App())
    assert not channel.is_closing()
    channel.shutdown()
    assert channel.is_closing()
    assert channel.state is ChannelState.ACTIVE  # it follows in the next turn
    await channel.wait_closed()
    assert channel.is_closing()


async def test_a_channel_is_a_context() -> None:
    async with await Channel.open() as channel:
        channel.append(app := App())
    assert channel.state is ChannelState.SHUT_DOWN
    assert app.events == ["shutdown read", "shutdown write", "close"]


async def test_an_exception_in_the_context_ends_the_channel_at_once() -> None:
    app = App()
    with pytest.raises(ValueError, match="oh"):
        async with await Channel.open() as channel:
            channel.append(app)
            raise ValueError("oh")
    assert isinstance(channel.error, ValueError)
    assert app.events == ["shutdown read immediately", "shutdown write immediately", "close"]


async def test_a_channel_that_has_ended_takes_no_slots() -> None:
    channel = await Channel.open()
    channel.append(app := App())
    await channel.aclose()
    with raises(CommonErrorCode.ERROR_INVALID_STATE, "use a new channel"):
        channel.new_slot()
    with raises(CommonErrorCode.ERROR_INVALID_STATE):
        channel.append(App())
    with raises(CommonErrorCode.ERROR_INVALID_STATE):
        app.place.remove()
    with raises(CommonErrorCode.ERROR_INVALID_STATE):
        channel.trigger_read()
    app.place.increment_read_window(10)  # does nothing


async def test_a_message_after_the_end_is_refused() -> None:
    channel = await Channel.open()
    channel.append(Wire())
    channel.append(app := App())
    await channel.aclose()
    with raises(ErrorCode.IO_CHANNEL_ERROR_ERROR_CANT_ACCEPT_INPUT, "shut down"):
        app.send(b"x", channels.WRITE)
    with raises(ErrorCode.IO_CHANNEL_ERROR_ERROR_CANT_ACCEPT_INPUT, "shut down"):
        await app.place.write(b"x")


async def test_nothing_refers_to_a_channel_that_has_ended() -> None:
    class Suspending(App):
        async def process_read_message(self, slot: Any, message: IoMessage) -> None:
            await asyncio.sleep(0)

    wire, app = Wire(), Suspending()
    async with pipeline(wire, app) as channel:
        channel.set_statistics_handler(None)
        channel.schedule_task_future(ChannelTask(lambda *_: None), 1 << 62)
        wire.send(b"x")
        await turns(3)
    left: list[weakref.ref[Any]] = [weakref.ref(each) for each in (channel, wire, app)]
    del channel, wire, app
    await turns(2)
    gc.collect()
    assert [ref() for ref in left] == [None] * 3


async def test_a_channel_that_is_dropped_open_warns() -> None:
    channel = await Channel.open()
    channel.append(App())
    await turns(2)
    kept = [channel]
    del channel
    with pytest.warns(ResourceWarning, match="unclosed channel <Channel .* active"):
        gc_after(kept.clear)


async def test_the_text_of_a_channel_names_state_and_handlers() -> None:
    async with pipeline(Wire(), App()) as channel:
        assert channel.first_slot is not None
        channel.first_slot.insert_right(slot := channel.new_slot())
        assert repr(channel).endswith(" active [Wire - App]>")
        assert repr(slot) == "<ChannelSlot empty window=0>"


async def test_a_loop_that_is_run_to_its_end_ends_its_channels() -> None:
    """Also those that nobody made by a bootstrap; whoever waits for them is told."""
    factory = type(asyncio.get_running_loop())
    group = EventLoopGroup(1, loop_factory=factory)
    told: list[TaskStatus] = []
    channel = await Channel.open(group.get_loop_at(0))
    in_an_hour = channel.current_clock_time() + 3600 * 10**9
    channel.schedule_task_future(ChannelTask(lambda _, status: told.append(status)), in_an_hour)
    waiting = asyncio.ensure_future(ended(channel))
    await turns()
    await group.aclose()
    error = await waiting
    assert isinstance(error, EventLoopShutdownError)
    assert told == [TaskStatus.CANCELED]


async def test_a_group_that_shuts_down_has_no_channel_opened_that_would_not_end() -> None:
    factory = type(asyncio.get_running_loop())
    for _ in range(10):
        group = EventLoopGroup(1, loop_factory=factory)
        loop = group.get_loop_at(0)
        closing = asyncio.ensure_future(group.aclose())
        await asyncio.sleep(0)
        with contextlib.suppress(RuntimeError):
            channel = await Channel.open(loop)
            channel.shutdown()
            await ended(channel)
        await closing
        with pytest.raises(RuntimeError):
            Channel(loop)


async def test_a_loop_that_is_merely_closed_takes_its_channels_along() -> None:
    channel = await asyncio.to_thread(channel_of_a_closed_loop, type(asyncio.get_running_loop()))
    channel.shutdown()
    with raises(ErrorCode.IO_EVENT_LOOP_SHUTDOWN, "cannot end any more"):
        await channel.wait_closed()


# Holds


async def test_channel_refcount_delays_clean_up() -> None:
    channel = await Channel.open()
    channel.append(app := App())
    channel.acquire_hold()
    channel.acquire_hold()
    await channel.aclose()
    assert channel.state is ChannelState.SHUT_DOWN
    assert "close" not in app.events
    channel.release_hold()
    assert "close" not in app.events
    assert channel.first_slot is app.slot
    channel.release_hold()
    assert app.events[-1] == "close"


async def test_a_hold_may_be_released_on_any_thread() -> None:
    closed_on: list[int] = []

    class Here(App):
        def close(self) -> None:
            closed_on.append(threading.get_ident())

    channel = await Channel.open()
    channel.append(Here())
    channel.acquire_hold()
    await channel.aclose()
    await asyncio.to_thread(channel.release_hold)
    await turns()
    assert closed_on == [threading.get_ident()]


async def test_a_hold_as_a_block() -> None:
    channel = await Channel.open()
    channel.append(app := App())
    with channel.hold() as held:
        assert held is channel
        await channel.aclose()
        assert "close" not in app.events
    assert app.events[-1] == "close"


async def test_a_hold_that_is_released_before_the_end_changes_nothing() -> None:
    async with pipeline(app := App()) as channel:
        with channel.hold():
            pass
        assert not app.events
    assert app.events[-1] == "close"


async def test_releasing_what_is_not_held_is_a_mistake() -> None:
    async with pipeline() as channel:
        with pytest.raises(RuntimeError, match="not held: one release_hold"):
            channel.release_hold()


async def test_channel_keeps_event_loop_group_alive() -> None:
    factory = type(asyncio.get_running_loop())
    group = EventLoopGroup(1, loop_factory=factory)
    channel = await Channel.open(group.get_loop_at(0))
    handler = Stage()

    async def append() -> None:
        channel.append(handler)

    await on(channel.loop, append())
    channel.acquire_hold()
    await channel.aclose()
    dropped, kept = weakref.ref(group), group.shutdown
    del group
    gc.collect()
    assert dropped() is not None
    assert not channel.loop.is_closed()
    channel.release_hold()

    async def closed() -> bool:
        return "close" in handler.events

    assert await on(channel.loop, closed())
    await asyncio.to_thread(kept)
    assert channel.loop.is_closed()


# The pool


async def test_messages_come_from_the_loops_pool() -> None:
    async with pipeline() as channel:
        message = channel.acquire_message_from_pool(MessageType.APPLICATION_DATA, 100)
        assert message.capacity == 100
        assert channel.fetch_local_object(type(channel.message_pool)) is channel.message_pool


async def test_the_base_class_passes_everything_on() -> None:
    wire, app = Wire(), App()
    async with pipeline(wire, ChannelHandler(), app):
        wire.send(b"to the right")
        app.send(b"to the left", channels.WRITE)
        assert app.data == b"to the right"
        assert wire.written == b"to the left"
