"""Python's own view of another process's tasks, `python -m asyncio`, works on our loop."""

import os
import subprocess
import sys

import pytest

PROGRAM = """
import asyncio, aws_io_async
async def wait_for_input():
    print("begun", flush=True)
    await asyncio.to_thread(input)
async def main():
    async with asyncio.TaskGroup() as group:
        group.create_task(wait_for_input(), name="waiting")
aws_io_async.run(main())
"""


@pytest.mark.skipif(sys.version_info < (3, 14), reason="python -m asyncio pstree is of Python 3.14")
def test_pstree() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as watched:
        assert watched.stdin is not None
        assert watched.stdout is not None
        assert watched.stdout.readline() == "begun\n"
        shown = subprocess.run(
            [sys.executable, "-m", "asyncio", "pstree", str(watched.pid)],
            capture_output=True,
            text=True,
            check=False,
        )
        watched.communicate("\n", timeout=50)
    if shown.returncode and os.getuid() != 0:
        pytest.skip(f"this system lets nobody look: {shown.stderr}")
    assert "(T) waiting" in shown.stdout, shown.stderr
    assert "wait_for_input" in shown.stdout
