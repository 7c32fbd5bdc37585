"""What is injected, what is promised under it, and what was seen: rows of docs/reliability.md.

A test module anywhere below tests/ declares its faults, and counts each that it injects:

    from tests.faults._report import Fault, seeds, trial

    CUT = Fault("Network", "the connection is cut at a random byte", "a prefix, then the end")

    async def test_cuts() -> None:
        for seed in seeds(20):
            with trial(seed):
                ...  # inject; assert what was promised
                CUT.seen("prefix, then the end")

A run of pytest counts nothing and takes the few seeds; `python -m tests.faults` runs the same tests
with many, on our loop, and makes the table of what they have counted. Child processes count too, as
they inherit the environment.
"""

import json
import os
import random
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

GROUPS = (
    "Network",
    "Names",
    "Limits",
    "Signals and processes",
    "Cancellation",
    "Load",
    "Threads and forks",
    "Input",
    "Soak",
)
"""Of faults, in the order of the page."""

COUNTS, ROUNDS, SEED = "AWS_IO_FAULTS_COUNTS", "AWS_IO_FAULTS_ROUNDS", "AWS_IO_FAULTS_SEED"
"""Environment variables: the file to count in, how much more than few, the first seed."""

FAULTS: dict[str, "Fault"] = {}
"""All that have been declared by the modules that were imported, by name."""


@dataclass(frozen=True)
class Fault:
    """One row: what is done to the library, and what it promises then. `name` is told once."""

    group: str
    name: str
    promised: str

    def __post_init__(self) -> None:
        assert self.group in GROUPS, f"{self.group} is none of {GROUPS}"
        assert FAULTS.setdefault(self.name, self) == self, f"told twice: {self.name}"

    def seen(self, outcome: str, times: int = 1) -> None:
        """Count what came of an injection: a few words, the same for what is the same.

        Thread: any; and any process.
        """
        if path := os.environ.get(COUNTS):
            line = json.dumps([self.name, outcome, times]) + "\n"
            with open(path, "ab", buffering=0) as file:  # one write: lines never mix
                file.write(line.encode())


def few(number: int) -> int:
    """So many rounds in a run of pytest, and a multiple of it in one of the rig."""
    return number * int(os.environ.get(ROUNDS, "1"))


def seeds(number: int) -> Iterator[int]:
    """A seed for each of `few(number)` rounds: always the same, unless the rig says others."""
    first = int(os.environ.get(SEED, "0"))
    yield from range(first, first + few(number))


@contextmanager
def trial(seed: int) -> Iterator[random.Random]:
    """Randomness by a seed, which whatever fails inside is told with."""
    try:
        yield random.Random(seed)
    except BaseException as e:
        e.add_note(f"seed {seed}: again with {SEED}={seed} {ROUNDS}=1")
        raise


def read_counts(path: Path) -> dict[str, Counter[str]]:
    """What `seen` has written to a file: how often each outcome of each fault."""
    counts: dict[str, Counter[str]] = {}
    for line in path.read_text().splitlines():
        name, outcome, times = json.loads(line)
        counts.setdefault(name, Counter())[outcome] += times
    return counts
