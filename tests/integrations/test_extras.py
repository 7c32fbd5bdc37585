"""Whoever imports an integration without its library is told what to install."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]


@pytest.mark.parametrize(
    ("module", "missing", "extra"),
    [
        ("aiohttp", "aiohttp", "aiohttp"),
        ("dns", "dns", "dns"),
        ("httpcore", "httpcore", "httpx"),
        ("httpx", "httpx", "httpx"),
        ("httpx", "httpcore", "httpx"),
    ],
)
def test_a_missing_library_is_told_with_its_extra(module: str, missing: str, extra: str) -> None:
    program = f"""
import sys
sys.modules[{missing!r}] = None  # cannot be imported
import aws_io_async.integrations.{module}
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    kind, _, told = done.stderr.splitlines()[-1].partition(": ")
    assert kind == "ModuleNotFoundError"
    # Python 3.15 adds suggestions of its own.
    assert f': pip install "aws-io-async[{extra}]"' in told
    assert extra in EXTRAS
