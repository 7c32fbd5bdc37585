"""How often hypothesis tries: seeded and bounded, and more often for the fault rig and for nox."""

import os
from typing import TypeVar
from unittest import TestCase

import hypothesis
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import RuleBasedStateMachine

from tests.faults._report import SEED, few

Test = TypeVar("Test")


def bounded(examples: int, steps: int = 50) -> settings:
    """Settings for `few(examples)` examples, of at most so many steps where they are of steps.

    The examples are always the same ones, unless the environment names a seed (see `_report`).
    """
    return settings(
        max_examples=few(examples),
        stateful_step_count=steps,
        deadline=None,
        database=None,
        derandomize=SEED not in os.environ,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.explicit, Phase.generate, Phase.shrink],
    )


def seeded(test: Test) -> Test:
    """Have a test, or a machine, begin at the seed that the environment names, if it does."""
    if SEED in os.environ:
        hypothesis.seed(int(os.environ[SEED]))(test)  # type: ignore[type-var]  # also machines
    return test


def checked(machine: type[RuleBasedStateMachine], examples: int, steps: int = 50) -> type[TestCase]:
    """The test of a machine."""
    case = seeded(machine).TestCase
    case.settings = bounded(examples, steps)
    return case
