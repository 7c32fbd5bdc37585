"""`check_handler`: takes a handler through what can happen to it in a channel.

In the manner of trio's `check_one_way_stream`, it knows nothing of what the handler is for. The
first trial, in a channel without back pressure, shows what the handler makes of its input, and all
others are compared with it.
"""

from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Sequence
from itertools import repeat
from random import Random

from ..errors import CommonErrorCode, make
from ..message_pool import IoMessage, MessageType
from ._channel import TestingChannel
from ._rules import Rule
from ._trial import Handlers, Piece, Subject, Trial, observed

MAX_STATES = 6
"""How many places in the input a shutdown is tried at, both ends among them."""

Output = list[object]
"""What came out at one end, as it can be compared: bytes, and kind and tag of other messages."""


async def check_handler(
    factory: Callable[[], Handlers],
    *,
    reads: Sequence[bytes | IoMessage] = (),
    writes: Sequence[bytes | IoMessage] = (),
    expected_received: bytes | None = None,
    expected_written: bytes | None = None,
    ready: Callable[[TestingChannel], Awaitable[object]] | None = None,
    keep_messages: bool = False,
    windows: Sequence[int] = (1, 7, 1000),
    splits: int = 4,
    seed: int = 0,
    patience: float = 2.0,
    skip: Collection[Rule] = (),
) -> None:
    """Check that a handler keeps the contract of a channel's handlers; see `Rule`.

    `factory` returns a new handler, or several that stand side by side, for each of some hundred
    trials. `reads` come from the left: bytes, which are also cut in other ways, and messages
    without bytes (END_OF_INPUT, OTHER), which stay where they are. `writes` come from the right
    before that, one message each. All must be valid input, and complete. Some hundred bytes are
    enough, as they are also sent one by one.

    `expected_received` and `expected_written` are all that must come out, if it is known.
    `ready(channel)` is awaited before any input, a handshake for example. With `keep_messages`, the
    messages to the right must stay the same, not their bytes only; `windows`, those of the right
    end that are tried, must have room for one then. `splits` is how many random cuts are tried, by
    the random source of `seed`. `patience` (seconds) is how long nothing may happen before
    something is said never to happen. Rules in `skip` are not enforced.

    Raises HandlerContractError, an AssertionError, for the first rule that is broken; its text and
    its `rule` name it. Errors of `factory` pass through. Thread: any that runs a loop, of any kind,
    on which nothing else runs meanwhile. On a `TestingLoop`, what waits takes no time. If it is
    cancelled, the trial's channel and tasks are ended first.
    """
    subject = Subject(
        factory,
        [_piece_of(each) for each in reads],
        [_piece_of(each) for each in writes],
        ready,
        patience,
        skip,
    )
    check = _Check(subject, keep_messages, windows, splits, seed)
    with observed(subject):
        await check.output(expected_received, expected_written)
        await check.cuts()
        await check.windows_and_cuts()
        await check.tails()
        await check.completions()
        await check.errors()
        await check.shutdowns()


def _piece_of(data: bytes | IoMessage) -> Piece:
    """Bytes that came as a message can be cut like others."""
    if isinstance(data, IoMessage) and data.message_type is not MessageType.APPLICATION_DATA:
        return data
    return bytes(data.data if isinstance(data, IoMessage) else data)


class _Check:
    """The trials, and what they are compared with."""

    def __init__(
        self,
        subject: Subject,
        keep_messages: bool,
        windows: Sequence[int],
        splits: int,
        seed: int,
    ) -> None:
        self._subject = subject
        self._keep_messages = keep_messages
        self._windows = windows
        self._splits = splits
        self._seed = seed
        self._units = list(_units(subject.reads))
        self._outputs: dict[int, Output] = {}
        self._written: Output = []
        self._got_units = 0
        self._is_eager = False
        self._message_count = 0

    def _received(self, trial: Trial) -> Output:
        return _output(trial.received(), self._keep_messages)

    # Output

    async def output(self, expected_received: bytes | None, expected_written: bytes | None) -> None:
        """What the handler makes of its input as it was given."""
        async with Trial(self._subject, "reads as given") as trial:
            await trial.write()
            await trial.feed(self._subject.reads)
            eager = trial.got_units
        self._outputs[len(self._units)] = received = self._received(trial)
        self._written = _output(trial.written(), False)
        self._got_units = trial.got_units
        self._is_eager = eager == trial.got_units
        self._message_count = len(trial.received())
        for expected, output in (
            (expected_received, received),
            (expected_written, self._written),
        ):
            data = b"".join(part for part in output if isinstance(part, bytes))
            if expected is not None and data != expected:
                trial.fails(Rule.EXPECTED_OUTPUT, _difference(data, expected))

    def _compare(self, trial: Trial) -> None:
        expected = self._outputs[len(self._units)]
        if (received := self._received(trial)) != expected:
            trial.fails(Rule.SAME_OUTPUT, _difference(received, expected))
        if (written := _output(trial.written(), False)) != self._written:
            trial.fails(Rule.SAME_WRITTEN, _difference(written, self._written))

    def _ways_to_cut(self) -> Iterator[tuple[str, list[Piece], Random | None]]:
        """What to call it, the pieces, and what says when the loop gets a turn in between."""
        yield "reads in one piece", list(_joined(self._units, repeat(len(self._units)))), None
        yield "reads byte by byte", self._units, None
        for seed in range(self._seed, self._seed + self._splits):
            pieces = list(_joined(self._units, _random_sizes(Random(seed))))
            yield f"reads cut at random, seed {seed}", pieces, Random(seed)

    async def cuts(self) -> None:
        """However the input is cut, the output is the same."""
        for scenario, pieces, gaps in self._ways_to_cut():
            async with Trial(self._subject, scenario) as trial:
                await trial.write()
                await trial.feed(pieces, gaps=gaps)
            self._compare(trial)

    async def windows_and_cuts(self) -> None:
        """The same with little room to the right, whose every byte is asked for again."""
        for window in self._windows:
            for scenario, pieces, gaps in self._ways_to_cut():
                scenario = f"{scenario}, a window of {window} to the right"
                async with Trial(self._subject, scenario, window=window) as trial:
                    await trial.write()
                    await trial.feed(pieces, gaps=gaps)
                    await self._all_has_come(trial)
                    trial.check_window()
                self._compare(trial)

    async def _all_has_come(self, trial: Trial) -> None:
        """If the handler waits with nothing until the end, it does not with a small window."""

        def has_come() -> bool:
            return trial.got_units >= self._got_units or trial.is_over

        if self._is_eager and not await trial.patiently(has_come):
            trial.fails(
                Rule.NO_STALL,
                f"{trial.got_units} of {self._got_units} bytes have come out, and the right end "
                f"takes {trial.channel.right_slot.window_size} more",
            )

    # Endings

    async def tails(self) -> None:
        """A graceful shutdown while all that the handler has got cannot be passed on."""
        for window in self._windows:
            scenario = f"graceful shutdown, the window of {window} to the right opens afterwards"
            async with Trial(self._subject, scenario, window=window, consuming=False) as trial:
                await trial.write()
                await trial.feed(self._units, until_full=True)
                trial.channel.shutdown()
                await trial.channel.settle()
                trial.consume()
                await trial.closed()
            expected = await self._output_of(trial.fed)
            if (received := self._received(trial)) != expected:
                trial.fails(Rule.TAIL, _difference(received, expected))

    async def _output_of(self, count: int) -> Output:
        """What the handler makes of so many units of input, followed by a graceful shutdown."""
        if count not in self._outputs:
            scenario = f"the first {count} bytes of the reads"
            async with Trial(self._subject, scenario) as trial:
                await trial.write()
                await trial.feed(self._units[:count])
            self._outputs[count] = self._received(trial)
        return self._outputs[count]

    async def completions(self) -> None:
        """Writes that are completed late, and writes that fail."""
        if not self._subject.writes:
            return
        async with Trial(self._subject, "writes completed late") as trial:
            trial.channel.hold_writes = True
            await trial.write()
            trial.check_no_write_is_complete()
            while trial.channel.held_writes:
                trial.channel.complete_write()
                await trial.channel.settle()
            trial.channel.hold_writes = False
            await trial.feed(self._subject.reads)
        async with Trial(self._subject, "writes that fail") as trial:
            trial.channel.write_error = make(CommonErrorCode.ERROR_UNKNOWN, "a write failed")
            trial.may_fail = trial.may_lose_writes = True
            await trial.write()
            await trial.feed(self._subject.reads)

    async def errors(self) -> None:
        """The next handler raises at the first message, and at one in the middle."""
        for number in sorted({1, (self._message_count + 1) // 2}):
            if number > self._message_count:
                continue
            scenario = f"the next handler raises at message {number}"
            async with Trial(self._subject, scenario) as trial:
                trial.raise_at = number
                trial.may_fail = trial.may_lose_writes = True
                await trial.write()
                await trial.feed(self._subject.reads)

    async def shutdowns(self) -> None:
        """Each kind of shutdown, at several places in the input."""
        for count in self._places():
            for shut in (False, True):
                for held in (False, True) if self._subject.writes else (False,):
                    for end in (_gracefully, _immediately, _in_the_end_immediately):
                        await self._shutdown(count, shut, held, end)

    async def _shutdown(
        self, count: int, shut: bool, held: bool, end: Callable[[Trial], Awaitable[None]]
    ) -> None:
        scenario = (
            f"{end.__doc__} after {count} bytes"
            f"{', the window to the right is shut' * shut}{', writes are not complete' * held}"
        )
        window = min(self._windows, default=1) if shut else None
        async with Trial(self._subject, scenario, window=window, consuming=not shut) as trial:
            trial.channel.hold_writes = held
            trial.may_lose_writes = held or end is not _gracefully
            await trial.write()
            await trial.feed(self._units[:count], until_full=True)
            await end(trial)
            await trial.closed()

    def _places(self) -> list[int]:
        count = len(self._units)
        if count < MAX_STATES:
            return list(range(count + 1))
        between = Random(self._seed).sample(range(1, count), MAX_STATES - 2)
        return [0, *sorted(between), count]


async def _gracefully(trial: Trial) -> None:
    """graceful shutdown"""
    trial.channel.shutdown()
    await trial.channel.settle()
    await trial.release()


async def _immediately(trial: Trial) -> None:
    """immediate shutdown"""
    trial.channel.shutdown(immediately=True)


async def _in_the_end_immediately(trial: Trial) -> None:
    """graceful shutdown that turns into an immediate one"""
    trial.channel.shutdown()
    await trial.channel.settle()
    trial.channel.shutdown(immediately=True)


# Pieces


def _units(pieces: Iterable[Piece]) -> Iterator[Piece]:
    """The smallest pieces there are."""
    for piece in pieces:
        if isinstance(piece, bytes):
            yield from (piece[i : i + 1] for i in range(len(piece)))
        else:
            yield piece


def _joined(units: Iterable[Piece], sizes: Iterator[int]) -> Iterator[Piece]:
    """Bytes joined to pieces of these sizes; messages stay where they are, and end a piece."""
    data, size = b"", next(sizes)
    for unit in units:
        if isinstance(unit, bytes) and len(data) < size:
            data += unit
            continue
        if data:
            yield data
            data, size = b"", next(sizes)
        if isinstance(unit, bytes):
            data = unit
        else:
            yield unit
    if data:
        yield data


def _random_sizes(random: Random) -> Iterator[int]:
    largest = random.choice((2, 5, 20, 100))
    while True:
        yield random.randint(1, largest)


def _output(messages: Iterable[IoMessage], keep_messages: bool) -> Output:
    output: Output = []
    for message in messages:
        if message.message_type is not MessageType.APPLICATION_DATA:
            output.append((message.message_type, bytes(message.data), message.tag))
        elif output and isinstance(output[-1], bytes) and not keep_messages:
            output[-1] += bytes(message.data)
        elif message.data or keep_messages:
            output.append(bytes(message.data))
    return output


def _difference(got: object, expected: object) -> str:
    return f"it sent {_short(got)} where {_short(expected)} was expected"


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:50]} … {text[-25:]}"
