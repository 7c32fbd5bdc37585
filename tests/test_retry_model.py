"""Retry tokens against a simple model: retries, successes and cancellations in any order.

The strategies' coroutines are driven by hand, so that a wait ends when the model says so. The model
of the buckets alone is in test_backoff.py.
"""

from collections.abc import Coroutine, Generator
from dataclasses import dataclass
from random import Random
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from aws_io_async.errors import AwsIoError, Code, CommonErrorCode, ErrorCode, RetryErrorType
from aws_io_async.retry_strategy import (
    BackoffOptions,
    ExponentialBackoffRetryStrategy,
    JitterMode,
    RetryToken,
    RetryTokenState,
    StandardRetryStrategy,
)

CAPACITY, MAX_RETRIES = 27, 4
OPTIONS = BackoffOptions(
    max_retries=MAX_RETRIES, scale_factor=1, max_backoff=5, jitter_mode=JitterMode.NONE
)
DELAYS = [1, 2, 4, 5]
COSTS = {
    RetryErrorType.TRANSIENT: 10,
    RetryErrorType.THROTTLING: 5,
    RetryErrorType.SERVER_ERROR: 5,
}


class Abandoned(BaseException):
    """As a cancellation is: no Exception."""


class Sleep:
    """Waits until it is resumed, and notes for how long it was asked to."""

    def __init__(self, asked: list[float], delay: float) -> None:
        asked.append(delay)

    def __await__(self) -> Generator[None, None, None]:
        yield


@dataclass
class Operation:
    """What is known of one operation: its token, and what that must do."""

    token: RetryToken
    partition: str
    retries: int = 0
    payback: int = 1
    waiting: Coroutine[Any, Any, None] | None = None
    leased: int = 0
    over: bool = False

    @property
    def state(self) -> RetryTokenState:
        if self.over:
            return RetryTokenState.SUCCEEDED
        return RetryTokenState.READY if self.waiting is None else RetryTokenState.WAITING


def resume(coroutine: Coroutine[Any, Any, Any]) -> tuple[bool, Any]:
    """Run until it waits or ends; whether it ended, and with what."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return True, stop.value
    return False, None


def code_of(coroutine: Coroutine[Any, Any, Any]) -> Code | None:
    """The code that a coroutine raises at once; None if it waits instead."""
    try:
        ended, _ = resume(coroutine)
    except AwsIoError as error:
        return error.code
    assert not ended
    return None


class TokenMachine(RuleBasedStateMachine):
    """A few operations at a time with the standard strategy, over two partitions."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[float] = []
        self.strategy = StandardRetryStrategy(
            OPTIONS, bucket_capacity=CAPACITY, random=Random(1), sleep=self.sleep
        )
        self.buckets = {"a": CAPACITY, "b": CAPACITY}
        self.operations: list[Operation] = []

    @property
    def waiting(self) -> list[Operation]:
        return [operation for operation in self.operations if operation.waiting is not None]

    def sleep(self, delay: float) -> Sleep:
        return Sleep(self.asked, delay)

    def pay_back(self, operation: Operation, units: int) -> None:
        left = self.buckets[operation.partition]
        self.buckets[operation.partition] = min(CAPACITY, left + units)

    @precondition(lambda self: len(self.operations) < 4)
    @rule(partition=st.sampled_from("abAB"))
    def acquire(self, partition: str) -> None:
        ended, token = resume(self.strategy.acquire_retry_token(partition))
        assert ended
        self.operations.append(Operation(token, partition.lower()))

    @precondition(lambda self: self.operations)
    @rule(data=st.data(), error_type=st.sampled_from(RetryErrorType))
    def schedule(self, data: st.DataObject, error_type: RetryErrorType) -> None:
        operation = data.draw(st.sampled_from(self.operations))
        coroutine = operation.token.schedule_retry(error_type)
        code = code_of(coroutine)
        left = self.buckets[operation.partition]
        if operation.state is not RetryTokenState.READY:
            assert code is CommonErrorCode.ERROR_INVALID_STATE
        elif error_type not in COSTS or not left:
            assert code is ErrorCode.IO_RETRY_PERMISSION_DENIED
        elif operation.retries == MAX_RETRIES:
            assert code is ErrorCode.IO_MAX_RETRIES_EXCEEDED
        else:
            assert code is None
            assert self.asked.pop() == DELAYS[operation.retries]
            operation.retries += 1
            operation.leased = min(COSTS[error_type], left)
            self.buckets[operation.partition] -= operation.leased
            operation.waiting = coroutine

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def the_time_has_come(self, data: st.DataObject) -> None:
        operation = data.draw(st.sampled_from(self.waiting))
        assert operation.waiting is not None
        assert resume(operation.waiting) == (True, None)
        operation.payback = operation.leased
        operation.waiting = None

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        operation = data.draw(st.sampled_from(self.waiting))
        assert operation.waiting is not None
        with pytest.raises(Abandoned):
            operation.waiting.throw(Abandoned())
        self.pay_back(operation, operation.leased)
        operation.waiting = None

    @precondition(lambda self: self.operations)
    @rule(data=st.data())
    def succeed(self, data: st.DataObject) -> None:
        operation = data.draw(st.sampled_from(self.operations))
        if operation.state is RetryTokenState.READY:
            operation.token.record_success()
            self.pay_back(operation, operation.payback)
            operation.over = True
            return
        with pytest.raises(AwsIoError) as caught:
            operation.token.record_success()
        assert caught.value.code is CommonErrorCode.ERROR_INVALID_STATE

    @precondition(lambda self: self.operations)
    @rule()
    def let_the_oldest_go(self) -> None:
        """What a dropped operation has taken stays taken, unless it was waiting."""
        if self.operations[0].waiting is None:
            self.operations.pop(0)

    @invariant()
    def the_tokens_and_the_buckets_agree(self) -> None:
        for operation in self.operations:
            assert operation.token.state is operation.state
            assert operation.token.retries == operation.retries
        assert {name: self.strategy.available(name) for name in "ab"} == self.buckets
        assert self.asked == []

    def teardown(self) -> None:
        for operation in self.waiting:
            if operation.waiting is not None:
                operation.waiting.close()


TestTokens = TokenMachine.TestCase
TestTokens.settings = settings(
    deadline=None, derandomize=True, max_examples=80, stateful_step_count=50
)


class BackoffMachine(RuleBasedStateMachine):
    """A token of the exponential strategy: client errors cost neither a retry nor time."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[float] = []
        strategy = ExponentialBackoffRetryStrategy(
            OPTIONS, random=Random(1), sleep=lambda delay: Sleep(self.asked, delay)
        )
        _, self.token = resume(strategy.acquire_retry_token("ignored"))
        self.expected = list(DELAYS)

    @rule(error_type=st.sampled_from(RetryErrorType))
    def retry(self, error_type: RetryErrorType) -> None:
        coroutine = self.token.schedule_retry(error_type)
        code = code_of(coroutine)
        if error_type is RetryErrorType.CLIENT_ERROR:
            expected = 0.0
        elif not self.expected:
            assert code is ErrorCode.IO_MAX_RETRIES_EXCEEDED
            return
        else:
            expected = self.expected.pop(0)
        assert code is None
        assert self.asked.pop() == expected
        assert resume(coroutine) == (True, None)

    @invariant()
    def retries_are_counted(self) -> None:
        assert self.token.retries == len(DELAYS) - len(self.expected)
        assert self.token.state is RetryTokenState.READY


TestBackoff = BackoffMachine.TestCase
TestBackoff.settings = settings(
    deadline=None, derandomize=True, max_examples=30, stateful_step_count=20
)
