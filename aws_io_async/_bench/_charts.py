"""Charts of the results, a panel or two for each group of scenarios."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from ._loops import BARE, KNOWN
from ._results import Results, Row, Sample
from ._scenarios import GROUPS
from ._svg import STYLES, WIDTH, bar, document, marker, path, rule, text
from ._tables import heading, number

MARGIN = 20
LABELS = 290
"""Where the names of rows end."""

FIGURES = 110
"""Width of the column of the subject's own figures, to the right."""

ROW = 22
BAR = 13
PLOT_HEIGHT = 190


@dataclass
class Panel:
    """Its content is drawn from y = 0 on; `_stack` moves it."""

    height: float
    content: list[str]


def draw(results: Results, groups: Sequence[str] = tuple(GROUPS)) -> str:
    """An SVG file with a panel for each of these groups that was measured.

    Raises ValueError if none of them was.
    """
    panels = [panel for group in groups for panel in _panels(results, group)]
    if not panels:
        raise ValueError("nothing was measured that could be drawn")
    content, y = [], float(MARGIN)
    for panel in panels:
        content += [f'<g transform="translate(0 {y:g})">', *panel.content, "</g>"]
        y += panel.height + MARGIN
    return document(y, "; ".join(GROUPS[g].title for g in groups if results.of(g)), content)


def _panels(results: Results, group: str) -> Iterator[Panel]:
    rows = results.of(group)
    if not rows:
        return
    if group == "scale":
        yield _lines(results, rows)
        return
    reference = _reference(results)
    comparable = [row for row in rows if reference and row.median(reference)]
    if comparable and reference and GROUPS[group].more_is_better:
        yield _dots(results, group, comparable, reference)
    else:
        yield _bars(results, group, rows)


def _reference(results: Results) -> str | None:
    """The loop whose rates are 1; None if there is nothing to compare."""
    loops = [loop for loop in results.loops if loop != BARE]
    if len(results.loops) < 2:
        return None
    return "asyncio" if "asyncio" in loops else loops[-1]


def _style(results: Results, loop: str) -> int:
    """The same in all charts for the loops that are known."""
    known = [*KNOWN, BARE]
    if loop in known:
        return known.index(loop)
    others = [name for name in results.loops if name not in known]
    return (len(known) + others.index(loop)) % STYLES


def _head(results: Results, title: str, subtitle: str, loops: Sequence[str]) -> Panel:
    content = [text(MARGIN, 14, title, "title"), text(MARGIN, 33, subtitle, "dim")]
    x = float(MARGIN + 6)
    for loop in loops:
        content += [marker(x, 50, _style(results, loop)), text(x + 12, 54, heading(loop))]
        x += 38 + 7 * len(heading(loop))
    return Panel(70, content)


def _present(results: Results, rows: Sequence[Row]) -> list[str]:
    return [loop for loop in results.loops if any(row.median(loop) for row in rows)]


# Rates, in terms of one loop's


def _dots(results: Results, group: str, rows: Sequence[Row], reference: str) -> Panel:
    subject = results.loops[0]
    subtitle = f"{GROUPS[group].unit}, as a multiple of {reference}'s"
    panel = _head(results, GROUPS[group].title, subtitle, _present(results, rows))
    ratios = [_ratios(results, row, reference) for row in rows]
    known = [math.log2(ratio) for each in ratios for ratio in each.values()]
    low, high = min(-1.0, *known) - 0.2, max(1.0, *known) + 0.2
    right = WIDTH - MARGIN - FIGURES

    def x(ratio: float) -> float:
        return LABELS + 12 + (math.log2(ratio) - low) / (high - low) * (right - LABELS - 12)

    top, bottom = panel.height + 18, panel.height + 18 + ROW * len(rows)
    panel.content.append(text(WIDTH - MARGIN, top - 6, subject, "dim end"))
    for power in range(math.ceil(low), math.floor(high) + 1):
        label = f"{2**power}" if power >= 0 else f"1/{2**-power}"
        style = "rule" if power else "axis"
        panel.content.append(rule(x(2.0**power), top, x(2.0**power), bottom, style))
        panel.content.append(text(x(2.0**power), top - 6, label, "dim middle"))
    for n, (row, each) in enumerate(zip(rows, ratios, strict=True)):
        y = top + ROW * (n + 0.5)
        panel.content.append(text(LABELS, y + 4, row.name, "end"))
        for loop in sorted(each, key=lambda loop: loop == subject):  # on top
            panel.content.append(marker(x(each[loop]), y, _style(results, loop)))
        if own := row.median(subject):
            panel.content.append(text(WIDTH - MARGIN, y + 4, f"{number(own.value)}/s", "end"))
    return Panel(bottom, panel.content)


def _ratios(results: Results, row: Row, reference: str) -> dict[str, float]:
    base = row.median(reference)
    assert base
    return {
        loop: sample.value / base.value for loop in results.loops if (sample := row.median(loop))
    }


# Figures as they are


def _bars(results: Results, group: str, rows: Sequence[Row]) -> Panel:
    loops = _present(results, rows)
    panel = _head(results, GROUPS[group].title, GROUPS[group].unit, loops)
    most = max(sample.value for row in rows for loop in loops if (sample := row.median(loop)))
    width, y = WIDTH - MARGIN - LABELS - 80, panel.height
    for row in rows:
        shown = [(loop, sample) for loop in loops if (sample := row.median(loop))]
        panel.content.append(text(LABELS, y + BAR * len(shown) / 2 + 4, row.name, "end"))
        for loop, sample in shown:
            length = sample.value / most * width
            panel.content.append(bar(LABELS + 12, y, length, BAR - 2, _style(results, loop)))
            panel.content.append(text(LABELS + 18 + length, y + 10, number(sample.value), "dim"))
            y += BAR
        y += 9
    return Panel(y, panel.content)


# From one connection to many


def _lines(results: Results, rows: Sequence[Row]) -> Panel:
    panel = _head(
        results,
        GROUPS["scale"].title,
        f"{GROUPS['scale'].unit}; latency in milliseconds, of the half (line) and of 99 % (dashed)",
        _present(results, rows),
    )
    half = (WIDTH - 3 * MARGIN) / 2
    top = panel.height + 4
    rates = [lambda sample: sample.value]
    latencies = [
        lambda sample: sample.p50 and sample.p50 / 1e3,
        lambda sample: sample.p99 and sample.p99 / 1e3,
    ]
    panel.content += _plot(results, rows, MARGIN, top, half, rates, logarithmic=False)
    panel.content += _plot(results, rows, 2 * MARGIN + half, top, half, latencies, logarithmic=True)
    return Panel(top + PLOT_HEIGHT + 34, panel.content)


def _plot(
    results: Results,
    rows: Sequence[Row],
    left: float,
    top: float,
    width: float,
    series: Sequence[Callable[[Sample], float | None]],
    *,
    logarithmic: bool,
) -> Iterator[str]:
    """Lines over the rows, from left to right; the second of the series is dashed."""
    values = [
        value
        for row in rows
        for loop in results.loops
        if (sample := row.median(loop))
        for of in series
        if (value := of(sample))
    ]
    if not values:
        return
    ticks = _decades(values) if logarithmic else _steps(max(values))
    low, high = (math.log10(ticks[0]), math.log10(ticks[-1])) if logarithmic else (0, ticks[-1])
    bottom, inner = top + PLOT_HEIGHT, left + 52

    def x(n: int) -> float:
        return inner + 12 + n * (left + width - inner - 24) / max(len(rows) - 1, 1)

    def y(value: float) -> float:
        height = math.log10(value) if logarithmic else value
        return bottom - (height - low) / (high - low) * PLOT_HEIGHT

    for tick in ticks:
        yield rule(inner, y(tick), left + width, y(tick))
        yield text(
            inner - 6, y(tick) + 4, f"{tick:,g}" if tick < 1000 else f"{tick:,.0f}", "dim end"
        )
    for n, row in enumerate(rows):
        yield text(x(n), bottom + 16, row.name.partition(" ")[0], "dim middle")
    yield text((inner + left + width) / 2, bottom + 32, "connections", "dim middle")
    for loop in reversed(results.loops):  # the first one on top
        for number_of, of in enumerate(series):
            points = [
                (x(n), y(value))
                for n, row in enumerate(rows)
                if (sample := row.median(loop)) and (value := of(sample))
            ]
            yield path(points, _style(results, loop), dashed=number_of > 0)
            if not number_of:
                yield from (marker(*point, _style(results, loop)) for point in points)


def _decades(values: Sequence[float]) -> list[float]:
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    return [10.0**power for power in range(low, max(high, low + 1) + 1)]


def _steps(most: float) -> list[float]:
    """Round numbers from 0 to `most`, four to eight of them."""
    unit = 10.0 ** math.floor(math.log10(most / 4))
    step = next(unit * factor for factor in (1, 2, 2.5, 5, 10) if most / (unit * factor) <= 6)
    return [step * n for n in range(math.ceil(most / step) + 1)]
