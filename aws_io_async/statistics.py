"""What a channel's handlers count, and who is told.

A handler of a channel keeps one of these records and hands it out when the channel gathers. The
channel gives them to its `StatisticsHandler` at an interval, and then has them start anew.

Source: aws-c-io's `aws/io/statistics.h`, aws-c-common's `aws/common/statistics.h`.
Thread: all of this is the channel's, and belongs to its thread.
"""

import abc
import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from .channel import Channel


class StatisticsCategory(enum.Enum):
    """What a record is about, with the CRT's number."""

    SOCKET = 256
    TLS = 257


@dataclass(slots=True)
class SocketStatistics:
    """Bytes that a socket handler has moved since the last report."""

    category: ClassVar[StatisticsCategory] = StatisticsCategory.SOCKET

    bytes_read: int = 0
    bytes_written: int = 0

    def reset(self) -> None:
        """Begin a new interval."""
        self.bytes_read = 0
        self.bytes_written = 0


class TlsNegotiationStatus(enum.Enum):
    """How far a TLS handler's handshake is."""

    NONE = enum.auto()
    """Not begun."""
    ONGOING = enum.auto()
    SUCCESS = enum.auto()
    FAILURE = enum.auto()


@dataclass(slots=True)
class TlsStatistics:
    """A TLS handler's handshake: when it began and ended, and how.

    The times are nanoseconds of the channel's clock, 0 until there is one.
    """

    category: ClassVar[StatisticsCategory] = StatisticsCategory.TLS

    handshake_start_ns: int = 0
    handshake_end_ns: int = 0
    handshake_status: TlsNegotiationStatus = TlsNegotiationStatus.NONE

    def reset(self) -> None:
        """Begin a new interval: what happens once in a connection stays as it is."""


@dataclass(frozen=True, slots=True)
class SampleInterval:
    """From when to when records were counted, in milliseconds of the channel's clock."""

    begin_ms: int
    end_ms: int


class StatisticsHandler(abc.ABC):
    """Is told at an interval what a channel's handlers have counted, to judge its health.

    Given to `Channel.set_statistics_handler`, which owns it from then on.
    """

    report_interval_ms: int = 1000
    """How long the channel waits between two reports; asked for before each."""

    @abc.abstractmethod
    def process_statistics(
        self, interval: SampleInterval, statistics: Sequence[object], channel: "Channel"
    ) -> None:
        """Look at the records of an interval, those of the leftmost handler first.

        A record's `category` or class says what it is; pass over those you do not know, since any
        handler may have its own. They are reset afterwards: `copy.copy` one to keep it. May shut
        the channel down. What it raises goes to the loop's exception handler.

        Thread: the channel's.
        """

    def close(self) -> None:  # noqa: B027 - most have nothing to release
        """The channel has another handler now, or is done. Thread: the channel's."""
