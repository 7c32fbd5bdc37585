"""Retry strategies: what they wait for, what they refuse, and what a failing service costs.

How long they wait is seen by a `sleep` that notes the seconds and lets the loop turn once.
"""

import asyncio
import functools
import gc
import threading
import weakref
from random import Random
from typing import Any

import pytest

from aws_io_async.errors import AwsIoError, CommonErrorCode, ErrorCode, RetryErrorType, make
from aws_io_async.retry_strategy import (
    BackoffOptions,
    ExponentialBackoffRetryStrategy,
    JitterMode,
    NoRetryStrategy,
    RetryStrategy,
    RetryToken,
    RetryTokenState,
    StandardRetryStrategy,
)

TRANSIENT = RetryErrorType.TRANSIENT
THROTTLING = RetryErrorType.THROTTLING
SERVER_ERROR = RetryErrorType.SERVER_ERROR
CLIENT_ERROR = RetryErrorType.CLIENT_ERROR


class Sleeps(list[float]):
    """Stands in for `asyncio.sleep`."""

    async def __call__(self, seconds: float) -> None:
        self.append(seconds)
        await asyncio.sleep(0)


@pytest.fixture
def sleeps() -> Sleeps:
    return Sleeps()


def exponential(sleeps: Sleeps, mode: JitterMode = JitterMode.DEFAULT) -> RetryStrategy:
    options = BackoffOptions(max_retries=3, jitter_mode=mode)
    return ExponentialBackoffRetryStrategy(options, random=Random(1), sleep=sleeps)


@pytest.fixture
def standard(sleeps: Sleeps) -> StandardRetryStrategy:
    """As in aws-c-io's tests: a bucket holds 15 units."""
    return StandardRetryStrategy(bucket_capacity=15, random=Random(1), sleep=sleeps)


@pytest.fixture(params=["exponential", "standard"])
def strategy(request: pytest.FixtureRequest, sleeps: Sleeps) -> RetryStrategy:
    if request.param == "exponential":
        return exponential(sleeps)
    return StandardRetryStrategy(random=Random(1), sleep=sleeps)


async def refused(token: RetryToken, error_type: RetryErrorType) -> ErrorCode:
    with pytest.raises(AwsIoError) as info:
        await token.schedule_retry(error_type)
    assert isinstance(info.value.code, ErrorCode)
    return info.value.code


async def retries_until_refused(strategy: RetryStrategy, client_errors: int = 0) -> int:
    """How often an operation that fails for good is tried again."""
    token = await strategy.acquire_retry_token()
    kinds = [SERVER_ERROR] + [CLIENT_ERROR] * client_errors + [SERVER_ERROR] * 100
    retries = 0
    with pytest.raises(AwsIoError) as info:
        for error_type in kinds:
            await token.schedule_retry(error_type)
            retries += 1
    assert info.value.code is ErrorCode.IO_MAX_RETRIES_EXCEEDED
    return retries


class Flaky:
    """An operation that raises `errors`, one each time, and then succeeds."""

    def __init__(self, *errors: BaseException) -> None:
        self.errors = list(errors)
        self.calls = 0

    async def __call__(self, result: str = "done") -> str:
        self.calls += 1
        await asyncio.sleep(0)
        if self.errors:
            raise self.errors.pop(0)
        return result


class TestNoRetry:
    async def test_no_retries(self) -> None:
        with pytest.raises(AwsIoError) as info:
            await NoRetryStrategy().acquire_retry_token()
        assert info.value.code is ErrorCode.IO_RETRY_PERMISSION_DENIED

    async def test_an_operation_runs_once(self) -> None:
        error = ConnectionResetError("once")
        flaky = Flaky(error)

        @NoRetryStrategy().retrying()
        async def operation() -> str:
            return await flaky()

        with pytest.raises(ConnectionResetError) as info:
            await operation()
        assert info.value is error
        assert await operation() == "done"
        assert flaky.calls == 2


class TestExponentialBackoff:
    async def test_exponential_backoff_retry_too_many_retries_no_jitter(
        self, sleeps: Sleeps
    ) -> None:
        assert await retries_until_refused(exponential(sleeps, JitterMode.NONE)) == 3

    async def test_exponential_backoff_retry_too_many_retries_full_jitter(
        self, sleeps: Sleeps
    ) -> None:
        assert await retries_until_refused(exponential(sleeps, JitterMode.FULL)) == 3

    async def test_exponential_backoff_retry_too_many_retries_decorrelated_jitter(
        self, sleeps: Sleeps
    ) -> None:
        assert await retries_until_refused(exponential(sleeps, JitterMode.DECORRELATED)) == 3

    async def test_exponential_backoff_retry_too_many_retries_default_jitter(
        self, sleeps: Sleeps
    ) -> None:
        assert await retries_until_refused(exponential(sleeps, JitterMode.DEFAULT)) == 3

    async def test_exponential_backoff_retry_client_errors_do_not_count(
        self, sleeps: Sleeps
    ) -> None:
        assert await retries_until_refused(exponential(sleeps), client_errors=2) == 3 + 2
        assert sleeps[1:3] == [0, 0]

    async def test_exponential_backoff_retry_no_jitter_time_taken(self) -> None:
        options = BackoffOptions(max_retries=3, scale_factor=0.002, jitter_mode=JitterMode.NONE)
        loop = asyncio.get_running_loop()
        started = loop.time()
        assert await retries_until_refused(ExponentialBackoffRetryStrategy(options)) == 3
        # A loop may count a timer as due that is within a tick of its clock: 1 ms with libuv.
        assert loop.time() - started >= (1 + 2 + 4) * 0.002 - 3 * 0.001

    async def test_exponential_max_backoff_retry_no_jitter(self, sleeps: Sleeps) -> None:
        options = BackoffOptions(
            max_retries=3, scale_factor=1, max_backoff=3, jitter_mode=JitterMode.NONE
        )
        strategy = ExponentialBackoffRetryStrategy(options, sleep=sleeps)
        assert await retries_until_refused(strategy) == 3
        assert sleeps == [1, 2, 3]

    def test_exponential_backoff_retry_invalid_options(self) -> None:
        with pytest.raises(ValueError, match="max_retries must be 0 to 63, not 64") as info:
            ExponentialBackoffRetryStrategy(BackoffOptions(max_retries=64))
        assert isinstance(info.value, AwsIoError)
        assert info.value.code is CommonErrorCode.ERROR_INVALID_ARGUMENT

    async def test_the_default_is_five_retries_within_the_exponential_delays(
        self, sleeps: Sleeps
    ) -> None:
        assert await retries_until_refused(ExponentialBackoffRetryStrategy(sleep=sleeps)) == 5
        for delay, exponential_delay in zip(sleeps, [0.5, 1, 2, 4, 8], strict=True):
            assert 0 <= delay <= exponential_delay

    async def test_the_same_seed_gives_the_same_delays(self) -> None:
        runs = [Sleeps(), Sleeps()]
        for sleeps in runs:
            await retries_until_refused(exponential(sleeps))
        assert runs[0] == runs[1]

    async def test_tokens_count_apart(self, sleeps: Sleeps) -> None:
        strategy = exponential(sleeps)
        assert await retries_until_refused(strategy) == 3
        assert await retries_until_refused(strategy) == 3


class TestStandard:
    async def test_standard_retry_strategy_setup_shutdown(
        self, standard: StandardRetryStrategy, sleeps: Sleeps
    ) -> None:
        standard = StandardRetryStrategy(bucket_capacity=15, sleep=sleeps)
        token = await standard.acquire_retry_token("partition")
        gone = weakref.ref(standard)
        del standard
        await token.schedule_retry(SERVER_ERROR)
        token.record_success()
        del token
        gc.collect()
        assert gone() is None

    async def test_standard_retry_strategy_failure_exhausts_bucket(
        self, standard: StandardRetryStrategy
    ) -> None:
        partition = "us-east-1:super-badly-named-aws-service"
        one = await standard.acquire_retry_token(partition)
        other = await standard.acquire_retry_token(partition.upper())
        await one.schedule_retry(TRANSIENT)
        await other.schedule_retry(SERVER_ERROR)
        assert await refused(one, SERVER_ERROR) is ErrorCode.IO_RETRY_PERMISSION_DENIED
        assert await refused(other, SERVER_ERROR) is ErrorCode.IO_RETRY_PERMISSION_DENIED
        separate = await standard.acquire_retry_token()
        await separate.schedule_retry(SERVER_ERROR)
        assert standard.available() == 10

    async def test_standard_retry_strategy_failure_recovers(
        self, standard: StandardRetryStrategy
    ) -> None:
        partition = "us-west-2:elastic-something-something-manager-manager"
        token = await standard.acquire_retry_token(partition)
        await token.schedule_retry(TRANSIENT)
        await token.schedule_retry(SERVER_ERROR)
        assert await refused(token, SERVER_ERROR) is ErrorCode.IO_RETRY_PERMISSION_DENIED
        for _ in range(5):
            (await standard.acquire_retry_token(partition)).record_success()
        token = await standard.acquire_retry_token(partition)
        await token.schedule_retry(SERVER_ERROR)
        assert await refused(token, SERVER_ERROR) is ErrorCode.IO_RETRY_PERMISSION_DENIED

    async def test_the_defaults(self, sleeps: Sleeps) -> None:
        strategy = StandardRetryStrategy(sleep=sleeps)
        assert strategy.available("any") == 500
        assert await retries_until_refused(strategy) == 3

    async def test_success_pays_back_what_the_last_retry_took(
        self, standard: StandardRetryStrategy
    ) -> None:
        token = await standard.acquire_retry_token()
        await token.schedule_retry(THROTTLING)
        await token.schedule_retry(TRANSIENT)
        assert standard.available() == 0
        token.record_success()
        assert standard.available() == 10

    async def test_a_success_at_first_go_pays_one(self, standard: StandardRetryStrategy) -> None:
        await (await standard.acquire_retry_token()).schedule_retry(TRANSIENT)
        (await standard.acquire_retry_token()).record_success()
        assert standard.available() == 15 - 10 + 1

    async def test_an_operation_that_fails_pays_nothing(
        self, standard: StandardRetryStrategy
    ) -> None:
        token = await standard.acquire_retry_token()
        await token.schedule_retry(TRANSIENT)
        del token
        assert standard.available() == 5

    async def test_client_errors_are_refused_and_cost_nothing(
        self, standard: StandardRetryStrategy, sleeps: Sleeps
    ) -> None:
        token = await standard.acquire_retry_token()
        assert await refused(token, CLIENT_ERROR) is ErrorCode.IO_RETRY_PERMISSION_DENIED
        assert standard.available() == 15
        assert sleeps == []

    async def test_a_retry_too_many_costs_nothing(self, sleeps: Sleeps) -> None:
        strategy = StandardRetryStrategy(BackoffOptions(max_retries=1), sleep=sleeps)
        token = await strategy.acquire_retry_token()
        await token.schedule_retry(SERVER_ERROR)
        assert await refused(token, TRANSIENT) is ErrorCode.IO_MAX_RETRIES_EXCEEDED
        assert strategy.available() == 495
        token.record_success()
        assert strategy.available() == 500

    async def test_a_cancelled_wait_pays_back_at_once(self) -> None:
        strategy = StandardRetryStrategy(
            BackoffOptions(max_retries=3, scale_factor=1000, max_backoff=1000), random=Random(1)
        )
        token = await strategy.acquire_retry_token()
        waiting = asyncio.create_task(token.schedule_retry(TRANSIENT))
        await asyncio.sleep(0)
        assert strategy.available() == 490
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert strategy.available() == 500
        assert token.state is RetryTokenState.READY

    def test_the_budget_is_shared_by_threads_and_loops(self, sleeps: Sleeps) -> None:
        strategy = StandardRetryStrategy(
            BackoffOptions(max_retries=63), bucket_capacity=100_000, sleep=sleeps
        )

        async def operations() -> None:
            for _ in range(20):
                token = await strategy.acquire_retry_token("p")
                for _ in range(10):
                    await token.schedule_retry(SERVER_ERROR)
                token.record_success()

        threads = [threading.Thread(target=asyncio.run, args=(operations(),)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert strategy.available("p") == 100_000 - 8 * 20 * (10 * 5 - 5)


class TestToken:
    async def test_a_second_retry_while_one_is_waited_for_is_misuse(
        self, strategy: RetryStrategy
    ) -> None:
        token = await strategy.acquire_retry_token()
        waiting = asyncio.create_task(token.schedule_retry(SERVER_ERROR))
        await asyncio.sleep(0)
        assert token.state is RetryTokenState.WAITING
        with pytest.raises(RuntimeError, match="await it before") as info:
            await token.schedule_retry(SERVER_ERROR)
        assert isinstance(info.value, AwsIoError)
        assert info.value.code is CommonErrorCode.ERROR_INVALID_STATE
        with pytest.raises(RuntimeError, match="await it before"):
            token.record_success()
        await waiting
        assert token.retries == 1
        token.record_success()

    async def test_a_token_is_for_one_operation(self, strategy: RetryStrategy) -> None:
        token = await strategy.acquire_retry_token()
        token.record_success()
        with pytest.raises(RuntimeError, match="acquire one for each"):
            token.record_success()
        with pytest.raises(RuntimeError, match="acquire one for each"):
            await token.schedule_retry(SERVER_ERROR)

    async def test_a_refusal_leaves_the_token_usable(self, strategy: RetryStrategy) -> None:
        token = await strategy.acquire_retry_token()
        for _ in range(3):
            await token.schedule_retry(SERVER_ERROR)
        assert await refused(token, SERVER_ERROR) is ErrorCode.IO_MAX_RETRIES_EXCEEDED
        assert token.state is RetryTokenState.READY
        token.record_success()

    async def test_a_cancelled_wait_leaves_no_timer_and_a_usable_token(self) -> None:
        options = BackoffOptions(scale_factor=1000, max_backoff=1000, jitter_mode=JitterMode.NONE)
        token = await ExponentialBackoffRetryStrategy(options).acquire_retry_token()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.001):
                await token.schedule_retry(SERVER_ERROR)
        assert token.state is RetryTokenState.READY
        token.record_success()

    async def test_it_says_how_it_stands(self, strategy: RetryStrategy) -> None:
        token = await strategy.acquire_retry_token()
        await token.schedule_retry(SERVER_ERROR)
        assert "READY retries=1" in repr(token)


class TestAttempt:
    async def test_a_loop_of_one_s_own(self, standard: StandardRetryStrategy) -> None:
        flaky = Flaky(ConnectionRefusedError("no"), TimeoutError("late"))

        async def operation() -> str:
            async with standard.attempt("host") as attempt:
                while True:
                    try:
                        return await flaky("here it is")
                    except OSError as error:
                        await attempt.retry(error)

        assert await operation() == "here it is"
        assert flaky.calls == 3
        # 10 and the last 5 units were taken; the 5 are back.
        assert standard.available("host") == 5

    async def test_an_exception_that_leaves_the_block_is_no_success(
        self, standard: StandardRetryStrategy
    ) -> None:
        await (await standard.acquire_retry_token()).schedule_retry(TRANSIENT)
        with pytest.raises(ZeroDivisionError):
            async with standard.attempt():
                raise ZeroDivisionError
        assert standard.available() == 5

    async def test_the_operation_s_own_error_is_raised_in_the_end(
        self, strategy: RetryStrategy
    ) -> None:
        cause = OSError("the cause")
        errors = [ConnectionResetError(f"number {n}") for n in range(4)]
        errors[-1].__cause__ = cause
        flaky = Flaky(*errors)
        operation = strategy.retrying("host")(flaky.__call__)
        with pytest.raises(ConnectionResetError, match="number 3") as info:
            await operation()
        assert info.value is errors[-1]
        assert info.value.__cause__ is cause
        assert "AWS_IO_MAX_RETRIES_EXCEEDED" in info.value.__notes__[0]
        assert flaky.calls == 4

    async def test_the_client_s_own_errors_are_not_retried(
        self, strategy: RetryStrategy, sleeps: Sleeps
    ) -> None:
        flaky = Flaky(KeyError("a mistake"))
        with pytest.raises(KeyError):
            await strategy.retrying()(flaky.__call__)()
        assert flaky.calls == 1
        assert sleeps == []

    async def test_one_s_own_classification(
        self, standard: StandardRetryStrategy, sleeps: Sleeps
    ) -> None:
        flaky = Flaky(KeyError("not there yet"))

        def classify(error: BaseException) -> RetryErrorType:
            return THROTTLING if isinstance(error, KeyError) else CLIENT_ERROR

        operation = standard.retrying("host", classify=classify)(flaky.__call__)
        assert await operation("now") == "now"
        assert len(sleeps) == 1

    async def test_errors_of_the_library_are_classified_by_their_code(
        self, standard: StandardRetryStrategy
    ) -> None:
        flaky = Flaky(make(ErrorCode.IO_SOCKET_TIMEOUT, "192.0.2.1 port 443"))
        available = []

        @standard.retrying("host")
        async def operation() -> str:
            available.append(standard.available("host"))
            return await flaky()

        await operation()
        assert available == [15, 5]
        assert standard.available("host") == 15

    async def test_cancellation_is_not_retried(self, strategy: RetryStrategy) -> None:
        calls = []
        called = asyncio.Event()

        @strategy.retrying(classify=lambda error: TRANSIENT)
        async def operation() -> None:
            calls.append("called")
            called.set()
            await asyncio.get_running_loop().create_future()

        task = asyncio.create_task(operation())
        await called.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert calls == ["called"]

    async def test_a_decorated_function_is_still_itself(self, strategy: RetryStrategy) -> None:
        @strategy.retrying()
        async def fetch(path: str, *, times: int = 1) -> str:
            """Fetch it."""
            return path * times

        assert fetch.__name__ == "fetch"
        assert fetch.__doc__ == "Fetch it."
        assert await fetch("/", times=2) == "//"
        assert await strategy.retrying()(functools.partial(fetch, "x"))() == "x"

    def test_what_is_no_coroutine_function_is_refused(self, strategy: RetryStrategy) -> None:
        def plain() -> None: ...

        with pytest.raises(TypeError, match="coroutine functions"):
            strategy.retrying()(plain)  # type: ignore[arg-type]  # what is tested

    @pytest.mark.parametrize("kind", [ExponentialBackoffRetryStrategy, StandardRetryStrategy])
    def test_a_number_is_no_options(self, kind: type[RetryStrategy]) -> None:
        with pytest.raises(TypeError, match="options must be BackoffOptions, not 3"):
            kind(3)  # type: ignore[call-arg]  # what is tested

    def test_the_parentheses_must_be_there(self, strategy: RetryStrategy) -> None:
        with pytest.raises(TypeError, match=r"@strategy.retrying\(\), with parentheses"):

            @strategy.retrying  # type: ignore[arg-type]  # what is tested
            async def operation() -> None: ...

    async def test_what_is_no_kind_of_error_is_refused_and_counts_for_nothing(
        self, strategy: RetryStrategy
    ) -> None:
        wrong: Any = "TRANSIENT"
        token = await strategy.acquire_retry_token()
        with pytest.raises(TypeError, match="error_type must be a RetryErrorType, not 'TRANSIENT'"):
            await token.schedule_retry(wrong)
        assert token.state is RetryTokenState.READY
        assert token.retries == 0

    async def test_what_is_no_partition_is_refused_at_once(self) -> None:
        wrong: Any = 5
        with pytest.raises(TypeError, match="partition must be a str, not 5"):
            await StandardRetryStrategy().acquire_retry_token(wrong)

    async def test_operations_side_by_side_do_not_disturb_one_another(self, sleeps: Sleeps) -> None:
        strategy = exponential(sleeps)
        flaky = [Flaky(*[ConnectionResetError()] * n) for n in range(4)]
        results = await asyncio.gather(
            *(strategy.retrying()(each.__call__)(str(n)) for n, each in enumerate(flaky))
        )
        assert results == ["0", "1", "2", "3"]
        assert [each.calls for each in flaky] == [1, 2, 3, 4]
