"""The corpus: files that are kept, some as seeds, some because they once broke something.

Each folder of `corpus/` is for one kind of input. What hypothesis finds is minimised by it, and is
put there in a file whose name says what it is; all are replayed in each run of the tests.
"""

import gc
import json
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

CORPUS = Path(__file__).parent / "corpus"

MOST = 20_000
"""Bytes by which memory may go up and down over a round: interpreters keep some of all."""


def files(kind: str) -> dict[str, bytes]:
    """The inputs of a kind, by file name; at least one."""
    found = {path.name: path.read_bytes() for path in sorted((CORPUS / kind).iterdir())}
    assert found, f"there is no corpus for {kind}"
    return found


def documents(kind: str) -> dict[str, Any]:
    """Those that are JSON. They may have lone surrogates, escaped, which arguments may have."""
    return {name: json.loads(data) for name, data in files(kind).items()}


def growth(one_round: Callable[[], object], rounds: int = 4) -> int:
    """By how many bytes memory grows with each round, once a few have filled all caches."""
    return min(_growths(one_round, rounds))


def _growths(one_round: Callable[[], object], rounds: int) -> Iterator[int]:
    for _ in range(2):
        one_round()
    tracemalloc.start(1)
    try:
        for _ in range(rounds):
            gc.collect()
            before, _ = tracemalloc.get_traced_memory()
            one_round()
            gc.collect()
            yield tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
