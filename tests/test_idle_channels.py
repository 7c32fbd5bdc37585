"""Idle channels are small, by the benchmark that measures it, and answer when they are asked."""

import resource
from pathlib import Path

import pytest

from tests.bench_runs import measured

DESCRIPTORS = 10_200
"""What 10,000 clients need, and their server likewise."""


def test_a_channel_takes_less_than_asyncios_tls_protocol(tmp_path: Path) -> None:
    loops = ("aws_io_async", "asyncio")
    found = measured(tmp_path, "--only", "^memory", "--connections", "200", *loops)
    (reference,) = found["memory: TLS protocol"]["asyncio"]
    for loop in loops:
        plain, tls = (found[f"memory: {kind}"][loop][0] for kind in ("channel", "TLS channel"))
        assert 0 < plain["value"] < tls["value"] < reference["value"]


@pytest.mark.skipif(
    0 <= resource.getrlimit(resource.RLIMIT_NOFILE)[1] < DESCRIPTORS,
    reason=f"fewer than {DESCRIPTORS} open files are allowed",
)
def test_ten_thousand_idle_channels_all_answer(tmp_path: Path) -> None:
    only = ("--only", "^memory: channel", "--connections", "10000")
    found = measured(tmp_path, *only, "aws_io_async")
    assert found["memory: channel"]["aws_io_async"][0]["value"] > 0
