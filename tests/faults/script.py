"""What a faulty network does to the bytes of one direction of a connection: decided without I/O.

A `Script` is told what comes in, and answers with what to do: so many bytes to send on, a wait, the
end. All of it follows from its `Plan`, whose numbers a test draws by its seed.
"""

import enum
import random
from collections.abc import Iterator
from dataclasses import dataclass


class Trouble(enum.Enum):
    """One thing that goes wrong, or at least not as usual."""

    NONE = "none"
    DELAY = "delay"
    """In pieces of random sizes, each after a while."""
    SPLIT = "split"
    """Byte by byte."""
    COALESCE = "coalesce"
    """What comes in a short time goes on as one."""
    STALL = "stall"
    """Nothing more from a place on, until that is over."""
    CUT = "cut"
    """The connection is closed at a place."""
    HALF_CLOSE = "half-close"
    """This direction ends at a place, the other one goes on."""
    RESET = "reset"
    CORRUPT = "corrupt"
    """One bit is turned; if then nobody says anything, the connection is closed."""


HARMLESS = frozenset({Trouble.NONE, Trouble.DELAY, Trouble.SPLIT, Trouble.COALESCE, Trouble.STALL})
"""After which every byte has arrived."""


@dataclass(frozen=True)
class Plan:
    """For one direction; `at` is a place in its stream of bytes, for what happens at one."""

    trouble: Trouble = Trouble.NONE
    at: int = 0
    seed: int = 0


CLEAR = Plan()


@dataclass(frozen=True)
class Send:
    data: bytes


@dataclass(frozen=True)
class Wait:
    seconds: float


@dataclass(frozen=True)
class Stall:
    """Do nothing until told that it is over."""


@dataclass(frozen=True)
class End:
    """By CUT and RESET both directions, by HALF_CLOSE this one."""

    how: Trouble


Action = Send | Wait | Stall | End

LONGEST_WAIT = 0.002
MOST_HELD = 100_000


class Script:
    """One direction of a connection. `injected` tells whether the trouble has come about."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.injected = False
        self._random = random.Random(plan.seed)
        self._passed = 0
        self._held = bytearray()
        self._ended = False

    @property
    def minds_silence(self) -> bool:
        """Whether `silence` has to be told when nothing has come for a while."""
        return bool(self._held) or (self.plan.trouble is Trouble.CORRUPT and self.injected)

    def data(self, data: bytes) -> Iterator[Action]:
        """Bytes have come."""
        if self._ended:
            return
        start, self._passed = self._passed, self._passed + len(data)
        match self.plan.trouble:
            case Trouble.NONE:
                yield Send(data)
            case Trouble.DELAY:
                yield from self._delayed(data)
            case Trouble.SPLIT:
                self.injected = True
                yield from (Send(data[i : i + 1]) for i in range(len(data)))
            case Trouble.COALESCE:
                self.injected = True
                self._held += data
                if len(self._held) > MOST_HELD:
                    yield from self._release()
            case Trouble.CORRUPT:
                yield Send(self._corrupted(data, self.plan.at - start))
            case _:
                yield from self._until_there(data, self.plan.at - start)

    def silence(self) -> Iterator[Action]:
        """Nothing has come for a while, in either direction."""
        if self._held:
            yield from self._release()
        elif self.minds_silence:
            yield End(Trouble.CUT)

    def end(self) -> Iterator[Action]:
        """The sender has ended this direction."""
        if not self._ended:
            yield from self._release()
            yield End(Trouble.HALF_CLOSE)

    def _delayed(self, data: bytes) -> Iterator[Action]:
        self.injected = True
        while data:
            size = self._random.randint(1, max(1, len(data)))
            yield Wait(self._random.random() * LONGEST_WAIT)
            yield Send(data[:size])
            data = data[size:]

    def _release(self) -> Iterator[Action]:
        if self._held:
            yield Send(bytes(self._held))
            self._held.clear()

    def _corrupted(self, data: bytes, place: int) -> bytes:
        if not 0 <= place < len(data):
            return data
        self.injected = True
        bit = 1 << self._random.randrange(8)
        return data[:place] + bytes([data[place] ^ bit]) + data[place + 1 :]

    def _until_there(self, data: bytes, place: int) -> Iterator[Action]:
        if not 0 <= place < len(data):
            yield Send(data)
            return
        self.injected = True
        if place:
            yield Send(data[:place])
        if self.plan.trouble is Trouble.STALL:
            yield Stall()
            yield Send(data[place:])
        else:
            self._ended = True
            yield End(self.plan.trouble)
