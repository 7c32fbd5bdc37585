"""docs/command-line.md: what its shell commands do, what its tables say."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from aws_io_async._cli._exit import ExitCode
from tests.cli.commands import PATIENCE, ROOT, environment, run
from tests.schemas import SCHEMAS

PAGE = (ROOT / "docs" / "command-line.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


PRINTED = [
    r"hello\n",
    r"valid\nstatus 5\n",
    r"(.*\n)*.*localhost +127\.0\.0\.1 +A +good +now +3 (.*\n)*",
    r"(.*\n)*.*loop-1 +MainThread +waiting(.*\n)*",
    r"",
]
"""What the commands print on stdout, block by block."""


def test_every_block_is_known() -> None:
    assert len(blocks("sh")) == len(PRINTED)
    assert len(re.findall(r"^```\w", PAGE, re.MULTILINE)) == len(PRINTED) + 3


@pytest.mark.parametrize("number", range(len(PRINTED)))
def test_blocks(tmp_path: Path, number: int) -> None:
    program = tmp_path / "bin" / "aws-io-async"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m aws_io_async "$@"\n')
    program.chmod(0o755)
    (program.parent / "python3").symlink_to(sys.executable)
    for source in blocks("python"):
        name = source.partition("\n")[0].removeprefix("# ")
        (tmp_path / name).write_text(source)
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", blocks("sh")[number] + "\nwait"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        env=environment(PATH=f"{program.parent}{os.pathsep}{os.environ['PATH']}"),
        check=False,
    )
    assert re.fullmatch(PRINTED[number], done.stdout), (done.stdout, done.stderr)


def test_every_command_is_told() -> None:
    told = re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE)
    found = re.search(r"\{([\w,]+)\}", run("--help").stdout)
    assert found
    assert {*told} == {*found[1].split(",")}


def test_every_exit_status_is_told() -> None:
    told = re.findall(r"^\| (\d+) \|", PAGE, re.MULTILINE)
    assert [int(number) for number in told] == sorted(ExitCode)


def test_every_option_that_is_named_exists() -> None:
    helps = "".join(run(name, "--help").stdout for name in ("connect", "resolve", "echo", "top"))
    for option in {*re.findall(r"`(--[\w-]+)", PAGE)} - {"--help"}:
        assert re.search(rf"{option}\b", helps), option


def test_every_schema_is_of_something() -> None:
    assert {*SCHEMAS} == {
        f"{name}.json"
        for name in ["demo", "connect", "resolve", "echo", "top", "bench", "statistics"]
    }
