"""The table of docs/reliability.md: what is counted, and that the page has the rig's faults."""

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.faults import _page, _report
from tests.faults._report import Fault, read_counts, seeds, trial


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A file to count in; faults that the test declares are of this test only."""
    path = tmp_path / "counts"
    path.touch()
    monkeypatch.setenv(_report.COUNTS, str(path))
    monkeypatch.setattr(_report, "FAULTS", dict(_report.FAULTS))
    return path


def test_the_page_names_every_fault_of_the_rig_and_nothing_else() -> None:
    names = list(_page.rows_on(_page.PAGE))
    assert names == [fault.name for fault in _page.declared()]


def test_outcomes_are_counted_in_child_processes_too(counts: Path) -> None:
    fault = Fault("Network", "a test's own", "nothing")
    fault.seen("this")
    fault.seen("that", 2)
    child = (
        f"from tests.faults._report import Fault; Fault{fault.group, fault.name, ''}.seen('this')"
    )
    subprocess.run([sys.executable, "-c", child], check=True, cwd=_page.ROOT)
    assert read_counts(counts) == {"a test's own": Counter(this=2, that=2)}


def test_nothing_is_counted_unless_the_rig_asks(
    monkeypatch: pytest.MonkeyPatch, counts: Path
) -> None:
    monkeypatch.delenv(_report.COUNTS)
    Fault("Network", "a test's own", "nothing").seen("this")
    assert read_counts(counts) == {}


@pytest.mark.usefixtures("counts")
def test_a_name_is_declared_once() -> None:
    Fault("Network", "a test's own", "nothing")
    Fault("Network", "a test's own", "nothing")  # the same, as a module may be imported twice
    with pytest.raises(AssertionError):
        Fault("Network", "a test's own", "much")
    with pytest.raises(AssertionError):
        Fault("Nothing known", "another", "nothing")


def test_seeds_are_the_same_each_time_and_more_for_the_rig(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in (_report.ROUNDS, _report.SEED):
        monkeypatch.delenv(name, raising=False)
    assert list(seeds(2)) == [0, 1]
    monkeypatch.setenv(_report.ROUNDS, "2")
    monkeypatch.setenv(_report.SEED, "10")
    assert list(seeds(2)) == [10, 11, 12, 13]


def test_a_failure_tells_its_seed() -> None:
    with pytest.raises(ValueError) as caught, trial(7):
        raise ValueError
    assert "seed 7" in caught.value.__notes__[0]


@pytest.mark.usefixtures("counts")
def test_rows_of_what_was_counted_take_the_place_of_those_before(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    faults = [Fault("Names", "one", "nothing"), Fault("Names", "other", "much")]
    monkeypatch.setattr(_page, "declared", lambda: faults)
    page = tmp_path / "page.md"
    page.write_text(f"before\n{_page.BEGIN}\nold\n{_page.END}\nafter\n")
    one, other = {"one": Counter(this=1999, that=1)}, {"other": Counter(that=3)}
    assert _page.update(page, one, "a run") == ["other"]
    assert _page.rows_on(page) == {}
    assert _page.update(page, one | other, "a run") == []
    expected = (
        f"before\n{_page.BEGIN}\n\na run\n\n### Names\n\n"
        "| Fault | injected | promised | seen |\n|---|--:|---|---|\n"
        "| one | 2,000 | nothing | this: 1,999; that: 1 |\n"
        "| other | 3 | much | that: 3 |\n\n"
        f"{_page.END}\nafter\n"
    )
    assert page.read_text() == expected
    assert _page.update(page, {"other": Counter(that=4)}, "a part", whole=False) == []
    assert page.read_text() == expected.replace(
        "| other | 3 | much | that: 3 |", "| other | 4 | much | that: 4 |"
    )
    assert list(_page.rows_on(page)) == ["one", "other"]


def test_a_page_without_marks_is_refused(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("nothing\n")
    with pytest.raises(ValueError):
        _page.between_marks(page)


def test_the_command_refuses_such_a_page_before_it_runs(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("nothing\n")
    command = [sys.executable, "-m", "tests.faults", "--page", str(page)]
    done = subprocess.run(
        command, cwd=_page.ROOT, capture_output=True, text=True, check=False, env=os.environ
    )
    assert done.returncode == 1
    assert "lacks the lines" in done.stderr
