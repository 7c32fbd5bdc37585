"""Idle channels are small, by the benchmark that measures it, and answer when they are asked."""

import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest

import aws_io_async

ROOT = Path(aws_io_async.__file__).parent.parent
DESCRIPTORS = 10_200
"""What 10,000 clients need, and their server likewise."""

Rows = dict[tuple[str, str], tuple[int, int]]
"""By the kind of server and the loop: bytes for each connection, connections that answered."""


def idle(*arguments: str, shell: str = 'exec "$@"') -> tuple[str, Rows]:
    """What the benchmark prints; `shell` is the command that runs it, as its arguments."""
    benchmark = [sys.executable, "-W", "error", str(ROOT / "examples" / "bench" / "idle.py")]
    done = subprocess.run(
        ["sh", "-c", shell, "sh", *benchmark, *arguments],
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
    )
    assert (done.returncode, done.stderr) == (0, "")
    found = re.findall(r"^  (\S.*?) +(\w+) +(-?[\d,]+)  ([\d,]+) answered", done.stdout, re.M)
    number = {text: int(text.replace(",", "")) for row in found for text in row[2:]}
    return done.stdout, {
        (kind, loop): (number[size], number[answered]) for kind, loop, size, answered in found
    }


def test_a_channel_takes_less_than_asyncios_tls_protocol() -> None:
    _, rows = idle("--count", "200", "TLS protocol", "channel", "TLS channel")
    assert len(rows) == 6
    assert {answered for _, answered in rows.values()} == {200}
    reference, _ = rows["TLS protocol", "asyncio"]
    for loop in ("aws_io_async", "asyncio"):
        plain, tls = (rows[kind, loop][0] for kind in ("channel", "TLS channel"))
        assert 0 < plain < tls < reference


def test_no_more_connections_than_descriptors() -> None:
    few = 'ulimit -n 250 && exec "$@"'
    output, rows = idle("--count", "200", "--loops", "aws_io_async", "channel", shell=few)
    assert "The limit of 250 open files allows only 130 connections.\n" in output
    assert rows["channel", "aws_io_async"][1] == 130


@pytest.mark.skipif(
    0 <= resource.getrlimit(resource.RLIMIT_NOFILE)[1] < DESCRIPTORS,
    reason=f"fewer than {DESCRIPTORS} open files are allowed",
)
def test_ten_thousand_idle_channels_all_answer() -> None:
    _, rows = idle("--loops", "aws_io_async", "channel")
    assert rows["channel", "aws_io_async"][1] == 10_000
