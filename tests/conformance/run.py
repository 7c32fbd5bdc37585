"""CPython's own asyncio tests, on our event loop: `python -m tests.conformance.run`.

Exits 1 if a test fails that passes on asyncio (here and now: on this machine and interpreter) and
is not among the exceptions in README.md, if a test hangs, and if an exception has begun to pass.
"""

import argparse
import os
import platform
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

from tests.conformance import suite
from tests.conformance.runner import Result, Results, run
from tests.conformance.verdict import README, Verdict, missing, read_exceptions

OURS = "aws_io_async:new_event_loop"
ASYNCIO = "asyncio:new_event_loop"


def _say(text: str = "") -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.conformance.run",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--loop", default=OURS, metavar="MODULE:FACTORY")
    parser.add_argument("-j", "--jobs", type=int, default=2, help="processes at a time")
    parser.add_argument("-m", "--module", action="append", help="only this module (repeatable)")
    parser.add_argument("-k", metavar="TEXT", default="", help="only tests with TEXT in the name")
    parser.add_argument("--timeout", type=float, default=60, help="seconds that a test may take")
    arguments = parser.parse_args()
    if not (3, 11) <= sys.version_info < (3, 16):
        parser.error("the suite knows the tests of CPython 3.11 to 3.15")
    try:
        available = suite.modules()
    except ModuleNotFoundError:
        parser.error("this Python was installed without its tests (test.test_asyncio)")
    if unknown := set(arguments.module or ()) - set(available):
        parser.error(f"no such module: {', '.join(unknown)}; there are {' '.join(available)}")
    arguments.modules = arguments.module or available
    return arguments


def _run_all(arguments: argparse.Namespace, pool: ThreadPoolExecutor) -> Results:
    def run_module(module: str) -> Results:
        started = time.monotonic()
        select = (f"*{arguments.k}*",)
        results = run(arguments.loop, module, select, timeout=arguments.timeout)
        bad = sum(result.outcome not in ("pass", "skip") for result in results.values())
        took = time.monotonic() - started
        _say(f"{module:24} {len(results):4} tests {bad or 'no':>4} failed  {took:3.0f} s")
        return results

    merged: Results = {}
    for results in pool.map(run_module, arguments.modules):
        merged |= results
    return merged


def _judge_all(
    arguments: argparse.Namespace,
    pool: ThreadPoolExecutor,
    results: Results,
    exceptions: dict[str, str],
) -> Verdict:
    def alone(loop: str, test: str) -> Result:
        return run(loop, test.partition(".")[0], (test,), timeout=arguments.timeout)[test]

    verdict = Verdict()

    def judge(test: str) -> None:
        verdict.judge(
            test,
            results[test],
            test in exceptions,
            lambda: alone(arguments.loop, test),
            lambda: alone(ASYNCIO, test),
        )

    list(pool.map(judge, results))
    return verdict


def _report(verdict: Verdict, results: Results, exceptions: dict[str, str]) -> None:
    sections = [
        ("not passing on asyncio, either", verdict.baseline),
        ("expected to fail", {test: exceptions[test] for test in verdict.expected}),
        ("FLAKY: failed in the run, pass alone", verdict.flaky),
        ("STALE EXCEPTIONS", verdict.stale),
        ("HANGS", verdict.hangs),
        ("NEW FAILURES: pass on asyncio", verdict.failures),
    ]
    for title, tests in sections:
        if tests:
            _say(f"\n{title}: {len(tests)}")
            for test in sorted(tests):
                _say(f"  {test}: {tests[test]}")
    outcomes = Counter(result.outcome for result in results.values())
    on_loop = sum(result.on_loop for result in results.values())
    _say(
        f"\n{len(results)} tests, {on_loop} of them on the loop: "
        + ", ".join(f"{count} {outcome}" for outcome, count in outcomes.most_common())
    )


def main() -> int:
    arguments = _arguments()
    version = platform.python_version()
    certain, possible = read_exceptions(README.read_text(), version)
    exceptions = certain | possible
    _say(f"test.test_asyncio of CPython {version} on {arguments.loop}")
    started = time.monotonic()
    with ThreadPoolExecutor(arguments.jobs) as pool:
        try:
            results = _run_all(arguments, pool)
            verdict = _judge_all(arguments, pool, results, exceptions)
            if not arguments.k:
                verdict.stale |= missing(certain, results, arguments.modules)
        except RuntimeError as error:
            pool.shutdown(cancel_futures=True)
            _say(f"\nFAILED: {error}")
            return 1
        except KeyboardInterrupt:
            os._exit(130)  # without waiting for the workers, which notice and end
    _report(verdict, results, exceptions)
    _say(f"{'OK' if verdict.ok else 'FAILED'} in {time.monotonic() - started:.0f} s")
    return 0 if verdict.ok else 1


if __name__ == "__main__":
    sys.exit(main())
