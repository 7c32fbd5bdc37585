"""How a channel ends: in two phases, once, gracefully or immediately."""

import asyncio
from typing import Any

import pytest

from aws_io_async.channel import Channel, ChannelDirection, ChannelState
from aws_io_async.errors import AwsIoError, ErrorCode
from aws_io_async.message_pool import IoMessage
from tests import channels
from tests.channels import (
    AT_ONCE,
    IN_ORDER,
    READ,
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
from tests.socket_tools import turns

no_tasks_left = channels.no_tasks_left


# Two phases


async def test_reading_ends_from_left_to_right_then_writing_from_right_to_left() -> None:
    log: Log = []
    async with pipeline(*stages(log)) as channel:
        channel.shutdown()
        assert not log
        assert await ended(channel) is None
    assert log == IN_ORDER


async def test_an_immediate_one_goes_the_same_way() -> None:
    log: Log = []
    async with pipeline(*stages(log)) as channel:
        channel.shutdown(immediately=True)
        await ended(channel)
    assert log == AT_ONCE


async def test_a_phase_waits_for_each_handler() -> None:
    log: Log = []
    slow = Lingering("b", log)
    async with pipeline(*stages(log, slow)) as channel:
        channel.shutdown()
        await turns()
        assert log == IN_ORDER[:2]
        slow.go_on.set()
        slow.go_on = asyncio.Event()
        await turns()
        assert log == IN_ORDER[:5]
        assert channel.state is ChannelState.SHUTTING_DOWN
        slow.go_on.set()
        await ended(channel)
    assert log == IN_ORDER


async def test_all_are_told_the_error() -> None:
    error = OSError("unplugged")
    told: list[Any] = []
    handlers = stages([])
    async with pipeline(*handlers, on_shutdown=lambda *args: told.append(args)) as channel:
        channel.shutdown(error)
        await ended(channel)
    assert told == [(channel, error)]
    assert [handler.ended_with for handler in handlers] == [error] * 3


async def test_what_is_still_on_its_way_arrives_before_its_direction_ends() -> None:
    class Late(Stage):
        """Says a last thing in each direction."""

        def shutdown(self, slot: Any, direction: ChannelDirection, *args: Any) -> None:
            super().shutdown(slot, direction, *args)
            self.send(b"the last of it", direction)

    log: Log = []
    wire, late, app = stages(log, Late("b", log))
    async with pipeline(wire, late, app) as channel:
        channel.shutdown()
        await ended(channel)
    assert app.data == wire.written == b"the last of it"
    read, write = log.index(("c", "read")), log.index(("a", "write"))
    assert log.index(("b", "shutdown read")) < read < log.index(("c", "shutdown read"))
    assert log.index(("b", "shutdown write")) < write < log.index(("a", "shutdown write"))


async def test_what_was_received_may_be_answered_until_the_write_phase() -> None:
    class Answering(App):
        def shutdown(self, slot: Any, direction: ChannelDirection, *args: Any) -> None:
            super().shutdown(slot, direction, *args)
            self.send(f"bye {direction.value}, ".encode(), WRITE)

    async with pipeline(wire := Wire(), Answering()) as channel:
        channel.shutdown()
        await ended(channel)
    assert wire.written == b"bye read, bye write, "


async def test_a_direction_ends_after_the_messages_that_wait_there() -> None:
    log: Log = []
    wire, middle, app = stages(log, Suspending("b", log))
    async with pipeline(wire, middle, app) as channel:
        for data in (b"one ", b"two"):
            wire.send(data)
            app.send(data, WRITE)
        channel.shutdown()
        await turns()
        assert log == [("a", "shutdown read")]
        assert isinstance(middle, Suspending)
        middle.go_on.set()
        await ended(channel)
    assert app.data == wire.written == b"one two"
    read = [what for name, what in log if name == "b" and "write" not in what]
    assert read == ["read", "read", "shutdown read", "close"]


async def test_an_immediate_one_drops_them_and_says_so() -> None:
    async with pipeline(wire := Wire(), middle := Suspending(), app := App()) as channel:
        errors: list[Any] = []
        for _ in range(3):
            wire.send(b"x")
            message = IoMessage(b"y", on_completion=lambda *args: errors.append(args[2]))
            app.place.send_message(message, WRITE)
        channel.shutdown(ConnectionResetError("gone"), immediately=True)
        await ended(channel)
        assert [str(error) for error in errors] == ["gone"] * 3
    assert middle.data == app.data == wire.written == b""


async def test_without_an_error_what_is_dropped_was_cancelled() -> None:
    async with pipeline(Wire(), Suspending(), app := App()) as channel:
        writing = asyncio.create_task(app.place.write(b"x"))
        await turns(1)
        channel.shutdown(immediately=True)
        with pytest.raises(AwsIoError) as caught:
            await writing
    assert caught.value.code is ErrorCode.ERROR_IO_OPERATION_CANCELLED


async def test_slots_that_come_and_go_meanwhile_are_seen() -> None:
    log: Log = []
    wire, slow, app = stages(log, Lingering("b", log, READ))
    assert isinstance(slow, Lingering)
    async with pipeline(wire, slow, app) as channel:
        channel.shutdown()
        await turns()
        app.place.remove()
        channel.append(Stage("d", log))
        slow.go_on.set()
        await ended(channel)
    assert log[2:] == [
        ("c", "close"),
        ("d", "shutdown read"),
        ("d", "shutdown write"),
        ("b", "shutdown write"),
        ("a", "shutdown write"),
        ("a", "close"),
        ("b", "close"),
        ("d", "close"),
    ]


async def test_a_slot_that_leaves_while_it_is_shut_down() -> None:
    log: Log = []
    wire, slow, app = stages(log, Lingering("b", log, READ))
    assert isinstance(slow, Lingering)
    async with pipeline(wire, slow, app) as channel:
        channel.shutdown()
        await turns()
        slow.place.remove()
        slow.go_on.set()
        await ended(channel)
    assert [what for name, what in log if name == "b"] == ["shutdown read", "close"]
    assert log[-2:] == [("a", "close"), ("c", "close")]


# Again and again


async def test_channel_duplicate_shutdown() -> None:
    channel = await Channel.open()
    channel.shutdown()
    assert await ended(channel) is None
    channel.shutdown()
    channel.shutdown(OSError("too late"), immediately=True)
    assert await ended(channel) is None
    assert channel.state is ChannelState.SHUT_DOWN


async def test_the_first_error_is_kept() -> None:
    log: Log = []
    first = OSError("the first")
    async with pipeline(*stages(log)) as channel:
        for error in (first, OSError("another"), None):
            channel.shutdown(error)
        assert channel.error is first
        assert await ended(channel) is first
    assert log == IN_ORDER


async def test_a_graceful_one_becomes_immediate_while_it_waits_for_a_handler() -> None:
    log: Log = []
    slow = Lingering("b", log, READ)
    async with pipeline(*stages(log, slow)) as channel:
        channel.shutdown()
        await turns()
        channel.shutdown(immediately=True)
        await ended(channel)
    assert slow.cancelled == 1
    assert log == [*IN_ORDER[:2], *AT_ONCE[1:]]


async def test_a_graceful_one_becomes_immediate_while_it_waits_for_messages() -> None:
    async with pipeline(wire := Wire(), app := Suspending()) as channel:
        wire.send(b"never to be processed")
        channel.shutdown()
        await turns()
        channel.shutdown(immediately=True)
        await ended(channel)
    assert app.data == b""
    assert app.events == ["shutdown read immediately", "shutdown write immediately", "close"]


async def test_an_immediate_one_is_not_held_up_by_a_graceful_one() -> None:
    slow = Lingering()
    async with pipeline(slow) as channel:
        channel.shutdown(immediately=True)
        channel.shutdown()
        await ended(channel)
    assert slow.cancelled == 0


async def test_an_immediate_one_still_waits_for_who_does_not_give_way() -> None:
    class Stubborn(Stage):
        async def shutdown(self, *args: Any) -> None:
            while not go_on.is_set():
                try:
                    await go_on.wait()
                except asyncio.CancelledError:
                    pass

    go_on = asyncio.Event()
    async with pipeline(Stubborn()) as channel:
        channel.shutdown()
        await turns()
        channel.shutdown(immediately=True)
        await turns()
        assert state(channel) is ChannelState.SHUTTING_DOWN
        go_on.set()
        await ended(channel)


async def test_is_closing_says_so_at_once() -> None:
    async with pipeline() as channel:
        assert not channel.is_closing()
        channel.shutdown()
        closing, before = channel.is_closing(), channel.state
        assert (closing, before) == (True, ChannelState.ACTIVE)
