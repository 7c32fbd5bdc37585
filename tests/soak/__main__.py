"""python -m tests.soak [MINUTES]: everything at once for so long, 3 minutes by default.

Prints a table; status 1 if a promise was broken. Linux only, as it looks into /proc.
"""

import argparse
import json
import random
import sys
import warnings
from pathlib import Path

import aws_io_async
from tests.soak.run import soak

SECONDS_A_ROUND = 4.0
MOST_MINUTES = 120.0


def minutes(text: str) -> float:
    number = float(text)
    if not 0 < number <= MOST_MINUTES:
        raise ValueError
    return number


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("minutes", nargs="?", type=minutes, default=3.0)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    warnings.simplefilter("error", ResourceWarning)
    unraisable: list[str] = []
    sys.unraisablehook = lambda what: unraisable.append(f"{what.exc_value!r} in {what.object!r}")
    seconds = 60 * options.minutes
    rounds = max(2, round(seconds / SECONDS_A_ROUND))
    report = aws_io_async.run(soak(seconds, options.seed, rounds))
    report.complaints.extend(unraisable)
    if options.json is not None:
        options.json.write_text(json.dumps(report.as_json(), indent=2))
    sys.stdout.write(f"{report.table()}\n")
    for broken in report.broken():
        sys.stdout.write(f"broken: {broken}\n")
    return 1 if report.broken() else 0


if __name__ == "__main__":
    sys.exit(main())
