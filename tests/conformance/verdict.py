"""The table of exceptions in README.md, and the verdict on a run."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.conformance.runner import Result, Results

README = Path(__file__).with_name("README.md")
_HEADER = re.compile(r"\|\s*Test\s*\|\s*Python\s*\|\s*Reason\s*\|")
_ROW = re.compile(r"\|\s*`([\w.]+)`\s*\|\s*([\d.+, ]*?)\s*\|\s*(\S.*?)\s*\|")


def read_exceptions(text: str, version: str) -> tuple[dict[str, str], dict[str, str]]:
    """The tests that are expected to fail on Python `version` ("3.12.1"), each with its reason.

    Those of the second result need not be there: they came with a maintenance release.

    `text` holds the table | Test | Python | Reason |. The second column lists versions ("3.12" is
    any 3.12.x), is empty for all, or says "3.12+" for what came with some 3.12.x. Raises ValueError
    for a row that can't be read or is there twice, and for a text without the table.
    """
    lines = iter(text.splitlines())
    if not any(_HEADER.fullmatch(line) for line in lines):
        raise ValueError("no table with the columns Test, Python and Reason")
    next(lines)  # the rule under the header
    certain: dict[str, str] = {}
    possible: dict[str, str] = {}
    for line in lines:
        if not line.startswith("|"):
            break
        row = _ROW.fullmatch(line)
        if row is None:
            raise ValueError(f"not a row of the table of exceptions: {line}")
        test, versions, reason = row.groups()
        wanted = [v.strip() for v in versions.split(",") if v.strip()]
        if test in certain or test in possible:
            raise ValueError(f"{test} is in the table of exceptions twice")
        if versions.endswith("+"):
            if _numbers(version) >= _numbers(versions[:-1]):
                possible[test] = reason
        elif not wanted or any(f"{version}.".startswith(f"{v}.") for v in wanted):
            certain[test] = reason
    return certain, possible


def _numbers(version: str) -> list[int]:
    return [int(part) for part in version.split(".")]


@dataclass
class Verdict:
    """What a run found out: test names, with what there is to say about them."""

    failures: dict[str, str] = field(default_factory=dict)  # these three make the run fail
    hangs: dict[str, str] = field(default_factory=dict)
    stale: dict[str, str] = field(default_factory=dict)
    expected: dict[str, str] = field(default_factory=dict)
    flaky: dict[str, str] = field(default_factory=dict)
    baseline: dict[str, str] = field(default_factory=dict)  # don't pass on asyncio, either

    @property
    def ok(self) -> bool:
        return not (self.failures or self.hangs or self.stale)

    def judge(
        self,
        test: str,
        result: Result,
        excepted: bool,
        again: Callable[[], Result],
        on_asyncio: Callable[[], Result],
    ) -> None:
        """Sort in one test.

        `again` and `on_asyncio` run it alone, on the loop under test and on asyncio's; they are
        called only if the verdict depends on it.
        """
        said = f"{result.outcome}: {result.reason}"
        if result.outcome == "hang":
            if excepted or on_asyncio().outcome == "pass":
                self.hangs[test] = result.reason
            else:
                self.baseline[test] = said
        elif excepted and result.outcome != "pass":
            self.expected[test] = said
        elif excepted:
            if again().outcome == "pass":
                self.stale[test] = "passes now: take it out of README.md"
            else:
                self.flaky[test] = "is an exception, has passed, but fails alone"
        elif result.outcome != "pass":
            if result.outcome != "skip" and again().outcome == "pass":
                self.flaky[test] = said
            elif on_asyncio().outcome == "pass":
                self.failures[test] = said
            else:
                self.baseline[test] = said


def missing(exceptions: dict[str, str], results: Results, modules: list[str]) -> dict[str, str]:
    """The exceptions of these (completely run) modules that name no test."""
    return {
        test: "there is no such test: take it out of README.md"
        for test in exceptions
        if test not in results and test.partition(".")[0] in modules
    }
