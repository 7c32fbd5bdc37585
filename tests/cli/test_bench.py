"""`bench`, piped and at a terminal, and the file that it writes."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from jsonschema import ValidationError

from aws_io_async._bench._results import FORMAT
from aws_io_async._bench._scenarios import GROUPS
from tests.cli.commands import ROOT, run, terminal
from tests.schemas import SCHEMAS, validate

SHORT = ("bench", "--only", "call_soon", "--rounds", "1", "--seconds", "0.05")
SCENARIOS = ["call_soon, chain", "call_soon, batches"]


def measured(file: Path) -> list[str]:
    """What a file has figures of, once it is as its schema has it."""
    content: Any = json.loads(file.read_text())
    validate(content, "bench")
    assert content["loops"] == ["aws_io_async"]
    for row in content["rows"]:
        (sample,) = row["samples"]["aws_io_async"]
        assert sample["value"] > 0
    return [row["name"] for row in content["rows"]]


def test_piped_it_tells_line_by_line(tmp_path: Path) -> None:
    done = run(*SHORT, "--json", tmp_path / "file", "aws_io_async")
    assert done.returncode == 0
    assert re.fullmatch(
        r"\[1/2\] scheduler: call_soon, chain: aws_io_async\n"
        r"\[2/2, \d+ s left\] scheduler: call_soon, batches: aws_io_async\n",
        done.stderr,
    )
    assert re.search(r"\n  call_soon, chain +[\d,]+\n  call_soon, batches +[\d,]+\n", done.stdout)
    assert "\x1b" not in done.stdout + done.stderr
    assert measured(tmp_path / "file") == SCENARIOS


def test_on_a_terminal_it_writes_over_its_progress(tmp_path: Path) -> None:
    with terminal(*SHORT, "--json", tmp_path / "file", "aws_io_async") as screen:
        screen.wait_for(r"\r\[1/2\] scheduler: call_soon, chain: aws_io_async")
        screen.wait_for(r"\r\[2/2, \d+ s left\] scheduler: call_soon, batches: aws_io_async")
        screen.wait_for(r"\r +\r")  # gone, before the results take its place
        screen.wait_for(r"call_soon, chain +[\d,]+\n +call_soon, batches +[\d,]+\n")
        assert screen.wait() == 0
    assert measured(tmp_path / "file") == SCENARIOS


def test_ctrl_c_at_a_terminal(tmp_path: Path) -> None:
    long = (*SHORT, "--seconds", "1000", "--json", tmp_path / "file", "aws_io_async")
    with terminal(*long) as screen:
        screen.wait_for("call_soon, chain: aws_io_async")
        screen.type("\x03")
        screen.wait_for("interrupted: this is what there is\n")
        assert screen.wait() == 130
    assert not (tmp_path / "file").exists()


def test_published_results_are_as_the_schema_has_it() -> None:
    """They are of all groups, have samples with all fields, and loops that some rows lack."""
    results = ROOT / "docs" / "performance" / "results.json"
    validate(json.loads(results.read_text()), "bench")


def test_the_schema_has_the_groups_and_the_format_that_there_are() -> None:
    properties = SCHEMAS["bench.json"]["properties"]
    assert properties["rows"]["items"]["properties"]["group"]["enum"] == [*GROUPS]
    assert properties["format"]["const"] == FORMAT


@pytest.mark.parametrize("damage", [{"value": "fast"}, {"value": 1, "p99": None}, {"p50": 1}])
def test_the_schema_refuses_another_sample(damage: dict[str, Any]) -> None:
    row = {"group": "echo", "name": "a", "samples": {"a": [damage]}, "absent": {}, "failed": {}}
    with pytest.raises(ValidationError):
        validate({"format": FORMAT, "facts": {}, "loops": ["a"], "rows": [row]}, "bench")
