"""The examples as what they are: programs, each in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

import aws_io_async

ROOT = Path(aws_io_async.__file__).parent.parent
EXAMPLES = ROOT / "examples"


def start(name: str, *arguments: str, **environment: str) -> "subprocess.Popen[str]":
    """Start an example; what it would only warn of is an error."""
    return subprocess.Popen(
        [sys.executable, "-W", "error", str(EXAMPLES / name), *arguments],
        env={"PATH": os.environ.get("PATH", os.defpath), "PYTHONPATH": str(ROOT), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: "subprocess.Popen[str]") -> str:
    """What it printed; fails if it failed, or printed errors."""
    out, errors = process.communicate(timeout=50)
    assert (process.returncode, errors) == (0, ""), out
    return out


def run(name: str, *arguments: str, **environment: str) -> str:
    """Run an example to its end; what it printed."""
    return finish(start(name, *arguments, **environment))
