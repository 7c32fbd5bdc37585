"""Retrying what failed: how often, how late, and when to leave a sick service alone.

An operation acquires a token before its first attempt. After each failure it asks the token for a
retry, which waits for as long as the strategy has it wait, or raises; after a success it says so.

    token = await strategy.acquire_retry_token("us-east-1:s3")
    while True:
        try:
            result = await operation()
        except OSError as error:
            await token.schedule_retry(retry_error_type(error))
        else:
            token.record_success()
            break

`strategy.attempt()` and `@strategy.retrying()` are shorter ways to write that.

Strategies hold no resources and need no closing. They may be shared by any number of threads and
loops: sleeping is done by the caller's loop, and the one lock, around the budget of
`StandardRetryStrategy`, is held for a few lines of arithmetic and never while anything waits.

Source: aws-c-io's `retry_strategy.h`.
"""

import asyncio
import enum
import functools
import inspect
import threading
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from random import Random, SystemRandom
from typing import Any, ParamSpec, TypeVar

from ._backoff import NO_RETRY_PAYBACK, Backoff, BackoffOptions, JitterMode, RetryBudget
from .errors import (
    CommonErrorCode,
    ErrorCode,
    RetryError,
    RetryErrorType,
    make,
    retry_error_type,
)
from .log import LogSubject, logger

__all__ = [
    "Attempt",
    "BackoffOptions",
    "ExponentialBackoffRetryStrategy",
    "JitterMode",
    "NoRetryStrategy",
    "RetryErrorType",
    "RetryStrategy",
    "RetryToken",
    "RetryTokenState",
    "StandardRetryStrategy",
]

P = ParamSpec("P")
T = TypeVar("T")

Sleep = Callable[[float], Awaitable[object]]
"""Waits for so many seconds on the running loop."""

Classify = Callable[[BaseException], RetryErrorType]
"""Says what kind of error an exception is. CLIENT_ERROR is not retried by `Attempt`."""

GLOBAL_PARTITION = ""
"""Where operations belong that name no partition."""


class RetryTokenState(enum.Enum):
    """Where an operation that holds a token stands."""

    READY = enum.auto()
    """It may be attempted."""
    WAITING = enum.auto()
    """A retry has been scheduled, and its time has not come."""
    SUCCEEDED = enum.auto()
    """It is over: the token is of no more use."""


LEGAL_MOVES: dict[RetryTokenState, frozenset[RetryTokenState]] = {
    RetryTokenState.READY: frozenset({RetryTokenState.WAITING, RetryTokenState.SUCCEEDED}),
    RetryTokenState.WAITING: frozenset({RetryTokenState.READY}),
    RetryTokenState.SUCCEEDED: frozenset(),
}


class RetryToken:
    """The right of one operation to be tried again. Acquired from a strategy.

    Thread: any, any loop, by one task at a time.
    """

    _log = logger(LogSubject.EXPONENTIAL_BACKOFF_RETRY_STRATEGY)

    def __init__(self, backoff: Backoff, sleep: Sleep) -> None:
        self._backoff = backoff
        self._sleep = sleep
        self._state = RetryTokenState.READY

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._state.name} retries={self.retries}>"

    @property
    def state(self) -> RetryTokenState:
        """Where the operation stands."""
        return self._state

    @property
    def retries(self) -> int:
        """Retries that have been scheduled, those after client errors not counted."""
        return self._backoff.retries

    async def schedule_retry(self, error_type: RetryErrorType) -> None:
        """Wait until the operation that failed with an error of `error_type` may be tried again.

        With exponential backoff, a CLIENT_ERROR is neither counted nor waited for: whoever retries
        after one has mended the request. The standard strategy refuses to retry it.

        Raises IO_MAX_RETRIES_EXCEEDED, IO_RETRY_PERMISSION_DENIED when the partition's budget is
        spent, and ERROR_INVALID_STATE, a RuntimeError, if a retry of this token is under way
        already or success has been recorded. After a refusal the token is as it was before. So it
        is when the wait is cancelled, but for one more retry counted. Raises TypeError if
        `error_type` is no RetryErrorType.
        """
        if not isinstance(error_type, RetryErrorType):
            raise TypeError(f"error_type must be a RetryErrorType, not {error_type!r}")
        self._move(RetryTokenState.WAITING)
        try:
            with self._lease(error_type):
                client_error = error_type is RetryErrorType.CLIENT_ERROR
                delay = 0.0 if client_error else self._backoff.next_delay()
                self._log.debug("%r: retry in %.3f s after a %s", self, delay, error_type.name)
                await self._sleep(delay)
        except RetryError as refusal:
            self._log.info("%r: %s", self, refusal)
            raise
        finally:
            self._move(RetryTokenState.READY)

    def record_success(self) -> None:
        """Tell the strategy that the operation has succeeded. Also, and above all, at first go.

        Raises ERROR_INVALID_STATE, a RuntimeError, if that was recorded before, or a retry is
        still waited for.
        """
        self._move(RetryTokenState.SUCCEEDED)

    @contextmanager
    def _lease(self, error_type: RetryErrorType) -> Iterator[None]:
        """What the retry costs, for as long as it is not called off."""
        yield

    def _move(self, state: RetryTokenState) -> None:
        if state not in LEGAL_MOVES[self._state]:
            raise make(
                CommonErrorCode.ERROR_INVALID_STATE,
                "this token's retry is still waited for: await it before the token is used again"
                if self._state is RetryTokenState.WAITING
                else "success has been recorded with this token: acquire one for each operation",
            )
        self._state = state


class Attempt:
    """An operation with all its retries, as `RetryStrategy.attempt` has it."""

    def __init__(self, token: RetryToken | None, classify: Classify) -> None:
        self.token = token
        """What was acquired; None if the strategy never retries."""
        self._classify = classify

    async def retry(self, error: BaseException) -> None:
        """Return when the operation that raised `error` may be tried again; else raise `error`.

        It is raised if it is the client's own (CLIENT_ERROR), or if the strategy refuses: why it
        does is then among the notes of `error`. Raises ERROR_INVALID_STATE as
        `RetryToken.schedule_retry` does.
        """
        error_type = self._classify(error)
        if self.token is None or error_type is RetryErrorType.CLIENT_ERROR:
            raise error
        try:
            await self.token.schedule_retry(error_type)
        except RetryError as refusal:
            error.add_note(f"not retried: {refusal}")
        else:
            return
        raise error


class RetryStrategy(ABC):
    """Decides on the retries of many operations. Thread: any, any loop."""

    @abstractmethod
    async def acquire_retry_token(self, partition: str | None = None) -> RetryToken:
        """Begin an operation.

        `partition` names what fails as a whole: a region, a service, a host; case is ignored, and
        None is the global partition. Raises IO_RETRY_PERMISSION_DENIED if the strategy lets
        nothing be retried, and TypeError for a partition that has to be a str and is none.
        """

    @asynccontextmanager
    async def attempt(
        self, partition: str | None = None, *, classify: Classify = retry_error_type
    ) -> AsyncIterator[Attempt]:
        """An operation with its retries: leaving the block without an exception is its success.

            async with strategy.attempt("us-east-1:s3") as attempt:
                while True:
                    try:
                        return await operation()
                    except OSError as error:
                        await attempt.retry(error)

        `classify` says what kind of error an exception is. Raises what `acquire_retry_token` does.
        """
        token = await self.acquire_retry_token(partition)
        yield Attempt(token, classify)
        token.record_success()

    def retrying(
        self, partition: str | None = None, *, classify: Classify = retry_error_type
    ) -> Callable[[Callable[P, Awaitable[T]]], Callable[P, Coroutine[Any, Any, T]]]:
        """A decorator for coroutine functions that may be called again when they raise.

        What they raise in the end is raised, with a note that says why it was not retried.
        Cancellation is never retried. Raises TypeError for what is no coroutine function, or if the
        parentheses are missing; and when the function is called, what `acquire_retry_token` does.
        """
        if callable(partition):
            raise TypeError("write @strategy.retrying(), with parentheses")

        def decorate(function: Callable[P, Awaitable[T]]) -> Callable[P, Coroutine[Any, Any, T]]:
            if not inspect.iscoroutinefunction(function):
                raise TypeError(f"only coroutine functions can be retried, not {function!r}")

            @functools.wraps(function)
            async def retried(*args: P.args, **kwargs: P.kwargs) -> T:
                async with self.attempt(partition, classify=classify) as attempt:
                    while True:
                        try:
                            return await function(*args, **kwargs)
                        except Exception as error:
                            await attempt.retry(error)

            return retried

        return decorate


class NoRetryStrategy(RetryStrategy):
    """Nothing is retried. `attempt` and `retrying` run their operation once."""

    async def acquire_retry_token(self, partition: str | None = None) -> RetryToken:
        """Raises IO_RETRY_PERMISSION_DENIED."""
        raise make(ErrorCode.IO_RETRY_PERMISSION_DENIED, "NoRetryStrategy gives out no tokens")

    @asynccontextmanager
    async def attempt(
        self, partition: str | None = None, *, classify: Classify = retry_error_type
    ) -> AsyncIterator[Attempt]:
        """As of the base class, with `Attempt.retry` raising every error at once."""
        yield Attempt(None, classify)


class ExponentialBackoffRetryStrategy(RetryStrategy):
    """Up to `max_retries` retries, each later than the last, whatever happens to other operations.

    `options`: see `BackoffOptions`. `random`: where jitter comes from; the system's random source
    unless given, the same seed gives the same delays. `sleep`: waits, for tests.
    """

    def __init__(
        self,
        options: BackoffOptions | None = None,
        *,
        random: Random | None = None,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self._options = _checked(options) or BackoffOptions()
        self._random = random or SystemRandom()
        self._sleep = sleep

    async def acquire_retry_token(self, partition: str | None = None) -> RetryToken:
        """A token; `partition` plays no part, and there is nothing to wait for."""
        return RetryToken(Backoff(self._options, self._random), self._sleep)


def _checked(options: BackoffOptions | None) -> BackoffOptions | None:
    if options is not None and not isinstance(options, BackoffOptions):
        raise TypeError(f"options must be BackoffOptions, not {options!r}")
    return options


class StandardRetryStrategy(RetryStrategy):
    """Exponential backoff within a budget, so that an outage is not made worse by retries.

    Each partition has a bucket. A retry takes units from it: 10 after a transient error, 5 after
    any other. Success pays back what its last retry took, an operation that succeeds at first go
    pays 1, one that fails pays nothing. While a bucket is empty, retries are refused.

    `options`: see `BackoffOptions`; 3 retries unless given. `bucket_capacity`: units of a full
    bucket. `random`, `sleep`: see `ExponentialBackoffRetryStrategy`. Raises
    ERROR_INVALID_ARGUMENT, a ValueError, for a capacity below 1.
    """

    def __init__(
        self,
        options: BackoffOptions | None = None,
        *,
        bucket_capacity: int = 500,
        random: Random | None = None,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self._options = _checked(options) or BackoffOptions(max_retries=3)
        self._budget = _SharedBudget(bucket_capacity)
        self._random = random or SystemRandom()
        self._sleep = sleep

    async def acquire_retry_token(self, partition: str | None = None) -> RetryToken:
        """A token of `partition`; there is nothing to wait for."""
        if partition is not None and not isinstance(partition, str):
            raise TypeError(f"partition must be a str, not {partition!r}")
        backoff = Backoff(self._options, self._random)
        return _BudgetToken(backoff, self._sleep, self._budget, partition or GLOBAL_PARTITION)

    def available(self, partition: str | None = None) -> int:
        """The units left in the bucket of `partition`."""
        return self._budget.available(partition or GLOBAL_PARTITION)


class _SharedBudget:
    """A `RetryBudget` for any number of threads."""

    def __init__(self, capacity: int) -> None:
        self._budget = RetryBudget(capacity)
        self._lock = threading.Lock()

    def available(self, partition: str) -> int:
        with self._lock:
            return self._budget.available(partition)

    def take(self, partition: str, error_type: RetryErrorType) -> int:
        with self._lock:
            return self._budget.take(partition, error_type)

    def pay_back(self, partition: str, units: int) -> None:
        with self._lock:
            self._budget.pay_back(partition, units)


class _BudgetToken(RetryToken):
    """A token whose retries are paid for from the bucket of its partition."""

    _log = logger(LogSubject.STANDARD_RETRY_STRATEGY)

    def __init__(
        self, backoff: Backoff, sleep: Sleep, budget: _SharedBudget, partition: str
    ) -> None:
        super().__init__(backoff, sleep)
        self._budget = budget
        self._partition = partition
        self._payback = NO_RETRY_PAYBACK

    def record_success(self) -> None:
        super().record_success()
        self._budget.pay_back(self._partition, self._payback)

    @contextmanager
    def _lease(self, error_type: RetryErrorType) -> Iterator[None]:
        cost = self._budget.take(self._partition, error_type)
        try:
            yield
        except BaseException:  # no retry will be made: too many, or cancelled
            self._budget.pay_back(self._partition, cost)
            raise
        self._payback = cost
