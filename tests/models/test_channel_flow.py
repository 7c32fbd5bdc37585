"""A channel against a model: what flows through it, and how much, while its slots come and go.

Handlers of three kinds stand between the ends: one passes everything on at once, one keeps what the
way to its right has no room for, one suspends. The model knows counts only: what is sent is an
endless text. What it holds the channel to is what aws-c-io's windows promise:

- nothing is lost, doubled or reordered, in either direction;
- no more comes to the right end than it has granted, but for what a handler that was taken out had
  promised to its left: that much stays good, and is owed;
- what was told to the left end may be sent, and no more than that;
- who grants is not forgotten: once all is at rest, the left end knows of all that was granted, or
  still has more to send than the threshold at which windows are topped up;
- each write is completed once, however the channel ends, and those that succeed in order.
"""

import asyncio
from collections import deque
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from aws_io_async.channel import ChannelDirection, ChannelHandler, ChannelSlot
from aws_io_async.errors import AwsIoError, ErrorCode
from aws_io_async.message_pool import IoMessage, MessageType
from aws_io_async.testing import TestingChannel, TestingLoop
from tests.models.endless import text
from tests.models.rounds import checked

READ, WRITE = ChannelDirection.READ, ChannelDirection.WRITE
SIZES = st.sampled_from([0, 1, 30, 500, 2000])
INDEXES = st.integers(0, 5)


class Passes(ChannelHandler):
    """Passes everything on, and so asks for as much as it is asked for."""

    initial_window_size = 0


class Waits(ChannelHandler):
    """Passes everything on, and suspends after each message while it is shut."""

    initial_window_size = 0

    def __init__(self) -> None:
        self.is_open = True
        self._suspended: list[asyncio.Future[None]] = []

    async def process_read_message(self, slot: ChannelSlot, message: IoMessage) -> None:
        slot.send_message(message, READ)
        await self._wait()

    async def process_write_message(self, slot: ChannelSlot, message: IoMessage) -> None:
        slot.send_message(message, WRITE)
        await self._wait()

    async def _wait(self) -> None:
        if not self.is_open:
            self._suspended.append(asyncio.get_running_loop().create_future())
            await self._suspended[-1]

    def open(self) -> None:
        self.is_open = True
        for waiter in self._suspended:
            if not waiter.done():
                waiter.set_result(None)
        self._suspended.clear()


class Keeps(ChannelHandler):
    """Keeps what there is no room for, and sends it on in pieces of at most `cut` bytes."""

    def __init__(self, window: int, cut: int) -> None:
        self.initial_window_size = window
        self._cut = cut
        self.kept: deque[IoMessage] = deque()

    def process_read_message(self, slot: ChannelSlot, message: IoMessage) -> None:
        self.kept.append(message)
        self._send(slot)

    def increment_read_window(self, slot: ChannelSlot, size: int) -> None:
        self._send(slot)

    def _send(self, slot: ChannelSlot) -> None:
        while self.kept:
            message = self.kept[0]
            if message.message_type is not MessageType.APPLICATION_DATA or not message.data:
                slot.send_message(self.kept.popleft(), READ)
                continue
            size = min(self._cut, slot.downstream_read_window, len(message.data))
            if not size:
                return
            slot.send_message(IoMessage(message.data[:size]), READ)
            slot.increment_read_window(size)
            self.kept[0] = IoMessage(message.data[size:])
            if not self.kept[0].data:
                self.kept.popleft()


KINDS = st.one_of(
    st.builds(Passes),
    st.builds(Waits),
    st.builds(Keeps, st.sampled_from([20, 100, 3000]), st.sampled_from([1 << 20, 7])),
)


class ChannelMachine(RuleBasedStateMachine):
    """One channel."""

    @initialize(
        kinds=st.lists(KINDS, max_size=3),
        window=st.sampled_from([0, 50, 1000, 5000]),
        threshold=st.sampled_from([0, 10, 700, 65_536]),
    )
    def set_up(self, kinds: list[ChannelHandler], window: int, threshold: int) -> None:
        self.loop = TestingLoop()
        self.ends = TestingChannel(
            *kinds, loop=self.loop, initial_window=window, window_update_threshold=threshold
        )
        self.ends.__enter__()
        self.threshold = threshold
        self.granted = window
        self.owed_up_to = 0
        """Bytes, counted from the beginning, that may come to the right end all the same."""
        self.pushed = self.received = self.written = self.arrived = 0
        self.writes: list[IoMessage] = []
        self.input_ended = self.end_received = self.shut_down = False

    # What there is

    @property
    def middle(self) -> list[ChannelSlot]:
        slots = list(self.ends.channel.slots())
        return slots[1:-1]

    def handlers(self, kind: type[Any]) -> list[Any]:
        return [slot.handler for slot in self.middle if isinstance(slot.handler, kind)]

    @property
    def told(self) -> int:
        """How much more the left end may send, by what it was told."""
        return sum(self.ends.window_increments) - self.pushed

    def is_running(self) -> bool:
        return not self.shut_down

    # Reading

    def push(self, size: int) -> None:
        self.ends.push_read(text(self.pushed, size))
        self.pushed += size

    @precondition(lambda self: self.is_running() and not self.input_ended)
    @rule(size=SIZES)
    def push_what_there_is_room_for(self, size: int) -> None:
        self.push(min(size, self.ends.read_window))

    @precondition(lambda self: self.is_running() and not self.input_ended)
    @rule()
    def push_all_that_was_promised(self) -> None:
        self.push(max(0, min(self.told, 2000)))

    @precondition(lambda self: self.is_running() and not self.input_ended)
    @rule(more=st.sampled_from([1, 1000]))
    def push_too_much(self, more: int) -> None:
        size = max(self.ends.read_window, self.told) + more
        with pytest.raises(AwsIoError) as caught:
            self.ends.push_read(bytes(size))
        assert caught.value.code is ErrorCode.IO_CHANNEL_READ_WOULD_EXCEED_WINDOW

    @precondition(lambda self: self.is_running() and not self.input_ended)
    @rule(yes=st.sampled_from([False] * 15 + [True]))
    def end_input(self, yes: bool) -> None:
        if yes:
            self.ends.push_end_of_input()
            self.input_ended = True

    @precondition(is_running)
    @rule(size=SIZES)
    def grant(self, size: int) -> None:
        self.ends.increment_read_window(size)
        self.granted += size

    # Writing

    @precondition(is_running)
    @rule(size=SIZES)
    def write(self, size: int) -> None:
        self.writes.append(self.ends.push_write(text(self.written, size)))
        self.written += size

    @precondition(is_running)
    @rule(hold=st.booleans())
    def hold_writes(self, hold: bool) -> None:
        self.ends.hold_writes = hold
        while self.ends.held_writes and not hold:
            self.ends.complete_write()

    # The chain

    @precondition(lambda self: self.is_running() and len(self.middle) < 4)
    @rule(index=INDEXES, handler=KINDS, before=st.booleans(), handler_first=st.booleans())
    def insert(
        self, index: int, handler: ChannelHandler, before: bool, handler_first: bool
    ) -> None:
        slots = list(self.ends.channel.slots())
        place = slots[index % len(slots)]
        before = (before or place is slots[-1]) and place is not slots[0]
        self.loop.call(self._insert, place, handler, before, handler_first)

    def _insert(
        self, place: ChannelSlot, handler: ChannelHandler, before: bool, handler_first: bool
    ) -> None:
        new = self.ends.channel.new_slot(handler if handler_first else None)
        (place.insert_left if before else place.insert_right)(new)
        if not handler_first:
            new.set_handler(handler)

    def removable(self) -> list[ChannelSlot]:
        """Not who keeps something: that would be lost with it."""
        return [s for s in self.middle if not (isinstance(s.handler, Keeps) and s.handler.kept)]

    def note_promises_of(self, slot: ChannelSlot) -> None:
        if isinstance(slot.handler, Keeps):
            promised = self.pushed + slot.handler.initial_window_size
            self.owed_up_to = max(self.owed_up_to, promised)

    @precondition(lambda self: self.is_running() and self.removable())
    @rule(index=INDEXES)
    def remove(self, index: int) -> None:
        slot = self.removable()[index % len(self.removable())]
        self.note_promises_of(slot)
        self.loop.call(slot.remove)

    @precondition(lambda self: self.is_running() and self.removable())
    @rule(index=INDEXES, handler=KINDS, at_once=st.booleans())
    def replace(self, index: int, handler: ChannelHandler, at_once: bool) -> None:
        slot = self.removable()[index % len(self.removable())]
        self.note_promises_of(slot)
        new = self.loop.call(self.ends.channel.new_slot)
        if at_once:
            self.loop.call(new.set_handler, handler)
        self.loop.call(slot.replace, new)
        if not at_once:
            self.loop.call(new.set_handler, handler)

    # Time

    @precondition(is_running)
    @rule(index=INDEXES)
    def shut(self, index: int) -> None:
        waiting = self.handlers(Waits)
        if waiting:
            waiting[index % len(waiting)].is_open = False

    @precondition(is_running)
    @rule()
    def open_all(self) -> None:
        for handler in self.handlers(Waits):
            handler.open()

    @precondition(is_running)
    @rule()
    def come_to_rest(self) -> None:
        self.loop.run_until_idle()
        if self.handlers(Keeps) or not all(handler.is_open for handler in self.handlers(Waits)):
            return
        assert self.count_received() == self.pushed
        assert self.told <= max(self.granted, self.owed_up_to) - self.pushed
        assert self.told >= self.granted - self.pushed or self.told > self.threshold

    @precondition(is_running)
    @rule()
    def drain(self) -> None:
        """With room for everything, everything comes."""
        self.grant(self.pushed - self.received + 5000)
        self.open_all()
        self.loop.run_until_idle()
        assert self.count_received() == self.pushed
        assert self.end_received == self.input_ended
        assert self.told > 0
        assert self.count_arrived() == self.written

    # The end

    @precondition(is_running)
    @rule(
        immediately=st.booleans(),
        failing=st.booleans(),
        sure=st.sampled_from([False] * 20 + [True]),
    )
    def end(self, immediately: bool, failing: bool, sure: bool) -> None:
        if sure:
            self._shut_down(immediately, OSError("a reason") if failing else None)

    def _shut_down(self, immediately: bool, reason: Exception | None) -> None:
        keeping, waiting = self.handlers(Keeps), self.handlers(Waits)
        self.ends.shutdown(reason, immediately=immediately)
        self.loop.run_until_idle()
        for handler in waiting:
            handler.open()
        self.loop.run_until_idle()
        self.shut_down = True
        assert self.ends.is_shut_down
        assert self.ends.error is reason
        assert [call[:3] for call in self.ends.shutdowns] == [
            ("left", READ, reason),
            ("right", READ, reason),
            ("right", WRITE, reason),
            ("left", WRITE, reason),
        ]
        if not immediately:
            assert self.count_arrived() == self.written
            assert keeping or self.count_received() == self.pushed
        self.all_is_in_order()
        completed = [message for message, _ in self.ends.completions]
        assert sorted(map(id, completed)) == sorted(map(id, self.writes))
        self.ends.window_increments.clear()

    @precondition(lambda self: self.shut_down)
    @rule()
    def come_too_late(self) -> None:
        self.ends.increment_read_window(1)
        assert self.ends.window_increments == []
        for push in (self.ends.push_read, self.ends.push_write):
            with pytest.raises(AwsIoError) as caught:
                push(b"late")
            assert caught.value.code is ErrorCode.IO_CHANNEL_ERROR_ERROR_CANT_ACCEPT_INPUT

    # What always holds

    def count_received(self) -> int:
        for message in self.ends.received:
            assert not self.end_received
            if message.message_type is MessageType.END_OF_INPUT:
                self.end_received = True
            assert message.data == text(self.received, len(message.data))
            self.received += len(message.data)
        self.ends.received.clear()
        return self.received

    def count_arrived(self) -> int:
        for message in self.ends.written:
            assert message.data == text(self.arrived, len(message.data))
            self.arrived += len(message.data)
        self.ends.written.clear()
        return self.arrived

    @invariant()
    def all_is_in_order(self) -> None:
        assert self.count_received() <= max(self.granted, self.owed_up_to)
        assert self.received <= self.pushed
        assert self.count_arrived() <= self.written
        done = [message for message, error in self.ends.completions if error is None]
        assert done == self.writes[: len(done)]
        assert self.shut_down or not any(error for _, error in self.ends.completions)
        assert self.shut_down or self.ends.error is None

    def teardown(self) -> None:
        if hasattr(self, "ends"):
            if not self.shut_down:
                self._shut_down(immediately=True, reason=None)
            self.ends.__exit__(None, None, None)
            self.loop.close()


TestChannel = checked(ChannelMachine, 150)
