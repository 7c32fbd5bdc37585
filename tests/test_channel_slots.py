"""Slots: how they form a chain, and change it while data flows."""

import asyncio
from typing import Any

import pytest

from aws_io_async.channel import Channel, ChannelHandler
from aws_io_async.errors import CommonErrorCode, ErrorCode
from aws_io_async.message_pool import MAX_FRAGMENT_SIZE, IoMessage, MessageType
from aws_io_async.testing import TestingChannel
from tests import channels
from tests.channels import READ, WRITE, App, Stage, Wire, collected_errors, ended, pipeline
from tests.socket_tools import raises, turns

no_tasks_left = channels.no_tasks_left


def order(channel: Channel) -> list[Any]:
    """The handlers' names, left to right; checked from right to left as well."""
    slots = list(channel.slots())
    backwards = slots[-1:]
    while (left := backwards[-1].left) is not None:
        backwards.append(left)
    assert backwards == slots[::-1]
    return [getattr(slot.handler, "name", None) for slot in slots]


async def test_channel_slots_clean_up() -> None:
    async with pipeline() as channel:
        one, two, three, four, five = (channel.new_slot() for _ in range(5))
        assert channel.first_slot is one
        one.insert_right(two)
        two.insert_right(three)
        three.insert_left(four)
        two.remove()
        assert list(channel.slots()) == [one, four, three]
        assert (one.left, one.right) == (None, four)
        assert (four.left, four.right) == (one, three)
        assert (three.left, three.right) == (four, None)
        four.replace(five)
        assert list(channel.slots()) == [one, five, three]
        assert (five.left, five.right) == (one, three)
        assert (one.right, three.left) == (five, five)
        assert (four.left, four.right) == (None, None)


async def test_slots_are_inserted_left_right_and_at_the_end() -> None:
    async with pipeline(Stage("a")) as channel:
        first = channel.first_slot
        assert first is not None
        for insert, name in (
            (first.insert_right, "b"),
            (first.insert_right, "c"),
            (first.insert_end, "d"),
            (first.insert_left, "e"),
        ):
            slot = channel.new_slot(Stage(name))
            insert(slot)
        assert order(channel) == ["e", "a", "c", "b", "d"]
        assert channel.first_slot is first.left


async def test_the_first_slot_may_leave() -> None:
    async with pipeline(a := Stage("a"), b := Stage("b")) as channel:
        a.place.remove()
        assert order(channel) == ["b"]
        assert channel.first_slot is b.slot
        b.place.replace(channel.new_slot(c := Stage("c")))
        assert order(channel) == ["c"]
        c.place.remove()
        assert channel.first_slot is None
        channel.append(Stage("d"))
        assert order(channel) == ["d"]


async def test_a_handler_is_closed_when_its_slot_leaves() -> None:
    async with pipeline(a := Stage("a"), b := Stage("b"), c := Stage("c")) as channel:
        b.place.remove()
        assert b.events == ["close"]
        c.place.replace(channel.new_slot())
        assert c.events == ["close"]
        assert "close" not in a.events
    assert (b.events, c.events) == (["close"], ["close"])


async def test_misuse_of_the_chain_is_told_at_once() -> None:
    async with pipeline(a := Stage("a"), b := Stage("b")) as channel, pipeline() as other:
        new = channel.new_slot()
        with pytest.raises(RuntimeError, match="is, or was, in the channel already"):
            a.place.insert_right(b.place)
        with pytest.raises(RuntimeError, match="is, or was, in the channel already"):
            b.place.replace(a.place)
        with pytest.raises(RuntimeError, match="is not in the channel: insert it first"):
            new.insert_right(channel.new_slot())
        with pytest.raises(RuntimeError, match="is not in the channel"):
            new.remove()
        with pytest.raises(ValueError, match="made by another channel"):
            a.place.insert_right(other.new_slot())
        b.place.remove()
        with pytest.raises(RuntimeError, match="is not in the channel"):
            b.place.remove()
        with pytest.raises(RuntimeError, match="is, or was, in the channel already"):
            a.place.insert_right(b.place)
        assert order(channel) == ["a"]


async def test_misuse_of_handlers_is_told_at_once() -> None:
    class Shrinking(ChannelHandler):
        initial_window_size = -1

    async with pipeline(a := Stage("a"), b := Stage("b")) as channel:
        with pytest.raises(RuntimeError, match="has a handler: put a new slot in its place"):
            a.place.set_handler(Stage())
        with pytest.raises(RuntimeError, match="a handler serves one channel"):
            channel.append(a)
        with pytest.raises(TypeError, match="a slot takes a ChannelHandler, not 'a'"):
            channel.append("a")  # type: ignore[arg-type]  # the point
        with pytest.raises(ValueError, match="must not be negative: -1"):
            channel.append(Shrinking())
        odd = Stage("c")
        odd.message_overhead = None  # type: ignore[assignment]  # the point
        with pytest.raises(TypeError, match="cannot be interpreted as an integer"):
            channel.append(odd)
        odd.message_overhead = -1
        with pytest.raises(ValueError, match=r"message_overhead of .* must not be negative"):
            channel.append(odd)
        half = Stage("c")
        half.initial_window_size = 0.5  # type: ignore[assignment]  # the point
        with pytest.raises(TypeError, match="cannot be interpreted as an integer"):
            channel.append(half)
        assert order(channel) == ["a", "b"]
        gone = b.place
        gone.remove()
        with pytest.raises(RuntimeError, match="has left the channel: use a new slot"):
            gone.set_handler(Stage())


async def test_a_message_goes_to_the_neighbour() -> None:
    async with pipeline(a := Stage("a"), b := Stage("b"), c := Stage("c")):
        a.send(b"right")
        assert [stage.data for stage in (a, b, c)] == [b"", b"right", b"right"]
        c.send(b"left", WRITE)
        assert (a.written, b.written, c.written) == (b"left", b"left", b"")


async def test_a_message_needs_a_handler_to_go_to() -> None:
    async with pipeline(a := Stage("a")) as channel:
        for direction in (READ, WRITE):
            with raises(
                ErrorCode.IO_CHANNEL_ERROR_ERROR_CANT_ACCEPT_INPUT,
                f"in {direction.value} direction",
            ):
                a.send(b"x", direction)
        a.place.insert_right(channel.new_slot())
        with raises(ErrorCode.IO_CHANNEL_ERROR_ERROR_CANT_ACCEPT_INPUT):
            a.send(b"x")
        assert a.place.downstream_read_window == 0


async def test_the_last_slot_has_nothing_downstream() -> None:
    async with pipeline(a := Stage("a")):
        with pytest.raises(RuntimeError, match="the last slot"):
            _ = a.place.downstream_read_window


async def test_overheads_add_up_from_the_left() -> None:
    async with pipeline(
        a := Stage("a"), b := Stage("b", overhead=53), c := Stage("c", overhead=9), d := Stage("d")
    ) as channel:
        stages = (a, b, c, d)
        assert [stage.place.upstream_message_overhead for stage in stages] == [0, 0, 53, 62]
        message = d.place.acquire_max_message_for_write()
        assert message.message_type is MessageType.APPLICATION_DATA
        assert (message.capacity, len(message.data)) == (MAX_FRAGMENT_SIZE - 62, 0)
        b.place.remove()
        assert d.place.upstream_message_overhead == 9
        a.place.insert_right(channel.new_slot(Stage("e", overhead=MAX_FRAGMENT_SIZE)))
        with raises(CommonErrorCode.ERROR_INVALID_STATE, "add 16393 bytes"):
            d.place.acquire_max_message_for_write()


async def test_a_message_may_be_larger_than_a_fragment() -> None:
    async with pipeline(wire := Wire(), app := App()):
        app.send(bytes(1 << 20), WRITE)
        wire.send(bytes(1 << 20))
        assert len(wire.written) == len(app.data) == 1 << 20


async def test_a_write_is_done_when_it_is_complete() -> None:
    async with pipeline(wire := Wire(holds_writes=True), app := App()):
        writing = asyncio.create_task(app.place.write(b"abc"))
        await wire.has("write")
        await turns(3)
        assert not writing.done()
        wire.complete()
        await writing
        assert wire.written == b"abc"


async def test_a_write_raises_what_it_failed_with() -> None:
    async with pipeline(wire := Wire(holds_writes=True), app := App()):
        writes = [asyncio.create_task(app.place.write(b"abc")) for _ in range(2)]
        await wire.has("write", 2)
        error = OSError("no more")
        wire.complete(error)
        for write in writes:
            with pytest.raises(OSError, match="no more") as caught:
                await write
            assert caught.value is error


async def test_a_write_that_is_complete_at_once_does_not_suspend() -> None:
    async with pipeline(wire := Wire(), app := App()):
        with pytest.raises(StopIteration):
            app.place.write(b"abc").send(None)
        assert wire.written == b"abc"


async def test_a_cancelled_write_is_written_all_the_same() -> None:
    async with pipeline(wire := Wire(holds_writes=True), app := App()):
        writing = asyncio.create_task(app.place.write(b"abc"))
        await wire.has("write")
        writing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await writing
        wire.complete()
        assert wire.written == b"abc"


async def test_a_write_without_a_neighbour_fails_at_once() -> None:
    async with pipeline(app := App()):
        with raises(ErrorCode.IO_CHANNEL_ERROR_ERROR_CANT_ACCEPT_INPUT):
            await app.place.write(b"x")


async def test_what_a_completion_raises_ends_the_channel() -> None:
    error = LookupError("in a completion")

    def on_completion(*_: Any) -> None:
        raise error

    with collected_errors() as errors:
        async with pipeline(Wire(), app := App()) as channel:
            message = IoMessage(b"x", on_completion=on_completion)
            app.place.send_message(message, WRITE)
            assert await ended(channel) is error
        assert [context["exception"] for context in errors] == [error]
        errors.clear()


# Changes while data flows


async def test_a_handler_may_give_way_to_another_while_it_has_a_message() -> None:
    class Switch(Stage):
        def process_read_message(self, slot: Any, message: IoMessage) -> None:
            new = slot.channel.new_slot()
            slot.replace(new)
            new.set_handler(app)

    app = App()
    async with pipeline(wire := Wire(), switch := Switch("switch")) as channel:
        wire.send(b"which protocol?")
        wire.send(b"this one")
        assert app.data == b"this one"
        assert order(channel) == ["wire", "app"]
        assert switch.events == ["close"]
        app.send(b"good", WRITE)
        assert wire.written == b"good"


async def test_a_slot_that_has_left_can_send_nothing() -> None:
    async with pipeline(Wire(), middle := Stage(), App()):
        middle.place.remove()
        for direction in (READ, WRITE):
            with raises(ErrorCode.IO_CHANNEL_ERROR_ERROR_CANT_ACCEPT_INPUT):
                middle.send(b"x", direction)
        middle.place.increment_read_window(5)  # does nothing


async def test_a_handler_may_take_itself_out_after_it_has_passed_a_message_on() -> None:
    class Once(Stage):
        def process_read_message(self, slot: Any, message: IoMessage) -> None:
            slot.send_message(IoMessage(bytes(message.data).upper()), READ)
            slot.remove()

    async with pipeline(wire := Wire(), Once("once"), app := App()) as channel:
        wire.send(b"one ")
        wire.send(b"two")
        assert app.data == b"ONE two"
        assert order(channel) == ["wire", "app"]


@pytest.mark.parametrize("back_pressure", [True, False])
async def test_handlers_look_again_when_the_chain_has_changed(back_pressure: bool) -> None:
    async with pipeline(
        wire := Wire(), app := App(window=10), enable_read_back_pressure=back_pressure
    ) as channel:
        await turns(2)
        wire.increments.clear()
        app.place.insert_left(slot := channel.new_slot())
        assert wire.place.downstream_read_window == 0
        await turns(2)
        assert wire.increments
        slot.set_handler(Stage(window=20))
        await turns(2)
        assert wire.place.downstream_read_window >= 20
        wire.increments.clear()
        slot.remove()
        await turns(2)
        assert wire.increments
        assert wire.place.downstream_read_window >= 10


async def test_handlers_that_come_together_pass_on_what_was_promised_before() -> None:
    async with TestingChannel(initial_window=100) as ends:
        await ends.settle()
        for _ in range(2):
            ends.left_slot.insert_right(ends.channel.new_slot(Stage(window=0)))
        ends.push_read(bytes(100))
        assert ends.take_received() == bytes(100)
        with raises(ErrorCode.IO_CHANNEL_READ_WOULD_EXCEED_WINDOW):
            ends.push_read(b"x")
        assert ends.error is None


@pytest.mark.parametrize("replaced", [False, True])
async def test_what_a_handler_had_promised_passes_through_all_that_are_left(replaced: bool) -> None:
    keeper = Stage(window=100)
    async with TestingChannel(keeper, Stage(window=0), initial_window=0) as ends:
        await ends.settle()
        if replaced:
            keeper.place.replace(ends.channel.new_slot(Stage(window=0)))
        else:
            keeper.place.remove()
        ends.push_read(bytes(100))
        assert ends.take_received() == bytes(100)
        ends.increment_read_window(100)  # is owed
        await ends.settle()
        assert ends.read_window == 0
        assert ends.error is None
