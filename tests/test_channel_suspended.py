"""What waits for a suspended handler stops the reading, and is not lost when the slot leaves."""

import asyncio
import sys
from typing import Any

from aws_io_async.channel import Channel, ChannelSlot
from aws_io_async.channel._windows import CLOGGED
from aws_io_async.errors import ErrorCode
from aws_io_async.message_pool import IoMessage
from tests import channels
from tests.channels import WRITE, App, Stage, Wire, is_clogged, pipeline
from tests.socket_tools import raises, turns

no_tasks_left = channels.no_tasks_left


class Slow(App):
    """Takes a message at a time, each when it is told to."""

    def __init__(self, window: int = sys.maxsize) -> None:
        super().__init__("slow", window=window)
        self.gate = asyncio.Semaphore(0)

    async def process_read_message(self, slot: ChannelSlot, message: IoMessage) -> None:
        await self.gate.acquire()
        super().process_read_message(slot, message)

    async def process_write_message(self, slot: ChannelSlot, message: IoMessage) -> None:
        await self.gate.acquire()
        super().process_write_message(slot, message)

    def let_through(self, count: int = 1) -> None:
        for _ in range(count):
            self.gate.release()


async def test_a_suspended_handler_clogs_the_channel() -> None:
    size = CLOGGED // 4
    async with pipeline(wire := Wire(), middle := Stage(), slow := Slow()) as channel:
        await turns(2)
        for _ in range(5):  # one is inside, four wait
            assert wire.place.downstream_read_window == sys.maxsize
            wire.send(bytes(size))
        assert wire.place.downstream_read_window == sys.maxsize
        wire.send(b"x")
        assert channel.is_clogged
        assert wire.place.downstream_read_window == 0
        assert middle.place.downstream_read_window == sys.maxsize
        wire.increments.clear()
        slow.let_through(2)
        await slow.received(2 * size)
        assert wire.place.downstream_read_window == 0
        slow.let_through()
        await slow.received(3 * size)
        assert wire.place.downstream_read_window == sys.maxsize
        await turns(1)
        assert wire.increments == [0]
        slow.let_through(3)
        assert len(await slow.got(5 * size + 1)) == 5 * size + 1


async def test_who_waits_for_room_in_a_clogged_channel_is_not_the_one_that_clogs_it() -> None:
    class Respecting(Stage):
        """Passes on what there is room for, after a turn."""

        async def process_read_message(self, slot: ChannelSlot, message: IoMessage) -> None:
            await turns(1)
            while not slot.downstream_read_window:
                self.events.clear()
                await self.has("increment")
            super().process_read_message(slot, message)

    async with pipeline(wire := Wire(), Respecting(), app := App()) as channel:
        for _ in range(3):
            wire.send(bytes(CLOGGED))
        assert is_clogged(channel)
        assert len(await app.got(3 * CLOGGED)) == 3 * CLOGGED
        assert not is_clogged(channel)


async def test_a_clogged_channel_still_takes_what_is_sent() -> None:
    async with pipeline(wire := Wire(), slow := Slow()):
        for _ in range(10):
            wire.send(bytes(CLOGGED))
        slow.let_through(10)
        assert len(await slow.got(10 * CLOGGED)) == 10 * CLOGGED


async def test_what_waits_on_its_way_to_the_left_does_not_stop_the_reading() -> None:
    app = App()
    async with pipeline(wire := Wire(), Slow(), app) as channel:
        for _ in range(3):
            app.send(bytes(CLOGGED), WRITE)
        assert not channel.is_clogged
        assert wire.place.downstream_read_window == sys.maxsize


async def test_with_back_pressure_the_windows_say_how_much_waits() -> None:
    async with pipeline(wire := Wire(), slow := Slow(), enable_read_back_pressure=True) as channel:
        await turns(2)
        wire.send(bytes(CLOGGED))
        wire.send(bytes(CLOGGED + 1))
        assert wire.place.downstream_read_window == sys.maxsize - 2 * CLOGGED - 1
        assert channel.error is None
        assert slow.data == b""


# Slots that leave with messages inside


async def waiting_inside(
    back_pressure: bool, app: Stage, window: int = sys.maxsize
) -> tuple[Any, Channel, Wire, Slow]:
    wire, slow = Wire(), Slow(window)
    context = pipeline(wire, slow, app, enable_read_back_pressure=back_pressure)
    channel = await context.__aenter__()
    await turns(3)
    for data in (b"lost ", b"one ", b"two ", b"three"):
        wire.send(data)
    await turns(1)
    assert app.data == b""
    return context, channel, wire, slow


async def test_what_waited_for_a_removed_slot_counts_against_the_next_window() -> None:
    app = App(window=10)
    context, channel, wire, slow = await waiting_inside(True, app)
    slow.place.remove()
    assert app.data == b"one two three"
    assert app.place.window_size == 10 - 13
    assert wire.place.downstream_read_window == 0
    app.takes(5)
    await turns(2)
    assert wire.place.downstream_read_window == 2
    assert channel.error is None
    await context.__aexit__(None, None, None)


async def test_what_the_left_was_told_stays_good_when_a_slot_leaves() -> None:
    app = App(window=10)
    context, channel, wire, slow = await waiting_inside(True, app, window=32)
    assert wire.place.downstream_read_window == 32 + 10 - 18
    slow.place.remove()
    assert wire.place.downstream_read_window == 0
    wire.send(bytes(24))  # as one does who passes on what he cannot keep
    with raises(ErrorCode.IO_CHANNEL_READ_WOULD_EXCEED_WINDOW):
        wire.send(b"x")
    assert app.place.window_size == 10 - 13 - 24
    wire.increments.clear()
    for size in (20, 7 + 9):
        app.takes(size)
        await turns(2)
    assert wire.increments == [0, 9]
    assert wire.place.downstream_read_window == 9
    assert channel.error is None
    await context.__aexit__(None, None, None)


async def test_what_waited_for_a_replaced_slot_waits_for_the_new_handler() -> None:
    app = App(window=1000)
    context, channel, wire, slow = await waiting_inside(True, app)
    new = channel.new_slot()
    slow.place.replace(new)
    await turns(2)
    assert wire.place.downstream_read_window == 0
    assert app.data == b""
    new.set_handler(stage := Stage("new", window=20))
    assert stage.data == app.data == b"one two three"
    await turns(2)
    assert wire.place.downstream_read_window == 20 + 1000 - 13  # as it passes on what app takes
    await context.__aexit__(None, None, None)


async def test_what_a_clogged_slot_leaves_behind_is_delivered() -> None:
    app = App()
    context, channel, wire, slow = await waiting_inside(False, app)
    wire.send(bytes(2 * CLOGGED))
    assert is_clogged(channel)
    slow.place.remove()
    assert len(app.data) == 13 + 2 * CLOGGED
    assert not is_clogged(channel)
    assert wire.place.downstream_read_window == sys.maxsize
    await context.__aexit__(None, None, None)
