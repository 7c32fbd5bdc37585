"""What the benchmark makes of its results: tables, charts, files, a page of the documentation."""

import dataclasses
import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from aws_io_async._bench import _charts, _command, _page, _tables
from aws_io_async._bench._results import Results, Row, Sample, read
from aws_io_async._bench._scenarios import GROUPS
from tests.bench_runs import ROOT, bench

PAGE = ROOT / "docs" / "performance.md"
SVG = "{http://www.w3.org/2000/svg}"
LOOPS = ["aws_io_async", "asyncio", "mine:new", "bare"]


def row(group: str, name: str, *values: float, **fields: float) -> Row:
    """Values of the loops, in their order; two rounds with a distance of 2."""
    samples = {
        loop: [Sample(value - 1, **fields), Sample(value + 1, **fields)]
        for loop, value in zip(LOOPS, values, strict=False)
    }
    return Row(group, name, samples)


def results() -> Results:
    found = Results({"Machine": "a <small> one", "Figures": "medians"}, LOOPS)
    found.rows = [
        row("echo", "protocol, 1 KiB, 10 connections", 40_000, 10_000, 20_000, 80_000, cpu=12.3),
        row("echo", "channel, 1 KiB, 10 connections", 30_000, 8_000, 18_000, p50=5, p99=9),
        row("scale", "1 connection", 9_000, 8_000, 7_000, 9_500, p50=10, p99=20),
        row("scale", "10,000 connections", 30_000, 8_000, 18_000, 70_000, p50=1e5, p99=2e5),
        row("scheduler", "task switch", 1e6, 2e6, 1e5),
        row("memory", "protocol", 1_500, 3_000),
        row("start", "import, and a new loop", 40.25, 30),
    ]
    found.rows[0].absent["mine:new"] = "cannot"
    found.rows[1].failed["bare"] = "died"
    return found


def texts(svg: str) -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(svg).iter(f"{SVG}text")]


# Figures


def test_nothing_is_said_about_no_tables(capsys: pytest.CaptureFixture[str]) -> None:
    """Interrupted before the first figure is there."""
    _command._print(Results({}, LOOPS))
    assert capsys.readouterr().out == ""


def test_the_median_of_each_field() -> None:
    found = Row("echo", "x", {"a": [Sample(1, 5), Sample(9, None), Sample(2, 7)], "b": []})
    assert found.median("a") == Sample(2, 6)
    assert found.median("b") is None
    assert found.median("c") is None


def test_results_survive_a_file(tmp_path: Path) -> None:
    results().write(tmp_path / "file")
    assert read(tmp_path / "file") == results()


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"format": 99}', '{"format": 1}'])
def test_a_file_of_something_else(tmp_path: Path, content: str) -> None:
    (tmp_path / "file").write_text(content)
    with pytest.raises(ValueError, match="has no results of this benchmark"):
        read(tmp_path / "file")


# Tables


def test_a_table_for_a_terminal() -> None:
    grid = next(_tables.grids(results()))
    assert _tables.as_text(grid).splitlines() == [
        "Echo servers: messages or connections a second",
        "                                   aws_io_async         asyncio        mine:new"
        "      bare epoll",
        "  protocol, 1 KiB, 10 connections        40,000  10,000 (x4.00)  20,000 (x2.00)"
        "  80,000 (x0.50)",
        "  channel, 1 KiB, 10 connections         30,000   8,000 (x3.75)  18,000 (x1.67)"
        "               -",
    ]


def test_channels_are_compared_with_the_bare_protocol() -> None:
    grid = next(grid for grid in _tables.grids(results()) if grid.title.startswith("Channels"))
    assert grid.header == ["aws_io_async", "asyncio", "mine:new"]
    assert grid.rows == [["channel, 1 KiB, 10 connections", "75%", "80%", "90%"]]


def test_what_was_not_measured_takes_no_room() -> None:
    titles = [grid.title for grid in _tables.grids(results())]
    assert "Memory: bytes for an idle connection" in titles
    assert not any(title.startswith("Memory: server CPU") for title in titles)
    memory = next(grid for grid in _tables.grids(results()) if grid.group == "memory")
    assert memory.header == ["aws_io_async", "asyncio"]


def test_tables_in_markdown_are_tables() -> None:
    for grid in _tables.grids(results()):
        title, empty, *table = _tables.as_markdown(grid).splitlines()
        assert (title[:2], empty) == ("**", "")
        assert {line.count("|") for line in table} == {len(grid.header) + 2}


def test_missing_figures_are_explained_once_for_each_reason() -> None:
    found = results()
    found.rows[0].failed["bare"] = "died"
    assert found.missing("absent") == ["mine:new: cannot (echo: protocol, 1 KiB, 10 connections)"]
    assert found.missing("failed") == [
        "bare: died (echo: protocol, 1 KiB, 10 connections; echo: channel, 1 KiB, 10 connections)"
    ]


# Charts


def test_a_chart_has_all_rows_and_loops() -> None:
    words = texts(_charts.draw(results()))
    assert {"aws_io_async", "asyncio", "mine:new", "bare epoll"} <= {*words}
    assert {group.title for group in GROUPS.values()} - {*words} == {GROUPS["http"].title}
    for each in results().rows:
        shown = each.name.removesuffix(" connections").removesuffix(" connection")
        assert each.name in words or (each.group == "scale" and shown in words)


def test_a_chart_can_be_read_in_light_and_dark() -> None:
    root = ElementTree.fromstring(_charts.draw(results()))
    style = root.find(f"{SVG}style")
    assert style is not None
    light, dark = (style.text or "").split("@media (prefers-color-scheme:dark)")
    used = {name for element in root.iter() for name in element.get("class", "").split()}
    coloured = {name for name in used if f".{name}{{" in light and name not in ("title", "line")}
    assert {"ground", "dim", "rule", "f0", "s2"} <= coloured
    for name in coloured - {"end", "middle", "dashed"}:
        assert f".{name}{{" in dark


def test_nothing_is_drawn_outside_of_a_chart() -> None:
    for found in (results(), dataclasses.replace(results(), loops=["aws_io_async"])):
        for group in GROUPS:
            if not found.of(group):
                continue
            root = ElementTree.fromstring(_charts.draw(found, [group]))
            _, _, width, height = map(float, root.attrib["viewBox"].split())
            for element in root.iter():
                for names, limit in ((("x", "x1", "x2", "cx"), width), (("y", "y2", "cy"), height)):
                    for name in names:
                        assert 0 <= float(element.get(name, 0)) <= limit


def test_a_loop_has_the_same_marker_in_all_charts() -> None:
    found = results()
    alone = dataclasses.replace(found, loops=["asyncio", "bare"])
    for which in (found, alone):
        assert '<polygon class="f2"' in _charts.draw(which, ["echo"])
        assert '<polygon class="f4"' in _charts.draw(which, ["echo"])


@pytest.mark.parametrize("loops", [["aws_io_async"], ["aws_io_async", "mine:new"], ["bare"]])
@pytest.mark.parametrize("group", ["echo", "scale", "scheduler"])
def test_charts_of_few_loops(loops: list[str], group: str) -> None:
    found = dataclasses.replace(results(), loops=loops)
    if found.rows and group == "scheduler" and loops == ["bare"]:
        return  # which has no scheduler
    assert GROUPS[group].title in texts(_charts.draw(found, [group]))


def test_nothing_to_draw() -> None:
    with pytest.raises(ValueError, match="nothing was measured"):
        _charts.draw(Results({}, LOOPS))


# Files


def test_saved_results_are_shown_again(tmp_path: Path) -> None:
    results().write(tmp_path / "old.json")
    chart, copy = tmp_path / "chart.svg", tmp_path / "new.json"
    shown = ("--from", f"{tmp_path / 'old.json'}", "--only", "^echo: protocol, 1 KiB|^memory: pro")
    run = bench(*shown, "--plot", f"{chart}", "--json", f"{copy}")
    assert (run.status, run.errors) == (0, "")
    assert "  protocol, 1 KiB, 10 connections        40,000  10,000 (x4.00)" in run.out
    assert "channel" not in run.out
    assert chart.read_text() == _charts.draw(read(copy))
    assert len(json.loads(copy.read_text())["rows"]) == 2


def test_saved_results_with_failures_fail_again(tmp_path: Path) -> None:
    results().write(tmp_path / "old.json")
    run = bench("--from", f"{tmp_path / 'old.json'}")
    assert run.status == 1
    assert run.errors == "failed: bare: died (echo: channel, 1 KiB, 10 connections)\n"


def test_a_page(tmp_path: Path) -> None:
    page = tmp_path / "figures.md"
    page.write_text(f"before\n{_page.BEGIN}\nold\n{_page.END}\nafter\n")
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "http.svg").write_text("old")
    for _ in range(2):
        _page.update(page, results())
        content = page.read_text()
        assert content.startswith(f"before\n{_page.BEGIN}\n\n| | |\n")
        assert content.endswith(f"\n\n{_page.END}\nafter\n")
        assert "old" not in content
    assert "![Memory: bytes for an idle connection](figures/memory.svg)" in content
    files = {file.name for file in (tmp_path / "figures").iterdir()}
    groups = {each.group for each in results().rows}
    assert files == {"results.json", *(f"{group}.svg" for group in groups)}
    assert read(tmp_path / "figures" / "results.json") == results()


def test_the_documentation_is_what_the_benchmark_makes_of_its_results() -> None:
    found = read(PAGE.with_suffix("") / "results.json")
    assert _page.generated(found, PAGE.stem) in PAGE.read_text()
    for group in GROUPS:
        if found.of(group):
            chart = PAGE.with_suffix("") / f"{group}.svg"
            assert chart.read_text() == _charts.draw(found, [group])
