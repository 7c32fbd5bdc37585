"""`check_handler` with handlers that break their contract, each in one way."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from aws_io_async.channel import ChannelDirection, ChannelHandler, ChannelSlot
from aws_io_async.message_pool import IoMessage, MessageType
from aws_io_async.testing import HandlerContractError, Rule, TestingLoop, check_handler
from tests.example_handlers import READ, WRITE, PassOn, SwapCase, Upper

READS = [b"Some bytes, ", b"and then some more of them, in pieces"]
WRITES = [b"One", b"Two", b"Three"]


@pytest.fixture
def loop() -> Iterator[TestingLoop]:
    loop = TestingLoop()
    yield loop
    assert not asyncio.all_tasks(loop)
    loop.close()


def broken_rule(loop: TestingLoop, handler: Any, **options: Any) -> HandlerContractError:
    """What the check says about a handler."""
    options = {"reads": READS, "writes": WRITES} | options
    with pytest.raises(HandlerContractError) as caught:
        loop.run_until_complete(check_handler(handler, **options))
    return caught.value


# Output


class Raises(PassOn):
    def process_read_message(self, slot: ChannelSlot, message: IoMessage) -> None:
        slot.send_message(IoMessage(b"%d" % int(message.data)), READ)


class RaisesInShutdown(PassOn):
    def shutdown(self, *args: Any) -> None:
        raise ValueError("not now")


class RaisesLater(PassOn):
    async def process_read_message(self, slot: ChannelSlot, message: IoMessage) -> None:
        await asyncio.sleep(1)
        raise ValueError("after all")


class WordAMessage(PassOn):
    """Takes each message for a word, as if the network knew of words."""

    def process_read_message(self, slot: ChannelSlot, message: IoMessage) -> None:
        slot.send_message(IoMessage(bytes(message.data).capitalize()), READ)


class Acknowledges(PassOn):
    """Each message, of which there are as many as the network likes."""

    def process_read_message(self, slot: ChannelSlot, message: IoMessage) -> None:
        slot.send_message(message, READ)
        slot.send_message(IoMessage(b"."), WRITE)


class JumpsTheQueue(SwapCase):
    """The end of input overtakes what is kept."""

    def process_read_message(self, slot: ChannelSlot, message: IoMessage) -> None:
        if message.message_type is MessageType.END_OF_INPUT:
            slot.send_message(message, READ)
        else:
            super().process_read_message(slot, message)


# Windows


class ForgetsTheWindow(SwapCase):
    def process_read_message(self, slot: ChannelSlot, message: IoMessage) -> None:
        slot.send_message(message, READ)
        slot.increment_read_window(len(message.data))


class HasUnlimitedWindow(ChannelHandler):
    """Passes on what it gets, and takes more than it can pass on: the defaults of the class."""


class NeverAsks(SwapCase):
    """Consumes, and does not ask for more."""

    def pass_on(self, slot: ChannelSlot) -> None:
        while self.kept and (window := slot.downstream_read_window):
            slot.send_message(IoMessage(self.kept[:window]), READ)
            del self.kept[:window]


class AsksForHalf(SwapCase):
    """Of what it consumes."""

    def pass_on(self, slot: ChannelSlot) -> None:
        while self.kept and (window := slot.downstream_read_window):
            part = bytes(self.kept[:window])
            del self.kept[:window]
            slot.send_message(IoMessage(part), READ)
            slot.increment_read_window(len(part) // 2)


class IgnoresTheGrownWindow(SwapCase):
    """Tries to pass on what it keeps only when something comes."""

    def increment_read_window(self, slot: ChannelSlot, size: int) -> None:
        pass


class AsksTwice(SwapCase):
    """For what it has consumed, and for what its neighbour has."""

    def increment_read_window(self, slot: ChannelSlot, size: int) -> None:
        super().increment_read_window(slot, size)
        slot.increment_read_window(size)


# Shutdown


class DropsTheTail(SwapCase):
    def shutdown(self, *args: Any) -> None:
        self.kept.clear()


class DropsTheTailInACoroutine(Upper):
    """A window that does not open within a second is given up."""

    async def process_read_message(self, slot: ChannelSlot, message: IoMessage) -> None:
        if not slot.downstream_read_window:
            return
        await super().process_read_message(slot, message)


class DeliversTooLate(SwapCase):
    """Passes on what it keeps in the write phase."""

    def shutdown(self, slot: ChannelSlot, direction: ChannelDirection, *args: Any) -> Any:
        return super().shutdown(slot, READ, *args) if direction is WRITE else None


class WaitsForever(PassOn):
    def shutdown(self, slot: ChannelSlot, direction: ChannelDirection, *args: Any) -> Any:
        return asyncio.get_running_loop().create_future() if direction is READ else None


class WaitsInTheWritePhase(PassOn):
    def shutdown(self, slot: ChannelSlot, direction: ChannelDirection, *args: Any) -> Any:
        return asyncio.get_running_loop().create_future() if direction is WRITE else None


class WaitsEvenIfImmediate(SwapCase):
    """For the window to the right, which need not open any more."""

    def shutdown(
        self,
        slot: ChannelSlot,
        direction: ChannelDirection,
        error: BaseException | None,
        free_scarce_resources_immediately: bool,
    ) -> Any:
        return super().shutdown(slot, direction, error, False)


class IgnoresCancellation(Upper):
    async def process_read_message(self, slot: ChannelSlot, message: IoMessage) -> None:
        try:
            await super().process_read_message(slot, message)
        except asyncio.CancelledError:
            await asyncio.sleep(3600)


# Completions


class NeverCompletes(PassOn):
    def process_write_message(self, slot: ChannelSlot, message: IoMessage) -> None:
        slot.send_message(IoMessage(message.data), WRITE)


class CompletesTooEarly(PassOn):
    def process_write_message(self, slot: ChannelSlot, message: IoMessage) -> None:
        slot.send_message(IoMessage(message.data), WRITE)
        message.complete(slot.channel, None)


class CompletesTwice(PassOn):
    def process_write_message(self, slot: ChannelSlot, message: IoMessage) -> None:
        assert message.on_completion is not None
        message.on_completion(slot.channel, message, None)
        slot.send_message(message, WRITE)


class HidesErrors(PassOn):
    def process_write_message(self, slot: ChannelSlot, message: IoMessage) -> None:
        sent = IoMessage(
            message.data, on_completion=lambda channel, *_: message.complete(channel, None)
        )
        slot.send_message(sent, WRITE)


class LosesWrites(PassOn):
    """Those that it gathers are gone with an immediate shutdown."""

    def __init__(self) -> None:
        self.gathered: list[IoMessage] = []

    def process_write_message(self, slot: ChannelSlot, message: IoMessage) -> None:
        self.gathered.append(message)

    def shutdown(
        self,
        slot: ChannelSlot,
        direction: ChannelDirection,
        error: BaseException | None,
        free_scarce_resources_immediately: bool,
    ) -> None:
        if direction is WRITE and not free_scarce_resources_immediately:
            for message in self.gathered:
                slot.send_message(message, WRITE)


# What is left


class LeavesATimer(PassOn):
    def process_read_message(self, slot: ChannelSlot, message: IoMessage) -> None:
        slot.channel.loop.call_later(30, print, "are you still there?")
        slot.send_message(message, READ)


class LeavesATask(PassOn):
    def process_read_message(self, slot: ChannelSlot, message: IoMessage) -> None:
        self.task = slot.channel.loop.create_task(asyncio.Event().wait(), name="keep-alive")
        slot.send_message(message, READ)


class LeavesATaskAfterAll(PassOn):
    """It is cancelled, and waits all the same."""

    def process_read_message(self, slot: ChannelSlot, message: IoMessage) -> None:
        self.task = slot.channel.loop.create_task(self.keep_alive(), name="keep-alive")
        slot.send_message(message, READ)

    async def keep_alive(self) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await asyncio.Event().wait()

    def close(self) -> None:
        self.task.cancel()


BROKEN = [
    (Raises, Rule.NO_FAILURE),
    (RaisesLater, Rule.NO_FAILURE),
    (WordAMessage, Rule.SAME_OUTPUT),
    (Acknowledges, Rule.SAME_WRITTEN),
    (ForgetsTheWindow, Rule.WINDOW),
    (HasUnlimitedWindow, Rule.WINDOW),
    (NeverAsks, Rule.NO_STALL),
    (AsksForHalf, Rule.NO_STALL),
    (IgnoresTheGrownWindow, Rule.NO_STALL),
    (AsksTwice, Rule.NO_FLOOD),
    (DropsTheTail, Rule.TAIL),
    (DeliversTooLate, Rule.TAIL),
    (WaitsForever, Rule.SHUTDOWN),
    (WaitsInTheWritePhase, Rule.SHUTDOWN),
    (WaitsEvenIfImmediate, Rule.SHUTDOWN),
    (IgnoresCancellation, Rule.SHUTDOWN),
    (NeverCompletes, Rule.COMPLETION),
    (CompletesTooEarly, Rule.COMPLETION),
    (CompletesTwice, Rule.COMPLETION),
    (HidesErrors, Rule.COMPLETION),
    (LosesWrites, Rule.COMPLETION),
    (LeavesATimer, Rule.NOTHING_LEFT),
    (LeavesATask, Rule.NOTHING_LEFT),
    (LeavesATaskAfterAll, Rule.NOTHING_LEFT),
    (RaisesInShutdown, Rule.NO_FAILURE),
    (DropsTheTailInACoroutine, Rule.NO_STALL),
]


@pytest.mark.parametrize(
    ("handler", "rule"), BROKEN, ids=lambda each: getattr(each, "__name__", "")
)
def test_a_broken_rule_is_named(
    loop: TestingLoop, handler: type[ChannelHandler], rule: Rule
) -> None:
    error = broken_rule(loop, handler)
    assert error.rule is rule
    assert str(error).startswith(f"{handler.__name__} breaks {rule.name}, {rule.value}: ")
