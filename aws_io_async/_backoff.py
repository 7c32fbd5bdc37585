"""When to retry, and whether: pure logic, without a clock and without sleeping.

`Backoff` gives the delays of one operation's retries, from a random source that is handed in.
`RetryBudget` says, for all operations together, whether the part of the service that they speak to
is still well enough to be asked again.

Source: aws-c-io's `retry_strategy.h`; for the kinds of jitter, Marc Brooker, "Exponential Backoff
and Jitter" (AWS Architecture Blog, 2015).
"""

import enum
import math
import operator
from dataclasses import dataclass
from random import Random

from .errors import AwsIoError, CommonErrorCode, ErrorCode, RetryErrorType, make

MAX_RETRIES_LIMIT = 63
"""More retries than this cannot be asked for: the delay doubles with each."""

TRANSIENT_COST = 10
"""Units that a retry costs after a transient error, such as a timeout: the partition may be ill."""

RETRY_COST = 5
"""Units that any other retry costs: the partition has answered."""

NO_RETRY_PAYBACK = 1
"""Units that an operation pays which succeeds at once. It has taken none: so an outage is got over
even when there is nothing left for retries."""


class JitterMode(enum.Enum):
    """How chance spreads the retries of many clients."""

    NONE = "none"
    """The delay is the exponential one: scale factor, twice that, four times that, ..."""
    FULL = "full"
    """Any delay from 0 to the exponential one."""
    DECORRELATED = "decorrelated"
    """The first as FULL; then any delay between the scale factor and three times the last one."""
    DEFAULT = FULL


@dataclass(frozen=True)
class BackoffOptions:
    """How often and how late to retry. Raises ERROR_INVALID_ARGUMENT, a ValueError, at nonsense.

    `max_retries`: 0 to 63, errors of the client's own making not counted. `scale_factor`: seconds,
    the delay before the first retry (before jitter). `max_backoff`: seconds, no delay is longer.
    """

    max_retries: int = 5
    scale_factor: float = 0.5
    max_backoff: float = 20.0
    jitter_mode: JitterMode = JitterMode.DEFAULT

    def __post_init__(self) -> None:
        if not 0 <= operator.index(self.max_retries) <= MAX_RETRIES_LIMIT:
            raise _invalid(f"max_retries must be 0 to {MAX_RETRIES_LIMIT}, not {self.max_retries}")
        for name in ("scale_factor", "max_backoff"):
            seconds = getattr(self, name)
            if not (math.isfinite(seconds) and seconds >= 0):
                raise _invalid(f"{name} must be 0 or more seconds, not {seconds}")
        if not isinstance(self.jitter_mode, JitterMode):
            raise _invalid(f"jitter_mode must be a JitterMode, not {self.jitter_mode!r}")


class Backoff:
    """The delays of one operation's retries. The same random numbers give the same delays.

    Not thread-safe.
    """

    __slots__ = ("_last_delay", "_options", "_random", "retries")

    def __init__(self, options: BackoffOptions, random: Random) -> None:
        self._options = options
        self._random = random
        self._last_delay = 0.0
        self.retries = 0
        """How many delays have been given out."""

    def next_delay(self) -> float:
        """Seconds to wait before the next retry, which is counted by this call.

        Raises IO_MAX_RETRIES_EXCEEDED when there have been `max_retries` of them.
        """
        options = self._options
        if self.retries >= options.max_retries:
            raise make(
                ErrorCode.IO_MAX_RETRIES_EXCEEDED,
                f"the limit is {options.max_retries} (option max_retries)",
            )
        self._last_delay = self._compute()
        self.retries += 1
        return self._last_delay

    def _compute(self) -> float:
        options = self._options
        exponential = min(options.max_backoff, options.scale_factor * 2.0**self.retries)
        if options.jitter_mode is JitterMode.NONE:
            return exponential
        if options.jitter_mode is JitterMode.FULL or not self._last_delay:
            return self._random.uniform(0, exponential)
        # Three times the last delay may be less than the scale factor: the range is the same.
        bound = min(options.max_backoff, self._last_delay * 3)
        return min(options.max_backoff, self._random.uniform(options.scale_factor, bound))


class RetryBudget:
    """Token buckets, one a partition: retries take units, successes pay them back.

    A partition is whatever fails as a whole: a host, a service in a region. Names differ by more
    than case. A bucket is full until something is taken from it, so only those that are not need
    to be remembered: memory is bounded by the partitions that have been failing.

    Not thread-safe.
    """

    __slots__ = ("_taken", "capacity")

    def __init__(self, capacity: int = 500) -> None:
        """`capacity`: units in each full bucket; below 1, raises ERROR_INVALID_ARGUMENT."""
        if operator.index(capacity) < 1:
            raise _invalid(f"the capacity of a bucket must be 1 or more, not {capacity}")
        self.capacity = capacity
        self._taken: dict[str, int] = {}

    def available(self, partition: str) -> int:
        """The units left in the bucket of `partition`."""
        return self.capacity - self._taken.get(partition.lower(), 0)

    def take(self, partition: str, error_type: RetryErrorType) -> int:
        """Pay for a retry after an error of `error_type`, and return what it has cost.

        The last units of a bucket are enough for a retry, however few. Raises
        IO_RETRY_PERMISSION_DENIED when none are left, and for errors of the client's own making:
        to repeat those is no use.
        """
        if error_type is RetryErrorType.CLIENT_ERROR:
            raise make(
                ErrorCode.IO_RETRY_PERMISSION_DENIED, "the error is the client's own (CLIENT_ERROR)"
            )
        available = self.available(partition)
        if available == 0:
            raise make(
                ErrorCode.IO_RETRY_PERMISSION_DENIED,
                f"too many failures: partition {partition!r} has none of its {self.capacity} "
                "units left",
            )
        cost = TRANSIENT_COST if error_type is RetryErrorType.TRANSIENT else RETRY_COST
        cost = min(cost, available)
        self._taken[partition.lower()] = self.capacity - available + cost
        return cost

    def pay_back(self, partition: str, units: int) -> None:
        """Put `units` back into the bucket; what it cannot hold is lost."""
        taken = self._taken.pop(partition.lower(), 0) - units
        if taken > 0:
            self._taken[partition.lower()] = taken


def _invalid(what: str) -> AwsIoError:
    return make(CommonErrorCode.ERROR_INVALID_ARGUMENT, what)
