"""How long a new interpreter takes to import a loop's package and to make a loop.

Not by `_child`, which would have imported half of it before.
"""

from pathlib import Path

from ._processes import running

RUNS = 5
PROGRAM = """
import sys
from importlib import import_module
from time import perf_counter
sys.path.insert(0, sys.argv[1])
module, _, factory = sys.argv[2].partition(":")
started = perf_counter()
loop = getattr(import_module(module), factory)()
print(perf_counter() - started)
loop.close()
"""


def start_ms(python: str, spec: str, cpu: int | None) -> float:
    """Milliseconds; the best of some interpreters. Raises ProcessError if one of them fails."""
    root = f"{Path(__file__).parent.parent.parent}"
    command = [python, "-c", PROGRAM, root, spec]
    times = []
    for _ in range(RUNS):
        with running("the new interpreter", command, cpu) as process:
            times.append(float(process.line()))
    return min(times) * 1000
