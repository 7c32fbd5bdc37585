"""Read windows: who may send how much to the right, and when windows are topped up."""

import random
import sys
from typing import Any

import pytest

from aws_io_async.channel import ChannelHandler, ChannelSlot
from aws_io_async.channel._windows import WINDOW_UPDATE_THRESHOLD
from aws_io_async.errors import AwsIoError, ErrorCode
from aws_io_async.message_pool import MAX_FRAGMENT_SIZE, IoMessage, MessageType
from tests import channels
from tests.channels import READ, App, Stage, Wire, ended, pipeline
from tests.socket_tools import raises, turns

no_tasks_left = channels.no_tasks_left

THRESHOLD = WINDOW_UPDATE_THRESHOLD
GRANT = 1024


class Keeping(Stage):
    """Queues what comes and passes nothing on, as TLS does with an incomplete record."""

    def process_read_message(self, slot: ChannelSlot, message: IoMessage) -> None:
        self.reads.append(message)


class Absorbing(Keeping):
    """Has a window of its own: what its neighbour asks for is no reason to ask for more."""

    def increment_read_window(self, slot: ChannelSlot, size: int) -> None:
        self.increments.append(size)

    def takes(self, size: int) -> None:
        self.place.increment_read_window(size)


class ThreeSlots:
    """left -> mid -> right, whose initial grants have settled."""

    def __init__(self, mid_window: int, right_window: int) -> None:
        self.left = Wire()
        self.mid = Absorbing("mid", window=mid_window)
        self.right = App("right", window=right_window)
        self.context = pipeline(self.left, self.mid, self.right, enable_read_back_pressure=True)

    async def __aenter__(self) -> "ThreeSlots":
        await self.context.__aenter__()
        await turns(3)
        assert self.mid.place.window_size == self.mid.initial_window_size
        assert self.right.place.window_size == self.right.initial_window_size
        self.mid.increments.clear()
        return self

    async def __aexit__(self, *exc: Any) -> None:
        await self.context.__aexit__(*exc)


def test_the_threshold_is_four_fragments() -> None:
    assert THRESHOLD == 4 * MAX_FRAGMENT_SIZE == 64 * 1024


# aws-c-io's cases


async def test_channel_window_update_gates_on_scarcest_slot() -> None:
    scarce, roomy = MAX_FRAGMENT_SIZE, THRESHOLD * 4
    async with ThreeSlots(scarce, roomy) as slots:
        slots.right.takes(GRANT)
        await turns(2)
        assert slots.right.place.window_size == roomy + GRANT
        assert slots.right.place._batch == 0
        assert slots.mid.increments == [GRANT]


async def test_channel_window_update_batches_while_all_slots_roomy() -> None:
    roomy = THRESHOLD + MAX_FRAGMENT_SIZE
    async with ThreeSlots(roomy, roomy) as slots:
        slots.right.takes(GRANT)
        await turns(2)
        assert slots.right.place.window_size == roomy
        assert slots.right.place._batch == GRANT
        assert slots.mid.increments == []
        slots.left.send(bytes(MAX_FRAGMENT_SIZE))
        assert slots.mid.place.window_size == THRESHOLD
        slots.right.takes(GRANT)
        await turns(2)
        assert slots.right.place.window_size == roomy + 2 * GRANT
        assert slots.mid.increments == [2 * GRANT]


async def test_channel_window_update_emitted_when_debit_starves_slot() -> None:
    roomy = MAX_FRAGMENT_SIZE * 5
    async with ThreeSlots(roomy, roomy) as slots:
        slots.right.takes(GRANT)
        await turns(2)
        assert slots.right.place._batch == GRANT
        assert slots.right.place.window_size == roomy
        for _ in range(5):
            slots.left.send(bytes(MAX_FRAGMENT_SIZE))
        assert slots.mid.place.window_size == 0
        await turns(2)
        assert slots.mid.increments == [GRANT]
        assert slots.right.place.window_size == roomy + GRANT
        assert slots.right.place._batch == 0


# To the byte


@pytest.mark.parametrize("window", [1, 9, 1000, 100_000])
async def test_no_byte_past_the_window(window: int) -> None:
    async with pipeline(
        wire := Wire(), app := App(window=window), enable_read_back_pressure=True
    ) as channel:
        await turns(2)
        with raises(ErrorCode.IO_CHANNEL_READ_WOULD_EXCEED_WINDOW, f"of {window + 1} bytes"):
            wire.send(bytes(window + 1))
        assert wire.place.downstream_read_window == window
        wire.send(bytes(window))
        assert wire.place.downstream_read_window == 0
        with raises(ErrorCode.IO_CHANNEL_READ_WOULD_EXCEED_WINDOW):
            wire.send(b"x")
        wire.send(b"")
        app.takes(3)
        assert wire.place.downstream_read_window == 0  # granted, but not emitted yet
        await turns(2)
        assert wire.place.downstream_read_window == 3
        assert len(app.data) == window
        assert channel.error is None  # whoever sends too much is told, and may shut it down


async def test_a_handler_that_sends_past_the_window_ends_the_channel() -> None:
    class Doubling(Stage):
        def process_read_message(self, slot: ChannelSlot, message: IoMessage) -> None:
            slot.send_message(IoMessage(bytes(message.data) * 2), READ)

    app = App(window=10)
    async with pipeline(
        wire := Wire(), Doubling(window=10), app, enable_read_back_pressure=True
    ) as channel:
        await turns(2)
        wire.send(b"12345")
        assert app.data == b"1234512345"
        wire.send(b"6")
        error = await ended(channel)
        assert isinstance(error, AwsIoError)
        assert error.code is ErrorCode.IO_CHANNEL_READ_WOULD_EXCEED_WINDOW
        assert app.data == b"1234512345"


async def test_what_carries_no_bytes_needs_no_window() -> None:
    async with pipeline(wire := Wire(), app := App(window=0), enable_read_back_pressure=True):
        await turns(2)
        for kind in (MessageType.OTHER, MessageType.END_OF_INPUT):
            wire.place.send_message(IoMessage(message_type=kind), READ)
        assert app.events[-2:] == ["other", "end of input"]


@pytest.mark.parametrize("handler", [ChannelHandler, Stage])
async def test_the_leftmost_slot_asks_in_vain(handler: type[ChannelHandler]) -> None:
    async with pipeline(
        handler(), middle := Stage(window=10), app := App(window=0), enable_read_back_pressure=True
    ):
        await turns(5)
        middle.increments.clear()
        app.takes(5)  # which the leftmost handler asks for as well, of nobody
        await turns(5)
        assert sum(middle.increments) == 5
        told = len(middle.increments)
        await turns(10)
        assert len(middle.increments) == told


async def test_the_left_is_told_in_the_turn_after_the_grant() -> None:
    async with pipeline(
        wire := Wire(), app := App(window=0), enable_read_back_pressure=True
    ) as channel:
        await turns(2)
        wire.increments.clear()
        app.takes(5)
        app.takes(6)
        assert wire.increments == []
        await turns(1)
        assert wire.increments == [11]
        assert channel.first_slot is wire.slot


async def test_a_window_does_not_overflow() -> None:
    async with pipeline(wire := Wire(), app := App(), enable_read_back_pressure=True):
        await turns(2)
        app.takes(sys.maxsize)
        wire.send(b"x")
        app.takes(sys.maxsize)
        await turns(2)
        assert 0 < wire.place.downstream_read_window <= sys.maxsize


async def test_a_window_does_not_shrink_by_a_grant() -> None:
    async with pipeline(Wire(), app := App(), enable_read_back_pressure=True):
        with pytest.raises(ValueError, match="0 or more bytes, not by -1"):
            app.takes(-1)


async def test_a_threshold_of_ones_own() -> None:
    async with pipeline(
        wire := Wire(),
        app := App(window=100),
        enable_read_back_pressure=True,
        window_update_threshold=10,
    ):
        await turns(2)
        wire.increments.clear()
        wire.send(bytes(89))
        app.takes(89)
        await turns(2)
        assert wire.increments == []
        wire.send(b"x")
        await turns(2)
        assert wire.increments == [89]


async def test_a_slot_brings_its_grant_along_when_it_is_inserted_late() -> None:
    async with pipeline(
        wire := Wire(), mid := Stage("mid", window=1 << 20), enable_read_back_pressure=True
    ) as channel:
        slot = channel.new_slot(app := App(window=1 << 20))
        await turns(2)
        mid.place.insert_right(slot)
        await turns(2)
        assert mid.place.downstream_read_window == 1 << 20
        wire.send(b"abc")
        assert app.data == b"abc"


async def test_a_failure_of_increment_read_window_ends_the_channel() -> None:
    class Failing(Stage):
        def increment_read_window(self, slot: ChannelSlot, size: int) -> None:
            if size == 7:
                raise OSError("no window")

    async with pipeline(
        wire := Wire(), Failing(), app := App(window=0), enable_read_back_pressure=True
    ) as channel:
        await turns(2)
        app.takes(7)
        error = await ended(channel)
        assert isinstance(error, OSError)
        assert wire.ended_with is error


# When neighbours change


def passing_on(*windows: int) -> list[Stage]:
    """A handler that passes everything on, and what takes so many bytes to the right of it."""
    return [Stage(str(window), window=window) for window in windows]


async def test_a_handler_that_comes_late_is_told_what_the_right_takes() -> None:
    async with pipeline(
        wire := Wire(), app := App(window=100), enable_read_back_pressure=True
    ) as channel:
        await turns(3)
        wire.increments.clear()
        wire.place.insert_right(slot := channel.new_slot(middle := Stage(window=0)))
        await turns(3)
        assert middle.increments[0] == 100
        assert slot.window_size == 100
        assert sum(wire.increments) == 0  # it has been told of these bytes before
        wire.send(bytes(100))
        app.takes(100)
        await turns(3)
        assert (sum(middle.increments), sum(wire.increments)) == (200, 100)


async def test_a_handler_that_has_promised_bytes_may_pass_them_on_to_a_new_neighbour() -> None:
    async with pipeline(
        wire := Wire(), *passing_on(0), app := App(window=100), enable_read_back_pressure=True
    ) as channel:
        await turns(3)
        app.place.insert_left(slot := channel.new_slot(Stage(window=0)))
        wire.send(bytes(60))  # before anybody has been told of the change
        assert slot.window_size == -60
        wire.send(bytes(40))
        with raises(ErrorCode.IO_CHANNEL_READ_WOULD_EXCEED_WINDOW):
            wire.send(b"x")
        await turns(3)
        app.takes(100)
        await turns(3)
        assert [each.window_size for each in channel.slots()][1:] == [100, 100, 100]
        assert len(app.data) == 100


async def test_a_handler_that_takes_less_than_was_promised_is_not_sent_more_afterwards() -> None:
    async with pipeline(
        wire := Wire(),
        *passing_on(0),
        narrow := Absorbing("narrow", window=5),
        app := App(window=100),
        enable_read_back_pressure=True,
    ) as channel:
        await turns(3)
        assert wire.place.downstream_read_window == 5
        narrow.place.remove()
        await turns(3)
        assert wire.place.downstream_read_window == 100
        app.place.insert_left(channel.new_slot(other := Absorbing("other", window=5)))
        wire.send(bytes(100))  # had been promised
        await turns(3)
        assert other.place.window_size == 5 - 100
        other.takes(99)
        await turns(3)
        assert wire.place.downstream_read_window == 4
        assert channel.error is None


@pytest.mark.parametrize("seed", range(5))
async def test_windows_are_right_after_any_changes(seed: int) -> None:
    """However handlers that pass everything on come and go, the last one's window counts."""
    chooser = random.Random(seed)
    async with pipeline(
        wire := Wire(), app := App(window=1000), enable_read_back_pressure=True
    ) as channel:
        sent = 0
        for _ in range(300):
            what = chooser.random()
            *passing, _ = slots = list(channel.slots())
            if what < 0.3 and len(slots) < 6:
                chooser.choice(passing).insert_right(channel.new_slot(Stage(window=0)))
            elif what < 0.5 and len(slots) > 2:
                chooser.choice(passing[1:]).remove()
            elif what < 0.6 and len(slots) > 2:
                chooser.choice(passing[1:]).replace(channel.new_slot(Stage(window=0)))
            elif what < 0.8 and (window := wire.place.downstream_read_window):
                size = chooser.randint(1, window)
                wire.send(bytes(size))
                sent += size
            elif len(app.data) > 1000 - app.place.window_size - app.place._batch:
                app.takes(1)
            else:
                await turns(chooser.choice([1, 1, 2, 10]))
            assert len(app.data) == sent
            assert app.place.window_size >= 0
        app.takes(1000 - app.place.window_size - app.place._batch)
        await turns(20)
        assert {slot.window_size for slot in list(channel.slots())[1:]} == {1000}
        assert channel.error is None


# Against a model of aws-c-io's channel.c


class Model:
    """Windows and batches of a chain, as channel.c keeps them.

    Each handler asks for as much as it is told.
    """

    def __init__(self, windows: list[int]) -> None:
        self.windows = windows
        self.batches = [0] * len(windows)
        self.scheduled = False

    def _schedule_if_scarce(self, slot: int) -> None:
        counted = {slot, *range(1, len(self.windows))}
        pending = any(self.batches[index] for index in counted)
        scarcest = min(self.windows[index] for index in counted)
        self.scheduled = self.scheduled or (pending and scarcest <= THRESHOLD)

    def grant(self, slot: int, size: int) -> None:
        self.batches[slot] += size
        self._schedule_if_scarce(slot)

    def debit(self, slot: int, size: int) -> None:
        self.windows[slot] -= size
        self._schedule_if_scarce(slot)

    def turn(self) -> None:
        if not self.scheduled:
            return
        self.scheduled = False
        for slot in range(len(self.windows) - 1, 0, -1):
            size, self.batches[slot] = self.batches[slot], 0
            self.windows[slot] += size
            if slot > 1:
                self.grant(slot - 1, size)


@pytest.mark.parametrize("seed", range(5))
async def test_windows_are_those_of_aws_c_io(seed: int) -> None:
    chooser = random.Random(seed)
    windows = [chooser.choice([0, 1000, THRESHOLD, THRESHOLD + 1, 4 * THRESHOLD]) for _ in range(3)]
    stages = [Keeping(str(index), window=window) for index, window in enumerate(windows)]
    async with pipeline(Wire(), *stages, enable_read_back_pressure=True) as channel:
        await turns(10)
        slots = list(channel.slots())
        model = Model([slot.window_size for slot in slots])
        model.batches = [slot._batch for slot in slots]
        for _ in range(400):
            number = chooser.randrange(1, 4)
            size = chooser.choice([0, 1, 100, 5000, MAX_FRAGMENT_SIZE, 50_000])
            what = chooser.random()
            if what < 0.4:
                slots[number].increment_read_window(size)
                model.grant(number, size)
            elif what < 0.8:
                size = min(size, slots[number - 1].downstream_read_window)
                slots[number - 1].send_message(IoMessage(bytes(size)), READ)
                model.debit(number, size)
            else:
                await turns(1)
                model.turn()
            assert [slot.window_size for slot in slots[1:]] == model.windows[1:]
            assert [slot._batch for slot in slots[1:]] == model.batches[1:]


# Without back pressure


async def test_without_back_pressure_the_window_is_unlimited() -> None:
    async with pipeline(wire := Wire(), app := App(window=0)) as channel:
        assert not channel.read_back_pressure_enabled
        assert wire.place.downstream_read_window == sys.maxsize
        wire.send(bytes(1 << 20))
        app.takes(5)
        assert app.place.window_size == 0
        assert wire.place.downstream_read_window == sys.maxsize
