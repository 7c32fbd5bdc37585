"""One life of a handler under check: a channel, its input, and what must be so at its end."""

import asyncio
import sys
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from random import Random
from typing import Any, Self

from ..channel import ChannelDirection, ChannelHandler, ChannelState
from ..errors import CommonErrorCode, ErrorCode, make
from ..event_loop._until_done import until_done
from ..message_pool import IoMessage, MessageType
from ._channel import QUIET_TURNS, ShutdownCall, TestingChannel
from ._rules import HandlerContractError, Rule

Piece = bytes | IoMessage
"""Input: bytes, or a message that carries none, as a whole."""

Handlers = ChannelHandler | Sequence[ChannelHandler]


@dataclass
class Subject:
    """What is checked, and with what input."""

    factory: Callable[[], Handlers]
    reads: list[Piece]
    writes: list[Piece]
    ready: Callable[[TestingChannel], Awaitable[object]] | None
    patience: float
    skip: Collection[Rule]
    timers: list[asyncio.TimerHandle] = field(default_factory=list)
    """All that were made since the trial began."""
    reports: list[dict[str, Any]] = field(default_factory=list)
    """What the loop's exception handler was told since then."""


CANCELLATIONS = 3
"""How often a task that a handler leaves behind is cancelled."""


class Trial:
    """A channel with the handler, from its making to its end. To be used by `async with`.

    `window` is the right end's, in bytes; None is a channel without back pressure. While
    `consuming`, the right end asks for what it gets again. The end of the block ends the channel,
    if it has not ended, and looks at what is left.
    """

    def __init__(
        self, subject: Subject, scenario: str, *, window: int | None = None, consuming: bool = True
    ) -> None:
        self.subject = subject
        self.scenario = scenario
        self.consuming = consuming
        self.window = window
        self.fed = 0
        """Units, bytes and messages without bytes, that have been pushed."""
        self.raise_at: int | None = None
        """The message to the right, counted from 1, at which the right end raises an error."""
        self.may_fail = False
        """Whether the channel may end with an error."""
        self.may_lose_writes = False
        """Whether writes may be completed with an error."""
        self._completions: list[list[BaseException | None]] = []
        self._unconsumed = 0
        self._got_units = 0
        self._messages = 0
        self._came_late = 0
        self._read_ended = False
        self._first: tuple[int, int] = 0, 0

    def fails(self, rule: Rule, detail: str, cause: BaseException | None = None) -> None:
        """Raise, unless the caller of the check has asked not to."""
        if rule not in self.subject.skip:
            raise HandlerContractError(self._name, rule, detail, self.scenario) from cause

    # Life

    async def __aenter__(self) -> Self:
        self.subject.timers.clear()
        self.subject.reports.clear()
        self._tasks = asyncio.all_tasks()
        made = self.subject.factory()
        handlers = [made] if isinstance(made, ChannelHandler) else list(made)
        self._name = " and ".join(type(handler).__name__ for handler in handlers)
        self.channel = TestingChannel(
            *handlers,
            initial_window=sys.maxsize if self.window is None else self.window,
            enable_read_back_pressure=self.window is not None,
            window_update_threshold=sys.maxsize,  # what is asked for is granted at once
        )
        self.channel.on_received = self._received
        self.channel.on_shutdown = self._shutdown_called
        try:
            await self.channel.__aenter__()
            await self.channel.settle()
            await self._get_ready()
        except BaseException:
            await self._clean_up()
            raise
        self._first = len(self.channel.received), len(self.channel.written)
        self._slot = self.channel.left_slot.right
        self._initial_window = self.channel.read_window
        return self

    async def _get_ready(self) -> None:
        if self.subject.ready is not None:
            try:
                async with asyncio.timeout(self.subject.patience):
                    await self.subject.ready(self.channel)
            except TimeoutError:
                self.fails(Rule.NO_FAILURE, "it has not become ready")
            await self.channel.settle()
        self._check_error()

    async def __aexit__(self, kind: object, exc: object, traceback: object) -> None:
        try:
            if exc is None:
                self._check_error()
                self.channel.shutdown()
                await self.closed()
                self._check_error()
                self._check_tail()
                self._check_completions()
                await self._check_nothing_left()
        finally:
            await self._clean_up()

    async def closed(self) -> None:
        """Wait until the channel has shut down."""
        if await self.patiently(lambda: self.channel.is_shut_down):
            return
        calls = self.channel.shutdowns
        told = {(call.end, call.direction) for call in calls}
        if ("left", ChannelDirection.WRITE) in told:
            what = "a coroutine of it still runs"
        elif ("right", ChannelDirection.WRITE) in told:
            what = "its write direction has not ended"
        else:
            what = "its read direction has not ended"
        kind = "immediate" if calls and calls[-1].immediately else "graceful"
        self.fails(Rule.SHUTDOWN, f"{what} in spite of the {kind} shutdown")

    async def patiently(self, condition: Callable[[], object]) -> bool:
        """Wait until a condition holds; False if nothing happens at either end for too long."""
        channel = self.channel
        while True:
            before = channel.news_count
            try:
                async with asyncio.timeout(self.subject.patience):
                    await channel.until(condition)
                    return True
            except TimeoutError:
                if channel.news_count == before:
                    return False

    # Input and output

    async def write(self) -> None:
        """Push all writes."""
        for piece in self.subject.writes:
            if self.is_over:
                return
            self._completions.append([])
            self.channel.push_write(self._write_of(piece, self._completions[-1]))
        await self.channel.settle()

    def _write_of(self, piece: Piece, results: list[BaseException | None]) -> IoMessage:
        message = _message_of(piece)
        message.on_completion = lambda _channel, _message, error: results.append(error)
        return message

    async def feed(
        self, pieces: Iterable[Piece], *, gaps: Random | None = None, until_full: bool = False
    ) -> None:
        """Push input, each piece in as few parts as the window allows.

        `gaps` says by chance after which parts the loop gets a turn. `until_full` gives up when
        the window stays shut; otherwise that is the handler's fault.
        """
        for piece in pieces:
            rest: Piece | None = piece
            while rest is not None:
                if not await self._has_window(rest, until_full):
                    return
                part, rest = _cut(rest, self.channel.read_window)
                self.channel.push_read(_message_of(part))
                self.fed += units_in(part)
                if gaps is not None and gaps.random() < 0.5:
                    await asyncio.sleep(0)
        await self.channel.settle()
        self._check_error()

    async def _has_window(self, piece: Piece, until_full: bool) -> bool:
        """Wait until the window has room for something of the piece; False if it never will."""
        channel = self.channel
        needed = min(len(piece), 1) if isinstance(piece, bytes) else len(piece.data)
        if until_full and channel.read_window < needed:
            await channel.settle()
        elif not await self.patiently(lambda: channel.read_window >= needed or self.is_over):
            self.fails(Rule.NO_STALL, f"its window is shut after {self.fed} bytes, and stays so")
        self._check_error()
        return channel.read_window >= needed and not self.is_over

    @property
    def is_over(self) -> bool:
        """Whether the channel has begun to end."""
        channel = self.channel.channel
        return channel.error is not None or channel.state is not ChannelState.ACTIVE

    def _received(self, message: IoMessage) -> None:
        self._messages += 1
        self._got_units += units_in(message)
        self._came_late += self._read_ended
        self._unconsumed += len(message.data)
        if self.consuming:
            self.consume()
        if self._messages == self.raise_at:
            raise make(CommonErrorCode.ERROR_UNKNOWN, "the next handler has failed")

    def consume(self) -> None:
        """From now on, the right end asks for what it has got."""
        self.consuming = True
        size, self._unconsumed = self._unconsumed, 0
        self.channel.increment_read_window(size)

    def _shutdown_called(self, call: ShutdownCall) -> None:
        if call.end == "right" and call.direction is ChannelDirection.READ:
            self._read_ended = True

    @property
    def got_units(self) -> int:
        """Units that have come out at the right end."""
        return self._got_units

    def received(self) -> list[IoMessage]:
        """What has come out at the right end."""
        return self.channel.received[self._first[0] :]

    def written(self) -> list[IoMessage]:
        """What has come out at the left end."""
        return self.channel.written[self._first[1] :]

    async def release(self) -> None:
        """Both ends do from now on what they did not do so far."""
        self.consume()
        self.channel.hold_writes = False
        while self.channel.held_writes:
            self.channel.complete_write()

    # What must be so

    def _check_error(self) -> None:
        for report in self.subject.reports:  # errors of a shutdown, for instance
            cause = report.get("exception")
            self.fails(Rule.NO_FAILURE, f"{report.get('message')}: {cause!r}", cause)
        error = self.channel.error
        if error is None or self.may_fail:
            return
        if getattr(error, "code", None) is ErrorCode.IO_CHANNEL_READ_WOULD_EXCEED_WINDOW:
            self.fails(Rule.WINDOW, str(error), error)
        else:
            self.fails(Rule.NO_FAILURE, f"the channel ended with {error!r}", error)

    def check_window(self) -> None:
        """Once all was consumed, the handler takes no more than before it had got anything."""
        window, slot = self.channel.read_window, self.channel.left_slot.right
        if slot is self._slot and window > self._initial_window:
            self.fails(
                Rule.NO_FLOOD,
                f"its window was {self._initial_window} bytes before the first byte, and is "
                f"{window} after the last of {self.fed}",
            )

    def check_no_write_is_complete(self) -> None:
        """Nothing has been written yet, though it has come to the left end."""
        if self.written() and any(results == [None] for results in self._completions):
            self.fails(Rule.COMPLETION, "one was completed before it had been written")

    def _check_tail(self) -> None:
        if self._came_late:
            self.fails(
                Rule.TAIL, f"{self._came_late} messages came after the read direction had ended"
            )

    def _check_completions(self) -> None:
        for number, results in enumerate(self._completions, 1):
            if len(results) != 1:
                self.fails(
                    Rule.COMPLETION, f"write {number} has been completed {len(results)} times"
                )
            elif results[0] is not None and not self.may_lose_writes:
                self.fails(Rule.COMPLETION, f"write {number} failed with {results[0]!r}")
            elif results[0] is None and self.channel.write_error is not None:
                self.fails(Rule.COMPLETION, f"write {number} has failed, and was not told so")

    async def _check_nothing_left(self) -> None:
        for _ in range(QUIET_TURNS):  # for tasks that have been cancelled
            if not self._left_tasks():
                break
            await asyncio.sleep(0)
        left = [*self._left_tasks(), *self._left_timers()]
        if left:
            self.fails(Rule.NOTHING_LEFT, ", ".join(map(repr, left)))

    def _left_tasks(self) -> "set[asyncio.Task[Any]]":
        return asyncio.all_tasks() - self._tasks

    def _left_timers(self) -> list[asyncio.TimerHandle]:
        now = self.channel.channel.loop.time()
        return [t for t in self.subject.timers if not t.cancelled() and t.when() > now]

    async def _clean_up(self) -> None:
        """End what a handler that breaks the rules would leave to others, cancelled or not."""
        cleaning = asyncio.ensure_future(self._end_all())
        self._tasks.add(cleaning)
        await until_done({cleaning})
        cleaning.result()

    async def _end_all(self) -> None:
        self.channel.shutdown(immediately=True)
        await self.channel.settle()
        for _ in range(CANCELLATIONS):
            for task in self._left_tasks():
                task.cancel()
            await self.channel.settle()
        for timer in self._left_timers():
            timer.cancel()


@contextmanager
def observed(subject: Subject) -> Iterator[None]:
    """Note what is made and reported on the running loop, for the subject's trials."""
    loop = asyncio.get_running_loop()

    def noting(make: Callable[..., asyncio.TimerHandle]) -> Callable[..., asyncio.TimerHandle]:
        def call(*args: Any, **kwargs: Any) -> asyncio.TimerHandle:
            timer = make(*args, **kwargs)
            subject.timers.append(timer)
            return timer

        return call

    handler = loop.get_exception_handler()
    loop.set_exception_handler(lambda _, context: subject.reports.append(context))
    names = "call_at", "call_later"  # no loop tells which timers it has
    for name in names:
        setattr(loop, name, noting(getattr(loop, name)))
    try:
        yield
    finally:
        for name in names:
            delattr(loop, name)
        loop.set_exception_handler(handler)


def units_in(piece: Piece) -> int:
    """Bytes; a message that carries something else counts as one."""
    if isinstance(piece, bytes) or piece.message_type is MessageType.APPLICATION_DATA:
        return len(piece if isinstance(piece, bytes) else piece.data)
    return 1


def _cut(piece: Piece, size: int) -> tuple[Piece, Piece | None]:
    """The first `size` bytes, and the rest, if there is one."""
    if isinstance(piece, bytes):
        return piece[:size], piece[size:] or None
    return piece, None


def _message_of(piece: Piece) -> IoMessage:
    """A new message, as each can be sent once."""
    if isinstance(piece, bytes):
        return IoMessage(piece)
    return IoMessage(piece.data, piece.message_type, tag=piece.tag)
