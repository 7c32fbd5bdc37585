"""The table of docs/reliability.md: a row for each fault that a module below tests/ declares."""

import importlib
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

from tests.faults._report import FAULTS, GROUPS, Fault

ROOT = Path(__file__).parent.parent.parent
PAGE = ROOT / "docs" / "reliability.md"
BEGIN = "<!-- faults: what follows is generated -->"
END = "<!-- faults: end -->"
USE = re.compile(r"^from tests\.faults\._report import \(?[\w\s,]*\bFault\b", re.MULTILINE)


def users() -> list[Path]:
    """The modules below tests/ that declare faults."""
    own = Path(__file__).parent
    return [
        path
        for path in sorted((ROOT / "tests").rglob("*.py"))
        if not (path.parent == own and path.name.startswith("_")) and USE.search(path.read_text())
    ]


def declared() -> list[Fault]:
    """All faults of the rig, in the order of the page."""
    for path in users():
        importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))
    return sorted(FAULTS.values(), key=lambda fault: GROUPS.index(fault.group))


def table(counts: Mapping[str, Counter[str]]) -> str:
    """The Markdown between the marks: a table for each group."""
    return "\n\n".join(_tables(counts))


def _tables(counts: Mapping[str, Counter[str]]) -> Iterator[str]:
    faults = declared()
    for group in GROUPS:
        rows = [_row(fault, counts[fault.name]) for fault in faults if fault.group == group]
        if rows:
            head = "| Fault | injected | promised | seen |\n|---|--:|---|---|"
            yield f"### {group}\n\n{head}\n" + "\n".join(rows)


def _row(fault: Fault, outcomes: Counter[str]) -> str:
    seen = ", ".join(f"{outcome}: {times:,}" for outcome, times in outcomes.most_common())
    return f"| {fault.name} | {outcomes.total():,} | {fault.promised} | {seen} |"


def names_on(page: Path) -> list[str]:
    """The faults that a page has rows for."""
    return re.findall(r"^\| (.*?) \| [\d,]+ \| ", between_marks(page)[1], re.MULTILINE)


def update(page: Path, counts: Mapping[str, Counter[str]], facts: str) -> None:
    """Put facts about a run and its table between the marks of a page."""
    before, _, after = between_marks(page)
    page.write_text(f"{before}{BEGIN}\n\n{facts}\n\n{table(counts)}\n\n{END}{after}")


def between_marks(page: Path) -> tuple[str, str, str]:
    """What stands before, between and after the marks; ValueError if there are none."""
    before, begin, rest = page.read_text().partition(BEGIN)
    inside, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{page} lacks the lines {BEGIN} and {END}")
    return before, inside, after
