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
    """The modules below tests/ that declare faults; those about the page itself do not count."""
    own = Path(__file__).parent
    return [
        path
        for path in sorted((ROOT / "tests").rglob("*.py"))
        if not (path.parent == own and (path.name.startswith("_") or path.stem == "test_report"))
        and USE.search(path.read_text())
    ]


def declared() -> list[Fault]:
    """All faults of the rig, in the order of the page."""
    for path in users():
        importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))
    return sorted(FAULTS.values(), key=lambda fault: GROUPS.index(fault.group))


def table(rows: Mapping[str, str]) -> str:
    """The Markdown between the marks: a table of rows, by faults' names, for each group."""
    return "\n\n".join(_tables(rows))


def _tables(rows: Mapping[str, str]) -> Iterator[str]:
    faults = declared()
    for group in GROUPS:
        own = [rows[fault.name] for fault in faults if fault.group == group]
        if own:
            head = "| Fault | injected | promised | seen |\n|---|--:|---|---|"
            yield f"### {group}\n\n{head}\n" + "\n".join(own)


def row(fault: Fault, outcomes: Counter[str]) -> str:
    """A line of the table."""
    seen = "; ".join(f"{outcome}: {times:,}" for outcome, times in outcomes.most_common())
    return f"| {fault.name} | {outcomes.total():,} | {fault.promised} | {seen} |"


def rows_on(page: Path) -> dict[str, str]:
    """The rows that a page has, by faults' names."""
    rows = re.finditer(r"^\| (.*?) \| [\d,]+ \| .*$", between_marks(page)[1], re.MULTILINE)
    return {found[1]: found[0] for found in rows}


def update(
    page: Path, counts: Mapping[str, Counter[str]], facts: str, *, whole: bool = True
) -> list[str]:
    """Put rows for what was counted, and facts about the run, between the marks of a page.

    The other rows stay, and the facts if this was not the whole of the rig. If a fault would have
    no row, nothing is done but to return such faults' names.
    """
    faults = declared()
    rows = rows_on(page)
    rows |= {fault.name: row(fault, counts[fault.name]) for fault in faults if fault.name in counts}
    missing = [fault.name for fault in faults if fault.name not in rows]
    if not missing:
        before, inside, after = between_marks(page)
        if not whole:
            facts = inside.strip().partition("\n")[0] or facts
        page.write_text(f"{before}{BEGIN}\n\n{facts}\n\n{table(rows)}\n\n{END}{after}")
    return missing


def between_marks(page: Path) -> tuple[str, str, str]:
    """What stands before, between and after the marks; ValueError if there are none."""
    before, begin, rest = page.read_text().partition(BEGIN)
    inside, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{page} lacks the lines {BEGIN} and {END}")
    return before, inside, after
