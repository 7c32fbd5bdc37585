"""The benchmark as what it is: a program, in a process of its own."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aws_io_async

ROOT = Path(aws_io_async.__file__).parent.parent
SHORT = ("--rounds", "1", "--seconds", "0.05", "--connections", "50")


@dataclass(frozen=True)
class Run:
    status: int
    out: str
    errors: str

    def steps(self) -> list[str]:
        """What was measured, in turn, as its progress said."""
        lines = self.errors.splitlines()
        return [line.partition("] ")[2] for line in lines if line.startswith("[")]

    def complaints(self) -> list[str]:
        """What it wrote to stderr apart from its progress."""
        return [line for line in self.errors.splitlines() if not line.startswith("[")]


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-W", "error", "-m", "aws_io_async", "bench", *arguments]


def environment(changes: Mapping[str, str]) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), **changes}


def bench(
    *arguments: str,
    cwd: Path | None = None,
    shell: str = 'exec "$@"',
    env: Mapping[str, str] | None = None,
) -> Run:
    """Run it to its end, by a command of `shell`, with changes to the environment."""
    done = subprocess.run(
        ["sh", "-c", shell, "sh", *command(*arguments)],
        cwd=cwd,
        env=environment(env or {}),
        capture_output=True,
        text=True,
        check=False,
        timeout=55,
    )
    return Run(done.returncode, done.stdout, done.stderr)


def measured(
    folder: Path, *arguments: str, env: Mapping[str, str] | None = None
) -> dict[str, dict[str, list[dict[str, float]]]]:
    """Run it for a short time; its samples by scenario and loop. Fails if anything failed."""
    file = folder / "results.json"
    run = bench(*SHORT, "--json", f"{file}", *arguments, env=env)
    assert (run.status, run.complaints()) == (0, []), run.out
    content: dict[str, Any] = json.loads(file.read_text())
    return {f"{row['group']}: {row['name']}": row["samples"] for row in content["rows"]}
