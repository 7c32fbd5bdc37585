"""Tables of the results: for a terminal, and in Markdown."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ._loops import BARE
from ._results import Results, Sample
from ._scenarios import GROUPS

NOTHING = "-"
CHANNELS = {
    "channel, 1 KiB, 10 connections": "protocol, 1 KiB, 10 connections",
    "channel, coroutine, 1 KiB, 10 connections": "protocol, 1 KiB, 10 connections",
    "channel, awaited write, 1 KiB, 10 connections": "protocol, 1 KiB, 10 connections",
    "channel, 64 KiB, 10 connections": "protocol, 64 KiB, 10 connections",
    "TLS channel, 1 KiB, 10 connections": "TLS protocol, 1 KiB, 10 connections",
}
"""What a channel is compared with, on the same loop."""


@dataclass(frozen=True)
class Grid:
    group: str
    title: str
    header: list[str]
    rows: list[list[str]]
    """The cells of a row: its name, then one for each of the header."""


def grids(results: Results) -> Iterator[Grid]:
    """All tables, group by group; no empty ones."""
    for name, group in GROUPS.items():
        yield from _grid(results, name, group.unit, _value)
        if name != "scheduler":  # where the CPU does nothing else
            yield from _grid(results, name, "server CPU for each, in microseconds", _cpu)
        yield from _grid(results, name, "p50 and p99, in microseconds", _latency)
        if name == "echo":
            yield from _channels(results)


def ratio_note(results: Results) -> str:
    """What the ratios in the tables are; empty if there are none."""
    if len(results.loops) < 2:
        return ""
    return f"In brackets: how many times that loop's figure {results.loops[0]} has."


def heading(loop: str) -> str:
    return "bare epoll" if loop == BARE else loop


def number(value: float) -> str:
    """Three digits at least."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _grid(
    results: Results, group: str, what: str, cell: Callable[[Sample, Sample | None], str]
) -> Iterator[Grid]:
    """A table of what `cell` makes of each loop's median, and of the first loop's as well."""
    lines = []
    for row in results.of(group):
        first = row.median(results.loops[0])
        cells = []
        for loop in results.loops:
            sample = row.median(loop)
            other = first if loop != results.loops[0] else None
            cells.append(cell(sample, other) if sample else NOTHING)
        lines.append([row.name, *cells])
    used = [n for n in range(len(results.loops)) if any(line[n + 1] != NOTHING for line in lines)]
    if used:
        header = [heading(results.loops[n]) for n in used]
        title = f"{GROUPS[group].title}: {what}"
        yield Grid(
            group, title, header, [[line[0], *(line[n + 1] for n in used)] for line in lines]
        )


def _with_ratio(value: float | None, first: float | None) -> str:
    if value is None:
        return NOTHING
    return number(value) + (f" (x{first / value:.2f})" if first is not None and value else "")


def _value(sample: Sample, first: Sample | None) -> str:
    return _with_ratio(sample.value, first.value if first else None)


def _cpu(sample: Sample, first: Sample | None) -> str:
    return _with_ratio(sample.cpu, first.cpu if first else None)


def _latency(sample: Sample, first: Sample | None) -> str:
    if sample.p50 is None or sample.p99 is None:
        return NOTHING
    return f"{number(sample.p50)}, {number(sample.p99)}"


def _channels(results: Results) -> Iterator[Grid]:
    """Which share of the bare protocol's rate a channel has, on each loop."""
    by_name = {row.name: row for row in results.of("echo")}
    lines = []
    for channel, bare in CHANNELS.items():
        if channel not in by_name or bare not in by_name:
            continue
        cells = [
            f"{own.value / other.value:.0%}"
            if (own := by_name[channel].median(loop)) and (other := by_name[bare].median(loop))
            else NOTHING
            for loop in results.loops
            if loop != BARE
        ]
        lines.append([channel, *cells])
    if lines:
        header = [loop for loop in results.loops if loop != BARE]
        title = "Channels: share of the rate of a bare protocol on the same loop"
        yield Grid("echo", title, header, lines)


def as_text(grid: Grid) -> str:
    lines = [["", *grid.header], *grid.rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        [
            grid.title,
            *("  " + "  ".join(_padded(cells, widths)).rstrip() for cells in lines),
        ]
    )


def _padded(cells: list[str], widths: list[int]) -> Iterator[str]:
    """The first to the left, all others to the right."""
    yield cells[0].ljust(widths[0])
    yield from (cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True))


def as_markdown(grid: Grid) -> str:
    lines = [["", *grid.header], ["---", *("--:" for _ in grid.header)], *grid.rows]
    return "\n".join([f"**{grid.title}**", "", *(f"| {' | '.join(line)} |" for line in lines)])
