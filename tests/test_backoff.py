"""Delays and budgets by themselves: no clock, no sleep, and random numbers from a given source."""

from itertools import pairwise
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, multiple, rule

from aws_io_async._backoff import Backoff, BackoffOptions, JitterMode, RetryBudget
from aws_io_async.errors import AwsIoError, ErrorCode, RetryErrorType

reproducible = settings(derandomize=True, database=None, deadline=None)

SECONDS = st.floats(0, 1000)
OPTIONS = st.builds(
    BackoffOptions,
    max_retries=st.integers(0, 63),
    scale_factor=SECONDS,
    max_backoff=SECONDS,
    jitter_mode=st.sampled_from(JitterMode),
)

RETRYABLE = [error_type for error_type in RetryErrorType if error_type.name != "CLIENT_ERROR"]


def delays(options: BackoffOptions, seed: int = 1) -> list[float]:
    """All that there are."""
    backoff = Backoff(options, Random(seed))
    return [backoff.next_delay() for _ in range(options.max_retries)]


class TestOptions:
    def test_defaults(self) -> None:
        options = BackoffOptions()
        assert options.max_retries == 5
        assert options.scale_factor == 0.5
        assert options.max_backoff == 20.0
        assert options.jitter_mode is JitterMode.FULL
        assert JitterMode["DEFAULT"] is JitterMode.FULL

    @pytest.mark.parametrize(
        ("options", "named"),
        [
            ({"max_retries": -1}, "max_retries"),
            ({"max_retries": 64}, "max_retries"),
            ({"scale_factor": -0.1}, "scale_factor"),
            ({"scale_factor": float("nan")}, "scale_factor"),
            ({"max_backoff": -1}, "max_backoff"),
            ({"max_backoff": float("inf")}, "max_backoff"),
            ({"jitter_mode": "full"}, "jitter_mode"),
        ],
    )
    def test_what_makes_no_sense_is_refused_by_name(
        self, options: dict[str, Any], named: str
    ) -> None:
        with pytest.raises(ValueError, match=named):
            BackoffOptions(**options)

    def test_a_capacity_below_one_is_refused(self) -> None:
        with pytest.raises(ValueError, match="capacity"):
            RetryBudget(0)

    def test_what_is_counted_is_a_whole_number(self) -> None:
        half: Any = 2.5
        with pytest.raises(TypeError, match="cannot be interpreted as an integer"):
            BackoffOptions(max_retries=half)
        with pytest.raises(TypeError, match="cannot be interpreted as an integer"):
            RetryBudget(half)


class TestBackoff:
    def test_without_jitter_the_delay_doubles_up_to_the_limit(self) -> None:
        options = BackoffOptions(max_retries=8, jitter_mode=JitterMode.NONE)
        assert delays(options) == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 20.0, 20.0]

    def test_the_last_retry_of_the_longest_series_is_within_the_limit(self) -> None:
        options = BackoffOptions(max_retries=63, scale_factor=1e300, jitter_mode=JitterMode.NONE)
        assert delays(options) == [20.0] * 63

    def test_a_scale_factor_of_zero_is_no_delay(self) -> None:
        for mode in JitterMode:
            assert delays(BackoffOptions(scale_factor=0, jitter_mode=mode)) == [0.0] * 5

    def test_full_jitter_uses_the_whole_range(self) -> None:
        options = BackoffOptions(max_retries=2, scale_factor=1, jitter_mode=JitterMode.FULL)
        first, second = zip(*(delays(options, seed) for seed in range(1000)), strict=True)
        assert min(first) < 0.05
        assert 0.95 < max(first) <= 1
        assert min(second) < 0.1
        assert 1.9 < max(second) <= 2

    def test_decorrelated_jitter_follows_the_last_delay(self) -> None:
        options = BackoffOptions(
            max_retries=20, scale_factor=1, max_backoff=50, jitter_mode=JitterMode.DECORRELATED
        )
        for seed in range(200):
            found = delays(options, seed)
            assert 0 <= found[0] <= 1
            for last, this in pairwise(found):
                low, high = sorted([1, min(50, 3 * last)])
                assert low <= this <= high

    def test_the_limit_holds_below_the_scale_factor(self) -> None:
        options = BackoffOptions(
            max_retries=10, scale_factor=9, max_backoff=1, jitter_mode=JitterMode.DECORRELATED
        )
        found = delays(options)
        assert max(found) <= 1
        assert found[0] < 1  # the first is spread, too

    def test_no_more_retries_than_were_asked_for(self) -> None:
        backoff = Backoff(BackoffOptions(max_retries=2), Random(1))
        backoff.next_delay()
        backoff.next_delay()
        for _ in range(2):
            with pytest.raises(AwsIoError, match="max_retries") as info:
                backoff.next_delay()
            assert info.value.code is ErrorCode.IO_MAX_RETRIES_EXCEEDED
        assert backoff.retries == 2

    @reproducible
    @given(options=OPTIONS, seed=st.integers())
    def test_any_delay_is_within_its_bounds(self, options: BackoffOptions, seed: int) -> None:
        found = delays(options, seed)
        assert found == delays(options, seed)
        for retry, delay in enumerate(found):
            assert 0 <= delay <= options.max_backoff
            exponential = min(options.max_backoff, options.scale_factor * 2**retry)
            if options.jitter_mode is JitterMode.NONE:
                assert delay == exponential
            elif options.jitter_mode is JitterMode.FULL:
                assert delay <= exponential

    def test_delays_of_one_random_source_differ(self) -> None:
        random = Random(1)
        first, second = (Backoff(BackoffOptions(), random).next_delay() for _ in range(2))
        assert first != second


class TestRetryBudget:
    def test_transient_errors_cost_ten_and_others_five(self) -> None:
        budget = RetryBudget()
        assert budget.available("host") == budget.capacity == 500
        assert budget.take("host", RetryErrorType.TRANSIENT) == 10
        assert budget.take("host", RetryErrorType.THROTTLING) == 5
        assert budget.take("host", RetryErrorType.SERVER_ERROR) == 5
        assert budget.available("host") == 480

    def test_the_last_units_are_enough(self) -> None:
        budget = RetryBudget(12)
        assert budget.take("host", RetryErrorType.TRANSIENT) == 10
        assert budget.take("host", RetryErrorType.TRANSIENT) == 2
        assert budget.available("host") == 0

    def test_an_empty_bucket_refuses_and_says_whose_it_is(self) -> None:
        budget = RetryBudget(5)
        budget.take("host-1", RetryErrorType.SERVER_ERROR)
        with pytest.raises(AwsIoError, match="'host-1'") as info:
            budget.take("host-1", RetryErrorType.SERVER_ERROR)
        assert info.value.code is ErrorCode.IO_RETRY_PERMISSION_DENIED
        assert budget.take("host-2", RetryErrorType.SERVER_ERROR) == 5

    def test_errors_of_the_client_s_own_are_refused(self) -> None:
        budget = RetryBudget()
        with pytest.raises(AwsIoError, match="CLIENT_ERROR") as info:
            budget.take("host", RetryErrorType.CLIENT_ERROR)
        assert info.value.code is ErrorCode.IO_RETRY_PERMISSION_DENIED
        assert budget.available("host") == 500

    def test_a_full_bucket_holds_no_more(self) -> None:
        budget = RetryBudget(15)
        budget.pay_back("host", 7)
        assert budget.available("host") == 15
        budget.take("host", RetryErrorType.SERVER_ERROR)
        budget.pay_back("host", 100)
        assert budget.available("host") == 15

    def test_case_does_not_tell_partitions_apart(self) -> None:
        budget = RetryBudget()
        budget.take("Example.COM", RetryErrorType.SERVER_ERROR)
        assert budget.available("example.com") == 495
        budget.pay_back("EXAMPLE.com", 5)
        assert budget.available("Example.COM") == 500


class BudgetMachine(RuleBasedStateMachine):
    """Operations on a few partitions, against a model that counts units one by one."""

    leases: Bundle[tuple[str, int]] = Bundle("leases")

    def __init__(self) -> None:
        super().__init__()
        self.capacity = 23
        self.budget = RetryBudget(self.capacity)
        self.model: dict[str, list[str]] = {name: ["unit"] * self.capacity for name in "abc"}

    @rule(target=leases, name=st.sampled_from("abcABC"), error_type=st.sampled_from(RETRYABLE))
    def retry(self, name: str, error_type: RetryErrorType) -> Any:
        units = self.model[name.lower()]
        if not units:
            with pytest.raises(AwsIoError) as info:
                self.budget.take(name, error_type)
            assert info.value.code is ErrorCode.IO_RETRY_PERMISSION_DENIED
            return multiple()
        wanted = 10 if error_type is RetryErrorType.TRANSIENT else 5
        taken = [units.pop() for _ in range(wanted) if units]
        assert self.budget.take(name, error_type) == len(taken)
        return name, len(taken)

    @rule(lease=leases)
    def succeed_with_a_retry(self, lease: tuple[str, int]) -> None:
        self._pay_back(*lease)

    @rule(name=st.sampled_from("abcABC"))
    def succeed_at_first_go(self, name: str) -> None:
        self._pay_back(name, 1)

    def _pay_back(self, name: str, count: int) -> None:
        self.budget.pay_back(name, count)
        for _ in range(count):
            if len(self.model[name.lower()]) < self.capacity:
                self.model[name.lower()].append("unit")

    @rule(name=st.sampled_from("abc"))
    def client_error(self, name: str) -> None:
        with pytest.raises(AwsIoError):
            self.budget.take(name, RetryErrorType.CLIENT_ERROR)

    @invariant()
    def each_bucket_holds_what_the_model_holds(self) -> None:
        for name, units in self.model.items():
            assert self.budget.available(name) == len(units)
            assert 0 <= self.budget.available(name) <= self.capacity


TestBudgetMachine = BudgetMachine.TestCase
TestBudgetMachine.settings = settings(reproducible, max_examples=50, stateful_step_count=30)
