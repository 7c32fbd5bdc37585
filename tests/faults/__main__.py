"""python -m tests.faults: run the fault rig on our loop, and write its table into a page.

Arguments that are none of its own go to pytest: `-k NAME`, or files and folders to run instead of
all. Then only the rows of what was counted are written anew. Status 1: a promise was broken, or a
fault not injected.
"""

import argparse
import datetime
import os
import platform
import ssl
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from tests.faults import _page, _report


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--rounds", type=int, default=20, help="times the rounds of a test run")
    parser.add_argument("--seed", type=int, default=1000, help="the first one")
    parser.add_argument("--page", type=Path, help="the page to write the table into")
    options, others = parser.parse_known_args()
    if options.page is not None:
        _page.between_marks(options.page)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "counts"
        path.touch()
        status = run(path, options.rounds, options.seed, others)
        counts = _report.read_counts(path)
    if status:
        return status
    if options.page is None:
        show(counts)
        return 0
    missing = _page.update(options.page, counts, facts(options.seed), whole=not others)
    sys.stderr.write("".join(f"never injected: {name}\n" for name in missing))
    return 1 if missing else 0


def run(counts: Path, rounds: int, seed: int, arguments: list[str]) -> int:
    """Run the tests that declare faults; returns pytest's status."""
    paths = [path for path in _page.users() if path.name.startswith("test_")]
    if any((_page.ROOT / argument.partition("::")[0]).exists() for argument in arguments):
        paths = []
    environment = {
        _report.COUNTS: str(counts),
        _report.ROUNDS: str(rounds),
        _report.SEED: str(seed),
    }
    options = ["-q", "--loops=aws_io_async", "--timeout=200", "-p", "no:cacheprovider"]
    return subprocess.run(
        [sys.executable, "-m", "pytest", *options, *arguments, *map(str, paths)],
        env=os.environ | environment,
        cwd=_page.ROOT,
        check=False,
    ).returncode


def show(counts: Mapping[str, Counter[str]]) -> None:
    """Print what has been counted."""
    for name, outcomes in counts.items():
        sys.stdout.write(f"{name}: {outcomes.total()}\n")
        for outcome, times in outcomes.most_common():
            sys.stdout.write(f"    {outcome}: {times}\n")


def facts(seed: int) -> str:
    """Where and when it was: a line."""
    return (
        f"{datetime.date.today()}, {platform.system()} {platform.machine()}, "
        f"CPython {platform.python_version()}, {ssl.OPENSSL_VERSION.rsplit(' ', 3)[0]}, "
        f"{os.cpu_count()} CPUs; seeds from {seed} on."
    )


if __name__ == "__main__":
    sys.exit(main())
