"""Handlers whose methods are coroutines: order, tasks, timeouts, cancellation."""

import asyncio
import contextvars
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from aws_io_async.channel import Channel, ChannelSlot, ChannelState
from aws_io_async.errors import AwsIoError, ErrorCode
from aws_io_async.message_pool import IoMessage
from tests import channels
from tests.channels import (
    READ,
    WRITE,
    App,
    Stage,
    Suspending,
    Wire,
    ended,
    pipeline,
    state,
)
from tests.socket_tools import turns

no_tasks_left = channels.no_tasks_left

Process = Callable[["Running", IoMessage], Awaitable[object] | None]


class Running(Stage):
    """Runs a function with each message from the left before it passes that on."""

    def __init__(self, function: Process) -> None:
        super().__init__("running")
        self.function = function

    async def process_read_message(self, slot: ChannelSlot, message: IoMessage) -> None:
        awaitable = self.function(self, message)
        if awaitable is not None:
            await awaitable
        super().process_read_message(slot, message)


@asynccontextmanager
async def running(function: Process) -> AsyncIterator[tuple[Channel, Wire, App]]:
    async with pipeline(wire := Wire(), Running(function), app := App()) as channel:
        yield channel, wire, app


def code(error: BaseException | None) -> object:
    assert isinstance(error, AwsIoError)
    return error.code


# Order


async def test_a_coroutine_that_does_not_suspend_is_done_at_once() -> None:
    async def nothing(*_: Any) -> None:
        pass

    async with running(nothing) as (_, wire, app):
        for _ in range(3):
            wire.send(b"x")
        assert app.data == b"xxx"


async def test_messages_keep_their_order_however_long_each_takes() -> None:
    chooser = random.Random(0)

    class Varying(Stage):
        async def process_read_message(self, slot: ChannelSlot, message: IoMessage) -> None:
            await turns(chooser.choice([0, 0, 1, 3]))
            super().process_read_message(slot, message)

        async def process_write_message(self, slot: ChannelSlot, message: IoMessage) -> None:
            await turns(chooser.choice([0, 0, 1, 3]))
            super().process_write_message(slot, message)

    parts = [b"%d " % number for number in range(300)]
    async with pipeline(wire := Wire(), Varying(), Varying(), app := App()):
        for part in parts:
            wire.send(part)
            app.send(part, WRITE)
            await turns(chooser.choice([0, 1, 2]))
        expected = b"".join(parts)
        assert await app.got(len(expected)) == expected
        await wire.until(lambda: len(wire.written) == len(expected))
        assert wire.written == expected


async def test_a_suspended_handler_holds_back_its_own_direction_only() -> None:
    class SlowReader(Stage):
        async def process_read_message(self, slot: ChannelSlot, message: IoMessage) -> None:
            await go_on.wait()
            super().process_read_message(slot, message)

    go_on = asyncio.Event()
    async with pipeline(wire := Wire(), left := Stage(), slow := SlowReader(), app := App()):
        wire.send(b"in")
        app.send(b"out", WRITE)
        slow.send(b"past it", READ)
        left.send(b"before it", WRITE)
        assert wire.written == b"outbefore it"
        assert app.data == b"past it"
        go_on.set()
        assert await app.got(9) == b"past itin"


async def test_what_is_sent_to_a_handler_from_within_itself_waits_for_its_turn() -> None:
    order: list[str] = []

    async def note(handler: Running, message: IoMessage) -> None:
        order.append(f"begins {bytes(message.data).decode()}")
        if message.data == b"first":
            wire.send(b"second")
        order.append(f"ends {bytes(message.data).decode()}")

    async with running(note) as (_, wire, app):
        wire.send(b"first")
        assert order == ["begins first", "ends first", "begins second", "ends second"]
        assert app.data == b"firstsecond"


# What a coroutine finds


async def test_it_is_in_one_task_from_its_beginning_to_its_end() -> None:
    seen: list[Any] = []

    async def look(*_: Any) -> None:
        seen.append(asyncio.current_task())
        await asyncio.sleep(0)
        seen.append(asyncio.current_task())

    async with running(look) as (_, wire, app):
        ours = asyncio.current_task()
        wire.send(b"x")
        assert asyncio.current_task() is ours
        await app.got(1)
        first, second = seen
        assert first is second
        assert first not in (None, ours)


async def test_context_variables_stay_over_a_suspension_and_are_its_own() -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")
    seen: list[str] = []

    async def look(*_: Any) -> None:
        variable.set("set by the handler")
        await asyncio.sleep(0)
        seen.append(variable.get())

    async with running(look) as (_, wire, app):
        wire.send(b"x")
        await app.got(1)
    assert seen == ["set by the handler"]
    assert variable.get() == "unset"


async def test_a_timeout_that_is_not_needed() -> None:
    async def wait(*_: Any) -> None:
        async with asyncio.timeout(60):
            await asyncio.sleep(0)

    async with running(wait) as (_, wire, app):
        wire.send(b"one")
        wire.send(b"two")
        assert await app.got(6) == b"onetwo"


async def test_a_timeout_that_is_caught() -> None:
    async def wait(*_: Any) -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.001):
                await asyncio.Event().wait()

    async with running(wait) as (channel, wire, app):
        wire.send(b"one")
        wire.send(b"two")
        assert await app.got(6) == b"onetwo"
        assert channel.error is None


async def test_a_timeout_that_is_not_caught() -> None:
    async def wait(*_: Any) -> None:
        async with asyncio.timeout(0.001):
            await asyncio.Event().wait()

    async with running(wait) as (channel, wire, app):
        wire.send(b"x")
        assert isinstance(await ended(channel), TimeoutError)
        assert app.data == b""


async def test_a_group_of_tasks() -> None:
    async def add(handler: Running, message: IoMessage) -> None:
        async with asyncio.TaskGroup() as group:
            made = [group.create_task(asyncio.sleep(0, number)) for number in range(3)]
        message.data = bytes(task.result() for task in made)

    async with running(add) as (_, wire, app):
        wire.send(b"one")
        wire.send(b"two")
        assert await app.got(6) == bytes([0, 1, 2] * 2)


async def test_a_group_of_tasks_one_of_which_fails() -> None:
    async def fail() -> None:
        raise OSError("one of three")

    async def add(*_: Any) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(asyncio.Event().wait())
            group.create_task(fail())

    async with running(add) as (channel, wire, _):
        with channels.collected_errors() as errors:
            wire.send(b"x")
            error = await ended(channel)
            assert isinstance(error, ExceptionGroup)
            assert [str(each) for each in error.exceptions] == ["one of three"]
            errors.clear()


class Awaited:
    """Something else that can be awaited, and takes a turn."""

    def __await__(self) -> Generator[Any, None, None]:
        yield


@pytest.mark.parametrize("kind", ["future", "task", "awaitable"])
async def test_whatever_can_be_awaited(kind: str) -> None:
    loop = asyncio.get_running_loop()

    class Returning(Stage):
        def process_read_message(self, slot: ChannelSlot, message: IoMessage) -> Any:
            super().process_read_message(slot, message)
            if kind == "awaitable":
                return Awaited()
            if kind == "task":
                return loop.create_task(asyncio.sleep(0))
            future = loop.create_future()
            loop.call_soon(future.set_result, None)
            return future

    async with pipeline(wire := Wire(), Returning(), app := App()):
        for _ in range(3):
            wire.send(b"x")
        assert app.data == b"x"
        assert await app.got(3) == b"xxx"


async def test_many_coroutines_side_by_side() -> None:
    async def wait(*_: Any) -> None:
        await asyncio.sleep(0)

    handlers = [Running(wait) for _ in range(20)]
    async with pipeline(wire := Wire(), *handlers, app := App()):
        for number in range(10):
            wire.send(bytes([number]))
        assert await app.got(10) == bytes(range(10))


# Cancellation


async def test_who_cancels_its_task_ends_the_channel() -> None:
    tasks: list[Any] = []

    async def wait(*_: Any) -> None:
        tasks.append(asyncio.current_task())
        await asyncio.Event().wait()

    async with running(wait) as (channel, wire, app):
        wire.send(b"x")
        await turns()
        tasks[0].cancel()
        assert code(await ended(channel)) is ErrorCode.ERROR_IO_OPERATION_CANCELLED
        assert app.data == b""


@pytest.mark.parametrize("count", range(4))
async def test_a_cancellation_that_it_swallows_is_no_concern_of_the_next(count: int) -> None:
    tasks: list[Any] = []

    async def wait(*_: Any) -> None:
        tasks.append(asyncio.current_task())
        try:
            await asyncio.sleep(0.001)
        except asyncio.CancelledError:
            pass

    async with running(wait) as (channel, wire, app):
        wire.send(b"one")
        wire.send(b"two")
        await turns(count)
        tasks[0].cancel()
        assert await app.got(6) == b"onetwo"
        wire.send(b"three")
        await app.got(11)
        assert channel.error is None


async def test_its_task_may_be_cancelled_while_there_is_nothing_to_do() -> None:
    tasks: list[Any] = []

    async def look(*_: Any) -> None:
        tasks.append(asyncio.current_task())
        await asyncio.sleep(0)

    async with running(look) as (channel, wire, app):
        for count in range(1, 4):
            wire.send(b"x")
            await app.got(count)
            await turns()
            tasks[-1].cancel()
            await turns()
        assert channel.error is None
        assert len(set(tasks)) == 3


async def test_what_it_waits_for_may_be_cancelled() -> None:
    future = asyncio.get_running_loop().create_future()
    async with running(lambda *_: future) as (channel, wire, _):
        wire.send(b"x")
        await turns()
        future.cancel()
        assert code(await ended(channel)) is ErrorCode.ERROR_IO_OPERATION_CANCELLED


@pytest.mark.parametrize("count", range(4))
async def test_a_slot_that_leaves_cancels_what_is_suspended_in_it(count: int) -> None:
    async with pipeline(wire := Wire(), slow := Suspending(), app := App()) as channel:
        for data in (b"inside ", b"waits ", b"waits too"):
            wire.send(data)
        writing = asyncio.create_task(app.place.write(b"y"))
        await turns(count)
        slow.place.remove()
        if count:
            with pytest.raises(AwsIoError) as caught:
                await writing
            assert caught.value.code is ErrorCode.ERROR_IO_OPERATION_CANCELLED
        else:
            await writing
        assert app.data == b"waits waits too"
        assert slow.data == b""
        assert slow.events[-1] == "close"
        assert channel.error is None


@pytest.mark.parametrize("suspends", [False, True])
async def test_it_may_take_its_own_slot_out(suspends: bool) -> None:
    async def leave(handler: Running, message: IoMessage) -> None:
        if suspends:
            await asyncio.sleep(0)
        handler.place.send_message(IoMessage(message.data), READ)
        handler.place.remove()

    class Leaving(Running):
        async def process_read_message(self, slot: ChannelSlot, message: IoMessage) -> None:
            await leave(self, message)

    async with pipeline(wire := Wire(), Leaving(lambda *_: None), app := App()) as channel:
        wire.send(b"one ")
        wire.send(b"two ")
        await turns()
        wire.send(b"three")
        assert app.data == b"one two three"
        assert channel.error is None
        assert [type(slot.handler) for slot in channel.slots()] == [Wire, App]


@pytest.mark.parametrize("suspends", [False, True])
async def test_it_may_put_another_in_its_place(suspends: bool) -> None:
    class Choosing(Stage):
        async def process_read_message(self, slot: ChannelSlot, message: IoMessage) -> None:
            if suspends:
                await asyncio.sleep(0)
            new = slot.channel.new_slot()
            slot.replace(new)
            new.set_handler(app)

    app = App()
    async with pipeline(wire := Wire(), Choosing()) as channel:
        for data in (b"choose", b"one ", b"two"):
            wire.send(data)
        assert await app.got(7) == b"one two"
        assert state(channel) is ChannelState.ACTIVE


async def test_no_task_waits_for_a_channel_that_has_ended() -> None:
    async with pipeline(wire := Wire(), app := Suspending()) as channel:
        wire.send(b"x")
        app.go_on.set()
        await app.got(1)
    await turns()
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert channel.state is ChannelState.SHUT_DOWN
