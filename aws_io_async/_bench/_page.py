"""A page of documentation with the results: tables, charts, and the file that they come from."""

from collections.abc import Iterator
from pathlib import Path

from ._charts import draw
from ._results import Results
from ._scenarios import GROUPS
from ._tables import as_markdown, grids, heading, ratio_note

BEGIN = "<!-- benchmark: what follows is generated -->"
END = "<!-- benchmark: end -->"


def update(page: Path, results: Results | None) -> None:
    """Put results between the marks of a page; without results only see that it has them.

    The results themselves and a chart for each group go into a folder next to it, of its name.
    Raises OSError, or ValueError if the page does not have the marks.
    """
    content = page.read_text(encoding="utf-8")
    before, begin, rest = content.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{page} lacks the lines {BEGIN} and {END}")
    if results is None:
        return
    folder = page.with_suffix("")
    folder.mkdir(exist_ok=True)
    results.write(folder / "results.json")
    for group in GROUPS:
        chart = folder / f"{group}.svg"
        if results.of(group):
            chart.write_text(draw(results, [group]), encoding="utf-8")
        else:
            chart.unlink(missing_ok=True)
    new = f"{before}{begin}\n\n{generated(results, folder.name)}\n\n{end}{after}"
    page.write_text(new, encoding="utf-8")


def generated(results: Results, folder: str) -> str:
    """The Markdown between the marks."""
    return "\n\n".join(_blocks(results, folder))


def _blocks(results: Results, folder: str) -> Iterator[str]:
    facts = {**results.facts, "Compared": ", ".join(map(heading, results.loops))}
    yield "\n".join(
        ["| | |", "|---|---|", *(f"| {name} | {fact} |" for name, fact in facts.items())]
    )
    if note := ratio_note(results):
        yield note
    tables = list(grids(results))
    for name, group in GROUPS.items():
        if not results.of(name):
            continue
        yield f"### {group.title}"
        yield f"![{group.title}: {group.unit}]({folder}/{name}.svg)"
        yield from (as_markdown(grid) for grid in tables if grid.group == name)
